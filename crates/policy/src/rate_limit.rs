//! How much may come how fast.
//!
//! Several limits hold at once: a request passes when all of them admit it, and when one refuses, nothing is taken from
//! any. What each key has used is known to all workers and survives reloads. Runs after everything that says who asks.
//!
//! Costs per request and limit: the key's expression, one hash, one shard's lock for the length of a comparison.

pub(crate) mod algorithm;
pub(crate) mod lease;
pub(crate) mod rate;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rhumb_base::failure::Cause;
use rhumb_cel::{Kind, Program, Value};
use rhumb_codec::field::{FieldName, Known};
use rhumb_codec::head::{RequestHead, ResponseHead};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::attributes::{Attributes, SCHEMA};
use crate::context::Context;
use crate::exchange::{Exchange, Reply};
use crate::keyed::{Entry, KEYS_DEFAULT, KEYS_LIMIT, Keyed, Now, Table, nanos};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Outcome, Verdict};
use crate::quantity;
use crate::store::{Opened, StoreSpec, WhenStoreIsAway};
use algorithm::{Fixed, Gcra, Meter, Refused, Rule, Sliding, Taken};
use lease::{Alone, Leased, Leases, Pending, Terms};
use rate::Rate;
pub use rate::RateSpec;
use rhumb_store::Rule as StoreRule;

/// Most limits of one policy.
pub const LIMITS_MAX: usize = 8;

/// The longest delay instead of a refusal, in seconds.
const DELAY_MAX: u64 = 60;

/// Longest name of a limit, in bytes.
const NAME_MAX: usize = 64;

/// Shortest time between two that proxies count together. **Unit**: nanoseconds.
const SHARED_INTERVAL_MIN: u64 = 1_000;

/// Limits how fast requests may come.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Limits that hold at once, at most 8. When one refuses, nothing is taken from any.
    pub limits: Vec<LimitSpec>,
    /// Tell clients what is left, in the fields `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    /// `Retry-After` is told in any case. Default: true.
    #[serde(default = "yes")]
    pub fields: bool,
    /// Keys of each limit that are known at a time. When all of them matter, further keys share one state. Default: 65536.
    #[serde(default)]
    pub keys: Option<usize>,
    /// Count together with other proxies. Default: this proxy counts alone.
    #[serde(default)]
    pub store: Option<StoreSpec>,
    /// What to do while the store cannot be reached. Default: `Local`.
    #[serde(default)]
    pub when_store_is_away: WhenStoreIsAway,
}

fn yes() -> bool {
    true
}

/// One limit.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitSpec {
    /// Its name in fields, logs and answers. Default: its place, `limit-0`.
    #[serde(default)]
    pub name: Option<String>,
    /// How many in how long: `100/m`, or `{requests: 100, per: 1m}`.
    pub limit: RateSpec,
    /// How many may come at once (`Gcra`). Default: as many as in the whole period.
    #[serde(default)]
    pub burst: Option<u64>,
    /// For whom it is counted: a CEL expression with one value. Requests without a value share one count. Default: the
    /// client's address, of IPv6 its /64 network.
    #[serde(default)]
    pub per: Option<String>,
    /// Which requests are counted: a CEL condition. One without a value counts. Default: all.
    #[serde(default)]
    pub when: Option<String>,
    /// What a request costs: a number, a CEL expression, or `{responseField: NAME}`, which is charged when the response
    /// comes. Default: 1.
    #[serde(default)]
    pub cost: Option<CostSpec>,
    /// How it is counted. Default: `Gcra`.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How long a request may be held back so that it need not be refused (`Gcra`): a duration, at most 60s. Default: not
    /// at all.
    #[serde(default)]
    pub delay: Option<String>,
}

/// What a request costs.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CostSpec {
    /// Always so much.
    Number(u64),
    /// The value of a CEL expression. Without one: 1. A negative one: 0.
    Expression(String),
    /// What the backend says that it cost. Without a number there: 1.
    #[serde(rename_all = "camelCase")]
    Response {
        /// A field of the response.
        response_field: String,
    },
}

/// How a limit counts.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Algorithm {
    /// A bucket of `burst` that fills evenly.
    #[default]
    Gcra,
    /// In no period of the length, wherever it begins, more than the limit.
    SlidingWindow,
    /// In no period by the clock more than the limit.
    FixedWindow,
}

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

