//! Connections and datagrams that are carried as they are.
//!
//! [`tcp`] is the corridor of a connection: the [`header`] of a load balancer in front, TLS passed on or terminated
//! ([`hello`]), a backend, and the [`relay`] between both streams; one record at the end. The relay knows nothing of
//! how its streams were opened; [`hbone`] does the same for streams of HTTP/2 between proxies of the mesh. [`leave`] carries what leads out of the mesh ([`outside`]), through
//! the proxy that [`egress`] is, where there is one. [`udp`] carries datagrams, by session.

pub(crate) mod header;
mod hello;
mod relay;
mod record;
pub(crate) mod tcp;
pub(crate) mod hbone;
pub(crate) mod outside;
pub(crate) mod leave;
mod egress;
mod sessions;
pub(crate) mod udp;
