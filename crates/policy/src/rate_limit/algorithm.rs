//! How much may come how fast: three ways to count, pure.

use super::rate::Rate;
use crate::keyed::{Entry, Now};

/// A way to count what one key uses.
pub(crate) trait Meter {
    /// Takes `cost` when it may be had at once, or after at most `patience`; else nothing is taken.
    fn take(&mut self, rule: &Rule, now: Now, cost: u64, patience: u64) -> Result<Taken, Refused>;

    /// What taking would come to.
    fn peek(&self, rule: &Rule, now: Now, cost: u64, patience: u64) -> Result<Taken, Refused>;

    /// Undoes what was just taken.
    fn give_back(&mut self, rule: &Rule, cost: u64);

    /// Takes what is used already, whether it may be had or not.
    fn charge(&mut self, rule: &Rule, now: Now, cost: u64);
}

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) rate: Rate,
    /// How much may come at once.
    pub(crate) burst: u64,
    /// From one to the next. **Unit**: nanoseconds, rounded up: never more than is allowed.
    pub(crate) interval: u64,
}

impl Rule {
    pub(crate) fn new(rate: Rate, burst: u64) -> Self {
        Self { rate, burst, interval: rate.nanos().div_ceil(rate.requests.max(1)) }
    }

    fn allowance(&self) -> u64 {
        self.burst.saturating_mul(self.interval)
    }
}

/// What was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// How long to wait before using it. **Unit**: nanoseconds.
    pub(crate) delay: u64,
    /// What is left.
    pub(crate) left: u64,
    /// Until all of it is there again. **Unit**: nanoseconds.
    pub(crate) reset: u64,
}

/// Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Until it could be had. **Unit**: nanoseconds.
    pub(crate) wait: u64,
    /// What is left: less than was asked for.
    pub(crate) left: u64,
    /// Until all of it is there again. **Unit**: nanoseconds.
    pub(crate) reset: u64,
}

/// The generic cell rate algorithm (ITU-T I.371), as virtual scheduling: one number per key, the time at which all that was
/// taken is paid for.
#[derive(Debug, Default)]
pub(crate) struct Gcra {
    paid: u64,
}

impl Entry for Gcra {
    fn is_over(&self, now: Now) -> bool {
        self.paid <= now.steady
    }
}

impl Gcra {
    fn with(&self, rule: &Rule, now: Now, cost: u64, patience: u64) -> Result<(Taken, u64), Refused> {
        let begin = self.paid.max(now.steady);
        let price = cost.saturating_mul(rule.interval);
        let paid = begin.saturating_add(price);
        let (ahead, allowance) = (paid - now.steady, rule.allowance());
        let delay = ahead.saturating_sub(allowance);
        let before = begin - now.steady;
        let left = |ahead: u64| allowance.saturating_sub(ahead) / rule.interval.max(1);
        if delay > patience || cost > rule.burst {
            return Err(Refused { wait: delay, left: left(before), reset: before });
        }
        Ok((Taken { delay, left: left(ahead), reset: ahead }, paid))
    }
}

impl Meter for Gcra {
    fn take(&mut self, rule: &Rule, now: Now, cost: u64, patience: u64) -> Result<Taken, Refused> {
        let (taken, paid) = self.with(rule, now, cost, patience)?;
        self.paid = paid;
        Ok(taken)
    }

    fn peek(&self, rule: &Rule, now: Now, cost: u64, patience: u64) -> Result<Taken, Refused> {
        self.with(rule, now, cost, patience).map(|(taken, _)| taken)
    }

    fn give_back(&mut self, rule: &Rule, cost: u64) {
        self.paid = self.paid.saturating_sub(cost.saturating_mul(rule.interval));
    }

    fn charge(&mut self, rule: &Rule, now: Now, cost: u64) {
        self.paid = self.paid.max(now.steady).saturating_add(cost.saturating_mul(rule.interval));
    }
}

/// Periods by the clock, one after the other: up to twice the limit comes around the end of one.
#[derive(Debug, Default)]
pub(crate) struct Fixed {
    /// When the period that was counted last ends. **Unit**: nanoseconds since 1970.
    end: u64,
    count: u64,
}

