//! Control planes that share a store, as one of them sees the others.
//!
//! Each writes down which workloads are connected to it, and reads what the others have written. What only they know, such
//! as which of their proxies use a change, they are asked. Everything goes through the store, in one turn that is made when
//! something was announced and once a second anyhow, so that a message that was lost costs a second at most. While the store
//! is away everybody goes on with what is known.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prost::Message;
use rhumb_ads::registry::Registration;
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore, watch};

use crate::audience::{Audience, Standing, Waiting, Why};
use crate::control::{Control, proxy_json};
use crate::core::{MAX_TOLD, Touched};
use crate::hub::now;
use crate::store::{Move, Postgres, Question, Turn, Turned, Written};

/// How often a turn is made when nothing is announced.
const TURN: Duration = Duration::from_secs(1);

/// How far apart turns are at least: what comes meanwhile goes into one.
const SPACING: Duration = Duration::from_millis(5);

/// After so long without a turn the others may have given our workloads up: all are written again.
const ALL_AGAIN: Duration = Duration::from_secs(3);

/// How much longer than they may take answers are waited for: the way there and back.
const JOURNEY: Duration = Duration::from_millis(1_500);

/// How often it is looked for answers, and for what a question is about, when nothing is announced.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Questions that are answered at the same time.
const MAX_ANSWERING: usize = 64;

/// The other control planes on a store.
#[derive(Debug)]
pub struct Others {
    store: Arc<Postgres>,
    plane: String,
    mine: Mutex<Mine>,
    /// Something is to be told.
    wake: Notify,
    /// Counts turns.
    turned: watch::Sender<u64>,
    answering: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Mine {
    /// What has happened to workloads and is not written yet.
    moves: BTreeMap<Arc<str>, Move>,
    /// The last moves that were written, with their numbers.
    told: VecDeque<(Arc<str>, u64)>,
    /// What moves of others touched here.
    touched: BTreeMap<u64, Touched>,
    seen: u64,
    asked: i64,
    /// When the last turn was made.
    last: Option<Instant>,
}

/// What is asked.
enum About {
    Audience { revision: u64, patience: Duration },
    Move { number: u64, patience: Duration },
    Proxies,
}

impl About {
    fn to_json(&self) -> Value {
        let ms = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::Audience { revision, patience } => json!({ "revision": revision, "waitMs": ms(patience) }),
            Self::Move { number, patience } => json!({ "move": number, "waitMs": ms(patience) }),
            Self::Proxies => json!({ "proxies": true }),
        }
    }

    fn from_json(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let patience = Duration::from_millis(value["waitMs"].as_u64().unwrap_or(0)).min(MAX_PATIENCE);
        if let Some(revision) = value["revision"].as_u64() {
            return Some(Self::Audience { revision, patience });
        }
        match value["move"].as_u64() {
            Some(number) => Some(Self::Move { number, patience }),
            None => value["proxies"].as_bool().filter(|is| *is).map(|_| Self::Proxies),
        }
    }

    fn patience(&self) -> Duration {
        match self {
            Self::Audience { patience, .. } | Self::Move { patience, .. } => *patience,
            Self::Proxies => Duration::ZERO,
        }
    }
}

/// The longest that an answer is worked on.
const MAX_PATIENCE: Duration = Duration::from_secs(300);

impl Others {
    /// Those on a store, as the control plane of a name sees them.
    pub fn new(store: Arc<Postgres>, plane: String) -> Self {
        Self {
            store,
            plane,
            mine: Mutex::default(),
            wake: Notify::new(),
            turned: watch::Sender::new(0),
            answering: Arc::new(Semaphore::new(MAX_ANSWERING)),
        }
    }

    /// What this control plane is called.
    pub fn plane(&self) -> &str {
        &self.plane
    }

    /// Something has happened to a workload here.
    pub(crate) fn moved(&self, workload: &str, what: Move) {
        let mut mine = self.mine();
        // Who has withdrawn is not lost when its stream ends.
        let is_over = matches!((mine.moves.get(workload), &what), (Some(Move::Gone { instance: gone }), Move::Lost { instance }) if gone == instance);
        if !is_over {
            mine.moves.insert(workload.into(), what);
        }
        drop(mine);
        self.wake.notify_one();
    }

    /// How the proxies of the others stand to a workload's withdrawal here.
    pub(crate) async fn withdrawn(&self, workload: &str, deadline: Instant) -> (Standing, Vec<Waiting>) {
        let mut turns = self.turned.subscribe();
        let number = loop {
            let found = {
                let mine = self.mine();
                let is_written = !mine.moves.contains_key(workload);
                let told = mine.told.iter().rev().find(|(told, _)| **told == *workload);
                told.filter(|_| is_written).map(|(_, number)| *number)
            };
            if let Some(number) = found {
                break number;
            }
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() || tokio::time::timeout(left, turns.changed()).await.is_err() {
                let why = Waiting { proxy: "proxies of other control planes".to_owned(), why: Why::Pending };
                return (Standing::default(), vec![why]);
            }
        };
        self.standing(About::Move { number, patience: deadline.saturating_duration_since(now()) }).await
    }

