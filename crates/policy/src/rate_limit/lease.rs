//! Permits on lease: what several proxies count together costs one round trip per lease, not one per request.
//!
//! A lease is a number of permits that the store has counted as used. It is asked for in the background before the last
//! one is used up, as large as what came in the latest tenth of a second, or a twentieth of the limit if that is more.
//! Only a request that finds no permit and no word from the store waits for one. What is not used for a while is given
//! back. While the store says that there are none, nobody asks again.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rhumb_base::failure::Cause;
use rhumb_codec::field::Known;
use rhumb_codec::head::RequestHead;
use rhumb_store::{Ask, Attend, Away, Client, Grant, Journal, Rule as StoreRule};

use super::algorithm::{Fixed, Gcra, Meter, Refused, Rule, Taken};
use crate::exchange::{Exchange, Reply};
use crate::keyed::{Entry, Now, Table, nanos, steady};
use crate::policy::{Outcome, Verdict};

/// What is granted lasts about so long. **Unit**: nanoseconds.
pub(crate) const SLICE: u64 = 100_000_000;

/// Leases of one key that are not used up.
const SEGMENTS: usize = 4;

/// How long permits are kept that nobody uses, at least and at most. **Unit**: nanoseconds.
const HOLD: (u64, u64) = (1_000_000_000, 10_000_000_000);

/// How long a key does without the store once it was away. **Unit**: nanoseconds.
const AWAY: u64 = 250_000_000;

/// The longest time for which nobody asks after a refusal. **Unit**: nanoseconds.
const DENIED_MAX: u64 = 1_000_000_000;

/// The shortest such time.
const DENIED_MIN: u64 = 2_000_000;

/// Permits that are asked for when nothing is known of a key: at most so many.
const FIRST_MAX: u64 = 64;

/// What is asked of the store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) store: StoreRule,
    /// The same as a limit of this proxy alone; divided among all while the store is away. Nothing: then refuse.
    pub(crate) alone: Option<Alone>,
    /// How much is allowed in `period`.
    pub(crate) limit: u64,
    /// **Unit**: nanoseconds.
    pub(crate) period: u64,
    /// When the part of time ends that is counted. **Unit**: nanoseconds since 1970.
    pub(crate) end: u64,
}

/// A limit of this proxy alone.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Alone {
    Paced(Rule),
    Fixed(Rule),
}

impl Terms {
    fn part(&self) -> u64 {
        part_of(&self.store)
    }

    fn interval(&self) -> u64 {
        match self.store {
            StoreRule::Paced { interval, .. } => interval,
            StoreRule::Counted { .. } => 0,
        }
    }

    fn hold(&self) -> u64 {
        (self.period / 10).clamp(HOLD.0, HOLD.1)
    }
}

/// What came of taking.
pub(crate) enum Leased {
    Taken(Taken),
    Refused(Refused),
    /// The store is away, and that means no.
    Away,
    /// Nobody knows yet: wait until [`Leases::poll_answer`] is ready, and take again.
    Pending(u64),
}

/// Permits of all keys of one limit.
pub(crate) struct Leases {
    pub(crate) table: Table<Lease>,
    client: Arc<Client>,
    /// Before each key in the store.
    name: String,
    /// Set by [`Self::begin`].
    this: OnceLock<Weak<Self>>,
}

/// Permits of one key.
#[derive(Default)]
pub(crate) struct Lease {
    /// The key in the store.
    name: Option<Box<str>>,
    /// The rule that was asked for last.
    rule: Option<StoreRule>,
    segments: Vec<Segment>,
    /// Not used, and not given back yet: how many, and of which part of time.
    back: u64,
    back_part: u64,
    /// Used without a permit, and not told yet.
    debt: u64,
    is_asking: bool,
    waiters: Vec<Waker>,
    /// How many answers have come.
    answers: u64,
    /// What was granted last.
    granted: u64,
    /// What the store said is left.
    room: u64,
    demand: Demand,
    denied_until: u64,
    /// How much was allowed where nothing was left. Who is allowed more asks all the same.
    denied_limit: u64,
    /// When the store will have a permit, as far as it said.
    free_at: u64,
    away_until: u64,
    used_at: u64,
    hold: u64,
    /// The latest part of time that was counted in.
    part: u64,
    /// Where it is written how many were used, in which part of time, and how many.
    journal: Option<Journal>,
    journal_part: u64,
    used: u64,
    paced: Gcra,
    fixed: Fixed,
}

