//! Our client and our server, connected.

use crate::support::*;
use rhumb_codec::field::{Fields, Known};
use rhumb_codec::h2::{Config, ErrorCode, Event, OpenError, Role};
use rhumb_codec::head::{Content, ResponseHead};

struct Pair {
    client: Side,
    server: Side,
}

impl Pair {
    fn new() -> Self {
        Self::with(Config::new(Role::Client), Config::new(Role::Server))
    }

    fn with(client: Config, server: Config) -> Self {
        let mut pair = Self { client: Side::new(client), server: Side::new(server) };
        pair.run();
        pair
    }

    /// Carries bytes until nobody has any: what the client saw, what the server saw.
    fn run(&mut self) -> (Vec<Seen>, Vec<Seen>) {
        let (mut client, mut server) = (Vec::new(), Vec::new());
        loop {
            let (up, down) = (self.client.bytes(), self.server.bytes());
            if up.is_empty() && down.is_empty() {
                return (client, server);
            }
            server.extend(self.server.feed(&up).unwrap());
            client.extend(self.client.feed(&down).unwrap());
        }
    }
}

#[test]
fn a_request_and_its_response_arrive_as_they_were_sent() {
    let mut pair = Pair::new();
    for n in 0..3 {
        let mut head = request("POST", "/a/b?c=d");
        head.fields.append(Known::UserAgent, b"test");
        head.fields.append_raw(Known::Other, b"X-Tenant", b"blue");
        head.fields.append(Known::Cookie, b"a=1; b=2");
        head.content = Content::Length(5);
        head.accepts_trailers = true;
        let stream = pair.client.connection.open(&head, false).unwrap();
        assert_eq!(pair.client.connection.send_data(stream, b"hello", true), Ok(5));
        let (_, seen) = pair.run();
        let lines = owned(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "a.example"),
            (":path", "/a/b?c=d"),
            ("user-agent", "test"),
            ("x-tenant", "blue"),
            ("cookie", "a=1; b=2"),
        ]);
        let stream = stream.get();
        assert_eq!(stream, 2 * n + 1);
        assert_eq!(
            seen,
            [
                Seen::Request { stream, lines, content: Content::Length(5), end_stream: false },
                Seen::Data { stream, data: b"hello".to_vec(), flow: 5, end_stream: true },
            ]
        );
        let mut head = ResponseHead::with_status(103);
        head.fields.append(Known::Link, b"</s.css>");
        pair.server.connection.send_response(id(stream), &head, false).unwrap();
        let mut head = ResponseHead::with_status(201);
        head.fields.append(Known::Server, b"test");
        head.content = Content::Streamed;
        pair.server.connection.send_response(id(stream), &head, false).unwrap();
        pair.server.connection.send_data(id(stream), b"world", false).unwrap();
        let mut trailers = Fields::new();
        trailers.append(Known::GrpcStatus, b"0");
        pair.server.connection.send_trailers(id(stream), &trailers).unwrap();
        let (seen, _) = pair.run();
        assert_eq!(
            seen,
            [
                Seen::Response {
                    stream,
                    lines: owned(&[(":status", "103"), ("link", "</s.css>")]),
                    content: Content::None,
                    end_stream: false
                },
                Seen::Response {
                    stream,
                    lines: owned(&[(":status", "201"), ("server", "test")]),
                    content: Content::Streamed,
                    end_stream: false
                },
                Seen::Data { stream, data: b"world".to_vec(), flow: 5, end_stream: false },
                Seen::Trailers { stream, lines: owned(&[("grpc-status", "0")]) },
            ]
        );
        assert_eq!(pair.client.connection.active_streams() + pair.server.connection.active_streams(), 0);
    }
}

#[test]
fn trailers_that_may_not_be_trailers_leave_a_plain_end() {
    let mut pair = Pair::new();
    let stream = pair.client.connection.open(&request("POST", "/"), false).unwrap();
    let mut trailers = Fields::new();
    trailers.append(Known::Authorization, b"x");
    pair.client.connection.send_trailers(stream, &trailers).unwrap();
    let (_, seen) = pair.run();
    assert_eq!(seen[1], Seen::Data { stream: 1, data: Vec::new(), flow: 0, end_stream: true });
}

/// RFC 7541 §6.2.3: an intermediary passes a never indexed field on as such.
#[test]
fn never_indexed_fields_stay_so() {
    let mut server = Side::server();
    let mut bytes = block(GET);
    bytes.extend(b"\x10\x06x-safe\x01v\x00\x06x-open\x01v");
    let input = frame(HEADERS, END_HEADERS | END_STREAM, 1, &bytes);
    let received = server.connection.receive(&input, server.now).unwrap();
    let Some(Event::Request { head, .. }) = received.event else { panic!("no request") };
    let mut client = Side::client();
    client.connection.open(&head, true).unwrap();
    let block = client.output().remove(0).payload;
    let has = |bytes: &[u8]| block.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(b"\x10\x06x-safe\x01v") && has(b"\x00\x06x-open\x01v"), "{block:x?}");
}

