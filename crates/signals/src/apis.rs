//! Which APIs there are, found out from traffic: hosts, templates of paths, methods, who calls them, and what comes back.
//!
//! Each host has a tree of segments. What is a value for certain (a number, a UUID, a hash) is a variable at once; where ten
//! siblings look alike, with the same methods and the same names below them, or where there are more than a hundred, they
//! become one. All of it is bounded, in number and in memory: operations that find no room are dropped and counted; of those that
//! are known, values that find none are left out.
//!
//! What one process saw may be told to another ([`Finder::share`]), which puts it together with what others saw
//! ([`Finder::hear`]).

mod glimpse;
mod seen;
mod tree;
mod outbox;
mod fleet;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rhumb_telemetry::Lookout;
use rhumb_telemetry::sightings::{Asked, Sighting};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use fleet::Heard;
use glimpse::Glimpse;
use outbox::Outbox;
pub use outbox::Untold;
pub use seen::Answered;
use seen::Seen;
pub(crate) use seen::VALUES;
use tree::{Node, Space};

/// How much is told apart.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// Hosts at most.
    hosts: usize,
    /// What all trees take at most: their segments, and everything in them.
    space: Space,
}

impl Room {
    /// Of what one process sees.
    const PROCESS: Self = Self { hosts: 64, space: Space { nodes: 20_000, bytes: 6 << 20 } };

    /// Of what all processes of a control plane see.
    const FLEET: Self = Self { hosts: 1_024, space: Space { nodes: 50_000, bytes: 32 << 20 } };
}

/// Routes whose last use is known at most.
const ROUTES: usize = 10_000;

/// What was found out.
#[derive(Debug)]
pub struct Finder {
    inner: Mutex<Inner>,
    room: Room,
    /// Where workers hand over what they see.
    lookout: OnceLock<Arc<Lookout>>,
    outbox: Mutex<Outbox>,
}

impl Default for Finder {
    fn default() -> Self {
        Self::with(Room::PROCESS)
    }
}

/// Who tells of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Who answers for the host, or a gateway in front of it.
    BySelf,
    /// Who calls it.
    ByCaller,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Inner {
    /// When it began to look. Unit: seconds since 1970.
    since: u64,
    hosts: BTreeMap<String, Node>,
    /// Hosts of which callers alone tell.
    #[serde(default)]
    called: BTreeMap<String, Node>,
    /// When a rule was last used, by route and template.
    routes: BTreeMap<String, u64>,
    /// What all trees take.
    #[serde(skip)]
    taken: Space,
    dropped: u64,
    #[serde(skip)]
    is_changed: bool,
}

/// The APIs of a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Apis {
    /// When it began to look. Unit: seconds since 1970.
    pub since: u64,
    /// What was seen, by host, path and method.
    pub operations: Vec<Operation>,
    /// What the configuration has, and when it was last used.
    pub routes: Vec<Declared>,
    /// Requests that found no room.
    pub dropped: u64,
}

/// One operation that was seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Operation {
    /// Authority that was asked for.
    pub host: String,
    /// Method.
    pub method: String,
    /// Template of the path: `/users/{id}`.
    pub path: String,
    /// Version that the path says: `v1`.
    pub version: Option<String>,
    /// How often it was seen.
    pub requests: u64,
    /// When it was first seen. Unit: seconds since 1970.
    pub first_seen_at: u64,
    /// When it was last seen.
    pub last_seen_at: u64,
    /// What came back, by status.
    pub statuses: BTreeMap<u16, Answered>,
    /// Media types of requests.
    pub request_types: BTreeMap<String, u64>,
    /// Query parameters, and in how many requests.
    pub query: BTreeMap<String, u64>,
    /// Who called: consumers, or workloads of the mesh.
    pub callers: BTreeMap<String, u64>,
    /// Routes that took it.
    pub routes: BTreeMap<String, u64>,
    /// Fields of JSON contents of requests, and in how many of those that were looked at.
    pub fields: BTreeMap<String, u64>,
    /// How many contents were looked at.
    pub contents: u64,
    /// A path of it.
    pub example: String,
}

/// A rule of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Declared {
    /// The route.
    pub route: String,
    /// The template of its rule.
    pub template: String,
    /// When it was last used; absent: never since it is looked.
    pub last_seen_at: Option<u64>,
}

impl Finder {
    /// One that puts together what many processes see.
    pub fn of_fleet() -> Self {
        Self::with(Room::FLEET)
    }

    fn with(room: Room) -> Self {
        Self { inner: Mutex::default(), room, lookout: OnceLock::new(), outbox: Mutex::default() }
    }

