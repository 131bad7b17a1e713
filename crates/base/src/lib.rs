//! Names, units, randomness and the failure taxonomy: what every other crate speaks about.
//!
//! No I/O, no async, no serialisation. Start with [`failure`]: every error of the request path becomes a
//! [`Failure`](failure::Failure), and status, gRPC code and log token derive from it in one table.

pub mod name;
pub mod spiffe;
pub mod unit;
pub mod words;
pub mod base64;
pub mod cidr;
pub mod virtual_address;
pub mod outside;
pub mod resolv_conf;
pub mod failure;
pub mod rng;
