//! Judging endpoints by what they do beside their peers, and what follows from it.
//!
//! A request that ends well costs its counters and one comparison. A failure that reaches a threshold looks at the peers
//! (at most [`PEERS`] of them); only when that leads to a change, a lock is taken. What depends on time happens in
//! [`Endpoints::tick`].

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::departed::Departed;
use crate::endpoint::{Endpoint, InFlight};
use crate::evidence::{RECENT, Reading};
use crate::health::{Outcome, Outlier};
use crate::levels;
use crate::load::{Nanos, duration_ns};
use crate::quota::Quota;
use crate::set::{EndpointSet, Endpoints};
use crate::story::{Check, Gate, PARTS, Phase, Why};

/// Failures that peers would show only once in so many requests are evidence.
pub const CHANCE: f64 = 100_000.0;

/// Peers that an endpoint is compared with.
pub const PEERS: usize = 64;

/// Requests that peers must have had lately to be a measure: at first nobody knows whether all fail alike.
pub const PEER_REQUESTS: u32 = 3;

/// Peers that fail at least this share of their requests fail alike: then nobody is out for failing.
pub const ALIKE: f64 = 0.5;

/// The share of failures that nobody is blamed for, whatever peers do.
pub const USUAL_FAILURES: f64 = 0.001;

/// Changes that are remembered until somebody asks for them.
pub const EVENTS_LIMIT: usize = 256;

/// How often [`Endpoints::tick`] is to be called: shares that grow do so in these steps.
pub const TICK: Duration = Duration::from_millis(100);

/// The weight of a new part of the window in the usual share of failures.
const BASELINE_GAIN: f64 = 0.2;

/// What all revisions of a backend's endpoints share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    judge: Mutex<Judge>,
    /// The share of requests that usable endpoints fail. **Unit**: millionths.
    baseline: AtomicU32,
    is_panicking: AtomicBool,
    ejections: [AtomicU64; Why::KINDS.len()],
    spared: AtomicU64,
    panics: AtomicU64,
    pub(crate) requests: Arc<Quota>,
    departed: Mutex<Departed>,
}

/// Held by whoever changes the state of endpoints.
#[derive(Debug, Default)]
struct Judge {
    /// When the part of the window ends.
    next_part: Nanos,
    events: VecDeque<Event>,
}

/// A change that somebody may want to know.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub at: Nanos,
    /// Whose.
    pub endpoint: Arc<Endpoint>,
    /// What it is now.
    pub phase: Phase,
    /// Why; nothing when time brought it.
    pub why: Option<Why>,
}

/// Counters of a backend's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Ejections by [`Why::KINDS`].
    pub ejections: [u64; Why::KINDS.len()],
    /// Endpoints that would have been put out if not too many had been already.
    pub spared: u64,
    /// Times that too few were usable, so that all were used.
    pub panics: u64,
    /// True while that is so.
    pub is_panicking: bool,
    /// Requests under way, where they are limited.
    pub requests: u32,
    /// Requests that were refused because of the limit.
    pub refused: u64,
}

/// What is to be known about one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Where it is on its way.
    pub phase: Phase,
    /// Since when.
    pub since: Nanos,
    /// When that ends by itself, if it does.
    pub until: Option<Nanos>,
    /// The share of its weight that it gets, from 0 to 1.
    pub share: f64,
    /// What put it out last, and when.
    pub why: Option<(Why, Nanos)>,
    /// How often.
    pub ejections: u64,
    /// How often in a row it came back too early.
    pub relapses: u32,
    /// Requests that tried it with success, of those that are needed.
    pub probes: (u8, u8),
    /// Until when it gets less because it asked for less.
    pub throttled_until: Option<Nanos>,
    /// What active checks say, and since when; `None` without checks.
    pub check: Option<(Check, Nanos)>,
    /// Successes and failures within the window.
    pub window: (u32, u32),
}

impl Endpoints {
    /// The end of a request: counts it, and draws the consequences. `latency` is the time from sending it to the head of
    /// its answer, or to the failure.
    #[inline]
    pub fn finish(&self, mut load: InFlight, latency: Duration, outcome: Outcome, now: Nanos) {
        self.note(&mut load, latency, outcome, now);
    }

