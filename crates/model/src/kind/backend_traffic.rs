//! XBackendTrafficPolicy: retry budgets of backends, and sessions that stay at one endpoint (GEP-3388, GEP-1619).

use super::refs::check_unique;
use crate::decode::{Complaint, Decode, Decoder, Defs, List, Whole, choice, object};
use crate::diag::Rule;
use crate::scalar::{Duration, Group, KindName, Name};
use crate::span::Spanned;
use crate::value::Node;
use serde_json::json;

object! {
    /// What is done with the requests that go to some backends.
    pub struct BackendTrafficPolicy as "the spec of an XBackendTrafficPolicy" {
        /// The backends, in the namespace of the policy.
        "targetRefs" target_refs: List<BackendTrafficTarget, 1, 16>,
        /// How many of their requests may be retries.
        "retryConstraint" retry_constraint: Option<RetryConstraint>,
        /// Sends the requests of a session to one endpoint. `sessionPersistence` of a route's rule overrules it.
        "sessionPersistence" session_persistence: Option<SessionPersistence>,
    }
    check BackendTrafficPolicy::check;
}

impl BackendTrafficPolicy {
    fn check(&self, cx: &mut Decoder<'_>) {
        check_unique(
            &self.target_refs,
            "target",
            |t| ((t.kind.as_str(), t.name.as_str()), t.name.to_string(), t.name.span),
            cx,
        );
    }
}

object! {
    /// A backend, in the namespace of the policy.
    pub struct BackendTrafficTarget as "a targetRef" {
        /// Group of the backend: rhumb.dev for a Backend, empty for a Service.
        "group" group: Spanned<Group>,
        /// Backend or Service.
        "kind" kind: Spanned<KindName>,
        /// Name of the backend.
        "name" name: Spanned<Name>,
    }
}

object! {
    /// How many of a backend's requests may be retries: the larger of a share and a rate.
    pub struct RetryConstraint as "retryConstraint" {
        /// The share. Default: 20 % of the last 10s.
        "budget" budget: Option<RetryShare>,
        /// Retries that are allowed however few requests there are. Default: 10 in 1s.
        "minRetryRate" min_retry_rate: Option<RetryRate>,
    }
}

object! {
    /// The share of requests that may be retries.
    pub struct RetryShare as "budget" {
        /// Retries per hundred requests. Default: 20.
        "percent" percent: Option<Spanned<Whole<0, 100>>>,
        /// The time over which it is taken, up to 1h. Default: 10s.
        "interval" interval: Option<Spanned<Duration>>,
    }
    check RetryShare::check;
}

impl RetryShare {
    fn check(&self, cx: &mut Decoder<'_>) {
        check_interval(self.interval.as_ref(), cx);
    }
}

object! {
    /// Retries that are allowed in any case.
    pub struct RetryRate as "minRetryRate" {
        /// How many. Default: 10.
        "count" count: Option<Spanned<Whole<0, 1000000>>>,
        /// In which time, up to 1h. Default: 1s.
        "interval" interval: Option<Spanned<Duration>>,
    }
    check RetryRate::check;
}

impl RetryRate {
    fn check(&self, cx: &mut Decoder<'_>) {
        check_interval(self.interval.as_ref(), cx);
    }
}

fn check_interval(interval: Option<&Spanned<Duration>>, cx: &mut Decoder<'_>) {
    const LONGEST: std::time::Duration = std::time::Duration::from_secs(3600);
    if let Some(interval) = interval
        && (interval.get().is_zero() || interval.get() > LONGEST)
    {
        let diag = cx
            .error(Rule::OutOfRange, interval.span, "the interval has no usable length")
            .why("it is longer than nothing and at most 1h")
            .fix("write `10s`");
        cx.push(diag);
    }
}

object! {
    /// Sends the requests of a session to one endpoint (GEP-1619). The session is a token that the client sends back.
    pub struct SessionPersistence as "sessionPersistence" {
        /// Name of the cookie or field. Default: made of the name of the route or backend.
        "sessionName" session_name: Option<Spanned<SessionName>>,
        /// How long a session lasts at most. Default: without end. Needed for a Permanent cookie.
        "absoluteTimeout" absolute_timeout: Option<Spanned<Duration>>,
        /// How long a session lasts without requests. Default: without end.
        "idleTimeout" idle_timeout: Option<Spanned<Duration>>,
        /// Cookie (default) or Header.
        "type" kind: Spanned<SessionKind>,
        /// How browsers keep the cookie.
        "cookieConfig" cookie_config: Option<CookieConfig>,
    }
    check SessionPersistence::check;
}

impl SessionPersistence {
    fn check(&self, cx: &mut Decoder<'_>) {
        if let Some(cookie) = &self.cookie_config {
            if *self.kind == SessionKind::Header {
                let diag = cx
                    .error(Rule::Conflict, cookie.span, "`cookieConfig` with type `Header`")
                    .why("there is no cookie")
                    .fix("remove `cookieConfig`");
                cx.push(diag);
            }
            if *cookie.lifetime_type == LifetimeKind::Permanent && self.absolute_timeout.is_none() {
                let diag = cx
                    .error(
                        Rule::MissingField,
                        cookie.lifetime_type.span,
                        "field `absoluteTimeout` is missing",
                    )
                    .label("a permanent cookie needs `absoluteTimeout`")
                    .why("browsers have to be told how long they keep it (GEP-1619)")
                    .fix("add `absoluteTimeout: 24h`");
                cx.push(diag);
            }
        }
        for timeout in [&self.absolute_timeout, &self.idle_timeout].into_iter().flatten() {
            if timeout.get().as_secs() == 0 {
                let diag = cx
                    .error(Rule::OutOfRange, timeout.span, "a session shorter than a second")
                    .fix("leave it out for sessions without end");
                cx.push(diag);
            }
        }
    }
}

choice! {
    /// How a session is carried.
    pub enum SessionKind as "type of sessionPersistence" {
        /// In a cookie.
        Cookie = "Cookie",
        /// In a field of responses, which clients send back.
        Header = "Header",
    }
    default Cookie;
}

object! {
    /// How browsers keep the cookie of a session.
    pub struct CookieConfig as "cookieConfig" {
        /// Session (default): until the browser ends. Permanent: as long as `absoluteTimeout` says.
        "lifetimeType" lifetime_type: Spanned<LifetimeKind>,
    }
}

choice! {
    /// How long browsers keep a cookie.
    pub enum LifetimeKind as "lifetimeType" {
        /// Until the browser ends.
        Session = "Session",
        /// As long as the session lasts.
        Permanent = "Permanent",
    }
    default Session;
}

/// Name of a cookie or field: a token (RFC 9110 §5.6.2) of up to 128 characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionName(pub Box<str>);

/// Longest name of a session, in characters (GEP-1619).
const LONGEST_NAME: usize = 128;

impl Decode for SessionName {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        crate::decode::decode_text(node, "session name", cx, |text| {
            if text.len() > LONGEST_NAME || !crate::scalar::is_token(text) {
                return Err(Complaint::new(format!(
                    "the name of a session is 1 to {LONGEST_NAME} letters, digits and `!#$%&'*+-.^_`|~`"
                )));
            }
            Ok(Self(text.into()))
        })
    }
    fn schema(_: &mut Defs) -> serde_json::Value {
        json!({ "type": "string", "minLength": 1, "maxLength": LONGEST_NAME })
    }
}
