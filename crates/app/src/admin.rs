//! The admin listener: probes, metrics, and what the process knows about itself.
//!
//! It lives on the control runtime, not on the workers: a slow reader of `/config` costs no request anything. Who may
//! ask for what is [`guard`]'s table. Everything is read only but `/drain`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use rhumb_balance::Nanos;
use rhumb_control::control::Control;
use rhumb_plan::Current;
use rhumb_proxy::discovery::Plaintext;
use rhumb_proxy::overload::Pressure;
use rhumb_telemetry::Registry;
use rhumb_telemetry::metrics::Format;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;

use crate::health::{Health, Phase};
use crate::names::Board;
use crate::signal::Signal;
use door::{Door, Peer};
use guard::Access;
use token::Issued;

pub(crate) mod api;
pub(crate) mod client;
mod door;
mod endpoints;
mod guard;
pub(crate) mod token;

/// What the answers are made of.
pub(crate) struct Admin {
    /// The state of the process.
    pub(crate) health: Arc<Health>,
    /// Metrics.
    pub(crate) registry: Arc<Registry>,
    /// The plan in force.
    pub(crate) current: Current,
    /// Where the balancer's clock begins.
    pub(crate) origin: Instant,
    /// Where the configuration is.
    pub(crate) config: PathBuf,
    /// Connections of clients that are open.
    pub(crate) connections: Arc<AtomicU32>,
    /// Worker threads.
    pub(crate) workers: usize,
    /// What is known about names of backends.
    pub(crate) names: Board,
    /// Where orders to the process go.
    pub(crate) orders: UnboundedSender<Signal>,
    /// Overload.
    pub(crate) pressure: Arc<Pressure>,
    /// Who calls the workload in plain text, where this process is the proxy of one.
    pub(crate) plaintext: Arc<Plaintext>,
    /// The control plane, in a process that is one.
    pub(crate) control: Option<Arc<Control>>,
}

/// What answers: the sources of the answers, and the secret that opens what is not open to all.
struct Desk {
    admin: Admin,
    token: Issued,
}

/// The version that the binary says it is.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The pages, as `/` lists them.
const INDEX: &str = "\
rhumb admin listener
/livez      200 while the process runs
/readyz     200 while it takes traffic, 503 before and while it drains
/metrics    Prometheus text format, OpenMetrics
/version    version of the binary
/status     state, revision, listeners, last reload        (token)
/config     the compiled configuration                    (token)
/endpoints  endpoints of each backend, state and load     (token)
/drain      POST: stop taking traffic, finish, end        (token)
/api/v1/    documents, revisions, diff, rollback, proxies (token; in a control plane)
";

/// Answers on `socket` until the process ends; `token` opens what is not open to all.
pub(crate) async fn serve(socket: TcpListener, admin: Admin, token: Issued) {
    let service = router(Arc::new(Desk { admin, token })).into_make_service_with_connect_info::<Peer>();
    if let Err(error) = axum::serve(Door::new(socket), service).await {
        tracing::error!(%error, "admin listener ended");
    }
}

fn router(desk: Arc<Desk>) -> Router {
    let api = desk.admin.control.clone().map_or_else(Router::new, api::router);
    Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(|| async { page(&json!({ "name": "rhumb", "version": VERSION })) }))
        .route("/status", get(status))
        .route("/config", get(config))
        .route("/endpoints", get(endpoint_states))
        .route("/drain", post(drain))
        .merge(api)
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "there is no such page; / lists them") })
        .method_not_allowed_fallback(|| async {
            problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "this page takes other methods: most take GET and HEAD, `/drain` takes POST",
            )
        })
        .layer(from_fn_with_state(Arc::clone(&desk), check))
        .with_state(desk)
}

