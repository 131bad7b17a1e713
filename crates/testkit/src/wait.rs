//! Waiting for something to become true: polls, never a fixed pause.

use std::time::{Duration, Instant};

/// How long a test waits for anything that should happen at once. Generous: machines that run tests are busy.
pub const LIMIT: Duration = Duration::from_secs(100);

/// Between two looks.
const STEP: Duration = Duration::from_millis(2);

/// Asks until there is an answer; panics with `what` after [`LIMIT`].
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(LIMIT, what, look)
}

/// Asks until there is an answer; panics with `what` after `limit`.
pub fn until_within<T>(limit: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    poll(limit, look).unwrap_or_else(|| panic!("waited {limit:?} in vain: {what}"))
}

/// Asks until there is an answer or the time is over.
pub fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(STEP);
    }
}
