//! The issuing side of the control plane: looks after the authority, and answers those who want to be members.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rhumb_base::spiffe::SpiffeId;
use rhumb_tls::mesh::{Membership, PeerSvid};
use tokio::sync::{Semaphore, watch};

use crate::authority::{Authority, Error};
use crate::clock::Clock;
use crate::kubernetes::Kubernetes;
use crate::request::KeyRequest;
use crate::token::{JoinToken, Tokens};
use crate::wire::{IssueRequest, IssueResponse, Proof, Trust};

mod service;
mod listen;

pub use listen::serve;
pub use service::IssuerService;

/// How often the authority is looked after, and others' changes of its files are noticed: a revocation is to be with every
/// member within a second.
const TURN: Duration = Duration::from_millis(250);

/// Requests that are answered at the same time; others wait. Each is about two signatures.
const MAX_AT_ONCE: usize = 16;

/// How long a join token of this process is good: it is used at once. Unit: seconds.
const TOKEN_LIFE: u64 = 600;

/// The issuing side of the control plane.
pub struct Issuer {
    authority: Authority,
    tokens: Tokens,
    kubernetes: Option<Kubernetes>,
    clock: Clock,
    membership: Membership,
    trust: watch::Sender<Arc<Trust>>,
    at_once: Semaphore,
    counts: Mutex<Counts>,
}

/// How often what has happened, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// SVIDs issued for a join token.
    pub by_token: u64,
    /// SVIDs issued for a token of Kubernetes.
    pub by_kubernetes: u64,
    /// SVIDs issued to those who had one.
    pub renewed: u64,
    /// Requests refused.
    pub refused: u64,
    /// Times that the authority could not be looked after.
    pub failed_turns: u64,
    /// Times that the keys of a Kubernetes cluster were fetched.
    pub keys_fetched: u64,
    /// Times that they could not be.
    pub keys_failed: u64,
}

/// Why somebody is not given an SVID. What is told of it is in [`Refusal::told`].
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not even a request.
    #[error("{0}")]
    Malformed(String),
    /// No proof, or one that does not hold. The text is for our log.
    #[error("{0}")]
    Unproven(String),
    /// Ourselves.
    #[error("{0}")]
    Ours(Error),
}

impl Refusal {
    /// What the sender is told: why a proof does not hold is not for those who try.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Malformed(why) => why.clone(),
            Self::Unproven(_) => "the proof of identity does not hold".to_owned(),
            Self::Ours(_) => "the issuer cannot answer".to_owned(),
        }
    }
}

impl Issuer {
    /// An issuer over an authority, which gives the control plane its own SVID.
    ///
    /// **Errors**: those of the authority.
    pub fn new(
        authority: Authority,
        kubernetes: Option<Kubernetes>,
        clock: Clock,
    ) -> Result<Arc<Self>, Error> {
        let tokens = Tokens::open(authority.place())?;
        let membership = Membership::new(authority.trust_domain().clone());
        membership.keep_time(Arc::clone(&clock));
        let now = clock();
        let (svid, bundle) = authority.control_svid(now)?;
        let revoked = authority.revocations();
        let trust = Trust::of(&bundle, &revoked);
        membership.swap(svid, bundle, now)?;
        membership.revoke(revoked);
        Ok(Arc::new(Self {
            authority,
            tokens,
            kubernetes,
            clock,
            membership,
            trust: watch::Sender::new(Arc::new(trust)),
            at_once: Semaphore::new(MAX_AT_ONCE),
            counts: Mutex::default(),
        }))
    }

    /// The control plane's own membership, for its TLS server.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The authority.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The join tokens.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// A join token for a workload of this process.
    ///
    /// **Errors**: those of [`Tokens::create`].
    pub fn token(&self, namespace: &str, account: &str) -> Result<JoinToken, Error> {
        let now = (self.clock)();
        let id = self.authority.trust_domain().workload(namespace, account).map_err(|_| Error::Clock)?;
        self.tokens.create(&id, &self.authority.bundle(now)?, now + TOKEN_LIFE, now)
    }

