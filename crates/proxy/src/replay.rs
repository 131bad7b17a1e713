//! Request content that is kept for another attempt.

use std::cell::Cell;

use rhumb_net::buffer::Charge;

/// Content that the exchanges of one worker keep together, in bytes. What comes when there is no room is not kept, so
/// that its request is not repeated.
pub(crate) const REPLAY_TOTAL: usize = 16 << 20;

thread_local! {
    /// Bytes that are kept. A worker is a thread.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// The content of one request, as far as it was sent, or nothing once not all of it is at hand.
pub(crate) struct Replay {
    kept: Vec<u8>,
    /// What is kept is among the buffers that overload weighs.
    charge: Charge,
    limit: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Everything that was sent is here.
    Whole,
    /// Something was sent and is not kept.
    GivenUp,
    /// The same, because the worker had no room.
    NoRoom,
}

impl Replay {
    /// Nothing was sent yet.
    pub(crate) fn new() -> Self {
        Self { kept: Vec::new(), charge: Charge::default(), limit: 0, state: State::Whole }
    }

    /// Keeps up to this much from here on.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Keeps what is sent, if everything before was kept and there is room.
    #[inline]
    pub(crate) fn push(&mut self, data: &[u8]) {
        if self.state == State::Whole && !data.is_empty() {
            self.keep(data);
        }
    }

    fn keep(&mut self, data: &[u8]) {
        if self.kept.len().saturating_add(data.len()) > self.limit {
            return self.give_up();
        }
        let has_room = HELD.with(|held| {
            let after = held.get().saturating_add(data.len());
            let has_room = after <= REPLAY_TOTAL;
            if has_room {
                held.set(after);
            }
            has_room
        });
        if has_room {
            self.kept.extend_from_slice(data);
            self.charge.set(self.kept.capacity());
        } else {
            self.give_up();
            self.state = State::NoRoom;
        }
    }

    /// Something is sent that cannot be sent again.
    pub(crate) fn give_up(&mut self) {
        self.release();
        if self.state == State::Whole {
            self.state = State::GivenUp;
        }
    }

    /// True when content of this length would be kept whole.
    pub(crate) fn would_keep(&self, length: u64) -> bool {
        self.state == State::Whole && (self.kept.len() as u64).saturating_add(length) <= self.limit as u64
    }

    /// Everything that was sent; `None` when not all of it is at hand.
    pub(crate) fn whole(&self) -> Option<&[u8]> {
        (self.state == State::Whole).then_some(&*self.kept)
    }

    /// True when content was given up because the worker had no room.
    pub(crate) fn had_no_room(&self) -> bool {
        self.state == State::NoRoom
    }

    /// Forgets what is kept: no attempt will follow.
    fn release(&mut self) {
        let kept = std::mem::take(&mut self.kept);
        self.charge.set(0);
        if !kept.is_empty() {
            // During thread exit the count is gone, and nobody asks.
            let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(kept.len())));
        }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(limit: usize) -> Replay {
        let mut replay = Replay::new();
        replay.set_limit(limit);
        replay
    }

    #[test]
    fn content_is_whole_or_nothing() {
        let mut one = replay(5);
        assert!(one.would_keep(5) && !one.would_keep(6));
        one.push(b"abc");
        one.push(b"");
        one.push(b"de");
        assert_eq!(one.whole(), Some(&b"abcde"[..]));
        one.push(b"f");
        assert_eq!((one.whole(), one.had_no_room()), (None, false));
        one.push(b"");
        assert_eq!(one.whole(), None);
    }

    #[test]
    fn a_worker_keeps_no_more_than_its_room_and_gets_it_back() {
        let mut all: Vec<_> = (0..REPLAY_TOTAL >> 20).map(|_| replay(1 << 20)).collect();
        let mebibyte = vec![7; 1 << 20];
        all.iter_mut().for_each(|one| one.push(&mebibyte));
        assert!(all.iter().all(|one| one.whole().is_some()));
        assert!(rhumb_net::buffer::in_use() >= REPLAY_TOTAL, "overload knows of it");
        let mut late = replay(10);
        late.push(b"x");
        assert_eq!((late.whole(), late.had_no_room()), (None, true));
        all.pop();
        let mut later = replay(10);
        later.push(b"x");
        assert_eq!(later.whole(), Some(&b"x"[..]));
        drop(all);
        drop(later);
        assert_eq!((HELD.with(Cell::get), rhumb_net::buffer::in_use()), (0, 0));
    }
}
