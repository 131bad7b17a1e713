//! The admin API, as programs and browsers use it.

use crate::gate::{Gate, json};
use rhumb_testkit::client::Client;
use rhumb_testkit::message::Message;
use rhumb_testkit::process::{Finished, Rhumb, finish, python};
use rhumb_testkit::wait;
use serde_json::{Value, json as value};
use std::process::Command;

/// A request to the admin listener, with fields and content.
fn ask(rhumb: &Rhumb, method: &str, path: &str, fields: &str, content: Option<&Value>) -> Message {
    let content = content.map(Value::to_string);
    let length = content.as_ref().map_or_else(String::new, |content| {
        format!("Content-Type: application/json\r\nContent-Length: {}\r\n", content.len())
    });
    let content = content.unwrap_or_default();
    Client::connect(rhumb.admin_address()).exchange(format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}{length}\r\n{content}"
    ))
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn owner(rhumb: &Rhumb) -> String {
    bearer(std::fs::read_to_string(rhumb.admin_token()).expect("a token").trim())
}

/// A token with a role.
fn token(rhumb: &Rhumb, name: &str, role: &str) -> String {
    let made =
        ask(rhumb, "POST", "/api/v1/tokens", &owner(rhumb), Some(&value!({ "name": name, "role": role })));
    assert_eq!(made.status(), 201, "{made:?}");
    json(&made)["token"].as_str().expect("a token").to_owned()
}

fn code(message: &Message) -> String {
    json(message)["code"].as_str().unwrap_or_default().to_owned()
}

fn verb(rhumb: &Rhumb, args: &[&str]) -> Finished {
    let mut command = Rhumb::command();
    command.args(args).args(["--admin", &rhumb.admin_address().to_string()]);
    command.arg("--admin-token-file").arg(rhumb.admin_token());
    finish(command)
}

#[test]
fn the_process_tells_what_it_runs_and_where_that_was_written() {
    let gate = Gate::with(|config| {
        config.route("name: all, match: {path: '/*'}, to: peer").route(
            "name: some, match: {host: api.test, path: /v1}, requestHeaders: {set: {x-a: b}}, to: peer",
        )
    });
    let get = |path: &str| json(&gate.rhumb.admin(&format!("/api/v1{path}")));
    let process = get("/process");
    assert_eq!((&process["kind"], &process["state"]), (&value!("gateway"), &value!("ready")));
    assert_eq!(process["documents"]["owner"], "files");
    let routes = get("/routes");
    let names: Vec<_> =
        routes["items"].as_array().expect("a list").iter().map(|route| &route["route"]).collect();
    assert_eq!(names, ["default/all", "default/some"]);
    let some = &routes["items"][1];
    assert_eq!(some["hostnames"], value!(["api.test"]));
    assert_eq!(some["kind"], "HTTPRoute");
    assert!(some["origin"].as_str().expect("an origin").contains(".yaml:"), "{some}");
    assert!(some["policies"][0]["from"].as_str().expect("an origin").contains("filters[0]"), "{some}");
    let first = get("/routes?limit=1");
    assert_eq!((first["items"].as_array().expect("a list").len(), &first["total"]), (1, &value!(2)));
    let next = first["next"].as_str().expect("more");
    assert_eq!(get(&format!("/routes?cursor={next}"))["items"][0]["route"], "default/some");
    assert_eq!(get("/routes?q=API.test")["total"], 1);
    assert_eq!(get("/backends")["items"][0]["endpoints"][0]["state"], "healthy");
    assert_eq!(get("/health"), value!({ "level": "ok", "checks": [] }));
    let documents = get("/documents?kind=HTTPRoute&name=some");
    assert_eq!(documents["owner"], "files");
    assert_eq!(documents["documents"][0]["document"]["metadata"]["name"], "some");
    assert_eq!(get("/documents/HTTPRoute/default/some")["kind"], "HTTPRoute");

    // What files own is changed where the files are.
    let documents = value!({ "documents": [] });
    let refused = ask(&gate.rhumb, "POST", "/api/v1/documents", &owner(&gate.rhumb), Some(&documents));
    assert_eq!((refused.status(), code(&refused).as_str()), (409, "owned_by_files"));
    let elsewhere = gate.rhumb.admin("/api/v1/revisions");
    assert_eq!((elsewhere.status(), code(&elsewhere).as_str()), (404, "not_in_this_process"));

    // Questions change nothing.
    let answer = ask(
        &gate.rhumb,
        "POST",
        "/api/v1/explain",
        &owner(&gate.rhumb),
        Some(&value!({ "method": "GET", "url": format!("http://api.test:{}/v1", gate.proxy.port()) })),
    );
    assert_eq!(json(&answer)["rule"]["route"], "default/some", "{answer:?}");
    let wrong = value!({ "yaml": "routes:\n- match: {path: /a}\n  tu: x\n" });
    let answer = ask(&gate.rhumb, "POST", "/api/v1/validate", &owner(&gate.rhumb), Some(&wrong));
    let told = &json(&answer)["diagnostics"][0];
    assert_eq!(
        (&told["code"], &told["line"], &told["fix"]),
        (&value!("unknown-field"), &value!(3), &value!("did you mean `to`?"))
    );
    let file = value!({ "yaml": "routes:\n- match: {path: /a}\n  respond: {body: 'file:/etc/hostname'}\n" });
    let answer = ask(&gate.rhumb, "POST", "/api/v1/validate", &owner(&gate.rhumb), Some(&file));
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    assert!(
        host.trim().is_empty() || !answer.text().contains(host.trim()),
        "files are not read for who asks"
    );
}

