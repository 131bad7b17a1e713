//! What several control planes share: one connection to PostgreSQL per process, and texts that only they can read.
//!
//! [`Database`] owns a thread with the connection: work is handed to it, whoever asks waits, and where the server is away
//! everybody is told so at once instead of being kept. It listens for changes that others announce. [`Seal`] encrypts what
//! is written, so that a dump gives nothing away.
//!
//! Knows no tables: who uses it brings them. Start with [`Database::open`].
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod address;
mod database;
mod seal;

pub use address::{Address, NotAnAddress};
pub use database::{CHANNEL, Contact, Database, Error, Work};
pub use seal::{KeyError, Opaque, Seal};
pub use tokio_postgres as postgres;
