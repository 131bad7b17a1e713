//! A member's side: has an SVID and a bundle at all times, and keeps both on disk.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::uri::PathAndQuery;
use rhumb_base::rng::Rng;
use rhumb_base::spiffe::{SpiffeId, TrustDomain};
use rhumb_grpc::causes;
use rhumb_tls::mesh::{Bundle, Expected, Membership, Svid};
use rhumb_tls::{CertificateSource, ClientTls};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tonic::Request;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use crate::clock::Clock;
use crate::request::NewKey;
use crate::token::JoinToken;
use crate::wire::{
    Current, FOLLOW_PATH, ISSUE_PATH, IssueRequest, IssueResponse, MAX_MESSAGE, Proof, Trust, TrustRequest,
};
use crate::{CONTROL_ACCOUNT, SYSTEM_NAMESPACE, channel, file, pem};

/// The largest file of a member: chain, key, bundle and what is revoked. Unit: bytes.
const MAX_FILE: u64 = 32 * 1024 * 1024;

/// The first and the longest pause after something failed; each is spread over half of it.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Where a member is told of the issuer's root, and how it proves who it is as long as it has no SVID.
#[derive(Debug, Clone)]
pub enum Joining {
    /// With a join token, which also names the root.
    Token(JoinToken),
    /// With the token of a Kubernetes service account, read anew each time: the kubelet renews it.
    Kubernetes {
        /// The file of the token.
        token: PathBuf,
        /// PEM: the bundle of the mesh.
        bundle: PathBuf,
    },
    /// Not at all: it has been a member before, and goes on with what is in its directory.
    Nothing,
}

/// The longest that is slept before the clock is looked at again. Unit: seconds.
const STEP: u64 = 10;

/// How a member keeps its SVID.
#[derive(Debug, Clone)]
pub struct KeeperSettings {
    /// Issuers, as `HOST:PORT`. The first one that answers is kept to.
    pub issuers: Vec<String>,
    /// The first proof.
    pub joining: Joining,
    /// Where the SVID and the bundle are kept.
    pub directory: PathBuf,
}

/// Why a member has no SVID, or no new one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotKept {
    /// A file or directory.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What was sent, or was on disk, is of no use.
    #[error("{0}")]
    Tls(#[from] rhumb_tls::Error),
    /// What was sent is no answer to what was asked.
    #[error("the issuer's answer is not what was asked for: {0}")]
    Answer(&'static str),
    /// There is nothing to prove it with.
    #[error("there is no SVID, and nothing to get one with: give a join token")]
    NoProof,
    /// No issuer was reached.
    #[error("{issuer}: {why}")]
    Unreachable {
        /// Which one was tried last.
        issuer: String,
        /// Why.
        why: String,
    },
    /// The issuer said no.
    #[error("{issuer} refuses: {why}")]
    Refused {
        /// Which.
        issuer: String,
        /// Why, in its words.
        why: String,
    },
    /// A key could not be made.
    #[error("{0}")]
    Key(#[from] crate::authority::Error),
}

/// Keeps a [`Membership`]: gets an SVID, renews it at half of its life, and follows what to trust.
pub struct Keeper {
    membership: Membership,
    settings: KeeperSettings,
    clock: Clock,
    /// The issuer that answered last, to begin with.
    issuer: Mutex<usize>,
    /// The key for which the join token is being used.
    first_key: Mutex<Option<Arc<NewKey>>>,
    status: Mutex<Status>,
    ready: tokio::sync::watch::Sender<bool>,
}

/// What metrics and status pages say of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// SVIDs that it was given since the process began.
    pub renewals: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// What failed last, until something succeeds.
    pub error: Option<String>,
    /// When the next attempt is due. Unit: seconds since 1970.
    pub renews_at: u64,
    /// Whether a stream from an issuer is open that says what to trust.
    pub follows: bool,
}

/// What is on disk. Holds a private key: no `Debug`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Kept {
    trust_domain: String,
    pub(crate) chain: String,
    key: String,
    pub(crate) bundle: String,
    #[serde(default)]
    revoked_serials: Vec<String>,
    #[serde(default)]
    revoked_identities: HashMap<String, i64>,
    #[serde(default)]
    revoked_number: u64,
}

