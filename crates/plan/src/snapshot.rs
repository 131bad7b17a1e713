//! One revision of everything that the data path needs.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::backend::Backend;
use crate::port::Port;

/// One revision of the configuration, compiled.
#[derive(Default)]
pub struct Plan {
    /// Counts up with every applied change; shown in metrics, logs and the admin API.
    pub revision: u64,
    /// Every listening socket, by address.
    pub ports: Vec<Arc<Port>>,
    /// Every socket for datagrams, by address: UDP has port numbers of its own.
    pub udp_ports: Vec<Arc<Port>>,
    /// Every backend that a rule names, by name.
    pub backends: Vec<Arc<Backend>>,
    /// Some backend is told of clients by the PROXY protocol: connections ask where they were made to.
    pub names_clients: bool,
}

impl Plan {
    /// The port that listens on `address`.
    pub fn port(&self, address: SocketAddr) -> Option<&Arc<Port>> {
        self.ports.iter().find(|port| port.address == address)
    }

    /// Every socket, those for datagrams last.
    pub fn all_ports(&self) -> impl Iterator<Item = &Arc<Port>> {
        self.ports.iter().chain(&self.udp_ports)
    }

    /// The port that takes datagrams on `address`.
    pub fn udp_port(&self, address: SocketAddr) -> Option<&Arc<Port>> {
        self.udp_ports.iter().find(|port| port.address == address)
    }
}
