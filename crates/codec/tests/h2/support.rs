//! A scripted peer: frames built by hand, events made comparable.

use rhumb_codec::field::Fields;
use rhumb_codec::h2::{
    Config, Connection, ConnectionError, ErrorCode, Event, PREFACE, Refusal, Role, StreamId,
};
use rhumb_codec::head::{Content, RequestHead, ResponseHead};
use std::time::{Duration, Instant};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const WITH_PRIORITY: u8 = 0x20;

/// A frame as it goes over the wire.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![len[1], len[2], len[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

pub(crate) fn settings(list: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in list {
        payload.extend(id.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

pub(crate) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub(crate) fn rst(stream: u32, code: ErrorCode) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.0.to_be_bytes())
}

/// A field block of literals without indexing and without Huffman code: says exactly what it is given.
pub(crate) fn block(lines: &[(&str, &str)]) -> Vec<u8> {
    fn string(text: &str, out: &mut Vec<u8>) {
        match u8::try_from(text.len()) {
            Ok(len) if len < 127 => out.push(len),
            _ => {
                out.push(127);
                let mut rest = text.len() - 127;
                while rest >= 128 {
                    out.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                out.push(rest as u8);
            }
        }
        out.extend(text.as_bytes());
    }
    let mut out = Vec::new();
    for (name, value) in lines {
        out.push(0);
        string(name, &mut out);
        string(value, &mut out);
    }
    out
}

pub(crate) const GET: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", "/")];
pub(crate) const POST: &[(&str, &str)] =
    &[(":method", "POST"), (":scheme", "http"), (":authority", "a.example"), (":path", "/")];

pub(crate) fn headers(stream: u32, lines: &[(&str, &str)], end_stream: bool) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | u8::from(end_stream), stream, &block(lines))
}

/// Lines of a message: pseudo-fields made from the head, then its fields.
pub(crate) type Lines = Vec<(String, String)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Request { stream: u32, lines: Lines, content: Content, end_stream: bool },
    Refused { stream: u32, reason: Refusal },
    Response { stream: u32, lines: Lines, content: Content, end_stream: bool },
    Data { stream: u32, data: Vec<u8>, flow: u32, end_stream: bool },
    Trailers { stream: u32, lines: Lines },
    Reset { stream: u32, code: ErrorCode, by_peer: bool, refusal: Option<Refusal> },
    Writable,
    GoAway { last_stream: u32, code: ErrorCode },
    Settings,
    Pong([u8; 8]),
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn lines(fields: &Fields) -> Lines {
    fields.iter().map(|line| (text(line.name), text(line.value))).collect()
}

pub(crate) fn request_lines(head: &RequestHead) -> Lines {
    let mut target = Vec::new();
    head.write_target(&mut target);
    let mut all = vec![
        (":method".to_owned(), text(head.method_name())),
        (":scheme".to_owned(), head.scheme.as_str().to_owned()),
        (":authority".to_owned(), text(head.authority())),
        (":path".to_owned(), text(&target)),
    ];
    all.extend(head.protocol().map(|protocol| (":protocol".to_owned(), text(protocol))));
    all.extend(lines(&head.fields));
    all
}

pub(crate) fn response_lines(head: &ResponseHead) -> Lines {
    let mut all = vec![(":status".to_owned(), head.status.to_string())];
    all.extend(lines(&head.fields));
    all
}

