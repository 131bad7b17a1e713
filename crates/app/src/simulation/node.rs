//! A workload's proxy: what it has of its control plane, what it has compiled of it, and who it is.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use rhumb_agent::ads::registry::Registration;
use rhumb_agent::ads::resource::{EndpointSet, Mtls};
use rhumb_agent::ads::wire::{DeltaRequest, DeltaResponse, Node as WireNode};
use rhumb_agent::ads::{Ack, Change, Follower, Item, Kind};
use rhumb_agent::assembly::Assembly;
use rhumb_agent::is_saved_first;
use rhumb_balance::Nanos;
use rhumb_base::rng::Rng;
use rhumb_control::core::StreamId;
use rhumb_identity::wire::Trust;
use rhumb_identity::{Clock, JoinToken, Joining, Keeper, KeeperSettings};
use rhumb_plan::Plan;
use rhumb_resolve::Advice;
use tokio::sync::watch;

use super::call::Open;
use super::plane::World;
use super::truth::SERVICES;
use crate::config::{Config, Offered, Reading};
use crate::places::ServicePlaces;
use crate::remote::changed;

/// How long whoever has left a service may answer what it was asked before; unit: seconds.
pub(super) const FAREWELL: u64 = 60;

/// What came with a message of the control plane, by its nonce: the names in it, and the revision that they are of.
pub(super) type Sent = HashMap<String, (Kind, Vec<String>, u64)>;

/// A stream of a proxy with its control plane.
pub(super) struct Stream {
    pub(super) plane: usize,
    pub(super) id: StreamId,
    pub(super) up: VecDeque<DeltaRequest>,
    pub(super) down: VecDeque<DeltaResponse>,
    pub(super) sent: Sent,
}

pub(super) struct Node {
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    /// Counts its processes.
    pub(super) instance: u32,
    pub(super) follower: Follower,
    pub(super) stream: Option<Stream>,
    /// What it was told and did not answer yet.
    pub(super) held_back: VecDeque<Change>,
    /// What it uses and has not said so yet, because it is not on disk.
    acks: Vec<Ack>,
    disk: (Vec<(Kind, Item)>, u64),
    /// What this process is told by its control plane, as it is in force.
    bundles: BTreeMap<(Kind, Box<str>), Bytes>,
    assembly: Assembly,
    offers: u64,
    services: BTreeSet<String>,
    config: Config,
    /// What is in force; nothing as long as there was nothing without mistakes.
    pub(super) plan: Option<Arc<Plan>>,
    /// What was compiled of what it uses, and the mistakes in that.
    compiled: (Arc<Plan>, Vec<String>),
    pub(super) places: ServicePlaces,
    /// Who has left which service, and until when that one may still answer; kept apart from `places`.
    left: Vec<(String, String, Instant)>,
    pub(super) keeper: Arc<Keeper>,
    /// By what its clock is wrong. Unit: seconds.
    pub(super) offset: Arc<AtomicI64>,
    clock: Clock,
    directory: tempfile::TempDir,
    pub(super) registration: Option<Registration>,
    /// Its connections to others.
    pub(super) outgoing: HashMap<(Box<str>, SocketAddr), Open>,
    /// What is to be trusted, as an issuer tells it.
    pub(super) trusted: Option<(usize, watch::Receiver<Arc<Trust>>)>,
    /// Revocations that it knows of.
    pub(super) revocations: usize,
    pub(super) refusals: u64,
}

