//! More of something than an honest client sends. Each must end with GOAWAY ENHANCE_YOUR_CALM (RFC 9113 §10.5), or
//! be served within bounds.

use super::{GROWTH, Scene};
use rhumb_testkit::config::Config;
use rhumb_testkit::h2::{self, Connection, END_HEADERS, End, code, kind};
use rhumb_testkit::process::Rhumb;
use rhumb_testkit::{hpack, port, wait};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

/// Frames of each flood: far beyond any budget that an honest client needs.
const FRAMES: u32 = 40_000;
const BATCH: u32 = 200;

/// How a flood ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// With GOAWAY of this code, or without one.
    Closed(Option<u32>),
    /// All frames were taken.
    Survived,
}

/// Sends frames in batches until they are all sent or the proxy has had enough.
fn flood(connection: &mut Connection, mut frame: impl FnMut(u32) -> Vec<u8>) -> Ended {
    for batch in 0..FRAMES / BATCH {
        let bytes: Vec<u8> = (0..BATCH).flat_map(|at| frame(batch * BATCH + at)).collect();
        let sent = connection.try_send(&bytes);
        let mut code = None;
        loop {
            // After a failed write everything that came before the end is read.
            let limit = if sent.is_ok() { Duration::from_millis(1) } else { wait::LIMIT };
            match connection.frame_within(limit) {
                Ok(frame) if frame.kind == kind::GOAWAY => code = frame.code(),
                Ok(_) => {}
                Err(End::Closed) => return Ended::Closed(code),
                Err(End::Silence) if code.is_some() => return Ended::Closed(code),
                Err(End::Silence) => break,
            }
        }
    }
    Ended::Survived
}