    /// What happened how often.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let counts = *self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (keys_fetched, keys_failed) =
            self.kubernetes.as_ref().map(Kubernetes::fetches).unwrap_or_default();
        Counts { keys_fetched, keys_failed, ..counts }
    }

    fn count(&self, of: impl FnOnce(&mut Counts) -> &mut u64) {
        *of(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner)) += 1;
    }

    /// Looks after the authority, and after the keys of a cluster, for as long as it is polled. **Cancel**: at any time.
    pub async fn run(self: Arc<Self>) {
        let following = async {
            match &self.kubernetes {
                Some(kubernetes) => kubernetes.follow().await,
                None => std::future::pending().await,
            }
        };
        tokio::join!(Arc::clone(&self).look_after(), following);
    }

    async fn look_after(self: Arc<Self>) {
        loop {
            let issuer = Arc::clone(&self);
            // Files are written, and the disk is waited for.
            let turned = tokio::task::spawn_blocking(move || issuer.turn()).await;
            if let Ok(Err(error)) = turned {
                self.count(|counts| &mut counts.failed_turns);
                tracing::error!(%error, "the certificate authority cannot be looked after");
            }
            tokio::time::sleep(TURN).await;
        }
    }

    /// One look after everything: what is due, what others have changed, the control plane's own SVID.
    ///
    /// **Errors**: those of [`Authority::tick`]; everything then goes on as it was.
    pub fn turn(&self) -> Result<(), Error> {
        let now = (self.clock)();
        let changes = self.authority.tick(now)?;
        for change in &changes {
            tracing::info!(?change, "the certificate authority has changed");
        }
        let half_is_over = self.membership.svid().is_none_or(|svid| {
            let facts = svid.facts();
            let half = facts.not_before_unix + (facts.not_after_unix - facts.not_before_unix) / 2;
            i64::try_from(now).unwrap_or(i64::MAX) >= half
        });
        // A newcomer's token may name the newest root only, so the roots behind our chain are always those of the bundle.
        if half_is_over || !changes.is_empty() {
            let (svid, bundle) = self.authority.control_svid(now)?;
            self.membership.swap(svid, bundle, now)?;
        }
        self.publish(now)
    }

    /// Tells every member what to trust, where it differs from what they were told.
    fn publish(&self, now: u64) -> Result<(), Error> {
        let bundle = self.authority.bundle(now)?;
        let revoked = self.authority.revocations();
        let trust = Trust::of(&bundle, &revoked);
        self.membership.swap_bundle(bundle);
        self.membership.revoke(revoked);
        self.trust.send_if_modified(|known| {
            let is_new = **known != trust;
            if is_new {
                *known = Arc::new(trust);
            }
            is_new
        });
        Ok(())
    }

    /// What members are told to trust from here on, beginning with what holds now: whoever comes from another issuer is not told
    /// of less than it knows.
    ///
    /// **Errors**: those of reading what another process has changed.
    pub fn trust(&self) -> Result<watch::Receiver<Arc<Trust>>, Error> {
        self.publish((self.clock)())?;
        Ok(self.trust.subscribe())
    }

    /// Voids everything that an identity has been given until now, and tells every member at once.
    ///
    /// **Errors**: those of [`Authority::revoke_identity`].
    pub fn revoke(&self, id: &SpiffeId) -> Result<(), Error> {
        let now = (self.clock)();
        self.authority.revoke_identity(id, now)?;
        self.publish(now)
    }

    /// Begins a rotation of the root, and tells every member of the new one at once.
    ///
    /// **Errors**: those of [`Authority::rotate_root`].
    pub fn rotate_root(&self) -> Result<(), Error> {
        self.authority.rotate_root((self.clock)())?;
        self.turn()
    }

    /// Answers a request, from somebody whose connection has proven `peer`.
    ///
    /// **Errors**: see [`Refusal`].
    pub fn answer(&self, request: &IssueRequest, peer: Option<&PeerSvid>) -> Result<IssueResponse, Refusal> {
        let answer = self.prove_and_issue(request, peer);
        if let Err(refusal) = &answer {
            self.count(|counts| &mut counts.refused);
            tracing::warn!(%refusal, proof = ?request.proof, "no SVID for somebody who asked");
        }
        answer
    }

    fn prove_and_issue(
        &self,
        request: &IssueRequest,
        peer: Option<&PeerSvid>,
    ) -> Result<IssueResponse, Refusal> {
        let now = (self.clock)();
        let key =
            KeyRequest::parse(&request.request).map_err(|error| Refusal::Malformed(error.to_string()))?;
        let unproven = |why: &str| Refusal::Unproven(why.to_owned());
        // As they are now, also where another process has revoked: an SVID that is given out afterwards would not be void.
        let revoked = self.authority.fresh_revocations(now).map_err(Refusal::Ours)?;
        let id = match &request.proof {
            None => return Err(unproven("no proof")),
            Some(Proof::JoinToken(secret)) => {
                let id = self.tokens.redeem(secret, &key, now).map_err(|refused| match refused {
                    crate::token::Refused::Ours(error) => Refusal::Ours(error),
                    other => Refusal::Unproven(other.to_string()),
                })?;
                self.count(|counts| &mut counts.by_token);
                id
            }
            Some(Proof::KubernetesToken(token)) => {
                let kubernetes = self.kubernetes.as_ref();
                let kubernetes =
                    kubernetes.ok_or_else(|| unproven("tokens of Kubernetes are not taken here"))?;
                let id = kubernetes
                    .identify(token.as_bytes(), self.authority.trust_domain(), now)
                    .map_err(|error| Refusal::Unproven(error.to_string()))?;
                self.count(|counts| &mut counts.by_kubernetes);
                id
            }
            Some(Proof::Current(_)) => {
                let peer = peer.ok_or_else(|| unproven("the connection has no SVID"))?;
                // The connection may be older than a revocation, and than the end of its SVID.
                if revoked.contains(peer) {
                    return Err(unproven("the SVID is revoked"));
                }
                if peer.not_after_unix < i64::try_from(now).unwrap_or(i64::MAX) {
                    return Err(unproven("the SVID has ended"));
                }
                self.count(|counts| &mut counts.renewed);
                peer.id.clone()
            }
        };
        let issued = self.authority.issue(&key, &id, now).map_err(|error| match error {
            Error::Identity(_) => Refusal::Unproven(error.to_string()),
            error => Refusal::Ours(error),
        })?;
        tracing::info!(%id, proof = ?request.proof, ends = issued.not_after_unix, "SVID issued");
        Ok(IssueResponse {
            chain: issued.chain.iter().map(|der| der.to_vec()).collect(),
            trust: Some(Trust::of(&issued.bundle, &revoked)),
        })
    }
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("authority", &self.authority).finish_non_exhaustive()
    }
}
