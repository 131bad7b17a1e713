//! A worker over loopback sockets, with peers that are scripted here.

mod support;
mod framing;
mod cancel;
mod retry;
mod tunnel;
mod flow;
mod drain;