    /// The same for what goes on, such as a connection that was made: it stays counted as under way.
    #[inline]
    pub fn note(&self, load: &mut InFlight, latency: Duration, outcome: Outcome, now: Nanos) {
        let reading = load.count(latency, outcome, now);
        if load.is_probe() {
            self.tried(load.endpoint(), latency, outcome, now);
            load.end_probe();
            return;
        }
        match (reading, &self.settings.outlier) {
            (None, _) => self.throttled(load.endpoint(), outcome, now),
            (Some(reading), Some(limits)) if reading.is_suspicious(limits) => {
                self.suspect(load.endpoint(), reading, limits, outcome, now);
            }
            _ => {}
        }
    }

    #[cold]
    fn throttled(&self, endpoint: &Arc<Endpoint>, outcome: Outcome, now: Nanos) {
        let Outcome::Throttled(wanted) = outcome else { return };
        if self.settings.outlier.is_none() || self.load().members().len() < 2 {
            return;
        }
        let mut story = endpoint.story();
        if story.throttle(wanted, now) && !self.shared.is_panicking.load(Relaxed) {
            endpoint.set_gate(story.gate(&self.settings, now));
        }
    }

    /// A request that tried the endpoint has ended.
    #[cold]
    fn tried(&self, endpoint: &Arc<Endpoint>, latency: Duration, outcome: Outcome, now: Nanos) {
        let Some(limits) = &self.settings.outlier else { return };
        let mut judge = self.shared.judge();
        let set = self.load();
        let phase = {
            let mut story = endpoint.story();
            if story.phase != Phase::Probing {
                return;
            }
            match outcome {
                // An answer that is one, at least.
                Outcome::Success | Outcome::Throttled(_) => {
                    if !story.pass(limits, now) {
                        return;
                    }
                    story.window.clear();
                    // How long it took to fail says nothing about how long it takes.
                    endpoint.set_latency(latency, now);
                    Phase::Ramping
                }
                _ => {
                    story.eject(Why::ProbeFailed, endpoint.identity(), endpoint.succeeded(), limits, now);
                    Phase::Ejected
                }
            }
        };
        endpoint.evidence().clear();
        let why = (phase == Phase::Ejected).then_some(Why::ProbeFailed);
        if let Some(why) = why {
            self.shared.count(why);
        }
        judge.tell(Event { at: now, endpoint: Arc::clone(endpoint), phase, why });
        self.refresh(&set, now);
    }

    /// A threshold is reached: is it worse than its peers?
    #[cold]
    fn suspect(
        &self,
        endpoint: &Arc<Endpoint>,
        reading: Reading,
        limits: &Outlier,
        outcome: Outcome,
        now: Nanos,
    ) {
        // A success after failures changes nothing for the worse.
        if outcome == Outcome::Success || !endpoint.is_eligible() {
            return;
        }
        let set = self.load();
        let baseline = f64::from(self.shared.baseline.load(Relaxed)) / 1e6;
        let peers = |depth| peers(&set, endpoint, depth);
        let Some(why) = verdict(reading, peers, baseline, limits) else { return };
        self.eject(&mut self.shared.judge(), &set, endpoint, why, limits, now);
    }

    fn eject(
        &self,
        judge: &mut Judge,
        set: &Arc<EndpointSet>,
        endpoint: &Arc<Endpoint>,
        why: Why,
        limits: &Outlier,
        now: Nanos,
    ) {
        let members = set.members();
        if !members.iter().any(|member| Arc::ptr_eq(member.endpoint(), endpoint)) {
            return;
        }
        let out = members.iter().filter(|member| member.endpoint().story().phase.is_out()).count();
        let is_allowed = out < allowed_out(members.len(), limits);
        // From here on it is judged for what it does then.
        endpoint.evidence().clear();
        {
            let mut story = endpoint.story();
            if story.phase.is_out() {
                return;
            }
            story.window.clear();
            if !is_allowed {
                self.shared.spared.fetch_add(1, Relaxed);
                drop(story);
                return self.make_room(judge, set, now);
            }
            story.eject(why, endpoint.identity(), endpoint.succeeded(), limits, now);
        }
        self.shared.count(why);
        judge.tell(Event { at: now, endpoint: Arc::clone(endpoint), phase: Phase::Ejected, why: Some(why) });
        self.refresh(set, now);
    }

