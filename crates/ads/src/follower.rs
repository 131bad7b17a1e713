//! A proxy's side of the stream.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::kind::Kind;
use crate::version::Version;
use crate::wire::{DeltaRequest, DeltaResponse, Node, Refusal};

/// `google.rpc.Code.INVALID_ARGUMENT`: what a refusal is called.
const INVALID_ARGUMENT: i32 = 3;

/// What a proxy wants and has, over one stream after the other.
#[derive(Debug)]
pub struct Follower {
    node: Node,
    lanes: [Lane; Kind::ALL.len()],
    /// Which stream this is.
    stream: u64,
    is_node_told: bool,
    answers: VecDeque<Answer>,
    /// The revision that was in force where what was taken over last came from.
    revision: u64,
}

#[derive(Debug, Default)]
struct Lane {
    /// The first message of this type was sent on this stream.
    is_begun: bool,
    names: BTreeMap<Box<str>, Held>,
    /// Names that the control plane has not been asked for on this stream.
    fresh: Vec<Box<str>>,
    /// Names that it was asked for and that are not wanted any more.
    stale: Vec<Box<str>>,
}

/// What is known of one name.
#[derive(Debug, Default)]
struct Held {
    /// What is used, or that there is none.
    version: Option<Version>,
    content: Option<Bytes>,
}

#[derive(Debug)]
struct Answer {
    kind: Kind,
    nonce: String,
    refusal: Option<Refusal>,
}

/// What a response brings. It counts only when it is [accepted](Follower::accept).
#[derive(Debug)]
pub struct Change {
    /// The type.
    pub kind: Kind,
    /// What has come, changed or gone, as far as it is wanted.
    pub items: Vec<Item>,
    /// The revision that was in force at the control plane.
    pub revision: u64,
    nonce: String,
    stream: u64,
}

/// That a change is in use, to be told to who sent it.
#[derive(Debug)]
pub struct Ack {
    kind: Kind,
    stream: u64,
    nonce: String,
}

/// One resource of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The name.
    pub name: Box<str>,
    /// The version.
    pub version: Version,
    /// The content; nothing when there is no such resource.
    pub content: Option<Bytes>,
}

/// A response that is against the rules: the stream is to be ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadResponse {
    /// The type was not asked for.
    #[error("the control plane sends resources of type `{0}`, which were not asked for")]
    UnknownType(String),
    /// A resource has no version that can be read, or no content.
    #[error("the control plane sends `{0}` without a version or content")]
    Malformed(String),
}

impl Follower {
    /// Nothing is wanted yet.
    pub fn new(node: Node) -> Self {
        Self {
            node,
            lanes: Default::default(),
            stream: 0,
            is_node_told: false,
            answers: VecDeque::new(),
            revision: 0,
        }
    }

    /// Wants a resource. False when it is wanted already.
    pub fn want(&mut self, kind: Kind, name: &str) -> bool {
        let lane = self.lane_mut(kind);
        if lane.names.contains_key(name) {
            return false;
        }
        lane.names.insert(name.into(), Held::default());
        // When it was left a moment ago, one message does both: names are left first.
        lane.fresh.push(name.into());
        true
    }

    /// Does not want a resource any more.
    pub fn leave(&mut self, kind: Kind, name: &str) {
        let lane = self.lane_mut(kind);
        if lane.names.remove(name).is_none() {
            return;
        }
        let before = lane.fresh.len();
        lane.fresh.retain(|fresh| **fresh != *name);
        if lane.fresh.len() == before {
            lane.stale.push(name.into());
        }
    }

    /// Brings back what an earlier process used. It is wanted from here on.
    pub fn restore(&mut self, kind: Kind, item: Item) {
        self.want(kind, &item.name);
        self.lane_mut(kind)
            .names
            .insert(item.name, Held { version: Some(item.version), content: item.content });
    }

