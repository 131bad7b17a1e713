//! Changes of the configuration: read, compiled, taken over as a whole or not at all.
//!
//! The order makes a change safe to refuse and invisible to requests: read and compile (any error refuses) → open access
//! logs and sockets (any failure refuses) → resolve names → swap the plan → accept on new sockets → stop accepting on removed ones.
//! Requests that are under way finish with the plan they began with.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rhumb_balance::Nanos;
use rhumb_model::Paint;
use rhumb_plan::process::{self, Process};
use rhumb_plan::{Current, Plan};
use rhumb_proxy::Shared;
use rhumb_signals::Level;
use rhumb_source::{Changed, Watch};
use rhumb_telemetry::{AccessLog, Metric, Registry};
use rhumb_upstream::dns::UnusableServers;

use crate::access_log;
use crate::admin::shelf::Shelf;
use crate::capture::Capture;
use crate::config::{Config, Offered, Reading};
use crate::health::{Attempt, Health, unix_now};
use crate::identity::Members;
use crate::logs;
use crate::names::{Board, FIRST_ANSWERS, Names};
use crate::places::ServicePlaces;
use crate::signals;
use crate::supervisor::{BindError, Supervisor};
use crate::ward;

/// Plans that were replaced and are still held by a worker; older ones are left to the worker to free.
const RETIRED_LIMIT: usize = 8;

/// The most diagnostics that are kept for the admin listener.
const DIAGNOSTICS_LIMIT: usize = 100;

/// The cause of a reload that [`Watch`] has asked for.
pub(crate) const FILE_CHANGE: &str = "file change";

/// The cause of a reload for what a control plane has sent.
pub(crate) const CONTROL_PLANE: &str = "control plane";

/// The configuration in force, and what it takes to replace it.
pub(crate) struct Live {
    config: Option<Config>,
    /// Documents that do not come from files.
    offered: Offered,
    /// Take over what is right of a configuration with mistakes.
    partial: bool,
    current: Current,
    supervisor: Supervisor,
    registry: Arc<Registry>,
    health: Arc<Health>,
    logs: Vec<Arc<AccessLog>>,
    names: Names,
    places: ServicePlaces,
    capture: Capture,
    members: Members,
    origin: Instant,
    /// `None` until the first plan is in force.
    process: Option<Process>,
    default: Process,
    digest: u64,
    /// When the latest attempt began.
    began: Instant,
    revision: u64,
    retired: Vec<Arc<Plan>>,
    shelf: Shelf,
    /// Says when to read again.
    pub(crate) watch: Watch,
}

/// Why a configuration was not taken over.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It has mistakes.
    Mistakes(usize),
    /// An access log cannot be opened.
    AccessLog(rhumb_telemetry::access_log::OpenError),
    /// A port cannot be listened on.
    Bind(BindError),
    /// Names cannot be resolved on this machine.
    Names(UnusableServers),
    /// Questions for names cannot be taken.
    Capture(std::io::Error),
    /// Reading it panicked.
    Panicked,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mistakes(1) => f.write_str("the configuration has an error"),
            Self::Mistakes(count) => write!(f, "the configuration has {count} errors"),
            Self::AccessLog(error) => error.fmt(f),
            Self::Bind(error) => error.fmt(f),
            Self::Names(error) => error.fmt(f),
            Self::Capture(error) => {
                write!(f, "the port for captured questions for names (Sidecar: capture.dns): {error}")
            }
            Self::Panicked => f.write_str("reading it hit a bug in rhumb: please report it"),
        }
    }
}

impl std::error::Error for Refused {}

/// What came of reading the configuration again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// It is in force.
    Over,
    /// It is the one in force already.
    Same,
}

impl Live {
    /// Why there is no newer certificate of the mesh, when an attempt has failed.
    pub(crate) fn identity_trouble(&self) -> Option<String> {
        self.members.trouble()
    }

    /// Nothing in force yet.
    pub(crate) fn new(
        config: Config,
        shared: &Shared,
        supervisor: Supervisor,
        health: Arc<Health>,
        board: Board,
        (capture, partial): (Capture, bool),
    ) -> Self {
        Self {
            config: Some(config),
            offered: Offered::default(),
            partial,
            current: shared.current.clone(),
            supervisor,
            registry: Arc::clone(&shared.registry),
            health,
            logs: Vec::new(),
            names: Names::new(shared.origin, board),
            places: ServicePlaces::new(shared.origin),
            capture,
            members: Members::new(&shared.registry),
            origin: shared.origin,
            process: None,
            default: Process::default(),
            digest: 0,
            began: Instant::now(),
            revision: 0,
            retired: Vec::new(),
            shelf: Shelf::default(),
            watch: Watch::new(),
        }
    }

    /// Where services are that are not placed by documents.
    pub(crate) fn places_mut(&mut self) -> &mut ServicePlaces {
        &mut self.places
    }

