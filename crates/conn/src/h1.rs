//! HTTP/1 connections: [`Server`] towards a client, [`Client`] towards a backend. Both are polled by the exchange that
//! uses them; between exchanges they hold no buffer.

mod wire;
mod server;
mod client;

pub use client::Client;
pub use server::{NoRequest, Server};
