//! Endpoints that have left their set: they still answer what they were asked, and are remembered for a while, so that
//! one that comes back (an answer of DNS that alternates, a deployment that is taken back) is who it was before.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::load::{Nanos, duration_ns};
use crate::set::EndpointSet;

/// How long an endpoint that has left is remembered; longer only while requests to it are under way. As long as an endpoint
/// may be out at most, so that leaving is no way around that.
pub const MEMORY: Duration = Duration::from_secs(300);

/// Endpoints of one backend that are remembered. Of more, those that left first are forgotten.
pub const DEPARTED_LIMIT: usize = 256;

/// Those of one backend, in the order in which they left.
#[derive(Debug, Default)]
pub(crate) struct Departed(Vec<(Arc<Endpoint>, Nanos)>);

impl Departed {
    /// These have left, unless `set` has them.
    pub(crate) fn leave(
        &mut self,
        endpoints: impl Iterator<Item = Arc<Endpoint>>,
        set: &EndpointSet,
        now: Nanos,
    ) {
        self.0.extend(endpoints.map(|endpoint| (endpoint, now)));
        self.settle(set);
        let excess = self.0.len().saturating_sub(DEPARTED_LIMIT);
        self.0.drain(..excess);
    }

    /// Those that are in the set have not left.
    fn settle(&mut self, set: &EndpointSet) {
        if self.0.is_empty() {
            return;
        }
        let mut seen: HashSet<*const Endpoint> =
            set.members().iter().map(|member| Arc::as_ptr(member.endpoint())).collect();
        self.0.retain(|(endpoint, _)| seen.insert(Arc::as_ptr(endpoint)));
    }

    /// Time passes.
    pub(crate) fn forget(&mut self, now: Nanos) {
        self.0.retain(|(endpoint, at)| {
            now.0.saturating_sub(at.0) < duration_ns(MEMORY) || endpoint.in_flight() > 0
        });
    }

    /// Everybody, with the time at which they left.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Arc<Endpoint>, Nanos)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::EndpointSpec;
    use crate::{Algorithm, Endpoints};

    fn specs(range: std::ops::Range<u16>) -> Vec<EndpointSpec> {
        range.map(|port| EndpointSpec::new(([10, 0, 0, 1], port).into())).collect()
    }

    fn at(seconds: u64) -> Nanos {
        Nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn who_comes_back_is_who_it_was() {
        let cell = Endpoints::new(EndpointSet::new(specs(1..4), Algorithm::Random));
        let first = Arc::clone(cell.load().members()[0].endpoint());
        let load = first.start();
        cell.publish(specs(2..4), at(1));
        assert_eq!(cell.draining().len(), 1, "it has something to do");
        drop(load);
        assert!(cell.draining().is_empty());
        cell.tick(at(100));
        cell.publish(specs(1..4), at(100));
        assert!(Arc::ptr_eq(cell.load().members()[0].endpoint(), &first));
        // A revision takes it out, and another one brings it back.
        let next = Endpoints::with(
            cell.next(specs(2..4), Algorithm::Random, at(101)),
            cell.settings().clone(),
            Some(&cell),
        );
        assert!(cell.find(first.identity()).is_some());
        next.tick(at(102));
        let last = next.next(specs(1..4), Algorithm::Random, at(103));
        assert!(Arc::ptr_eq(last.members()[0].endpoint(), &first));
    }

    #[test]
    fn who_is_away_for_long_is_forgotten_and_not_too_many_are_remembered() {
        let cell = Endpoints::new(EndpointSet::new(specs(1..3), Algorithm::Random));
        let first = Arc::clone(cell.load().members()[0].endpoint());
        cell.publish(specs(2..3), at(0));
        cell.tick(at(MEMORY.as_secs() - 1));
        assert_eq!(Arc::strong_count(&first), 2);
        let _asked = first.start();
        cell.tick(at(MEMORY.as_secs() + 1));
        assert_eq!(cell.draining().len(), 1, "longer while it has something to do");
        drop(_asked);
        cell.tick(at(MEMORY.as_secs() + 2));
        assert_eq!(Arc::strong_count(&first), 1);

        cell.publish(specs(2..1000), at(0));
        let all: Vec<_> = cell.load().members().iter().map(|member| Arc::clone(member.endpoint())).collect();
        cell.publish(specs(2..3), at(1));
        let remembered = all.iter().filter(|endpoint| Arc::strong_count(endpoint) > 1).count();
        assert_eq!(remembered, DEPARTED_LIMIT + 1);
    }
}
