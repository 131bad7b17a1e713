//! curl as client, nginx as backend.

use crate::gate::{Gate, json, local};
use rhumb_testkit::backend::{Backend, pattern, sum};
use rhumb_testkit::cert::Authority;
use rhumb_testkit::client::Client;
use rhumb_testkit::config::Config;
use rhumb_testkit::load::Load;
use rhumb_testkit::message::Message;
use rhumb_testkit::port;
use rhumb_testkit::process::{Nginx, Rhumb, finish, succeed};
use std::process::Command;

/// What curl writes to its output; it must succeed.
fn curl(args: &[&str]) -> String {
    succeed(command(args))
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*"]).args(args);
    command
}

/// A plain and a TLS listener in front of one backend, and the options that make curl reach each protocol.
struct Doors {
    _rhumb: Rhumb,
    backend: Backend,
    dir: tempfile::TempDir,
    plain: u16,
    tls: u16,
}

impl Doors {
    fn new() -> Self {
        let (backend, plain, tls) = (Backend::start(), port::free(), port::free());
        let ca = Authority::new("test");
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("ca.crt"), ca.pem()).expect("a file");
        let config = Config::new()
            .listener("web", plain, "")
            .listener("secure", tls, "tls: {certificates: [{cert: web.crt, key: web.key}]}")
            .backend("peer", &format!("endpoints: ['{}']", backend.address()))
            .route("on: [web, secure], to: peer");
        let rhumb = Rhumb::start_with(&config, |dir| drop(ca.server(&["a.test"]).write(dir, "web")));
        Self { _rhumb: rhumb, backend, dir, plain, tls }
    }

    /// For each way in: its name, curl's options, and the URL of a path.
    fn ways(&self, path: &str) -> Vec<(&'static str, Vec<String>, String)> {
        let ca = self.dir.path().join("ca.crt").display().to_string();
        let resolve = format!("a.test:{}:127.0.0.1", self.tls);
        let tls = |options: &[&str]| {
            let mut all = vec!["--cacert".to_owned(), ca.clone(), "--resolve".to_owned(), resolve.clone()];
            all.extend(options.iter().map(|option| (*option).to_owned()));
            all
        };
        let plain = format!("http://127.0.0.1:{}{path}", self.plain);
        let secure = format!("https://a.test:{}{path}", self.tls);
        vec![
            ("HTTP/1.1", vec!["--http1.1".into()], plain.clone()),
            ("HTTP/1.0", vec!["--http1.0".into()], plain.clone()),
            ("HTTP/2 with prior knowledge", vec!["--http2-prior-knowledge".into()], plain),
            ("HTTP/1.1 over TLS", tls(&["--http1.1"]), secure.clone()),
            ("HTTP/1.1 over TLS 1.2", tls(&["--http1.1", "--tls-max", "1.2"]), secure.clone()),
            ("HTTP/2 over TLS 1.2", tls(&["--http2", "--tls-max", "1.2"]), secure.clone()),
            ("HTTP/2 over TLS 1.3", tls(&["--http2", "--tlsv1.3"]), secure),
        ]
    }

    /// Runs curl on each way in with further options; gives each way's name and output to `check`.
    fn each(&self, path: &str, options: &[&str], check: impl Fn(&str, String)) {
        for (name, way, url) in self.ways(path) {
            let args: Vec<&str> =
                way.iter().map(String::as_str).chain(options.iter().copied()).chain([url.as_str()]).collect();
            check(name, curl(&args));
        }
    }

    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path.display().to_string()
    }
}

