//! Outgoing connections.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};

use crate::names;
use crate::timer::Timer;

/// Opens a connection to `HOST:PORT`: to the first of its addresses that takes one. For what a process asks of others of the
/// mesh itself; it is let through where connections are captured, as all of its sockets.
///
/// # Errors
/// That the host has no address, or those of the last address.
pub async fn connect_to_host(server: &str) -> io::Result<TcpStream> {
    let (host, port) = names::host_and_port(server)?;
    connect_to(host, port).await
}

/// The same for a host and a port that are known apart.
///
/// # Errors
/// That the host has no address, or those of the last address.
pub async fn connect_to(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in names::addresses(host, port).await? {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        crate::capture::mark(&socket);
        match socket.connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Opens a connection, for a thread that may wait. It is let through where connections are captured.
///
/// # Errors
/// `TimedOut` after `timeout`, else what the operating system says.
pub fn connect_blocking(address: SocketAddr, timeout: Duration) -> io::Result<std::net::TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    crate::capture::mark(&socket);
    socket.connect_timeout(&address.into(), timeout)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// The address of this machine from which `destination` is reached. Nothing is sent.
///
/// # Errors
/// When there is no way to it.
pub fn source_towards(destination: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(destination)?;
    socket.local_addr().map(|source| source.ip())
}

/// Opens a connection within `timeout`, for which the timers of this thread must be [driven](crate::timer::drive).
/// Dropping the future closes the socket.
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
    crate::capture::note(&socket, address);
    let stream = TcpStream::from_std(socket)?;
    let mut timer = Timer::new();
    timer.set(Instant::now() + timeout);
    let ready = {
        let mut ready = pin!(stream.ready(Interest::WRITABLE | Interest::ERROR));
        poll_fn(|cx| match ready.as_mut().poll(cx) {
            Poll::Ready(ready) => Poll::Ready(ready),
            Poll::Pending => timer.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        })
        .await?
    };
    // A connection that failed is told as an error or as closed: only then the socket is asked.
    if ready.is_error() || ready.is_write_closed() {
        stream.take_error()?.map_or(Ok(()), Err)?;
    }
    Ok(stream)
}
