//! The plan as JSON, for the admin API, `rhumb check --dump` and golden tests. Never has keys or other secrets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rhumb_balance::Settings;
use rhumb_base::outside::Destinations;
use rhumb_policy::Chain;
use rhumb_route::RequestMatch;
use rhumb_tls::CertificateInfo;
use rhumb_upstream::active::Probe;
use serde_json::{Map, Value, json};

use crate::admin::{self, Access, Client};
use crate::backend::{Backend, HashOn};
use crate::l4::{Carries, L4};
use crate::mesh::{Egress, Mesh, Role, Service};
use crate::port::{Port, PortListener, PortSettings};
use crate::rule::{Mirror, Retry, Rule, Timeouts, WeightedBackend};
use crate::session::{Carrier, Session};
use crate::snapshot::Plan;
use crate::target::Protocol;

/// The whole plan. What is empty or off is left out.
pub fn dump(plan: &Plan) -> Value {
    let ports = |ports: &[Arc<Port>]| -> Vec<Value> { ports.iter().map(|port| port_value(port)).collect() };
    let mut value = json!({
        "revision": plan.revision,
        "ports": ports(&plan.ports),
        "backends": plan.backends.iter().map(|backend| backend_value(backend)).collect::<Vec<_>>(),
    });
    if !plan.consumers.is_empty() {
        let mut consumers: Vec<_> = plan.consumers.iter().collect();
        consumers.sort_by_key(|(name, _)| *name);
        let consumers = consumers.into_iter().map(|(name, policies)| {
            let mut value = Map::new();
            value.insert("name".into(), (**name).into());
            if let Some(reason) = &policies.invalid {
                value.insert("refuses".into(), (**reason).into());
            }
            put_chain(&mut value, &policies.chain);
            Value::Object(value)
        });
        value["consumers"] = consumers.collect();
    }
    if !plan.udp_ports.is_empty() {
        value["udpPorts"] = ports(&plan.udp_ports).into();
    }
    if let Some(mesh) = &plan.mesh {
        value["mesh"] = mesh_value(mesh);
    }
    if let Some(access) = &plan.admin {
        let access = access_value(access);
        if !access.is_empty() {
            value["admin"] = Value::Object(access);
        }
    }
    value
}

/// Who may ask the admin listener for what.
fn access_value(access: &Access) -> Map<String, Value> {
    let mut value = Map::new();
    if !access.hosts.is_empty() {
        value.insert("hosts".into(), access.hosts.iter().map(|host| Value::from(&**host)).collect());
    }
    if let Some((_, tls)) = &access.tls {
        value.insert("certificates".into(), tls.certificates().iter().map(certificate_value).collect());
    }
    if !access.clients.is_empty() {
        let client = |client: &Client| {
            let names: Vec<&str> = client.names.iter().map(|name| &**name).collect();
            json!({ "role": role(client.role), "names": names })
        };
        value.insert("clients".into(), access.clients.iter().map(client).collect());
    }
    if let Some(oidc) = &access.oidc {
        let rules = oidc.sign_in.rules().map(|(rank, claim, values)| {
            let role = role(admin::Role::ALL.into_iter().find(|role| role.rank() == rank).unwrap_or(admin::Role::Viewer));
            json!({ "role": role, "claim": claim, "values": values.iter().map(|value| &**value).collect::<Vec<_>>() })
        });
        let rules: Vec<Value> = rules.collect();
        value.insert(
            "oidc".into(),
            json!({ "name": &*oidc.name, "issuer": oidc.sign_in.issuer(), "roles": rules }),
        );
    }
    value
}

fn role(role: admin::Role) -> &'static str {
    match role {
        admin::Role::Viewer => "viewer",
        admin::Role::Editor => "editor",
        admin::Role::Admin => "admin",
    }
}

