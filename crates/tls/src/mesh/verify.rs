//! rustls' verifiers over a membership.

use std::sync::Arc;

use rhumb_base::spiffe::{SpiffeId, TrustDomain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{Bundle, Expected, Membership, MeshClient, NotASvid};
use crate::identity::sha256;
use crate::provider::provider;

/// What the peer is in a handshake; each has an extended key usage of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// Why a certificate with a good chain is not taken, for logs; the peer is told "certificate unknown" only.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("it is no X.509-SVID: {0}")]
    NotASvid(NotASvid),
    #[error("{0} is of another trust domain")]
    OtherDomain(SpiffeId),
    #[error("{0} is not whom we expect there")]
    Unexpected(SpiffeId),
    #[error("it has not sent the root that the join token names")]
    NotPinned,
}

impl From<Refused> for rustls::Error {
    fn from(refused: Refused) -> Self {
        CertificateError::Other(OtherError(Arc::new(refused))).into()
    }
}

/// A server's view of its clients.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    membership: Membership,
    client: MeshClient,
}

impl ClientVerifier {
    pub(crate) fn new(membership: Membership, client: MeshClient) -> Self {
        Self { membership, client }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.client == MeshClient::Required
    }

    /// None: members have one certificate, and need no list of our roots to choose it by.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.membership.verify(end_entity, intermediates, now, Role::Client)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A client's view of its servers.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    trust: Trust,
    expected: Expected,
}

/// What a server's certificate has to lead to.
#[derive(Debug)]
enum Trust {
    /// A root that members trust now.
    Members(Membership),
    /// A root that a newcomer knows by its hash, and that the server sends along.
    Pinned { domain: TrustDomain, pins: Vec<[u8; 32]> },
}

impl ServerVerifier {
    pub(crate) fn new(membership: Membership, expected: Expected) -> Self {
        Self { trust: Trust::Members(membership), expected }
    }

    /// A newcomer's view of the issuer.
    pub(crate) fn pinned(domain: TrustDomain, pins: Vec<[u8; 32]>, expected: Expected) -> Self {
        Self { trust: Trust::Pinned { domain, pins }, expected }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // The name says where to, not whom to expect there.
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let peer = match &self.trust {
            Trust::Members(membership) => membership.verify(end_entity, intermediates, now, Role::Server)?,
            Trust::Pinned { domain, pins } => {
                let is_pinned = |der: &&CertificateDer<'_>| pins.contains(&sha256(der));
                let roots: Vec<_> =
                    intermediates.iter().filter(is_pinned).map(|der| der.clone().into_owned()).collect();
                let bundle =
                    Bundle::from_der(roots, domain, "the issuer's root").map_err(|_| Refused::NotPinned)?;
                bundle.check(end_entity, intermediates, now, Role::Server)?
            }
        };
        if self.expected.contains(&peer.id) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Refused::Unexpected(peer.id).into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