pub(crate) fn owned(pairs: &[(&str, &str)]) -> Lines {
    pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

impl Seen {
    pub(crate) fn of(event: Event<'_>) -> Self {
        match event {
            Event::Request { stream, head, end_stream } => Self::Request {
                stream: stream.get(),
                lines: request_lines(&head),
                content: head.content,
                end_stream,
            },
            Event::Refused { stream, reason } => Self::Refused { stream: stream.get(), reason },
            Event::Response { stream, head, end_stream } => Self::Response {
                stream: stream.get(),
                lines: response_lines(&head),
                content: head.content,
                end_stream,
            },
            Event::Data { stream, data, flow, end_stream } => {
                Self::Data { stream: stream.get(), data: data.to_vec(), flow, end_stream }
            }
            Event::Trailers { stream, fields } => {
                Self::Trailers { stream: stream.get(), lines: lines(&fields) }
            }
            Event::Reset { stream, code, by_peer, refusal } => {
                Self::Reset { stream: stream.get(), code, by_peer, refusal }
            }
            Event::Writable => Self::Writable,
            Event::GoAway { last_stream, code, .. } => Self::GoAway { last_stream, code },
            Event::Settings => Self::Settings,
            Event::Pong { payload } => Self::Pong(payload),
        }
    }
}

/// One side of a connection under test, its clock and its output as frames.
pub(crate) struct Side {
    pub(crate) connection: Connection,
    pub(crate) now: Instant,
    pending: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Side {
    pub(crate) fn new(config: Config) -> Self {
        Self { connection: Connection::new(config), now: Instant::now(), pending: Vec::new() }
    }

    /// A server that has seen the preface and empty SETTINGS, and whose own are acknowledged.
    pub(crate) fn server() -> Self {
        Self::server_with(Config::new(Role::Server))
    }

    pub(crate) fn server_with(config: Config) -> Self {
        let mut side = Self::new(config);
        side.feed(PREFACE).unwrap();
        side.greet();
        side
    }

    pub(crate) fn client() -> Self {
        Self::client_with(Config::new(Role::Client))
    }

    pub(crate) fn client_with(config: Config) -> Self {
        let mut side = Self::new(config);
        side.greet();
        side
    }

    fn greet(&mut self) {
        assert_eq!(self.feed(&settings(&[])), Ok(vec![Seen::Settings]));
        assert_eq!(self.feed(&frame(SETTINGS, ACK, 0, &[])), Ok(vec![]));
        self.output();
    }

    /// Feeds bytes; what is incomplete is kept for the next call.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Seen>, ConnectionError> {
        let mut input = std::mem::take(&mut self.pending);
        input.extend(bytes);
        let mut at = 0;
        let mut seen = Vec::new();
        loop {
            let received = self.connection.receive(&input[at..], self.now)?;
            assert!(received.consumed <= input.len() - at);
            at += received.consumed;
            let is_idle = received.consumed == 0 && received.event.is_none();
            seen.extend(received.event.map(Seen::of));
            if is_idle {
                break;
            }
        }
        self.pending = input.split_off(at);
        Ok(seen)
    }

    /// Feeds frames and expects them to be fine.
    pub(crate) fn ok(&mut self, bytes: &[u8]) -> Vec<Seen> {
        self.feed(bytes).unwrap()
    }

    pub(crate) fn take_pending(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }

    pub(crate) fn keep_pending(&mut self, bytes: Vec<u8>) {
        self.pending = bytes;
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// Takes the output as bytes.
    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let bytes = self.connection.output().to_vec();
        self.connection.advance_output(bytes.len());
        bytes
    }

    /// Takes the output as frames, the client's preface left out.
    pub(crate) fn output(&mut self) -> Vec<Frame> {
        let bytes = self.bytes();
        let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(&bytes);
        let mut frames = Vec::new();
        while let Some((header, tail)) = rest.split_first_chunk::<9>() {
            let len = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            frames.push(Frame {
                kind: header[3],
                flags: header[4],
                stream: u32::from_be_bytes([header[5], header[6], header[7], header[8]]),
                payload: tail[..len].to_vec(),
            });
            rest = &tail[len..];
        }
        assert!(rest.is_empty());
        frames
    }

    /// The codes of the RST_STREAM frames in the output.
    pub(crate) fn resets(&mut self) -> Vec<(u32, ErrorCode)> {
        let code = |frame: &Frame| ErrorCode(u32::from_be_bytes(frame.payload[..].try_into().unwrap()));
        self.output().iter().filter(|f| f.kind == RST_STREAM).map(|f| (f.stream, code(f))).collect()
    }
}

pub(crate) fn id(stream: u32) -> StreamId {
    StreamId::new(stream).unwrap()
}

pub(crate) fn request(method: &str, target: &str) -> RequestHead {
    let mut head = RequestHead::new();
    head.set_method(method.as_bytes());
    head.set_authority(b"a.example");
    head.set_target(target.as_bytes());
    head
}
