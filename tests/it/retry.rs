//! Retries, their budgets, and deadlines, with backends that do what a script says.

use crate::gate::{local, problem, seen};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::client::Client;
use rhumb_testkit::config::Config;
use rhumb_testkit::message::{Kind, Message};
use rhumb_testkit::process::{Rhumb, finish, script, serve_script, succeed};
use rhumb_testkit::{port, wait};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What a scripted backend does with a request.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Answers with this status and content, and further fields.
    Say(u16, &'static str),
    /// Closes without a byte.
    Hangup,
    /// Sends a head that announces more than comes, then closes.
    Half,
    /// Says nothing until the connection is closed.
    Silence,
}

/// A backend that takes its steps in order, and answers 200 when there are none left.
struct Scripted {
    address: SocketAddr,
    steps: Arc<Mutex<VecDeque<Step>>>,
    requests: Arc<Mutex<Vec<Message>>>,
}

impl Scripted {
    fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a socket");
        let this = Self {
            address: listener.local_addr().expect("a bound socket"),
            steps: Arc::default(),
            requests: Arc::default(),
        };
        let (steps, requests) = (this.steps.clone(), this.requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (steps, requests) = (steps.clone(), requests.clone());
                std::thread::spawn(move || serve(&stream, &steps, &requests));
            }
        });
        this
    }

    /// Does this from here on; the requests so far are forgotten.
    fn play(&self, steps: &[Step]) {
        *self.steps.lock().expect("no panic while held") = steps.iter().copied().collect();
        self.requests.lock().expect("no panic while held").clear();
    }

    fn requests(&self) -> Vec<Message> {
        self.requests.lock().expect("no panic while held").clone()
    }
}

/// Serves one request. Nothing rests: a connection that was used before would be repeated for another reason.
fn serve(mut stream: &TcpStream, steps: &Mutex<VecDeque<Step>>, requests: &Mutex<Vec<Message>>) {
    let (mut received, mut buf) = (Vec::new(), [0; 65_536]);
    let message = loop {
        match Message::read(&received, Kind::Request, false) {
            Ok(Some((message, _))) => break message,
            Ok(None) => {}
            Err(_) => return,
        }
        match stream.read(&mut buf) {
            Ok(n) if n > 0 => received.extend_from_slice(&buf[..n]),
            _ => return,
        }
    };
    requests.lock().expect("no panic while held").push(message);
    let step = steps.lock().expect("no panic while held").pop_front();
    let answer = match step.unwrap_or(Step::Say(200, "")) {
        Step::Say(status, more) => {
            format!("HTTP/1.1 {status} Status\r\n{more}Connection: close\r\nContent-Length: 4\r\n\r\nbody")
        }
        Step::Hangup => return,
        Step::Half => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_owned(),
        Step::Silence => {
            let _ = stream.read(&mut buf);
            return;
        }
    };
    let _ = stream.write_all(answer.as_bytes());
}

/// The proxy with documents beside the short form.
fn start(config: &Config, documents: &str) -> Rhumb {
    let (dir, admin) = (tempfile::tempdir().expect("a directory"), port::free());
    std::fs::write(dir.path().join("rhumb.yaml"), config.text(admin)).expect("a file");
    std::fs::write(dir.path().join("documents.yaml"), documents).expect("a file");
    Rhumb::start_on(dir, ".", admin)
}

/// An XBackendTrafficPolicy for these backends.
fn traffic(backends: &[&str], body: &str) -> String {
    let targets: Vec<String> =
        backends.iter().map(|name| format!("{{group: rhumb.dev, kind: Backend, name: {name}}}")).collect();
    format!(
        "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\nmetadata: {{name: traffic}}\n\
         spec:\n  targetRefs: [{}]\n  {body}\n",
        targets.join(", ")
    )
}

/// Budgets that no test reaches.
const NO_BUDGET: &str = "retryConstraint: {minRetryRate: {count: 1000000}}";

