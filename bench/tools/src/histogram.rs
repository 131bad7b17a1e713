//! Latencies in log-linear buckets, as HDR histograms do it: constant memory, a bounded relative error.

/// Counts values in buckets whose width is 1/128 of their octave, so that a quantile is within 0.8 %.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; index(u64::MAX) + 1], total: 0, max: 0 }
    }
}

impl Histogram {
    /// Adds one value.
    pub fn record(&mut self, value: u64) {
        self.counts[index(value)] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// How many values were added.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The largest value, exactly.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The smallest value that `part` (0 to 1) of all values do not exceed; 0 when there is none.
    pub fn quantile(&self, part: f64) -> u64 {
        let rank = ((self.total as f64 * part).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (i, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle(i).min(self.max);
            }
        }
        0
    }
}

fn index(value: u64) -> usize {
    let octave = 63 - (value | SUB_BUCKETS).leading_zeros();
    let shift = octave - SUB_BITS;
    ((u64::from(shift) << SUB_BITS) + (value >> shift)) as usize
}

fn middle(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index >> SUB_BITS).saturating_sub(1);
    let low = (index - (shift << SUB_BITS)) << shift;
    low + (1 << shift) / 2
}

/// Bits of precision inside an octave.
const SUB_BITS: u32 = 7;
const SUB_BUCKETS: u64 = 1 << SUB_BITS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_hold_their_middle() {
        let mut last = 0;
        for value in (0..100_000u64).chain([1 << 20, 1 << 40, u64::MAX / 2, u64::MAX]) {
            let i = index(value);
            assert!(value >= 100_000 || i == last || i == last + 1, "{value}");
            assert_eq!(index(middle(i)), i, "{value}");
            last = i;
        }
    }

    #[test]
    fn quantiles_are_within_one_percent() {
        let mut h = Histogram::default();
        (1..=100_000).for_each(|v| h.record(v));
        for (part, exact) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0), (1.0, 100_000.0)] {
            let error = (h.quantile(part) as f64 - exact).abs() / exact;
            assert!(error < 0.01, "{part}: {error}");
        }
        assert_eq!(h.max(), 100_000);
    }

    #[test]
    fn an_empty_histogram_has_no_latency() {
        assert_eq!(Histogram::default().quantile(0.99), 0);
    }
}
