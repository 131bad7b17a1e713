//! Events as they happen (`text/event-stream`, WHATWG HTML §9.2).
//!
//! A stream is a task that sends when something has changed; it ends with its reader, and with the credentials that opened
//! it. How many there are at a time is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::describe::Answer;
use super::{Call, Problem, documents, state};
use crate::admin::Desk;
use crate::admin::credentials::Who;

/// Streams at a time.
pub(super) const MAX_STREAMS: usize = 64;

/// Events that wait for a reader; a stream whose reader is slower waits for it.
const BACKLOG: usize = 64;

/// How often it is looked whether something has changed.
const LOOK: Duration = Duration::from_millis(500);

/// How often what costs more to look at is looked at, in turns of [`LOOK`].
const SELDOM: u32 = 4;

/// Events of one look; with more, the oldest are not told.
const MOST_EVENTS: usize = 100;

/// After how long without an event the reader is told that the stream is still there.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What can be watched.
pub(super) const TOPICS: &[&str] = &["process", "health", "documents", "proxies", "signals", "events"];

static STREAMS: AtomicUsize = AtomicUsize::new(0);

/// One of the streams that may be open at a time.
pub(super) struct Seat(());

impl Seat {
    /// Takes one.
    ///
    /// # Errors
    /// When all are taken.
    pub(super) fn take() -> Result<Self, Problem> {
        let taken = STREAMS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            (taken < MAX_STREAMS).then_some(taken + 1)
        });
        taken.map(|_| Self(())).map_err(|_| Problem::watchers_too_many(MAX_STREAMS))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        STREAMS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where events go.
pub(super) struct Feed {
    tx: mpsc::Sender<Bytes>,
    number: u64,
    last: Instant,
    desk: Arc<Desk>,
    who: Option<Who>,
    _seat: Seat,
}

/// Nobody reads any more, or they may not.
pub(super) struct Gone;

impl Feed {
    /// A stream for who asks, and its answer.
    ///
    /// # Errors
    /// When there are as many as there may be.
    pub(super) fn open(call: &Call) -> Result<(Self, Response), Problem> {
        let seat = Seat::take()?;
        let (tx, rx) = mpsc::channel(BACKLOG);
        let stream = ReceiverStream::new(rx).map(Ok::<_, std::convert::Infallible>);
        let fields = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
        let response = (fields, Body::from_stream(stream)).into_response();
        let (desk, who) = (Arc::clone(&call.desk), call.who.clone());
        Ok((Self { tx, number: 0, last: Instant::now(), desk, who, _seat: seat }, response))
    }

    /// Sends an event.
    ///
    /// # Errors
    /// [`Gone`].
    pub(super) async fn send<T: Serialize>(&mut self, event: &str, data: &T) -> Result<(), Gone> {
        // What we send can be written.
        self.send_text(event, &serde_json::to_string(data).unwrap_or_default()).await
    }

    /// Sends an event whose data is JSON already, without line breaks.
    ///
    /// # Errors
    /// [`Gone`].
    pub(super) async fn send_text(&mut self, event: &str, data: &str) -> Result<(), Gone> {
        self.number += 1;
        let retry = if self.number == 1 { "retry: 2000\n" } else { "" };
        self.put(format!("{retry}id: {}\nevent: {event}\ndata: {data}\n\n", self.number)).await
    }

    /// Says that the stream is still there when it has been silent for long, and looks whether it may go on.
    ///
    /// # Errors
    /// [`Gone`].
    pub(super) async fn rest(&mut self) -> Result<(), Gone> {
        if self.tx.is_closed() || !self.who.as_ref().is_some_and(|who| self.desk.credentials.holds(who)) {
            return Err(Gone);
        }
        if self.last.elapsed() < HEARTBEAT {
            return Ok(());
        }
        self.put(": still here\n\n".to_owned()).await
    }

    /// Until the reader has gone.
    pub(super) async fn gone(&self) {
        self.tx.closed().await;
    }

    async fn put(&mut self, text: String) -> Result<(), Gone> {
        self.last = Instant::now();
        self.tx.send(text.into()).await.map_err(|_| Gone)
    }
}

/// Tells what changes.
pub(super) async fn watch(call: Call) -> Answer {
    let topics: Vec<&'static str> = match call.given.text("topics") {
        Some(text) => {
            TOPICS.iter().copied().filter(|topic| text.split(',').any(|word| word == *topic)).collect()
        }
        None => TOPICS.to_vec(),
    };
    let (feed, response) = Feed::open(&call)?;
    tokio::spawn(tell(feed, topics));
    Ok(response)
}

async fn tell(mut feed: Feed, topics: Vec<&'static str>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: Vec<Option<Value>> = vec![None; topics.len()];
    let mut turn = 0u32;
    // What happened before is asked for elsewhere.
    let latest = feed.desk.admin.events_since(0.0, 1);
    let mut heard = latest.first().map_or(0.0, |event| event.at);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = feed.gone() => return,
        }
        for (topic, told) in topics.iter().zip(&mut told) {
            if *topic == "events" && turn.is_multiple_of(SELDOM) {
                let mut fresh = feed.desk.admin.events_since(heard, MOST_EVENTS);
                fresh.reverse();
                for event in fresh {
                    heard = heard.max(event.at);
                    if feed.send(topic, &event).await.is_err() {
                        return;
                    }
                }
                continue;
            }
            if !turn.is_multiple_of(SELDOM) && ["health", "signals"].contains(topic) {
                continue;
            }
            let Some((key, value)) = state_of(&feed.desk, topic) else { continue };
            if told.as_ref() != Some(&key) {
                if feed.send(topic, &value).await.is_err() {
                    return;
                }
                *told = Some(key);
            }
        }
        if feed.rest().await.is_err() {
            return;
        }
        turn = turn.wrapping_add(1);
    }
}

/// What is told of a topic, and what has to change so that it is told again.
fn state_of(desk: &Desk, topic: &str) -> Option<(Value, Value)> {
    let admin = &desk.admin;
    let both = |value: Value| (value.clone(), value);
    match topic {
        "process" => {
            let process = admin.process();
            let key =
                json!([process.state, process.revision, process.last_attempt, process.overload["state"]]);
            Some((key, json!(process)))
        }
        "health" => {
            let health = admin.checks();
            // Numbers in details move all the time.
            let found = health.checks.iter().map(|finding| json!([finding.code, finding.about]));
            Some((found.collect(), json!(health)))
        }
        "signals" => Some(both(json!(admin.shown_history()?.now(state::LATELY)))),
        "documents" => Some(both(json!({ "revision": admin.process_revision() }))),
        "proxies" => {
            let proxies = json!(documents::proxies_of(admin, admin.control.as_ref()?));
            let mut key = proxies.clone();
            for proxy in key["proxies"].as_array_mut().into_iter().flatten() {
                proxy["forSeconds"] = Value::Null;
            }
            Some((key, proxies))
        }
        _ => None,
    }
}
