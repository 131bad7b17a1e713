//! Choosing an endpoint and accounting for the end of a request, with detection of failing endpoints on and off.
#![allow(missing_docs, unused_qualifications, reason = "made by gungraun's macros")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use gungraun::prelude::*;
use rhumb_balance::{
    Algorithm, Ask, EndpointSet, EndpointSpec, Endpoints, Nanos, Outcome, Outlier, Settings,
};
use rhumb_base::rng::Rng;

struct Backend {
    cell: Endpoints,
    rng: Rng,
    now: Nanos,
}

fn backend(outlier: Option<Outlier>) -> Backend {
    let specs = (1..=10).map(|port| EndpointSpec::new(SocketAddr::from(([10, 0, 0, 1], port))));
    let settings = Settings { outlier, ..Settings::default() };
    let cell = Endpoints::with(EndpointSet::new(specs.collect(), Algorithm::LeastBusy), settings, None);
    let mut backend = Backend { cell, rng: Rng::new(1), now: Nanos(0) };
    // As after a while of doing well.
    for _ in 0..1000 {
        request(&mut backend, Outcome::Success);
    }
    backend
}

fn request(backend: &mut Backend, outcome: Outcome) {
    backend.now.0 += 100_000;
    let ask = Ask { now: backend.now, may_probe: true, ..Ask::default() };
    let load = backend.cell.begin(ask, &mut backend.rng).expect("an endpoint");
    backend.cell.finish(load, Duration::from_millis(1), outcome, backend.now);
}

fn off() -> Backend {
    backend(None)
}

fn on() -> Backend {
    backend(Some(Outlier::default()))
}

#[library_benchmark]
#[bench::off(off())]
#[bench::on(on())]
fn success(mut backend: Backend) -> Backend {
    request(black_box(&mut backend), Outcome::Success);
    backend
}

#[library_benchmark]
#[bench::off(off())]
#[bench::on(on())]
fn failure(mut backend: Backend) -> Backend {
    request(black_box(&mut backend), Outcome::ServerError);
    backend
}

library_benchmark_group!(name = accounting, benchmarks = [success, failure]);
main!(library_benchmark_groups = accounting);
