//! Connections to endpoints: made, kept, lent to exchanges, and given up.
//!
//! Everything belongs to one worker: a connection never leaves the thread that opened it. Knows no routes and no
//! policies; which endpoint is asked is `balance`'s choice. Start with [`pool`].
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod target;
pub mod limit;
pub mod connect;
pub mod pool;
pub mod active;
pub mod dns;

pub use active::Check;
pub use dns::Dns;
pub use limit::Connections;
pub use pool::{Lease, Pools};
pub use target::{Protocol, Target};
