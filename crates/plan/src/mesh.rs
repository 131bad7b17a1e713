//! The mesh as one proxy sees it: services that its workload calls, and services that it serves.
//!
//! What is done with a connection to a service is compiled as for a listener, into [`Port`]s that no socket is bound to:
//! one for requests, one for connections that are carried as they are. Which of them a connection gets is known from
//! where it came in: the address that it was made to, or the server name of its TLS.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rhumb_base::outside::Destinations;
use rhumb_tls::mesh::{Bundle, Expected, Membership, Svid};
use rhumb_upstream::Target;

use crate::port::Port;

/// The services of one proxy.
#[derive(Default)]
pub struct Mesh {
    /// Services that the workload calls, by [`Service::name`].
    pub outbound: HashMap<Arc<str>, Service>,
    /// Services that it serves, by the server name that the proxies of callers ask for.
    pub inbound: HashMap<Arc<str>, Service>,
    /// The same by the port of the workload that a connection is for.
    pub inbound_ports: HashMap<u16, Arc<str>>,
    /// Names of services in `outbound` by the addresses that connections of the workload are made to.
    pub addresses: HashMap<SocketAddr, Arc<str>>,
    /// The same for endpoints that come from elsewhere than the plan.
    pub places: Arc<Addresses>,
    /// What `rhumb intercept` brings here, when it is asked for.
    pub capture: Option<Capture>,
    /// Where connections may go that lead to no service.
    pub egress: Egress,
    /// What they go through.
    pub egress_gateway: Option<EgressGateway>,
    /// This process is that proxy.
    pub is_egress_gateway: bool,
    /// Connections in plain text from other workloads are taken, and counted.
    pub is_permissive: bool,
    /// What makes this process a member; the same one in every revision.
    pub membership: Option<Membership>,
    /// Certificate, key and roots from documents; see [`Mesh::install`].
    pub identity: Option<Box<(Svid, Bundle)>>,
    /// Who keeps the membership, where documents have no certificate.
    pub keeping: Option<Keeping>,
    /// Where the application beside the proxy gets the same certificate.
    pub app_socket: Option<AppSocket>,
}

/// A SPIFFE Workload API that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppSocket {
    /// The Unix socket.
    pub path: Box<str>,
    /// Users that may ask, besides root and the process's own.
    pub users: Box<[u32]>,
}

/// Who gives this process its certificates.
#[derive(Clone, PartialEq, Eq)]
pub enum Keeping {
    /// A SPIFFE Workload API.
    WorkloadApi {
        /// Its socket.
        socket: Box<str>,
    },
    /// An issuer of ours.
    Issuer {
        /// Where it is, as `HOST:PORT`; several to fail over to.
        addresses: Box<[Box<str>]>,
        /// The join token for the first time. Secret.
        token: Option<Box<str>>,
        /// Without a join token: files of a Kubernetes service account's token, and of the mesh's roots.
        service_account: Option<(Box<str>, Box<str>)>,
        /// Where certificate and key are kept.
        directory: Box<str>,
    },
}

impl std::fmt::Debug for Keeping {
    // The token stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WorkloadApi { socket } => f.debug_struct("WorkloadApi").field("socket", socket).finish(),
            Self::Issuer { addresses, directory, .. } => f
                .debug_struct("Issuer")
                .field("addresses", addresses)
                .field("directory", directory)
                .finish_non_exhaustive(),
        }
    }
}

impl Mesh {
    /// Takes the identity from the documents. Call it when the plan comes into force.
    ///
    /// # Errors
    /// When peers would not take it; what was before then stays.
    pub fn install(&self, now_unix: u64) -> Result<(), rhumb_tls::Error> {
        match (&self.membership, &self.identity) {
            (Some(membership), Some(identity)) => {
                membership.swap(identity.0.clone(), identity.1.clone(), now_unix)
            }
            _ => Ok(()),
        }
    }
}

