//! Break a share of the requests on purpose, to see what their callers make of it.
//!
//! Sees the client's request, after everything that may refuse it for good. A request that is delayed may be aborted or
//! reset as well, each by its own share; delays count against the request timeout, as those of a slow backend do. A
//! fault is never retried and never blamed on an endpoint. Each is noted in the log and counted (`fault_delay`,
//! `fault_abort`, `fault_reset`, `fault_bandwidth` in `rhumb_notes_total`). Attached and not hit: one random number per
//! written fault.
//!
//! Connections that are carried as they are have the same faults but for `abort` and `match`, which are about requests:
//! [`Fault::on_connection`] decides once for each of them.

use std::num::NonZeroU64;
use std::time::Duration;

use rhumb_base::failure::Cause;
use rhumb_base::rng::Rng;
use rhumb_base::unit;
use rhumb_codec::field::Known;
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::condition::{self, Condition};
use crate::context::Context;
use crate::exchange::{Exchange, Reply, Share};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Outcome, Verdict};

/// The longest delay.
pub const MAX_DELAY: Duration = Duration::from_secs(600);

/// Breaks a share of the requests on purpose, or of the connections where these are carried as they are. Every part needs
/// its `percentage`: nothing happens that is not written.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Which requests. Default: all. Not for connections that are carried as they are.
    #[serde(default, rename = "match")]
    pub matches: Option<condition::Spec>,
    /// Let time pass before the request goes on; for a connection, before the one to the backend is opened.
    #[serde(default)]
    pub delay: Option<DelaySpec>,
    /// Answer instead of the backend. Not for connections that are carried as they are.
    #[serde(default)]
    pub abort: Option<AbortSpec>,
    /// Reset the stream (HTTP/2) or the connection (HTTP/1, TCP) instead of answering, or in the midst of it.
    #[serde(default)]
    pub reset: Option<ResetSpec>,
    /// Pass the content of the backend's response slowly; the bytes of a connection in both directions.
    #[serde(default)]
    pub bandwidth: Option<BandwidthSpec>,
}

/// A delay.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DelaySpec {
    /// How long: a duration such as 500ms or 2s, at most 600s.
    pub time: String,
    /// How many requests. **Unit**: percent, 0 to 100, at most four decimal places.
    pub percentage: f64,
}

/// An answer that no backend gave.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AbortSpec {
    /// HTTP status, 200 to 599. Default: the one that stands for `grpcStatus`.
    #[serde(default)]
    pub status: Option<u16>,
    /// Status for gRPC requests: a number from 1 to 16 or a name such as UNAVAILABLE. Default: the one that stands for
    /// `status`.
    #[serde(default)]
    pub grpc_status: Option<GrpcStatus>,
    /// How many requests. **Unit**: percent, 0 to 100, at most four decimal places.
    pub percentage: f64,
}

/// A gRPC status: a number or a name.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum GrpcStatus {
    /// 1 to 16.
    Number(u8),
    /// CANCELLED to UNAUTHENTICATED.
    Name(String),
}

/// A reset.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResetSpec {
    /// Not before so many bytes have passed: of the response's content, or of a connection in both directions together. A
    /// number with an optional unit, such as 64Ki. Default: nothing passes.
    #[serde(default)]
    pub after: Option<String>,
    /// How many requests. **Unit**: percent, 0 to 100, at most four decimal places.
    pub percentage: f64,
}

/// A narrow line.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BandwidthSpec {
    /// How fast content passes: bytes per second with an optional unit, such as 64Ki. At least 1.
    pub rate: String,
    /// How many responses. **Unit**: percent, 0 to 100, at most four decimal places.
    pub percentage: f64,
}

/// Compiled faults.
pub struct Fault(Box<Faults>);

struct Faults {
    condition: Condition,
    delay: Option<(Duration, Share)>,
    abort: Option<Abort>,
    reset: Option<Reset>,
    bandwidth: Option<(NonZeroU64, Share)>,
}

struct Reset {
    share: Share,
    /// Bytes that pass before.
    after: Option<NonZeroU64>,
}

/// What happens to a connection that is carried as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionFaults {
    /// Wait before the way to the backend is opened.
    pub delay: Option<Duration>,
    /// Reset it before anything has passed.
    pub resets: bool,
    /// Reset it once so many bytes have passed, of both directions together.
    pub reset_after: Option<NonZeroU64>,
    /// How fast each direction passes. **Unit**: bytes per second.
    pub bytes_per_second: Option<NonZeroU64>,
}

