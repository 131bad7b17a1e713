//! Gateways to ports and listeners; routes to listeners.

use foldhash::{HashMap, HashMapExt};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rhumb_base::name::ListenerName;
use rhumb_model::kind::gateway::{FromNamespaces, Gateway, GatewayClass, Listener, Protocol, TlsMode};
use rhumb_model::kind::refs::{GATEWAY_GROUP, ParentRef};
use rhumb_model::kind::service::Carried;
use rhumb_model::scalar::Hostname;
use rhumb_model::short::CLASS;
use rhumb_model::{Diag, Doc, Rule, Spanned, Spec};
use rhumb_plan::PortSettings;
use rhumb_route::Host;
use rhumb_tls::ServerTls;

use crate::backends::Identity;
use crate::certificate::{Servers, of_secret};
use crate::collect::{Docs, Entry, Key, key, namespace_or};
use crate::grant::{self, Grants};
use crate::l4;
use crate::mesh::{self, Carries, Expanded, MeshDoor, Side};
use crate::policies::{self, Level, Policies};
use crate::report::Report;
use crate::settings::{self, Settings, Surroundings};

/// Who implements Gateways of a class that is ours.
const CONTROLLER: &str = "rhumb.dev/gateway";

/// A listener of a Gateway that is ours.
pub(crate) struct Door<'a> {
    pub(crate) name: ListenerName,
    pub(crate) label: Arc<str>,
    pub(crate) host: Host,
    gateway: Entry<'a, Gateway>,
    listener: &'a Listener,
    /// Policies of the Gateway and of the listener.
    pub(crate) policies: [Level; 2],
    pub(crate) identity: Option<usize>,
    /// The ports on which it accepts requests; none when something about it is wrong.
    pub(crate) ports: Vec<SocketAddr>,
    pub(crate) tls: Option<(u64, ServerTls)>,
    /// It is wrong, and owns its requests only to refuse them.
    pub(crate) is_refused: bool,
    /// It is one of a Service, and no socket is bound to it.
    pub(crate) mesh: Option<&'a MeshDoor>,
}

/// How things stand with a listener, as far as its document does not say.
#[derive(PartialEq, Eq)]
pub(crate) struct Standing {
    name: ListenerName,
    identity: Option<u64>,
    ports: Vec<SocketAddr>,
    is_refused: bool,
}

impl Door<'_> {
    /// What its listener speaks.
    pub(crate) fn protocol(&self) -> Protocol {
        *self.listener.protocol
    }

    /// The warning about a listener that no route is attached to.
    pub(crate) fn without_routes(&self) -> Diag {
        let doc = self.gateway.doc;
        let what = format!("listener `{}` has no route", self.listener.name.as_str());
        let kinds = l4::route_kinds(self).join(" or ");
        Diag::warning(Rule::NoEffect, doc.origin(self.listener.name.span), what)
            .why("what comes to it is turned away")
            .fix(format!("add a {kinds} that is attached to it"))
    }

    /// Its listener passes TLS on without decrypting it.
    pub(crate) fn is_passthrough(&self) -> bool {
        is_passthrough(self.listener)
    }
}

fn is_passthrough(listener: &Listener) -> bool {
    listener.tls.as_ref().is_some_and(|tls| *tls.mode == TlsMode::Passthrough)
}

/// A port with its doors.
pub(crate) struct PortPlan<'a> {
    /// Indices of doors, in the order of documents.
    pub(crate) doors: Vec<usize>,
    pub(crate) protocol: Protocol,
    pub(crate) settings: PortSettings,
    config: Option<Key<'a>>,
    /// The Gateway that was here first.
    gateway: &'a Doc,
}

/// What happens to a Gateway.
enum Served {
    /// Its doors.
    Ours(std::ops::Range<usize>),
    /// It is not served: it has mistakes, which were told, or belongs to somebody else.
    NotServed,
}

/// All Gateways.
pub(crate) struct Doors<'a> {
    pub(crate) doors: Vec<Door<'a>>,
    pub(crate) ports: BTreeMap<SocketAddr, PortPlan<'a>>,
    /// UDP has port numbers of its own.
    pub(crate) udp_ports: BTreeMap<SocketAddr, PortPlan<'a>>,
    pub(crate) identities: Vec<Identity>,
    gateways: HashMap<Key<'a>, Served>,
    /// Doors of Services.
    services: HashMap<Key<'a>, Vec<usize>>,
    /// The namespace that calls come from.
    client: Option<&'a str>,
    /// Settings of ports that no Gateway has.
    pub(crate) port_settings: PortSettings,
}

