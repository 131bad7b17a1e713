//! TLS on the data path, certificates and their swap.
//!
//! This crate owns everything that names rustls: server and client configuration with errors for
//! people, choice of certificate by server name, live swap of certificates, the facts of a peer's
//! certificate, and [`TlsStream`], which runs rustls' unbuffered API over a non-blocking
//! [`Transport`]. Records are decrypted and encrypted in buffers that a thread lends to whichever
//! connection runs ([`Scratch`]), so that an idle connection holds none.
//!
//! It deliberately does not know: timers (a caller bounds the handshake's time), tasks and locks
//! (a stream belongs to one worker), documents (callers turn them into [`ServerSpec`] and
//! [`ClientSpec`]), and HTTP.
//!
//! Start reading at [`TlsStream`], then [`ServerTls`] and [`ClientTls`].
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod transport;
mod hello;
mod select;
mod server;
mod client;
mod stream;
mod handshake;
mod certificate;
mod roots;
mod identity;
mod token;
pub mod mesh;
mod io;
mod der;
mod provider;
mod error;
#[cfg(test)]
mod testing;

pub use certificate::{Certificate, CertificateInfo, CertificateSource, Warning};
pub use client::{ClientSpec, ClientTls, SubjectName, Verify};
pub use error::{Error, Problem, What};
pub use handshake::HandshakeError;
pub use hello::{ClientHello, MAX_CLIENT_HELLO, MAX_HELLO_RECORDS, Peek, peek_client_hello};
pub use identity::Peer;
pub use io::AsyncTls;
pub use provider::Version;
pub use roots::Roots;
pub use select::{ServerTlsSet, ServerTlsSetBuilder};
pub use server::{ClientAuth, HandshakeLimits, ServerSpec, ServerTls};
pub use stream::{MAX_WRITE, Scratch, TlsStream};
pub use token::TokenKey;
pub use transport::Transport;
