//! Leaving without breaking anything, and changes of the plan under load.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rhumb_proxy::worker::Command;
use rhumb_testkit::client::Client;
use rhumb_testkit::{h2, wait};

use crate::support::{Listener, Setup, connect};

/// Far longer than any test runs: a worker that waits for it has not noticed that its connections are gone.
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn a_resting_connection_is_closed_and_a_busy_one_finishes_first() {
    let backend = Listener::new();
    let mut proxy = Setup::to(backend.address()).start();
    let (mut resting, mut busy) = (Client::connect(proxy.address), Client::connect(proxy.address));
    resting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut peer = backend.accept();
    peer.answer("ok");
    assert_eq!(resting.response().field("connection"), None);
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    peer.request();
    proxy.drain(LONG);
    assert_eq!(resting.read_to_end(), b"");
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let response = busy.response();
    assert_eq!((&response.content[..], response.field("connection")), (&b"ok"[..], Some("close")));
    assert_eq!(busy.read_to_end(), b"");
    proxy.wait();
}

#[test]
fn an_http_2_connection_is_told_to_go_and_serves_what_is_on_the_way() {
    let backend = Listener::new();
    let mut proxy = Setup::to(backend.address()).start();
    let mut client = h2::Connection::open(proxy.address, &[]);
    client.send(&h2::headers(1, &h2::get("a", "/1", &[]), true));
    let mut first = backend.accept();
    first.request();
    client.polite = false;
    proxy.drain(LONG);
    // The first GOAWAY excludes nothing; what crosses it on the wire is served.
    let mut ping = None;
    let mut has_goaway = false;
    while ping.is_none() {
        let frame = client.frame().unwrap();
        has_goaway |= frame.kind == h2::kind::GOAWAY;
        if frame.kind == h2::kind::PING {
            ping = Some(frame.payload);
        }
    }
    assert!(has_goaway);
    client.send(&h2::headers(3, &h2::get("a", "/3", &[]), true));
    let mut second = backend.accept();
    assert_eq!(second.request().target(), "/3");
    client.send(&h2::frame(h2::kind::PING, h2::ACK, 0, &ping.unwrap()));
    client.polite = true;
    for (peer, stream) in [(&mut first, 1), (&mut second, 3)] {
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.answer(stream).unwrap().content, b"ok");
    }
    assert_eq!(client.until_closed(), None);
    proxy.wait();
}

#[test]
fn what_is_cut_at_the_end_of_a_drain_is_recorded() {
    let backend = Listener::new();
    let mut proxy = Setup::to(backend.address()).start();
    let mut client = connect(proxy.address);
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut other = h2::Connection::open(proxy.address, &[]);
    other.send(&h2::headers(1, &h2::get("a", "/2", &[]), true));
    wait::until("both requests are under way", || (proxy.active() == 2.0).then_some(()));
    proxy.drain(Duration::ZERO);
    proxy.wait();
    client.rest();
    let records = proxy.records(2);
    assert!(records.iter().all(|record| record["failure_code"] == "shutting_down"), "{records:?}");
    assert_eq!(proxy.active(), 0.0);
}

#[test]
fn no_request_fails_while_plans_are_swapped() {
    let (one, two) = (Listener::new(), Listener::new());
    let mut setups = [Setup::to(one.address()), Setup::to(two.address())];
    setups[1].revision = 2;
    let proxy = setups[0].start();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (backend, name) in [(&one, "one"), (&two, "two")] {
            let is_over = &is_over;
            scope.spawn(move || {
                // Connections are served one after the other and answered at once: each client keeps one request open.
                let mut peers = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    if let Some(peer) = backend.try_accept() {
                        peer.stream.set_nonblocking(true).unwrap();
                        peers.push(peer);
                    }
                    for peer in &mut peers {
                        peer.answer_if_asked(name);
                    }
                    std::thread::yield_now();
                }
            });
        }
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::connect(proxy.address);
                    let mut h2_client = h2::Connection::open(proxy.address, &[]);
                    let mut seen = [0; 2];
                    for round in 0..200u32 {
                        let response = client.get("a", "/");
                        assert_eq!(response.status(), 200);
                        seen[usize::from(response.content == b"two")] += 1;
                        let stream = 2 * round + 1;
                        h2_client.send(&h2::headers(stream, &h2::get("a", "/", &[]), true));
                        assert_eq!(h2_client.answer(stream).unwrap().status, 200);
                    }
                    seen
                })
            })
            .collect();
        let mut revision = 2;
        while !clients.iter().all(|client| client.is_finished()) {
            revision += 1;
            let mut setup = setups[revision as usize % 2].clone();
            setup.revision = revision;
            proxy.swap(&setup);
            std::thread::yield_now();
        }
        is_over.store(true, Ordering::Relaxed);
        let seen = clients.into_iter().map(|client| client.join().unwrap());
        let total = seen.fold([0, 0], |all, seen| [all[0] + seen[0], all[1] + seen[1]]);
        assert!(total[0] > 0 && total[1] > 0, "{total:?}");
    });
    let records = proxy.records(1200);
    assert!(records.iter().all(|record| record["status"] == 200), "a request failed");
}

#[test]
fn a_connection_that_waits_to_be_accepted_is_served_before_the_port_closes() {
    let backend = Listener::new();
    let mut client = None;
    let mut proxy = Setup::to(backend.address()).start_after(|address, commands| {
        let mut waiting = Client::connect(address);
        waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client = Some(waiting);
        assert!(commands.send(Command::Drain(Instant::now() + LONG)).is_ok());
    });
    backend.accept().answer("ok");
    let response = client.as_mut().unwrap().response();
    assert_eq!((&response.content[..], response.field("connection")), (&b"ok"[..], Some("close")));
    drop(client);
    proxy.wait();
}
