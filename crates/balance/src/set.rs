//! The endpoints of one backend: an immutable set, the cell in which sets are swapped, and a worker's view of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use rhumb_base::rng::Rng;

use crate::algorithm::{Algorithm, Chooser};
use crate::endpoint::{Endpoint, EndpointSpec, InFlight};
use crate::health::Settings;
use crate::judge::Shared;
use crate::levels;
use crate::load::Nanos;
use crate::quota::Taken;
use crate::sample::Sampler;

/// Most endpoints of a backend; what a source gives beyond is left out and counted ([`EndpointSet::omitted`]).
pub const ENDPOINTS_LIMIT: usize = 16_384;

/// Endpoints that one choice leaves out at most.
pub const EXCLUDED_MAX: usize = 16;

/// The endpoints of one backend at one time.
#[derive(Debug)]
pub struct EndpointSet {
    members: Box<[Member]>,
    sampler: Sampler,
    chooser: Chooser,
    omitted: usize,
    /// Places by identity; made when a session asks for the first time.
    by_identity: OnceLock<HashMap<u64, u32>>,
}

/// An endpoint with what this set says about it.
#[derive(Debug)]
pub struct Member {
    endpoint: Arc<Endpoint>,
    weight: u32,
    /// The weight by which it is drawn: levels give theirs to each other.
    drawn: u32,
    priority: u32,
    /// Mean weight of the set divided by this one.
    mean_over_weight: f32,
    zone: Option<Arc<str>>,
}

impl Member {
    /// The endpoint.
    #[inline]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Its share of requests relative to the others.
    #[inline]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// The weight by which it is drawn: that of its share of its level ([`crate::levels`]).
    #[inline]
    pub(crate) fn drawn(&self) -> u32 {
        self.drawn
    }

    /// Its level.
    pub fn priority(&self) -> u32 {
        self.priority
    }

    /// Where it runs.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    #[inline]
    pub(crate) fn mean_over_weight(&self) -> f64 {
        f64::from(self.mean_over_weight)
    }
}

/// What a choice depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pick<'a> {
    /// Hash of the request's key ([`crate::hash::key`]) for ring hash and maglev; without one they choose at random.
    pub key: Option<u64>,
    /// The time.
    pub now: Nanos,
    /// Indices that must not be chosen: endpoints that were tried already.
    pub excluded: &'a [u32],
    /// True for a request that may be repeated, so that it may try an endpoint that is out.
    pub may_probe: bool,
}

/// An endpoint that was chosen.
#[derive(Clone, Copy, Debug)]
pub struct Picked<'s> {
    /// Its index in the set, for [`Pick::excluded`].
    pub index: u32,
    /// The endpoint.
    pub endpoint: &'s Arc<Endpoint>,
    /// True when the request tries an endpoint that is out: nobody else does until [`Picked::start`] and its end.
    pub is_probe: bool,
}

impl Picked<'_> {
    /// Counts the request in, until the guard is finished or dropped.
    #[inline]
    pub fn start(self) -> InFlight {
        let load = self.endpoint.start();
        if self.is_probe { load.probe() } else { load }
    }
}

impl EndpointSet {
    /// A set without endpoints.
    pub fn empty(algorithm: Algorithm) -> Self {
        Self::build(Vec::new(), algorithm, None, &[], Nanos(0))
    }

    /// A set of endpoints that nothing is known about.
    pub fn new(specs: Vec<EndpointSpec>, algorithm: Algorithm) -> Self {
        Self::build(specs, algorithm, None, &[], Nanos(0))
    }

    /// The set that follows this one. Endpoints that stay keep what is known about them; others begin with the mean
    /// latency of this set, so that they are neither flooded nor avoided. Of several specs with one identity the first
    /// counts, with the sum of their weights.
    pub fn next(&self, specs: Vec<EndpointSpec>, algorithm: Algorithm, now: Nanos) -> Self {
        Self::build(specs, algorithm, Some(self), &[], now)
    }

