//! The dashboard: the files of `ui/dist`, part of the binary.
//!
//! They hold no secret and are open to all; what they show is asked of `/api/v1` by whoever has signed in. Files lie under
//! a digest of all of them (`/ui/DIGEST/app.js`), so browsers keep them for ever, and a page never mixes two versions.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

/// A file, as it is and compressed.
struct File {
    name: &'static str,
    content_type: &'static str,
    content: &'static [u8],
    /// Nothing where compressing gains nothing.
    gzip: Option<&'static [u8]>,
}

macro_rules! file {
    ($name:literal, $content_type:literal) => {
        File {
            name: $name,
            content_type: $content_type,
            content: include_bytes!(concat!("../../../../ui/dist/", $name)),
            gzip: Some(include_bytes!(concat!("../../../../ui/dist/", $name, ".gz"))),
        }
    };
    ($name:literal, $content_type:literal, as_it_is) => {
        File {
            name: $name,
            content_type: $content_type,
            content: include_bytes!(concat!("../../../../ui/dist/", $name)),
            gzip: None,
        }
    };
}

/// The page itself.
const PAGE: File = file!("index.html", "text/html; charset=utf-8");

/// What the page fetches.
const FILES: &[File] = &[
    file!("app.js", "text/javascript; charset=utf-8"),
    file!("app.css", "text/css; charset=utf-8"),
    file!("plot.js", "text/javascript; charset=utf-8"),
    file!("yaml.js", "text/javascript; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
    file!("licences.txt", "text/plain; charset=utf-8"),
    file!("inter.woff2", "font/woff2", as_it_is),
];

/// The digest of all files.
const VERSION: &str = include_str!("../../../../ui/dist/version");

/// What the page may do: load from here and ask here, nothing else. No text of an answer becomes a script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The page may change with the binary: asked for each time.
const ASK: &str = "no-cache";

/// A file under the digest never changes.
const KEEP: &str = "public, max-age=31536000, immutable";

/// The dashboard. Needs no credentials.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/ui", get(|| async { Redirect::permanent("/ui/") }))
        .route("/ui/", get(page))
        .route("/ui/{version}/{name}", get(asset))
}

/// A browser that comes to the door is led to the dashboard; `None` for everybody else.
pub(super) fn lead(fields: &HeaderMap) -> Option<Response> {
    let accept = fields.get(header::ACCEPT)?.to_str().ok()?;
    accept.contains("text/html").then(|| Redirect::temporary("/ui/").into_response())
}

async fn page(fields: HeaderMap) -> Response {
    let tag = format!("\"{VERSION}\"");
    let mut response = if is_known(&fields, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        answer(&PAGE, &fields)
    };
    let own = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        own.insert(header::ETAG, tag);
    }
    for (name, value) in [
        (header::CACHE_CONTROL, ASK),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        own.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn asset(Path((version, name)): Path<(String, String)>, fields: HeaderMap) -> Response {
    match FILES.iter().find(|file| file.name == name && version == VERSION) {
        Some(file) => {
            let mut response = answer(file, &fields);
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(KEEP));
            response
        }
        // Of another version: the page asks for itself again.
        None => (StatusCode::NOT_FOUND, "there is no such file in this version\n").into_response(),
    }
}

/// RFC 9110 §13.1.2: weakly compared, any of the list or all.
fn is_known(fields: &HeaderMap, tag: &str) -> bool {
    let held = fields.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    held.split(',').any(|one| matches!(one.trim(), all if all == "*" || all.trim_start_matches("W/") == tag))
}

fn answer(file: &File, fields: &HeaderMap) -> Response {
    let accepted = fields.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    let gzip = file.gzip.filter(|_| accepted.is_some_and(takes_gzip));
    let mut response = gzip.unwrap_or(file.content).into_response();
    let own = response.headers_mut();
    own.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    own.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if gzip.is_some() {
        own.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if file.gzip.is_some() {
        own.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

/// RFC 9110 §12.5.3: a weight of zero is a refusal.
fn takes_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight =
            parts.find_map(|part| part.strip_prefix("q=")).and_then(|weight| weight.parse::<f32>().ok());
        is_gzip && weight.is_none_or(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_file_of_the_page_is_served_and_no_other() {
        let dist = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ui/dist");
        let there: BTreeSet<String> = std::fs::read_dir(dist)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".gz") && name != "version" && name != "index.html")
            .collect();
        let served: BTreeSet<String> = FILES.iter().map(|file| file.name.to_owned()).collect();
        assert_eq!(there, served);
        let page = std::str::from_utf8(PAGE.content).unwrap();
        assert!(page.contains(&format!("./{VERSION}/app.js")), "{page}");
    }

    #[test]
    fn the_page_is_small() {
        let size: usize =
            FILES.iter().chain([&PAGE]).map(|file| file.gzip.unwrap_or(file.content).len()).sum();
        assert!(size < 150_000, "{size} bytes are sent");
    }

    #[test]
    fn the_page_has_nothing_that_its_policy_forbids() {
        let page = std::str::from_utf8(PAGE.content).unwrap();
        for wrong in ["<style", "style=", "onload=", "http://", "https://"] {
            assert!(!page.contains(wrong), "{wrong} in {page}");
        }
        assert!(page.matches("<script").count() == page.matches("<script type=\"module\"").count());
    }

    #[test]
    fn a_refused_coding_is_not_sent() {
        for (accepted, expected) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip;q=0.0, br", false),
            ("identity", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(accepted), expected, "{accepted}");
        }
    }
}
