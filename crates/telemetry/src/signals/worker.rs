//! What one worker counts.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::buckets::bucket_of;
use super::{
    BUCKETS_AT, BYTES_IN_AT, BYTES_OUT_AT, Board, Cell, Dimension, Identity, KeySet, NANOS_AT, Name, OTHER,
    OUTCOMES_AT, Outcome, RETIRED_AT,
};
use crate::metrics::{BackendId, RuleId};
use crate::record::Record;

/// The signals of one worker thread: it alone writes them.
pub struct WorkerSignals {
    pub(super) board: Arc<Board>,
    pub(super) cells: HashMap<u64, Cell, BuildHasherDefault<Identity>>,
    /// Series that exist while there is no room for others, as of a version of the board.
    known: Option<(u64, Arc<KeySet>)>,
    others: [Option<(u64, Cell)>; Dimension::ALL.len()],
}

/// Who and what an exchange concerned, beside what its record tells.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The rule.
    pub rule: RuleId,
    /// The backend that it was sent to, if any.
    pub backend: Option<BackendId>,
    /// The endpoint that was used last: its number, the same as long as its address is.
    pub endpoint: Option<u64>,
    /// Who called which service, and whether both proved who they are. Empty: nobody was called.
    pub source: &'a str,
    /// The service.
    pub target: &'a str,
    /// Both sides proved who they are.
    pub is_mutual: bool,
    /// Plan of the consumer.
    pub plan: &'a str,
}

/// What an exchange adds to each of its series.
struct Amount {
    nanos: u64,
    bucket: usize,
    bytes_in: u64,
    bytes_out: u64,
    outcome: Outcome,
}

impl Amount {
    fn of(record: &Record<'_>) -> Self {
        let nanos = nanos(record.timing.total);
        Self {
            nanos,
            bucket: bucket_of(nanos),
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            outcome: Outcome::of(record),
        }
    }
}

impl WorkerSignals {
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self { board, cells: HashMap::default(), known: None, others: [const { None }; Dimension::ALL.len()] }
    }

    /// Counts a finished exchange. Takes no lock and allocates nothing, but when names are met for the first time.
    pub fn count(&mut self, record: &Record<'_>, seen: &Seen<'_>) {
        let amount = Amount::of(record);
        let seed = self.board.seed;
        let rule = u64::from(seen.rule.number());
        self.add(fold(seed, 1 << 32 | rule), Dimension::Route, &amount, || {
            Name::new(&[record.route, record.rule])
        });
        let consumer = text(seed, record.consumer) ^ text(seed, seen.plan).rotate_left(32);
        if let Some(backend) = seen.backend {
            let backend = u64::from(backend.number());
            if let Some(endpoint) = seen.endpoint {
                let key = fold(fold(seed, 2 << 32 | backend), endpoint);
                self.add(key, Dimension::Endpoint, &amount, || Name::new(&[record.backend, record.endpoint]));
            }
        }
        if !seen.target.is_empty() {
            let key = fold(
                fold(seed ^ text(seed, seen.source), text(seed, seen.target)),
                3 + u64::from(seen.is_mutual),
            );
            self.add(key, Dimension::Edge, &amount, || {
                Name::new(&[seen.source, seen.target, if seen.is_mutual { "mtls" } else { "" }])
            });
        }
        if !record.consumer.is_empty() {
            self.add(fold(seed ^ consumer, 5 << 32), Dimension::Consumer, &amount, || {
                Name::new(&[record.consumer, seen.plan])
            });
        }
        let method = method(record.method);
        // Places of a method and a status are disjoint.
        let place = (method as u64) << 48 | u64::from(record.status) << 32 | rule;
        self.add(fold(fold(seed ^ consumer, place), 6), Dimension::Usage, &amount, || {
            let status = record.status.to_string();
            let name = METHODS.get(method).copied().unwrap_or(OTHER_METHOD);
            Name::new(&[record.route, record.rule, name, record.consumer, seen.plan, &status])
        });
    }

    fn add(&mut self, key: u64, dimension: Dimension, amount: &Amount, name: impl FnOnce() -> Name) {
        let cell = match self.cells.get(&key) {
            Some(cell) if is_live(cell) => cell,
            _ => match self.first_seen(key, dimension, name) {
                Some(cell) => cell,
                None => return,
            },
        };
        bump(cell, NANOS_AT, amount.nanos);
        bump(cell, BYTES_IN_AT, amount.bytes_in);
        bump(cell, BYTES_OUT_AT, amount.bytes_out);
        bump(cell, OUTCOMES_AT + amount.outcome as usize, 1);
        if dimension != Dimension::Usage {
            bump(cell, BUCKETS_AT + amount.bucket, 1);
        }
    }

    #[cold]
    pub(super) fn first_seen(
        &mut self,
        key: u64,
        dimension: Dimension,
        name: impl FnOnce() -> Name,
    ) -> Option<&Cell> {
        if self.cells.remove(&key).is_some() {
            // One series was given up, others were too.
            self.cells.retain(|_, cell| is_live(cell));
        }
        if self.may_exist(key) {
            let name = name();
            if let Some(cell) = self.board.admit(key, dimension, &name) {
                return Some(self.cells.entry(key).insert_entry(cell).into_mut());
            }
        }
        if let Some(overflow) = self.board.overflow.get(dimension as usize) {
            overflow.increment();
        }
        let board = &self.board;
        let other = self.others.get_mut(dimension as usize)?;
        if other.as_ref().is_none_or(|(_, cell)| !is_live(cell)) {
            let key = fold(board.seed, 7 << 32 | dimension as u64);
            let name = Name::new(&vec![OTHER; dimension.names()]);
            *other = board.admit(key, dimension, &name).map(|cell| (key, cell));
        }
        other.as_ref().map(|(_, cell)| cell)
    }

    /// False when there is no room for further series and this one is none of those that exist.
    fn may_exist(&mut self, key: u64) -> bool {
        if !self.board.is_full.load(Ordering::Relaxed) {
            return true;
        }
        let version = self.board.version.load(Ordering::Relaxed);
        if self.known.as_ref().is_none_or(|(known, _)| *known != version) {
            self.known = Some(self.board.keys());
        }
        self.known.as_ref().is_some_and(|(_, keys)| keys.contains(&key))
    }
}