impl Node {
    /// One that was never started before.
    pub(super) fn new(
        number: usize,
        address: Ipv4Addr,
        token: JoinToken,
        world: &World,
        now: Instant,
    ) -> Self {
        let offset = Arc::new(AtomicI64::new(0));
        let clock: Clock = {
            let (world, offset) = (Arc::clone(world), Arc::clone(&offset));
            Arc::new(move || {
                world.load(Ordering::Relaxed).saturating_add_signed(offset.load(Ordering::Relaxed))
            })
        };
        let directory = tempfile::tempdir().expect("a directory");
        let process = Process::start(number, Joining::Token(token), &clock, directory.path());
        let mut node = Self {
            number,
            name: format!("w{number}"),
            address,
            instance: 0,
            follower: Follower::new(WireNode { id: format!("w{number}"), ..WireNode::default() }),
            stream: None,
            held_back: VecDeque::new(),
            acks: Vec::new(),
            disk: (Vec::new(), 0),
            bundles: BTreeMap::new(),
            assembly: Assembly::default(),
            offers: 0,
            services: BTreeSet::new(),
            config: process.config,
            plan: None,
            compiled: process.first,
            places: ServicePlaces::new(now),
            left: Vec::new(),
            keeper: process.keeper,
            offset,
            clock,
            directory,
            registration: None,
            outgoing: HashMap::new(),
            trusted: None,
            revocations: 0,
            refusals: 0,
        };
        node.want_first();
        node
    }

    /// The process ends, whatever it was about, and another one begins with what is on disk.
    pub(super) fn restart(&mut self, address: Ipv4Addr, joining: Joining, now: Instant) {
        let process = Process::start(self.number, joining, &self.clock, self.directory.path());
        self.instance += 1;
        self.address = address;
        self.stream = None;
        self.held_back.clear();
        self.acks.clear();
        self.follower = Follower::new(WireNode { id: self.name.clone(), ..WireNode::default() });
        self.follower.resume(self.disk.1);
        for (kind, item) in self.disk.0.clone() {
            self.follower.restore(kind, item);
        }
        self.want_first();
        let held = |kind| {
            let of = |(name, _, content): (&str, _, Option<&Bytes>)| {
                Some(((kind, Box::from(name)), content.cloned()?))
            };
            self.follower.held(kind).filter_map(of).collect::<Vec<_>>()
        };
        self.bundles = Kind::ALL.into_iter().flat_map(held).collect();
        self.assembly = Assembly::default();
        self.services.clear();
        (self.config, self.keeper, self.compiled) = (process.config, process.keeper, process.first);
        self.plan = None;
        self.places = ServicePlaces::new(now);
        self.left.clear();
        self.registration = None;
        self.outgoing.clear();
        self.trusted = None;
        self.follow_services();
        let offered = self.offered(&self.bundles.clone());
        self.compiled = self.compile(offered);
        self.put_in_force(now);
    }

    /// The service that it is a workload of.
    pub(super) fn serves(&self) -> usize {
        self.number % SERVICES
    }

    /// Services that it calls.
    pub(super) fn calls(&self) -> impl Iterator<Item = usize> + use<> {
        called_by(self.number)
    }

    /// What time it thinks that it is.
    pub(super) fn clock(&self) -> u64 {
        (self.clock)()
    }

    fn want_first(&mut self) {
        self.follower.want(Kind::Own, &format!("default/{}", self.name));
        for service in self.calls().chain([self.serves()]) {
            self.follower.want(Kind::Service, &format!("default/s{service}"));
        }
    }

    /// Tries the oldest change that it has not answered, as [`crate::remote`] does.
    pub(super) fn take_over(&mut self, now: Instant) {
        let Some(change) = self.held_back.pop_front() else { return };
        if change.kind == Kind::Endpoints {
            for item in &change.items {
                self.places.place(&item.name, item.content.as_ref(), now).expect("endpoints");
            }
            self.accept(change, now);
            return self.begin_if_it_can(now);
        }
        let before = self.offered(&self.bundles.clone());
        let offered = self.offered(&changed(&self.bundles, &change));
        if offered.is_the_same(&before) {
            self.accept(change, now);
            return self.begin_if_it_can(now);
        }
        let compiled = self.compile(offered);
        // Before anything is in force, what is missing may be on its way.
        let is_better = self.plan.is_none() && compiled.1.len() <= self.compiled.1.len();
        if !compiled.1.is_empty() && !is_better {
            self.refusals += 1;
            return self.follower.refuse(change, compiled.1.join("; "));
        }
        self.compiled = compiled;
        self.accept(change, now);
        self.put_in_force(now);
    }

