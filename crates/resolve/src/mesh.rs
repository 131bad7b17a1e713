//! The mesh: Services, Workloads, a Mesh and a Sidecar, brought to what everything else is resolved from.
//!
//! A port of a Service becomes a Backend with its Workloads as endpoints; one that is called or served here becomes a
//! listener that no socket is bound to, and where nobody has written a route, one that sends everything to the Backend.
//! What is made so has names that nobody can write (`orders:8080`, `inbound/orders:8080`), and is kept by what it says,
//! so that what did not change is not compiled again.

use foldhash::{HashMap, HashMapExt, HashSet};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use rhumb_base::name::ListenerName;
use rhumb_base::spiffe::TrustDomain;
use rhumb_base::virtual_address::{self, Allocation, VirtualAddress};
use rhumb_model::decode::List;
use rhumb_model::kind::filter::FilterAction;
use rhumb_model::kind::health::HealthCheck;
use rhumb_model::kind::mesh::{
    DEFAULT_TRUST_DOMAIN, Egress, Mesh, MeshMtls, Outside, Sidecar, SidecarIdentity, default_tunnel_port,
};
use rhumb_model::kind::refs::ParentRef;
use rhumb_model::kind::service::{
    AppProtocol, Carried, Service, ServicePort, ServiceType, TargetPort, Workload, WorkloadMtls,
};
use rhumb_model::{Diag, Doc, DocId, Rule, Source, Spanned, Spec};
use rhumb_plan::{Plan, Port, PortListener, PortSettings, mesh as plan};
use rhumb_route::{Builder, Host};
use rhumb_tls::mesh::{Bundle, Membership, MeshClient, Svid};
use rhumb_tls::{CertificateSource, ServerTls};

use crate::collect::{Entry, Key, key, namespace_or};
use crate::report::Report;
use crate::settings::Surroundings;

/// What stands before the names of what is served here.
pub(crate) const INBOUND: &str = "inbound/";

/// A port of a Service: namespace, name, number.
pub(crate) type PortKey = (Box<str>, Box<str>, u16);

/// A listener without a socket.
pub(crate) struct MeshDoor {
    /// A Gateway with one listener.
    pub(crate) doc: Arc<Doc>,
    pub(crate) service: PortKey,
    /// The name of the port, by which Policies name it.
    pub(crate) section: Option<Box<str>>,
    pub(crate) side: Side,
    pub(crate) carries: Carries,
    /// Nobody sees requests of this port.
    pub(crate) is_only_carried: bool,
    /// It says that it speaks HTTP.
    pub(crate) is_http: bool,
}

/// Whose side of a call a listener is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The workload calls.
    Outbound,
    /// The workload is called.
    Inbound,
}

/// What a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    Requests,
    Connections,
}

/// How a Backend that stands for a port of a Service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MeshBackend {
    /// The name that its proxies are asked for.
    pub(crate) server_name: Box<str>,
    /// Who its Workloads are.
    pub(crate) identities: Vec<Box<str>>,
    /// The ports of proxies, by the address of the Workload; those without one have none.
    pub(crate) tunnels: HashMap<SocketAddr, u16>,
    /// Endpoints and identities come from elsewhere.
    pub(crate) placed: Option<plan::Placed>,
}

/// What documents of the mesh come to.
#[derive(Default)]
pub(crate) struct Expanded {
    /// Documents that stand for them.
    pub(crate) docs: Vec<Arc<Doc>>,
    pub(crate) doors: Vec<MeshDoor>,
    /// By namespace and name of the Backend.
    pub(crate) backends: HashMap<(Box<str>, Box<str>), MeshBackend>,
    /// Sockets of the mesh, each with what it is for.
    pub(crate) sockets: Vec<(SocketAddr, Box<str>, plan::Role)>,
    /// By address: services that the workload calls.
    pub(crate) addresses: Vec<(SocketAddr, Arc<str>)>,
    /// Server names of services that are served here, each with its port of the workload and `NAMESPACE/NAME:PORT`.
    pub(crate) inbound: Vec<(Arc<str>, u16, PortKey)>,
    pub(crate) capture: Option<plan::Capture>,
    pub(crate) egress: plan::Egress,
    pub(crate) is_permissive: bool,
    pub(crate) trust_domain: Option<TrustDomain>,
    /// The Sidecar of this process.
    pub(crate) sidecar: Option<Arc<Doc>>,
    pub(crate) diags: Vec<Diag>,
}

