//! What was counted and what happened: golden signals, usage, events, and the APIs that traffic shows.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use rhumb_signals::answer::{Edges, Events, Series, Sort, Top};
use rhumb_signals::apis::Apis;
use rhumb_signals::{By, Column, History, Level, Query, Step, Usage};
use serde_json::{Value, json};

use super::describe::{self, Answer, Content, Endpoint, Given, Gives, Param, Takes, json_of, query};
use super::{Call, Problem, done, questions};
use crate::health::unix_now;

/// How long lately is, unless another time is asked for. **Unit**: seconds.
const WINDOW: u64 = 10;

/// What is told of the past, unless another time is asked for. **Unit**: seconds.
const SPAN: u64 = 3600;

/// How long workers may take to tell what they have seen so far, and how often it is looked whether all have.
const HAND_OVER: Duration = Duration::from_secs(2);
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Items of one answer, unless another number is asked for.
const LIMIT: usize = 100;

/// A time. **Unit**: seconds since 1970, up to the year 9999.
const TIME: Takes = Takes::Number { least: 0, most: 253_402_300_799 };

const BY: Param = query(
    "by",
    Takes::OneOf(&["route", "rule", "backend", "endpoint", "consumer", "edge"]),
    "what items are (route)",
);
const FROM: Param = query("from", TIME, "from when, in seconds since 1970");
const TO: Param = query("to", TIME, "until when, in seconds since 1970; now");
const MOST: Param = query("limit", Takes::Number { least: 1, most: 1_000 }, "how many at most (100)");
const VALUE: Takes = Takes::Text(1_024);

/// The endpoints.
pub(super) fn endpoints() -> Vec<Endpoint> {
    const MISSING: &[(u16, &str)] = &[(404, "`not_in_this_process`")];
    let usage = || json!({ "from": 0, "to": 3600, "rows": [] });
    vec![
        Endpoint::get(
            "/top",
            "Who has the most requests, failures or latency, lately",
            json_of::<Top>(empty),
            |call| Box::pin(top(call)),
        )
        .takes([
            BY,
            query("window", Takes::Number { least: 1, most: 60 }, "over how many seconds (10)"),
            query("sort", Takes::OneOf(&["requests", "errors", "p99", "name"]), "what is first (requests)"),
            MOST,
        ])
        .refuses(MISSING),
        Endpoint::get("/series", "What came when", json_of::<Series>(empty), |call| Box::pin(series(call)))
            .takes([
                BY,
                query("name", VALUE, "one of them, as `/top` names it; all together when it is absent"),
                FROM,
                TO,
                query("step", Takes::Number { least: 0, most: 86_400 }, "how long a step is, in seconds"),
            ])
            .refuses(MISSING),
        Endpoint::get("/edges", "Who calls whom", json_of::<Edges>(empty), |call| Box::pin(edges(call)))
            .takes([query("at", TIME, "in the minute that ended then, in seconds since 1970; the last one")])
            .refuses(MISSING),
        Endpoint::get(
            "/usage",
            "Requests by route, operation, consumer, plan and status",
            Gives::Table(Content { schema: describe::schema_of::<Usage>, example: usage }),
            |call| Box::pin(usage_of(call)),
        )
        .takes([
            FROM,
            TO,
            query(
                "by",
                Takes::SomeOf(&["route", "operation", "consumer", "plan", "status"]),
                "what is told apart (route)",
            ),
            query(
                "step",
                Takes::OneOf(&["all", "hour", "day"]),
                "one row for all of the time, per hour or per day",
            ),
            query("route", VALUE, "only this route"),
            query("operation", VALUE, "only this operation"),
            query("consumer", VALUE, "only this consumer"),
            query("plan", VALUE, "only this plan"),
            query("status", VALUE, "only this status"),
            query("format", Takes::OneOf(&["json", "csv"]), "how it is told (json)"),
        ])
        .refuses(MISSING),
        Endpoint::get(
            "/events",
            "What happened, the latest first",
            json_of::<Events>(|| json!({ "events": [] })),
            |call| Box::pin(events(call)),
        )
        .takes([
            FROM,
            TO,
            query("kind", VALUE, "only these kinds, with commas between"),
            query(
                "level",
                Takes::OneOf(&["info", "warning", "error"]),
                "only what is at least so bad (info)",
            ),
            MOST,
        ])
        .refuses(MISSING),
        Endpoint::get("/apis", "Which APIs traffic shows", json_of::<Apis>(empty), |call| {
            Box::pin(apis(call))
        })
        .refuses(MISSING),
    ]
}

fn empty() -> Value {
    json!({})
}

fn history(call: &Call) -> Result<Arc<History>, Problem> {
    let why = "nothing is counted here: `signals` is off";
    call.desk.admin.shown_history().cloned().ok_or_else(|| Problem::not_in_this_process(why))
}