    /// It looks from here on, if it has not before. `now`: seconds since 1970.
    pub fn begin(&self, now: u64) {
        let mut inner = self.lock();
        if inner.since == 0 {
            inner.since = now;
        }
    }

    /// Takes over what was kept by [`Finder::keep`]; nothing happens where that is damaged.
    pub fn load(&self, kept: &[u8]) {
        if let Ok(kept) = serde_json::from_slice::<Inner>(kept) {
            let mut inner = self.lock();
            let seen = std::mem::take(&mut *inner);
            *inner = kept;
            inner.taken = inner.space();
            if seen.since > 0 {
                inner.since = inner.since.min(seen.since);
            }
        }
    }

    /// What is to be kept, when it has changed since the last call.
    pub fn keep(&self) -> Option<Vec<u8>> {
        let mut inner = self.lock();
        std::mem::take(&mut inner.is_changed).then(|| serde_json::to_vec(&*inner).ok()).flatten()
    }

    /// Looks at what is handed over there from here on.
    pub fn watch(&self, lookout: Arc<Lookout>) {
        // One process has one.
        let _ = self.lookout.set(lookout);
    }

    /// Has workers hand over what they have seen so far; nothing when nobody looks.
    pub fn ask(&self) -> Option<Asked<'_>> {
        self.lookout.get().map(|lookout| lookout.ask())
    }

    /// Looks at what workers have handed over. `now`: seconds since 1970.
    pub fn bring_in(&self, now: u64) {
        if let Some(lookout) = self.lookout.get() {
            self.look(&lookout.fetch(), now);
        }
    }

    /// Looks at what workers saw. `now`: seconds since 1970.
    pub fn look(&self, sightings: &[Sighting], now: u64) {
        let glimpses: Vec<_> =
            sightings.iter().map(|sighting| (Told::BySelf, Glimpse::of(sighting))).collect();
        let (of_apis, mut dropped) = self.see(&glimpses, now);
        let mut outbox = self.outbox();
        for ((sighting, (_, glimpse)), is_of_api) in sightings.iter().zip(glimpses).zip(of_apis) {
            if is_of_api && !outbox.add(sighting.shape, glimpse) {
                dropped += sighting.count;
            }
        }
        if let Some(lookout) = self.lookout.get().filter(|_| dropped > 0) {
            lookout.note_dropped(dropped);
        }
    }

    /// From here on what is seen waits to be told to somebody else too.
    pub fn share(&self) {
        self.outbox().is_wanted = true;
    }

    /// What is to be told to somebody else. `now`: seconds since 1970.
    pub fn take_untold(&self, now: u64) -> Vec<Untold> {
        self.outbox().take(now)
    }

    /// Takes back what could not be told.
    pub fn put_back(&self, untold: Vec<Untold>) {
        self.outbox().put_back(untold);
    }

    /// Takes over what was seen; says of each whether it is of an API, and how many requests found no room.
    fn see(&self, glimpses: &[(Told, Glimpse)], now: u64) -> (Vec<bool>, u64) {
        let mut inner = self.lock();
        let dropped = inner.dropped;
        if inner.since == 0 {
            inner.since = now;
        }
        inner.is_changed |= !glimpses.is_empty();
        let mut of_apis = vec![false; glimpses.len()];
        // What is there is known before it is judged what there is none of: workers tell both in no order.
        for is_of_nothing in [false, true] {
            for ((told, glimpse), is_of_api) in glimpses.iter().zip(&mut of_apis) {
                if glimpse.is_of_nothing() == is_of_nothing {
                    *is_of_api = inner.see(*told, glimpse, self.room);
                }
            }
        }
        (of_apis, inner.dropped - dropped)
    }

    /// What was found out. `rules`: route and template of each rule of the configuration.
    pub fn apis<'r>(&self, rules: impl Iterator<Item = (&'r str, &'r str)>) -> Apis {
        let inner = self.lock();
        let mut operations = Vec::new();
        for (host, tree) in inner.hosts.iter().chain(&inner.called) {
            tree.visit(&mut |path, method, seen| operations.push(operation(host, path, method, seen)));
        }
        operations.sort_by(|a, b| a.host.cmp(&b.host));
        let mut routes: Vec<_> = rules
            .map(|(route, template)| Declared {
                route: route.to_owned(),
                template: template.to_owned(),
                last_seen_at: inner.routes.get(&rule(route, template)).copied(),
            })
            .collect();
        routes.sort_by(|a, b| (&a.route, &a.template).cmp(&(&b.route, &b.template)));
        routes.dedup();
        Apis { since: inner.since, operations, routes, dropped: inner.dropped }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Takes over what was seen, if it is of an API.
    fn see(&mut self, told: Told, glimpse: &Glimpse, room: Room) -> bool {
        let host = &glimpse.host;
        let is_foreign = told == Told::ByCaller;
        let trees = if is_foreign && !self.hosts.contains_key(host) { &self.called } else { &self.hosts };
        // Who tries paths is not to be taken for an API.
        if glimpse.is_of_nothing()
            && !trees.get(host).is_some_and(|tree| tree.knows(&glimpse.path, &glimpse.method))
        {
            return false;
        }
        self.use_rule(glimpse);
        if is_foreign && self.hosts.contains_key(host) {
            return true;
        }
        if let Some(told_by_callers) = (!is_foreign).then(|| self.called.remove(host)).flatten() {
            self.taken = self.taken.less(told_by_callers.space());
        }
        let is_full = self.hosts.len() + self.called.len() >= room.hosts;
        let trees = if is_foreign { &mut self.called } else { &mut self.hosts };
        if is_full && !trees.contains_key(host) {
            self.dropped = self.dropped.saturating_add(glimpse.count);
            return true;
        }
        let tree = trees.entry(host.clone()).or_default();
        let free = room.space.less(self.taken);
        let mut left = free;
        let node = tree.find(&glimpse.path, &mut left);
        match node.and_then(|node| node.operation(&glimpse.method, &mut left)) {
            Some(operation) => operation.add(glimpse, &mut left.bytes),
            None => self.dropped = self.dropped.saturating_add(glimpse.count),
        }
        self.taken = self.taken.plus(free.less(left)).less(tree.settle(&glimpse.path));
        true
    }

    /// What all trees take.
    fn space(&self) -> Space {
        self.hosts
            .values()
            .chain(self.called.values())
            .fold(Space::default(), |sum, tree| sum.plus(tree.space()))
    }

    fn use_rule(&mut self, glimpse: &Glimpse) {
        let rule = rule(&glimpse.route, &glimpse.rule);
        if self.routes.len() < ROUTES || self.routes.contains_key(&rule) {
            let last = self.routes.entry(rule).or_default();
            *last = glimpse.at.max(*last);
        }
    }
}

