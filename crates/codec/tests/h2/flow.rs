//! Flow control, both ways (RFC 9113 §5.2, §6.9).

use crate::support::*;
use rhumb_codec::h2::{Config, ConnectionError, ErrorCode, OUTPUT_HIGH_WATER, Role, StreamId};
use rhumb_codec::head::ResponseHead;

/// A server with open responses on the first `n` streams, and the client's settings as given.
fn responding(n: u32, list: &[(u16, u32)]) -> (Side, Vec<StreamId>) {
    let mut side = Side::server();
    side.ok(&settings(list));
    let streams: Vec<StreamId> = (0..n).map(|n| id(2 * n + 1)).collect();
    for stream in &streams {
        side.ok(&headers(stream.get(), GET, true));
        side.connection.send_response(*stream, &ResponseHead::with_status(200), false).unwrap();
    }
    side.output();
    (side, streams)
}

/// Content sent per stream, and the largest frame.
fn sent(frames: &[Frame], stream: StreamId) -> usize {
    frames.iter().filter(|f| f.kind == DATA && f.stream == stream.get()).map(|f| f.payload.len()).sum()
}

#[test]
fn no_more_is_sent_than_the_windows_allow() {
    let (mut side, streams) = responding(1, &[(4, 10_000)]);
    let (stream, content) = (streams[0], [7u8; 30_000]);
    assert_eq!(side.connection.capacity(stream), 10_000);
    assert_eq!(side.connection.send_data(stream, &content, true), Ok(10_000));
    assert_eq!(sent(&side.output(), stream), 10_000);
    assert_eq!((side.connection.capacity(stream), side.connection.next_writable()), (0, None));
    assert_eq!(side.ok(&window_update(1, 5)), [Seen::Writable]);
    assert_eq!(side.connection.next_writable(), Some(stream));
    assert_eq!(side.connection.send_data(stream, &content[10_000..], true), Ok(5));
    assert_eq!(side.ok(&window_update(1, 100_000)), [Seen::Writable]);
    assert_eq!(side.connection.next_writable(), Some(stream));
    assert_eq!(side.connection.send_data(stream, &content[10_005..], true), Ok(19_995));
    let out = side.output();
    assert_eq!(out.last().unwrap().flags, END_STREAM);
    assert!(out.iter().all(|f| f.payload.len() <= 16_384));
    assert!(!side.connection.is_open(stream));
}

#[test]
fn a_reduced_initial_window_makes_windows_negative() {
    let (mut side, streams) = responding(1, &[(4, 10_000)]);
    let stream = streams[0];
    side.connection.send_data(stream, &[0; 10_000], false).unwrap();
    side.ok(&settings(&[(4, 1_000)]));
    side.connection.wait_writable(stream);
    assert_eq!(side.ok(&window_update(1, 9_000)), [], "the window is 0");
    assert_eq!(side.connection.capacity(stream), 0);
    assert_eq!(side.ok(&window_update(1, 1)), [Seen::Writable]);
    assert_eq!(side.connection.capacity(stream), 1);
    side.ok(&settings(&[(4, 2_000)]));
    assert_eq!(side.connection.capacity(stream), 1_001);
}

#[test]
fn settings_that_open_windows_wake_streams() {
    let (mut side, streams) = responding(2, &[(4, 0)]);
    for stream in &streams {
        assert_eq!(side.connection.send_data(*stream, b"hello", true), Ok(0));
    }
    assert_eq!(side.connection.next_writable(), None);
    side.ok(&settings(&[(4, 3)]));
    assert_eq!(side.connection.next_writable(), Some(streams[0]));
    assert_eq!(side.connection.next_writable(), Some(streams[1]));
    assert_eq!(side.connection.next_writable(), None);
}

#[test]
fn initial_window_overflow_ends_the_connection() {
    let (mut side, _) = responding(1, &[]);
    side.ok(&window_update(1, (1 << 31) - 1 - 65_535));
    assert_eq!(side.feed(&settings(&[(4, 65_536)])), Err(ConnectionError::WindowOverflow));
}

