//! Connections of the mesh: from the workload to services that it calls, and from proxies of callers to the workload.
//!
//! What is done with a connection is that of a listener, only that the listener is found by where the connection leads:
//! [`start`] finds it, and the rest goes the ways of [`crate::downstream`] and [`crate::l4`]. Requests and connections
//! between proxies share connections of HTTP/2 ([`tunnel`]); connections travel in CONNECT streams ([`crate::l4::hbone`]).

mod captured;

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_codec::head::{Method, RequestHead};
use rhumb_conn::io::Io;
use rhumb_plan::Port;
use rhumb_plan::mesh::{Exit, Place, Role, Service};
use rhumb_telemetry::metrics::LocalCounter;
use rhumb_telemetry::{Metric, WorkerMetrics};
use rhumb_tls::TlsStream;
use rhumb_tls::mesh::PeerSvid;
use tokio::net::TcpStream;

use self::captured::{captured, captured_inbound};
use crate::downstream::{self, Connection};
use crate::l4;
use crate::l4::header::Ends;
use crate::l4::leave::{Stranger, leave};
use crate::l4::outside::{Host, Outside};
use crate::signals::UNKNOWN;
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
    /// Counters of its requests, by the class of their status, found at the first one.
    edges: RefCell<[Option<LocalCounter>; CLASSES.len()]>,
    /// Its edge in golden signals, found at the first request.
    names: OnceCell<(Box<str>, Box<str>)>,
    /// The other end is a program without a proxy: what it says of others is not believed.
    is_direct: bool,
    /// The connection as those of the services that its requests are for, where it is for none as a whole.
    aims: RefCell<HashMap<Arc<str>, Rc<Connection>>>,
}

/// The most services that the requests of one connection are for; a change of documents may bring others.
const MAX_AIMS: usize = 64;

/// Classes of statuses; what has none ended without an answer.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl MeshSide {
    pub(crate) fn new(place: Option<Place>, peer: Option<PeerSvid>, generation: u64) -> Box<Self> {
        Box::new(Self {
            place,
            peer,
            generation: Cell::new(generation),
            edges: RefCell::default(),
            names: OnceCell::new(),
            is_direct: false,
            aims: RefCell::default(),
        })
    }

    /// True for a connection between members whose requests say themselves which service they are for.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.place.is_none() && self.peer.is_some()
    }

    /// The revocations that its peer was looked for in.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// Who calls what: namespace and account of the caller, and the server name of the service.
    pub(crate) fn edge(&self) -> (Cow<'_, str>, &str) {
        let source = match self.peer.as_ref().map(|peer| (peer.id.account(), &peer.id)) {
            None => UNKNOWN.into(),
            Some((Some((namespace, account)), _)) => format!("{namespace}/{account}").into(),
            Some((None, id)) => id.as_str().into(),
        };
        match &self.place {
            Some(Place::Inbound(name)) => (source, name),
            _ => (source, ""),
        }
    }

    /// Who calls what, as golden signals call them: the caller as in [`edge`](Self::edge), and `NAMESPACE/NAME:PORT`.
    pub(crate) fn names(&self) -> &(Box<str>, Box<str>) {
        self.names.get_or_init(|| {
            let (source, service) = self.edge();
            (source.into(), crate::signals::service_name(service).into())
        })
    }

    /// Counts a request that was served.
    pub(crate) fn count(&self, metrics: &mut WorkerMetrics, status: u16) {
        if !self.is_inbound() {
            return;
        }
        let class = usize::from(status / 100);
        let mut edges = self.edges.borrow_mut();
        let (Some(counter), Some(name)) = (edges.get_mut(class), CLASSES.get(class)) else { return };
        let counter = counter.get_or_insert_with(|| {
            let (source, service) = self.edge();
            metrics.counter(Metric::MeshRequests, &[&source, service, name])
        });
        counter.increment();
    }

    /// True when the other end is a proxy of the mesh, or the workload itself: neither claims what it cannot know.
    pub(crate) fn is_believed(&self) -> bool {
        self.peer.is_some() && !self.is_direct || !self.is_inbound()
    }

    /// True on the side of the service that is called.
    pub(crate) fn is_inbound(&self) -> bool {
        !matches!(self.place, Some(Place::Outbound(_)))
    }

    /// True when the identity of the peer was revoked since it was looked at. One comparison while nothing is.
    #[inline]
    pub(crate) fn is_revoked(&self, worker: &Worker) -> bool {
        let Some(peer) = &self.peer else { return false };
        let mut reader = worker.reader.borrow_mut();
        let membership = reader.load().mesh.as_ref().and_then(|mesh| mesh.membership.as_ref());
        let Some(membership) = membership else { return false };
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
        Role::Outside(host, number) => {
            let (worker, port) = (Rc::clone(worker), Arc::clone(port));
            let to = Outside { host: Host::parse(host), port: *number };
            let stranger = Stranger { name: to.host.shared_name(), address: to.host.address() };
            let exit = worker.plan().mesh.as_ref().map_or(Exit::Refused, |mesh| stranger.exit(mesh));
            tokio::task::spawn_local(leave(worker, port, stream, ends, to, (stranger, exit), member));
        }
        Role::Outbound => captured(worker, port, stream, peer, member),
        Role::Inbound => captured_inbound(worker, port, stream, peer, member),
    }
}

