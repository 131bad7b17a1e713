//! The circuits of a plan's policies, and what becomes of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use rhumb_plan::Plan;
use rhumb_policy::circuit_breaker::{Standing, Watched};
use rhumb_policy::{Chain, Policy};
use rhumb_signals::Level;

use super::tell;

/// Every circuit of a plan, by where its policy is written.
#[derive(Debug, Default)]
pub(crate) struct Breakers {
    /// Of this revision.
    revision: Option<u64>,
    circuits: Vec<(Arc<str>, Watched)>,
    /// What was last seen of each: where it stood, and how often it had opened.
    seen: BTreeMap<Arc<str>, (Standing, u32)>,
}

impl Breakers {
    /// The circuits of a plan; they are looked for once in each.
    pub(crate) fn of(&mut self, plan: &Plan) -> &[(Arc<str>, Watched)] {
        if self.revision != Some(plan.revision) {
            self.revision = Some(plan.revision);
            self.circuits = circuits(plan);
        }
        &self.circuits
    }

    /// Tells which have opened or closed, or are probed, since the last look.
    pub(crate) fn look(&mut self, plan: &Plan, now: Instant) {
        let mut seen = BTreeMap::new();
        let mut told = Vec::new();
        for (policy, circuit) in self.of(plan) {
            seen.insert(Arc::clone(policy), (circuit.standing(now), circuit.openings()));
        }
        for (policy, now) in &seen {
            let before = self.seen.get(policy).copied().unwrap_or((Standing::Closed, 0));
            told.extend(news(before, *now).into_iter().map(|kind| (Arc::clone(policy), kind)));
        }
        self.seen = seen;
        for (policy, (kind, level, text)) in told {
            tell(kind, level, &policy, text);
        }
    }
}

type News = (&'static str, Level, &'static str);

const OPENED: News = ("breaker_opened", Level::Error, "the circuit is open: requests are refused");
const HALF_OPEN: News =
    ("breaker_half_open", Level::Warning, "a few requests find out whether the backend is well");
const CLOSED: News = ("breaker_closed", Level::Info, "the circuit is closed: its share of requests grows");

/// What has happened between two looks, the first of it first.
fn news((stood, openings): (Standing, u32), (stands, opened): (Standing, u32)) -> Vec<News> {
    let mut news = Vec::new();
    if opened != openings {
        // It may have been open before, too, and closed in between.
        if stood != Standing::Closed {
            news.push(CLOSED);
        }
        news.push(OPENED);
    }
    let before = if opened == openings { stood } else { Standing::Open };
    match (before, stands) {
        (Standing::Open, Standing::HalfOpen) => news.push(HALF_OPEN),
        (Standing::HalfOpen, Standing::Open) => news.push(OPENED),
        (Standing::Open | Standing::HalfOpen, Standing::Closed) => news.push(CLOSED),
        _ => {}
    }
    news
}

/// Every circuit once, however many rules it is attached to.
fn circuits(plan: &Plan) -> Vec<(Arc<str>, Watched)> {
    let mut found: Vec<(Arc<str>, Watched)> = Vec::new();
    let mut add = |chain: &Chain| {
        for item in chain.items() {
            if let Policy::CircuitBreaker(breaker) = &*item.policy {
                let circuit = breaker.watched();
                if !found.iter().any(|(_, known)| known.is_same(&circuit)) {
                    found.push((Arc::clone(&item.origin), circuit));
                }
            }
        }
    };
    for (_, rule) in plan.ports.iter().flat_map(|port| port.table.rules()) {
        add(&rule.value.chain);
        rule.value.backends.iter().for_each(|backend| add(&backend.chain));
        rule.value.mirrors.iter().for_each(|mirror| add(&mirror.chain));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_between_two_looks_is_told_in_order() {
        use Standing::{Closed, HalfOpen, Open};
        let kinds = |before, now| news(before, now).into_iter().map(|(kind, ..)| kind).collect::<Vec<_>>();
        assert_eq!(kinds((Closed, 0), (Closed, 0)), [""; 0]);
        assert_eq!(kinds((Closed, 0), (Open, 1)), ["breaker_opened"]);
        assert_eq!(kinds((Open, 1), (HalfOpen, 1)), ["breaker_half_open"]);
        assert_eq!(kinds((HalfOpen, 1), (Open, 1)), ["breaker_opened"]);
        assert_eq!(kinds((HalfOpen, 1), (Closed, 1)), ["breaker_closed"]);
        assert_eq!(kinds((Closed, 1), (Closed, 2)), ["breaker_opened", "breaker_closed"]);
        assert_eq!(kinds((Open, 1), (Open, 2)), ["breaker_closed", "breaker_opened"]);
        assert_eq!(kinds((Closed, 0), (HalfOpen, 1)), ["breaker_opened", "breaker_half_open"]);
    }
}
