//! Datagrams: sessions by client address, each with a socket of its own to an endpoint.
//!
//! A listener's socket is one of a group (SO_REUSEPORT): the kernel gives all datagrams of a client to the same worker,
//! so sessions are never shared. The number of sessions is bounded; one more ends the one that rested longest, because a
//! flood of clients that never come back must not keep others out.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rhumb_balance::{Endpoint, InFlight, Nanos, NotPicked, Outcome};
use rhumb_base::failure::Cause;
use rhumb_net::datagrams::{Came, receive, receive_connected};
use rhumb_net::socket::{send_datagram, send_datagram_to};
use rhumb_net::timer::Timer;
use rhumb_plan::{Backend, Port};
use rhumb_telemetry::metrics::LocalCounter;
use rhumb_telemetry::{Limit, Metric, Protocol};
use rhumb_upstream::limit::{self, Permit};
use tokio::io::{Interest, Ready};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use crate::l4::record::Account;
use crate::l4::sessions::Sessions;
use crate::worker::{Member, Worker};

/// Batches of one socket before others get their turn.
const BATCHES: usize = 4;

/// How long a session may rest while the process drains.
const QUIET: Duration = Duration::from_secs(2);

/// How long receiving pauses after an error of the listening socket: trying at once would only burn CPU.
const PAUSE: Duration = Duration::from_millis(50);

/// A UDP listener of one worker.
pub(crate) struct Hub {
    worker: Rc<Worker>,
    address: SocketAddr,
    name: String,
    socket: UdpSocket,
    sessions: RefCell<Sessions<SocketAddr, Rc<Session>>>,
    received: LocalCounter,
    sent: LocalCounter,
}

/// What one client and one endpoint have to do with each other.
struct Session {
    client: SocketAddr,
    socket: UdpSocket,
    backend: Arc<Backend>,
    endpoint: Arc<Endpoint>,
    /// What of the configuration and of the backend's endpoints it was last compared with.
    seen: Cell<(u64, u64)>,
    /// When something last moved.
    moved: Cell<Instant>,
    account: RefCell<Account>,
    task: Cell<Option<AbortHandle>>,
    begun: Instant,
    /// Counts the session among what its endpoint has to do.
    load: RefCell<Option<InFlight>>,
    /// Counts it among the connections of its backend.
    _permit: Permit,
    /// Its first answer, which says something about the endpoint, has come.
    is_answered: Cell<bool>,
}

impl Session {
    /// An ICMP message said that nobody is there (RFC 1122 §4.1.3.3).
    fn refuse(&self, origin: Instant, error: &io::Error) {
        let now = Instant::now();
        if let Some(load) = self.load.take().filter(|_| !self.is_answered.get()) {
            let took = now.saturating_duration_since(self.begun);
            self.backend.endpoints.finish(load, took, Outcome::LocalFailure, Nanos::since(origin, now));
        }
        self.account.borrow_mut().fail(match error.kind() {
            io::ErrorKind::ConnectionRefused => Cause::ConnectRefused.into(),
            _ => Cause::ConnectFailed.into(),
        });
    }

    /// Answers have come.
    fn answered(&self, origin: Instant, now: Instant) {
        self.moved.set(now);
        if let Some(load) = self.load.borrow_mut().as_mut()
            && !self.is_answered.replace(true)
        {
            // It counts on as long as the session lives.
            let took = now.saturating_duration_since(self.begun);
            self.backend.endpoints.note(load, took, Outcome::Success, Nanos::since(origin, now));
            self.account.borrow_mut().connect = Some(took);
        }
    }

