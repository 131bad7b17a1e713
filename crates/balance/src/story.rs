//! What an endpoint is going through: out, tried with single requests, growing, or in full use. Only changes of this
//! take its lock; requests read the [gate](Gate) that follows from it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::hash::mix;
use crate::health::{
    Outlier, RAMP_START, RELAPSES_MAX, SUCCESSES_PER_RELAPSE, Settings, THROTTLE_DEFAULT, THROTTLE_FLOOR,
    THROTTLE_MAX,
};
use crate::load::{Nanos, duration_ns};

/// Who may choose an endpoint that is drawn: one word per endpoint, derived from its story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate(pub(crate) u32);

impl Gate {
    /// Nobody.
    pub const SHUT: Self = Self(0);
    /// One request at a time that may be repeated (RFC 9110 §9.2.2).
    pub const PROBE: Self = Self(1);
    /// One request at a time.
    pub const PROBE_ANY: Self = Self(2);
    /// Everybody.
    pub const OPEN: Self = Self(u32::MAX);

    /// A share of those who draw it; at least the smallest that is one.
    pub fn share(share: f64) -> Self {
        if share >= 1.0 {
            return Self::OPEN;
        }
        Self(((share.max(0.0) * f64::from(u32::MAX)) as u32).max(Self::PROBE_ANY.0 + 1))
    }

    /// The share of those who draw it that may choose it, from 0 to 1. Probes are none.
    pub fn as_share(self) -> f64 {
        if self.0 <= Self::PROBE_ANY.0 { 0.0 } else { f64::from(self.0) / f64::from(u32::MAX) }
    }
}

/// Where an endpoint is on its way out and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// In full use.
    Full,
    /// New beside others: its share grows.
    Warming,
    /// Not used.
    Ejected,
    /// Tried with one request at a time.
    Probing,
    /// Back: its share grows.
    Ramping,
}

impl Phase {
    /// True while it does not count as usable.
    pub fn is_out(self) -> bool {
        matches!(self, Self::Ejected | Self::Probing)
    }
}

/// The evidence that put an endpoint out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    /// So many failures in a row.
    Consecutive5xx(u32),
    /// So many 502, 503, 504 and local failures in a row.
    ConsecutiveGateway(u32),
    /// So many refused, late, reset or broken attempts in a row.
    ConsecutiveLocal(u32),
    /// Failures among its last requests, and the share that peers fail, in percent.
    Recent {
        /// Failures.
        failures: u32,
        /// Requests.
        of: u32,
        /// What peers fail, in percent.
        peers: f32,
    },
    /// Failures among the requests of the window.
    Percentage {
        /// Failures.
        failures: u32,
        /// Requests.
        of: u32,
    },
    /// Its success rate in the window and the one below which an endpoint is out, in percent.
    SuccessRate {
        /// Its rate.
        rate: f32,
        /// The least that is in.
        least: f32,
    },
    /// A request that tried it failed.
    ProbeFailed,
}

impl Why {
    /// Every kind, by its word in metrics.
    pub const KINDS: [&'static str; 7] = [
        "consecutive_5xx",
        "consecutive_gateway",
        "consecutive_local",
        "recent_failures",
        "failure_percentage",
        "success_rate",
        "probe_failed",
    ];

    /// Its place in [`Why::KINDS`].
    pub fn kind(self) -> usize {
        match self {
            Self::Consecutive5xx(_) => 0,
            Self::ConsecutiveGateway(_) => 1,
            Self::ConsecutiveLocal(_) => 2,
            Self::Recent { .. } => 3,
            Self::Percentage { .. } => 4,
            Self::SuccessRate { .. } => 5,
            Self::ProbeFailed => 6,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consecutive5xx(n) => write!(f, "{n} failed requests in a row"),
            Self::ConsecutiveGateway(n) => write!(f, "{n} gateway failures in a row"),
            Self::ConsecutiveLocal(n) => write!(f, "{n} attempts in a row without an answer"),
            Self::Recent { failures, of, peers } => {
                write!(f, "{failures} of its last {of} requests failed; its peers fail {peers:.1} %")
            }
            Self::Percentage { failures, of } => {
                write!(f, "{failures} of {of} requests failed within the window")
            }
            Self::SuccessRate { rate, least } => {
                write!(f, "{rate:.1} % succeed; with the others in mind {least:.1} % should")
            }
            Self::ProbeFailed => f.write_str("a request that tried it failed"),
        }
    }
}

/// What the active checks say.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Check {
    /// None has ended.
    #[default]
    Unknown,
    /// It is well.
    Passing,
    /// It is not.
    Failing(Arc<str>),
}

/// An endpoint that was put out, or tried in vain, this long ago may be tried before its time when another one has to go
/// and not more may be out.
pub const EARLY: Duration = Duration::from_millis(250);

