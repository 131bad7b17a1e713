//! Endpoints that fail, hang, die and come back: who is asked, and what it costs those who ask.

use rhumb_testkit::client::Client;
use rhumb_testkit::config::Config;
use rhumb_testkit::port;
use rhumb_testkit::process::{Rhumb, serve_script};
use rhumb_testkit::wait;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A backend whose moods can be changed while it runs: it can fail, be slow, and die as a killed process does.
struct Moody {
    address: SocketAddr,
    mood: Arc<Mood>,
    life: Option<Life>,
}

#[derive(Default)]
struct Mood {
    /// Every so many-th request is answered with `status`; 0: none.
    fails_every: AtomicU32,
    status: AtomicU32,
    delay_ms: AtomicU64,
    requests: AtomicU64,
    failed: AtomicU64,
}

/// One run of the backend.
struct Life {
    is_over: Arc<AtomicBool>,
    streams: Arc<Mutex<HashMap<u64, TcpStream>>>,
}

impl Moody {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listening socket");
        let address = listener.local_addr().expect("a bound socket");
        let mood = Arc::new(Mood { status: AtomicU32::new(500), ..Mood::default() });
        let life = Some(live(listener, &mood));
        Self { address, mood, life }
    }

    fn fail_every(&self, n: u32, status: u32) {
        self.mood.status.store(status, Relaxed);
        self.mood.fails_every.store(n, Relaxed);
    }

    fn requests(&self) -> u64 {
        self.mood.requests.load(Relaxed)
    }

    /// What a SIGKILL does: the listening socket is gone and every connection is closed where it stands.
    fn die(&mut self) {
        let Some(life) = self.life.take() else { return };
        life.is_over.store(true, Relaxed);
        // Wakes the accepting thread, which drops the listening socket.
        let _ = TcpStream::connect(self.address);
        for (_, stream) in life.streams.lock().expect("no panic while held").drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        wait::until("the port to be closed", || TcpStream::connect(self.address).is_err().then_some(()));
    }

    fn revive(&mut self) {
        if self.life.is_none() {
            let listener = wait::until("the port to be free", || TcpListener::bind(self.address).ok());
            self.life = Some(live(listener, &self.mood));
        }
    }
}

impl Drop for Moody {
    fn drop(&mut self) {
        self.die();
    }
}

fn live(listener: TcpListener, mood: &Arc<Mood>) -> Life {
    let life = Life { is_over: Arc::default(), streams: Arc::default() };
    let (is_over, streams, mood) = (life.is_over.clone(), life.streams.clone(), mood.clone());
    thread::spawn(move || {
        for (id, stream) in (0u64..).zip(listener.incoming()) {
            let Ok(stream) = stream else { continue };
            let mut open = streams.lock().expect("no panic while held");
            if is_over.load(Relaxed) {
                return;
            }
            open.insert(id, stream.try_clone().expect("a second handle"));
            drop(open);
            let (mood, streams) = (mood.clone(), streams.clone());
            thread::spawn(move || {
                let _ = converse(&stream, &mood);
                let _ = stream.shutdown(Shutdown::Both);
                streams.lock().expect("no panic while held").remove(&id);
            });
        }
    });
    life
}

fn converse(mut stream: &TcpStream, mood: &Mood) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        while line != "\r\n" {
            line.clear();
            if input.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        let nth = mood.requests.fetch_add(1, Relaxed) + 1;
        let delay = mood.delay_ms.load(Relaxed);
        if delay > 0 {
            thread::sleep(Duration::from_millis(delay));
        }
        let fails_every = u64::from(mood.fails_every.load(Relaxed));
        let status = if fails_every > 0 && nth.is_multiple_of(fails_every) {
            mood.failed.fetch_add(1, Relaxed);
            mood.status.load(Relaxed)
        } else {
            200
        };
        write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n")?;
    }
}

/// Three backends behind the proxy.
struct House {
    rhumb: Rhumb,
    port: u16,
    backends: Vec<Moody>,
}

