//! What happens to the requests of one rule.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rhumb_base::name::RouteName;
use rhumb_base::rng::Rng;
use rhumb_policy::{Chain, Priority, Share, Tracing};
pub use rhumb_policy::{Retry, Timeouts};
use rhumb_telemetry::metrics::RuleId;

use crate::backend::Backend;
use crate::session::Session;

/// How long a response head may take once the request is complete, when nothing is written (DESIGN.md D13).
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long content may stand still in both directions.
pub const DEFAULT_STREAM_IDLE: Duration = Duration::from_secs(300);

/// How long a tunnel (WebSocket, CONNECT) may stand still.
pub const DEFAULT_TUNNEL_IDLE: Duration = Duration::from_secs(3600);

/// One rule of a route.
pub struct Rule {
    /// The route document.
    pub route: RouteName,
    /// Its place among the rules of the route, from 0.
    pub index: u32,
    /// Label of metrics: the rule's first path, `/users/*`; never a path of a request.
    pub template: Arc<str>,
    /// Which listener the route was attached through.
    pub listener: Arc<str>,
    /// Policies in order.
    pub chain: Chain,
    /// Where requests go; empty when a policy answers them all.
    pub backends: Box<[WeightedBackend]>,
    /// Where copies of the requests go.
    pub mirrors: Box<[Mirror]>,
    /// How long things may take before a backend is chosen; then those of the backend hold.
    pub timeouts: Timeouts,
    /// How dear its requests are when not all can be served.
    pub priority: Priority,
    /// Whether its exchanges are traced, and how.
    pub tracing: Option<Arc<Tracing>>,
    /// Some backend has sessions.
    pub has_sessions: bool,
    /// Set when the documents ask for something that cannot be given: the rule refuses traffic (DESIGN.md D2).
    pub invalid: Option<Arc<str>>,
    /// The rule's series in the metrics registry, found at its first request.
    pub metrics_id: OnceLock<RuleId>,
}

/// One of a rule's backends.
pub struct WeightedBackend {
    /// Share of requests: weight over the sum of weights. Zero gets none.
    pub weight: u32,
    /// The backend; `None` when the reference is not valid: its share is answered with 500 (Gateway API).
    pub backend: Option<Arc<Backend>>,
    /// Policies of this backendRef alone.
    pub chain: Chain,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// When a request is sent again.
    pub retry: Arc<Retry>,
    /// Sessions that stay at one of its endpoints.
    pub session: Option<Arc<Session>>,
}

impl WeightedBackend {
    /// A backend without policies and with every default.
    pub fn new(weight: u32, backend: Option<Arc<Backend>>) -> Self {
        Self {
            weight,
            backend,
            chain: Chain::default(),
            timeouts: Timeouts::default(),
            retry: Arc::default(),
            session: None,
        }
    }
}

/// A backend that gets copies of a rule's requests.
pub struct Mirror {
    /// The backend.
    pub backend: Arc<Backend>,
    /// How many of the requests.
    pub share: Share,
    /// Policies of the backend. Their request hooks run on the copy.
    pub chain: Chain,
}

impl Rule {
    /// Chooses a backend by weight.
    #[inline]
    pub fn choose(&self, rng: &mut Rng) -> Option<&WeightedBackend> {
        match &*self.backends {
            [] => None,
            [only] => (only.weight > 0).then_some(only),
            many => {
                // Gateway API: at most 16 backends of weight up to 10⁶ each, so the sum fits.
                let total: u32 = many.iter().map(|backend| backend.weight).sum();
                let mut left = rng.below(total);
                many.iter().find(|backend| {
                    let is_chosen = left < backend.weight;
                    left = left.saturating_sub(backend.weight);
                    is_chosen
                })
            }
        }
    }

    /// Chooses a backend by weight, always the same one for the same cohort (`rhumb_policy::cohort`).
    pub fn choose_for(&self, cohort: u64) -> Option<&WeightedBackend> {
        let items = self.backends.iter().map(|to| {
            // What leads nowhere keeps its share, and is answered with 500 (Gateway API).
            (to.backend.as_ref().map_or("", |backend| backend.name.as_str()), to.weight)
        });
        self.backends.get(rhumb_policy::cohort::choose(cohort, items)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(weights: &[u32]) -> Rule {
        Rule {
            route: "ns/r".into(),
            index: 0,
            template: "/".into(),
            listener: "l".into(),
            chain: Chain::default(),
            backends: weights.iter().map(|&weight| WeightedBackend::new(weight, None)).collect(),
            mirrors: Box::default(),
            timeouts: Timeouts::default(),
            priority: Priority::Normal,
            tracing: None,
            has_sessions: false,
            invalid: None,
            metrics_id: OnceLock::new(),
        }
    }

    #[test]
    fn weights_are_shares() {
        let rule = rule(&[90, 0, 10]);
        let mut rng = Rng::new(1);
        let mut hits = [0u32; 3];
        for _ in 0..10_000 {
            let chosen = rule.choose(&mut rng).unwrap();
            hits[rule.backends.iter().position(|b| std::ptr::eq(b, chosen)).unwrap()] += 1;
        }
        assert!((8_800..9_200).contains(&hits[0]) && hits[1] == 0, "{hits:?}");
    }

    #[test]
    fn nothing_to_choose_is_none() {
        let mut rng = Rng::new(1);
        assert!(rule(&[]).choose(&mut rng).is_none());
        assert!(rule(&[0]).choose(&mut rng).is_none());
        assert!(rule(&[0, 0]).choose(&mut rng).is_none());
    }
}