/// Asks where nobody else waits: a day is a lot to read.
async fn ask<T: Send + 'static>(
    call: &Call,
    question: impl FnOnce(&History) -> T + Send + 'static,
) -> Result<T, Problem> {
    ask_of(history(call)?, question).await
}

/// Asks one history.
async fn ask_of<T: Send + 'static>(
    history: Arc<History>,
    question: impl FnOnce(&History) -> T + Send + 'static,
) -> Result<T, Problem> {
    let asked = tokio::task::spawn_blocking(move || question(&history)).await;
    asked.map_err(|_| Problem::internal_error("the history cannot be read"))
}

async fn top(call: Call) -> Answer {
    let given = &call.given;
    let by = by(given);
    let window = Duration::from_secs(given.number("window").unwrap_or(WINDOW));
    let sort = given.text("sort").and_then(Sort::parse).unwrap_or_default();
    let limit = given.count("limit", LIMIT);
    done(&ask(&call, move |history| history.top(by, window, sort, limit)).await?)
}

async fn series(call: Call) -> Answer {
    let given = &call.given;
    let (by, (from, to)) = (by(given), span(given, SPAN));
    let (name, step) = (given.text("name").map(str::to_owned), given.number("step").unwrap_or(0));
    done(&ask(&call, move |history| history.series(by, name.as_deref(), from, to, step)).await?)
}

async fn edges(call: Call) -> Answer {
    let at = call.given.number("at");
    done(&ask(&call, move |history| history.edges(at)).await?)
}

#[allow(clippy::cast_precision_loss)] // seconds
async fn events(call: Call) -> Answer {
    let given = &call.given;
    let (from, to) = span(given, 24 * SPAN);
    let level = given.text("level").and_then(|word| serde_json::from_value::<Level>(word.into()).ok());
    let kinds: Vec<String> = given.text("kind").unwrap_or_default().split(',').map(str::to_owned).collect();
    let limit = given.count("limit", LIMIT);
    let found = ask(&call, move |history| {
        let kinds: Vec<&str> = kinds.iter().map(String::as_str).filter(|kind| !kind.is_empty()).collect();
        history.events(from as f64, to as f64 + 1.0, &kinds, level.unwrap_or_default(), limit)
    });
    done(&found.await?)
}

async fn usage_of(call: Call) -> Answer {
    let given = &call.given;
    let (from, to) = span(given, 24 * SPAN);
    let by = given.text("by").unwrap_or("route").split(',').filter_map(Column::parse).collect();
    let only = Column::ALL
        .into_iter()
        .filter_map(|column| Some((column, given.text(column.as_str())?.to_owned())))
        .collect();
    let step = given.text("step").and_then(Step::parse).unwrap_or_default();
    let is_table = given.text("format") == Some("csv");
    let usage = ask(&call, move |history| history.usage(&Query { from, to, by, only, step })).await?;
    if is_table {
        let fields = [(header::CONTENT_TYPE, "text/csv; charset=utf-8")];
        return Ok((StatusCode::OK, fields, usage.to_csv()).into_response());
    }
    done(&usage)
}

async fn apis(call: Call) -> Answer {
    if let Some(fleet) = call.desk.admin.fleet.clone() {
        let standing = questions::standing(&call)?;
        let found = ask_of(Arc::clone(fleet.history()), move |history| {
            let rules = rhumb_resolve::templates(&standing);
            history.finder().apis(rules.iter().map(|(route, template)| (&**route, &**template)))
        });
        return done(&found.await?);
    }
    let plan = call.desk.admin.current.load();
    let why = "nothing is looked at here: `signals` is off";
    let asked = call.desk.admin.history.clone().ok_or_else(|| Problem::not_in_this_process(why))?;
    if let Some(asked) = asked.finder().ask() {
        let until = tokio::time::Instant::now() + HAND_OVER;
        while !asked.is_answered() && tokio::time::Instant::now() < until {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
    let found = ask_of(asked, move |history| {
        history.finder().bring_in(unix_now());
        let rules = plan.ports.iter().flat_map(|port| port.table.rules());
        history.finder().apis(rules.map(|(_, rule)| (rule.value.route.as_str(), &*rule.value.template)))
    });
    done(&found.await?)
}

fn by(given: &Given) -> By {
    given.text("by").and_then(By::parse).unwrap_or(By::Route)
}

/// From when until when: the last hours unless something else is asked for.
fn span(given: &Given, usual: u64) -> (u64, u64) {
    // What happens in this second is part of it.
    let to = given.number("to").unwrap_or_else(|| unix_now() + 1);
    let from = given.number("from").unwrap_or_else(|| to.saturating_sub(usual));
    (from.min(to), to)
}
