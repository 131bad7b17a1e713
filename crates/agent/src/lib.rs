//! A proxy's side of the control plane: what it wants, what it has, and the last set on disk.
//!
//! [`Agent::start`] begins with what was on disk, connects, asks for what is wanted, and hands on what comes as [`Event`]s;
//! whoever takes a change over says so with [`Agent::accept`], which is the ack. When the control plane is away everything
//! stays as it is, and the next of several is tried ([`backoff`]). [`assembly`] makes documents of what is had.
//!
//! Knows no plan and no sockets of traffic. TLS comes as a [`Connect`].
//!
//! Start reading at [`client`].
// Indexing is allowed: that of a JSON value panics never, and nothing else is indexed.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod client;
mod reports;
mod backoff;
mod cache;
mod connect;
mod durable;
pub mod assembly;

pub use client::{Agent, Away, Event, Options, State};
pub use connect::plain;
pub use durable::is_saved_first;
pub use reports::{NoReports, Reports};
pub use rhumb_ads as ads;
pub use rhumb_grpc::{Connect, Connecting, Io};
