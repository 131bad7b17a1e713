//! What the proxies of a control plane tell of themselves: how each stands, what is wrong with it, and where services are.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use rhumb_control::ads::report::{Certificate, Check, Standing};
use rhumb_control::ads::resource::{Endpoint, EndpointSet, Mtls};
use rhumb_control::document::Role;
use rhumb_identity::Issuer;
use rhumb_signals::By;
use rhumb_signals::answer::{Item, Sort};
use serde_json::{Value, json};

use super::shapes::{self as shape, About};
use super::state::certificate_level;
use super::{Finding, Level};
use crate::admin::Admin;
use crate::health::unix_now;

/// Proxies that one finding names.
const MAX_NAMED: usize = 20;

/// What these are about is only known together with whose they are.
const OWN: [&str; 4] = ["process", "configuration", "listener", "store"];

/// Requests of a service in a minute from which on its failures are a finding, and the share of them: to look at, and
/// that somebody has to look at.
const FAILING: (u64, f64, f64) = (10, 0.05, 0.25);

/// Over how long failures are looked for, and how many services are looked at.
const LATELY: (Duration, usize) = (Duration::from_secs(60), 1_000);

/// Adds to proxies what each of them tells of itself.
pub(super) fn describe(admin: &Admin, proxies: &mut Vec<Value>) {
    let Some(fleet) = &admin.fleet else { return };
    let told = fleet.proxies();
    for proxy in proxies {
        let name = proxy["proxy"].as_str().unwrap_or_default();
        let Some(known) = told.get(name) else { continue };
        let standing = &known.standing;
        let mut certificates: Vec<&Certificate> = standing.certificates.iter().collect();
        certificates.sort_by_key(|certificate| certificate.not_after);
        proxy["kind"] = json!(standing.kind);
        proxy["version"] = json!(standing.version);
        proxy["state"] = json!(standing.state);
        proxy["startedAt"] = json!(standing.started_at);
        proxy["level"] = json!(level_of(standing));
        proxy["reports"] = json!(known.is_connected());
        proxy["checks"] = standing.checks.iter().map(|check| json!(finding(check))).collect();
        proxy["certificates"] = certificates.into_iter().map(certificate).collect();
    }
}

/// What is wrong with proxies that are connected. What several say of the same is told once.
pub(super) fn findings(admin: &Admin) -> Vec<Finding> {
    let Some(fleet) = &admin.fleet else { return Vec::new() };
    let mut found: BTreeMap<(String, String, String), Finding> = BTreeMap::new();
    for (proxy, told) in fleet.proxies() {
        if !told.is_connected() {
            continue;
        }
        for check in &told.standing.checks {
            let is_own = OWN.contains(&&*check.about_kind);
            let whose = if is_own { &*proxy } else { &check.about_name };
            let key = (check.code.clone(), check.about_kind.clone(), whose.to_owned());
            let known = found.entry(key).or_insert_with(|| {
                let mut finding = finding(check);
                if is_own {
                    finding.about = About { kind: "proxy".into(), name: proxy.to_string() };
                }
                finding
            });
            known.level = known.level.max(level(check));
            if known.proxies.len() < MAX_NAMED {
                known.proxies.push(proxy.to_string());
            }
        }
    }
    let mut all: Vec<Finding> = found.into_values().collect();
    all.extend(failing(admin));
    all.extend(fleet.withheld().into_iter().map(|one| Finding {
        code: "service_withheld".into(),
        level: Level::Warning,
        title: "gRPC clients without a proxy are not offered a service".into(),
        about: About { kind: "backend".into(), name: one.name.to_string() },
        detail: format!("{} (asked for by {} of {} clients)", one.why, one.client, one.clients),
        fix: "write what it names in a way that such clients can do, or give them a sidecar".into(),
        docs: "proxyless.md".into(),
        proxies: Vec::new(),
    }));
    all
}

/// Services that fail, as those who call them and they themselves say.
fn failing(admin: &Admin) -> Vec<Finding> {
    let Some(fleet) = &admin.fleet else { return Vec::new() };
    let top = fleet.history().top(By::Edge, LATELY.0, Sort::Errors, LATELY.1);
    let mut services: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
    for item in &top.items {
        if let Some((_, target)) = item.name.split_once('>') {
            services.entry(target).or_default().push(item);
        }
    }
    let mut found = Vec::new();
    for (service, edges) in services {
        let requests: u64 = edges.iter().map(|edge| edge.golden.requests).sum();
        let rate: f64 = edges.iter().map(|edge| edge.golden.requests_per_second).sum();
        let errors: f64 = edges.iter().map(|edge| edge.golden.errors_per_second).sum();
        let share = if rate > 0.0 { errors / rate } else { 0.0 };
        if requests < FAILING.0 || share < FAILING.1 {
            continue;
        }
        let callers: Vec<&str> = edges
            .iter()
            .filter(|edge| edge.golden.errors_per_second > 0.0)
            .filter_map(|edge| Some(edge.name.split_once('>')?.0))
            .take(3)
            .collect();
        found.push(Finding {
            code: "service_failing".into(),
            level: if share >= FAILING.2 { Level::Critical } else { Level::Warning },
            title: "a service fails".into(),
            about: About { kind: "backend".into(), name: service.to_owned() },
            detail: format!(
                "{:.0} % of {requests} requests in the last minute, called by {}",
                share * 100.0,
                callers.join(", ")
            ),
            fix: format!(
                "look at its endpoints and its own log; `rhumb tap \"backend == '{service}' && response.status >= 500\"` shows requests, `rhumb trace` where they go"
            ),
            docs: "signals.md".into(),
            proxies: Vec::new(),
        });
    }
    found
}

