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
    /// The bytes. Copied out of the lent buffer: connecting to a backend takes its time.
    pub(crate) bytes: Vec<u8>,
    /// What it says.
    pub(crate) hello: ClientHello,
}

/// Reads until a ClientHello is whole.
pub(crate) async fn read(stream: &mut TcpStream, until: Instant) -> Result<First, NoHello> {
    let mut timer = Timer::new();
    timer.set(until);
    let mut first = Vec::new();
    poll_fn(|cx| {
        // A client that takes its time holds what it has sent, not a buffer.
        let mut lent = Buffer::take();
        let mut len = first.len();
        if let Some(front) = lent.get_mut(..len) {
            front.copy_from_slice(&first);
        }
        loop {
            let room = lent.get_mut(len..MAX_BYTES).unwrap_or_default();
            match socket::poll_read(stream, cx, room) {
                Poll::Pending => {
                    first.extend_from_slice(lent.get(first.len()..len).unwrap_or_default());
                    return timer.poll(cx).map(|()| Err(NoHello::TimedOut));
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(NoHello::Closed)),
                Poll::Ready(Ok(n)) => len += n,
            }
            let bytes = lent.get(..len).unwrap_or_default();
            match peek_client_hello(bytes) {
                Peek::NeedMore if len < MAX_BYTES => {}
                Peek::NeedMore | Peek::TooLong | Peek::Malformed => {
                    return Poll::Ready(Err(NoHello::Malformed));
                }
                Peek::NotTls => return Poll::Ready(Err(NoHello::NotTls)),
                Peek::Hello(hello) => return Poll::Ready(Ok(First { bytes: bytes.to_vec(), hello })),
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
