//! When a request is sent a second time, and when it is not.

use rhumb_testkit::client::Client;
use rhumb_testkit::{h2, hpack};

use crate::support::{H2Peer, Listener, Setup};

/// Has a connection to the backend lie in the pool, and the backend close it when the next request has come.
fn with_stale_connection(request: &str, check: impl Fn(&Listener, &mut Client)) -> serde_json::Value {
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    let mut client = Client::connect(proxy.address);
    client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut stale = backend.accept();
    stale.answer("ok");
    client.response();
    client.send(request);
    stale.request();
    drop(stale);
    check(&backend, &mut client);
    proxy.records(2).remove(1)
}

#[test]
fn an_idempotent_request_is_repeated_on_a_fresh_connection() {
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        let record = with_stale_connection(request, |backend, client| {
            let mut fresh = backend.accept();
            let again = fresh.answer("again");
            let content: &[u8] = if again.method() == "PUT" { b"abc" } else { b"" };
            assert_eq!(again.content, content);
            assert_eq!(client.response().content, b"again");
        });
        assert_eq!((record["status"].as_u64(), record["tries"].as_u64()), (Some(200), Some(2)), "{record}");
    }
}

#[test]
fn a_request_that_is_not_idempotent_or_not_at_hand_is_not_repeated() {
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        // Trailers are not kept.
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n\r\n",
    ] {
        let record = with_stale_connection(request, |backend, client| {
            assert_eq!(client.response().status(), 502);
            assert!(backend.try_accept().is_none());
        });
        assert_eq!(
            (record["failure_code"].as_str(), record["tries"].as_u64()),
            (Some("backend_reset"), Some(1))
        );
    }
}

#[test]
fn content_beyond_what_is_kept_is_not_repeated() {
    let content = "x".repeat(100_000);
    let request = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{content}", content.len());
    let record = with_stale_connection(&request, |_, client| assert_eq!(client.response().status(), 502));
    assert_eq!(record["tries"], 1);
}

#[test]
fn an_endpoint_that_refuses_connections_is_passed_over() {
    let (dead, backend) = (Listener::new(), Listener::new());
    let mut setup = Setup::to(dead.address());
    setup.budget.min_retries = 100;
    setup.endpoints.push(backend.address());
    drop(dead);
    let proxy = setup.start();
    for _ in 0..4 {
        let mut client = Client::connect(proxy.address);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc");
        // Whether it comes on the same connection as the one before is the pool's business.
        let mut peer = backend.accept();
        let request = peer.request();
        assert_eq!(request.content, b"abc");
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        assert_eq!(client.response().content, b"ok");
    }
    assert!(proxy.records(4).iter().any(|record| record["tries"] == 2));
}

#[test]
fn a_stream_that_the_backend_has_not_processed_is_sent_again() {
    let backend = Listener::new();
    let proxy = Setup::to_h2(backend.address()).start();
    let mut client = Client::connect(proxy.address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    let mut peer = H2Peer::accept(&backend, &[]);
    let (first, _) = peer.request();
    assert_eq!(peer.content(first, 3), b"abc");
    peer.peer.send(h2::reset(first, h2::code::REFUSED_STREAM));
    let (second, _) = peer.request();
    assert_eq!(peer.content(second, 3), b"abc");
    // The last stream that is processed is the one before.
    let last = [&0u32.to_be_bytes()[..], &h2::code::NO_ERROR.to_be_bytes()].concat();
    peer.peer.send(h2::frame(h2::kind::GOAWAY, 0, 0, &last));
    let mut other = H2Peer::accept(&backend, &[]);
    let (third, _) = other.request();
    assert_eq!(other.content(third, 3), b"abc");
    other.peer.send(h2::headers(third, &hpack::encode(&[(":status", "204")]), true));
    assert_eq!(client.response().status(), 204);
    assert_eq!(proxy.record()["tries"], 3);
}

#[test]
fn a_stream_that_the_backend_may_have_processed_is_not_sent_again() {
    let backend = Listener::new();
    let proxy = Setup::to_h2(backend.address()).start();
    let mut client = Client::connect(proxy.address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut peer = H2Peer::accept(&backend, &[]);
    let (stream, _) = peer.request();
    peer.peer.send(h2::reset(stream, h2::code::CANCEL));
    assert_eq!(client.response().status(), 502);
    assert_eq!(proxy.record()["tries"], 1);
}