impl Expanded {
    /// True when the process is part of a mesh.
    pub(crate) fn is_member(&self) -> bool {
        self.sidecar.is_some()
    }
}

/// What a control plane says about services beside their documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// Services, as `NAMESPACE/NAME`, of which everything is here that callers obey; of others there is only where they are,
    /// because routes lead to them. A captured workload calls these; nothing: all.
    pub called: Option<BTreeSet<String>>,
    /// Virtual addresses that it has given to services.
    pub addresses: Vec<(String, VirtualAddress)>,
    /// Services, as `NAMESPACE/NAME`, whose endpoints do not come as documents.
    pub placed: BTreeSet<String>,
}

/// What stands for documents of the mesh, by its text.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) advice: Arc<Advice>,
    made: HashMap<Box<str>, Arc<Doc>>,
    /// By `NAMESPACE/NAME`. Kept, so that a service keeps its address although others come and go.
    virtual_addresses: Allocation,
}

/// The name of a port as it is shown.
pub(crate) fn shown(service: &PortKey) -> String {
    format!("{}/{}:{}", service.0, service.1, service.2)
}

/// The name of the Backend of a port.
pub(crate) fn backend_name(name: &str, port: u16) -> String {
    format!("{name}:{port}")
}

/// Where Kubernetes has the names of Services, whatever the trust domain.
const CLUSTER_ZONE: &str = "svc.cluster.local";

fn virtual_name(service: &Doc) -> String {
    format!("{}/{}", service.namespace(), service.name())
}

fn out_of_addresses(service: &Doc) -> Diag {
    let what = format!("no virtual address is left for Service `{}`", service.name());
    Diag::warning(Rule::Conflict, service.origin(service.span), what)
        .why(format!(
            "at most {} services have one; connections of a captured workload do not find it",
            virtual_address::LIMIT
        ))
        .fix("write a `clusterIP`, or call it through `upstreams`")
}

struct Maker<'d> {
    services: HashMap<Key<'d>, Entry<'d, Service>>,
    workloads: HashMap<&'d str, Vec<Entry<'d, Workload>>>,
    mesh: Option<Entry<'d, Mesh>>,
    sidecar: Option<Entry<'d, Sidecar>>,
    trust_domain: TrustDomain,
    has_ipv6: bool,
    before: HashMap<Box<str>, Arc<Doc>>,
    made: HashMap<Box<str>, Arc<Doc>>,
    virtual_addresses: Allocation,
    advice: Arc<Advice>,
    out: Expanded,
}

impl Memory {
    /// Works out what the documents of the mesh come to.
    pub(crate) fn expand(&mut self, docs: &[Arc<Doc>], has_ipv6: bool) -> Expanded {
        let is_of_mesh = |doc: &&Arc<Doc>| {
            matches!(doc.spec, Spec::Service(_) | Spec::Workload(_) | Spec::Mesh(_) | Spec::Sidecar(_))
        };
        let before = std::mem::take(&mut self.made);
        if docs.iter().find(is_of_mesh).is_none() {
            return Expanded::default();
        }
        let mut maker = Maker {
            services: HashMap::new(),
            workloads: HashMap::new(),
            mesh: None,
            sidecar: None,
            trust_domain: default_trust_domain(),
            has_ipv6,
            before,
            made: HashMap::new(),
            virtual_addresses: std::mem::take(&mut self.virtual_addresses),
            advice: Arc::clone(&self.advice),
            out: Expanded::default(),
        };
        maker.collect(docs);
        maker.settings();
        maker.make(docs);
        self.made = maker.made;
        self.virtual_addresses = maker.virtual_addresses;
        maker.out
    }
}

