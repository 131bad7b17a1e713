//! What members and the issuer say to each other: gRPC, messages of our own.

use std::collections::HashMap;

use rhumb_base::spiffe::{SpiffeId, TrustDomain};
use rhumb_tls::mesh::{Bundle, Revocations};
use rustls_pki_types::CertificateDer;

/// The service's name.
pub const SERVICE: &str = "rhumb.identity.v1alpha1.Issuer";

/// Asks for an SVID: [`IssueRequest`] → [`IssueResponse`].
pub const ISSUE_PATH: &str = "/rhumb.identity.v1alpha1.Issuer/Issue";

/// Asks for what to trust, now and whenever it changes: [`TrustRequest`] → stream of [`Trust`]. Members only.
pub const FOLLOW_PATH: &str = "/rhumb.identity.v1alpha1.Issuer/Follow";

/// The largest message either way. Unit: bytes.
pub(crate) const MAX_MESSAGE: usize = 8 * 1024 * 1024;

/// A request for an SVID.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct IssueRequest {
    /// The request for a certificate, PKCS #10 in DER. Its key counts, and nothing else in it.
    #[prost(bytes = "vec", tag = "1")]
    pub request: Vec<u8>,
    /// How the sender proves who it is.
    #[prost(oneof = "Proof", tags = "2, 3, 4")]
    pub proof: Option<Proof>,
}

/// A proof of who somebody is.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
#[prost(skip_debug)]
pub enum Proof {
    /// The secret of a join token.
    #[prost(bytes, tag = "2")]
    JoinToken(Vec<u8>),
    /// A token of a Kubernetes service account.
    #[prost(string, tag = "3")]
    KubernetesToken(String),
    /// The SVID with which the connection was made.
    #[prost(message, tag = "4")]
    Current(Current),
}

/// No more than that it is meant.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Current {}

/// An SVID.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IssueResponse {
    /// Leaf and intermediates in DER.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub chain: Vec<Vec<u8>>,
    /// What to trust.
    #[prost(message, optional, tag = "2")]
    pub trust: Option<Trust>,
}

/// Asks for [`Trust`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TrustRequest {}

/// What to trust, and what not to any more. Whole each time.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Trust {
    /// The bundle in DER.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub roots: Vec<Vec<u8>>,
    /// Serial numbers of void certificates.
    #[prost(string, repeated, tag = "2")]
    pub revoked_serials: Vec<String>,
    /// Identities whose certificates are void that begin no later than this. Unit: seconds since 1970.
    #[prost(map = "string, int64", tag = "3")]
    pub revoked_identities: HashMap<String, i64>,
    /// Which state of the authority what is revoked is of; a later one has a larger number.
    #[prost(uint64, tag = "4")]
    pub revoked_number: u64,
}

impl std::fmt::Debug for IssueRequest {
    // The proof stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssueRequest").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::JoinToken(_) => "JoinToken",
            Self::KubernetesToken(_) => "KubernetesToken",
            Self::Current(_) => "Current",
        })
    }
}

impl Trust {
    pub(crate) fn of(bundle: &Bundle, revoked: &Revocations) -> Self {
        Self {
            roots: bundle.roots().iter().map(|der| der.to_vec()).collect(),
            revoked_serials: revoked.serials().map(|serial| serial.to_string()).collect(),
            revoked_identities: revoked.identities().map(|(id, until)| (id.to_string(), until)).collect(),
            revoked_number: revoked.number(),
        }
    }

    pub(crate) fn bundle(&self, domain: &TrustDomain) -> Result<Bundle, rhumb_tls::Error> {
        let roots = self.roots.iter().cloned().map(CertificateDer::from).collect();
        Bundle::from_der(roots, domain, "the issuer's bundle")
    }

    pub(crate) fn revocations(&self) -> Revocations {
        let mut list = Revocations::default();
        for serial in &self.revoked_serials {
            list.push_serial(serial.as_str().into());
        }
        for (id, until) in &self.revoked_identities {
            if let Ok(id) = SpiffeId::parse(id) {
                list.push_identity(id, *until);
            }
        }
        list.numbered(self.revoked_number)
    }
}
