//! The compiled match of one port: from a request to its rule.
//!
//! **Which rule wins** (Gateway API, in this order):
//! 1. The listener with the most specific hostname that matches owns the request. Rules of other listeners are not tried,
//!    even when it has none for the request.
//! 2. The rule whose route's hostname is the most specific. A rule of a less specific hostname is tried when no rule of a
//!    more specific one matches.
//! 3. Exact path, then regular expressions, then the longest path prefix (Gateway API leaves the place of expressions
//!    open: behind prefixes none would ever match beside a rule for `/`).
//!    gRPC: service and method, service, method, neither.
//! 4. A method is asked for.
//! 5. More fields are asked for. 6. More query parameters are asked for.
//! 7. The older route. 8. The route first in alphabetical order of `namespace/name`.
//! 9. The first rule, the first match in it.
//!
//! **How it is found**: hostnames by hash, wildcards once per length that occurs; paths in one tree of path elements for
//! all hostnames, its edges in one hash map, so a path costs one probe per element and ends at the first that no rule has.
//! What wins over what at a place of the tree is sorted when the table is built. A lookup allocates nothing.
//! Rules with the same hostname and path, and regular expressions of one hostname, are tried one by one.

use std::sync::Arc;

use rhumb_codec::head::{Method, RequestHead};

use crate::host::{Host, HostMap, RequestHost};
use crate::index::{ByteMap, Writer, saturating};
use crate::path::{Class, Kind, PathMatch};
use crate::rule::{RequestMatch, Rule};

/// The rules of one port. Immutable; build another one to change it.
#[derive(Debug)]
pub struct Table<T> {
    listeners: HostMap,
    by_listener: Vec<Listener>,
    nodes: Vec<Node>,
    edges: ByteMap,
    candidates: Vec<Candidate>,
    pub(crate) rules: Vec<Arc<Rule<T>>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) host: Host,
    hosts: HostMap,
    /// Indices into the table's rules.
    pub(crate) rules: Vec<u32>,
}

/// A path element in the tree, or the root of a hostname. One cache line: what a lookup needs at a place lies together.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Node {
    /// Rules for exactly this path. In a node of scans: those that come before prefixes.
    exact: Leaf,
    /// Rules for this path and those below. In a node of scans: those that come after prefixes.
    prefix: Leaf,
    /// Of a root: the node with rules that are not found by path elements. Of others: the nearest node above that has
    /// rules for paths below it. [`NONE`] when there is none.
    link: u32,
    /// The only child; [`NONE`] when there is no child, [`MANY`] when the edges tell.
    child: u32,
    /// Where the element lies among the keys of the edges.
    place: u32,
    /// Length of the element; [`LONG`] when only `place` has it.
    len: u8,
    element: [u8; SHORT],
}

const _: () = assert!(size_of::<Node>() == 64, "one cache line");

/// Candidates at a place, the best first.
#[derive(Clone, Copy, Debug, Default)]
struct Leaf {
    start: u32,
    len: u32,
    /// The first of them once more: mostly there is one.
    first: Candidate,
}

/// A match of a rule at its place.
#[derive(Clone, Copy, Debug, Default)]
struct Candidate {
    rule: u32,
    matched: u16,
    method: u8,
    /// Which of [`CHECK_CONDITIONS`] and [`CHECK_PATH`] have to be looked at.
    checks: u8,
}

/// Most matches of one rule; those beyond get no request (Gateway API has 64).
pub const RULE_MATCHES_LIMIT: usize = u16::MAX as usize;

const NONE: u32 = u32::MAX;
const MANY: u32 = u32::MAX - 1;
const SHORT: usize = 19;
const LONG: u8 = u8::MAX;
const ANY_METHOD: u8 = u8::MAX;
const CHECK_CONDITIONS: u8 = 1;
const CHECK_PATH: u8 = 2;

/// What a table says about a request.
#[derive(Debug)]
pub enum Lookup<'t, T> {
    /// This rule gets it.
    Found(Found<'t, T>),
    /// Rules ask for everything that the request has but its method. Gateway API wants 404 even so; 405 with Allow is
    /// RFC 9110 §15.5.6.
    MethodNotAllowed {
        /// The methods that would be accepted.
        allow: Methods,
    },
    /// No rule gets it: 404.
    NotFound(Missing),
}

