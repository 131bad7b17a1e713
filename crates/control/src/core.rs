//! The control plane without I/O: documents, workloads and streams in; responses and who has what out.
//!
//! Everything that is sent is an entry: made when the first proxy wants it, made again when something that it looked at
//! changes, and dropped when nobody wants it any more. So a change costs what it concerns, and what nobody asks for costs
//! nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use rhumb_ads::registry::Registration;
use rhumb_ads::resource::Address;
use rhumb_ads::wire::{DeltaRequest, DeltaResponse};
use rhumb_ads::{Acked, BadRequest, Kind, Publisher, Version};

use crate::audience::{Audience, Standing, Why};
use crate::caller::Caller;
use crate::document::{Document, Key, Role};
use crate::library::{Library, Reader, Trace};
use crate::members::{self, Members, Moved, split};
use crate::virtuals::Virtuals;

/// How long a proxy that is gone counts as one that does not have a revision.
pub const REMEMBERED: Duration = Duration::from_secs(600);

/// The most proxies that are gone and remembered.
pub const MAX_DEPARTED: usize = 4_096;

/// The most revisions of which it is known what they changed.
pub const MAX_TOLD: usize = 256;

/// Who is connected, by order of arrival.
pub type StreamId = u64;

/// What is sent: its type and its name.
pub type Name = (Kind, Arc<str>);

/// Resources and the numbers that their versions have since a change.
pub type Touched = Vec<(Name, u64)>;

/// The control plane.
#[derive(Debug)]
pub struct Core {
    library: Library,
    members: Members,
    virtuals: Virtuals,
    /// Services by the address that their documents give them.
    cluster_addresses: HashMap<IpAddr, Arc<str>>,
    revision: u64,
    /// The number of versions that follow from workloads, which have no revision.
    clock: u64,
    entries: HashMap<Name, Entry>,
    /// Which entries looked at what.
    traces: HashMap<Trace, BTreeSet<Name>>,
    streams: HashMap<StreamId, Stream>,
    proxies: HashMap<Arc<str>, StreamId>,
    next_stream: StreamId,
    departed: HashMap<Arc<str>, Departed>,
    told: BTreeMap<u64, Touched>,
    woken: HashSet<StreamId>,
    /// When it was seen last that there is no later revision; nothing where nobody else makes any.
    confirmed: Option<Instant>,
    /// Streams of proxies that have had a later revision than there is here.
    held: HashSet<StreamId>,
    counts: Counts,
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Responses that were sent.
    pub responses: u64,
    /// Resources in them.
    pub resources: u64,
    /// Responses that proxies took over.
    pub acks: u64,
    /// Responses that proxies refused.
    pub refusals: u64,
    /// Entries that were made, for the first time or again.
    pub built: u64,
}

#[derive(Debug)]
struct Entry {
    version: Version,
    content: Option<Bytes>,
    traces: BTreeSet<Trace>,
    watchers: BTreeSet<StreamId>,
}

#[derive(Debug)]
struct Stream {
    /// Who it is, in messages; empty until it said so.
    proxy: Arc<str>,
    caller: Caller,
    publisher: Publisher,
    since: Instant,
    refusal: Option<Box<str>>,
}

#[derive(Debug)]
struct Departed {
    publisher: Publisher,
    at: Instant,
}

/// Why a stream ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// It asked for something that there is not.
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
    /// It asked for what is not its business.
    #[error("{0}")]
    Denied(String),
    /// The same proxy connected again.
    #[error("the same proxy connected again")]
    Superseded,
}

/// A proxy, as it is shown.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Who it is.
    pub name: Arc<str>,
    /// Since when it is connected, or has not been.
    pub since: Instant,
    /// It is connected.
    pub is_connected: bool,
    /// Resources that it wants.
    pub wants: usize,
    /// Of those, the ones of which it uses the latest version.
    pub current: usize,
    /// What it refuses, and why.
    pub refused: Vec<(Name, String)>,
}

impl Core {
    /// No documents yet. `clock` is a number that is greater than at any earlier start, such as milliseconds since 1970.
    pub fn new(clock: u64) -> Self {
        Self {
            library: Library::default(),
            members: Members::default(),
            virtuals: Virtuals::default(),
            cluster_addresses: HashMap::new(),
            revision: 0,
            clock,
            entries: HashMap::new(),
            traces: HashMap::new(),
            streams: HashMap::new(),
            proxies: HashMap::new(),
            next_stream: 1,
            departed: HashMap::new(),
            told: BTreeMap::new(),
            woken: HashSet::new(),
            confirmed: None,
            held: HashSet::new(),
            counts: Counts::default(),
        }
    }

