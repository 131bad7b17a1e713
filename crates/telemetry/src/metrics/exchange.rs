//! What one worker saw of one kind of exchange.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::signals::{BUCKETS as NATIVE, Buckets as Native, native_bucket_of};

/// Upper bounds of the buckets of every duration histogram. Unit: microseconds.
///
/// OpenTelemetry's bounds for `http.server.request.duration`, and below them four for a proxy near its backends.
pub const BOUNDS: [u64; 18] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000,
    1_000_000, 2_500_000, 5_000_000, 7_500_000, 10_000_000,
];

/// Buckets, the last one without an upper bound.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

/// Adds to a cell that no other thread writes: a plain load and store, no locked instruction.
pub(super) fn add(cell: &AtomicU64, n: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// 584 years fit.
fn nanos_of(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The bucket of a time.
#[inline]
pub(super) fn bucket_of(time: Duration) -> usize {
    // A bound is inclusive: compare in nanoseconds.
    let nanos = nanos_of(time);
    BOUNDS.partition_point(|bound| bound * 1000 < nanos)
}

/// Times and sizes of exchanges with the same labels. One writer.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Exchange {
    /// How many exchanges took how long. Their sum is the count of all, so the two never disagree.
    buckets: [AtomicU64; BUCKETS],
    /// The same by √2, for native histograms.
    native: [AtomicU64; NATIVE],
    nanos: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            buckets: Default::default(),
            native: [const { AtomicU64::new(0) }; NATIVE],
            nanos: AtomicU64::default(),
            bytes_in: AtomicU64::default(),
            bytes_out: AtomicU64::default(),
        }
    }
}

impl Exchange {
    pub(super) fn record(&self, time: Duration, bytes_in: u64, bytes_out: u64) {
        let nanos = nanos_of(time);
        if let Some(bucket) = self.buckets.get(bucket_of(time)) {
            add(bucket, 1);
        }
        if let Some(bucket) = self.native.get(native_bucket_of(nanos)) {
            add(bucket, 1);
        }
        add(&self.nanos, nanos);
        add(&self.bytes_in, bytes_in);
        add(&self.bytes_out, bytes_out);
    }

    /// Adds what another counted.
    pub(super) fn join(&self, other: &Self) {
        for (mine, theirs) in self.cells().zip(other.cells()) {
            add(mine, theirs.load(Ordering::Relaxed));
        }
    }

    fn cells(&self) -> impl Iterator<Item = &AtomicU64> {
        self.buckets.iter().chain(&self.native).chain([&self.nanos, &self.bytes_in, &self.bytes_out])
    }
}

/// What parts of a series amount to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(super) buckets: [u64; BUCKETS],
    pub(super) native: Native,
    pub(crate) nanos: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

impl Totals {
    pub(super) fn add(&mut self, part: &Exchange) {
        let Self { buckets, native, nanos, bytes_in, bytes_out } = self;
        for (total, cell) in
            buckets.iter_mut().chain(&mut native.0).chain([nanos, bytes_in, bytes_out]).zip(part.cells())
        {
            *total = total.wrapping_add(cell.load(Ordering::Relaxed));
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_whose_bound_it_does_not_pass() {
        let cases = [
            (Duration::ZERO, 0),
            (Duration::from_micros(250), 0),
            (Duration::from_nanos(250_001), 1),
            (Duration::from_millis(5), 4),
            (Duration::from_secs(10), 17),
            (Duration::from_nanos(10_000_000_001), 18),
            (Duration::MAX, 18),
        ];
        for (time, bucket) in cases {
            let part = Exchange::default();
            part.record(time, 3, 5);
            part.join(&part);
            let mut totals = Totals::default();
            totals.add(&part);
            assert_eq!(totals.buckets.iter().position(|count| *count == 2), Some(bucket), "{time:?}");
            assert_eq!((totals.count(), totals.bytes_in, totals.bytes_out), (2, 6, 10));
        }
    }

    #[test]
    fn bounds_grow() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
    }
}
