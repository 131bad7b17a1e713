//! Where requests go.

use std::net::SocketAddr;

use rhumb_balance::{Algorithm, EndpointSet, EndpointSpec, Gate, Nanos, Pick};
use rhumb_base::rng::Rng;

use crate::world::{Behaviour, World, specs, takes};

const SEEDS: std::ops::Range<u64> = 0..4;

#[test]
fn a_slow_endpoint_gets_less_than_a_twentieth() {
    for seed in SEEDS {
        for (peers, rate) in [(2, 50.0), (2, 500.0), (9, 1000.0)] {
            let mut behaviour = vec![takes(10.0); peers];
            behaviour.push(takes(100.0));
            let mut world = World::new(&vec![1; peers + 1], Algorithm::LeastBusy, &behaviour, seed);
            world.run(20_000, rate);
            let shares = world.shares();
            assert!(shares[peers] < 0.05, "seed {seed}, rate {rate}: {shares:?}");
        }
    }
}

#[test]
fn equal_endpoints_share_evenly() {
    for seed in SEEDS {
        for (algorithm, tolerance) in [
            (Algorithm::LeastBusy, 0.15),
            (Algorithm::RoundRobin, 0.01),
            (Algorithm::Random, 0.06),
            (Algorithm::RingHash, 0.25),
            (Algorithm::Maglev, 0.06),
        ] {
            for rate in [20.0, 2000.0] {
                let mut world = World::new(&[1; 5], algorithm, &[takes(10.0); 5], seed);
                world.run(30_000, rate);
                let shares = world.shares();
                for share in &shares {
                    assert!((share * 5.0 - 1.0).abs() < tolerance, "{algorithm:?} seed {seed}: {shares:?}");
                }
            }
        }
    }
}

