//! Reloads, upgrades in place, the service manager and the end, under load: nobody loses a request.

use crate::gate::{json, local};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::cert::Authority;
use rhumb_testkit::client::{self, Client};
use rhumb_testkit::config::Config;
use rhumb_testkit::h2_load::StreamLoad;
use rhumb_testkit::load::{Load, Report};
use rhumb_testkit::message::{Kind, Message};
use rhumb_testkit::process::{Program, Rhumb, script, serve_script};
use rhumb_testkit::{port, wait};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::path::Path;

/// Load on one connection after the other, and on kept ones.
fn steady(proxy: SocketAddr, request: &str) -> Load {
    let load = Load::start(proxy, 4, request, |response: &Message| {
        (response.status() != 200 || response.content.len() != 500)
            .then(|| format!("{} {}", response.start, response.text()))
    });
    load.wait_more(50);
    load
}

const KEPT: &str = "GET /bytes/500 HTTP/1.1\r\nHost: a.test\r\n\r\n";
const CLOSED: &str = "GET /bytes/500 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

fn none_failed(report: &Report) {
    assert_eq!(report.failed, 0, "of {}: {:?}", report.good, report.first());
}

#[test]
fn three_upgrades_under_load_cost_no_request() {
    let (backend, port) = (Backend::start(), port::free());
    let config = |workers: u32| {
        Config::simple(port, backend.address())
            .top(&format!("workers: {workers}"))
            .top("timeouts: {drain: 5s}")
    };
    let mut rhumb = Rhumb::start(&config(2));
    let loads = [steady(local(port), KEPT), steady(local(port), CLOSED)];
    let first = rhumb.serving();
    // More workers, fewer, as many: sockets come and go with them, connections do not.
    for workers in [3, 1, 2] {
        rhumb.write(&config(workers));
        rhumb.upgrade();
        loads.iter().for_each(|load| load.wait_more(50));
        let status = json(&rhumb.admin("/status"));
        assert_eq!(
            (status["workers"].as_u64(), status["state"].as_str()),
            (Some(u64::from(workers)), Some("ready"))
        );
    }
    assert_eq!(rhumb.program().wait().code(), Some(0), "the first process ends by itself: {}", rhumb.log());
    assert_ne!(rhumb.serving(), first);
    loads.iter().for_each(|load| load.wait_more(50));
    for load in loads {
        none_failed(&load.stop());
    }
    rhumb.end_all();
}

#[test]
fn an_upgrade_that_fails_changes_nothing() {
    let (backend, port) = (Backend::start(), port::free());
    let good = Config::simple(port, backend.address()).top("workers: 1");
    let rhumb = Rhumb::start(&good);
    let before = rhumb.serving();
    let load = steady(local(port), CLOSED);
    rhumb.write_text("listeners: [\n");
    rhumb.signal(Signal::USR2);
    wait::until("the failure is told", || {
        rhumb
            .log()
            .contains("upgrade failed, this process goes on: the new process ended (exit status: 3)")
            .then_some(())
    });
    assert_eq!(rhumb.metric("rhumb_upgrades_total", &["failure"]), 1.0);
    load.wait_more(50);
    none_failed(&load.stop());
    assert_eq!(rhumb.pid_of_admin(), Some(before));
    // What was put off meanwhile is done now: the good configuration is read again.
    rhumb.write(&good.route("match: {path: /new}, respond: {status: 200, body: new}"));
    wait::until("the new route", || {
        (client::get(local(port), "a.test", "/new").text() == "new").then_some(())
    });
}

#[test]
fn streams_of_the_old_process_live_on_after_an_upgrade() {
    let (backend, port) = (Backend::start(), port::free());
    let mut rhumb = Rhumb::start(&Config::simple(port, backend.address()).top("timeouts: {drain: 60s}"));
    let mut waiting = Client::connect(local(port));
    waiting.send("GET /hold/slow HTTP/1.1\r\nHost: a.test\r\n\r\n");
    backend.wait_for("/hold");
    rhumb.upgrade();
    assert_eq!(client::get(local(port), "a.test", "/bytes/7").content.len(), 7);
    backend.release("slow");
    let response = waiting.next_response(Kind::Response);
    assert_eq!((response.text().as_str(), response.field("connection")), ("held", Some("close")));
    assert_eq!(rhumb.program().wait().code(), Some(0), "{}", rhumb.log());
    rhumb.end_all();
}

