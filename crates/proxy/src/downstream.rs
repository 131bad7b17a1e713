//! One client connection: TLS, the choice of protocol, and its life from the first byte to the last.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rhumb_codec::h2::{Abuse, ConnectionError};
use rhumb_codec::head::{RequestHead, Scheme};
use rhumb_conn::io::Io;
use rhumb_conn::{h1, h2};
use rhumb_net::timer::Timer;
use rhumb_plan::{Plan, Port, PortSettings};
use rhumb_policy::Certificate;
use rhumb_telemetry::metrics::{ListenerId, LocalGauge};
use rhumb_telemetry::{Limit, Metric};
use rhumb_tls::{HandshakeError, Peer, TlsStream};
use tokio::net::TcpStream;

use crate::boxed::boxed;
use crate::exchange::{self, After};
use crate::l4::hbone;
use crate::l4::header::Ends;
use crate::mesh::{self, MeshSide};
use crate::overload::Held;
use crate::respond;
use crate::side::Down;
use crate::worker::{Member, Worker};

/// How long a refused client may go on sending before the connection is closed under it.
const LINGER: Duration = Duration::from_secs(2);

/// What the exchanges of a connection know about it.
pub(crate) struct Connection {
    pub(crate) address: SocketAddr,
    pub(crate) peer: SocketAddr,
    /// Where the client connected to: here, or as the load balancer in front says. Known where a listener or backend
    /// has to do with the PROXY protocol, else it is the port's address.
    destination: Option<Box<SocketAddr>>,
    pub(crate) peer_ip: IpAddr,
    pub(crate) peer_text: Box<str>,
    pub(crate) scheme: Scheme,
    pub(crate) is_trusted: bool,
    pub(crate) listener: ListenerId,
    /// The port as of the connection's last request, and the revision it belongs to.
    pub(crate) port: RefCell<(u64, Arc<Port>)>,
    pub(crate) tls: Option<Box<TlsFacts>>,
    /// What it is in the mesh, if it is one of it.
    pub(crate) mesh: Option<Box<MeshSide>>,
    /// Requests that were begun on it.
    requests: Cell<u32>,
    /// When it began to rest: when its first request was waited for, and when an exchange was over.
    pub(crate) rests_since: Cell<Instant>,
    /// Removals of listeners of the worker that this connection knows of, and whether its own was one of them.
    removals: Cell<u32>,
    is_orphaned: Cell<bool>,
    /// Whether the next request has waited too long, where that was found before it was read.
    verdict: Cell<Option<bool>>,
    _open: LocalGauge,
}

/// What the handshake settled.
#[derive(Clone)]
pub(crate) struct TlsFacts {
    pub(crate) version: &'static str,
    pub(crate) cipher: &'static str,
    pub(crate) server_name: Option<Box<str>>,
    pub(crate) client_subject: Option<Box<str>>,
    /// What policies see of the client's certificate.
    pub(crate) certificate: Option<Arc<Certificate>>,
}

impl Connection {
    pub(crate) fn new(
        worker: &Worker,
        port: &Arc<Port>,
        stream: &TcpStream,
        ends: Ends,
        mesh: Option<Box<MeshSide>>,
    ) -> Self {
        let Ends { client: peer, destination } = ends;
        let plan = worker.plan();
        let local = || plan.names_clients.then(|| stream.local_addr().ok()).flatten();
        let destination = destination.or_else(local).map(Box::new);
        let peer_ip = peer.ip().to_canonical();
        let open = worker.metrics.borrow_mut().gauge(Metric::ConnectionsOpen, &[port.name.as_str()]);
        open.increment();
        Self {
            address: port.address,
            peer,
            destination,
            peer_ip,
            peer_text: peer_ip.to_string().into(),
            scheme: if port.tls.is_some() { Scheme::Https } else { Scheme::Http },
            is_trusted: port.settings.trusts(peer_ip),
            listener: worker.registry.listener(port.name.as_str()),
            port: RefCell::new((plan.revision, Arc::clone(port))),
            tls: None,
            mesh,
            requests: Cell::new(0),
            rests_since: Cell::new(Instant::now()),
            removals: Cell::new(worker.removals()),
            is_orphaned: Cell::new(false),
            verdict: Cell::new(None),
            _open: open,
        }
    }

