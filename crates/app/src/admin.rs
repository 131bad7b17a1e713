//! The admin listener: probes, metrics, and what the process knows about itself.
//!
//! It lives on the control runtime, not on the workers: a slow reader of `/config` costs no request anything. Who may
//! ask for what is [`guard`]'s table for the pages, and [`v1`]'s description for the API.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use anyhow::Context;

use axum::Router;
use axum::extract::{ConnectInfo, RawQuery, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use rhumb_balance::Nanos;
use rhumb_control::control::Control;
use rhumb_control::fleet::Fleet;
use rhumb_identity::Issuer;
use rhumb_model::kind::admin::CALLBACK;
use rhumb_plan::Current;
use rhumb_proxy::discovery::Plaintext;
use rhumb_proxy::overload::Pressure;
use rhumb_proxy::tap::Taps;
use rhumb_signals::History;
use rhumb_telemetry::Registry;
use rhumb_telemetry::metrics::Format;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;

use crate::errand::Errands;
use crate::health::{Health, Phase, unix_now};
use crate::names::Board;
use crate::signal::Signal;
use audit::Audit;
use credentials::{Credentials, Who};
use door::{Door, Peer};
use guard::Access;
use problem::Problem;
use shelf::Shelf;
use token::Issued;

mod audit;
pub(crate) mod client;
pub(crate) mod credentials;
mod door;
mod endpoints;
mod guard;
mod invocation;
mod problem;
pub(crate) mod role;
pub(crate) mod shelf;
pub(crate) mod token;
mod ui;
pub(crate) mod v1;

/// What the answers are made of.
pub(crate) struct Admin {
    /// `gateway`, `sidecar` or `control`.
    pub(crate) kind: &'static str,
    /// Documents in force, where they are in no store.
    pub(crate) shelf: Shelf,
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
    /// Who looks at exchanges, in a process that has some.
    pub(crate) taps: Option<Arc<Taps>>,
    /// The control plane, in a process that is one.
    pub(crate) control: Option<Arc<Control>>,
    /// What was counted and what happened, where that is kept.
    pub(crate) history: Option<Arc<History>>,
    /// The way to other services.
    pub(crate) errands: Errands,
    /// The certificate authority, where this process is one.
    pub(crate) issuer: Option<Arc<Issuer>>,
    /// What the proxies of a control plane tell.
    pub(crate) fleet: Option<Arc<Fleet>>,
}

/// What answers: the sources of the answers, who may have them, and what was done.
struct Desk {
    admin: Arc<Admin>,
    credentials: Credentials,
    audit: Audit,
}

/// Where the admin listener keeps what it needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// The file that has, or gets, the token of the process.
    pub(crate) token: Option<PathBuf>,
    /// Where named tokens and the audit log are. Default: beside what else outlives the process (`$STATE_DIRECTORY`), or
    /// beside the token.
    pub(crate) directory: Option<PathBuf>,
}

impl Places {
    /// Makes or reads what opens the listener on `port`, and opens the audit log; the last of it tells whether the file of
    /// the token goes with this process.
    ///
    /// # Errors
    /// When a file that was named cannot be used.
    pub(crate) fn open(self, port: u16) -> anyhow::Result<(Credentials, Audit, Arc<AtomicBool>)> {
        let token = match &self.token {
            Some(file) => Issued::at(file).context("admin token")?,
            None => Issued::make(port).context("admin token")?,
        };
        let owns_token = token.ownership();
        let is_named = self.directory.is_some();
        let state =
            || std::env::var_os("STATE_DIRECTORY").filter(|value| !value.is_empty()).map(PathBuf::from);
        let beside = || {
            let parent = token.path.as_deref()?.parent()?;
            Some(if parent.as_os_str().is_empty() { ".".into() } else { parent.to_owned() })
        };
        let directory = self.directory.or_else(state).or_else(beside);
        let directory = directory.filter(|directory| {
            let made = token::private_directory(directory);
            if let Err(error) = &made {
                tracing::warn!(%error, directory = %directory.display(), "named tokens and the audit log are kept in memory only");
            }
            made.is_ok() || is_named
        });
        let file =
            |name: &str| directory.as_ref().map(|directory| directory.join(format!("admin-{port}.{name}")));
        let credentials = Credentials::new(token, file("tokens.json")).context("named tokens")?;
        let audit = Audit::open(file("audit.jsonl").as_deref());
        Ok((credentials, audit, owns_token))
    }
}

