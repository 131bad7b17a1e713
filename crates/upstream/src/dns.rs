//! Backends by name: DNS names resolved to endpoints, again and again, and published into their cells.
//!
//! One task per distinct query, shared by every backend that asks it. It asks again when the shortest TTL of the answer
//! ends, within [`Settings::shortest_ttl`] and [`Settings::longest_ttl`] and up to a tenth later, so that names with one
//! TTL do not stay in step. What was resolved last stays while servers fail (SERVFAIL, REFUSED, time-outs): the endpoints
//! are most likely still there. That a name does not exist, or has no addresses, is believed when
//! [`NEGATIVE_CONFIRMATIONS`] answers in a row say so. An answer that names the same endpoints changes nothing.
//!
//! Runs on the runtime that calls [`Dns::watch`]; workers see only the cells.

mod lookup;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rhumb_balance::{EndpointSpec, Endpoints, Nanos};
use rhumb_base::resolv_conf;
use rhumb_base::rng::Rng;
pub use rhumb_net::names::servers::Trouble;
use rhumb_net::names::servers::{self, NameResolver};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use lookup::Answer;

/// Answers in a row that must say that a name has no endpoints before it has none.
pub const NEGATIVE_CONFIRMATIONS: u32 = 3;

/// Default of [`Settings::shortest_ttl`].
pub const SHORTEST_TTL: Duration = Duration::from_secs(1);

/// Default of [`Settings::longest_ttl`].
pub const LONGEST_TTL: Duration = Duration::from_secs(300);

/// Default of [`Settings::timeout`].
pub const TIMEOUT: Duration = Duration::from_secs(2);

/// Default of [`Settings::attempts`].
pub const ATTEMPTS: usize = 2;

/// Default of [`Settings::first_retry`].
pub const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Default of [`Settings::longest_retry`].
pub const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Who is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Nameservers {
    /// As /etc/resolv.conf and /etc/hosts say, search domains included. Read once.
    #[default]
    System,
    /// These, over UDP and, for long answers, TCP. Names are taken as they are.
    Servers(Vec<SocketAddr>),
}

/// How names are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Answers are kept at least so long, whatever their TTL. **Default**: 1 s.
    pub shortest_ttl: Duration,
    /// Answers are kept at most so long. **Default**: 5 min.
    pub longest_ttl: Duration,
    /// How long one server may take. **Default**: 2 s.
    pub timeout: Duration,
    /// How often a query is sent before it has failed. **Default**: 2.
    pub attempts: usize,
    /// How long after a failure the next attempt follows; doubles with each further one. **Default**: 1 s.
    pub first_retry: Duration,
    /// Longest time between attempts after failures. **Default**: 30 s.
    pub longest_retry: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shortest_ttl: SHORTEST_TTL,
            longest_ttl: LONGEST_TTL,
            timeout: TIMEOUT,
            attempts: ATTEMPTS,
            first_retry: FIRST_RETRY,
            longest_retry: LONGEST_RETRY,
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Query {
    /// Addresses (A and AAAA), each an endpoint at this port.
    Address {
        /// The name.
        name: Arc<str>,
        /// The port of every endpoint.
        port: u16,
    },
    /// SRV records (RFC 2782): names, ports and weights of the lowest priority that has addresses.
    Service {
        /// The name, such as `_http._tcp.orders.example.com`.
        name: Arc<str>,
    },
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { name, port } => write!(f, "{name}:{port}"),
            Self::Service { name } => write!(f, "SRV {name}"),
        }
    }
}

/// What is known about a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Endpoints as they were published last.
    pub endpoints: usize,
    /// Why the latest attempt failed; `None` when it succeeded or none is complete.
    pub trouble: Option<Trouble>,
    /// When an attempt succeeded last.
    pub resolved_at: Option<Instant>,
    /// When the next attempt is due; `None` before the first is complete.
    pub next_at: Option<Instant>,
    /// Attempts that succeeded.
    pub successes: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Attempts that failed since the last success.
    pub failures_in_row: u32,
}

impl Status {
    const START: Self = Self {
        endpoints: 0,
        trouble: None,
        resolved_at: None,
        next_at: None,
        successes: 0,
        failures: 0,
        failures_in_row: 0,
    };

