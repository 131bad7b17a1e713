//! What operations were seen to do.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::glimpse::{Fields, Glimpse};

/// Values of each thing that one operation is known to have: callers, media types, parameters, fields.
pub(crate) const VALUES: usize = 32;

/// What a value and a status take in memory beside their texts, about. Unit: bytes.
const VALUE: usize = 64;
const STATUS: usize = 128;

/// What one operation was seen to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Seen {
    pub(super) requests: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    /// By status: how often, and media types.
    pub(super) statuses: BTreeMap<u16, Answered>,
    pub(super) request_types: BTreeMap<String, u64>,
    pub(super) query: BTreeMap<String, u64>,
    pub(super) callers: BTreeMap<String, u64>,
    pub(super) routes: BTreeMap<String, u64>,
    /// Top-level fields of contents, and of how many contents.
    pub(super) fields: BTreeMap<String, u64>,
    pub(super) contents: u64,
    /// A path of it.
    pub(super) example: String,
}

/// What came back with one status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Answered {
    /// How often.
    pub requests: u64,
    /// Media types, and how often each.
    pub types: BTreeMap<String, u64>,
    /// Fields of JSON contents, and in how many of the objects that were looked at.
    pub fields: BTreeMap<String, u64>,
    /// How many objects were looked at: a content, or what stands in it as a list.
    pub contents: u64,
    /// How many contents were lists.
    pub lists: u64,
}

impl Answered {
    fn look_into(&mut self, seen: &Fields, left: &mut usize) {
        self.contents = self.contents.saturating_add(seen.objects);
        self.lists = self.lists.saturating_add(seen.lists);
        seen.names.iter().for_each(|(name, count)| note_within(&mut self.fields, name, *count, left));
    }

    fn join(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.contents = self.contents.saturating_add(other.contents);
        self.lists = self.lists.saturating_add(other.lists);
        other.types.iter().for_each(|(name, count)| note(&mut self.types, name, *count));
        other.fields.iter().for_each(|(name, count)| note(&mut self.fields, name, *count));
    }

    fn bytes(&self) -> usize {
        STATUS + bytes(&self.types) + bytes(&self.fields)
    }
}

impl Seen {
    /// Takes over what was seen, as far as there is room. `left`: bytes, less what that takes.
    pub(super) fn add(&mut self, glimpse: &Glimpse, left: &mut usize) {
        let count = glimpse.count;
        if self.requests == 0 {
            self.first = glimpse.at;
            if let Some(rest) = left.checked_sub(glimpse.path.len()) {
                *left = rest;
                self.example.clone_from(&glimpse.path);
            }
        }
        self.requests = self.requests.saturating_add(count);
        self.last = self.last.max(glimpse.at);
        if let Some(answered) = self.answered(glimpse.status, left) {
            answered.requests = answered.requests.saturating_add(count);
            note_within(&mut answered.types, &glimpse.response_type, count, left);
            answered.look_into(&glimpse.answered, left);
        }
        note_within(&mut self.request_types, &glimpse.request_type, count, left);
        note_within(&mut self.callers, &glimpse.caller, count, left);
        note_within(&mut self.routes, &glimpse.route, count, left);
        for name in &glimpse.query {
            note_within(&mut self.query, name, count, left);
        }
        self.contents = self.contents.saturating_add(glimpse.sent.objects);
        let names = &glimpse.sent.names;
        names.iter().for_each(|(name, count)| note_within(&mut self.fields, name, *count, left));
    }

    /// What came back with a status, made where there is nothing and as long as there is room.
    fn answered(&mut self, status: u16, left: &mut usize) -> Option<&mut Answered> {
        if !self.statuses.contains_key(&status) {
            if self.statuses.len() >= VALUES {
                return None;
            }
            *left = left.checked_sub(STATUS)?;
        }
        Some(self.statuses.entry(status).or_default())
    }

    /// Takes over what another, which turned out to be the same, was seen to do. Returns how many bytes that has saved.
    pub(super) fn join(&mut self, other: Self) -> usize {
        let before = self.bytes() + other.bytes();
        self.take_over(other);
        before.saturating_sub(self.bytes())
    }

    fn take_over(&mut self, other: Self) {
        if self.requests == 0 {
            *self = other;
            return;
        }
        self.requests = self.requests.saturating_add(other.requests);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        for (status, answered) in other.statuses {
            self.statuses.entry(status).or_default().join(&answered);
        }
        for (mine, theirs) in [
            (&mut self.request_types, other.request_types),
            (&mut self.query, other.query),
            (&mut self.callers, other.callers),
            (&mut self.routes, other.routes),
            (&mut self.fields, other.fields),
        ] {
            theirs.iter().for_each(|(name, count)| note(mine, name, *count));
        }
        self.contents = self.contents.saturating_add(other.contents);
    }

    /// What it takes beside itself.
    pub(super) fn bytes(&self) -> usize {
        let values = [&self.request_types, &self.query, &self.callers, &self.routes, &self.fields];
        self.example.len()
            + self.statuses.values().map(Answered::bytes).sum::<usize>()
            + values.into_iter().map(bytes).sum::<usize>()
    }
}

fn bytes(values: &BTreeMap<String, u64>) -> usize {
    values.keys().map(|name| VALUE + name.len()).sum()
}

/// Counts a value, where there are not too many others.
pub(super) fn note(values: &mut BTreeMap<String, u64>, name: &str, count: u64) {
    note_within(values, name, count, &mut { usize::MAX });
}

/// The same as long as there is room. `left`: bytes, less what that takes.
fn note_within(values: &mut BTreeMap<String, u64>, name: &str, count: u64, left: &mut usize) {
    if name.is_empty() {
        return;
    }
    if let Some(known) = values.get_mut(name) {
        *known = known.saturating_add(count);
    } else if values.len() < VALUES
        && let Some(rest) = left.checked_sub(VALUE + name.len())
    {
        *left = rest;
        values.insert(name.to_owned(), count);
    }
}
