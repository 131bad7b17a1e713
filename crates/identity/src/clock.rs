//! The time, as an argument.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub use rhumb_tls::mesh::Clock;

/// The clock of the operating system.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}
