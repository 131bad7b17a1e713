//! What outlives a change of the set.

use std::sync::Arc;
use std::time::Duration;

use rhumb_balance::departed::MEMORY;
use rhumb_balance::{
    Algorithm, Check, EndpointSet, EndpointSpec, Endpoints, Nanos, Outcome, Pick, Reader, Settings,
    set::ENDPOINTS_LIMIT,
};
use rhumb_base::rng::Rng;

use crate::world::specs;

#[test]
fn what_is_known_about_an_endpoint_survives_changes_of_the_set() {
    let settings = Settings { is_checked: true, ..Settings::default() };
    let set = EndpointSet::new(specs(&[1, 1]), Algorithm::LeastBusy);
    let cell = Arc::new(Endpoints::with(set, settings, None));
    let mut reader = Reader::new(Arc::clone(&cell));
    let old = Arc::clone(reader.set().members()[1].endpoint());
    let guard = old.start();
    old.start().finish(Duration::from_millis(30), Outcome::Success, Nanos(0));
    cell.checked(&old, Check::Failing("no answer".into()), Nanos(0));

    cell.publish(specs(&[7, 7, 7])[1..].to_vec(), Nanos(0));
    let members = reader.set().members();
    assert_eq!((members.len(), members[0].weight()), (2, 7));
    assert!(Arc::ptr_eq(members[0].endpoint(), &old));
    assert_eq!((old.in_flight(), old.is_eligible()), (1, false));
    let new = members[1].endpoint();
    assert_eq!(new.latency_ns(Nanos(0)), Some(30_000_000), "starts from the mean");
    assert!(new.is_eligible());

    cell.set_algorithm(Algorithm::Maglev, Nanos(0));
    assert_eq!(reader.set().algorithm(), Algorithm::Maglev);
    assert!(Arc::ptr_eq(reader.set().members()[0].endpoint(), &old));
    drop(guard);
    assert_eq!((old.in_flight(), cell.generation()), (0, 2));

    cell.publish(Vec::new(), Nanos(0));
    assert!(reader.set().members().is_empty());
    cell.publish(specs(&[1, 1]), Nanos(0));
    assert!(Arc::ptr_eq(reader.set().members()[1].endpoint(), &old), "who comes back is remembered");
    cell.publish(Vec::new(), Nanos(0));
    cell.tick(Nanos(MEMORY.as_nanos() as u64));
    cell.publish(specs(&[1, 1]), Nanos(0));
    assert!(!Arc::ptr_eq(reader.set().members()[1].endpoint(), &old), "for a while");
}

#[test]
fn one_address_is_several_endpoints_by_name_and_one_by_identity() {
    let address = "10.0.0.1:443".parse().unwrap();
    let named = |name: &str, weight| EndpointSpec {
        hostname: Some(name.into()),
        weight,
        ..EndpointSpec::new(address)
    };
    let specs =
        vec![named("a.example", 1), named("b.example", 1), named("a.example", 2), EndpointSpec::new(address)];
    let set = EndpointSet::new(specs, Algorithm::RoundRobin);
    let weights: Vec<_> = set.members().iter().map(|member| member.weight()).collect();
    assert_eq!(weights, [3, 1, 1]);
    assert_eq!(set.members()[0].endpoint().to_string(), "10.0.0.1:443 (a.example)");
}

#[test]
fn a_set_is_bounded() {
    let set = EndpointSet::new(specs(&vec![1; ENDPOINTS_LIMIT + 5]), Algorithm::Random);
    assert_eq!((set.members().len(), set.omitted()), (ENDPOINTS_LIMIT, 5));
}

#[test]
fn round_robin_goes_on_where_it_was() {
    let mut set = EndpointSet::new(specs(&[1; 4]), Algorithm::RoundRobin);
    let mut rng = Rng::new(0);
    let mut picked = Vec::new();
    for _ in 0..6 {
        picked.push(set.pick(Pick::default(), &mut rng).unwrap().index);
        set = set.next(specs(&[1; 4]), Algorithm::RoundRobin, Nanos(0));
    }
    assert_eq!(picked, [0, 1, 2, 3, 0, 1]);
}

#[test]
fn workers_on_many_threads_lose_no_count() {
    let cell = Arc::new(Endpoints::new(EndpointSet::new(specs(&[1; 3]), Algorithm::LeastBusy)));
    let workers: Vec<_> = (0..4)
        .map(|seed| {
            let mut reader = Reader::new(Arc::clone(&cell));
            std::thread::spawn(move || {
                let mut rng = Rng::new(seed);
                for i in 0..5_000 {
                    let now = Nanos(i * 1000);
                    let endpoint =
                        reader.set().pick(Pick { now, ..Pick::default() }, &mut rng).unwrap().endpoint;
                    endpoint.start().finish(Duration::from_micros(10), Outcome::Success, now);
                }
            })
        })
        .collect();
    for i in 0..200 {
        cell.publish(specs(&[1, 1, 1 + i % 3]), Nanos(0));
    }
    for worker in workers {
        worker.join().unwrap();
    }
    let set = cell.load();
    let endpoints = || set.members().iter().map(|member| member.endpoint());
    assert_eq!(endpoints().map(|e| e.succeeded()).sum::<u64>(), 20_000);
    assert_eq!(endpoints().map(|e| e.started()).sum::<u64>(), 20_000);
    assert_eq!(endpoints().map(|e| e.in_flight()).sum::<u32>(), 0);
}
