//! Settings of the server side, and the certificates that it serves.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;

use crate::certificate::{Certificate, CertificateInfo, Warning};
use crate::error::{Error, Problem};
use crate::mesh::verify::ClientVerifier;
use crate::mesh::{Membership, MeshClient};
use crate::provider::{Version, alpn, provider, versions};
use crate::roots::Roots;

/// Whether clients must present a certificate.
#[derive(Debug, Clone)]
pub enum ClientAuth {
    /// None is asked for.
    Off,
    /// One is asked for; a client without any is let in, one with a certificate that does not
    /// verify against these authorities is refused.
    Optional(Roots),
    /// Only clients with a certificate that verifies against these authorities are let in.
    Required(Roots),
}

impl ClientAuth {
    /// What a resumed session must have in common with a full handshake: resumption skips the
    /// verification of the client.
    fn identity(&self) -> (u8, [u8; 32]) {
        match self {
            Self::Off => (0, [0; 32]),
            Self::Optional(roots) => (1, roots.digest()),
            Self::Required(roots) => (2, roots.digest()),
        }
    }
}

/// Bounds of one handshake. Its time is the caller's to bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeLimits {
    /// The most bytes taken from the peer until the handshake is complete, application data that
    /// arrives with its last message not counted beyond one read.
    /// **Unit**: bytes. **Default**: [`HandshakeLimits::DEFAULT_BYTES`].
    pub bytes: usize,
}

impl HandshakeLimits {
    /// Enough for a certificate chain of 64 KiB, the largest that rustls takes, and one read.
    pub const DEFAULT_BYTES: usize = 192 * 1024;
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        Self { bytes: Self::DEFAULT_BYTES }
    }
}

/// Settings of a TLS server, compiled by [`ServerTls::build`].
#[derive(Debug, Clone)]
pub struct ServerSpec {
    /// What it presents, chosen by server name and by what the client can verify. The first one
    /// is the default. At least one.
    pub certificates: Vec<Certificate>,
    /// Whether clients must present a certificate. **Default**: [`ClientAuth::Off`].
    pub client_auth: ClientAuth,
    /// **Default**: [`Version::Tls12`].
    pub min_version: Version,
    /// **Default**: [`Version::Tls13`].
    pub max_version: Version,
    /// Application protocols in order of preference, as they go on the wire (`h2`, `http/1.1`). A
    /// client that offers none of them is refused; one that offers no ALPN at all is not (RFC 7301
    /// §3.2). **Default**: none, which ignores what clients offer.
    pub alpn: Vec<Vec<u8>>,
    /// Bounds of the handshake.
    pub limits: HandshakeLimits,
    /// Where the settings come from, for error messages.
    pub origin: Arc<str>,
}

impl ServerSpec {
    /// Settings with the defaults: TLS 1.2 and 1.3, no client certificates, no ALPN.
    #[must_use]
    pub fn new(certificates: Vec<Certificate>, origin: &str) -> Self {
        Self {
            certificates,
            client_auth: ClientAuth::Off,
            min_version: Version::Tls12,
            max_version: Version::Tls13,
            alpn: Vec::new(),
            limits: HandshakeLimits::default(),
            origin: origin.into(),
        }
    }
}

/// A TLS server: settings, certificates that can be swapped, and ticket keys, shared by all
/// workers. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<ServerConfig>,
    certificates: Served,
    limits: HandshakeLimits,
    /// The client authentication under which the ticket keys were made.
    auth: (u8, [u8; 32]),
    origin: Arc<str>,
}

/// Tickets that a client gets after a TLS 1.3 handshake: two, because browsers open connections in
/// pairs and must not use a ticket twice (RFC 8446 §C.4).
const TICKETS: usize = 2;

impl ServerTls {
    /// Compiles settings, with ticket keys of its own.
    ///
    /// **Errors**: [`Problem::NoCertificates`], [`Problem::Versions`], [`Problem::Alpn`],
    /// [`Problem::Crypto`].
    pub fn build(spec: ServerSpec) -> Result<Self, Error> {
        Self::build_with(spec, None)
    }