/// One proxy with a route per rule, and what it tells about each exchange.
struct Stand {
    rhumb: Rhumb,
    proxy: SocketAddr,
    backend: Scripted,
    records: usize,
}

impl Stand {
    /// `rules` are routes by path: what is written beside `match` and `to`.
    fn new(rules: &[(&str, &str)]) -> Self {
        let (backend, port) = (Scripted::new(), port::free());
        let mut config =
            Config::new().top("workers: 1").top("trustedProxies: [127.0.0.1/32]").listener("web", port, "");
        for (path, rule) in rules {
            let name = path.trim_start_matches('/');
            config = config
                .backend(name, &format!("endpoints: ['{}']", backend.address))
                .route(&format!("match: {{path: {path}}}, to: {name}, {rule}"));
        }
        let names: Vec<&str> = rules.iter().map(|(path, _)| path.trim_start_matches('/')).collect();
        let rhumb = start(&config, &traffic(&names, NO_BUDGET));
        Self { rhumb, proxy: local(port), backend, records: 0 }
    }

    /// One request on a connection of its own; the answer, or nothing when it was cut.
    fn ask(&mut self, request: &str) -> Option<Message> {
        let mut client = Client::connect(self.proxy);
        client.send(request);
        client.try_response(Kind::Response).ok()
    }

    /// The access log's record of the exchange after those that were looked at.
    fn record(&mut self) -> serde_json::Value {
        let at = self.records;
        self.records += 1;
        wait::until("the exchange is in the access log", || {
            let log = self.rhumb.log();
            let mut records =
                log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            records.by_ref().filter(|record| record.get("request_id").is_some()).nth(at)
        })
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

fn with_content(method: &str, path: &str, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n{}",
        "x".repeat(length)
    )
}

/// What is asked, what the backend does, and what comes of it.
struct Case {
    name: &'static str,
    request: String,
    steps: &'static [Step],
    attempts: usize,
    /// `None`: the response is cut.
    status: Option<u16>,
    reasons: &'static [&'static str],
}