fn default_trust_domain() -> TrustDomain {
    TrustDomain::parse(DEFAULT_TRUST_DOMAIN).expect("the default trust domain has the right form")
}

impl<'d> Maker<'d> {
    fn collect(&mut self, docs: &'d [Arc<Doc>]) {
        for doc in docs {
            match &doc.spec {
                Spec::Service(spec) => {
                    self.services.insert(key(doc), Entry { doc, spec });
                }
                Spec::Workload(spec) if !doc.broken => {
                    self.workloads.entry(doc.namespace()).or_default().push(Entry { doc, spec });
                }
                Spec::Mesh(spec) => match self.mesh {
                    None => self.mesh = Some(Entry { doc, spec }),
                    Some(first) => self.second(doc, first.doc, "Mesh"),
                },
                Spec::Sidecar(spec) => match self.sidecar {
                    None => {
                        self.sidecar = Some(Entry { doc, spec });
                        self.out.sidecar = Some(Arc::clone(doc));
                    }
                    Some(first) => self.second(doc, first.doc, "Sidecar"),
                },
                _ => {}
            }
        }
    }

    fn second(&mut self, doc: &Doc, first: &Doc, kind: &str) {
        let diag = Diag::error(Rule::Conflict, doc.origin(doc.span), format!("a second {kind}"))
            .why(match kind {
                "Mesh" => "what it says holds for every proxy, so there is one",
                _ => "a process is the proxy of one workload",
            })
            .fix("remove one of them")
            .related(first.origin(first.span), "the first");
        self.out.diags.push(diag);
    }

    fn settings(&mut self) {
        if let Some(Entry { doc, spec }) = self.mesh {
            match TrustDomain::parse(spec.trust_domain.as_str()) {
                Ok(domain) => self.trust_domain = domain,
                Err(invalid) => {
                    let what = format!("`{}` is no trust domain", spec.trust_domain.as_str());
                    let at = doc.origin(spec.trust_domain.span);
                    self.out.diags.push(Diag::error(Rule::BadValue, at, what).why(invalid.to_string()));
                }
            }
            self.out.is_permissive = *spec.mtls == MeshMtls::Permissive;
            if *spec.egress == Egress::Deny {
                let (mut addresses, mut names) = (Vec::new(), Vec::<Box<str>>::new());
                for name in &spec.allowed_names {
                    match &name.value {
                        Outside::Address(address) => addresses.push(address.to_canonical()),
                        Outside::Name(name) => names.push(name.as_str().to_ascii_lowercase().into()),
                    }
                }
                self.out.egress = plan::Egress::Deny { addresses: addresses.into(), names: names.into() };
            } else if let Some(name) = spec.allowed_names.first() {
                let diag = Diag::warning(
                    Rule::NoEffect,
                    doc.origin(name.span),
                    "`allowedNames` without `egress: deny`",
                )
                .why("everything is allowed already")
                .fix("write `egress: deny`");
                self.out.diags.push(diag);
            }
        }
        if let Some(own) = self.sidecar.and_then(|sidecar| sidecar.spec.mtls.as_ref()) {
            self.out.is_permissive = **own == MeshMtls::Permissive;
        }
        self.out.trust_domain = Some(self.trust_domain.clone());
    }

