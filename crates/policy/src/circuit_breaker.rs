//! Stop asking a backend that only fails, and find out carefully whether it is well again.
//!
//! An expression over the latest responses says when the circuit opens. Then requests are refused for a while, after which
//! a few are let through as probes: when one fails the circuit stays open, when enough succeed it closes along a ramp, on
//! which a growing share of the requests passes. All workers see one circuit; it survives reloads.
//!
//! Costs per request a few relaxed additions to counters that workers share, and one evaluation of the expression each tenth
//! of a second.

mod watched;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rhumb_base::failure::Cause;
use rhumb_cel::{Field, Kind, Object, Program, Schema, Value};
use rhumb_codec::field::Known;
use rhumb_codec::head::{RequestHead, ResponseHead};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::exchange::{Exchange, Reply};
use crate::keyed::{Now, nanos};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};
use crate::quantity;

pub use watched::{Standing, Watched};

/// What the expression can ask.
pub static WINDOW: Schema = Schema {
    fields: &[
        Field { name: "requests", kind: Kind::Int, doc: "Responses in the window." },
        Field { name: "failures", kind: Kind::Int, doc: "Those that are failures." },
        Field {
            name: "errorRatio",
            kind: Kind::Double,
            doc: "Failures among them, 0 to 1; 0 without responses.",
        },
        Field {
            name: "p50",
            kind: Kind::Duration,
            doc: "Half of the responses began within this time; 0 without any.",
        },
        Field { name: "p90", kind: Kind::Duration, doc: "The same of 90 percent." },
        Field { name: "p95", kind: Kind::Duration, doc: "The same of 95 percent." },
        Field { name: "p99", kind: Kind::Duration, doc: "The same of 99 percent." },
    ],
};

/// Parts that a window is counted in.
const SLICES: usize = 10;

/// Sizes of latencies that are told apart: four to each doubling of microseconds, up to about a minute and beyond.
const BUCKETS: usize = 108;

/// How often the expression is evaluated. **Unit**: nanoseconds.
const CHECK: u64 = 100_000_000;

/// Most probes at a time.
const PROBES_MAX: u32 = 1000;

/// The longest window, pause and ramp.
const TIME_MAX: Duration = Duration::from_secs(3600);

/// Refuses requests while a backend only fails.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// When the circuit opens: a CEL condition over `requests`, `failures`, `errorRatio`, `p50`, `p90`, `p95` and `p99` of the
    /// window: `requests >= 20 && errorRatio > 0.5`.
    pub open: String,
    /// Statuses that are failures. Default: 500 to 599.
    #[serde(default)]
    pub statuses: Option<Vec<u16>>,
    /// How far back responses count: a duration, 1s to 1h. Default: 10s.
    #[serde(default)]
    pub window: Option<String>,
    /// How long the circuit stays open before it is probed: a duration. Default: 5s.
    #[serde(default)]
    pub pause: Option<String>,
    /// Requests that are let through as probes at a time, and have to succeed: 1 to 1000. Default: 1.
    #[serde(default)]
    pub probes: Option<u32>,
    /// How long it takes until all requests pass again: a duration. Default: 10s.
    #[serde(default)]
    pub ramp: Option<String>,
}

/// A compiled circuit breaker.
pub struct CircuitBreaker {
    inner: Box<Inner>,
}

struct Inner {
    open: Program,
    /// Empty: 500 to 599.
    statuses: Box<[u16]>,
    /// **Unit**: nanoseconds, as those below.
    slice: u64,
    pause: u64,
    ramp: u64,
    probes: u32,
    circuit: Arc<Circuit>,
}

/// The state that all workers see.
struct Circuit {
    slices: [Slice; SLICES],
    /// When the expression is evaluated next. **Unit**: [`Now::steady`], as those below.
    check_at: AtomicU64,
    /// Open until then; 0 when it is closed and was ramped up.
    open_until: AtomicU64,
    /// When the ramp began; 0 while there is none.
    ramp_from: AtomicU64,
    /// Probes that are under way.
    probes: AtomicU32,
    /// Probes that succeeded.
    successes: AtomicU32,
    /// Requests on the ramp, to let the right share of them pass.
    turns: AtomicU64,
    /// How often it opened after it was closed.
    openings: AtomicU32,
}

