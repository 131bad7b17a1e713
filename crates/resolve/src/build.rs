//! Everything together.

use std::cell::OnceCell;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use rhumb_model::kind::gateway::Protocol;
use rhumb_model::{Diag, Doc, Spec};
use rhumb_plan::process::Process;
use rhumb_plan::{Plan, Port, PortListener, Rule};
use rhumb_route::{Builder, Table};
use rhumb_tls::{ServerTlsSet, ServerTlsSetBuilder};

use crate::admin;
use crate::attach::{Doors, PortPlan, Standing};
use crate::backends::{self, Backends, DnsBackend};
use crate::certificate::Servers;
use crate::collect::{Docs, created, in_order, key};
use crate::consumers;
use crate::grant::Grants;
use crate::mesh::{self, Carries, Expanded};
use crate::policies::{self, Policies};
use crate::report::Report;
use crate::rules::{self, Maker};
use crate::settings::Surroundings;
use crate::trace::{Ask, Changes};

/// What documents mean.
pub struct Resolved {
    /// What runs. Its revision is the one after that of the plan before.
    pub plan: Plan,
    /// Settings of the process.
    pub process: Process,
    /// Every mistake. With an error among them the plan refuses some of what the documents ask for: a first
    /// start had better not begin with it, and a reload keep what runs.
    pub diagnostics: Vec<Diag>,
    /// Backends with endpoints that have to be looked up.
    pub dns: Vec<DnsBackend>,
}

/// Works out what documents mean. `previous` is the plan in force: what did not change is taken over from it, with its
/// connections, what is known about endpoints, and TLS sessions. Nothing that runs is changed.
pub fn resolve(docs: &[Arc<Doc>], previous: Option<&Plan>, around: &Surroundings) -> Resolved {
    Memory::default().resolve(docs, previous, around)
}

/// What documents came to the last time. Of what is worked out again, only that is compiled which a change concerns.
///
/// A document that did not change has to be the same allocation: that is what tells. Kept are the policies of Policy
/// documents, backends, and the rules of HTTPRoutes and GRPCRoutes, each with what was told of it and with everything
/// that it asked for by name. Gateways and connections without requests are worked out each time: they are few. A change of a
/// Gateway, its class or settings, or of a policy that is attached to one, is a change of all routes.
#[derive(Default)]
pub struct Memory {
    /// The documents, as they were given.
    given: Vec<Arc<Doc>>,
    /// The same, in the order in which they win.
    order: Vec<Arc<Doc>>,
    /// How many of them have no name.
    unnamed: usize,
    /// How many of them tell their age.
    aged: usize,
    around: Option<(bool, usize)>,
    doors: Vec<Standing>,
    consumers: consumers::Kept,
    policies: HashMap<usize, policies::Kept>,
    backends: Vec<backends::Made>,
    routes: HashMap<usize, rules::Kept>,
    mesh: mesh::Memory,
    /// Documents that stand for those of the mesh.
    of_mesh: Vec<Arc<Doc>>,
}

impl Memory {
    /// As [`resolve`], which begins with nothing in mind.
    pub fn resolve(&mut self, docs: &[Arc<Doc>], previous: Option<&Plan>, around: &Surroundings) -> Resolved {
        let mut changes = self.notice(docs, previous.is_none(), around);
        let order = std::mem::take(&mut self.order);
        let mut expanded = self.mesh.expand(&order, around.has_ipv6);
        self.notice_mesh(&expanded.docs, &mut changes);
        let resolved = if expanded.docs.is_empty() {
            self.work_out(&order, &mut changes, previous, around, &mut expanded)
        } else {
            let mut all = order.clone();
            all.extend(expanded.docs.iter().cloned());
            all.sort_by(|a, b| in_order(a).cmp(&in_order(b)));
            self.work_out(&all, &mut changes, previous, around, &mut expanded)
        };
        self.order = order;
        resolved
    }

    /// Takes what a control plane says beside documents, for what is resolved from here on.
    pub fn advise(&mut self, advice: mesh::Advice) {
        self.mesh.advice = Arc::new(advice);
    }

