//! What was revoked, in a file, for as long as it could matter.

use rhumb_base::spiffe::SpiffeId;
use rhumb_tls::mesh::Revocations;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::records::Place;

/// The largest file: [`Revocations::MAX`] entries of usual length. Unit: bytes.
const MAX_FILE: u64 = 32 * 1024 * 1024;

/// The longest serial number, RFC 5280 §4.1.2.2, in hexadecimal. Unit: bytes.
const MAX_SERIAL: usize = 40;

/// The record that it is.
pub(super) const NAME: &str = "revoked.json";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Revoked {
    entries: Vec<Entry>,
    /// Counts changes, so that members tell an earlier state from a later one.
    #[serde(default)]
    changes: u64,
    /// Which version of the record it is.
    #[serde(skip)]
    version: Option<i64>,
}

/// One entry. Unit of times: seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Entry {
    #[serde(rename_all = "camelCase")]
    Identity { id: String, until: u64 },
    #[serde(rename_all = "camelCase")]
    Serial { serial: String, until: u64 },
}

impl Entry {
    /// Certificates that begin later are not meant.
    fn until(&self) -> u64 {
        match self {
            Self::Identity { until, .. } | Self::Serial { until, .. } => *until,
        }
    }
}

impl Revoked {
    pub(super) fn load(place: &Place) -> Result<Self, Error> {
        let Some((text, version)) = place.load(NAME, MAX_FILE)? else { return Ok(Self::default()) };
        let read: Self = serde_json::from_slice(&text)
            .map_err(|error| Error::State { path: place.path(NAME), line: error.line() })?;
        Ok(Self { version, ..read })
    }

    pub(super) fn save(&mut self, place: &Place) -> Result<(), Error> {
        self.changes += 1;
        let text = serde_json::to_vec(self).map_err(|_| Error::State { path: place.path(NAME), line: 0 })?;
        place.save(NAME, &text, self.version)
    }

    /// Leaves out what has no certificate left that it could void. `life`: of a leaf, with what clocks may differ.
    pub(super) fn forget(&mut self, now: u64, life: u64) {
        self.entries.retain(|entry| entry.until().saturating_add(life) >= now);
    }

    pub(super) fn push_identity(&mut self, id: &SpiffeId, until: u64) -> Result<(), Error> {
        self.push(Entry::Identity { id: id.as_str().to_owned(), until })
    }

    pub(super) fn push_serial(&mut self, serial: &str, until: u64) -> Result<(), Error> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if serial.is_empty() || serial.len() > MAX_SERIAL || !serial.bytes().all(is_hex) {
            return Err(Error::Unusable {
                origin: "serial number".to_owned(),
                why: "it has 1 to 40 digits of lower-case hexadecimal",
            });
        }
        self.push(Entry::Serial { serial: serial.to_owned(), until })
    }

    fn push(&mut self, entry: Entry) -> Result<(), Error> {
        if self.entries.len() >= Revocations::MAX {
            return Err(Error::TooManyRevoked);
        }
        self.entries.push(entry);
        Ok(())
    }

    pub(super) fn list(&self) -> Revocations {
        let mut list = Revocations::default();
        for entry in &self.entries {
            match entry {
                Entry::Serial { serial, .. } => {
                    list.push_serial(serial.as_str().into());
                }
                Entry::Identity { id, until } => {
                    if let Ok(id) = SpiffeId::parse(id) {
                        list.push_identity(id, i64::try_from(*until).unwrap_or(i64::MAX));
                    }
                }
            }
        }
        list.numbered(self.changes)
    }
}
