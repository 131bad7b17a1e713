//! How many requests are under way at a time.
//!
//! A request holds its place until its exchange has ended, however it ends. Beyond the limit it is refused, or waits in a
//! bounded queue, first come, first served. All workers count together. Runs behind everything that says who asks.
//!
//! Costs per request two visits of one shard's lock and one allocation, for the place.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use rhumb_base::failure::Cause;
use rhumb_cel::Program;
use rhumb_codec::field::Known;
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::attributes::{Attributes, SCHEMA};
use crate::context::Context;
use crate::exchange::{Exchange, Reply};
use crate::keyed::{Entry, KEYS_DEFAULT, KEYS_LIMIT, Keyed, Now, Table};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Outcome, Verdict};
use crate::quantity;

/// Most requests that can wait for a place of one key.
pub const QUEUE_MAX: u32 = 65_536;

/// The longest time in a queue.
const TIME_MAX: Duration = Duration::from_secs(60);

/// How long a request waits in a queue when nothing is written.
const TIME_DEFAULT: Duration = Duration::from_secs(1);

/// Limits how many requests are under way at a time.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// How many. At least 1.
    pub limit: u32,
    /// For whom it is counted: a CEL expression with one value. Requests without a value share one count. Default: the
    /// client's address, of IPv6 its /64 network.
    #[serde(default)]
    pub per: Option<String>,
    /// Which requests are counted: a CEL condition. One without a value counts. Default: all.
    #[serde(default)]
    pub when: Option<String>,
    /// Let further requests wait for a place. Default: they are refused at once.
    #[serde(default)]
    pub queue: Option<QueueSpec>,
    /// Keys that are known at a time. When all of them have requests, further keys share one count. Default: 65536.
    #[serde(default)]
    pub keys: Option<usize>,
}

/// Where requests wait.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueueSpec {
    /// How many may wait, by key: 1 to 65536.
    pub size: u32,
    /// How long one waits at most: a duration, at most 60s. Default: 1s.
    #[serde(default)]
    pub time: Option<String>,
}

/// A compiled limit.
pub struct Concurrency {
    limit: u32,
    per: Keyed,
    when: Option<Program>,
    queue: u32,
    time: Duration,
    places: Arc<Table<Places>>,
}

/// The places of one key.
#[derive(Default)]
struct Places {
    taken: u32,
    waiting: VecDeque<Arc<Mutex<Turn>>>,
}

impl Entry for Places {
    fn is_over(&self, _: Now) -> bool {
        self.taken == 0 && self.waiting.is_empty()
    }
}

/// One who waits.
#[derive(Default)]
struct Turn {
    has_place: bool,
    is_gone: bool,
    waker: Option<Waker>,
}

