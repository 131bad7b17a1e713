//! The open streams of a connection.
//!
//! They lie side by side in one vector; a small table finds a place by the stream's number. Numbers are handed out in
//! order, so their lower bits are as good as a hash, and at most [`super::Config::max_concurrent_streams`] are in the
//! table, so a peer gains nothing by choosing them.

/// Which ends of a stream are open (RFC 9113 §5.1). Idle and closed streams are not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// We have sent END_STREAM.
    HalfClosedLocal,
    /// The peer has sent END_STREAM.
    HalfClosedRemote,
}

/// Content that is still to come when no Content-Length says.
pub(super) const UNKNOWN_LENGTH: u64 = u64::MAX;

/// What is remembered of an open stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) state: State,
    pub(super) flags: StreamFlags,
    /// Content that we may send; negative after the peer reduced its initial window (RFC 9113 §6.9.2).
    pub(super) send_window: i32,
    /// Content that the peer may send.
    pub(super) receive_window: i32,
    /// Content handed out and not released.
    pub(super) held: u32,
    /// Content released and not announced to the peer.
    pub(super) unannounced: u32,
    /// Since when sending waits for a window: milliseconds of the connection's clock plus one; 0 when it does not.
    pub(super) stalled: u32,
    /// Content that is still to come, or [`UNKNOWN_LENGTH`].
    pub(super) expected: u64,
}

/// Yes-or-no facts about a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamFlags(u8);

impl StreamFlags {
    /// Client: the final response has come. Server: it has been sent.
    pub(super) const RESPONDED: Self = Self(1);
    /// Client: the request was HEAD, so the response has no content.
    pub(super) const HEAD_REQUEST: Self = Self(1 << 1);
    /// The request was CONNECT.
    pub(super) const CONNECT: Self = Self(1 << 2);
    /// Server: the request was refused; what else comes is discarded.
    pub(super) const REFUSED: Self = Self(1 << 3);
    /// Wants to be told when it may send.
    pub(super) const WAITING: Self = Self(1 << 4);
    /// Is in the queue of streams that wait for the connection.
    pub(super) const QUEUED: Self = Self(1 << 5);
    /// The refused request was malformed: when its answer is complete, the stream is reset with PROTOCOL_ERROR.
    pub(super) const MALFORMED: Self = Self(1 << 6);

    #[inline]
    pub(super) fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    #[inline]
    pub(super) fn set(&mut self, flag: Self) {
        self.0 |= flag.0;
    }

    #[inline]
    pub(super) fn unset(&mut self, flag: Self) {
        self.0 &= !flag.0;
    }

    /// `flag` when `is_set`, else none.
    #[inline]
    pub(super) fn when(self, is_set: bool) -> Self {
        if is_set { self } else { Self(0) }
    }

    #[inline]
    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

const _: () = assert!(size_of::<Stream>() <= 48);

impl Stream {
    #[inline]
    pub(super) fn may_send(&self) -> bool {
        self.state != State::HalfClosedLocal
    }

    #[inline]
    pub(super) fn may_receive(&self) -> bool {
        self.state != State::HalfClosedRemote
    }
}

/// The open streams. See the module.
#[derive(Debug, Default)]
pub(super) struct Streams {
    list: Vec<Stream>,
    /// Place in `list` plus one by number; 0 is free. Linear probing, at most half full, length a power of two.
    places: Vec<u16>,
}

impl Streams {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Heap bytes held.
    pub(super) fn capacity(&self) -> usize {
        self.list.capacity() * size_of::<Stream>() + self.places.capacity() * size_of::<u16>()
    }