    fn make(&mut self, docs: &'d [Arc<Doc>]) {
        let (mut outbound, mut wanted) = (Vec::<PortKey>::new(), Vec::<PortKey>::new());
        let add = |list: &mut Vec<PortKey>, port: PortKey| {
            if !list.contains(&port) {
                list.push(port);
            }
        };
        if let Some(sidecar) = self.sidecar {
            for upstream in &sidecar.spec.upstreams {
                let namespace = upstream.service.namespace().unwrap_or_else(|| sidecar.doc.namespace());
                let service =
                    self.service(sidecar.doc, &upstream.service.span, (namespace, upstream.service.name()));
                let Some(service) = service else { continue };
                let port = self.one_port(sidecar.doc, upstream.service.span, service, upstream.port.as_ref());
                let Some(port) = port else { continue };
                let name: PortKey = (namespace.into(), service.doc.name().into(), port);
                let role = plan::Role::Upstream(shown(&name).into());
                let label = format!("{}/upstream/{}", sidecar.doc.namespace(), backend_name(&name.1, name.2));
                self.out.sockets.push((upstream.listen.get(), label.into(), role));
                add(&mut outbound, name);
            }
            if let Some(capture) = &sidecar.spec.capture {
                for service in self.services.values().copied().filter(|service| self.is_called(service)) {
                    for port in &service.spec.ports {
                        let name =
                            (service.doc.namespace().into(), service.doc.name().into(), port.port.number());
                        add(&mut outbound, name);
                    }
                }
                // The order of a map says nothing.
                outbound.sort_unstable();
                self.names(sidecar, capture.dns.number());
                let label = |what: &str| format!("{}/{what}", sidecar.doc.namespace()).into();
                let any = self.any();
                self.out.sockets.push((
                    SocketAddr::new(any, capture.outbound.number()),
                    label("capture-outbound"),
                    plan::Role::Outbound,
                ));
                self.out.sockets.push((
                    SocketAddr::new(any, capture.inbound.number()),
                    label("capture-inbound"),
                    plan::Role::Inbound,
                ));
            }
            if !sidecar.spec.inbound.is_empty() {
                let address = sidecar.spec.tunnel.as_ref().map(|written| written.get());
                let address = address.unwrap_or_else(|| SocketAddr::new(self.any(), default_tunnel_port()));
                let label = format!("{}/tunnel", sidecar.doc.namespace());
                self.out.sockets.push((address, label.into(), plan::Role::Tunnel));
            }
        }
        let routed = Routed::find(docs, self.sidecar.map(|sidecar| sidecar.doc.namespace()));
        for name in outbound.iter().chain(&routed.backends) {
            add(&mut wanted, name.clone());
        }
        for name in &wanted {
            self.backend(name);
        }
        for name in &outbound {
            self.outbound(name, &routed);
        }
        self.inbound();
    }

    /// Names of services, each with an address that tells which it is.
    fn names(&mut self, sidecar: Entry<'d, Sidecar>, dns: u16) {
        let mut zones: Vec<Box<str>> = vec![CLUSTER_ZONE.into()];
        let own = format!("svc.{}", self.trust_domain);
        if own != CLUSTER_ZONE {
            zones.push(own.into());
        }
        let mut capture = plan::Capture { dns, names: Vec::new(), zones };
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
    fn is_called(&self, service: &Entry<'d, Service>) -> bool {
        self.advice.called.as_ref().is_none_or(|called| called.contains(&virtual_name(service.doc)))
    }

    fn any(&self) -> IpAddr {
        if self.has_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
    }

    /// The Service that is named; when there is none that is told.
    fn service(
        &mut self,
        doc: &Doc,
        span: &rhumb_model::Span,
        name: (&str, &str),
    ) -> Option<Entry<'d, Service>> {
        if let Some(service) = self.services.get(&name) {
            return Some(*service);
        }
        let what = format!("no Service `{}` in namespace `{}`", name.1, name.0);
        let mut diag = Diag::error(Rule::UnknownReference, doc.origin(*span), what);
        let mut names: Vec<&str> = self
            .services
            .keys()
            .filter(|(namespace, _)| *namespace == name.0)
            .map(|(_, name)| *name)
            .collect();
        names.sort_unstable();
        diag = match rhumb_model::decode::nearest(name.1, names.into_iter()) {
            Some(near) => diag.fix(format!("did you mean `{near}`?")),
            None => diag.fix("add a Service with its ports"),
        };
        self.out.diags.push(diag);
        None
    }

