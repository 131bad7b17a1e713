//! Messages that are accepted and messages that are not (RFC 9113 §8), each with its reason.

use crate::support::*;
use rhumb_codec::h1;
use rhumb_codec::h2::{ErrorCode, Refusal as R, Role};
use rhumb_codec::head::{Content, RequestHead, ResponseHead};

/// GET with one pseudo-field replaced; `None` leaves it out.
fn with(name: &str, value: Option<&'static str>) -> Vec<(&'static str, &'static str)> {
    GET.iter()
        .filter_map(|line| if line.0 == name { value.map(|value| (line.0, value)) } else { Some(*line) })
        .collect()
}

fn get_and(lines: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [GET, lines].concat()
}

const CONNECT: &[(&str, &str)] = &[(":method", "CONNECT"), (":authority", "a.example:443")];
const WEBSOCKET: &[(&str, &str)] = &[
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "https"),
    (":authority", "a.example"),
    (":path", "/chat"),
];

#[test]
fn malformed_requests_are_refused() {
    let long_method: &'static str = "M".repeat(33).leak();
    let long_path: &'static str = format!("/{}", "p".repeat(16 << 10)).leak();
    let long_number: &'static str = "1".repeat(20).leak();
    type Case = (Vec<(&'static str, &'static str)>, R);
    let mut cases: Vec<Case> = vec![
        (vec![], R::PseudoMissing),
        (with(":method", None), R::PseudoMissing),
        (with(":scheme", None), R::PseudoMissing),
        (with(":path", None), R::PseudoMissing),
        (with(":authority", None), R::AuthorityMissing),
        (with(":method", Some("")), R::MethodInvalid),
        (with(":method", Some("G T")), R::MethodInvalid),
        (with(":method", Some("GET\r\nX:")), R::ValueInvalid),
        (with(":method", Some("GE(T")), R::MethodInvalid),
        (with(":method", Some(long_method)), R::MethodTooLong),
        (with(":scheme", Some("")), R::SchemeInvalid),
        (with(":scheme", Some("ftp")), R::SchemeInvalid),
        (with(":scheme", Some("https ")), R::ValueInvalid),
        (with(":path", Some("")), R::PathInvalid),
        (with(":path", Some("a")), R::PathInvalid),
        (with(":path", Some("*")), R::PathInvalid),
        (with(":path", Some("http://a.example/")), R::PathInvalid),
        (with(":path", Some("/a b")), R::PathInvalid),
        (with(":path", Some("/a\tb")), R::PathInvalid),
        (with(":path", Some("/a#b")), R::PathInvalid),
        (with(":path", Some("/ä")), R::PathInvalid),
        (with(":path", Some("/ HTTP/1.1\r\nHost: b\r\n\r\n")), R::ValueInvalid),
        (with(":path", Some("/\0")), R::ValueInvalid),
        (with(":path", Some(" /")), R::ValueInvalid),
        (with(":path", Some(long_path)), R::PathTooLong),
        (with(":authority", Some("")), R::AuthorityInvalid),
        (with(":authority", Some("user@a.example")), R::AuthorityInvalid),
        (with(":authority", Some("user:pw@a.example")), R::AuthorityInvalid),
        (with(":authority", Some("a.example:http")), R::AuthorityInvalid),
        (with(":authority", Some("a.example:99999")), R::AuthorityInvalid),
        (with(":authority", Some("a.example/b")), R::AuthorityInvalid),
        (with(":authority", Some("a,b")), R::AuthorityInvalid),
        (with(":authority", Some("a b")), R::AuthorityInvalid),
        (with(":authority", Some("[::1")), R::AuthorityInvalid),
        (with(":authority", Some("a.example\n")), R::ValueInvalid),
        (get_and(&[(":path", "/")]), R::PseudoRepeated),
        (get_and(&[(":method", "GET")]), R::PseudoRepeated),
        (get_and(&[(":scheme", "http")]), R::PseudoRepeated),
        (get_and(&[(":authority", "a.example")]), R::PseudoRepeated),
        (get_and(&[(":status", "200")]), R::PseudoUnknown),
        (get_and(&[(":foo", "bar")]), R::PseudoUnknown),
        (get_and(&[(":", "bar")]), R::NameInvalid),
        (get_and(&[("::path", "/")]), R::NameInvalid),
        (get_and(&[(":Path", "/")]), R::NameInvalid),
        (get_and(&[("x", "y"), (":path", "/")]), R::PseudoAfterField),
        ([&[("x", "y")], GET].concat(), R::PseudoAfterField),
        (get_and(&[(":protocol", "websocket")]), R::ConnectInvalid),
        (get_and(&[("", "y")]), R::NameInvalid),
        (get_and(&[("X", "y")]), R::NameInvalid),
        (get_and(&[("Host", "a.example")]), R::NameInvalid),
        (get_and(&[("Transfer-Encoding", "chunked")]), R::NameInvalid),
        (get_and(&[("x y", "z")]), R::NameInvalid),
        (get_and(&[("x:", "z")]), R::NameInvalid),
        (get_and(&[("x\0", "z")]), R::NameInvalid),
        (get_and(&[("x\r\ny", "z")]), R::NameInvalid),
        (get_and(&[("x\u{e4}", "z")]), R::NameInvalid),
        (get_and(&[("x(", "z")]), R::NameInvalid),
        (get_and(&[("transfer-encoding ", "chunked")]), R::NameInvalid),
        (get_and(&[("x", "a\r\nb: c")]), R::ValueInvalid),
        (get_and(&[("x", "a\nb")]), R::ValueInvalid),
        (get_and(&[("x", "a\rb")]), R::ValueInvalid),
        (get_and(&[("x", "a\0b")]), R::ValueInvalid),
        (get_and(&[("x", "a\x7fb")]), R::ValueInvalid),
        (get_and(&[("x", "a\x01b")]), R::ValueInvalid),
        (get_and(&[("x", " a")]), R::ValueInvalid),
        (get_and(&[("x", "a ")]), R::ValueInvalid),
        (get_and(&[("x", "\ta")]), R::ValueInvalid),
        (get_and(&[("x", "a\t")]), R::ValueInvalid),
        (get_and(&[("x", " ")]), R::ValueInvalid),
        (get_and(&[("connection", "close")]), R::ConnectionField),
        (get_and(&[("connection", "keep-alive")]), R::ConnectionField),
        (get_and(&[("keep-alive", "timeout=5")]), R::ConnectionField),
        (get_and(&[("proxy-connection", "close")]), R::ConnectionField),
        (get_and(&[("transfer-encoding", "chunked")]), R::ConnectionField),
        (get_and(&[("transfer-encoding", "")]), R::ConnectionField),
        (get_and(&[("upgrade", "h2c")]), R::ConnectionField),
        (get_and(&[("http2-settings", "AAA")]), R::ConnectionField),
        (get_and(&[("te", "gzip")]), R::TeInvalid),
        (get_and(&[("te", "trailers, gzip")]), R::TeInvalid),
        (get_and(&[("te", "")]), R::TeInvalid),
        (get_and(&[("content_length", "5")]), R::FramingAlias),
        (get_and(&[("transfer_encoding", "chunked")]), R::FramingAlias),
        (get_and(&[("host", "b.example")]), R::HostMismatch),
        (get_and(&[("host", "a.example:81")]), R::HostMismatch),
        (get_and(&[("host", "a.example"), ("host", "a.example")]), R::HostRepeated),
        (get_and(&[("host", "")]), R::AuthorityInvalid),
        (get_and(&[("host", "a.example, b.example")]), R::AuthorityInvalid),
        (get_and(&[("host", "u@a.example")]), R::AuthorityInvalid),
        (get_and(&[("content-length", "")]), R::ContentLengthInvalid),
        (get_and(&[("content-length", "+5")]), R::ContentLengthInvalid),
        (get_and(&[("content-length", "-1")]), R::ContentLengthInvalid),
        (get_and(&[("content-length", "5, 5")]), R::ContentLengthInvalid),
        (get_and(&[("content-length", "0x5")]), R::ContentLengthInvalid),
        (get_and(&[("content-length", "5 5")]), R::ContentLengthInvalid),
        (get_and(&[("content-length", "9223372036854775808")]), R::ContentLengthInvalid),
        (get_and(&[("content-length", long_number)]), R::ContentLengthInvalid),
        (get_and(&[("content-length", "0"), ("content-length", "0")]), R::ContentLengthRepeated),
        (get_and(&[("content-length", "5"), ("content-length", "6")]), R::ContentLengthRepeated),
        (get_and(&[("content-length", "5")]), R::ContentLengthMismatch),
        (get_and(&[("expect", "100-continue"), ("expect", "100-continue")]), R::ExpectationUnknown),
        (get_and(&[("expect", "a")]), R::ExpectationUnknown),
        ([CONNECT, &[(":path", "/")]].concat(), R::ConnectInvalid),
        ([CONNECT, &[(":scheme", "https")]].concat(), R::ConnectInvalid),
        ([CONNECT, &[("content-length", "0")]].concat(), R::ConnectInvalid),
        (vec![(":method", "CONNECT")], R::AuthorityMissing),
        (vec![(":method", "CONNECT"), ("host", "a.example:443")], R::AuthorityMissing),
        (vec![(":method", "CONNECT"), (":authority", "a.example")], R::ConnectInvalid),
    ];
    for (name, value) in [(":protocol", ""), (":protocol", "a b"), (":protocol", "websocket, h2c")] {
        let lines = WEBSOCKET.iter().map(|line| if line.0 == name { (name, value) } else { *line });
        cases.push((lines.collect(), R::ConnectInvalid));
    }
    for left_out in [":scheme", ":path", ":authority"] {
        let lines = WEBSOCKET.iter().filter(|line| line.0 != left_out).copied();
        let reason = if left_out == ":authority" { R::AuthorityMissing } else { R::PseudoMissing };
        cases.push((lines.collect(), reason));
    }
    for (lines, reason) in cases {
        let mut side = Side::server();
        let mut bytes = Vec::new();
        let mut kind = HEADERS;
        let whole = block(&lines);
        for (n, piece) in whole.chunks(16_000).enumerate() {
            let is_last = (n + 1) * 16_000 >= whole.len();
            let flags = if n == 0 { END_STREAM } else { 0 } | if is_last { END_HEADERS } else { 0 };
            bytes.extend(frame(kind, flags, 1, piece));
            kind = CONTINUATION;
        }
        if whole.is_empty() {
            bytes = headers(1, &[], true);
        }
        assert_eq!(side.ok(&bytes), [Seen::Refused { stream: 1, reason }], "{lines:?}");
        side.connection.send_response(id(1), &ResponseHead::with_status(400), true).unwrap();
        assert_eq!(side.connection.active_streams(), 0);
        assert!(
            matches!(side.ok(&headers(3, GET, true))[..], [Seen::Request { .. }]),
            "the connection goes on"
        );
    }
}

