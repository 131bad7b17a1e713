//! Who may ask a control plane, where something else than its token is written: the `admin` of a ProxyConfig in a file of its
//! own, followed as it changes, and a worker that asks identity providers.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use rhumb_balance::Nanos;
use rhumb_plan::Current;
use rhumb_plan::process::Process;
use rhumb_proxy::Shared;
use rhumb_telemetry::Registry;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::capture::Capture;
use crate::config::{Config, paint};
use crate::errand::Errands;
use crate::health::Health;
use crate::logs;
use crate::names::Board;
use crate::reload::{FILE_CHANGE, Live};
use crate::supervisor::{Ended, Supervisor};

/// What is written about access, in force.
pub(super) struct Access {
    live: Live,
    /// The worker ends with the process.
    _endings: UnboundedReceiver<Ended>,
    /// What the admin listener reads.
    pub(super) current: Current,
    /// The way to the worker.
    pub(super) errands: Errands,
    /// Where the admin listener is, and what it keeps where.
    pub(super) process: Process,
}

impl Access {
    /// Reads it, and takes it over.
    ///
    /// # Errors
    /// What is wrong with it is told; that something is, is the error.
    pub(super) async fn open(
        path: &Path,
        registry: &Arc<Registry>,
        health: &Arc<Health>,
    ) -> anyhow::Result<Self> {
        let mut config = Config::at(path);
        let reading = config.read(None, Nanos::default());
        logs::report(&reading.diags, paint(&std::io::stderr()));
        anyhow::ensure!(reading.errors() == 0, "{} has mistakes", path.display());
        anyhow::ensure!(
            reading.plan.all_ports().next().is_none(),
            "{}: a control plane carries no traffic; write a document with `kind: ProxyConfig` that says who may ask it",
            path.display()
        );
        let process = reading.process.clone();
        let shared = Shared {
            current: Current::default(),
            registry: Arc::clone(registry),
            origin: Instant::now(),
            connections: Arc::default(),
            pressure: Arc::default(),
            discovery: Default::default(),
            plaintext: Arc::default(),
            signals: None,
            lookout: None,
            taps: Arc::default(),
            awake: Arc::default(),
            outside: Default::default(),
        };
        let (supervisor, endings) = Supervisor::start(1, &shared).context("thread that asks others")?;
        let errands = Errands::default();
        supervisor.run_errands(&errands);
        let (current, board) = (shared.current.clone(), Board::default());
        let mut live =
            Live::new(config, &shared, supervisor, Arc::clone(health), board, (Capture::default(), false));
        live.begin(reading).await.with_context(|| path.display().to_string())?;
        tokio::task::spawn_local(rhumb_net::timer::drive());
        Ok(Self { live, _endings: endings, current, errands, process })
    }

    /// Takes over what the file says now, when it has changed; never done. **Cancel**: nothing is lost but a reading that is
    /// under way.
    pub(super) async fn changed(&mut self) {
        self.live.watch.changed().await;
    }

    /// Takes over what the file says now. What has mistakes is told, and what was in force stays.
    pub(super) async fn reload(&mut self) {
        self.live.reload(FILE_CHANGE).await;
    }
}
