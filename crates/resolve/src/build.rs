//! Everything together.

use std::cell::OnceCell;
use std::sync::Arc;

use rhumb_model::kind::gateway::Protocol;
use rhumb_model::{Diag, Doc};
use rhumb_plan::process::Process;
use rhumb_plan::{Plan, Port, PortListener, Rule};
use rhumb_route::Builder;
use rhumb_tls::{ServerTlsSet, ServerTlsSetBuilder};

use crate::attach::{Doors, PortPlan};
use crate::backends::{Backends, DnsBackend};
use crate::certificate::Servers;
use crate::collect::Docs;
use crate::grant::Grants;
use crate::policies::Policies;
use crate::report::Report;
use crate::rules::{Made, Maker};
use crate::settings::Surroundings;

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
    let mut report = Report::default();
    let origins = OnceCell::new();
    let docs = Docs::collect(docs);
    let grants = Grants::new(&docs);
    let keeper = previous.map(|plan| plan.keeper.clone()).unwrap_or_default();
    keeper.tidy();
    let mut policies = Policies::new(&docs, &keeper, &mut report);
    let servers = Servers::new(&docs, &grants, previous, around.unix_seconds);
    let (mut doors, settings) = Doors::open(&docs, &grants, &policies, around, servers, &mut report);
    let mut backends = Backends::new(&docs, previous, *around, settings.process.zone.clone(), &mut report);

    let mut made = Vec::with_capacity(docs.http_routes.all.len() + docs.grpc_routes.all.len());
    let mut maker = Maker {
        docs: &docs,
        grants: &grants,
        doors: &doors,
        policies: &mut policies,
        backends: &mut backends,
        report: &mut report,
    };
    for entry in &docs.http_routes.all {
        maker.http(entry.doc, entry.spec, &mut made);
    }
    for entry in &docs.grpc_routes.all {
        maker.grpc(entry.doc, entry.spec, &mut made);
    }
    let mut l4 = maker.l4(settings.process.workers.unwrap_or(around.workers));
    let wants = std::mem::take(&mut policies.wants);
    policies.report_unused(&docs, &mut report);
    backends.serve_policies(wants, &origins, &mut report);
    backends.check_unused(&mut report);

    let ports = std::mem::take(&mut doors.ports);
    let mut rules: Vec<Vec<_>> = Vec::new();
    rules.resize_with(doors.doors.len(), Vec::new);
    for (door, rule) in made as Vec<Made> {
        if let Some(rules) = rules.get_mut(door) {
            rules.push(rule);
        }
    }
    let udp_ports = std::mem::take(&mut doors.udp_ports);
    let ports = ports.into_iter().filter_map(|(address, port)| match port.protocol {
        Protocol::Http | Protocol::Https => self::port(address, port, &doors, &rules),
        _ => l4.port(address, port, &doors, &mut report),
    });
    let ports = ports.map(Arc::new).collect();
    let udp_ports =
        udp_ports.into_iter().filter_map(|(address, port)| l4.port(address, port, &doors, &mut report));
    let udp_ports = udp_ports.map(Arc::new).collect();

    let mut used = backends.used;
    used.sort_by(|a, b| a.name.cmp(&b.name));
    let revision = previous.map_or(0, |plan| plan.revision) + 1;
    let names_clients = used.iter().any(|backend| backend.target.proxy_protocol.is_some());
    Resolved {
        plan: Plan { revision, ports, udp_ports, backends: used, keeper, names_clients },
        process: settings.process,
        diagnostics: report.diags,
        dns: backends.dns,
    }
}

/// A port; nothing when none of its listeners can be served.
fn port(
    address: std::net::SocketAddr,
    port: PortPlan<'_>,
    doors: &Doors<'_>,
    rules: &[Vec<Arc<rhumb_route::Rule<Rule>>>],
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
    let table = builder.build();
    Some(Port {
        address,
        name: first.name.clone(),
        listeners: listeners.into(),
        tls,
        priority: Port::common_priority(&table),
        table,
        settings: port.settings,
        l4: None,
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
