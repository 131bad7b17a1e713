//! HTTP/1 on both sides: connections, content, time, and what happens when somebody leaves.

use crate::gate::{Gate, json, local, problem, seen};
use rhumb_testkit::backend::{pattern, sum};
use rhumb_testkit::client::Client;
use rhumb_testkit::message::Kind;
use rhumb_testkit::process::Rhumb;
use rhumb_testkit::{config::Config, port, wait};
use std::net::TcpListener;

const MIB: u64 = 1 << 20;

#[test]
fn one_connection_to_the_backend_serves_many_requests() {
    let gate = Gate::new();
    let mut client = gate.connect();
    for _ in 0..10 {
        assert_eq!(client.get("a.test", "/bytes/10").content, pattern(10));
        assert_eq!(gate.get("/chunked/1500").content, pattern(1500));
    }
    assert_eq!(gate.backend.opened(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let gate = Gate::new();
    let mut client = gate.connect();
    let all: String = (1..=20).map(|n| format!("GET /bytes/{n} HTTP/1.1\r\nHost: a.test\r\n\r\n")).collect();
    client.send(all);
    for n in 1..=20 {
        assert_eq!(client.response().content, pattern(n));
    }
}

#[test]
fn content_of_any_size_arrives_whole_in_both_directions() {
    let gate = Gate::new();
    let mut client = gate.connect();
    for size in [
        0,
        1,
        100,
        4095,
        4096,
        16_383,
        16_384,
        16_385,
        65_535,
        65_536,
        65_537,
        MIB - 1,
        MIB,
        MIB + 1,
        5 * MIB,
    ] {
        let body = pattern(size);
        for way in ["bytes", "chunked"] {
            let response = client.get("a.test", &format!("/{way}/{size}"));
            assert!(response.content == body, "/{way}/{size}: {} bytes came", response.content.len());
        }
        client.send(format!("POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: {size}\r\n\r\n"));
        client.send(&body);
        let echo = json(&client.response());
        assert_eq!(
            (echo["length"].as_u64(), echo["sum"].as_str()),
            (Some(size), Some(&*format!("{:016x}", sum(&body))))
        );
        client.send("POST /echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in body.chunks(3000) {
            client.send(format!("{:x}\r\n", piece.len()));
            client.send(piece);
            client.send("\r\n");
        }
        client.send("0\r\n\r\n");
        let echo = json(&client.response());
        assert_eq!(
            (echo["length"].as_u64(), echo["sum"].as_str()),
            (Some(size), Some(&*format!("{:016x}", sum(&body))))
        );
    }
    assert_eq!(gate.get("/close/100000").content, pattern(100_000));
}

#[test]
fn content_waits_for_100_continue() {
    let gate = Gate::new();
    let mut client = gate.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.next_response(Kind::Response).status(), 100);
    client.send("hello");
    assert_eq!(json(&client.response())["content"], "hello");
}

#[test]
fn a_refusal_spares_the_client_its_content() {
    let gate = Gate::new();
    let mut client = gate.connect();
    client.send(
        "POST /refuse HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.next_response(Kind::Response).status(), 413);
    // Without the content the connection cannot go on.
    assert!(client.read_to_end().is_empty());
}

#[test]
fn early_hints_reach_http11_clients_only() {
    let gate = Gate::new();
    let mut client = gate.connect();
    client.send("GET /hints HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let hints = client.next_response(Kind::Response);
    assert_eq!((hints.status(), hints.field("link")), (103, Some("</style.css>; rel=preload")));
    assert_eq!(client.response().text(), "ok");
    let mut old = gate.connect();
    old.send("GET /hints HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert_eq!(old.next_response(Kind::Response).text(), "ok");
}

#[test]
fn head_has_the_fields_of_get_and_no_content() {
    let gate = Gate::new();
    let mut client = gate.connect();
    client.send("HEAD /bytes/1234 HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let head = client.next_response(Kind::ResponseToHead);
    assert_eq!((head.status(), head.field("content-length")), (200, Some("1234")));
    client.send("HEAD /chunked/1234 HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.next_response(Kind::ResponseToHead).status(), 200);
    // Also what the proxy says itself.
    client.send("HEAD /%zz HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.next_response(Kind::ResponseToHead).status(), 400);
    client.send("HEAD / HTTP/1.1\r\nHost: a b\r\n\r\n");
    assert_eq!(client.next_response(Kind::ResponseToHead).status(), 400);
    assert!(client.read_to_end().is_empty());
}

#[test]
fn trailers_pass_both_ways() {
    let gate = Gate::new();
    let mut client = gate.connect();
    client.send("GET /trailers HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    let response = client.response();
    assert_eq!(
        (response.text().as_str(), &response.trailers),
        ("body", &vec![("x-sum".to_owned(), "42".to_owned())])
    );
    let body = "3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n";
    client.send(format!(
        "POST /echo HTTP/1.1\r\nHost: a.test\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
    ));
    assert_eq!(json(&client.response())["trailers"], serde_json::json!([["x-sum", "7"]]));
}

#[test]
fn http10_clients_get_what_they_understand() {
    let gate = Gate::new();
    for target in ["/bytes/3000", "/chunked/3000", "/close/3000"] {
        let mut client = gate.connect();
        client.send(format!("GET {target} HTTP/1.0\r\nHost: a.test\r\n\r\n"));
        let response = client.next_response(Kind::Response);
        assert_eq!((response.content.len(), response.field("transfer-encoding")), (3000, None), "{target}");
        assert!(client.read_to_end().is_empty());
    }
    let mut client = gate.connect();
    for _ in 0..3 {
        client.send("GET /bytes/3 HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n");
        let response = client.next_response(Kind::Response);
        assert!(
            response.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive")),
            "{response:?}"
        );
    }
}

#[test]
fn close_is_obeyed_and_announced() {
    let gate = Gate::new();
    let mut client = gate.connect();
    client.send("GET /bytes/3 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    assert_eq!(client.response().field("connection"), Some("close"));
    assert!(client.read_to_end().is_empty());
    // The client's close is not the backend's: its connection stays.
    gate.get("/bytes/3");
    assert_eq!(gate.backend.opened(), 1);
}

#[test]
fn a_client_that_leaves_amid_its_request_takes_the_backends_connection_along() {
    let gate = Gate::new();
    let mut client = gate.connect();
    client.send("POST /upload HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n");
    client.send(vec![b'x'; 50_000]);
    drop(client);
    let seen = gate.backend.wait_for("/upload");
    assert!(!seen.complete);
    wait::until("the backend's connection ends", || (gate.backend.open() == 0).then_some(()));
    assert_eq!(gate.get("/bytes/3").status(), 200);
}

#[test]
fn a_client_that_leaves_amid_its_response_takes_the_backends_connection_along() {
    let gate = Gate::new();
    let mut client = gate.connect();
    client.send("GET /part/2000/never HTTP/1.1\r\nHost: a.test\r\n\r\n");
    gate.backend.wait_for("/part");
    let _ = client.read_exact(100);
    drop(client);
    // The proxy notices at the latest when it passes on more.
    gate.backend.release("never");
    wait::until("the backend's connection ends", || (gate.backend.open() == 0).then_some(()));
    assert_eq!(gate.get("/bytes/3").status(), 200);
}

#[test]
fn a_client_that_leaves_while_waiting_ends_its_request() {
    let gate = Gate::new();
    let mut client = gate.connect();
    client.send("GET /hold/never HTTP/1.1\r\nHost: a.test\r\n\r\n");
    gate.backend.wait_for("/hold");
    drop(client);
    wait::until("the log says so", || gate.rhumb.log().contains("client_closed").then_some(()));
    gate.backend.release("never");
    wait::until("the backend's connection ends", || (gate.backend.open() == 0).then_some(()));
}

#[test]
fn a_slow_client_is_answered_408_and_an_idle_one_closed() {
    let gate =
        Gate::with(|config| config.top("timeouts: {requestHeader: 300ms, idle: 400ms}").route("to: peer"));
    let mut slow = gate.connect();
    slow.send("GET / HTTP/1.1\r\nHo");
    let response = slow.next_response(Kind::Response);
    assert_eq!((response.status(), problem(&response).as_str()), (408, "request_timeout"));
    assert!(slow.read_to_end().is_empty());
    let mut idle = gate.connect();
    assert_eq!(idle.get("a.test", "/bytes/3").status(), 200);
    assert!(idle.read_to_end().is_empty());
    // One that never says anything is closed without a word.
    assert!(gate.connect().read_to_end().is_empty());
}

#[test]
fn a_slow_backend_is_504_within_the_routes_timeout() {
    let gate = Gate::with(|config| {
        config.route("match: {path: /hold/*}, to: peer, timeout: 300ms").route("to: peer")
    });
    let response = gate.get("/hold/never");
    assert_eq!((response.status(), problem(&response).as_str()), (504, "backend_timeout"));
    gate.backend.release("never");
    assert_eq!(gate.get("/bytes/3").status(), 200);
}

#[test]
fn failures_of_the_backend_say_which() {
    let free = port::free();
    let gate = Gate::with(|config| {
        config
            .backend("gone", &format!("endpoints: ['127.0.0.1:{free}']"))
            .route("match: {path: /gone/*}, to: gone")
            .route("to: peer")
    });
    let response = gate.get("/gone/x");
    assert_eq!((response.status(), problem(&response).as_str()), (502, "connect_refused"));
    let response = gate.get("/hangup");
    assert_eq!((response.status(), problem(&response).as_str()), (502, "backend_reset"));
}

#[test]
fn connecting_takes_no_longer_than_the_connect_timeout() {
    // A full accept queue takes no connection: connecting hangs as it does behind a firewall.
    let full = TcpListener::bind(local(0)).expect("a listening socket");
    rustix::net::listen(&full, 0).expect("a smaller queue");
    let address = full.local_addr().expect("a bound socket");
    let mut filling = Vec::new();
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(200))
    {
        filling.push(stream);
    }
    let gate = Gate::with(|config| {
        config
            .backend("full", &format!("endpoints: ['{address}'], connectTimeout: 300ms"))
            .route("match: {path: /full/*}, to: full")
            .route("to: peer")
    });
    let response = gate.get("/full/x");
    assert_eq!((response.status(), problem(&response).as_str()), (504, "connect_timeout"));
}

#[test]
fn a_connection_that_died_idle_is_never_the_clients_problem() {
    let gate = Gate::new();
    let mut client = gate.connect();
    for _ in 0..30 {
        assert_eq!(client.get("a.test", "/bytes/3").status(), 200);
        // The next request may meet the end of the connection before or after it was sent.
        gate.backend.hang_up();
    }
    for _ in 0..10 {
        assert_eq!(client.get("a.test", "/bytes/3").status(), 200);
        gate.backend.hang_up();
        wait::until("the end is there", || (gate.backend.open() == 0).then_some(()));
        let echo = client.exchange("POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(
            json(&echo)["content"],
            "hi",
            "a request that is not idempotent goes to a connection that lives"
        );
    }
}

#[test]
fn what_has_begun_is_not_repeated() {
    let gate = Gate::new();
    let mut client = gate.connect();
    client.send("GET /half/1000 HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert!(client.try_response(Kind::Response).is_err(), "half a response is not a response");
    let response =
        gate.connect().exchange("POST /hangup HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(response.status(), 502);
    let targets: Vec<String> =
        gate.backend.seen().iter().map(|seen| seen.message.target().to_owned()).collect();
    assert_eq!(targets, ["/half/1000", "/hangup"]);
}

#[test]
fn forwarding_fields_are_set_and_a_strangers_claims_removed() {
    let gate = Gate::new();
    let claims = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\nX-Forwarded-Port: 1\r\n\
                  X-Forwarded-Prefix: /evil\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Request-Id: mine\r\n\
                  traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    for claims in ["", claims] {
        let echo = gate.connect().exchange(format!("GET /echo HTTP/1.1\r\nHost: a.test\r\n{claims}\r\n"));
        let field = |name: &str| seen(&echo, name);
        assert_eq!(field("x-forwarded-for").as_deref(), Some("127.0.0.1"));
        assert_eq!(field("x-forwarded-proto").as_deref(), Some("http"));
        assert_eq!(field("x-forwarded-host").as_deref(), Some("a.test"));
        assert_eq!(field("x-forwarded-port"), Some(gate.proxy.port().to_string()));
        assert_eq!(
            (field("x-forwarded-prefix"), field("x-real-ip").filter(|ip| ip == "6.6.6.6")),
            (None, None)
        );
        assert!(field("forwarded").is_none_or(|value| !value.contains("6.6.6.6")));
        assert!(field("via").is_some_and(|via| via.starts_with("1.1 ")));
        let id = field("x-request-id").expect("an id");
        assert!(id.len() == 36 && id != "mine", "{id}");
        assert_eq!(echo.field("x-request-id"), Some(&*id), "the client is told the id");
        let trace = field("traceparent").expect("a trace");
        assert!(
            trace.len() == 55
                && trace.starts_with("00-")
                && !trace.contains("0af7651916cd43dd8448eb211c80319c"),
            "{trace}"
        );
    }
}

#[test]
fn a_trusted_proxys_claims_are_kept() {
    let gate = Gate::with(|config| config.top("trustedProxies: [127.0.0.0/8]").route("to: peer"));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let echo = gate.connect().exchange(format!(
        "GET /echo HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\nX-Request-Id: mine-1\r\ntraceparent: {trace}\r\n\r\n"
    ));
    assert_eq!(seen(&echo, "x-forwarded-for").as_deref(), Some("198.51.100.7, 127.0.0.1"));
    assert_eq!(seen(&echo, "x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(seen(&echo, "x-request-id").as_deref(), Some("mine-1"));
    assert!(
        seen(&echo, "traceparent").is_some_and(|value| value.contains("0af7651916cd43dd8448eb211c80319c"))
    );
}

#[test]
fn limits_are_obeyed_with_their_statuses() {
    let gate = Gate::with(|config| {
        config
            .top("limits: {headerBytes: 4Ki, headers: 20, uriBytes: 1Ki, bodyBytes: 10Ki}")
            .route("to: peer")
    });
    let long = "x".repeat(2000);
    let huge = "x".repeat(5000);
    let many: String = (0..30).map(|n| format!("X-{n}: y\r\n")).collect();
    let cases = [
        (format!("GET /{long} HTTP/1.1\r\nHost: a.test\r\n\r\n"), 414, "uri_too_long"),
        (format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {huge}\r\n\r\n"), 431, "fields_too_large"),
        (format!("GET / HTTP/1.1\r\nHost: a.test\r\n{many}\r\n"), 431, "fields_too_large"),
        (
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 20000\r\n\r\n".to_owned(),
            413,
            "content_too_large",
        ),
    ];
    for (request, status, code) in cases {
        let response = gate.connect().exchange(&request);
        assert_eq!((response.status(), problem(&response).as_str()), (status, code));
    }
    // Content whose length is not announced: cut off where the limit is.
    let mut client = gate.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("5000\r\n{}\r\n0\r\n\r\n", "x".repeat(0x5000)));
    assert_eq!(client.next_response(Kind::Response).status(), 413);
    assert!(gate.backend.seen().iter().all(|seen| !seen.complete || seen.length == 0));
}

#[test]
fn a_client_that_does_not_read_costs_a_bounded_amount() {
    let mut gate = Gate::new();
    assert_eq!(gate.get("/bytes/3").status(), 200);
    let before = gate.rhumb.program().rss();
    let clients: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = gate.connect();
            client.send("GET /bytes/100000000 HTTP/1.1\r\nHost: a.test\r\n\r\n");
            client
        })
        .collect();
    wait::until("all are on their way", || (gate.backend.seen().len() == 21).then_some(()));
    assert_eq!(gate.get("/bytes/3").status(), 200, "others are served");
    let grown = gate.rhumb.program().rss().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes for {} clients", clients.len());
}

#[test]
fn two_workers_serve_one_port() {
    let backend = rhumb_testkit::backend::Backend::start();
    let port = port::free();
    let _rhumb = Rhumb::start(&Config::simple(port, backend.address()).top("workers: 2"));
    for _ in 0..40 {
        assert_eq!(Client::connect(local(port)).get("a.test", "/bytes/9").content, pattern(9));
    }
    assert!(backend.opened() <= 2, "one connection per worker, not {}", backend.opened());
}
