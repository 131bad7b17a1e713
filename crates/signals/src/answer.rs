//! What is answered: shapes of JSON for programs, dashboards and tables.

use rhumb_telemetry::signals::{Dimension, Name, OTHER, Outcome, Totals};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What signals are asked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum By {
    /// A route.
    Route,
    /// One rule of a route: `ROUTE TEMPLATE`.
    Rule,
    /// A backend.
    Backend,
    /// One address of a backend: `BACKEND ADDRESS`.
    Endpoint,
    /// A consumer.
    Consumer,
    /// A caller and a service: `SOURCE>TARGET`.
    Edge,
}

impl By {
    /// Every way to ask.
    pub const ALL: [Self; 6] =
        [Self::Route, Self::Rule, Self::Backend, Self::Endpoint, Self::Consumer, Self::Edge];

    /// The word of it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Rule => "rule",
            Self::Backend => "backend",
            Self::Endpoint => "endpoint",
            Self::Consumer => "consumer",
            Self::Edge => "edge",
        }
    }

    /// The way with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.as_str() == word)
    }

    pub(crate) const fn dimension(self) -> Dimension {
        match self {
            Self::Route | Self::Rule => Dimension::Route,
            Self::Backend | Self::Endpoint => Dimension::Endpoint,
            Self::Consumer => Dimension::Consumer,
            Self::Edge => Dimension::Edge,
        }
    }

    /// What a series is called that is asked for in this way.
    pub(crate) fn name(self, name: &Name) -> String {
        match self {
            _ if name.part(0) == OTHER && name.part(1) == OTHER => OTHER.to_owned(),
            Self::Route | Self::Rule if name.part(0).is_empty() => NO_ROUTE.to_owned(),
            Self::Route | Self::Backend | Self::Consumer => name.part(0).to_owned(),
            Self::Rule | Self::Endpoint => format!("{} {}", name.part(0), name.part(1)),
            Self::Edge => format!("{}>{}", name.part(0), name.part(1)),
        }
    }
}

/// The name of requests that no route took.
pub const NO_ROUTE: &str = "(no route)";

/// Rate, errors and latency over a time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Golden {
    /// Requests.
    pub requests: u64,
    /// Requests per second.
    pub requests_per_second: f64,
    /// Failures of backends and of the proxy, per second.
    pub errors_per_second: f64,
    /// Share of requests that failed so; none without requests.
    pub error_ratio: Option<f64>,
    /// Half of the requests were faster; none without requests.
    pub p50_ms: Option<f64>,
    /// 19 of 20 were faster.
    pub p95_ms: Option<f64>,
    /// 99 of 100 were faster.
    pub p99_ms: Option<f64>,
    /// Content of requests per second. Unit: bytes.
    pub bytes_in_per_second: f64,
    /// Content of responses per second. Unit: bytes.
    pub bytes_out_per_second: f64,
    /// Requests by how they ended.
    pub outcomes: Outcomes,
}

/// Requests by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // rhumb_telemetry::signals::Outcome has the words
pub struct Outcomes {
    pub ok: u64,
    pub client_error: u64,
    pub backend_error: u64,
    pub gateway_error: u64,
    pub client_gone: u64,
}

#[allow(clippy::cast_precision_loss)] // rates of more than 2^53 may be a little off
impl Golden {
    /// What these totals are over a time.
    pub fn of(totals: &Totals, seconds: f64) -> Self {
        let (count, errors) = (totals.count(), totals.errors());
        let per_second = |number: u64| per_second(number, seconds);
        let quantile = |share| totals.buckets.quantile(share).map(|seconds| round(seconds * 1000.0));
        let outcome = |outcome: Outcome| totals.outcomes[outcome as usize];
        Self {
            requests: count,
            requests_per_second: per_second(count),
            errors_per_second: per_second(errors),
            error_ratio: (count > 0).then(|| round(errors as f64 / count as f64)),
            p50_ms: quantile(0.5),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
            bytes_in_per_second: per_second(totals.bytes_in),
            bytes_out_per_second: per_second(totals.bytes_out),
            outcomes: Outcomes {
                ok: outcome(Outcome::Ok),
                client_error: outcome(Outcome::ClientError),
                backend_error: outcome(Outcome::BackendError),
                gateway_error: outcome(Outcome::GatewayError),
                client_gone: outcome(Outcome::ClientGone),
            },
        }
    }
}

#[allow(clippy::cast_precision_loss)] // rates of more than 2^53 may be a little off
fn per_second(number: u64, seconds: f64) -> f64 {
    round(number as f64 / seconds.max(f64::MIN_POSITIVE))
}

/// Four digits behind the point are more than anybody reads.
pub(crate) fn round(number: f64) -> f64 {
    (number * 10_000.0).round() / 10_000.0
}

/// All requests of the process, lately.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Now {
    /// When. Unit: seconds since 1970.
    pub at: f64,
    /// Over how long.
    pub window_seconds: f64,
    /// What it was.
    #[serde(flatten)]
    pub golden: Golden,
}

/// Who has the most, lately.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Top {
    /// When. Unit: seconds since 1970.
    pub at: f64,
    /// What items are.
    pub by: By,
    /// Over how long.
    pub window_seconds: f64,
    /// The items, the most first.
    pub items: Vec<Item>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// What it is called.
    pub name: String,
    /// What it had.
    #[serde(flatten)]
    pub golden: Golden,
    /// Of an edge: connections that are carried as they are; absent when there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
}

