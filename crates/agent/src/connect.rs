//! How a control plane is reached.

use std::sync::Arc;

use rhumb_grpc::{Connect, Io};

/// Connections without TLS: for tests, and for a control plane in this process.
pub fn plain() -> Connect {
    Arc::new(|server| {
        let server = server.to_owned();
        Box::pin(async move {
            let stream = rhumb_net::connect::connect_to_host(&server).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    })
}