/// A connection of the workload to a service.
fn outbound(worker: &Rc<Worker>, name: &Arc<str>, stream: TcpStream, ends: Ends, member: Member) {
    let plan = worker.plan();
    let Some(service) = plan.mesh.as_ref().and_then(|mesh| mesh.outbound.get(name)) else { return };
    dispatch(worker, service, Place::Outbound(Arc::clone(name)), stream, ends, member);
}

/// Serves a connection as what its service carries.
fn dispatch(
    worker: &Rc<Worker>,
    service: &Service,
    place: Place,
    stream: TcpStream,
    ends: Ends,
    member: Member,
) {
    match (&service.http, &service.tcp) {
        (Some(http), None) => requests(worker, http, place, stream, ends, member),
        // What is served here is carried as it is by proxies that are not ours too; in plain text it has to say what it is.
        (Some(http), Some(_)) if service.is_http => requests(worker, http, place, stream, ends, member),
        (None, Some(tcp)) => l4::tcp::start(worker, tcp, stream, ends.client, member),
        (None, None) => {}
        (Some(_), Some(_)) => {
            let (worker, service) = (Rc::clone(worker), service.clone());
            tokio::task::spawn_local(find_out(worker, service, place, stream, ends, member));
        }
    }
}

fn requests(
    worker: &Rc<Worker>,
    port: &Arc<Port>,
    place: Place,
    stream: TcpStream,
    ends: Ends,
    member: Member,
) {
    let side = MeshSide::new(Some(place), None, 0);
    downstream::start_plain(worker, port, stream, ends, Some(side), member);
}

/// Finds out what is spoken on a connection and serves it. Who waits for whom is not known, so the way to the service is
/// opened at once: when the service speaks first, it was no HTTP.
async fn find_out(
    worker: Rc<Worker>,
    service: Service,
    place: Place,
    stream: TcpStream,
    ends: Ends,
    member: Member,
) {
    let (Some(http), Some(tcp)) = (&service.http, &service.tcp) else { return };
    let serve_http = |stream: TcpStream, member: Member| {
        worker.found.set(&service.name, Spoken::Http);
        requests(&worker, http, place, stream, ends, member);
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

/// The connection as that of the service which a request is for by its authority: a gRPC client without a proxy connects to
/// the tunnel of a workload with a certificate of the mesh, and asks for a server name of its own.
pub(crate) fn aim(
    worker: &Worker,
    connection: &Connection,
    side: &MeshSide,
    head: &RequestHead,
) -> Option<Rc<Connection>> {
    let plan = worker.plan();
    let inbound = &plan.mesh.as_ref()?.inbound;
    let authority = std::str::from_utf8(head.authority()).ok()?;
    let name = aimed_at(authority, inbound.keys())?;
    if let Some(known) = side.aims.borrow().get(name) {
        return Some(Rc::clone(known));
    }
    let place = Place::Inbound(Arc::clone(name));
    let port = plan.mesh_port(&place)?;
    let mut own = MeshSide::new(Some(place), side.peer.clone(), side.generation.get());
    own.is_direct = true;
    let made = Rc::new(connection.for_requests(worker, port, own));
    let mut aims = side.aims.borrow_mut();
    if aims.len() >= MAX_AIMS {
        aims.clear();
    }
    aims.insert(Arc::clone(name), Rc::clone(&made));
    Some(made)
}

/// The service (`PORT.SERVICE.NAMESPACE.svc.TRUST-DOMAIN`) that an authority such as `SERVICE.NAMESPACE:PORT` means; the only
/// one, where it means none: the client chose the workload, and another name is that of a route that led it here.
fn aimed_at<'n>(authority: &str, names: impl Iterator<Item = &'n Arc<str>> + Clone) -> Option<&'n Arc<str>> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, Some(port)),
        _ => (authority, None),
    };
    let host = host.trim_end_matches('.');
    let means = |name: &str| {
        let Some((number, rest)) = name.split_once('.') else { return false };
        let is_host = |rest: &str| {
            rest.strip_prefix(host).is_some_and(|after| after.is_empty() || after.starts_with('.'))
        };
        // As a proxy would ask for it, or as an application calls it.
        name == host || (!host.is_empty() && port.is_none_or(|port| port == number) && is_host(rest))
    };
    let mut meant = names.clone().filter(|name| means(name));
    if let Some(first) = meant.next() {
        return meant.next().is_none().then_some(first);
    }
    let mut all = names;
    all.next().filter(|_| all.next().is_none())
}

/// True for a request that opens a tunnel for a connection.
pub(crate) fn is_tunnel(head: &RequestHead) -> bool {
    head.method() == Method::Connect && head.protocol().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_means_a_service_by_any_of_its_names_or_the_only_one() {
        let names: Vec<Arc<str>> = [
            "8080.orders.shop.svc.td",
            "9090.orders.shop.svc.td",
            "8080.users.shop.svc.td",
            "80.users.other.svc.td",
        ]
        .map(Arc::from)
        .into();
        for (authority, found) in [
            ("8080.orders.shop.svc.td", Some(0)),
            ("orders.shop:8080", Some(0)),
            ("orders.shop.svc:9090", Some(1)),
            ("orders.shop.svc.td.:9090", Some(1)),
            ("orders.shop", None),
            ("users.shop", Some(2)),
            ("users", None),
            ("users:80", Some(3)),
            ("order:8080", None),
            ("orders.shop:80", None),
            (":8080", None),
            ("", None),
        ] {
            assert_eq!(
                aimed_at(authority, names.iter()),
                found.map(|place: usize| &names[place]),
                "{authority}"
            );
        }
        assert_eq!(aimed_at("canary.shop:80", names[..1].iter()), Some(&names[0]));
    }

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
