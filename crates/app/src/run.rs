//! A running process: the control thread, from the first configuration to the end of the drain.

use std::net::{SocketAddr, TcpListener};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rhumb_balance::Nanos;
use rhumb_dns::Asking;
use rhumb_net::handover::Inherited;
use rhumb_plan::Current;
use rhumb_plan::process::DEFAULT_ADMIN;
use rhumb_proxy::Shared;
use rhumb_telemetry::{Metric, Registry};
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::admin::shelf::Shelf;
use crate::admin::{self, Admin, Places};
use crate::capture::Capture;
use crate::cli::Exit;
use crate::config::{Config, Reading, paint};
use crate::embedded::{self, Embedded, EmbeddedOptions};
use crate::errand::Errands;
use crate::gauges;
use crate::guest::{self, Guest, GuestCommand};
use crate::health::{Health, Phase};
use crate::logs;
use crate::names::Board;
use crate::pid_file::PidFile;
use crate::print;
use crate::readiness;
use crate::reload::{self, Live};
use crate::remote::{self, Member};
use crate::scales::{Scales, WEIGH};
use crate::signal::{Signal, Signals};
use crate::signals::{self, Recorder};
use crate::supervisor::{Ended, Supervisor, default_workers, raise_descriptor_limit};
use crate::systemd::{self, Notify};
use crate::upgrade::{Failed, Origin, Predecessor, Successor};
use crate::ward;

/// How much longer than the drain timeout the process waits for its workers.
const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// How long the last lines of access logs may take to be written.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// How often replaced plans are looked after.
const TIDY: Duration = Duration::from_secs(1);

/// What documents of the command line are called.
const COMMAND_LINE: &str = "(command line)";

/// What to run.
pub(crate) struct Options {
    /// Where the configuration is.
    pub(crate) config: PathBuf,
    /// The file that has, or gets, the admin token; `None` chooses one.
    pub(crate) token_file: Option<PathBuf>,
    /// Where named tokens and the audit log are kept; `None` chooses a place.
    pub(crate) admin_directory: Option<PathBuf>,
    /// The file that tells the id of the process that serves.
    pub(crate) pid_file: Option<PathBuf>,
    /// Take over what is right of a configuration with mistakes.
    pub(crate) partial: bool,
    /// How to start a successor; `None` when there can be none.
    pub(crate) origin: Option<Origin>,
    /// Documents that are in no file.
    pub(crate) made: Option<String>,
    /// The application that this process stands beside.
    pub(crate) guest: Option<GuestCommand>,
    /// The control plane that documents come from besides.
    pub(crate) member: Option<Member>,
    /// The control plane that this process is itself.
    pub(crate) embedded: Option<EmbeddedOptions>,
}

