//! Spans, as a collector sees them that decodes OpenTelemetry's own messages.

use crate::gate::{Gate, local, seen};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::client::Client;
use rhumb_testkit::config::Config;
use rhumb_testkit::message::Message;
use rhumb_testkit::port;
use rhumb_testkit::process::{Program, Rhumb, serve_script};
use rhumb_testkit::wait;
use serde_json::Value;
use std::path::PathBuf;
use tempfile::TempDir;

/// OpenTelemetry's numbers of kinds of spans.
pub(crate) const SERVER: u64 = 2;
pub(crate) const CLIENT: u64 = 3;

/// OpenTelemetry's number of a span that failed.
const ERROR: u64 = 2;

pub(crate) struct Collector {
    _program: Program,
    pub(crate) port: u16,
    dir: TempDir,
}

impl Collector {
    pub(crate) fn start(kind: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = port::free();
        let peer: PathBuf = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/otlp_collector.py").into();
        let file = dir.path().join("spans").display().to_string();
        let program = serve_script(&peer, &[kind, &file], port, &dir.path().join("collector.log"));
        Self { _program: program, port, dir }
    }

    fn policy(&self, more: &str) -> String {
        format!("tracing: {{otlp: {{url: 'http://127.0.0.1:{}/v1/traces'}}{more}}}", self.port)
    }

    fn spans(&self) -> Vec<Value> {
        self.lines("spans")
    }

    /// Lines of a file of the collector.
    pub(crate) fn lines(&self, file: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join(file)).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// So many spans, when they are there.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Value> {
        wait::until("the spans are there", || Some(self.spans()).filter(|spans| spans.len() >= count))
    }
}

pub(crate) fn of_kind(spans: &[Value], kind: u64) -> Vec<&Value> {
    spans.iter().filter(|span| span["kind"] == kind).collect()
}

