//! All series of a process, and the names that ids stand for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rhumb_codec::head::Method;

use super::exchange::{Exchange, Totals};
use super::exemplar::Exemplar;
use super::times::Timers;
use super::worker::WorkerMetrics;
use super::{Kind, Metric};
use crate::record::{Protocol, Scheme};

/// All series of a process.
///
/// Its locks are taken when a series or a name is seen for the first time, and at a scrape.
#[derive(Debug)]
pub struct Registry {
    limit: usize,
    names: Mutex<Names>,
    pub(super) server: Mutex<Exchanges>,
    pub(super) client: Mutex<Exchanges>,
    plain: Mutex<Plain>,
    /// By series of requests; no more than there are series.
    pub(super) exemplars: Mutex<HashMap<Key, Exemplar>>,
    collectors: Mutex<Vec<(Metric, Collector)>>,
    pub(super) timers: Mutex<Vec<(Metric, Timers)>>,
}

impl Registry {
    /// An empty registry with the limit [`SERIES_LIMIT`].
    pub fn new() -> Arc<Self> {
        Self::with_series_limit(SERIES_LIMIT)
    }

    /// An empty registry with another limit of series per metric.
    pub fn with_series_limit(limit: usize) -> Arc<Self> {
        let registry = Self {
            limit,
            names: Mutex::default(),
            server: Mutex::default(),
            client: Mutex::default(),
            plain: Mutex::new(Plain { series: vec![BTreeMap::new(); Metric::ALL.len()] }),
            exemplars: Mutex::default(),
            collectors: Mutex::default(),
            timers: Mutex::default(),
        };
        // What has no labels is there from the start, as 0.
        for metric in Metric::ALL {
            let family = metric.family();
            if family.labels.is_empty() && family.name.starts_with("rhumb_") {
                registry.with_series(metric, &[], |_| ());
            }
        }
        registry.gauge(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION")]).set(1);
        Arc::new(registry)
    }

    /// The metrics of one worker.
    pub fn worker(self: &Arc<Self>) -> WorkerMetrics {
        WorkerMetrics::new(Arc::clone(self))
    }

    /// The id of a rule by its labels: the route (`namespace/name`) and the rule's template (`/users/*`). The same
    /// labels give the same id, so series survive a reload.
    pub fn rule(&self, route: &str, template: &str) -> RuleId {
        let mut names = lock(&self.names);
        RuleId(names.rules.id([route, template], NAME_LIMIT).unwrap_or(RuleId::OTHER.0))
    }

    /// The id of a backend by its label.
    pub fn backend(&self, label: &str) -> BackendId {
        let mut names = lock(&self.names);
        BackendId(names.backends.id([label], NAME_LIMIT).unwrap_or(BackendId::OTHER.0))
    }

    /// The id of a listener by its name.
    pub fn listener(&self, name: &str) -> ListenerId {
        let mut names = lock(&self.names);
        let id = names.listeners.id([name], LISTENER_LIMIT).and_then(|id| u16::try_from(id).ok());
        ListenerId(id.unwrap_or(ListenerId::OTHER.0))
    }

    /// A counter that any thread may add to. The same labels give the same counter.
    ///
    /// For what happens seldom, or often on one thread; [`WorkerMetrics::counter`] is for what each request does.
    pub fn counter(&self, metric: Metric, labels: &[&str]) -> Counter {
        debug_assert_eq!(metric.family().kind, Kind::Counter, "{metric:?}");
        Counter(self.with_series(metric, labels, |series| Arc::clone(&series.shared)))
    }

    /// A gauge that any thread may set. The same labels give the same gauge.
    ///
    /// A gauge once made stays; what comes and goes with the configuration is better told by [`Self::collect`].
    pub fn gauge(&self, metric: Metric, labels: &[&str]) -> Gauge {
        debug_assert_eq!(metric.family().kind, Kind::Gauge, "{metric:?}");
        Gauge(self.with_series(metric, labels, |series| Arc::clone(&series.shared)))
    }

    /// Asks `collector` at each scrape for the series of a gauge (or of a counter that somebody else keeps).
    ///
    /// It calls what it is given with label values and a value, at most as often as the limit of series allows; the
    /// rest is left out. It must not use the registry.
    pub fn collect(&self, metric: Metric, collector: impl Fn(&mut Emit<'_>) + Send + Sync + 'static) {
        lock(&self.collectors).push((metric, Collector(Box::new(collector))));
    }

    /// Uses the series of these label values, or the overflow series when there are too many.
    pub(super) fn with_series<T>(
        &self,
        metric: Metric,
        labels: &[&str],
        use_it: impl FnOnce(&mut PlainSeries) -> T,
    ) -> T {
        let mut plain = lock(&self.plain);
        let series = &mut plain.series[metric as usize];
        let mut text = String::new();
        write_labels(&mut text, metric, labels);
        if !series.contains_key(text.as_str()) && series.len() >= self.limit {
            text.clear();
            write_labels(&mut text, metric, &vec![OTHER; metric.family().labels.len()]);
        }
        use_it(series.entry(text.into()).or_default())
    }

    /// Joins what one worker counted into the shared value, when that worker ends.
    pub(super) fn retire(&self, metric: Metric, local: &Arc<Slot>) {
        let mut plain = lock(&self.plain);
        for series in plain.series[metric as usize].values_mut() {
            if let Some(at) = series.locals.iter().position(|other| Arc::ptr_eq(other, local)) {
                series.locals.swap_remove(at);
                series.shared.0.fetch_add(local.0.load(Ordering::Relaxed), Ordering::Relaxed);
                return;
            }
        }
    }

    /// Visits every plain series that has a value, by metric and label text.
    pub(super) fn visit_plain(&self, metric: Metric, visit: &mut dyn FnMut(&str, u64)) {
        for (labels, series) in &lock(&self.plain).series[metric as usize] {
            visit(labels, series.value());
        }
        let mut left = self.limit;
        for (_, collector) in lock(&self.collectors).iter().filter(|(other, _)| *other == metric) {
            let mut text = String::new();
            (collector.0)(&mut |labels, value| {
                if let Some(less) = left.checked_sub(1) {
                    left = less;
                    text.clear();
                    write_labels(&mut text, metric, labels);
                    visit(&text, value.cast_unsigned());
                }
            });
        }
    }

    /// Visits every metric whose series can grow, with how many it has and whether it is full.
    pub(super) fn visit_sizes(&self, visit: &mut dyn FnMut(Metric, usize, bool)) {
        let server = lock(&self.server).series.len();
        let client = lock(&self.client).series.len();
        visit(Metric::ServerRequestDuration, server, server >= self.limit);
        visit(Metric::ClientRequestDuration, client, client >= self.limit);
        for (metric, series) in Metric::ALL.into_iter().zip(&lock(&self.plain).series) {
            if !metric.family().labels.is_empty() && !series.is_empty() {
                visit(metric, series.len(), series.len() >= self.limit);
            }
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn names(&self) -> MutexGuard<'_, Names> {
        lock(&self.names)
    }
}

/// What a collector calls for each series: label values, then the value.
pub type Emit<'e> = dyn FnMut(&[&str], i64) + 'e;

struct Collector(Box<dyn Fn(&mut Emit<'_>) + Send + Sync>);

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}

/// Takes a lock. A thread that panicked while it counted left numbers that are still numbers.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that only grows, added to by any thread.
#[derive(Clone, Debug)]
pub struct Counter(Arc<Slot>);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.0.fetch_add(n, Ordering::Relaxed);
    }

    /// What this handle and its copies counted, without the parts of workers.
    pub fn value(&self) -> u64 {
        self.0.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down, set by any thread.
#[derive(Clone, Debug)]
pub struct Gauge(Arc<Slot>);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.0.0.store(value.cast_unsigned(), Ordering::Relaxed);
    }

    /// Adds, or takes away.
    pub fn add(&self, n: i64) {
        self.0.0.fetch_add(n.cast_unsigned(), Ordering::Relaxed);
    }

    /// The value, without the parts of workers.
    pub fn value(&self) -> i64 {
        self.0.0.load(Ordering::Relaxed).cast_signed()
    }
}

/// One number on a cache line of its own, so that neighbours do not slow each other. Gauges keep their two's complement.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Slot(pub(super) AtomicU64);

/// The series of those metrics that are one number per set of labels.
#[derive(Debug)]
struct Plain {
    /// By metric, then by label text.
    series: Vec<BTreeMap<Box<str>, PlainSeries>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct PlainSeries {
    shared: Arc<Slot>,
    /// One per worker that uses it; each has one writer.
    locals: Vec<Arc<Slot>>,
}

impl PlainSeries {
    pub(super) fn add_local(&mut self) -> Arc<Slot> {
        let local = Arc::default();
        self.locals.push(Arc::clone(&local));
        local
    }

    fn value(&self) -> u64 {
        let slots = self.locals.iter().chain([&self.shared]);
        slots.fold(0, |sum, slot| sum.wrapping_add(slot.0.load(Ordering::Relaxed)))
    }
}

/// Writes `name="value",…` with escapes of the exposition format.
pub(super) fn write_labels(out: &mut String, metric: Metric, values: &[&str]) {
    let names = metric.family().labels;
    debug_assert_eq!(names.len(), values.len(), "{metric:?}");
    for (at, (name, value)) in names.iter().zip(values).enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_label(out, name, value);
    }
}

pub(super) fn write_label(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push_str("=\"");
    let mut rest = value;
    while let Some((plain, from)) = rest.find(['\\', '"', '\n']).and_then(|at| rest.split_at_checked(at)) {
        out.push_str(plain);
        out.push_str(match from.as_bytes().first() {
            Some(b'\n') => "\\n",
            Some(b'"') => "\\\"",
            _ => "\\\\",
        });
        // Each of the three is one byte.
        rest = from.get(1..).unwrap_or_default();
    }
    out.push_str(rest);
    out.push('"');
}

/// Series of exchanges by key.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    series: HashMap<Key, Parts>,
}

/// The parts of one series.
#[derive(Debug, Default)]
struct Parts {
    /// One per worker; each has one writer.
    live: Vec<Arc<Exchange>>,
    /// What workers that ended have counted; written under the lock.
    ended: Option<Arc<Exchange>>,
}

impl Exchanges {
    /// A new part of the series with this key, or `None` if there are too many series.
    pub(super) fn admit(&mut self, key: Key, limit: usize) -> Option<Arc<Exchange>> {
        if !key.is_overflow() && self.series.len() >= limit && !self.series.contains_key(&key) {
            return None;
        }
        let part = Arc::new(Exchange::default());
        self.series.entry(key).or_default().live.push(Arc::clone(&part));
        Some(part)
    }

