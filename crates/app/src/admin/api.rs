//! `/api/v1`: documents, revisions, and who uses them. Only where the process is a control plane.
//!
//! The latest revision is the ETag of the documents as a whole; `If-Match` makes a change depend on it (RFC 9110 §13.1.1).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rhumb_control::control::{Cause, Control, Error, audience_json, proxy_json};
use rhumb_control::document::{Document, Key};
use rhumb_control::store::{self, Difference, Revision};
use serde_json::{Value, json};

/// The largest set of documents that is applied at once. Unit: bytes.
const MAX_BODY: usize = 64 << 20;

/// The longest that a request waits for proxies.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Revisions of one answer, unless another number is asked for, and the most.
const PAGE: (usize, usize) = (20, 1_000);

/// Stands for the namespace of documents that have none.
pub(crate) const NO_NAMESPACE: &str = "-";

/// Names who makes a revision.
pub(crate) const AUTHOR: &str = "x-rhumb-author";

/// Who makes a revision that does not say it.
const UNNAMED: &str = "admin";

type Desk = Arc<Control>;
type Parameters = Query<HashMap<String, String>>;

/// The pages, for an admin listener of any kind.
pub(crate) fn router<S: Clone + Send + Sync + 'static>(control: Desk) -> Router<S> {
    let with = |control: &Desk| Arc::clone(control);
    let (all, one, revisions, audience) = (with(&control), with(&control), with(&control), with(&control));
    let (put, gone, difference, back, proxies) =
        (with(&control), with(&control), with(&control), with(&control), with(&control));
    Router::new()
        .route(
            "/api/v1/documents",
            get(move |query| documents(all, query))
                .post(move |query, headers, body| apply(put, query, headers, body)),
        )
        .route(
            "/api/v1/documents/{kind}/{namespace}/{name}",
            get(move |path| document(one, path)).delete(move |path, headers| remove(gone, path, headers)),
        )
        .route("/api/v1/revisions", get(move |query| history(revisions, query)))
        .route("/api/v1/revisions/{number}/audience", get(move |path, query| who(audience, path, query)))
        .route("/api/v1/diff", get(move |query| diff(difference, query)))
        .route("/api/v1/rollback", axum::routing::post(move |headers, body| roll_back(back, headers, body)))
        .route("/api/v1/proxies", get(move || async move { list_proxies(&proxies) }))
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

async fn documents(control: Desk, Query(query): Parameters) -> Response {
    let of = |name: &str| query.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let revision = control.revision();
    let found = control.documents(of("kind"), of("namespace"), of("name"));
    let documents: Vec<Value> = found.iter().map(|document| shown(document)).collect();
    tagged(revision, json!({ "revision": revision, "documents": documents }))
}

async fn document(control: Desk, Path(path): Path<(String, String, String)>) -> Response {
    let key = key(&path);
    let found = control.documents(Some(&key.kind), Some(&key.namespace), Some(&key.name));
    match found.first() {
        Some(document) => tagged(document.revision, value(document)),
        None => refusal(&Error::NoDocument(key.to_string())),
    }
}

async fn apply(control: Desk, Query(query): Parameters, headers: HeaderMap, body: Bytes) -> Response {
    let asked: Value = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return bad(&format!("the content is not JSON: {error}")),
    };
    let documents = match &asked {
        Value::Array(documents) => documents,
        Value::Object(object) => match object.get("documents") {
            Some(Value::Array(documents)) => documents,
            Some(_) | None => return bad("`documents` is a list of documents"),
        },
        _ => return bad("the content is a list of documents, or has one under `documents`"),
    };
    if query.get("dryRun").is_some_and(|value| value != "false") {
        return match control.compare(documents) {
            Ok(differences) => {
                let revision = control.revision();
                tagged(
                    revision,
                    json!({ "revision": revision, "differences": differences_json(&differences) }),
                )
            }
            Err(error) => refusal(&error),
        };
    }
    let cause = match cause(&headers, asked["message"].as_str()) {
        Ok(cause) => cause,
        Err(refusal) => return *refusal,
    };
    made(&control, control.apply(&cause, documents).await)
}

async fn remove(control: Desk, Path(path): Path<(String, String, String)>, headers: HeaderMap) -> Response {
    let key = key(&path);
    let mut cause = match cause(&headers, None) {
        Ok(cause) => cause,
        Err(refusal) => return *refusal,
    };
    // The tag of a document is the revision that brought it.
    let latest = control.revision();
    if let Some(expected) = cause.expected {
        let found = control.documents(Some(&key.kind), Some(&key.namespace), Some(&key.name));
        let actual = found.first().map(|document| document.revision);
        if actual.is_some_and(|actual| actual != expected) {
            return refusal(&Error::Store(store::Error::Conflict { expected, actual: actual.unwrap_or(0) }));
        }
        cause.expected = Some(latest);
    }
    made(&control, control.remove(&cause, &[key]).await)
}

async fn roll_back(control: Desk, headers: HeaderMap, body: Bytes) -> Response {
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(to) = asked["to"].as_u64() else { return bad("`to` is the number of a revision") };
    match cause(&headers, asked["message"].as_str()) {
        Ok(cause) => made(&control, control.roll_back(&cause, to).await),
        Err(refusal) => *refusal,
    }
}