    /// Gives memory back when no stream is open.
    pub(super) fn trim(&mut self) {
        if self.list.is_empty() {
            *self = Self::default();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.list.iter_mut()
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<&Stream> {
        self.list.get(self.find(id)?.1)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Stream> {
        let (_, place) = self.find(id)?;
        self.list.get_mut(place)
    }

    /// Adds a stream whose number is not in use.
    pub(super) fn insert(&mut self, stream: Stream) {
        debug_assert!(self.get(stream.id).is_none());
        if (self.list.len() + 1) * 2 > self.places.len() {
            self.grow();
        }
        self.list.push(stream);
        self.place(stream.id, self.list.len());
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Stream> {
        let (at, place) = self.find(id)?;
        self.free(at);
        let removed = self.list.swap_remove(place);
        if let Some(moved) = self.list.get(place).map(|stream| stream.id) {
            // It was the last of the list and is where the removed one was.
            if let Some(at) = self.slot_of(moved, self.list.len() + 1)
                && let Some(slot) = self.places.get_mut(at)
            {
                *slot = u16::try_from(place + 1).unwrap_or(0);
            }
        }
        debug_assert!(self.list.iter().enumerate().all(|(i, s)| self.find(s.id).is_some_and(|f| f.1 == i)));
        Some(removed)
    }

    /// Slot and place of a stream.
    #[inline]
    fn find(&self, id: u32) -> Option<(usize, usize)> {
        let mask = self.places.len().checked_sub(1)?;
        let mut at = home(id) & mask;
        loop {
            let place = usize::from(*self.places.get(at)?).checked_sub(1)?;
            if self.list.get(place)?.id == id {
                return Some((at, place));
            }
            at = (at + 1) & mask;
        }
    }

    /// The slot that holds `value` for the stream `id`.
    fn slot_of(&self, id: u32, value: usize) -> Option<usize> {
        let mask = self.places.len().checked_sub(1)?;
        let mut at = home(id) & mask;
        loop {
            let found = usize::from(*self.places.get(at)?);
            if found == value {
                return Some(at);
            }
            if found == 0 {
                return None;
            }
            at = (at + 1) & mask;
        }
    }

    fn place(&mut self, id: u32, value: usize) {
        let Some(mask) = self.places.len().checked_sub(1) else { return };
        let mut at = home(id) & mask;
        while let Some(slot) = self.places.get_mut(at) {
            if *slot == 0 {
                *slot = u16::try_from(value).unwrap_or(0);
                return;
            }
            at = (at + 1) & mask;
        }
    }

    /// Empties a slot and moves the ones behind it up, so that no search stops early.
    fn free(&mut self, slot: usize) {
        let Some(mask) = self.places.len().checked_sub(1) else { return };
        let mut hole = slot;
        let mut at = slot;
        loop {
            at = (at + 1) & mask;
            let value = self.places.get(at).copied().unwrap_or(0);
            let Some(stream) = usize::from(value).checked_sub(1).and_then(|place| self.list.get(place))
            else {
                break;
            };
            // It may move into the hole unless its home lies between the hole and where it is.
            let distance_from_home = at.wrapping_sub(home(stream.id)) & mask;
            let distance_from_hole = at.wrapping_sub(hole) & mask;
            if distance_from_home >= distance_from_hole {
                if let Some(free) = self.places.get_mut(hole) {
                    *free = value;
                }
                hole = at;
            }
        }
        if let Some(free) = self.places.get_mut(hole) {
            *free = 0;
        }
    }

    fn grow(&mut self) {
        const LEAST: usize = 16;
        let len = (self.places.len() * 2).max(LEAST);
        self.places.clear();
        self.places.resize(len, 0);
        let ids: Vec<u32> = self.list.iter().map(|stream| stream.id).collect();
        for (id, value) in ids.into_iter().zip(1..) {
            self.place(id, value);
        }
    }
}

/// Streams of one side have numbers of one parity.
#[inline]
fn home(id: u32) -> usize {
    (id >> 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn stream(id: u32, held: u32) -> Stream {
        Stream {
            id,
            state: State::Open,
            flags: StreamFlags::default(),
            send_window: 0,
            receive_window: 0,
            held,
            unannounced: 0,
            stalled: 0,
            expected: UNKNOWN_LENGTH,
        }
    }

    proptest! {
        #[test]
        fn streams_behave_like_a_map(steps in proptest::collection::vec((0u32..400, any::<bool>()), 1..400)) {
            let mut streams = Streams::default();
            let mut map = BTreeMap::new();
            for (n, (id, insert)) in (0u32..).zip(steps) {
                // Far apart and close together: collisions of every kind.
                let id = if id % 3 == 0 { id * 1024 + 1 } else { id * 2 + 1 };
                if insert && !map.contains_key(&id) {
                    streams.insert(stream(id, n));
                    map.insert(id, n);
                } else {
                    prop_assert_eq!(streams.remove(id).map(|s| s.held), map.remove(&id));
                }
                prop_assert_eq!(streams.len(), map.len());
                prop_assert_eq!(streams.get(id).map(|s| s.held), map.get(&id).copied());
            }
            for (id, held) in &map {
                prop_assert_eq!(streams.get(*id).map(|s| s.held), Some(*held));
            }
        }
    }
}
