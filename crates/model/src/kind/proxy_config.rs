//! ProxyConfig: settings of the proxy process and of how it treats clients.
//!
//! What Gateway API has no field for. A ProxyConfig that no Gateway names is that of the process (there may be one);
//! one that a Gateway names in `infrastructure.parametersRef` holds for its listeners instead, and has none of the
//! settings that only a process can have (`workers`, `admin`, `accessLog`).

use super::admin::Admin;
use super::secret::SecretText;
use super::signals::Signals;
use crate::decode::{Decoder, List, Whole, choice, object};
use crate::diag::Rule;
use crate::scalar::{ByteSize, Cidr, Duration};
use crate::span::Spanned;

object! {
    /// Settings of the proxy process and of how it treats clients.
    pub struct ProxyConfig as "the spec of a ProxyConfig" {
        /// Threads that carry traffic. Default: as many as the process may use CPUs.
        "workers" workers: Option<Spanned<Whole<1, 1024>>>,
        /// Where this process runs: endpoints of the same zone are asked first. Default: all are asked alike.
        "zone" zone: Option<Spanned<Box<str>>>,
        /// The listener for operators: probes, metrics, configuration.
        "admin" admin: Option<Admin>,
        /// One line per request.
        "accessLog" access_log: Option<AccessLog>,
        /// Addresses of proxies in front of us, whose X-Forwarded-* and Forwarded fields are believed. Default: none:
        /// these fields are removed from what clients send.
        "trustedProxies" trusted_proxies: List<Spanned<Cidr>, 0, 1024>,
        /// How much a client may send and hold.
        "limits" limits: Option<Limits>,
        /// How long a client may take.
        "timeouts" timeouts: Option<ClientTimeouts>,
        /// What is done to paths before they are matched and forwarded.
        "paths" paths: Option<Paths>,
        /// What counts as too much for the process. Beyond it connections are closed, then requests are refused.
        "overload" overload: Option<Overload>,
        /// What is counted about requests, by route, caller and service, endpoint and consumer.
        "signals" signals: Option<Signals>,
        /// The secret that seals the tokens of sessions: the same on every proxy that serves them, at least 16 characters.
        /// Default: none: tokens then only look as if they said nothing.
        "sessionKey" session_key: Option<Spanned<SecretText>>,
    }
    check ProxyConfig::check;
}

/// Shortest secret of sessions, in bytes.
const SESSION_KEY_LEAST: usize = 16;

impl ProxyConfig {
    fn check(&self, cx: &mut Decoder<'_>) {
        if let Some(key) = &self.session_key
            && key.value.0.trim().len() < SESSION_KEY_LEAST
        {
            let diag = cx
                .error(Rule::BadValue, key.span, "the secret of sessions is too short")
                .why(format!("it has at least {SESSION_KEY_LEAST} characters, chosen at random"))
                .fix("write what `openssl rand -base64 24` prints");
            cx.push(diag);
        }
    }
}

object! {
    /// What counts as too much for the process.
    pub struct Overload as "overload" {
        /// Whether anything is done about it. Default: yes.
        "enabled" enabled: Option<Spanned<bool>>,
        /// Resident memory that counts as full. Default: the limit of the cgroup, else the memory of the machine.
        "memory" memory: Option<Spanned<ByteSize>>,
        /// Memory in buffers of connections that counts as full. Default: a quarter of `memory`.
        "buffers" buffers: Option<Spanned<ByteSize>>,
        /// How long what is ready may wait for its turn. Default: 250ms.
        "queueDelay" queue_delay: Option<Spanned<Duration>>,
    }
    check Overload::check;
}

/// The least that [`Overload::memory`] and [`Overload::buffers`] can be: below, a process at rest is overloaded.
const SMALLEST_MEMORY: u64 = 16 << 20;

impl Overload {
    fn check(&self, cx: &mut Decoder<'_>) {
        for size in [&self.memory, &self.buffers].into_iter().flatten() {
            if size.get() < SMALLEST_MEMORY {
                let diag = cx
                    .error(Rule::OutOfRange, size.span, format!("{} bytes are out of range", size.get()))
                    .why("a process at rest would be overloaded; allowed: 16Mi and more");
                cx.push(diag);
            }
        }
    }
}

object! {
    /// One line per request.
    pub struct AccessLog as "accessLog" {
        /// Whether it is written. Default: yes.
        "enabled" enabled: Option<Spanned<bool>>,
        /// json (default) or combined.
        "format" format: Option<Spanned<AccessLogFormat>>,
        /// A file, opened again on SIGUSR1. Default: standard output.
        "path" path: Option<Spanned<Box<str>>>,
        /// Whether the query is logged; values of parameters that look like credentials are replaced. Default: no.
        "query" query: Option<Spanned<bool>>,
    }
    check AccessLog::check;
}

