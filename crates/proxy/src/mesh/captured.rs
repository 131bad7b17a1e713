//! Connections that were made without knowledge of the proxy: those of the workload to others, and those of others to the
//! workload. Where each leads is known from the address that it was made to, or from what its client asks for.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_base::virtual_address;
use rhumb_plan::Port;
use rhumb_plan::mesh::{Exit, Place};
use rhumb_telemetry::Metric;
use rhumb_tls::{Peek, peek_client_hello};
use tokio::net::TcpStream;

use super::{LOOK_AGAIN, Spoken, dispatch, outbound, spoken};
use crate::discovery::Answer;
use crate::l4::header::Ends;
use crate::l4::leave::{Stranger, leave, refuse};
use crate::l4::outside::{Host, Outside};
use crate::worker::{Member, Worker};

/// A connection of the workload that was made to another address.
pub(super) fn captured(
    worker: &Rc<Worker>,
    port: &Arc<Port>,
    stream: TcpStream,
    peer: SocketAddr,
    member: Member,
) {
    let Some(destination) = destination(worker, port, &stream, peer) else { return };
    let ends = Ends { client: peer, destination: Some(destination) };
    let plan = worker.plan();
    let Some(mesh) = &plan.mesh else { return };
    match mesh.at(&destination) {
        Some(name) => outbound(worker, &name, stream, ends, member),
        None => {
            let (worker, port) = (Rc::clone(worker), Arc::clone(port));
            tokio::task::spawn_local(unknown(worker, port, stream, ends, destination, member));
        }
    }
}

/// A connection to an address that no plan knows.
async fn unknown(
    worker: Rc<Worker>,
    port: Arc<Port>,
    stream: TcpStream,
    ends: Ends,
    destination: SocketAddr,
    member: Member,
) {
    let address = destination.ip().to_canonical();
    let mut answer = Answer::Unknown;
    let name: Option<Arc<str>> = worker.outside.name(address).map(Into::into);
    if name.is_none() && worker.discovery.is_asked() {
        answer = worker.discovery.ask(destination).await.unwrap_or_else(|limit| {
            worker.metrics.borrow_mut().limit(limit);
            Answer::Unknown
        });
    }
    // What was learned may be in another plan than the one before.
    let plan = worker.plan();
    let Some(mesh) = &plan.mesh else { return };
    let service = match &answer {
        Answer::Service(service) => mesh.outbound.get_key_value(service).map(|(name, _)| Arc::clone(name)),
        _ => mesh.at(&destination),
    };
    if let Some(service) = service {
        return outbound(&worker, &service, stream, ends, member);
    }
    let is_virtual = virtual_address::is_virtual(address);
    let address = Some(address).filter(|_| !is_virtual);
    let mut stranger = Stranger { name, address };
    let mut exit = stranger.exit(mesh);
    let is_decided = !mesh.exits_have_names() && exit != Exit::Gateway && !is_virtual;
    if stranger.name.is_none() && !is_decided {
        // A name is what the gateway decides about best, and what lists may name; without one the address has to do.
        let can_do = address.is_some() && exit != Exit::Refused;
        let wait = if can_do { SOON.min(port.settings.header_timeout) } else { port.settings.header_timeout };
        let asked = asked_name(&stream, Instant::now() + wait).await;
        stranger.name = asked.and_then(|asked| Host::parse(&asked).shared_name());
        exit = stranger.exit(mesh);
    }
    let to = match (stranger.name.clone(), address) {
        // From here it goes where the workload has found out that the name leads.
        (_, Some(address)) if exit == Exit::Direct => Host::Address(address),
        (Some(name), _) => Host::Name(name),
        (None, Some(address)) => Host::Address(address),
        // Nobody is there but who the mesh leads there.
        (None, None) => return refuse(&worker, &port, &stream, "no_service"),
    };
    let to = Outside { host: to, port: destination.port() };
    drop(plan);
    leave(worker, port, stream, ends, to, (stranger, exit), member).await;
}

/// How long a client may take to ask for a name where the address alone would do. One that waits for the other side to speak
/// first is kept waiting for as long.
const SOON: Duration = Duration::from_millis(200);

