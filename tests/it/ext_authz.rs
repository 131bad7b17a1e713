//! Another service decides: over gRPC with grpcio and Envoy's own message types, and over HTTP.

use crate::gate::{Gate, problem, seen};
use rhumb_testkit::message::{Kind, Message};
use rhumb_testkit::port;
use rhumb_testkit::process::{Program, serve_script};
use rhumb_testkit::wait;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn peer() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/peers/ext_authz.py").into()
}

/// A service of a kind, and its port.
fn service(kind: &str, dir: &Path) -> (Program, u16) {
    let port = port::free();
    (serve_script(&peer(), &[kind], port, &dir.join("service.log")), port)
}

/// The proxy with the policy on everything, and the service.
fn gate(kind: &str, more: &str) -> (Gate, Program, TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let (service, port) = service(kind, dir.path());
    let target = match kind {
        "grpc" => "grpc: {backend: authz}".to_owned(),
        _ => format!("http: {{url: 'http://127.0.0.1:{port}/verify'}}"),
    };
    let gate = Gate::with(|config| {
        config
            .backend("authz", &format!("endpoints: ['127.0.0.1:{port}'], protocol: h2c"))
            .route(&format!("match: {{path: '/*'}}, to: peer, policies: {{extAuthz: {{{target}{more}}}}}"))
    });
    (gate, service, dir)
}

