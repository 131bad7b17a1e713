//! Backends: endpoints, how one is chosen, and how connections are made.

mod names;
mod written;
mod tls;

pub use self::names::{DnsBackend, DnsKind, DnsName};

use foldhash::{HashMap, HashMapExt, HashSet};
use std::cell::OnceCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use rhumb_balance::{EndpointSet, EndpointSpec, Endpoints, RetryBudget};
use rhumb_base::name::BackendName;
use rhumb_base::spiffe::SpiffeId;
use rhumb_codec::h1;
use rhumb_model::kind::backend::{Backend, BackendProtocol};
use rhumb_model::kind::backend_tls::BackendTlsPolicy;
use rhumb_model::{Diag, Doc, Origin, Rule, Spec};
use rhumb_plan::limit::DEFAULT_MAX_PENDING;
use rhumb_plan::mesh::Way;
use rhumb_plan::target::{DEFAULT_CONNECT_TIMEOUT, DEFAULT_IDLE_TIMEOUT, Protocol, Target};
use rhumb_plan::{self as plan, Plan};
use rhumb_policy::Want;
use rhumb_tls::mesh::{Expected, Membership};
use rhumb_tls::{Certificate, ClientTls, Roots};

use self::tls::tls_policies;
use self::written::{balancing, document, endpoints, hash_written, proxy_protocol_of};
use crate::collect::{Docs, Entry, Key, key};
use crate::health;
use crate::mesh::{Expanded, MeshBackend};
use crate::report::{Event, Report};
use crate::settings::{Surroundings, positive};
use crate::trace::{Ask, Changes, Frame};
use crate::traffic::Traffic;

/// Compiles backends, each at its first use.
pub(crate) struct Backends<'a> {
    docs: &'a Docs<'a>,
    around: Surroundings,
    before: HashMap<&'a str, Vec<&'a Arc<plan::Backend>>>,
    policies: HashMap<Key<'a>, Entry<'a, BackendTlsPolicy>>,
    pub(crate) traffic: Traffic<'a>,
    /// What was made, this time or earlier.
    made: Vec<Made>,
    /// Places of `made` that have nothing.
    free: Vec<usize>,
    /// Where in `made` it is, by position, digest of our certificate, and whether HTTP is spoken.
    by_id: HashMap<(usize, Option<u64>, bool), usize>,
    /// The same for those that no rule names, by position.
    checked: HashMap<usize, usize>,
    system_roots: Option<Result<Roots, rhumb_tls::Error>>,
    mesh: &'a Expanded,
    membership: Option<&'a Membership>,
    /// Where this process runs.
    zone: Option<Arc<str>>,
    /// Those that some rule names, in the order of first use.
    pub(crate) used: Vec<Arc<plan::Backend>>,
    pub(crate) dns: Vec<DnsBackend>,
}

/// What a Backend has come to, kept while it and what it asks for stay the same.
pub(crate) struct Made {
    name: (Box<str>, Box<str>),
    identity: Option<u64>,
    speaks_http: bool,
    /// It was only looked through for mistakes.
    is_check: bool,
    backend: Option<Arc<plan::Backend>>,
    names: Vec<DnsName>,
    fixed: Vec<EndpointSpec>,
    events: Box<[Event]>,
    frame: Frame,
    use_: Use,
}

/// Whether something that was made is used this time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Its place can be used for another one.
    Never,
    /// It was made earlier.
    NotYet,
    /// Some rule names it, or it was checked.
    Used,
}

/// Our certificate towards the backends of a Gateway.
pub(crate) struct Identity {
    /// Hash of certificate and key.
    pub(crate) digest: u64,
    pub(crate) certificate: Certificate,
}

impl<'a> Backends<'a> {
    /// None is compiled yet. Of `kept` those stay that are as they were; what has become another is added to `changes`.
    #[expect(clippy::too_many_arguments, reason = "one call, and each is another concern")]
    pub(crate) fn new(
        docs: &'a Docs<'a>,
        previous: Option<&'a Plan>,
        around: Surroundings,
        zone: Option<Arc<str>>,
        (mesh, membership): (&'a Expanded, Option<&'a Membership>),
        kept: Vec<Made>,
        changes: &mut Changes,
        report: &mut Report,
    ) -> Self {
        let mut before: HashMap<&str, Vec<_>> = HashMap::new();
        for backend in previous.into_iter().flat_map(|plan| &plan.backends) {
            before.entry(backend.name.as_str()).or_default().push(backend);
        }
        let mut this = Self {
            docs,
            around,
            before,
            policies: tls_policies(docs, report),
            traffic: Traffic::new(docs, report),
            made: kept,
            free: Vec::new(),
            by_id: HashMap::new(),
            checked: HashMap::new(),
            system_roots: None,
            mesh,
            membership,
            zone,
            used: Vec::new(),
            dns: Vec::new(),
        };
        this.keep(changes);
        this
    }

