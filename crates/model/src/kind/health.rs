//! How it is found out which endpoints of a Backend are well.

use crate::decode::{Decode, Decoder, Defs, List, Whole, choice, object};
use crate::diag::Rule;
use crate::scalar::Duration;
use crate::span::Spanned;
use crate::value::{Node, Value};
use serde_json::json;

object! {
    /// Endpoints that fail requests while others do not are put out for a while, tried with single requests, and taken
    /// back bit by bit.
    pub struct OutlierDetection as "outlierDetection" {
        /// Whether requests are watched. Default: yes.
        "enabled" enabled: Option<Spanned<bool>>,
        /// Failed requests in a row (any 5xx, or no answer). 0: not looked at. Default: 5.
        "consecutive5xx" consecutive_5xx: Option<Spanned<Whole<0, 255>>>,
        /// 502, 503, 504 or no answer in a row. 0: not looked at. Default: 5.
        "consecutiveGatewayFailures" consecutive_gateway_failures: Option<Spanned<Whole<0, 255>>>,
        /// Refused, late, reset or broken attempts in a row. 0: not looked at. Default: 3.
        "consecutiveLocalFailures" consecutive_local_failures: Option<Spanned<Whole<0, 255>>>,
        /// Failures among the last ten requests, when endpoints that fail as often as its peers do would show so many only
        /// once in 100000 requests. 0: not looked at. Default: 3.
        "recentFailures" recent_failures: Option<Spanned<Whole<0, 10>>>,
        /// Failures among the requests of the window, in percent, when peers fail less than half as often. 0: not looked at.
        /// Default: 30.
        "failurePercentage" failure_percentage: Option<Spanned<Whole<0, 100>>>,
        /// Standard deviations, in thousandths, that a success rate may be below the mean of all. 0: not looked at.
        /// Default: 1900.
        "successRateFactor" success_rate_factor: Option<Spanned<Whole<0, 100000>>>,
        /// Requests of an endpoint within the window, from which percentage and success rate are looked at. Default: 50.
        "minRequests" min_requests: Option<Spanned<Whole<1, 1000000>>>,
        /// Endpoints with so many requests, from which success rates are compared. Default: 5.
        "minEndpoints" min_endpoints: Option<Spanned<Whole<2, 10000>>>,
        /// The time that percentage and success rate are about. Default: 10s.
        "window" window: Option<Spanned<Duration>>,
        /// The first time out; it doubles with each relapse. Default: 2s.
        "ejectionTime" ejection_time: Option<Spanned<Duration>>,
        /// The longest time out. Default: 5m.
        "maxEjectionTime" max_ejection_time: Option<Spanned<Duration>>,
        /// Endpoints that may be out at a time, in percent; one may, and never all. 0: none. Default: 50.
        "maxEjectedPercentage" max_ejected_percentage: Option<Spanned<Whole<0, 100>>>,
        /// Requests that have to succeed, one at a time, before an endpoint is taken back. Default: 3.
        "probeRequests" probe_requests: Option<Spanned<Whole<1, 100>>>,
        /// How long its share grows then, from a tenth to all of it. Default: 10s.
        "ramp" ramp: Option<Spanned<Duration>>,
    }
    check OutlierDetection::check;
}

impl OutlierDetection {
    fn check(&self, cx: &mut Decoder<'_>) {
        if let (Some(first), Some(longest)) = (&self.ejection_time, &self.max_ejection_time)
            && first.get() > longest.get()
        {
            let diag = cx
                .error(Rule::Conflict, first.span, "`ejectionTime` is longer than `maxEjectionTime`")
                .fix("make the first time out the shorter one")
                .related(cx.origin(longest.span), "the longest");
            cx.push(diag);
        }
    }
}

object! {
    /// How endpoints are asked whether they are well.
    pub struct HealthCheck as "health" {
        /// http (default), tcp or grpc.
        "type" kind: Spanned<CheckType>,
        /// What is asked for, by http. Default: /.
        "path" path: Option<Spanned<Box<str>>>,
        /// The authority of the request, by http and grpc. Default: the endpoint's address.
        "host" host: Option<Spanned<Box<str>>>,
        /// The method, by http. Default: GET.
        "method" method: Option<Spanned<Box<str>>>,
        /// Statuses that are well, by http: `200` or `200-299`. Default: 200-299.
        "statuses" statuses: List<Spanned<StatusRange>, 0, 32>,
        /// What is sent first, by tcp. Default: nothing.
        "send" send: Option<Spanned<Box<str>>>,
        /// What must come within the first 4096 bytes, by tcp. Default: nothing, connecting is enough.
        "expect" expect: Option<Spanned<Box<str>>>,
        /// The service that is asked about, by grpc. Default: none, all of it.
        "service" service: Option<Spanned<Box<str>>>,
        /// Time between two checks of an endpoint; a tenth more or less is drawn each time. Default: 5s.
        "interval" interval: Option<Spanned<Duration>>,
        /// How long a check may take, connecting included. Default: 2s.
        "timeout" timeout: Option<Spanned<Duration>>,
        /// Checks in a row that pass, until an endpoint that was not well is. The first check decides alone. Default: 2.
        "healthyThreshold" healthy_threshold: Option<Spanned<Whole<1, 100>>>,
        /// Checks in a row that do not, until one that was well is not. Default: 3.
        "unhealthyThreshold" unhealthy_threshold: Option<Spanned<Whole<1, 100>>>,
        /// Whether an endpoint is used before its first check has ended: healthy (default) or unhealthy.
        "initially" initially: Spanned<Initially>,
    }
    check HealthCheck::check;
}

