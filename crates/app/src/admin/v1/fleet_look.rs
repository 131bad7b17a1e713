//! Single requests of all proxies of a control plane.
//!
//! A trace is told by request: when a proxy has seen one that fits, all are asked for their parts of it, and these are told in
//! the order in which they began.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use rhumb_control::ads::report::Look as Question;
use rhumb_control::fleet::Fleet;
use rhumb_control::looks::{Looking, MAX_LOOKS};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};

use super::Problem;
use super::watch::{Feed, Gone};

/// How long parts of a request are waited for. Proxies tell a request when it ends, callers after those whom they call.
const PARTS: Duration = Duration::from_millis(1_500);

/// How long it may take until every proxy looks. What is seen before may lack its first parts.
const SETTLE: Duration = Duration::from_millis(500);

/// How long another request is waited for, when one came before every proxy has looked.
const EARLY: Duration = Duration::from_millis(1_500);

/// Parts of one request at most.
const MAX_PARTS: usize = 64;

/// How often it is looked whether the reader is still there, and told what was missed.
const TURN: Duration = Duration::from_secs(1);

/// Proxies that do not tell, and why, of which is said so.
const MAX_REFUSED: usize = 16;

/// Asks every proxy.
///
/// # Errors
/// When as many look as may.
pub(super) fn open(fleet: &Fleet, question: Question) -> Result<Looking, Problem> {
    fleet.look(question).ok_or_else(|| Problem::watchers_too_many(MAX_LOOKS))
}

/// Tells what proxies see, until there was enough of it or the time is over. `is_trace`: each request with all its parts.
pub(super) async fn tell(
    feed: &mut Feed,
    mut looking: Looking,
    is_trace: bool,
    limit: usize,
    end: Instant,
) -> Result<(), Gone> {
    let mut turns = tokio::time::interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    feed.send("open", &json!({ "limit": limit })).await?;
    let mut sent = 0;
    let mut done: HashSet<String> = HashSet::new();
    let mut refused: BTreeSet<String> = BTreeSet::new();
    let begun = Instant::now();
    let mut early: Option<Value> = None;
    let reason = loop {
        if sent >= limit {
            break "limit";
        }
        tokio::select! {
            seen = looking.next() => {
                let Some(seen) = seen else { break "end" };
                if !seen.told.refused.is_empty() {
                    let text = format!("{}: {}", seen.proxy, seen.told.refused);
                    if refused.len() < MAX_REFUSED && refused.insert(text.clone()) {
                        feed.send("refused", &json!({ "proxy": &*seen.proxy, "why": seen.told.refused })).await?;
                    }
                    continue;
                }
                let Some(value) = read(&seen.proxy, &seen.told.json) else { continue };
                if !is_trace {
                    feed.send("exchange", &value).await?;
                    sent += 1;
                    continue;
                }
                // What is left of a request that was told already is no other one.
                if seen.told.is_part || ids(&value).iter().any(|id| done.contains(id)) {
                    continue;
                }
                if begun.elapsed() < SETTLE {
                    early = Some(value);
                    continue;
                }
                early = None;
                tell_parts(feed, &mut looking, value, &mut done).await?;
                sent += 1;
            }
            () = tokio::time::sleep_until(begun + EARLY), if early.is_some() => {
                if let Some(value) = early.take() {
                    tell_parts(feed, &mut looking, value, &mut done).await?;
                    sent += 1;
                }
            }
            _ = turns.tick() => {
                feed.rest().await?;
                let missed = looking.take_missed();
                if missed > 0 {
                    feed.send("dropped", &json!({ "count": missed })).await?;
                }
            }
            () = tokio::time::sleep_until(end) => break "time",
            () = feed.gone() => return Err(Gone),
        }
    };
    drop(looking);
    feed.send("end", &json!({ "reason": reason, "sent": sent })).await
}

/// Tells a request with all its parts.
async fn tell_parts(
    feed: &mut Feed,
    looking: &mut Looking,
    first: Value,
    done: &mut HashSet<String>,
) -> Result<(), Gone> {
    done.extend(ids(&first));
    for part in parts(looking, first).await {
        done.extend(ids(&part));
        feed.send("trace", &part).await?;
    }
    Ok(())
}

/// What a proxy has told, with its name.
fn read(proxy: &str, json: &[u8]) -> Option<Value> {
    let mut value: Value = serde_json::from_slice(json).ok()?;
    value.as_object_mut()?.insert("proxy".to_owned(), json!(proxy));
    Some(value)
}

/// By what the parts of a request are found.
fn ids(value: &Value) -> Vec<String> {
    ["requestId", "traceId"].into_iter().filter_map(|name| value[name].as_str().map(str::to_owned)).collect()
}

/// Everything that proxies know of a request, in the order in which it began.
async fn parts(looking: &mut Looking, first: Value) -> Vec<Value> {
    let text = |name: &str| first[name].as_str().unwrap_or_default().to_owned();
    let known: HashSet<String> = ids(&first).into_iter().collect();
    looking.find(&text("requestId"), &text("traceId"));
    let mut found = vec![first];
    let until = Instant::now() + PARTS;
    while found.len() < MAX_PARTS
        && let Ok(Some(seen)) = tokio::time::timeout_at(until, looking.next()).await
    {
        if let Some(value) = read(&seen.proxy, &seen.told.json)
            && ids(&value).iter().any(|id| known.contains(id))
        {
            found.push(value);
        }
    }
    ordered(found)
}

/// Each part once, in order; each says which of how many it is.
fn ordered(mut found: Vec<Value>) -> Vec<Value> {
    let began = |part: &Value| part["exchange"]["ts"].as_str().unwrap_or_default().to_owned();
    let took = |part: &Value| part["exchange"]["duration_ms"]["total"].as_f64().unwrap_or_default();
    // Who calls begins before and ends after whom it calls.
    found.sort_by(|a, b| began(a).cmp(&began(b)).then_with(|| took(b).total_cmp(&took(a))));
    // What fits the filter and is asked for by its names is told twice, in the same words.
    let mut told = HashSet::new();
    found.retain(|part| told.insert((part["proxy"].to_string(), part["exchange"].to_string())));
    let count = found.len();
    for (at, part) in found.iter_mut().enumerate() {
        part["part"] = json!(at + 1);
        part["parts"] = json!(count);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(proxy: &str, ts: &str, total: f64, span: &str) -> Value {
        json!({
            "proxy": proxy, "requestId": "r",
            "exchange": { "ts": ts, "duration_ms": { "total": total }, "span_id": span },
        })
    }

    #[test]
    fn parts_stand_in_the_order_of_the_way_and_each_once() {
        let told = ordered(vec![
            part("orders", "2026-01-01T00:00:00.004Z", 1.0, "d"),
            part("edge", "2026-01-01T00:00:00.001Z", 9.0, "a"),
            part("web", "2026-01-01T00:00:00.002Z", 5.0, "c"),
            part("web", "2026-01-01T00:00:00.002Z", 7.0, "b"),
            part("edge", "2026-01-01T00:00:00.001Z", 9.0, "a"),
        ]);
        let names: Vec<_> = told.iter().map(|part| part["exchange"]["span_id"].as_str().unwrap()).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        assert_eq!((&told[3]["part"], &told[3]["parts"]), (&json!(4), &json!(4)));
    }
}
