//! One endpoint: who it is and what the workers have learned about it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::evidence::{Evidence, Reading};
use crate::hash;
use crate::health::Outcome;
use crate::load::{Nanos, PeakEwma};
use crate::set::Pick;
use crate::story::{Gate, Story};

/// A failure raises an endpoint's latency to this many times what it was, so that failing quickly does not attract
/// requests.
pub const FAILURE_FACTOR: u64 = 10;

/// Least latency that a failure is multiplied from.
pub const FAILURE_FLOOR: Duration = Duration::from_millis(1);

/// Most that failures raise a latency to.
pub const FAILURE_CAP: Duration = Duration::from_secs(10);

/// What a source of endpoints says about one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Where to connect.
    pub address: SocketAddr,
    /// The name it was found by, if any: for TLS server names and for telling endpoints behind one address apart.
    pub hostname: Option<Arc<str>>,
    /// Share of requests relative to the other endpoints. 0: none. **Default**: 1.
    pub weight: u32,
    /// Where it runs.
    pub zone: Option<Arc<str>>,
    /// Its level: endpoints of a higher number are for when those of the lower ones are not enough. **Default**: 0.
    pub priority: u32,
    /// The port of the proxy in front of it, which connections are made to instead; 0 where there is none. **Default**: 0.
    pub tunnel: u16,
}

impl EndpointSpec {
    /// An endpoint with weight 1 that is known by its address alone.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, hostname: None, weight: 1, zone: None, priority: 0, tunnel: 0 }
    }
}

/// One endpoint, shared by all workers. Its identity is address and hostname; while a backend has it, it keeps its
/// counters through every change of the set.
#[derive(Debug)]
pub struct Endpoint {
    counters: Counters,
    address: SocketAddr,
    hostname: Option<Arc<str>>,
    tunnel: u16,
    identity: u64,
    label: Box<str>,
    story: Mutex<Story>,
    /// Nobody has looked at it yet.
    is_unknown: AtomicBool,
}

/// On a cache line of its own: written with each request.
#[derive(Debug)]
#[repr(align(64))]
struct Counters {
    latency: PeakEwma,
    evidence: Evidence,
    in_flight: AtomicU32,
    /// See [`Gate`].
    gate: AtomicU32,
    started: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    throttled: AtomicU64,
    /// A request is trying it.
    is_tried: AtomicBool,
}

const _: () = assert!(size_of::<Counters>() == 64, "one cache line");

/// What a draw of an endpoint comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Refused,
    Granted,
    /// To try it; nobody else does until [`InFlight`] ends.
    Probe,
}

impl Endpoint {
    /// An endpoint that nothing is known about, but a latency to begin with.
    pub(crate) fn new(spec: &EndpointSpec, latency_ns: Option<u64>, now: Nanos) -> Self {
        let counters = Counters {
            latency: PeakEwma::starting_at(latency_ns, now),
            evidence: Evidence::new(),
            in_flight: AtomicU32::new(0),
            gate: AtomicU32::new(Gate::OPEN.0),
            started: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            is_tried: AtomicBool::new(false),
        };
        Self {
            counters,
            address: spec.address,
            hostname: spec.hostname.clone(),
            tunnel: spec.tunnel,
            identity: identity(spec),
            label: spec.address.to_string().into(),
            story: Mutex::new(Story::new(now)),
            is_unknown: AtomicBool::new(true),
        }
    }

    /// Where to connect.
    #[inline]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address as text, for logs.
    #[inline]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The name it was found by.
    #[inline]
    pub fn hostname(&self) -> Option<&Arc<str>> {
        self.hostname.as_ref()
    }

    /// The port of the proxy in front of it; 0 where there is none.
    #[inline]
    pub fn tunnel(&self) -> u16 {
        self.tunnel
    }

    /// A hash of address, hostname and tunnel.
    #[inline]
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// True when it may be chosen as usual, if with a smaller share. Endpoints may until something says otherwise.
    #[inline]
    pub fn is_eligible(&self) -> bool {
        self.gate().0 > Gate::PROBE_ANY.0
    }

    /// Who may choose it.
    #[inline]
    pub fn gate(&self) -> Gate {
        Gate(self.counters.gate.load(Relaxed))
    }

    /// Says who may choose it, until its health says otherwise. Requests that are under way go on.
    pub fn set_gate(&self, gate: Gate) {
        self.counters.gate.store(gate.0, Relaxed);
    }

    /// Whether a request that has drawn it may have it.
    #[inline]
    pub(crate) fn admit(&self, ask: &Pick<'_>) -> Admission {
        let gate = self.gate();
        if gate == Gate::OPEN { Admission::Granted } else { self.admit_some(gate, ask) }
    }

    #[cold]
    fn admit_some(&self, gate: Gate, ask: &Pick<'_>) -> Admission {
        match gate {
            Gate::SHUT => Admission::Refused,
            Gate::PROBE if !ask.may_probe => Admission::Refused,
            Gate::PROBE | Gate::PROBE_ANY => {
                if self.counters.is_tried.swap(true, Relaxed) {
                    Admission::Refused
                } else {
                    Admission::Probe
                }
            }
            Gate(share) => {
                // A key that may not go here now may not a moment later either; requests without one differ by time.
                let seed = ask.key.unwrap_or_else(|| ask.now.0.wrapping_add(self.started().rotate_left(40)));
                let draw = (hash::mix(hash::mix(seed) ^ self.identity) >> 32) as u32;
                if draw < share { Admission::Granted } else { Admission::Refused }
            }
        }
    }