/// What the proxy is in the mesh.
fn mesh_value(mesh: &Mesh) -> Value {
    let services = |services: &HashMap<Arc<str>, Service>| -> Map<String, Value> {
        let mut all: Vec<_> = services.iter().collect();
        all.sort_by_key(|(name, _)| *name);
        let values = all.into_iter().map(|(name, service)| {
            let mut value = Map::new();
            for (what, port) in [("requests", &service.http), ("connections", &service.tcp)] {
                if let Some(port) = port {
                    value.insert(what.into(), port_value(port));
                }
            }
            (name.to_string(), Value::Object(value))
        });
        values.collect()
    };
    let mut addresses: Vec<_> = mesh.addresses.iter().collect();
    addresses.sort();
    let addresses: Map<String, Value> =
        addresses.into_iter().map(|(address, name)| (address.to_string(), (**name).into())).collect();
    let egress = match &mesh.egress {
        Egress::Allow => json!("allow"),
        Egress::Deny(listed) => json!({ "deny": destinations(listed) }),
    };
    let gateway = mesh.egress_gateway.as_ref().map(|gateway| {
        let listed = (!gateway.destinations.is_empty()).then(|| destinations(&gateway.destinations));
        json!({ "service": &*gateway.service, "destinations": listed, "isHere": mesh.is_egress_gateway })
    });
    json!({
        "trustDomain": mesh.membership.as_ref().map(|membership| membership.trust_domain().to_string()),
        "permissive": mesh.is_permissive,
        "egress": egress,
        "egressGateway": gateway,
        "addresses": addresses,
        "calls": services(&mesh.outbound),
        "serves": services(&mesh.inbound),
    })
}

fn destinations(listed: &Destinations) -> Value {
    let blocks: Vec<_> = listed.blocks.iter().map(ToString::to_string).collect();
    json!({ "addresses": blocks, "names": listed.names })
}

fn port_value(port: &Port) -> Value {
    let rules = port.table.rules().map(|(host, rule)| {
        let mut value = rule_value(&rule.value);
        value.insert("listenerHostname".into(), host.to_string().into());
        if !rule.hosts.is_empty() {
            let hosts: Vec<String> = rule.hosts.iter().map(ToString::to_string).collect();
            value.insert("hostnames".into(), hosts.into());
        }
        value.insert("matches".into(), rule.matches.iter().map(match_value).collect());
        Value::Object(value)
    });
    if let Some(l4) = &port.l4 {
        return l4_value(port, l4);
    }
    if let Some(role) = &port.role {
        let (role, service) = match &**role {
            Role::Upstream(name) => ("upstream", Some(name.to_string())),
            Role::Outside(host, port) => ("outside", Some(format!("{host}:{port}"))),
            Role::Outbound => ("outbound", None),
            Role::Inbound => ("inbound", None),
            Role::Tunnel => ("tunnel", None),
        };
        return json!({ "address": port.address.to_string(), "role": role, "service": service });
    }
    json!({
        "address": port.address.to_string(),
        "tls": port.tls.is_some(),
        "listeners": port.listeners.iter().map(|listener| listener_value(listener, port.tls.is_some())).collect::<Vec<_>>(),
        "settings": settings_value(&port.settings),
        "rules": rules.collect::<Vec<_>>(),
    })
}

/// A port that carries connections or datagrams as they are.
fn l4_value(port: &Port, l4: &L4) -> Value {
    let listeners = l4.listeners.entries().into_iter().map(|(hostname, listener)| {
        let routes = listener.routes.entries().into_iter().map(|(hostname, rule)| {
            let mut value = Map::new();
            value.insert("hostname".into(), hostname.into());
            value.insert("route".into(), rule.route.as_str().into());
            if let Some(reason) = &rule.invalid {
                value.insert("refuses".into(), (**reason).into());
            }
            if l4.carries != Carries::Udp {
                value.insert("idleTimeout".into(), rule.tcp.idle.map(duration).into());
                value.insert("maxDuration".into(), rule.tcp.life.map(duration).into());
            }
            let backends = rule.backends.iter().map(|(weight, backend)| {
                let name = backend.as_ref().map(|backend| backend.name.as_str());
                json!({ "backend": name, "weight": weight })
            });
            value.insert("backends".into(), backends.collect());
            Value::Object(value)
        });
        let mut value = Map::new();
        value.insert("name".into(), listener.name.as_str().into());
        value.insert("hostname".into(), hostname.into());
        if l4.carries == Carries::Tls {
            value.insert(
                "mode".into(),
                if listener.is_passthrough { "Passthrough" } else { "Terminate" }.into(),
            );
        }
        let certificates = port.listeners.iter().find(|one| one.name == listener.name);
        if let Some((_, tls)) = certificates.and_then(|one| one.tls.as_ref()) {
            value.insert("certificates".into(), tls.certificates().iter().map(certificate_value).collect());
        }
        value.insert("routes".into(), routes.collect());
        Value::Object(value)
    });
    let mut value = Map::new();
    value.insert("address".into(), port.address.to_string().into());
    value.insert("protocol".into(), l4.carries.as_str().into());
    if let Some(expected) = &port.settings.proxy_protocol {
        let from: Vec<String> = expected.from.iter().map(ToString::to_string).collect();
        value.insert("proxyProtocol".into(), json!({ "from": from, "timeout": duration(expected.timeout) }));
    }
    if l4.carries == Carries::Udp {
        value.insert("idleTimeout".into(), duration(l4.udp.idle).into());
        value.insert("maxSessionsPerWorker".into(), l4.udp.max_sessions.into());
        value.insert("responses".into(), l4.udp.responses.into());
    }
    value.insert("listeners".into(), listeners.collect());
    value.into()
}