#[test]
fn what_is_wrong_is_told_with_what_to_do() {
    let gate = Gate::with(|config| {
        config
            .backend(
                "gone",
                "endpoints: ['127.0.0.1:1'], health: {path: /, interval: 50ms, unhealthyThreshold: 1}",
            )
            .route("match: {path: '/*'}, to: gone")
    });
    let health = wait::until("the failing backend is told", || {
        let health = json(&gate.rhumb.admin("/api/v1/health"));
        (health["level"] == "critical").then_some(health)
    });
    let found = &health["checks"][0];
    assert_eq!(
        (&found["code"], &found["about"]["name"]),
        (&value!("backend_down"), &value!("default/gone")),
        "{health}"
    );
    assert!(found["docs"].as_str().is_some_and(|page| page.ends_with(".md")));
    assert_eq!(json(&gate.rhumb.admin("/api/v1/overview"))["level"], "critical");

    gate.rhumb.write_text("routes: 5\n");
    gate.rhumb.signal(rustix::process::Signal::HUP);
    wait::until("the refused configuration is told", || {
        let health = json(&gate.rhumb.admin("/api/v1/health"));
        let mut codes = health["checks"].as_array()?.iter().map(|found| found["code"].clone());
        codes.any(|code| code == "configuration_refused").then_some(())
    });
}

