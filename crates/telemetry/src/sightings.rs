//! What requests there are: for whoever finds out which APIs exist.
//!
//! A request's shape is who asked for which path with which method and parameters, and what came back. Numbers and other
//! values in a path are all alike for it. Each worker gathers the shapes of ten seconds and how often each came
//! ([`WorkerSightings`]), then hands them over. The path of a request takes one hash and one lookup; what is met for the
//! first time is copied. All of it is bounded: shapes beyond [`SHAPES`], and what nobody fetches, are dropped and counted.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::{Counter, Metric, Registry};
use crate::record::Record;
use crate::signals::{Identity, bytes, fold};

/// Shapes that a worker gathers at most.
const SHAPES: usize = 2048;

/// How long they are gathered.
const GATHER: Duration = Duration::from_secs(10);

/// Sightings that wait to be fetched, of all workers.
const WAITING: usize = 16_384;

/// Longer authorities, paths and queries are not looked at. Unit: bytes.
const TEXT: usize = 512;

/// Nor are longer methods; a longer media type is none (RFC 6838 §4.2: 127 characters on each side of the slash). Unit: bytes.
const METHOD: usize = 64;
const MEDIA_TYPE: usize = 255;

/// Contents of requests that a worker copies in that time, to see which fields they have; as many of responses; and how long each
/// may be. Unit: bytes.
const CONTENTS: usize = 32;
/// Longest content that is copied. Unit: bytes.
pub const CONTENT_BYTES: usize = 4 << 10;

/// Responses in a second of which a worker looks whether it knows what is in those of their kind.
const LOOKS: u32 = 500;

/// Who has to do with an exchange.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parties<'a> {
    /// Who asked, of the mesh, where there is no consumer.
    pub caller: &'a str,
    /// `NAMESPACE/NAME:PORT` of the service that was asked; empty outside of a mesh.
    pub service: &'a str,
    /// This process answers for that service.
    pub is_served: bool,
}

/// What a worker has answered that rests: every wish.
const AT_REST: u64 = u64::MAX;

/// What of an exchange is not in its record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Content<'a> {
    /// Content-Type of the request.
    pub request_type: &'a [u8],
    /// Content-Type of the response.
    pub response_type: &'a [u8],
    /// Content of the request as a whole, where it is at hand.
    pub request: Option<&'a [u8]>,
    /// Content of the response as a whole, where it was copied.
    pub response: Option<&'a [u8]>,
}

/// Requests of one shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    /// A number for the shape, which stays the same as long as the process lives.
    pub shape: u64,
    /// Authority of the target URI; of a service of the mesh [its own](authority_of), by whatever name it was called.
    pub host: Box<str>,
    /// Method.
    pub method: Box<str>,
    /// Path of the first of them.
    pub path: Box<str>,
    /// Names of query parameters, in order, each once.
    pub query: Vec<Box<str>>,
    /// Status of the backend.
    pub status: u16,
    /// Media type of the request, without parameters.
    pub request_type: Box<str>,
    /// Media type of the response, without parameters.
    pub response_type: Box<str>,
    /// Who asked: a consumer, or a workload of the mesh.
    pub caller: Box<str>,
    /// `NAMESPACE/NAME:PORT` of the service that was asked; empty outside of a mesh.
    pub service: Box<str>,
    /// This process answers for that service.
    pub is_served: bool,
    /// Route and template that took them.
    pub route: (Box<str>, Box<str>),
    /// Content of one of them.
    pub content: Option<Box<[u8]>>,
    /// Content of one response.
    pub response: Option<Box<[u8]>>,
    /// When the last one began. Unit: seconds since 1970.
    pub at: u64,
    /// How many.
    pub count: u64,
}

/// Where workers hand over what they saw.
#[derive(Debug)]
pub struct Lookout {
    seed: u64,
    waiting: Mutex<Vec<Sighting>>,
    /// How often somebody wanted to know what was seen so far.
    asked: AtomicU64,
    /// Which of these wishes each worker has fulfilled.
    workers: Mutex<Vec<Arc<AtomicU64>>>,
    dropped: Counter,
}

