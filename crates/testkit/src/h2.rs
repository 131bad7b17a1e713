//! HTTP/2 frames by hand (RFC 9113): what a test says goes on the wire, whether a peer may say it or not.

use crate::hpack::{self, Decoder};
use crate::wait;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Frame types, §6.
pub mod kind {
    #![allow(missing_docs, reason = "the names of RFC 9113 §6")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Error codes, §7.
pub mod code {
    #![allow(missing_docs, reason = "the names of RFC 9113 §7")]
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// END_STREAM, and ACK of SETTINGS and PING.
pub const END_STREAM: u8 = 1;
/// ACK of SETTINGS and PING.
pub const ACK: u8 = 1;
/// END_HEADERS.
pub const END_HEADERS: u8 = 4;
/// PADDED.
pub const PADDED: u8 = 8;
/// PRIORITY flag of HEADERS.
pub const PRIORITY: u8 = 32;

/// The client preface, §3.4.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// SETTINGS with these parameters.
pub fn settings(parameters: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = parameters
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// HEADERS with END_HEADERS.
pub fn headers(stream: u32, block: &[u8], end_stream: bool) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS | u8::from(end_stream), stream, block)
}

/// DATA.
pub fn data(stream: u32, content: &[u8], end_stream: bool) -> Vec<u8> {
    frame(kind::DATA, u8::from(end_stream), stream, content)
}

/// RST_STREAM.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// WINDOW_UPDATE.
pub fn window(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// PING.
pub fn ping(content: u64) -> Vec<u8> {
    frame(kind::PING, 0, 0, &content.to_be_bytes())
}

/// A field block of a GET: pseudo-fields, then `more`.
pub fn get(authority: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    request("GET", authority, path, more)
}

/// A field block of a request: pseudo-fields, then `more`.
pub fn request(method: &str, authority: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields =
        vec![(":method", method), (":scheme", "http"), (":authority", authority), (":path", path)];
    fields.extend(more);
    hpack::encode(&fields)
}

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Type.
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Stream identifier.
    pub stream: u32,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The frame that `input` starts with, and its length there; `None` when more must come.
    pub fn read(input: &[u8]) -> Option<(Self, usize)> {
        let head = input.get(..9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        let payload = input.get(9..9 + length)?.to_vec();
        Some((Self { kind, flags, stream, payload }, 9 + length))
    }

    /// The error code of RST_STREAM or GOAWAY.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            kind::RST_STREAM => 0,
            kind::GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }

    /// Whether it ends its stream.
    pub fn ends(&self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & END_STREAM != 0
    }
}

/// What a stream came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Status of the final response; 0 when none came.
    pub status: u16,
    /// Its fields.
    pub fields: Vec<(String, String)>,
    /// Statuses of interim responses.
    pub interim: Vec<u16>,
    /// Content.
    pub content: Vec<u8>,
    /// Trailers.
    pub trailers: Vec<(String, String)>,
    /// Code of RST_STREAM, if one came.
    pub reset: Option<u32>,
    /// Whether the stream has ended, well or by a reset.
    pub over: bool,
    block: Vec<u8>,
}

/// What became of each stream, and the code of GOAWAY, from the bytes that a client received.
pub fn answers(mut input: &[u8]) -> Result<(BTreeMap<u32, Answer>, Option<u32>), String> {
    let mut decoder = Decoder::default();
    let mut answers: BTreeMap<u32, Answer> = BTreeMap::new();
    let mut goaway = None;
    while let Some((frame, used)) = Frame::read(input) {
        input = &input[used..];
        if frame.kind == kind::GOAWAY {
            goaway = frame.code();
        }
        answers.entry(frame.stream).or_default().add(&frame, &mut decoder)?;
    }
    Ok((answers, goaway))
}

/// Why no further frame comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The connection was closed or reset.
    Closed,
    /// Nothing came in time.
    Silence,
}

/// A client connection.
pub struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    decoder: Decoder,
    answers: BTreeMap<u32, Answer>,
    /// Why field sections can no longer be read.
    broken: Option<String>,
    /// Acknowledge SETTINGS and PING by itself. Default: yes.
    pub polite: bool,
}

impl Connection {
    /// Connects, with prior knowledge: preface and these SETTINGS.
    pub fn open(address: SocketAddr, parameters: &[(u16, u32)]) -> Self {
        let mut connection = Self::bare(address);
        connection.send(&[PREFACE, &settings(parameters)].concat());
        connection
    }

