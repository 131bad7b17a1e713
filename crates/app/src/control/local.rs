//! Where gRPC clients of this machine reach a control plane: plain text, on an address that others cannot connect to.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rhumb_control::hub::Hub;
use rhumb_control::sotw::local_routes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

/// Connections that wait to be served.
const BACKLOG: usize = 64;

/// How long accepting rests after it failed, as for want of descriptors.
const REST: Duration = Duration::from_millis(200);

/// Serves gRPC clients, for as long as the process lives.
pub(super) async fn serve(listener: TcpListener, hub: Arc<Hub>) {
    let (tx, rx) = mpsc::channel::<io::Result<TcpStream>>(BACKLOG);
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    if tx.send(Ok(stream)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection of a gRPC client was not accepted");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    };
    let serve = Server::builder().add_routes(local_routes(&hub)).serve_with_incoming(ReceiverStream::new(rx));
    tokio::select! {
        () = accept => {}
        served = serve => {
            if let Err(error) = served {
                tracing::error!(%error, "gRPC clients of this machine are not served any more");
            }
        }
    }
}