#[test]
fn who_must_not_cannot_and_it_is_written_down() {
    let gate = Gate::new();
    let rhumb = &gate.rhumb;
    let tokens = [
        ("viewer", token(rhumb, "v", "viewer")),
        ("editor", token(rhumb, "e", "editor")),
        ("admin", token(rhumb, "a", "admin")),
    ];
    let openapi = json(&rhumb.admin("/api/v1/openapi.json"));
    let rank = |role: &str| {
        ["none", "viewer", "editor", "admin"].iter().position(|other| *other == role).expect("a role")
    };
    for (path, operations) in openapi["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let needed = operation["x-role"].as_str().expect("a role");
            let target = path
                .replace("{name}", "nothing")
                .replace("{kind}", "x")
                .replace("{namespace}", "x")
                .replace("{revision}", "1");
            // The end of the process, and streams, are looked at elsewhere.
            if ["/api/v1/drain", "/api/v1/watch", "/api/v1/tap", "/api/v1/trace"].contains(&path.as_str())
                && needed != "admin"
            {
                continue;
            }
            let content = (method == "post").then(|| value!({}));
            let method = method.to_uppercase();
            if needed != "none" {
                let nobody = ask(rhumb, &method, &target, "", content.as_ref());
                assert_eq!(
                    (nobody.status(), code(&nobody).as_str()),
                    (401, "credentials_missing"),
                    "{method} {path}"
                );
            }
            for (role, token) in &tokens {
                if path == "/api/v1/drain" && *role == "admin" {
                    continue;
                }
                let answer = ask(rhumb, &method, &target, &bearer(token), content.as_ref());
                let is_refused = answer.status() == 403;
                assert_eq!(is_refused, rank(role) < rank(needed), "{method} {path} {role}: {answer:?}");
            }
        }
    }
    let entries = json(&rhumb.admin("/api/v1/audit?limit=1000"));
    let entries = entries["entries"].as_array().expect("entries");
    let made = entries.iter().find(|entry| entry["path"] == "/api/v1/tokens" && entry["status"] == 201);
    assert_eq!(made.map(|entry| &entry["who"]), Some(&value!("admin")));
    let refused = entries.iter().find(|entry| entry["code"] == "role_insufficient").expect("a refusal");
    assert!(["v", "e"].contains(&refused["who"].as_str().expect("a name")), "{refused}");
    assert!(!entries.iter().any(|entry| entry.to_string().contains("rhumb_v_")), "no secrets");
    // The pages that are older than the API go by roles too.
    let drain = ask(rhumb, "POST", "/drain", &bearer(&tokens[0].1), None);
    assert_eq!((drain.status(), code(&drain).as_str()), (403, "role_insufficient"));
    assert_eq!(ask(rhumb, "GET", "/status", &bearer(&tokens[0].1), None).status(), 200);
}

#[test]
fn a_browser_logs_in_with_a_token_and_other_pages_cannot_use_it() {
    let gate = Gate::new();
    let rhumb = &gate.rhumb;
    let token = token(rhumb, "dash", "editor");
    let wrong = ask(rhumb, "POST", "/api/v1/login", "", Some(&value!({ "token": "rhumb_dash_guess" })));
    assert_eq!((wrong.status(), code(&wrong).as_str()), (401, "credentials_invalid"));
    let login = ask(rhumb, "POST", "/api/v1/login", "", Some(&value!({ "token": token })));
    assert_eq!(login.status(), 204);
    let cookie = login.field("set-cookie").expect("a cookie");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let cookie = format!("Cookie: a=b; {}\r\n", cookie.split(';').next().expect("a pair"));
    let session = json(&ask(rhumb, "GET", "/api/v1/session", &cookie, None));
    assert_eq!(
        (&session["name"], &session["role"], &session["via"]),
        (&value!("dash"), &value!("editor"), &value!("session"))
    );
    let content = value!({ "documents": [] });
    let forged = ask(rhumb, "POST", "/api/v1/documents", &cookie, Some(&content));
    assert_eq!((forged.status(), code(&forged).as_str()), (403, "request_header_missing"));
    let own =
        ask(rhumb, "POST", "/api/v1/documents", &format!("{cookie}X-Rhumb-Request: 1\r\n"), Some(&content));
    assert_eq!(code(&own), "owned_by_files");
    let revoked = ask(rhumb, "DELETE", "/api/v1/tokens/dash", &owner(rhumb), None);
    assert_eq!(revoked.status(), 204);
    assert_eq!(ask(rhumb, "GET", "/api/v1/session", &cookie, None).status(), 401, "it ends with its token");
}

#[test]
fn who_guesses_tokens_is_not_heard_and_who_has_one_is() {
    let gate = Gate::new();
    let rhumb = &gate.rhumb;
    let token = token(rhumb, "ci", "viewer");
    let limited = (0..30).find_map(|_| {
        let answer = ask(rhumb, "POST", "/api/v1/login", "", Some(&value!({ "token": "guess" })));
        (answer.status() == 429).then_some(answer)
    });
    let limited = limited.expect("a limit");
    assert_eq!(code(&limited), "login_limited");
    assert!(limited.field("retry-after").is_some());
    assert_eq!(ask(rhumb, "GET", "/api/v1/process", &bearer("other-guess"), None).status(), 429);
    assert_eq!(ask(rhumb, "GET", "/api/v1/process", &bearer(&token), None).status(), 200);
}

