//! The dynamic table (RFC 7541 §2.3.2): entries, and one buffer with their bytes.
//!
//! The buffer is a log: an entry's bytes are appended and stay where they are; eviction forgets them from the front.
//! When the buffer is full and at least half forgotten, the rest moves to its front. So nothing is allocated per
//! entry, every entry is one slice, and the buffer stays below twice the size of the table.

use super::ENTRY_OVERHEAD;
use std::collections::VecDeque;

/// Entries of one dynamic table; `M` is what the decoder or the encoder remembers with each.
#[derive(Debug)]
pub(super) struct Table<M> {
    entries: VecDeque<Entry<M>>,
    bytes: Vec<u8>,
    /// Position in the log of the first byte of `bytes`. Positions wrap; only differences are used.
    origin: u32,
    size: usize,
    max_size: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry<M> {
    /// Position in the log.
    start: u32,
    /// Bytes of the name that are in the log: none when `meta` knows the name.
    stored_name: u16,
    value: u16,
    /// RFC 7541 §4.1.
    size: u32,
    meta: M,
}

/// The bytes of a name that is put into the table.
#[derive(Clone, Copy)]
pub(super) enum NameBytes<'a> {
    /// `meta` knows the name: only its length counts.
    Known(usize),
    /// To be stored.
    Text(&'a [u8]),
    /// The same as of the entry with this age, which may be evicted by the insertion (RFC 7541 §4.4).
    Entry(usize),
}

impl<M: Copy> Table<M> {
    pub(super) fn new(max_size: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: Vec::new(), origin: 0, size: 0, max_size }
    }

    /// Number of entries.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Sum of the entries' sizes.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Largest sum of sizes.
    #[inline]
    pub(super) fn max_size(&self) -> usize {
        self.max_size
    }