#[test]
fn refused_requests_are_reset_after_their_answer() {
    for (lines, code) in [
        (get_and(&[("X", "y")]), ErrorCode::PROTOCOL_ERROR),
        (get_and(&[("expect", "x")]), ErrorCode::NO_ERROR),
    ] {
        let mut side = Side::server();
        side.ok(&headers(1, &lines, false));
        assert_eq!(side.ok(&frame(DATA, 0, 1, b"content")), []);
        side.connection.send_response(id(1), &ResponseHead::with_status(400), true).unwrap();
        assert_eq!(side.resets(), [(1, code)]);
        assert_eq!(side.ok(&frame(DATA, END_STREAM, 1, b"more")), []);
    }
}

#[test]
fn good_requests_are_handed_out_with_their_framing() {
    let base = |lines: &[(&str, &str)]| owned(lines);
    type Case = (Vec<(&'static str, &'static str)>, bool, Vec<(String, String)>, Content);
    let cases: Vec<Case> = vec![
        (get_and(&[]), true, base(GET), Content::None),
        (get_and(&[]), false, base(GET), Content::Streamed),
        (get_and(&[("content-length", "0")]), true, base(GET), Content::Length(0)),
        (get_and(&[("content-length", "7")]), false, base(GET), Content::Length(7)),
        (get_and(&[("te", "trailers")]), true, base(GET), Content::None),
        (get_and(&[("host", "a.example")]), true, base(GET), Content::None),
        (get_and(&[("host", "A.Example:80")]), true, base(GET), Content::None),
        ([&with(":authority", None)[..], &[("host", "a.example")]].concat(), true, base(GET), Content::None),
        (get_and(&[("x_forwarded_for", "1.2.3.4")]), true, base(GET), Content::None),
        (
            get_and(&[("x_other", "1"), ("x", "a\tb"), ("y", ""), ("z", "ä")]),
            true,
            base(&get_and(&[("x_other", "1"), ("x", "a\tb"), ("y", ""), ("z", "ä")])),
            Content::None,
        ),
        (
            get_and(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")]),
            true,
            base(&get_and(&[("cookie", "a=1; b=2; c=3"), ("x", "y")])),
            Content::None,
        ),
        (
            vec![(":method", "OPTIONS"), (":path", "*"), (":scheme", "HTTPS"), (":authority", "[::1]:8443")],
            true,
            base(&[
                (":method", "OPTIONS"),
                (":scheme", "https"),
                (":authority", "[::1]:8443"),
                (":path", "*"),
            ]),
            Content::None,
        ),
        (
            CONNECT.to_vec(),
            false,
            base(&[
                (":method", "CONNECT"),
                (":scheme", "http"),
                (":authority", "a.example:443"),
                (":path", ""),
            ]),
            Content::None,
        ),
        (
            WEBSOCKET.to_vec(),
            false,
            base(&[
                (":method", "CONNECT"),
                (":scheme", "https"),
                (":authority", "a.example"),
                (":path", "/chat"),
                (":protocol", "websocket"),
            ]),
            Content::None,
        ),
    ];
    for (sent, end_stream, lines, content) in cases {
        let mut side = Side::server();
        let seen = side.ok(&headers(1, &sent, end_stream));
        assert_eq!(seen, [Seen::Request { stream: 1, lines, content, end_stream }], "{sent:?}");
    }
}

#[test]
fn content_has_to_be_as_long_as_announced() {
    let head = [POST, &[("content-length", "5")]].concat();
    let data = |flags, bytes: &[u8]| frame(DATA, flags, 1, bytes);
    let trailers = headers(1, &[("x", "y")], true);
    for (name, frames, is_good) in [
        ("exact", vec![data(END_STREAM, b"12345")], true),
        ("in two", vec![data(0, b"12"), data(END_STREAM, b"345")], true),
        ("end alone", vec![data(0, b"12345"), data(END_STREAM, b"")], true),
        ("padding does not count", vec![data(PADDED | END_STREAM, b"\x0212345\0\0")], true),
        ("with trailers", vec![data(0, b"12345"), trailers.clone()], true),
        ("short", vec![data(END_STREAM, b"1234")], false),
        ("none", vec![data(END_STREAM, b"")], false),
        ("long", vec![data(0, b"123456")], false),
        ("long later", vec![data(0, b"12345"), data(0, b"6")], false),
        ("long at the end", vec![data(END_STREAM, b"123456")], false),
        ("short with trailers", vec![data(0, b"1234"), trailers], false),
    ] {
        let mut side = Side::server();
        side.ok(&headers(1, &head, false));
        let seen = side.ok(&frames.concat());
        let reset = Seen::Reset {
            stream: 1,
            code: ErrorCode::PROTOCOL_ERROR,
            by_peer: false,
            refusal: Some(R::ContentLengthMismatch),
        };
        assert_eq!(seen.last() == Some(&reset), !is_good, "{name}: {seen:?}");
        assert_eq!(side.resets().len(), usize::from(!is_good), "{name}");
        let handed_out: usize =
            seen.iter().map(|s| if let Seen::Data { data, .. } = s { data.len() } else { 0 }).sum();
        assert!(handed_out <= 5, "{name}");
    }
}

#[test]
fn trailers_are_checked_and_what_frames_is_dropped() {
    let head = headers(1, POST, false);
    let refused = |refusal| Seen::Reset {
        stream: 1,
        code: ErrorCode::PROTOCOL_ERROR,
        by_peer: false,
        refusal: Some(refusal),
    };
    for (lines, end_stream, expected) in [
        (&[("grpc-status", "0"), ("x", "y")][..], true, None),
        (&[("x", "y")], false, Some(R::TrailersUnended)),
        (&[(":path", "/")], true, Some(R::PseudoUnknown)),
        (&[(":status", "200")], true, Some(R::PseudoUnknown)),
        (&[("X", "y")], true, Some(R::NameInvalid)),
        (&[("x", "y\r\n")], true, Some(R::ValueInvalid)),
        (&[("connection", "close")], true, Some(R::ConnectionField)),
        (&[("transfer-encoding", "chunked")], true, Some(R::ConnectionField)),
    ] {
        let mut side = Side::server();
        side.ok(&head);
        let seen = side.ok(&headers(1, lines, end_stream));
        let good = Seen::Trailers { stream: 1, lines: owned(lines) };
        assert_eq!(seen, [expected.map_or(good, refused)], "{lines:?}");
    }
    let mut side = Side::server();
    side.ok(&head);
    let dropped =
        [("content-length", "5"), ("host", "b"), ("authorization", "x"), ("cookie", "x"), ("te", "gzip")];
    let lines = [&dropped[..], &[("x", "y")]].concat();
    let seen = side.ok(&headers(1, &lines, true));
    assert_eq!(seen, [Seen::Trailers { stream: 1, lines: owned(&[("x", "y")]) }]);
}

#[test]
fn responses_are_checked() {
    let ok = |content, end_stream, lines: &[(&str, &str)]| Seen::Response {
        stream: 1,
        lines: owned(lines),
        content,
        end_stream,
    };
    let refused = |refusal| Seen::Reset {
        stream: 1,
        code: ErrorCode::PROTOCOL_ERROR,
        by_peer: false,
        refusal: Some(refusal),
    };
    let status = |status: &'static str| vec![(":status", status)];
    let with = |status: &'static str, line| vec![(":status", status), line];
    type Case = (&'static str, Vec<(&'static str, &'static str)>, bool, Seen);
    let cases: Vec<Case> = vec![
        ("GET", status("200"), true, ok(Content::None, true, &status("200"))),
        ("GET", status("200"), false, ok(Content::Streamed, false, &status("200"))),
        ("GET", with("200", ("content-length", "3")), false, ok(Content::Length(3), false, &status("200"))),
        ("HEAD", with("200", ("content-length", "3")), true, ok(Content::None, true, &status("200"))),
        ("HEAD", status("200"), false, ok(Content::None, false, &status("200"))),
        ("GET", with("304", ("content-length", "3")), true, ok(Content::None, true, &status("304"))),
        ("GET", with("204", ("content-length", "0")), true, ok(Content::None, true, &status("204"))),
        ("GET", status("100"), false, ok(Content::None, false, &status("100"))),
        ("GET", with("103", ("link", "x")), false, ok(Content::None, false, &with("103", ("link", "x")))),
        ("GET", with("200", ("host", "x")), true, ok(Content::None, true, &status("200"))),
        ("GET", with("599", ("x", "y")), true, ok(Content::None, true, &with("599", ("x", "y")))),
        ("GET", vec![], true, refused(R::PseudoMissing)),
        ("GET", vec![("x", "y")], true, refused(R::PseudoMissing)),
        ("GET", vec![("x", "y"), (":status", "200")], true, refused(R::PseudoAfterField)),
        ("GET", with("200", (":status", "200")), true, refused(R::PseudoRepeated)),
        ("GET", with("200", (":path", "/")), true, refused(R::PseudoUnknown)),
        ("GET", with("200", (":method", "GET")), true, refused(R::PseudoUnknown)),
        ("GET", status(""), true, refused(R::StatusInvalid)),
        ("GET", status("20"), true, refused(R::StatusInvalid)),
        ("GET", status("2000"), true, refused(R::StatusInvalid)),
        ("GET", status("099"), true, refused(R::StatusInvalid)),
        ("GET", status("600"), true, refused(R::StatusInvalid)),
        ("GET", status("+20"), true, refused(R::StatusInvalid)),
        ("GET", status("2xx"), true, refused(R::StatusInvalid)),
        ("GET", status("101"), false, refused(R::StatusInvalid)),
        ("GET", status("100"), true, refused(R::InterimEndsStream)),
        ("GET", with("200", ("content-length", "3")), true, refused(R::ContentLengthMismatch)),
        ("GET", with("200", ("content-length", "x")), true, refused(R::ContentLengthInvalid)),
        ("GET", with("200", ("connection", "close")), true, refused(R::ConnectionField)),
        ("GET", with("200", ("transfer-encoding", "chunked")), false, refused(R::ConnectionField)),
        ("GET", with("200", ("X", "y")), true, refused(R::NameInvalid)),
        ("GET", with("200", ("x", "a\r\nset-cookie: b")), true, refused(R::ValueInvalid)),
    ];
    for (method, lines, end_stream, expected) in cases {
        let mut side = Side::client();
        side.connection.open(&request(method, "/"), true).unwrap();
        let seen = side.ok(&headers(1, &lines, end_stream));
        assert_eq!(seen, [expected], "{method}: {lines:?}");
    }
}

#[test]
fn responses_without_content_stay_without() {
    let unexpected = |seen: &[Seen]| {
        matches!(
            seen.last(),
            Some(Seen::Reset { refusal: Some(R::ContentUnexpected | R::ContentLengthMismatch), .. })
        )
    };
    for (method, status, data, is_good) in [
        ("HEAD", "200", &b"x"[..], false),
        ("HEAD", "200", b"", true),
        ("GET", "304", b"x", false),
        ("GET", "204", b"x", false),
        ("GET", "204", b"", true),
        ("GET", "200", b"x", true),
    ] {
        let mut side = Side::client();
        side.connection.open(&request(method, "/"), true).unwrap();
        side.ok(&headers(1, &[(":status", status)], false));
        let seen = side.ok(&frame(DATA, END_STREAM, 1, data));
        assert_eq!(!unexpected(&seen), is_good, "{method} {status} {data:?}: {seen:?}");
    }
    // DATA before any head, and after an interim one.
    for first in [None, Some("103")] {
        let mut side = Side::client();
        side.connection.open(&request("GET", "/"), true).unwrap();
        if let Some(status) = first {
            side.ok(&headers(1, &[(":status", status)], false));
        }
        assert!(unexpected(&side.ok(&frame(DATA, 0, 1, b"x"))));
    }
}

/// What we accept by HTTP/2 and write as HTTP/1.1 is one request, and reads as the same request.
#[test]
fn accepted_requests_survive_http1() {
    for lines in [
        get_and(&[("x", "a:b"), ("cookie", "a=1"), ("cookie", "b=2"), ("y", "")]),
        get_and(&[("x_y", "1"), ("te", "trailers"), ("host", "a.example")]),
        [POST, &[("content-length", "0"), ("x", "\u{fc}")]].concat(),
    ] {
        let mut connection = rhumb_codec::h2::Connection::new(rhumb_codec::h2::Config::new(Role::Server));
        let bytes = [rhumb_codec::h2::PREFACE.to_vec(), settings(&[]), headers(1, &lines, true)].concat();
        let mut at = 0;
        let mut head: Option<Box<RequestHead>> = None;
        while at < bytes.len() {
            let received = connection.receive(&bytes[at..], std::time::Instant::now()).unwrap();
            at += received.consumed;
            if let Some(rhumb_codec::h2::Event::Request { head: request, .. }) = received.event {
                head = Some(request);
            }
        }
        let head = head.unwrap();
        let mut out = Vec::new();
        h1::write_request(&head, &mut out);
        let mut again = RequestHead::new();
        let parsed = h1::parse_request(&out, &h1::Limits::default(), head.scheme, &mut again);
        assert_eq!(parsed, Ok(Some(out.len())), "{}", text(&out));
        assert_eq!(again.authority(), head.authority());
        assert_eq!(request_lines(&again), request_lines(&head));
    }
}