fn get(gate: &Gate, target: &str, fields: &str) -> Message {
    gate.connect().exchange(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"))
}

#[test]
fn gateway_and_two_hops_make_one_trace() {
    let collector = Collector::start("http");
    let backend = Backend::start();
    let mut to = backend.address();
    let mut hops = Vec::new();
    // The last hop first; each trusts the one in front.
    for hop in ["last", "middle", "gateway"] {
        let port = port::free();
        let policy =
            collector.policy(", percentage: 100").replace("}, per", &format!(", service: {hop}}}, per"));
        let config = Config::new()
            .top("workers: 1")
            .top("trustedProxies: [127.0.0.1]")
            .listener("web", port, "")
            .backend("next", &format!("endpoints: ['{to}']"))
            .route(&format!("match: {{path: '/*'}}, to: next, policies: {{{policy}}}"));
        hops.push(Rhumb::start(&config));
        to = local(port);
    }
    let echo = Client::connect(to).get("a.test", "/shop/7;token=abc?q=secret");
    assert_eq!(echo.status(), 200);
    let spans = collector.wait_for(6);
    assert_eq!(spans.len(), 6, "{spans:#?}");
    assert!(spans.iter().all(|span| span["trace"] == spans[0]["trace"] && span["scope"] == "rhumb"));
    let mut parent = String::new();
    for hop in ["gateway", "middle", "last"] {
        let of_hop: Vec<_> =
            spans.iter().filter(|span| span["resource"]["service.name"] == hop).cloned().collect();
        let (server, client) = (of_kind(&of_hop, SERVER)[0], of_kind(&of_hop, CLIENT)[0]);
        assert_eq!(server["parent"], parent.as_str(), "{hop}");
        assert_eq!(client["parent"], server["span"], "{hop}");
        assert_eq!(server["name"], "GET /*");
        let told = &server["attributes"];
        assert_eq!((&told["http.response.status_code"], &told["http.route"]), (&200.into(), &"/*".into()));
        assert_eq!(told["client.address"], "127.0.0.1");
        assert!(!server.to_string().contains("secret") && !server.to_string().contains("abc"), "{server}");
        assert_eq!(client["events"][0], "connected");
        assert!(client["begun"].as_u64() >= server["begun"].as_u64());
        assert!(client["nanos"].as_u64() <= server["nanos"].as_u64());
        parent = client["span"].as_str().expect("an id").to_owned();
    }
    let traceparent = seen(&echo, "traceparent").expect("trace context");
    assert_eq!(traceparent, format!("00-{}-{parent}-0{}", spans[0]["trace"].as_str().expect("an id"), 1));
}

#[test]
fn what_failed_or_took_long_is_told_though_it_was_not_sampled() {
    let collector = Collector::start("http");
    let gone = port::free();
    let policy = collector.policy(", percentage: 0");
    let slow = collector.policy(", percentage: 0, slowerThan: 1ms");
    let gate = Gate::with(|config| {
        config
            .backend("gone", &format!("endpoints: ['127.0.0.1:{gone}']"))
            .route(&format!("match: {{path: '/gone/*'}}, to: gone, policies: {{{policy}, retry: {{attempts: 2, on: [connectError]}}}}"))
            .route(&format!("match: {{path: '/slow/*'}}, to: peer, policies: {{{slow}, fault: {{delay: {{time: 20ms, percentage: 100}}}}}}"))
            .route(&format!("match: {{path: '/*'}}, to: peer, policies: {{{policy}}}"))
    });
    let echo = get(&gate, "/fine", "");
    let traceparent = seen(&echo, "traceparent").expect("trace context");
    assert!(traceparent.ends_with("-00") || traceparent.ends_with("-02"), "not sampled: {traceparent}");
    assert_eq!(get(&gate, "/slow/x", "").status(), 200);
    let slow = collector.wait_for(2);
    assert_eq!(of_kind(&slow, SERVER)[0]["name"], "GET /slow/*");
    assert!(get(&gate, "/gone/x", "").status() >= 502);
    let mut spans = collector.wait_for(4);
    spans.retain(|span| span["trace"] != slow[0]["trace"]);
    assert!(spans.iter().all(|span| span["status"] == ERROR), "{spans:#?}");
    let server = of_kind(&spans, SERVER)[0];
    assert_eq!(server["name"], "GET /gone/*", "what went well is not told");
    assert_eq!(server["attributes"]["rhumb.status_source"], "gateway");
    let attempts = of_kind(&spans, CLIENT);
    let resends: Vec<_> =
        attempts.iter().map(|span| span["attributes"]["http.request.resend_count"].as_u64()).collect();
    assert_eq!(resends.first(), Some(&None), "{spans:#?}");
    assert!(
        resends.iter().skip(1).enumerate().all(|(at, count)| *count == Some(at as u64 + 1)),
        "{spans:#?}"
    );
    assert!(attempts.iter().all(|span| span["attributes"]["error.type"].is_string()));
}

#[test]
fn over_grpc_and_what_a_policy_waited_for() {
    let collector = Collector::start("grpc");
    let asked = Backend::start();
    let gate = Gate::with(|config| {
        config
            .backend("otel", &format!("endpoints: ['127.0.0.1:{}'], protocol: h2c", collector.port))
            .route(&format!(
                "match: {{path: '/*'}}, to: peer, policies: {{tracing: {{percentage: 100, otlp: {{url: 'http://otel', backend: otel, \
                 protocol: grpc}}}}, extAuthz: {{http: {{url: 'http://{}/check'}}}}}}",
                asked.address()
            ))
    });
    assert_eq!(get(&gate, "/", "").status(), 200);
    let spans = collector.wait_for(3);
    let wait = spans.iter().find(|span| span["name"] == "policy extAuthz").expect("a span of the policy");
    let server = of_kind(&spans, SERVER)[0];
    assert_eq!((&wait["parent"], &wait["path"]), (&server["span"], &"grpc".into()));
    let ids: std::collections::BTreeSet<_> = spans.iter().map(|span| span["span"].as_str()).collect();
    assert_eq!(ids.len(), 3, "{spans:#?}");
}

#[test]
fn other_forms_of_trace_context_are_read_and_written() {
    let gate = Gate::with(|config| {
        config
            .top("trustedProxies: [127.0.0.1]")
            .route("match: {path: '/b3/*'}, to: peer, policies: {tracing: {percentage: 0, propagation: [b3, w3c]}}")
            .route("match: {path: '/multi/*'}, to: peer, policies: {tracing: {propagation: [b3multi]}}")
            .route("match: {path: '/*'}, to: peer")
    });
    let (trace, span) = ("463ac35c9f6413ad48485a3953bb6124", "a2fb4a1d1a96d312");
    let echo = get(&gate, "/b3/x", &format!("b3: {trace}-{span}-1\r\n"));
    let told = seen(&echo, "b3").expect("trace context");
    assert!(told.starts_with(trace) && told.ends_with("-1") && !told.contains(span), "{told}");
    let w3c = seen(&echo, "traceparent").expect("trace context");
    assert!(w3c.contains(told.split('-').nth(1).expect("an id")), "{w3c} {told}");
    let fields = format!("X-B3-TraceId: {trace}\r\nX-B3-SpanId: {span}\r\nX-B3-Sampled: 0\r\n");
    let echo = get(&gate, "/multi/x", &fields);
    assert_eq!(seen(&echo, "x-b3-traceid").as_deref(), Some(trace));
    assert_ne!(seen(&echo, "x-b3-spanid").as_deref(), Some(span));
    assert_eq!(seen(&echo, "x-b3-sampled").as_deref(), Some("0"));
    // Without the policy nothing is touched.
    let given = format!("00-{trace}-{span}-01");
    let echo = get(&gate, "/", &format!("traceparent: {given}\r\nb3: {trace}-{span}-1\r\n"));
    assert_eq!(seen(&echo, "traceparent"), Some(given));
    assert_eq!(seen(&echo, "b3"), Some(format!("{trace}-{span}-1")));
}

#[test]
fn strangers_decide_nothing_about_traces() {
    let gate = Gate::with(|config| {
        config.route(
            "match: {path: '/*'}, to: peer, policies: {tracing: {percentage: 0, propagation: [b3, w3c]}}",
        )
    });
    let echo = get(
        &gate,
        "/",
        "b3: 463ac35c9f6413ad48485a3953bb6124-a2fb4a1d1a96d312-1\r\ntraceparent: 00-463ac35c9f6413ad48485a3953bb6124-a2fb4a1d1a96d312-01\r\n",
    );
    let told = seen(&echo, "traceparent").expect("trace context");
    assert!(!told.contains("463ac35c9f6413ad48485a3953bb6124") && told.ends_with("-00"), "{told}");
}

#[test]
fn batches_are_sent_again_and_refusals_are_counted() {
    let collector = Collector::start("http");
    let gate = Gate::with(|config| {
        let policy = |path: &str| collector.policy(", percentage: 100").replace("/v1/traces", path);
        config
            .route(&format!("match: {{path: '/one/*'}}, to: peer, policies: {{{}}}", policy("/later")))
            .route(&format!("match: {{path: '/two/*'}}, to: peer, policies: {{{}}}", policy("/refuse")))
    });
    assert_eq!(get(&gate, "/one/x", "").status(), 200);
    assert_eq!(get(&gate, "/two/x", "").status(), 200);
    let spans = collector.wait_for(2);
    assert!(spans.iter().all(|span| span["path"] == "/later"), "{spans:#?}");
    wait::until("refused spans are counted", || {
        let dropped = gate.rhumb.metric("rhumb_spans_dropped_total", &["reason=\"rejected\""]);
        let sent = gate.rhumb.metric("rhumb_spans_sent_total", &[]);
        (dropped == 2.0 && sent == 2.0).then_some(())
    });
}

#[test]
fn the_last_spans_are_sent_when_the_process_ends() {
    let collector = Collector::start("http");
    let policy = collector.policy(", percentage: 100");
    let gate = Gate::with(|config| {
        config.route(&format!("match: {{path: '/*'}}, to: peer, policies: {{{policy}}}"))
    });
    assert_eq!(get(&gate, "/", "Connection: close\r\n").status(), 200);
    gate.rhumb.terminate();
    collector.wait_for(2);
}

/// Logs and metrics are there, as OpenTelemetry's own messages have them.
fn logs_and_metrics(gate: &Gate, collector: &Collector, path: [&str; 2]) {
    assert_eq!(get(gate, "/status/503", "").status(), 503);
    assert_eq!(get(gate, "/users/7?token=hush", "").status(), 200);
    let logs = wait::until("log records are there", || {
        Some(collector.lines("spans.logs")).filter(|logs| logs.len() >= 2)
    });
    assert_eq!((&logs[0]["severity"], &logs[0]["body"]), (&"ERROR".into(), &"GET /* 503".into()));
    assert_eq!((&logs[1]["severity"], &logs[1]["path"]), (&"INFO".into(), &path[0].into()));
    assert_eq!(logs[1]["attributes"]["http.response.status_code"], 200);
    assert!(logs[1]["attributes"]["rhumb.duration_nanos"].as_i64() > Some(0), "{}", logs[1]);
    assert!(!logs[1].to_string().contains("hush"));
    let points = wait::until("metrics are there", || {
        let points = collector.lines("spans.metrics");
        let has = |name: &str, count: u64| {
            let of: Vec<_> = points.iter().filter(|point| point["name"] == name).collect();
            let last = of.iter().rev().take(2).filter_map(|point| point["count"].as_u64()).sum::<u64>();
            last >= count
        };
        // What comes last of one telling may not be written yet.
        let is_whole = points.iter().any(|point| point["name"] == "rhumb.workers");
        (has("http.server.request.duration", 2) && is_whole).then_some(points)
    });
    let of = |name: &str| points.iter().rfind(|point| point["name"] == name).cloned().unwrap_or_default();
    let duration = of("http.server.request.duration");
    assert_eq!((&duration["kind"], &duration["unit"]), (&"exponential_histogram".into(), &"s".into()));
    assert_eq!((&duration["attributes"]["http.route"], &duration["path"]), (&"/*".into(), &path[1].into()));
    assert_eq!(of("rhumb.workers")["value"], 1.0);
    assert_eq!(of("rhumb.workers")["kind"], "gauge");
    wait::until("what was taken is counted", || {
        (gate.rhumb.metric("rhumb_otlp_logs_sent_total", &[]) >= 2.0
            && gate.rhumb.metric("rhumb_otlp_points_sent_total", &[]) > 10.0)
            .then_some(())
    });
}

#[test]
fn logs_and_metrics_go_to_a_collector_over_http() {
    let collector = Collector::start("http");
    let policy = format!(
        "tracing: {{otlp: {{url: 'http://127.0.0.1:{}/v1/traces', logs: true, metrics: 1s}}}}",
        collector.port
    );
    let gate = Gate::with(|config| {
        config.route(&format!("match: {{path: '/*'}}, to: peer, policies: {{{policy}}}"))
    });
    logs_and_metrics(&gate, &collector, ["/v1/logs", "/v1/metrics"]);
}

#[test]
fn logs_and_metrics_go_to_a_collector_over_grpc() {
    let collector = Collector::start("grpc");
    let policy = "tracing: {otlp: {url: 'http://127.0.0.1:4317', backend: otel, protocol: grpc, logs: true, metrics: 1s}}";
    let gate = Gate::with(|config| {
        config
            .backend("otel", &format!("endpoints: ['127.0.0.1:{}'], protocol: h2c", collector.port))
            .route(&format!("match: {{path: '/*'}}, to: peer, policies: {{{policy}}}"))
    });
    logs_and_metrics(&gate, &collector, ["grpc", "grpc"]);
}

#[test]
fn the_process_tells_a_collector_without_any_policy() {
    let collector = Collector::start("http");
    let gate = Gate::with(|config| {
        config
            .top(&format!(
                "signals: {{otlp: {{url: 'http://127.0.0.1:{}', logs: true, metrics: 1s}}}}",
                collector.port
            ))
            .route("match: {path: '/*'}, to: peer")
    });
    logs_and_metrics(&gate, &collector, ["/v1/logs", "/v1/metrics"]);
    assert!(collector.spans().is_empty());
}

#[test]
fn baggage_passes_through_bounded_and_chosen_members_are_told() {
    let collector = Collector::start("http");
    let policy = collector.policy(", percentage: 100, baggage: [tenant, tier]");
    let gate = Gate::with(|config| {
        config.route(&format!("match: {{path: '/*'}}, to: peer, policies: {{{policy}}}"))
    });
    let given = "tenant=acme%20corp;ttl=1,other=secret";
    assert_eq!(get(&gate, "/a", &format!("Baggage: {given}\r\n")).status(), 200);
    let passed = |path: &str| {
        let all = gate.backend.seen();
        let one = all.iter().find(|one| one.message.target() == path).expect("the request");
        one.message.field("baggage").map(str::to_owned)
    };
    assert_eq!(passed("/a").as_deref(), Some(given));
    let spans = collector.wait_for(2);
    let server = of_kind(&spans, SERVER)[0];
    assert_eq!(server["attributes"]["baggage.tenant"], "acme corp");
    assert!(!server.to_string().contains("secret"), "{server}");
    let line = wait::until("the access log", || {
        let log = gate.rhumb.log();
        log.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["path"] == "/a")
    });
    assert_eq!(line["baggage"], serde_json::json!({ "tenant": "acme corp" }));
    let many: Vec<String> = (0..300).map(|n| format!("k{n}=v")).collect();
    assert_eq!(get(&gate, "/b", &format!("Baggage: {}\r\n", many.join(","))).status(), 200);
    assert_eq!(passed("/b").map(|passed| passed.split(',').count()), Some(180));
    assert_eq!(gate.rhumb.metric("rhumb_limit_hits_total", &["limit=\"baggage\""]), 1.0);
}
