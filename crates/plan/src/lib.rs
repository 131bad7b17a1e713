//! The compiled configuration: an immutable snapshot, and the cell that workers read it from.
//!
//! What is in a plan cannot be wrong: `resolve` is the only way to make one. Nothing here is changed in place; a change
//! makes a new plan that shares with the old one whatever did not change, and swaps it in. Health, counters and pools
//! live outside and are found again by their keys. Start with [`snapshot`].

pub mod snapshot;
pub mod port;
pub mod rule;
pub mod l4;
pub mod backend;
pub mod session;
pub mod consumer;
pub mod mesh;
pub mod process;
pub mod admin;
pub mod current;
mod dump;

pub use backend::{Backend, HashOn};
pub use current::{Current, Reader};
pub use dump::dump;
pub use port::{Port, PortListener, PortSettings};
pub use rhumb_upstream::target::{self, Target};
pub use rhumb_upstream::{active, limit};
pub use rule::{Mirror, Retry, Rule, Timeouts, WeightedBackend};
pub use session::Session;
pub use snapshot::Plan;
