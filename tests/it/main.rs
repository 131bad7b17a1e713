//! The binary over real sockets. `cargo xtask test` builds it and installs the independent peers.

mod access;
mod auth;
mod cli;
mod config;
mod curl;
mod documents;
mod ext_authz;
mod gate;
mod grpc;
mod h2_attacks;
mod health;
mod http1;
mod http2;
mod lifecycle;
mod l4;
mod oauth;
mod overload;
mod quota;
mod rate_limit;
mod retry;
mod routing;
mod shield;
mod smuggling;
mod tls;
mod traffic;
mod websocket;