impl ConnectionFaults {
    /// Both at once: the longer wait, the slower line, the earlier reset.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let least = |a: Option<NonZeroU64>, b: Option<NonZeroU64>| a.into_iter().chain(b).min();
        Self {
            delay: self.delay.max(other.delay),
            resets: self.resets || other.resets,
            reset_after: least(self.reset_after, other.reset_after),
            bytes_per_second: least(self.bytes_per_second, other.bytes_per_second),
        }
    }
}

impl Fault {
    /// The part of it that is about requests, and means nothing for connections that are carried as they are.
    pub fn needs_requests(&self) -> Option<&'static str> {
        let Faults { condition, abort, .. } = &*self.0;
        match abort {
            Some(_) => Some("abort"),
            None => (!condition.is_empty()).then_some("match"),
        }
    }

    /// Decides about a connection that is carried as it is.
    pub fn on_connection(&self, rng: &mut Rng) -> ConnectionFaults {
        let Faults { condition, delay, abort: _, reset, bandwidth } = &*self.0;
        if !condition.is_empty() {
            return ConnectionFaults::default();
        }
        let delay = delay.and_then(|(time, share)| share.rolls(rng).then_some(time));
        let reset = reset.as_ref().filter(|reset| reset.share.rolls(rng));
        let bandwidth = bandwidth.and_then(|(rate, share)| share.rolls(rng).then_some(rate));
        ConnectionFaults {
            delay,
            resets: reset.is_some_and(|reset| reset.after.is_none()),
            reset_after: reset.and_then(|reset| reset.after),
            bytes_per_second: bandwidth,
        }
    }
}

struct Abort {
    status: u16,
    grpc: u8,
    share: Share,
}

/// Names of gRPC statuses by number, 0 first (gRPC "Status codes and their use").
const GRPC: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl HttpPolicy for Fault {
    const KIND: &'static str = "fault";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT.or(Attach::BACKEND).or(Attach::CONSUMER);
    const MERGE: Merge = Merge::Union;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        if spec.delay.is_none() && spec.abort.is_none() && spec.reset.is_none() && spec.bandwidth.is_none() {
            return Err(Invalid::new("", "names no fault", "add delay, abort, reset or bandwidth"));
        }
        let condition = match spec.matches {
            Some(matches) => Condition::compile("match", matches)?,
            None => Condition::default(),
        };
        let delay = spec.delay.map(|delay| {
            let time = unit::parse_duration(&delay.time)
                .map_err(|error| Invalid::new("delay.time", error.to_string(), ""))?;
            if time.is_zero() || time > MAX_DELAY {
                let why = format!("{} is not between 1ms and {}s", delay.time, MAX_DELAY.as_secs());
                return Err(Invalid::new("delay.time", why, ""));
            }
            Ok((time, share("delay.percentage", delay.percentage)?))
        });
        let bandwidth = spec.bandwidth.map(|bandwidth| {
            let rate = unit::parse_byte_size(&bandwidth.rate)
                .map_err(|error| Invalid::new("bandwidth.rate", error.to_string(), ""))?;
            let rate = NonZeroU64::new(rate).ok_or_else(|| {
                Invalid::new("bandwidth.rate", "0 would pass nothing, ever", "write at least 1")
            })?;
            Ok((rate, share("bandwidth.percentage", bandwidth.percentage)?))
        });
        Ok(Self(Box::new(Faults {
            condition,
            delay: delay.transpose()?,
            abort: spec.abort.map(Abort::compile).transpose()?,
            reset: spec.reset.map(Reset::compile).transpose()?,
            bandwidth: bandwidth.transpose()?,
        })))
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        let Faults { condition, delay, abort, reset, bandwidth } = &*self.0;
        if !condition.holds(req) {
            return Verdict::Continue;
        }
        let delay = delay.and_then(|(time, share)| cx.rolls(share).then_some(time));
        let abort = abort.as_ref().filter(|abort| cx.rolls(abort.share));
        let reset = reset.as_ref().filter(|reset| cx.rolls(reset.share));
        let resets = reset.is_some_and(|reset| reset.after.is_none());
        if let Some(after) = reset.and_then(|reset| reset.after) {
            let sooner = cx.effects.reset_after.map_or(after, |other| other.min(after));
            cx.effects.reset_after = Some(sooner);
        }
        if let Some((rate, share)) = *bandwidth
            && cx.rolls(share)
        {
            let slower = cx.effects.bytes_per_second.map_or(rate, |other| other.min(rate));
            cx.effects.bytes_per_second = Some(slower);
        }
        cx.effects.delayed |= delay.is_some();
        cx.effects.aborted |= abort.is_some();
        match (delay, abort) {
            (None, Some(abort)) => Verdict::Respond(abort.reply(req)),
            (None, None) if resets => Verdict::Reset,
            (None, None) => Verdict::Continue,
            (Some(time), Some(abort)) => Verdict::Delay(time, Outcome::Respond(abort.reply(req))),
            (Some(time), None) if resets => Verdict::Delay(time, Outcome::Reset),
            (Some(time), None) => Verdict::Delay(time, Outcome::Continue(Vec::new())),
        }
    }
}

