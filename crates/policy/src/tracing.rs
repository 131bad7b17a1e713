//! Which exchanges are traced, and where their spans go: a setting, obeyed where requests are served.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rhumb_codec::field::{FieldName, FieldValue};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::{Context, Remote, SecretValue};
use crate::exchange::Share;
use crate::header_modifier::read_name;
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge};
use crate::quantity;

/// Traces exchanges: spans of the exchange, of each attempt at a backend and of what policies waited for go to an
/// OpenTelemetry collector. What is nearer to a rule overrules field by field what is further away. Without any such
/// policy trace context passes through unchanged.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// The collector. Without one here or further away nothing is sent; trace context is written all the same.
    #[serde(default)]
    pub otlp: Option<OtlpSpec>,
    /// How many of the traces that begin here are sampled. **Unit**: percent, 0 to 100, at most four decimal places.
    /// Default: 1.
    #[serde(default)]
    pub percentage: Option<f64>,
    /// Whether sampled is what was sampled by the trusted proxy in front that a request comes from. Trace context of
    /// others never counts. Default: trusted.
    #[serde(default)]
    pub follow: Option<Follow>,
    /// Exchanges that fail (5xx, or a failure of ours) are told even if they were not sampled. Default: true.
    #[serde(default)]
    pub errors: Option<bool>,
    /// Exchanges that take longer are told even if they were not sampled. Default: none are.
    #[serde(default)]
    pub slower_than: Option<String>,
    /// The forms in which trace context is read, the first that is there, and written, all of them. Default: w3c.
    #[serde(default)]
    pub propagation: Option<Vec<Propagation>>,
    /// Keys of W3C `baggage` whose values are told as `baggage.KEY`, in spans and in the access log; at most 16. Baggage itself
    /// passes through whatever is written here. Default: none.
    #[serde(default)]
    pub baggage: Option<Vec<String>>,
}

/// A collector that takes OTLP.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OtlpSpec {
    /// Where it is: `http://HOST:4318/v1/traces`, for gRPC `http://HOST:4317`.
    pub url: String,
    /// A Backend whose endpoints, TLS and limits are used. Default: the URL's host is looked up in DNS.
    #[serde(default)]
    pub backend: Option<String>,
    /// How it is spoken to. Default: http (protobuf in POST). `grpc` needs `backend`, with `protocol: h2c` or h2.
    #[serde(default)]
    pub protocol: Option<OtlpProtocol>,
    /// Fields of each request: keys of hosted collectors.
    #[serde(default)]
    pub headers: Vec<OtlpHeader>,
    /// How long a request may take. Default: 10s.
    #[serde(default)]
    pub timeout: Option<String>,
    /// `service.name` of the spans. Default: rhumb.
    #[serde(default)]
    pub service: Option<String>,
    /// A log record of each exchange goes there too, sampled or not. Default: false.
    #[serde(default)]
    pub logs: Option<bool>,
    /// The metrics of the process go there too, so often. Default: never.
    #[serde(default)]
    pub metrics: Option<String>,
}

/// A field of requests to a collector.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtlpHeader {
    /// Name.
    pub name: String,
    /// Value.
    pub value: SecretValue,
}

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum OtlpProtocol {
    /// Protocol buffers in POST requests.
    #[default]
    Http,
    /// gRPC.
    Grpc,
}

/// Whose decision about sampling is followed.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Follow {
    /// That of trusted proxies.
    #[default]
    Trusted,
    /// Nobody's: the share is taken of every request.
    Never,
}

/// A form of trace context.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// `traceparent` and `tracestate` (W3C Trace Context).
    W3c,
    /// The one field `b3`.
    B3,
    /// `X-B3-TraceId`, `X-B3-SpanId` and `X-B3-Sampled`.
    B3multi,
}

