//! What the bench's backends and load generators share: readiness, HTTP/1 and HTTP/2 as far as a bench
//! needs them, a TLS client, a latency histogram.
//!
//! The peers of these tools are the proxies under test on the same machine, so they trust their input
//! more than a product may: what they do not understand ends the connection and counts as an error.
//! Start reading with `bin/load.rs`.

pub mod args;
pub mod h1;
pub mod h2;
pub mod histogram;
pub mod l4;
pub mod poll;
pub mod report;
pub mod request;
pub mod tls;
