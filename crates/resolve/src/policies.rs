//! Policies: what is attached where, and which of several wins.
//!
//! Levels from the widest to the nearest: Gateway, listener, route, rule (a Policy), rule (filters); then for the
//! requests of one backendRef: Backend, backendRef (filters). Of a kind that merges as `MostSpecific` the nearest one
//! runs, of a `Union` kind all of them, the widest first.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use rhumb_model::kind::policy::PolicyTarget;
use rhumb_model::value::Node;
use rhumb_model::{Diag, Doc, Origin, Rule, Span, Spanned};
use rhumb_plan::consumer::{ByConsumer, ConsumerPolicies};
use rhumb_policy::consumers::Consumers;
use rhumb_policy::mesh::{Enforcer, enforcer};
use rhumb_policy::{
    Attach, Chain, Context, Documents, Hooks, Invalid, Item, KINDS, Keeper, Merge, Parsed, Policy, Priority,
    Retry, Timeouts, Tracing, Want,
};
use serde_json::Value;

use crate::collect::{Docs, Entry, Key, key};
use crate::report::{Event, Report};
use crate::trace::{Ask, Changes, Frame, Read, read};

/// A policy at a place.
#[derive(Clone)]
pub(crate) struct Attached {
    /// Its kind, as an index into [`KINDS`].
    kind: usize,
    /// The reason why it cannot be given: what it is attached to then refuses traffic.
    policy: Result<Arc<Policy>, Arc<str>>,
    /// Which document attached it, in words.
    origin: Arc<str>,
    at: Origin,
    /// It is asked, and not obeyed.
    is_shadow: bool,
    /// It replaces the prefix that a rule matched, so the rule must match one.
    replaces_prefix: bool,
}

impl Attached {
    /// A policy that was compiled, or the reason why it was not.
    pub(crate) fn new(
        kind: &str,
        policy: Result<Parsed, Arc<str>>,
        origin: Arc<str>,
        at: Origin,
        body: &Value,
    ) -> Option<Self> {
        let kind = KINDS.iter().position(|known| known.name == kind)?;
        let replaces_prefix = body.pointer("/path/type").is_some_and(|kind| kind == "ReplacePrefixMatch");
        let is_shadow = policy.as_ref().is_ok_and(|parsed| parsed.is_shadow);
        let policy = policy.map(|parsed| Arc::new(parsed.policy));
        Some(Self { kind, policy, origin, at, is_shadow, replaces_prefix })
    }

    /// Something that is asked for and not there: what asks for it refuses traffic.
    pub(crate) fn missing(reason: String, origin: Arc<str>, at: Origin) -> Self {
        Self {
            kind: UNKNOWN,
            policy: Err(reason.into()),
            origin,
            at,
            is_shadow: false,
            replaces_prefix: false,
        }
    }
}

impl Attached {
    /// True when only one of the two is to run. One in shadow mode takes the place of none that is obeyed.
    fn is_same_kind(&self, other: &Self) -> bool {
        self.kind == other.kind && self.is_shadow == other.is_shadow
    }

    /// The key of its kind; empty for one that is not known.
    pub(crate) fn kind(&self) -> &'static str {
        KINDS.get(self.kind).map_or("", |kind| kind.name)
    }

    /// The policy, or why it cannot be given.
    pub(crate) fn policy(&self) -> Result<&Policy, &Arc<str>> {
        self.policy.as_ref().map(|policy| &**policy)
    }

    /// The same, to be kept.
    pub(crate) fn shared(&self) -> Result<&Arc<Policy>, &Arc<str>> {
        self.policy.as_ref()
    }

    /// It is asked, and not obeyed.
    pub(crate) fn is_shadow(&self) -> bool {
        self.is_shadow
    }

    /// Where it is written.
    pub(crate) fn at(&self) -> &Origin {
        &self.at
    }
}

/// The mistake of a policy that replaces the matched prefix, on a rule that has not exactly one.
pub(crate) fn prefix_conflict(attached: &Attached, doc: &Doc, rule: Span) -> Diag {
    let what = "`ReplacePrefixMatch` for a rule that has not exactly one match of type `PathPrefix`";
    Diag::error(Rule::Conflict, attached.at.clone(), what)
        .why("it would not be clear which prefix is replaced (Gateway API)")
        .fix("give each prefix a rule of its own, or use `ReplaceFullPath`")
        .related(doc.origin(rule), "the rule")
}

/// What is attached at one place, in the order of its kinds' documents.
pub(crate) type Level = Vec<Attached>;

