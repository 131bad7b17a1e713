//! What a part of resolving looked at, so that it can be known later whether it would come out the same.
//!
//! Whatever is looked up by name leaves a [`Read`]: a hash of what was asked for, found or not. What a part came to may
//! be kept while nothing that it asked for has changed. A hash that two names share makes a part be worked out once more,
//! never once too little.

use std::cell::RefCell;
use std::hash::BuildHasher;
use std::rc::Rc;

use foldhash::HashSet;
use foldhash::fast::FixedState;

use crate::collect::Key;

/// What was asked for, as a hash.
pub(crate) type Read = u64;

/// What can be asked for.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) enum Ask {
    /// A document of a kind, by name: what it says, or that it is not there.
    Document,
    /// The names of a kind's documents.
    Names,
    /// Policies attached to an object.
    Attached,
    /// The BackendTLSPolicies of a Backend.
    BackendTls,
    /// The XBackendTrafficPolicies of a Backend.
    BackendTraffic,
    /// What a Backend came to.
    Backend,
    /// ReferenceGrants of a namespace.
    Grants,
}

/// The hash of a question.
pub(crate) fn read(ask: Ask, kind: &str, key: Key<'_>) -> Read {
    FixedState::default().hash_one((ask, kind, key))
}

/// Notes what is asked for, as long as somebody wants to know.
#[derive(Clone, Default)]
pub(crate) struct Trace(Rc<RefCell<Vec<Frame>>>);

/// What one part asked for.
#[derive(Default)]
pub(crate) struct Frame {
    pub(crate) reads: Vec<Read>,
    /// It depends on more than can be told: it is worked out each time.
    pub(crate) is_volatile: bool,
}

impl Frame {
    /// That of a part that has to be worked out.
    pub(crate) fn volatile() -> Self {
        Self { is_volatile: true, ..Self::default() }
    }
}

impl Trace {
    /// Begins a part. What a part within another asks for is its own: the outer one asks for the inner one.
    pub(crate) fn begin(&self) {
        self.0.borrow_mut().push(Frame::default());
    }

    /// What the part that was begun last has asked for.
    pub(crate) fn end(&self) -> Frame {
        let mut frame = self.0.borrow_mut().pop().unwrap_or_default();
        frame.reads.sort_unstable();
        frame.reads.dedup();
        frame
    }

    /// Something was asked for.
    #[inline]
    pub(crate) fn note(&self, ask: Ask, kind: &str, key: Key<'_>) {
        if let Some(frame) = self.0.borrow_mut().last_mut() {
            frame.reads.push(read(ask, kind, key));
        }
    }

    /// The part depends on something that leaves no read.
    pub(crate) fn note_volatile(&self) {
        if let Some(frame) = self.0.borrow_mut().last_mut() {
            frame.is_volatile = true;
        }
    }
}

/// What is not as it was.
#[derive(Default)]
pub(crate) struct Changes {
    few: Vec<Read>,
    many: HashSet<Read>,
}

/// Up to this many changes are compared one by one.
const FEW: usize = 8;

impl Changes {
    /// What is asked for so is not as it was. False when that was known.
    pub(crate) fn add(&mut self, ask: Ask, kind: &str, key: Key<'_>) -> bool {
        let read = read(ask, kind, key);
        if !self.many.is_empty() {
            return self.many.insert(read);
        }
        if self.few.contains(&read) {
            return false;
        }
        self.few.push(read);
        if self.few.len() > FEW {
            self.many.extend(self.few.drain(..));
        }
        true
    }

    /// True when something that was asked for is not as it was.
    #[inline]
    pub(crate) fn touch(&self, reads: &[Read]) -> bool {
        if self.many.is_empty() {
            return reads.iter().any(|read| self.few.contains(read));
        }
        reads.iter().any(|read| self.many.contains(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_its_own_reads_once() {
        let trace = Trace::default();
        trace.note(Ask::Document, "Backend", ("a", "unwatched"));
        trace.begin();
        trace.note(Ask::Document, "Backend", ("a", "b"));
        trace.begin();
        trace.note(Ask::Document, "Secret", ("a", "s"));
        trace.note(Ask::Document, "Secret", ("a", "s"));
        trace.note_volatile();
        let inner = trace.end();
        let outer = trace.end();
        assert_eq!(inner.reads, [read(Ask::Document, "Secret", ("a", "s"))]);
        assert_eq!(outer.reads, [read(Ask::Document, "Backend", ("a", "b"))]);
        assert!(inner.is_volatile && !outer.is_volatile);
    }

    #[test]
    fn few_changes_and_many_touch_what_asked_for_them() {
        for count in [1, FEW, FEW + 1, 1000] {
            let mut changes = Changes::default();
            for n in 0..count {
                changes.add(Ask::Document, "Backend", ("a", &n.to_string()));
                changes.add(Ask::Document, "Backend", ("a", &n.to_string()));
            }
            for n in 0..count {
                assert!(
                    changes.touch(&[1, read(Ask::Document, "Backend", ("a", &n.to_string()))]),
                    "{n} of {count}"
                );
            }
            assert!(!changes.touch(&[
                read(Ask::Document, "Backend", ("a", "x")),
                read(Ask::Names, "Backend", ("a", "0"))
            ]));
            assert!(!changes.touch(&[]));
        }
    }
}
