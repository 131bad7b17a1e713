//! One proxy's stream, as the control plane sees it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::kind::Kind;
use crate::version::Version;
use crate::wire::{Any, DeltaRequest, DeltaResponse, Resource};

/// The most names that one proxy may want of one type.
pub const MAX_NAMES: usize = 65_536;

/// The longest name of a resource. Unit: bytes.
pub const MAX_NAME_BYTES: usize = 512;

/// How much content one response carries before the next one begins; a single resource may be larger. Unit: bytes.
const RESPONSE_BYTES: usize = 1 << 20;

/// The longest reason of a refusal that is kept. Unit: bytes.
const REASON_BYTES: usize = 4 << 10;

/// Tells version and content of a resource; no content when there is no such resource.
pub type Find<'a> = dyn FnMut(Kind, &str) -> (Version, Option<Bytes>) + 'a;

/// What a proxy wants, what it was sent, and what it made of it. One per stream.
#[derive(Debug, Default)]
pub struct Publisher {
    lanes: [Lane; Kind::ALL.len()],
    nonce: u64,
    /// The latest revision that the proxy had something of when the stream began.
    had: u64,
}

/// One type.
#[derive(Debug, Default)]
struct Lane {
    /// The first message of this type came.
    is_begun: bool,
    names: HashMap<Arc<str>, Seen>,
    /// Names whose resources have to be looked at, in the order of their changes; each once.
    dirty: VecDeque<Arc<str>>,
    /// The response that is on its way.
    on_its_way: Option<OnItsWay>,
}

#[derive(Debug)]
struct OnItsWay {
    nonce: u64,
    items: Vec<(Arc<str>, Version)>,
}

/// What is known of one name.
#[derive(Debug, Default)]
struct Seen {
    sent: Option<Version>,
    acked: Option<Version>,
    refused: Option<Box<(Version, Box<str>)>>,
    is_dirty: bool,
    /// It is to be sent even if it was sent already.
    is_asked: bool,
    /// It is to be sent in a response of its own: one that it was in with others was refused.
    is_alone: bool,
}

/// What a request changed.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Names that are wanted from here on, and were not.
    pub added: Vec<Arc<str>>,
    /// Names that are not wanted any more.
    pub removed: Vec<Arc<str>>,
    /// What it says about a response.
    pub acked: Option<Acked>,
}

/// What a proxy made of a response.
#[derive(Debug, PartialEq, Eq)]
pub enum Acked {
    /// It uses this many resources.
    Live(usize),
    /// It refused this many and gave a reason.
    Refused(usize, Box<str>),
}

/// How a proxy stands to a resource that it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing<'a> {
    /// What it uses.
    pub live: Option<Version>,
    /// What it refused last, and why.
    pub refused: Option<(Version, &'a str)>,
}

/// A request that is against the rules: the stream ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// The type is not served.
    #[error("there are no resources of type `{0}`")]
    UnknownType(String),
    /// Everything was asked for.
    #[error("wildcards are not served: ask by name")]
    Wildcard,
    /// A name is too long or empty.
    #[error("a name of a resource has 1 to {MAX_NAME_BYTES} bytes")]
    Name,
    /// Too many names.
    #[error("a proxy may want {MAX_NAMES} resources of one type")]
    TooMany,
}

