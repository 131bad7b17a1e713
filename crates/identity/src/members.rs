//! Connections between members of a mesh and what serves them: TLS in which both sides prove who they are.
//!
//! Who has no certificate yet is let in too, for the issuer, which is where certificates come from; what else it may ask for
//! is for the services to say. A connection ends when the identity that it was made with is revoked.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rhumb_tls::mesh::{Membership, MeshClient, PeerSvid};
use rhumb_tls::{AsyncTls, HandshakeError, ServerTls, ServerTlsSet};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tonic::transport::server::Connected;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Handshakes at the same time; more connections wait to be accepted.
const MAX_HANDSHAKES: usize = 256;

/// Connections that wait to be served.
const BACKLOG: usize = 64;

/// How long accepting rests after it failed, as for want of descriptors.
const REST: Duration = Duration::from_millis(200);

/// How often it is looked whether something was revoked.
const LOOK: Duration = Duration::from_millis(100);

/// Accepts connections for as long as the future is polled; what it accepts is in the stream.
///
/// **Errors**: a TLS server that cannot be made.
pub fn accept(
    listener: TcpListener,
    membership: &Membership,
) -> io::Result<(impl Future<Output = ()> + use<>, ReceiverStream<io::Result<MemberConnection>>)> {
    let tls = ServerTls::member(membership, MeshClient::Optional, vec![b"h2".to_vec()]);
    let tls = ServerTlsSet::single(tls.map_err(io::Error::other)?);
    let (tx, rx) = mpsc::channel(BACKLOG);
    let (revoked, revocations) = watch::channel(membership.generation());
    let membership = membership.clone();
    let looking = {
        let membership = membership.clone();
        async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let generation = membership.generation();
                revoked.send_if_modified(|known| std::mem::replace(known, generation) != generation);
            }
        }
    };
    let accepting = accept_all(listener, tls, membership, revocations, tx);
    let both = async move {
        tokio::select! {
            () = accepting => {}
            () = looking => {}
        }
    };
    Ok((both, ReceiverStream::new(rx)))
}

async fn accept_all(
    listener: TcpListener,
    tls: ServerTlsSet,
    membership: Membership,
    revocations: watch::Receiver<u64>,
    tx: mpsc::Sender<io::Result<MemberConnection>>,
) {
    let room = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection of a member was not accepted");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let (tls, membership, revocations, tx) =
            (tls.clone(), membership.clone(), revocations.clone(), tx.clone());
        tokio::spawn(async move {
            let _permit = permit;
            match tokio::time::timeout(HANDSHAKE, greet(stream, from, tls, membership, revocations)).await {
                // Nobody serves any more when this fails.
                Ok(Ok(connection)) => drop(tx.send(Ok(connection)).await),
                Ok(Err(error)) => {
                    tracing::debug!(%from, %error, "no handshake with somebody who wants to be a member")
                }
                Err(_) => {
                    tracing::debug!(%from, "a handshake of somebody who wants to be a member took too long")
                }
            }
        });
    }
}

async fn greet(
    stream: TcpStream,
    from: SocketAddr,
    tls: ServerTlsSet,
    membership: Membership,
    revocations: watch::Receiver<u64>,
) -> Result<MemberConnection, HandshakeError> {
    stream.set_nodelay(true)?;
    let io = AsyncTls::accept(stream, tls).await?;
    let peer = MemberPeer { svid: io.peer_svid(), from, membership };
    // Looked at at once: what was revoked during the handshake counts.
    let revocations = peer.svid.is_some().then(|| WatchStream::new(revocations));
    Ok(MemberConnection { io, peer, revocations })
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct MemberPeer {
    /// What it has proven, if anything.
    pub svid: Option<PeerSvid>,
    /// Where it is.
    pub from: SocketAddr,
    membership: Membership,
}

impl MemberPeer {
    /// What was proven when the connection was made may have been revoked since.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.svid.as_ref().is_none_or(|svid| self.membership.admits(svid))
    }
}

/// A connection of somebody who is a member, or wants to be one.
pub struct MemberConnection {
    io: AsyncTls,
    peer: MemberPeer,
    /// What wakes a connection that rests, to look whether it may go on.
    revocations: Option<WatchStream<u64>>,
}

impl MemberConnection {
    /// Whether it may go on; whoever waits is woken when that may have changed.
    fn poll_admitted(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(revocations) = &mut self.revocations else { return Ok(()) };
        let mut is_changed = false;
        while let Poll::Ready(Some(_)) = Pin::new(&mut *revocations).poll_next(cx) {
            is_changed = true;
        }
        if is_changed && !self.peer.is_admitted() {
            let id = self.peer.svid.as_ref().map(|svid| svid.id.to_string()).unwrap_or_default();
            tracing::warn!(id, from = %self.peer.from, "a connection ends: its identity was revoked");
            // Whatever is tried on it later fails too.
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the identity was revoked"));
        }
        Ok(())
    }
}

impl std::fmt::Debug for MemberConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemberConnection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connected for MemberConnection {
    type ConnectInfo = MemberPeer;

    fn connect_info(&self) -> MemberPeer {
        self.peer.clone()
    }
}

impl AsyncRead for MemberConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_admitted(cx)?;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for MemberConnection {
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