impl Item {
    fn opened(&self) -> u64 {
        self.connections.as_ref().map_or(0, |connections| connections.opened)
    }
}

/// What items are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Requests.
    #[default]
    Requests,
    /// Failures.
    Errors,
    /// The 99th percentile.
    P99,
    /// The name, from A.
    Name,
}

impl Sort {
    /// The order with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "requests" => Self::Requests,
            "errors" => Self::Errors,
            "p99" => Self::P99,
            "name" => Self::Name,
            _ => return None,
        })
    }

    /// Brings items into this order.
    pub fn apply(self, items: &mut [Item]) {
        items.sort_by(|a, b| {
            let (x, y) = (&a.golden, &b.golden);
            let order = match self {
                Self::Requests => y.requests.cmp(&x.requests).then_with(|| b.opened().cmp(&a.opened())),
                Self::Errors => y.errors_per_second.total_cmp(&x.errors_per_second),
                Self::P99 => y.p99_ms.unwrap_or(0.0).total_cmp(&x.p99_ms.unwrap_or(0.0)),
                Self::Name => std::cmp::Ordering::Equal,
            };
            order.then_with(|| a.name.cmp(&b.name))
        });
    }
}

/// Who called whom.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Edges {
    /// The end of the time that was looked at. Unit: seconds since 1970.
    pub at: f64,
    /// Over how long.
    pub window_seconds: f64,
    /// The edges, by source and target.
    pub edges: Vec<Edge>,
}

/// A caller and a service.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// Who calls: `NAMESPACE/ACCOUNT`, `gateway`, or `unknown`.
    pub source: String,
    /// What is called: the backend, of a service `NAMESPACE/NAME:PORT`.
    pub target: String,
    /// Every request and connection went over mutual TLS of the mesh.
    pub mtls: bool,
    /// Requests that it had.
    #[serde(flatten)]
    pub golden: Golden,
    /// Connections that it had and that are carried as they are; absent when there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
}

/// Connections of a caller with a service, and sessions of datagrams.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connections {
    /// Those that began.
    pub opened: u64,
    /// Those that began, per second.
    pub opened_per_second: f64,
    /// Those that are open; absent of times that have passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<u64>,
    /// Failures of backends and of the proxy.
    pub failed: u64,
    /// Bytes from callers per second, of open ones too.
    pub bytes_in_per_second: f64,
    /// Bytes to callers per second.
    pub bytes_out_per_second: f64,
    /// Half of those that have ended lived shorter; none when none has. Told up to 90 s.
    pub p50_ms: Option<f64>,
    /// 99 of 100 lived shorter.
    pub p99_ms: Option<f64>,
    /// Those that have ended, by how.
    pub outcomes: Outcomes,
}

impl Connections {
    /// What these totals are over a time.
    pub fn of(totals: &Totals, seconds: f64) -> Self {
        let golden = Golden::of(totals, seconds);
        Self {
            opened: totals.opened,
            opened_per_second: per_second(totals.opened, seconds),
            open: None,
            failed: totals.errors(),
            bytes_in_per_second: golden.bytes_in_per_second,
            bytes_out_per_second: golden.bytes_out_per_second,
            p50_ms: golden.p50_ms,
            p99_ms: golden.p99_ms,
            outcomes: golden.outcomes,
        }
    }
}

/// What came when: one number per time in each column.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// What was asked for.
    pub by: By,
    /// One of them; absent: all together.
    pub name: Option<String>,
    /// The beginning of the first step. Unit: seconds since 1970.
    pub from: u64,
    /// The end of the last step. Unit: seconds since 1970.
    pub to: u64,
    /// How long a step is. Unit: seconds. Not less than what is kept: 10 s of the last hours, then 60.
    pub step: u64,
    /// When steps begin.
    pub at: Vec<u64>,
    /// Columns.
    pub requests_per_second: Vec<f64>,
    /// Failures of backends and of the proxy.
    pub errors_per_second: Vec<f64>,
    /// Refusals and mistakes of clients.
    pub client_errors_per_second: Vec<f64>,
    /// None where there were no requests.
    pub p50_ms: Vec<Option<f64>>,
    /// None where there were no requests.
    pub p95_ms: Vec<Option<f64>>,
    /// None where there were no requests.
    pub p99_ms: Vec<Option<f64>>,
    /// Content of requests.
    pub bytes_in_per_second: Vec<f64>,
    /// Content of responses.
    pub bytes_out_per_second: Vec<f64>,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// Nothing is wrong.
    #[default]
    Info,
    /// Somebody may want to look.
    Warning,
    /// Somebody has to look.
    Error,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When. Unit: seconds since 1970.
    pub at: f64,
    /// What, as a word that stays: `configuration_applied`.
    pub kind: String,
    /// How bad it is.
    pub level: Level,
    /// What it is about: the name of a backend, a certificate; empty: the process.
    pub about: String,
    /// One sentence.
    pub text: String,
    /// The proxy that it happened in, where this is a control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

/// What happened, the latest first.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Events {
    /// The events.
    pub events: Vec<Event>,
}