impl Publisher {
    /// Takes a request. `intern` makes names that many proxies share.
    ///
    /// # Errors
    /// [`BadRequest`]: the stream is to be ended; what is known stays as it was or is partly taken over.
    pub fn request(
        &mut self,
        request: &DeltaRequest,
        intern: &mut dyn FnMut(&str) -> Arc<str>,
    ) -> Result<(Kind, Wanted), BadRequest> {
        let kind = Kind::of_url(&request.type_url).ok_or_else(|| {
            BadRequest::UnknownType(request.type_url.chars().take(MAX_NAME_BYTES).collect())
        })?;
        self.had = self.had.max(request.node.as_ref().map_or(0, |node| node.revision));
        let lane = self.lane_mut(kind);
        let mut wanted = Wanted { acked: lane.answer(request), ..Wanted::default() };
        let is_first = !std::mem::replace(&mut lane.is_begun, true);
        let mut had = 0;
        for name in &request.resource_names_unsubscribe {
            if let Some((name, _)) = lane.names.remove_entry(name.as_str()) {
                wanted.removed.push(name);
            }
        }
        for name in &request.resource_names_subscribe {
            if name == "*" {
                return Err(BadRequest::Wildcard);
            }
            if name.is_empty() || name.len() > MAX_NAME_BYTES {
                return Err(BadRequest::Name);
            }
            let known = lane.names.contains_key(name.as_str());
            if !known {
                if lane.names.len() >= MAX_NAMES {
                    return Err(BadRequest::TooMany);
                }
                let name = intern(name);
                lane.names.insert(Arc::clone(&name), Seen::default());
                wanted.added.push(name);
            }
            let Some(seen) = lane.names.get_mut(name.as_str()) else { continue };
            // Whoever asks again for what it has wants to be sent it again.
            seen.is_asked |= known;
            if is_first {
                // What was known before counts only for a stream that begins.
                let has: Option<Version> =
                    request.initial_resource_versions.get(name).and_then(|text| text.parse().ok());
                had = had.max(has.map_or(0, |has| has.number));
                (seen.sent, seen.acked) = (has, has);
            }
            lane.mark(name);
        }
        if kind.is_of_documents() {
            self.had = self.had.max(had);
        }
        Ok((kind, wanted))
    }

    /// The latest revision that the proxy had something of when the stream began: whoever is behind that has nothing to say.
    pub fn had(&self) -> u64 {
        self.had
    }

    /// Notes that a resource has changed. True when the stream may have something to send because of it.
    pub fn changed(&mut self, kind: Kind, name: &str) -> bool {
        let lane = self.lane_mut(kind);
        lane.mark(name) && lane.on_its_way.is_none()
    }

    /// The next response, if one may be sent. `find` tells version and content of a resource; no content when there is no
    /// such resource.
    pub fn respond(&mut self, revision: u64, find: &mut Find<'_>) -> Option<DeltaResponse> {
        for kind in Kind::ALL {
            let nonce = self.nonce + 1;
            let lane = self.lane_mut(kind);
            if lane.on_its_way.is_some() || lane.dirty.is_empty() {
                continue;
            }
            if let Some(mut response) = lane.collect(kind, nonce, find) {
                self.nonce = nonce;
                response.system_version_info = revision.to_string();
                return Some(response);
            }
        }
        None
    }

    /// How the proxy stands to a resource; nothing when it does not want it.
    pub fn standing(&self, kind: Kind, name: &str) -> Option<Standing<'_>> {
        let seen = self.lanes.get(kind.index())?.names.get(name)?;
        let refused = seen.refused.as_deref().map(|(version, why)| (*version, &**why));
        Some(Standing { live: seen.acked, refused })
    }

    /// Every name that is wanted.
    pub fn names(&self) -> impl Iterator<Item = (Kind, &Arc<str>)> {
        Kind::ALL
            .into_iter()
            .zip(&self.lanes)
            .flat_map(|(kind, lane)| lane.names.keys().map(move |name| (kind, name)))
    }

    #[expect(clippy::indexing_slicing, reason = "there is a lane for each kind")]
    fn lane_mut(&mut self, kind: Kind) -> &mut Lane {
        &mut self.lanes[kind.index()]
    }
}

impl Lane {
    /// Marks a name to be looked at; false when it is not wanted.
    fn mark(&mut self, name: &str) -> bool {
        let Some((name, _)) = self.names.get_key_value(name) else { return false };
        let name = Arc::clone(name);
        if let Some(seen) = self.names.get_mut(&name)
            && !std::mem::replace(&mut seen.is_dirty, true)
        {
            self.dirty.push_back(name);
        }
        true
    }

