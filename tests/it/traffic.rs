//! Traffic tools: faults, mirrors, cohorts and canaries.

use crate::gate::{Gate, local, problem};
use rhumb_testkit::backend::{Backend, pattern};
use rhumb_testkit::client::Client;
use rhumb_testkit::config::Config;
use rhumb_testkit::message::{Kind, Message};
use rhumb_testkit::process::{Rhumb, finish, script, serve_script};
use rhumb_testkit::{port, wait};
use std::path::PathBuf;
use std::time::Instant;

/// True when a share of `n` trials is within six standard deviations of what was asked for.
fn is_about(hits: usize, n: usize, share: f64) -> bool {
    let (n, hits) = (n as f64, hits as f64);
    (hits - n * share).abs() <= 6.0 * (n * share * (1.0 - share)).sqrt() + 1.0
}

/// What came of `n` GETs on one connection after another: statuses, 0 for a reset.
fn statuses(address: std::net::SocketAddr, fields: &str, n: usize) -> Vec<u16> {
    let mut client = None;
    (0..n)
        .map(|_| {
            let mut connection = client.take().unwrap_or_else(|| Client::connect(address));
            let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
            connection.send(request);
            match connection.try_response(Kind::Response) {
                Ok(response) => {
                    client = Some(connection);
                    response.status()
                }
                Err(_) => 0,
            }
        })
        .collect()
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|&&s| s == status).count()
}

#[test]
fn faults_happen_in_their_share_and_only_where_they_match() {
    const N: usize = 2000;
    let gate = Gate::with(|config| {
        config.route(
            "match: {path: '/*'}, to: peer, policies: {fault: {match: {cookies: [{name: chaos, value: 'yes'}]}, \
             abort: {status: 418, percentage: 30}, reset: {percentage: 20}}}",
        )
    });
    let broken = statuses(gate.proxy, "Cookie: a=1; chaos=yes\r\n", N);
    assert!(is_about(count(&broken, 418), N, 0.3), "{} aborts", count(&broken, 418));
    // A fifth of those that were not aborted.
    assert!(is_about(count(&broken, 0), N, 0.14), "{} resets", count(&broken, 0));
    assert_eq!(count(&broken, 418) + count(&broken, 0) + count(&broken, 200), N);
    assert_eq!(count(&statuses(gate.proxy, "Cookie: chaos=no\r\n", 100), 200), 100);
    let seen_by_backend = gate.backend.seen().len();
    assert_eq!(seen_by_backend, count(&broken, 200) + 100, "an aborted request reached the backend");
    let noted = |note: &str| gate.rhumb.metric("rhumb_notes_total", &[&format!("note=\"{note}\"")]) as usize;
    wait::until("every record", || {
        let counted = (noted("fault_abort"), noted("fault_reset"));
        (counted == (count(&broken, 418), count(&broken, 0))).then_some(())
    });
}

#[test]
fn an_abort_is_a_problem_document_with_its_own_code() {
    let gate = Gate::with(|config| {
        config.route("to: peer, policies: {fault: {abort: {status: 429, percentage: 100}}}")
    });
    let response = gate.get("/");
    assert_eq!((response.status(), problem(&response).as_str()), (429, "fault_injected"));
}

#[test]
fn a_delayed_request_waits_and_others_do_not() {
    let gate = Gate::with(|config| {
        config
            .route("match: {path: /slow}, to: peer, policies: {fault: {delay: {time: 300ms, percentage: 100}}}")
            .route("match: {path: /late}, to: peer, timeout: 200ms, policies: {fault: {delay: {time: 60s, percentage: 100}}}")
            .route("match: {path: /fast}, to: peer")
    });
    let mut slow = gate.connect();
    let begun = Instant::now();
    slow.send("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n");
    // The only worker serves others meanwhile.
    while gate.backend.seen().iter().filter(|seen| seen.message.target() == "/fast").count() < 3 {
        assert_eq!(gate.get("/fast").status(), 200);
    }
    assert_eq!(slow.response().status(), 200);
    assert!(begun.elapsed().as_millis() >= 300);
    // A delay counts against the request timeout.
    let late = gate.get("/late");
    assert_eq!((late.status(), problem(&late).as_str()), (504, "backend_timeout"));
    // Who leaves while waiting is let go.
    let mut gone = gate.connect();
    gone.send("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n");
    drop(gone);
    wait::until("the client's leaving", || {
        (gate.rhumb.metric("rhumb_failures_total", &["code=\"client_closed\""]) >= 1.0).then_some(())
    });
    wait::until("the delays", || {
        (gate.rhumb.metric("rhumb_notes_total", &["note=\"fault_delay\""]) == 3.0).then_some(())
    });
}

