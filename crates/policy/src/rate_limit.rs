//! How much may come how fast.
//!
//! Several limits hold at once: a request passes when all of them admit it, and when one refuses, nothing is taken from
//! any. What each key has used is known to all workers and survives reloads. Runs after everything that says who asks.
//!
//! Costs per request and limit: the key's expression, one hash, one shard's lock for the length of a comparison.

mod spec;
mod limit;
pub(crate) mod algorithm;
pub(crate) mod lease;
pub(crate) mod rate;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rhumb_base::failure::Cause;
use rhumb_codec::field::{FieldName, Known};
use rhumb_codec::head::{RequestHead, ResponseHead};

use crate::attributes::Attributes;
use crate::context::Context;
use crate::exchange::{Exchange, Reply};
use crate::keyed::{KEYS_DEFAULT, KEYS_LIMIT, Now, nanos};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Outcome, Verdict};
use algorithm::{Refused, Taken};
use lease::Pending;
pub(crate) use limit::{Cost, field_name, of_response, seconds};
use limit::{Limit, No, Wanted};
pub use rate::RateSpec;
pub use spec::{Algorithm, CostSpec, LimitSpec, Spec};

/// Most limits of one policy.
pub const LIMITS_MAX: usize = 8;

/// Compiled limits.
pub struct RateLimit {
    limits: Arc<Limits>,
    /// `RateLimit-Policy`; nothing when clients are told nothing.
    policy_field: Option<Box<[u8]>>,
    names: Names,
}

struct Limits {
    all: Box<[Limit]>,
    /// How long a request waits for a store.
    timeout: Duration,
}

struct Names {
    limit: FieldName,
    policy: FieldName,
}

/// What is known of a request's limits when its response is written.
#[derive(Default)]
pub struct State {
    told: AllTold,
    /// The same, of a request that waited for a store.
    later: Option<Rc<RefCell<AllTold>>>,
}

#[derive(Default)]
struct AllTold {
    // Most policies have one limit: no allocation for it.
    first: Option<Told>,
    more: Vec<Told>,
}

#[derive(Clone, Copy)]
struct Told {
    at: usize,
    /// Whom the response may be charged to; nobody when the request was refused.
    key: Option<u64>,
    left: u64,
    reset: u64,
}

