//! Looks after the endpoints of the plan in force: lets time pass for their health, runs active checks, and tells what
//! changes.
//!
//! Lives on the control runtime, once for all workers. A check is a local task of its own; how many run at a time is
//! bounded by [`MAX_RUNNING`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_balance::judge::TICK;
use rhumb_balance::{Check as Verdict, Endpoint, Event, Nanos, Phase};
use rhumb_base::rng::Rng;
use rhumb_plan::{Backend, Current, Plan, active};
use rhumb_proxy::rest::Awake;
use rhumb_signals::Level;
use rhumb_telemetry::{Metric, Registry};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::signals;

/// Checks that run at a time; others are due a little later.
const MAX_RUNNING: u32 = 256;

/// The first checks of a backend begin within this time, so that they do not all begin at once.
const FIRST_WITHIN: Duration = Duration::from_millis(500);

/// Looks after endpoints until it is dropped. `origin` is where the balancer's clock begins. While all workers rest and time
/// alone changes nothing, nobody is looked after.
pub(crate) async fn watch(current: Current, registry: Arc<Registry>, origin: Instant, awake: Arc<Awake>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut checks =
        Checks { registry, origin, backends: HashMap::new(), running: Rc::default(), rng: Rng::from_os() };
    loop {
        ticks.tick().await;
        let plan = current.load();
        checks.run(&plan);
        tick(&plan, origin);
        for backend in &plan.backends {
            for event in backend.endpoints.take_events() {
                tell(backend.name.as_str(), &event);
            }
        }
        let rests = || plan.backends.iter().all(|backend| backend.endpoints.is_at_rest());
        if !awake.is_any() && checks.backends.is_empty() && rests() {
            drop(plan);
            awake.any().await;
        }
    }
}

/// Lets time pass for the endpoints of a plan.
pub(crate) fn tick(plan: &Plan, origin: Instant) {
    let now = Nanos::since(origin, Instant::now());
    for backend in &plan.backends {
        backend.endpoints.tick(now);
    }
}

/// The active checks of the plan in force.
struct Checks {
    registry: Arc<Registry>,
    origin: Instant,
    /// By the address of the backend, which is held.
    backends: HashMap<*const Backend, Checked>,
    running: Rc<Cell<u32>>,
    rng: Rng,
}

/// A backend whose endpoints are checked.
struct Checked {
    backend: Arc<Backend>,
    check: Arc<active::Check>,
    /// Of which set the endpoints are.
    generation: u64,
    endpoints: Vec<Rc<Checkup>>,
}

/// The checks of one endpoint.
struct Checkup {
    endpoint: Arc<Endpoint>,
    due: Cell<Instant>,
    /// The last answer that counted.
    is_well: Cell<Option<bool>>,
    /// Answers in a row that contradict it.
    against: Cell<u32>,
    running: RefCell<Option<AbortHandle>>,
}

impl Drop for Checkup {
    fn drop(&mut self) {
        if let Some(task) = self.running.borrow_mut().take() {
            task.abort();
        }
    }
}

