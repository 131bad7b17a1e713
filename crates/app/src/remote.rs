//! Documents from a control plane, beside those of files.
//!
//! What comes is tried: the documents in force with the change in them are read and compiled as a change of files is. When
//! that is taken over the change is acknowledged; otherwise what was in force stays, and the control plane is told why.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use prost::Message;
use rhumb_agent::ads::registry::Registration;
use rhumb_agent::ads::resource::{EndpointSet, Mtls};
use rhumb_agent::ads::wire::Node;
use rhumb_agent::ads::{Change, Kind};
use rhumb_agent::assembly::{Assembled, Assembly};
use rhumb_agent::{Agent, Connect, Event, Io, Options};
use rhumb_balance::Nanos;
use rhumb_base::rng::Rng;
use rhumb_base::spiffe::{SpiffeId, TrustDomain};
use rhumb_base::virtual_address::VirtualAddress;
use rhumb_identity::{
    CONTROL_ACCOUNT, JoinToken, Joining, Keeper, KeeperSettings, SYSTEM_NAMESPACE, kept_domain, system_clock,
};
use rhumb_model::kind::mesh::ServiceName;
use rhumb_model::{Doc, Spec};
use rhumb_plan::Current;
use rhumb_resolve::Advice;
use rhumb_telemetry::Registry;
use rhumb_tls::mesh::{Expected, Membership};
use rhumb_tls::{AsyncTls, ClientTls};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::{Config, Offered, Reading};
use crate::health::Health;
use crate::lookups::{self, Asked, Askers, Lookups};
use crate::reload::{CONTROL_PLANE, Live};
use crate::vitals;

/// How long the first documents are waited for; then what there is begins.
pub(crate) const FIRST_DOCUMENTS: Duration = Duration::from_secs(10);

/// How long proxies are waited for when a workload ends.
const WITHDRAW: Duration = Duration::from_secs(10);

/// Mistakes that a refusal names.
const MAX_MISTAKES: usize = 5;

/// How long the first certificate is waited for; then connecting goes on without.
const FIRST_CERTIFICATE: Duration = Duration::from_secs(10);

/// The trust domain where nobody says.
const USUAL_DOMAIN: &str = "cluster.local";

/// Where what a member has is kept when nothing is written.
const DEFAULT_DIRECTORY: &str = "/var/lib/rhumb/member";

/// Where sidecars keep theirs.
const SIDECARS: &str = "/var/lib/rhumb";

/// Documents from a control plane, on the command line.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct RemoteArgs {
    /// Control plane that documents come from too, as HOST:PORT; several to fail over to
    #[arg(long, value_name = "HOST:PORT", requires = "gateway")]
    control: Vec<String>,
    /// Gateway of the control plane that this process is, as NAMESPACE/NAME. Its identity is the service account of that
    /// name
    #[arg(long, value_name = "NAMESPACE/NAME", requires = "control")]
    gateway: Option<String>,
    /// File with the join token for the first certificate
    #[arg(long, value_name = "FILE", requires = "control")]
    join_token_file: Option<PathBuf>,
    /// Directory of key, certificate and the last documents
    #[arg(long, value_name = "PATH", requires = "control", default_value = DEFAULT_DIRECTORY)]
    state: PathBuf,
    /// Trust domain of the mesh. Default: that of the certificate it has, else that of the join token
    #[arg(long, value_name = "NAME", requires = "control")]
    trust_domain: Option<TrustDomain>,
}

impl RemoteArgs {
    /// What is asked for, if anything is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn member(&self) -> anyhow::Result<Option<Member>> {
        let (Some(gateway), false) = (&self.gateway, self.control.is_empty()) else { return Ok(None) };
        if gateway.split('/').count() != 2 {
            anyhow::bail!("--gateway {gateway}: write NAMESPACE/NAME");
        }
        let read = |path: &PathBuf| {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            JoinToken::parse(text.trim()).with_context(|| path.display().to_string())
        };
        let token = self.join_token_file.as_ref().map(read).transpose()?;
        let identity = self.state.join("identity");
        let written = || self.trust_domain.clone().or_else(|| kept_domain(&identity));
        let domain = written().or_else(|| token.as_ref().and_then(JoinToken::trust_domain));
        let trust_domain = match domain {
            Some(domain) => domain,
            None => TrustDomain::parse(USUAL_DOMAIN)?,
        };
        Ok(Some(Member {
            servers: self.control.clone(),
            name: format!("gateway/{gateway}"),
            resources: vec![(Kind::Gateway, gateway.clone())],
            registration: None,
            token,
            directory: self.state.clone(),
            identity,
            trust_domain,
            membership: None,
            lookups: None,
        }))
    }
}

