//! Verbs that print something.

use super::rhumb;
use std::path::Path;

const CONFIG: &str = "\
listeners:
  web: { port: 8080 }
backends:
  users: { endpoints: ['127.0.0.1:9001', '127.0.0.1:9002'], loadBalancing: { algorithm: maglev, hashOn: path } }
  orders: 127.0.0.1:9003
policies:
  cors: { allowOrigins: ['https://a.example'] }
routes:
  - { name: users, match: { path: /users/* }, to: users, rewrite: { prefix: /v2 }, timeout: 3s }
  - { name: orders, match: { path: /orders/*, method: GET }, to: [{ backend: orders, weight: 9 }, users] }
  - { name: all, to: orders }
  - { name: old, match: { path: /old/* }, redirect: { prefix: /users } }
";

fn explain(dir: &Path, args: &[&str]) -> String {
    std::fs::write(dir.join("rhumb.yaml"), CONFIG).expect("a file");
    let ran = rhumb(dir, &[&["explain"], args].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.out
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn explain_tells_the_route_and_why_others_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = explain(dir.path(), &["GET", "http://h:8080/a/../users/7?x=1", "-H", "X-A: 1"]);
    has(
        &text,
        &[
            "/users/7 in normal form",
            "default/users, rule 0, match 0: path /users/*",
            "cors",
            "rewrite",
            "GET /v2/7?x=1",
            "x-a: 1",
            "request 3s, attempt 3s (default), idle 5m (default)",
            "maglev",
            "<- this one",
            "default/all, rule 0, match 0: matches too, but the chosen path match is more specific",
            "default/old, rule 0, match 0: path is /users/7, not /old/*",
        ],
    );
}

#[test]
fn explain_tells_answers_that_need_no_backend() {
    let dir = tempfile::tempdir().expect("a directory");
    has(&explain(dir.path(), &["GET", "http://h:8080/old/x"]), &["302", "location: http://h:8080/users/x"]);
    has(&explain(dir.path(), &["GET", "http://h:8080/%zz"]), &["400"]);
    has(&explain(dir.path(), &["POST", "http://h:8080/orders/1"]), &["default/all"]);
    let json = explain(dir.path(), &["--format", "json", "GET", "http://h:8080/orders/1"]);
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(value["choices"][0]["share"], 90.0, "{value:#}");
}

#[test]
fn explain_refuses_what_cannot_be_asked() {
    let dir = tempfile::tempdir().expect("a directory");
    explain(dir.path(), &["GET", "http://h:8080/"]);
    for args in [["GET", "h/x"], ["GET", "https://h/"], ["G T", "http://h/"], ["GET", "http://h:9/"]] {
        let ran = rhumb(dir.path(), &["explain", args[0], args[1]]);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
    }
    std::fs::write(dir.path().join("rhumb.yaml"), "routes: [{ too: x }]").expect("a file");
    assert_eq!(rhumb(dir.path(), &["explain", "GET", "http://h:8080/"]).code, Some(3));
}

#[test]
fn adapt_prints_what_means_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = explain(dir.path(), &["GET", "http://h:8080/users/7"]);
    let adapted = rhumb(dir.path(), &["adapt", "rhumb.yaml"]);
    assert_eq!(adapted.code, Some(0), "{adapted:?}");
    has(&adapted.out, &["kind: Gateway", "kind: HTTPRoute", "kind: Backend", "kind: Policy"]);
    std::fs::write(dir.path().join("documents.yaml"), &adapted.out).expect("a file");
    let again = rhumb(dir.path(), &["explain", "-c", "documents.yaml", "GET", "http://h:8080/users/7"]);
    let without_places = |text: &str| {
        let lines = text.lines().map(|line| line.split(" from ").next().unwrap_or_default().to_owned());
        lines.collect::<Vec<_>>()
    };
    assert_eq!(without_places(&again.out), without_places(&first));
}

#[test]
fn schemas_are_json_and_the_reference_is_a_page() {
    let dir = tempfile::tempdir().expect("a directory");
    for (what, word) in [("documents", "HTTPRoute"), ("short", "trustedProxies")] {
        let ran = rhumb(dir.path(), &["schema", what]);
        let value: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
        assert!(value["$schema"].as_str().is_some_and(|uri| uri.contains("2020-12")), "{}", value["$schema"]);
        has(&ran.out, &[word]);
    }
    has(&rhumb(dir.path(), &["schema", "reference"]).out, &["## ShortForm", "`listeners`", "`targetRefs`"]);
}

#[test]
fn version_and_completion_are_printed() {
    let dir = tempfile::tempdir().expect("a directory");
    has(&rhumb(dir.path(), &["version"]).out, &["rhumb ", env!("CARGO_PKG_VERSION")]);
    has(&rhumb(dir.path(), &["version", "--format", "json"]).out, &[env!("CARGO_PKG_VERSION")]);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        has(&rhumb(dir.path(), &["completion", shell]).out, &["explain", "rhumb"]);
    }
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    let dir = tempfile::tempdir().expect("a directory");
    for args in [&["rum"][..], &["run", "--nonsense"], &["explain"], &["completion", "dos"], &[]] {
        let ran = rhumb(dir.path(), args);
        assert!(ran.code == Some(2) && !ran.err.is_empty(), "{args:?}: {ran:?}");
    }
    has(&rhumb(dir.path(), &["rum"]).err, &["run"]);
    for args in [&["--help"][..], &["run", "--help"], &["--version"]] {
        let ran = rhumb(dir.path(), args);
        assert!(ran.code == Some(0) && ran.err.is_empty(), "{args:?}: {ran:?}");
    }
}

#[test]
fn nothing_running_is_a_runtime_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    for verb in ["status", "endpoints"] {
        let ran = rhumb(dir.path(), &[verb, "--admin", &free.to_string()]);
        assert!(ran.code == Some(1) && ran.err.contains("no rhumb answers"), "{ran:?}");
    }
}