    /// The same as [`Self::notice`] for documents that stand for those of the mesh.
    fn notice_mesh(&mut self, docs: &[Arc<Doc>], changes: &mut Changes) {
        let (before, after): (HashSet<usize>, HashSet<usize>) =
            (self.of_mesh.iter().map(id).collect(), docs.iter().map(id).collect());
        for doc in self.of_mesh.iter().filter(|doc| !after.contains(&id(doc))) {
            note_change(doc, changes);
            self.routes.remove(&id(doc));
        }
        for doc in docs.iter().filter(|doc| !before.contains(&id(doc))) {
            note_change(doc, changes);
        }
        self.of_mesh = docs.to_vec();
    }

    /// Finds out what changed, and forgets what can no longer be true.
    fn notice(&mut self, docs: &[Arc<Doc>], is_first: bool, around: &Surroundings) -> Changes {
        let around = (around.has_ipv6, around.workers);
        // Without a plan in force there is nothing that policies and backends could go on with.
        if self.around != Some(around) || is_first {
            let advice = Arc::clone(&self.mesh.advice);
            *self = Self { around: Some(around), ..Self::default() };
            self.mesh.advice = advice;
        }
        // Documents come file by file: most of them stand where they stood.
        let same = |(a, b): &(&Arc<Doc>, &Arc<Doc>)| Arc::ptr_eq(a, b);
        let first = self.given.iter().zip(docs).take_while(same).count();
        let (old, new) = (self.given.get(first..).unwrap_or_default(), docs.get(first..).unwrap_or_default());
        let last = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
        let (old, new) = (&old[..old.len() - last], &new[..new.len() - last]);
        let (before, after): (HashSet<usize>, HashSet<usize>) =
            (old.iter().map(id).collect(), new.iter().map(id).collect());
        let gone: Vec<Arc<Doc>> = old.iter().filter(|doc| !after.contains(&id(doc))).cloned().collect();
        let mut came: Vec<Arc<Doc>> = new.iter().filter(|doc| !before.contains(&id(doc))).cloned().collect();
        self.given.splice(first..self.given.len() - last, new.iter().cloned());

        let unnamed = |docs: &[Arc<Doc>]| docs.iter().filter(|doc| doc.name().is_empty()).count();
        self.unnamed = (self.unnamed + unnamed(&came)).saturating_sub(unnamed(&gone));
        let aged = |docs: &[Arc<Doc>]| docs.iter().filter(|doc| doc.created.is_some()).count();
        self.aged = (self.aged + aged(&came)).saturating_sub(aged(&gone));
        if self.unnamed > 0 || came.len() > INSERTED_SINGLY {
            self.order = docs.to_vec();
            self.order.sort_by_cached_key(|doc| (created(doc), doc.id.clone()));
        } else {
            let gone: HashSet<usize> = gone.iter().map(id).collect();
            if !gone.is_empty() {
                self.order.retain(|doc| !gone.contains(&id(doc)));
            }
            came.sort_by(|a, b| in_order(a).cmp(&in_order(b)));
            for doc in &came {
                let at = self.order.partition_point(|other| in_order(other) <= in_order(doc));
                self.order.insert(at, Arc::clone(doc));
            }
        }

        let mut changes = Changes::default();
        let mut is_about_all = false;
        for doc in gone.iter().chain(&came) {
            is_about_all |= note_change(doc, &mut changes);
        }
        if is_about_all {
            (self.policies, self.backends, self.routes) = Default::default();
        }
        for doc in &gone {
            self.policies.remove(&id(doc));
            self.routes.remove(&id(doc));
        }
        changes
    }

