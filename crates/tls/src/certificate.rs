//! A certificate chain with its private key, as a server or a client presents it.

use std::fmt;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls::{CertificateError, InconsistentKeys, SignatureAlgorithm};
use rustls_pki_types::pem::{self, PemObject, SectionKind, SliceIter};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::der::{Facts, GeneralName};
use crate::error::{Error, Problem, What};
use crate::identity::sha256;
use crate::provider::provider;

/// A certificate chain and its private key as somebody wrote them.
#[derive(Clone)]
pub struct CertificateSource {
    /// PEM: the end-entity certificate first, then intermediates.
    pub chain: Vec<u8>,
    /// PEM: PKCS #8, PKCS #1 (RSA) or SEC 1 (EC), not encrypted. May be the same text as `chain`.
    pub key: Vec<u8>,
    /// Where it comes from, for error messages and metrics: a file, `secret default/web`.
    pub origin: Arc<str>,
}

impl fmt::Debug for CertificateSource {
    // The key stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateSource").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// A certificate chain whose private key fits. Cheap to clone, shared by listeners and workers.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    info: Arc<CertificateInfo>,
}

/// What metrics and status pages say about a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Where it comes from, as in [`CertificateSource::origin`].
    pub origin: Arc<str>,
    /// Hostnames and addresses that it names, lower case, wildcards as `*.example.com`.
    pub names: Vec<String>,
    /// Start of validity. Unit: seconds since 1970.
    pub not_before_unix: i64,
    /// End of validity. Unit: seconds since 1970.
    pub not_after_unix: i64,
    /// SHA-256 of the end-entity certificate's DER.
    pub fingerprint: [u8; 32],
}

/// Something about a certificate that its owner should know and that does not stop it from being
/// served: an expired certificate is the client's to judge, and replacing it must not need a
/// valid predecessor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// Its validity has ended. Unit: seconds since 1970.
    Expired {
        /// Whose.
        origin: Arc<str>,
        /// When.
        not_after_unix: i64,
    },
    /// Its validity has not begun. Unit: seconds since 1970.
    NotYetValid {
        /// Whose.
        origin: Arc<str>,
        /// When it begins.
        not_before_unix: i64,
    },
    /// It names no host: it is served only as the default, and clients will refuse it (RFC 9525 §2).
    NoNames {
        /// Whose.
        origin: Arc<str>,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { origin, not_after_unix } => {
                write!(f, "{origin}: the certificate has expired (at unix time {not_after_unix})")
            }
            Self::NotYetValid { origin, not_before_unix } => {
                write!(f, "{origin}: the certificate is not valid before unix time {not_before_unix}")
            }
            Self::NoNames { origin } => {
                write!(f, "{origin}: the certificate has no subject alternative name that is a hostname")
            }
        }
    }
}

impl Certificate {
    /// Reads chain and key and checks that they belong together.
    ///
    /// **Errors**: each [`Problem`] about certificates and keys, with the source's origin.
    pub fn parse(source: &CertificateSource) -> Result<Self, Error> {
        let fail = |problem| Error::new(&source.origin, problem);
        let chain = certificates(&source.chain).map_err(fail)?;
        if chain.is_empty() {
            return Err(fail(Problem::NoCertificate));
        }
        let facts = facts_of(&chain).map_err(fail)?;
        let info = CertificateInfo {
            origin: Arc::clone(&source.origin),
            names: names(&facts),
            not_before_unix: facts.not_before,
            not_after_unix: facts.not_after,
            fingerprint: chain.first().map(|leaf| sha256(leaf)).unwrap_or_default(),
        };
        let key = private_key(&source.key).map_err(fail)?;
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|error| fail(Problem::BadKey(plain(&error))))?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(fail(mismatch(&key))),
            Err(error) => return Err(fail(Problem::BadCertificate(1, plain(&error)))),
        }
        Ok(Self { key: Arc::new(key), info: Arc::new(info) })
    }

    /// The same with more certificates behind its chain.
    #[cfg(test)]
    pub(crate) fn with_more(&self, more: &[CertificateDer<'static>]) -> Self {
        let mut key = CertifiedKey::clone(&self.key);
        key.cert.extend(more.iter().cloned());
        Self { key: Arc::new(key), info: Arc::clone(&self.info) }
    }

    /// The facts for metrics and status.
    #[must_use]
    pub fn info(&self) -> &CertificateInfo {
        &self.info
    }

    /// What its owner should know at `now_unix` (seconds since 1970).
    #[must_use]
    pub fn warnings(&self, now_unix: i64) -> Vec<Warning> {
        let info = &self.info;
        let origin = || Arc::clone(&info.origin);
        let mut warnings = Vec::new();
        if info.not_after_unix < now_unix {
            warnings.push(Warning::Expired { origin: origin(), not_after_unix: info.not_after_unix });
        }
        if info.not_before_unix > now_unix {
            warnings.push(Warning::NotYetValid { origin: origin(), not_before_unix: info.not_before_unix });
        }
        if info.names.is_empty() {
            warnings.push(Warning::NoNames { origin: origin() });
        }
        warnings
    }

    pub(crate) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// Smaller is tried earlier: an ECDSA signature costs the server a tenth of an RSA one.
    pub(crate) fn cost(&self) -> u8 {
        match self.key.key.algorithm() {
            SignatureAlgorithm::ECDSA => 0,
            SignatureAlgorithm::ED25519 => 1,
            _ => 2,
        }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificate").field(&self.info).finish()
    }
}

