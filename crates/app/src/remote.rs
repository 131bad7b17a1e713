//! Documents from a control plane, beside those of files.
//!
//! What comes is tried: the documents in force with the change in them are read and compiled as a change of files is. When
//! that is taken over the change is acknowledged; otherwise what was in force stays, and the control plane is told why.

mod member;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rhumb_agent::ads::registry::Registration;
use rhumb_agent::ads::wire::Node;
use rhumb_agent::ads::{Change, Kind};
use rhumb_agent::assembly::{Assembled, Assembly};
use rhumb_agent::{Agent, Event, Options};
use rhumb_balance::Nanos;
use rhumb_base::rng::Rng;
use rhumb_base::spiffe::SpiffeId;
use rhumb_base::virtual_address::VirtualAddress;
use rhumb_identity::over_tls;
use rhumb_plan::Current;
use rhumb_proxy::rest::Awake;
use rhumb_resolve::Advice;
use rhumb_tls::ClientTls;
use rhumb_tls::mesh::{Expected, Membership};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::admin::Admin;
use crate::config::{Config, Offered, Reading};
use crate::health::Health;
use crate::lookups::{self, Asked, Lookups};
use crate::reload::{CONTROL_PLANE, Live};
use crate::report::Reporter;
use crate::vitals;

use workloads::{is_asked, workloads};

pub(crate) use member::{Member, RemoteArgs, directory_of, is_remote, known_domain};

/// How long the first documents are waited for; then what there is begins.
pub(crate) const FIRST_DOCUMENTS: Duration = Duration::from_secs(10);

/// How long proxies are waited for when a workload ends.
const WITHDRAW: Duration = Duration::from_secs(10);

/// Mistakes that a refusal names.
const MAX_MISTAKES: usize = 5;

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
    /// What this process is called at the control plane.
    node: String,
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
    /// Tells it what this process carries, and how it stands.
    reporting: Option<JoinHandle<()>>,
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(reporting) = self.reporting.take() {
            reporting.abort();
        }
    }
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
        let node = wanted.name.clone();
        let (agent, events) = Agent::start(Options {
            servers: wanted.servers,
            connect: over_tls(tls),
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
            node,
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
            reporting: None,
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
        let now = Instant::now();
        for ((kind, service), content) in self.bundles.iter().filter(|_| self.is_kept_by_plan) {
            if *kind == Kind::Endpoints
                && let Err(error) = live.places_mut().place(service, Some(content), now)
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
            let now = Instant::now();
            let mut items = change.items.iter();
            let placed = items.try_for_each(|item| places.place(&item.name, item.content.as_ref(), now));
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
            let _ = live.places_mut().place(&item.name, content, Instant::now());
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

    /// Has the control plane told what this process carries and how it stands.
    pub(crate) fn report(&mut self, admin: Arc<Admin>) {
        let reporter = Reporter::new(Arc::clone(&self.agent), self.node.clone(), admin);
        self.reporting = Some(tokio::task::spawn_local(reporter.run()));
    }

    /// The proxy takes requests: others are told when the application does too.
    pub(crate) fn register(&mut self, current: &Current, awake: &Arc<Awake>) {
        if self.is_kept_by_plan
            && let Some(keeper) = self.keeper.take()
        {
            keeper.abort();
        }
        if let Some(registration) = self.registration.clone() {
            let telling =
                vitals::tell(Arc::clone(&self.agent), registration, current.clone(), Arc::clone(awake));
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
        let documents =
            bundles.iter().filter(|((kind, _), _)| kind.is_of_documents()).map(|(_, bytes)| bytes);
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

/// The bundles after a change.
pub(crate) fn changed(
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
