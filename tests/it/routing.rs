//! Which backend a request goes to, and what policies do to it on the way.

use crate::gate::{Gate, json, problem, seen};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::message::Message;
use std::collections::BTreeMap;

/// The proxy with backends `a` to `d` that name themselves in `x-backend`.
struct Fork {
    gate: Gate,
    _backends: Vec<Backend>,
}

impl Fork {
    fn new(routes: &[&str]) -> Self {
        let backends: Vec<Backend> = ["a", "b", "c", "d"].map(Backend::named).into();
        let gate = Gate::with(|mut config| {
            for (name, backend) in ["a", "b", "c", "d"].iter().zip(&backends) {
                config = config.backend(name, &format!("endpoints: ['{}']", backend.address()));
            }
            routes.iter().fold(config, |config, route| config.route(route))
        });
        Self { gate, _backends: backends }
    }

    fn ask(&self, request: &str) -> Message {
        self.gate.connect().exchange(request)
    }

    /// Method, authority, target and further fields; the backend's name or the status.
    fn chosen(&self, method: &str, authority: &str, target: &str, fields: &str) -> String {
        let response = self.ask(&format!("{method} {target} HTTP/1.1\r\nHost: {authority}\r\n{fields}\r\n"));
        response.field("x-backend").map_or_else(|| response.status().to_string(), str::to_owned)
    }
}

#[test]
fn the_most_specific_match_wins() {
    let fork = Fork::new(&[
        "match: {host: a.test}, to: a",
        "match: {host: '*.b.test'}, to: b",
        "match: {host: a.test, path: /exact}, to: b",
        "match: {host: a.test, path: /pre/*}, to: c",
        "match: {host: a.test, path: /pre/fix/*}, to: d",
        "match: {host: a.test, path: /m, method: POST}, to: c",
        "match: {host: a.test, path: /h, headers: {X-A: '1'}}, to: b",
        "match: {host: a.test, path: /h, headers: {X-A: '1', X-B: '2'}}, to: c",
        "match: {host: a.test, path: /q, query: {v: '2'}}, to: d",
        "match: {host: r.test, path: '~^/r/[0-9]+$'}, to: d",
        "match: {host: only.test, path: /there, method: PUT}, to: d",
    ]);
    let cases = [
        ("GET", "a.test", "/", "", "a"),
        ("GET", "A.TEST", "/", "", "a"),
        ("GET", "x.b.test", "/", "", "b"),
        ("GET", "x.y.b.test", "/", "", "b"),
        ("GET", "b.test", "/", "", "404"),
        ("GET", "c.test", "/", "", "404"),
        ("GET", "a.test", "/exact", "", "b"),
        ("GET", "a.test", "/exact/", "", "a"),
        ("GET", "a.test", "/exactly", "", "a"),
        ("GET", "a.test", "/pre", "", "c"),
        ("GET", "a.test", "/pre/x", "", "c"),
        ("GET", "a.test", "/prefix", "", "a"),
        ("GET", "a.test", "/pre/fix/x", "", "d"),
        ("GET", "a.test", "/x/../pre/fix/x", "", "d"),
        ("GET", "a.test", "/%70re/x", "", "c"),
        ("POST", "a.test", "/m", "Content-Length: 0\r\n", "c"),
        ("GET", "a.test", "/m", "", "a"),
        ("GET", "a.test", "/h", "X-A: 1\r\n", "b"),
        ("GET", "a.test", "/h", "X-A: 1\r\nX-B: 2\r\n", "c"),
        ("GET", "a.test", "/h", "X-A: 2\r\n", "a"),
        ("GET", "a.test", "/q?v=2", "", "d"),
        ("GET", "a.test", "/q?v=1", "", "a"),
        ("GET", "r.test", "/r/12", "", "d"),
        ("GET", "r.test", "/r/x", "", "404"),
        ("PUT", "only.test", "/there", "Content-Length: 0\r\n", "d"),
        ("GET", "only.test", "/there", "", "405"),
        ("GET", "only.test", "/elsewhere", "", "404"),
    ];
    for (method, authority, target, fields, expected) in cases {
        assert_eq!(
            fork.chosen(method, authority, target, fields),
            expected,
            "{method} {authority} {target} {fields:?}"
        );
    }
}

