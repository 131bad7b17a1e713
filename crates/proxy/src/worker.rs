//! A worker: one thread, one single-threaded runtime, and everything that its connections share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::task::Waker;
use std::time::{Duration, Instant};

use rhumb_base::outside::OutsideNames;
use rhumb_base::rng::Rng;
use rhumb_codec::head::{RequestHead, ResponseHead};
use rhumb_plan::{Current, Plan, Reader};
use rhumb_policy::Out;
use rhumb_policy::call::Local;
use rhumb_telemetry::metrics::LocalGauge;
use rhumb_telemetry::{
    AccessLog, Board, IdSource, Lookout, Metric, Registry, WorkerLog, WorkerMetrics, WorkerSightings,
    WorkerSignals,
};
use rhumb_tls::mesh::Expected;
use rhumb_upstream::Pools;
use tokio::net::TcpListener;
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc;

use crate::call;
use crate::clock::WallClock;
use crate::discovery::{Discovery, Plaintext};
use crate::export::Exports;
use crate::l4::outside::OutsideDns;
use crate::l4::udp::Hub;
use crate::listener;
use crate::mesh::Found;
use crate::mirror::Mirrors;
use crate::overload::{AddressGuard, Change, Gauge, Pressure, State};
use crate::queue;
use crate::rest::{Awake, Rest};
use crate::tap::{Taps, Watched};

/// Heads that a worker keeps for the next request.
const KEPT_HEADS: usize = 256;

/// Memory that a kept head may hold, in bytes; larger ones are freed.
const KEPT_HEAD_BYTES: usize = 8 << 10;

/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// How long a resting connection of HTTP/1 that is to go may still bring a request: one that is on its way already would
/// be lost with the connection, and clients may not repeat all of them (RFC 9112 §9.3.1). A drain that is shorter than
/// twice this gives half of its time.
const QUIET: Duration = Duration::from_secs(2);

/// How often access-log lines are handed over when there are few.
const LOG_TICK: Duration = Duration::from_millis(100);

/// Numbers the workers of the process.
static STRIPE: AtomicUsize = AtomicUsize::new(0);

/// What every worker of the process shares.
#[derive(Clone)]
pub struct Shared {
    /// The plan in force.
    pub current: Current,
    /// Metrics.
    pub registry: Arc<Registry>,
    /// Where the balancer's clock begins.
    pub origin: Instant,
    /// Connections that are open, of all workers.
    pub connections: Arc<AtomicU32>,
    /// Overload.
    pub pressure: Arc<Pressure>,
    /// Who knows where captured connections lead.
    pub discovery: Discovery,
    /// Names out of the mesh by the addresses that stand for them.
    pub outside: Arc<OutsideNames>,
    /// Who calls the workload in plain text.
    pub plaintext: Arc<Plaintext>,
    /// Golden signals; `None` is off.
    pub signals: Option<Arc<Board>>,
    /// Who finds out which APIs there are; `None` is nobody.
    pub lookout: Option<Arc<Lookout>>,
    /// Who looks at exchanges.
    pub taps: Arc<Taps>,
    /// The workers that do not rest.
    pub awake: Arc<Awake>,
}

/// A command to a worker. Commands of one sender arrive in order.
pub enum Command {
    /// Accept connections on this socket, which is bound already.
    Listen(SocketAddr, std::net::TcpListener),
    /// Take datagrams on this socket, which is bound already.
    ListenUdp(SocketAddr, std::net::UdpSocket),
    /// Stop taking datagrams on this address, and end its sessions.
    UnlistenUdp(SocketAddr),
    /// Stop accepting on this address; its connections finish what they have and are closed.
    Unlisten(SocketAddr),
    /// Look at the plan in force: another one may ask for something that a worker at rest does not see.
    Look,
    /// Write the access log there from now on.
    Log(Vec<Arc<AccessLog>>),
    /// Put this number there: a sign that the worker turns.
    Answer(u32, Arc<AtomicU32>),
    /// Ask another service, on behalf of nobody's request.
    Ask(Errand),
    /// Stop accepting, tell clients to go, and stop when the last connection is gone or at this time.
    Drain(Instant),
}