impl Reset {
    fn compile(spec: ResetSpec) -> Result<Self, Invalid> {
        let after = spec.after.map(|written| {
            let bytes = unit::parse_byte_size(&written)
                .map_err(|error| Invalid::new("reset.after", error.to_string(), ""))?;
            NonZeroU64::new(bytes)
                .ok_or_else(|| Invalid::new("reset.after", "0 is what happens without it", "remove `after`"))
        });
        Ok(Self { share: share("reset.percentage", spec.percentage)?, after: after.transpose()? })
    }
}

impl Abort {
    fn compile(spec: AbortSpec) -> Result<Self, Invalid> {
        let status = spec.status;
        if status.is_some_and(|status| !(200..=599).contains(&status)) {
            return Err(Invalid::new("abort.status", "is not a final status code", "write 200 to 599"));
        }
        let grpc = match spec.grpc_status {
            None => None,
            Some(GrpcStatus::Number(number @ 1..=16)) => Some(number),
            Some(GrpcStatus::Name(name)) => {
                let names = (0u8..).zip(GRPC).skip(1);
                let found = names.filter(|(_, known)| *known == name).map(|(number, _)| number).next();
                let fix = || format!("write one of {}", GRPC.split_at(1).1.join(", "));
                let why = || format!("`{name}` is no gRPC status of a failure");
                Some(found.ok_or_else(|| Invalid::new("abort.grpcStatus", why(), fix()))?)
            }
            Some(GrpcStatus::Number(number)) => {
                let why = format!("{number} is no gRPC status of a failure");
                return Err(Invalid::new(
                    "abort.grpcStatus",
                    why,
                    "write 1 to 16 or a name such as UNAVAILABLE",
                ));
            }
        };
        let (status, grpc) = match (status, grpc) {
            (Some(status), Some(grpc)) => (status, grpc),
            (Some(status), None) => (status, grpc_of(status)),
            (None, Some(grpc)) => (status_of(grpc), grpc),
            (None, None) => {
                return Err(Invalid::new("abort", "says no status", "add status or grpcStatus"));
            }
        };
        Ok(Self { status, grpc, share: share("abort.percentage", spec.percentage)? })
    }

    fn reply(&self, req: &RequestHead) -> Box<Reply> {
        let mut reply = Reply::refuse(Cause::FaultInjected);
        let is_grpc =
            req.fields.get(Known::ContentType).is_some_and(|kind| kind.starts_with(b"application/grpc"));
        if is_grpc {
            // "Trailers-Only": a gRPC client reads its status from a response that is only a head.
            reply.head.status = 200;
            reply.fields().set(Known::ContentType, b"application/grpc");
            reply.fields().set(Known::GrpcStatus, self.grpc.to_string().as_bytes());
            reply.fields().set(Known::GrpcMessage, Cause::FaultInjected.facts().detail.as_bytes());
        } else {
            reply.head.status = self.status;
        }
        reply
    }
}

