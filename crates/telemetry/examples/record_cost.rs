//! What one finished exchange costs a worker: ids, log line, metrics. `cargo run --release --example record_cost -p
//! rhumb-telemetry [-- RECORDS [PART OF A NAME]]`. Prints nanoseconds per record, best of several rounds.
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::hint::black_box;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use rhumb_telemetry::access_log::{Format, QueryLog, Sink};
use rhumb_telemetry::record::{Protocol, Record, Scheme, StatusSource, Timing, TlsRecord};
use rhumb_telemetry::sightings::{Content, Parties};
use rhumb_telemetry::signals::{BUDGET, Seen};
use rhumb_telemetry::{AccessLog, AccessLogConfig, Board, IdSource, Lookout, Registry, TraceContext};

const ROUNDS: usize = 7;
const RECORDS: u32 = 200_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = Registry::new();
    let listener = registry.listener("web");
    let rules: Vec<_> = (0..100).map(|n| registry.rule("default/users", &format!("/users/{n}/*"))).collect();
    let backend = registry.backend("default/users");
    let mut metrics = registry.worker();
    let mut ids = IdSource::from_os()?;
    let now = Instant::now();
    let id = ids.request_id(1_772_000_000_123);
    let trace = ids.trace(true);
    let plain = record(id.as_bytes(), trace);
    let tls = Record {
        scheme: Scheme::Https,
        tls: Some(TlsRecord {
            version: "1.3",
            cipher: "TLS_AES_128_GCM_SHA256",
            sni: b"api.example.com",
            client_subject: b"",
        }),
        ..plain.clone()
    };

    measure("request id", |n| _ = black_box(ids.request_id(1_772_000_000_000 + u64::from(n / 8))));
    measure("trace context, parsed and written", |_| {
        let parent =
            TraceContext::parse(black_box(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        _ = black_box(parent.map(|parent| ids.child(&parent).to_bytes()));
    });
    measure("metrics, 1 rule", |_| metrics.finish(black_box(&plain), listener, rules[0], Some(backend)));
    measure("metrics, 100 rules", |n| {
        metrics.finish(black_box(&plain), listener, rules[n as usize % 100], Some(backend));
    });
    let board = Board::new(BUDGET, 7, &registry);
    let mut signals = board.worker();
    let seen = |rule| Seen {
        rule,
        backend: Some(backend),
        endpoint: Some(1),
        source: "gateway",
        target: "default/users",
        is_mutual: false,
        plan: "",
    };
    measure("golden signals, 1 rule", |_| signals.count(black_box(&plain), &seen(rules[0])));
    measure("golden signals, 100 rules", |n| {
        signals.count(black_box(&plain), &seen(rules[n as usize % 100]));
    });
    let mut sightings = Lookout::new(7, &registry).worker();
    let content = Content { request_type: b"", response_type: b"application/json", ..Content::default() };
    let parties = Parties::default();
    measure("sightings of APIs", |_| sightings.see(black_box(&plain), &parties, &content));
    let formats = [
        ("JSON line", Format::Json, QueryLog::Omitted, &plain),
        ("JSON line, query", Format::Json, QueryLog::Redacted, &plain),
        ("JSON line, TLS", Format::Json, QueryLog::Omitted, &tls),
        ("combined line", Format::Combined, QueryLog::Omitted, &plain),
    ];
    for (name, format, query, record) in formats {
        let sink = Sink::File("/dev/null".into());
        let config = AccessLogConfig { sink, format, query, ..AccessLogConfig::default() };
        let mut log = AccessLog::open(config, &registry)?.worker();
        measure(name, |_| log.push(black_box(record), now));
    }
    // As in a proxy: between two lines the kernel has had the nearest cache.
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(socket.local_addr()?)?;
    let trip = || {
        for _ in 0..2 {
            _ = black_box(socket.send(&[7; 512]));
            _ = black_box(socket.recv(&mut [0; 512]));
        }
    };
    measure("two datagrams", |_| trip());
    let sink = Sink::File("/dev/null".into());
    let mut log =
        AccessLog::open(AccessLogConfig { sink, ..AccessLogConfig::default() }, &registry)?.worker();
    measure("two datagrams and a JSON line", |_| {
        trip();
        log.push(black_box(&plain), now);
    });
    let sink = Sink::File("/dev/null".into());
    let mut log =
        AccessLog::open(AccessLogConfig { sink, ..AccessLogConfig::default() }, &registry)?.worker();
    measure("all: id, trace, JSON line, metrics", |n| {
        metrics.begin(listener);
        let millis = 1_772_000_000_000 + u64::from(n / 8);
        let id = ids.request_id(millis);
        let record =
            Record { start_unix_nanos: millis * 1_000_000, ..record(id.as_bytes(), ids.trace(true)) };
        metrics.finish(black_box(&record), listener, rules[n as usize % 100], Some(backend));
        log.push(&record, now);
    });
    Ok(())
}

fn measure(name: &str, mut work: impl FnMut(u32)) {
    let mut args = std::env::args().skip(1);
    let records = args.next().and_then(|n| n.parse().ok()).unwrap_or(RECORDS);
    if args.next().is_some_and(|part| !name.contains(&part)) {
        return;
    }
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        (0..records).for_each(&mut work);
        best = best.min(start.elapsed());
    }
    println!("{name:36} {:7.1} ns", best.as_secs_f64() * 1e9 / f64::from(records));
}

fn record(request_id: &[u8], trace: TraceContext) -> Record<'_> {
    Record {
        start_unix_nanos: 1_772_000_000_123_456_789,
        timing: Timing {
            total: Duration::from_micros(1_234),
            request_body: None,
            connect: None,
            upstream_first_byte: Some(Duration::from_micros(1_100)),
            upstream_total: Some(Duration::from_micros(1_150)),
        },
        client: "192.0.2.7:51234".parse().ok(),
        method: b"GET",
        authority: b"api.example.com",
        path: b"/users/7/orders/2026-02-25",
        query: Some(b"page=2&sort=created&access_token=hunter2"),
        protocol: Protocol::Http11,
        status: 200,
        status_source: StatusSource::Upstream,
        bytes_out: 1024,
        listener: "web",
        route: "default/users",
        rule: "/users/*",
        backend: "default/users",
        endpoint: "10.0.0.3:9001",
        upstream_status: Some(200),
        tries: 1,
        request_id,
        trace: Some(trace),
        user_agent: b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        config_revision: 42,
        ..Record::default()
    }
}