/// What a worker does beside requests, with its way out to other services.
pub type Errand = Box<dyn FnOnce(Out) -> Local<()> + Send>;

/// Everything that the connections of one worker share. Lives on its thread.
pub struct Worker {
    pub(crate) reader: RefCell<Reader>,
    pub(crate) pools: Rc<Pools>,
    pub(crate) metrics: RefCell<WorkerMetrics>,
    /// Golden signals, where they are on.
    pub(crate) signals: Option<RefCell<WorkerSignals>>,
    /// What requests there are, where somebody wants to know.
    pub(crate) sightings: Option<RefCell<WorkerSightings>>,
    /// Who this proxy calls as, as far as that is known.
    pub(crate) own_name: RefCell<Rc<str>>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) logs: RefCell<Vec<WorkerLog>>,
    pub(crate) ids: RefCell<IdSource>,
    pub(crate) origin: Instant,
    pub(crate) rng: RefCell<Rng>,
    /// This worker's place where workers count together.
    pub(crate) stripe: usize,
    pub(crate) gauge: Gauge,
    /// Whether it rests.
    pub(crate) rest: Rest,
    /// A descriptor that is given up when there is no other left.
    pub(crate) reserve: RefCell<Option<std::fs::File>>,
    /// Connections that rest since before this time are closed.
    rest_limit: Cell<Option<Instant>>,
    pub(crate) mirrors: Mirrors,
    pub(crate) exports: Exports,
    /// What is spoken on ports of the mesh that do not say.
    pub(crate) found: Found,
    pub(crate) discovery: Discovery,
    pub(crate) outside: Arc<OutsideNames>,
    pub(crate) outside_dns: OutsideDns,
    pub(crate) plaintext: Arc<Plaintext>,
    /// Who looks at exchanges.
    pub(crate) watched: Watched,
    /// The way out for policies.
    pub(crate) out: Out,
    // Boxed as they are handed on: a head does not move with its exchange.
    #[allow(clippy::vec_box)]
    requests: RefCell<Vec<Box<RequestHead>>>,
    #[allow(clippy::vec_box)]
    responses: RefCell<Vec<Box<ResponseHead>>>,
    draining: Cell<bool>,
    drain: Cell<Option<(Instant, Instant)>>,
    /// How long a connection without a request may still bring one once it is to go.
    quiet: Cell<Duration>,
    /// How many listeners were removed.
    removals: Cell<u32>,
    /// Tasks to wake when connections are to go, by place; free places are chained in `free_places`.
    watchers: RefCell<Vec<Option<Waker>>>,
    free_places: RefCell<Vec<u32>>,
    open: Cell<u32>,
    all_open: Arc<AtomicU32>,
    clock: WallClock,
}