impl Lookout {
    /// A place for it. `seed`: any number that peers do not know.
    pub fn new(seed: u64, registry: &Registry) -> Arc<Self> {
        let dropped = registry.counter(Metric::SightingsDropped, &[]);
        Arc::new(Self {
            seed: seed | 1,
            waiting: Mutex::default(),
            asked: AtomicU64::new(0),
            workers: Mutex::default(),
            dropped,
        })
    }

    /// What a worker sees.
    pub fn worker(self: &Arc<Self>) -> WorkerSightings {
        let answered = Arc::new(AtomicU64::new(self.asked.load(Ordering::Relaxed)));
        lock(&self.workers).push(Arc::clone(&answered));
        WorkerSightings {
            answered,
            lookout: Arc::clone(self),
            shapes: HashMap::default(),
            contents: 0,
            looks: LOOKS,
            answers: HashSet::default(),
            dropped: 0,
            handed_over: None,
        }
    }

    /// Has workers hand over what they have seen so far. Each does so when it next [looks](WorkerSightings::look); what is returned
    /// says whether all have.
    pub fn ask(&self) -> Asked<'_> {
        Asked { lookout: self, number: self.asked.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// Counts requests that were not looked at.
    pub fn note_dropped(&self, requests: u64) {
        self.dropped.add(requests);
    }

    /// What was handed over since the last call.
    pub fn fetch(&self) -> Vec<Sighting> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Sighting>> {
        lock(&self.waiting)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A wish to know what workers have seen so far.
#[derive(Debug)]
pub struct Asked<'l> {
    lookout: &'l Lookout,
    number: u64,
}

impl Asked<'_> {
    /// True when every worker has handed over what it had seen.
    pub fn is_answered(&self) -> bool {
        lock(&self.lookout.workers).iter().all(|answered| answered.load(Ordering::Acquire) >= self.number)
    }
}

/// What one worker sees.
pub struct WorkerSightings {
    /// The latest wish that it has fulfilled.
    answered: Arc<AtomicU64>,
    lookout: Arc<Lookout>,
    shapes: HashMap<u64, Sighting, BuildHasherDefault<Identity>>,
    contents: usize,
    /// Responses that it may still look at in this second.
    looks: u32,
    /// Kinds of responses of which one was copied.
    answers: HashSet<u64, BuildHasherDefault<Identity>>,
    dropped: u64,
    handed_over: Option<Instant>,
}

impl WorkerSightings {
    /// Looks at an exchange that a backend has answered; others are none of an API's.
    pub fn see(&mut self, record: &Record<'_>, parties: &Parties<'_>, content: &Content<'_>) {
        if record.upstream_status.is_none()
            || record.path.len() > TEXT
            || record.authority.len() > TEXT
            || record.method.len() > METHOD
        {
            return;
        }
        let query = record.query.filter(|query| query.len() <= TEXT).unwrap_or_default();
        let caller = if record.consumer.is_empty() { parties.caller } else { record.consumer };
        let seed = self.lookout.seed;
        let mut key = fold(bytes(seed, record.authority), shape_of(seed, record.path));
        key = fold(key, bytes(seed, record.method) ^ u64::from(record.status) << 48);
        key =
            fold(key, bytes(seed, content.request_type) ^ bytes(seed, content.response_type).rotate_left(32));
        key = fold(key, bytes(seed, caller.as_bytes()));
        if !parties.service.is_empty() {
            key = fold(key, bytes(seed, parties.service.as_bytes()) ^ u64::from(parties.is_served));
        }
        if !query.is_empty() {
            for name in names(query) {
                key = fold(key, bytes(seed, name));
            }
        }
        if let Some(known) = self.shapes.get_mut(&key) {
            known.count += 1;
            known.at = record.start_unix_nanos / 1_000_000_000;
            if let Some(response) = content.response.filter(|_| known.response.is_none()) {
                known.response = Some(response.into());
            }
            return;
        }
        self.first_seen(key, record, query, &Parties { caller, ..*parties }, content);
    }

