//! One TCP connection, from the first byte to the record: who it is from, where it goes, and the relay between.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use rhumb_balance::{InFlight, Nanos, Outcome};
use rhumb_base::failure::{Cause, Failure, Retry, Side};
use rhumb_codec::head::Scheme;
use rhumb_conn::io::Io;
use rhumb_conn::{Part, h2};
use rhumb_net::buffer::Buffer;
use rhumb_plan::Port;
use rhumb_plan::l4::{Carries, L4, L4Rule};
use rhumb_policy::Certificate;
use rhumb_policy::fault::ConnectionFaults;
use rhumb_telemetry::{Metric, Note, Protocol};
use rhumb_tls::TlsStream;
use rhumb_upstream::limit::Permit;
use tokio::net::TcpStream;

use crate::downstream::{self, Connection};
use crate::l4::hbone::{self, Reads};
use crate::l4::header::{self, Ends};
use crate::l4::hello::{self, Alert, First, NoHello};
use crate::l4::record::Account;
use crate::l4::relay::{RelayLimits, relay, relay_after};
use crate::mesh::{self, Spoken};
use crate::worker::{Member, Worker};

/// Endpoints that are tried for one connection, as for a request that reached none.
const MAX_TRIES: u16 = 3;

/// Serves a new connection of a port that carries them as they are, or whose connections may begin with a header of a
/// load balancer, in a task of its own.
pub(crate) fn start(
    worker: &Rc<Worker>,
    port: &Arc<Port>,
    stream: TcpStream,
    peer: SocketAddr,
    member: Member,
) {
    let (worker, port) = (Rc::clone(worker), Arc::clone(port));
    tokio::task::spawn_local(async move {
        let mut stream = stream;
        let mut ends = Ends { client: peer, destination: None };
        if header::is_expected(&port, peer) {
            match header::read(&worker, &port, &mut stream, peer).await {
                Some(told) => ends = told,
                None => return,
            }
        }
        if port.l4.is_none() {
            return downstream::start(&worker, &port, stream, ends, member);
        } else if let Some(l4) = port.l4.as_deref() {
            // What opening takes is freed before the connection goes on for hours.
            let opened = Box::pin(open(&worker, &port, l4, stream, ends)).await;
            if let Some(opened) = opened {
                drop(port);
                carry(opened).await;
            }
        }
        drop(member);
    });
}

/// The way to the application.
pub(crate) enum Up {
    /// A connection.
    Io(Io),
    /// A stream to the proxy of the application.
    Stream(Box<h2::Stream>),
}

/// Both sides of a connection, open.
pub(crate) struct Opened {
    account: Account,
    down: Io,
    up: Up,
    first: Option<First>,
    /// Counts the connection among those of its endpoint.
    load: InFlight,
    /// Counts it among those of its backend.
    permit: Permit,
    rule: Arc<L4Rule>,
    /// What goes wrong with it on purpose.
    faults: ConnectionFaults,
}

/// How long a connection may rest and live, and what is to go wrong with it.
fn limits(rule: &L4Rule, account: &Account, faults: ConnectionFaults) -> RelayLimits {
    RelayLimits {
        idle: rule.tcp.idle,
        until: rule.tcp.life.map(|life| account.started() + life),
        bytes_per_second: faults.bytes_per_second,
        reset_after: faults.reset_after,
    }
}

/// Decides what goes wrong with a connection to the backend of this place, and waits as long as it is told to. One that is
/// to be reset fails.
async fn suffer(
    worker: &Worker,
    rule: &L4Rule,
    backend: usize,
    account: &mut Account,
) -> Result<ConnectionFaults, Failure> {
    let faults = rule.faults(backend, &mut worker.rng.borrow_mut());
    if let Some(delay) = faults.delay {
        account.notes.insert(Note::FaultDelay);
        tokio::time::sleep(delay).await;
    }
    if faults.resets {
        account.notes.insert(Note::FaultReset);
        return Err(Cause::FaultInjected.into());
    }
    if faults.bytes_per_second.is_some() {
        account.notes.insert(Note::FaultBandwidth);
    }
    Ok(faults)
}

