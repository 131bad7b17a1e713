//! Golden signals: rate, errors and latency of requests by whom they concern, within a budget of memory.
//!
//! Each worker counts into cells of its own ([`WorkerSignals`]) with plain loads and stores; [`Board::totals`] adds up. What
//! is counted is found by a 64-bit seeded hash of its names or ids, the same on every worker; a cell is made, under the
//! board's lock, when a worker meets it for the first time. When the budget is spent, what is met first then is counted
//! together, by [`Dimension`], under the name [`OTHER`], and counted in `rhumb_signals_overflow_total`. Series that rest for
//! longer than [`REST`] give their memory back.

mod buckets;
mod connection;
mod told;
mod worker;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) use buckets::bucket_of as native_bucket_of;
pub use buckets::{BUCKETS, Buckets, bound_nanos};
pub use connection::{Meter, Tie};
pub use worker::{Seen, WorkerSignals};
pub(crate) use worker::{bytes, fold};

use crate::metrics::{Counter, Gauge, Metric, Registry};
use crate::record::Record;

/// What signals are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Dimension {
    /// A rule of a route: route, template.
    Route,
    /// A caller and a service: source, target, `mtls` or nothing.
    Edge,
    /// One address of a backend: backend, endpoint.
    Endpoint,
    /// A registered caller: consumer, plan.
    Consumer,
    /// For accounts: route, template, method, consumer, plan, status. Has no histogram.
    Usage,
    /// A caller and a service, by connections that are carried as they are: named as an edge.
    Connection,
}

impl Dimension {
    /// Every dimension.
    pub const ALL: [Self; 6] =
        [Self::Route, Self::Edge, Self::Endpoint, Self::Consumer, Self::Usage, Self::Connection];

    /// The word in metrics and parameters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Edge => "edge",
            Self::Endpoint => "endpoint",
            Self::Consumer => "consumer",
            Self::Usage => "usage",
            Self::Connection => "connection",
        }
    }

    /// Names that a series has.
    pub const fn names(self) -> usize {
        match self {
            Self::Route | Self::Endpoint | Self::Consumer => 2,
            Self::Edge | Self::Connection => 3,
            Self::Usage => 6,
        }
    }

    /// Numbers in a cell.
    const fn len(self) -> usize {
        match self {
            Self::Usage => OPENED_AT,
            _ => BUCKETS_AT + BUCKETS,
        }
    }
}

/// How an exchange ended, as far as blame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// Well.
    Ok,
    /// The client asked for what it cannot have: 4xx.
    ClientError,
    /// The backend failed: 5xx of it, or no answer.
    BackendError,
    /// The proxy failed, or refused for its own sake.
    GatewayError,
    /// The client left.
    ClientGone,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] =
        [Self::Ok, Self::ClientError, Self::BackendError, Self::GatewayError, Self::ClientGone];

    /// The word in metrics and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientError => "client_error",
            Self::BackendError => "backend_error",
            Self::GatewayError => "gateway_error",
            Self::ClientGone => "client_gone",
        }
    }

    /// How an exchange ended.
    pub fn of(record: &Record<'_>) -> Self {
        match (record.status, record.failure_side) {
            (499, _) => Self::ClientGone,
            (500.., Some("backend")) => Self::BackendError,
            (500.., Some("client")) => Self::ClientError,
            (500.., Some(_)) => Self::GatewayError,
            (500.., None) if record.upstream_status.is_some() => Self::BackendError,
            (500.., None) => Self::GatewayError,
            (400..=499, _) => Self::ClientError,
            // The answer was under way when somebody failed.
            (_, Some("backend")) => Self::BackendError,
            (_, Some("client")) => Self::ClientGone,
            (_, Some(_)) => Self::GatewayError,
            (_, None) => match record.grpc_status {
                None | Some(0) => Self::Ok,
                // Unknown, deadline exceeded, unimplemented, internal, unavailable, data loss.
                Some(2 | 4 | 12..=15) => Self::BackendError,
                Some(1) => Self::ClientGone,
                Some(_) => Self::ClientError,
            },
        }
    }
}

