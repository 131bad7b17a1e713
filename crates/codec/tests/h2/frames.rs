//! Frames one by one: sizes, streams and states (RFC 9113 §5.1, §6).

use crate::support::*;
use rhumb_codec::h2::hpack::HpackError;
use rhumb_codec::h2::{Config, ConnectionError as E, ErrorCode, PREFACE, Role};
use rhumb_codec::head::ResponseHead;

/// States of stream 1 as a server sees them; stream 3 and above are idle, 2 is even.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Open,
    HalfClosedLocal,
    HalfClosedRemote,
    /// Both sides have sent END_STREAM.
    Closed,
    /// The client has sent RST_STREAM.
    ResetByClient,
    /// We have sent RST_STREAM.
    ResetByServer,
}

const STATES: [State; 7] = [
    State::Idle,
    State::Open,
    State::HalfClosedLocal,
    State::HalfClosedRemote,
    State::Closed,
    State::ResetByClient,
    State::ResetByServer,
];

fn server_in(state: State) -> Side {
    let mut side = Side::server();
    let answer = |side: &mut Side| {
        side.connection.send_response(id(1), &ResponseHead::with_status(200), true).unwrap();
    };
    match state {
        State::Idle => {}
        State::Open => drop(side.ok(&headers(1, POST, false))),
        State::HalfClosedLocal => {
            side.ok(&headers(1, POST, false));
            answer(&mut side);
        }
        State::HalfClosedRemote => drop(side.ok(&headers(1, GET, true))),
        State::Closed => {
            side.ok(&headers(1, GET, true));
            answer(&mut side);
        }
        State::ResetByClient => {
            side.ok(&headers(1, POST, false));
            side.ok(&rst(1, ErrorCode::CANCEL));
        }
        State::ResetByServer => {
            side.ok(&headers(1, POST, false));
            side.connection.reset(id(1), ErrorCode::CANCEL);
        }
    }
    side.output();
    side
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Fine,
    Stream(ErrorCode),
    Connection(E),
}

/// RFC 9113 §5.1: every frame in every state.
#[test]
fn state_machine() {
    use Outcome::{Connection, Fine, Stream};
    let closed = || Connection(E::ClosedStream);
    let idle = || Connection(E::IdleStream);
    let data = frame(DATA, 0, 1, b"x");
    let trailers = headers(1, &[("x", "y")], true);
    let reset = rst(1, ErrorCode::CANCEL);
    let update = window_update(1, 1);
    let priority = frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]);
    type Row = (&'static str, [Outcome; 7]);
    let stream_closed = || Stream(ErrorCode::STREAM_CLOSED);
    let table: [(Vec<u8>, Row); 5] = [
        (data, ("DATA", [idle(), Fine, Fine, stream_closed(), closed(), closed(), Fine])),
        // A HEADERS frame on an idle stream is a request; these lines are none, which is its stream's problem only.
        (trailers, ("HEADERS", [Fine, Fine, Fine, stream_closed(), closed(), closed(), Fine])),
        (reset, ("RST_STREAM", [idle(), Fine, Fine, Fine, Fine, Fine, Fine])),
        (update, ("WINDOW_UPDATE", [idle(), Fine, Fine, Fine, Fine, Fine, Fine])),
        (priority, ("PRIORITY", [Fine, Fine, Fine, Fine, Fine, Fine, Fine])),
    ];
    for (bytes, (name, outcomes)) in table {
        for (state, expected) in STATES.into_iter().zip(outcomes) {
            let mut side = server_in(state);
            let outcome = match side.feed(&bytes) {
                Err(error) => Connection(error),
                Ok(_) => match side.resets()[..] {
                    [] => Fine,
                    [(1, code)] => Stream(code),
                    ref other => panic!("{other:?}"),
                },
            };
            assert_eq!(outcome, expected, "{name} in {state:?}");
        }
    }
}

