//! A blocking HTTP/1.1 client over a plain socket.

use crate::message::{Kind, Message, latin};
use crate::wait;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// One connection.
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    ended: bool,
}

impl Client {
    /// Connects; panics when nobody listens.
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    /// Connects.
    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, wait::LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(wait::LIMIT))?;
        stream.set_write_timeout(Some(wait::LIMIT))?;
        Ok(Self { stream, received: Vec::new(), ended: false })
    }

    /// The socket, for options and for tests that go their own way.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the peer takes what is sent");
    }

    /// Sends bytes.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Ends our direction (FIN).
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// The next message, interim responses (1xx) included.
    pub fn next_response(&mut self, kind: Kind) -> Message {
        self.try_response(kind)
            .unwrap_or_else(|why| panic!("no response: {why}; received {:?}", latin(&self.received)))
    }

    /// The next message that is not interim.
    pub fn response(&mut self) -> Message {
        loop {
            let message = self.next_response(Kind::Response);
            if message.status() >= 200 || message.status() == 101 {
                return message;
            }
        }
    }

    /// The next message, or why there is none.
    pub fn try_response(&mut self, kind: Kind) -> Result<Message, String> {
        loop {
            if let Some((message, used)) = Message::read(&self.received, kind, self.ended)? {
                self.received.drain(..used);
                return Ok(message);
            }
            if self.ended {
                return Err("the connection ended".into());
            }
            self.fill().map_err(|error| error.to_string())?;
        }
    }

    /// Sends a request and reads its response.
    pub fn exchange(&mut self, request: impl AsRef<[u8]>) -> Message {
        self.send(request);
        self.response()
    }

    /// Sends GET with a Host field and reads the response.
    pub fn get(&mut self, authority: &str, target: &str) -> Message {
        self.exchange(format!("GET {target} HTTP/1.1\r\nHost: {authority}\r\n\r\n"))
    }

    /// Raw bytes until at least `count` are there.
    pub fn read_exact(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            assert!(!self.ended, "the connection ended after {:?}", latin(&self.received));
            self.fill().expect("bytes in time");
        }
        self.received.drain(..count).collect()
    }

    /// Everything until the peer closes. A reset counts as a close.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while !self.ended {
            if let Err(error) = self.fill() {
                match error.kind() {
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => break,
                    _ => panic!("the peer does not close: {error}; received {:?}", latin(&self.received)),
                }
            }
        }
        std::mem::take(&mut self.received)
    }

    fn fill(&mut self) -> std::io::Result<()> {
        let mut buf = [0; 65_536];
        let n = match self.stream.read(&mut buf) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        };
        self.ended = n == 0;
        self.received.extend_from_slice(&buf[..n]);
        Ok(())
    }
}

/// One GET on its own connection.
pub fn get(address: SocketAddr, authority: &str, target: &str) -> Message {
    Client::connect(address)
        .exchange(format!("GET {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n"))
}
