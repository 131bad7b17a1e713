//! What the process is and how it stands: routes, backends, certificates, and what is wrong.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use rhumb_balance::Nanos;
use rhumb_model::Doc;
use rhumb_plan::target::Protocol;
use rhumb_plan::{Plan, Port, mesh};
use rhumb_tls::CertificateInfo;
use serde_json::{Value, json};

use super::describe::Answer;
use super::shapes as shape;
use super::{Call, Finding, Health, Level, Problem, done, fleet, json_page, paged, questions};
use crate::admin::shelf::Shelf;
use crate::admin::{Admin, VERSION, endpoints};
use crate::health::{Phase, unix_now};
use crate::signal::Signal;

/// The kind of documents that register who calls.
const CONSUMER: &str = "Consumer";

/// Findings of one answer.
const MAX_FINDINGS: usize = 200;

/// How long lately is, for rates.
pub(super) const LATELY: Duration = Duration::from_secs(10);

/// What happened that is told at a glance.
const CHANGES: usize = 10;

/// A certificate that nobody renews by himself should be looked after so long before its end. **Unit**: seconds.
const SOON: i64 = 14 * 86_400;

/// The page of the process.
pub(super) async fn process(call: Call) -> Answer {
    done(&call.desk.admin.process())
}

/// Everything at a glance.
pub(super) async fn overview(call: Call) -> Answer {
    let admin = &call.desk.admin;
    let Health { level, checks } = admin.checks();
    let plan = admin.current.load();
    let (mut total, mut eligible) = (0, 0);
    let mut backends = plan.backends.len();
    for backend in &plan.backends {
        let set = backend.endpoints.load();
        total += set.members().len();
        eligible += set.members().iter().filter(|member| member.endpoint().is_eligible()).count();
    }
    if let Some(all) = fleet::backends(admin) {
        backends = all.len();
        let endpoints = || all.iter().flat_map(|backend| &backend.endpoints);
        total = endpoints().count();
        eligible = endpoints().filter(|endpoint| endpoint["share"].as_f64() > Some(0.0)).count();
    }
    done(&shape::Overview {
        level,
        checks,
        process: admin.process(),
        counts: shape::Counts {
            routes: routes_in_force(admin, &plan),
            backends,
            endpoints: shape::Endpoints { total, eligible },
            consumers: consumer_names(admin).len(),
            certificates: admin.certificates().len(),
            proxies: admin.control.as_ref().map(|control| control.proxies().len()),
        },
        signals: admin.shown_history().map(|history| history.now(LATELY)),
        changes: admin.events_since(0.0, CHANGES),
    })
}

/// What is wrong.
pub(super) async fn health(call: Call) -> Answer {
    done(&call.desk.admin.checks())
}

/// Begins a drain.
pub(super) async fn drain(call: Call) -> Answer {
    let admin = &call.desk.admin;
    admin.begin_drain();
    Ok(json_page(StatusCode::ACCEPTED, &admin.process()))
}

/// The compiled configuration.
pub(super) async fn plan(call: Call) -> Answer {
    done(&rhumb_plan::dump(&call.desk.admin.current.load()))
}

/// Rules of routes.
pub(super) async fn routes(call: Call) -> Answer {
    let all = all_routes(&call).await?;
    let q = call.given.text("q").map(str::to_lowercase);
    let backend = call.given.text("backend");
    let fits = |route: &&shape::Route| {
        q.as_ref().is_none_or(|q| {
            let in_hosts = route.hostnames.iter().any(|host| host.to_lowercase().contains(q));
            in_hosts
                || route.id.to_lowercase().contains(q)
                || route.template.to_lowercase().contains(q)
                || route.matches.iter().any(|matched| matched["path"].to_string().to_lowercase().contains(q))
        }) && backend.is_none_or(|backend| {
            route.backends.iter().chain(&route.mirrors).any(|to| to["backend"] == backend)
        })
    };
    let found: Vec<shape::Route> = all.iter().filter(fits).cloned().collect();
    done(&paged(&call.given, found, |route| &route.id))
}

/// Rules by revision: most questions are about the same one.
static ROUTES: Mutex<Option<(u64, Arc<Vec<shape::Route>>)>> = Mutex::new(None);

