//! Connections to the admin listener, bounded in number and in time, encrypted where the plan in force says so.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rhumb_plan::Current;
use rhumb_tls::{AsyncTls, HandshakeError, ServerTlsSet};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Connections at a time; more wait in the queue of the operating system.
pub(crate) const MAX_CONNECTIONS: usize = 256;

/// How long a connection may rest, in a request or between two.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a TLS handshake may take.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long accepting pauses when the process is out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The listening socket.
pub(crate) struct Door {
    socket: TcpListener,
    current: Current,
    permits: Arc<Semaphore>,
}

/// One connection.
pub(crate) struct Guest {
    stream: Stream,
    peer: Peer,
    rest: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// What bytes of a connection go through.
enum Stream {
    Plain(TcpStream),
    /// It shakes hands when the first byte is asked for, so that a slow one keeps nobody else out.
    Hands(Pin<Box<dyn Future<Output = Result<AsyncTls, HandshakeError>> + Send>>),
    Tls(Box<AsyncTls>),
    Closed,
}

/// Who connected.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// From where.
    pub(crate) address: SocketAddr,
    /// It is encrypted.
    pub(crate) is_tls: bool,
    /// The certificate that it has shown, which was verified; known before its first request is.
    certificate: Arc<OnceLock<rhumb_tls::Peer>>,
}

impl Peer {
    /// The certificate that it has shown, which was verified.
    pub(crate) fn certificate(&self) -> Option<&rhumb_tls::Peer> {
        self.certificate.get()
    }
}

impl Door {
    /// Accepts on this socket, as the plan in force says.
    pub(crate) fn new(socket: TcpListener, current: Current) -> Self {
        Self { socket, current, permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }

    fn guest(&self, stream: TcpStream, address: SocketAddr, permit: Option<OwnedSemaphorePermit>) -> Guest {
        let plan = self.current.load();
        let tls = plan.admin.as_ref().and_then(|access| access.tls.as_ref());
        let peer = Peer { address, is_tls: tls.is_some(), certificate: Arc::default() };
        let (stream, patience) = match tls {
            None => (Stream::Plain(stream), IDLE_TIMEOUT),
            Some((_, server)) => {
                let servers = ServerTlsSet::single(server.clone());
                (Stream::Hands(Box::pin(AsyncTls::accept(stream, servers))), HANDSHAKE_TIMEOUT)
            }
        };
        Guest { stream, peer, rest: Box::pin(tokio::time::sleep(patience)), _permit: permit }
    }
}

impl Listener for Door {
    type Io = Guest;
    type Addr = Peer;

    async fn accept(&mut self) -> (Guest, Peer) {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        loop {
            match self.socket.accept().await {
                Ok((stream, address)) => {
                    let guest = self.guest(stream, address, permit);
                    let peer = guest.peer.clone();
                    return (guest, peer);
                }
                Err(error) => {
                    tracing::debug!(%error, "admin listener cannot accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        let address = self.socket.local_addr()?;
        Ok(Peer { address, is_tls: false, certificate: Arc::default() })
    }
}

impl Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.remote_addr().clone()
    }
}

impl Guest {
    /// Shakes hands, where that is still to be done.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Stream::Hands(handshake) = &mut self.stream else { return Poll::Ready(Ok(())) };
        match ready!(handshake.as_mut().poll(cx)) {
            Ok(stream) => {
                let shown = stream.stream().peer_certificates().first();
                if let Some(peer) = shown.and_then(|der| rhumb_tls::Peer::parse(der)) {
                    // Nobody else sets it.
                    let _ = self.peer.certificate.set(peer);
                }
                self.stream = Stream::Tls(Box::new(stream));
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                tracing::debug!(peer = %self.peer.address, %error, "no TLS with a client of the admin listener");
                self.stream = Stream::Closed;
                Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
            }
        }
    }

    /// Progress was made: the time to rest begins anew.
    fn moved<T>(&mut self, progress: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match progress {
            Poll::Ready(done) => {
                self.rest.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
                Poll::Ready(done)
            }
            Poll::Pending => self.rest.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Does something with what bytes go through, when that is there.
    fn poll_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut plain: impl FnMut(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
        mut tls: impl FnMut(Pin<&mut AsyncTls>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let progress = match self.poll_open(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => match &mut self.stream {
                Stream::Plain(stream) => plain(Pin::new(stream), cx),
                Stream::Tls(stream) => tls(Pin::new(&mut **stream), cx),
                Stream::Hands(_) | Stream::Closed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            },
        };
        self.moved(progress, cx)
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // One of the two runs, so the buffer is lent once.
        let buf = std::cell::RefCell::new(buf);
        self.poll_with(
            cx,
            |stream, cx| stream.poll_read(cx, &mut buf.borrow_mut()),
            |stream, cx| stream.poll_read(cx, &mut buf.borrow_mut()),
        )
    }
}

impl AsyncWrite for Guest {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_with(
            cx,
            |stream, cx| stream.poll_write(cx, bytes),
            |stream, cx| stream.poll_write(cx, bytes),
        )
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.stream, Stream::Hands(_)) {
            return Poll::Ready(Ok(()));
        }
        self.poll_with(cx, |stream, cx| stream.poll_flush(cx), |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.stream, Stream::Hands(_) | Stream::Closed) {
            self.stream = Stream::Closed;
            return Poll::Ready(Ok(()));
        }
        self.poll_with(cx, |stream, cx| stream.poll_shutdown(cx), |stream, cx| stream.poll_shutdown(cx))
    }
}
