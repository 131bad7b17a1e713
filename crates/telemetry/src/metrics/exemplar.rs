//! Exemplars: for each series of requests a trace that shows one of them.

use std::fmt::Write as _;
use std::time::Duration;

use super::exchange::bucket_of;

/// A worker replaces exemplars at most so often: they are examples, and taking them locks.
pub(super) const EVERY: Duration = Duration::from_millis(100);

/// One request of a series whose trace was sampled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exemplar {
    pub(super) trace_id: [u8; 32],
    pub(super) time: Duration,
    /// When the request ended, since the Unix epoch. Unit: nanoseconds.
    pub(super) unix_nanos: u64,
}

impl Exemplar {
    /// The bucket that it is in.
    pub(super) fn bucket(&self) -> usize {
        bucket_of(self.time)
    }

    /// Writes it behind a sample (OpenMetrics 1.0, "Exemplars").
    pub(super) fn write(&self, out: &mut String) {
        let id = std::str::from_utf8(&self.trace_id).unwrap_or_default();
        let (secs, millis) = (self.unix_nanos / 1_000_000_000, self.unix_nanos / 1_000_000 % 1000);
        let (took, nanos) = (self.time.as_secs(), self.time.subsec_nanos());
        // A String takes every write.
        write!(out, " # {{trace_id=\"{id}\"}} {took}.{nanos:09} {secs}.{millis:03}").unwrap_or_default();
    }
}
