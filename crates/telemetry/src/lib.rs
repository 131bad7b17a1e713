//! What Rhumb tells about the traffic it carries.
//!
//! The data path fills one [`Record`] per finished exchange. From it come a line of the [`access_log`] and the series of
//! [`metrics`], and the spans of a traced exchange ([`trace`]); [`id`] makes the names by which an exchange is found again
//! elsewhere (request id, W3C trace context).
//!
//! The crate knows no sockets, no configuration documents and no routes: names come in as text, times as arguments.
//! What runs per request takes no lock, allocates nothing and uses no read-modify-write atomics; what may block (files,
//! standard output) happens on one writer thread behind a bounded queue. Start reading at [`record`].

pub mod id;
pub mod record;
pub mod limit;
mod text;
pub mod trace;
pub mod otlp;
pub mod access_log;
pub mod metrics;
pub mod signals;
pub mod sightings;

pub use access_log::{AccessLog, AccessLogConfig, JsonLine, WorkerLog};
pub use id::{IdSource, RequestId, TraceContext};
pub use limit::Limit;
pub use metrics::{Metric, Registry, WorkerMetrics};
pub use record::{Note, NoteSet, Protocol, Record, RetryReason, Scheme, StatusSource};
pub use sightings::{Lookout, WorkerSightings};
pub use signals::{Board, WorkerSignals};
