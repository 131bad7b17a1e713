//! The HTTP/2 backend (h2c with prior knowledge): answers every request alike, `--length` bytes of content
//! or, with `--grpc`, one gRPC message of that length and trailers. One thread, one write per turn.
//!
//! It decodes no field blocks, so that it is never what limits a proxy.
//!
//! usage: `backend_h2 --addr 127.0.0.1:9120 --length 128 [--grpc]`

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use rhumb_bench_tools::args::Args;
use rhumb_bench_tools::h2::{self, FieldBlock, Frame, flag, kind, setting};
use rhumb_bench_tools::poll::{Poller, listen, raise_open_files};

fn main() -> Result<(), String> {
    let args = Args::parse(&["addr", "length", "grpc"])?;
    raise_open_files();
    let answer = Answer { length: args.value("length", "128")?, is_grpc: args.has("grpc") };
    let listener = listen(args.value::<SocketAddr>("addr", "127.0.0.1:9120")?).map_err(|e| e.to_string())?;
    run(&listener, answer).map_err(|e| e.to_string())
}

#[derive(Clone, Copy)]
struct Answer {
    length: usize,
    is_grpc: bool,
}

fn run(listener: &TcpListener, answer: Answer) -> io::Result<()> {
    let mut poller = Poller::open()?;
    poller.watch(listener, LISTENER)?;
    let content = content(answer);
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut ready = Vec::new();
    loop {
        poller.wait(None, &mut ready)?;
        for event in &ready {
            if event.token != LISTENER {
                let place = &mut connections[event.token as usize];
                let Some(connection) = place else { continue };
                if !connection.turn(event.hangup, &content) {
                    *place = None;
                }
                continue;
            }
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                let id = connections.iter().position(Option::is_none).unwrap_or(connections.len());
                poller.watch(&stream, id as u64)?;
                let connection = Some(Connection::new(stream, answer));
                match connections.get_mut(id) {
                    Some(place) => *place = connection,
                    None => connections.push(connection),
                }
            }
        }
    }
}

fn content(answer: Answer) -> Vec<u8> {
    let mut content = Vec::new();
    if answer.is_grpc {
        // gRPC's length-prefixed message: not compressed, then the length.
        content.push(0);
        content.extend_from_slice(&(answer.length as u32).to_be_bytes());
    }
    content.extend((b' '..=b'~').cycle().take(answer.length));
    content
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    has_preface: bool,
    output: Vec<u8>,
    /// Content that the peer lets us send on the connection. Unit: bytes.
    window: i64,
    /// The same on a stream that begins.
    stream_window: i64,
    /// Streams whose answer waits: for the end of the request or for a window.
    streams: HashMap<u32, Stream>,
    head: FieldBlock,
    trailers: Option<FieldBlock>,
    has_table: bool,
    must_empty_table: bool,
    received: u32,
}

struct Stream {
    window: i64,
    sent: usize,
    is_complete: bool,
}

impl Connection {
    fn new(stream: TcpStream, answer: Answer) -> Self {
        let length = answer.length.to_string();
        let head = if answer.is_grpc {
            FieldBlock::new(&[
                (":status", "200"),
                ("content-type", "application/grpc"),
                ("server", "backend"),
            ])
        } else {
            FieldBlock::new(&[
                (":status", "200"),
                ("server", "backend"),
                ("date", "Fri, 21 Nov 2025 10:00:00 GMT"),
                ("content-type", "application/json; charset=utf-8"),
                ("content-length", &length),
                ("cache-control", "private, max-age=0, must-revalidate"),
                ("etag", "\"8c1b-61f0a4b7d2e40\""),
                ("vary", "Accept-Encoding, Origin"),
                ("strict-transport-security", "max-age=31536000; includeSubDomains"),
                ("x-content-type-options", "nosniff"),
            ])
        };
        let mut output = Vec::new();
        h2::push_settings(&mut output, &[(setting::MAX_CONCURRENT_STREAMS, MAX_STREAMS)]);
        h2::push_window_update(&mut output, 0, RECEIVE_WINDOW - h2::DEFAULT_WINDOW);
        Self {
            stream,
            input: Vec::with_capacity(READ),
            has_preface: false,
            output,
            window: h2::DEFAULT_WINDOW.into(),
            stream_window: h2::DEFAULT_WINDOW.into(),
            streams: HashMap::new(),
            head,
            trailers: answer.is_grpc.then(|| FieldBlock::new(&[("grpc-status", "0")])),
            has_table: true,
            must_empty_table: false,
            received: 0,
        }
    }

