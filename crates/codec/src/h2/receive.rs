//! Receiving: one frame at a time, each checked against the state of its stream (RFC 9113 §5.1, §6).

use super::config::{INITIAL_WINDOW, MAX_MAX_FRAME_SIZE, MAX_WINDOW, MIN_MAX_FRAME_SIZE, Role};
use super::connection::{Connection, GoAway, Phase};
use super::decode::{self, Answers};
use super::error::{Abuse, ConnectionError, ErrorCode, Refusal};
use super::frame::{self, FRAME_HEADER, FrameHeader, PREFACE, StreamId, flag, kind, setting, unpad};
use super::meter::Metered;
use super::stream::{State, Stream, StreamFlags, UNKNOWN_LENGTH};
use crate::field::Fields;
use crate::head::{RequestHead, ResponseHead};
use std::time::Instant;

/// What one call of [`Connection::receive`] did.
#[derive(Debug)]
pub struct Received<'a> {
    /// Bytes of the input that are done with. With 0 and no event more bytes are needed.
    pub consumed: usize,
    /// What happened, if it concerns the caller.
    pub event: Option<Event<'a>>,
}

/// What the peer did.
#[derive(Debug)]
pub enum Event<'a> {
    /// Server: a request.
    Request {
        /// Its stream.
        stream: StreamId,
        /// Its head. [`Connection::recycle_request`] takes the memory back.
        head: Box<RequestHead>,
        /// Nothing follows.
        end_stream: bool,
    },
    /// Server: a request that may not be forwarded. Answer it with the status of its cause, or reset the stream. When
    /// the answer is complete the stream is reset; what else the client sends on it is discarded.
    Refused {
        /// Its stream.
        stream: StreamId,
        /// The rule that it breaks.
        reason: Refusal,
    },
    /// Client: a response, interim ones included.
    Response {
        /// Its stream.
        stream: StreamId,
        /// Its head. [`Connection::recycle_response`] takes the memory back.
        head: Box<ResponseHead>,
        /// Nothing follows.
        end_stream: bool,
    },
    /// Content. A frame may come in several pieces.
    Data {
        /// Its stream.
        stream: StreamId,
        /// Content; may be empty at the end of the stream.
        data: &'a [u8],
        /// Bytes to [release](Connection::release) when the content is consumed: padding counts as well.
        flow: u32,
        /// Nothing follows.
        end_stream: bool,
    },
    /// Trailers; nothing follows.
    Trailers {
        /// Their stream.
        stream: StreamId,
        /// The fields, those that may not be trailers left out. [`Connection::recycle_trailers`] takes the memory
        /// back.
        fields: Box<Fields>,
    },
    /// The stream has ended early and is gone.
    Reset {
        /// The stream.
        stream: StreamId,
        /// The code that the peer sent or, when `refusal` or a stream error made us reset it, that we sent.
        code: ErrorCode,
        /// The peer reset the stream; otherwise we did, because it broke a rule.
        by_peer: bool,
        /// The rule that a message broke, when it was one about messages.
        refusal: Option<Refusal>,
    },
    /// Windows grew: [`Connection::next_writable`] names streams.
    Writable,
    /// The peer will close. Streams of ours above `last_stream` were not processed and are gone: their requests may
    /// be sent elsewhere (RFC 9113 §6.8).
    GoAway {
        /// The last stream that the peer processed or may still process.
        last_stream: u32,
        /// Its reason.
        code: ErrorCode,
        /// What it adds, for logs.
        debug: &'a [u8],
    },
    /// The peer's settings came or changed; as client, [`Connection::available`] may have. Streams may be writable.
    Settings,
    /// The answer to [`Connection::ping`].
    Pong {
        /// The bytes of the PING.
        payload: [u8; 8],
    },
}

/// A DATA frame whose content is being handed out as it arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenData {
    stream: u32,
    /// Content still to come.
    content: u32,
    /// Padding still to come, after the content.
    padding: u32,
    /// Padding and its length, released together with the last piece.
    overhead: u32,
    end_stream: bool,
    /// Nobody wants the content.
    is_discarded: bool,
}

/// A field block that was not complete in its first frame.
#[derive(Debug)]
pub(super) struct OpenBlock {
    stream: u32,
    end_stream: bool,
    frames: u32,
    bytes: Vec<u8>,
}

