//! What a choice costs, and what accounting for health adds to it: `cargo run --profile fast --example balance_cost -p rhumb-balance`.
#![allow(clippy::print_stdout)] // its output is its purpose

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rhumb_balance::{
    Algorithm, Ask, EndpointSet, EndpointSpec, Endpoints, Nanos, Outcome, Outlier, Pick, Settings, hash,
};
use rhumb_base::rng::Rng;

const CALLS: u64 = 50_000;

fn main() {
    println!(
        "{:<12} {:>9} {:>9} {:>22} {:>10}",
        "algorithm", "endpoints", "ns/pick", "ns/pick+start+finish", "ms/build"
    );
    for algorithm in Algorithm::ALL {
        for len in [2u16, 10, 100, 1000] {
            let specs: Vec<_> =
                (1..=len).map(|port| EndpointSpec::new(SocketAddr::from(([10, 0, 0, 1], port)))).collect();
            let start = Instant::now();
            let set = EndpointSet::new(specs, algorithm);
            let building = start.elapsed();
            let mut rng = Rng::new(1);
            let pick = |i: u64, rng: &mut Rng| {
                let ask =
                    Pick { key: Some(hash::mix(i)), now: Nanos(i * 10_000), excluded: &[], may_probe: false };
                set.pick(black_box(ask), rng).map(|picked| (picked.index, picked.endpoint))
            };
            let whole = time(|i| {
                let Some((index, endpoint)) = pick(i, &mut rng) else { return 0 };
                let latency = Duration::from_nanos(1_000_000 + i % 1000);
                endpoint.start().finish(latency, Outcome::Success, Nanos(i * 10_000));
                index
            });
            let only = time(|i| pick(i, &mut rng).map_or(0, |(index, _)| index));
            println!(
                "{:<12} {len:>9} {only:>9.1} {whole:>22.1} {:>10.3}",
                algorithm.as_str(),
                building.as_secs_f64() * 1e3
            );
        }
    }
    println!(
        "\n{:<12} {:>9} {:>9} {:>9} {:>22}",
        "algorithm", "endpoints", "ns off", "ns on", "ns on, 1 of 100 fails"
    );
    for algorithm in Algorithm::ALL {
        for len in [2u16, 10, 1000] {
            let off = accounting(algorithm, len, None, false);
            let on = accounting(algorithm, len, Some(Outlier::default()), false);
            let failing = accounting(algorithm, len, Some(Outlier::default()), true);
            println!("{:<12} {len:>9} {off:>9.1} {on:>9.1} {failing:>22.1}", algorithm.as_str());
        }
    }
}

/// Nanoseconds of a request from choice to end.
fn accounting(algorithm: Algorithm, len: u16, outlier: Option<Outlier>, fails: bool) -> f64 {
    let specs = (1..=len).map(|port| EndpointSpec::new(SocketAddr::from(([10, 0, 0, 1], port)))).collect();
    let settings = Settings { outlier, ..Settings::default() };
    let cell = Endpoints::with(EndpointSet::new(specs, algorithm), settings, None);
    let mut rng = Rng::new(1);
    time(|i| {
        let now = Nanos(i * 10_000);
        let ask = Ask { key: Some(hash::mix(i)), now, may_probe: true, tried: &[] };
        let Ok(load) = cell.begin(black_box(ask), &mut rng) else { return 0 };
        let outcome = if fails && i % 100 == 0 { Outcome::ServerError } else { Outcome::Success };
        cell.finish(load, Duration::from_nanos(1_000_000 + i % 1000), outcome, now);
        1
    })
}

/// Nanoseconds per call: the best of many short rounds, as other programs run too.
fn time(mut call: impl FnMut(u64) -> u32) -> f64 {
    (0..25)
        .map(|round| {
            let start = Instant::now();
            for i in 0..CALLS {
                black_box(call(round * CALLS + i));
            }
            start.elapsed().as_secs_f64() * 1e9 / CALLS as f64
        })
        .fold(f64::INFINITY, f64::min)
}
