//! Backends: endpoints, how one is chosen, and how connections are made.

use foldhash::{HashMap, HashMapExt, HashSet};
use std::cell::OnceCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use rhumb_balance::{Algorithm, EndpointSet, EndpointSpec, Endpoints, RetryBudget};
use rhumb_base::name::BackendName;
use rhumb_base::spiffe::SpiffeId;
use rhumb_codec::field::FieldName;
use rhumb_codec::{h1, proxy_protocol};
use rhumb_model::kind::backend::{
    Algorithm as WrittenAlgorithm, Backend, BackendProtocol, BackendTls, CaSource, CertificateSource,
    DnsType, HashOn as WrittenHashOn, ProxyProtocolVersion, TlsVersion,
};
use rhumb_model::kind::backend_tls::{BackendTlsPolicy, SubjectAltNameKind};
use rhumb_model::kind::refs::RHUMB_GROUP;
use rhumb_model::{Diag, Doc, Origin, Rule, Source, Span, Spec};
use rhumb_plan::limit::DEFAULT_MAX_PENDING;
use rhumb_plan::mesh::Way;
use rhumb_plan::target::{DEFAULT_CONNECT_TIMEOUT, DEFAULT_IDLE_TIMEOUT, Protocol, Target};
use rhumb_plan::{self as plan, HashOn, Plan};
use rhumb_policy::Want;
use rhumb_tls::mesh::{Expected, Membership};
use rhumb_tls::{self as tls, Certificate, ClientSpec, ClientTls, Roots, SubjectName, Verify, Version};

use crate::certificate::{self, Written, WrittenRoots, ca_of, of_secret};
use crate::collect::{Docs, Entry, Key, key};
use crate::health;
use crate::mesh::{Expanded, MeshBackend};
use crate::report::{Event, Report};
use crate::settings::{Surroundings, positive};
use crate::trace::{Ask, Changes, Frame};
use crate::traffic::Traffic;

/// A backend whose endpoints, or some of them, are found by name. Whoever looks the names up publishes the addresses
/// into [`rhumb_plan::Backend::endpoints`], those of all names and `fixed` together, each with the name as
/// [`EndpointSpec::hostname`]: by it the next plan knows which endpoints may stay until the first answer.
#[derive(Clone)]
pub struct DnsBackend {
    /// The backend.
    pub backend: Arc<plan::Backend>,
    /// Endpoints whose addresses are written.
    pub fixed: Vec<EndpointSpec>,
    /// Names to look up.
    pub names: Vec<DnsName>,
}

/// A name to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsName {
    /// The name.
    pub name: Arc<str>,
    /// Which records.
    pub kind: DnsKind,
    /// Port of the endpoints; 0 for SRV records, which have it.
    pub port: u16,
    /// Weight of each endpoint; SRV records have their own.
    pub weight: u32,
    /// Where they are.
    pub zone: Option<Arc<str>>,
    /// Their level.
    pub priority: u32,
}

impl DnsName {
    /// True when an endpoint with this hostname was found by the name. DNS compares without case, and a final dot says
    /// nothing (RFC 4343, RFC 1034 §3.1); hostnames of endpoints are in lower case and without it. Endpoints of SRV
    /// records have the names that these lead to; a Backend with such a name has no others.
    pub fn leads_to(&self, hostname: &str) -> bool {
        match self.kind {
            DnsKind::Addresses => self.is_called(hostname),
            DnsKind::Services => true,
        }
    }

    fn is_called(&self, name: &str) -> bool {
        self.name.trim_end_matches('.').eq_ignore_ascii_case(name.trim_end_matches('.'))
    }
}

