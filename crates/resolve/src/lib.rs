//! Documents to plan: the only way from what is written to what runs.
//!
//! Owns Gateway API's meaning: which routes attach to which listeners, what may refer to what, which policy wins, and
//! what becomes of a request when something in its documents is wrong. Works on all documents at once, never stops at
//! the first mistake, and one bad document never takes others down with it: what asks for something that cannot be
//! given refuses its traffic instead of serving it without ([`rhumb_plan::Rule::invalid`]).
//!
//! Knows no files and no sockets, and changes nothing that runs: what it makes takes over from the plan before whatever
//! did not change, and nothing happens until the plan is swapped in.
//!
//! What is resolved again and again is resolved by a [`Memory`]: it compiles what a change concerns, and what it gives is
//! what [`resolve`] would give.
//!
//! Start reading at [`resolve`].

mod trace;
mod collect;
mod report;
mod mesh;
mod grant;
mod exporter;
mod settings;
mod admin;
mod signals;
mod certificate;
mod consumers;
mod policies;
mod attach;
mod health;
mod traffic;
mod backends;
mod matches;
mod templates;
mod rules;
mod l4;
mod build;

pub use backends::{DnsBackend, DnsKind, DnsName};
pub use build::{Memory, Resolved, resolve};
pub use mesh::Advice;
pub use settings::Surroundings;
pub use templates::templates;
