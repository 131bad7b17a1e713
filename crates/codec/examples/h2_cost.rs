//! What HTTP/2 costs: nanoseconds per message, for the inner loop. `cargo run --profile fast --example h2_cost -p rhumb-codec`.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::Instant;

use rhumb_codec::field::Known;
use rhumb_codec::h2::hpack::{Decoder, Encoder, Name};
use rhumb_codec::h2::{Config, Connection, Event, Role, StreamId};
use rhumb_codec::head::{Content, RequestHead, ResponseHead};

/// The fields of a browser's request; what differs per request is made from a number.
const FIELDS: [(&str, &str); 8] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br"),
    ("referer", "https://www.example.com/shop"),
    ("authorization", "Bearer eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiI3In0.c2lnbmF0dXJl"),
    ("cookie", "session=0123456789abcdef; theme=dark"),
    ("x-tenant", "blue"),
];

fn request(n: u32) -> RequestHead {
    let mut head = RequestHead::new();
    head.set_method(b"GET");
    head.set_authority(b"api.example.com");
    head.set_target(format!("/users/{n}/orders?status=open&page=2").as_bytes());
    for (name, value) in FIELDS {
        head.fields.append_raw(Known::of(name.as_bytes()), name.as_bytes(), value.as_bytes());
    }
    head.fields.append(Known::XRequestId, format!("0198c6a2-77aa-7000-8000-{n:012}").as_bytes());
    head
}

fn response() -> ResponseHead {
    let mut head = ResponseHead::with_status(200);
    for (known, value) in [
        (Known::Server, "nginx"),
        (Known::Date, "Tue, 04 Aug 2026 10:00:00 GMT"),
        (Known::ContentType, "application/json"),
        (Known::CacheControl, "no-store"),
        (Known::Etag, "\"5f3c1a\""),
        (Known::Via, "1.1 rhumb"),
    ] {
        head.fields.append(known, value.as_bytes());
    }
    head.fields.append_raw(Known::Other, b"x-runtime", b"0.012");
    head.content = Content::Length(1024);
    head
}

/// Takes the output of `from` to `to`; what happens there goes to `handle`.
fn carry(
    from: &mut Connection,
    to: &mut Connection,
    now: Instant,
    mut handle: impl FnMut(&mut Connection, Event<'_>),
) {
    let len = from.output().len();
    let mut at = 0;
    while at < len {
        let received = to.receive(&from.output()[at..], now).unwrap();
        at += received.consumed;
        if let Some(event) = received.event {
            handle(to, event);
        }
    }
    from.advance_output(len);
}

fn main() {
    let now = Instant::now();
    let (mut client, mut server) =
        (Connection::new(Config::new(Role::Client)), Connection::new(Config::new(Role::Server)));
    carry(&mut client, &mut server, now, |_, _| {});
    carry(&mut server, &mut client, now, |_, _| {});
    carry(&mut client, &mut server, now, |_, _| {});

    let heads: Vec<RequestHead> = (0..64).map(request).collect();
    let answer = response();
    let content = [b'x'; 1024];

    let mut batch = Vec::new();
    let mut sizes = (0usize, 0usize);
    // The least disturbed round counts.
    let mut times = [u128::MAX; 5];
    const ROUNDS: usize = 20_000;
    for round in 0..ROUNDS + 100 {
        if round == 100 {
            times = [u128::MAX; 5];
            sizes = (0, 0);
        }
        let start = Instant::now();
        for head in &heads[..16] {
            batch.push(client.open(black_box(head), true).unwrap());
        }
        let opened = Instant::now();
        sizes.0 += client.output().len();
        let mut ids: Vec<StreamId> = Vec::with_capacity(16);
        carry(&mut client, &mut server, now, |server, event| {
            if let Event::Request { stream, head, .. } = event {
                ids.push(stream);
                server.recycle_request(head);
            }
        });
        let received = Instant::now();
        for stream in &ids {
            server.send_response(*stream, black_box(&answer), false).unwrap();
        }
        let responded = Instant::now();
        for stream in &ids {
            server.send_data(*stream, black_box(&content), true).unwrap();
        }
        let sent = Instant::now();
        sizes.1 += server.output().len();
        carry(&mut server, &mut client, now, |client, event| match event {
            Event::Response { head, .. } => client.recycle_response(head),
            Event::Data { stream, flow, .. } => client.release(stream, flow),
            _ => {}
        });
        let done = Instant::now();
        // Window updates.
        carry(&mut client, &mut server, now, |_, _| {});
        batch.clear();
        for (time, (from, to)) in times.iter_mut().zip([
            (start, opened),
            (opened, received),
            (received, responded),
            (responded, sent),
            (sent, done),
        ]) {
            *time = (*time).min((to - from).as_nanos());
        }
    }
    for (name, time) in [
        "client: request head, 13 lines, sent",
        "server: request head received",
        "server: response head, 10 lines, sent",
        "server: 1 KiB of content sent",
        "client: response head and content received",
    ]
    .into_iter()
    .zip(times)
    {
        println!("{name:45} {:6} ns", time / 16);
    }
    println!("{:45} {:6} bytes", "request on the wire", sizes.0 / (ROUNDS * 16));
    println!("{:45} {:6} bytes", "response on the wire", sizes.1 / (ROUNDS * 16));

    strings();
}

/// Plain against coded strings: what Huffman code would cost for values that are sent once.
fn strings() {
    let value = b"/users/12345/orders?status=open&page=2";
    let mut plain = vec![0x04, value.len() as u8];
    plain.extend_from_slice(value);
    // The encoder codes what it indexes.
    let mut coded = Vec::new();
    Encoder::new(4096).field(Name::Field(Known::Server), b"", value, false, &mut coded);
    for (name, block) in
        [("decode a plain value of 38 bytes", plain), ("decode a coded value of 38 bytes", coded)]
    {
        let mut arena = Vec::with_capacity(1000);
        let mut decoder = Decoder::new(0);
        decoder.acknowledged(0);
        let mut block_of_many = vec![0x20];
        for _ in 0..100 {
            block_of_many.extend_from_slice(&block);
        }
        let mut best = u128::MAX;
        for _ in 0..10_000 {
            let start = Instant::now();
            let mut fields = decoder.block(black_box(&block_of_many));
            while let Some(field) = fields.next(&mut arena).unwrap() {
                black_box(field);
                arena.clear();
            }
            best = best.min(start.elapsed().as_nanos());
        }
        println!("{name:45} {:6} ns, {} bytes", best / 100, block.len());
    }
}
