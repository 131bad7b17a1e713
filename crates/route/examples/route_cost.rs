//! What a lookup and a build cost, from 1 to 10 000 routes: `cargo run --profile fast --example route_cost -p rhumb-route`.
#![allow(clippy::print_stdout)] // its output is its purpose

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use rhumb_base::name::RouteName;
use rhumb_base::rng::Rng;
use rhumb_codec::field::Known;
use rhumb_codec::head::RequestHead;
use rhumb_route::normalize::{Options, normalize};
use rhumb_route::path::PathMatch;
use rhumb_route::{Builder, Host, Lookup, RequestMatch, Rule, Table};

const LOOKUPS: usize = 40_000;
const REQUESTS: usize = 20_000;

/// How the routes differ.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// One host, `/service-N` and below.
    Prefixes,
    /// One host, exactly `/api/vN/resource-N/items`.
    Exact,
    /// `service-N.example.com`, everything.
    Hosts,
    /// `*.tenant-N.example.com`, `/api/orders` and below.
    Wildcards,
}

impl Shape {
    fn rule(self, i: usize) -> (Host, PathMatch) {
        let host = |text: String| Host::parse(&text).expect("is a hostname");
        let one = || host("api.example.com".to_owned());
        let (host, path) = match self {
            Self::Prefixes => (one(), PathMatch::prefix(&format!("/service-{i}"))),
            Self::Exact => (one(), PathMatch::exact(&format!("/api/v{}/resource-{i}/items", i % 10))),
            Self::Hosts => (host(format!("service-{i}.example.com")), PathMatch::prefix("/")),
            Self::Wildcards => (host(format!("*.tenant-{i}.example.com")), PathMatch::prefix("/api/orders")),
        };
        (host, path.expect("is a path"))
    }

    fn request(self, i: usize) -> (String, String) {
        match self {
            Self::Prefixes => ("api.example.com".into(), format!("/service-{i}/users/{i}")),
            Self::Exact => ("api.example.com".into(), format!("/api/v{}/resource-{i}/items", i % 10)),
            Self::Hosts => (format!("service-{i}.example.com"), "/users/17".into()),
            Self::Wildcards => (format!("eu.tenant-{i}.example.com"), "/api/orders/17".into()),
        }
    }
}

fn rules(shape: Shape, count: usize) -> Vec<Arc<Rule<usize>>> {
    (0..count)
        .map(|i| {
            let (host, path) = shape.rule(i);
            let matched = RequestMatch::new(path, None, vec![], vec![]).expect("has no conditions");
            Arc::new(Rule {
                route: RouteName::from(format!("default/route-{i}").as_str()),
                created: 0,
                index: 0,
                hosts: [host].into(),
                matches: [matched].into(),
                value: i,
            })
        })
        .collect()
}

fn build(rules: &[Arc<Rule<usize>>]) -> Table<usize> {
    let mut builder = Builder::new();
    let listener = builder.listener(&Host::Any);
    for rule in rules {
        builder.attach(listener, Arc::clone(rule));
    }
    builder.build()
}

fn heads(shape: Shape, count: usize) -> Vec<RequestHead> {
    let mut rng = Rng::new(1);
    (0..REQUESTS)
        .map(|_| {
            let (host, path) = shape.request(rng.below(count as u32) as usize);
            let mut head = RequestHead::new();
            head.set_method(b"GET");
            head.set_authority(host.as_bytes());
            head.set_target(path.as_bytes());
            head.fields.append(Known::UserAgent, b"route_cost");
            head
        })
        .collect()
}

fn main() {
    println!(
        "{:<10} {:>7} {:>12} {:>14} {:>12}",
        "shape", "routes", "ns/lookup", "ns/same again", "ms/build"
    );
    for shape in [Shape::Prefixes, Shape::Exact, Shape::Hosts, Shape::Wildcards] {
        for count in [1, 100, 10_000] {
            let rules = rules(shape, count);
            let start = Instant::now();
            let table = build(&rules);
            let building = start.elapsed();
            let heads = heads(shape, count);
            let lookup = |head: &RequestHead| match table.find(head.host(), black_box(head)) {
                Lookup::Found(found) => found.rule.value,
                other => panic!("every request has a rule: {other:?}"),
            };
            // Heads lie scattered in memory: the difference to asking the same again is mostly their cache misses.
            let random = time(|i| lookup(&heads[i % REQUESTS]));
            let same = time(|_| lookup(&heads[0]));
            println!(
                "{:<10} {count:>7} {random:>12.1} {same:>14.1} {:>12.2}",
                format!("{shape:?}"),
                building.as_secs_f64() * 1e3
            );
        }
    }
    let mut out = Vec::new();
    for path in ["/service-17/users/4711", "/a/%2e%2e/b%7e/c%2fd", "/.well-known/acme-challenge/abc"] {
        let cost =
            time(|_| normalize(black_box(path.as_bytes()), Options::default(), &mut out).is_ok() as usize);
        println!("normalize {path:<40} {cost:>8.1} ns");
    }
}

/// Nanoseconds per call: the best of many short rounds, as other programs run too.
fn time(mut call: impl FnMut(usize) -> usize) -> f64 {
    (0..25)
        .map(|_| {
            let start = Instant::now();
            for i in 0..LOOKUPS {
                black_box(call(i));
            }
            start.elapsed().as_secs_f64() * 1e9 / LOOKUPS as f64
        })
        .fold(f64::INFINITY, f64::min)
}
