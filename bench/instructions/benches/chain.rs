//! The policy chain of an exchange: request hooks, then response hooks.
#![allow(missing_docs, unused_qualifications, reason = "made by gungraun's macros")]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use gungraun::prelude::*;
use rhumb_bench_instructions::{request_head, response_head};
use rhumb_codec::head::{RequestHead, ResponseHead, Scheme};
use rhumb_policy::{Chain, ChainState, Context, Exchange, Item, Keeper, NoDocuments, Step, parse};
use serde_json::{Value, json};

struct Message {
    chain: Chain,
    state: ChainState,
    request: RequestHead,
    response: ResponseHead,
    began: Instant,
}

fn message(policies: &[(&str, Value)]) -> Message {
    let items = policies
        .iter()
        .map(|(kind, body)| {
            let (mut documents, keeper) = (NoDocuments, Keeper::default());
            let mut cx = Context::new("default", "bench", &mut documents, &keeper);
            let parsed =
                parse(kind, body, &mut cx).expect("a known kind").unwrap_or_else(|e| panic!("{kind}: {}", e.why));
            Item { policy: Arc::new(parsed.policy), origin: "bench".into(), is_shadow: false }
        })
        .collect();
    // The state has been used before, as on a connection that is kept.
    let mut message = Message {
        chain: Chain::new(items),
        state: ChainState::default(),
        request: request_head(),
        response: response_head(),
        began: Instant::now(),
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
        began: Some(message.began),
        unix_nanos: 1_767_225_600_000_000_000,
        ..Exchange::new(Ipv4Addr::LOCALHOST.into(), Scheme::Http, 80)
    };
    let Message { chain, state, request, response, .. } = message;
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

/// A limit that admits; `fields` has what is left told.
fn rate_limit(algorithm: &str, fields: bool) -> (&'static str, Value) {
    let limit = json!({ "limit": "1000000/s", "algorithm": algorithm });
    ("rateLimit", json!({ "limits": [limit], "fields": fields }))
}

fn rate_limits() -> (&'static str, Value) {
    let per_host = json!({ "limit": "1000000/s", "per": "request.host" });
    ("rateLimit", json!({ "limits": [{ "limit": "1000000/s" }, per_host] }))
}

fn concurrency() -> (&'static str, Value) {
    ("concurrency", json!({ "limit": 10 }))
}

fn circuit_breaker() -> (&'static str, Value) {
    ("circuitBreaker", json!({ "open": "requests > 100 && errorRatio > 0.5" }))
}

fn load_shedding() -> (&'static str, Value) {
    ("loadShedding", json!({}))
}

#[library_benchmark]
#[bench::empty(none())]
#[bench::header_modifier(message(&[fields()]))]
#[bench::cors(message(&[cors()]))]
#[bench::rewrite(message(&[rewrite()]))]
#[bench::rate_limit_quiet(message(&[rate_limit("gcra", false)]))]
#[bench::rate_limit(message(&[rate_limit("gcra", true)]))]
#[bench::rate_limit_sliding(message(&[rate_limit("slidingWindow", true)]))]
#[bench::rate_limit_two(message(&[rate_limits()]))]
#[bench::concurrency(message(&[concurrency()]))]
#[bench::circuit_breaker(message(&[circuit_breaker()]))]
#[bench::load_shedding(message(&[load_shedding()]))]
#[bench::all_three(message(&[cors(), rewrite(), fields()]))]
fn run(mut message: Message) -> Message {
    exchange(black_box(&mut message));
    message
}

library_benchmark_group!(name = chain, benchmarks = [run]);
main!(library_benchmark_groups = chain);