#[test]
fn what_may_be_repeated_is_and_nothing_else() {
    use Step::{Half, Hangup, Say, Silence};
    let case = |name, request, steps, attempts, status, reasons| Case {
        name,
        request,
        steps,
        attempts,
        status,
        reasons,
    };
    let mut stand = Stand::new(&[
        ("/codes", "retry: {attempts: 2, codes: [503], backoff: 1ms}"),
        ("/none", ""),
        ("/off", "policies: {retry: {attempts: 0, codes: [503]}}"),
        ("/any", "policies: {retry: {codes: [503], retryNonIdempotent: true, backOff: {base: 1ms}}}"),
        ("/large", "policies: {retry: {codes: [503], bodyBytes: 1Mi, backOff: {base: 1ms}}}"),
        ("/hurry", "policies: {retry: {perTryTimeout: 300ms, backOff: {base: 1ms}}}"),
        ("/resets", "policies: {retry: {on: [reset], backOff: {base: 1ms}}}"),
    ]);
    let cases = [
        case("a listed status", get("/codes"), &[Say(503, "")][..], 2, Some(200), &["503"][..]),
        case(
            "attempts end",
            get("/codes"),
            &[Say(503, ""), Say(503, ""), Say(503, "")],
            3,
            Some(503),
            &["503", "503"],
        ),
        case("another status", get("/codes"), &[Say(500, "")], 1, Some(500), &[]),
        case("not idempotent", with_content("POST", "/codes", 3), &[Say(503, "")], 1, Some(503), &[]),
        case(
            "idempotent with content",
            with_content("PUT", "/codes", 3),
            &[Say(503, "")],
            2,
            Some(200),
            &["503"],
        ),
        case("too much content", with_content("PUT", "/codes", 100_000), &[Say(503, "")], 1, Some(503), &[]),
        case(
            "closed before the head",
            get("/codes"),
            &[Hangup, Hangup],
            3,
            Some(200),
            &["backend_reset", "backend_reset"],
        ),
        case("not idempotent and closed", with_content("POST", "/codes", 3), &[Hangup], 1, Some(502), &[]),
        case("closed behind the head", get("/codes"), &[Half], 1, None, &[]),
        case(
            "asked to wait a moment",
            get("/codes"),
            &[Say(503, "Retry-After: 0\r\n")],
            2,
            Some(200),
            &["503"],
        ),
        case(
            "asked to wait for long",
            get("/codes"),
            &[Say(503, "Retry-After: 3600\r\n")],
            1,
            Some(503),
            &[],
        ),
        case("nothing is written", get("/none"), &[Say(503, "")], 1, Some(503), &[]),
        case("nothing is written and closed", get("/none"), &[Hangup], 1, Some(502), &[]),
        case("switched off", get("/off"), &[Say(503, "")], 1, Some(503), &[]),
        case("any method", with_content("POST", "/any", 3), &[Say(503, "")], 2, Some(200), &["503"]),
        case(
            "any method and closed",
            with_content("POST", "/any", 3),
            &[Hangup],
            2,
            Some(200),
            &["backend_reset"],
        ),
        case(
            "more content kept",
            with_content("PUT", "/large", 200_000),
            &[Say(503, "")],
            2,
            Some(200),
            &["503"],
        ),
        case("no answer in time", get("/hurry"), &[Silence], 2, Some(200), &["backend_timeout"]),
        case("no status is listed", get("/resets"), &[Say(503, "")], 1, Some(503), &[]),
        case("resets only", get("/resets"), &[Hangup], 2, Some(200), &["backend_reset"]),
    ];
    for case in cases {
        stand.backend.play(case.steps);
        let request = case.request;
        let answer = stand.ask(&request);
        let requests = stand.backend.requests();
        let record = stand.record();
        let context = format!("{}: {record}", case.name);
        assert_eq!(requests.len(), case.attempts, "{context}");
        assert_eq!(answer.map(|answer| answer.status()), case.status, "{context}");
        assert_eq!(record["tries"], case.attempts, "{context}");
        let reasons: Vec<&str> =
            record["retries"].as_array().into_iter().flatten().filter_map(|r| r.as_str()).collect();
        assert_eq!(reasons, case.reasons, "{context}");
        // Each attempt carried the same request.
        let content = request.split_once("\r\n\r\n").map_or("", |(_, content)| content);
        assert!(requests.iter().all(|seen| seen.content == content.as_bytes()), "{context}");
    }
    assert_eq!(stand.rhumb.metric("rhumb_upstream_retries_refused_total", &["content_not_kept"]), 1.0);
    assert_eq!(stand.rhumb.metric("rhumb_upstream_retries_refused_total", &["retry_after"]), 1.0);
}

#[test]
fn attempts_are_told_when_asked_for() {
    let mut stand = Stand::new(&[
        ("/told", "policies: {retry: {codes: [503], reportAttempts: true, backOff: {base: 1ms}}}"),
        ("/quiet", "retry: {codes: [503], backoff: 1ms}"),
    ]);
    for (path, told) in [("/told", Some("2")), ("/quiet", None)] {
        stand.backend.play(&[Step::Say(503, "x-rhumb-retries-left: 1\r\n")]);
        let answer = stand.ask(&get(path)).expect("an answer");
        assert_eq!((answer.status(), answer.field("x-rhumb-attempts")), (200, told));
        assert_eq!(answer.field("x-rhumb-retries-left"), None);
    }
    counts(&stand.rhumb, "rhumb_upstream_retries_total", &["reason=\"503\""], 2.0);
}

#[test]
fn a_response_whose_head_has_gone_out_is_never_followed_by_another() {
    let mut stand = Stand::new(&[("/codes", "retry: {attempts: 2, codes: [503], backoff: 1ms}")]);
    stand.backend.play(&[Step::Half]);
    let output = finish({
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--noproxy", "*", &format!("http://{}/codes", stand.proxy)]);
        curl
    });
    // The transfer ended early (18), or before its first byte was written (52).
    assert!(matches!(output.code, Some(18 | 52)) && "half".starts_with(&output.output), "{output:?}");
    assert_eq!((stand.backend.requests().len(), stand.record()["tries"].as_u64()), (1, Some(1)));
}

