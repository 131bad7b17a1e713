//! Sans-io protocols: bytes (and time, where it matters) in, events and bytes out. No sockets, no tasks, no clock.
//!
//! Start with [`head`]: the message heads that every protocol decodes into and encodes from, and that routing and
//! policies read and change. HTTP/1 and HTTP/2 meet there.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod field;
pub mod head;
pub mod authority;

pub mod proxy_protocol;
pub mod protobuf;
pub mod h1;
pub mod h2;