fn listener_value(listener: &PortListener, port_has_tls: bool) -> Value {
    let mut value = Map::new();
    value.insert("name".into(), listener.name.as_str().into());
    value.insert("hostname".into(), listener.host.to_string().into());
    if let Some((_, tls)) = &listener.tls {
        value.insert("certificates".into(), tls.certificates().iter().map(certificate_value).collect());
    } else if port_has_tls {
        value.insert("refuses".into(), "its certificates are not usable".into());
    }
    value.into()
}

fn certificate_value(info: &CertificateInfo) -> Value {
    json!({
        "origin": &*info.origin,
        "names": info.names,
        "notBefore": info.not_before_unix,
        "notAfter": info.not_after_unix,
    })
}

fn rule_value(rule: &Rule) -> Map<String, Value> {
    let mut value = Map::new();
    value.insert("route".into(), rule.route.as_str().into());
    value.insert("rule".into(), rule.index.into());
    value.insert("listener".into(), (*rule.listener).into());
    value.insert("template".into(), (*rule.template).into());
    if let Some(reason) = &rule.invalid {
        value.insert("refuses".into(), (**reason).into());
    }
    if rule.priority != rhumb_policy::Priority::Normal {
        value.insert("priority".into(), rule.priority.as_str().into());
    }
    put_chain(&mut value, &rule.chain);
    if rule.timeouts != Timeouts::default() {
        value.insert("timeouts".into(), timeouts_value(&rule.timeouts));
    }
    value.insert("backends".into(), rule.backends.iter().map(weighted_value).collect());
    if !rule.mirrors.is_empty() {
        value.insert("mirrors".into(), rule.mirrors.iter().map(mirror_value).collect());
    }
    value
}

fn put_chain(value: &mut Map<String, Value>, chain: &Chain) {
    if !chain.is_empty() {
        let items = chain.items().iter();
        let items = items.map(|item| {
            let mut value = json!({ "kind": item.policy.kind(), "from": &*item.origin });
            if item.is_shadow {
                value["shadow"] = true.into();
            }
            value
        });
        value.insert("policies".into(), items.collect());
    }
}

fn timeouts_value(timeouts: &Timeouts) -> Value {
    let mut value = Map::new();
    let all = [
        ("request", timeouts.request),
        ("backendRequest", timeouts.backend_request),
        ("connect", timeouts.connect),
        ("idle", timeouts.idle),
        ("stream", timeouts.stream),
    ];
    for (name, limit) in all {
        if let Some(limit) = limit {
            value.insert(name.into(), duration(limit).into());
        }
    }
    value.into()
}

fn weighted_value(weighted: &WeightedBackend) -> Value {
    let mut value = Map::new();
    let name = weighted.backend.as_ref().map(|backend| backend.name.as_str().to_owned());
    value.insert("backend".into(), name.into());
    value.insert("weight".into(), weighted.weight.into());
    put_chain(&mut value, &weighted.chain);
    if weighted.timeouts != Timeouts::default() {
        value.insert("timeouts".into(), timeouts_value(&weighted.timeouts));
    }
    value.insert("retry".into(), retry_value(&weighted.retry));
    if let Some(session) = &weighted.session {
        value.insert("session".into(), session_value(session));
    }
    value.into()
}

