//! How much may come in a month: quotas by plan, that outlive the process.
//!
//! Permits are leased from a store as those of shared rate limits are: a directory of this machine, or Redis. What is leased
//! counts as used before it is handed out, so that nothing ever gives more than the quota; what a killed process did not
//! use is found again. Runs behind `rateLimit`: what comes too fast uses nothing of a quota.
//!
//! Costs per request what a rate limit costs, and with a directory one write of eight bytes that waits for no disk.

mod calendar;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rhumb_base::failure::Cause;
use rhumb_cel::Program;
use rhumb_codec::field::{FieldName, Known};
use rhumb_codec::head::{RequestHead, ResponseHead};
use rhumb_store::Rule as StoreRule;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::attributes::{Attributes, SCHEMA};
use crate::context::Context;
use crate::exchange::{Exchange, Reply};
use crate::keyed::{KEYS_DEFAULT, KEYS_LIMIT, Keyed, Now, nanos};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};
use crate::rate_limit::lease::{self, Leased, Leases, Pending, Terms};
use crate::rate_limit::{Cost, CostSpec, field_name, of_response, seconds};
use crate::store::QuotaStoreSpec;
use calendar::Period;

/// Most plans of one policy.
pub const PLANS_MAX: usize = 64;

/// Most of a period: what a number of Redis holds exactly.
const LIMIT_MAX: u64 = 1 << 53;

/// Longest name, in bytes.
const NAME_MAX: usize = 64;

/// Allows so much in each period.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Its name in fields, logs and answers. Default: `quota`.
    #[serde(default)]
    pub name: Option<String>,
    /// How much, for whom no plan is written: `1000/day`. Periods are hour, day, week, month and year by the calendar, or
    /// rolling ones such as 30d (m, h, d; at most 366d).
    pub limit: String,
    /// How much by the consumer's plan: `{gold: 100000/month}`. At most 64.
    #[serde(default)]
    pub plans: BTreeMap<String, String>,
    /// Periods roll: hour, day, week, month (30 days) and year (365 days) are the latest, not those of the calendar.
    /// Counted in sixtieths. Default: false.
    #[serde(default)]
    pub rolling: bool,
    /// Where the calendar is read: `Z`, or hours and minutes ahead of UTC such as `+02:00`. Default: `Z`.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// For whom it is counted: a CEL expression with one value. Requests without a value share one count. Default: the
    /// consumer, else the principal, else the client's address, of IPv6 its /64 network.
    #[serde(default)]
    pub per: Option<String>,
    /// Which requests are counted: a CEL condition. One without a value counts. Default: all.
    #[serde(default)]
    pub when: Option<String>,
    /// What a request costs: a number, a CEL expression, or `{responseField: NAME}`, which is charged when the response
    /// comes. Default: 1.
    #[serde(default)]
    pub cost: Option<CostSpec>,
    /// Tell clients what is left, in the fields `RateLimit` and `RateLimit-Policy`. Default: true.
    #[serde(default = "yes")]
    pub fields: bool,
    /// Keys that are known at a time. Default: 65536.
    #[serde(default)]
    pub keys: Option<usize>,
    /// Where counts are kept. Default: a directory of this machine.
    #[serde(default)]
    pub store: QuotaStoreSpec,
    /// What to do while the store cannot be asked. Default: `Refuse`.
    #[serde(default)]
    pub when_store_is_away: WhenAway,
}

fn yes() -> bool {
    true
}

/// What to do while the store of a quota cannot be asked.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
pub enum WhenAway {
    /// Refuse with 503.
    #[default]
    Refuse,
    /// Let requests pass that are not counted.
    Allow,
}

/// A compiled quota.
pub struct Quota {
    inner: Arc<Inner>,
    tells: Option<Names>,
}

struct Names {
    limit: FieldName,
    policy: FieldName,
}

struct Inner {
    name: Arc<str>,
    /// That of everybody else first.
    plans: Box<[Plan]>,
    offset: i64,
    per: Keyed,
    when: Option<Program>,
    cost: Cost,
    leases: Arc<Leases>,
    timeout: Duration,
    /// At most this fraction of what is left is leased at a time.
    fraction: u64,
    passes_when_away: bool,
}

