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
    /// Which state it is of whoever keeps it: a later one has a larger number.
    number: u64,
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

    /// Says which state it is of whoever keeps it. **Default**: zero.
    #[must_use]
    pub fn numbered(self, number: u64) -> Self {
        Self { number, ..self }
    }

    /// Which state it is of whoever keeps it; a later one has a larger number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What is to be taken over from here on, where `known` was before: an older state adds to a later one, and takes nothing
    /// away. Who tells it is behind, or was set back; what is void stays void either way.
    pub(super) fn after(mut self, known: &Self) -> Self {
        if self.number < known.number {
            self.number = known.number;
            for serial in &known.serials {
                self.push_serial(Arc::clone(serial));
            }
            for (id, until) in &known.identities {
                self.push_identity(id.clone(), *until);
            }
        }
        self
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
