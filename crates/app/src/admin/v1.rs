//! `/api/v1`: what the process knows and takes, for programs.
//!
//! [`endpoints`] is the one description of it: the router, the check of roles and parameters, the audit log and the
//! OpenAPI document follow from it. Documents can be changed where they are in a store; what files own is changed there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, FromRequestParts, RawPathParams, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use serde::Serialize;
use serde_json::{Value, json};

use super::Desk;
use super::audit::Entry;
use super::credentials::Who;
use super::door::Peer;
use super::problem::{Code, Problem};
use super::role::Role;
use crate::health::unix_now;
use describe::{Answer, Endpoint, Given, Gives, Needs, Takes, field, json_of, part, query};
use shapes as shape;

mod attempt;
mod bundle;
mod describe;
mod documents;
mod fleet;
mod fleet_look;
mod look;
mod people;
mod questions;
mod shapes;
mod sign_in;
mod signals;
mod state;
mod watch;
mod whole;

pub(crate) use documents::{AUTHOR, NO_NAMESPACE};
pub(super) use people::{cookie_of, refusal};
pub(crate) use shapes::{Diagnostic, Finding, Health, Level};
pub(super) use sign_in::come_back;

/// The largest content of a request: a set of documents. **Unit**: bytes.
const MAX_BODY: usize = 64 << 20;

/// The largest content of a request of somebody who has not shown who they are. **Unit**: bytes.
const MAX_LOGIN: usize = 16 << 10;

/// What a browser has to send with a change: a page of another origin cannot make it do so without asking.
pub(super) const REQUEST_FIELD: &str = "x-rhumb-request";

/// Items of a list in one answer, unless another number is asked for.
const PAGE: usize = 100;

/// The most.
const MAX_PAGE: u64 = 1_000;

/// A request that may be answered.
pub(super) struct Call {
    desk: Arc<Desk>,
    /// Nobody where everybody may ask.
    who: Option<Who>,
    peer: Peer,
    given: Given,
    fields: HeaderMap,
    body: Bytes,
}

/// Every endpoint.
static ENDPOINTS: LazyLock<Vec<Endpoint>> = LazyLock::new(|| {
    let mut all = endpoints();
    all.extend(signals::endpoints());
    all
});

/// The OpenAPI document.
static OPENAPI: LazyLock<Value> = LazyLock::new(|| describe::openapi(&ENDPOINTS));

