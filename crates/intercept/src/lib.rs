//! Rules of nftables that bring a workload's traffic to its sidecar.
//!
//! [`rules`] is pure: what is to be captured becomes the text of a ruleset. [`nft`] hands text to the program `nft`, which
//! takes it over as a whole or not at all. Knows no documents and opens no sockets; `rhumb intercept` is its user.

pub mod rules;
pub mod nft;

pub use rules::Capture;
