//! How many of a backend's requests may be retries: a share of what it gets, and a few in any case (GEP-3388).
//!
//! Counted over a sliding window, by all workers. Requests are counted per stripe, so that workers do not write the same
//! cache line; retries, which are rare, in one place.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::load::Nanos;

/// Parts of a window. What is older than the window is forgotten a tenth at a time.
const SLOTS: usize = 10;

/// Places in which requests are counted. Workers beyond share them, and may then lose a count now and then.
const STRIPES: usize = 8;

/// Share of requests that may be retries when nothing is written. Unit: percent.
pub const DEFAULT_PERCENT: u32 = 20;

/// Time over which the share is taken when nothing is written.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);

/// Retries that are allowed however few requests there are, per [`DEFAULT_MIN_INTERVAL`].
pub const DEFAULT_MIN_RETRIES: u32 = 3;

/// See [`DEFAULT_MIN_RETRIES`].
pub const DEFAULT_MIN_INTERVAL: Duration = Duration::from_secs(1);

/// What may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BudgetLimits {
    /// Retries per hundred requests.
    pub percent: u32,
    /// The window.
    pub interval: Duration,
    /// Retries that are allowed in any case …
    pub min_retries: u32,
    /// … within this time.
    pub min_interval: Duration,
}

impl Default for BudgetLimits {
    fn default() -> Self {
        Self {
            percent: DEFAULT_PERCENT,
            interval: DEFAULT_INTERVAL,
            min_retries: DEFAULT_MIN_RETRIES,
            min_interval: DEFAULT_MIN_INTERVAL,
        }
    }
}

/// The retries of one backend, shared by all workers. Outlives changes of the plan.
#[derive(Debug)]
pub struct RetryBudget {
    limits: BudgetLimits,
    /// Made at the first request: most backends of a large configuration get none.
    requests: OnceLock<Box<[Stripe; STRIPES]>>,
    retries: Window,
    /// The same over the time of the minimum.
    recent: Window,
}

#[derive(Debug)]
#[repr(align(128))]
struct Stripe(Window);

impl RetryBudget {
    /// Nothing was requested yet.
    pub fn new(limits: BudgetLimits) -> Self {
        let (retries, recent) = (Window::new(limits.interval), Window::new(limits.min_interval));
        Self { limits, requests: OnceLock::new(), retries, recent }
    }

    /// What may be spent.
    pub fn limits(&self) -> BudgetLimits {
        self.limits
    }

    /// Counts a request, not its retries. `stripe` is the worker's number.
    #[inline]
    pub fn count(&self, stripe: usize, now: Nanos) {
        let stripes = self
            .requests
            .get_or_init(|| Box::new(std::array::from_fn(|_| Stripe(Window::new(self.limits.interval)))));
        if let Some(stripe) = stripes.get(stripe % STRIPES) {
            stripe.0.count(now);
        }
    }

    /// Takes a retry; false when there is none left.
    pub fn spend(&self, now: Nanos) -> bool {
        // Counted first and given back if it was too much: two workers at once cannot both take the last one.
        self.retries.count(now);
        self.recent.count(now);
        let share = self.requests(now).saturating_mul(u64::from(self.limits.percent)) / 100;
        if self.retries.sum(now) <= share || self.recent.sum(now) <= u64::from(self.limits.min_retries) {
            return true;
        }
        self.retries.uncount(now);
        self.recent.uncount(now);
        false
    }

    /// Requests within the window.
    pub fn requests(&self, now: Nanos) -> u64 {
        self.requests.get().map_or(0, |stripes| stripes.iter().map(|stripe| stripe.0.sum(now)).sum())
    }

    /// Retries within the window.
    pub fn retries(&self, now: Nanos) -> u64 {
        self.retries.sum(now)
    }
}

/// Counts of a sliding window. Each slot is the number of its tick in the upper half and the count in the lower.
#[derive(Debug)]
struct Window {
    slots: [AtomicU64; SLOTS],
    tick_ns: u64,
}

impl Window {
    fn new(length: Duration) -> Self {
        let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self { slots: Default::default(), tick_ns: (length / SLOTS as u64).max(1) }
    }

    fn tick(&self, now: Nanos) -> u64 {
        // From 1 on: 0 is a slot that was never used. 2³² ticks of a window of 10 ms are 49 days; then they repeat.
        (now.0 / self.tick_ns + 1) & TICK_MASK
    }

    fn slot(&self, tick: u64) -> Option<&AtomicU64> {
        self.slots.get((tick % SLOTS as u64) as usize)
    }

    #[inline]
    fn count(&self, now: Nanos) {
        let tick = self.tick(now);
        let Some(slot) = self.slot(tick) else { return };
        let seen = slot.load(Relaxed);
        if seen >> COUNT_BITS == tick {
            slot.fetch_add(1, Relaxed);
            return;
        }
        // Of several that find an old slot one empties it, the others count on top.
        if slot.compare_exchange(seen, tick << COUNT_BITS | 1, Relaxed, Relaxed).is_err() {
            slot.fetch_add(1, Relaxed);
        }
    }

