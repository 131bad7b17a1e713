//! How long certificates live, and everything that follows from it.

use std::time::Duration;

/// How long certificates live. What follows from it keeps every handshake good while roots and intermediates change:
///
/// * A certificate is replaced at half of its life, whatever its kind.
/// * A new root is in the bundle of every member before it signs. A member has an SVID that is valid only if it was given one
///   within the last [`leaf`](Self::leaf), and every answer of the issuer carries the bundle. So after one life of a leaf
///   everybody whom a peer would let in knows the new root.
/// * An old root leaves the bundle once the last leaf below it has died: one life of a leaf after it signed last.
///
/// So a rotation of the root takes two lives of a leaf, and begins at half of the root's own life. With the default of a year
/// that is twice a year: often enough that a rotation is nothing special, and an authority that nobody looks after for five months
/// still comes back in time. (Roots of ten years are the ones whose end nobody remembers; what makes a long life necessary
/// elsewhere is that people rotate by hand.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of an SVID. **Default**: 24 hours.
    pub leaf: Duration,
    /// Of the intermediate that signs SVIDs. **Default**: 30 days.
    pub intermediate: Duration,
    /// Of the root. **Default**: 365 days.
    pub root: Duration,
}

const DAY: u64 = 24 * 60 * 60;

/// The shortest life of a leaf: validity has whole seconds. Unit: seconds.
const MIN_LEAF: u64 = 4;

/// The longest life of a root. Unit: seconds.
const MAX_ROOT: u64 = 100 * 365 * DAY;

/// How wrong clocks may be. Unit: seconds.
const MAX_SKEW: u64 = 5 * 60;

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            leaf: Duration::from_secs(DAY),
            intermediate: Duration::from_secs(30 * DAY),
            root: Duration::from_secs(365 * DAY),
        }
    }
}

/// Lifetimes that leave no time to rotate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooShort {
    /// Below four seconds.
    #[error("an SVID lives for 4 seconds or more")]
    Leaf,
    /// Below four lives of a leaf.
    #[error("an intermediate lives for at least four times as long as an SVID")]
    Intermediate,
    /// Below two lives of an intermediate.
    #[error("a root lives for at least twice as long as an intermediate")]
    Root,
    /// Above a hundred years.
    #[error("a root lives for at most 100 years")]
    RootTooLong,
}

impl Lifetimes {
    /// Checks that a rotation has the time that it needs.
    ///
    /// **Errors**: the first of [`TooShort`] that holds.
    pub fn check(self) -> Result<Self, TooShort> {
        if self.leaf.as_secs() < MIN_LEAF {
            return Err(TooShort::Leaf);
        }
        if self.intermediate < self.leaf.saturating_mul(4) {
            return Err(TooShort::Intermediate);
        }
        if self.root < self.intermediate.saturating_mul(2) {
            return Err(TooShort::Root);
        }
        if self.root.as_secs() > MAX_ROOT {
            return Err(TooShort::RootTooLong);
        }
        Ok(self)
    }

    /// How wrong clocks may be: certificates are valid from this much before now on. Unit: seconds.
    #[must_use]
    pub fn skew(&self) -> u64 {
        (self.leaf.as_secs() / 12).clamp(1, MAX_SKEW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_leave_time_to_rotate() {
        let lifetimes = |leaf, intermediate, root| {
            let seconds = Duration::from_secs;
            Lifetimes { leaf: seconds(leaf), intermediate: seconds(intermediate), root: seconds(root) }
                .check()
        };
        assert!(Lifetimes::default().check().is_ok());
        assert!(lifetimes(20, 80, 160).is_ok());
        assert_eq!(lifetimes(3, 80, 160), Err(TooShort::Leaf));
        assert_eq!(lifetimes(20, 79, 160), Err(TooShort::Intermediate));
        assert_eq!(lifetimes(20, 80, 159), Err(TooShort::Root));
        assert_eq!(lifetimes(20, 80, u64::MAX), Err(TooShort::RootTooLong));
        assert_eq!(lifetimes(20, 80, 160).unwrap().skew(), 1);
        assert_eq!(Lifetimes::default().skew(), 300);
    }
}