/// Permits that were granted together.
#[derive(Clone, Copy)]
struct Segment {
    permits: u64,
    /// When the first is good; the others follow in `interval`. **Unit**: [`Now::steady`].
    first: u64,
    interval: u64,
    /// When they came.
    at: u64,
    part: u64,
}

impl Segment {
    fn usable(&self, now: u64) -> u64 {
        let Some(passed) = now.checked_sub(self.first) else { return 0 };
        passed
            .checked_div(self.interval)
            .map_or(self.permits, |more| self.permits.min(more.saturating_add(1)))
    }
}

/// How much a key is asked for.
#[derive(Default)]
struct Demand {
    slice: u64,
    count: u64,
    /// Of the slices before, the latest counting most.
    before: f64,
}

impl Demand {
    fn add(&mut self, now: u64, count: u64) {
        let slice = now / SLICE;
        if slice > self.slice {
            let passed = i32::try_from(slice - self.slice).unwrap_or(i32::MAX);
            self.before = (self.before + self.count as f64) / 2.0 * 0.5f64.powi(passed - 1);
            (self.slice, self.count) = (slice, 0);
        }
        self.count = self.count.saturating_add(count);
    }
}

impl Entry for Lease {
    fn is_over(&self, now: Now) -> bool {
        let rests = self.used_at.saturating_add(HOLD.1) < now.steady && self.denied_until <= now.steady;
        let is_empty = self.segments.is_empty() && self.back == 0 && self.debt == 0 && self.journal.is_none();
        rests && is_empty && !self.is_asking && self.paced.is_over(now) && self.fixed.is_over(now)
    }
}

impl Lease {
    fn usable(&self, now: u64) -> u64 {
        self.segments.iter().map(|segment| segment.usable(now)).sum()
    }

    fn held(&self) -> u64 {
        self.segments.iter().map(|segment| segment.permits).sum()
    }

    /// Uses as many as there are of `count`; how many were missing.
    fn use_up(&mut self, now: u64, mut count: u64) -> u64 {
        for segment in &mut self.segments {
            let used = segment.usable(now).min(count);
            segment.permits -= used;
            segment.first = segment.first.saturating_add(used.saturating_mul(segment.interval));
            count -= used;
        }
        self.segments.retain(|segment| segment.permits > 0);
        count
    }

    /// Parts with what nobody used for a while, and with what is of a part of time that is over.
    fn settle(&mut self, now: u64, part: u64, hold: u64) {
        self.part = self.part.max(part);
        let Self { part, back, back_part, segments, .. } = self;
        segments.retain(|segment| {
            let is_old = now.saturating_sub(segment.at.max(segment.first)) > hold || segment.part < *part;
            if is_old {
                *back = if *back_part == segment.part {
                    back.saturating_add(segment.permits)
                } else {
                    segment.permits
                };
                *back_part = segment.part;
            }
            !is_old
        });
    }

    fn is_denied(&self, now: u64, limit: u64) -> bool {
        now < self.denied_until && limit <= self.denied_limit
    }

    /// Takes down how many of what was granted are used. False when that cannot be done.
    fn note_used(&mut self, more: u64) -> bool {
        let Some(journal) = &self.journal else { return true };
        self.used = self.used.saturating_add(more);
        journal.write(self.used).is_ok()
    }

    /// When so many of what is held can be used; `None` when there are not so many.
    fn usable_at(&self, count: u64) -> Option<u64> {
        let mut left = count;
        let mut at = 0;
        for segment in &self.segments {
            let used = segment.permits.min(left);
            if used > 0 {
                at = at.max(segment.first.saturating_add((used - 1).saturating_mul(segment.interval)));
                left -= used;
            }
        }
        (left == 0).then_some(at)
    }