/// Adds to a level. Of two policies of one kind that does not combine, the first stays and the other is told of.
fn add(level: &mut Level, attached: Attached, report: &mut Report) {
    let combines = KINDS.get(attached.kind).is_some_and(|kind| kind.merge == Merge::Union);
    let before = level.iter().find(|other| attached.is_same_kind(other) && !combines);
    match before {
        Some(before) => overruled(&attached, before, report),
        None => level.push(attached),
    }
}

/// Tells that a policy has no effect because of another one at the same place.
fn overruled(loser: &Attached, winner: &Attached, report: &mut Report) {
    let kind = KINDS.get(loser.kind).map_or("", |kind| kind.name);
    let diag = Diag::warning(Rule::NoEffect, loser.at.clone(), format!("this `{kind}` has no effect"))
        .why(format!("{} attaches the same kind to the same place, and comes first", winner.origin))
        .fix("remove one of them")
        .related(winner.at.clone(), "this one holds");
    report.push(diag);
}

/// Secrets for policies.
pub(crate) struct Secrets<'d, 'a> {
    docs: &'d Docs<'a>,
    consumers: Option<&'d crate::consumers::Kept>,
}

impl<'d, 'a> Secrets<'d, 'a> {
    /// For what has nothing to do with Consumers.
    pub(crate) fn without_consumers(docs: &'d Docs<'a>) -> Self {
        Self { docs, consumers: None }
    }
}

impl Documents for Secrets<'_, '_> {
    fn secret(&mut self, namespace: &str, name: &str, key: &str) -> Result<Box<[u8]>, String> {
        secret_of(self.docs, namespace, name, key)
    }

    fn consumers(&mut self, namespace: &str) -> Arc<Consumers> {
        self.consumers.map(|consumers| consumers.of(self.docs, namespace)).unwrap_or_default()
    }
}

/// The content of a key of a Secret, or what is missing.
pub(crate) fn secret_of(
    docs: &Docs<'_>,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Box<[u8]>, String> {
    let Some(entry) = docs.secrets.get((namespace, name)) else {
        return Err(format!("no Secret `{name}` in namespace `{namespace}`"));
    };
    let content = entry.spec.get(key).ok_or_else(|| format!("Secret `{name}` has no key `{key}`"))?;
    if entry.doc.broken {
        return Err(format!("Secret `{name}` has mistakes"));
    }
    Ok(content.value.into())
}

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
            let level = Arc::new(self::bodies(*entry, &mut secrets, keeper, &mut wants, report));
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

/// As what a policy that is attached to a Service runs: at the listener of the side that enforces it, or, if it belongs to
/// each call of the service, as a policy of its backend.
fn place_at_service(attached: &Attached) -> Attach {
    match KINDS.get(attached.kind) {
        Some(kind) if is_of_backend(attached) || enforcer(kind.name).is_none() => Attach::BACKEND,
        _ => Attach::LISTENER,
    }
}

/// True for what callers enforce on each call of a Service, wherever the route that leads there is attached.
pub(crate) fn is_of_backend(attached: &Attached) -> bool {
    let has_place = KINDS.get(attached.kind).is_some_and(|kind| kind.attach.has(Attach::BACKEND));
    has_place && enforcer(attached.kind()) == Some(Enforcer::Client)
}

/// True for what the proxy of a Service enforces. What is not known is refused there.
pub(crate) fn is_of_server(attached: &Attached) -> bool {
    enforcer(attached.kind()).is_none_or(|side| side != Enforcer::Client)
}

/// True for what callers do beside what they do on each call of a Service.
pub(crate) fn is_of_caller(attached: &Attached) -> bool {
    enforcer(attached.kind()).is_some_and(|side| side != Enforcer::Server) && !is_of_backend(attached)
}

/// The same policy, refused when its kind may not be attached to such a place.
pub(crate) fn at_place(attached: &Attached, place: Attach, what: &str, report: &mut Report) -> Attached {
    let mut attached = attached.clone();
    let Some(kind) = KINDS.get(attached.kind).filter(|kind| !kind.attach.has(place)) else {
        return attached;
    };
    let diag = Diag::error(
        Rule::Policy,
        attached.at.clone(),
        format!("`{}` cannot be attached to {what}", kind.name),
    )
    .why(format!("it can be attached to: {:?}", kind.attach));
    report.push(diag);
    attached.policy = Err(format!("`{}` cannot be attached to {what}", kind.name).into());
    attached
}