#[test]
fn tokens_are_made_listed_and_taken_back_by_the_command_line() {
    let gate = Gate::new();
    let made = verb(&gate.rhumb, &["token", "admin", "create", "--role", "viewer", "--name", "ci"]);
    assert_eq!(made.code, Some(0), "{}", made.output);
    let token = made.output.lines().find(|line| line.starts_with("rhumb_ci_")).expect("a token").to_owned();
    let list = verb(&gate.rhumb, &["token", "admin", "list"]);
    assert!(
        list.output.contains("ci") && list.output.contains("viewer") && !list.output.contains(&token),
        "{}",
        list.output
    );
    assert_eq!(
        verb(&gate.rhumb, &["token", "admin", "create", "--role", "admin", "--name", "ci"]).code,
        Some(1)
    );
    assert_eq!(ask(&gate.rhumb, "GET", "/api/v1/process", &bearer(&token), None).status(), 200);
    assert_eq!(verb(&gate.rhumb, &["token", "admin", "revoke", "ci"]).code, Some(0));
    assert_eq!(ask(&gate.rhumb, "GET", "/api/v1/process", &bearer(&token), None).status(), 401);
}

#[test]
fn what_changes_is_told_as_it_changes() {
    let gate = Gate::new();
    let mut client = Client::connect(gate.rhumb.admin_address());
    client.send(format!(
        "GET /api/v1/watch?topics=documents,process HTTP/1.0\r\nHost: localhost\r\n{}\r\n",
        owner(&gate.rhumb)
    ));
    let mut text = String::new();
    let mut read_until = |what: &str| {
        while !text.contains(what) {
            text.push_str(&String::from_utf8_lossy(&client.read_exact(1)));
        }
    };
    read_until("event: process\n");
    read_until("event: documents\ndata: {\"revision\":1}\n\n");
    let base = std::fs::read_to_string(gate.rhumb.dir().join("rhumb.yaml")).expect("the configuration");
    gate.rhumb.write_text(&base.replace("/*", "/other/*"));
    gate.rhumb.reload();
    read_until("data: {\"revision\":2}\n\n");
}

/// A stream of events, read as it comes.
struct Events {
    client: Client,
    text: String,
}

