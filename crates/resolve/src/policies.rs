//! Policies: what is attached where, and which of several wins.
//!
//! Levels from the widest to the nearest: Gateway, listener, route, rule (a Policy), rule (filters); then for the
//! requests of one backendRef: Backend, backendRef (filters). Of a kind that merges as `MostSpecific` the nearest one
//! runs, of a `Union` kind all of them, the widest first.

mod attached;
mod bodies;
mod chains;

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use rhumb_model::kind::policy::PolicyTarget;
use rhumb_model::{Diag, Doc, Origin, Rule, Spanned};
use rhumb_plan::consumer::{ByConsumer, ConsumerPolicies};
use rhumb_policy::{Attach, Keeper, Want};

use crate::collect::{Docs, Key, key};
use crate::report::{Event, Report};
use crate::trace::{Ask, Changes, Frame, Read, read};

use attached::{add, place_at_service};
use chains::{chain, choose};

pub(crate) use attached::{
    Attached, Level, at_place, is_of_backend, is_of_caller, is_of_server, prefix_conflict,
};
pub(crate) use bodies::{Secrets, mistake, secret_of};
pub(crate) use chains::{Chains, Settings, chains, filters, nearest};

/// What a Policy document has come to, kept while it and what it asks for stay the same.
pub(crate) struct Kept {
    bodies: Arc<Level>,
    /// What it is attached to, as hashes.
    targets: Box<[Read]>,
    /// Backends that they will ask, and where they are named.
    wants: Box<[(Want, Origin)]>,
    /// Of its bodies.
    mine: Part,
    /// Of its places.
    places: Part,
}

#[derive(Default)]
pub(crate) struct Part {
    pub(crate) events: Box<[Event]>,
    pub(crate) frame: Frame,
}

impl Part {
    pub(crate) fn of((events, frame): (Box<[Event]>, Frame)) -> Self {
        Self { events, frame }
    }

    pub(crate) fn is_current(&self, changes: &Changes) -> bool {
        !self.frame.is_volatile && !changes.touch(&self.frame.reads)
    }
}

/// Kind and name of what a Policy is attached to.
type Target<'a> = (&'a str, Key<'a>);

/// What is attached to an object.
#[derive(Default)]
struct Place<'a> {
    whole: Level,
    sections: Vec<(&'a str, Level)>,
}

impl<'a> Place<'a> {
    fn level(&mut self, section: Option<&'a str>) -> &mut Level {
        let Some(section) = section else { return &mut self.whole };
        let at = self.sections.iter().position(|(name, _)| *name == section);
        let at = at.unwrap_or_else(|| {
            self.sections.push((section, Level::new()));
            self.sections.len() - 1
        });
        &mut self.sections[at].1
    }
}

/// All Policy documents.
pub(crate) struct Policies<'a> {
    docs: &'a Docs<'a>,
    /// Bodies of every Policy, in the order of their documents.
    bodies: Vec<Arc<Level>>,
    /// What was looked at so far; see [`Self::fill`].
    places: HashMap<Target<'a>, Place<'a>>,
    /// Every target: the hash of its object, the Policy, and which of its targets it is.
    targets: Vec<(Read, u32, u32)>,
    /// They are sorted: after a few times of going through them that pays.
    is_sorted: bool,
    fills: u32,
    /// Those that a filter named.
    used: HashSet<usize>,
    /// Backends that policies will ask, and where they are named.
    pub(crate) wants: Vec<(Want, Origin)>,
    nothing: Level,
}

/// From this many objects on it pays to sort the targets.
const FILLS: u32 = 32;

/// The object that a target means.
fn object<'a>(doc: &'a Doc, target: &'a PolicyTarget) -> Target<'a> {
    (target.kind.as_str(), (doc.namespace(), target.name.as_str()))
}