    /// Goes through what was made earlier.
    fn keep(&mut self, changes: &mut Changes) {
        for (at, made) in self.made.iter_mut().enumerate() {
            if made.use_ != Use::Used {
                (made.use_, made.backend) = (Use::Never, None);
                self.free.push(at);
                continue;
            }
            let key = (&*made.name.0, &*made.name.1);
            // A backend that is in no plan has not taken over what is known about its endpoints.
            let runs = |backend: &Arc<plan::Backend>| {
                let before = self.before.get(backend.name.as_str());
                before.is_some_and(|before| before.iter().any(|before| Arc::ptr_eq(before, backend)))
            };
            let is_current = !made.frame.is_volatile
                && !changes.touch(&made.frame.reads)
                && made.backend.as_ref().is_none_or(runs);
            let position = self.docs.backends.position(key).filter(|_| is_current);
            match position {
                Some(position) if made.is_check => {
                    self.checked.insert(position, at);
                }
                Some(position) => {
                    self.by_id.insert((position, made.identity, made.speaks_http), at);
                }
                None => {
                    changes.add(Ask::Backend, "", key);
                    (made.use_, made.backend) = (Use::Never, None);
                    self.free.push(at);
                    continue;
                }
            }
            made.use_ = Use::NotYet;
        }
    }

    /// What was made, for the next time.
    pub(crate) fn into_kept(self) -> (Vec<Arc<plan::Backend>>, Vec<DnsBackend>, Vec<Made>) {
        (self.used, self.dns, self.made)
    }

    /// The backend at `position` of the documents, for a rule; nothing when it cannot be used, which is said.
    pub(crate) fn get(
        &mut self,
        position: usize,
        identity: Option<&Identity>,
        report: &mut Report,
    ) -> Option<Arc<plan::Backend>> {
        self.get_for(position, identity, true, report)
    }

    /// The same; without HTTP (`speaks_http`) nothing is said about what is spoken inside of TLS.
    pub(crate) fn get_for(
        &mut self,
        position: usize,
        identity: Option<&Identity>,
        speaks_http: bool,
        report: &mut Report,
    ) -> Option<Arc<plan::Backend>> {
        // Only connections with TLS can present a certificate.
        let entry = self.docs.backends.all[position];
        let name = key(entry.doc);
        self.docs.trace.note(Ask::BackendTls, "", name);
        self.docs.trace.note(Ask::Backend, "", name);
        let identity = identity.filter(|_| {
            let own = entry.spec.tls.as_ref();
            own.is_some_and(|tls| tls.client_certificate.is_none()) || self.policies.contains_key(&name)
        });
        let has_tls = entry.spec.tls.is_some() || self.policies.contains_key(&name);
        let speaks_http = speaks_http || !has_tls;
        let id = (position, identity.map(|identity| identity.digest), speaks_http);
        let at = match self.by_id.get(&id) {
            Some(&at) => at,
            None => {
                let at = self.put(entry, identity, speaks_http, false, report);
                self.by_id.insert(id, at);
                at
            }
        };
        report.log(Event::Backend(at));
        self.take(at, report);
        self.made.get(at)?.backend.clone()
    }

    /// A rule names what was made, perhaps as the first one.
    pub(crate) fn take(&mut self, at: usize, report: &mut Report) {
        let Some(made) = self.made.get_mut(at).filter(|made| made.use_ == Use::NotYet) else { return };
        made.use_ = Use::Used;
        report.begin(false);
        report.tell(&made.events);
        report.end();
        let Some(backend) = &made.backend else { return };
        self.used.push(Arc::clone(backend));
        if !made.names.is_empty() {
            let (fixed, names) = (made.fixed.clone(), made.names.clone());
            self.dns.push(DnsBackend { backend: Arc::clone(backend), fixed, names });
        }
    }

