//! Connections of the mesh: from the workload to services that it calls, and from proxies of callers to the workload.
//!
//! What is done with a connection is that of a listener, only that the listener is found by where the connection leads:
//! [`start`] finds it, and the rest goes the ways of [`crate::downstream`] and [`crate::l4`]. Requests and connections
//! between proxies share connections of HTTP/2 ([`tunnel`]); connections travel in CONNECT streams ([`crate::l4::hbone`]).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_codec::head::{Method, RequestHead};
use rhumb_conn::io::Io;
use rhumb_plan::Port;
use rhumb_plan::mesh::{Mesh, Place, Role, Service};
use rhumb_telemetry::Metric;
use rhumb_tls::TlsStream;
use rhumb_tls::mesh::PeerSvid;
use tokio::net::TcpStream;

use crate::downstream::{self, Connection};
use crate::l4;
use crate::l4::header::Ends;
use crate::worker::{Member, Worker};

/// How long bytes that may become a request wait for the next ones, before it is looked again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Bytes by which a request is told from anything else.
const LOOK: usize = 24;

/// What a connection of the mesh knows beside what every connection knows.
pub(crate) struct MeshSide {
    /// Whose requests it carries; nothing for a tunnel whose server name is no service here: it may only CONNECT.
    pub(crate) place: Option<Place>,
    /// Who is at the other end, on connections between proxies.
    pub(crate) peer: Option<PeerSvid>,
    /// Revocations that its peer was looked for in.
    generation: Cell<u64>,
}

impl MeshSide {
    pub(crate) fn new(place: Option<Place>, peer: Option<PeerSvid>, generation: u64) -> Box<Self> {
        Box::new(Self { place, peer, generation: Cell::new(generation) })
    }

    /// True on the side of the service that is called.
    pub(crate) fn is_inbound(&self) -> bool {
        !matches!(self.place, Some(Place::Outbound(_)))
    }

    /// True when the identity of the peer was revoked since it was looked at. One comparison while nothing is.
    #[inline]
    pub(crate) fn is_revoked(&self, mesh: Option<&Mesh>) -> bool {
        let (Some(peer), Some(membership)) = (&self.peer, mesh.and_then(|mesh| mesh.membership.as_ref()))
        else {
            return false;
        };
        let generation = membership.generation();
        if generation == self.generation.get() {
            return false;
        }
        if membership.admits(peer) {
            self.generation.set(generation);
            return false;
        }
        true
    }
}

/// What was found to be spoken on a port that does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http,
    Other,
}

/// What was found out about ports of services, by name. There are no more than services.
#[derive(Default)]
pub(crate) struct Found(RefCell<HashMap<Arc<str>, Spoken>>);

impl Found {
    pub(crate) fn get(&self, name: &str) -> Option<Spoken> {
        self.0.borrow().get(name).copied()
    }

    pub(crate) fn set(&self, name: &Arc<str>, spoken: Spoken) {
        self.0.borrow_mut().insert(Arc::clone(name), spoken);
    }
}

/// Serves a new connection to a socket of the mesh.
pub(crate) fn start(
    worker: &Rc<Worker>,
    port: &Arc<Port>,
    role: &Role,
    stream: TcpStream,
    peer: SocketAddr,
    member: Member,
) {
    let ends = Ends { client: peer, destination: None };
    match role {
        Role::Tunnel => {
            let (worker, port) = (Rc::clone(worker), Arc::clone(port));
            tokio::task::spawn_local(async move {
                // The handshake's future is large and short-lived: its own box, freed before the connection rests.
                let accepted = Box::pin(tunnel(&worker, &port, stream, peer)).await;
                drop(port);
                if let Some((io, connection)) = accepted {
                    downstream::serve_tunnel(worker, io, connection, member).await;
                }
            });
        }
        Role::Upstream(name) => outbound(worker, name, stream, ends, member),
        Role::Outbound => captured(worker, port, stream, peer, member),
        Role::Inbound => captured_inbound(worker, port, stream, peer, member),
    }
}

/// A connection of the workload to a service.
fn outbound(worker: &Rc<Worker>, name: &Arc<str>, stream: TcpStream, ends: Ends, member: Member) {
    let plan = worker.plan();
    let Some(service) = plan.mesh.as_ref().and_then(|mesh| mesh.outbound.get(name)) else { return };
    match (&service.http, &service.tcp) {
        (Some(http), None) => outbound_requests(worker, http, name, stream, ends, member),
        (None, Some(tcp)) => l4::tcp::start(worker, tcp, stream, ends.client, member),
        (None, None) => {}
        (Some(_), Some(_)) => {
            let (worker, service) = (Rc::clone(worker), clone(service));
            tokio::task::spawn_local(find_out(worker, service, stream, ends, member));
        }
    }
}

fn clone(service: &Service) -> Service {
    Service { name: Arc::clone(&service.name), http: service.http.clone(), tcp: service.tcp.clone() }
}

fn outbound_requests(
    worker: &Rc<Worker>,
    port: &Arc<Port>,
    name: &Arc<str>,
    stream: TcpStream,
    ends: Ends,
    member: Member,
) {
    let side = MeshSide::new(Some(Place::Outbound(Arc::clone(name))), None, 0);
    downstream::start_plain(worker, port, stream, ends, Some(side), member);
}