/// The story of one endpoint.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) phase: Phase,
    /// When the phase began.
    pub(crate) since: Nanos,
    /// When it ends by itself: a time out, a ramp.
    pub(crate) until: Nanos,
    /// How often it came back too early.
    pub(crate) relapses: u32,
    /// Probes that succeeded.
    pub(crate) passed: u8,
    /// Any request may try it: none that may be repeated came for a long time.
    pub(crate) takes_any: bool,
    /// Tried before its time, because another one has to go: when it was to be over.
    pub(crate) early_for: Option<Nanos>,
    /// Its successes when it came back in full.
    pub(crate) successes_then: u64,
    /// The last evidence, and when.
    pub(crate) why: Option<(Why, Nanos)>,
    pub(crate) throttle: Option<Throttle>,
    pub(crate) check: Check,
    /// When the answer of the checks changed.
    pub(crate) check_since: Nanos,
    /// When the last check passed.
    pub(crate) passed_at: Option<Nanos>,
    pub(crate) ejections: u64,
    pub(crate) window: Window,
}

/// Less than its share, because it asked for less.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Throttle {
    /// **Unit**: percent of the usual share.
    pub(crate) percent: u32,
    pub(crate) until: Nanos,
    /// Before this the share is not lowered again: what is under way tells nothing new.
    pub(crate) settled: Nanos,
}

/// How long a lowered share is given to show an effect.
const THROTTLE_SETTLES: Duration = Duration::from_millis(200);

impl Story {
    pub(crate) fn new(now: Nanos) -> Self {
        Self {
            phase: Phase::Full,
            since: now,
            until: Nanos(u64::MAX),
            relapses: 0,
            passed: 0,
            takes_any: false,
            early_for: None,
            successes_then: 0,
            why: None,
            throttle: None,
            check: Check::Unknown,
            check_since: now,
            passed_at: None,
            ejections: 0,
            window: Window::default(),
        }
    }

    fn enter(&mut self, phase: Phase, now: Nanos, until: Nanos) {
        (self.phase, self.since, self.until) = (phase, now, until);
        self.passed = 0;
        self.takes_any = false;
        self.early_for = None;
    }

