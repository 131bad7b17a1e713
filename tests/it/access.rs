//! Who may pass: by conditions, address and origin.

use crate::gate::{Gate, json, local, problem};
use rhumb_testkit::client::Client;
use rhumb_testkit::config::Config;
use rhumb_testkit::message::Message;
use rhumb_testkit::process::{Rhumb, succeed};
use rhumb_testkit::{port, wait};
use serde_json::Value;
use std::process::Command;

fn ask(gate: &Gate, method: &str, target: &str, fields: &str) -> Message {
    gate.connect().exchange(format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"))
}

/// The records of the access log, which goes to standard output.
fn records(rhumb: &Rhumb, count: usize) -> Vec<Value> {
    wait::until("the records", || {
        let log = rhumb.log();
        let all: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let records: Vec<_> =
            all.into_iter().filter(|record: &Value| record["request_id"].is_string()).collect();
        (records.len() >= count).then_some(records)
    })
}

#[test]
fn conditions_allow_and_refuse_and_the_log_says_which() {
    let gate = Gate::with(|config| {
        config.route(
            "match: {path: '/told/*'}, to: peer, policies: {authorization: {tell: true, rules: [\
             {name: no-evil, action: Deny, when: 'request.headers[\"x-evil\"] == \"1\"'},\
             {name: readers, when: 'request.method == \"GET\" && source.address == ip(\"127.0.0.1\")'},\
             {name: by-query, when: '\"key\" in request.query && request.query[\"key\"].startsWith(\"s\")'}]}}",
        )
        .route("match: {path: '/deny-only/*'}, to: peer, policies: {authorization: {rules: [\
             {action: Deny, when: '\"x-evil\" in request.headers'}]}}")
    });
    let get = |target: &str, fields: &str| ask(&gate, "GET", target, fields);
    // A deny condition without a value refuses: the field has to be asked for before it is compared.
    let refused = get("/told/bytes/1", "");
    assert_eq!((refused.status(), problem(&refused).as_str()), (403, "access_denied"));
    assert_eq!(json(&refused)["detail"], "Refused by: no-evil.");
    assert_eq!(get("/told/bytes/1", "X-Evil: 0\r\n").status(), 200);
    assert_eq!(get("/told/bytes/1", "X-Evil: 1\r\n").status(), 403);
    let post = ask(&gate, "POST", "/told/bytes/1", "X-Evil: 0\r\nContent-Length: 0\r\n");
    assert_eq!(
        (post.status(), &json(&post)["detail"]),
        (403, &Value::from("Refused by: no allow rule holds."))
    );
    let post = ask(&gate, "POST", "/told/bytes/1?key=%73ecret", "X-Evil: 0\r\nContent-Length: 0\r\n");
    assert_eq!(post.status(), 200);
    assert_eq!(get("/deny-only/bytes/1", "").status(), 200);
    let refused = get("/deny-only/bytes/1", "X-EVIL: 0\r\n");
    assert_eq!(refused.status(), 403);
    assert!(!json(&refused)["detail"].as_str().unwrap().contains("rules[0]"), "nobody asked to be told");
    let decisions: Vec<_> =
        records(&gate.rhumb, 7).iter().map(|record| record["policy_decision"].clone()).collect();
    assert_eq!(
        decisions,
        ["no-evil", "readers", "no-evil", "no allow rule holds", "by-query", "", "rules[0]"]
            .map(|name| if name.is_empty() { Value::Null } else { name.into() })
    );
}

#[test]
fn in_shadow_mode_a_policy_is_counted_and_logged_and_not_obeyed() {
    let gate = Gate::with(|config| {
        config
            .top("policies: {authorization: {rules: [{when: 'request.method != \"PUT\"'}]}}")
            .route("match: {path: '/shadow/*'}, to: peer, policies: {authorization: {shadow: true, rules: [{when: 'false'}]}}")
    });
    assert_eq!(ask(&gate, "GET", "/shadow/bytes/1", "").status(), 200);
    // The gateway's own, which is obeyed, is not replaced by it.
    assert_eq!(ask(&gate, "PUT", "/shadow/bytes/1", "Content-Length: 0\r\n").status(), 403);
    let records = records(&gate.rhumb, 2);
    assert_eq!(records[0]["shadow_refusals"], "authorization");
    let count = |mode: &str| {
        let labels = ["policy=\"authorization\"", "code=\"access_denied\"", mode];
        gate.rhumb.metric("rhumb_policy_refusals_total", &labels)
    };
    wait::until("the counts", || (count("mode=\"enforce\"") == 1.0).then_some(()));
    assert!(count("mode=\"shadow\"") >= 1.0);
}

#[test]
fn a_route_narrows_what_everything_else_allows_and_never_widens_it() {
    let gate = Gate::with(|config| {
        config
            .top("policies: {authorization: {rules: [{when: 'request.method in [\"GET\", \"PUT\"]'}]}}")
            .route("match: {path: '/wide/*'}, to: peer, policies: {authorization: {rules: [{when: 'true'}]}}")
            .route("match: {path: '/narrow/*'}, to: peer, policies: {authorization: {rules: [{when: 'request.method == \"GET\"'}]}}")
    });
    let status = |method, target| ask(&gate, method, target, "Content-Length: 0\r\n").status();
    assert_eq!(
        [status("GET", "/wide/bytes/1"), status("PUT", "/wide/bytes/1"), status("POST", "/wide/bytes/1")],
        [200, 200, 403]
    );
    assert_eq!([status("GET", "/narrow/bytes/1"), status("PUT", "/narrow/bytes/1")], [200, 403]);
}

#[test]
fn addresses_count_as_a_trusted_proxy_tells_them() {
    let gate = Gate::with(|config| {
        config.top("trustedProxies: [127.0.0.0/8]").route(
            "match: {path: '/*'}, to: peer, policies: {ipAccess: {allow: [10.0.0.0/8], deny: [10.9.0.0/16]}}",
        )
    });
    let from = |address: &str| ask(&gate, "GET", "/bytes/1", &format!("X-Forwarded-For: {address}\r\n"));
    assert_eq!(from("10.1.1.1").status(), 200);
    for address in ["10.9.1.1", "192.0.2.1", "10.1.1.1, 192.0.2.1"] {
        let refused = from(address);
        assert_eq!((refused.status(), problem(&refused).as_str()), (403, "address_denied"), "{address}");
    }
    // Nobody's word counts for a proxy that trusts nobody.
    let gate = Gate::with(|config| config.route("to: peer, policies: {ipAccess: {allow: [10.0.0.0/8]}}"));
    assert_eq!(ask(&gate, "GET", "/bytes/1", "X-Forwarded-For: 10.1.1.1\r\n").status(), 403);
}

#[test]
fn pages_of_other_sites_change_nothing() {
    let gate = Gate::with(|config| {
        config.route("to: peer, policies: {csrf: {allowOrigins: ['https://friend.test']}, securityFields: {frameOptions: DENY}}")
    });
    let post = |fields: &str| ask(&gate, "POST", "/bytes/1", &format!("Content-Length: 0\r\n{fields}"));
    assert_eq!(post("").status(), 200);
    assert_eq!(post("Sec-Fetch-Site: same-origin\r\n").status(), 200);
    assert_eq!(post("Origin: https://friend.test\r\nSec-Fetch-Site: cross-site\r\n").status(), 200);
    let refused = post("Origin: https://evil.test\r\n");
    assert_eq!((refused.status(), problem(&refused).as_str()), (403, "cross_site_request"));
    // Errors have the fields too.
    assert_eq!(refused.field("x-frame-options"), Some("DENY"));
    assert_eq!(refused.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(ask(&gate, "GET", "/bytes/1", "Sec-Fetch-Site: cross-site\r\n").status(), 200);
}

#[test]
fn a_condition_with_a_mistake_is_refused_with_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = "backends: {a: '127.0.0.1:1'}\nroutes:\n  - to: a\n    policies:\n      authorization:\n        rules:\n          - when: request.metod == \"GET\"\n          - when: request.size == \"1\"\n";
    std::fs::write(dir.path().join("rhumb.yaml"), config).expect("a file");
    let output = Command::new(Rhumb::binary()).arg("check").current_dir(dir.path()).output().expect("rhumb");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    for part in
        ["rhumb.yaml:7:", "at character 1 (`request.metod`): no field `metod`", "did you mean `method`?"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn explain_names_the_rule_that_decides() {
    let port = port::free();
    let config = Config::new().listener("web", port, "").backend("peer", "endpoints: ['127.0.0.1:1']").route(
        "to: peer, policies: {authorization: {rules: [{name: readers, when: 'request.method == \"GET\"'}]}}",
    );
    let rhumb = Rhumb::start(&config);
    assert_eq!(Client::connect(local(port)).exchange("PUT / HTTP/1.1\r\nHost: a\r\n\r\n").status(), 403);
    let mut explain = Command::new(Rhumb::binary());
    explain
        .args(["explain", "PUT", &format!("http://127.0.0.1:{port}/"), "-c"])
        .arg(rhumb.dir().join("rhumb.yaml"));
    let text = succeed(explain);
    assert!(text.contains("authorization") && text.contains("403"), "{text}");
}