    /// Somebody has to go and too many are out: the one that has waited longest is tried now. If it is well there is room
    /// for the next evidence; if not, nothing is lost but one request that may be sent elsewhere.
    fn make_room(&self, judge: &mut Judge, set: &Arc<EndpointSet>, now: Nanos) {
        let ejected = set.members().iter().filter_map(|member| {
            let story = member.endpoint().story();
            (story.phase == Phase::Ejected).then_some((story.since, member.endpoint()))
        });
        let mut ejected: Vec<(Nanos, &Arc<Endpoint>)> = ejected.collect();
        ejected.sort_by_key(|(since, _)| *since);
        let Some((_, endpoint)) =
            ejected.into_iter().find(|(_, endpoint)| endpoint.story().try_early(&self.settings, now))
        else {
            return;
        };
        judge.tell(Event { at: now, endpoint: Arc::clone(endpoint), phase: Phase::Probing, why: None });
        self.refresh(set, now);
    }

    /// What an active check of an endpoint has come to.
    pub fn checked(&self, endpoint: &Arc<Endpoint>, check: Check, now: Nanos) {
        let _judge = self.shared.judge();
        {
            let mut story = endpoint.story();
            if check == Check::Passing {
                story.passed_at = Some(now);
            }
            if story.check == check {
                return;
            }
            // Another reason for failing is not another answer.
            if std::mem::discriminant(&story.check) != std::mem::discriminant(&check) {
                story.check_since = now;
            }
            story.check = check;
        }
        self.refresh(&self.load(), now);
    }

    /// Time passes: the window is judged, those that are out are tried, shares grow. Call it every [`TICK`].
    pub fn tick(&self, now: Nanos) {
        let mut judge = self.shared.judge();
        let set = self.load();
        self.part(&set, now);
        self.welcome(&set, now);
        let mut changed = false;
        for member in set.members() {
            let endpoint = member.endpoint();
            if endpoint.gate() == Gate::OPEN && !self.shared.is_panicking.load(Relaxed) {
                continue;
            }
            changed = true;
            let mut story = endpoint.story();
            let before = story.phase;
            story.advance(&self.settings, endpoint.succeeded(), member.drawn() > 0, now);
            if story.phase != before {
                let endpoint = Arc::clone(endpoint);
                judge.tell(Event { at: now, endpoint, phase: story.phase, why: None });
            }
        }
        if let Some(limits) = &self.settings.outlier
            && judge.next_part <= now
        {
            let part = u64::try_from(PARTS).unwrap_or(1);
            judge.next_part = Nanos(now.0 + duration_ns(limits.window) / part);
            self.judge_window(&mut judge, &set, limits, now);
        }
        if changed || set.is_tiered(self.settings.zone.as_deref()) {
            self.refresh(&set, now);
        }
    }

    /// True when time alone changes nothing: nobody is out, is tried or warms up, and nothing waits to be judged.
    pub fn is_at_rest(&self) -> bool {
        let set = self.load();
        let rests = |endpoint: &Endpoint| {
            let is_judged = self.settings.outlier.is_none()
                || endpoint.story().window.is_empty(endpoint.succeeded(), endpoint.failed());
            endpoint.gate() == Gate::OPEN && !endpoint.is_unknown() && is_judged
        };
        !self.shared.is_panicking.load(Relaxed) && set.members().iter().all(|member| rests(member.endpoint()))
    }

