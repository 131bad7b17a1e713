//! A listening socket: who may connect, how the connection is spoken, and where its requests go.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rhumb_base::cidr::Cidr;
use rhumb_base::name::ListenerName;
use rhumb_codec::h1;
use rhumb_policy::Priority;
use rhumb_policy::tracing::Collector;
use rhumb_route::{Host, Table, normalize};
use rhumb_tls::{ServerTls, ServerTlsSet};

use crate::l4::{L4, ProxyProtocol};
use crate::mesh::Role;
use crate::rule::Rule;

/// A listening socket. Several Gateway listeners may share one; they differ by host name.
pub struct Port {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its first listener's name: the label of connection metrics.
    pub name: ListenerName,
    /// Its Gateway listeners, in the order of their documents.
    pub listeners: Box<[PortListener]>,
    /// TLS by server name; `None` is plain text.
    pub tls: Option<ServerTlsSet>,
    /// Rules by host and request.
    pub table: Table<Rule>,
    /// The priority of its rules when all have the same: then it is known before a request has found its rule.
    pub priority: Option<Priority>,
    /// Limits and habits.
    pub settings: PortSettings,
    /// Connections or datagrams are carried as they are; the table is empty then.
    pub l4: Option<Box<L4>>,
    /// What it is for in the mesh; none for listeners of Gateways.
    pub role: Option<Box<Role>>,
}

impl Port {
    /// The priority of all rules of a table, when it is one; see [`Port::priority`].
    pub fn common_priority(table: &Table<Rule>) -> Option<Priority> {
        let mut rules = table.rules().map(|(_, rule)| rule.value.priority);
        let first = rules.next().unwrap_or_default();
        rules.all(|priority| priority == first).then_some(first)
    }
}

/// A Gateway listener of a port.
#[derive(Clone, Debug)]
pub struct PortListener {
    /// Its name.
    pub name: ListenerName,
    /// The requests that are its own.
    pub host: Host,
    /// Its TLS server, with a hash of what it was made of: with the same one it is taken over from plan to plan. `None`
    /// is plain text, or on a port with TLS a listener whose certificates are not usable: it refuses handshakes.
    pub tls: Option<(u64, ServerTls)>,
}

/// Limits and habits of a port.
#[derive(Clone, Debug)]
pub struct PortSettings {
    /// Sizes of HTTP/1 heads.
    pub limits: h1::Limits,
    /// HTTP/2 is spoken when the client asks for it (ALPN h2, or prior knowledge in plain text). Default: true.
    pub http2: bool,
    /// Streams that one HTTP/2 connection may have open. Default: 100.
    pub max_concurrent_streams: u32,
    /// How long a TLS handshake may take. Default: 10 s.
    pub handshake_timeout: Duration,
    /// How long a request head may take. Default: 10 s.
    pub header_timeout: Duration,
    /// How long a connection may rest between requests. Default: 75 s.
    pub idle_timeout: Duration,
    /// Request content beyond this is refused with 413. Default: none.
    pub max_content: Option<u64>,
    /// Connections of the process; more are closed at once and counted. Default: 100 000.
    pub max_connections: u32,
    /// Connections of one client address; more are closed at once and counted. Default: no limit.
    pub max_connections_per_address: Option<u32>,
    /// How long a request may take to its end, content included. Default: no limit.
    pub body_timeout: Option<Duration>,
    /// Requests on one connection, which is closed then. Default: no limit.
    pub max_requests: Option<u32>,
    /// Peers whose forwarding fields count. Default: none.
    pub trusted_proxies: Box<[Cidr]>,
    /// How paths are brought into normal form; `None` leaves them as they are.
    pub path: Option<normalize::Options>,
    /// Also write RFC 7239 `Forwarded`. Default: true.
    pub forwarded: bool,
    /// Tell failures to clients in RFC 9209 `Proxy-Status`. Default: false.
    pub proxy_status: bool,
    /// Connections that begin with a PROXY protocol header. Default: none.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The collector that the process tells of exchanges and metrics, whatever rules say of tracing. The same on every port.
    pub exporter: Option<Arc<Collector>>,
}

impl Port {
    /// How many rules it has.
    pub fn rules(&self) -> usize {
        match &self.l4 {
            Some(l4) => l4.listeners.values().map(|listener| listener.routes.values().count()).sum(),
            None => self.table.len(),
        }
    }
}

impl Default for PortSettings {
    fn default() -> Self {
        Self {
            limits: h1::Limits::default(),
            http2: true,
            max_concurrent_streams: 100,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            max_content: None,
            max_connections: 100_000,
            max_connections_per_address: None,
            body_timeout: None,
            max_requests: None,
            trusted_proxies: Box::default(),
            path: Some(normalize::Options::default()),
            forwarded: true,
            proxy_status: false,
            proxy_protocol: None,
            exporter: None,
        }
    }
}

impl PortSettings {
    /// True when forwarding fields that come from `peer` count.
    #[inline]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|block| block.contains(peer))
    }
}