struct Limit {
    name: Arc<str>,
    /// `"name";r=`
    told: Box<[u8]>,
    rule: Rule,
    per: Keyed,
    when: Option<Program>,
    cost: Cost,
    /// **Unit**: nanoseconds.
    patience: u64,
    /// Counted in periods by the clock.
    is_fixed: bool,
    book: Book,
}

pub(crate) enum Cost {
    Number(u64),
    By(Program),
    Response(FieldName),
}

/// Where it is counted.
enum Book {
    Gcra(Arc<Table<Gcra>>),
    Sliding(Arc<Table<Sliding>>),
    Fixed(Arc<Table<Fixed>>),
    /// Together with other proxies.
    Leased(Arc<Leases>, WhenStoreIsAway),
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

/// What a request wants of a limit.
#[derive(Clone, Copy, Default)]
struct Wanted {
    at: usize,
    key: u64,
    cost: u64,
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

/// Why a limit gave nothing.
enum No {
    Refused(Refused),
    Away,
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

/// What a response says that it cost.
pub(crate) fn of_response(rsp: &ResponseHead, field: &FieldName) -> u64 {
    let said = rsp.fields.find(field).and_then(|value| std::str::from_utf8(value).ok());
    said.and_then(|text| text.trim().parse().ok()).unwrap_or(1)
}

/// Whole seconds, rounded up.
pub(crate) fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000)
}

pub(crate) fn field_name(field: &str, text: &str) -> Result<FieldName, Invalid> {
    FieldName::parse(text.as_bytes())
        .map_err(|_| Invalid::new(field, format!("`{text}` is no field name"), "write letters, digits and -"))
}

impl Limit {
    fn compile(
        at: usize,
        spec: &LimitSpec,
        keys: usize,
        store: Option<&Opened>,
        away: WhenStoreIsAway,
        cx: &mut Context<'_>,
    ) -> Result<Self, Invalid> {
        let field = |name: &str| format!("limits[{at}].{name}");
        let name = spec.name.clone().unwrap_or_else(|| format!("limit-{at}"));
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(is_plain) {
            let why = format!("has 1 to {NAME_MAX} letters, digits, `-`, `_` and `.`");
            return Err(Invalid::new(field("name"), why, "clients read it in fields"));
        }
        let rate = Rate::read(&field("limit"), &spec.limit)?;
        let is_gcra = spec.algorithm == Algorithm::Gcra;
        for (is_written, name) in [(spec.burst.is_some(), "burst"), (spec.delay.is_some(), "delay")] {
            if is_written && !is_gcra {
                let why = "a window has none: its whole limit may come at once";
                return Err(Invalid::new(field(name), why, "remove it, or use `algorithm: gcra`"));
            }
        }
        if store.is_some() {
            if spec.algorithm == Algorithm::SlidingWindow {
                let fix = "use `gcra` or `fixedWindow`, or remove `store`";
                return Err(Invalid::new(field("algorithm"), "a store does not count sliding windows", fix));
            }
            if spec.delay.is_some() {
                let why = "nobody is held back by a limit that proxies share";
                return Err(Invalid::new(field("delay"), why, "remove it, or `store`"));
            }
            if is_gcra && rate.nanos() / rate.requests < SHARED_INTERVAL_MIN {
                let why = "is more than a million per second, which a store does not count";
                return Err(Invalid::new(field("limit"), why, "use `fixedWindow`, or remove `store`"));
            }
        }
        let burst = spec.burst.unwrap_or(rate.requests);
        if !(1..=rate::REQUESTS_MAX).contains(&burst) {
            let why = format!("is 1 to {}", rate::REQUESTS_MAX);
            return Err(Invalid::new(field("burst"), why, "with 1 requests pass one by one"));
        }
        let patience = quantity::positive(&field("delay"), spec.delay.as_deref())?.unwrap_or_default();
        if patience.as_secs() > DELAY_MAX {
            return Err(Invalid::new(
                field("delay"),
                format!("is longer than {DELAY_MAX}s"),
                "refuse instead",
            ));
        }
        let when = spec.when.as_ref().map(|text| {
            Program::condition(text, &SCHEMA)
                .map_err(|error| Invalid::new(field("when"), error.tell(text), error.fix))
        });
        let cost = Cost::read(&field("cost"), spec.cost.as_ref())?;
        if matches!(cost, Cost::Response(_)) && spec.delay.is_some() {
            let why = "what a response will cost cannot be waited for";
            return Err(Invalid::new(field("delay"), why, "remove it"));
        }
        if let Cost::Number(cost) = cost
            && cost > burst.min(if is_gcra { u64::MAX } else { rate.requests })
        {
            let fix = "write a larger `burst`, or a smaller cost";
            return Err(Invalid::new(
                field("cost"),
                "is more than may come at once: nothing would pass",
                fix,
            ));
        }
        Ok(Self {
            told: format!("\"{name}\";r=").into_bytes().into(),
            rule: Rule::new(rate, burst),
            per: Keyed::read(&field("per"), spec.per.as_deref(), Keyed::Address)?,
            when: when.transpose()?,
            cost,
            patience: nanos(patience),
            is_fixed: spec.algorithm == Algorithm::FixedWindow,
            book: match store {
                None => Book::open(spec.algorithm, &name, keys, cx),
                Some(store) => Book::lease(spec.algorithm, &name, keys, store, away, cx),
            },
            name: name.into(),
        })
    }