fn endpoints() -> Vec<Endpoint> {
    use Role::{Admin, Editor, Viewer};
    const TEXT: Takes = Takes::Text(256);
    const ID: Takes = Takes::Text(1_024);
    const LIMIT: describe::Param =
        query("limit", Takes::Number { least: 1, most: MAX_PAGE }, "how many at most (100)");
    const CURSOR: describe::Param = query("cursor", ID, "`next` of the answer before");
    const Q: describe::Param = query("q", TEXT, "a text in it");
    const LIST: [describe::Param; 2] = [LIMIT, CURSOR];
    const SEARCH: [describe::Param; 3] = [LIMIT, CURSOR, Q];
    const IF_MATCH: describe::Param =
        field("If-Match", Takes::Tag, "only while this revision is in force, in quotes");
    const KEY: [describe::Param; 3] = [
        part("kind", TEXT, "the kind"),
        part("namespace", TEXT, "the namespace; `-` for kinds that have none"),
        part("name", TEXT, "the name"),
    ];
    const ONE_IF: [describe::Param; 4] = [KEY[0], KEY[1], KEY[2], IF_MATCH];
    const CHANGES: &[(u16, &str)] = &[
        (409, "`owned_by_files`"),
        (412, "`revision_conflict`"),
        (422, "`documents_invalid`"),
        (503, "`store_unavailable`, `ending`"),
        (507, "`documents_too_many`"),
    ];
    const LOOKS: &[(u16, &str)] =
        &[(400, "`filter_invalid`"), (404, "`not_in_this_process`"), (429, "`watchers_too_many`")];
    const MISSING: &[(u16, &str)] =
        &[(404, "`document_not_found`, `not_in_this_process`"), (503, "`store_unavailable`")];
    const HISTORY: &[(u16, &str)] = &[
        (404, "`not_in_this_process`, `revision_not_found`, `revision_not_known`"),
        (503, "`store_unavailable`, `ending`"),
    ];
    let page = |path, about, gives, handler| Endpoint::get(path, about, gives, handler);
    vec![
        page("/openapi.json", "This API, as OpenAPI 3.1", json_of::<Value>(|| json!({})), |_| {
            Box::pin(async { Ok(json_page(StatusCode::OK, &*OPENAPI)) })
        }),
        page(
            "/login",
            "How one can say who one is",
            json_of::<shape::Ways>(|| json!({ "token": true, "oidc": null, "known": false })),
            |call| Box::pin(people::ways(call)),
        )
        .does(Method::GET, Needs::Nothing),
        page("/login", "Begin a session of a browser", Gives::Empty(StatusCode::NO_CONTENT), |call| {
            Box::pin(people::login(call))
        })
        .does(Method::POST, Needs::Nothing)
        .reads::<shape::Login>(|| json!({ "token": "rhumb_ci_…" }))
        .refuses(&[(401, "`credentials_invalid`"), (413, ""), (415, "")]),
        page(
            "/login/oidc",
            "Send a browser to the identity provider; it comes back with a session",
            Gives::Redirect,
            |call| Box::pin(sign_in::begin(call)),
        )
        .does(Method::GET, Needs::Nothing)
        .takes([query("return", Takes::Text(sign_in::MAX_RETURN), "where it goes then: a path (/ui/)")])
        .refuses(&[(404, "`not_in_this_process`"), (503, "`provider_unavailable`")]),
        page("/logout", "End the session", Gives::Empty(StatusCode::NO_CONTENT), |call| {
            Box::pin(people::logout(call))
        })
        .does(Method::POST, Needs::Role(Viewer)),
        page(
            "/session",
            "Who asks",
            json_of::<shape::Session>(
                || json!({ "name": "ci", "role": "viewer", "via": "token", "expiresAt": null }),
            ),
            |call| Box::pin(people::session(call)),
        ),
        page("/process", "The process and how it stands", json_of::<shape::Process>(|| json!({})), |call| {
            Box::pin(state::process(call))
        }),
        page(
            "/health",
            "What is wrong, and how to mend it",
            json_of::<Health>(|| json!({ "level": "ok", "checks": [] })),
            |call| Box::pin(state::health(call)),
        ),
        page("/overview", "Everything at a glance", json_of::<shape::Overview>(|| json!({})), |call| {
            Box::pin(state::overview(call))
        }),
        page(
            "/routes",
            "Rules of routes with their policies",
            json_of::<shape::Page<shape::Route>>(example_page),
            |call| Box::pin(state::routes(call)),
        )
        .takes([LIMIT, CURSOR, Q, query("backend", ID, "only what leads to this backend")]),
        page(
            "/backends",
            "Backends with their endpoints",
            json_of::<shape::Page<shape::Backend>>(example_page),
            |call| Box::pin(state::backends(call)),
        )
        .takes(SEARCH),
        page(
            "/certificates",
            "Certificates in use",
            json_of::<shape::Page<shape::Certificate>>(example_page),
            |call| Box::pin(state::certificates(call)),
        )
        .takes(LIST),
        page(
            "/consumers",
            "Registered consumers, and the policies of their own",
            json_of::<shape::Page<shape::Consumer>>(example_page),
            |call| Box::pin(state::consumers(call)),
        )
        .takes(SEARCH),
        page("/plan", "The compiled configuration", json_of::<Value>(|| json!({ "revision": 3 })), |call| {
            Box::pin(state::plan(call))
        }),
        page(
            "/proxies",
            "Proxies of a control plane, and what they run",
            json_of::<shape::Proxies>(|| json!({ "revision": 7, "proxies": [] })),
            |call| Box::pin(documents::proxies(call)),
        )
        .refuses(&[(404, "`not_in_this_process`")]),
        page(
            "/documents",
            "Documents in force",
            json_of::<shape::DocumentList>(|| json!({ "revision": 7, "owner": "store", "documents": [] })),
            |call| Box::pin(documents::list(call)),
        )
        .takes([
            query("kind", TEXT, "only this kind"),
            query("namespace", TEXT, "only in this namespace"),
            query("name", TEXT, "only with this name"),
        ]),
        page(
            "/documents",
            "Put documents in: all of them come into force, or none does",
            json_of::<shape::Made>(|| json!({ "revision": 8, "changes": [] })),
            |call| Box::pin(documents::apply(call)),
        )
        .does(Method::POST, Needs::Role(Editor))
        .takes([query("dryRun", Takes::Flag, "only say what would differ"), IF_MATCH])
        .reads::<shape::Apply>(|| json!({ "documents": [], "message": "canary to 20 %" }))
        .refuses(CHANGES),
        page(
            "/documents/{kind}/{namespace}/{name}",
            "A document",
            json_of::<Value>(|| json!({ "apiVersion": "v1", "kind": "Service" })),
            |call| Box::pin(documents::one(call)),
        )
        .takes(KEY)
        .refuses(MISSING),
        page(
            "/documents/{kind}/{namespace}/{name}",
            "Take a document out",
            json_of::<shape::Made>(|| json!({ "revision": 8, "changes": [] })),
            |call| Box::pin(documents::remove(call)),
        )
        .does(Method::DELETE, Needs::Role(Editor))
        .takes(ONE_IF)
        .refuses(&[
            (404, "`document_not_found`"),
            (409, "`owned_by_files`"),
            (412, "`revision_conflict`"),
            (503, "`store_unavailable`, `ending`"),
        ]),
        page(
            "/revisions",
            "Revisions, the newest first",
            json_of::<shape::Revisions>(|| json!({ "revisions": [] })),
            |call| Box::pin(documents::history(call)),
        )
        .takes([
            LIMIT,
            query("before", Takes::Number { least: 0, most: describe::MOST }, "only older than this"),
        ])
        .refuses(HISTORY),
        page(
            "/revisions/{revision}/audience",
            "Who runs a revision",
            json_of::<shape::Audience>(|| json!({ "revision": 7 })),
            |call| Box::pin(documents::audience(call)),
        )
        .takes([
            part("revision", Takes::Number { least: 0, most: describe::MOST }, "the revision"),
            query("waitMs", Takes::Number { least: 0, most: 60_000 }, "wait so long until all do"),
        ])
        .refuses(HISTORY),
        page(
            "/diff",
            "What differs between two revisions",
            json_of::<shape::Differences>(|| json!({ "from": 7, "to": 8, "differences": [] })),
            |call| Box::pin(documents::diff(call)),
        )
        .takes([
            query("from", Takes::Number { least: 0, most: describe::MOST }, "the first; the one before `to`"),
            query("to", Takes::Number { least: 0, most: describe::MOST }, "the second; the latest"),
        ])
        .refuses(HISTORY),
        page(
            "/rollback",
            "Go back to an earlier revision",
            json_of::<shape::Made>(|| json!({ "revision": 9, "changes": [] })),
            |call| Box::pin(documents::roll_back(call)),
        )
        .does(Method::POST, Needs::Role(Editor))
        .takes([IF_MATCH])
        .reads::<shape::Rollback>(|| json!({ "to": 7 }))
        .refuses(&[
            (404, "`revision_not_found`"),
            (409, "`owned_by_files`"),
            (412, "`revision_conflict`"),
            (422, "`documents_invalid`"),
            (503, "`store_unavailable`, `ending`"),
        ]),
        page(
            "/validate",
            "What is wrong with documents beside those in force; changes nothing",
            json_of::<shape::Validated>(|| json!({ "valid": true, "diagnostics": [] })),
            |call| Box::pin(questions::validate(call)),
        )
        .does(Method::POST, Needs::Role(Viewer))
        .reads::<shape::Validate>(|| json!({ "yaml": "routes: []" })),
        page(
            "/explain",
            "What happens to a request, and why; sends nothing",
            json_of::<shape::Explained>(|| json!({})),
            |call| Box::pin(questions::explain(call)),
        )
        .does(Method::POST, Needs::Role(Viewer))
        .reads::<shape::Explain>(
            || json!({ "method": "GET", "url": "http://localhost:8080/", "headers": [] }),
        ),
        page(
            "/try",
            "Really send a request to a listener of this process, and tell what became of it",
            json_of::<shape::Attempted>(|| json!({ "status": 200, "headers": [], "body": "", "truncated": false, "tookMs": 3.2, "listener": "default/gateway/web", "address": "127.0.0.1:8080", "trace": null })),
            |call| Box::pin(attempt::attempt(call)),
        )
        .does(Method::POST, Needs::Role(Editor))
        .reads::<shape::ToSend>(|| json!({ "method": "GET", "url": "http://localhost:8080/", "headers": [] }))
        .refuses(&[(404, "`not_in_this_process`"), (502, "`try_unanswered`"), (504, "`try_timed_out`")]),
        page(
            "/watch",
            "What changes, as it changes",
            Gives::Events(&[
                ("process", describe::schema_of::<shape::Process>),
                ("health", describe::schema_of::<Health>),
                ("documents", describe::schema_of::<Value>),
                ("proxies", describe::schema_of::<shape::Proxies>),
                ("signals", describe::schema_of::<rhumb_signals::answer::Now>),
                ("events", describe::schema_of::<rhumb_signals::Event>),
            ]),
            |call| Box::pin(watch::watch(call)),
        )
        .takes([query("topics", Takes::SomeOf(watch::TOPICS), "what of it; all when it is absent")])
        .refuses(&[(429, "`watchers_too_many`")]),
        page(
            "/tap",
            "Exchanges as they end, redacted like the access log",
            Gives::Events(&[("exchange", describe::schema_of::<Value>)]),
            |call| Box::pin(look::tap(call)),
        )
        .only(Editor)
        .takes(look::parameters(
            "which: an expression over request and response",
            look::MOST.0,
            "how many at most (100)",
        ))
        .refuses(LOOKS),
        page(
            "/trace",
            "Exchanges with every step, every policy's decision and what it changed, masked",
            Gives::Events(&[("trace", describe::schema_of::<Value>)]),
            |call| Box::pin(look::trace(call)),
        )
        .only(Editor)
        .takes(look::parameters(
            "which: an expression over the request",
            look::MOST.1,
            "how many at most (1)",
        ))
        .refuses(LOOKS),
        page(
            "/audit",
            "What was done through this API, and what was refused",
            json_of::<shape::AuditPage>(|| json!({ "entries": [] })),
            |call| Box::pin(people::audit(call)),
        )
        .only(Admin)
        .takes([
            LIMIT,
            query("before", Takes::Number { least: 0, most: describe::MOST }, "only lower numbers than this"),
        ]),
        page("/tokens", "Named tokens", json_of::<shape::Tokens>(|| json!({ "tokens": [] })), |call| {
            Box::pin(people::tokens(call))
        })
        .only(Admin),
        page(
            "/tokens",
            "Make a named token; it is told once",
            Gives::Json(
                StatusCode::CREATED,
                describe::Content {
                    schema: describe::schema_of::<shape::CreatedToken>,
                    example: || json!({ "name": "ci", "role": "viewer", "token": "rhumb_ci_…" }),
                },
            ),
            |call| Box::pin(people::create(call)),
        )
        .does(Method::POST, Needs::Role(Admin))
        .reads::<shape::NewToken>(|| json!({ "name": "ci", "role": "viewer" }))
        .refuses(&[(409, "`token_exists`, `tokens_too_many`"), (503, "`store_unavailable`")]),
        page(
            "/tokens/{name}",
            "Take a token back; sessions that were begun with it end",
            Gives::Empty(StatusCode::NO_CONTENT),
            |call| Box::pin(people::revoke(call)),
        )
        .does(Method::DELETE, Needs::Role(Admin))
        .takes([part("name", TEXT, "its name")])
        .refuses(&[(404, "`token_not_found`"), (503, "`store_unavailable`")]),
        page(
            "/bundle",
            "All of it as one archive (tar, gzip) without secrets, for a support case",
            Gives::File("application/gzip"),
            |call| Box::pin(bundle::bundle(call)),
        )
        .only(Admin)
        .refuses(&[(429, "`bundle_busy`")]),
        page(
            "/drain",
            "Take no more traffic, finish, end",
            Gives::Json(
                StatusCode::ACCEPTED,
                describe::Content { schema: describe::schema_of::<shape::Process>, example: || json!({}) },
            ),
            |call| Box::pin(state::drain(call)),
        )
        .does(Method::POST, Needs::Role(Admin)),
    ]
}