    /// The same connection for the requests of one service, where each request says which it is for.
    pub(crate) fn for_requests(&self, worker: &Worker, port: &Arc<Port>, mesh: Box<MeshSide>) -> Self {
        let open = worker.metrics.borrow_mut().gauge(Metric::ConnectionsOpen, &[port.name.as_str()]);
        open.increment();
        Self {
            address: self.address,
            peer: self.peer,
            destination: self.destination.clone(),
            peer_ip: self.peer_ip,
            peer_text: self.peer_text.clone(),
            scheme: self.scheme,
            is_trusted: self.is_trusted,
            listener: worker.registry.listener(port.name.as_str()),
            port: RefCell::new((worker.plan().revision, Arc::clone(port))),
            tls: self.tls.clone(),
            mesh: Some(mesh),
            requests: Cell::new(0),
            rests_since: Cell::new(Instant::now()),
            removals: Cell::new(worker.removals()),
            is_orphaned: Cell::new(false),
            verdict: Cell::new(None),
            _open: open,
        }
    }

    /// The client, and where it connected to.
    pub(crate) fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.peer, self.destination.as_deref().copied().unwrap_or(self.address))
    }

    /// Once, whether the request that begins has waited too long, where that was found before it was read.
    pub(crate) fn take_verdict(&self) -> Option<bool> {
        self.verdict.take()
    }

    /// In an overload of the queue, judges a request that waits in the socket. Says for how long its refusal is held
    /// back: it is read when that is over, so that a connection that no cache has is touched once and not twice, and what
    /// is refused takes no memory meanwhile. Only where no rule has to be found to know.
    #[cold]
    fn judge(&self, worker: &Worker, server: &h1::Server, cx: &mut Context<'_>) -> Option<(Held, Duration)> {
        let priority = self.port(worker).1.priority?;
        if !matches!(server.io().socket().poll_read_ready(cx), Poll::Ready(Ok(()))) {
            return None;
        }
        let refuses = worker.gauge.refuses(priority, Instant::now(), &worker.rng);
        self.verdict.set(Some(refuses));
        if refuses { worker.gauge.hold(&worker.rng) } else { None }
    }

    /// True for a connection of the mesh whose other end claims nothing that it cannot know.
    pub(crate) fn is_believed(&self) -> bool {
        self.mesh.as_ref().is_some_and(|mesh| mesh.is_believed())
    }

    /// The client's certificate, verified.
    pub(crate) fn certificate(&self) -> Option<Arc<Certificate>> {
        self.tls.as_ref().and_then(|tls| tls.certificate.clone())
    }

    /// Counts a request that begins.
    pub(crate) fn count_request(&self) {
        self.requests.set(self.requests.get().saturating_add(1));
    }

    /// True when it has served as many requests as it may.
    pub(crate) fn is_used_up(&self, settings: &PortSettings) -> bool {
        settings.max_requests.is_some_and(|most| self.requests.get() >= most)
    }

    /// True when it is to go once its requests are answered: the process drains, or its listener was removed.
    #[inline]
    pub(crate) fn is_leaving(&self, worker: &Worker) -> bool {
        worker.is_draining()
            || worker.removals() != self.removals.get() && self.look_for_listener(worker)
            || self.is_orphaned.get()
    }

    #[cold]
    fn look_for_listener(&self, worker: &Worker) -> bool {
        self.removals.set(worker.removals());
        let is_orphaned = self.current(&worker.plan()).is_none();
        // A listener that comes back is another one.
        self.is_orphaned.set(self.is_orphaned.get() || is_orphaned);
        is_orphaned
    }

    /// The port as a plan has it.
    fn current<'p>(&self, plan: &'p Plan) -> Option<&'p Arc<Port>> {
        match self.mesh.as_ref().and_then(|mesh| mesh.place.as_ref()) {
            None => plan.port(self.address),
            Some(place) => plan.mesh_port(place),
        }
    }

    /// The port as the plan in force has it; a removed listener's connections keep the last one.
    pub(crate) fn port(&self, worker: &Worker) -> (u64, Arc<Port>) {
        let mut reader = worker.reader.borrow_mut();
        let plan = reader.load();
        let mut port = self.port.borrow_mut();
        if port.0 != plan.revision {
            port.0 = plan.revision;
            if let Some(current) = self.current(plan) {
                port.1 = Arc::clone(current);
            }
        }
        (port.0, Arc::clone(&port.1))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self._open.decrement();
    }
}