#[test]
fn every_protocol_gets_the_same_answers() {
    let doors = Doors::new();
    doors.each("/bytes/0", &["--write-out", "%{http_version} %{http_code}"], |name, output| {
        let version = if name.starts_with("HTTP/2") { "2" } else { "1.1" };
        assert_eq!(output, format!("{version} 200"), "{name}");
    });
    doors.each("/echo", &["--data", "hello"], |name, output| {
        let echo: serde_json::Value =
            serde_json::from_str(&output).unwrap_or_else(|error| panic!("{name}: {error}: {output}"));
        assert_eq!((&echo["method"], &echo["content"]), (&"POST".into(), &"hello".into()), "{name}");
        let proto = if name.contains("TLS") { "https" } else { "http" };
        assert!(
            output.to_lowercase().contains(&format!("[\"x-forwarded-proto\",\"{proto}\"]")),
            "{name}: {output}"
        );
    });
    doors.each("/bytes/77", &["--head"], |name, output| {
        assert!(output.to_lowercase().contains("content-length: 77"), "{name}: {output}");
    });
    doors.each(
        "/echo",
        &["--request", "DELETE", "--write-out", "%{http_code}", "--output", "/dev/null"],
        |name, output| {
            assert_eq!(output, "200", "{name}");
        },
    );
}

#[test]
fn trailers_reach_curl() {
    let doors = Doors::new();
    doors.each("/trailers", &["--header", "TE: trailers", "--include"], |name, output| {
        let passed = output.to_lowercase().contains("x-sum: 42");
        // HTTP/1.0 has no trailers.
        assert_eq!(passed, name != "HTTP/1.0", "{name}: {output}");
        assert!(output.contains("body"), "{name}: {output}");
    });
}

#[test]
fn large_content_arrives_whole_both_ways() {
    let doors = Doors::new();
    let body = pattern(20 << 20);
    let upload = doors.file("upload", &body);
    let expected = format!("\"sum\":\"{:016x}\"", sum(&body));
    for expect in ["Expect: 100-continue", "Expect:"] {
        doors.each("/echo", &["--header", expect, "--upload-file", &upload], |name, output| {
            // The echo contains the first MiB of the content; what counts is its sum.
            assert!(output.contains(&expected), "{name}: {}", &output[..output.len().min(300)]);
        });
    }
    let download = doors.dir.path().join("download");
    for target in [format!("/bytes/{}", body.len()), format!("/chunked/{}", body.len())] {
        doors.each(&target, &["--output", &download.display().to_string()], |name, _| {
            assert!(std::fs::read(&download).expect("a file") == body, "{name} {target}");
        });
    }
    assert_eq!(doors.backend.broken(), 0);
}

#[test]
fn chunked_uploads_without_a_length_arrive() {
    let doors = Doors::new();
    let body = pattern(3 << 20);
    let upload = doors.file("upload", &body);
    let expected = format!("\"sum\":\"{:016x}\"", sum(&body));
    for (name, way, url) in doors.ways("/echo") {
        if name == "HTTP/1.0" {
            continue;
        }
        // From a pipe curl does not know the length.
        let options: Vec<String> = way.iter().map(|option| format!("'{option}'")).collect();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!(
            "cat '{upload}' | curl -sS --max-time 60 {} --upload-file - '{url}'",
            options.join(" ")
        ));
        let output = succeed(shell);
        assert!(output.contains(&expected), "{name}: {}", &output[..output.len().min(300)]);
    }
}

#[test]
fn ranges_and_validators_are_the_backends_business() {
    let nginx = Nginx::start_with("server { listen 127.0.0.1:PORT; root DIR; }", |dir| {
        std::fs::write(dir.join("file.txt"), pattern(10_000)).expect("a file");
    });
    let port = port::free();
    let _rhumb = Rhumb::start(&Config::simple(port, nginx.address()));
    let url = format!("http://127.0.0.1:{port}/file.txt");
    let out = nginx.dir().join("out");
    let out = out.to_str().expect("UTF-8");
    let code = curl(&["--range", "100-199", "--write-out", "%{http_code}", "--output", out, &url]);
    assert_eq!(
        (code.as_str(), std::fs::read(out).expect("a file")),
        ("206", pattern(10_000)[100..200].to_vec())
    );
    let head = curl(&["--head", &url]);
    let etag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).expect("an ETag").trim().to_owned();
    let code = curl(&["--header", &format!("If-None-Match: {etag}"), "--write-out", "%{http_code}", &url]);
    assert_eq!(code, "304");
    let code = curl(&["--range", "20000-", "--write-out", "%{http_code}", "--output", out, &url]);
    assert_eq!(code, "416");
}