    /// Compiles settings that replace `previous` and keeps its ticket keys, so that clients go on
    /// resuming their sessions. Where client authentication differs the keys are new: a resumed
    /// session is not verified again.
    ///
    /// **Errors**: as [`ServerTls::build`].
    pub fn rebuild(spec: ServerSpec, previous: &Self) -> Result<Self, Error> {
        let same = previous.inner.auth == spec.client_auth.identity();
        Self::build_with(spec, same.then(|| Arc::clone(&previous.inner.config.ticketer)))
    }

    fn build_with(spec: ServerSpec, tickets: Option<Arc<dyn ProducesTickets>>) -> Result<Self, Error> {
        let ServerSpec { certificates, client_auth, min_version, max_version, alpn: names, limits, origin } =
            spec;
        let crypto = |error: String| Error::new(&origin, Problem::Crypto(error));
        let auth = client_auth.identity();
        let certificates = Arc::new(Store::new(&certificates, &origin)?);
        let verifier = match client_auth {
            ClientAuth::Off => WebPkiClientVerifier::no_client_auth(),
            ClientAuth::Optional(roots) => client_verifier(&roots)
                .allow_unauthenticated()
                .build()
                .map_err(|error| crypto(error.to_string()))?,
            ClientAuth::Required(roots) => {
                client_verifier(&roots).build().map_err(|error| crypto(error.to_string()))?
            }
        };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(versions(min_version, max_version, &origin)?)
            .map_err(|error| crypto(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&certificates) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = alpn(names, &origin)?;
        config.ticketer = match tickets {
            Some(tickets) => tickets,
            None => rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| crypto(error.to_string()))?,
        };
        // Tickets carry the state, so no worker has to look a session up behind a lock.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = TICKETS;
        let config = Arc::new(config);
        let certificates = Served::Own(certificates);
        Ok(Self { inner: Arc::new(Inner { config, certificates, limits, auth, origin }) })
    }