/// The version that the binary says it is.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The pages, as `/` lists them.
const INDEX: &str = "\
rhumb admin listener
/ui/        the dashboard, for browsers
/livez      200 while the process runs
/readyz     200 while it takes traffic, 503 before and while it drains; ?verbose says why
/metrics    Prometheus text format, OpenMetrics
/version    version of the binary
/status     state, revision, listeners, last reload        (token)
/config     the compiled configuration                    (token)
/endpoints  endpoints of each backend, state and load     (token)
/drain      POST: stop taking traffic, finish, end        (token)
/api/v1/    everything, for programs: see openapi.json    (token)
";

/// Answers on `socket` until the process ends, to those who have credentials where these are needed.
pub(crate) async fn serve(socket: TcpListener, admin: Arc<Admin>, credentials: Credentials, audit: Audit) {
    let current = admin.current.clone();
    let desk = Arc::new(Desk { admin, credentials, audit });
    let service = router(desk).into_make_service_with_connect_info::<Peer>();
    if let Err(error) = axum::serve(Door::new(socket, current), service).await {
        tracing::error!(%error, "admin listener ended");
    }
}

fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route(
            "/",
            get(
                |fields: HeaderMap| async move { ui::lead(&fields).unwrap_or_else(|| INDEX.into_response()) },
            ),
        )
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(|| async { page(&json!({ "name": "rhumb", "version": VERSION })) }))
        .route("/status", get(status))
        .route("/config", get(config))
        .route("/endpoints", get(endpoint_states))
        .route("/drain", post(drain))
        .merge(v1::router(&desk))
        .route(CALLBACK, get(v1::come_back))
        .fallback(|| async { Problem::no_such_page("there is no such page; / lists them") })
        .method_not_allowed_fallback(|| async {
            Problem::method_not_allowed(
                "this page takes other methods: most take GET and HEAD, `/drain` takes POST",
            )
        })
        .layer(from_fn_with_state(Arc::clone(&desk), check))
        .with_state(desk)
        .merge(ui::router())
}

/// Lets a request in or answers in its place.
async fn check(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).cloned();
    let of_provider = match &shown {
        Some(value) => desk.of_provider(value.as_bytes(), &peer).await,
        None => None,
    };
    match desk.admit(&peer, &request, of_provider) {
        Ok(who) => {
            if let Some(who) = who {
                request.extensions_mut().insert(who);
            }
            next.run(request).await
        }
        Err(refusal) => {
            let (who, problem) = *refusal;
            let (method, path) = (request.method(), request.uri().path());
            desk.note(who.as_ref(), peer.address, method, path, problem.status, Some(problem.code));
            problem.into_response()
        }
    }
}

async fn readyz(State(desk): State<Arc<Desk>>, RawQuery(query): RawQuery) -> Response {
    let phase = desk.admin.health.phase();
    let status = if phase == Phase::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = format!("{}\n", phase.as_str());
    if query.is_some_and(|query| query.split('&').any(|one| one == "verbose" || one.starts_with("verbose=")))
    {
        for missing in desk.admin.health.missing() {
            text.push_str(&missing);
            text.push('\n');
        }
    }
    (status, text).into_response()
}

async fn metrics(State(desk): State<Arc<Desk>>, fields: HeaderMap) -> Response {
    let accept = fields.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    let text = desk.admin.registry.encode(format);
    ([(header::CONTENT_TYPE, format.content_type()), (header::VARY, "Accept")], text).into_response()
}

async fn status(State(desk): State<Arc<Desk>>) -> Response {
    page(&desk.admin.status())
}

async fn config(State(desk): State<Arc<Desk>>) -> Response {
    page(&rhumb_plan::dump(&desk.admin.current.load()))
}

async fn drain(State(desk): State<Arc<Desk>>) -> Response {
    desk.admin.begin_drain();
    (StatusCode::ACCEPTED, page(&desk.admin.status())).into_response()
}

async fn endpoint_states(State(desk): State<Arc<Desk>>) -> Response {
    let now = Nanos::since(desk.admin.origin, Instant::now());
    page(&endpoints::endpoints(&desk.admin.current.load(), now, &desk.admin.names))
}