/// Bytes in which a client has said what it asks for, or nothing is known of it.
const ASKED: usize = 16 << 10;

/// The name that a client asks for with its first bytes: the server name of TLS, or the host of a request of HTTP/1.
async fn asked_name(stream: &TcpStream, until: Instant) -> Option<String> {
    let mut bytes = vec![0; ASKED];
    let wait = async {
        loop {
            let read = stream.peek(&mut bytes).await.ok().filter(|read| *read > 0)?;
            let first = bytes.get(..read).unwrap_or_default();
            match peek_client_hello(first) {
                Peek::Hello(hello) => return hello.server_name.map(|name| name.to_string()),
                Peek::NotTls if spoken(first) == Some(Spoken::Other) => return None,
                Peek::NotTls => {
                    if let Some(host) = host(first) {
                        return Some(host);
                    }
                }
                Peek::NeedMore => {}
                Peek::TooLong | Peek::Malformed => return None,
            }
            if read >= ASKED {
                return None;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout_at(until.into(), wait).await.ok().flatten()
}

/// The host of a request of HTTP/1, in lower case and without its port, once its field is there.
fn host(first: &[u8]) -> Option<String> {
    let mut lines = first.split_inclusive(|&b| b == b'\n').skip(1).filter(|line| line.ends_with(b"\n"));
    let value = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(5)?;
        name.eq_ignore_ascii_case(b"host:").then_some(value)
    })?;
    let authority = std::str::from_utf8(value.trim_ascii()).ok()?;
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    Some(host.trim_end_matches('.').to_ascii_lowercase())
}

/// Where a captured connection was going; nothing for one that was made to the socket itself, or by this process: either
/// would come back for ever.
fn destination(worker: &Worker, port: &Port, stream: &TcpStream, peer: SocketAddr) -> Option<SocketAddr> {
    let destination = rhumb_net::capture::original_destination(stream).ok().flatten();
    let reason = match destination {
        None => "not_captured",
        Some(destination) if rhumb_net::capture::is_own(peer, destination) => {
            tracing::warn!(%destination, "a connection of this process was brought back to it");
            "loop"
        }
        Some(destination) => return Some(destination),
    };
    worker.metrics.borrow_mut().add(Metric::ConnectionsRefused, &[port.name.as_str(), reason], 1);
    let _ = rhumb_net::socket::reset_on_close(stream);
    None
}

/// A connection to the workload that no proxy has made.
pub(super) fn captured_inbound(
    worker: &Rc<Worker>,
    port: &Arc<Port>,
    stream: TcpStream,
    peer: SocketAddr,
    member: Member,
) {
    let Some(destination) = destination(worker, port, &stream, peer) else { return };
    let plan = worker.plan();
    let Some(mesh) = &plan.mesh else { return };
    let refuse = |reason: &str| refuse(worker, port, &stream, reason);
    if !mesh.is_permissive {
        tracing::debug!(%peer, "plain text to the workload is refused");
        return refuse("plaintext");
    }
    let Some((name, service)) =
        mesh.inbound_ports.get(&destination.port()).and_then(|name| mesh.inbound.get_key_value(name))
    else {
        return refuse("no_service");
    };
    worker.plaintext.note(peer.ip().to_canonical());
    let ends = Ends { client: peer, destination: Some(destination) };
    dispatch(worker, service, Place::Inbound(Arc::clone(name)), stream, ends, member);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_request_is_known_once_its_line_is_whole() {
        for (first, found) in [
            (&b"GET / HTTP/1.1\r\nAccept: a\r\nHOST: Api.Example.com:80\r\n"[..], Some("api.example.com")),
            (b"GET / HTTP/1.1\r\nHost: api.example.com", None),
            (b"GET / HTTP/1.1\r\nX-Host: a\r\nHost: b.\r\n\r\n", Some("b")),
            (b"GET / HTTP/1.1\r\n\r\n", None),
        ] {
            assert_eq!(host(first).as_deref(), found, "{}", String::from_utf8_lossy(first));
        }
    }
}
