//! Changes while traffic flows, mistakes that must not stop it, the end of the process, and what operators see.

use crate::gate::{Gate, json, local};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::cert::Authority;
use rhumb_testkit::client::{self, Client};
use rhumb_testkit::config::Config;
use rhumb_testkit::h2::{self, Connection, code, kind};
use rhumb_testkit::load::{Load, Report};
use rhumb_testkit::message::{Kind, Message};
use rhumb_testkit::process::{Rhumb, finish};
use rhumb_testkit::{port, wait};
use rustix::process::Signal;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn steady(proxy: SocketAddr) -> Load {
    let load =
        Load::start(proxy, 4, "GET /bytes/500 HTTP/1.1\r\nHost: a.test\r\n\r\n", |response: &Message| {
            (response.status() != 200 || response.content.len() != 500)
                .then(|| format!("{} {}", response.start, response.text()))
        });
    load.wait_more(100);
    load
}

fn none_failed(report: &Report) {
    assert_eq!(report.failed, 0, "of {}: {:?}", report.good, report.first());
}

#[test]
fn a_hundred_reloads_under_load_cost_no_request() {
    let (backend, port) = (Backend::start(), port::free());
    let config = |n: u32| {
        Config::simple(port, backend.address())
            .top("workers: 2")
            .route(&format!("match: {{path: /version}}, respond: {{status: 200, body: 'version {n}'}}"))
    };
    let rhumb = Rhumb::start(&config(0));
    let load = steady(local(port));
    for n in 1..=100 {
        rhumb.write(&config(n));
        // Half by the watch on the file, half by the signal.
        if n % 2 == 0 {
            rhumb.reload();
        }
        let expected = format!("version {n}");
        wait::until(&expected, || {
            (client::get(local(port), "a.test", "/version").text() == expected).then_some(())
        });
    }
    none_failed(&load.stop());
    assert!(rhumb.metric("rhumb_config_revision", &[]) >= 100.0, "{}", rhumb.admin("/metrics").text());
}

#[test]
fn twenty_certificates_under_load_cost_no_request() {
    let (backend, port) = (Backend::start(), port::free());
    let ca = Authority::new("test");
    let config = Config::new()
        .top("workers: 2")
        .listener("web", port, "tls: {certificates: [{cert: web.crt, key: web.key}]}")
        .backend("peer", &format!("endpoints: ['{}']", backend.address()))
        .route("to: peer");
    let rhumb = Rhumb::start_with(&config, |dir| drop(ca.server(&["a.test"]).write(dir, "web")));
    // New handshakes all the time on one side, long connections on the other.
    let wrk = |close: bool| {
        let mut command = Command::new("wrk");
        command.args(["-t1", "-c4", "-d6s"]);
        if close {
            command.args(["-H", "Connection: close"]);
        }
        command.arg(format!("https://127.0.0.1:{port}/bytes/500"));
        std::thread::spawn(move || finish(command))
    };
    let loads = [wrk(true), wrk(false)];
    let certificate = || {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", "a.test"]);
        finish(command).output.split("-----BEGIN CERTIFICATE-----").nth(1).unwrap_or_default().to_owned()
    };
    let mut last = certificate();
    for _ in 0..20 {
        ca.server(&["a.test"]).write(rhumb.dir(), "web");
        last = wait::until("the new certificate", || {
            let now = certificate();
            (now != last && !now.is_empty()).then_some(now)
        });
    }
    for load in loads {
        let finished = load.join().expect("wrk");
        let output = &finished.output;
        assert!(
            finished.code == Some(0) && !output.contains("Socket errors") && !output.contains("Non-2xx"),
            "{output}"
        );
    }
}

#[test]
fn a_route_among_ten_thousand_changes_while_traffic_flows() {
    let (backend, port) = (Backend::start(), port::free());
    let config = |n: u32| {
        let mut config = Config::simple(port, backend.address());
        for k in 0..10_000 {
            config = config.route(&format!(
                "match: {{host: h{}.test, path: /r{k}/*}}, respond: {{status: 200, body: 'r{k}'}}",
                k % 100
            ));
        }
        config.route(&format!("match: {{path: /version}}, respond: {{status: 200, body: 'version {n}'}}"))
    };
    let rhumb = Rhumb::start(&config(0));
    assert_eq!(client::get(local(port), "h99.test", "/r9999/x").text(), "r9999");
    let load = steady(local(port));
    let text = rhumb.text_of(&config(1));
    let start = Instant::now();
    rhumb.write_text(&text);
    rhumb.reload();
    let mut client = Client::connect(local(port));
    // A debug build reads ten thousand routes in many seconds on a busy machine.
    wait::until_within(Duration::from_secs(120), "the new route", || {
        (client.get("a.test", "/version").text() == "version 1").then_some(())
    });
    eprintln!("a route among 10 000 was live after {:?} (this build)", start.elapsed());
    none_failed(&load.stop());
}

