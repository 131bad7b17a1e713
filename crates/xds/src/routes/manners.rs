//! What is said about time and repetition of calls.

use std::time::Duration;

use rhumb_base::unit::parse_duration;
use rhumb_model::Doc;
use rhumb_model::kind::policy::Policy;
use rhumb_policy::retry::{self, DEFAULT_ATTEMPTS, GrpcCode};
use rhumb_policy::timeouts;
use serde_json::Value;

use crate::bundle::Why;
use crate::offer::refusal;
use crate::wire::{
    Action, ClusterSpecifier, Flag, MaxStreamDuration, Number, RetryBackOff, RetryPolicy, RouteAction,
};

/// How much longer than the first the longest wait before a retry is, when nothing is written.
const BACK_OFF_FACTOR: u32 = 10;

/// True for kinds of policies that a gRPC client obeys itself. Spans of `tracing` are the application's own.
pub(crate) fn can_obey(kind: &str) -> bool {
    matches!(kind, "timeouts" | "retry" | "tracing")
}

/// What rules say about time and repetition.
#[derive(Clone, Default)]
pub(super) struct Manners {
    limits: [Option<Duration>; 2],
    retry: Option<RetryPolicy>,
}

impl Manners {
    /// With a Policy that is attached to the Service: its other parts are enforced there.
    pub(super) fn with(mut self, doc: &Doc, policy: &Policy) -> Result<Self, Why> {
        for (kind, body) in &policy.policies.entries {
            self = self.one(doc, &kind.value, &body.to_json())?;
        }
        Ok(self)
    }

    /// With a Policy that the client alone would have to enforce.
    pub(super) fn with_all(self, doc: &Doc, policy: &Policy) -> Result<Self, Why> {
        match policy.policies.entries.iter().find(|(kind, _)| !can_obey(kind)) {
            Some((kind, _)) => Err(refusal(kind, doc, "this route")),
            None => self.with(doc, policy),
        }
    }

    fn one(mut self, doc: &Doc, kind: &str, body: &Value) -> Result<Self, Why> {
        let cannot = |what: &str| refusal(&format!("{kind}.{what}"), doc, "it");
        let unreadable = || refusal(kind, doc, "it");
        match kind {
            "timeouts" => {
                let spec: timeouts::Spec = serde_json::from_value(body.clone()).map_err(|_| unreadable())?;
                for (field, value) in [
                    ("backendRequest", &spec.backend_request),
                    ("connect", &spec.connect),
                    ("idle", &spec.idle),
                ] {
                    if value.is_some() {
                        return Err(cannot(field));
                    }
                }
                let read = |text: &Option<String>| text.as_deref().map(parse_duration).transpose();
                let request = read(&spec.request).map_err(|_| unreadable())?;
                let stream = read(&spec.stream).map_err(|_| unreadable())?;
                self.limits = [request.or(self.limits[0]), stream.or(self.limits[1])];
            }
            "retry" => {
                let spec: retry::Spec = serde_json::from_value(body.clone()).map_err(|_| unreadable())?;
                if spec.per_try_timeout.is_some() {
                    return Err(cannot("perTryTimeout"));
                }
                let read = |text: Option<&String>| text.map(|text| parse_duration(text)).transpose();
                let back_off = spec.back_off.as_ref();
                let base =
                    read(back_off.and_then(|written| written.base.as_ref())).map_err(|_| unreadable())?;
                let most =
                    read(back_off.and_then(|written| written.max.as_ref())).map_err(|_| unreadable())?;
                let attempts = spec.attempts.map(u32::from);
                self.retry = retry_policy(doc, &spec.grpc_codes, &spec.codes, attempts, base, most)?;
            }
            _ => {}
        }
        Ok(self)
    }

    /// With what the rule itself says, which goes first.
    pub(super) fn or_written(mut self, limit: Option<Duration>, retry: Option<RetryPolicy>) -> Self {
        self.limits[0] = limit.or(self.limits[0]);
        self.retry = retry.or(self.retry);
        self
    }

    pub(super) fn action(&self, cluster: Option<ClusterSpecifier>) -> Action {
        // Zero is no limit.
        let limit = self.limits.iter().flatten().filter(|limit| !limit.is_zero()).min();
        Action::Route(RouteAction {
            cluster,
            auto_host_rewrite: Some(Flag { value: true }),
            retry_policy: self.retry.clone(),
            max_stream_duration: limit
                .map(|limit| MaxStreamDuration { max_stream_duration: Some((*limit).into()) }),
        })
    }
}

/// When a call is repeated; never when no status is named, for what never left a client is repeated by itself.
pub(super) fn retry_policy(
    doc: &Doc,
    grpc: &[GrpcCode],
    http: &[u16],
    attempts: Option<u32>,
    base: Option<Duration>,
    most: Option<Duration>,
) -> Result<Option<RetryPolicy>, Why> {
    let mut words: Vec<&str> = Vec::new();
    for code in grpc {
        words.push(match code {
            GrpcCode::Cancelled => "cancelled",
            GrpcCode::DeadlineExceeded => "deadline-exceeded",
            GrpcCode::Internal => "internal",
            GrpcCode::ResourceExhausted => "resource-exhausted",
            GrpcCode::Unavailable => "unavailable",
            _ => return Err(refusal(&format!("a retry after {code:?}"), doc, "it")),
        });
    }
    for code in http {
        // What these are to a gRPC client (gRPC, "HTTP to gRPC Status Code Mapping").
        match code {
            429 | 502 | 503 | 504 => words.push("unavailable"),
            _ => return Err(refusal(&format!("a retry after {code}"), doc, "it")),
        }
    }
    words.sort_unstable();
    words.dedup();
    let attempts = attempts.unwrap_or_else(|| DEFAULT_ATTEMPTS.into());
    if words.is_empty() || attempts == 0 {
        return Ok(None);
    }
    let base = base.unwrap_or(retry::DEFAULT_BACK_OFF_BASE).max(Duration::from_millis(1));
    let most = most.unwrap_or_else(|| base.saturating_mul(BACK_OFF_FACTOR)).max(base);
    let wait = RetryBackOff { base_interval: Some(base.into()), max_interval: Some(most.into()) };
    Ok(Some(RetryPolicy {
        retry_on: words.join(","),
        num_retries: Some(Number { value: attempts }),
        retry_back_off: Some(wait),
    }))
}
