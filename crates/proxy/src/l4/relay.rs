//! Two streams tied together: bytes both ways, half-close, limits, and why it ended.
//!
//! Knows nothing of how either side was opened. Plain sockets that carry much are spliced inside the kernel; whoever
//! carries little, or speaks TLS, goes through a lent buffer. A connection that rests holds neither pipe nor buffer.

use std::future::poll_fn;
use std::io;
use std::num::NonZeroU64;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rhumb_conn::io::Io;
use rhumb_net::buffer::{Buffer, SIZE};
use rhumb_net::splice::{Moved, Splice, SpliceError};
use rhumb_net::timer::Timer;
use rhumb_telemetry::signals::Meter;

use crate::pace::Pace;

/// A direction is spliced after so many reads in a row that filled a buffer: until then it is not worth a pipe.
const FULL_READS: u8 = 2;

/// What one splice asks for at most, in bytes; the pipe's size bounds it further.
const SPLICE_LIMIT: u64 = 1 << 30;

/// Moves in one direction before the other one gets its turn.
const MOVES: usize = 16;

/// Why a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelayEnd {
    /// Both sides have finished sending.
    Closed,
    /// The client's connection broke.
    ClientReset,
    /// The backend's connection broke.
    BackendReset,
    /// Nothing moved for too long.
    Idle,
    /// The connection lived as long as it may.
    Expired,
    /// What has changed does not allow it any more.
    Denied,
    /// It was broken on purpose.
    Fault,
}

/// How long a relay may rest and live, and what is to go wrong with it. `None` is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RelayLimits {
    /// Rest in both directions.
    pub(crate) idle: Option<Duration>,
    /// When it ends, whatever it does.
    pub(crate) until: Option<Instant>,
    /// How fast each direction passes, in bytes per second.
    pub(crate) bytes_per_second: Option<NonZeroU64>,
    /// How much passes before it is reset, in bytes of both directions together.
    pub(crate) reset_after: Option<NonZeroU64>,
}

impl RelayLimits {
    /// Sets the timer to when the first of them is reached.
    pub(crate) fn set(self, timer: &mut Timer) {
        let idle = self.idle.map(|idle| Instant::now() + idle);
        match [idle, self.until].into_iter().flatten().min() {
            Some(deadline) => timer.set(deadline),
            None => timer.clear(),
        }
    }

    /// The pace of one direction.
    pub(crate) fn pace(self) -> Option<Box<Pace>> {
        self.bytes_per_second.map(|rate| Box::new(Pace::new(rate, None)))
    }

    /// What may still pass of what it carries, after `carried` bytes.
    pub(crate) fn left(self, carried: u64) -> u64 {
        self.reset_after.map_or(u64::MAX, |after| after.get().saturating_sub(carried))
    }

    /// Which one it was.
    pub(crate) fn over(self) -> RelayEnd {
        match self.until {
            Some(until) if Instant::now() >= until => RelayEnd::Expired,
            _ => RelayEnd::Idle,
        }
    }
}

/// What a relay has carried.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// From the client to the backend, in bytes.
    pub(crate) bytes_in: u64,
    /// From the backend to the client, in bytes.
    pub(crate) bytes_out: u64,
    /// Some of it moved inside the kernel.
    pub(crate) has_spliced: bool,
    /// One side ended TLS without saying so.
    pub(crate) was_cut_short: bool,
    /// Counts it among who calls whom.
    pub(crate) meter: Option<Meter>,
}

impl Carried {
    /// So much has moved by now.
    #[inline]
    pub(crate) fn moved(&mut self, bytes_in: u64, bytes_out: u64) {
        (self.bytes_in, self.bytes_out) = (bytes_in, bytes_out);
        if let Some(meter) = &mut self.meter {
            meter.carry(bytes_in, bytes_out);
        }
    }
}

/// Carries bytes between both sides until both have finished, one breaks, or a limit is reached. `first` was read from
/// the client already; at most a lent buffer of it.
///
/// A side that finishes sending is half-closed on the other side; a side that breaks makes the other one break too, so
/// that nobody takes what has arrived for all there was.
pub(crate) async fn relay(
    down: &mut Io,
    up: &mut Io,
    first: Vec<u8>,
    limits: RelayLimits,
    carried: &mut Carried,
) -> RelayEnd {
    let inward = Lane::with(&first);
    drop(first);
    run(down, up, (inward, Lane::default()), limits, carried).await
}

/// The same when the backend has spoken first: `first` was read from it.
pub(crate) async fn relay_after(
    down: &mut Io,
    up: &mut Io,
    first: Vec<u8>,
    limits: RelayLimits,
    carried: &mut Carried,
) -> RelayEnd {
    let outward = Lane::with(&first);
    drop(first);
    run(down, up, (Lane::default(), outward), limits, carried).await
}

