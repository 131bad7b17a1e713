//! The corridor that a request walks through, one file per door.
//!
//! [`listener`] accepts → [`downstream`] speaks TLS and chooses the protocol → [`exchange`] serves one request: route,
//! policies, [`forward`] to a backend, [`pump`] for the content, [`respond`] for answers of our own → one record. Read
//! [`exchange::serve`] first. Everything runs on one [`worker`]; nothing here is shared between threads but what the
//! plan, the endpoints and the metrics registry share.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod worker;
mod clock;
mod queue;
pub mod rest;
pub mod overload;
pub mod discovery;
pub mod listener;
pub(crate) mod l4;
mod boxed;
mod downstream;
mod mesh;
mod member;
mod exchange;
mod fields;
mod forward;
mod limits;
mod tries;
mod session;
mod retry_after;
mod replay;
mod side;
mod call;
mod export;
mod signals;
mod traced;
pub mod tap;
mod mirror;
mod pace;
mod pump;
mod baggage;
mod glance;
mod goodbye;
mod respond;
mod date;

pub use worker::{Shared, Worker};
