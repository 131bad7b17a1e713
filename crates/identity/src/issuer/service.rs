//! The issuer on the wire.

use std::pin::Pin;
use std::sync::Arc;

use rhumb_grpc::{Call, Served, Service, no_such_method};
use rhumb_tls::mesh::PeerSvid;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;
use tonic::body::Body;
use tonic::{Request, Response, Status};

use super::{Issuer, Refusal};
use crate::members::MemberPeer;
use crate::request::MAX_REQUEST;
use crate::wire::{FOLLOW_PATH, ISSUE_PATH, IssueRequest, IssueResponse, SERVICE, Trust, TrustRequest};

/// The largest request: that for a certificate, and a token of Kubernetes. Unit: bytes.
const MAX_MESSAGE: usize = MAX_REQUEST + 64 * 1024;

/// The issuer as a gRPC service, for connections that were [accepted](crate::accept).
#[derive(Clone, Debug)]
pub struct IssuerService(Arc<Issuer>);

impl IssuerService {
    /// The service of an issuer.
    #[must_use]
    pub fn of(issuer: Arc<Issuer>) -> Served<Self> {
        Served(Self(issuer))
    }
}

impl Service for IssuerService {
    const NAME: &'static str = SERVICE;

    async fn answer(self, call: Call) -> http::Response<Body> {
        match call.path() {
            ISSUE_PATH => call.up_to(MAX_MESSAGE).unary(self.0, issue).await,
            FOLLOW_PATH => call.server_streaming(self.0, follow).await,
            _ => no_such_method(),
        }
    }
}

/// Whose SVID a connection was made with.
fn peer_of<T>(request: &Request<T>) -> Option<PeerSvid> {
    request.extensions().get::<MemberPeer>().and_then(|peer| peer.svid.clone())
}

async fn issue(
    issuer: Arc<Issuer>,
    request: Request<IssueRequest>,
) -> Result<Response<IssueResponse>, Status> {
    let peer = peer_of(&request);
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
}

fn status(refusal: &Refusal) -> Status {
    let told = refusal.told();
    match refusal {
        Refusal::Malformed(_) => Status::invalid_argument(told),
        Refusal::Unproven(_) => Status::permission_denied(told),
        Refusal::Ours(_) => Status::unavailable(told),
    }
}

type TrustStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<Trust, Status>> + Send>>;

async fn follow(
    issuer: Arc<Issuer>,
    request: Request<TrustRequest>,
) -> Result<Response<TrustStream>, Status> {
    if peer_of(&request).is_none() {
        return Err(Status::unauthenticated("this needs a client certificate of the mesh: enrol first"));
    }
    let begun = tokio::task::spawn_blocking(move || issuer.trust()).await;
    let Ok(Ok(trust)) = begun else {
        return Err(Status::unavailable("what is to be trusted is not known here"));
    };
    // A slow member gets the latest, and none of those between.
    let updates = WatchStream::new(trust);
    let stream: TrustStream = Box::pin(updates.map(|trust| Ok(Trust::clone(&trust))));
    Ok(Response::new(stream))
}