#[test]
fn weights_are_respected_when_idle_and_when_busy() {
    let weights = [1, 2, 3, 0, 4];
    for seed in SEEDS {
        for (algorithm, tolerance) in [
            (Algorithm::LeastBusy, 0.3),
            (Algorithm::RoundRobin, 0.01),
            (Algorithm::Random, 0.08),
            (Algorithm::RingHash, 0.25),
            (Algorithm::Maglev, 0.08),
        ] {
            for rate in [20.0, 5000.0] {
                let mut world = World::new(&weights, algorithm, &[takes(10.0); 5], seed);
                world.run(30_000, rate);
                let shares = world.shares();
                for (share, &weight) in shares.iter().zip(&weights) {
                    let wanted = f64::from(weight) / 10.0;
                    assert!(
                        (share - wanted).abs() <= tolerance * wanted,
                        "{algorithm:?} seed {seed} rate {rate}: {shares:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_busy_endpoint_gets_what_it_can_do() {
    // Two can work on 20 requests at a time, one on 5: together 4500 per second.
    let limited = |capacity| Behaviour { capacity, ..takes(10.0) };
    for seed in SEEDS {
        let behaviour = [limited(20), limited(20), limited(5)];
        let mut world = World::new(&[1; 3], Algorithm::LeastBusy, &behaviour, seed);
        world.run(40_000, 4000.0);
        let shares = world.shares();
        assert!(shares[2] < 0.15 && world.peaks[2] < 60, "seed {seed}: {shares:?} {:?}", world.peaks);
    }
}

#[test]
fn failing_quickly_does_not_attract_requests() {
    for seed in SEEDS {
        let failing = Behaviour { fails: true, ..takes(10.0) };
        let mut world = World::new(&[1; 3], Algorithm::LeastBusy, &[takes(10.0), takes(10.0), failing], seed);
        world.run(20_000, 500.0);
        let shares = world.shares();
        assert!(shares[2] < 0.02, "seed {seed}: {shares:?}");
        world.behaviour[2].fails = false;
        world.run(60_000, 500.0);
        world.counts.fill(0);
        world.run(20_000, 500.0);
        let shares = world.shares();
        assert!(shares[2] > 0.2, "it comes back, seed {seed}: {shares:?}");
    }
}

#[test]
fn a_new_endpoint_is_not_flooded() {
    for seed in SEEDS {
        let mut world = World::new(&[1; 5], Algorithm::LeastBusy, &[takes(50.0); 6], seed);
        world.run(20_000, 1000.0);
        let usual = *world.peaks.iter().max().unwrap();
        world.set = world.set.next(specs(&[1; 6]), Algorithm::LeastBusy, Nanos(world.now));
        world.counts.fill(0);
        world.peaks.fill(0);
        world.grow(6);
        world.run(2_000, 1000.0);
        let first = world.shares();
        assert!(world.peaks[5] <= usual + usual / 2, "seed {seed}: {} {usual}", world.peaks[5]);
        assert!(first[5] > 0.08 && first[5] < 0.35, "seed {seed}: {first:?}");
    }
}

#[test]
fn what_is_not_eligible_or_excluded_or_without_weight_is_never_chosen() {
    for algorithm in Algorithm::ALL {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let len = [1, 2, 3, 10, 200][rng.below(5) as usize];
            let weights: Vec<u32> = (0..len).map(|_| rng.below(3)).collect();
            let set = EndpointSet::new(specs(&weights), algorithm);
            let odds = 1 + rng.below(6);
            let mut excluded = Vec::new();
            let mut allowed = Vec::new();
            for (i, member) in (0u32..).zip(set.members()) {
                let (is_out, is_excluded) = (rng.below(odds) != 0, rng.below(8) == 0);
                member.endpoint().set_gate(if is_out { Gate::SHUT } else { Gate::OPEN });
                if is_excluded {
                    excluded.push(i);
                }
                if !is_out && !is_excluded && member.weight() > 0 {
                    allowed.push(i);
                }
            }
            for _ in 0..50 {
                let key = (rng.below(4) > 0).then(|| rng.next_u64());
                let ask = Pick { key, now: Nanos(1), excluded: &excluded, may_probe: false };
                match set.pick(ask, &mut rng) {
                    Some(picked) => assert!(allowed.contains(&picked.index), "{algorithm:?} seed {seed}"),
                    None => assert!(allowed.is_empty(), "{algorithm:?} seed {seed}: {allowed:?}"),
                }
            }
        }
    }
}

#[test]
fn every_eligible_endpoint_is_used_even_when_few_are() {
    for algorithm in Algorithm::ALL {
        let set = EndpointSet::new(specs(&[1; 100]), algorithm);
        for member in &set.members()[3..] {
            member.endpoint().set_gate(Gate::SHUT);
        }
        let mut rng = Rng::new(1);
        let mut counts = [0; 100];
        for _ in 0..3000 {
            let ask = Pick { key: Some(rng.next_u64()), now: Nanos(0), excluded: &[], may_probe: false };
            counts[set.pick(ask, &mut rng).unwrap().index as usize] += 1;
        }
        assert!(counts[..3].iter().all(|&n| (700..1300).contains(&n)), "{algorithm:?} {:?}", &counts[..3]);
    }
}

#[test]
fn no_endpoints_is_no_choice() {
    for algorithm in Algorithm::ALL {
        let set = EndpointSet::empty(algorithm);
        assert!(set.pick(Pick { key: Some(1), ..Pick::default() }, &mut Rng::new(0)).is_none());
        assert_eq!(set.algorithm(), algorithm);
        assert_eq!(Algorithm::parse(algorithm.as_str()), Some(algorithm));
    }
    assert_eq!(Algorithm::parse("leastbusy"), None);
    let spec = EndpointSpec::new(SocketAddr::from(([127, 0, 0, 1], 1)));
    let set = EndpointSet::new(vec![EndpointSpec { weight: 0, ..spec }], Algorithm::LeastBusy);
    assert!(set.pick(Pick::default(), &mut Rng::new(0)).is_none());
}