    /// The port that is written, or the only one.
    fn one_port(
        &mut self,
        doc: &Doc,
        span: rhumb_model::Span,
        service: Entry<'d, Service>,
        written: Option<&Spanned<rhumb_model::scalar::Port>>,
    ) -> Option<u16> {
        let ports: Vec<u16> = service.spec.ports.iter().map(|port| port.port.number()).collect();
        let listed = || ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let diag = match (written, &*ports) {
            (Some(port), _) if ports.contains(&port.number()) => return Some(port.number()),
            (None, [only]) => return Some(*only),
            (Some(port), _) => {
                let what = format!("Service `{}` has no port {}", service.doc.name(), port.number());
                Diag::error(Rule::UnknownReference, doc.origin(port.span), what)
                    .why(format!("its ports: {}", listed()))
            }
            (None, _) => {
                let what = format!("Service `{}` has several ports", service.doc.name());
                Diag::error(Rule::MissingField, doc.origin(span), what)
                    .why(format!("its ports: {}", listed()))
                    .fix("add `port:`")
            }
        };
        self.out.diags.push(diag.related(service.doc.origin(service.doc.span), "the Service"));
        None
    }

    fn port(&self, name: &PortKey) -> Option<(Entry<'d, Service>, &'d ServicePort)> {
        let service = *self.services.get(&(&*name.0, &*name.1))?;
        let port = service.spec.ports.iter().find(|port| port.port.number() == name.2)?;
        Some((service, port))
    }

    /// The name that proxies are asked for.
    fn server_name(&self, name: &PortKey) -> String {
        format!("{}.{}.{}.svc.{}", name.2, name.1, name.0, self.trust_domain)
    }