fn example_page() -> Value {
    json!({ "items": [], "next": null, "total": 0 })
}

/// The pages.
pub(super) fn router(desk: &Arc<Desk>) -> Router<Arc<Desk>> {
    let mut router = Router::new();
    let mut by_path: Vec<(&'static str, MethodRouter<Arc<Desk>>)> = Vec::new();
    for endpoint in ENDPOINTS.iter() {
        let desk = Arc::clone(desk);
        let handler = move |request: Request| {
            let desk = Arc::clone(&desk);
            async move { serve(desk, endpoint, request).await }
        };
        let filter = MethodFilter::try_from(endpoint.method.clone()).unwrap_or(MethodFilter::GET);
        let handler = on(filter, handler);
        let (path, routes) = match by_path.iter().position(|(path, _)| *path == endpoint.path) {
            Some(at) => by_path.swap_remove(at),
            None => (endpoint.path, MethodRouter::new()),
        };
        by_path.push((path, routes.merge(handler)));
    }
    for (path, routes) in by_path {
        router = router.route(&format!("/api/v1{path}"), routes);
    }
    router
}

/// Answers a request: who, what, and what came of it.
async fn serve(desk: Arc<Desk>, endpoint: &'static Endpoint, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let who = parts.extensions.remove::<Who>();
    let Some(ConnectInfo(peer)) = parts.extensions.remove::<ConnectInfo<Peer>>() else {
        return Problem::internal_error("nobody asks").into_response();
    };
    let from = peer.address;
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let noted = who.clone();
    let answer = async {
        admit(endpoint, who.as_ref(), &parts.headers)?;
        let raw = RawPathParams::from_request_parts(&mut parts, &()).await;
        let names: HashMap<String, String> = raw
            .map(|raw| raw.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
            .map_err(|_| Problem::parameter_invalid("a part of the path is not UTF-8"))?;
        let query = parts.uri.query().unwrap_or_default();
        let query = pairs(query);
        let fields = &parts.headers;
        let field =
            |name: &str| fields.get(name).map(|value| value.to_str().map(str::to_owned).map_err(drop));
        let given = Given::read(&endpoint.params, &names, &query, field)?;
        let body = read(endpoint, &parts.headers, who.is_some(), body).await?;
        let call = Call { desk: Arc::clone(&desk), who, peer, given, fields: parts.headers, body };
        (endpoint.handler)(call).await
    };
    let response = answer.await.unwrap_or_else(IntoResponse::into_response);
    let status = response.status();
    let is_refused = matches!(status.as_u16(), 401 | 403);
    // Who takes everything with them is written down, too.
    let is_noted = endpoint.is_write() && !endpoint.is_question() || endpoint.path == "/bundle";
    if is_noted || is_refused {
        let code = response.extensions().get::<Code>().map(|code| code.0);
        desk.note(noted.as_ref(), from, &method, &path, status, code);
    }
    response
}

impl Endpoint {
    /// It takes content and changes nothing.
    fn is_question(&self) -> bool {
        ["/validate", "/explain"].contains(&self.path)
    }
}

/// Whether somebody may use an endpoint.
fn admit(endpoint: &Endpoint, who: Option<&Who>, fields: &HeaderMap) -> Result<(), Problem> {
    let Needs::Role(role) = endpoint.needs else { return Ok(()) };
    let Some(who) = who else {
        return Err(Problem::credentials_missing("this needs a token or a session"));
    };
    if who.role < role {
        return Err(Problem::role_insufficient(format!(
            "this is for the role {}, and {} has the role {}",
            role.as_str(),
            who.name,
            who.role.as_str()
        )));
    }
    let is_safe = endpoint.method == Method::GET;
    if !is_safe && may_be_forged(who, fields) {
        return Err(Problem::request_header_missing("a browser has to send `X-Rhumb-Request: 1` with it"));
    }
    Ok(())
}

/// True when a page of another origin could have had a browser send this. A program that shows a certificate is no
/// browser: those say where a request comes from (Fetch §3.2).
pub(super) fn may_be_forged(who: &Who, fields: &HeaderMap) -> bool {
    let is_of_browser = who.via != super::credentials::Via::Certificate
        || fields.contains_key(header::ORIGIN)
        || fields.contains_key("sec-fetch-site");
    who.is_shown_unasked() && is_of_browser && !fields.contains_key(REQUEST_FIELD)
}

/// The content of a request, if it may have some.
async fn read(endpoint: &Endpoint, fields: &HeaderMap, is_known: bool, body: Body) -> Result<Bytes, Problem> {
    if endpoint.body.is_none() {
        return Ok(Bytes::new());
    }
    let kind = fields.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    // A page of another origin cannot send this type without being asked.
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Problem::content_type_unsupported("the content has to be application/json"));
    }
    let most = if is_known { MAX_BODY } else { MAX_LOGIN };
    to_bytes(body, most)
        .await
        .map_err(|_| Problem::content_too_large(format!("more than {most} bytes, or not all of it came")))
}