    /// What a request says about the response that is on its way. A nonce of another one says nothing: it is older.
    fn answer(&mut self, request: &DeltaRequest) -> Option<Acked> {
        let nonce: u64 = request.response_nonce.parse().ok()?;
        let OnItsWay { items, .. } = self.on_its_way.take_if(|way| way.nonce == nonce)?;
        let count = items.len();
        let Some(refusal) = &request.error_detail else {
            for (name, version) in items {
                if let Some(seen) = self.names.get_mut(&name) {
                    seen.acked = Some(version);
                    seen.refused = None;
                }
            }
            return Some(Acked::Live(count));
        };
        let why: Box<str> = cut(&refusal.message, REASON_BYTES).into();
        for (name, version) in items {
            let Some(seen) = self.names.get_mut(&name) else { continue };
            if count > 1 {
                // One of them is wrong: each by itself, so that the others are not held up by it.
                (seen.is_asked, seen.is_alone) = (true, true);
                self.mark(&name);
            } else {
                seen.refused = Some(Box::new((version, why.clone())));
            }
        }
        Some(Acked::Refused(count, why))
    }

    fn collect(&mut self, kind: Kind, nonce: u64, find: &mut Find<'_>) -> Option<DeltaResponse> {
        let mut items = Vec::new();
        let mut response = DeltaResponse::default();
        let mut size = 0;
        while size < RESPONSE_BYTES {
            let Some(name) = self.dirty.pop_front() else { break };
            // It is not wanted any more, or it was wanted anew and is in the list again.
            let Some(seen) = self.names.get_mut(&name).filter(|seen| seen.is_dirty) else { continue };
            if seen.is_alone && !items.is_empty() {
                self.dirty.push_front(name);
                break;
            }
            seen.is_dirty = false;
            let (version, content) = find(kind, &name);
            let is_asked = std::mem::take(&mut seen.is_asked);
            let is_alone = std::mem::take(&mut seen.is_alone);
            let has_it = |has: &Option<Version>| has.is_some_and(|has| has.hash == version.hash);
            if has_it(&seen.sent) && !is_asked {
                if has_it(&seen.acked) {
                    seen.acked = Some(version);
                }
                seen.sent = Some(version);
                continue;
            }
            seen.sent = Some(version);
            match content {
                Some(content) => {
                    size += content.len() + name.len();
                    response.resources.push(Resource {
                        version: version.to_string(),
                        resource: Some(Any { type_url: kind.url().to_owned(), value: content }),
                        name: name.to_string(),
                    });
                }
                None => {
                    size += name.len();
                    response.removed_resources.push(name.to_string());
                }
            }
            items.push((name, version));
            if is_alone {
                break;
            }
        }
        if items.is_empty() {
            return None;
        }
        self.on_its_way = Some(OnItsWay { nonce, items });
        response.type_url = kind.url().to_owned();
        response.nonce = nonce.to_string();
        Some(response)
    }
}

