//! Endpoints of a backend and the algorithms that choose among them.
//!
//! Owns: what is known about an endpoint ([`endpoint`], [`story`]), the immutable set of endpoints of a backend and its
//! swap cell ([`set`]), how one is chosen ([`algorithm`]), and who is put out and taken back ([`judge`]). Pure: time and
//! randomness come in as arguments, connections and names are somebody else's. What is learned about an endpoint is
//! shared by all workers and outlives changes of the set.
//!
//! Start with [`set::EndpointSet::pick`], then [`judge`].
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod hash;
pub mod load;
pub mod evidence;
pub mod health;
pub mod story;
pub mod quota;
pub mod endpoint;
mod sample;
mod least_busy;
mod round_robin;
mod ring;
mod maglev;
pub mod algorithm;
pub mod set;
pub mod departed;
pub mod levels;
pub mod judge;
pub mod budget;

pub use algorithm::Algorithm;
pub use budget::{BudgetLimits, RetryBudget};
pub use endpoint::{Endpoint, EndpointSpec, InFlight};
pub use health::{Outcome, Outlier, Settings};
pub use judge::{Event, State, Tally};
pub use load::Nanos;
pub use set::{Ask, EndpointSet, Endpoints, NotPicked, Pick, Picked, Reader};
pub use story::{Check, Gate, Phase, Why};
