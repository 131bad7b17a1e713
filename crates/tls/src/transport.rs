//! The byte transport beneath TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The byte transport beneath TLS: a non-blocking socket.
///
/// An implementation registers the waker of `cx` whenever it returns [`Poll::Pending`]. Nothing
/// here closes the transport: its owner does, after [`TlsStream::poll_shutdown`].
///
/// [`TlsStream::poll_shutdown`]: crate::TlsStream::poll_shutdown
pub trait Transport {
    /// Reads at most `dst.len()` bytes. Zero means that the peer sends no more (a FIN).
    ///
    /// **Errors**: those of the socket.
    fn poll_read(&mut self, cx: &mut Context<'_>, dst: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Takes bytes from the front of `src` and says how many.
    ///
    /// **Errors**: those of the socket.
    fn poll_write(&mut self, cx: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>>;
}

impl Transport for TcpStream {
    // Through `AsyncRead`, not `try_read`: it clears the readiness after a short read, which saves
    // the system call that would only say "would block".
    fn poll_read(&mut self, cx: &mut Context<'_>, dst: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(dst);
        ready!(AsyncRead::poll_read(Pin::new(self), cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(self), cx, src)
    }
}

impl<T: Transport + ?Sized> Transport for &mut T {
    fn poll_read(&mut self, cx: &mut Context<'_>, dst: &mut [u8]) -> Poll<io::Result<usize>> {
        (**self).poll_read(cx, dst)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        (**self).poll_write(cx, src)
    }
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn poll_read(&mut self, cx: &mut Context<'_>, dst: &mut [u8]) -> Poll<io::Result<usize>> {
        (**self).poll_read(cx, dst)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        (**self).poll_write(cx, src)
    }
}