    /// Connects and sends nothing.
    pub fn bare(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, wait::LIMIT)
            .unwrap_or_else(|error| panic!("connect to {address}: {error}"));
        stream.set_nodelay(true).expect("a socket");
        stream.set_write_timeout(Some(wait::LIMIT)).expect("a socket");
        Self {
            stream,
            input: Vec::new(),
            decoder: Decoder::default(),
            answers: BTreeMap::new(),
            broken: None,
            polite: true,
        }
    }

    /// Sends bytes; panics when the peer has closed.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the peer takes frames");
    }

    /// Sends bytes.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The next frame within the usual limit.
    pub fn frame(&mut self) -> Result<Frame, End> {
        self.frame_within(wait::LIMIT)
    }

    /// The next frame.
    pub fn frame_within(&mut self, limit: Duration) -> Result<Frame, End> {
        self.stream.set_read_timeout(Some(limit.max(Duration::from_millis(1)))).expect("a socket");
        loop {
            if let Some(frame) = self.take() {
                // Whoever reads the frame, the compression context goes on.
                let answer = self.answers.entry(frame.stream).or_default();
                if let Err(why) = answer.add(&frame, &mut self.decoder) {
                    self.broken.get_or_insert(why);
                }
                if self.polite {
                    self.reply(&frame);
                }
                return Ok(frame);
            }
            let mut buf = [0; 65_536];
            match self.stream.read(&mut buf) {
                Ok(0) => return Err(End::Closed),
                Ok(n) => self.input.extend_from_slice(&buf[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(End::Silence);
                }
                Err(_) => return Err(End::Closed),
            }
        }
    }

    /// Frames until the connection ends; the code of the GOAWAY among them.
    pub fn until_closed(&mut self) -> Option<u32> {
        let mut code = None;
        loop {
            match self.frame() {
                Ok(frame) if frame.kind == kind::GOAWAY => code = frame.code(),
                Ok(_) => {}
                Err(End::Closed) => return code,
                Err(End::Silence) => panic!("the connection stays open; GOAWAY so far: {code:?}"),
            }
        }
    }

    /// Reads until this stream is over, or the connection is. What the stream was sent before counts too.
    pub fn answer(&mut self, stream: u32) -> Result<Answer, String> {
        loop {
            if self.answers.get(&stream).is_some_and(|answer| answer.over) {
                return Ok(self.answers.remove(&stream).unwrap_or_default());
            }
            let frame =
                self.frame().map_err(|end| format!("{end:?} after {:?}", self.answers.get(&stream)))?;
            if let Some(why) = &self.broken {
                return Err(why.clone());
            }
            if frame.kind == kind::GOAWAY && frame.code() != Some(code::NO_ERROR) {
                return Err(format!("GOAWAY {:?}", frame.code()));
            }
            let length = frame.payload.len() as u32;
            if frame.kind == kind::DATA && length > 0 && self.polite {
                let _ = self.try_send(&[window(0, length), window(frame.stream, length)].concat());
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let (frame, used) = Frame::read(&self.input)?;
        self.input.drain(..used);
        Some(frame)
    }

    fn reply(&mut self, frame: &Frame) {
        if matches!(frame.kind, kind::SETTINGS | kind::PING) && frame.flags & ACK == 0 {
            let payload = if frame.kind == kind::PING { &frame.payload[..] } else { &[] };
            let _ = self.try_send(&crate::h2::frame(frame.kind, ACK, 0, payload));
        }
    }
}

impl Answer {
    fn add(&mut self, frame: &Frame, decoder: &mut Decoder) -> Result<(), String> {
        match frame.kind {
            kind::HEADERS | kind::CONTINUATION => {
                self.block.extend_from_slice(&unpadded(frame));
                if frame.flags & END_HEADERS != 0 {
                    let fields = decoder.decode(&std::mem::take(&mut self.block))?;
                    self.take_fields(fields);
                }
            }
            kind::DATA => self.content.extend_from_slice(&unpadded(frame)),
            kind::RST_STREAM => (self.reset, self.over) = (frame.code(), true),
            _ => {}
        }
        self.over |= frame.ends();
        Ok(())
    }

    fn take_fields(&mut self, mut fields: Vec<(String, String)>) {
        let status = fields.iter().position(|(name, _)| name == ":status").map(|at| fields.remove(at).1);
        match status.and_then(|text| text.parse().ok()) {
            Some(status @ 100..=199) => self.interim.push(status),
            Some(status) => (self.status, self.fields) = (status, fields),
            None => self.trailers = fields,
        }
    }

    /// The value of a field, if it is there.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

fn unpadded(frame: &Frame) -> Vec<u8> {
    let mut payload = &frame.payload[..];
    if frame.flags & PADDED != 0 && frame.kind != kind::CONTINUATION {
        let padding = usize::from(payload.first().copied().unwrap_or(0));
        payload = payload.get(1..payload.len().saturating_sub(padding)).unwrap_or(&[]);
    }
    if frame.kind == kind::HEADERS && frame.flags & PRIORITY != 0 {
        payload = payload.get(5..).unwrap_or(&[]);
    }
    payload.to_vec()
}