    fn judge_window(&self, judge: &mut Judge, set: &Arc<EndpointSet>, limits: &Outlier, now: Nanos) {
        let sums: Vec<(u32, u32)> = set
            .members()
            .iter()
            .map(|member| {
                let endpoint = member.endpoint();
                let mut story = endpoint.story();
                story.window.turn(endpoint.succeeded(), endpoint.failed());
                let (good, bad) = story.window.sum();
                if good == 0 && bad == 0 && !story.phase.is_out() {
                    // Nothing for a whole window: what was before says little about what is.
                    endpoint.evidence().clear();
                }
                (good, bad)
            })
            .collect();
        let total = sums.iter().fold((0u64, 0u64), |t, s| (t.0 + u64::from(s.0), t.1 + u64::from(s.1)));
        if total.0 + total.1 > 0 {
            let rate = total.1 as f64 / (total.0 + total.1) as f64;
            let before = f64::from(self.shared.baseline.load(Relaxed)) / 1e6;
            let next = before + (rate - before) * BASELINE_GAIN;
            self.shared.baseline.store((next * 1e6) as u32, Relaxed);
        }
        let least = least_success_rate(&sums, limits);
        for (member, &(good, bad)) in set.members().iter().zip(&sums) {
            let of = good.saturating_add(bad);
            if of < limits.min_requests || bad == 0 || !member.endpoint().is_eligible() {
                continue;
            }
            let share = f64::from(bad) / f64::from(of);
            let peers = (total.0 - u64::from(good), total.1 - u64::from(bad));
            let peers = peers.1 as f64 / (peers.0 + peers.1).max(1) as f64;
            let is_much = limits.failure_percent > 0 && share * 100.0 >= f64::from(limits.failure_percent);
            let why = if is_much && peers < share * ALIKE {
                Some(Why::Percentage { failures: bad, of })
            } else {
                let rate = 1.0 - share;
                least.filter(|least| rate < *least).map(|least| Why::SuccessRate {
                    rate: (rate * 100.0) as f32,
                    least: (least * 100.0) as f32,
                })
            };
            if let Some(why) = why {
                self.eject(judge, set, member.endpoint(), why, limits, now);
            }
        }
    }

    /// The set is another one.
    pub(crate) fn settle(&self, now: Nanos) {
        let _judge = self.shared.judge();
        let set = self.load();
        self.welcome(&set, now);
        self.refresh(&set, now);
    }

    /// Endpoints that have come, and limits that a changed set no longer keeps.
    fn welcome(&self, set: &EndpointSet, now: Nanos) {
        let members = set.members();
        let is_new = |member: &&crate::set::Member| member.endpoint().is_unknown();
        let new = members.iter().filter(is_new).count();
        if new > 0 {
            // Beside others only: if all are new, all are asked alike.
            let warms = new < members.len() && !self.settings.slow_start.is_zero();
            for member in members.iter().filter(is_new) {
                let endpoint = member.endpoint();
                endpoint.know();
                let mut story = endpoint.story();
                if warms {
                    story.warm(self.settings.slow_start, now);
                }
                endpoint.set_gate(story.gate(&self.settings, now));
            }
        }
        self.keep_share(set, now);
    }

    /// Those that are out may have become too many, because others have gone: the nearest to coming back do so.
    fn keep_share(&self, set: &EndpointSet, now: Nanos) {
        let Some(limits) = &self.settings.outlier else { return };
        let shut = |member: &&crate::set::Member| !member.endpoint().is_eligible();
        let allowed = allowed_out(set.members().len(), limits);
        if set.members().iter().filter(shut).count() <= allowed {
            return;
        }
        let mut out: Vec<(u32, Nanos, &Arc<Endpoint>)> = set
            .members()
            .iter()
            .filter_map(|member| {
                let story = member.endpoint().story();
                story.phase.is_out().then(|| (story.relapses, story.until, member.endpoint()))
            })
            .collect();
        let Some(excess) = out.len().checked_sub(allowed) else { return };
        out.sort_by_key(|(relapses, until, _)| (*relapses, *until));
        for (_, _, endpoint) in out.into_iter().take(excess) {
            let mut story = endpoint.story();
            story.readmit(limits, now);
            endpoint.evidence().clear();
            endpoint.set_gate(story.gate(&self.settings, now));
        }
    }

    /// Brings the gates in line with the stories, and the weights with who is usable.
    fn refresh(&self, set: &Arc<EndpointSet>, now: Nanos) {
        let was_panicking = self.shared.is_panicking.load(Relaxed);
        let (mut usable, mut total) = (0u64, 0u64);
        let mut gates = Vec::with_capacity(set.members().len());
        for member in set.members() {
            let weight = u64::from(member.weight());
            let endpoint = member.endpoint();
            let story = endpoint.story();
            let (gate, is_usable) = (story.gate(&self.settings, now), story.is_usable(&self.settings));
            total += weight;
            usable += if is_usable { weight } else { 0 };
            // In need all are used, but who can show that it is well again does so first.
            let in_need = if story.phase == Phase::Probing { Gate::PROBE_ANY } else { Gate::OPEN };
            gates.push((gate, in_need, is_usable));
        }
        let panics = usable * 100 < u64::from(self.settings.panic_percent) * total;
        if panics && !was_panicking {
            self.shared.panics.fetch_add(1, Relaxed);
        }
        self.shared.is_panicking.store(panics, Relaxed);
        for (member, (usual, in_need, _)) in set.members().iter().zip(&gates) {
            let gate = if panics { *in_need } else { *usual };
            if member.endpoint().gate() != gate {
                member.endpoint().set_gate(gate);
            }
        }
        let zone = self.settings.zone.as_deref();
        if set.is_tiered(zone) {
            let is_usable =
                |index: usize, _: &_| panics || gates.get(index).is_some_and(|(.., usable)| *usable);
            let weights = levels::weights(set.members(), zone, is_usable);
            self.reweigh(set, &weights);
        }
    }