/// What else the capture of connections takes: names, as the workload asks for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// The port for questions for names.
    pub dns: u16,
    /// Names of services with their addresses, which are in [`Mesh::addresses`] for each of their ports.
    pub names: Vec<(Box<str>, Option<Ipv4Addr>, Option<Ipv6Addr>)>,
    /// Every name below these is the mesh's alone.
    pub zones: Vec<Box<str>>,
    /// Names out of the mesh that have a virtual address, because another proxy finds out their own.
    pub outside: Option<Outside>,
}

/// Names out of the mesh that are reached through another proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// Those; nothing: all.
    pub names: Option<Destinations>,
    /// Names that this process itself connects to, from here.
    pub own: Vec<Box<str>>,
}

/// How a service of the mesh is reached.
pub struct Way {
    /// For endpoints without a proxy: in plain text.
    pub plain: Target,
    /// Who its endpoints are. Swapped with the endpoints, where these come from a control plane.
    pub expected: Expected,
    /// The name that its proxies are asked for.
    pub server_name: Box<str>,
    /// Its endpoints come from elsewhere than the plan: whoever has them fills the cell of the backend, and `expected`.
    pub placed: Option<Placed>,
}

/// A port of a service whose endpoints come from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The service, as `NAMESPACE/NAME`.
    pub service: Box<str>,
    /// The name of the port; empty when it has none.
    pub port: Box<str>,
    /// Its number.
    pub number: u16,
}

/// Names of services by addresses of their workloads, which come and go without another plan.
pub type Addresses = ArcSwap<HashMap<SocketAddr, Arc<str>>>;

/// A port of a service.
#[derive(Clone)]
pub struct Service {
    /// `NAMESPACE/NAME:PORT`.
    pub name: Arc<str>,
    /// For its requests.
    pub http: Option<Arc<Port>>,
    /// For its connections that are carried as they are. With both, what is spoken decides.
    pub tcp: Option<Arc<Port>>,
    /// Requests are what it says that it speaks.
    pub is_http: bool,
}

/// Where connections may go that lead to no service of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Egress {
    /// Anywhere.
    #[default]
    Allow,
    /// Where it is listed only.
    Deny(Destinations),
}

impl Egress {
    /// True when a connection may go to an address.
    pub fn allows(&self, address: IpAddr) -> bool {
        match self {
            Self::Allow => true,
            Self::Deny(listed) => listed.has_address(address),
        }
    }

    /// True when a connection may go to a name, in lower case and without a final dot.
    pub fn allows_name(&self, name: &str) -> bool {
        match self {
            Self::Allow => true,
            Self::Deny(listed) => listed.has_name(name),
        }
    }
}

/// The proxy that connections out of the mesh go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressGateway {
    /// Its port in [`Mesh::outbound`]; on the gateway itself that of [`Mesh::inbound`], as [`Service::name`] has it.
    pub service: Arc<str>,
    /// What goes through it; nothing listed: all that leaves.
    pub destinations: Destinations,
}

/// The way of a connection that leads to no service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// From here.
    Direct,
    /// Through the egress gateway.
    Gateway,
    /// None: it may not leave.
    Refused,
}

impl Mesh {
    /// The way out to an address, or to a name in lower case and without a final dot.
    pub fn exit(&self, name: Option<&str>, address: Option<IpAddr>) -> Exit {
        let is_in = |listed: &Destinations| {
            name.is_some_and(|name| listed.has_name(name))
                || address.is_some_and(|address| listed.has_address(address))
        };
        let is_allowed = match &self.egress {
            Egress::Allow => true,
            Egress::Deny(listed) => is_in(listed),
        };
        match &self.egress_gateway {
            Some(gateway) if is_in(&gateway.destinations) => Exit::Gateway,
            Some(gateway) if gateway.destinations.is_empty() && is_allowed => Exit::Gateway,
            _ if is_allowed => Exit::Direct,
            _ => Exit::Refused,
        }
    }

