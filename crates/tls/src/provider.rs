//! The one crypto provider, and the protocol versions.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::{ProtocolVersion, SupportedProtocolVersion};

use crate::error::{Error, Problem};

/// A version of TLS that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// TLS 1.2, RFC 5246, with the AEAD suites only.
    Tls12,
    /// TLS 1.3, RFC 8446.
    Tls13,
}

impl Version {
    pub(crate) fn from_wire(version: ProtocolVersion) -> Option<Self> {
        match version {
            ProtocolVersion::TLSv1_2 => Some(Self::Tls12),
            ProtocolVersion::TLSv1_3 => Some(Self::Tls13),
            _ => None,
        }
    }

    /// The name as it stands in logs: `TLSv1.2`, `TLSv1.3`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The aws-lc-rs provider, made once: X25519MLKEM768 leads its key exchange groups.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

/// rustls' list for the versions from `min` to `max`.
pub(crate) fn versions(
    min: Version,
    max: Version,
    origin: &str,
) -> Result<&'static [&'static SupportedProtocolVersion], Error> {
    static TLS12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
    static TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
    match (min, max) {
        (Version::Tls12, Version::Tls13) => Ok(rustls::ALL_VERSIONS),
        (Version::Tls12, Version::Tls12) => Ok(&TLS12),
        (Version::Tls13, Version::Tls13) => Ok(&TLS13),
        (Version::Tls13, Version::Tls12) => Err(Error::new(origin, Problem::Versions)),
    }
}

/// Checks protocol names as they go on the wire: 1 to 255 bytes each. RFC 7301 §3.1.
pub(crate) fn alpn(names: Vec<Vec<u8>>, origin: &str) -> Result<Vec<Vec<u8>>, Error> {
    match names.iter().find(|name| name.is_empty() || name.len() > 255) {
        Some(name) => Err(Error::new(origin, Problem::Alpn(name.len()))),
        None => Ok(names),
    }
}
