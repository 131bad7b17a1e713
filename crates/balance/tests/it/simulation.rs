//! Balance, health and retries together, over thousands of histories that endpoints may have: they fail a little, by
//! halves or altogether, answer slowly, ask for less, fail their checks, come and go, while settings are reloaded.
//!
//! What must hold, whatever happens, is said in [`History::check`] and [`History::end`]. A failure names its seed:
//! `RHUMB_SEED=N cargo nextest run -p rhumb-balance simulation` repeats that history alone.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use rhumb_balance::{
    Algorithm, Ask, Check, Endpoint, EndpointSet, EndpointSpec, Endpoints, InFlight, Nanos, NotPicked,
    Outcome, Outlier, Phase, Settings,
};
use rhumb_base::rng::Rng;

use crate::world::specs;

/// Histories of one run of the test, of six endpoints each on average; ten times as many with `RHUMB_LONG_TESTS`.
const HISTORIES: u64 = 400;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

/// Attempts of one request at most.
const ATTEMPTS: u32 = 3;

/// Retries beside requests at most: a fifth, and some to begin with.
const RETRY_SHARE: u64 = 5;
const RETRY_FLOOR: u64 = 10;

/// What an endpoint does at one time.
#[derive(Clone, Copy, Debug)]
struct Mood {
    /// Of a thousand requests so many fail.
    fails: u32,
    failure: Outcome,
    latency_ms: u64,
    passes_check: bool,
}

const WELL: Mood = Mood { fails: 0, failure: Outcome::ServerError, latency_ms: 5, passes_check: true };

struct Attempt {
    load: InFlight,
    begun: u64,
    outcome: Option<Outcome>,
    tried: Vec<Arc<Endpoint>>,
}

