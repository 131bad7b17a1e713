//! A mesh in which everything goes wrong that can, from a seed: who is served, and how, at every moment of it.
//!
//! There is no network and no waiting. Two control planes have the same documents, one a while after the other, and issue
//! certificates over one authority; six workloads have a proxy each. What happens next is chosen by chance: documents change,
//! some of them so that no proxy can use them; messages are carried or lost with their connection; control planes and proxies
//! begin anew with what is on disk, proxies at other addresses than before; roots and intermediates are rotated, identities
//! revoked; the clocks of proxies jump by hours. In between workloads call each other.
//!
//! Nothing of what decides is a model. Documents go through [`rhumb_control::core::Core`] and
//! [`Follower`](rhumb_agent::ads::Follower), are assembled, resolved and compiled as the process does
//! ([`Config`](crate::config::Config)), endpoints go through [`ServicePlaces`](crate::places::ServicePlaces), certificates
//! through [`Issuer`](rhumb_identity::Issuer) and [`Keeper`](rhumb_identity::Keeper); a request is led by the tables, balancers
//! and policies of the caller's plan and of the callee's, over TLS that is spoken in memory with the settings of both plans
//! ([`call`]). What is right is worked out apart from all of it ([`truth`], [`judge`]).
//!
//! What holds after each request that was served:
//!
//! * **Encrypted.** What was sent could not be read on the line. Only to a workload without a proxy anything goes in plain text,
//!   and only if some revision from the one that its caller has acknowledged on says so; nobody takes plain text for whom
//!   no such revision does.
//! * **Authorised** by some revision that is no older than the one that the callee's proxy has acknowledged, or that
//!   a control plane has called live with it (what `rhumb apply --wait` says). So once it has, no request passes that the change
//!   forbids, whatever is lost, restarted or cut off afterwards.
//! * **Between whom it seems.** Each side takes the other for who it is; certificates were valid in a handshake by the clock of
//!   whoever verified them; the callee is a workload of the service in what its caller uses, or was one a minute ago; nothing is
//!   served to, or by, an identity whose revocation whoever would have to refuse it has heard of, and no certificate is given for one
//!   that is revoked.
//!
//! In the end everything is connected and nothing goes wrong any more: then every proxy has a certificate and what the latest
//! revision says, and exactly the requests that it allows are served.
//!
//! What it found: plain text to an endpoint after a crash, because the disk came behind the acknowledgement; revocations taken
//! back by an issuer that is behind.
//!
//! `RHUMB_SEED=N` repeats one seed, `RHUMB_SEEDS=N` runs the first N.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rhumb_agent::ads::Kind;
use rhumb_agent::ads::registry::Registration;
use rhumb_agent::ads::resource::Mtls;
use rhumb_base::rng::Rng;
use rhumb_identity::Joining;
use rhumb_identity::wire::Proof;
use rhumb_tls::ClientTls;
use rhumb_tls::mesh::{Expected, PeerSvid};

mod pipe;
mod plane;
mod truth;
mod node;
mod call;
mod rush;
mod judge;
mod end;

use node::{Node, Stream};
use pipe::Line;
use plane::{Change, LEAF, Plane, World, identity, lifetimes};
use truth::{NODES, Truth};

/// Seeds that are run when nobody says how many.
const SEEDS: u64 = 40;

/// What happens in one seed, before the end.
const STEPS: usize = 300;

/// Addresses that workloads are at; some of them are free.
const ADDRESSES: u8 = 8;

/// When it begins. Unit: seconds since 1970.
const BEGIN: u64 = 1_900_000_000;