    /// The server of a member of a mesh: TLS 1.3 only; what it presents and whom it trusts is the membership's, read
    /// anew in each handshake. Sessions are not resumed, see [`mesh`](crate::mesh).
    ///
    /// **Errors**: [`Problem::Alpn`], [`Problem::Crypto`].
    pub fn member(
        membership: &Membership,
        client: MeshClient,
        alpn_names: Vec<Vec<u8>>,
    ) -> Result<Self, Error> {
        const ORIGIN: &str = "mesh";
        let verifier = Arc::new(ClientVerifier::new(membership.clone(), client));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(versions(Version::Tls13, Version::Tls13, ORIGIN)?)
            .map_err(|error| Error::new(ORIGIN, Problem::Crypto(error.to_string())))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(membership.clone()) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = alpn(alpn_names, ORIGIN)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.time_provider = Arc::new(membership.clone());
        let inner = Inner {
            config: Arc::new(config),
            certificates: Served::Member(membership.clone()),
            limits: HandshakeLimits::default(),
            auth: (3, [0; 32]),
            origin: ORIGIN.into(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Replaces the certificates for all handshakes from here on. Connections and tickets live on.
    ///
    /// **Errors**: [`Problem::NoCertificates`]; the certificates then stay as they were. [`Problem::Membership`] for a
    /// server made by [`ServerTls::member`].
    pub fn swap_certificates(&self, certificates: &[Certificate]) -> Result<(), Error> {
        match &self.inner.certificates {
            Served::Own(store) => store.swap(certificates, &self.inner.origin),
            Served::Member(_) => Err(Error::new(&self.inner.origin, Problem::Membership)),
        }
    }

    /// The facts of the certificates that it serves.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateInfo> {
        match &self.inner.certificates {
            Served::Own(store) => store.current.load().all.iter().map(|one| one.info().clone()).collect(),
            Served::Member(membership) => {
                membership.svid().iter().map(|svid| svid.certificate().info().clone()).collect()
            }
        }
    }

    /// What the owner of its certificates should know at `now_unix` (seconds since 1970). An SVID that nobody renews
    /// says so itself, see [`Membership`].
    #[must_use]
    pub fn warnings(&self, now_unix: i64) -> Vec<Warning> {
        match &self.inner.certificates {
            Served::Own(store) => {
                store.current.load().all.iter().flat_map(|one| one.warnings(now_unix)).collect()
            }
            Served::Member(_) => Vec::new(),
        }
    }

    /// The same server at another time.
    #[cfg(test)]
    pub(crate) fn at(&self, now: rustls_pki_types::UnixTime) -> Self {
        #[derive(Debug)]
        struct At(rustls_pki_types::UnixTime);
        impl rustls::time_provider::TimeProvider for At {
            fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
                Some(self.0)
            }
        }
        let mut config = ServerConfig::clone(&self.inner.config);
        config.time_provider = Arc::new(At(now));
        let Inner { certificates, limits, auth, origin, .. } = &*self.inner;
        let (certificates, origin) = (certificates.clone(), Arc::clone(origin));
        let inner = Inner { config: Arc::new(config), certificates, limits: *limits, auth: *auth, origin };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn config(&self) -> &Arc<ServerConfig> {
        &self.inner.config
    }

    pub(crate) fn limits(&self) -> HandshakeLimits {
        self.inner.limits
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("origin", &self.inner.origin)
            .field("certificates", &self.inner.certificates)
            .finish_non_exhaustive()
    }
}

fn client_verifier(roots: &Roots) -> rustls::server::ClientCertVerifierBuilder {
    WebPkiClientVerifier::builder_with_provider(Arc::clone(roots.store()), Arc::clone(provider()))
}

/// Where a server's certificates come from.
#[derive(Clone, Debug)]
enum Served {
    Own(Arc<Store>),
    Member(Membership),
}

/// The certificates of one server, behind the swap cell.
struct Store {
    current: ArcSwap<Certificates>,
}

/// Certificates by the names that they carry. Per name the cheapest to sign with comes first.
struct Certificates {
    all: Vec<Certificate>,
    exact: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// By the suffix after `*.`.
    wildcard: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// The first certificate, and others for the same names with another kind of key.
    default: Vec<Arc<CertifiedKey>>,
}

impl Store {
    fn new(certificates: &[Certificate], origin: &str) -> Result<Self, Error> {
        let current = Certificates::new(certificates, origin)?;
        Ok(Self { current: ArcSwap::from_pointee(current) })
    }

    fn swap(&self, certificates: &[Certificate], origin: &str) -> Result<(), Error> {
        self.current.store(Arc::new(Certificates::new(certificates, origin)?));
        Ok(())
    }
}

impl Certificates {
    fn new(certificates: &[Certificate], origin: &str) -> Result<Self, Error> {
        let Some(first) = certificates.first() else {
            return Err(Error::new(origin, Problem::NoCertificates));
        };
        // Stable: of two with the same name and kind of key the one written first is served.
        let mut sorted: Vec<&Certificate> = certificates.iter().collect();
        sorted.sort_by_key(|certificate| certificate.cost());
        let mut exact: HashMap<Box<str>, Vec<_>> = HashMap::new();
        let mut wildcard: HashMap<Box<str>, Vec<_>> = HashMap::new();
        for certificate in &sorted {
            for name in &certificate.info().names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(suffix) => (&mut wildcard, suffix),
                    None => (&mut exact, name.as_str()),
                };
                map.entry(name.into()).or_default().push(Arc::clone(certificate.key()));
            }
        }
        let default = sorted
            .iter()
            .filter(|one| one.info().names == first.info().names)
            .map(|one| Arc::clone(one.key()))
            .collect();
        Ok(Self { all: certificates.to_vec(), exact, wildcard, default })
    }

    /// The candidates for a server name: exact, then the wildcard over its first label (a
    /// certificate's wildcard stands for one label, RFC 9525 §6.3), then the default.
    fn for_name(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let named = name.map(|name| name.strip_suffix('.').unwrap_or(name)).and_then(|name| {
            let parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
            self.exact.get(name).or_else(parent)
        });
        named.unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.current.load();
        // rustls gives the name in lower case.
        let candidates = certificates.for_name(hello.server_name());
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        candidates.iter().find(usable).or_else(|| candidates.first()).cloned()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.current.load().all.iter().map(Certificate::info)).finish()
    }
}