/// Rhumb under a scripted service manager.
struct Service {
    manager: Program,
    rhumb_config: tempfile::TempDir,
}

impl Service {
    /// With sockets for these addresses.
    fn start(config: &Config, addresses: &[String]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let admin = port::free();
        std::fs::write(dir.path().join("rhumb.yaml"), config.text(admin)).expect("a writable directory");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let manager: &Path = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/service_manager.py").as_ref();
        let binary = Rhumb::binary().display().to_string();
        let mut command = vec!["2000000".to_owned(), path("news")];
        command.extend(addresses.iter().cloned());
        command.extend(["--".to_owned(), binary, "run".to_owned(), "-c".to_owned(), path("rhumb.yaml")]);
        command.extend([
            "--admin-token-file".to_owned(),
            path("token"),
            "--pid-file".to_owned(),
            path("pid"),
        ]);
        let command: Vec<_> = command.iter().map(String::as_str).collect();
        let manager = Program::start(script(manager, &command), &dir.path().join("log"));
        Self { manager, rhumb_config: dir }
    }

    fn news(&self) -> String {
        std::fs::read_to_string(self.rhumb_config.path().join("news")).unwrap_or_default()
    }

    /// Waits until this process has said this after what was said before; the number of the line.
    fn hear(&self, from: usize, pid: &str, what: &str) -> usize {
        wait::until(&format!("{pid} {what} after line {from}"), || {
            let news = self.news();
            let mut lines = news.lines().enumerate().skip(from);
            lines.find(|(_, line)| line.starts_with(&format!("{pid} {what}"))).map(|(at, _)| at)
        })
    }

    fn pid(&self) -> String {
        let file = self.rhumb_config.path().join("pid");
        wait::until("the PID file", || {
            let pid = std::fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
            (!pid.is_empty()).then_some(pid)
        })
    }

    fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid().parse().expect("a number")).expect("a process");
        rustix::process::kill_process(pid, signal).expect("the process is there");
    }
}

#[test]
fn a_service_manager_gives_sockets_and_hears_the_news() {
    let (backend, port) = (Backend::start(), port::free());
    let unused = port::free();
    let config = Config::simple(port, backend.address()).top("workers: 2").top("timeouts: {drain: 5s}");
    let mut service =
        Service::start(&config, &[format!("tcp:127.0.0.1:{port}"), format!("tcp:127.0.0.1:{unused}")]);
    let pid = service.pid();
    let ready = service.hear(0, &pid, "READY=1");
    assert!(service.manager.log().contains(&format!("127.0.0.1:{unused}")), "{}", service.manager.log());
    assert_eq!(client::get(local(port), "a.test", "/bytes/3").content.len(), 3);
    service.hear(ready, &pid, "WATCHDOG=1");

    service.signal(Signal::HUP);
    let reloading = service.hear(ready, &pid, "RELOADING=1");
    service.hear(reloading, &pid, "MONOTONIC_USEC=");
    let ready = service.hear(reloading, &pid, "READY=1");

    // The socket of the manager outlives three processes.
    let load = steady(local(port), CLOSED);
    let mut before = pid;
    let mut heard = ready;
    for _ in 0..2 {
        service.signal(Signal::USR2);
        heard = service.hear(heard, &before, "MAINPID=");
        let news = service.news();
        let line = news.lines().nth(heard).expect("the line");
        let next = line.rsplit('=').next().expect("a number").to_owned();
        heard = service.hear(heard, &next, "READY=1");
        assert_eq!(service.pid(), next);
        service.hear(heard, &next, "WATCHDOG=1");
        load.wait_more(20);
        before = next;
    }
    none_failed(&load.stop());
    service.signal(Signal::TERM);
    service.hear(heard, &before, "STOPPING=1");
    assert_eq!(service.manager.wait().code(), Some(0), "{}", service.manager.log());
    assert!(!service.rhumb_config.path().join("pid").exists());
}

