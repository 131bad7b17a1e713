//! HTTP/2 (RFC 9113), both sides of a connection: bytes and time in, events and bytes out.
//!
//! A [`Connection`] holds everything that HTTP/2 knows about one connection and no socket. The owner of the socket
//! feeds it with [`Connection::receive`], one frame per call, and writes [`Connection::output`] once per turn, however
//! many streams have put frames there. Streams are numbers: every call that sends names one.
//!
//! Back-pressure goes both ways. Content that arrives counts against the peer's window until it is
//! [released](Connection::release). Content that leaves is taken as far as [`Connection::capacity`] says; a stream
//! that could not send all is named by [`Connection::next_writable`] when it may go on.
//!
//! A message that breaks a rule ends its stream, and is never handed out. What breaks the connection, or makes more
//! work than its requests are worth ([`Limits`]), ends the connection.

pub mod hpack;
mod frame;
mod config;
mod error;
mod meter;
mod stream;
mod decode;
mod encode;
mod connection;
mod receive;
mod send;

pub use config::{Config, Limits, Rate, Role};
pub use connection::Connection;
pub use error::{Abuse, ConnectionError, ErrorCode, OpenError, Refusal, StreamGone};
pub use frame::{FRAME_HEADER, PREFACE, StreamId};
pub use meter::Counters;
pub use receive::{Event, Received};
pub use send::OUTPUT_HIGH_WATER;