impl Events {
    fn open(rhumb: &Rhumb, path: &str, token: &str) -> Self {
        let mut client = Client::connect(rhumb.admin_address());
        client.send(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{}\r\n", bearer(token)));
        Self { client, text: String::new() }
    }

    fn read_until(&mut self, what: &str) -> &str {
        while !self.text.contains(what) {
            self.text.push_str(&String::from_utf8_lossy(&self.client.read_exact(1)));
        }
        &self.text
    }

    /// The data of the next event of a name.
    fn next(&mut self, event: &str) -> Value {
        let begin = format!("event: {event}\ndata: ");
        self.read_until(&begin);
        let from = self.text.find(&begin).expect("the event") + begin.len();
        while !self.text[from..].contains('\n') {
            self.text.push_str(&String::from_utf8_lossy(&self.client.read_exact(1)));
        }
        let data = self.text[from..].lines().next().expect("a line").to_owned();
        self.text.clear();
        serde_json::from_str(&data).expect("JSON")
    }
}

fn owner_token(rhumb: &Rhumb) -> String {
    std::fs::read_to_string(rhumb.admin_token()).expect("a token").trim().to_owned()
}

#[test]
fn a_tap_shows_what_it_was_asked_for_and_no_secrets() {
    let gate = Gate::new();
    let token = token(&gate.rhumb, "ed", "editor");
    let mut tap =
        Events::open(&gate.rhumb, "/api/v1/tap?limit=2&filter=request.path.startsWith(%27/a%27)", &token);
    tap.next("open");
    gate.get("/other");
    gate.get("/a?x=1&access_token=hunter2");
    let seen = tap.next("exchange");
    assert_eq!(
        (&seen["path"], &seen["status"], &seen["backend"]),
        (&value!("/a"), &value!(200), &value!("default/peer")),
        "{seen}"
    );
    assert!(!seen.to_string().contains("hunter2"), "{seen}");
    gate.get("/a/b");
    assert_eq!(tap.next("exchange")["path"], "/a/b");
    assert_eq!(tap.next("end"), value!({ "reason": "limit", "sent": 2 }));

    let wrong = ask(&gate.rhumb, "GET", "/api/v1/tap?filter=request.pat", &bearer(&token), None);
    assert_eq!((wrong.status(), code(&wrong).as_str()), (400, "filter_invalid"));
    assert!(wrong.text().contains("path"), "{wrong:?}");
}

#[test]
fn a_tap_ends_with_the_credentials_that_opened_it() {
    let gate = Gate::new();
    let token = token(&gate.rhumb, "ed", "editor");
    let mut tap = Events::open(&gate.rhumb, "/api/v1/tap", &token);
    tap.next("open");
    assert_eq!(ask(&gate.rhumb, "DELETE", "/api/v1/tokens/ed", &owner(&gate.rhumb), None).status(), 204);
    // Nothing is told any more, and the stream ends.
    tap.client.read_to_end();
}

#[test]
fn a_trace_tells_every_step_and_what_each_policy_changed() {
    let gate = Gate::with(|config| {
        config.route(
            "match: {path: '/*'}, requestHeaders: {set: {x-a: b, x-api-key: hunter2}}, responseHeaders: {set: {x-c: d}}, to: peer",
        )
    });
    let token = owner_token(&gate.rhumb);
    let mut trace = Events::open(
        &gate.rhumb,
        "/api/v1/trace?filter=request.headers%5B%27x-this%27%5D%3D%3D%27one%27",
        &token,
    );
    trace.next("open");
    gate.get("/other");
    gate.connect()
        .exchange("GET /it HTTP/1.1\r\nHost: a.test\r\nX-This: one\r\nAuthorization: Bearer hunter2\r\n\r\n");
    let told = trace.next("trace");
    assert!(!told.to_string().contains("hunter2"), "{told}");
    assert_eq!(told["exchange"]["path"], "/it");
    let steps = told["steps"].as_array().expect("steps");
    let words: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap_or_default()).collect();
    for word in ["received", "routed", "policy", "forwarded", "response", "sent"] {
        assert!(words.contains(&word), "{word} is not in {words:?}");
    }
    let policy = |side: &str| {
        steps.iter().find(|step| step["step"] == "policy" && step["side"] == side).expect("a policy")
    };
    let changes = policy("request")["changes"].as_array().expect("changes");
    assert!(changes.contains(&value!({ "what": "x-a", "before": null, "after": "b" })), "{changes:?}");
    assert!(
        changes.contains(&value!({ "what": "x-api-key", "before": null, "after": "(not shown)" })),
        "{changes:?}"
    );
    assert_eq!(policy("request")["decision"], "continue");
    assert!(policy("response")["origin"].as_str().is_some_and(|origin| origin.contains("rhumb.yaml")));
    let sent = steps.last().expect("a step");
    assert!(sent["message"].as_array().expect("a message").contains(&value!(["x-c", "d"])), "{sent}");
}

