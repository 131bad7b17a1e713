//! TCPRoutes, TLSRoutes and UDPRoutes: what becomes of connections and datagrams that are carried as they are.

use foldhash::{HashMap, HashMapExt};
use std::net::SocketAddr;
use std::sync::Arc;

use rhumb_base::name::RouteName;
use rhumb_model::kind::gateway::{Listener, Protocol};
use rhumb_model::kind::l4_route::L4Rule as Written;
use rhumb_model::kind::refs::ParentRef;
use rhumb_model::scalar::Hostname;
use rhumb_model::{Diag, Doc, Rule, Spanned};
use rhumb_plan::l4::{Carries, L4, L4Listener, L4Rule, NameTable, ProxyProtocol};
use rhumb_plan::{Port, PortListener, PortSettings};
use rhumb_policy::Policy;
use rhumb_policy::mesh::decides_about_connections;
use rhumb_policy::tcp::Tcp;
use rhumb_policy::udp::Udp;
use rhumb_route::{Builder, Host};

use crate::attach::{Door, Doors, PortPlan, Route, host_of};
use crate::build::tls_set;
use crate::collect::key;
use crate::mesh::Side;
use crate::policies::{Attached, Level};
use crate::report::Report;
use crate::rules::{Filters, Maker, Reference};

/// The kinds of policies that mean something without requests.
const KINDS: [&str; 4] = ["fault", "proxyProtocol", "tcp", "udp"];

/// The kinds of routes that a listener takes (Gateway API, by protocol).
pub(crate) fn route_kinds(door: &Door<'_>) -> &'static [&'static str] {
    match door.protocol() {
        Protocol::Http | Protocol::Https => &["HTTPRoute", "GRPCRoute"],
        Protocol::Tls if door.is_passthrough() => &["TLSRoute"],
        Protocol::Tls => &["TLSRoute", "TCPRoute"],
        Protocol::Tcp => &["TCPRoute"],
        Protocol::Udp => &["UDPRoute"],
    }
}

/// The policy of a kind that counts: that of the nearest level, which is the last one.
fn setting<'l>(levels: &[&'l Level], kind: &str) -> Option<&'l Attached> {
    levels.iter().rev().find_map(|level| level.iter().find(|attached| attached.kind() == kind))
}

/// The settings of a listener's port with what policies say about connections; nothing when they cannot be given.
pub(crate) fn port_settings(
    doc: &Doc,
    listener: &Listener,
    levels: [&Level; 2],
    settings: &PortSettings,
    report: &mut Report,
) -> Option<PortSettings> {
    let protocol = *listener.protocol;
    let (is_http, word) = (matches!(protocol, Protocol::Http | Protocol::Https), protocol.word());
    for attached in levels[1] {
        let fits = match attached.kind() {
            "tcp" => matches!(protocol, Protocol::Tcp | Protocol::Tls),
            "fault" => protocol != Protocol::Udp,
            "udp" => protocol == Protocol::Udp,
            "proxyProtocol" => protocol != Protocol::Udp,
            _ => is_http,
        };
        if !fits && !attached.kind().is_empty() {
            let what = format!("`{}` on a listener of protocol {word}", attached.kind());
            let diag = Diag::error(Rule::Policy, attached.at().clone(), what)
                .why("it means nothing there, and what asks for it must not go on without it")
                .fix("attach it to a listener that it fits")
                .related(doc.origin(listener.protocol.span), "the listener");
            report.push(diag);
            return None;
        }
    }
    let mut settings = settings.clone();
    if protocol != Protocol::Udp
        && let Some(attached) = setting(&levels, "proxyProtocol")
    {
        let Ok(Policy::ProxyProtocol(policy)) = attached.policy() else { return None };
        settings.proxy_protocol = Some(ProxyProtocol { from: policy.from.clone(), timeout: policy.timeout });
    }
    Some(settings)
}

/// A route as far as all three kinds have it.
struct L4Route<'a> {
    kind: &'static str,
    doc: &'a Doc,
    parents: &'a [ParentRef],
    hostnames: &'a [Spanned<Hostname>],
    rules: &'a [Written],
}

