//! What was found out and holds for a while, by the digest of what it was found out from. Shared by all workers.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};

/// The digest of what an answer depends on (SHA-256): nothing secret is kept, and nobody can make two keys alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of these parts. Where one ends and the next begins is part of it.
    pub fn of<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let mut digest = Context::new(&SHA256);
        for part in parts {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        let mut key = [0; 32];
        key.copy_from_slice(digest.finish().as_ref());
        Self(key)
    }

    /// Which of so many parts it belongs to; keys spread evenly.
    pub(crate) fn part(&self, parts: usize) -> usize {
        let Self([first, second, ..]) = self;
        usize::from(u16::from_le_bytes([*first, *second])) % parts
    }
}

/// Locks are taken for this many parts of the keys apart.
const SHARDS: usize = 16;

/// Values by key, each until its time. Bounded: when it is full, those that were not asked for the longest go first, as
/// far as two generations can tell.
pub struct Cache<V> {
    shards: Box<[Mutex<Shard<V>>]>,
    /// Most values of one generation of one shard.
    half: usize,
}

struct Shard<V> {
    young: HashMap<Key, Entry<V>>,
    old: HashMap<Key, Entry<V>>,
}

struct Entry<V> {
    value: V,
    /// Nanoseconds since 1970.
    until: u64,
}

impl<V: Clone> Cache<V> {
    /// Room for about `limit` values.
    pub fn new(limit: usize) -> Self {
        let shard = || Mutex::new(Shard { young: HashMap::new(), old: HashMap::new() });
        Self {
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
            half: (limit / SHARDS / 2).max(1),
        }
    }

    fn shard(&self, key: &Key) -> Option<&Mutex<Shard<V>>> {
        self.shards.get(key.part(SHARDS))
    }

    /// The value, if there is one and its time is not over.
    pub fn get(&self, key: &Key, now_unix_nanos: u64) -> Option<V> {
        let mut shard = self.shard(key)?.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = shard.young.get(key) {
            return (entry.until > now_unix_nanos).then(|| entry.value.clone());
        }
        let entry = shard.old.remove(key).filter(|entry| entry.until > now_unix_nanos)?;
        let value = entry.value.clone();
        self.put_in(&mut shard, *key, entry);
        Some(value)
    }

    /// Keeps a value until a time.
    pub fn put(&self, key: Key, value: V, until_unix_nanos: u64) {
        if let Some(shard) = self.shard(&key) {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            self.put_in(&mut shard, key, Entry { value, until: until_unix_nanos });
        }
    }

    fn put_in(&self, shard: &mut Shard<V>, key: Key, entry: Entry<V>) {
        if shard.young.len() >= self.half && !shard.young.contains_key(&key) {
            shard.old = std::mem::take(&mut shard.young);
        }
        shard.young.insert(key, entry);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.young.clear();
            shard.old.clear();
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap()).map(|s| s.young.len() + s.old.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        Key::of([&n.to_le_bytes()[..]])
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(Key::of([&b"ab"[..], b"c"]), Key::of([&b"a"[..], b"bc"]));
        assert_ne!(Key::of([&b""[..]]), Key::of(std::iter::empty::<&[u8]>()));
    }

    #[test]
    fn a_value_is_there_until_its_time() {
        let cache = Cache::new(100);
        cache.put(key(1), "a", 10);
        assert_eq!(
            (cache.get(&key(1), 9), cache.get(&key(1), 10), cache.get(&key(2), 0)),
            (Some("a"), None, None)
        );
        cache.put(key(1), "b", 20);
        assert_eq!(cache.get(&key(1), 15), Some("b"));
        cache.clear();
        assert_eq!(cache.get(&key(1), 15), None);
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_asked_for() {
        let cache = Cache::new(320);
        cache.put(key(0), 0, u64::MAX);
        for n in 1..10_000 {
            cache.put(key(n), n, u64::MAX);
            if n % 50 == 0 {
                cache.get(&key(0), 0);
            }
            assert!(cache.len() <= 320);
        }
        assert_eq!(cache.get(&key(0), 0), Some(0));
    }
}