#[test]
fn verbs_show_what_is_wrong_and_who_is_asked_for() {
    let gate = Gate::with(|config| {
        config
            .backend(
                "gone",
                "endpoints: ['127.0.0.1:1'], health: {path: /, interval: 50ms, unhealthyThreshold: 1}",
            )
            .route("match: {path: '/*'}, to: gone")
    });
    wait::until("the failing backend is told", || {
        (verb(&gate.rhumb, &["status", "--check"]).code == Some(1)).then_some(())
    });
    let status = verb(&gate.rhumb, &["status"]);
    for part in ["ready, up", "backend_down", "default/gone", "to mend it", "docs/health.md"] {
        assert!(status.output.contains(part), "{part} is not in\n{}", status.output);
    }
    let yaml = verb(&gate.rhumb, &["status", "--check", "-o", "yaml"]);
    assert!(yaml.output.contains("level: critical"), "{}", yaml.output);
    assert_eq!(yaml.code, Some(1));

    let (file, admin) = (gate.rhumb.admin_token(), gate.rhumb.admin_address().to_string());
    let tap = std::thread::spawn(move || {
        let mut command = Rhumb::command();
        command.args(["tap", "response.status >= 500", "--limit", "1", "--admin", &admin]);
        command.arg("--admin-token-file").arg(file);
        finish(command)
    });
    // It is asked again until the tap has seen one: when it is open nobody can tell from here.
    wait::until("the tap ends", || {
        gate.get("/x");
        tap.is_finished().then_some(())
    });
    let tapped = tap.join().expect("no panic");
    assert!(tapped.code == Some(0) && tapped.output.contains("GET"), "{}", tapped.output);
}

#[test]
fn an_independent_reader_of_the_description_finds_nothing_that_is_not_described() {
    let gate = Gate::new();
    let mut command = Command::new(python());
    command.args(["-m", "schemathesis.cli", "run"]);
    command.arg(format!("http://{}/api/v1/openapi.json", gate.rhumb.admin_address()));
    command.arg("-H").arg(owner(&gate.rhumb).trim());
    // What cannot be a fact of one request is not asked: meaning of documents, limits on guessing, streams and the end.
    command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--seed", "1"]);
    command.args(["--exclude-checks", "positive_data_acceptance,ignored_auth"]);
    for path in ["watch", "tap", "trace", "drain", "logout"] {
        command.args(["--exclude-path", &format!("/api/v1/{path}")]);
    }
    command.env("HYPOTHESIS_STORAGE_DIRECTORY", gate.rhumb.dir().join("hypothesis"));
    command.current_dir(gate.rhumb.dir());
    let finished = finish(command);
    assert_eq!(finished.code, Some(0), "{}", finished.output);
}

/// What is planted wherever something secret may be written.
const PLANTED: &str = "hunter2";