impl OpenBlock {
    pub(super) fn capacity(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity()
    }
}

type Step<'a> = Result<Option<Event<'a>>, ConnectionError>;

impl Connection {
    /// Takes bytes of the peer: the preface or one frame, or a piece of a DATA frame. To be called again with what is
    /// left until it consumes nothing. Then the caller keeps the rest, at most a frame's header and
    /// `max_frame_size`, until more bytes arrive.
    ///
    /// # Errors
    /// [`ConnectionError`]: GOAWAY is in the output; write it and close. Every further call returns the same error.
    pub fn receive<'a>(&mut self, input: &'a [u8], now: Instant) -> Result<Received<'a>, ConnectionError> {
        if let Phase::Failed(error) = self.phase {
            return Err(error);
        }
        self.set_now(now);
        self.step(input).map_err(|error| self.fail(error))
    }

    fn step<'a>(&mut self, input: &'a [u8]) -> Result<Received<'a>, ConnectionError> {
        if let Some(data) = self.data {
            return Ok(self.continue_data(data, input, 0));
        }
        if self.phase == Phase::Preface {
            return self.preface(input);
        }
        let Some((header, rest)) = FrameHeader::read(input) else { return Ok(MORE) };
        if header.len > self.config.max_frame_size {
            return Err(ConnectionError::FrameTooLarge);
        }
        if self.phase == Phase::Settings && (header.kind != kind::SETTINGS || header.has(flag::ACK)) {
            return Err(ConnectionError::SettingsExpected);
        }
        if let Some(block) = &self.block
            && (header.kind != kind::CONTINUATION || header.stream != block.stream)
        {
            return Err(ConnectionError::InterruptedBlock);
        }
        if header.kind == kind::DATA {
            return self.data(header, input, rest);
        }
        let Some(payload) = rest.get(..header.len as usize) else { return Ok(MORE) };
        let event = match header.kind {
            kind::HEADERS => self.headers(header, payload),
            kind::CONTINUATION => self.continuation(header, payload),
            kind::WINDOW_UPDATE => self.window_update(header, payload),
            kind::RST_STREAM => self.rst_stream(header, payload),
            kind::SETTINGS => self.settings(header, payload),
            kind::PING => self.ping_received(header, payload),
            kind::GOAWAY => self.go_away_received(header, payload),
            kind::PRIORITY => self.priority(header, payload),
            kind::PUSH_PROMISE => Err(ConnectionError::PushPromise),
            // RFC 9113 §5.5: unknown frames are ignored.
            _ => self.spend(Metered::UselessFrames).map(|()| None),
        }?;
        Ok(Received { consumed: FRAME_HEADER + payload.len(), event })
    }

    fn preface<'a>(&mut self, input: &'a [u8]) -> Result<Received<'a>, ConnectionError> {
        let len = input.len().min(PREFACE.len());
        if input.get(..len) != PREFACE.get(..len) {
            return Err(ConnectionError::BadPreface);
        }
        if len < PREFACE.len() {
            return Ok(MORE);
        }
        self.phase = Phase::Settings;
        Ok(Received { consumed: len, event: None })
    }

    fn spend(&mut self, what: Metered) -> Result<(), ConnectionError> {
        match self.now {
            Some(now) => self.meter.spend(what, &self.config.limits, now),
            None => Ok(()),
        }
    }

    /// Whether a stream that is not open was open once. Streams of the other parity never are: we do not push, and
    /// do not let others (RFC 9113 §5.1.1, §8.4).
    fn was_open(&self, id: u32) -> bool {
        id % 2 == 1
            && match self.config.role {
                Role::Server => id <= self.last_stream,
                Role::Client => id < self.next_stream,
            }
    }

    /// Ends a stream because the peer broke a rule on it. A peer that makes us reset streams is no better than one
    /// that resets them itself (CVE-2025-8671).
    fn stream_error<'a>(&mut self, id: u32, code: ErrorCode, refusal: Option<Refusal>) -> Step<'a> {
        self.check_output()?;
        self.put_reset(id, code);
        self.spend(Metered::Resets)?;
        Ok(StreamId::new(id).map(|stream| Event::Reset { stream, code, by_peer: false, refusal }))
    }

    fn message_error<'a>(&mut self, id: u32, refusal: Refusal) -> Step<'a> {
        self.count_refused();
        self.stream_error(id, ErrorCode::PROTOCOL_ERROR, Some(refusal))
    }

    fn count_refused(&mut self) {
        let refused = &mut self.meter.counters.messages_refused;
        *refused = refused.saturating_add(1);
    }
}

