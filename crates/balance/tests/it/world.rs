//! A small simulator: requests arrive at random, endpoints answer after a time, nothing else happens. Same seed, same
//! history.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rhumb_balance::{Algorithm, EndpointSet, EndpointSpec, InFlight, Nanos, Outcome, Pick, hash};
use rhumb_base::rng::Rng;

/// How an endpoint behaves.
#[derive(Clone, Copy)]
pub(crate) struct Behaviour {
    /// Mean time of an answer in milliseconds; answers take half to one and a half of it.
    pub(crate) mean_ms: f64,
    /// Requests that it works on at one time; others wait.
    pub(crate) capacity: u32,
    /// It refuses, at once.
    pub(crate) fails: bool,
}

pub(crate) fn takes(mean_ms: f64) -> Behaviour {
    Behaviour { mean_ms, capacity: u32::MAX, fails: false }
}

pub(crate) fn specs(weights: &[u32]) -> Vec<EndpointSpec> {
    weights
        .iter()
        .zip(1u32..)
        .map(|(&weight, i)| {
            let address = SocketAddr::from((Ipv4Addr::from_bits(0x0a00_0000 + i), 8080));
            EndpointSpec { weight, ..EndpointSpec::new(address) }
        })
        .collect()
}

pub(crate) struct World {
    pub(crate) set: EndpointSet,
    pub(crate) behaviour: Vec<Behaviour>,
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    /// Requests that went to each endpoint.
    pub(crate) counts: Vec<u64>,
    /// Most requests that each endpoint had at one time.
    pub(crate) peaks: Vec<u32>,
    busy_until: Vec<Vec<u64>>,
    under_way: BinaryHeap<Reverse<(u64, u64)>>,
    guards: std::collections::HashMap<u64, (InFlight, u64, Outcome)>,
    started: u64,
}

impl World {
    pub(crate) fn new(weights: &[u32], algorithm: Algorithm, behaviour: &[Behaviour], seed: u64) -> Self {
        let len = weights.len();
        Self {
            set: EndpointSet::new(specs(weights), algorithm),
            behaviour: behaviour.to_vec(),
            rng: Rng::new(seed),
            now: 0,
            counts: vec![0; len],
            peaks: vec![0; len],
            busy_until: vec![Vec::new(); len],
            under_way: BinaryHeap::new(),
            guards: std::collections::HashMap::new(),
            started: 0,
        }
    }

    /// `count` requests at a mean rate, each with a key of its own.
    pub(crate) fn run(&mut self, count: u64, per_second: f64) {
        for _ in 0..count {
            let gap = -(self.unit().ln()) / per_second;
            self.now += (gap * 1e9) as u64;
            self.answer_until(self.now);
            self.request();
        }
    }

    fn unit(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0 + 1e-12
    }

    fn request(&mut self) {
        let key = Some(hash::mix(self.started));
        let ask = Pick { key, now: Nanos(self.now), excluded: &[], may_probe: false };
        let picked = self.set.pick(ask, &mut self.rng).expect("some endpoint is eligible");
        let (index, guard) = (picked.index as usize, picked.endpoint.start());
        self.counts[index] += 1;
        self.peaks[index] = self.peaks[index].max(picked.endpoint.in_flight());
        let behaviour = self.behaviour[index];
        let (end, outcome) = if behaviour.fails {
            (self.now + 50_000, Outcome::GatewayError)
        } else {
            let work = (behaviour.mean_ms * 1e6 * (0.5 + self.unit())) as u64;
            (self.free_at(index) + work, Outcome::Success)
        };
        if behaviour.capacity < u32::MAX {
            self.busy_until[index].push(end);
        }
        self.started += 1;
        self.under_way.push(Reverse((end, self.started)));
        self.guards.insert(self.started, (guard, self.now, outcome));
    }

    /// When an endpoint can begin with one more request.
    fn free_at(&mut self, index: usize) -> u64 {
        let (now, capacity) = (self.now, self.behaviour[index].capacity as usize);
        let busy = &mut self.busy_until[index];
        busy.retain(|&end| end > now);
        busy.sort_unstable();
        busy.len().checked_sub(capacity).map_or(now, |waits_for| busy[waits_for])
    }

    fn answer_until(&mut self, time: u64) {
        while let Some(&Reverse((end, id))) = self.under_way.peek() {
            if end > time {
                break;
            }
            self.under_way.pop();
            let (guard, start, outcome) = self.guards.remove(&id).unwrap();
            guard.finish(Duration::from_nanos(end - start), outcome, Nanos(end));
        }
    }

    /// Room for more endpoints.
    pub(crate) fn grow(&mut self, len: usize) {
        self.counts.resize(len, 0);
        self.peaks.resize(len, 0);
        self.busy_until.resize(len, Vec::new());
    }

    /// Part of all requests since the last call that went to each endpoint.
    pub(crate) fn shares(&mut self) -> Vec<f64> {
        let total: u64 = self.counts.iter().sum();
        let shares = self.counts.iter().map(|&n| n as f64 / total as f64).collect();
        self.counts.fill(0);
        shares
    }
}
