//! One endpoint: who it is and what the workers have learned about it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::hash;
use crate::load::{Nanos, PeakEwma};

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
}

impl EndpointSpec {
    /// An endpoint with weight 1 that is known by its address alone.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, hostname: None, weight: 1, zone: None }
    }
}

/// One endpoint, shared by all workers. Its identity is address and hostname; while a backend has it, it keeps its
/// counters through every change of the set.
#[derive(Debug)]
pub struct Endpoint {
    counters: Counters,
    address: SocketAddr,
    hostname: Option<Arc<str>>,
    identity: u64,
    label: Box<str>,
}

/// On a cache line of its own: written with each request.
#[derive(Debug)]
#[repr(align(64))]
struct Counters {
    latency: PeakEwma,
    in_flight: AtomicU32,
    is_eligible: AtomicBool,
    started: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

const _: () = assert!(size_of::<Counters>() == 64, "one cache line");

/// How a request to an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint did its part, whatever it answered.
    Success,
    /// It did not: no connection, no answer in time, a broken answer, or a status that says so.
    Failure,
}

impl Endpoint {
    /// An endpoint that nothing is known about, but a latency to begin with.
    pub(crate) fn new(spec: &EndpointSpec, latency_ns: Option<u64>, now: Nanos) -> Self {
        let counters = Counters {
            latency: PeakEwma::starting_at(latency_ns, now),
            in_flight: AtomicU32::new(0),
            is_eligible: AtomicBool::new(true),
            started: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        Self {
            counters,
            address: spec.address,
            hostname: spec.hostname.clone(),
            identity: identity(spec),
            label: spec.address.to_string().into(),
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

    /// A hash of address and hostname.
    #[inline]
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// True when it may be chosen. Endpoints are until something says otherwise.
    #[inline]
    pub fn is_eligible(&self) -> bool {
        self.counters.is_eligible.load(Relaxed)
    }

    /// Says whether it may be chosen. Requests that are under way go on.
    pub fn set_eligible(&self, is_eligible: bool) {
        self.counters.is_eligible.store(is_eligible, Relaxed);
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

    /// Counts a request in, until the guard is finished or dropped.
    #[inline]
    pub fn start(self: &Arc<Self>) -> InFlight {
        self.counters.in_flight.fetch_add(1, Relaxed);
        self.counters.started.fetch_add(1, Relaxed);
        InFlight { endpoint: Arc::clone(self) }
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
}

impl InFlight {
    /// The endpoint.
    #[inline]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The request ended: `latency` is the time from sending it to the head of its answer, or to the failure.
    #[inline]
    pub fn finish(self, latency: Duration, outcome: Outcome, now: Nanos) {
        let counters = &self.endpoint.counters;
        match outcome {
            Outcome::Success => {
                counters.succeeded.fetch_add(1, Relaxed);
                counters.latency.observe(latency, now);
            }
            Outcome::Failure => {
                counters.failed.fetch_add(1, Relaxed);
                counters.latency.penalise(latency, FAILURE_FACTOR, FAILURE_FLOOR, FAILURE_CAP, now);
            }
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.counters.in_flight.fetch_sub(1, Relaxed);
    }
}

/// See [`Endpoint::identity`].
pub(crate) fn identity(spec: &EndpointSpec) -> u64 {
    let hostname = spec.hostname.as_deref().unwrap_or_default();
    hash::key(format!("{}|{hostname}", spec.address).as_bytes())
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
        b.finish(Duration::from_millis(5), Outcome::Failure, Nanos(0));
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