impl House {
    fn new(more: &str) -> Self {
        let backends: Vec<Moody> = (0..3).map(|_| Moody::start()).collect();
        let endpoints: Vec<String> = backends.iter().map(|b| format!("'{}'", b.address)).collect();
        let port = port::free();
        let config = Config::new()
            .listener("web", port, "")
            .backend("b", &format!("endpoints: [{}]{more}", endpoints.join(", ")))
            .route("to: b");
        Self { rhumb: Rhumb::start(&config), port, backends }
    }

    fn client(&self) -> Client {
        Client::connect(SocketAddr::from(([127, 0, 0, 1], self.port)))
    }

    /// A member of an endpoint's state, as the admin listener tells it.
    fn state(&self, index: usize, member: &str) -> String {
        let address = self.backends[index].address.to_string();
        let answer: serde_json::Value =
            serde_json::from_slice(&self.rhumb.admin("/endpoints").content).expect("JSON");
        let endpoints = answer["backends"][0]["endpoints"].as_array().expect("endpoints").clone();
        let endpoint = endpoints.into_iter().find(|e| e["address"] == *address).expect("the endpoint");
        match &endpoint[member] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    fn wait_for_state(&self, index: usize, state: &str) {
        wait::until_within(Duration::from_secs(60), &format!("endpoint {index} to be {state}"), || {
            (self.state(index, "state") == state).then_some(())
        });
    }
}

#[test]
fn a_backend_that_fails_half_of_its_requests_is_out_within_ten_of_them() {
    // Least-busy balancing turns away from 503 by itself; round robin has to be told.
    for (status, more) in [(500, ""), (503, ", loadBalancing: {algorithm: roundRobin}")] {
        let house = House::new(more);
        let mut client = house.client();
        for _ in 0..60 {
            assert_eq!(client.get("x.test", "/").status(), 200);
        }
        let before = house.backends[0].requests();
        house.backends[0].fail_every(2, status);
        // How soon it gets one of them is the balancer's business; how many it gets is what is asked here.
        wait::until_within(Duration::from_secs(60), "the endpoint to be ejected", || {
            for _ in 0..20 {
                client.get("x.test", "/");
            }
            (house.state(0, "state") == "ejected").then_some(())
        });
        let had = house.backends[0].requests() - before;
        assert!(had <= 10, "{status}: {had} requests");
        assert!(house.state(0, "why").contains("failed") || house.state(0, "why").contains("failures"));
        // It is well again: tried, taken back bit by bit, and in full use.
        house.backends[0].fail_every(0, 500);
        let is_done = Arc::new(AtomicBool::new(false));
        let asker = {
            let (is_done, mut client) = (is_done.clone(), house.client());
            thread::spawn(move || {
                while !is_done.load(Relaxed) {
                    assert_eq!(client.get("x.test", "/").status(), 200);
                    thread::sleep(Duration::from_millis(1));
                }
            })
        };
        house.wait_for_state(0, "ramping");
        house.wait_for_state(0, "healthy");
        is_done.store(true, Relaxed);
        asker.join().expect("every request succeeded");
        assert_eq!(house.state(0, "ejections"), "1");
    }
}

#[test]
fn what_all_backends_fail_puts_nobody_out() {
    let house = House::new("");
    house.backends.iter().for_each(|backend| backend.fail_every(1, 500));
    let mut client = house.client();
    for _ in 0..300 {
        assert_eq!(client.get("x.test", "/").status(), 500);
    }
    for index in 0..3 {
        assert_eq!(house.state(index, "state"), "healthy");
    }
}

/// The states of the endpoints of each backend, in order.
fn states(rhumb: &Rhumb, backend: &str) -> Vec<(String, String)> {
    let answer: serde_json::Value = serde_json::from_slice(&rhumb.admin("/endpoints").content).expect("JSON");
    let backends = answer["backends"].as_array().expect("backends");
    let backend =
        backends.iter().find(|b| b["backend"] == *format!("default/{backend}")).expect("the backend");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let endpoints = backend["endpoints"].as_array().expect("endpoints");
    endpoints.iter().map(|e| (text(&e["state"]), text(&e["check"]["detail"]))).collect()
}

#[test]
fn checks_tell_who_is_well() {
    let (well, ill, gone) = (Moody::start(), Moody::start(), port::free());
    ill.fail_every(1, 503);
    let dir = tempfile::tempdir().expect("a directory");
    let grpc = port::free();
    let peer = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/grpc_peer.py");
    let _server = serve_script(peer.as_ref(), &["server"], grpc, &dir.path().join("server.log"));
    let endpoints = format!("endpoints: ['{}', '{}', '127.0.0.1:{gone}']", well.address, ill.address);
    let quick = "interval: 100ms, timeout: 5s, unhealthyThreshold: 2";
    let of_grpc = |service: &str| {
        format!(
            "endpoints: ['127.0.0.1:{grpc}'], protocol: h2c, health: {{type: grpc, service: {service}, {quick}}}"
        )
    };
    let port = port::free();
    let config = Config::new()
        .listener("web", port, "")
        .backend("http", &format!("{endpoints}, health: {{path: /healthz, {quick}}}"))
        .backend("tcp", &format!("{endpoints}, health: {{type: tcp, {quick}}}"))
        .backend("says", &format!("{endpoints}, health: {{type: tcp, send: \"GET / HTTP/1.1\\r\\n\\r\\n\", expect: '200 x', {quick}}}"))
        .backend("serving", &of_grpc("test.Echo"))
        .backend("not-serving", &of_grpc("test.Ill"))
        .backend("unknown", &of_grpc("test.Other"));
    let config = ["http", "tcp", "says", "serving", "not-serving", "unknown"]
        .into_iter()
        .fold(config, |config, name| config.route(&format!("match: {{path: /{name}}}, to: {name}")));
    let rhumb = Rhumb::start(&config);
    let failing = |why: &str| ("failing check".to_owned(), why.to_owned());
    let healthy = || ("healthy".to_owned(), String::new());
    for (backend, expected) in [
        ("http", vec![healthy(), failing("status 503"), failing("connect_refused")]),
        ("tcp", vec![healthy(), healthy(), failing("connect_refused")]),
        ("serving", vec![healthy()]),
        ("not-serving", vec![failing("NOT_SERVING")]),
        ("unknown", vec![failing("grpc status 5: it does not know the service")]),
    ] {
        let looks = || (states(&rhumb, backend) == expected).then_some(());
        if wait::poll(Duration::from_secs(20), looks).is_none() {
            panic!("{backend}: {:?} instead of {expected:?}", states(&rhumb, backend));
        }
    }
    wait::until("the answer to be looked at", || {
        (states(&rhumb, "says")[1].0 == "failing check").then_some(())
    });
    assert_eq!(states(&rhumb, "says")[0], healthy());
    assert!(
        rhumb.metric("rhumb_health_checks_total", &["backend=\"default/http\"", "result=\"fail\""]) >= 2.0
    );

    // Only the one that is well is asked, and who is well again is asked again.
    let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], port)));
    for _ in 0..50 {
        assert_eq!(client.get("x.test", "/http").status(), 200);
    }
    ill.fail_every(0, 200);
    wait::until("the ill one to be well", || (states(&rhumb, "http")[1] == healthy()).then_some(()));
    // A reload that changes something else keeps what the checks have said.
    rhumb.write(&config.top("accessLog: {enabled: false}"));
    rhumb.reload();
    assert_eq!(states(&rhumb, "http")[2].0, "failing check");
}

