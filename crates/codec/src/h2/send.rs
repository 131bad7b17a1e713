//! Sending: heads, content, trailers, and whose turn it is.

use super::config::Role;
use super::connection::{Connection, Phase};
use super::encode;
use super::error::{ErrorCode, OpenError, StreamGone};
use super::frame::{self, FRAME_HEADER, FrameHeader, StreamId, flag, kind};
use super::hpack::Encoder;
use super::meter::Metered;
use super::stream::{State, StreamFlags, UNKNOWN_LENGTH};
use crate::field::Fields;
use crate::h1::may_be_trailer;
use crate::head::{Method, RequestHead, ResponseHead};

/// Output at which streams stop adding content. Heads and control frames are still added. Unit: bytes.
pub const OUTPUT_HIGH_WATER: usize = 256 << 10;

/// Content is not taken in smaller pieces than this while the output is nearly full. Unit: bytes.
const LEAST_ROOM: usize = 16 << 10;

/// Largest DATA frame that we send, even if the peer allows more: others want their turn. Unit: bytes.
const MAX_DATA_FRAME: usize = 16 << 10;

/// Last number of a client's stream (RFC 9113 §5.1.1).
const LAST_STREAM: u32 = (1 << 31) - 1;

impl Connection {
    /// As client: how many streams may be opened.
    pub fn available(&self) -> usize {
        if self.is_going_away() || matches!(self.phase, Phase::Failed(_)) || self.next_stream > LAST_STREAM {
            return 0;
        }
        let most = self.peer.max_streams.min(self.config.max_concurrent_streams) as usize;
        most.saturating_sub(self.streams.len())
    }

    /// As client: whether a stream may be opened.
    #[inline]
    pub fn can_open(&self) -> bool {
        self.available() > 0
    }

    /// As client: whether the server has enabled extended CONNECT (RFC 8441 §3).
    pub fn peer_allows_connect_protocol(&self) -> bool {
        self.peer.connect_protocol
    }

    /// As client: sends a request's head on a new stream.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was sent.
    pub fn open(&mut self, head: &RequestHead, end_stream: bool) -> Result<StreamId, OpenError> {
        debug_assert!(self.config.role == Role::Client);
        if !self.can_open() {
            return Err(match self.phase {
                _ if self.next_stream > LAST_STREAM => OpenError::IdsUsedUp,
                Phase::Failed(_) => OpenError::GoingAway,
                _ if self.is_going_away() => OpenError::GoingAway,
                _ => OpenError::NoStream,
            });
        }
        let is_connect = head.method() == Method::Connect;
        if is_connect && head.protocol().is_some() && !self.peer.connect_protocol {
            return Err(OpenError::NoExtendedConnect);
        }
        let limit = self.peer.max_header_list_size;
        if limit != u32::MAX && encode::request_size(head) > limit as usize {
            return Err(OpenError::HeadTooLarge);
        }
        let id = StreamId::new(self.next_stream).ok_or(OpenError::IdsUsedUp)?;
        self.next_stream += 2;
        let flags = StreamFlags::HEAD_REQUEST
            .when(head.method() == Method::Head)
            .and(StreamFlags::CONNECT.when(is_connect));
        let state = if end_stream { State::HalfClosedLocal } else { State::Open };
        let stream = self.stream(id.get(), state, flags, UNKNOWN_LENGTH);
        self.streams.insert(stream);
        self.put_block(id, end_stream, |encoder, out| encode::request(head, encoder, out));
        Ok(id)
    }

    /// As server: sends a response's head, interim ones included. `end_stream` is for final ones.
    ///
    /// # Errors
    /// [`StreamGone`]: the stream was reset, or the response was sent before.
    pub fn send_response(
        &mut self,
        id: StreamId,
        head: &ResponseHead,
        end_stream: bool,
    ) -> Result<(), StreamGone> {
        let stream = self.streams.get_mut(id.get()).ok_or(StreamGone)?;
        if !stream.may_send() || stream.flags.has(StreamFlags::RESPONDED) {
            return Err(StreamGone);
        }
        // RFC 9113 §8.1: an interim response cannot end the stream.
        let end_stream = end_stream && !head.is_interim();
        if !head.is_interim() {
            stream.flags.set(StreamFlags::RESPONDED);
        }
        self.put_block(id, end_stream, |encoder, out| encode::response(head, encoder, out));
        if end_stream {
            self.end(id.get(), State::HalfClosedLocal);
        }
        Ok(())
    }