#[test]
fn a_narrow_line_lengthens_a_response_in_proportion() {
    const SIZE: u64 = 200_000;
    let gate = Gate::with(|config| {
        let fault = |rate| format!("policies: {{fault: {{bandwidth: {{rate: {rate}, percentage: 100}}}}}}");
        config
            .route(&format!("match: {{path: /chunked/*}}, to: peer, {}", fault("200k")))
            .route(&format!("match: {{path: /bytes/*}}, to: peer, {}", fault("400k")))
    });
    let time = |kind: &str| {
        let begun = Instant::now();
        let response = gate.get(&format!("/{kind}/{SIZE}"));
        assert!(response.content == pattern(SIZE), "{kind}: wrong content");
        begun.elapsed().as_secs_f64()
    };
    let (slow, fast) = (time("chunked"), time("bytes"));
    // 1 s and 0.5 s, less a step at the beginning; a busy machine may add to both.
    assert!(slow >= 0.9 && fast >= 0.45, "{slow} {fast}");
    assert!((1.3..2.6).contains(&(slow / fast)), "{slow} {fast}");
    let notes = |note: &str| gate.rhumb.metric("rhumb_notes_total", &[&format!("note=\"{note}\"")]);
    // A record is made when its response is written, which the client may see first.
    wait::until("both records", || (notes("fault_bandwidth") == 2.0).then_some(()));
    assert_eq!(notes("spliced"), 0.0);
}

#[test]
fn grpc_clients_get_their_own_kind_of_abort() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer: PathBuf = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/grpc_peer.py").into();
    let (server_port, port) = (port::free(), port::free());
    let _server = serve_script(&peer, &["server"], server_port, &dir.path().join("server.log"));
    let abort = |body: &str| format!("policies: {{fault: {{abort: {{percentage: 100, {body}}}}}}}");
    let config = Config::new()
        .listener("web", port, "")
        .backend("grpc", &format!("endpoints: ['127.0.0.1:{server_port}'], protocol: h2c"))
        .route(&format!("match: {{path: /test.Echo/Unary}}, to: grpc, {}", abort("grpcStatus: DATA_LOSS")))
        .route(&format!("match: {{path: /test.Echo/Metadata}}, to: grpc, {}", abort("status: 503")))
        .route("match: {path: /test.Echo/Large}, to: grpc, policies: {fault: {reset: {percentage: 100}}}")
        .route("match: {path: /test.Echo/*}, to: grpc");
    let _rhumb = Rhumb::start(&config);
    let address = local(port).to_string();
    let ask = |method: &str| finish(script(&peer, &["ask", &address, method, "5"])).output;
    assert_eq!(ask("Unary").trim(), "DATA_LOSS A policy injected a fault into this request.");
    assert_eq!(ask("Metadata").trim(), "UNAVAILABLE A policy injected a fault into this request.");
    let reset = ask("Large");
    assert!(reset.starts_with("INTERNAL") || reset.starts_with("UNAVAILABLE"), "{reset}");
    assert_eq!(ask("Hangs").trim(), "OK 0 0");
}

/// Where a request went, as the backend says.
fn name_of(response: &Message) -> String {
    response.field("x-backend").unwrap_or_default().to_owned()
}

/// Two backends that name themselves, and a proxy that knows them.
struct Split {
    gate: Gate,
    backends: [Backend; 2],
}

impl Split {
    fn new(routes: &[&str]) -> Self {
        let backends = ["stable", "canary"].map(Backend::named);
        let gate = Gate::with(|config| Self::fill(config, &backends, routes));
        Self { gate, backends }
    }

    fn fill(mut config: Config, backends: &[Backend; 2], routes: &[&str]) -> Config {
        for (name, backend) in ["stable", "canary"].iter().zip(backends) {
            config = config.backend(name, &format!("endpoints: ['{}']", backend.address()));
        }
        routes.iter().fold(config, |config, route| config.route(route))
    }

    fn ask(&self, fields: &str) -> String {
        let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        name_of(&self.gate.connect().exchange(request))
    }