    /// The wish for more, and what has to be told besides.
    fn wish(&mut self, terms: &Terms, users: u64, least: u64) -> Wish {
        let share = u128::from(terms.limit) * u128::from(SLICE) * 3 / 2 / u128::from(terms.period.max(1));
        let share = u64::try_from(share).unwrap_or(u64::MAX).div_ceil(users);
        let first = (terms.limit / 20).clamp(1, FIRST_MAX);
        let most = share.max(self.room / (4 * users)).max(first);
        // Saturates.
        let demand = (self.demand.before.max(self.demand.count as f64) * 1.5).ceil() as u64;
        let waiting = least.saturating_add(self.waiters.len() as u64);
        let want = demand.clamp(first, most).max(waiting);
        let rule = match terms.store {
            StoreRule::Counted { part, parts, limit, keep, fraction } => {
                // Whose clock is behind asks for what is now all the same.
                StoreRule::Counted { part: part.max(self.part), parts, limit, keep, fraction }
            }
            paced => paced,
        };
        self.rule = Some(rule);
        let (back, debt) = (std::mem::take(&mut self.back), std::mem::take(&mut self.debt));
        Wish { rule, want, back, back_part: self.back_part, debt }
    }
}

struct Wish {
    rule: StoreRule,
    want: u64,
    back: u64,
    back_part: u64,
    debt: u64,
}

fn part_of(rule: &StoreRule) -> u64 {
    match rule {
        StoreRule::Paced { .. } => 0,
        StoreRule::Counted { part, .. } => *part,
    }
}

impl Leases {
    pub(crate) fn new(client: Arc<Client>, name: String) -> Self {
        Self { table: Table::new(), client, name, this: OnceLock::new() }
    }

    /// Has leases that nobody uses given back from here on.
    pub(crate) fn begin(self: &Arc<Self>) {
        self.this.get_or_init(|| {
            let this = Arc::downgrade(self);
            let attendant: Weak<Self> = Weak::clone(&this);
            self.client.attend(attendant);
            this
        });
    }

    fn users(&self) -> u64 {
        u64::from(self.client.health().users())
    }

    /// Takes permits. `name` tells the key when it is seen for the first time; `has_waited`: this request waited long
    /// enough for the store.
    pub(crate) fn take(
        &self,
        key: u64,
        now: Now,
        cost: Cost,
        terms: &Terms,
        name: &dyn Fn() -> String,
        has_waited: bool,
    ) -> (Leased, bool) {
        let at = now.steady;
        self.table.with(key, now, |lease, is_full| {
            if lease.name.is_none() {
                lease.name = Some(if is_full { "*".into() } else { name().into() });
            }
            lease.used_at = lease.used_at.max(at);
            lease.demand.add(at, cost.wanted());
            lease.hold = terms.hold();
            lease.settle(at, terms.part(), terms.hold());
            let wanted = cost.wanted();
            let leased = if lease.usable(at) >= wanted {
                let is_noted = match cost {
                    Cost::Now(count) => {
                        lease.use_up(at, count);
                        lease.note_used(count)
                    }
                    Cost::Later => true,
                };
                let left = lease.room.saturating_add(lease.held());
                match is_noted {
                    true => Leased::Taken(Taken { delay: 0, left, reset: reset(terms, left, now) }),
                    false => self.alone(lease, now, cost, terms),
                }
            } else if has_waited || at < lease.away_until || self.client.health().is_away() {
                if has_waited {
                    lease.away_until = at.saturating_add(AWAY);
                } else if at >= lease.away_until {
                    self.ask(key, lease, terms, wanted);
                }
                self.alone(lease, now, cost, terms)
            } else if let Some(usable) = lease.usable_at(wanted) {
                refused(terms, now, usable.saturating_sub(at), lease.held())
            } else if lease.is_denied(at, terms.limit) {
                refused(terms, now, lease.free_at.saturating_sub(at), lease.held())
            } else {
                self.ask(key, lease, terms, wanted);
                Leased::Pending(lease.answers)
            };
            let is_low = lease.held() <= lease.granted / 2 && lease.segments.len() < SEGMENTS;
            // Whose requests come once in a while asks when one comes.
            let is_busy = lease.demand.before > 0.25 || lease.debt > 0;
            if is_low && is_busy && !lease.is_denied(at, terms.limit) && at >= lease.away_until {
                self.ask(key, lease, terms, 0);
            }
            (leased, is_full)
        })
    }

    /// What this proxy does without the store.
    fn alone(&self, lease: &mut Lease, now: Now, cost: Cost, terms: &Terms) -> Leased {
        let users = self.users();
        let divide = |rule: &Rule| {
            let requests = (rule.rate.requests / users).max(1);
            Rule::new(super::rate::Rate { requests, ..rule.rate }, (rule.burst / users).max(1))
        };
        fn with(meter: &mut dyn Meter, rule: &Rule, now: Now, cost: Cost) -> Leased {
            let taken = match cost {
                Cost::Now(cost) => meter.take(rule, now, cost, 0),
                Cost::Later => meter.peek(rule, now, 1, 0),
            };
            taken.map_or_else(Leased::Refused, Leased::Taken)
        }
        match &terms.alone {
            None => Leased::Away,
            Some(Alone::Paced(rule)) => with(&mut lease.paced, &divide(rule), now, cost),
            Some(Alone::Fixed(rule)) => with(&mut lease.fixed, &divide(rule), now, cost),
        }
    }

