//! Questions that the machine's name servers answer: their bytes go on as they are, and so do those of the answer.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

/// How long one name server may take. What resolv.conf(5) gives it by default is 5 s, so two fit into one try of a program.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often each is asked.
const ROUNDS: usize = 2;

/// Longest datagram.
const LONGEST: usize = 65_535;

/// The name servers of this machine.
pub(crate) struct Forwarder {
    servers: Box<[SocketAddr]>,
    /// Ports from which questions are on their way.
    ports: Mutex<HashSet<u16>>,
}

impl Forwarder {
    pub(crate) fn new(servers: &[SocketAddr]) -> Self {
        Self { servers: servers.into(), ports: Mutex::default() }
    }

    /// True when a question comes from a port that this process asks from: rules bring its own questions back.
    pub(crate) fn is_own(&self, port: u16) -> bool {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).contains(&port)
    }

    /// Asks over UDP. `None` when no server answered. **Cancel**: nothing is left.
    pub(crate) async fn ask(&self, question: &[u8]) -> Option<Vec<u8>> {
        for _ in 0..ROUNDS {
            for &server in &self.servers {
                match tokio::time::timeout(PATIENCE, self.ask_one(server, question)).await {
                    Ok(Ok(answer)) => return Some(answer),
                    Ok(Err(error)) => tracing::debug!(%server, %error, "name server"),
                    Err(_) => tracing::debug!(%server, "name server does not answer"),
                }
            }
        }
        None
    }

    async fn ask_one(&self, server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        // A socket per question has a port of its own that nobody can guess (RFC 5452 §9.2), beside the program's id.
        let socket = UdpSocket::bind(any).await?;
        rhumb_net::capture::mark(&socket);
        let _own = self.own(socket.local_addr()?.port());
        socket.connect(server).await?;
        socket.send(question).await?;
        let mut answer = vec![0; LONGEST];
        loop {
            let len = socket.recv(&mut answer).await?;
            if answer.get(..len).is_some_and(|answer| answers(question, answer)) {
                answer.truncate(len);
                return Ok(answer);
            }
        }
    }

    /// Asks over TCP. As [`Self::ask`].
    pub(crate) async fn ask_long(&self, question: &[u8]) -> Option<Vec<u8>> {
        for &server in &self.servers {
            match tokio::time::timeout(2 * PATIENCE, self.ask_one_long(server, question)).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "name server over TCP"),
                Err(_) => tracing::debug!(%server, "name server does not answer over TCP"),
            }
        }
        None
    }

    async fn ask_one_long(&self, server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = rhumb_net::connect::connect(server, PATIENCE).await?;
        let _own = self.own(stream.local_addr()?.port());
        stream.write_all(&framed(question)?).await?;
        let answer = read_framed(&mut stream).await?;
        if answers(question, &answer) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn own(&self, port: u16) -> Own<'_> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
        Own { ports: &self.ports, port }
    }
}

/// A port that is asked from, for as long as this lives.
struct Own<'a> {
    ports: &'a Mutex<HashSet<u16>>,
    port: u16,
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.port);
    }
}

/// A message as TCP carries it (RFC 1035 §4.2.2).
///
/// # Errors
/// When it is too long for a message.
pub(crate) fn framed(message: &[u8]) -> io::Result<Vec<u8>> {
    let len = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut out = Vec::with_capacity(message.len().saturating_add(2));
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(message);
    Ok(out)
}

/// Reads a message of [`framed`].
///
/// # Errors
/// The connection's error; `UnexpectedEof` when it ends before the message does.
pub(crate) async fn read_framed(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// True when a message answers a question: the same id, marked as an answer, about the same (RFC 5452 §9.1).
fn answers(question: &[u8], answer: &[u8]) -> bool {
    let (Some(asked), Some(told)) = (asks(question), asks(answer)) else {
        // A server that could not read the question (FORMERR) may answer with the head alone (RFC 1035 §4.1.1).
        return matches!((question.get(..2), answer), (Some(id), [a, b, flags, _, 0, 0, ..])
            if id == [*a, *b] && flags & 0x80 != 0);
    };
    question.get(..2) == answer.get(..2)
        && answer.get(2).is_some_and(|flags| flags & 0x80 != 0)
        && asked.eq_ignore_ascii_case(told)
}

/// The bytes of the first question: labels, type and class.
fn asks(message: &[u8]) -> Option<&[u8]> {
    if message.get(4..6)? == [0, 0] {
        return None;
    }
    let rest = message.get(12..)?;
    let mut at = 0_usize;
    loop {
        match rest.get(at)? {
            0 => break,
            // Nothing stands before the first question that it could point to.
            len @ 1..=63 => at = at.checked_add(usize::from(*len) + 1)?,
            _ => return None,
        }
    }
    rest.get(..at.checked_add(5)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x02bc\x00\x00\x01\x00\x01";

    fn with(at: usize, byte: u8) -> Vec<u8> {
        let mut answer = QUESTION.to_vec();
        answer[2] = 0x81;
        answer[at] = byte;
        answer
    }

    #[test]
    fn only_an_answer_to_this_question_is_taken() {
        assert!(answers(QUESTION, &with(13, b'A')));
        assert!(answers(QUESTION, b"\x12\x34\x81\x01\x00\x00\x00\x00\x00\x00\x00\x00"));
        for (at, byte) in [(0, 0), (2, 0x01), (13, b'b'), (18, 28), (12, 0xc0), (12, 63)] {
            assert!(!answers(QUESTION, &with(at, byte)), "{at}");
        }
        for len in 0..QUESTION.len() {
            assert!(!answers(QUESTION, &with(2, 0x81)[..len]), "{len}");
        }
    }
}
