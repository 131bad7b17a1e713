//! Compiled request matching: hostname, path, method, fields and query, with Gateway API's precedence.
//!
//! Owns: what a route may ask for ([`host`], [`path`], [`field`], [`rule`]), the compiled [`table`] that finds the rule
//! of a request in time that does not depend on the number of rules, the linear [`explain`]er that says why, and the
//! one definition of a normal path ([`normalize`]). Knows no sockets, no documents and nothing about what a rule does
//! with a request: that is the table's `T`.
//!
//! Start with [`table::Table`].
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod normalize;
pub mod host;
pub mod pattern;
pub mod path;
pub mod field;
pub mod rule;
mod index;
pub mod table;
pub mod explain;

pub use explain::{Candidate, Explanation, Verdict};
pub use host::Host;
pub use rule::{RequestMatch, Rule};
pub use table::{Builder, Found, Lookup, Table};
