//! Metrics that are asked for at each scrape, because they come and go with the configuration.

use std::collections::BTreeMap;

use rhumb_proxy::Shared;
use rhumb_telemetry::Metric;
use rhumb_tls::{ServerTls, ServerTlsSet};

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

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