    pub(super) fn keys(&self) -> KeySet {
        self.series.keys().copied().collect()
    }

    /// Every series, in the order of keys.
    pub(super) fn totals(&self) -> Vec<(Key, Totals)> {
        let mut totals: Vec<_> = self.series.iter().map(|(key, parts)| (*key, parts.totals())).collect();
        totals.sort_unstable_by_key(|(key, _)| *key);
        totals
    }

    /// Keeps the counts of a worker that ends.
    pub(super) fn retire(&mut self, key: Key, part: &Arc<Exchange>) {
        let Some(parts) = self.series.get_mut(&key) else { return };
        parts.live.retain(|other| !Arc::ptr_eq(other, part));
        match &parts.ended {
            Some(ended) => ended.join(part),
            None => parts.ended = Some(Arc::clone(part)),
        }
    }
}

impl Parts {
    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for part in self.live.iter().chain(&self.ended) {
            totals.add(part);
        }
        totals
    }
}

/// The labels of a series in one word, so that finding it costs one multiplication.
///
/// Bits: 32 rule or backend, 12 listener, 10 status, 4 method, 2 protocol, 1 scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key(u64);

impl Key {
    pub(super) fn server(
        rule: RuleId,
        listener: ListenerId,
        status: u16,
        method: Method,
        protocol: Protocol,
        scheme: Scheme,
    ) -> Self {
        let tail = u64::from(listener.0) << 17 | Self::tail(status, method);
        Self(u64::from(rule.0) << 32 | tail | (protocol as u64) << 1 | scheme as u64)
    }