    #[cold]
    fn first_seen(
        &mut self,
        key: u64,
        record: &Record<'_>,
        query: &[u8],
        parties: &Parties<'_>,
        content: &Content<'_>,
    ) {
        self.wake();
        if self.shapes.len() >= SHAPES {
            self.dropped += 1;
            return;
        }
        // What is not text is nobody's API.
        let (Ok(host), Ok(method), Ok(path)) =
            (text(record.authority), text(record.method), text(record.path))
        else {
            return;
        };
        let mut parameters: Vec<Box<str>> = Vec::new();
        for name in names(query).filter_map(|name| text(name).ok()) {
            if parameters.len() < PARAMETERS && !parameters.iter().any(|known| **known == *name) {
                parameters.push(name.into());
            }
        }
        let copied = content.request.filter(|bytes| {
            !bytes.is_empty()
                && bytes.len() <= CONTENT_BYTES
                && self.contents < CONTENTS
                && is_json(content.request_type)
        });
        self.contents += usize::from(copied.is_some());
        let own_authority = authority_of(parties.service);
        let sighting = Sighting {
            shape: key,
            host: own_authority.map_or_else(|| host.into(), Into::into),
            method: method.into(),
            path: path.into(),
            query: parameters,
            status: record.status,
            request_type: media_type(content.request_type).to_ascii_lowercase().into(),
            response_type: media_type(content.response_type).to_ascii_lowercase().into(),
            caller: parties.caller.into(),
            service: parties.service.into(),
            is_served: parties.is_served,
            route: (record.route.into(), record.rule.into()),
            content: copied.map(Into::into),
            response: content.response.map(Into::into),
            at: record.start_unix_nanos / 1_000_000_000,
            count: 1,
        };
        self.shapes.insert(key, sighting);
    }

    /// Whether the content of a response is worth a copy: none of its kind was copied yet in these ten seconds. `media`: its
    /// Content-Type.
    #[inline]
    pub fn wants_response(
        &mut self,
        host: &[u8],
        method: &[u8],
        path: &[u8],
        status: u16,
        media: &[u8],
    ) -> bool {
        self.looks > 0 && status < 500 && is_json(media) && self.wants_kind(host, method, path, status)
    }

    fn wants_kind(&mut self, host: &[u8], method: &[u8], path: &[u8], status: u16) -> bool {
        self.looks -= 1;
        if self.answers.len() >= CONTENTS || path.len() > TEXT {
            return false;
        }
        let path = path.split(|&byte| byte == b'?').next().unwrap_or_default();
        let seed = self.lookout.seed;
        let key = fold(bytes(seed, host), shape_of(seed, path));
        self.answers.insert(fold(key, bytes(seed, method) ^ u64::from(status) << 48))
    }

    /// Hands over what was gathered, when somebody has asked for it.
    #[inline]
    pub fn look(&mut self) {
        let asked = self.lookout.asked.load(Ordering::Relaxed);
        if asked != self.answered.load(Ordering::Relaxed) {
            self.hand_over();
            self.answered.store(asked, Ordering::Release);
        }
    }

    /// Hands over what was gathered, when it is time. To be called about every second.
    pub fn tick(&mut self, now: Instant) {
        self.looks = LOOKS;
        let since = *self.handed_over.get_or_insert(now);
        if now.saturating_duration_since(since) >= GATHER {
            self.handed_over = Some(now);
            self.hand_over();
        }
    }

    /// Hands over what was gathered, and has nothing to tell until something is seen again: nobody waits for a worker that
    /// rests.
    pub fn rest(&mut self) {
        self.hand_over();
        self.answered.store(AT_REST, Ordering::Release);
    }

    fn wake(&self) {
        if self.answered.load(Ordering::Relaxed) == AT_REST {
            self.answered.store(self.lookout.asked.load(Ordering::Relaxed), Ordering::Release);
        }
    }

