//! Bytes that came and were not used yet.

use std::io;
use std::task::{Context, Poll};

use rhumb_net::buffer::{Buffer, SIZE};

use crate::io::Io;

/// Bytes that a waiting connection may keep in a lent buffer; more is kept there, less is copied out and the buffer
/// goes back, so that many connections with half a message each do not hold a large buffer each.
pub const KEEP_SMALL: usize = 4 << 10;

/// Input of one connection. Holds no memory while it is empty.
#[derive(Default)]
pub struct Input {
    lent: Option<Buffer>,
    start: usize,
    end: usize,
    small: Vec<u8>,
}

impl Input {
    /// Bytes at hand.
    #[inline]
    pub fn data(&self) -> &[u8] {
        match &self.lent {
            Some(buffer) => buffer.get(self.start..self.end).unwrap_or_default(),
            None => &self.small,
        }
    }

    /// Bytes at hand, to be decoded in place.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        match &mut self.lent {
            Some(buffer) => buffer.get_mut(self.start..self.end).unwrap_or_default(),
            None => &mut self.small,
        }
    }

    /// True when there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.data().is_empty()
    }

    /// Forgets the first `n` bytes; gives the buffer back with the last one.
    #[inline]
    pub fn consume(&mut self, n: usize) {
        if self.lent.is_some() {
            self.start = (self.start + n).min(self.end);
            if self.start == self.end {
                self.lent = None;
                (self.start, self.end) = (0, 0);
            }
        } else {
            self.small.drain(..n.min(self.small.len()));
        }
    }

    /// True when no more bytes fit before some are consumed.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.data().len() >= SIZE
    }

    /// Reads once behind the bytes at hand. 0 means that the peer has finished sending.
    ///
    /// # Errors
    /// The stream's error. `OutOfMemory` when the input is full: check [`Input::is_full`] first.
    #[inline]
    pub fn poll_fill(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.is_full() {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        let (small, start, end) = (&mut self.small, &mut self.start, &mut self.end);
        let buffer = self.lent.get_or_insert_with(|| {
            let mut buffer = Buffer::take();
            if let Some(room) = buffer.get_mut(..small.len()) {
                room.copy_from_slice(small);
            }
            (*start, *end) = (0, small.len());
            *small = Vec::new();
            buffer
        });
        if *end == buffer.len() {
            buffer.copy_within(*start..*end, 0);
            (*start, *end) = (0, *end - *start);
        }
        let room = buffer.get_mut(*end..).unwrap_or_default();
        match io.poll_read(cx, room) {
            Poll::Ready(Ok(n)) => {
                *end += n;
                if n == 0 {
                    self.settle();
                }
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(error)) => {
                self.settle();
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                self.settle();
                Poll::Pending
            }
        }
    }

    /// Gives a large buffer back when little or nothing is in it.
    fn settle(&mut self) {
        let len = self.end - self.start;
        if len <= KEEP_SMALL
            && let Some(buffer) = self.lent.take()
        {
            self.small = buffer.get(self.start..self.end).unwrap_or_default().to_vec();
            (self.start, self.end) = (0, 0);
        }
    }
}