    /// Gives back what was just taken.
    pub(crate) fn give_back(&self, key: u64, now: Now, count: u64, terms: &Terms) {
        self.table.with(key, now, |lease, _| {
            let segment = Segment {
                permits: count,
                first: now.steady,
                interval: 0,
                at: now.steady,
                part: terms.part(),
            };
            lease.segments.push(segment);
            lease.used = lease.used.saturating_sub(count);
            lease.note_used(0);
        });
    }

    /// Takes what is used already.
    pub(crate) fn charge(&self, key: u64, now: Now, count: u64, terms: &Terms) {
        self.table.with(key, now, |lease, _| {
            if now.steady < lease.away_until {
                match &terms.alone {
                    Some(Alone::Paced(rule)) => lease.paced.charge(rule, now, count),
                    Some(Alone::Fixed(rule)) => lease.fixed.charge(rule, now, count),
                    None => {}
                }
                return;
            }
            let missing = lease.use_up(now.steady, count);
            lease.note_used(count - missing);
            lease.debt = lease.debt.saturating_add(missing);
            if lease.debt > 0 {
                self.ask(key, lease, terms, 0);
            }
        });
    }

    /// Ready when an answer has come since `answers` were there.
    pub(crate) fn poll_answer(&self, key: u64, now: Now, answers: u64, waker: &Waker) -> Poll<()> {
        self.table.with(key, now, |lease, _| {
            if lease.answers != answers || !lease.is_asking {
                return Poll::Ready(());
            }
            if !lease.waiters.iter().any(|known| known.will_wake(waker)) {
                lease.waiters.push(waker.clone());
            }
            Poll::Pending
        })
    }

    fn ask(&self, key: u64, lease: &mut Lease, terms: &Terms, least: u64) {
        if lease.is_asking {
            return;
        }
        let Some(name) = &lease.name else { return };
        let name = format!("{}{name}", self.name);
        lease.is_asking = true;
        let Wish { rule, want, back, back_part, debt } = lease.wish(terms, self.users(), least);
        let this = self.this.get().cloned().unwrap_or_default();
        let terms = Terms { store: rule, ..*terms };
        let done = Box::new(move |answer: Result<Grant, Away>| {
            if let Some(this) = this.upgrade() {
                this.answered(key, &terms, answer, debt);
            }
        });
        self.client.ask(Ask { key: name, rule, want, back, back_part, debt, is_last: false, done });
    }

    /// Takes down an answer. Runs on the thread of the store.
    fn answered(&self, key: u64, terms: &Terms, answer: Result<Grant, Away>, debt: u64) {
        let at = steady(Instant::now());
        // The clock of the calendar is not needed to find the key.
        let now = Now { steady: at, unix: 0 };
        let waiters = self.table.with(key, now, |lease, _| {
            lease.is_asking = false;
            lease.answers += 1;
            match answer {
                Ok(grant) => {
                    lease.away_until = 0;
                    lease.room = grant.room;
                    lease.granted = grant.permits;
                    if grant.journal.is_some() {
                        // A part of time begins at nothing: so does the store.
                        if lease.journal.is_none() || lease.journal_part != terms.part() {
                            (lease.journal_part, lease.used) = (terms.part(), 0);
                        }
                        lease.journal = grant.journal;
                        lease.note_used(debt);
                    }
                    let first = at.saturating_add_signed(grant.first);
                    if grant.permits > 0 {
                        lease.denied_until = 0;
                        lease.segments.push(Segment {
                            permits: grant.permits,
                            first,
                            interval: terms.interval(),
                            at,
                            part: terms.part(),
                        });
                    } else {
                        let (again, free) = match terms.store {
                            StoreRule::Paced { ahead, .. } => (first, first.saturating_add(ahead)),
                            StoreRule::Counted { .. } => {
                                // The next part of time has permits of its own.
                                let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos);
                                let again = at.saturating_add(terms.end.saturating_sub(unix));
                                (again, again)
                            }
                        };
                        lease.denied_limit = terms.limit;
                        lease.denied_until = again.clamp(at + DENIED_MIN, at + DENIED_MAX);
                        lease.free_at = free;
                    }
                }
                Err(Away) => {
                    lease.away_until = at + AWAY;
                    // What was to be given back may have arrived or not: it counts as used. What was used has to be told.
                    lease.debt = lease.debt.saturating_add(debt);
                }
            }
            std::mem::take(&mut lease.waiters)
        });
        waiters.into_iter().for_each(Waker::wake);
    }
}