#[test]
fn streams_take_turns_on_the_connection_window() {
    let (mut side, streams) = responding(3, &[(4, 1 << 20)]);
    assert_eq!(side.connection.send_data(streams[0], &[0; 70_000], false), Ok(65_535));
    for stream in &streams[1..] {
        assert_eq!(side.connection.send_data(*stream, &[0; 70_000], false), Ok(0));
    }
    side.output();
    let mut turns = Vec::new();
    for _ in 0..6 {
        assert_eq!(side.ok(&window_update(0, 1000)), [Seen::Writable]);
        let stream = side.connection.next_writable().unwrap();
        assert_eq!(side.connection.send_data(stream, &[0; 70_000], false), Ok(1000));
        assert_eq!(side.connection.next_writable(), None);
        turns.push(stream.get());
    }
    assert_eq!(turns, [1, 3, 5, 1, 3, 5]);
}

#[test]
fn a_full_output_stops_content_until_it_was_written() {
    let (mut side, streams) = responding(2, &[(4, 1 << 24)]);
    side.ok(&window_update(0, 1 << 24));
    let content = vec![0; 1 << 20];
    let first = side.connection.send_data(streams[0], &content, false).unwrap();
    assert!(first <= OUTPUT_HIGH_WATER && first > OUTPUT_HIGH_WATER - (32 << 10), "{first}");
    assert_eq!(side.connection.send_data(streams[1], &content, false), Ok(0));
    assert!(side.connection.is_congested());
    assert_eq!(side.connection.next_writable(), None);
    assert!(side.connection.output().len() < OUTPUT_HIGH_WATER + (16 << 10));
    side.connection.advance_output(100 << 10);
    assert_eq!(side.connection.next_writable(), Some(streams[0]));
    assert!(side.connection.send_data(streams[0], &content, false).unwrap() >= 90 << 10);
    side.bytes();
    assert_eq!(side.connection.next_writable(), Some(streams[1]));
}

#[test]
fn a_stream_that_is_gone_leaves_the_queue() {
    let (mut side, streams) = responding(3, &[(4, 1 << 20)]);
    side.connection.send_data(streams[0], &[0; 65_535], false).unwrap();
    for stream in &streams {
        side.connection.wait_writable(*stream);
    }
    side.connection.reset(streams[0], ErrorCode::CANCEL);
    side.ok(&rst(3, ErrorCode::CANCEL));
    side.ok(&window_update(0, 10));
    assert_eq!(side.connection.next_writable(), Some(streams[2]));
    assert_eq!(side.connection.next_writable(), None);
}

#[test]
fn stalls_are_visible_and_a_little_window_for_the_connection_does_not_hide_them() {
    let (mut side, streams) = responding(1, &[(4, 10)]);
    let stream = streams[0];
    side.wait(5);
    side.ok(&frame(PING, ACK, 0, &[0; 8]));
    let start = side.now;
    assert_eq!(side.connection.stalled_since(stream), None);
    side.connection.send_data(stream, &[0; 20], true).unwrap();
    side.wait(60);
    side.ok(&window_update(0, 1));
    assert_eq!(side.connection.stalled_since(stream), Some(start));
    assert_eq!(side.connection.first_stalled(side.now), Some(stream));
    assert_eq!(side.connection.first_stalled(start), None);
    side.ok(&window_update(1, 10));
    assert_eq!(side.connection.next_writable(), Some(stream));
    assert_eq!(side.connection.stalled_since(stream), None);
    assert_eq!(side.connection.counters().stalls, 1);
}

fn small_windows() -> Config {
    let mut config = Config::new(Role::Server);
    config.initial_window = 1000;
    config.connection_window = 65_535;
    config
}

#[test]
fn content_beyond_a_window_is_an_error_of_whose_window_it_is() {
    let mut side = Side::server_with(small_windows());
    side.ok(&headers(1, POST, false));
    side.ok(&frame(DATA, 0, 1, &[0; 900]));
    let seen = side.ok(&frame(DATA, 0, 1, &[0; 101]));
    let code = ErrorCode::FLOW_CONTROL_ERROR;
    assert_eq!(seen, [Seen::Reset { stream: 1, code, by_peer: false, refusal: None }]);

    let mut config = Config::new(Role::Server);
    config.connection_window = 65_535;
    let mut side = Side::server_with(config);
    side.ok(&headers(1, POST, false));
    for _ in 0..4 {
        side.ok(&frame(DATA, 0, 1, &[0; 16_383]));
    }
    assert_eq!(side.feed(&frame(DATA, 0, 1, &[0; 4])), Err(ConnectionError::FlowControl));
}

