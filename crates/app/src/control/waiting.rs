//! A control plane whose database is away when it starts: it waits, and says so to whoever asks whether it is ready.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rhumb_database::{Database, Error};

use crate::health::Health;
use crate::run::Door;
use crate::signal::{Signal, Signals};

/// How often the database is asked.
const ASK: Duration = Duration::from_secs(1);

/// How often the log says that it is waited for.
const SAY: Duration = Duration::from_secs(30);

/// Returns when the database is there; false when a signal came first. `door` opens the admin listener, which is closed
/// again: what answers from then on knows the documents.
///
/// # Errors
/// What the database says when it is there and refuses, or when the admin listener cannot be opened.
pub(super) async fn until_there(
    database: &Database,
    health: &Health,
    signals: &mut Signals,
    door: impl FnOnce() -> anyhow::Result<Door>,
) -> anyhow::Result<bool> {
    if is_there(database).await? {
        return Ok(true);
    }
    let store = database.shown().to_owned();
    health.wait_for(vec![format!("the database {store} is away")]);
    let mut door = door()?;
    door.serve()?;
    let mut said: Option<Instant> = None;
    let is_there = loop {
        if said.is_none_or(|said| said.elapsed() >= SAY) {
            said = Some(Instant::now());
            tracing::warn!(store, "waiting for the database");
        }
        tokio::select! {
            signal = signals.next() => if signal == Signal::Stop { break false },
            () = tokio::time::sleep(ASK) => if is_there(database).await? { break true },
        }
    };
    door.close().await;
    health.wait_for(Vec::new());
    Ok(is_there)
}

/// Asks, on a thread that may wait.
async fn is_there(database: &Database) -> anyhow::Result<bool> {
    let asked = database.clone();
    match tokio::task::spawn_blocking(move || asked.check()).await.context("the store")? {
        Ok(()) => Ok(true),
        Err(Error::Away | Error::Busy) => Ok(false),
        Err(error) => Err(error).with_context(|| database.shown().to_owned()),
    }
}
