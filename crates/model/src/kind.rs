//! The bodies of documents, one module per kind: Gateway API's shapes and ours.

pub mod refs;
pub mod gateway;
pub mod filter;
pub mod http_route;
pub mod grpc_route;
pub mod l4_route;
pub mod backend_ref;
pub mod grant;
pub mod secret;
pub mod backend;
pub mod health;
pub mod backend_tls;
pub mod backend_traffic;
pub mod policy;
pub mod consumer;
pub mod proxy_config;
pub mod admin;
pub mod signals;
pub mod service;
pub mod mesh;

/// The kinds of routes, of group gateway.networking.k8s.io.
pub const ROUTE_KINDS: &[&str] = &["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"];