/// Rules that repeat everything they may, two times.
const EAGER: &str = "retry: {attempts: 2, codes: [502, 503, 504], backoff: 1ms}";

#[test]
fn a_backend_gets_no_more_retries_than_its_budget() {
    let (backend, port) = (Backend::start(), port::free());
    let config = Config::new()
        .listener("web", port, "")
        .backend("peer", &format!("endpoints: ['{}']", backend.address()))
        .route(&format!("match: {{path: '/*'}}, to: peer, {EAGER}"));
    // One retry per ten requests of the last hour, and none in any case.
    let budget = "retryConstraint: {budget: {percent: 10, interval: 1h}, minRetryRate: {count: 0}}";
    let rhumb = start(&config, &traffic(&["peer"], budget));
    const REQUESTS: usize = 200;
    let askers: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(local(port));
                for _ in 0..REQUESTS / 4 {
                    assert_eq!(client.get("a.test", "/status/503").status(), 503);
                }
            })
        })
        .collect();
    askers.into_iter().for_each(|asker| asker.join().expect("every request is answered"));
    assert_eq!(backend.seen().len(), REQUESTS + REQUESTS / 10);
    counts(&rhumb, "rhumb_upstream_retries_total", &["backend=\"default/peer\"", "reason=\"503\""], 20.0);
    // Each request wanted one more at least.
    counts(&rhumb, "rhumb_upstream_retries_refused_total", &["reason=\"budget\""], 180.0);
    counts(&rhumb, "rhumb_notes_total", &["retry_budget_spent"], 180.0);
}

/// Waits until a counter is at least this: an exchange is counted when its response is on its way.
fn counts(rhumb: &Rhumb, name: &str, labels: &[&str], least: f64) {
    wait::until(&format!("{name} is {least}"), || (rhumb.metric(name, labels) >= least).then_some(()));
}

/// Proxies one behind the other; the last one goes to `backend`. `trust` is whether they believe each other.
fn row(hops: usize, backend: SocketAddr, rule: &str, trust: bool) -> (Vec<Rhumb>, SocketAddr) {
    let mut next = backend;
    let mut row = Vec::new();
    for _ in 0..hops {
        let port = port::free();
        let trusted = if trust { "trustedProxies: [127.0.0.1/32]" } else { "workers: 1" };
        let config = Config::new()
            .top(trusted)
            .listener("web", port, "")
            .backend("next", &format!("endpoints: ['{next}']"))
            .route(&format!("match: {{path: '/*'}}, to: next, {rule}"));
        row.push(start(&config, &traffic(&["next"], NO_BUDGET)));
        next = local(port);
    }
    (row, next)
}

#[test]
fn three_hops_share_the_retries_of_a_request() {
    const REQUESTS: usize = 30;
    // The last backend answers 503: it counts what it gets.
    let backend = Backend::start();
    for (trust, most) in [(true, 3), (false, 27)] {
        backend.forget();
        let (hops, front) = row(3, backend.address(), EAGER, trust);
        let mut client = Client::connect(front);
        for _ in 0..REQUESTS {
            assert_eq!(client.get("a.test", "/status/503").status(), 503);
        }
        // Without trust nobody tells what is left, and every hop repeats what the one behind has repeated.
        assert_eq!(backend.seen().len(), REQUESTS * most, "trust: {trust}");
        let retries: f64 = hops.iter().map(|hop| hop.metric("rhumb_upstream_retries_total", &[])).sum();
        eprintln!(
            "503 behind three hops, trust {trust}: {} attempts for {REQUESTS} requests, {retries} retries",
            backend.seen().len()
        );
    }
    // The last backend is down: the hop before it counts its attempts.
    let dead = local(port::free());
    let (hops, front) = row(3, dead, EAGER, true);
    let mut client = Client::connect(front);
    for _ in 0..REQUESTS {
        assert_eq!(client.get("a.test", "/").status(), 502);
    }
    counts(&hops[0], "rhumb_upstream_retries_total", &[], 2.0 * REQUESTS as f64);
    let retries: Vec<f64> = hops.iter().map(|hop| hop.metric("rhumb_upstream_retries_total", &[])).collect();
    eprintln!("dead behind three hops: retries from the last hop to the first: {retries:?}");
    assert_eq!(retries, [2.0 * REQUESTS as f64, 0.0, 0.0]);
}

