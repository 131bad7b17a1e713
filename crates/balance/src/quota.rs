//! How many requests a backend has at a time, of all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// A count with an upper limit. The limit is an argument: it changes with the configuration, what is taken stays.
#[derive(Debug, Default)]
pub struct Quota {
    used: AtomicU32,
    refused: AtomicU64,
}

/// One of a quota, given back when dropped.
#[derive(Debug)]
pub struct Taken(Arc<Quota>);

impl Quota {
    /// Takes one; `None` when `limit` are taken, which is counted.
    #[inline]
    pub fn take(self: &Arc<Self>, limit: u32) -> Option<Taken> {
        // Taken first and asked then: two workers cannot both get the last one.
        if self.used.fetch_add(1, Relaxed) < limit {
            return Some(Taken(Arc::clone(self)));
        }
        self.used.fetch_sub(1, Relaxed);
        self.refused.fetch_add(1, Relaxed);
        None
    }

    /// How many are taken.
    pub fn used(&self) -> u32 {
        self.used.load(Relaxed)
    }

    /// How often none was left.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let quota = Arc::new(Quota::default());
        let (a, b) = (quota.take(2), quota.take(2));
        assert!(a.is_some() && b.is_some() && quota.take(2).is_none());
        drop(a);
        assert!(quota.take(1).is_none(), "a lower limit holds at once");
        assert!(quota.take(2).is_some());
        assert_eq!((quota.used(), quota.refused()), (1, 2));
    }
}
