//! The floor of the L4 scenarios: a relay with none of a proxy's duties. One thread, one backend, edge-triggered epoll, as
//! few system calls as sockets allow. No limits, no counters, no log, no timers, no choice of endpoint, no half-close.
//!
//! usage: `relay_l4 --addr 127.0.0.1:9140 --to 127.0.0.1:9130`

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use rhumb_bench_tools::args::Args;
use rhumb_bench_tools::poll::{Poller, listen, raise_open_files};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, connect, recv, send, sockopt,
    socket_with,
};

fn main() -> Result<(), String> {
    let args = Args::parse(&["addr", "to"])?;
    raise_open_files();
    run(args.value("addr", "127.0.0.1:9140")?, args.value("to", "127.0.0.1:9130")?).map_err(|e| e.to_string())
}

/// One side of a connection.
struct Side {
    socket: OwnedFd,
    other: usize,
    /// Bytes that the other side has not taken.
    held: Vec<u8>,
}

/// The sockets of one client of the UDP half.
struct Session {
    socket: UdpSocket,
    client: SocketAddr,
}

struct Relay {
    poller: Poller,
    to: SocketAddr,
    sides: Vec<Option<Side>>,
    free: Vec<usize>,
    sessions: Vec<Session>,
    by_client: HashMap<SocketAddr, usize>,
}

fn run(addr: SocketAddr, to: SocketAddr) -> io::Result<()> {
    let (listener, datagrams) = (listen(addr)?, UdpSocket::bind(addr)?);
    // Accepted sockets inherit it.
    sockopt::set_tcp_nodelay(&listener, true)?;
    datagrams.set_nonblocking(true)?;
    let poller = Poller::open()?;
    poller.watch(&listener, LISTENER)?;
    poller.watch(&datagrams, DATAGRAMS)?;
    let mut relay = Relay {
        poller,
        to,
        sides: Vec::new(),
        free: Vec::new(),
        sessions: Vec::new(),
        by_client: HashMap::new(),
    };
    let (mut ready, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        relay.poller.wait(None, &mut ready)?;
        for event in &ready {
            match event.token {
                LISTENER => relay.accept(&listener)?,
                DATAGRAMS => relay.datagrams(&datagrams, &mut buffer)?,
                token if token >= SESSIONS => relay.answers((token - SESSIONS) as usize, &datagrams, &mut buffer),
                token => {
                    let id = token as usize;
                    let other = relay.sides[id].as_ref().map(|side| side.other);
                    let Some(other) = other else { continue };
                    if (event.writable && !relay.flush(other)) || (event.readable && !relay.turn(id, event.hangup, &mut buffer)) {
                        relay.close(id);
                    }
                }
            }
        }
    }
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        while let Ok(down) = accept_with(listener, SocketFlags::NONBLOCK) {
            let up = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None)?;
            sockopt::set_tcp_nodelay(&up, true)?;
            let v = std::env::var("EAGER").unwrap_or_default();
            if v.contains('q') { sockopt::set_tcp_quickack(&up, false)?; }
            match connect(&up, &self.to) {
                Ok(()) | Err(Errno::INPROGRESS) => {}
                Err(error) => return Err(error.into()),
            }
            let (a, b) = (self.place(), self.place());
            self.poller.watch(&down, a as u64)?;
            self.poller.watch(&up, b as u64)?;
            self.sides[a] = Some(Side { socket: down, other: b, held: Vec::new() });
            self.sides[b] = Some(Side { socket: up, other: a, held: Vec::new() });
            if v.contains('e') && !self.turn(a, false, &mut vec![0; 4096]) { self.close(a); }
        }
        Ok(())
    }

    fn place(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.sides.push(None);
            self.sides.len() - 1
        })
    }

    fn close(&mut self, id: usize) {
        let Some(side) = self.sides[id].take() else { return };
        self.sides[side.other] = None;
        self.free.extend([id, side.other]);
    }

    /// Sends what `id` holds; false when the connection is over.
    fn flush(&mut self, id: usize) -> bool {
        let Some(side) = &mut self.sides[id] else { return true };
        if side.held.is_empty() {
            return true;
        }
        let held = std::mem::take(&mut side.held);
        let other = side.other;
        self.pass(id, other, &held)
    }

    fn pass(&mut self, id: usize, other: usize, bytes: &[u8]) -> bool {
        let Some(sink) = &self.sides[other] else { return false };
        let sent = match send(&sink.socket, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => sent,
            Err(Errno::AGAIN) => 0,
            Err(_) => return false,
        };
        if sent < bytes.len()
            && let Some(side) = &mut self.sides[id]
        {
            side.held = bytes[sent..].to_vec();
        }
        true
    }

    /// Carries what has come on one side to the other; false when the connection is over.
    fn turn(&mut self, id: usize, has_ended: bool, buffer: &mut [u8]) -> bool {
        loop {
            let Some(side) = &self.sides[id] else { return true };
            if !side.held.is_empty() {
                return true;
            }
            let other = side.other;
            match recv(&side.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) => return false,
                Ok((len, _)) => {
                    if !self.pass(id, other, &buffer[..len]) {
                        return false;
                    }
                    // A short read has emptied the socket: another edge tells of more, unless it was the last.
                    if len < buffer.len() && !has_ended {
                        return true;
                    }
                }
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
    }

    fn datagrams(&mut self, socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<()> {
        while let Ok((len, client)) = socket.recv_from(buffer) {
            let id = match self.by_client.get(&client) {
                Some(&id) => id,
                None => {
                    let up = UdpSocket::bind(("127.0.0.1", 0))?;
                    up.connect(self.to)?;
                    up.set_nonblocking(true)?;
                    let id = self.sessions.len();
                    self.poller.watch(up.as_fd(), SESSIONS + id as u64)?;
                    self.sessions.push(Session { socket: up, client });
                    self.by_client.insert(client, id);
                    id
                }
            };
            let _ = self.sessions[id].socket.send(&buffer[..len]);
        }
        Ok(())
    }

    /// One read per event: the load has one datagram of a session under way.
    fn answers(&mut self, id: usize, socket: &UdpSocket, buffer: &mut [u8]) {
        let session = &self.sessions[id];
        if let Ok(len) = session.socket.recv(buffer) {
            let _ = socket.send_to(&buffer[..len], session.client);
        }
    }
}

const LISTENER: u64 = u64::MAX;
const DATAGRAMS: u64 = u64::MAX - 1;
/// Tokens of sessions begin here, those of connections below.
const SESSIONS: u64 = 1 << 32;
