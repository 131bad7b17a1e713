//! The wall clock of a worker: read once a second, reckoned from the monotonic clock in between.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often it is read each time.
const READINGS: usize = 3;

/// What the wall clock says at any time of the monotonic clock: one clock reading per exchange less.
pub(crate) struct WallClock {
    /// A moment, and the same in nanoseconds since 1970.
    read: Cell<(Instant, u64)>,
}

impl WallClock {
    pub(crate) fn new() -> Self {
        Self { read: Cell::new(read()) }
    }

    /// Reads the clock anew: it may have been set, and runs on while the machine sleeps.
    pub(crate) fn read(&self) {
        self.read.set(read());
    }

    /// Nanoseconds since 1970 at a moment, which may be long before the clock was read.
    pub(crate) fn unix_nanos(&self, at: Instant) -> u64 {
        let (read_at, unix_nanos) = self.read.get();
        match at.checked_duration_since(read_at) {
            Some(since) => unix_nanos.saturating_add(nanos(since)),
            None => unix_nanos.saturating_sub(nanos(read_at.saturating_duration_since(at))),
        }
    }

    /// Nanoseconds since 1970 now, at most as late as the clock is read seldom, but not before a moment that has been.
    pub(crate) fn unix_nanos_lately(&self, been: Instant) -> u64 {
        let (_, unix_nanos) = self.read.get();
        self.unix_nanos(been).max(unix_nanos)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The quickest of some readings: who is interrupted between the two clocks brings them apart for as long.
fn read() -> (Instant, u64) {
    let reading = || {
        let at = Instant::now();
        let unix_nanos = nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        (at.elapsed(), (at, unix_nanos))
    };
    let (mut least, mut best) = reading();
    for _ in 1..READINGS {
        let (took, again) = reading();
        if took < least {
            (least, best) = (took, again);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_before_the_clock_was_read_began_when_it_did() {
        let now = Instant::now();
        let at = |secs| now + Duration::from_secs(secs);
        let clock = WallClock { read: Cell::new((at(100), 5_000_000_000_000)) };
        assert_eq!(clock.unix_nanos(at(100)), 5_000_000_000_000);
        assert_eq!(clock.unix_nanos(at(103)), 5_003_000_000_000);
        assert_eq!(clock.unix_nanos(at(40)), 4_940_000_000_000);
    }

    #[test]
    fn what_began_long_ago_is_answered_now() {
        let now = Instant::now();
        let at = |secs| now + Duration::from_secs(secs);
        let clock = WallClock { read: Cell::new((at(100), 5_000_000_000_000)) };
        assert_eq!(clock.unix_nanos_lately(at(40)), 5_000_000_000_000);
        assert_eq!(clock.unix_nanos_lately(at(101)), 5_001_000_000_000);
    }
}
