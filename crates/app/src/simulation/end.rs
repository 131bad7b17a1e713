//! The end: everything comes together, and then exactly what the latest revision allows is served.

use std::sync::atomic::Ordering;

use super::call::Ended;
use super::node::Node;
use super::plane::LEAF;
use super::truth::{LEGACY_SERVICE, NODES};
use super::{Simulation, registration};

impl Simulation {
    /// Everything is mended and connected, and nothing goes wrong any more, until nothing happens any more.
    pub(super) fn end(&mut self) {
        let mut truth = self.truths.last().expect("a revision").clone();
        self.log.push(truth.mend());
        self.truths.push(truth);
        for plane in 0..2 {
            self.catch_up(plane);
            self.look_after(plane);
        }
        self.converge();
        // Those that are gone are gone, and what was void has ended.
        self.pass(3 * LEAF);
        for plane in 0..2 {
            self.look_after(plane);
        }
        for number in 0..NODES {
            self.nodes[number].offset.store(0, Ordering::Relaxed);
            let (joining, now) = (self.token(number), self.now());
            let address = self.nodes[number].address;
            self.cut(number);
            self.nodes[number].restart(address, joining, now);
        }
        for plane in 0..2 {
            for number in 0..NODES {
                self.renew(number, plane);
            }
        }
        for number in 0..NODES {
            let plane = self.pick(2);
            self.hear(number, plane);
            self.connect(number, plane);
            let node = &self.nodes[number];
            assert!(node.stream.is_some(), "in the end nobody lets it in: {}", node.state());
        }
        self.settle();
        self.register_all();
        self.settle();
        for caller in 0..NODES {
            for service in self.nodes[caller].calls().collect::<Vec<_>>() {
                for _ in 0..4 {
                    self.check_in_the_end(caller, service);
                }
            }
        }
    }

    /// Proxies that are let in come to do what the latest revision says, without beginning anew for that.
    fn converge(&mut self) {
        for number in 0..NODES {
            self.nodes[number].offset.store(0, Ordering::Relaxed);
            for plane in 0..2 {
                self.connect(number, plane);
            }
        }
        self.settle();
        let latest = self.truths.last().expect("a revision").clone();
        let is_connected = |node: &Node| node.stream.is_some();
        for caller in (0..NODES).filter(|caller| is_connected(&self.nodes[*caller])).collect::<Vec<_>>() {
            let mesh = self.nodes[caller].plan.as_ref().and_then(|plan| plan.mesh.as_ref());
            let is_permissive = mesh.is_some_and(|mesh| mesh.is_permissive);
            assert!(!is_permissive || latest.is_permissive, "w{caller} goes on taking plain text");
            for service in self.nodes[caller].calls().collect::<Vec<_>>() {
                let led_to = latest.services[service].leads_to.unwrap_or(service);
                let mut servers = self.nodes.iter().filter(|node| node.serves() == led_to);
                let is_known = servers.all(is_connected);
                let is_right = match self.ask(caller, service) {
                    Ended::Served { callee, service, .. } => {
                        !is_connected(&self.nodes[callee])
                            || service == led_to && latest.allows(led_to, caller)
                    }
                    Ended::Refused("denied") if is_known => !latest.allows(led_to, caller),
                    Ended::Plain(_) => led_to == LEGACY_SERVICE && latest.is_legacy_plain,
                    _ => true,
                };
                let state = self.nodes[caller].state();
                assert!(
                    is_right,
                    "when all is told: s{service}, which leads to s{led_to}\n{latest:?}\n{state}"
                );
            }
        }
    }

    /// Every workload says what it is, and what one control plane is told, the others know.
    pub(super) fn register_all(&mut self) {
        for number in 0..NODES {
            let registration = registration(&self.nodes[number]);
            self.nodes[number].registration = Some(registration.clone());
            for plane in &mut self.planes {
                plane.core.register(registration.clone()).expect("a registration");
            }
        }
    }

    /// Everything that is on its way comes.
    pub(super) fn settle(&mut self) {
        loop {
            let mut is_quiet = true;
            let now = self.now();
            for number in 0..NODES {
                let node = &mut self.nodes[number];
                let Some(stream) = &mut node.stream else { continue };
                let core = &mut self.planes[stream.plane].core;
                stream.up.extend(std::iter::from_fn(|| node.follower.request()));
                while let Some(request) = stream.up.pop_front() {
                    is_quiet = false;
                    core.request(stream.id, &request).expect("a request");
                }
                stream.down.extend(std::iter::from_fn(|| core.respond(stream.id).expect("a stream")));
                while let Some(response) = stream.down.pop_front() {
                    is_quiet = false;
                    node.held_back.push_back(node.follower.response(response).expect("a change"));
                }
                while !node.held_back.is_empty() {
                    node.take_over(now);
                }
                node.save();
            }
            if is_quiet {
                return;
            }
        }
    }

    /// Exactly what the latest revision allows is served.
    fn check_in_the_end(&mut self, caller: usize, service: usize) {
        let latest = self.truths.last().expect("a revision").clone();
        let led_to = latest.services[service].leads_to.unwrap_or(service);
        let ended = self.ask(caller, service);
        let is_right = match &ended {
            Ended::Served { service, .. } => *service == led_to && latest.allows(led_to, caller),
            Ended::Refused("denied") => !latest.allows(led_to, caller),
            Ended::Plain(_) => led_to == LEGACY_SERVICE && latest.is_legacy_plain,
            Ended::NoWay("nobody is there") => led_to == LEGACY_SERVICE && !latest.is_legacy_plain,
            _ => false,
        };
        let state = self.nodes[caller].state();
        assert!(is_right, "in the end: s{service}, which leads to s{led_to}: {ended:?}\n{latest:?}\n{state}");
    }
}
