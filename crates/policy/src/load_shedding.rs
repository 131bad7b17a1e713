//! Find out how many requests a backend can have at a time, and refuse the rest, the least dear first.
//!
//! The limit follows the latency that is measured, as congestion control follows the round trip: while responses take about
//! as long as they take at best, it grows; when they take longer, requests queue somewhere, and it shrinks by the ratio of
//! the two (a gradient, as in Netflix' concurrency-limits and Envoy). What is best is found out anew once a minute, when the
//! limit is lowered for half a second. Low requests are refused from 80 % of the limit on, normal
//! ones from 90 %, so that high ones still pass. All workers see one limit per policy, and reloads keep it.
//!
//! Costs per request a few operations on counters that workers share, one allocation, and per response a lock that nobody
//! waits for: a response that finds it taken is not measured.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use rhumb_base::failure::Cause;
use rhumb_cel::Program;
use rhumb_codec::field::Known;
use rhumb_codec::head::{RequestHead, ResponseHead};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::attributes::{Attributes, SCHEMA};
use crate::context::Context;
use crate::exchange::{Exchange, Reply};
use crate::keyed::Now;
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};

/// The limit when nothing has been measured.
const INITIAL: u32 = 20;

/// Largest limit that can be written.
const LIMIT_MAX: u32 = 1_000_000;

/// A window of measurements has at least so many responses and takes at least so long. **Unit** of the time: nanoseconds.
const WINDOW: (u32, u64) = (10, 100_000_000);

/// How much of a window's result is taken over at once.
const SMOOTHING: f64 = 0.2;

/// Windows until what takes longer than at best is taken for the best: ten minutes and more.
const MEMORY: f64 = 6_000.0;

/// How much of a window that is better is taken over at once: one lucky window is not the best.
const BETTER: f64 = 0.3;

/// So often, in windows, the limit is lowered for so many windows, to see what is best.
const DIP: (u64, u32) = (600, 5);

/// To what share of what the tolerance lets it exceed the best by: below it nothing queues.
const DIP_DEPTH: f64 = 0.75;

/// Limits requests by the latency that is measured.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// The limit never falls below. At least 1. Default: 10.
    #[serde(default)]
    pub min: Option<u32>,
    /// The limit never rises above. Default: 1000.
    #[serde(default)]
    pub max: Option<u32>,
    /// How much longer than at best responses may take before the limit shrinks: a factor from 1 to 10. Default: 1.5.
    #[serde(default)]
    pub tolerance: Option<f64>,
    /// Which requests are refused last: a CEL condition. Default: none.
    #[serde(default)]
    pub high: Option<String>,
    /// Which requests are refused first: a CEL condition. `high` wins. Default: none.
    #[serde(default)]
    pub low: Option<String>,
}

/// A compiled policy.
pub struct LoadShedding {
    high: Option<Program>,
    low: Option<Program>,
    bounds: Bounds,
    load: Arc<Load>,
}

#[derive(Clone, Copy)]
struct Bounds {
    min: f64,
    max: f64,
    tolerance: f64,
}

/// What all workers see.
struct Load {
    under_way: AtomicU32,
    limit: AtomicU32,
    measured: Mutex<Measured>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            under_way: AtomicU32::new(0),
            limit: AtomicU32::new(INITIAL),
            measured: Mutex::new(Measured { limit: INITIAL.into(), ..Measured::default() }),
        }
    }
}

/// Measurements. Times in nanoseconds.
#[derive(Default)]
struct Measured {
    limit: f64,
    /// The latency at best.
    best: f64,
    windows: u64,
    /// Windows for which the limit is still lowered.
    dip: u32,
    begun: u64,
    count: u32,
    sum: f64,
    most_under_way: u32,
}

