//! A recording backend and its clients, driven by one thread that takes turns.
//!
//! Nothing here runs in the background: when a client has seen its connection end, every byte that the proxy had sent
//! to the backend before lies in a socket of this process, and [`Stage::settle`] takes it all. So "the backend saw
//! nothing" is a fact, not a matter of waiting long enough.

use crate::message::{Kind, Message, latin};
use crate::wait;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// What the backend is asked to react to.
pub enum Event<'a> {
    /// A connection came in.
    Accepted {
        /// Which one, counted from 0 since the stage was set.
        connection: usize,
    },
    /// A request is complete.
    Request {
        /// On which connection.
        connection: usize,
        /// Which request of that connection, from 0.
        nth: usize,
        /// The request.
        message: &'a Message,
    },
}

/// What the backend does.
#[derive(Debug, Clone)]
pub enum Act {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Ends its direction after what it has to send.
    Finish,
    /// Closes both directions after what it has to send; unread bytes make it a reset.
    Close,
    /// Resets the connection after what it has to send.
    Reset,
}

impl Act {
    /// Sends text.
    pub fn send(text: &str) -> Self {
        Self::Send(text.as_bytes().to_vec())
    }
}

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With FIN.
    Finished,
    /// With RST.
    Reset,
}

/// One socket with what went in and what is to go out.
struct Line {
    stream: Option<TcpStream>,
    received: Vec<u8>,
    ended: Option<Ended>,
    outgoing: Vec<u8>,
    /// Done when `outgoing` is empty.
    last: Option<Act>,
}

/// A connection from the proxy.
pub struct Upstream {
    line: Line,
    read: usize,
    /// Complete requests, in order.
    pub requests: Vec<Message>,
    /// Why the bytes after them are no request, if they cannot become one.
    pub garbage: Option<String>,
}

impl Upstream {
    /// Every byte that came.
    pub fn bytes(&self) -> &[u8] {
        &self.line.received
    }

    /// Bytes after the last complete request.
    pub fn rest(&self) -> &[u8] {
        &self.line.received[self.read..]
    }

    /// How the proxy ended it, if it did.
    pub fn ended(&self) -> Option<Ended> {
        self.line.ended
    }
}

/// A client's connection to the proxy.
pub struct Front {
    line: Line,
}

impl Front {
    /// Every byte that came.
    pub fn bytes(&self) -> &[u8] {
        &self.line.received
    }

    /// How the proxy ended it, if it did.
    pub fn ended(&self) -> Option<Ended> {
        self.line.ended
    }

    /// The responses among the bytes and what is left over; the error of the strict reader.
    pub fn responses(&self) -> Result<(Vec<Message>, &[u8]), String> {
        Message::read_all(&self.line.received, Kind::Response, self.line.ended.is_some())
    }
}

/// Backend, clients, and the script between them.
pub struct Stage {
    listener: TcpListener,
    /// Connections of the proxy, in order.
    pub upstreams: Vec<Upstream>,
    /// Connections of clients, in order.
    pub fronts: Vec<Front>,
    script: Script,
}