    /// The revision in force was the latest one at `at`: to be said again and again where others make revisions too. A proxy
    /// that comes from another control plane may have a later one; it is sent nothing until this one has it too, or it is known
    /// that there is none: the store was set back. Policies that were in force would be taken back otherwise.
    pub fn confirm(&mut self, at: Instant) {
        self.confirmed = Some(at);
        self.woken.extend(self.held.drain());
    }

    /// The revision in force.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The documents.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// The workloads.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The addresses of services.
    pub fn virtuals_mut(&mut self) -> &mut Virtuals {
        &mut self.virtuals
    }

    /// What has happened.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Connected proxies, and entries that are kept for them.
    pub fn sizes(&self) -> (usize, usize) {
        (self.streams.len(), self.entries.len())
    }

    /// Puts a revision in force: documents that have changed, and names of those that are gone. Gives what it touched,
    /// and services that were given virtual addresses.
    pub fn commit(
        &mut self,
        revision: u64,
        changes: impl IntoIterator<Item = (Key, Option<Arc<Document>>)>,
    ) -> (Touched, Vec<(Arc<str>, u16)>) {
        self.revision = revision;
        self.woken.extend(self.held.drain());
        let mut dirty = BTreeSet::new();
        let mut moved = Moved::default();
        let mut assigned = Vec::new();
        for (key, document) in changes {
            let (kind, is_there) = (key.kind.clone(), document.is_some());
            let before = chosen(self.library.get(&key));
            let is_selector_changed = before != chosen(document.as_ref());
            let (had, has) = (cluster_address(self.library.get(&key)), cluster_address(document.as_ref()));
            if had != has {
                moved.addresses.extend(had.into_iter().chain(has));
                let is_its =
                    |had: &IpAddr| self.cluster_addresses.get(had).is_some_and(|of| **of == *key.path());
                if let Some(had) = had.filter(is_its) {
                    self.cluster_addresses.remove(&had);
                }
                if let Some(has) = has {
                    self.cluster_addresses.insert(has, key.path().into());
                }
            }
            for trace in self.library.set(&key, document) {
                dirty.extend(self.traces.get(&trace).into_iter().flatten().cloned());
            }
            match &*kind {
                "Service" => {
                    moved.add(self.members.service_changed(&key, is_selector_changed, &self.library));
                    if is_there && let Some((number, true)) = self.virtuals.assign(&key.path()) {
                        assigned.push((Arc::from(key.path()), number));
                    }
                }
                "Workload" => moved.add(self.members.workload_changed(&key.path().into(), &self.library)),
                "Mesh" => {
                    let names = self.entries.keys().filter(|(kind, _)| *kind == Kind::Endpoints);
                    dirty.extend(names.cloned());
                }
                _ => {}
            }
        }
        self.mark_moved(moved, &mut dirty);
        let touched = self.refresh(dirty);
        self.told.insert(revision, touched.clone());
        while self.told.len() > MAX_TOLD {
            self.told.pop_first();
        }
        (touched, assigned)
    }

    /// What a revision touched; nothing when it is too old to be known.
    pub fn told(&self, revision: u64) -> Option<&Touched> {
        self.told.get(&revision)
    }

    /// Takes a registration.
    ///
    /// # Errors
    /// [`members::Refused`].
    pub fn register(&mut self, registration: Registration) -> Result<Touched, members::Refused> {
        let moved = self.members.register(registration, &self.library)?;
        Ok(self.settle(moved))
    }

    /// Another control plane has a registration.
    pub fn place(&mut self, registration: Registration) -> Touched {
        let moved = self.members.place(registration, &self.library);
        self.settle(moved)
    }

    /// No control plane has a registration any more.
    pub fn displace(&mut self, workload: &str) -> Touched {
        let moved = self.members.displace(workload, &self.library);
        self.settle(moved)
    }

    /// The stream of a registration broke. [`expire`](Self::expire) has to be called after [`members::GRACE`].
    pub fn lose(&mut self, workload: &str, instance: &str, now: Instant) {
        self.members.lose(workload, instance, now);
    }

    /// Takes a workload out.
    pub fn withdraw(&mut self, workload: &str, instance: &str) -> Touched {
        let moved = self.members.withdraw(workload, instance, &self.library);
        self.settle(moved)
    }