/// Starts nginx that serves a small file on keep-alive connections, and Rhumb before it, with steady load.
fn under_load(nginx: &Nginx) -> (Rhumb, Load) {
    let port = port::free();
    let rhumb = Rhumb::start(&Config::simple(port, nginx.address()));
    let load = Load::start(
        local(port),
        4,
        "GET /file.txt HTTP/1.1\r\nHost: a.test\r\n\r\n",
        |response: &Message| {
            (response.status() != 200 || response.content.len() != 1000)
                .then(|| format!("{} {}", response.start, response.text()))
        },
    );
    load.wait_more(100);
    (rhumb, load)
}

fn file_server() -> Nginx {
    Nginx::start_with("server { listen 127.0.0.1:PORT; root DIR; keepalive_requests 50; }", |dir| {
        std::fs::write(dir.join("file.txt"), pattern(1000)).expect("a file");
    })
}

#[test]
fn a_backend_that_renews_its_workers_costs_no_request() {
    let nginx = file_server();
    let (_rhumb, load) = under_load(&nginx);
    for _ in 0..10 {
        nginx.reload();
        load.wait_more(200);
    }
    let report = load.stop();
    assert_eq!(report.failed, 0, "{:?}", report.first());
}

#[test]
fn a_backend_that_is_restarted_costs_only_what_it_could_not_take() {
    let mut nginx = file_server();
    let (_rhumb, load) = under_load(&nginx);
    for _ in 0..3 {
        nginx.restart();
        load.wait_more(200);
    }
    let report = load.stop();
    // While nothing listens a request can only fail; nothing else may.
    let others: Vec<&String> = report
        .failures
        .iter()
        .filter(|why| !why.contains("connect_refused") && !why.contains("backend_reset"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(report.good > 600, "{} good, {} failed", report.good, report.failed);
}

#[test]
fn uploads_larger_than_memory_should_hold_stream() {
    let mut gate = Gate::new();
    let before = gate.rhumb.program().rss();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("sparse");
    let file = std::fs::File::create(&path).expect("a file");
    file.set_len(200 << 20).expect("a sparse file");
    let url = format!("http://{}/echo", gate.proxy);
    let output = curl(&[
        "--upload-file",
        path.to_str().expect("UTF-8"),
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code} %{size_upload}",
        &url,
    ]);
    assert_eq!(output, format!("200 {}", 200 << 20));
    let grown = gate.rhumb.program().rss().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown}");
}

#[test]
fn a_certificate_that_does_not_fit_is_curls_error_not_a_crash() {
    let doors = Doors::new();
    let url = format!("https://127.0.0.1:{}/", doors.tls);
    // 60: the certificate is not trusted. 51: it has another name.
    let refused = finish(command(&[&url]));
    assert!(matches!(refused.code, Some(60 | 51)), "{refused:?}");
    assert_eq!(Client::connect(local(doors.plain)).get("a.test", "/bytes/1").status(), 200);
}

#[test]
fn a_request_that_curl_upgrades_to_h2c_stays_http1() {
    let gate = Gate::new();
    // `--http2` without prior knowledge sends `Upgrade: h2c`, which RFC 9113 has withdrawn.
    let output =
        curl(&["--http2", "--write-out", "\n%{http_version}", &format!("http://{}/echo", gate.proxy)]);
    let (body, version) = output.rsplit_once('\n').expect("two lines");
    assert_eq!(version, "1.1");
    assert!(!body.to_lowercase().contains("upgrade"), "{body}");
    assert_eq!(json(&gate.get("/echo"))["nth"], 1);
}