/// What a series has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Time of all exchanges. Unit: nanoseconds.
    pub nanos: u64,
    /// Content of requests. Unit: bytes.
    pub bytes_in: u64,
    /// Content of responses. Unit: bytes.
    pub bytes_out: u64,
    /// Exchanges, or connections, by how they ended, in the order of [`Outcome::ALL`].
    pub outcomes: [u64; Outcome::ALL.len()],
    /// Connections that began; nothing of exchanges.
    pub opened: u64,
    /// Exchanges by how long they took; nothing in usage.
    pub buckets: Buckets,
}

impl Totals {
    /// Exchanges, or connections that have ended.
    pub fn count(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    /// Connections that have not ended.
    pub fn open(&self) -> u64 {
        self.opened.saturating_sub(self.count())
    }

    /// True when nothing has happened.
    pub fn is_nothing(&self) -> bool {
        self.activity() == 0
    }

    /// Grows with whatever happens.
    fn activity(&self) -> u64 {
        [self.opened, self.bytes_in, self.bytes_out].into_iter().fold(self.count(), u64::wrapping_add)
    }

    /// Exchanges that failed, by fault of a backend or of the proxy.
    pub fn errors(&self) -> u64 {
        self.outcomes[Outcome::BackendError as usize] + self.outcomes[Outcome::GatewayError as usize]
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.nanos = self.nanos.wrapping_add(other.nanos);
        self.bytes_in = self.bytes_in.wrapping_add(other.bytes_in);
        self.bytes_out = self.bytes_out.wrapping_add(other.bytes_out);
        for (mine, theirs) in self.outcomes.iter_mut().zip(other.outcomes) {
            *mine = mine.wrapping_add(theirs);
        }
        self.opened = self.opened.wrapping_add(other.opened);
        self.buckets.add(&other.buckets);
    }

    /// What has come since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut outcomes = self.outcomes;
        for (mine, theirs) in outcomes.iter_mut().zip(before.outcomes) {
            *mine = mine.saturating_sub(theirs);
        }
        Self {
            nanos: self.nanos.saturating_sub(before.nanos),
            bytes_in: self.bytes_in.saturating_sub(before.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(before.bytes_out),
            outcomes,
            opened: self.opened.saturating_sub(before.opened),
            buckets: self.buckets.since(&before.buckets),
        }
    }

    fn read(&mut self, cell: &[AtomicU64]) {
        let at = |place: usize| cell.get(place).map_or(0, |number| number.load(Ordering::Relaxed));
        self.nanos = self.nanos.wrapping_add(at(NANOS_AT));
        self.bytes_in = self.bytes_in.wrapping_add(at(BYTES_IN_AT));
        self.bytes_out = self.bytes_out.wrapping_add(at(BYTES_OUT_AT));
        for (place, number) in self.outcomes.iter_mut().enumerate() {
            *number = number.wrapping_add(at(OUTCOMES_AT + place));
        }
        self.opened = self.opened.wrapping_add(at(OPENED_AT));
        for (place, number) in self.buckets.0.iter_mut().enumerate() {
            *number = number.wrapping_add(at(BUCKETS_AT + place));
        }
    }
}

/// The numbers that one worker writes for one series. Places: below.
type Cell = Arc<[AtomicU64]>;

/// Not zero: the series was given up; a worker that meets it again asks anew.
const RETIRED_AT: usize = 0;
const NANOS_AT: usize = 1;
const BYTES_IN_AT: usize = 2;
const BYTES_OUT_AT: usize = 3;
const OUTCOMES_AT: usize = 4;
const OPENED_AT: usize = OUTCOMES_AT + Outcome::ALL.len();
const BUCKETS_AT: usize = OPENED_AT + 1;

/// One series at a look.
#[derive(Clone, Debug)]
pub struct Series {
    /// What it is counted by.
    pub dimension: Dimension,
    /// Its names; [`Name::parts`] splits them.
    pub name: Name,
    /// What it has come to since it began.
    pub totals: Totals,
}

/// The names of a series, in the order that [`Dimension`] tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// Between the parts of a name: no name has a control character.
const SEPARATOR: char = '\u{1f}';

impl Name {
    /// A name of these parts.
    pub fn new(parts: &[&str]) -> Self {
        Self(parts.join("\u{1f}").into())
    }