/// A process that becomes a member of a mesh.
pub(crate) struct Member {
    /// Control planes, as `HOST:PORT`.
    pub(crate) servers: Vec<String>,
    /// What it is called there.
    pub(crate) name: String,
    /// Resources that it wants from the beginning.
    pub(crate) resources: Vec<(Kind, String)>,
    /// What it says of itself, once it is ready.
    pub(crate) registration: Option<Registration>,
    /// How it proves who it is the first time.
    pub(crate) token: Option<JoinToken>,
    /// Where what it has is kept.
    pub(crate) directory: PathBuf,
    /// Where key and certificate are kept.
    pub(crate) identity: PathBuf,
    /// The trust domain.
    pub(crate) trust_domain: TrustDomain,
    /// What is to be kept, when there is one already.
    pub(crate) membership: Option<Membership>,
    /// Connections of its workload are captured, so services are found when they are called first.
    pub(crate) lookups: Option<Lookups>,
}

impl Member {
    /// What a Sidecar asks for, if its identity comes from a control plane.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn of_sidecar(doc: &Doc, membership: Option<&Membership>) -> anyhow::Result<Option<Self>> {
        let Spec::Sidecar(spec) = &doc.spec else { return Ok(None) };
        let control = spec.identity.as_ref().and_then(|identity| identity.control.as_ref());
        let (Some(control), Some(membership)) = (control, membership) else { return Ok(None) };
        let server = |host: &str, port| {
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        };
        let servers = control.addresses.iter();
        let servers: Vec<String> =
            servers.map(|address| server(address.value.host(), address.value.port())).collect();
        let token = control.token.as_ref().map(|token| JoinToken::parse(token.value.0.trim()));
        let token = token.transpose().context("join token of the Sidecar")?;
        let written = control.namespace.as_ref().map(|namespace| namespace.value.as_str());
        let namespace = written.unwrap_or_else(|| doc.namespace());
        let workload = spec.workload.as_ref();
        let name = workload.and_then(|workload| workload.name.as_ref());
        let name = name.map_or_else(|| doc.name(), |name| name.value.as_str());
        let id = format!("{namespace}/{name}");
        let path = |service: &ServiceName| {
            format!("{}/{}", service.namespace().unwrap_or(namespace), service.name())
        };
        let mut resources = vec![(Kind::Own, id.clone())];
        let called = spec.upstreams.iter().map(|upstream| path(&upstream.service.value));
        let served = spec.inbound.iter().map(|inbound| path(&inbound.service.value));
        resources.extend(called.chain(served).map(|service| (Kind::Service, service)));
        let mut services: Vec<String> =
            spec.inbound.iter().map(|inbound| inbound.service.value.name().to_owned()).collect();
        services.dedup();
        let address = match workload.and_then(|workload| workload.address.as_ref()) {
            Some(address) => address.value.get(),
            None => own_address(&servers)?,
        };
        let account = workload.and_then(|workload| workload.service_account.as_ref());
        let registration = (!services.is_empty()).then(|| Registration {
            workload: id.clone(),
            address: address.to_string(),
            services,
            service_account: account.map_or("default", |account| account.value.as_str()).to_owned(),
            tunnel: spec.tunnel.as_ref().map_or(0, |tunnel| tunnel.value.get().port().into()),
            instance: format!("{:x}", Rng::from_os().next_u64()),
            ..Registration::default()
        });
        // The same as where the plan has its certificates kept.
        let directory = match &control.state_directory {
            Some(directory) => PathBuf::from(&*directory.value),
            None => directory_of(doc.namespace(), name),
        };
        Ok(Some(Self {
            servers,
            name: format!("sidecar/{id}"),
            resources,
            registration,
            token,
            identity: directory.clone(),
            directory,
            trust_domain: membership.trust_domain().clone(),
            membership: Some(membership.clone()),
            lookups: None,
        }))
    }

    /// Has what its captured workload calls looked up. `doc` is the Sidecar.
    pub(crate) fn look_up(&mut self, doc: &Doc, registry: &Registry) -> Option<Askers> {
        let Spec::Sidecar(spec) = &doc.spec else { return None };
        spec.capture.as_ref()?;
        let control = spec.identity.as_ref().and_then(|identity| identity.control.as_ref());
        let written = control.and_then(|control| control.namespace.as_ref());
        let namespace = written.map_or_else(|| doc.namespace(), |namespace| namespace.value.as_str());
        let (lookups, askers) = Lookups::new(namespace, registry);
        self.lookups = Some(lookups);
        Some(askers)
    }

    /// Gets a certificate and connects. Must be called on a runtime.
    ///
    /// # Errors
    /// What is wrong with the directory or with TLS. That nobody answers is no error: it goes on with what it has.
    pub(crate) async fn join(self) -> anyhow::Result<Remote> {
        let is_kept_by_plan = self.membership.is_some();
        let membership = self.membership.unwrap_or_else(|| Membership::new(self.trust_domain.clone()));
        let control = self.trust_domain.workload(SYSTEM_NAMESPACE, CONTROL_ACCOUNT);
        let settings = KeeperSettings {
            issuers: self.servers.clone(),
            joining: self.token.map_or(Joining::Nothing, Joining::Token),
            directory: self.identity,
        };
        let keeper = Keeper::open(membership.clone(), settings, system_clock()).context("identity")?;
        let keeping = tokio::spawn(Arc::clone(&keeper).run());
        if tokio::time::timeout(FIRST_CERTIFICATE, keeper.ready()).await.is_err() {
            let why = keeper.status().error.unwrap_or_default();
            tracing::warn!("there is no certificate yet: {why}");
        }
        let wanted = Wanted {
            servers: self.servers,
            name: self.name,
            resources: self.resources,
            registration: self.registration,
            directory: self.directory.join("documents"),
            membership,
            control: control.context("identity of the control plane")?,
            is_kept_by_plan,
            lookups: self.lookups,
        };
        Remote::start(wanted, keeping).context("TLS to the control plane")
    }
}

