//! The binary over real sockets. `cargo xtask test` builds it and installs the independent peers.

mod curl;
mod gate;
mod grpc;
mod h2_attacks;
mod http1;
mod routing;
mod smuggling;
mod websocket;