    /// Gives the proxy other routes, and waits until they hold.
    fn change(&self, routes: &[&str]) {
        let peer = format!("endpoints: ['{}']", self.gate.backend.address());
        let config = Config::new()
            .top("workers: 1")
            .listener("web", self.gate.proxy.port(), "")
            .backend("peer", &peer);
        let before = self.gate.rhumb.metric("rhumb_config_revision", &[]);
        self.gate.rhumb.write(&Self::fill(config, &self.backends, routes));
        wait::until("the new revision", || {
            (self.gate.rhumb.metric("rhumb_config_revision", &[]) > before).then_some(())
        });
    }
}

#[test]
fn a_cohort_stays_through_reloads_and_weight_changes() {
    const CLIENTS: usize = 1500;
    let route = |canary: u32| {
        format!(
            "to: [{{backend: stable, weight: {}}}, {{backend: canary, weight: {canary}}}], \
             policies: {{cohort: {{by: header, name: x-user}}}}",
            100 - canary
        )
    };
    let split = Split::new(&[&route(10)]);
    let mut client = Client::connect(split.gate.proxy);
    let mut all = || -> Vec<bool> {
        let ask = |user: usize| {
            let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-User: user-{user}\r\n\r\n");
            name_of(&client.exchange(request)) == "canary"
        };
        (0..CLIENTS).map(ask).collect()
    };
    let first = all();
    let share = |all: &[bool]| all.iter().filter(|in_canary| **in_canary).count();
    assert!(is_about(share(&first), CLIENTS, 0.1), "{}", share(&first));
    assert!(all() == first, "a client moved without a reason");
    split.change(&[&route(20)]);
    let raised = all();
    assert!(is_about(share(&raised), CLIENTS, 0.2), "{}", share(&raised));
    assert!(first.iter().zip(&raised).all(|(was, is)| !was || *is), "a client left the canary as it grew");
    split.change(&[&route(10)]);
    assert!(all() == first, "a client did not come back");
}

#[test]
fn a_browser_gets_a_cookie_and_stays() {
    let split = Split::new(&["to: [{backend: stable, weight: 1}, {backend: canary, weight: 1}], \
         policies: {cohort: {by: cookie, name: side, lifetime: 1h}}"]);
    let mut went = [0, 0];
    for _ in 0..60 {
        let first = split.gate.get("/");
        let set = first.field("set-cookie").expect("a cookie").to_owned();
        let (pair, attributes) = set.split_once("; ").expect("attributes");
        assert!(pair.starts_with("side="), "{set}");
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Max-Age=3600");
        for cookies in [format!("Cookie: {pair}\r\n"), format!("Cookie: a=1; {pair}; b=2\r\n")] {
            let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{cookies}\r\n");
            let again = split.gate.connect().exchange(request);
            assert_eq!(name_of(&again), name_of(&first));
            assert_eq!(again.field("set-cookie"), None);
        }
        went[usize::from(name_of(&first) == "canary")] += 1;
    }
    assert!(is_about(went[0], 60, 0.5), "{went:?}");
}

#[test]
fn a_canary_is_reached_by_cookie_whichever_line_has_it() {
    let split = Split::new(&[
        "to: stable",
        "match: {cookies: {canary: always}}, to: canary",
        "match: {cookies: {canary: '~v[0-9]+', team: blue}}, to: canary",
    ]);
    for (fields, expected) in [
        ("", "stable"),
        ("Cookie: canary=always\r\n", "canary"),
        ("Cookie: a=1; canary=always; b=2\r\n", "canary"),
        ("Cookie: a=1\r\nCookie: canary=always\r\n", "canary"),
        ("Cookie: canary=never\r\nCookie: canary=always\r\n", "stable"),
        ("Cookie: xcanary=always\r\n", "stable"),
        ("Cookie: a=canary=always\r\n", "stable"),
        ("Cookie: canary=v2\r\n", "stable"),
        ("Cookie: canary=v2; team=blue\r\n", "canary"),
        ("Cookie: team=blue; x=y; canary=v12\r\n", "canary"),
        ("Cookie: canary=vx; team=blue\r\n", "stable"),
    ] {
        assert_eq!(split.ask(fields), expected, "{fields:?}");
    }
    // HTTP/2 gives each cookie a line of its own (RFC 9113 §8.2.3).
    let url = format!("http://{}/", split.gate.proxy);
    let h2 = |cookies: &[&str]| {
        let mut command = std::process::Command::new("curl");
        command.args([
            "-sS",
            "--http2-prior-knowledge",
            "--noproxy",
            "*",
            "-o",
            "/dev/null",
            "-D",
            "-",
            &url,
        ]);
        for cookie in cookies {
            command.args(["-H", &format!("cookie: {cookie}")]);
        }
        finish(command).output
    };
    assert!(h2(&["a=1", "canary=v7", "team=blue"]).contains("x-backend: canary"));
    assert!(h2(&["a=1", "team=blue"]).contains("x-backend: stable"));
}

