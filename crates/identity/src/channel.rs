//! Connections for gRPC.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rhumb_grpc::{Connect, Io};
use rhumb_tls::{AsyncTls, ClientTls};
use tokio::net::UnixStream;
use tonic::transport::Channel;

/// How long a connection may take to be made, TLS included.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// How long an answer may take.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);

/// Connections to `HOST:PORT`: to the first of its addresses that takes one.
pub fn over_tls(tls: ClientTls) -> Connect {
    Arc::new(move |server| {
        let (server, tls) = (server.to_owned(), tls.clone());
        Box::pin(async move {
            let stream = rhumb_net::connect::connect_to_host(&server).await?;
            let ip = stream.peer_addr()?.ip();
            let stream = AsyncTls::connect(stream, &tls, ip).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    })
}

/// A channel to an issuer at `HOST:PORT`.
///
/// **Errors**: those of the last address, and of the handshake.
pub(crate) async fn to_issuer(server: &str, tls: ClientTls) -> Result<Channel, String> {
    rhumb_grpc::connect(&over_tls(tls), server, "http://issuer.mesh", CONNECT).await
}

/// A channel to a Unix socket.
///
/// **Errors**: those of the socket.
pub(crate) async fn to_socket(path: &Path) -> Result<Channel, String> {
    let socket = path.to_owned();
    let connect: Connect = Arc::new(move |_| {
        let socket = socket.clone();
        Box::pin(async move { Ok(Box::new(UnixStream::connect(socket).await?) as Box<dyn Io>) })
    });
    rhumb_grpc::connect(&connect, "", "http://issuer.mesh", CONNECT).await
}
