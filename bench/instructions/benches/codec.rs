//! Heads and chunked content of HTTP/1: bytes to heads and back.
#![allow(missing_docs, unused_qualifications, reason = "made by gungraun's macros")]

use std::hint::black_box;

use gungraun::prelude::*;
use rhumb_bench_instructions::{REQUEST, RESPONSE, request_head, response_head};
use rhumb_codec::h1::{self, BodyDecoder, BodyFraming, Limits, ResponseContext};
use rhumb_codec::head::{Content, Method, RequestHead, ResponseHead, Scheme, Version};

#[library_benchmark]
#[bench::ten_fields(request_head())]
fn parse_request(mut head: RequestHead) -> RequestHead {
    let _ = black_box(h1::parse_request(black_box(REQUEST), &Limits::default(), Scheme::Http, &mut head));
    head
}

#[library_benchmark]
#[bench::nine_fields(response_head())]
fn parse_response(mut head: ResponseHead) -> ResponseHead {
    let _ = black_box(h1::parse_response(black_box(RESPONSE), &Limits::default(), Method::Get, &mut head));
    head
}

fn with_space<T>(head: T) -> (T, Vec<u8>) {
    (head, Vec::with_capacity(8 << 10))
}

#[library_benchmark]
#[bench::ten_fields(with_space(request_head()))]
fn write_request((head, mut out): (RequestHead, Vec<u8>)) -> (RequestHead, Vec<u8>) {
    h1::write_request(black_box(&head), &mut out);
    (head, out)
}

#[library_benchmark]
#[bench::nine_fields(with_space(response_head()))]
fn write_response((head, mut out): (ResponseHead, Vec<u8>)) -> (ResponseHead, Vec<u8>, BodyFraming) {
    let context =
        ResponseContext { client_version: Version::Http11, request_method: Method::Get, keep_alive: true };
    let framing = h1::write_response(black_box(&head), context, &mut out);
    (head, out, framing)
}

/// 16 KiB in chunks of 1 KiB.
fn chunked() -> (BodyDecoder, Vec<u8>) {
    let mut content = Vec::new();
    for _ in 0..16 {
        h1::write_chunk(&[b'x'; 1024], &mut content);
    }
    h1::write_last_chunk(None, &mut content);
    (BodyDecoder::new(Content::Streamed, &Limits::default()), content)
}

#[library_benchmark]
#[bench::sixteen_chunks(chunked())]
fn decode_chunked((mut decoder, mut content): (BodyDecoder, Vec<u8>)) -> (BodyDecoder, Vec<u8>) {
    let _ = black_box(decoder.decode(black_box(&mut content)));
    (decoder, content)
}

library_benchmark_group!(
    name = codec,
    benchmarks = [parse_request, parse_response, write_request, write_response, decode_chunked]
);
main!(library_benchmark_groups = codec);
