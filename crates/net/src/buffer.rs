//! Buffers that a worker lends to its connections.
//!
//! A connection holds a buffer only while it has bytes that cannot go on: an idle one holds none. Each worker keeps a
//! few buffers for the next reader, so taking one costs no allocation.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};

/// Size of a lent buffer, in bytes: holds the largest message head, and one read of a body.
pub const SIZE: usize = 64 << 10;

/// Where in its allocation a buffer begins, in bytes. Large allocations begin on a page; copying from there to the first
/// bytes of another page takes the slow path of some processors' `rep movsb` (measured with TLS: 2.6 µs less per 16 KiB).
const SHIFT: usize = 64;

/// Buffers that a worker keeps for reuse; more are freed.
pub const KEPT: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static IN_USE: Cell<usize> = const { Cell::new(0) };
}

/// Memory in buffers that connections of this worker hold, in bytes: lent ones, and what is [charged](Charge).
pub fn in_use() -> usize {
    IN_USE.with(Cell::get)
}

/// A connection's account of memory that is not a lent buffer: output that waits. Settled when dropped.
#[derive(Default)]
pub struct Charge(usize);

impl Charge {
    /// Sets how much it is, in bytes.
    #[inline]
    pub fn set(&mut self, bytes: usize) {
        if bytes != self.0 {
            // During thread exit nobody asks any more.
            let _ =
                IN_USE.try_with(|in_use| in_use.set(in_use.get().wrapping_sub(self.0).wrapping_add(bytes)));
            self.0 = bytes;
        }
    }
}

impl Drop for Charge {
    #[inline]
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A buffer of [`SIZE`] bytes that goes back to its worker when dropped.
pub struct Buffer(Option<Box<[u8]>>);

impl Buffer {
    /// Takes a buffer. Its content is whatever was there.
    #[inline]
    pub fn take() -> Self {
        let kept = FREE.with(|free| free.borrow_mut().pop());
        IN_USE.with(|in_use| in_use.set(in_use.get().wrapping_add(SIZE)));
        Self(Some(kept.unwrap_or_else(|| vec![0; SHIFT + SIZE].into_boxed_slice())))
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        let Some(bytes) = self.0.take() else { return };
        let _ = IN_USE.try_with(|in_use| in_use.set(in_use.get().wrapping_sub(SIZE)));
        // During thread exit the list is gone: then the buffer is simply freed.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.as_deref().and_then(|bytes| bytes.get(SHIFT..)).unwrap_or_default()
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().and_then(|bytes| bytes.get_mut(SHIFT..)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_buffer_is_lent_again() {
        let mut first = Buffer::take();
        first[0] = 7;
        let at = first.as_ptr();
        drop(first);
        let second = Buffer::take();
        assert_eq!((second.as_ptr(), second[0], second.len()), (at, 7, SIZE));
    }

    #[test]
    fn what_is_held_is_counted() {
        let before = in_use();
        let lent = Buffer::take();
        let mut charge = Charge::default();
        charge.set(1000);
        charge.set(400);
        assert_eq!(in_use(), before + SIZE + 400);
        drop((lent, charge));
        assert_eq!(in_use(), before);
    }

    #[test]
    fn only_a_few_are_kept() {
        let many: Vec<_> = (0..KEPT + 5).map(|_| Buffer::take()).collect();
        drop(many);
        assert_eq!(FREE.with(|free| free.borrow().len()), KEPT);
    }
}
