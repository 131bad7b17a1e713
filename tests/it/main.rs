//! The binary over real sockets. `cargo xtask test` builds it and installs the independent peers.

mod h2_attacks;
mod smuggling;