/// What a process wants of a control plane.
pub(crate) struct Wanted {
    /// Control planes, as `HOST:PORT`.
    pub(crate) servers: Vec<String>,
    /// What it is called there.
    pub(crate) name: String,
    /// Resources that it wants from the beginning.
    pub(crate) resources: Vec<(Kind, String)>,
    /// What it says of itself, once it is ready.
    pub(crate) registration: Option<Registration>,
    /// Where what it has is kept.
    pub(crate) directory: PathBuf,
    /// Who it is, and whom it trusts.
    pub(crate) membership: Membership,
    /// Who control planes are.
    pub(crate) control: SpiffeId,
    /// The plan in force keeps the membership too.
    pub(crate) is_kept_by_plan: bool,
    /// What a captured workload asks for.
    pub(crate) lookups: Option<Lookups>,
}

/// Documents from a control plane.
pub(crate) struct Remote {
    agent: Arc<Agent>,
    events: mpsc::Receiver<Event>,
    assembly: Assembly,
    /// What is in force, by type and name.
    bundles: BTreeMap<(Kind, Box<str>), Bytes>,
    registration: Option<Registration>,
    /// Services whose endpoints are wanted because a document names them.
    services: BTreeSet<String>,
    /// Services that files have documents of, whose endpoints the control plane knows.
    own_services: BTreeSet<String>,
    /// How often documents were offered.
    number: u64,
    /// The plan in force keeps the membership too: that of a Sidecar.
    is_kept_by_plan: bool,
    /// Keeps the membership, until the plan has it kept.
    keeper: Option<JoinHandle<()>>,
    /// What a captured workload asks for.
    lookups: Option<Lookups>,
    /// Tells the control plane whether the application can serve.
    telling: Option<JoinHandle<()>>,
}

/// Something to be done about documents of a control plane.
pub(crate) enum News {
    /// They have changed.
    Change(Change),
    /// The connection came or went.
    State,
    /// A captured workload wants something.
    Asked(Asked),
}

