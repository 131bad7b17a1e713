//! A map from (number, bytes) to a number, made for few cache misses: open addressing, short slots, one
//! arena of keys.
//!
//! Keys come from configuration, never from a peer: a peer can ask for any key but cannot lengthen a probe.

use foldhash::{HashMap, HashMapExt};

/// See the module. Never forgets a key; at most three quarters full.
#[derive(Clone, Debug, Default)]
pub(crate) struct ByteMap {
    slots: Box<[Slot]>,
    used: usize,
    /// Each distinct key once, after its length in two bytes: `/items` below a thousand parents stays in the cache.
    keys: Vec<u8>,
}

/// A quarter of a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
struct Slot {
    hash: u32,
    parent: u32,
    /// [`FREE`] when the slot is free.
    value: u32,
    /// Where the key lies, length first.
    key: u32,
}

const FREE: u32 = u32::MAX;
const SMALLEST: usize = 4;

/// Puts keys into a [`ByteMap`]: remembers where each distinct key lies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    pub(crate) map: ByteMap,
    places: HashMap<Box<[u8]>, u32>,
}

impl Writer {
    /// The value of a key, which is `value()` (not `u32::MAX`) when there was none. Keys are cut at 65 535 bytes; those
    /// of configuration are far shorter.
    pub(crate) fn get_or_insert(&mut self, parent: u32, key: &[u8], value: impl FnOnce() -> u32) -> u32 {
        let map = &mut self.map;
        if (map.used + 1) * 4 > map.slots.len() * 3 {
            map.grow();
        }
        let len = u16::try_from(key.len()).unwrap_or(u16::MAX);
        let key = key.get(..usize::from(len)).unwrap_or_default();
        let hash = hash(parent, key);
        let free = match map.find(hash, parent, |slot| map.key(slot.key) == key) {
            Ok(value) => return value,
            Err(free) => free,
        };
        let place = match self.places.get(key) {
            Some(&place) => place,
            None => {
                let place = saturating(map.keys.len());
                map.keys.extend_from_slice(&len.to_le_bytes());
                map.keys.extend_from_slice(key);
                self.places.insert(key.into(), place);
                place
            }
        };
        let value = value();
        if let Some(slot) = map.slots.get_mut(free) {
            *slot = Slot { hash, parent, value, key: place };
            map.used += 1;
        }
        value
    }

    /// Forgets what only writing needs.
    pub(crate) fn seal(&mut self) {
        self.places = HashMap::new();
    }
}

impl ByteMap {
    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The value of a key.
    #[inline]
    pub(crate) fn get(&self, parent: u32, key: &[u8]) -> Option<u32> {
        self.find(hash(parent, key), parent, |slot| self.key(slot.key) == key).ok()
    }

    /// The value of a key for a caller who can tell by the value whether it is the key's, and so spares a cache miss.
    #[inline]
    pub(crate) fn get_if(&self, parent: u32, key: &[u8], is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.find(hash(parent, key), parent, |slot| is_it(slot.value)).ok()
    }

    /// The value, or the slot where it would be put.
    #[inline]
    fn find(&self, hash: u32, parent: u32, is_it: impl Fn(&Slot) -> bool) -> Result<u32, usize> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash as usize & mask;
        // Ends: a quarter of the slots is free, and an empty map has no slot at all.
        while let Some(slot) = self.slots.get(at) {
            if slot.value == FREE {
                return Err(at);
            }
            if slot.hash == hash && slot.parent == parent && is_it(slot) {
                return Ok(slot.value);
            }
            at = (at + 1) & mask;
        }
        Err(at)
    }

    /// Every entry: parent, place of the key, value.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u32, u32, u32)> {
        self.slots.iter().filter(|slot| slot.value != FREE).map(|slot| (slot.parent, slot.key, slot.value))
    }

    /// The key at a place.
    #[inline]
    pub(crate) fn key(&self, place: u32) -> &[u8] {
        let tail = self.keys.get(place as usize..).unwrap_or_default();
        let Some((len, tail)) = tail.split_first_chunk::<2>() else { return &[] };
        tail.get(..usize::from(u16::from_le_bytes(*len))).unwrap_or_default()
    }

    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(SMALLEST);
        let free = Slot { hash: 0, parent: 0, value: FREE, key: 0 };
        let old = std::mem::replace(&mut self.slots, vec![free; len].into_boxed_slice());
        let mask = len - 1;
        for slot in old.iter().filter(|slot| slot.value != FREE) {
            let mut at = slot.hash as usize & mask;
            while self.slots.get(at).is_some_and(|other| other.value != FREE) {
                at = (at + 1) & mask;
            }
            if let Some(to) = self.slots.get_mut(at) {
                *to = *slot;
            }
        }
    }
}

/// Tables are far below 2³² entries and bytes: memory would end first.
pub(crate) fn saturating(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Folded 64×64→128 bit multiplications over words of eight bytes; the last word overlaps the one before.
#[inline]
fn hash(seed: u32, key: &[u8]) -> u32 {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xd6e8_feb8_6659_fd93;
    let mut state = (u64::from(seed) << 32 | key.len() as u64) ^ A;
    if let Some(last) = key.last_chunk::<8>() {
        let mut rest = key;
        while let Some((word, tail)) = rest.split_first_chunk::<8>() {
            state = fold(state ^ u64::from_le_bytes(*word), B);
            rest = tail;
        }
        state = fold(state ^ u64::from_le_bytes(*last), A);
    } else if let (Some(first), Some(last)) = (key.first_chunk::<4>(), key.last_chunk::<4>()) {
        let word = u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last));
        state = fold(state ^ word, B);
    } else {
        let word = key.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
        state = fold(state ^ word, B);
    }
    (state ^ state >> 32) as u32
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_and_no_other() {
        let mut writer = Writer::default();
        let mut reference = HashMap::new();
        assert_eq!(writer.map.get(0, b""), None);
        for i in 0..5000u32 {
            let key = format!("{}{}", "k".repeat((i % 20) as usize), i / 3);
            let (parent, value) = (i % 7, i);
            let stored = *reference.entry((parent, key.clone())).or_insert(value);
            assert_eq!(writer.get_or_insert(parent, key.as_bytes(), || value), stored);
        }
        let map = writer.map;
        for ((parent, key), value) in &reference {
            assert_eq!(map.get(*parent, key.as_bytes()), Some(*value));
            assert_eq!(map.get(parent + 7, key.as_bytes()), None);
            assert_eq!(map.get(*parent, format!("{key}!").as_bytes()), None);
        }
        assert_eq!(map.used, reference.len());
    }

    #[test]
    fn similar_keys_spread() {
        let mut buckets = [0u32; 64];
        for i in 0..6400 {
            buckets[(hash(1, format!("segment-{i}").as_bytes()) % 64) as usize] += 1;
        }
        assert!(buckets.iter().all(|&n| (50..200).contains(&n)), "{buckets:?}");
    }
}