/// Nothing can be done with so few bytes.
const MORE: Received<'static> = Received { consumed: 0, event: None };

/// DATA (RFC 9113 §6.1).
impl Connection {
    fn data<'a>(
        &mut self,
        header: FrameHeader,
        input: &'a [u8],
        rest: &'a [u8],
    ) -> Result<Received<'a>, ConnectionError> {
        let (overhead, padding) = if header.has(flag::PADDED) {
            if header.len == 0 {
                return Err(ConnectionError::FrameSize);
            }
            let Some(&padding) = rest.first() else { return Ok(MORE) };
            (u32::from(padding) + 1, u32::from(padding))
        } else {
            (0, 0)
        };
        let content = header.len.checked_sub(overhead).ok_or(ConnectionError::BadPadding)?;
        // RFC 9113 §6.9.1: counted even when the stream is in error.
        self.receive_window = i32::try_from(header.len)
            .ok()
            .and_then(|len| self.receive_window.checked_sub(len))
            .filter(|window| *window >= 0)
            .ok_or(ConnectionError::FlowControl)?;
        let end_stream = header.has(flag::END_STREAM);
        if content == 0 && !end_stream {
            self.spend(Metered::EmptyFrames)?;
        } else {
            self.meter.credit(Metered::EmptyFrames, 1);
            self.meter.credit(Metered::Pings, 1);
        }
        let fault = self.check_data(header, content, end_stream)?;
        let mut data = OpenData {
            stream: header.stream,
            content,
            padding,
            overhead,
            end_stream,
            is_discarded: fault.is_some(),
        };
        let consumed = FRAME_HEADER + usize::from(header.has(flag::PADDED));
        match fault {
            Some(Fault::Stream(code, refusal)) => {
                if refusal.is_some() {
                    self.count_refused();
                }
                let event = self.stream_error(header.stream, code, refusal)?;
                self.credit(header.len);
                data.overhead = 0;
                self.data = Some(data).filter(|data| data.content + data.padding > 0);
                Ok(Received { consumed, event })
            }
            Some(Fault::Ignored) => {
                self.credit(header.len);
                Ok(self.continue_data(data, input, consumed))
            }
            None => Ok(self.continue_data(data, input, consumed)),
        }
    }

    /// Checks a DATA frame against its stream and counts it there.
    fn check_data(
        &mut self,
        header: FrameHeader,
        content: u32,
        end_stream: bool,
    ) -> Result<Option<Fault>, ConnectionError> {
        let Some(stream) = self.streams.get_mut(header.stream) else {
            return self.closed_stream(header.stream).map(|()| Some(Fault::Ignored));
        };
        if !stream.may_receive() {
            return Ok(Some(Fault::Stream(ErrorCode::STREAM_CLOSED, None)));
        }
        let window = i32::try_from(header.len).ok().and_then(|len| stream.receive_window.checked_sub(len));
        let Some(window) = window.filter(|window| *window >= 0) else {
            return Ok(Some(Fault::Stream(ErrorCode::FLOW_CONTROL_ERROR, None)));
        };
        stream.receive_window = window;
        if stream.flags.has(StreamFlags::REFUSED) {
            if end_stream {
                self.end(header.stream, State::HalfClosedRemote);
            }
            return Ok(Some(Fault::Ignored));
        }
        if self.config.role == Role::Client && !stream.flags.has(StreamFlags::RESPONDED) {
            return Ok(Some(Fault::message(Refusal::ContentUnexpected)));
        }
        if stream.expected != UNKNOWN_LENGTH {
            let Some(expected) = stream.expected.checked_sub(u64::from(content)) else {
                let is_empty = stream.flags.has(StreamFlags::HEAD_REQUEST);
                return Ok(Some(Fault::message(if is_empty {
                    Refusal::ContentUnexpected
                } else {
                    Refusal::ContentLengthMismatch
                })));
            };
            if end_stream && expected != 0 {
                return Ok(Some(Fault::message(Refusal::ContentLengthMismatch)));
            }
            stream.expected = expected;
        }
        Ok(None)
    }

    /// A frame on a stream that is not open: ignored, or an error of the connection.
    fn closed_stream(&self, id: u32) -> Result<(), ConnectionError> {
        if id == 0 {
            return Err(ConnectionError::StreamId);
        }
        if !self.was_open(id) {
            // After our GOAWAY the client's newer streams are ignored, whatever is on them (RFC 9113 §6.8).
            return match self.go_away {
                GoAway::Final(last) if self.config.role == Role::Server && id > last && id % 2 == 1 => Ok(()),
                _ => Err(ConnectionError::IdleStream),
            };
        }
        // RFC 9113 §5.1: frames that were on their way when we reset the stream are ignored.
        if self.resets.contains(&id) { Ok(()) } else { Err(ConnectionError::ClosedStream) }
    }

    /// Hands out what has arrived of a DATA frame, or skips it. `before` is what was consumed of `input` already.
    fn continue_data<'a>(&mut self, mut data: OpenData, input: &'a [u8], before: usize) -> Received<'a> {
        let arrived = input.get(before..).unwrap_or_default();
        let content = arrived.get(..data.content as usize).unwrap_or(arrived);
        // No longer than `data.content`.
        let len = u32::try_from(content.len()).unwrap_or(data.content);
        data.content -= len;
        let padding = match data.content {
            0 => u32::try_from(arrived.len() - content.len()).unwrap_or(u32::MAX).min(data.padding),
            _ => 0,
        };
        let is_last = data.content == 0 && data.overhead != DELIVERED;
        data.padding -= padding;
        let mut flow = len;
        if is_last {
            flow += data.overhead;
            data.overhead = DELIVERED;
        }
        self.data = Some(data).filter(|data| data.content + data.padding > 0);
        let consumed = before + content.len() + padding as usize;
        let event = if data.is_discarded {
            None
        } else {
            self.hand_out(data, content, flow, is_last && data.end_stream)
        };
        Received { consumed, event }
    }

    #[inline]
    fn hand_out<'a>(
        &mut self,
        data: OpenData,
        content: &'a [u8],
        flow: u32,
        end_stream: bool,
    ) -> Option<Event<'a>> {
        let Some(stream) = self.streams.get_mut(data.stream) else {
            // We reset it while the frame was arriving.
            self.credit(flow);
            return None;
        };
        stream.held = stream.held.saturating_add(flow);
        if end_stream {
            self.end(data.stream, State::HalfClosedRemote);
        } else if content.is_empty() {
            if let Some(stream) = StreamId::new(data.stream) {
                self.release(stream, flow);
            }
            return None;
        }
        StreamId::new(data.stream).map(|stream| Event::Data { stream, data: content, flow, end_stream })
    }

    /// The caller has consumed so many bytes of a stream's content ([`Event::Data`]'s `flow`): the peer may send as
    /// many more. It is told when half a window has come together. What is never released is never replaced: that is
    /// the back-pressure. A stream that ends releases what it holds.
    pub fn release(&mut self, id: StreamId, bytes: u32) {
        let Some(stream) = self.streams.get_mut(id.get()) else { return };
        let bytes = bytes.min(stream.held);
        stream.held -= bytes;
        if stream.may_receive() {
            stream.unannounced = stream.unannounced.saturating_add(bytes);
            // Content whose length is known and fits the window needs no update.
            let window = u64::try_from(stream.receive_window).unwrap_or(0);
            let is_needed = stream.expected > window;
            if is_needed && stream.unannounced > 0 && stream.unannounced >= self.config.initial_window / 2 {
                stream.receive_window = stream.receive_window.saturating_add_unsigned(stream.unannounced);
                frame::put_window_update(self.out.bytes(), id.get(), stream.unannounced);
                stream.unannounced = 0;
            }
        }
        self.credit(bytes);
    }
}