choice! {
    /// How endpoints are asked.
    pub enum CheckType as "type of health check" {
        /// A request; its status tells.
        Http = "http",
        /// A connection, and what is said on it.
        Tcp = "tcp",
        /// The gRPC health checking protocol.
        Grpc = "grpc",
    }
    default Http;
}

choice! {
    /// Whether an endpoint is used before its first check has ended.
    pub enum Initially as "value of `initially`" {
        /// It is.
        Healthy = "healthy",
        /// It is not.
        Unhealthy = "unhealthy",
    }
    default Healthy;
}

impl HealthCheck {
    fn check(&self, cx: &mut Decoder<'_>) {
        use CheckType::{Grpc, Http, Tcp};
        let own = [
            ("path", self.path.as_ref().map(|field| field.span), &[Http][..]),
            ("method", self.method.as_ref().map(|field| field.span), &[Http]),
            ("statuses", self.statuses.first().map(|field| field.span), &[Http]),
            ("host", self.host.as_ref().map(|field| field.span), &[Http, Grpc]),
            ("send", self.send.as_ref().map(|field| field.span), &[Tcp]),
            ("expect", self.expect.as_ref().map(|field| field.span), &[Tcp]),
            ("service", self.service.as_ref().map(|field| field.span), &[Grpc]),
        ];
        for (name, span, kinds) in own {
            if let Some(span) = span
                && !kinds.contains(&self.kind)
            {
                let what = format!("`{name}` with a health check of type `{}`", self.kind.word());
                let words: Vec<_> = kinds.iter().map(|kind| format!("`type: {}`", kind.word())).collect();
                let diag = cx
                    .error(Rule::Conflict, span, what)
                    .why("it would have no effect")
                    .fix(format!("remove it, or write {}", words.join(" or ")));
                cx.push(diag);
            }
        }
        let path = self.path.as_ref().filter(|path| !is_path(path));
        let method = self.method.as_ref().filter(|method| !is_token(method));
        let host = self.host.as_ref().filter(|host| !is_host(host));
        for (written, why) in [
            (path, "a path begins with `/` and has no spaces"),
            (method, "a method is a word of letters (RFC 9110 §9.1)"),
            (host, "write a host name or an address, with a port if need be"),
        ] {
            if let Some(written) = written {
                let what = format!("`{}` cannot be asked for", written.value);
                let diag = cx.error(Rule::BadValue, written.span, what).why(why);
                cx.push(diag);
            }
        }
        if let Some(expect) = self.expect.as_ref().filter(|expect| expect.len() > MAX_EXPECT) {
            let diag = cx
                .error(Rule::OutOfRange, expect.span, format!("{} bytes are expected", expect.len()))
                .why(format!("allowed: up to {MAX_EXPECT}"));
            cx.push(diag);
        }
    }
}

/// The most that [`HealthCheck::expect`] can be: no more is read.
const MAX_EXPECT: usize = 4096;

fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

fn is_token(method: &str) -> bool {
    !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_host(host: &str) -> bool {
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    !host.is_empty() && host.bytes().all(is_host_byte)
}

/// A status, or those from one to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Decode for StatusRange {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let text = match &node.value {
            Value::Int(text) | Value::String(text) => &**text,
            _ => {
                cx.wrong_type(node, "a status or a range of them");
                return None;
            }
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status =
            |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..600).contains(status));
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Some(Self { first, last }),
            _ => {
                let diag = cx
                    .error(Rule::BadValue, node.span, format!("`{}` is not a status", node.shown()))
                    .why("write a status from 100 to 599, or a range such as `200-299`");
                cx.push(diag);
                None
            }
        }
    }
    fn schema(_: &mut Defs) -> serde_json::Value {
        json!({ "anyOf": [
            { "type": "integer", "minimum": 100, "maximum": 599 },
            { "type": "string", "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$" },
        ] })
    }
}