/// Responses of a part of the window.
struct Slice {
    /// Which part.
    number: AtomicU64,
    failures: AtomicU32,
    latencies: [AtomicU32; BUCKETS],
}

impl Default for Circuit {
    fn default() -> Self {
        let slice = |_| Slice {
            number: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            latencies: std::array::from_fn(|_| AtomicU32::new(0)),
        };
        Self {
            slices: std::array::from_fn(slice),
            check_at: AtomicU64::new(0),
            open_until: AtomicU64::new(0),
            ramp_from: AtomicU64::new(0),
            probes: AtomicU32::new(0),
            successes: AtomicU32::new(0),
            turns: AtomicU64::new(0),
            openings: AtomicU32::new(0),
        }
    }
}

/// What is remembered of a request.
#[derive(Default)]
pub struct State {
    /// It passed: its response counts.
    passed: bool,
    probe: Option<Arc<Probe>>,
}

/// A probe that is under way. Dropped without a result, it was none.
struct Probe(Arc<Circuit>);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.probes.fetch_sub(1, Relaxed);
    }
}

/// What becomes of a request.
enum Way {
    Pass,
    Probe,
    /// Refused; so long until it is worth another try.
    Refuse(u64),
}

impl HttpPolicy for CircuitBreaker {
    const KIND: &'static str = "circuitBreaker";
    const HOOKS: Hooks = Hooks::REQUEST.or(Hooks::RESPONSE);
    const ATTACH: Attach = Attach::FRONT.or(Attach::BACKEND);
    const MERGE: Merge = Merge::Union;
    type Spec = Spec;
    type State = State;

    fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        let open = Program::condition(&spec.open, &WINDOW)
            .map_err(|error| Invalid::new("open", error.tell(&spec.open), error.fix))?;
        let time = |field: &str, text: Option<&str>, default: Duration, least: Duration| {
            let time = quantity::positive(field, text)?.unwrap_or(default);
            if time < least || time > TIME_MAX {
                return Err(Invalid::new(
                    field,
                    format!("is {least:?} to 1h"),
                    "leave it out for the default",
                ));
            }
            Ok(nanos(time))
        };
        let window = time("window", spec.window.as_deref(), Duration::from_secs(10), Duration::from_secs(1))?;
        let short = Duration::from_millis(100);
        let pause = time("pause", spec.pause.as_deref(), Duration::from_secs(5), short)?;
        let ramp = time("ramp", spec.ramp.as_deref(), Duration::from_secs(10), short)?;
        let probes = spec.probes.unwrap_or(1);
        if !(1..=PROBES_MAX).contains(&probes) {
            return Err(Invalid::new("probes", format!("is 1 to {PROBES_MAX}"), "leave it out for 1"));
        }
        let statuses = spec.statuses.unwrap_or_default();
        if let Some(at) = statuses.iter().position(|status| !(100..600).contains(status)) {
            return Err(Invalid::new(format!("statuses[{at}]"), "is no status", "write 100 to 599"));
        }
        let slice = window.div_ceil(SLICES as u64);
        let circuit = cx.keep("circuit", Circuit::default);
        let inner = Inner { open, statuses: statuses.into(), slice, pause, ramp, probes, circuit };
        Ok(Self { inner: Box::new(inner) })
    }

    fn on_request(&self, _: &mut RequestHead, state: &mut State, cx: &mut Exchange<'_>) -> Verdict {
        // A request that is only thought through is told nothing of the moment.
        if cx.began.is_none() {
            return Verdict::Continue;
        }
        let now = Now::late(cx).steady;
        match self.inner.way(now) {
            Way::Pass => state.passed = true,
            Way::Probe => {
                let probe = Arc::new(Probe(Arc::clone(&self.inner.circuit)));
                let guard: Box<dyn Any> = Box::new(Arc::clone(&probe));
                cx.found.guards.push(guard);
                (state.passed, state.probe) = (true, Some(probe));
            }
            Way::Refuse(wait) => {
                let mut reply = Reply::refuse(Cause::CircuitOpen);
                let wait = wait.div_ceil(1_000_000_000).max(1);
                reply.fields().set(Known::RetryAfter, itoa::Buffer::new().format(wait).as_bytes());
                return Verdict::Respond(reply);
            }
        }
        Verdict::Continue
    }

    fn on_response(&self, rsp: &mut ResponseHead, state: &mut State, cx: &mut Exchange<'_>) {
        let Some(begun) = Now::of(cx).filter(|_| state.passed) else { return };
        let now = Now::late(cx).steady;
        let is_failure = match &*self.inner.statuses {
            [] => rsp.status >= 500,
            statuses => statuses.contains(&rsp.status),
        };
        self.inner.learn(now, now.saturating_sub(begun.steady), is_failure, state.probe.take().is_some());
    }
}