    /// How the proxies of the others stand to a revision.
    pub(crate) async fn audience(&self, revision: u64, patience: Duration) -> (Standing, Vec<Waiting>) {
        self.standing(About::Audience { revision, patience }).await
    }

    /// The proxies of the others, as they are shown.
    pub(crate) async fn proxies(&self) -> Vec<Value> {
        let (answers, missing) = self.ask(About::Proxies).await;
        if !missing.is_empty() {
            tracing::warn!(?missing, "control planes do not say which proxies they have");
        }
        answers.into_values().flat_map(|answer| answer.as_array().cloned().unwrap_or_default()).collect()
    }

    async fn standing(&self, about: About) -> (Standing, Vec<Waiting>) {
        let (answers, missing) = self.ask(about).await;
        let mut standing = Standing::default();
        for answer in answers.values() {
            standing.add(Standing::from_json(answer));
        }
        let nameless =
            |plane| Waiting { proxy: format!("proxies of control plane {plane}"), why: Why::Pending };
        (standing, missing.into_iter().map(nameless).collect())
    }

    /// Asks all that are there, and says who has not answered though it is still there.
    async fn ask(&self, about: About) -> (BTreeMap<String, Value>, BTreeSet<String>) {
        let deadline = now() + about.patience() + JOURNEY;
        let mut changes = self.store.database().changes();
        let mut answers = BTreeMap::new();
        let (store, plane, text) = (Arc::clone(&self.store), self.plane.clone(), about.to_json().to_string());
        let asked = tokio::task::spawn_blocking(move || store.ask(plane, text)).await;
        let (question, mut there) = match asked {
            Ok(Ok(asked)) => asked,
            Ok(Err(error)) => {
                tracing::warn!(%error, "other control planes cannot be asked");
                return (answers, BTreeSet::from(["that cannot be asked".to_owned()]));
            }
            Err(_) => return (answers, BTreeSet::new()),
        };
        loop {
            there.retain(|plane| !answers.contains_key(plane));
            if there.is_empty() || now() >= deadline {
                return (answers, there);
            }
            let left = deadline.saturating_duration_since(now()).min(LOOK_AGAIN);
            let _ = tokio::time::timeout(left, changes.changed()).await;
            let (store, plane) = (Arc::clone(&self.store), self.plane.clone());
            let found = tokio::task::spawn_blocking(move || store.answers(question, plane)).await;
            if let Ok(Ok((found, living))) = found {
                // Who has gone meanwhile does not answer any more.
                there = living.intersection(&there).cloned().collect();
                for (plane, text) in found {
                    answers.insert(plane, serde_json::from_str(&text).unwrap_or_default());
                }
            } else {
                tokio::time::sleep(left).await;
            }
        }
    }

    /// Tells and hears, until the process ends.
    pub(crate) async fn follow(self: &Arc<Self>, control: &Arc<Control>) {
        let mut changes = self.store.database().changes();
        let mut was_well = true;
        loop {
            changes.mark_unchanged();
            let turned = self.turn(control).await;
            if was_well != turned {
                match turned {
                    true => tracing::info!(store = self.store.database().shown(), "the store is there again"),
                    false => tracing::warn!(
                        store = self.store.database().shown(),
                        "the store is away: going on with what is known, changes are refused"
                    ),
                }
                was_well = turned;
            }
            self.turned.send_modify(|turns| *turns += 1);
            tokio::time::sleep(SPACING).await;
            let announced = async {
                // The sender is the database's thread, which lives as long as the store.
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = announced => {}
                // What is not written is tried again with the next turn.
                () = self.wake.notified(), if turned => {}
                () = tokio::time::sleep(TURN) => {}
            }
        }
    }

    /// The first turn.
    pub(crate) async fn meet(self: &Arc<Self>, control: &Arc<Control>) {
        self.turn(control).await;
    }

    /// This control plane ends: the others need not wait for it.
    pub fn leave(&self) {
        if let Err(error) = self.store.leave(self.plane.clone()) {
            tracing::debug!(%error, "the other control planes were not told of the end");
        }
    }

    /// One turn. False when the store is away.
    async fn turn(self: &Arc<Self>, control: &Arc<Control>) -> bool {
        let begun = now();
        let turn = self.to_tell(control, begun);
        let (store, asked) = (Arc::clone(&self.store), turn.clone());
        match tokio::task::spawn_blocking(move || store.turn(asked)).await {
            Ok(Ok(turned)) => {
                self.mine().last = Some(begun);
                let revision = turned.revision;
                self.take(control, turned).await;
                if control.revision() >= revision {
                    control.hub().with(|core| core.confirm(begun));
                }
                true
            }
            failed => {
                if let Ok(Err(error)) = failed {
                    tracing::debug!(%error, "no turn with the other control planes");
                }
                let mut mine = self.mine();
                for (workload, what) in turn.moves {
                    mine.moves.entry(workload).or_insert(what);
                }
                false
            }
        }
    }