    /// Changes since the last call, oldest first; at most [`EVENTS_LIMIT`].
    pub fn take_events(&self) -> Vec<Event> {
        self.shared.judge().events.drain(..).collect()
    }

    /// Counters.
    pub fn tally(&self) -> Tally {
        let shared = &self.shared;
        let mut tally = Tally {
            spared: shared.spared.load(Relaxed),
            panics: shared.panics.load(Relaxed),
            is_panicking: shared.is_panicking.load(Relaxed),
            requests: shared.requests.used(),
            refused: shared.requests.refused(),
            ..Tally::default()
        };
        for (to, from) in tally.ejections.iter_mut().zip(&shared.ejections) {
            *to = from.load(Relaxed);
        }
        tally
    }

    /// What is to be known about an endpoint.
    pub fn state(&self, endpoint: &Endpoint) -> State {
        let story = endpoint.story();
        let needed = self.settings.outlier.as_ref().map_or(0, |limits| limits.probes);
        State {
            phase: story.phase,
            since: story.since,
            until: Some(story.until).filter(|until| *until != Nanos(u64::MAX)),
            share: endpoint.gate().as_share(),
            why: story.why,
            ejections: story.ejections,
            relapses: story.relapses,
            probes: (story.passed, needed),
            throttled_until: story.throttle.map(|throttle| throttle.until),
            check: self.settings.is_checked.then(|| (story.check.clone(), story.check_since)),
            window: story.window.sum(),
        }
    }
}

impl Shared {
    pub(crate) fn departed(&self) -> MutexGuard<'_, Departed> {
        self.departed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, why: Why) {
        if let Some(count) = self.ejections.get(why.kind()) {
            count.fetch_add(1, Relaxed);
        }
    }
}

