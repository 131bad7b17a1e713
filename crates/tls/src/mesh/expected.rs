//! Whom a client expects to find at an endpoint.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rhumb_base::spiffe::SpiffeId;

/// How often sets were swapped.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// The identities that a server may have. Cheap to clone: all clones are one set, which can be swapped while connections
/// are made. An empty set expects nobody, and each handshake fails.
#[derive(Clone, Default)]
pub struct Expected {
    ids: Arc<ArcSwap<HashSet<SpiffeId>>>,
}

impl Expected {
    /// A set of these.
    pub fn new(ids: impl IntoIterator<Item = SpiffeId>) -> Self {
        let expected = Self::default();
        expected.swap(ids);
        expected
    }

    /// Expects these from here on. Who holds connections has to look at them, see [`Expected::changes`].
    pub fn swap(&self, ids: impl IntoIterator<Item = SpiffeId>) {
        let ids: HashSet<SpiffeId> = ids.into_iter().collect();
        if **self.ids.load() != ids {
            self.ids.store(Arc::new(ids));
            CHANGES.fetch_add(1, Ordering::Release);
        }
    }

    /// How often any set of this process was swapped for another one: one comparison while nothing happens.
    #[must_use]
    pub fn changes() -> u64 {
        CHANGES.load(Ordering::Acquire)
    }

    /// Whether this one is expected.
    #[must_use]
    pub fn contains(&self, id: &SpiffeId) -> bool {
        self.ids.load().contains(id)
    }

    /// Those expected, in no order.
    #[must_use]
    pub fn ids(&self) -> Vec<SpiffeId> {
        self.ids.load().iter().cloned().collect()
    }
}

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.ids.load().iter()).finish()
    }
}
