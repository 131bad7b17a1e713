//! Reading a ClientHello before anybody decides what becomes of the connection.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Instant;

use rhumb_net::buffer::Buffer;
use rhumb_net::socket;
use rhumb_net::timer::Timer;
use rhumb_tls::{ClientHello, MAX_CLIENT_HELLO, Peek, peek_client_hello};
use tokio::net::TcpStream;

/// The most bytes that are read before a ClientHello must be whole: the longest one, with the headers of the records it
/// may be spread over, fits.
const MAX_BYTES: usize = MAX_CLIENT_HELLO + 4096;

/// Alert descriptions of RFC 8446 §6, RFC 6066 §9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alert {
    /// The ClientHello cannot be decoded.
    DecodeError = 50,
    /// No listener or route has the server name.
    UnrecognizedName = 112,
    /// The route cannot be served.
    InternalError = 80,
}

/// Why there is no ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHello {
    /// The client went away.
    Closed,
    /// It took too long.
    TimedOut,
    /// Something other than TLS.
    NotTls,
    /// Its framing is wrong, or it is too long.
    Malformed,
}

impl NoHello {
    /// The word in metrics and logs.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Closed => "connection_terminated",
            Self::TimedOut => "timeout",
            Self::NotTls => "not_tls",
            Self::Malformed => "malformed",
        }
    }
}

/// The first bytes of a connection with a whole ClientHello in them.
pub(crate) struct First {
    buffer: Buffer,
    len: usize,
    /// What it says.
    pub(crate) hello: ClientHello,
}

impl First {
    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }
}

/// Reads until a ClientHello is whole.
pub(crate) async fn read(stream: &mut TcpStream, until: Instant) -> Result<First, NoHello> {
    let mut timer = Timer::new();
    timer.set(until);
    let (mut buffer, mut len) = (None, 0);
    poll_fn(|cx| {
        loop {
            // Lent for the time of waiting too: bounded by the time for the handshake and the number of connections.
            let bytes: &mut Buffer = buffer.get_or_insert_with(Buffer::take);
            let room = bytes.get_mut(len..MAX_BYTES).unwrap_or_default();
            match socket::poll_read(stream, cx, room) {
                Poll::Pending if len == 0 => {
                    // A client that says nothing holds nothing.
                    buffer = None;
                    return timer.poll(cx).map(|()| Err(NoHello::TimedOut));
                }
                Poll::Pending => return timer.poll(cx).map(|()| Err(NoHello::TimedOut)),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(NoHello::Closed)),
                Poll::Ready(Ok(n)) => len += n,
            }
            match peek_client_hello(bytes.get(..len).unwrap_or_default()) {
                Peek::NeedMore if len < MAX_BYTES => {}
                Peek::NeedMore | Peek::TooLong | Peek::Malformed => {
                    return Poll::Ready(Err(NoHello::Malformed));
                }
                Peek::NotTls => return Poll::Ready(Err(NoHello::NotTls)),
                Peek::Hello(hello) => {
                    let buffer = buffer.take().unwrap_or_else(Buffer::take);
                    return Poll::Ready(Ok(First { buffer, len, hello }));
                }
            }
        }
    })
    .await
}

/// Sends a fatal alert, as far as the socket takes it at once, and ends the sending side.
pub(crate) async fn alert(stream: &mut TcpStream, alert: Alert) {
    // RFC 8446 §5.1, §6: in plaintext, there are no keys yet.
    let record = [21, 3, 3, 0, 2, 2, alert as u8];
    let _ = poll_fn(|cx| Poll::Ready(socket::poll_write(stream, cx, &record))).await;
    let _ = socket::shutdown(stream);
}
