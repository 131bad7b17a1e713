//! The Backend that stands for a port of a Service: its Workloads, and how each is reached.

use foldhash::{HashMap, HashMapExt};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use rhumb_model::decode::List;
use rhumb_model::kind::health::HealthCheck;
use rhumb_model::kind::service::{Carried, Service, ServiceType, TargetPort, Workload, WorkloadMtls};
use rhumb_model::{Diag, Rule, Spec};
use rhumb_plan::mesh as plan;

use super::services::target;
use super::{Maker, MeshBackend, PortKey, backend_name, virtual_name};
use crate::collect::Entry;

impl<'d> Maker<'d> {
    /// The Backend of a port: its Workloads.
    pub(super) fn backend(&mut self, name: &PortKey) {
        let Some((service, port)) = self.port(name) else { return };
        let protocol = match port.carried() {
            Carried::Http2 => "h2c",
            _ => "http/1",
        };
        if *service.spec.service_type == ServiceType::ExternalName {
            let Some(external) = &service.spec.external_name else { return };
            let text = format!("endpoints: [\"{}:{}\"]\n  protocol: {protocol}", external.as_str(), name.2);
            self.push("Backend", &name.0, &backend_name(&name.1, name.2), &text, service.doc);
            return;
        }
        let mut mesh = MeshBackend {
            server_name: self.server_name(name).into(),
            identities: Vec::new(),
            tunnels: HashMap::new(),
            placed: None,
        };
        let mut endpoints = String::new();
        let is_placed = self.advice.placed.contains(&virtual_name(service.doc));
        if is_placed {
            mesh.placed = Some(plan::Placed {
                service: virtual_name(service.doc).into(),
                port: port.name.as_ref().map_or("", |name| name.as_str()).into(),
                number: name.2,
            });
        }
        for workload in self.workloads_of(service).into_iter().filter(|_| !is_placed) {
            let Some(target) = target(port, workload.spec) else {
                if let Some(TargetPort::Name(target)) = port.target_port.as_deref() {
                    let what =
                        format!("Workload `{}` has no port `{}`", workload.doc.name(), target.as_str());
                    let diag =
                        Diag::warning(Rule::UnknownReference, workload.doc.origin(workload.doc.span), what)
                            .why("it gets no connections for this port of the Service")
                            .fix(format!("add `ports: {{{}: NUMBER}}`", target.as_str()))
                            .related(service.doc.origin(service.doc.span), "the Service");
                    self.out.diags.push(diag);
                }
                continue;
            };
            let address = SocketAddr::new(workload.spec.address.get(), target);
            let _ =
                write!(endpoints, "\n    - {{address: \"{address}\", weight: {}", workload.spec.weight.get());
            if let Some(zone) = &workload.spec.locality {
                let _ = write!(endpoints, ", zone: {}", serde_json::Value::from(&*zone.value));
            }
            endpoints.push('}');
            if workload.spec.mtls.as_ref().is_none_or(|mtls| **mtls != WorkloadMtls::None) {
                mesh.tunnels.insert(address, workload.spec.tunnel_port.number());
                let account = workload.spec.service_account.as_ref().map_or("default", |name| name.as_str());
                if let Ok(id) = self.trust_domain.workload(workload.doc.namespace(), account)
                    && !mesh.identities.iter().any(|known| **known == *id.as_str())
                {
                    mesh.identities.push(id.as_str().into());
                }
            }
        }
        let health = self.health_of(service, is_placed);
        mesh.identities.sort_unstable();
        let is_empty = endpoints.is_empty();
        if is_empty {
            // A Backend has some; this one gets its endpoints from elsewhere, or has none for now.
            endpoints.push_str("\n    - \"0.0.0.0:1\"");
        }
        let mut ways: Vec<_> = mesh.tunnels.iter().collect();
        ways.sort_unstable();
        let note =
            format!("{} {:?} {ways:?} {:?} {:?}", mesh.server_name, mesh.identities, mesh.placed, health);
        let text = format!("endpoints:{endpoints}\n  protocol: {protocol}\n# {note}");
        let own = backend_name(&name.1, name.2);
        self.push_with("Backend", &name.0, &own, &text, service.doc, |spec| {
            let Spec::Backend(backend) = spec else { return };
            if is_empty {
                let backend = Arc::make_mut(backend);
                backend.endpoints = List::of(Vec::new(), backend.span);
            }
            if health.is_some() {
                Arc::make_mut(backend).health = health;
            }
        });
        self.out.backends.insert((name.0.clone(), own.into()), mesh);
    }

    /// How callers ask the Workloads of a Service whether they are well: those without a proxy, which would know.
    pub(super) fn health_of(&mut self, service: Entry<'d, Service>, is_placed: bool) -> Option<HealthCheck> {
        if is_placed {
            return None;
        }
        let workloads = self.workloads_of(service);
        let has_no_proxy = |workload: &Entry<'d, Workload>| {
            workload.spec.mtls.as_ref().is_some_and(|mtls| **mtls == WorkloadMtls::None)
        };
        let first =
            workloads.iter().find(|workload| has_no_proxy(workload) && workload.spec.health.is_some())?;
        if let Some(other) = workloads.iter().find(|workload| !has_no_proxy(workload)) {
            let at = first.spec.health.as_ref().map_or(first.doc.span, |health| health.span);
            let what = format!(
                "the Workloads of Service `{}` are not asked whether they are well",
                service.doc.name()
            );
            let diag = Diag::warning(Rule::NoEffect, first.doc.origin(at), what)
                .why("one of them has a proxy, which asks its application itself; callers ask where no Workload has one")
                .fix("remove `health`, or give those without a proxy a Service of their own")
                .related(other.doc.origin(other.doc.span), "one with a proxy");
            self.out.diags.push(diag);
            return None;
        }
        first.spec.health.clone()
    }

    /// How the proxy of this workload asks its application whether it is well.
    pub(super) fn own_health(&self) -> Option<HealthCheck> {
        let sidecar = self.sidecar?;
        let named = sidecar.spec.workload.as_ref().and_then(|own| own.name.as_ref());
        let name = named.map_or_else(|| sidecar.doc.name(), |name| name.value.as_str());
        let own = self.workloads.get(sidecar.doc.namespace())?.iter().find(|own| own.doc.name() == name)?;
        own.spec.health.clone()
    }
}
