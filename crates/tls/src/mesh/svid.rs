//! X.509-SVIDs: our own with its key, and what is kept of a peer's.

use std::fmt;
use std::sync::Arc;

use rhumb_base::spiffe::{Invalid, SpiffeId};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::certificate::{Certificate, CertificateSource, private_key};
use crate::der::{Facts, GeneralName, key_usage, push_hex};
use crate::error::{Error, Problem};

/// Why a certificate is no X.509-SVID of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotASvid {
    /// Its DER does not parse.
    Malformed,
    /// It names no URI. X509-SVID §2.
    NoUri,
    /// It names several URIs. X509-SVID §2.
    ManyUris,
    /// Its URI is no SPIFFE ID.
    Id(Invalid),
    /// Its SPIFFE ID is that of a trust domain and has no path. Only signing certificates are so: X509-SVID §2.
    NoPath,
    /// Its key usage lacks digitalSignature, or allows to sign certificates or revocation lists. X509-SVID §4.3.
    KeyUsage,
}

impl fmt::Display for NotASvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("its DER does not parse"),
            Self::NoUri => f.write_str("it has no URI among its subject alternative names"),
            Self::ManyUris => f.write_str("it has more than one URI among its subject alternative names"),
            Self::Id(invalid) => invalid.fmt(f),
            Self::NoPath => f.write_str("its SPIFFE ID has no path"),
            Self::KeyUsage => f.write_str("its key usage is not that of a leaf"),
        }
    }
}

impl std::error::Error for NotASvid {}

/// Who a peer is, read from its certificate. Cheap to clone.
///
/// Being parsed says nothing about trust; on connections of a mesh the certificate was verified in the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSvid {
    /// Its identity.
    pub id: SpiffeId,
    /// Serial number in lower-case hexadecimal.
    pub serial: Arc<str>,
    /// Start of validity. Unit: seconds since 1970.
    pub not_before_unix: i64,
    /// End of validity. Unit: seconds since 1970.
    pub not_after_unix: i64,
}

impl PeerSvid {
    /// Reads the certificate of a workload.
    ///
    /// **Errors**: see [`NotASvid`].
    pub fn parse(der: &[u8]) -> Result<Self, NotASvid> {
        let facts = Facts::parse(der).ok_or(NotASvid::Malformed)?;
        let mut uris = facts.names().filter_map(|name| match name {
            GeneralName::Uri(uri) => Some(uri),
            _ => None,
        });
        let uri = uris.next().ok_or(NotASvid::NoUri)?;
        if uris.next().is_some() {
            return Err(NotASvid::ManyUris);
        }
        let id = SpiffeId::parse(uri).map_err(NotASvid::Id)?;
        if id.path().is_empty() {
            return Err(NotASvid::NoPath);
        }
        let usage = facts.key_usage().ok_or(NotASvid::KeyUsage)?;
        let is_leaf = usage & (key_usage::CERT_SIGN | key_usage::CRL_SIGN) == 0;
        if !is_leaf || usage & key_usage::DIGITAL_SIGNATURE == 0 {
            return Err(NotASvid::KeyUsage);
        }
        let mut serial = String::new();
        // DER puts a zero byte before a number whose top bit is set.
        push_hex(&mut serial, facts.serial.strip_prefix(&[0]).unwrap_or(facts.serial));
        Ok(Self {
            id,
            serial: serial.into(),
            not_before_unix: facts.not_before,
            not_after_unix: facts.not_after,
        })
    }
}

/// An SVID of our own: chain and private key. Cheap to clone.
#[derive(Clone)]
pub struct Svid {
    certificate: Certificate,
    facts: PeerSvid,
    key: Arc<PrivateKeyDer<'static>>,
}

impl Svid {
    /// Reads chain and key, checks that they belong together and that the leaf is an X.509-SVID.
    ///
    /// **Errors**: those of [`Certificate::parse`] and [`Problem::NotASvid`].
    pub fn parse(source: &CertificateSource) -> Result<Self, Error> {
        let certificate = Certificate::parse(source)?;
        let leaf = certificate.key().cert.first().map(|der| &**der).unwrap_or_default();
        let facts = PeerSvid::parse(leaf)
            .map_err(|problem| Error::new(&source.origin, Problem::NotASvid(problem)))?;
        let key = private_key(&source.key).map_err(|problem| Error::new(&source.origin, problem))?;
        Ok(Self { certificate, facts, key: Arc::new(key) })
    }

    /// One that says what it is told to.
    #[cfg(test)]
    pub(crate) fn forged(certificate: Certificate, facts: PeerSvid) -> Self {
        let key = Arc::new(PrivateKeyDer::Pkcs8(Vec::new().into()));
        Self { certificate, facts, key }
    }

    /// Whose it is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.facts.id
    }

    /// What a peer reads from it.
    #[must_use]
    pub fn facts(&self) -> &PeerSvid {
        &self.facts
    }

    /// Chain and key as TLS uses them.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The private key as it was read, for the app beside the proxy. Secret.
    #[must_use]
    pub fn private_key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// The chain in DER, the leaf first, without the root.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certificate.key().cert
    }
}

impl fmt::Debug for Svid {
    // The key stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Svid").field(&self.facts).finish()
    }
}
