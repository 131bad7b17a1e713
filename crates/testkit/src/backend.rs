//! An HTTP/1.1 backend with a thread per connection. What it answers is asked for by the path:
//!
//! | path | answer |
//! |---|---|
//! | `/bytes/N` | N bytes of [`pattern()`], Content-Length |
//! | `/chunked/N` | the same, chunked in pieces of 1000 |
//! | `/close/N` | the same, ended by the close |
//! | `/trailers` | chunked `body`, trailer field `x-sum: 42` |
//! | `/status/N` | status N, no content |
//! | `/hints` | 103 with a Link field, then 200 |
//! | `/hold/NAME` | 200 once [`Backend::release`] was called with NAME |
//! | `/part/N/NAME` | N bytes announced, half sent, the rest after release |
//! | `/half/N` | N bytes announced, half sent, then closed |
//! | `/hangup` | closed without an answer |
//! | `/refuse` | 413 before the content is read, then closed |
//! | `/field/NAME/VALUE` | 200 with that field |
//! | anything else | 200, JSON of the request: [`Seen::json`] |

use crate::message::{Framing, Kind, Message, read_field};
use crate::wait;
use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::time::Duration;

/// Content kept per request; more is only counted and summed.
const KEPT: usize = 1024 * 1024;

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// On which connection, from 0.
    pub connection: usize,
    /// Which request of that connection, from 0.
    pub nth: usize,
    /// The request; its content up to 1 MiB.
    pub message: Message,
    /// Bytes of content.
    pub length: u64,
    /// [`sum`] of the content.
    pub sum: u64,
    /// False when the connection ended before the content did.
    pub complete: bool,
}

impl Seen {
    /// `{"connection", "nth", "method", "target", "fields": [[name, value]…], "length", "sum", "content", "trailers"}`.
    pub fn json(&self) -> String {
        let pairs = |fields: &[(String, String)]| {
            let items: Vec<String> =
                fields.iter().map(|(n, v)| format!("[{},{}]", quote(n), quote(v))).collect();
            format!("[{}]", items.join(","))
        };
        format!(
            "{{\"connection\":{},\"nth\":{},\"method\":{},\"target\":{},\"fields\":{},\"length\":{},\"sum\":\"{:016x}\",\"content\":{},\"trailers\":{}}}",
            self.connection,
            self.nth,
            quote(self.message.method()),
            quote(self.message.target()),
            pairs(&self.message.fields),
            self.length,
            self.sum,
            quote(&self.message.text()),
            pairs(&self.message.trailers),
        )
    }
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The content that backends send repeats after this many bytes: a prime, so that lost or swapped pieces show.
const PERIOD: usize = 1_048_573;

/// One period.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mixed = |at: u64| (at ^ (at >> 8) ^ (at >> 16)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..PERIOD as u64).map(|at| (mixed(at) >> 56) as u8).collect()
});

/// The first `count` bytes of what backends send.
pub fn pattern(count: u64) -> Vec<u8> {
    piece(0, count)
}

fn piece(from: u64, to: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity((to - from) as usize);
    let mut at = from;
    while at < to {
        let start = (at % PERIOD as u64) as usize;
        let take = (PERIOD - start).min((to - at) as usize);
        out.extend_from_slice(&PATTERN[start..start + take]);
        at += take as u64;
    }
    out
}

/// FNV-1a, 64 bits: tells whether content arrived whole.
pub fn sum(bytes: &[u8]) -> u64 {
    extend_sum(SUM_START, bytes)
}

const SUM_START: u64 = 0xcbf2_9ce4_8422_2325;

fn extend_sum(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The backend; stops when dropped.
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    name: String,
    seen: Mutex<Vec<Seen>>,
    opened: AtomicUsize,
    open: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
    released: Mutex<BTreeSet<String>>,
    release: Condvar,
    /// Connections that ended while an answer was being sent or a request was half read.
    broken: AtomicUsize,
    stopped: AtomicBool,
}

impl Backend {
    /// A backend on a free port.
    pub fn start() -> Self {
        Self::named("")
    }