#[test]
fn a_mistake_keeps_the_last_good_configuration() {
    let mut gate = Gate::new();
    let good = std::fs::read_to_string(gate.rhumb.dir().join("rhumb.yaml")).expect("the configuration");
    let revision = gate.rhumb.metric("rhumb_config_revision", &[]);
    for broken in ["listeners: [", "routes: 7\n", "listeners: {web: {port: 99999}}\n"] {
        let errors = gate.rhumb.log().len();
        gate.rhumb.write_text(broken);
        gate.rhumb.reload();
        wait::until("the mistake is told", || {
            gate.rhumb.log()[errors..].contains("rhumb.yaml").then_some(())
        });
        assert_eq!(gate.get("/bytes/7").content.len(), 7, "{broken:?}");
        assert!(gate.rhumb.program().ended().is_none());
    }
    // One half-written file and its completion, as editors that do not rename do.
    std::fs::write(gate.rhumb.dir().join("rhumb.yaml"), &good[..good.len() / 2]).expect("a file");
    std::fs::write(
        gate.rhumb.dir().join("rhumb.yaml"),
        format!("{good}  - {{on: web, match: {{path: /new}}, respond: {{status: 200, body: new}}}}\n"),
    )
    .expect("a file");
    wait::until("the good one", || (gate.get("/new").text() == "new").then_some(()));
    assert!(gate.rhumb.metric("rhumb_config_revision", &[]) > revision);
}

#[test]
fn listeners_come_and_go_with_the_configuration() {
    let (backend, first, second) = (Backend::start(), port::free(), port::free());
    let peer = format!("endpoints: ['{}']", backend.address());
    let config = |ports: &[u16]| {
        let base = Config::new().backend("peer", &peer).route("to: peer");
        ports
            .iter()
            .enumerate()
            .fold(base, |config, (n, port)| config.listener(if n == 0 { "web" } else { "more" }, *port, ""))
    };
    let rhumb = Rhumb::start(&config(&[first]));
    let load = steady(local(first));
    rhumb.write(&config(&[first, second]).route("on: more, match: {path: /more/*}, to: peer"));
    wait::until("the second port", || TcpStream::connect(local(second)).ok());
    assert_eq!(client::get(local(second), "a.test", "/more/x").status(), 200);
    rhumb.write(&config(&[first]));
    wait::until("the second port closes", || TcpStream::connect(local(second)).err());
    none_failed(&load.stop());
}