#[test]
fn floods_are_ended_and_cost_others_nothing() {
    let stream = |at: u32| 1 + 2 * at;
    let get = |path: &str| h2::get("a.test", path, &[]);
    type Frames<'a> = Box<dyn FnMut(u32) -> Vec<u8> + 'a>;
    let table: Vec<(&str, Vec<u8>, Frames<'_>)> = vec![
        // CVE-2023-44487.
        (
            "rapid reset",
            vec![],
            Box::new(|at| {
                [h2::headers(stream(at), &get("/hold/never"), true), h2::reset(stream(at), code::CANCEL)]
                    .concat()
            }),
        ),
        // CVE-2025-8671, "MadeYouReset": the client makes the server reset.
        (
            "window update of 0",
            vec![],
            Box::new(|at| {
                [h2::headers(stream(at), &get("/hold/never"), true), h2::window(stream(at), 0)].concat()
            }),
        ),
        (
            "window overflow",
            vec![],
            Box::new(|at| {
                [h2::headers(stream(at), &get("/hold/never"), true), h2::window(stream(at), 0x7fff_ffff)]
                    .concat()
            }),
        ),
        (
            "data after the end",
            vec![],
            Box::new(|at| {
                [h2::headers(stream(at), &get("/hold/never"), true), h2::data(stream(at), b"x", true)]
                    .concat()
            }),
        ),
        (
            "headers after the end",
            vec![],
            Box::new(|at| {
                [
                    h2::headers(stream(at), &get("/hold/never"), true),
                    h2::headers(stream(at), &get("/x"), true),
                ]
                .concat()
            }),
        ),
        (
            "self-dependency",
            vec![],
            Box::new(|at| {
                [
                    h2::headers(stream(at), &get("/hold/never"), true),
                    h2::frame(
                        kind::PRIORITY,
                        0,
                        stream(at),
                        &[&stream(at).to_be_bytes()[..], &[16]].concat(),
                    ),
                ]
                .concat()
            }),
        ),
        (
            "content beyond Content-Length",
            vec![],
            Box::new(|at| {
                [
                    h2::headers(
                        stream(at),
                        &h2::request("POST", "a.test", "/hold/never", &[("content-length", "1")]),
                        false,
                    ),
                    h2::data(stream(at), b"xx", false),
                ]
                .concat()
            }),
        ),
        (
            "malformed requests",
            vec![],
            Box::new(|at| h2::headers(stream(at), &h2::get("a.test", "/x", &[("Upper", "x")]), true)),
        ),
        ("PING", vec![], Box::new(|at| h2::ping(u64::from(at)))),
        ("SETTINGS", vec![], Box::new(|_| h2::settings(&[]))),
        (
            "SETTINGS that change windows",
            h2::headers(1, &get("/hold/never"), true),
            Box::new(|at| h2::settings(&[(4, 65_535 + at % 2)])),
        ),
        ("SETTINGS acks", vec![], Box::new(|_| h2::frame(kind::SETTINGS, h2::ACK, 0, &[]))),
        (
            "empty DATA",
            h2::headers(1, &h2::request("POST", "a.test", "/x", &[]), false),
            Box::new(|_| h2::data(1, b"", false)),
        ),
        (
            "padded empty DATA",
            h2::headers(1, &h2::request("POST", "a.test", "/x", &[]), false),
            Box::new(|_| h2::frame(kind::DATA, h2::PADDED, 1, &[0])),
        ),
        ("window updates of 1", vec![], Box::new(|_| h2::window(0, 1))),
        ("PRIORITY", vec![], Box::new(|at| h2::frame(kind::PRIORITY, 0, stream(at), &[0, 0, 0, 0, 16]))),
        ("unknown frames", vec![], Box::new(|_| h2::frame(0xbe, 0, 0, b""))),
        (
            "resets of a finished stream",
            h2::headers(1, &get("/bytes/1"), true),
            Box::new(|_| h2::reset(1, code::CANCEL)),
        ),
        // CVE-2024-27316 and relatives.
        (
            "CONTINUATION",
            h2::frame(kind::HEADERS, 0, 1, &get("/x")),
            Box::new(|at| h2::frame(kind::CONTINUATION, 0, 1, &hpack::encode(&[(format!("x-{at}"), "y")]))),
        ),
        (
            "empty CONTINUATION",
            h2::frame(kind::HEADERS, 0, 1, &get("/x")),
            Box::new(|_| h2::frame(kind::CONTINUATION, 0, 1, b"")),
        ),
    ];
    let mut scene = Scene::new();
    let mut wrong = Vec::new();
    for (name, first, frames) in table {
        let mut connection = scene.connect();
        connection.send(&first);
        let ended = flood(&mut connection, frames);
        let expected = match name {
            // A second ending of a stream is an error of the connection (§5.1) that may be called by its own name.
            "data after the end" | "headers after the end" => {
                &[code::STREAM_CLOSED, code::PROTOCOL_ERROR, code::ENHANCE_YOUR_CALM][..]
            }
            // An acknowledgement that nobody waits for, and what RFC 7540 forbade, may be called an error at once.
            "SETTINGS acks" | "self-dependency" => &[code::PROTOCOL_ERROR, code::ENHANCE_YOUR_CALM],
            _ => &[code::ENHANCE_YOUR_CALM],
        };
        if !matches!(ended, Ended::Closed(Some(code)) if expected.contains(&code)) {
            wrong.push(format!("{name}: {ended:?}, expected GOAWAY with one of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.check();
}

#[test]
fn a_hundred_header_bombs_leave_no_trace() {
    let mut scene = Scene::new();
    scene.backend.forget();
    // One entry that nearly fills the dynamic table, then as many references as a frame takes: 16 KiB become 60 MiB.
    let mut first = h2::get("a.test", "/bomb", &[]);
    hpack::literal(&mut first, hpack::Form::Indexed, b"a", &[b'x'; 4000]);
    let bomb: Vec<u8> = [h2::get("a.test", "/bomb", &[]), vec![0x80 | 62; 15_000]].concat();
    for _ in 0..5 {
        let mut connection = scene.connect();
        for at in 0..20 {
            let block = if at == 0 { [&first[..], &vec![0x80 | 62; 11_000]].concat() } else { bomb.clone() };
            if connection.try_send(&h2::headers(1 + 2 * at, &block, true)).is_err() {
                break;
            }
            match connection.answer(1 + 2 * at) {
                Ok(answer) => assert!(answer.status == 431 || answer.reset.is_some(), "{answer:?}"),
                Err(_) => break,
            }
        }
    }
    assert!(scene.backend.seen().iter().all(|seen| seen.message.target() != "/bomb"));
    scene.check();
}

#[test]
fn a_client_that_opens_no_window_holds_only_a_bounded_amount() {
    let mut scene = Scene::new();
    let mut connection = Connection::open(scene.proxy, &[(4, 0)]);
    for at in 0..100 {
        connection.send(&h2::headers(1 + 2 * at, &h2::get("a.test", "/bytes/20000000", &[]), true));
    }
    // Every answer has begun, and none goes on.
    let mut begun = 0;
    while let Ok(frame) = connection.frame_within(Duration::from_secs(2)) {
        begun += usize::from(frame.kind == kind::HEADERS);
        assert!(frame.kind != kind::DATA || frame.payload.is_empty(), "{frame:?}");
    }
    assert!(begun > 0);
    scene.check();
}

#[test]
fn a_client_that_reads_nothing_holds_only_a_bounded_amount() {
    let mut scene = Scene::new();
    let connections: Vec<Connection> = (0..5)
        .map(|_| {
            let mut connection = Connection::open(scene.proxy, &[(4, 0x7fff_ffff)]);
            connection.send(&h2::window(0, 0x7fff_0000));
            for at in 0..100 {
                connection.send(&h2::headers(1 + 2 * at, &h2::get("a.test", "/bytes/20000000", &[]), true));
            }
            connection
        })
        .collect();
    wait::until("the answers begin", || {
        (scene.backend.seen().iter().filter(|seen| seen.message.target() == "/bytes/20000000").count() >= 100)
            .then_some(())
    });
    scene.check();
    drop(connections);
}

#[test]
fn requests_beyond_the_announced_number_are_refused_one_by_one() {
    let mut scene = Scene::new();
    let mut connection = scene.connect();
    let settings = connection.frame().expect("SETTINGS");
    let limit = settings
        .payload
        .chunks_exact(6)
        .find(|one| one[..2] == [0, 3])
        .map(|one| u32::from_be_bytes([one[2], one[3], one[4], one[5]]));
    let limit = limit.expect("SETTINGS_MAX_CONCURRENT_STREAMS is announced");
    assert!((1..=1000).contains(&limit), "{limit}");
    let block = h2::get("a.test", "/hold/never", &[]);
    // What a client may send before it has seen the SETTINGS must not end the connection.
    for at in 0..=limit {
        connection.send(&h2::headers(1 + 2 * at, &block, true));
    }
    let answer = connection.answer(1 + 2 * limit).expect("a reset, not the end");
    assert_eq!(answer.reset, Some(code::REFUSED_STREAM));
    scene.check();
}

#[test]
fn content_beyond_the_window_is_an_error() {
    // A backend that never reads: what the proxy takes for it stays in buffers.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listening socket");
    let port = port::free();
    let mut rhumb =
        Rhumb::start(&Config::simple(port, silent.local_addr().expect("a bound socket")).top("workers: 1"));
    let before = rhumb.program().rss();
    let mut connection = Connection::open((Ipv4Addr::LOCALHOST, port).into(), &[]);
    connection.send(&h2::headers(1, &h2::request("POST", "a.test", "/x", &[]), false));
    let piece = h2::data(1, &[0; 16_384], false).repeat(64);
    let mut codes = Vec::new();
    for _ in 0..64 {
        let sent = connection.try_send(&piece);
        while let Ok(frame) = connection.frame_within(Duration::from_millis(1)) {
            codes.extend(frame.code());
        }
        if sent.is_err() || !codes.is_empty() {
            break;
        }
    }
    assert!(codes.contains(&code::FLOW_CONTROL_ERROR), "{codes:?}");
    assert!(rhumb.program().rss().saturating_sub(before) < GROWTH);
}

#[test]
fn a_head_in_many_pieces_is_served_when_it_ends() {
    let mut scene = Scene::new();
    let mut connection = scene.connect();
    let block = h2::get("a.test", "/bytes/3", &[("x-a", "1"), ("x-b", "2")]);
    let (first, rest) = block.split_at(5);
    let mut bytes = h2::frame(kind::HEADERS, h2::END_STREAM, 1, first);
    let mut pieces = rest.chunks(20).peekable();
    while let Some(piece) = pieces.next() {
        bytes.extend(h2::frame(
            kind::CONTINUATION,
            if pieces.peek().is_none() { END_HEADERS } else { 0 },
            1,
            piece,
        ));
    }
    connection.send(&bytes);
    assert_eq!(connection.answer(1).expect("an answer").status, 200);
    scene.check();
}
