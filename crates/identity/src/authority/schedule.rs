//! What is due at a time: the only place that decides when roots and intermediates come and go. No keys, no files.

use super::state::{Intermediate, Root, State};
use crate::lifetimes::Lifetimes;

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    /// A root is to be made that signs at once: there is none that can.
    First,
    /// A root is to be made and put into the bundle.
    Announce,
    /// The announced root is to sign from now on.
    Activate,
    /// An intermediate is to be made under the active root.
    Intermediate,
    /// This root is to leave the bundle.
    Remove(String),
    /// Nothing, until this time. Unit: seconds since 1970.
    Nothing(u64),
}

/// What is due at `now`. Asked again after it was done, until nothing is.
pub(super) fn due(state: &State, lifetimes: &Lifetimes, now: u64) -> Due {
    let leaf = lifetimes.leaf.as_secs();
    let skew = lifetimes.skew();
    let Some(active) = state.active().filter(|root| root.not_after > now) else {
        // The announced one signs before its time: whoever does not know it yet has nothing that is valid either.
        return if state.announced().is_some_and(|root| root.not_after > now) {
            Due::Activate
        } else {
            Due::First
        };
    };
    let mut next = u64::MAX;
    for root in &state.roots {
        let Some(retired) = root.retired else { continue };
        let leaves =
            retired.saturating_add(root.longest_leaf).saturating_add(2 * skew).min(root.not_after + skew);
        if now >= leaves {
            return Due::Remove(root.id.clone());
        }
        next = next.min(leaves);
    }
    match state.announced() {
        None => {
            let half = half_life(active.not_before, active.not_after);
            if now >= half {
                return Due::Announce;
            }
            next = next.min(half);
        }
        Some(announced) => {
            let known =
                announced.published.saturating_add(longest_leaf(state, leaf)).saturating_add(2 * skew);
            if now >= known {
                return Due::Activate;
            }
            next = next.min(known);
        }
    }
    match &state.intermediate {
        Some(intermediate) if intermediate.root == active.id => {
            let replaced = replaced_at(intermediate, active, leaf);
            if now >= replaced {
                return Due::Intermediate;
            }
            next = next.min(replaced);
        }
        _ => return Due::Intermediate,
    }
    Due::Nothing(next)
}

/// Half of its life, and earlier where less than two leaves' lives would be left. Where the root itself has no more, waiting
/// helps nobody and neither does a new one.
fn replaced_at(intermediate: &Intermediate, active: &Root, leaf: u64) -> u64 {
    if intermediate.not_after >= active.not_after {
        return u64::MAX;
    }
    half_life(intermediate.not_before, intermediate.not_after)
        .min(intermediate.not_after.saturating_sub(2 * leaf))
}

/// Members that were given an SVID before the setting was lowered live on as long as they were told.
fn longest_leaf(state: &State, leaf: u64) -> u64 {
    state.roots.iter().map(|root| root.longest_leaf).fold(leaf, u64::max)
}

pub(super) fn half_life(not_before: u64, not_after: u64) -> u64 {
    not_before + not_after.saturating_sub(not_before) / 2
}
