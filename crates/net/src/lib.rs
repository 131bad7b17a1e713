//! Sockets, buffers and timers of a worker: listen, connect, read, write, splice.
//!
//! Everything here belongs to one worker thread and its single-threaded runtime, but for [`names`]. Knows no protocol, and of
//! DNS only whom to ask. Start with
//! [`buffer`]: how connections read and write without holding memory while they are idle.

pub mod listen;
pub mod handover;
pub mod names;
pub mod connect;
pub mod capture;
pub mod socket;
pub mod datagrams;
pub mod buffer;
pub mod splice;
pub mod timer;