/// A rule and the match that held.
#[derive(Debug)]
pub struct Found<'t, T> {
    /// The rule.
    pub rule: &'t Arc<Rule<T>>,
    /// Its match that won; its path is the route's template.
    pub matched: &'t RequestMatch,
}

impl<T> Clone for Found<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Found<'_, T> {}

/// How far a request without a rule got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No listener of the port has the hostname.
    Listener,
    /// The listener has no route for the hostname.
    Host,
    /// No rule of the routes for the hostname matches.
    Rule,
}

/// A set of methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Methods(u16);

impl Methods {
    /// True when no method is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True when `method` is in it.
    pub fn contains(self, method: Method) -> bool {
        self.0 >> (method as u8) & 1 == 1
    }

    /// The methods with a name that are in it.
    pub fn iter(self) -> impl Iterator<Item = Method> {
        Method::NAMED.iter().copied().filter(move |&method| self.contains(method))
    }

    /// The value of the Allow field: names separated by `, `.
    pub fn write_allow(self, out: &mut Vec<u8>) {
        for (i, method) in self.iter().enumerate() {
            if i > 0 {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(method.name().as_bytes());
        }
    }
}

impl<T> Table<T> {
    /// The rule of a request. `host` may have any case, a port and a dot at the end; the head's path is in normal form
    /// ([`crate::normalize`]).
    #[inline]
    pub fn find(&self, host: &[u8], head: &RequestHead) -> Lookup<'_, T> {
        let host = RequestHost::of(host);
        let host = host.as_bytes();
        let Some(listener) = self.listener_for(host) else { return Lookup::NotFound(Missing::Listener) };
        let method = head.method() as u8;
        let accepts = |candidate: &Candidate| {
            (candidate.method == ANY_METHOD || candidate.method == method) && self.holds(candidate, head)
        };
        let found = listener
            .hosts
            .first(host, |root| self.first(root, head.path(), accepts))
            .and_then(|candidate| self.view(&candidate));
        match found {
            Some(found) => Lookup::Found(found),
            None => self.why_not(listener, host, head),
        }
    }

    /// Hostname of the listener that owns requests for `host`, the most specific that matches. For TLS: a request whose
    /// host belongs to another listener than the connection's server name is misdirected (421, RFC 9110 §15.5.20).
    pub fn listener(&self, host: &[u8]) -> Option<&Host> {
        self.listener_for(RequestHost::of(host).as_bytes()).map(|listener| &listener.host)
    }

    /// Number of rules, counted once per listener that they are attached to.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// True when there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Every rule with the hostname of its listener, in the order in which they were attached.
    pub fn rules(&self) -> impl Iterator<Item = (&Host, &Arc<Rule<T>>)> {
        self.by_listener.iter().flat_map(|listener| {
            listener.rules.iter().filter_map(|&i| Some((&listener.host, self.rules.get(i as usize)?)))
        })
    }

    pub(crate) fn listener_for(&self, host: &[u8]) -> Option<&Listener> {
        let index = self.listeners.first(host, Some)?;
        self.by_listener.get(index as usize)
    }

    /// The first candidate of a hostname that `accepts`, the best first.
    #[inline]
    fn first(
        &self,
        root: u32,
        path: &[u8],
        mut accepts: impl FnMut(&Candidate) -> bool,
    ) -> Option<Candidate> {
        let mut pick = |leaf: &Leaf| match leaf.len {
            0 => None,
            1 => Some(leaf.first).filter(|candidate| accepts(candidate)),
            _ => self.candidates(leaf).iter().find(|candidate| accepts(candidate)).copied(),
        };
        let root = (root, self.node(root)?);
        let (mut node, is_whole) = self.walk(root, path)?;
        if is_whole && let Some(found) = pick(&node.exact) {
            return Some(found);
        }
        let (_, root) = root;
        let scans = self.node(root.link);
        if let Some(scans) = scans
            && let Some(found) = pick(&scans.exact)
        {
            return Some(found);
        }
        while !std::ptr::eq(node, root) {
            if let Some(found) = pick(&node.prefix) {
                return Some(found);
            }
            node = self.node(node.link).unwrap_or(root);
        }
        pick(&root.prefix).or_else(|| scans.and_then(|scans| pick(&scans.prefix)))
    }