impl<'a> Doors<'a> {
    /// Opens the listeners of all Gateways.
    pub(crate) fn open(
        docs: &'a Docs<'a>,
        grants: &Grants<'a>,
        policies: &Policies<'a>,
        around: &Surroundings,
        servers: Servers<'a>,
        mesh: &'a Expanded,
        report: &mut Report,
    ) -> (Self, Settings<'a>) {
        let mut this = Self {
            doors: Vec::new(),
            ports: BTreeMap::new(),
            udp_ports: BTreeMap::new(),
            identities: Vec::new(),
            gateways: HashMap::new(),
            services: HashMap::new(),
            client: mesh.sidecar.as_ref().map(|sidecar| sidecar.namespace()),
            port_settings: PortSettings::default(),
        };
        let classes: Vec<_> = docs.gateways.all.iter().map(|gateway| class(docs, *gateway, report)).collect();
        let configs: Vec<_> = docs
            .gateways
            .all
            .iter()
            .zip(&classes)
            .map(|(gateway, class)| config(docs, *gateway, class.as_ref()?.as_ref(), report))
            .collect();
        let named: Vec<Key<'_>> = configs.iter().flatten().flatten().copied().collect();
        let settings = Settings::new(docs, &named, report);
        for (gateway, config) in docs.gateways.all.iter().zip(&configs) {
            let served = match config {
                Some(config) if !gateway.doc.broken => {
                    let first = this.doors.len();
                    let identity = this.identity(docs, grants, *gateway, report);
                    this.gateway(*gateway, identity, policies, *config, &settings, around, &servers, report);
                    Served::Ours(first..this.doors.len())
                }
                _ => Served::NotServed,
            };
            this.gateways.insert(key(gateway.doc), served);
        }
        this.port_settings = of_mesh(settings.of(None).0);
        for door in &mesh.doors {
            this.mesh_door(door, policies);
        }
        (this, settings)
    }