/// Marks that the last piece of a DATA frame was handed out and only padding is left.
const DELIVERED: u32 = u32::MAX;

/// What is wrong with a frame that concerns its stream only.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Reset the stream.
    Stream(ErrorCode, Option<Refusal>),
    /// Nobody wants the frame.
    Ignored,
}

impl Fault {
    fn message(refusal: Refusal) -> Self {
        Self::Stream(ErrorCode::PROTOCOL_ERROR, Some(refusal))
    }
}

/// HEADERS and CONTINUATION (RFC 9113 §6.2, §6.10).
impl Connection {
    fn headers<'a>(&mut self, header: FrameHeader, payload: &[u8]) -> Step<'a> {
        let mut fragment = unpad(header, payload).ok_or(ConnectionError::BadPadding)?;
        if header.stream == 0 {
            return Err(ConnectionError::StreamId);
        }
        if header.has(flag::PRIORITY) {
            let (priority, rest) = fragment.split_first_chunk::<5>().ok_or(ConnectionError::FrameSize)?;
            if depends_on_itself(header.stream, *priority) {
                return Err(ConnectionError::SelfDependency);
            }
            fragment = rest;
        }
        let end_stream = header.has(flag::END_STREAM);
        if header.has(flag::END_HEADERS) {
            return self.field_block(header.stream, end_stream, fragment);
        }
        self.block = Some(Box::new(OpenBlock {
            stream: header.stream,
            end_stream,
            frames: 0,
            bytes: fragment.to_vec(),
        }));
        Ok(None)
    }