#[test]
fn heads_longer_than_a_frame_are_continued() {
    let mut pair = Pair::new();
    let mut head = request("GET", "/");
    let value = "v".repeat(50_000);
    head.fields.append_raw(Known::Other, b"x-long", value.as_bytes());
    pair.client.connection.open(&head, true).unwrap();
    let (_, seen) = pair.run();
    assert!(matches!(&seen[..], [Seen::Request { lines, end_stream: true, .. }]
            if lines.last() == Some(&("x-long".to_owned(), value))));
}

#[test]
fn extended_connect_needs_permission() {
    let mut config = Config::new(Role::Server);
    config.enable_connect_protocol = false;
    let mut head = request("CONNECT", "/chat");
    head.set_protocol(Some(b"websocket"));
    let mut pair = Pair::with(Config::new(Role::Client), config);
    assert_eq!(pair.client.connection.open(&head, false), Err(OpenError::NoExtendedConnect));
    let mut pair = Pair::new();
    let stream = pair.client.connection.open(&head, false).unwrap();
    let (_, seen) = pair.run();
    let lines = owned(&[
        (":method", "CONNECT"),
        (":scheme", "http"),
        (":authority", "a.example"),
        (":path", "/chat"),
        (":protocol", "websocket"),
    ]);
    assert_eq!(seen, [Seen::Request { stream: 1, lines, content: Content::None, end_stream: false }]);
    pair.server.connection.send_response(stream, &ResponseHead::with_status(200), false).unwrap();
    pair.server.connection.send_data(stream, b"down", false).unwrap();
    pair.client.connection.send_data(stream, b"up", false).unwrap();
    let (client, server) = pair.run();
    assert_eq!(server, [Seen::Data { stream: 1, data: b"up".to_vec(), flow: 2, end_stream: false }]);
    assert_eq!(client[1], Seen::Data { stream: 1, data: b"down".to_vec(), flow: 4, end_stream: false });
}

#[test]
fn as_many_streams_are_opened_as_the_server_allows() {
    let mut config = Config::new(Role::Server);
    config.max_concurrent_streams = 3;
    let mut pair = Pair::with(Config::new(Role::Client), config);
    let head = request("GET", "/");
    for _ in 0..3 {
        pair.client.connection.open(&head, true).unwrap();
    }
    assert_eq!(pair.client.connection.open(&head, true), Err(OpenError::NoStream));
    pair.run();
    pair.server.connection.send_response(id(1), &ResponseHead::with_status(200), true).unwrap();
    pair.run();
    assert_eq!(pair.client.connection.available(), 1);
    pair.client.connection.go_away(ErrorCode::NO_ERROR, true);
    assert_eq!(pair.client.connection.open(&head, true), Err(OpenError::GoingAway));
}

#[test]
fn a_head_that_the_server_would_refuse_is_not_sent() {
    let mut config = Config::new(Role::Server);
    config.max_header_list_size = 2000;
    let mut pair = Pair::with(Config::new(Role::Client), config);
    let mut head = request("GET", "/");
    head.fields.append_raw(Known::Other, b"x-long", &[b'v'; 2000]);
    assert_eq!(pair.client.connection.open(&head, true), Err(OpenError::HeadTooLarge));
    assert!(!pair.client.connection.wants_write());
}

#[test]
fn resets_end_streams_on_both_sides() {
    let mut pair = Pair::new();
    let stream = pair.client.connection.open(&request("GET", "/"), false).unwrap();
    pair.run();
    pair.client.connection.reset(stream, ErrorCode::CANCEL);
    let (_, seen) = pair.run();
    assert_eq!(seen, [Seen::Reset { stream: 1, code: ErrorCode::CANCEL, by_peer: true, refusal: None }]);
    assert!(pair.server.connection.send_response(stream, &ResponseHead::with_status(200), true).is_err());
    assert!(pair.client.connection.send_data(stream, b"x", true).is_err());
    assert_eq!(pair.client.connection.active_streams() + pair.server.connection.active_streams(), 0);
}

#[test]
fn an_idle_connection_is_small() {
    let mut pair = Pair::new();
    for _ in 0..20 {
        let mut head = request("GET", "/x");
        head.fields.append(Known::UserAgent, b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36");
        head.fields.append(Known::Accept, b"text/html,application/xhtml+xml");
        let stream = pair.client.connection.open(&head, true).unwrap();
        pair.run();
        let mut head = ResponseHead::with_status(200);
        head.fields.append(Known::ContentType, b"text/html; charset=utf-8");
        pair.server.connection.send_response(stream, &head, false).unwrap();
        pair.server.connection.send_data(stream, &[b'x'; 3000], true).unwrap();
        pair.run();
    }
    for side in [&mut pair.client, &mut pair.server] {
        side.connection.trim();
        let bytes = side.connection.capacity_bytes() + size_of_val(&side.connection);
        assert!(bytes <= 4096, "{bytes}");
    }
}