fn session_value(session: &Session) -> Value {
    let mut value = Map::new();
    match &session.carrier {
        Carrier::Cookie { name, is_permanent } => {
            value.insert("cookie".into(), (**name).into());
            value.insert("permanent".into(), (*is_permanent).into());
        }
        Carrier::Field(name) => {
            value.insert("header".into(), text(name.as_bytes()).into());
        }
    }
    for (name, limit) in [("absoluteTimeout", session.absolute), ("idleTimeout", session.idle)] {
        if let Some(limit) = limit {
            value.insert(name.into(), duration(limit).into());
        }
    }
    value.into()
}

/// Also when nothing is written: what is done unasked must not be hidden.
fn retry_value(retry: &Retry) -> Value {
    let mut value = Map::new();
    value.insert("attempts".into(), retry.attempts.into());
    value.insert("on".into(), retry.failures().collect());
    if retry.looks_at_responses() {
        value.insert("codes".into(), retry.statuses().collect());
        value.insert("grpcCodes".into(), retry.grpc_statuses().collect());
    }
    let default = Retry::default();
    if retry.back_off != default.back_off {
        let back_off = retry.back_off;
        let (least, base, most) =
            (duration(back_off.least), duration(back_off.base), duration(back_off.most));
        value.insert("backOff".into(), json!({ "least": least, "base": base, "max": most }));
    }
    if let Some(per_try) = retry.per_try {
        value.insert("perTryTimeout".into(), duration(per_try).into());
    }
    if retry.max_retry_after != default.max_retry_after {
        value.insert("maxRetryAfter".into(), duration(retry.max_retry_after).into());
    }
    if retry.body_bytes != default.body_bytes {
        value.insert("bodyBytes".into(), retry.body_bytes.into());
    }
    if retry.non_idempotent {
        value.insert("retryNonIdempotent".into(), true.into());
    }
    if retry.reports {
        value.insert("reportAttempts".into(), true.into());
    }
    value.into()
}

fn mirror_value(mirror: &Mirror) -> Value {
    let mut value = Map::new();
    value.insert("backend".into(), mirror.backend.name.as_str().into());
    value.insert("percent".into(), mirror.share.as_percent().into());
    put_chain(&mut value, &mirror.chain);
    value.into()
}

fn match_value(matched: &RequestMatch) -> Value {
    let mut value = Map::new();
    value.insert("path".into(), matched.path().to_string().into());
    if let Some(method) = matched.method() {
        value.insert("method".into(), method.name().into());
    }
    if !matched.fields().is_empty() {
        let fields = matched.fields().iter();
        let fields = fields.map(|field| field.to_string());
        value.insert("headers".into(), fields.collect());
    }
    if !matched.query().is_empty() {
        let query = matched.query().iter();
        let query = query.map(|parameter| format!("{} {}", text(parameter.name()), parameter.value()));
        value.insert("query".into(), query.collect());
    }
    value.into()
}

fn settings_value(settings: &PortSettings) -> Value {
    json!({
        "http2": settings.http2,
        "maxConcurrentStreams": settings.max_concurrent_streams,
        "maxConnections": settings.max_connections,
        "handshakeTimeout": duration(settings.handshake_timeout),
        "headerTimeout": duration(settings.header_timeout),
        "idleTimeout": duration(settings.idle_timeout),
        "headBytes": settings.limits.head_bytes,
        "fields": settings.limits.fields,
        "targetBytes": settings.limits.target_bytes,
        "contentBytes": settings.max_content,
        "normalizePaths": settings.path.is_some(),
        "trustedProxies": settings.trusted_proxies.len(),
    })
}

