//! Every metric of Rhumb: the table of names, and the registry that counts and renders them.
//!
//! What runs per request has one writer and no lock: each worker owns its series ([`WorkerMetrics`]) and writes them
//! with a relaxed load and store; a scrape reads them and adds up. What happens seldom is a shared [`Counter`] or
//! [`Gauge`], or is asked for at the scrape ([`Registry::collect`]).
//!
//! Labels never come from a peer, with two exceptions that are closed sets: the method (others become `_OTHER`) and the
//! status. Each metric has at most [`SERIES_LIMIT`] series; what comes later is counted together, with the label value
//! `other` (and the class of the status, `2xx`). A series lives as long as the process, across reloads, as long as its
//! labels stay the same; series of routes and backends that are gone stay and count against the limit.

mod exchange;
mod times;
mod exemplar;
mod registry;
mod worker;
mod process;
mod render;
pub(crate) mod samples;
pub(crate) mod protobuf;
mod statsd;

pub use exchange::BOUNDS;
pub use registry::{BackendId, Counter, Emit, Gauge, ListenerId, Registry, RuleId, SERIES_LIMIT};
pub use render::Format;
pub use statsd::Statsd;
pub use times::{EmitTimes, Times};
pub use worker::{LocalCounter, LocalGauge, WorkerMetrics};

/// How the values of a metric are to be read (Prometheus text exposition format 0.0.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bounds, with sum and count.
    Histogram,
    /// Sum and count, without quantiles.
    Summary,
}

impl Kind {
    /// The word in a `# TYPE` line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// What is to be known about a metric.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Name as scraped; the name in code has to follow it.
    pub name: &'static str,
    /// How values are to be read.
    pub kind: Kind,
    /// Unit of values; empty: a count.
    pub unit: &'static str,
    /// Label names, in the order of label values in calls.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($variant:ident = $name:literal, $kind:ident, $unit:literal, [$($label:literal),*], $help:literal;)*) => {
        /// The metrics. [`Metric::family`] has the details.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Metric { $(#[doc = $help] $variant),* }

        impl Metric {
            /// Every metric, in the order of the exposition.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// Name, kind, unit, labels and help.
            pub const fn family(self) -> &'static Family {
                match self {
                    $(Self::$variant => &Family {
                        name: $name, kind: Kind::$kind, unit: $unit, labels: &[$($label),*], help: $help,
                    },)*
                }
            }
        }
    };
}