    fn continuation<'a>(&mut self, header: FrameHeader, payload: &[u8]) -> Step<'a> {
        let limits = &self.config.limits;
        let Some(block) = &mut self.block else { return Err(ConnectionError::UnexpectedContinuation) };
        block.frames += 1;
        if block.frames > limits.continuations {
            return Err(ConnectionError::Abuse(Abuse::Continuations));
        }
        if block.bytes.len() + payload.len() > limits.field_block as usize {
            return Err(ConnectionError::Abuse(Abuse::FieldBlock));
        }
        block.bytes.extend_from_slice(payload);
        if !header.has(flag::END_HEADERS) {
            return Ok(None);
        }
        let Some(block) = self.block.take() else { return Ok(None) };
        self.field_block(block.stream, block.end_stream, &block.bytes)
    }

    /// A complete field block: a head or trailers.
    fn field_block<'a>(&mut self, id: u32, end_stream: bool, bytes: &[u8]) -> Step<'a> {
        let Some(stream) = self.streams.get(id).copied() else {
            return match self.config.role {
                Role::Server if !self.was_open(id) => self.new_stream(id, end_stream, bytes),
                _ => {
                    self.closed_stream(id)?;
                    self.discard_block(bytes)
                }
            };
        };
        if !stream.may_receive() {
            self.discard_block(bytes)?;
            return self.stream_error(id, ErrorCode::STREAM_CLOSED, None);
        }
        if stream.flags.has(StreamFlags::REFUSED) {
            self.discard_block(bytes)?;
            if end_stream {
                self.end(id, State::HalfClosedRemote);
            }
            return Ok(None);
        }
        match self.config.role {
            Role::Client if !stream.flags.has(StreamFlags::RESPONDED) => {
                self.response(&stream, end_stream, bytes)
            }
            _ => self.trailers(&stream, end_stream, bytes),
        }
    }

    fn discard_block<'a>(&mut self, bytes: &[u8]) -> Step<'a> {
        decode::discard(self.decoder.block(bytes), &self.config)?;
        Ok(None)
    }

    /// A request.
    fn new_stream<'a>(&mut self, id: u32, end_stream: bool, bytes: &[u8]) -> Step<'a> {
        if id.is_multiple_of(2) {
            return Err(ConnectionError::StreamId);
        }
        if let GoAway::Final(_) = self.go_away {
            return self.discard_block(bytes);
        }
        self.last_stream = id;
        if self.streams.len() >= self.config.max_concurrent_streams as usize {
            // RFC 9113 §5.1.2. The request may be sent again; it was not touched.
            self.discard_block(bytes)?;
            self.meter.counters.streams_refused = self.meter.counters.streams_refused.saturating_add(1);
            self.stream_error(id, ErrorCode::REFUSED_STREAM, None)?;
            return Ok(None);
        }
        let mut head = self.spare_request();
        let decoded = decode::request(self.decoder.block(bytes), &self.config, &mut head, end_stream)?;
        let (flags, expected, refusal) = match decoded {
            Ok(framing) => (StreamFlags::default(), framing.expected.unwrap_or(UNKNOWN_LENGTH), None),
            Err(refusal) => {
                let is_malformed = refusal.reset_code() == ErrorCode::PROTOCOL_ERROR;
                let flags = StreamFlags::REFUSED.and(StreamFlags::MALFORMED.when(is_malformed));
                (flags, UNKNOWN_LENGTH, Some(refusal))
            }
        };
        let state = if end_stream { State::HalfClosedRemote } else { State::Open };
        let stream = self.stream(id, state, flags, expected);
        self.streams.insert(stream);
        self.meter.credit(Metered::Priorities, 4);
        self.meter.credit(Metered::UselessFrames, 2);
        let Some(stream) = StreamId::new(id) else { return Ok(None) };
        match refusal {
            None => Ok(Some(Event::Request { stream, head, end_stream })),
            Some(reason) => {
                self.recycle_request(head);
                self.count_refused();
                self.spend(Metered::Resets)?;
                Ok(Some(Event::Refused { stream, reason }))
            }
        }
    }