/// Which records are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DnsKind {
    /// A and AAAA.
    Addresses,
    /// SRV (RFC 2782).
    Services,
}

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
    system_roots: Option<Result<Roots, tls::Error>>,
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

    /// Settings of TLS: `Some(None)` is plain text, nothing a mistake that was told.
    fn tls(
        &mut self,
        entry: Entry<'a, Backend>,
        identity: Option<&Identity>,
        speaks_http: bool,
        (fixed, names): (&[EndpointSpec], &[DnsName]),
        report: &mut Report,
    ) -> Option<Option<TlsSettings<'a>>> {
        let Entry { doc, spec } = entry;
        self.docs.trace.note(Ask::BackendTls, "", key(doc));
        let policy = self.policies.get(&key(doc)).copied();
        let mut settings = match (&spec.tls, policy) {
            (None, None) => return Some(None),
            (Some(own), Some(policy)) => {
                let diag = Diag::error(
                    Rule::Conflict,
                    policy.doc.origin(policy.doc.span),
                    format!("Backend `{}` has TLS settings of its own", doc.name()),
                )
                .why("it is not clear which ones are meant")
                .fix("remove `tls` of the Backend, or the BackendTLSPolicy")
                .related(doc.origin(own.span), "the Backend's");
                report.push(diag);
                return None;
            }
            (Some(own), None) => self.own_tls(doc, own, (fixed, names), report)?,
            (None, Some(policy)) => {
                if *spec.protocol == BackendProtocol::H2c {
                    let diag = Diag::error(
                        Rule::Conflict,
                        policy.doc.origin(policy.doc.span),
                        format!("Backend `{}` speaks `h2c`, which is not encrypted", doc.name()),
                    )
                    .fix("write `protocol: h2` in the Backend")
                    .related(doc.origin(spec.protocol.span), "its protocol");
                    report.push(diag);
                    return None;
                }
                self.policy_tls(policy, report)?
            }
        };
        if settings.identity.is_none() {
            settings.gateway_identity = identity.map(|identity| identity.certificate.clone());
        }
        settings.alpn = match *spec.protocol {
            _ if !speaks_http => b"",
            BackendProtocol::Http1 => b"http/1.1",
            BackendProtocol::H2c | BackendProtocol::H2 => b"h2",
        };
        settings.digest = settings.digest(identity.map(|identity| identity.digest));
        Some(Some(settings))
    }

    /// `tls` of a Backend.
    fn own_tls(
        &mut self,
        doc: &'a Doc,
        written: &'a BackendTls,
        endpoints: (&[EndpointSpec], &[DnsName]),
        report: &mut Report,
    ) -> Option<TlsSettings<'a>> {
        if written.broken {
            return None;
        }
        let mut settings = TlsSettings::new(doc, written.span);
        settings.insecure = written.insecure_skip_verify.as_ref().is_some_and(|skip| skip.value);
        if let Some(skip) = written.insecure_skip_verify.as_ref().filter(|skip| skip.value) {
            let diag =
                Diag::warning(Rule::Certificate, doc.origin(skip.span), "certificates are not verified")
                    .why("whoever is on the way can read and change everything")
                    .fix("name the CA that signs them in `ca`");
            report.push(diag);
        }
        settings.roots = match &written.ca {
            None => None,
            Some(ca) => Some(match &ca.value {
                CaSource::Pem(pem) => {
                    let origin = format!("{}: ca", doc.id);
                    WrittenRoots::new(pem.as_bytes().to_vec(), origin, doc.origin(ca.span))
                }
                CaSource::Object(object) => {
                    let name = (doc.namespace(), object.name.as_str());
                    let at = doc.origin(object.name.span);
                    if !matches!((object.group.as_str(), object.kind.as_str()), ("", "ConfigMap" | "Secret"))
                    {
                        let what = format!("a {} cannot hold CA certificates", object.kind);
                        let diag = Diag::error(Rule::NotSupported, doc.origin(object.kind.span), what);
                        report.push(diag.why("they come from a ConfigMap or Secret of the core group"));
                        return None;
                    }
                    ca_of(self.docs, object.kind.as_str(), name, at, report)?
                }
            }),
        };
        settings.identity = match &written.client_certificate {
            None => None,
            Some(certificate) => Some(match &certificate.value {
                CertificateSource::Pem(pair) => {
                    let source = tls::CertificateSource {
                        chain: pair.cert.value.0.as_bytes().to_vec(),
                        key: pair.key.value.0.as_bytes().to_vec(),
                        origin: format!("{}: clientCertificate", doc.id).into(),
                    };
                    Written::new(source, doc.origin(certificate.span), doc)
                }
                CertificateSource::Object(object) => {
                    let at = doc.origin(object.name.span);
                    if (object.group.as_str(), object.kind.as_str()) != ("", "Secret") {
                        let what = format!("a {} cannot hold a certificate with its key", object.kind);
                        let diag = Diag::error(Rule::NotSupported, doc.origin(object.kind.span), what);
                        report.push(diag.why("they come from a Secret of the core group"));
                        return None;
                    }
                    of_secret(self.docs, (doc.namespace(), object.name.as_str()), at, report)?
                }
            }),
        };
        settings.min_version = match written.min_version.as_ref().map(|version| version.value) {
            Some(TlsVersion::Tls13) => Version::Tls13,
            Some(TlsVersion::Tls12) | None => Version::Tls12,
        };
        settings.subject_names = written
            .subject_alt_names
            .iter()
            .map(|name| match name.contains("://") {
                true => SubjectName::Uri(name.value.to_string()),
                false => SubjectName::Dns(name.value.to_string()),
            })
            .collect();
        settings.server_name = match &written.server_name {
            Some(name) => Some(name.as_str().to_owned()),
            None => one_name(doc, written.span, endpoints, report)?,
        };
        Some(settings)
    }

    /// TLS as a BackendTLSPolicy asks for it.
    fn policy_tls(
        &mut self,
        policy: Entry<'a, BackendTlsPolicy>,
        report: &mut Report,
    ) -> Option<TlsSettings<'a>> {
        let Entry { doc, spec } = policy;
        let validation = spec.validation.as_ref().filter(|v| !v.broken && !doc.broken)?;
        let mut settings = TlsSettings::new(doc, validation.span);
        for reference in &validation.ca_certificate_refs {
            let name = (doc.namespace(), reference.name.as_str());
            let at = doc.origin(reference.name.span);
            let more = ca_of(self.docs, reference.kind.as_str(), name, at, report)?;
            match &mut settings.roots {
                None => settings.roots = Some(more),
                Some(roots) => {
                    roots.pem.push(b'\n');
                    roots.pem.extend_from_slice(&more.pem);
                }
            }
        }
        settings.server_name = Some(validation.hostname.as_str().to_owned());
        let names = validation.subject_alt_names.iter();
        settings.subject_names = names
            .filter_map(|name| match *name.kind {
                SubjectAltNameKind::Hostname => {
                    name.hostname.as_ref().map(|hostname| SubjectName::Dns(hostname.as_str().to_owned()))
                }
                SubjectAltNameKind::Uri => {
                    name.uri.as_ref().map(|uri| SubjectName::Uri(uri.value.to_string()))
                }
            })
            .collect();
        Some(settings)
    }

    fn client_tls(&mut self, doc: &Doc, settings: TlsSettings<'a>, report: &mut Report) -> Option<ClientTls> {
        let verify = match &settings.roots {
            _ if settings.insecure => Verify::Insecure,
            Some(roots) => Verify::Full(roots.parse(report)?),
            None => Verify::Full(self.system_roots(&settings, report)?),
        };
        let mut spec = ClientSpec::new(verify, &doc.id.to_string());
        spec.identity = match &settings.identity {
            Some(written) => Some(written.parse(report)?),
            None => settings.gateway_identity,
        };
        spec.server_name = settings.server_name;
        spec.subject_names = settings.subject_names;
        spec.min_version = settings.min_version;
        spec.alpn =
            Some(settings.alpn).filter(|alpn| !alpn.is_empty()).map(<[u8]>::to_vec).into_iter().collect();
        let at = settings.doc.origin(settings.span);
        ClientTls::build(spec).map_err(|error| report.push(certificate::mistake(&error, at, false))).ok()
    }

    fn system_roots(&mut self, settings: &TlsSettings<'_>, report: &mut Report) -> Option<Roots> {
        match self.system_roots.get_or_insert_with(Roots::system) {
            Ok(roots) => Some(roots.clone()),
            Err(error) => {
                // Those of the machine may be there the next time.
                self.docs.trace.note_volatile();
                report.push(certificate::mistake(error, settings.doc.origin(settings.span), false));
                None
            }
        }
    }
}

