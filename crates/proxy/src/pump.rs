//! Moving content between the two sides: bounded buffers, back-pressure both ways, both directions at once.

use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, ready};

use rhumb_base::failure::{Cause, Failure};
use rhumb_codec::field::Fields;
use rhumb_codec::head::{Method, RequestHead, ResponseHead};
use rhumb_conn::Part;
use rhumb_net::splice::{Moved, Splice, SpliceError};
use rhumb_policy::Ahead;

use crate::glance::Glance;
use crate::goodbye::{Frames, GOING_AWAY, Goodbye};
use crate::mirror::Tap;
use crate::pace::Pace;
use crate::replay::Replay;
use crate::side::{Down, Up};
use crate::worker::Worker;

/// Content with at least this many bytes to come moves inside the kernel when both sides are plain.
pub(crate) const SPLICE_MIN: u64 = 64 << 10;

/// Room for the last piece of content that is read ahead, in bytes.
const AHEAD_ROOM: usize = 64 << 10;

/// What one direction does next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Content comes.
    Open,
    /// The end was passed on; in a tunnel the sending side still has to be closed.
    Closing,
    /// Nothing more to do.
    Done,
}

/// What a client of a WebSocket has been told about its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    /// It is to be told at the next border of frames.
    Wanted,
    /// It was told: what the backend still sends is of no use.
    Goodbye,
}

#[derive(Clone, Copy)]
enum Direction {
    Request,
    Response,
}

/// What one exchange has moved, and what it still has to.
pub(crate) struct Pump {
    request: Flow,
    response: Flow,
    request_pipe: Option<Box<Splice>>,
    response_pipe: Option<Box<Splice>>,
    /// The backend no longer takes request content; its answer may still come.
    request_refused: bool,
    is_tunnel: bool,
    /// The frames that the backend of a WebSocket sends.
    frames: Option<Box<Frames>>,
    goodbye: Said,
    farewell: Option<Box<Goodbye>>,
    no_pipes: bool,
    /// How fast response content may pass; `None`: as fast as it can.
    pace: Option<Box<Pace>>,
    /// Response content that may pass before the exchange is cut, in bytes.
    cut_after: Option<NonZeroU64>,
    /// Copies request content for mirrors.
    tap: Option<Box<Tap>>,
    /// Copies response content for who finds out which APIs there are.
    glance: Option<Box<Glance>>,
    /// Request content bytes taken from the client.
    pub(crate) bytes_in: u64,
    /// Response content bytes given to the client.
    pub(crate) bytes_out: u64,
    /// Request content beyond this is refused.
    pub(crate) max_content: u64,
    /// Request content for another attempt; given up once it is too much, was not wanted, or has trailers behind it.
    pub(crate) replay: Replay,
    /// Content was read before there was anybody to send it to.
    is_ahead: bool,
    /// Trailers behind content that was read so.
    trailers: Option<Box<Fields>>,
    /// Something moved since the last look: timers start anew.
    pub(crate) has_moved: bool,
    pub(crate) has_spliced: bool,
}

/// Who broke the exchange.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The client: nobody is left to answer.
    Client(Failure),
    /// The client's request content is refused: it can still be told.
    Request(Failure),
    /// The backend.
    Backend(Failure),
}

impl Pump {
    pub(crate) fn new(max_content: Option<u64>) -> Self {
        Self {
            request: Flow::Open,
            response: Flow::Open,
            request_pipe: None,
            response_pipe: None,
            request_refused: false,
            is_tunnel: false,
            frames: None,
            goodbye: Said::Nothing,
            farewell: None,
            no_pipes: false,
            pace: None,
            cut_after: None,
            tap: None,
            glance: None,
            bytes_in: 0,
            bytes_out: 0,
            max_content: max_content.unwrap_or(u64::MAX),
            replay: Replay::new(),
            is_ahead: false,
            trailers: None,
            has_moved: false,
            has_spliced: false,
        }
    }

    /// Starts an attempt: the head of the request and what is kept of its content are on their way after this. `keep` is
    /// how much is kept for another one, in bytes.
    pub(crate) fn begin(
        &mut self,
        req: &RequestHead,
        up: &mut Up,
        cx: &mut Context<'_>,
        keep: usize,
    ) -> Result<(), Failure> {
        up.send_head(req);
        self.request_refused = false;
        self.response = Flow::Open;
        // What a client sends behind a request for a tunnel waits for the tunnel.
        if req.content.is_empty() || req.method() == Method::Connect {
            self.request = Flow::Done;
            return Ok(());
        }
        match self.replay.whole() {
            Some(kept) if !kept.is_empty() => up.send_data(cx, kept).map_err(|_| up.reset())?,
            _ => {}
        }
        self.replay.set_limit(keep);
        if self.request != Flow::Open {
            up.send_end(self.trailers.as_deref());
        }
        Ok(())
    }