    fn build(
        specs: Vec<EndpointSpec>,
        algorithm: Algorithm,
        before: Option<&Self>,
        departed: &[Arc<Endpoint>],
        now: Nanos,
    ) -> Self {
        let members = before.iter().flat_map(|set| &set.members).map(|member| &member.endpoint);
        let mean = mean_latency(members.clone().filter_map(|endpoint| endpoint.latency_ns(now)));
        let known: HashMap<_, _> =
            departed.iter().chain(members).map(|endpoint| (key(endpoint), endpoint)).collect();
        let (specs, omitted) = distinct(specs);
        let total: u64 = specs.iter().map(|spec| u64::from(spec.weight)).sum();
        let weighted = specs.iter().filter(|spec| spec.weight > 0).count();
        let mean_weight = total as f64 / weighted.max(1) as f64;
        let mut members: Box<[Member]> = specs
            .into_iter()
            .map(|spec| {
                // One that is reached in another way is another one: nothing goes on to be sent to it in plain text.
                let endpoint = match known.get(&(spec.address, spec.hostname.as_deref(), spec.tunnel)) {
                    Some(endpoint) => Arc::clone(endpoint),
                    None => Arc::new(Endpoint::new(&spec, mean, now)),
                };
                let mean_over_weight = (mean_weight / f64::from(spec.weight.max(1))) as f32;
                Member {
                    endpoint,
                    weight: spec.weight,
                    drawn: spec.weight,
                    priority: spec.priority,
                    mean_over_weight,
                    zone: spec.zone,
                }
            })
            .collect();
        // Until it is known who is usable, all are; and which zone is ours, none.
        let drawn = levels::weights(&members, None, |_, _| true);
        for (member, drawn) in members.iter_mut().zip(drawn) {
            member.drawn = drawn;
        }
        Self::of(members, algorithm, omitted, before)
    }

    fn of(members: Box<[Member]>, algorithm: Algorithm, omitted: usize, before: Option<&Self>) -> Self {
        let weights: Vec<_> = members.iter().map(Member::drawn).collect();
        let chooser = Chooser::new(algorithm, &members, before.map(|set| &set.chooser));
        Self { sampler: Sampler::new(&weights), chooser, omitted, members, by_identity: OnceLock::new() }
    }

    /// The same endpoints, drawn by other weights.
    fn redrawn(&self, weights: &[u32]) -> Self {
        let members = self.members.iter().zip(weights).map(|(member, &drawn)| Member {
            endpoint: Arc::clone(&member.endpoint),
            zone: member.zone.clone(),
            drawn,
            ..*member
        });
        Self::of(members.collect(), self.algorithm(), self.omitted, Some(self))
    }

    /// True when not all are asked alike.
    pub(crate) fn is_tiered(&self, zone: Option<&str>) -> bool {
        let first = self.members.first().map_or(0, Member::priority);
        self.members.iter().any(|member| {
            member.priority != first || zone.is_some() && member.zone.is_some() && member.zone() != zone
        })
    }

    /// Chooses an endpoint that has weight, is eligible and not excluded; `None` when there is none. A caller that
    /// excluded some may ask again without.
    #[inline]
    pub fn pick(&self, ask: Pick<'_>, rng: &mut Rng) -> Option<Picked<'_>> {
        let (index, is_probe) = self.chooser.pick(&self.members, &self.sampler, ask, rng)?;
        let member = self.members.get(index as usize)?;
        Some(Picked { index, endpoint: &member.endpoint, is_probe })
    }

    /// The endpoint with this identity ([`Endpoint::identity`]).
    pub fn find(&self, identity: u64) -> Option<&Arc<Endpoint>> {
        let by_identity = self.by_identity.get_or_init(|| {
            let places = (0u32..).zip(&self.members).map(|(at, member)| (member.endpoint.identity(), at));
            places.collect()
        });
        let at = *by_identity.get(&identity)?;
        self.members.get(at as usize).map(Member::endpoint)
    }

    /// The index of an endpoint.
    fn place(&self, endpoint: &Arc<Endpoint>) -> Option<u32> {
        let at = self.members.iter().position(|member| Arc::ptr_eq(&member.endpoint, endpoint))?;
        u32::try_from(at).ok()
    }

    /// The endpoints, in the order of their source.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How endpoints are chosen.
    pub fn algorithm(&self) -> Algorithm {
        self.chooser.algorithm()
    }

    /// Endpoints that the source gave beyond [`ENDPOINTS_LIMIT`].
    pub fn omitted(&self) -> usize {
        self.omitted
    }
}

fn key(endpoint: &Endpoint) -> (SocketAddr, Option<&str>, u16) {
    (endpoint.address(), endpoint.hostname().map(|name| &**name), endpoint.tunnel())
}

fn mean_latency(latencies: impl Iterator<Item = u64>) -> Option<u64> {
    let (mut sum, mut count) = (0u128, 0u128);
    for latency in latencies {
        sum += u128::from(latency);
        count += 1;
    }
    sum.checked_div(count).and_then(|mean| u64::try_from(mean).ok())
}

fn distinct(specs: Vec<EndpointSpec>) -> (Vec<EndpointSpec>, usize) {
    let mut places: HashMap<(SocketAddr, Option<Arc<str>>), usize> = HashMap::with_capacity(specs.len());
    let mut kept: Vec<EndpointSpec> = Vec::with_capacity(specs.len());
    let mut omitted = 0;
    for spec in specs {
        let place = places.get(&(spec.address, spec.hostname.clone())).copied();
        if let Some(first) = place.and_then(|place| kept.get_mut(place)) {
            first.weight = first.weight.saturating_add(spec.weight);
        } else if kept.len() < ENDPOINTS_LIMIT {
            places.insert((spec.address, spec.hostname.clone()), kept.len());
            kept.push(spec);
        } else {
            omitted += 1;
        }
    }
    (kept, omitted)
}

/// What a request asks a backend for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// As [`Pick::key`].
    pub key: Option<u64>,
    /// The time.
    pub now: Nanos,
    /// As [`Pick::may_probe`].
    pub may_probe: bool,
    /// Endpoints that failed this request, the latest last: left out while there are others.
    pub tried: &'a [Arc<Endpoint>],
}

