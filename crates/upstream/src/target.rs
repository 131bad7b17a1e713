//! What a connection must be, to serve a backend.

use std::sync::Arc;
use std::time::Duration;

use rhumb_codec::{h1, proxy_protocol};
use rhumb_tls::ClientTls;

use crate::limit::Connections;

/// The protocol spoken with a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: by ALPN over TLS, by prior knowledge without.
    Http2,
}

/// How connections to a backend's endpoints are made and kept.
#[derive(Clone)]
pub struct Target {
    /// Connections are shared by everything with the same key: backend, protocol and TLS settings. A reload that
    /// changes none of them keeps the pool.
    pub key: u64,
    /// Protocol.
    pub protocol: Protocol,
    /// TLS; `None` is plain text.
    pub tls: Option<Arc<ClientTls>>,
    /// Each connection begins with a PROXY protocol header of this version, so none serves two clients. Default: none.
    pub proxy_protocol: Option<proxy_protocol::Version>,
    /// How long connecting may take, TLS handshake included. Default: 5 s.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept. Default: 60 s; shorter than what backends do keeps races rare.
    pub idle_timeout: Duration,
    /// Sizes of response heads.
    pub limits: h1::Limits,
    /// The connections of the backend, of all workers and revisions.
    pub connections: Arc<Connections>,
    /// How many there may be. Default: no limit.
    pub max_connections: Option<u32>,
    /// Requests that may wait for one when there are so many; more are refused. Default:
    /// [`crate::limit::DEFAULT_MAX_PENDING`].
    pub max_pending: u32,
}

/// Default of [`Target::connect_timeout`].
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Default of [`Target::idle_timeout`].
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
