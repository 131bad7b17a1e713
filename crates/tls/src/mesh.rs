//! TLS between members of a mesh: X.509-SVIDs on both sides, against a trust bundle, all of it live.
//!
//! A [`Membership`] holds what makes a proxy a member: its own SVID, the bundle of its trust domain, and what was revoked.
//! [`ServerTls::member`](crate::ServerTls::member) and [`ClientTls::member`](crate::ClientTls::member) read it in each
//! handshake, so that a rotation is one swap of a pointer: no settings are built anew and no pool is lost.
//!
//! Sessions are never resumed here. Resumption verifies nothing, so a ticket would carry a member past the end of its
//! certificate, past the removal of a root and past a revocation; and the connections of a mesh live long, so that handshakes
//! are rare anyway.
//!
//! **Source**: SPIFFE X509-SVID, SPIFFE-ID.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::{CertificateDer, UnixTime};

use rhumb_base::spiffe::{SpiffeId, TrustDomain};

use crate::error::{Error, Problem};

mod svid;
mod bundle;
mod revoked;
mod expected;
mod sign;
pub(crate) mod verify;

pub use bundle::{Bundle, RootInfo};
pub use expected::Expected;
pub use revoked::Revocations;
pub use sign::NotSigned;
pub use svid::{NotASvid, PeerSvid, Svid};

/// Whether a mesh server lets clients in that present no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeshClient {
    /// It does not.
    Required,
    /// It does, and asks for one: where members come to be, who have none yet. A certificate that does not verify is refused
    /// all the same.
    Optional,
}

/// Says what time it is. Unit: seconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What makes a proxy a member of a mesh. Cheap to clone: all clones are one membership.
#[derive(Clone)]
pub struct Membership {
    inner: Arc<Inner>,
}

struct Inner {
    domain: TrustDomain,
    state: ArcSwap<State>,
    /// How often something was revoked.
    generation: AtomicU64,
    /// What time it is for certificates; nothing for the clock of the operating system.
    clock: OnceLock<Clock>,
}

#[derive(Clone, Default)]
struct State {
    svid: Option<Svid>,
    bundle: Option<Bundle>,
    revoked: Arc<Revocations>,
}

impl Membership {
    /// A membership with neither an SVID nor a bundle: until both are there each handshake fails.
    #[must_use]
    pub fn new(domain: TrustDomain) -> Self {
        let state = ArcSwap::from_pointee(State::default());
        let inner = Inner { domain, state, generation: AtomicU64::new(0), clock: OnceLock::new() };
        Self { inner: Arc::new(inner) }
    }

    /// Has certificates be valid by this clock, in all handshakes. The first one that is given counts.
    ///
    /// **Default**: the clock of the operating system.
    pub fn keep_time(&self, clock: Clock) {
        let _ = self.inner.clock.set(clock);
    }