impl Keeper {
    /// A keeper of a membership, which goes on with what its directory has, where that is still good: then the membership is ready at once.
    ///
    /// **Errors**: [`NotKept::Io`] where the directory cannot be used.
    pub fn open(
        membership: Membership,
        settings: KeeperSettings,
        clock: Clock,
    ) -> Result<Arc<Self>, NotKept> {
        let directory = &settings.directory;
        file::make_directory(directory).map_err(|source| NotKept::Io { path: directory.clone(), source })?;
        membership.keep_time(Arc::clone(&clock));
        let keeper = Self {
            membership,
            settings,
            clock,
            issuer: Mutex::new(0),
            first_key: Mutex::default(),
            status: Mutex::default(),
            ready: tokio::sync::watch::Sender::new(false),
        };
        match keeper.load() {
            Ok(true) => {
                keeper.ready.send_replace(true);
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the SVID on disk is of no use; a new one is asked for"),
        }
        Ok(Arc::new(keeper))
    }

    /// What it keeps.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// How it goes.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Done when the membership has an SVID. **Cancel**: at any time.
    pub async fn ready(&self) {
        // The sender lives as long as self.
        let _ = self.ready.subscribe().wait_for(|is_ready| *is_ready).await;
    }

    fn path(&self) -> PathBuf {
        self.settings.directory.join("svid.json")
    }

    /// Takes what is on disk; `false` where nothing is. An SVID that has ended is not taken, and the bundle is: it may well
    /// lead to the issuer.
    fn load(&self) -> Result<bool, NotKept> {
        let Some(kept) = self.kept()? else { return Ok(false) };
        if kept.trust_domain != self.membership.trust_domain().as_str() {
            return Err(NotKept::Answer("its file is of another trust domain"));
        }
        let origin = self.path().display().to_string();
        let bundle = Bundle::parse(kept.bundle.as_bytes(), self.membership.trust_domain(), &origin)?;
        self.membership.swap_bundle(bundle.clone());
        let trust = Trust {
            roots: Vec::new(),
            revoked_serials: kept.revoked_serials,
            revoked_identities: kept.revoked_identities,
            revoked_number: kept.revoked_number,
        };
        self.membership.revoke(trust.revocations());
        let source = CertificateSource {
            chain: kept.chain.into_bytes(),
            key: kept.key.into_bytes(),
            origin: "mesh SVID".into(),
        };
        self.membership.swap(Svid::parse(&source)?, bundle, (self.clock)())?;
        Ok(true)
    }

    fn save(&self, chain: String, key: String) -> Result<(), NotKept> {
        let revoked = self.membership.revocations();
        let roots = self.membership.bundle();
        let kept = Kept {
            trust_domain: self.membership.trust_domain().as_str().to_owned(),
            chain,
            key,
            bundle: roots.map(|bundle| pem::of_certificates(bundle.roots())).unwrap_or_default(),
            revoked_serials: revoked.serials().map(str::to_owned).collect(),
            revoked_identities: revoked.identities().map(|(id, until)| (id.to_string(), until)).collect(),
            revoked_number: revoked.number(),
        };
        let path = self.path();
        let text = serde_json::to_vec(&kept).map_err(|_| NotKept::Answer("it cannot be written"))?;
        file::replace(&path, &text).map_err(|source| NotKept::Io { path, source })
    }

    /// Keeps the membership for as long as it is polled. **Cancel**: at any time.
    pub async fn run(self: Arc<Self>) {
        let following = Arc::clone(&self);
        tokio::join!(self.renew(), following.follow());
    }

    async fn renew(&self) {
        let mut rng = Rng::from_os();
        let mut failed = 0;
        loop {
            let due = self.due(&mut rng);
            self.with_status(|status| status.renews_at = due);
            // In steps, because clocks jump and machines sleep.
            while failed == 0 && (self.clock)() < due && !self.is_revoked() {
                let left = due.saturating_sub((self.clock)());
                tokio::time::sleep(Duration::from_secs(left.clamp(1, STEP))).await;
            }
            match self.obtain().await {
                Ok(()) => {
                    failed = 0;
                    self.with_status(|status| {
                        status.renewals += 1;
                        status.error = None;
                    });
                    self.ready.send_replace(true);
                }
                Err(error) => {
                    self.tell(&error);
                    self.with_status(|status| {
                        status.failures += 1;
                        status.error = Some(error.to_string());
                    });
                    tokio::time::sleep(self.pause(failed, &mut rng)).await;
                    failed = (failed + 1).min(16);
                }
            }
        }
    }

    /// A failure, the louder the less is left: at half there is plenty of time, at a tenth somebody should be awake.
    fn tell(&self, error: &NotKept) {
        match self.percent_left() {
            None => tracing::warn!(%error, "no SVID yet"),
            Some(0) => tracing::error!(%error, "the SVID has ended: no handshake succeeds"),
            Some(left @ ..=25) => tracing::error!(%error, left_percent = left, "no new SVID"),
            Some(left) => tracing::warn!(%error, left_percent = left, "no new SVID"),
        }
    }

    /// How much of the SVID's life is left, in percent; zero when it has ended.
    #[must_use]
    pub fn percent_left(&self) -> Option<u8> {
        let svid = self.membership.svid()?;
        let (begin, end) = (svid.facts().not_before_unix, svid.facts().not_after_unix);
        let left = end.saturating_sub(i64::try_from((self.clock)()).unwrap_or(i64::MAX)).max(0);
        u8::try_from((left.saturating_mul(100) / (end - begin).max(1)).min(100)).ok()
    }

    /// Whether our own SVID is void: it proves nothing, and a new proof is needed.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.membership.svid().is_some_and(|svid| !self.membership.admits(svid.facts()))
    }

