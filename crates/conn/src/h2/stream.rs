//! One stream: the exchange's side of an HTTP/2 connection.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use rhumb_base::failure::{Cause, Failure};
use rhumb_codec::field::Fields;
use rhumb_codec::h2::{ErrorCode, StreamId};
use rhumb_codec::head::{Content, RequestHead, ResponseHead};

use super::shared::{Cell, Slot, id_of};
use crate::{MAX_INTERIM, Part};

/// A stream. Dropping it ends whatever is open of it.
pub struct Stream {
    shared: Cell,
    id: StreamId,
    is_server: bool,
    /// The part of content that was given out last, and the bytes of the window that it holds.
    part: Vec<u8>,
    flow: u32,
    /// Interim responses that were given out.
    interims: u32,
    /// Content that windows had no room for.
    waiting: Vec<u8>,
    written: usize,
    /// Content still to be sent, when the head said how much.
    left: Option<u64>,
    end: End,
    was_aborted: bool,
}

enum End {
    Open,
    /// As soon as what waits is sent; with trailers.
    Wanted(Option<Box<Fields>>),
    Sent,
}

impl Stream {
    pub(super) fn server(shared: Cell, id: StreamId) -> Self {
        Self::new(shared, id, true, None, false)
    }

    pub(super) fn client(shared: Cell, id: StreamId, content: Content, has_ended: bool) -> Self {
        Self::new(shared, id, false, length(content), has_ended)
    }

    fn new(shared: Cell, id: StreamId, is_server: bool, left: Option<u64>, has_ended: bool) -> Self {
        Self {
            shared,
            id,
            is_server,
            part: Vec::new(),
            flow: 0,
            interims: 0,
            waiting: Vec::new(),
            written: 0,
            left,
            end: if has_ended { End::Sent } else { End::Open },
            was_aborted: false,
        }
    }

