//! Settings of the client side: TLS to a backend.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ResolvesClientCert, Resumption, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor,
    verify_server_name,
};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, DnsName, ServerName, UnixTime};

use crate::certificate::Certificate;
use crate::der::{Facts, GeneralName};
use crate::error::{Error, Problem};
use crate::mesh::verify::ServerVerifier;
use crate::mesh::{Expected, Membership};
use crate::provider::{Version, alpn, provider, versions};
use crate::roots::Roots;

/// How the server's certificate is verified.
#[derive(Debug, Clone)]
pub enum Verify {
    /// It chains to one of these authorities, is valid now, and names the server.
    Full(Roots),
    /// Not at all: the peer may be anybody. Only for those who wrote that they want it.
    Insecure,
}

/// A name that a server's certificate may carry. Gateway API BackendTLSPolicy, GEP-3155.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubjectName {
    /// A dNSName, matched as RFC 9525 §6.3 says (a wildcard in the certificate counts).
    Dns(String),
    /// A URI, compared byte by byte: a SPIFFE ID.
    Uri(String),
}

/// Settings of TLS to a backend, compiled by [`ClientTls::build`].
#[derive(Debug, Clone)]
pub struct ClientSpec {
    /// How the server's certificate is verified.
    pub verify: Verify,
    /// The name to ask for (SNI) and, without `subject_names`, to find in the certificate: a
    /// hostname or an address. **Default**: the endpoint's address, without SNI (RFC 6066 §3
    /// allows no addresses in it).
    pub server_name: Option<String>,
    /// If not empty the certificate must carry one of these, and `server_name` is only asked for.
    pub subject_names: Vec<SubjectName>,
    /// Application protocols in order of preference. **Default**: none, no ALPN is sent.
    pub alpn: Vec<Vec<u8>>,
    /// What we present where the server asks for a client certificate.
    pub identity: Option<Certificate>,
    /// **Default**: [`Version::Tls12`].
    pub min_version: Version,
    /// **Default**: [`Version::Tls13`].
    pub max_version: Version,
    /// Where the settings come from, for error messages.
    pub origin: Arc<str>,
}

impl ClientSpec {
    /// Settings with the defaults: the endpoint's address as name, TLS 1.2 and 1.3, no ALPN, no
    /// client certificate.
    #[must_use]
    pub fn new(verify: Verify, origin: &str) -> Self {
        Self {
            verify,
            server_name: None,
            subject_names: Vec::new(),
            alpn: Vec::new(),
            identity: None,
            min_version: Version::Tls12,
            max_version: Version::Tls13,
            origin: origin.into(),
        }
    }
}

/// TLS to a backend: settings and the sessions to resume, shared by all workers. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

/// Sessions kept per backend for resumption, by server name. Unit: entries.
const SESSIONS: usize = 256;

impl ClientTls {
    /// Compiles settings, with sessions of its own.
    ///
    /// **Errors**: [`Problem::ServerName`], [`Problem::Versions`], [`Problem::Alpn`],
    /// [`Problem::Crypto`].
    pub fn build(spec: ClientSpec) -> Result<Self, Error> {
        let ClientSpec {
            verify,
            server_name,
            subject_names,
            alpn: names,
            identity,
            min_version,
            max_version,
            origin,
        } = spec;
        let fail = |problem| Error::new(&origin, problem);
        let crypto = |error: String| fail(Problem::Crypto(error));
        let server_name = match server_name {
            Some(name) => Some(parse_name(name).map_err(fail)?),
            None => None,
        };
        let verifier: Arc<dyn ServerCertVerifier> = match verify {
            Verify::Insecure => Arc::new(NoVerification { provider: Arc::clone(provider()) }),
            Verify::Full(roots) => {
                let chain = WebPkiServerVerifier::builder_with_provider(
                    Arc::clone(roots.store()),
                    Arc::clone(provider()),
                )
                .build()
                .map_err(|error| crypto(error.to_string()))?;
                if subject_names.is_empty() {
                    chain
                } else {
                    Arc::new(NameVerification::new(chain, roots, subject_names).map_err(fail)?)
                }
            }
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(versions(min_version, max_version, &origin)?)
            .map_err(|error| crypto(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let resolver = SingleCertAndKey::from(Arc::clone(identity.key()));
                builder.with_client_cert_resolver(Arc::new(resolver) as Arc<dyn ResolvesClientCert>)
            }
        };
        config.alpn_protocols = alpn(names, &origin)?;
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Self { config: Arc::new(config), server_name })
    }