    /// The Backend of a port: its Workloads.
    fn backend(&mut self, name: &PortKey) {
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
    fn health_of(&mut self, service: Entry<'d, Service>, is_placed: bool) -> Option<HealthCheck> {
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
    fn own_health(&self) -> Option<HealthCheck> {
        let sidecar = self.sidecar?;
        let named = sidecar.spec.workload.as_ref().and_then(|own| own.name.as_ref());
        let name = named.map_or_else(|| sidecar.doc.name(), |name| name.value.as_str());
        let own = self.workloads.get(sidecar.doc.namespace())?.iter().find(|own| own.doc.name() == name)?;
        own.spec.health.clone()
    }

    /// The Workloads that serve a Service.
    fn workloads_of(&self, service: Entry<'d, Service>) -> Vec<Entry<'d, Workload>> {
        let all = self.workloads.get(service.doc.namespace()).into_iter().flatten();
        let selector = &service.spec.selector.entries;
        let serves = |workload: &&Entry<'d, Workload>| {
            workload.spec.services.iter().any(|name| name.as_str() == service.doc.name())
                || !selector.is_empty()
                    && selector.iter().all(|(key, value)| workload.doc.label(key) == Some(value))
        };
        all.filter(serves).copied().collect()
    }

    /// Listeners and routes of a port that is called from here.
    fn outbound(&mut self, name: &PortKey, routed: &Routed) {
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
    fn inbound(&mut self) {
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
            self.out.inbound.push((self.server_name(&name).into(), target.port(), name));
        }
    }

    fn door(
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
        let is_only_carried = carried == Some(Carried::Tcp);
        let is_http = matches!(carried, Some(Carried::Http1 | Carried::Http2));
        let service = name.clone();
        self.out.doors.push(MeshDoor { doc, service, section, side, carries, is_only_carried, is_http });
    }

    /// A route that sends everything to the Backend of a port.
    fn route(&mut self, kind: &str, name: &PortKey, own: &str, of: &Doc) {
        let spec = format!(
            "parentRefs: [{{group: \"\", kind: Service, name: {}, port: {}}}]\n  \
             rules: [{{backendRefs: [{{name: {}, port: {}}}]}}]",
            name.1, name.2, name.1, name.2
        );
        self.push(kind, &name.0, own, &spec, of);
    }

    fn push(&mut self, kind: &str, namespace: &str, name: &str, spec: &str, of: &Doc) {
        self.push_with(kind, namespace, name, spec, of, |_| {});
    }

    fn push_with(
        &mut self,
        kind: &str,
        namespace: &str,
        name: &str,
        spec: &str,
        of: &Doc,
        change: impl FnOnce(&mut Spec),
    ) {
        let doc = self.document(kind, namespace, name, spec, of, change);
        self.out.docs.extend(doc);
    }

    /// A document of ours, the one from before when it says the same.
    fn document(
        &mut self,
        kind: &str,
        namespace: &str,
        name: &str,
        spec: &str,
        of: &Doc,
        change: impl FnOnce(&mut Spec),
    ) -> Option<Arc<Doc>> {
        let version = match kind {
            "Backend" => "rhumb.dev/v1alpha1",
            _ => "gateway.networking.k8s.io/v1",
        };
        let text = format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: service, namespace: {namespace}}}\nspec:\n  {spec}\n# {name}\n"
        );
        if let Some(doc) = self.made.get(&*text) {
            return Some(Arc::clone(doc));
        }
        let doc = match self.before.remove(&*text) {
            Some(doc) => doc,
            None => {
                let source =
                    Arc::new(Source::new(format!("Service {}/{}", of.namespace(), of.name()), 0, &*text));
                let read = rhumb_model::read(&source, None, &[]);
                debug_assert!(read.diags.iter().all(|diag| !diag.is_error()), "{:?}\n{text}", read.diags);
                let mut doc = Doc::clone(read.docs.first()?);
                doc.id =
                    Arc::new(DocId { kind: kind.into(), namespace: namespace.into(), name: name.into() });
                change(&mut doc.spec);
                Arc::new(doc)
            }
        };
        self.made.insert(text.into(), Arc::clone(&doc));
        Some(doc)
    }
}

/// Where a Workload listens for a port of a Service.
fn target(port: &ServicePort, workload: &Workload) -> Option<u16> {
    match port.target_port.as_deref() {
        None => Some(port.port.number()),
        Some(TargetPort::Number(number)) => Some(number.number()),
        Some(TargetPort::Name(name)) => workload.ports.get(name.as_str()).map(|port| port.number()),
    }
}

/// A name that stands for all ports of a Service.
fn any_port(name: &PortKey) -> PortKey {
    (name.0.clone(), name.1.clone(), 0)
}

/// What routes say of Services.
#[derive(Default)]
struct Routed {
    /// Ports, 0 for all of one Service, that requests have routes for.
    requests: HashSet<PortKey>,
    connections: HashSet<PortKey>,
    /// Ports that some route sends to.
    backends: Vec<PortKey>,
}