/// Rules of what runs here; of a control plane, of what its gateways run.
async fn all_routes(call: &Call) -> Result<Arc<Vec<shape::Route>>, Problem> {
    let admin = &call.desk.admin;
    let control = admin.plane();
    let plan = admin.current.load();
    let revision = control.map_or(plan.revision, |control| control.revision());
    let known = |held: &Option<(u64, Arc<Vec<shape::Route>>)>| {
        held.as_ref().filter(|(of, _)| *of == revision).map(|(_, routes)| Arc::clone(routes))
    };
    if let Some(routes) = known(&ROUTES.lock().unwrap_or_else(PoisonError::into_inner)) {
        return Ok(routes);
    }
    let docs = questions::standing(call)?;
    let is_of_plane = control.is_some();
    // Ten thousand routes take a while: nobody else waits for it.
    let routes = questions::work_out(move || {
        let origin = |doc: &Doc| match is_of_plane {
            true => doc.source.name().to_string(),
            false => Shelf::origin(doc),
        };
        let is_route = |doc: &&Arc<Doc>| doc.id.kind.ends_with("Route");
        let origins = docs.iter().filter(is_route).map(|doc| {
            let name = format!("{}/{}", doc.namespace(), doc.name());
            (name, (doc.id.kind.to_string(), origin(doc)))
        });
        let origins = origins.collect();
        match is_of_plane {
            true => {
                routes_of(&rhumb_resolve::resolve(&docs, None, &questions::surroundings()).plan, &origins)
            }
            false => routes_of(&plan, &origins),
        }
    });
    let routes = Arc::new(routes.await?);
    *ROUTES.lock().unwrap_or_else(PoisonError::into_inner) = Some((revision, Arc::clone(&routes)));
    Ok(routes)
}