    /// Opens a listener of a Service.
    fn mesh_door(&mut self, mesh: &'a MeshDoor, policies: &Policies<'a>) {
        let Spec::Gateway(spec) = &mesh.doc.spec else { return };
        let Some(listener) = spec.listeners.first() else { return };
        let doc = &*mesh.doc;
        let service: Key<'a> = (&mesh.service.0, &mesh.service.1);
        let level = |section: Option<&str>| match mesh.side {
            Side::Inbound => policies.of_service(service, section, policies::is_of_server),
            Side::Outbound => policies.of_service(service, section, policies::is_of_caller),
        };
        let name = format!("{}/{}/{}", doc.namespace(), doc.name(), listener.name.as_str());
        let name = ListenerName::new(name);
        self.services.entry(service).or_default().push(self.doors.len());
        self.doors.push(Door {
            label: name.shared(),
            name,
            host: Host::Any,
            gateway: Entry { doc, spec },
            listener,
            policies: [
                level(None),
                mesh.section.as_deref().map_or_else(Level::new, |name| level(Some(name))),
            ],
            identity: None,
            ports: vec![SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), mesh.service.2)],
            tls: None,
            is_refused: false,
            mesh: Some(mesh),
        });
    }

    #[expect(clippy::too_many_arguments, reason = "one call, and each is another concern")]
    fn gateway(
        &mut self,
        gateway: Entry<'a, Gateway>,
        identity: Result<Option<usize>, ()>,
        policies: &Policies<'a>,
        config: Option<Key<'a>>,
        settings: &Settings<'a>,
        around: &Surroundings,
        servers: &Servers<'a>,
        report: &mut Report,
    ) {
        let Entry { doc, spec } = gateway;
        let (settings, config) = settings.of(config);
        let addresses: Vec<IpAddr> = match &*spec.addresses {
            [] if around.has_ipv6 => vec![Ipv6Addr::UNSPECIFIED.into()],
            [] => vec![Ipv4Addr::UNSPECIFIED.into()],
            written => written.iter().map(|address| address.value.get()).collect(),
        };
        for listener in &spec.listeners {
            let name = format!("{}/{}/{}", doc.namespace(), doc.name(), listener.name.as_str());
            let name = ListenerName::new(name);
            let host = listener.hostname.as_ref().map_or(Host::Any, |hostname| host_of(hostname));
            let terminates =
                matches!(*listener.protocol, Protocol::Https | Protocol::Tls) && !is_passthrough(listener);
            let tls = match terminates {
                true => servers.server(doc, spec, listener, &name, &host, report),
                false => None,
            };
            let is_refused = listener.broken || terminates && tls.is_none() || identity.is_err();
            let mut door = Door {
                label: name.shared(),
                name,
                host,
                gateway,
                listener,
                policies: [
                    policies.of_gateway(key(doc)).clone(),
                    policies.of_listener(key(doc), listener.name.as_str()).clone(),
                ],
                identity: identity.ok().flatten(),
                ports: Vec::new(),
                tls,
                is_refused,
                mesh: None,
            };
            let levels = [&door.policies[0], &door.policies[1]];
            let settings = match l4::port_settings(doc, listener, levels, &settings, report) {
                Some(settings) => settings,
                None => {
                    door.is_refused = true;
                    settings.clone()
                }
            };
            for ip in &addresses {
                let address = SocketAddr::new(*ip, listener.port.number());
                if self.join(&door, address, &settings, config, report) {
                    door.ports.push(address);
                }
            }
            self.doors.push(door);
        }
    }

    /// Puts a listener on a port, unless it cannot share it with those that are there.
    fn join(
        &mut self,
        door: &Door<'a>,
        address: SocketAddr,
        settings: &PortSettings,
        config: Option<Key<'a>>,
        report: &mut Report,
    ) -> bool {
        let doc = door.gateway.doc;
        let index = self.doors.len();
        let protocol = door.protocol();
        let ports = if protocol == Protocol::Udp { &mut self.udp_ports } else { &mut self.ports };
        let port = ports.entry(address).or_insert_with(|| PortPlan {
            doors: Vec::new(),
            protocol,
            settings: settings.clone(),
            config,
            gateway: doc,
        });
        let other =
            port.doors.iter().filter_map(|&at| self.doors.get(at)).find(|other| other.host == door.host);
        let diag = if port.protocol != protocol {
            let (number, other) = (address.port(), port.protocol);
            let is_http = |protocol| matches!(protocol, Protocol::Http | Protocol::Https);
            let (what, why) = if is_http(protocol) && is_http(other) {
                (format!("port {number} is used with and without TLS"), "uses it the other way".to_owned())
            } else {
                (
                    format!("port {number} is used for {} and {}", other.word(), protocol.word()),
                    format!("uses it for {}", other.word()),
                )
            };
            Diag::error(Rule::Conflict, doc.origin(door.listener.protocol.span), what)
                .why(format!("{} {why}: one port speaks one protocol", port.gateway.id))
                .fix("use another port")
                .related(port.gateway.origin(port.gateway.span), "the other Gateway")
        } else if let Some(other) = other {
            let span = door.listener.hostname.as_ref().map_or(door.listener.port.span, |host| host.span);
            let what = format!("two listeners for `{}` on port {}", door.host, address.port());
            Diag::error(Rule::Conflict, doc.origin(span), what)
                .why(format!("`{}` has these requests already: its Gateway comes first", other.name))
                .fix("use another port or hostname, or put the routes on the other listener")
                .related(other.gateway.doc.origin(other.listener.name.span), "the other listener")
        } else if port.config != config {
            let what = format!("Gateways with different settings share port {}", address.port());
            Diag::error(Rule::Conflict, doc.origin(doc.span), what)
                .why("limits and timeouts are those of a port")
                .fix("name the same ProxyConfig in both, or use another port")
                .related(port.gateway.origin(port.gateway.span), "the other Gateway")
        } else if port.settings.proxy_protocol != settings.proxy_protocol {
            let what = format!("listeners with different `proxyProtocol` share port {}", address.port());
            Diag::error(Rule::Conflict, doc.origin(door.listener.name.span), what)
                .why("the header comes before anything that tells listeners apart")
                .fix("attach the same Policy to both, or to the Gateway")
                .related(port.gateway.origin(port.gateway.span), "the other Gateway")
        } else {
            port.doors.push(index);
            return true;
        };
        report.push(diag);
        false
    }

    /// Our certificate towards backends; an error when it cannot be had, which is said.
    fn identity(
        &mut self,
        docs: &Docs<'a>,
        grants: &Grants<'a>,
        gateway: Entry<'a, Gateway>,
        report: &mut Report,
    ) -> Result<Option<usize>, ()> {
        let doc = gateway.doc;
        let tls = gateway.spec.tls.as_ref().and_then(|tls| tls.backend.as_ref());
        let Some(reference) = tls.and_then(|tls| tls.client_certificate_ref.as_ref()) else {
            return Ok(None);
        };
        let name = reference.name.as_str();
        let namespace = namespace_or(reference.namespace.as_ref(), doc);
        let (from, to) = ((GATEWAY_GROUP, "Gateway", doc.namespace()), ("", "Secret", name));
        let at = doc.origin(reference.name.span);
        if !grants.allow(from, to, namespace) {
            report.push(grant::refused(at, from, to, namespace));
            return Err(());
        }
        let written = of_secret(docs, (namespace, name), at, report).ok_or(())?;
        let mut hasher = DefaultHasher::new();
        (&written.source.chain, &written.source.key).hash(&mut hasher);
        let certificate = written.parse(report).ok_or(())?;
        self.identities.push(Identity { digest: hasher.finish(), certificate });
        Ok(Some(self.identities.len() - 1))
    }

    /// The port of a listener of a Service.
    pub(crate) fn mesh_port(&self, at: usize) -> Option<PortPlan<'a>> {
        let door = self.doors.get(at)?;
        Some(PortPlan {
            doors: vec![at],
            protocol: door.protocol(),
            settings: self.port_settings.clone(),
            config: None,
            gateway: door.gateway.doc,
        })
    }

    /// How things stand with each listener.
    pub(crate) fn standings(&self) -> impl Iterator<Item = Standing> {
        self.doors.iter().map(|door| Standing {
            name: door.name.clone(),
            identity: door.identity.and_then(|at| Some(self.identities.get(at)?.digest)),
            ports: door.ports.clone(),
            is_refused: door.is_refused,
        })
    }

    /// The doors that a route is attached to, each once.
    pub(crate) fn of_route(&self, docs: &Docs<'a>, route: &Route<'_>, report: &mut Report) -> Vec<usize> {
        let mut doors = Vec::new();
        for parent in route.parents.iter().filter(|parent| !parent.broken) {
            for door in self.of_parent(docs, route, parent, report) {
                if !doors.contains(&door) {
                    doors.push(door);
                }
            }
        }
        if route.parents.is_empty() && !route.doc.broken {
            let what = format!("{} `{}` is attached to no Gateway", route.kind, route.doc.name());
            let diag = Diag::warning(Rule::NoEffect, route.doc.origin(route.doc.span), what)
                .why("it has no `parentRefs`")
                .fix("add `parentRefs: [{name: GATEWAY}]`");
            report.push(diag);
        }
        doors
    }

    fn of_parent(
        &self,
        docs: &Docs<'a>,
        route: &Route<'_>,
        parent: &ParentRef,
        report: &mut Report,
    ) -> Vec<usize> {
        if parent.is_service() {
            return self.of_service(docs, route, parent, report);
        }
        let doc = route.doc;
        let namespace = namespace_or(parent.namespace.as_ref(), doc);
        let name = parent.name.as_str();
        let range = match self.gateways.get(&(namespace, name)) {
            Some(Served::Ours(range)) => range.clone(),
            Some(Served::NotServed) => return Vec::new(),
            None => {
                if !docs.is_unreadable("Gateway", (namespace, name)) {
                    let what = format!("no Gateway `{name}` in namespace `{namespace}`");
                    let names: Vec<&str> = docs.gateways.names(namespace).collect();
                    let mut diag =
                        report.unknown(doc.origin(parent.name.span), what, name, names.into_iter());
                    if let Some(other) = docs.gateways.elsewhere(name) {
                        diag.fix = Some(format!("add `namespace: {other}`, where there is one of this name"));
                    }
                    report.push(diag);
                }
                return Vec::new();
            }
        };
        let of_gateway = self.doors.get(range.clone()).unwrap_or_default();
        let named = |door: &Door<'_>| {
            parent.section_name.as_ref().is_none_or(|section| section.as_str() == door.listener.name.as_str())
        };
        let on_port = |door: &Door<'_>| {
            parent.port.as_ref().is_none_or(|port| port.number() == door.listener.port.number())
        };
        let meant: Vec<usize> = range
            .zip(of_gateway)
            .filter(|(_, door)| named(door) && on_port(door))
            .map(|(at, _)| at)
            .collect();
        if meant.is_empty() {
            self.report_no_listener(doc, parent, of_gateway, report);
            return Vec::new();
        }
        let door = |at: &usize| self.doors.get(*at);
        let refusals: Vec<_> =
            meant.iter().map(|at| door(at).and_then(|door| refusal(docs, door, route))).collect();
        let allowed: Vec<usize> =
            meant.iter().zip(&refusals).filter(|(_, refusal)| refusal.is_none()).map(|(at, _)| *at).collect();
        if allowed.is_empty() {
            let reason = refusals.into_iter().flatten().next().unwrap_or_default();
            let what = format!("Gateway `{name}` does not accept {} `{}`", route.kind, doc.name());
            let diag = Diag::error(Rule::NotGranted, doc.origin(parent.name.span), what).why(reason);
            let listener = meant.first().and_then(door);
            let related =
                listener.map(|door| (door.gateway.doc.origin(door.listener.name.span), "the listener"));
            report.push(match related {
                Some((at, words)) => diag.related(at, words),
                None => diag,
            });
            return Vec::new();
        }
        let (fitting, others): (Vec<usize>, Vec<usize>) = allowed
            .into_iter()
            .partition(|at| door(at).is_some_and(|door| intersects(&door.host, route.hosts)));
        if fitting.is_empty()
            && let Some(other) = others.first().and_then(door)
        {
            let what = format!("no hostname of {} `{}` is one of its listener's", route.kind, doc.name());
            let span = route.hostnames.first().map_or(parent.name.span, |hostname| hostname.span);
            let diag = Diag::warning(Rule::NoEffect, doc.origin(span), what)
                .why(format!("listener `{}` accepts requests for `{}` only", other.name, other.host))
                .fix("change the hostnames, or attach the route to another listener")
                .related(other.gateway.doc.origin(other.listener.name.span), "the listener");
            report.push(diag);
        }
        fitting
    }

    /// The doors of a Service that a route names as its parent: those of calls from here. A process that does not call it has
    /// none, and nothing is wrong with that.
    fn of_service(
        &self,
        docs: &Docs<'a>,
        route: &Route<'_>,
        parent: &ParentRef,
        report: &mut Report,
    ) -> Vec<usize> {
        let doc = route.doc;
        let (namespace, name) = (namespace_or(parent.namespace.as_ref(), doc), parent.name.as_str());
        let Some(service) = docs.services.get((namespace, name)) else {
            if !docs.is_unreadable("Service", (namespace, name)) {
                let what = format!("no Service `{name}` in namespace `{namespace}`");
                let names: Vec<&str> = docs.services.names(namespace).collect();
                let diag = report.unknown(doc.origin(parent.name.span), what, name, names.into_iter());
                report.push(diag);
            }
            return Vec::new();
        };
        let ports = service.spec.ports.iter();
        let mut ports = ports
            .filter(|port| parent.port.as_ref().is_none_or(|wanted| wanted.number() == port.port.number()))
            .peekable();
        if ports.peek().is_none() {
            let span = parent.port.as_ref().map_or(parent.name.span, |port| port.span);
            let diag = Diag::error(
                Rule::UnknownReference,
                doc.origin(span),
                format!("Service `{name}` has no such port"),
            )
            .related(service.doc.origin(service.doc.span), "the Service");
            report.push(diag);
            return Vec::new();
        }
        let has_requests = matches!(route.kind, "HTTPRoute" | "GRPCRoute");
        let side = if doc.name().starts_with(mesh::INBOUND) { Side::Inbound } else { Side::Outbound };
        // Requests are served as connections too, when proxies that are not ours bring them so.
        if side == Side::Outbound
            && !ports.any(|port| match port.carried() {
                Carried::Tcp => !has_requests,
                Carried::Found => true,
                Carried::Http1 | Carried::Http2 => has_requests,
            })
        {
            let what = format!("{} `{}` does not fit Service `{name}`", route.kind, doc.name());
            let diag = Diag::error(Rule::Conflict, doc.origin(parent.name.span), what)
                .why(match has_requests {
                    true => {
                        "its connections are carried as they are (`appProtocol`), so nobody sees requests"
                    }
                    false => "its `appProtocol` says that it speaks HTTP",
                })
                .fix(if has_requests { "use a TCPRoute" } else { "use an HTTPRoute" })
                .related(service.doc.origin(service.doc.span), "the Service");
            report.push(diag);
            return Vec::new();
        }
        if !mesh::holds(doc.namespace(), namespace, self.client) {
            return Vec::new();
        }
        let carries = if has_requests { Carries::Requests } else { Carries::Connections };
        let fits = |at: &&usize| {
            let door = self.doors.get(**at).and_then(|door| door.mesh);
            door.is_some_and(|door| {
                door.side == side
                    && door.carries == carries
                    && parent.port.as_ref().is_none_or(|port| port.number() == door.service.2)
            })
        };
        let here = self.services.get(&(namespace, name));
        here.into_iter().flatten().filter(fits).copied().collect()
    }

    fn report_no_listener(
        &self,
        doc: &Doc,
        parent: &ParentRef,
        of_gateway: &[Door<'_>],
        report: &mut Report,
    ) {
        let gateway = parent.name.as_str();
        let names = of_gateway.iter().map(|door| door.listener.name.as_str());
        let diag = match (&parent.section_name, &parent.port) {
            (Some(section), port) => {
                let is_there = names.clone().any(|name| name == section.as_str());
                match port {
                    Some(port) if is_there => Diag::error(
                        Rule::UnknownReference,
                        doc.origin(port.span),
                        format!("listener `{}` of Gateway `{gateway}` has another port", section.as_str()),
                    )
                    .fix("remove `port`"),
                    _ => {
                        let what = format!("Gateway `{gateway}` has no listener `{}`", section.as_str());
                        report.unknown(doc.origin(section.span), what, section.as_str(), names)
                    }
                }
            }
            (None, Some(port)) => {
                let mut ports: Vec<String> =
                    of_gateway.iter().map(|door| door.listener.port.get().to_string()).collect();
                ports.dedup();
                Diag::error(
                    Rule::UnknownReference,
                    doc.origin(port.span),
                    format!("Gateway `{gateway}` has no listener on port {}", port.get()),
                )
                .why(format!("its ports: {}", ports.join(", ")))
            }
            (None, None) => return,
        };
        report.push(diag);
    }
}

