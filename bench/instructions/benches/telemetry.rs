//! What is told of a finished exchange: a line of the access log, golden signals, the API finder, spans.
#![allow(missing_docs, unused_qualifications, reason = "made by gungraun's macros")]

use std::hint::black_box;
use std::time::Duration;

use gungraun::prelude::*;
use rhumb_telemetry::access_log::JsonLine;
use rhumb_telemetry::record::{Protocol, Scheme, StatusSource, Timing};
use rhumb_telemetry::sightings::{Content, Parties};
use rhumb_telemetry::signals::{BUDGET, Seen};
use rhumb_telemetry::trace::{Attempt, Batch, Traced};
use rhumb_telemetry::{Board, Lookout, Record, Registry, TraceContext, WorkerSightings, WorkerSignals};

const TRACEPARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn record() -> Record<'static> {
    Record {
        start_unix_nanos: 1_772_000_000_123_456_789,
        timing: Timing {
            total: Duration::from_micros(571),
            upstream_first_byte: Some(Duration::from_micros(556)),
            upstream_total: Some(Duration::from_micros(570)),
            ..Timing::default()
        },
        client: Some("192.0.2.7:58658".parse().expect("an address")),
        method: b"GET",
        scheme: Scheme::Http,
        authority: b"server.bench.test",
        path: b"/svc00080/b/1024",
        protocol: Protocol::Http11,
        status: 200,
        status_source: StatusSource::Upstream,
        bytes_out: 1024,
        listener: "default/web/http",
        route: "default/svc00080",
        rule: "/svc00080/*",
        backend: "default/app",
        endpoint: "10.0.0.3:9100",
        upstream_status: Some(200),
        tries: 1,
        request_id: b"01a202bc-77b0-790b-b7b3-4cd8c652947a",
        trace: TraceContext::parse(TRACEPARENT),
        user_agent: b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        referer: b"https://app.example.test/dashboard/orders",
        config_revision: 1,
        ..Record::default()
    }
}

// Each has been used before: what is met for the first time costs more, once.

fn log() -> (JsonLine, Vec<u8>, Record<'static>) {
    let (mut line, mut out, record) = (JsonLine::default(), Vec::new(), record());
    line.write(&mut out, &record);
    out.clear();
    (line, out, record)
}

fn seen(registry: &Registry) -> Seen<'static> {
    Seen {
        rule: registry.rule("default/svc00080", "/svc00080/*"),
        backend: Some(registry.backend("default/app")),
        endpoint: Some(77),
        source: "gateway",
        target: "default/app",
        is_mutual: false,
        plan: "",
    }
}

fn board() -> (WorkerSignals, Seen<'static>, Record<'static>) {
    let registry = Registry::new();
    let (mut worker, seen, record) = (Board::new(BUDGET, 7, &registry).worker(), seen(&registry), record());
    worker.count(&record, &seen);
    (worker, seen, record)
}

fn content() -> Content<'static> {
    Content { response_type: b"application/octet-stream", ..Content::default() }
}

fn finder() -> (WorkerSightings, Record<'static>) {
    let (mut worker, record) = (Lookout::new(7, &Registry::new()).worker(), record());
    worker.see(&record, &Parties::default(), &content());
    (worker, record)
}

fn tell(batch: &mut Batch, record: &Record<'_>) {
    let Some(context) = record.trace else { return };
    let attempt = Attempt { endpoint: record.endpoint, status: Some(200), ..Attempt::default() };
    batch.push(&Traced { record, context, parent: None, attempts: &[attempt], waits: &[] });
}

fn spans() -> (Batch, Record<'static>) {
    let (mut batch, record) = (Batch::default(), record());
    tell(&mut batch, &record);
    (batch, record)
}

#[library_benchmark]
#[bench::json(log())]
fn line((mut line, mut out, record): (JsonLine, Vec<u8>, Record<'static>)) -> Vec<u8> {
    line.write(&mut out, black_box(&record));
    out
}

#[library_benchmark]
#[bench::known(board())]
fn signals((mut worker, seen, record): (WorkerSignals, Seen<'static>, Record<'static>)) -> WorkerSignals {
    worker.count(black_box(&record), black_box(&seen));
    worker
}

#[library_benchmark]
#[bench::known(finder())]
fn sighting((mut worker, record): (WorkerSightings, Record<'static>)) -> WorkerSightings {
    worker.see(black_box(&record), &Parties::default(), &content());
    worker
}

#[library_benchmark]
#[bench::two(spans())]
fn span((mut batch, record): (Batch, Record<'static>)) -> Batch {
    tell(&mut batch, black_box(&record));
    batch
}

library_benchmark_group!(name = telemetry, benchmarks = [line, signals, sighting, span]);
main!(library_benchmark_groups = telemetry);