impl Entry for Fixed {
    fn is_over(&self, now: Now) -> bool {
        self.end <= now.unix
    }
}

impl Fixed {
    /// The end of the period that counts, and what it has. Clocks of workers differ a little, and may be set back: what
    /// has begun stays.
    fn now(&self, rule: &Rule, now: Now) -> (u64, u64) {
        let length = rule.rate.nanos().max(1);
        let end = (now.unix - now.unix % length).saturating_add(length);
        match end <= self.end && self.end - end <= length {
            true => (self.end, self.count),
            false => (end, 0),
        }
    }
}

impl Meter for Fixed {
    fn take(&mut self, rule: &Rule, now: Now, cost: u64, patience: u64) -> Result<Taken, Refused> {
        let taken = self.peek(rule, now, cost, patience)?;
        self.charge(rule, now, cost);
        Ok(taken)
    }

    fn peek(&self, rule: &Rule, now: Now, cost: u64, _: u64) -> Result<Taken, Refused> {
        let (end, count) = self.now(rule, now);
        let left = rule.rate.requests.saturating_sub(count);
        let reset = end.saturating_sub(now.unix);
        match left.checked_sub(cost) {
            Some(left) => Ok(Taken { delay: 0, left, reset }),
            None => Err(Refused { wait: reset, left, reset }),
        }
    }

    fn give_back(&mut self, _: &Rule, cost: u64) {
        self.count = self.count.saturating_sub(cost);
    }

    fn charge(&mut self, rule: &Rule, now: Now, cost: u64) {
        let (end, count) = self.now(rule, now);
        (self.end, self.count) = (end, count.saturating_add(cost));
    }
}

/// Parts that a sliding window is counted in, beside the one that has begun.
const PARTS: u64 = 16;

/// All counted parts.
const SLOTS: usize = PARTS as usize + 1;

/// No period of the length, wherever it begins, has more than the limit. Counted in sixteenths of it, the oldest in full:
/// under steady load beyond the limit up to a seventeenth less passes than is allowed.
#[derive(Debug, Default)]
pub(crate) struct Sliding {
    /// The part that was counted last.
    last: u64,
    /// When none of the parts counts any more. **Unit**: nanoseconds since 1970.
    until: u64,
    counts: [u32; SLOTS],
}

impl Entry for Sliding {
    fn is_over(&self, now: Now) -> bool {
        self.until <= now.unix
    }
}

impl Sliding {
    fn length(rule: &Rule) -> u64 {
        rule.rate.nanos().div_ceil(PARTS).max(1)
    }

    /// The part that counts. Clocks of workers differ a little: what has begun stays.
    fn part(&self, rule: &Rule, now: Now) -> u64 {
        let part = now.unix / Self::length(rule);
        // A clock that was set back by more than the window begins anew.
        if part < self.last && self.last - part <= PARTS { self.last } else { part }
    }

    /// What each part that still counts has, the oldest first.
    fn parts(&self, part: u64) -> impl Iterator<Item = (u64, u64)> {
        (part.saturating_sub(PARTS)..=part).map(move |at| {
            let is_known = at <= self.last && self.last - at <= PARTS;
            let count = usize::try_from(at).ok().and_then(|at| self.counts.get(at % SLOTS));
            (at, if is_known { count.copied().map_or(0, u64::from) } else { 0 })
        })
    }
}

impl Meter for Sliding {
    fn take(&mut self, rule: &Rule, now: Now, cost: u64, patience: u64) -> Result<Taken, Refused> {
        let taken = self.peek(rule, now, cost, patience)?;
        self.charge(rule, now, cost);
        Ok(taken)
    }