    /// Waits for what is wanted before it begins.
    fn begin_if_it_can(&mut self, now: Instant) {
        if self.plan.is_none() {
            self.put_in_force(now);
        }
    }

    fn put_in_force(&mut self, now: Instant) {
        let is_first = self.plan.is_none();
        if !self.compiled.1.is_empty() || is_first && self.follower.unknown() > 0 {
            return;
        }
        for ((kind, service), content) in self.bundles.iter().filter(|_| is_first) {
            if *kind == Kind::Endpoints {
                self.places.place(service, Some(content), now).expect("endpoints");
            }
        }
        self.places.settle(&self.compiled.0, now);
        self.plan = Some(Arc::clone(&self.compiled.0));
    }

    fn accept(&mut self, change: Change, now: Instant) {
        if change.kind == Kind::Endpoints {
            for item in &change.items {
                let before = self.expects(&item.name);
                let after = item.content.as_ref().map(identities).unwrap_or_default();
                for gone in before.difference(&after) {
                    self.left.push((
                        item.name.to_string(),
                        gone.clone(),
                        now + Duration::from_secs(FAREWELL),
                    ));
                }
            }
        }
        self.bundles = changed(&self.bundles, &change);
        let is_of_documents = change.kind.is_of_documents();
        let is_saved_first = is_saved_first(&self.follower, &change);
        let ack = self.follower.take_over(change);
        if is_saved_first {
            self.acks.push(ack);
        } else {
            self.follower.acknowledge(ack);
        }
        if is_of_documents {
            self.follow_services();
        }
    }

    /// Saves what is in use, and says so where that was waited for.
    pub(super) fn save(&mut self) {
        let of = |kind| {
            let item = move |(name, version, content): (&str, _, Option<&Bytes>)| {
                (kind, Item { name: name.into(), version, content: content.cloned() })
            };
            self.follower.held(kind).map(item)
        };
        self.disk = (Kind::ALL.into_iter().flat_map(of).collect(), self.follower.revision());
        for ack in self.acks.drain(..) {
            self.follower.acknowledge(ack);
        }
    }

    fn follow_services(&mut self) {
        let documents = self.offered(&self.bundles.clone()).docs;
        let services = documents.iter().filter(|document| &*document.id.kind == "Service");
        let services: BTreeSet<String> =
            services.map(|document| format!("{}/{}", document.namespace(), document.name())).collect();
        for service in services.difference(&self.services) {
            self.follower.want(Kind::Endpoints, service);
        }
        for service in self.services.difference(&services) {
            self.follower.leave(Kind::Endpoints, service);
            self.bundles.remove(&(Kind::Endpoints, service.as_str().into()));
        }
        self.services = services;
    }

    fn offered(&mut self, bundles: &BTreeMap<(Kind, Box<str>), Bytes>) -> Offered {
        let documents = bundles.iter().filter(|((kind, _), _)| kind.is_of_documents());
        let assembled = self.assembly.assemble(documents.map(|(_, bytes)| bytes));
        self.offers += 1;
        let services = assembled.documents.iter().filter(|document| &*document.id.kind == "Service");
        let placed =
            services.map(|document| format!("{}/{}", document.namespace(), document.name())).collect();
        let advice = Advice { placed, ..Advice::default() };
        Offered { docs: assembled.documents, diags: assembled.diags, advice, number: self.offers }
    }

    fn compile(&mut self, offered: Offered) -> (Arc<Plan>, Vec<String>) {
        self.config.offer(offered);
        compiled(self.config.read(Some(&self.compiled.0), Nanos::default()))
    }

