//! Signals of connections that are carried as they are: what they carry is counted while they live.

use std::sync::Arc;
use std::time::Duration;

use super::buckets::bucket_of;
use super::worker::{bump, is_live, nanos, text};
use super::{
    BUCKETS_AT, BYTES_IN_AT, BYTES_OUT_AT, Cell, Dimension, NANOS_AT, Name, OPENED_AT, OUTCOMES_AT, Outcome,
    WorkerSignals, fold,
};

/// Who is connected with what.
#[derive(Clone, Copy, Debug)]
pub struct Tie<'a> {
    /// Who called.
    pub source: &'a str,
    /// The service.
    pub target: &'a str,
    /// Both sides proved who they are.
    pub is_mutual: bool,
}

/// Counts one connection. A worker's own, as its signals are.
#[derive(Debug)]
pub struct Meter {
    cell: Cell,
    /// What was counted of it already.
    bytes_in: u64,
    bytes_out: u64,
}

impl WorkerSignals {
    /// Counts a connection that begins; nothing when there is no memory even for `other`.
    pub fn open(&mut self, tie: &Tie<'_>) -> Option<Meter> {
        let seed = self.board.seed;
        let ends = fold(seed ^ text(seed, tie.source), text(seed, tie.target));
        let key = fold(ends, 8 + u64::from(tie.is_mutual));
        let cell = match self.cells.get(&key) {
            Some(cell) if is_live(cell) => cell,
            _ => self.first_seen(key, Dimension::Connection, || {
                Name::new(&[tie.source, tie.target, if tie.is_mutual { "mtls" } else { "" }])
            })?,
        };
        bump(cell, OPENED_AT, 1);
        Some(Meter { cell: Arc::clone(cell), bytes_in: 0, bytes_out: 0 })
    }
}

impl Meter {
    /// So much it has carried by now, from and to its client.
    #[inline]
    pub fn carry(&mut self, bytes_in: u64, bytes_out: u64) {
        bump(&self.cell, BYTES_IN_AT, bytes_in.saturating_sub(self.bytes_in));
        bump(&self.cell, BYTES_OUT_AT, bytes_out.saturating_sub(self.bytes_out));
        (self.bytes_in, self.bytes_out) = (bytes_in, bytes_out);
    }

    /// It has ended.
    pub fn close(self, outcome: Outcome, life: Duration) {
        let nanos = nanos(life);
        bump(&self.cell, NANOS_AT, nanos);
        bump(&self.cell, OUTCOMES_AT + outcome as usize, 1);
        bump(&self.cell, BUCKETS_AT + bucket_of(nanos), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BUDGET, Board, REST};
    use super::*;
    use crate::metrics::Registry;

    #[test]
    fn a_connection_is_counted_from_its_beginning_and_stays_while_it_is_open() {
        let registry = Registry::new();
        let board = Board::new(BUDGET, 7, &registry);
        let mut worker = board.worker();
        let tie = Tie { source: "shop/web", target: "shop/db:5432", is_mutual: true };
        let mut meter = worker.open(&tie).unwrap();
        meter.carry(10, 20);
        meter.carry(15, 20);
        let look = || board.totals().pop().unwrap();
        let series = look();
        assert_eq!(series.name.parts().collect::<Vec<_>>(), ["shop/web", "shop/db:5432", "mtls"]);
        assert_eq!((series.totals.opened, series.totals.open(), series.totals.count()), (1, 1, 0));
        assert_eq!((series.totals.bytes_in, series.totals.bytes_out), (15, 20));
        let every = Duration::from_secs(60);
        let looks = REST.as_secs() / 60;
        for look in 0..2 * looks {
            assert!(board.retire(look, every).is_empty(), "{look}");
        }
        meter.close(Outcome::BackendError, Duration::from_secs(3));
        let totals = look().totals;
        assert_eq!((totals.open(), totals.count(), totals.errors()), (0, 1, 1));
        assert!(board.retire(2 * looks, every).is_empty());
        assert_eq!(board.retire(3 * looks, every).len(), 1);
    }
}
