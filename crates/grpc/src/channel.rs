//! Channels over connections of any kind.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint};

use crate::PING;

/// A connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection that is being made.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send>>;

/// Connects to a server, and proves and verifies what there is to prove and verify.
pub type Connect = Arc<dyn Fn(&str) -> Connecting + Send + Sync>;

/// A channel to a server. `origin` is what its calls name as theirs, whatever the server is called.
///
/// # Errors
/// Why there is no connection within `patience`, in words.
pub async fn connect(
    connect: &Connect,
    server: &str,
    origin: &'static str,
    patience: Duration,
) -> Result<Channel, String> {
    let endpoint = Endpoint::from_static(origin)
        .connect_timeout(patience)
        .http2_keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .keep_alive_while_idle(true);
    let connector = Connector { connect: Arc::clone(connect), server: server.into() };
    match tokio::time::timeout(patience, endpoint.connect_with_connector(connector)).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(causes(&error)),
        Err(_) => Err("it does not answer".to_owned()),
    }
}

/// An error with what is behind it: the transport's own words say only that it failed.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let told = cause.to_string();
        if !text.contains(&told) {
            text = format!("{text}: {told}");
        }
        next = cause.source();
    }
    text
}

/// A way to connect as tonic wants it: one server, whatever the URI says.
#[derive(Clone)]
struct Connector {
    connect: Connect,
    server: Arc<str>,
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connecting = (self.connect)(&self.server);
        Box::pin(async move { Ok(TokioIo::new(connecting.await?)) })
    }
}
