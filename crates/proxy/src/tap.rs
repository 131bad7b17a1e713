//! Exchanges as somebody looks at them: taps, which see those that have ended, and traces, which see each step of those
//! that begin while they are open.
//!
//! While nobody looks, an exchange costs two loads of a number that nobody writes. A worker keeps its own list of who looks,
//! and asks for it again when another number says that it has changed. What is told goes into a bounded queue and is
//! counted as missed when that is full, or when more is wanted in a second than was asked for.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rhumb_base::failure::Failure;
use rhumb_policy::attributes::Attributes;
use rhumb_policy::filter::{Ended, Response};
use rhumb_policy::trail::Message;
use rhumb_policy::{Filter, Trail};
use rhumb_telemetry::{JsonLine, Record};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::exchange::Exchange;

/// Those who look at a time, of one process.
pub const MAX_TAPS: usize = 16;

/// What waits for one who looks.
const BACKLOG: usize = 256;

/// What somebody looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Exchanges that have ended, one line each.
    Ended,
    /// Exchanges with every step.
    Steps,
}

/// Who looks at exchanges of this process.
#[derive(Default)]
pub struct Taps {
    /// How many look; how many of them at steps.
    open: AtomicU32,
    stepwise: AtomicU32,
    /// Another one for another list.
    generation: AtomicU64,
    all: Mutex<Vec<Arc<Tap>>>,
}

impl fmt::Debug for Taps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taps").field("open", &self.open).finish_non_exhaustive()
    }
}

/// Somebody who looks.
struct Tap {
    look: Look,
    filter: Filter,
    /// How many may be told in a second.
    rate: u32,
    /// The second, and how many were told in it.
    told: AtomicU64,
    missed: AtomicU64,
    tx: mpsc::Sender<Vec<u8>>,
}

/// What somebody sees. They stop looking when this is dropped.
pub struct Opened {
    taps: Arc<Taps>,
    tap: Arc<Tap>,
    rx: mpsc::Receiver<Vec<u8>>,
}

impl Taps {
    /// Looks at exchanges that a filter wants, at most `rate` of them in a second; nothing when as many look as may.
    pub fn open(self: &Arc<Self>, look: Look, filter: Filter, rate: u32) -> Option<Opened> {
        let (tx, rx) = mpsc::channel(BACKLOG);
        let tap =
            Arc::new(Tap { look, filter, rate, told: AtomicU64::new(0), missed: AtomicU64::new(0), tx });
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_TAPS {
            return None;
        }
        all.push(Arc::clone(&tap));
        self.changed(&all);
        Some(Opened { taps: Arc::clone(self), tap, rx })
    }

    fn changed(&self, all: &[Arc<Tap>]) {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.generation.fetch_add(1, Ordering::Release);
        self.stepwise
            .store(count(all.iter().filter(|tap| tap.look == Look::Steps).count()), Ordering::Relaxed);
        self.open.store(count(all.len()), Ordering::Relaxed);
    }
}

impl Opened {
    /// The next that is told, as JSON. **Cancel**: nothing is lost.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        self.rx.recv().await
    }

    /// How many were wanted and not told since this was last asked.
    pub fn take_missed(&self) -> u64 {
        self.tap.missed.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut all = self.taps.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|tap| !Arc::ptr_eq(tap, &self.tap));
        self.taps.changed(&all);
    }
}

