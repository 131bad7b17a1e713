//! Settings of the process itself, written beside the documents.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where the admin listener is when nothing is written: this machine only.
pub const DEFAULT_ADMIN: &str = "127.0.0.1:9901";

/// Settings of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Worker threads. Default: one per core that the process may use. Read at start only.
    pub workers: Option<usize>,
    /// Where it runs; `None` is nowhere in particular.
    pub zone: Option<Arc<str>>,
    /// Admin listener; `None` is off. Read at start only.
    pub admin: Option<SocketAddr>,
    /// Where named tokens and the audit log are kept; `None` chooses a place. Read at start only.
    pub admin_directory: Option<PathBuf>,
    /// Access logs.
    pub access_logs: Vec<AccessLog>,
    /// How long a drain may take before connections are cut. Default: 30 s.
    pub drain_timeout: Duration,
    /// How long the process keeps serving after readiness went off, before it stops accepting. Default: 0.
    pub drain_delay: Duration,
    /// What counts as too much; `None` is never.
    pub overload: Option<Overload>,
    /// Golden signals; `None` is off. Read at start only.
    pub signals: Option<Signals>,
}

/// What is counted about requests, by whom they concern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signals {
    /// Most memory of what is counted. Unit: bytes. Default: 8 MiB.
    pub memory: usize,
    /// What was counted is kept.
    pub history: Option<History>,
    /// What APIs there are is found out from traffic.
    pub finds_apis: bool,
    /// How long requests of each endpoint took is among the metrics.
    pub endpoint_durations: bool,
    /// Who is told of all metrics.
    pub statsd: Option<Statsd>,
}

/// A StatsD server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statsd {
    /// Its address.
    pub address: SocketAddr,
    /// What stands before each name.
    pub prefix: Box<str>,
    /// How often it is told. Default: 10 s.
    pub every: Duration,
}

/// What was counted, for as long as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The file; `None` is memory, unless the service manager names a directory for state.
    pub file: Option<PathBuf>,
    /// Most that it takes. Unit: bytes. Default: 64 MiB in a file, 8 MiB in memory.
    pub size: Option<u64>,
    /// Somebody has written that it be kept. Sidecars keep it only then.
    pub is_asked: bool,
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            memory: rhumb_telemetry::signals::BUDGET,
            history: Some(History::default()),
            finds_apis: true,
            endpoint_durations: false,
            statsd: None,
        }
    }
}

/// What counts as too much for the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overload {
    /// Resident memory. Unit: bytes. Default: the limit of the cgroup, else the memory of the machine.
    pub memory: Option<u64>,
    /// Memory in buffers of connections. Unit: bytes. Default: a quarter of `memory`.
    pub buffers: Option<u64>,
    /// How long what is ready may wait for its turn on a worker. Default: 250 ms.
    pub queue_delay: Duration,
}

impl Default for Overload {
    fn default() -> Self {
        Self { memory: None, buffers: None, queue_delay: Duration::from_millis(250) }
    }
}

impl Default for Process {
    fn default() -> Self {
        Self {
            workers: None,
            zone: None,
            admin: DEFAULT_ADMIN.parse().ok(),
            admin_directory: None,
            access_logs: vec![AccessLog::default()],
            drain_timeout: Duration::from_secs(30),
            drain_delay: Duration::ZERO,
            overload: Some(Overload::default()),
            signals: Some(Signals::default()),
        }
    }
}

/// One access log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessLog {
    /// How a line is written. Default: JSON.
    pub format: AccessLogFormat,
    /// File to append to; `None` is standard output.
    pub file: Option<PathBuf>,
    /// How much of the query is shown. Default: nothing.
    pub query: AccessLogQuery,
    /// Only exchanges whose status is at least this. Default: all.
    pub min_status: Option<u16>,
    /// Only exchanges that took at least this long. Default: all.
    pub min_duration: Option<Duration>,
}

/// Format of an access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// NCSA combined.
    Combined,
}

/// How much of the query an access log shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogQuery {
    /// Nothing.
    #[default]
    Omit,
    /// Everything but values of parameters whose names look like credentials.
    Redact,
}
