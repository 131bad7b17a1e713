//! A map that knows which of its values was used longest ago.

use std::collections::HashMap;
use std::hash::Hash;

/// No entry.
const NONE: usize = usize::MAX;

/// Values by key, in the order of their last use. Every operation takes constant time.
///
/// Keys come from clients: the hash of the standard library is seeded.
pub(crate) struct Sessions<K, V> {
    places: HashMap<K, usize>,
    entries: Vec<Entry<K, V>>,
    free: Vec<usize>,
    oldest: usize,
    newest: usize,
}

struct Entry<K, V> {
    key: K,
    value: Option<V>,
    older: usize,
    newer: usize,
}

impl<K, V> Default for Sessions<K, V> {
    fn default() -> Self {
        Self { places: HashMap::new(), entries: Vec::new(), free: Vec::new(), oldest: NONE, newest: NONE }
    }
}

impl<K: Copy + Eq + Hash, V> Sessions<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The value, which is now the one used last.
    pub(crate) fn touch(&mut self, key: &K) -> Option<&V> {
        let place = *self.places.get(key)?;
        if self.newest != place {
            self.unlink(place);
            self.link(place);
        }
        self.entries.get(place)?.value.as_ref()
    }

    /// Adds a value under a key that has none.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        let entry = Entry { key, value: Some(value), older: NONE, newer: NONE };
        let place = match self.free.pop() {
            Some(place) => place,
            None => self.entries.len(),
        };
        match self.entries.get_mut(place) {
            Some(slot) => *slot = entry,
            None => self.entries.push(entry),
        }
        self.places.insert(key, place);
        self.link(place);
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.places.remove(key)?;
        self.unlink(place);
        self.free.push(place);
        self.entries.get_mut(place)?.value.take()
    }

    /// Takes out the value that was used longest ago.
    pub(crate) fn pop_oldest(&mut self) -> Option<V> {
        let key = self.entries.get(self.oldest)?.key;
        self.remove(&key)
    }

    /// Takes out all values.
    pub(crate) fn drain(&mut self) -> Vec<V> {
        let all = std::mem::take(self);
        all.entries.into_iter().filter_map(|entry| entry.value).collect()
    }

    fn link(&mut self, place: usize) {
        let older = std::mem::replace(&mut self.newest, place);
        if let Some(entry) = self.entries.get_mut(place) {
            (entry.older, entry.newer) = (older, NONE);
        }
        match self.entries.get_mut(older) {
            Some(entry) => entry.newer = place,
            None => self.oldest = place,
        }
    }

    fn unlink(&mut self, place: usize) {
        let Some((older, newer)) = self.entries.get(place).map(|entry| (entry.older, entry.newer)) else {
            return;
        };
        match self.entries.get_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match self.entries.get_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_a_list() {
        let mut rng = rhumb_base::rng::Rng::new(7);
        let mut sessions = Sessions::default();
        let mut list: Vec<u32> = Vec::new();
        for _ in 0..20_000 {
            let key = rng.below(40);
            match rng.below(4) {
                0 if !list.contains(&key) => {
                    sessions.insert(key, key);
                    list.push(key);
                }
                1 => {
                    let removed = sessions.remove(&key);
                    assert_eq!(removed.is_some(), list.contains(&key));
                    list.retain(|other| *other != key);
                }
                2 if list.len() > 20 => assert_eq!(sessions.pop_oldest(), Some(list.remove(0))),
                _ => {
                    assert_eq!(sessions.touch(&key).copied(), list.contains(&key).then_some(key));
                    if let Some(at) = list.iter().position(|other| *other == key) {
                        let key = list.remove(at);
                        list.push(key);
                    }
                }
            }
            assert_eq!(sessions.len(), list.len());
            assert!(sessions.entries.len() <= 40, "places are used again");
        }
        let mut all = sessions.drain();
        all.sort_unstable();
        list.sort_unstable();
        assert_eq!(all, list);
        assert_eq!((sessions.len(), sessions.pop_oldest()), (0, None));
    }
}
