//! A proxy that comes from a control plane which had more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rhumb_ads::wire::Node;
use rhumb_ads::{Follower, Kind};
use rhumb_control::caller::Caller;
use rhumb_control::core::{Core, StreamId};
use rhumb_control::document::{Document, Key};

const SERVICE: &str = "shop/orders";

fn say(core: &mut Core, revision: u64, text: &str) {
    let json = format!(
        r#"{{"kind":"Service","metadata":{{"name":"orders","namespace":"shop","annotations":{{"text":"{text}"}}}}}}"#
    );
    let document = Document::parse(Bytes::from(json), revision).unwrap();
    core.commit(revision, [(Key::new("Service", "shop", "orders"), Some(Arc::new(document)))]);
}

/// Everything that can be said both ways. What the proxy uses then.
fn talk(core: &mut Core, stream: StreamId, follower: &mut Follower) -> String {
    loop {
        while let Some(request) = follower.request() {
            core.request(stream, &request).unwrap();
        }
        let Some(response) = core.respond(stream).unwrap() else { break };
        let change = follower.response(response).unwrap();
        follower.accept(change);
    }
    let content = follower.known(Kind::Service, SERVICE).flatten();
    content.map(|content| String::from_utf8_lossy(content).into_owned()).unwrap_or_default()
}

fn connect(core: &mut Core, follower: &mut Follower, at: Instant) -> (String, StreamId) {
    follower.begin();
    let stream = core.open(Caller::Trusted, at);
    (talk(core, stream, follower), stream)
}

#[test]
fn who_is_behind_takes_nothing_back_until_it_is_known_that_there_is_no_more() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let (mut first, mut second, mut third) = (Core::new(1), Core::new(1), Core::new(1));
    let mut follower = Follower::new(Node::default());
    follower.want(Kind::Service, SERVICE);
    say(&mut first, 1, "allowed");
    say(&mut first, 2, "forbidden");
    assert!(connect(&mut first, &mut follower, now).0.contains("forbidden"));

    say(&mut second, 1, "allowed");
    second.confirm(now);
    let (used, stream) = connect(&mut second, &mut follower, later);
    assert!(used.contains("forbidden"), "{used}");
    // What was found out before the proxy came says nothing of what it had by then.
    second.confirm(later);
    assert!(talk(&mut second, stream, &mut follower).contains("forbidden"));
    say(&mut second, 2, "forbidden");
    assert!(second.take_woken().contains(&stream));
    say(&mut second, 3, "allowed again");
    assert!(talk(&mut second, stream, &mut follower).contains("again"));

    // A store that was set back: there is no later revision.
    say(&mut third, 1, "restored");
    third.confirm(now);
    let (used, stream) = connect(&mut third, &mut follower, later);
    assert!(used.contains("again"), "{used}");
    third.confirm(later + Duration::from_millis(1));
    assert!(third.take_woken().contains(&stream));
    assert!(talk(&mut third, stream, &mut follower).contains("restored"));
}
