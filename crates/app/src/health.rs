//! What the process says about itself: whether it takes traffic, and how its last configuration change went.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Whether the process takes traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No valid configuration is live yet, or its listeners are not bound.
    Starting,
    /// Takes traffic.
    Ready,
    /// Finishes what it has and ends.
    Draining,
}

impl Phase {
    /// The word shown to people and probes.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

/// How the last attempt to change the configuration went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// When. **Unit**: seconds since 1970.
    pub(crate) at: u64,
    /// Why it was refused; `None` when it is live.
    pub(crate) refused: Option<String>,
    /// Errors and warnings, one line each.
    pub(crate) diagnostics: Vec<String>,
}

/// The state of the process, shared by those who steer it and those who ask.
#[derive(Debug)]
pub(crate) struct Health {
    started: Instant,
    started_at: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// When the live configuration became live.
    live_since: Option<u64>,
    last_attempt: Option<Attempt>,
    is_drain_ordered: bool,
    /// What is missing before traffic is taken.
    missing: Vec<String>,
}

impl Health {
    /// A process that starts.
    pub(crate) fn new() -> Self {
        let inner = Inner {
            phase: Phase::Starting,
            live_since: None,
            last_attempt: None,
            is_drain_ordered: false,
            missing: Vec::new(),
        };
        Self { started: Instant::now(), started_at: unix_now(), inner: Mutex::new(inner) }
    }

    /// Whether the process takes traffic.
    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Changes it. Draining is final.
    pub(crate) fn enter(&self, phase: Phase) {
        let mut inner = self.lock();
        if inner.phase != Phase::Draining {
            inner.phase = phase;
        }
    }

    /// Takes down what is missing before traffic is taken; true when that is news.
    pub(crate) fn wait_for(&self, missing: Vec<String>) -> bool {
        let mut inner = self.lock();
        let is_news = inner.missing != missing;
        inner.missing = missing;
        is_news
    }

    /// What is missing before traffic is taken.
    pub(crate) fn missing(&self) -> Vec<String> {
        self.lock().missing.clone()
    }

    /// Notes that a drain was asked for; true the first time, and only before one has begun.
    pub(crate) fn order_drain(&self) -> bool {
        let mut inner = self.lock();
        let is_first = !inner.is_drain_ordered && inner.phase != Phase::Draining;
        inner.is_drain_ordered = true;
        is_first
    }

    /// True when a drain was asked for.
    pub(crate) fn is_drain_ordered(&self) -> bool {
        self.lock().is_drain_ordered
    }

    /// Notes an attempt to change the configuration, and whether it brought another one into force.
    pub(crate) fn note(&self, attempt: Attempt, is_change: bool) {
        let mut inner = self.lock();
        if is_change {
            inner.live_since = Some(attempt.at);
        }
        inner.last_attempt = Some(attempt);
    }

    /// The last attempt to change the configuration.
    pub(crate) fn last_attempt(&self) -> Option<Attempt> {
        self.lock().last_attempt.clone()
    }

    /// When the live configuration became live. **Unit**: seconds since 1970.
    pub(crate) fn live_since(&self) -> Option<u64> {
        self.lock().live_since
    }

    /// How long the process has been running.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// When it started. **Unit**: seconds since 1970.
    pub(crate) fn started_at(&self) -> u64 {
        self.started_at
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_is_final() {
        let health = Health::new();
        assert_eq!(health.phase(), Phase::Starting);
        for (phase, becomes) in [
            (Phase::Ready, Phase::Ready),
            (Phase::Draining, Phase::Draining),
            (Phase::Ready, Phase::Draining),
        ] {
            health.enter(phase);
            assert_eq!(health.phase(), becomes);
        }
    }

    #[test]
    fn a_refused_attempt_changes_nothing_but_what_is_told() {
        let health = Health::new();
        health.note(Attempt { at: 1, refused: None, diagnostics: Vec::new() }, true);
        health.note(Attempt { at: 2, refused: Some("1 error".to_owned()), diagnostics: Vec::new() }, false);
        assert_eq!(health.live_since(), Some(1));
        assert_eq!(health.last_attempt().map(|attempt| attempt.at), Some(2));
    }
}