    /// Makes a backend. Its mistakes are told when it is taken.
    fn put(
        &mut self,
        entry: Entry<'a, Backend>,
        identity: Option<&Identity>,
        speaks_http: bool,
        is_check: bool,
        report: &mut Report,
    ) -> usize {
        report.begin(true);
        let made = self.make(entry, label(entry.doc), identity, speaks_http, report);
        let (events, frame) = report.end();
        let (backend, names, fixed) = match made {
            Some((backend, names, fixed)) => (Some(backend).filter(|_| !is_check), names, fixed),
            None => (None, Vec::new(), Vec::new()),
        };
        let made = Made {
            name: (entry.doc.namespace().into(), entry.doc.name().into()),
            identity: identity.map(|identity| identity.digest),
            speaks_http,
            is_check,
            backend,
            names,
            fixed,
            events,
            frame,
            use_: Use::NotYet,
        };
        match self.free.pop() {
            Some(at) => {
                self.made[at] = made;
                at
            }
            None => {
                self.made.push(made);
                self.made.len() - 1
            }
        }
    }

    /// Adds the backends that policies will ask. `origins` keeps documents for those that only a URL names.
    pub(crate) fn serve_policies(
        &mut self,
        wants: Vec<(Want, Origin)>,
        origins: &'a OnceCell<Vec<Option<Arc<Doc>>>>,
        report: &mut Report,
    ) {
        let mut named: Vec<&Want> = Vec::new();
        for (want, at) in wants.iter().filter(|(want, _)| want.origin.is_none()) {
            let (namespace, name) = want.backend.split_once('/').unwrap_or(("", &want.backend));
            match self.docs.backends.position((namespace, name)) {
                // A mistake in it was told.
                Some(position) => {
                    self.get(position, None, report);
                }
                None if self.docs.is_unreadable("Backend", (namespace, name)) => {}
                None => {
                    let what = format!("no Backend `{name}` in namespace `{namespace}`");
                    let names: Vec<&str> = self.docs.backends.names(namespace).collect();
                    let diag = report.unknown(at.clone(), what, name, names.into_iter());
                    report.push(diag);
                }
            }
        }
        let mut places = Vec::new();
        for (want, at) in &wants {
            if want.origin.is_some() && !named.iter().any(|other| other.backend == want.backend) {
                named.push(want);
                places.push(at);
            }
        }
        let docs = origins.get_or_init(|| named.iter().map(|want| document(want)).collect());
        for ((doc, at), want) in docs.iter().zip(places).zip(&named) {
            let (doc, spec) = match doc {
                Some(doc)
                    if !doc.broken
                        && let Spec::Backend(spec) = &doc.spec =>
                {
                    (&**doc, &**spec)
                }
                _ => {
                    let what = format!("nothing can be asked at `{}`", want.backend);
                    report.push(Diag::error(Rule::UnknownReference, at.clone(), what).fix("mend the host"));
                    continue;
                }
            };
            let mut own = Report::default();
            let entry = Entry { doc, spec };
            let made = self.make(entry, want.backend.to_string(), None, true, &mut own);
            for diag in own.diags {
                // The document is nobody's: what is wrong with it is wrong with what names it.
                report.push(Diag::error(diag.rule, at.clone(), diag.what));
            }
            let Some((backend, names, fixed)) = made else { continue };
            self.used.push(Arc::clone(&backend));
            if !names.is_empty() {
                self.dns.push(DnsBackend { backend, fixed, names });
            }
        }
    }

    /// Finds the mistakes of backends that no rule names.
    pub(crate) fn check_unused(&mut self, report: &mut Report) {
        let used = self
            .by_id
            .iter()
            .filter(|(_, at)| self.made.get(**at).is_some_and(|made| made.use_ == Use::Used));
        let used: HashSet<usize> = used.map(|((position, ..), _)| *position).collect();
        let docs = self.docs;
        for (position, entry) in docs.backends.all.iter().enumerate() {
            if used.contains(&position) {
                continue;
            }
            let at = match self.checked.get(&position) {
                Some(&at) => at,
                None => self.put(*entry, None, true, true, report),
            };
            self.take(at, report);
        }
    }

