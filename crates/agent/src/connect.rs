//! How a control plane is reached.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection that is being made.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send>>;

/// Connects to `HOST:PORT`, and proves and verifies what there is to prove and verify.
pub type Connect = Arc<dyn Fn(&str) -> Connecting + Send + Sync>;

/// Connections without TLS: for tests, and for a control plane in this process.
pub fn plain() -> Connect {
    Arc::new(|server| {
        let server = server.to_owned();
        Box::pin(async move {
            let stream = TcpStream::connect(server).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    })
}

/// The same, as tonic wants it: one server, whatever the URI says.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) connect: Connect,
    pub(crate) server: Arc<str>,
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
