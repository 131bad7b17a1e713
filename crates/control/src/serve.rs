//! The gRPC services of the control plane.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rhumb_ads::MAX_NAME_BYTES;
use rhumb_ads::registry::{
    self, REGISTER_PATH, Registered, Registration, WITHDRAW_PATH, Withdrawal, Withdrawn,
};
use rhumb_ads::wire::{self, DELTA_PATH, DeltaRequest, DeltaResponse};
use rhumb_grpc::{Call, Served, Service, no_such_method};
use rhumb_xds::wire::SOTW_PATH;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::caller::Caller;
use crate::core::Ended;
use crate::hub::{Hub, now};
use crate::members;
use crate::reports::Reports;
use crate::sotw;

/// The largest message of a proxy. Unit: bytes.
pub(crate) const MAX_MESSAGE: usize = 8 << 20;

/// The largest message of a workload: its name, its services and their ports. Unit: bytes.
const MAX_REGISTRATION: usize = 64 << 10;

/// The longest that a workload that is about to end waits for proxies.
const MAX_BARRIER: Duration = Duration::from_secs(300);

/// Streams of one connection.
const MAX_STREAMS: u32 = 64;

/// What a stream of requests is answered with.
type Answers<T> = Result<Response<ReceiverStream<Result<T, Status>>>, Status>;

/// A connection, and who is at its other end.
#[derive(Debug)]
pub struct Connection<S> {
    io: S,
    caller: Caller,
}

impl<S> Connection<S> {
    /// A connection of a caller.
    pub fn new(io: S, caller: Caller) -> Self {
        Self { io, caller }
    }
}

/// Says who asks, from what the server of a connection has put beside the request.
pub type CallerOf = fn(&http::Extensions) -> Option<Caller>;

/// The services of the control plane, to which others may be added.
pub fn routes(hub: &Arc<Hub>, caller_of: CallerOf) -> Routes {
    let desk = Desk { hub: Arc::clone(hub), caller_of };
    Routes::new(Served(Discovery(desk.clone())))
        .add_service(Served(Reports(desk.clone())))
        .add_service(Served(Registry(desk)))
}

/// Who asks over a [`Connection`].
pub fn caller_of(extensions: &http::Extensions) -> Option<Caller> {
    extensions.get::<Caller>().cloned()
}

/// What services are made of.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) hub: Arc<Hub>,
    caller_of: CallerOf,
}

impl Desk {
    /// Who asks, if it is known.
    pub(crate) fn known(&self, extensions: &http::Extensions) -> Result<Caller, Status> {
        match (self.caller_of)(extensions) {
            Some(caller @ (Caller::Proven { .. } | Caller::Trusted)) => Ok(caller),
            Some(Caller::Unknown(_)) | None => {
                Err(Status::unauthenticated("this needs a client certificate of the mesh: enrol first"))
            }
        }
    }
}