#[test]
fn a_bundle_has_what_is_asked_for_and_no_secret() {
    let dir = tempfile::tempdir().expect("a directory");
    let admin = rhumb_testkit::port::free();
    let text = format!(
        "admin:\n  address: '127.0.0.1:{admin}'\n  oidc: {{ issuer: 'http://127.0.0.1:1', clientId: rhumb, clientSecret: {PLANTED}-oidc-secret, \
         roles: [{{ role: viewer, claim: sub }}] }}\nlisteners: {{ web: {{ port: {} }} }}\nbackends: {{ app: '127.0.0.1:9' }}\n\
         consumers: {{ ann: {{ credentials: {{ apiKeys: [{{ name: one, key: {PLANTED}-consumer-key-0123456789 }}] }} }} }}\nroutes:\n\
         - {{ name: keyed, match: {{ path: '/keyed/*' }}, to: app, policies: {{ apiKey: {{}} }}, \
         requestHeaders: {{ set: {{ authorization: 'Bearer {PLANTED}-field', x-api-key: {PLANTED}-named }} }} }}\n\
         - {{ name: token, match: {{ path: '/token/*' }}, to: app, policies: {{ jwt: {{ issuer: 'https://id.test', secret: \
         {PLANTED}-jwt-secret-0123456789-0123456789 }} }} }}\n\
         - {{ name: client, match: {{ path: '/client/*' }}, to: app, policies: {{ oauth2ClientCredentials: {{ tokenUrl: \
         'http://127.0.0.1:9/token', clientId: rhumb, clientSecret: {PLANTED}-client-secret }} }} }}\nsessionKey: {PLANTED}-session-key-0123456789\n",
        rhumb_testkit::port::free()
    );
    std::fs::write(dir.path().join("rhumb.yaml"), text).expect("a file");
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{ name: keys, annotations: {{ kubectl.kubernetes.io/last-applied-configuration: \
         '{PLANTED}-annotation' }} }}\nstringData: {{ password: {PLANTED}-stored }}\n"
    );
    std::fs::create_dir(dir.path().join("more")).expect("a directory");
    std::fs::write(dir.path().join("more/secret.yaml"), secret).expect("a file");
    std::fs::rename(dir.path().join("rhumb.yaml"), dir.path().join("more/rhumb.yaml")).expect("a rename");
    let rhumb = Rhumb::start_on(dir, "more", admin);
    // What requests bring is not kept either.
    let target = format!("/api/v1/session?x={PLANTED}-query");
    ask(&rhumb, "GET", &target, &bearer(&format!("{PLANTED}-wrong-token")), None);

    let file = rhumb.dir().join("case.tar.gz");
    let shown = file.display().to_string();
    let made = verb(&rhumb, &["bundle", "--file", &shown]);
    assert_eq!(made.code, Some(0), "{}", made.output);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let mut unpack = Command::new("tar");
    unpack.args(["xzf", &shown, "-C"]).arg(rhumb.dir());
    assert_eq!(finish(unpack).code, Some(0), "an independent reader opens it");
    let root = rhumb.dir().join("rhumb");
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(root.join("manifest.json")).expect("a manifest"))
            .expect("JSON");
    let files = manifest["files"].as_array().expect("a list");
    for name in [
        "process/started.json",
        "process/metrics.txt",
        "process/messages.txt",
        "api/plan.json",
        "api/documents.json",
        "api/health.json",
        "api/routes.json",
        "api/backends.json",
        "api/certificates.json",
        "api/consumers.json",
        "api/events.json",
        "api/top-route.json",
        "api/edges.json",
        "api/apis.json",
    ] {
        let told =
            files.iter().find(|file| file["name"] == name).unwrap_or_else(|| panic!("{name}: {manifest}"));
        let content = std::fs::read(root.join(name)).expect(name);
        assert_eq!(told["bytes"], content.len(), "{name}");
        assert!(!content.is_empty(), "{name}");
    }
    let left_out = manifest["leftOut"].as_array().expect("a list");
    for name in ["api/audit.json", "api/tokens.json", "api/proxies.json"] {
        assert!(left_out.iter().any(|file| file["name"] == name), "{name}: {manifest}");
    }
    let token = owner_token(&rhumb);
    for file in files {
        let name = file["name"].as_str().expect("a name");
        let content = String::from_utf8_lossy(&std::fs::read(root.join(name)).expect(name)).into_owned();
        let at = content
            .find(PLANTED)
            .map(|at| content[at.saturating_sub(80)..].chars().take(160).collect::<String>());
        assert!(at.is_none(), "{name} has a secret: {at:?}");
        assert!(!content.contains(&token), "{name} has the token");
    }
    let documents = std::fs::read_to_string(root.join("api/documents.json")).expect("documents");
    assert!(documents.contains("(not shown)") && documents.contains("keyed"));
    // It is for admins.
    let editor = self::token(&rhumb, "dev", "editor");
    let refused = ask(&rhumb, "GET", "/api/v1/bundle", &bearer(&editor), None);
    assert_eq!((refused.status(), code(&refused).as_str()), (403, "role_insufficient"));
    // What is there is not written over.
    assert_ne!(verb(&rhumb, &["bundle", "--file", &shown]).code, Some(0));
}

