//! The messages whose cost is counted: what the load bench sends and its backend answers.
//!
//! Counts are exact and the same on every machine with the same compiler, so they tell a change of 1 % from none
//! where a clock cannot. They do not see caches, branches or the kernel: `bench/run.py` measures those.
//! Run with `cargo bench --manifest-path bench/Cargo.toml --package rhumb-bench-instructions`.

use rhumb_codec::h1::{self, Limits};
use rhumb_codec::head::{Method, RequestHead, ResponseHead, Scheme};

/// A request of ten fields, 0.7 KiB, as a browser's script sends it.
pub const REQUEST: &[u8] = b"GET /svc00042/orders/7f3a?page=2&sort=desc HTTP/1.1\r\n\
    Host: api.example.test\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: application/json, text/plain, */*\r\n\
    Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Authorization: Bearer eyJhbGciOiJFUzI1NiIsImtpZCI6ImJlbmNoIn0.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUudGVzdCIsInN1YiI6InVzZXItMTcifQ.c2lnbmF0dXJl\r\n\
    Origin: https://app.example.test\r\n\
    Referer: https://app.example.test/dashboard/orders?page=2\r\n\
    Cookie: session=5f2b9d0c7e1a4b6d8c3f; theme=dark; consent=1\r\n\
    Connection: keep-alive\r\n\r\n";

/// A response of nine fields.
pub const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: backend\r\n\
    Date: Fri, 21 Nov 2025 10:00:00 GMT\r\n\
    Content-Type: application/json; charset=utf-8\r\n\
    Content-Length: 1024\r\n\
    Cache-Control: private, max-age=0, must-revalidate\r\n\
    ETag: \"8c1b-61f0a4b7d2e40\"\r\n\
    Vary: Accept-Encoding, Origin\r\n\
    Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n\
    X-Content-Type-Options: nosniff\r\n\r\n";

/// The head of [`REQUEST`]; its memory has been used before, as on a connection that is kept.
///
/// # Panics
/// When the codec refuses it.
pub fn request_head() -> RequestHead {
    let mut head = RequestHead::new();
    for _ in 0..2 {
        let parsed = h1::parse_request(REQUEST, &Limits::default(), Scheme::Http, &mut head);
        assert!(matches!(parsed, Ok(Some(len)) if len == REQUEST.len()), "a good request");
    }
    head
}

/// The head of [`RESPONSE`]; its memory has been used before.
///
/// # Panics
/// When the codec refuses it.
pub fn response_head() -> ResponseHead {
    let mut head = ResponseHead::default();
    for _ in 0..2 {
        let parsed = h1::parse_response(RESPONSE, &Limits::default(), Method::Get, &mut head);
        assert!(matches!(parsed, Ok(Some(len)) if len == RESPONSE.len()), "a good response");
    }
    head
}
