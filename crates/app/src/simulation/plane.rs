//! A control plane: documents and workloads, and the issuer of certificates.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rhumb_base::spiffe::{SpiffeId, TrustDomain};
use rhumb_control::core::Core;
use rhumb_control::document::{Document, Key};
use rhumb_identity::{Authority, Issuer, Lifetimes};
use rhumb_tls::mesh::{MeshClient, PeerSvid};
use rhumb_tls::{ServerTls, ServerTlsSet};

/// How long the certificate of a proxy lives; unit: seconds.
pub(super) const LEAF: u64 = 120;

/// The change of one document: its new text, or that it is gone.
pub(super) type Change = (Key, Option<Bytes>);

/// The true time, which control planes have. Unit: seconds since 1970.
pub(super) type World = Arc<AtomicU64>;

pub(super) fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").expect("a trust domain")
}

/// The identity of a service account.
pub(super) fn identity(account: &str) -> SpiffeId {
    domain().workload("default", account).expect("an identity")
}

pub(super) fn lifetimes() -> Lifetimes {
    let seconds = Duration::from_secs;
    Lifetimes { leaf: seconds(LEAF), intermediate: seconds(4 * LEAF), root: seconds(8 * LEAF) }
}

pub(super) struct Plane {
    pub(super) core: Core,
    /// Revisions of the log that it has.
    pub(super) revision: usize,
    pub(super) issuer: Arc<Issuer>,
    pub(super) server: ServerTlsSet,
    /// Revocations that members who follow it were told of.
    pub(super) told: usize,
}

impl Plane {
    /// One that begins, over an authority that it shares with the others. `clock` never goes back.
    pub(super) fn start(authority: &Path, world: &World, clock: u64, began: Instant) -> Self {
        let now = world.load(Ordering::Relaxed);
        let authority = Authority::open(authority, &domain(), lifetimes(), now).expect("an authority");
        let world = Arc::clone(world);
        let clock_of_issuer = Arc::new(move || world.load(Ordering::Relaxed));
        let issuer = Issuer::new(authority, None, clock_of_issuer).expect("an issuer");
        let server =
            ServerTls::member(issuer.membership(), MeshClient::Optional, vec![b"h2".to_vec()]).expect("TLS");
        let mut core = Core::new(clock);
        // Nothing is known of the others yet.
        core.confirm(began);
        Self { core, revision: 0, issuer, server: ServerTlsSet::single(server), told: 0 }
    }

    /// Puts revisions in force that the store has.
    pub(super) fn catch_up(&mut self, log: &[Vec<Change>], now: Instant) {
        for (number, changes) in log.iter().enumerate().skip(self.revision) {
            let revision = number as u64 + 1;
            let parse = |json: &Bytes| Arc::new(Document::parse(json.clone(), revision).expect("a document"));
            let changes = changes.iter().map(|(key, json)| (key.clone(), json.as_ref().map(parse)));
            self.core.commit(revision, changes);
        }
        self.revision = log.len();
        self.core.confirm(now);
    }

    /// Who a member is that connects, when it is let in.
    pub(super) fn caller(peer: &PeerSvid) -> rhumb_control::caller::Caller {
        let (namespace, account) = peer.id.account().expect("an account");
        rhumb_control::caller::Caller::Proven { namespace: namespace.into(), account: account.into() }
    }
}
