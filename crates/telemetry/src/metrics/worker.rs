//! The series that one worker writes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use rhumb_codec::head::Method;

use super::exchange::{Exchange, add};
use super::exemplar::{EVERY, Exemplar};
use super::registry::{
    BackendId, Exchanges, Key, KeyMap, KeySet, ListenerId, Registry, RuleId, Slot, lock, write_labels,
};
use super::{Kind, Metric};
use crate::limit::Limit;
use crate::record::{Note, Record};

/// The metrics of one worker thread: it alone writes them, a scrape reads them.
///
/// When the worker and all handles it gave out are gone, its counts stay in the registry.
pub struct WorkerMetrics {
    lease: Rc<Lease>,
    server: Cache,
    client: Cache,
    plain: Vec<HashMap<Box<str>, Arc<Slot>>>,
    /// By listener.
    active: Vec<Option<Arc<Slot>>>,
    /// By note.
    notes: [Option<Arc<Slot>>; Note::ALL.len()],
    scratch: String,
    /// When an exemplar was last taken.
    exemplar_at: Option<u64>,
}

impl WorkerMetrics {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self {
            lease: Rc::new(Lease { registry, taken: RefCell::default() }),
            server: Cache::default(),
            client: Cache::default(),
            plain: vec![HashMap::new(); Metric::ALL.len()],
            active: Vec::new(),
            notes: [const { None }; Note::ALL.len()],
            scratch: String::new(),
            exemplar_at: None,
        }
    }

    /// Counts a request that begins. Each is followed by one [`finish`](Self::finish) with the same listener.
    pub fn begin(&mut self, listener: ListenerId) {
        add(&self.active_slot(listener).0, 1);
    }

    /// Counts an exchange that is finished.
    ///
    /// `backend` is the one that the exchange was sent to, if any. Costs no lock and no allocation but when a set of
    /// labels is seen by this worker for the first time.
    pub fn finish(
        &mut self,
        record: &Record<'_>,
        listener: ListenerId,
        rule: RuleId,
        backend: Option<BackendId>,
    ) {
        add(&self.active_slot(listener).0, u64::MAX);
        let method = Method::of(record.method);
        let key = Key::server(rule, listener, record.status, method, record.protocol, record.scheme);
        let lease = &self.lease;
        let series = self.server.series(key, |key| lease.admit(Side::Server, key));
        series.record(record.timing.total, record.bytes_in, record.bytes_out);
        if let (Some(backend), Some(time)) = (backend, record.timing.upstream_total) {
            let key = Key::client(backend, record.upstream_status.unwrap_or(0), method);
            let series = self.client.series(key, |key| lease.admit(Side::Client, key));
            series.record(time, 0, 0);
        }
        for reason in record.retries {
            self.add(Metric::Retries, &[record.backend, &reason.to_string()], 1);
        }
        if !record.notes.is_empty() {
            for note in record.notes.iter() {
                self.note(note);
            }
        }
        if let Some(code) = record.failure_code {
            self.add(Metric::Failures, &[code, record.failure_side.unwrap_or_default()], 1);
        }
        if record.is_traced {
            self.exemplify(
                Key::server(rule, listener, record.status, method, record.protocol, record.scheme),
                record,
            );
        }
    }

    /// Takes a request as the example of its series.
    #[cold]
    fn exemplify(&mut self, key: Key, record: &Record<'_>) {
        let Some(trace) = record.trace else { return };
        let time = record.timing.total;
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let unix_nanos = record.start_unix_nanos.saturating_add(nanos(time));
        if self.exemplar_at.is_some_and(|at| unix_nanos.saturating_sub(at) < nanos(EVERY)) {
            return;
        }
        self.exemplar_at = Some(unix_nanos);
        let mut exemplars = lock(&self.lease.registry.exemplars);
        if exemplars.len() < self.lease.registry.limit() || exemplars.contains_key(&key) {
            exemplars.insert(key, Exemplar { trace_id: trace.trace_id_hex(), time, unix_nanos });
        }
    }

    /// Counts a note outside of an exchange.
    pub fn note(&mut self, note: Note) {
        let lease = &self.lease;
        let slot = self.notes.get_mut(note as usize);
        if let Some(slot) = slot {
            add(&slot.get_or_insert_with(|| lease.slot(Metric::Notes, &[note.name()])).0, 1);
        }
    }

    /// Counts a bound that was reached.
    #[cold]
    pub fn limit(&mut self, limit: Limit) {
        self.add(Metric::LimitHits, &[limit.name()], 1);
    }

    /// Adds to a counter that is looked up by its label values: for what is not done for every request.
    pub fn add(&mut self, metric: Metric, labels: &[&str], n: u64) {
        debug_assert_eq!(metric.family().kind, Kind::Counter, "{metric:?}");
        add(&self.slot(metric, labels).0, n);
    }

    /// A counter of this worker, to be kept by whoever counts often.
    pub fn counter(&mut self, metric: Metric, labels: &[&str]) -> LocalCounter {
        debug_assert_eq!(metric.family().kind, Kind::Counter, "{metric:?}");
        LocalCounter { slot: self.slot(metric, labels), _lease: Rc::clone(&self.lease) }
    }

    /// This worker's part of a gauge, to be kept by whoever counts often. The gauge is the sum of the parts.
    pub fn gauge(&mut self, metric: Metric, labels: &[&str]) -> LocalGauge {
        debug_assert_eq!(metric.family().kind, Kind::Gauge, "{metric:?}");
        LocalGauge { slot: self.slot(metric, labels), _lease: Rc::clone(&self.lease) }
    }

    fn slot(&mut self, metric: Metric, labels: &[&str]) -> Arc<Slot> {
        self.scratch.clear();
        write_labels(&mut self.scratch, metric, labels);
        let Some(known) = self.plain.get_mut(metric as usize) else { return Arc::default() };
        if let Some(slot) = known.get(self.scratch.as_str()) {
            return Arc::clone(slot);
        }
        let slot = self.lease.slot(metric, labels);
        // Past the limit of series this holds other labels of the overflow series too, but not without bound.
        if known.len() < 2 * self.lease.registry.limit() {
            known.insert(self.scratch.as_str().into(), Arc::clone(&slot));
        }
        slot
    }

    fn active_slot(&mut self, listener: ListenerId) -> &Slot {
        let at = usize::from(listener.0);
        if at >= self.active.len() {
            self.active.resize(at + 1, None);
        }
        let lease = &self.lease;
        self.active[at].get_or_insert_with(|| {
            let names = lease.registry.names();
            let name = names.listener(listener.0).to_owned();
            drop(names);
            lease.slot(Metric::ServerActiveRequests, &[&name])
        })
    }
}