/// Serves a new connection in a task of its own.
pub(crate) fn start(worker: &Rc<Worker>, port: &Arc<Port>, stream: TcpStream, ends: Ends, member: Member) {
    if port.tls.is_none() {
        return start_plain(worker, port, stream, ends, None, member);
    }
    let connection = Connection::new(worker, port, &stream, ends, None);
    let worker = Rc::clone(worker);
    {
        let port = Arc::clone(port);
        tokio::task::spawn_local(async move {
            // The handshake's future is large and short-lived: its own box, freed before the connection rests.
            let accepted = Box::pin(accept_tls(&worker, &port, stream, connection)).await;
            drop(port);
            if let Some((io, connection)) = accepted {
                let is_h2 = io.tls().and_then(TlsStream::alpn) == Some(b"h2");
                if is_h2 {
                    serve_h2(worker, h2_input(io), connection, member).await;
                } else {
                    serve_h1(worker, io, connection, member).await;
                }
            }
        });
    }
}

/// The same without TLS, and for a connection of the mesh.
pub(crate) fn start_plain(
    worker: &Rc<Worker>,
    port: &Arc<Port>,
    stream: TcpStream,
    ends: Ends,
    mesh: Option<Box<MeshSide>>,
    member: Member,
) {
    start_inside(worker, port, stream, ends, (mesh, None), member);
}

/// The same for a connection inside of another one, with what the handshake of that one has settled.
pub(crate) fn start_inside(
    worker: &Rc<Worker>,
    port: &Arc<Port>,
    stream: TcpStream,
    ends: Ends,
    (mesh, tls): (Option<Box<MeshSide>>, Option<Box<TlsFacts>>),
    member: Member,
) {
    let mut connection = Connection::new(worker, port, &stream, ends, mesh);
    connection.tls = tls;
    tokio::task::spawn_local(serve_h1(Rc::clone(worker), Io::Plain(stream), connection, member));
}

/// Serves a connection between proxies of the mesh.
pub(crate) async fn serve_tunnel(worker: Rc<Worker>, io: Io, connection: Connection, member: Member) {
    serve_h2(worker, h2_input(io), connection, member).await;
}

fn h2_input(io: Io) -> (Io, rhumb_conn::input::Input) {
    (io, rhumb_conn::input::Input::default())
}

async fn accept_tls(
    worker: &Worker,
    port: &Port,
    stream: TcpStream,
    mut connection: Connection,
) -> Option<(Io, Connection)> {
    let servers = port.tls.clone()?;
    let io = Io::Tls(Box::new(TlsStream::server(stream, servers)));
    let (io, facts) = handshake(worker, port, io, connection.peer).await.ok()?;
    connection.tls = Some(Box::new(facts));
    Some((io, connection))
}

/// Completes a handshake with a client and counts how it went; an error is the reason in metrics.
pub(crate) async fn handshake(
    worker: &Worker,
    port: &Port,
    mut io: Io,
    peer: SocketAddr,
) -> Result<(Io, TlsFacts), &'static str> {
    let mut timer = Timer::new();
    timer.set(Instant::now() + port.settings.handshake_timeout);
    let result = poll_fn(|cx| {
        if let Poll::Ready(result) = io.poll_handshake(cx) {
            return Poll::Ready(Some(result));
        }
        timer.poll(cx).map(|()| None)
    })
    .await;
    let name = port.name.as_str();
    let reason = match result {
        Some(Ok(())) => {
            let tls = io.tls().ok_or("internal_error")?;
            let peer = tls.peer();
            let facts = TlsFacts {
                version: tls.version().map_or("", |version| version.as_str()),
                cipher: tls.cipher().unwrap_or_default(),
                server_name: tls.server_name().map(Into::into),
                client_subject: peer.as_ref().and_then(|peer| peer.spiffe_id().map(Into::into)),
                certificate: peer.as_ref().map(|peer| Arc::new(certificate(peer))),
            };
            let resumed = if tls.is_resumed() { "true" } else { "false" };
            worker.metrics.borrow_mut().add(Metric::Handshakes, &[name, facts.version, resumed], 1);
            return Ok((io, facts));
        }
        None => {
            worker.metrics.borrow_mut().limit(Limit::HandshakeTime);
            "timeout"
        }
        Some(Err(error)) => {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            if matches!(error, HandshakeError::PlainHttp) && port.l4.is_none() {
                answer_plain(&mut io).await;
            }
            error.kind()
        }
    };
    worker.metrics.borrow_mut().add(Metric::HandshakeFailures, &[name, reason], 1);
    Err(reason)
}

