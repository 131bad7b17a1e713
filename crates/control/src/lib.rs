//! The control plane: revisions of documents, who needs which of them, and who runs them.
//!
//! [`core`] is all of it without I/O: documents, workloads and streams of proxies in, responses out, and at any time the
//! answer to who uses a change ([`audience`]). [`library`] makes bundles of documents, [`members`] endpoints of workloads,
//! [`virtuals`] gives services addresses. [`hub`] puts it behind a lock and [`serve`] on the wire; [`roll`] remembers who
//! was registered.
//!
//! Several control planes on one store tell each other what each knows ([`others`]).
//!
//! Proxies tell what they carry and how they stand ([`fleet`]).
//!
//! Knows no TLS and no HTTP for people: `app` brings both. Does not know what documents mean beyond the references in
//! them ([`document`]).
//!
//! Start reading at [`core::Core::commit`].
// Indexing is allowed: that of a JSON value panics never, and nothing else is indexed.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod document;
pub mod library;
pub mod members;
pub mod virtuals;
pub mod caller;
pub mod audience;
pub mod core;
pub mod store;
pub mod others;
pub mod hub;
pub mod roll;
pub mod serve;
pub mod sotw;
pub mod withheld;
pub mod control;
pub mod fleet;
pub mod looks;
mod reports;

pub use rhumb_ads as ads;
pub use rhumb_xds::view;
