//! Accepting connections.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_plan::{Plan, Port};
use rhumb_telemetry::{Limit, Metric};
use tokio::net::{TcpListener, TcpStream};

use crate::downstream;
use crate::l4;
use crate::l4::header::Ends;
use crate::mesh;
use crate::worker::{self, Worker};

/// How long accepting pauses when the process is out of descriptors or memory: trying at once would only burn CPU.
const PAUSE: Duration = Duration::from_millis(50);

/// Far enough in the future that every pooled connection has rested too long.
const FAR: Duration = Duration::from_secs(30 * 86_400);

/// Ages of resting connections that are closed when descriptors run out, one after the other.
const AGES: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(1), Duration::ZERO];

/// How often running out of descriptors is told.
const TELL: Duration = Duration::from_secs(10);

/// Connections that are accepted and closed at a time when there are no descriptors for them.
const TURNED_AWAY: usize = 64;

/// Connections that are accepted in one turn of the worker. The runtime's share of 128 is too small in an overload, when a
/// turn takes a tenth of a second: connections would wait in the socket's queue for seconds, where nobody sees for how long.
const ACCEPTS: u32 = 1024;

/// Accepts connections until its task is aborted.
pub(crate) async fn accept(worker: Rc<Worker>, address: SocketAddr, socket: Rc<TcpListener>) {
    let Some(name) = worker.plan().port(address).map(|port| port.name.clone()) else { return };
    let accepted = worker.metrics.borrow_mut().counter(Metric::ConnectionsAccepted, &[name.as_str()]);
    let mut drought = Drought::default();
    let mut accepts = 0u32;
    loop {
        match tokio::task::unconstrained(socket.accept()).await {
            Ok((stream, peer)) => {
                accepts += 1;
                if accepts >= ACCEPTS {
                    accepts = 0;
                    tokio::task::yield_now().await;
                }
                drought.attempts = 0;
                accepted.increment();
                if let Err(limit) = begin(&worker, address, stream, peer) {
                    refuse(&worker, name.as_str(), limit, 1);
                }
            }
            Err(error) => {
                let reason = reason(&error);
                worker.metrics.borrow_mut().add(Metric::AcceptErrors, &[name.as_str(), reason], 1);
                // A connection that was reset in the queue is the client's business; anything else needs time.
                if error.kind() == io::ErrorKind::ConnectionAborted {
                    continue;
                }
                let turned_away = drought.relieve(&worker, address, &socket, &error);
                refuse(&worker, name.as_str(), Limit::Descriptors, turned_away);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn refuse(worker: &Worker, name: &str, limit: Limit, connections: u64) {
    let mut metrics = worker.metrics.borrow_mut();
    metrics.limit(limit);
    if connections > 0 {
        metrics.add(Metric::ConnectionsRefused, &[name, limit.name()], connections);
    }
}

/// A time without descriptors or memory for another connection.
#[derive(Default)]
struct Drought {
    /// Failures one after the other.
    attempts: usize,
    told: Option<Instant>,
    untold: u64,
}

impl Drought {
    /// Makes room: connections that rest are closed, the longest first, and when that did not help, those that wait are
    /// accepted and closed, so that their clients hear it. Returns how many of these there were.
    fn relieve(
        &mut self,
        worker: &Rc<Worker>,
        address: SocketAddr,
        socket: &TcpListener,
        error: &io::Error,
    ) -> u64 {
        let now = Instant::now();
        self.untold += 1;
        if self.told.is_none_or(|told| now.duration_since(told) >= TELL) {
            tracing::error!(
                %address, %error, times = self.untold, connections = worker.all_open(),
                "no connection can be accepted: closing those that rest"
            );
            (self.told, self.untold) = (Some(now), 0);
        }
        let age = AGES.get(self.attempts).copied();
        self.attempts += 1;
        if let Some(age) = age {
            worker.close_resting(now.checked_sub(age).unwrap_or(now));
            // Pooled connections to backends rest too; a new one is made when it is needed.
            worker.pools.sweep(now + FAR);
            return 0;
        }
        drop(worker.reserve.borrow_mut().take());
        let mut turned_away = 0;
        for _ in 0..TURNED_AWAY {
            match rhumb_net::listen::accept_waiting(socket) {
                Ok(Some(_)) => turned_away += 1,
                Ok(None) | Err(_) => break,
            }
        }
        *worker.reserve.borrow_mut() = worker::reserve();
        turned_away
    }
}

/// Takes the connections that wait in the queue of a socket that is about to be closed: the kernel would reset them.
pub(crate) fn accept_waiting(worker: &Rc<Worker>, address: SocketAddr, socket: &TcpListener) {
    // No more than the queue holds: others may come for as long as it is looked at.
    for _ in 0..rhumb_net::listen::BACKLOG {
        match rhumb_net::listen::accept_waiting(socket) {
            Ok(Some((stream, peer))) => drop(begin(worker, address, stream, peer)),
            Ok(None) => return,
            // That one is lost, perhaps reset by its client; the next one may not be.
            Err(error) => tracing::debug!(%address, %error, "accepting a waiting connection failed"),
        }
    }
}

/// Serves a connection, unless a bound is reached.
fn begin(worker: &Rc<Worker>, address: SocketAddr, stream: TcpStream, peer: SocketAddr) -> Result<(), Limit> {
    let plan = worker.plan();
    // The listener was removed while this connection was in the queue: another may have its address now.
    let Some(port) = plan.port(address).or_else(|| heir(&plan, &stream)) else { return Ok(()) };
    let settings = &port.settings;
    if worker.all_open() >= settings.max_connections {
        return Err(Limit::Connections);
    }
    let place = match settings.max_connections_per_address {
        // A load balancer that says whose connection it is has many clients.
        Some(most) if settings.proxy_protocol.is_none() && !settings.trusts(peer.ip().to_canonical()) => {
            let place = worker.gauge.pressure().admit_address(peer.ip(), most);
            Some(place.ok_or(Limit::ConnectionsPerAddress)?)
        }
        _ => None,
    };
    let member = worker.join(place);
    if let Some(role) = &port.role {
        mesh::start(worker, port, role, stream, peer, member);
    } else if port.l4.is_some() || settings.proxy_protocol.is_some() {
        l4::tcp::start(worker, port, stream, peer, member);
    } else {
        downstream::start(worker, port, stream, Ends { client: peer, destination: None }, member);
    }
    Ok(())
}

/// The listener that would have taken this connection if that of its socket had never been: an address is narrowed to one
/// interface, or widened to all.
fn heir<'a>(plan: &'a Plan, stream: &TcpStream) -> Option<&'a Arc<Port>> {
    let local = stream.local_addr().ok()?;
    let every: IpAddr = match local {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    plan.port(local).or_else(|| plan.port(SocketAddr::new(every, local.port())))
}

fn reason(error: &io::Error) -> &'static str {
    match rustix_errno(error) {
        Some(24) => "process_descriptors",
        Some(23) => "system_descriptors",
        Some(12 | 105) => "memory",
        _ if error.kind() == io::ErrorKind::ConnectionAborted => "aborted",
        _ => "other",
    }
}

// EMFILE 24, ENFILE 23, ENOMEM 12, ENOBUFS 105 on Linux.
fn rustix_errno(error: &io::Error) -> Option<i32> {
    error.raw_os_error()
}