#[test]
fn three_hops_in_a_storm_stay_within_the_budget_of_the_backend() {
    const REQUESTS: usize = 200;
    let backend = Backend::start();
    let mut next = backend.address();
    let mut hops = Vec::new();
    for _ in 0..3 {
        let port = port::free();
        let config = Config::new()
            .top("trustedProxies: [127.0.0.1/32]")
            .listener("web", port, "")
            .backend("next", &format!("endpoints: ['{next}']"))
            .route(&format!("match: {{path: '/*'}}, to: next, {EAGER}"));
        hops.push(Rhumb::start(&config));
        next = local(port);
    }
    let begun = Instant::now();
    let mut client = Client::connect(next);
    for _ in 0..REQUESTS {
        assert_eq!(client.get("a.test", "/status/503").status(), 503);
    }
    // What is written nowhere: 20 % of the requests, or three in each second.
    let seconds = begun.elapsed().as_secs() as usize + 2;
    let attempts = backend.seen().len();
    eprintln!("default budgets: {attempts} attempts for {REQUESTS} requests behind three hops");
    // The hop whose budget is spent says so: the hops in front, which have budgets of their own, do not go on.
    assert!(attempts > REQUESTS && attempts <= REQUESTS * 120 / 100 + 3 * seconds, "{attempts}");
}

#[test]
fn deadlines_shrink_from_hop_to_hop() {
    let backend = Backend::start();
    let (_hops, front) = row(2, backend.address(), "timeouts: {request: 20s, backendRequest: 10s}", true);
    let ms = |message: &Message| -> u64 {
        let told = seen(message, "x-request-deadline").expect("a deadline");
        told.strip_suffix("ms").and_then(|ms| ms.parse().ok()).unwrap_or_else(|| panic!("{told}"))
    };
    let ask = |told: &str| {
        let mut client = Client::connect(front);
        client.exchange(format!("GET /echo HTTP/1.1\r\nHost: a.test\r\n{told}\r\n"))
    };
    // An attempt's own limit is what the next hop has.
    assert!((1..=10_000).contains(&ms(&ask(""))));
    // The caller has less.
    let left = ms(&ask("x-request-deadline: 5s\r\n"));
    assert!((1..5_000).contains(&left), "{left}");
    // The caller has more than is written.
    assert!(ms(&ask("x-request-deadline: 1h\r\n")) <= 10_000);
    // Nothing is left.
    backend.forget();
    let late = ask("x-request-deadline: 0ms\r\n");
    assert_eq!((late.status(), problem(&late)), (504, "deadline_exceeded".to_owned()));
    assert!(backend.seen().is_empty());
    // It passes while the backend thinks.
    let mut client = Client::connect(front);
    let late =
        client.exchange("GET /hold/never HTTP/1.1\r\nHost: a.test\r\nx-request-deadline: 300ms\r\n\r\n");
    assert_eq!(late.status(), 504);
}

#[test]
fn strangers_set_neither_deadlines_nor_budgets() {
    let backend = Backend::start();
    let (_hops, front) = row(1, backend.address(), "", false);
    let mut client = Client::connect(front);
    let answer = client.exchange(
        "GET /echo HTTP/1.1\r\nHost: a.test\r\nx-request-deadline: 0ms\r\nx-rhumb-retries-left: 9\r\n\r\n",
    );
    assert_eq!(answer.status(), 200);
    assert_eq!((seen(&answer, "x-request-deadline"), seen(&answer, "x-rhumb-retries-left")), (None, None));
    assert_eq!(answer.field("x-rhumb-retries-left"), None);
}