impl Routed {
    fn find(docs: &[Arc<Doc>], client: Option<&str>) -> Self {
        let mut this = Self::default();
        for doc in docs {
            let parents = |parents: &[ParentRef], to: &mut HashSet<PortKey>| {
                for parent in parents.iter().filter(|parent| parent.is_service()) {
                    let namespace = namespace_or(parent.namespace.as_ref(), doc);
                    if holds(doc.namespace(), namespace, client) {
                        let port = parent.port.as_ref().map_or(0, |port| port.number());
                        to.insert((namespace.into(), parent.name.as_str().into(), port));
                    }
                }
            };
            let mut refer = |kind: &str, namespace: Option<&str>, name: &str, port: Option<u16>| {
                if let (true, Some(port)) = (kind == "Service", port) {
                    this.backends.push((
                        namespace.unwrap_or_else(|| doc.namespace()).into(),
                        name.into(),
                        port,
                    ));
                }
            };
            match &doc.spec {
                Spec::HttpRoute(route) => {
                    parents(&route.parent_refs, &mut this.requests);
                    for rule in &route.rules {
                        for one in &rule.backend_refs {
                            let namespace = one.namespace.as_ref().map(|namespace| namespace.as_str());
                            let port = one.port.as_ref().map(|port| port.number());
                            refer(one.kind.as_str(), namespace, one.name.as_str(), port);
                        }
                        for filter in &rule.filters {
                            let Some(FilterAction::Mirror(mirror)) = filter.action() else { continue };
                            let one = &mirror.backend_ref;
                            let namespace = one.namespace.as_ref().map(|namespace| namespace.as_str());
                            let port = one.port.as_ref().map(|port| port.number());
                            refer(one.kind.as_str(), namespace, one.name.as_str(), port);
                        }
                    }
                }
                Spec::GrpcRoute(route) => {
                    parents(&route.parent_refs, &mut this.requests);
                    for one in route.rules.iter().flat_map(|rule| &rule.backend_refs) {
                        let namespace = one.namespace.as_ref().map(|namespace| namespace.as_str());
                        let port = one.port.as_ref().map(|port| port.number());
                        refer(one.kind.as_str(), namespace, one.name.as_str(), port);
                    }
                }
                Spec::TcpRoute(route) => {
                    parents(&route.parent_refs, &mut this.connections);
                    for one in route.rules.iter().flat_map(|rule| &rule.backend_refs) {
                        let namespace = one.namespace.as_ref().map(|namespace| namespace.as_str());
                        let port = one.port.as_ref().map(|port| port.number());
                        refer(one.kind.as_str(), namespace, one.name.as_str(), port);
                    }
                }
                Spec::TlsRoute(route) => {
                    for one in route.rules.iter().flat_map(|rule| &rule.backend_refs) {
                        let namespace = one.namespace.as_ref().map(|namespace| namespace.as_str());
                        let port = one.port.as_ref().map(|port| port.number());
                        refer(one.kind.as_str(), namespace, one.name.as_str(), port);
                    }
                }
                _ => {}
            }
        }
        this
    }
}

/// True when a route that names a Service as its parent holds for calls from here: one of the Service's own namespace
/// does for every caller, another one for callers of its namespace (GEP-1426, producer and consumer routes).
pub(crate) fn holds(route: &str, service: &str, client: Option<&str>) -> bool {
    route == service || client == Some(route)
}

/// Who this process is in the mesh.
#[derive(Default)]
pub(crate) struct Own {
    pub(crate) membership: Option<Membership>,
    identity: Option<Box<(Svid, Bundle)>>,
    /// For proxies of callers.
    server: Option<ServerTls>,
    keeping: Option<plan::Keeping>,
    app_socket: Option<plan::AppSocket>,
}

