//! The algorithms and the tables that each of them needs.

use std::cell::Cell;

use rhumb_base::rng::Rng;

use crate::endpoint::Admission;
use crate::hash::mix;
use crate::least_busy;
use crate::maglev::Maglev;
use crate::ring::Ring;
use crate::round_robin::Schedule;
use crate::sample::Sampler;
use crate::set::{Member, Pick};

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Of two random endpoints the one with less latency times requests under way. The default: it notices slow
    /// endpoints by itself and needs no coordination between proxies.
    #[default]
    LeastBusy,
    /// In turn, as often as weights say.
    RoundRobin,
    /// At random, in proportion to weights.
    Random,
    /// A key belongs to the next of many points on a ring. For keys that should stay when endpoints come and go.
    RingHash,
    /// A key belongs to an entry of a table. Spreads keys more evenly than a ring; a few more keys move.
    Maglev,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 5] =
        [Self::LeastBusy, Self::RoundRobin, Self::Random, Self::RingHash, Self::Maglev];

    /// The name in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeastBusy => "leastBusy",
            Self::RoundRobin => "roundRobin",
            Self::Random => "random",
            Self::RingHash => "ringHash",
            Self::Maglev => "maglev",
        }
    }

    /// The algorithm with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// True when it chooses by a key of the request.
    pub fn needs_key(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

/// What an algorithm has prepared for one set.
#[derive(Debug)]
pub(crate) enum Chooser {
    LeastBusy,
    RoundRobin(Schedule),
    Random,
    RingHash(Ring),
    Maglev(Maglev),
}

impl Chooser {
    /// Prepares `algorithm`, continuing where the one of the set before left off.
    pub(crate) fn new(algorithm: Algorithm, members: &[Member], before: Option<&Self>) -> Self {
        let weights = || members.iter().map(Member::drawn).collect::<Vec<_>>();
        let identities = || members.iter().map(|member| member.endpoint().identity()).collect::<Vec<_>>();
        match algorithm {
            Algorithm::LeastBusy => Self::LeastBusy,
            Algorithm::RoundRobin => {
                let start = if let Some(Self::RoundRobin(schedule)) = before { schedule.place() } else { 0 };
                Self::RoundRobin(Schedule::new(&weights(), start))
            }
            Algorithm::Random => Self::Random,
            Algorithm::RingHash => Self::RingHash(Ring::new(&identities(), &weights())),
            Algorithm::Maglev => Self::Maglev(Maglev::new(&identities(), &weights())),
        }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Self::LeastBusy => Algorithm::LeastBusy,
            Self::RoundRobin(_) => Algorithm::RoundRobin,
            Self::Random => Algorithm::Random,
            Self::RingHash(_) => Algorithm::RingHash,
            Self::Maglev(_) => Algorithm::Maglev,
        }
    }

    /// A member with weight that may be chosen and is not excluded, and whether it is tried with this request.
    #[inline]
    pub(crate) fn pick(
        &self,
        members: &[Member],
        sampler: &Sampler,
        ask: Pick<'_>,
        rng: &mut Rng,
    ) -> Option<(u32, bool)> {
        let probes = Cell::new(false);
        let accepts = |index: u32, member: &Member| {
            if member.drawn() == 0 || ask.excluded.contains(&index) {
                return false;
            }
            match member.endpoint().admit(&ask) {
                Admission::Granted => true,
                Admission::Refused => false,
                Admission::Probe => {
                    // Who is accepted like this is chosen: nobody else may try it meanwhile.
                    probes.set(true);
                    true
                }
            }
        };
        let accepts_index =
            |index: u32| members.get(index as usize).is_some_and(|member| accepts(index, member));
        let drawn = match (self, ask.key) {
            (Self::LeastBusy, _) => {
                least_busy::pick(members, sampler, ask.now, rng, || probes.get(), accepts)
            }
            (Self::RoundRobin(schedule), _) => schedule.pick(accepts_index),
            (Self::RingHash(ring), Some(key)) => owner(key, |key| ring.owner(key), accepts_index),
            (Self::Maglev(table), Some(key)) => owner(key, |key| table.owner(key), accepts_index),
            // Without a key there is nothing that the choice could depend on.
            (Self::Random | Self::RingHash(_) | Self::Maglev(_), _) => {
                (0..DRAWS).map(|_| sampler.draw(rng)).find(|&index| accepts_index(index))
            }
        };
        if let Some(index) = drawn {
            return Some((index, probes.get()));
        }
        let chosen = match ask.key {
            Some(key) if self.algorithm().needs_key() => rendezvous(members, key, ask.excluded),
            _ => draw_exactly(members, rng, ask.excluded),
        };
        chosen.map(|index| (index, false))
    }
}

/// Draws and rehashes before every member is looked at.
const DRAWS: u64 = 8;

/// The owner of a key. While it is not accepted the key is another one, which depends on the key alone: only keys of
/// endpoints that are out move, and they spread over all others.
#[inline]
fn owner(key: u64, owner: impl Fn(u64) -> Option<u32>, accepts: impl Fn(u32) -> bool) -> Option<u32> {
    let first = owner(key)?;
    if accepts(first) {
        return Some(first);
    }
    (1..DRAWS).filter_map(|i| owner(mix(key ^ i))).find(|&index| accepts(index))
}

/// The weight that a member has now; zero when it may not be chosen.
fn weight_now(index: u32, member: &Member, excluded: &[u32]) -> f64 {
    if excluded.contains(&index) {
        0.0
    } else {
        f64::from(member.drawn()) * member.endpoint().gate().as_share()
    }
}

/// When nearly all members are out: the one with the highest hash of key and identity, scaled by weight (Thaler,
/// Ravishankar 1998; weights by Schindelhauer, Schomaker 2005).
#[cold]
fn rendezvous(members: &[Member], key: u64, excluded: &[u32]) -> Option<u32> {
    let score = |member: &Member, weight: f64| {
        let hash = mix(key ^ member.endpoint().identity());
        let unit = ((hash >> 11) as f64 + 1.0) / 9_007_199_254_740_993.0;
        -weight / unit.ln()
    };
    (0u32..)
        .zip(members)
        .map(|(index, member)| (index, member, weight_now(index, member, excluded)))
        .filter(|(.., weight)| *weight > 0.0)
        .map(|(index, member, weight)| (index, score(member, weight)))
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(index, _)| index)
}

/// When nearly all members are out: a draw among the others, in proportion to their weights.
#[cold]
fn draw_exactly(members: &[Member], rng: &mut Rng, excluded: &[u32]) -> Option<u32> {
    let mut total = 0.0;
    let mut chosen = None;
    for (index, member) in (0u32..).zip(members) {
        let weight = weight_now(index, member, excluded);
        if weight > 0.0 {
            // One pass (reservoir): each keeps its chance whatever comes later.
            total += weight;
            let draw = (rng.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0 * total;
            if draw < weight {
                chosen = Some(index);
            }
        }
    }
    chosen
}
