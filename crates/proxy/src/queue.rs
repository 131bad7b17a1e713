//! The queue of one worker: how long what is ready waits for its turn, and who has waited too long.
//!
//! Everything that is ready on a worker stands in one queue and is served in order. While the queue is long, a task goes
//! round with it ([`Rounds`]): it queues up, is served, and queues up again, so a round takes as long as the queue is,
//! and what is served has waited about as long as its round has lasted. In an overload a request whose round has lasted
//! longer than the limit is refused. That needs no share that has to be found and followed: each round serves requests
//! for as long as the limit says, and only what is left over is refused, so the worker is never idle because too much was
//! refused, and nobody waits much longer than the limit because too little was.
//!
//! Refusing begins when the queue was too long for [`LOOKS`] looks (RFC 8289 §3.1: a queue that was short once is no
//! standing queue) and ends when it was short for [`CALM`].

use std::cell::Cell;
use std::time::{Duration, Instant};

use rhumb_policy::Priority;

use crate::overload::State;

/// How often a worker with connections looks.
pub(crate) const LOOK: Duration = Duration::from_millis(25);

/// Looks that must agree before requests are refused: one turn that takes long (a large configuration, a scheduler that
/// was elsewhere) is no overload.
const LOOKS: usize = 4;

/// Looks at a short queue after which refusing ends: half a second.
const CALM: u32 = 20;

/// Rounds are gone while they take at least this part of the limit …
const ROUND_PART: u32 = 8;

/// … and this long: timers are that late without any queue.
const ROUND_LEAST: Duration = Duration::from_millis(2);

/// How long a refusal counts as recent, in looks: while there are any, requests of a lower priority all have to go.
const RECENT: u32 = 4;

/// The queue as looks have found it.
#[derive(Default)]
pub(crate) struct Queue {
    recent: [u32; LOOKS],
    at: usize,
    /// Looks since the queue was long.
    calm: u32,
    is_shedding: bool,
    is_closing: bool,
}

impl Queue {
    /// Takes a look at a queue of this length. Both in microseconds; a limit of zero is none.
    pub(crate) fn judge(&mut self, length: u32, limit: u32) -> State {
        if limit == 0 {
            *self = Self::default();
            return State::Normal;
        }
        if let Some(oldest) = self.recent.get_mut(self.at) {
            *oldest = length;
        }
        self.at = (self.at + 1) % LOOKS;
        let least = self.recent.iter().copied().min().unwrap_or(0);
        // While requests are refused the queue is as long as the limit: that is what it is for.
        self.calm = if length > limit / 2 { 0 } else { self.calm.saturating_add(1) };
        self.is_shedding = least > limit || self.is_shedding && self.calm < CALM;
        self.is_closing = self.is_shedding || least > limit / if self.is_closing { 4 } else { 2 };
        match (self.is_shedding, self.is_closing) {
            (true, _) => State::Shedding,
            (false, true) => State::Closing,
            (false, false) => State::Normal,
        }
    }
}

/// The round that is being gone, and who is refused in it.
#[derive(Default)]
pub(crate) struct Rounds {
    /// When it began; nothing while the queue is short.
    began: Cell<Option<Instant>>,
    /// How long a request may have waited; nothing while none is refused.
    limit: Cell<Option<Duration>>,
    /// Looks since a request of a priority was refused, by [`place`].
    since: [Cell<u32>; 3],
    /// Requests since the last look, and those of them that were refused.
    weighed: Cell<u32>,
    refused: Cell<u32>,
}

fn place(priority: Priority) -> usize {
    match priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
    }
}

impl Rounds {
    /// A round begins, or none is gone any more.
    pub(crate) fn begin(&self, at: Option<Instant>) {
        self.began.set(at);
    }

    /// True while the queue is gone round with.
    pub(crate) fn is_going(&self) -> bool {
        self.began.get().is_some()
    }