async fn run(
    down: &mut Io,
    up: &mut Io,
    (mut inward, mut outward): (Lane, Lane),
    limits: RelayLimits,
    carried: &mut Carried,
) -> RelayEnd {
    let mut timer = Timer::new();
    limits.set(&mut timer);
    (inward.pace, outward.pace) = (limits.pace(), limits.pace());
    let is_counted = limits.reset_after.is_some();
    (inward.has_no_pipe, outward.has_no_pipe) =
        (is_counted || inward.pace.is_some(), is_counted || outward.pace.is_some());
    let end = poll_fn(|cx| {
        let mut has_moved = false;
        inward.left = limits.left(inward.moved + outward.moved);
        // Whoever does not take what the other side sends may still have sent something itself: that is delivered.
        let sent_in = inward.poll(cx, down, up, carried, &mut has_moved, outward.is_done());
        outward.left = limits.left(inward.moved + outward.moved);
        let sent_out = outward.poll(cx, up, down, carried, &mut has_moved, inward.is_done());
        let ended = match (sent_in, sent_out) {
            (Err(Gone), _) => Some(RelayEnd::ClientReset),
            (_, Err(Gone)) => Some(RelayEnd::BackendReset),
            _ if !inward.is_done() || !outward.is_done() => None,
            _ if outward.is_refused => Some(RelayEnd::ClientReset),
            _ if inward.is_refused => Some(RelayEnd::BackendReset),
            _ => Some(RelayEnd::Closed),
        };
        carried.moved(inward.moved, outward.moved);
        if let Some(end) = ended {
            return Poll::Ready(end);
        }
        if is_counted && limits.left(inward.moved + outward.moved) == 0 {
            return Poll::Ready(RelayEnd::Fault);
        }
        if has_moved {
            limits.set(&mut timer);
        }
        timer.poll(cx).map(|()| limits.over())
    })
    .await;
    match end {
        RelayEnd::Closed | RelayEnd::Expired | RelayEnd::Idle | RelayEnd::Denied => {}
        RelayEnd::ClientReset => drop(rhumb_net::socket::reset_on_close(up.socket())),
        RelayEnd::BackendReset => drop(rhumb_net::socket::reset_on_close(down.socket())),
        RelayEnd::Fault => {
            drop(rhumb_net::socket::reset_on_close(up.socket()));
            drop(rhumb_net::socket::reset_on_close(down.socket()));
        }
    }
    end
}

/// The connection that a lane reads from broke.
struct Gone;

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Flow {
    /// The source may send more.
    #[default]
    Open,
    /// It has finished; the sink has to be told.
    Closing,
    /// Nothing more to do.
    Done,
}

/// One direction.
#[derive(Default)]
struct Lane {
    flow: Flow,
    /// Bytes that the sink has not taken: `held[start..end]`.
    held: Option<Buffer>,
    start: usize,
    end: usize,
    pipe: Option<Splice>,
    full_reads: u8,
    /// The system granted no pipe.
    has_no_pipe: bool,
    /// TLS may hold records that its socket has not taken.
    needs_flush: bool,
    /// The sink takes no more.
    is_refused: bool,
    moved: u64,
    /// How fast it passes.
    pace: Option<Box<Pace>>,
    /// How much may still pass, in bytes.
    left: u64,
}

impl Lane {
    /// A lane on which something is under way already.
    fn with(first: &[u8]) -> Self {
        let mut lane = Self::default();
        if !first.is_empty() {
            let mut buffer = Buffer::take();
            let len = first.len().min(SIZE);
            if let (Some(to), Some(from)) = (buffer.get_mut(..len), first.get(..len)) {
                to.copy_from_slice(from);
            }
            (lane.held, lane.end) = (Some(buffer), len);
        }
        lane
    }

    fn is_done(&self) -> bool {
        self.flow == Flow::Done
    }

