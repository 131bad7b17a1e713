//! Peak EWMA: how long an endpoint takes, with quick reaction to what gets worse and slow trust in what gets better.
//!
//! A sample above the value replaces it. Otherwise the value moves towards the sample by the time since the last one, and
//! falls towards zero while nothing is known, so that an endpoint that was slow is asked again some day (Finagle's
//! `peak_ewma`). The exponential is a shift by whole half-lives and a cubic between them, wrong by less than 0.2 %.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Nanoseconds since a point that all workers of the process share. Never falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

impl Nanos {
    /// `now`, counted from `start`.
    #[inline]
    pub fn since(start: Instant, now: Instant) -> Self {
        Self(duration_ns(now.saturating_duration_since(start)))
    }
}

/// After this time without a sample a value has fallen to half.
pub const HALF_LIFE: Duration = Duration::from_nanos(HALF_LIFE_TICKS << TICK_BITS);

/// A latency that changes by time and samples. Written by all workers without a lock.
#[derive(Debug, Default)]
pub struct PeakEwma {
    /// The value in nanoseconds (upper 40 bits; 0 when unknown) and the tick of the last sample (lower 24 bits): one
    /// word, so a reader never sees a value with another one's time.
    word: AtomicU64,
}

/// A tick is 2²⁴ ns, about 17 ms; 24 bits of ticks are 78 hours. After a longer silence the value may seem younger than
/// it is, and is forgotten a little later.
const TICK_BITS: u32 = 24;
const TICKS: u64 = (1 << 24) - 1;
const HALF_LIFE_TICKS: u64 = 417;
const LONGEST_NS: u64 = (1 << 40) - 1;

impl PeakEwma {
    /// A value that was not measured, taken from others.
    pub fn starting_at(latency: Option<u64>, now: Nanos) -> Self {
        let value = latency.map_or(0, |ns| ns.clamp(1, LONGEST_NS));
        Self { word: AtomicU64::new(value << TICK_BITS | tick(now)) }
    }

    /// The value in nanoseconds, at least 1; `None` when nothing is known.
    #[inline]
    pub fn latency_ns(&self, now: Nanos) -> Option<u64> {
        let word = self.word.load(Relaxed);
        let value = word >> TICK_BITS;
        (value != 0).then(|| decayed(value, age(word, now)).max(1))
    }

    /// Forgets what was for one sample.
    pub fn restart(&self, latency: Duration, now: Nanos) {
        let value = duration_ns(latency).clamp(1, LONGEST_NS);
        self.word.store(value << TICK_BITS | tick(now), Relaxed);
    }

    /// Takes a sample into account.
    #[inline]
    pub fn observe(&self, latency: Duration, now: Nanos) {
        self.update(now, |_| duration_ns(latency));
    }

    /// Takes a failure into account: at least `factor` times the value, which at least is `floor`, and at most `cap`
    /// unless it took longer. Repeated failures add up.
    pub fn penalise(&self, latency: Duration, factor: u64, floor: Duration, cap: Duration, now: Nanos) {
        self.update(now, |value| {
            let raised = value.max(duration_ns(floor)).saturating_mul(factor).min(duration_ns(cap));
            raised.max(duration_ns(latency))
        });
    }

    #[inline]
    fn update(&self, now: Nanos, sample: impl Fn(u64) -> u64) {
        let next = |word: u64| {
            let (value, age) = (word >> TICK_BITS, age(word, now));
            let faded = decayed(value, age);
            let sample = sample(faded).clamp(1, LONGEST_NS);
            let value = if sample >= faded { sample } else { faded + (sample - decayed(sample, age)) };
            Some(value.min(LONGEST_NS) << TICK_BITS | tick(now))
        };
        // The closure always returns something.
        let _ = self.word.fetch_update(Relaxed, Relaxed, next);
    }
}

#[inline]
fn tick(now: Nanos) -> u64 {
    now.0 >> TICK_BITS & TICKS
}

#[inline]
fn age(word: u64, now: Nanos) -> u64 {
    let age = tick(now).wrapping_sub(word & TICKS) & TICKS;
    // Another worker's sample may be a little ahead of this one's clock.
    if age > TICKS / 2 { 0 } else { age }
}

/// `value` times 2 to the power of minus `age` in half-lives.
#[inline]
fn decayed(value: u64, age: u64) -> u64 {
    if age == 0 {
        return value;
    }
    let halves = age / HALF_LIFE_TICKS;
    let rest = age % HALF_LIFE_TICKS;
    let value = value.checked_shr(u32::try_from(halves).unwrap_or(u32::MAX)).unwrap_or(0);
    let x = rest as f64 / HALF_LIFE_TICKS as f64;
    // Taylor to the second order, so that many short steps add up to the same as a long one; the third makes 1 a half.
    let part = 1.0 - x * (std::f64::consts::LN_2 - x * (0.240_227 - x * 0.047_08));
    (value as f64 * part) as u64
}

#[inline]
pub(crate) fn duration_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Nanos {
        Nanos(ms * MS)
    }

    fn observe(ewma: &PeakEwma, ms: u64, now_ms: u64) {
        ewma.observe(Duration::from_millis(ms), at(now_ms));
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let ewma = PeakEwma::default();
        assert_eq!(ewma.latency_ns(at(5)), None);
        observe(&ewma, 10, 1000);
        assert_eq!(ewma.latency_ns(at(1000)), Some(10 * MS));
        observe(&ewma, 100, 1000);
        assert_eq!(ewma.latency_ns(at(1000)), Some(100 * MS));
        let half = ewma.latency_ns(Nanos(1000 * MS + duration_ns(HALF_LIFE))).unwrap();
        assert!((49 * MS..51 * MS).contains(&half), "{half}");
        assert_eq!(ewma.latency_ns(at(1000 + 600_000)), Some(1));
    }

    #[test]
    fn many_samples_lead_to_their_value() {
        let ewma = PeakEwma::default();
        observe(&ewma, 100, 0);
        // Faster than the tick: what is left out must not pull the value to zero.
        for i in 0..60_000 {
            ewma.observe(Duration::from_micros(500), at(i));
        }
        let value = ewma.latency_ns(at(60_000)).unwrap();
        assert!((450_000..800_000).contains(&value), "{value}");
    }

    #[test]
    fn failures_add_up_to_a_bound() {
        let ewma = PeakEwma::default();
        let fail = |now| {
            ewma.penalise(Duration::ZERO, 10, Duration::from_millis(1), Duration::from_secs(10), at(now));
            ewma.latency_ns(at(now)).unwrap() / MS
        };
        assert_eq!([fail(0), fail(0), fail(0), fail(0), fail(0)], [10, 100, 1000, 10_000, 10_000]);
    }

    #[test]
    fn a_clock_behind_another_workers_changes_nothing() {
        let ewma = PeakEwma::default();
        observe(&ewma, 10, 100_000);
        assert_eq!(ewma.latency_ns(at(99_000)), Some(10 * MS));
    }

    #[test]
    fn decay_is_exponential() {
        for age in 0..3000 {
            let exact = 1e12 * (-(age as f64) / HALF_LIFE_TICKS as f64).exp2();
            let near = decayed(1_000_000_000_000, age) as f64;
            assert!((near - exact).abs() < exact * 0.002 + 1.0, "{age}: {near} {exact}");
        }
    }
}
