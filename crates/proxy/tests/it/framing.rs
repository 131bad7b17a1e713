//! Where messages end, and what becomes of the connections then.

use rhumb_testkit::client::Client;
use rhumb_testkit::message::{Framing, Kind};

use crate::support::{Listener, Setup, connect};

#[test]
fn connections_to_backends_are_reused() {
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    let mut client = Client::connect(proxy.address);
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut peer = backend.accept();
    peer.answer("one");
    assert_eq!(client.response().content, b"one");
    client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(peer.answer("two").target(), "/2");
    assert_eq!(client.response().content, b"two");
    assert_eq!(proxy.records(2).len(), 2);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    let mut client = Client::connect(proxy.address);
    client.send(
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
         POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let mut peer = backend.accept();
    for target in ["/1", "/2", "/3", "/4"] {
        assert_eq!(peer.answer(target).target(), target);
    }
    for target in ["/1", "/2", "/3", "/4"] {
        assert_eq!(client.response().content, target.as_bytes());
    }
}

#[test]
fn content_that_was_refused_is_never_read_as_a_request() {
    let backend = Listener::new();
    let mut setup = Setup::to(backend.address());
    setup.settings.max_content = Some(10);
    let proxy = setup.start();
    let mut client = Client::connect(proxy.address);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n",
        smuggled.len()
    ));
    let refusal = client.response();
    assert_eq!(refusal.status(), 413);
    // All of it had come and was read off, so the connection is good for another request: the client's, not the content.
    client.send("GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    // The first connection was for the refused request, which never went out.
    assert_eq!(backend.accept().rest().0, b"");
    let mut peer = backend.accept();
    assert!(peer.answer("next").start.starts_with("GET /next "));
    assert_eq!(client.response().content, b"next");
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(proxy.records(2)[0]["failure_code"], "content_too_large");
}

#[test]
fn a_response_of_unknown_length_ends_with_the_connection_for_http_1_0() {
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    let mut client = Client::connect(proxy.address);
    client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    let mut peer = backend.accept();
    peer.request();
    peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let response = client.response();
    assert_eq!((&response.content[..], response.framing), (&b"hello"[..], Framing::UntilClose));
    // With a length it would have stayed open.
    let mut client = Client::connect(proxy.address);
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        peer.answer("hello");
        assert_eq!(client.response().content, b"hello");
    }
}

