//! Metrics that are asked for at each scrape, because they come and go with the configuration.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rhumb_balance::Why;
use rhumb_plan::Backend;
use rhumb_policy::circuit_breaker::{Standing, Watched};
use rhumb_proxy::Shared;
use rhumb_telemetry::Metric;
use rhumb_tls::{ServerTls, ServerTlsSet};

use crate::signals::Breakers;

/// Adds them to the registry.
pub(crate) fn register(shared: &Shared, workers: usize) {
    let registry = &shared.registry;
    registry.gauge(Metric::Workers, &[]).set(count(workers));
    let current = shared.current.clone();
    registry.collect(Metric::Endpoints, move |emit| {
        for backend in &current.load().backends {
            let set = backend.endpoints.load();
            let eligible = set.members().iter().filter(|member| member.endpoint().is_eligible()).count();
            for (state, number) in [("eligible", eligible), ("ineligible", set.members().len() - eligible)] {
                emit(&[backend.name.as_str(), state], count(number));
            }
        }
    });
    health(shared);
    breakers(shared);
    stores(shared);
    let current = shared.current.clone();
    registry.collect(Metric::CertificateExpiry, move |emit| {
        let plan = current.load();
        let servers = plan.ports.iter().filter_map(|port| port.tls.as_ref()).flat_map(ServerTlsSet::servers);
        // Several listeners may serve one certificate; while it is replaced, the one that ends first counts.
        let mut expiries = BTreeMap::new();
        for certificate in servers.flat_map(ServerTls::certificates) {
            let expiry = expiries.entry(certificate.origin).or_insert(certificate.not_after_unix);
            *expiry = certificate.not_after_unix.min(*expiry);
        }
        for (origin, expiry) in expiries {
            emit(&[&origin], expiry);
        }
    });
}

/// Circuits of policies.
fn breakers(shared: &Shared) {
    type Value = fn(&Watched, Instant) -> i64;
    let metrics: [(Metric, Value); 2] = [
        (Metric::BreakerOpenings, |circuit, _| circuit.openings().into()),
        (Metric::BreakerOpen, |circuit, now| (circuit.standing(now) != Standing::Closed).into()),
    ];
    for (metric, value) in metrics {
        let (current, known) = (shared.current.clone(), Mutex::new(Breakers::default()));
        shared.registry.collect(metric, move |emit| {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            for (policy, circuit) in known.of(&current.load()) {
                emit(&[policy], value(circuit, now));
            }
        });
    }
}

/// Stores of limits.
fn stores(shared: &Shared) {
    use rhumb_store::Health;
    type Value = fn(&str, &Health, &mut dyn FnMut(&[&str], i64));
    let metrics: [(Metric, Value); 4] = [
        (Metric::StoreAsks, |name, health, emit| emit(&[name], whole(health.asks()))),
        (Metric::StoreRoundTrips, |name, health, emit| {
            emit(&[name, "answered"], whole(health.round_trips() - health.failures()));
            emit(&[name, "failed"], whole(health.failures()));
        }),
        (Metric::StoreAway, |name, health, emit| emit(&[name], health.is_away().into())),
        (Metric::StoreUsers, |name, health, emit| emit(&[name], health.users().into())),
    ];
    for (metric, value) in metrics {
        shared.registry.collect(metric, move |emit| {
            // One store may be named in several ways, with other time limits: the first is told.
            let mut seen = std::collections::HashSet::new();
            rhumb_store::each_store(&mut |name, health| {
                if seen.insert(name.to_owned()) {
                    value(name, health, emit);
                }
            });
        });
    }
}

/// What the health and the limits of backends have come to.
fn health(shared: &Shared) {
    type Value = fn(&Backend, &mut dyn FnMut(&[&str], i64));
    let metrics: [(Metric, Value); 6] = [
        (Metric::Ejections, |backend, emit| {
            let tally = backend.endpoints.tally();
            let kinds = Why::KINDS.iter().copied().zip(tally.ejections).chain([("spared", tally.spared)]);
            for (kind, number) in kinds.filter(|(_, number)| *number > 0) {
                emit(&[backend.name.as_str(), kind], whole(number));
            }
        }),
        (Metric::Panicking, |backend, emit| {
            emit(&[backend.name.as_str()], backend.endpoints.tally().is_panicking.into());
        }),
        (Metric::Panics, |backend, emit| {
            emit(&[backend.name.as_str()], whole(backend.endpoints.tally().panics));
        }),
        (Metric::BackendRefused, |backend, emit| {
            emit(&[backend.name.as_str(), "requests"], whole(backend.endpoints.tally().refused));
            emit(&[backend.name.as_str(), "connections"], whole(backend.target.connections.refused()));
        }),
        (Metric::BackendPending, |backend, emit| {
            emit(&[backend.name.as_str()], backend.target.connections.waiting().into());
        }),
        (Metric::UpstreamConnectionsOpen, |backend, emit| {
            emit(&[backend.name.as_str()], backend.target.connections.open().into());
        }),
    ];
    for (metric, value) in metrics {
        let current = shared.current.clone();
        shared.registry.collect(metric, move |emit| {
            for backend in &current.load().backends {
                value(backend, emit);
            }
        });
    }
}

fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