/// TLS towards a backend, not compiled.
struct TlsSettings<'a> {
    /// Where the settings are written.
    doc: &'a Doc,
    span: Span,
    roots: Option<WrittenRoots>,
    insecure: bool,
    identity: Option<Written<'a>>,
    gateway_identity: Option<Certificate>,
    server_name: Option<String>,
    subject_names: Vec<SubjectName>,
    min_version: Version,
    alpn: &'static [u8],
    digest: u64,
}

impl<'a> TlsSettings<'a> {
    fn new(doc: &'a Doc, span: Span) -> Self {
        Self {
            doc,
            span,
            roots: None,
            insecure: false,
            identity: None,
            gateway_identity: None,
            server_name: None,
            subject_names: Vec::new(),
            min_version: Version::Tls12,
            alpn: b"",
            digest: 0,
        }
    }

    /// A hash of everything that connections depend on.
    fn digest(&self, gateway_identity: Option<u64>) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.roots.as_ref().map(|roots| &roots.pem).hash(&mut hasher);
        self.identity.as_ref().map(|own| (&own.source.chain, &own.source.key)).hash(&mut hasher);
        self.gateway_identity.as_ref().and(gateway_identity).hash(&mut hasher);
        (self.insecure, &self.server_name, self.min_version, self.alpn).hash(&mut hasher);
        for name in &self.subject_names {
            match name {
                SubjectName::Dns(name) => (0, name).hash(&mut hasher),
                SubjectName::Uri(name) => (1, name).hash(&mut hasher),
            }
        }
        hasher.finish()
    }
}