    /// Forgets whom time has run out for, and says when to look again.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        let (moved, next) = self.members.expire(now, &self.library);
        self.settle(moved);
        self.departed.retain(|_, departed| departed.at + REMEMBERED > now);
        let first = self.departed.values().map(|departed| departed.at + REMEMBERED).min();
        [next, first].into_iter().flatten().min()
    }

    /// A proxy connects.
    pub fn open(&mut self, caller: Caller, now: Instant) -> StreamId {
        let id = self.next_stream;
        self.next_stream += 1;
        let stream =
            Stream { proxy: "".into(), caller, publisher: Publisher::default(), since: now, refusal: None };
        self.streams.insert(id, stream);
        id
    }

    /// A stream is gone.
    pub fn close(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.woken.remove(&id);
        self.held.remove(&id);
        let names: Vec<Name> = stream.publisher.names().map(|(kind, name)| (kind, name.clone())).collect();
        names.into_iter().for_each(|name| self.unwatch(&name, id));
        if self.proxies.get(&stream.proxy) == Some(&id) {
            self.proxies.remove(&stream.proxy);
            if self.departed.len() >= MAX_DEPARTED {
                let oldest = self.departed.iter().min_by_key(|(_, departed)| departed.at);
                if let Some(oldest) = oldest.map(|(proxy, _)| proxy.clone()) {
                    self.departed.remove(&oldest);
                }
            }
            self.departed.insert(stream.proxy, Departed { publisher: stream.publisher, at: now });
        }
    }

    /// A proxy says something. True when it acked or refused something.
    ///
    /// # Errors
    /// [`Ended`]: the stream is to be closed.
    pub fn request(&mut self, id: StreamId, request: &DeltaRequest) -> Result<bool, Ended> {
        let Some(stream) = self.streams.get_mut(&id) else { return Err(Ended::Superseded) };
        if stream.proxy.is_empty() {
            let node = request.node.as_ref().map_or("", |node| &*node.id);
            let proxy: Arc<str> = stream.caller.name(node, id).into();
            stream.proxy = proxy.clone();
            self.departed.remove(&proxy);
            if let Some(old) = self.proxies.insert(proxy, id) {
                // It has a new stream; whoever serves the old one finds it gone.
                self.drop_stream(old);
            }
        }
        let Some(stream) = self.streams.get_mut(&id) else { return Err(Ended::Superseded) };
        if let Some(kind) = Kind::of_url(&request.type_url) {
            for name in &request.resource_names_subscribe {
                may_read(&stream.caller, kind, name, &self.library, &self.members)?;
            }
        }
        let entries = &self.entries;
        let kind_asked = Kind::of_url(&request.type_url);
        let mut intern = |name: &str| -> Arc<str> {
            let known = kind_asked.and_then(|kind| entries.get_key_value(&(kind, Arc::from(name))));
            known.map_or_else(|| Arc::from(name), |((_, name), _)| name.clone())
        };
        let (kind, wanted) = stream.publisher.request(request, &mut intern)?;
        match &wanted.acked {
            Some(Acked::Live(_)) => {
                self.counts.acks += 1;
                stream.refusal = None;
            }
            Some(Acked::Refused(_, why)) => {
                self.counts.refusals += 1;
                stream.refusal = Some(why.clone());
            }
            None => {}
        }
        let is_about_response = wanted.acked.is_some();
        for name in wanted.removed {
            self.unwatch(&(kind, name), id);
        }
        for name in wanted.added {
            self.watch((kind, name), id);
        }
        Ok(is_about_response)
    }

    /// The next thing to send to a proxy.
    ///
    /// # Errors
    /// [`Ended::Superseded`] when the stream is not there any more.
    pub fn respond(&mut self, id: StreamId) -> Result<Option<DeltaResponse>, Ended> {
        let Some(stream) = self.streams.get_mut(&id) else { return Err(Ended::Superseded) };
        self.woken.remove(&id);
        let entries = &self.entries;
        let mut find = |kind: Kind, name: &str| {
            let entry = entries.get(&(kind, Arc::from(name)));
            entry.map(|entry| (entry.version, entry.content.clone())).unwrap_or_default()
        };
        let is_behind = self.revision < stream.publisher.had()
            && self.confirmed.is_some_and(|confirmed| confirmed <= stream.since);
        if is_behind {
            self.held.insert(id);
            return Ok(None);
        }
        let response = stream.publisher.respond(self.revision, &mut find);
        if let Some(response) = &response {
            self.counts.responses += 1;
            self.counts.resources +=
                u64::try_from(response.resources.len() + response.removed_resources.len()).unwrap_or(0);
        }
        Ok(response)
    }

    /// Streams that have something to send, each once until it was asked for it.
    pub fn take_woken(&mut self) -> Vec<StreamId> {
        self.woken.drain().collect()
    }

    /// Who uses what was touched, and who does not.
    pub fn audience(&self, touched: &Touched) -> Audience {
        self.standing(touched).into()
    }

    /// A stream that has not answered to what was touched, if there is one: `last` if it still has not.
    pub fn pending(&self, touched: &Touched, last: Option<StreamId>) -> Option<StreamId> {
        let is_pending = |id: &StreamId, (kind, name): &Name, number: u64| {
            let stream = self.streams.get(id);
            stream.is_some_and(|stream| {
                why_of(&stream.publisher, *kind, name, number) == Some(Some(Why::Pending))
            })
        };
        if let Some(last) = last
            && touched.iter().any(|(name, number)| is_pending(&last, name, *number))
        {
            return Some(last);
        }
        touched.iter().find_map(|(name, number)| {
            let watchers = self.entries.get(name).map(|entry| &entry.watchers);
            watchers.into_iter().flatten().find(|id| is_pending(id, name, *number)).copied()
        })
    }

    /// How proxies stand to what was touched.
    pub fn standing(&self, touched: &Touched) -> Standing {
        let mut all: BTreeMap<&str, Option<Why>> = BTreeMap::new();
        for ((kind, name), number) in touched {
            let watchers = self.entries.get(&(*kind, name.clone())).map(|entry| &entry.watchers);
            for id in watchers.into_iter().flatten() {
                let Some(stream) = self.streams.get(id) else { continue };
                let why = why_not(&stream.publisher, *kind, name, *number);
                worse(all.entry(&stream.proxy).or_default(), why);
            }
            for (proxy, departed) in &self.departed {
                if let Some(Some(_)) = why_of(&departed.publisher, *kind, name, *number) {
                    worse(all.entry(proxy).or_default(), Some(Why::Disconnected));
                }
            }
        }
        Standing {
            proxies: all.into_iter().map(|(proxy, why)| (proxy.to_owned(), why)).collect(),
            connected: self.proxies.keys().map(ToString::to_string).collect(),
        }
    }

    /// Every proxy that is known.
    pub fn proxies(&self) -> Vec<Proxy> {
        let shown = |name: &Arc<str>, publisher: &Publisher, since, is_connected| {
            let mut proxy =
                Proxy { name: name.clone(), since, is_connected, wants: 0, current: 0, refused: Vec::new() };
            for (kind, name) in publisher.names() {
                proxy.wants += 1;
                let Some(standing) = publisher.standing(kind, name) else { continue };
                let entry = self.entries.get(&(kind, name.clone())).map(|entry| entry.version);
                if standing.live.is_some()
                    && standing.live.map(|live| live.hash) == entry.map(|entry| entry.hash)
                {
                    proxy.current += 1;
                }
                if let Some((_, why)) = standing.refused {
                    proxy.refused.push(((kind, name.clone()), why.to_owned()));
                }
            }
            proxy
        };
        let connected = self.proxies.iter().filter_map(|(name, id)| {
            let stream = self.streams.get(id)?;
            Some(shown(name, &stream.publisher, stream.since, true))
        });
        let departed =
            self.departed.iter().map(|(name, departed)| shown(name, &departed.publisher, departed.at, false));
        let mut all: Vec<Proxy> = connected.chain(departed).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn settle(&mut self, moved: Moved) -> Touched {
        let mut dirty = BTreeSet::new();
        self.mark_moved(moved, &mut dirty);
        self.refresh(dirty)
    }

    fn mark_moved(&self, moved: Moved, dirty: &mut BTreeSet<Name>) {
        let services = moved.services.into_iter().map(|service| (Kind::Endpoints, service));
        let workloads = moved.workloads.into_iter().map(|workload| (Kind::Own, workload));
        let addresses =
            moved.addresses.into_iter().map(|address| (Kind::Address, address.to_string().into()));
        let all = services.chain(workloads).chain(addresses);
        dirty.extend(all.filter(|name| self.entries.contains_key(name)));
    }

    /// Makes entries again and wakes those who want what came out differently.
    fn refresh(&mut self, dirty: BTreeSet<Name>) -> Touched {
        let mut touched = Vec::new();
        self.clock += 1;
        for name in dirty {
            let (content, traces) = self.make(&name);
            self.counts.built += 1;
            let number = self.number(name.0);
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            let before = std::mem::replace(&mut entry.traces, traces.clone());
            let version = match &content {
                Some(content) => Version::of(number, content),
                None => Version::absent(number),
            };
            let is_changed = version.hash != entry.version.hash;
            if is_changed {
                (entry.version, entry.content) = (version, content);
                touched.push((name.clone(), number));
                for id in &entry.watchers {
                    if let Some(stream) = self.streams.get_mut(id)
                        && stream.publisher.changed(name.0, &name.1)
                    {
                        self.woken.insert(*id);
                    }
                }
            }
            self.retrace(&name, &before, &traces);
        }
        touched
    }

    fn number(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Endpoints | Kind::Address => self.clock,
            Kind::Own | Kind::Service | Kind::Gateway => self.revision,
        }
    }

    fn make(&self, (kind, name): &Name) -> (Option<Bytes>, BTreeSet<Trace>) {
        let key = |kind: &str| split(name).map(|(namespace, name)| Key::new(kind, namespace, name));
        match kind {
            Kind::Endpoints => {
                (self.members.endpoints(name, &self.library, &self.library.mesh()), BTreeSet::new())
            }
            Kind::Address => self.address(name),
            Kind::Service => match key("Service") {
                Some(key) => self.library.bundle(&Reader::Client(key)),
                None => Default::default(),
            },
            Kind::Gateway => match key("Gateway") {
                Some(key) => self.library.bundle(&Reader::Gateway(key)),
                None => Default::default(),
            },
            Kind::Own => match key("Workload") {
                Some(key) => {
                    let services = self.members.services_of(name).iter().filter_map(|path| split(path));
                    let services: Vec<Key> =
                        services.map(|(namespace, name)| Key::new("Service", namespace, name)).collect();
                    self.library.bundle(&Reader::Workload(key, &services))
                }
                None => Default::default(),
            },
        }
    }

    /// What is behind an address, or behind a name such as `orders.shop` or `orders.shop.svc.cluster.local`.
    fn address(&self, name: &str) -> (Option<Bytes>, BTreeSet<Trace>) {
        let mut traces = BTreeSet::from([Trace::All("Mesh", "".into())]);
        let mut workload = String::new();
        let services: Vec<String> = match name.parse::<IpAddr>() {
            Ok(address) => {
                let as_whole = self.virtuals.at(address);
                let as_whole =
                    as_whole.or_else(|| self.cluster_addresses.get(&address).map(|service| &**service));
                match as_whole {
                    Some(service) => vec![service.to_owned()],
                    None => {
                        let workloads = || self.members.at(address);
                        workload = workloads().next().map(ToString::to_string).unwrap_or_default();
                        let all = workloads().flat_map(|workload| self.members.services_of(workload));
                        all.map(ToString::to_string).collect::<BTreeSet<_>>().into_iter().collect()
                    }
                }
            }
            Err(_) => {
                let mut labels = name.trim_end_matches('.').splitn(3, '.');
                let (service, namespace) = (labels.next().unwrap_or(""), labels.next().unwrap_or(""));
                let rest = labels.next().unwrap_or("svc");
                let domain = self.library.mesh().trust_domain;
                let is_ours = rest == "svc" || rest.strip_prefix("svc.").is_some_and(|rest| *rest == *domain);
                let key = Key::new("Service", namespace, service);
                traces.insert(Trace::Document(key.clone()));
                let found = is_ours && self.library.get(&key).is_some();
                found.then(|| key.path()).into_iter().collect()
            }
        };
        for service in &services {
            if let Some((namespace, name)) = split(service) {
                traces.insert(Trace::Document(Key::new("Service", namespace, name)));
            }
        }
        let is_found = !services.is_empty() || !workload.is_empty();
        let content = is_found.then(|| {
            let service = services.first().cloned().unwrap_or_default();
            let virtual_addresses = self.virtuals.of(&service).iter().map(ToString::to_string).collect();
            Address { service, virtual_addresses, workload, services }.encode_to_vec().into()
        });
        (content, traces)
    }

    fn watch(&mut self, name: Name, id: StreamId) {
        if let Some(entry) = self.entries.get_mut(&name) {
            entry.watchers.insert(id);
            return;
        }
        let (content, traces) = self.make(&name);
        self.counts.built += 1;
        let number = self.number(name.0);
        let version = match &content {
            Some(content) => Version::of(number, content),
            None => Version::absent(number),
        };
        self.retrace(&name, &BTreeSet::new(), &traces);
        self.entries.insert(name, Entry { version, content, traces, watchers: BTreeSet::from([id]) });
    }

    fn unwatch(&mut self, name: &Name, id: StreamId) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.watchers.remove(&id);
        if entry.watchers.is_empty()
            && let Some(entry) = self.entries.remove(name)
        {
            self.retrace(name, &entry.traces, &BTreeSet::new());
        }
    }

    fn retrace(&mut self, name: &Name, before: &BTreeSet<Trace>, after: &BTreeSet<Trace>) {
        for trace in before.difference(after) {
            if let Some(names) = self.traces.get_mut(trace) {
                names.remove(name);
                if names.is_empty() {
                    self.traces.remove(trace);
                }
            }
        }
        for trace in after.difference(before) {
            self.traces.entry(trace.clone()).or_default().insert(name.clone());
        }
    }

    /// Ends a stream whose proxy has another one.
    fn drop_stream(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        // Its task finds out when it asks what to send.
        self.woken.insert(id);
        let names: Vec<Name> = stream.publisher.names().map(|(kind, name)| (kind, name.clone())).collect();
        names.into_iter().for_each(|name| self.unwatch(&name, id));
    }
}

