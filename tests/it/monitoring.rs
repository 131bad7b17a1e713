//! What deploy/ has for Prometheus and Grafana, with a real Prometheus that scrapes a real proxy.

use crate::gate::{Gate, json, local};
use crate::tracing::Collector;
use rhumb_testkit::client::Client;
use rhumb_testkit::port;
use rhumb_testkit::process::{Program, serve};
use rhumb_testkit::wait;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn repository(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The expressions of the dashboard, with what Grafana puts in for its variables.
fn dashboard() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/rhumb.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let filled = targets.map(|target| {
        let expression = target["expr"].as_str().expect("an expression");
        expression.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$route", ".*")
    });
    filled.collect()
}

/// Names of metrics in an expression.
fn names(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| {
        ["rhumb_", "http_server_", "http_client_", "process_"].iter().any(|p| word.starts_with(p))
    });
    ours.map(str::to_owned).collect()
}

/// A Prometheus that scrapes `admin` each second, with the rules of deploy/ that need no time to fire.
struct Prometheus {
    _program: Program,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    fn start(admin: SocketAddr) -> Self {
        Self::with(admin, "", &[])
    }

    /// With more settings of the job and more options.
    fn with(admin: SocketAddr, job: &str, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let rules = read("deploy/prometheus/rhumb.rules.yml");
        let at_once: Vec<_> = rules.lines().filter(|line| !line.trim_start().starts_with("for: ")).collect();
        let file = |name: &str, content: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).expect("a file");
            path.display().to_string()
        };
        file("rules.yml", &at_once.join("\n"));
        let config = file(
            "prometheus.yml",
            &format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\n\
                 scrape_configs:\n  - job_name: rhumb\n    static_configs: [{{targets: ['{admin}']}}]\n{job}"
            ),
        );
        let port = port::free();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={config}"));
        command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.args(options);
        let program = serve(command, port, &dir.path().join("prometheus.log"));
        Self { _program: program, address: local(port), _dir: dir }
    }

    fn ask(&self, target: &str) -> Value {
        let answer = Client::connect(self.address).get("127.0.0.1", target);
        // It answers 503 while it reads its storage.
        if answer.status() == 503 { Value::Null } else { json(&answer) }
    }

    fn query(&self, expression: &str) -> Value {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.ask(&format!("/api/v1/query?query={encoded}"))
    }
}

