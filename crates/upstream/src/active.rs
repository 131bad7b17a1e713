//! Asking an endpoint whether it is well: a request over HTTP, a connection over TCP, or gRPC's health protocol.
//!
//! Each check is a connection of its own, made as the connections of requests are, so that what a check says holds for
//! them. Runs where a local task may be spawned, never on a worker.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::task::Poll;
use std::time::{Duration, Instant};

use rhumb_codec::field::Known;
use rhumb_codec::head::{Content, RequestHead, ResponseHead, Scheme};
use rhumb_conn::input::Input;
use rhumb_conn::io::Io;
use rhumb_conn::{Part, h1, h2};

use crate::connect::connect;
use crate::target::{Protocol, Target};

/// Default of [`Check::interval`].
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// Default of [`Check::timeout`].
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// Default of [`Check::healthy_after`].
pub const DEFAULT_HEALTHY_AFTER: u32 = 2;

/// Default of [`Check::unhealthy_after`].
pub const DEFAULT_UNHEALTHY_AFTER: u32 = 3;

/// Bytes of an answer that a TCP check looks through for what it expects.
pub const MAX_EXPECTED: usize = 4096;

/// Bytes of content that a gRPC check reads.
const MAX_GRPC: usize = 1024;

/// How endpoints are checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// Time between two checks of an endpoint. Up to a tenth more or less is drawn each time.
    pub interval: Duration,
    /// How long one may take, connecting included.
    pub timeout: Duration,
    /// Checks in a row that pass, until an endpoint that was not well is. The very first check decides alone.
    pub healthy_after: u32,
    /// Checks in a row that do not, until one that was well is not.
    pub unhealthy_after: u32,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// A request; its status tells.
    Http {
        /// Method.
        method: Box<str>,
        /// Path and query.
        path: Box<str>,
        /// Authority; the endpoint's own when `None`.
        host: Option<Box<str>>,
        /// Statuses that are well.
        expected: Box<[RangeInclusive<u16>]>,
    },
    /// A connection, and what is said on it.
    Tcp {
        /// Sent first; may be empty.
        send: Box<[u8]>,
        /// Must come within the first [`MAX_EXPECTED`] bytes; may be empty.
        expect: Box<[u8]>,
    },
    /// `grpc.health.v1.Health/Check`, over HTTP/2.
    Grpc {
        /// The service that is asked about; empty asks about all.
        service: Box<str>,
        /// Authority; the endpoint's own when `None`.
        host: Option<Box<str>>,
    },
}

/// Checks an endpoint once.
///
/// # Errors
/// What was wrong, for people.
pub async fn check(check: &Check, target: &Target, address: SocketAddr) -> Result<(), String> {
    let asked = async {
        // A TCP check of a backend with TLS is one of TLS.
        let io = connect(target, address).await.map_err(|failure| failure.cause.facts().code.to_owned())?;
        match &check.probe {
            Probe::Tcp { send, expect } => tcp(io, send, expect).await,
            Probe::Grpc { service, host } => grpc(io, target, address, host.as_deref(), service).await,
            Probe::Http { method, path, host, expected } => {
                let mut head = RequestHead::new();
                head.set_method(method.as_bytes());
                head.set_target(path.as_bytes());
                describe(&mut head, target, address, host.as_deref());
                let status = match target.protocol {
                    Protocol::Http1 => http1(io, target, &head).await?,
                    Protocol::Http2 => http2(io, target, &head).await?,
                };
                let is_expected = expected.iter().any(|range| range.contains(&status));
                if is_expected { Ok(()) } else { Err(format!("status {status}")) }
            }
        }
    };
    match tokio::time::timeout(check.timeout, asked).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {:?}", check.timeout)),
    }
}

fn describe(head: &mut RequestHead, target: &Target, address: SocketAddr, host: Option<&str>) {
    let own;
    let authority = match host {
        Some(host) => host,
        None => {
            own = address.to_string();
            &own
        }
    };
    head.set_authority(authority.as_bytes());
    head.scheme = if target.tls.is_some() { Scheme::Https } else { Scheme::Http };
    head.fields.append(Known::UserAgent, b"rhumb-health-check");
}

