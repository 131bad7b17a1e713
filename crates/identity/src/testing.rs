//! An issuer on a loopback port, for this crate's tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rhumb_base::spiffe::{SpiffeId, TrustDomain};
use rhumb_tls::mesh::Membership;
use tokio::net::TcpListener;

use crate::{
    Authority, Clock, Issuer, Joining, Keeper, KeeperSettings, Kubernetes, Lifetimes, serve, system_clock,
};

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("td.test").unwrap()
}

pub(crate) fn id(name: &str) -> SpiffeId {
    domain().workload("shop", name).unwrap()
}

pub(crate) fn lifetimes(leaf: u64) -> Lifetimes {
    let seconds = Duration::from_secs;
    Lifetimes { leaf: seconds(leaf), intermediate: seconds(leaf * 4), root: seconds(leaf * 1000) }
}

/// An issuer that serves until it is dropped.
pub(crate) struct Served {
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) address: SocketAddr,
    pub(crate) directory: tempfile::TempDir,
    clock: Clock,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Served {
    pub(crate) async fn start(lifetimes: Lifetimes, kubernetes: Option<Kubernetes>) -> Self {
        Self::start_by(system_clock(), lifetimes, kubernetes).await
    }

    /// One for which, as for its keepers, it is as late as a clock says.
    pub(crate) async fn start_by(clock: Clock, lifetimes: Lifetimes, kubernetes: Option<Kubernetes>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path(), &domain(), lifetimes, clock()).unwrap();
        let issuer = Issuer::new(authority, kubernetes, Arc::clone(&clock)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = serve(Arc::clone(&issuer), listener, std::future::pending());
        let serving = tokio::spawn(async move { serving.await.unwrap() });
        Self { issuer, address, directory, clock, tasks: vec![serving] }
    }

    /// A keeper that joins with a token for this name.
    pub(crate) fn keeper(&self, name: &str, directory: &std::path::Path) -> Arc<Keeper> {
        let now = (self.clock)();
        let bundle = self.issuer.authority().bundle(now).unwrap();
        let token = self.issuer.tokens().create(&id(name), &bundle, now + 600, now).unwrap();
        self.keeper_with(Joining::Token(token), directory)
    }

    pub(crate) fn keeper_with(&self, joining: Joining, directory: &std::path::Path) -> Arc<Keeper> {
        let settings = KeeperSettings {
            // The first one is not there.
            issuers: vec!["127.0.0.1:1".to_owned(), self.address.to_string()],
            joining,
            directory: directory.to_owned(),
        };
        Keeper::open(Membership::new(domain()), settings, Arc::clone(&self.clock)).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} has not come true in two minutes");
}