    /// Heap bytes held.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry<M>>()
    }

    /// What is remembered with the entry of this age; the youngest has age 0.
    #[inline]
    pub(super) fn meta(&self, age: usize) -> Option<M> {
        self.entry(age).map(|entry| entry.meta)
    }

    /// Meta, stored name and value of the entry of this age.
    #[inline]
    pub(super) fn get(&self, age: usize) -> Option<(M, &[u8], &[u8])> {
        let entry = self.entry(age)?;
        let (name, value) = self.slices(entry)?;
        Some((entry.meta, name, value))
    }

    /// Length of the value of the entry of this age.
    #[inline]
    pub(super) fn value_len(&self, age: usize) -> Option<usize> {
        self.entry(age).map(|entry| usize::from(entry.value))
    }

    /// Adds an entry and evicts the oldest ones until it fits. What does not fit an empty table empties it and is not
    /// added (RFC 7541 §4.4): then the result is false.
    pub(super) fn insert(&mut self, meta: M, name: NameBytes<'_>, value: &[u8]) -> bool {
        let stored_name = match name {
            NameBytes::Known(_) => 0,
            NameBytes::Text(text) => text.len(),
            NameBytes::Entry(age) => self.entry(age).map_or(0, |entry| usize::from(entry.stored_name)),
        };
        let counted_name = match name {
            NameBytes::Known(len) => len,
            _ => stored_name,
        };
        let size = counted_name + value.len() + ENTRY_OVERHEAD;
        if size > self.max_size {
            self.evict(self.max_size);
            return false;
        }
        let (Ok(stored_len), Ok(value_len), Ok(entry_size)) =
            (u16::try_from(stored_name), u16::try_from(value.len()), u32::try_from(size))
        else {
            self.evict(self.max_size);
            return false;
        };
        self.make_room(stored_name + value.len());
        let start = self.end();
        // The name is copied before the entry that lends it may go.
        match name {
            NameBytes::Known(_) => {}
            NameBytes::Text(text) => self.bytes.extend_from_slice(text),
            NameBytes::Entry(age) => {
                let from = self.entry(age).map_or(self.bytes.len(), |entry| self.offset(entry));
                if from + stored_name <= self.bytes.len() {
                    self.bytes.extend_from_within(from..from + stored_name);
                }
            }
        }
        self.bytes.extend_from_slice(value);
        self.evict(size);
        self.size += size;
        self.entries.push_back(Entry {
            start,
            stored_name: stored_len,
            value: value_len,
            size: entry_size,
            meta,
        });
        true
    }

    /// Changes the largest size; evicts what no longer fits.
    pub(super) fn set_max_size(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.evict(0);
    }

    /// Evicts the oldest entries until `more` fits.
    #[inline]
    fn evict(&mut self, more: usize) {
        while self.size + more > self.max_size {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.size -= oldest.size as usize;
        }
        debug_assert!(!self.entries.is_empty() || self.size == 0);
    }

    /// Moves the live bytes to the front when `more` would make the buffer grow and at least half of it is dead.
    #[inline]
    fn make_room(&mut self, more: usize) {
        if self.bytes.len() + more <= self.bytes.capacity() {
            return;
        }
        let dead = self.entries.front().map_or(self.bytes.len(), |oldest| self.offset(oldest));
        if dead * 2 >= self.bytes.len() {
            self.bytes.drain(..dead.min(self.bytes.len()));
            self.origin = self.origin.wrapping_add(dead as u32);
        }
    }

    #[inline]
    fn end(&self) -> u32 {
        self.origin.wrapping_add(self.bytes.len() as u32)
    }

    #[inline]
    fn offset(&self, entry: &Entry<M>) -> usize {
        entry.start.wrapping_sub(self.origin) as usize
    }

    #[inline]
    fn entry(&self, age: usize) -> Option<&Entry<M>> {
        self.entries.get(self.entries.len().checked_sub(age.checked_add(1)?)?)
    }

    #[inline]
    fn slices(&self, entry: &Entry<M>) -> Option<(&[u8], &[u8])> {
        let name = usize::from(entry.stored_name);
        let from = self.offset(entry);
        self.bytes.get(from..from + name + usize::from(entry.value))?.split_at_checked(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn name_of_an_entry_survives_its_eviction() {
        let mut table = Table::new(80);
        assert!(table.insert((), NameBytes::Text(b"custom-name"), b"first"));
        assert!(table.insert((), NameBytes::Entry(0), b"second"));
        assert_eq!((table.len(), table.size()), (1, 11 + 6 + 32));
        assert_eq!(table.get(0), Some(((), &b"custom-name"[..], &b"second"[..])));
    }

    #[test]
    fn what_is_larger_than_the_table_empties_it() {
        let mut table = Table::new(80);
        assert!(table.insert((), NameBytes::Text(b"a"), b"b"));
        assert!(!table.insert((), NameBytes::Text(b"a"), &[b'x'; 60]));
        assert_eq!((table.len(), table.size()), (0, 0));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(Vec<u8>, Vec<u8>),
        Again(usize, Vec<u8>),
        Resize(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = |n| proptest::collection::vec(any::<u8>(), 0..n);
        prop_oneof![
            8 => (bytes(40), bytes(90)).prop_map(|(n, v)| Step::Insert(n, v)),
            4 => (0..8usize, bytes(90)).prop_map(|(i, v)| Step::Again(i, v)),
            1 => (0..600usize).prop_map(Step::Resize),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_list_of_pairs(steps in proptest::collection::vec(step(), 1..200)) {
            let mut table = Table::new(400);
            let mut list: VecDeque<(Vec<u8>, Vec<u8>)> = VecDeque::new();
            let mut max = 400;
            let size = |list: &VecDeque<(Vec<u8>, Vec<u8>)>| -> usize {
                list.iter().map(|(n, v)| n.len() + v.len() + ENTRY_OVERHEAD).sum()
            };
            for step in steps {
                match step {
                    Step::Insert(name, value) => {
                        table.insert(0u8, NameBytes::Text(&name), &value);
                        list.push_front((name, value));
                    }
                    Step::Again(age, value) => {
                        let Some((name, _)) = list.get(age).cloned() else { continue };
                        table.insert(0u8, NameBytes::Entry(age), &value);
                        list.push_front((name, value));
                    }
                    Step::Resize(to) => {
                        max = to;
                        table.set_max_size(to);
                    }
                }
                while size(&list) > max {
                    list.pop_back();
                }
                prop_assert_eq!(table.len(), list.len());
                prop_assert_eq!(table.size(), size(&list));
                for (age, (name, value)) in list.iter().enumerate() {
                    prop_assert_eq!(table.get(age), Some((0u8, &name[..], &value[..])));
                }
                prop_assert!(table.bytes.capacity() <= 4 * 600, "{}", table.bytes.capacity());
            }
        }
    }
}