impl<'a> Policies<'a> {
    /// Compiles them, but for those in `kept` that stay as they are. What has become another is added to `changes`.
    /// True when something that is attached to a Gateway did.
    pub(crate) fn new(
        docs: &'a Docs<'a>,
        keeper: &Keeper,
        consumers: &crate::consumers::Kept,
        kept: &mut HashMap<usize, Kept>,
        changes: &mut Changes,
        report: &mut Report,
    ) -> (Self, bool) {
        let all = &docs.policies.all;
        let mut has_gateways_changed = false;
        let mut bodies = Vec::with_capacity(all.len());
        let mut all_wants = Vec::new();
        let mut targets = Vec::with_capacity(all.len());
        for (at, entry) in (0u32..).zip(all) {
            if let Some(kept) = kept.get(&entry.id()) {
                if kept.mine.is_current(changes) {
                    targets.extend((0u32..).zip(&kept.targets).map(|(index, hash)| (*hash, at, index)));
                    bodies.push(Arc::clone(&kept.bodies));
                    all_wants.extend_from_slice(&kept.wants);
                    continue;
                }
                // It says something else, though it is the same document: what it is attached to is compiled anew.
                for target in &entry.spec.target_refs {
                    let (kind, name) = object(entry.doc, target);
                    changes.add(Ask::Attached, kind, name);
                    has_gateways_changed |= matches!(kind, "Gateway" | "Service");
                }
                changes.add(Ask::Document, "Policy", key(entry.doc));
            }
            report.begin(true);
            let mut wants = Vec::new();
            let mut secrets = Secrets { docs, consumers: Some(consumers) };
            let level = Arc::new(bodies::bodies(*entry, &mut secrets, keeper, &mut wants, report));
            let mine = Part::of(report.end());
            all_wants.extend_from_slice(&wants);
            let objects = entry.spec.target_refs.iter().map(|target| object(entry.doc, target));
            let hashes: Box<[Read]> = objects.map(|(kind, name)| read(Ask::Attached, kind, name)).collect();
            targets.extend((0u32..).zip(&hashes).map(|(index, hash)| (*hash, at, index)));
            kept.insert(
                entry.id(),
                Kept {
                    bodies: Arc::clone(&level),
                    targets: hashes,
                    wants: wants.into(),
                    mine,
                    places: Part { frame: Frame::volatile(), ..Part::default() },
                },
            );
            bodies.push(level);
        }
        let mut this = Self {
            docs,
            bodies,
            places: HashMap::new(),
            targets,
            is_sorted: false,
            fills: 0,
            used: HashSet::new(),
            wants: all_wants,
            nothing: Level::new(),
        };
        let again = this.to_attach(kept, changes);
        // The older first, so that it wins.
        for (at, entry) in all.iter().enumerate() {
            let Some(kept) = kept.get_mut(&entry.id()) else { continue };
            report.tell(&kept.mine.events);
            if again.get(at) == Some(&true) {
                report.begin(false);
                for target in entry.spec.target_refs.iter().filter(|target| !target.broken) {
                    this.attach(at, target, report);
                }
                kept.places = Part::of(report.end());
            } else {
                report.tell(&kept.places.events);
            }
        }
        (this, has_gateways_changed)
    }

    /// Which Policies have to be attached again, to learn what is told of it. Those that share a place are attached
    /// together, since one may overrule the other.
    fn to_attach(&self, kept: &HashMap<usize, Kept>, changes: &Changes) -> Vec<bool> {
        let all = &self.docs.policies.all;
        let mut again = vec![false; all.len()];
        let mut together = Changes::default();
        loop {
            let mut has_grown = false;
            for (again, entry) in again.iter_mut().zip(all) {
                let is_current = |kept: &Kept| {
                    kept.places.is_current(changes) && !together.touch(&kept.places.frame.reads)
                };
                if *again || kept.get(&entry.id()).is_some_and(is_current) {
                    continue;
                }
                *again = true;
                for target in &entry.spec.target_refs {
                    let (kind, name) = object(entry.doc, target);
                    has_grown |= together.add(Ask::Attached, kind, name);
                }
            }
            if !has_grown {
                return again;
            }
        }
    }

    /// Looks at what is attached to an object: before it is asked for.
    pub(crate) fn fill(&mut self, kind: &'a str, name: Key<'a>) {
        if self.bodies.is_empty() || self.places.contains_key(&(kind, name)) {
            return;
        }
        let wanted = read(Ask::Attached, kind, name);
        self.fills += 1;
        if !self.is_sorted && self.fills > FILLS {
            self.is_sorted = true;
            self.targets.sort_unstable();
        }
        let first =
            if self.is_sorted { self.targets.partition_point(|(hash, ..)| *hash < wanted) } else { 0 };
        let all = self.targets.get(first..).unwrap_or_default().iter();
        // Sorted, they are one after another; not sorted, any of them may be it.
        let here: Vec<(u32, u32)> = all
            .take_while(|(hash, ..)| !self.is_sorted || *hash == wanted)
            .filter(|(hash, ..)| *hash == wanted)
            .map(|&(_, at, index)| (at, index))
            .collect();
        self.places.entry((kind, name)).or_default();
        // What there is to tell was told for the Policies that it is about.
        let mut unheard = Report::default();
        for (at, index) in here {
            let (at, index) = (at as usize, index as usize);
            let entry = self.docs.policies.all[at];
            let target = entry.spec.target_refs.get(index).filter(|target| !target.broken);
            // Another object may have the same hash.
            if let Some(target) = target.filter(|target| object(entry.doc, target) == (kind, name)) {
                self.attach(at, target, &mut unheard);
            }
        }
    }