impl Drop for WorkerSignals {
    fn drop(&mut self) {
        for (key, cell) in self.cells.drain().chain(self.others.iter_mut().filter_map(Option::take)) {
            self.board.end(key, &cell);
        }
    }
}

impl fmt::Debug for WorkerSignals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerSignals").field("cells", &self.cells.len()).finish_non_exhaustive()
    }
}

pub(super) fn is_live(cell: &Cell) -> bool {
    cell.get(RETIRED_AT).is_some_and(|retired| retired.load(Ordering::Relaxed) == 0)
}

/// Adds to a number that no other thread writes.
#[inline]
pub(super) fn bump(cell: &[AtomicU64], at: usize, n: u64) {
    if let Some(number) = cell.get(at) {
        number.store(number.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Mixes two numbers.
#[inline]
pub(crate) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x2d35_8dcc_aa6c_78a5) * u128::from(b ^ 0x8bb8_4b93_962e_acc9);
    #[allow(clippy::cast_possible_truncation)] // both halves are used
    let (low, high) = (product as u64, (product >> 64) as u64);
    low ^ high
}

/// A number for a text.
#[inline]
pub(crate) fn text(seed: u64, text: &str) -> u64 {
    bytes(seed, text.as_bytes())
}

/// A number for bytes.
#[inline]
pub(crate) fn bytes(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = fold(seed, bytes.len() as u64);
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        hash = fold(hash, u64::from_le_bytes(*eight));
    }
    if rest.is_empty() {
        return hash;
    }
    // The last eight bytes, or as many as there are: the length is in it, so none looks like another.
    let last = match (bytes.last_chunk::<8>(), bytes.last_chunk::<4>()) {
        (Some(last), _) => u64::from_le_bytes(*last),
        (None, Some(last)) => {
            let first = bytes.first_chunk::<4>().copied().unwrap_or_default();
            u64::from(u32::from_le_bytes(first)) << 32 | u64::from(u32::from_le_bytes(*last))
        }
        (None, None) => rest.iter().fold(0, |last, byte| last << 8 | u64::from(*byte)),
    };
    fold(hash, last)
}

/// Methods that are told apart.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// The others, as OpenTelemetry calls them.
const OTHER_METHOD: &str = "_OTHER";

fn method(method: &[u8]) -> usize {
    METHODS.iter().position(|known| known.as_bytes() == method).unwrap_or(METHODS.len())
}

#[cfg(test)]
mod tests {
    use super::super::{BUDGET, REST, Series};
    use super::*;
    use crate::metrics::{Metric, Registry};
    use crate::record::Timing;

    fn record<'a>(endpoint: &'a str, consumer: &'a str, status: u16) -> Record<'a> {
        Record {
            method: b"GET",
            route: "default/shop",
            rule: "/items/*",
            backend: "default/shop",
            endpoint,
            consumer,
            status,
            upstream_status: Some(status),
            bytes_in: 1,
            bytes_out: 2,
            timing: Timing { total: Duration::from_millis(4), ..Timing::default() },
            ..Record::default()
        }
    }