    /// The next part of the request's content, as server.
    ///
    /// # Errors
    /// `ClientClosed` when the client has reset the stream or its connection is gone.
    pub fn poll_request_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part<'_>, Failure>> {
        self.poll_body(cx, Cause::ClientClosed)
    }

    /// The next part of the response's content, as client.
    ///
    /// # Errors
    /// `ResponseIncomplete` when the backend has reset the stream or its connection is gone.
    pub fn poll_response_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part<'_>, Failure>> {
        self.poll_body(cx, Cause::ResponseIncomplete)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, early_end: Cause) -> Poll<Result<Part<'_>, Failure>> {
        let shared = &mut *self.shared.borrow_mut();
        if self.flow > 0 {
            shared.codec.release(self.id, self.flow);
            self.flow = 0;
            if shared.codec.wants_write() {
                shared.kick();
            }
        }
        self.part.clear();
        let Some(slot) = shared.slots.get_mut(&id_of(self.id)) else {
            return Poll::Ready(Err(early_end.into()));
        };
        if !slot.content.is_empty() {
            std::mem::swap(&mut self.part, &mut slot.content);
            self.flow = std::mem::take(&mut slot.flow);
            return Poll::Ready(Ok(Part::Data(&self.part)));
        }
        if slot.has_ended {
            return Poll::Ready(Ok(Part::End(slot.trailers.take())));
        }
        if slot.reset.is_some() {
            return Poll::Ready(Err(early_end.into()));
        }
        slot.watch(cx.waker());
        Poll::Pending
    }

    /// Waits for a response head, interim or final, as client.
    ///
    /// # Errors
    /// `BackendReset` when the stream or its connection is gone, with whether the request may be sent again.
    pub fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut ResponseHead,
    ) -> Poll<Result<(), Failure>> {
        let shared = &mut *self.shared.borrow_mut();
        let Some(slot) = shared.slots.get_mut(&id_of(self.id)) else {
            return Poll::Ready(Err(Cause::BackendReset.into()));
        };
        if let Some(mut next) = slot.heads.pop_front() {
            std::mem::swap(head, &mut next);
            shared.codec.recycle_response(next);
            self.interims += u32::from(head.is_interim());
            if self.interims > MAX_INTERIM {
                return Poll::Ready(Err(Cause::ResponseMalformed.into()));
            }
            return Poll::Ready(Ok(()));
        }
        if let Some(failure) = slot.reset {
            return Poll::Ready(Err(failure));
        }
        slot.watch(cx.waker());
        Poll::Pending
    }

    /// Gives memory of a request head that is done with to the connection, for the next one that comes.
    pub fn recycle_request(&self, head: Box<RequestHead>) {
        self.shared.borrow_mut().codec.recycle_request(head);
    }

    /// Ready when the peer has given up the stream.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.shared.borrow_mut().slots.get_mut(&id_of(self.id)) {
            Some(slot) if slot.reset.is_none() => {
                slot.watch(cx.waker());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// The failure of a stream on which sending failed.
    pub fn reset(&self) -> Failure {
        let shared = self.shared.borrow();
        let reset = shared.slots.get(&id_of(self.id)).and_then(|slot| slot.reset);
        reset.unwrap_or_else(|| Cause::BackendReset.into())
    }

    /// Sends a response head, as server. A stream that is gone is noticed elsewhere.
    pub fn send_response(&mut self, head: &ResponseHead) {
        let mut shared = self.shared.borrow_mut();
        let ends = head.content.is_empty() && !head.is_interim();
        if shared.codec.send_response(self.id, head, ends).is_ok() && !head.is_interim() {
            self.left = length(head.content);
            if ends {
                self.end = End::Sent;
            }
        }
        shared.kick();
    }

    /// Sends content; what windows have no room for is kept.
    ///
    /// # Errors
    /// The stream is gone.
    pub fn send_data(&mut self, _cx: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        if matches!(self.end, End::Sent) {
            return Ok(());
        }
        let mut shared = self.shared.borrow_mut();
        if self.written < self.waiting.len() {
            self.waiting.extend_from_slice(data);
            return Ok(());
        }
        let ends = self.left.is_some_and(|left| left == data.len() as u64);
        let taken = shared.codec.send_data(self.id, data, ends).map_err(|_| gone())?;
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(taken as u64);
        }
        if taken < data.len() {
            self.waiting.extend_from_slice(data.get(taken..).unwrap_or_default());
        } else if ends {
            self.end = End::Sent;
        }
        shared.kick();
        Ok(())
    }

    /// Ends the content.
    pub fn send_end(&mut self, trailers: Option<&Fields>) {
        if matches!(self.end, End::Open) {
            self.end = End::Wanted(trailers.map(|trailers| Box::new(trailers.clone())));
        }
    }

    /// Ready when more content may be sent.
    ///
    /// # Errors
    /// The stream is gone.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.written == self.waiting.len() { Poll::Ready(Ok(())) } else { self.poll_flush(cx) }
    }

    /// Ready when all content, and its end if it is wanted, is in the connection's output.
    ///
    /// # Errors
    /// The stream is gone.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_idle = self.written == self.waiting.len() && !matches!(self.end, End::Wanted(_));
        if is_idle {
            return Poll::Ready(Ok(()));
        }
        let shared = &mut *self.shared.borrow_mut();
        let waiting = self.waiting.get(self.written..).unwrap_or_default();
        if !waiting.is_empty() {
            let ends = matches!(self.end, End::Wanted(None))
                || self.left.is_some_and(|left| left == waiting.len() as u64);
            let taken = shared.codec.send_data(self.id, waiting, ends).map_err(|_| gone())?;
            self.written += taken;
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(taken as u64);
            }
            if taken > 0 {
                shared.kick();
            }
            if self.written < self.waiting.len() {
                return match shared.slots.get_mut(&id_of(self.id)) {
                    Some(slot) if slot.reset.is_none() => {
                        slot.watch(cx.waker());
                        Poll::Pending
                    }
                    _ => Poll::Ready(Err(gone())),
                };
            }
            (self.waiting, self.written) = (Vec::new(), 0);
            if ends {
                self.end = End::Sent;
                return Poll::Ready(Ok(()));
            }
        }
        if let End::Wanted(trailers) = &mut self.end {
            let sent = match trailers.take() {
                Some(trailers) => shared.codec.send_trailers(self.id, &trailers),
                None => shared.codec.send_data(self.id, b"", true).map(|_| ()),
            };
            self.end = End::Sent;
            shared.kick();
            sent.map_err(|_| gone())?;
        }
        Poll::Ready(Ok(()))
    }

    /// Bytes that wait for the peer to open a window, or for room in the connection's output.
    #[inline]
    pub fn backlog(&self) -> usize {
        self.waiting.len() - self.written
    }

    /// Says that the message is not complete.
    pub fn abort(&mut self) {
        self.was_aborted = true;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Never borrowed already: what is borrowed calls nothing of ours but wakers, and those only queue their tasks.
        let shared = &mut *self.shared.borrow_mut();
        let slot: Option<Slot> = shared.slots.remove(&id_of(self.id));
        if self.flow > 0 {
            shared.codec.release(self.id, self.flow);
        }
        if let Some(slot) = slot
            && slot.flow > 0
        {
            shared.codec.release(self.id, slot.flow);
        }
        if shared.codec.is_open(self.id) {
            let is_complete = matches!(self.end, End::Sent) && !self.was_aborted;
            let code = match (self.is_server, is_complete) {
                // RFC 9113 §8.1: the response was complete before the request, which is not needed any more.
                (true, true) => ErrorCode::NO_ERROR,
                (true, false) => ErrorCode::INTERNAL_ERROR,
                (false, _) => ErrorCode::CANCEL,
            };
            shared.codec.reset(self.id, code);
        }
        shared.share_streams();
        shared.kick();
    }
}

fn length(content: Content) -> Option<u64> {
    match content {
        Content::Length(length) => Some(length),
        _ => None,
    }
}

fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({}, {} handles)", self.id.get(), Rc::strong_count(&self.shared))
    }
}
