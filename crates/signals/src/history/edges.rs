//! Who calls whom: requests and connections together.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_telemetry::signals::{Dimension, Name, Totals};

use super::{History, Inner, MINUTE};
use crate::answer::{Connections, Edge, Edges, Golden, round};

/// Connections of one name.
#[derive(Default)]
pub(super) struct Tied {
    totals: Totals,
    /// Those that are open, where it was asked about now.
    open: Option<u64>,
}

impl Tied {
    pub(super) fn told(&self, seconds: f64) -> Connections {
        Connections { open: self.open, ..Connections::of(&self.totals, seconds) }
    }
}

/// What an edge had.
struct Both {
    mtls: bool,
    requests: Totals,
    connections: Option<Tied>,
}

impl History {
    /// Who called whom: in the last minute, or in the minute that ended at a time (seconds since 1970).
    #[allow(clippy::cast_precision_loss)] // seconds since 1970
    pub fn edges(&self, at: Option<u64>) -> Edges {
        let inner = self.lock();
        let minute = Duration::from_secs(MINUTE);
        let (at, seconds, requests, connections) = match at {
            None => {
                let (at, seconds, requests) = inner.lately(minute, Dimension::Edge, Name::clone);
                (at, seconds, requests, Self::connections(&inner, minute, Name::clone))
            }
            Some(at) => {
                let from = (at.saturating_sub(MINUTE)) / MINUTE * MINUTE;
                let (mut requests, mut connections) = (BTreeMap::new(), BTreeMap::new());
                inner.frames(from, from + MINUTE, |_, bytes| {
                    inner.collect(bytes, Dimension::Edge, Name::clone, &mut requests);
                    inner.collect(bytes, Dimension::Connection, Name::clone, &mut connections);
                });
                let tied = |(name, totals)| (name, Tied { totals, open: None });
                let connections = connections.into_iter().map(tied).collect();
                ((from + MINUTE) as f64, minute.as_secs_f64(), requests, connections)
            }
        };
        Edges { at, window_seconds: round(seconds), edges: joined(requests, connections, seconds) }
    }

    /// Connections of the last seconds, and those that were open at the last look, by name.
    pub(super) fn connections<K: Ord>(
        inner: &Inner,
        window: Duration,
        name: impl Fn(&Name) -> K,
    ) -> BTreeMap<K, Tied> {
        let (_, _, lately) = inner.lately(window, Dimension::Connection, &name);
        // What others have open is not told by spans that are over.
        let open = inner.fleet.is_none().then_some(0);
        let tied = |(name, totals)| (name, Tied { totals, open });
        let mut all: BTreeMap<K, Tied> = lately.into_iter().map(tied).collect();
        for ((dimension, series), totals) in &inner.last {
            let open = totals.open();
            if *dimension == Dimension::Connection && open > 0 {
                *all.entry(name(series)).or_default().open.get_or_insert(0) += open;
            }
        }
        all
    }
}

/// Edges by source and target; each is one, whether some of it went over mutual TLS or not.
fn joined(requests: BTreeMap<Name, Totals>, connections: BTreeMap<Name, Tied>, seconds: f64) -> Vec<Edge> {
    let mut edges: BTreeMap<(String, String), Both> = BTreeMap::new();
    let mut edge = |name: &Name, add: &mut dyn FnMut(&mut Both)| {
        let ends = (name.part(0).to_owned(), name.part(1).to_owned());
        let nothing = || Both { mtls: true, requests: Totals::default(), connections: None };
        let both = edges.entry(ends).or_insert_with(nothing);
        both.mtls &= name.part(2) == "mtls";
        add(both);
    };
    for (name, totals) in &requests {
        edge(name, &mut |both| both.requests.add(totals));
    }
    for (name, tied) in &connections {
        edge(name, &mut |both| {
            let all = both.connections.get_or_insert_default();
            all.totals.add(&tied.totals);
            if let Some(open) = tied.open {
                *all.open.get_or_insert(0) += open;
            }
        });
    }
    let told = |((source, target), both): ((String, String), Both)| Edge {
        source,
        target,
        mtls: both.mtls,
        golden: Golden::of(&both.requests, seconds),
        connections: both.connections.map(|tied| tied.told(seconds)),
    };
    edges.into_iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rhumb_telemetry::Board;
    use rhumb_telemetry::metrics::Registry;
    use rhumb_telemetry::signals::{BUDGET, Outcome, Tie};

    use super::*;
    use crate::answer::{By, Sort};
    use crate::history::MEMORY;

    #[test]
    fn connections_are_part_of_their_edge_from_their_beginning() {
        let registry = Registry::new();
        let board = Board::new(BUDGET, 3, &registry);
        let mut worker = board.worker();
        let history = History::in_memory(Arc::clone(&board), MEMORY);
        let start = 1_800_000_000_000;
        history.look(start, false).unwrap();
        let tie = Tie { source: "shop/web", target: "shop/db:5432", is_mutual: true };
        let mut meter = worker.open(&tie).unwrap();
        meter.carry(4000, 200);
        let failed = worker.open(&tie).unwrap();
        failed.close(Outcome::BackendError, Duration::from_millis(3));
        history.look(start + 2000, false).unwrap();
        let edges = history.edges(None).edges;
        assert_eq!(edges.len(), 1);
        assert!(edges[0].mtls && edges[0].golden.requests == 0, "{edges:?}");
        let connections = edges[0].connections.clone().unwrap();
        assert_eq!((connections.opened, connections.open, connections.failed), (2, Some(1), 1));
        assert_eq!((connections.bytes_in_per_second, connections.outcomes.backend_error), (2000.0, 1));
        let top = history.top(By::Edge, Duration::from_secs(10), Sort::Requests, 5).items;
        assert_eq!(top[0].name, "shop/web>shop/db:5432");
        assert_eq!(top[0].connections.clone().unwrap().opened, 2);
        // What was is told without those that are open, and an hour of rest does not hide a connection.
        for look in 1..60 {
            history.look(start + 2000 + look * 2000, false).unwrap();
        }
        let then = history.edges(Some(start / 1000 + 60)).edges;
        assert_eq!(then[0].connections.clone().unwrap().open, None);
        let now = history.edges(None).edges;
        assert_eq!(now[0].connections.clone().unwrap().open, Some(1));
        meter.close(Outcome::Ok, Duration::from_secs(100));
        history.look(start + 200_000, false).unwrap();
        assert_eq!(history.edges(None).edges[0].connections.clone().unwrap().open, Some(0));
    }
}