async fn open(
    worker: &Rc<Worker>,
    port: &Arc<Port>,
    l4: &L4,
    stream: TcpStream,
    ends: Ends,
) -> Option<Opened> {
    let mut account = Account::new(worker, port, Protocol::Tcp, ends.client);
    let front = match l4.carries {
        Carries::Tls => front_tls(worker, port, l4, stream, &mut account).await?,
        _ => Front { io: Io::Plain(stream), first: None, rule: rule_of(l4, None).cloned() },
    };
    let Front { mut io, first, rule } = front;
    let Some(rule) = rule else {
        account.end = "no_route";
        close(&mut io).await;
        return None;
    };
    account.rule = Some(Arc::clone(&rule));
    if !rule.access.is_empty()
        && !may_connect(worker, &rule, &Asking::in_plain_text(ends.client, port.address))
    {
        account.fail(Cause::AccessDenied.into());
        close(&mut io).await;
        return None;
    }
    let local = || io.socket().local_addr().ok();
    match connect(worker, &rule, &mut account, ends, local).await {
        Ok((up, load, permit, faults)) => {
            Some(Opened { account, down: io, up, first, load, permit, rule, faults })
        }
        Err(failure) => {
            account.fail(failure);
            if failure.cause == Cause::FaultInjected {
                drop(rhumb_net::socket::reset_on_close(io.socket()));
                return None;
            }
            match (&mut io, &first) {
                (Io::Plain(stream), Some(_)) => hello::alert(stream, Alert::InternalError).await,
                _ => close(&mut io).await,
            }
            None
        }
    }
}

/// The client's side of a connection, and where it goes.
struct Front {
    io: Io,
    /// A ClientHello that goes on as it is.
    first: Option<First>,
    rule: Option<Arc<L4Rule>>,
}

fn rule_of<'l>(l4: &'l L4, server_name: Option<&str>) -> Option<&'l Arc<L4Rule>> {
    l4.listener(server_name)?.routes.find(server_name)
}

/// Reads the ClientHello where TLS may be passed on, and terminates it where it is not.
async fn front_tls(
    worker: &Rc<Worker>,
    port: &Arc<Port>,
    l4: &L4,
    mut stream: TcpStream,
    account: &mut Account,
) -> Option<Front> {
    let refuse = |reason: &str| {
        worker.metrics.borrow_mut().add(Metric::HandshakeFailures, &[port.name.as_str(), reason], 1);
    };
    let mut first = None;
    if l4.has_passthrough() {
        let until = Instant::now() + port.settings.handshake_timeout;
        let read = match hello::read(&mut stream, until).await {
            Ok(read) => read,
            Err(no_hello) => {
                refuse(no_hello.reason());
                account.end = no_hello.reason();
                if no_hello == NoHello::Malformed {
                    hello::alert(&mut stream, Alert::DecodeError).await;
                }
                return None;
            }
        };
        let name = read.hello.server_name.as_deref();
        account.server_name = name.map(Into::into);
        let listener = l4.listener(name);
        if listener.is_none_or(|listener| listener.is_passthrough) {
            let rule = rule_of(l4, name).cloned();
            if rule.is_none() {
                refuse("unrecognized_name");
                account.end = "unrecognized_name";
                hello::alert(&mut stream, Alert::UnrecognizedName).await;
                return None;
            }
            account.set_protocol(Protocol::Tls);
            return Some(Front { io: Io::Plain(stream), first: Some(read), rule });
        }
        first = Some(read);
    }
    let servers = port.tls.clone()?;
    let bytes = first.map(|first: First| first.bytes).unwrap_or_default();
    let stream = TlsStream::server_after(stream, servers, bytes);
    let (io, facts) =
        match downstream::handshake(worker, port, Io::Tls(Box::new(stream)), account.client).await {
            Ok(done) => done,
            Err(reason) => {
                account.end = reason;
                return None;
            }
        };
    let rule = rule_of(l4, facts.server_name.as_deref()).cloned();
    account.tls = Some(facts);
    Some(Front { io, first: None, rule })
}