/// Finds out what is spoken on a connection and serves it. Who waits for whom is not known, so the way to the service is
/// opened at once: when the service speaks first, it was no HTTP.
async fn find_out(worker: Rc<Worker>, service: Service, stream: TcpStream, ends: Ends, member: Member) {
    let (Some(http), Some(tcp)) = (&service.http, &service.tcp) else { return };
    let serve_http = |stream: TcpStream, member: Member| {
        worker.found.set(&service.name, Spoken::Http);
        outbound_requests(&worker, http, &service.name, stream, ends, member);
    };
    match worker.found.get(&service.name) {
        // It has spoken first, or would not have been understood as HTTP: there is nothing to wait for.
        Some(Spoken::Other) => return l4::tcp::start(&worker, tcp, stream, ends.client, member),
        Some(Spoken::Http) => {
            let until = Instant::now() + http.settings.header_timeout;
            match look(&stream, until).await {
                Some(Spoken::Http) => serve_http(stream, member),
                _ => l4::tcp::start(&worker, tcp, stream, ends.client, member),
            }
            return;
        }
        None => {}
    }
    match l4::tcp::open_early(&worker, tcp, stream, ends).await {
        l4::tcp::Early::Requests(stream) => serve_http(stream, member),
        l4::tcp::Early::Carried { spoken } => {
            if let Some(spoken) = spoken {
                worker.found.set(&service.name, spoken);
            }
            drop(member);
        }
    }
}

/// Waits for the first bytes of a client, and looks what they are; nothing when the client is gone or says nothing in time.
pub(crate) async fn look(stream: &TcpStream, until: Instant) -> Option<Spoken> {
    let mut bytes = [0; LOOK];
    let wait = async {
        loop {
            let read = stream.peek(&mut bytes).await.ok().filter(|read| *read > 0)?;
            match spoken(bytes.get(..read).unwrap_or_default()) {
                Some(spoken) => return Some(spoken),
                // The rest is on its way; these bytes would be reported as readable over and over.
                None => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    };
    tokio::time::timeout_at(until.into(), wait).await.ok().flatten()
}

/// What the first bytes of a connection say; nothing while there are too few. HTTP/2 without a declaration is carried as it
/// is: the application may not understand HTTP/1.1.
fn spoken(first: &[u8]) -> Option<Spoken> {
    const METHODS: [&[u8]; 9] =
        [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ", b"CONNECT "];
    if METHODS.iter().any(|method| first.starts_with(method)) {
        return Some(Spoken::Http);
    }
    let may_become = METHODS.iter().any(|method| method.starts_with(first));
    if may_become { None } else { Some(Spoken::Other) }
}

/// TLS with the proxy of a caller: who it is, and which service it asks for.
async fn tunnel(
    worker: &Rc<Worker>,
    port: &Arc<Port>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(Io, Connection)> {
    let servers = port.tls.clone()?;
    let io = Io::Tls(Box::new(TlsStream::server(stream, servers)));
    let (io, facts) = downstream::handshake(worker, port, io, peer).await.ok()?;
    let tls = io.tls()?;
    if tls.alpn() != Some(b"h2") {
        worker.metrics.borrow_mut().add(Metric::HandshakeFailures, &[port.name.as_str(), "no_alpn"], 1);
        return None;
    }
    let svid = tls.peer_svid()?;
    let plan = worker.plan();
    let mesh = plan.mesh.as_ref()?;
    let asked = facts.server_name.as_deref().and_then(|name| mesh.inbound.get_key_value(name));
    let place = asked.map(|(name, _)| Place::Inbound(Arc::clone(name)));
    let generation = mesh.membership.as_ref().map_or(0, |membership| membership.generation());
    // Without a service, or one that has no requests: the socket's own port, which has no rules.
    let own = place.as_ref().and_then(|place| plan.mesh_port(place)).unwrap_or(port);
    let side = MeshSide::new(place, Some(svid), generation);
    let ends = Ends { client: peer, destination: None };
    let mut connection = Connection::new(worker, own, io.socket(), ends, Some(side));
    connection.tls = Some(Box::new(facts));
    Some((io, connection))
}

/// True for a request that opens a tunnel for a connection.
pub(crate) fn is_tunnel(head: &RequestHead) -> bool {
    head.method() == Method::Connect && head.protocol().is_none()
}

/// A connection of the workload that was made to another address.
fn captured(worker: &Rc<Worker>, port: &Arc<Port>, stream: TcpStream, peer: SocketAddr, member: Member) {
    let _ = (worker, port, stream, peer, member);
}

/// A connection to the workload that no proxy has made.
fn captured_inbound(
    worker: &Rc<Worker>,
    port: &Arc<Port>,
    stream: TcpStream,
    peer: SocketAddr,
    member: Member,
) {
    let _ = (worker, port, stream, peer, member);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_requests_from_the_rest() {
        for (first, found) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Spoken::Http)),
            (b"GE", None),
            (b"P", None),
            (b"PATCH ", Some(Spoken::Http)),
            (b"PRI * HTTP/2.0\r\n", Some(Spoken::Other)),
            (b"GETTING", Some(Spoken::Other)),
            (b"\x16\x03\x01", Some(Spoken::Other)),
            (b"EHLO x", Some(Spoken::Other)),
        ] {
            assert_eq!(spoken(first), found, "{first:?}");
        }
    }
}