struct Plan {
    name: Box<str>,
    limit: u64,
    period: Period,
    /// Of the first plan with the same period: they are counted together.
    group: u64,
    /// `RateLimit-Policy`.
    policy: Box<[u8]>,
}

/// What is known of a request when its response is written.
#[derive(Default)]
pub struct State {
    told: Option<Told>,
    /// The same, of a request that waited for the store.
    later: Option<Rc<Cell<Option<Told>>>>,
}

#[derive(Clone, Copy)]
struct Told {
    plan: usize,
    /// Whom the response may be charged to; nobody when the request was refused.
    key: Option<u64>,
    left: u64,
    reset: u64,
}

enum Stop {
    Refused(Box<Reply>),
    Pending(Pending),
}

impl HttpPolicy for Quota {
    const KIND: &'static str = "quota";
    const HOOKS: Hooks = Hooks::REQUEST.or(Hooks::RESPONSE);
    const ATTACH: Attach = Attach::FRONT.or(Attach::BACKEND).or(Attach::CONSUMER);
    const MERGE: Merge = Merge::Union;
    type Spec = Spec;
    type State = State;

    fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        let name = spec.name.clone().unwrap_or_else(|| "quota".to_owned());
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(is_plain) {
            let why = format!("has 1 to {NAME_MAX} letters, digits, `-`, `_` and `.`");
            return Err(Invalid::new("name", why, "clients read it in fields"));
        }
        if spec.plans.len() > PLANS_MAX {
            return Err(Invalid::new("plans", format!("has more than {PLANS_MAX} plans"), ""));
        }
        let mut plans: Vec<Plan> = Vec::with_capacity(spec.plans.len() + 1);
        let written = spec.plans.iter().map(|(plan, limit)| (plan.as_str(), format!("plans.{plan}"), limit));
        for (plan, field, limit) in [("", "limit".to_owned(), &spec.limit)].into_iter().chain(written) {
            let (limit, period) = read(&field, limit, spec.rolling)?;
            let group = plans.iter().position(|other| other.period == period).unwrap_or(plans.len());
            let policy = format!("\"{name}\";q={limit};w={}", period.length().as_secs());
            let (plan, group) = (plan.into(), group as u64);
            plans.push(Plan { name: plan, limit, period, group, policy: policy.into_bytes().into() });
        }
        let offset = match &spec.time_zone {
            None => 0,
            Some(text) => calendar::offset(text).ok_or_else(|| {
                let why = format!("`{text}` is no offset from UTC");
                Invalid::new("timeZone", why, "write Z, or hours and minutes: +02:00")
            })?,
        };
        let when = spec.when.as_ref().map(|text| {
            Program::condition(text, &SCHEMA)
                .map_err(|error| Invalid::new("when", error.tell(text), error.fix))
        });
        let cost = Cost::read("cost", spec.cost.as_ref())?;
        let keys = spec.keys.unwrap_or(KEYS_DEFAULT);
        if !(1..=KEYS_LIMIT).contains(&keys) {
            return Err(Invalid::new(
                "keys",
                format!("is 1 to {KEYS_LIMIT}"),
                "leave it out for the default",
            ));
        }
        let store = spec.store.open("store", cx)?;
        let client = Arc::clone(&store.client);
        let kept = format!("quota {name} {:p}", Arc::as_ptr(&client));
        let prefix = format!("{}:{name}:", cx.place());
        let leases = cx.keep(&kept, || Leases::new(client, prefix));
        leases.begin();
        leases.table.set_most(keys);
        let tells = match spec.fields {
            true => Some(Names {
                limit: field_name("", "ratelimit")?,
                policy: field_name("", "ratelimit-policy")?,
            }),
            false => None,
        };
        let inner = Inner {
            name: name.into(),
            plans: plans.into(),
            offset,
            per: Keyed::read("per", spec.per.as_deref(), Keyed::Caller)?,
            when: when.transpose()?,
            cost,
            leases,
            timeout: store.timeout,
            // What a killed proxy had leased from Redis is lost; a directory gives it back.
            fraction: if store.is_shared { 8 } else { 1 },
            passes_when_away: spec.when_store_is_away == WhenAway::Allow,
        };
        Ok(Self { inner: Arc::new(inner), tells })
    }

    fn on_request(&self, req: &mut RequestHead, state: &mut State, cx: &mut Exchange<'_>) -> Verdict {
        // A request that is only thought through uses nothing.
        let Some(now) = Now::of(cx) else { return Verdict::Continue };
        match self.inner.admit(req, &mut state.told, cx, now, false) {
            Ok(()) => Verdict::Continue,
            Err(Stop::Refused(reply)) => Verdict::Respond(reply),
            Err(Stop::Pending(pending)) => {
                let later = Rc::clone(state.later.get_or_insert_default());
                self.inner.wait(pending, later, now.steady, cx)
            }
        }
    }

    fn on_response(&self, rsp: &mut ResponseHead, state: &mut State, cx: &mut Exchange<'_>) {
        let told = state.told.or_else(|| state.later.as_ref().and_then(|later| later.get()));
        let Some(told) = told else { return };
        let Some(plan) = self.inner.plans.get(told.plan) else { return };
        if let (Cost::Response(field), Some(key), Some(now)) = (&self.inner.cost, told.key, Now::of(cx)) {
            self.inner.leases.charge(key, now, of_response(rsp, field), &self.inner.terms(plan, now));
        }
        if let Some(names) = &self.tells {
            let Told { left, reset, .. } = told;
            let line = format!("\"{}\";r={left};t={}", self.inner.name, seconds(reset));
            // Both are made of what a structured field may have: they are never refused.
            let _ = rsp.fields.append_checked(&names.policy, &plan.policy);
            let _ = rsp.fields.append_checked(&names.limit, line.as_bytes());
        }
    }
}