    /// Its part of `RateLimit-Policy`.
    fn policy(&self) -> String {
        let window = seconds(self.rule.rate.nanos());
        format!("\"{}\";q={};w={window}", self.name, self.rule.rate.requests)
    }

    fn detail(&self) -> String {
        let Rate { requests, period } = self.rule.rate;
        format!("The limit `{}` allows {requests} in {period:?}.", self.name)
    }

    /// What is asked for when a request comes. What its response costs is not known: one must be left.
    fn price(&self, wanted: &Wanted) -> u64 {
        if matches!(self.cost, Cost::Response(_)) { 1 } else { wanted.cost }
    }

    fn peek(&self, wanted: &Wanted, now: Now) -> Result<(), Refused> {
        let price = self.price(wanted);
        let seen =
            self.book.each(wanted.key, now, |meter, _| meter.peek(&self.rule, now, price, self.patience));
        // What is leased is seen when it is taken.
        seen.map_or(Ok(()), |seen| seen.map(|_| ()))
    }

    fn take(
        &self,
        wanted: &Wanted,
        now: Now,
        has_waited: bool,
        name: &dyn Fn(&Self) -> String,
        is_full: &mut bool,
    ) -> Result<Taken, No> {
        let price = self.price(wanted);
        let taken = self.book.each(wanted.key, now, |meter, key_is_full| {
            *is_full |= key_is_full;
            match self.cost {
                Cost::Response(_) => meter.peek(&self.rule, now, price, 0),
                _ => meter.take(&self.rule, now, price, self.patience),
            }
        });
        match (taken, &self.book) {
            (Some(taken), _) => taken.map_err(No::Refused),
            (None, Book::Leased(leases, away)) => {
                let cost = match self.cost {
                    Cost::Response(_) => lease::Cost::Later,
                    _ => lease::Cost::Now(price),
                };
                let terms = self.terms(*away, now);
                let name = || name(self);
                let (leased, key_is_full) = leases.take(wanted.key, now, cost, &terms, &name, has_waited);
                *is_full |= key_is_full;
                match leased {
                    Leased::Taken(taken) => Ok(taken),
                    Leased::Refused(refused) => Err(No::Refused(refused)),
                    Leased::Away => Err(No::Away),
                    Leased::Pending(answers) => {
                        Err(No::Pending(Pending { leases: Arc::clone(leases), key: wanted.key, answers }))
                    }
                }
            }
            (None, _) => Err(No::Away),
        }
    }

    fn give_back(&self, wanted: &Wanted, now: Now) {
        if matches!(self.cost, Cost::Response(_)) {
            return;
        }
        match &self.book {
            Book::Leased(leases, away) => {
                leases.give_back(wanted.key, now, wanted.cost, &self.terms(*away, now));
            }
            book => {
                book.each(wanted.key, now, |meter, _| meter.give_back(&self.rule, wanted.cost));
            }
        }
    }

    fn charge(&self, key: u64, now: Now, cost: u64) {
        match &self.book {
            Book::Leased(leases, away) => leases.charge(key, now, cost, &self.terms(*away, now)),
            book => {
                book.each(key, now, |meter, _| meter.charge(&self.rule, now, cost));
            }
        }
    }

