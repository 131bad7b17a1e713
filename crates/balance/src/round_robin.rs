//! Round robin by a fixed schedule in which each endpoint comes as often as its weight says, spread evenly.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Longest schedule for weights; sets with more endpoints have one entry for each.
pub(crate) const SCHEDULE_LIMIT: usize = 8192;

/// The schedule and the place where the next request finds it, shared by all workers.
#[derive(Debug)]
pub(crate) struct Schedule {
    order: Box<[u32]>,
    next: AtomicUsize,
}

impl Schedule {
    /// A schedule that begins at `start`: sets that change often would otherwise favour their first endpoints.
    pub(crate) fn new(weights: &[u32], start: usize) -> Self {
        Self { order: spread(&shares(weights, SCHEDULE_LIMIT)), next: AtomicUsize::new(start) }
    }

    /// Where the schedule stands.
    pub(crate) fn place(&self) -> usize {
        self.next.load(Relaxed)
    }

    /// The next index that `accepts`; `None` when none in the whole schedule is.
    #[inline]
    pub(crate) fn pick(&self, accepts: impl Fn(u32) -> bool) -> Option<u32> {
        for _ in 0..self.order.len() {
            let at = self.next.fetch_add(1, Relaxed) % self.order.len();
            let index = self.order.get(at).copied()?;
            if accepts(index) {
                return Some(index);
            }
        }
        None
    }
}

/// The smallest whole numbers in proportion to `weights`, scaled down when their sum is above `limit`. What has weight
/// has at least 1.
pub(crate) fn shares(weights: &[u32], limit: usize) -> Vec<u32> {
    let divisor = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
    let total: u64 = weights.iter().map(|&weight| u64::from(weight / divisor)).sum();
    let limit = limit as u64;
    weights
        .iter()
        .map(|&weight| match u64::from(weight / divisor) {
            0 => 0,
            share if total <= limit => u32::try_from(share).unwrap_or(u32::MAX),
            share => u32::try_from(u128::from(share) * u128::from(limit) / u128::from(total))
                .unwrap_or(u32::MAX)
                .max(1),
        })
        .collect()
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Index i comes `shares[i]` times, its k-th time as near as possible to `(k + ½) / shares[i]` of the way.
fn spread(shares: &[u32]) -> Box<[u32]> {
    let mut places: Vec<(f64, u32)> = shares
        .iter()
        .zip(0u32..)
        .flat_map(|(&share, index)| (0..share).map(move |k| ((f64::from(k) + 0.5) / f64::from(share), index)))
        .collect();
    places.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    places.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_spread_evenly() {
        for (weights, expected) in [
            (&[1, 1, 1][..], &[0, 1, 2][..]),
            (&[10, 10], &[0, 1]),
            (&[2, 1], &[0, 1, 0]),
            (&[5, 1, 1], &[0, 0, 0, 1, 2, 0, 0]),
            (&[0, 3, 0], &[1]),
            (&[3, 0, 6], &[2, 0, 2]),
            (&[], &[]),
        ] {
            assert_eq!(*Schedule::new(weights, 0).order, *expected, "{weights:?}");
        }
    }

    #[test]
    fn a_schedule_is_bounded_and_forgets_nobody() {
        let weights: Vec<u32> = (0..100).map(|i| 1 + i * 1_000_003).collect();
        let order = Schedule::new(&weights, 0).order;
        assert!(order.len() <= SCHEDULE_LIMIT + 100, "{}", order.len());
        assert!((0..100).all(|i| order.contains(&i)));
    }

    #[test]
    fn what_is_not_accepted_is_passed_over() {
        let schedule = Schedule::new(&[1, 1, 1], 0);
        let picks: Vec<_> = (0..4).map(|_| schedule.pick(|i| i != 1)).collect();
        assert_eq!(picks, [Some(0), Some(2), Some(0), Some(2)]);
        assert_eq!(schedule.pick(|_| false), None);
    }
}
