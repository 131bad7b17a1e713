//! gRPC without generated code: a service is a name and the paths of its methods, a channel goes over whatever connection
//! it is given.
//!
//! Knows no messages, no TLS and no addresses: messages are those of whoever calls, connections come as [`Connect`].
//!
//! Start reading at [`Service`].
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod service;
mod channel;

use std::time::Duration;

pub use channel::{Connect, Connecting, Io, causes, connect};
pub use service::{Call, Served, Service, no_such_method, server};

/// How often a quiet connection is asked whether it lives, and how long it may take to answer; both sides ask.
pub const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
