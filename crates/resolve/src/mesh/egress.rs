//! What leaves the mesh: where it may go, and the proxy that it goes through.

use rhumb_base::outside::Destinations;
use rhumb_model::doc::DEFAULT_NAMESPACE;
use rhumb_model::kind::mesh::{Egress, Mesh, Outside, ServiceName, Upstream};
use rhumb_model::kind::service::{Carried, WorkloadMtls};
use rhumb_model::{Diag, Doc, Rule, Spanned};
use rhumb_plan::mesh as plan;

use super::{Carries, Maker, PortKey, Side, backend_name, shown};
use crate::collect::Entry;
use crate::mesh::routed::{Routed, any_port};
use crate::settings::cidr;

impl<'d> Maker<'d> {
    /// What the Mesh says about connections that leave.
    pub(super) fn egress(&mut self, Entry { doc, spec }: Entry<'d, Mesh>) {
        if doc.broken {
            self.let_nothing_leave(doc);
            // What could be read of its lists, where it names the gateway that it is to go through.
            let listed = spec.egress_gateway.iter().flat_map(|gateway| gateway.destinations.iter());
            let allowed = spec.egress_gateway.iter().flat_map(|_| spec.allowed_names.iter());
            self.out.egress = plan::Egress::Deny(destinations(listed.chain(allowed)));
        } else if *spec.egress == Egress::Deny {
            self.out.egress = plan::Egress::Deny(destinations(spec.allowed_names.iter()));
        } else if let Some(name) = spec.allowed_names.first() {
            let diag =
                Diag::warning(Rule::NoEffect, doc.origin(name.span), "`allowedNames` without `egress: deny`")
                    .why("everything is allowed already")
                    .fix("write `egress: deny`");
            self.out.diags.push(diag);
        }
    }

    /// Of a Mesh with mistakes it is not known what it forbids, nor whether everything is to go through a proxy.
    pub(super) fn let_nothing_leave(&mut self, doc: &Doc) {
        self.out.egress = plan::Egress::Deny(Destinations::default());
        if self.sidecar.is_some() {
            let what =
                "connections out of the mesh are refused, as far as no gateway is known to lead them out";
            let diag = Diag::warning(Rule::NoEffect, doc.origin(doc.span), what)
                .why("the Mesh has mistakes: what cannot be read may forbid them, or lead them through one")
                .fix("correct them");
            self.out.diags.push(diag);
        }
    }

    /// True when not all that the Mesh says is known.
    fn is_mesh_broken(&self) -> bool {
        self.unreadable.is_some() || self.mesh.is_some_and(|mesh| mesh.doc.broken)
    }

    /// Finds the service of the egress gateway, and whether this process is one.
    pub(super) fn find_egress_gateway(&mut self) {
        let (Some(Entry { doc, spec }), Some(sidecar)) = (self.mesh, self.sidecar) else { return };
        let Some(written) = &spec.egress_gateway else { return };
        let namespace = written.service.namespace().unwrap_or(DEFAULT_NAMESPACE);
        // With a mistake in the Mesh nothing leaves another way: what is listed and cannot be read may be anything.
        self.out.egress_gateway = Some(plan::EgressGateway {
            service: shown(&(namespace.into(), written.service.name().into(), 0)).into(),
            destinations: if doc.broken {
                Destinations::default()
            } else {
                destinations(written.destinations.iter())
            },
        });
        let service = self.service(doc, &written.service.span, (namespace, written.service.name()));
        let Some(service) = service else { return };
        let Some(port) = self.one_port(doc, written.service.span, service, written.port.as_ref()) else {
            return;
        };
        let name: PortKey = (namespace.into(), service.doc.name().into(), port);
        let spoken = self.port(&name).and_then(|(_, port)| port.app_protocol.as_ref());
        if let Some(spoken) =
            spoken.filter(|_| self.port(&name).is_some_and(|(_, port)| port.carried() != Carried::Tcp))
        {
            let what = format!("the egress gateway `{}` says what is spoken there", service.doc.name());
            let diag = Diag::error(Rule::Conflict, service.doc.origin(spoken.span), what)
                .why("connections out of the mesh are carried as they are, each in its own protocol")
                .fix("remove `appProtocol`")
                .related(doc.origin(written.service.span), "the Mesh names it");
            self.out.diags.push(diag);
            return;
        }
        self.out.is_egress_gateway = sidecar.spec.inbound.iter().any(|inbound| {
            let of = inbound.service.namespace().unwrap_or_else(|| sidecar.doc.namespace());
            (of, inbound.service.name(), inbound.port.number()) == (namespace, service.doc.name(), port)
        });
        if let Some(gateway) = &mut self.out.egress_gateway {
            gateway.service = shown(&name).into();
        }
        self.egress_gateway = Some(name);
    }

