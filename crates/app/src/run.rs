//! A running process: the control thread, from the first configuration to the end of the drain.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rhumb_balance::Nanos;
use rhumb_plan::Current;
use rhumb_plan::process::DEFAULT_ADMIN;
use rhumb_proxy::Shared;
use rhumb_telemetry::{Metric, Registry};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::MissedTickBehavior;

use crate::admin::token::Issued;
use crate::admin::{self, Admin};
use crate::cli::Exit;
use crate::config::{Config, Reading, paint};
use crate::gauges;
use crate::health::{Health, Phase};
use crate::names::Board;
use crate::print;
use crate::reload::Live;
use crate::signal::{Signal, Signals};
use crate::supervisor::{Ended, Supervisor, default_workers, raise_descriptor_limit};

/// How much longer than the drain timeout the process waits for its workers.
const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// How long the last lines of access logs may take to be written.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// How often replaced plans are looked after.
const TIDY: Duration = Duration::from_secs(1);

/// What to run.
pub(crate) struct Options {
    /// Where the configuration is.
    pub(crate) config: PathBuf,
    /// The file that has, or gets, the admin token; `None` chooses one.
    pub(crate) token_file: Option<PathBuf>,
}

/// Runs until a signal ends it. `ready` is called once, when traffic is taken.
///
/// # Errors
/// Anything but a wrong configuration, which is told here and ends in [`Exit::Invalid`].
pub(crate) fn run(options: Options, ready: impl FnOnce()) -> anyhow::Result<Exit> {
    let mut config = Config::at(&options.config);
    let reading = config.read(None, Nanos::default());
    print::err(&reading.report(paint(&std::io::stderr())));
    if reading.errors() > 0 {
        return Ok(Exit::Invalid);
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("control runtime")?;
    let exit = runtime.block_on(control(config, reading, options.token_file, ready));
    // Nothing is left to wait for: a blocked reader of a file would hold the process.
    runtime.shutdown_background();
    exit
}

async fn control(
    config: Config,
    reading: Reading,
    token_file: Option<PathBuf>,
    ready: impl FnOnce(),
) -> anyhow::Result<Exit> {
    let mut signals = Signals::take().context("signals")?;
    let descriptors = raise_descriptor_limit();
    let shared = Shared {
        current: Current::default(),
        registry: Registry::new(),
        origin: Instant::now(),
        connections: Arc::default(),
    };
    let health = Arc::new(Health::new());
    let process = reading.process.clone();
    let workers = process.workers.unwrap_or_else(default_workers);
    tracing::info!(
        version = admin::VERSION,
        workers,
        descriptors,
        config = %config.path().display(),
        "rhumb starts"
    );
    // Bound first: whoever asks while the rest starts is told that it starts.
    let board = Board::default();
    board.report_to(&shared.registry);
    let admin = Admin {
        health: Arc::clone(&health),
        current: shared.current.clone(),
        registry: Arc::clone(&shared.registry),
        origin: shared.origin,
        config: config.path().to_owned(),
        workers,
        names: board.clone(),
    };
    gauges::register(&shared, workers);
    if let Some(address) = process.admin {
        open_admin(address, token_file, admin).await?;
    }
    let (supervisor, mut endings) = Supervisor::start(workers, &shared).context("worker threads")?;
    let mut live = Live::new(config, &shared, supervisor, Arc::clone(&health), board);
    live.begin(reading).await?;
    health.enter(Phase::Ready);
    for port in &shared.current.load().ports {
        let tls = if port.tls.is_some() { "TLS" } else { "plain text" };
        tracing::info!(address = %port.address, listener = %port.name, "listening, {tls}");
    }
    ready();

    let mut tidy = tokio::time::interval(TIDY);
    tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => break,
                Signal::Reload => live.reload("signal").await,
                Signal::Reopen => {
                    tracing::info!("reopening access logs");
                    live.logs().iter().for_each(|log| log.reopen());
                }
                Signal::Upgrade => tracing::warn!("SIGUSR2: upgrading in place is not supported by this version"),
            },
            () = live.watch.changed() => live.reload("file change").await,
            Some(ended) = endings.recv() => return Err(worker_lost(&ended)),
            _ = tidy.tick() => live.tidy(),
        }
    }
    drain(&live, &health, &shared.registry, &mut signals, &mut endings).await
}

/// Opens the admin listener. The usual address may be taken (another rhumb, a developer's tool): that is a warning; one
/// that was written has to work.
async fn open_admin(address: SocketAddr, token_file: Option<PathBuf>, admin: Admin) -> anyhow::Result<()> {
    let is_usual = address.to_string() == DEFAULT_ADMIN;
    let socket = match tokio::net::TcpListener::bind(address).await {
        Ok(socket) => socket,
        Err(error) if is_usual => {
            tracing::warn!(%address, %error, "no admin listener: write another `admin.address` to have one");
            return Ok(());
        }
        Err(error) => return Err(error).with_context(|| format!("admin listener {address}")),
    };
    let token = match token_file {
        Some(file) => Issued::at(&file).context("admin token")?,
        None => Issued::make(socket.local_addr().map_or(address.port(), |bound| bound.port()))
            .context("admin token")?,
    };
    tracing::info!(%address, token_file = %token.path.display(), "admin listener");
    tokio::spawn(admin::serve(socket, admin, token));
    Ok(())
}

/// Readiness off, a pause for load balancers to notice, then workers finish what they have.
async fn drain(
    live: &Live,
    health: &Health,
    registry: &Registry,
    signals: &mut Signals,
    endings: &mut UnboundedReceiver<Ended>,
) -> anyhow::Result<Exit> {
    let process = live.process();
    health.enter(Phase::Draining);
    registry.gauge(Metric::Draining, &[]).set(1);
    tracing::info!(delay = ?process.drain_delay, timeout = ?process.drain_timeout, "draining; a second signal ends at once");
    let done = async {
        tokio::time::sleep(process.drain_delay).await;
        live.supervisor().drain(Instant::now() + process.drain_timeout);
        let patience = process.drain_timeout + DRAIN_GRACE;
        tokio::time::timeout(patience, all_ended(live.supervisor().len(), endings)).await.is_ok()
    };
    tokio::select! {
        in_time = done => {
            if !in_time {
                tracing::warn!("workers did not end in time");
            }
            if !live.logs().iter().all(|log| log.flush(FLUSH_PATIENCE)) {
                tracing::warn!("the last access-log lines were not written in time");
            }
            tracing::info!("drained, rhumb ends");
            Ok(Exit::Ok)
        }
        () = stop(signals) => {
            tracing::warn!("second signal, rhumb ends at once");
            Ok(Exit::Runtime)
        }
    }
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

async fn stop(signals: &mut Signals) {
    while signals.next().await != Signal::Stop {}
}

/// A worker that ends on its own takes its connections with it; the process ends so that its supervisor starts it anew
/// instead of serving with what is left.
fn worker_lost(ended: &Ended) -> anyhow::Error {
    let why = ended.outcome.as_ref().err().map_or("it ended without being told to", String::as_str);
    anyhow::anyhow!("worker {} is gone: {why}", ended.worker)
}
