//! What was seen, for somebody else who puts it together with what others saw.
//!
//! Traffic repeats itself: what has not been told yet is told at once, and what has been is told again once a minute while
//! it comes.

use std::collections::HashMap;

use super::glimpse::Glimpse;

/// Shapes of requests that are remembered at most.
const SHAPES: usize = 4_096;

/// After how long what was told is told again. Unit: seconds.
const AGAIN: u64 = 60;

/// After how long without such requests it is forgotten that they were told. Unit: seconds.
const FORGOTTEN: u64 = 3_600;

/// Glimpses that are told at a time at most; what is left goes first the next time.
const MOST: usize = 1_024;

/// What waits to be told.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) is_wanted: bool,
    shapes: HashMap<u64, Shape>,
}

#[derive(Debug, Default)]
struct Shape {
    /// What has come since it was told.
    news: Option<Box<Glimpse>>,
    /// When it was told. Unit: seconds since 1970.
    told_at: Option<u64>,
}

/// Something to tell, as bytes.
#[derive(Clone, Debug)]
pub struct Untold {
    shape: u64,
    glimpse: Box<Glimpse>,
    now: u64,
}

impl Untold {
    /// As bytes.
    pub fn write(&self) -> Vec<u8> {
        self.glimpse.write(self.now)
    }
}

impl Outbox {
    /// False when there is no room for it.
    pub(super) fn add(&mut self, shape: u64, glimpse: Glimpse) -> bool {
        if !self.is_wanted {
            return true;
        }
        if self.shapes.len() >= SHAPES && !self.shapes.contains_key(&shape) {
            return false;
        }
        let known = self.shapes.entry(shape).or_default();
        match &mut known.news {
            Some(news) => news.join(&glimpse),
            None => known.news = Some(Box::new(glimpse)),
        }
        true
    }

    /// What is to be told. `now`: seconds since 1970.
    pub(super) fn take(&mut self, now: u64) -> Vec<Untold> {
        self.shapes.retain(|_, shape| {
            shape.news.is_some() || shape.told_at.is_none_or(|at| now.saturating_sub(at) < FORGOTTEN)
        });
        let is_due = |shape: &Shape| shape.told_at.is_none_or(|at| now.saturating_sub(at) >= AGAIN);
        let mut due: Vec<_> =
            self.shapes.iter_mut().filter(|(_, shape)| shape.news.is_some() && is_due(shape)).collect();
        due.sort_unstable_by_key(|(number, shape)| (shape.told_at, **number));
        let mut taken = Vec::with_capacity(due.len().min(MOST));
        for (number, shape) in due.into_iter().take(MOST) {
            if let Some(glimpse) = shape.news.take() {
                shape.told_at = Some(now);
                taken.push(Untold { shape: *number, glimpse, now });
            }
        }
        taken
    }

    /// Takes back what could not be told.
    pub(super) fn put_back(&mut self, untold: Vec<Untold>) {
        for Untold { shape, glimpse, .. } in untold {
            if self.add(shape, *glimpse)
                && let Some(known) = self.shapes.get_mut(&shape)
            {
                known.told_at = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glimpse(count: u64) -> Glimpse {
        Glimpse { path: "/".to_owned(), at: 50, count, ..Glimpse::default() }
    }

    fn outbox() -> Outbox {
        Outbox { is_wanted: true, ..Outbox::default() }
    }

    fn counts(outbox: &mut Outbox, now: u64) -> Vec<u64> {
        outbox.take(now).iter().map(|untold| untold.glimpse.count).collect()
    }

    #[test]
    fn what_is_new_is_told_at_once_and_what_repeats_itself_once_a_minute() {
        let mut outbox = outbox();
        assert!(outbox.add(1, glimpse(2)) && outbox.add(1, glimpse(3)));
        assert_eq!(counts(&mut outbox, 100), [5]);
        outbox.add(1, glimpse(1));
        outbox.add(2, glimpse(7));
        assert_eq!(counts(&mut outbox, 110), [7]);
        outbox.add(1, glimpse(1));
        assert_eq!(counts(&mut outbox, 100 + AGAIN), [2]);
        assert!(outbox.take(100 + 2 * AGAIN).is_empty(), "nothing where nothing has come");
        outbox.take(200 + FORGOTTEN);
        assert!(outbox.shapes.is_empty());
    }

    #[test]
    fn what_could_not_be_told_is_told_the_next_time() {
        let mut outbox = outbox();
        outbox.add(1, glimpse(2));
        let untold = outbox.take(100);
        outbox.add(1, glimpse(1));
        outbox.put_back(untold);
        assert_eq!(counts(&mut outbox, 101), [3]);
    }

    #[test]
    fn what_waits_is_bounded_and_nothing_waits_that_nobody_wants() {
        let mut outbox = outbox();
        let kept = (0..2 * SHAPES as u64).filter(|number| outbox.add(*number, glimpse(1))).count();
        assert_eq!((kept, outbox.shapes.len()), (SHAPES, SHAPES));
        let told: usize = (0..SHAPES / MOST).map(|_| counts(&mut outbox, 100).len()).sum();
        assert_eq!((told, counts(&mut outbox, 100).len()), (SHAPES, 0));
        let mut unwanted = Outbox::default();
        assert!(unwanted.add(1, glimpse(1)) && unwanted.shapes.is_empty());
    }
}
