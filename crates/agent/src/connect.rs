//! How a control plane is reached.

use std::sync::Arc;

use rhumb_grpc::{Connect, Io};
use tokio::net::TcpStream;

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
