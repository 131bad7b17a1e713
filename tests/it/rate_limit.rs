//! How much may come how fast.

use crate::gate::{Gate, json, local, problem};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::client::Client;
use rhumb_testkit::config::Config;
use rhumb_testkit::load::Load;
use rhumb_testkit::message::Message;
use rhumb_testkit::process::{Redis, Rhumb};
use rhumb_testkit::{port, wait};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

fn ask(gate: &Gate, target: &str, fields: &str) -> Message {
    gate.connect().exchange(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"))
}

#[test]
fn what_is_too_much_is_refused_and_told() {
    let gate = Gate::with(|config| {
        config.route(
            "to: peer, policies: {rateLimit: {limits: [\
             {name: few, limit: 5/h, per: 'request.headers[\"x-user\"]'},\
             {name: all, limit: {requests: 8, per: 1h}, per: '\"\"', algorithm: slidingWindow}]}}",
        )
    });
    let of = |user: &str| ask(&gate, "/bytes/1", &format!("X-User: {user}\r\n"));
    let first = of("ann");
    assert_eq!(first.status(), 200);
    assert_eq!(first.field("ratelimit-policy"), Some("\"few\";q=5;w=3600, \"all\";q=8;w=3600"));
    assert!(first.field("ratelimit").unwrap().starts_with("\"few\";r=4;t=720, \"all\";r=7;t="), "{first:?}");
    let statuses: Vec<u16> = (0..9).map(|_| of("ann").status()).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 429, 429, 429, 429, 429]);
    let refused = of("ann");
    assert_eq!((refused.status(), problem(&refused).as_str()), (429, "rate_limited"));
    assert_eq!(json(&refused)["detail"], "The limit `few` allows 5 in 3600s.");
    let after: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((700..=720).contains(&after), "{after}");
    // Nothing of what was refused was taken from the other limit.
    let statuses: Vec<u16> = (0..4).map(|_| of("bob").status()).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);
    assert_eq!(json(&of("bob"))["detail"], "The limit `all` allows 8 in 3600s.");
}

#[test]
fn limits_survive_a_reload_and_gateways_and_routes_count_for_themselves() {
    let route = |more: &str| {
        format!(
            "match: {{path: '/a/*'}}, to: peer, policies: {{rateLimit: {{limits: [{{limit: 2/h}}]}}{more}}}"
        )
    };
    let gate = Gate::with(|config| {
        config
            .top("policies: {rateLimit: {limits: [{name: gateway, limit: 6/h}]}}")
            .route(&route(""))
            .route("match: {path: '/*'}, to: peer")
    });
    let status = |target: &str| ask(&gate, target, "").status();
    assert_eq!([status("/a/bytes/1"), status("/a/bytes/1"), status("/a/bytes/1")], [200, 200, 429]);
    gate.rhumb.reload();
    assert_eq!(status("/a/bytes/1"), 429);
    let policies = ask(&gate, "/a/bytes/1", "");
    let told: Vec<&str> = policies
        .fields
        .iter()
        .filter(|(name, _)| name == "ratelimit")
        .map(|(_, value)| value.as_str())
        .collect();
    assert!(told[0].starts_with("\"limit-0\";r=0;") && told[1].starts_with("\"gateway\";r=1;"), "{told:?}");
    // What the gateway's limit admitted is used, whatever the route's said.
    assert_eq!([status("/bytes/1"), status("/bytes/1")], [200, 429]);
}

#[test]
fn requests_are_held_back_when_they_may_be() {
    let gate = Gate::with(|config| {
        config.route(
            "to: peer, policies: {rateLimit: {limits: [{limit: 20/s, burst: 1, delay: 30s, per: '\"\"'}]}}",
        )
    });
    let begun = Instant::now();
    let mut client: Client = gate.connect();
    for _ in 0..11 {
        assert_eq!(client.get("a.test", "/bytes/1").status(), 200);
    }
    assert!(begun.elapsed().as_millis() >= 450, "{:?}", begun.elapsed());
}

#[test]
fn grpc_clients_are_told_that_a_resource_is_exhausted() {
    let gate = Gate::with(|config| config.route("to: peer, policies: {rateLimit: {limits: [{limit: 1/h}]}}"));
    let call = || {
        gate.connect().exchange(
            "POST /bytes/1 HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/grpc\r\nTE: trailers\r\nContent-Length: 0\r\n\r\n",
        )
    };
    assert_eq!(call().status(), 200);
    let refused = call();
    assert_eq!((refused.status(), refused.field("grpc-status")), (200, Some("8")));
}

/// A proxy in front of the backend with this `rateLimit`.
fn proxy(backend: &Backend, policy: &str) -> (Rhumb, SocketAddr) {
    let port = port::free();
    let peer = format!("endpoints: ['{}']", backend.address());
    let route = format!("match: {{path: '/*'}}, to: peer, policies: {{{policy}}}");
    let config =
        Config::new().top("workers: 1").listener("web", port, "").backend("peer", &peer).route(&route);
    (Rhumb::start(&config), local(port))
}

fn status(proxy: SocketAddr) -> u16 {
    Client::connect(proxy).get("a.test", "/bytes/1").status()
}

