//! What is void before its end.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rhumb_base::spiffe::SpiffeId;

use super::svid::PeerSvid;

/// What is void before its end: certificates one by one, or everything that an identity had up to some time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations {
    serials: HashSet<Arc<str>>,
    /// Certificates of this identity whose validity begins no later than this. Unit: seconds since 1970.
    identities: HashMap<SpiffeId, i64>,
}

impl Revocations {
    /// The most entries; more are not taken. Unit: entries.
    pub const MAX: usize = 100_000;

    /// Voids one certificate, by its serial number in lower-case hexadecimal. `false`: there are too many entries.
    pub fn push_serial(&mut self, serial: Arc<str>) -> bool {
        let has_room = self.len() < Self::MAX;
        if has_room {
            self.serials.insert(serial);
        }
        has_room
    }

    /// Voids what an identity has whose validity begins no later than `until_unix`. `false`: there are too many entries.
    pub fn push_identity(&mut self, id: SpiffeId, until_unix: i64) -> bool {
        let has_room = self.len() < Self::MAX;
        if has_room {
            let until = self.identities.entry(id).or_insert(until_unix);
            *until = until_unix.max(*until);
        }
        has_room
    }

    /// Whether this certificate is void.
    #[must_use]
    pub fn contains(&self, peer: &PeerSvid) -> bool {
        self.identities.get(&peer.id).is_some_and(|until| peer.not_before_unix <= *until)
            || self.serials.contains(&peer.serial)
    }

    /// Serial numbers of void certificates.
    pub fn serials(&self) -> impl Iterator<Item = &str> {
        self.serials.iter().map(|serial| &**serial)
    }

    /// Identities, each with the time until which the validity of its void certificates begins. Unit: seconds since 1970.
    pub fn identities(&self) -> impl Iterator<Item = (&SpiffeId, i64)> {
        self.identities.iter().map(|(id, until)| (id, *until))
    }

    /// How many entries it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.serials.len() + self.identities.len()
    }

    /// Whether nothing is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