    fn hand_over(&mut self) {
        let mut dropped = std::mem::take(&mut self.dropped);
        self.contents = 0;
        self.answers.clear();
        if !self.shapes.is_empty() {
            let mut waiting = self.lookout.lock();
            for (_, sighting) in self.shapes.drain() {
                if waiting.len() < WAITING {
                    waiting.push(sighting);
                } else {
                    dropped += sighting.count;
                }
            }
        }
        if dropped > 0 {
            self.lookout.dropped.add(dropped);
        }
    }
}

impl Drop for WorkerSightings {
    fn drop(&mut self) {
        self.hand_over();
        lock(&self.lookout.workers).retain(|other| !Arc::ptr_eq(other, &self.answered));
    }
}

impl fmt::Debug for WorkerSightings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerSightings").field("shapes", &self.shapes.len()).finish_non_exhaustive()
    }
}

/// The authority of a service of the mesh, as those who call it by its whole name write it. `service`: `NAMESPACE/NAME:PORT`.
pub fn authority_of(service: &str) -> Option<String> {
    let (namespace, rest) = service.split_once('/')?;
    let (name, port) = rest.rsplit_once(':')?;
    let is_name = |part: &str| !part.is_empty() && !part.contains('/');
    if !is_name(namespace) || !is_name(name) {
        return None;
    }
    Some(match port {
        // RFC 9110 §4.2.3: the usual port is left out.
        "80" => format!("{name}.{namespace}.svc.cluster.local"),
        port => format!("{name}.{namespace}.svc.cluster.local:{port}"),
    })
}

fn is_json(media: &[u8]) -> bool {
    let media = media_type(media);
    media.eq_ignore_ascii_case("application/json") || media.ends_with("+json")
}

/// Names of parameters that are told of one shape.
const PARAMETERS: usize = 16;

fn text(bytes: &[u8]) -> Result<&str, std::str::Utf8Error> {
    std::str::from_utf8(bytes)
}

/// The names of a query's parameters.
fn names(query: &[u8]) -> impl Iterator<Item = &[u8]> {
    query
        .split(|&byte| byte == b'&')
        .map(|pair| pair.split(|&byte| byte == b'=').next().unwrap_or_default())
        .filter(|name| !name.is_empty())
}

/// A media type without its parameters; empty when it is none.
fn media_type(value: &[u8]) -> &str {
    let value = text(value).unwrap_or_default();
    let media = value.split(';').next().unwrap_or_default().trim();
    if media.len() > MEDIA_TYPE { "" } else { media }
}

/// A number for a path in which values are all alike.
fn shape_of(seed: u64, path: &[u8]) -> u64 {
    let mut hash = seed;
    for segment in path.split(|&byte| byte == b'/') {
        hash = if is_value(segment) { fold(hash, 1) } else { fold(hash, bytes(seed, segment)) };
    }
    hash
}

/// True for a segment of a path that is a value for certain: a number, a UUID, a hash, a long random text, an address.
pub fn is_value(segment: &[u8]) -> bool {
    let Some(first) = segment.first() else { return false };
    let (mut all, mut any, mut digits) = (u8::MAX, 0, 0);
    for byte in segment {
        let kinds = KINDS[usize::from(*byte)];
        all &= kinds;
        any |= kinds;
        digits += usize::from(kinds & DIGIT);
    }
    let has_at = any & AT != 0;
    // `v2` is a version.
    if digits == 0 {
        return has_at;
    }
    let is_hex = all & HEX != 0 && segment.len() >= 8;
    let is_random = all & WORD != 0 && segment.len() >= 16 && digits * 8 >= segment.len();
    // `-12.5`, `2026-11-22`.
    let is_measure = all & MEASURE != 0 && (first.is_ascii_digit() || *first == b'-');
    all & DIGIT != 0 || is_hex || is_random || is_measure || has_at
}

/// A digit.
const DIGIT: u8 = 1;
/// What a UUID or a hash is made of.
const HEX: u8 = 2;
/// What random texts are made of.
const WORD: u8 = 4;
/// What numbers and times are made of.
const MEASURE: u8 = 8;
/// What addresses have.
const AT: u8 = 16;