#[test]
fn sigterm_finishes_what_runs_and_ends() {
    let (backend, port) = (Backend::start(), port::free());
    let mut rhumb = Rhumb::start(&Config::simple(port, backend.address()).top("timeouts: {drain: 20s}"));
    let mut waiting = Client::connect(local(port));
    waiting.send("GET /hold/slow HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let mut idle = Client::connect(local(port));
    assert_eq!(idle.get("a.test", "/bytes/1").status(), 200);
    let mut streams = Connection::open(local(port), &[]);
    streams.send(&h2::headers(1, &h2::get("a.test", "/hold/slow", &[]), true));
    wait::until("both are with the backend", || (backend.seen().len() == 3).then_some(()));
    rhumb.program().signal(Signal::TERM);
    wait::until("not ready", || {
        rhumb.try_admin("/readyz").is_none_or(|response| response.status() == 503).then_some(())
    });
    // What is idle is closed; what is new is not taken.
    assert!(idle.read_to_end().is_empty());
    let mut goaway = None;
    while goaway.is_none() {
        let frame = streams.frame().expect("GOAWAY");
        goaway = (frame.kind == kind::GOAWAY).then(|| frame.code());
    }
    assert_eq!(goaway, Some(Some(code::NO_ERROR)));
    assert!(rhumb.program().ended().is_none(), "requests are running");
    backend.release("slow");
    let response = waiting.response();
    assert_eq!((response.text().as_str(), response.field("connection")), ("held", Some("close")));
    assert_eq!(streams.answer(1).expect("an answer").content, b"held");
    assert_eq!(rhumb.program().wait().code(), Some(0), "{}", rhumb.log());
}

#[test]
fn draining_has_an_end() {
    let (backend, port) = (Backend::start(), port::free());
    let rhumb = Rhumb::start(&Config::simple(port, backend.address()).top("timeouts: {drain: 300ms}"));
    let mut waiting = Client::connect(local(port));
    waiting.send("GET /hold/for-ever HTTP/1.1\r\nHost: a.test\r\n\r\n");
    backend.wait_for("/hold");
    let (status, _) = rhumb.terminate();
    assert!(status.code().is_some(), "{status}");
    waiting.read_to_end();
}

#[test]
fn the_admin_listener_answers_its_questions() {
    let gate = Gate::new();
    assert_eq!(gate.get("/bytes/5").status(), 200);
    assert_eq!(gate.rhumb.admin("/livez").status(), 200);
    assert_eq!(gate.rhumb.admin("/readyz").status(), 200);
    let config = gate.rhumb.admin("/config");
    assert!(config.status() == 200 && config.text().contains("peer"), "{config:?}");
    let endpoints = gate.rhumb.admin("/endpoints");
    assert!(endpoints.text().contains(&gate.backend.address().to_string()), "{endpoints:?}");
    assert_eq!(gate.rhumb.admin("/nothing").status(), 404);
    assert_eq!(gate.rhumb.ask_admin("DELETE", "/config").status(), 405);
    // Without the token nothing about the configuration is told.
    assert_eq!(client::get(gate.rhumb.admin_address(), "localhost", "/config").status(), 401);
}

#[test]
fn metrics_are_valid_and_count() {
    let gate = Gate::with(|config| {
        config.route("name: numbers, match: {path: /bytes/*}, to: peer").route("to: peer")
    });
    for _ in 0..7 {
        gate.get("/bytes/5");
    }
    gate.get("/status/404");
    gate.connect().exchange("GET / HTTP/1.1\r\nHost: a b\r\n\r\n");
    let text = gate.rhumb.admin("/metrics").text();
    let mut typed = std::collections::BTreeSet::new();
    let mut series = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(
                ["counter", "gauge", "histogram", "info", "unknown", "summary"].contains(&kind),
                "{line}"
            );
            assert!(typed.insert(name.to_owned()), "two types: {line}");
        } else if !line.starts_with('#') && !line.is_empty() {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok() || ["+Inf", "NaN"].contains(&value), "{line}");
            assert!(series.insert(name.to_owned()), "twice: {line}");
            let family = name.split('{').next().unwrap_or_default();
            let base = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|suffix| family.strip_suffix(suffix).filter(|base| typed.contains(*base)));
            assert!(typed.contains(base.unwrap_or(family)), "no type: {line}");
        }
    }
    let count = |labels: &[&str]| gate.rhumb.metric("http_server_request_duration_seconds_count", labels);
    wait::until("the counts", || {
        (count(&["http_response_status_code=\"200\"", "numbers"]) == 7.0).then_some(())
    });
    assert_eq!(count(&["http_response_status_code=\"404\""]), 1.0);
    assert_eq!(count(&["http_response_status_code=\"400\""]), 1.0);
    // A raw path never becomes a label.
    assert!(!text.contains("/bytes/5"), "{text}");
}