/// All certificates of a PEM text, in its order.
pub(crate) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    if is_der(text) {
        return Err(Problem::Der(What::Certificate));
    }
    CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| Problem::Pem(What::Certificate, broken(&error)))
}

/// Parses every certificate of the chain, so that a broken intermediate is found before a client
/// finds it; returns the facts of the first.
fn facts_of<'a>(chain: &'a [CertificateDer<'static>]) -> Result<Facts<'a>, Problem> {
    let mut first = None;
    for (at, der) in chain.iter().enumerate() {
        let facts = Facts::parse(der)
            .ok_or_else(|| Problem::BadCertificate(at + 1, "its DER does not parse".to_owned()))?;
        if at == 0 {
            rustls::server::ParsedCertificate::try_from(der)
                .map_err(|error| Problem::BadCertificate(1, plain(&error)))?;
            first = Some(facts);
        }
    }
    first.ok_or(Problem::NoCertificate)
}

fn names(facts: &Facts<'_>) -> Vec<String> {
    let mut names: Vec<String> = facts
        .names()
        .filter_map(|name| match name {
            GeneralName::Dns(name) => Some(name.to_ascii_lowercase()),
            GeneralName::Ip(ip) => Some(ip.to_string()),
            _ => None,
        })
        .collect();
    names.dedup();
    names
}

pub(crate) fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Problem> {
    if is_der(text) {
        return Err(Problem::Der(What::Key));
    }
    match PrivateKeyDer::from_pem_slice(text) {
        Ok(key) => Ok(key),
        // Either the section's label says so (RFC 7468 §11), or a line "Proc-Type: 4,ENCRYPTED"
        // inside an otherwise ordinary section, which spoils its base64 (RFC 1421 §4.6.1.1).
        Err(_) if contains(text, b"ENCRYPTED") => Err(Problem::EncryptedKey),
        Err(pem::Error::NoItemsFound) => Err(match other_section(text) {
            Some(kind) => Problem::NotAKey(kind),
            None => Problem::NoKey,
        }),
        Err(error) => Err(Problem::Pem(What::Key, broken(&error))),
    }
}

/// What a PEM text without a private key has instead.
fn other_section(text: &[u8]) -> Option<&'static str> {
    let (kind, _) = SliceIter::<(SectionKind, Vec<u8>)>::new(text).next()?.ok()?;
    Some(match kind {
        SectionKind::Certificate => "certificate",
        SectionKind::PublicKey => "public key",
        SectionKind::Csr => "certificate request",
        SectionKind::Crl => "revocation list",
        _ => return None,
    })
}

fn mismatch(key: &CertifiedKey) -> Problem {
    for (at, der) in key.cert.iter().enumerate().skip(1) {
        let other = CertifiedKey::new(vec![der.clone()], Arc::clone(&key.key));
        if other.keys_match().is_ok() {
            return Problem::ChainOrder(at + 1);
        }
    }
    Problem::KeyMismatch
}