    /// True when the first attempt is complete, whatever came of it.
    pub fn is_known(&self) -> bool {
        self.next_at.is_some()
    }
}

/// No resolver can be made of the name servers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("name servers cannot be used: {0}")]
pub struct UnusableServers(String);

/// Resolves names for backends. Cheap to clone.
#[derive(Clone)]
pub struct Dns(Arc<Shared>);

struct Shared {
    resolver: NameResolver,
    settings: Settings,
    /// Start of the time that balancing counts in.
    origin: Instant,
    watched: Mutex<HashMap<Query, Weak<Resolution>>>,
}

/// Keeps a query resolved as long as it, or another one for the same query, lives.
#[derive(Clone)]
pub struct Watch(Arc<Resolution>);

struct Resolution {
    query: Query,
    known: Mutex<Known>,
    status: watch::Sender<Status>,
    task: Mutex<Option<AbortHandle>>,
    shared: Weak<Shared>,
}

#[derive(Default)]
struct Known {
    /// Sorted: servers rotate their answers.
    specs: Vec<EndpointSpec>,
    /// Something was published, be it no endpoints.
    is_published: bool,
    cells: Vec<Weak<Endpoints>>,
    negatives_in_row: u32,
}

impl Dns {
    /// A resolver. `origin` is the start of the time that the workers' [`Nanos`] count from.
    ///
    /// # Errors
    /// [`UnusableServers`].
    pub fn new(
        nameservers: &Nameservers,
        settings: Settings,
        origin: Instant,
    ) -> Result<Self, UnusableServers> {
        let mut builder = match nameservers {
            Nameservers::System => servers::of_machine(&servers::read_conf(resolv_conf::PATH), servers::PORT),
            Nameservers::Servers(given) => servers::of(given),
        };
        let options = builder.options_mut();
        options.timeout = settings.timeout;
        options.attempts = servers::repetitions(settings.attempts);
        let resolver = builder.build().map_err(|error| UnusableServers(error.to_string()))?;
        Ok(Self(Arc::new(Shared { resolver, settings, origin, watched: Mutex::default() })))
    }

    /// Keeps `cell` filled with the endpoints of a query until the watch is dropped. When the query is watched already,
    /// what is known is published at once.
    ///
    /// Call it on the runtime that shall do the work.
    pub fn watch(&self, query: Query, cell: &Arc<Endpoints>) -> Watch {
        let mut watched = lock(&self.0.watched);
        if let Some(resolution) = watched.get(&query).and_then(Weak::upgrade) {
            resolution.add(cell);
            return Watch(resolution);
        }
        let resolution = Arc::new(Resolution {
            query: query.clone(),
            known: Mutex::default(),
            status: watch::Sender::new(Status::START),
            task: Mutex::default(),
            shared: Arc::downgrade(&self.0),
        });
        resolution.add(cell);
        let task = tokio::spawn(resolve_forever(Arc::clone(&self.0), Arc::downgrade(&resolution)));
        *lock(&resolution.task) = Some(task.abort_handle());
        watched.retain(|_, other| other.strong_count() > 0);
        watched.insert(query, Arc::downgrade(&resolution));
        Watch(resolution)
    }

    /// The addresses of a name, looked up once, with how long they may be kept.
    ///
    /// # Errors
    /// [`Trouble`], when there are none.
    pub async fn addresses(&self, name: &str) -> Result<(Vec<IpAddr>, Duration), Trouble> {
        // With its final dot: no search list is gone through.
        let name = format!("{}.", name.trim_end_matches('.')).into();
        let query = Query::Address { name, port: 0 };
        let answer = lookup::resolve(&self.0.resolver, &query).await?;
        let ttl = answer.ttl;
        let specs = answer.complete_with(&[]);
        Ok((specs.iter().map(|spec| spec.address.ip()).collect(), ttl))
    }
}

impl Watch {
    /// What is asked.
    pub fn query(&self) -> &Query {
        &self.0.query
    }

    /// What is known.
    pub fn status(&self) -> Status {
        self.0.status.borrow().clone()
    }

    /// Waits until `is_reached` says so of the status: for the first answer, at start.
    pub async fn wait_for(&self, is_reached: impl FnMut(&Status) -> bool) -> Status {
        let mut receiver = self.0.status.subscribe();
        match receiver.wait_for(is_reached).await {
            Ok(status) => status.clone(),
            // The sender lives as long as this watch.
            Err(_) => self.status(),
        }
    }
}