impl Remote {
    /// Begins with what was saved, and connects. Must be called on a runtime.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn start(wanted: Wanted, keeper: JoinHandle<()>) -> Result<Self, rhumb_tls::Error> {
        let tls = ClientTls::member(
            &wanted.membership,
            Expected::new([wanted.control]),
            None,
            vec![b"h2".to_vec()],
        )?;
        let (agent, events) = Agent::start(Options {
            servers: wanted.servers,
            connect: over(tls),
            node: Node {
                id: wanted.name,
                user_agent_name: "rhumb".to_owned(),
                user_agent_version: crate::admin::VERSION.to_owned(),
                ..Node::default()
            },
            directory: Some(wanted.directory),
            rng: Rng::from_os(),
        });
        let mut bundles = BTreeMap::new();
        for kind in Kind::ALL {
            let held = agent.held(kind).into_iter();
            bundles.extend(held.filter_map(|(name, _, content)| Some(((kind, name), content?))));
        }
        for (kind, name) in &wanted.resources {
            agent.want(*kind, name);
        }
        let mut remote = Self {
            agent: Arc::new(agent),
            events,
            assembly: Assembly::default(),
            bundles,
            registration: wanted.registration,
            services: BTreeSet::new(),
            own_services: BTreeSet::new(),
            number: 0,
            is_kept_by_plan: wanted.is_kept_by_plan,
            keeper: Some(keeper),
            lookups: wanted.lookups,
            telling: None,
        };
        if let Some(lookups) = &mut remote.lookups {
            let services = remote.bundles.keys().filter(|(kind, _)| *kind == Kind::Service);
            lookups.restore(services.map(|(_, name)| name.to_string()));
        }
        remote.follow_services();
        Ok(remote)
    }

    /// What is in force.
    fn documents(&mut self) -> Offered {
        let bundles = self.bundles.clone();
        self.offered(&bundles)
    }

    /// The same with a change in it.
    fn with(&mut self, change: &Change) -> Offered {
        let bundles = changed(&self.bundles, change);
        self.offered(&bundles)
    }

    /// Waits for the first documents, for a while, and reads the configuration with what there is.
    pub(crate) async fn begin(&mut self, config: &mut Config, first: Reading) -> Reading {
        let mut reading = first;
        if !self.bundles.is_empty() || !self.own_services.is_empty() {
            let offered = self.documents();
            reading = read(config, offered, &reading);
        }
        let deadline = tokio::time::Instant::now() + FIRST_DOCUMENTS;
        while self.is_waiting() || reading.errors() > 0 {
            let Ok(change) = tokio::time::timeout_at(deadline, self.change()).await else {
                tracing::warn!(state = %self.state(), "not everything has come from the control plane: going on with what there is");
                break;
            };
            if self.is_placed(&change) {
                self.accept(change);
                continue;
            }
            let offered = self.with(&change);
            let tried = read(config, offered, &reading);
            // What is missing as long as not everything has come is no mistake of this part of it.
            if tried.errors() <= reading.errors() {
                reading = tried;
                self.accept(change);
            } else {
                let why = mistakes(&tried.diags.iter().map(ToString::to_string).collect::<Vec<_>>());
                self.refuse(change, why);
                let offered = self.documents();
                reading = read(config, offered, &reading);
            }
        }
        reading
    }

    /// Has the control plane say where services are that files have documents of. What is to be offered then, where that is
    /// something else.
    pub(crate) fn own_services(&mut self, services: BTreeSet<String>) -> Option<Offered> {
        if services == self.own_services {
            return None;
        }
        self.own_services = services;
        self.follow_services();
        Some(self.documents())
    }

    /// Does what is to be done.
    pub(crate) async fn take_up(&mut self, news: News, live: &mut Live, health: &Health) {
        match news {
            News::Change(change) => self.take_over(change, live, health).await,
            News::State => {}
            News::Asked(asked) => {
                if let Some(lookups) = &mut self.lookups {
                    lookups.look(asked, &self.agent);
                }
                return;
            }
        }
        if let Some(lookups) = &mut self.lookups {
            lookups.settle(&self.agent);
        }
    }

    /// Hands on where services are, before the first configuration is in force.
    pub(crate) fn place_all(&self, live: &mut Live) {
        for ((kind, service), content) in self.bundles.iter().filter(|_| self.is_kept_by_plan) {
            if *kind == Kind::Endpoints
                && let Err(error) = live.places_mut().place(service, Some(content))
            {
                tracing::warn!(service, %error, "the endpoints that were saved cannot be read");
            }
        }
    }

    /// True for a change of where services are, which takes no other plan. What is to be asked whether it is well, does.
    fn is_placed(&self, change: &Change) -> bool {
        let is_asked = |content: Option<&Bytes>| content.is_some_and(is_asked);
        let before = |name: &str| self.bundles.get(&(Kind::Endpoints, name.into()));
        self.is_kept_by_plan
            && change.kind == Kind::Endpoints
            && !change
                .items
                .iter()
                .any(|item| is_asked(item.content.as_ref()) || is_asked(before(&item.name)))
    }

    /// Tries a change, and answers it.
    async fn take_over(&mut self, change: Change, live: &mut Live, health: &Health) {
        let is_about_places = self.is_kept_by_plan && change.kind == Kind::Endpoints;
        if is_about_places {
            // Before any plan that is filled with them: what is in force is never older than what was asked for.
            let places = live.places_mut();
            let placed =
                change.items.iter().try_for_each(|item| places.place(&item.name, item.content.as_ref()));
            places.readdress();
            match placed {
                Err(error) => return self.refuse(change, error.to_string()),
                Ok(()) if self.is_placed(&change) => return self.accept(change),
                Ok(()) => {}
            }
        }
        let before = self.documents();
        let offered = self.with(&change);
        if offered.is_the_same(&before) {
            // Nothing of what it says is used yet.
            return self.accept(change);
        }
        live.offer(offered);
        if live.reload(CONTROL_PLANE).await {
            self.accept(change);
            let bundles = &self.bundles;
            live.places_mut().retain(|service| bundles.contains_key(&(Kind::Endpoints, service.into())));
            return;
        }
        let attempt = health.last_attempt();
        let why = attempt.map(|attempt| {
            if attempt.diagnostics.is_empty() {
                attempt.refused.unwrap_or_default()
            } else {
                mistakes(&attempt.diagnostics)
            }
        });
        for item in change.items.iter().filter(|_| is_about_places) {
            let content = self.bundles.get(&(Kind::Endpoints, item.name.clone()));
            // It could be read when it came.
            let _ = live.places_mut().place(&item.name, content);
        }
        self.refuse(change, why.unwrap_or_default());
        live.offer(before);
    }

    /// Documents for a configuration.
    fn offered(&mut self, bundles: &BTreeMap<(Kind, Box<str>), Bytes>) -> Offered {
        let assembled = self.assemble(bundles);
        self.number += 1;
        let of = |wanted| bundles.iter().filter(move |((kind, _), _)| *kind == wanted);
        let called = self.lookups.as_ref().map(|_| {
            let services = of(Kind::Service).map(|((_, name), _)| name.to_string());
            services.collect::<BTreeSet<_>>()
        });
        let mut addresses = Vec::new();
        for (_, content) in of(Kind::Address) {
            let Some((service, Some(address))) = lookups::service_of(content) else { continue };
            if let (Some(address), true) = (
                VirtualAddress::from_ip(address),
                called.as_ref().is_some_and(|called| called.contains(&service)),
            ) {
                addresses.push((service, address));
            }
        }
        let services = assembled.documents.iter().filter(|document| &*document.id.kind == "Service");
        let services = services.filter(|_| self.is_kept_by_plan);
        let services = services.map(|document| format!("{}/{}", document.namespace(), document.name()));
        let services = services.chain(self.own_services.iter().cloned());
        let is_asked =
            |service: &String| bundles.get(&(Kind::Endpoints, service.as_str().into())).is_some_and(is_asked);
        let placed = services.filter(|service| !is_asked(service));
        let advice = Advice { called, addresses, placed: placed.collect() };
        Offered { docs: assembled.documents, diags: assembled.diags, advice, number: self.number }
    }

    /// The next change. **Cancel**: nothing is lost.
    async fn change(&mut self) -> Change {
        loop {
            if let News::Change(change) = self.news().await {
                return change;
            }
        }
    }

    /// What is to be done next. **Cancel**: nothing is lost.
    pub(crate) async fn news(&mut self) -> News {
        let asked = async {
            match &mut self.lookups {
                Some(lookups) => lookups.asked().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = self.events.recv() => match event {
                Some(Event::Change(change)) => News::Change(change),
                Some(Event::State(_)) => News::State,
                None => std::future::pending().await,
            },
            asked = asked => News::Asked(asked),
        }
    }

    /// Something is wanted of which nothing is known yet.
    pub(crate) fn is_waiting(&self) -> bool {
        self.agent.unknown() > 0
    }

    /// Something is wanted that may still come: from a control plane that answers, or one that cannot be reached yet. An issuer
    /// that is no control plane has nothing to give.
    pub(crate) fn lacks(&self) -> bool {
        self.is_waiting() && !self.agent.state().borrow().is_absent
    }

    /// A change is in force.
    pub(crate) fn accept(&mut self, change: Change) {
        self.bundles = changed(&self.bundles, &change);
        if let Some(lookups) = &mut self.lookups {
            lookups.accept(change.kind, change.items.iter().map(|item| &*item.name));
        }
        let is_about_documents = !self.is_placed(&change);
        self.agent.accept(change);
        if is_about_documents {
            self.follow_services();
        }
    }

    /// A change cannot be used.
    pub(crate) fn refuse(&mut self, change: Change, why: String) {
        tracing::error!("a change of the control plane is refused: {why}");
        if let Some(lookups) = &mut self.lookups {
            lookups.refuse(change.kind, change.items.iter().map(|item| &*item.name));
        }
        self.agent.refuse(change, why);
    }

    /// The proxy takes requests: others are told when the application does too.
    pub(crate) fn register(&mut self, current: &Current) {
        if self.is_kept_by_plan
            && let Some(keeper) = self.keeper.take()
        {
            keeper.abort();
        }
        if let Some(registration) = self.registration.clone() {
            let telling = vitals::tell(Arc::clone(&self.agent), registration, current.clone());
            self.telling = Some(tokio::task::spawn_local(telling));
        }
    }

    /// The workload is about to end: done when nobody sends it anything any more. Changes have to be taken over meanwhile.
    pub(crate) fn withdrawal(&mut self) -> impl Future<Output = ()> + use<> {
        if let Some(telling) = self.telling.take() {
            telling.abort();
        }
        let (agent, is_registered) = (Arc::clone(&self.agent), self.registration.is_some());
        async move {
            if !is_registered {
                return;
            }
            match agent.withdraw(WITHDRAW).await {
                Ok(withdrawn) if withdrawn.pending.is_empty() => {
                    tracing::info!(
                        proxies = withdrawn.acked,
                        "withdrawn: no proxy sends requests here any more"
                    );
                }
                Ok(withdrawn) => {
                    tracing::warn!(pending = ?withdrawn.pending, "withdrawn, but some proxies have not said that they know");
                }
                Err(away) => tracing::warn!(%away, "cannot withdraw: proxies find out by themselves"),
            }
        }
    }

    /// How it stands, for people.
    pub(crate) fn state(&self) -> serde_json::Value {
        let state = self.agent.state().borrow().clone();
        json!({
            "server": state.server,
            "trouble": state.trouble,
            "streams": state.streams,
            "unknown": self.agent.unknown(),
        })
    }

    /// Wants the endpoints of the services that documents in force are about.
    fn follow_services(&mut self) {
        let bundles = self.bundles.clone();
        let documents = self.assemble(&bundles).documents;
        let services: BTreeSet<String> = documents
            .iter()
            .filter(|document| &*document.id.kind == "Service")
            .map(|document| format!("{}/{}", document.namespace(), document.name()))
            .chain(self.own_services.iter().cloned())
            .collect();
        for service in services.difference(&self.services) {
            self.agent.want(Kind::Endpoints, service);
        }
        for service in self.services.difference(&services) {
            self.agent.leave(Kind::Endpoints, service);
            self.bundles.remove(&(Kind::Endpoints, service.as_str().into()));
        }
        self.services = services;
        if self.lookups.is_some() {
            // Which addresses they have is for the control plane to say: it knows all of them.
            for (_, service) in self.bundles.keys().filter(|(kind, _)| *kind == Kind::Service) {
                if let Some(name) = lookups::resource_of(service) {
                    self.agent.want(Kind::Address, &name);
                }
            }
        }
    }

    fn assemble(&mut self, bundles: &BTreeMap<(Kind, Box<str>), Bytes>) -> Assembled {
        let of_documents = |kind: Kind| matches!(kind, Kind::Own | Kind::Service | Kind::Gateway);
        let documents = bundles.iter().filter(|((kind, _), _)| of_documents(*kind)).map(|(_, bytes)| bytes);
        // Who has no identity of its own has them as documents, and is told that it cannot call them.
        let workloads = workloads(bundles, |set| !self.is_kept_by_plan || is_asked(set));
        self.assembly.assemble(documents.chain(&workloads))
    }
}