    pub(super) fn client(backend: BackendId, status: u16, method: Method) -> Self {
        Self(u64::from(backend.0) << 32 | Self::tail(status, method))
    }

    /// The key under which this one is counted when there are too many: only the class of the status is kept.
    pub(super) fn overflow(self) -> Self {
        Self(u64::from(u32::MAX) << 32 | Self::tail(self.status() / 100, Method::Other) | OVERFLOW)
    }

    fn tail(status: u16, method: Method) -> u64 {
        // RFC 9110 §15: outside 100 to 599 is not a status.
        let status = if status < 600 { status } else { 0 };
        u64::from(status) << 7 | (method as u64) << 3
    }

    pub(super) fn is_overflow(self) -> bool {
        self.0 & OVERFLOW != 0
    }

    pub(super) fn id(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(super) fn listener(self) -> u16 {
        (self.0 >> 17 & 0xfff) as u16
    }

    pub(super) fn status(self) -> u16 {
        (self.0 >> 7 & 0x3ff) as u16
    }

    /// The method, of those that are told apart: the rest is `_OTHER`, as OpenTelemetry wants it.
    pub(super) fn method(self) -> &'static str {
        Method::NAMED.get((self.0 >> 3 & 0xf) as usize).map_or("_OTHER", |method| method.name())
    }