impl Worker {
    fn new(shared: &Shared) -> std::io::Result<Rc<Self>> {
        let reserve = reserve();
        let ids = RefCell::new(IdSource::from_os()?);
        Ok(Rc::new_cyclic(|this| Self {
            out: call::way_out(Weak::clone(this)),
            reader: RefCell::new(shared.current.reader()),
            pools: Pools::new(),
            metrics: RefCell::new(shared.registry.worker()),
            signals: shared.signals.as_ref().map(|board| RefCell::new(board.worker())),
            sightings: shared.lookout.as_ref().map(|lookout| RefCell::new(lookout.worker())),
            own_name: RefCell::new(crate::signals::GATEWAY.into()),
            registry: Arc::clone(&shared.registry),
            logs: RefCell::default(),
            ids,
            origin: shared.origin,
            rng: RefCell::new(Rng::from_os()),
            stripe: STRIPE.fetch_add(1, Relaxed),
            gauge: Gauge::new(&shared.pressure),
            rest: Rest::new(&shared.awake),
            reserve: RefCell::new(reserve),
            rest_limit: Cell::new(None),
            mirrors: Mirrors::default(),
            exports: Exports::default(),
            found: Found::default(),
            discovery: shared.discovery.clone(),
            outside: Arc::clone(&shared.outside),
            outside_dns: OutsideDns::default(),
            plaintext: Arc::clone(&shared.plaintext),
            watched: Watched::new(Arc::clone(&shared.taps)),
            requests: RefCell::default(),
            responses: RefCell::default(),
            draining: Cell::new(false),
            drain: Cell::new(None),
            quiet: Cell::new(QUIET),
            removals: Cell::new(0),
            watchers: RefCell::default(),
            free_places: RefCell::default(),
            open: Cell::new(0),
            all_open: Arc::clone(&shared.connections),
            clock: WallClock::new(),
        }))
    }

    /// The plan in force.
    pub(crate) fn plan(&self) -> Arc<Plan> {
        Arc::clone(self.reader.borrow_mut().load())
    }