impl AllTold {
    fn tell(&mut self, told: Told) {
        match self.first {
            None => self.first = Some(told),
            Some(_) => self.more.push(told),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Told> {
        self.first.iter().chain(&self.more)
    }
}

impl HttpPolicy for RateLimit {
    const KIND: &'static str = "rateLimit";
    const HOOKS: Hooks = Hooks::REQUEST.or(Hooks::RESPONSE);
    const ATTACH: Attach = Attach::FRONT.or(Attach::BACKEND).or(Attach::CONSUMER);
    const MERGE: Merge = Merge::Union;
    type Spec = Spec;
    type State = State;

    fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        if spec.limits.is_empty() {
            return Err(Invalid::new("limits", "is empty", "write a limit, or remove the policy"));
        }
        if spec.limits.len() > LIMITS_MAX {
            let fix = "attach another policy to a wider or narrower place";
            return Err(Invalid::new("limits", format!("has more than {LIMITS_MAX} limits"), fix));
        }
        let keys = spec.keys.unwrap_or(KEYS_DEFAULT);
        if !(1..=KEYS_LIMIT).contains(&keys) {
            return Err(Invalid::new(
                "keys",
                format!("is 1 to {KEYS_LIMIT}"),
                "leave it out for the default",
            ));
        }
        let store = spec.store.as_ref().map(|store| store.open("store", cx)).transpose()?;
        let timeout = store.as_ref().map_or(Duration::ZERO, |store| store.timeout);
        let mut limits: Vec<Limit> = Vec::new();
        for (at, limit) in spec.limits.iter().enumerate() {
            let limit = Limit::compile(at, limit, keys, store.as_ref(), spec.when_store_is_away, cx)?;
            if limits.iter().any(|other| other.name == limit.name) {
                let why = format!("`{}` is the name of another limit", limit.name);
                let fix = "clients and logs have to tell them apart";
                return Err(Invalid::new(format!("limits[{at}].name"), why, fix));
            }
            limits.push(limit);
        }
        let policies: Vec<String> = limits.iter().map(Limit::policy).collect();
        Ok(Self {
            policy_field: spec.fields.then(|| policies.join(", ").into_bytes().into()),
            limits: Arc::new(Limits { all: limits.into(), timeout }),
            names: Names { limit: field_name("", "ratelimit")?, policy: field_name("", "ratelimit-policy")? },
        })
    }

    fn on_request(&self, req: &mut RequestHead, state: &mut State, cx: &mut Exchange<'_>) -> Verdict {
        // A request that is only thought through uses nothing.
        let Some(now) = Now::of(cx) else { return Verdict::Continue };
        match self.limits.admit(req, &mut state.told, cx, now, false) {
            Ok(delay) => held_back(delay, cx),
            Err(Stop::Refused(reply)) => Verdict::Respond(reply),
            Err(Stop::Pending(wait)) => {
                let later = Rc::clone(state.later.get_or_insert_default());
                self.limits.wait(wait, later, now.steady, cx)
            }
        }
    }

    fn on_response(&self, rsp: &mut ResponseHead, state: &mut State, cx: &mut Exchange<'_>) {
        let later = state.later.as_ref().map(|later| later.borrow());
        let told = || state.told.all().chain(later.iter().flat_map(|later| later.all()));
        if let Some(now) = Now::of(cx) {
            for told in told() {
                let Some(limit) = self.limits.all.get(told.at) else { continue };
                if let (Cost::Response(field), Some(key)) = (&limit.cost, told.key) {
                    limit.charge(key, now, of_response(rsp, field));
                }
            }
        }
        let Some(policy) = &self.policy_field else { return };
        let mut line = Vec::with_capacity(64);
        for told in told() {
            let Some(limit) = self.limits.all.get(told.at) else { continue };
            if !line.is_empty() {
                line.extend_from_slice(b", ");
            }
            line.extend_from_slice(&limit.told);
            line.extend_from_slice(itoa::Buffer::new().format(told.left).as_bytes());
            line.extend_from_slice(b";t=");
            line.extend_from_slice(itoa::Buffer::new().format(seconds(told.reset)).as_bytes());
        }
        if !line.is_empty() {
            // Both are made of names that were checked, digits and punctuation.
            let Names { limit, policy: name } = &self.names;
            rsp.fields.append_raw(name.known(), name.as_bytes(), policy);
            rsp.fields.append_raw(limit.known(), limit.as_bytes(), &line);
        }
    }
}

/// Goes on, after a while if need be.
fn held_back(delay: u64, cx: &mut Exchange<'_>) -> Verdict {
    if delay == 0 {
        return Verdict::Continue;
    }
    cx.effects.delayed = true;
    Verdict::Delay(Duration::from_nanos(delay), Outcome::Continue(Vec::new()))
}

/// Why a request does not go on.
enum Stop {
    Refused(Box<Reply>),
    Pending(Pending),
}

impl Limits {
    /// Takes from all limits that apply, or from none. How long to wait before going on.
    fn admit(
        &self,
        req: &RequestHead,
        told: &mut AllTold,
        cx: &mut Exchange<'_>,
        now: Now,
        has_waited: bool,
    ) -> Result<u64, Stop> {
        let mut wanted = [Wanted::default(); LIMITS_MAX];
        let mut count = 0;
        let attributes = Attributes::new(req, cx);
        for (at, limit) in self.all.iter().enumerate() {
            // A condition without a value counts: nobody gets past a limit by making it fail.
            if limit.when.as_ref().is_some_and(|when| !when.holds(&attributes).unwrap_or(true)) {
                continue;
            }
            let key = limit.book.key(&limit.per, &attributes, cx);
            let cost = limit.cost.of_request(&attributes);
            if let Some(slot) = wanted.get_mut(count) {
                *slot = Wanted { at, key, cost };
                count += 1;
            }
        }
        let wanted = wanted.get(..count).unwrap_or_default();
        let name = |limit: &Limit| limit.per.name(&attributes, cx);
        let mut is_full = false;
        let taken = self.take(wanted, now, told, has_waited, &name, &mut is_full);
        cx.found.keys_full |= is_full;
        taken.map_err(|(wanted, no)| match no {
            No::Pending(wait) => Stop::Pending(wait),
            No::Refused(refused) => {
                let Refused { left, reset, .. } = refused;
                told.tell(Told { at: wanted.at, key: None, left, reset });
                Stop::Refused(self.refuse(wanted.at, refused, cx))
            }
            No::Away => {
                cx.decision = self.all.get(wanted.at).map(|limit| Arc::clone(&limit.name));
                Stop::Refused(lease::away())
            }
        })
    }