/// A rule at a door.
struct Made<'a> {
    hosts: Box<[Host]>,
    rule: Arc<L4Rule>,
    kind: &'static str,
    doc: &'a Doc,
}

/// What L4 routes have come to.
pub(crate) struct L4Made<'a> {
    by_door: HashMap<usize, Vec<Made<'a>>>,
    workers: usize,
}

impl<'a> Maker<'a, '_> {
    /// The rules of all L4 routes, by the door that they are for.
    pub(crate) fn l4(&mut self, workers: usize) -> L4Made<'a> {
        let docs = self.docs;
        let tls = docs.tls_routes.all.iter().map(|entry| L4Route {
            kind: "TLSRoute",
            doc: entry.doc,
            parents: &entry.spec.parent_refs,
            hostnames: &entry.spec.hostnames,
            rules: &entry.spec.rules,
        });
        let tcp = docs.tcp_routes.all.iter().map(|entry| L4Route {
            kind: "TCPRoute",
            doc: entry.doc,
            parents: &entry.spec.parent_refs,
            hostnames: &[],
            rules: &entry.spec.rules,
        });
        let udp = docs.udp_routes.all.iter().map(|entry| L4Route {
            kind: "UDPRoute",
            doc: entry.doc,
            parents: &entry.spec.parent_refs,
            hostnames: &[],
            rules: &entry.spec.rules,
        });
        let mut made = L4Made { by_door: HashMap::new(), workers };
        for route in tls.chain(tcp).chain(udp) {
            self.l4_route(&route, &mut made);
        }
        made
    }

    fn l4_route(&mut self, route: &L4Route<'a>, made: &mut L4Made<'a>) {
        let L4Route { kind, doc, .. } = *route;
        let hosts: Box<[Host]> = route.hostnames.iter().map(|hostname| host_of(hostname)).collect();
        let attached = Route { kind, doc, parents: route.parents, hostnames: route.hostnames, hosts: &hosts };
        let doors = self.doors.of_route(self.docs, &attached, self.report);
        let Some(written) = route.rules.first() else { return };
        let (mut found, mut behind) = (Vec::new(), Vec::new());
        for reference in &written.backend_refs {
            let reference = Reference::new(reference.target(), Filters::Http(&[]), reference.broken);
            let name = (crate::collect::namespace_or(reference.namespace, doc), reference.name.as_str());
            let backend = match reference.is_broken {
                true => None,
                false => self.position(kind, doc, &reference, name),
            };
            let level = if backend.is_some() { self.level_of(&reference, doc, name) } else { Level::new() };
            found.push((reference.weight, backend));
            behind.push(level);
        }
        let broken = doc.broken.then(|| self.broken(doc));
        self.policies.fill(kind, key(doc));
        let own = self.policies.of_route(kind, key(doc)).clone();
        for at in doors {
            let Some(door) = self.doors.doors.get(at) else { continue };
            if door.ports.is_empty() || door.is_refused {
                continue;
            }
            let identity = door.identity.and_then(|at| self.doors.identities.get(at));
            let backends = found.iter().map(|(weight, backend)| {
                (*weight, backend.and_then(|at| self.backends.get_for(at, identity, false, self.report)))
            });
            let backends = backends.collect();
            let levels = [&door.policies[0], &door.policies[1], &own];
            let (tcp, refused) = connection_settings(kind, door, levels, self.report);
            let (access, not_enforced) = access(door, self.report);
            let faults = behind.iter().map(|behind| faults(kind, door, levels, behind, self.report));
            let faults = faults.collect();
            let rule = L4Rule {
                route: RouteName::new(format!("{}/{}", doc.namespace(), doc.name())),
                backends,
                tcp,
                access,
                faults,
                invalid: broken.clone().or(refused).or(not_enforced),
            };
            let hosts = if hosts.is_empty() { [Host::Any].into() } else { hosts.clone() };
            // A hostname that both have, the narrower of the two; those that the listener has not are left out.
            let hosts = hosts.iter().filter_map(|host| host.intersect(&door.host)).collect();
            made.by_door.entry(at).or_default().push(Made { hosts, rule: Arc::new(rule), kind, doc });
        }
    }
}