#[test]
fn rules_and_dashboard_name_metrics_that_exist() {
    let table = read("docs/operations.md");
    let is_known = |name: &str| {
        let base =
            ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        [name, base].iter().any(|name| table.contains(&format!("| `{name}` |")))
    };
    let rules = read("deploy/prometheus/rhumb.rules.yml");
    let expressions: Vec<_> =
        rules.lines().filter(|line| !line.contains("alert:")).map(str::to_owned).collect();
    for expression in expressions.iter().chain(&dashboard()) {
        let unknown: Vec<_> = names(expression).into_iter().filter(|name| !is_known(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {expression}");
    }
}

#[test]
fn promtool_finds_nothing_wrong() {
    let gate = Gate::new();
    assert_eq!(gate.get("/").status(), 200);
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    let metrics = gate.rhumb.admin("/metrics").content;
    check.stdin.take().expect("its input").write_all(&metrics).expect("metrics are written");
    let output = check.wait_with_output().expect("its end");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let rules = repository("deploy/prometheus/rhumb.rules.yml");
    let output = Command::new("promtool").args(["check", "rules"]).arg(rules).output().expect("promtool");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn alerts_fire_in_a_real_prometheus_and_the_dashboard_has_data() {
    let gone = port::free();
    let gate = Gate::with(|config| {
        config
            .backend("gone", &format!("endpoints: ['127.0.0.1:{gone}']"))
            .route("match: {path: '/gone/*'}, to: gone")
            .route("match: {path: '/*'}, to: peer")
    });
    let prometheus = Prometheus::start(gate.rhumb.admin_address());
    wait::until("the alert fires", || {
        // Rates need requests between two scrapes.
        assert!(gate.get("/gone/x").status() >= 500);
        assert_eq!(gate.get("/").status(), 200);
        let alerts = prometheus.ask("/api/v1/alerts");
        let firing = alerts["data"]["alerts"].as_array()?.iter().any(|alert| {
            alert["state"] == "firing"
                && alert["labels"]["alertname"] == "RhumbErrorRatioHigh"
                && alert["labels"]["route"] == "default/gone"
        });
        firing.then_some(())
    });
    let rules = prometheus.ask("/api/v1/rules");
    let groups = rules["data"]["groups"].as_array().expect("groups");
    let rules: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules")).collect();
    assert!(rules.len() >= 18 && rules.iter().all(|rule| rule["health"] == "ok"), "{rules:#?}");
    let down = rules.iter().find(|rule| rule["name"] == "RhumbDown").expect("the rule");
    assert_eq!(down["state"], "inactive");
    let mut with_data = 0;
    for expression in dashboard() {
        let answer = prometheus.query(&expression);
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        with_data +=
            usize::from(answer["data"]["result"].as_array().is_some_and(|series| !series.is_empty()));
    }
    assert!(with_data >= 12, "only {with_data} expressions have data");
    // When the proxy is gone, that is told as well.
    drop(gate);
    wait::until("its absence is told", || {
        let alerts = prometheus.ask("/api/v1/alerts");
        let all = alerts["data"]["alerts"].as_array()?;
        all.iter().any(|alert| alert["labels"]["alertname"] == "RhumbDown").then_some(())
    });
}

#[test]
fn protocol_buffers_bring_native_histograms() {
    let gate = Gate::new();
    for _ in 0..20 {
        assert_eq!(gate.get("/").status(), 200);
    }
    // What Prometheus scrapes with this feature on: protocol buffers before all else.
    let prometheus =
        Prometheus::with(gate.rhumb.admin_address(), "", &["--enable-feature=native-histograms"]);
    wait::until("a native histogram is there", || {
        assert_eq!(gate.get("/").status(), 200);
        let count = prometheus.query("histogram_count(sum(http_server_request_duration_seconds))");
        let value = count["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok()?;
        (value >= 20.0).then_some(())
    });
    let quantile = prometheus.query("histogram_quantile(0.99, sum(http_server_request_duration_seconds))");
    let seconds: f64 = quantile["data"]["result"][0]["value"][1]
        .as_str()
        .and_then(|value| value.parse().ok())
        .unwrap_or(f64::NAN);
    assert!(seconds > 0.0 && seconds < 60.0, "{quantile}");
    let edge = prometheus.query("sum(rhumb_edge_requests_total{source=\"gateway\"})");
    assert!(edge["data"]["result"][0]["value"][1].is_string(), "{edge}");
    let edge =
        prometheus.query("histogram_count(sum(rhumb_edge_request_duration_seconds{source=\"gateway\"}))");
    let count = edge["data"]["result"][0]["value"][1].as_str().and_then(|count| count.parse::<f64>().ok());
    assert!(count.is_some_and(|count| count >= 20.0), "{edge}");
    let accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    let answer = Client::connect(gate.rhumb.admin_address()).exchange(request);
    assert!(
        answer
            .field("content-type")
            .is_some_and(|media| media.starts_with("application/vnd.google.protobuf"))
    );
}

#[test]
fn an_exemplar_in_a_real_prometheus_is_a_trace_that_the_collector_got() {
    let collector = Collector::start("http");
    let policy = format!(
        "tracing: {{otlp: {{url: 'http://127.0.0.1:{}/v1/traces'}}, percentage: 100}}",
        collector.port
    );
    let gate = Gate::with(|config| {
        config.route(&format!("match: {{path: '/*'}}, to: peer, policies: {{{policy}}}"))
    });
    // It asks for OpenMetrics, which has exemplars.
    let prometheus = Prometheus::with(gate.rhumb.admin_address(), "", &["--enable-feature=exemplar-storage"]);
    let found = wait::until("an exemplar is there", || {
        assert_eq!(gate.get("/users/7").status(), 200);
        let all = prometheus.ask(
            "/api/v1/query_exemplars?query=http_server_request_duration_seconds_bucket&start=0&end=4102444800",
        );
        let exemplars = all["data"][0]["exemplars"].as_array()?;
        let trace = exemplars.first()?["labels"]["trace_id"].as_str()?.to_owned();
        Some((trace, all["data"][0]["seriesLabels"]["http_route"].clone()))
    });
    assert_eq!(found.1, "/*");
    wait::until("the collector has that trace", || {
        let spans = collector.wait_for(1);
        spans.iter().any(|span| span["trace"] == *found.0).then_some(())
    });
}

#[test]
fn a_statsd_server_gets_what_has_come() {
    let server = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    server.set_read_timeout(Some(std::time::Duration::from_secs(1))).expect("a time limit");
    let address = server.local_addr().expect("an address");
    let gate = Gate::with(|config| {
        config
            .top(&format!("signals: {{statsd: {{address: '{address}', prefix: edge., every: 1s}}}}"))
            .route("match: {path: '/*'}, to: peer")
    });
    assert_eq!(gate.get("/").status(), 200);
    let mut seen = String::new();
    wait::until("the request is told", || {
        let mut datagram = [0; 2048];
        if let Ok(length) = server.recv(&mut datagram) {
            seen.push_str(&String::from_utf8_lossy(&datagram[..length]));
            seen.push('\n');
        }
        let has =
            |start: &str, end: &str| seen.lines().any(|line| line.starts_with(start) && line.contains(end));
        (has(
            "edge.http_server_request_duration_seconds:",
            "|ms|#server_listener:default/web/http,route:default/",
        ) && has("edge.rhumb_edge_requests_total:1|c", "source:gateway")
            && has("edge.rhumb_workers:1|g", ""))
        .then_some(())
    });
}
