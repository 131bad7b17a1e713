//! Connections: codecs driven over a stream, both sides.
//!
//! A connection of HTTP/1 is a value that its exchange polls; no task of its own. A connection of HTTP/2 has one task,
//! its driver, and one handle per stream. Both give the exchange the same things: a head, content in parts, trailers,
//! and a place to write them. Knows no routes and no policies. Start with [`io`], then [`h1`].
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod io;
pub mod input;
pub mod output;
pub mod watchers;
pub mod h1;
pub mod h2;
pub mod websocket;

use rhumb_codec::field::Fields;

/// Interim responses that one exchange relays; more are a backend's mistake (RFC 9110 §15.2).
pub const MAX_INTERIM: u32 = 32;

/// A piece of content.
pub enum Part<'a> {
    /// Bytes; never none.
    Data(&'a [u8]),
    /// The content is complete; trailers, when there are any.
    End(Option<Box<Fields>>),
}