#[test]
fn refusals_say_why() {
    let fork = Fork::new(&["match: {host: a.test, path: /put, method: [PUT, DELETE]}, to: a"]);
    let response = fork.ask("GET /put HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!((response.status(), problem(&response).as_str()), (405, "method_not_allowed"));
    let mut allow: Vec<&str> = response.field("allow").expect("Allow").split(", ").collect();
    allow.sort_unstable();
    assert_eq!(allow, ["DELETE", "PUT"]);
    let response = fork.ask("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!((response.status(), problem(&response).as_str()), (404, "route_not_found"));
    assert_eq!(json(&response)["request_id"].as_str(), response.field("x-request-id"));
}

#[test]
fn redirects_are_answered_here() {
    let fork = Fork::new(&[
        "match: {path: /secure/*}, redirect: https",
        "match: {path: /old/*}, redirect: {prefix: /new, status: 308}",
        "match: {path: /there}, redirect: 'https://b.test:8443/start'",
        "match: {path: /host}, redirect: {host: c.test, status: 301}",
        "to: a",
    ]);
    let port = fork.gate.proxy.port();
    let cases = [
        (format!("a.test:{port}"), "/secure/x?y=1", 302, "https://a.test/secure/x?y=1".to_owned()),
        (format!("a.test:{port}"), "/old/x?y=1", 308, format!("http://a.test:{port}/new/x?y=1")),
        (format!("a.test:{port}"), "/there", 302, "https://b.test:8443/start".to_owned()),
        (format!("a.test:{port}"), "/host", 301, format!("http://c.test:{port}/host")),
    ];
    for (authority, target, status, location) in cases {
        let response = fork.ask(&format!("GET {target} HTTP/1.1\r\nHost: {authority}\r\n\r\n"));
        assert_eq!((response.status(), response.field("location")), (status, Some(&*location)), "{target}");
    }
}

#[test]
fn rewrites_and_field_changes_reach_the_backend() {
    let fork = Fork::new(&[
        "match: {path: /api/*}, to: a, rewrite: {prefix: /}",
        "match: {path: /v1/*}, to: a, rewrite: {prefix: /v2, host: inner.test}",
        "match: {path: /full/*}, to: a, rewrite: {path: /fixed}",
        "match: {path: /fields/*}, to: a, requestHeaders: {set: {X-Set: new}, add: {X-Add: more}, remove: [X-Gone]}, \
         responseHeaders: {set: {X-Out: out}, remove: [X-Backend]}",
    ]);
    let ask = |target: &str, fields: &str| {
        fork.ask(&format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"))
    };
    assert_eq!(json(&ask("/api/x/y?z=1", ""))["target"], "/x/y?z=1");
    assert_eq!(json(&ask("/api", ""))["target"], "/");
    let echo = ask("/v1/x", "");
    assert_eq!(
        (json(&echo)["target"].as_str(), seen(&echo, "host").as_deref()),
        (Some("/v2/x"), Some("inner.test"))
    );
    assert_eq!(seen(&echo, "x-forwarded-host").as_deref(), Some("a.test"));
    assert_eq!(json(&ask("/full/x?q=1", ""))["target"], "/fixed?q=1");
    let echo = ask("/fields/x", "X-Set: old\r\nX-Gone: here\r\n");
    assert_eq!(seen(&echo, "x-set").as_deref(), Some("new"));
    assert_eq!(seen(&echo, "x-add").as_deref(), Some("more"));
    assert_eq!(seen(&echo, "x-gone"), None);
    assert_eq!((echo.field("x-out"), echo.field("x-backend")), (Some("out"), None));
}

#[test]
fn direct_responses_need_no_backend() {
    let fork = Fork::new(&[
        "match: {path: /no/*}, respond: {status: 403, body: stop}",
        "match: {path: /empty}, respond: {status: 204}",
        "to: a",
    ]);
    let response = fork.ask("GET /no/x HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!((response.status(), response.text().as_str()), (403, "stop"));
    assert_eq!(fork.ask("GET /empty HTTP/1.1\r\nHost: a.test\r\n\r\n").status(), 204);
    // Content of the request is read off, or the connection is closed and says so.
    let mut client = fork.gate.connect();
    let refused = client.exchange("POST /no/x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(refused.status(), 403);
    if refused.field("connection") == Some("close") {
        assert!(client.read_to_end().is_empty());
    } else {
        assert_eq!(client.get("a.test", "/x").status(), 200);
    }
}

#[test]
fn pages_of_allowed_origins_may_read_errors_too() {
    let fork = Fork::new(&[
        "to: a, match: {path: /x/*}, policies: {cors: {allowOrigins: ['https://app.test'], allowMethods: [PUT], maxAge: 60}}",
    ]);
    let preflight = |origin: &str| {
        fork.ask(&format!("OPTIONS /x/y HTTP/1.1\r\nHost: a.test\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n\r\n"))
    };
    let allowed = preflight("https://app.test");
    assert_eq!(allowed.field("access-control-allow-origin"), Some("https://app.test"));
    assert!(allowed.field("access-control-allow-methods").is_some_and(|methods| methods.contains("PUT")));
    assert_eq!(allowed.field("x-backend"), None, "answered here");
    assert_eq!(preflight("https://evil.test").field("access-control-allow-origin"), None);
    for target in ["/x/y", "/x/../x/hangup"] {
        let response =
            fork.ask(&format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nOrigin: https://app.test\r\n\r\n"));
        assert_eq!(response.field("access-control-allow-origin"), Some("https://app.test"), "{response:?}");
    }
}

#[test]
fn weights_divide_the_requests() {
    let fork =
        Fork::new(&["to: [{backend: a, weight: 3}, {backend: b, weight: 1}, {backend: c, weight: 0}]"]);
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    let mut client = fork.gate.connect();
    for _ in 0..2000 {
        let name = client.get("a.test", "/bytes/1").field("x-backend").expect("a name").to_owned();
        *counts.entry(name).or_default() += 1;
    }
    // Three standard deviations of 2000 draws with p = 3/4 are 58.
    assert!(counts["a"].abs_diff(1500) < 100 && counts["a"] + counts["b"] == 2000, "{counts:?}");
}

#[test]
fn every_endpoint_gets_its_share_whatever_the_algorithm() {
    for algorithm in ["leastBusy", "roundRobin", "random", "ringHash", "maglev"] {
        let backends: Vec<Backend> = ["a", "b", "c"].map(Backend::named).into();
        let endpoints: Vec<String> =
            backends.iter().map(|backend| format!("'{}'", backend.address())).collect();
        // Least busy prefers who answers faster, by however little.
        let least = if algorithm == "leastBusy" { 1 } else { 60 };
        let hash = if ["ringHash", "maglev"].contains(&algorithm) { ", hashOn: {header: X-Key}" } else { "" };
        let gate = Gate::with(|config| {
            config
                .backend(
                    "three",
                    &format!(
                        "endpoints: [{}], loadBalancing: {{algorithm: {algorithm}{hash}}}",
                        endpoints.join(", ")
                    ),
                )
                .route("to: three")
        });
        let mut client = gate.connect();
        let mut keys: BTreeMap<u32, String> = BTreeMap::new();
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for n in 0..600 {
            let key = n % 200;
            let response =
                client.exchange(format!("GET /bytes/1 HTTP/1.1\r\nHost: a.test\r\nX-Key: {key}\r\n\r\n"));
            let name = response.field("x-backend").expect("a name").to_owned();
            if !hash.is_empty() {
                assert_eq!(
                    *keys.entry(key).or_insert_with(|| name.clone()),
                    name,
                    "{algorithm}: one key, one endpoint"
                );
            }
            *counts.entry(name).or_default() += 1;
        }
        assert!(counts.len() == 3 && counts.values().all(|count| *count >= least), "{algorithm}: {counts:?}");
    }
}