/// The one name of a backend's endpoints: `Some(None)` when all are addresses, nothing when there are several.
fn one_name(
    doc: &Doc,
    span: Span,
    (fixed, names): (&[EndpointSpec], &[DnsName]),
    report: &mut Report,
) -> Option<Option<String>> {
    let mut distinct = names.iter().map(|name| &name.name);
    let Some(first) = distinct.next() else { return Some(None) };
    if distinct.all(|name| name == first) && fixed.is_empty() {
        return Some(Some(first.to_string()));
    }
    let diag = Diag::error(Rule::MissingField, doc.origin(span), "field `serverName` is missing")
        .label("its endpoints have not one name")
        .why("all endpoints of a backend are asked for one name and must have it in their certificates")
        .fix("add `serverName: NAME`, or make a Backend of each name");
    report.push(diag);
    None
}

/// Which BackendTLSPolicy holds for which Backend.
fn tls_policies<'a>(docs: &Docs<'a>, report: &mut Report) -> HashMap<Key<'a>, Entry<'a, BackendTlsPolicy>> {
    let mut policies: HashMap<Key<'a>, Entry<'a, BackendTlsPolicy>> = HashMap::new();
    for entry in &docs.backend_tls.all {
        for target in entry.spec.target_refs.iter().filter(|target| !target.broken) {
            let wanted = (entry.doc.namespace(), target.name.as_str());
            if (target.group.as_str(), target.kind.as_str()) != (RHUMB_GROUP, "Backend") {
                let what = format!("no {} `{}` in namespace `{}`", target.kind, wanted.1, wanted.0);
                let diag = Diag::error(Rule::UnknownReference, entry.doc.origin(target.kind.span), what)
                    .why("outside of Kubernetes there are only Backends of group rhumb.dev")
                    .fix("write `group: rhumb.dev` and `kind: Backend`");
                report.push(diag);
                continue;
            }
            if docs.backends.get(wanted).is_none() {
                if !docs.is_unreadable("Backend", wanted) {
                    let what = format!("no Backend `{}` in namespace `{}`", wanted.1, wanted.0);
                    let names: Vec<&str> = docs.backends.names(wanted.0).collect();
                    let at = entry.doc.origin(target.name.span);
                    let diag = report.unknown(at, what, wanted.1, names.into_iter());
                    report.push(diag);
                }
                continue;
            }
            if let Some(first) = policies.get(&wanted) {
                let what = "this BackendTLSPolicy has no effect";
                let diag = Diag::warning(Rule::NoEffect, entry.doc.origin(target.name.span), what)
                    .why(format!("{} holds for the same Backend, and comes first", first.doc.id))
                    .fix("remove one of them")
                    .related(first.doc.origin(first.doc.span), "this one holds");
                report.push(diag);
                continue;
            }
            policies.insert(wanted, *entry);
        }
    }
    policies
}

/// The PROXY protocol towards endpoints.
fn proxy_protocol_of(spec: &Backend) -> Option<proxy_protocol::Version> {
    spec.proxy_protocol.as_ref().map(|version| match version.value {
        ProxyProtocolVersion::V1 => proxy_protocol::Version::V1,
        ProxyProtocolVersion::V2 => proxy_protocol::Version::V2,
    })
}