async fn history(control: Desk, Query(query): Parameters) -> Response {
    let before = number(&query, "before").unwrap_or(u64::MAX);
    let most = number(&query, "limit").and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE.0);
    match control.history(before, most.clamp(1, PAGE.1)).await {
        Ok(revisions) => {
            let revisions: Vec<Value> = revisions.iter().map(Revision::to_json).collect();
            json_page(StatusCode::OK, &json!({ "revisions": revisions }))
        }
        Err(error) => refusal(&error),
    }
}

async fn diff(control: Desk, Query(query): Parameters) -> Response {
    let latest = control.revision();
    let to = number(&query, "to").unwrap_or(latest);
    let from = number(&query, "from").unwrap_or_else(|| to.saturating_sub(1));
    match control.difference(from, to).await {
        Ok(differences) => {
            let page = json!({ "from": from, "to": to, "differences": differences_json(&differences) });
            json_page(StatusCode::OK, &page)
        }
        Err(error) => refusal(&error),
    }
}

async fn who(control: Desk, Path(revision): Path<u64>, Query(query): Parameters) -> Response {
    let patience = Duration::from_millis(number(&query, "waitMs").unwrap_or(0)).min(MAX_WAIT);
    match control.audience(revision, patience).await {
        Some(audience) => json_page(StatusCode::OK, &audience_json(revision, &audience)),
        None => problem(
            StatusCode::NOT_FOUND,
            "revision_not_known",
            &format!(
                "it is not known what revision {revision} changed: it is too old, or this process began later"
            ),
            &[],
        ),
    }
}

fn list_proxies(control: &Control) -> Response {
    let now = Instant::now();
    let proxies: Vec<Value> = control.proxies().iter().map(|proxy| proxy_json(proxy, now)).collect();
    json_page(StatusCode::OK, &json!({ "revision": control.revision(), "proxies": proxies }))
}

/// The answer to a change.
fn made(control: &Control, made: Result<Option<Revision>, Error>) -> Response {
    match made {
        Ok(Some(revision)) => tagged(revision.number, revision.to_json()),
        Ok(None) => {
            let revision = control.revision();
            tagged(revision, json!({ "revision": revision, "changes": [] }))
        }
        Err(error) => refusal(&error),
    }
}

/// Who asks for a change, why, and on which condition.
fn cause(headers: &HeaderMap, message: Option<&str>) -> Result<Cause, Box<Response>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let expected = match text(header::IF_MATCH.as_str()) {
        None | Some("*") => None,
        Some(tag) => match tag.trim_matches('"').parse() {
            Ok(revision) => Some(revision),
            Err(_) => return Err(Box::new(bad("If-Match is the number of a revision in quotes"))),
        },
    };
    Ok(Cause {
        author: text(AUTHOR).unwrap_or(UNNAMED).to_owned(),
        message: message.unwrap_or_default().to_owned(),
        expected,
    })
}

fn key((kind, namespace, name): &(String, String, String)) -> Key {
    let namespace = if namespace == NO_NAMESPACE { "" } else { namespace };
    Key::new(kind, namespace, name)
}

fn value(document: &Document) -> Value {
    serde_json::from_slice(&document.json).unwrap_or_default()
}

fn shown(document: &Document) -> Value {
    json!({ "revision": document.revision, "document": value(document) })
}

fn differences_json(differences: &[Difference]) -> Vec<Value> {
    let side = |json: &Option<_>| json.as_ref().map(|json: &_| of_bytes(json));
    let one = |difference: &Difference| {
        json!({
            "document": difference.key.to_string(),
            "before": side(&difference.before),
            "after": side(&difference.after),
        })
    };
    differences.iter().map(one).collect()
}

fn of_bytes(json: &Bytes) -> Value {
    serde_json::from_slice(json).unwrap_or_default()
}

fn number(query: &HashMap<String, String>, name: &str) -> Option<u64> {
    query.get(name)?.parse().ok()
}

fn refusal(error: &Error) -> Response {
    let (status, code) = match error {
        Error::Mistakes(_) => (StatusCode::UNPROCESSABLE_ENTITY, "documents_invalid"),
        Error::NoDocument(_) => (StatusCode::NOT_FOUND, "document_not_found"),
        Error::Store(store::Error::Conflict { .. }) => (StatusCode::PRECONDITION_FAILED, "revision_conflict"),
        Error::Store(store::Error::NoRevision(..)) => (StatusCode::NOT_FOUND, "revision_not_found"),
        Error::Store(store::Error::TooMany) => (StatusCode::INSUFFICIENT_STORAGE, "documents_too_many"),
        Error::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        Error::Ending => (StatusCode::SERVICE_UNAVAILABLE, "ending"),
    };
    let mistakes = match error {
        Error::Mistakes(mistakes) => &mistakes[..],
        _ => &[],
    };
    problem(status, code, &error.to_string(), mistakes)
}

fn bad(detail: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, "request_invalid", detail, &[])
}

/// An error (RFC 9457) with a code for programs.
fn problem(status: StatusCode, code: &str, detail: &str, mistakes: &[String]) -> Response {
    let mut value = json!({
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    });
    if !mistakes.is_empty() {
        value["mistakes"] = json!(mistakes);
    }
    (status, [(header::CONTENT_TYPE, "application/problem+json")], format!("{value}\n")).into_response()
}

fn json_page(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{value:#}\n")).into_response()
}

fn tagged(revision: u64, value: Value) -> Response {
    let mut response = json_page(StatusCode::OK, &value);
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
