//! The requests of the bench: what a browser's script sends to an API, 0.8 KiB of fields.

use crate::tls::SERVER_NAME;

/// The fields of every request, in the order they are sent, without the authority. No `X-Request-Id`: each
/// proxy makes one.
pub const FIELDS: &[(&str, &str)] = &[
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "application/json, text/plain, */*"),
    ("accept-language", "en-GB,en;q=0.7,de;q=0.3"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    (
        "authorization",
        "Bearer eyJhbGciOiJFUzI1NiIsImtpZCI6ImJlbmNoIn0.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUudGVzdCIsInN1Yi\
         I6InVzZXItMTciLCJhdWQiOlsiYXBpIl0sImV4cCI6MTc2MzcyMDAwMH0.c2lnbmF0dXJlLW9mLXRoZS1iZW5jaC1pcy1ub3Qt\
         dmVyaWZpZWQtYnktYW55LXByb3h5LWhlcmUtMDEyMzQ1",
    ),
    ("origin", "https://app.example.test"),
    ("referer", "https://app.example.test/dashboard/orders?page=2"),
    ("cookie", "session=5f2b9d0c7e1a4b6d8c3f; theme=dark; consent=1"),
];

/// The paths to ask for: `{}` in the template becomes the number of a route, evenly spread over `routes`.
pub fn paths(template: &str, routes: usize) -> Vec<String> {
    let count = routes.clamp(1, MAX_PATHS);
    let route = |i: usize| i * (routes.max(1) - 1) / (count - 1).max(1);
    (0..count).map(|i| template.replace("{}", &format!("{:05}", route(i)))).collect()
}

/// An HTTP/1.1 request, with `content` bytes of content when that is not zero.
pub fn h1(path: &str, content: usize) -> Vec<u8> {
    h1_with(path, content, &[])
}

/// The same with other fields: one of [`FIELDS`] is replaced, others are added.
pub fn h1_with(path: &str, content: usize, other: &[(&str, &str)]) -> Vec<u8> {
    let method = if content > 0 { "POST" } else { "GET" };
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {SERVER_NAME}\r\n");
    for (name, value) in FIELDS {
        let value = other.iter().find(|(replaced, _)| replaced == name).map_or(value, |(_, value)| value);
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    for (name, value) in other.iter().filter(|(name, _)| FIELDS.iter().all(|(known, _)| known != name)) {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if content > 0 {
        request.push_str(&format!("content-type: application/json\r\ncontent-length: {content}\r\n"));
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend((b' '..=b'~').cycle().take(content));
    request
}

/// Most paths asked for in turn: enough that no proxy lives on its last decision.
const MAX_PATHS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_reach_from_the_first_route_to_the_last() {
        for (routes, count) in [(1, 1), (2, 2), (100, 64), (10_000, 64)] {
            let paths = paths("/svc{}/b/1", routes);
            assert_eq!(paths.len(), count);
            assert_eq!(paths.first().map(String::as_str), Some("/svc00000/b/1"));
            assert_eq!(paths.last(), Some(&format!("/svc{:05}/b/1", routes - 1)));
        }
    }
}