#[test]
fn the_drain_verb_ends_a_process_when_its_last_request_is_done() {
    let (backend, port) = (Backend::start(), port::free());
    let mut rhumb = Rhumb::start(&Config::simple(port, backend.address()).top("timeouts: {drain: 60s}"));
    let mut waiting = Client::connect(local(port));
    waiting.send("GET /hold/slow HTTP/1.1\r\nHost: a.test\r\n\r\n");
    backend.wait_for("/hold");
    let mut command = Rhumb::command();
    command.args(["drain", "--wait", "--admin", &rhumb.admin_address().to_string()]);
    command.arg("--admin-token-file").arg(rhumb.admin_token());
    let dir = tempfile::tempdir().expect("a directory");
    let mut drain = Program::start(command, &dir.path().join("log"));
    wait::until("draining is told", || {
        let response = rhumb.try_admin("/readyz")?;
        (response.status() == 503 && response.text() == "draining\n").then_some(())
    });
    assert!(drain.ended().is_none(), "{}", drain.log());
    backend.release("slow");
    assert_eq!(waiting.response().text(), "held");
    assert_eq!(rhumb.program().wait().code(), Some(0), "{}", rhumb.log());
    assert_eq!(drain.wait().code(), Some(0), "{}", drain.log());
    assert!(drain.log().contains("it has ended"), "{}", drain.log());
}

#[test]
fn connections_of_a_removed_listener_leave_gently() {
    let (backend, kept, removed) = (Backend::start(), port::free(), port::free());
    let both = Config::simple(kept, backend.address()).listener("extra", removed, "");
    let both = both.route("on: extra, to: peer");
    let rhumb = Rhumb::start(&both);
    let mut running = Client::connect(local(removed));
    running.send("GET /hold/slow HTTP/1.1\r\nHost: a.test\r\n\r\n");
    backend.wait_for("/hold");
    let (mut resting, mut untouched) = (Client::connect(local(removed)), Client::connect(local(kept)));
    assert_eq!(resting.get("a.test", "/bytes/1").status(), 200);
    assert_eq!(untouched.get("a.test", "/bytes/1").status(), 200);
    rhumb.write(&Config::simple(kept, backend.address()));
    rhumb.reload();
    assert!(resting.read_to_end().is_empty(), "it rests and is closed");
    backend.release("slow");
    let response = running.response();
    assert_eq!((response.text().as_str(), response.field("connection")), ("held", Some("close")));
    let again = untouched.get("a.test", "/bytes/1");
    assert_eq!((again.status(), again.field("connection")), (200, None));
}

/// wrk until it is told to stop; what it said.
struct Wrk(Program, tempfile::TempDir);

impl Wrk {
    fn start(url: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = std::process::Command::new("wrk");
        command.args(["-t1", "-c4", "-d180s", "--timeout", "30s"]).args(more).arg(url);
        let program = Program::start(command, &dir.path().join("wrk.log"));
        Self(program, dir)
    }

    /// Requests that it has made; none may have failed.
    fn stop(mut self) -> u64 {
        self.0.signal(Signal::INT);
        self.0.wait();
        let output = self.0.log();
        assert!(!output.contains("Socket errors") && !output.contains("Non-2xx"), "{output}");
        let made = output.lines().find_map(|line| line.trim().split(" requests in ").next()?.parse().ok());
        drop(self.1);
        made.unwrap_or_else(|| panic!("no count: {output}"))
    }
}