    /// What is asked of a store.
    fn terms(&self, away: WhenStoreIsAway, now: Now) -> Terms {
        let Rule { rate, burst, interval } = self.rule;
        let period = rate.nanos().max(1);
        let (store, alone) = if self.is_fixed {
            let keep = seconds(period).saturating_mul(2).saturating_add(1);
            let part = now.unix / period;
            let store = StoreRule::Counted { part, parts: 1, limit: rate.requests, keep, fraction: 4 };
            (store, Alone::Fixed(self.rule))
        } else {
            (StoreRule::Paced { interval, burst, ahead: lease::SLICE }, Alone::Paced(self.rule))
        };
        Terms {
            store,
            alone: (away == WhenStoreIsAway::Local).then_some(alone),
            limit: rate.requests,
            period,
            end: (now.unix / period + 1).saturating_mul(period),
        }
    }
}

impl Cost {
    pub(crate) fn read(field: &str, spec: Option<&CostSpec>) -> Result<Self, Invalid> {
        Ok(match spec {
            None => Self::Number(1),
            Some(CostSpec::Number(cost)) => Self::Number(*cost),
            Some(CostSpec::Response { response_field }) => {
                Self::Response(field_name(&format!("{field}.responseField"), response_field)?)
            }
            Some(CostSpec::Expression(text)) => {
                let program = Program::compile(text, &SCHEMA)
                    .map_err(|error| Invalid::new(field, error.tell(text), error.fix))?;
                if ![Kind::Int, Kind::Uint, Kind::Double].iter().any(|kind| program.kind().may_be(*kind)) {
                    let why = format!("a cost is a number, this is {}", program.kind().tell());
                    return Err(Invalid::new(field, why, "convert it: `int(…)`"));
                }
                Self::By(program)
            }
        })
    }

    pub(crate) fn of_request(&self, attributes: &Attributes<'_>) -> u64 {
        match self {
            Self::Number(cost) => *cost,
            Self::Response(_) => 0,
            Self::By(program) => match program.eval(attributes) {
                Ok(Value::Int(cost)) => u64::try_from(cost).unwrap_or(0),
                Ok(Value::Uint(cost)) => cost,
                // Saturates; what is no number becomes 0.
                Ok(Value::Double(cost)) => cost.ceil() as u64,
                _ => 1,
            },
        }
    }
}

impl Book {
    fn open(algorithm: Algorithm, name: &str, keys: usize, cx: &Context<'_>) -> Self {
        fn table<M: Entry + Send + 'static>(name: &str, keys: usize, cx: &Context<'_>) -> Arc<Table<M>> {
            let table = cx.keep(name, Table::new);
            table.set_most(keys);
            table
        }
        match algorithm {
            Algorithm::Gcra => Self::Gcra(table(&format!("gcra {name}"), keys, cx)),
            Algorithm::SlidingWindow => Self::Sliding(table(&format!("sliding {name}"), keys, cx)),
            Algorithm::FixedWindow => Self::Fixed(table(&format!("fixed {name}"), keys, cx)),
        }
    }

    /// Leases of a limit that proxies count together.
    fn lease(
        algorithm: Algorithm,
        name: &str,
        keys: usize,
        store: &Opened,
        away: WhenStoreIsAway,
        cx: &Context<'_>,
    ) -> Self {
        let kind = if algorithm == Algorithm::FixedWindow { "fixed" } else { "gcra" };
        let key = format!("{}:{name}:{kind}:", cx.place());
        let client = Arc::clone(&store.client);
        // With another store there are other leases.
        let kept = format!("leased {kind} {name} {:p}", Arc::as_ptr(&client));
        let leases = cx.keep(&kept, || Leases::new(client, key));
        leases.begin();
        leases.table.set_most(keys);
        Self::Leased(leases, away)
    }

    fn key(&self, per: &Keyed, attributes: &Attributes<'_>, cx: &Exchange<'_>) -> u64 {
        let seed = match self {
            Self::Gcra(table) => table.seed(),
            Self::Sliding(table) => table.seed(),
            Self::Fixed(table) => table.seed(),
            Self::Leased(leases, _) => leases.table.seed(),
        };
        per.hash(attributes, cx, seed)
    }

    /// Does something with what is counted here; `None` when others count as well.
    fn each<T>(&self, key: u64, now: Now, work: impl FnOnce(&mut dyn Meter, bool) -> T) -> Option<T> {
        Some(match self {
            Self::Gcra(table) => table.with(key, now, |meter, is_full| work(meter, is_full)),
            Self::Sliding(table) => table.with(key, now, |meter, is_full| work(meter, is_full)),
            Self::Fixed(table) => table.with(key, now, |meter, is_full| work(meter, is_full)),
            Self::Leased(..) => return None,
        })
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
