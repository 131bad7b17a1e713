//! Outgoing connections.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Opens a connection within `timeout`. Dropping the future closes the socket.
///
/// # Errors
/// `TimedOut` after `timeout`, else what the operating system says.
pub async fn connect(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    crate::capture::mark(&socket);
    let socket = std::net::TcpStream::from(socket);
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let stream = TcpStream::from_std(socket)?;
    match tokio::time::timeout(timeout, stream.ready(Interest::WRITABLE | Interest::ERROR)).await {
        Ok(ready) => {
            let ready = ready?;
            // A connection that failed is told as an error or as closed: only then the socket is asked.
            if ready.is_error() || ready.is_write_closed() {
                stream.take_error()?.map_or(Ok(()), Err)?;
            }
            Ok(stream)
        }
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
