//! The gRPC services of the control plane.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rhumb_ads::registry::{
    self, REGISTER_PATH, Registered, Registration, WITHDRAW_PATH, Withdrawal, Withdrawn,
};
use rhumb_ads::wire::{self, DELTA_PATH, DeltaRequest, DeltaResponse};
use rhumb_xds::wire::SOTW_PATH;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, StdError};
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::caller::Caller;
use crate::core::Ended;
use crate::hub::{Hub, now};
use crate::reports::Reports;
use crate::sotw;

/// The largest message of a proxy. Unit: bytes.
pub(crate) const MAX_MESSAGE: usize = 8 << 20;

/// How often a quiet connection is asked whether it lives, and how long it may take to answer.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// The longest that a workload that is about to end waits for proxies.
const MAX_BARRIER: Duration = Duration::from_secs(300);

/// Streams of one connection.
const MAX_STREAMS: u32 = 64;

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

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
    Routes::new(Discovery(desk.clone())).add_service(Reports(desk.clone())).add_service(Registry(desk))
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
    let server = Server::builder()
        .http2_keepalive_interval(Some(PING.0))
        .http2_keepalive_timeout(Some(PING.1))
        .max_concurrent_streams(MAX_STREAMS)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, async {
            stop.await;
            hub.end();
        });
    server.await
}

/// ADS: deltas for proxies, and state of the world for gRPC clients.
#[derive(Clone)]
struct Discovery(Desk);

impl NamedService for Discovery {
    const NAME: &'static str = wire::SERVICE;
}

impl<B> Service<http::Request<B>> for Discovery
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let deltas = Deltas(self.0.clone());
        Box::pin(async move {
            if request.uri().path() == SOTW_PATH {
                return Ok(match deltas.0.known(request.extensions()) {
                    Ok(caller) => sotw::serve(deltas.0.hub, caller, request).await,
                    Err(status) => status.into_http(),
                });
            }
            if request.uri().path() != DELTA_PATH {
                return Ok(unimplemented_method());
            }
            let codec = ProstCodec::<DeltaResponse, DeltaRequest>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
            Ok(grpc.streaming(deltas, request).await)
        })
    }
}

struct Deltas(Desk);

impl StreamingService<DeltaRequest> for Deltas {
    type Response = DeltaResponse;
    type ResponseStream = ReceiverStream<Result<DeltaResponse, Status>>;
    type Future = Answer<Self::ResponseStream>;

    fn call(&mut self, request: Request<Streaming<DeltaRequest>>) -> Self::Future {
        let desk = self.0.clone();
        Box::pin(async move {
            let caller = desk.known(request.extensions())?;
            let hub = desk.hub;
            let (tx, rx) = mpsc::channel(1);
            tokio::spawn(deltas(hub, caller, request.into_inner(), tx));
            Ok(Response::new(ReceiverStream::new(rx)))
        })
    }
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
            Ok(None) | Err(_) => return,
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

impl NamedService for Registry {
    const NAME: &'static str = registry::SERVICE;
}

impl<B> Service<http::Request<B>> for Registry
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let desk = self.0.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                REGISTER_PATH => {
                    let codec = ProstCodec::<Registered, Registration>::default();
                    Grpc::new(codec).streaming(Register(desk), request).await
                }
                WITHDRAW_PATH => {
                    let codec = ProstCodec::<Withdrawn, Withdrawal>::default();
                    Grpc::new(codec).unary(Withdraw(desk), request).await
                }
                _ => unimplemented_method(),
            })
        })
    }
}

struct Register(Desk);

impl StreamingService<Registration> for Register {
    type Response = Registered;
    type ResponseStream = ReceiverStream<Result<Registered, Status>>;
    type Future = Answer<Self::ResponseStream>;

    fn call(&mut self, request: Request<Streaming<Registration>>) -> Self::Future {
        let desk = self.0.clone();
        Box::pin(async move {
            let caller = desk.known(request.extensions())?;
            let hub = desk.hub;
            let (tx, rx) = mpsc::channel(1);
            tokio::spawn(register(hub, caller, request.into_inner(), tx));
            Ok(Response::new(ReceiverStream::new(rx)))
        })
    }
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
        let Ok(Some(registration)) = registration else { break };
        let id = (registration.workload.clone(), registration.instance.clone());
        let services = registration.services.clone();
        let may = owns(&hub, &caller, &registration.workload, Some(&registration.service_account))
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
            tracing::warn!(workload = id.0, why = status.message(), "a registration is refused");
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
    let is_unknown = |service: &String| {
        let key = crate::document::Key::new("Service", namespace, service);
        hub.with(|core| core.library().get(&key).is_none())
    };
    services.into_iter().filter(is_unknown).collect()
}

/// Whether the services of a registration take workloads of its service account.
fn takes(hub: &Hub, registration: &Registration) -> Result<(), Status> {
    let namespace = registration.workload.split('/').next().unwrap_or_default();
    let account = &registration.service_account;
    let is_foreign = |service: &&String| {
        hub.with(|core| !crate::members::may_serve(core.library(), namespace, service, account))
    };
    match registration.services.iter().find(is_foreign) {
        None => Ok(()),
        Some(service) => Err(Status::permission_denied(format!(
            "service account {account} may not be an endpoint of {namespace}/{service}: its annotation {} names others",
            crate::document::ACCOUNTS
        ))),
    }
}

struct Withdraw(Desk);

impl UnaryService<Withdrawal> for Withdraw {
    type Response = Withdrawn;
    type Future = Answer<Withdrawn>;

    fn call(&mut self, request: Request<Withdrawal>) -> Self::Future {
        let desk = self.0.clone();
        Box::pin(async move {
            let caller = desk.known(request.extensions())?;
            let hub = desk.hub;
            let withdrawal = request.into_inner();
            owns(&hub, &caller, &withdrawal.workload, None)?;
            let patience = Duration::from_millis(withdrawal.deadline_ms.into()).min(MAX_BARRIER);
            let audience = hub.withdraw(&withdrawal.workload, &withdrawal.instance, now() + patience).await;
            let pending = audience.pending().map(|waiting| waiting.proxy.clone()).collect();
            let acked = u32::try_from(audience.live).unwrap_or(u32::MAX);
            Ok(Response::new(Withdrawn { acked, pending }))
        })
    }
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

pub(crate) fn unimplemented_method() -> http::Response<Body> {
    Status::unimplemented("there is no such method").into_http()
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