impl Judge {
    fn tell(&mut self, event: Event) {
        if self.events.len() == EVENTS_LIMIT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

/// Endpoints that may be out at a time.
fn allowed_out(len: usize, limits: &Outlier) -> usize {
    if limits.max_ejected_percent == 0 {
        return 0;
    }
    (len * usize::from(limits.max_ejected_percent) / 100).max(1).min(len.saturating_sub(1))
}

/// The share of their last `depth` requests that the peers of an endpoint failed: of all when they are few, else of some
/// that stand for all. Those that are out are no measure, and neither are fewer than [`PEER_REQUESTS`] requests.
fn peers(set: &EndpointSet, endpoint: &Arc<Endpoint>, depth: u32) -> Option<f64> {
    let members = set.members();
    let step = members.len().div_ceil(PEERS).max(1);
    // Each has other peers where not all are looked at.
    let start = (endpoint.identity() % step as u64) as usize;
    let (failures, of) = members
        .iter()
        .skip(start)
        .step_by(step)
        .map(|member| member.endpoint())
        .filter(|peer| !Arc::ptr_eq(peer, endpoint) && peer.is_eligible())
        .map(|peer| peer.evidence().read().last(depth))
        .fold((0, 0), |sum, (failures, of)| (sum.0 + failures, sum.1 + of));
    (of >= PEER_REQUESTS).then(|| f64::from(failures) / f64::from(of))
}

/// Whether what an endpoint did last puts it out. `peers` tells what others did in as many requests: who is compared
/// with what others did long before is to blame for what has just begun to happen to all.
fn verdict(
    reading: Reading,
    peers: impl Fn(u32) -> Option<f64>,
    baseline: f64,
    limits: &Outlier,
) -> Option<Why> {
    let reaches = |limit: u8, run: u32| {
        // What all fail is nobody's fault: with fewer endpoints it would only be worse.
        limit > 0 && run >= u32::from(limit) && peers(run).is_some_and(|peers| peers < ALIKE)
    };
    let (any, gateway, local) =
        (reading.failures_in_a_row(), reading.gateway_in_a_row(), reading.local_in_a_row());
    if reaches(limits.consecutive_local_failures, local) {
        return Some(Why::ConsecutiveLocal(local));
    }
    if reaches(limits.consecutive_gateway_failures, gateway) {
        return Some(Why::ConsecutiveGateway(gateway));
    }
    if reaches(limits.consecutive_5xx, any) {
        return Some(Why::Consecutive5xx(any));
    }
    let (failures, of) = reading.recent();
    if limits.recent_failures == 0 || failures < u32::from(limits.recent_failures) {
        return None;
    }
    let usual = peers(RECENT)?.max(baseline).max(USUAL_FAILURES);
    let is_evidence = at_least(failures, of, usual) < 1.0 / CHANCE;
    is_evidence.then_some(Why::Recent { failures, of, peers: (usual * 100.0) as f32 })
}

/// The chance that at least `k` of `n` fail when each fails with `p`: a binomial tail, `n` at most [`RECENT`].
fn at_least(k: u32, n: u32, p: f64) -> f64 {
    let n = n.min(RECENT);
    let mut choose = 1.0;
    let mut sum = 0.0;
    for i in 0..=n {
        if i > 0 {
            choose *= f64::from(n - i + 1) / f64::from(i);
        }
        if i >= k {
            let fail = i32::try_from(i).unwrap_or(0);
            let pass = i32::try_from(n - i).unwrap_or(0);
            sum += choose * p.powi(fail) * (1.0 - p).powi(pass);
        }
    }
    sum
}

/// The success rate below which an endpoint is out: so many standard deviations below the mean of those with enough
/// requests; `None` when they are too few.
fn least_success_rate(sums: &[(u32, u32)], limits: &Outlier) -> Option<f64> {
    if limits.success_rate_factor == 0 {
        return None;
    }
    let rates: Vec<f64> = sums
        .iter()
        .filter(|(good, bad)| good.saturating_add(*bad) >= limits.min_requests.max(1))
        .map(|(good, bad)| f64::from(*good) / (f64::from(*good) + f64::from(*bad)))
        .collect();
    if rates.len() < usize::try_from(limits.min_endpoints).unwrap_or(usize::MAX).max(2) {
        return None;
    }
    let count = rates.len() as f64;
    let mean = rates.iter().sum::<f64>() / count;
    let spread = (rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count).sqrt();
    let least = mean - spread * f64::from(limits.success_rate_factor) / 1000.0;
    // Endpoints that all do nearly as well differ by chance.
    Some(least.min(mean - NEARLY_AS_WELL))
}

/// Success rates that differ by less are the same.
const NEARLY_AS_WELL: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_are_those_of_coins() {
        for (k, n, p, chance) in
            [(0, 10, 0.5, 1.0), (10, 10, 0.5, 1.0 / 1024.0), (3, 3, 0.1, 0.001), (1, 2, 0.5, 0.75)]
        {
            assert!((at_least(k, n, p) - chance).abs() < 1e-12, "{k} of {n}");
        }
    }

    #[test]
    fn at_most_half_and_never_all_may_be_out() {
        let limits = |percent| Outlier { max_ejected_percent: percent, ..Outlier::default() };
        for (len, percent, allowed) in
            [(0, 50, 0), (1, 50, 0), (2, 50, 1), (3, 50, 1), (4, 50, 2), (3, 10, 1), (3, 100, 2), (10, 0, 0)]
        {
            assert_eq!(allowed_out(len, &limits(percent)), allowed, "{percent} % of {len}");
        }
    }

    #[test]
    fn one_that_is_far_below_the_others_is_below_the_least() {
        let limits = Outlier::default();
        let good = (100, 0);
        let least = least_success_rate(&[good, good, good, good, good, (80, 20)], &limits).unwrap();
        assert!(0.8 < least && least < 0.95, "{least}");
        assert_eq!(least_success_rate(&[good, good, good], &limits), None);
        let least = least_success_rate(&[good, good, good, good, (99, 1)], &limits).unwrap();
        assert!(least < 0.96, "{least}");
    }
}