struct Simulation {
    rng: Rng,
    began: Instant,
    world: World,
    /// Of control planes, for versions of what has no revision.
    clock: u64,
    authority: tempfile::TempDir,
    /// Every revision in order: documents that changed, and what holds from there on.
    log: Vec<Vec<Change>>,
    truths: Vec<Truth>,
    planes: Vec<Plane>,
    nodes: Vec<Node>,
    /// The revision that a proxy is known to use, or a later one, by what it is about.
    known: Vec<BTreeMap<(Kind, String), u64>>,
    /// Who was revoked, and the certificates of it that are void: those that begin until then.
    revocations: Vec<(usize, i64)>,
    requests: u64,
    seen: BTreeMap<String, u64>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let authority = tempfile::tempdir().expect("a directory");
        let world: World = Arc::new(AtomicU64::new(BEGIN));
        let began = Instant::now();
        let planes: Vec<Plane> = (0..2).map(|_| Plane::start(authority.path(), &world, 1, began)).collect();
        let mut truth = Truth::default();
        let log = vec![truth.first()];
        let node = |number: usize| {
            let token = planes[0].issuer.token("default", &format!("a{number}")).expect("a token");
            Node::new(number, address(number), token, &world, began)
        };
        let nodes = (0..NODES).map(node).collect();
        Self {
            rng: Rng::new(seed),
            began,
            world,
            clock: 1,
            authority,
            log,
            truths: vec![Truth::default(), truth],
            planes,
            nodes,
            known: vec![BTreeMap::new(); NODES],
            revocations: Vec::new(),
            requests: 0,
            seen: BTreeMap::new(),
        }
    }

    fn run(&mut self) {
        self.begin();
        for _ in 0..STEPS {
            self.step();
        }
        self.end();
    }

    /// At first all is well.
    fn begin(&mut self) {
        for plane in 0..2 {
            self.catch_up(plane);
        }
        for number in 0..NODES {
            let plane = self.pick(2);
            self.renew(number, plane);
            self.hear(number, plane);
            self.connect(number, plane);
        }
        self.register_all();
        self.settle();
    }

    fn catch_up(&mut self, plane: usize) {
        let now = self.now();
        self.planes[plane].catch_up(&self.log, now);
    }

    fn now(&self) -> Instant {
        self.began + Duration::from_secs(self.time() - BEGIN)
    }

    fn time(&self) -> u64 {
        self.world.load(Ordering::Relaxed)
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.seen.entry(what.into()).or_default() += 1;
    }

    fn pick(&mut self, below: usize) -> usize {
        self.rng.below(u32::try_from(below).expect("few")) as usize
    }

    fn step(&mut self) {
        let (node, plane) = (self.pick(NODES), self.pick(2));
        match self.rng.below(100) {
            0..5 => self.change(),
            5..10 => self.catch_up(plane),
            10..14 => self.change_registration(node),
            14..17 => self.cut(node),
            17 => self.restart_plane(plane),
            18 => match self.rng.below(2) {
                0 => self.restart_node(node),
                _ => self.rush(node),
            },
            19..21 => self.pass_time(),
            21 => self.jump(node),
            22..24 => self.look_after(plane),
            24 => match self.rng.below(2) {
                0 => {
                    let account = self.pick(NODES);
                    self.revoke(account, plane);
                }
                _ => self.shut_out(node, plane),
            },
            25..32 => self.renew(node, plane),
            32..36 => self.hear(node, plane),
            36..42 => self.connect(node, plane),
            42..48 => self.nodes[node].save(),
            48..80 => {
                for _ in 0..self.rng.below(24) {
                    let what = self.rng.below(7);
                    self.deliver(node, what);
                }
            }
            _ => {
                for _ in 0..3 {
                    self.request(node);
                }
            }
        }
    }

    /// Something else is said from here on.
    fn change(&mut self) {
        let mut truth = self.truths.last().expect("a revision").clone();
        self.log.push(truth.change(&mut self.rng));
        self.truths.push(truth);
    }

    fn change_registration(&mut self, number: usize) {
        // Now and then somebody says to be where somebody else is.
        let is_wrong = self.rng.below(6) == 0;
        let elsewhere = address(self.pick(ADDRESSES.into()));
        let is_ending = self.rng.below(4) == 0;
        let mtls = if self.rng.below(3) == 0 { Mtls::Permissive } else { Mtls::Strict };
        let node = &mut self.nodes[number];
        if is_ending {
            if let (Some(stream), Some(registration)) = (&node.stream, node.registration.take()) {
                self.planes[stream.plane].core.withdraw(&registration.workload, &registration.instance);
            }
            return;
        }
        let mut registration = registration(node);
        registration.mtls = mtls.into();
        if is_wrong {
            registration.address = elsewhere.to_string();
        }
        node.registration = Some(registration.clone());
        if let Some(stream) = &node.stream {
            self.planes[stream.plane].core.register(registration).expect("a registration");
        }
    }

    /// The connection to the control plane breaks: what was on its way is lost.
    fn cut(&mut self, number: usize) {
        let now = self.now();
        let node = &mut self.nodes[number];
        node.trusted = None;
        let Some(stream) = node.stream.take() else { return };
        let core = &mut self.planes[stream.plane].core;
        core.close(stream.id, now);
        if let Some(registration) = &node.registration {
            core.lose(&registration.workload, &registration.instance, now);
        }
    }

    /// A proxy connects, if it and the control plane take each other's certificates.
    fn connect(&mut self, number: usize, plane: usize) {
        if self.nodes[number].stream.is_some() {
            return;
        }
        let Some(peer) = self.meet(number, plane) else { return };
        let (now, plane_of) = (self.now(), &mut self.planes[plane]);
        let id = plane_of.core.open(Plane::caller(&peer), now);
        let node = &mut self.nodes[number];
        if let Some(registration) = &node.registration {
            plane_of.core.register(registration.clone()).expect("a registration");
        }
        node.follower.begin();
        node.stream = Some(Stream {
            plane,
            id,
            up: Default::default(),
            down: Default::default(),
            sent: Default::default(),
        });
    }

    /// TLS of a member with a control plane: who it is.
    fn meet(&mut self, number: usize, plane: usize) -> Option<PeerSvid> {
        let membership = self.nodes[number].keeper.membership();
        let control = Expected::new(self.planes[plane].issuer.authority().control_id());
        let tls = ClientTls::member(membership, control, None, vec![b"h2".to_vec()]).expect("TLS");
        match Line::connect(&tls, &self.planes[plane].server, Ipv4Addr::LOCALHOST.into()) {
            Ok(line) => {
                let peer = line.server().peer?;
                self.check_peer(&peer, number, None);
                Some(peer)
            }
            Err(_) => {
                self.count("not let in by the control plane");
                None
            }
        }
    }

    /// All of its memory is gone but what the store has; its clock never goes back.
    fn restart_plane(&mut self, plane: usize) {
        for number in 0..NODES {
            if self.nodes[number].stream.as_ref().is_some_and(|stream| stream.plane == plane) {
                self.cut(number);
            }
            if self.nodes[number].trusted.as_ref().is_some_and(|(of, _)| *of == plane) {
                self.nodes[number].trusted = None;
            }
        }
        self.clock += 1_000_000;
        let now = self.now();
        self.planes[plane] = Plane::start(self.authority.path(), &self.world, self.clock, now);
        self.catch_up(plane);
        self.planes[plane].told = self.revocations.len();
    }

    /// A process ends and another one begins, perhaps at another address; with a join token where it has nothing else.
    fn restart_node(&mut self, number: usize) {
        self.cut(number);
        let taken: BTreeSet<Ipv4Addr> = self.nodes.iter().map(|node| node.address).collect();
        let free: Vec<Ipv4Addr> = (0..ADDRESSES)
            .map(|place| address(place.into()))
            .filter(|address| !taken.contains(address))
            .collect();
        let own = self.nodes[number].address;
        let at = if self.rng.below(2) == 0 { free[self.pick(free.len())] } else { own };
        self.restart_node_at(number, at);
    }

    fn restart_node_at(&mut self, number: usize, at: Ipv4Addr) {
        let joining = match self.rng.below(3) {
            0 => Joining::Nothing,
            _ => self.token(number),
        };
        let now = self.now();
        self.nodes[number].restart(at, joining, now);
        self.count("processes of proxies");
    }

    fn token(&mut self, number: usize) -> Joining {
        let plane = self.pick(2);
        Joining::Token(self.planes[plane].issuer.token("default", &format!("a{number}")).expect("a token"))
    }

    fn pass_time(&mut self) {
        let seconds = u64::from(self.rng.below(u32::try_from(LEAF / 6).expect("short")));
        self.pass(seconds);
    }

    fn pass(&mut self, seconds: u64) {
        self.world.fetch_add(seconds, Ordering::Relaxed);
        let now = self.now();
        for plane in &mut self.planes {
            plane.core.expire(now);
        }
        for node in &mut self.nodes {
            node.places.tidy(now);
        }
    }

    /// The clock of a proxy is set: wrong by hours, or right.
    fn jump(&mut self, number: usize) {
        let wrong = i64::from(self.rng.below(u32::try_from(8 * LEAF).expect("short"))) - 4 * LEAF as i64;
        let offset = if self.rng.below(3) > 0 { 0 } else { wrong };
        self.nodes[number].offset.store(offset, Ordering::Relaxed);
    }

    /// What an issuer does several times a second; now and then somebody asks for another root.
    fn look_after(&mut self, plane: usize) {
        let issuer = Arc::clone(&self.planes[plane].issuer);
        if self.rng.below(8) == 0 && issuer.rotate_root().is_ok() {
            self.count("rotations that were asked for");
        }
        issuer.turn().expect("a turn of the issuer");
        self.planes[plane].told = self.revocations.len();
    }

    fn revoke(&mut self, account: usize, plane: usize) {
        let id = identity(&format!("a{account}"));
        self.planes[plane].issuer.revoke(&id).expect("a revocation");
        let until = self.time() - lifetimes().skew();
        self.revocations.push((account, i64::try_from(until).expect("a time")));
        self.planes[plane].told = self.revocations.len();
        self.count("revocations");
    }

    /// A proxy asks for a certificate, where one is due.
    fn renew(&mut self, number: usize, plane: usize) {
        let mut rng = Rng::new(self.rng.next_u64());
        if self.nodes[number].is_due(&mut rng) {
            self.obtain(number, plane);
        }
    }

    fn obtain(&mut self, number: usize, plane: usize) {
        let keeper = Arc::clone(&self.nodes[number].keeper);
        let Ok((request, key, tls)) = keeper.ask() else { return };
        let (plane_of, told) = (&self.planes[plane], self.revocations.len());
        let Ok(line) = Line::connect(&tls, &plane_of.server, Ipv4Addr::LOCALHOST.into()) else { return };
        let peer = line.server().peer;
        let Ok(answer) = plane_of.issuer.answer(&request, peer.as_ref()) else {
            return self.count("certificates refused");
        };
        if let (Some(Proof::Current(_)), Some(peer)) = (&request.proof, &peer) {
            assert!(!self.is_void(number, peer), "w{number} gets a certificate for one that is revoked");
        }
        if keeper.take(answer, &key).is_ok() {
            self.nodes[number].revocations = told;
            self.count("certificates");
        }
    }

    /// A proxy hears from an issuer what is to be trusted.
    fn hear(&mut self, number: usize, plane: usize) {
        if self.nodes[number].trusted.is_none() {
            if self.meet(number, plane).is_none() {
                return;
            }
            let trusted = self.planes[plane].issuer.trust().expect("what to trust");
            self.planes[plane].told = self.revocations.len();
            self.nodes[number].trusted = Some((plane, trusted));
        }
        let node = &mut self.nodes[number];
        let Some((plane, trusted)) = &mut node.trusted else { return };
        let trust = Arc::clone(&trusted.borrow_and_update());
        if node.keeper.trust(&trust).is_ok() {
            node.revocations = node.revocations.max(self.planes[*plane].told);
        }
    }

    /// One thing that can happen between a proxy and its control plane.
    fn deliver(&mut self, number: usize, choice: u32) {
        let now = self.now();
        let node = &mut self.nodes[number];
        if choice >= 5 {
            let refusals = node.refusals;
            node.take_over(now);
            let refused = node.refusals - refusals;
            *self.seen.entry("changes refused by proxies".to_owned()).or_default() += refused;
            return;
        }
        let Some(stream) = &mut node.stream else { return };
        let plane = &mut self.planes[stream.plane];
        match choice {
            0 => stream.up.extend(node.follower.request()),
            1 | 2 => {
                let Some(request) = stream.up.pop_front() else { return };
                if plane.core.request(stream.id, &request).is_err() {
                    return self.cut(number);
                }
                let of_plane = stream.plane;
                if request.error_detail.is_none()
                    && let Some((kind, names, revision)) = stream.sent.remove(&request.response_nonce)
                {
                    for name in names {
                        self.raise(number, (kind, name), revision);
                    }
                    self.raise_to_what_is_live(number, of_plane);
                }
            }
            3 => {
                let Ok(Some(response)) = plane.core.respond(stream.id) else { return };
                let kind = Kind::of_url(&response.type_url).expect("a type");
                let names = response.resources.iter().map(|resource| resource.name.clone());
                let names = names.chain(response.removed_resources.iter().cloned()).collect();
                stream.sent.insert(response.nonce.clone(), (kind, names, plane.core.revision()));
                stream.down.push_back(response);
            }
            _ => {
                let Some(response) = stream.down.pop_front() else { return };
                node.held_back.push_back(node.follower.response(response).expect("a change"));
            }
        }
    }
}

