//! The sockets of the mesh, and the mesh as the data path has it.

use std::sync::Arc;

use rhumb_base::name::ListenerName;
use rhumb_model::{Diag, Rule};
use rhumb_plan::{Plan, Port, PortListener, PortSettings, mesh as plan};
use rhumb_route::{Builder, Host};

use super::{Carries, Expanded, MeshDoor, Own, Side, shown};
use crate::backends::DnsBackend;
use crate::report::Report;

/// The sockets of the mesh.
pub(crate) fn sockets(
    mesh: &Expanded,
    own: &Own,
    settings: &PortSettings,
    others: &[Arc<Port>],
    report: &mut Report,
) -> Vec<Arc<Port>> {
    let Some(sidecar) = &mesh.sidecar else { return Vec::new() };
    let mut ports: Vec<Arc<Port>> = Vec::new();
    for (address, name, role) in &mesh.sockets {
        if let Some(other) = others.iter().chain(&ports).find(|other| other.address == *address) {
            let what = format!("{address} is used by `{}` already", other.name);
            let diag = Diag::error(Rule::Conflict, sidecar.origin(sidecar.span), what)
                .why("one address has one listener")
                .fix("use another port");
            report.push(diag);
            continue;
        }
        let name = ListenerName::new(name.to_string());
        let mut listeners = Vec::new();
        let tls = match role {
            plan::Role::Tunnel => {
                let Some(server) = &own.server else { continue };
                listeners.push(PortListener {
                    name: name.clone(),
                    host: Host::Any,
                    tls: Some((0, server.clone())),
                });
                let Some(set) = crate::build::tls_set(&listeners) else { continue };
                Some(set)
            }
            _ => None,
        };
        ports.push(Arc::new(Port {
            address: *address,
            name,
            listeners: listeners.into(),
            tls,
            table: Builder::new().build(),
            priority: None,
            settings: settings.clone(),
            l4: None,
            role: Some(Box::new(role.clone())),
        }));
    }
    ports
}

/// The mesh as the data path has it.
pub(crate) fn planned(
    mesh: &Expanded,
    own: Own,
    ports: Vec<(&MeshDoor, Arc<Port>)>,
    named: &[DnsBackend],
    previous: Option<&Plan>,
) -> Option<Arc<plan::Mesh>> {
    if !mesh.is_member() {
        return None;
    }
    let before = previous.and_then(|plan| plan.mesh.as_ref());
    let places = before.map(|before| Arc::clone(&before.places)).unwrap_or_default();
    let mut plan = plan::Mesh {
        egress: mesh.egress.clone(),
        egress_gateway: mesh.egress_gateway.clone(),
        is_egress_gateway: mesh.is_egress_gateway,
        is_permissive: mesh.is_permissive,
        membership: own.membership,
        identity: own.identity,
        keeping: own.keeping,
        app_socket: own.app_socket,
        addresses: mesh.addresses.iter().cloned().collect(),
        places,
        capture: mesh.capture.clone(),
        ..plan::Mesh::default()
    };
    if let Some(outside) = plan.capture.as_mut().and_then(|capture| capture.outside.as_mut()) {
        let names = named.iter().flat_map(|backend| &backend.names);
        outside.own.extend(names.map(|name| name.name.trim_end_matches('.').to_ascii_lowercase().into()));
        outside.own.sort_unstable();
        outside.own.dedup();
    }
    for (door, port) in ports {
        let name: Arc<str> = shown(&door.service).into();
        let (services, key) = match door.side {
            Side::Outbound => (&mut plan.outbound, Arc::clone(&name)),
            Side::Inbound => {
                let Some((key, ..)) = mesh.inbound.iter().find(|(.., service)| *service == door.service)
                else {
                    continue;
                };
                (&mut plan.inbound, Arc::clone(key))
            }
        };
        let service = services.entry(key).or_insert_with(|| plan::Service {
            name,
            http: None,
            tcp: None,
            is_http: door.is_http,
        });
        match door.carries {
            Carries::Requests => service.http = Some(port),
            Carries::Connections => service.tcp = Some(port),
        }
    }
    for (key, port, _) in &mesh.inbound {
        if let Some(port) = port {
            plan.inbound_ports.entry(*port).or_insert_with(|| Arc::clone(key));
        }
    }
    Some(Arc::new(plan))
}
