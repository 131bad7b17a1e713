//! A circuit as whoever watches it sees it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::{Circuit, CircuitBreaker};
use crate::keyed::steady;

/// A circuit that is watched.
#[derive(Clone)]
pub struct Watched(Arc<Circuit>);

/// Where a circuit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Requests pass; on the ramp, more and more of them.
    Closed,
    /// Requests are refused.
    Open,
    /// A few requests find out whether the backend is well.
    HalfOpen,
}

impl CircuitBreaker {
    /// Its circuit, to be watched.
    pub fn watched(&self) -> Watched {
        Watched(Arc::clone(&self.inner.circuit))
    }
}

impl Watched {
    /// Where it stands.
    pub fn standing(&self, now: Instant) -> Standing {
        match self.0.open_until.load(Relaxed) {
            0 => Standing::Closed,
            until if steady(now) < until => Standing::Open,
            _ => Standing::HalfOpen,
        }
    }

    /// How often it has opened after it was closed.
    pub fn openings(&self) -> u32 {
        self.0.openings.load(Relaxed)
    }

    /// True when both are one.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("openings", &self.openings()).finish_non_exhaustive()
    }
}
