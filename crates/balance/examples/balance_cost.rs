//! What a choice costs: `cargo run --profile fast --example balance_cost -p rhumb-balance`.
#![allow(clippy::print_stdout)] // its output is its purpose

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rhumb_balance::{Algorithm, EndpointSet, EndpointSpec, Nanos, Outcome, Pick, hash};
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