/// h2load again and again until it is told to stop.
struct H2Load {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl H2Load {
    fn start(url: String) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut made = 0;
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                let mut command = std::process::Command::new("h2load");
                command.args(["-n", "500", "-c", "2", "-m", "8", &url]);
                let output = rhumb_testkit::process::finish(command).output;
                let good = "500 total, 500 started, 500 done, 500 succeeded, 0 failed, 0 errored, 0 timeout";
                assert!(output.contains(good) && output.contains("status codes: 500 2xx"), "{output}");
                made += 500;
            }
            made
        });
        Self { stop, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.join().expect("no request that failed")
    }
}

/// Short unless `RHUMB_LONG` is set: then as many changes, and for as long, as issue and documentation promise.
#[test]
fn whatever_changes_under_load_no_request_fails() {
    let is_long = std::env::var_os("RHUMB_LONG").is_some();
    let (reloads, certificates, churn) = if is_long { (100, 20, 600) } else { (20, 4, 40) };
    let backends = [Backend::start(), Backend::start(), Backend::start()];
    let (plain, tls) = (port::free(), port::free());
    let ca = Authority::new("test");
    let config = |version: u32, endpoints: &[&Backend]| {
        let endpoints: Vec<_> = endpoints.iter().map(|backend| format!("'{}'", backend.address())).collect();
        Config::new()
            .top("workers: 2")
            .top("timeouts: {drain: 5s, drainDelay: 2s}")
            .listener("web", plain, "")
            .listener("safe", tls, "tls: {certificates: [{cert: web.crt, key: web.key}]}")
            .backend("peer", &format!("endpoints: [{}]", endpoints.join(", ")))
            .route("on: [web, safe], to: peer")
            .route(&format!("match: {{path: /version}}, respond: {{status: 200, body: 'version {version}'}}"))
    };
    let all = [&backends[0], &backends[1], &backends[2]];
    let mut rhumb = Rhumb::start_with(&config(0, &all), |dir| drop(ca.server(&["a.test"]).write(dir, "web")));
    let url = format!("http://127.0.0.1:{plain}/bytes/500");
    let safe = format!("https://127.0.0.1:{tls}/bytes/500");
    let close = ["-H", "Connection: close"];
    let loads = [Wrk::start(&url, &[]), Wrk::start(&safe, &[]), Wrk::start(&url, &close)];
    let streams = H2Load::start(safe);
    let heeding = [(); 2].map(|()| StreamLoad::start(local(plain), 8, "/bytes/500", 500));
    let version = |expected: u32| {
        wait::until(&format!("version {expected}"), || {
            let text = client::get(local(plain), "a.test", "/version").text();
            (text == format!("version {expected}")).then_some(())
        });
    };
    let mut at = 0;
    for _ in 0..reloads {
        at += 1;
        rhumb.write(&config(at, &all));
        rhumb.signal(Signal::HUP);
        version(at);
    }
    for _ in 0..certificates {
        ca.server(&["a.test"]).write(rhumb.dir(), "web");
        at += 1;
        rhumb.write(&config(at, &all));
        rhumb.signal(Signal::HUP);
        version(at);
    }
    // Endpoints come and go 20 times per second.
    let mut clock = std::time::Instant::now();
    for n in 0..churn {
        at += 1;
        let chosen: Vec<&Backend> =
            all.iter().enumerate().filter(|(k, _)| *k != n % 4).map(|(_, b)| *b).collect();
        rhumb.write(&config(at, &chosen));
        rhumb.signal(Signal::HUP);
        clock += std::time::Duration::from_millis(50);
        std::thread::park_timeout(clock.saturating_duration_since(std::time::Instant::now()));
    }
    version(at);
    // h2load counts what it has not begun when GOAWAY comes as failed; from here on those go on that heed it.
    let mut made = streams.stop();
    for _ in 0..3 {
        rhumb.upgrade();
        version(at);
    }
    rhumb.signal(Signal::TERM);
    wait::until("draining is told", || (rhumb.try_admin("/readyz")?.text() == "draining\n").then_some(()));
    // A load balancer that has seen it sends its clients elsewhere.
    for load in heeding {
        let (report, connections) = load.stop();
        none_failed(&report);
        assert!(connections > 1, "an upgrade ends them");
        made += report.good;
    }
    for load in loads {
        made += load.stop();
    }
    eprintln!(
        "{made} requests, none failed: {reloads} reloads, {certificates} certificates, {churn} changes of endpoints, \
         3 upgrades, 1 drain"
    );
    rhumb.end_all();
}

