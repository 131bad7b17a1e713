//! The state of a connection, and what concerns it as a whole: output, shutdown, time.

use super::config::{Config, INITIAL_WINDOW, MIN_MAX_FRAME_SIZE, Role};
use super::error::{Abuse, ConnectionError, ErrorCode};
use super::frame::{self, PREFACE, StreamId, flag, setting};
use super::hpack::{Decoder, Encoder};
use super::meter::{Counters, Meter, Metered};
use super::receive::{OpenBlock, OpenData};
use super::stream::{State, Stream, StreamFlags, Streams};
use crate::field::Fields;
use crate::head::{RequestHead, ResponseHead};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Streams that we reset whose late frames are still told from errors. Each takes four bytes.
const REMEMBERED_RESETS: usize = 512;
/// Heads of each kind that are kept for reuse.
const SPARE_HEADS: usize = 64;
/// A head whose memory is larger is not kept for reuse. Unit: bytes.
const SPARE_HEAD_BYTES: usize = 8 << 10;
/// Output memory that stays when the output is empty, until [`Connection::trim`]: a turn that answers a hundred small
/// requests fills about this much. Unit: bytes.
const OUTPUT_KEPT: usize = 128 << 10;
/// Streams that a client opens at most before it has read the server's SETTINGS (RFC 9113 §6.5.2 recommends servers
/// to allow no fewer).
const STREAMS_BEFORE_SETTINGS: u32 = 100;
/// Marks the PING whose acknowledgement ends the first step of a graceful GOAWAY.
const GO_AWAY_PING: [u8; 8] = *b"rhumb-ga";
/// The last stream of a GOAWAY that excludes none (RFC 9113 §6.8).
const EVERY_STREAM: u32 = (1 << 31) - 1;

/// One HTTP/2 connection. See the [module](super).
#[derive(Debug)]
pub struct Connection {
    pub(super) config: Config,
    pub(super) phase: Phase,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    pub(super) streams: Streams,
    pub(super) out: Output,
    /// The frame whose content is being handed out.
    pub(super) data: Option<OpenData>,
    /// The field block that CONTINUATION continues.
    pub(super) block: Option<Box<OpenBlock>>,
    pub(super) peer: Peer,
    /// As server: the highest stream that the client has opened.
    pub(super) last_stream: u32,
    /// As client: the next stream.
    pub(super) next_stream: u32,
    /// Content that we may send on all streams together.
    pub(super) send_window: i32,
    /// Content that the peer may send on all streams together.
    pub(super) receive_window: i32,
    /// Content released and not announced to the peer.
    pub(super) unannounced: u32,
    pub(super) go_away: GoAway,
    /// The last stream in the peer's GOAWAY.
    pub(super) peer_last_stream: Option<u32>,
    /// Streams that we have reset, the oldest first.
    pub(super) resets: VecDeque<u32>,
    /// Streams that wait for the connection's window or for room in the output, in turn.
    pub(super) waiting: VecDeque<u32>,
    pub(super) meter: Meter,
    /// The latest time that we were told.
    pub(super) now: Option<Instant>,
    /// The first time that we were told: stalls are measured from here.
    epoch: Option<Instant>,
    pub(super) settings_acknowledged: bool,
    spares: Spares,
}

/// Memory of heads that were done with. Boxed as they are handed out: an event is small and its head does not move.
#[derive(Debug, Default)]
#[allow(clippy::vec_box)]
struct Spares {
    requests: Vec<Box<RequestHead>>,
    responses: Vec<Box<ResponseHead>>,
    trailers: Vec<Box<Fields>>,
}

/// What the connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The client's preface.
    Preface,
    /// The first SETTINGS.
    Settings,
    Running,
    Failed(ConnectionError),
}

/// What the peer's settings say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) initial_window: u32,
    pub(super) max_frame_size: u32,
    pub(super) max_streams: u32,
    pub(super) max_header_list_size: u32,
    pub(super) connect_protocol: bool,
}

/// How far our own shutdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GoAway {
    No,
    /// Announced without excluding a stream; waits for the client to have read it.
    Announced,
    /// Streams above this one are ignored.
    Final(u32),
}

/// Bytes for the peer.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    written: usize,
}