/// Sends and waits for the status of the final response; what follows it is not waited for.
async fn http1(io: Io, target: &Target, head: &RequestHead) -> Result<u16, String> {
    let mut client = h1::Client::new(io, target.limits, Instant::now());
    client.send_head(head);
    let mut rsp = ResponseHead::default();
    loop {
        let answered = poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = client.poll_flush(cx) {
                return Poll::Ready(Err(error.to_string()));
            }
            client.poll_response(cx, &mut rsp).map_err(|failure| failure.cause.facts().code.to_owned())
        });
        answered.await?;
        if !rsp.is_interim() {
            return Ok(rsp.status);
        }
        rsp.clear();
    }
}

/// An HTTP/2 connection with one stream.
struct Line {
    driver: h2::Driver,
    stream: h2::Stream,
    is_over: bool,
}

impl Line {
    fn open(io: Io, target: &Target, head: &RequestHead) -> Result<Self, String> {
        if io.tls().is_some_and(|tls| tls.alpn() != Some(b"h2")) {
            return Err("it does not speak HTTP/2".to_owned());
        }
        let config = h2::Config::new(h2::Role::Client);
        let driver = h2::Driver::new(io, Input::default(), config, target.idle_timeout);
        let stream = driver.handle().open(head).map_err(|_| "no stream".to_owned())?;
        Ok(Self { driver, stream, is_over: false })
    }

    fn drive(&mut self, cx: &mut std::task::Context<'_>) {
        if !self.is_over {
            self.is_over = self.driver.poll_client(cx).is_ready();
        }
    }

    /// Waits for the head of the final response.
    async fn response(&mut self) -> Result<ResponseHead, String> {
        let mut rsp = ResponseHead::default();
        loop {
            let answered = poll_fn(|cx| {
                // What is wanted first is written first; what comes then is looked at.
                let _ = self.stream.poll_flush(cx);
                self.drive(cx);
                self.stream
                    .poll_response(cx, &mut rsp)
                    .map_err(|failure| failure.cause.facts().code.to_owned())
            });
            answered.await?;
            if !rsp.is_interim() {
                return Ok(rsp);
            }
            rsp.clear();
        }
    }
}

async fn http2(io: Io, target: &Target, head: &RequestHead) -> Result<u16, String> {
    let mut line = Line::open(io, target, head)?;
    line.response().await.map(|rsp| rsp.status)
}

async fn tcp(mut io: Io, send: &[u8], expect: &[u8]) -> Result<(), String> {
    let mut sent = 0;
    while let Some(rest) = send.get(sent..).filter(|rest| !rest.is_empty()) {
        sent += poll_fn(|cx| io.poll_write(cx, rest)).await.map_err(|error| error.to_string())?;
    }
    poll_fn(|cx| io.poll_flush(cx)).await.map_err(|error| error.to_string())?;
    if expect.is_empty() {
        return Ok(());
    }
    let mut seen = vec![0; MAX_EXPECTED];
    let mut len = 0;
    loop {
        let Some(room) = seen.get_mut(len..).filter(|room| !room.is_empty()) else {
            return Err("it said something else".to_owned());
        };
        let n = poll_fn(|cx| io.poll_read(cx, room)).await.map_err(|error| error.to_string())?;
        if n == 0 {
            return Err(if len == 0 { "it said nothing" } else { "it said something else" }.to_owned());
        }
        len += n;
        if seen.get(..len).is_some_and(|seen| seen.windows(expect.len()).any(|part| part == expect)) {
            return Ok(());
        }
    }
}