#[test]
fn the_access_log_tells_each_request_once_and_no_secret() {
    for format in ["json", "combined"] {
        let gate = Gate::with(|config| {
            config.top(&format!("accessLog: {{format: {format}, path: access.log}}")).route("to: peer")
        });
        let path = gate.rhumb.dir().join("access.log");
        let lines = || {
            std::fs::read_to_string(&path).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let wait_for =
            |text: &str| wait::until(text, || lines().into_iter().find(|line| line.contains(text)));
        gate.connect().exchange(
            "GET /bytes/5?access_token=SECRET1&x=1 HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer SECRET2\r\nCookie: s=SECRET3\r\nUser-Agent: a\"b\\c\u{9b}\r\n\r\n",
        );
        gate.connect().exchange("GET /hangup HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let first = wait_for("/bytes/5");
        let failed = wait_for("/hangup");
        if format == "json" {
            let first: serde_json::Value =
                serde_json::from_str(&first).unwrap_or_else(|error| panic!("{error}: {first}"));
            assert_eq!(
                (&first["status"], &first["method"], &first["path"]),
                (&200.into(), &"GET".into(), &"/bytes/5".into()),
                "{first}"
            );
            let failed: serde_json::Value =
                serde_json::from_str(&failed).unwrap_or_else(|error| panic!("{error}: {failed}"));
            assert_eq!(
                (&failed["status"], &failed["failure_code"]),
                (&502.into(), &"backend_reset".into()),
                "{failed}"
            );
        } else {
            assert!(first.contains("\"GET /bytes/5") && first.contains("\" 200 5 "), "{first}");
        }
        let all = lines().join("\n");
        assert!(!all.contains("SECRET"), "{all}");
        assert_eq!(lines().len(), 2, "{all}");
        // Rotated as logrotate does.
        std::fs::rename(&path, gate.rhumb.dir().join("access.log.1")).expect("a rename");
        let mut gate = gate;
        gate.rhumb.program().signal(Signal::USR1);
        wait::until("the new file", || path.exists().then_some(()));
        gate.get("/after");
        wait_for("/after");
    }
}

#[test]
fn ten_mistakes_are_told_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let files: &[(&str, &str, u32)] = &[
        // File, content, line of the mistake.
        ("01.yaml", "listeners:\n  web: {port: 80800}\n", 2),
        ("02.yaml", "backends:\n  a:\n    endpoint: [127.0.0.1:1]\n", 3),
        ("03.yaml", "routes:\n  - match: {path: 'no-slash'}\n    to: 127.0.0.1:1\n", 2),
        ("04.yaml", "routes:\n  - match: {path: '~^/(['}\n    to: 127.0.0.1:1\n", 2),
        ("05.yaml", "routes:\n  - match: {path: /five}\n    to: 127.0.0.1:1\n    timeout: 10\n", 4),
        ("06.yaml", "routes:\n  - match: {path: /six}\n    to: nowhere\n", 3),
        (
            "07.yaml",
            "listeners:\n  secure:\n    port: 8443\n    tls: {certificates: [{cert: missing.crt, key: missing.key}]}\n",
            4,
        ),
        (
            "08.yaml",
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: x}\nspec:\n  parentRef: []\n",
            5,
        ),
        (
            "09.yaml",
            "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\nmetadata: {name: x}\nspec: {}\n",
            4,
        ),
        ("10.yaml", "routes:\n  - match: {path: /ten}\n    to: 127.0.0.1:1\n    policies: {jwtt: {}}\n", 4),
        ("11.yaml", "backends:\n  b: ['127.0.0.1:1']\n  b: ['127.0.0.1:2']\n", 3),
        ("12.yaml", "backends:\n  c: ['127.0.0.1:1'\n", 2),
    ];
    for (name, text, _) in files {
        std::fs::write(dir.path().join(name), text).expect("a file");
    }
    let mut command = Rhumb::command();
    command.arg("check").arg(dir.path());
    let finished = finish(command);
    assert_eq!(finished.code, Some(3), "{}", finished.output);
    let mut missing = String::new();
    for (name, text, line) in files {
        // A mistake may be shown at the end of an open bracket instead of its beginning.
        let lines = [*line, line + 1];
        if !lines.iter().any(|line| finished.output.contains(&format!("{name}:{line}:"))) {
            let _ = writeln!(missing, "{name}:{line} {text:?}");
        }
    }
    assert!(missing.is_empty(), "not told:\n{missing}\nof:\n{}", finished.output);
    assert!(finished.output.contains("endpoints"), "did you mean: {}", finished.output);
}

#[test]
fn files_of_a_directory_are_watched() {
    let (backend, port, admin) = (Backend::start(), port::free(), port::free());
    let dir = tempfile::tempdir().expect("a directory");
    let base = Config::simple(port, backend.address()).text(admin);
    std::fs::write(dir.path().join("base.yaml"), base).expect("a file");
    let rhumb = Rhumb::start_on(dir, "", admin);
    let more = rhumb.dir().join("more.yaml");
    let ask = || client::get(local(port), "a.test", "/more").status();
    assert_eq!(ask(), 200, "the backend answers");
    std::fs::write(&more, "routes:\n  - {on: web, match: {path: /more}, respond: {status: 418}}\n")
        .expect("a file");
    wait::until("the new file", || (ask() == 418).then_some(()));
    std::fs::remove_file(&more).expect("a file");
    wait::until("its removal", || (ask() == 200).then_some(()));
}

