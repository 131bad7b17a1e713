//! The driver: reads, dispatches, writes.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rhumb_base::failure::{Cause, Failure, Retry};
use rhumb_codec::h2::{Config, ConnectionError, ErrorCode, Event, Refusal, Role};
use rhumb_codec::head::RequestHead;
use rhumb_net::buffer::Charge;
use rhumb_net::timer::Timer;

use super::shared::{Cell, Handle, Shared, Slot, id_of, reset_failure};
use super::stream::Stream;
use crate::input::Input;
use crate::io::Io;

/// Interim responses that one exchange may queue before somebody reads them.
const MAX_HEADS: usize = 32;

/// How long writing the last words of a connection may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long a peer may leave a stream's window shut while content waits for it (CVE-2019-9517).
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How often stalls are looked for.
const STALL_CHECK: Duration = Duration::from_secs(5);

/// The task's side of a connection.
pub struct Driver {
    shared: Cell,
    io: Io,
    input: Input,
    /// Bytes of the input that came after the last look.
    is_fed: bool,
    /// Streams were woken and get their turn before the output is written.
    has_deferred: bool,
    is_finished: bool,
    /// The peer has acknowledged our settings.
    is_settled: bool,
    idle_timeout: Duration,
    /// When an unused connection ends; after the last frame was read, when writing ends.
    idle: Timer,
    watch: Timer,
    error: Option<ConnectionError>,
    /// Streams that were reset because the peer kept a window shut.
    stalls: u32,
    is_idled_out: bool,
    charge: Charge,
}

impl Driver {
    /// A connection whose handshake is complete; `input` holds bytes that were read already.
    pub fn new(io: Io, input: Input, config: Config, idle_timeout: Duration) -> Self {
        let is_fed = !input.is_empty();
        Self {
            shared: Shared::new(config),
            io,
            input,
            is_fed,
            has_deferred: false,
            is_finished: false,
            is_settled: false,
            idle_timeout,
            idle: Timer::new(),
            watch: Timer::new(),
            error: None,
            stalls: 0,
            is_idled_out: false,
            charge: Charge::default(),
        }
    }

    /// A handle to open streams with, as client.
    pub fn handle(&self) -> Handle {
        Handle(Rc::clone(&self.shared))
    }

    /// Begins to leave: no new streams, then the end.
    pub fn leave(&mut self) {
        self.shared.borrow_mut().codec.go_away(ErrorCode::NO_ERROR, true);
    }

    /// Ends every stream at once, without a word: nothing more may pass. Drop the driver then.
    pub fn cut(&mut self) {
        self.shared.borrow_mut().die();
    }

    /// Has the tasks of all streams look again whether they may go on.
    pub fn wake_streams(&self) {
        self.shared.borrow_mut().slots.values_mut().for_each(Slot::wake);
    }

    /// The error that the peer was told, once the driver has ended.
    pub fn error(&self) -> Option<ConnectionError> {
        self.error
    }

    /// True while no stream is open.
    pub fn is_unused(&self) -> bool {
        self.shared.borrow().slots.is_empty()
    }

    /// True when the connection ends because nothing was asked of it for too long.
    pub fn is_idled_out(&self) -> bool {
        self.is_idled_out
    }

    /// Streams refused because too many were open, and streams reset because the peer kept a window shut.
    pub fn limit_hits(&self) -> (u32, u32) {
        (self.shared.borrow().codec.counters().streams_refused, self.stalls)
    }

    /// Drives a server's connection; `on_request` takes each request with its stream, or why it is refused. Ready when
    /// the connection is over.
    pub fn poll_serve(
        &mut self,
        cx: &mut Context<'_>,
        on_request: impl FnMut(Stream, Result<Box<RequestHead>, Refusal>),
    ) -> Poll<()> {
        let result = self.poll_drive(cx, on_request);
        if result.is_ready() {
            self.shared.borrow_mut().die();
        }
        result
    }