impl Desk {
    /// Who asks, if they may.
    fn admit(
        &self,
        peer: &Peer,
        request: &Request,
        of_provider: Option<Result<Who, Problem>>,
    ) -> Result<Option<Who>, Box<(Option<Who>, Problem)>> {
        let address = peer.address;
        let field = |name| request.headers().get(name);
        // A Host that is not text is no address.
        let host = field(header::HOST).map(|value| value.to_str().unwrap_or("?"));
        let path = request.uri().path();
        let who = match (field(header::AUTHORIZATION), of_provider) {
            (_, Some(known)) => Some(known.map_err(|problem| Box::new((None, problem)))?),
            (Some(value), None) => match self.credentials.of_field(value.as_bytes(), address.ip()) {
                Ok(who) => Some(who),
                Err(refused) => {
                    tracing::warn!(peer = %address, path, "admin request with wrong credentials refused");
                    return Err(Box::new((None, v1::refusal(refused))));
                }
            },
            // What it is worth is up to who is logged in; one that ended opens nothing.
            (None, None) => v1::cookie_of(request.headers())
                .and_then(|cookie| self.credentials.of_session(cookie))
                .or_else(|| self.of_certificate(peer)),
        };
        let access = self.access();
        let hosts = access.as_ref().map(|access| &*access.hosts).unwrap_or_default();
        let role = who.as_ref().map(|who| who.role);
        match guard::access(path, request.method(), address.ip(), (host, hosts), role) {
            Access::Granted => {
                let is_forged = request.method() == Method::POST
                    && path == "/drain"
                    && who.as_ref().is_some_and(|who| v1::may_be_forged(who, request.headers()));
                if is_forged {
                    let detail = "a browser has to send `X-Rhumb-Request: 1` with it";
                    return Err(Box::new((who, Problem::request_header_missing(detail))));
                }
                Ok(who)
            }
            Access::HostRefused => {
                tracing::warn!(peer = %address, ?host, "admin request for another host refused");
                let detail =
                    "without a token, ask by IP address, localhost, or a name that `admin.hosts` lists";
                Err(Box::new((who, Problem::host_refused(detail))))
            }
            Access::RoleMissing(role) => {
                let detail = format!("this is for the role {}", role.as_str());
                Err(Box::new((who, Problem::role_insufficient(detail))))
            }
            Access::TokenMissing => {
                let file = self.credentials.process_file();
                let file = file.unwrap_or_else(|| "the file that --admin-token-file names".to_owned());
                let detail = format!(
                    "this needs a token: send `Authorization: Bearer TOKEN` with the content of {file}"
                );
                Err(Box::new((None, Problem::credentials_missing(detail))))
            }
        }
    }
}

impl Desk {
    /// What is written about access, as it is in force.
    fn access(&self) -> Option<Arc<rhumb_plan::admin::Access>> {
        self.admin.current.load().admin.clone()
    }

    /// Who has shown a certificate that opens something. One that has ended meanwhile opens nothing.
    fn of_certificate(&self, peer: &Peer) -> Option<Who> {
        let shown = peer.certificate()?;
        let until = u64::try_from(shown.not_after_unix).unwrap_or(0);
        if until <= unix_now() {
            return None;
        }
        let (name, role) = self.access()?.of_certificate(shown)?;
        Some(Who::of_certificate(&name, role.into(), until))
    }
}

impl Admin {
    /// What is told of signals: of all proxies in a control plane, of this process elsewhere.
    pub(crate) fn shown_history(&self) -> Option<&Arc<History>> {
        self.fleet.as_ref().map(|fleet| fleet.history()).or(self.history.as_ref())
    }

    /// The documents, of a process that is a control plane and nothing else.
    pub(crate) fn plane(&self) -> Option<&Arc<Control>> {
        self.control.as_ref().filter(|_| self.kind == "control")
    }

    fn status(&self) -> Value {
        let plan = self.current.load();
        let attempt = self.health.last_attempt();
        json!({
            "version": VERSION,
            "pid": std::process::id(),
            "state": self.health.phase().as_str(),
            "missing": self.health.missing(),
            "startedAt": self.health.started_at(),
            "uptimeSeconds": self.health.uptime().as_secs(),
            "revision": self.process_revision(),
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
