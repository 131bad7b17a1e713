//! The backend of the L4 scenarios: one thread, TCP and UDP on one port number.
//!
//! A message from the client begins with a letter: `e`, answered with itself, or `b`, answered with as many bytes as its
//! next eight say. A ClientHello (its first byte is 22) is answered with 64 bytes. Every datagram is sent back.
//!
//! usage: `backend_l4 --addr 127.0.0.1:9130`

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use rhumb_bench_tools::args::Args;
use rhumb_bench_tools::l4::{CLIENT_HELLO, MESSAGE};
use rhumb_bench_tools::poll::{Poller, listen, raise_open_files};

fn main() -> Result<(), String> {
    let args = Args::parse(&["addr"])?;
    raise_open_files();
    run(args.value("addr", "127.0.0.1:9130")?).map_err(|e| e.to_string())
}

struct Connection {
    stream: TcpStream,
    /// The message that is on its way in.
    message: Vec<u8>,
    /// Bytes still to be sent.
    owed: usize,
}

fn run(addr: SocketAddr) -> io::Result<()> {
    let (listener, datagrams) = (listen(addr)?, UdpSocket::bind(addr)?);
    datagrams.set_nonblocking(true)?;
    let mut poller = Poller::open()?;
    poller.watch(&listener, LISTENER)?;
    poller.watch(&datagrams, DATAGRAMS)?;
    let (mut connections, mut free): (Vec<Option<Connection>>, Vec<usize>) = (Vec::new(), Vec::new());
    let (mut ready, mut buffer) = (Vec::new(), vec![0; 65_536]);
    loop {
        poller.wait(None, &mut ready)?;
        for event in &ready {
            match event.token {
                LISTENER => accept(&listener, &poller, &mut connections, &mut free)?,
                DATAGRAMS => {
                    while let Ok((len, from)) = datagrams.recv_from(&mut buffer) {
                        // What is lost is lost.
                        let _ = datagrams.send_to(&buffer[..len], from);
                    }
                }
                token => {
                    let id = token as usize;
                    let is_open = connections[id].as_mut().is_some_and(|one| one.turn(&mut buffer).is_ok());
                    if !is_open && connections[id].take().is_some() {
                        free.push(id);
                    }
                }
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    poller: &Poller,
    connections: &mut Vec<Option<Connection>>,
    free: &mut Vec<usize>,
) -> io::Result<()> {
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let id = free.pop().unwrap_or_else(|| {
            connections.push(None);
            connections.len() - 1
        });
        poller.watch(&stream, id as u64)?;
        connections[id] = Some(Connection { stream, message: Vec::new(), owed: 0 });
    }
    Ok(())
}

impl Connection {
    /// Goes on as far as the socket lets it; an error ends the connection.
    fn turn(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            while self.owed > 0 {
                let len = self.owed.min(buffer.len());
                match self.stream.write(&buffer[..len]) {
                    Ok(sent) => self.owed -= sent,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.message.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            match self.message.first() {
                Some(&CLIENT_HELLO) => (self.owed, self.message) = (MESSAGE, Vec::new()),
                Some(b'e') if self.message.len() >= MESSAGE => {
                    self.stream.write_all(&self.message)?;
                    self.message.clear();
                }
                Some(b'b') if self.message.len() >= MESSAGE => {
                    let length = self.message[1..9].try_into().map_or(0, u64::from_be_bytes);
                    self.owed = usize::try_from(length).unwrap_or(0);
                    self.message.clear();
                }
                _ => {}
            }
        }
    }
}

const LISTENER: u64 = u64::MAX;
const DATAGRAMS: u64 = u64::MAX - 1;
