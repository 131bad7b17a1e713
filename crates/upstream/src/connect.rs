//! Opening a connection to an endpoint.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rhumb_base::failure::{Cause, Failure, Retry};
use rhumb_codec::proxy_protocol;
use rhumb_conn::io::Io;
use rhumb_tls::TlsStream;

use crate::target::Target;

/// Connects to an endpoint and completes the TLS handshake, all within the target's connect timeout.
///
/// # Errors
/// Why not; the request has not been sent, so every one of them may be retried elsewhere.
pub async fn connect(target: &Target, address: SocketAddr) -> Result<Io, Failure> {
    connect_for(target, address, None).await
}

/// The same for a client and the address it connected to, which an endpoint that wants the PROXY protocol is told;
/// `None` is a connection of our own.
///
/// # Errors
/// As [`connect`].
pub async fn connect_for(
    target: &Target,
    address: SocketAddr,
    client: Option<(SocketAddr, SocketAddr)>,
) -> Result<Io, Failure> {
    let started = Instant::now();
    let mut stream = rhumb_net::connect::connect(address, target.connect_timeout)
        .await
        .map_err(|error| refuse(connect_cause(&error)))?;
    if let Some(version) = target.proxy_protocol {
        let mut header = Vec::with_capacity(proxy_protocol::MAX_V1);
        proxy_protocol::write(version, client, &mut header);
        // A fresh socket takes so little at once.
        let written =
            std::future::poll_fn(|cx| rhumb_net::socket::poll_write(&mut stream, cx, &header)).await;
        if !matches!(written, Ok(len) if len == header.len()) {
            return Err(refuse(Cause::ConnectFailed));
        }
    }
    let Some(tls) = &target.tls else { return Ok(Io::Plain(stream)) };
    let stream =
        TlsStream::client(stream, tls, address.ip()).map_err(|error| refuse(handshake_cause(&error)))?;
    let mut io = Io::Tls(Box::new(stream));
    let left = target.connect_timeout.saturating_sub(started.elapsed()).max(Duration::from_millis(1));
    match tokio::time::timeout(left, std::future::poll_fn(|cx| io.poll_handshake(cx))).await {
        Err(_) => Err(refuse(Cause::ConnectTimeout)),
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "TLS handshake with endpoint failed");
            Err(refuse(handshake_cause(&error)))
        }
        Ok(Ok(())) => Ok(io),
    }
}

fn refuse(cause: Cause) -> Failure {
    Failure::new(cause).retry(Retry::IfNotProcessed)
}

fn connect_cause(error: &io::Error) -> Cause {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Cause::ConnectRefused,
        io::ErrorKind::TimedOut => Cause::ConnectTimeout,
        _ => Cause::ConnectFailed,
    }
}

fn handshake_cause(error: &rhumb_tls::HandshakeError) -> Cause {
    if error.kind() == "tls_certificate_error" { Cause::BackendCertificate } else { Cause::BackendTls }
}
