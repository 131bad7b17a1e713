//! Bytes that wait to be written.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use rhumb_net::buffer::Charge;

use crate::io::Io;

/// Writers stop taking content while so many bytes wait: back-pressure towards the other side.
pub const HIGH_WATER: usize = 64 << 10;

/// Content up to this size is copied behind waiting bytes, to go out with them in one piece; larger content is written
/// from where it is.
pub const COPY_MAX: usize = 4 << 10;

/// Buffers that a worker keeps for the next writer.
const KEPT: usize = 32;

/// A kept buffer is at most this large.
const KEPT_CAPACITY: usize = 128 << 10;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Output of one connection. Holds no memory while nothing waits.
#[derive(Default)]
pub struct Output {
    waiting: Vec<u8>,
    written: usize,
    /// TLS holds ciphertext that the socket did not take.
    is_unflushed: bool,
    /// The connection ends behind what waits.
    is_last: bool,
    charge: Charge,
}

impl Output {
    /// Where encoders append.
    #[inline]
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.waiting.capacity() == 0 {
            self.waiting =
                FREE.with(|free| free.borrow_mut().pop()).unwrap_or_else(|| Vec::with_capacity(4 << 10));
        } else if self.written >= HIGH_WATER {
            // A peer that reads as fast as content comes, always a little behind, would make the buffer grow for ever.
            self.waiting.drain(..self.written);
            self.written = 0;
        }
        // As it was left by the last writer: what this one adds is seen at the next call.
        self.charge.set(self.waiting.capacity());
        &mut self.waiting
    }

    /// What waits is the last: as soon as it is written, the connection is ended.
    pub fn end(&mut self) {
        self.is_last = true;
    }

    /// Bytes that wait.
    #[inline]
    pub fn pending(&self) -> usize {
        self.waiting.len() - self.written
    }

    /// True when nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.pending() == 0 && !self.is_unflushed
    }

    /// Writes content behind what waits: copied when it is small, else straight from `data`; what the stream does not
    /// take is kept.
    ///
    /// # Errors
    /// The stream's error; it is useless then.
    pub fn write(&mut self, io: &mut Io, cx: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        if self.pending() > 0 && data.len() <= COPY_MAX {
            self.buffer().extend_from_slice(data);
            return Ok(());
        }
        let mut rest = data;
        loop {
            let waiting = self.waiting.get(self.written..).unwrap_or_default();
            let taken = match (waiting.is_empty(), rest.is_empty()) {
                (true, true) => break,
                (true, false) => io.poll_write(cx, rest),
                (false, true) => io.poll_write(cx, waiting),
                (false, false) => io.poll_write_both(cx, waiting, rest),
            };
            match taken {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => {
                    self.is_unflushed = true;
                    let from_waiting = n.min(waiting.len());
                    self.written += from_waiting;
                    rest = rest.get(n - from_waiting..).unwrap_or_default();
                    if self.written == self.waiting.len() {
                        self.recycle();
                    }
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    self.buffer().extend_from_slice(rest);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Ready when everything has been written.
    ///
    /// # Errors
    /// The stream's error; it is useless then.
    #[inline]
    pub fn poll_flush(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.waiting.len() {
            let waiting = self.waiting.get(self.written..).unwrap_or_default();
            let written = match self.is_last {
                true => io.poll_write_last(cx, waiting),
                false => io.poll_write(cx, waiting),
            };
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => {
                    self.written += n;
                    self.is_unflushed = true;
                }
            }
        }
        self.recycle();
        if self.is_unflushed {
            ready!(io.poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn recycle(&mut self) {
        self.written = 0;
        self.waiting.clear();
        if self.waiting.capacity() == 0 {
            return;
        }
        let buffer = std::mem::take(&mut self.waiting);
        self.charge.set(0);
        if buffer.capacity() <= KEPT_CAPACITY {
            FREE.with(|free| {
                let mut free = free.borrow_mut();
                if free.len() < KEPT {
                    free.push(buffer);
                }
            });
        }
    }
}