    /// The deepest node on the way of `path`, and whether it stands for the whole path.
    #[inline]
    fn walk<'t>(&'t self, root: (u32, &'t Node), path: &[u8]) -> Option<(&'t Node, bool)> {
        let (mut index, mut node) = root;
        let Some(mut rest) = path.strip_prefix(b"/") else { return Some((node, false)) };
        while node.child != NONE {
            let slash = memchr::memchr(b'/', rest);
            let element = rest.get(..slash.unwrap_or(rest.len())).unwrap_or_default();
            let is_it = |child: u32| self.node(child).is_some_and(|node| self.is_element(node, element));
            // Most nodes have one child, next to them in memory: no hash, no probe.
            let next = match node.child {
                MANY => self.edges.get_if(index, element, is_it),
                child => Some(child).filter(|&child| is_it(child)),
            };
            let Some(next) = next else { break };
            (index, node) = (next, self.node(next)?);
            match slash.and_then(|at| rest.get(at + 1..)) {
                Some(tail) => rest = tail,
                None => return Some((node, true)),
            }
        }
        Some((node, false))
    }

    #[inline]
    fn is_element(&self, node: &Node, element: &[u8]) -> bool {
        match node.element.get(..usize::from(node.len)) {
            Some(short) => short == element,
            None => self.edges.key(node.place) == element,
        }
    }

    /// True when everything but the method holds.
    #[inline]
    fn holds(&self, candidate: &Candidate, head: &RequestHead) -> bool {
        candidate.checks == 0 || self.holds_slowly(candidate, head)
    }

    fn holds_slowly(&self, candidate: &Candidate, head: &RequestHead) -> bool {
        let Some(found) = self.view(candidate) else { return false };
        (candidate.checks & CHECK_PATH == 0 || found.matched.path().matches(head.path()))
            && (candidate.checks & CHECK_CONDITIONS == 0 || found.matched.conditions_hold(head))
    }

    #[cold]
    fn why_not(&self, listener: &Listener, host: &[u8], head: &RequestHead) -> Lookup<'_, T> {
        let mut allow = Methods::default();
        let mut missing = Missing::Host;
        let _: Option<()> = listener.hosts.first(host, |root| {
            missing = Missing::Rule;
            self.first(root, head.path(), |candidate| {
                if candidate.method != ANY_METHOD && self.holds(candidate, head) {
                    allow.0 |= 1 << candidate.method;
                }
                false
            });
            None
        });
        if allow.is_empty() { Lookup::NotFound(missing) } else { Lookup::MethodNotAllowed { allow } }
    }

    #[inline]
    fn view(&self, candidate: &Candidate) -> Option<Found<'_, T>> {
        let rule = self.rules.get(candidate.rule as usize)?;
        let matched = rule.matches.get(candidate.matched as usize)?;
        Some(Found { rule, matched })
    }

    #[inline]
    fn node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(index as usize)
    }

    #[inline]
    fn candidates(&self, leaf: &Leaf) -> &[Candidate] {
        let start = leaf.start as usize;
        self.candidates.get(start..start + leaf.len as usize).unwrap_or_default()
    }
}

/// Collects listeners and rules, then makes a [`Table`] of them.
#[derive(Debug)]
pub struct Builder<T> {
    listeners: HostMap,
    by_listener: Vec<Listener>,
    rules: Vec<Arc<Rule<T>>>,
}

/// A listener in a [`Builder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerId(u32);

impl<T> Default for Builder<T> {
    fn default() -> Self {
        Self { listeners: HostMap::default(), by_listener: Vec::new(), rules: Vec::new() }
    }
}

impl<T> Builder<T> {
    /// No listeners.
    pub fn new() -> Self {
        Self::default()
    }

    /// The listener with this hostname; added when there is none. A listener without rules owns its requests as well.
    pub fn listener(&mut self, host: &Host) -> ListenerId {
        let next = saturating(self.by_listener.len());
        let index = self.listeners.get_or_insert(host, || next);
        if index == next {
            self.by_listener.push(Listener {
                host: host.clone(),
                hosts: HostMap::default(),
                rules: Vec::new(),
            });
        }
        ListenerId(index)
    }