#[test]
fn a_backup_is_asked_while_the_first_are_ill() {
    let (mut first, backup) = (Moody::start(), Moody::start());
    let port = port::free();
    let endpoints = format!("['{}', {{address: '{}', priority: 1}}]", first.address, backup.address);
    let config = Config::new()
        .listener("web", port, "")
        .backend("b", &format!("endpoints: {endpoints}, health: {{interval: 100ms, unhealthyThreshold: 1}}"))
        .route("to: b");
    let rhumb = Rhumb::start(&config);
    let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], port)));
    wait::until("the first check", || (first.requests() > 0).then_some(()));
    let asked = |moody: &Moody, client: &mut Client| {
        let before = moody.requests();
        for _ in 0..30 {
            assert_eq!(client.get("x.test", "/").status(), 200);
        }
        moody.requests() - before >= 30
    };
    assert!(asked(&first, &mut client));
    first.die();
    wait::until("the first to be ill", || (states(&rhumb, "b")[0].0 == "failing check").then_some(()));
    assert!(asked(&backup, &mut client));
    first.revive();
    wait::until("the first to be well", || (states(&rhumb, "b")[0].0 == "healthy").then_some(()));
    assert!(asked(&first, &mut client));
}

#[test]
fn a_backend_has_no_more_requests_and_connections_than_it_may_have() {
    let peer = rhumb_testkit::backend::Backend::start();
    let port = port::free();
    let body =
        |name: &str, more: &str| (name.to_owned(), format!("endpoints: ['{}'], {more}", peer.address()));
    let config = [
        body("few", "maxRequests: 2"),
        body("one", "maxConnections: 1, maxPendingRequests: 1"),
        body("none", "maxConnections: 1, maxPendingRequests: 0"),
    ]
    .iter()
    .fold(Config::new().listener("web", port, ""), |config, (name, body)| {
        let route = format!("match: {{path: '/*', headers: {{b: '{name}'}}}}, to: {name}");
        config.backend(name, body).route(&route)
    });
    let rhumb = Rhumb::start(&config);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let ask = |backend: &str, target: &str| {
        let mut client = Client::connect(address);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\nb: {backend}\r\n\r\n"));
        client
    };
    let refused = |mut client: Client, limit: &str| {
        let answer = client.response();
        assert_eq!((answer.status(), answer.field("retry-after")), (503, Some("1")), "{limit}");
        assert!(answer.text().contains("backend_limit"), "{answer:?}");
    };
    let refusals = |backend: &str, limit: &str| {
        let (backend, limit) = (format!("backend=\"default/{backend}\""), format!("limit=\"{limit}\""));
        rhumb.metric("rhumb_backend_refused_total", &[&backend, &limit])
    };

    let mut held: Vec<Client> = (0..2).map(|i| ask("few", &format!("/hold/few{i}"))).collect();
    peer.wait_for("/hold/few0");
    peer.wait_for("/hold/few1");
    refused(ask("few", "/bytes/1"), "requests");
    peer.release("few0");
    peer.release("few1");
    held.iter_mut().for_each(|client| assert_eq!(client.response().status(), 200));
    assert_eq!(ask("few", "/bytes/1").response().status(), 200);
    assert_eq!(refusals("few", "requests"), 1.0);

    let mut first = ask("one", "/hold/one");
    peer.wait_for("/hold/one");
    let mut waits = ask("one", "/bytes/7");
    wait::until("a request that waits", || {
        (rhumb.metric("rhumb_backend_pending_requests", &["backend=\"default/one\""]) == 1.0).then_some(())
    });
    refused(ask("one", "/bytes/1"), "pending");
    peer.release("one");
    assert_eq!(first.response().status(), 200);
    assert_eq!(waits.response().content.len(), 7);
    assert_eq!(refusals("one", "connections"), 1.0);
    assert_eq!(rhumb.metric("rhumb_upstream_connections_open", &["backend=\"default/one\""]), 1.0);

    let mut first = ask("none", "/hold/none");
    peer.wait_for("/hold/none");
    refused(ask("none", "/bytes/1"), "pending");
    peer.release("none");
    assert_eq!(first.response().status(), 200);
}