/// What each byte may be a part of.
const KINDS: [u8; 256] = {
    let mut all = [0; 256];
    let mut at = 0;
    while at < 128 {
        let byte = at as u8;
        all[at] = match byte {
            b'0'..=b'9' => DIGIT | HEX | WORD | MEASURE,
            b'a'..=b'f' | b'A'..=b'F' => HEX | WORD,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => WORD,
            b'-' => HEX | WORD | MEASURE,
            b'.' | b',' | b':' => MEASURE,
            b'@' => AT,
            _ => 0,
        };
        at += 1;
    }
    all
};

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>(path: &'a [u8], query: Option<&'a [u8]>) -> Record<'a> {
        Record {
            method: b"GET",
            authority: b"shop.example",
            path,
            query,
            status: 200,
            upstream_status: Some(200),
            start_unix_nanos: 7_000_000_000,
            ..Record::default()
        }
    }

    #[test]
    fn values_are_told_from_names() {
        for value in [
            "42",
            "deadbeef01",
            "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
            "ada@example.org",
            "2026-11-22",
            "cus_9s6XKzkNRiz8i3xx",
        ] {
            assert!(is_value(value.as_bytes()), "{value}");
        }
        for name in ["v1", "users", "oauth2", "p95", "", "feedface", "sha256sums", "user-profile"] {
            assert!(!is_value(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn what_nobody_would_call_so_is_not_copied() {
        let registry = Registry::new();
        let lookout = Lookout::new(7, &registry);
        let mut worker = lookout.worker();
        let long = "x".repeat(TEXT + 1);
        let mut see = |record: &Record<'_>, request_type: &str| {
            let content = Content { request_type: request_type.as_bytes(), ..Content::default() };
            worker.see(record, &Parties::default(), &content);
            worker.hand_over();
            lookout.fetch().pop()
        };
        assert_eq!(see(&record(long.as_bytes(), None), ""), None);
        assert_eq!(see(&Record { authority: long.as_bytes(), ..record(b"/", None) }, ""), None);
        assert_eq!(see(&Record { method: long.as_bytes(), ..record(b"/", None) }, ""), None);
        let seen = see(&record(b"/", Some(long.as_bytes())), &format!("text/{long}; q=1")).unwrap();
        assert_eq!((seen.query.len(), &*seen.request_type), (0, ""));
        let seen = see(&record(b"/", None), "Text/Plain; charset=utf-8").unwrap();
        assert_eq!(&*seen.request_type, "text/plain");
    }

    #[test]
    fn requests_of_one_shape_are_one_sighting() {
        let registry = Registry::new();
        let lookout = Lookout::new(7, &registry);
        let mut worker = lookout.worker();
        for number in 0..100 {
            let path = format!("/users/{number}/orders");
            worker.see(
                &record(path.as_bytes(), Some(b"page=1&size=2&page=3")),
                &Parties::default(),
                &Content::default(),
            );
        }
        worker.see(
            &Record { upstream_status: None, ..record(b"/nobody", None) },
            &Parties::default(),
            &Content::default(),
        );
        let begun = Instant::now();
        worker.tick(begun);
        assert!(lookout.fetch().is_empty());
        worker.tick(begun + GATHER);
        let seen = lookout.fetch();
        assert_eq!(seen.len(), 1);
        assert_eq!((&*seen[0].path, seen[0].count, seen[0].at), ("/users/0/orders", 100, 7));
        assert_eq!(seen[0].query, ["page".into(), "size".into()]);
    }

    #[test]
    fn what_is_gathered_is_bounded() {
        let registry = Registry::new();
        let lookout = Lookout::new(7, &registry);
        let mut worker = lookout.worker();
        let body = br#"{"name": 1}"#;
        let content = Content {
            request_type: b"application/json; charset=utf-8",
            request: Some(body),
            ..Content::default()
        };
        for number in 0..100_000u32 {
            // Names, not values: letters only.
            let name: String =
                number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'g')).collect();
            worker.see(&record(format!("/{name}").as_bytes(), None), &Parties::default(), &content);
        }
        assert_eq!(worker.shapes.len(), SHAPES);
        worker.hand_over();
        let seen = lookout.fetch();
        assert_eq!(seen.len(), SHAPES);
        assert_eq!(seen.iter().filter(|sighting| sighting.content.is_some()).count(), CONTENTS);
        assert_eq!(registry.counter(Metric::SightingsDropped, &[]).value(), 100_000 - SHAPES as u64);
    }

    #[test]
    fn one_response_of_each_kind_is_wanted_and_no_more_than_there_is_room_for() {
        let registry = Registry::new();
        let lookout = Lookout::new(7, &registry);
        let mut worker = lookout.worker();
        let json = b"application/problem+json; charset=utf-8";
        let mut wants = |path: &str, media: &[u8]| {
            worker.wants_response(b"shop.example", b"GET", path.as_bytes(), 200, media)
        };
        assert!(wants("/users/1?a=b", json) && !wants("/users/2", json) && !wants("/users", b"text/html"));
        let letter = |number: u8| char::from(b'a' + number);
        assert_eq!((0..26u8).filter(|n| wants(&format!("/{}", letter(*n)), json)).count(), 26);
        assert_eq!((0..26u8).filter(|n| wants(&format!("/x/{}", letter(*n)), json)).count(), CONTENTS - 27);
        let path = b"/users/3";
        let content = Content { response: Some(br#"{"id": 3}"#), ..Content::default() };
        worker.see(&record(path, None), &Parties::default(), &Content::default());
        worker.see(&record(path, None), &Parties::default(), &content);
        // Who asks need not wait for the ten seconds.
        let asked = lookout.ask();
        assert!(!asked.is_answered() && lookout.fetch().is_empty());
        worker.look();
        assert!(asked.is_answered());
        let seen = lookout.fetch();
        assert_eq!((seen.len(), seen[0].count, seen[0].response.as_deref()), (1, 2, content.response));
    }

    #[test]
    fn nobody_waits_for_a_worker_that_rests_and_what_it_saw_is_told_before() {
        let registry = Registry::new();
        let lookout = Lookout::new(7, &registry);
        let mut worker = lookout.worker();
        worker.see(&record(b"/users", None), &Parties::default(), &Content::default());
        worker.rest();
        assert_eq!(lookout.fetch().len(), 1);
        assert!(lookout.ask().is_answered());
        worker.see(&record(b"/users", None), &Parties::default(), &Content::default());
        let asked = lookout.ask();
        assert!(!asked.is_answered(), "it has something to tell");
        worker.look();
        assert!(asked.is_answered());
        assert_eq!(lookout.fetch().len(), 1);
    }

    #[test]
    fn a_service_of_the_mesh_has_one_host_by_whatever_name_it_is_called() {
        let registry = Registry::new();
        let lookout = Lookout::new(7, &registry);
        let mut worker = lookout.worker();
        let parties = |service, is_served| Parties { caller: "shop/web", service, is_served };
        for authority in [&b"orders"[..], b"10.0.0.7:9000"] {
            let record = Record { authority, ..record(b"/users", None) };
            worker.see(&record, &parties("shop/orders:80", true), &Content::default());
        }
        worker.see(&record(b"/users", None), &parties("shop/orders:8080", false), &Content::default());
        worker.hand_over();
        let mut seen: Vec<_> = lookout.fetch().iter().map(|one| (one.host.clone(), one.is_served)).collect();
        seen.sort();
        seen.dedup();
        let (usual, other) =
            ("orders.shop.svc.cluster.local".into(), "orders.shop.svc.cluster.local:8080".into());
        assert_eq!(seen, [(usual, true), (other, false)]);
        assert_eq!(["", "shop", "shop/", "/a:1", "a/b/c:1"].map(authority_of), [const { None }; 5]);
    }
}
