//! Attacks that cost the attacker less than us (RFC 9113 §10.5): each ends the connection with ENHANCE_YOUR_CALM,
//! within bounded memory, and normal traffic of the same kind does not.

use crate::support::*;
use rhumb_codec::h2::{Abuse, Config, ConnectionError, ErrorCode, Limits, Refusal, Role};
use rhumb_codec::head::ResponseHead;

/// Sends `frames(n)` until the connection ends; how many were accepted.
fn flood(
    side: &mut Side,
    most: u32,
    mut frames: impl FnMut(u32) -> Vec<u8>,
) -> (u32, Option<ConnectionError>) {
    for n in 0..most {
        match side.feed(&frames(n)) {
            Ok(_) => {
                // A peer that does read.
                side.bytes();
            }
            Err(error) => return (n, Some(error)),
        }
    }
    (most, None)
}

#[test]
fn floods_end_the_connection() {
    let limits = Limits::default();
    let ended = |abuse| Some(ConnectionError::Abuse(abuse));
    let open = |n: u32| 2 * n + 1;
    type Flood = (&'static str, Abuse, u32, Box<dyn Fn(u32) -> Vec<u8>>);
    let floods: Vec<Flood> = vec![
        (
            "rapid reset, CVE-2023-44487",
            Abuse::Resets,
            limits.resets.burst,
            Box::new(move |n| [headers(open(n), GET, true), rst(open(n), ErrorCode::CANCEL)].concat()),
        ),
        (
            "MadeYouReset by zero WINDOW_UPDATE, CVE-2025-8671",
            Abuse::Resets,
            limits.resets.burst,
            Box::new(move |n| [headers(open(n), GET, true), window_update(open(n), 0)].concat()),
        ),
        (
            "MadeYouReset by window overflow",
            Abuse::Resets,
            limits.resets.burst,
            Box::new(move |n| [headers(open(n), GET, true), window_update(open(n), (1 << 31) - 1)].concat()),
        ),
        (
            "MadeYouReset by DATA after END_STREAM",
            Abuse::Resets,
            limits.resets.burst,
            Box::new(move |n| [headers(open(n), GET, true), frame(DATA, 0, open(n), b"x")].concat()),
        ),
        (
            "MadeYouReset by more content than announced",
            Abuse::Resets,
            limits.resets.burst,
            Box::new(move |n| {
                let lines = [POST, &[("content-length", "1")]].concat();
                [headers(open(n), &lines, false), frame(DATA, 0, open(n), b"xx")].concat()
            }),
        ),
        (
            "MadeYouReset by self-dependency",
            Abuse::Resets,
            limits.resets.burst,
            Box::new(move |n| {
                let itself = [&open(n).to_be_bytes()[..], &[16]].concat();
                [headers(open(n), GET, true), frame(PRIORITY, 0, open(n), &itself)].concat()
            }),
        ),
        (
            "MadeYouReset by HEADERS after END_STREAM",
            Abuse::Resets,
            limits.resets.burst,
            Box::new(move |n| [headers(open(n), GET, true), headers(open(n), GET, true)].concat()),
        ),
        (
            "malformed requests",
            Abuse::Resets,
            limits.resets.burst,
            Box::new(move |n| [headers(open(n), &[], true), rst(open(n), ErrorCode::CANCEL)].concat()),
        ),
        ("PING, CVE-2019-9512", Abuse::Pings, limits.pings.burst, Box::new(|_| frame(PING, 0, 0, &[0; 8]))),
        (
            "SETTINGS, CVE-2019-9515",
            Abuse::Settings,
            // The first one was spent on the greeting.
            limits.settings.burst - 1,
            Box::new(|_| settings(&[])),
        ),
        (
            "SETTINGS acknowledgements",
            Abuse::Settings,
            limits.settings.burst - 1,
            Box::new(|_| frame(SETTINGS, ACK, 0, &[])),
        ),
        (
            "empty DATA, CVE-2019-9518",
            Abuse::EmptyFrames,
            limits.empty_frames.burst,
            Box::new(|n| {
                let head = if n == 0 { headers(1, POST, false) } else { Vec::new() };
                [head, frame(DATA, 0, 1, b"")].concat()
            }),
        ),
        (
            "DATA of padding only",
            Abuse::EmptyFrames,
            limits.empty_frames.burst,
            Box::new(|n| {
                let head = if n == 0 { headers(1, POST, false) } else { Vec::new() };
                [head, frame(DATA, PADDED, 1, b"\x03\0\0\0")].concat()
            }),
        ),
        (
            "WINDOW_UPDATE",
            Abuse::WindowUpdates,
            limits.window_updates.burst,
            Box::new(|_| window_update(0, 1)),
        ),
        (
            "PRIORITY, CVE-2019-9513",
            Abuse::Priorities,
            limits.priorities.burst,
            Box::new(|n| frame(PRIORITY, 0, 2 * n + 1, &[0; 5])),
        ),
        (
            "unknown frames",
            Abuse::UselessFrames,
            limits.useless_frames.burst,
            Box::new(|_| frame(0x42, 0, 0, b"")),
        ),
        (
            "GOAWAY",
            Abuse::UselessFrames,
            limits.useless_frames.burst,
            Box::new(|_| frame(GOAWAY, 0, 0, &[0; 8])),
        ),
        (
            "RST_STREAM of a stream that has ended",
            Abuse::UselessFrames,
            limits.useless_frames.burst,
            Box::new(|n| {
                let head = if n == 0 { headers(1, GET, true) } else { Vec::new() };
                [head, rst(1, ErrorCode::CANCEL)].concat()
            }),
        ),
        (
            "CONTINUATION, CVE-2024-27316",
            Abuse::Continuations,
            limits.continuations + 1,
            Box::new(|n| if n == 0 { frame(HEADERS, 0, 1, b"") } else { frame(CONTINUATION, 0, 1, b"") }),
        ),
        (
            "CONTINUATION with much in it",
            Abuse::FieldBlock,
            limits.field_block / 16_384,
            Box::new(|n| {
                let kind = if n == 0 { HEADERS } else { CONTINUATION };
                frame(kind, 0, 1, &[0x82; 16_384])
            }),
        ),
    ];
    for (name, abuse, accepted, frames) in floods {
        let mut side = Side::server();
        let (n, error) = flood(&mut side, 10_000, frames);
        assert_eq!(error, ended(abuse), "{name}");
        assert!((accepted.saturating_sub(1)..=accepted + 1).contains(&n), "{name}: {n}");
        let go_away = side.output().pop().unwrap();
        assert_eq!((go_away.kind, &go_away.payload[4..8]), (GOAWAY, &[0, 0, 0, 0xb][..]), "{name}");
        let bytes = side.connection.capacity_bytes();
        assert!(bytes < 256 << 10, "{name}: {bytes}");
    }
}

#[test]
fn what_a_slow_or_busy_client_does_is_no_attack() {
    // Resets paid for by requests that were answered.
    let mut side = Side::server();
    for n in 0..5000 {
        let (served, given_up) = (4 * n + 1, 4 * n + 3);
        side.ok(&[headers(served, GET, true), headers(given_up, GET, true)].concat());
        side.connection.send_response(id(served), &ResponseHead::with_status(200), true).unwrap();
        side.ok(&rst(given_up, ErrorCode::CANCEL));
        side.bytes();
    }
    // Downloads that are given up.
    let mut side = Side::server();
    for n in 0..5000 {
        side.ok(&headers(2 * n + 1, GET, true));
        side.connection.send_response(id(2 * n + 1), &ResponseHead::with_status(200), false).unwrap();
        side.ok(&rst(2 * n + 1, ErrorCode::CANCEL));
        side.bytes();
    }
    // A WINDOW_UPDATE for each of stream and connection, and a PING, per DATA frame that we send.
    let mut side = Side::server();
    side.ok(&headers(1, GET, true));
    side.connection.send_response(id(1), &ResponseHead::with_status(200), false).unwrap();
    for _ in 0..5000 {
        assert_eq!(side.connection.send_data(id(1), &[0; 1000], false), Ok(1000));
        side.ok(&[window_update(0, 1000), window_update(1, 1000), frame(PING, 0, 0, &[0; 8])].concat());
        side.bytes();
    }
    // An upload to a server that opens its windows every 4 KiB.
    let mut side = Side::client();
    side.ok(&settings(&[(4, 1 << 24)]));
    side.ok(&window_update(0, 1 << 24));
    let stream = side.connection.open(&request("POST", "/"), false).unwrap();
    let content = vec![0; 200 << 10];
    for _ in 0..100 {
        assert_eq!(side.connection.send_data(stream, &content, false), Ok(content.len()));
        for _ in 0..50 {
            side.ok(&[window_update(0, 4096), window_update(stream.get(), 4096)].concat());
        }
        side.bytes();
    }
    // Requests that are given other priorities (RFC 9218).
    let mut side = Side::server();
    for n in 0..5000 {
        let update = frame(0x10, 0, 0, &[&(2 * n + 1u32).to_be_bytes()[..], b"u=1"].concat());
        side.ok(&[headers(2 * n + 1, GET, true), update.clone(), update].concat());
        side.connection.send_response(id(2 * n + 1), &ResponseHead::with_status(200), true).unwrap();
        side.bytes();
    }
    // Pings, slowly.
    let mut side = Side::server();
    for _ in 0..1000 {
        side.ok(&[frame(PING, 0, 0, &[0; 8]), settings(&[])].concat());
        side.bytes();
        side.wait(1);
    }
}

#[test]
fn replies_do_not_pile_up_for_a_peer_that_does_not_read() {
    let mut config = Config::new(Role::Server);
    config.limits.pings.burst = u32::MAX;
    config.limits.resets.burst = u32::MAX;
    config.limits.window_updates.burst = u32::MAX;
    let limit = config.limits.output as usize;
    for attack in [0, 1] {
        let mut side = Side::server_with(config.clone());
        let error = (0..200_000).find_map(|n| {
            side.feed(&match attack {
                0 => frame(PING, 0, 0, &[0; 8]),
                _ => [headers(2 * n + 1, GET, true), window_update(2 * n + 1, 0)].concat(),
            })
            .err()
        });
        assert_eq!(error, Some(ConnectionError::Abuse(Abuse::Output)));
        let waiting = side.connection.output().len();
        assert!((limit..limit + 100).contains(&waiting), "{waiting}");
    }
}

#[test]
fn large_sections_are_refused_and_bombs_end_the_connection() {
    let mut side = Side::server();
    // 65 fields of 1 KiB: 431, the table stays in step.
    let mut bomb = block(GET);
    bomb.extend([0x40, 3, b'x', b'-', b'a', 0x7f, 0x81, 7]); // 1024
    bomb.extend([b'v'; 1024]);
    bomb.extend([0xbe; 64]);
    let seen = side.ok(&frame(HEADERS, END_HEADERS, 1, &bomb));
    assert_eq!(seen, [Seen::Refused { stream: 1, reason: Refusal::TooLarge }]);
    assert_eq!(side.ok(&frame(DATA, 0, 1, &[0; 100])), [], "content is discarded");
    side.connection.send_response(id(1), &ResponseHead::with_status(431), true).unwrap();
    assert_eq!(side.resets(), [(1, ErrorCode::NO_ERROR)]);
    assert_eq!(side.connection.active_streams(), 0);
    let mut good = block(GET);
    good.push(0xbe);
    let seen = side.ok(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &good));
    assert!(matches!(&seen[..], [Seen::Request { lines, .. }] if lines.last().unwrap().1.len() == 1024));
    // The same 300 times.
    let mut bomb = block(GET);
    bomb.extend([0xbe; 300]);
    let error = side.feed(&frame(HEADERS, END_HEADERS, 5, &bomb));
    assert_eq!(error, Err(ConnectionError::Abuse(Abuse::FieldSection)));

    // Many small fields.
    let mut side = Side::server();
    let mut many = block(GET);
    for _ in 0..200 {
        many.extend(block(&[("a", "")]));
    }
    let seen = side.ok(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &many));
    assert_eq!(seen, [Seen::Refused { stream: 1, reason: Refusal::TooManyFields }]);
}