// The names of OpenTelemetry's semantic conventions for HTTP, as its Prometheus exporters write them; own names begin
// with `rhumb_`; `process_` is what every Prometheus client library has.
metrics! {
    // Requests.
    ServerRequestDuration = "http_server_request_duration_seconds", Histogram, "seconds",
        ["server_listener", "route", "http_route", "http_request_method", "http_response_status_code", "url_scheme", "network_protocol_version"],
        "Time from the first byte of a request to the last byte of its response.";
    ServerRequestBodySize = "http_server_request_body_size_bytes", Summary, "bytes",
        ["server_listener", "route", "http_route", "http_request_method", "http_response_status_code", "url_scheme", "network_protocol_version"],
        "Content of requests.";
    ServerResponseBodySize = "http_server_response_body_size_bytes", Summary, "bytes",
        ["server_listener", "route", "http_route", "http_request_method", "http_response_status_code", "url_scheme", "network_protocol_version"],
        "Content of responses.";
    ServerActiveRequests = "http_server_active_requests", Gauge, "", ["server_listener"],
        "Requests that are being served.";
    ClientRequestDuration = "http_client_request_duration_seconds", Histogram, "seconds",
        ["backend", "http_request_method", "http_response_status_code"],
        "Time from the first attempt at a backend to the last byte of its response; no status: none arrived.";
    Failures = "rhumb_failures_total", Counter, "", ["code", "side"],
        "Exchanges that failed, by machine code and by who failed.";
    Notes = "rhumb_notes_total", Counter, "", ["note"],
        "Odd branches that exchanges took.";
    Retries = "rhumb_upstream_retries_total", Counter, "", ["backend", "reason"],
        "Attempts after the first of an exchange, by why they were made.";
    RetriesRefused = "rhumb_upstream_retries_refused_total", Counter, "", ["backend", "reason"],
        "Retries that were wanted and not made: the budget of the backend or of the request tree was spent, content was not kept, or time was over.";
    PolicyRefusals = "rhumb_policy_refusals_total", Counter, "", ["policy", "code", "mode"],
        "Requests that a policy refused (mode enforce), or would have refused (mode shadow).";
    SpansSent = "rhumb_spans_sent_total", Counter, "", ["collector"],
        "Spans that a collector took.";
    SpansDropped = "rhumb_spans_dropped_total", Counter, "", ["collector", "reason"],
        "Spans that were not delivered: queue_full, rejected (by the collector), undeliverable (after every attempt).";
    LogsSent = "rhumb_otlp_logs_sent_total", Counter, "", ["collector"],
        "Log records that a collector took.";
    LogsDropped = "rhumb_otlp_logs_dropped_total", Counter, "", ["collector", "reason"],
        "Log records that were not delivered: queue_full, rejected (by the collector), undeliverable (after every attempt).";
    PointsSent = "rhumb_otlp_points_sent_total", Counter, "", ["collector"],
        "Series of metrics that a collector took.";
    PointsDropped = "rhumb_otlp_points_dropped_total", Counter, "", ["collector", "reason"],
        "Series of metrics that were not delivered: rejected (by the collector), undeliverable (after every attempt).";
    StoreAsks = "rhumb_store_leases_total", Counter, "", ["store"],
        "Leases of permits that were asked of a store.";
    StoreRoundTrips = "rhumb_store_round_trips_total", Counter, "", ["store", "result"],
        "Round trips to a store of limits; one has all leases that are wanted by then.";
    StoreAway = "rhumb_store_away", Gauge, "", ["store"],
        "1 while a store of limits cannot be reached.";
    StoreUsers = "rhumb_store_proxies", Gauge, "", ["store"],
        "Proxies that used a store of limits when that was last known.";
    KeyFetches = "rhumb_jwks_fetches_total", Counter, "", ["result"],
        "Requests for the keys of issuers of tokens, by result: ok or failed.";
    Mirrored = "rhumb_mirrored_requests_total", Counter, "", ["backend", "result"],
        "Requests that a mirror was to get, by what became of the copy.";

    // Client connections.
    ConnectionsOpen = "rhumb_connections_open", Gauge, "", ["server_listener"],
        "Client connections that are open.";
    ConnectionsAccepted = "rhumb_connections_accepted_total", Counter, "", ["server_listener"],
        "Client connections accepted.";
    ConnectionsRefused = "rhumb_connections_refused_total", Counter, "", ["server_listener", "reason"],
        "Client connections closed before anything was read.";
    MeshEnded = "rhumb_mesh_ended_total", Counter, "", ["reason"],
        "Live connections of callers (revoked) and to services (server), and streams (denied) of the mesh that a change has ended.";
    MeshRequests = "rhumb_mesh_requests_total", Counter, "", ["source", "service", "status"],
        "Requests of the mesh, on the side of the service: who called (namespace/account), what, and the class of the status.";
    MeshConnections = "rhumb_mesh_connections_total", Counter, "", ["source", "service"],
        "Connections of the mesh that were carried as they are, on the side of the service.";
    EgressConnections = "rhumb_mesh_egress_connections_total", Counter, "", ["source", "destination", "outcome"],
        "Connections that asked the egress gateway to leave the mesh: who (namespace/account), the entry that lists where to (other: none), and ok, not_listed, denied or unreachable.";
    AcceptErrors = "rhumb_accept_errors_total", Counter, "", ["server_listener", "reason"],
        "Errors of accept(2).";
    Handshakes = "rhumb_tls_handshakes_total", Counter, "", ["server_listener", "version", "resumed"],
        "TLS handshakes completed with clients.";
    HandshakeFailures = "rhumb_tls_handshake_failures_total", Counter, "", ["server_listener", "reason"],
        "TLS handshakes with clients that failed.";
    ProtocolErrors = "rhumb_protocol_errors_total", Counter, "", ["side", "protocol", "code"],
        "Messages and frames that broke the rules of their protocol.";
    LimitHits = "rhumb_limit_hits_total", Counter, "", ["limit"],
        "How often a bound was reached, by the name of the bound.";

    OverloadWorkers = "rhumb_overload_workers", Gauge, "", ["state"],
        "Workers that are overloaded: closing connections, or shedding requests too.";
    OverloadRefused = "rhumb_overload_refused_total", Counter, "", ["priority"],
        "Requests refused because of overload.";
    Buffers = "rhumb_buffer_bytes", Gauge, "bytes", [],
        "Memory in buffers of connections.";
    MemoryLimit = "rhumb_memory_limit_bytes", Gauge, "bytes", [],
        "Resident memory that counts as full.";

    // Connections and datagrams that are carried as they are.
    L4Connections = "rhumb_l4_connections_total", Counter, "", ["server_listener", "route", "backend", "end"],
        "TCP connections, TLS connections and UDP sessions that ended, by why.";
    L4Bytes = "rhumb_l4_bytes_total", Counter, "", ["server_listener", "route", "backend", "direction"],
        "Bytes that they carried; in: from clients, out: to clients.";
    L4Time = "rhumb_l4_connection_seconds_total", Counter, "seconds", ["server_listener", "route", "backend"],
        "How long they lived, together.";
    UdpSessions = "rhumb_udp_sessions_open", Gauge, "", ["server_listener"],
        "UDP sessions that are open.";
    UdpDatagrams = "rhumb_udp_datagrams_total", Counter, "", ["server_listener", "direction"],
        "Datagrams carried; in: from clients, out: to clients.";
    UdpDropped = "rhumb_udp_dropped_total", Counter, "", ["server_listener", "reason"],
        "Datagrams that were not carried.";
    ProxyProtocol = "rhumb_proxy_protocol_total", Counter, "", ["server_listener", "result"],
        "PROXY protocol headers that load balancers in front sent.";

    // Backends.
    UpstreamConnectionsOpen = "rhumb_upstream_connections_open", Gauge, "", ["backend"],
        "Upstream connections that are open.";
    UpstreamConnectionsIdle = "rhumb_upstream_connections_idle", Gauge, "", ["backend"],
        "Upstream connections that wait in a pool.";
    UpstreamConnectionsCreated = "rhumb_upstream_connections_created_total", Counter, "", ["backend"],
        "Upstream connections made.";
    UpstreamConnectionsReused = "rhumb_upstream_connections_reused_total", Counter, "", ["backend"],
        "Times a pooled upstream connection was taken.";
    UpstreamConnectionFailures = "rhumb_upstream_connection_failures_total", Counter, "", ["backend", "reason"],
        "Upstream connections that could not be made.";
    Endpoints = "rhumb_endpoints", Gauge, "", ["backend", "state"],
        "Endpoints by state.";
    Ejections = "rhumb_endpoint_ejections_total", Counter, "", ["backend", "reason"],
        "Endpoints put out for failing, by the evidence; spared: too many were out already.";
    Panicking = "rhumb_backend_panicking", Gauge, "", ["backend"],
        "1 while too few endpoints can be used, so that all are.";
    Panics = "rhumb_backend_panics_total", Counter, "", ["backend"],
        "Times that too few endpoints could be used, so that all were.";
    HealthChecks = "rhumb_health_checks_total", Counter, "", ["backend", "result"],
        "Active checks of endpoints that ended.";
    BackendRefused = "rhumb_backend_refused_total", Counter, "", ["backend", "limit"],
        "Requests refused because the backend had as many requests, or as many that wait for a connection or a stream, as it may have.";
    BackendPending = "rhumb_backend_pending_requests", Gauge, "", ["backend"],
        "Requests that wait for a connection, where the number of connections is limited, or for a stream of HTTP/2.";
    BreakerOpenings = "rhumb_breaker_openings_total", Counter, "", ["policy"],
        "Times that the circuit of a policy circuitBreaker opened, by where the policy is written.";
    BreakerOpen = "rhumb_breaker_open", Gauge, "", ["policy"],
        "1 while a circuit is open or probed.";
    Resolutions = "rhumb_backend_resolutions_total", Counter, "", ["backend", "result"],
        "DNS resolutions of backends.";

    // Names.
    DnsQuestions = "rhumb_dns_questions_total", Counter, "", ["answer"],
        "Captured questions for names, by where the answer came from; loop: brought back to the process that asked.";

    // Control plane.
    ControlRevision = "rhumb_control_revision", Gauge, "", [],
        "Revision of the documents that the control plane has in force.";
    ControlProxies = "rhumb_control_proxies", Gauge, "", [],
        "Proxies that are connected to the control plane.";
    ControlResponses = "rhumb_control_responses_total", Counter, "", ["result"],
        "Responses to proxies, and what they made of them.";
    ControlResources = "rhumb_control_resources_total", Counter, "", ["event"],
        "Resources that the control plane made, and resources that it sent.";
    FleetReports = "rhumb_fleet_reports_total", Counter, "", [],
        "Reports of proxies that the control plane has heard.";
    FleetSeries = "rhumb_fleet_series_total", Counter, "", ["result"],
        "Series in reports of proxies; foreign: none of the reporter's business.";
    FleetSightings = "rhumb_fleet_sightings_total", Counter, "", ["result"],
        "Kinds of requests that proxies told of to find APIs; foreign: none of the reporter's business.";
    FleetBytes = "rhumb_fleet_history_bytes", Gauge, "bytes", [],
        "What the history of all proxies takes.";
    Reports = "rhumb_reports_total", Counter, "", ["result"],
        "Reports of this proxy to its control plane.";
    StoreUp = "rhumb_store_up", Gauge, "", [],
        "1 while the database that control planes share is there, 0 while it is away.";
    StoreContact = "rhumb_store_contact_timestamp_seconds", Gauge, "seconds", [],
        "When the database that control planes share last answered, since the Unix epoch.";
    StoreWork = "rhumb_store_operations_total", Counter, "", ["result"],
        "What was asked of the database that control planes share: done, or failed because it was away.";
    StoreTime = "rhumb_store_operation_seconds_total", Counter, "seconds", [],
        "How long the database that control planes share took for what it has done.";

    // Configuration and certificates.
    ConfigRevision = "rhumb_config_revision", Gauge, "", [],
        "Revision of the configuration that is live.";
    ConfigReloads = "rhumb_config_reloads_total", Counter, "", ["result"],
        "Attempts to make a configuration live.";
    ConfigDiagnostics = "rhumb_config_diagnostics", Gauge, "", ["severity"],
        "Diagnostics of the latest attempt to make a configuration live.";
    ConfigLastSuccess = "rhumb_config_last_success_timestamp_seconds", Gauge, "seconds", [],
        "When a configuration last became live, since the Unix epoch.";
    CertificateExpiry = "rhumb_certificate_expiry_timestamp_seconds", Gauge, "seconds", ["certificate"],
        "When a certificate in use expires, since the Unix epoch.";

    // Identity in a mesh.
    SvidExpiry = "rhumb_svid_expiry_timestamp_seconds", Gauge, "seconds", ["id"],
        "When the SVID of this process expires, since the Unix epoch.";
    SvidRenewals = "rhumb_svid_renewals_total", Counter, "", ["result"],
        "SVIDs that this process has asked for.";
    TrustFollowed = "rhumb_trust_followed", Gauge, "", [],
        "1 while an issuer tells this process at once what not to trust any more.";
    AuthorityExpiry = "rhumb_authority_expiry_timestamp_seconds", Gauge, "seconds", ["certificate"],
        "When a signing certificate of the certificate authority expires, since the Unix epoch.";
    AuthorityRoots = "rhumb_authority_roots", Gauge, "", [],
        "Roots in the trust bundle; more than one while a rotation is under way.";
    SvidsIssued = "rhumb_svids_issued_total", Counter, "", ["proof"],
        "SVIDs issued, by how their owner proved who it is.";
    SvidsRefused = "rhumb_svids_refused_total", Counter, "", [],
        "Requests for an SVID that were refused.";
    AuthorityFailures = "rhumb_authority_failures_total", Counter, "", [],
        "Times that the certificate authority could not be looked after.";
    Revocations = "rhumb_revocations", Gauge, "", [],
        "Revocations that are in force.";

    // The process.
    LogLines = "rhumb_log_lines_total", Counter, "", [],
        "Access-log lines written.";
    LogLinesDropped = "rhumb_log_lines_dropped_total", Counter, "", ["reason"],
        "Access-log lines lost.";
    Series = "rhumb_metric_series", Gauge, "", ["metric"],
        "Series in use, of those metrics that have any beyond a fixed set.";
    SeriesOverflow = "rhumb_metric_series_overflow", Gauge, "", ["metric"],
        "1 if a metric has reached its limit of series, so that some are counted together.";
    SignalsBytes = "rhumb_signals_bytes", Gauge, "bytes", [],
        "Memory of golden signals.";
    EdgeRequests = "rhumb_edge_requests_total", Counter, "", ["source", "target", "mtls", "outcome"],
        "Requests by who called what, and by how they ended.";
    EdgeDuration = "rhumb_edge_request_duration_seconds", Histogram, "seconds", ["source", "target", "mtls"],
        "How long requests took, by who called what.";
    EdgeConnectionsOpened = "rhumb_edge_connections_opened_total", Counter, "", ["source", "target", "mtls"],
        "Connections and sessions that are carried as they are and began, by who called what.";
    EdgeConnections = "rhumb_edge_connections_total", Counter, "", ["source", "target", "mtls", "outcome"],
        "Those that have ended, by how.";
    EdgeBytes = "rhumb_edge_connection_bytes_total", Counter, "bytes", ["source", "target", "mtls", "direction"],
        "Bytes that they carried, while they are open too; in: from callers, out: to callers.";
    EndpointRequests = "rhumb_endpoint_requests_total", Counter, "", ["backend", "endpoint", "outcome"],
        "Requests by the endpoint that was asked last, and by how they ended.";
    EndpointDuration = "rhumb_endpoint_request_duration_seconds", Histogram, "seconds", ["backend", "endpoint"],
        "How long requests took, by the endpoint that was asked last; with `signals.endpointDurations` only.";
    ConsumerRequests = "rhumb_consumer_requests_total", Counter, "", ["consumer", "plan", "outcome"],
        "Requests of registered consumers, by how they ended.";
    SignalsOverflow = "rhumb_signals_overflow_total", Counter, "", ["dimension"],
        "Exchanges that were counted under the name `other` because the memory of golden signals is spent.";
    SightingsDropped = "rhumb_sightings_dropped_total", Counter, "", [],
        "Requests that were not looked at to find APIs, because there were too many different ones.";
    Workers = "rhumb_workers", Gauge, "", [],
        "Worker threads.";
    Upgrades = "rhumb_upgrades_total", Counter, "", ["result"],
        "Upgrades in place that this process has begun.";
    Draining = "rhumb_draining", Gauge, "", [],
        "1 while the proxy drains.";
    BuildInfo = "rhumb_build_info", Gauge, "", ["version"],
        "Always 1; the labels tell the build.";
    ProcessCpu = "process_cpu_seconds_total", Counter, "seconds", [],
        "Processor time of the process, user and system.";
    ProcessResident = "process_resident_memory_bytes", Gauge, "bytes", [],
        "Resident memory.";
    ProcessVirtual = "process_virtual_memory_bytes", Gauge, "bytes", [],
        "Virtual memory.";
    ProcessOpenFds = "process_open_fds", Gauge, "", [],
        "Open file descriptors.";
    ProcessMaxFds = "process_max_fds", Gauge, "", [],
        "Most file descriptors that may be open.";
    ProcessThreads = "process_threads", Gauge, "", [],
        "Threads of the process.";
    ProcessStart = "process_start_time_seconds", Gauge, "seconds", [],
        "When the process started, since the Unix epoch.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_follow_the_conventions() {
        let mut names = BTreeSet::new();
        for metric in Metric::ALL {
            let Family { name, kind, unit, labels, help } = *metric.family();
            assert!(names.insert(name), "{name}");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
            assert!(["http_", "rhumb_", "process_"].iter().any(|prefix| name.starts_with(prefix)), "{name}");
            assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(name.trim_end_matches("_total").ends_with(unit), "{name}");
            assert!(help.ends_with('.') && !help.contains(['\n', '\\']), "{name}");
            assert_eq!(labels.iter().collect::<BTreeSet<_>>().len(), labels.len(), "{name}");
            assert!(!labels.contains(&"le") && !labels.contains(&"quantile"), "{name}");
        }
    }

    #[test]
    fn metrics_are_numbered_in_order() {
        for (at, metric) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(metric as usize, at);
        }
    }
}