#[test]
fn a_response_that_breaks_off_never_looks_complete() {
    let cases = [
        // The client's version, the framing of the backend, whether only a reset can tell.
        ("1.1", "Content-Length: 100", "hello", false),
        ("1.1", "Transfer-Encoding: chunked", "5\r\nhello\r\n", false),
        ("1.0", "Content-Length: 100", "hello", false),
        ("1.0", "Transfer-Encoding: chunked", "5\r\nhello\r\n", true),
    ];
    for (version, framing, content, needs_reset) in cases {
        let backend = Listener::new();
        let proxy = Setup::to(backend.address()).start();
        let mut client = connect(proxy.address);
        client.send(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n"));
        let mut peer = backend.accept();
        peer.request();
        peer.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{content}"));
        // What came so far has been passed on.
        client.read("content", |received| {
            let text = String::from_utf8_lossy(received);
            text.contains("hello").then_some(((), 0))
        });
        drop(peer);
        let (_, was_reset) = client.rest();
        assert_eq!(was_reset, needs_reset, "HTTP/{version} {framing}");
        assert_eq!(proxy.record()["failure_code"], "response_incomplete");
    }
}

#[test]
fn a_connection_is_closed_after_a_response_that_said_so() {
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    let mut client = Client::connect(proxy.address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
    let mut peer = backend.accept();
    peer.head();
    assert_eq!(peer.bytes(3), b"abc");
    // The head goes out while the request is not complete, so the proxy cannot promise to read on.
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh");
    assert_eq!(client.read_exact(15), b"HTTP/1.1 200 OK");
    client.send("def");
    assert_eq!(peer.bytes(3), b"def");
    peer.send("i");
    let rest = String::from_utf8(client.read_to_end()).unwrap();
    assert!(rest.contains("Connection: close") && rest.ends_with("hi"), "{rest:?}");
}

#[test]
fn an_answer_before_the_end_of_the_request_ends_both_connections() {
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    let mut client = Client::connect(proxy.address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc");
    let mut peer = backend.accept();
    peer.head();
    peer.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
    let response = client.response();
    assert_eq!((response.status(), response.field("connection")), (401, Some("close")));
    assert_eq!(client.read_to_end(), b"");
    peer.rest();
}

#[test]
fn responses_without_content_leave_the_connections_open() {
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    let mut client = Client::connect(proxy.address);
    let mut peer = None;
    let cases = [
        ("HEAD", "200 OK\r\nContent-Length: 1000", Some("1000")),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked", None),
        ("GET", "204 No Content", None),
        ("GET", "304 Not Modified\r\nContent-Length: 1000", Some("1000")),
        ("GET", "200 OK\r\nContent-Length: 0", Some("0")),
        ("DELETE", "304 Not Modified\r\nETag: \"a\"", None),
    ];
    for (method, answer, length) in cases {
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        let peer = peer.get_or_insert_with(|| backend.accept());
        peer.request();
        peer.send(format!("HTTP/1.1 {answer}\r\n\r\n"));
        let response = client.next_response(Kind::ResponseToHead);
        assert_eq!(response.field("content-length"), length, "{method} {answer}");
        assert_eq!(response.field("connection"), None, "{method} {answer}");
    }
    assert!(backend.try_accept().is_none());
}

#[test]
fn a_backend_connection_with_bytes_left_over_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let backend = Listener::new();
        let proxy = Setup::to(backend.address()).start();
        let mut client = Client::connect(proxy.address);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut first = backend.accept();
        first.request();
        first.send(answer);
        assert_eq!(client.response().content, b"ok");
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        backend.accept().answer("good");
        assert_eq!(client.response().content, b"good");
        first.rest();
    }
}

#[test]
fn a_response_until_the_close_becomes_chunked() {
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    let mut client = Client::connect(proxy.address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut peer = backend.accept();
    peer.request();
    peer.send("HTTP/1.0 200 OK\r\n\r\nhello");
    drop(peer);
    let response = client.response();
    assert_eq!((&response.content[..], response.framing), (&b"hello"[..], Framing::Chunked));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    backend.accept().answer("again");
    assert_eq!(client.response().content, b"again");
}

#[test]
fn trailers_pass_both_ways() {
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    let mut client = Client::connect(proxy.address);
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Up: 1\r\n\r\n",
    );
    let mut peer = backend.accept();
    let request = peer.request();
    assert_eq!(request.trailers, [("X-Up".into(), "1".into())]);
    peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Down: 2\r\n\r\n");
    assert_eq!(client.response().trailers, [("X-Down".into(), "2".into())]);
}

#[test]
fn interim_responses_are_relayed_but_not_to_http_1_0() {
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    let mut client = Client::connect(proxy.address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    let mut peer = backend.accept();
    assert_eq!(peer.head().field("expect"), Some("100-continue"));
    peer.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.next_response(Kind::Response).status(), 103);
    assert_eq!(client.next_response(Kind::Response).status(), 100);
    client.send("abc");
    assert_eq!(peer.bytes(3), b"abc");
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.next_response(Kind::Response).content, b"ok");
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    peer.request();
    peer.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.next_response(Kind::Response).status(), 200);
}

#[test]
fn a_client_that_waits_for_100_is_answered_without_its_content() {
    let backend = Listener::new();
    let mut setup = Setup::to(backend.address());
    setup.settings.max_content = Some(10);
    let proxy = setup.start();
    let mut client = Client::connect(proxy.address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n");
    let refusal = client.response();
    assert_eq!((refusal.status(), refusal.field("connection")), (413, Some("close")));
    // It sends all the same: that is not a request.
    client.send("GET / HTTP/");
    assert_eq!(client.read_to_end(), b"");
}

#[test]
fn a_backend_that_switches_protocols_unasked_is_refused() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        // The request is not complete: what follows would be content for one side and tunnel for the other.
        "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 10\r\n\r\nabc",
    ] {
        let backend = Listener::new();
        let proxy = Setup::to(backend.address()).start();
        let mut client = Client::connect(proxy.address);
        client.send(request);
        let mut peer = backend.accept();
        peer.head();
        peer.send(head);
        let refusal = client.response();
        assert_eq!(
            (refusal.status(), proxy.record()["failure_code"].as_str()),
            (502, Some("upgrade_failed"))
        );
        peer.rest();
    }
}