#[test]
fn a_request_is_really_sent_and_told_step_by_step() {
    let gate = Gate::with(|config| {
        config
            .route("name: all, match: {path: '/*'}, to: peer")
            .route("name: shop, match: {host: shop.test, path: '/cart/*'}, requestHeaders: {set: {x-a: b}}, to: peer")
            .route("name: shut, match: {path: /shut}, respond: {status: 403, body: no}")
    });
    let rhumb = &gate.rhumb;
    let editor = bearer(&token(rhumb, "dev", "editor"));
    let attempt = |fields: &str, content: Value| ask(rhumb, "POST", "/api/v1/try", fields, Some(&content));
    let url = |path: &str| format!("http://shop.test:{}{path}", gate.proxy.port());
    let sent = attempt(
        &editor,
        value!({ "method": "POST", "url": url("/cart/7?x=1"), "headers": ["X-Own: mine", "Authorization: Bearer hunter2"], "body": "five" }),
    );
    assert_eq!(sent.status(), 200, "{}", sent.text());
    let sent = json(&sent);
    assert_eq!(sent["status"], 200, "{sent}");
    let body = sent["body"].as_str().expect("content");
    assert!(body.contains("x-own") && body.contains("x-a"), "the backend has got it: {body}");
    let steps = sent["trace"]["steps"].as_array().expect("its trace");
    let step = |name: &str| {
        steps.iter().find(|step| step["step"] == name).unwrap_or_else(|| panic!("{name}: {sent}"))
    };
    assert_eq!(step("routed")["route"], "default/shop");
    assert!(
        steps.iter().any(|step| step["policy"] == "headerModifier" && step["changes"][0]["what"].is_string()),
        "{sent}"
    );
    assert_eq!(sent["trace"]["exchange"]["status"], 200);
    assert!(!sent["trace"].to_string().contains("hunter2"), "{sent}");
    let shut = json(&attempt(&editor, value!({ "method": "GET", "url": url("/shut") })));
    assert_eq!((&shut["status"], &shut["body"]), (&value!(403), &value!("no")), "{shut}");

    // It is for a listener of this process, and for nothing else.
    for (content, status, expected) in [
        (
            value!({ "method": "GET", "url": format!("http://{}/", rhumb.admin_address()) }),
            400,
            "request_invalid",
        ),
        (
            value!({ "method": "GET", "url": format!("http://127.0.0.1:{}/", gate.backend.address().port()) }),
            400,
            "request_invalid",
        ),
        (value!({ "method": "GET", "url": "https://shop.test/" }), 400, "request_invalid"),
        (value!({ "method": "GET", "url": "file:///etc/passwd" }), 400, "request_invalid"),
        (
            value!({ "method": "GET", "url": url("/"), "headers": ["Transfer-Encoding: chunked"] }),
            400,
            "request_invalid",
        ),
        (value!({ "method": "GET", "url": url("/"), "headers": ["a: b\r\nc: d"] }), 400, "request_invalid"),
        (value!({ "method": "PUT", "url": url("/"), "body": "x".repeat(70_000) }), 413, "content_too_large"),
    ] {
        let refused = attempt(&editor, content.clone());
        assert_eq!(
            (refused.status(), code(&refused).as_str()),
            (status, expected),
            "{content}: {}",
            refused.text()
        );
    }
    let viewer = bearer(&token(rhumb, "guest", "viewer"));
    let refused = attempt(&viewer, value!({ "method": "GET", "url": url("/") }));
    assert_eq!((refused.status(), code(&refused).as_str()), (403, "role_insufficient"));
    let audit = json(&ask(rhumb, "GET", "/api/v1/audit", &owner(rhumb), None));
    let by = |who: &str, result: &str| {
        let mut entries = audit["entries"].as_array().expect("entries").iter();
        entries
            .any(|entry| entry["path"] == "/api/v1/try" && entry["who"] == who && entry["result"] == result)
    };
    assert!(by("dev", "done") && by("guest", "refused"), "{audit}");

    let shown = verb(rhumb, &["try", "GET", &url("/cart/1")]);
    assert_eq!(shown.code, Some(0), "{}", shown.output);
    assert!(
        shown.output.starts_with("200 in ") && shown.output.contains("route default/shop rule 0"),
        "{}",
        shown.output
    );
    assert_eq!(verb(rhumb, &["try", "GET", "nowhere"]).code, Some(2));
}
