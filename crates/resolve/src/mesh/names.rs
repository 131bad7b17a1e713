//! Names of services, and the virtual addresses that captured connections to them are made to.

use foldhash::HashSet;
use std::net::{IpAddr, SocketAddr};

use rhumb_base::virtual_address;
use rhumb_model::kind::mesh::Sidecar;
use rhumb_model::kind::service::Service;
use rhumb_model::{Diag, Doc, Rule};
use rhumb_plan::mesh as plan;

use super::{Maker, PortKey, shown, virtual_name};
use crate::collect::Entry;

/// Where Kubernetes has the names of Services, whatever the trust domain.
const CLUSTER_ZONE: &str = "svc.cluster.local";

fn out_of_addresses(service: &Doc) -> Diag {
    let what = format!("no virtual address is left for Service `{}`", service.name());
    Diag::warning(Rule::Conflict, service.origin(service.span), what)
        .why(format!(
            "at most {} services have one; connections of a captured workload do not find it",
            virtual_address::LIMIT
        ))
        .fix("write a `clusterIP`, or call it through `upstreams`")
}

impl<'d> Maker<'d> {
    /// Names of services, each with an address that tells which it is.
    pub(super) fn names(&mut self, sidecar: Entry<'d, Sidecar>, dns: u16) {
        let mut zones: Vec<Box<str>> = vec![CLUSTER_ZONE.into()];
        let own = format!("svc.{}", self.trust_domain);
        if own != CLUSTER_ZONE {
            zones.push(own.into());
        }
        let mut capture = plan::Capture { dns, names: Vec::new(), zones, outside: self.outside_names() };
        let mut services: Vec<_> =
            self.services.values().copied().filter(|service| self.is_called(service)).collect();
        services.sort_unstable_by_key(|service| (service.doc.namespace(), service.doc.name()));
        let known: HashSet<String> = services.iter().map(|service| virtual_name(service.doc)).collect();
        self.virtual_addresses.retain(|name| known.contains(name));
        for (name, address) in self.advice.addresses.iter().filter(|(name, _)| known.contains(name)) {
            self.virtual_addresses.restore(name, *address);
        }
        for service in services {
            let (name, namespace) = (service.doc.name(), service.doc.namespace());
            let (v4, v6) = match service.spec.virtual_address() {
                Some(IpAddr::V4(address)) => (Some(address), None),
                Some(IpAddr::V6(address)) => (None, Some(address)),
                None => match self.virtual_addresses.assign(&virtual_name(service.doc)) {
                    Some(address) => (Some(address.v4()), Some(address.v6())),
                    None => {
                        self.out.diags.push(out_of_addresses(service.doc));
                        continue;
                    }
                },
            };
            let written = service.spec.virtual_address().is_some();
            for address in v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6)).filter(|_| !written) {
                for port in &service.spec.ports {
                    let number = port.port.number();
                    let of = shown(&(namespace.into(), name.into(), number));
                    self.out.addresses.push((SocketAddr::new(address, number), of.into()));
                }
            }
            let zoned = capture.zones.iter().map(|zone| format!("{name}.{namespace}.{zone}"));
            let mut names: Vec<String> = zoned.collect();
            names.push(format!("{name}.{namespace}.svc"));
            names.push(format!("{name}.{namespace}"));
            if namespace == sidecar.doc.namespace() {
                names.push(name.to_owned());
            }
            capture.names.extend(names.into_iter().map(|name| (name.into(), v4, v6)));
        }
        self.out.capture = Some(capture);
    }

    /// True when a captured workload calls the service as it is here.
    pub(super) fn is_called(&self, service: &Entry<'d, Service>) -> bool {
        let of = |name: &PortKey| (&*name.0, &*name.1) == (service.doc.namespace(), service.doc.name());
        // What is called there is out of the mesh.
        !self.egress_gateway.as_ref().is_some_and(of)
            && self.advice.called.as_ref().is_none_or(|called| called.contains(&virtual_name(service.doc)))
    }
}