/// What of a route decides where it is attached.
pub(crate) struct Route<'r> {
    /// HTTPRoute or GRPCRoute.
    pub(crate) kind: &'static str,
    pub(crate) doc: &'r Doc,
    pub(crate) parents: &'r [ParentRef],
    pub(crate) hostnames: &'r [Spanned<Hostname>],
    /// The same, as the engine has them.
    pub(crate) hosts: &'r [Host],
}

/// Why a listener does not allow a route; nothing when it does (Gateway API `allowedRoutes`).
fn refusal(docs: &Docs<'_>, door: &Door<'_>, route: &Route<'_>) -> Option<String> {
    let name = door.listener.name.as_str();
    let own = door.gateway.doc.namespace();
    let namespace = route.doc.namespace();
    let fitting = l4::route_kinds(door);
    if !fitting.contains(&route.kind) {
        let protocol = door.protocol().word();
        let mode = if door.is_passthrough() { ", mode Passthrough," } else { "" };
        return Some(format!(
            "listener `{name}` is of protocol {protocol}{mode} and takes {}s",
            fitting.join("s and ")
        ));
    }
    let Some(allowed) = &door.listener.allowed_routes else {
        return (own != namespace).then(|| {
            format!("listener `{name}` allows routes of its own namespace `{own}` only (no `allowedRoutes`)")
        });
    };
    if allowed.broken {
        return Some(format!("`allowedRoutes` of listener `{name}` has mistakes"));
    }
    let kinds = &allowed.kinds;
    if !kinds.is_empty() && !kinds.iter().any(|kind| kind.kind.as_str() == route.kind) {
        return Some(format!("listener `{name}` allows no {}s (`allowedRoutes.kinds`)", route.kind));
    }
    let from = allowed.namespaces.as_ref();
    match from.map_or(FromNamespaces::Same, |namespaces| *namespaces.from) {
        FromNamespaces::All => None,
        FromNamespaces::Same => (own != namespace).then(|| {
            format!("listener `{name}` allows routes of its own namespace `{own}` only (`allowedRoutes`)")
        }),
        FromNamespaces::Selector => {
            let selector = from.and_then(|namespaces| namespaces.selector.as_ref());
            let chosen = selector
                .is_some_and(|selector| selector.matches(|label| docs.namespace_label(namespace, label)));
            (!chosen).then(|| {
                format!("the labels of namespace `{namespace}` are none that listener `{name}` selects (`allowedRoutes`)")
            })
        }
    }
}