    /// Requests under way, of all workers.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.counters.in_flight.load(Relaxed)
    }

    /// Peak EWMA of its latency in nanoseconds; `None` when nothing is known.
    #[inline]
    pub fn latency_ns(&self, now: Nanos) -> Option<u64> {
        self.counters.latency.latency_ns(now)
    }

    /// Requests that were started since it is known.
    pub fn started(&self) -> u64 {
        self.counters.started.load(Relaxed)
    }

    /// Requests that ended with success.
    pub fn succeeded(&self) -> u64 {
        self.counters.succeeded.load(Relaxed)
    }

    /// Requests that ended with failure.
    pub fn failed(&self) -> u64 {
        self.counters.failed.load(Relaxed)
    }

    /// Requests that it answered with a wish for less.
    pub fn throttled(&self) -> u64 {
        self.counters.throttled.load(Relaxed)
    }

    /// Counts a request in, until the guard is finished or dropped.
    #[inline]
    pub fn start(self: &Arc<Self>) -> InFlight {
        self.counters.in_flight.fetch_add(1, Relaxed);
        self.counters.started.fetch_add(1, Relaxed);
        InFlight { endpoint: Arc::clone(self), is_probe: false, quota: None }
    }

    /// Forgets the latency it had for this one.
    pub(crate) fn set_latency(&self, latency: Duration, now: Nanos) {
        self.counters.latency.restart(latency, now);
    }

    /// True until somebody has looked at it.
    pub(crate) fn is_unknown(&self) -> bool {
        self.is_unknown.load(Relaxed)
    }

    pub(crate) fn know(&self) {
        self.is_unknown.store(false, Relaxed);
    }

    pub(crate) fn evidence(&self) -> &Evidence {
        &self.counters.evidence
    }

    pub(crate) fn story(&self) -> MutexGuard<'_, Story> {
        self.story.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hostname {
            Some(hostname) => write!(f, "{} ({hostname})", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

/// A request under way. Dropping it without an outcome (the client went away) counts it out and teaches nothing.
#[derive(Debug)]
#[must_use = "the request counts as under way until this is dropped"]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    is_probe: bool,
    /// Where it counts against a limit of its backend.
    pub(crate) quota: Option<crate::quota::Taken>,
}

impl InFlight {
    /// The endpoint.
    #[inline]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// True when the request tries an endpoint that is out.
    #[inline]
    pub fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Others may try it now.
    pub(crate) fn end_probe(&mut self) {
        if std::mem::take(&mut self.is_probe) {
            self.endpoint.counters.is_tried.store(false, Relaxed);
        }
    }

    pub(crate) fn probe(mut self) -> Self {
        self.is_probe = true;
        self
    }

    /// The request ended, and nobody judges ([`crate::Endpoints::finish`] does).
    #[inline]
    pub fn finish(self, latency: Duration, outcome: Outcome, now: Nanos) {
        self.count(latency, outcome, now);
    }

    /// Counts the end of the request: `latency` is the time from sending it to the head of its answer, or to the
    /// failure. Gives what the last requests say together, if they say anything.
    #[inline]
    pub(crate) fn count(&self, latency: Duration, outcome: Outcome, now: Nanos) -> Option<Reading> {
        let counters = &self.endpoint.counters;
        let Some(mark) = outcome.mark() else {
            // Saying no is quick: it must not look like being quick.
            counters.throttled.fetch_add(1, Relaxed);
            return None;
        };
        if outcome.is_penalised() {
            counters.latency.penalise(latency, FAILURE_FACTOR, FAILURE_FLOOR, FAILURE_CAP, now);
        } else {
            counters.latency.observe(latency, now);
        }
        let ended = if outcome == Outcome::Success { &counters.succeeded } else { &counters.failed };
        ended.fetch_add(1, Relaxed);
        Some(counters.evidence.note(mark))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.counters.in_flight.fetch_sub(1, Relaxed);
        self.end_probe();
    }
}

/// See [`Endpoint::identity`].
pub(crate) fn identity(spec: &EndpointSpec) -> u64 {
    let hostname = spec.hostname.as_deref().unwrap_or_default();
    match spec.tunnel {
        0 => hash::key(format!("{}|{hostname}", spec.address).as_bytes()),
        // Another way is another endpoint: what was learned of one says nothing about the other.
        tunnel => hash::key(format!("{}|{hostname}|{tunnel}", spec.address).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Arc<Endpoint> {
        let spec = EndpointSpec::new("10.0.0.1:80".parse().unwrap());
        Arc::new(Endpoint::new(&spec, None, Nanos(0)))
    }

    #[test]
    fn every_request_is_counted_out_once() {
        let endpoint = endpoint();
        let (a, b, c) = (endpoint.start(), endpoint.start(), endpoint.start());
        assert_eq!(endpoint.in_flight(), 3);
        a.finish(Duration::from_millis(5), Outcome::Success, Nanos(0));
        b.finish(Duration::from_millis(5), Outcome::GatewayError, Nanos(0));
        drop(c);
        assert_eq!(endpoint.in_flight(), 0);
        assert_eq!((endpoint.started(), endpoint.succeeded(), endpoint.failed()), (3, 1, 1));
        assert_eq!(endpoint.latency_ns(Nanos(0)), Some(50_000_000));
    }

    #[test]
    fn an_abandoned_request_teaches_nothing() {
        let endpoint = endpoint();
        drop(endpoint.start());
        assert_eq!((endpoint.in_flight(), endpoint.latency_ns(Nanos(0))), (0, None));
    }
}
