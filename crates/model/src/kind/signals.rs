//! What is counted about requests, and for how long it is kept: the field `signals` of a ProxyConfig.

use super::consumer::SecretSource;
use crate::decode::{Decoder, List, choice, object};
use crate::diag::Rule;
use crate::scalar::{ByteSize, Duration, Name, SocketAddress};
use crate::span::Spanned;

object! {
    /// Golden signals: rate, errors and latency by route, caller and service, endpoint and consumer.
    pub struct Signals as "signals" {
        /// Whether they are counted. Default: yes.
        "enabled" enabled: Option<Spanned<bool>>,
        /// Most memory of what is counted at a time; beyond it, what is new is counted together as `other`. Default: 8Mi.
        "memory" memory: Option<Spanned<ByteSize>>,
        /// What was counted and what happened, of the last 24 hours, and usage by hour and day.
        "history" history: Option<History>,
        /// Whether it is found out from traffic which APIs there are. Default: yes.
        "apis" apis: Option<Spanned<bool>>,
        /// Whether metrics tell how long requests of each endpoint took: 13 series for each in classic histograms. Of callers and
        /// services they always do. Default: no.
        "endpointDurations" endpoint_durations: Option<Spanned<bool>>,
        /// All metrics go to a StatsD server too.
        "statsd" statsd: Option<Statsd>,
        /// Metrics and a log record of each exchange go to a collector of OpenTelemetry, with or without tracing.
        "otlp" otlp: Option<Otlp>,
    }
    check Signals::check;
}

/// The least that [`Signals::memory`] can be.
const SMALLEST_MEMORY: u64 = 64 << 10;

/// The most that [`Signals::memory`] can be.
const LARGEST_MEMORY: u64 = 1 << 30;

impl Signals {
    fn check(&self, cx: &mut Decoder<'_>) {
        if let Some(size) = &self.memory
            && !(SMALLEST_MEMORY..=LARGEST_MEMORY).contains(&size.get())
        {
            let diag = cx
                .error(Rule::OutOfRange, size.span, format!("{} bytes are out of range", size.get()))
                .why("allowed: 64Ki to 1Gi");
            cx.push(diag);
        }
    }
}

object! {
    /// A StatsD server, told with the tags of DogStatsD over UDP.
    pub struct Statsd as "statsd" {
        /// Its address.
        "address" address: Spanned<SocketAddress>,
        /// What stands before each name. Default: nothing.
        "prefix" prefix: Option<Spanned<Box<str>>>,
        /// How often it is told. Default: 10s.
        "every" every: Option<Spanned<Duration>>,
    }
    check Statsd::check;
}

impl Statsd {
    fn check(&self, cx: &mut Decoder<'_>) {
        if let Some(every) = &self.every
            && every.get() < std::time::Duration::from_secs(1)
        {
            let diag =
                cx.error(Rule::OutOfRange, every.span, "that is too often").why("allowed: 1s and more");
            cx.push(diag);
        }
        if let Some(prefix) = &self.prefix
            && !prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        {
            let diag = cx
                .error(Rule::BadValue, prefix.span, "the prefix has other characters than names")
                .why("allowed are letters, digits, `.`, `_` and `-`");
            cx.push(diag);
        }
    }
}

object! {
    /// A collector that takes OTLP.
    pub struct Otlp as "otlp" {
        /// Where it is: `http://HOST:4318`.
        "url" url: Spanned<Box<str>>,
        /// A Backend whose endpoints, TLS and limits are used. Default: the URL's host is looked up in DNS.
        "backend" backend: Option<Spanned<Name>>,
        /// How it is spoken to: http (default), or grpc, which needs `backend` with `protocol: h2c` or h2.
        "protocol" protocol: Option<Spanned<OtlpProtocol>>,
        /// Fields of each request: keys of hosted collectors.
        "headers" headers: List<OtlpHeader, 0, 16>,
        /// How long a request may take. Default: 10s.
        "timeout" timeout: Option<Spanned<Duration>>,
        /// `service.name`. Default: rhumb.
        "service" service: Option<Spanned<Box<str>>>,
        /// A log record of each exchange goes there. Default: no.
        "logs" logs: Option<Spanned<bool>>,
        /// The metrics of the process go there so often. Default: never.
        "metrics" metrics: Option<Spanned<Duration>>,
    }
    check Otlp::check;
}

object! {
    /// A field of requests to a collector.
    pub struct OtlpHeader as "a header" {
        /// Name.
        "name" name: Spanned<Box<str>>,
        /// Value; or `secretRef: {name: SECRET, key: KEY}`.
        "value" value: Spanned<SecretSource>,
    }
}

choice! {
    /// How a collector is spoken to.
    pub enum OtlpProtocol as "protocol of OTLP" {
        /// Protocol buffers in POST requests.
        Http = "http",
        /// gRPC.
        Grpc = "grpc",
    }
}

impl Otlp {
    /// It has fields whose values nobody should see: what shows it has to leave them out.
    pub fn has_keys(&self) -> bool {
        self.headers.iter().next().is_some()
    }

    fn check(&self, cx: &mut Decoder<'_>) {
        let has_logs = self.logs.as_ref().is_some_and(|logs| logs.value);
        if !has_logs && self.metrics.is_none() && !self.broken {
            let mut diag = cx
                .error(Rule::MissingField, self.span, "the collector is told nothing")
                .fix("add `metrics: 30s`, `logs: true`, or both");
            diag.secret = self.has_keys();
            cx.push(diag);
        }
    }
}

object! {
    /// What was counted, for as long as it is kept.
    pub struct History as "history" {
        /// Whether it is kept. Default: yes; in a sidecar only where it is written.
        "enabled" enabled: Option<Spanned<bool>>,
        /// A file that outlives the process. Default: `signals.redb` in the directory that systemd gives for state
        /// ($STATE_DIRECTORY), else memory.
        "path" path: Option<Spanned<Box<str>>>,
        /// Most that it takes; what is oldest goes first. Default: 64Mi in a file, 8Mi in memory.
        "size" size: Option<Spanned<ByteSize>>,
    }
    check History::check;
}

/// The least that [`History::size`] can be.
const SMALLEST_SIZE: u64 = 1 << 20;

/// The most that [`History::size`] can be.
const LARGEST_SIZE: u64 = 16 << 30;

impl History {
    fn check(&self, cx: &mut Decoder<'_>) {
        if let Some(path) = &self.path
            && path.is_empty()
        {
            let diag = cx
                .error(Rule::BadValue, path.span, "the path is empty")
                .fix("write the path of a file, or leave it out");
            cx.push(diag);
        }
        if let Some(size) = &self.size
            && !(SMALLEST_SIZE..=LARGEST_SIZE).contains(&size.get())
        {
            let diag = cx
                .error(Rule::OutOfRange, size.span, format!("{} bytes are out of range", size.get()))
                .why("allowed: 1Mi to 16Gi");
            cx.push(diag);
        }
    }
}
