//! Drawing an index in proportion to its weight, in constant time (Walker's alias method, built as by Vose 1991).

use rhumb_base::rng::Rng;

/// Draws indices below a length.
#[derive(Debug)]
pub(crate) enum Sampler {
    /// All alike.
    Even(u32),
    /// For each index: below this, in 2⁻³² parts, it is taken itself, else the other one.
    Weighted(Box<[(u32, u32)]>),
}

impl Sampler {
    /// A sampler for weights of which one at least is not zero, if there are any.
    pub(crate) fn new(weights: &[u32]) -> Self {
        let len = u32::try_from(weights.len()).unwrap_or(u32::MAX);
        if weights.windows(2).all(|pair| pair.first() == pair.last()) {
            return Self::Even(len);
        }
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        // In units of the mean weight: each index has room for one.
        let mut shares: Vec<f64> =
            weights.iter().map(|&weight| f64::from(weight) * f64::from(len) / total as f64).collect();
        let mut table = vec![(u32::MAX, 0); weights.len()];
        let (mut poor, mut rich): (Vec<u32>, Vec<u32>) =
            (0..len).partition(|&i| shares.get(i as usize).is_some_and(|&share| share < 1.0));
        while let (Some(small), Some(&large)) = (poor.pop(), rich.last()) {
            let share = shares.get(small as usize).copied().unwrap_or_default();
            if let Some(entry) = table.get_mut(small as usize) {
                *entry = ((share * 4_294_967_296.0) as u32, large);
            }
            if let Some(left) = shares.get_mut(large as usize) {
                *left -= 1.0 - share;
                if *left < 1.0 {
                    rich.pop();
                    poor.push(large);
                }
            }
        }
        // What is left is full but for rounding, and is its own alias.
        for (i, (_, alias)) in (0..len).zip(&mut table).filter(|(_, (threshold, _))| *threshold == u32::MAX) {
            *alias = i;
        }
        Self::Weighted(table.into())
    }

    /// An index; 0 when there is none.
    #[inline]
    pub(crate) fn draw(&self, rng: &mut Rng) -> u32 {
        match self {
            Self::Even(len) => rng.below(*len),
            Self::Weighted(table) => {
                let bits = rng.next_u64();
                let len = u32::try_from(table.len()).unwrap_or(u32::MAX);
                let index = (((bits >> 32) * u64::from(len)) >> 32) as u32;
                match table.get(index as usize) {
                    Some(&(threshold, other)) if bits as u32 >= threshold => other,
                    _ => index,
                }
            }
        }
    }

    /// Two indices, different unless there is only one with weight.
    #[inline]
    pub(crate) fn draw_two(&self, rng: &mut Rng) -> (u32, u32) {
        match self {
            Self::Even(len) => {
                let bits = rng.next_u64();
                let first = (((bits >> 32) * u64::from(*len)) >> 32) as u32;
                let second = (((bits & 0xffff_ffff) * u64::from(len.saturating_sub(1))) >> 32) as u32;
                (first, if second >= first && *len > 1 { second + 1 } else { second })
            }
            Self::Weighted(_) => {
                let first = self.draw(rng);
                for _ in 0..SECOND_TRIES {
                    let second = self.draw(rng);
                    if second != first {
                        return (first, second);
                    }
                }
                (first, first)
            }
        }
    }
}

/// Draws for the second of two, when one endpoint has nearly all of the weight.
const SECOND_TRIES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_in_proportion_to_weights() {
        for weights in [
            &[1, 1, 1][..],
            &[1, 2, 3, 4],
            &[0, 5, 0, 1],
            &[1, 1_000_000],
            &[7],
            &[4_000_000_000, 3_000_000_000],
        ] {
            let sampler = Sampler::new(weights);
            let mut rng = Rng::new(3);
            let mut counts = vec![0u32; weights.len()];
            for _ in 0..200_000 {
                counts[sampler.draw(&mut rng) as usize] += 1;
            }
            let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            for (&count, &weight) in counts.iter().zip(weights) {
                let expected = f64::from(weight) / total * 200_000.0;
                let spread = 5.0 * expected.sqrt() + 1.0;
                assert!((f64::from(count) - expected).abs() < spread, "{weights:?} {counts:?}");
            }
        }
    }

    #[test]
    fn two_draws_differ_and_are_even() {
        let mut rng = Rng::new(5);
        for len in [2u32, 3, 10] {
            let sampler = Sampler::new(&vec![9; len as usize]);
            let mut counts = vec![0u32; (len * len) as usize];
            for _ in 0..100_000 {
                let (a, b) = sampler.draw_two(&mut rng);
                assert!(a != b && a < len && b < len);
                counts[(a * len + b) as usize] += 1;
            }
            let expected = 100_000 / (len * (len - 1));
            assert!(counts.iter().all(|&n| n == 0 || n > expected * 8 / 10 && n < expected * 12 / 10));
        }
        assert_eq!(Sampler::new(&[1]).draw_two(&mut rng), (0, 0));
        let (a, b) = Sampler::new(&[1, 0]).draw_two(&mut rng);
        assert_eq!((a, b), (0, 0));
    }
}
