//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rhumb_telemetry::Metric;
use tokio::net::{TcpListener, TcpStream};

use crate::downstream;
use crate::l4;
use crate::l4::header::Ends;
use crate::worker::Worker;

/// How long accepting pauses when the process is out of descriptors or memory: trying at once would only burn CPU.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until its task is aborted.
pub(crate) async fn accept(worker: Rc<Worker>, address: SocketAddr, socket: Rc<TcpListener>) {
    let Some(name) = worker.plan().port(address).map(|port| port.name.clone()) else { return };
    let (accepted, refused) = {
        let mut metrics = worker.metrics.borrow_mut();
        let accepted = metrics.counter(Metric::ConnectionsAccepted, &[name.as_str()]);
        (accepted, metrics.counter(Metric::ConnectionsRefused, &[name.as_str(), "connection_limit"]))
    };
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                accepted.increment();
                if !begin(&worker, address, stream, peer) {
                    refused.increment();
                }
            }
            Err(error) => {
                worker.metrics.borrow_mut().add(Metric::AcceptErrors, &[name.as_str(), reason(&error)], 1);
                // A connection that was reset in the queue is the client's business; anything else needs time.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    tracing::warn!(%address, %error, "accepting connections failed");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
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

/// Serves a connection; false when there are too many.
fn begin(worker: &Rc<Worker>, address: SocketAddr, stream: TcpStream, peer: SocketAddr) -> bool {
    let plan = worker.plan();
    // The listener was removed while this connection was in the queue.
    let Some(port) = plan.port(address) else { return true };
    let has_room = worker.all_open() < port.settings.max_connections;
    if has_room {
        if port.l4.is_some() || port.settings.proxy_protocol.is_some() {
            l4::tcp::start(worker, port, stream, peer);
        } else {
            downstream::start(worker, port, stream, Ends { client: peer, destination: None });
        }
    }
    has_room
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