    fn work_out(
        &mut self,
        docs: &[Arc<Doc>],
        changes: &mut Changes,
        previous: Option<&Plan>,
        around: &Surroundings,
        mesh: &mut Expanded,
    ) -> Resolved {
        let told = std::mem::take(&mut mesh.diags);
        let mesh = &*mesh;
        let origins = OnceCell::new();
        let docs = Docs::collect(docs, self.aged == 0);
        let mut report = Report::new(docs.trace.clone());
        told.into_iter().for_each(|diag| report.push(diag));
        let grants = Grants::new(&docs);
        let own = mesh::Own::find(mesh, previous, around, &mut report);
        let keeper = previous.map(|plan| plan.keeper.clone()).unwrap_or_default();
        keeper.tidy();
        self.consumers.refresh(&docs, changes, &mut report);
        let (mut policies, has_gateways_changed) =
            Policies::new(&docs, &keeper, &self.consumers, &mut self.policies, changes, &mut report);
        for gateway in &docs.gateways.all {
            policies.fill("Gateway", key(gateway.doc));
        }
        for door in &mesh.doors {
            policies.fill("Service", (&door.service.0, &door.service.1));
        }
        let servers = Servers::new(&docs, &grants, previous, around.unix_seconds);
        let (mut doors, settings) =
            Doors::open(&docs, &grants, &policies, around, servers, mesh, &mut report);
        let standings: Vec<Standing> = doors.standings().collect();
        if has_gateways_changed || standings != self.doors {
            self.routes.clear();
            self.doors = standings;
        }
        let kept = std::mem::take(&mut self.backends);
        let zone = settings.process.zone.clone();
        let membership = own.membership.clone();
        let mut backends = Backends::new(
            &docs,
            previous,
            *around,
            zone,
            (mesh, membership.as_ref()),
            kept,
            changes,
            &mut report,
        );

        let mut maker = Maker {
            docs: &docs,
            grants: &grants,
            doors: &doors,
            policies: &mut policies,
            backends: &mut backends,
            report: &mut report,
            kept: &mut self.routes,
            changes,
        };
        let made = maker.rules();
        let mut l4 = maker.l4(settings.process.workers.unwrap_or(around.workers));
        let consumers = policies.of_consumers();
        let mut wants = std::mem::take(&mut policies.wants);
        wants.extend_from_slice(&settings.wants);
        let admin = settings
            .of_process
            .and_then(|entry| admin::access(&docs, entry, (previous, &keeper), &mut wants, &mut report));
        policies.report_unused(&mut report);
        backends.serve_policies(wants, &origins, &mut report);
        backends.check_unused(&mut report);

        let ports = std::mem::take(&mut doors.ports);
        let mut rules: Vec<Vec<_>> = Vec::new();
        rules.resize_with(doors.doors.len(), Vec::new);
        for (door, rule) in made {
            if let Some(rules) = rules.get_mut(door) {
                rules.push(rule);
            }
        }
        let udp_ports = std::mem::take(&mut doors.udp_ports);
        let ports = ports.into_iter().filter_map(|(address, port)| match port.protocol {
            Protocol::Http | Protocol::Https => {
                let before = previous.and_then(|plan| plan.port(address));
                self::port(address, port, &doors, &rules, before.map(|port| &port.table))
            }
            _ => l4.port(address, port, &doors, &mut report),
        });
        let mut ports: Vec<Arc<Port>> = ports.map(Arc::new).collect();
        let udp_ports =
            udp_ports.into_iter().filter_map(|(address, port)| l4.port(address, port, &doors, &mut report));
        let udp_ports = udp_ports.map(Arc::new).collect();
        let mut of_services = Vec::new();
        for (at, door) in doors.doors.iter().enumerate() {
            let (Some(of), Some(&address)) = (door.mesh, door.ports.first()) else { continue };
            let Some(plan) = doors.mesh_port(at) else { continue };
            let port = match of.carries {
                Carries::Requests => {
                    let before = previous.and_then(|plan| plan.mesh_table(&door.name));
                    port(address, plan, &doors, &rules, before)
                }
                Carries::Connections => l4.port(address, plan, &doors, &mut report),
            };
            of_services.extend(port.map(|port| (of, Arc::new(port))));
        }
        ports.extend(mesh::sockets(mesh, &own, &doors.port_settings, &ports, &mut report));
        let (mut used, dns, kept) = backends.into_kept();
        let mesh = mesh::planned(mesh, own, of_services, &dns, previous);
        self.backends = kept;
        used.sort_by(|a, b| a.name.cmp(&b.name));
        let revision = previous.map_or(0, |plan| plan.revision) + 1;
        let names_clients = used.iter().any(|backend| backend.target.proxy_protocol.is_some());
        Resolved {
            plan: Plan {
                revision,
                ports,
                udp_ports,
                backends: used,
                consumers,
                keeper,
                names_clients,
                mesh,
                admin,
            },
            process: settings.process,
            diagnostics: report.diags,
            dns,
        }
    }
}