#[test]
fn two_proxies_count_together_and_give_back_what_they_do_not_use() {
    let (backend, redis) = (Backend::start(), Redis::start());
    for algorithm in ["gcra", "fixedWindow"] {
        // A day: its end is far enough away, but for one run in thousands.
        let limit = format!(
            "rateLimit: {{store: {{redis: {{url: '{}', prefix: '{algorithm}:'}}}}, limits: \
             [{{limit: 40/d, per: '\"all\"', algorithm: {algorithm}}}]}}",
            redis.url()
        );
        let proxies = [proxy(&backend, &limit), proxy(&backend, &limit)];
        let (mut admitted, mut refused_in_a_row) = (0, 0);
        while refused_in_a_row < 6 {
            for (_, address) in &proxies {
                match status(*address) {
                    200 => (admitted, refused_in_a_row) = (admitted + 1, 0),
                    429 => refused_in_a_row += 1,
                    other => panic!("{other}"),
                }
            }
            assert!(admitted <= 40, "{algorithm}: more than the limit");
        }
        // A proxy may still hold a lease of two that the other one cannot have.
        assert!(admitted >= 36, "{algorithm}: {admitted}");
        let trips = proxies[0].0.metric("rhumb_store_leases_total", &[]);
        assert!(trips >= 1.0, "{trips}");
    }
}

#[test]
fn two_proxies_under_load_admit_what_is_allowed_together() {
    let (backend, redis) = (Backend::start(), Redis::start());
    let limit = format!(
        "rateLimit: {{store: {{redis: {{url: '{}'}}}}, limits: [{{limit: 200/s, burst: 100, per: '\"all\"'}}]}}",
        redis.url()
    );
    let proxies = [proxy(&backend, &limit), proxy(&backend, &limit)];
    let begun = Instant::now();
    let judge = |message: &Message| (message.status() != 200).then(|| message.status().to_string());
    let request = "GET /bytes/1 HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let loads: Vec<Load> =
        proxies.iter().map(|(_, address)| Load::start(*address, 8, request, judge)).collect();
    while begun.elapsed() < Duration::from_secs(4) {
        loads.iter().for_each(|load| load.wait_more(50));
    }
    let reports: Vec<_> = loads.into_iter().map(Load::stop).collect();
    let seconds = begun.elapsed().as_secs_f64();
    let admitted: u64 = reports.iter().map(|report| report.good).sum();
    let allowed = 100.0 + 200.0 * seconds;
    // Never more than allowed and what is leased ahead: a tenth of a second.
    assert!(admitted as f64 <= allowed + 20.0, "{admitted} in {seconds} s");
    assert!(admitted as f64 >= allowed * 0.8, "{admitted} in {seconds} s");
    let others = reports.iter().flat_map(|report| &report.failures).filter(|why| *why != "429");
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&String>::new());
    // A lease is for many requests.
    let done: u64 = reports.iter().map(|report| report.good + report.failed).sum();
    let asked: f64 = proxies.iter().map(|(rhumb, _)| rhumb.metric("rhumb_store_leases_total", &[])).sum();
    assert!(asked * 4.0 < done as f64, "{asked} leases for {done} requests");
}

#[test]
fn without_its_store_a_proxy_does_what_is_written_and_recovers_alone() {
    let backend = Backend::start();
    let mut redis = Redis::start();
    let limit = |away: &str| {
        format!(
            "rateLimit: {{store: {{redis: {{url: '{}', prefix: '{away}:'}}}}, whenStoreIsAway: {away}, \
             limits: [{{limit: 1000000/s, burst: 5, per: request.path, name: {away}}}]}}",
            redis.url()
        )
    };
    let (local_share, refuses) = (proxy(&backend, &limit("Local")), proxy(&backend, &limit("Refuse")));
    assert_eq!([status(local_share.1), status(refuses.1)], [200, 200]);
    let request = "GET /bytes/1 HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let judge = |allowed: &'static [u16]| {
        move |message: &Message| (!allowed.contains(&message.status())).then(|| message.status().to_string())
    };
    let loads = [
        Load::start(local_share.1, 2, request, judge(&[200, 429])),
        Load::start(refuses.1, 2, request, judge(&[200, 429, 503])),
    ];
    loads.iter().for_each(|load| load.wait_more(100));
    // Standing still, then dead, then back with nothing in it.
    redis.signal(rustix::process::Signal::STOP);
    wait::until("the store is missed", || {
        (refuses.0.metric("rhumb_store_away", &[]) == 1.0
            && local_share.0.metric("rhumb_store_away", &[]) == 1.0)
            .then_some(())
    });
    let refused = Client::connect(refuses.1).get("a.test", "/bytes/2");
    assert_eq!((refused.status(), problem(&refused).as_str()), (503, "store_away"));
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert_eq!(Client::connect(local_share.1).get("a.test", "/bytes/2").status(), 200);
    loads.iter().for_each(|load| load.wait_more(100));
    redis.kill();
    loads.iter().for_each(|load| load.wait_more(100));
    redis.restart();
    wait::until("the store is found again", || {
        (refuses.0.metric("rhumb_store_away", &[]) == 0.0
            && local_share.0.metric("rhumb_store_away", &[]) == 0.0)
            .then_some(())
    });
    wait::until("requests pass again", || (status(refuses.1) == 200).then_some(()));
    loads.iter().for_each(|load| load.wait_more(100));
    for load in loads {
        let report = load.stop();
        assert_eq!(report.failed, 0, "{:?}", report.first());
    }
}