#[test]
fn a_websocket_lives_until_the_end_of_the_drain_and_is_closed_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, port) = (port::free(), port::free());
    let peer: std::path::PathBuf = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/websocket_peer.py").into();
    let _server = serve_script(&peer, &["server"], server, &dir.path().join("server.log"));
    let config = Config::new()
        .top("workers: 1")
        .top("timeouts: {drain: 4s}")
        .listener("web", port, "")
        .backend("ws", &format!("endpoints: ['127.0.0.1:{server}']"))
        .route("match: {path: /ws/*}, to: ws");
    let mut rhumb = Rhumb::start(&config);
    let mut client = Client::connect(local(port));
    client.send(
        "GET /ws/echo HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(client.next_response(Kind::Response).status(), 101);
    // An upgrade leaves it where it is.
    rhumb.upgrade();
    client.send(b"\x81\x82\x00\x00\x00\x00hi");
    assert_eq!(client.read_exact(4), b"\x81\x02hi");
    // 1001, and the Close that answers it reaches the backend, which ends the connection.
    assert_eq!(client.read_exact(4), b"\x88\x02\x03\xe9");
    client.send(b"\x88\x82\x00\x00\x00\x00\x03\xe9");
    assert!(client.read_to_end().is_empty());
    assert_eq!(rhumb.program().wait().code(), Some(0), "{}", rhumb.log());
    assert!(!rhumb.log().contains("connections are cut"), "{}", rhumb.log());
    assert!(rhumb.log().contains("\"draining\""), "{}", rhumb.log());
    rhumb.end_all();
}

#[test]
fn a_grpc_stream_lives_through_reloads_and_an_upgrade() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, port) = (port::free(), port::free());
    let peer: std::path::PathBuf = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/grpc_peer.py").into();
    let _server = serve_script(&peer, &["server"], server, &dir.path().join("server.log"));
    let config = |n: u32| {
        Config::new()
            .top("workers: 2")
            .top("timeouts: {drain: 60s}")
            .listener("web", port, "")
            .backend("grpc", &format!("endpoints: ['127.0.0.1:{server}'], protocol: h2c"))
            .route("match: {path: /test.Echo/*}, to: grpc")
            .route(&format!("match: {{path: /version}}, respond: {{status: 200, body: 'version {n}'}}"))
    };
    let mut rhumb = Rhumb::start(&config(0));
    let stop = dir.path().join("stop");
    let mut stream = Program::start(
        script(&peer, &["hold", &local(port).to_string(), &stop.display().to_string()]),
        &dir.path().join("stream.log"),
    );
    let answered = |stream: &Program| stream.log().matches("answered").count();
    let goes_on = |stream: &Program| {
        let before = answered(stream);
        wait::until("the stream goes on", || (answered(stream) > before + 5).then_some(()));
    };
    goes_on(&stream);
    for n in 1..=5 {
        rhumb.write(&config(n));
        rhumb.signal(Signal::HUP);
        wait::until("the new version", || {
            (client::get(local(port), "a.test", "/version").text() == format!("version {n}")).then_some(())
        });
        goes_on(&stream);
    }
    rhumb.upgrade();
    goes_on(&stream);
    assert!(rhumb.program().ended().is_none(), "the old process keeps the stream");
    std::fs::write(&stop, "").expect("a file");
    assert_eq!(stream.wait().code(), Some(0), "{}", stream.log());
    assert!(stream.log().contains("ended in order"), "{}", stream.log());
    assert_eq!(rhumb.program().wait().code(), Some(0), "{}", rhumb.log());
    rhumb.end_all();
}
