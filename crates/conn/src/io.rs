//! A byte stream to a peer, plain or TLS.

use std::io;
use std::task::{Context, Poll, ready};

use rhumb_net::socket;
use rhumb_tls::{Scratch, TlsStream};
use tokio::net::TcpStream;

/// A stream to a peer.
pub enum Io {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    /// Reads into `dst`; 0 means that the peer has finished sending.
    ///
    /// # Errors
    /// The stream's error; it is useless then.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, dst: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => socket::poll_read(stream, cx, dst),
            Self::Tls(stream) => Scratch::lend(|scratch| stream.poll_read(cx, dst, scratch)),
        }
    }

    /// Writes what the stream takes of `src`. TLS may keep ciphertext: [`Io::poll_flush`] sends it.
    ///
    /// # Errors
    /// The stream's error; it is useless then.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => socket::poll_write(stream, cx, src),
            Self::Tls(stream) => Scratch::lend(|scratch| stream.poll_write(cx, src, scratch)),
        }
    }

    /// The same for the last bytes before [`Io::poll_shutdown`] or the end of the connection, which must follow at once:
    /// they leave together with it.
    ///
    /// # Errors
    /// The stream's error; it is useless then.
    #[inline]
    pub fn poll_write_last(&mut self, cx: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => socket::poll_write_last(stream, cx, src),
            Self::Tls(_) => self.poll_write(cx, src),
        }
    }

    /// Writes what the stream takes of two buffers, in one system call.
    ///
    /// # Errors
    /// The stream's error; it is useless then.
    #[inline]
    pub fn poll_write_both(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => socket::poll_write_both(stream, cx, first, second),
            Self::Tls(stream) => {
                let both = [io::IoSlice::new(first), io::IoSlice::new(second)];
                Scratch::lend(|scratch| stream.poll_write_vectored(cx, &both, scratch))
            }
        }
    }

    /// Sends what TLS has kept.
    ///
    /// # Errors
    /// The stream's error; it is useless then.
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => stream.poll_flush(cx),
        }
    }

    /// Ends the sending side properly: close_notify, then FIN.
    ///
    /// # Errors
    /// The stream's error; it is useless then.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Poll::Ready(socket::shutdown(stream)),
            Self::Tls(stream) => {
                ready!(stream.poll_shutdown(cx))?;
                Poll::Ready(socket::shutdown(stream.transport()))
            }
        }
    }

    /// Completes the TLS handshake; at once for plain TCP.
    ///
    /// # Errors
    /// Why the handshake failed.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), rhumb_tls::HandshakeError>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Scratch::lend(|scratch| stream.poll_handshake(cx, scratch)),
        }
    }

    /// The socket, when nothing lies between it and the protocol: what splice needs.
    #[inline]
    pub fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(_) => None,
        }
    }

    /// The TLS state, when there is one.
    pub fn tls(&self) -> Option<&TlsStream<TcpStream>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream),
        }
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.transport(),
        }
    }
}
