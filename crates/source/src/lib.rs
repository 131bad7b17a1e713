//! Where documents come from: files and directories.
//!
//! [`Files`] reads a file or directory into documents, again and again: what did not change is not parsed again, and
//! its documents stay the same allocation. [`Watch`] says when to read again. Nothing here knows what the documents
//! mean; one bad document never blocks the others.

mod lookup;
mod routes;
mod files;
mod watch;

pub use files::{Changed, Files, Loaded, MAX_FILES, adapt};
pub use lookup::{Input, InputKind, MAX_REFERENCED_BYTES, MAX_TOTAL_BYTES, Stamp};
pub use watch::Watch;