    /// The revision that was in force where what was taken over last came from. Endpoints follow from documents too, and their
    /// versions do not say from which.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Says which [revision](Self::revision) an earlier process had come to.
    pub fn resume(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// A stream begins: everything that is wanted is asked for, with what is had of it.
    pub fn begin(&mut self) {
        self.stream += 1;
        self.is_node_told = false;
        self.answers.clear();
        for lane in &mut self.lanes {
            lane.is_begun = false;
            lane.stale.clear();
            lane.fresh = lane.names.keys().cloned().collect();
        }
    }

    /// The next message to send. Call it until there is none.
    pub fn request(&mut self) -> Option<DeltaRequest> {
        let mut request = match self.answers.pop_front() {
            Some(answer) => {
                let mut request = self.subscription(answer.kind).unwrap_or_else(|| of_type(answer.kind));
                request.response_nonce = answer.nonce;
                request.error_detail = answer.refusal;
                request
            }
            None => Kind::ALL.into_iter().find_map(|kind| self.subscription(kind))?,
        };
        if !std::mem::replace(&mut self.is_node_told, true) {
            request.node = Some(Node { revision: self.revision, ..self.node.clone() });
        }
        Some(request)
    }

    /// Takes a response.
    ///
    /// # Errors
    /// [`BadResponse`]; nothing has changed then.
    pub fn response(&self, response: DeltaResponse) -> Result<Change, BadResponse> {
        let kind = Kind::of_url(&response.type_url)
            .ok_or_else(|| BadResponse::UnknownType(response.type_url.clone()))?;
        let names = self.lanes.get(kind.index()).map(|lane| &lane.names);
        let is_wanted = |name: &str| names.is_some_and(|names| names.contains_key(name));
        let revision = response.system_version_info.parse().unwrap_or_default();
        let mut items = Vec::with_capacity(response.resources.len() + response.removed_resources.len());
        for resource in response.resources {
            let (Ok(version), Some(any)) = (resource.version.parse(), resource.resource) else {
                return Err(BadResponse::Malformed(resource.name));
            };
            if is_wanted(&resource.name) {
                items.push(Item { name: resource.name.into(), version, content: Some(any.value) });
            }
        }
        for name in response.removed_resources {
            if is_wanted(&name) {
                items.push(Item { name: name.into(), version: Version::absent(revision), content: None });
            }
        }
        Ok(Change { kind, items, revision, nonce: response.nonce, stream: self.stream })
    }

    /// Says that a change is in use: it is what is had from here on. An ack goes out with the next request.
    pub fn accept(&mut self, change: Change) {
        let ack = self.take_over(change);
        self.acknowledge(ack);
    }

    /// The same without the ack, which is to be [given](Self::acknowledge) later: the control plane sends nothing more of the
    /// type until then.
    pub fn take_over(&mut self, change: Change) -> Ack {
        let is_late = change.stream != self.stream;
        self.revision = if is_late { self.revision.max(change.revision) } else { change.revision };
        let lane = self.lane_mut(change.kind);
        for item in change.items {
            let Some(held) = lane.names.get_mut(&item.name) else { continue };
            *held = Held { version: Some(item.version), content: item.content };
            // On this stream something else was said to be had: it has to be sent again.
            if is_late && lane.is_begun && !lane.fresh.contains(&item.name) {
                lane.fresh.push(item.name);
            }
        }
        Ack { kind: change.kind, stream: change.stream, nonce: change.nonce }
    }

    /// Has an ack go out with the next request.
    pub fn acknowledge(&mut self, ack: Ack) {
        self.answer(ack.kind, ack.stream, ack.nonce, None);
    }

    /// Says that a change cannot be used, and why. What is had stays.
    pub fn refuse(&mut self, change: Change, why: String) {
        let refusal = Refusal { code: INVALID_ARGUMENT, message: why };
        self.answer(change.kind, change.stream, change.nonce, Some(refusal));
    }

    /// What is in use, by name; without content where there is no such resource. Names about which nothing is known yet
    /// are not in it.
    pub fn held(&self, kind: Kind) -> impl Iterator<Item = (&str, Version, Option<&Bytes>)> {
        let names = self.lanes.get(kind.index()).into_iter().flat_map(|lane| &lane.names);
        names.filter_map(|(name, held)| Some((&**name, held.version?, held.content.as_ref())))
    }

    /// What is known of one name: nothing, that there is no such resource, or its content.
    pub fn known(&self, kind: Kind, name: &str) -> Option<Option<&Bytes>> {
        let held = self.lanes.get(kind.index())?.names.get(name)?;
        held.version.map(|_| held.content.as_ref())
    }

    /// Every name that is wanted.
    pub fn wanted(&self, kind: Kind) -> impl Iterator<Item = &str> {
        self.lanes.get(kind.index()).into_iter().flat_map(|lane| lane.names.keys().map(|name| &**name))
    }

    /// The number of names that are wanted and about which nothing is known yet.
    pub fn unknown(&self) -> usize {
        let all = self.lanes.iter().flat_map(|lane| lane.names.values());
        all.filter(|held| held.version.is_none()).count()
    }

    fn answer(&mut self, kind: Kind, stream: u64, nonce: String, refusal: Option<Refusal>) {
        // A nonce of an earlier stream means nothing on this one.
        if stream == self.stream {
            self.answers.push_back(Answer { kind, nonce, refusal });
        }
    }

    /// A message with what has to be subscribed to and left, if there is any.
    fn subscription(&mut self, kind: Kind) -> Option<DeltaRequest> {
        let lane = self.lane_mut(kind);
        if lane.fresh.is_empty() && lane.stale.is_empty() {
            return None;
        }
        let is_first = !std::mem::replace(&mut lane.is_begun, true);
        let fresh = std::mem::take(&mut lane.fresh);
        let mut request = of_type(kind);
        if is_first {
            let had = fresh.iter().filter_map(|name| {
                let held = lane.names.get(name)?;
                held.content.as_ref()?;
                Some((name.to_string(), held.version?.to_string()))
            });
            request.initial_resource_versions = had.collect();
        }
        request.resource_names_subscribe = fresh.into_iter().map(String::from).collect();
        request.resource_names_unsubscribe = lane.stale.drain(..).map(String::from).collect();
        Some(request)
    }

    #[expect(clippy::indexing_slicing, reason = "there is a lane for each kind")]
    fn lane_mut(&mut self, kind: Kind) -> &mut Lane {
        &mut self.lanes[kind.index()]
    }
}

fn of_type(kind: Kind) -> DeltaRequest {
    DeltaRequest { type_url: kind.url().to_owned(), ..DeltaRequest::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Publisher;
    use std::collections::HashMap;

    type World = HashMap<&'static str, (Version, Option<Bytes>)>;

    fn world(entries: &[(&'static str, u64, &'static str)]) -> World {
        let entry = |(name, number, content): &(&'static str, u64, &'static str)| {
            let content = Bytes::from_static(content.as_bytes());
            (*name, (Version::of(*number, &content), Some(content)))
        };
        entries.iter().map(entry).collect()
    }

    /// Exchanges messages until both sides are quiet. Gives the names that were sent.
    fn settle(world: &World, follower: &mut Follower, publisher: &mut Publisher) -> Vec<String> {
        let mut sent = Vec::new();
        loop {
            while let Some(request) = follower.request() {
                publisher.request(&request, &mut |name| name.into()).unwrap();
            }
            let find = &mut |_: Kind, name: &str| world.get(name).cloned().unwrap_or_default();
            let Some(response) = publisher.respond(7, find) else { return sent };
            sent.extend(response.resources.iter().map(|resource| resource.name.clone()));
            let change = follower.response(response).unwrap();
            follower.accept(change);
        }
    }

    fn contents(follower: &Follower) -> Vec<(&str, Option<&[u8]>)> {
        follower
            .held(Kind::Service)
            .map(|(name, _, content)| (name, content.map(|content| &content[..])))
            .collect()
    }

    #[test]
    fn a_proxy_has_what_it_wants_after_each_stream_and_is_not_sent_it_twice() {
        let mut follower = Follower::new(Node::default());
        follower.want(Kind::Service, "a");
        follower.want(Kind::Service, "b");
        follower.begin();
        let sent = settle(&world(&[("a", 1, "A")]), &mut follower, &mut Publisher::default());
        assert_eq!(sent, ["a"]);
        assert_eq!(contents(&follower), [("a", Some(&b"A"[..])), ("b", None)]);
        assert_eq!(follower.unknown(), 0);
        follower.begin();
        let now = world(&[("a", 5, "A"), ("b", 6, "B")]);
        assert_eq!(settle(&now, &mut follower, &mut Publisher::default()), ["b"]);
        follower.begin();
        let sent = settle(&World::new(), &mut follower, &mut Publisher::default());
        assert_eq!((sent.len(), contents(&follower)), (0, vec![("a", None), ("b", None)]));
    }

    #[test]
    fn each_stream_begins_with_the_revision_that_is_used() {
        let mut follower = Follower::new(Node::default());
        follower.resume(3);
        for (kind, revision) in [(Kind::Service, 3), (Kind::Endpoints, 7)] {
            follower.want(kind, "a");
            follower.begin();
            let mut publisher = Publisher::default();
            let request = follower.request().unwrap();
            publisher.request(&request, &mut |name| name.into()).unwrap();
            assert_eq!(publisher.had(), revision);
            settle(&world(&[("a", 1, "A")]), &mut follower, &mut publisher);
        }
        assert_eq!(follower.revision(), 7);
    }

    #[test]
    fn what_is_left_and_wanted_again_comes_again() {
        let (mut follower, mut publisher) = (Follower::new(Node::default()), Publisher::default());
        let world = world(&[("a", 1, "A")]);
        follower.want(Kind::Service, "a");
        follower.begin();
        settle(&world, &mut follower, &mut publisher);
        follower.leave(Kind::Service, "a");
        follower.want(Kind::Service, "a");
        assert_eq!(follower.unknown(), 1);
        assert_eq!(settle(&world, &mut follower, &mut publisher), ["a"]);
        follower.leave(Kind::Service, "a");
        settle(&world, &mut follower, &mut publisher);
        assert_eq!(publisher.names().count(), 0);
        follower.want(Kind::Service, "b");
        follower.leave(Kind::Service, "b");
        assert_eq!(follower.request(), None, "nobody was asked for it");
    }

    #[test]
    fn the_first_message_of_a_stream_says_who_asks() {
        let mut follower = Follower::new(Node { id: "me".to_owned(), ..Node::default() });
        follower.want(Kind::Service, "a");
        follower.want(Kind::Endpoints, "a");
        for _ in 0..2 {
            follower.begin();
            assert_eq!(follower.request().unwrap().node.unwrap().id, "me");
            assert_eq!(follower.request().unwrap().node, None);
            assert_eq!(follower.request(), None);
        }
    }

    #[test]
    fn what_is_refused_does_not_replace_what_is_used() {
        let (mut follower, mut publisher) = (Follower::new(Node::default()), Publisher::default());
        follower.want(Kind::Service, "a");
        follower.begin();
        settle(&world(&[("a", 1, "good")]), &mut follower, &mut publisher);
        let bad = world(&[("a", 2, "bad")]);
        publisher.changed(Kind::Service, "a");
        let response = publisher.respond(2, &mut |_, name| bad[name].clone()).unwrap();
        let change = follower.response(response).unwrap();
        follower.refuse(change, "it is bad".to_owned());
        let request = follower.request().unwrap();
        assert_eq!(request.error_detail.as_ref().unwrap().message, "it is bad");
        publisher.request(&request, &mut |name| name.into()).unwrap();
        assert_eq!(contents(&follower), [("a", Some(&b"good"[..]))]);
        assert_eq!(publisher.standing(Kind::Service, "a").unwrap().refused.unwrap().1, "it is bad");
    }

    #[test]
    fn an_ack_does_not_go_to_a_later_stream() {
        let (mut follower, mut publisher) = (Follower::new(Node::default()), Publisher::default());
        let world = world(&[("a", 1, "A")]);
        follower.want(Kind::Service, "a");
        follower.begin();
        publisher.request(&follower.request().unwrap(), &mut |name| name.into()).unwrap();
        let response = publisher.respond(1, &mut |_, name| world[name].clone()).unwrap();
        let change = follower.response(response).unwrap();
        follower.begin();
        follower.accept(change);
        let request = follower.request().unwrap();
        assert_eq!(request.response_nonce, "");
        assert_eq!(follower.request(), None);
        assert_eq!(contents(&follower), [("a", Some(&b"A"[..]))]);
    }

    #[test]
    fn what_is_taken_over_after_the_next_stream_has_begun_is_checked_again() {
        let (mut follower, mut publisher) = (Follower::new(Node::default()), Publisher::default());
        follower.want(Kind::Service, "a");
        follower.begin();
        settle(&world(&[("a", 1, "one")]), &mut follower, &mut publisher);
        let two = world(&[("a", 2, "two")]);
        publisher.changed(Kind::Service, "a");
        let late = publisher.respond(2, &mut |_, name| two[name].clone()).unwrap();
        let late = follower.response(late).unwrap();
        // The next stream is told that it has the first, which holds again; then it takes the second into use.
        let mut next = Publisher::default();
        follower.begin();
        next.request(&follower.request().unwrap(), &mut |name| name.into()).unwrap();
        follower.accept(late);
        settle(&world(&[("a", 3, "one")]), &mut follower, &mut next);
        assert_eq!(contents(&follower), [("a", Some(&b"one"[..]))]);
    }

    #[test]
    fn a_process_goes_on_from_what_the_last_one_had() {
        let mut follower = Follower::new(Node::default());
        let content = Bytes::from_static(b"A");
        let item = Item { name: "a".into(), version: Version::of(1, &content), content: Some(content) };
        follower.restore(Kind::Service, item);
        follower.begin();
        let sent = settle(&world(&[("a", 9, "A")]), &mut follower, &mut Publisher::default());
        assert_eq!(sent.len(), 0);
        assert_eq!(contents(&follower), [("a", Some(&b"A"[..]))]);
    }

    #[test]
    fn responses_against_the_rules_are_told() {
        let follower = Follower::new(Node::default());
        let response = DeltaResponse { type_url: "t".to_owned(), ..DeltaResponse::default() };
        assert_eq!(follower.response(response).unwrap_err(), BadResponse::UnknownType("t".to_owned()));
        let resource =
            crate::wire::Resource { version: "x".to_owned(), resource: None, name: "a".to_owned() };
        let response = DeltaResponse {
            type_url: Kind::Service.url().to_owned(),
            resources: vec![resource],
            ..DeltaResponse::default()
        };
        assert_eq!(follower.response(response).unwrap_err(), BadResponse::Malformed("a".to_owned()));
    }
}
