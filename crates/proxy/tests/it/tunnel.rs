//! WebSocket and its like, between both versions of HTTP.

use std::net::Shutdown;
use std::time::Duration;

use rhumb_testkit::client::Client;
use rhumb_testkit::h2;

use crate::support::{H2Peer, Listener, Setup, value};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 §3).
const CONNECT_PROTOCOL: &[(u16, u32)] = &[(8, 1)];

fn upgrade() -> String {
    format!(
        "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

fn connect() -> Vec<u8> {
    h2::request("CONNECT", "a", "/chat", &[(":protocol", "websocket"), ("sec-websocket-version", "13")])
}

#[test]
fn http_1_to_http_1() {
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    let mut client = Client::connect(proxy.address);
    // Data right behind the handshake waits for the tunnel.
    client.send(upgrade() + "early");
    let mut peer = backend.accept();
    let request = peer.request();
    assert_eq!((request.field("upgrade"), request.field("connection")), (Some("websocket"), Some("upgrade")));
    assert_eq!(request.field("sec-websocket-key"), Some(KEY));
    peer.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\nhello"
    ));
    let response = client.response();
    assert_eq!((response.status(), response.field("sec-websocket-accept")), (101, Some(ACCEPT)));
    assert_eq!((client.read_exact(5), peer.bytes(5)), (b"hello".to_vec(), b"early".to_vec()));
    client.send("ping");
    assert_eq!(peer.bytes(4), b"ping");
    // One direction may end before the other.
    client.finish();
    assert_eq!(peer.rest(), (Vec::new(), false));
    peer.send("bye");
    peer.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read_to_end(), b"bye");
    let record = proxy.record();
    assert_eq!(
        (record["status"].as_u64(), record["bytes_in"].as_u64(), record["bytes_out"].as_u64()),
        (Some(101), Some(9), Some(8))
    );
    assert!(record.to_string().contains("upgraded") && record.get("failure_code").is_none(), "{record}");
}

#[test]
fn http_2_to_http_1() {
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    let mut client = h2::Connection::open(proxy.address, &[]);
    client.send(&h2::headers(1, &connect(), false));
    let mut peer = backend.accept();
    let request = peer.request();
    assert_eq!(
        (request.method(), request.target(), request.field("upgrade")),
        ("GET", "/chat", Some("websocket"))
    );
    assert_eq!(request.field("sec-websocket-key").map(str::len), Some(24));
    peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nhello");
    client.send(&h2::data(1, b"ping", false));
    assert_eq!(peer.bytes(4), b"ping");
    client.send(&h2::data(1, b"", true));
    assert_eq!(peer.rest(), (Vec::new(), false));
    peer.send("bye");
    peer.stream.shutdown(Shutdown::Write).unwrap();
    let answer = client.answer(1).unwrap();
    assert_eq!((answer.status, &answer.content[..], answer.reset), (200, &b"hellobye"[..], None));
    assert_eq!(answer.field("sec-websocket-accept"), None);
    assert!(proxy.record().to_string().contains("upgraded"));
}

#[test]
fn http_1_to_http_2() {
    let backend = Listener::new();
    let proxy = Setup::to_h2(backend.address()).start();
    let mut client = Client::connect(proxy.address);
    client.send(upgrade());
    let mut peer = H2Peer::accept(&backend, CONNECT_PROTOCOL);
    let (stream, fields) = peer.request();
    assert_eq!(
        (value(&fields, ":method"), value(&fields, ":protocol")),
        (Some("CONNECT"), Some("websocket"))
    );
    assert_eq!((value(&fields, ":path"), value(&fields, "sec-websocket-key")), (Some("/chat"), None));
    peer.respond(stream, &[(":status", "200")], false);
    let response = client.response();
    assert_eq!((response.status(), response.field("sec-websocket-accept")), (101, Some(ACCEPT)));
    assert_eq!(response.field("upgrade"), Some("websocket"));
    client.send("ping");
    assert_eq!(peer.content(stream, 4), b"ping");
    peer.peer.send(h2::data(stream, b"pong", false));
    assert_eq!(client.read_exact(4), b"pong");
    client.finish();
    let end = peer.frame();
    assert!(end.stream == stream && end.ends() && end.payload.is_empty(), "{end:?}");
    peer.peer.send(h2::data(stream, b"bye", true));
    assert_eq!(client.read_to_end(), b"bye");
}

