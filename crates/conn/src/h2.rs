//! HTTP/2 connections: one [`Driver`] per connection owns the stream of bytes, one [`Stream`] per exchange is the handle
//! that the exchange uses. Both belong to one worker and meet in the codec's state.
//!
//! A stream that sends puts frames into the connection's output and wakes the driver, which the runtime puts behind every
//! task that is ready: frames of many streams leave in one write per turn.

mod shared;
mod stream;
mod driver;

pub use driver::Driver;
pub use rhumb_codec::h2::{Config, OpenError, Refusal, Role};
pub use shared::Handle;
pub use stream::Stream;

use rhumb_codec::h2::PREFACE;

/// Whether bytes begin an HTTP/2 connection (RFC 9113 §3.4); `None` while they may still become one.
pub fn is_preface(bytes: &[u8]) -> Option<bool> {
    let len = bytes.len().min(PREFACE.len());
    if bytes.get(..len) != PREFACE.get(..len) {
        return Some(false);
    }
    (len == PREFACE.len()).then_some(true)
}
