//! Who may ask the admin listener for what: people through an identity provider, programs by its tokens, and clients by
//! certificates.

use std::path::Path;
use std::process::Command;

use crate::gate::{json, local};
use rhumb_testkit::cert::{Authority, Identity};
use rhumb_testkit::client::Client;
use rhumb_testkit::message::Message;
use rhumb_testkit::port;
use rhumb_testkit::process::{Finished, Program, Rhumb, finish, serve_script};
use rhumb_testkit::wait;
use serde_json::{Value, json as value};
use tempfile::TempDir;

/// The identity provider of the tests; whoever comes is let in.
pub(crate) struct Provider {
    dir: TempDir,
    port: u16,
    _program: Program,
}

impl Provider {
    pub(crate) fn start() -> Self {
        let (dir, port) = (tempfile::tempdir().expect("a directory"), port::free());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/identity_provider.py");
        let (state, log) = (dir.path().display().to_string(), dir.path().join("log"));
        let program = serve_script(script.as_ref(), &[&state], port, &log);
        Self { dir, port, _program: program }
    }

    fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn ask(&self, path: &str, ask: &Value) -> String {
        let content = ask.to_string();
        let answer = Client::connect(local(self.port)).exchange(format!(
            "POST {path} HTTP/1.1\r\nHost: id.test\r\nContent-Length: {}\r\n\r\n{content}",
            content.len()
        ));
        assert_eq!(answer.status(), 200, "{path} {ask}: {}", answer.text());
        answer.text()
    }

    /// What the next ID token says otherwise than it would.
    pub(crate) fn next(&self, claims: &Value) {
        self.ask("/next", &value!({ "claims": claims }));
    }

    fn token(&self, claims: &Value) -> String {
        self.ask("/token", &value!({ "alg": "RS256", "claims": claims }))
    }

    /// A process whose admin listener lets in whom the provider knows.
    pub(crate) fn gate(&self) -> Rhumb {
        let (dir, admin) = (tempfile::tempdir().expect("a directory"), port::free());
        let text = format!(
            "admin:\n  address: '127.0.0.1:{admin}'\n  directory: operators\n  hosts: [ops.test]\n  oidc:\n    issuer: '{}'\n    \
             name: The Provider\n    clientId: rhumb\n    clientSecret: the secret\n    scopes: [groups]\n    audiences: [rhumb-api]\n    \
             roles:\n    - {{ role: viewer, claim: groups, values: [staff] }}\n    - {{ role: editor, claim: groups, values: [dev] }}\n    \
             - {{ role: admin, claim: /realm/roles, values: [ops] }}\nlisteners: {{ web: {{ port: {} }} }}\n\
             routes: [{{ match: {{ path: '/*' }}, respond: {{ status: 200, body: hello }} }}]\n",
            self.issuer(),
            port::free()
        );
        std::fs::write(dir.path().join("rhumb.yaml"), text).expect("a writable directory");
        Rhumb::start_on(dir, "rhumb.yaml", admin)
    }
}