fn lock(turn: &Mutex<Turn>) -> std::sync::MutexGuard<'_, Turn> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place that is held. Given to the next in the queue when it is dropped.
struct Place {
    places: Arc<Table<Places>>,
    key: u64,
    /// The key found no room: its place is among those of the others.
    is_other: bool,
    /// False while it is waited for.
    is_held: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        let next = |places: &mut Places| {
            if !self.is_held {
                places.waiting.retain(|turn| !lock(turn).is_gone);
                return None;
            }
            while let Some(turn) = places.waiting.pop_front() {
                let mut turn = lock(&turn);
                if !turn.is_gone {
                    turn.has_place = true;
                    return turn.waker.take();
                }
            }
            places.taken = places.taken.saturating_sub(1);
            None
        };
        let waker = match self.is_other {
            true => self.places.with_others(self.key, next),
            false => self.places.with(self.key, Now::default(), |places, _| next(places)),
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A place in the queue.
struct Waiting {
    turn: Arc<Mutex<Turn>>,
    place: Option<Place>,
}

impl Waiting {
    fn poll(&mut self, waker: &Waker) -> Poll<Option<Place>> {
        let mut turn = lock(&self.turn);
        if turn.has_place {
            return Poll::Ready(self.place.take().map(|mut place| {
                place.is_held = true;
                place
            }));
        }
        turn.waker = Some(waker.clone());
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut turn = lock(&self.turn);
        turn.is_gone = true;
        if let Some(place) = &mut self.place {
            place.is_held = turn.has_place;
        }
        // Unlocked before the place is given on: who gives one holds the shard first.
        drop(turn);
        self.place = None;
    }
}

enum Got {
    Place(Place),
    Queued(Waiting),
    Nothing,
}

impl HttpPolicy for Concurrency {
    const KIND: &'static str = "concurrency";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT.or(Attach::BACKEND).or(Attach::CONSUMER);
    const MERGE: Merge = Merge::Union;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        if spec.limit == 0 {
            return Err(Invalid::new("limit", "is at least 1", "to refuse everything use `authorization`"));
        }
        let when = spec.when.as_ref().map(|text| {
            Program::condition(text, &SCHEMA)
                .map_err(|error| Invalid::new("when", error.tell(text), error.fix))
        });
        let keys = spec.keys.unwrap_or(KEYS_DEFAULT);
        if !(1..=KEYS_LIMIT).contains(&keys) {
            return Err(Invalid::new(
                "keys",
                format!("is 1 to {KEYS_LIMIT}"),
                "leave it out for the default",
            ));
        }
        let (mut queue, mut time) = (0, Duration::ZERO);
        if let Some(spec) = &spec.queue {
            if !(1..=QUEUE_MAX).contains(&spec.size) {
                let why = format!("is 1 to {QUEUE_MAX}");
                return Err(Invalid::new("queue.size", why, "without `queue` nobody waits"));
            }
            queue = spec.size;
            time = quantity::positive("queue.time", spec.time.as_deref())?.unwrap_or(TIME_DEFAULT);
            if time > TIME_MAX {
                return Err(Invalid::new("queue.time", format!("is longer than {TIME_MAX:?}"), ""));
            }
        }
        let places = cx.keep("places", Table::new);
        places.set_most(keys);
        let per = Keyed::read("per", spec.per.as_deref(), Keyed::Address)?;
        Ok(Self { limit: spec.limit, per, when: when.transpose()?, queue, time, places })
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        // A request that is only thought through holds nothing.
        let Some(now) = Now::of(cx) else { return Verdict::Continue };
        let attributes = Attributes::new(req, cx);
        // A condition without a value counts: nobody gets past a limit by making it fail.
        if self.when.as_ref().is_some_and(|when| !when.holds(&attributes).unwrap_or(true)) {
            return Verdict::Continue;
        }
        let key = self.per.hash(&attributes, cx, self.places.seed());
        // Nobody waits for a copy of a request.
        let queue = if cx.out.is_some() { self.queue } else { 0 };
        let (got, is_full) = self.enter(key, now, queue);
        cx.found.keys_full |= is_full;
        match (got, cx.out) {
            (Got::Place(place), _) => {
                cx.found.guards.push(Box::new(place));
                Verdict::Continue
            }
            (Got::Queued(mut waiting), Some(out)) => {
                let (out, time) = (Rc::clone(out), self.time);
                Verdict::Wait(Box::pin(async move {
                    let mut late = pin!(out.pause(time));
                    let place = poll_fn(|task| {
                        if let Poll::Ready(place) = waiting.poll(task.waker()) {
                            return Poll::Ready(place);
                        }
                        late.as_mut().poll(task).map(|()| None)
                    })
                    .await;
                    match place {
                        Some(place) => Outcome::Apply(Box::new(|_, cx| {
                            cx.found.guards.push(Box::new(place));
                            Verdict::Continue
                        })),
                        None => Outcome::Apply(Box::new(|_, _| Verdict::Respond(refusal()))),
                    }
                }))
            }
            _ => Verdict::Respond(refusal()),
        }
    }
}

fn refusal() -> Box<Reply> {
    let mut reply = Reply::refuse(Cause::ConcurrencyLimited);
    reply.fields().set(Known::RetryAfter, b"1");
    reply
}

impl Concurrency {
    fn enter(&self, key: u64, now: Now, queue: u32) -> (Got, bool) {
        self.places.with(key, now, |places, is_other| {
            let place = |is_held| Place { places: Arc::clone(&self.places), key, is_other, is_held };
            let got = if places.taken < self.limit {
                places.taken += 1;
                Got::Place(place(true))
            } else if places.waiting.len() < usize::try_from(queue).unwrap_or(usize::MAX) {
                let turn = Arc::<Mutex<Turn>>::default();
                places.waiting.push_back(Arc::clone(&turn));
                Got::Queued(Waiting { turn, place: Some(place(false)) })
            } else {
                Got::Nothing
            };
            (got, is_other)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use serde_json::json;

    fn policy(body: serde_json::Value) -> Result<Concurrency, Invalid> {
        compile_alone(serde_json::from_value(body).unwrap())
    }

    fn has_place(got: &Got) -> bool {
        matches!(got, Got::Place(_))
    }

    #[test]
    fn a_place_is_free_again_when_its_exchange_has_ended() {
        let policy = policy(json!({ "limit": 2 })).unwrap();
        let enter = |key| policy.enter(key, Now::default(), 0).0;
        let (first, second) = (enter(1), enter(1));
        assert!(has_place(&first) && has_place(&second) && !has_place(&enter(1)));
        assert!(has_place(&enter(2)), "another key");
        drop(first);
        let third = enter(1);
        assert!(has_place(&third) && !has_place(&enter(1)));
    }

    #[test]
    fn who_waits_is_served_in_order_and_who_leaves_holds_nobody_up() {
        let policy = policy(json!({ "limit": 1, "queue": { "size": 3 } })).unwrap();
        let enter = || policy.enter(1, Now::default(), policy.queue).0;
        let first = enter();
        let queued = || match enter() {
            Got::Queued(waiting) => waiting,
            _ => panic!("is not queued"),
        };
        let (mut a, b, mut c) = (queued(), queued(), queued());
        assert!(matches!(enter(), Got::Nothing));
        drop(b);
        let d = queued();
        let poll = |waiting: &mut Waiting| match waiting.poll(Waker::noop()) {
            Poll::Ready(place) => place,
            Poll::Pending => None,
        };
        assert!(poll(&mut a).is_none() && poll(&mut c).is_none());
        drop(first);
        let place = poll(&mut a);
        assert!(place.is_some() && poll(&mut c).is_none());
        drop(place);
        drop(a);
        // c has its place now, but leaves without having seen it: it is d's.
        drop(c);
        let mut d = d;
        let place = poll(&mut d);
        assert!(place.is_some());
        drop((place, d));
        assert!(has_place(&enter()));
        assert!(has_place(&enter()), "nothing is held any more");
    }

    #[test]
    fn keys_without_room_share_their_places() {
        let policy = policy(json!({ "limit": 1, "keys": 1 })).unwrap();
        let held: Vec<_> = (0..1000u64).map(|n| policy.enter(n << 32, Now::default(), 0)).collect();
        let places = held.iter().filter(|(got, _)| has_place(got)).count();
        // In each shard one key and the others.
        assert!(places <= 64, "{places}");
        drop(held);
        let again = (0..1000u64).filter(|n| has_place(&policy.enter(n << 32, Now::default(), 0).0)).count();
        assert_eq!(again, 1000);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (body, field) in [
            (json!({ "limit": 0 }), "limit"),
            (json!({ "limit": 1, "queue": { "size": 0 } }), "queue.size"),
            (json!({ "limit": 1, "queue": { "size": 1, "time": "2m" } }), "queue.time"),
            (json!({ "limit": 1, "per": "request" }), "per"),
        ] {
            assert_eq!(policy(body).err().unwrap().field, field);
        }
    }
}