    /// True for the port whose connections leave the mesh.
    pub(super) fn leads_out(&self, name: &PortKey) -> bool {
        self.egress_gateway.as_ref() == Some(name)
    }

    /// The way to the egress gateway, where it is not this process: that of connections to a service.
    pub(super) fn way_out(&mut self, routed: &Routed) {
        let Some(name) = self.egress_gateway.clone().filter(|_| !self.out.is_egress_gateway) else { return };
        let Some((service, _)) = self.port(&name) else { return };
        let without = self.workloads_of(service).into_iter().filter_map(|workload| {
            let mtls = workload.spec.mtls.as_ref().filter(|mtls| ***mtls == WorkloadMtls::None)?;
            let what = format!("Workload `{}` leads nobody out of the mesh", workload.doc.name());
            let diag = Diag::warning(Rule::NoEffect, workload.doc.origin(mtls.span), what)
                .why("it has no proxy, and connections that leave go to a proxy of the egress gateway or nowhere")
                .fix("remove `mtls: none`, and run a proxy there");
            Some(diag)
        });
        let without: Vec<_> = without.collect();
        self.out.diags.extend(without);
        let own = backend_name(&name.1, name.2);
        self.backend(&name);
        self.door(&name, &own, None, Side::Outbound, Carries::Connections, service.doc);
        if !routed.connections.contains(&name) && !routed.connections.contains(&any_port(&name)) {
            self.route("TCPRoute", &name, &own, service.doc);
        }
    }

    /// Names that captured programs reach through the egress gateway.
    pub(super) fn outside_names(&self) -> Option<plan::Outside> {
        let gateway = self.out.egress_gateway.as_ref().filter(|_| !self.out.is_egress_gateway)?;
        let names = match &self.out.egress {
            _ if !gateway.destinations.is_empty() => Some(gateway.destinations.clone()),
            plan::Egress::Deny(listed) => Some(listed.clone()),
            plan::Egress::Allow => None,
        };
        let control = self.sidecar.and_then(|sidecar| sidecar.spec.identity.as_ref()?.control.as_ref());
        let servers = control.into_iter().flat_map(|control| control.addresses.iter());
        let own = servers.map(|server| normal(server.host())).collect();
        Some(plan::Outside { names, own })
    }

    /// The egress gateway is nothing to call.
    pub(super) fn calls_egress_gateway(&mut self, doc: &Doc, written: &Spanned<ServiceName>) {
        let what = format!("Service `{}` is the egress gateway of the mesh", written.name());
        let diag = Diag::error(Rule::Conflict, doc.origin(written.span), what)
            .why("connections go through it to something out of the mesh, never to itself")
            .fix("write `host: NAME:PORT` instead of `service`");
        self.out.diags.push(diag);
    }

    /// A socket by which the workload calls something out of the mesh.
    pub(super) fn outside_upstream(&mut self, doc: &Doc, upstream: &Upstream) {
        let Some(host) = &upstream.host else { return };
        let (name, port) = (normal(host.host()), host.port().get());
        let label = format!("{}/upstream/{}:{port}", doc.namespace(), host.host());
        let way = plan::Mesh {
            egress: self.out.egress.clone(),
            egress_gateway: self.out.egress_gateway.clone(),
            ..plan::Mesh::default()
        };
        let address = name.parse().ok();
        if way.exit(address.is_none().then_some(&*name), address) == plan::Exit::Refused {
            let (why, fix) = if self.is_mesh_broken() {
                ("the Mesh has mistakes: what cannot be read may forbid them", "correct them")
            } else {
                (
                    "the Mesh says `egress: deny`, and does not list it",
                    "add it to `allowedNames` or to `egressGateway.destinations` of the Mesh",
                )
            };
            let what = format!("connections to {name} are refused");
            self.out.diags.push(Diag::warning(Rule::NoEffect, doc.origin(host.span), what).why(why).fix(fix));
        }
        let role = plan::Role::Outside(name.into(), port);
        self.out.sockets.push((upstream.listen.get(), label.into(), role));
    }
}

/// A host as names are compared.
fn normal(host: &str) -> Box<str> {
    host.trim_end_matches('.').to_ascii_lowercase().into()
}

fn destinations<'a>(written: impl Iterator<Item = &'a Spanned<Outside>>) -> Destinations {
    let (mut blocks, mut names) = (Vec::new(), Vec::new());
    for one in written {
        match &one.value {
            Outside::Block(block) => blocks.extend(cidr(block)),
            Outside::Name(name) => names.push(normal(name.as_str())),
        }
    }
    Destinations { blocks: blocks.into(), names: names.into() }
}