#[test]
fn a_backend_ten_times_slower_than_its_peers_gets_little() {
    let house = House::new("");
    for (backend, delay) in house.backends.iter().zip([5, 5, 50]) {
        backend.mood.delay_ms.store(delay, Relaxed);
    }
    let counts = || {
        let all: u64 = house.backends.iter().map(Moody::requests).sum();
        (house.backends[2].requests(), all)
    };
    let shares = std::iter::repeat_with(|| {
        let before = counts();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = house.client();
                    for _ in 0..400 {
                        assert_eq!(client.get("x.test", "/").status(), 200);
                    }
                });
            }
        });
        let after = counts();
        (after.0 - before.0, after.1 - before.1)
    });
    // While the machine stalls, the peers are no faster than the slow one: that is no ten times then.
    let shares: Vec<_> = shares
        .take(3)
        .scan(false, |is_over, share| {
            let was_over = std::mem::replace(is_over, share.0 * 20 < share.1);
            (!was_over).then_some(share)
        })
        .collect();
    assert!(shares.last().is_some_and(|(slow, all)| slow * 20 < *all), "{shares:?}");
}

#[test]
fn an_endpoint_that_is_taken_out_drains_and_is_remembered() {
    let peers = [0, 1].map(|_| rhumb_testkit::backend::Backend::start());
    let port = port::free();
    let config = |peers: &[&rhumb_testkit::backend::Backend]| {
        let endpoints: Vec<_> = peers.iter().map(|peer| format!("'{}'", peer.address())).collect();
        Config::new()
            .listener("web", port, "")
            .backend("b", &format!("endpoints: [{}]", endpoints.join(", ")))
            .route("to: b")
    };
    let rhumb = Rhumb::start(&config(&[&peers[0]]));
    let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], port)));
    client.send("GET /hold/it HTTP/1.1\r\nHost: x\r\n\r\n");
    peers[0].wait_for("/hold/it");
    let words = |rhumb: &Rhumb| states(rhumb, "b").into_iter().map(|(state, _)| state).collect::<Vec<_>>();
    rhumb.write(&config(&[&peers[1]]));
    rhumb.reload();
    wait::until("the endpoint to drain", || (words(&rhumb) == ["healthy", "draining"]).then_some(()));
    peers[0].release("it");
    assert_eq!(client.response().status(), 200);
    wait::until("the endpoint to be gone", || (words(&rhumb) == ["healthy"]).then_some(()));
    rhumb.write(&config(&[&peers[0]]));
    rhumb.reload();
    let back = peers[0].address().to_string();
    let endpoint = wait::until("the endpoint to be back", || {
        let answer: serde_json::Value =
            serde_json::from_slice(&rhumb.admin("/endpoints").content).expect("JSON");
        let endpoint = answer["backends"][0]["endpoints"][0].clone();
        (endpoint["address"] == *back).then_some(endpoint)
    });
    assert_eq!((&endpoint["state"], &endpoint["succeeded"]), (&"healthy".into(), &1.into()), "{endpoint}");
}