/// A check that runs, however it ends.
struct Slot(Rc<Cell<u32>>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Checks {
    /// Begins what is due.
    fn run(&mut self, plan: &Plan) {
        if self.backends.is_empty() && plan.backends.iter().all(|backend| backend.check.is_none()) {
            return;
        }
        let wanted = plan.backends.iter().filter_map(|backend| Some((backend, backend.check.as_ref()?)));
        let mut before = std::mem::take(&mut self.backends);
        for (backend, check) in wanted {
            let key = Arc::as_ptr(backend);
            let checked = before.remove(&key).unwrap_or_else(|| Checked {
                backend: Arc::clone(backend),
                check: Arc::clone(check),
                generation: u64::MAX,
                endpoints: self.taken_over(backend, check, &mut before),
            });
            self.backends.insert(key, checked);
        }
        // What is left of them is not wanted any more: its checks are given up.
        drop(before);
        let now = Instant::now();
        for checked in self.backends.values_mut() {
            checked.follow(now, &mut self.rng);
            for checkup in &checked.endpoints {
                if checkup.due.get() <= now
                    && checkup.running.borrow().is_none()
                    && self.running.get() < MAX_RUNNING
                {
                    begin(checked, checkup, &self.running, &self.registry, self.origin, &mut self.rng);
                }
            }
        }
    }

    /// The checkups of the revision before, where the same is asked.
    fn taken_over(
        &self,
        backend: &Arc<Backend>,
        check: &active::Check,
        before: &mut HashMap<*const Backend, Checked>,
    ) -> Vec<Rc<Checkup>> {
        let same = before.values().find(|other| other.backend.name == backend.name && *other.check == *check);
        same.map(|other| other.endpoints.clone()).unwrap_or_default()
    }
}

impl Checked {
    /// Brings the checkups in line with the endpoints.
    fn follow(&mut self, now: Instant, rng: &mut Rng) {
        let generation = self.backend.endpoints.generation();
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        let mut known: HashMap<*const Endpoint, Rc<Checkup>> =
            self.endpoints.drain(..).map(|checkup| (Arc::as_ptr(&checkup.endpoint), checkup)).collect();
        let set = self.backend.endpoints.load();
        let within = FIRST_WITHIN.min(self.check.interval);
        self.endpoints = set
            .members()
            .iter()
            .map(|member| {
                known.remove(&Arc::as_ptr(member.endpoint())).unwrap_or_else(|| {
                    Rc::new(Checkup {
                        endpoint: Arc::clone(member.endpoint()),
                        due: Cell::new(now + within.mul_f64(f64::from(rng.below(1000)) / 1000.0)),
                        is_well: Cell::new(None),
                        against: Cell::new(0),
                        running: RefCell::new(None),
                    })
                })
            })
            .collect();
    }
}

/// Begins a check.
fn begin(
    checked: &Checked,
    checkup: &Rc<Checkup>,
    running: &Rc<Cell<u32>>,
    registry: &Arc<Registry>,
    origin: Instant,
    rng: &mut Rng,
) {
    running.set(running.get() + 1);
    let slot = Slot(Rc::clone(running));
    let (backend, check) = (Arc::clone(&checked.backend), Arc::clone(&checked.check));
    // A tenth more or less.
    let pause = check.interval.mul_f64(0.9 + f64::from(rng.below(200)) / 1000.0);
    let (registry, weak) = (Arc::clone(registry), Rc::downgrade(checkup));
    let endpoint = Arc::clone(&checkup.endpoint);
    let begun = Instant::now();
    let task = tokio::task::spawn_local(async move {
        let _slot = slot;
        let (target, address) = backend.way(&endpoint);
        let result = active::check(&check, target, address).await;
        let Some(checkup) = weak.upgrade() else { return };
        let word = if result.is_ok() { "pass" } else { "fail" };
        registry.counter(Metric::HealthChecks, &[backend.name.as_str(), word]).add(1);
        let now = Instant::now();
        checkup.due.set((begun + pause).max(now));
        *checkup.running.borrow_mut() = None;
        checkup.take(&backend, &check, result, Nanos::since(origin, now));
    });
    *checkup.running.borrow_mut() = Some(task.abort_handle());
}

impl Checkup {
    /// Takes an answer into account.
    fn take(&self, backend: &Backend, check: &active::Check, result: Result<(), String>, now: Nanos) {
        let passes = result.is_ok();
        let needed = match self.is_well.get() {
            // The first one decides alone.
            None => 1,
            Some(is_well) if is_well == passes => {
                self.against.set(0);
                if passes {
                    // Who is out for failing requests waits for a check that passes.
                    backend.endpoints.checked(&self.endpoint, Verdict::Passing, now);
                }
                return;
            }
            Some(true) => check.unhealthy_after,
            Some(false) => check.healthy_after,
        };
        self.against.set(self.against.get() + 1);
        if self.against.get() < needed {
            return;
        }
        self.against.set(0);
        self.is_well.set(Some(passes));
        let (name, endpoint) = (backend.name.as_str(), self.endpoint.label());
        let verdict = match result {
            Ok(()) => {
                tracing::info!(backend = name, endpoint, "endpoint passes its check");
                Verdict::Passing
            }
            Err(why) => {
                tracing::warn!(backend = name, endpoint, "endpoint fails its check: {why}");
                Verdict::Failing(why.into())
            }
        };
        backend.endpoints.checked(&self.endpoint, verdict, now);
    }
}

fn tell(backend: &str, event: &Event) {
    let endpoint = event.endpoint.label();
    match (event.phase, event.why) {
        (Phase::Ejected, why) => {
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            signals::tell("endpoint_ejected", Level::Warning, backend, format!("{endpoint} is out{why}"));
        }
        (Phase::Ramping, _) => {
            signals::tell(
                "endpoint_returned",
                Level::Info,
                backend,
                format!("{endpoint} is back, its share grows"),
            );
        }
        _ => {}
    }
    match (event.phase, event.why) {
        (Phase::Ejected, Some(why)) => tracing::warn!(backend, endpoint, "endpoint is out: {why}"),
        (Phase::Ejected, None) => tracing::warn!(backend, endpoint, "endpoint is out"),
        (Phase::Probing, _) => tracing::debug!(backend, endpoint, "endpoint is tried with single requests"),
        (Phase::Ramping, _) => tracing::info!(backend, endpoint, "endpoint is back, its share grows"),
        (Phase::Warming, _) => tracing::debug!(backend, endpoint, "endpoint is new, its share grows"),
        (Phase::Full, _) => tracing::info!(backend, endpoint, "endpoint has its full share"),
    }
}