impl Own {
    /// What the Sidecar says about it. The membership is that of the plan before, so that connections live on.
    pub(crate) fn find(
        mesh: &Expanded,
        previous: Option<&Plan>,
        around: &Surroundings,
        report: &mut Report,
    ) -> Self {
        let (Some(doc), Some(domain)) = (&mesh.sidecar, &mesh.trust_domain) else { return Self::default() };
        let Spec::Sidecar(spec) = &doc.spec else { return Self::default() };
        let Some(written) = &spec.identity else {
            if !spec.inbound.is_empty() {
                let diag =
                    Diag::error(Rule::MissingField, doc.origin(spec.span), "field `identity` is missing")
                        .why("the workload serves others of the mesh, who want to know whom they talk to")
                        .fix("add `identity: {certificate: file:PATH, key: file:PATH, bundle: file:PATH}`");
                report.push(diag);
            }
            return Self::default();
        };
        let before = previous.and_then(|plan| plan.mesh.as_ref()?.membership.clone());
        let membership = before
            .filter(|before| before.trust_domain() == domain)
            .unwrap_or_else(|| Membership::new(domain.clone()));
        let mut this = Self::default();
        if let (Some(certificate), Some(key), Some(bundle)) =
            (&written.certificate, &written.key, &written.bundle)
        {
            let origin = format!("{}: identity", doc.id);
            let source = CertificateSource {
                chain: certificate.value.0.as_bytes().to_vec(),
                key: key.value.0.as_bytes().to_vec(),
                origin: origin.as_str().into(),
            };
            let own = Svid::parse(&source).map_err(|error| (certificate.span, error));
            let bundle =
                Bundle::parse(bundle.value.as_bytes(), domain, &origin).map_err(|error| (bundle.span, error));
            let both = own.and_then(|own| {
                let bundle = bundle?;
                let now = u64::try_from(around.unix_seconds).unwrap_or(0);
                // A trial: what peers would not take is told now, not when it is in force.
                let trial = Membership::new(domain.clone());
                trial.swap(own.clone(), bundle.clone(), now).map_err(|error| (certificate.span, error))?;
                Ok((own, bundle))
            });
            match both {
                Ok(both) => this.identity = Some(Box::new(both)),
                Err((span, error)) => {
                    let what = format!("this identity cannot be used: {error}");
                    report.push(Diag::error(Rule::Certificate, doc.origin(span), what));
                    return this;
                }
            }
        }
        this.keeping = keeping(doc, spec, written);
        this.app_socket = written.serve.as_ref().map(|serve| plan::AppSocket {
            path: serve.socket.value.clone(),
            users: serve.users.iter().filter_map(|user| u32::try_from(user.get()).ok()).collect(),
        });
        match ServerTls::member(&membership, MeshClient::Required, vec![b"h2".to_vec()]) {
            Ok(server) => this.server = Some(server),
            Err(error) => {
                let what = format!("nobody can be served: {error}");
                report.push(Diag::error(Rule::Certificate, doc.origin(written.span), what));
            }
        }
        this.membership = Some(membership);
        this
    }
}

/// Who gives certificates out, where it is not the documents.
fn keeping(doc: &Doc, sidecar: &Sidecar, written: &SidecarIdentity) -> Option<plan::Keeping> {
    if let Some(api) = &written.workload_api {
        return Some(plan::Keeping::WorkloadApi { socket: api.socket.value.clone() });
    }
    let control = written.control.as_ref()?;
    let directory = control.state_directory.as_ref().map(|path| path.value.clone());
    let named = sidecar.workload.as_ref().and_then(|own| own.name.as_ref());
    let name = named.map_or_else(|| doc.id.name.to_string(), |name| name.value.to_string());
    Some(plan::Keeping::Issuer {
        addresses: control
            .addresses
            .iter()
            .map(|address| format!("{}:{}", address.host(), address.port()).into())
            .collect(),
        token: control.token.as_ref().map(|token| token.value.0.clone()),
        service_account: control
            .service_account
            .as_ref()
            .map(|account| (account.token.value.clone(), account.bundle.value.clone())),
        directory: directory.unwrap_or_else(|| format!("/var/lib/rhumb/{}.{name}", doc.id.namespace).into()),
    })
}

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
pub(crate) fn plan(
    mesh: &Expanded,
    own: Own,
    ports: Vec<(&MeshDoor, Arc<Port>)>,
    previous: Option<&Plan>,
) -> Option<Arc<plan::Mesh>> {
    if !mesh.is_member() {
        return None;
    }
    let before = previous.and_then(|plan| plan.mesh.as_ref());
    let places = before.map(|before| Arc::clone(&before.places)).unwrap_or_default();
    let mut plan = plan::Mesh {
        egress: mesh.egress.clone(),
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
        plan.inbound_ports.entry(*port).or_insert_with(|| Arc::clone(key));
    }
    Some(Arc::new(plan))
}