    /// True when names decide about connections that leave, and not their addresses alone.
    pub fn exits_have_names(&self) -> bool {
        let has_names = |listed: &Destinations| !listed.names.is_empty();
        matches!(&self.egress, Egress::Deny(listed) if has_names(listed))
            || self.egress_gateway.as_ref().is_some_and(|gateway| has_names(&gateway.destinations))
    }
}

/// What a socket is for, where it is one of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The workload calls the service of this name here.
    Upstream(Arc<str>),
    /// The workload calls something out of the mesh here: a name in lower case or an address, and its port.
    Outside(Arc<str>, u16),
    /// Connections of the workload that were made to other addresses end here.
    Outbound,
    /// Connections to the workload that came without a proxy end here.
    Inbound,
    /// Proxies of callers connect here.
    Tunnel,
}

/// Which of the [`Port`]s without a socket a connection belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// That of a service which the workload calls.
    Outbound(Arc<str>),
    /// That of a service which it serves.
    Inbound(Arc<str>),
}

impl Mesh {
    /// The name of the service that connections to an address are for.
    pub fn at(&self, address: &SocketAddr) -> Option<Arc<str>> {
        self.addresses.get(address).cloned().or_else(|| self.places.load().get(address).cloned())
    }

    /// The service of a place.
    pub fn service(&self, place: &Place) -> Option<&Service> {
        match place {
            Place::Outbound(name) => self.outbound.get(name),
            Place::Inbound(name) => self.inbound.get(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[&str], blocks: &[&str]) -> Destinations {
        Destinations {
            names: names.iter().map(|name| (*name).into()).collect(),
            blocks: blocks.iter().map(|block| block.parse().expect("a block")).collect(),
        }
    }

    fn mesh(egress: Egress, gateway: Option<Destinations>) -> Mesh {
        let egress_gateway =
            gateway.map(|destinations| EgressGateway { service: "default/egress:443".into(), destinations });
        Mesh { egress, egress_gateway, ..Mesh::default() }
    }

    #[test]
    fn the_way_out_follows_what_is_listed() {
        let (api, www) = ("api.example.com", "www.example.com");
        let deny = || Egress::Deny(listed(&[www], &["192.0.2.0/24"]));
        let through = || Some(listed(&[api], &["203.0.113.7"]));
        let everything = || Some(Destinations::default());
        let (near, far, other) =
            ([192, 0, 2, 9].into(), [203, 0, 113, 7].into(), IpAddr::from([198, 51, 100, 1]));
        for (egress, gateway, ways) in [
            (Egress::Allow, None, [Exit::Direct; 6]),
            (Egress::Allow, everything(), [Exit::Gateway; 6]),
            (
                Egress::Allow,
                through(),
                [Exit::Gateway, Exit::Direct, Exit::Direct, Exit::Direct, Exit::Gateway, Exit::Direct],
            ),
            (
                deny(),
                through(),
                [Exit::Gateway, Exit::Direct, Exit::Refused, Exit::Direct, Exit::Gateway, Exit::Refused],
            ),
            (
                deny(),
                everything(),
                [Exit::Refused, Exit::Gateway, Exit::Refused, Exit::Gateway, Exit::Refused, Exit::Refused],
            ),
            (
                deny(),
                None,
                [Exit::Refused, Exit::Direct, Exit::Refused, Exit::Direct, Exit::Refused, Exit::Refused],
            ),
        ] {
            let mesh = mesh(egress, gateway);
            let found = [
                mesh.exit(Some(api), None),
                mesh.exit(Some(www), None),
                mesh.exit(Some("else.example.com"), None),
                mesh.exit(None, Some(near)),
                mesh.exit(None, Some(far)),
                mesh.exit(None, Some(other)),
            ];
            assert_eq!(found, ways, "{:?} {:?}", mesh.egress, mesh.egress_gateway);
        }
    }
}