    /// Attaches a rule to a listener. Hostnames of the rule that do not intersect the listener's are without effect.
    pub fn attach(&mut self, listener: ListenerId, rule: Arc<Rule<T>>) {
        if let Some(listener) = self.by_listener.get_mut(listener.0 as usize) {
            listener.rules.push(saturating(self.rules.len()));
            self.rules.push(rule);
        }
    }

    /// The same table as [`Self::build`] makes. Where `before` has rules that ask for the same in the same places, only what
    /// they do is another: what finds them is copied.
    pub fn build_after(self, before: Option<&Table<T>>) -> Table<T> {
        let Some(before) = before.filter(|before| self.finds_as(before)) else { return self.build() };
        Table {
            listeners: before.listeners.clone(),
            by_listener: before.by_listener.clone(),
            nodes: before.nodes.clone(),
            edges: before.edges.clone(),
            candidates: before.candidates.clone(),
            rules: self.rules,
        }
    }

    /// True when `before` finds for every request the rule that stands where that of the table to build will.
    fn finds_as(&self, before: &Table<T>) -> bool {
        let same_rule = |(a, b): (&Arc<Rule<T>>, &Arc<Rule<T>>)| Arc::ptr_eq(a, b) || a.asks_as(b);
        let same_listener = |(a, b): (&Listener, &Listener)| a.host == b.host && a.rules == b.rules;
        self.rules.len() == before.rules.len()
            && self.by_listener.len() == before.by_listener.len()
            && self.by_listener.iter().zip(&before.by_listener).all(same_listener)
            && self.rules.iter().zip(&before.rules).all(same_rule)
    }

    /// Compiles the table: in time that grows with the number of matches times hostnames.
    pub fn build(mut self) -> Table<T> {
        let order = order(&self.rules);
        let mut tree = Tree::default();
        for listener in &mut self.by_listener {
            for &index in &listener.rules {
                let (Some(rule), Some(&order)) = (self.rules.get(index as usize), order.get(index as usize))
                else {
                    continue;
                };
                let any = [Host::Any];
                let hosts = if rule.hosts.is_empty() { &any } else { &*rule.hosts };
                for host in hosts.iter().filter(|host| host.intersect(&listener.host).is_some()) {
                    let root = listener.hosts.get_or_insert(host, || tree.root());
                    for (i, matched) in (0..u16::MAX).zip(&rule.matches) {
                        tree.put(root, matched, (index, i), order);
                    }
                }
            }
        }
        self.listeners.seal();
        self.by_listener.iter_mut().for_each(|listener| listener.hosts.seal());
        let (nodes, edges, candidates) = tree.finish();
        Table {
            listeners: self.listeners,
            by_listener: self.by_listener,
            nodes,
            edges,
            candidates,
            rules: self.rules,
        }
    }
}

/// For each rule, its place in the order of age, name and index.
fn order<T>(rules: &[Arc<Rule<T>>]) -> Vec<u32> {
    let mut sorted: Vec<_> = rules.iter().zip(0u32..).collect();
    sorted.sort_by(|(a, _), (b, _)| precedence(a, b));
    let mut order = vec![0; rules.len()];
    for ((_, index), place) in sorted.into_iter().zip(0u32..) {
        if let Some(slot) = order.get_mut(index as usize) {
            *slot = place;
        }
    }
    order
}

/// Less comes first: the older route, then the first name, then the first rule.
pub(crate) fn precedence<T>(a: &Rule<T>, b: &Rule<T>) -> std::cmp::Ordering {
    a.created.cmp(&b.created).then_with(|| a.route.cmp(&b.route)).then_with(|| a.index.cmp(&b.index))
}

#[derive(Default)]
struct Tree {
    nodes: Vec<Node>,
    parents: Vec<u32>,
    edges: Writer,
    pending: Vec<Pending>,
}

/// A candidate and where it belongs. Sorts by leaf, then the best first.
struct Pending {
    /// Twice the node; plus one for its prefix leaf.
    leaf: u32,
    /// Less is better.
    worth: u128,
    candidate: Candidate,
}

impl Tree {
    fn root(&mut self) -> u32 {
        self.add(NONE)
    }