/// The labels that a Service chooses its workloads by.
type Chosen = (Vec<(Box<str>, Box<str>)>, Vec<Box<str>>);

/// Which workloads a service takes: their labels, and their service accounts.
fn chosen(document: Option<&Arc<Document>>) -> Option<Chosen> {
    match &document?.role {
        Role::Service(service) => Some((service.selector.clone(), service.accounts.clone())),
        _ => None,
    }
}

/// The address that a Service has where it comes from.
fn cluster_address(document: Option<&Arc<Document>>) -> Option<IpAddr> {
    match &document?.role {
        Role::Service(service) => service.address,
        _ => None,
    }
}

/// Whether a caller may have a resource: what a workload's own side needs, and gateways, have secrets.
fn may_read(
    caller: &Caller,
    kind: Kind,
    name: &str,
    library: &Library,
    members: &Members,
) -> Result<(), Ended> {
    let Some((namespace, account)) = caller.identity() else { return Ok(()) };
    let owner = match kind {
        Kind::Endpoints | Kind::Service | Kind::Address => return Ok(()),
        Kind::Own => {
            let registered =
                members.registration(name).map(|registration| registration.service_account.clone());
            let written = || {
                let (namespace, name) = split(name)?;
                match &library.get(&Key::new("Workload", namespace, name))?.role {
                    Role::Workload(workload) => Some(workload.service_account.to_string()),
                    _ => None,
                }
            };
            // What a document says goes before what a process says of itself.
            written().or(registered).unwrap_or_else(|| account.to_owned())
        }
        Kind::Gateway => split(name).map(|(_, name)| name.to_owned()).unwrap_or_default(),
    };
    let is_home = split(name).is_some_and(|(home, _)| home == namespace);
    if is_home && owner == account {
        return Ok(());
    }
    Err(Ended::Denied(format!(
        "{} `{name}` is for the service account `{owner}` of its namespace, not for {namespace}/{account}",
        kind.as_str()
    )))
}

/// Why a proxy does not use a version, if it wants the resource at all.
fn why_of(publisher: &Publisher, kind: Kind, name: &str, number: u64) -> Option<Option<Why>> {
    let standing = publisher.standing(kind, name)?;
    if standing.live.is_some_and(|live| live.number >= number) {
        return Some(None);
    }
    Some(Some(match standing.refused {
        Some((version, why)) if version.number >= number => Why::Refused(why.to_owned()),
        _ => Why::Pending,
    }))
}

fn why_not(publisher: &Publisher, kind: Kind, name: &str, number: u64) -> Option<Why> {
    why_of(publisher, kind, name, number).flatten()
}

/// The worse of two states of a proxy.
fn worse(known: &mut Option<Why>, other: Option<Why>) {
    let rank = |why: &Option<Why>| match why {
        None => 0,
        Some(Why::Pending) => 1,
        Some(Why::Disconnected) => 2,
        Some(Why::Refused(_)) => 3,
    };
    if rank(&other) > rank(known) {
        *known = other;
    }
}
