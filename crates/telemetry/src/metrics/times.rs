//! Histograms of durations that somebody else keeps, by √2: told in full where native histograms are understood, and with few
//! buckets where they are not.

use std::fmt;

use super::Metric;
use super::registry::{Registry, lock, write_labels};
use crate::signals::Buckets;

/// What one series has.
#[derive(Clone, Copy, Debug)]
pub struct Times<'a> {
    /// How many took how long.
    pub buckets: &'a Buckets,
    /// Together. Unit: nanoseconds.
    pub nanos: u64,
}

/// What is called for each series: label values, then what it has.
pub type EmitTimes<'e> = dyn FnMut(&[&str], Times<'_>) + 'e;

/// Whoever keeps a histogram.
pub(super) struct Timers(Box<dyn Fn(&mut EmitTimes<'_>) + Send + Sync>);

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Timers")
    }
}

/// Where classic buckets end: the place among [`Buckets`] whose bound it is exactly, and the bound in seconds, a power of two.
pub(super) const COARSE: [(usize, f64, &str); 11] = [
    (6, 0.000_976_562_5, "le=\"0.0009765625\""),
    (10, 0.003_906_25, "le=\"0.00390625\""),
    (12, 0.007_812_5, "le=\"0.0078125\""),
    (14, 0.015_625, "le=\"0.015625\""),
    (16, 0.031_25, "le=\"0.03125\""),
    (18, 0.062_5, "le=\"0.0625\""),
    (20, 0.125, "le=\"0.125\""),
    (22, 0.25, "le=\"0.25\""),
    (24, 0.5, "le=\"0.5\""),
    (26, 1.0, "le=\"1\""),
    (30, 4.0, "le=\"4\""),
];

/// How many are in each classic bucket; the last has no bound.
pub(super) fn coarse(buckets: &Buckets) -> [u64; COARSE.len() + 1] {
    let mut counts = [0; COARSE.len() + 1];
    for (at, count) in buckets.0.iter().enumerate() {
        let place = COARSE.iter().position(|(last, ..)| at <= *last).unwrap_or(COARSE.len());
        if let Some(sum) = counts.get_mut(place) {
            *sum += count;
        }
    }
    counts
}

impl Registry {
    /// Asks at each scrape for the series of a histogram, at most as many as the limit of series allows. What is asked must not
    /// use the registry.
    pub fn collect_times(&self, metric: Metric, timers: impl Fn(&mut EmitTimes<'_>) + Send + Sync + 'static) {
        lock(&self.timers).push((metric, Timers(Box::new(timers))));
    }

    /// Visits every series of such a histogram, with the text of its labels.
    pub(super) fn visit_times(&self, metric: Metric, visit: &mut dyn FnMut(&str, Times<'_>)) {
        let mut left = self.limit();
        let mut text = String::new();
        for (_, timers) in lock(&self.timers).iter().filter(|(other, _)| *other == metric) {
            (timers.0)(&mut |labels, times| {
                if let Some(less) = left.checked_sub(1) {
                    left = less;
                    text.clear();
                    write_labels(&mut text, metric, labels);
                    visit(&text, times);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::{BUCKETS, bound_nanos};

    #[test]
    fn classic_bounds_are_bounds_of_the_fine_buckets() {
        for (at, seconds, label) in COARSE {
            let nanos = bound_nanos(at).unwrap();
            assert!((nanos as f64 / 1e9 / seconds - 1.0).abs() < 1e-4, "{label}");
            assert_eq!(label, format!("le=\"{seconds}\""));
        }
        let mut buckets = Buckets([1; BUCKETS]);
        buckets.0[39] = 5;
        let counts = coarse(&buckets);
        assert_eq!(counts.iter().sum::<u64>(), buckets.count());
        assert_eq!((counts[0], counts[1], counts[11]), (7, 4, 13));
    }
}