fn rule(route: &str, template: &str) -> String {
    format!("{route} {template}")
}

fn operation(host: &str, path: &str, method: &str, seen: &Seen) -> Operation {
    let is_version = |segment: &&str| {
        let number = segment.strip_prefix('v').unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    Operation {
        host: host.to_owned(),
        method: method.to_owned(),
        path: path.to_owned(),
        version: path.split('/').find(is_version).map(str::to_owned),
        requests: seen.requests,
        first_seen_at: seen.first,
        last_seen_at: seen.last,
        statuses: seen.statuses.clone(),
        request_types: seen.request_types.clone(),
        query: seen.query.clone(),
        callers: seen.callers.clone(),
        routes: seen.routes.clone(),
        fields: seen.fields.clone(),
        contents: seen.contents,
        example: seen.example.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(finder: &Finder, method: &str, path: &str) {
        finder.look(
            &[Sighting {
                host: "shop.example".into(),
                method: method.into(),
                path: path.into(),
                status: 200,
                route: ("default/shop".into(), "/".into()),
                at: 9,
                count: 1,
                ..Sighting::default()
            }],
            1,
        );
    }

    fn paths(finder: &Finder) -> Vec<String> {
        let apis = finder.apis(std::iter::empty());
        apis.operations.iter().map(|operation| format!("{} {}", operation.method, operation.path)).collect()
    }

    const NAMES: [&str; 14] =
        ["ada", "bob", "cyd", "dan", "eve", "fay", "gus", "hal", "ida", "joe", "kim", "lea", "max", "ned"];

    #[test]
    fn values_become_variables_at_once() {
        let finder = Finder::default();
        for path in
            ["/v1/users/1", "/v1/users/22", "/v1/users/3f2504e0-4f89-11d3-9a0c-0305e82c3301", "/v1/users/me"]
        {
            see(&finder, "GET", path);
        }
        see(&finder, "DELETE", "/v1/users/7");
        assert_eq!(paths(&finder), ["GET /v1/users/me", "DELETE /v1/users/{id}", "GET /v1/users/{id}"]);
        assert_eq!(finder.apis(std::iter::empty()).operations[0].version.as_deref(), Some("v1"));
    }

    #[test]
    fn siblings_that_look_alike_become_one_and_others_stay() {
        let finder = Finder::default();
        for name in NAMES {
            see(&finder, "GET", &format!("/people/{name}"));
            see(&finder, "GET", &format!("/people/{name}/letters"));
        }
        see(&finder, "POST", "/people/search");
        for resource in ["carts", "orders", "items"] {
            see(&finder, "GET", &format!("/{resource}"));
        }
        // One more that is late, and has less below it.
        see(&finder, "GET", "/people/zoe");
        assert_eq!(
            paths(&finder),
            [
                "GET /carts",
                "GET /items",
                "GET /orders",
                "POST /people/search",
                "GET /people/{id}",
                "GET /people/{id}/letters"
            ]
        );
        let apis = finder.apis(std::iter::empty());
        assert_eq!(apis.operations[4].requests, NAMES.len() as u64 + 1);
    }

    #[test]
    fn what_is_kept_is_bounded_and_comes_back() {
        let finder = Finder::default();
        for number in 0..100_000u32 {
            let letters: String =
                number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'g')).collect();
            see(&finder, "GET", &format!("/{letters}/{letters}"));
        }
        let taken = finder.lock().taken;
        assert!(taken.nodes <= Room::PROCESS.space.nodes, "{taken:?}");
        assert!(paths(&finder).len() < 100, "{:?}", &paths(&finder)[..20]);
        let kept = finder.keep().unwrap();
        assert_eq!(finder.keep(), None);
        let again = Finder::default();
        again.load(&kept);
        assert_eq!(paths(&again), paths(&finder));
        assert_eq!(
            again.apis([("default/shop", "/"), ("default/shop", "/old")].into_iter()).routes[1].last_seen_at,
            None
        );
        again.load(b"nonsense");
        assert_eq!(again.apis(std::iter::empty()).since, 1);
    }

    #[test]
    fn what_is_kept_takes_what_is_counted_and_no_more_than_there_is_room_for() {
        let room = Room { hosts: 3, space: Space { nodes: 300, bytes: 100_000 } };
        let finder = Finder::with(room);
        let mut state = 7u64;
        let mut any = |most: u16| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u16::try_from((state >> 33) % u64::from(most)).unwrap()
        };
        for round in 0..3_000u64 {
            let path: String = (0..=any(4)).map(|_| format!("/{}", NAMES[usize::from(any(14))])).collect();
            let sighting = Sighting {
                host: format!("shop{}.example", any(4)).into(),
                method: format!("M{}", any(20)).into(),
                path: if any(3) == 0 { format!("{path}/{round}") } else { path }.into(),
                query: vec![format!("{}{round}", "q".repeat(100)).into()],
                request_type: format!("text/{}", any(100)).into(),
                status: 200 + any(50),
                response: Some(format!(r#"{{"field{}": 1}}"#, any(50)).into_bytes().into()),
                count: 1,
                ..Sighting::default()
            };
            let told = if any(5) == 0 { Told::ByCaller } else { Told::BySelf };
            finder.see(&[(told, Glimpse::of(&sighting))], 1);
            let inner = finder.lock();
            assert_eq!(inner.taken, inner.space(), "{round}");
            assert!(inner.taken.nodes <= 300 && inner.taken.bytes <= 100_000, "{:?}", inner.taken);
        }
        assert!(finder.lock().dropped > 0);
        let again = Finder::with(room);
        again.load(&finder.keep().unwrap());
        assert_eq!(again.lock().taken, finder.lock().taken);
    }

    #[test]
    fn what_there_is_none_of_is_judged_by_all_that_came_with_it() {
        let finder = Finder::default();
        let sighting = |path: &str, status| Sighting {
            host: "shop.example".into(),
            method: "GET".into(),
            path: path.into(),
            status,
            count: 1,
            ..Sighting::default()
        };
        finder.look(&[sighting("/items/1", 404), sighting("/wp-admin", 404), sighting("/items/2", 200)], 1);
        let apis = finder.apis(std::iter::empty());
        assert_eq!((apis.operations.len(), apis.operations[0].requests), (1, 2));
    }

    #[test]
    fn fields_of_answers_are_kept_by_status_and_those_of_lists_are_of_what_stands_in_them() {
        let finder = Finder::default();
        let sighting = |status, response: &str| Sighting {
            host: "shop.example".into(),
            method: "GET".into(),
            path: "/items".into(),
            status,
            response: Some(response.as_bytes().into()),
            count: 1,
            ..Sighting::default()
        };
        finder.look(
            &[
                sighting(200, r#"[{"id": 1, "name": "a"}, {"id": 2}, 3]"#),
                sighting(422, r#"{"title": "no"}"#),
                sighting(200, "nonsense"),
            ],
            1,
        );
        let operation = finder.apis(std::iter::empty()).operations.remove(0);
        let well = &operation.statuses[&200];
        assert_eq!((well.contents, well.lists, well.fields["id"], well.fields["name"]), (2, 1, 2, 1));
        assert_eq!(operation.statuses[&422].fields.keys().collect::<Vec<_>>(), ["title"]);
    }
}