/// Up to this many new documents are put into the order one by one.
const INSERTED_SINGLY: usize = 64;

/// Tells a document from every other one that exists.
fn id(doc: &Arc<Doc>) -> usize {
    Arc::as_ptr(doc).addr()
}

/// Adds what is no longer as it was when a document has come or gone. True when that is everything.
fn note_change(doc: &Doc, changes: &mut Changes) -> bool {
    let namespace = doc.namespace();
    changes.add(Ask::Document, &doc.id.kind, key(doc));
    changes.add(Ask::Names, &doc.id.kind, ("", ""));
    match &doc.spec {
        Spec::Gateway(_) | Spec::GatewayClass(_) | Spec::ProxyConfig(_) => return true,
        Spec::Policy(policy) => {
            for target in &policy.target_refs {
                if matches!(target.kind.as_str(), "Gateway" | "Service") {
                    return true;
                }
                changes.add(Ask::Attached, target.kind.as_str(), (namespace, target.name.as_str()));
            }
        }
        Spec::ReferenceGrant(_) => {
            changes.add(Ask::Grants, "", (namespace, ""));
        }
        Spec::BackendTlsPolicy(policy) => {
            for target in &policy.target_refs {
                changes.add(Ask::BackendTls, "", (namespace, target.name.as_str()));
            }
        }
        Spec::BackendTrafficPolicy(policy) => {
            for target in &policy.target_refs {
                changes.add(Ask::BackendTraffic, "", (namespace, target.name.as_str()));
            }
        }
        Spec::Unreadable => return matches!(&*doc.id.kind, "Gateway" | "GatewayClass" | "ProxyConfig"),
        Spec::HttpRoute(_)
        | Spec::GrpcRoute(_)
        | Spec::TlsRoute(_)
        | Spec::TcpRoute(_)
        | Spec::UdpRoute(_)
        | Spec::Backend(_)
        | Spec::Consumer(_)
        | Spec::Service(_)
        | Spec::Workload(_)
        | Spec::Mesh(_)
        | Spec::Sidecar(_)
        | Spec::Secret(_)
        | Spec::ConfigMap(_)
        | Spec::Namespace(_) => {}
    }
    false
}

/// A port; nothing when none of its listeners can be served.
fn port(
    address: std::net::SocketAddr,
    port: PortPlan<'_>,
    doors: &Doors<'_>,
    rules: &[Vec<Arc<rhumb_route::Rule<Rule>>>],
    before: Option<&Table<Rule>>,
) -> Option<Port> {
    let here = || port.doors.iter().filter_map(|&at| Some((doors.doors.get(at)?, rules.get(at)?)));
    let first = here().find(|(door, _)| !door.is_refused)?.0;
    let mut builder = Builder::new();
    let mut listeners = Vec::new();
    for (door, rules) in here() {
        // Also one that is refused owns its requests: no other listener gets them.
        let listener = builder.listener(&door.host);
        for rule in rules {
            builder.attach(listener, Arc::clone(rule));
        }
        let tls = door.tls.clone().filter(|_| !door.is_refused);
        listeners.push(PortListener { name: door.name.clone(), host: door.host.clone(), tls });
    }
    let tls = match port.protocol == Protocol::Https {
        true => Some(tls_set(&listeners)?),
        false => None,
    };
    let table = builder.build_after(before);
    Some(Port {
        address,
        name: first.name.clone(),
        listeners: listeners.into(),
        tls,
        priority: Port::common_priority(&table),
        table,
        settings: port.settings,
        l4: None,
        role: None,
    })
}

pub(crate) fn tls_set(listeners: &[PortListener]) -> Option<ServerTlsSet> {
    let servers = listeners.iter().filter_map(|listener| Some((&listener.host, &listener.tls.as_ref()?.1)));
    let set = servers.into_iter().try_fold(ServerTlsSet::builder(), |set, (host, server)| {
        set.add(Some(&host.to_string()), server.clone())
    });
    // Hostnames were read, and differ: they cannot be refused. If one is, the port does not open without it.
    set.ok().map(ServerTlsSetBuilder::build)
}
