//! Traffic for tests.

use std::sync::Arc;
use std::time::Duration;

use rhumb_telemetry::Board;
use rhumb_telemetry::metrics::Registry;
use rhumb_telemetry::record::{Record, Timing};
use rhumb_telemetry::signals::{BUDGET, Seen, WorkerSignals};

use super::{DAY, HOUR, History, MINUTE};

/// A Sunday at midnight, so that hours and days begin where they should.
pub(super) const START: u64 = 1_800_000_000 / DAY * DAY;

/// A board, and a worker that counts on it.
pub(super) struct Traffic {
    registry: Arc<Registry>,
    pub(super) board: Arc<Board>,
    worker: WorkerSignals,
}

impl Traffic {
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let board = Board::new(BUDGET, 3, &registry);
        let worker = board.worker();
        Self { registry, board, worker }
    }

    pub(super) fn send(&mut self, route: &str, consumer: &str, status: u16, millis: u64) {
        let record = Record {
            method: b"GET",
            route,
            rule: "/x/*",
            backend: "default/shop",
            endpoint: "10.0.0.1:80",
            consumer,
            status,
            upstream_status: Some(status),
            timing: Timing { total: Duration::from_millis(millis), ..Timing::default() },
            ..Record::default()
        };
        let seen = Seen {
            rule: self.registry.rule(route, "/x/*"),
            backend: Some(self.registry.backend("default/shop")),
            endpoint: Some(1),
            source: "gateway",
            target: "default/shop",
            is_mutual: false,
            plan: if consumer.is_empty() { "" } else { "gold" },
        };
        self.worker.count(&record, &seen);
    }

    /// One request every two seconds, for a time; 503 in the first minute of each hour.
    pub(super) fn run(&mut self, history: &History, from: u64, seconds: u64) {
        for at in (from..from + seconds).step_by(2) {
            let status = if at % HOUR < MINUTE { 503 } else { 200 };
            self.send("default/web", "", status, 20);
            history.look((at + 2) * 1000, false).unwrap();
        }
    }
}
