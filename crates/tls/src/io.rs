//! TLS for libraries that want tokio's traits: gRPC of the control plane. The data path does without.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::client::ClientTls;
use crate::handshake::HandshakeError;
use crate::mesh::PeerSvid;
use crate::select::ServerTlsSet;
use crate::stream::{Scratch, TlsStream};

/// A TLS connection as tokio's [`AsyncRead`] and [`AsyncWrite`], which may move between threads.
pub struct AsyncTls {
    stream: TlsStream<TcpStream>,
}

impl AsyncTls {
    /// Completes the handshake of a server.
    ///
    /// **Errors**: see [`HandshakeError`]. **Cancel**: closes the connection. Its time is the caller's to bound.
    pub async fn accept(transport: TcpStream, servers: ServerTlsSet) -> Result<Self, HandshakeError> {
        Self { stream: TlsStream::server(transport, servers) }.handshake().await
    }

    /// Completes the handshake of a client. `endpoint` stands in for a server name that is not configured.
    ///
    /// **Errors**: see [`HandshakeError`]. **Cancel**: closes the connection. Its time is the caller's to bound.
    pub async fn connect(
        transport: TcpStream,
        tls: &ClientTls,
        endpoint: IpAddr,
    ) -> Result<Self, HandshakeError> {
        Self { stream: TlsStream::client(transport, tls, endpoint)? }.handshake().await
    }

    async fn handshake(mut self) -> Result<Self, HandshakeError> {
        poll_fn(|cx| Scratch::lend(|scratch| self.stream.poll_handshake(cx, scratch))).await?;
        Ok(self)
    }

    /// Who the peer is; `None` where it presented no certificate, or none of a workload. Parses: ask once per connection.
    #[must_use]
    pub fn peer_svid(&self) -> Option<PeerSvid> {
        self.stream.peer_svid()
    }

    /// The connection itself, for its facts.
    #[must_use]
    pub fn stream(&self) -> &TlsStream<TcpStream> {
        &self.stream
    }
}

impl AsyncRead for AsyncTls {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = &mut self.get_mut().stream;
        let dst = buf.initialize_unfilled();
        let len = ready!(Scratch::lend(|scratch| stream.poll_read(cx, dst, scratch)))?;
        buf.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for AsyncTls {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        let stream = &mut self.get_mut().stream;
        Scratch::lend(|scratch| stream.poll_write(cx, src, scratch))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = &mut self.get_mut().stream;
        ready!(stream.poll_shutdown(cx))?;
        Pin::new(stream.transport_mut()).poll_shutdown(cx)
    }
}