fn backend_value(backend: &Backend) -> Value {
    let set = backend.endpoints.load();
    let mut value = Map::new();
    value.insert("name".into(), backend.name.as_str().into());
    let protocol = match backend.target.protocol {
        Protocol::Http1 => "http/1",
        Protocol::Http2 => "http/2",
    };
    value.insert("protocol".into(), protocol.into());
    value.insert("tls".into(), backend.target.tls.is_some().into());
    value.insert("algorithm".into(), set.algorithm().as_str().into());
    if backend.needs_key {
        let key = match &backend.hash_on {
            HashOn::SourceIp => "source address".to_owned(),
            HashOn::Path => "path".to_owned(),
            HashOn::Header(name) => format!("header {}", text(name.as_bytes())),
            HashOn::Cookie(name) => format!("cookie {name}"),
        };
        value.insert("hashOn".into(), key.into());
    }
    let budget = backend.budget.limits();
    let (interval, min_interval) = (duration(budget.interval), duration(budget.min_interval));
    let budget =
        format!("{}% of {interval}, {} per {min_interval} in any case", budget.percent, budget.min_retries);
    value.insert("retryBudget".into(), budget.into());
    if let Some(version) = backend.target.proxy_protocol {
        value.insert("proxyProtocol".into(), format!("{version:?}").to_ascii_lowercase().into());
    }
    value.insert("connectTimeout".into(), duration(backend.target.connect_timeout).into());
    value.insert("idleTimeout".into(), duration(backend.target.idle_timeout).into());
    health(&mut value, backend.endpoints.settings());
    if let Some(limit) = backend.target.max_connections {
        value.insert("maxConnections".into(), limit.into());
        value.insert("maxPendingRequests".into(), backend.target.max_pending.into());
    }
    if let Some(check) = &backend.check {
        let (kind, what) = match &check.probe {
            Probe::Http { method, path, expected, .. } => {
                let statuses = expected.iter().map(|range| format!("{}-{}", range.start(), range.end()));
                ("http", format!("{method} {path}: {}", statuses.collect::<Vec<_>>().join(", ")))
            }
            Probe::Tcp { send, expect } => {
                ("tcp", format!("{} bytes sent, {} expected", send.len(), expect.len()))
            }
            Probe::Grpc { service, .. } => ("grpc", format!("service `{service}`")),
        };
        let check = json!({
            "type": kind,
            "asks": what,
            "interval": duration(check.interval),
            "timeout": duration(check.timeout),
            "healthyThreshold": check.healthy_after,
            "unhealthyThreshold": check.unhealthy_after,
            "initially": if backend.endpoints.settings().is_well_at_first { "healthy" } else { "unhealthy" },
        });
        value.insert("health".into(), check);
    }
    if !backend.dns_names.is_empty() {
        value.insert("dns".into(), backend.dns_names.iter().map(|name| (**name).to_owned()).collect());
    }
    if let Some(way) = &backend.mesh {
        let mut ids: Vec<String> = way.expected.ids().iter().map(ToString::to_string).collect();
        ids.sort_unstable();
        value.insert("mesh".into(), json!({ "serverName": &*way.server_name, "identities": ids }));
    }
    let endpoints = set.members().iter().map(|member| {
        let endpoint = member.endpoint();
        let mut value = Map::new();
        value.insert("address".into(), endpoint.label().into());
        if let Some(hostname) = endpoint.hostname() {
            value.insert("hostname".into(), (**hostname).into());
        }
        value.insert("weight".into(), member.weight().into());
        if endpoint.tunnel() != 0 {
            value.insert("tunnelPort".into(), endpoint.tunnel().into());
        }
        if let Some(zone) = member.zone() {
            value.insert("zone".into(), zone.into());
        }
        if member.priority() > 0 {
            value.insert("priority".into(), member.priority().into());
        }
        Value::Object(value)
    });
    value.insert("endpoints".into(), endpoints.collect());
    value.into()
}

fn health(value: &mut Map<String, Value>, settings: &Settings) {
    let outlier = match &settings.outlier {
        None => json!("off"),
        Some(limits) => json!({
            "consecutive5xx": limits.consecutive_5xx,
            "consecutiveGatewayFailures": limits.consecutive_gateway_failures,
            "consecutiveLocalFailures": limits.consecutive_local_failures,
            "recentFailures": limits.recent_failures,
            "failurePercentage": limits.failure_percent,
            "successRateFactor": limits.success_rate_factor,
            "minRequests": limits.min_requests,
            "minEndpoints": limits.min_endpoints,
            "window": duration(limits.window),
            "ejectionTime": duration(limits.base_ejection),
            "maxEjectionTime": duration(limits.max_ejection),
            "maxEjectedPercentage": limits.max_ejected_percent,
            "probeRequests": limits.probes,
            "ramp": duration(limits.ramp),
        }),
    };
    value.insert("outlierDetection".into(), outlier);
    value.insert("slowStart".into(), duration(settings.slow_start).into());
    value.insert("panicThreshold".into(), settings.panic_percent.into());
    if let Some(zone) = &settings.zone {
        value.insert("prefersZone".into(), (**zone).into());
    }
    if let Some(limit) = settings.max_requests {
        value.insert("maxRequests".into(), limit.into());
    }
}

fn duration(limit: Duration) -> String {
    if limit.is_zero() { "0s".to_owned() } else { format!("{limit:?}") }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
