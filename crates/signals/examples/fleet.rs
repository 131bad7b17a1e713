//! What it costs a control plane to put together what 2 000 proxies report.
//!
//! usage: fleet [PROXIES [SERVICES [CALLED]]]: each proxy serves one service and calls some others, all of them at work.

#![allow(clippy::print_stdout, clippy::expect_used, clippy::cast_precision_loss, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_signals::answer::{By, Sort};
use rhumb_signals::{History, Reporter, Ten};
use rhumb_telemetry::signals::{Dimension, Name, Outcome, Totals};

/// Spans that are reported: two minutes.
const SPANS: u64 = 12;

/// Seconds of a span, and a time that one begins at.
const SPAN: u64 = 10;
const START: u64 = 1_800_000_000;

fn totals(requests: u64) -> Totals {
    let mut totals = Totals { nanos: requests * 2_000_000, bytes_out: requests * 900, ..Totals::default() };
    totals.outcomes[Outcome::Ok as usize] = requests - 1;
    totals.outcomes[Outcome::BackendError as usize] = 1;
    for (bucket, share) in [(20, 2), (21, 4), (22, 4)] {
        totals.buckets.0[bucket] = requests / share;
    }
    totals
}

fn number(at: usize, usual: usize) -> usize {
    std::env::args().nth(at).and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

fn main() {
    let (proxies, services, called) = (number(1, 2_000), number(2, 1_000), number(3, 5));
    let service = |at: usize| format!("shop/s{}", at % services);
    let mut reports = Vec::new();
    for at in 0..proxies {
        let own = service(at);
        let reporter = Reporter {
            account: own.clone(),
            services: vec![Arc::from(own.clone())],
            address: format!("10.{}.{}.{}", at >> 16, at >> 8 & 255, at & 255),
            is_gateway: false,
        };
        let mut ten = Ten::default();
        for step in 1..=called {
            let target = format!("{}:80", service(at + step * 7));
            ten.series.push((Dimension::Edge, Name::new(&[&own, &target, "mtls"]), totals(100)));
            let endpoint = format!("10.0.{}.{}:80", step, at & 255);
            ten.series.push((Dimension::Endpoint, Name::new(&[&target, &endpoint]), totals(100)));
            let source = service(at + services - step * 7 % services);
            let target = format!("{own}:80");
            ten.series.push((Dimension::Edge, Name::new(&[&source, &target, "mtls"]), totals(100)));
        }
        reports.push((reporter, ten.write()));
    }
    let bytes: usize = reports.iter().map(|(_, series)| series.len()).sum();
    let directory = std::env::temp_dir().join(format!("rhumb-fleet-{}", std::process::id()));
    let file = directory.join("signals.redb");
    let before = resident_mib();
    let history = History::of_fleet_in_file(&file, rhumb_signals::history::fleet::FILE).expect("a file");
    let (mut taking, mut settling) = (Duration::ZERO, Duration::ZERO);
    let mut last = rhumb_signals::Taken::default();
    for span in 0..SPANS {
        let ended = START + (span + 1) * SPAN;
        let began = cpu();
        for (reporter, series) in &reports {
            last = history.take(reporter, series, 3_000, (ended + 3) * 1000);
        }
        taking += cpu() - began;
        let began = cpu();
        history.settle((ended + 5) * 1000, span + 1 == SPANS).expect("a history");
        settling += cpu() - began;
    }
    let asked = Instant::now();
    let edges = history.edges(None).edges.len();
    let edges_took = asked.elapsed();
    let asked = Instant::now();
    let top = history.top(By::Backend, Duration::from_secs(60), Sort::Errors, 20).items.len();
    let top_took = asked.elapsed();
    let per = |all: Duration| all.as_secs_f64() * 1000.0 / SPANS as f64;
    println!(
        "{proxies} proxies, {services} services, each calls {called}: {edges} edges, {} series of the last report",
        last.taken
    );
    println!(
        "reports: {} bytes each, {:.1} KiB/s together",
        bytes / proxies,
        bytes as f64 / SPAN as f64 / 1024.0
    );
    println!(
        "CPU of ten seconds: {:.0} ms to take over, {:.0} ms to settle and write ({:.1} % of a core)",
        per(taking),
        per(settling),
        (per(taking) + per(settling)) / (SPAN as f64 * 10.0)
    );
    println!(
        "memory: {} MiB more than before; file: {:.1} MiB, {} bytes of {SPANS} spans",
        resident_mib() - before.min(resident_mib()),
        std::fs::metadata(&file).map_or(0.0, |file| file.len() as f64 / 1048576.0),
        history.bytes()
    );
    println!("asked: edges in {edges_took:?}, top {top} in {top_took:?}");
    // What it wrote is nobody's.
    let _ = std::fs::remove_dir_all(&directory);
}