    /// What was written by [`Name::as_str`].
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// The parts.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split(SEPARATOR)
    }

    /// One of the parts; empty when there is none.
    pub fn part(&self, at: usize) -> &str {
        self.parts().nth(at).unwrap_or_default()
    }

    /// All parts in one text, for storage.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The signals of a process.
#[derive(Debug)]
pub struct Board {
    seed: u64,
    budget: usize,
    inner: Mutex<Inner>,
    /// No further series fits.
    is_full: AtomicBool,
    /// Counts changes of the set of series while it is full.
    version: AtomicU64,
    overflow: Vec<Counter>,
    gauge: Gauge,
    /// How long requests of each endpoint took is among the metrics.
    endpoint_durations: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    series: HashMap<u64, Kept, BuildHasherDefault<Identity>>,
    bytes: usize,
    /// The keys of `series`, made when a worker asks; none when they have changed.
    keys: Option<Arc<KeySet>>,
}

type KeySet = HashSet<u64, BuildHasherDefault<Identity>>;

#[derive(Debug)]
struct Kept {
    dimension: Dimension,
    name: Name,
    parts: Vec<Cell>,
    /// What workers that have ended counted.
    ended: Totals,
    /// What had happened at the last look, and when that last grew, in looks.
    activity: u64,
    grew: u64,
}

impl Kept {
    fn totals(&self) -> Totals {
        let mut totals = self.ended.clone();
        self.parts.iter().for_each(|part| totals.read(part));
        totals
    }
}

impl Board {
    /// An empty board. `budget`: most memory that series take, in bytes; `seed`: any number that peers do not know.
    pub fn new(budget: usize, seed: u64, registry: &Registry) -> Arc<Self> {
        let overflow = Dimension::ALL
            .map(|dimension| registry.counter(Metric::SignalsOverflow, &[dimension.as_str()]))
            .into();
        let board = Arc::new(Self {
            seed: seed | 1,
            budget,
            inner: Mutex::default(),
            is_full: AtomicBool::new(false),
            version: AtomicU64::new(0),
            overflow,
            gauge: registry.gauge(Metric::SignalsBytes, &[]),
            endpoint_durations: AtomicBool::new(false),
        });
        told::register(&board, registry);
        board
    }

    /// Has the metrics tell how long requests of each endpoint took.
    pub fn tell_endpoint_durations(&self) {
        self.endpoint_durations.store(true, Ordering::Relaxed);
    }

    fn tells_endpoint_durations(&self) -> bool {
        self.endpoint_durations.load(Ordering::Relaxed)
    }

    /// The signals of one worker.
    pub fn worker(self: &Arc<Self>) -> WorkerSignals {
        WorkerSignals::new(Arc::clone(self))
    }

    /// Every series.
    pub fn totals(&self) -> Vec<Series> {
        let inner = self.lock();
        let of = |kept: &Kept| Series {
            dimension: kept.dimension,
            name: kept.name.clone(),
            totals: kept.totals(),
        };
        inner.series.values().map(of).collect()
    }

