//! Golden signals, their history, usage, events, and the APIs that traffic shows.

use crate::gate::{Gate, json};
use rhumb_testkit::process::Rhumb;
use rhumb_testkit::wait;
use serde_json::Value;
use std::process::Command;

fn ask(gate: &Gate, page: &str) -> Value {
    let answer = gate.rhumb.admin(page);
    assert_eq!(answer.status(), 200, "{page}: {answer:?}");
    json(&answer)
}

/// Name and requests of the items of `top`.
fn top(gate: &Gate, by: &str) -> Vec<(String, u64)> {
    let top = ask(gate, &format!("/api/v1/top?by={by}&window=60&sort=name"));
    let items = top["items"].as_array().expect("items").iter();
    items
        .map(|item| {
            (item["name"].as_str().unwrap_or_default().to_owned(), item["requests"].as_u64().unwrap_or(0))
        })
        .collect()
}

#[test]
fn who_asks_for_what_is_counted_and_told() {
    let gate = Gate::with(|config| {
        config
            .top("consumers: {acme: {plan: gold, credentials: {apiKeys: [{name: one, key: key-of-acme-0001}]}}}")
            .route("match: {path: '/open/*'}, to: peer")
            .route("match: {path: '/status/*'}, to: peer, policies: {apiKey: {}}")
    });
    let get = |target: &str, fields: &str| {
        gate.connect().exchange(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")).status()
    };
    for _ in 0..3 {
        assert_eq!(get("/open/x", ""), 200);
    }
    assert_eq!(get("/status/503", "X-Api-Key: key-of-acme-0001\r\n"), 503);
    assert_eq!(get("/status/200", ""), 401);
    assert_eq!(get("/nothing", ""), 404);
    let rules = wait::until("all are counted", || {
        Some(top(&gate, "rule")).filter(|items| items.iter().map(|item| item.1).sum::<u64>() == 6)
    });
    assert_eq!(rules[0], ("(no route)".to_owned(), 1));
    assert!(rules.iter().any(|(name, requests)| name.ends_with(" /open/*") && *requests == 3), "{rules:?}");
    assert_eq!(top(&gate, "consumer"), [("default/acme".to_owned(), 1)]);
    assert_eq!(top(&gate, "backend"), [("default/peer".to_owned(), 4)]);
    assert_eq!(top(&gate, "endpoint")[0].0, format!("default/peer {}", gate.backend.address()));
    let edges = ask(&gate, "/api/v1/edges");
    let edge = &edges["edges"][0];
    assert_eq!(
        (&edge["source"], &edge["target"], &edge["mtls"]),
        (&"gateway".into(), &"default/peer".into(), &false.into())
    );
    assert_eq!(edge["outcomes"]["backendError"], 1);
    let usage = ask(&gate, "/api/v1/usage?by=consumer,plan,status&consumer=default/acme");
    let row = &usage["rows"][0];
    assert_eq!(
        (&row["plan"], &row["status"], &row["requests"], &row["errors"]),
        (&"gold".into(), &"503".into(), &1.into(), &1.into())
    );
    let csv = gate.rhumb.admin("/api/v1/usage?by=status&format=csv");
    assert!(csv.text().starts_with("status,requests,errors,"), "{}", csv.text());
    wait::until("the ten seconds are over", || {
        let series = ask(&gate, "/api/v1/series?by=route&step=10");
        let rates = series["requestsPerSecond"].as_array().expect("a column");
        (rates.iter().filter_map(Value::as_f64).sum::<f64>() >= 0.6).then_some(())
    });
    let events = ask(&gate, "/api/v1/events?kind=configuration_applied");
    assert_eq!(events["events"][0]["text"], "revision 1 is live");
    assert_eq!(gate.rhumb.admin("/api/v1/top?by=nothing").status(), 400);
}

#[test]
fn a_history_in_a_file_outlives_the_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("state/signals.redb");
    let start = || {
        Gate::with(|config| {
            config
                .top(&format!("signals: {{history: {{path: '{}'}}}}", file.display()))
                .route("match: {path: '/*'}, to: peer")
        })
    };
    let gate = start();
    assert_eq!(gate.get("/").status(), 200);
    gate.rhumb.end_all();
    let gate = start();
    let usage = ask(&gate, "/api/v1/usage?by=status");
    assert_eq!(usage["rows"][0]["requests"], 1, "{usage}");
    let events = ask(&gate, "/api/v1/events");
    let applied = events["events"].as_array().expect("events").iter();
    assert!(applied.filter(|event| event["kind"] == "configuration_applied").count() >= 1, "{events}");
}

