//! What protects backends: sizes, circuits, load and bandwidth.

use crate::gate::{Gate, json, problem};
use rhumb_testkit::client::Client;
use rhumb_testkit::message::Message;
use rhumb_testkit::wait;
use std::time::{Duration, Instant};

fn ask(gate: &Gate, request: &str) -> Message {
    gate.connect().exchange(request)
}

fn get(gate: &Gate, target: &str) -> Message {
    gate.connect().get("a.test", target)
}

#[test]
fn what_is_too_large_is_refused_announced_or_not() {
    let gate = Gate::with(|config| {
        config
            .route("match: {path: '/strict/*'}, to: peer, policies: {sizeLimit: {requireLength: true}}")
            .route(
                "match: {path: '/*'}, to: peer, policies: {sizeLimit: {content: 10, target: 40, fields: 5}}",
            )
    });
    let announced = ask(&gate, "POST /a HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\n\r\nhello world");
    assert_eq!((announced.status(), problem(&announced).as_str()), (413, "content_too_large"));
    let counted = ask(
        &gate,
        "POST /a HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n",
    );
    assert_eq!(counted.status(), 413);
    let small = ask(
        &gate,
        "POST /a HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    assert_eq!((small.status(), &json(&small)["content"]), (200, &"hello".into()));
    assert_eq!(get(&gate, &format!("/{}", "x".repeat(40))).status(), 414);
    let many = "X-A: 1\r\n".repeat(6);
    assert_eq!(ask(&gate, &format!("GET /a HTTP/1.1\r\nHost: a.test\r\n{many}\r\n")).status(), 431);
    let chunked = "POST /strict/a HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let refused = ask(&gate, chunked);
    assert_eq!((refused.status(), problem(&refused).as_str()), (411, "length_required"));
    assert_eq!(get(&gate, "/strict/a").status(), 200);
}

#[test]
fn a_circuit_opens_is_probed_and_closes() {
    let gate = Gate::with(|config| {
        config.route(
            "to: peer, policies: {circuitBreaker: {open: 'requests >= 5 && errorRatio > 0.5', pause: 1s, ramp: 100ms}}",
        )
    });
    wait::until("the circuit opens", || {
        let response = get(&gate, "/status/500");
        let is_open = response.status() == 503;
        if is_open {
            assert_eq!(problem(&response), "circuit_open");
            assert_eq!(response.field("retry-after"), Some("1"));
        }
        is_open.then_some(())
    });
    let before = gate.backend.seen().len();
    assert_eq!(get(&gate, "/status/200").status(), 503);
    assert_eq!(gate.backend.seen().len(), before, "an open circuit asks nobody");
    wait::until("the circuit closes", || (get(&gate, "/status/200").status() == 200).then_some(()));
    wait::until("all pass again", || {
        (0..20).all(|_| get(&gate, "/status/200").status() == 200).then_some(())
    });
    let told = |kind: &str| {
        wait::until(kind, || {
            let events = json(&gate.rhumb.admin(&format!("/api/v1/events?kind={kind}")));
            events["events"].as_array().filter(|events| !events.is_empty()).map(|events| events[0].clone())
        })
    };
    assert_eq!(told("breaker_opened")["level"], "error");
    assert_eq!(told("breaker_closed")["level"], "info");
    assert!(gate.rhumb.metric("rhumb_breaker_openings_total", &[]) >= 1.0);
}

#[test]
fn when_there_is_too_much_to_do_the_dearest_still_pass() {
    let gate = Gate::with(|config| {
        config.route(
            "match: {path: '/*'}, to: peer, policies: {loadShedding: {min: 10, max: 10, high: 'request.query.dear == \"1\"'}}",
        )
    });
    let _held: Vec<Client> = (0..9)
        .map(|n| {
            let mut client = gate.connect();
            client.send(format!("GET /hold/{n} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            gate.backend.wait_for(&format!("/hold/{n}"));
            client
        })
        .collect();
    let refused = get(&gate, "/bytes/1");
    assert_eq!((refused.status(), problem(&refused).as_str()), (503, "load_shed"));
    assert_eq!(get(&gate, "/bytes/1?dear=1").status(), 200);
}

#[test]
fn responses_of_one_key_share_a_line() {
    let gate = Gate::with(|config| {
        config.route("match: {path: '/*'}, to: peer, policies: {bandwidth: {response: 100k, per: '\"all\"'}}")
    });
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(get(&gate, "/bytes/20000").content.len(), 20_000));
        }
    });
    // 80 kB at 100 kB/s, the first pieces for nothing.
    assert!(begun.elapsed() > Duration::from_millis(600), "{:?}", begun.elapsed());
}