/// DER of a certificate or key begins with a SEQUENCE of more than 127 bytes; no text does.
fn is_der(text: &[u8]) -> bool {
    matches!(text, [0x30, 0x81..=0x84, ..])
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// rustls' words without Rust's debug notation where we have better ones.
pub(crate) fn plain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::BadEncoding) => "bad encoding".to_owned(),
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.to_string(),
        rustls::Error::General(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What is broken in a PEM text, without quoting it: it may be a key.
fn broken(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "its base64 does not decode",
        pem::Error::SectionTooLarge => "a section is too large",
        _ => "its sections do not parse",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roots::Roots;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn made(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let cert = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    fn parse(chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Result<Certificate, Error> {
        let source = CertificateSource { chain: chain.into(), key: key.into(), origin: "web.pem".into() };
        Certificate::parse(&source)
    }

    #[test]
    fn each_mistake_has_its_own_message() {
        let (chain, key) = made(&["a.test"]);
        let (other_chain, other_key) = made(&["b.test"]);
        let pkcs8 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n\
                      AAAA\n-----END RSA PRIVATE KEY-----\n";
        let der = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap().to_vec();
        let cut: String = chain.lines().take(3).collect::<Vec<_>>().join("\n");
        let noise = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
        let junk_key = "-----BEGIN PRIVATE KEY-----\nMAMCAQE=\n-----END PRIVATE KEY-----\n";
        let cases: Vec<(&str, Vec<u8>, Vec<u8>, &str)> = vec![
            ("empty chain", vec![], key.clone().into(), "web.pem: no certificate in it"),
            ("key as chain", key.clone().into(), key.clone().into(), "web.pem: no certificate in it"),
            ("der", der.clone(), key.clone().into(), "web.pem: the certificate is binary DER, not PEM"),
            ("der key", chain.clone().into(), der, "web.pem: the private key is binary DER, not PEM"),
            (
                "cut",
                cut.into(),
                key.clone().into(),
                "web.pem: the certificate is not valid PEM: a section has no END line",
            ),
            (
                "no x509",
                noise.into(),
                key.clone().into(),
                "web.pem: certificate 1 is not a usable X.509 certificate: its DER does not parse",
            ),
            (
                "broken intermediate",
                format!("{chain}{noise}").into(),
                key.clone().into(),
                "web.pem: certificate 2 is not a usable X.509 certificate: its DER does not parse",
            ),
            ("no key", chain.clone().into(), vec![], "web.pem: no private key in it"),
            (
                "certificate as key",
                chain.clone().into(),
                chain.clone().into(),
                "web.pem: it holds a certificate where a private key should be",
            ),
            ("encrypted", chain.clone().into(), pkcs8.into(), "web.pem: the private key is encrypted"),
            (
                "legacy encrypted",
                chain.clone().into(),
                legacy.into(),
                "web.pem: the private key is encrypted",
            ),
            (
                "other key",
                chain.clone().into(),
                other_key.into(),
                "web.pem: the private key does not belong to the certificate",
            ),
            (
                "wrong order",
                format!("{other_chain}{chain}").into(),
                key.into(),
                "web.pem: the private key belongs to certificate 2 of the chain, not to the first",
            ),
        ];
        for (what, chain, key, expected) in cases {
            assert_eq!(parse(chain, key).unwrap_err().to_string(), expected, "{what}");
        }
        let unusable = parse(chain, junk_key).unwrap_err();
        assert!(matches!(unusable.problem, Problem::BadKey(_)), "{unusable}");
        assert!(unusable.problem.fix().is_some());
    }

    #[test]
    fn chain_and_key_may_be_one_text() {
        let (chain, key) = made(&["A.test", "*.b.test", "10.0.0.1"]);
        let both = format!("{key}{chain}");
        let certificate = parse(both.clone(), both).unwrap();
        assert_eq!(certificate.info().names, ["a.test", "*.b.test", "10.0.0.1"]);
        assert_eq!(&*certificate.info().origin, "web.pem");
        assert!(certificate.warnings(1_800_000_000).is_empty());
    }

    #[test]
    fn expiry_and_missing_names_are_warnings_not_errors() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        let certificate = parse(params.self_signed(&key).unwrap().pem(), key.serialize_pem()).unwrap();
        let origin: Arc<str> = "web.pem".into();
        let not_after_unix = 1_609_459_200;
        assert_eq!(
            certificate.warnings(not_after_unix + 1),
            [
                Warning::Expired { origin: Arc::clone(&origin), not_after_unix },
                Warning::NoNames { origin: Arc::clone(&origin) }
            ]
        );
        assert!(matches!(
            certificate.warnings(0)[..],
            [Warning::NotYetValid { not_before_unix: 1_577_836_800, .. }, _]
        ));
    }

    #[test]
    fn debug_output_has_no_key() {
        let (chain, key) = made(&["a.test"]);
        let source = CertificateSource { chain: chain.into(), key: key.into(), origin: "x".into() };
        let text = format!("{source:?} {:?}", Certificate::parse(&source).unwrap());
        assert!(!text.contains("PRIVATE") && !text.contains("chain"), "{text}");
    }

    #[test]
    fn roots_report_what_is_wrong() {
        let (chain, key) = made(&["a.test"]);
        assert_eq!(Roots::parse(chain.as_bytes(), "ca.pem").unwrap().len(), 1);
        let none = Roots::parse(key.as_bytes(), "ca.pem").unwrap_err();
        assert_eq!(none.to_string(), "ca.pem: no CA certificate in it");
    }
}
