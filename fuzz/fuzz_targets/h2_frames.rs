//! A connection never panics, stays bounded, and means the same however its bytes are split. Both roles: the driver
//! plays an application that answers, sends, releases and resets by what the input says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rhumb_codec::field::{Fields, Known, is_value_byte};
use rhumb_codec::h1;
use rhumb_codec::h2::{Config, Connection, ErrorCode, Event, FRAME_HEADER, PREFACE, Role, StreamId};
use rhumb_codec::head::{Content, RequestHead, ResponseHead};
use std::time::Instant;

/// What was seen, with pieces of DATA put together.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    stream: u32,
    kind: &'static str,
    bytes: Vec<u8>,
    number: u64,
    end: bool,
}

fn check_values(fields: &Fields) {
    for line in fields.iter() {
        assert!(line.value.iter().all(|&b| is_value_byte(b)) && !line.name.is_empty());
        assert!(!line.name.iter().any(u8::is_ascii_uppercase));
    }
}

/// An accepted request is one request of HTTP/1.1 with one framing, and reads as the same.
fn check_request(head: &RequestHead) {
    check_values(&head.fields);
    let mut out = Vec::new();
    h1::write_request(head, &mut out);
    let limits =
        h1::Limits { head_bytes: 1 << 20, fields: 256, target_bytes: 1 << 20, ..h1::Limits::default() };
    let mut again = RequestHead::new();
    let read = h1::parse_request(&out, &limits, head.scheme, &mut again);
    assert_eq!(read, Ok(Some(out.len())), "{}", String::from_utf8_lossy(&out));
    assert_eq!(again.authority(), head.authority());
    if head.protocol().is_none() {
        assert_eq!(again.method_name(), head.method_name());
    }
    assert_eq!((again.path(), again.query()), (head.path(), head.query()));
}

struct Driver<'a> {
    connection: Connection,
    now: Instant,
    choices: std::iter::Cycle<std::slice::Iter<'a, u8>>,
    seen: Vec<Seen>,
    has_small_windows: bool,
}