/// The policies of a document, compiled once for all of its targets.
fn bodies(
    entry: Entry<'_, rhumb_model::kind::policy::Policy>,
    documents: &mut Secrets<'_, '_>,
    keeper: &Keeper,
    wants: &mut Vec<(Want, Origin)>,
    report: &mut Report,
) -> Level {
    let doc = entry.doc;
    let mut level = Level::new();
    for (name, node) in &entry.spec.policies.entries {
        let place = report.place(doc, name.span);
        let origin: Arc<str> = format!("Policy {}/{} ({place})", doc.namespace(), doc.name()).into();
        let body = node.to_json();
        let place = format!("{}/{}/{}", doc.namespace(), doc.name(), name.value);
        let mut cx = Context::new(doc.namespace(), &place, documents, keeper);
        let policy = match rhumb_policy::parse(&name.value, &body, &mut cx) {
            None => {
                let what = format!("unknown policy `{}`", name.value);
                let kinds = KINDS.iter().map(|kind| kind.name);
                let mut diag = report.unknown(doc.origin(name.span), what, &name.value, kinds);
                diag.rule = Rule::Policy;
                report.push(diag);
                // What asked for it refuses traffic: as a policy of every rank it cannot be overruled by another kind.
                let reason = Err(format!("{origin} has the unknown policy `{}`", name.value).into());
                let at = doc.origin(name.span);
                level.push(Attached {
                    kind: UNKNOWN,
                    policy: reason,
                    origin,
                    at,
                    is_shadow: false,
                    replaces_prefix: false,
                });
                continue;
            }
            Some(Err(invalid)) => {
                report.push(mistake(&invalid, doc.origin(span_of(&invalid, node, name.span)), &name.value));
                Err(format!("{origin} is wrong: {invalid}").into())
            }
            // A body with mistakes that were told, such as a file that is missing, is not what was meant.
            Some(Ok(_)) if doc.broken => Err(format!("{origin} has mistakes").into()),
            Some(Ok(parsed)) => Ok(parsed),
        };
        for want in cx.take_wants() {
            wants.push((want.clone(), doc.origin(span_of_field(&want.field, node, name.span))));
        }
        let at = doc.origin(name.span);
        level.extend(Attached::new(&name.value, policy, origin, at, &body));
    }
    if level.is_empty() && doc.broken {
        let place = report.place(doc, doc.span);
        let origin: Arc<str> = format!("Policy {}/{} ({place})", doc.namespace(), doc.name()).into();
        let policy = Err(format!("{origin} has mistakes").into());
        level.push(Attached {
            kind: UNKNOWN,
            policy,
            origin,
            at: doc.origin(doc.span),
            is_shadow: false,
            replaces_prefix: false,
        });
    }
    level
}

/// The kind of what cannot be told: it combines with nothing and is overruled by nothing.
const UNKNOWN: usize = usize::MAX;

/// Where a mistake in a body is, with the body itself for what is missing in it.
fn span_of(invalid: &Invalid, body: &Node, key: Span) -> Span {
    span_of_field(&invalid.field, body, key)
}

fn span_of_field(field: &str, body: &Node, key: Span) -> Span {
    let node = body.find(field);
    if std::ptr::eq(node, body) { key } else { node.span }
}

/// A mistake in the body of a policy.
pub(crate) fn mistake(invalid: &Invalid, at: Origin, kind: &str) -> Diag {
    let what = match &*invalid.field {
        "" => format!("`{kind}`: {}", invalid.why),
        field => format!("`{kind}.{field}`: {}", invalid.why),
    };
    let diag = Diag::error(Rule::Policy, at, what);
    if invalid.fix.is_empty() { diag } else { diag.fix(&*invalid.fix) }
}

/// What a rule does: its chain, and those of its backendRefs.
pub(crate) struct Chains {
    /// Policies of the rule.
    pub(crate) rule: Chain,
    /// Policies of each backendRef; an error refuses the requests that would go there.
    pub(crate) backends: Vec<Result<Chain, Arc<str>>>,
    /// Settings of the rule.
    pub(crate) settings: Settings,
    /// Settings of each backendRef.
    pub(crate) backend_settings: Vec<Settings>,
    /// Why the rule refuses traffic.
    pub(crate) invalid: Option<Arc<str>>,
    /// Replaces the prefix that the rule matched.
    pub(crate) replaces_prefix: Option<Attached>,
}

/// Policies without hooks: what forwarding obeys.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: Option<Retry>,
    pub(crate) priority: Priority,
    pub(crate) tracing: Option<Arc<Tracing>>,
}

impl Settings {
    /// What is chosen, and what is `inherited` where nothing is.
    fn of(chosen: &[&Attached], inherited: &Self) -> Self {
        let mut settings = inherited.clone();
        for attached in chosen {
            match attached.policy.as_deref() {
                Ok(Policy::Timeouts(timeouts)) => settings.timeouts = *timeouts,
                Ok(Policy::Priority(priority)) => settings.priority = priority.level,
                Ok(Policy::Retry(retry)) => settings.retry = Some(retry.clone()),
                Ok(Policy::Tracing(tracing)) => {
                    let further = settings.tracing.as_deref();
                    let tracing = further.map_or_else(|| tracing.clone(), |further| tracing.or(further));
                    settings.tracing = Some(Arc::new(tracing));
                }
                _ => {}
            }
        }
        settings
    }
}