fn ask(rhumb: &Rhumb, method: &str, path: &str, fields: &str) -> Message {
    Client::connect(rhumb.admin_address())
        .exchange(format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{fields}\r\n"))
}

/// The cookie that an answer sets, and its attributes.
fn cookie(answer: &Message) -> Option<(String, String)> {
    let line = answer.field("set-cookie")?;
    let (pair, attributes) = line.split_once(';')?;
    Some((pair.to_owned(), attributes.to_owned()))
}

fn code(answer: &Message) -> String {
    json(answer)["code"].as_str().unwrap_or_default().to_owned()
}

/// A browser's way through a login: to the provider, and back with what it says.
struct Visit {
    back: String,
    cookie: String,
    host: String,
}

impl Visit {
    fn begin(rhumb: &Rhumb) -> Self {
        let host = rhumb.admin_address().to_string();
        let begun = ask(rhumb, "GET", "/api/v1/login/oidc?return=/ui/tap", &format!("Host: {host}\r\n"));
        assert_eq!(begun.status(), 302, "{}", begun.text());
        let (cookie, attributes) = cookie(&begun).expect("a cookie that ties the login to the browser");
        assert!(attributes.contains("HttpOnly") && attributes.contains("SameSite=Lax"), "{attributes}");
        let location = begun.field("location").expect("a place to go to").to_owned();
        for part in
            ["response_type=code", "code_challenge_method=S256", "nonce=", "state=", "scope=openid%20groups"]
        {
            assert!(location.contains(part), "{location}");
        }
        let (provider, target) =
            location.strip_prefix("http://").expect("http").split_once('/').expect("a path");
        let there = Client::connect(provider.parse().expect("an address"))
            .exchange(format!("GET /{target} HTTP/1.1\r\nHost: {provider}\r\nConnection: close\r\n\r\n"));
        let back = there.field("location").expect("the way back").to_owned();
        let back = back.strip_prefix(&format!("http://{host}")).expect("the same host").to_owned();
        Self { back, cookie, host }
    }

    fn end(&self, rhumb: &Rhumb, more: &str) -> Message {
        let fields = format!("Host: {}\r\nCookie: {}\r\n{more}", self.host, self.cookie);
        ask(rhumb, "GET", &self.back, &fields)
    }
}

/// The fields of a browser that is logged in.
fn session(answer: &Message) -> String {
    let (cookie, attributes) = cookie(answer).expect("a session");
    assert!(attributes.contains("HttpOnly") && attributes.contains("SameSite=Strict"), "{attributes}");
    format!("Cookie: {cookie}\r\n")
}

fn owner(rhumb: &Rhumb) -> String {
    let token = std::fs::read_to_string(rhumb.admin_token()).expect("a token");
    format!("Host: localhost\r\nAuthorization: Bearer {}\r\n", token.trim())
}

#[test]
fn people_log_in_at_the_provider_and_their_claims_say_what_they_may_do() {
    let provider = Provider::start();
    let rhumb = provider.gate();
    let ways = json(&ask(&rhumb, "GET", "/api/v1/login", "Host: localhost\r\n"));
    assert_eq!(ways["oidc"]["name"], "The Provider");
    for (claims, role, tap) in [
        (value!({ "groups": ["staff"], "email": "ann@example.com" }), "viewer", 403),
        (value!({ "groups": ["staff", "dev"], "email": "bob@example.com" }), "editor", 400),
        (value!({ "realm": { "roles": ["ops"] }, "email": "root@example.com" }), "admin", 400),
    ] {
        provider.next(&claims);
        let visit = Visit::begin(&rhumb);
        let back = visit.end(&rhumb, "");
        assert_eq!((back.status(), back.field("location")), (302, Some("/ui/tap")), "{}", back.text());
        let fields = format!("Host: {}\r\n{}", visit.host, session(&back));
        let who = json(&ask(&rhumb, "GET", "/api/v1/session", &fields));
        assert_eq!(
            (&who["name"], &who["role"], &who["via"]),
            (&claims["email"], &value!(role), &value!("session"))
        );
        assert!(who["expiresAt"].as_u64().is_some_and(|at| at > 0), "it ends with the token: {who}");
        let tapped = ask(&rhumb, "GET", "/api/v1/tap?filter=(", &fields);
        assert_eq!(tapped.status(), tap, "{role}: {}", tapped.text());
        // The answer of the provider is good once: its code is used up.
        let again = visit.end(&rhumb, "");
        assert_eq!((again.status(), code(&again).as_str()), (401, "credentials_invalid"));
        let out = ask(
            &rhumb,
            "POST",
            "/api/v1/logout",
            &format!("{fields}X-Rhumb-Request: 1\r\nContent-Length: 0\r\n"),
        );
        assert_eq!(out.status(), 204);
        assert_eq!(ask(&rhumb, "GET", "/api/v1/session", &fields).status(), 401);
    }
    let audit = json(&ask(&rhumb, "GET", "/api/v1/audit", &owner(&rhumb)));
    let entries = audit["entries"].as_array().expect("entries");
    for name in ["ann@example.com", "bob@example.com", "root@example.com"] {
        let is_told = entries
            .iter()
            .any(|entry| entry["who"] == name && entry["path"] == "/api/v1/login/oidc/callback");
        assert!(is_told, "{audit}");
    }
    assert!(rhumb.dir().join("operators").is_dir(), "the directory of the configuration is used");
    let log = rhumb.log();
    for secret in ["the secret", "code=", "nonce=", "state="] {
        assert!(!log.contains(secret), "the log has {secret:?}");
    }
}

#[test]
fn who_the_provider_does_not_vouch_for_is_nobody() {
    let provider = Provider::start();
    let rhumb = provider.gate();
    let good = value!({ "groups": ["staff"] });
    for (wrong, status, expected) in [
        (value!({ "iss": "http://127.0.0.1:1" }), 401, "credentials_invalid"),
        (value!({ "aud": "another-client" }), 401, "credentials_invalid"),
        (value!({ "nonce": "another" }), 401, "credentials_invalid"),
        (value!({ "exp": 1_000_000_000 }), 401, "credentials_invalid"),
        (value!({ "exp": null }), 401, "credentials_invalid"),
        (value!({ "groups": ["guests"], "email": "eve@example.com" }), 403, "role_missing"),
        (value!({ "groups": null, "email": "eve@example.com" }), 403, "role_missing"),
    ] {
        let mut claims = good.clone();
        for (name, claim) in wrong.as_object().expect("an object") {
            claims[name] = claim.clone();
        }
        provider.next(&claims);
        let visit = Visit::begin(&rhumb);
        let back = visit.end(&rhumb, "");
        assert_eq!((back.status(), code(&back).as_str()), (status, expected), "{wrong}: {}", back.text());
        assert!(cookie(&back).is_none(), "{wrong}");
    }
    // Who was let in is sent on; who was not is told at the sign-in page.
    provider.next(&value!({ "groups": [] }));
    let page = Visit::begin(&rhumb).end(&rhumb, "Accept: text/html\r\n");
    assert_eq!((page.status(), page.field("location")), (302, Some("/ui/?refused=role_missing")));

    provider.next(&good);
    let visit = Visit::begin(&rhumb);
    let other =
        Visit { cookie: "rhumb_login=x".to_owned(), back: visit.back.clone(), host: visit.host.clone() };
    assert_eq!(code(&other.end(&rhumb, "")), "credentials_invalid", "a link of another's logs nobody in");
    let forged = Visit { back: "/api/v1/login/oidc/callback?code=x&state=y".to_owned(), ..visit };
    assert_eq!(code(&forged.end(&rhumb, "")), "credentials_invalid");
    for elsewhere in ["//evil.test/", "/%5cevil.test", "https://evil.test/", "ui"] {
        let path = format!("/api/v1/login/oidc?return={elsewhere}");
        let answer = ask(&rhumb, "GET", &path, "Host: localhost\r\n");
        assert_eq!((answer.status(), code(&answer).as_str()), (400, "parameter_invalid"), "{elsewhere}");
    }
    // Names under which it may be asked are those that are written.
    assert_eq!(ask(&rhumb, "GET", "/api/v1/login", "Host: ops.test\r\n").status(), 200);
    let rebound = ask(&rhumb, "GET", "/api/v1/login", "Host: evil.test\r\n");
    assert_eq!((rebound.status(), code(&rebound).as_str()), (421, "host_refused"));
    assert!(rebound.text().contains("admin.hosts"));
}

#[test]
fn programs_show_tokens_of_the_provider() {
    let provider = Provider::start();
    let rhumb = provider.gate();
    let get = |claims: Value| {
        let token = provider.token(&claims);
        ask(&rhumb, "GET", "/api/v1/session", &format!("Host: ops.test\r\nAuthorization: Bearer {token}\r\n"))
    };
    let who = get(value!({ "aud": "rhumb-api", "groups": ["dev"], "sub": "ci" }));
    assert_eq!(who.status(), 200, "{}", who.text());
    let who = json(&who);
    assert_eq!(
        (&who["name"], &who["role"], &who["via"]),
        (&value!("ci"), &value!("editor"), &value!("provider"))
    );
    for (claims, status, expected) in [
        (value!({ "aud": "api", "groups": ["dev"] }), 401, "credentials_invalid"),
        (value!({ "aud": "rhumb", "groups": ["dev"] }), 401, "credentials_invalid"),
        (
            value!({ "aud": "rhumb-api", "iss": "http://127.0.0.1:1", "groups": ["dev"] }),
            401,
            "credentials_invalid",
        ),
        (value!({ "aud": "rhumb-api", "exp": 1_000_000_000, "groups": ["dev"] }), 401, "credentials_invalid"),
        (value!({ "aud": "rhumb-api", "exp": null, "groups": ["dev"] }), 401, "credentials_invalid"),
        (value!({ "aud": "rhumb-api" }), 403, "role_missing"),
    ] {
        let answer = get(claims.clone());
        assert_eq!((answer.status(), code(&answer).as_str()), (status, expected), "{claims}");
    }
    // Five were wrong; five more, and nobody is heard from here for a while: not even with what was never tried.
    let craft = value!({ "header": "{\"alg\":\"none\"}", "claims": "{\"iss\":\"$ISSUER\"}", "sign": "none" });
    let forged = provider.ask("/craft", &craft);
    for _ in 0..5 {
        let fields = format!("Host: localhost\r\nAuthorization: Bearer {forged}\r\n");
        assert_eq!(ask(&rhumb, "GET", "/api/v1/session", &fields).status(), 401);
    }
    let limited = get(value!({ "aud": "rhumb-api", "groups": ["dev"] }));
    assert_eq!((limited.status(), code(&limited).as_str()), (429, "login_limited"));
    assert!(limited.field("retry-after").is_some());
    assert_eq!(
        ask(&rhumb, "GET", "/api/v1/session", &owner(&rhumb)).status(),
        200,
        "nobody locks the owner out"
    );
    assert!(provider.dir.path().is_dir());
}

/// `curl`, with TLS.
fn curl(dir: &Path, url: &str, identity: Option<&Identity>, more: &[&str]) -> Finished {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "20", "-w", "\n%{http_code}", "--cacert"]).arg(dir.join("ca.pem"));
    if let Some(identity) = identity {
        let (certificate, key) = identity.write(dir, "client");
        command.arg("--cert").arg(certificate).arg("--key").arg(key);
    }
    command.args(more).arg(url);
    finish(command)
}

