//! A TLS connection in memory, with somebody who listens on the line.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rhumb_tls::{ClientTls, Scratch, ServerTlsSet, TlsStream, Transport};

/// Rounds in which a handshake or a message is through, or never is.
const ROUNDS: usize = 50;

/// One direction of a line.
#[derive(Default)]
struct Lane {
    bytes: VecDeque<u8>,
    overheard: Vec<u8>,
}

/// One end of a line.
struct End {
    from: Rc<RefCell<Lane>>,
    to: Rc<RefCell<Lane>>,
}

impl Transport for End {
    fn poll_read(&mut self, _: &mut Context<'_>, dst: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut from = self.from.borrow_mut();
        let len = from.bytes.len().min(dst.len());
        if len == 0 {
            return Poll::Pending;
        }
        for (slot, byte) in dst.iter_mut().zip(from.bytes.drain(..len)) {
            *slot = byte;
        }
        Poll::Ready(Ok(len))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        let mut to = self.to.borrow_mut();
        to.bytes.extend(src);
        to.overheard.extend(src);
        Poll::Ready(Ok(src.len()))
    }
}

/// A connection whose handshake is complete on both sides.
pub(super) struct Line {
    client: TlsStream<End>,
    server: TlsStream<End>,
    lanes: [Rc<RefCell<Lane>>; 2],
}

impl Line {
    /// Connects: the handshake, and a byte each way, since TLS 1.3 tells a client that it is refused only then.
    ///
    /// # Errors
    /// What whoever refuses says.
    pub(super) fn connect(tls: &ClientTls, servers: &ServerTlsSet, endpoint: IpAddr) -> Result<Self, String> {
        let lanes: [Rc<RefCell<Lane>>; 2] = Default::default();
        let end = |from: usize, to: usize| End { from: Rc::clone(&lanes[from]), to: Rc::clone(&lanes[to]) };
        let client = TlsStream::client(end(0, 1), tls, endpoint).map_err(|error| error.to_string())?;
        let mut line = Self { client, server: TlsStream::server(end(1, 0), servers.clone()), lanes };
        line.carry(b"there", true)?;
        line.carry(b"back", false)?;
        Ok(line)
    }

    /// Carries a message from the client to the server, or the other way.
    ///
    /// # Errors
    /// What whoever refuses says; that the message could be read on the line.
    pub(super) fn carry(&mut self, message: &[u8], is_forth: bool) -> Result<(), String> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut scratch = Scratch::new();
        let (from, to) = match is_forth {
            true => (&mut self.client, &mut self.server),
            false => (&mut self.server, &mut self.client),
        };
        let (mut sent, mut read, mut refused) = (0, Vec::new(), None);
        for _ in 0..ROUNDS {
            if sent < message.len() {
                match from.poll_write(&mut cx, &message[sent..], &mut scratch) {
                    Poll::Ready(Ok(len)) => sent += len,
                    Poll::Ready(Err(error)) => refused = Some(error.to_string()),
                    Poll::Pending => {}
                }
            }
            let mut some = [0; 256];
            match to.poll_read(&mut cx, &mut some, &mut scratch) {
                Poll::Ready(Ok(len)) => read.extend_from_slice(&some[..len]),
                Poll::Ready(Err(error)) => return Err(error.to_string()),
                Poll::Pending => {}
            }
            // Who is refused may hear of it later than who refuses.
            if let Some(error) = refused.take() {
                return Err(error);
            }
            if read == message {
                break;
            }
        }
        for lane in &self.lanes {
            let overheard = std::mem::take(&mut lane.borrow_mut().overheard);
            let is_told = overheard.windows(message.len()).any(|window| window == message);
            assert!(!is_told, "a message could be read on the line");
        }
        if read == message { Ok(()) } else { Err("nothing comes through".to_owned()) }
    }

    /// The client's side.
    pub(super) fn client(&self) -> Facts {
        Facts::of(&self.client)
    }

    /// The server's side.
    pub(super) fn server(&self) -> Facts {
        Facts::of(&self.server)
    }
}

/// What one side knows of the other.
pub(super) struct Facts {
    /// Who it is.
    pub(super) peer: Option<rhumb_tls::mesh::PeerSvid>,
    /// What the client asked for.
    pub(super) server_name: Option<String>,
    /// What the two speak.
    pub(super) is_h2: bool,
}

impl Facts {
    fn of(stream: &TlsStream<End>) -> Self {
        Self {
            peer: stream.peer_svid(),
            server_name: stream.server_name().map(str::to_owned),
            is_h2: stream.alpn() == Some(b"h2"),
        }
    }
}
