//! OAuth 2.0 and OpenID Connect with an independent provider and a real browser.

use crate::gate::{Gate, problem, seen};
use rhumb_testkit::config::Config;
use rhumb_testkit::port;
use rhumb_testkit::process::{Program, Rhumb, finish, node_script, serve};
use rhumb_testkit::wait;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn peer(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/node")).join(name)
}

const CLIENT: &str = "clientId: rhumb, clientSecret: 'a secret with blanks & signs'";

/// A provider whose client is at the port `gate`.
struct Provider {
    program: Option<Program>,
    port: u16,
    gate: u16,
    dir: TempDir,
}

impl Provider {
    fn start(gate: u16) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut this = Self { program: None, port: port::free(), gate, dir };
        this.restart();
        this
    }

    fn restart(&mut self) {
        let (port, gate) = (self.port.to_string(), self.gate.to_string());
        let script = node_script(&peer("oidc_provider.mjs"), &[&port, &gate], self.dir.path());
        self.program = Some(serve(script, self.port, &self.dir.path().join("provider.log")));
    }

    fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

#[test]
fn a_browser_logs_in_and_out() {
    let backend = rhumb_testkit::backend::Backend::start();
    let gate = port::free();
    let provider = Provider::start(gate);
    let policy = format!(
        "oidc: {{issuer: '{}', {CLIENT}, scopes: [email, offline_access], parameters: {{prompt: consent}}, \
         forwardAccessToken: true, afterLogout: /bye, claimsToFields: [{{claim: sub, name: x-user}}, \
         {{claim: groups, name: x-groups}}]}}",
        provider.issuer()
    );
    let config = Config::new()
        .listener("web", gate, "")
        .backend("peer", &format!("endpoints: ['{}']", backend.address()))
        .route("match: {path: /bye}, to: peer")
        .route(&format!("match: {{path: '/*'}}, to: peer, policies: {{{policy}}}"));
    let rhumb = Rhumb::start(&config);
    let dir = tempfile::tempdir().expect("a directory");
    let ports = [gate.to_string(), provider.port.to_string()];
    let finished = finish(node_script(&peer("login.mjs"), &[&ports[0], &ports[1]], dir.path()));
    let passed = finished.output.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(
        finished.code == Some(0) && passed >= 20,
        "{}\n{}",
        finished.output,
        provider.program.as_ref().map_or_else(String::new, Program::log)
    );
    let log = rhumb.log();
    assert!(log.contains("\"principal\":\"ann\"") && log.contains("\"principal\":\"bob\""));
    for secret in ["a secret with", "code=", "state=", "Bearer"] {
        assert!(!log.contains(secret), "the log has {secret:?}");
    }
}

#[test]
fn a_provider_that_is_away_stops_logins_and_nothing_else() {
    let provider_port = port::free();
    let gate = Gate::with(|config| {
        config
            .route(&format!(
                "match: {{path: '/app/*'}}, to: peer, policies: {{oidc: {{issuer: 'http://127.0.0.1:{provider_port}', {CLIENT}}}}}"
            ))
            .route("match: {path: '/free/*'}, to: peer")
    });
    let page = "GET /app/x HTTP/1.1\r\nHost: a.test\r\nAccept: text/html\r\n\r\n";
    let away = gate.connect().exchange(page);
    assert_eq!(away.status(), 503);
    assert!(away.text().contains("login_unavailable"), "{}", away.text());
    let script = gate.get("/app/x");
    assert_eq!((script.status(), problem(&script).as_str()), (401, "login_required"));
    assert!(script.field("www-authenticate").is_some(), "RFC 9110 §15.5.2");
    assert_eq!(gate.get("/free/x").status(), 200);
}

#[test]
fn the_gateway_gets_tokens_for_backends_of_its_own() {
    let mut provider = Provider::start(port::free());
    let url = format!("http://127.0.0.1:{}/token", provider.port);
    let gate = Gate::with(|config| {
        config.route(&format!(
            "match: {{path: '/*'}}, to: peer, policies: {{oauth2ClientCredentials: {{tokenUrl: '{url}', {CLIENT}}}}}"
        ))
    });
    let token = |expected: u16| {
        let answer =
            gate.connect().exchange("GET /echo HTTP/1.1\r\nHost: a.test\r\nAuthorization: mine\r\n\r\n");
        assert_eq!(answer.status(), expected);
        (expected == 200).then(|| seen(&answer, "authorization").expect("a token"))
    };
    let first = token(200).expect("a token");
    assert!(first.starts_with("Bearer ") && first.len() > 20, "{first}");
    assert_eq!(token(200).as_deref(), Some(&*first));
    // It is kept while it is good, whatever becomes of who gave it, and through a reload.
    provider.program = None;
    gate.rhumb.reload();
    assert_eq!(token(200).as_deref(), Some(&*first));
    provider.restart();
}

#[test]
fn tokens_that_only_their_server_can_read_are_asked_about() {
    let provider = Provider::start(port::free());
    let issuer = provider.issuer();
    let gate = Gate::with(|config| {
        config
            .route(&format!(
                "match: {{path: '/get/*'}}, to: peer, policies: {{oauth2ClientCredentials: {{tokenUrl: '{issuer}/token', {CLIENT}}}}}"
            ))
            .route(&format!(
                "match: {{path: '/api/*'}}, to: peer, policies: {{oauth2Introspection: {{url: '{issuer}/token/introspection', {CLIENT}, \
                 claimsToFields: [{{claim: client_id, name: x-client}}], cache: 60s}}}}"
            ))
            .route(&format!(
                "match: {{path: '/scoped/*'}}, to: peer, policies: {{oauth2Introspection: {{url: '{issuer}/token/introspection', {CLIENT}, \
                 scopes: [write], forward: false}}}}"
            ))
    });
    let token = seen(&gate.get("/get/x"), "authorization").expect("a token");
    let ask = |target: &str, token: &str| {
        let fields = if token.is_empty() { String::new() } else { format!("Authorization: {token}\r\n") };
        gate.connect()
            .exchange(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nX-Client: root\r\n{fields}\r\n"))
    };
    let passed = ask("/api/x", &token);
    assert_eq!((passed.status(), seen(&passed, "x-client").as_deref()), (200, Some("rhumb")));
    assert_eq!(seen(&passed, "authorization").as_deref(), Some(&*token));
    let wrong = ask("/api/x", "Bearer nonsense");
    assert_eq!((wrong.status(), problem(&wrong).as_str()), (401, "token_invalid"));
    assert!(wrong.field("www-authenticate").is_some_and(|value| value.contains("error=\"invalid_token\"")));
    let missing = ask("/api/x", "");
    assert_eq!((missing.status(), problem(&missing).as_str()), (401, "credentials_missing"));
    let scoped = ask("/scoped/x", &token);
    assert_eq!((scoped.status(), problem(&scoped).as_str()), (403, "scope_insufficient"));
    drop(provider);
    assert_eq!(ask("/api/x", &token).status(), 200, "what is known is not asked about again");
    let unknown = ask("/api/x", "Bearer other");
    assert_eq!((unknown.status(), problem(&unknown).as_str()), (503, "introspection_unavailable"));
    wait::until("the record", || gate.rhumb.log().contains("\"principal\":\"rhumb\"").then_some(()));
}
