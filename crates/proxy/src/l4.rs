//! Connections and datagrams that are carried as they are.
//!
//! [`tcp`] is the corridor of a connection: the [`header`] of a load balancer in front, TLS passed on or terminated
//! ([`hello`]), a backend, and the [`relay`] between both streams; one record at the end. The relay knows nothing of
//! how its streams were opened; [`hbone`] does the same for streams of HTTP/2 between proxies of the mesh. [`udp`] carries datagrams, by session.

pub(crate) mod header;
mod hello;
mod relay;
mod record;
pub(crate) mod tcp;
pub(crate) mod hbone;
mod sessions;
pub(crate) mod udp;