/// Serves connections until `stop` ends; then streams are ended and what else is under way is finished.
///
/// # Errors
/// When connections cannot be taken any more.
pub async fn serve<S>(
    hub: &Hub,
    routes: Routes,
    incoming: impl Stream<Item = io::Result<S>>,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error>
where
    S: AsyncRead + AsyncWrite + Connected + Send + Unpin + 'static,
{
    let server =
        rhumb_grpc::server(MAX_STREAMS).add_routes(routes).serve_with_incoming_shutdown(incoming, async {
            stop.await;
            hub.end();
        });
    server.await
}

/// ADS: deltas for proxies, and state of the world for gRPC clients.
#[derive(Clone)]
struct Discovery(Desk);

impl Service for Discovery {
    const NAME: &'static str = wire::SERVICE;

    async fn answer(self, call: Call) -> http::Response<Body> {
        match call.path() {
            DELTA_PATH => call.up_to(MAX_MESSAGE).streaming(self.0, open_deltas).await,
            SOTW_PATH => match self.0.known(call.extensions()) {
                Ok(caller) => sotw::serve(self.0.hub, caller, call).await,
                Err(status) => status.into_http(),
            },
            _ => no_such_method(),
        }
    }
}

async fn open_deltas(desk: Desk, requests: Request<Streaming<DeltaRequest>>) -> Answers<DeltaResponse> {
    let caller = desk.known(requests.extensions())?;
    let (tx, rx) = mpsc::channel(1);
    tokio::spawn(deltas(desk.hub, caller, requests.into_inner(), tx));
    Ok(Response::new(ReceiverStream::new(rx)))
}

/// Serves one stream until either side ends it.
async fn deltas(
    hub: Arc<Hub>,
    caller: Caller,
    mut requests: Streaming<DeltaRequest>,
    tx: mpsc::Sender<Result<DeltaResponse, Status>>,
) {
    let Some(stream) = hub.open(caller).await else {
        let _ = tx.send(Err(Status::unavailable("too many proxies connect at once: come again"))).await;
        return;
    };
    let ended = loop {
        match stream.respond() {
            Ok(Some(response)) => {
                if tx.send(Ok(response)).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Err(ended) => break ended,
        }
        let request = tokio::select! {
            request = requests.message() => request,
            () = stream.woken() => continue,
            () = tx.closed() => return,
            () = hub.ending() => {
                let _ = tx.send(Err(ends())).await;
                return;
            }
        };
        match request {
            Ok(Some(request)) => {
                if let Err(ended) = stream.request(&request) {
                    break ended;
                }
            }
            Ok(None) => return,
            Err(status) => {
                let _ = tx.send(Err(status)).await;
                return;
            }
        }
    };
    let code = match ended {
        Ended::BadRequest(_) => Code::InvalidArgument,
        Ended::Denied(_) => Code::PermissionDenied,
        Ended::Superseded => Code::Aborted,
    };
    tracing::warn!(%ended, "stream of a proxy ended");
    let _ = tx.send(Err(Status::new(code, ended.to_string()))).await;
}

/// Workloads come and go.
#[derive(Clone)]
struct Registry(Desk);

impl Service for Registry {
    const NAME: &'static str = registry::SERVICE;

    async fn answer(self, call: Call) -> http::Response<Body> {
        match call.path() {
            REGISTER_PATH => call.up_to(MAX_REGISTRATION).streaming(self.0, open_registrations).await,
            WITHDRAW_PATH => call.up_to(MAX_REGISTRATION).unary(self.0, withdraw).await,
            _ => no_such_method(),
        }
    }
}

async fn open_registrations(
    desk: Desk,
    registrations: Request<Streaming<Registration>>,
) -> Answers<Registered> {
    let caller = desk.known(registrations.extensions())?;
    let (tx, rx) = mpsc::channel(1);
    tokio::spawn(register(desk.hub, caller, registrations.into_inner(), tx));
    Ok(Response::new(ReceiverStream::new(rx)))
}

async fn register(
    hub: Arc<Hub>,
    caller: Caller,
    mut registrations: Streaming<Registration>,
    tx: mpsc::Sender<Result<Registered, Status>>,
) {
    let mut registered: Option<(String, String)> = None;
    loop {
        let registration = tokio::select! {
            registration = registrations.message() => registration,
            () = tx.closed() => break,
            () = hub.ending() => {
                let _ = tx.send(Err(ends())).await;
                break;
            }
        };
        let registration = match registration {
            Ok(Some(registration)) => registration,
            Ok(None) => break,
            Err(status) => {
                let _ = tx.send(Err(status)).await;
                break;
            }
        };
        let id = (registration.workload.clone(), registration.instance.clone());
        let services = registration.services.clone();
        let may = members::check(&registration)
            .map_err(|refused| Status::invalid_argument(refused.to_string()))
            .and_then(|()| owns(&hub, &caller, &id.0, Some(&registration.service_account)))
            .and_then(|()| takes(&hub, &registration));
        let result = match may {
            Err(status) => Err(status),
            Ok(()) if registered.as_ref().is_some_and(|known| *known != id) => {
                Err(Status::invalid_argument("a stream registers one workload"))
            }
            Ok(()) => match hub.register(registration) {
                Ok(()) => Ok(Registered { unknown_services: unknown(&hub, &id.0, services) }),
                Err(refused) => Err(Status::invalid_argument(refused.to_string())),
            },
        };
        if let Err(status) = &result {
            let workload: String = id.0.chars().take(MAX_NAME_BYTES).collect();
            tracing::warn!(workload, why = status.message(), "a registration is refused");
        }
        let is_refused = result.is_err();
        if !is_refused {
            registered = Some(id);
        }
        if tx.send(result).await.is_err() || is_refused {
            break;
        }
    }
    if let Some((workload, instance)) = registered {
        hub.lose(&workload, &instance);
    }
}

pub(crate) fn ends() -> Status {
    Status::unavailable("this control plane ends")
}

/// Services that there is no document of.
fn unknown(hub: &Hub, workload: &str, services: Vec<String>) -> Vec<String> {
    let namespace = workload.split('/').next().unwrap_or_default();
    hub.with(|core| {
        let is_unknown = |service: &String| {
            core.library().get(&crate::document::Key::new("Service", namespace, service)).is_none()
        };
        services.into_iter().filter(is_unknown).collect()
    })
}

/// Whether the services of a registration take workloads of its service account.
fn takes(hub: &Hub, registration: &Registration) -> Result<(), Status> {
    let namespace = registration.workload.split('/').next().unwrap_or_default();
    let account = &registration.service_account;
    let foreign = hub.with(|core| {
        let is_foreign = |service: &&String| !members::may_serve(core.library(), namespace, service, account);
        registration.services.iter().find(is_foreign)
    });
    match foreign {
        None => Ok(()),
        Some(service) => Err(Status::permission_denied(format!(
            "service account {account} may not be an endpoint of {namespace}/{service}: its annotation {} names others",
            crate::document::ACCOUNTS
        ))),
    }
}

async fn withdraw(desk: Desk, request: Request<Withdrawal>) -> Result<Response<Withdrawn>, Status> {
    let caller = desk.known(request.extensions())?;
    let hub = desk.hub;
    let withdrawal = request.into_inner();
    owns(&hub, &caller, &withdrawal.workload, None)?;
    let patience = Duration::from_millis(withdrawal.deadline_ms.into()).min(MAX_BARRIER);
    let audience = hub.withdraw(&withdrawal.workload, &withdrawal.instance, now() + patience).await;
    let pending = audience.pending().map(|waiting| waiting.proxy.clone()).collect();
    let acked = u32::try_from(audience.live).unwrap_or(u32::MAX);
    Ok(Response::new(Withdrawn { acked, pending }))
}

/// Whether a caller may speak for a workload: it has its namespace and its service account.
pub(crate) fn owns(hub: &Hub, caller: &Caller, workload: &str, account: Option<&str>) -> Result<(), Status> {
    let Some((namespace, own)) = caller.identity() else { return Ok(()) };
    let (home, name) = workload.split_once('/').unwrap_or_default();
    let expected = hub.with(|core| {
        let key = crate::document::Key::new("Workload", home, name);
        let written = core.library().get(&key).and_then(|document| match &document.role {
            crate::document::Role::Workload(workload) => Some(workload.service_account.to_string()),
            _ => None,
        });
        let registered = || core.members().registration(workload).map(|known| known.service_account.clone());
        written.or_else(registered)
    });
    let is_own = |account: &str| account == own;
    if home == namespace && account.is_none_or(is_own) && expected.as_deref().is_none_or(is_own) {
        return Ok(());
    }
    Err(Status::permission_denied(format!("{namespace}/{own} cannot speak for workload {workload}")))
}

impl<S> Connected for Connection<S> {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