    /// TLS of a member of a mesh to other members: TLS 1.3 only; what it presents and whom it trusts is the membership's,
    /// read anew in each handshake, and the server must be one of `expected`. `server_name` is only asked for. Sessions are not
    /// resumed, see [`mesh`](crate::mesh).
    ///
    /// **Errors**: [`Problem::ServerName`], [`Problem::Alpn`], [`Problem::Crypto`].
    pub fn member(
        membership: &Membership,
        expected: Expected,
        server_name: Option<String>,
        alpn_names: Vec<Vec<u8>>,
    ) -> Result<Self, Error> {
        const ORIGIN: &str = "mesh";
        let fail = |problem| Error::new(ORIGIN, problem);
        let server_name = server_name.map(parse_name).transpose().map_err(fail)?;
        let verifier = Arc::new(ServerVerifier::new(membership.clone(), expected));
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(versions(Version::Tls13, Version::Tls13, ORIGIN)?)
            .map_err(|error| fail(Problem::Crypto(error.to_string())))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(membership.clone()) as Arc<dyn ResolvesClientCert>);
        config.alpn_protocols = alpn(alpn_names, ORIGIN)?;
        config.resumption = Resumption::disabled();
        config.time_provider = Arc::new(membership.clone());
        Ok(Self { config: Arc::new(config), server_name })
    }

    /// TLS of somebody who is about to become a member, to the issuer: it has neither an SVID nor a bundle, but the SHA-256 of
    /// the root, one of `pins`. The server sends the root behind its chain, and must be one of `expected`. Of the membership its
    /// trust domain and its clock count.
    ///
    /// **Errors**: [`Problem::Alpn`], [`Problem::Crypto`].
    pub fn pinned(
        membership: &Membership,
        pins: Vec<[u8; 32]>,
        expected: Expected,
        alpn_names: Vec<Vec<u8>>,
    ) -> Result<Self, Error> {
        const ORIGIN: &str = "join token";
        let domain = membership.trust_domain().clone();
        let verifier = Arc::new(ServerVerifier::pinned(domain, pins, expected));
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(versions(Version::Tls13, Version::Tls13, ORIGIN)?)
            .map_err(|error| Error::new(ORIGIN, Problem::Crypto(error.to_string())))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = alpn(alpn_names, ORIGIN)?;
        config.resumption = Resumption::disabled();
        config.time_provider = Arc::new(membership.clone());
        Ok(Self { config: Arc::new(config), server_name: None })
    }

    pub(crate) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The name that servers are asked for, where one is configured.
    #[must_use]
    pub fn server_name(&self) -> Option<std::borrow::Cow<'_, str>> {
        self.server_name.as_ref().map(ServerName::to_str)
    }

    /// The name to connect with: the configured one, or the endpoint's address.
    pub(crate) fn name_for(&self, endpoint: IpAddr) -> ServerName<'static> {
        self.server_name.clone().unwrap_or_else(|| ServerName::from(endpoint.to_canonical()))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

fn parse_name(name: String) -> Result<ServerName<'static>, Problem> {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
    ServerName::try_from(bare.to_owned()).map_err(|_| Problem::ServerName(name))
}

/// Verifies the chain as usual, and then that the certificate carries one of some given names.
#[derive(Debug)]
struct NameVerification {
    chain: Arc<WebPkiServerVerifier>,
    roots: Roots,
    names: Vec<Name>,
}

#[derive(Debug)]
enum Name {
    Dns(ServerName<'static>),
    Uri(String),
}

impl NameVerification {
    fn new(chain: Arc<WebPkiServerVerifier>, roots: Roots, names: Vec<SubjectName>) -> Result<Self, Problem> {
        let expected = |name| match name {
            SubjectName::Uri(uri) => Ok(Name::Uri(uri)),
            SubjectName::Dns(name) => match DnsName::try_from(name.as_str()) {
                Ok(dns) => Ok(Name::Dns(ServerName::DnsName(dns.to_owned()))),
                Err(_) => Err(Problem::ServerName(name)),
            },
        };
        let names = names.into_iter().map(expected).collect::<Result<_, _>>()?;
        Ok(Self { chain, roots, names })
    }

    fn is_expected(&self, der: &CertificateDer<'_>, parsed: &ParsedCertificate<'_>) -> bool {
        self.names.iter().any(|name| match name {
            Name::Dns(name) => verify_server_name(parsed, name).is_ok(),
            Name::Uri(uri) => {
                Facts::parse(der).is_some_and(|facts| facts.names().any(|name| name == GeneralName::Uri(uri)))
            }
        })
    }
}

impl ServerCertVerifier for NameVerification {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            self.roots.store(),
            intermediates,
            now,
            provider().signature_verification_algorithms.all,
        )?;
        if self.is_expected(end_entity, &parsed) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// [`Verify::Insecure`]: any certificate will do, but the peer must still have its key.
#[derive(Debug)]
struct NoVerification {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