    /// Ends it from outside of its task.
    fn end(&self, why: &'static str) {
        self.account.borrow_mut().end = why;
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Hub {
    pub(crate) fn new(
        worker: &Rc<Worker>,
        address: SocketAddr,
        socket: std::net::UdpSocket,
    ) -> io::Result<Rc<Self>> {
        socket.set_nonblocking(true)?;
        let name = worker.plan().udp_port(address).map(|port| port.name.to_string()).unwrap_or_default();
        let (received, sent) = {
            let mut metrics = worker.metrics.borrow_mut();
            let received = metrics.counter(Metric::UdpDatagrams, &[&name, "in"]);
            (received, metrics.counter(Metric::UdpDatagrams, &[&name, "out"]))
        };
        Ok(Rc::new(Self {
            worker: Rc::clone(worker),
            address,
            name,
            socket: UdpSocket::from_std(socket)?,
            sessions: RefCell::default(),
            received,
            sent,
        }))
    }

    /// Takes datagrams until its task is aborted.
    pub(crate) async fn serve(self: Rc<Self>) {
        loop {
            if self.socket.readable().await.is_err() {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            for _ in 0..BATCHES {
                let came = receive(&self.socket, self.address.is_ipv6(), |client, datagram| {
                    self.received.increment();
                    self.take(client, datagram);
                });
                match came {
                    Ok(Came::Batch) => {}
                    Ok(Came::All) => break,
                    Err(error) => {
                        tracing::debug!(address = %self.address, %error, "receiving datagrams failed");
                        tokio::time::sleep(PAUSE).await;
                        break;
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Ends every session: the listener is gone, and its socket must not stay behind.
    pub(crate) fn close(&self) {
        for session in self.sessions.borrow_mut().drain() {
            session.end("listener_removed");
        }
    }

    /// Sends a datagram on.
    fn take(self: &Rc<Self>, client: SocketAddr, datagram: &[u8]) {
        let known = self.sessions.borrow_mut().touch(&client).map(Rc::clone);
        let session = match known {
            Some(session) if self.is_current(&session) => session,
            Some(session) => {
                // Its endpoint is gone: the next one may know nothing of it, but the old one will never answer.
                self.sessions.borrow_mut().remove(&client);
                session.end("endpoint_removed");
                match self.open(client) {
                    Some(session) => session,
                    None => return,
                }
            }
            None => match self.open(client) {
                Some(session) => session,
                None => return,
            },
        };
        let session = match send_datagram(&session.socket, datagram) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // An earlier datagram was refused: this one goes to another endpoint at once.
                self.sessions.borrow_mut().remove(&client);
                session.refuse(self.worker.origin, &error);
                session.end("connect_refused");
                let Some(session) = self.open(client) else { return };
                if send_datagram(&session.socket, datagram).is_err() {
                    return self.drop_one("refused");
                }
                session
            }
            Err(error) => {
                return self.drop_one(if error.kind() == io::ErrorKind::WouldBlock {
                    "backlog"
                } else {
                    "send"
                });
            }
            Ok(()) => session,
        };
        session.moved.set(Instant::now());
        session.account.borrow_mut().count_in(datagram.len());
    }

    fn drop_one(&self, reason: &'static str) {
        self.worker.metrics.borrow_mut().add(Metric::UdpDropped, &[&self.name, reason], 1);
    }

    /// True when the session's endpoint is still one of its backend's, and the backend one of the listener's.
    fn is_current(&self, session: &Session) -> bool {
        let revision = self.worker.reader.borrow_mut().load().revision;
        let now = (revision, session.backend.endpoints.generation());
        let (seen_revision, seen_generation) = session.seen.get();
        if now == (seen_revision, seen_generation) {
            return true;
        }
        let plan = self.worker.plan();
        let backend = match revision == seen_revision {
            true => Some(&session.backend),
            false => plan.udp_port(self.address).and_then(|port| same_backend(port, &session.backend)),
        };
        let address = session.endpoint.address();
        let is_there = backend.is_some_and(|backend| {
            backend.endpoints.load().members().iter().any(|member| member.endpoint().address() == address)
        });
        if is_there {
            session.seen.set(now);
        }
        is_there
    }

    /// Gives an endpoint's datagram to the client.
    fn send_back(&self, session: &Session, datagram: &[u8]) {
        match send_datagram_to(&self.socket, datagram, session.client) {
            Ok(()) => {
                self.sent.increment();
                session.account.borrow_mut().count_out(datagram.len());
            }
            // A datagram may be lost; waiting would make all others late.
            Err(error) => {
                self.drop_one(if error.kind() == io::ErrorKind::WouldBlock { "backlog" } else { "client" });
            }
        }
    }

    /// Opens a session for a client; nothing when there is nowhere to send its datagrams.
    fn open(self: &Rc<Self>, client: SocketAddr) -> Option<Rc<Session>> {
        let plan = self.worker.plan();
        // A removed listener's socket may have something left.
        let port = plan.udp_port(self.address)?;
        let l4 = port.l4.as_deref()?;
        let rule = l4.listener(None).and_then(|listener| listener.routes.find(None));
        let Some(rule) = rule.filter(|rule| rule.invalid.is_none()) else {
            self.drop_one("no_route");
            return None;
        };
        let backend = rule.choose(&mut self.worker.rng.borrow_mut()).map(|(_, backend)| Arc::clone(backend));
        let Some(backend) = backend else {
            self.drop_one("no_backend");
            return None;
        };
        let now = Instant::now();
        let picked = {
            let (nanos, mut rng) = (Nanos::since(self.worker.origin, now), self.worker.rng.borrow_mut());
            backend.begin_for(client.ip().to_canonical(), nanos, &mut rng, &[])
        };
        let load = match picked {
            Ok(load) => load,
            Err(none) => {
                self.drop_one(match none {
                    NotPicked::NoEndpoint => "no_endpoint",
                    NotPicked::Limit => "backend_limit",
                });
                return None;
            }
        };
        // A session is to its endpoint what a connection is.
        let Ok(permit) = limit::permit_now(backend.target()) else {
            self.drop_one("backend_limit");
            return None;
        };
        let endpoint = Arc::clone(load.endpoint());
        let socket = match connect(endpoint.address()) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(endpoint = endpoint.label(), %error, "no socket for a session");
                self.drop_one("no_socket");
                return None;
            }
        };
        let mut account = Account::new(&self.worker, port, Protocol::Udp, client);
        account.rule = Some(Arc::clone(rule));
        account.backend = Some(Arc::clone(&backend));
        account.endpoint = Some(Arc::clone(&endpoint));
        account.tries = 1;
        account.begin();
        let session = Rc::new(Session {
            client,
            socket,
            seen: Cell::new((plan.revision, backend.endpoints.generation())),
            backend,
            endpoint,
            moved: Cell::new(now),
            account: RefCell::new(account),
            task: Cell::new(None),
            begun: now,
            load: RefCell::new(Some(load)),
            _permit: permit,
            is_answered: Cell::new(false),
        });
        let evicted = {
            let mut sessions = self.sessions.borrow_mut();
            let bound = usize::try_from(l4.udp.max_sessions).unwrap_or(usize::MAX);
            let evicted = if sessions.len() >= bound { sessions.pop_oldest() } else { None };
            sessions.insert(client, Rc::clone(&session));
            evicted
        };
        if let Some(evicted) = evicted {
            self.worker.metrics.borrow_mut().limit(Limit::UdpSessions);
            evicted.end("evicted");
        }
        let limits = Limits { idle: l4.udp.idle, responses: l4.udp.responses };
        let task = answers(Rc::clone(self), Rc::clone(&session), limits, self.worker.join(None));
        session.task.set(Some(tokio::task::spawn_local(task).abort_handle()));
        Some(session)
    }
}

/// The backend of that name that the port has.
fn same_backend<'p>(port: &'p Port, backend: &Backend) -> Option<&'p Arc<Backend>> {
    let rule = port.l4.as_deref()?.listener(None)?.routes.find(None)?;
    let mut backends = rule.backends.iter().filter_map(|(_, backend)| backend.as_ref());
    backends.find(|other| other.name == backend.name)
}

#[derive(Clone, Copy)]
struct Limits {
    idle: Duration,
    responses: Option<u32>,
}

/// Why a session's task ends.
enum End {
    Rested,
    Answered,
    Refused(io::Error),
}

/// Carries an endpoint's datagrams to the client until the session ends.
async fn answers(hub: Rc<Hub>, session: Rc<Session>, limits: Limits, mut member: Member) {
    // Datagrams, or an ICMP message about one of ours.
    let interest = Interest::READABLE | Interest::ERROR;
    let mut answered = 0_u32;
    let mut timer = Timer::new();
    let mut ready = pin!(session.socket.ready(interest));
    let end = poll_fn(|cx| {
        member.watch(cx.waker());
        let idle = if hub.worker.is_draining() { QUIET.min(limits.idle) } else { limits.idle };
        let mut taken = 0;
        while let Poll::Ready(is_ready) = ready.as_mut().poll(cx) {
            ready.set(session.socket.ready(interest));
            if is_ready.is_ok_and(Ready::is_error) {
                if let Ok(Some(error)) = session.socket.take_error() {
                    return Poll::Ready(End::Refused(error));
                }
                let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                let _ = session.socket.try_io(Interest::ERROR, nothing);
            }
            if taken >= BATCHES {
                cx.waker().wake_by_ref();
                break;
            }
            taken += 1;
            let had = answered;
            let came = receive_connected(&session.socket, |datagram| {
                if limits.responses.is_none_or(|most| answered < most) {
                    hub.send_back(&session, datagram);
                    answered = answered.saturating_add(1);
                }
            });
            if answered > had {
                session.answered(hub.worker.origin, Instant::now());
            }
            if let Err(error) = came {
                return Poll::Ready(End::Refused(error));
            }
            if limits.responses.is_some_and(|most| answered >= most) {
                return Poll::Ready(End::Answered);
            }
        }
        // What the client sends moves the deadline without waking this task: it is looked at when it comes up.
        loop {
            timer.set(session.moved.get() + idle);
            if timer.poll(cx).is_pending() {
                return Poll::Pending;
            }
            if session.moved.get().elapsed() >= idle {
                return Poll::Ready(End::Rested);
            }
        }
    })
    .await;
    session.task.set(None);
    hub.sessions.borrow_mut().remove(&session.client);
    match end {
        End::Rested => {
            session.account.borrow_mut().end =
                if hub.worker.is_draining() { "draining" } else { "idle_timeout" };
        }
        End::Answered => session.account.borrow_mut().end = "closed",
        End::Refused(error) => session.refuse(hub.worker.origin, &error),
    }
}

/// A socket that takes datagrams of the endpoint only.
fn connect(endpoint: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match endpoint {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    rhumb_net::capture::mark(&socket);
    socket.connect(endpoint)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}
