//! The plan as JSON: what was compiled, not what was written. No keys, no certificates' content, no policy bodies (they
//! may hold secrets); where each thing comes from instead.

use std::time::Duration;

use rhumb_balance::{EndpointSet, Nanos};
use rhumb_codec::head::Method;
use rhumb_plan::rule::{DEFAULT_REQUEST_TIMEOUT, DEFAULT_STREAM_IDLE, DEFAULT_TUNNEL_IDLE};
use rhumb_plan::{Backend, Plan, Port, Rule, Timeouts, WeightedBackend};
use rhumb_policy::{Chain, Hooks};
use rhumb_route::RequestMatch;
use rhumb_upstream::Protocol;
use serde_json::{Value, json};

use crate::names::Board;

/// The whole plan.
pub(crate) fn plan(plan: &Plan) -> Value {
    json!({
        "revision": plan.revision,
        "ports": plan.ports.iter().map(|of| port(of)).collect::<Vec<_>>(),
        "backends": plan.backends.iter().map(|of| backend(of)).collect::<Vec<_>>(),
    })
}

/// The endpoints of each backend as they are.
pub(crate) fn endpoints(plan: &Plan, now: Nanos, names: &Board) -> Value {
    let backends = plan.backends.iter().map(|backend| {
        let set = backend.endpoints.load();
        json!({
            "backend": backend.name.as_str(),
            "algorithm": set.algorithm().as_str(),
            "endpoints": members(&set, now),
            "omitted": set.omitted(),
            "names": names.of(&backend.name),
        })
    });
    json!({ "revision": plan.revision, "backends": backends.collect::<Vec<_>>() })
}

fn members(set: &EndpointSet, now: Nanos) -> Vec<Value> {
    let members = set.members().iter().map(|member| {
        let endpoint = member.endpoint();
        json!({
            "address": endpoint.address().to_string(),
            "hostname": endpoint.hostname().map(|name| &**name),
            "weight": member.weight(),
            "zone": member.zone(),
            "state": if endpoint.is_eligible() { "eligible" } else { "ineligible" },
            "inFlight": endpoint.in_flight(),
            "latencyMs": endpoint.latency_ns(now).map(|ns| ns as f64 / 1e6),
            "started": endpoint.started(),
            "succeeded": endpoint.succeeded(),
            "failed": endpoint.failed(),
        })
    });
    members.collect()
}

fn port(port: &Port) -> Value {
    let settings = &port.settings;
    let certificates = port.tls.iter().flat_map(|tls| tls.servers()).flat_map(|server| server.certificates());
    let certificates = certificates.map(|certificate| {
        json!({
            "origin": *certificate.origin,
            "names": certificate.names,
            "notBefore": certificate.not_before_unix,
            "notAfter": certificate.not_after_unix,
            "sha256": certificate.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        })
    });
    json!({
        "name": port.name.as_str(),
        "address": port.address.to_string(),
        "tls": port.tls.as_ref().map(|_| json!({ "certificates": certificates.collect::<Vec<_>>() })),
        "settings": {
            "http2": settings.http2,
            "maxConcurrentStreams": settings.max_concurrent_streams,
            "headerTimeout": shown(settings.header_timeout),
            "idleTimeout": shown(settings.idle_timeout),
            "maxContentBytes": settings.max_content,
            "maxConnectionsPerWorker": settings.max_connections,
            "trustedProxies": settings.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "normalizePaths": settings.path.is_some(),
            "forwarded": settings.forwarded,
            "proxyStatus": settings.proxy_status,
        },
        "rules": port.table.rules().map(|(host, compiled)| {
            let mut value = rule(&compiled.value);
            value["listenerHost"] = host.to_string().into();
            value["hosts"] = compiled.hosts.iter().map(ToString::to_string).collect();
            value["matches"] = compiled.matches.iter().map(request_match).collect();
            value
        }).collect::<Vec<_>>(),
    })
}

/// What a match asks for.
pub(crate) fn request_match(of: &RequestMatch) -> Value {
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
pub(crate) fn rule(rule: &Rule) -> Value {
    json!({
        "route": rule.route.as_str(),
        "rule": rule.index,
        "listener": *rule.listener,
        "template": *rule.template,
        "policies": policies(&rule.chain),
        "backends": rule.backends.iter().map(weighted).collect::<Vec<_>>(),
        "timeouts": timeouts(&rule.timeouts),
        "refuses": rule.invalid.as_deref(),
    })
}

/// The policies of a chain in order, with where they come from and when they run.
pub(crate) fn policies(chain: &Chain) -> Vec<Value> {
    let items = chain.items().iter().map(|item| {
        let hooks = item.policy.hooks();
        let sides = [(Hooks::REQUEST, "request"), (Hooks::RESPONSE, "response")];
        json!({
            "kind": item.policy.kind(),
            "origin": *item.origin,
            "hooks": sides.iter().filter(|(hook, _)| hooks.has(*hook)).map(|(_, name)| *name).collect::<Vec<_>>(),
        })
    });
    items.collect()
}

fn weighted(to: &WeightedBackend) -> Value {
    json!({
        "weight": to.weight,
        "backend": to.backend.as_ref().map(|backend| backend.name.as_str()),
        "policies": policies(&to.chain),
    })
}

/// A backend, without what changes with traffic.
pub(crate) fn backend(backend: &Backend) -> Value {
    let target = &backend.target;
    json!({
        "name": backend.name.as_str(),
        "algorithm": backend.endpoints.load().algorithm().as_str(),
        "protocol": match target.protocol {
            Protocol::Http1 => "http/1",
            Protocol::Http2 if target.tls.is_some() => "h2",
            Protocol::Http2 => "h2c",
        },
        "tls": target.tls.is_some(),
        "connectTimeout": shown(target.connect_timeout),
        "idleTimeout": shown(target.idle_timeout),
        "endpoints": members(&backend.endpoints.load(), Nanos::default()).into_iter().map(|mut member| {
            // What changes with traffic is told by /endpoints.
            if let Some(member) = member.as_object_mut() {
                member.retain(|key, _| ["address", "hostname", "weight", "zone"].contains(&key.as_str()));
            }
            member
        }).collect::<Vec<_>>(),
    })
}

/// How long things may take, with the defaults that apply.
pub(crate) fn timeouts(of: &Timeouts) -> Value {
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
    })
}

/// A duration as it is written in documents (GEP-2257).
pub(crate) fn shown(time: Duration) -> String {
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