    /// A stream with the windows of this moment.
    pub(super) fn stream(&self, id: u32, state: State, flags: StreamFlags, expected: u64) -> Stream {
        // Until our settings are acknowledged the peer may count on the default window.
        let window = if self.settings_acknowledged {
            self.config.initial_window
        } else {
            self.config.initial_window.max(INITIAL_WINDOW)
        };
        Stream {
            id,
            state,
            flags,
            send_window: self.peer.initial_window.cast_signed(),
            receive_window: window.cast_signed(),
            held: 0,
            unannounced: 0,
            stalled: 0,
            expected,
        }
    }

    fn response<'a>(&mut self, stream: &Stream, end_stream: bool, bytes: &[u8]) -> Step<'a> {
        let answers = if stream.flags.has(StreamFlags::HEAD_REQUEST) {
            Answers::Head
        } else if stream.flags.has(StreamFlags::CONNECT) {
            Answers::Connect
        } else {
            Answers::Other
        };
        let mut head = self.spare_response();
        let decoded =
            decode::response(self.decoder.block(bytes), &self.config, &mut head, answers, end_stream)?;
        let framing = match decoded {
            Ok(framing) => framing,
            Err(refusal) => {
                self.recycle_response(head);
                return self.message_error(stream.id, refusal);
            }
        };
        if !head.is_interim()
            && let Some(stream) = self.streams.get_mut(stream.id)
        {
            stream.flags.set(StreamFlags::RESPONDED);
            stream.expected = framing.expected.unwrap_or(UNKNOWN_LENGTH);
        }
        if end_stream {
            self.end(stream.id, State::HalfClosedRemote);
        }
        Ok(StreamId::new(stream.id).map(|stream| Event::Response { stream, head, end_stream }))
    }

    fn trailers<'a>(&mut self, stream: &Stream, end_stream: bool, bytes: &[u8]) -> Step<'a> {
        let mut fields = self.spare_trailers();
        let decoded = decode::trailers(self.decoder.block(bytes), &self.config, &mut fields)?;
        let missing = stream.expected != UNKNOWN_LENGTH && stream.expected != 0;
        let refusal = match decoded {
            Err(refusal) => Some(refusal),
            // RFC 9113 §8.1: HEADERS after the head ends the stream.
            Ok(()) if !end_stream => Some(Refusal::TrailersUnended),
            Ok(()) if missing => Some(Refusal::ContentLengthMismatch),
            Ok(()) => None,
        };
        if let Some(refusal) = refusal {
            self.recycle_trailers(fields);
            return self.message_error(stream.id, refusal);
        }
        self.end(stream.id, State::HalfClosedRemote);
        Ok(StreamId::new(stream.id).map(|stream| Event::Trailers { stream, fields }))
    }
}

/// RFC 9113 §5.3.2 deprecates priorities; that a stream cannot depend on itself is left of them.
fn depends_on_itself(stream: u32, [a, b, c, d, _]: [u8; 5]) -> bool {
    u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff == stream
}

/// The frames that control streams and the connection.
impl Connection {
    fn priority<'a>(&mut self, header: FrameHeader, payload: &[u8]) -> Step<'a> {
        if header.stream == 0 {
            return Err(ConnectionError::StreamId);
        }
        // Both are stream errors; a stream that is not open cannot be reset, so there they end the connection.
        let (code, error) = match payload.try_into() {
            Err(_) => (ErrorCode::FRAME_SIZE_ERROR, ConnectionError::FrameSize),
            Ok(priority) if depends_on_itself(header.stream, priority) => {
                (ErrorCode::PROTOCOL_ERROR, ConnectionError::SelfDependency)
            }
            Ok(_) => return self.spend(Metered::Priorities).map(|()| None),
        };
        if self.streams.get(header.stream).is_none() {
            return Err(error);
        }
        self.stream_error(header.stream, code, None)
    }