#[test]
fn windows_open_again_by_halves_when_content_is_released() {
    let mut side = Side::server_with(small_windows());
    side.ok(&headers(1, POST, false));
    side.ok(&frame(DATA, 0, 1, &[0; 1000]));
    assert_eq!(side.output(), [], "nothing was released");
    side.connection.release(id(1), 499);
    assert_eq!(side.output(), []);
    side.connection.release(id(1), 1);
    let out = side.output();
    assert_eq!(
        (out.len(), out[0].kind, out[0].stream, &out[0].payload[..]),
        (1, WINDOW_UPDATE, 1, &[0, 0, 1, 244][..])
    );
    side.ok(&frame(DATA, 0, 1, &[0; 500]));
    // No more is released than was handed out.
    side.connection.release(id(1), u32::MAX);
    assert_eq!(side.output()[0].payload, 1000u32.to_be_bytes());
    side.connection.release(id(1), u32::MAX);
    assert_eq!(side.output(), []);
}

#[test]
fn padding_counts_and_is_released_with_the_content() {
    let mut side = Side::server_with(small_windows());
    side.ok(&headers(1, POST, false));
    let mut payload = vec![99];
    payload.extend([b'x'; 400]);
    payload.extend([0; 99]);
    let seen = side.ok(&frame(DATA, PADDED, 1, &payload));
    assert_eq!(seen, [Seen::Data { stream: 1, data: vec![b'x'; 400], flow: 500, end_stream: false }]);
    // Nothing but padding: nobody has to release it.
    let mut payload = vec![255];
    payload.extend([0; 255]);
    side.ok(&frame(DATA, PADDED, 1, &payload));
    side.connection.release(id(1), 500);
    assert_eq!(side.output()[0].payload, 756u32.to_be_bytes());
}

#[test]
fn the_connection_window_survives_streams_that_never_release() {
    let mut config = Config::new(Role::Server);
    config.connection_window = 65_535;
    let mut side = Side::server_with(config);
    // 200 streams of 16 KiB, none released: each ends in another way.
    for n in 0..200u32 {
        let stream = 2 * n + 1;
        side.ok(&headers(stream, POST, false));
        match n % 4 {
            0 => {
                side.ok(&frame(DATA, 0, stream, &[0; 16_000]));
                side.ok(&rst(stream, ErrorCode::CANCEL));
            }
            1 => {
                side.ok(&frame(DATA, 0, stream, &[0; 16_000]));
                side.connection.reset(id(stream), ErrorCode::CANCEL);
                side.ok(&frame(DATA, 0, stream, &[0; 16_000]));
            }
            2 => {
                side.ok(&frame(DATA, END_STREAM, stream, &[0; 16_000]));
                side.connection.send_response(id(stream), &ResponseHead::with_status(200), true).unwrap();
            }
            _ => {
                side.connection.send_response(id(stream), &ResponseHead::with_status(200), true).unwrap();
                side.ok(&frame(DATA, END_STREAM, stream, &[0; 16_000]));
            }
        }
        side.connection.release(id(stream), 16_000);
    }
    let grown: u32 = side
        .output()
        .iter()
        .filter(|f| f.kind == WINDOW_UPDATE && f.stream == 0)
        .map(|f| u32::from_be_bytes(f.payload[..].try_into().unwrap()))
        .sum();
    assert!(grown > 250 * 16_000 - 65_535, "{grown}");
}

#[test]
fn content_that_was_announced_and_fits_needs_no_update() {
    let mut side = Side::server_with(small_windows());
    let lines = [POST, &[("content-length", "1000")]].concat();
    side.ok(&headers(1, &lines, false));
    side.ok(&frame(DATA, 0, 1, &[0; 800]));
    side.connection.release(id(1), 800);
    assert_eq!(side.output(), []);
}

#[test]
fn a_small_initial_window_holds_from_its_acknowledgement_on() {
    let mut side = Side::new(small_windows());
    side.ok(rhumb_codec::h2::PREFACE);
    side.ok(&settings(&[]));
    side.ok(&headers(1, POST, false));
    assert_eq!(side.ok(&frame(DATA, 0, 1, &[0; 16_000])).len(), 1, "sent before our settings were read");
    side.ok(&frame(SETTINGS, ACK, 0, &[]));
    let code = ErrorCode::FLOW_CONTROL_ERROR;
    let seen = side.ok(&frame(DATA, 0, 1, &[0; 1]));
    assert_eq!(seen, [Seen::Reset { stream: 1, code, by_peer: false, refusal: None }]);
}