    /// A look has come to this. Gives the share of requests that were refused since the last one, per mille.
    pub(crate) fn settle(&self, state: State, limit_us: u32) -> u32 {
        let limit = (state == State::Shedding).then(|| Duration::from_micros(limit_us.into()));
        let limit = limit.filter(|limit| !limit.is_zero());
        if limit.is_none() || self.limit.get().is_none() {
            self.since.iter().for_each(|since| since.set(u32::MAX));
        }
        self.limit.set(limit);
        self.since.iter().for_each(|since| since.set(since.get().saturating_add(1)));
        let (weighed, refused) = (self.weighed.take(), self.refused.take());
        u32::try_from(u64::from(refused) * 1000 / u64::from(weighed).max(1)).unwrap_or(1000)
    }

    /// True when a request that is served at `now` has waited too long. Low priority may wait half as long as normal, high
    /// twice as long; and while any of a higher one are refused, none of a lower one is served.
    #[inline]
    pub(crate) fn refuses(&self, priority: Priority, now: Instant) -> bool {
        match self.limit.get() {
            None => false,
            Some(limit) => self.has_waited(limit, priority, now),
        }
    }

    #[cold]
    fn has_waited(&self, limit: Duration, priority: Priority, now: Instant) -> bool {
        let waited = self.began.get().map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        let limit = match priority {
            Priority::Low => limit / 2,
            Priority::Normal => limit,
            Priority::High => limit * 2,
        };
        let place = place(priority);
        let higher = self.since.iter().skip(place + 1);
        let refuses = waited > limit || higher.map(Cell::get).any(|since| since <= RECENT);
        self.weighed.set(self.weighed.get().saturating_add(1));
        if refuses {
            self.refused.set(self.refused.get().saturating_add(1));
            if waited > limit
                && let Some(since) = self.since.get(place)
            {
                since.set(0);
            }
        }
        refuses
    }
}

/// True when a queue of this length is worth going round with.
pub(crate) fn is_worth_going(length: Duration, limit: Option<Duration>) -> bool {
    limit.is_some_and(|limit| length >= (limit / ROUND_PART).max(ROUND_LEAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 100_000;

    #[test]
    fn one_late_look_is_no_overload() {
        let mut queue = Queue::default();
        for length in [100, 900_000, 100, 100, 900_000, 900_000, 900_000, 100] {
            assert_eq!(queue.judge(length, LIMIT), State::Normal);
        }
    }

    #[test]
    fn a_standing_queue_is_an_overload_until_it_was_short_for_a_while() {
        let mut queue = Queue::default();
        let states: Vec<_> = (0..LOOKS).map(|_| queue.judge(150_000, LIMIT)).collect();
        assert_eq!(states.last(), Some(&State::Shedding));
        for _ in 0..1000 {
            assert_eq!(queue.judge(80_000, LIMIT), State::Shedding, "as long as refusing leaves it");
        }
        let looks = Duration::from_secs(2).as_millis() / LOOK.as_millis();
        let states: Vec<_> = (0..looks).map(|_| queue.judge(1_000, LIMIT)).collect();
        assert_eq!(states.last(), Some(&State::Normal));
        assert_eq!(queue.judge(1_000, 0), State::Normal, "without a limit there is none");
    }

    #[test]
    fn who_has_waited_too_long_is_refused_and_lower_priorities_before() {
        let rounds = Rounds::default();
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let refused =
            |ms| [Priority::Low, Priority::Normal, Priority::High].map(|level| rounds.refuses(level, at(ms)));
        rounds.begin(Some(begun));
        assert_eq!(refused(1000), [false; 3], "nobody while there is no overload");
        rounds.settle(State::Shedding, LIMIT);
        assert_eq!(refused(40), [false; 3]);
        assert_eq!(refused(60), [true, false, false]);
        assert_eq!(rounds.settle(State::Shedding, LIMIT), 166);
        assert_eq!(refused(150), [true, true, false]);
        rounds.begin(Some(at(200)));
        assert_eq!(refused(210), [true, false, false], "normal ones had to go a moment ago");
        for _ in 0..=RECENT {
            rounds.settle(State::Shedding, LIMIT);
        }
        assert_eq!(refused(210), [false; 3]);
        rounds.begin(None);
        assert_eq!(refused(9000), [false; 3], "a short queue");
        rounds.begin(Some(begun));
        assert_eq!(refused(250), [true; 3]);
        rounds.settle(State::Normal, LIMIT);
        assert_eq!(refused(1000), [false; 3]);
    }
}