impl Inner {
    fn admit(
        &self,
        req: &RequestHead,
        told: &mut Option<Told>,
        cx: &mut Exchange<'_>,
        now: Now,
        has_waited: bool,
    ) -> Result<(), Stop> {
        let attributes = Attributes::new(req, cx);
        // A condition without a value counts: nobody gets past a quota by making it fail.
        if self.when.as_ref().is_some_and(|when| !when.holds(&attributes).unwrap_or(true)) {
            return Ok(());
        }
        let consumer = cx.principal().and_then(|principal| principal.consumer.as_ref());
        let written = consumer.filter(|consumer| !consumer.plan.is_empty());
        let at = written.and_then(|consumer| self.plans.iter().position(|plan| plan.name == consumer.plan));
        let at = at.unwrap_or(0);
        let Some(plan) = self.plans.get(at) else { return Ok(()) };
        // Any odd number spreads the groups.
        let group = plan.group.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let key = self.per.hash(&attributes, cx, self.leases.table.seed()) ^ group;
        let cost = match self.cost {
            Cost::Response(_) => lease::Cost::Later,
            _ => lease::Cost::Now(self.cost.of_request(&attributes)),
        };
        let name = || format!("{}:{}", plan.period.name(), self.per.name(&attributes, cx));
        let terms = self.terms(plan, now);
        let (leased, is_full) = self.leases.take(key, now, cost, &terms, &name, has_waited);
        cx.found.keys_full |= is_full;
        match leased {
            Leased::Taken(taken) => {
                *told = Some(Told { plan: at, key: Some(key), left: taken.left, reset: taken.reset });
                Ok(())
            }
            Leased::Refused(refused) => {
                *told = Some(Told { plan: at, key: None, left: refused.left, reset: refused.reset });
                let mut reply = Reply::refuse(Cause::QuotaExceeded);
                let wait = seconds(refused.wait).max(1);
                reply.fields().set(Known::RetryAfter, itoa::Buffer::new().format(wait).as_bytes());
                let what = format!("`{}` allows {} per {}", self.name, plan.limit, plan.period.name());
                reply.detail = Some(match &*plan.name {
                    "" => format!("The quota {what}.").into(),
                    plan => format!("The quota {what} on plan `{plan}`.").into(),
                });
                cx.decision = Some(Arc::clone(&self.name));
                Err(Stop::Refused(reply))
            }
            Leased::Away if self.passes_when_away => Ok(()),
            Leased::Away => {
                cx.decision = Some(Arc::clone(&self.name));
                Err(Stop::Refused(lease::away()))
            }
            Leased::Pending(answers) => {
                Err(Stop::Pending(Pending { leases: Arc::clone(&self.leases), key, answers }))
            }
        }
    }