    fn add(&mut self, parent: u32) -> u32 {
        let index = saturating(self.nodes.len());
        self.nodes.push(Node {
            exact: Leaf::default(),
            prefix: Leaf::default(),
            link: NONE,
            child: NONE,
            place: 0,
            len: 0,
            element: [0; SHORT],
        });
        self.parents.push(parent);
        index
    }

    fn put(&mut self, root: u32, matched: &RequestMatch, (rule, index): (u32, u16), order: u32) {
        let PathMatch(kind) = matched.path();
        let rank = matched.path().rank();
        let (leaf, checks) = match kind {
            Kind::Exact(path) => (self.descend(root, path) * 2, 0),
            Kind::Prefix(path) => (self.descend(root, path) * 2 + 1, 0),
            _ => (self.scans(root) * 2 + u32::from(rank.0 < Class::Prefix), CHECK_PATH),
        };
        let count = |n: usize| u128::from(u8::MAX - u8::try_from(n).unwrap_or(u8::MAX));
        let worth = u128::from(u32::MAX - rank.1) << 88
            | u128::from(matched.method().is_none()) << 80
            | count(matched.fields().len()) << 72
            | count(matched.query().len()) << 64
            | u128::from(order) << 32
            | u128::from(index);
        let conditions = if matched.is_conditional() { CHECK_CONDITIONS } else { 0 };
        let method = matched.method().map_or(ANY_METHOD, |method| method as u8);
        let candidate = Candidate { rule, matched: index, method, checks: checks | conditions };
        self.pending.push(Pending { leaf, worth, candidate });
    }

    fn descend(&mut self, root: u32, path: &[u8]) -> u32 {
        let Some(path) = path.strip_prefix(b"/") else { return root };
        path.split(|&b| b == b'/').fold(root, |node, element| {
            let next = saturating(self.nodes.len());
            let child = self.edges.get_or_insert(node, element, || next);
            if child == next {
                self.add(node);
            }
            child
        })
    }

    fn scans(&mut self, root: u32) -> u32 {
        let next = saturating(self.nodes.len());
        let Some(node) = self.nodes.get_mut(root as usize) else { return root };
        if node.link == NONE {
            node.link = next;
            self.add(NONE);
            return next;
        }
        node.link
    }

    fn finish(mut self) -> (Vec<Node>, ByteMap, Vec<Candidate>) {
        self.pending.sort_unstable_by_key(|pending| (pending.leaf, pending.worth));
        let mut candidates = Vec::with_capacity(self.pending.len());
        for of_leaf in self.pending.chunk_by(|a, b| a.leaf == b.leaf) {
            let Some(first) = of_leaf.first() else { continue };
            let (start, len) = (saturating(candidates.len()), saturating(of_leaf.len()));
            let leaf = Leaf { start, len, first: first.candidate };
            candidates.extend(of_leaf.iter().map(|pending| pending.candidate));
            if let Some(node) = self.nodes.get_mut((first.leaf / 2) as usize) {
                if first.leaf % 2 == 0 { node.exact = leaf } else { node.prefix = leaf }
            }
        }
        for (parent, place, child) in self.edges.map.entries() {
            if let Some(node) = self.nodes.get_mut(parent as usize) {
                node.child = if node.child == NONE { child } else { MANY };
            }
            let element = self.edges.map.key(place);
            if let Some(node) = self.nodes.get_mut(child as usize) {
                node.place = place;
                node.len = LONG;
                if let (Some(to), Ok(len)) =
                    (node.element.get_mut(..element.len()), u8::try_from(element.len()))
                {
                    to.copy_from_slice(element);
                    node.len = len;
                }
            }
        }
        // Parents come before their children. Roots and scans have none.
        for i in 0..self.nodes.len() {
            let Some(&parent) = self.parents.get(i) else { continue };
            let Some(&above) = self.nodes.get(parent as usize) else { continue };
            let above_is_root = self.parents.get(parent as usize) == Some(&NONE);
            if let Some(node) = self.nodes.get_mut(i) {
                node.link = if above_is_root || above.prefix.len > 0 { parent } else { above.link };
            }
        }
        (self.nodes, self.edges.map, candidates)
    }
}
