//! HTTP/2 on both sides, spoken by hand and by nghttp2.

use crate::gate::{Gate, local};
use rhumb_testkit::backend::{Backend, pattern};
use rhumb_testkit::cert::Authority;
use rhumb_testkit::client::Client;
use rhumb_testkit::config::Config;
use rhumb_testkit::h2::{self, Connection, code, kind};
use rhumb_testkit::port;
use rhumb_testkit::process::{Nginx, Rhumb, succeed};
use rhumb_testkit::{hpack, wait};
use std::process::Command;

fn get(gate: &Gate, path: &str) -> h2::Answer {
    let mut connection = Connection::open(gate.proxy, &[]);
    connection.send(&h2::headers(1, &h2::get("a.test", path, &[]), true));
    connection.answer(1).expect("an answer")
}

#[test]
fn streams_of_one_connection_are_served_side_by_side() {
    let gate = Gate::new();
    let mut connection = Connection::open(gate.proxy, &[]);
    // The first waits; the others overtake it.
    connection.send(&h2::headers(1, &h2::get("a.test", "/hold/first", &[]), true));
    for n in 1..100 {
        connection.send(&h2::headers(1 + 2 * n, &h2::get("a.test", &format!("/bytes/{n}"), &[]), true));
    }
    for n in 1..100 {
        assert_eq!(connection.answer(1 + 2 * n).expect("an answer").content, pattern(u64::from(n)));
    }
    gate.backend.release("first");
    assert_eq!(connection.answer(1).expect("an answer").content, b"held");
}

#[test]
fn content_of_any_size_arrives_whole_in_both_directions() {
    let gate = Gate::new();
    for size in [0, 1, 16_383, 16_384, 16_385, 65_535, 65_536, 300_000, 5_000_000u64] {
        let body = pattern(size);
        for way in ["bytes", "chunked"] {
            assert!(get(&gate, &format!("/{way}/{size}")).content == body, "{way} {size}");
        }
    }
    // Upwards within what the proxy's windows allow at once.
    let body = pattern(60_000);
    let mut connection = Connection::open(gate.proxy, &[]);
    connection.send(&h2::headers(1, &h2::request("POST", "a.test", "/echo", &[]), false));
    for piece in body.chunks(10_000) {
        connection.send(&h2::data(1, piece, false));
    }
    connection.send(&h2::data(1, b"", true));
    let answer = connection.answer(1).expect("an answer");
    assert!(answer.content.windows(7).any(|part| part == b"\"sum\":\""), "{answer:?}");
    assert_eq!(gate.backend.wait_for("/echo").message.content, body);
}

#[test]
fn interim_responses_trailers_and_heads_are_translated() {
    let gate = Gate::new();
    let hints = get(&gate, "/hints");
    assert_eq!(
        (hints.interim.as_slice(), hints.status, hints.content.as_slice()),
        (&[103][..], 200, &b"ok"[..])
    );
    let mut connection = Connection::open(gate.proxy, &[]);
    connection.send(&h2::headers(1, &h2::get("a.test", "/trailers", &[("te", "trailers")]), true));
    let answer = connection.answer(1).expect("an answer");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "42".to_owned())]);
    connection.send(&h2::headers(3, &h2::request("HEAD", "a.test", "/bytes/77", &[]), true));
    let head = connection.answer(3).expect("an answer");
    assert_eq!((head.field("content-length"), head.content.len()), (Some("77"), 0));
    connection.send(&h2::headers(
        5,
        &h2::request("POST", "a.test", "/echo", &[("expect", "100-continue")]),
        false,
    ));
    loop {
        let frame = connection.frame().expect("100 before the content");
        if frame.kind == kind::HEADERS && frame.stream == 5 {
            break;
        }
    }
    connection.send(&h2::data(5, b"hello", true));
    connection.send(&h2::headers(7, &h2::get("a.test", "/field/connection/x-gone", &[]), true));
    assert_eq!(connection.answer(7).expect("an answer").field("connection"), None);
    connection.send(&h2::headers(9, &h2::get("a.test", "/close/500", &[]), true));
    assert_eq!(connection.answer(9).expect("an answer").content, pattern(500));
}