type Script = Box<dyn FnMut(Event<'_>) -> Vec<Act>>;

/// An answer of 200 with this content.
pub fn ok(content: &str) -> Vec<Act> {
    vec![Act::send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}", content.len()))]
}

impl Stage {
    /// A backend on a free port; it answers every request with 200 and `ok`.
    pub fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listening socket");
        listener.set_nonblocking(true).expect("a non-blocking socket");
        let mut stage =
            Self { listener, upstreams: Vec::new(), fronts: Vec::new(), script: Box::new(|_| Vec::new()) };
        stage.answer_ok();
        stage
    }

    /// Where the backend listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound socket")
    }

    /// Sets what the backend does from here on.
    pub fn script(&mut self, script: impl FnMut(Event<'_>) -> Vec<Act> + 'static) {
        self.script = Box::new(script);
    }

    /// The backend answers every request with 200 and `ok`.
    pub fn answer_ok(&mut self) {
        self.script(|event| match event {
            Event::Request { message, .. } if message.method() == "HEAD" => {
                vec![Act::send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")]
            }
            Event::Request { .. } => ok("ok"),
            Event::Accepted { .. } => Vec::new(),
        });
    }

    /// A new client connection; returns its index in [`Self::fronts`].
    pub fn connect(&mut self, proxy: SocketAddr) -> usize {
        let stream = TcpStream::connect_timeout(&proxy, wait::LIMIT)
            .unwrap_or_else(|error| panic!("connect to {proxy}: {error}"));
        self.fronts.push(Front { line: Line::new(stream) });
        self.fronts.len() - 1
    }

    /// Queues bytes of a client.
    pub fn send(&mut self, front: usize, bytes: &[u8]) {
        self.fronts[front].line.outgoing.extend_from_slice(bytes);
    }

    /// The client does this after what it has to send.
    pub fn then(&mut self, front: usize, act: Act) {
        self.fronts[front].line.perform(act);
    }

    /// The backend does something unasked on a connection.
    pub fn act(&mut self, upstream: usize, acts: Vec<Act>) {
        for act in acts {
            self.upstreams[upstream].line.perform(act);
        }
    }

    /// Takes turns until the condition holds; false when it does not within the limit.
    pub fn run(&mut self, limit: Duration, mut until: impl FnMut(&Self) -> bool) -> bool {
        let end = Instant::now() + limit;
        loop {
            if until(self) {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.turn(left);
        }
    }

    /// Takes everything that lies in the sockets of this process, until a turn finds nothing.
    pub fn settle(&mut self) {
        while self.turn(Duration::ZERO) {}
    }

    /// Forgets finished clients and all recorded bytes; connections of the proxy that are open and idle stay.
    pub fn clear(&mut self) {
        self.settle();
        self.fronts.clear();
        self.upstreams
            .retain(|up| up.line.stream.is_some() && up.line.ended.is_none() && up.garbage.is_none());
        for up in &mut self.upstreams {
            up.line.received.drain(..up.read);
            up.read = 0;
            up.requests.clear();
        }
    }

    /// Drops all connections of the proxy too.
    pub fn clear_all(&mut self) {
        self.settle();
        self.fronts.clear();
        self.upstreams.clear();
    }

    /// One poll over all sockets, and what it makes possible. False when nothing happened.
    fn turn(&mut self, limit: Duration) -> bool {
        // An end that is due needs no event to happen.
        let lines = self
            .upstreams
            .iter_mut()
            .map(|up| &mut up.line)
            .chain(self.fronts.iter_mut().map(|front| &mut front.line));
        let due = lines.filter(|line| line.last.is_some()).map(Line::flush).filter(|moved| *moved).count();
        if due > 0 {
            return true;
        }
        let lines =
            self.upstreams.iter().map(|up| &up.line).chain(self.fronts.iter().map(|front| &front.line));
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        fds.extend(lines.filter_map(Line::interest));
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        if poll(&mut fds, Some(&limit)).unwrap_or(0) == 0 {
            return false;
        }
        drop(fds);
        let mut moved = self.accept();
        for at in 0..self.upstreams.len() {
            moved |= self.upstreams[at].line.receive();
            // Whatever was received is reacted to in the same turn: no later event will call for it.
            self.react(at);
            moved |= self.upstreams[at].line.flush();
        }
        for front in &mut self.fronts {
            moved |= front.line.receive();
            moved |= front.line.flush();
        }
        moved
    }

    fn accept(&mut self) -> bool {
        let mut moved = false;
        while let Ok((stream, _)) = self.listener.accept() {
            moved = true;
            let connection = self.upstreams.len();
            self.upstreams.push(Upstream {
                line: Line::new(stream),
                read: 0,
                requests: Vec::new(),
                garbage: None,
            });
            let acts = (self.script)(Event::Accepted { connection });
            self.act(connection, acts);
        }
        moved
    }

    fn react(&mut self, connection: usize) {
        loop {
            let up = &mut self.upstreams[connection];
            if up.garbage.is_some() || up.rest().is_empty() {
                return;
            }
            match Message::read(up.rest(), Kind::Request, up.line.ended.is_some()) {
                Ok(None) => return,
                Err(why) => {
                    up.garbage = Some(format!("{why}: {:?}", latin(up.rest())));
                    return;
                }
                Ok(Some((message, used))) => {
                    up.read += used;
                    let nth = up.requests.len();
                    let acts = (self.script)(Event::Request { connection, nth, message: &message });
                    self.upstreams[connection].requests.push(message);
                    self.act(connection, acts);
                }
            }
        }
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

impl Line {
    fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).expect("a non-blocking socket");
        let _ = stream.set_nodelay(true);
        Self { stream: Some(stream), received: Vec::new(), ended: None, outgoing: Vec::new(), last: None }
    }

    fn perform(&mut self, act: Act) {
        match act {
            Act::Send(bytes) => self.outgoing.extend_from_slice(&bytes),
            last => self.last = Some(last),
        }
    }

    fn interest(&self) -> Option<PollFd<'_>> {
        let stream = self.stream.as_ref()?;
        let mut flags = PollFlags::empty();
        if self.ended.is_none() {
            flags |= PollFlags::IN;
        }
        if !self.outgoing.is_empty() {
            flags |= PollFlags::OUT;
        }
        // An ended line with nothing to send would report its hang-up for ever.
        if flags.is_empty() { None } else { Some(PollFd::new(stream, flags)) }
    }

    /// Takes what is there. True when anything happened.
    fn receive(&mut self) -> bool {
        let mut moved = false;
        let Some(stream) = &mut self.stream else { return false };
        let mut buf = [0; 65_536];
        while self.ended.is_none() {
            match stream.read(&mut buf) {
                Ok(0) => self.ended = Some(Ended::Finished),
                Ok(n) => self.received.extend_from_slice(&buf[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => self.ended = Some(Ended::Reset),
            }
            moved = true;
        }
        moved
    }

    /// Sends what the socket takes, then does what was to come last. True when anything happened.
    fn flush(&mut self) -> bool {
        let mut moved = false;
        let Some(stream) = &mut self.stream else { return false };
        while !self.outgoing.is_empty() {
            match stream.write(&self.outgoing) {
                Ok(n) => drop(self.outgoing.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // The peer has closed: what it does not take is gone, what it sent may still be read.
                Err(_) => self.outgoing.clear(),
            }
            moved = true;
        }
        if self.outgoing.is_empty()
            && let Some(last) = self.last.take()
        {
            moved = true;
            match last {
                Act::Finish => drop(stream.shutdown(std::net::Shutdown::Write)),
                Act::Reset => {
                    let _ = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
                    self.stream = None;
                    self.ended.get_or_insert(Ended::Reset);
                }
                _ => {
                    self.stream = None;
                    self.ended.get_or_insert(Ended::Finished);
                }
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_sent_before_the_clients_end_is_recorded() {
        // The client connects to the backend itself: what a transparent proxy would do.
        let mut stage = Stage::new();
        let front = stage.connect(stage.address());
        stage.send(front, b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\nbad");
        assert!(stage.run(wait::LIMIT, |s| !s.fronts[0].bytes().is_empty()));
        stage.settle();
        let up = &stage.upstreams[0];
        assert_eq!(up.requests[0].canonical(&[]), "GET /1 HTTP/1.1|host: a");
        assert!(up.garbage.is_some() && up.rest().starts_with(b"GET /2"));
        assert_eq!(stage.fronts[0].responses().unwrap().0[0].text(), "ok");
    }

    #[test]
    fn acts_happen_after_what_was_to_be_sent() {
        let mut stage = Stage::new();
        stage.script(|event| match event {
            Event::Request { .. } => vec![Act::send("HTTP/1.1 200 OK\r\n\r\nrest"), Act::Close],
            Event::Accepted { .. } => Vec::new(),
        });
        let front = stage.connect(stage.address());
        stage.send(front, b"GET / HTTP/1.1\r\n\r\n");
        assert!(stage.run(wait::LIMIT, |s| s.fronts[0].ended().is_some()));
        assert_eq!(stage.fronts[0].responses().unwrap().0[0].text(), "rest");
    }
}
