//! The history of what proxies report, and the thread that keeps it.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;

use anyhow::Context;
use rhumb_control::control::Control;
use rhumb_control::fleet::Fleet;
use rhumb_signals::history::{MEMORY, fleet::FILE};
use rhumb_signals::{History, LOOK};
use rhumb_telemetry::{Metric, Registry};

use crate::health::unix_ms;

/// The file, beside the documents.
const SIGNALS: &str = "signals.redb";

/// Keeps what proxies report until it is dropped.
pub(crate) struct FleetKeeper {
    fleet: Arc<Fleet>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FleetKeeper {
    /// Has a control plane hear what its proxies report. `directory`: where what is kept is kept.
    ///
    /// # Errors
    /// When the operating system has no thread left.
    pub(crate) fn start(control: &Control, directory: &Path) -> anyhow::Result<Self> {
        let history = History::of_fleet_in_file(&directory.join(SIGNALS), FILE).unwrap_or_else(|error| {
            tracing::warn!(%error, "what proxies report is kept in memory");
            History::of_fleet(MEMORY)
        });
        let fleet = Arc::new(Fleet::new(Arc::new(history)));
        control.hub().hear(Arc::clone(&fleet));
        let (stop, stopped) = channel();
        let history = Arc::clone(fleet.history());
        let keep = move || {
            let mut has_failed = false;
            loop {
                let is_last = !matches!(stopped.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout));
                match history.settle(unix_ms(), is_last) {
                    Ok(()) => has_failed = false,
                    // Once: a full disk stays full for a while.
                    Err(error) if !std::mem::replace(&mut has_failed, true) => {
                        tracing::error!(%error, "what proxies report cannot be kept");
                    }
                    Err(_) => {}
                }
                if is_last {
                    return history.close();
                }
            }
        };
        let thread = std::thread::Builder::new().name("fleet".to_owned()).spawn(keep);
        Ok(Self { fleet, stop: Some(stop), thread: Some(thread.context("thread of the proxies' history")?) })
    }

    /// What proxies report.
    pub(crate) fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// Metrics of it.
    pub(crate) fn observe(&self, registry: &Registry) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let of = Arc::clone(&self.fleet);
        registry.collect(Metric::FleetReports, move |emit| emit(&[], number(of.figures().reports)));
        let of = Arc::clone(&self.fleet);
        registry.collect(Metric::FleetSeries, move |emit| {
            for (result, count) in of.figures().series {
                emit(&[result], number(count));
            }
        });
        let of = Arc::clone(&self.fleet);
        registry.collect(Metric::FleetSightings, move |emit| {
            for (result, count) in of.figures().sightings {
                emit(&[result], number(count));
            }
        });
        let of = Arc::clone(&self.fleet);
        registry.collect(Metric::FleetBytes, move |emit| {
            emit(&[], i64::try_from(of.history().bytes()).unwrap_or(i64::MAX));
        });
    }
}

impl Drop for FleetKeeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}
