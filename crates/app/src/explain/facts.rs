//! What is told about parts of a plan, the same for people and programs. Bodies of policies are not: they may hold
//! secrets; where each was written is told instead.

use std::time::Duration;

use rhumb_codec::head::Method;
use rhumb_plan::rule::{DEFAULT_REQUEST_TIMEOUT, DEFAULT_STREAM_IDLE, DEFAULT_TUNNEL_IDLE};
use rhumb_plan::session::Carrier;
use rhumb_plan::target::Protocol;
use rhumb_plan::{Backend, Retry, Rule, Session, Timeouts};
use rhumb_policy::{Chain, Hooks};
use rhumb_route::RequestMatch;
use serde_json::{Value, json};

/// What a match asks for.
pub(super) fn request_match(of: &RequestMatch) -> Value {
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    json!({
        "path": of.path().to_string(),
        "method": of.method().map(|method| match method {
            Method::Other => "(any without a name of its own)",
            named => named.name(),
        }),
        "headers": of.fields().iter().map(|field| {
            format!("{} {}", name(field.name().as_bytes()), field.value())
        }).collect::<Vec<_>>(),
        "query": of.query().iter().map(|parameter| {
            format!("{} {}", name(parameter.name()), parameter.value())
        }).collect::<Vec<_>>(),
    })
}

/// What a rule does.
pub(super) fn rule(rule: &Rule) -> Value {
    json!({
        "route": rule.route.as_str(),
        "rule": rule.index,
        "listener": *rule.listener,
        "template": *rule.template,
        "policies": policies(&rule.chain),
        "timeouts": timeouts(&rule.timeouts),
    })
}

/// The policies of a chain in order, with where they come from and when they run.
pub(super) fn policies(chain: &Chain) -> Vec<Value> {
    let items = chain.items().iter().map(|item| {
        let hooks = item.policy.hooks();
        let sides = [(Hooks::REQUEST, "request"), (Hooks::RESPONSE, "response")];
        json!({
            "kind": item.policy.kind(),
            "origin": *item.origin,
            "shadow": item.is_shadow,
            "hooks": sides.iter().filter(|(hook, _)| hooks.has(*hook)).map(|(_, name)| *name).collect::<Vec<_>>(),
        })
    });
    items.collect()
}

/// A backend, without what changes with traffic.
pub(super) fn backend(backend: &Backend) -> Value {
    let target = &backend.target;
    let set = backend.endpoints.load();
    json!({
        "name": backend.name.as_str(),
        "algorithm": set.algorithm().as_str(),
        "protocol": match target.protocol {
            Protocol::Http1 => "http/1",
            Protocol::Http2 if target.tls.is_some() => "h2",
            Protocol::Http2 => "h2c",
        },
        "tls": target.tls.is_some(),
        "connectTimeout": shown(target.connect_timeout),
        "retryBudget": budget(backend),
        "idleTimeout": shown(target.idle_timeout),
        "names": backend.dns_names,
        "endpoints": set.members().iter().map(|member| json!({
            "address": member.endpoint().label(),
            "hostname": member.endpoint().hostname().map(|name| &**name),
            "weight": member.weight(),
            "zone": member.zone(),
        })).collect::<Vec<_>>(),
    })
}

/// When requests are sent again, and what of that is a default.
pub(super) fn retry(of: &Retry) -> Value {
    json!({
        "attempts": of.attempts,
        "on": of.failures().collect::<Vec<_>>(),
        "codes": of.statuses().collect::<Vec<_>>(),
        "grpcCodes": of.grpc_statuses().collect::<Vec<_>>(),
        "bodyBytes": of.body_bytes,
        "retryNonIdempotent": of.non_idempotent,
        "default": *of == Retry::default(),
    })
}

/// How many of a backend's requests may be retries.
fn budget(backend: &Backend) -> String {
    let limits = backend.budget.limits();
    let (interval, least) = (shown(limits.interval), shown(limits.min_interval));
    format!("{} % of {interval}, {} in {least} in any case", limits.percent, limits.min_retries)
}

/// What keeps a client at one endpoint.
pub(super) fn session(of: &Session) -> String {
    match &of.carrier {
        Carrier::Cookie { name, .. } => format!("cookie {name}"),
        Carrier::Field(name) => format!("header {}", String::from_utf8_lossy(name.as_bytes())),
    }
}

/// How long things may take, with the defaults that apply.
pub(super) fn timeouts(of: &Timeouts) -> Value {
    let limit = |written: Option<Duration>, default: Option<Duration>| {
        let value =
            written.or(default).map(|time| if time.is_zero() { "none".to_owned() } else { shown(time) });
        json!({ "value": value, "default": written.is_none() })
    };
    json!({
        "request": limit(of.request, Some(DEFAULT_REQUEST_TIMEOUT)),
        "backendRequest": limit(of.backend_request, of.request.or(Some(DEFAULT_REQUEST_TIMEOUT))),
        "idle": limit(of.idle, Some(DEFAULT_STREAM_IDLE)),
        "tunnelIdle": limit(of.idle, Some(DEFAULT_TUNNEL_IDLE)),
        "stream": limit(of.stream, None),
    })
}

/// A duration as it is written in documents (GEP-2257).
pub(super) fn shown(time: Duration) -> String {
    let ms = time.as_millis();
    match () {
        () if ms == 0 => "0s".to_owned(),
        () if !ms.is_multiple_of(1000) => format!("{ms}ms"),
        () if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        () if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        () => format!("{}s", ms / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_as_they_are_written() {
        for (ms, text) in [
            (0, "0s"),
            (15_000, "15s"),
            (300_000, "5m"),
            (3_600_000, "1h"),
            (1500, "1500ms"),
            (90_000, "90s"),
        ] {
            assert_eq!(shown(Duration::from_millis(ms)), text);
            assert_eq!(rhumb_base::unit::parse_duration(text), Ok(Duration::from_millis(ms)));
        }
    }

    #[test]
    fn defaults_are_told_apart_from_what_was_written() {
        let written = Timeouts {
            request: Some(Duration::from_secs(3)),
            idle: Some(Duration::ZERO),
            ..Timeouts::default()
        };
        let value = timeouts(&written);
        assert_eq!(value["request"], json!({ "value": "3s", "default": false }));
        assert_eq!(value["backendRequest"], json!({ "value": "3s", "default": true }));
        assert_eq!(value["idle"], json!({ "value": "none", "default": false }));
        assert_eq!(timeouts(&Timeouts::default())["request"], json!({ "value": "15s", "default": true }));
    }
}