/// How long a workload's own connection to its proxy, or a connection between proxies, may rest when nothing is written. Client
/// libraries of applications keep theirs for minutes, and take one that is closed meanwhile for a failure.
const MESH_IDLE: Duration = Duration::from_secs(3600);

/// Streams of a connection between proxies when nothing is written: connections of many clients may live in them for long.
const MESH_STREAMS: u32 = 1000;

/// The settings of ports of the mesh: what is not written is what suits workloads rather than strangers.
fn of_mesh(settings: PortSettings) -> PortSettings {
    let strangers = PortSettings::default();
    let mut settings = settings;
    if settings.idle_timeout == strangers.idle_timeout {
        settings.idle_timeout = MESH_IDLE;
    }
    if settings.max_concurrent_streams == strangers.max_concurrent_streams {
        settings.max_concurrent_streams = MESH_STREAMS;
    }
    settings
}

/// True when some request can be for both; a route without hostnames takes the listener's.
fn intersects(listener: &Host, hosts: &[Host]) -> bool {
    hosts.is_empty() || hosts.iter().any(|host| host.intersect(listener).is_some())
}

/// A hostname that was read already.
pub(crate) fn host_of(hostname: &Hostname) -> Host {
    // What the model takes is one, so there is always something: and if not, nothing is matched rather than all.
    Host::parse(hostname.as_str()).unwrap_or_else(|_| Host::Exact("invalid".into()))
}