/// Runs `rhumb apis` on a running process.
fn apis(rhumb: &Rhumb, more: &[&str]) -> String {
    let output = Command::new(Rhumb::binary())
        .args(["apis", "--admin", &rhumb.admin_address().to_string(), "--admin-token-file"])
        .arg(rhumb.admin_token())
        .args(more)
        .output()
        .expect("the binary");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

const SHOP: &str = "\
openapi: 3.1.0
info: {title: shop, version: '1'}
servers: [{url: 'http://a.test/v2'}]
paths:
  /items:
    get:
      parameters: [{name: page, in: query}]
      responses: {'200': {content: {application/json: {}}}}
  /items/{item}:
    get: {responses: {'200': {}}}
    delete: {responses: {'204': {}}}
  /status/{code}:
    get: {responses: {'200': {}}}
  /orders:
    post:
      requestBody:
        content:
          application/json: {schema: {$ref: '#/components/schemas/Order'}}
      responses: {'200': {}}
components:
  schemas: {Order: {type: object, properties: {item: {}}, required: [item]}}
";

#[test]
fn the_planted_unused_shadow_and_drifted_operations_are_named_and_no_other() {
    let gate = Gate::with(|config| {
        config
            .route("match: {path: '/v2/*'}, to: peer, rewrite: {prefix: /}")
            .route("match: {path: '/old/*'}, to: peer")
    });
    let mut client = gate.connect();
    for number in 0..30 {
        assert_eq!(client.get("a.test", &format!("/v2/items/{number}")).status(), 200);
        assert_eq!(client.get("a.test", &format!("/v2/items?page={number}")).status(), 200);
    }
    assert_eq!(client.get("a.test", "/v2/status/200").status(), 200);
    // Drift: an undeclared parameter, an undeclared status. Shadow: a path that no document has. Scanners are neither.
    assert_eq!(client.get("a.test", "/v2/items?page=1&debug=1").status(), 200);
    assert_eq!(client.get("a.test", "/v2/status/418").status(), 418);
    assert_eq!(client.get("a.test", "/v2/internal/7/dump").status(), 200);
    assert_eq!(client.get("a.test", "/v2/status/404").status(), 404);
    let order = |body: &str| {
        let head = "POST /v2/orders HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/json\r\n";
        gate.connect().exchange(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).status()
    };
    assert_eq!(order(r#"{"item": 1}"#), 200);
    let dir = tempfile::tempdir().expect("a directory");
    let shop = dir.path().join("shop.yaml");
    std::fs::write(&shop, SHOP).expect("a file");
    let shop = shop.display().to_string();
    let report = wait::until("workers have told what they saw", || {
        let report: Value =
            serde_json::from_str(&apis(&gate.rhumb, &["--openapi", &shop, "-o", "json"])).expect("JSON");
        let seen: u64 = report["apis"]["operations"]
            .as_array()?
            .iter()
            .filter_map(|operation| operation["requests"].as_u64())
            .sum();
        (seen >= 66).then_some(report)
    });
    let names = |kind: &str, field: &str| -> Vec<String> {
        let all = report["report"][kind].as_array().expect("a list").iter();
        all.map(|one| one[field].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names("unused", "operation"), ["DELETE /items/{item}", "/old/*"], "{report:#}");
    assert_eq!(names("shadow", "operation"), ["GET /v2/internal/{id}/dump"], "{report:#}");
    assert_eq!(names("drift", "operation"), ["GET /items", "GET /status/{code}"], "{report:#}");
    let what: Vec<_> =
        report["report"]["drift"].as_array().expect("a list").iter().map(|one| &one["what"]).collect();
    assert_eq!(what[0], &serde_json::json!(["query parameter `debug` is not declared"]));
    assert_eq!(what[1], &serde_json::json!(["status 404 is not declared", "status 418 is not declared"]));
    let text = apis(&gate.rhumb, &["--openapi", &shop]);
    assert!(text.contains("SHADOW (1)\n  GET /v2/internal/{id}/dump"), "{text}");
    let seen = apis(&gate.rhumb, &["--export-openapi"]);
    let exported = dir.path().join("seen.yaml");
    std::fs::write(&exported, &seen).expect("a file");
    let again = apis(&gate.rhumb, &["--openapi", &exported.display().to_string(), "-o", "json"]);
    let again: Value = serde_json::from_str(&again).expect("JSON");
    assert_eq!(again["report"]["shadow"], serde_json::json!([]), "{seen}");
    assert_eq!(again["report"]["drift"], serde_json::json!([]), "{seen}");
}

const ANSWERS: &str = "\
openapi: 3.1.0
info: {title: answers, version: '1'}
servers: [{url: 'http://a.test'}]
paths:
  /well: {get: {responses: {'200': {content: {application/json: {schema: {$ref: '#/components/schemas/Seen'}}}}}}}
  /drifted:
    get:
      responses:
        '200':
          content:
            application/json:
              schema:
                type: object
                required: [method, price]
                properties: {connection: {}, nth: {}, method: {}, target: {}, fields: {}, length: {}, sum: {}, content: {}, price: {}}
components:
  schemas:
    Seen:
      type: object
      required: [method, target]
      properties: {connection: {}, nth: {}, method: {}, target: {}, fields: {}, length: {}, sum: {}, content: {}, trailers: {}}
";

#[test]
fn fields_of_answers_are_compared_with_what_is_declared_as_soon_as_somebody_asks() {
    let gate = Gate::with(|config| config.route("match: {path: '/*'}, to: peer"));
    let mut client = gate.connect();
    for path in ["/well", "/drifted", "/well"] {
        assert_eq!(client.get("a.test", path).status(), 200);
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("answers.yaml");
    std::fs::write(&file, ANSWERS).expect("a file");
    // Nobody waits for the ten seconds in which workers gather: who asks is told of what has just come.
    let report: Value =
        serde_json::from_str(&apis(&gate.rhumb, &["--openapi", &file.display().to_string(), "-o", "json"]))
            .expect("JSON");
    assert_eq!(report["report"]["unused"], serde_json::json!([]), "{report:#}");
    let drift = report["report"]["drift"].as_array().expect("a list");
    assert_eq!((drift.len(), &drift[0]["operation"]), (1, &"GET /drifted".into()), "{report:#}");
    assert_eq!(
        drift[0]["what"],
        serde_json::json!([
            "status 200: field `price` is required, and is missing in answers",
            "status 200: field `trailers` of answers is not declared"
        ])
    );
    let seen = apis(&gate.rhumb, &["-o", "json"]);
    assert!(!seen.contains("a.test/well\\\""), "values of answers are not kept: {seen}");
}
