//! WebSocket with independent peers: RFC 6455 over HTTP/1.1, RFC 8441 over HTTP/2, and what must not become a tunnel.

use crate::gate::{Gate, local};
use rhumb_testkit::client::Client;
use rhumb_testkit::config::Config;
use rhumb_testkit::message::Kind;
use rhumb_testkit::port;
use rhumb_testkit::process::{Program, Rhumb, finish, script, serve_script};
use rhumb_testkit::stage::{Act, Event, Stage};
use rhumb_testkit::wait;
use std::net::SocketAddr;
use std::path::PathBuf;
use tempfile::TempDir;

const UPGRADE: &str = "GET /ws/echo HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn peer() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/peers/websocket_peer.py").into()
}

struct Setup {
    rhumb: Rhumb,
    proxy: SocketAddr,
    _server: Program,
    _dir: TempDir,
}

fn setup() -> Setup {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, port) = (port::free(), port::free());
    let program = serve_script(&peer(), &["server"], server, &dir.path().join("server.log"));
    let config = Config::new()
        .listener("web", port, "")
        .backend("ws", &format!("endpoints: ['127.0.0.1:{server}']"))
        .route("match: {path: /ws/*}, to: ws");
    Setup { rhumb: Rhumb::start(&config), proxy: local(port), _server: program, _dir: dir }
}

fn check(kind: &str, least: usize) {
    let setup = setup();
    let finished = finish(script(&peer(), &[kind, &setup.proxy.to_string()]));
    let passed = finished.output.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(finished.code == Some(0) && passed >= least, "{}", finished.output);
}

#[test]
fn messages_of_every_kind_pass_over_http1() {
    check("client", 12);
}

#[test]
fn messages_of_every_kind_pass_over_http2() {
    check("client-h2", 6);
}

#[test]
fn an_open_socket_survives_a_reload() {
    let setup = setup();
    let mut client = Client::connect(setup.proxy);
    client.send(UPGRADE);
    assert_eq!(client.next_response(Kind::Response).status(), 101);
    for n in 0..5 {
        let before = setup.rhumb.metric("rhumb_config_revision", &[]);
        let text = std::fs::read_to_string(setup.rhumb.dir().join("rhumb.yaml")).expect("the configuration");
        setup.rhumb.write_text(&format!("{text}# {n}\n"));
        setup.rhumb.reload();
        wait::until("the reload", || {
            (setup.rhumb.metric("rhumb_config_revision", &[]) > before).then_some(())
        });
        client.send(b"\x81\x82\x00\x00\x00\x00hi");
        assert_eq!(client.read_exact(4), b"\x81\x02hi");
    }
}

#[test]
fn nothing_but_a_proper_101_opens_a_tunnel() {
    let mut stage = Stage::new();
    let port = port::free();
    let _rhumb = Rhumb::start(&Config::simple(port, stage.address()));
    let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let cases = [
        (
            "another protocol",
            format!("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n{accept}\r\n"),
        ),
        ("no protocol", format!("HTTP/1.1 101 X\r\nConnection: Upgrade\r\n{accept}\r\n")),
        (
            "with content",
            format!(
                "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n{accept}\r\nabc"
            ),
        ),
    ];
    for (name, answer) in cases {
        stage.clear_all();
        stage.script(move |event| match event {
            Event::Request { .. } => vec![Act::send(&answer)],
            Event::Accepted { .. } => Vec::new(),
        });
        let front = stage.connect(local(port));
        stage.send(front, UPGRADE.as_bytes());
        assert!(
            stage.run(wait::LIMIT, |stage| stage.fronts[0].responses().is_ok_and(|(all, _)| !all.is_empty())),
            "{name}"
        );
        let status = stage.fronts[0].responses().expect("a response").0[0].status();
        assert_eq!(status, 502, "{name}");
        assert!(
            stage.run(wait::LIMIT, |stage| stage.upstreams.iter().all(|up| up.ended().is_some())),
            "{name}: the backend's connection ends"
        );
    }
    // A 200 instead of 101 is an ordinary response (RFC 9110 §7.8).
    stage.clear_all();
    stage.answer_ok();
    let front = stage.connect(local(port));
    stage.send(front, UPGRADE.as_bytes());
    assert!(stage.run(wait::LIMIT, |stage| stage.fronts[0].bytes().ends_with(b"ok")));
    stage.send(front, b"GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert!(
        stage.run(wait::LIMIT, |stage| stage.fronts[0].responses().is_ok_and(|(all, _)| all.len() == 2)),
        "the connection goes on"
    );
}

#[test]
fn the_upgrade_reaches_the_backend_as_the_client_meant_it() {
    let mut stage = Stage::new();
    let port = port::free();
    let _rhumb = Rhumb::start(&Config::simple(port, stage.address()));
    let front = stage.connect(local(port));
    stage.send(front, UPGRADE.as_bytes());
    assert!(stage.run(wait::LIMIT, |stage| stage.upstreams.iter().any(|up| !up.requests.is_empty())));
    let request = stage.upstreams.iter().flat_map(|up| &up.requests).next().expect("a request");
    let lower = |name: &str| request.field(name).map(str::to_ascii_lowercase);
    assert_eq!(
        (lower("connection").as_deref(), lower("upgrade").as_deref()),
        (Some("upgrade"), Some("websocket"))
    );
    assert_eq!(request.field("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(request.field("sec-websocket-version"), Some("13"));
}

#[test]
fn either_side_that_leaves_ends_the_tunnel() {
    let gate = Gate::new();
    // The scripted backend refuses upgrades with an ordinary answer; the stage accepts them.
    let mut stage = Stage::new();
    let port = port::free();
    let _rhumb = Rhumb::start(&Config::simple(port, stage.address()));
    for client_leaves in [true, false] {
        stage.clear_all();
        stage.script(|event| match event {
            Event::Request { .. } => vec![Act::send(
                "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nearly",
            )],
            Event::Accepted { .. } => Vec::new(),
        });
        let front = stage.connect(local(port));
        stage.send(front, UPGRADE.as_bytes());
        assert!(
            stage.run(wait::LIMIT, |stage| stage.fronts[0].bytes().ends_with(b"early")),
            "bytes behind 101 pass"
        );
        if client_leaves {
            stage.then(front, Act::Close);
            assert!(stage.run(wait::LIMIT, |stage| stage.upstreams[0].ended().is_some()));
        } else {
            stage.act(0, vec![Act::send("last"), Act::Close]);
            assert!(stage.run(wait::LIMIT, |stage| stage.fronts[0].ended().is_some()));
            assert!(stage.fronts[0].bytes().ends_with(b"earlylast"), "what was sent before the end arrives");
        }
    }
    assert_eq!(gate.get("/bytes/1").status(), 200);
}