    fn seen(registry: &Registry, endpoint: u64) -> Seen<'static> {
        Seen {
            rule: registry.rule("default/shop", "/items/*"),
            backend: Some(registry.backend("default/shop")),
            endpoint: Some(endpoint),
            source: "gateway",
            target: "default/shop",
            is_mutual: false,
            plan: "gold",
        }
    }

    fn of(all: &[Series], dimension: Dimension) -> Vec<&Series> {
        all.iter().filter(|series| series.dimension == dimension).collect()
    }

    #[test]
    fn workers_add_up_by_name() {
        let registry = Registry::new();
        let board = Board::new(BUDGET, 7, &registry);
        let (mut one, mut two) = (board.worker(), board.worker());
        one.count(&record("10.0.0.1:80", "default/acme", 200), &seen(&registry, 1));
        two.count(&record("10.0.0.1:80", "default/acme", 503), &seen(&registry, 1));
        two.count(&record("10.0.0.2:80", "", 200), &seen(&registry, 2));
        drop(one);
        let all = board.totals();
        let route = of(&all, Dimension::Route);
        assert_eq!(route.len(), 1);
        assert_eq!(route[0].name.parts().collect::<Vec<_>>(), ["default/shop", "/items/*"]);
        assert_eq!((route[0].totals.count(), route[0].totals.errors()), (3, 1));
        assert_eq!((route[0].totals.bytes_in, route[0].totals.bytes_out), (3, 6));
        assert_eq!(route[0].totals.buckets.count(), 3);
        assert_eq!(of(&all, Dimension::Endpoint).len(), 2);
        assert_eq!(of(&all, Dimension::Consumer).len(), 1);
        assert_eq!(of(&all, Dimension::Usage).len(), 3);
        assert_eq!(of(&all, Dimension::Connection).len(), 0);
        let edge = of(&all, Dimension::Edge);
        assert_eq!(edge[0].name.parts().collect::<Vec<_>>(), ["gateway", "default/shop", ""]);
    }

    #[test]
    fn beyond_the_budget_everything_is_counted_together() {
        let registry = Registry::new();
        let budget = 64 << 10;
        let board = Board::new(budget, 7, &registry);
        let mut worker = board.worker();
        for number in 0..100_000u64 {
            let name = format!("default/c{number}");
            worker.count(&record("10.0.0.1:80", &name, 200), &seen(&registry, number % 3));
        }
        let all = board.totals();
        assert!(board.bytes() <= budget + 5 * 1024, "{}", board.bytes());
        assert!(worker.cells.len() < 500);
        for dimension in Dimension::ALL.into_iter().filter(|other| *other != Dimension::Connection) {
            let count: u64 = of(&all, dimension).iter().map(|series| series.totals.count()).sum();
            assert_eq!(count, 100_000, "{dimension:?}");
        }
        let other = of(&all, Dimension::Consumer).into_iter().find(|series| series.name.part(0) == OTHER);
        let overflow = registry.counter(Metric::SignalsOverflow, &["consumer"]).value();
        assert_eq!(other.map(|other| other.totals.count()), Some(overflow));
        assert!(overflow > 90_000);
    }

    #[test]
    fn what_is_known_is_counted_on_every_worker_however_full_it_is() {
        let registry = Registry::new();
        let board = Board::new(4 << 10, 7, &registry);
        let (mut one, mut two) = (board.worker(), board.worker());
        one.count(&record("10.0.0.1:80", "default/acme", 200), &seen(&registry, 1));
        for number in 0..100 {
            let name = format!("default/c{number}");
            one.count(&record("10.0.0.1:80", &name, 200), &seen(&registry, 1));
        }
        two.count(&record("10.0.0.1:80", "default/acme", 200), &seen(&registry, 1));
        let all = board.totals();
        let acme =
            of(&all, Dimension::Consumer).into_iter().find(|series| series.name.part(0) == "default/acme");
        assert_eq!(acme.map(|acme| acme.totals.count()), Some(2));
    }

    #[test]
    fn what_rests_gives_its_memory_back_and_may_come_again() {
        let registry = Registry::new();
        let board = Board::new(BUDGET, 7, &registry);
        let mut worker = board.worker();
        worker.count(&record("10.0.0.1:80", "", 200), &seen(&registry, 1));
        let looks = REST.as_secs() / 60;
        for look in 0..looks {
            assert!(board.retire(look, Duration::from_secs(60)).is_empty(), "{look}");
        }
        assert_eq!(board.retire(looks, Duration::from_secs(60)).len(), 4);
        assert_eq!((board.bytes(), board.totals().len()), (0, 0));
        worker.count(&record("10.0.0.1:80", "", 200), &seen(&registry, 1));
        assert!(board.totals().iter().all(|series| series.totals.count() == 1));
        assert_eq!(board.totals().len(), 4);
    }
}
