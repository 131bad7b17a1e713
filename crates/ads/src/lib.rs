//! What the control plane and its proxies say to each other: delta ADS (xDS transport, version 3) with resources of our own.
//!
//! Owns the messages ([`wire`], [`resource`], [`registry`], [`report`]) and the rules of both sides as values without I/O: [`Publisher`] is
//! one proxy's stream as the control plane sees it, [`Follower`] is the same as the proxy sees it. Knows no sockets, no
//! documents and no clock: `control` and `agent` drive it, and a simulation can.
//!
//! Three rules make a slow proxy harmless. Of each type at most one response is on its way; what changes meanwhile is
//! only noted by name, and what is sent next is what holds then. A version is a number that grows and a hash of the
//! content: the number says which revision an ack is of, the hash that nothing has to be sent again. A resource that was
//! refused is not sent again until it changes.
//!
//! Start reading at [`Publisher::request`].
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod kind;
mod version;
pub mod wire;
pub mod resource;
pub mod registry;
pub mod report;
mod publisher;
mod follower;

pub use follower::{Ack, BadResponse, Change, Follower, Item};
pub use kind::Kind;
pub use publisher::{Acked, BadRequest, Find, MAX_NAME_BYTES, MAX_NAMES, Publisher, Standing, Wanted};
pub use version::Version;