fn certificate(peer: &Peer) -> Certificate {
    let texts = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
    Certificate {
        subject: peer.subject.as_str().into(),
        serial: peer.serial.as_str().into(),
        dns_names: texts(&peer.dns_names),
        uris: texts(&peer.uris),
        emails: texts(&peer.emails),
        addresses: peer.addresses.iter().map(|address| address.to_string().into()).collect(),
        fingerprint: peer.fingerprint_hex().into(),
        spiffe_id: peer.spiffe_id().unwrap_or_default().into(),
        not_after: peer.not_after_unix,
    }
}

/// Tells a client that speaks plain HTTP to a TLS port what is wrong, in its own protocol.
async fn answer_plain(io: &mut Io) {
    const CONTENT: &str = "This port speaks TLS: use https:// instead.\n";
    let Io::Tls(stream) = io else { return };
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{CONTENT}",
        CONTENT.len()
    );
    let socket = stream.transport_mut();
    // One attempt: a fresh connection takes so little at once, and nobody waits for a client that does not.
    let _ = poll_fn(|cx| Poll::Ready(rhumb_net::socket::poll_write(socket, cx, answer.as_bytes()))).await;
}

/// Why a wait for a request ended.
enum Next {
    Request,
    Preface,
    Refused(rhumb_codec::h1::RequestError),
    TimedOut,
    /// Nothing has begun to come.
    Idle,
    Gone,
}

/// The bound that a refused request head has reached, if it was one.
fn limit_of(code: &str) -> Option<Limit> {
    match code {
        "too_many_fields" => Some(Limit::Headers),
        "section_too_long" | "section_too_large" => Some(Limit::HeaderBytes),
        "target_too_long" | "path_too_long" => Some(Limit::UriBytes),
        _ => None,
    }
}

/// The bound that a connection of HTTP/2 has broken, if it was one.
fn limit_of_h2(error: ConnectionError) -> Option<Limit> {
    let abuse = match error {
        ConnectionError::Abuse(abuse) => abuse,
        ConnectionError::SettingsTimeout => return Some(Limit::H2SettingsTime),
        _ => return None,
    };
    Some(match abuse {
        Abuse::Resets => Limit::H2Resets,
        Abuse::Pings => Limit::H2Pings,
        Abuse::Settings => Limit::H2Settings,
        Abuse::EmptyFrames => Limit::H2EmptyFrames,
        Abuse::WindowUpdates => Limit::H2WindowUpdates,
        Abuse::Priorities => Limit::H2Priorities,
        Abuse::UselessFrames => Limit::H2UselessFrames,
        Abuse::Continuations => Limit::H2Continuations,
        Abuse::FieldBlock => Limit::H2FieldBlock,
        Abuse::FieldSection => Limit::H2FieldSection,
        Abuse::Output => Limit::H2Output,
    })
}