/// How long backends are killed: a minute with `RHUMB_LONG_TESTS`, else a little.
fn killing_time() -> Duration {
    Duration::from_secs(if std::env::var_os("RHUMB_LONG_TESTS").is_some() { 60 } else { 12 })
}

#[test]
fn backends_that_are_killed_cost_no_repeatable_request() {
    // A killed process resets what it was working on: sent again where that is repeatable, and asked for.
    let mut house = House::new(", policies: {retry: {attempts: 3, on: [connectError, reset]}}");
    let address = SocketAddr::from(([127, 0, 0, 1], house.port));
    let (is_done, sent, lost) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    house.backends.iter().for_each(|backend| backend.mood.delay_ms.store(1, Relaxed));
    // By the code of the answer, with the first of each.
    let losses = Mutex::new(HashMap::<String, (u64, String)>::new());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                while !is_done.load(Relaxed) {
                    let answer = client.get("x.test", "/");
                    sent.fetch_add(1, Relaxed);
                    if answer.status() != 200 {
                        lost.fetch_add(1, Relaxed);
                        let problem: serde_json::Value =
                            serde_json::from_slice(&answer.content).unwrap_or_default();
                        let code = problem["code"].as_str().unwrap_or_default().to_owned();
                        let mut losses = losses.lock().expect("no panic while held");
                        losses.entry(code).or_insert_with(|| (0, answer.text())).0 += 1;
                    }
                }
            });
        }
        let begun = Instant::now();
        let mut seed = 7u64;
        let mut died = 0;
        while begun.elapsed() < killing_time() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let index = (seed >> 33) as usize % 3;
            house.backends[index].die();
            died += 1;
            thread::sleep(Duration::from_millis(500));
            house.backends[index].revive();
            thread::sleep(Duration::from_millis(500));
        }
        is_done.store(true, Relaxed);
        assert!(died >= 8, "{died}");
    });
    let (sent, lost) = (sent.into_inner(), lost.into_inner());
    eprintln!("{lost} of {sent} requests lost");
    assert!(lost * 10_000 <= sent, "{lost} of {sent} requests lost: {losses:?}");
}