/// Runs until a signal ends it. `ready` is called once, when traffic is taken.
///
/// # Errors
/// Anything but a wrong configuration, which is told here and ends in [`Exit::Invalid`].
pub(crate) fn run(options: Options, ready: impl FnOnce()) -> anyhow::Result<Exit> {
    // First of all: descriptors that this process was given have fixed numbers.
    let sockets = systemd::sockets();
    let (predecessor, inherited) =
        match Predecessor::meet().context("sockets of the process to take over from")? {
            Some((predecessor, inherited)) => (Some(predecessor), inherited),
            None => (None, Inherited::sort(sockets).0),
        };
    let mut config = Config::at(&options.config);
    if let Some(text) = &options.made {
        config = config.with(COMMAND_LINE, text);
    }
    let reading = config.read(None, Nanos::default());
    // What is missing may come from the control plane; it is looked at again when that was asked.
    let waits = options.member.is_some() || reading.sidecar.as_deref().is_some_and(remote::is_remote);
    if !waits {
        logs::report(&reading.diags, paint(&std::io::stderr()));
        if reading.errors() > 0 && !options.partial {
            return Ok(Exit::Invalid);
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .context("control runtime")?;
    let mut reading = reading;
    let mut embedded = None;
    if let Some(of) = &options.embedded {
        anyhow::ensure!(reading.errors() == 0, "a control plane takes over no configuration with mistakes");
        let started = runtime.block_on(Embedded::start(of, &options.config))?;
        let membership = started.membership()?;
        config = Config::at(&options.config).with(COMMAND_LINE, &membership);
        config.share();
        reading = config.read(None, Nanos::default());
        embedded = Some(started);
    }
    let exit = runtime.block_on(control(config, reading, options, embedded, predecessor, inherited, ready));
    // Nothing is left to wait for: a blocked reader of a file would hold the process.
    runtime.shutdown_background();
    exit
}

async fn control(
    mut config: Config,
    mut reading: Reading,
    mut options: Options,
    embedded: Option<Embedded>,
    predecessor: Option<Predecessor>,
    mut inherited: Inherited,
    ready: impl FnOnce(),
) -> anyhow::Result<Exit> {
    let mut signals = Signals::take().context("signals")?;
    let mut guest = options.guest.clone().map(Guest::new).transpose().context("signals")?;
    let notify = Notify::from_env();
    let descriptors = raise_descriptor_limit();
    let process = reading.process.clone();
    let registry = Registry::new();
    let mut askers = None;
    let membership = reading.plan.mesh.as_ref().and_then(|mesh| mesh.membership.as_ref());
    let is_gateway = options.member.is_some() || embedded.is_some();
    if let Some(member) = &mut options.member {
        member.be(membership);
    } else if let Some(sidecar) = &reading.sidecar {
        options.member = Member::of_sidecar(sidecar, membership)?;
        askers = options.member.as_mut().and_then(|member| member.look_up(sidecar, &registry));
    }
    let mut capture = Capture::default();
    if let Some(askers) = &askers {
        capture.ask(askers.asking.clone());
        // What this process asks of the control plane is captured too, and its questions for names have to be answered.
        let wanted = reading.plan.mesh.as_ref().and_then(|mesh| mesh.capture.as_ref());
        capture.take_over(wanted, &registry).context("captured questions for names")?;
    }
    let shared = Shared {
        current: Current::default(),
        signals: process.signals.as_ref().map(|signals| signals::board(signals, &registry)),
        lookout: process.signals.as_ref().and_then(|signals| signals::lookout(signals, &registry)),
        registry,
        origin: Instant::now(),
        connections: Arc::default(),
        pressure: Arc::default(),
        discovery: askers.as_ref().map(|askers| askers.discovery.clone()).unwrap_or_default(),
        outside: capture.outside(),
        plaintext: Arc::default(),
        taps: Arc::default(),
        awake: Arc::default(),
    };
    let health = Arc::new(Health::new());
    let workers = process.workers.unwrap_or_else(default_workers);
    tracing::info!(
        version = admin::VERSION,
        workers,
        descriptors,
        config = %config.path().display(),
        "rhumb starts"
    );
    let mut remote = None;
    if let Some(member) = options.member.take() {
        let mut joined = member.join().await?;
        if embedded.is_some() {
            // They are offered when the first documents are.
            let _ = joined.own_services(embedded::services(&options.config));
        }
        reading = joined.begin(&mut config, reading).await;
        if reading.errors() > 0 && !options.partial {
            logs::report(&reading.diags, paint(&std::io::stderr()));
            return Ok(Exit::Invalid);
        }
        remote = Some(joined);
    }
    let board = Board::default();
    board.report_to(&shared.registry);
    let is_sidecar = guest.is_some() || (reading.sidecar.is_some() && !is_gateway);
    let shelf = Shelf::default();
    let errands = Errands::default();
    let mut recorder = match (&process.signals, &shared.signals) {
        (Some(settings), Some(board)) => {
            let board = Arc::clone(board);
            let (lookout, current) =
                (shared.lookout.clone(), (shared.current.clone(), Arc::clone(&shared.awake)));
            let recorder = Recorder::start(board, settings, is_sidecar, lookout, &shared.registry, current);
            Some(recorder.context("thread of golden signals")?)
        }
        _ => None,
    };
    let admin = Arc::new(Admin {
        kind: if is_sidecar { "sidecar" } else { "gateway" },
        shelf: shelf.clone(),
        health: Arc::clone(&health),
        current: shared.current.clone(),
        registry: Arc::clone(&shared.registry),
        origin: shared.origin,
        config: config.path().to_owned(),
        connections: Arc::clone(&shared.connections),
        workers,
        names: board.clone(),
        orders: signals.orders(),
        pressure: Arc::clone(&shared.pressure),
        plaintext: Arc::clone(&shared.plaintext),
        taps: Some(Arc::clone(&shared.taps)),
        control: embedded.as_ref().map(|embedded| Arc::clone(embedded.control())),
        history: recorder.as_ref().map(|recorder| Arc::clone(recorder.history())),
        errands: errands.clone(),
        issuer: embedded.as_ref().map(|embedded| Arc::clone(embedded.issuer())),
        fleet: embedded.as_ref().map(|embedded| Arc::clone(embedded.fleet())),
    });
    if let Some(remote) = &mut remote {
        remote.report(Arc::clone(&admin));
    }
    if let Some(embedded) = &embedded {
        embedded.observe(&shared.registry);
    }
    gauges::register(&shared, workers);
    let mut door = match process.admin {
        Some(address) => {
            let places = Places {
                token: options.token_file.clone(),
                directory: options.admin_directory.clone().or_else(|| process.admin_directory.clone()),
            };
            Door::open(address, &mut inherited, places, admin)?
        }
        None => Door::none(),
    };
    // Whoever asks while the rest starts is told that it starts; with a predecessor, that one answers until it lets go.
    if predecessor.is_none() {
        door.serve()?;
    }
    let (mut supervisor, mut endings) = Supervisor::start(workers, &shared).context("worker threads")?;
    supervisor.run_errands(&errands);
    supervisor.inherit(inherited);
    let mut live =
        Live::new(config, &shared, supervisor, Arc::clone(&health), board, (capture, options.partial));
    if let Some(remote) = &remote {
        remote.place_all(&mut live);
    }
    live.show_on(shelf);
    live.begin(reading).await?;
    for address in live.supervisor_mut().disinherit() {
        tracing::warn!(%address, "a socket that this process was given is on no listener's address: closed");
    }
    if let Some(predecessor) = predecessor {
        let relieved = tokio::task::spawn_blocking(|| predecessor.relieve()).await;
        if !relieved.context("taking over")? {
            tracing::info!("the process to take over from was told to end: so does this one");
            return Ok(Exit::Ok);
        }
        door.serve()?;
    }
    let _pid_file = options.pid_file.as_deref().map(PidFile::write).transpose().context("PID file")?;
    for port in shared.current.load().all_ports() {
        let tls = match &port.l4 {
            Some(l4) => l4.carries.as_str(),
            None if port.tls.is_some() => "TLS",
            None => "plain text",
        };
        tracing::info!(address = %port.address, listener = %port.name, "listening, {tls}");
    }
    tokio::task::spawn_local(rhumb_net::timer::drive());
    tokio::task::spawn_local(ward::watch(
        shared.current.clone(),
        Arc::clone(&shared.registry),
        shared.origin,
        Arc::clone(&shared.awake),
    ));

    let mut tidy = tokio::time::interval(TIDY);
    tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut scales = Scales::new(&shared.pressure, &shared.registry);
    let mut weigh = tokio::time::interval(WEIGH);
    weigh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watchdog = notify.watchdog().map(tokio::time::interval);
    let mut successor: Option<Upgrade> = None;
    let mut put_off = None;
    let answers = askers.map(|askers| Answers::begin(askers.asking));
    let mut opening = Some(ready);
    let mut look = tokio::time::interval(readiness::LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let taken_over = loop {
        if let Some(ready) = opening.take() {
            let missing = readiness::missing(&live, &shared.current.load(), remote.as_ref());
            let (is_open, told) = (missing.is_empty(), missing.join("; "));
            if health.wait_for(missing) && !is_open {
                tracing::info!("waiting before traffic is taken: {told}");
            }
            if is_open {
                health.enter(Phase::Ready);
                if let Some(remote) = &mut remote {
                    remote.register(&shared.current, &shared.awake);
                }
                notify.ready(&serving(&live));
                ready();
                if let Some(guest) = &mut guest
                    && let Err(error) = guest.start()
                {
                    print::err(&format!("rhumb: {error}\n"));
                    return Ok(Exit::Guest(error.code()));
                }
            } else {
                opening = Some(ready);
            }
        }
        let is_awake = shared.awake.is_any();
        let cause = tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => break None,
                Signal::Reload => Some("signal"),
                Signal::Reopen => {
                    reopen(&live);
                    None
                }
                // It means something to the application, which gets it.
                Signal::Upgrade if guest.is_some() => None,
                Signal::Upgrade => {
                    begin_upgrade(&mut successor, options.origin.as_ref(), &live, &door);
                    None
                }
            },
            () = live.watch.changed() => Some(reload::FILE_CHANGE),
            news = remote::next(&mut remote) => {
                if let Some(remote) = &mut remote {
                    remote.take_up(news, &mut live, &health).await;
                }
                None
            }
            Some(ended) = endings.recv() => return Err(worker_lost(&ended)),
            _ = guest_ended(&mut guest) => break None,
            ended = settled(&mut successor) => {
                successor = None;
                match ended {
                    Ok(successor) => break Some(successor),
                    Err(why) => {
                        shared.registry.counter(Metric::Upgrades, &["failure"]).add(1);
                        tracing::error!("upgrade failed, this process goes on: {why}");
                        put_off.take()
                    }
                }
            }
            () = tick(&mut watchdog) => {
                // The service manager is to end a process whose workers hang.
                if live.supervisor_mut().all_turn() {
                    notify.alive();
                }
                None
            }
            _ = look.tick(), if opening.is_some() => None,
            // Nothing is taken or refused meanwhile, and nothing counted.
            () = signals::awakening(&shared.awake, recorder.as_ref(), is_awake) => None,
            _ = weigh.tick(), if is_awake => {
                scales.weigh(live.settings());
                None
            }
            _ = tidy.tick(), if live.is_untidy() => {
                live.tidy();
                None
            }
        };
        let Some(cause) = cause else { continue };
        if successor.is_some() {
            // It reads the configuration by itself; a port that is opened here now would be in its way.
            put_off = Some(cause);
            continue;
        }
        notify.reloading();
        if let (Some(_), Some(remote)) = (&embedded, &mut remote)
            && let Some(offered) = remote.own_services(embedded::services(&options.config))
        {
            live.offer(offered);
        }
        let before = live.revision();
        if reload(&mut live, &mut signals, cause).await.is_break() {
            break None;
        }
        if let Some(embedded) = embedded.as_ref().filter(|_| live.revision() != before) {
            embedded.sync().await;
        }
        if opening.is_none() {
            notify.ready(&serving(&live));
        }
    };
    if let Some(successor) = taken_over {
        shared.registry.counter(Metric::Upgrades, &["success"]).add(1);
        tracing::info!(pid = successor.pid, "upgrade: the new process serves, this one drains");
        door.close().await;
        // The new process goes on with the file.
        drop(recorder.take());
        notify.main_process(successor.pid);
        successor.take_over();
        return drain(&mut live, &health, &shared.registry, &mut signals, &mut endings, true).await;
    }
    notify.stopping();
    if let Some(embedded) = embedded {
        embedded.end().await;
    }
    if let Some(Upgrade { started, call_off }) = successor {
        call_off.store(true, Ordering::Relaxed);
        if let Ok(Ok(successor)) = started.await {
            successor.dismiss();
        }
    }
    if let Some(remote) = &mut remote {
        let mut leaving = pin!(remote.withdrawal());
        loop {
            tokio::select! {
                () = &mut leaving => break,
                news = remote.news() => remote.take_up(news, &mut live, &health).await,
                () = stop(&mut signals, 1) => {
                    tracing::warn!("second signal, nobody is waited for");
                    break;
                }
            }
        }
    }
    drop(answers);
    // One that was never started has nobody to say goodbye to.
    let Some(mut guest) = guest.filter(|_| opening.is_none()) else {
        return drain(&mut live, &health, &shared.registry, &mut signals, &mut endings, false).await;
    };
    let ended = farewell(&mut guest, &live, &health, &mut signals).await;
    tracing::info!("the application has ended: {ended}");
    // Nobody is left who could answer: no load balancer has to notice, and what its clients have asked is lost already.
    drain(&mut live, &health, &shared.registry, &mut signals, &mut endings, true).await?;
    Ok(Exit::Guest(ended.code))
}

/// Questions for names are answered as long as this is there.
struct Answers(Asking);

impl Answers {
    fn begin(asking: Asking) -> Self {
        asking.open(true);
        Self(asking)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.0.open(false);
    }
}

/// The end of the application; never without one. **Cancel**: nothing is lost.
async fn guest_ended(guest: &mut Option<Guest>) -> guest::Ended {
    match guest {
        Some(guest) => guest.end().await,
        None => std::future::pending().await,
    }
}

/// Tells the application to end when its callers know that it will, and waits until it has; traffic is carried meanwhile,
/// what it still asks of others too. A second signal makes the application's turn come at once, and each further one
/// goes to it as it is.
async fn farewell(guest: &mut Guest, live: &Live, health: &Health, signals: &mut Signals) -> guest::Ended {
    if let Some(ended) = guest.ended() {
        return ended;
    }
    health.enter(Phase::Draining);
    let delay = live.process().drain_delay;
    tracing::info!(?delay, "ending: callers first, then the application");
    let callers = tokio::time::sleep(delay);
    tokio::select! {
        () = callers => {}
        () = stop(signals, 1) => tracing::warn!("second signal, the application is told at once"),
        ended = guest.end() => return ended,
    }
    guest.tell_to_end(signals.last_stop());
    loop {
        tokio::select! {
            ended = guest.end() => return ended,
            () = stop(signals, 1) => guest.tell_to_end(signals.last_stop()),
        }
    }
}

/// What is told to the service manager about a process that serves.
fn serving(live: &Live) -> String {
    let process = live.process();
    let admin = process.admin.map_or_else(|| "off".to_owned(), |address| address.to_string());
    format!("revision {} is live; admin listener: {admin}", live.revision())
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

/// A successor that is being started.
struct Upgrade {
    started: JoinHandle<Result<Successor, Failed>>,
    call_off: Arc<AtomicBool>,
}

/// Starts a successor, unless one is on its way.
fn begin_upgrade(successor: &mut Option<Upgrade>, origin: Option<&Origin>, live: &Live, door: &Door) {
    let Some(origin) = origin else {
        return tracing::warn!(
            "SIGUSR2: a demonstration, or a control plane, has no successor: end it and start it again"
        );
    };
    if successor.is_some() {
        return tracing::warn!("SIGUSR2: an upgrade is on its way");
    }
    let handles = live.supervisor().handles().and_then(|mut handles| {
        handles.extend(door.handle()?);
        Ok(handles)
    });
    match handles {
        Ok(handles) => {
            tracing::info!(sockets = handles.len(), "upgrade: starting the new process");
            let (origin, call_off) = (origin.clone(), Arc::new(AtomicBool::new(false)));
            let is_called_off = Arc::clone(&call_off);
            let started = tokio::task::spawn_blocking(move || origin.succeed(&handles, &is_called_off));
            *successor = Some(Upgrade { started, call_off });
        }
        Err(error) => {
            tracing::error!(%error, "upgrade failed, this process goes on: no descriptors are left")
        }
    }
}

/// How the start of a successor ended; never without one. **Cancel**: nothing is lost.
async fn settled(successor: &mut Option<Upgrade>) -> Result<Successor, String> {
    match successor {
        Some(upgrade) => match (&mut upgrade.started).await {
            Ok(ended) => ended.map_err(|failed| failed.to_string()),
            Err(error) => Err(error.to_string()),
        },
        None => std::future::pending().await,
    }
}

/// Reads the configuration again, once more when that is asked for meanwhile: what was read may be older than the request.
/// A stop does not wait for it.
async fn reload(live: &mut Live, signals: &mut Signals, cause: &str) -> ControlFlow<()> {
    let mut cause = Some(cause);
    while let Some(asked) = cause.take() {
        let (mut is_reopen_asked, mut is_upgrade_asked) = (false, false);
        {
            let mut reading = pin!(live.reload(asked));
            loop {
                tokio::select! {
                    _ = &mut reading => break,
                    signal = signals.next() => match signal {
                        Signal::Stop => return ControlFlow::Break(()),
                        Signal::Reload => cause = Some("signal"),
                        Signal::Reopen => is_reopen_asked = true,
                        // Its turn comes when this is done.
                        Signal::Upgrade => is_upgrade_asked = true,
                    },
                }
            }
        }
        if is_reopen_asked {
            reopen(live);
        }
        if is_upgrade_asked {
            signals.put_back(Signal::Upgrade);
        }
    }
    ControlFlow::Continue(())
}

fn reopen(live: &Live) {
    tracing::info!("reopening access logs");
    live.logs().iter().for_each(|log| log.reopen());
}

/// The admin listener: bound, and perhaps answering.
pub(crate) struct Door {
    socket: Option<TcpListener>,
    admin: Option<(Arc<Admin>, Places)>,
    task: Option<JoinHandle<()>>,
    /// Whether the token's file goes with this process.
    owns_token: Arc<AtomicBool>,
}

impl Door {
    fn none() -> Self {
        Self { socket: None, admin: None, task: None, owns_token: Arc::default() }
    }

    /// Binds it. The usual address may be taken (another rhumb, a developer's tool): that is a warning; one that was
    /// written has to work.
    pub(crate) fn open(
        address: SocketAddr,
        inherited: &mut Inherited,
        places: Places,
        admin: Arc<Admin>,
    ) -> anyhow::Result<Self> {
        let is_usual = address.to_string() == DEFAULT_ADMIN;
        let socket = match inherited.take_tcp(address).pop().map_or_else(|| bind_admin(address), Ok) {
            Ok(socket) => socket,
            Err(error) if is_usual => {
                tracing::warn!(%address, %error, "no admin listener: write another `admin.address` to have one");
                return Ok(Self::none());
            }
            Err(error) => return Err(error).with_context(|| format!("admin listener {address}")),
        };
        Ok(Self { socket: Some(socket), admin: Some((admin, places)), ..Self::none() })
    }

    /// Makes or reads the token, and answers from here on.
    pub(crate) fn serve(&mut self) -> anyhow::Result<()> {
        let (Some(socket), Some((admin, places))) = (&self.socket, self.admin.take()) else {
            return Ok(());
        };
        let second =
            socket.try_clone().and_then(tokio::net::TcpListener::from_std).context("admin listener")?;
        let address = socket.local_addr().context("admin listener")?;
        let (credentials, audit, owns_token) = places.open(address.port())?;
        tracing::info!(%address, token_file = credentials.process_file(), "admin listener");
        self.owns_token = owns_token;
        self.task = Some(tokio::spawn(admin::serve(second, admin, credentials, audit)));
        Ok(())
    }

    /// Stops answering new connections: whoever else has the socket answers them. The token's file is theirs too.
    pub(crate) async fn close(&mut self) {
        self.owns_token.store(false, Ordering::Relaxed);
        self.socket = None;
        if let Some(task) = self.task.take() {
            task.abort();
            // Cancelled, as it was told.
            let _ = task.await;
        }
    }

    /// The socket, for another process.
    fn handle(&self) -> std::io::Result<Option<OwnedFd>> {
        self.socket.as_ref().map(|socket| socket.try_clone().map(OwnedFd::from)).transpose()
    }
}

fn bind_admin(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Readiness off, a pause for load balancers to notice, then workers finish what they have.
async fn drain(
    live: &mut Live,
    health: &Health,
    registry: &Registry,
    signals: &mut Signals,
    endings: &mut UnboundedReceiver<Ended>,
    is_succeeded: bool,
) -> anyhow::Result<Exit> {
    let process = live.process();
    health.enter(Phase::Draining);
    registry.gauge(Metric::Draining, &[]).set(1);
    // Nobody has to notice an upgrade.
    let delay = if is_succeeded { Duration::ZERO } else { process.drain_delay };
    // The end of a service is told to all of its processes, and a drain that was ordered (a hook of an orchestrator) is
    // followed by a signal: that one is the first.
    let signals_to_end = if is_succeeded || health.is_drain_ordered() { 2 } else { 1 };
    tracing::info!(?delay, timeout = ?process.drain_timeout, "draining; a second signal ends at once");
    let done = async {
        tokio::time::sleep(delay).await;
        let supervisor = live.supervisor_mut();
        supervisor.drain(Instant::now() + process.drain_timeout);
        let patience = process.drain_timeout + DRAIN_GRACE;
        tokio::time::timeout(patience, all_ended(supervisor.len(), endings)).await.is_ok()
    };
    let in_time = tokio::select! {
        in_time = done => in_time,
        () = stop(signals, signals_to_end) => {
            tracing::warn!("second signal, rhumb ends at once");
            return Ok(Exit::Runtime);
        }
    };
    if !in_time {
        tracing::warn!("workers did not end in time");
    }
    if !live.logs().iter().all(|log| log.flush(FLUSH_PATIENCE)) {
        tracing::warn!("the last access-log lines were not written in time");
    }
    tracing::info!("drained, rhumb ends");
    Ok(Exit::Ok)
}

async fn all_ended(count: usize, endings: &mut UnboundedReceiver<Ended>) {
    for _ in 0..count {
        match endings.recv().await {
            Some(Ended { worker, outcome: Err(error) }) => {
                tracing::error!(worker, error, "worker failed while it drained")
            }
            Some(_) => {}
            None => return,
        }
    }
}

async fn stop(signals: &mut Signals, mut count: u32) {
    while count > 0 {
        if signals.next().await == Signal::Stop {
            count -= 1;
        }
    }
}

/// A worker that ends on its own takes its connections with it; the process ends so that its supervisor starts it anew
/// instead of serving with what is left.
fn worker_lost(ended: &Ended) -> anyhow::Error {
    let why = ended.outcome.as_ref().err().map_or("it ended without being told to", String::as_str);
    anyhow::anyhow!("worker {} is gone: {why}", ended.worker)
}