    /// Drives a client's connection. Ready when it is over.
    pub fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_serve(cx, |stream, _| drop(stream))
    }

    fn poll_drive(
        &mut self,
        cx: &mut Context<'_>,
        mut on_request: impl FnMut(Stream, Result<Box<RequestHead>, Refusal>),
    ) -> Poll<()> {
        let mut woken = false;
        if self.shared.borrow().is_cut {
            return Poll::Ready(());
        }
        if !self.is_finished {
            woken = self.read(cx, &mut on_request);
        }
        {
            let mut shared = self.shared.borrow_mut();
            match &shared.driver {
                Some(known) if known.will_wake(cx.waker()) => {}
                _ => shared.driver = Some(cx.waker().clone()),
            }
        }
        if woken && !self.has_deferred && !self.is_finished {
            self.has_deferred = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.has_deferred = false;
        let is_written = match self.write(cx) {
            Poll::Ready(true) => true,
            Poll::Ready(false) => return Poll::Ready(()),
            Poll::Pending => false,
        };
        if self.is_finished && is_written || self.shared.borrow().codec.is_drained() {
            if self.io.poll_shutdown(cx).is_ready() {
                return Poll::Ready(());
            }
            if !self.is_finished {
                self.finish();
            }
        }
        self.poll_timers(cx)
    }

    /// Nothing more is read; what is in the output gets a little time.
    fn finish(&mut self) {
        self.is_finished = true;
        self.idle.set(Instant::now() + LAST_WORDS);
    }

    /// Reads and dispatches; true when a stream was woken or begun.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        on_request: &mut impl FnMut(Stream, Result<Box<RequestHead>, Refusal>),
    ) -> bool {
        let mut woken = false;
        loop {
            if std::mem::take(&mut self.is_fed) {
                woken |= self.dispatch(on_request);
                if self.is_finished {
                    return woken;
                }
            }
            // A peer that does not read what it asked for gets nothing more done.
            if self.shared.borrow().codec.is_congested() {
                return woken;
            }
            match self.input.poll_fill(&mut self.io, cx) {
                Poll::Ready(Ok(n)) if n > 0 => self.is_fed = true,
                Poll::Ready(_) => {
                    self.finish();
                    self.shared.borrow_mut().die();
                    return woken;
                }
                Poll::Pending => return woken,
            }
        }
    }

    fn dispatch(&mut self, on_request: &mut impl FnMut(Stream, Result<Box<RequestHead>, Refusal>)) -> bool {
        let now = Instant::now();
        let mut woken = false;
        let mut at = 0;
        loop {
            let mut guard = self.shared.borrow_mut();
            let shared = &mut *guard;
            let input = self.input.data().get(at..).unwrap_or_default();
            let received = match shared.codec.receive(input, now) {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "HTTP/2 connection error");
                    self.error = Some(error);
                    shared.die();
                    drop(guard);
                    self.finish();
                    return woken;
                }
            };
            at += received.consumed;
            let Some(event) = received.event else {
                if received.consumed == 0 {
                    break;
                }
                continue;
            };
            match event {
                Event::Request { stream, head, end_stream } => {
                    shared.slots.insert(id_of(stream), Slot { has_ended: end_stream, ..Slot::default() });
                    drop(guard);
                    on_request(Stream::server(Rc::clone(&self.shared), stream), Ok(head));
                    woken = true;
                }
                Event::Refused { stream, reason } => {
                    shared.slots.insert(id_of(stream), Slot { has_ended: true, ..Slot::default() });
                    drop(guard);
                    on_request(Stream::server(Rc::clone(&self.shared), stream), Err(reason));
                    woken = true;
                }
                Event::Response { stream, head, end_stream } => {
                    let Some(slot) = shared.slots.get_mut(&id_of(stream)) else { continue };
                    if slot.heads.len() < MAX_HEADS {
                        slot.heads.push_back(head);
                        slot.has_ended |= end_stream;
                    } else {
                        slot.reset = Some(Cause::ResponseMalformed.into());
                        shared.codec.reset(stream, ErrorCode::ENHANCE_YOUR_CALM);
                    }
                    wake(shared, id_of(stream));
                    woken = true;
                }
                Event::Data { stream, data, flow, end_stream } => {
                    let Some(slot) = shared.slots.get_mut(&id_of(stream)) else {
                        shared.codec.release(stream, flow);
                        continue;
                    };
                    // Bounded by the stream's window: what is not fetched is not released.
                    slot.content.extend_from_slice(data);
                    slot.flow += flow;
                    slot.has_ended |= end_stream;
                    slot.wake();
                    woken = true;
                }
                Event::Trailers { stream, fields } => {
                    if let Some(slot) = shared.slots.get_mut(&id_of(stream)) {
                        slot.trailers = Some(fields);
                        slot.has_ended = true;
                        slot.wake();
                        woken = true;
                    }
                }
                Event::Reset { stream, code, refusal, .. } => {
                    if let Some(slot) = shared.slots.get_mut(&id_of(stream)) {
                        slot.reset = Some(match refusal {
                            Some(_) => Cause::ResponseMalformed.into(),
                            None => reset_failure(code),
                        });
                        slot.wake();
                        woken = true;
                    }
                }
                Event::Writable => woken |= wake_writable(shared),
                Event::Settings => {
                    shared.settle();
                    woken |= wake_writable(shared);
                }
                Event::GoAway { last_stream, code, debug: words } => {
                    tracing::debug!(%code, last_stream, words = %String::from_utf8_lossy(words), "GOAWAY received");
                    if shared.codec.role() == Role::Server {
                        // It is about streams of ours, and we open none; the client's go on.
                        continue;
                    }
                    for (_, slot) in shared.slots.iter_mut().filter(|(id, _)| **id > last_stream) {
                        // RFC 9113 §6.8: streams above the last one were not processed.
                        let failure = Failure::new(Cause::BackendReset).retry(Retry::IfNotProcessed);
                        slot.reset.get_or_insert(failure);
                        slot.wake();
                    }
                    shared.waiting.wake_all();
                    woken = true;
                }
                Event::Pong { .. } => {}
            }
        }
        self.input.consume(at);
        self.shared.borrow().share_streams();
        woken
    }

    /// Writes the output; ready with false when the stream is broken.
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let shared = &mut *self.shared.borrow_mut();
        let was_congested = shared.codec.is_congested();
        let mut result = Poll::Ready(true);
        while shared.codec.wants_write() {
            match self.io.poll_write(cx, shared.codec.output()) {
                Poll::Ready(Ok(n)) if n > 0 => shared.codec.advance_output(n),
                Poll::Ready(_) => return Poll::Ready(false),
                Poll::Pending => {
                    result = Poll::Pending;
                    break;
                }
            }
        }
        self.charge.set(shared.codec.output().len());
        if was_congested && !shared.codec.is_congested() {
            // Streams wait for room, and so does reading.
            wake_writable(shared);
            cx.waker().wake_by_ref();
        }
        match self.io.poll_flush(cx) {
            Poll::Ready(Ok(())) => result,
            Poll::Ready(Err(_)) => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_finished {
            return self.idle.poll(cx);
        }
        let is_unused = self.shared.borrow().slots.is_empty();
        if !is_unused {
            self.idle.clear();
        } else if self.idle.deadline().is_none() {
            self.idle.set(Instant::now() + self.idle_timeout);
            self.trim();
        }
        if self.idle.poll(cx).is_ready() {
            self.is_idled_out = true;
            self.shared.borrow_mut().codec.go_away(ErrorCode::NO_ERROR, false);
            self.finish();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Very many connections rest: they are not looked after.
        if is_unused && self.is_settled {
            self.watch.clear();
        } else if self.watch.deadline().is_none() {
            self.watch.set(Instant::now() + STALL_CHECK);
        }
        if self.watch.poll(cx).is_ready() {
            let now = Instant::now();
            self.watch.set(now + STALL_CHECK);
            self.look_after(now);
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Ends streams that the peer lets wait, and the connection when it has not taken our settings.
    fn look_after(&mut self, now: Instant) {
        let shared = &mut *self.shared.borrow_mut();
        let cause = match shared.codec.role() {
            Role::Server => Cause::ClientClosed,
            Role::Client => Cause::BackendTimeout,
        };
        if let Some(limit) = now.checked_sub(STALL_TIMEOUT) {
            while let Some(stalled) = shared.codec.first_stalled(limit) {
                shared.codec.reset(stalled, ErrorCode::CANCEL);
                self.stalls = self.stalls.saturating_add(1);
                if let Some(slot) = shared.slots.get_mut(&id_of(stalled)) {
                    slot.reset = Some(cause.into());
                    slot.wake();
                }
            }
        }
        match shared.codec.poll_timeout(now) {
            Ok(deadline) => self.is_settled = deadline.is_none(),
            Err(error) => {
                self.error = Some(error);
                shared.die();
                self.is_finished = true;
                self.idle.set(now + LAST_WORDS);
            }
        }
    }

    fn trim(&self) {
        let shared = &mut *self.shared.borrow_mut();
        shared.codec.trim();
        shared.slots.shrink_to(8);
    }
}

fn wake(shared: &mut Shared, id: u32) {
    if let Some(slot) = shared.slots.get_mut(&id) {
        slot.wake();
    }
}

fn wake_writable(shared: &mut Shared) -> bool {
    let mut woken = false;
    while let Some(id) = shared.codec.next_writable() {
        wake(shared, id_of(id));
        woken = true;
    }
    woken
}