/// What is written about tracing; `None`: nothing is.
#[derive(Clone, Debug, Default)]
pub struct Tracing {
    /// The collector.
    pub collector: Option<Arc<Collector>>,
    /// Share of the traces that begin here.
    pub share: Option<Share>,
    /// Whose decision is followed.
    pub follow: Option<Follow>,
    /// Whether failed exchanges are told that were not sampled.
    pub errors: Option<bool>,
    /// Exchanges that take longer are told.
    pub slower_than: Option<Duration>,
    /// Forms of trace context.
    pub propagation: Option<Arc<[Propagation]>>,
    /// Keys of baggage that are told.
    pub baggage: Option<Arc<[Box<str>]>>,
}

/// Where spans go.
pub struct Collector {
    /// The service.
    pub to: Remote,
    /// Path with query.
    pub path: Box<str>,
    /// How it is spoken to.
    pub protocol: OtlpProtocol,
    /// Fields of each request.
    pub fields: Box<[(FieldName, FieldValue)]>,
    /// How long a request may take.
    pub timeout: Duration,
    /// `service.name`.
    pub service: Box<str>,
    /// It gets a log record of each exchange.
    pub logs: bool,
    /// It gets the metrics of the process so often.
    pub metrics: Option<Duration>,
}

/// What a collector is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// Spans.
    Spans,
    /// Log records.
    Logs,
    /// Metrics.
    Metrics,
}

impl Collector {
    /// The path that takes it.
    pub fn path_of(&self, what: Telling) -> String {
        let (word, service) = match what {
            Telling::Spans => return self.path.to_string(),
            Telling::Logs => ("/v1/logs", GRPC_LOGS),
            Telling::Metrics => ("/v1/metrics", GRPC_METRICS),
        };
        match self.protocol {
            OtlpProtocol::Grpc => service.to_owned(),
            OtlpProtocol::Http => self.path.replacen(HTTP_PATH, word, 1),
        }
    }
}

impl PartialEq for Collector {
    fn eq(&self, other: &Self) -> bool {
        let all = |it: &Self| {
            (
                it.to.backend.clone(),
                it.to.authority.clone(),
                it.path.clone(),
                it.protocol,
                it.timeout,
                it.service.clone(),
                (it.logs, it.metrics),
            )
        };
        let fields = |it: &Self| -> Vec<(Vec<u8>, Vec<u8>)> {
            it.fields
                .iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect()
        };
        all(self) == all(other) && fields(self) == fields(other)
    }
}

// Fields may hold keys.
impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector")
            .field("to", &self.to.backend)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Default of [`Tracing::share`]. Unit: percent.
pub const DEFAULT_PERCENTAGE: f64 = 1.0;

/// Default of [`Collector::timeout`].
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Most fields that requests to a collector have of the configuration.
pub const HEADERS_LIMIT: usize = 16;

/// Most keys of baggage that are told.
pub const BAGGAGE_LIMIT: usize = 16;

/// What stands for spans in the path of a collector.
const HTTP_PATH: &str = "/v1/traces";

/// The paths of the services that take logs and metrics over gRPC.
const GRPC_LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const GRPC_METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// Metrics are told at most so often.
const LEAST_EVERY: Duration = Duration::from_secs(1);

/// The path of the service that takes spans over gRPC.
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

impl Tracing {
    /// These, and those of `other` where nothing is written here.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            collector: self.collector.clone().or_else(|| other.collector.clone()),
            share: self.share.or(other.share),
            follow: self.follow.or(other.follow),
            errors: self.errors.or(other.errors),
            slower_than: self.slower_than.or(other.slower_than),
            propagation: self.propagation.clone().or_else(|| other.propagation.clone()),
            baggage: self.baggage.clone().or_else(|| other.baggage.clone()),
        }
    }

    /// Whether exchanges that were not sampled may be told at their end.
    pub fn looks_back(&self) -> bool {
        self.collector.is_some() && (self.errors != Some(false) || self.slower_than.is_some())
    }

    /// True when an exchange that was not sampled is to be told.
    pub fn wants(&self, is_error: bool, took: Duration) -> bool {
        is_error && self.errors != Some(false) || self.slower_than.is_some_and(|limit| took > limit)
    }

    /// The forms of trace context.
    pub fn propagation(&self) -> &[Propagation] {
        self.propagation.as_deref().unwrap_or(&[Propagation::W3c])
    }
}

