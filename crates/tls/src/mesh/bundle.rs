//! The trust bundle of a trust domain: the roots to which SVIDs of its members lead.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rhumb_base::spiffe::TrustDomain;
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::svid::PeerSvid;
use super::verify::{Refused, Role};
use crate::certificate::{certificates, plain};
use crate::der::{Facts, distinguished_name};
use crate::error::{Error, Problem};
use crate::identity::sha256;
use crate::provider::provider;

/// The most roots of one bundle. Unit: certificates.
const MAX_ROOTS: usize = 64;

/// The roots of a trust domain, parsed. Cheap to clone.
#[derive(Clone)]
pub struct Bundle {
    inner: Arc<Inner>,
}

struct Inner {
    domain: TrustDomain,
    roots: Vec<CertificateDer<'static>>,
    store: Arc<RootCertStore>,
    /// For certificates of clients, which are the only ones that rustls verifies behind a trait alone.
    clients: Arc<dyn ClientCertVerifier>,
}

/// What metrics and status pages say about a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootInfo {
    /// The subject, as RFC 4514 writes it.
    pub subject: String,
    /// SHA-256 of its DER.
    pub fingerprint: [u8; 32],
    /// Start of validity. Unit: seconds since 1970.
    pub not_before_unix: i64,
    /// End of validity. Unit: seconds since 1970.
    pub not_after_unix: i64,
}

impl Bundle {
    /// Reads a bundle from PEM; every certificate in it must be usable.
    ///
    /// **Errors**: [`Problem::NoRoots`], [`Problem::Pem`], [`Problem::Der`], [`Problem::BadCertificate`] with its number, also
    /// for what is beyond 64 certificates; each with `origin`.
    pub fn parse(text: &[u8], domain: &TrustDomain, origin: &str) -> Result<Self, Error> {
        let roots = certificates(text).map_err(|problem| Error::new(origin, problem))?;
        Self::from_der(roots, domain, origin)
    }

    /// Makes a bundle of certificates in DER.
    ///
    /// **Errors**: as [`Bundle::parse`].
    pub fn from_der(
        roots: Vec<CertificateDer<'static>>,
        domain: &TrustDomain,
        origin: &str,
    ) -> Result<Self, Error> {
        let fail = |problem| Error::new(origin, problem);
        if roots.len() > MAX_ROOTS {
            return Err(fail(Problem::BadCertificate(
                MAX_ROOTS + 1,
                "a bundle has at most 64 roots".to_owned(),
            )));
        }
        let mut store = RootCertStore::empty();
        for (at, der) in roots.iter().enumerate() {
            let bad = |why: String| fail(Problem::BadCertificate(at + 1, why));
            Facts::parse(der).ok_or_else(|| bad("its DER does not parse".to_owned()))?;
            store.add(der.clone()).map_err(|error| bad(plain(&error)))?;
        }
        if store.is_empty() {
            return Err(fail(Problem::NoRoots));
        }
        let store = Arc::new(store);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&store), Arc::clone(provider()))
            .build()
            .map_err(|error| fail(Problem::Crypto(error.to_string())))?;
        Ok(Self { inner: Arc::new(Inner { domain: domain.clone(), roots, store, clients }) })
    }

    /// Whose bundle it is.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.inner.domain
    }

    /// The roots in DER.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.inner.roots
    }

    /// The facts of the roots, in their order.
    #[must_use]
    pub fn infos(&self) -> Vec<RootInfo> {
        let info = |der: &CertificateDer<'_>| {
            let facts = Facts::parse(der)?;
            Some(RootInfo {
                subject: distinguished_name(facts.subject),
                fingerprint: sha256(der),
                not_before_unix: facts.not_before,
                not_after_unix: facts.not_after,
            })
        };
        self.inner.roots.iter().filter_map(info).collect()
    }

    /// Verifies the chain of a member at a time, its own certificate first, as a client of it and as its server would.
    ///
    /// **Errors**: what a handshake would say. Unit of `now_unix`: seconds since 1970.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now_unix: u64) -> Result<PeerSvid, NotVerified> {
        let (leaf, intermediates) =
            chain.split_first().ok_or(NotVerified(rustls::Error::NoCertificatesPresented))?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now_unix));
        self.check(leaf, intermediates, now, Role::Server).map_err(NotVerified)?;
        self.check(leaf, intermediates, now, Role::Client).map_err(NotVerified)
    }

    /// Chain, validity, extended key usage of the role, and the rules of X.509-SVIDs.
    pub(super) fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: Role,
    ) -> Result<PeerSvid, rustls::Error> {
        match role {
            Role::Client => {
                self.inner.clients.verify_client_cert(end_entity, intermediates, now)?;
            }
            Role::Server => verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                &self.inner.store,
                intermediates,
                now,
                provider().signature_verification_algorithms.all,
            )?,
        }
        // After the chain: nothing of an unknown peer's certificate is parsed by us.
        let peer = PeerSvid::parse(end_entity).map_err(Refused::NotASvid)?;
        // A root vouches for its own trust domain only. X509-SVID §5.1.
        if !peer.id.is_member_of(&self.inner.domain) {
            return Err(Refused::OtherDomain(peer.id).into());
        }
        Ok(peer)
    }
}

impl PartialEq for Bundle {
    fn eq(&self, other: &Self) -> bool {
        self.inner.domain == other.inner.domain && self.inner.roots == other.inner.roots
    }
}

impl Eq for Bundle {}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({}, {} roots)", self.inner.domain, self.inner.roots.len())
    }
}

/// Why the chain of a member does not verify.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotVerified(rustls::Error);
