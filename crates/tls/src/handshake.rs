//! Why a handshake ended badly.

use std::io;

use rustls::{AlertDescription, CertificateError, OtherError};

/// Why a handshake ended badly. The stream cannot be used after it; where the protocol has an alert
/// for it, the alert was handed to the transport.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The transport.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer went away in the middle: port scans, health checks, clients that dislike our
    /// certificate and do not say so.
    #[error("peer closed the connection during the TLS handshake")]
    Closed,
    /// The client speaks HTTP where TLS is expected. Nothing was answered: the transport is free
    /// for an answer in plain HTTP.
    #[error("plain HTTP where TLS is expected")]
    PlainHttp,
    /// The client's first bytes are not TLS.
    #[error("not TLS")]
    NotTls,
    /// The ClientHello's framing is broken.
    #[error("malformed ClientHello")]
    Malformed,
    /// The ClientHello is above [`MAX_CLIENT_HELLO`](crate::MAX_CLIENT_HELLO).
    #[error("ClientHello too long")]
    HelloTooLong,
    /// The peer sent more than [`HandshakeLimits::bytes`](crate::HandshakeLimits::bytes).
    #[error("too many bytes during the TLS handshake")]
    TooManyBytes,
    /// No server of the set fits the name that the client asked for.
    #[error("no TLS server for {}", .0.as_deref().map_or("a client that names none", |name| name))]
    UnknownName(Option<Box<str>>),
    /// A resumed session carries a client certificate that has expired since.
    #[error("the client certificate of the resumed session has expired")]
    ExpiredPeer,
    /// What rustls found: a protocol error, a certificate that does not verify, the peer's alert.
    #[error("{}", words(.0))]
    Tls(#[from] rustls::Error),
}

/// rustls' words, without Rust's notation around what our own verifiers say.
fn words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why))) => {
            format!("invalid peer certificate: {why}")
        }
        other => other.to_string(),
    }
}

impl HandshakeError {
    /// The error type of RFC 9209 §2.3 for access logs and Proxy-Status.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Io(_) | Self::Closed => "connection_terminated",
            Self::Tls(rustls::Error::AlertReceived(_)) => "tls_alert_received",
            Self::Tls(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
            | Self::ExpiredPeer => "tls_certificate_error",
            Self::PlainHttp
            | Self::NotTls
            | Self::Malformed
            | Self::HelloTooLong
            | Self::TooManyBytes
            | Self::UnknownName(_)
            | Self::Tls(_) => "tls_protocol_error",
        }
    }

    /// The alert that the peer sent. RFC 8446 §6.
    #[must_use]
    pub fn alert_received(&self) -> Option<u8> {
        match self {
            Self::Tls(rustls::Error::AlertReceived(alert)) => Some(u8::from(*alert)),
            _ => None,
        }
    }

    /// The alert for what was refused before rustls saw it. RFC 8446 §6, RFC 6066 §9.
    pub(crate) fn own_alert(&self) -> Option<AlertDescription> {
        match self {
            Self::Malformed => Some(AlertDescription::DecodeError),
            Self::HelloTooLong | Self::TooManyBytes => Some(AlertDescription::RecordOverflow),
            Self::UnknownName(_) => Some(AlertDescription::UnrecognisedName),
            _ => None,
        }
    }
}

impl From<HandshakeError> for io::Error {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Io(error) => error,
            HandshakeError::Closed => Self::new(io::ErrorKind::UnexpectedEof, error),
            _ => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}