/// Reads with other documents; who this process is stays as it was `before`.
fn read(config: &mut Config, offered: Offered, before: &Reading) -> Reading {
    config.offer(offered);
    config.read(Some(&before.plan), Nanos::default())
}

/// What is to be done next about documents of a control plane; never without one. **Cancel**: nothing is lost.
pub(crate) async fn next(remote: &mut Option<Remote>) -> News {
    match remote {
        Some(remote) => remote.news().await,
        None => std::future::pending().await,
    }
}

/// Mistakes as the reason of a refusal: errors before warnings, and not all of many.
fn mistakes(diagnostics: &[String]) -> String {
    let is_error = |text: &&String| text.contains("error");
    let errors: Vec<&str> =
        diagnostics.iter().filter(is_error).take(MAX_MISTAKES).map(String::as_str).collect();
    errors.join("; ")
}

/// Where a sidecar keeps what it has when nothing is written.
pub(crate) fn directory_of(namespace: &str, name: &str) -> PathBuf {
    Path::new(SIDECARS).join(format!("{namespace}.{name}"))
}

/// True for a Sidecar that lives on a control plane.
pub(crate) fn is_remote(doc: &Doc) -> bool {
    match &doc.spec {
        Spec::Sidecar(spec) => spec.identity.as_ref().is_some_and(|identity| identity.control.is_some()),
        _ => false,
    }
}