    fn wait(
        self: &Arc<Self>,
        pending: Pending,
        told: Rc<Cell<Option<Told>>>,
        begun: u64,
        cx: &Exchange<'_>,
    ) -> Verdict {
        let (this, end) = (Arc::clone(self), begun.saturating_add(nanos(self.timeout)));
        let again = move |req: &mut RequestHead, cx: &mut Exchange<'_>, now, is_late| {
            let mut found = None;
            let admitted = this.admit(req, &mut found, cx, now, is_late);
            told.set(found);
            match admitted {
                Ok(()) => Verdict::Continue,
                Err(Stop::Refused(reply)) => Verdict::Respond(reply),
                Err(Stop::Pending(pending)) => this.wait(pending, told, begun, cx),
            }
        };
        lease::wait(pending, end, cx, Box::new(again))
    }

    fn terms(&self, plan: &Plan, now: Now) -> Terms {
        let part = plan.period.at(now.unix, self.offset);
        let period = nanos(plan.period.length());
        // Until the period is over, and a while for clocks that differ.
        let keep = plan.period.length().as_secs().saturating_mul(2).saturating_add(86_400);
        Terms {
            store: StoreRule::Counted {
                part: part.number,
                parts: part.parts,
                limit: plan.limit,
                keep,
                fraction: self.fraction,
            },
            alone: None,
            limit: plan.limit,
            period,
            end: part.end,
        }
    }
}

