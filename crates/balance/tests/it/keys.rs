//! Where keys go, and how many move.

use rhumb_balance::{Algorithm, EndpointSet, Gate, Pick, hash};
use rhumb_base::rng::Rng;

use crate::world::specs;

const KEYS: u64 = 40_000;

/// The endpoint of each key, by its address.
fn owners(set: &EndpointSet) -> Vec<std::net::SocketAddr> {
    let mut rng = Rng::new(0);
    (0..KEYS)
        .map(|i| {
            let ask = Pick { key: Some(hash::mix(i)), ..Pick::default() };
            set.pick(ask, &mut rng).unwrap().endpoint.address()
        })
        .collect()
}

fn moved(before: &EndpointSet, after: &EndpointSet) -> (f64, f64) {
    let (old, new) = (owners(before), owners(after));
    let kept: Vec<_> = after.members().iter().map(|member| member.endpoint().address()).collect();
    let moved = old.iter().zip(&new).filter(|(a, b)| a != b).count();
    let needless = old.iter().zip(&new).filter(|(a, b)| a != b && kept.contains(a)).count();
    (moved as f64 / KEYS as f64, needless as f64 / KEYS as f64)
}

#[test]
fn few_keys_move_when_an_endpoint_leaves() {
    for (algorithm, needless_limit) in [(Algorithm::RingHash, 0.0), (Algorithm::Maglev, 0.03)] {
        for len in [2, 3, 10, 50] {
            let all = specs(&vec![1; len]);
            let before = EndpointSet::new(all.clone(), algorithm);
            for gone in [0, len / 2, len - 1] {
                let mut rest = all.clone();
                rest.remove(gone);
                let (moved, needless) = moved(&before, &EndpointSet::new(rest, algorithm));
                assert!(moved < 1.35 / len as f64 + 0.03, "{algorithm:?} {len}: {moved}");
                assert!(needless <= needless_limit, "{algorithm:?} {len}: {needless}");
            }
        }
    }
}

#[test]
fn only_keys_of_an_endpoint_that_is_out_move_and_they_spread() {
    for algorithm in [Algorithm::RingHash, Algorithm::Maglev] {
        let set = EndpointSet::new(specs(&[1; 10]), algorithm);
        let before = owners(&set);
        let out = set.members()[4].endpoint().clone();
        out.set_gate(Gate::SHUT);
        let after = owners(&set);
        let mut gained = std::collections::HashMap::new();
        for (a, b) in before.iter().zip(&after) {
            assert!(a == b || *a == out.address());
            if a != b {
                *gained.entry(*b).or_insert(0) += 1;
            }
        }
        assert_eq!(gained.len(), 9, "{algorithm:?}");
        out.set_gate(Gate::OPEN);
        assert_eq!(owners(&set), before, "they come back");
    }
}

#[test]
fn the_order_of_the_source_does_not_matter() {
    for algorithm in [Algorithm::RingHash, Algorithm::Maglev] {
        let mut all = specs(&[1, 5, 2, 2, 7]);
        let before = owners(&EndpointSet::new(all.clone(), algorithm));
        all.reverse();
        all.swap(0, 2);
        assert_eq!(owners(&EndpointSet::new(all, algorithm)), before, "{algorithm:?}");
    }
}

#[test]
fn maglev_is_even_within_one_percent_of_the_table() {
    for len in [2usize, 3, 7, 50] {
        let set = EndpointSet::new(specs(&vec![1; len]), Algorithm::Maglev);
        // Keys 0 to 65 536 are the entries of the table.
        let mut counts = std::collections::HashMap::new();
        for key in 0..65_537 {
            let ask = Pick { key: Some(key), ..Pick::default() };
            *counts.entry(set.pick(ask, &mut Rng::new(0)).unwrap().index).or_insert(0u32) += 1;
        }
        let even = 65_537.0 / len as f64;
        assert!(counts.values().all(|&n| (f64::from(n) / even - 1.0).abs() < 0.01), "{len}: {counts:?}");
    }
}

#[test]
fn a_ring_of_very_many_endpoints_is_bounded_and_leaves_nobody_out() {
    let set = EndpointSet::new(specs(&vec![1; 3000]), Algorithm::RingHash);
    let used: std::collections::HashSet<_> = owners(&set).into_iter().collect();
    assert!(used.len() > 2990, "{}", used.len());
}
