//! One limit: what a request costs, whom it is counted for, and where.

use std::sync::Arc;

use rhumb_cel::{Kind, Program, Value};
use rhumb_codec::field::FieldName;
use rhumb_codec::head::ResponseHead;
use rhumb_store::Rule as StoreRule;

use super::algorithm::{Fixed, Gcra, Meter, Refused, Rule, Sliding, Taken};
use super::lease::{self, Alone, Leased, Leases, Pending, Terms};
use super::rate::{self, Rate};
use super::{Algorithm, CostSpec, LimitSpec};
use crate::attributes::{Attributes, SCHEMA};
use crate::context::Context;
use crate::exchange::Exchange;
use crate::keyed::{Entry, Keyed, Now, Table, nanos};
use crate::policy::Invalid;
use crate::quantity;
use crate::store::{Opened, WhenStoreIsAway};

/// The longest delay instead of a refusal, in seconds.
const DELAY_MAX: u64 = 60;

/// Longest name of a limit, in bytes.
const NAME_MAX: usize = 64;

/// Shortest time between two that proxies count together. **Unit**: nanoseconds.
const SHARED_INTERVAL_MIN: u64 = 1_000;

/// One limit, compiled.
pub(super) struct Limit {
    pub(super) name: Arc<str>,
    /// `"name";r=`
    pub(super) told: Box<[u8]>,
    pub(super) rule: Rule,
    pub(super) per: Keyed,
    pub(super) when: Option<Program>,
    pub(super) cost: Cost,
    /// **Unit**: nanoseconds.
    pub(super) patience: u64,
    /// Counted in periods by the clock.
    pub(super) is_fixed: bool,
    pub(super) book: Book,
}

/// What a request costs, compiled.
pub(crate) enum Cost {
    Number(u64),
    By(Program),
    Response(FieldName),
}

/// Where it is counted.
pub(super) enum Book {
    Gcra(Arc<Table<Gcra>>),
    Sliding(Arc<Table<Sliding>>),
    Fixed(Arc<Table<Fixed>>),
    /// Together with other proxies.
    Leased(Arc<Leases>, WhenStoreIsAway),
}

/// What a request wants of a limit.
#[derive(Clone, Copy, Default)]
pub(super) struct Wanted {
    pub(super) at: usize,
    pub(super) key: u64,
    pub(super) cost: u64,
}

/// Why a limit gave nothing.
pub(super) enum No {
    Refused(Refused),
    Away,
    Pending(Pending),
}

impl Limit {
    pub(super) fn compile(
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
    pub(super) fn policy(&self) -> String {
        let window = seconds(self.rule.rate.nanos());
        format!("\"{}\";q={};w={window}", self.name, self.rule.rate.requests)
    }

    pub(super) fn detail(&self) -> String {
        let Rate { requests, period } = self.rule.rate;
        format!("The limit `{}` allows {requests} in {period:?}.", self.name)
    }

    /// What is asked for when a request comes. What its response costs is not known: one must be left.
    fn price(&self, wanted: &Wanted) -> u64 {
        if matches!(self.cost, Cost::Response(_)) { 1 } else { wanted.cost }
    }

    pub(super) fn peek(&self, wanted: &Wanted, now: Now) -> Result<(), Refused> {
        let price = self.price(wanted);
        let seen =
            self.book.each(wanted.key, now, |meter, _| meter.peek(&self.rule, now, price, self.patience));
        // What is leased is seen when it is taken.
        seen.map_or(Ok(()), |seen| seen.map(|_| ()))
    }

    pub(super) fn take(
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

    pub(super) fn give_back(&self, wanted: &Wanted, now: Now) {
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

    pub(super) fn charge(&self, key: u64, now: Now, cost: u64) {
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

    pub(super) fn key(&self, per: &Keyed, attributes: &Attributes<'_>, cx: &Exchange<'_>) -> u64 {
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