#[test]
fn clients_are_known_by_their_certificates() {
    let (servers, clients, others) =
        (Authority::new("servers"), Authority::new("clients"), Authority::new("others"));
    let (dir, admin, web) = (tempfile::tempdir().expect("a directory"), port::free(), port::free());
    servers.server(&["localhost"]).write(dir.path(), "admin");
    std::fs::write(dir.path().join("ca.pem"), servers.pem()).expect("a file");
    std::fs::write(dir.path().join("clients.pem"), clients.pem()).expect("a file");
    let text = format!(
        "admin:\n  address: '127.0.0.1:{admin}'\n  tls: {{ certificate: file:admin.crt, key: file:admin.key, clientCa: file:clients.pem }}\n  clients:\n  \
         - {{ role: admin, names: ['spiffe://ops.test/ns/ops/sa/root'] }}\n  - {{ role: editor, names: ['spiffe://ops.test/ns/ops/*'] }}\n  \
         - {{ role: viewer, names: [robot.ops.test] }}\nlisteners: {{ web: {{ port: {web} }} }}\n\
         routes: [{{ match: {{ path: '/*' }}, respond: {{ status: 200, body: hello }} }}]\n"
    );
    std::fs::write(dir.path().join("rhumb.yaml"), text).expect("a file");
    let mut command = Rhumb::command();
    command.arg("run").arg("-c").arg(dir.path().join("rhumb.yaml")).current_dir(dir.path());
    command.env("RHUMB_ADMIN_TOKEN_FILE", dir.path().join("token"));
    let program = Program::start(command, &dir.path().join("rhumb.log"));
    wait::until("the gateway serves", || {
        Client::try_connect(local(web)).ok().map(|mut client| client.get("a.test", "/").status())
    });
    let url = |path: &str| format!("https://localhost:{admin}{path}");
    let role = |identity: Option<&Identity>| {
        let finished = curl(dir.path(), &url("/api/v1/session"), identity, &[]);
        assert_eq!(finished.code, Some(0), "{}\n{}", finished.output, program.log());
        let (content, status) = finished.output.trim_end().rsplit_once('\n').expect("a status");
        let content: Value = serde_json::from_str(content).expect("JSON");
        let told = if status == "200" { &content["role"] } else { &content["code"] };
        format!("{status} {}", told.as_str().unwrap_or_default())
    };
    assert_eq!(role(Some(&clients.workload("spiffe://ops.test/ns/ops/sa/root"))), "200 admin");
    assert_eq!(role(Some(&clients.workload("spiffe://ops.test/ns/ops/sa/deployer"))), "200 editor");
    assert_eq!(role(Some(&clients.client(&["robot.ops.test"]))), "200 viewer");
    assert_eq!(role(Some(&clients.workload("spiffe://ops.test/ns/shop/sa/web"))), "401 credentials_missing");
    assert_eq!(role(None), "401 credentials_missing");
    // One that another CA has signed gets no connection, whatever it says.
    let forged = others.workload("spiffe://ops.test/ns/ops/sa/root");
    let refused = curl(dir.path(), &url("/api/v1/session"), Some(&forged), &[]);
    assert_ne!(refused.code, Some(0), "{}", refused.output);
    // A browser shows its certificate by itself: what another site has it send is not done.
    let root = clients.workload("spiffe://ops.test/ns/ops/sa/root");
    for path in ["/drain", "/api/v1/drain"] {
        let post = ["-X", "POST", "-H", "Origin: https://evil.test"];
        let forged = curl(dir.path(), &url(path), Some(&root), &post);
        assert!(forged.output.contains("request_header_missing"), "{}", forged.output);
    }
    let made =
        ["-X", "POST", "-H", "Content-Type: application/json", "-d", "{\"name\":\"ci\",\"role\":\"viewer\"}"];
    let made = curl(dir.path(), &url("/api/v1/tokens"), Some(&root), &made);
    assert!(made.output.ends_with("201"), "{}", made.output);
    let audit = curl(dir.path(), &url("/api/v1/audit"), Some(&root), &[]);
    assert!(
        audit.output.contains(
            "\"who\":\"spiffe://ops.test/ns/ops/sa/root\",\"role\":\"admin\",\"via\":\"certificate\""
        ),
        "{}",
        audit.output
    );
    assert!(Client::connect(local(admin)).try_send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").is_ok());
}

#[test]
fn a_control_plane_and_its_command_line_speak_tls_and_know_operators() {
    let provider = Provider::start();
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (dir, admin, listen) = (tempfile::tempdir().expect("a directory"), port::free(), port::free());
    servers.server(&["localhost"]).write(dir.path(), "admin");
    std::fs::write(dir.path().join("ca.pem"), servers.pem()).expect("a file");
    std::fs::write(dir.path().join("clients.pem"), clients.pem()).expect("a file");
    let access = |name: &str| {
        format!(
            "apiVersion: rhumb.dev/v1alpha1\nkind: ProxyConfig\nmetadata: {{ name: access }}\nspec:\n  admin:\n    \
             address: '127.0.0.1:{admin}'\n    tls: {{ certificate: file:admin.crt, key: file:admin.key, clientCa: file:clients.pem }}\n    \
             clients: [{{ role: editor, names: [{name}] }}]\n    oidc: {{ issuer: '{}', clientId: rhumb, clientSecret: the secret, \
             roles: [{{ role: viewer, claim: groups, values: [staff] }}] }}\n",
            provider.issuer()
        )
    };
    let write = |text: String| {
        std::fs::write(dir.path().join(".new"), text).expect("a file");
        std::fs::rename(dir.path().join(".new"), dir.path().join("access.yaml")).expect("a rename");
    };
    write(access("deployer.test"));
    let mut command = Rhumb::command();
    command.arg("control").current_dir(dir.path()).args([
        "--directory",
        "control",
        "--authority",
        "authority",
    ]);
    command.args(["--listen", &format!("127.0.0.1:{listen}"), "--config", "access.yaml"]);
    command.args(["--admin-token-file", "token"]);
    let program = Program::start(command, &dir.path().join("log"));

    let (certificate, key) = clients.client(&["deployer.test"]).write(dir.path(), "deployer");
    let verb = |args: &[&str], identity: &[&str]| {
        let mut command = Rhumb::command();
        command.current_dir(dir.path()).args(args).args(["--admin", &format!("127.0.0.1:{admin}")]);
        command.args(["--admin-ca", "ca.pem", "--admin-name", "localhost"]).args(identity);
        finish(command)
    };
    let by_token = ["--admin-token-file", "token"];
    wait::until("the control plane answers people", || {
        (verb(&["get"], &by_token).code == Some(0)).then_some(()).or_else(|| {
            assert!(!program.log().contains("Error"), "{}", program.log());
            None
        })
    });
    let shown = [certificate.to_str().expect("UTF-8"), key.to_str().expect("UTF-8")];
    let by_certificate = ["--admin-cert", shown[0], "--admin-key", shown[1]];
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: orders}\nspec: {ports: [{port: 80}]}\n";
    std::fs::write(dir.path().join("service.yaml"), service).expect("a file");
    let applied = verb(&["apply", "service.yaml"], &by_certificate);
    assert_eq!(applied.code, Some(0), "{}\n{}", applied.output, program.log());
    let history = verb(&["history"], &by_certificate);
    assert!(history.output.contains("deployer.test"), "who made it is written down: {}", history.output);
    // Without TLS, by another name, and by who is not named: nothing.
    let mut plain = Rhumb::command();
    plain.current_dir(dir.path()).args(["get", "--admin", &format!("127.0.0.1:{admin}")]).args(by_token);
    assert_ne!(finish(plain).code, Some(0));

    // A control plane asks the provider too.
    let token = provider.token(&value!({ "aud": "rhumb", "groups": ["staff"] }));
    let header = format!("Authorization: Bearer {token}");
    let url = format!("https://localhost:{admin}/api/v1/session");
    let who = curl(dir.path(), &url, None, &["-H", &header]);
    assert!(
        who.output.contains("\"role\":\"viewer\"") && who.output.ends_with("200"),
        "{}\n{}",
        who.output,
        program.log()
    );

    // What the file says is followed; what has mistakes is not.
    write("kind: nothing\n".to_owned());
    assert_eq!(verb(&["get"], &by_certificate).code, Some(0));
    write(access("somebody-else.test"));
    wait::until("the change is in force", || (verb(&["get"], &by_certificate).code != Some(0)).then_some(()));
    assert_eq!(verb(&["get"], &by_token).code, Some(0), "{}", program.log());
}