    fn rst_stream<'a>(&mut self, header: FrameHeader, payload: &[u8]) -> Step<'a> {
        let code = ErrorCode(u32::from_be_bytes(payload.try_into().map_err(|_| ConnectionError::FrameSize)?));
        let Some(id) = StreamId::new(header.stream) else { return Err(ConnectionError::StreamId) };
        let Some(stream) = self.remove(header.stream) else {
            if !self.was_open(header.stream) {
                self.closed_stream(header.stream)?;
            }
            // RFC 9113 §5.1: it may have crossed our END_STREAM or RST_STREAM.
            self.spend(Metered::UselessFrames)?;
            return Ok(None);
        };
        self.meter.counters.resets_received = self.meter.counters.resets_received.saturating_add(1);
        // Giving up a response that has begun is normal. Giving up before costs us the work (CVE-2023-44487).
        // A refused request was counted when it came.
        let is_counted = stream.flags.has(StreamFlags::REFUSED) || stream.flags.has(StreamFlags::RESPONDED);
        if self.config.role == Role::Server && !is_counted {
            self.spend(Metered::Resets)?;
        }
        Ok(Some(Event::Reset { stream: id, code, by_peer: true, refusal: None }))
    }

    fn window_update<'a>(&mut self, header: FrameHeader, payload: &[u8]) -> Step<'a> {
        let raw = u32::from_be_bytes(payload.try_into().map_err(|_| ConnectionError::FrameSize)?);
        let increment = (raw & 0x7fff_ffff).cast_signed();
        self.spend(Metered::WindowUpdates)?;
        if header.stream == 0 {
            if increment == 0 {
                return Err(ConnectionError::ZeroIncrement);
            }
            self.send_window =
                self.send_window.checked_add(increment).ok_or(ConnectionError::WindowOverflow)?;
            return Ok((!self.waiting.is_empty()).then_some(Event::Writable));
        }
        let Some(stream) = self.streams.get_mut(header.stream) else {
            if !self.was_open(header.stream) {
                self.closed_stream(header.stream)?;
            }
            return Ok(None);
        };
        if increment == 0 {
            return self.stream_error(header.stream, ErrorCode::PROTOCOL_ERROR, None);
        }
        match stream.send_window.checked_add(increment) {
            Some(window) => stream.send_window = window,
            None => return self.stream_error(header.stream, ErrorCode::FLOW_CONTROL_ERROR, None),
        }
        Ok(self.queue(header.stream).then_some(Event::Writable))
    }

    fn settings<'a>(&mut self, header: FrameHeader, payload: &[u8]) -> Step<'a> {
        if header.stream != 0 {
            return Err(ConnectionError::StreamId);
        }
        if header.has(flag::ACK) {
            if !payload.is_empty() {
                return Err(ConnectionError::FrameSize);
            }
            return self.settings_acknowledged().map(|()| None);
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(ConnectionError::FrameSize);
        }
        self.spend(Metered::Settings)?;
        self.check_output()?;
        let is_first = self.phase == Phase::Settings;
        if is_first {
            self.phase = Phase::Running;
            // What RFC 9113 §6.5.2 gives to a peer that does not say.
            self.peer.max_streams = u32::MAX;
        }
        for [x, y, a, b, c, d] in settings {
            self.setting(u16::from_be_bytes([*x, *y]), u32::from_be_bytes([*a, *b, *c, *d]))?;
        }
        self.acknowledge_settings();
        Ok(Some(Event::Settings))
    }