#[test]
fn a_cancelled_stream_ends_its_request_and_nothing_else() {
    let gate = Gate::new();
    let mut connection = Connection::open(gate.proxy, &[]);
    connection.send(&h2::headers(1, &h2::get("a.test", "/part/1000/never", &[]), true));
    connection.send(&h2::headers(3, &h2::get("a.test", "/hold/other", &[]), true));
    gate.backend.wait_for("/part");
    gate.backend.wait_for("/hold");
    connection.send(&h2::reset(1, code::CANCEL));
    wait::until("the log says so", || gate.rhumb.log().contains("client_closed").then_some(()));
    gate.backend.release("never");
    gate.backend.release("other");
    assert_eq!(connection.answer(3).expect("an answer").status, 200);
}

#[test]
fn a_backend_that_breaks_off_resets_the_stream_only() {
    let gate = Gate::new();
    let mut connection = Connection::open(gate.proxy, &[]);
    connection.send(&h2::headers(1, &h2::get("a.test", "/half/1000", &[]), true));
    let answer = connection.answer(1).expect("a reset");
    assert!(answer.reset.is_some(), "{answer:?}");
    connection.send(&h2::headers(3, &h2::get("a.test", "/hangup", &[]), true));
    let answer = connection.answer(3).expect("an answer");
    assert_eq!((answer.status, answer.field("content-type")), (502, Some("application/problem+json")));
    connection.send(&h2::headers(5, &h2::get("a.test", "/bytes/5", &[]), true));
    assert_eq!(connection.answer(5).expect("an answer").content, pattern(5));
}

#[test]
fn flow_control_holds_one_stream_and_not_the_others() {
    let gate = Gate::new();
    // Streams may send 1000 bytes; the connection has its usual window.
    let mut connection = Connection::open(gate.proxy, &[(4, 1000)]);
    connection.polite = false;
    connection.send(&h2::frame(kind::SETTINGS, h2::ACK, 0, &[]));
    connection.send(&h2::headers(1, &h2::get("a.test", "/bytes/5000", &[]), true));
    let mut got = 0;
    while got < 1000 {
        let frame = connection.frame().expect("content");
        got += if frame.kind == kind::DATA { frame.payload.len() } else { 0 };
    }
    assert_eq!(got, 1000);
    connection.send(&h2::headers(3, &h2::get("a.test", "/bytes/900", &[]), true));
    assert_eq!(connection.answer(3).expect("an answer").content, pattern(900));
    connection.send(&h2::window(1, 4000));
    assert!(connection.answer(1).expect("the rest").content == pattern(5000));
}

#[test]
fn cookies_in_crumbs_and_names_in_capitals_are_joined_and_lowered() {
    let gate = Gate::new();
    let mut connection = Connection::open(gate.proxy, &[]);
    connection.send(&h2::headers(1, &h2::get("a.test", "/field/X-Camel-Case/v", &[]), true));
    assert_eq!(connection.answer(1).expect("an answer").field("x-camel-case"), Some("v"));
}

#[test]
fn one_connection_to_an_h2c_backend_carries_many_streams() {
    let nginx = Nginx::start_with(
        "server { listen 127.0.0.1:PORT http2; root DIR; location /n { return 200 $connection; } }",
        |dir| {
            std::fs::write(dir.join("file"), pattern(200_000)).expect("a file");
        },
    );
    let port = port::free();
    let config = Config::new()
        .top("workers: 1")
        .listener("web", port, "")
        .backend("peer", &format!("endpoints: ['{}'], protocol: h2c", nginx.address()))
        .route("to: peer");
    let _rhumb = Rhumb::start(&config);
    let mut connection = Connection::open(local(port), &[]);
    let mut numbers = Vec::new();
    for n in 0..50 {
        connection.send(&h2::headers(1 + 2 * n, &h2::get("a.test", "/n", &[]), true));
    }
    for n in 0..50 {
        numbers.push(connection.answer(1 + 2 * n).expect("an answer").content);
    }
    numbers.dedup();
    assert_eq!(numbers.len(), 1, "one connection of nginx");
    connection.send(&h2::headers(201, &h2::get("a.test", "/file", &[]), true));
    assert!(connection.answer(201).expect("an answer").content == pattern(200_000));
    // HTTP/1 in front of the same backend.
    let response = rhumb_testkit::client::get(local(port), "a.test", "/file");
    assert!(response.content == pattern(200_000));
}

