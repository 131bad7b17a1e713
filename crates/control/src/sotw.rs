//! State-of-the-world ADS for gRPC clients without a proxy: each is a client of the [`Hub`] as any proxy, through a
//! [`View`] that speaks its language.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rhumb_ads::wire;
use rhumb_grpc::{Call, Served, Service, no_such_method};
use rhumb_xds::View;
use rhumb_xds::wire::{DiscoveryRequest, DiscoveryResponse, SOTW_PATH};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::caller::{Caller, node_name};
use crate::hub::{Hub, Open};
use crate::serve::{MAX_MESSAGE, ends};

/// Tells streams of the same client apart: a process has one for each of its channels.
static STREAMS: AtomicU64 = AtomicU64::new(1);

/// What serves gRPC clients on an address of this machine, where nothing is proven.
pub fn local_routes(hub: &Arc<Hub>) -> Routes {
    Routes::new(Served(Local(Arc::clone(hub))))
}

/// Who asks on an address of this machine.
fn local_caller(extensions: &http::Extensions) -> Option<SocketAddr> {
    extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr)
}

/// The service on an address of this machine.
#[derive(Clone)]
struct Local(Arc<Hub>);

impl Service for Local {
    const NAME: &'static str = wire::SERVICE;

    async fn answer(self, call: Call) -> http::Response<Body> {
        if call.path() != SOTW_PATH {
            return no_such_method();
        }
        if let Some(from) = local_caller(call.extensions()) {
            tracing::debug!(%from, "a gRPC client asks for the mesh");
        }
        serve(self.0, Caller::Trusted, call).await
    }
}

/// Serves a stream of a caller that is known.
pub(crate) async fn serve(hub: Arc<Hub>, caller: Caller, call: Call) -> http::Response<Body> {
    call.up_to(MAX_MESSAGE).streaming(Whole { hub, caller }, Whole::open).await
}

#[derive(Clone)]
struct Whole {
    hub: Arc<Hub>,
    caller: Caller,
}

impl Whole {
    async fn open(
        self,
        requests: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<ReceiverStream<Result<DiscoveryResponse, Status>>>, Status> {
        let (tx, rx) = mpsc::channel(1);
        tokio::spawn(stream(self.hub, self.caller, requests.into_inner(), tx));
        Ok(Response::new(ReceiverStream::new(rx)))
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
    let node = first.node.as_ref().map(|node| node_name(&node.id)).unwrap_or_default();
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
