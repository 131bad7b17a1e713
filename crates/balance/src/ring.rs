//! Ring hash: each endpoint owns points on a ring, a key belongs to the owner of the next point (Karger et al. 1997,
//! ketama). An endpoint that leaves gives away its keys and no others.

use crate::hash::mix;
use crate::round_robin::shares;

/// Points per unit of weight, after weights are divided by their greatest common divisor.
pub(crate) const POINTS_PER_WEIGHT: u32 = 160;

/// Most points on a ring; with more endpoints or weights each unit gets fewer, at least one per endpoint.
pub(crate) const RING_LIMIT: usize = 131_072;

/// Points in order, each with the index of its owner.
#[derive(Debug)]
pub(crate) struct Ring(Box<[(u32, u32)]>);

impl Ring {
    /// The ring of endpoints with these identities and weights.
    pub(crate) fn new(identities: &[u64], weights: &[u32]) -> Self {
        let unit = usize::try_from(POINTS_PER_WEIGHT).unwrap_or(1);
        let shares = shares(weights, RING_LIMIT / unit);
        let total: usize = shares.iter().map(|&share| share as usize).sum();
        let per_share = (RING_LIMIT / total.max(1)).clamp(1, unit);
        let mut points: Vec<(u32, u64, u32)> = identities
            .iter()
            .zip(&shares)
            .zip(0u32..)
            .flat_map(|((&identity, &share), index)| {
                // The first points of an endpoint are the same whatever its share is.
                let count = u64::from(share) * per_share as u64;
                (0..count).map(move |k| ((mix(identity.wrapping_add(mix(k))) >> 32) as u32, identity, index))
            })
            .collect();
        // Equal points: the identity decides, not the order in the set.
        points.sort_unstable();
        Self(points.into_iter().map(|(point, _, index)| (point, index)).collect())
    }

    /// The owner of a key; `None` on an empty ring.
    #[inline]
    pub(crate) fn owner(&self, key: u64) -> Option<u32> {
        let place = (key >> 32) as u32;
        let at = self.0.partition_point(|&(point, _)| point < place);
        self.0.get(at).or_else(|| self.0.first()).map(|&(_, index)| index)
    }
}