    /// At half of the SVID's life, and up to a tenth of it later: members that began together do not come together. Now,
    /// where there is none.
    #[must_use]
    pub fn due(&self, rng: &mut Rng) -> u64 {
        let Some(svid) = self.membership.svid() else { return 0 };
        let seconds = |unix: i64| u64::try_from(unix).unwrap_or(0);
        let (begin, end) = (seconds(svid.facts().not_before_unix), seconds(svid.facts().not_after_unix));
        let life = end.saturating_sub(begin);
        begin + life / 2 + u64::from(rng.below(1000)) * life / 10_000
    }

    /// Longer each time, never longer than a twentieth of the SVID's life.
    fn pause(&self, failed: u32, rng: &mut Rng) -> Duration {
        let life =
            self.membership.svid().map(|svid| svid.facts().not_after_unix - svid.facts().not_before_unix);
        let life = life.and_then(|life| u64::try_from(life).ok()).unwrap_or(u64::MAX);
        let longest = PAUSE.1.min(Duration::from_secs(life / 20)).max(PAUSE.0);
        let pause = PAUSE.0.saturating_mul(1 << failed.min(16)).min(longest);
        pause / 2 + pause.mul_f64(f64::from(rng.below(1000)) / 2000.0)
    }

    /// Gets one SVID, from the first issuer that gives one.
    ///
    /// **Errors**: of the last issuer, see [`NotKept`].
    pub async fn obtain(&self) -> Result<(), NotKept> {
        let mut last = NotKept::NoProof;
        for issuer in self.issuers() {
            match tokio::time::timeout(channel::CONNECT + channel::ANSWER, self.obtain_from(&issuer)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => last = error,
                Err(_) => {
                    last =
                        NotKept::Unreachable { issuer: issuer.clone(), why: "no answer in time".to_owned() }
                }
            }
            self.skip();
        }
        Err(last)
    }

    /// All issuers, the one that is kept to first.
    fn issuers(&self) -> Vec<String> {
        let first = *self.issuer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut issuers = self.settings.issuers.clone();
        if !issuers.is_empty() {
            let first = first % issuers.len();
            issuers.rotate_left(first);
        }
        issuers
    }

    /// Begins with another one next time.
    fn skip(&self) {
        let mut issuer = self.issuer.lock().unwrap_or_else(PoisonError::into_inner);
        *issuer = issuer.wrapping_add(1);
    }