/// Chooses an endpoint and connects to it; to another one when that fails.
async fn connect(
    worker: &Rc<Worker>,
    rule: &L4Rule,
    account: &mut Account,
    ends: Ends,
    local: impl Fn() -> Option<SocketAddr>,
) -> Result<(Up, InFlight, Permit, ConnectionFaults), Failure> {
    let invalid: Failure = Cause::ConfigurationInvalid.into();
    if rule.invalid.is_some() {
        return Err(invalid);
    }
    let (at, backend) = rule.choose(&mut worker.rng.borrow_mut()).ok_or(invalid)?;
    let backend = Arc::clone(backend);
    account.backend = Some(Arc::clone(&backend));
    let faults = match rule.faults.get(at).is_none_or(|faults| faults.is_empty()) {
        true => ConnectionFaults::default(),
        // Rare, and not to be paid for by every connection.
        false => Box::pin(suffer(worker, rule, at, account)).await?,
    };
    let sides = backend.target.proxy_protocol.and_then(|_| {
        let destination = ends.destination.or_else(&local)?;
        Some((ends.client, destination))
    });
    let permit = rhumb_upstream::limit::permit(&backend.target).await?;
    let mut tried = Vec::new();
    loop {
        account.tries += 1;
        let begun = Instant::now();
        let picked = {
            let now = Nanos::since(worker.origin, begun);
            let mut rng = worker.rng.borrow_mut();
            backend.begin_for(account.client.ip().to_canonical(), now, &mut rng, &tried)
        };
        let mut load = picked.map_err(crate::forward::refuse_pick)?;
        let endpoint = Arc::clone(load.endpoint());
        account.endpoint = Some(Arc::clone(&endpoint));
        let (target, address) = backend.way(&endpoint);
        let connected = match endpoint.tunnel() {
            // What leaves the mesh goes through a proxy of the egress gateway or not at all.
            0 if account.way.is_some() => Err(Cause::ConfigurationInvalid.into()),
            0 => rhumb_upstream::connect::connect_for(target, address, sides).await.map(Up::Io),
            _ => {
                let application = endpoint.address().to_string();
                let authority = account.way.as_ref().map_or(&application, |way| &way.to);
                hbone::open(worker, target, address, authority).await.map(Up::Stream)
            }
        };
        let now = Instant::now();
        let took = now.saturating_duration_since(begun);
        let nanos = Nanos::since(worker.origin, now);
        match connected {
            Ok(up) => {
                account.connect = Some(took);
                // The connection goes on counting; how long it lives says nothing about the endpoint.
                backend.endpoints.note(&mut load, took, Outcome::Success, nanos);
                return Ok((up, load, permit, faults));
            }
            Err(failure) => {
                if failure.cause.facts().side == Side::Backend {
                    backend.endpoints.finish(load, took, Outcome::LocalFailure, nanos);
                }
                if account.tries >= MAX_TRIES || failure.retry != Retry::IfNotProcessed {
                    return Err(failure);
                }
                account.notes.insert(Note::RetriedOnOtherEndpoint);
                tried.push(endpoint);
            }
        }
    }
}

/// Carries bytes both ways until either side has had enough.
pub(crate) async fn carry(opened: Opened) {
    let Opened { mut account, mut down, mut up, first, load, permit, rule, faults } = opened;
    let limits = limits(&rule, &account, faults);
    drop(rule);
    let first = first.map(|first| first.bytes).unwrap_or_default();
    account.begin();
    let end = match &mut up {
        Up::Io(up) => relay(&mut down, up, first, limits, &mut account.carried).await,
        Up::Stream(up) => {
            hbone::relay(&mut down, up, Reads::Response, limits, &mut account.carried, &[], || true).await
        }
    };
    drop((load, permit));
    account.finish(end);
}

/// True when a port carries a connection of a caller's proxy as it is: as far as that can be told without requests, it may.
pub(crate) fn carries(worker: &Worker, port: &Port, connection: &Connection) -> bool {
    let rule = port.l4.as_deref().and_then(|l4| rule_of(l4, None));
    rule.is_some_and(|rule| {
        rule.invalid.is_none() && may_connect(worker, rule, &Asking::of(connection, None))
    })
}

/// Connects to the application for a stream of a caller's proxy, when the caller may.
pub(crate) async fn connect_inside(
    worker: &Rc<Worker>,
    port: &Arc<Port>,
    account: &mut Account,
    connection: &Connection,
) -> Result<(Io, RelayLimits, (InFlight, Permit)), Failure> {
    let rule = port.l4.as_deref().and_then(|l4| rule_of(l4, None)).cloned().ok_or(Cause::RouteNotFound)?;
    account.rule = Some(Arc::clone(&rule));
    if !may_connect(worker, &rule, &Asking::of(connection, None)) {
        return Err(Cause::AccessDenied.into());
    }
    let ends = Ends { client: connection.peer, destination: None };
    match connect(worker, &rule, account, ends, || None).await? {
        (Up::Io(up), load, permit, _) => {
            Ok((up, limits(&rule, account, ConnectionFaults::default()), (load, permit)))
        }
        // The application is behind this proxy and no other.
        (Up::Stream(_), ..) => Err(Cause::ConfigurationInvalid.into()),
    }
}