impl HttpPolicy for Tracing {
    const KIND: &'static str = "tracing";
    const HOOKS: Hooks = Hooks::NONE;
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::Union;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        let share = spec.percentage.map(|percentage| {
            Share::percent(percentage).ok_or_else(|| {
                let why = format!("{percentage} is not a percentage");
                Invalid::new(
                    "percentage",
                    why,
                    "write a number from 0 to 100 with at most four decimal places",
                )
            })
        });
        if spec.propagation.as_ref().is_some_and(Vec::is_empty) {
            return Err(Invalid::new("propagation", "is empty", "write `[w3c]`, or leave it out"));
        }
        Ok(Self {
            collector: spec.otlp.map(|otlp| collector(&otlp, cx)).transpose()?.map(Arc::new),
            share: share.transpose()?,
            follow: spec.follow,
            errors: spec.errors,
            slower_than: quantity::positive("slowerThan", spec.slower_than.as_deref())?,
            propagation: spec.propagation.map(Into::into),
            baggage: spec.baggage.as_deref().map(baggage).transpose()?,
        })
    }
}

/// Keys of baggage: tokens (W3C Baggage §3.3.1.2).
fn baggage(keys: &[String]) -> Result<Arc<[Box<str>]>, Invalid> {
    if keys.len() > BAGGAGE_LIMIT {
        let why = format!("has {} keys, allowed are {BAGGAGE_LIMIT}", keys.len());
        return Err(Invalid::new("baggage", why, "leave out those that nobody looks for"));
    }
    for (at, key) in keys.iter().enumerate() {
        let is_token = !key.is_empty()
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        if !is_token {
            let why = format!("`{key}` is no key of baggage");
            return Err(Invalid::new(
                format!("baggage[{at}]"),
                why,
                "write letters, digits, `-`, `_` and `.`",
            ));
        }
    }
    Ok(keys.iter().map(|key| key.as_str().into()).collect())
}

/// A collector that is told of metrics and exchanges without any policy.
///
/// # Errors
/// What is wrong with it; fields begin with `otlp.`.
pub fn exporter(spec: &OtlpSpec, cx: &mut Context<'_>) -> Result<Collector, Invalid> {
    let url =
        match spec.url.split_once("://").map(|(_, rest)| rest.split_once('/').map_or("", |(_, path)| path)) {
            // The paths of OTLP are what they are.
            Some("") => format!("{}{HTTP_PATH}", spec.url.trim_end_matches('/')),
            _ => spec.url.clone(),
        };
    collector(&OtlpSpec { url, ..spec.clone() }, cx)
}