/// Serves HTTP/1, until the client turns out to speak HTTP/2.
async fn serve_h1(worker: Rc<Worker>, io: Io, connection: Connection, mut member: Member) {
    let settings = |worker: &Worker| connection.port(worker).1.settings.clone();
    let first = settings(&worker);
    let may_be_h2 = first.http2 && io.plain().is_some();
    let mut server = h1::Server::new(io, connection.scheme, first.limits);
    let (header_timeout, idle_timeout) = (first.header_timeout, first.idle_timeout);
    drop(first);
    let mut timer = Timer::new();
    connection.rests_since.set(Instant::now());
    timer.set(connection.rests_since.get() + header_timeout);
    let mut is_first = true;
    loop {
        let mut head: Option<Box<RequestHead>> = None;
        let mut is_waiting = true;
        let mut is_leaving = false;
        let mut held = None;
        let next = poll_fn(|cx| {
            member.watch(cx.waker());
            loop {
                if server.peeked().is_empty() {
                    // The first request tells the protocol: it is read.
                    if !is_first && worker.gauge.is_shedding() && connection.verdict.get().is_none() {
                        held = connection.judge(&worker, &server, cx).map(|(held, time)| {
                            timer.set(Instant::now() + time);
                            held
                        });
                    }
                    if held.is_some() {
                        if timer.poll(cx).is_pending() {
                            return Poll::Pending;
                        }
                        held = None;
                        timer.set(Instant::now() + idle_timeout);
                    }
                    match server.poll_more(cx) {
                        Poll::Ready(Ok(true)) => {}
                        Poll::Ready(_) => return Poll::Ready(Next::Gone),
                        Poll::Pending => {
                            // What was announced was no request.
                            connection.verdict.set(None);
                            if !is_leaving && connection.is_leaving(&worker) {
                                is_leaving = true;
                                timer.set(Instant::now() + worker.quiet());
                            }
                            if worker.is_rest_over(connection.rests_since.get()) {
                                return Poll::Ready(Next::Gone);
                            }
                            return timer.poll(cx).map(|()| Next::Idle);
                        }
                    }
                }
                if is_first && may_be_h2 {
                    match h2::is_preface(server.peeked()) {
                        Some(true) => return Poll::Ready(Next::Preface),
                        None => match server.poll_more(cx) {
                            Poll::Ready(Ok(true)) => continue,
                            Poll::Ready(_) => return Poll::Ready(Next::Gone),
                            Poll::Pending => return timer.poll(cx).map(|()| Next::Idle),
                        },
                        Some(false) => {}
                    }
                }
                let head = head.get_or_insert_with(|| worker.take_request());
                return match server.poll_request(cx, head) {
                    Poll::Ready(Ok(())) => Poll::Ready(Next::Request),
                    Poll::Ready(Err(h1::NoRequest::Refused(error))) => Poll::Ready(Next::Refused(error)),
                    Poll::Ready(Err(_)) => Poll::Ready(Next::Gone),
                    Poll::Pending => {
                        // A request that is there as a whole needs no time.
                        if std::mem::take(&mut is_waiting) && !is_first {
                            timer.set(Instant::now() + header_timeout);
                        }
                        timer.poll(cx).map(|()| Next::TimedOut)
                    }
                };
            }
        })
        .await;
        let request = match next {
            Next::Preface => {
                let (io, input) = server.into_io();
                return Box::pin(serve_h2(worker, (io, input), connection, member)).await;
            }
            Next::Request => Ok(()),
            Next::Refused(error) => {
                if let Some(limit) = limit_of(error.code()) {
                    worker.metrics.borrow_mut().limit(limit);
                }
                Err(error.cause())
            }
            Next::TimedOut => {
                worker.metrics.borrow_mut().limit(Limit::HeaderTime);
                Err(rhumb_base::failure::Cause::RequestTimeout)
            }
            Next::Idle if is_leaving => break,
            Next::Idle => {
                let limit = if is_first { Limit::HeaderTime } else { Limit::IdleTime };
                worker.metrics.borrow_mut().limit(limit);
                break;
            }
            Next::Gone => break,
        };
        is_first = false;
        let Some(head) = head else { break };
        let after = match request {
            // One allocation per exchange, so that a resting connection does not hold an exchange's state.
            Ok(()) => {
                boxed(|| exchange::serve(&worker, &connection, Down::H1(&mut server), head, &mut timer)).await
            }
            Err(cause) => {
                Box::pin(respond::refuse_unread(
                    &worker,
                    &connection,
                    &mut Down::H1(&mut server),
                    head,
                    cause,
                    &mut timer,
                ))
                .await;
                After::Linger
            }
        };
        match after {
            After::KeepAlive => {
                timer.set(connection.rests_since.get() + idle_timeout);
            }
            After::Close => break,
            After::Cut => return,
            After::Linger => {
                Box::pin(linger(&mut server, &mut timer)).await;
                return;
            }
        }
    }
    let _ = poll_fn(|cx| match server.poll_close(cx) {
        Poll::Pending => Poll::Ready(Ok(())),
        ready => ready,
    })
    .await;
}