#[test]
fn requests_that_wait_for_a_stream_are_bounded() {
    let backend = Backend::start();
    let nginx = Nginx::start(&format!(
        "http2_max_concurrent_streams 1;
         server {{ listen 127.0.0.1:PORT http2; location / {{ proxy_pass http://{}; }} }}",
        backend.address()
    ));
    let port = port::free();
    let limits = "protocol: h2c, maxConnections: 1, maxPendingRequests: 2";
    let config = Config::new()
        .top("workers: 1")
        .listener("web", port, "")
        .backend("peer", &format!("endpoints: ['{}'], {limits}", nginx.address()))
        .route("to: peer");
    let rhumb = Rhumb::start(&config);
    let ask = |path: &str| {
        let mut client = Client::connect(local(port));
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        client
    };
    let mut first = ask("/hold/one");
    backend.wait_for("/hold/one");
    let mut waits = [ask("/bytes/7"), ask("/bytes/7")];
    let pending = || rhumb.metric("rhumb_backend_pending_requests", &["backend=\"default/peer\""]);
    wait::until("two requests that wait", || (pending() == 2.0).then_some(()));
    let refused = ask("/bytes/1").response();
    assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")), "{refused:?}");
    assert!(refused.text().contains("backend_limit"), "{refused:?}");
    backend.release("one");
    assert_eq!(first.response().status(), 200);
    for client in &mut waits {
        assert_eq!(client.response().content.len(), 7);
    }
    wait::until("nobody to wait", || (pending() == 0.0).then_some(()));
}

/// Runs h2load; every request must succeed.
fn h2load(args: &[&str], url: &str, requests: u32) {
    let mut command = Command::new("h2load");
    command.args(["-n", &requests.to_string()]).args(args).arg(url);
    let output = succeed(command);
    assert!(output.contains(&format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout")), "{output}");
    assert!(output.contains(&format!("status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx")), "{output}");
}

#[test]
fn h2load_finds_nothing_wrong() {
    let (backend, plain, tls) = (Backend::start(), port::free(), port::free());
    let h2c = Nginx::start(
        "server { listen 127.0.0.1:PORT http2; keepalive_requests 1000; location / { return 200 hello; } }",
    );
    let ca = Authority::new("test");
    let config = Config::new()
        .listener("web", plain, "")
        .listener("secure", tls, "tls: {certificates: [{cert: web.crt, key: web.key}]}")
        .backend("peer", &format!("endpoints: ['{}']", backend.address()))
        .backend("h2c", &format!("endpoints: ['{}'], protocol: h2c", h2c.address()))
        .route("on: [web, secure], match: {path: /h2c/*}, to: h2c")
        .route("on: [web, secure], to: peer");
    let _rhumb = Rhumb::start_with(&config, |dir| drop(ca.server(&["a.test"]).write(dir, "web")));
    let (plain, tls) = (format!("http://127.0.0.1:{plain}"), format!("https://127.0.0.1:{tls}"));
    h2load(&["-c", "8", "-m", "20"], &format!("{plain}/bytes/1000"), 4000);
    h2load(&["-c", "8", "-m", "20"], &format!("{tls}/bytes/1000"), 4000);
    h2load(&["-c", "8", "-m", "20"], &format!("{tls}/h2c/x"), 4000);
    h2load(&["-c", "2", "-m", "5"], &format!("{tls}/bytes/1000000"), 60);
    h2load(&["-c", "8", "-m", "20", "--h1"], &format!("{plain}/bytes/1000"), 2000);
    h2load(&["-c", "100", "-m", "1"], &format!("{tls}/bytes/10"), 500);
}

#[test]
fn a_request_before_the_settings_are_acknowledged_is_served() {
    let gate = Gate::new();
    let mut connection = Connection::bare(gate.proxy);
    let block = hpack::encode(&[
        (":method", "GET"),
        (":path", "/bytes/4"),
        (":scheme", "http"),
        (":authority", "a.test"),
    ]);
    let bytes = [h2::PREFACE, &h2::settings(&[]), &h2::headers(1, &block, true)].concat();
    // In pieces, so that each boundary falls into a frame.
    for piece in bytes.chunks(5) {
        connection.send(piece);
    }
    assert_eq!(connection.answer(1).expect("an answer").content, pattern(4));
}
