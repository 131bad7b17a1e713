//! Listeners without a socket, and the routes behind them where nobody has written one: of ports that are called from
//! here, and of those that are served.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rhumb_model::decode::List;
use rhumb_model::kind::service::{AppProtocol, Carried, TargetPort};
use rhumb_model::{Diag, Doc, Rule, Spec};

use super::routed::{Routed, any_port};
use super::services::target;
use super::{Carries, INBOUND, Maker, MeshDoor, PortKey, Side, backend_name, shown};

impl<'d> Maker<'d> {
    /// Listeners and routes of a port that is called from here.
    pub(super) fn outbound(&mut self, name: &PortKey, routed: &Routed) {
        let Some((service, port)) = self.port(name) else { return };
        let own = backend_name(&name.1, name.2);
        let section = port.name.as_ref().map(|name| Box::from(name.as_str()));
        let carried = port.carried();
        if carried != Carried::Tcp {
            self.door(name, &own, section.clone(), Side::Outbound, Carries::Requests, service.doc);
            if !routed.requests.contains(name) && !routed.requests.contains(&any_port(name)) {
                self.route("HTTPRoute", name, &own, service.doc);
            }
        }
        if matches!(carried, Carried::Tcp | Carried::Found) {
            self.door(name, &own, section, Side::Outbound, Carries::Connections, service.doc);
            if !routed.connections.contains(name) && !routed.connections.contains(&any_port(name)) {
                self.route("TCPRoute", name, &own, service.doc);
            }
        }
        let shown: Arc<str> = shown(name).into();
        if let Some(address) = service.spec.virtual_address() {
            self.out.addresses.push((SocketAddr::new(address, name.2), Arc::clone(&shown)));
        }
        // Workloads are called by their own addresses too, as by clients that look services up themselves.
        for workload in self.workloads_of(service) {
            if let Some(target) = target(port, workload.spec) {
                let address = SocketAddr::new(workload.spec.address.get(), target);
                self.out.addresses.push((address, Arc::clone(&shown)));
            }
        }
    }

    /// What is served here.
    pub(super) fn inbound(&mut self) {
        let Some(sidecar) = self.sidecar else { return };
        let own_health = self.own_health();
        for inbound in &sidecar.spec.inbound {
            let namespace = inbound.service.namespace().unwrap_or_else(|| sidecar.doc.namespace());
            let service =
                self.service(sidecar.doc, &inbound.service.span, (namespace, inbound.service.name()));
            let Some(service) = service else { continue };
            let port = self.one_port(sidecar.doc, inbound.service.span, service, Some(&inbound.port));
            let Some(number) = port else { continue };
            let name: PortKey = (namespace.into(), service.doc.name().into(), number);
            let Some((_, port)) = self.port(&name) else { continue };
            if self.leads_out(&name) {
                self.inbound_out(&name, service.doc);
                continue;
            }
            let target = match (&inbound.target, port.target_port.as_deref()) {
                (Some(target), _) => target.get(),
                (None, Some(TargetPort::Number(target))) => {
                    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), target.number())
                }
                (None, None) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), number),
                (None, Some(TargetPort::Name(target))) => {
                    let what = format!("nothing says which port `{}` is", target.as_str());
                    let diag = Diag::error(Rule::MissingField, sidecar.doc.origin(inbound.span), what)
                        .why("the Service names it in `targetPort`")
                        .fix("add `target: 127.0.0.1:NUMBER`")
                        .related(service.doc.origin(service.doc.span), "the Service");
                    self.out.diags.push(diag);
                    continue;
                }
            };
            let carried = match inbound.protocol.as_deref() {
                None => port.carried(),
                Some(AppProtocol::Http | AppProtocol::Ws) => Carried::Http1,
                Some(
                    AppProtocol::Http2 | AppProtocol::H2c | AppProtocol::KubernetesH2c | AppProtocol::Grpc,
                ) => Carried::Http2,
                Some(_) => Carried::Tcp,
            };
            let own = format!("{INBOUND}{}", backend_name(&name.1, name.2));
            let protocol = if carried == Carried::Http2 { "h2c" } else { "http/1" };
            // A proxy beside its application: nobody else could serve in its place, and a restart is no reason to wait.
            let text = format!(
                "endpoints: [\"{target}\"]\n  protocol: {protocol}\n  outlierDetection: {{enabled: false}}\n# {:?}",
                own_health
            );
            self.push_with("Backend", &name.0, &own, &text, service.doc, |spec| {
                if let (Spec::Backend(backend), Some(health)) = (spec, &own_health) {
                    Arc::make_mut(backend).health = Some(health.clone());
                }
            });
            let section = port.name.as_ref().map(|name| Box::from(name.as_str()));
            if carried != Carried::Tcp {
                self.door(&name, &own, section.clone(), Side::Inbound, Carries::Requests, service.doc);
                self.route("HTTPRoute", &name, &own, service.doc);
            }
            // Requests come as connections too, from proxies that are not ours.
            self.door(&name, &own, section, Side::Inbound, Carries::Connections, service.doc);
            self.route("TCPRoute", &name, &own, service.doc);
            self.out.inbound.push((self.server_name(&name).into(), Some(target.port()), name));
        }
    }

    /// The side of the egress gateway: connections that come there go on to where each of them says.
    fn inbound_out(&mut self, name: &PortKey, of: &Doc) {
        let own = format!("{INBOUND}{}", backend_name(&name.1, name.2));
        // Policies are those of its route; nothing is sent to its Backend.
        let text = "endpoints: [\"0.0.0.0:1\"]\n  outlierDetection: {enabled: false}";
        self.push_with("Backend", &name.0, &own, text, of, |spec| {
            let Spec::Backend(backend) = spec else { return };
            let backend = Arc::make_mut(backend);
            backend.endpoints = List::of(Vec::new(), backend.span);
        });
        self.door(name, &own, None, Side::Inbound, Carries::Connections, of);
        self.route("TCPRoute", name, &own, of);
        self.out.inbound.push((self.server_name(name).into(), None, name.clone()));
    }

    pub(super) fn door(
        &mut self,
        name: &PortKey,
        own: &str,
        section: Option<Box<str>>,
        side: Side,
        carries: Carries,
        of: &Doc,
    ) {
        let (listener, protocol) = match carries {
            Carries::Requests => ("http", "HTTP"),
            Carries::Connections => ("tcp", "TCP"),
        };
        let spec = format!(
            "gatewayClassName: rhumb\n  listeners: [{{name: {listener}, port: {}, protocol: {protocol}, \
             allowedRoutes: {{namespaces: {{from: All}}}}}}]",
            name.2
        );
        let Some(doc) = self.document("Gateway", &name.0, own, &spec, of, |_| {}) else { return };
        let carried = self.port(name).map(|(_, port)| port.carried());
        let leads_out = self.leads_out(name);
        let is_only_carried = leads_out || carried == Some(Carried::Tcp);
        let is_http = !leads_out && matches!(carried, Some(Carried::Http1 | Carried::Http2));
        let service = name.clone();
        self.out.doors.push(MeshDoor { doc, service, section, side, carries, is_only_carried, is_http });
    }

    /// A route that sends everything to the Backend of a port.
    pub(super) fn route(&mut self, kind: &str, name: &PortKey, own: &str, of: &Doc) {
        let spec = format!(
            "parentRefs: [{{group: \"\", kind: Service, name: {}, port: {}}}]\n  \
             rules: [{{backendRefs: [{{name: {}, port: {}}}]}}]",
            name.1, name.2, name.1, name.2
        );
        self.push(kind, &name.0, own, &spec, of);
    }
}