struct History {
    rng: Rng,
    now: u64,
    cell: Endpoints,
    algorithm: Algorithm,
    settings: Settings,
    /// By the last octet of the address.
    moods: Vec<Mood>,
    members: Vec<EndpointSpec>,
    ends: BinaryHeap<Reverse<(u64, u64)>>,
    under_way: std::collections::HashMap<u64, Attempt>,
    requests: u64,
    attempts: u64,
    retries: u64,
    failed: u64,
    probes: u64,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let count = 1 + rng.below(12) as usize;
        let algorithm = Algorithm::ALL[rng.below(5) as usize];
        let limits = Outlier {
            max_ejection: Duration::from_secs(20),
            ramp: Duration::from_secs(u64::from(rng.below(12))),
            max_ejected_percent: [50, 50, 10, 100][rng.below(4) as usize],
            ..Outlier::default()
        };
        let settings = Settings {
            outlier: Some(limits),
            is_checked: rng.below(3) == 0,
            slow_start: Duration::from_secs(u64::from(rng.below(2) * 8)),
            panic_percent: [20, 20, 50, 0][rng.below(4) as usize],
            ..Settings::default()
        };
        let mut members: Vec<EndpointSpec> = specs(&[1; 12]);
        for spec in &mut members {
            spec.weight = 1 + rng.below(3);
            spec.priority = u32::from(rng.below(8) == 0);
        }
        members.truncate(count);
        let set = EndpointSet::new(members.clone(), algorithm);
        let cell = Endpoints::with(set, settings.clone(), None);
        cell.tick(Nanos(0));
        Self {
            rng,
            now: 0,
            cell,
            algorithm,
            settings,
            moods: vec![WELL; 16],
            members,
            ends: BinaryHeap::new(),
            under_way: std::collections::HashMap::new(),
            requests: 0,
            attempts: 0,
            retries: 0,
            failed: 0,
            probes: 0,
        }
    }

    fn mood(&self, endpoint: &Endpoint) -> Mood {
        let std::net::IpAddr::V4(ip) = endpoint.address().ip() else { return WELL };
        self.moods[usize::from(ip.octets()[3])]
    }

    /// One attempt; `tried` failed this request before.
    fn attempt(&mut self, tried: Vec<Arc<Endpoint>>) {
        let ask = Ask {
            key: Some(self.rng.next_u64()),
            now: Nanos(self.now),
            may_probe: self.rng.below(4) > 0,
            tried: &tried,
        };
        let load = match self.cell.begin(ask, &mut self.rng) {
            Ok(load) => load,
            Err(none) => {
                assert_eq!(none, NotPicked::NoEndpoint);
                // Only checks, or an empty set, leave nobody.
                let set = self.cell.load();
                let nobody = set.members().iter().all(|m| !m.endpoint().is_eligible());
                assert!(nobody && (self.settings.is_checked || set.members().is_empty()));
                self.failed += 1;
                return;
            }
        };
        self.attempts += 1;
        if load.is_probe() {
            self.probes += 1;
            let others = self.under_way.values().filter(|a| a.load.is_probe());
            let same = others.filter(|a| Arc::ptr_eq(a.load.endpoint(), load.endpoint())).count();
            assert_eq!(same, 0, "an endpoint is tried with one request at a time");
        }
        let mood = self.mood(load.endpoint());
        let outcome = match self.rng.below(1000) {
            // The client goes away.
            0..5 => None,
            draw if draw < 5 + mood.fails => Some(mood.failure),
            _ => Some(Outcome::Success),
        };
        let latency =
            mood.latency_ms * MS / 2 + u64::from(self.rng.below((mood.latency_ms * 1000) as u32)) * 1000;
        self.ends.push(Reverse((self.now + latency, self.attempts)));
        self.under_way.insert(self.attempts, Attempt { load, begun: self.now, outcome, tried });
    }

    /// What ends until `until`.
    fn run(&mut self, until: u64) {
        while let Some(Reverse((at, id))) = self.ends.peek().copied().filter(|Reverse((at, _))| *at <= until)
        {
            self.ends.pop();
            self.now = at;
            let Attempt { load, begun, outcome, mut tried } = self.under_way.remove(&id).unwrap();
            let endpoint = Arc::clone(load.endpoint());
            let Some(outcome) = outcome else { continue };
            self.cell.finish(load, Duration::from_nanos(at - begun), outcome, Nanos(at));
            let fails = !matches!(outcome, Outcome::Success);
            let has_budget = self.retries < self.requests / RETRY_SHARE + RETRY_FLOOR;
            if fails && (tried.len() as u32) + 1 < ATTEMPTS && has_budget {
                self.retries += 1;
                tried.push(endpoint);
                self.attempt(tried);
            } else if fails {
                self.failed += 1;
            }
        }
        self.now = until;
    }

    /// Something happens to somebody.
    fn disturb(&mut self) {
        let which = 1 + self.rng.below(12) as usize;
        let failure =
            [Outcome::ServerError, Outcome::GatewayError, Outcome::LocalFailure][self.rng.below(3) as usize];
        match self.rng.below(12) {
            0..3 => self.moods[which] = WELL,
            3 => self.moods[which] = Mood { fails: 10, failure, ..WELL },
            4 | 5 => self.moods[which] = Mood { fails: 500, failure, ..WELL },
            6 | 7 => self.moods[which] = Mood { fails: 995, failure, passes_check: false, ..WELL },
            8 => self.moods[which] = Mood { latency_ms: 200, ..WELL },
            9 => {
                let wish = Outcome::Throttled(Some(Duration::from_secs(u64::from(self.rng.below(4)))));
                self.moods[which] = Mood { fails: 300, failure: wish, ..WELL };
            }
            10 => self.churn(),
            _ => self.reload(),
        }
    }

    /// Endpoints come and go; one stays.
    fn churn(&mut self) {
        let all = specs(&[1; 12]);
        let kept = 1 + self.rng.below(12) as usize;
        let start = self.rng.below(12) as usize;
        self.members = (0..kept).map(|i| all[(start + i) % 12].clone()).collect();
        self.cell.publish(self.members.clone(), Nanos(self.now));
    }

    fn reload(&mut self) {
        if self.rng.below(2) == 0 {
            self.algorithm = Algorithm::ALL[self.rng.below(5) as usize];
        }
        let set = self.cell.next(self.members.clone(), self.algorithm, Nanos(self.now));
        self.cell = Endpoints::with(set, self.settings.clone(), Some(&self.cell));
        self.cell.tick(Nanos(self.now));
    }

    fn run_checks(&mut self) {
        if !self.settings.is_checked {
            return;
        }
        for member in self.cell.load().members() {
            let passes = self.mood(member.endpoint()).passes_check;
            let check = if passes { Check::Passing } else { Check::Failing("refused".into()) };
            self.cell.checked(member.endpoint(), check, Nanos(self.now));
        }
    }

    /// Holds at any time.
    fn check(&self) {
        let set = self.cell.load();
        let limits = self.settings.outlier.as_ref().unwrap();
        let count = set.members().len();
        let states: Vec<_> = set.members().iter().map(|m| self.cell.state(m.endpoint())).collect();
        let out = states.iter().filter(|state| state.phase.is_out()).count();
        let half = (count * usize::from(limits.max_ejected_percent) / 100).max(1);
        assert!(out <= half.min(count.saturating_sub(1)), "{out} of {count} are out");
        for (member, state) in set.members().iter().zip(&states) {
            assert!((0.0..=1.0).contains(&state.share), "{state:?}");
            assert!(state.relapses <= 16 && state.probes.0 <= state.probes.1, "{state:?}");
            let is_used = member.endpoint().is_eligible();
            let is_panicking = self.cell.tally().is_panicking;
            assert!(!(state.phase.is_out() && is_used) || is_panicking, "{state:?}");
            if let (Phase::Ejected, Some(until)) = (state.phase, state.until) {
                let longest = limits.max_ejection.as_nanos() as u64;
                assert!(until.0 - state.since.0 <= longest + longest / 4, "{state:?}");
            }
        }
        assert!(self.retries <= self.requests / RETRY_SHARE + RETRY_FLOOR);
        assert!(self.attempts <= self.requests + self.retries);
    }

    /// After a time in which all is well: everybody is used, and nothing is left over.
    fn end(&mut self) {
        self.moods = vec![WELL; 16];
        for _ in 0..800 {
            self.step(8);
        }
        let set = self.cell.load();
        let before: Vec<u64> = set.members().iter().map(|m| m.endpoint().started()).collect();
        for member in set.members() {
            let state = self.cell.state(member.endpoint());
            assert_eq!((state.phase, state.share), (Phase::Full, 1.0), "{} {state:?}", member.endpoint());
        }
        for _ in 0..50 {
            self.step(40);
        }
        let first = set.members().iter().map(|m| m.priority()).min();
        for (member, before) in set.members().iter().zip(before) {
            let is_asked = Some(member.priority()) == first;
            let used = member.endpoint().started() > before;
            assert!(used || !is_asked, "{} is well and not used", member.endpoint());
        }
        self.run(self.now + 10 * SECOND);
        for member in set.members() {
            let endpoint = member.endpoint();
            assert_eq!(endpoint.in_flight(), 0);
            let ended = endpoint.succeeded() + endpoint.failed() + endpoint.throttled();
            assert!(ended <= endpoint.started(), "{endpoint}");
        }
    }

    /// A tenth of a second with so many requests.
    fn step(&mut self, requests: u64) {
        let end = self.now + 100 * MS;
        for i in 0..requests {
            self.run(self.now.max(end - 100 * MS + i * 100 * MS / requests));
            self.requests += 1;
            self.attempt(Vec::new());
        }
        self.run(end);
        self.run_checks();
        self.cell.tick(Nanos(self.now));
        self.check();
    }
}