impl fmt::Debug for WorkerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerMetrics").finish_non_exhaustive()
    }
}

/// The exchanges of one side that this worker counts.
#[derive(Default)]
struct Cache {
    /// Where in `parts` a key has its part.
    places: KeyMap<usize>,
    parts: Vec<Arc<Exchange>>,
    /// The keys that have a series, once there can be no more: others need not ask again.
    allowed: Option<KeySet>,
}

impl Cache {
    fn series(&mut self, key: Key, admit: impl Fn(Key) -> Result<Arc<Exchange>, KeySet>) -> &Exchange {
        let place = match self.places.get(&key) {
            Some(place) => *place,
            None => self.first_seen(key, admit),
        };
        &self.parts[place]
    }

    #[cold]
    fn first_seen(&mut self, key: Key, admit: impl Fn(Key) -> Result<Arc<Exchange>, KeySet>) -> usize {
        if self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&key)) {
            match admit(key) {
                Ok(part) => return self.keep(key, part),
                Err(allowed) => self.allowed = Some(allowed),
            }
        }
        let key = key.overflow();
        match self.places.get(&key) {
            Some(place) => *place,
            // An overflow series is always admitted.
            None => self.keep(key, admit(key).unwrap_or_default()),
        }
    }

    fn keep(&mut self, key: Key, part: Arc<Exchange>) -> usize {
        let place = self.parts.len();
        self.parts.push(part);
        self.places.insert(key, place);
        place
    }
}

/// What a worker took from the registry; its counts are given back when the worker and its handles are gone.
struct Lease {
    registry: Arc<Registry>,
    taken: RefCell<Vec<Taken>>,
}

enum Taken {
    Exchange(Side, Key, Arc<Exchange>),
    Plain(Metric, Arc<Slot>),
}

#[derive(Clone, Copy)]
enum Side {
    Server,
    Client,
}

impl Lease {
    fn slot(&self, metric: Metric, labels: &[&str]) -> Arc<Slot> {
        let slot = self.registry.with_series(metric, labels, |series| series.add_local());
        self.taken.borrow_mut().push(Taken::Plain(metric, Arc::clone(&slot)));
        slot
    }

    /// A part of the series with this key, or all keys that have one when there are too many.
    fn admit(&self, side: Side, key: Key) -> Result<Arc<Exchange>, KeySet> {
        let mut all = self.exchanges(side);
        let part = all.admit(key, self.registry.limit()).ok_or_else(|| all.keys())?;
        self.taken.borrow_mut().push(Taken::Exchange(side, key, Arc::clone(&part)));
        Ok(part)
    }

    fn exchanges(&self, side: Side) -> MutexGuard<'_, Exchanges> {
        match side {
            Side::Server => lock(&self.registry.server),
            Side::Client => lock(&self.registry.client),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        for taken in self.taken.take() {
            match taken {
                Taken::Exchange(side, key, part) => self.exchanges(side).retire(key, &part),
                Taken::Plain(metric, slot) => self.registry.retire(metric, &slot),
            }
        }
    }
}

/// A counter of one worker. Counts until it is dropped, also after its [`WorkerMetrics`].
#[derive(Clone)]
pub struct LocalCounter {
    slot: Arc<Slot>,
    _lease: Rc<Lease>,
}

impl LocalCounter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds.
    pub fn add(&self, n: u64) {
        add(&self.slot.0, n);
    }
}

impl fmt::Debug for LocalCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalCounter").field(&self.slot.0).finish()
    }
}

/// One worker's part of a gauge.
#[derive(Clone)]
pub struct LocalGauge {
    slot: Arc<Slot>,
    _lease: Rc<Lease>,
}

impl LocalGauge {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Takes one away.
    pub fn decrement(&self) {
        self.add(-1);
    }

    /// Adds, or takes away.
    pub fn add(&self, n: i64) {
        add(&self.slot.0, n.cast_unsigned());
    }
}

impl fmt::Debug for LocalGauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalGauge").field(&self.slot.0.load(Ordering::Relaxed).cast_signed()).finish()
    }
}