/// True when a connection of a caller's proxy may go on, after something has changed.
pub(crate) fn may_go_on(worker: &Worker, port: &Port, connection: &Connection) -> bool {
    let plan = worker.plan();
    let services = plan.mesh.iter().flat_map(|mesh| mesh.inbound.values());
    let mut current = services.filter_map(|service| service.tcp.as_ref());
    // What is no longer served is served to its end.
    let Some(current) = current.find(|current| current.name == port.name) else { return true };
    let Some(rule) = current.l4.as_deref().and_then(|l4| rule_of(l4, None)) else { return true };
    let is_allowed = rule.invalid.is_none() && may_connect(worker, rule, &Asking::of(connection, None));
    if !is_allowed {
        worker.metrics.borrow_mut().add(Metric::MeshEnded, &["denied"], 1);
    }
    is_allowed
}

/// Who asks for a connection, and where to.
pub(crate) struct Asking<'a> {
    certificate: Option<Arc<Certificate>>,
    peer: SocketAddr,
    address: SocketAddr,
    /// Host and port, where it leaves the mesh.
    destination: Option<(&'a str, u16)>,
}

impl<'a> Asking<'a> {
    fn in_plain_text(peer: SocketAddr, address: SocketAddr) -> Self {
        Self { certificate: None, peer, address, destination: None }
    }

