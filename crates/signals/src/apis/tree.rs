//! Segments of paths as a tree, and which of them are values.

use std::collections::BTreeMap;

use rhumb_telemetry::sightings::is_value;
use serde::{Deserialize, Serialize};

use super::Seen;

/// So many siblings that look alike are one variable.
const ALIKE: usize = 10;

/// More siblings than this are values, however they look.
const CROWD: usize = 100;

/// Deeper paths are not told apart.
const DEPTH: usize = 16;

/// Methods that one node has at most.
const METHODS: usize = 16;

/// A segment, what was seen at the path that ends with it, and what is below.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Node {
    operations: BTreeMap<String, Seen>,
    names: BTreeMap<String, Self>,
    value: Option<Box<Self>>,
    /// The variable was found by likeness: names that have nothing else are its values too.
    is_learned: bool,
}

impl Node {
    /// The node of a path, made where there is none and as long as there is room.
    pub(super) fn find(&mut self, path: &str, room: &mut usize) -> Option<&mut Self> {
        let mut at = self;
        for segment in segments(path) {
            if is_value(segment.as_bytes()) {
                if at.value.is_none() {
                    *room = room.checked_sub(1)?;
                }
                at = at.value.get_or_insert_default();
            } else {
                if !at.names.contains_key(segment) {
                    *room = room.checked_sub(1)?;
                }
                at = at.names.entry(segment.to_owned()).or_default();
            }
        }
        Some(at)
    }

    /// True when a method was seen at a path, or at the template that it is one of.
    pub(super) fn knows(&self, path: &str, method: &str) -> bool {
        let mut at = self;
        for segment in segments(path) {
            let value = at.value.as_deref().filter(|_| at.is_learned || is_value(segment.as_bytes()));
            let Some(next) = at.names.get(segment).or(value) else { return false };
            at = next;
        }
        at.operations.contains_key(method)
    }

    /// The operation of a method here.
    pub(super) fn operation(&mut self, method: &str) -> &mut Seen {
        let is_room = self.operations.len() < METHODS || self.operations.contains_key(method);
        self.operations.entry(if is_room { method.to_owned() } else { "_OTHER".to_owned() }).or_default()
    }

    /// Makes one of siblings that look alike, along a path. Returns how many nodes that has saved.
    pub(super) fn settle(&mut self, path: &str) -> usize {
        let mut gone = 0;
        let mut at = self;
        for segment in segments(path) {
            gone += at.gather();
            let Self { names, value, .. } = at;
            let Some(next) = names.get_mut(segment).or(value.as_deref_mut()) else { return gone };
            at = next;
        }
        gone + at.gather()
    }

    /// Makes one of children that look alike.
    fn gather(&mut self) -> usize {
        if self.names.len() < ALIKE && !self.is_learned {
            return 0;
        }
        let before = self.size();
        let is_crowd = self.names.len() > CROWD;
        let mut alike: BTreeMap<String, usize> = BTreeMap::new();
        for child in self.names.values() {
            *alike.entry(child.look()).or_default() += 1;
        }
        let many: Vec<_> =
            alike.into_iter().filter(|(_, count)| *count >= ALIKE).map(|(look, _)| look).collect();
        if !many.is_empty() || is_crowd {
            self.is_learned = true;
            self.join_values(|_, child| is_crowd || many.contains(&child.look()));
        }
        if self.is_learned {
            self.join_values(Self::covers);
        }
        before.saturating_sub(self.size())
    }

    /// Makes values of those names for which that is so, asked with the variable and the name's node.
    fn join_values(&mut self, is_value: impl Fn(&Self, &Self) -> bool) {
        let value = self.value.get_or_insert_default();
        for (name, child) in std::mem::take(&mut self.names) {
            if is_value(value, &child) {
                value.join(child);
            } else {
                self.names.insert(name, child);
            }
        }
    }

    /// Methods here and names below, for comparison.
    fn look(&self) -> String {
        let mut look = String::new();
        for method in self.operations.keys() {
            look.push_str(method);
            look.push(' ');
        }
        look.push('/');
        for name in self.names.keys() {
            look.push_str(name);
            look.push('/');
        }
        if self.value.is_some() {
            look.push_str("{}");
        }
        look
    }

    /// True when everything that a node has is here too.
    fn covers(&self, other: &Self) -> bool {
        other.operations.keys().all(|method| self.operations.contains_key(method))
            && other.names.keys().all(|name| self.names.contains_key(name))
            && (other.value.is_none() || self.value.is_some())
    }

    fn join(&mut self, other: Self) {
        for (method, seen) in other.operations {
            self.operation(&method).join(seen);
        }
        for (name, child) in other.names {
            self.names.entry(name).or_default().join(child);
        }
        if let Some(value) = other.value {
            self.value.get_or_insert_default().join(*value);
        }
        self.is_learned |= other.is_learned;
    }

    pub(super) fn size(&self) -> usize {
        1 + self.names.values().map(Self::size).sum::<usize>()
            + self.value.as_ref().map_or(0, |value| value.size())
    }

    /// Calls `visit` with template, method and what was seen of every operation, in order of templates.
    pub(super) fn visit(&self, visit: &mut dyn FnMut(&str, &str, &Seen)) {
        self.walk("", visit);
    }

    fn walk(&self, path: &str, visit: &mut dyn FnMut(&str, &str, &Seen)) {
        let here = if path.is_empty() { "/" } else { path };
        for (method, seen) in &self.operations {
            visit(here, method, seen);
        }
        for (name, child) in &self.names {
            child.walk(&format!("{path}/{name}"), visit);
        }
        if let Some(value) = &self.value {
            value.walk(&format!("{path}/{{id}}"), visit);
        }
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty()).take(DEPTH)
}