/// An answer of a store that a request waits for.
pub(crate) struct Pending {
    pub(crate) leases: Arc<Leases>,
    pub(crate) key: u64,
    pub(crate) answers: u64,
}

/// What a request does once it has waited. Told whether it has waited long enough.
pub(crate) type Again = Box<dyn FnOnce(&mut RequestHead, &mut Exchange<'_>, Now, bool) -> Verdict>;

/// Has a request wait for the store until `end`, then go on.
pub(crate) fn wait(pending: Pending, end: u64, cx: &Exchange<'_>, again: Again) -> Verdict {
    let Some(out) = cx.out.map(Rc::clone) else {
        // Nobody is there to wait: a copy of a request, which can be done without.
        return Verdict::Respond(Reply::refuse(Cause::StoreAway));
    };
    let now = Now::late(cx);
    let left = Duration::from_nanos(end.saturating_sub(now.steady));
    Verdict::Wait(Box::pin(async move {
        let Pending { leases, key, answers } = pending;
        let mut late = pin!(out.pause(left));
        let is_late = poll_fn(|task| {
            if leases.poll_answer(key, now, answers, task.waker()).is_ready() {
                return Poll::Ready(false);
            }
            late.as_mut().poll(task).map(|()| true)
        })
        .await;
        Outcome::Apply(Box::new(move |req, cx| {
            let now = Now::late(cx);
            again(req, cx, now, is_late || now.steady >= end)
        }))
    }))
}

/// Refuses because the store is away.
pub(crate) fn away() -> Box<Reply> {
    let mut reply = Reply::refuse(Cause::StoreAway);
    reply.fields().set(Known::RetryAfter, b"1");
    reply
}

/// What a request costs here.
#[derive(Clone, Copy)]
pub(crate) enum Cost {
    /// So many permits.
    Now(u64),
    /// What its response says: one permit must be there.
    Later,
}

impl Cost {
    fn wanted(self) -> u64 {
        match self {
            Self::Now(cost) => cost,
            Self::Later => 1,
        }
    }
}

/// Until all is there again.
fn reset(terms: &Terms, left: u64, now: Now) -> u64 {
    match terms.store {
        StoreRule::Paced { interval, burst, .. } => burst.saturating_sub(left).saturating_mul(interval),
        StoreRule::Counted { .. } => terms.end.saturating_sub(now.unix),
    }
}

fn refused(terms: &Terms, now: Now, wait: u64, left: u64) -> Leased {
    let wait = match terms.store {
        StoreRule::Paced { .. } => wait,
        StoreRule::Counted { .. } => terms.end.saturating_sub(now.unix),
    };
    Leased::Refused(Refused { wait, left, reset: reset(terms, left, now) })
}

impl Attend for Leases {
    fn tidy(&self) -> Vec<Ask> {
        let at = steady(Instant::now());
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos);
        let now = Now { steady: at, unix };
        let mut asks = Vec::new();
        self.table.retain(|lease| {
            if lease.used_at.saturating_add(lease.hold) < at && !lease.is_asking {
                lease.settle(at, 0, lease.hold);
                let has_more = lease.back + lease.debt > 0 || lease.journal.is_some();
                if let (Some(rule), Some(name), true) = (lease.rule, &lease.name, has_more) {
                    let key = format!("{}{name}", self.name);
                    let (back, debt) = (std::mem::take(&mut lease.back), std::mem::take(&mut lease.debt));
                    let is_last = lease.segments.is_empty();
                    if is_last {
                        (lease.journal, lease.used) = (None, 0);
                    }
                    let (back_part, done) = (lease.back_part, Box::new(|_| ()));
                    asks.push(Ask { key, rule, want: 0, back, back_part, debt, is_last, done });
                }
            }
            !lease.is_over(now)
        });
        asks
    }
}