impl Driver<'_> {
    fn note(&mut self, stream: StreamId, kind: &'static str, bytes: &[u8], number: u64, end: bool) {
        if let Some(last) = self.seen.last_mut()
            && last.kind == "data"
            && kind == "data"
            && last.stream == stream.get()
            && !last.end
        {
            last.bytes.extend_from_slice(bytes);
            last.number += number;
            last.end = end;
            return;
        }
        self.seen.push(Seen { stream: stream.get(), kind, bytes: bytes.to_vec(), number, end });
    }

    fn handle(&mut self, event: Event<'_>) {
        match event {
            Event::Request { stream, head, end_stream } => {
                check_request(&head);
                self.note(stream, "request", head.path(), 0, end_stream);
                self.connection.recycle_request(head);
                self.answer(stream);
            }
            Event::Refused { stream, reason } => {
                self.note(stream, "refused", reason.code().as_bytes(), 0, false);
                let _ = self.connection.send_response(stream, &ResponseHead::with_status(400), true);
            }
            Event::Response { stream, head, end_stream } => {
                check_values(&head.fields);
                assert!((100..600).contains(&head.status) && head.status != 101);
                assert!(head.is_interim() <= !end_stream);
                if let (Content::Length(length), true) = (head.content, end_stream) {
                    assert_eq!(length, 0);
                }
                self.note(stream, "response", &[], u64::from(head.status), end_stream);
                self.connection.recycle_response(head);
            }
            Event::Data { stream, data, flow, end_stream } => {
                assert!(flow as usize >= data.len());
                self.note(stream, "data", data, u64::from(flow), end_stream);
                // With small windows it would matter in which pieces content is released.
                if !self.has_small_windows {
                    self.connection.release(stream, flow);
                }
            }
            Event::Trailers { stream, fields } => {
                check_values(&fields);
                self.note(stream, "trailers", &[], fields.len() as u64, true);
                self.connection.recycle_trailers(fields);
            }
            Event::Reset { stream, code, .. } => {
                assert!(!self.connection.is_open(stream));
                self.note(stream, "reset", &[], u64::from(code.0), true);
            }
            Event::GoAway { .. } | Event::Settings | Event::Writable | Event::Pong { .. } => {}
        }
    }

    /// An application with its own mind.
    fn answer(&mut self, stream: StreamId) {
        let choice = self.choices.next().copied().unwrap_or(0);
        let mut head = ResponseHead::with_status(if choice & 1 == 0 { 200 } else { 204 });
        head.fields.append(Known::Server, b"fuzz");
        match choice % 7 {
            0 => self.connection.reset(stream, ErrorCode::CANCEL),
            1 => {
                let _ = self.connection.send_response(stream, &head, true);
            }
            2 => {
                let _ = self.connection.send_response(stream, &ResponseHead::with_status(103), false);
                let _ = self.connection.send_response(stream, &head, false);
                let _ = self.connection.send_data(stream, &[0; 50_000], true);
            }
            3 => {
                let _ = self.connection.send_response(stream, &head, false);
                let mut trailers = Fields::new();
                trailers.append(Known::GrpcStatus, b"0");
                let _ = self.connection.send_trailers(stream, &trailers);
            }
            4 => {
                let _ = self.connection.send_response(stream, &head, false);
                let _ = self.connection.send_data(stream, &[0; 100], false);
            }
            5 => self.connection.go_away(ErrorCode::NO_ERROR, choice & 64 == 0),
            _ => {}
        }
    }

    /// Feeds the input in pieces, as a driver does: what is left is kept.
    fn run(&mut self, input: &[u8], piece: usize) {
        let mut pending: Vec<u8> = Vec::new();
        for part in input.chunks(piece.max(1)) {
            pending.extend_from_slice(part);
            let mut at = 0;
            loop {
                // The event borrows the input, not the connection.
                let Ok(received) = self.connection.receive(&pending[at..], self.now) else {
                    assert!(self.connection.receive(&[], self.now).is_err());
                    assert_eq!(self.connection.active_streams(), 0);
                    return;
                };
                assert!(received.consumed <= pending.len() - at);
                let is_idle = received.consumed == 0 && received.event.is_none();
                at += received.consumed;
                if let Some(event) = received.event {
                    self.handle(event);
                }
                while let Some(stream) = self.connection.next_writable() {
                    assert!(self.connection.capacity(stream) > 0);
                    let _ = self.connection.send_data(stream, &[0; 1000], stream.get() % 8 == 1);
                }
                if is_idle {
                    break;
                }
            }
            pending.drain(..at);
            assert!(pending.len() < FRAME_HEADER + 16_384);
        }
        assert!(self.connection.active_streams() <= 100 + 3);
        assert!(self.connection.capacity_bytes() < 4 << 20);
    }
}

/// Runs and returns what was seen and sent.
fn run(role: Role, choices: &[u8], input: &[u8], piece: usize, now: Instant) -> (Vec<Seen>, Vec<u8>) {
    let mut config = Config::new(role);
    let has_small_windows = choices[0] & 32 != 0;
    if has_small_windows {
        config.initial_window = 100;
        config.header_table_size = 64;
    }
    let mut driver = Driver {
        connection: Connection::new(config),
        now,
        choices: choices.iter().cycle(),
        seen: Vec::new(),
        has_small_windows,
    };
    if role == Role::Client {
        for method in ["GET", "HEAD", "CONNECT"] {
            let mut head = RequestHead::new();
            head.set_method(method.as_bytes());
            head.set_authority(b"a:1");
            head.set_target(b"/");
            let _ = driver.connection.open(&head, method != "CONNECT");
        }
        driver.run(input, piece);
    } else {
        driver.run(&[PREFACE, input].concat(), piece);
    }
    (driver.seen, driver.connection.output().to_vec())
}

fuzz_target!(|data: &[u8]| {
    let Some((choices, input)) = data.split_first_chunk::<4>() else { return };
    let role = if choices[0] & 128 == 0 { Role::Server } else { Role::Client };
    // A well-formed start lets the fuzzer reach the rest.
    let mut bytes = Vec::new();
    if choices[0] & 64 == 0 {
        bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]);
    }
    bytes.extend_from_slice(input);
    let now = Instant::now();
    let whole = run(role, choices, &bytes, usize::MAX, now);
    let split = run(role, choices, &bytes, usize::from(choices[3]) % 40 + 1, now);
    assert_eq!(whole.0, split.0);
});
