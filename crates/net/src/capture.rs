//! Connections that rules of the kernel brought here: where they were going, and how sockets of this process are let
//! through by these rules.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
        // It worked when it was asked for.
        let _ = SockRef::from(socket).set_mark(mark);
    }
}

/// How long a connection that was made without a mark is remembered: it comes back at once or not at all.
const REMEMBERED: Duration = Duration::from_secs(10);

/// Most of them. Beyond it the oldest is forgotten, and with it the way to notice that it came back.
const MOST_REMEMBERED: usize = 1 << 16;

/// Connections of this process that carry no mark although connections are captured.
static UNMARKED: Mutex<Option<Unmarked>> = Mutex::new(None);

/// Whether there is anything in [`UNMARKED`] to look at.
static IS_WATCHING: AtomicBool = AtomicBool::new(false);

#[derive(Default)]
struct Unmarked {
    ends: HashSet<Ends>,
    by_age: VecDeque<(Instant, Ends)>,
}

/// Source and destination, which no other connection has at the same time.
type Ends = (SocketAddr, SocketAddr);

/// For a process that may not mark its sockets: has it notice connections of its own that are brought back to it.
pub fn watch_for_loops() {
    unmarked().get_or_insert_default();
    IS_WATCHING.store(true, Ordering::Relaxed);
}

/// Notes a connection that is being made, for [`is_own`].
#[inline]
pub(crate) fn note(socket: &std::net::TcpStream, destination: SocketAddr) {
    if IS_WATCHING.load(Ordering::Relaxed)
        && let Ok(source) = socket.local_addr()
    {
        remember((canonical(source), canonical(destination)), Instant::now());
    }
}

#[cold]
fn remember(ends: Ends, now: Instant) {
    if let Some(Unmarked { ends: all, by_age }) = unmarked().as_mut() {
        while by_age.front().is_some_and(|(at, _)| now.duration_since(*at) > REMEMBERED)
            || by_age.len() >= MOST_REMEMBERED
        {
            let Some((_, ends)) = by_age.pop_front() else { break };
            all.remove(&ends);
        }
        if all.insert(ends) {
            by_age.push_back((now, ends));
        }
    }
}

/// True for a captured connection from `source` to `destination` that this process has made itself.
#[inline]
pub fn is_own(source: SocketAddr, destination: SocketAddr) -> bool {
    IS_WATCHING.load(Ordering::Relaxed)
        && unmarked()
            .as_ref()
            .is_some_and(|unmarked| unmarked.ends.contains(&(canonical(source), canonical(destination))))
}

fn unmarked() -> MutexGuard<'static, Option<Unmarked>> {
    UNMARKED.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn a_connection_that_came_back_is_known_for_a_while() {
        let address = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let now = Instant::now();
        remember((address(1), address(2)), now);
        assert!(!is_own(address(1), address(2)), "nobody asked for it");
        watch_for_loops();
        remember((address(1), address(2)), now);
        assert!(is_own("[::ffff:127.0.0.1]:1".parse().unwrap(), address(2)));
        assert!(!is_own(address(1), address(3)) && !is_own(address(2), address(1)));
        remember((address(4), address(5)), now + REMEMBERED + Duration::from_secs(1));
        assert!(!is_own(address(1), address(2)) && is_own(address(4), address(5)));
    }

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