/// Why no endpoint was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotPicked {
    /// There is none that may be.
    NoEndpoint,
    /// The backend has as many requests as it may have ([`Settings::max_requests`]).
    Limit,
}

/// The cell that holds a backend's set. Sources of endpoints publish, workers read through a [`Reader`]. What happens to
/// the health of endpoints is in [`crate::judge`].
#[derive(Debug)]
pub struct Endpoints {
    current: ArcSwap<EndpointSet>,
    generation: AtomicU64,
    pub(crate) settings: Settings,
    pub(crate) shared: Arc<Shared>,
    /// Those that the revision before had and this one has not, until the first tick.
    departing: Mutex<Vec<Arc<Endpoint>>>,
}

impl Endpoints {
    /// A cell with a first set.
    pub fn new(set: EndpointSet) -> Self {
        Self::with(set, Settings::default(), None)
    }

    /// A cell with settings of health, that goes on with what is known about the backend before. Nothing that `before`
    /// uses is changed until the first [`Endpoints::tick`].
    pub fn with(set: EndpointSet, settings: Settings, before: Option<&Self>) -> Self {
        let before_set = before.map(Self::load);
        let members = before_set.iter().flat_map(|set| set.members());
        Self {
            departing: Mutex::new(members.map(|member| Arc::clone(member.endpoint())).collect()),
            current: ArcSwap::from_pointee(set),
            generation: AtomicU64::new(0),
            settings,
            shared: before.map_or_else(Arc::default, |before| Arc::clone(&before.shared)),
        }
    }

    /// The settings of health.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The set as it is.
    pub fn load(&self) -> Arc<EndpointSet> {
        self.current.load_full()
    }

    /// Chooses from the set as it is ([`EndpointSet::pick`]), and counts the request in. Those in `tried` are left out,
    /// the latest [`EXCLUDED_MAX`] of them; when there is no other, all but the last, and then that one: better one that
    /// failed once than none.
    ///
    /// # Errors
    /// When there is no endpoint, or no room for the request.
    #[inline]
    pub fn begin(&self, ask: Ask<'_>, rng: &mut Rng) -> Result<InFlight, NotPicked> {
        let set = self.current.load();
        let Ask { key, now, may_probe, tried } = ask;
        let quota = self.take()?;
        let mut places = [u32::MAX; EXCLUDED_MAX];
        let mut count = 0;
        if !tried.is_empty() {
            let latest = tried.iter().rev().filter_map(|tried| set.place(tried));
            for (slot, place) in places.iter_mut().zip(latest) {
                *slot = place;
                count += 1;
            }
        }
        // What has failed already does not try out anything.
        let may_probe = may_probe && tried.is_empty();
        let mut excluded = places.get(..count).unwrap_or_default();
        loop {
            if let Some(picked) = set.pick(Pick { key, now, excluded, may_probe }, rng) {
                let mut load = picked.start();
                load.quota = quota;
                return Ok(load);
            }
            // All, then the last one only, then none.
            excluded = match excluded {
                [] => return Err(NotPicked::NoEndpoint),
                [last, _, ..] => std::slice::from_ref(last),
                [_] => &[],
            };
        }
    }

    /// Counts a request in at an endpoint that was chosen for it before.
    ///
    /// # Errors
    /// When there is no room for the request.
    pub fn begin_again(&self, endpoint: &Arc<Endpoint>) -> Result<InFlight, NotPicked> {
        let mut load = endpoint.start();
        load.quota = self.take()?;
        Ok(load)
    }