impl Inner {
    fn way(&self, now: u64) -> Way {
        let circuit = &self.circuit;
        let until = circuit.open_until.load(Relaxed);
        if until == 0 {
            return self.ramped(now);
        }
        if now < until {
            return Way::Refuse(until - now);
        }
        // Half open. Those that succeeded already have not to be asked for again.
        let wanted = self.probes.saturating_sub(circuit.successes.load(Relaxed)).max(1);
        let taken = circuit.probes.fetch_add(1, Relaxed);
        if taken < wanted {
            return Way::Probe;
        }
        circuit.probes.fetch_sub(1, Relaxed);
        Way::Refuse(0)
    }

    /// Closed: on the ramp only a growing share passes.
    fn ramped(&self, now: u64) -> Way {
        let circuit = &self.circuit;
        let from = circuit.ramp_from.load(Relaxed);
        if from == 0 {
            return Way::Pass;
        }
        let passed = now.saturating_sub(from);
        if passed >= self.ramp {
            circuit.ramp_from.store(0, Relaxed);
            return Way::Pass;
        }
        // Of each 100 requests the first so many, in an order that spreads them: 37 and 100 have no common factor.
        let turn = circuit.turns.fetch_add(37, Relaxed) % 100;
        let share = u128::from(passed) * 100 / u128::from(self.ramp.max(1));
        if u128::from(turn) < share.max(1) { Way::Pass } else { Way::Refuse(self.ramp - passed) }
    }

    fn learn(&self, now: u64, latency: u64, is_failure: bool, is_probe: bool) {
        let circuit = &self.circuit;
        if is_probe {
            if is_failure {
                self.trip(now);
            } else if circuit.successes.fetch_add(1, Relaxed) + 1 >= self.probes {
                // What the window had when it opened says nothing of what is now.
                circuit.forget();
                circuit.ramp_from.store(now, Relaxed);
                circuit.open_until.store(0, Relaxed);
                circuit.successes.store(0, Relaxed);
            }
            return;
        }
        if circuit.open_until.load(Relaxed) != 0 {
            // Of before it opened.
            return;
        }
        circuit.count(now / self.slice.max(1), latency, is_failure);
        let due = circuit.check_at.load(Relaxed);
        let is_mine = now >= due
            && circuit.check_at.compare_exchange(due, now.saturating_add(CHECK), Relaxed, Relaxed).is_ok();
        // An expression without a value opens nothing.
        if is_mine && self.open.holds(&circuit.window(now / self.slice.max(1))).unwrap_or(false) {
            self.trip(now);
        }
    }

    fn trip(&self, now: u64) {
        let circuit = &self.circuit;
        circuit.successes.store(0, Relaxed);
        circuit.ramp_from.store(0, Relaxed);
        if circuit.open_until.swap(now.saturating_add(self.pause), Relaxed) == 0 {
            circuit.openings.fetch_add(1, Relaxed);
        }
        circuit.forget();
    }
}

