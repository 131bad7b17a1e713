//! Endpoints that are killed and come back at random: what it costs those who ask, with balance, health and the retry
//! budget as they are. One that is gone refuses connections at once; what it was working on is reset.
//!
//! A failure names its seed: `RHUMB_SEED=N cargo nextest run -p rhumb-balance killed` repeats that history alone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rhumb_balance::{
    Algorithm, Ask, BudgetLimits, Endpoint, EndpointSet, Endpoints, InFlight, Nanos, Outcome, RetryBudget,
    Settings,
};
use rhumb_base::rng::Rng;

use crate::world::specs;

/// Histories of one run of the test; ten times as many with `RHUMB_LONG_TESTS`.
const HISTORIES: u64 = 20;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

/// How long one history is.
const SECONDS: u64 = 20;

/// Retries of one request at most.
const RETRIES: usize = 3;

struct Attempt {
    load: InFlight,
    begun: u64,
    tried: Vec<Arc<Endpoint>>,
    /// The life of the endpoint that it was sent in; `None` when it was refused.
    life: Option<u32>,
}

struct House {
    rng: Rng,
    now: u64,
    cell: Endpoints,
    budget: RetryBudget,
    /// Whether each endpoint lives, and how often it has died.
    lives: Vec<(bool, u32)>,
    ends: BinaryHeap<Reverse<(u64, u64)>>,
    under_way: HashMap<u64, Attempt>,
    requests: u64,
    attempts: u64,
    /// First attempts at endpoints that are gone.
    misled: u64,
    /// Requests that went on to another endpoint without being paid for.
    redirected: u64,
    lost: u64,
    reset: u64,
}

impl House {
    fn new(count: usize, algorithm: Algorithm, seed: u64) -> Self {
        let set = EndpointSet::new(specs(&vec![1; count]), algorithm);
        let cell = Endpoints::with(set, Settings::default(), None);
        cell.tick(Nanos(0));
        Self {
            rng: Rng::new(seed),
            now: 0,
            cell,
            budget: RetryBudget::new(BudgetLimits::default()),
            lives: vec![(true, 0); count],
            ends: BinaryHeap::new(),
            under_way: HashMap::new(),
            requests: 0,
            attempts: 0,
            misled: 0,
            redirected: 0,
            lost: 0,
            reset: 0,
        }
    }

    fn index(&self, endpoint: &Arc<Endpoint>) -> usize {
        let set = self.cell.load();
        set.members().iter().position(|m| Arc::ptr_eq(m.endpoint(), endpoint)).unwrap()
    }

    fn attempt(&mut self, tried: Vec<Arc<Endpoint>>) {
        let key = Some(self.rng.next_u64());
        let ask = Ask { key, now: Nanos(self.now), may_probe: true, tried: &tried };
        let load = self.cell.begin(ask, &mut self.rng).expect("somebody may always be asked");
        let (lives, life) = self.lives[self.index(load.endpoint())];
        self.misled += u64::from(!lives && tried.is_empty());
        let takes = if lives { MS / 2 + u64::from(self.rng.below(MS as u32)) } else { MS / 20 };
        self.attempts += 1;
        self.ends.push(Reverse((self.now + takes, self.attempts)));
        let life = lives.then_some(life);
        self.under_way.insert(self.attempts, Attempt { load, begun: self.now, tried, life });
    }

    /// What ends until `until`.
    fn run(&mut self, until: u64) {
        while let Some(&Reverse((at, id))) = self.ends.peek().filter(|Reverse((at, _))| *at <= until) {
            self.ends.pop();
            self.now = at;
            let Attempt { load, begun, mut tried, life } = self.under_way.remove(&id).unwrap();
            let endpoint = Arc::clone(load.endpoint());
            let (lives, current) = self.lives[self.index(&endpoint)];
            let latency = Duration::from_nanos(at - begun);
            if lives && life == Some(current) {
                self.cell.finish(load, latency, Outcome::Success, Nanos(at));
                continue;
            }
            self.cell.finish(load, latency, Outcome::LocalFailure, Nanos(at));
            tried.push(endpoint);
            let set = self.cell.load();
            let has_others = set.members().iter().any(|m| {
                m.endpoint().is_eligible() && !tried.iter().any(|tried| Arc::ptr_eq(tried, m.endpoint()))
            });
            // A reset may have had an effect and is paid for; a refusal is not while there is somebody else.
            let is_redirected = life.is_none() && has_others;
            self.reset += u64::from(life.is_some());
            if tried.len() <= RETRIES && (is_redirected || self.budget.spend(Nanos(at))) {
                self.redirected += u64::from(is_redirected);
                self.attempt(tried);
            } else {
                self.lost += 1;
            }
        }
        self.now = until;
    }

    /// A tenth of a second with so many requests.
    fn step(&mut self, requests: u64) {
        let begin = self.now;
        for i in 0..requests {
            self.run(begin + i * 100 * MS / requests);
            self.requests += 1;
            self.budget.count(0, Nanos(self.now));
            self.attempt(Vec::new());
        }
        self.run(begin + 100 * MS);
        self.cell.tick(Nanos(self.now));
        let set = self.cell.load();
        let out = set.members().iter().filter(|m| self.cell.state(m.endpoint()).phase.is_out()).count();
        let count = set.members().len();
        assert!(out <= (count / 2).max(1), "{out} of {count} are out");
        assert!(self.attempts <= self.requests * (1 + RETRIES as u64));
    }
}

/// One of `count` endpoints is killed at random each second and lives again half a second later.
fn play(seed: u64) -> House {
    let mut rng = Rng::new(seed ^ 0x6b69_6c6c);
    let count = 3 + rng.below(4) as usize;
    let algorithm = Algorithm::ALL[rng.below(5) as usize];
    let load = 50 + u64::from(rng.below(350));
    let mut house = House::new(count, algorithm, seed);
    for tenth in 0..SECONDS * 10 {
        match tenth % 10 {
            // Those that were there at first have done something by then.
            3 => {
                let victim = rng.below(count as u32) as usize;
                house.lives[victim] = (false, house.lives[victim].1 + 1);
            }
            8 => house.lives.iter_mut().for_each(|life| life.0 = true),
            _ => {}
        }
        house.step(load);
    }
    house.run(house.now + SECOND);
    let House { requests, lost, misled, .. } = house;
    assert!(lost * 10_000 <= requests, "{lost} of {requests} were lost among {count} by {algorithm:?}");
    // Who is gone is known to be, or found out soon, even when another one has just gone.
    assert!(misled * 20 <= requests, "{misled} of {requests} came to who is gone: {count}, {algorithm:?}");
    house
}

#[test]
fn one_that_is_killed_each_second_costs_nobody_a_request() {
    let seeds = match std::env::var("RHUMB_SEED").ok().and_then(|seed| seed.parse::<u64>().ok()) {
        Some(seed) => seed..seed + 1,
        None if std::env::var_os("RHUMB_LONG_TESTS").is_some() => 0..HISTORIES * 10,
        None => 0..HISTORIES,
    };
    let (mut requests, mut lost, mut misled, mut redirected, mut reset) = (0, 0, 0, 0, 0);
    for seed in seeds {
        let house = std::panic::catch_unwind(|| play(seed))
            .unwrap_or_else(|_| panic!("seed {seed}: repeat it with RHUMB_SEED={seed}"));
        requests += house.requests;
        lost += house.lost;
        misled += house.misled;
        redirected += house.redirected;
        reset += house.reset;
    }
    eprintln!(
        "{requests} requests: {lost} lost, {misled} refused at first, {redirected} sent on, {reset} reset"
    );
}
