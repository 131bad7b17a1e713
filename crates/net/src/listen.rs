//! Listening sockets: one per worker and port, the kernel spreads connections over them (SO_REUSEPORT).

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that the kernel keeps ready for `accept`; the kernel lowers it to `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// Opens a listening socket that other workers can share.
///
/// # Errors
/// What the operating system says: the address is in use by another program, is not of this machine, or needs privilege.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Inherited by accepted sockets on Linux: one system call less per connection.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        // [::] means both families, as users of every peer expect.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Bytes of datagrams that the kernel keeps until they are taken; it lowers it to `net.core.rmem_max`.
pub const UDP_QUEUE: usize = 4 << 20;

/// Opens a socket for datagrams that other workers can share: the kernel gives those of one client to one of them.
///
/// # Errors
/// As [`listen`].
pub fn udp(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // With less it works all the same, and loses more when many come at once.
    let _ = socket.set_recv_buffer_size(UDP_QUEUE);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// True when no other program takes datagrams on `address`.
///
/// # Errors
/// The reason why the address cannot be bound.
pub fn probe_udp(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())
}

/// True when no other program listens on `address`. A socket that shares the port cannot tell, so this one does not.
///
/// # Errors
/// The reason why the address cannot be bound.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(1)
}

/// Accepts a connection that waits already; `None` when there is none. Asks the kernel, whatever the runtime has heard.
///
/// # Errors
/// As those of accept(2).
pub fn accept_waiting(listener: &TcpListener) -> io::Result<Option<(TcpStream, SocketAddr)>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let stream = match rustix::net::accept_with(listener, flags) {
        Ok(socket) => std::net::TcpStream::from(socket),
        Err(Errno::AGAIN) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let peer = stream.peer_addr()?;
    Ok(Some((TcpStream::from_std(stream)?, peer)))
}

/// Gives a socket of [`listen`] to the runtime of this thread.
///
/// # Errors
/// When the runtime cannot register it (descriptor limit of epoll).
pub fn register(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    TcpListener::from_std(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_connection_is_found_before_the_runtime_hears_of_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = register(listen(([127, 0, 0, 1], 0).into()).unwrap()).unwrap();
            assert!(accept_waiting(&listener).unwrap().is_none());
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (_, peer) = accept_waiting(&listener).unwrap().unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
            assert!(accept_waiting(&listener).unwrap().is_none());
        });
    }
}
