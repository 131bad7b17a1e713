//! The issuer on a port of its own.

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::{Issuer, IssuerService};
use crate::members::accept;

/// Streams of one connection: a request and what to trust.
const MAX_STREAMS: u32 = 16;

/// Serves an issuer, and looks after its authority, until `stop` ends.
///
/// **Errors**: a TLS server that cannot be made, and what ends the gRPC server.
pub async fn serve(
    issuer: Arc<Issuer>,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let (accepting, connections) = accept(listener, issuer.membership())?;
    let server = rhumb_grpc::server(MAX_STREAMS)
        .add_service(IssuerService::of(Arc::clone(&issuer)))
        .serve_with_incoming(connections);
    tokio::select! {
        () = accepting => Ok(()),
        () = issuer.run() => Ok(()),
        () = stop => Ok(()),
        served = server => served.map_err(io::Error::other),
    }
}
