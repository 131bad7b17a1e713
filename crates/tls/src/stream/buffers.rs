//! The buffers: those lent by the thread, and those that a connection holds only while it must.

use std::cell::Cell;

/// The most plaintext that one [`TlsStream::poll_write`](crate::TlsStream::poll_write) takes: four full records. Unit: bytes.
pub const MAX_WRITE: usize = 64 * 1024;

/// The least ciphertext room of one read: a full record with its overhead (RFC 5246 §6.2.3:
/// 2^14 + 2048 and a header), however small the caller's buffer. Unit: bytes.
pub(super) const MIN_READ: usize = 5 + 16 * 1024 + 2048;

/// Ciphertext read at once. Unit: bytes.
pub(super) const MAX_READ: usize = 64 * 1024;

/// What may wait in front of a read: an incomplete record, and an incomplete handshake message,
/// which rustls bounds at 64 KiB. Unit: bytes.
const MAX_INCOMPLETE: usize = 96 * 1024;

/// Protocol messages up to this size wait for the application's next write and go out with it in
/// one send. Unit: bytes.
pub(super) const COALESCE: usize = 4 * 1024;

/// Room for record headers, nonces and tags of [`MAX_WRITE`] in as many records as one vectored
/// write makes of it (about 30, each with at most 5 + 8 + 16 + 1 bytes), and for a key update
/// before them. Unit: bytes.
pub(super) const WRITE_OVERHEAD: usize = 4 * 1024;

/// Two buffers that a thread lends to the connection that runs: ciphertext in and ciphertext out.
///
/// One per worker thread is enough; nothing in it outlives a call.
pub struct Scratch {
    pub(super) input: Box<[u8]>,
    pub(super) output: Box<[u8]>,
}

impl Scratch {
    /// Allocates the buffers, about 230 KiB together; their pages are only touched as used.
    #[must_use]
    pub fn new() -> Self {
        Self {
            input: vec![0; MAX_INCOMPLETE + MAX_READ].into(),
            output: vec![0; COALESCE + MAX_WRITE + WRITE_OVERHEAD].into(),
        }
    }

    /// Lends this thread's buffers, made on first use. Where they are lent already (a stream over
    /// a stream) the inner caller gets others for the moment.
    pub fn lend<R>(borrower: impl FnOnce(&mut Self) -> R) -> R {
        thread_local! {
            static OURS: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
        }
        // During thread exit the cell is gone: then the buffers are simply made and freed.
        let kept = OURS.try_with(Cell::take).ok().flatten();
        let mut scratch = kept.unwrap_or_default();
        let result = borrower(&mut scratch);
        let _ = OURS.try_with(|ours| ours.set(Some(scratch)));
        result
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes waiting to go on, and how many of them have gone. Empty means without allocation.
#[derive(Default)]
pub(super) struct Leftover {
    pub(super) bytes: Vec<u8>,
    start: usize,
}

impl Leftover {
    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start >= self.bytes.len()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.start)
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn consume(&mut self, len: usize) {
        self.start += len;
        if self.is_empty() {
            self.clear();
        }
    }

    /// Gives the memory back: an idle connection holds none.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Where plaintext goes: the caller's buffer, then the leftover.
pub(super) struct Sink<'a> {
    pub(super) dst: &'a mut [u8],
    pub(super) filled: usize,
    pub(super) rest: &'a mut Leftover,
}

impl Sink<'_> {
    pub(super) fn push(&mut self, plaintext: &[u8]) {
        let room = self.dst.get_mut(self.filled..).unwrap_or_default();
        let (now, later) = plaintext.split_at(plaintext.len().min(room.len()));
        if let Some(room) = room.get_mut(..now.len()) {
            room.copy_from_slice(now);
        }
        self.filled += now.len();
        if !later.is_empty() {
            self.rest.push(later);
        }
    }
}