    fn to_tell(&self, control: &Arc<Control>, begun: Instant) -> Turn {
        let is_late = self.mine().last.is_none_or(|last| begun.saturating_duration_since(last) > ALL_AGAIN);
        let mut moves = if is_late { here(control) } else { BTreeMap::new() };
        let mut mine = self.mine();
        moves.append(&mut mine.moves);
        Turn {
            plane: self.plane.clone(),
            moves: moves.into_iter().collect(),
            seen: mine.seen,
            asked: mine.asked,
        }
    }

    async fn take(self: &Arc<Self>, control: &Arc<Control>, turned: Turned) {
        {
            let mut mine = self.mine();
            mine.told.extend(turned.told);
            let surplus = mine.told.len().saturating_sub(MAX_TOLD);
            mine.told.drain(..surplus);
        }
        // Services first: what registers for them is known by their names.
        if turned.revision != control.revision()
            && let Err(error) = control.catch_up().await
        {
            tracing::warn!(%error, "revisions of other control planes are not known yet");
        }
        for written in turned.moves {
            let number = written.number;
            let touched = self.moved_elsewhere(control, written);
            let mut mine = self.mine();
            mine.seen = mine.seen.max(number);
            mine.touched.insert(number, touched);
            while mine.touched.len() > MAX_TOLD {
                mine.touched.pop_first();
            }
        }
        for question in turned.questions {
            let mut mine = self.mine();
            mine.asked = mine.asked.max(question.id);
            drop(mine);
            tokio::spawn(Arc::clone(self).answer(Arc::clone(control), question));
        }
    }

    /// Takes over what has happened to a workload.
    fn moved_elsewhere(&self, control: &Arc<Control>, written: Written) -> Touched {
        let id: &str = &written.workload;
        if self.mine().moves.contains_key(id) {
            // What happens here is later.
            return Touched::new();
        }
        let hub = control.hub();
        if written.plane == self.plane {
            // Others have given it up, or it withdrew there.
            let is_here = hub.with(|core| core.members().is_here(id));
            return match written.content {
                None if is_here => {
                    self.mine().moves.extend(here(control).remove_entry(id));
                    self.wake.notify_one();
                    Touched::new()
                }
                None => hub.with(|core| core.displace(id)),
                Some(_) => Touched::new(),
            };
        }
        match written.content.as_deref().map(Registration::decode) {
            Some(Ok(registration)) => hub.with(|core| core.place(registration)),
            Some(Err(_)) => Touched::new(),
            None => hub.with(|core| core.displace(id)),
        }
    }

    async fn answer(self: Arc<Self>, control: Arc<Control>, question: Question) {
        let Some(about) = About::from_json(&question.about) else { return };
        let Ok(_turn) = self.answering.acquire().await else { return };
        let deadline = now() + about.patience();
        let hub = control.hub();
        let answer = match about {
            About::Proxies => {
                let proxies = control.proxies();
                let at = now();
                Value::Array(proxies.iter().map(|proxy| proxy_json(proxy, at)).collect())
            }
            About::Audience { revision, .. } => {
                self.until(deadline, || control.revision() >= revision).await;
                let touched = hub.with(|core| core.told(revision).cloned()).unwrap_or_default();
                hub.standing(&touched, deadline).await.to_json()
            }
            About::Move { number, .. } => {
                self.until(deadline, || self.mine().seen >= number).await;
                let touched = self.mine().touched.get(&number).cloned().unwrap_or_default();
                hub.standing(&touched, deadline).await.to_json()
            }
        };
        let (store, plane) = (Arc::clone(&self.store), self.plane.clone());
        let answered =
            tokio::task::spawn_blocking(move || store.answer(question.id, plane, answer.to_string())).await;
        if let Ok(Err(error)) = answered {
            tracing::warn!(%error, "another control plane is not answered");
        }
    }

    /// Waits until something is so, or until a deadline.
    async fn until(&self, deadline: Instant, is_so: impl Fn() -> bool) {
        let mut turns = self.turned.subscribe();
        while !is_so() {
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                return;
            }
            let _ = tokio::time::timeout(left.min(LOOK_AGAIN), turns.changed()).await;
        }
    }

    fn mine(&self) -> MutexGuard<'_, Mine> {
        self.mine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All workloads that are connected here, to be written.
fn here(control: &Arc<Control>) -> BTreeMap<Arc<str>, Move> {
    control.hub().with(|core| {
        let all = core.members().here();
        all.map(|registration| (Arc::from(&*registration.workload), is_here(registration))).collect()
    })
}

/// What is written of a workload that is connected here.
pub(crate) fn is_here(registration: &Registration) -> Move {
    Move::Here { instance: registration.instance.clone(), content: registration.encode_to_vec() }
}

/// What others see of a change, beside what is seen here.
pub(crate) fn together(own: Standing, (others, missing): (Standing, Vec<Waiting>)) -> Audience {
    let mut all = own;
    all.add(others);
    let mut audience = Audience::from(all);
    audience.waiting.extend(missing);
    audience
}
