//! Looks after the endpoints of the plan in force: lets time pass for their health, and tells what changes.

use std::time::Instant;

use rhumb_balance::judge::TICK;
use rhumb_balance::{Event, Nanos, Phase};
use rhumb_plan::{Current, Plan};
use tokio::time::MissedTickBehavior;

/// Lets time pass until it is dropped. `origin` is where the balancer's clock begins.
pub(crate) async fn watch(current: Current, origin: Instant) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let plan = current.load();
        tick(&plan, origin);
        for backend in &plan.backends {
            for event in backend.endpoints.take_events() {
                tell(backend.name.as_str(), &event);
            }
        }
    }
}

/// Lets time pass for the endpoints of a plan.
pub(crate) fn tick(plan: &Plan, origin: Instant) {
    let now = Nanos::since(origin, Instant::now());
    for backend in &plan.backends {
        backend.endpoints.tick(now);
    }
}

fn tell(backend: &str, event: &Event) {
    let endpoint = event.endpoint.label();
    match (event.phase, event.why) {
        (Phase::Ejected, Some(why)) => tracing::warn!(backend, endpoint, "endpoint is out: {why}"),
        (Phase::Ejected, None) => tracing::warn!(backend, endpoint, "endpoint is out"),
        (Phase::Probing, _) => tracing::debug!(backend, endpoint, "endpoint is tried with single requests"),
        (Phase::Ramping, _) => tracing::info!(backend, endpoint, "endpoint is back, its share grows"),
        (Phase::Warming, _) => tracing::debug!(backend, endpoint, "endpoint is new, its share grows"),
        (Phase::Full, _) => tracing::info!(backend, endpoint, "endpoint has its full share"),
    }
}