    /// Content that may be sent on the stream now: what both windows and the output have room for. 0 for a stream
    /// that is gone.
    #[inline]
    pub fn capacity(&self, id: StreamId) -> usize {
        let Some(stream) = self.streams.get(id.get()) else { return 0 };
        if !stream.may_send() {
            return 0;
        }
        usize::try_from(stream.send_window.min(self.send_window)).unwrap_or(0).min(self.room())
    }

    /// Room for content in the output.
    #[inline]
    fn room(&self) -> usize {
        let room = OUTPUT_HIGH_WATER.saturating_sub(self.out.len());
        if room < LEAST_ROOM { 0 } else { room }
    }

    /// Whether the output is so full that heads should wait as well, until [`Connection::advance_output`] has made
    /// room.
    #[inline]
    pub fn is_congested(&self) -> bool {
        self.room() == 0
    }

    /// Sends as much of `data` as [`Connection::capacity`] allows and returns how much that was. The stream ends only
    /// when all of it was taken; otherwise [`Connection::next_writable`] names it when it may go on.
    ///
    /// # Errors
    /// [`StreamGone`]: the stream was reset or has ended, or its head was not sent.
    pub fn send_data(&mut self, id: StreamId, data: &[u8], end_stream: bool) -> Result<usize, StreamGone> {
        let stream = self.streams.get(id.get()).ok_or(StreamGone)?;
        let has_head = self.config.role == Role::Client || stream.flags.has(StreamFlags::RESPONDED);
        if !stream.may_send() || !has_head {
            return Err(StreamGone);
        }
        let take = self.capacity(id).min(data.len());
        let is_all = take == data.len();
        let largest = MAX_DATA_FRAME.min(self.peer.max_frame_size as usize);
        let mut rest = data.get(..take).unwrap_or_default();
        let out = self.out.bytes();
        out.reserve(take + FRAME_HEADER * (take / largest + 1));
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at_checked(largest).unwrap_or((rest, &[]));
            let is_last = end_stream && is_all && tail.is_empty();
            frame::put_header(out, piece.len(), kind::DATA, u8::from(is_last) * flag::END_STREAM, id.get());
            out.extend_from_slice(piece);
            rest = tail;
        }
        if data.is_empty() && end_stream {
            frame::put_header(out, 0, kind::DATA, flag::END_STREAM, id.get());
        }
        if take > 0 {
            // Both windows are at least `take`, so it fits.
            let taken = i32::try_from(take).unwrap_or(i32::MAX);
            self.send_window -= taken;
            if let Some(stream) = self.streams.get_mut(id.get()) {
                stream.send_window -= taken;
            }
            // Some peers announce every few KiB that they read, on the stream and on the connection.
            let pieces = u32::try_from(take >> 10).unwrap_or(u32::MAX);
            self.meter.credit(Metered::WindowUpdates, pieces.saturating_add(10));
            self.meter.credit(Metered::Pings, 1);
        }
        if !is_all {
            self.wait_writable(id);
        } else if end_stream {
            self.end(id.get(), State::HalfClosedLocal);
        }
        Ok(take)
    }

    /// Sends trailers, which end the stream. Fields that may not be trailers (RFC 9110 §6.5.1) are left out.
    ///
    /// # Errors
    /// [`StreamGone`]: the stream was reset or has ended, or its head was not sent.
    pub fn send_trailers(&mut self, id: StreamId, fields: &Fields) -> Result<(), StreamGone> {
        let stream = self.streams.get(id.get()).ok_or(StreamGone)?;
        let has_head = self.config.role == Role::Client || stream.flags.has(StreamFlags::RESPONDED);
        if !stream.may_send() || !has_head {
            return Err(StreamGone);
        }
        if !fields.iter().any(|line| may_be_trailer(line.known)) {
            return self.send_data(id, b"", true).map(drop);
        }
        self.put_block(id, true, |encoder, out| encode::trailers(fields, encoder, out));
        self.end(id.get(), State::HalfClosedLocal);
        Ok(())
    }

    /// Resets the stream, if it is open: it is gone.
    pub fn reset(&mut self, id: StreamId, code: ErrorCode) {
        if self.streams.get(id.get()).is_some() {
            self.put_reset(id.get(), code);
        }
    }

    /// Asks to be named by [`Connection::next_writable`] when the stream may send content. [`Connection::send_data`]
    /// does so itself when it does not take all.
    pub fn wait_writable(&mut self, id: StreamId) {
        let mark = self.stall_mark();
        let connection_window = self.send_window;
        let Some(stream) = self.streams.get_mut(id.get()) else { return };
        stream.flags.set(StreamFlags::WAITING);
        if stream.stalled == 0 && stream.send_window.min(connection_window) <= 0 {
            stream.stalled = mark;
            let stalls = &mut self.meter.counters.stalls;
            *stalls = stalls.saturating_add(1);
        }
        if stream.send_window > 0 {
            self.queue(id.get());
        }
    }

    /// The next stream that waited and may send content now; `None` when there is none. Streams take turns.
    pub fn next_writable(&mut self) -> Option<StreamId> {
        while self.send_window > 0 && self.room() > 0 {
            let id = self.waiting.pop_front()?;
            let Some(stream) = self.streams.get_mut(id) else { continue };
            stream.flags.unset(StreamFlags::QUEUED);
            if stream.send_window <= 0 {
                // WINDOW_UPDATE or SETTINGS will queue it again.
                continue;
            }
            stream.flags.unset(StreamFlags::WAITING);
            stream.stalled = 0;
            return StreamId::new(id);
        }
        None
    }

    /// Puts a stream that waits into the queue; true when it waits.
    pub(super) fn queue(&mut self, id: u32) -> bool {
        let Some(stream) = self.streams.get_mut(id) else { return false };
        if !stream.flags.has(StreamFlags::WAITING) || stream.send_window <= 0 {
            return false;
        }
        if !stream.flags.has(StreamFlags::QUEUED) {
            stream.flags.set(StreamFlags::QUEUED);
            self.waiting.push_back(id);
        }
        true
    }

    /// Appends a field block as HEADERS and as many CONTINUATION as the peer's largest frame demands.
    fn put_block(&mut self, id: StreamId, end_stream: bool, fill: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let largest = self.peer.max_frame_size as usize;
        let out = self.out.bytes();
        let at = out.len();
        out.extend_from_slice(&[0; FRAME_HEADER]);
        fill(&mut self.encoder, out);
        let len = out.len() - at - FRAME_HEADER;
        let end_stream = u8::from(end_stream) * flag::END_STREAM;
        if len > largest {
            return split_block(out, at, largest, id, end_stream);
        }
        let header = FrameHeader {
            len: u32::try_from(len).unwrap_or(0),
            kind: kind::HEADERS,
            flags: end_stream | flag::END_HEADERS,
            stream: id.get(),
        };
        if let Some(place) = out.get_mut(at..at + FRAME_HEADER) {
            place.copy_from_slice(&header.to_bytes());
        }
    }
}

/// The block behind the empty header at `at` is longer than a frame may be.
#[cold]
fn split_block(out: &mut Vec<u8>, at: usize, largest: usize, id: StreamId, end_stream: u8) {
    let block = out.split_off(at + FRAME_HEADER);
    out.truncate(at);
    let pieces = block.len().div_ceil(largest);
    for (n, piece) in block.chunks(largest).enumerate() {
        let (kind, flags) = if n == 0 { (kind::HEADERS, end_stream) } else { (kind::CONTINUATION, 0) };
        let end_headers = u8::from(n + 1 == pieces) * flag::END_HEADERS;
        frame::put_header(out, piece.len(), kind, flags | end_headers, id.get());
        out.extend_from_slice(piece);
    }
}
