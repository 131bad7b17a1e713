//! Endpoints as they are, as JSON.

use rhumb_balance::{Check, Endpoint, EndpointSet, Endpoints, Gate, Nanos, Phase, State, Tally, Why};
use rhumb_plan::{Backend, Plan};
use serde_json::{Map, Value, json};

use crate::names::Board;

/// The endpoints of each backend as they are.
pub(crate) fn endpoints(plan: &Plan, now: Nanos, names: &Board) -> Value {
    let backends = plan.backends.iter().map(|one| backend(one, now, names));
    json!({ "revision": plan.revision, "backends": backends.collect::<Vec<_>>() })
}

/// The endpoints of one backend as they are.
pub(super) fn backend(backend: &Backend, now: Nanos, names: &Board) -> Value {
    let set = backend.endpoints.load();
    let tally = backend.endpoints.tally();
    json!({
        "backend": backend.name.as_str(),
        "algorithm": set.algorithm().as_str(),
        "panicking": tally.is_panicking,
        "requests": backend.endpoints.settings().max_requests.map(|limit| json!({
            "inFlight": tally.requests, "limit": limit, "refused": tally.refused,
        })),
        "ejections": ejections(&tally),
        "endpoints": members(&backend.endpoints, &set, &tally, now),
        "omitted": set.omitted(),
        "names": names.of(&backend.name),
    })
}

/// How often which evidence has put an endpoint out.
fn ejections(tally: &Tally) -> Value {
    let kinds = Why::KINDS.iter().zip(tally.ejections).filter(|(_, count)| *count > 0);
    let mut value: Map<String, Value> =
        kinds.map(|(kind, count)| ((*kind).to_owned(), count.into())).collect();
    if tally.spared > 0 {
        value.insert("spared".into(), tally.spared.into());
    }
    value.into()
}

fn members(endpoints: &Endpoints, set: &EndpointSet, tally: &Tally, now: Nanos) -> Vec<Value> {
    let members = set.members().iter().map(|member| {
        let place = (member.weight(), member.priority(), member.zone());
        describe(endpoints, member.endpoint(), place, None, tally, now)
    });
    let draining = endpoints.draining();
    let draining = draining
        .iter()
        .map(|(endpoint, at)| describe(endpoints, endpoint, (0, 0, None), Some(*at), tally, now));
    members.chain(draining).collect()
}

/// One endpoint, with its weight, priority and zone; `left` is when it left the set.
fn describe(
    endpoints: &Endpoints,
    endpoint: &Endpoint,
    (weight, priority, zone): (u32, u32, Option<&str>),
    left: Option<Nanos>,
    tally: &Tally,
    now: Nanos,
) -> Value {
    let state = endpoints.state(endpoint);
    let seconds = |at: Nanos| now.0.saturating_sub(at.0) as f64 / 1e9;
    let word = if left.is_some() { "draining" } else { word(&state, endpoint.gate(), now) };
    json!({
        "address": endpoint.address().to_string(),
        "hostname": endpoint.hostname().map(|name| &**name),
        "weight": weight,
        "priority": priority,
        "zone": zone,
        "state": word,
        "share": if left.is_some() { 0.0 } else { (state.share * 1000.0).round() / 1000.0 },
        "sinceSeconds": tenths(match (word, &state.check) {
            ("draining", _) => seconds(left.unwrap_or(now)),
            ("failing check" | "not checked", Some((_, since))) => seconds(*since),
            _ => seconds(state.since),
        }),
        "why": match left {
            Some(_) => Some("it is no longer listed; its requests go on".to_owned()),
            None => why(&state, tally),
        },
        "next": if left.is_some() { None } else { next(&state, now) },
        "lastEvidence": state.why.map(|(why, at)| json!({
            "why": why.to_string(), "secondsAgo": tenths(seconds(at)),
        })),
        "ejections": state.ejections,
        "relapses": state.relapses,
        "check": state.check.as_ref().map(|(check, since)| json!({
            "state": check_word(check),
            "sinceSeconds": tenths(seconds(*since)),
            "detail": match check { Check::Failing(detail) => Some(&**detail), _ => None },
        })),
        "inFlight": endpoint.in_flight(),
        "latencyMs": endpoint.latency_ns(now).map(|ns| ns as f64 / 1e6),
        "started": endpoint.started(),
        "succeeded": endpoint.succeeded(),
        "failed": endpoint.failed(),
        "throttled": endpoint.throttled(),
        "window": { "succeeded": state.window.0, "failed": state.window.1 },
    })
}

/// The state in a word or two.
fn word(state: &State, gate: Gate, now: Nanos) -> &'static str {
    match state.check {
        Some((Check::Failing(_), _)) => return "failing check",
        Some((Check::Unknown, _)) if gate == Gate::SHUT => return "not checked",
        _ => {}
    }
    match state.phase {
        Phase::Ejected => "ejected",
        Phase::Probing => "probing",
        Phase::Ramping => "ramping",
        Phase::Warming => "slow start",
        Phase::Full if state.throttled_until.is_some_and(|until| until > now) => "throttled",
        Phase::Full => "healthy",
    }
}

/// Why it is not in full use; nothing when it is.
fn why(state: &State, tally: &Tally) -> Option<String> {
    let text = match (&state.check, state.phase) {
        (Some((Check::Failing(detail), _)), _) => detail.to_string(),
        (Some((Check::Unknown, _)), _) if state.share == 0.0 => "no check has ended".to_owned(),
        (_, Phase::Ejected | Phase::Probing | Phase::Ramping) => state.why?.0.to_string(),
        (_, Phase::Warming) => "it is new".to_owned(),
        (_, Phase::Full) if state.throttled_until.is_some() => "it asks for fewer requests".to_owned(),
        (_, Phase::Full) => return None,
    };
    Some(if tally.is_panicking { format!("{text}; used all the same, too few are left") } else { text })
}

/// What comes next, by itself or by what.
fn next(state: &State, now: Nanos) -> Option<String> {
    let left = |until: Nanos| until.0.saturating_sub(now.0) as f64 / 1e9;
    let is_failing = matches!(state.check, Some((Check::Failing(_), _)));
    match (state.phase, state.until) {
        (Phase::Ejected, Some(until)) if left(until) > 0.0 => {
            Some(format!("tried with single requests in {:.1} s", left(until)))
        }
        (Phase::Ejected, _) | (Phase::Full, _) if is_failing => Some("back when its check passes".to_owned()),
        (Phase::Ejected, _) => Some("tried with single requests when its check has passed".to_owned()),
        (Phase::Probing, _) => {
            let (passed, needed) = state.probes;
            Some(format!("back after {} more requests that succeed", needed.saturating_sub(passed)))
        }
        (Phase::Ramping | Phase::Warming, Some(until)) => Some(format!("full share in {:.1} s", left(until))),
        (Phase::Full, _) => state.throttled_until.map(|until| format!("full share in {:.1} s", left(until))),
        _ => None,
    }
}

fn check_word(check: &Check) -> &'static str {
    match check {
        Check::Unknown => "unknown",
        Check::Passing => "passing",
        Check::Failing(_) => "failing",
    }
}

fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}