/// Services of a control plane with their endpoints; nothing elsewhere.
pub(super) fn backends(admin: &Admin) -> Option<Vec<shape::Backend>> {
    let control = admin.plane()?;
    let trouble = findings(admin);
    let services = control.documents(Some("Service"), None, None);
    let mesh = control.mesh();
    let mut all = Vec::new();
    for document in services {
        let Role::Service(service) = &document.role else { continue };
        let path = document.key.path();
        let set = control.hub().with(|core| core.members().endpoints(&path, core.library(), &mesh));
        let set = set.and_then(|bytes| EndpointSet::decode(bytes).ok()).unwrap_or_default();
        for port in &service.ports {
            let name = format!("{path}:{}", port.port);
            let of_it = |finding: &&Finding| finding.about.kind == "backend" && finding.about.name == name;
            let said: Vec<&Finding> = trouble.iter().filter(of_it).collect();
            let endpoints = set.endpoints.iter().map(|one| endpoint(one, &port.name, &said)).collect();
            let identities: Vec<&str> =
                set.endpoints.iter().map(|one| &*one.identity).filter(|id| !id.is_empty()).collect();
            all.push(shape::Backend {
                backend: name,
                protocol: "http/1",
                tls: false,
                algorithm: String::new(),
                panicking: false,
                requests: Value::Null,
                ejections: json!({}),
                mesh: (!identities.is_empty())
                    .then(|| json!({ "serverName": null, "identities": identities })),
                endpoints,
                names: json!([]),
            });
        }
    }
    all.sort_by(|a, b| a.backend.cmp(&b.backend));
    Some(all)
}

/// An endpoint as far as a control plane knows it: what load it has, its callers know.
fn endpoint(endpoint: &Endpoint, port: &str, said: &[&Finding]) -> Value {
    let number = endpoint.ports.iter().find(|known| known.name == port).or_else(|| endpoint.ports.first());
    let address = match number {
        Some(number) => format!("{}:{}", endpoint.address, number.number),
        None => endpoint.address.clone(),
    };
    let why = said.iter().find(|finding| finding.detail.contains(&address));
    let (state, share, why) = match why {
        Some(finding) => ("ejected", 0.0, Some(finding.detail.clone())),
        None if endpoint.draining => ("draining", 0.0, Some("it is about to end".to_owned())),
        None if endpoint.unhealthy => ("failing check", 0.0, Some("it says that it cannot serve".to_owned())),
        None => ("healthy", 1.0, None),
    };
    json!({
        "address": address,
        "hostname": endpoint.workload,
        "weight": endpoint.weight,
        "priority": 0,
        "zone": (!endpoint.locality.is_empty()).then_some(&endpoint.locality),
        "state": state,
        "share": share,
        "why": why,
        "mtls": endpoint.mtls == Mtls::Strict as i32,
        "identity": endpoint.identity,
    })
}

/// Signing certificates of a certificate authority.
pub(super) fn authority(issuer: &Issuer, now: i64) -> Vec<shape::Certificate> {
    let authority = issuer.authority();
    let (forecast, lifetimes) = (authority.forecast(), authority.lifetimes());
    let domain = authority.trust_domain();
    let one = |name: &str, ends: u64, life: Duration| {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (not_after, life) = (whole(ends), whole(life.as_secs()));
        let left = not_after.saturating_sub(now);
        shape::Certificate {
            r#use: "authority",
            name: format!("{name} of {domain}"),
            names: Vec::new(),
            not_before: not_after.saturating_sub(life),
            not_after,
            seconds_left: left,
            level: certificate_level("authority", left, life),
            origin: "the certificate authority, which renews it by itself".to_owned(),
        }
    };
    let root = (forecast.root_ends > 0).then(|| one("root", forecast.root_ends, lifetimes.root));
    let intermediate = one("intermediate", forecast.intermediate_ends, lifetimes.intermediate);
    root.into_iter().chain([intermediate]).collect()
}

fn finding(check: &Check) -> Finding {
    Finding {
        code: check.code.clone().into(),
        level: level(check),
        title: check.title.clone().into(),
        about: About { kind: check.about_kind.clone().into(), name: check.about_name.clone() },
        detail: check.detail.clone(),
        fix: check.fix.clone(),
        docs: check.docs.clone().into(),
        proxies: Vec::new(),
    }
}

fn level(check: &Check) -> Level {
    if check.is_critical { Level::Critical } else { Level::Warning }
}

fn level_of(standing: &Standing) -> Level {
    standing.checks.iter().map(level).max().unwrap_or(Level::Ok)
}

fn certificate(certificate: &Certificate) -> Value {
    let now = i64::try_from(unix_now()).unwrap_or(i64::MAX);
    let left = certificate.not_after.saturating_sub(now);
    let life = certificate.not_after.saturating_sub(certificate.not_before);
    json!({
        "use": certificate.purpose,
        "name": certificate.name,
        "notAfter": certificate.not_after,
        "secondsLeft": left,
        "level": certificate_level(&certificate.purpose, left, life),
        "origin": certificate.origin,
    })
}