fn routes_of(plan: &Plan, origins: &HashMap<String, (String, String)>) -> Vec<shape::Route> {
    let dump = rhumb_plan::dump(plan);
    let mut routes = Vec::new();
    let ports = list(&dump["ports"]).chain(list(&dump["udpPorts"]));
    let services = ["calls", "serves"].into_iter().filter_map(|side| dump["mesh"][side].as_object());
    let services = services.flat_map(|services| services.values());
    let services = services.flat_map(|service| [&service["requests"], &service["connections"]]);
    for port in ports.chain(services.filter(|port| port.is_object())) {
        let rules = list(&port["rules"]).map(|rule| (rule, None));
        let of_listeners = list(&port["listeners"])
            .flat_map(|listener| list(&listener["routes"]).map(|route| (route, listener["name"].as_str())));
        routes.extend(rules.chain(of_listeners).map(|(rule, listener)| route(port, listener, rule, origins)));
    }
    routes.sort_by(|a, b| a.id.cmp(&b.id));
    // The same rule may stand for several hosts of one listener.
    routes.dedup_by(|b, a| {
        let is_same = a.id == b.id;
        if is_same {
            a.hostnames.extend(std::mem::take(&mut b.hostnames));
            a.hostnames.sort();
            a.hostnames.dedup();
        }
        is_same
    });
    routes
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn route(
    port: &Value,
    listener: Option<&str>,
    rule: &Value,
    origins: &HashMap<String, (String, String)>,
) -> shape::Route {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = |value: &Value| list(value).cloned().collect::<Vec<_>>();
    let (name, index) = (text(&rule["route"]), rule["rule"].as_u64().unwrap_or(0));
    let listener = listener.map_or_else(|| text(&rule["listener"]), str::to_owned);
    let address = text(&port["address"]);
    let mut hostnames: Vec<String> = list(&rule["hostnames"]).map(text).collect();
    if hostnames.is_empty() {
        let of_listener = [&rule["listenerHostname"], &rule["hostname"]].into_iter().map(text);
        hostnames.extend(of_listener.filter(|host| !host.is_empty() && host != "*"));
    }
    let known = origins.get(&name);
    shape::Route {
        id: format!("{name}/{index}@{listener}"),
        kind: known.map(|(kind, _)| kind.clone()),
        origin: known.map(|(_, origin)| origin.clone()),
        rule: index,
        template: text(&rule["template"]),
        hostnames,
        matches: items(&rule["matches"]),
        policies: items(&rule["policies"]),
        timeouts: rule.get("timeouts").cloned().unwrap_or_else(|| json!({})),
        backends: items(&rule["backends"]),
        mirrors: items(&rule["mirrors"]),
        refuses: rule["refuses"].as_str().map(str::to_owned),
        route: name,
        listener,
        address,
    }
}

/// Backends with their endpoints.
pub(super) async fn backends(call: Call) -> Answer {
    let admin = &call.desk.admin;
    let plan = admin.current.load();
    let q = call.given.text("q").map(str::to_lowercase);
    if let Some(mut all) = fleet::backends(admin) {
        all.retain(|backend| q.as_ref().is_none_or(|q| backend.backend.to_lowercase().contains(q)));
        return done(&paged(&call.given, all, |backend| &backend.backend));
    }
    let now = Nanos::since(admin.origin, Instant::now());
    let mut found: Vec<_> = plan.backends.iter().collect();
    found.retain(|backend| q.as_ref().is_none_or(|q| backend.name.as_str().to_lowercase().contains(q)));
    let shape::Page { items, next, total } = paged(&call.given, found, |backend| backend.name.as_str());
    let items = items.into_iter().map(|backend| {
        let mut state = endpoints::backend(backend, now, &admin.names);
        let mut take = |name: &str| state.get_mut(name).map(Value::take).unwrap_or_default();
        shape::Backend {
            backend: backend.name.as_str().to_owned(),
            protocol: match backend.target.protocol {
                Protocol::Http1 => "http/1",
                Protocol::Http2 => "http/2",
            },
            tls: backend.target.tls.is_some(),
            algorithm: take("algorithm").as_str().unwrap_or_default().to_owned(),
            panicking: take("panicking") == true,
            requests: take("requests"),
            ejections: take("ejections"),
            mesh: backend.mesh.as_ref().map(|way| {
                let mut ids: Vec<String> = way.expected.ids().iter().map(ToString::to_string).collect();
                ids.sort_unstable();
                json!({ "serverName": &*way.server_name, "identities": ids })
            }),
            endpoints: take("endpoints").as_array().cloned().unwrap_or_default(),
            names: take("names"),
        }
    });
    done(&shape::Page { items: items.collect(), next, total })
}

/// Certificates in use.
pub(super) async fn certificates(call: Call) -> Answer {
    done(&paged(&call.given, call.desk.admin.certificates(), |certificate| &certificate.name))
}

/// The names of all registered consumers.
fn consumer_names(admin: &Admin) -> BTreeSet<String> {
    match &admin.control {
        Some(control) => {
            let documents = control.documents(Some(CONSUMER), None, None);
            documents.iter().map(|one| format!("{}/{}", one.key.namespace, one.key.name)).collect()
        }
        None => {
            let docs = admin.shelf.docs();
            let consumers = docs.iter().filter(|doc| &*doc.id.kind == CONSUMER);
            consumers.map(|doc| format!("{}/{}", doc.namespace(), doc.name())).collect()
        }
    }
}

/// Registered consumers, and the policies of their own.
pub(super) async fn consumers(call: Call) -> Answer {
    let plan = call.desk.admin.current.load();
    let q = call.given.text("q").map(str::to_lowercase);
    let mut found = consumer_names(&call.desk.admin);
    found.extend(plan.consumers.keys().map(ToString::to_string));
    found.retain(|name| q.as_ref().is_none_or(|q| name.to_lowercase().contains(q)));
    let shape::Page { items, next, total } = paged(&call.given, found.into_iter().collect(), |name| name);
    let items = items.into_iter().map(|name| {
        let policies = plan.consumers.get(&*name);
        let items = policies.into_iter().flat_map(|policies| policies.chain.items());
        let policies_of_its_own = items.map(
            |item| json!({ "kind": item.policy.kind(), "from": &*item.origin, "shadow": item.is_shadow }),
        );
        shape::Consumer {
            policies: policies_of_its_own.collect(),
            refuses: policies.and_then(|policies| policies.invalid.as_ref()).map(ToString::to_string),
            name,
        }
    });
    done(&shape::Page { items: items.collect(), next, total })
}

/// Rules that are in force here; in a control plane, routes that others obey.
fn routes_in_force(admin: &Admin, plan: &Plan) -> usize {
    match admin.plane() {
        Some(control) => {
            let routes = |kind| control.documents(Some(kind), None, None).len();
            ["HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", "UDPRoute"].into_iter().map(routes).sum()
        }
        None => every_port(plan).iter().map(|port| port.rules()).sum(),
    }
}

/// Every port, those of the mesh too.
fn every_port(plan: &Plan) -> Vec<&Arc<Port>> {
    let mut ports: Vec<&Arc<Port>> = plan.all_ports().collect();
    if let Some(mesh) = &plan.mesh {
        let services = mesh.outbound.values().chain(mesh.inbound.values());
        ports.extend(services.flat_map(|service| service.http.iter().chain(&service.tcp)));
    }
    ports
}

impl Admin {
    /// The process and how it stands.
    pub(crate) fn process(&self) -> shape::Process {
        let plan = self.current.load();
        let health = &self.health;
        shape::Process {
            version: VERSION,
            kind: self.kind,
            pid: std::process::id(),
            state: health.phase().as_str(),
            started_at: health.started_at(),
            uptime_seconds: health.uptime().as_secs(),
            revision: self.process_revision(),
            live_since: health.live_since(),
            workers: self.workers,
            connections: self.connections.load(std::sync::atomic::Ordering::Relaxed),
            documents: self.ownership(),
            listeners: plan.all_ports().map(|port| listener(port)).collect(),
            overload: crate::scales::standing(&self.pressure),
            mesh: plan.mesh.as_ref().map(|mesh| shape::Mesh {
                identity: mesh.membership.as_ref().and_then(|own| own.id()).map(|id| id.to_string()),
                trust_domain: mesh.membership.as_ref().map(|own| own.trust_domain().to_string()),
                permissive: mesh.is_permissive,
            }),
            last_attempt: health.last_attempt().map(|attempt| shape::Attempt {
                at: attempt.at,
                refused: attempt.refused,
                diagnostics: attempt.diagnostics,
            }),
        }
    }

    /// The revision in force.
    pub(in crate::admin) fn process_revision(&self) -> u64 {
        self.control.as_ref().map_or_else(|| self.current.load().revision, |control| control.revision())
    }

    /// What happened after a time, the latest first. **Unit**: seconds since 1970.
    pub(super) fn events_since(&self, from: f64, most: usize) -> Vec<rhumb_signals::Event> {
        let Some(history) = self.shown_history() else { return Vec::new() };
        let found = history.events(from, f64::MAX, &[], rhumb_signals::Level::Info, most);
        found.events.into_iter().filter(|event| event.at > from).collect()
    }

    /// Whose the documents are.
    pub(super) fn ownership(&self) -> shape::Documents {
        let is_store = self.control.is_some();
        shape::Documents {
            owner: if is_store { "store" } else { "files" },
            writable: is_store,
            path: self.config.display().to_string(),
        }
    }

    /// Orders the drain that SIGTERM begins too. A second request changes nothing: no signal of this kind is a second one.
    pub(in crate::admin) fn begin_drain(&self) {
        if self.health.order_drain() {
            tracing::info!("drain ordered through the admin listener");
            // Without a receiver the process is ending.
            let _ = self.orders.send(Signal::Stop);
        }
    }

    /// Certificates in use.
    pub(crate) fn certificates(&self) -> Vec<shape::Certificate> {
        let now = i64::try_from(unix_now()).unwrap_or(i64::MAX);
        let plan = self.current.load();
        let mut found = Vec::new();
        for port in plan.all_ports() {
            for listener in &port.listeners {
                let certificates = listener.tls.iter().flat_map(|(_, tls)| tls.certificates());
                found.extend(certificates.map(|info| certificate(listener.name.as_str(), &info, now)));
            }
        }
        let membership = plan.mesh.as_ref().and_then(|mesh| mesh.membership.as_ref());
        if let Some(svid) = membership.and_then(|membership| membership.svid()) {
            let facts = svid.facts();
            let left = facts.not_after_unix.saturating_sub(now);
            let life = facts.not_after_unix.saturating_sub(facts.not_before_unix);
            found.push(shape::Certificate {
                r#use: "svid",
                name: svid.id().to_string(),
                names: vec![svid.id().to_string()],
                not_before: facts.not_before_unix,
                not_after: facts.not_after_unix,
                seconds_left: left,
                level: certificate_level("svid", left, life),
                origin: "the mesh".to_owned(),
            });
        }
        if let Some(issuer) = &self.issuer {
            found.extend(fleet::authority(issuer, now));
        }
        found.sort_by(|a, b| (&a.name, &a.origin).cmp(&(&b.name, &b.origin)));
        found
    }

    /// What is wrong, the worst first; of a control plane with what is wrong with its proxies.
    pub(crate) fn checks(&self) -> Health {
        let mut found = Findings(self.own_checks().checks);
        self.check_proxies(&mut found);
        found.0.extend(fleet::findings(self));
        found.told()
    }

    /// What is wrong with this process, the worst first.
    pub(crate) fn own_checks(&self) -> Health {
        let mut found = Findings(Vec::new());
        self.check_process(&mut found);
        let plan = self.current.load();
        found.routes(&plan);
        self.check_backends(&plan, &mut found);
        for certificate in self.certificates() {
            found.certificate(&certificate);
        }
        found.mesh(&plan);
        rhumb_store::each_store(&mut |name, health| {
            if health.is_away() {
                found.add(
                    "store_away",
                    Level::Warning,
                    "a store of limits cannot be reached",
                    ("store", name.to_owned()),
                    "limits that are shared through it go by what their policies say for this case"
                        .to_owned(),
                    "look whether the store runs, and whether this machine reaches it".to_owned(),
                    "policies.md",
                );
            }
        });
        found.told()
    }

    fn check_process(&self, found: &mut Findings) {
        if self.health.phase() != Phase::Ready {
            let word = self.health.phase().as_str();
            found.add(
                "process_not_ready",
                Level::Warning,
                "the process takes no new traffic",
                ("process", std::process::id().to_string()),
                format!("it is {word}"),
                "wait until it is ready; after a drain start it again".to_owned(),
                "operations.md",
            );
        }
        let path = self.config.display().to_string();
        if let Some(attempt) = self.health.last_attempt() {
            let first = attempt.diagnostics.first().cloned().unwrap_or_default();
            if let Some(why) = attempt.refused {
                found.add(
                    "configuration_refused",
                    Level::Critical,
                    "the configuration on disk is not the one in force",
                    ("configuration", path.clone()),
                    format!("{why}: {first}"),
                    format!("mend what `rhumb check {path}` tells; the last good one serves meanwhile"),
                    "operations.md",
                );
            } else if !attempt.diagnostics.is_empty() {
                found.add(
                    "configuration_warnings",
                    Level::Warning,
                    "something in the configuration is probably not meant as it is written",
                    ("configuration", path.clone()),
                    format!("{} warnings, the first: {first}", attempt.diagnostics.len()),
                    format!("see `rhumb check {path}`"),
                    "configuration.md",
                );
            }
        }
        let overload = crate::scales::standing(&self.pressure);
        if let Some(cause) = overload["cause"].as_str() {
            found.add(
                "process_overloaded",
                Level::Critical,
                "requests are refused because of overload",
                ("process", std::process::id().to_string()),
                format!("because of {cause}, {} % of requests", overload["refusedPercent"]),
                "add processes or machines, or send less".to_owned(),
                "limits.md",
            );
        }
    }

    fn check_backends(&self, plan: &Plan, found: &mut Findings) {
        let now = Nanos::since(self.origin, Instant::now());
        for backend in &plan.backends {
            let set = backend.endpoints.load();
            let name = backend.name.as_str();
            let about = || ("backend", name.to_owned());
            let state = endpoints::backend(backend, now, &self.names);
            let trouble = list(&state["names"]).find_map(|name| name["trouble"].as_str());
            let eligible = set.members().iter().filter(|member| member.endpoint().is_eligible()).count();
            let is_out = |endpoint: &&Value| {
                !["healthy", "slow start", "draining", "throttled"]
                    .contains(&endpoint["state"].as_str().unwrap_or_default())
            };
            let out: Vec<&Value> = list(&state["endpoints"]).filter(is_out).collect();
            let told = out.iter().take(3).map(|endpoint| {
                format!(
                    "{} {}: {}",
                    endpoint["address"].as_str().unwrap_or_default(),
                    endpoint["state"].as_str().unwrap_or_default(),
                    endpoint["why"].as_str().unwrap_or("no reason is known")
                )
            });
            let told = told.collect::<Vec<_>>().join("; ");
            if set.members().is_empty() {
                found.add(
                    "backend_without_endpoints",
                    Level::Critical,
                    "a backend has no endpoint",
                    about(),
                    trouble.unwrap_or("none is written, and none was found").to_owned(),
                    "start one, or look at how endpoints are found (names, workloads)".to_owned(),
                    "health.md",
                );
            } else if eligible == 0 || state["panicking"] == true {
                found.add(
                    "backend_down",
                    Level::Critical,
                    "too few endpoints of a backend are well",
                    about(),
                    told,
                    format!("look at the endpoints of {name}: `rhumb endpoints`"),
                    "health.md",
                );
            } else if !out.is_empty() {
                found.add(
                    "endpoint_out",
                    Level::Warning,
                    "an endpoint is out",
                    about(),
                    told,
                    format!("look at the endpoints of {name}: `rhumb endpoints`"),
                    "health.md",
                );
            }
            if let Some(trouble) = trouble.filter(|_| !set.members().is_empty()) {
                found.add(
                    "name_not_resolved",
                    Level::Warning,
                    "a name of a backend cannot be resolved",
                    about(),
                    trouble.to_owned(),
                    "look at the name servers of this machine".to_owned(),
                    "health.md",
                );
            }
            let (taken, limit) =
                (state["requests"]["inFlight"].as_u64(), state["requests"]["limit"].as_u64());
            if let (Some(taken), Some(limit)) = (taken, limit)
                && taken >= limit
            {
                found.add(
                    "breaker_open",
                    Level::Critical,
                    "a backend has as many requests as it may have",
                    about(),
                    format!("{taken} of {limit} requests are under way, more are refused"),
                    "look why it is slow, or allow it more with the policy circuitBreaker".to_owned(),
                    "policies.md",
                );
            }
        }
    }

    fn check_proxies(&self, found: &mut Findings) {
        let Some(control) = &self.control else { return };
        let now = Instant::now();
        for proxy in control.proxies() {
            let value = rhumb_control::control::proxy_json(&proxy, now);
            let name = || ("proxy", value["proxy"].as_str().unwrap_or_default().to_owned());
            let refused = list(&value["refused"]).map(|refused| {
                format!(
                    "{}: {}",
                    refused["resource"].as_str().unwrap_or_default(),
                    refused["why"].as_str().unwrap_or_default()
                )
            });
            let refused: Vec<String> = refused.collect();
            if !refused.is_empty() {
                found.add(
                    "proxy_refuses",
                    Level::Critical,
                    "a proxy refuses documents",
                    name(),
                    refused.join("; "),
                    "mend the document, or `rhumb rollback`".to_owned(),
                    "control-plane.md",
                );
            } else if value["connected"] == true && value["current"].as_u64() < value["wants"].as_u64() {
                found.add(
                    "proxy_behind",
                    Level::Warning,
                    "a proxy does not run the latest documents",
                    name(),
                    format!("{} of {} resources are the latest", value["current"], value["wants"]),
                    "wait a moment; if it stays so, look at the log of the proxy".to_owned(),
                    "control-plane.md",
                );
            } else if value["connected"] != true {
                found.add(
                    "proxy_gone",
                    Level::Warning,
                    "a proxy is not connected",
                    name(),
                    format!("for {} s", value["forSeconds"]),
                    "look whether it runs and reaches the control plane".to_owned(),
                    "control-plane.md",
                );
            }
        }
    }
}

/// What was found.
struct Findings(Vec<Finding>);

impl Findings {
    fn told(self) -> Health {
        let Self(mut checks) = self;
        checks.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        checks.truncate(MAX_FINDINGS);
        Health { level: checks.first().map_or(Level::Ok, |finding| finding.level), checks }
    }

    #[expect(clippy::too_many_arguments, reason = "each is a field of a finding, in their order")]
    fn add(
        &mut self,
        code: &'static str,
        level: Level,
        title: &'static str,
        (kind, name): (&'static str, String),
        detail: String,
        fix: String,
        docs: &'static str,
    ) {
        let about = shape::About { kind: kind.into(), name };
        let (code, title, docs) = (code.into(), title.into(), docs.into());
        self.0.push(Finding { code, level, title, about, detail, fix, docs, proxies: Vec::new() });
    }

    fn routes(&mut self, plan: &Plan) {
        for port in every_port(plan) {
            let wrong = port
                .table
                .rules()
                .filter_map(|(_, rule)| rule.value.invalid.as_ref().map(|why| (&rule.value, why)));
            for (rule, why) in wrong.take(MAX_FINDINGS) {
                self.add(
                    "route_refuses",
                    Level::Critical,
                    "a route refuses its requests",
                    ("route", format!("{}/{}", rule.route, rule.index)),
                    why.to_string(),
                    "mend the documents; what asks for protection that cannot be given refuses".to_owned(),
                    "configuration.md",
                );
            }
            for listener in port.listeners.iter().filter(|one| port.tls.is_some() && one.tls.is_none()) {
                self.add(
                    "listener_without_certificate",
                    Level::Critical,
                    "a listener refuses connections",
                    ("listener", listener.name.as_str().to_owned()),
                    "its certificates are not usable".to_owned(),
                    "look at its certificateRefs: `rhumb check`".to_owned(),
                    "configuration.md",
                );
            }
        }
    }

    fn certificate(&mut self, certificate: &shape::Certificate) {
        let about = || ("certificate", certificate.name.clone());
        let days = certificate.seconds_left / 86_400;
        let fix = match certificate.r#use {
            "svid" => "look whether this process reaches its issuer: the log tells",
            "authority" => {
                "look at the log of the control plane: it renews these by itself, unless it cannot write them"
            }
            _ => "put a new certificate into the Secret; it is taken over without a restart",
        };
        let docs = if certificate.r#use == "listener" { "operations.md" } else { "identity.md" };
        match certificate.level {
            Level::Ok => {}
            Level::Warning => self.add(
                "certificate_ends_soon",
                Level::Warning,
                "a certificate ends soon",
                about(),
                format!("in {days} days ({} s): {}", certificate.seconds_left, certificate.origin),
                fix.to_owned(),
                docs,
            ),
            Level::Critical => self.add(
                "certificate_expired",
                Level::Critical,
                "a certificate is not valid any more",
                about(),
                certificate.origin.clone(),
                fix.to_owned(),
                docs,
            ),
        }
    }

    fn mesh(&mut self, plan: &Plan) {
        let membership = plan.mesh.as_ref().and_then(|mesh| mesh.membership.as_ref());
        if membership.is_some_and(|membership| !membership.is_ready()) {
            self.add(
                "identity_missing",
                Level::Critical,
                "the process has no identity in the mesh",
                ("process", std::process::id().to_string()),
                "without a certificate no other proxy speaks with it".to_owned(),
                "look whether it reaches its issuer, and whether its join token is valid".to_owned(),
                "identity.md",
            );
        }
    }
}

fn certificate(listener: &str, info: &CertificateInfo, now: i64) -> shape::Certificate {
    let left = info.not_after_unix.saturating_sub(now);
    let life = info.not_after_unix.saturating_sub(info.not_before_unix);
    shape::Certificate {
        r#use: "listener",
        name: listener.to_owned(),
        names: info.names.clone(),
        not_before: info.not_before_unix,
        not_after: info.not_after_unix,
        seconds_left: left,
        level: certificate_level("listener", left, life),
        origin: info.origin.to_string(),
    }
}

/// Whether a certificate is valid long enough. **Unit**: seconds, left and of its whole life.
pub(super) fn certificate_level(purpose: &str, left: i64, life: i64) -> Level {
    // One that is short lived, as those of the mesh, is renewed after half of its life: a fifth is late.
    level_of(left, if purpose == "listener" { SOON.min(life / 5) } else { life / 5 })
}

fn level_of(left: i64, soon: i64) -> Level {
    match left {
        ..=0 => Level::Critical,
        left if left < soon => Level::Warning,
        _ => Level::Ok,
    }
}

fn listener(port: &Port) -> shape::Listener {
    let protocol = match (&port.l4, &port.role) {
        (Some(l4), _) => l4.carries.as_str().to_owned(),
        (None, Some(role)) => match &**role {
            mesh::Role::Upstream(service) => format!("mesh: calls {service}"),
            mesh::Role::Outside(host, port) => format!("mesh: calls {host}:{port}"),
            mesh::Role::Outbound => "mesh: outbound".to_owned(),
            mesh::Role::Inbound => "mesh: inbound".to_owned(),
            mesh::Role::Tunnel => "mesh: proxies".to_owned(),
        },
        (None, None) if port.tls.is_some() => "https".to_owned(),
        (None, None) => "http".to_owned(),
    };
    shape::Listener {
        name: port.name.as_str().to_owned(),
        address: port.address.to_string(),
        protocol,
        rules: port.rules(),
    }
}