    /// The trust domain; its members are the only peers.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.inner.domain
    }

    /// Takes a new SVID and a new bundle at once, for all handshakes from here on.
    ///
    /// **Errors**: [`Problem::TrustDomain`] where either is of another one, and [`Problem::NotTrusted`] where the SVID does not
    /// verify against the bundle at `now_unix`: peers would not take it either. Everything then stays as it was.
    pub fn swap(&self, svid: Svid, bundle: Bundle, now_unix: u64) -> Result<(), Error> {
        self.check_domain(&svid)?;
        let origin = &svid.certificate().info().origin;
        if bundle.trust_domain() != &self.inner.domain {
            return Err(Error::new(origin, self.wrong_domain(svid.id())));
        }
        bundle
            .verify(svid.chain(), now_unix)
            .map_err(|error| Error::new(origin, Problem::NotTrusted(error.to_string())))?;
        self.update(|state| {
            state.svid = Some(svid.clone());
            state.bundle = Some(bundle.clone());
        });
        Ok(())
    }

    /// Takes a new SVID for all handshakes from here on.
    ///
    /// **Errors**: [`Problem::TrustDomain`].
    pub fn swap_svid(&self, svid: Svid) -> Result<(), Error> {
        self.check_domain(&svid)?;
        self.update(|state| state.svid = Some(svid.clone()));
        Ok(())
    }

    /// Takes a new bundle for all handshakes from here on. Those of another trust domain are not taken.
    pub fn swap_bundle(&self, bundle: Bundle) {
        if bundle.trust_domain() == &self.inner.domain {
            self.update(|state| state.bundle = Some(bundle.clone()));
        }
    }

    /// Takes what is revoked, in place of what was; an [older](Revocations::number) state only adds to it. Where it says
    /// something else than before the [generation](Self::generation) grows.
    pub fn revoke(&self, revoked: Revocations) {
        let known = self.revocations();
        let revoked = Arc::new(revoked.after(&known));
        if known == revoked {
            return;
        }
        self.update(|state| state.revoked = Arc::clone(&revoked));
        self.inner.generation.fetch_add(1, Ordering::Release);
    }

    /// How often something was revoked. A connection remembers the number under which its peer was last
    /// [admitted](Self::admits), and asks again when it differs: one comparison while nothing happens.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.generation.load(Ordering::Acquire)
    }

    /// Whether a peer of a live connection may stay: nothing of it has been revoked. The end of its certificate does not end
    /// its connections, as nobody could renew it within them (TLS 1.3 has no renegotiation).
    #[must_use]
    pub fn admits(&self, peer: &PeerSvid) -> bool {
        !self.inner.state.load().revoked.contains(peer)
    }

    /// Who the proxy is, once it has an SVID.
    #[must_use]
    pub fn id(&self) -> Option<SpiffeId> {
        self.inner.state.load().svid.as_ref().map(|svid| svid.id().clone())
    }

    /// The SVID that new handshakes use.
    #[must_use]
    pub fn svid(&self) -> Option<Svid> {
        self.inner.state.load().svid.clone()
    }

    /// The bundle that new handshakes use.
    #[must_use]
    pub fn bundle(&self) -> Option<Bundle> {
        self.inner.state.load().bundle.clone()
    }

    /// What is revoked.
    #[must_use]
    pub fn revocations(&self) -> Arc<Revocations> {
        Arc::clone(&self.inner.state.load().revoked)
    }

    /// Whether it has what handshakes need.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let state = self.inner.state.load();
        state.svid.is_some() && state.bundle.is_some()
    }

    /// Verifies a peer's chain as a handshake does, its own certificate first.
    pub(crate) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: verify::Role,
    ) -> Result<PeerSvid, rustls::Error> {
        let state = self.inner.state.load();
        let Some(bundle) = &state.bundle else {
            return Err(rustls::Error::General("there is no trust bundle yet".to_owned()));
        };
        let peer = bundle.check(end_entity, intermediates, now, role)?;
        if state.revoked.contains(&peer) {
            return Err(rustls::CertificateError::Revoked.into());
        }
        Ok(peer)
    }

    fn update(&self, change: impl Fn(&mut State)) {
        self.inner.state.rcu(|state| {
            let mut state = State::clone(state);
            change(&mut state);
            state
        });
    }

    fn check_domain(&self, svid: &Svid) -> Result<(), Error> {
        if svid.id().is_member_of(&self.inner.domain) {
            return Ok(());
        }
        Err(Error::new(&svid.certificate().info().origin, self.wrong_domain(svid.id())))
    }

    fn wrong_domain(&self, id: &SpiffeId) -> Problem {
        Problem::TrustDomain { id: id.clone(), domain: self.inner.domain.clone() }
    }

    fn key(&self, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let state = self.inner.state.load();
        let key = state.svid.as_ref()?.certificate().key();
        key.key.choose_scheme(schemes).is_some().then(|| Arc::clone(key))
    }
}

impl ResolvesServerCert for Membership {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key(hello.signature_schemes())
    }
}

impl ResolvesClientCert for Membership {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.key(schemes)
    }

    fn has_certs(&self) -> bool {
        self.inner.state.load().svid.is_some()
    }
}

impl TimeProvider for Membership {
    fn current_time(&self) -> Option<UnixTime> {
        Some(match self.inner.clock.get() {
            None => UnixTime::now(),
            Some(clock) => UnixTime::since_unix_epoch(Duration::from_secs(clock())),
        })
    }
}

impl PartialEq for Membership {
    /// Whether both are one membership.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Membership {}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("domain", &self.inner.domain)
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
