//! Maglev hashing (Eisenbud et al. 2016, §3.4): a lookup is one memory access, keys are spread within 1 % as long as
//! there are at most [`TABLE_LEN`] / 100 endpoints, and few keys move when an endpoint comes or goes.

use crate::hash::mix;

/// Entries of a table. Prime: each step width visits every entry.
pub(crate) const TABLE_LEN: u64 = 65_537;

/// For each entry the index of its owner; empty when no endpoint has weight.
#[derive(Debug)]
pub(crate) struct Maglev(Box<[u32]>);

struct Turn {
    index: u32,
    weight: f64,
    /// Grows by the largest weight with each turn taken: who is behind its weight is next.
    due: f64,
    place: u64,
    step: u64,
}

impl Maglev {
    /// The table of endpoints with these identities and weights.
    pub(crate) fn new(identities: &[u64], weights: &[u32]) -> Self {
        let largest = f64::from(weights.iter().copied().max().unwrap_or(0));
        let mut turns: Vec<(u64, Turn)> = identities
            .iter()
            .zip(weights)
            .zip(0u32..)
            .filter(|((_, weight), _)| **weight > 0)
            .map(|((&identity, &weight), index)| {
                let place = mix(identity ^ 1) % TABLE_LEN;
                let step = mix(identity ^ 2) % (TABLE_LEN - 1) + 1;
                (identity, Turn { index, weight: f64::from(weight), due: 0.0, place, step })
            })
            .collect();
        if turns.is_empty() {
            return Self(Box::default());
        }
        // The order of turns must not depend on the order in the set.
        turns.sort_unstable_by_key(|(identity, turn)| (*identity, turn.index));
        let mut table = vec![FREE; TABLE_LEN as usize];
        let mut left = table.len();
        let mut round = 0.0;
        while left > 0 {
            round += 1.0;
            for (_, turn) in &mut turns {
                if round * turn.weight < turn.due {
                    continue;
                }
                turn.due += largest;
                // Ends: the steps visit every entry and one at least is free.
                loop {
                    let entry = table.get_mut(turn.place as usize);
                    turn.place = (turn.place + turn.step) % TABLE_LEN;
                    if let Some(entry) = entry
                        && *entry == FREE
                    {
                        *entry = turn.index;
                        break;
                    }
                }
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        Self(table.into())
    }

    /// The owner of a key; `None` in an empty table.
    #[inline]
    pub(crate) fn owner(&self, key: u64) -> Option<u32> {
        self.0.get((key % TABLE_LEN) as usize).copied()
    }
}

const FREE: u32 = u32::MAX;
