//! What can be wrong with TLS settings, in words for the person who wrote them.

use std::fmt;
use std::sync::Arc;

/// A mistake in certificates, keys or settings, with where it comes from.
///
/// Displays as `origin: problem`. Key material never appears in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Where the mistaken input comes from: a file name, or `secret default/web`.
    pub origin: Arc<str>,
    /// What is wrong with it.
    pub problem: Problem,
}

impl Error {
    pub(crate) fn new(origin: &str, problem: Problem) -> Self {
        Self { origin: origin.into(), problem }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.problem)
    }
}

impl std::error::Error for Error {}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A certificate was expected and none is there.
    #[error("no certificate in it")]
    NoCertificate,
    /// What was read is DER, not PEM.
    #[error("{0} is binary DER, not PEM")]
    Der(What),
    /// The PEM framing or its base64 is broken.
    #[error("{0} is not valid PEM: {1}")]
    Pem(What, String),
    /// A certificate that is no X.509 certificate. The number counts from one.
    #[error("certificate {0} is not a usable X.509 certificate: {1}")]
    BadCertificate(usize, String),
    /// A private key was expected and none is there.
    #[error("no private key in it")]
    NoKey,
    /// The private key asks for a passphrase.
    #[error("the private key is encrypted")]
    EncryptedKey,
    /// Another kind of key or a certificate stands where the private key should.
    #[error("it holds a {0} where a private key should be")]
    NotAKey(&'static str),
    /// The key cannot be used.
    #[error("the private key is not usable: {0}")]
    BadKey(String),
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The key belongs to a certificate that is not the first one. The number counts from one.
    #[error("the private key belongs to certificate {0} of the chain, not to the first")]
    ChainOrder(usize),
    /// A server without any certificate.
    #[error("a TLS server needs at least one certificate")]
    NoCertificates,
    /// No certificate authority to verify against.
    #[error("no CA certificate in it")]
    NoRoots,
    /// None of the usual places has the system's certificate authorities.
    #[error("no system CA bundle found; looked at {0}")]
    NoSystemRoots(String),
    /// A file could not be read.
    #[error("not readable: {0}")]
    Unreadable(String),
    /// The lowest version is above the highest.
    #[error("the minimum TLS version is above the maximum")]
    Versions,
    /// A protocol name of a length that ALPN cannot carry. Unit: bytes.
    #[error("an ALPN protocol name has {0} bytes; 1 to 255 are allowed")]
    Alpn(usize),
    /// Not a hostname, wildcard or address.
    #[error("{0:?} is not a valid server name")]
    ServerName(String),
    /// Two entries for one hostname.
    #[error("hostname {0:?} is given twice")]
    DuplicateName(String),
    /// A certificate that is no X.509-SVID. SPIFFE X509-SVID §2 to §5.
    #[error("the certificate is no X.509-SVID: {0}")]
    NotASvid(crate::mesh::NotASvid),
    /// An SVID of another trust domain than the proxy's.
    #[error("{id} is not of the trust domain {domain:?}")]
    TrustDomain {
        /// Whose certificate it is.
        id: rhumb_base::spiffe::SpiffeId,
        /// Where it should be from.
        domain: rhumb_base::spiffe::TrustDomain,
    },
    /// A certificate that the bundle does not lead to.
    #[error("the certificate does not verify against the trust bundle: {0}")]
    NotTrusted(String),
    /// The certificates of this server come from elsewhere.
    #[error("the certificate of a mesh server is that of its membership")]
    Membership,
    /// The crypto library refused.
    #[error("crypto library: {0}")]
    Crypto(String),
}

impl Problem {
    /// What to do about it, as an imperative sentence; `None` where the problem says it all.
    #[must_use]
    pub fn fix(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoCertificate | Self::NoRoots => {
                "give a PEM file with a section \"-----BEGIN CERTIFICATE-----\""
            }
            Self::Der(What::Certificate) => "convert it: openssl x509 -inform der -in FILE -out FILE.pem",
            Self::Der(What::Key) => "convert it: openssl pkey -inform der -in FILE -out FILE.pem",
            Self::NoKey | Self::NotAKey(_) => {
                "give a PEM file with a section \"-----BEGIN PRIVATE KEY-----\""
            }
            Self::EncryptedKey => "decrypt it: openssl pkey -in FILE -out FILE.plain (and protect that file)",
            Self::BadKey(_) => "use an ECDSA (P-256, P-384, P-521), Ed25519 or RSA (2048 to 8192 bits) key",
            Self::KeyMismatch => "give the certificate and the key that were made together",
            Self::ChainOrder(_) => "put the server's own certificate first, then the intermediates",
            Self::NoSystemRoots(_) => "install the package ca-certificates, or name a CA file",
            Self::Versions => "use 1.2 or 1.3, the minimum not above the maximum",
            _ => return None,
        })
    }
}

/// Which of the two inputs a problem is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The certificate chain or CA certificates.
    Certificate,
    /// The private key.
    Key,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "the certificate",
            Self::Key => "the private key",
        })
    }
}
