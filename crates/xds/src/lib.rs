//! The mesh as gRPC clients see it that have no proxy beside them: Listeners, routes, Clusters and endpoints of Envoy's API, as
//! far as gRPC knows it (gRFC A27, A28, A29, A31, A44, A81, A88).
//!
//! [`view`] is one client's stream: what it asks for, what it is sent, and what that needs of the control plane, whose
//! client it is itself ([`rhumb_ads::Follower`]). [`offer`] makes a Service and its routes into what a gRPC client can obey, or
//! says why it could not; [`name`] reads names, [`wire`] has the messages.
//!
//! A client that cannot enforce what documents ask for is not served: nothing here leaves a policy out in silence.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod name;
pub mod wire;
pub mod bundle;
pub mod offer;
mod routes;
pub mod view;

pub use view::{BadRequest, View};