/// How much in which period: `1000/day`.
fn read(field: &str, text: &str, is_rolling: bool) -> Result<(u64, Period), Invalid> {
    let fix = "write how much and the period: 1000/day, 50000/month, 100/30d";
    let (limit, period) = text
        .split_once('/')
        .and_then(|(limit, period)| {
            Some((limit.trim().parse().ok()?, Period::parse(period.trim(), is_rolling)?))
        })
        .ok_or_else(|| Invalid::new(field, format!("`{text}` is no quota"), fix))?;
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Invalid::new(field, format!("a quota is 1 to {LIMIT_MAX}"), fix));
    }
    Ok((limit, period))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Answer, Call, Caller, Local, Out};
    use crate::chain::{Chain, ChainState, Item, Step};
    use crate::context::{Keeper, NoDocuments, Remote};
    use crate::principal::{Consumer, Principal};
    use rhumb_base::failure::Failure;
    use rhumb_codec::head::Scheme;
    use serde_json::json;
    use std::task::Wake;
    use std::time::Instant;

    /// A way out that can do nothing but tell the time.
    struct Clock(Instant);

    impl Caller for Clock {
        fn call(&self, _: &Remote, _: Call) -> Local<Result<Answer, Failure>> {
            Box::pin(async { Err(Cause::NoEndpoint.into()) })
        }

        fn spawn(&self, _: Local<()>) {}

        fn tell(&self, _: crate::call::Event) {}

        fn pause(&self, _: Duration) -> Local<()> {
            Box::pin(std::future::pending())
        }

        fn unix_nanos(&self) -> u64 {
            NOW + u64::try_from(self.0.elapsed().as_nanos()).unwrap()
        }
    }

    /// 2027-01-15.
    const NOW: u64 = 1_800_000_000_000_000_000;

    struct Unpark(std::thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    /// Status and what is told, for a request of a consumer with this plan.
    fn ask(chain: &Chain, plan: &str) -> (u16, String) {
        let began = Instant::now();
        let out: Out = Rc::new(Clock(began));
        let consumer = Consumer { name: "default/acme".into(), plan: plan.into(), ..Consumer::default() };
        let mut cx = Exchange {
            began: Some(began),
            unix_nanos: NOW,
            out: Some(&out),
            ..Exchange::new([192, 0, 2, 1].into(), Scheme::Http, 80)
        };
        cx.prove(Arc::new(Principal { consumer: Some(Arc::new(consumer)), ..Principal::default() }));
        let (mut req, mut state) = (RequestHead::new(), ChainState::default());
        let mut step = chain.on_request(&mut req, &mut state, &mut cx);
        let waker = Arc::new(Unpark(std::thread::current())).into();
        while let Step::Wait(mut future) = step {
            let outcome = loop {
                match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
                    std::task::Poll::Ready(outcome) => break outcome,
                    std::task::Poll::Pending => std::thread::park(),
                }
            };
            step = chain.resume(outcome, &mut req, &mut state, &mut cx);
        }
        let mut rsp = match step {
            Step::Done => ResponseHead::with_status(200),
            Step::Respond(reply) => reply.head,
            _ => panic!("neither passes nor is answered"),
        };
        chain.on_response(&mut rsp, &mut state, &mut cx);
        let told = rsp.fields.find(&FieldName::parse(b"ratelimit").unwrap()).unwrap_or_default();
        (rsp.status, String::from_utf8_lossy(told).into_owned())
    }

    #[test]
    fn the_plan_of_the_consumer_says_how_much() {
        let directory = tempfile::tempdir().unwrap();
        let body = json!({
            "limit": "2/day",
            "plans": { "gold": "5/day", "vip": "3/month" },
            "store": { "disk": { "directory": directory.path() } },
        });
        let item = Item {
            policy: Arc::new(compile(&body).unwrap().policy),
            origin: "test".into(),
            is_shadow: false,
        };
        let chain = Chain::new(vec![item]);
        let statuses = |plan: &str, count: usize| (0..count).map(|_| ask(&chain, plan).0).collect::<Vec<_>>();
        // 16 hours of the day are left.
        assert_eq!(ask(&chain, ""), (200, "\"quota\";r=1;t=57600".to_owned()));
        assert_eq!(statuses("", 1), [200]);
        // The same day, and what was used of it stays used.
        assert_eq!(statuses("gold", 4), [200, 200, 200, 429]);
        assert_eq!(ask(&chain, "gold"), (429, "\"quota\";r=0;t=57600".to_owned()));
        assert_eq!(statuses("", 1), [429]);
        // Another period has a count of its own.
        assert_eq!(statuses("vip", 4), [200, 200, 200, 429]);
    }

    fn compile(body: &serde_json::Value) -> Result<crate::Parsed, Invalid> {
        let (mut documents, keeper) = (NoDocuments, Keeper::default());
        let mut cx = Context::new("default", "test", &mut documents, &keeper);
        crate::parse("quota", body, &mut cx).unwrap()
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (body, field) in [
            (json!({ "limit": "1000" }), "limit"),
            (json!({ "limit": "1000/minute" }), "limit"),
            (json!({ "limit": "0/day" }), "limit"),
            (json!({ "limit": "1/day", "plans": { "gold": "many" } }), "plans.gold"),
            (json!({ "limit": "1/day", "timeZone": "Europe/Berlin" }), "timeZone"),
            (json!({ "limit": "1/day", "per": "request.headers" }), "per"),
            (json!({ "limit": "1/day", "store": { "disk": {}, "redis": { "url": "redis://a" } } }), "store"),
            (json!({ "limit": "1/day", "store": { "redis": { "url": "http://a" } } }), "store.redis.url"),
        ] {
            let invalid = compile(&body).err().unwrap();
            assert_eq!(invalid.field, field, "{body}: {invalid}");
        }
    }

    #[test]
    fn plans_with_one_period_are_counted_together() {
        let body =
            json!({ "limit": "10/day", "plans": { "a": "100/month", "b": "20/day", "c": "200/month" } });
        let crate::Policy::Quota(quota) = compile(&body).unwrap().policy else { panic!("another policy") };
        let groups: Vec<_> = quota.inner.plans.iter().map(|plan| (&*plan.name, plan.group)).collect();
        assert_eq!(groups, [("", 0), ("a", 1), ("b", 0), ("c", 1)]);
    }
}