    fn take(
        &self,
        wanted: &[Wanted],
        now: Now,
        told: &mut AllTold,
        has_waited: bool,
        name: &dyn Fn(&Limit) -> String,
        is_full: &mut bool,
    ) -> Result<u64, (Wanted, No)> {
        // Most of what will be refused is seen here, before anything is taken.
        if wanted.len() > 1 {
            for wanted in wanted {
                if let Some(limit) = self.all.get(wanted.at) {
                    limit.peek(wanted, now).map_err(|refused| (*wanted, No::Refused(refused)))?;
                }
            }
        }
        let mut delay = 0;
        for (at, want) in wanted.iter().enumerate() {
            let Some(limit) = self.all.get(want.at) else { continue };
            match limit.take(want, now, has_waited, name, is_full) {
                Ok(taken) => {
                    delay = delay.max(taken.delay);
                    let Taken { left, reset, .. } = taken;
                    told.tell(Told { at: want.at, key: Some(want.key), left, reset });
                }
                Err(no) => {
                    for before in wanted.get(..at).unwrap_or_default() {
                        if let Some(limit) = self.all.get(before.at) {
                            limit.give_back(before, now);
                        }
                    }
                    *told = AllTold::default();
                    return Err((*want, no));
                }
            }
        }
        Ok(delay)
    }

    /// Waits for the store, then tries again, until `timeout` has passed since `begun`.
    fn wait(
        self: &Arc<Self>,
        pending: Pending,
        told: Rc<RefCell<AllTold>>,
        begun: u64,
        cx: &Exchange<'_>,
    ) -> Verdict {
        let (this, end) = (Arc::clone(self), begun.saturating_add(nanos(self.timeout)));
        let again = move |req: &mut RequestHead, cx: &mut Exchange<'_>, now, is_late| {
            let admitted = this.admit(req, &mut told.borrow_mut(), cx, now, is_late);
            match admitted {
                Ok(delay) => held_back(delay, cx),
                Err(Stop::Refused(reply)) => Verdict::Respond(reply),
                Err(Stop::Pending(pending)) => this.wait(pending, told, begun, cx),
            }
        };
        lease::wait(pending, end, cx, Box::new(again))
    }