    /// Room for a request; nothing where it has no limit.
    #[inline]
    fn take(&self) -> Result<Option<Taken>, NotPicked> {
        match self.settings.max_requests {
            None => Ok(None),
            Some(limit) => self.shared.requests.take(limit).map(Some).ok_or(NotPicked::Limit),
        }
    }

    /// The endpoint with this identity ([`Endpoint::identity`]).
    pub fn find(&self, identity: u64) -> Option<Arc<Endpoint>> {
        self.current.load().find(identity).cloned()
    }

    /// The algorithm in use.
    #[inline]
    pub fn algorithm(&self) -> Algorithm {
        self.current.load().algorithm()
    }

    /// Counts publications.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The set that follows the one that is in force: as [`EndpointSet::next`], but endpoints that left a while ago and
    /// come back ([`crate::departed::MEMORY`]) are who they were, too.
    pub fn next(&self, specs: Vec<EndpointSpec>, algorithm: Algorithm, now: Nanos) -> EndpointSet {
        EndpointSet::build(specs, algorithm, Some(&self.load()), &self.remembered(), now)
    }

    fn remembered(&self) -> Vec<Arc<Endpoint>> {
        self.shared.departed().iter().map(|(endpoint, _)| Arc::clone(endpoint)).collect()
    }

    /// Endpoints that are no longer in the set and still have requests to answer, with the time at which they left.
    pub fn draining(&self) -> Vec<(Arc<Endpoint>, Nanos)> {
        let departed = self.shared.departed();
        departed.iter().filter(|(endpoint, _)| endpoint.in_flight() > 0).cloned().collect()
    }

    /// Remembers who is not in the set any more, and forgets who left long ago.
    pub(crate) fn part(&self, set: &EndpointSet, now: Nanos) {
        let departing = std::mem::take(&mut *self.departing.lock().unwrap_or_else(PoisonError::into_inner));
        let mut departed = self.shared.departed();
        if !departing.is_empty() {
            departed.leave(departing.into_iter(), set, now);
        }
        departed.forget(now);
    }

    /// Replaces the endpoints. What is known about those that stay or come back is kept ([`Endpoints::next`]).
    pub fn publish(&self, specs: Vec<EndpointSpec>, now: Nanos) {
        let remembered = self.remembered();
        let before = self
            .current
            .rcu(|set| EndpointSet::build(specs.clone(), set.algorithm(), Some(set), &remembered, now));
        let left = before.members().iter().map(|member| Arc::clone(member.endpoint()));
        self.shared.departed().leave(left, &self.load(), now);
        self.generation.fetch_add(1, Ordering::Release);
        self.settle(now);
    }

    /// Changes the algorithm. The endpoints stay.
    pub fn set_algorithm(&self, algorithm: Algorithm, now: Nanos) {
        self.current.rcu(|set| {
            let specs = set.members.iter().map(|member| EndpointSpec {
                address: member.endpoint.address(),
                hostname: member.endpoint.hostname().cloned(),
                weight: member.weight,
                zone: member.zone.clone(),
                priority: member.priority,
                tunnel: member.endpoint.tunnel(),
            });
            set.next(specs.collect(), algorithm, now)
        });
        self.generation.fetch_add(1, Ordering::Release);
        self.settle(now);
    }

    /// Draws by other weights, unless the set is another one by now: then whoever published it sees to that.
    pub(crate) fn reweigh(&self, set: &Arc<EndpointSet>, weights: &[u32]) {
        if set.members.iter().map(Member::drawn).eq(weights.iter().copied()) {
            return;
        }
        let before = self.current.compare_and_swap(set, Arc::new(set.redrawn(weights)));
        if Arc::ptr_eq(&before, set) {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }
}

/// A worker's view of a cell: looks at one counter per use instead of counting references.
#[derive(Debug)]
pub struct Reader {
    cell: Arc<Endpoints>,
    set: Arc<EndpointSet>,
    generation: u64,
}

impl Reader {
    /// A view of `cell`.
    pub fn new(cell: Arc<Endpoints>) -> Self {
        let generation = cell.generation();
        let set = cell.load();
        Self { cell, set, generation }
    }

    /// The set as it is.
    #[inline]
    pub fn set(&mut self) -> &Arc<EndpointSet> {
        let generation = self.cell.generation();
        if generation != self.generation {
            // Read before the set: a publication in between is noticed the next time.
            self.generation = generation;
            self.set = self.cell.load();
        }
        &self.set
    }

    /// The cell.
    pub fn cell(&self) -> &Arc<Endpoints> {
        &self.cell
    }
}