/// The gRPC status that a client makes of an HTTP status (gRPC "HTTP to gRPC status code mapping").
fn grpc_of(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// The HTTP status that stands for a gRPC status (google.rpc.Code).
fn status_of(grpc: u8) -> u16 {
    match grpc {
        3 | 9 | 11 => 400,
        16 => 401,
        7 => 403,
        5 => 404,
        6 | 10 => 409,
        8 => 429,
        12 => 501,
        14 => 503,
        4 => 504,
        _ => 500,
    }
}

fn share(field: &str, percentage: f64) -> Result<Share, Invalid> {
    Share::percent(percentage).ok_or_else(|| {
        let why = format!("{percentage} is not a percentage");
        Invalid::new(field, why, "write a number from 0 to 100 with at most four decimal places")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use rhumb_codec::head::Scheme;
    use serde_json::json;
    use std::cell::RefCell;

    fn fault(body: serde_json::Value) -> Result<Fault, Invalid> {
        serde_json::from_value(body)
            .map_err(|e| Invalid::new("", e.to_string(), ""))
            .and_then(compile_alone::<Fault>)
    }

    fn run(fault: &Fault, req: &mut RequestHead, rng: Option<&RefCell<Rng>>) -> (Verdict, crate::Effects) {
        let client = std::net::Ipv4Addr::LOCALHOST.into();
        let mut cx = Exchange { rng, ..Exchange::new(client, Scheme::Http, 80) };
        (fault.on_request(req, &mut (), &mut cx), cx.effects)
    }

    #[test]
    fn each_fault_happens_in_its_share_of_cases() {
        let fault = fault(json!({
            "delay": { "time": "1s", "percentage": 20 },
            "abort": { "status": 503, "percentage": 10 },
            "reset": { "percentage": 50 },
            "bandwidth": { "rate": "1Ki", "percentage": 0.5 },
        }))
        .unwrap();
        let rng = RefCell::new(Rng::new(3));
        let (mut delays, mut aborts, mut resets, mut slow) = (0, 0, 0, 0);
        for _ in 0..100_000 {
            let (verdict, effects) = run(&fault, &mut RequestHead::new(), Some(&rng));
            let then = match verdict {
                Verdict::Delay(time, then) => {
                    assert_eq!(time, Duration::from_secs(1));
                    delays += 1;
                    then
                }
                Verdict::Respond(reply) => Outcome::Respond(reply),
                Verdict::Reset => Outcome::Reset,
                _ => Outcome::Continue(Vec::new()),
            };
            match then {
                Outcome::Respond(reply) => {
                    assert_eq!(reply.head.status, 503);
                    aborts += 1;
                }
                Outcome::Reset => resets += 1,
                Outcome::Continue(_) | Outcome::Apply(_) => {}
            }
            slow += u32::from(effects.bytes_per_second.is_some());
        }
        assert!((19_300..20_700).contains(&delays), "{delays}");
        assert!((9_500..10_500).contains(&aborts), "{aborts}");
        // Half of those that were not aborted.
        assert!((44_200..45_800).contains(&resets), "{resets}");
        assert!((390..610).contains(&slow), "{slow}");
    }

    #[test]
    fn connections_have_each_fault_in_its_share_of_cases() {
        let slow = fault(json!({
            "delay": { "time": "1s", "percentage": 20 },
            "reset": { "percentage": 50, "after": "2Ki" },
            "bandwidth": { "rate": "1Ki", "percentage": 100 },
        }))
        .unwrap();
        let mut rng = Rng::new(3);
        let (mut delays, mut resets) = (0, 0);
        for _ in 0..10_000 {
            let faults = slow.on_connection(&mut rng);
            delays += u32::from(faults.delay == Some(Duration::from_secs(1)));
            resets += u32::from(faults.reset_after == NonZeroU64::new(2048));
            assert_eq!((faults.resets, faults.bytes_per_second), (false, NonZeroU64::new(1024)));
        }
        assert!((1_800..2_200).contains(&delays), "{delays}");
        assert!((4_800..5_200).contains(&resets), "{resets}");
        assert_eq!(slow.needs_requests(), None);

        let at_once = fault(json!({ "reset": { "percentage": 100 } })).unwrap().on_connection(&mut rng);
        assert_eq!(at_once, ConnectionFaults { resets: true, ..ConnectionFaults::default() });
        let both = slow.on_connection(&mut rng).and(at_once);
        assert_eq!((both.resets, both.bytes_per_second), (true, NonZeroU64::new(1024)));
    }

    #[test]
    fn what_is_about_requests_happens_to_no_connection() {
        let rng = &mut Rng::new(1);
        let matched =
            fault(json!({ "match": { "methods": ["GET"] }, "reset": { "percentage": 100 } })).unwrap();
        assert_eq!(matched.needs_requests(), Some("match"));
        assert_eq!(matched.on_connection(rng), ConnectionFaults::default());
        let abort = fault(json!({ "abort": { "status": 500, "percentage": 100 } })).unwrap();
        assert_eq!(abort.needs_requests(), Some("abort"));
        assert_eq!(abort.on_connection(rng), ConnectionFaults::default());
    }

    #[test]
    fn a_reset_may_come_in_the_midst_of_a_response() {
        let fault = fault(json!({ "reset": { "percentage": 100, "after": "10" } })).unwrap();
        let (verdict, effects) = run(&fault, &mut RequestHead::new(), None);
        assert!(matches!(verdict, Verdict::Continue));
        assert_eq!(effects.reset_after, NonZeroU64::new(10));
    }

    #[test]
    fn without_chance_only_what_is_certain_happens() {
        let half = fault(json!({ "abort": { "status": 500, "percentage": 50 } })).unwrap();
        assert!(matches!(run(&half, &mut RequestHead::new(), None).0, Verdict::Continue));
        let whole = fault(json!({ "abort": { "status": 500, "percentage": 100 } })).unwrap();
        assert!(matches!(run(&whole, &mut RequestHead::new(), None).0, Verdict::Respond(_)));
    }

    #[test]
    fn grpc_requests_get_a_grpc_status() {
        for (body, status, grpc) in [
            (json!({ "status": 503, "percentage": 100 }), 503, "14"),
            (json!({ "grpcStatus": 8, "percentage": 100 }), 429, "8"),
            (json!({ "grpcStatus": "DATA_LOSS", "status": 418, "percentage": 100 }), 418, "15"),
        ] {
            let fault = fault(json!({ "abort": body })).unwrap();
            let mut req = RequestHead::new();
            let Verdict::Respond(reply) = run(&fault, &mut req, None).0 else { panic!("no reply") };
            assert_eq!((reply.head.status, reply.head.fields.has(Known::GrpcStatus)), (status, false));
            req.fields.append(Known::ContentType, b"application/grpc+proto");
            let Verdict::Respond(reply) = run(&fault, &mut req, None).0 else { panic!("no reply") };
            assert_eq!(reply.head.status, 200);
            assert_eq!(reply.head.fields.get(Known::GrpcStatus), Some(grpc.as_bytes()));
        }
    }

    #[test]
    fn other_requests_pass() {
        let fault = fault(json!({
            "match": { "cookies": [{ "name": "chaos", "value": "yes" }] },
            "reset": { "percentage": 100 },
        }))
        .unwrap();
        let mut req = RequestHead::new();
        assert!(matches!(run(&fault, &mut req, None).0, Verdict::Continue));
        req.fields.append(Known::Cookie, b"a=1; chaos=yes");
        assert!(matches!(run(&fault, &mut req, None).0, Verdict::Reset));
    }

    #[test]
    fn mistakes_are_refused() {
        for (body, field) in [
            (json!({}), ""),
            (json!({ "delay": { "time": "1s" } }), ""),
            (json!({ "delay": { "time": "1d", "percentage": 1 } }), "delay.time"),
            (json!({ "delay": { "time": "0s", "percentage": 1 } }), "delay.time"),
            (json!({ "delay": { "time": "601s", "percentage": 1 } }), "delay.time"),
            (json!({ "abort": { "percentage": 1 } }), "abort"),
            (json!({ "abort": { "status": 100, "percentage": 1 } }), "abort.status"),
            (json!({ "abort": { "grpcStatus": 0, "percentage": 1 } }), "abort.grpcStatus"),
            (json!({ "abort": { "grpcStatus": "OK", "percentage": 1 } }), "abort.grpcStatus"),
            (json!({ "reset": { "percentage": 101 } }), "reset.percentage"),
            (json!({ "reset": { "percentage": 0.00001 } }), "reset.percentage"),
            (json!({ "reset": { "percentage": 1, "after": "0" } }), "reset.after"),
            (json!({ "reset": { "percentage": 1, "after": "much" } }), "reset.after"),
            (json!({ "bandwidth": { "rate": "0", "percentage": 1 } }), "bandwidth.rate"),
        ] {
            let Err(invalid) = fault(body.clone()) else { panic!("accepted: {body}") };
            assert_eq!(invalid.field, field, "{body}");
        }
    }
}
