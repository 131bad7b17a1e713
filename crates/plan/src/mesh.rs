//! The mesh as one proxy sees it: services that its workload calls, and services that it serves.
//!
//! What is done with a connection to a service is compiled as for a listener, into [`Port`]s that no socket is bound to:
//! one for requests, one for connections that are carried as they are. Which of them a connection gets is known from
//! where it came in: the address that it was made to, or the server name of its TLS.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
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
    /// To these addresses only, and to names that were looked up through the proxy and are listed.
    Deny {
        /// Addresses.
        addresses: Box<[IpAddr]>,
        /// Names; those that begin with `*.` stand for all below.
        names: Box<[Box<str>]>,
    },
}

impl Egress {
    /// True when a connection may go to `address`.
    pub fn allows(&self, address: IpAddr) -> bool {
        match self {
            Self::Allow => true,
            Self::Deny { addresses, .. } => addresses.contains(&address.to_canonical()),
        }
    }

    /// True when names decide where addresses do not.
    pub fn has_names(&self) -> bool {
        matches!(self, Self::Deny { names, .. } if !names.is_empty())
    }

    /// True when a connection may go to a name, in lower case and without a final dot.
    pub fn allows_name(&self, name: &str) -> bool {
        match self {
            Self::Allow => true,
            Self::Deny { names, .. } => names.iter().any(|allowed| match allowed.strip_prefix("*.") {
                Some(suffix) => {
                    name.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
                }
                None => **allowed == *name,
            }),
        }
    }
}

/// What a socket is for, where it is one of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The workload calls the service of this name here.
    Upstream(Arc<str>),
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

    #[test]
    fn a_wildcard_stands_for_names_below_it_only() {
        let names = Box::new(["*.example.com".into(), "one.test".into()]);
        let egress = Egress::Deny { addresses: Box::new([]), names };
        for (name, allowed) in [
            ("a.example.com", true),
            ("b.a.example.com", true),
            ("example.com", false),
            (".example.com", false),
            ("notexample.com", false),
            ("one.test", true),
            ("two.test", false),
        ] {
            assert_eq!(egress.allows_name(name), allowed, "{name}");
        }
    }
}