#[test]
fn mirrors_see_the_same_requests() {
    const N: usize = 400;
    let (all, some) = (Backend::start(), Backend::start());
    let gate = Gate::with(|config| {
        config
            .backend("all", &format!("endpoints: ['{}']", all.address()))
            .backend("some", &format!("endpoints: ['{}']", some.address()))
            .route(
                "match: {path: '/*'}, to: peer, mirror: [all, {backend: some, fraction: {numerator: 1, denominator: 4}}], \
                 requestHeaders: {set: {x-set: by-rule}}",
            )
    });
    let mut client = gate.connect();
    for n in 0..N {
        // Without content, with a length, and chunked.
        let request = match n % 3 {
            0 => format!("GET /{n}?q=1 HTTP/1.1\r\nHost: a.test\r\nX-N: {n}\r\n\r\n"),
            1 => format!("POST /{n} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nbody{}", n % 10),
            _ => format!(
                "PUT /{n} HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            ),
        };
        assert_eq!(client.exchange(request).status(), 200);
    }
    let copies = |backend: &Backend| {
        let mut seen: Vec<_> = backend
            .seen()
            .into_iter()
            .map(|seen| {
                let message = seen.message;
                let mut fields = message.fields.clone();
                fields.sort();
                (message.target().to_owned(), message.method().to_owned(), message.content, fields)
            })
            .collect();
        seen.sort();
        seen
    };
    wait::until("all copies", || (all.seen().len() >= N).then_some(()));
    let original = copies(&gate.backend);
    assert!(copies(&all) == original, "a copy differs from its request");
    assert!(original.iter().all(|(.., fields)| fields.contains(&("x-set".into(), "by-rule".into()))));
    let results = |backend: &str| {
        let backend = format!("backend=\"default/{backend}\"");
        gate.rhumb.metric("rhumb_mirrored_requests_total", &[&backend, "result=\"answered\""]) as usize
    };
    wait::until("the answers", || {
        (results("all") == N && results("some") == some.seen().len()).then_some(())
    });
    assert!(is_about(some.seen().len(), N, 0.25), "{} copies", some.seen().len());
}

#[test]
fn mirrors_that_are_dead_slow_or_too_small_change_nothing() {
    const N: usize = 600;
    // Its connections are opened by the kernel, and nobody ever answers on them.
    let slow = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let slow_port = slow.local_addr().expect("an address").port();
    let gone = port::free();
    let gate = Gate::with(|config| {
        config
            .backend("slow", &format!("endpoints: ['127.0.0.1:{slow_port}']"))
            .backend("gone", &format!("endpoints: ['127.0.0.1:{gone}']"))
            .route("match: {path: '/*'}, to: peer, timeout: 600s, mirror: [slow, gone]")
    });
    let mut client = gate.connect();
    for _ in 0..N {
        assert_eq!(client.get("a.test", "/bytes/10").status(), 200);
    }
    let large = vec![b'x'; 2 << 20];
    let mut request =
        format!("POST /large HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", large.len())
            .into_bytes();
    request.extend_from_slice(&large);
    assert_eq!(client.exchange(request).status(), 200);
    assert_eq!(gate.backend.seen().len(), N + 1);
    let count = |backend: &str, result: &str| {
        let labels = [format!("backend=\"default/{backend}\""), format!("result=\"{result}\"")];
        gate.rhumb.metric("rhumb_mirrored_requests_total", &[&labels[0], &labels[1]]) as usize
    };
    wait::until("the failures", || {
        (count("gone", "failed") + count("gone", "skipped_busy") == N).then_some(())
    });
    assert_eq!((count("gone", "skipped_content"), count("slow", "skipped_content")), (1, 1));
    // What the slow one was sent is bounded; nothing came back, and nobody waited for it.
    assert!(count("slow", "skipped_busy") >= N - 256, "{} skipped", count("slow", "skipped_busy"));
    assert_eq!(count("slow", "answered"), 0);
}
