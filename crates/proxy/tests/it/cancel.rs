//! Clients that leave, backends that do not answer, and who is told.

use std::time::Duration;

use rhumb_testkit::client::Client;
use rhumb_testkit::{h2, wait};

use crate::support::{H2Peer, Listener, Setup, black_hole, connect};

#[test]
fn a_client_that_leaves_while_the_backend_works_ends_the_request() {
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    let mut client = connect(proxy.address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut peer = backend.accept();
    peer.request();
    drop(client);
    peer.rest();
    let record = proxy.record();
    assert_eq!(
        (record["failure_code"].as_str(), record["status"].as_u64()),
        (Some("client_closed"), Some(499))
    );
    assert_eq!(proxy.active(), 0.0);
}

#[test]
fn a_client_that_leaves_while_connecting_ends_the_request() {
    let (hole, _held) = black_hole();
    let mut setup = Setup::to(hole);
    setup.connect_timeout = Duration::from_secs(3600);
    setup.timeouts.request = Some(Duration::ZERO);
    let proxy = setup.start();
    let mut client = connect(proxy.address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait::until("the request is under way", || (proxy.active() == 1.0).then_some(()));
    drop(client);
    assert_eq!(proxy.record()["failure_code"], "client_closed");
    assert_eq!(proxy.active(), 0.0);
}

#[test]
fn a_stream_that_is_reset_while_connecting_ends_the_request() {
    for is_h2 in [false, true] {
        let (hole, _held) = black_hole();
        let mut setup = if is_h2 { Setup::to_h2(hole) } else { Setup::to(hole) };
        setup.connect_timeout = Duration::from_secs(3600);
        setup.timeouts.request = Some(Duration::ZERO);
        let proxy = setup.start();
        let mut client = h2::Connection::open(proxy.address, &[]);
        client.send(&h2::headers(1, &h2::get("a", "/", &[]), true));
        client.send(&h2::headers(3, &h2::get("a", "/", &[]), true));
        wait::until("the requests are under way", || (proxy.active() == 2.0).then_some(()));
        client.send(&h2::reset(1, h2::code::CANCEL));
        assert_eq!(proxy.record()["failure_code"], "client_closed");
        assert_eq!(proxy.active(), 1.0);
        drop(client);
        assert_eq!(proxy.records(2)[1]["failure_code"], "client_closed");
    }
}

#[test]
fn the_request_timeout_bounds_connecting() {
    for is_h2 in [false, true] {
        for timeouts in [(Some(1), None), (None, Some(1))] {
            let (hole, _held) = black_hole();
            let mut setup = if is_h2 { Setup::to_h2(hole) } else { Setup::to(hole) };
            setup.connect_timeout = Duration::from_secs(3600);
            setup.timeouts.request = timeouts.0.map(Duration::from_millis);
            setup.timeouts.backend_request = timeouts.1.map(Duration::from_millis);
            let proxy = setup.start();
            let response = Client::connect(proxy.address).get("a", "/");
            assert_eq!(response.status(), 504);
            // Time for all is over, or that of an attempt which has not even begun.
            let code = if timeouts.0.is_some() { "backend_timeout" } else { "connect_timeout" };
            assert_eq!(proxy.record()["failure_code"], code);
        }
    }
}

#[test]
fn a_backend_that_does_not_answer_in_time_is_given_up() {
    let backend = Listener::new();
    let mut setup = Setup::to(backend.address());
    setup.timeouts.request = Some(Duration::from_millis(50));
    let proxy = setup.start();
    let mut client = Client::connect(proxy.address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut peer = backend.accept();
    peer.request();
    let response = client.response();
    // The request was complete, so the connection stays.
    assert_eq!((response.status(), response.field("connection")), (504, None));
    peer.rest();
}

#[test]
fn a_client_that_stops_in_the_middle_of_its_content_is_told_that_it_was_slow() {
    let backend = Listener::new();
    let mut setup = Setup::to(backend.address());
    setup.timeouts.idle = Some(Duration::from_millis(50));
    let proxy = setup.start();
    let mut client = Client::connect(proxy.address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    let mut peer = backend.accept();
    peer.head();
    assert_eq!(peer.bytes(3), b"abc");
    assert_eq!(client.response().status(), 408);
    assert_eq!(proxy.record()["failure_code"], "request_timeout");
    assert_eq!(client.read_to_end(), b"");
    peer.rest();
}

#[test]
fn content_that_stands_still_ends_the_exchange() {
    let backend = Listener::new();
    let mut setup = Setup::to(backend.address());
    setup.timeouts.idle = Some(Duration::from_millis(50));
    let proxy = setup.start();
    let mut client = Client::connect(proxy.address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut peer = backend.accept();
    peer.request();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    assert!(client.read_to_end().ends_with(b"\r\n\r\nabc"));
    peer.rest();
    assert_eq!(proxy.record()["failure_code"], "idle_timeout");
}

#[test]
fn a_reset_of_the_client_reaches_an_http_2_backend() {
    let backend = Listener::new();
    let proxy = Setup::to_h2(backend.address()).start();
    let mut client = h2::Connection::open(proxy.address, &[]);
    client.send(&h2::headers(1, &h2::get("a", "/", &[]), true));
    let mut peer = H2Peer::accept(&backend, &[]);
    let (stream, _) = peer.request();
    client.send(&h2::reset(1, h2::code::CANCEL));
    let frame = peer.frame();
    assert_eq!(
        (frame.kind, frame.stream, frame.code()),
        (h2::kind::RST_STREAM, stream, Some(h2::code::CANCEL))
    );
    assert_eq!(proxy.record()["failure_code"], "client_closed");
}

#[test]
fn a_client_that_says_goaway_still_gets_its_answers() {
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    let mut client = h2::Connection::open(proxy.address, &[]);
    client.send(&h2::headers(1, &h2::get("a", "/", &[]), true));
    let mut peer = backend.accept();
    peer.request();
    // RFC 9113 §6.8: the last stream of a client's GOAWAY is one of the server's, of which there are none.
    client.send(&h2::frame(h2::kind::GOAWAY, 0, 0, &[0; 8]));
    // Its acknowledgement shows that the GOAWAY was read.
    client.send(&h2::ping(7));
    while client.frame().unwrap().kind != h2::kind::PING {}
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let answer = client.answer(1).unwrap();
    assert_eq!((answer.status, &answer.content[..]), (200, &b"ok"[..]));
}