async fn resolve_forever(shared: Arc<Shared>, resolution: Weak<Resolution>) {
    let mut rng = Rng::from_os();
    let Some(query) = resolution.upgrade().map(|this| this.query.clone()) else { return };
    loop {
        let outcome = lookup::resolve(&shared.resolver, &query).await;
        let Some(this) = resolution.upgrade() else { return };
        let delay = this.settle(outcome, &shared, &mut rng);
        drop(this);
        tokio::time::sleep(delay).await;
    }
}

impl Resolution {
    fn add(&self, cell: &Arc<Endpoints>) {
        let mut known = lock(&self.known);
        known.cells.retain(|other| other.strong_count() > 0);
        if known.cells.iter().any(|other| other.as_ptr() == Arc::as_ptr(cell)) {
            return;
        }
        known.cells.push(Arc::downgrade(cell));
        if known.is_published
            && let Some(shared) = self.shared.upgrade()
        {
            cell.publish(known.specs.clone(), shared.now());
        }
    }

    /// Takes an outcome into account; says when to ask again.
    fn settle(&self, outcome: Result<Answer, Trouble>, shared: &Shared, rng: &mut Rng) -> Duration {
        let mut known = lock(&self.known);
        let mut status = self.status.borrow().clone();
        let delay = match outcome {
            Ok(answer) => {
                known.negatives_in_row = 0;
                (status.trouble, status.failures_in_row) = (None, 0);
                status.resolved_at = Some(Instant::now());
                status.successes += 1;
                let ttl = answer.ttl.clamp(shared.settings.shortest_ttl, shared.settings.longest_ttl);
                let incomplete = !answer.failed.is_empty();
                let specs = answer.complete_with(&known.specs);
                self.publish(&mut known, specs, shared);
                if incomplete { ttl.min(shared.settings.longest_retry) } else { ttl }
            }
            Err(trouble) => {
                status.failures += 1;
                status.failures_in_row = status.failures_in_row.saturating_add(1);
                if status.failures_in_row == 1 {
                    tracing::warn!(query = %self.query, %trouble, kept = known.specs.len(), "name not resolved");
                } else {
                    tracing::debug!(query = %self.query, %trouble, "name not resolved");
                }
                known.negatives_in_row = if trouble.is_negative() { known.negatives_in_row + 1 } else { 0 };
                if known.negatives_in_row >= NEGATIVE_CONFIRMATIONS {
                    // More of them say nothing new.
                    known.negatives_in_row = NEGATIVE_CONFIRMATIONS;
                    self.publish(&mut known, Vec::new(), shared);
                }
                status.trouble = Some(trouble);
                let doublings = (status.failures_in_row - 1).min(LONGEST_DOUBLING);
                (shared.settings.first_retry * (1 << doublings)).min(shared.settings.longest_retry)
            }
        };
        let delay = delay + delay * rng.below(JITTER_STEPS) / (JITTER_STEPS * JITTER_PART);
        status.endpoints = known.specs.len();
        status.next_at = Some(Instant::now() + delay);
        self.status.send_replace(status);
        delay
    }

    fn publish(&self, known: &mut Known, specs: Vec<EndpointSpec>, shared: &Shared) {
        if known.is_published && known.specs == specs {
            return;
        }
        tracing::info!(query = %self.query, before = known.specs.len(), endpoints = specs.len(), "endpoints changed");
        known.is_published = true;
        known.specs = specs;
        known.cells.retain(|cell| {
            let cell = cell.upgrade();
            if let Some(cell) = &cell {
                cell.publish(known.specs.clone(), shared.now());
            }
            cell.is_some()
        });
    }
}

impl Drop for Resolution {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

impl Shared {
    fn now(&self) -> Nanos {
        Nanos::since(self.origin, Instant::now())
    }
}

/// Delays grow by up to one part in so many, in so many steps.
const JITTER_PART: u32 = 10;
const JITTER_STEPS: u32 = 1000;

/// Retries stop doubling here at the latest, far above any sensible longest retry.
const LONGEST_DOUBLING: u32 = 16;

/// What is behind these locks is whole after every statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