    pub(super) fn protocol(self) -> Protocol {
        match self.0 >> 1 & 3 {
            0 => Protocol::Http10,
            1 => Protocol::Http11,
            2 => Protocol::Http2,
            _ => Protocol::Http3,
        }
    }

    pub(super) fn scheme(self) -> Scheme {
        if self.0 & 1 == 0 { Scheme::Http } else { Scheme::Https }
    }
}

/// Marks the key of an overflow series.
const OVERFLOW: u64 = 1 << 30;

pub(super) type KeySet = HashSet<Key, BuildHasherDefault<KeyHasher>>;
pub(super) type KeyMap<V> = HashMap<Key, V, BuildHasherDefault<KeyHasher>>;

/// One multiplication: keys are ours, no peer can choose them to collide.
#[derive(Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, key: u64) {
        let product = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = product ^ product >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A rule of a route, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleId(pub(super) u32);

impl RuleId {
    /// No rule matched: the labels `route` and `http_route` are empty.
    pub const UNMATCHED: Self = Self(0);
    const OTHER: Self = Self(u32::MAX);

    /// Its number in this process.
    pub(crate) const fn number(self) -> u32 {
        self.0
    }
}

/// A backend, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackendId(pub(super) u32);

impl BackendId {
    const OTHER: Self = Self(u32::MAX);

    /// Its number in this process.
    pub(crate) const fn number(self) -> u32 {
        self.0
    }
}

/// A listener, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub(super) u16);

impl ListenerId {
    const OTHER: Self = Self(0xfff);
}

/// The names that ids stand for.
#[derive(Debug)]
pub(super) struct Names {
    rules: Interner<2>,
    backends: Interner<1>,
    listeners: Interner<1>,
}

impl Default for Names {
    fn default() -> Self {
        let mut names = Self {
            rules: Interner::default(),
            backends: Interner::default(),
            listeners: Interner::default(),
        };
        let unmatched = names.rules.id(["", ""], NAME_LIMIT);
        debug_assert_eq!(unmatched, Some(RuleId::UNMATCHED.0));
        names
    }
}

impl Names {
    /// Route and template.
    pub(super) fn rule(&self, id: u32) -> [&str; 2] {
        self.rules.name(id)
    }

    pub(super) fn backend(&self, id: u32) -> &str {
        self.backends.name(id)[0]
    }

    pub(super) fn listener(&self, id: u16) -> &str {
        self.listeners.name(u32::from(id))[0]
    }
}

/// Texts and their numbers.
#[derive(Debug)]
struct Interner<const N: usize> {
    ids: HashMap<[Arc<str>; N], u32>,
    names: Vec<[Arc<str>; N]>,
}

impl<const N: usize> Default for Interner<N> {
    fn default() -> Self {
        Self { ids: HashMap::new(), names: Vec::new() }
    }
}

impl<const N: usize> Interner<N> {
    fn id(&mut self, name: [&str; N], limit: usize) -> Option<u32> {
        let name = name.map(Arc::from);
        if let Some(id) = self.ids.get(&name) {
            return Some(*id);
        }
        let id = u32::try_from(self.names.len()).ok().filter(|_| self.names.len() < limit)?;
        self.names.push(name.clone());
        self.ids.insert(name, id);
        Some(id)
    }

    fn name(&self, id: u32) -> [&str; N] {
        match self.names.get(id as usize) {
            Some(name) => name.each_ref().map(|part| &**part),
            None => [OTHER; N],
        }
    }
}

/// How many series a metric may have, unless configured otherwise. Series past it are counted together.
pub const SERIES_LIMIT: usize = 2000;
/// How many rules, and how many backends, can be told apart over the life of a process.
const NAME_LIMIT: usize = 65_536;
/// How many listeners can be told apart over the life of a process; the id has 12 bits.
const LISTENER_LIMIT: usize = 0xfff;
/// The label value of what is counted together.
pub(super) const OTHER: &str = "other";