    fn peek(&self, rule: &Rule, now: Now, cost: u64, _: u64) -> Result<Taken, Refused> {
        let (part, length) = (self.part(rule, now), Self::length(rule));
        let until_gone = |at: u64| (at + SLOTS as u64).saturating_mul(length).saturating_sub(now.unix);
        let (mut used, mut newest) = (0u64, None);
        for (at, count) in self.parts(part) {
            used += count;
            newest = if count > 0 { Some(at) } else { newest };
        }
        let reset = newest.map_or(0, until_gone);
        let left = rule.rate.requests.saturating_sub(used);
        if let Some(left) = left.checked_sub(cost) {
            return Ok(Taken { delay: 0, left, reset: until_gone(part) });
        }
        let mut needed = cost - left;
        let mut wait = reset;
        for (at, count) in self.parts(part) {
            needed = needed.saturating_sub(count);
            if needed == 0 {
                wait = until_gone(at);
                break;
            }
        }
        Err(Refused { wait, left, reset })
    }

    fn give_back(&mut self, _: &Rule, cost: u64) {
        let at = usize::try_from(self.last % SLOTS as u64).unwrap_or(0);
        if let Some(count) = self.counts.get_mut(at) {
            *count = count.saturating_sub(u32::try_from(cost).unwrap_or(u32::MAX));
        }
    }