/// The beginning of a text, not longer than a number of bytes.
fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Refusal;

    /// Resources of a test: every name is `Service`.
    #[derive(Default)]
    struct World(HashMap<String, (Version, Option<Bytes>)>);

    impl World {
        fn set(&mut self, name: &str, number: u64, content: &str) {
            let version = Version::of(number, content.as_bytes());
            self.0.insert(name.to_owned(), (version, Some(Bytes::copy_from_slice(content.as_bytes()))));
        }

        fn remove(&mut self, name: &str, number: u64) {
            self.0.insert(name.to_owned(), (Version::absent(number), None));
        }

        fn send(&self, to: &mut Publisher) -> Option<DeltaResponse> {
            to.respond(1, &mut |_, name| self.0.get(name).cloned().unwrap_or_default())
        }
    }

    fn ask(publisher: &mut Publisher, request: &DeltaRequest) -> Result<(Kind, Wanted), BadRequest> {
        publisher.request(request, &mut |name| name.into())
    }

    fn subscribe(names: &[&str]) -> DeltaRequest {
        DeltaRequest {
            type_url: Kind::Service.url().to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaRequest::default()
        }
    }

    fn ack(response: &DeltaResponse) -> DeltaRequest {
        DeltaRequest { response_nonce: response.nonce.clone(), ..subscribe(&[]) }
    }

    fn nack(response: &DeltaResponse) -> DeltaRequest {
        let refusal = Refusal { code: 3, message: "no".to_owned() };
        DeltaRequest { error_detail: Some(refusal), ..ack(response) }
    }

    fn names(response: &DeltaResponse) -> Vec<&str> {
        response.resources.iter().map(|resource| &*resource.name).collect()
    }

    #[test]
    fn what_is_wanted_is_sent_once_and_again_when_it_changes() {
        let (mut world, mut publisher) = (World::default(), Publisher::default());
        world.set("a", 1, "one");
        ask(&mut publisher, &subscribe(&["a"])).unwrap();
        let first = world.send(&mut publisher).unwrap();
        assert_eq!(names(&first), ["a"]);
        ask(&mut publisher, &ack(&first)).unwrap();
        assert_eq!(world.send(&mut publisher), None);
        world.set("a", 2, "two");
        assert!(publisher.changed(Kind::Service, "a"));
        assert!(!publisher.changed(Kind::Service, "b"), "nobody wants it");
        let second = world.send(&mut publisher).unwrap();
        assert_ne!(first.nonce, second.nonce);
        assert_eq!(publisher.standing(Kind::Service, "a").unwrap().live.unwrap().number, 1);
        ask(&mut publisher, &ack(&second)).unwrap();
        assert_eq!(publisher.standing(Kind::Service, "a").unwrap().live.unwrap().number, 2);
    }

    #[test]
    fn while_a_response_is_on_its_way_only_the_latest_state_waits() {
        let (mut world, mut publisher) = (World::default(), Publisher::default());
        world.set("a", 1, "1");
        ask(&mut publisher, &subscribe(&["a"])).unwrap();
        let first = world.send(&mut publisher).unwrap();
        for number in 2..100 {
            world.set("a", number, &number.to_string());
            assert!(!publisher.changed(Kind::Service, "a"), "nothing can be sent yet");
            assert_eq!(world.send(&mut publisher), None);
        }
        ask(&mut publisher, &ack(&first)).unwrap();
        let next = world.send(&mut publisher).unwrap();
        assert_eq!(next.resources.len(), 1);
        assert!(next.resources[0].version.starts_with("99."));
    }

    #[test]
    fn types_do_not_wait_for_each_other_and_endpoints_go_first() {
        let (mut world, mut publisher) = (World::default(), Publisher::default());
        world.set("a", 1, "1");
        ask(&mut publisher, &subscribe(&["a"])).unwrap();
        ask(
            &mut publisher,
            &DeltaRequest { type_url: Kind::Endpoints.url().to_owned(), ..subscribe(&["a"]) },
        )
        .unwrap();
        assert_eq!(world.send(&mut publisher).unwrap().type_url, Kind::Endpoints.url());
        assert_eq!(world.send(&mut publisher).unwrap().type_url, Kind::Service.url());
        assert_eq!(world.send(&mut publisher), None);
    }

    #[test]
    fn what_does_not_exist_and_what_goes_away_is_told() {
        let (mut world, mut publisher) = (World::default(), Publisher::default());
        ask(&mut publisher, &subscribe(&["a"])).unwrap();
        let none = world.send(&mut publisher).unwrap();
        assert_eq!(none.removed_resources, ["a"]);
        ask(&mut publisher, &ack(&none)).unwrap();
        world.set("a", 2, "x");
        publisher.changed(Kind::Service, "a");
        let there = world.send(&mut publisher).unwrap();
        ask(&mut publisher, &ack(&there)).unwrap();
        world.remove("a", 3);
        publisher.changed(Kind::Service, "a");
        let gone = world.send(&mut publisher).unwrap();
        assert_eq!(gone.removed_resources, ["a"]);
        ask(&mut publisher, &ack(&gone)).unwrap();
        assert_eq!(publisher.standing(Kind::Service, "a").unwrap().live, Some(Version::absent(3)));
    }

    #[test]
    fn an_old_nonce_says_nothing() {
        let (mut world, mut publisher) = (World::default(), Publisher::default());
        world.set("a", 1, "1");
        ask(&mut publisher, &subscribe(&["a"])).unwrap();
        let first = world.send(&mut publisher).unwrap();
        ask(&mut publisher, &ack(&first)).unwrap();
        world.set("a", 2, "2");
        publisher.changed(Kind::Service, "a");
        let second = world.send(&mut publisher).unwrap();
        for stale in [nack(&first), DeltaRequest { response_nonce: "x".to_owned(), ..nack(&second) }] {
            let (_, wanted) = ask(&mut publisher, &stale).unwrap();
            assert_eq!(wanted.acked, None);
        }
        let (_, wanted) = ask(&mut publisher, &ack(&second)).unwrap();
        assert_eq!(wanted.acked, Some(Acked::Live(1)));
    }

    #[test]
    fn a_request_that_acks_may_subscribe_too() {
        let (mut world, mut publisher) = (World::default(), Publisher::default());
        world.set("a", 1, "1");
        world.set("b", 1, "1");
        ask(&mut publisher, &subscribe(&["a"])).unwrap();
        let first = world.send(&mut publisher).unwrap();
        let both = DeltaRequest {
            resource_names_unsubscribe: vec!["a".to_owned()],
            response_nonce: first.nonce,
            ..subscribe(&["b"])
        };
        let (_, wanted) = ask(&mut publisher, &both).unwrap();
        assert_eq!((wanted.added.len(), wanted.removed.len()), (1, 1));
        assert_eq!(names(&world.send(&mut publisher).unwrap()), ["b"]);
        assert_eq!(publisher.standing(Kind::Service, "a"), None);
    }

    #[test]
    fn what_was_refused_is_not_sent_again_until_it_changes() {
        let (mut world, mut publisher) = (World::default(), Publisher::default());
        world.set("a", 1, "good");
        ask(&mut publisher, &subscribe(&["a"])).unwrap();
        let good = world.send(&mut publisher).unwrap();
        ask(&mut publisher, &ack(&good)).unwrap();
        world.set("a", 2, "bad");
        publisher.changed(Kind::Service, "a");
        let bad = world.send(&mut publisher).unwrap();
        ask(&mut publisher, &nack(&bad)).unwrap();
        let standing = publisher.standing(Kind::Service, "a").unwrap();
        assert_eq!((standing.live.unwrap().number, standing.refused.unwrap().0.number), (1, 2));
        publisher.changed(Kind::Service, "a");
        assert_eq!(world.send(&mut publisher), None);
        // Back to what it was: the proxy uses it, but was sent something else since.
        world.set("a", 3, "good");
        publisher.changed(Kind::Service, "a");
        let again = world.send(&mut publisher).unwrap();
        ask(&mut publisher, &ack(&again)).unwrap();
        let standing = publisher.standing(Kind::Service, "a").unwrap();
        assert_eq!((standing.live.unwrap().number, standing.refused), (3, None));
    }

    #[test]
    fn of_a_refused_response_each_resource_is_tried_by_itself() {
        let (mut world, mut publisher) = (World::default(), Publisher::default());
        for name in ["a", "b", "c"] {
            world.set(name, 1, name);
        }
        ask(&mut publisher, &subscribe(&["a", "b", "c"])).unwrap();
        let all = world.send(&mut publisher).unwrap();
        assert_eq!(all.resources.len(), 3);
        ask(&mut publisher, &nack(&all)).unwrap();
        let mut live = Vec::new();
        while let Some(response) = world.send(&mut publisher) {
            assert_eq!(response.resources.len(), 1);
            let answer = if names(&response) == ["b"] { nack(&response) } else { ack(&response) };
            ask(&mut publisher, &answer).unwrap();
            live.extend(names(&response).into_iter().map(str::to_owned));
        }
        assert_eq!(live, ["a", "b", "c"]);
        let is_live = |name| publisher.standing(Kind::Service, name).unwrap().live.is_some();
        assert_eq!([is_live("a"), is_live("b"), is_live("c")], [true, false, true]);
    }

    #[test]
    fn a_stream_goes_on_from_what_the_proxy_has() {
        let (mut world, mut publisher) = (World::default(), Publisher::default());
        world.set("same", 9, "same");
        world.set("other", 9, "new");
        let mut first = subscribe(&["same", "other", "gone", "odd"]);
        for (name, version) in [("same", Version::of(2, b"same")), ("other", Version::of(2, b"old"))] {
            first.initial_resource_versions.insert(name.to_owned(), version.to_string());
        }
        first.initial_resource_versions.insert("gone".to_owned(), Version::of(2, b"gone").to_string());
        first.initial_resource_versions.insert("odd".to_owned(), "not a version".to_owned());
        ask(&mut publisher, &first).unwrap();
        let response = world.send(&mut publisher).unwrap();
        assert_eq!(names(&response), ["other"]);
        assert_eq!(response.removed_resources, ["gone", "odd"]);
        // It has the content of revision 9, whatever number it knows it under.
        assert_eq!(publisher.standing(Kind::Service, "same").unwrap().live.unwrap().number, 9);
        // Later messages cannot say so.
        let mut later = subscribe(&["late"]);
        later.initial_resource_versions.insert("late".to_owned(), Version::absent(0).to_string());
        ask(&mut publisher, &ack(&response)).unwrap();
        ask(&mut publisher, &later).unwrap();
        assert_eq!(world.send(&mut publisher).unwrap().removed_resources, ["late"]);
    }

    #[test]
    fn who_asks_again_is_sent_it_again() {
        let (mut world, mut publisher) = (World::default(), Publisher::default());
        world.set("a", 1, "1");
        ask(&mut publisher, &subscribe(&["a"])).unwrap();
        let first = world.send(&mut publisher).unwrap();
        ask(&mut publisher, &ack(&first)).unwrap();
        ask(&mut publisher, &subscribe(&["a"])).unwrap();
        assert_eq!(names(&world.send(&mut publisher).unwrap()), ["a"]);
    }

    #[test]
    fn large_sets_come_in_parts() {
        let (mut world, mut publisher) = (World::default(), Publisher::default());
        let content = "x".repeat(RESPONSE_BYTES / 4);
        let all: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        all.iter().for_each(|name| world.set(name, 1, &format!("{name}{content}")));
        ask(&mut publisher, &subscribe(&all.iter().map(|name| &**name).collect::<Vec<_>>())).unwrap();
        let mut counts = Vec::new();
        while let Some(response) = world.send(&mut publisher) {
            counts.push(response.resources.len());
            ask(&mut publisher, &ack(&response)).unwrap();
        }
        assert_eq!(counts, [4, 4, 2]);
    }

    #[test]
    fn requests_against_the_rules_are_refused() {
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        for (request, violation) in [
            (subscribe(&["*"]), BadRequest::Wildcard),
            (subscribe(&[""]), BadRequest::Name),
            (subscribe(&[&long]), BadRequest::Name),
            (
                DeltaRequest { type_url: "t".to_owned(), ..DeltaRequest::default() },
                BadRequest::UnknownType("t".to_owned()),
            ),
        ] {
            assert_eq!(ask(&mut Publisher::default(), &request).unwrap_err(), violation);
        }
        let many: Vec<String> = (0..=MAX_NAMES).map(|number| number.to_string()).collect();
        let many = subscribe(&many.iter().map(|name| &**name).collect::<Vec<_>>());
        assert_eq!(ask(&mut Publisher::default(), &many).unwrap_err(), BadRequest::TooMany);
    }

    #[test]
    fn unsubscribing_and_subscribing_again_at_once_sends_it_once() {
        let (mut world, mut publisher) = (World::default(), Publisher::default());
        world.set("a", 1, "1");
        ask(&mut publisher, &subscribe(&["a"])).unwrap();
        let again = DeltaRequest { resource_names_unsubscribe: vec!["a".to_owned()], ..subscribe(&["a"]) };
        ask(&mut publisher, &again).unwrap();
        let response = world.send(&mut publisher).unwrap();
        assert_eq!(names(&response), ["a"]);
        ask(&mut publisher, &ack(&response)).unwrap();
        assert_eq!(world.send(&mut publisher), None);
    }
}
