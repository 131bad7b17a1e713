//! What a worker has worked out before: results by the hash of what they were worked out from.
//!
//! Each worker has a memory of its own, so nothing is locked. It keeps two generations: a new one begins when the present one
//! has half of the limit, and the one before is forgotten, unless asked for again. Nothing has to be searched for what is old.

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use foldhash::{HashMap, HashMapExt};

/// A hash that no two inputs share: SHA-256, or HMAC with it.
pub(crate) type Digest = [u8; 32];

/// The part of a policy that remembers. The memory is gone when the policy is.
pub(crate) struct Memory<V> {
    id: u64,
    alive: Arc<()>,
    limit: usize,
    value: PhantomData<fn() -> V>,
}

struct Generations<V> {
    young: HashMap<Digest, V>,
    old: HashMap<Digest, V>,
}

type Kept = HashMap<u64, (Weak<()>, Box<dyn Any>)>;

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::new(Kept::new());
}

impl<V: Clone + 'static> Memory<V> {
    /// Remembers at most `limit` results on each worker.
    pub(crate) fn new(limit: usize) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        Self { id, alive: Arc::new(()), limit, value: PhantomData }
    }

    /// What was remembered, unless it is too old.
    pub(crate) fn get(&self, key: &Digest) -> Option<V> {
        KEPT.with_borrow_mut(|kept| {
            let (_, kept) = kept.get_mut(&self.id)?;
            let kept = kept.downcast_mut::<Generations<V>>()?;
            if let Some(value) = kept.young.get(key) {
                return Some(value.clone());
            }
            let value = kept.old.remove(key)?;
            self.put(kept, *key, value.clone());
            Some(value)
        })
    }

    /// Remembers.
    pub(crate) fn insert(&self, key: Digest, value: V) {
        KEPT.with_borrow_mut(|kept| {
            if !kept.contains_key(&self.id) {
                // Policies come and go with configurations: this is when those before are forgotten.
                kept.retain(|_, (alive, _)| alive.strong_count() > 0);
            }
            let (_, kept) = kept.entry(self.id).or_insert_with(|| {
                let generations = Generations::<V> { young: HashMap::new(), old: HashMap::new() };
                (Arc::downgrade(&self.alive), Box::new(generations))
            });
            if let Some(kept) = kept.downcast_mut::<Generations<V>>() {
                self.put(kept, key, value);
            }
        });
    }

    fn put(&self, kept: &mut Generations<V>, key: Digest, value: V) {
        if kept.young.len() >= self.limit.div_ceil(2) {
            kept.old = std::mem::take(&mut kept.young);
        }
        kept.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Digest {
        [number; 32]
    }

    #[test]
    fn what_is_asked_for_stays_and_the_bound_holds() {
        let memory = Memory::new(8);
        for number in 0..100u8 {
            memory.insert(key(number), number);
            assert_eq!(memory.get(&key(0)), Some(0), "{number}");
        }
        let there = (0..100u8).filter(|&number| memory.get(&key(number)).is_some()).count();
        assert!((4..=8).contains(&there), "{there}");
    }

    #[test]
    fn memories_are_apart_and_go_with_their_policies() {
        let (first, second) = (Memory::new(8), Memory::new(8));
        first.insert(key(1), 1u8);
        assert_eq!((first.get(&key(1)), second.get(&key(1))), (Some(1), None));
        drop(first);
        second.insert(key(1), 2);
        KEPT.with_borrow(|kept| assert_eq!(kept.len(), 1));
    }
}