/// Parameters of a query, percent-decoded.
fn pairs(query: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decoded(name), decoded(value))
    };
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let mut ahead = rest.clone();
        match (byte, digit(ahead.next()), digit(ahead.next())) {
            (b'+', ..) => out.push(b' '),
            (b'%', Some(high), Some(low)) => {
                rest = ahead;
                out.push(u8::try_from(high << 4 | low).unwrap_or_default());
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// An answer of JSON.
fn json_page<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => Problem::internal_error(error.to_string()).into_response(),
    }
}

/// All is well.
fn done<T: Serialize>(value: &T) -> Answer {
    Ok(json_page(StatusCode::OK, value))
}

/// A part of a list that is in the order of names.
fn paged<T>(given: &Given, items: Vec<T>, name: impl Fn(&T) -> &str) -> shape::Page<T> {
    let total = items.len();
    let from = given.text("cursor");
    let limit = given.count("limit", PAGE);
    let mut items = items.into_iter().filter(|item| from.is_none_or(|from| name(item) > from));
    let taken: Vec<T> = items.by_ref().take(limit).collect();
    let next = match items.next() {
        Some(_) => taken.last().map(|last| name(last).to_owned()),
        None => None,
    };
    shape::Page { items: taken, next, total }
}

impl Desk {
    /// Writes down what somebody did, or was not let do.
    pub(super) fn note(
        &self,
        who: Option<&Who>,
        peer: SocketAddr,
        method: &Method,
        path: &str,
        status: StatusCode,
        code: Option<&str>,
    ) {
        let result = match status.as_u16() {
            401 | 403 | 421 | 429 => "refused",
            400.. => "failed",
            _ => "done",
        };
        self.audit.note(Entry {
            number: 0,
            at: unix_now(),
            who: who.map(|who| who.name.to_string()),
            role: who.map(|who| who.role),
            via: who.map(|who| who.via.as_str().to_owned()),
            from: peer.to_string(),
            method: method.to_string(),
            path: path.chars().take(MAX_NOTED_PATH).collect(),
            status: status.as_u16(),
            result: result.to_owned(),
            code: code.map(str::to_owned),
        });
    }
}