fn play(seed: u64) -> History {
    let mut history = History::new(seed);
    let load = 1 + u64::from(history.rng.below(30));
    for _ in 0..250 {
        if history.rng.below(12) == 0 {
            history.disturb();
            history.check();
        }
        history.step(load);
    }
    history.end();
    history
}

#[test]
fn what_must_hold_holds_in_every_history() {
    let seeds = match std::env::var("RHUMB_SEED").ok().and_then(|seed| seed.parse::<u64>().ok()) {
        Some(seed) => seed..seed + 1,
        None if std::env::var_os("RHUMB_LONG_TESTS").is_some() => 0..HISTORIES * 10,
        None => 0..HISTORIES,
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let (mut ejections, mut probes, mut requests) = (0u64, 0, 0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let seeds = seeds.clone().skip(worker as usize).step_by(threads as usize);
                scope.spawn(move || {
                    let mut sums = (0, 0, 0);
                    for seed in seeds {
                        let play = std::panic::AssertUnwindSafe(|| play(seed));
                        let history = std::panic::catch_unwind(play)
                            .unwrap_or_else(|_| panic!("seed {seed}: repeat it with RHUMB_SEED={seed}"));
                        sums.0 += history.cell.tally().ejections.iter().sum::<u64>();
                        sums.1 += history.probes;
                        sums.2 += history.requests;
                    }
                    sums
                })
            })
            .collect();
        for worker in workers {
            let sums = worker.join().expect("every history holds");
            (ejections, probes, requests) = (ejections + sums.0, probes + sums.1, requests + sums.2);
        }
    });
    eprintln!("{ejections} ejections, {probes} probes in {requests} requests");
    // It is about something.
    assert!(seeds.end - seeds.start == 1 || ejections > HISTORIES && probes > HISTORIES);
}
