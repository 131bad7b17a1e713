//! How much may come in a month, and at a time.

use crate::gate::{Gate, json, local, problem};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::client::Client;
use rhumb_testkit::config::Config;
use rhumb_testkit::message::Kind;
use rhumb_testkit::process::{Redis, Rhumb};
use rhumb_testkit::{port, wait};
use rustix::process::Signal;
use std::net::SocketAddr;

/// A proxy in front of the backend with this policy.
fn proxy(backend: &Backend, policy: &str) -> (Rhumb, SocketAddr) {
    let port = port::free();
    let peer = format!("endpoints: ['{}']", backend.address());
    let route = format!("match: {{path: '/*'}}, to: peer, policies: {{{policy}}}");
    let config =
        Config::new().top("workers: 2").listener("web", port, "").backend("peer", &peer).route(&route);
    (Rhumb::start(&config), local(port))
}

/// How many requests pass, one after the other, until `most` have or one is refused for the quota.
fn passed(proxy: SocketAddr, most: u32) -> u32 {
    let mut client = Client::connect(proxy);
    for count in 0..most {
        let response = client.get("a.test", "/bytes/1");
        match response.status() {
            200 => {}
            429 => return count,
            _ => panic!("{response:?}"),
        }
    }
    most
}

#[test]
fn a_quota_of_1000_is_1000_through_kills_and_reloads() {
    let (backend, state) = (Backend::start(), tempfile::tempdir().expect("a directory"));
    let quota = format!(
        "quota: {{limit: 1000/year, per: '\"all\"', store: {{disk: {{directory: '{}'}}}}}}",
        state.path().display()
    );
    let mut total = 0;
    for most in [333, 1, 250] {
        let (rhumb, address) = proxy(&backend, &quota);
        total += passed(address, most);
        rhumb.reload();
        total += passed(address, 50);
        rhumb.signal(Signal::KILL);
    }
    let (rhumb, address) = proxy(&backend, &quota);
    total += passed(address, 2000);
    assert_eq!(total, 1000);
    let refused = Client::connect(address).get("a.test", "/bytes/1");
    assert_eq!((refused.status(), problem(&refused).as_str()), (429, "quota_exceeded"));
    assert_eq!(json(&refused)["detail"], "The quota `quota` allows 1000 per year.");
    assert_eq!(refused.field("ratelimit-policy"), Some("\"quota\";q=1000;w=31536000"));
    assert!(refused.field("ratelimit").unwrap().starts_with("\"quota\";r=0;t="), "{refused:?}");
    let after: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=366 * 86_400).contains(&after), "{after}");
    // Killed when nothing is left, nothing is left.
    rhumb.signal(Signal::KILL);
    assert_eq!(passed(proxy(&backend, &quota).1, 10), 0);
}

#[test]
fn a_process_and_its_successor_share_what_is_left() {
    let (backend, state) = (Backend::start(), tempfile::tempdir().expect("a directory"));
    let quota = format!(
        "quota: {{limit: 300/year, per: '\"all\"', store: {{disk: {{directory: '{}'}}}}}}",
        state.path().display()
    );
    let (first, one) = proxy(&backend, &quota);
    let (second, two) = proxy(&backend, &quota);
    let mut total = passed(one, 40) + passed(two, 40) + passed(one, 20);
    drop(first);
    total += passed(two, 30);
    drop(second);
    // Two processes at a time hold leases of each other's: what ended is found by the next.
    let (_third, three) = proxy(&backend, &quota);
    total += passed(three, 1000);
    assert_eq!(total, 300);
}

#[test]
fn proxies_with_one_redis_share_a_quota() {
    let (backend, redis) = (Backend::start(), Redis::start());
    let quota = format!(
        "quota: {{limit: 200/month, per: '\"all\"', rolling: true, store: {{redis: {{url: '{}'}}}}}}",
        redis.url()
    );
    let proxies = [proxy(&backend, &quota), proxy(&backend, &quota)];
    let mut total = 0;
    for _ in 0..30 {
        for (_, address) in &proxies {
            total += passed(*address, 5);
        }
    }
    assert!(total <= 200, "{total}");
    // The last ones of a lease that the other proxy has are its own for a while.
    assert!(total >= 180, "{total}");
}