    fn uncount(&self, now: Nanos) {
        let tick = self.tick(now);
        let Some(slot) = self.slot(tick) else { return };
        let _ = slot.fetch_update(Relaxed, Relaxed, |seen| {
            (seen >> COUNT_BITS == tick && seen & COUNT_MASK > 0).then(|| seen - 1)
        });
    }

    fn sum(&self, now: Nanos) -> u64 {
        let tick = self.tick(now);
        let counts = self.slots.iter().map(|slot| slot.load(Relaxed));
        // Another worker's clock reading may be a little ahead of ours.
        let is_recent =
            |of: u64| of != 0 && (tick.wrapping_sub(of) & TICK_MASK < SLOTS as u64 || of == tick + 1);
        counts.filter(|seen| is_recent(seen >> COUNT_BITS)).map(|seen| seen & COUNT_MASK).sum()
    }
}

const COUNT_BITS: u32 = 32;
const COUNT_MASK: u64 = u32::MAX as u64;
const TICK_MASK: u64 = u32::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_base::rng::Rng;

    fn at(ms: u64) -> Nanos {
        Nanos(ms * 1_000_000)
    }

    fn spend(budget: &RetryBudget, now: Nanos, wanted: u32) -> u32 {
        (0..wanted).filter(|_| budget.spend(now)).count() as u32
    }

    #[test]
    fn a_share_of_the_requests_and_a_few_in_any_case() {
        let budget = RetryBudget::new(BudgetLimits::default());
        assert_eq!(spend(&budget, at(0), 10), 3, "the minimum");
        for _ in 0..100 {
            budget.count(0, at(100));
        }
        assert_eq!(spend(&budget, at(100), 100), 17, "20 of 100, 3 were spent");
        // The minimum counts on its own: a second later there are three again.
        assert_eq!(spend(&budget, at(1_200), 100), 3);
        // The window has passed: neither requests nor retries count.
        assert_eq!((budget.requests(at(11_000)), budget.retries(at(12_000))), (0, 0));
        assert_eq!(spend(&budget, at(12_000), 10), 3);
    }

    #[test]
    fn nothing_is_allowed_where_nothing_is_written() {
        let limits = BudgetLimits { percent: 0, min_retries: 0, ..BudgetLimits::default() };
        let budget = RetryBudget::new(limits);
        (0..1000).for_each(|_| budget.count(1, at(5)));
        assert_eq!(spend(&budget, at(5), 10), 0);
    }

    #[test]
    fn workers_count_together() {
        let budget = RetryBudget::new(BudgetLimits { min_retries: 0, ..BudgetLimits::default() });
        let taken: u32 = std::thread::scope(|scope| {
            let worker = |stripe| {
                let budget = &budget;
                scope.spawn(move || {
                    (0..10_000).for_each(|_| budget.count(stripe, at(1)));
                    spend(budget, at(1), 20_000)
                })
            };
            let workers: Vec<_> = (0..4).map(worker).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        let last = spend(&budget, at(1), 20_000);
        assert_eq!((budget.requests(at(1)), taken + last), (40_000, 8_000));
    }

    /// Whatever comes in whatever order, in no window are there more retries than the share of its requests, but for
    /// the minimum; and what was not allowed was over it.
    #[test]
    fn no_history_passes_the_budget() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let limits = BudgetLimits {
                percent: rng.below(101),
                interval: Duration::from_millis(u64::from(rng.below(5_000)) + 100),
                min_retries: rng.below(5),
                min_interval: Duration::from_millis(u64::from(rng.below(2_000)) + 100),
            };
            let budget = RetryBudget::new(limits);
            let (mut now, mut requests, mut retries) = (0u64, Vec::new(), Vec::new());
            for _ in 0..2_000 {
                now += u64::from(rng.below(20));
                if rng.below(3) > 0 {
                    budget.count(rng.below(20) as usize, at(now));
                    requests.push(now);
                    continue;
                }
                // Slots forget a tenth of the window at a time: what is younger than nine tenths always counts, what is
                // older than the window never.
                let length = limits.interval.as_millis() as u64;
                let min_length = limits.min_interval.as_millis() as u64;
                let within =
                    |times: &[u64], age: u64| times.iter().filter(|at| **at + age > now).count() as u64;
                let most = within(&requests, length) * u64::from(limits.percent) / 100;
                let least = within(&requests, length * 9 / 10) * u64::from(limits.percent) / 100;
                let allowed = budget.spend(at(now));
                if allowed {
                    let fits = within(&retries, length * 9 / 10) < most
                        || within(&retries, min_length * 9 / 10) < u64::from(limits.min_retries);
                    assert!(fits, "seed {seed}: a retry too many at {now} ms");
                    retries.push(now);
                } else {
                    let spent = within(&retries, length + 1) >= least
                        && within(&retries, min_length + 1) >= u64::from(limits.min_retries);
                    assert!(spent, "seed {seed}: a retry was refused at {now} ms");
                }
            }
        }
    }
}
