//! What tests share: certificates, ports, the proxy as a process, scripted and recording peers.
//!
//! Development only; knows no crate of the product, so that it cannot share its mistakes: messages are read by
//! [`message`], HTTP/2 is spoken by [`h2`] and [`hpack`], all written apart from the codec and stricter or dumber
//! than it. Everything blocks and has a time limit; a helper that cannot do its work panics with what it saw.
//! Start at [`process`] (the proxy under test) and [`stage`] (a client and a backend that take turns).

pub mod backend;
pub mod cert;
pub mod client;
pub mod config;
pub mod h2;
pub mod h2_load;
pub mod hpack;
pub mod load;
pub mod member;
pub mod message;
pub mod nameserver;
pub mod netns;
pub mod oracle;
pub mod port;
pub mod process;
pub mod stage;
pub mod wait;