/// Limits of connections, and why a rule must refuse them if it must.
fn connection_settings(
    kind: &str,
    door: &Door<'_>,
    levels: [&Level; 3],
    report: &mut Report,
) -> (Tcp, Option<Arc<str>>) {
    let mut refused = None;
    for attached in levels[2] {
        let fits = KINDS.contains(&attached.kind())
            && matches!(attached.kind(), "tcp" | "fault") == (kind != "UDPRoute");
        if !fits {
            let what = format!("`{}` on a {kind}", attached.kind());
            if !attached.kind().is_empty() {
                let diag = Diag::error(Rule::Policy, attached.at().clone(), &*what)
                    .why("it means nothing there, and what asks for it must not go on without it")
                    .fix("remove it");
                report.push(diag);
            }
            refused.get_or_insert_with(|| what.into());
        }
    }
    // What is attached to the listener was looked through when it was opened; this is what cannot be given at all.
    let asked = setting(&levels, "tcp").map(Attached::policy);
    let tcp = match asked {
        Some(Ok(Policy::Tcp(tcp))) if door.protocol() != Protocol::Udp => *tcp,
        Some(Err(reason)) => {
            refused.get_or_insert_with(|| Arc::clone(reason));
            Tcp::default()
        }
        _ => Tcp::default(),
    };
    let unknown = levels[1].iter().chain(levels[0]).find(|attached| attached.kind().is_empty());
    if let Some(Err(reason)) = unknown.map(Attached::policy) {
        refused.get_or_insert_with(|| Arc::clone(reason));
    }
    (tcp, refused)
}

/// What is broken on purpose. What of it is about requests is told where nobody sees any.
fn faults(
    kind: &str,
    door: &Door<'_>,
    [gateway, listener, own]: [&Level; 3],
    behind: &Level,
    report: &mut Report,
) -> Box<[Arc<Policy>]> {
    if door.protocol() == Protocol::Udp {
        return Box::default();
    }
    let mut faults = Vec::new();
    // What is attached to a whole Gateway may be meant for its other listeners, and what is attached to a port that has
    // requests as well, for these.
    let is_meant = door.mesh.is_none_or(|mesh| mesh.is_only_carried);
    let levels = [(gateway, false), (listener, is_meant), (own, true), (behind, is_meant)];
    let all = levels.into_iter().flat_map(|(level, is_meant)| level.iter().map(move |one| (one, is_meant)));
    for (attached, is_meant) in all.filter(|(attached, _)| !attached.is_shadow()) {
        let Ok(policy) = attached.shared() else { continue };
        let Policy::Fault(fault) = &**policy else { continue };
        match fault.needs_requests() {
            None => faults.push(Arc::clone(policy)),
            Some(part) if is_meant => {
                let what = format!("`fault` with `{part}` for a {kind}");
                let diag = Diag::error(Rule::Policy, attached.at().clone(), what)
                    .why("nobody sees requests there: connections have `delay`, `reset` and `bandwidth`")
                    .fix(format!("remove `{part}`"));
                report.push(diag);
            }
            Some(_) => {}
        }
    }
    faults.into()
}

