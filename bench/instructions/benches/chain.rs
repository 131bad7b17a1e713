//! The policy chain of an exchange: request hooks, then response hooks.
#![allow(missing_docs, unused_qualifications, reason = "made by gungraun's macros")]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;

use gungraun::prelude::*;
use rhumb_bench_instructions::{request_head, response_head};
use rhumb_codec::head::{RequestHead, ResponseHead, Scheme};
use rhumb_policy::{Chain, ChainState, Exchange, Item, Step, parse};
use serde_json::{Value, json};

struct Message {
    chain: Chain,
    state: ChainState,
    request: RequestHead,
    response: ResponseHead,
}

fn message(policies: &[(&str, Value)]) -> Message {
    let items = policies
        .iter()
        .map(|(kind, body)| {
            let policy =
                parse(kind, body).expect("a known kind").unwrap_or_else(|e| panic!("{kind}: {}", e.why));
            Item { policy: Arc::new(policy), origin: "bench".into() }
        })
        .collect();
    // The state has been used before, as on a connection that is kept.
    let mut message = Message {
        chain: Chain::new(items),
        state: ChainState::default(),
        request: request_head(),
        response: response_head(),
    };
    exchange(&mut message);
    message.request = request_head();
    message.response = response_head();
    message
}

fn exchange(message: &mut Message) {
    let mut around = Exchange {
        matched_prefix: Some(9),
        request_id: "0af7651916cd43dd8448eb211c80319c",
        ..Exchange::new(Ipv4Addr::LOCALHOST.into(), Scheme::Http, 80)
    };
    let Message { chain, state, request, response } = message;
    assert!(matches!(chain.on_request(request, state, &mut around), Step::Done), "no policy answers");
    chain.on_response(response, state, &mut around);
}

fn none() -> Message {
    message(&[])
}

fn fields() -> (&'static str, Value) {
    let set = json!([{ "name": "X-Team", "value": "orders" }, { "name": "X-Stage", "value": "production" }]);
    (
        "headerModifier",
        json!({ "request": { "set": set, "remove": ["Cookie"] }, "response": { "remove": ["Server"] } }),
    )
}

fn cors() -> (&'static str, Value) {
    ("cors", json!({ "allowOrigins": ["https://app.example.test"], "allowCredentials": true }))
}

fn rewrite() -> (&'static str, Value) {
    ("rewrite", json!({ "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/" } }))
}

#[library_benchmark]
#[bench::empty(none())]
#[bench::header_modifier(message(&[fields()]))]
#[bench::cors(message(&[cors()]))]
#[bench::rewrite(message(&[rewrite()]))]
#[bench::all_three(message(&[cors(), rewrite(), fields()]))]
fn run(mut message: Message) -> Message {
    exchange(black_box(&mut message));
    message
}

library_benchmark_group!(name = chain, benchmarks = [run]);
main!(library_benchmark_groups = chain);
