//! The issuer on the wire.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Extensions;
use rhumb_tls::mesh::PeerSvid;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, StdError};
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::{Issuer, Refusal};
use crate::request::MAX_REQUEST;
use crate::wire::{FOLLOW_PATH, ISSUE_PATH, IssueRequest, IssueResponse, SERVICE, Trust, TrustRequest};

/// The largest request: that for a certificate, and a token of Kubernetes. Unit: bytes.
const MAX_MESSAGE: usize = MAX_REQUEST + 64 * 1024;

/// Says whose SVID a connection was made with, from what its server has put beside the request.
pub type PeerOf = fn(&Extensions) -> Option<PeerSvid>;

/// The issuer as a gRPC service, for a server whose TLS asks for SVIDs but lets in who has none.
#[derive(Clone)]
pub struct IssuerService {
    issuer: Arc<Issuer>,
    peer_of: PeerOf,
}

impl IssuerService {
    /// The service of an issuer.
    #[must_use]
    pub fn new(issuer: Arc<Issuer>, peer_of: PeerOf) -> Self {
        Self { issuer, peer_of }
    }
}

impl std::fmt::Debug for IssuerService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuerService").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl NamedService for IssuerService {
    const NAME: &'static str = SERVICE;
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

impl<B> Service<http::Request<B>> for IssuerService
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
        let service = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                ISSUE_PATH => {
                    let codec = ProstCodec::<IssueResponse, IssueRequest>::default();
                    Grpc::new(codec)
                        .max_decoding_message_size(MAX_MESSAGE)
                        .unary(Issue(service), request)
                        .await
                }
                FOLLOW_PATH => {
                    let codec = ProstCodec::<Trust, TrustRequest>::default();
                    Grpc::new(codec).server_streaming(Follow(service), request).await
                }
                _ => Status::unimplemented("there is no such method").into_http(),
            })
        })
    }
}

struct Issue(IssuerService);

impl UnaryService<IssueRequest> for Issue {
    type Response = IssueResponse;
    type Future = Answer<Response<IssueResponse>>;

    fn call(&mut self, request: Request<IssueRequest>) -> Self::Future {
        let IssuerService { issuer, peer_of } = self.0.clone();
        Box::pin(async move {
            let peer = peer_of(request.extensions());
            let request = request.into_inner();
            let _turn = issuer.at_once.acquire().await.map_err(|_| Status::unavailable("about to end"))?;
            let ours = Arc::clone(&issuer);
            // Files are read and written, and the disk is waited for.
            let answer = tokio::task::spawn_blocking(move || ours.answer(&request, peer.as_ref())).await;
            match answer {
                Ok(Ok(response)) => Ok(Response::new(response)),
                Ok(Err(refusal)) => Err(status(&refusal)),
                Err(_) => Err(Status::internal("the issuer cannot answer")),
            }
        })
    }
}

fn status(refusal: &Refusal) -> Status {
    let told = refusal.told();
    match refusal {
        Refusal::Malformed(_) => Status::invalid_argument(told),
        Refusal::Unproven(_) => Status::permission_denied(told),
        Refusal::Ours(_) => Status::unavailable(told),
    }
}

struct Follow(IssuerService);

type TrustStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<Trust, Status>> + Send>>;

impl ServerStreamingService<TrustRequest> for Follow {
    type Response = Trust;
    type ResponseStream = TrustStream;
    type Future = Answer<Response<TrustStream>>;

    fn call(&mut self, request: Request<TrustRequest>) -> Self::Future {
        let IssuerService { issuer, peer_of } = self.0.clone();
        Box::pin(async move {
            if peer_of(request.extensions()).is_none() {
                return Err(Status::unauthenticated(
                    "this needs a client certificate of the mesh: enrol first",
                ));
            }
            let begun = tokio::task::spawn_blocking(move || issuer.trust()).await;
            let Ok(Ok(trust)) = begun else {
                return Err(Status::unavailable("what is to be trusted is not known here"));
            };
            // A slow member gets the latest, and none of those between.
            let updates = WatchStream::new(trust);
            let stream: TrustStream = Box::pin(updates.map(|trust| Ok(Trust::clone(&trust))));
            Ok(Response::new(stream))
        })
    }
}