    /// Memory of all series, by the board's own reckoning. Unit: bytes.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Gives up series that have rested for [`REST`]. `look` counts up by one with each call, `every` is the time between
    /// two calls. What is given up is returned as it was last.
    pub fn retire(&self, look: u64, every: Duration) -> Vec<Series> {
        let patience = u64::try_from(REST.as_nanos() / every.as_nanos().max(1)).unwrap_or(u64::MAX);
        let mut gone = Vec::new();
        let mut inner = self.lock();
        let mut bytes = 0;
        inner.series.retain(|_, kept| {
            let totals = kept.totals();
            let activity = totals.activity();
            if activity != kept.activity {
                (kept.activity, kept.grew) = (activity, look);
            }
            // A connection that rests is open all the same.
            let stays = totals.open() > 0 || look.saturating_sub(kept.grew) < patience;
            if !stays {
                kept.parts
                    .iter()
                    .filter_map(|part| part.get(RETIRED_AT))
                    .for_each(|cell| cell.store(1, Ordering::Relaxed));
                bytes += cost(kept.dimension, &kept.name, kept.parts.len());
                gone.push(Series { dimension: kept.dimension, name: kept.name.clone(), totals });
            }
            stays
        });
        if !gone.is_empty() {
            inner.bytes = inner.bytes.saturating_sub(bytes);
            self.gauge.set(i64::try_from(inner.bytes).unwrap_or(i64::MAX));
            inner.keys = None;
            self.is_full.store(false, Ordering::Relaxed);
            self.version.fetch_add(1, Ordering::Relaxed);
        }
        gone
    }

    /// A cell of a series for one worker; nothing when there is no room for it.
    fn admit(&self, key: u64, dimension: Dimension, name: &Name) -> Option<Cell> {
        let mut inner = self.lock();
        let is_other = name.part(0) == OTHER;
        let parts = inner.series.get(&key).map(|kept| kept.parts.len());
        let price = match parts {
            Some(parts) => cost(dimension, name, parts + 1) - cost(dimension, name, parts),
            None => cost(dimension, name, 1),
        };
        // What is known already is counted on every worker: its parts were reckoned with.
        if parts.is_none() && !is_other && inner.bytes + price > self.budget {
            self.is_full.store(true, Ordering::Relaxed);
            return None;
        }
        let cell: Cell = (0..dimension.len()).map(|_| AtomicU64::new(0)).collect();
        inner.bytes += price;
        self.gauge.set(i64::try_from(inner.bytes).unwrap_or(i64::MAX));
        if parts.is_none() {
            inner.keys = None;
            self.version.fetch_add(1, Ordering::Relaxed);
        }
        let kept = inner.series.entry(key).or_insert_with(|| Kept {
            dimension,
            name: name.clone(),
            parts: Vec::new(),
            ended: Totals::default(),
            activity: 0,
            grew: u64::MAX,
        });
        kept.parts.push(Arc::clone(&cell));
        Some(cell)
    }

    fn keys(&self) -> (u64, Arc<KeySet>) {
        let mut inner = self.lock();
        let version = self.version.load(Ordering::Relaxed);
        let Inner { series, keys, .. } = &mut *inner;
        (version, Arc::clone(keys.get_or_insert_with(|| Arc::new(series.keys().copied().collect()))))
    }

    /// Keeps what a worker counted that ends.
    fn end(&self, key: u64, cell: &Cell) {
        let mut inner = self.lock();
        let Some(kept) = inner.series.get_mut(&key) else { return };
        let Some(at) = kept.parts.iter().position(|part| Arc::ptr_eq(part, cell)) else { return };
        let part = kept.parts.swap_remove(at);
        kept.ended.read(&part);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a series takes, roughly: its cells, the tables that lead to them, its name.
fn cost(dimension: Dimension, name: &Name, parts: usize) -> usize {
    const TABLES: usize = 320;
    const ARC: usize = 48;
    TABLES + name.as_str().len() + parts * (dimension.len() * 8 + ARC)
}

/// Keys are hashes already.
#[derive(Debug, Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The name of what is counted together because the budget is spent.
pub const OTHER: &str = "other";

/// Memory of series, unless configured otherwise. Unit: bytes.
pub const BUDGET: usize = 8 << 20;

/// After so long without an exchange a series is given up.
pub const REST: Duration = Duration::from_secs(3600);