    /// Reads, answers, writes. False when the connection is over.
    fn turn(&mut self, to_the_end: bool, content: &[u8]) -> bool {
        loop {
            let at = self.input.len();
            self.input.resize(at + READ, 0);
            let n = match self.stream.read(&mut self.input[at..]) {
                Ok(0) => return false,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => return false,
            };
            self.input.truncate(at + n);
            if n > 0 && !self.take_input(content) {
                return false;
            }
            if n == 0 || n < READ && !to_the_end {
                break;
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> bool {
        let mut sent = 0;
        while sent < self.output.len() {
            match self.stream.write(&self.output[sent..]) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        self.output.drain(..sent);
        self.output.len() <= MAX_OUTPUT
    }

    fn take_input(&mut self, content: &[u8]) -> bool {
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        if !self.has_preface {
            if rest.len() < h2::PREFACE.len() && h2::PREFACE.starts_with(rest) {
                self.input = input;
                return true;
            }
            let Some(after) = rest.strip_prefix(h2::PREFACE) else { return false };
            self.has_preface = true;
            rest = after;
        }
        while let Some((frame, payload)) = Frame::parse(rest) {
            if !self.take_frame(frame, payload, content) {
                return false;
            }
            rest = &rest[frame.size()..];
        }
        if self.received > RECEIVE_WINDOW / 2 {
            h2::push_window_update(&mut self.output, 0, self.received);
            self.received = 0;
        }
        let used = input.len() - rest.len();
        self.input = input;
        self.input.drain(..used);
        self.input.len() <= h2::MAX_FRAME + 9
    }

    fn take_frame(&mut self, frame: Frame, payload: &[u8], content: &[u8]) -> bool {
        match frame.kind {
            kind::HEADERS if frame.has(flag::END_STREAM) => self.complete(frame.stream, content),
            kind::HEADERS => {
                let stream = Stream { window: self.stream_window, sent: 0, is_complete: false };
                self.streams.entry(frame.stream).or_insert(stream);
            }
            kind::DATA => {
                self.received += frame.len as u32;
                if frame.has(flag::END_STREAM) {
                    self.complete(frame.stream, content);
                } else if frame.len > 0 {
                    h2::push_window_update(&mut self.output, frame.stream, frame.len as u32);
                }
            }
            kind::SETTINGS if !frame.has(flag::ACK) => {
                self.take_settings(payload);
                h2::push_frame(&mut self.output, kind::SETTINGS, flag::ACK, 0, &[]);
            }
            kind::PING if !frame.has(flag::ACK) => {
                h2::push_frame(&mut self.output, kind::PING, flag::ACK, 0, payload);
            }
            kind::WINDOW_UPDATE => {
                let increment = h2::window_increment(payload);
                if frame.stream == 0 {
                    self.window += increment;
                } else if let Some(stream) = self.streams.get_mut(&frame.stream) {
                    stream.window += increment;
                }
                let waiting: Vec<u32> =
                    self.streams.iter().filter(|(_, s)| s.is_complete).map(|(id, _)| *id).collect();
                waiting.into_iter().for_each(|id| self.send_content(id, content));
            }
            kind::RST_STREAM => {
                self.streams.remove(&frame.stream);
            }
            kind::GOAWAY => return false,
            _ => {}
        }
        true
    }

    fn take_settings(&mut self, payload: &[u8]) {
        for (id, value) in h2::settings(payload) {
            match id {
                setting::INITIAL_WINDOW_SIZE => {
                    // RFC 9113 §6.9.2: open streams move by the difference.
                    let change = i64::from(value) - self.stream_window;
                    self.streams.values_mut().for_each(|s| s.window += change);
                    self.stream_window = value.into();
                }
                setting::HEADER_TABLE_SIZE if value < h2::DEFAULT_TABLE => {
                    self.has_table = false;
                    self.must_empty_table = true;
                }
                _ => {}
            }
        }
    }

    /// The request is complete: answer it.
    fn complete(&mut self, id: u32, content: &[u8]) {
        let new = Stream { window: self.stream_window, sent: 0, is_complete: true };
        self.streams.entry(id).or_insert(new).is_complete = true;
        let mut block = Vec::with_capacity(512);
        if std::mem::take(&mut self.must_empty_table) {
            // RFC 7541 §4.2: a peer that shrinks the table is told so at the start of the next block.
            block.push(0x20);
        }
        if self.head.push(&mut block, self.has_table)
            && let Some(trailers) = &mut self.trailers
        {
            trailers.newer = 0;
        }
        h2::push_frame(&mut self.output, kind::HEADERS, flag::END_HEADERS, id, &block);
        self.send_content(id, content);
    }

    /// Sends as much content as the windows allow, and what ends the stream.
    fn send_content(&mut self, id: u32, content: &[u8]) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        while stream.sent < content.len() {
            let allowed = usize::try_from(self.window.min(stream.window)).unwrap_or(0).min(h2::MAX_FRAME);
            let part = &content[stream.sent..content.len().min(stream.sent + allowed)];
            if part.is_empty() {
                return;
            }
            stream.sent += part.len();
            stream.window -= part.len() as i64;
            self.window -= part.len() as i64;
            let is_end = stream.sent == content.len() && self.trailers.is_none();
            let flags = if is_end { flag::END_STREAM } else { 0 };
            h2::push_frame(&mut self.output, kind::DATA, flags, id, part);
        }
        self.streams.remove(&id);
        if let Some(trailers) = &mut self.trailers {
            let mut block = Vec::with_capacity(32);
            if trailers.push(&mut block, self.has_table) {
                self.head.newer += trailers.entries();
            }
            let flags = flag::END_HEADERS | flag::END_STREAM;
            h2::push_frame(&mut self.output, kind::HEADERS, flags, id, &block);
        } else if content.is_empty() {
            h2::push_frame(&mut self.output, kind::DATA, flag::END_STREAM, id, &[]);
        }
    }
}

const LISTENER: u64 = u64::MAX;
/// Bytes asked for by one read.
const READ: usize = 64 << 10;
/// Streams a proxy may have open on one connection.
const MAX_STREAMS: u32 = 1000;
/// Content taken on a connection before the window is opened again. Unit: bytes.
const RECEIVE_WINDOW: u32 = 16 << 20;
/// Bytes that may wait for a proxy that does not read; more ends the connection.
const MAX_OUTPUT: usize = 64 << 20;