    /// What an issuer is to be asked: the request, the key that it is about, and TLS to ask through.
    ///
    /// **Errors**: [`NotKept::NoProof`], [`NotKept::Io`] and [`NotKept::Tls`] for files of the proof, [`NotKept::Key`].
    pub fn ask(&self) -> Result<(IssueRequest, Arc<NewKey>, ClientTls), NotKept> {
        let (proof, tls) = self.proof()?;
        let key = self.key(&proof)?;
        Ok((IssueRequest { request: key.request().to_vec(), proof: Some(proof) }, key, tls))
    }

    async fn obtain_from(&self, issuer: &str) -> Result<(), NotKept> {
        let (request, key, tls) = self.ask()?;
        let unreachable = |why: String| NotKept::Unreachable { issuer: issuer.to_owned(), why };
        let channel = channel::to_issuer(issuer, tls).await.map_err(unreachable)?;
        let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
        grpc.ready().await.map_err(|error| unreachable(causes(&error)))?;
        let codec = ProstCodec::<IssueRequest, IssueResponse>::default();
        let path = PathAndQuery::from_static(ISSUE_PATH);
        let answer =
            grpc.unary(Request::new(request), path, codec).await.map_err(|status| match status.code() {
                tonic::Code::PermissionDenied | tonic::Code::InvalidArgument => {
                    NotKept::Refused { issuer: issuer.to_owned(), why: status.message().to_owned() }
                }
                _ => unreachable(status.message().to_owned()),
            })?;
        self.take(answer.into_inner(), &key)
    }

    /// A new key each time: one that was stolen is of no use for longer than its certificate. Only with a join token it stays
    /// the same until there is an answer, because the token is good for one key.
    fn key(&self, proof: &Proof) -> Result<Arc<NewKey>, NotKept> {
        if !matches!(proof, Proof::JoinToken(_)) {
            return Ok(Arc::new(NewKey::make()?));
        }
        let mut first = self.first_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = &*first {
            return Ok(Arc::clone(key));
        }
        let key = Arc::new(NewKey::make()?);
        *first = Some(Arc::clone(&key));
        Ok(key)
    }

    /// What proves who we are, and TLS to say it through.
    fn proof(&self) -> Result<(Proof, ClientTls), NotKept> {
        let domain = self.membership.trust_domain();
        let control = Expected::new(control(domain));
        let alpn = vec![b"h2".to_vec()];
        let now = i64::try_from((self.clock)()).unwrap_or(i64::MAX);
        let of_member =
            |membership: &Membership| ClientTls::member(membership, control.clone(), None, alpn.clone());
        if !self.is_revoked() && self.membership.svid().is_some_and(|svid| svid.facts().not_after_unix > now)
        {
            return Ok((Proof::Current(Current {}), of_member(&self.membership)?));
        }
        match &self.settings.joining {
            Joining::Token(token) => {
                let tls = ClientTls::pinned(&self.membership, token.pins().to_vec(), control, alpn)?;
                Ok((Proof::JoinToken(token.secret().to_vec()), tls))
            }
            Joining::Kubernetes { token, bundle } => {
                let io = |path: &Path| {
                    let path = path.to_owned();
                    move |source| NotKept::Io { path, source }
                };
                let text = std::fs::read_to_string(token).map_err(io(token))?;
                let roots = std::fs::read(bundle).map_err(io(bundle))?;
                // No SVID, not even an ended one: only what to trust.
                let newcomer = Membership::new(domain.clone());
                newcomer.keep_time(Arc::clone(&self.clock));
                newcomer.swap_bundle(Bundle::parse(&roots, domain, &bundle.display().to_string())?);
                Ok((Proof::KubernetesToken(text.trim().to_owned()), of_member(&newcomer)?))
            }
            Joining::Nothing => Err(NotKept::NoProof),
        }
    }

