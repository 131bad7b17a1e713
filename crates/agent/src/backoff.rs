//! When, and whom, to try again.

use std::time::Duration;

use rhumb_base::rng::Rng;

/// The shortest wait after a failure.
const FIRST: Duration = Duration::from_millis(200);

/// The longest.
const LAST: Duration = Duration::from_secs(10);

/// How long a stream has to live to count as one that works.
pub(crate) const STEADY: Duration = Duration::from_secs(10);

/// Which control plane is next, and when: each in turn, beginning anywhere, later and later and never at the same time as
/// everybody else.
#[derive(Debug)]
pub(crate) struct Backoff {
    rng: Rng,
    order: Vec<usize>,
    next: usize,
    wait: Duration,
}

impl Backoff {
    /// Among so many.
    pub(crate) fn new(servers: usize, mut rng: Rng) -> Self {
        let mut order: Vec<usize> = (0..servers).collect();
        for end in (1..order.len()).rev() {
            let other = rng.below(u32::try_from(end + 1).unwrap_or(u32::MAX));
            order.swap(end, usize::try_from(other).unwrap_or(0));
        }
        Self { rng, order, next: 0, wait: FIRST }
    }

    /// The one to try.
    pub(crate) fn server(&self) -> usize {
        let at = self.next.checked_rem(self.order.len()).unwrap_or(0);
        self.order.get(at).copied().unwrap_or(0)
    }

    /// It failed, or its stream ended after a time: the next one, and how long to wait before it.
    pub(crate) fn failed(&mut self, lived: Duration) -> Duration {
        self.next = self.next.wrapping_add(1);
        if lived >= STEADY {
            self.wait = FIRST;
        }
        // Up to three times the last wait (decorrelated jitter), and anywhere between.
        let most = (self.wait * 3).min(LAST);
        let span = most.saturating_sub(FIRST).as_millis();
        let more = self.rng.below(u32::try_from(span).unwrap_or(u32::MAX).saturating_add(1));
        self.wait = FIRST + Duration::from_millis(more.into());
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_gets_its_turn_and_waits_grow_but_not_without_end() {
        let mut backoff = Backoff::new(3, Rng::new(7));
        let mut tried = vec![backoff.server()];
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            let wait = backoff.failed(Duration::ZERO);
            assert!(wait >= FIRST && wait <= LAST, "{wait:?}");
            longest = longest.max(wait);
            tried.push(backoff.server());
        }
        assert!(longest > LAST / 2);
        for turn in tried.windows(3) {
            let mut turn = turn.to_vec();
            turn.sort_unstable();
            assert_eq!(turn, [0, 1, 2]);
        }
        assert!(backoff.failed(STEADY) <= FIRST * 3, "it worked for a while");
    }

    #[test]
    fn proxies_begin_with_different_servers() {
        let firsts: std::collections::HashSet<usize> =
            (0..20).map(|seed| Backoff::new(3, Rng::new(seed)).server()).collect();
        assert_eq!(firsts.len(), 3);
        assert_eq!(Backoff::new(0, Rng::new(1)).server(), 0);
    }
}