/// GRPC Health Checking Protocol: `HealthCheckRequest { string service = 1 }` is answered with
/// `HealthCheckResponse { ServingStatus status = 1 }`.
async fn grpc(
    io: Io,
    target: &Target,
    address: SocketAddr,
    host: Option<&str>,
    service: &str,
) -> Result<(), String> {
    let mut head = RequestHead::new();
    head.set_method(b"POST");
    head.set_target(b"/grpc.health.v1.Health/Check");
    describe(&mut head, target, address, host);
    head.fields.append(Known::ContentType, b"application/grpc");
    head.accepts_trailers = true;
    let message = health_request(service);
    head.content = Content::Streamed;
    let mut line = Line::open(io, target, &head)?;
    poll_fn(|cx| Poll::Ready(line.stream.send_data(cx, &message)))
        .await
        .map_err(|error: std::io::Error| error.to_string())?;
    line.stream.send_end(None);
    let rsp = line.response().await?;
    if rsp.status != 200 {
        return Err(format!("status {}", rsp.status));
    }
    if let Some(status) = rsp.fields.get(Known::GrpcStatus) {
        return grpc_status(Some(status)).map(|()| Err("no answer in it".to_owned()))?;
    }
    let mut content = Vec::new();
    loop {
        let part = poll_fn(|cx| {
            line.drive(cx);
            line.stream.poll_response_body(cx).map(|part| match part {
                Ok(Part::Data(data)) => {
                    content.extend_from_slice(data);
                    Ok(None)
                }
                Ok(Part::End(trailers)) => Ok(Some(trailers)),
                Err(failure) => Err(failure.cause.facts().code.to_owned()),
            })
        });
        match part.await? {
            None if content.len() > MAX_GRPC => return Err("its answer is too long".to_owned()),
            None => {}
            Some(trailers) => {
                let status = trailers.as_ref().and_then(|trailers| trailers.get(Known::GrpcStatus));
                grpc_status(status)?;
                return serving(&content);
            }
        }
    }
}

fn grpc_status(status: Option<&[u8]>) -> Result<(), String> {
    match status {
        Some(b"0") => Ok(()),
        // NOT_FOUND is what the protocol says to a service that is not known.
        Some(b"5") => Err("grpc status 5: it does not know the service".to_owned()),
        Some(status) => Err(format!("grpc status {}", String::from_utf8_lossy(status))),
        None => Err("no grpc status".to_owned()),
    }
}

/// A message with its prefix: not compressed, length.
fn health_request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        // Field 1, length-delimited.
        message.push(0x0a);
        varint(service.len(), &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&message);
    framed
}

fn varint(mut n: usize, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push((n & 0x7f) as u8);
}

/// Whether a framed `HealthCheckResponse` says SERVING.
fn serving(content: &[u8]) -> Result<(), String> {
    let message = match content {
        [0, rest @ ..] => rest.get(4..).unwrap_or_default(),
        _ => return Err("its answer is no plain gRPC message".to_owned()),
    };
    // Field 1, varint. Absent is UNKNOWN, the enumeration's zero. Fields of later versions may follow.
    match message {
        [0x08, 1, ..] => Ok(()),
        [0x08, 2, ..] => Err("NOT_SERVING".to_owned()),
        [0x08, 3, ..] => Err("SERVICE_UNKNOWN".to_owned()),
        _ => Err("UNKNOWN".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_asked_about_by_name() {
        assert_eq!(health_request(""), [0, 0, 0, 0, 0]);
        assert_eq!(health_request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = health_request(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn only_serving_is_well() {
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        for (content, why) in [
            (&[0, 0, 0, 0, 2, 8, 2][..], "NOT_SERVING"),
            (&[0, 0, 0, 0, 2, 8, 3], "SERVICE_UNKNOWN"),
            (&[0, 0, 0, 0, 0], "UNKNOWN"),
            (&[0, 0], "UNKNOWN"),
            (&[1, 0, 0, 0, 2, 8, 1], "its answer is no plain gRPC message"),
            (&[], "its answer is no plain gRPC message"),
        ] {
            assert_eq!(serving(content), Err(why.to_owned()));
        }
    }
}