impl Circuit {
    /// Counts a response. Two workers that begin a slice at the same moment may lose a few.
    fn count(&self, number: u64, latency: u64, is_failure: bool) {
        let at = usize::try_from(number % SLICES as u64).unwrap_or(0);
        let Some(slice) = self.slices.get(at) else { return };
        let before = slice.number.load(Relaxed);
        if before != number && slice.number.compare_exchange(before, number, Relaxed, Relaxed).is_ok() {
            slice.clear();
        }
        slice.failures.fetch_add(u32::from(is_failure), Relaxed);
        if let Some(bucket) = slice.latencies.get(bucket(latency)) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    fn forget(&self) {
        self.slices.iter().for_each(Slice::clear);
    }

    fn window(&self, number: u64) -> Window {
        let mut window = Window { requests: 0, failures: 0, latencies: [0; BUCKETS] };
        let latest = |slice: &&Slice| {
            let at = slice.number.load(Relaxed);
            at <= number && number - at < SLICES as u64
        };
        for slice in self.slices.iter().filter(latest) {
            window.failures += u64::from(slice.failures.load(Relaxed));
            for (sum, bucket) in window.latencies.iter_mut().zip(&slice.latencies) {
                let count = u64::from(bucket.load(Relaxed));
                *sum += count;
                window.requests += count;
            }
        }
        window
    }
}

impl Slice {
    fn clear(&self) {
        self.failures.store(0, Relaxed);
        self.latencies.iter().for_each(|bucket| bucket.store(0, Relaxed));
    }
}

/// The bucket of a latency: four to each doubling.
fn bucket(nanos: u64) -> usize {
    let micros = (nanos / 1000).max(4);
    let power = micros.ilog2();
    let quarter = (micros >> (power - 2)) & 3;
    let at = (u64::from(power) - 2) * 4 + quarter;
    usize::try_from(at).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The longest latency of a bucket. **Unit**: nanoseconds.
fn longest(bucket: usize) -> i64 {
    let (power, quarter) = (bucket / 4 + 2, bucket % 4 + 5);
    i64::try_from(quarter).unwrap_or(8).saturating_mul(1000) << (power - 2)
}

/// What the expression sees.
struct Window {
    requests: u64,
    failures: u64,
    latencies: [u64; BUCKETS],
}

impl Window {
    fn quantile(&self, percent: u64) -> Value<'_> {
        let rank = (self.requests * percent).div_ceil(100).max(1);
        let mut sum = 0;
        let found = self.latencies.iter().position(|count| {
            sum += count;
            sum >= rank
        });
        Value::Duration(found.map_or(0, longest))
    }
}

impl Object for Window {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        let int = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
        Some(match name {
            "requests" => int(self.requests),
            "failures" => int(self.failures),
            "errorRatio" => Value::Double(self.failures as f64 / self.requests.max(1) as f64),
            "p50" => self.quantile(50),
            "p90" => self.quantile(90),
            "p95" => self.quantile(95),
            "p99" => self.quantile(99),
            _ => return None,
        })
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        let _ = WINDOW.fields.iter().all(|field| each(field.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use serde_json::json;

    const MS: u64 = 1_000_000;
    const BASE: u64 = 1 << 62;

    fn policy(body: serde_json::Value) -> Result<CircuitBreaker, Invalid> {
        compile_alone(serde_json::from_value(body).unwrap())
    }

    fn passes(inner: &Inner, now: u64) -> bool {
        matches!(inner.way(BASE + now), Way::Pass)
    }

    #[test]
    fn it_opens_is_probed_and_closes_along_a_ramp() {
        let body = json!({ "open": "requests >= 10 && errorRatio >= 0.5", "pause": "1s", "ramp": "1s", "probes": 2 });
        let breaker = policy(body).unwrap();
        let inner = &breaker.inner;
        for n in 0..9 {
            inner.learn(BASE + n * 200 * MS, MS, true, false);
            assert!(passes(inner, n * 200 * MS), "too few to judge");
        }
        inner.learn(BASE + 2000 * MS, MS, true, false);
        assert!(matches!(inner.way(BASE + 2000 * MS), Way::Refuse(wait) if wait == 1000 * MS));
        // Half open: two probes at a time, of which one fails.
        let probe = |now: u64| match inner.way(BASE + now) {
            Way::Probe => Some(Probe(Arc::clone(&inner.circuit))),
            _ => None,
        };
        let (first, second) = (probe(3000 * MS), probe(3000 * MS));
        assert!(first.is_some() && second.is_some() && probe(3000 * MS).is_none());
        inner.learn(BASE + 3100 * MS, MS, true, true);
        drop((first, second));
        assert!(probe(4000 * MS).is_none(), "open for another second");
        let first = probe(4100 * MS);
        assert!(first.is_some());
        inner.learn(BASE + 4100 * MS, MS, false, true);
        drop(first);
        let second = probe(4100 * MS);
        assert!(second.is_some() && probe(4100 * MS).is_none(), "one more has to succeed");
        inner.learn(BASE + 4200 * MS, MS, false, true);
        drop(second);
        for (at, share) in [(4300, 10), (4700, 50), (5100, 90)] {
            let passed = (0..100).filter(|_| passes(inner, at * MS)).count();
            assert_eq!(passed, share);
        }
        assert!((0..100).all(|_| passes(inner, 5200 * MS)));
        assert_eq!(breaker.watched().openings(), 1);
    }

    #[test]
    fn a_probe_without_an_answer_makes_room_for_another() {
        let breaker = policy(json!({ "open": "failures >= 1", "pause": "1s" })).unwrap();
        breaker.inner.learn(BASE, MS, true, false);
        let Way::Probe = breaker.inner.way(BASE + 2000 * MS) else { panic!("no probe") };
        assert!(matches!(breaker.inner.way(BASE + 2000 * MS), Way::Refuse(0)));
        drop(Probe(Arc::clone(&breaker.inner.circuit)));
        assert!(matches!(breaker.inner.way(BASE + 2000 * MS), Way::Probe));
    }

    #[test]
    fn latencies_open_it_too_and_old_ones_are_forgotten() {
        let breaker = policy(json!({ "open": "p90 > duration('100ms')", "window": "1s" })).unwrap();
        let inner = &breaker.inner;
        for n in 0..80 {
            inner.learn(BASE + n * MS, 5 * MS, false, false);
        }
        for n in 0..20 {
            inner.learn(BASE + (200 + n) * MS, 300 * MS, false, false);
        }
        inner.learn(BASE + 400 * MS, 5 * MS, false, false);
        assert!(!passes(inner, 400 * MS));
        let breaker = policy(json!({ "open": "p90 > duration('100ms')", "window": "1s" })).unwrap();
        let inner = &breaker.inner;
        inner.circuit.check_at.store(BASE + 1500 * MS, Relaxed);
        (0..20).for_each(|n| inner.learn(BASE + n * MS, 300 * MS, false, false));
        inner.learn(BASE + 1500 * MS, 5 * MS, false, false);
        assert!(passes(inner, 1500 * MS));
    }

    #[test]
    fn latencies_are_known_to_a_quarter_of_a_doubling() {
        for micros in [1u64, 4, 5, 7, 8, 100, 1000, 12_345, 1_000_000, 60_000_000] {
            let top = longest(bucket(micros * 1000));
            let nanos = i64::try_from(micros.max(4) * 1000).unwrap();
            assert!(top > nanos && top <= nanos * 5 / 4 + 1000, "{micros}: {top}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (body, field) in [
            (json!({ "open": "errors > 0.5" }), "open"),
            (json!({ "open": "requests" }), "open"),
            (json!({ "open": "true", "window": "10ms" }), "window"),
            (json!({ "open": "true", "probes": 0 }), "probes"),
            (json!({ "open": "true", "statuses": [500, 700] }), "statuses[1]"),
        ] {
            assert_eq!(policy(body).err().unwrap().field, field);
        }
    }
}
