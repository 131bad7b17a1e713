//! Bounds that are hit, and what happens when there is too much: each is counted, refused in order, and over soon.

use crate::gate::{Gate, json, local, problem};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::cert::Authority;
use rhumb_testkit::client::{self, Client};
use rhumb_testkit::config::Config;
use rhumb_testkit::h2::{self, Connection, kind};
use rhumb_testkit::load::Load;
use rhumb_testkit::message::Message;
use rhumb_testkit::process::Rhumb;
use rhumb_testkit::{port, wait};
use std::net::TcpStream;

/// Waits until this bound was hit so often at least.
fn hit(rhumb: &Rhumb, limit: &str, times: f64) {
    wait::until(&format!("{limit} is counted"), || {
        let hits = rhumb.metric("rhumb_limit_hits_total", &[&format!("limit=\"{limit}\"")]);
        (hits >= times).then_some(())
    });
}

fn with(settings: &str) -> Gate {
    Gate::with(|config| config.top(settings).route("match: {path: '/*'}, to: peer"))
}

#[test]
fn heads_that_are_too_large_are_refused_and_counted() {
    let gate = with("limits: {headerBytes: 2Ki, headers: 10, uriBytes: 1Ki}");
    let long = "x".repeat(1500);
    let uri = gate.get(&format!("/{long}"));
    assert_eq!((uri.status(), problem(&uri).as_str()), (414, "uri_too_long"));
    hit(&gate.rhumb, "uri_bytes", 1.0);
    let field = "x".repeat(3000);
    let bytes = gate.connect().exchange(format!("GET / HTTP/1.1\r\nHost: a.test\r\nx-a: {field}\r\n\r\n"));
    assert_eq!((bytes.status(), problem(&bytes).as_str()), (431, "fields_too_large"));
    hit(&gate.rhumb, "header_bytes", 1.0);
    let fields: String = (0..12).map(|n| format!("x-{n}: y\r\n")).collect();
    let count = gate.connect().exchange(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"));
    assert_eq!((count.status(), problem(&count).as_str()), (431, "fields_too_large"));
    hit(&gate.rhumb, "headers", 1.0);

    let mut streams = Connection::open(gate.proxy, &[]);
    streams.send(&h2::headers(1, &h2::get("a.test", &format!("/{long}"), &[]), true));
    assert_eq!(streams.answer(1).expect("an answer").status, 414);
    hit(&gate.rhumb, "uri_bytes", 2.0);
}

#[test]
fn content_that_is_too_much_is_refused_and_counted() {
    let gate = with("limits: {bodyBytes: 1Ki}");
    let large = gate.connect().exchange("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2000\r\n\r\n");
    assert_eq!((large.status(), problem(&large).as_str()), (413, "content_too_large"));
    hit(&gate.rhumb, "body_bytes", 1.0);
}

#[test]
fn clients_that_take_their_time_are_told_and_counted() {
    let gate = Gate::with(|config| {
        config
            .top("timeouts: {requestHeader: 300ms, requestBody: 400ms, idle: 300ms}")
            .route("match: {path: '/*'}, to: peer, timeouts: {request: 0s}")
    });
    let mut head = gate.connect();
    head.send("GET / HTTP/1.1\r\nHost:");
    assert_eq!(head.response().status(), 408);
    hit(&gate.rhumb, "header_time", 1.0);

    let mut body = gate.connect();
    body.send("POST /echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    // Never still for long, and never done.
    wait::until("slow content is counted", || {
        let _ = body.try_send("1\r\nx\r\n");
        (gate.rhumb.metric("rhumb_limit_hits_total", &["limit=\"body_time\""]) >= 1.0).then_some(())
    });

    let mut idle = gate.connect();
    assert_eq!(idle.get("a.test", "/bytes/1").status(), 200);
    assert!(idle.read_to_end().is_empty());
    hit(&gate.rhumb, "idle_time", 1.0);
    let mut unused = Connection::open(gate.proxy, &[]);
    while unused.frame().is_ok() {}
    hit(&gate.rhumb, "idle_time", 2.0);
}

#[test]
fn connections_are_bounded_for_all_and_for_each_address() {
    let gate = with("limits: {connections: 2}");
    let held: Vec<_> = (0..2)
        .map(|_| {
            let mut client = gate.connect();
            assert_eq!(client.get("a.test", "/bytes/1").status(), 200);
            client
        })
        .collect();
    assert!(gate.connect().read_to_end().is_empty());
    hit(&gate.rhumb, "connections", 1.0);
    assert!(gate.rhumb.metric("rhumb_connections_refused_total", &["reason=\"connections\""]) >= 1.0);
    drop(held);
    wait::until("there is room", || (client_status(&gate) == Some(200)).then_some(()));

    let gate = with("limits: {connectionsPerAddress: 1}");
    let mut held = gate.connect();
    assert_eq!(held.get("a.test", "/bytes/1").status(), 200);
    assert!(gate.connect().read_to_end().is_empty());
    hit(&gate.rhumb, "connections_per_address", 1.0);
    drop(held);
    wait::until("there is room", || (client_status(&gate) == Some(200)).then_some(()));

    let gate = with("trustedProxies: [127.0.0.1/32]\nlimits: {connectionsPerAddress: 1}");
    let mut held = gate.connect();
    assert_eq!(held.get("a.test", "/bytes/1").status(), 200);
    assert_eq!(gate.get("/bytes/1").status(), 200, "a trusted proxy has many clients");
}

fn client_status(gate: &Gate) -> Option<u16> {
    let mut client = Client::try_connect(gate.proxy).ok()?;
    client.try_send("GET /bytes/1 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").ok()?;
    client.try_response(rhumb_testkit::message::Kind::Response).ok().map(|response| response.status())
}

#[test]
fn requests_of_a_connection_are_bounded() {
    let gate = with("limits: {requestsPerConnection: 2}");
    let mut client = gate.connect();
    assert_eq!(client.get("a.test", "/bytes/1").field("connection"), None);
    assert_eq!(client.get("a.test", "/bytes/1").field("connection"), Some("close"));
    assert!(client.read_to_end().is_empty());
    hit(&gate.rhumb, "requests_per_connection", 1.0);
}

#[test]
fn streams_and_frames_of_http2_are_bounded() {
    let gate = with("limits: {concurrentStreams: 2}");
    let mut streams = Connection::open(gate.proxy, &[]);
    for id in [1, 3, 5] {
        streams.send(&h2::headers(id, &h2::get("a.test", "/hold/x", &[]), true));
    }
    while streams.frame().expect("a reset").kind != kind::RST_STREAM {}
    hit(&gate.rhumb, "concurrent_streams", 1.0);
    gate.backend.release("x");
    let mut flood = Connection::open(gate.proxy, &[]);
    let ping = h2::frame(kind::PING, 0, 0, &[0; 8]);
    for _ in 0..2000 {
        if flood.try_send(&ping).is_err() {
            break;
        }
    }
    hit(&gate.rhumb, "h2_pings", 1.0);
}

#[test]
fn a_handshake_that_does_not_come_is_given_up() {
    let (backend, port) = (Backend::start(), port::free());
    let ca = Authority::new("test");
    let config = Config::new()
        .top("timeouts: {handshake: 300ms}")
        .listener("web", port, "tls: {certificates: [{cert: web.crt, key: web.key}]}")
        .backend("peer", &format!("endpoints: ['{}']", backend.address()))
        .route("to: peer");
    let rhumb = Rhumb::start_with(&config, |dir| drop(ca.server(&["a.test"]).write(dir, "web")));
    let _silent = TcpStream::connect(local(port)).expect("a connection");
    hit(&rhumb, "handshake_time", 1.0);
}

#[test]
fn too_little_memory_refuses_by_priority_and_is_over_within_two_seconds() {
    let (backend, port) = (Backend::start(), port::free());
    let config = |memory: &str| {
        let mut config = Config::new().top("workers: 1").top(&format!("overload: {{memory: {memory}}}"));
        config = config
            .listener("web", port, "")
            .backend("peer", &format!("endpoints: ['{}']", backend.address()));
        for level in ["low", "normal", "high"] {
            config = config.route(&format!(
                "match: {{path: /{level}}}, respond: {{status: 200, body: ok}}, policies: {{priority: {{level: {level}}}}}"
            ));
        }
        config
    };
    let rhumb = Rhumb::start(&config("64Gi"));
    let get = |path: &str| client::get(local(port), "a.test", path);
    for path in ["/low", "/normal", "/high"] {
        assert_eq!(get(path).status(), 200);
    }
    // No process is that small.
    rhumb.write(&config("16Mi"));
    let refused =
        wait::until("low is refused", || Some(get("/low")).filter(|response| response.status() == 503));
    assert_eq!((problem(&refused).as_str(), refused.field("retry-after")), ("overloaded", Some("1")));
    wait::until("normal is refused", || (get("/normal").status() == 503).then_some(()));
    let answers: Vec<_> = (0..60).map(|_| get("/high").status()).collect();
    assert!(answers.contains(&200), "high goes on: {answers:?}");
    // Told by another thread than the one that refuses.
    wait::until("the log says so", || {
        let log = rhumb.log();
        (log.contains("overloaded: shedding") && log.contains("cause=\"memory\"")).then_some(())
    });
    hit(&rhumb, "memory", 1.0);
    let status = json(&rhumb.admin("/status"));
    assert_eq!(status["overload"]["state"], "shedding", "{status:#}");
    assert!(rhumb.metric("rhumb_overload_refused_total", &["priority=\"low\""]) >= 1.0);
    assert_eq!(rhumb.metric("rhumb_overload_workers", &["state=\"shedding\""]), 1.0);
    // The admin listener is never refused anything.
    assert_eq!(rhumb.admin("/readyz").status(), 200);

    rhumb.write(&config("64Gi"));
    wait::until("all is well again", || rhumb.log().contains("no longer overloaded").then_some(()));
    for path in ["/low", "/normal", "/high"] {
        assert_eq!(get(path).status(), 200);
    }
    assert_eq!(rhumb.metric("rhumb_overload_workers", &["state=\"shedding\""]), 0.0);
}

#[test]
fn a_process_without_descriptors_goes_on() {
    let (backend, port) = (Backend::start(), port::free());
    let config = Config::simple(port, backend.address()).top("workers: 1");
    let rhumb = Rhumb::start_with_descriptors(&config, 60);
    // Each rests after its request; together they are more than there are descriptors.
    let mut resting = Vec::new();
    for _ in 0..120 {
        let Ok(mut client) = Client::try_connect(local(port)) else { continue };
        let _ = client.try_send("GET /bytes/1 HTTP/1.1\r\nHost: a.test\r\n\r\n");
        resting.push(client);
    }
    hit(&rhumb, "descriptors", 1.0);
    wait::until("a new client is served", || {
        let mut client = Client::try_connect(local(port)).ok()?;
        client.try_send("GET /bytes/7 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").ok()?;
        let response: Message = client.try_response(rhumb_testkit::message::Kind::Response).ok()?;
        (response.status() == 200).then_some(())
    });
    drop(resting);
    let told = rhumb.log().matches("no connection can be accepted").count();
    assert!((1..=3).contains(&told), "told {told} times: {}", rhumb.log());
    assert!(rhumb.metric("rhumb_accept_errors_total", &["reason=\"process_descriptors\""]) >= 1.0);
}

#[test]
fn a_queue_that_stands_refuses_by_priority_and_is_forgotten() {
    let (backend, port) = (Backend::start(), port::free());
    let mut config = Config::new()
        .top("workers: 1")
        .top("overload: {queueDelay: 10ms}")
        .listener("web", port, "")
        .backend("peer", &format!("endpoints: ['{}']", backend.address()));
    for level in ["low", "normal"] {
        config = config.route(&format!(
            "match: {{path: '~/bytes/.*', headers: {{level: {level}}}}}, to: peer, policies: {{priority: {{level: {level}}}}}"
        ));
    }
    // Work for the worker, and little for its clients: each request is compared with all of these first.
    for rule in 0..20 {
        config = config.route(&format!("match: {{path: '~/bytes/[0-9]+[?]x{rule}'}}, to: peer"));
    }
    let rhumb = Rhumb::start(&config);
    let load = |level: &str, count: usize| {
        let path = format!("/bytes/{}1", "0".repeat(1500));
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nlevel: {level}\r\n\r\n");
        Load::start(local(port), count, &request, |answer| match answer.status() {
            200 => None,
            503 if problem(answer) == "overloaded" && answer.field("retry-after") == Some("1") => None,
            _ => Some(format!("{answer:?}")),
        })
    };
    let loads = [load("low", 40), load("normal", 60)];
    let refused =
        |level: &str| rhumb.metric("rhumb_overload_refused_total", &[&format!("priority=\"{level}\"")]);
    wait::until("low and normal are refused", || {
        (refused("low") >= 20.0 && refused("normal") >= 1.0).then_some(())
    });
    hit(&rhumb, "queue_delay", 1.0);
    for load in loads {
        let report = load.stop();
        assert_eq!(report.failed, 0, "{:?}", report.first());
        assert!(report.good > 0);
    }
    wait::until("all is well again", || rhumb.log().contains("no longer overloaded").then_some(()));
    let ask = "GET /bytes/1 HTTP/1.1\r\nHost: a.test\r\nlevel: low\r\n\r\n";
    wait::until("a request is served", || {
        (Client::connect(local(port)).exchange(ask).status() == 200).then_some(())
    });
}

#[test]
fn what_is_refused_before_it_is_read_is_that_one_request() {
    let (backend, port) = (Backend::start(), port::free());
    let mut config = Config::new()
        .top("workers: 1")
        .top("overload: {queueDelay: 10ms}")
        .listener("web", port, "")
        .backend("peer", &format!("endpoints: ['{}']", backend.address()));
    for rule in 0..40 {
        config = config.route(&format!("match: {{path: '~/bytes/[0-9]+[?]x{rule}'}}, to: peer"));
    }
    // All of one priority: it is known before the request is.
    let rhumb = Rhumb::start(&config.route("match: {path: '/*'}, to: peer"));
    let request = format!("GET /bytes/{}1 HTTP/1.1\r\nHost: a.test\r\n\r\n", "0".repeat(1500));
    let load = Load::start(local(port), 100, &request, |answer| match answer.status() {
        200 => None,
        503 if problem(answer) == "overloaded" && answer.field("retry-after") == Some("1") => None,
        _ => Some(format!("{answer:?}")),
    });
    let refused = || rhumb.metric("rhumb_overload_refused_total", &["priority=\"normal\""]);
    wait::until("requests of connections that were served before are refused", || {
        (refused() >= 150.0).then_some(())
    });
    let report = load.stop();
    assert_eq!(report.failed, 0, "{:?}", report.first());
    assert!(report.good > 0);
    wait::until("all is well again", || rhumb.log().contains("no longer overloaded").then_some(()));
    let ask = "GET /bytes/1 HTTP/1.1\r\nHost: a.test\r\n\r\n";
    wait::until("a request is served", || {
        (Client::connect(local(port)).exchange(ask).status() == 200).then_some(())
    });
}