    fn refuse(&self, at: usize, refused: Refused, cx: &mut Exchange<'_>) -> Box<Reply> {
        let mut reply = Reply::refuse(Cause::RateLimited);
        let wait = seconds(refused.wait).max(1);
        reply.fields().set(Known::RetryAfter, itoa::Buffer::new().format(wait).as_bytes());
        if let Some(limit) = self.all.get(at) {
            reply.detail = Some(limit.detail().into());
            cx.decision = Some(Arc::clone(&limit.name));
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Chain, ChainState, Item, Step};
    use crate::context::{Keeper, NoDocuments};
    use rhumb_codec::head::Scheme;
    use serde_json::{Value as Json, json};
    use std::time::{Duration, Instant};

    struct Stage {
        keeper: Keeper,
        chain: Chain,
        begin: Instant,
    }

    fn compile(keeper: &Keeper, body: &Json) -> Result<crate::Parsed, Invalid> {
        let mut documents = NoDocuments;
        let mut cx = Context::new("default", "test", &mut documents, keeper);
        crate::parse("rateLimit", body, &mut cx).unwrap()
    }

    impl Stage {
        fn new(body: &Json) -> Self {
            let keeper = Keeper::default();
            let chain = Self::chain(&keeper, body);
            Self { keeper, chain, begin: Instant::now() }
        }

        fn chain(keeper: &Keeper, body: &Json) -> Chain {
            let parsed = compile(keeper, body).unwrap();
            Chain::new(vec![Item {
                policy: Arc::new(parsed.policy),
                origin: "test".into(),
                is_shadow: false,
            }])
        }

        /// Status, what is told, and how long the request waits.
        fn ask(&self, millis: u64, target: &str, cost: Option<&str>) -> (u16, String, u128) {
            let mut req = RequestHead::new();
            req.set_target(target.as_bytes());
            let mut state = ChainState::default();
            let time = Duration::from_millis(millis);
            let mut cx = Exchange {
                began: Some(self.begin + time),
                unix_nanos: 1_700_000_000_000_000_000 + u64::try_from(time.as_nanos()).unwrap(),
                ..Exchange::new([192, 0, 2, 1].into(), Scheme::Http, 80)
            };
            let mut waits = 0;
            let mut rsp = match self.chain.on_request(&mut req, &mut state, &mut cx) {
                Step::Done => ResponseHead::with_status(200),
                Step::Respond(reply) => reply.head,
                Step::Delay(time, outcome) => {
                    waits = time.as_millis();
                    assert!(matches!(self.chain.resume(outcome, &mut req, &mut state, &mut cx), Step::Done));
                    ResponseHead::with_status(200)
                }
                _ => panic!("neither passes nor is answered"),
            };
            if let Some(cost) = cost {
                rsp.fields.append_checked(&FieldName::parse(b"x-cost").unwrap(), cost.as_bytes()).unwrap();
            }
            self.chain.on_response(&mut rsp, &mut state, &mut cx);
            let field = |name: &str| {
                let value = rsp.fields.find(&FieldName::parse(name.as_bytes()).unwrap());
                value.map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
            };
            let told = [field("ratelimit"), field("ratelimit-policy"), field("retry-after")];
            (rsp.status, told.join(" | "), waits)
        }

        fn status(&self, millis: u64, target: &str) -> u16 {
            self.ask(millis, target, None).0
        }
    }

    #[test]
    fn clients_are_told_what_is_left_and_when_to_come_again() {
        let stage = Stage::new(&json!({ "limits": [{ "name": "few", "limit": "2/m" }] }));
        assert_eq!(stage.ask(0, "/", None).1, "\"few\";r=1;t=30 | \"few\";q=2;w=60 | ");
        assert_eq!(stage.ask(0, "/", None).1, "\"few\";r=0;t=60 | \"few\";q=2;w=60 | ");
        let refused = stage.ask(10_000, "/", None);
        assert_eq!((refused.0, refused.1.as_str()), (429, "\"few\";r=0;t=50 | \"few\";q=2;w=60 | 20"));
        assert_eq!(stage.status(30_000, "/"), 200);
        let silent = Stage::new(&json!({ "fields": false, "limits": [{ "limit": "1/m" }] }));
        assert_eq!(silent.ask(0, "/", None).1, " |  | ");
        assert_eq!(silent.ask(0, "/", None).1, " |  | 60");
    }

    #[test]
    fn when_one_limit_refuses_nothing_is_taken_from_the_others() {
        let stage = Stage::new(&json!({ "limits": [
            { "name": "all", "limit": "10/m" },
            { "name": "path", "limit": "1/m", "per": "request.path" },
        ] }));
        assert_eq!(stage.status(0, "/a"), 200);
        for _ in 0..20 {
            let refused = stage.ask(0, "/a", None);
            assert!(refused.1.starts_with("\"path\";r=0;t=60 |"), "{}", refused.1);
        }
        let others: Vec<u16> = (0..10).map(|n| stage.status(0, &format!("/{n}"))).collect();
        assert_eq!(others.iter().filter(|status| **status == 200).count(), 9);
    }

    #[test]
    fn limits_hold_for_the_requests_and_costs_that_are_written() {
        let stage = Stage::new(&json!({ "limits": [
            { "limit": "10/m", "when": "request.path != '/free'", "cost": "int(request.query['n'])" },
        ] }));
        for _ in 0..30 {
            assert_eq!(stage.status(0, "/free"), 200);
        }
        assert_eq!(stage.status(0, "/a?n=9"), 200);
        assert_eq!(stage.status(0, "/a?n=2"), 429);
        assert_eq!(stage.status(0, "/a"), 200, "what has no cost costs 1");
        assert_eq!(stage.status(0, "/a"), 429);
        // More than may ever come at once never passes.
        assert_eq!(stage.status(600_000, "/a?n=11"), 429);
    }

    #[test]
    fn what_the_backend_says_is_charged_afterwards() {
        let stage = Stage::new(&json!({ "limits": [
            { "limit": "10/m", "cost": { "responseField": "X-Cost" } },
        ] }));
        assert_eq!(stage.ask(0, "/", Some("25")).0, 200);
        assert_eq!(stage.ask(0, "/", Some("1")).0, 429);
        // 15 too many are paid for after 90 seconds, and one more is there after 96.
        assert_eq!(stage.ask(95_000, "/", Some("1")).0, 429);
        assert_eq!(stage.ask(96_000, "/", Some("nonsense")).0, 200);
        assert_eq!(stage.ask(96_000, "/", None).0, 429);
    }

    #[test]
    fn who_may_wait_is_held_back() {
        let stage = Stage::new(&json!({ "limits": [
            { "limit": "10/s", "burst": 1, "delay": "200ms" },
        ] }));
        let waits: Vec<_> =
            (0..4).map(|_| stage.ask(0, "/", None)).map(|(status, _, waits)| (status, waits)).collect();
        assert_eq!(waits, [(200, 0), (200, 100), (200, 200), (429, 0)]);
    }

    #[test]
    fn what_was_used_survives_a_reload() {
        for algorithm in ["gcra", "slidingWindow", "fixedWindow"] {
            let body = json!({ "limits": [{ "limit": "2/m", "algorithm": algorithm }] });
            let mut stage = Stage::new(&body);
            assert_eq!((stage.status(0, "/"), stage.status(0, "/"), stage.status(0, "/")), (200, 200, 429));
            let more = json!({ "fields": false, "limits": [{ "limit": "3/m", "algorithm": algorithm }] });
            stage.chain = Stage::chain(&stage.keeper, &more);
            // Windows remember how many came, GCRA how long they are paid for.
            let expected = if algorithm == "gcra" { (429, 429) } else { (200, 429) };
            assert_eq!((stage.status(0, "/"), stage.status(0, "/")), expected, "{algorithm}");
        }
    }

    #[test]
    fn a_request_that_is_only_thought_through_uses_nothing() {
        let stage = Stage::new(&json!({ "limits": [{ "limit": "1/m" }] }));
        let mut cx = Exchange::new([192, 0, 2, 1].into(), Scheme::Http, 80);
        for _ in 0..3 {
            let step = stage.chain.on_request(&mut RequestHead::new(), &mut ChainState::default(), &mut cx);
            assert!(matches!(step, Step::Done));
        }
        assert_eq!(stage.status(0, "/"), 200);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (body, field) in [
            (json!({ "limits": [] }), "limits"),
            (json!({ "limits": [{ "limit": "ten" }] }), "limits[0].limit"),
            (json!({ "limits": [{ "limit": "1/m", "per": "request.headers" }] }), "limits[0].per"),
            (json!({ "limits": [{ "limit": "1/m", "when": "request.size" }] }), "limits[0].when"),
            (json!({ "limits": [{ "limit": "1/m", "cost": 2 }] }), "limits[0].cost"),
            (json!({ "limits": [{ "limit": "1/m", "cost": "request.path" }] }), "limits[0].cost"),
            (
                json!({ "limits": [{ "limit": "1/m", "burst": 5, "algorithm": "fixedWindow" }] }),
                "limits[0].burst",
            ),
            (json!({ "limits": [{ "limit": "1/m", "delay": "2m" }] }), "limits[0].delay"),
            (json!({ "limits": [{ "limit": "1/m", "name": "a b" }] }), "limits[0].name"),
            (
                json!({ "limits": [{ "limit": "1/m", "name": "a" }, { "limit": "1/m", "name": "a" }] }),
                "limits[1].name",
            ),
            (json!({ "limits": [{ "limit": "1/m" }], "keys": 0 }), "keys"),
        ] {
            let invalid = compile(&Keeper::default(), &body).err().unwrap();
            assert_eq!(invalid.field, field, "{body}: {invalid}");
        }
    }
}
