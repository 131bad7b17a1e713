//! What of the board is told among the metrics.

use std::sync::Arc;

use super::{Board, Dimension, OTHER, Outcome, Series};
use crate::metrics::{Emit, Metric, Registry, Times};

/// Has the metrics of a board told at each scrape, for as long as there is a board.
pub(super) fn register(board: &Arc<Board>, registry: &Registry) {
    for (metric, dimension) in [
        (Metric::EdgeRequests, Dimension::Edge),
        (Metric::EndpointRequests, Dimension::Endpoint),
        (Metric::ConsumerRequests, Dimension::Consumer),
        (Metric::EdgeConnections, Dimension::Connection),
    ] {
        let of = Arc::downgrade(board);
        registry.collect(metric, move |emit| {
            let Some(board) = of.upgrade() else { return };
            each(&board, dimension, |series, labels| outcomes(series, labels, emit));
        });
    }
    let of = Arc::downgrade(board);
    registry.collect(Metric::EdgeConnectionsOpened, move |emit| {
        let Some(board) = of.upgrade() else { return };
        each(&board, Dimension::Connection, |series, labels| emit(labels, number(series.totals.opened)));
    });
    let of = Arc::downgrade(board);
    registry.collect(Metric::EdgeBytes, move |emit| {
        let Some(board) = of.upgrade() else { return };
        each(&board, Dimension::Connection, |series, labels| {
            for (direction, bytes) in [("in", series.totals.bytes_in), ("out", series.totals.bytes_out)] {
                emit(&[labels, &[direction]].concat(), number(bytes));
            }
        });
    });
    for (metric, dimension) in
        [(Metric::EdgeDuration, Dimension::Edge), (Metric::EndpointDuration, Dimension::Endpoint)]
    {
        let of = Arc::downgrade(board);
        registry.collect_times(metric, move |emit| {
            let Some(board) = of.upgrade() else { return };
            if dimension == Dimension::Endpoint && !board.tells_endpoint_durations() {
                return;
            }
            each(&board, dimension, |series, labels| {
                emit(labels, Times { buckets: &series.totals.buckets, nanos: series.totals.nanos });
            });
        });
    }
}

/// Calls `tell` with every series of a dimension and its label values. Where there are more than are told, it is always the same ones,
/// and what was counted together is among them.
fn each(board: &Board, dimension: Dimension, mut tell: impl FnMut(&Series, &[&str])) {
    let mut all: Vec<_> = board.totals().into_iter().filter(|series| series.dimension == dimension).collect();
    let place = |series: &Series| (series.name.part(0) != OTHER, series.name.clone());
    all.sort_by_cached_key(place);
    for series in &all {
        let mut labels: Vec<&str> = series.name.parts().collect();
        labels.resize(dimension.names(), "");
        tell(series, &labels);
    }
}

/// How many ended in each way.
fn outcomes(series: &Series, labels: &[&str], emit: &mut Emit<'_>) {
    for (outcome, count) in Outcome::ALL.into_iter().zip(series.totals.outcomes) {
        if count > 0 {
            emit(&[labels, &[outcome.as_str()]].concat(), number(count));
        }
    }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