fn address(place: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(place + 1).expect("few"))
}

fn registration(node: &Node) -> Registration {
    Registration {
        workload: format!("default/{}", node.name),
        address: node.address.to_string(),
        services: vec![format!("s{}", node.serves())],
        service_account: format!("a{}", node.number),
        instance: node.instance.to_string(),
        ..Registration::default()
    }
}

#[test]
fn whatever_happens_nobody_is_served_who_may_not_be_and_everybody_in_the_end() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let (first, count) = match number("RHUMB_SEED") {
        Some(seed) => (seed, 1),
        None => (1, number("RHUMB_SEEDS").unwrap_or(SEEDS)),
    };
    let next = AtomicU64::new(first);
    let failed = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let seen = std::sync::Mutex::new(BTreeMap::<String, u64>::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || failed.load(Ordering::Relaxed) > 0 {
                        return;
                    }
                    let run = || {
                        let mut simulation = Simulation::new(seed);
                        simulation.run();
                        simulation.seen
                    };
                    match std::panic::catch_unwind(AssertUnwindSafe(run)) {
                        Ok(of_seed) => {
                            let mut seen = seen.lock().expect("no panic in here");
                            of_seed
                                .into_iter()
                                .for_each(|(what, times)| *seen.entry(what).or_default() += times);
                        }
                        Err(_) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            eprintln!("seed {seed}: repeat it with RHUMB_SEED={seed}");
                        }
                    }
                }
            });
        }
    });
    let seen = seen.into_inner().expect("no panic in here");
    eprintln!("{count} seeds: {seen:#?}");
    assert_eq!(failed.into_inner(), 0, "see above for the seed");
    // What never happened was not tried.
    if count >= SEEDS {
        for what in
            ["served, connected before", "refused: denied", "refused: revoked", "changes refused by proxies"]
        {
            assert!(seen.get(what).is_some_and(|times| *times > 0), "{what} never happened");
        }
    }
}
