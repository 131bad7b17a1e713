//! Measuring what a peer makes us do: one leaky bucket per kind of abuse, and counters for metrics.

use super::config::{Limits, Rate};
use super::error::{Abuse, ConnectionError};
use std::time::{Duration, Instant};

/// How often things happened on a connection that are rare on a good one. For metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// RST_STREAM received for open streams.
    pub resets_received: u32,
    /// RST_STREAM sent, for whatever reason.
    pub resets_sent: u32,
    /// Streams refused because too many were open.
    pub streams_refused: u32,
    /// Messages refused: malformed or too large.
    pub messages_refused: u32,
    /// PING received, acknowledgements not counted.
    pub pings: u32,
    /// SETTINGS received, acknowledgements not counted.
    pub settings: u32,
    /// DATA received without content.
    pub empty_frames: u32,
    /// WINDOW_UPDATE received.
    pub window_updates: u32,
    /// PRIORITY received.
    pub priorities: u32,
    /// Frames received without effect.
    pub useless_frames: u32,
    /// Times that sending stopped because a window was empty.
    pub stalls: u32,
}

/// The rates that are measured. The other abuses are measured where they happen.
#[derive(Debug, Clone, Copy)]
pub(super) enum Metered {
    Resets,
    Pings,
    Settings,
    EmptyFrames,
    WindowUpdates,
    Priorities,
    UselessFrames,
}

const METERED: usize = 7;

/// What was spent of each rate.
#[derive(Debug, Default)]
pub(super) struct Meter {
    spent: [u32; METERED],
    /// When time was last paid back.
    paid: Option<Instant>,
    pub(super) counters: Counters,
}

const STEP: Duration = Duration::from_secs(1);

impl Meter {
    /// Notes one of `what`.
    ///
    /// # Errors
    /// [`ConnectionError::Abuse`] when that is too much.
    pub(super) fn spend(
        &mut self,
        what: Metered,
        limits: &Limits,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        self.pay_back(limits, now);
        let (rate, abuse, counter) = match what {
            Metered::Resets => (limits.resets, Abuse::Resets, None),
            Metered::Pings => (limits.pings, Abuse::Pings, Some(&mut self.counters.pings)),
            Metered::Settings => (limits.settings, Abuse::Settings, Some(&mut self.counters.settings)),
            Metered::EmptyFrames => {
                (limits.empty_frames, Abuse::EmptyFrames, Some(&mut self.counters.empty_frames))
            }
            Metered::WindowUpdates => {
                (limits.window_updates, Abuse::WindowUpdates, Some(&mut self.counters.window_updates))
            }
            Metered::Priorities => {
                (limits.priorities, Abuse::Priorities, Some(&mut self.counters.priorities))
            }
            Metered::UselessFrames => {
                (limits.useless_frames, Abuse::UselessFrames, Some(&mut self.counters.useless_frames))
            }
        };
        if let Some(counter) = counter {
            *counter = counter.saturating_add(1);
        }
        let Some(spent) = self.spent.get_mut(what as usize) else { return Ok(()) };
        *spent = spent.saturating_add(1);
        if *spent > rate.burst { Err(ConnectionError::Abuse(abuse)) } else { Ok(()) }
    }

    /// Gives back `n` of `what`: the peer did something useful.
    #[inline]
    pub(super) fn credit(&mut self, what: Metered, n: u32) {
        if let Some(spent) = self.spent.get_mut(what as usize) {
            *spent = spent.saturating_sub(n);
        }
    }

    fn pay_back(&mut self, limits: &Limits, now: Instant) {
        let paid = *self.paid.get_or_insert(now);
        let elapsed = now.saturating_duration_since(paid);
        if elapsed < STEP {
            return;
        }
        let seconds = u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX);
        self.paid = paid.checked_add(STEP.saturating_mul(seconds));
        let rates: [Rate; METERED] = [
            limits.resets,
            limits.pings,
            limits.settings,
            limits.empty_frames,
            limits.window_updates,
            limits.priorities,
            limits.useless_frames,
        ];
        for (spent, rate) in self.spent.iter_mut().zip(rates) {
            *spent = spent.saturating_sub(rate.per_second.saturating_mul(seconds));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(meter: &mut Meter, n: u32, now: Instant) -> Result<(), ConnectionError> {
        (0..n).try_for_each(|_| meter.spend(Metered::Pings, &Limits::default(), now))
    }

    #[test]
    fn a_burst_is_allowed_and_comes_back_with_time_and_credit() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        let Rate { burst, per_second } = Limits::default().pings;
        let too_much = Err(ConnectionError::Abuse(Abuse::Pings));
        assert_eq!(spend(&mut meter, burst, start), Ok(()));
        assert_eq!(spend(&mut meter, 1, start + STEP / 2), too_much);
        meter.credit(Metered::Pings, 2);
        assert_eq!(spend(&mut meter, 1, start + STEP / 2), Ok(()));
        assert_eq!(spend(&mut meter, per_second, start + STEP), Ok(()));
        assert_eq!(spend(&mut meter, 1, start + STEP * 3 / 2), too_much);
        assert_eq!(spend(&mut meter, burst, start + STEP * 1000), Ok(()));
        assert_eq!(meter.counters.pings, burst * 2 + per_second + 3);
    }
}
