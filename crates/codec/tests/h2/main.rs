//! HTTP/2 connections from outside: raw frames against one side, both sides against each other, and each side against
//! the h2 crate.

mod support;
mod frames;
mod messages;
mod pair;
mod flow;
mod abuse;
mod splits;
mod oracle;