    /// True once the process shuts down.
    #[inline]
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    pub(crate) fn take_request(&self) -> Box<RequestHead> {
        self.requests.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_request(&self, mut head: Box<RequestHead>) {
        let mut kept = self.requests.borrow_mut();
        if kept.len() < KEPT_HEADS && head.fields.capacity() <= KEPT_HEAD_BYTES {
            head.clear();
            kept.push(head);
        }
    }

    pub(crate) fn take_response(&self) -> Box<ResponseHead> {
        self.responses.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_response(&self, mut head: Box<ResponseHead>) {
        let mut kept = self.responses.borrow_mut();
        if kept.len() < KEPT_HEADS && head.fields.capacity() <= KEPT_HEAD_BYTES {
            head.clear();
            kept.push(head);
        }
    }

    /// Nanoseconds since 1970 at a moment.
    pub(crate) fn unix_nanos(&self, at: Instant) -> u64 {
        self.clock.unix_nanos(at)
    }

    /// Nanoseconds since 1970 now, up to a second late, for something that began at a moment: see [`WallClock`].
    pub(crate) fn unix_nanos_lately(&self, began: Instant) -> u64 {
        self.clock.unix_nanos_lately(began)
    }

    /// Connections that are open on this worker.
    pub(crate) fn open(&self) -> u32 {
        self.open.get()
    }

    /// Connections that are open on all workers.
    pub(crate) fn all_open(&self) -> u32 {
        self.all_open.load(Relaxed)
    }

    /// Counts a connection, whose task can be woken when it is to go.
    pub(crate) fn join(self: &Rc<Self>, counted: Option<AddressGuard>) -> Member {
        self.rest.stir();
        self.open.set(self.open.get() + 1);
        self.all_open.fetch_add(1, Relaxed);
        Member { watch: Watch::new(self), _counted: counted.map(Box::new) }
    }

    /// How long a connection without a request may still bring one once it is to go.
    pub(crate) fn quiet(&self) -> Duration {
        self.quiet.get()
    }

    /// How many listeners were removed so far.
    #[inline]
    pub(crate) fn removals(&self) -> u32 {
        self.removals.get()
    }

    /// Closes connections that rest since before `since`: they are woken and look.
    pub(crate) fn close_resting(&self, since: Instant) {
        self.rest_limit.set(Some(since));
        self.wake_connections();
    }

    /// True when a connection that rests since `since` is to be closed.
    pub(crate) fn is_rest_over(&self, since: Instant) -> bool {
        self.rest_limit.get().is_some_and(|limit| since <= limit)
    }

    /// When the drain began, and when it ends.
    pub(crate) fn drain(&self) -> Option<(Instant, Instant)> {
        self.drain.get()
    }

    fn begin_drain(&self, deadline: Instant) {
        self.draining.set(true);
        self.drain.set(Some((Instant::now(), deadline)));
        self.quiet.set(QUIET.min(deadline.saturating_duration_since(Instant::now()) / 2));
        self.wake_connections();
    }

    fn note_removal(&self) {
        self.removals.set(self.removals.get().wrapping_add(1));
        self.wake_connections();
    }

    /// The revision in force.
    #[inline]
    pub(crate) fn revision(&self) -> u64 {
        self.reader.borrow_mut().load().revision
    }

    /// Has live connections of the mesh look whether they are still allowed, when something has changed.
    fn look_at_mesh(&self, seen: &mut (u64, u64, u64)) {
        let now = {
            let mut reader = self.reader.borrow_mut();
            let plan = reader.load();
            let Some(mesh) = &plan.mesh else { return };
            let generation = mesh.membership.as_ref().map_or(0, |membership| membership.generation());
            (plan.revision, generation, Expected::changes())
        };
        if now != *seen {
            *seen = now;
            self.wake_connections();
            self.leave_servers();
        } else if self.pools.has_news() {
            // Something may have been revoked while the handshake was under way.
            self.leave_servers();
        }
    }

    /// Ends connections to proxies of services whose identity was revoked, or is none of those that the service has.
    fn leave_servers(&self) {
        let plan = self.plan();
        let Some(membership) = plan.mesh.as_ref().and_then(|mesh| mesh.membership.as_ref()) else { return };
        let ways: HashMap<&str, &Expected> = plan
            .backends
            .iter()
            .filter_map(|backend| backend.mesh.as_ref())
            .map(|way| (&*way.server_name, &way.expected))
            .collect();
        // What is no longer called is called to its end.
        let ended = self.pools.cut(|server, name| {
            membership.admits(server) && ways.get(name).is_none_or(|expected| expected.contains(&server.id))
        });
        if ended > 0 {
            self.metrics.borrow_mut().add(Metric::MeshEnded, &["server"], ended);
        }
    }

    /// True when there is nothing to look after.
    fn is_quiet(&self) -> bool {
        self.open() == 0
            && self.pools.is_empty()
            && self.mirrors.is_empty()
            && self.gauge.state() == State::Normal
    }

    fn wake_connections(&self) {
        let watchers: Vec<_> = self.watchers.borrow().iter().flatten().cloned().collect();
        watchers.into_iter().for_each(Waker::wake);
    }
}

/// A connection's membership in its worker.
pub(crate) struct Member {
    watch: Watch,
    // Boxed: most listeners do not count, and very many connections rest.
    _counted: Option<Box<AddressGuard>>,
}

impl Member {
    /// Has this task woken when its connection may have to go. Its waker must stay the same.
    pub(crate) fn watch(&mut self, waker: &Waker) {
        self.watch.watch(waker);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let worker = &self.watch.worker;
        worker.open.set(worker.open.get().saturating_sub(1));
        worker.all_open.fetch_sub(1, Relaxed);
    }
}

/// A task that is woken when connections may have to go.
pub(crate) struct Watch {
    worker: Rc<Worker>,
    place: Option<u32>,
}

impl Watch {
    pub(crate) fn new(worker: &Rc<Worker>) -> Self {
        Self { worker: Rc::clone(worker), place: None }
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Has this task woken. Its waker must stay the same.
    pub(crate) fn watch(&mut self, waker: &Waker) {
        if self.place.is_some() {
            return;
        }
        let mut watchers = self.worker.watchers.borrow_mut();
        // There are never more of them than connections and streams.
        let end = u32::try_from(watchers.len()).unwrap_or(u32::MAX);
        let place = self.worker.free_places.borrow_mut().pop().unwrap_or(end);
        match watchers.get_mut(place as usize) {
            Some(slot) => *slot = Some(waker.clone()),
            None => watchers.push(Some(waker.clone())),
        }
        self.place = Some(place);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        if let Some(slot) = self.worker.watchers.borrow_mut().get_mut(place as usize) {
            *slot = None;
        }
        self.worker.free_places.borrow_mut().push(place);
    }
}

/// Runs a worker on this thread until it has drained.
///
/// # Errors
/// When the runtime or the randomness of the operating system is not to be had.
pub fn run(shared: &Shared, mut commands: mpsc::UnboundedReceiver<Command>) -> std::io::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let worker = Worker::new(shared)?;
    runtime.block_on(async {
        tokio::task::spawn_local(rhumb_net::timer::drive());
        tokio::task::spawn_local(housekeeping(Rc::clone(&worker)));
        let mut listeners: Vec<(SocketAddr, Rc<TcpListener>, tokio::task::JoinHandle<()>)> = Vec::new();
        let mut hubs: Vec<(SocketAddr, Rc<Hub>, tokio::task::JoinHandle<()>)> = Vec::new();
        let deadline = loop {
            match commands.recv().await {
                Some(Command::ListenUdp(address, socket)) => match Hub::new(&worker, address, socket) {
                    Ok(hub) => {
                        let serve = tokio::task::spawn_local(Rc::clone(&hub).serve());
                        hubs.push((address, hub, serve));
                    }
                    Err(error) => tracing::error!(%address, %error, "UDP listener cannot be registered"),
                },
                Some(Command::UnlistenUdp(address)) => hubs.retain(|(at, hub, task)| {
                    if *at == address {
                        task.abort();
                        hub.close();
                    }
                    *at != address
                }),
                Some(Command::Listen(address, socket)) => match rhumb_net::listen::register(socket) {
                    Ok(socket) => {
                        let socket = Rc::new(socket);
                        let accept = listener::accept(Rc::clone(&worker), address, Rc::clone(&socket));
                        listeners.push((address, socket, tokio::task::spawn_local(accept)));
                    }
                    Err(error) => tracing::error!(%address, %error, "listener cannot be registered"),
                },
                Some(Command::Unlisten(address)) => {
                    listeners.retain(|(at, socket, task)| {
                        if *at == address {
                            task.abort();
                            listener::accept_waiting(&worker, address, socket);
                        }
                        *at != address
                    });
                    worker.note_removal();
                }
                Some(Command::Log(logs)) => {
                    *worker.logs.borrow_mut() = logs.iter().map(|log| log.worker()).collect()
                }
                Some(Command::Look) => worker.rest.stir(),
                Some(Command::Answer(call, answered)) => answered.store(call, Relaxed),
                Some(Command::Ask(errand)) => {
                    tokio::task::spawn_local(errand(Rc::clone(&worker.out)));
                }
                Some(Command::Drain(deadline)) => break deadline,
                None => break Instant::now(),
            }
        };
        for (address, socket, task) in listeners {
            task.abort();
            listener::accept_waiting(&worker, address, &socket);
        }
        // What else comes for them is for another process, if there is one; answers that are under way are sent on.
        hubs.iter().for_each(|(_, _, task)| task.abort());
        worker.begin_drain(deadline);
        while worker.open() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if worker.open() > 0 {
            tracing::warn!(connections = worker.open(), "drain time is over, connections are cut");
        }
        worker.logs.borrow_mut().iter_mut().for_each(WorkerLog::flush);
        worker.exports.finish(&worker).await;
    });
    Ok(())
}

async fn housekeeping(worker: Rc<Worker>) {
    let mut swept = Instant::now();
    let mut ticked = swept;
    let mut seen = (0, 0, 0);
    let mut told = Told::new(&worker);
    loop {
        if worker.rest.is_due()
            && let Some(sightings) = &worker.sightings
        {
            sightings.borrow_mut().rest();
        }
        if worker.rest.rest().await {
            // All that was left out meanwhile is due; the clock at once, for what has come is written down with it.
            worker.clock.read();
            (swept, ticked) = (Instant::now() - SWEEP, Instant::now() - LOG_TICK);
        }
        let length = queue_length(&worker).await;
        let now = Instant::now();
        told.tell(&worker, worker.gauge.look(length, rhumb_net::buffer::in_use()));
        if now.duration_since(ticked) >= LOG_TICK {
            ticked = now;
            worker.logs.borrow_mut().iter_mut().for_each(|log| log.tick(now));
            worker.look_at_mesh(&mut seen);
            if let Some(sightings) = &worker.sightings {
                sightings.borrow_mut().look();
            }
        }
        if now.duration_since(swept) >= SWEEP {
            swept = now;
            worker.clock.read();
            worker.pools.sweep(now);
            crate::signals::know_own_name(&worker);
            if worker.stripe == 0 {
                worker.exports.tend(&worker);
            }
            if let Some(sightings) = &worker.sightings {
                sightings.borrow_mut().tick(now);
            }
            if worker.gauge.state() != State::Normal
                && let Some(since) = now.checked_sub(SWEEP)
            {
                worker.close_resting(since);
            }
            worker.mirrors.sweep(now);
            worker.rest.turn(worker.is_quiet());
        }
    }
}

/// How long what is ready waits for its turn, as seen until the next look. While that is long, goes round with the queue.
async fn queue_length(worker: &Worker) -> Duration {
    // Without connections there is no queue, and a resting process is to rest.
    let pause = if worker.open() > 0 { queue::LOOK } else { LOG_TICK };
    let begun = Instant::now();
    let rounds = worker.gauge.rounds();
    if !rounds.is_going() {
        let due = begun + pause;
        tokio::time::sleep_until(due.into()).await;
        let late = due.elapsed();
        if queue::is_worth_going(late, worker.gauge.limit()) {
            rounds.begin(Some(Instant::now()));
        }
        return late;
    }
    let mut began = begun;
    loop {
        rounds.begin(Some(began));
        tokio::task::yield_now().await;
        let now = Instant::now();
        let length = now.saturating_duration_since(began);
        if !queue::is_worth_going(length, worker.gauge.limit()) {
            rounds.begin(None);
            return length;
        }
        if now.saturating_duration_since(begun) >= queue::LOOK {
            return length;
        }
        began = now;
    }
}

/// What the metrics know of a worker's overload.
struct Told {
    closing: LocalGauge,
    shedding: LocalGauge,
    buffers: LocalGauge,
    buffer_bytes: i64,
}

impl Told {
    fn new(worker: &Worker) -> Self {
        let mut metrics = worker.metrics.borrow_mut();
        Self {
            closing: metrics.gauge(Metric::OverloadWorkers, &[State::Closing.as_str()]),
            shedding: metrics.gauge(Metric::OverloadWorkers, &[State::Shedding.as_str()]),
            buffers: metrics.gauge(Metric::Buffers, &[]),
            buffer_bytes: 0,
        }
    }

    fn tell(&mut self, worker: &Worker, change: Option<Change>) {
        let buffer_bytes = i64::try_from(rhumb_net::buffer::in_use()).unwrap_or(i64::MAX);
        self.buffers.add(buffer_bytes - self.buffer_bytes);
        self.buffer_bytes = buffer_bytes;
        let Some(Change { from, to }) = change else { return };
        for (state, n) in [(from, -1), (to, 1)] {
            match state {
                State::Normal => {}
                State::Closing => self.closing.add(n),
                State::Shedding => self.shedding.add(n),
            }
        }
        if from == State::Normal {
            worker.metrics.borrow_mut().limit(worker.gauge.cause());
        }
    }
}

/// A descriptor to be given up: whatever is always there.
pub(crate) fn reserve() -> Option<std::fs::File> {
    std::fs::File::open("/dev/null").ok()
}