    /// Takes content from the client before there is anybody to send it to, until there are `limit` bytes of it or all of
    /// it. Ready at once when that was done before.
    pub(crate) fn poll_ahead(
        &mut self,
        cx: &mut Context<'_>,
        req: &RequestHead,
        down: &mut Down<'_>,
        limit: usize,
    ) -> Poll<Result<(), Broken>> {
        self.is_ahead = true;
        if req.content.is_empty() || req.method() == Method::Connect {
            return Poll::Ready(Ok(()));
        }
        // The last piece may go beyond the limit: it is not cut, and no larger than a buffer.
        self.replay.set_limit(limit.saturating_add(AHEAD_ROOM));
        loop {
            let read = self.replay.whole().map_or(0, <[u8]>::len);
            if self.request != Flow::Open || read >= limit {
                return Poll::Ready(Ok(()));
            }
            // 100 (Continue) may still wait in the output.
            if let Poll::Ready(Err(_)) = down.poll_flush(cx) {
                return Poll::Ready(Err(Broken::Client(Cause::ClientClosed.into())));
            }
            match ready!(down.poll_body(cx)) {
                Err(failure) if failure.cause == Cause::ClientClosed => {
                    return Poll::Ready(Err(Broken::Client(failure)));
                }
                Err(failure) => return Poll::Ready(Err(Broken::Request(failure))),
                Ok(Part::Data(data)) => {
                    self.bytes_in += data.len() as u64;
                    if self.bytes_in > self.max_content {
                        return Poll::Ready(Err(Broken::Request(Cause::ContentTooLarge.into())));
                    }
                    self.replay.push(data);
                    if self.replay.whole().is_none() {
                        // What was taken would be lost.
                        return Poll::Ready(Err(Broken::Request(Cause::Overloaded.into())));
                    }
                }
                Ok(Part::End(trailers)) => {
                    self.trailers = trailers;
                    self.request = Flow::Done;
                }
            }
        }
    }