    fn level(&self, kind: &'a str, name: Key<'a>, section: Option<&str>) -> &Level {
        self.docs.trace.note(Ask::Attached, kind, name);
        debug_assert!(
            self.bodies.is_empty() || self.places.contains_key(&(kind, name)),
            "filled before: {kind} {name:?}"
        );
        let Some(place) = self.places.get(&(kind, name)) else { return &self.nothing };
        match section {
            None => &place.whole,
            Some(section) => {
                let level = place.sections.iter().find(|(name, _)| *name == section);
                level.map_or(&self.nothing, |(_, level)| level)
            }
        }
    }

    pub(crate) fn of_gateway(&self, gateway: Key<'a>) -> &Level {
        self.level("Gateway", gateway, None)
    }

    pub(crate) fn of_listener(&self, gateway: Key<'a>, listener: &str) -> &Level {
        self.level("Gateway", gateway, Some(listener))
    }

    pub(crate) fn of_route(&self, kind: &'static str, route: Key<'a>) -> &Level {
        self.level(kind, route, None)
    }

    pub(crate) fn of_rule(&self, kind: &'static str, route: Key<'a>, rule: Option<&str>) -> &Level {
        rule.map_or(&self.nothing, |rule| self.level(kind, route, Some(rule)))
    }

    pub(crate) fn of_backend(&self, backend: Key<'a>) -> &Level {
        self.level("Backend", backend, None)
    }

    /// What is attached to a Service or to one of its ports, of the kinds that are asked for.
    pub(crate) fn of_service(
        &self,
        service: Key<'a>,
        section: Option<&str>,
        wanted: impl Fn(&Attached) -> bool,
    ) -> Level {
        let level = self.level("Service", service, section);
        level.iter().filter(|attached| wanted(attached)).cloned().collect()
    }

    /// What is attached to Consumers, for those that have something.
    pub(crate) fn of_consumers(&mut self) -> ByConsumer {
        let mut all = ByConsumer::new();
        for entry in &self.docs.consumers.all {
            self.fill("Consumer", key(entry.doc));
            let level = self.level("Consumer", key(entry.doc), None);
            if level.is_empty() {
                continue;
            }
            let chosen = choose([level].into_iter());
            let invalid = chosen.iter().find_map(|attached| attached.policy.as_ref().err().cloned());
            let policies = ConsumerPolicies { chain: chain(chosen.into_iter()), invalid };
            let name = format!("{}/{}", entry.doc.namespace(), entry.doc.name());
            all.insert(name.into(), Arc::new(policies));
        }
        all
    }

    /// The Policy that a filter names; nothing when there is none.
    pub(crate) fn extension(&mut self, name: Key<'_>, report: &mut Report) -> Option<&Level> {
        let at = self.docs.policies.position(name)?;
        self.used.insert(at);
        report.log(Event::Policy(Box::new((name.0.into(), name.1.into()))));
        self.bodies.get(at).map(|level| &**level)
    }

    /// A filter that is kept names a Policy.
    pub(crate) fn note_used(&mut self, name: Key<'_>) {
        self.used.extend(self.docs.policies.position(name));
    }

    /// Tells of Policies that nothing uses.
    pub(crate) fn report_unused(&self, report: &mut Report) {
        let unused = self.docs.policies.all.iter().enumerate().filter(|(at, entry)| {
            entry.spec.target_refs.is_empty() && !entry.doc.broken && !self.used.contains(at)
        });
        for (_, entry) in unused {
            let diag = Diag::warning(
                Rule::NoEffect,
                entry.doc.origin(entry.doc.span),
                format!("Policy `{}` is attached to nothing", entry.doc.name()),
            )
            .why("it has no `targetRefs`, and no filter of a route names it")
            .fix("add `targetRefs: [{kind: HTTPRoute, name: NAME}]`");
            report.push(diag);
        }
    }

