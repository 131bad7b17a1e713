//! Policies: what users attach to routes, and the chain that runs them.
//!
//! One file per policy; `policies!` in `list.rs` is the one ordered list of them, and a policy's place in the list is its
//! place in the chain. Hooks are synchronous; a policy that has to wait returns [`Verdict::Wait`] with a future that
//! owns what it needs. Knows no sockets, no clock, no configuration files. Read [`policy`] for the trait, then
//! [`header_modifier`] for an example, then [`chain`].
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod list;

pub mod policy;
pub mod context;
pub mod principal;
pub mod call;
pub mod chain;
pub mod exchange;
pub mod cache;
pub mod condition;
pub mod attributes;
pub mod filter;
pub mod trail;
pub mod security_fields;
pub mod cors;
pub mod ip_access;
pub mod csrf;
mod json;
mod memory;
pub mod member;
pub mod credential;
pub mod consumers;
pub mod password;
pub mod client_certificate;
pub mod claims;
mod fetched;
pub mod jwt;
pub mod basic_auth;
pub mod api_key;
pub mod hmac;
pub mod message_signatures;
pub mod anonymous;
pub mod authenticated;
pub mod oauth;
pub mod oauth2_introspection;
pub mod oidc;
pub mod sign_in;
pub mod ext_authz;
pub mod authorization;
mod keyed;
pub mod rate_limit;
pub mod quota;
pub mod concurrency;
pub mod size_limit;
pub mod load_shedding;
pub mod bandwidth;
pub mod circuit_breaker;
pub mod store;
pub mod identity_fields;
pub mod user_token;
pub mod issue_user_token;
pub mod cohort;
pub mod fault;
pub mod redirect;
pub mod direct_response;
pub mod rewrite;
pub mod header_modifier;
pub mod path_modifier;
pub mod quantity;
pub mod oauth2_client_credentials;
pub mod timeouts;
pub mod tracing;
pub mod retry;
pub mod proxy_protocol;
pub mod tcp;
pub mod udp;
pub mod priority;
pub mod mesh;

pub use call::{Answer, Call, Caller, Event, Out};
pub use chain::{Chain, ChainState, Item, Step};
pub use context::{Context, Documents, Keeper, NoDocuments, Origin, Remote, Want};
pub use exchange::{Ahead, Effects, Exchange, Findings, Mode, Refusal, Reply, Share, SharedPace};
pub use filter::Filter;
pub use list::{KINDS, Kind, Parsed, Policy, Rank, parse};
pub use member::Member;
pub use policy::{Attach, Edit, Hooks, HttpPolicy, Invalid, Merge, Outcome, Resumed, Verdict};
pub use principal::{Certificate, Consumer, Principal};
pub use priority::Priority;
pub use retry::{BackOff, On, Retry};
pub use timeouts::Timeouts;
pub use tracing::Tracing;
pub use trail::Trail;