impl Measured {
    /// Takes a response into account; the new limit when a window is complete.
    fn learn(&mut self, now: u64, latency: u64, under_way: u32, bounds: Bounds) -> Option<f64> {
        if self.count == 0 {
            self.begun = now;
        }
        self.count += 1;
        self.sum += latency as f64;
        self.most_under_way = self.most_under_way.max(under_way);
        if self.count < WINDOW.0 || now.saturating_sub(self.begun) < WINDOW.1 {
            return None;
        }
        let latest = (self.sum / f64::from(self.count)).max(1.0);
        let most = f64::from(self.most_under_way);
        (self.count, self.sum, self.most_under_way) = (0, 0.0, 0);
        self.windows += 1;
        self.best += match latest - self.best {
            _ if self.best <= 0.0 => latest,
            more if more < 0.0 => more * BETTER,
            more => more / MEMORY,
        };
        let lowered = (self.limit * DIP_DEPTH / bounds.tolerance).max(bounds.min);
        if self.dip > 0 {
            self.dip -= 1;
            return Some(if self.dip > 0 { lowered } else { self.limit });
        }
        if self.windows.is_multiple_of(DIP.0) && most >= self.limit / 2.0 {
            self.dip = DIP.1;
            return Some(lowered);
        }
        let gradient = (bounds.tolerance * self.best / latest).clamp(0.5, 1.0);
        // What is not used up is not known to be too little.
        if gradient >= 1.0 && most < self.limit / 2.0 {
            return None;
        }
        let wanted = self.limit * gradient + self.limit.sqrt();
        let limit = self.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING;
        self.limit = limit.clamp(bounds.min, bounds.max);
        Some(self.limit)
    }
}

/// A request that is under way.
struct UnderWay(Arc<Load>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// What is remembered of a request.
#[derive(Default)]
pub struct State {
    /// How many were under way with it; 0 when it was refused.
    under_way: u32,
}

impl HttpPolicy for LoadShedding {
    const KIND: &'static str = "loadShedding";
    const HOOKS: Hooks = Hooks::REQUEST.or(Hooks::RESPONSE);
    const ATTACH: Attach = Attach::FRONT.or(Attach::BACKEND);
    const MERGE: Merge = Merge::Union;
    type Spec = Spec;
    type State = State;

    fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        let (min, max) = (spec.min.unwrap_or(10), spec.max.unwrap_or(1000));
        for (field, value) in [("min", min), ("max", max)] {
            if !(1..=LIMIT_MAX).contains(&value) {
                return Err(Invalid::new(
                    field,
                    format!("is 1 to {LIMIT_MAX}"),
                    "leave it out for the default",
                ));
            }
        }
        if min > max {
            return Err(Invalid::new("min", "is larger than `max`", "write it smaller"));
        }
        let tolerance = spec.tolerance.unwrap_or(1.5);
        if !(1.0..=10.0).contains(&tolerance) {
            return Err(Invalid::new("tolerance", "is 1 to 10", "leave it out for 1.5"));
        }
        let condition = |field: &str, text: Option<String>| {
            let read = |text: String| {
                Program::condition(&text, &SCHEMA)
                    .map_err(|error| Invalid::new(field, error.tell(&text), error.fix))
            };
            text.map(read).transpose()
        };
        let (high, low) = (condition("high", spec.high)?, condition("low", spec.low)?);
        let bounds = Bounds { min: min.into(), max: max.into(), tolerance };
        Ok(Self { high, low, bounds, load: cx.keep("load", Load::default) })
    }

    fn on_request(&self, req: &mut RequestHead, state: &mut State, cx: &mut Exchange<'_>) -> Verdict {
        // A request that is only thought through is no load.
        if cx.began.is_none() {
            return Verdict::Continue;
        }
        let under_way = self.load.under_way.fetch_add(1, Relaxed) + 1;
        let guard = UnderWay(Arc::clone(&self.load));
        let limit = f64::from(self.load.limit.load(Relaxed)).clamp(self.bounds.min, self.bounds.max);
        // Nobody looks at who asks while there is room for everybody.
        if f64::from(under_way) > limit * 0.8 && f64::from(under_way) > limit * self.share(req, cx) {
            let mut reply = Reply::refuse(Cause::LoadShed);
            reply.fields().set(Known::RetryAfter, b"1");
            return Verdict::Respond(reply);
        }
        cx.found.guards.push(Box::new(guard));
        state.under_way = under_way;
        Verdict::Continue
    }

    fn on_response(&self, rsp: &mut ResponseHead, state: &mut State, cx: &mut Exchange<'_>) {
        // An answer that is no work says nothing of how long work takes; one that took too long does.
        if state.under_way == 0 || (rsp.status >= 500 && rsp.status != 504) {
            return;
        }
        let Some(begun) = Now::of(cx) else { return };
        let now = Now::late(cx).steady;
        if let Ok(mut measured) = self.load.measured.try_lock()
            && let Some(limit) =
                measured.learn(now, now.saturating_sub(begun.steady), state.under_way, self.bounds)
        {
            // At most LIMIT_MAX.
            self.load.limit.store(limit.ceil() as u32, Relaxed);
        }
    }
}

