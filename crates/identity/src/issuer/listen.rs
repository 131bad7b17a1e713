//! The issuer on a port of its own.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rhumb_tls::mesh::{MeshClient, PeerSvid};
use rhumb_tls::{AsyncTls, ServerTls, ServerTlsSet};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::{Issuer, IssuerService};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Handshakes at the same time; more connections wait to be accepted.
const MAX_HANDSHAKES: usize = 256;

/// Connections that wait to be served.
const BACKLOG: usize = 64;

/// Streams of one connection: a request and what to trust.
const MAX_STREAMS: u32 = 16;

/// How often a quiet connection is asked whether it lives, and how long it may take to answer.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// How long accepting rests after it failed, as for want of descriptors.
const REST: Duration = Duration::from_millis(200);

/// Serves an issuer, and looks after its authority, until `stop` ends.
///
/// **Errors**: a TLS server that cannot be made, and what ends the gRPC server.
pub async fn serve(
    issuer: Arc<Issuer>,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let tls = ServerTls::member(issuer.membership(), MeshClient::Optional, vec![b"h2".to_vec()]);
    let tls = ServerTlsSet::single(tls.map_err(io::Error::other)?);
    let service = IssuerService::new(Arc::clone(&issuer), |extensions| {
        extensions.get::<Known>().and_then(|known| known.0.clone())
    });
    let (tx, rx) = mpsc::channel::<io::Result<Connection>>(BACKLOG);
    let server = Server::builder()
        .http2_keepalive_interval(Some(PING.0))
        .http2_keepalive_timeout(Some(PING.1))
        .max_concurrent_streams(MAX_STREAMS)
        .add_service(service)
        .serve_with_incoming(ReceiverStream::new(rx));
    tokio::select! {
        () = accept(listener, tls, tx) => Ok(()),
        () = issuer.run() => Ok(()),
        () = stop => Ok(()),
        served = server => served.map_err(io::Error::other),
    }
}

async fn accept(listener: TcpListener, tls: ServerTlsSet, tx: mpsc::Sender<io::Result<Connection>>) {
    let room = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection to the issuer was not accepted");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let (tls, tx) = (tls.clone(), tx.clone());
        tokio::spawn(async move {
            let _permit = permit;
            match tokio::time::timeout(HANDSHAKE, greet(stream, tls)).await {
                // Nobody serves any more when this fails.
                Ok(Ok(connection)) => drop(tx.send(Ok(connection)).await),
                Ok(Err(error)) => tracing::debug!(%from, %error, "no handshake with the issuer"),
                Err(_) => tracing::debug!(%from, "a handshake with the issuer took too long"),
            }
        });
    }
}

async fn greet(stream: TcpStream, tls: ServerTlsSet) -> Result<Connection, rhumb_tls::HandshakeError> {
    stream.set_nodelay(true)?;
    let io = AsyncTls::accept(stream, tls).await?;
    let known = Known(io.peer_svid());
    Ok(Connection { io, known })
}

/// Whose SVID a connection was made with.
#[derive(Clone)]
struct Known(Option<PeerSvid>);

struct Connection {
    io: AsyncTls,
    known: Known,
}

impl Connected for Connection {
    type ConnectInfo = Known;

    fn connect_info(&self) -> Known {
        self.known.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