    /// Shows documents that come into force to who looks there.
    pub(crate) fn show_on(&mut self, shelf: Shelf) {
        self.shelf = shelf;
    }

    /// The workers.
    pub(crate) fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// The workers, to be told something.
    pub(crate) fn supervisor_mut(&mut self) -> &mut Supervisor {
        &mut self.supervisor
    }

    /// The revision in force; 0 is none.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The access logs in use.
    pub(crate) fn logs(&self) -> &[Arc<AccessLog>] {
        &self.logs
    }

    /// Settings of the process in force.
    pub(crate) fn settings(&self) -> &Process {
        self.process.as_ref().unwrap_or(&self.default)
    }

    /// A copy of the settings of the process in force.
    pub(crate) fn process(&self) -> Process {
        self.settings().clone()
    }

    /// Takes the first configuration over.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(crate) async fn begin(&mut self, reading: Reading) -> Result<(), Refused> {
        self.finish(Ok(reading)).await.map(|_| ())
    }

    /// Reads the configuration again and takes it over, or keeps the one in force and says why. Reading happens on
    /// another thread: probes are answered meanwhile.
    ///
    /// **Cancel**: the configuration in force stays, and no other is read by this value any more: for a process that ends.
    ///
    /// True when what was read is in force.
    pub(crate) async fn reload(&mut self, cause: &str) -> bool {
        // Who orders it wants everything looked at.
        let changed = match self.watch.take_changed() {
            changed if [FILE_CHANGE, CONTROL_PLANE].contains(&cause) => changed,
            _ => Changed::Unknown,
        };
        let Some(mut config) = self.config.take() else { return false };
        let (anew, previous) = (config.anew(), self.current.load());
        self.began = Instant::now();
        tracing::debug!(cause, "reading the configuration");
        let now = Nanos::since(self.origin, self.began);
        let read = tokio::task::spawn_blocking(move || {
            let reading = config.read_changed(&changed, Some(&previous), now);
            (config, reading)
        });
        let reading = match read.await {
            Ok((config, reading)) => {
                self.config = Some(config);
                Ok(reading)
            }
            Err(_) => {
                self.config = Some(anew);
                Err(Refused::Panicked)
            }
        };
        // What is told about the change is logged there; a refused one changes nothing here.
        self.finish(reading).await.is_ok()
    }

    /// Has documents beside those of files, from the next reload on.
    pub(crate) fn offer(&mut self, offered: Offered) {
        self.offered = offered.clone();
        if let Some(config) = &mut self.config {
            config.offer(offered);
        }
    }

    /// Takes a configuration over, and tells log, metrics and admin listener how it went.
    async fn finish(&mut self, reading: Result<Reading, Refused>) -> Result<Taken, Refused> {
        let (taken, diagnostics) = match reading {
            Ok(reading) => self.judge(reading).await,
            Err(refused) => (Err(refused), Vec::new()),
        };
        let result = match &taken {
            Ok(Taken::Over) => "success",
            Ok(Taken::Same) => "unchanged",
            Err(_) => "failure",
        };
        self.registry.counter(Metric::ConfigReloads, &[result]).add(1);
        let now = unix_now();
        if taken.is_ok() {
            self.registry.gauge(Metric::ConfigLastSuccess, &[]).set(i64::try_from(now).unwrap_or(i64::MAX));
        }
        let refused = taken.as_ref().err().map(ToString::to_string);
        self.health.note(
            Attempt { at: now, refused, diagnostics },
            taken.as_ref().is_ok_and(|taken| *taken == Taken::Over),
        );
        match &taken {
            Ok(Taken::Over) => {
                let text = format!("revision {} is live", self.revision);
                signals::tell("configuration_applied", Level::Info, "", text);
            }
            Ok(Taken::Same) => tracing::info!(revision = self.revision, "configuration is unchanged"),
            Err(refused) if self.revision > 0 => {
                tracing::error!(
                    revision = self.revision,
                    "new configuration refused, the last good one stays: {refused}"
                );
                signals::tell("configuration_refused", Level::Error, "", refused.to_string());
            }
            // Told by who asked for the first one.
            Err(_) => {}
        }
        taken
    }

    async fn judge(&mut self, mut reading: Reading) -> (Result<Taken, Refused>, Vec<String>) {
        let (errors, warnings) = (reading.errors(), reading.warnings());
        let gauge = |severity| self.registry.gauge(Metric::ConfigDiagnostics, &[severity]);
        gauge("error").set(i64::try_from(errors).unwrap_or(i64::MAX));
        gauge("warning").set(i64::try_from(warnings).unwrap_or(i64::MAX));
        let diagnostics = reading.diags.iter().take(DIAGNOSTICS_LIMIT).map(ToString::to_string).collect();
        if self.revision > 0 {
            logs::report(&reading.diags, Paint::Plain);
        }
        let inputs = std::mem::take(&mut reading.inputs);
        let taken = if errors > 0 && !self.partial {
            Err(Refused::Mistakes(errors))
        } else if self.revision > 0 && reading.digest == self.digest {
            Ok(Taken::Same)
        } else {
            self.take_over(reading).await.map(|()| Taken::Over)
        };
        // Last, because it looks at every file again: what changed in the meantime differs from how it was read.
        self.watch.follow(inputs);
        (taken, diagnostics)
    }

    async fn take_over(&mut self, reading: Reading) -> Result<(), Refused> {
        let summary = reading.summary();
        let Reading { mut plan, process, digest, names, docs, .. } = reading;
        let fresh_logs = self.open_logs(&process).map_err(Refused::AccessLog)?;
        let wanted: BTreeSet<SocketAddr> = plan.ports.iter().map(|port| port.address).collect();
        let wanted_udp: BTreeSet<SocketAddr> = plan.udp_ports.iter().map(|port| port.address).collect();
        let mut bound = self.supervisor.bind(&wanted).map_err(Refused::Bind)?;
        self.supervisor.bind_udp(&wanted_udp, &mut bound).map_err(Refused::Bind)?;
        // Before anything asks for a name: what this process asks is brought back to it as well.
        let capture = plan.mesh.as_ref().and_then(|mesh| mesh.capture.as_ref());
        self.capture.take_over(capture, &self.registry).map_err(Refused::Capture)?;
        let following = self.names.follow(names).map_err(Refused::Names)?;
        // A backend by name that is new would refuse its first requests.
        if tokio::time::timeout(FIRST_ANSWERS, following.known()).await.is_err() {
            tracing::warn!("some names are not resolved yet: their backends have no endpoints until then");
        }

        self.places.settle(&plan, Instant::now());
        // Whether an endpoint is used at first is not for its first requests to find out.
        ward::tick(&plan, self.origin);
        if let Some(mesh) = &plan.mesh
            && let Err(error) = mesh.install(unix_now())
        {
            tracing::error!(%error, "the identity of the mesh stays as it was");
        }
        self.members.follow(plan.mesh.as_deref());
        // Nothing can fail from here on.
        self.revision += 1;
        plan.revision = self.revision;
        let old = self.current.load();
        self.current.swap(Arc::new(plan));
        self.supervisor.look();
        self.retire(old);
        self.shelf.put(docs);
        self.names.settle(following);
        if let Some(logs) = fresh_logs {
            self.supervisor.log_to(&logs);
            self.logs = logs;
        }
        self.supervisor.accept(bound);
        let mut closed = self.supervisor.close_others(&wanted);
        closed.extend(self.supervisor.close_other_udp(&wanted_udp));
        self.warn_about_restart(&process);
        self.process = Some(process);
        self.digest = digest;
        self.registry
            .gauge(Metric::ConfigRevision, &[])
            .set(i64::try_from(self.revision).unwrap_or(i64::MAX));
        let took_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(revision = self.revision, took_ms, "configuration is live: {summary}");
        for address in wanted {
            tracing::debug!(%address, "listening");
        }
        for address in closed {
            tracing::info!(%address, "no longer listening");
        }
        Ok(())
    }

    /// New access logs, when what is written about them changed.
    fn open_logs(
        &self,
        process: &Process,
    ) -> Result<Option<Vec<Arc<AccessLog>>>, rhumb_telemetry::access_log::OpenError> {
        let written = |process: &Process| -> Vec<process::AccessLog> { process.access_logs.clone() };
        if self.process.as_ref().is_some_and(|current| written(current) == written(process)) {
            return Ok(None);
        }
        let opened = process
            .access_logs
            .iter()
            .map(|log| AccessLog::open(access_log::config(log), &self.registry).map(Arc::new));
        opened.collect::<Result<Vec<_>, _>>().map(Some)
    }

    fn warn_about_restart(&self, new: &Process) {
        let Some(old) = &self.process else { return };
        for (what, changed) in [("workers", old.workers != new.workers), ("admin", old.admin != new.admin)] {
            if changed {
                tracing::warn!("`{what}` is read at start only: restart to change it");
            }
        }
    }

    /// Keeps a replaced plan until no worker holds it, so that it is freed here: freeing ten thousand routes takes
    /// milliseconds that a worker owes to its requests.
    fn retire(&mut self, plan: Arc<Plan>) {
        self.retired.push(plan);
        if self.retired.len() > RETIRED_LIMIT {
            self.retired.remove(0);
        }
    }

    /// True when there is something to [`tidy`](Self::tidy).
    pub(crate) fn is_untidy(&self) -> bool {
        !self.retired.is_empty() || self.places.is_untidy()
    }

    /// Frees replaced plans that no worker holds, and forgets endpoints that left long ago. Call it every second or so.
    pub(crate) fn tidy(&mut self) {
        self.retired.retain(|plan| Arc::strong_count(plan) > 1);
        self.places.tidy(Instant::now());
    }
}
