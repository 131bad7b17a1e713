//! Where proxies reach a control plane: gRPC over TLS between members of the mesh.
//!
//! Who has no certificate yet is let in, to the issuer only, which is where certificates come from.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use rhumb_control::caller::Caller;
use rhumb_control::hub::Hub;
use rhumb_control::serve::{routes, serve as serve_routes};
use rhumb_identity::{Issuer, IssuerService};
use rhumb_tls::mesh::{Membership, MeshClient, PeerSvid};
use rhumb_tls::{AsyncTls, HandshakeError, ServerTls, ServerTlsSet};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Handshakes at the same time; more connections wait to be accepted.
const MAX_HANDSHAKES: usize = 256;

/// Connections that wait to be served.
const BACKLOG: usize = 64;

/// How long accepting rests after it failed, as for want of descriptors.
const REST: Duration = Duration::from_millis(200);

/// Serves proxies until `stop` ends.
pub(super) async fn serve(
    listener: TcpListener,
    hub: Arc<Hub>,
    issuer: Arc<Issuer>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let membership = issuer.membership().clone();
    let tls = ServerTls::member(&membership, MeshClient::Optional, vec![b"h2".to_vec()]);
    let tls = ServerTlsSet::single(tls.context("TLS of the control plane")?);
    let (tx, rx) = mpsc::channel::<io::Result<Connection>>(BACKLOG);
    let of_issuer = IssuerService::new(Arc::clone(&issuer), |extensions| {
        extensions.get::<Known>().and_then(|known| known.svid.clone())
    });
    let of_control = |extensions: &axum::http::Extensions| {
        extensions.get::<Known>().filter(|known| known.is_admitted()).map(|known| known.caller.clone())
    };
    let routes = routes(&hub, of_control).add_service(of_issuer);
    tokio::select! {
        () = accept(listener, tls, membership, tx) => Ok(()),
        () = issuer.run() => Ok(()),
        () = hub.keep() => Ok(()),
        served = serve_routes(&hub, routes, ReceiverStream::new(rx), stop) => served.context("gRPC"),
    }
}

async fn accept(
    listener: TcpListener,
    tls: ServerTlsSet,
    membership: Membership,
    tx: mpsc::Sender<io::Result<Connection>>,
) {
    let room = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection to the control plane was not accepted");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let (tls, membership, tx) = (tls.clone(), membership.clone(), tx.clone());
        tokio::spawn(async move {
            let _permit = permit;
            match tokio::time::timeout(HANDSHAKE, greet(stream, from, tls, membership)).await {
                // Nobody serves any more when this fails.
                Ok(Ok(connection)) => drop(tx.send(Ok(connection)).await),
                Ok(Err(error)) => tracing::debug!(%from, %error, "no handshake with the control plane"),
                Err(_) => tracing::debug!(%from, "a handshake with the control plane took too long"),
            }
        });
    }
}

async fn greet(
    stream: TcpStream,
    from: SocketAddr,
    tls: ServerTlsSet,
    membership: Membership,
) -> Result<Connection, HandshakeError> {
    stream.set_nodelay(true)?;
    let io = AsyncTls::accept(stream, tls).await?;
    let svid = io.peer_svid();
    let account = svid.as_ref().and_then(|svid| svid.id.account());
    let caller = match account {
        Some((namespace, account)) => Caller::Proven { namespace: namespace.into(), account: account.into() },
        None => Caller::Unknown(Some(from)),
    };
    Ok(Connection { io, known: Known { caller, svid, membership } })
}

/// Who is at the other end of a connection.
#[derive(Clone)]
struct Known {
    caller: Caller,
    svid: Option<PeerSvid>,
    membership: Membership,
}

impl Known {
    /// What was proven when the connection was made may have been revoked since.
    fn is_admitted(&self) -> bool {
        self.svid.as_ref().is_none_or(|svid| self.membership.admits(svid))
    }
}

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