    pub(crate) fn of(connection: &Connection, destination: Option<(&'a str, u16)>) -> Self {
        let Connection { peer, address, .. } = *connection;
        Self { certificate: connection.certificate(), peer, address, destination }
    }
}

/// True when whoever is at the other end may connect, as far as that can be told without requests.
pub(crate) fn may_connect(worker: &Worker, rule: &L4Rule, asking: &Asking<'_>) -> bool {
    rule.access.iter().all(|policy| {
        let peer = asking.peer.ip().to_canonical();
        let mut cx = rhumb_policy::Exchange {
            certificate: asking.certificate.clone(),
            destination: asking.destination,
            unix_nanos: worker.unix_nanos(Instant::now()),
            ..rhumb_policy::Exchange::new(peer, Scheme::Http, asking.address.port())
        };
        rhumb_policy::mesh::admits_connection(policy, &mut cx)
    })
}

/// The way to the egress gateway for one connection, open.
pub(crate) struct OpenedOutside {
    up: Up,
    load: InFlight,
    permit: Permit,
    rule: Arc<L4Rule>,
    faults: ConnectionFaults,
}

impl OpenedOutside {
    /// With the side of the workload.
    pub(crate) fn with(self, account: Account, down: Io) -> Opened {
        let Self { up, load, permit, rule, faults } = self;
        Opened { account, down, up, first: None, load, permit, rule, faults }
    }
}

/// Opens a stream through the egress gateway, whose port this is, to where the account says that the connection leads.
pub(crate) async fn open_outside(
    worker: &Rc<Worker>,
    port: &Port,
    account: &mut Account,
    ends: Ends,
) -> Result<OpenedOutside, Failure> {
    let rule = rule_of_all(port).cloned().ok_or(Cause::ConfigurationInvalid)?;
    account.rule = Some(Arc::clone(&rule));
    let (up, load, permit, faults) = connect(worker, &rule, account, ends, || None).await?;
    Ok(OpenedOutside { up, load, permit, rule, faults })
}

/// The rule of a port whose connections show no name.
pub(crate) fn rule_of_all(port: &Port) -> Option<&Arc<L4Rule>> {
    rule_of(port.l4.as_deref()?, None)
}

/// How long a connection of a rule may rest and live.
pub(crate) fn limits_of(rule: &L4Rule, account: &Account) -> RelayLimits {
    limits(rule, account, ConnectionFaults::default())
}

/// What became of a connection whose protocol was not known.
pub(crate) enum Early {
    /// It has requests.
    Requests(TcpStream),
    /// It was carried to its end.
    Carried {
        /// What it was found to be.
        spoken: Option<Spoken>,
    },
}

/// Opens the way to the application before anybody has spoken, and carries the connection, unless its client turns out to
/// begin with a request.
pub(crate) async fn open_early(
    worker: &Rc<Worker>,
    port: &Arc<Port>,
    stream: TcpStream,
    ends: Ends,
) -> Early {
    let lost = Early::Carried { spoken: None };
    let Some(rule) = port.l4.as_deref().and_then(|l4| rule_of(l4, None)).cloned() else { return lost };
    let mut account = Account::new(worker, port, Protocol::Tcp, ends.client);
    account.rule = Some(Arc::clone(&rule));
    // As long as a request may take to begin; who says nothing for longer waits for the other side.
    let until = Instant::now() + port.settings.header_timeout;
    let opened = {
        let mut opening = pin!(async {
            // What is a request after all is decided about as one.
            if !rule.access.is_empty()
                && !may_connect(worker, &rule, &Asking::in_plain_text(ends.client, port.address))
            {
                return Err(Cause::AccessDenied.into());
            }
            connect(worker, &rule, &mut account, ends, || stream.local_addr().ok()).await
        });
        let mut looking = pin!(mesh::look(&stream, until));
        let mut has_looked = None;
        let opened = poll_fn(|cx| {
            if has_looked.is_none()
                && let Poll::Ready(found) = looking.as_mut().poll(cx)
            {
                if found == Some(Spoken::Http) {
                    return Poll::Ready(None);
                }
                has_looked = Some(found);
            }
            opening.as_mut().poll(cx).map(Some)
        })
        .await;
        match opened {
            None => None,
            Some(Err(failure)) => {
                // A client that asks for something is told why it does not get it.
                let found = match has_looked {
                    Some(found) => found,
                    None => looking.await,
                };
                if found == Some(Spoken::Http) { None } else { Some(Err(failure)) }
            }
            Some(Ok((mut up, load, permit, faults))) => {
                let mut first = Vec::new();
                let mut spoken = has_looked.flatten();
                while spoken.is_none() && first.is_empty() {
                    let next = poll_fn(|cx| {
                        if has_looked.is_none()
                            && let Poll::Ready(found) = looking.as_mut().poll(cx)
                        {
                            has_looked = Some(found);
                            return Poll::Ready(Ok(found));
                        }
                        poll_first(cx, &mut up, &mut first).map_ok(|()| None)
                    })
                    .await;
                    match next {
                        Ok(Some(found)) => spoken = Some(found),
                        Ok(None) if has_looked == Some(None) && first.is_empty() => break,
                        Ok(None) => {}
                        Err(()) => break,
                    }
                }
                match spoken {
                    Some(Spoken::Http) => None,
                    _ => Some(Ok((up, load, permit, faults, first, spoken))),
                }
            }
        }
    };
    let (mut up, load, permit, faults, first, spoken) = match opened {
        None => {
            account.cancel();
            return Early::Requests(stream);
        }
        Some(Err(failure)) => {
            account.fail(failure);
            if failure.cause == Cause::FaultInjected {
                drop(rhumb_net::socket::reset_on_close(&stream));
            }
            return lost;
        }
        Some(Ok(opened)) => opened,
    };
    let limits = limits(&rule, &account, faults);
    drop(rule);
    let spoken = if first.is_empty() { spoken } else { Some(Spoken::Other) };
    let mut down = Io::Plain(stream);
    account.begin();
    let end = match &mut up {
        Up::Io(up) => relay_after(&mut down, up, first, limits, &mut account.carried).await,
        Up::Stream(up) => {
            hbone::relay(&mut down, up, Reads::Response, limits, &mut account.carried, &first, || true).await
        }
    };
    drop((load, permit));
    account.finish(end);
    Early::Carried { spoken }
}

/// Waits for the first bytes of the application; an error is its end.
fn poll_first(cx: &mut Context<'_>, up: &mut Up, first: &mut Vec<u8>) -> Poll<Result<(), ()>> {
    match up {
        Up::Io(io) => {
            let mut buffer = Buffer::take();
            match io.poll_read(cx, &mut buffer) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(len)) if len > 0 => {
                    first.extend_from_slice(buffer.get(..len).unwrap_or_default());
                    Poll::Ready(Ok(()))
                }
                Poll::Ready(_) => Poll::Ready(Err(())),
            }
        }
        Up::Stream(stream) => match stream.poll_response_body(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(Part::Data(data))) => {
                first.extend_from_slice(data);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(_) => Poll::Ready(Err(())),
        },
    }
}

/// Ends a connection that goes nowhere.
async fn close(io: &mut Io) {
    let _ = poll_fn(|cx| Poll::Ready(io.poll_shutdown(cx))).await;
}