#[test]
fn frames_with_wrong_sizes_streams_or_values_end_the_connection() {
    let ping = |stream, payload: &[u8]| frame(PING, 0, stream, payload);
    let setting = |id, value| settings(&[(id, value)]);
    let cases: &[(&str, Vec<u8>, E)] = &[
        ("DATA on 0", frame(DATA, 0, 0, b""), E::StreamId),
        ("DATA on an even stream", frame(DATA, 0, 2, b""), E::IdleStream),
        ("DATA padded, empty", frame(DATA, PADDED, 1, b""), E::FrameSize),
        ("DATA padding as long as the frame", frame(DATA, PADDED, 1, b"\x01"), E::BadPadding),
        ("DATA padding longer", frame(DATA, PADDED, 1, b"\x05abcd"), E::BadPadding),
        ("HEADERS on 0", headers(0, GET, true), E::StreamId),
        ("HEADERS on an even stream", headers(2, GET, true), E::StreamId),
        ("HEADERS padding", frame(HEADERS, PADDED | END_HEADERS, 3, b"\x02\x82"), E::BadPadding),
        ("HEADERS padded, empty", frame(HEADERS, PADDED | END_HEADERS, 3, b""), E::BadPadding),
        ("HEADERS priority cut", frame(HEADERS, WITH_PRIORITY | END_HEADERS, 3, b"\0\0\0\0"), E::FrameSize),
        (
            "HEADERS depending on itself",
            frame(HEADERS, WITH_PRIORITY | END_HEADERS, 3, b"\0\0\0\x03\0\x82"),
            E::SelfDependency,
        ),
        (
            "HEADERS undecodable",
            frame(HEADERS, END_HEADERS, 3, b"\x80"),
            E::Compression(HpackError::InvalidIndex),
        ),
        (
            "HEADERS cut in a field",
            frame(HEADERS, END_HEADERS, 3, b"\x40"),
            E::Compression(HpackError::Truncated),
        ),
        ("PRIORITY on 0", frame(PRIORITY, 0, 0, &[0; 5]), E::StreamId),
        ("PRIORITY short", frame(PRIORITY, 0, 5, &[0; 4]), E::FrameSize),
        ("PRIORITY long", frame(PRIORITY, 0, 5, &[0; 6]), E::FrameSize),
        ("PRIORITY on itself", frame(PRIORITY, 0, 5, &[0, 0, 0, 5, 0]), E::SelfDependency),
        ("PRIORITY on itself, exclusive", frame(PRIORITY, 0, 5, &[0x80, 0, 0, 5, 0]), E::SelfDependency),
        ("RST_STREAM on 0", rst(0, ErrorCode::CANCEL), E::StreamId),
        ("RST_STREAM idle", rst(3, ErrorCode::CANCEL), E::IdleStream),
        ("RST_STREAM even", rst(2, ErrorCode::CANCEL), E::IdleStream),
        ("RST_STREAM short", frame(RST_STREAM, 0, 1, &[0; 3]), E::FrameSize),
        ("RST_STREAM long", frame(RST_STREAM, 0, 1, &[0; 5]), E::FrameSize),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), E::StreamId),
        ("SETTINGS odd size", frame(SETTINGS, 0, 0, &[0; 5]), E::FrameSize),
        ("SETTINGS ack with payload", frame(SETTINGS, ACK, 0, &[0; 6]), E::FrameSize),
        ("ENABLE_PUSH 2", setting(2, 2), E::InvalidSetting),
        ("INITIAL_WINDOW_SIZE 2^31", setting(4, 1 << 31), E::InvalidInitialWindow),
        ("MAX_FRAME_SIZE small", setting(5, 16_383), E::InvalidSetting),
        ("MAX_FRAME_SIZE large", setting(5, 1 << 24), E::InvalidSetting),
        ("ENABLE_CONNECT_PROTOCOL 2", setting(8, 2), E::InvalidSetting),
        ("ENABLE_CONNECT_PROTOCOL taken back", [setting(8, 1), setting(8, 0)].concat(), E::InvalidSetting),
        ("NO_RFC7540_PRIORITIES 2", setting(9, 2), E::InvalidSetting),
        ("PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02\x82"), E::PushPromise),
        ("PING on a stream", ping(1, &[0; 8]), E::StreamId),
        ("PING short", ping(0, &[0; 7]), E::FrameSize),
        ("PING long", ping(0, &[0; 9]), E::FrameSize),
        ("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), E::StreamId),
        ("GOAWAY short", frame(GOAWAY, 0, 0, &[0; 7]), E::FrameSize),
        ("WINDOW_UPDATE short", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), E::FrameSize),
        ("WINDOW_UPDATE zero", window_update(0, 0), E::ZeroIncrement),
        ("WINDOW_UPDATE overflow", window_update(0, (1 << 31) - 1), E::WindowOverflow),
        ("WINDOW_UPDATE idle", window_update(3, 1), E::IdleStream),
        ("CONTINUATION alone", frame(CONTINUATION, END_HEADERS, 1, b""), E::UnexpectedContinuation),
        (
            "CONTINUATION after a complete block",
            [headers(3, GET, true), frame(CONTINUATION, END_HEADERS, 3, b"")].concat(),
            E::UnexpectedContinuation,
        ),
        (
            "CONTINUATION of another stream",
            [frame(HEADERS, 0, 3, b"\x82"), frame(CONTINUATION, END_HEADERS, 5, b"")].concat(),
            E::InterruptedBlock,
        ),
        (
            "PING within a field block",
            [frame(HEADERS, 0, 3, b"\x82"), ping(0, &[0; 8])].concat(),
            E::InterruptedBlock,
        ),
        (
            "DATA within a field block",
            [frame(HEADERS, 0, 3, b"\x82"), frame(DATA, 0, 1, b"x")].concat(),
            E::InterruptedBlock,
        ),
        (
            "unknown frame within a field block",
            [frame(HEADERS, 0, 3, b"\x82"), frame(0x42, 0, 0, b"")].concat(),
            E::InterruptedBlock,
        ),
        ("frame too large", frame(0x42, 0, 0, &[0; 16_385]), E::FrameTooLarge),
        ("DATA too large", frame(DATA, 0, 1, &[0; 16_385]), E::FrameTooLarge),
    ];
    for (name, bytes, error) in cases {
        let mut side = server_in(State::Open);
        assert_eq!(side.feed(bytes), Err(*error), "{name}");
        let out = side.output();
        let last = out.last().unwrap();
        assert_eq!((last.kind, &last.payload[4..8]), (GOAWAY, &error.code().0.to_be_bytes()[..]), "{name}");
        assert_eq!(side.feed(&settings(&[])), Err(*error), "{name}: the error stays");
        assert_eq!(side.connection.active_streams(), 0);
    }
}