    /// Identities of a service's workloads, in what is in use.
    fn expects(&self, service: &str) -> BTreeSet<String> {
        let known = self.follower.known(Kind::Endpoints, service).flatten();
        known.map(identities).unwrap_or_default()
    }

    /// Whether an identity may answer for a service: it is one of its workloads, or was a moment ago.
    pub(super) fn may_answer(&self, service: &str, id: &str, now: Instant) -> bool {
        let was = |(of, left, until): &(String, String, Instant)| of == service && left == id && *until > now;
        self.expects(service).contains(id) || self.left.iter().any(was)
    }

    /// How it stands, for whoever looks for a mistake.
    pub(super) fn state(&self) -> String {
        let (unknown, mistakes) = (self.follower.unknown(), &self.compiled.1);
        let svid = self.keeper.membership().svid();
        format!("{}: {unknown} unknown, mistakes: {mistakes:#?}, {svid:?} at {}", self.name, self.clock())
    }

    /// Whether it wants a certificate: at half of its life, or when there is none that is good.
    pub(super) fn is_due(&self, rng: &mut Rng) -> bool {
        self.keeper.due(rng) <= self.clock() || self.keeper.is_revoked()
    }
}

/// Two services that a workload calls; one of them may be its own.
fn called_by(number: usize) -> impl Iterator<Item = usize> + use<> {
    [(number + 1) % SERVICES, (number / SERVICES) * 2 % SERVICES].into_iter()
}

/// What begins with a process.
struct Process {
    config: Config,
    first: (Arc<Plan>, Vec<String>),
    keeper: Arc<Keeper>,
}

impl Process {
    fn start(number: usize, joining: Joining, clock: &Clock, directory: &std::path::Path) -> Self {
        let documents = directory.join("documents");
        std::fs::create_dir_all(&documents).expect("a directory");
        let mut config = Config::at(documents).with("sidecar.yaml", &sidecar(number));
        config.offer(Offered::default());
        let first = compiled(config.read(None, Nanos::default()));
        let mesh = first.0.mesh.as_ref().expect("a mesh");
        let membership = mesh.membership.clone().expect("a membership");
        let settings = KeeperSettings { issuers: Vec::new(), joining, directory: directory.join("identity") };
        let keeper = Keeper::open(membership, settings, Arc::clone(clock)).expect("a keeper");
        Self { config, first, keeper }
    }
}

/// A plan with the mistakes that it was made in spite of.
fn compiled(reading: Reading) -> (Arc<Plan>, Vec<String>) {
    let mistakes = reading.diags.iter().filter(|diag| diag.is_error()).map(ToString::to_string).collect();
    (Arc::new(reading.plan), mistakes)
}

fn sidecar(number: usize) -> String {
    let mut called: Vec<usize> = called_by(number).collect();
    called.dedup();
    let upstream = |service: &usize| {
        format!("{{service: s{service}, port: 80, listen: '127.0.0.1:{}'}}", 7000 + service)
    };
    let upstreams: Vec<String> = called.iter().map(upstream).collect();
    format!(
        "apiVersion: rhumb.dev/v1alpha1\nkind: Sidecar\nmetadata: {{name: w{number}}}\nspec:\n  \
         workload: {{address: 10.0.0.{}, serviceAccount: a{number}}}\n  inbound: [{{service: s{}, port: 80}}]\n  \
         upstreams: [{}]\n  identity: {{control: {{addresses: ['10.1.0.1:15012']}}}}\n",
        number + 1,
        number % SERVICES,
        upstreams.join(", ")
    )
}

fn identities(content: &Bytes) -> BTreeSet<String> {
    let set = EndpointSet::decode(content.clone()).expect("endpoints");
    let behind = set.endpoints.into_iter().filter(|endpoint| endpoint.mtls != Mtls::None as i32);
    behind.map(|endpoint| endpoint.identity).collect()
}

/// Where a workload is.
pub(super) fn is_at(node: &Node, address: IpAddr) -> bool {
    IpAddr::V4(node.address) == address
}
