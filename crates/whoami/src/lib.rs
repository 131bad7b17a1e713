//! Stands in for the crate of this name, which `tokio-postgres` asks who runs it when nobody says as whom to log in.
//!
//! That crate asks the C library, and so its name service, which a static program must not load (ARCHITECTURE.md,
//! "Deliberately absent"). Our addresses of databases always name a user (`database::Address`), so nobody asks.

use std::io;

/// The name of the user that runs this process, which is not looked for.
///
/// # Errors
/// Always.
pub fn username() -> io::Result<String> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "no user is named"))
}
