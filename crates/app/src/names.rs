//! Backends by name: keeps the endpoints of the plan in force resolved.
//!
//! Each name has a cell of its own that the resolver publishes into; an endpoint set of a backend is what is written in
//! full together with what its names have brought. Lives on the control thread; workers see only the backend's cell.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rhumb_balance::{Algorithm, EndpointSet, EndpointSpec, Endpoints, Nanos};
use rhumb_base::name::BackendName;
use rhumb_resolve::{DnsBackend, DnsKind, DnsName};
use rhumb_telemetry::{Metric, Registry};
use rhumb_upstream::dns::{Dns, Nameservers, Query, Settings, UnusableServers, Watch};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// How long a configuration waits for the first answers about its names before it goes into force without them.
pub(crate) const FIRST_ANSWERS: Duration = Duration::from_secs(3);

/// Resolves the names of the plan in force.
pub(crate) struct Names {
    /// Made when the first name is to be resolved: it reads /etc/resolv.conf.
    dns: Option<Dns>,
    origin: Instant,
    in_force: Following,
    board: Board,
}

/// What is known about the names of the plan in force, for the admin listener.
#[derive(Clone, Default)]
pub(crate) struct Board(Arc<Mutex<Watches>>);

/// The watches of each backend that has names.
type Watches = Vec<(BackendName, Vec<Watch>)>;

/// Keeps names resolved until it is dropped.
#[derive(Default)]
pub(crate) struct Following {
    backends: Watches,
    tasks: Vec<JoinHandle<()>>,
}

/// The sources of one backend's endpoints.
struct Merge {
    cell: Arc<Endpoints>,
    fixed: Vec<EndpointSpec>,
    names: Vec<Source>,
    origin: Instant,
    /// What was published last.
    last: Mutex<Option<Vec<EndpointSpec>>>,
}

struct Source {
    name: DnsName,
    watch: Watch,
    cell: Arc<Endpoints>,
}

impl Names {
    /// Nothing to resolve. `origin` is where the balancer's clock begins.
    pub(crate) fn new(origin: Instant, board: Board) -> Self {
        Self { dns: None, origin, in_force: Following::default(), board }
    }

    /// Begins to resolve the names of a plan that is not in force yet. A name that is resolved already is known at once.
    ///
    /// # Errors
    /// When the system's configuration of DNS cannot be used.
    pub(crate) fn follow(&mut self, backends: Vec<DnsBackend>) -> Result<Following, UnusableServers> {
        let mut following = Following::default();
        if backends.is_empty() {
            return Ok(following);
        }
        if self.dns.is_none() {
            self.dns = Some(Dns::new(&Nameservers::System, Settings::default(), self.origin)?);
        }
        let Some(dns) = &self.dns else { return Ok(following) };
        for DnsBackend { backend, fixed, names } in backends {
            let names = names.into_iter().map(|name| Source::new(name, dns)).collect();
            let merge = Merge {
                cell: Arc::clone(&backend.endpoints),
                fixed,
                names,
                origin: self.origin,
                last: Mutex::default(),
            };
            let watches = merge.names.iter().map(|source| source.watch.clone()).collect();
            following.backends.push((backend.name.clone(), watches));
            following.tasks.extend(merge.start());
        }
        Ok(following)
    }

    /// The plan of these names is in force: those of the one before are given up.
    pub(crate) fn settle(&mut self, following: Following) {
        *lock(&self.board.0) = following.backends.clone();
        self.in_force = following;
    }
}

