//! One TCP connection, from the first byte to the record: who it is from, where it goes, and the relay between.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rhumb_balance::{InFlight, Nanos, Outcome};
use rhumb_base::failure::{Cause, Failure, Retry, Side};
use rhumb_conn::io::Io;
use rhumb_plan::Port;
use rhumb_plan::l4::{Carries, L4, L4Rule};
use rhumb_telemetry::{Metric, Note, Protocol};
use rhumb_tls::TlsStream;
use rhumb_upstream::limit::Permit;
use tokio::net::TcpStream;

use crate::downstream;
use crate::l4::header::{self, Ends};
use crate::l4::hello::{self, Alert, First, NoHello};
use crate::l4::record::Account;
use crate::l4::relay::{RelayEnd, RelayLimits, relay};
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

/// Both sides of a connection, open.
struct Opened {
    account: Account,
    down: Io,
    up: Io,
    first: Option<First>,
    /// Counts the connection among those of its endpoint.
    load: InFlight,
    /// Counts it among those of its backend.
    permit: Permit,
    rule: Arc<L4Rule>,
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
    match connect(worker, &rule, &mut account, ends, &io).await {
        Ok((up, load, permit)) => Some(Opened { account, down: io, up, first, load, permit, rule }),
        Err(failure) => {
            account.fail(failure);
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
    down: &Io,
) -> Result<(Io, InFlight, Permit), Failure> {
    let invalid: Failure = Cause::ConfigurationInvalid.into();
    if rule.invalid.is_some() {
        return Err(invalid);
    }
    let backend = rule.choose(&mut worker.rng.borrow_mut()).map(Arc::clone).ok_or(invalid)?;
    account.backend = Some(Arc::clone(&backend));
    let sides = backend.target.proxy_protocol.and_then(|_| {
        let destination = ends.destination.or_else(|| down.socket().local_addr().ok())?;
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
        let connected =
            rhumb_upstream::connect::connect_for(&backend.target, endpoint.address(), sides).await;
        let now = Instant::now();
        let took = now.saturating_duration_since(begun);
        let nanos = Nanos::since(worker.origin, now);
        match connected {
            Ok(up) => {
                account.connect = Some(took);
                // The connection goes on counting; how long it lives says nothing about the endpoint.
                backend.endpoints.note(&mut load, took, Outcome::Success, nanos);
                return Ok((up, load, permit));
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

async fn carry(opened: Opened) {
    let Opened { mut account, mut down, mut up, first, load, permit, rule } = opened;
    let limits =
        RelayLimits { idle: rule.tcp.idle, until: rule.tcp.life.map(|life| account.started() + life) };
    drop(rule);
    let first = first.map(|first| first.bytes).unwrap_or_default();
    let end = relay(&mut down, &mut up, first, limits, &mut account.carried).await;
    drop((load, permit));
    account.end = match end {
        RelayEnd::Closed => "closed",
        RelayEnd::ClientReset => "client_reset",
        RelayEnd::BackendReset => "backend_reset",
        RelayEnd::Idle => "idle_timeout",
        RelayEnd::Expired => "max_duration",
    };
    match end {
        RelayEnd::Idle => account.notes.insert(Note::IdleTimeout),
        RelayEnd::BackendReset => account.notes.insert(Note::UpstreamReset),
        RelayEnd::ClientReset => account.notes.insert(Note::ClientGone),
        _ => {}
    }
}

/// Ends a connection that goes nowhere.
async fn close(io: &mut Io) {
    let _ = poll_fn(|cx| std::task::Poll::Ready(io.poll_shutdown(cx))).await;
}
