//! Whom a client expects to find at an endpoint.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rhumb_base::spiffe::SpiffeId;

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

    /// Expects these from here on. Connections that exist stay.
    pub fn swap(&self, ids: impl IntoIterator<Item = SpiffeId>) {
        self.ids.store(Arc::new(ids.into_iter().collect()));
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
