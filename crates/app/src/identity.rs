//! Who this process is in a mesh: keeps its certificates, and the metrics of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use rhumb_identity::workload_api::{NotServed, WorkloadClient, WorkloadServer};
use rhumb_identity::{Issuer, JoinToken, Joining, Keeper, KeeperSettings, system_clock};
use rhumb_plan::mesh::{AppSocket, Keeping, Mesh};
use rhumb_telemetry::{Metric, Registry};
use rhumb_tls::mesh::Membership;
use tokio::task::JoinHandle;

/// Keeps the membership of the plan in force, with what its documents say.
pub(crate) struct Members {
    kept: Arc<Mutex<Option<Kept>>>,
}

struct Kept {
    keeping: Option<Keeping>,
    membership: Membership,
    keeper: Option<Arc<Keeper>>,
    client: Option<Arc<WorkloadClient>>,
    app_socket: Option<AppSocket>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Members {
    /// Keeps nothing yet.
    pub(crate) fn new(registry: &Registry) -> Self {
        let kept: Arc<Mutex<Option<Kept>>> = Arc::default();
        type Value = fn(&Kept, &mut dyn FnMut(&[&str], i64));
        let metrics: [(Metric, Value); 3] = [
            (Metric::SvidExpiry, |kept, emit| {
                if let Some(svid) = kept.membership.svid() {
                    emit(&[svid.id().as_str()], svid.facts().not_after_unix);
                }
            }),
            (Metric::SvidRenewals, |kept, emit| {
                if let Some(status) = kept.keeper.as_ref().map(|keeper| keeper.status()) {
                    emit(&["done"], whole(status.renewals));
                    emit(&["failed"], whole(status.failures));
                }
            }),
            (Metric::TrustFollowed, |kept, emit| {
                if let Some(keeper) = &kept.keeper {
                    emit(&[], keeper.status().follows.into());
                }
            }),
        ];
        for (metric, value) in metrics {
            let kept = Arc::clone(&kept);
            registry.collect(metric, move |emit| {
                if let Some(kept) = &*kept.lock().unwrap_or_else(PoisonError::into_inner) {
                    value(kept, emit);
                }
            });
        }
        Self { kept }
    }

    /// Why there is no newer certificate, when an attempt has failed.
    pub(crate) fn trouble(&self) -> Option<String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.as_ref()?;
        let of_issuer = kept.keeper.as_ref().and_then(|keeper| keeper.status().error);
        of_issuer.or_else(|| kept.client.as_ref()?.error())
    }

    /// Keeps the membership of a plan that comes into force. What keeps it already goes on where nothing else is written.
    pub(crate) fn follow(&mut self, mesh: Option<&Mesh>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((mesh, membership)) = mesh.and_then(|mesh| Some((mesh, mesh.membership.clone()?))) else {
            *kept = None;
            return;
        };
        let goes_on = |kept: &Kept| {
            kept.keeping == mesh.keeping
                && kept.app_socket == mesh.app_socket
                && kept.membership == membership
        };
        if kept.as_ref().is_some_and(goes_on) {
            return;
        }
        // The one before ends before another one writes to its files.
        *kept = None;
        let (keeping, app_socket) = (mesh.keeping.clone(), mesh.app_socket.clone());
        let mut next =
            Kept { keeping, membership, keeper: None, client: None, app_socket, tasks: Vec::new() };
        if let Some(socket) = &mesh.app_socket
            && let Err(error) = next.serve(socket)
        {
            tracing::error!(%error, "the application gets no certificate of the mesh");
        }
        if let Some(keeping) = &mesh.keeping
            && let Err(error) = next.start(keeping)
        {
            tracing::error!(error = format!("{error:#}"), "this process gets no certificate of the mesh");
        }
        *kept = Some(next);
    }
}

impl Kept {
    fn start(&mut self, keeping: &Keeping) -> anyhow::Result<()> {
        let membership = self.membership.clone();
        let clock = system_clock();
        let task = match keeping {
            Keeping::WorkloadApi { socket } => {
                let client = WorkloadClient::new(socket, None, membership, clock);
                self.client = Some(Arc::clone(&client));
                tokio::spawn(client.run())
            }
            Keeping::Issuer { addresses, token, service_account, directory } => {
                let joining = match (token, service_account) {
                    (Some(text), _) => Joining::Token(JoinToken::parse(text).context("token")?),
                    (None, Some((token, bundle))) => Joining::Kubernetes {
                        token: Path::new(&**token).into(),
                        bundle: Path::new(&**bundle).into(),
                    },
                    (None, None) => Joining::Nothing,
                };
                let issuers = addresses.iter().map(|address| address.to_string()).collect();
                let settings = KeeperSettings { issuers, joining, directory: PathBuf::from(&**directory) };
                let keeper = Keeper::open(membership, settings, clock)?;
                self.keeper = Some(Arc::clone(&keeper));
                tokio::spawn(keeper.run())
            }
        };
        self.tasks.push(task);
        Ok(())
    }

    fn serve(&mut self, socket: &AppSocket) -> Result<(), NotServed> {
        let server = WorkloadServer::bind(Path::new(&*socket.path), socket.users.to_vec())?;
        let membership = self.membership.clone();
        self.tasks.push(tokio::spawn(async move {
            if let Err(error) = server.serve(membership).await {
                tracing::error!(%error, "the application gets no certificate of the mesh any more");
            }
        }));
        Ok(())
    }
}

/// Those of a process that issues SVIDs.
pub(crate) fn register_issuer(registry: &Registry, issuer: &Arc<Issuer>) {
    type Value = fn(&Issuer, &mut dyn FnMut(&[&str], i64));
    let metrics: [(Metric, Value); 8] = [
        (Metric::AuthorityExpiry, |issuer, emit| {
            let forecast = issuer.authority().forecast();
            if forecast.root_ends > 0 {
                emit(&["root"], whole(forecast.root_ends));
            }
            emit(&["intermediate"], whole(forecast.intermediate_ends));
        }),
        (Metric::AuthorityRoots, |issuer, emit| {
            let roots = issuer.authority().forecast().roots;
            emit(&[], i64::try_from(roots).unwrap_or(i64::MAX));
        }),
        (Metric::SvidsIssued, |issuer, emit| {
            let counts = issuer.counts();
            emit(&["joinToken"], whole(counts.by_token));
            emit(&["kubernetes"], whole(counts.by_kubernetes));
            emit(&["svid"], whole(counts.renewed));
        }),
        (Metric::SvidsRefused, |issuer, emit| emit(&[], whole(issuer.counts().refused))),
        (Metric::KeyFetches, |issuer, emit| {
            let counts = issuer.counts();
            if counts.keys_fetched + counts.keys_failed > 0 {
                emit(&["ok"], whole(counts.keys_fetched));
                emit(&["failed"], whole(counts.keys_failed));
            }
        }),
        (Metric::AuthorityFailures, |issuer, emit| emit(&[], whole(issuer.counts().failed_turns))),
        (Metric::Revocations, |issuer, emit| {
            emit(&[], i64::try_from(issuer.authority().revocations().len()).unwrap_or(i64::MAX));
        }),
        (Metric::SvidExpiry, |issuer, emit| {
            if let Some(svid) = issuer.membership().svid() {
                emit(&[svid.id().as_str()], svid.facts().not_after_unix);
            }
        }),
    ];
    for (metric, value) in metrics {
        let issuer = Arc::clone(issuer);
        registry.collect(metric, move |emit| value(&issuer, emit));
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