    /// Attaches the Policy at a position to one of its targets.
    fn attach(&mut self, at: usize, target: &'a PolicyTarget, report: &mut Report) {
        let (docs, doc) = (self.docs, self.docs.policies.all[at].doc);
        let namespace = doc.namespace();
        let (kind, wanted) = object(doc, target);
        docs.trace.note(Ask::Attached, kind, wanted);
        let section = target.section_name.as_ref();
        let is_there = match kind {
            "Gateway" => docs.gateways.get(wanted).is_some(),
            "HTTPRoute" => docs.http_routes.get(wanted).is_some(),
            "GRPCRoute" => docs.grpc_routes.get(wanted).is_some(),
            "TLSRoute" => docs.tls_routes.get(wanted).is_some(),
            "TCPRoute" => docs.tcp_routes.get(wanted).is_some(),
            "UDPRoute" => docs.udp_routes.get(wanted).is_some(),
            "Consumer" => docs.consumers.get(wanted).is_some(),
            "Service" => docs.services.get(wanted).is_some(),
            _ => docs.backends.get(wanted).is_some(),
        };
        if !is_there {
            if !docs.is_unreadable(kind, wanted) {
                let names: Vec<&str> = match kind {
                    "Gateway" => docs.gateways.names(namespace).collect(),
                    "HTTPRoute" => docs.http_routes.names(namespace).collect(),
                    "GRPCRoute" => docs.grpc_routes.names(namespace).collect(),
                    "TLSRoute" => docs.tls_routes.names(namespace).collect(),
                    "TCPRoute" => docs.tcp_routes.names(namespace).collect(),
                    "UDPRoute" => docs.udp_routes.names(namespace).collect(),
                    "Consumer" => docs.consumers.names(namespace).collect(),
                    "Service" => docs.services.names(namespace).collect(),
                    _ => docs.backends.names(namespace).collect(),
                };
                let what = format!("no {kind} `{}` in namespace `{namespace}`", wanted.1);
                let at = doc.origin(target.name.span);
                let diag = report.unknown(at, what, wanted.1, names.into_iter());
                report.push(diag);
            }
            return;
        }
        // These have none, which was told.
        let section = section.filter(|_| !matches!(kind, "Backend" | "Consumer"));
        if let Some(section) = section
            && !self.has_section(docs, kind, wanted, section, doc, report)
        {
            return;
        }
        let (place, what) = match (kind, section) {
            ("Gateway", None) => (Attach::GATEWAY, "a Gateway"),
            ("Gateway", Some(_)) => (Attach::LISTENER, "a listener"),
            ("Backend" | "Service", _) => (Attach::BACKEND, "a Backend"),
            ("Consumer", _) => (Attach::CONSUMER, "a Consumer"),
            (_, None) => (Attach::ROUTE, "a route"),
            (_, Some(_)) => (Attach::RULE, "a rule"),
        };
        let section = section.map(|section| section.as_str());
        let level = self.places.entry((kind, wanted)).or_default().level(section);
        let Some(bodies) = self.bodies.get(at) else { return };
        for body in bodies.iter() {
            let (place, what) = match kind {
                "Service" => (place_at_service(body), "a Service"),
                _ => (place, what),
            };
            add(level, at_place(body, place, what, report), report);
        }
    }

    /// True when the target has the section; else it is told.
    fn has_section(
        &self,
        docs: &Docs<'a>,
        kind: &str,
        target: Key<'_>,
        section: &Spanned<rhumb_model::scalar::Name>,
        doc: &Doc,
        report: &mut Report,
    ) -> bool {
        let (names, what): (Vec<&str>, _) = match kind {
            "Gateway" => {
                let listeners = docs.gateways.get(target).map(|entry| entry.spec.listeners.iter());
                (listeners.into_iter().flatten().map(|listener| listener.name.as_str()).collect(), "listener")
            }
            "HTTPRoute" => {
                let rules = docs.http_routes.get(target).map(|entry| entry.spec.rules.iter());
                let names = rules.into_iter().flatten().filter_map(|rule| rule.name.as_ref());
                (names.map(|name| name.as_str()).collect(), "rule")
            }
            "TLSRoute" | "TCPRoute" | "UDPRoute" => (Vec::new(), "rule that policies attach to:"),
            "Service" => {
                let ports = docs.services.get(target).map(|entry| entry.spec.ports.iter());
                let names = ports.into_iter().flatten().filter_map(|port| port.name.as_ref());
                (names.map(|name| name.as_str()).collect(), "port")
            }
            _ => {
                let rules = docs.grpc_routes.get(target).map(|entry| entry.spec.rules.iter());
                let names = rules.into_iter().flatten().filter_map(|rule| rule.name.as_ref());
                (names.map(|name| name.as_str()).collect(), "rule")
            }
        };
        if names.contains(&section.as_str()) {
            return true;
        }
        let what = format!("{kind} `{}` has no {what} `{}`", target.1, section.as_str());
        let diag = report.unknown(doc.origin(section.span), what, section.as_str(), names.into_iter());
        report.push(diag);
        false
    }
}
