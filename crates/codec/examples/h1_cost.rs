//! What HTTP/1 costs: nanoseconds per head, for the inner loop. `cargo run --profile fast --example h1_cost -p rhumb-codec`.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::Instant;

use rhumb_codec::h1::{self, BodyDecoder, Limits, ResponseContext};
use rhumb_codec::head::{Content, Method, RequestHead, ResponseHead, Scheme, Version};

const REQUEST: &[u8] = b"GET /users/7/orders?status=open&page=2 HTTP/1.1\r\n\
    Host: api.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Referer: https://www.example.com/shop\r\n\
    Authorization: Bearer eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiI3In0.c2lnbmF0dXJl\r\n\
    Cookie: session=0123456789abcdef; theme=dark\r\n\
    Connection: keep-alive\r\n\
    X-Request-Id: 0198c6a2-77aa-7000-8000-000000000001\r\n\
    X-Tenant: blue\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx\r\n\
    Date: Tue, 04 Aug 2026 10:00:00 GMT\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 1024\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: no-store\r\n\
    ETag: \"5f3c1a\"\r\n\
    X-Runtime: 0.012\r\n\r\n";

fn main() {
    let limits = Limits::default();
    let mut request = RequestHead::new();
    report("httparse alone, request of 11 fields", || {
        let mut lines = [const { std::mem::MaybeUninit::uninit() }; h1::MAX_FIELDS];
        let mut parsed = httparse::Request::new(&mut []);
        black_box(parsed.parse_with_uninit_headers(black_box(REQUEST), &mut lines).unwrap());
    });
    report("parse_request, 11 fields", || {
        black_box(h1::parse_request(black_box(REQUEST), &limits, Scheme::Http, &mut request).unwrap());
    });
    let mut response = ResponseHead::default();
    report("parse_response, 8 fields", || {
        black_box(h1::parse_response(black_box(RESPONSE), &limits, Method::Get, &mut response).unwrap());
    });
    let mut out = Vec::with_capacity(4096);
    report("write_request", || {
        out.clear();
        h1::write_request(black_box(&request), &mut out);
        black_box(&out);
    });
    let context =
        ResponseContext { client_version: Version::Http11, request_method: Method::Get, keep_alive: true };
    report("write_response", || {
        out.clear();
        black_box(h1::write_response(black_box(&response), context, &mut out));
    });
    let mut chunked = Vec::new();
    for _ in 0..4 {
        h1::write_chunk(&[b'x'; 4096], &mut chunked);
    }
    h1::write_last_chunk(None, &mut chunked);
    let mut buf = chunked.clone();
    report("copy and decode 16 KiB in 4 chunks", || {
        buf.copy_from_slice(&chunked);
        black_box(BodyDecoder::new(Content::Streamed, &limits).decode(black_box(&mut buf)).unwrap());
    });
}

/// The fastest of several rounds: the least disturbed one.
fn report(what: &str, mut run: impl FnMut()) {
    const ROUNDS: u32 = 20;
    const RUNS: u32 = 50_000;
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..RUNS {
            run();
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(RUNS));
    }
    println!("{best:8.1} ns  {what}");
}
