//! The load of the L4 scenarios: messages on open connections, much data, new connections, datagrams.
//!
//! Prints `START` and `END` around the measured window, then one line of JSON. A "request" is a message with its answer;
//! in the modes `connect`, `sni` and `close` it is a whole connection.
//!
//! usage: `load_l4 --mode echo|bulk|connect|sni|close|udp --addr A --conns 64 --length 65536 --warm 0.3 --dur 1`

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rhumb_bench_tools::args::Args;
use rhumb_bench_tools::l4::{self, MESSAGE};
use rhumb_bench_tools::poll::{Poller, raise_open_files};
use rhumb_bench_tools::report::{Report, mark};

fn main() -> Result<(), String> {
    let args = Args::parse(&["mode", "addr", "conns", "length", "warm", "dur", "path", "routes"])?;
    raise_open_files();
    let mode: String = args.value("mode", "echo")?;
    let length: u64 = args.value("length", "65536")?;
    let path = args.value::<String>("path", "/b/128")?.replace("{}", "00000");
    let (message, answer) = match mode.as_str() {
        "echo" | "connect" => (l4::echo(), Some(MESSAGE)),
        "bulk" => (l4::bulk(length), Some(usize::try_from(length).map_err(|e| e.to_string())?)),
        "sni" => (l4::client_hello("server.bench.test"), Some(MESSAGE)),
        "udp" => (vec![b'x'; MESSAGE], Some(MESSAGE)),
        // The answer ends with its connection.
        "close" => (
            format!("GET {path} HTTP/1.1\r\nHost: server.bench.test\r\nConnection: close\r\n\r\n").into_bytes(),
            None,
        ),
        other => return Err(format!("--mode {other:?} is not known")),
    };
    let load = Load {
        addr: args.value("addr", "127.0.0.1:9130")?,
        message,
        answer,
        opens_anew: matches!(mode.as_str(), "connect" | "sni" | "close"),
        is_udp: mode == "udp",
        warm: Duration::from_secs_f64(args.value("warm", "0.3")?),
        window: Duration::from_secs_f64(args.value("dur", "1")?),
    };
    load.run(args.value("conns", "64")?).map_err(|e| e.to_string())
}

struct Load {
    addr: SocketAddr,
    message: Vec<u8>,
    /// Bytes of an answer; `None`: until the connection ends.
    answer: Option<usize>,
    opens_anew: bool,
    is_udp: bool,
    warm: Duration,
    window: Duration,
}

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
        }
    }
}

struct Slot {
    socket: Socket,
    got: usize,
    begun: Duration,
    /// The first bytes of an answer that ends with its connection.
    status: [u8; 12],
}

impl Load {
    fn run(&self, conns: usize) -> io::Result<()> {
        let mut poller = Poller::open()?;
        let start = Instant::now();
        let mut slots = Vec::with_capacity(conns);
        for id in 0..conns {
            slots.push(self.open(&poller, id, start.elapsed())?);
        }
        let mut report = Report::default();
        let (mut counts_from, mut ends) = (None, self.warm + self.window);
        let (mut ready, mut buffer) = (Vec::new(), vec![0; 1 << 18]);
        let mut looked = Duration::ZERO;
        loop {
            let mut now = start.elapsed();
            if counts_from.is_none() && now >= self.warm {
                mark("START");
                now = start.elapsed();
                (counts_from, ends) = (Some(now), now + self.window);
            }
            if now >= ends {
                break;
            }
            poller.wait(Some(TICK.min(ends - now)), &mut ready)?;
            for event in ready.iter().filter(|event| event.readable) {
                let id = event.token as usize;
                loop {
                    let slot = &mut slots[id];
                    match slot.turn(&mut buffer, self.answer) {
                        Ok(false) => break,
                        Ok(true) => {
                            let now = start.elapsed();
                            if counts_from.is_some() {
                                report.latency.record((now - slot.begun).as_nanos() as u64);
                            }
                            if self.opens_anew {
                                *slot = self.open(&poller, id, now)?;
                                break;
                            }
                            slot.ask(&self.message, now)?;
                        }
                        Err(error) => {
                            report.error(|| error.to_string());
                            if report.errors > MAX_ERRORS {
                                ends = Duration::ZERO;
                            }
                            *slot = self.open(&poller, id, start.elapsed())?;
                            break;
                        }
                    }
                }
            }
            // A datagram that was lost is asked for again, and counted as an error.
            if self.is_udp && start.elapsed() - looked > LOST {
                looked = start.elapsed();
                for slot in slots.iter_mut().filter(|slot| looked - slot.begun > LOST) {
                    report.error(|| "a datagram was lost".to_owned());
                    slot.ask(&self.message, looked)?;
                }
            }
        }
        mark("END");
        let window = start.elapsed().saturating_sub(counts_from.unwrap_or_default());
        mark(&report.json(window));
        Ok(())
    }

    fn open(&self, poller: &Poller, id: usize, now: Duration) -> io::Result<Slot> {
        let socket = if self.is_udp {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect(self.addr)?;
            socket.set_nonblocking(true)?;
            Socket::Udp(socket)
        } else {
            let stream = TcpStream::connect(self.addr)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Socket::Tcp(stream)
        };
        poller.watch(&socket, id as u64)?;
        let mut slot = Slot { socket, got: 0, begun: now, status: [0; 12] };
        slot.ask(&self.message, now)?;
        Ok(slot)
    }
}

impl Slot {
    fn ask(&mut self, message: &[u8], now: Duration) -> io::Result<()> {
        (self.got, self.begun) = (0, now);
        // A message is small: a socket with nothing on its way takes it whole.
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(message),
            Socket::Udp(socket) => socket.send(message).map(drop),
        }
    }

    /// True when the answer is complete.
    fn turn(&mut self, buffer: &mut [u8], answer: Option<usize>) -> io::Result<bool> {
        loop {
            let read = match &mut self.socket {
                Socket::Tcp(stream) => stream.read(buffer),
                Socket::Udp(socket) => socket.recv(buffer),
            };
            let len = match read {
                Ok(0) if answer.is_none() && self.status == *b"HTTP/1.1 200" => return Ok(true),
                Ok(0) => return Err(io::Error::other("the connection ended early")),
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            if let Some(to) = self.status.get_mut(self.got..) {
                let taken = to.len().min(len);
                to[..taken].copy_from_slice(&buffer[..taken]);
            }
            self.got += len;
            match answer {
                Some(wanted) if self.got == wanted => return Ok(true),
                Some(wanted) if self.got > wanted => return Err(io::Error::other("more than was asked for")),
                _ => {}
            }
        }
    }
}

/// Longest wait for events: marks are at most this late.
const TICK: Duration = Duration::from_millis(5);
/// After this time a datagram is given up.
const LOST: Duration = Duration::from_millis(250);
/// Errors after which the run ends.
const MAX_ERRORS: u64 = 1000;
