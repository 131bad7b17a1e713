//! State-of-the-world ADS for gRPC clients without a proxy: each is a client of the [`Hub`] as any proxy, through a
//! [`View`] that speaks its language.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use rhumb_ads::wire;
use rhumb_xds::View;
use rhumb_xds::wire::{DiscoveryRequest, DiscoveryResponse, SOTW_PATH};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, StdError};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::caller::Caller;
use crate::hub::{Hub, Open};
use crate::serve::{MAX_MESSAGE, ends, unimplemented_method};

/// Tells streams of the same client apart: a process has one for each of its channels.
static STREAMS: AtomicU64 = AtomicU64::new(1);

/// What serves gRPC clients on an address of this machine, where nothing is proven.
pub fn local_routes(hub: &Arc<Hub>) -> Routes {
    Routes::new(Local(Arc::clone(hub)))
}

/// Who asks on an address of this machine.
fn local_caller(extensions: &http::Extensions) -> Option<SocketAddr> {
    extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr)
}

/// The service on an address of this machine.
#[derive(Clone)]
struct Local(Arc<Hub>);

impl NamedService for Local {
    const NAME: &'static str = wire::SERVICE;
}

impl<B> Service<http::Request<B>> for Local
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
        let hub = Arc::clone(&self.0);
        Box::pin(async move {
            if request.uri().path() != SOTW_PATH {
                return Ok(unimplemented_method());
            }
            if let Some(from) = local_caller(request.extensions()) {
                tracing::debug!(%from, "a gRPC client asks for the mesh");
            }
            Ok(serve(hub, Caller::Trusted, request).await)
        })
    }
}

/// Serves a stream of a caller that is known.
pub(crate) async fn serve<B>(hub: Arc<Hub>, caller: Caller, request: http::Request<B>) -> http::Response<Body>
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    let codec = ProstCodec::<DiscoveryResponse, DiscoveryRequest>::default();
    let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE);
    grpc.streaming(Whole { hub, caller }, request).await
}

struct Whole {
    hub: Arc<Hub>,
    caller: Caller,
}

impl StreamingService<DiscoveryRequest> for Whole {
    type Response = DiscoveryResponse;
    type ResponseStream = ReceiverStream<Result<DiscoveryResponse, Status>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<DiscoveryRequest>>) -> Self::Future {
        let (hub, caller) = (Arc::clone(&self.hub), self.caller.clone());
        Box::pin(async move {
            let (tx, rx) = mpsc::channel(1);
            tokio::spawn(stream(hub, caller, request.into_inner(), tx));
            Ok(Response::new(ReceiverStream::new(rx)))
        })
    }
}

/// Serves one stream until either side ends it.
async fn stream(
    hub: Arc<Hub>,
    caller: Caller,
    mut requests: Streaming<DiscoveryRequest>,
    tx: mpsc::Sender<Result<DiscoveryResponse, Status>>,
) {
    // The first message says who it is.
    let first = tokio::select! {
        first = requests.message() => first,
        () = tx.closed() => return,
        () = hub.ending() => return drop(tx.send(Err(ends())).await),
    };
    let Ok(Some(first)) = first else { return };
    let node = first.node.as_ref().map_or("", |node| &*node.id);
    let id = format!("grpc:{node}#{}", STREAMS.fetch_add(1, Ordering::Relaxed));
    let proven = match &caller {
        Caller::Proven { namespace, .. } => Some(namespace.clone()),
        Caller::Trusted | Caller::Unknown(_) => None,
    };
    let Some(open) = hub.open(caller).await else {
        let _ = tx.send(Err(Status::unavailable("too many clients connect at once: come again"))).await;
        return;
    };
    let mut view = View::new(proven.as_deref(), id.clone());
    let ended = exchange((&hub, &id), &open, &mut view, first, &mut requests, &tx).await;
    // Who is gone is waited for by nobody: the next stream begins from nothing.
    while let Some(request) = view.leave() {
        if open.request(&request).is_err() {
            break;
        }
    }
    if let Some(status) = ended {
        tracing::warn!(client = id, error = status.message(), "stream of a gRPC client ended");
        let _ = tx.send(Err(status)).await;
    }
}

async fn exchange(
    (hub, client): (&Hub, &str),
    open: &Open,
    view: &mut View,
    first: DiscoveryRequest,
    requests: &mut Streaming<DiscoveryRequest>,
    tx: &mpsc::Sender<Result<DiscoveryResponse, Status>>,
) -> Option<Status> {
    let invalid = |why: String| Some(Status::new(Code::InvalidArgument, why));
    if let Err(error) = view.request(first) {
        return invalid(error.to_string());
    }
    let withheld = hub.fleet().map(|fleet| fleet.client(client));
    loop {
        // What is known, what follows from it for the client, and what else it makes necessary to know.
        loop {
            match open.respond() {
                Ok(Some(response)) => {
                    if let Err(error) = view.heard(response) {
                        return invalid(error.to_string());
                    }
                }
                Ok(None) => {}
                Err(ended) => return Some(Status::aborted(ended.to_string())),
            }
            while let Some(response) = view.respond() {
                if tx.send(Ok(response)).await.is_err() {
                    return None;
                }
            }
            let mut has_asked = false;
            while let Some(request) = view.ask() {
                has_asked = true;
                if let Err(ended) = open.request(&request) {
                    return Some(Status::permission_denied(ended.to_string()));
                }
            }
            if !has_asked {
                break;
            }
        }
        for (name, why) in view.take_news() {
            if let Some(withheld) = &withheld {
                withheld.note(&name, &why);
            }
            if why.is_empty() {
                tracing::info!(name = &*name, "offered to gRPC clients");
            } else {
                tracing::warn!(name = &*name, %why, "not offered to gRPC clients");
            }
        }
        let request = tokio::select! {
            request = requests.message() => request,
            () = open.woken() => continue,
            () = tx.closed() => return None,
            () = hub.ending() => return Some(ends()),
        };
        match request {
            Ok(Some(request)) => {
                if let Some(why) = &request.error_detail {
                    tracing::warn!(
                        kind = request.type_url,
                        why = why.message,
                        "a gRPC client refuses resources"
                    );
                }
                if let Err(error) = view.request(request) {
                    return invalid(error.to_string());
                }
            }
            Ok(None) | Err(_) => return None,
        }
    }
}