#[test]
fn a_frame_is_refused_by_its_header_alone() {
    let mut side = Side::server();
    assert_eq!(side.feed(&frame(HEADERS, 0, 1, &[0; 16_385])[..9]), Err(E::FrameTooLarge));
}

#[test]
fn what_is_wrong_with_one_stream_resets_it() {
    for (bytes, code) in [
        (frame(PRIORITY, 0, 1, &[0; 4]), ErrorCode::FRAME_SIZE_ERROR),
        (frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]), ErrorCode::PROTOCOL_ERROR),
        (window_update(1, 0), ErrorCode::PROTOCOL_ERROR),
        (window_update(1, (1 << 31) - 1), ErrorCode::FLOW_CONTROL_ERROR),
    ] {
        let mut side = server_in(State::Open);
        let seen = side.ok(&bytes);
        assert_eq!(seen, [Seen::Reset { stream: 1, code, by_peer: false, refusal: None }]);
        assert_eq!(side.resets(), [(1, code)]);
    }
}

#[test]
fn the_preface_is_checked_byte_by_byte_and_settings_come_first() {
    for (bytes, error) in [
        (&b"GET / HTTP/1.1\r\n"[..], E::BadPreface),
        (b"PRI * HTTP/2.0\r\n\r\nXX", E::BadPreface),
        (b"PRJ", E::BadPreface),
    ] {
        assert_eq!(Side::new(Config::new(Role::Server)).feed(bytes), Err(error));
    }
    for first in
        [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, ACK, 0, &[]), headers(1, GET, true), window_update(0, 1)]
    {
        let mut server = Side::new(Config::new(Role::Server));
        let bytes = [PREFACE, &first[..]].concat();
        assert_eq!(server.feed(&bytes), Err(E::SettingsExpected));
        assert_eq!(Side::new(Config::new(Role::Client)).feed(&first), Err(E::SettingsExpected));
    }
}