    /// What was read for policies, if any was asked for.
    pub(crate) fn ahead(&self) -> Option<Ahead<'_>> {
        let bytes = self.replay.whole().filter(|_| self.is_ahead)?;
        Some(Ahead { bytes, is_whole: self.request != Flow::Open || bytes.is_empty() })
    }

    /// True while everything that was taken from the client could be sent again.
    pub(crate) fn can_replay(&self) -> bool {
        self.replay.whole().is_some()
    }

    /// True when the whole request was passed on.
    pub(crate) fn is_request_done(&self) -> bool {
        self.request != Flow::Open
    }

    /// True when the exchange stands still because the client does not send on.
    pub(crate) fn waits_for_client(&self, up: &Up) -> bool {
        self.request == Flow::Open && !self.request_refused && up.backlog() == 0
    }

    /// Response content passes no faster than this from here on, in bytes per second; all that have the same line together.
    pub(crate) fn set_pace(&mut self, bytes_per_second: NonZeroU64, line: Option<Arc<AtomicU64>>) {
        self.pace = Some(Box::new(Pace::new(bytes_per_second, line)));
    }

    /// The exchange is cut when so many bytes of response content have passed.
    pub(crate) fn set_cut(&mut self, after: NonZeroU64) {
        self.cut_after = Some(after);
        self.pace.get_or_insert_with(|| Box::new(Pace::new(NonZeroU64::MAX, None)));
    }

    /// True when it was cut so.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut_after.is_some_and(|after| self.bytes_out >= after.get())
    }

    /// Request content is copied there.
    pub(crate) fn set_tap(&mut self, mut tap: Tap) {
        // What policies had read is copied first.
        if self.replay.whole().is_some_and(|read| !tap.copy(read)) {
            return;
        }
        match self.request {
            Flow::Open => self.tap = Some(Box::new(tap)),
            Flow::Closing | Flow::Done => tap.finish(self.trailers.as_deref()),
        }
    }

    /// Response content is copied, as long as it is short.
    pub(crate) fn glance(&mut self) {
        self.glance = Some(Box::default());
    }

    /// The content of the response, where it was copied and is complete.
    pub(crate) fn glanced(&self) -> Option<&[u8]> {
        self.glance.as_deref().filter(|_| self.response == Flow::Done).and_then(Glance::whole)
    }

    /// True when response content is slowed down.
    pub(crate) fn is_paced(&self) -> bool {
        self.pace.as_ref().is_some_and(|pace| pace.is_slow())
    }

    /// From here on both directions run until both have ended.
    pub(crate) fn begin_tunnel(&mut self, down: &mut Down<'_>, up: &mut Up) {
        down.begin_tunnel();
        up.begin_tunnel();
        self.is_tunnel = true;
        self.request = Flow::Open;
        self.max_content = u64::MAX;
        self.replay.give_up();
    }

    /// The tunnel is a WebSocket: it can be ended in an orderly way.
    pub(crate) fn end_in_order(&mut self, worker: &Rc<Worker>) {
        self.frames = Some(Box::default());
        self.farewell = Some(Box::new(Goodbye::new(worker)));
    }

    /// True when the client of a WebSocket was told to go.
    pub(crate) fn has_said_goodbye(&self) -> bool {
        self.goodbye == Said::Goodbye
    }

    fn try_goodbye(&mut self, cx: &mut Context<'_>, down: &mut Down<'_>) -> Result<(), Broken> {
        if let Some(farewell) = &mut self.farewell
            && farewell.poll(cx).is_ready()
        {
            self.goodbye = Said::Wanted;
        }
        if self.goodbye != Said::Wanted || !self.frames.as_ref().is_some_and(|frames| frames.is_between()) {
            return Ok(());
        }
        self.goodbye = Said::Goodbye;
        down.send_data(cx, &GOING_AWAY).map_err(|_| Broken::Client(Cause::ClientClosed.into()))
    }

    /// Moves request content, and ready when a response head has come.
    pub(crate) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut Down<'_>,
        up: &mut Up,
        head: &mut ResponseHead,
    ) -> Poll<Result<(), Broken>> {
        let before = up.backlog();
        self.move_request(cx, down, up)?;
        self.has_moved |= up.backlog() < before;
        if let Poll::Ready(result) = up.poll_response(cx, head) {
            return Poll::Ready(result.map_err(Broken::Backend));
        }
        if down.poll_closed(cx).is_ready() {
            return Poll::Ready(Err(Broken::Client(Cause::ClientClosed.into())));
        }
        // An interim response waits in the output for its turn.
        if let Poll::Ready(Err(_)) = down.poll_flush(cx) {
            return Poll::Ready(Err(Broken::Client(Cause::ClientClosed.into())));
        }
        Poll::Pending
    }

    /// Moves content both ways; ready when the response is complete and written.
    pub(crate) fn poll_content(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut Down<'_>,
        up: &mut Up,
    ) -> Poll<Result<(), Broken>> {
        let before = (down.backlog(), up.backlog());
        let result = self.move_content(cx, down, up);
        // A slow reader is not one that stands still.
        self.has_moved |= down.backlog() < before.0 || up.backlog() < before.1;
        result
    }

    fn move_content(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut Down<'_>,
        up: &mut Up,
    ) -> Poll<Result<(), Broken>> {
        if self.request != Flow::Done {
            self.move_request(cx, down, up)?;
        }
        self.move_response(cx, down, up)?;
        match down.poll_flush(cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Client(Cause::ClientClosed.into()))),
            Poll::Ready(Ok(())) if self.response == Flow::Closing => {
                if !self.is_tunnel {
                    self.response = Flow::Done;
                } else if let Poll::Ready(result) = down.poll_shutdown(cx) {
                    let _ = result;
                    self.response = Flow::Done;
                }
            }
            _ => {}
        }
        // RFC 6455 §7.1.1: after both Close frames it is the server that closes.
        let is_request_over = self.request == Flow::Done || self.goodbye == Said::Goodbye;
        let is_done = self.response == Flow::Done && (!self.is_tunnel || is_request_over);
        if is_done {
            return Poll::Ready(Ok(()));
        }
        if !self.is_tunnel && down.poll_closed(cx).is_ready() {
            return Poll::Ready(Err(Broken::Client(Cause::ClientClosed.into())));
        }
        Poll::Pending
    }

    fn move_request(&mut self, cx: &mut Context<'_>, down: &mut Down<'_>, up: &mut Up) -> Result<(), Broken> {
        while self.request == Flow::Open && !self.request_refused {
            if self.request_pipe.is_none()
                && !self.no_pipes
                && self.tap.is_none()
                && up.splice_sink().is_some()
                && down.splice_limit() >= SPLICE_MIN
                && !self.replay.would_keep(down.splice_limit())
            {
                match up.poll_flush(cx) {
                    Poll::Ready(Ok(())) => self.open_pipe(Direction::Request),
                    Poll::Ready(Err(_)) => {
                        self.refuse_request(up)?;
                        break;
                    }
                    Poll::Pending => break,
                }
            }
            if self.request_pipe.is_some() {
                match self.splice_request(cx, down, up)? {
                    Poll::Ready(()) => continue,
                    Poll::Pending => break,
                }
            }
            match up.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.refuse_request(up)?,
                Poll::Pending => break,
            }
            match down.poll_body(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(failure)) => {
                    let is_gone = failure.cause == Cause::ClientClosed;
                    return Err(if is_gone { Broken::Client(failure) } else { Broken::Request(failure) });
                }
                Poll::Ready(Ok(Part::Data(data))) => {
                    self.has_moved = true;
                    self.bytes_in += data.len() as u64;
                    if self.bytes_in > self.max_content {
                        return Err(Broken::Request(Cause::ContentTooLarge.into()));
                    }
                    self.replay.push(data);
                    if let Some(tap) = &mut self.tap
                        && !tap.copy(data)
                    {
                        self.tap = None;
                    }
                    if up.send_data(cx, data).is_err() {
                        self.refuse_request(up)?;
                    }
                }
                Poll::Ready(Ok(Part::End(trailers))) => {
                    self.has_moved = true;
                    if let Some(tap) = self.tap.take() {
                        tap.finish(trailers.as_deref());
                    }
                    if trailers.is_some() {
                        self.replay.give_up();
                    }
                    up.send_end(trailers.as_deref());
                    self.request = Flow::Closing;
                }
            }
        }
        match up.poll_flush(cx) {
            Poll::Ready(Err(_)) => self.refuse_request(up)?,
            Poll::Ready(Ok(())) if self.request == Flow::Closing => {
                if !self.is_tunnel {
                    self.request = Flow::Done;
                } else if let Poll::Ready(result) = up.poll_shutdown(cx) {
                    let _ = result;
                    self.request = Flow::Done;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The backend does not read on. It may have answered before (413, 401): its answer decides, so reading goes on.
    fn refuse_request(&mut self, up: &Up) -> Result<(), Broken> {
        if self.is_tunnel {
            return Err(Broken::Backend(up.reset()));
        }
        self.request_refused = true;
        Ok(())
    }

    fn move_response(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut Down<'_>,
        up: &mut Up,
    ) -> Result<(), Broken> {
        self.try_goodbye(cx, down)?;
        while self.response == Flow::Open {
            if self.pace.is_some() {
                return self.move_paced(cx, down, up);
            }
            if self.response_pipe.is_none()
                && !self.no_pipes
                && down.splice_sink().is_some()
                && up.splice_limit() >= SPLICE_MIN
            {
                // Head and first bytes go first; what the pipe carries must not overtake them.
                match down.poll_flush(cx) {
                    Poll::Ready(Ok(())) => self.open_pipe(Direction::Response),
                    Poll::Ready(Err(_)) => return Err(Broken::Client(Cause::ClientClosed.into())),
                    Poll::Pending => break,
                }
            }
            if self.response_pipe.is_some() {
                match self.splice_response(cx, down, up)? {
                    Poll::Ready(()) => continue,
                    Poll::Pending => break,
                }
            }
            match down.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(Broken::Client(Cause::ClientClosed.into())),
                Poll::Pending => break,
            }
            match up.poll_body(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(failure)) => return Err(Broken::Backend(failure)),
                Poll::Ready(Ok(Part::Data(_))) if self.goodbye == Said::Goodbye => {}
                Poll::Ready(Ok(Part::Data(data))) => {
                    self.has_moved = true;
                    self.bytes_out += data.len() as u64;
                    if let Some(glance) = &mut self.glance {
                        glance.push(data);
                    }
                    if down.send_data(cx, data).is_err() {
                        return Err(Broken::Client(Cause::ClientClosed.into()));
                    }
                    if let Some(frames) = &mut self.frames {
                        frames.pass(data);
                        self.try_goodbye(cx, down)?;
                    }
                }
                Poll::Ready(Ok(Part::End(trailers))) => {
                    self.has_moved = true;
                    down.send_end(trailers.as_deref());
                    self.response = Flow::Closing;
                }
            }
        }
        Ok(())
    }

    /// Moves response content no faster than the pace allows. What has come and may not pass yet is kept; no more is taken
    /// from the backend before it has passed.
    fn move_paced(&mut self, cx: &mut Context<'_>, down: &mut Down<'_>, up: &mut Up) -> Result<(), Broken> {
        let Some(pace) = self.pace.as_deref_mut() else { return Ok(()) };
        let gone = || Broken::Client(Cause::ClientClosed.into());
        while self.response == Flow::Open {
            match down.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(gone()),
                Poll::Pending => break,
            }
            let left = self.cut_after.map(|after| after.get().saturating_sub(self.bytes_out));
            if left == Some(0) {
                // What has passed is to arrive.
                return match down.poll_flush(cx) {
                    Poll::Pending => Ok(()),
                    Poll::Ready(_) => Err(Broken::Client(Cause::FaultInjected.into())),
                };
            }
            if !pace.waiting().is_empty() {
                let Poll::Ready(mut allowed) = pace.poll_allowed(cx) else { break };
                if let Some(left) = left.and_then(|left| usize::try_from(left).ok()) {
                    allowed = allowed.min(left);
                }
                let part = pace.waiting().get(..allowed).unwrap_or_default();
                self.has_moved = true;
                self.bytes_out += part.len() as u64;
                if down.send_data(cx, part).is_err() {
                    return Err(gone());
                }
                pace.pass(allowed);
                continue;
            }
            match up.poll_body(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(failure)) => return Err(Broken::Backend(failure)),
                Poll::Ready(Ok(Part::Data(data))) => pace.keep(data),
                Poll::Ready(Ok(Part::End(trailers))) => {
                    self.has_moved = true;
                    down.send_end(trailers.as_deref());
                    self.response = Flow::Closing;
                }
            }
        }
        Ok(())
    }

    /// When the system grants no pipe (out of descriptors), content is copied.
    fn open_pipe(&mut self, direction: Direction) {
        let Ok(pipe) = Splice::new() else {
            self.no_pipes = true;
            return;
        };
        match direction {
            Direction::Request => self.request_pipe = Some(Box::new(pipe)),
            Direction::Response => self.response_pipe = Some(Box::new(pipe)),
        }
    }

    fn splice_request(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut Down<'_>,
        up: &mut Up,
    ) -> Result<Poll<()>, Broken> {
        let Some(pipe) = self.request_pipe.as_deref_mut() else { return Ok(Poll::Ready(())) };
        let limit = down.splice_limit();
        if limit == 0 && pipe.held() == 0 {
            self.request_pipe = None;
            return Ok(Poll::Ready(()));
        }
        let moved = match (down.splice_source(), up.splice_sink()) {
            (Some(source), Some(sink)) => pipe.poll(cx, source, sink, limit),
            _ => return Err(Broken::Backend(up.reset())),
        };
        self.replay.give_up();
        self.has_spliced = true;
        match moved {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(Moved::In(n))) => {
                self.has_moved = true;
                self.bytes_in += n as u64;
                if self.bytes_in > self.max_content {
                    return Err(Broken::Request(Cause::ContentTooLarge.into()));
                }
                down.spliced(n as u64);
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Ok(Moved::Out(_))) => {
                self.has_moved = true;
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Ok(Moved::Eof) | Err(SpliceError::Source(_))) => {
                Err(Broken::Client(Cause::ClientClosed.into()))
            }
            Poll::Ready(Err(SpliceError::Sink(_))) => {
                self.request_pipe = None;
                self.refuse_request(up)?;
                Ok(Poll::Pending)
            }
        }
    }

    fn splice_response(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut Down<'_>,
        up: &mut Up,
    ) -> Result<Poll<()>, Broken> {
        // What moves inside the kernel is not seen.
        self.glance = None;
        let Some(pipe) = self.response_pipe.as_deref_mut() else { return Ok(Poll::Ready(())) };
        let limit = up.splice_limit();
        if limit == 0 && pipe.held() == 0 {
            self.response_pipe = None;
            return Ok(Poll::Ready(()));
        }
        let moved = match (up.splice_source(), down.splice_sink()) {
            (Some(source), Some(sink)) => pipe.poll(cx, source, sink, limit),
            _ => return Err(Broken::Client(Cause::ClientClosed.into())),
        };
        self.has_spliced = true;
        match moved {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(Moved::In(n))) => {
                self.has_moved = true;
                up.spliced(n as u64);
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Ok(Moved::Out(n))) => {
                self.has_moved = true;
                self.bytes_out += n as u64;
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Ok(Moved::Eof) | Err(SpliceError::Source(_))) => {
                Err(Broken::Backend(Cause::ResponseIncomplete.into()))
            }
            Poll::Ready(Err(SpliceError::Sink(_))) => Err(Broken::Client(Cause::ClientClosed.into())),
        }
    }
}