    /// Gives up: the sink takes no more.
    fn refuse(&mut self) {
        (self.held, self.pipe, self.flow, self.is_refused) = (None, None, Flow::Done, true);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Io,
        sink: &mut Io,
        carried: &mut Carried,
        has_moved: &mut bool,
        is_last: bool,
    ) -> Result<(), Gone> {
        for _ in 0..MOVES {
            if self.held.is_some() {
                if self.write(cx, sink).is_pending() {
                    return Ok(());
                }
                *has_moved = true;
                continue;
            }
            if self.pipe.is_some() {
                match self.splice(cx, source, sink)? {
                    Poll::Ready(()) => {
                        *has_moved = true;
                        carried.has_spliced = true;
                        continue;
                    }
                    Poll::Pending => return Ok(()),
                }
            }
            match self.flow {
                Flow::Open => match self.read(cx, source, carried)? {
                    Poll::Ready(()) => *has_moved = true,
                    Poll::Pending => {
                        self.flush(cx, sink);
                        return Ok(());
                    }
                },
                // The other direction is over: both sockets are closed next, which says the same with a call less.
                Flow::Closing if is_last && sink.plain().is_some() => self.flow = Flow::Done,
                Flow::Closing => {
                    match sink.poll_shutdown(cx) {
                        Poll::Pending => return Ok(()),
                        // A sink that is gone is told by its own direction, or nobody misses what is not there.
                        Poll::Ready(_) => self.flow = Flow::Done,
                    }
                    *has_moved = true;
                }
                Flow::Done => return Ok(()),
            }
        }
        // More to do: after the other direction and other connections.
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Io,
        carried: &mut Carried,
    ) -> Result<Poll<()>, Gone> {
        let mut step = SIZE;
        if let Some(pace) = &mut self.pace {
            match pace.poll_step(cx) {
                Poll::Ready(few) => step = few.min(SIZE),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        let mut buffer = Buffer::take();
        let Some(room) = buffer.get_mut(..step) else { return Ok(Poll::Pending) };
        let read = source.poll_read(cx, room);
        if let (Some(pace), Poll::Ready(Ok(len))) = (&mut self.pace, &read) {
            pace.pay(*len);
        }
        match read {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Ok(0)) => self.flow = Flow::Closing,
            Poll::Ready(Ok(len)) => {
                self.full_reads = if len >= SIZE { self.full_reads.saturating_add(1) } else { 0 };
                (self.held, self.start, self.end) = (Some(buffer), 0, len);
            }
            // RFC 8446 §6.1 wants close_notify first, but many peers only close. It is noted, and the other side sees
            // the end that came.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                carried.was_cut_short = true;
                self.flow = Flow::Closing;
            }
            Poll::Ready(Err(_)) => return Err(Gone),
        }
        Ok(Poll::Ready(()))
    }

    fn write(&mut self, cx: &mut Context<'_>, sink: &mut Io) -> Poll<()> {
        let Some(buffer) = &self.held else { return Poll::Ready(()) };
        let mut bytes = buffer.get(self.start..self.end).unwrap_or_default();
        if let Some(few) = usize::try_from(self.left).ok().and_then(|left| bytes.get(..left)) {
            bytes = few;
            if bytes.is_empty() {
                return Poll::Pending;
            }
        }
        match sink.poll_write(cx, bytes) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => {
                self.refuse();
                return Poll::Ready(());
            }
            Poll::Ready(Ok(len)) => {
                self.start += len;
                self.moved += len as u64;
                self.left -= len as u64;
            }
        }
        if self.start >= self.end {
            self.held = None;
            self.needs_flush = sink.plain().is_none();
            if self.full_reads >= FULL_READS && !self.has_no_pipe && !self.needs_flush {
                self.full_reads = 0;
                match Splice::new() {
                    Ok(pipe) => self.pipe = Some(pipe),
                    Err(_) => self.has_no_pipe = true,
                }
            }
        }
        Poll::Ready(())
    }

    fn flush(&mut self, cx: &mut Context<'_>, sink: &mut Io) {
        if self.needs_flush {
            match sink.poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Err(_)) => self.refuse(),
                Poll::Ready(Ok(())) => self.needs_flush = false,
            }
        }
    }

    fn splice(&mut self, cx: &mut Context<'_>, source: &Io, sink: &Io) -> Result<Poll<()>, Gone> {
        let (Some(pipe), Some(from), Some(to)) = (&mut self.pipe, source.plain(), sink.plain()) else {
            self.pipe = None;
            return Ok(Poll::Ready(()));
        };
        let limit = if self.flow == Flow::Open { SPLICE_LIMIT } else { 0 };
        match pipe.poll(cx, from, to, limit) {
            Poll::Ready(Ok(Moved::In(_))) => Ok(Poll::Ready(())),
            Poll::Ready(Ok(Moved::Out(len))) => {
                self.moved += len as u64;
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Ok(Moved::Eof)) => {
                self.flow = Flow::Closing;
                if pipe.held() == 0 {
                    self.pipe = None;
                }
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Err(SpliceError::Source(_))) => Err(Gone),
            Poll::Ready(Err(SpliceError::Sink(_))) => {
                self.refuse();
                Ok(Poll::Ready(()))
            }
            Poll::Pending => {
                if pipe.held() > 0 {
                    return Ok(Poll::Pending);
                }
                // Nothing in it and nothing to come: the pipe goes back. While open, the next bytes are read, until
                // they are many again; the socket is known to be empty, so that costs no system call.
                self.pipe = None;
                Ok(if self.flow == Flow::Open { Poll::Pending } else { Poll::Ready(()) })
            }
        }
    }
}
