//! Endpoints as they are, as JSON.

use rhumb_balance::{EndpointSet, Nanos};
use rhumb_plan::Plan;
use serde_json::{Value, json};

use crate::names::Board;

/// The endpoints of each backend as they are.
pub(crate) fn endpoints(plan: &Plan, now: Nanos, names: &Board) -> Value {
    let backends = plan.backends.iter().map(|backend| {
        let set = backend.endpoints.load();
        json!({
            "backend": backend.name.as_str(),
            "algorithm": set.algorithm().as_str(),
            "endpoints": members(&set, now),
            "omitted": set.omitted(),
            "names": names.of(&backend.name),
        })
    });
    json!({ "revision": plan.revision, "backends": backends.collect::<Vec<_>>() })
}

fn members(set: &EndpointSet, now: Nanos) -> Vec<Value> {
    let members = set.members().iter().map(|member| {
        let endpoint = member.endpoint();
        json!({
            "address": endpoint.address().to_string(),
            "hostname": endpoint.hostname().map(|name| &**name),
            "weight": member.weight(),
            "zone": member.zone(),
            "state": if endpoint.is_eligible() { "eligible" } else { "ineligible" },
            "inFlight": endpoint.in_flight(),
            "latencyMs": endpoint.latency_ns(now).map(|ns| ns as f64 / 1e6),
            "started": endpoint.started(),
            "succeeded": endpoint.succeeded(),
            "failed": endpoint.failed(),
        })
    });
    members.collect()
}