fn collector(spec: &OtlpSpec, cx: &mut Context<'_>) -> Result<Collector, Invalid> {
    let protocol = spec.protocol.unwrap_or_default();
    if protocol == OtlpProtocol::Grpc && spec.backend.is_none() {
        let why = "gRPC needs HTTP/2, which a URL does not say";
        let fix = "write a Backend with `protocol: h2c` (or h2 with TLS), and its name in `backend`";
        return Err(Invalid::new("otlp.protocol", why, fix));
    }
    let (to, path) = cx.url("otlp.url", &spec.url, spec.backend.as_deref())?;
    if spec.headers.len() > HEADERS_LIMIT {
        let why = format!("{} fields, allowed are {HEADERS_LIMIT}", spec.headers.len());
        return Err(Invalid::new("otlp.headers", why, ""));
    }
    let mut fields = Vec::with_capacity(spec.headers.len());
    for (at, header) in spec.headers.iter().enumerate() {
        let name = read_name(&format!("otlp.headers[{at}].name"), &header.name)?;
        let field = format!("otlp.headers[{at}].value");
        let value = cx.secret(&field, &header.value)?;
        let value = FieldValue::parse(value.trim_ascii())
            .map_err(|_| Invalid::new(field, "is no value of a field", "remove line breaks"))?;
        fields.push((name, value));
    }
    let metrics = quantity::positive("otlp.metrics", spec.metrics.as_deref())?;
    if metrics.is_some_and(|every| every < LEAST_EVERY) {
        return Err(Invalid::new("otlp.metrics", "is too often", "write `1s` or more"));
    }
    if (spec.logs == Some(true) || metrics.is_some())
        && protocol == OtlpProtocol::Http
        && !path.contains(HTTP_PATH)
    {
        let why = "has no `/v1/traces`, in whose place `/v1/logs` and `/v1/metrics` are";
        return Err(Invalid::new("otlp.url", why, "write `http://HOST:4318/v1/traces`"));
    }
    Ok(Collector {
        to,
        path: if protocol == OtlpProtocol::Grpc { GRPC_PATH.into() } else { path },
        protocol,
        fields: fields.into(),
        timeout: quantity::positive("otlp.timeout", spec.timeout.as_deref())?.unwrap_or(DEFAULT_TIMEOUT),
        service: spec.service.as_deref().unwrap_or("rhumb").into(),
        logs: spec.logs.unwrap_or(false),
        metrics,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use serde_json::{Value, json};

    fn compile(body: Value) -> Result<Tracing, String> {
        let spec = serde_json::from_value(body).map_err(|error| error.to_string())?;
        compile_alone::<Tracing>(spec).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn what_is_nearer_overrules_field_by_field() {
        let far = compile(json!({ "otlp": { "url": "http://collector:4318/v1/traces" }, "percentage": 0.5 }))
            .unwrap();
        let near = compile(json!({ "percentage": 100, "errors": false })).unwrap();
        let both = near.or(&far);
        let collector = both.collector.as_ref().unwrap();
        assert_eq!(
            (&*collector.path, &*collector.service, collector.timeout),
            ("/v1/traces", "rhumb", DEFAULT_TIMEOUT)
        );
        assert_eq!(both.share, Share::percent(100.0));
        assert!(!both.looks_back() && far.looks_back());
        assert!(far.wants(true, Duration::ZERO) && !far.wants(false, Duration::from_secs(9)));
        let slow = compile(json!({ "slowerThan": "1s" })).unwrap();
        assert!(slow.wants(false, Duration::from_secs(2)) && !slow.wants(false, Duration::from_secs(1)));
    }

    #[test]
    fn mistakes_are_refused_with_their_field() {
        for (body, field) in [
            (json!({ "percentage": 101 }), "percentage"),
            (json!({ "propagation": [] }), "propagation"),
            (json!({ "baggage": ["a b"] }), "baggage[0]"),
            (json!({ "baggage": vec!["a"; 17] }), "baggage"),
            (json!({ "slowerThan": "0s" }), "slowerThan"),
            (json!({ "otlp": { "url": "collector:4318" } }), "otlp.url"),
            (json!({ "otlp": { "url": "http://c", "protocol": "grpc" } }), "otlp.protocol"),
            (json!({ "otlp": { "url": "http://c/x", "logs": true } }), "otlp.url"),
            (json!({ "otlp": { "url": "http://c/v1/traces", "metrics": "10ms" } }), "otlp.metrics"),
            (
                json!({ "otlp": { "url": "http://c", "headers": [{ "name": "a b", "value": "x" }] } }),
                "otlp.headers[0].name",
            ),
            (
                json!({ "otlp": { "url": "http://c", "headers": [{ "name": "a", "value": "x\ny" }] } }),
                "otlp.headers[0].value",
            ),
        ] {
            let error = compile(body.clone()).err().unwrap_or_default();
            assert!(error.contains(field), "{body}: {error}");
        }
    }

    #[test]
    fn keys_of_collectors_are_not_shown() {
        let body =
            json!({ "otlp": { "url": "http://c", "headers": [{ "name": "api-key", "value": "hush" }] } });
        assert!(!format!("{:?}", compile(body).unwrap()).contains("hush"));
    }
}
