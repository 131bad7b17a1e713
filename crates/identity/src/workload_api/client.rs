//! The Workload API of somebody else, SPIRE for one: it gives the SVID and each new one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::uri::PathAndQuery;
use rhumb_base::rng::Rng;
use rhumb_base::spiffe::SpiffeId;
use rhumb_grpc::causes;
use rhumb_tls::CertificateSource;
use rhumb_tls::mesh::{Bundle, Membership, Svid};
use tonic::Request;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic_prost::ProstCodec;

use super::{Empty, FETCH_SVIDS, HEADER, MAX_MESSAGE, SvidResponse, X509Svid};
use crate::clock::Clock;
use crate::{channel, pem};

/// The pause after a stream has ended or was refused, spread over half of it: an agent may be starting, or know the workload
/// only in a moment.
const PAUSE: Duration = Duration::from_secs(2);

/// Keeps a membership with what a Workload API says.
pub struct WorkloadClient {
    socket: PathBuf,
    /// Which SVID to take where there are several; the first of the trust domain otherwise.
    id: Option<SpiffeId>,
    membership: Membership,
    clock: Clock,
    error: Mutex<Option<String>>,
    ready: tokio::sync::watch::Sender<bool>,
}

/// Why there is no SVID.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotFetched {
    /// The socket, or the agent behind it.
    #[error("{socket}: {why}", socket = .socket.display())]
    Agent {
        /// Which socket.
        socket: PathBuf,
        /// Why.
        why: String,
    },
    /// It has SVIDs, and none for us.
    #[error("the Workload API has no SVID of trust domain {domain:?} for us, but {has:?}")]
    NoneOfOurs {
        /// Ours.
        domain: String,
        /// What it has.
        has: Vec<String>,
    },
    /// What it sent is of no use.
    #[error("the Workload API has sent what is no SVID: {0}")]
    Unusable(String),
}

impl WorkloadClient {
    /// A client of a socket: a path, or `unix:PATH` as in `SPIFFE_ENDPOINT_SOCKET`.
    #[must_use]
    pub fn new(socket: &str, id: Option<SpiffeId>, membership: Membership, clock: Clock) -> Arc<Self> {
        let path = socket.strip_prefix("unix:").unwrap_or(socket);
        let path =
            path.strip_prefix("//").map_or(path, |rest| if rest.starts_with('/') { rest } else { path });
        let ready = tokio::sync::watch::Sender::new(false);
        Arc::new(Self {
            socket: Path::new(path).to_owned(),
            id,
            membership,
            clock,
            error: Mutex::default(),
            ready,
        })
    }

    /// What it keeps.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// What failed last, until something succeeds.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Done when the membership has an SVID. **Cancel**: at any time.
    pub async fn ready(&self) {
        // The sender lives as long as self.
        let _ = self.ready.subscribe().wait_for(|is_ready| *is_ready).await;
    }

    /// Keeps the membership for as long as it is polled. What it has stays when the agent goes away. **Cancel**: at any time.
    pub async fn run(self: Arc<Self>) {
        let mut rng = Rng::from_os();
        loop {
            if let Err(error) = self.follow().await {
                tracing::warn!(%error, "no SVID from the Workload API");
                *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            }
            tokio::time::sleep(PAUSE / 2 + PAUSE.mul_f64(f64::from(rng.below(1000)) / 2000.0)).await;
        }
    }

    async fn follow(&self) -> Result<(), NotFetched> {
        let agent = |why: String| NotFetched::Agent { socket: self.socket.clone(), why };
        let channel = channel::to_socket(&self.socket).await.map_err(agent)?;
        let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
        grpc.ready().await.map_err(|error| agent(causes(&error)))?;
        let mut request = Request::new(Empty {});
        request.metadata_mut().insert(HEADER, MetadataValue::from_static("true"));
        let codec = ProstCodec::<Empty, SvidResponse>::default();
        let stream = grpc.server_streaming(request, PathAndQuery::from_static(FETCH_SVIDS), codec).await;
        let mut stream = stream.map_err(|status| agent(status.message().to_owned()))?.into_inner();
        while let Some(answer) =
            stream.message().await.map_err(|status| agent(status.message().to_owned()))?
        {
            self.take(&answer)?;
            *self.error.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.ready.send_replace(true);
        }
        Ok(())
    }

    fn take(&self, answer: &SvidResponse) -> Result<(), NotFetched> {
        let domain = self.membership.trust_domain();
        let is_ours = |svid: &&X509Svid| {
            SpiffeId::parse(&svid.spiffe_id).is_ok_and(|id| match &self.id {
                Some(wanted) => id == *wanted,
                None => id.is_member_of(domain),
            })
        };
        let Some(svid) = answer.svids.iter().find(is_ours) else {
            let has = answer.svids.iter().map(|svid| svid.spiffe_id.clone()).collect();
            return Err(NotFetched::NoneOfOurs { domain: domain.to_string(), has });
        };
        let unusable = |why: &dyn std::fmt::Display| NotFetched::Unusable(why.to_string());
        let chain = pem::split_der(&svid.x509_svid).ok_or_else(|| unusable(&"its chain"))?;
        let roots = pem::split_der(&svid.bundle).ok_or_else(|| unusable(&"its bundle"))?;
        let bundle = Bundle::from_der(roots, domain, "Workload API").map_err(|error| unusable(&error))?;
        let source = CertificateSource {
            chain: pem::of_certificates(&chain).into(),
            key: pem::of_private_key(&svid.x509_svid_key).into(),
            origin: "Workload API".into(),
        };
        let own = Svid::parse(&source).map_err(|error| unusable(&error))?;
        let now = (self.clock)().max(u64::try_from(own.facts().not_before_unix).unwrap_or(0));
        self.membership.swap(own, bundle, now).map_err(|error| unusable(&error))
    }
}

impl std::fmt::Debug for WorkloadClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkloadClient").field("socket", &self.socket).finish_non_exhaustive()
    }
}
