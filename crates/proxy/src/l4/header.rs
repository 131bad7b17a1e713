//! The PROXY protocol header of a load balancer in front.

use std::net::SocketAddr;
use std::time::Duration;

use rhumb_codec::proxy_protocol::{self, Header, MAX_V2};
use rhumb_plan::Port;
use rhumb_telemetry::Metric;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::worker::Worker;

/// Who is at the other end of a connection, and where it went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// The client.
    pub(crate) client: SocketAddr,
    /// Where the client connected to, as the load balancer says; `None`: here.
    pub(crate) destination: Option<SocketAddr>,
}

/// True when connections from `peer` begin with a header.
#[inline]
pub(crate) fn is_expected(port: &Port, peer: SocketAddr) -> bool {
    port.settings.proxy_protocol.as_ref().is_some_and(|expected| expected.expects(peer.ip().to_canonical()))
}

/// Reads the header and nothing behind it. `None` when there is none: the connection is to be closed.
pub(crate) async fn read(
    worker: &Worker,
    port: &Port,
    stream: &mut TcpStream,
    peer: SocketAddr,
) -> Option<Ends> {
    let limit = port.settings.proxy_protocol.as_ref().map_or(Duration::ZERO, |expected| expected.timeout);
    let (result, ends) = match tokio::time::timeout(limit, read_header(stream)).await {
        Err(_) => ("timeout", None),
        Ok(Err(reason)) => (reason, None),
        Ok(Ok(Header::Tcp { source, destination })) => {
            ("accepted", Some(Ends { client: source, destination: Some(destination) }))
        }
        // What a load balancer asks on its own account comes from it.
        Ok(Ok(Header::Local | Header::Unknown)) => ("local", Some(Ends { client: peer, destination: None })),
    };
    worker.metrics.borrow_mut().add(Metric::ProxyProtocol, &[port.name.as_str(), result], 1);
    if ends.is_none() {
        tracing::debug!(%peer, result, "a connection without a usable PROXY protocol header was closed");
    }
    ends
}

async fn read_header(stream: &mut TcpStream) -> Result<Header, &'static str> {
    let mut seen = Vec::new();
    // Every turn takes at least one byte, and headers are bounded.
    let mut window = [0; 256];
    loop {
        let len = stream.peek(&mut window).await.map_err(|_| "broken")?;
        let fresh = window.get(..len).filter(|fresh| !fresh.is_empty()).ok_or("closed")?;
        let before = seen.len();
        seen.extend_from_slice(fresh);
        let (take, header) = match proxy_protocol::parse(&seen) {
            Ok(Some((whole, header))) => (whole.saturating_sub(before), Some(header)),
            // All of it is header: it can be taken, and the next look waits for more.
            Ok(None) if seen.len() < MAX_V2 => (len, None),
            Ok(None) => return Err("too_long"),
            Err(error) => return Err(error.code()),
        };
        let taken = window.get_mut(..take).ok_or("broken")?;
        stream.read_exact(taken).await.map_err(|_| "broken")?;
        if let Some(header) = header {
            return Ok(header);
        }
    }
}