fn ask(gate: &Gate, method: &str, target: &str, fields: &str, content: &str) -> Message {
    let length =
        if content.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", content.len()) };
    gate.connect()
        .exchange(format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\n{fields}{length}\r\n{content}"))
}

#[test]
fn over_grpc_the_service_decides_and_changes_the_request() {
    let (gate, _service, _dir) =
        gate("grpc", ", contextExtensions: {tenant: blue}, content: {limit: 32}, timeout: 3s");
    let fields = "X-A: 1\r\nX-a: 2\r\nX-User: root\r\nX-Secret: s\r\nX-List: a\r\n";
    let passed = ask(&gate, "POST", "/allow/echo?q=1", fields, "good content");
    assert_eq!((passed.status(), passed.field("x-asked")), (200, Some("1")));
    assert_eq!(seen(&passed, "x-user").as_deref(), Some("ann"));
    assert_eq!(seen(&passed, "x-secret"), None);
    assert_eq!(
        seen(&passed, "x-facts").as_deref(),
        Some("POST|a.test|/allow/echo?q=1|http|1,2|12|good content|127.0.0.1|blue|a.test")
    );
    let lines: Vec<_> = gate.backend.seen().last().expect("a request").message.fields.clone();
    let list: Vec<_> = lines.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-list")).collect();
    assert_eq!(list.len(), 2, "appended: {lines:?}");
    assert_eq!(gate.backend.seen().last().expect("a request").length, 12);

    let refused = ask(&gate, "GET", "/deny/echo", "", "");
    assert_eq!((refused.status(), refused.text().as_str()), (401, "not you"));
    assert_eq!(refused.field("www-authenticate"), Some("Bearer realm=\"x\""));
    assert_eq!(ask(&gate, "POST", "/allow/echo", "", "something evil").status(), 401);
    let too_large = ask(&gate, "POST", "/allow/echo", "", &"x".repeat(33));
    assert_eq!((too_large.status(), problem(&too_large).as_str()), (413, "content_too_large"));
    let broken = ask(&gate, "GET", "/broken/echo", "", "");
    assert_eq!((broken.status(), problem(&broken).as_str()), (503, "authorization_unavailable"));
}

#[test]
fn over_http_a_status_decides_and_its_answer_is_the_clients() {
    let (gate, service, _dir) = gate(
        "http",
        ", identityFields: [x-user, x-facts], clientFields: [set-cookie], subjectField: x-user, content: {limit: 1Ki, partial: true}",
    );
    let fields = "Authorization: Bearer t\r\nX-User: root\r\n";
    let passed = ask(&gate, "POST", "/allow/echo?q=1", fields, "good");
    assert_eq!((passed.status(), passed.field("set-cookie")), (200, Some("s=1")));
    assert_eq!(seen(&passed, "x-user").as_deref(), Some("ann"));
    assert_eq!(
        seen(&passed, "x-facts").as_deref(),
        Some("POST|/verify|POST|a.test|/allow/echo?q=1|http|127.0.0.1|Bearer t|good")
    );
    let refused = ask(&gate, "GET", "/deny/echo", "", "");
    assert_eq!((refused.status(), refused.text().as_str()), (401, "not you\n"));
    assert_eq!(refused.field("www-authenticate"), Some("Basic"));
    let login = ask(&gate, "GET", "/login/echo", "", "");
    assert_eq!((login.status(), login.field("location")), (302, Some("https://id.test/login")));
    assert!(login.content.is_empty());
    let broken = ask(&gate, "GET", "/broken/echo", "", "");
    assert_eq!((broken.status(), problem(&broken).as_str()), (503, "authorization_unavailable"));
    // Whoever reads the content asks for it, and the backend does not have to.
    let mut client = gate.connect();
    client.send(
        "POST /allow/echo HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
    );
    assert_eq!(client.next_response(Kind::Response).status(), 100);
    client.send("good");
    let passed = client.response();
    assert_eq!((passed.status(), seen(&passed, "expect")), (200, None));
    wait::until("the record", || gate.rhumb.log().contains("\"principal\":\"ann\"").then_some(()));
    drop(service);
    let away = ask(&gate, "GET", "/allow/echo", "", "");
    assert_eq!((away.status(), problem(&away).as_str()), (503, "authorization_unavailable"));
}

#[test]
fn content_that_was_read_for_the_service_arrives_whole() {
    let (gate, _service, _dir) = gate("http", ", content: {limit: 1Ki, partial: true}");
    for length in [1, 1023, 1024, 1025, 70_000, 3 << 20] {
        let content = "z".repeat(length);
        let passed = ask(&gate, "POST", "/allow/echo", "", &content);
        assert_eq!(passed.status(), 200, "{length}");
        assert_eq!(gate.backend.seen().last().expect("a request").length, length as u64);
        let chunked = gate.connect().exchange(format!(
            "POST /allow/echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{content}\r\n0\r\nX-T: 1\r\n\r\n"
        ));
        assert_eq!(chunked.status(), 200, "{length}");
        assert_eq!(gate.backend.seen().last().expect("a request").length, length as u64);
    }
}

#[test]
fn decisions_are_kept_and_a_service_that_is_away_can_be_done_without() {
    let (gate, service, _dir) = gate(
        "http",
        ", clientFields: [x-asked], onFailure: Allow, cache: {key: ['request.headers[\"authorization\"]', request.path], time: 60s}",
    );
    let times = |target: &str, token: &str| {
        let answer = ask(&gate, "GET", target, &format!("Authorization: {token}\r\n"), "");
        answer.field("x-asked").map(str::to_owned)
    };
    assert_eq!(times("/allow/echo", "a").as_deref(), Some("1"));
    assert_eq!(times("/allow/echo", "a").as_deref(), Some("1"));
    assert_eq!(times("/allow/echo", "b").as_deref(), Some("2"));
    assert_eq!(times("/allow/echo/x", "b").as_deref(), Some("3"));
    assert_eq!(ask(&gate, "GET", "/deny/echo", "Authorization: a\r\n", "").field("x-asked"), Some("4"));
    assert_eq!(ask(&gate, "GET", "/deny/echo", "Authorization: a\r\n", "").field("x-asked"), Some("4"));
    drop(service);
    assert_eq!(times("/allow/echo", "a").as_deref(), Some("1"));
    let open = ask(&gate, "GET", "/allow/echo", "Authorization: c\r\n", "");
    assert_eq!((open.status(), open.field("x-asked")), (200, None));
    let labels = ["policy=\"extAuthz\"", "mode=\"fail_open\""];
    assert!(gate.rhumb.metric("rhumb_policy_refusals_total", &labels) >= 1.0);
}