impl Following {
    /// Waits until there is an answer, good or bad, about every name.
    pub(crate) async fn known(&self) {
        for watch in self.backends.iter().flat_map(|(_, watches)| watches) {
            watch.wait_for(|status| status.is_known()).await;
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Source {
    fn new(name: DnsName, dns: &Dns) -> Self {
        // How endpoints are chosen is the backend's cell's business.
        let cell = Arc::new(Endpoints::new(EndpointSet::empty(Algorithm::Random)));
        let query = match name.kind {
            DnsKind::Addresses => Query::Address { name: Arc::clone(&name.name), port: name.port },
            DnsKind::Services => Query::Service { name: Arc::clone(&name.name) },
        };
        let watch = dns.watch(query, &cell);
        Self { name, watch, cell }
    }

    /// What the name has brought; `None` when there was no answer yet.
    fn specs(&self) -> Option<Vec<EndpointSpec>> {
        if self.cell.generation() == 0 {
            return None;
        }
        let set = self.cell.load();
        let specs = set.members().iter().map(|member| EndpointSpec {
            address: member.endpoint().address(),
            hostname: member.endpoint().hostname().cloned(),
            // SRV records have weights of their own.
            weight: if self.name.kind == DnsKind::Services { member.weight() } else { self.name.weight },
            zone: self.name.zone.clone(),
            priority: self.name.priority,
            tunnel: 0,
        });
        Some(specs.collect())
    }
}

impl Merge {
    /// One task per name: whatever it brings is published with the rest.
    fn start(self) -> Vec<JoinHandle<()>> {
        let merge = Arc::new(self);
        let task = |at: usize| {
            let merge = Arc::clone(&merge);
            async move {
                let Some(source) = merge.names.get(at) else { return };
                let mut seen = 0;
                loop {
                    source.watch.wait_for(|_| source.cell.generation() != seen).await;
                    seen = source.cell.generation();
                    merge.publish();
                }
            }
        };
        // What is known already counts before anybody can ask.
        merge.publish();
        (0..merge.names.len()).map(|at| tokio::spawn(task(at))).collect()
    }

    fn publish(&self) {
        if self.names.iter().all(|source| source.cell.generation() == 0) {
            return;
        }
        let before = self.cell.load();
        let mut specs = self.fixed.clone();
        for source in &self.names {
            specs.extend(source.specs().unwrap_or_else(|| kept(&before, &source.name)));
        }
        let mut last = lock(&self.last);
        if last.as_ref() != Some(&specs) {
            self.cell.publish(specs.clone(), Nanos::since(self.origin, Instant::now()));
            *last = Some(specs);
        }
    }
}

/// Endpoints that a name brought to an earlier plan: they stay until there is an answer.
fn kept(set: &EndpointSet, name: &DnsName) -> Vec<EndpointSpec> {
    let members = set
        .members()
        .iter()
        .filter(|member| member.endpoint().hostname().is_some_and(|host| name.leads_to(host)));
    let specs = members.map(|member| EndpointSpec {
        address: member.endpoint().address(),
        hostname: member.endpoint().hostname().cloned(),
        weight: member.weight(),
        zone: member.zone().map(Arc::from),
        priority: member.priority(),
        tunnel: member.endpoint().tunnel(),
    });
    specs.collect()
}

impl Board {
    /// What is known about the names of a backend.
    pub(crate) fn of(&self, backend: &BackendName) -> Vec<Value> {
        let backends = lock(&self.0);
        let watches = backends.iter().filter(|(name, _)| name == backend).flat_map(|(_, watches)| watches);
        watches.map(name_status).collect()
    }

    /// Reports how often names were resolved, at each scrape.
    pub(crate) fn report_to(&self, registry: &Registry) {
        let board = self.clone();
        registry.collect(Metric::Resolutions, move |emit| {
            for (backend, watches) in lock(&board.0).iter() {
                let statuses: Vec<_> = watches.iter().map(Watch::status).collect();
                for (result, count) in [
                    ("success", statuses.iter().map(|status| status.successes).sum::<u64>()),
                    ("failure", statuses.iter().map(|status| status.failures).sum()),
                ] {
                    emit(&[backend.as_str(), result], i64::try_from(count).unwrap_or(i64::MAX));
                }
            }
        });
    }
}

fn name_status(watch: &Watch) -> Value {
    let status = watch.status();
    let now = Instant::now();
    json!({
        "query": watch.query().to_string(),
        "endpoints": status.endpoints,
        "trouble": status.trouble.map(|trouble| trouble.to_string()),
        "resolvedSecondsAgo": status.resolved_at.map(|at| now.saturating_duration_since(at).as_secs()),
        "nextInSeconds": status.next_at.map(|at| at.saturating_duration_since(now).as_secs()),
        "successes": status.successes,
        "failures": status.failures,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