/// The address of this machine from which control planes are reached: others of the mesh reach it there.
fn own_address(servers: &[String]) -> anyhow::Result<IpAddr> {
    for server in servers {
        for address in server.to_socket_addrs().into_iter().flatten() {
            let any: IpAddr = match address {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            // Nothing is sent: it only says which way it would go.
            let own = UdpSocket::bind((any, 0)).and_then(|socket| {
                socket.connect(address)?;
                socket.local_addr()
            });
            if let Ok(own) = own {
                return Ok(own.ip());
            }
        }
    }
    anyhow::bail!("the address of this workload is not known: write `workload: {{address: ADDRESS}}`")
}

/// The bundles after a change.
fn changed(
    bundles: &BTreeMap<(Kind, Box<str>), Bytes>,
    change: &Change,
) -> BTreeMap<(Kind, Box<str>), Bytes> {
    let mut bundles = bundles.clone();
    for item in &change.items {
        let name = (change.kind, item.name.clone());
        match &item.content {
            Some(content) => drop(bundles.insert(name, content.clone())),
            None => drop(bundles.remove(&name)),
        }
    }
    bundles
}

/// What a workload is, over all services that it is an endpoint of.
#[derive(Default)]
struct Place {
    address: String,
    ports: BTreeMap<String, u32>,
    services: BTreeSet<String>,
    account: String,
    weight: u32,
    locality: String,
    mtls: i32,
    tunnel: u32,
    health: String,
}

/// True when some of the endpoints of a service are to be asked whether they are well.
fn is_asked(content: &Bytes) -> bool {
    let set = EndpointSet::decode(content.clone()).unwrap_or_default();
    set.endpoints.iter().any(|endpoint| !endpoint.health.is_empty())
}

/// Endpoints as Workload documents, in bundles of one each.
fn workloads(bundles: &BTreeMap<(Kind, Box<str>), Bytes>, is_wanted: impl Fn(&Bytes) -> bool) -> Vec<Bytes> {
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    for ((kind, service), bytes) in bundles {
        if *kind != Kind::Endpoints || !is_wanted(bytes) {
            continue;
        }
        let Ok(set) = EndpointSet::decode(bytes.clone()) else { continue };
        let name = service.split('/').nth(1).unwrap_or_default();
        let has_healthy = set.endpoints.iter().any(|endpoint| !endpoint.unhealthy);
        for endpoint in set.endpoints {
            if endpoint.draining || (endpoint.unhealthy && has_healthy) {
                continue;
            }
            let place = places.entry(endpoint.workload.clone()).or_default();
            place.services.insert(name.to_owned());
            for port in &endpoint.ports {
                place.ports.insert(port.name.clone(), port.number);
            }
            place.account = endpoint.identity.rsplit("/sa/").next().unwrap_or_default().to_owned();
            (place.address, place.weight) = (endpoint.address, endpoint.weight);
            (place.locality, place.mtls, place.tunnel) = (endpoint.locality, endpoint.mtls, endpoint.tunnel);
            place.health = endpoint.health;
        }
    }
    places.into_iter().filter_map(|(id, place)| document(&id, &place)).collect()
}

fn document(id: &str, place: &Place) -> Option<Bytes> {
    let (namespace, name) = id.split_once('/')?;
    let ports: BTreeMap<&String, u32> =
        place.ports.iter().filter(|(name, _)| !name.is_empty()).map(|(name, port)| (name, *port)).collect();
    let mut spec = json!({
        "address": place.address,
        "ports": ports,
        "services": place.services,
        "weight": place.weight.clamp(1, 1_000),
        "mtls": match Mtls::try_from(place.mtls) {
            Ok(Mtls::None) => "none",
            Ok(Mtls::Permissive) => "permissive",
            _ => "strict",
        },
    });
    if !place.account.is_empty() {
        spec["serviceAccount"] = json!(place.account);
    }
    if !place.locality.is_empty() {
        spec["locality"] = json!(place.locality);
    }
    if let Ok(health) = serde_json::from_str::<serde_json::Value>(&place.health) {
        spec["health"] = health;
    }
    if place.tunnel != 0 {
        spec["tunnelPort"] = json!(place.tunnel);
    }
    let document = json!({
        "apiVersion": "rhumb.dev/v1alpha1",
        "kind": "Workload",
        "metadata": { "name": name, "namespace": namespace },
        "spec": spec,
    });
    let one = rhumb_agent::ads::resource::Document { json: document.to_string().into(), revision: 0 };
    Some(rhumb_agent::ads::resource::Documents { documents: vec![one] }.encode_to_vec().into())
}

/// Connections to control planes.
pub(crate) fn over(tls: ClientTls) -> Connect {
    Arc::new(move |server| {
        let (server, tls) = (server.to_owned(), tls.clone());
        Box::pin(async move {
            let stream = rhumb_net::connect::connect_to_host(&server).await?;
            let ip = stream.peer_addr()?.ip();
            let stream = AsyncTls::connect(stream, &tls, ip).await.map_err(std::io::Error::other)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_agent::ads::resource::{Documents, Endpoint, Port};

    fn set(service: &str, endpoints: Vec<Endpoint>) -> ((Kind, Box<str>), Bytes) {
        let name = format!("shop/{service}").into();
        ((Kind::Endpoints, name), EndpointSet { endpoints }.encode_to_vec().into())
    }

    fn endpoint(port: &str, number: u32) -> Endpoint {
        Endpoint {
            workload: "shop/w".to_owned(),
            address: "10.0.0.1".to_owned(),
            ports: vec![Port { name: port.to_owned(), number }],
            identity: "spiffe://cluster.local/ns/shop/sa/orders".to_owned(),
            weight: 3,
            ..Endpoint::default()
        }
    }

    #[test]
    fn a_workload_of_two_services_is_one_document() {
        let bundles: BTreeMap<_, _> =
            [set("orders", vec![endpoint("http", 80)]), set("admin", vec![endpoint("adm", 81)])].into();
        let all = workloads(&bundles, |_| true);
        assert_eq!(all.len(), 1);
        let documents = Documents::decode(all[0].clone()).unwrap().documents;
        let value: serde_json::Value = serde_json::from_slice(&documents[0].json).unwrap();
        assert_eq!(
            value["spec"],
            json!({
                "address": "10.0.0.1", "ports": { "adm": 81, "http": 80 }, "services": ["admin", "orders"],
                "weight": 3, "mtls": "strict", "serviceAccount": "orders",
            })
        );
    }

    #[test]
    fn who_is_unwell_or_leaves_is_left_out_unless_nobody_else_is_there() {
        let count = |endpoints| workloads(&[set("orders", endpoints)].into(), |_| true).len();
        let unwell = |name: &str| Endpoint { workload: name.to_owned(), unhealthy: true, ..endpoint("", 80) };
        let leaves = Endpoint { draining: true, ..endpoint("", 80) };
        assert_eq!(count(vec![endpoint("", 80), unwell("shop/x")]), 1);
        assert_eq!(count(vec![unwell("shop/x"), unwell("shop/y")]), 2);
        assert_eq!(count(vec![leaves]), 0);
    }
}
