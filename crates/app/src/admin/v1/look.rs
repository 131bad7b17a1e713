//! Single exchanges, as they end (`/tap`) and step by step (`/trace`).

use std::time::Duration;

use axum::http::{Method, StatusCode};
use rhumb_control::ads::report::Look as Question;
use rhumb_policy::Filter;
use rhumb_proxy::tap::{Look, MAX_TAPS, Opened};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};

use super::describe::{Answer, Param, Takes, query};
use super::watch::{Feed, Gone};
use super::{Call, Problem, fleet_look};

/// Exchanges of a tap and of a trace, and exchanges a second, unless other numbers are asked for.
const USUAL: (usize, usize, usize) = (100, 1, 100);

/// How long one looks, unless another time is asked for, and the longest. **Unit**: seconds.
const TIME: (u64, u64) = (60, 600);

/// The most exchanges of a tap, of a trace, and in a second.
pub(super) const MOST: (u64, u64, u64) = (10_000, 100, 1_000);

/// What each proxy may tell beyond what is told, of all proxies of a control plane.
const SPARE: u32 = 16;

/// How often it is looked whether the reader is still there, and told what was missed.
const TURN: Duration = Duration::from_secs(1);

/// What can be said of either; each has a filter and a limit of its own.
pub(super) fn parameters(which: &'static str, most: u64, how_many: &'static str) -> [Param; 4] {
    [
        query("filter", Takes::Text(4_096), which),
        query("limit", Takes::Number { least: 1, most }, how_many),
        query("rate", Takes::Number { least: 1, most: MOST.2 }, "how many in a second (100)"),
        query("seconds", Takes::Number { least: 1, most: TIME.1 }, "for how long (60)"),
    ]
}

/// Exchanges that have ended.
pub(super) async fn tap(call: Call) -> Answer {
    let filter = Filter::of_ended(call.given.text("filter").unwrap_or_default());
    look(&call, Look::Ended, filter, "exchange", call.given.count("limit", USUAL.0))
}

/// Exchanges with every step.
pub(super) async fn trace(call: Call) -> Answer {
    let filter = Filter::of_begun(call.given.text("filter").unwrap_or_default());
    look(&call, Look::Steps, filter, "trace", call.given.count("limit", USUAL.1))
}

fn look<E: std::fmt::Display>(
    call: &Call,
    look: Look,
    filter: Result<Filter, E>,
    event: &'static str,
    limit: usize,
) -> Answer {
    let filter = filter.map_err(|error| Problem::filter_invalid(format!("filter: {error}")))?;
    if let Some(fleet) = &call.desk.admin.fleet {
        let is_trace = look == Look::Steps;
        let question = Question {
            steps: is_trace,
            filter: call.given.text("filter").unwrap_or_default().to_owned(),
            rate: u32::try_from(call.given.count("rate", USUAL.2)).unwrap_or(u32::MAX),
            // Of a trace several may fit before one is told.
            limit: u32::try_from(limit).unwrap_or(u32::MAX).saturating_add(SPARE),
            seconds: u32::try_from(call.given.number("seconds").unwrap_or(TIME.0)).unwrap_or(u32::MAX),
            ..Question::default()
        };
        let end = Instant::now() + Duration::from_secs(question.seconds.into());
        let (mut feed, response) = Feed::open(call)?;
        let looking = fleet_look::open(fleet, question)?;
        // It reaches into all of them: that is written down.
        let path = if is_trace { "/api/v1/trace" } else { "/api/v1/tap" };
        call.desk.note(call.who.as_ref(), call.peer.address, &Method::GET, path, StatusCode::OK, None);
        tokio::spawn(async move {
            // A reader that has gone has heard enough.
            let _: Result<(), Gone> = fleet_look::tell(&mut feed, looking, is_trace, limit, end).await;
        });
        return Ok(response);
    }
    let taps = call.desk.admin.taps.as_ref().ok_or_else(|| {
        Problem::not_in_this_process("a control plane carries no requests: ask a gateway or a sidecar")
    })?;
    let rate = u32::try_from(call.given.count("rate", USUAL.2)).unwrap_or(u32::MAX);
    let time = Duration::from_secs(call.given.number("seconds").unwrap_or(TIME.0));
    let (feed, response) = Feed::open(call)?;
    let opened = taps.open(look, filter, rate).ok_or_else(|| Problem::watchers_too_many(MAX_TAPS))?;
    tokio::spawn(tell(feed, opened, event, limit, Instant::now() + time));
    Ok(response)
}

async fn tell(mut feed: Feed, opened: Opened, event: &'static str, limit: usize, end: Instant) {
    // A reader that has gone has heard enough.
    let _: Result<(), Gone> = tell_until(&mut feed, opened, event, limit, end).await;
}

async fn tell_until(
    feed: &mut Feed,
    mut opened: Opened,
    event: &'static str,
    limit: usize,
    end: Instant,
) -> Result<(), Gone> {
    let mut sent = 0;
    let mut turns = tokio::time::interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    feed.send("open", &json!({ "limit": limit })).await?;
    let reason = loop {
        if sent >= limit {
            break "limit";
        }
        tokio::select! {
            told = opened.next() => {
                let Some(told) = told else { break "end" };
                let text = String::from_utf8_lossy(&told);
                feed.send_text(event, text.trim_end()).await?;
                sent += 1;
            }
            _ = turns.tick() => {
                feed.rest().await?;
                let missed = opened.take_missed();
                if missed > 0 {
                    feed.send("dropped", &json!({ "count": missed })).await?;
                }
            }
            () = tokio::time::sleep_until(end) => break "time",
            () = feed.gone() => return Err(Gone),
        }
    };
    drop(opened);
    feed.send("end", &json!({ "reason": reason, "sent": sent })).await
}
