//! Segments of paths as a tree, and which of them are values.

use std::collections::BTreeMap;

use rhumb_telemetry::sightings::is_value;
use serde::{Deserialize, Serialize};

use super::seen::Seen;

/// So many siblings that look alike are one variable.
const ALIKE: usize = 10;

/// More siblings than this are values, however they look.
const CROWD: usize = 100;

/// Deeper paths are not told apart.
const DEPTH: usize = 16;

/// Methods that one node has at most.
const METHODS: usize = 16;

/// What a node and an operation take in memory beside their texts, about. Unit: bytes.
const NODE: usize = 256;
const OPERATION: usize = 1024;

/// What there is room for, or what came free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) nodes: usize,
    pub(super) bytes: usize,
}

impl Space {
    fn take_node(&mut self, name: &str) -> Option<()> {
        let nodes = self.nodes.checked_sub(1)?;
        let bytes = self.bytes.checked_sub(NODE + name.len())?;
        *self = Self { nodes, bytes };
        Some(())
    }

    pub(super) fn plus(self, more: Self) -> Self {
        Self { nodes: self.nodes + more.nodes, bytes: self.bytes + more.bytes }
    }

    pub(super) fn less(self, other: Self) -> Self {
        Self { nodes: self.nodes.saturating_sub(other.nodes), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    fn add(&mut self, more: Self) {
        *self = self.plus(more);
    }
}

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
    pub(super) fn find(&mut self, path: &str, left: &mut Space) -> Option<&mut Self> {
        let mut at = self;
        for segment in segments(path) {
            if is_value(segment.as_bytes()) {
                if at.value.is_none() {
                    left.take_node("")?;
                }
                at = at.value.get_or_insert_default();
            } else {
                if !at.names.contains_key(segment) {
                    left.take_node(segment)?;
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

    /// The operation of a method here, made where there is none and as long as there is room.
    pub(super) fn operation(&mut self, method: &str, left: &mut Space) -> Option<&mut Seen> {
        let name = self.name_of(method);
        if !self.operations.contains_key(name) {
            left.bytes = left.bytes.checked_sub(OPERATION)?;
        }
        Some(self.operations.entry(name.to_owned()).or_default())
    }

    /// What a method is called here: there are only so many.
    fn name_of<'m>(&self, method: &'m str) -> &'m str {
        let is_room = self.operations.len() < METHODS || self.operations.contains_key(method);
        if is_room { method } else { "_OTHER" }
    }

    /// Makes one of siblings that look alike, along a path. Returns what that has saved.
    pub(super) fn settle(&mut self, path: &str) -> Space {
        let mut saved = Space::default();
        let mut at = self;
        for segment in segments(path) {
            saved.add(at.gather());
            let Self { names, value, .. } = at;
            let Some(next) = names.get_mut(segment).or(value.as_deref_mut()) else { return saved };
            at = next;
        }
        saved.add(at.gather());
        saved
    }

    /// Makes one of children that look alike.
    fn gather(&mut self) -> Space {
        let mut saved = Space::default();
        if self.names.len() < ALIKE && !self.is_learned {
            return saved;
        }
        let is_crowd = self.names.len() > CROWD;
        let mut alike: BTreeMap<String, usize> = BTreeMap::new();
        for child in self.names.values() {
            *alike.entry(child.look()).or_default() += 1;
        }
        let many: Vec<_> =
            alike.into_iter().filter(|(_, count)| *count >= ALIKE).map(|(look, _)| look).collect();
        if !many.is_empty() || is_crowd {
            self.is_learned = true;
            saved.add(self.join_values(|_, child| is_crowd || many.contains(&child.look())));
        }
        if self.is_learned {
            saved.add(self.join_values(Self::covers));
        }
        saved
    }

    /// Makes values of those names for which that is so, asked with the variable and the name's node.
    fn join_values(&mut self, is_value: impl Fn(&Self, &Self) -> bool) -> Space {
        let mut saved = Space::default();
        let nothing = Self::default();
        for (name, child) in std::mem::take(&mut self.names) {
            if !is_value(self.value.as_deref().unwrap_or(&nothing), &child) {
                self.names.insert(name, child);
                continue;
            }
            saved.bytes += name.len();
            match &mut self.value {
                Some(value) => saved.add(value.join(child)),
                None => self.value = Some(Box::new(child)),
            }
        }
        saved
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

    /// Takes over what another has. Returns what that has saved.
    fn join(&mut self, other: Self) -> Space {
        let mut saved = Space { nodes: 1, bytes: NODE };
        for (method, seen) in other.operations {
            let name = self.name_of(&method);
            match self.operations.get_mut(name) {
                Some(known) => saved.bytes += OPERATION + known.join(seen),
                None => drop(self.operations.insert(name.to_owned(), seen)),
            }
        }
        for (name, child) in other.names {
            match self.names.get_mut(&name) {
                Some(known) => {
                    saved.bytes += name.len();
                    saved.add(known.join(child));
                }
                None => drop(self.names.insert(name, child)),
            }
        }
        match (&mut self.value, other.value) {
            (Some(known), Some(value)) => saved.add(known.join(*value)),
            (known @ None, value) => *known = value,
            (Some(_), None) => {}
        }
        self.is_learned |= other.is_learned;
        saved
    }

    /// What its operations and all that is below it take.
    pub(super) fn space(&self) -> Space {
        let mut space = Space::default();
        space.bytes += self.operations.values().map(|seen| OPERATION + seen.bytes()).sum::<usize>();
        let names = self.names.iter().map(|(name, child)| (name.len(), child));
        for (name, child) in names.chain(self.value.as_deref().map(|value| (0, value))) {
            space.add(Space { nodes: 1, bytes: NODE + name });
            space.add(child.space());
        }
        space
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