#[test]
fn client_refuses_what_only_clients_do() {
    for (name, bytes, error) in [
        ("push", frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02\x82"), E::PushPromise),
        ("pushed response", headers(2, &[(":status", "200")], true), E::IdleStream),
        ("response without request", headers(3, &[(":status", "200")], true), E::IdleStream),
        ("ENABLE_PUSH 1", settings(&[(2, 1)]), E::InvalidSetting),
    ] {
        let mut side = Side::client();
        side.connection.open(&request("GET", "/"), true).unwrap();
        assert_eq!(side.feed(&bytes), Err(error), "{name}");
    }
}

#[test]
fn settings_and_pings_are_answered_and_unknown_frames_ignored() {
    let mut side = Side::server();
    assert_eq!(side.ok(&settings(&[(0x99, 7), (4, 100_000)])), [Seen::Settings]);
    assert_eq!(side.ok(&frame(PING, 0, 0, b"12345678")), []);
    assert_eq!(side.ok(&frame(0x42, 0xff, 77, b"whatever")), []);
    assert_eq!(side.ok(&frame(PING, ACK, 0, b"abcdefgh")), [Seen::Pong(*b"abcdefgh")]);
    let out = side.output();
    assert_eq!(out.len(), 2);
    assert_eq!((out[0].kind, out[0].flags), (SETTINGS, ACK));
    assert_eq!((out[1].kind, out[1].flags, &out[1].payload[..]), (PING, ACK, &b"12345678"[..]));
}

#[test]
fn padding_and_priority_are_left_out_of_what_is_handed_out() {
    let mut side = Side::server();
    let mut payload = vec![3, 0, 0, 0, 0, 200];
    payload.extend(block(POST));
    payload.extend([0; 3]);
    let seen = side.ok(&frame(HEADERS, PADDED | WITH_PRIORITY | END_HEADERS, 1, &payload));
    assert!(matches!(&seen[..], [Seen::Request { lines, .. }] if *lines == owned(POST)), "{seen:?}");
    let seen = side.ok(&frame(DATA, PADDED | END_STREAM, 1, b"\x02abc\0\0"));
    assert_eq!(seen, [Seen::Data { stream: 1, data: b"abc".to_vec(), flow: 6, end_stream: true }]);
}

#[test]
fn field_blocks_continue_over_frames() {
    let mut side = Side::server();
    let whole = block(GET);
    let (a, b) = whole.split_at(7);
    let (b, c) = b.split_at(20);
    side.ok(&frame(HEADERS, END_STREAM, 1, a));
    side.ok(&frame(CONTINUATION, 0, 1, b));
    let seen = side.ok(&frame(CONTINUATION, END_HEADERS, 1, c));
    assert!(
        matches!(&seen[..], [Seen::Request { stream: 1, lines, end_stream: true, .. }] if *lines == owned(GET))
    );
}

#[test]
fn requests_beyond_the_limit_are_refused_and_leave_the_connection_usable() {
    let mut config = Config::new(Role::Server);
    config.max_concurrent_streams = 2;
    let mut side = Side::server_with(config);
    for stream in [1, 3, 5] {
        side.ok(&headers(stream, POST, false));
    }
    assert_eq!(side.resets(), [(5, ErrorCode::REFUSED_STREAM)]);
    assert_eq!(side.connection.active_streams(), 2);
    assert_eq!(side.ok(&frame(DATA, END_STREAM, 5, b"late")), []);
    side.connection.send_response(id(1), &ResponseHead::with_status(200), true).unwrap();
    side.ok(&frame(DATA, END_STREAM, 1, b""));
    assert!(matches!(side.ok(&headers(7, GET, true))[..], [Seen::Request { stream: 7, .. }]));
    assert_eq!(side.connection.counters().streams_refused, 1);
}

#[test]
fn graceful_go_away_serves_what_crosses_it() {
    let mut side = Side::server();
    side.ok(&headers(1, GET, true));
    side.connection.go_away(ErrorCode::NO_ERROR, true);
    let out = side.output();
    assert_eq!((out[0].kind, &out[0].payload[..4]), (GOAWAY, &[0x7f, 0xff, 0xff, 0xff][..]));
    assert_eq!(out[1].kind, PING);
    assert!(matches!(side.ok(&headers(3, GET, true))[..], [Seen::Request { stream: 3, .. }]));
    assert_eq!(side.ok(&frame(PING, ACK, 0, &out[1].payload)), []);
    let last = side.output();
    assert_eq!((last[0].kind, &last[0].payload[..4]), (GOAWAY, &[0, 0, 0, 3][..]));
    // What comes later is ignored, frames on it as well.
    assert_eq!(side.ok(&headers(5, POST, false)), []);
    assert_eq!(side.ok(&frame(DATA, END_STREAM, 5, b"x")), []);
    assert!(!side.connection.is_drained());
    for stream in [1, 3] {
        side.connection.send_response(id(stream), &ResponseHead::with_status(204), true).unwrap();
    }
    assert!(!side.connection.is_drained());
    side.output();
    assert!(side.connection.is_drained());
}

#[test]
fn streams_that_a_go_away_excludes_are_gone() {
    let mut side = Side::client();
    for _ in 0..3 {
        side.connection.open(&request("GET", "/"), true).unwrap();
    }
    let seen = side.ok(&frame(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0, b'b', b'y', b'e']));
    assert_eq!(seen, [Seen::GoAway { last_stream: 3, code: ErrorCode::NO_ERROR }]);
    assert_eq!(side.connection.active_streams(), 2);
    assert!(!side.connection.can_open() && !side.connection.is_open(id(5)));
    assert!(matches!(
        side.ok(&headers(3, &[(":status", "200")], true))[..],
        [Seen::Response { stream: 3, .. }]
    ));
    side.ok(&headers(1, &[(":status", "200")], true));
    side.output();
    assert!(side.connection.is_drained());
}

#[test]
fn settings_have_to_be_acknowledged_in_time() {
    let mut side = Side::new(Config::new(Role::Client));
    let deadline = side.connection.poll_timeout(side.now).unwrap().unwrap();
    assert_eq!(side.connection.poll_timeout(deadline), Err(E::SettingsTimeout));
    assert!(side.output().iter().any(|f| f.kind == GOAWAY));
    let mut side = Side::client();
    assert_eq!(side.connection.poll_timeout(side.now), Ok(None));
}