fn balancing(spec: &Backend) -> (Algorithm, HashOn) {
    let Some(written) = &spec.load_balancing else { return (Algorithm::LeastBusy, HashOn::default()) };
    let algorithm = match *written.algorithm {
        WrittenAlgorithm::LeastBusy => Algorithm::LeastBusy,
        WrittenAlgorithm::RoundRobin => Algorithm::RoundRobin,
        WrittenAlgorithm::Random => Algorithm::Random,
        WrittenAlgorithm::RingHash => Algorithm::RingHash,
        WrittenAlgorithm::Maglev => Algorithm::Maglev,
    };
    let hash_on = match written.hash_on.as_ref().map(|hash_on| &hash_on.value) {
        None | Some(WrittenHashOn::SourceIp) => HashOn::SourceIp,
        Some(WrittenHashOn::Path) => HashOn::Path,
        Some(WrittenHashOn::Cookie(name)) => HashOn::Cookie(name.clone()),
        Some(WrittenHashOn::Header(name)) => {
            FieldName::parse(name.as_str().as_bytes()).map_or(HashOn::SourceIp, HashOn::Header)
        }
    };
    (algorithm, hash_on)
}

/// Endpoints with addresses, and names that have to be looked up.
fn endpoints(spec: &Backend) -> (Vec<EndpointSpec>, Vec<DnsName>) {
    let (mut fixed, mut names) = (Vec::new(), Vec::new());
    for endpoint in &spec.endpoints {
        let weight = u32::try_from(endpoint.weight.get()).unwrap_or(1);
        let priority = endpoint.priority.as_ref().map_or(0, |level| u32::try_from(level.get()).unwrap_or(0));
        let zone = endpoint.zone.as_ref().map(|zone| Arc::from(&*zone.value));
        let port = endpoint.address.port().get();
        match endpoint.address.host().parse::<IpAddr>() {
            Ok(ip) => {
                let address = SocketAddr::new(ip, port);
                fixed.push(EndpointSpec { address, hostname: None, weight, zone, priority, tunnel: 0 });
            }
            Err(_) => {
                let name = endpoint.address.host().into();
                names.push(DnsName { name, kind: DnsKind::Addresses, port, weight, zone, priority });
            }
        }
    }
    if let Some((name, port)) = spec.dns_target() {
        let kind = match *spec.dns_type {
            DnsType::A => DnsKind::Addresses,
            DnsType::Srv => DnsKind::Services,
        };
        names.push(DnsName { name: name.into(), kind, port, weight: 1, zone: None, priority: 0 });
    }
    (fixed, names)
}

fn hash_written(fixed: &[EndpointSpec], names: &[DnsName], hash_on: &HashOn, hasher: &mut DefaultHasher) {
    for spec in fixed {
        (spec.address, spec.weight, &spec.zone, spec.priority).hash(hasher);
    }
    for name in names {
        (&name.name, name.kind, name.port, name.weight, &name.zone, name.priority).hash(hasher);
    }
    match hash_on {
        HashOn::SourceIp => 0.hash(hasher),
        HashOn::Path => 1.hash(hasher),
        HashOn::Header(name) => (2, name.as_bytes()).hash(hasher),
        HashOn::Cookie(name) => (3, name).hash(hasher),
    }
}

/// The name of a Backend document's backend in the plan.
fn label(doc: &Doc) -> String {
    format!("{}/{}", doc.namespace(), doc.name())
}

/// A Backend document for the origin of a URL: its host is the one endpoint's, or a DNS name.
fn document(want: &Want) -> Option<Arc<Doc>> {
    let origin = want.origin.as_ref()?;
    let bare = origin.host.trim_start_matches('[').trim_end_matches(']');
    let at = format!("{}:{}", origin.host, origin.port);
    let place = match bare.parse::<IpAddr>() {
        Ok(_) => format!("endpoints: [\"{at}\"]"),
        Err(_) => format!("dns: \"{at}\""),
    };
    let tls = if origin.is_tls { ", tls: {}" } else { "" };
    let text = format!(
        "apiVersion: rhumb.dev/v1alpha1\nkind: Backend\nmetadata: {{name: origin}}\nspec: {{{place}{tls}}}\n"
    );
    let source = Arc::new(Source::new(&*want.backend, 1, text));
    rhumb_model::read(&source, None, &[]).docs.pop()
}
