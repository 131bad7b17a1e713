//! Connections for gRPC.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rhumb_tls::{AsyncTls, ClientTls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// How long a connection may take to be made, TLS included.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// How long an answer may take.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);

/// How often a quiet connection is asked whether it lives, and how long it may take to answer.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<Box<dyn Io>>>> + Send>>;

/// One way to connect, whatever the URI says.
#[derive(Clone)]
struct Connector(Arc<dyn Fn() -> Connecting + Send + Sync>);

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        (self.0)()
    }
}

/// A connection to `HOST:PORT`: the first of its addresses that takes one.
///
/// **Errors**: those of the last address, and of the handshake.
pub(crate) async fn over_tls(server: &str, tls: ClientTls) -> Result<Channel, tonic::transport::Error> {
    let server: Arc<str> = server.into();
    connect(Connector(Arc::new(move || {
        let (server, tls) = (Arc::clone(&server), tls.clone());
        Box::pin(async move {
            let stream = rhumb_net::connect::connect_to_host(&server).await?;
            let ip = stream.peer_addr()?.ip();
            let stream = AsyncTls::connect(stream, &tls, ip).await?;
            Ok(TokioIo::new(Box::new(stream) as Box<dyn Io>))
        })
    })))
    .await
}

/// A connection to a Unix socket.
///
/// **Errors**: those of the socket.
pub(crate) async fn over_unix(path: &std::path::Path) -> Result<Channel, tonic::transport::Error> {
    let path = path.to_owned();
    connect(Connector(Arc::new(move || {
        let path = path.clone();
        Box::pin(async move { Ok(TokioIo::new(Box::new(UnixStream::connect(path).await?) as Box<dyn Io>)) })
    })))
    .await
}

async fn connect(connector: Connector) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_static("http://issuer.mesh")
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
}

/// An error with what is behind it: the transport's own words say only that it failed.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}