/// The longest path that is written down, in characters.
const MAX_NOTED_PATH: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_must_not_cannot() {
        let who = |role| Who::test(role);
        let fields = HeaderMap::new();
        for endpoint in ENDPOINTS.iter() {
            let Needs::Role(least) = endpoint.needs else { continue };
            assert!(admit(endpoint, None, &fields).is_err(), "{}", endpoint.path);
            for role in Role::ALL {
                assert_eq!(
                    admit(endpoint, Some(&who(role)), &fields).is_ok(),
                    role >= least,
                    "{} {} {role:?}",
                    endpoint.method,
                    endpoint.path
                );
            }
        }
    }

    #[test]
    fn whoever_changes_something_is_more_than_a_viewer() {
        for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.is_write()) {
            let is_harmless = ["/login", "/logout", "/validate", "/explain"].contains(&endpoint.path);
            assert!(
                is_harmless || matches!(endpoint.needs, Needs::Role(Role::Editor | Role::Admin)),
                "{} {}",
                endpoint.method,
                endpoint.path
            );
        }
    }

    #[test]
    fn the_openapi_document_has_every_endpoint() {
        let document = &*OPENAPI;
        for endpoint in ENDPOINTS.iter() {
            let path = format!("/api/v1{}", endpoint.path);
            let method = endpoint.method.as_str().to_ascii_lowercase();
            assert!(document["paths"][&path][&method]["summary"].is_string(), "{path}");
        }
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }

    #[test]
    fn a_query_is_read() {
        assert_eq!(
            pairs("a=1&b=x%20y+z&c&%zz=%4"),
            [("a", "1"), ("b", "x y z"), ("c", ""), ("%zz", "%4")].map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
    }

    #[test]
    fn lists_come_in_parts() {
        let names: Vec<String> = (0..5).map(|at| format!("n{at}")).collect();
        const PARAMS: &[describe::Param] =
            &[query("limit", Takes::Number { least: 1, most: 9 }, ""), query("cursor", Takes::Text(9), "")];
        let given = |text: &str| Given::read(PARAMS, &HashMap::new(), &pairs(text), |_| None).unwrap();
        let first = paged(&given("limit=2"), names.clone(), |name| name);
        assert_eq!((first.items.len(), first.next.as_deref(), first.total), (2, Some("n1"), 5));
        let last = paged(&given("limit=3&cursor=n1"), names, |name| name);
        assert_eq!((last.items.len(), last.next), (3, None));
        assert!(Given::read(PARAMS, &HashMap::new(), &pairs("limit=0"), |_| None).is_err());
        assert!(Given::read(PARAMS, &HashMap::new(), &pairs("limit=1&limit=2"), |_| None).is_err());
        assert!(Given::read(PARAMS, &HashMap::new(), &pairs("x=1"), |_| None).is_err());
    }
}