impl LoadShedding {
    /// The share of the limit that such a request may use.
    #[cold]
    fn share(&self, req: &RequestHead, cx: &Exchange<'_>) -> f64 {
        let attributes = Attributes::new(req, cx);
        let holds = |condition: &Option<Program>| {
            condition.as_ref().is_some_and(|condition| condition.holds(&attributes).unwrap_or(false))
        };
        match () {
            () if holds(&self.high) => 1.0,
            () if holds(&self.low) => 0.8,
            () => 0.9,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use rhumb_codec::head::Scheme;
    use serde_json::json;

    const MS: u64 = 1_000_000;
    const BOUNDS: Bounds = Bounds { min: 5.0, max: 500.0, tolerance: 1.5 };

    /// The limit after so many seconds before a backend that has `places`, each taken for 20 ms, and clients that always
    /// want more.
    fn settle(measured: &mut Measured, places: f64, seconds: u64) -> f64 {
        let (mut limit, from) = (measured.limit, measured.begun);
        for n in 0..seconds * 200 {
            let under_way = limit.floor();
            // What is more than there are places waits.
            let latency = 20.0 * (under_way / places).max(1.0);
            if let Some(told) =
                measured.learn(from + n * 5 * MS, (latency * 1e6) as u64, under_way as u32, BOUNDS)
            {
                limit = told;
            }
        }
        measured.limit
    }

    #[test]
    fn the_limit_follows_what_the_backend_can_do() {
        let mut measured = Measured { limit: 20.0, ..Measured::default() };
        // However long it has too much to do.
        for seconds in [30, 300, 3000] {
            let wide = settle(&mut measured, 100.0, seconds);
            assert!((100.0..200.0).contains(&wide), "{wide} after {seconds} s");
        }
        let wide = measured.limit;
        let narrow = settle(&mut measured, 20.0, 20);
        assert!(narrow < wide / 2.0, "{narrow} after {wide}");
        let again = settle(&mut measured, 100.0, 60);
        assert!(again > narrow * 1.5, "{again} after {narrow}");
    }

    #[test]
    fn without_load_nothing_is_learned() {
        let mut measured = Measured { limit: 20.0, ..Measured::default() };
        for n in 0..10_000 {
            measured.learn(n * 5 * MS, 20 * MS, 1, BOUNDS);
        }
        assert!((20.0 - measured.limit).abs() < f64::EPSILON);
    }

    #[test]
    fn the_least_dear_are_refused_first() {
        let body = json!({ "min": 10, "max": 10, "high": "request.path == '/high'", "low": "request.path == '/low'" });
        let policy = compile_alone::<LoadShedding>(serde_json::from_value(body).unwrap()).unwrap();
        let mut held = Vec::new();
        let mut ask = |path: &str| {
            let mut req = RequestHead::new();
            req.set_target(path.as_bytes());
            let mut cx = Exchange {
                began: Some(std::time::Instant::now()),
                ..Exchange::new([127, 0, 0, 1].into(), Scheme::Http, 80)
            };
            let passes =
                matches!(policy.on_request(&mut req, &mut State::default(), &mut cx), Verdict::Continue);
            held.append(&mut cx.found.guards);
            passes
        };
        assert!((0..8).all(|_| ask("/low")));
        assert!(!ask("/low") && ask("/normal"));
        assert!(!ask("/normal") && ask("/high"));
        assert!(!ask("/high"));
        held.clear();
        assert_eq!(policy.load.under_way.load(Relaxed), 0);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (body, field) in [
            (json!({ "min": 0 }), "min"),
            (json!({ "min": 9, "max": 8 }), "min"),
            (json!({ "tolerance": 0.5 }), "tolerance"),
            (json!({ "low": "request.size" }), "low"),
        ] {
            let invalid = compile_alone::<LoadShedding>(serde_json::from_value(body).unwrap()).err().unwrap();
            assert_eq!(invalid.field, field);
        }
    }
}
