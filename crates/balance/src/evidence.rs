//! What the last requests to an endpoint say about it, in one word that all workers write without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::health::Outlier;

/// Outcomes that are remembered one by one.
pub const REMEMBERED: u32 = 31;

/// Of those, the ones that [`Outlier::recent_failures`] looks at.
pub const RECENT: u32 = 10;

/// How an attempt ended, as far as it counts for or against an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The endpoint did its part.
    Good,
    /// It answered with a 5xx that an application gives.
    Error,
    /// It answered 502, 503 or 504.
    Gateway,
    /// It did not answer: refused, too late, reset, or not understood.
    Local,
}

/// The word. From the lowest bit: the last outcomes with a 1 for each failure, newest lowest, above them a 1 that marks
/// how many there are (32 bits); then three counts of failures in a row (8 bits each): any, of the gateway kind, local.
#[derive(Debug)]
pub(crate) struct Evidence(AtomicU64);

/// A reading of [`Evidence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading(u64);

const EMPTY: u64 = 1;
const FULL: u64 = 1 << REMEMBERED;
const OUTCOMES: u64 = FULL - 1;
const RUNS_AT: [u32; 3] = [32, 40, 48];

impl Evidence {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(EMPTY))
    }

    pub(crate) fn read(&self) -> Reading {
        Reading(self.0.load(Relaxed))
    }

    /// Forgets everything: what comes next is judged for itself.
    pub(crate) fn clear(&self) {
        self.0.store(EMPTY, Relaxed);
    }

    /// Notes an outcome. An endpoint that has done nothing but well for a while costs one reading.
    #[inline]
    pub(crate) fn note(&self, mark: Mark) -> Reading {
        let word = self.0.load(Relaxed);
        if word == FULL && mark == Mark::Good {
            return Reading(word);
        }
        self.note_slowly(mark)
    }

    fn note_slowly(&self, mark: Mark) -> Reading {
        let mut word = self.0.load(Relaxed);
        loop {
            let next = after(word, mark);
            match self.0.compare_exchange_weak(word, next, Relaxed, Relaxed) {
                Ok(_) => return Reading(next),
                Err(other) => word = other,
            }
        }
    }
}

fn after(word: u64, mark: Mark) -> u64 {
    let outcomes = word & (FULL | OUTCOMES);
    let shifted = outcomes << 1 | u64::from(mark != Mark::Good);
    let outcomes = if outcomes & FULL != 0 { FULL | shifted & OUTCOMES } else { shifted };
    let grows = match mark {
        Mark::Good => [false; 3],
        Mark::Error => [true, false, false],
        Mark::Gateway => [true, true, false],
        Mark::Local => [true; 3],
    };
    let runs = RUNS_AT.iter().zip(grows).fold(0, |runs, (&at, grows)| {
        let run = word >> at & 0xff;
        runs | if grows { (run + 1).min(0xff) << at } else { 0 }
    });
    outcomes | runs
}

impl Reading {
    /// Failures and outcomes among those that are remembered.
    pub(crate) fn remembered(self) -> (u32, u32) {
        let outcomes = self.0 & (FULL | OUTCOMES);
        let len = 63 - outcomes.leading_zeros().min(63);
        ((outcomes & ((1 << len) - 1)).count_ones(), len)
    }

    /// Failures and outcomes among the last [`RECENT`].
    pub(crate) fn recent(self) -> (u32, u32) {
        self.last(RECENT)
    }

    /// Failures and outcomes among the last `count`, as far as they are remembered.
    pub(crate) fn last(self, count: u32) -> (u32, u32) {
        let (_, len) = self.remembered();
        let len = len.min(count);
        ((self.0 & ((1 << len) - 1)).count_ones(), len)
    }

    fn run(self, which: usize) -> u32 {
        RUNS_AT.get(which).map_or(0, |&at| (self.0 >> at & 0xff) as u32)
    }

    /// Failures of any kind in a row.
    pub(crate) fn failures_in_a_row(self) -> u32 {
        self.run(0)
    }

    /// Gateway and local failures in a row.
    pub(crate) fn gateway_in_a_row(self) -> u32 {
        self.run(1)
    }

    /// Local failures in a row.
    pub(crate) fn local_in_a_row(self) -> u32 {
        self.run(2)
    }

    /// True when some threshold is reached, so that it has to be looked at closely.
    #[inline]
    pub(crate) fn is_suspicious(self, limits: &Outlier) -> bool {
        let reaches = |limit: u8, run: u32| limit > 0 && run >= u32::from(limit);
        // Most readings are those of endpoints that do well.
        if self.0 & OUTCOMES == 0 {
            return false;
        }
        reaches(limits.consecutive_5xx, self.failures_in_a_row())
            || reaches(limits.consecutive_gateway_failures, self.gateway_in_a_row())
            || reaches(limits.consecutive_local_failures, self.local_in_a_row())
            || reaches(limits.recent_failures, self.recent().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(marks: &[Mark]) -> Reading {
        let evidence = Evidence::new();
        marks.iter().fold(evidence.read(), |_, &mark| evidence.note(mark))
    }

    #[test]
    fn outcomes_are_remembered_up_to_a_bound() {
        use Mark::{Error, Good};
        assert_eq!(read(&[]).remembered(), (0, 0));
        assert_eq!(read(&[Error, Good, Error]).remembered(), (2, 3));
        assert_eq!(read(&[Good; 100]).remembered(), (0, 31));
        let mut marks = vec![Error; 40];
        assert_eq!(read(&marks).remembered(), (31, 31));
        marks.extend([Good; 9]);
        assert_eq!(read(&marks).remembered(), (22, 31));
        assert_eq!(read(&marks).recent(), (1, 10));
    }

    #[test]
    fn runs_end_with_the_first_other_outcome() {
        use Mark::{Error, Gateway, Good, Local};
        let runs = |marks: &[Mark]| {
            let reading = read(marks);
            (reading.failures_in_a_row(), reading.gateway_in_a_row(), reading.local_in_a_row())
        };
        assert_eq!(runs(&[Local, Local, Gateway, Local]), (4, 4, 1));
        assert_eq!(runs(&[Gateway, Gateway, Error]), (3, 0, 0));
        assert_eq!(runs(&[Local, Good]), (0, 0, 0));
        assert_eq!(runs(&[Local; 300]), (255, 255, 255));
    }

    #[test]
    fn an_endpoint_that_does_well_is_not_written() {
        let evidence = Evidence::new();
        for _ in 0..REMEMBERED {
            evidence.note(Mark::Good);
        }
        assert_eq!(evidence.read(), Reading(FULL));
        assert_eq!(evidence.note(Mark::Good), Reading(FULL));
    }
}