    /// Out it goes. `succeeded` is its count of successes, by which relapses are forgiven.
    pub(crate) fn eject(&mut self, why: Why, identity: u64, succeeded: u64, limits: &Outlier, now: Nanos) {
        if let Some(until) = self.early_for {
            // It was asked before its time: that it is not well yet is no relapse.
            self.why = Some((why, now));
            return self.enter(Phase::Ejected, now, until.max(after(now, EARLY)));
        }
        match self.phase {
            Phase::Probing | Phase::Ramping => self.relapses = (self.relapses + 1).min(RELAPSES_MAX),
            Phase::Full | Phase::Warming | Phase::Ejected => {
                let forgiven = succeeded.saturating_sub(self.successes_then) / SUCCESSES_PER_RELAPSE;
                self.relapses = self.relapses.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX));
            }
        }
        self.ejections += 1;
        self.why = Some((why, now));
        let out = limits.base_ejection.saturating_mul(1 << self.relapses.min(RELAPSES_MAX));
        let out = duration_ns(out.min(limits.max_ejection));
        // Up to a quarter more, different for each endpoint and time: those that went out together do not come back so.
        let jitter = (u128::from(mix(identity ^ self.ejections)) * u128::from(out / 4)) >> 64;
        let jitter = u64::try_from(jitter).unwrap_or(0);
        self.enter(Phase::Ejected, now, Nanos(now.0.saturating_add(out + jitter)));
    }

    /// Who has to go finds no room: this one is tried now, if it has been out for [`EARLY`]. True when it is.
    pub(crate) fn try_early(&mut self, settings: &Settings, now: Nanos) -> bool {
        let is_due = self.phase == Phase::Ejected && after(self.since, EARLY) <= now;
        if !is_due || !self.has_passed_check(settings) {
            return false;
        }
        let until = self.until;
        let patience = settings.outlier.as_ref().map_or(Duration::ZERO, |limits| limits.base_ejection);
        self.enter(Phase::Probing, now, after(now, patience));
        self.early_for = Some(until);
        true
    }

    /// Who checks can tell before any request does.
    fn has_passed_check(&self, settings: &Settings) -> bool {
        !settings.is_checked
            || self.check == Check::Passing && self.passed_at.is_some_and(|at| at > self.since)
    }

    /// A request that tried it succeeded. True when it is on its way back.
    pub(crate) fn pass(&mut self, limits: &Outlier, now: Nanos) -> bool {
        if self.phase != Phase::Probing {
            return false;
        }
        self.passed = self.passed.saturating_add(1);
        if self.passed < limits.probes {
            return false;
        }
        self.enter(Phase::Ramping, now, after(now, limits.ramp));
        true
    }

    /// Back without being tried.
    pub(crate) fn readmit(&mut self, limits: &Outlier, now: Nanos) {
        self.enter(Phase::Ramping, now, after(now, limits.ramp));
    }

    /// New beside others.
    pub(crate) fn warm(&mut self, slow_start: Duration, now: Nanos) {
        self.enter(Phase::Warming, now, after(now, slow_start));
    }

    /// Time passes. `succeeded` as in [`Story::eject`]; `is_drawn` when its level has requests.
    pub(crate) fn advance(&mut self, settings: &Settings, succeeded: u64, is_drawn: bool, now: Nanos) {
        if self.throttle.is_some_and(|throttle| throttle.until <= now) {
            self.throttle = None;
        }
        match self.phase {
            Phase::Ejected if self.until <= now && self.has_passed_check(settings) => {
                let patience =
                    settings.outlier.as_ref().map_or(Duration::ZERO, |limits| limits.base_ejection);
                self.enter(Phase::Probing, now, after(now, patience));
            }
            Phase::Probing if self.until <= now => {
                self.takes_any = true;
                self.until = Nanos(u64::MAX);
            }
            // Nobody comes by to try it: a backup would be out for as long as it is not needed, and then missing.
            Phase::Probing if self.takes_any && !is_drawn => {
                if let Some(limits) = &settings.outlier {
                    self.readmit(limits, now);
                }
            }
            Phase::Ramping | Phase::Warming if self.until <= now => {
                self.successes_then = succeeded;
                self.enter(Phase::Full, now, Nanos(u64::MAX));
            }
            _ => {}
        }
        // What is switched off does not keep anybody out.
        if settings.outlier.is_none() && self.phase.is_out() {
            self.enter(Phase::Full, now, Nanos(u64::MAX));
        }
    }

    /// It asks for less for a while.
    pub(crate) fn throttle(&mut self, wanted: Option<Duration>, now: Nanos) -> bool {
        let time = wanted.unwrap_or(THROTTLE_DEFAULT).min(THROTTLE_MAX);
        let percent = match self.throttle {
            Some(throttle) if throttle.settled > now => return false,
            Some(throttle) => (throttle.percent / 2).max(THROTTLE_FLOOR),
            None => 50,
        };
        let until = after(now, time).max(self.throttle.map_or(Nanos(0), |throttle| throttle.until));
        self.throttle = Some(Throttle { percent, until, settled: after(now, THROTTLE_SETTLES.min(time)) });
        true
    }

    /// True when checks keep it out.
    pub(crate) fn is_failing_check(&self, settings: &Settings) -> bool {
        settings.is_checked
            && match self.check {
                Check::Unknown => !settings.is_well_at_first,
                Check::Passing => false,
                Check::Failing(_) => true,
            }
    }

    /// True when requests may be sent to it as usual, if with a smaller share.
    pub(crate) fn is_usable(&self, settings: &Settings) -> bool {
        !self.phase.is_out() && !self.is_failing_check(settings)
    }

    /// Who may choose it.
    pub(crate) fn gate(&self, settings: &Settings, now: Nanos) -> Gate {
        if self.is_failing_check(settings) {
            return Gate::SHUT;
        }
        let ramp = match self.phase {
            Phase::Ejected => return Gate::SHUT,
            Phase::Probing if self.takes_any => return Gate::PROBE_ANY,
            Phase::Probing => return Gate::PROBE,
            Phase::Full => 1.0,
            Phase::Warming | Phase::Ramping => {
                let whole = self.until.0.saturating_sub(self.since.0).max(1);
                let gone = now.0.saturating_sub(self.since.0).min(whole);
                // Never all of it: who is open is not looked at again until something happens.
                (gone as f64 / whole as f64).clamp(f64::from(RAMP_START) / 100.0, 0.999)
            }
        };
        let throttle = self.throttle.map_or(1.0, |throttle| f64::from(throttle.percent) / 100.0);
        Gate::share(ramp * throttle)
    }
}

fn after(now: Nanos, time: Duration) -> Nanos {
    Nanos(now.0.saturating_add(duration_ns(time)))
}

/// Parts of the window; each is judged with those before it when it ends.
pub(crate) const PARTS: usize = 10;

/// Successes and failures of the last parts of the window.
#[derive(Debug, Default)]
pub(crate) struct Window {
    parts: [(u32, u32); PARTS],
    at: usize,
    /// The counters when the part began.
    counted: (u64, u64),
}

impl Window {
    /// Ends a part.
    pub(crate) fn turn(&mut self, succeeded: u64, failed: u64) {
        let since = |now: u64, then: u64| u32::try_from(now.saturating_sub(then)).unwrap_or(u32::MAX);
        let part = (since(succeeded, self.counted.0), since(failed, self.counted.1));
        self.counted = (succeeded, failed);
        if let Some(slot) = self.parts.get_mut(self.at) {
            *slot = part;
        }
        self.at = (self.at + 1) % PARTS;
    }

    /// Successes and failures of the window.
    pub(crate) fn sum(&self) -> (u32, u32) {
        self.parts
            .iter()
            .fold((0, 0), |sum, part| (sum.0.saturating_add(part.0), sum.1.saturating_add(part.1)))
    }

    /// True when nothing was counted in the window, and nothing since.
    pub(crate) fn is_empty(&self, succeeded: u64, failed: u64) -> bool {
        self.counted == (succeeded, failed) && self.sum() == (0, 0)
    }

    /// Forgets everything: what comes next is judged for itself.
    pub(crate) fn clear(&mut self) {
        self.parts = [(0, 0); PARTS];
    }
}
