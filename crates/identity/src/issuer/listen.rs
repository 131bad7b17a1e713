//! The issuer on a port of its own.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::transport::Server;

use super::{Issuer, IssuerService};
use crate::members::{MemberPeer, accept};

/// Streams of one connection: a request and what to trust.
const MAX_STREAMS: u32 = 16;

/// How often a quiet connection is asked whether it lives, and how long it may take to answer.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Serves an issuer, and looks after its authority, until `stop` ends.
///
/// **Errors**: a TLS server that cannot be made, and what ends the gRPC server.
pub async fn serve(
    issuer: Arc<Issuer>,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let (accepting, connections) = accept(listener, issuer.membership())?;
    let service = IssuerService::new(Arc::clone(&issuer), |extensions| {
        extensions.get::<MemberPeer>().and_then(|peer| peer.svid.clone())
    });
    let server = Server::builder()
        .http2_keepalive_interval(Some(PING.0))
        .http2_keepalive_timeout(Some(PING.1))
        .max_concurrent_streams(MAX_STREAMS)
        .add_service(service)
        .serve_with_incoming(connections);
    tokio::select! {
        () = accepting => Ok(()),
        () = issuer.run() => Ok(()),
        () = stop => Ok(()),
        served = server => served.map_err(io::Error::other),
    }
}