    /// Takes over what an issuer has answered to what it was [asked](Self::ask).
    ///
    /// **Errors**: [`NotKept::Answer`] and [`NotKept::Tls`] for an answer that is of no use; what was kept before stays.
    /// [`NotKept::Io`] where it cannot be saved: it counts all the same.
    pub fn take(&self, answer: IssueResponse, key: &NewKey) -> Result<(), NotKept> {
        let domain = self.membership.trust_domain();
        let trust = answer.trust.ok_or(NotKept::Answer("it has no bundle"))?;
        let bundle = trust.bundle(domain)?;
        let chain: Vec<CertificateDer<'_>> = answer.chain.into_iter().map(CertificateDer::from).collect();
        let chain = pem::of_certificates(&chain);
        let key = key.private_key_pem();
        let source = CertificateSource {
            chain: chain.clone().into(),
            key: key.clone().into(),
            origin: "mesh SVID".into(),
        };
        let svid = Svid::parse(&source)?;
        if self.membership.id().is_some_and(|own| own != *svid.id()) {
            return Err(NotKept::Answer("it is for somebody else"));
        }
        // Clocks may differ: an SVID that has just been made is taken as of its beginning.
        let now = (self.clock)().max(u64::try_from(svid.facts().not_before_unix).unwrap_or(0));
        self.membership.swap(svid, bundle, now)?;
        self.membership.revoke(trust.revocations());
        self.save(chain, key)?;
        *self.first_key.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// Takes over what an issuer says is to be trusted from here on. It is saved, where there is an SVID: who was shut out stays
    /// out after a restart, whether an issuer answers then or not.
    ///
    /// **Errors**: [`NotKept::Tls`] for a bundle that is of no use: that of before stays, and what is revoked counts.
    /// [`NotKept::Io`] where it cannot be saved.
    pub fn trust(&self, trust: &Trust) -> Result<(), NotKept> {
        let bundle = trust.bundle(self.membership.trust_domain());
        if let Ok(bundle) = &bundle {
            self.membership.swap_bundle(bundle.clone());
        }
        self.membership.revoke(trust.revocations());
        if let Some(kept) = self.kept()? {
            self.save(kept.chain, kept.key)?;
        }
        bundle?;
        Ok(())
    }

    /// What is on disk; nothing where nothing is.
    fn kept(&self) -> Result<Option<Kept>, NotKept> {
        let path = self.path();
        let Some(text) = file::read(&path, MAX_FILE).map_err(|source| NotKept::Io { path, source })? else {
            return Ok(None);
        };
        serde_json::from_slice(&text).map(Some).map_err(|_| NotKept::Answer("its file is damaged"))
    }

    /// Follows what to trust, from one issuer after the other.
    async fn follow(&self) {
        let mut rng = Rng::from_os();
        let mut failed = 0;
        loop {
            self.ready().await;
            let Some(issuer) = self.issuers().into_iter().next() else { return };
            let came = self.follow_from(&issuer).await;
            self.with_status(|status| status.follows = false);
            match came {
                Ok(()) => failed = 0,
                Err(why) => {
                    tracing::debug!(issuer, why, "what to trust is not followed");
                    failed = (failed + 1).min(16);
                    self.skip();
                }
            }
            tokio::time::sleep(self.pause(failed, &mut rng)).await;
        }
    }

    async fn follow_from(&self, issuer: &str) -> Result<(), String> {
        let domain = self.membership.trust_domain();
        let expected = Expected::new(control(domain));
        let tls = ClientTls::member(&self.membership, expected, None, vec![b"h2".to_vec()])
            .map_err(|error| error.to_string())?;
        let channel = channel::to_issuer(issuer, tls).await?;
        let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
        grpc.ready().await.map_err(|error| causes(&error))?;
        let codec = ProstCodec::<TrustRequest, Trust>::default();
        let path = PathAndQuery::from_static(FOLLOW_PATH);
        let stream = grpc.server_streaming(Request::new(TrustRequest {}), path, codec).await;
        let mut stream = stream.map_err(|status| status.message().to_owned())?.into_inner();
        while let Some(trust) = stream.message().await.map_err(|status| status.message().to_owned())? {
            self.with_status(|status| status.follows = true);
            if let Err(error) = self.trust(&trust) {
                tracing::warn!(%error, "what the issuer says is to be trusted is not all taken over");
            }
        }
        Ok(())
    }

    fn with_status(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("membership", &self.membership).finish_non_exhaustive()
    }
}

fn control(domain: &TrustDomain) -> Option<SpiffeId> {
    domain.workload(SYSTEM_NAMESPACE, CONTROL_ACCOUNT).ok()
}

#[cfg(test)]
mod tests;
