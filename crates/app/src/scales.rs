//! Weighs the process against what it may use, and tells when that changes what is done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_plan::process::{Overload, Process};
use rhumb_proxy::overload::{Pressure, Standing, State, Weight};
use rhumb_signals::Level;
use rhumb_telemetry::{Metric, Registry};
use serde_json::{Value, json};

use crate::memory;
use crate::signals;

/// How often memory is weighed.
pub(crate) const WEIGH: Duration = Duration::from_millis(100);

/// How often the limit of the cgroup is read: it can be changed while the process runs.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// Buffers may have this part of the memory when nothing is written.
const BUFFERS_PART: u64 = 4;

/// Weighs the process.
pub(crate) struct Scales {
    pressure: Arc<Pressure>,
    registry: Arc<Registry>,
    /// The memory that the system grants, and when it was read.
    granted: Option<(u64, Instant)>,
    told: State,
}

impl Scales {
    /// Nothing is weighed yet.
    pub(crate) fn new(pressure: &Arc<Pressure>, registry: &Arc<Registry>) -> Self {
        Self {
            pressure: Arc::clone(pressure),
            registry: Arc::clone(registry),
            granted: None,
            told: State::Normal,
        }
    }

    /// Weighs once, by the settings in force.
    pub(crate) fn weigh(&mut self, process: &Process) {
        let overload = process.overload.as_ref();
        self.pressure.set_queue_delay(overload.map(|overload| overload.queue_delay));
        let (memory_limit, buffers_limit) = overload.map_or((0, 0), |overload| self.limits(overload));
        self.registry.gauge(Metric::MemoryLimit, &[]).set(i64::try_from(memory_limit).unwrap_or(i64::MAX));
        let memory = if memory_limit > 0 { memory::resident().unwrap_or(0) } else { 0 };
        self.pressure.weigh(Weight { memory, memory_limit, buffers_limit });
        self.tell(memory, memory_limit);
    }

    fn limits(&mut self, overload: &Overload) -> (u64, u64) {
        let memory = overload.memory.unwrap_or_else(|| self.granted());
        (memory, overload.buffers.unwrap_or(memory / BUFFERS_PART))
    }

    fn granted(&mut self) -> u64 {
        let now = Instant::now();
        match self.granted {
            Some((granted, at)) if now.duration_since(at) < READ_LIMIT => granted,
            _ => {
                let granted = memory::limit().unwrap_or(0);
                self.granted = Some((granted, now));
                granted
            }
        }
    }

    fn tell(&mut self, memory: u64, memory_limit: u64) {
        let standing = self.pressure.standing();
        let Standing { state, share, queue_delay, buffers, cause } = standing;
        if state == self.told {
            return;
        }
        let was = self.told.as_str();
        self.told = state;
        match state {
            State::Normal => signals::tell("overload_over", Level::Info, "", "no longer overloaded"),
            _ => {
                let text = format!("{}, because of {cause}", state.as_str());
                signals::tell("overloaded", Level::Warning, "", text);
            }
        }
        match state {
            State::Normal => tracing::info!(was, "no longer overloaded"),
            _ => tracing::warn!(
                was, cause, share_refused = %format!("{}%", share / 10), ?queue_delay, memory, memory_limit, buffers,
                "overloaded: {}", state.as_str()
            ),
        }
    }
}

/// How things stand, as `/status` tells it.
pub(crate) fn standing(pressure: &Pressure) -> Value {
    let Standing { state, share, queue_delay, buffers, cause } = pressure.standing();
    json!({
        "state": state.as_str(),
        "cause": (state != State::Normal).then_some(cause),
        "refusedPercent": share / 10,
        "queueDelayMs": u64::try_from(queue_delay.as_millis()).unwrap_or(u64::MAX),
        "bufferBytes": buffers,
        "residentBytes": memory::resident(),
    })
}
