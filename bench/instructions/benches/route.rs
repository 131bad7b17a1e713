//! Finding the rule of a request: its cost must not grow with the number of rules.
#![allow(missing_docs, unused_qualifications, reason = "made by gungraun's macros")]

use std::hint::black_box;
use std::sync::Arc;

use gungraun::prelude::*;
use rhumb_base::name::RouteName;
use rhumb_bench_instructions::request_head;
use rhumb_codec::head::RequestHead;
use rhumb_route::normalize::{Options, normalize_head};
use rhumb_route::path::PathMatch;
use rhumb_route::{Builder, Host, Lookup, RequestMatch, Rule, Table};

/// Rules that each take one path prefix, as the load bench has them.
fn by_prefix(count: u32) -> (Table<u32>, RequestHead) {
    let path = format!("/svc{:05}/orders/7f3a", count / 2);
    table(count, |n| (Host::Any, format!("/svc{n:05}")), "api.example.test", &path)
}

/// Rules that each take one hostname.
fn by_host(count: u32) -> (Table<u32>, RequestHead) {
    let name = |n| format!("tenant{n:05}.example.test");
    let host = |n| Host::parse(&name(n)).expect("a good name");
    table(count, |n| (host(n), "/".to_owned()), &name(count / 2), "/orders/7f3a")
}

fn table(
    count: u32,
    rule: impl Fn(u32) -> (Host, String),
    authority: &str,
    path: &str,
) -> (Table<u32>, RequestHead) {
    let mut builder = Builder::new();
    let listener = builder.listener(&Host::Any);
    for n in 0..count {
        let (host, prefix) = rule(n);
        let path = PathMatch::prefix(&prefix).expect("a good prefix");
        let matched = RequestMatch::new(path, None, vec![], vec![]).expect("no conditions");
        let rule = Rule {
            route: RouteName::new(format!("route-{n}")),
            created: 0,
            index: 0,
            hosts: [host].into(),
            matches: [matched].into(),
            value: n,
        };
        builder.attach(listener, Arc::new(rule));
    }
    let mut head = request_head();
    head.set_authority(authority.as_bytes());
    head.set_path(path.as_bytes());
    let table = builder.build();
    assert!(matches!(table.find(head.host(), &head), Lookup::Found(_)), "a route for {authority}{path}");
    (table, head)
}

#[library_benchmark]
#[bench::prefix_1(by_prefix(1))]
#[bench::prefix_100(by_prefix(100))]
#[bench::prefix_10000(by_prefix(10_000))]
#[bench::host_100(by_host(100))]
#[bench::host_10000(by_host(10_000))]
fn find((table, head): (Table<u32>, RequestHead)) -> (Table<u32>, RequestHead) {
    let _ = black_box(black_box(&table).find(head.host(), &head));
    (table, head)
}

fn with_path(path: &str) -> (RequestHead, Vec<u8>) {
    let mut head = request_head();
    head.set_path(path.as_bytes());
    (head, Vec::with_capacity(256))
}

#[library_benchmark]
#[bench::normal(with_path("/svc00042/orders/7f3a"))]
#[bench::dots(with_path("/svc00042/../svc00042/./orders//%37f3a"))]
fn normalize((mut head, mut scratch): (RequestHead, Vec<u8>)) -> (RequestHead, Vec<u8>) {
    let _ = black_box(normalize_head(&mut head, Options::default(), &mut scratch));
    (head, scratch)
}

library_benchmark_group!(name = route, benchmarks = [find, normalize]);
main!(library_benchmark_groups = route);