#[test]
fn no_attempt_begins_that_cannot_finish() {
    let mut stand = Stand::new(&[(
        "/short",
        "timeouts: {request: 400ms}, retry: {attempts: 9, codes: [503], backoff: 300ms}",
    )]);
    stand.backend.play(&[Step::Say(503, ""); 9]);
    assert_eq!(stand.ask(&get("/short")).map(|answer| answer.status()), Some(503));
    // The first wait is 300 ms and more, the second would end behind the 400.
    let attempts = stand.backend.requests().len();
    assert!((1..=2).contains(&attempts), "{attempts}");
    counts(&stand.rhumb, "rhumb_upstream_retries_refused_total", &["reason=\"deadline\""], 1.0);
}

#[test]
fn a_stream_lives_no_longer_than_it_may() {
    let gate = crate::gate::Gate::with(|config| {
        config.route("match: {path: '/*'}, to: peer, policies: {timeouts: {stream: 500ms}}")
    });
    let mut client = gate.connect();
    client.send("GET /part/1000/never HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert!(client.try_response(Kind::Response).is_err(), "half of the content is no response");
    wait::until("the failure is counted", || {
        (gate.rhumb.metric("rhumb_failures_total", &["lifetime_over"]) == 1.0).then_some(())
    });
}

fn grpc_peer() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/peers/grpc_retry.py").into()
}

#[test]
fn grpc_calls_are_repeated_by_their_status_and_bound_by_their_deadline() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server_port, port) = (port::free(), port::free());
    let _server = serve_script(&grpc_peer(), &["server"], server_port, &dir.path().join("server.log"));
    let config = Config::new()
        .listener("web", port, "")
        .backend("grpc", &format!("endpoints: ['127.0.0.1:{server_port}'], protocol: h2c"))
        .backend("patient", &format!("endpoints: ['127.0.0.1:{server_port}'], protocol: h2c"))
        .route(
            "match: {path: /test.Flaky/*}, to: grpc, timeouts: {request: 0s}, \
             policies: {retry: {attempts: 2, grpcCodes: [unavailable, aborted], backOff: {base: 1ms}}}",
        )
        .route("match: {path: /test.Flaky/Remaining}, to: patient, timeouts: {request: 3s}");
    let rhumb = start(&config, &traffic(&["grpc"], NO_BUDGET));
    let cases = [
        ("Fail:a:0:UNAVAILABLE:20", "1"),
        ("Fail:b:1:UNAVAILABLE:20", "2"),
        ("Fail:c:2:ABORTED:20", "3"),
        ("Fail:d:3:UNAVAILABLE:20", "UNAVAILABLE"),
        ("Fail:e:1:INTERNAL:20", "INTERNAL"),
        ("FailLate:f:1:UNAVAILABLE:20", "UNAVAILABLE"),
        ("FailLate:f:1:UNAVAILABLE:20", "2"),
        ("Sleep:g:2:OK:0.3", "DEADLINE_EXCEEDED"),
    ];
    let mut args = vec!["client".to_owned(), local(port).to_string()];
    args.extend(cases.iter().map(|(case, _)| (*case).to_owned()));
    args.push("Remaining:x:0:OK:60".to_owned());
    args.push("Remaining:x:0:OK:2".to_owned());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = succeed(script(&grpc_peer(), &args));
    let lines: Vec<&str> = output.lines().collect();
    let expected: Vec<&str> = cases.iter().map(|(_, answer)| *answer).collect();
    assert_eq!(lines[..cases.len()], expected, "{output}");
    // Our own limit is told as grpc-timeout; the caller's is, when it is shorter (grpcio rounds it up a little).
    let left: Vec<f64> = lines[cases.len()..].iter().map(|left| left.parse().expect("seconds")).collect();
    assert!(left[0] > 0.0 && left[0] <= 3.0 && left[1] > 0.0 && left[1] < 2.5, "{left:?}");
    counts(&rhumb, "rhumb_upstream_retries_total", &["reason=\"grpc_14\""], 1.0 + 2.0);
    counts(&rhumb, "rhumb_upstream_retries_total", &["reason=\"grpc_10\""], 2.0);
}

