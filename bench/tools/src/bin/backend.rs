//! The HTTP/1.1 backend: one thread, keep-alive, as little work per request as a response needs.
//!
//! `/b/N` anywhere in the path answers N bytes, `/d/MS/N` the same after MS milliseconds, `/echo` the head of
//! the request as it arrived (so that the bench can show which fields a proxy sets). Content is read to its
//! end before the answer.
//!
//! usage: `backend --addr 127.0.0.1:9100`

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use memchr::memmem;
use rhumb_bench_tools::args::Args;
use rhumb_bench_tools::h1::{Request, RequestReader, field};
use rhumb_bench_tools::poll::{Poller, Ready, listen, raise_open_files};

fn main() -> Result<(), String> {
    let args = Args::parse(&["addr"])?;
    raise_open_files();
    let listener = listen(args.value::<SocketAddr>("addr", "127.0.0.1:9100")?).map_err(|e| e.to_string())?;
    Backend::open(listener).and_then(|mut b| b.run()).map_err(|e| e.to_string())
}

struct Backend {
    listener: TcpListener,
    poller: Poller,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    answers: Answers,
    /// When a delayed answer is due, and on which connection.
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    buffer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    requests: RequestReader,
    answers: VecDeque<Answer>,
}

struct Answer {
    bytes: Rc<[u8]>,
    sent: usize,
    due: Option<Instant>,
    is_last: bool,
}

impl Backend {
    fn open(listener: TcpListener) -> io::Result<Self> {
        let poller = Poller::open()?;
        poller.watch(&listener, LISTENER)?;
        Ok(Self {
            listener,
            poller,
            connections: Vec::new(),
            free: Vec::new(),
            answers: Answers::default(),
            timers: BinaryHeap::new(),
            buffer: vec![0; READ],
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        loop {
            let now = Instant::now();
            let timeout = self.timers.peek().map(|Reverse((due, _))| due.saturating_duration_since(now));
            self.poller.wait(timeout, &mut ready)?;
            for event in &ready {
                match event.token {
                    LISTENER => self.accept()?,
                    token => self.serve(token as usize, *event),
                }
            }
            self.fire();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let id = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.poller.watch(&stream, id as u64)?;
            let connection =
                Connection { stream, requests: RequestReader::default(), answers: VecDeque::new() };
            self.connections[id] = Some(connection);
        }
        Ok(())
    }

    fn serve(&mut self, id: usize, event: Ready) {
        let Some(connection) = &mut self.connections[id] else { return };
        let mut is_open = true;
        if event.readable {
            is_open = connection.read(&mut self.buffer, event.hangup, &mut self.answers);
            if let Some(Answer { due: Some(due), .. }) = connection.answers.front() {
                self.timers.push(Reverse((*due, id)));
            }
        }
        if !(is_open && connection.write()) {
            self.connections[id] = None;
            self.free.push(id);
        }
    }

    /// Writes the answers whose delay is over.
    fn fire(&mut self) {
        while let Some(Reverse((due, id))) = self.timers.peek().copied() {
            if due > Instant::now() {
                return;
            }
            self.timers.pop();
            // The connection may have closed, and another one may have its place: it then has nothing due.
            self.serve(id, Ready { token: id as u64, readable: false, hangup: false, writable: true });
        }
    }
}

impl Connection {
    /// False when the connection is over.
    fn read(&mut self, buffer: &mut [u8], to_the_end: bool, answers: &mut Answers) -> bool {
        loop {
            let n = match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(n) => n,
                Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
            };
            let queue = &mut self.answers;
            let read = self.requests.feed(&buffer[..n], |request| queue.push_back(answers.answer(&request)));
            if read.is_err() {
                return false;
            }
            if n < buffer.len() && !to_the_end {
                return true;
            }
        }
    }

    /// False when the connection is over.
    fn write(&mut self) -> bool {
        while let Some(answer) = self.answers.front_mut() {
            if answer.due.is_some_and(|due| due > Instant::now()) {
                return true;
            }
            match self.stream.write(&answer.bytes[answer.sent..]) {
                Ok(n) => answer.sent += n,
                Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
            }
            if answer.sent == answer.bytes.len() {
                if answer.is_last {
                    return false;
                }
                self.answers.pop_front();
            }
        }
        true
    }
}

/// Whole responses by the length of their content, made once.
#[derive(Default)]
struct Answers(HashMap<usize, Rc<[u8]>>);

impl Answers {
    fn answer(&mut self, request: &Request) -> Answer {
        let line = request.head.split(|b| *b == b'\r').next().unwrap_or_default();
        let (mut delay, mut len) = (0, 0);
        if let Some(at) = memmem::find(line, b"/b/") {
            len = number(&line[at + 3..]).0;
        } else if let Some(at) = memmem::find(line, b"/d/") {
            let (ms, rest) = number(&line[at + 3..]);
            (delay, len) = (ms, number(rest.strip_prefix(b"/").unwrap_or_default()).0);
        }
        let bytes = if memmem::find(line, b"/echo").is_some() {
            whole(&request.head)
        } else {
            Rc::clone(self.0.entry(len).or_insert_with(|| whole(&content(len))))
        };
        Answer {
            bytes,
            sent: 0,
            due: (delay > 0).then(|| Instant::now() + Duration::from_millis(delay as u64)),
            is_last: field(&request.head, b"connection").is_some_and(|v| v.eq_ignore_ascii_case(b"close")),
        }
    }
}

/// A response as an API gives it: nine fields.
fn whole(content: &[u8]) -> Rc<[u8]> {
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\n\
         Server: backend\r\n\
         Date: Fri, 21 Nov 2025 10:00:00 GMT\r\n\
         Content-Type: application/json; charset=utf-8\r\n\
         Content-Length: {}\r\n\
         Cache-Control: private, max-age=0, must-revalidate\r\n\
         ETag: \"8c1b-61f0a4b7d2e40\"\r\n\
         Vary: Accept-Encoding, Origin\r\n\
         Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n\
         X-Content-Type-Options: nosniff\r\n\r\n",
        content.len()
    )
    .into_bytes();
    bytes.extend_from_slice(content);
    bytes.into()
}

fn content(len: usize) -> Vec<u8> {
    (b' '..=b'~').cycle().take(len).collect()
}

fn number(text: &[u8]) -> (usize, &[u8]) {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let value = std::str::from_utf8(&text[..digits]).ok().and_then(|t| t.parse().ok()).unwrap_or(0);
    (value.min(MAX_CONTENT), &text[digits..])
}

const LISTENER: u64 = u64::MAX;
/// Unit: bytes.
const READ: usize = 64 << 10;
/// Longest answer. Unit: bytes.
const MAX_CONTENT: usize = 256 << 20;