    fn charge(&mut self, rule: &Rule, now: Now, cost: u64) {
        let part = self.part(rule, now);
        let passed = if part < self.last { PARTS + 1 } else { (part - self.last).min(PARTS + 1) };
        for back in 0..passed {
            let at = usize::try_from(part.saturating_sub(back) % SLOTS as u64).unwrap_or(0);
            if let Some(count) = self.counts.get_mut(at) {
                *count = 0;
            }
        }
        self.last = part;
        self.until = (part + SLOTS as u64).saturating_mul(Self::length(rule));
        let at = usize::try_from(part % SLOTS as u64).unwrap_or(0);
        if let Some(count) = self.counts.get_mut(at) {
            *count = count.saturating_add(u32::try_from(cost).unwrap_or(u32::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_base::rng::Rng;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    fn at(nanos: u64) -> Now {
        Now { steady: nanos, unix: 1_700_000_000 * SECOND + nanos }
    }

    fn rule(requests: u64, period: Duration, burst: u64) -> Rule {
        Rule::new(Rate { requests, period }, burst)
    }

    /// When each of many requests at random times passed, and what it cost.
    fn passed<M: Meter + Default>(rule: &Rule, seed: u64, most_cost: u32) -> Vec<(u64, u64)> {
        let (mut meter, mut rng, mut now) = (M::default(), Rng::new(seed), 50 * SECOND);
        let mut passed = Vec::new();
        for _ in 0..20_000 {
            // Bursts and pauses, around the limit.
            let pause = match rng.below(100) {
                0 => rng.below(3_000_000_000),
                1..20 => rng.below(30_000_000),
                _ => rng.below(200_000),
            };
            now += u64::from(pause);
            let cost = u64::from(rng.below(most_cost) + 1);
            let seen = meter.peek(rule, at(now), cost, 0);
            let taken = meter.take(rule, at(now), cost, 0);
            assert_eq!(seen, taken, "what was seen is what is taken");
            match taken {
                Ok(_) if rng.below(10) == 0 => meter.give_back(rule, cost),
                Ok(taken) => {
                    assert_eq!(taken.delay, 0);
                    passed.push((now, cost));
                }
                Err(refused) => assert!(refused.wait > 0 && refused.left < cost),
            }
        }
        passed
    }

    /// The most that passed within `length` of any request.
    fn most_within(passed: &[(u64, u64)], length: u64) -> u64 {
        let (mut sum, mut most, mut from) = (0, 0, 0);
        for (now, cost) in passed {
            sum += cost;
            while passed[from].0 + length <= *now {
                sum -= passed[from].1;
                from += 1;
            }
            most = most.max(sum);
        }
        most
    }

    #[test]
    fn gcra_never_lets_more_pass_than_burst_and_rate() {
        for (seed, requests, burst, cost) in
            [(1, 100, 100, 1), (2, 100, 1, 1), (3, 7, 3, 3), (4, 1000, 50, 9)]
        {
            let rule = rule(requests, Duration::from_secs(1), burst);
            let passed = passed::<Gcra>(&rule, seed, cost);
            for window in [1, 3, 10] {
                let most = most_within(&passed, window * SECOND);
                assert!(most <= burst + requests * window, "seed {seed}: {most} in {window} s");
                assert!(most > burst, "seed {seed}: {most} in {window} s");
            }
        }
    }

    #[test]
    fn a_sliding_window_never_has_more_than_the_limit() {
        for (seed, requests, cost) in [(1, 100, 1), (2, 7, 3), (3, 1000, 9)] {
            let rule = rule(requests, Duration::from_secs(1), requests);
            let passed = passed::<Sliding>(&rule, seed, cost);
            let most = most_within(&passed, SECOND);
            assert!(most <= requests && most > requests / 2, "seed {seed}: {most}");
        }
    }

    #[test]
    fn a_fixed_window_never_has_more_than_the_limit() {
        for (seed, requests, cost) in [(1, 100, 1), (2, 7, 3)] {
            let rule = rule(requests, Duration::from_secs(1), requests);
            let mut windows = std::collections::HashMap::new();
            for (now, cost) in passed::<Fixed>(&rule, seed, cost) {
                *windows.entry(now / SECOND).or_insert(0) += cost;
            }
            let most = windows.values().max().copied().unwrap();
            assert!(most <= requests && most > requests / 2, "seed {seed}: {most}");
        }
    }

    #[test]
    fn steady_load_gets_what_is_allowed() {
        for seed in 1..4 {
            let rule = rule(50, Duration::from_secs(1), 1);
            let mut gcra = Gcra::default();
            let mut rng = Rng::new(seed);
            let (mut now, mut count) = (SECOND, 0);
            while now < 101 * SECOND {
                now += u64::from(rng.below(200_000));
                count += u64::from(gcra.take(&rule, at(now), 1, 0).is_ok());
            }
            assert!((4950..=5001).contains(&count), "{count}");
        }
    }

    #[test]
    fn what_waits_long_enough_passes() {
        fn check<M: Meter + Default>(rule: &Rule) {
            let (mut meter, mut now) = (M::default(), 20 * SECOND);
            for _ in 0..200 {
                if let Err(refused) = meter.take(rule, at(now), 3, 0) {
                    now += refused.wait;
                    assert!(meter.take(rule, at(now), 3, 0).is_ok());
                }
                now += SECOND / 100;
            }
        }
        let rule = rule(10, Duration::from_secs(1), 5);
        check::<Gcra>(&rule);
        check::<Fixed>(&rule);
        check::<Sliding>(&rule);
    }

    #[test]
    fn who_is_patient_is_delayed_instead_of_refused() {
        let rule = rule(10, Duration::from_secs(1), 1);
        let mut gcra = Gcra::default();
        let patience = SECOND / 4;
        let mut take = |now| gcra.take(&rule, at(now), 1, patience).map(|taken| taken.delay);
        assert_eq!(take(SECOND), Ok(0));
        assert_eq!(take(SECOND), Ok(SECOND / 10));
        assert_eq!(take(SECOND), Ok(2 * SECOND / 10));
        let refused = take(SECOND).unwrap_err();
        assert_eq!((refused.wait, refused.left), (3 * SECOND / 10, 0));
    }

    #[test]
    fn what_was_used_already_is_charged_in_full() {
        let rule = rule(10, Duration::from_secs(1), 10);
        let mut gcra = Gcra::default();
        gcra.charge(&rule, at(SECOND), 30);
        assert_eq!(gcra.take(&rule, at(SECOND), 1, 0).unwrap_err().wait, 21 * SECOND / 10);
        let mut fixed = Fixed::default();
        fixed.charge(&rule, at(SECOND), 30);
        assert_eq!(fixed.take(&rule, at(SECOND), 1, 0).unwrap_err().wait, SECOND);
    }

    #[test]
    fn a_clock_that_was_set_back_gives_nothing_away() {
        let rule = rule(2, Duration::from_secs(60), 2);
        let mut fixed = Fixed::default();
        assert!(fixed.take(&rule, at(100 * SECOND), 2, 0).is_ok());
        assert!(fixed.take(&rule, at(70 * SECOND), 1, 0).is_err());
        let mut sliding = Sliding::default();
        assert!(sliding.take(&rule, at(100 * SECOND), 2, 0).is_ok());
        assert!(sliding.take(&rule, at(70 * SECOND), 1, 0).is_err());
    }
}
