//! Connections to the admin listener, bounded in number and in time.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Connections at a time; more wait in the queue of the operating system.
pub(crate) const MAX_CONNECTIONS: usize = 256;

/// How long a connection may rest, in a request or between two.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long accepting pauses when the process is out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The listening socket.
pub(crate) struct Door {
    socket: TcpListener,
    permits: Arc<Semaphore>,
}

/// One connection.
pub(crate) struct Guest {
    stream: TcpStream,
    rest: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// Who connected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

impl Door {
    /// Accepts on this socket.
    pub(crate) fn new(socket: TcpListener) -> Self {
        Self { socket, permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
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
                Ok((stream, peer)) => {
                    let rest = Box::pin(tokio::time::sleep(IDLE_TIMEOUT));
                    return (Guest { stream, rest, _permit: permit }, Peer(peer));
                }
                Err(error) => {
                    tracing::debug!(%error, "admin listener cannot accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        self.socket.local_addr().map(Peer)
    }
}

impl Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        *stream.remote_addr()
    }
}

impl Guest {
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
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.moved(progress, cx)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.moved(progress, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
