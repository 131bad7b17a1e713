//! Answers a workload's captured questions for names: those of mesh names from a table, the rest by the name servers that
//! the machine uses.
//!
//! Runs on a thread of its own, so that a change of the configuration keeps nobody waiting for a name. Keeps no answers:
//! applications and name servers do. Knows no documents; [`Names`] is filled by whoever knows which services there are.
//! Start with [`server`].

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod names;
pub mod answer;
mod forward;
pub mod asking;
pub mod server;

pub use asking::{Asking, Question, Told};
pub use names::{Addresses, Names, Outside};
pub use server::{Server, Settings};