/// Who may connect to a Service whose connections are carried as they are, and why nobody may when what is asked for cannot
/// be told without seeing requests.
fn access(door: &Door<'_>, report: &mut Report) -> (Box<[Arc<Policy>]>, Option<Arc<str>>) {
    let Some(mesh) = door.mesh.filter(|mesh| mesh.side == Side::Inbound) else {
        return (Box::default(), None);
    };
    let (mut access, mut refused) = (Vec::new(), None);
    for attached in door.policies.iter().flatten().filter(|attached| !attached.is_shadow()) {
        match attached.shared() {
            // Nothing depends on these.
            _ if matches!(attached.kind(), "tcp" | "tracing") => {}
            Ok(policy) if decides_about_connections(attached.kind()) => access.push(Arc::clone(policy)),
            Err(reason) => drop(refused.get_or_insert_with(|| Arc::clone(reason))),
            Ok(_) => {
                let what = format!("`{}` needs requests, which nobody sees here", attached.kind());
                // Where requests are seen as well, connections without are what nobody asked for.
                if mesh.is_only_carried {
                    let diag = Diag::error(Rule::Policy, attached.at().clone(), &*what)
                        .why("the connections of this port are carried as they are, and what cannot be enforced is refused")
                        .fix("write `appProtocol: http` into the Service, or use `authorization` with `source`");
                    report.push(diag);
                }
                refused.get_or_insert_with(|| what.into());
            }
        }
    }
    (access.into(), refused)
}

impl L4Made<'_> {
    /// A port; nothing when none of its listeners can be served.
    pub(crate) fn port(
        &mut self,
        address: SocketAddr,
        port: PortPlan<'_>,
        doors: &Doors<'_>,
        report: &mut Report,
    ) -> Option<Port> {
        let here = || port.doors.iter().filter_map(|&at| Some((at, doors.doors.get(at)?)));
        let name = here().find(|(_, door)| !door.is_refused)?.1.name.clone();
        let (mut table, mut listeners) = (NameTable::default(), Vec::new());
        let mut udp = Udp::default();
        for (at, door) in here() {
            let made = self.by_door.remove(&at).unwrap_or_default();
            if made.is_empty() && !door.is_refused {
                report.push(door.without_routes());
            }
            let mut routes = NameTable::default();
            let mut first: HashMap<String, &Made<'_>> = HashMap::new();
            for one in &made {
                for host in &one.hosts {
                    if routes.add(host, Arc::clone(&one.rule)) {
                        first.insert(host.to_string(), one);
                    } else if let Some(other) = first.get(&host.to_string()) {
                        report.push(second(door, host, one, other));
                    }
                }
            }
            let is_passthrough = door.is_passthrough();
            // Also one that is refused owns its names: no other listener gets them.
            table.add(&door.host, L4Listener { name: door.name.clone(), is_passthrough, routes });
            let tls = door.tls.clone().filter(|_| !door.is_refused);
            listeners.push(PortListener { name: door.name.clone(), host: door.host.clone(), tls });
            if let Some(Ok(Policy::Udp(written))) =
                setting(&[&door.policies[0], &door.policies[1]], "udp").map(Attached::policy)
            {
                udp = *written;
            }
        }
        let carries = match port.protocol {
            Protocol::Tls => Carries::Tls,
            Protocol::Udp => Carries::Udp,
            _ => Carries::Tcp,
        };
        let tls = match listeners.iter().any(|listener| listener.tls.is_some()) {
            true => Some(tls_set(&listeners)?),
            false => None,
        };
        let workers = u32::try_from(self.workers).unwrap_or(u32::MAX).max(1);
        udp.max_sessions = udp.max_sessions.div_ceil(workers);
        Some(Port {
            address,
            name,
            listeners: listeners.into(),
            tls,
            table: Builder::new().build(),
            priority: None,
            settings: port.settings,
            l4: Some(Box::new(L4 { carries, listeners: table, udp })),
            role: None,
        })
    }
}

/// A route that has nothing to say because of another one.
fn second(door: &Door<'_>, host: &Host, loser: &Made<'_>, winner: &Made<'_>) -> Diag {
    let what = match host {
        Host::Any => format!("{} `{}` gets no connections of `{}`", loser.kind, loser.doc.name(), door.name),
        host => {
            format!(
                "{} `{}` gets no connections for `{host}` of `{}`",
                loser.kind,
                loser.doc.name(),
                door.name
            )
        }
    };
    Diag::warning(Rule::NoEffect, loser.doc.origin(loser.doc.span), what)
        .why(format!("{} `{}` has them already: it comes first", winner.kind, winner.doc.name()))
        .fix("attach one of them to another listener")
        .related(winner.doc.origin(winner.doc.span), "this one has them")
}
