//! Non-blocking reads and writes on a connected socket.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};

/// Reads into `dst`; 0 means the peer has finished sending.
///
/// A short read tells the runtime that the socket is empty, so the next call waits without a system call.
///
/// # Errors
/// The socket's error; the connection is useless then.
#[inline]
pub fn poll_read(stream: &mut TcpStream, cx: &mut Context<'_>, dst: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut buf = ReadBuf::new(dst);
    match Pin::new(stream).poll_read(cx, &mut buf) {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(buf.filled().len())),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending => Poll::Pending,
    }
}

/// Writes what the socket takes of `src`.
///
/// # Errors
/// The socket's error; the connection is useless then.
#[inline]
pub fn poll_write(stream: &mut TcpStream, cx: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
    Pin::new(stream).poll_write(cx, src)
}

/// The same for the last bytes before the sending side is ended: they leave with its FIN, in one segment instead of two.
/// Unless the end follows at once they are late.
///
/// # Errors
/// The socket's error; the connection is useless then.
pub fn poll_write_last(stream: &mut TcpStream, cx: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL | SendFlags::MORE;
        match stream.try_io(Interest::WRITABLE, || Ok(rustix::net::send(&*stream, src, flags)?)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => return Poll::Ready(written),
        }
    }
}

/// Writes what the socket takes of two buffers in one system call.
///
/// # Errors
/// The socket's error; the connection is useless then.
#[inline]
pub fn poll_write_both(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    first: &[u8],
    second: &[u8],
) -> Poll<io::Result<usize>> {
    Pin::new(stream).poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(second)])
}

/// Sends a datagram on a connected socket. Asks the kernel, whatever the runtime has heard: it hears of a fresh socket
/// later than the first datagram is to be sent.
///
/// # Errors
/// `WouldBlock` when the kernel has no room, `ConnectionRefused` when an earlier one was refused (RFC 1122 §4.1.3.3).
#[inline]
pub fn send_datagram(socket: &UdpSocket, datagram: &[u8]) -> io::Result<()> {
    rustix::net::send(socket, datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The same to an address, on a socket that is not connected.
///
/// # Errors
/// As [`send_datagram`].
#[inline]
pub fn send_datagram_to(socket: &UdpSocket, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
    rustix::net::sendto(socket, datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &to)?;
    Ok(())
}

/// Ends the sending side. Never waits.
///
/// # Errors
/// When the connection is gone already.
pub fn shutdown(stream: &TcpStream) -> io::Result<()> {
    match rustix::net::shutdown(stream, rustix::net::Shutdown::Write) {
        Ok(()) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes closing send RST instead of FIN: the only way to say that data which ends with the connection is incomplete.
///
/// # Errors
/// When the connection is gone already.
pub fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO))
}