    /// The same; each answer carries `x-backend: NAME`.
    pub fn named(name: &str) -> Self {
        Self::on(name, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// The same on a given address.
    pub fn on(name: &str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("a listening socket");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared { name: name.to_owned(), ..Shared::default() });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let connection = accepting.opened.fetch_add(1, Ordering::AcqRel);
                let shared = accepting.clone();
                std::thread::spawn(move || shared.serve(connection, stream));
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("no panic while held").clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.seen.lock().expect("no panic while held").clear();
    }

    /// Waits for a request whose target starts with this.
    pub fn wait_for(&self, target: &str) -> Seen {
        wait::until(&format!("a request for {target}"), || {
            self.seen().into_iter().find(|seen| seen.message.target().starts_with(target))
        })
    }

    /// Lets `/hold/NAME` and `/part/N/NAME` go on, now and from now on.
    pub fn release(&self, name: &str) {
        self.shared.released.lock().expect("no panic while held").insert(name.to_owned());
        self.shared.release.notify_all();
    }

    /// Connections accepted so far.
    pub fn opened(&self) -> usize {
        self.shared.opened.load(Ordering::Acquire)
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }

    /// Connections that ended amid a request or an answer.
    pub fn broken(&self) -> usize {
        self.shared.broken.load(Ordering::Acquire)
    }

    /// Closes every connection, not the listening socket.
    pub fn hang_up(&self) {
        for stream in self.shared.streams.lock().expect("no panic while held").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends: connections and the listening socket are closed.
    pub fn stop(self) {}
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        // Wakes the accepting thread, which then drops the listening socket.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        self.hang_up();
        self.shared.release.notify_all();
    }
}

impl Shared {
    fn serve(&self, connection: usize, stream: TcpStream) {
        self.open.fetch_add(1, Ordering::AcqRel);
        if let Ok(copy) = stream.try_clone() {
            self.streams.lock().expect("no panic while held").push(copy);
        }
        let _ = stream.set_nodelay(true);
        if self.converse(connection, &stream).is_err() {
            self.broken.fetch_add(1, Ordering::AcqRel);
        }
        let _ = stream.shutdown(Shutdown::Both);
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    /// Requests and answers until either side closes between two of them.
    fn converse(&self, connection: usize, stream: &TcpStream) -> io::Result<()> {
        let mut input = BufReader::with_capacity(65_536, stream);
        for nth in 0.. {
            let Some(message) = read_head(&mut input)? else { return Ok(()) };
            let target = message.target().to_owned();
            let words: Vec<&str> = target.split(['/', '?']).skip(1).collect();
            if words.first() == Some(&"refuse") {
                self.record(Seen { connection, nth, message, length: 0, sum: SUM_START, complete: false });
                (&*stream)
                    .write_all(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?;
                return Ok(());
            }
            if message.field("expect").is_some() {
                (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let mut seen = Seen { connection, nth, message, length: 0, sum: SUM_START, complete: true };
            if let Err(error) = read_content(&mut input, &mut seen) {
                seen.complete = false;
                self.record(seen);
                return Err(error);
            }
            self.record(seen.clone());
            if !self.answer(stream, &seen, &words)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn record(&self, seen: Seen) {
        self.seen.lock().expect("no panic while held").push(seen);
    }

    fn wait_release(&self, name: &str) {
        let mut released = self.released.lock().expect("no panic while held");
        while !released.contains(name) && !self.stopped.load(Ordering::Acquire) {
            released = self
                .release
                .wait_timeout(released, Duration::from_millis(50))
                .expect("no panic while held")
                .0;
        }
    }

    /// Sends the answer; false when the connection is to be closed.
    fn answer(&self, mut out: &TcpStream, seen: &Seen, words: &[&str]) -> io::Result<bool> {
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        let head = |start: &str, more: &str| {
            let name =
                if self.name.is_empty() { String::new() } else { format!("x-backend: {}\r\n", self.name) };
            format!("HTTP/1.1 {start}\r\n{name}{more}\r\n")
        };
        let is_head = seen.message.method() == "HEAD";
        match word(0) {
            "bytes" => {
                out.write_all(head("200 OK", &format!("Content-Length: {}\r\n", number(1))).as_bytes())?;
                if !is_head {
                    send_pattern(out, 0, number(1), false)?;
                }
            }
            "chunked" => {
                out.write_all(head("200 OK", "Transfer-Encoding: chunked\r\n").as_bytes())?;
                if !is_head {
                    send_pattern(out, 0, number(1), true)?;
                    out.write_all(b"0\r\n\r\n")?;
                }
            }
            "close" => {
                out.write_all(head("200 OK", "Connection: close\r\n").as_bytes())?;
                send_pattern(out, 0, number(1), false)?;
                return Ok(false);
            }
            "trailers" => {
                out.write_all(head("200 OK", "Trailer: x-sum\r\nTransfer-Encoding: chunked\r\n").as_bytes())?;
                out.write_all(b"4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n")?;
            }
            "status" => {
                let length = if matches!(number(1), 204 | 304) { "" } else { "Content-Length: 0\r\n" };
                out.write_all(head(&format!("{} Status", number(1)), length).as_bytes())?;
            }
            "hints" => {
                out.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")?;
                out.write_all(head("200 OK", "Content-Length: 2\r\n").as_bytes())?;
                out.write_all(b"ok")?;
            }
            "hold" => {
                self.wait_release(word(1));
                out.write_all(head("200 OK", "Content-Length: 4\r\n").as_bytes())?;
                out.write_all(b"held")?;
            }
            "part" => {
                out.write_all(head("200 OK", &format!("Content-Length: {}\r\n", number(1))).as_bytes())?;
                send_pattern(out, 0, number(1) / 2, false)?;
                self.wait_release(word(2));
                send_pattern(out, number(1) / 2, number(1), false)?;
            }
            "half" => {
                out.write_all(head("200 OK", &format!("Content-Length: {}\r\n", number(1))).as_bytes())?;
                send_pattern(out, 0, number(1) / 2, false)?;
                return Ok(false);
            }
            "hangup" => return Ok(false),
            "field" => {
                out.write_all(
                    head("200 OK", &format!("{}: {}\r\nContent-Length: 0\r\n", word(1), word(2))).as_bytes(),
                )?;
            }
            _ => {
                let json = seen.json();
                out.write_all(
                    head(
                        "200 OK",
                        &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", json.len()),
                    )
                    .as_bytes(),
                )?;
                if !is_head {
                    out.write_all(json.as_bytes())?;
                }
            }
        }
        Ok(!seen.message.values("connection").any(|value| value.eq_ignore_ascii_case("close")))
    }
}

fn send_pattern(mut out: &TcpStream, from: u64, to: u64, chunked: bool) -> io::Result<()> {
    let step = if chunked { 1000 } else { 65_536 };
    let mut at = from;
    while at < to {
        let end = to.min(at + step);
        let data = piece(at, end);
        if chunked {
            out.write_all(format!("{:x}\r\n", data.len()).as_bytes())?;
            out.write_all(&data)?;
            out.write_all(b"\r\n")?;
        } else {
            out.write_all(&data)?;
        }
        at = end;
    }
    Ok(())
}

/// `None` when the connection ends between two messages.
fn read_head(input: &mut BufReader<&TcpStream>) -> io::Result<Option<Message>> {
    let mut head = Vec::new();
    loop {
        if input.read_until(b'\n', &mut head)? == 0 {
            return if head.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        if let Some((message, _)) = Message::read_start(&head, Kind::Request).map_err(io::Error::other)? {
            return Ok(Some(message));
        }
    }
}

fn read_content(input: &mut BufReader<&TcpStream>, seen: &mut Seen) -> io::Result<()> {
    match seen.message.framing {
        Framing::Length(length) => take(input, length, seen),
        Framing::Chunked => loop {
            let line = read_line(input)?;
            let size = u64::from_str_radix(&line, 16).map_err(io::Error::other)?;
            if size > 0 {
                take(input, size, seen)?;
                if !read_line(input)?.is_empty() {
                    return Err(io::Error::other("chunk without its line end"));
                }
                continue;
            }
            loop {
                let line = read_line(input)?;
                if line.is_empty() {
                    return Ok(());
                }
                seen.message.trailers.push(read_field(&line).map_err(io::Error::other)?);
            }
        },
        Framing::None | Framing::UntilClose => Ok(()),
    }
}

fn take(input: &mut BufReader<&TcpStream>, length: u64, seen: &mut Seen) -> io::Result<()> {
    let mut left = length;
    let mut buf = [0; 65_536];
    while left > 0 {
        let want = left.min(buf.len() as u64) as usize;
        let n = input.read(&mut buf[..want])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= n as u64;
        seen.length += n as u64;
        seen.sum = extend_sum(seen.sum, &buf[..n]);
        let keep = KEPT.saturating_sub(seen.message.content.len()).min(n);
        seen.message.content.extend_from_slice(&buf[..keep]);
    }
    Ok(())
}

fn read_line(input: &mut BufReader<&TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    line.strip_suffix("\r\n")
        .map(str::to_owned)
        .ok_or_else(|| io::Error::other(format!("line end in {line:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;

    #[test]
    fn answers_what_the_path_asks_for() {
        let backend = Backend::named("one");
        let mut client = Client::connect(backend.address());
        assert_eq!(client.get("a", "/bytes/100000").content, pattern(100_000));
        assert_eq!(client.get("a", "/chunked/4001").content, pattern(4001));
        assert_eq!(client.get("a", "/trailers").trailers, [("x-sum".to_owned(), "42".to_owned())]);
        assert_eq!(client.get("a", "/status/204").status(), 204);
        assert_eq!(client.get("a", "/hints").text(), "ok");
        let posted = client.exchange(
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        );
        assert!(posted.text().contains("\"content\":\"ab\""), "{}", posted.text());
        assert_eq!(client.get("a", "/close/10").content, pattern(10));
        assert_eq!((backend.opened(), backend.seen().len()), (1, 7));
    }
}
