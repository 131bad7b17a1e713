//! Histograms whose bounds grow by the square root of two: quantiles are right to a few per cent over six decades.

/// Buckets: the first ends at 2⁻¹³ s, each further one at √2 times that; the last has no bound.
pub const BUCKETS: usize = 40;

/// 2⁻¹³ s, 122 µs. Unit: nanoseconds, rounded up.
const FIRST_NANOS: u64 = 122_071;

/// Exponent of the first bound, in halves: 2^(−26/2) s.
const FIRST_HALVES: i32 = -26;

/// How many exchanges took how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets(pub [u64; BUCKETS]);

impl Default for Buckets {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Buckets {
    /// All of them.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = mine.wrapping_add(theirs);
        }
    }

    /// What has come since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut left = *self;
        for (mine, theirs) in left.0.iter_mut().zip(before.0) {
            *mine = mine.saturating_sub(theirs);
        }
        left
    }

    /// The time below which this share of exchanges stayed, 0 to 1; nothing when there were none. **Unit**: seconds.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        #[allow(clippy::cast_precision_loss)] // a share of more than 2^53 exchanges may be a little off
        let rank = share.clamp(0.0, 1.0) * count as f64;
        let mut below = 0.0;
        for (at, &in_bucket) in self.0.iter().enumerate() {
            #[allow(clippy::cast_precision_loss)]
            let in_bucket = in_bucket as f64;
            if in_bucket > 0.0 && below + in_bucket >= rank {
                let upper = bound_seconds(at.min(BUCKETS - 2));
                if at == BUCKETS - 1 {
                    return Some(upper);
                }
                let lower = if at == 0 { 0.0 } else { bound_seconds(at - 1) };
                return Some(lower + (upper - lower) * ((rank - below) / in_bucket).clamp(0.0, 1.0));
            }
            below += in_bucket;
        }
        None
    }
}

/// The bucket of a time.
#[inline]
pub(crate) fn bucket_of(nanos: u64) -> usize {
    // There are at most two bounds between a number and twice as much.
    let length = (u64::BITS - nanos.leading_zeros()) as usize;
    let mut at = usize::from(FIRST_BY_LENGTH[length]);
    while at < BOUNDS.len() && nanos > BOUNDS[at] {
        at += 1;
    }
    at
}

/// The upper bounds of all buckets but the last. Unit: nanoseconds.
const BOUNDS: [u64; BUCKETS - 1] = {
    let mut bounds = [0; BUCKETS - 1];
    let mut at = 0;
    while at < bounds.len() {
        let whole = FIRST_NANOS << (at / 2);
        #[allow(clippy::cast_possible_truncation)] // √2 times less than a minute
        let by_half = ((whole as u128 * SQRT_2_32 as u128) >> 32) as u64;
        bounds[at] = if at % 2 == 0 { whole } else { by_half };
        at += 1;
    }
    bounds
};

/// The first bucket that a number of so many bits may be in.
const FIRST_BY_LENGTH: [u8; 65] = {
    let mut firsts = [0; 65];
    let mut length = 1;
    while length < firsts.len() {
        let mut at = 0;
        while at < BOUNDS.len() && BOUNDS[at] < 1 << (length - 1) {
            at += 1;
        }
        #[allow(clippy::cast_possible_truncation)] // there are 40 buckets
        {
            firsts[length] = at as u8;
        }
        length += 1;
    }
    firsts
};

/// √2 · 2³².
const SQRT_2_32: u64 = 6_074_000_999;

/// The upper bound of a bucket; the last one has none. **Unit**: nanoseconds.
pub fn bound_nanos(bucket: usize) -> Option<u64> {
    BOUNDS.get(bucket).copied()
}

/// The upper bound of a bucket. **Unit**: seconds.
pub(super) fn bound_seconds(bucket: usize) -> f64 {
    let halves = FIRST_HALVES + i32::try_from(bucket).unwrap_or(0);
    (f64::from(halves) / 2.0).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_bucket_between_its_bounds() {
        for at in 0..BUCKETS - 1 {
            let bound = bound_nanos(at).unwrap();
            assert!((bound as f64 / 1e9 / bound_seconds(at) - 1.0).abs() < 1e-4, "{at}");
            assert_eq!(bucket_of(bound), at, "a bound is inclusive");
            assert_eq!(bucket_of(bound - bound / 1000), at, "just below bound {at}");
            assert_eq!(bucket_of(bound + bound / 1000), at + 1, "just above bound {at}");
        }
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_near() {
        let mut buckets = Buckets::default();
        for millis in 1..=1000u64 {
            buckets.0[bucket_of(millis * 1_000_000)] += 1;
        }
        for (share, want) in [(0.5, 0.5), (0.95, 0.95), (0.99, 0.99)] {
            let got = buckets.quantile(share).unwrap();
            assert!((got / want - 1.0).abs() < 0.06, "{share}: {got}");
        }
        assert_eq!(Buckets::default().quantile(0.5), None);
    }
}
