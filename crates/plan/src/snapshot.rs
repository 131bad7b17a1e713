//! One revision of everything that the data path needs.

use std::net::SocketAddr;
use std::sync::Arc;

use rhumb_base::name::ListenerName;
use rhumb_policy::Keeper;
use rhumb_route::Table;

use crate::admin::Access;
use crate::backend::Backend;
use crate::consumer::ByConsumer;
use crate::mesh::{Mesh, Place};
use crate::port::Port;
use crate::rule::Rule;

/// One revision of the configuration, compiled.
#[derive(Default)]
pub struct Plan {
    /// Counts up with every applied change; shown in metrics, logs and the admin API.
    pub revision: u64,
    /// Every listening socket, by address.
    pub ports: Vec<Arc<Port>>,
    /// Every socket for datagrams, by address: UDP has port numbers of its own.
    pub udp_ports: Vec<Arc<Port>>,
    /// Every backend that a rule or policy names, by name.
    pub backends: Vec<Arc<Backend>>,
    /// Policies of consumers.
    pub consumers: ByConsumer,
    /// What policies keep from revision to revision.
    pub keeper: Keeper,
    /// Some backend is told of clients by the PROXY protocol: connections ask where they were made to.
    pub names_clients: bool,
    /// Services of the mesh; none for a process that is no part of one.
    pub mesh: Option<Arc<Mesh>>,
    /// Who may ask the admin listener for what, where something is written.
    pub admin: Option<Arc<Access>>,
}

impl Plan {
    /// The port that listens on `address`.
    pub fn port(&self, address: SocketAddr) -> Option<&Arc<Port>> {
        self.ports.iter().find(|port| port.address == address)
    }

    /// The rules of a listener of the mesh, by its name.
    pub fn mesh_table(&self, name: &ListenerName) -> Option<&Table<Rule>> {
        let mesh = self.mesh.as_ref()?;
        let services = mesh.outbound.values().chain(mesh.inbound.values());
        services
            .filter_map(|service| service.http.as_ref())
            .find(|port| port.name == *name)
            .map(|port| &port.table)
    }

    /// The port that a connection of the mesh belongs to.
    pub fn mesh_port(&self, place: &Place) -> Option<&Arc<Port>> {
        self.mesh.as_ref()?.service(place)?.http.as_ref()
    }

    /// Every socket, those for datagrams last.
    pub fn all_ports(&self) -> impl Iterator<Item = &Arc<Port>> {
        self.ports.iter().chain(&self.udp_ports)
    }

    /// The backend of this name; one of them where it is used with several client certificates.
    pub fn backend(&self, name: &str) -> Option<&Arc<Backend>> {
        let at = self.backends.partition_point(|backend| backend.name.as_str() < name);
        self.backends.get(at).filter(|backend| backend.name.as_str() == name)
    }

    /// The port that takes datagrams on `address`.
    pub fn udp_port(&self, address: SocketAddr) -> Option<&Arc<Port>> {
        self.udp_ports.iter().find(|port| port.address == address)
    }
}
