//! The mesh: Services, Workloads, a Mesh and a Sidecar, brought to what everything else is resolved from.
//!
//! A port of a Service becomes a Backend with its Workloads as endpoints; one that is called or served here becomes a
//! listener that no socket is bound to, and where nobody has written a route, one that sends everything to the Backend.
//! What is made so has names that nobody can write (`orders:8080`, `inbound/orders:8080`), and is kept by what it says,
//! so that what did not change is not compiled again.

mod settings;
mod names;
mod services;
mod backend;
mod routed;
mod egress;
mod doors;
mod made;
mod own;
mod planned;

pub(crate) use self::own::Own;
pub(crate) use self::planned::{planned, sockets};
use self::routed::Routed;
pub(crate) use self::routed::holds;

use foldhash::{HashMap, HashMapExt};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use rhumb_base::spiffe::TrustDomain;
use rhumb_base::virtual_address::{Allocation, VirtualAddress};
use rhumb_model::kind::mesh::{DEFAULT_TRUST_DOMAIN, Mesh, Sidecar, default_tunnel_port};
use rhumb_model::kind::service::{Service, Workload};
use rhumb_model::{Diag, Doc, Rule, Spec};
use rhumb_plan::mesh as plan;

use crate::collect::{Entry, Key, key};

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
    /// Server names of services that are served here, each with its port of the workload, if it has one there, and
    /// `NAMESPACE/NAME:PORT`.
    pub(crate) inbound: Vec<(Arc<str>, Option<u16>, PortKey)>,
    pub(crate) capture: Option<plan::Capture>,
    pub(crate) egress: plan::Egress,
    pub(crate) egress_gateway: Option<plan::EgressGateway>,
    pub(crate) is_egress_gateway: bool,
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

fn virtual_name(service: &Doc) -> String {
    format!("{}/{}", service.namespace(), service.name())
}

struct Maker<'d> {
    services: HashMap<Key<'d>, Entry<'d, Service>>,
    workloads: HashMap<&'d str, Vec<Entry<'d, Workload>>>,
    mesh: Option<Entry<'d, Mesh>>,
    /// A Mesh of which nothing could be read.
    unreadable: Option<&'d Doc>,
    sidecar: Option<Entry<'d, Sidecar>>,
    trust_domain: TrustDomain,
    has_ipv6: bool,
    before: HashMap<Box<str>, Arc<Doc>>,
    made: HashMap<Box<str>, Arc<Doc>>,
    virtual_addresses: Allocation,
    advice: Arc<Advice>,
    /// The port that connections out of the mesh are for.
    egress_gateway: Option<PortKey>,
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
            unreadable: None,
            sidecar: None,
            trust_domain: default_trust_domain(),
            has_ipv6,
            before,
            made: HashMap::new(),
            virtual_addresses: std::mem::take(&mut self.virtual_addresses),
            advice: Arc::clone(&self.advice),
            egress_gateway: None,
            out: Expanded::default(),
        };
        maker.collect(docs);
        maker.settings();
        maker.find_egress_gateway();
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
                Spec::Unreadable if &*doc.id.kind == "Mesh" => self.unreadable = Some(doc),
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

    fn make(&mut self, docs: &'d [Arc<Doc>]) {
        let (mut outbound, mut wanted) = (Vec::<PortKey>::new(), Vec::<PortKey>::new());
        let add = |list: &mut Vec<PortKey>, port: PortKey| {
            if !list.contains(&port) {
                list.push(port);
            }
        };
        if let Some(sidecar) = self.sidecar {
            for upstream in &sidecar.spec.upstreams {
                let Some(written) = &upstream.service else {
                    self.outside_upstream(sidecar.doc, upstream);
                    continue;
                };
                let namespace = written.namespace().unwrap_or_else(|| sidecar.doc.namespace());
                let service = self.service(sidecar.doc, &written.span, (namespace, written.name()));
                let Some(service) = service else { continue };
                let port = self.one_port(sidecar.doc, written.span, service, upstream.port.as_ref());
                let Some(port) = port else { continue };
                let name: PortKey = (namespace.into(), service.doc.name().into(), port);
                if self.leads_out(&name) {
                    self.calls_egress_gateway(sidecar.doc, written);
                    continue;
                }
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
        self.way_out(&routed);
        self.inbound();
    }

    fn any(&self) -> IpAddr {
        if self.has_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
    }
}
