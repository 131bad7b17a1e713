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
    /// Every backend that a rule names, by name.
    pub backends: Vec<Arc<Backend>>,
}

impl Plan {
    /// The port that listens on `address`.
    pub fn port(&self, address: SocketAddr) -> Option<&Arc<Port>> {
        self.ports.iter().find(|port| port.address == address)
    }
}