    fn make(
        &mut self,
        entry: Entry<'a, Backend>,
        name: String,
        identity: Option<&Identity>,
        speaks_http: bool,
        report: &mut Report,
    ) -> Option<(Arc<plan::Backend>, Vec<DnsName>, Vec<EndpointSpec>)> {
        let Entry { doc, spec } = entry;
        let connect_timeout = spec.connect_timeout.as_ref().map_or(DEFAULT_CONNECT_TIMEOUT, |written| {
            positive(doc, written.get(), written.span, DEFAULT_CONNECT_TIMEOUT, report)
        });
        let idle_timeout = spec.idle_timeout.as_ref().map_or(DEFAULT_IDLE_TIMEOUT, |written| written.get());
        let (algorithm, hash_on) = balancing(spec);
        let (mut fixed, names) = endpoints(spec);
        let mesh = self.mesh.backends.get(&(doc.namespace().into(), doc.name().into()));
        if let Some(mesh) = mesh {
            for endpoint in &mut fixed {
                endpoint.tunnel = mesh.tunnels.get(&endpoint.address).copied().unwrap_or(0);
            }
        }
        // It is the Backend that is asked for, whoever asks.
        self.docs.trace.note(Ask::Document, "Backend", key(doc));
        let limits = self.traffic.budget(key(doc));
        let health = health::settings(doc, spec, self.zone.as_ref(), report);
        let check = health::check(doc, spec, report);
        let count = |written: i64| u32::try_from(written).unwrap_or(u32::MAX);
        let max_connections = spec.max_connections.as_ref().map(|limit| count(limit.get()));
        let max_pending =
            spec.max_pending_requests.as_ref().map_or(DEFAULT_MAX_PENDING, |limit| count(limit.get()));
        let settings = self.tls(entry, identity, speaks_http, (&fixed, &names), report);
        if doc.broken {
            // What could be read of it is not what was meant.
            return None;
        }
        let settings = settings?;
        if let Some(mesh) = mesh
            && (!mesh.tunnels.is_empty() || mesh.placed.is_some())
            && self.membership.is_none()
        {
            report.push(self.without_identity(doc));
            return None;
        }

        let has_tls = settings.is_some();
        let spoken = match *spec.protocol {
            BackendProtocol::Http1 => Protocol::Http1,
            BackendProtocol::H2c | BackendProtocol::H2 => Protocol::Http2,
        };
        // Between proxies requests are multiplexed, whatever the application speaks.
        let protocol = if mesh.is_some() { Protocol::Http2 } else { spoken };
        let mut hasher = DefaultHasher::new();
        (&name, protocol, settings.as_ref().map(|settings| settings.digest)).hash(&mut hasher);
        if let Some(mesh) = mesh {
            let domain = self.membership.map(|membership| membership.trust_domain().to_string());
            let placed = mesh.placed.as_ref().map(|placed| (&placed.port, placed.number));
            (spoken, &mesh.server_name, &mesh.identities, domain, placed).hash(&mut hasher);
        }
        let pool_key = hasher.finish();
        (connect_timeout, idle_timeout, algorithm, proxy_protocol_of(spec), limits).hash(&mut hasher);
        hash_written(&fixed, &names, &hash_on, &mut hasher);
        // Few and small: what is shown is what is compared.
        format!("{health:?}").hash(&mut hasher);
        (&check, max_connections, max_pending).hash(&mut hasher);
        let digest = hasher.finish();

        let before = || self.before.get(&*name).into_iter().flatten().copied();
        let same_pool = before().find(|before| before.target.key == pool_key);
        let before = same_pool.or_else(|| before().next());
        if let Some(before) = same_pool.filter(|before| before.digest == digest) {
            return Some((Arc::clone(before), names, fixed));
        }
        let tls = match (same_pool, settings) {
            (_, None) => None,
            // Keeps the sessions to resume.
            (Some(before), Some(_)) if before.target.tls.is_some() => before.target.tls.clone(),
            (_, Some(settings)) => Some(Arc::new(self.client_tls(doc, settings, report)?)),
        };
        debug_assert_eq!(tls.is_some(), has_tls, "TLS is never lost on the way");
        // What is known about endpoints that stay is kept: health, latency, requests under way.
        let set = match before {
            None => EndpointSet::new(fixed.clone(), algorithm),
            Some(before) => {
                let set = before.endpoints.load();
                let found = set.members().iter().filter_map(|member| {
                    let hostname = member.endpoint().hostname()?;
                    // What another name has brought is none of the ones to look up.
                    let was_asked = |dns: &&DnsName| before.dns_names.iter().any(|name| dns.is_called(name));
                    let name = names.iter().filter(was_asked).find(|dns| dns.leads_to(hostname))?;
                    Some(EndpointSpec {
                        address: member.endpoint().address(),
                        hostname: Some(Arc::clone(hostname)),
                        weight: member.weight(),
                        zone: name.zone.clone(),
                        priority: name.priority,
                        tunnel: 0,
                    })
                });
                // Whoever fills it knows them, and what is right until then is what was.
                let is_placed = mesh.is_some_and(|mesh| mesh.placed.is_some());
                let placed = set.members().iter().filter(|_| is_placed).map(|member| EndpointSpec {
                    address: member.endpoint().address(),
                    hostname: member.endpoint().hostname().cloned(),
                    weight: member.weight(),
                    zone: member.zone().map(Arc::from),
                    priority: member.priority(),
                    tunnel: member.endpoint().tunnel(),
                });
                let specs = fixed.iter().cloned().chain(found).chain(placed).collect();
                before.endpoints.next(specs, algorithm, self.around.now)
            }
        };
        let dns_names = names.iter().map(|name| name.name.as_ref().into()).collect();
        let budget = match before.filter(|before| before.budget.limits() == limits) {
            Some(before) => Arc::clone(&before.budget),
            None => Arc::new(RetryBudget::new(limits)),
        };
        let target = Target {
            key: pool_key,
            protocol,
            tls,
            proxy_protocol: proxy_protocol_of(spec),
            connect_timeout,
            idle_timeout,
            limits: h1::Limits::default(),
            connections: before.map_or_else(Arc::default, |before| Arc::clone(&before.target.connections)),
            max_connections,
            max_pending,
        };
        let (target, way) = match mesh {
            None => (target, None),
            Some(mesh) => {
                let (target, way) = self.way(doc, mesh, target, spoken, same_pool, report)?;
                (target, Some(Box::new(way)))
            }
        };
        let backend = plan::Backend {
            name: BackendName::new(name),
            digest,
            endpoints: Arc::new(Endpoints::with(set, health, before.map(|before| &*before.endpoints))),
            budget,
            needs_key: algorithm.needs_key(),
            hash_on,
            target,
            check: check.map(Arc::new),
            dns_names,
            mesh: way,
            metrics_id: OnceLock::new(),
        };
        Some((Arc::new(backend), names, fixed))
    }