#[test]
fn a_hostile_backend_is_measured_as_well() {
    let mut side = Side::client();
    side.connection.open(&request("GET", "/"), true).unwrap();
    let (_, error) = flood(&mut side, 10_000, |_| frame(PING, 0, 0, &[0; 8]));
    assert_eq!(error, Some(ConnectionError::Abuse(Abuse::Pings)));
    let mut side = Side::client();
    side.connection.open(&request("GET", "/"), true).unwrap();
    let mut lines = vec![(":status", "200")];
    let value = "v".repeat(5000);
    lines.extend([("x", &value[..]); 3]);
    let mut block_bytes = block(&lines);
    block_bytes.extend([0x40, 1, b'y', 0x7f, 0xb1, 0x1d]); // 3888
    block_bytes.extend([b'v'; 3888]);
    let mut side_frames = frame(HEADERS, 0, 1, &block_bytes[..16_384]);
    let mut rest = block_bytes[16_384..].to_vec();
    rest.extend([0xbe; 20]);
    side_frames.extend(frame(CONTINUATION, END_HEADERS, 1, &rest));
    let seen = side.ok(&side_frames);
    let reset = Seen::Reset {
        stream: 1,
        code: ErrorCode::PROTOCOL_ERROR,
        by_peer: false,
        refusal: Some(Refusal::TooLarge),
    };
    assert_eq!(seen, [reset]);
}
