//! How an authority was opened, for those who do something with it from outside.

use std::time::Duration;

use rhumb_base::spiffe::TrustDomain;
use serde::{Deserialize, Serialize};

use super::{Error, Mounted};
use crate::lifetimes::Lifetimes;
use crate::records::Place;

pub(super) const FILE: &str = "settings.json";

/// The largest file. Unit: bytes.
const MAX_SETTINGS: u64 = 64 * 1024;

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) trust_domain: String,
    leaf_seconds: u64,
    intermediate_seconds: u64,
    root_seconds: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mounted: Option<Mounted>,
}

impl Settings {
    pub(super) fn new(domain: &TrustDomain, lifetimes: &Lifetimes, mounted: Option<Mounted>) -> Self {
        Self {
            trust_domain: domain.as_str().to_owned(),
            leaf_seconds: lifetimes.leaf.as_secs(),
            intermediate_seconds: lifetimes.intermediate.as_secs(),
            root_seconds: lifetimes.root.as_secs(),
            mounted,
        }
    }

    pub(super) fn lifetimes(&self) -> Lifetimes {
        let seconds = Duration::from_secs;
        Lifetimes {
            leaf: seconds(self.leaf_seconds),
            intermediate: seconds(self.intermediate_seconds),
            root: seconds(self.root_seconds),
        }
    }

    pub(super) fn load(place: &Place) -> Result<Option<Self>, Error> {
        Ok(Self::load_versioned(place)?.map(|(settings, _)| settings))
    }

    fn load_versioned(place: &Place) -> Result<Option<(Self, Option<i64>)>, Error> {
        let Some((text, version)) = place.load(FILE, MAX_SETTINGS)? else { return Ok(None) };
        let settings = serde_json::from_slice(&text);
        settings
            .map(|settings| Some((settings, version)))
            .map_err(|error| Error::State { path: place.path(FILE), line: error.line() })
    }

    /// Writes it where it says something else.
    pub(super) fn save(&self, place: &Place) -> Result<(), Error> {
        let version = match Self::load_versioned(place) {
            Ok(Some((known, _))) if known == *self => return Ok(()),
            Ok(Some((_, version))) => version,
            // What cannot be read is written anew, where that is possible.
            Ok(None) | Err(_) => None,
        };
        let text =
            serde_json::to_vec_pretty(self).map_err(|_| Error::State { path: place.path(FILE), line: 0 })?;
        place.save(FILE, &text, version)
    }
}