impl Output {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    #[inline]
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    fn advance(&mut self, n: usize) {
        self.written = self.written.saturating_add(n).min(self.bytes.len());
        if self.written == self.bytes.len() {
            self.written = 0;
            if self.bytes.capacity() > OUTPUT_KEPT {
                self.bytes = Vec::new();
            } else {
                self.bytes.clear();
            }
        } else if self.written > OUTPUT_KEPT && self.written * 2 > self.bytes.len() {
            // Otherwise a peer that never lets the output run empty would make it grow for ever.
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}

impl Connection {
    /// A connection whose output begins with what has to be sent first: as client the preface, then SETTINGS and the
    /// update of the connection's window (RFC 9113 §3.4).
    pub fn new(config: Config) -> Self {
        let config = config.within_protocol();
        let mut out = Output::default();
        let mut settings = vec![
            (setting::INITIAL_WINDOW_SIZE, config.initial_window),
            (setting::MAX_HEADER_LIST_SIZE, config.max_header_list_size),
        ];
        if config.header_table_size != DEFAULT_TABLE_SIZE {
            settings.push((setting::HEADER_TABLE_SIZE, config.header_table_size));
        }
        if config.max_frame_size != MIN_MAX_FRAME_SIZE {
            settings.push((setting::MAX_FRAME_SIZE, config.max_frame_size));
        }
        match config.role {
            Role::Client => {
                out.bytes.extend_from_slice(PREFACE);
                settings.push((setting::ENABLE_PUSH, 0));
            }
            Role::Server => {
                settings.push((setting::MAX_CONCURRENT_STREAMS, config.max_concurrent_streams));
                settings.push((setting::NO_RFC7540_PRIORITIES, 1));
                settings.push((setting::ENABLE_CONNECT_PROTOCOL, u32::from(config.enable_connect_protocol)));
            }
        }
        frame::put_settings(&mut out.bytes, &settings);
        let more = config.connection_window - INITIAL_WINDOW;
        if more > 0 {
            frame::put_window_update(&mut out.bytes, 0, more);
        }
        Self {
            phase: match config.role {
                Role::Server => Phase::Preface,
                Role::Client => Phase::Settings,
            },
            decoder: Decoder::new(config.header_table_size as usize),
            encoder: Encoder::new(config.encoder_table_size as usize),
            streams: Streams::default(),
            out,
            data: None,
            block: None,
            peer: Peer {
                initial_window: INITIAL_WINDOW,
                max_frame_size: MIN_MAX_FRAME_SIZE,
                max_streams: STREAMS_BEFORE_SETTINGS,
                max_header_list_size: u32::MAX,
                connect_protocol: false,
            },
            last_stream: 0,
            next_stream: 1,
            send_window: INITIAL_WINDOW.cast_signed(),
            receive_window: config.connection_window.cast_signed(),
            unannounced: 0,
            go_away: GoAway::No,
            peer_last_stream: None,
            resets: VecDeque::new(),
            waiting: VecDeque::new(),
            meter: Meter::default(),
            now: None,
            epoch: None,
            settings_acknowledged: false,
            spares: Spares::default(),
            config,
        }
    }

    /// Bytes that wait to be written to the peer.
    #[inline]
    pub fn output(&self) -> &[u8] {
        self.out.bytes.get(self.out.written..).unwrap_or_default()
    }

    /// True when [`Connection::output`] is not empty.
    #[inline]
    pub fn wants_write(&self) -> bool {
        self.out.len() > 0
    }

    /// The first `n` bytes of the output were written. Streams that waited for room may be writable afterwards.
    #[inline]
    pub fn advance_output(&mut self, n: usize) {
        self.out.advance(n);
    }

    /// Our side.
    pub fn role(&self) -> Role {
        self.config.role
    }

    /// Number of open streams.
    #[inline]
    pub fn active_streams(&self) -> usize {
        self.streams.len()
    }

    /// Whether a stream is open: it has not ended on both sides and was not reset.
    #[inline]
    pub fn is_open(&self, id: StreamId) -> bool {
        self.streams.get(id.get()).is_some()
    }

    /// What was rare and happened, for metrics.
    pub fn counters(&self) -> &Counters {
        &self.meter.counters
    }

    /// Heap bytes held, for memory accounting.
    pub fn capacity_bytes(&self) -> usize {
        let requests: usize =
            self.spares.requests.iter().map(|h| size_of::<RequestHead>() + h.fields.capacity()).sum();
        let responses: usize =
            self.spares.responses.iter().map(|h| size_of::<ResponseHead>() + h.fields.capacity()).sum();
        let trailers: usize = self.spares.trailers.iter().map(|f| size_of::<Fields>() + f.capacity()).sum();
        let lists = (self.spares.requests.capacity()
            + self.spares.responses.capacity()
            + self.spares.trailers.capacity())
            * size_of::<usize>()
            + (self.resets.capacity() + self.waiting.capacity()) * size_of::<u32>();
        let block = self.block.as_ref().map_or(0, |block| block.capacity());
        self.decoder.capacity()
            + self.encoder.capacity()
            + self.streams.capacity()
            + self.out.bytes.capacity()
            + requests
            + responses
            + trailers
            + lists
            + block
    }

    /// Gives back memory that an idle connection does not need. Compression state stays: the peer relies on it.
    pub fn trim(&mut self) {
        self.spares = Spares::default();
        self.streams.trim();
        self.resets.shrink_to_fit();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        if self.out.len() == 0 {
            self.out = Output::default();
        }
    }

    /// Takes back a head for reuse.
    pub fn recycle_request(&mut self, mut head: Box<RequestHead>) {
        if self.spares.requests.len() < SPARE_HEADS && head.fields.capacity() <= SPARE_HEAD_BYTES {
            head.clear();
            self.spares.requests.push(head);
        }
    }

    /// Takes back a head for reuse.
    pub fn recycle_response(&mut self, mut head: Box<ResponseHead>) {
        if self.spares.responses.len() < SPARE_HEADS && head.fields.capacity() <= SPARE_HEAD_BYTES {
            head.clear();
            self.spares.responses.push(head);
        }
    }

    /// Takes back trailers for reuse.
    pub fn recycle_trailers(&mut self, mut fields: Box<Fields>) {
        if self.spares.trailers.len() < SPARE_HEADS && fields.capacity() <= SPARE_HEAD_BYTES {
            fields.clear();
            self.spares.trailers.push(fields);
        }
    }

    pub(super) fn spare_request(&mut self) -> Box<RequestHead> {
        self.spares.requests.pop().unwrap_or_default()
    }

    pub(super) fn spare_response(&mut self) -> Box<ResponseHead> {
        self.spares.responses.pop().unwrap_or_default()
    }

    pub(super) fn spare_trailers(&mut self) -> Box<Fields> {
        self.spares.trailers.pop().unwrap_or_default()
    }

    /// Sends a PING; the answer is [`Event::Pong`](super::Event::Pong) with the same bytes.
    pub fn ping(&mut self, payload: [u8; 8]) {
        frame::put_ping(&mut self.out.bytes, 0, payload);
    }

    /// Ends the connection (RFC 9113 §6.8). Streams that are open go on.
    ///
    /// A graceful end as server has two steps: GOAWAY that excludes no stream, and, when the client has answered a
    /// PING behind it, GOAWAY with the last stream. Requests that cross the first one on the wire are served. Without
    /// `graceful` the second step happens at once; it may also be asked for after the first.
    pub fn go_away(&mut self, code: ErrorCode, graceful: bool) {
        if matches!(self.phase, Phase::Failed(_)) {
            return;
        }
        let is_graceful = graceful && self.config.role == Role::Server;
        match self.go_away {
            GoAway::No if is_graceful => {
                frame::put_go_away(&mut self.out.bytes, EVERY_STREAM, code, b"");
                frame::put_ping(&mut self.out.bytes, 0, GO_AWAY_PING);
                self.go_away = GoAway::Announced;
            }
            GoAway::No | GoAway::Announced if !is_graceful => {
                frame::put_go_away(&mut self.out.bytes, self.last_stream, code, b"");
                self.go_away = GoAway::Final(self.last_stream);
            }
            _ => {}
        }
    }

    /// True when GOAWAY was sent or received: no request will be added by the side that it concerns.
    pub fn is_going_away(&self) -> bool {
        self.go_away != GoAway::No || self.peer_last_stream.is_some()
    }

    /// True when nothing more will happen: the connection is going away for good, no stream is open, and everything
    /// is written.
    pub fn is_drained(&self) -> bool {
        let is_final = match self.config.role {
            Role::Server => matches!(self.go_away, GoAway::Final(_)),
            Role::Client => self.is_going_away(),
        };
        (is_final || matches!(self.phase, Phase::Failed(_))) && self.streams.is_empty() && self.out.len() == 0
    }

    /// Tells the time; to be called when the deadline that it returned last has passed. Returns the next deadline.
    ///
    /// # Errors
    /// [`ConnectionError::SettingsTimeout`]; GOAWAY is in the output.
    pub fn poll_timeout(&mut self, now: Instant) -> Result<Option<Instant>, ConnectionError> {
        self.set_now(now);
        if let Phase::Failed(error) = self.phase {
            return Err(error);
        }
        if self.settings_acknowledged {
            return Ok(None);
        }
        let deadline = self.epoch.and_then(|epoch| epoch.checked_add(self.config.settings_timeout));
        match deadline {
            Some(deadline) if deadline <= now => Err(self.fail(ConnectionError::SettingsTimeout)),
            deadline => Ok(deadline),
        }
    }

    /// Since when sending on this stream waits for the peer to open a window; `None` when it does not. A peer that
    /// never does holds what the stream holds (CVE-2019-9517): whoever has a deadline resets the stream.
    pub fn stalled_since(&self, id: StreamId) -> Option<Instant> {
        self.stall_time(self.streams.get(id.get())?)
    }

    /// A stream on which sending has waited for a window since before `limit`.
    pub fn first_stalled(&self, limit: Instant) -> Option<StreamId> {
        self.streams
            .iter()
            .find(|stream| self.stall_time(stream).is_some_and(|since| since < limit))
            .and_then(|stream| StreamId::new(stream.id))
    }

    fn stall_time(&self, stream: &Stream) -> Option<Instant> {
        let since = stream.stalled.checked_sub(1)?;
        self.epoch?.checked_add(Duration::from_millis(u64::from(since)))
    }

    /// The stall mark of this moment.
    pub(super) fn stall_mark(&self) -> u32 {
        let elapsed = match (self.now, self.epoch) {
            (Some(now), Some(epoch)) => now.saturating_duration_since(epoch),
            _ => Duration::ZERO,
        };
        u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX - 1).saturating_add(1)
    }

    pub(super) fn set_now(&mut self, now: Instant) {
        self.epoch.get_or_insert(now);
        self.now = Some(now);
    }

    /// Ends the connection with an error: GOAWAY, and nothing after it. Its streams are gone.
    pub(super) fn fail(&mut self, error: ConnectionError) -> ConnectionError {
        if !matches!(self.phase, Phase::Failed(_)) {
            let debug = error.to_string();
            frame::put_go_away(&mut self.out.bytes, self.last_stream, error.code(), debug.as_bytes());
            self.phase = Phase::Failed(error);
            self.streams = Streams::default();
            self.waiting = VecDeque::new();
            self.block = None;
            self.data = None;
        }
        error
    }

    /// The client has read the first step of our graceful GOAWAY, if this answers its PING.
    pub(super) fn is_go_away_ping(&mut self, payload: [u8; 8]) -> bool {
        let is_ours = payload == GO_AWAY_PING && self.go_away == GoAway::Announced;
        if is_ours {
            self.go_away(ErrorCode::NO_ERROR, false);
        }
        is_ours
    }

    /// Before a reply to a control frame is added to the output: a peer that sends such frames and does not read the
    /// replies would fill our memory.
    pub(super) fn check_output(&self) -> Result<(), ConnectionError> {
        if self.out.len() > self.config.limits.output as usize {
            return Err(ConnectionError::Abuse(Abuse::Output));
        }
        Ok(())
    }

    pub(super) fn acknowledge_settings(&mut self) {
        frame::put_header(&mut self.out.bytes, 0, frame::kind::SETTINGS, flag::ACK, 0);
    }

    /// Content of the peer is consumed as far as the connection is concerned: its window is opened again, by at least
    /// half at a time.
    pub(super) fn credit(&mut self, bytes: u32) {
        self.unannounced = self.unannounced.saturating_add(bytes);
        if self.unannounced > 0 && self.unannounced >= self.config.connection_window / 2 {
            frame::put_window_update(&mut self.out.bytes, 0, self.unannounced);
            self.receive_window = self.receive_window.saturating_add_unsigned(self.unannounced);
            self.unannounced = 0;
        }
    }

    /// Forgets a stream. Content that was handed out and not released is released.
    pub(super) fn remove(&mut self, id: u32) -> Option<Stream> {
        let stream = self.streams.remove(id)?;
        if stream.flags.has(StreamFlags::QUEUED)
            && let Some(place) = self.waiting.iter().position(|waiting| *waiting == id)
        {
            self.waiting.remove(place);
        }
        if stream.held > 0 {
            self.credit(stream.held);
        }
        Some(stream)
    }

    /// Sends RST_STREAM and forgets the stream, if it is open.
    pub(super) fn put_reset(&mut self, id: u32, code: ErrorCode) {
        frame::put_reset(&mut self.out.bytes, id, code);
        self.meter.counters.resets_sent = self.meter.counters.resets_sent.saturating_add(1);
        self.abandon(id);
    }

    /// Forgets a stream whose late frames are to be ignored.
    pub(super) fn abandon(&mut self, id: u32) {
        if self.resets.len() >= REMEMBERED_RESETS {
            self.resets.pop_front();
        }
        self.resets.push_back(id);
        self.remove(id);
    }

    /// One side of the stream has ended.
    pub(super) fn end(&mut self, id: u32, ended: State) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if stream.state == State::Open {
            stream.state = ended;
            if ended == State::HalfClosedLocal && stream.flags.has(StreamFlags::REFUSED) {
                // RFC 9113 §8.1: the answer is complete; what the client still sends is not wanted.
                let code = if stream.flags.has(StreamFlags::MALFORMED) {
                    ErrorCode::PROTOCOL_ERROR
                } else {
                    ErrorCode::NO_ERROR
                };
                self.put_reset(id, code);
            }
            return;
        }
        if stream.state == ended {
            return;
        }
        self.remove(id);
        // A request that was answered pays for one that was reset.
        self.meter.credit(Metered::Resets, 1);
    }
}

/// SETTINGS_HEADER_TABLE_SIZE before any setting (RFC 9113 §6.5.2).
const DEFAULT_TABLE_SIZE: u32 = 4096;