/// The class of a Gateway: nothing when it is not ours or there is none; `Some(None)` is the one that is built in.
fn class<'a>(
    docs: &Docs<'a>,
    gateway: Entry<'a, Gateway>,
    report: &mut Report,
) -> Option<Option<Entry<'a, GatewayClass>>> {
    let written = &gateway.spec.class_name;
    let at = gateway.doc.origin(written.span);
    match docs.classes.get(("", written.as_str())) {
        None if written.as_str() == CLASS => Some(None),
        None => {
            if !docs.is_unreadable("GatewayClass", ("", written.as_str())) {
                let what = format!("no GatewayClass `{}`", written.as_str());
                let names: Vec<&str> = [CLASS].into_iter().chain(docs.classes.names("")).collect();
                let diag = report.unknown(at, what, written.as_str(), names.into_iter());
                let fix = diag.fix.clone().unwrap_or_else(|| format!("write `gatewayClassName: {CLASS}`"));
                report.push(diag.fix(fix));
            }
            None
        }
        Some(class) if &*class.spec.controller_name.value == CONTROLLER => Some(Some(class)),
        Some(class) => {
            let what = format!("Gateway `{}` is left to another implementation", gateway.doc.name());
            let diag = Diag::warning(Rule::NoEffect, at, what)
                .why(format!(
                    "its class belongs to `{}`, ours are of `{CONTROLLER}`",
                    class.spec.controller_name.value
                ))
                .fix(format!("write `gatewayClassName: {CLASS}`"))
                .related(class.doc.origin(class.spec.controller_name.span), "the class");
            report.push(diag);
            None
        }
    }
}

/// The ProxyConfig of a Gateway: its own, or that of its class, if one is named. Nothing when the Gateway cannot be
/// served as it asks to be.
fn config<'a>(
    docs: &Docs<'a>,
    gateway: Entry<'a, Gateway>,
    class: Option<&Entry<'a, GatewayClass>>,
    report: &mut Report,
) -> Option<Option<Key<'a>>> {
    let namespace = gateway.doc.namespace();
    let own = gateway.spec.infrastructure.as_ref().and_then(|own| own.parameters_ref.as_ref());
    if let Some(parameters) = own {
        return settings::named(docs, gateway.doc, namespace, parameters, report).map(Some);
    }
    match class.and_then(|class| Some((class, class.spec.parameters_ref.as_ref()?))) {
        None => Some(None),
        Some((class, parameters)) => {
            settings::named(docs, class.doc, namespace, parameters, report).map(Some)
        }
    }
}