    /// RFC 9113 §6.5.2.
    fn setting(&mut self, id: u16, value: u32) -> Result<(), ConnectionError> {
        match id {
            setting::HEADER_TABLE_SIZE => self.encoder.set_peer_limit(value as usize),
            // A server must not allow pushes to itself either.
            setting::ENABLE_PUSH if value > 1 || (value == 1 && self.config.role == Role::Client) => {
                return Err(ConnectionError::InvalidSetting);
            }
            setting::MAX_CONCURRENT_STREAMS => self.peer.max_streams = value,
            setting::INITIAL_WINDOW_SIZE => self.initial_window(value)?,
            setting::MAX_FRAME_SIZE => {
                if !(MIN_MAX_FRAME_SIZE..=MAX_MAX_FRAME_SIZE).contains(&value) {
                    return Err(ConnectionError::InvalidSetting);
                }
                self.peer.max_frame_size = value;
            }
            setting::MAX_HEADER_LIST_SIZE => self.peer.max_header_list_size = value,
            // RFC 8441 §3: once enabled it stays.
            setting::ENABLE_CONNECT_PROTOCOL if value > 1 || (value == 0 && self.peer.connect_protocol) => {
                return Err(ConnectionError::InvalidSetting);
            }
            setting::ENABLE_CONNECT_PROTOCOL => self.peer.connect_protocol = value == 1,
            // RFC 9218 §2.1.
            setting::NO_RFC7540_PRIORITIES if value > 1 => return Err(ConnectionError::InvalidSetting),
            _ => {}
        }
        Ok(())
    }

    /// RFC 9113 §6.9.2: the windows of all streams change by the difference, and may become negative.
    fn initial_window(&mut self, value: u32) -> Result<(), ConnectionError> {
        if value > MAX_WINDOW {
            return Err(ConnectionError::InvalidInitialWindow);
        }
        let difference = value.cast_signed() - self.peer.initial_window.cast_signed();
        self.peer.initial_window = value;
        for stream in self.streams.iter_mut() {
            stream.send_window =
                stream.send_window.checked_add(difference).ok_or(ConnectionError::WindowOverflow)?;
        }
        if difference > 0 {
            let opened: Vec<u32> = self
                .streams
                .iter()
                .filter(|stream| stream.flags.has(StreamFlags::WAITING) && stream.send_window > 0)
                .map(|stream| stream.id)
                .collect();
            for id in opened {
                self.queue(id);
            }
        }
        Ok(())
    }

    fn settings_acknowledged(&mut self) -> Result<(), ConnectionError> {
        if self.settings_acknowledged {
            return self.spend(Metered::Settings);
        }
        self.settings_acknowledged = true;
        self.decoder.acknowledged(self.config.header_table_size as usize);
        let initial = self.config.initial_window;
        if initial < INITIAL_WINDOW {
            let difference = (INITIAL_WINDOW - initial).cast_signed();
            for stream in self.streams.iter_mut() {
                stream.receive_window = stream.receive_window.saturating_sub(difference);
            }
        }
        Ok(())
    }

    fn ping_received<'a>(&mut self, header: FrameHeader, payload: &[u8]) -> Step<'a> {
        let payload: [u8; 8] = payload.try_into().map_err(|_| ConnectionError::FrameSize)?;
        if header.stream != 0 {
            return Err(ConnectionError::StreamId);
        }
        self.spend(Metered::Pings)?;
        if header.has(flag::ACK) {
            return Ok((!self.is_go_away_ping(payload)).then_some(Event::Pong { payload }));
        }
        self.check_output()?;
        frame::put_ping(self.out.bytes(), flag::ACK, payload);
        Ok(None)
    }

    fn go_away_received<'a>(&mut self, header: FrameHeader, payload: &'a [u8]) -> Step<'a> {
        let (fixed, debug) = payload.split_first_chunk::<8>().ok_or(ConnectionError::FrameSize)?;
        if header.stream != 0 {
            return Err(ConnectionError::StreamId);
        }
        let [a, b, c, d, code @ ..] = *fixed;
        let announced = u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff;
        // RFC 9113 §6.8: it must not grow.
        let last_stream = self.peer_last_stream.map_or(announced, |before| before.min(announced));
        self.spend(Metered::UselessFrames)?;
        self.peer_last_stream = Some(last_stream);
        if self.config.role == Role::Client {
            let unprocessed: Vec<u32> =
                self.streams.iter().map(|stream| stream.id).filter(|id| *id > last_stream).collect();
            for id in unprocessed {
                self.abandon(id);
            }
        }
        Ok(Some(Event::GoAway { last_stream, code: ErrorCode(u32::from_be_bytes(code)), debug }))
    }
}