#[test]
fn without_its_store_a_quota_refuses_or_lets_pass_as_written() {
    let backend = Backend::start();
    let quota = |away: &str| {
        format!(
            "quota: {{limit: 10/day, whenStoreIsAway: {away}, store: {{disk: {{directory: /proc/nowhere}}}}}}"
        )
    };
    let (_refuses, address) = proxy(&backend, &quota("Refuse"));
    let refused = Client::connect(address).get("a.test", "/bytes/1");
    assert_eq!((refused.status(), problem(&refused).as_str()), (503, "store_away"));
    let (_allows, address) = proxy(&backend, &quota("Allow"));
    assert_eq!(passed(address, 20), 20);
}

#[test]
fn so_many_requests_are_under_way_and_no_more() {
    let gate = Gate::with(|config| {
        config
            .route(
                "match: {path: '/hold/q'}, to: peer, policies: {concurrency: {limit: 1, per: '\"q\"', \
                 queue: {size: 1, time: 30s}}}",
            )
            .route(
                "match: {path: '/*'}, to: peer, policies: {concurrency: {limit: 2, \
                 per: 'request.headers[\"x-user\"]'}}",
            )
    });
    let ask = |target: &str, user: &str| {
        let mut client = gate.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nX-User: {user}\r\n\r\n"));
        client
    };
    let mut held = [ask("/hold/a", "ann"), ask("/hold/b", "ann")];
    gate.backend.wait_for("/hold/a");
    gate.backend.wait_for("/hold/b");
    let refused = ask("/bytes/1", "ann").response();
    assert_eq!((refused.status(), problem(&refused).as_str()), (429, "concurrency_limited"));
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert_eq!(ask("/bytes/1", "bob").response().status(), 200);
    // Who leaves gives up its place, as who is answered does.
    drop(held);
    wait::until("a place is free", || (ask("/bytes/1", "ann").response().status() == 200).then_some(()));
    held = [ask("/hold/q", "ann"), ask("/hold/q", "bob")];
    gate.backend.wait_for("/hold/q");
    wait::until("the queue is full", || {
        let refused = ask("/hold/q", "cyd");
        refused.stream().set_read_timeout(Some(std::time::Duration::from_millis(200))).expect("a socket");
        let mut refused = refused;
        let answer = refused.try_response(Kind::Response).ok()?;
        (answer.status() == 429).then_some(())
    });
    gate.backend.release("q");
    held.iter_mut().for_each(|client| assert_eq!(client.response().status(), 200));
}

#[test]
fn the_plan_of_a_consumer_says_how_much_and_who_is_unknown_uses_nothing() {
    let state = tempfile::tempdir().expect("a directory");
    let gate = Gate::with(|config| {
        config
            .top(
                "consumers: {acme: {plan: gold, credentials: {apiKeys: [{key: first-key-of-acme}, {key: other-key-of-acme}]}}, \
                 bolt: {credentials: {apiKeys: [{key: only-key-of-bolt}]}}}",
            )
            .route(&format!(
                "match: {{path: '/*'}}, to: peer, policies: {{apiKey: {{}}, quota: {{limit: 2/year, plans: {{gold: 4/year}}, \
                 store: {{disk: {{directory: '{}'}}}}}}}}",
                state.path().display()
            ))
    });
    let ask = |key: &str| {
        gate.connect().exchange(format!("GET /bytes/1 HTTP/1.1\r\nHost: a.test\r\nX-Api-Key: {key}\r\n\r\n"))
    };
    let statuses = |key: &str, count: usize| (0..count).map(|_| ask(key).status()).collect::<Vec<_>>();
    assert_eq!(statuses("only-key-of-bolt", 3), [200, 200, 429]);
    assert_eq!(statuses("no-key-of-anybody", 3), [401, 401, 401]);
    // Both keys are of one consumer.
    assert_eq!(statuses("first-key-of-acme", 3), [200, 200, 200]);
    assert_eq!(statuses("other-key-of-acme", 2), [200, 429]);
    let detail = json(&ask("first-key-of-acme"))["detail"].clone();
    assert_eq!(detail, "The quota `quota` allows 4 per year on plan `gold`.");
}