impl AccessLog {
    fn check(&self, cx: &mut Decoder<'_>) {
        if let Some(path) = &self.path
            && path.is_empty()
        {
            let diag = cx
                .error(Rule::BadValue, path.span, "the path is empty")
                .fix("write the path of a file, or leave it out for standard output");
            cx.push(diag);
        }
    }
}

choice! {
    /// The form of the lines of the access log.
    pub enum AccessLogFormat as "access log format" {
        /// One JSON object.
        Json = "json",
        /// The combined format of Apache httpd and nginx.
        Combined = "combined",
    }
}

object! {
    /// How much a client may send and hold.
    pub struct Limits as "limits" {
        /// Connections at a time, over all listeners and workers. Default: 100000.
        "connections" connections: Option<Spanned<Whole<1, 10000000>>>,
        /// Connections of one client address at a time (of IPv6: its /64 network); more are closed at once. Those of
        /// trusted proxies are not counted. Default: no limit.
        "connectionsPerAddress" connections_per_address: Option<Spanned<Whole<1, 10000000>>>,
        /// Request line and fields together; more is answered with 431. Default: 64Ki.
        "headerBytes" header_bytes: Option<Spanned<ByteSize>>,
        /// Fields of a request; more are answered with 431. Default: 100.
        "headers" headers: Option<Spanned<Whole<1, 10000>>>,
        /// Path and query; more is answered with 414. Default: 16Ki.
        "uriBytes" uri_bytes: Option<Spanned<ByteSize>>,
        /// Content of a request; more is answered with 413. Default: no limit.
        "bodyBytes" body_bytes: Option<Spanned<ByteSize>>,
        /// Streams of one HTTP/2 connection at a time. Default: 100.
        "concurrentStreams" concurrent_streams: Option<Spanned<Whole<1, 10000>>>,
        /// Requests on one connection, which is closed then. Default: no limit.
        "requestsPerConnection" requests_per_connection: Option<Spanned<Whole<1, 1000000000>>>,
    }
    check Limits::check;
}

/// The least that [`Limits::header_bytes`] and [`Limits::uri_bytes`] can be: below, ordinary browsers fail.
const SMALLEST_HEADER_BYTES: u64 = 1024;

/// The most that [`Limits::header_bytes`] and [`Limits::uri_bytes`] can be: a head is held in memory as a whole.
const LARGEST_HEADER_BYTES: u64 = 1 << 20;

impl Limits {
    fn check(&self, cx: &mut Decoder<'_>) {
        for size in [&self.header_bytes, &self.uri_bytes].into_iter().flatten() {
            if !(SMALLEST_HEADER_BYTES..=LARGEST_HEADER_BYTES).contains(&size.get()) {
                let diag = cx
                    .error(Rule::OutOfRange, size.span, format!("{} bytes are out of range", size.get()))
                    .why("allowed: 1Ki to 1Mi");
                cx.push(diag);
            }
        }
    }
}

object! {
    /// How long a client may take.
    pub struct ClientTimeouts as "timeouts" {
        /// From the first byte of a request to the end of its fields; 408 then. Default: 10s.
        "requestHeader" request_header: Option<Spanned<Duration>>,
        /// From the first byte of a request to the end of its content; 408 then. Default: no limit.
        "requestBody" request_body: Option<Spanned<Duration>>,
        /// Between two requests of a connection, which is closed then. Default: 75s.
        "idle" idle: Option<Spanned<Duration>>,
        /// For a TLS handshake. Default: 10s.
        "handshake" handshake: Option<Spanned<Duration>>,
        /// For running requests when the process stops. Default: 30s.
        "drain" drain: Option<Spanned<Duration>>,
        /// How long connections are still taken after `/readyz` turned to 503, so that load balancers can notice.
        /// Default: 0s.
        "drainDelay" drain_delay: Option<Spanned<Duration>>,
    }
}

object! {
    /// What is done to paths before they are matched and forwarded.
    pub struct Paths as "paths" {
        /// Resolve `.` and `..`, decode what needs no escape (RFC 3986 §6.2.2), merge slashes. Default: yes.
        "normalize" normalize: Option<Spanned<bool>>,
        /// What happens to requests with `%2F` or `%5C` in the path. Default: keep.
        "escapedSlashes" escaped_slashes: Option<Spanned<EscapedSlashes>>,
    }
}

choice! {
    /// What happens to escaped slashes in a path.
    pub enum EscapedSlashes as "value of `escapedSlashes`" {
        /// They stay as they are and match no `/`.
        Keep = "keep",
        /// The request is answered with 400.
        Reject = "reject",
    }
}