/// Lets a request in or answers in its place.
async fn check(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    match desk.refusal(peer, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

async fn readyz(State(desk): State<Arc<Desk>>) -> Response {
    let phase = desk.admin.health.phase();
    let status = if phase == Phase::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{}\n", phase.as_str())).into_response()
}

async fn metrics(State(desk): State<Arc<Desk>>, fields: HeaderMap) -> Response {
    let accept = fields.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    let mut text = String::new();
    desk.admin.registry.render(format, &mut text);
    ([(header::CONTENT_TYPE, format.content_type()), (header::VARY, "Accept")], text).into_response()
}

async fn status(State(desk): State<Arc<Desk>>) -> Response {
    page(&desk.admin.status())
}

async fn config(State(desk): State<Arc<Desk>>) -> Response {
    page(&rhumb_plan::dump(&desk.admin.current.load()))
}

/// Orders the drain that SIGTERM begins too. A second request changes nothing: no signal of this kind is a second one.
async fn drain(State(desk): State<Arc<Desk>>) -> Response {
    if desk.admin.health.order_drain() {
        tracing::info!("drain ordered through the admin listener");
        // Without a receiver the process is ending.
        let _ = desk.admin.orders.send(Signal::Stop);
    }
    (StatusCode::ACCEPTED, page(&desk.admin.status())).into_response()
}

async fn endpoint_states(State(desk): State<Arc<Desk>>) -> Response {
    let now = Nanos::since(desk.admin.origin, Instant::now());
    page(&endpoints::endpoints(&desk.admin.current.load(), now, &desk.admin.names))
}

impl Desk {
    /// The answer to a request that is not let in.
    fn refusal(&self, peer: SocketAddr, request: &Request) -> Option<Response> {
        let field = |name| request.headers().get(name);
        let token = field(header::AUTHORIZATION).map(|value| self.token.token.opens(value.as_bytes()));
        // A Host that is not text is no address.
        let host = field(header::HOST).map(|value| value.to_str().unwrap_or("?"));
        let path = request.uri().path();
        let (what, challenge) = match guard::access(path, peer.ip(), host, token) {
            Access::Granted => return None,
            Access::HostRefused => {
                tracing::warn!(%peer, ?host, "admin request for another host refused");
                let detail = "without a token, ask by IP address or localhost";
                return Some(problem(StatusCode::MISDIRECTED_REQUEST, detail));
            }
            Access::TokenMissing => ("this needs a token", r#"Bearer realm="rhumb""#),
            Access::TokenWrong => {
                tracing::warn!(%peer, path, "admin request with a wrong token refused");
                ("this is not the token", r#"Bearer realm="rhumb", error="invalid_token""#)
            }
        };
        let file = self.token.path.as_ref().map(|path| path.display().to_string());
        let file = file.unwrap_or_else(|| "the file that --admin-token-file names".to_owned());
        let detail = format!("{what}: send `Authorization: Bearer TOKEN` with the content of {file}");
        let mut response = problem(StatusCode::UNAUTHORIZED, &detail);
        // RFC 6750 §3.
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        Some(response)
    }
}

impl Admin {
    fn status(&self) -> Value {
        let plan = self.current.load();
        let attempt = self.health.last_attempt();
        json!({
            "version": VERSION,
            "pid": std::process::id(),
            "state": self.health.phase().as_str(),
            "startedAt": self.health.started_at(),
            "uptimeSeconds": self.health.uptime().as_secs(),
            "revision": plan.revision,
            "workers": self.workers,
            "config": self.config.display().to_string(),
            "listeners": plan.ports.iter().map(|port| json!({
                "name": port.name.as_str(),
                "address": port.address.to_string(),
                "tls": port.tls.is_some(),
                "rules": port.table.len(),
            })).collect::<Vec<_>>(),
            "connections": self.connections.load(Ordering::Relaxed),
            "backends": plan.backends.iter().map(|backend| {
                let set = backend.endpoints.load();
                let eligible = set.members().iter().filter(|member| member.endpoint().is_eligible()).count();
                json!({ "name": backend.name.as_str(), "endpoints": set.members().len(), "eligible": eligible })
            }).collect::<Vec<_>>(),
            "overload": crate::scales::standing(&self.pressure),
            "mesh": plan.mesh.as_ref().map(|mesh| json!({
                "identity": mesh.membership.as_ref().and_then(|own| own.id()).map(|id| id.to_string()),
                "trustDomain": mesh.membership.as_ref().map(|own| own.trust_domain().to_string()),
                "permissive": mesh.is_permissive,
                "plaintextCallers": self.plaintext.callers().into_iter().map(|(address, connections)| {
                    json!({ "address": address.to_string(), "connections": connections })
                }).collect::<Vec<_>>(),
            })),
            "liveSince": self.health.live_since(),
            "lastAttempt": attempt.map(|attempt| json!({
                "at": attempt.at,
                "refused": attempt.refused,
                "diagnostics": attempt.diagnostics,
            })),
        })
    }
}

/// A page of JSON for programs and people.
fn page(value: &Value) -> Response {
    let mut text = format!("{value:#}");
    text.push('\n');
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// An error (RFC 9457).
fn problem(status: StatusCode, detail: &str) -> Response {
    let text = json!({
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": detail,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], format!("{text}\n")).into_response()
}
