//! Connections that rules of the kernel brought here: where they were going, and how sockets of this process are let
//! through by these rules.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpStream;

/// The mark of this process's own sockets when nothing else was asked for; `rhumb intercept` lets it through.
pub const DEFAULT_MARK: u32 = 0x5248;

/// 0: sockets are not marked. A property of the process, as the user it runs as is: every socket that it opens towards
/// others must have it, whoever opens it, or what it sends is brought back to it.
static MARK: AtomicU32 = AtomicU32::new(0);

/// Has every outgoing socket of this process marked from here on.
///
/// # Errors
/// When this process may not mark sockets (CAP_NET_ADMIN, or CAP_NET_RAW since Linux 5.17).
pub fn mark_sockets(mark: u32) -> io::Result<()> {
    Socket::new(Domain::IPV4, Type::STREAM, None)?.set_mark(mark)?;
    MARK.store(mark, Ordering::Relaxed);
    Ok(())
}

/// Marks a socket that is about to connect or send, when [`mark_sockets`] asked for it.
#[inline]
pub fn mark(socket: &impl AsFd) {
    let mark = MARK.load(Ordering::Relaxed);
    if mark != 0 {
        // It worked when it was asked for; a socket without the mark is brought back here and refused as a loop.
        let _ = SockRef::from(socket).set_mark(mark);
    }
}

/// Where a redirected connection was going; `None` when it was not redirected but made to this listener.
///
/// Of a socket of both families, IPv4 addresses come as such.
///
/// # Errors
/// When the connection is gone.
pub fn original_destination(stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
    let local = canonical(stream.local_addr()?);
    // SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST are of the family of the packets, not of the socket.
    let asked = match local {
        SocketAddr::V4(_) => rustix::net::sockopt::ip_original_dst(stream).map(SocketAddr::V4),
        SocketAddr::V6(_) => rustix::net::sockopt::ipv6_original_dst(stream).map(SocketAddr::V6),
    };
    match asked {
        Ok(original) if canonical(original) == local => Ok(None),
        Ok(original) => Ok(Some(canonical(original))),
        // The kernel tracks no such connection, or tracks none at all.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOPROTOOPT | rustix::io::Errno::OPNOTSUPP) => {
            Ok(None)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Without scope and flow, which say nothing about a destination that was redirected, and IPv4 as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use tokio::net::TcpListener;

    #[test]
    fn a_connection_that_was_not_redirected_has_no_other_destination() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
                let listener = TcpListener::bind((address, 0)).await.unwrap();
                let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                assert_eq!(original_destination(&stream).unwrap(), None);
            }
        });
    }
}