impl Tap {
    /// Whether one more may be told in this second.
    fn has_room(&self, unix_nanos: u64) -> bool {
        let second = (unix_nanos / 1_000_000_000) << 32;
        let mut is_let = false;
        // It always ends well: what it gives is never nothing.
        let _ = self.told.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |told| {
            let told = if told & !u64::from(u32::MAX) == second { told } else { second };
            is_let = told & u64::from(u32::MAX) < u64::from(self.rate);
            Some(if is_let { told + 1 } else { told })
        });
        is_let
    }

    fn tell(&self, line: Vec<u8>) {
        if self.tx.try_send(line).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A worker's side of it.
pub(crate) struct Watched {
    taps: Arc<Taps>,
    generation: Cell<u64>,
    own: RefCell<Rc<[Arc<Tap>]>>,
    lines: RefCell<Option<JsonLine>>,
}

impl Watched {
    pub(crate) fn new(taps: Arc<Taps>) -> Self {
        let own = RefCell::new(Rc::from([]));
        Self { taps, generation: Cell::new(0), own, lines: RefCell::default() }
    }

    #[inline]
    fn is_open(&self) -> bool {
        self.taps.open.load(Ordering::Relaxed) != 0
    }

    #[inline]
    fn is_stepwise(&self) -> bool {
        self.taps.stepwise.load(Ordering::Relaxed) != 0
    }

    /// Those who look.
    fn all(&self) -> Rc<[Arc<Tap>]> {
        let generation = self.taps.generation.load(Ordering::Acquire);
        if self.generation.get() != generation {
            let all = self.taps.all.lock().unwrap_or_else(PoisonError::into_inner);
            *self.own.borrow_mut() = all.iter().cloned().collect();
            self.generation.set(generation);
        }
        Rc::clone(&self.own.borrow())
    }

    fn line(&self, record: &Record<'_>) -> Vec<u8> {
        let mut line = Vec::new();
        self.lines.borrow_mut().get_or_insert_with(JsonLine::default).write(&mut line, record);
        line
    }
}

impl Exchange<'_> {
    /// Begins to take down steps, where somebody looks at those of such an exchange.
    #[inline]
    pub(crate) fn begin_trail(&mut self) {
        if self.worker.watched.is_stepwise() {
            self.begin_steps();
        }
    }

    #[cold]
    fn begin_steps(&mut self) {
        let all = self.worker.watched.all();
        let is_wanted = {
            let cx = self.outside();
            let attributes = Attributes::new(&self.req, &cx);
            all.iter().any(|tap| tap.look == Look::Steps && tap.filter.wants(&attributes))
        };
        if is_wanted {
            let mut trail = Box::new(Trail::new(self.started));
            let received = json!({ "message": Message::of_request(&self.req).told() });
            trail.note("received", received);
            self.found.trail = Some(trail);
        }
    }

    /// Takes a step down, where somebody looks.
    #[inline]
    pub(crate) fn step(&mut self, step: &str, told: impl FnOnce(&Self) -> Value) {
        if self.found.trail.is_some() {
            self.step_seen(step, told);
        }
    }

    #[cold]
    fn step_seen(&mut self, step: &str, told: impl FnOnce(&Self) -> Value) {
        let told = told(self);
        if let Some(trail) = &mut self.found.trail {
            trail.note(step, told);
        }
    }

    /// What is forwarded, and where to.
    pub(crate) fn told_of_request(&self) -> Value {
        let backend = self.outcome.backend.as_ref().map(|backend| backend.name.as_str());
        json!({ "backend": backend, "message": Message::of_request(&self.req).told() })
    }

    /// What an endpoint has answered.
    pub(crate) fn told_of_attempt(&self) -> Value {
        json!({
            "endpoint": self.endpoint_label(), "attempt": self.outcome.tries,
            "message": Message::of_response(&self.rsp).told(),
        })
    }

    /// Why an attempt has failed.
    pub(crate) fn told_of_failure(&self, failure: Failure) -> Value {
        let facts = failure.cause.facts();
        json!({
            "endpoint": self.endpoint_label(), "attempt": self.outcome.tries,
            "code": facts.code, "by": facts.side.as_str(),
        })
    }

    fn endpoint_label(&self) -> Option<&str> {
        self.outcome.endpoint.as_ref().map(|endpoint| endpoint.label())
    }

    /// Tells those who look at exchanges that have ended.
    #[inline]
    pub(crate) fn tell_taps(&self, record: &Record<'_>, trail: Option<Box<Trail>>) {
        if self.worker.watched.is_open() || trail.is_some() {
            self.tell_those_who_look(record, trail);
        }
    }

    #[cold]
    fn tell_those_who_look(&self, record: &Record<'_>, trail: Option<Box<Trail>>) {
        let watched = &self.worker.watched;
        let all = watched.all();
        let cx = self.outside();
        let ended = Ended {
            request: Attributes::new(&self.req, &cx),
            route: record.route,
            backend: record.backend,
            endpoint: record.endpoint,
            tries: record.tries,
            response: Response {
                status: record.status,
                failure: record.failure_code.unwrap_or_default(),
                nanos: u64::try_from(record.timing.total.as_nanos()).unwrap_or(u64::MAX),
                size: record.bytes_out,
                grpc_status: record.grpc_status,
            },
        };
        let mut line: Option<Vec<u8>> = None;
        let now = record.start_unix_nanos.saturating_add(ended.response.nanos);
        for tap in all.iter().filter(|tap| tap.look == Look::Ended && tap.filter.wants(&ended)) {
            if tap.has_room(now) {
                tap.tell(line.get_or_insert_with(|| watched.line(record)).clone());
            } else {
                tap.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
        let Some(mut trail) = trail else { return };
        trail.note("sent", json!({ "message": Message::of_response(&self.rsp).told() }));
        let line = line.unwrap_or_else(|| watched.line(record));
        let exchange: Value = serde_json::from_slice(&line).unwrap_or_default();
        let told = json!({
            "requestId": exchange.get("request_id"), "traceId": exchange.get("trace_id"),
            "exchange": exchange, "steps": trail.into_steps(),
        });
        let told = told.to_string().into_bytes();
        for tap in all.iter().filter(|tap| tap.look == Look::Steps && tap.filter.wants(&ended.request)) {
            if tap.has_room(now) {
                tap.tell(told.clone());
            } else {
                tap.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The exchange as expressions see it, outside of its policies.
    fn outside(&self) -> rhumb_policy::Exchange<'_> {
        let mut cx =
            rhumb_policy::Exchange::new(self.client, self.connection.scheme, self.connection.address.port());
        cx.certificate = self.connection.certificate();
        cx.unix_nanos = self.worker.unix_nanos_lately(self.started);
        cx.request_id = self.request_id.as_str();
        cx.began = Some(Instant::now());
        cx.found.principal = self.found.principal.clone();
        cx
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_look_as_may_and_each_is_told_so_much_in_a_second() {
        let taps = Arc::<Taps>::default();
        let filter = || Filter::of_ended("").unwrap();
        let mut all: Vec<Opened> =
            (0..MAX_TAPS).map(|_| taps.open(Look::Ended, filter(), 2).unwrap()).collect();
        assert!(taps.open(Look::Ended, filter(), 2).is_none());
        let tap = &all[0].tap;
        let second = 1_000_000_000;
        let let_in: Vec<bool> = [5, 5, 5, 6, 6].map(|at| tap.has_room(at * second)).to_vec();
        assert_eq!(let_in, [true, true, false, true, true]);
        let watched = Watched::new(Arc::clone(&taps));
        assert_eq!((watched.all().len(), watched.is_stepwise()), (MAX_TAPS, false));
        all.clear();
        assert!(!watched.is_open() && watched.all().is_empty());
    }
}