/// A proxy with sessions in front of named backends, in one Backend each or all in one.
fn with_sessions(route: &str, backends: &[(&str, &[&Backend])]) -> (Rhumb, u16, Config) {
    let port = port::free();
    let mut config =
        Config::new().top("workers: 2").top("sessionKey: a-secret-of-nobody-else").listener("web", port, "");
    for (name, peers) in backends {
        let peers: Vec<String> = peers.iter().map(|peer| format!("'{}'", peer.address())).collect();
        config = config.backend(name, &format!("endpoints: [{}]", peers.join(", ")));
    }
    let config = config.route(route);
    (Rhumb::start(&config), port, config)
}

/// One request with what the client has of its session: which backend answered, and the cookie that was set.
fn visit(port: u16, cookie: Option<&str>) -> (String, Option<String>) {
    let cookie = cookie.map_or_else(String::new, |cookie| format!("Cookie: other=1; {cookie}\r\n"));
    let answer =
        Client::connect(local(port)).exchange(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{cookie}\r\n"));
    assert_eq!(answer.status(), 200);
    (answer.field("x-backend").expect("a name").to_owned(), answer.field("set-cookie").map(str::to_owned))
}

fn pair(set_cookie: &str) -> &str {
    set_cookie.split(';').next().unwrap_or_default()
}

#[test]
fn a_session_stays_at_its_endpoint_through_restarts_and_on_other_proxies() {
    let peers = [Backend::named("one"), Backend::named("two"), Backend::named("three")];
    let all: Vec<&Backend> = peers.iter().collect();
    let route = "match: {path: '/*'}, to: app, sessionPersistence: {sessionName: stay}";
    let (rhumb, port, config) = with_sessions(route, &[("app", &all)]);
    let mut homes = std::collections::BTreeSet::new();
    let mut sessions = Vec::new();
    for _ in 0..12 {
        let (home, cookie) = visit(port, None);
        let cookie = cookie.expect("a new session has a cookie");
        assert!(
            cookie.starts_with("stay=") && cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"),
            "{cookie}"
        );
        for peer in &peers {
            assert!(!cookie.contains(&peer.address().port().to_string()), "{cookie}");
        }
        homes.insert(home.clone());
        sessions.push((home, cookie));
    }
    assert!(homes.len() > 1, "all sessions are at {homes:?}");
    let stays = |port: u16| {
        for (home, cookie) in &sessions {
            let (at, again) = visit(port, Some(pair(cookie)));
            assert_eq!((&at, again), (home, None));
        }
    };
    stays(port);
    // Another proxy with the same configuration; one that is started anew is no different.
    let other = port::free();
    let text = rhumb.text_of(&config).replace(&format!("port: {port}"), &format!("port: {other}"));
    let (dir, admin) = (tempfile::tempdir().expect("a directory"), port::free());
    let text = text.replace(&rhumb.admin_address().to_string(), &local(admin).to_string());
    std::fs::write(dir.path().join("rhumb.yaml"), text).expect("a file");
    let second = Rhumb::start_on(dir, "rhumb.yaml", admin);
    stays(other);
    drop(second);
    // A token of somebody else's making is none.
    let (_, cookie) = visit(port, Some("stay=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
    assert!(cookie.is_some());
}

#[test]
fn a_session_whose_endpoint_is_gone_moves_with_a_new_token() {
    let peers = [Backend::named("one"), Backend::named("two")];
    // A backend that ends may take one more connection, and reset it.
    let route = "match: {path: '/*'}, to: app, retry: {attempts: 2}, sessionPersistence: {sessionName: stay, absoluteTimeout: 1h, \
                 cookieConfig: {lifetimeType: Permanent}}";
    let (rhumb, port, _) = with_sessions(route, &[("app", &[&peers[0], &peers[1]])]);
    let (home, cookie) = visit(port, None);
    let cookie = cookie.expect("a cookie");
    let age = cookie.split("Max-Age=").nth(1).and_then(|age| age.parse::<u32>().ok());
    assert!(age.is_some_and(|age| (3_500..=3_600).contains(&age)), "{cookie}");
    let [one, two] = peers;
    let left = if home == "one" {
        drop(one);
        two
    } else {
        drop(two);
        one
    };
    let (at, moved) = visit(port, Some(pair(&cookie)));
    assert_ne!(at, home);
    let moved = moved.expect("a new cookie");
    assert_eq!(visit(port, Some(pair(&moved))), (at, None));
    drop((rhumb, left));
}

#[test]
fn a_session_leaves_an_endpoint_that_was_put_out() {
    let peers = [Backend::named("one"), Backend::named("two")];
    let route = "match: {path: '/*'}, to: app, sessionPersistence: {sessionName: stay}";
    let (rhumb, port, _) = with_sessions(route, &[("app", &[&peers[0], &peers[1]])]);
    let (home, cookie) = visit(port, None);
    let cookie = cookie.expect("a cookie");
    let request = format!("GET /status/503 HTTP/1.1\r\nHost: a.test\r\nCookie: {}\r\n\r\n", pair(&cookie));
    let mut client = Client::connect(local(port));
    let moved = wait::until("the endpoint is put out", || {
        let answer = client.exchange(&request);
        (answer.field("x-backend") != Some(&*home)).then_some(answer)
    });
    let again = moved.field("set-cookie").expect("a new cookie");
    assert_ne!(pair(again), pair(&cookie));
    wait::until("the move is noted", || {
        (rhumb.metric("rhumb_notes_total", &["session_moved"]) >= 1.0).then_some(())
    });
}

#[test]
fn a_session_in_a_field_stays_in_a_weighted_split() {
    let peers = [Backend::named("blue"), Backend::named("green")];
    let route = "match: {path: '/*'}, to: [{backend: blue, weight: 50}, {backend: green, weight: 50}], \
                 sessionPersistence: {sessionName: X-Session, type: Header}";
    let (_rhumb, port, _) = with_sessions(route, &[("blue", &[&peers[0]]), ("green", &[&peers[1]])]);
    let mut homes = std::collections::BTreeSet::new();
    for _ in 0..16 {
        let mut client = Client::connect(local(port));
        let first = client.get("a.test", "/");
        let home = first.field("x-backend").expect("a name").to_owned();
        let token = first.field("x-session").expect("a token").to_owned();
        for _ in 0..4 {
            let again =
                client.exchange(format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Session: {token}\r\n\r\n"));
            assert_eq!(again.field("x-backend"), Some(&*home));
        }
        homes.insert(home);
    }
    assert_eq!(homes.len(), 2, "65,536 to 1 that both are chosen");
}

#[test]
fn sessions_of_a_backend_hold_for_its_routes_and_end_when_nobody_uses_them() {
    let peers = [Backend::named("one"), Backend::named("two"), Backend::named("three")];
    let port = port::free();
    let addresses: Vec<String> = peers.iter().map(|peer| format!("'{}'", peer.address())).collect();
    let config = Config::new()
        .listener("web", port, "")
        .backend("app", &format!("endpoints: [{}]", addresses.join(", ")))
        .route("match: {path: '/*'}, to: app");
    let body = "sessionPersistence: {sessionName: stay, idleTimeout: 1s}";
    let rhumb = start(&config, &traffic(&["app"], body));
    assert!(rhumb.log().contains("sealed without a secret"), "{}", rhumb.log());
    let (home, cookie) = visit(port, None);
    let cookie = cookie.expect("a cookie");
    assert_eq!(visit(port, Some(pair(&cookie))).0, home);
    // A session that was not used for a second is none: it gets a new token.
    let renewed = wait::until("the session ends", || visit(port, Some(pair(&cookie))).1);
    assert_ne!(pair(&renewed), pair(&cookie));
}