    /// How a service of the mesh is reached: through the proxies of its Workloads, and without where there is none.
    fn way(
        &self,
        doc: &Doc,
        mesh: &MeshBackend,
        target: Target,
        spoken: Protocol,
        before: Option<&Arc<plan::Backend>>,
        report: &mut Report,
    ) -> Option<(Target, Way)> {
        // What is asked of both differs, so connections are never mixed up.
        let plain = Target { key: target.key.wrapping_add(1), protocol: spoken, ..target.clone() };
        if let Some(before) = before
            && let Some(way) = &before.mesh
        {
            let way = Way {
                plain,
                expected: way.expected.clone(),
                server_name: way.server_name.clone(),
                placed: mesh.placed.clone(),
            };
            return Some((Target { tls: before.target.tls.clone(), ..target }, way));
        }
        let ids = mesh.identities.iter().filter_map(|id| SpiffeId::parse(id).ok());
        let expected = Expected::new(ids);
        // Without an identity no handshake succeeds, whatever endpoints a control plane may add: never is anything sent
        // to a proxy in plain text.
        let nobody = self.mesh.trust_domain.clone().map(Membership::new);
        let membership = self.membership.or(nobody.as_ref())?;
        let name = mesh.server_name.to_string();
        let tls = match ClientTls::member(membership, expected.clone(), Some(name), vec![b"h2".to_vec()]) {
            Ok(tls) => Some(Arc::new(tls)),
            Err(error) => {
                let what = format!("Service `{}` cannot be called: {error}", doc.name());
                report.push(Diag::error(Rule::BadValue, self.service_at(doc), what));
                return None;
            }
        };
        let (server_name, placed) = (mesh.server_name.clone(), mesh.placed.clone());
        Some((Target { tls, ..target }, Way { plain, expected, server_name, placed }))
    }

    /// The place of the Service that a Backend stands for.
    fn service_at(&self, doc: &Doc) -> Origin {
        let name = doc.name().split(':').next().unwrap_or_default();
        let service = self.docs.services.get((doc.namespace(), name));
        service.map_or_else(|| doc.origin(doc.span), |service| service.doc.origin(service.doc.span))
    }

    fn without_identity(&self, doc: &Doc) -> Diag {
        let what =
            format!("Service `{}/{}` cannot be called without an identity", doc.namespace(), doc.name());
        Diag::error(Rule::MissingField, self.service_at(doc), what)
            .why("its Workloads take connections of members of the mesh only")
            .fix("add a Sidecar with `identity`; or write `mtls: none` in Workloads without a proxy")
    }
}

/// The name of a Backend document's backend in the plan.
fn label(doc: &Doc) -> String {
    format!("{}/{}", doc.namespace(), doc.name())
}
