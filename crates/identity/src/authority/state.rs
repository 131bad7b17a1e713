//! What an authority remembers, in one file: whole or not at all.

use serde::{Deserialize, Serialize};

use super::Error;
use crate::records::Place;

/// The form of the file that this code reads and writes.
const FORM: u32 = 1;

/// The largest file: two roots and an intermediate are about 5 KiB. Unit: bytes.
const MAX_STATE: u64 = 1024 * 1024;

/// The record that it is.
pub(super) const NAME: &str = "authority.json";

/// Everything of an embedded authority. Holds private keys: no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct State {
    pub(super) form: u32,
    pub(super) trust_domain: String,
    /// In order of their making. The last one without `retired` signs, or will.
    pub(super) roots: Vec<Root>,
    pub(super) intermediate: Option<Intermediate>,
    /// Which version of the record it is.
    #[serde(skip)]
    version: Option<i64>,
}

/// A root. All times: seconds since 1970.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Root {
    pub(super) id: String,
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) not_before: u64,
    pub(super) not_after: u64,
    /// Since when it is in the bundle.
    pub(super) published: u64,
    /// Since when it signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) activated: Option<u64>,
    /// Since when it does not sign any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retired: Option<u64>,
    /// The longest life that a leaf was given while this root was in the bundle. Unit: seconds.
    pub(super) longest_leaf: u64,
}

/// What signs leaves.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Intermediate {
    pub(super) root: String,
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

impl State {
    pub(super) fn new(trust_domain: &str) -> Self {
        Self {
            form: FORM,
            trust_domain: trust_domain.to_owned(),
            roots: Vec::new(),
            intermediate: None,
            version: None,
        }
    }

    /// **Errors**: [`Error::Io`], [`Error::State`], [`Error::OtherDomain`].
    pub(super) fn load(place: &Place, trust_domain: &str) -> Result<Option<Self>, Error> {
        let Some((text, version)) = place.load(NAME, MAX_STATE)? else { return Ok(None) };
        let path = || place.path(NAME);
        // serde_json's words may quote what it has read, which may be a key.
        let mut state: Self = serde_json::from_slice(&text)
            .map_err(|error| Error::State { path: path(), line: error.line() })?;
        if state.form != FORM {
            return Err(Error::State { path: path(), line: 1 });
        }
        if state.trust_domain != trust_domain {
            return Err(Error::OtherDomain {
                path: path(),
                has: state.trust_domain,
                wanted: trust_domain.to_owned(),
            });
        }
        state.version = version;
        Ok(Some(state))
    }

    /// **Errors**: [`Error::Io`], [`Error::Raced`].
    pub(super) fn save(&self, place: &Place) -> Result<(), Error> {
        let text =
            serde_json::to_vec_pretty(self).map_err(|_| Error::State { path: place.path(NAME), line: 0 })?;
        place.save(NAME, &text, self.version)
    }

    /// The root that signs.
    pub(super) fn active(&self) -> Option<&Root> {
        self.roots.iter().find(|root| root.activated.is_some() && root.retired.is_none())
    }

    /// The root that will sign.
    pub(super) fn announced(&self) -> Option<&Root> {
        self.roots.iter().find(|root| root.activated.is_none())
    }
}