/// How Kubernetes mounts a ConfigMap: names are links through `..data`, which is swapped by a rename.
#[test]
fn a_mounted_config_map_is_followed() {
    let (backend, port, admin) = (Backend::start(), port::free(), port::free());
    let dir = tempfile::tempdir().expect("a directory");
    let base = dir.path().to_owned();
    let text = |n: u32| {
        Config::simple(port, backend.address())
            .route(&format!("match: {{path: /version}}, respond: {{status: 200, body: 'version {n}'}}"))
            .text(admin)
    };
    let publish = |base: &Path, n: u32| {
        let data = base.join(format!("..2026_{n}"));
        std::fs::create_dir(&data).expect("a directory");
        std::fs::write(data.join("rhumb.yaml"), text(n)).expect("a file");
        let link = base.join("..data_tmp");
        std::os::unix::fs::symlink(data.file_name().expect("a name"), &link).expect("a link");
        std::fs::rename(&link, base.join("..data")).expect("a rename");
    };
    publish(&base, 1);
    std::os::unix::fs::symlink("..data/rhumb.yaml", base.join("rhumb.yaml")).expect("a link");
    let _rhumb = Rhumb::start_on(dir, "", admin);
    for n in 1..4 {
        let expected = format!("version {n}");
        wait::until(&expected, || {
            (client::get(local(port), "a.test", "/version").text() == expected).then_some(())
        });
        publish(&base, n + 1);
    }
}

#[test]
fn bad_configuration_at_the_start_is_exit_code_3() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("rhumb.yaml"), "listeners: [\n").expect("a file");
    let mut command = Rhumb::command();
    command.arg("run").arg("-c").arg(dir.path().join("rhumb.yaml"));
    let finished = finish(command);
    assert!(finished.code == Some(3) && finished.output.contains("rhumb.yaml:"), "{finished:?}");
}

#[test]
fn a_port_that_is_taken_is_told_at_the_start() {
    let taken = std::net::TcpListener::bind(local(0)).expect("a listening socket");
    let port = taken.local_addr().expect("a bound socket").port();
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("rhumb.yaml"), Config::simple(port, local(1)).text(port::free()))
        .expect("a file");
    let mut command = Rhumb::command();
    command.arg("run").arg("-c").arg(dir.path().join("rhumb.yaml"));
    let finished = finish(command);
    assert!(finished.code == Some(1) && finished.output.contains(&port.to_string()), "{finished:?}");
}

#[test]
fn a_stream_that_is_open_survives_a_reload() {
    let gate = Gate::new();
    let mut streams = Connection::open(gate.proxy, &[]);
    streams.send(&h2::headers(1, &h2::get("a.test", "/part/100000/rest", &[]), true));
    gate.backend.wait_for("/part");
    let revision = gate.rhumb.metric("rhumb_config_revision", &[]);
    let text = std::fs::read_to_string(gate.rhumb.dir().join("rhumb.yaml")).expect("the configuration");
    gate.rhumb.write_text(&format!(
        "{text}  - {{on: web, match: {{path: /new}}, respond: {{status: 200, body: new}}}}\n"
    ));
    wait::until("the reload", || (gate.rhumb.metric("rhumb_config_revision", &[]) > revision).then_some(()));
    // The same connection takes new requests by the new rules, while the old one goes on.
    streams.send(&h2::headers(3, &h2::get("a.test", "/new", &[]), true));
    assert_eq!(streams.answer(3).expect("an answer").content, b"new");
    gate.backend.release("rest");
    assert_eq!(streams.answer(1).expect("an answer").content.len(), 100_000);
}

#[test]
fn pipelined_content_after_a_reload_is_still_answered_in_order() {
    let gate = Gate::new();
    let mut client = gate.connect();
    client.send("GET /hold/a HTTP/1.1\r\nHost: a.test\r\n\r\nGET /echo HTTP/1.1\r\nHost: a.test\r\n\r\n");
    gate.backend.wait_for("/hold");
    gate.rhumb.reload();
    gate.backend.release("a");
    assert_eq!(client.next_response(Kind::Response).text(), "held");
    assert_eq!(json(&client.response())["target"], "/echo");
}