#[test]
fn http_2_to_http_2() {
    let backend = Listener::new();
    let proxy = Setup::to_h2(backend.address()).start();
    let mut client = h2::Connection::open(proxy.address, &[]);
    client.send(&h2::headers(1, &connect(), false));
    let mut peer = H2Peer::accept(&backend, CONNECT_PROTOCOL);
    let (stream, fields) = peer.request();
    assert_eq!(
        (value(&fields, ":method"), value(&fields, ":protocol")),
        (Some("CONNECT"), Some("websocket"))
    );
    peer.respond(stream, &[(":status", "200")], false);
    client.send(&h2::data(1, b"ping", false));
    assert_eq!(peer.content(stream, 4), b"ping");
    peer.peer.send(h2::data(stream, b"bye", true));
    client.send(&h2::data(1, b"", true));
    let answer = client.answer(1).unwrap();
    assert_eq!((answer.status, &answer.content[..], answer.reset), (200, &b"bye"[..], None));
}

#[test]
fn a_backend_that_does_not_switch_answers_as_usual() {
    for (status, content) in [("403 Forbidden", "no"), ("200 OK", "just a page")] {
        let backend = Listener::new();
        let proxy = Setup::to(backend.address()).start();
        let mut client = Client::connect(proxy.address);
        client.send(upgrade());
        let mut peer = backend.accept();
        peer.request();
        peer.send(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{content}", content.len()));
        assert_eq!(client.response().content, content.as_bytes());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        peer.answer("ok");
        assert_eq!(client.response().content, b"ok");
        let records = proxy.records(2);
        assert!(!records[0].to_string().contains("upgraded"));
    }
}

#[test]
fn an_ordinary_answer_to_an_extended_connect_is_no_tunnel() {
    // RFC 8441 §5: a 2xx would tell the client of HTTP/2 that the tunnel is open.
    for (answer, status) in [("200 OK", 502), ("403 Forbidden", 403), ("301 Moved Permanently", 301)] {
        let backend = Listener::new();
        let proxy = Setup::to(backend.address()).start();
        let mut client = h2::Connection::open(proxy.address, &[]);
        client.send(&h2::headers(1, &connect(), false));
        let mut peer = backend.accept();
        peer.request();
        peer.send(format!("HTTP/1.1 {answer}\r\nContent-Length: 4\r\n\r\npage"));
        let got = client.answer(1).unwrap();
        assert_eq!(got.status, status);
        assert_eq!(&got.content[..] == b"page", status != 502);
    }
}

#[test]
fn a_backend_without_extended_connect_fails_the_upgrade() {
    let backend = Listener::new();
    let proxy = Setup::to_h2(backend.address()).start();
    let mut client = Client::connect(proxy.address);
    client.send(upgrade());
    let mut peer = H2Peer::accept(&backend, &[]);
    assert_eq!(client.response().status(), 502);
    // The connection serves requests all the same.
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let (stream, _) = peer.request();
    peer.respond(stream, &[(":status", "204")], true);
    assert_eq!(client.response().status(), 204);
}

#[test]
fn a_request_with_content_is_sent_without_its_upgrade_to_http_2() {
    let backend = Listener::new();
    let proxy = Setup::to_h2(backend.address()).start();
    let mut client = Client::connect(proxy.address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 3\r\n\r\nabc");
    let mut peer = H2Peer::accept(&backend, CONNECT_PROTOCOL);
    let (stream, fields) = peer.request();
    assert_eq!((value(&fields, ":method"), value(&fields, ":protocol")), (Some("POST"), None));
    assert_eq!(peer.content(stream, 3), b"abc");
    peer.respond(stream, &[(":status", "200"), ("content-length", "2")], false);
    peer.peer.send(h2::data(stream, b"ok", true));
    let response = client.response();
    assert_eq!((response.status(), &response.content[..]), (200, &b"ok"[..]));
}

#[test]
fn a_tunnel_that_stands_still_is_closed_and_teaches_nothing_about_its_endpoint() {
    let backend = Listener::new();
    let mut setup = Setup::to(backend.address());
    setup.timeouts.idle = Some(Duration::from_millis(50));
    let proxy = setup.start();
    let mut client = Client::connect(proxy.address);
    client.send(upgrade());
    let mut peer = backend.accept();
    peer.request();
    peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    assert_eq!(client.response().status(), 101);
    assert_eq!(client.read_to_end(), b"");
    peer.rest();
    assert_eq!(proxy.record()["failure_code"], "idle_timeout");
    let plan = proxy.plan();
    let set = plan.backends[0].endpoints.load();
    assert_eq!(set.members().iter().map(|member| member.endpoint().failed()).sum::<u64>(), 0);
}