/// Closes without a reset racing the answer to the client (RFC 9112 §9.6).
async fn linger(server: &mut h1::Server, timer: &mut Timer) {
    timer.set(Instant::now() + LINGER);
    poll_fn(|cx| {
        if timer.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match server.poll_shutdown(cx) {
            Poll::Ready(Ok(())) => server.poll_linger(cx),
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
}

async fn serve_h2(
    worker: Rc<Worker>,
    (io, input): (Io, rhumb_conn::input::Input),
    connection: Connection,
    mut member: Member,
) {
    let settings = connection.port(&worker).1.settings.clone();
    let connection = Rc::new(connection);
    let mut config = h2::Config::new(h2::Role::Server);
    config.max_concurrent_streams = settings.max_concurrent_streams;
    config.max_header_list_size = u32::try_from(settings.limits.head_bytes).unwrap_or(u32::MAX);
    config.max_fields = u32::try_from(settings.limits.fields).unwrap_or(u32::MAX);
    config.max_path = u32::try_from(settings.limits.target_bytes).unwrap_or(u32::MAX);
    let mut driver = h2::Driver::new(io, input, config, settings.idle_timeout);
    let mut is_leaving = false;
    // Unless a stream is open.
    let mut rests_since = Instant::now();
    let mut was_unused = true;
    let mut counted = (0, 0);
    let mut is_unlucky = false;
    let mut seen = worker.revision();
    poll_fn(|cx| {
        member.watch(cx.waker());
        if let Some(mesh) = &connection.mesh {
            let revision = worker.revision();
            if revision != seen {
                seen = revision;
                driver.wake_streams();
            }
            if mesh.is_revoked(&worker) {
                worker.metrics.borrow_mut().add(Metric::MeshEnded, &["revoked"], 1);
                driver.cut();
                return Poll::Ready(());
            }
        }
        let is_unused = driver.is_unused();
        if is_unused && !was_unused {
            rests_since = Instant::now();
        }
        was_unused = is_unused;
        let is_used_up = connection.is_used_up(&settings);
        if !is_leaving
            && (connection.is_leaving(&worker)
                || is_used_up
                || is_unlucky
                || is_unused && worker.is_rest_over(rests_since))
        {
            is_leaving = true;
            if is_used_up {
                worker.metrics.borrow_mut().limit(Limit::RequestsPerConnection);
            }
            driver.leave();
        }
        let result = driver.poll_serve(cx, |stream, request| {
            is_unlucky |= worker.gauge.leaves(&worker.rng);
            let (worker, connection) = (Rc::clone(&worker), Rc::clone(&connection));
            tokio::task::spawn_local(boxed(|| serve_stream(worker, connection, stream, request)));
        });
        let hits = driver.limit_hits();
        if hits != counted {
            let mut metrics = worker.metrics.borrow_mut();
            let new = [hits.0.saturating_sub(counted.0), hits.1.saturating_sub(counted.1)];
            for (limit, n) in [Limit::ConcurrentStreams, Limit::H2StallTime].into_iter().zip(new) {
                metrics.add(Metric::LimitHits, &[limit.name()], n.into());
            }
            counted = hits;
        }
        result
    })
    .await;
    let mut metrics = worker.metrics.borrow_mut();
    if driver.is_idled_out() {
        metrics.limit(Limit::IdleTime);
    }
    if let Some(error) = driver.error() {
        let code = error.code().name().unwrap_or("UNKNOWN");
        metrics.add(Metric::ProtocolErrors, &["client", "HTTP/2", code], 1);
        if let Some(limit) = limit_of_h2(error) {
            metrics.limit(limit);
        }
    }
}

/// Serves one stream of an HTTP/2 connection: a request, one that has to be refused, or a connection inside (HBONE).
async fn serve_stream(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    mut stream: h2::Stream,
    request: Result<Box<RequestHead>, h2::Refusal>,
) {
    let mut timer = Timer::new();
    let request = match request {
        Ok(head) if connection.mesh.is_some() && mesh::is_tunnel(&head) => {
            return Box::pin(hbone::serve(&worker, &connection, stream, head)).await;
        }
        other => other,
    };
    let aimed = match (&request, &connection.mesh) {
        (Ok(head), Some(mesh)) if mesh.is_open() => mesh::aim(&worker, &connection, mesh, head),
        _ => None,
    };
    let connection = aimed.unwrap_or(connection);
    let mut down = Down::H2(&mut stream);
    match request {
        Ok(head) => {
            exchange::serve(&worker, &connection, down, head, &mut timer).await;
            // The connection makes the heads of requests, and the exchange has left its own with the worker.
            stream.recycle_request(worker.take_request());
        }
        Err(refusal) => {
            if let Some(limit) = limit_of(refusal.code()) {
                worker.metrics.borrow_mut().limit(limit);
            }
            let head = worker.take_request();
            respond::refuse_unread(&worker, &connection, &mut down, head, refusal.cause(), &mut timer).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_output<A, F>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_resting_connection_is_small() {
        // Behind it stand the runtime's task header and the socket's registration, about 400 bytes together.
        let task =
            size_of_output(|(worker, io, connection, member)| serve_h1(worker, io, connection, member));
        assert!(task <= 1024, "{task} bytes");
    }
}