/// Works out which policies run. `front` has the levels from the Gateway to the rule's filters, `backends` for each
/// backendRef that of the Backend and that of its filters.
pub(crate) fn chains(front: &[&Level], backends: &[[&Level; 2]]) -> Chains {
    let mut chains = Chains {
        rule: Chain::default(),
        backends: Vec::with_capacity(backends.len()),
        settings: Settings::default(),
        backend_settings: Vec::with_capacity(backends.len()),
        invalid: None,
        replaces_prefix: None,
    };
    // A kind that a backendRef has as well is nearer there: it then runs behind the choice of the backend, for all.
    let moves = |attached: &Attached| {
        KINDS.get(attached.kind).is_some_and(|kind| kind.merge == Merge::MostSpecific)
            && backends.iter().flatten().any(|level| level.iter().any(|other| other.is_same_kind(attached)))
    };
    if front.iter().any(|level| !level.is_empty()) {
        let chosen = choose(front.iter().copied());
        chains.invalid = chosen.iter().find_map(|attached| attached.policy.as_ref().err().cloned());
        chains.replaces_prefix =
            chosen.iter().find(|attached| attached.replaces_prefix).map(|a| (*a).clone());
        chains.settings = Settings::of(&chosen, &Settings::default());
        chains.rule = chain(chosen.into_iter().filter(|attached| !moves(attached)));
    }
    for levels in backends {
        if backends.iter().flatten().all(|level| level.is_empty()) {
            chains.backends.push(Ok(Chain::default()));
            chains.backend_settings.push(chains.settings.clone());
            continue;
        }
        let moved: Level =
            front.iter().flat_map(|level| level.iter()).filter(|a| moves(a)).cloned().collect();
        let chosen = choose([&moved].into_iter().chain(levels.iter().copied()));
        if let Some(replaces) = chosen.iter().find(|attached| attached.replaces_prefix) {
            chains.replaces_prefix = Some((*replaces).clone());
        }
        let error = chosen.iter().find_map(|attached| attached.policy.as_ref().err().cloned());
        chains.backend_settings.push(Settings::of(&chosen, &chains.settings));
        chains.backends.push(match error {
            Some(error) => Err(error),
            None => Ok(chain(chosen.into_iter())),
        });
    }
    chains
}

/// A level with a nearer one over it.
pub(crate) fn nearest(wide: Level, near: Level) -> Level {
    choose([&wide, &near].into_iter()).into_iter().cloned().collect()
}

/// Those that run, from the widest to the nearest.
fn choose<'l>(levels: impl Iterator<Item = &'l Level>) -> Vec<&'l Attached> {
    let mut chosen: Vec<&Attached> = Vec::new();
    for attached in levels.flatten() {
        if KINDS.get(attached.kind).is_some_and(|kind| kind.merge == Merge::MostSpecific) {
            chosen.retain(|other| !other.is_same_kind(attached));
        }
        chosen.push(attached);
    }
    chosen
}

fn chain<'l>(chosen: impl Iterator<Item = &'l Attached>) -> Chain {
    let items = chosen.filter_map(|attached| {
        let policy = Arc::clone(attached.policy.as_ref().ok()?);
        // Settings have nothing to run.
        if policy.hooks() == Hooks::NONE {
            return None;
        }
        Some(Item { policy, origin: Arc::clone(&attached.origin), is_shadow: attached.is_shadow })
    });
    Chain::new(items.collect())
}

/// The level of a rule's or backendRef's filters. `others` is that of Policies at the same place, which filters overrule.
pub(crate) fn filters(level: Level, others: &Level, report: &mut Report) -> Level {
    let mut filters = Level::new();
    for attached in level {
        let combines = KINDS.get(attached.kind).is_none_or(|kind| kind.merge == Merge::Union);
        if let Some(before) =
            filters.iter().find(|other: &&Attached| attached.is_same_kind(other) && !combines)
        {
            let kind = KINDS.get(attached.kind).map_or("", |kind| kind.name);
            let what = format!("`{kind}` twice in the filters of one place");
            let reason = Err(Arc::from(what.as_str()));
            let diag = Diag::error(Rule::Conflict, attached.at.clone(), what)
                .why("it is not clear which one is meant")
                .fix("remove one of them")
                .related(before.at.clone(), "the other");
            report.push(diag);
            filters.push(Attached { policy: reason, ..attached });
            continue;
        }
        if let Some(other) = others.iter().find(|other| attached.is_same_kind(other) && !combines) {
            overruled(other, &attached, report);
        }
        filters.push(attached);
    }
    filters
}
