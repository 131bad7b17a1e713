//! A control plane inside of a gateway: for a mesh of one machine, or of a few, that has one gateway anyhow.
//!
//! The files that the gateway runs are the documents of the control plane, as long as nothing is wrong with them; what files
//! say is for files to change. Documents of others may be applied beside them. The gateway is a member of its own mesh, with a
//! certificate of the authority that is in the same process.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use rhumb_control::control::{Cause, Control, Error};
use rhumb_control::document::Key;
use rhumb_control::fleet::Fleet;
use rhumb_control::roll::Roll;
use rhumb_identity::{Issuer, Place};
use rhumb_telemetry::Registry;
use serde_json::{Value, json};

use crate::control::fleet::FleetKeeper;
use crate::control::{Serving, WORKLOADS, authority, observe, serve_proxies, settle_mesh};
use crate::identity::register_issuer;

/// Where its identity is, of the namespace of its first Gateway, or of this one.
const NAMESPACE: &str = "default";

/// What it is called when there is no Gateway in its files.
const NAME: &str = "gateway";

/// The file that says which documents came from files, in the directory.
const OWNED: &str = "files.json";

/// A control plane to be run beside a gateway.
#[derive(Clone, Debug)]
pub(crate) struct EmbeddedOptions {
    /// Where proxies connect.
    pub(crate) listen: SocketAddr,
    /// Where documents, authority and the gateway's own identity are kept.
    pub(crate) directory: PathBuf,
}

/// A control plane beside a gateway.
pub(crate) struct Embedded {
    control: Arc<Control>,
    issuer: Arc<Issuer>,
    serving: Serving,
    fleet: FleetKeeper,
    address: SocketAddr,
    config: PathBuf,
    owned: PathBuf,
    state: PathBuf,
}

impl Embedded {
    /// Opens it, with the documents of a configuration in which there is no mistake.
    ///
    /// # Errors
    /// When the directory is taken, or the address, or documents cannot be used.
    pub(crate) async fn start(options: &EmbeddedOptions, config: &Path) -> anyhow::Result<Self> {
        let directory = &options.directory;
        let shown = || directory.display().to_string();
        let control = Control::open(directory).with_context(|| format!("documents in {}", shown()))?;
        let control = Arc::new(control);
        let owned = directory.join(OWNED);
        take_over(&control, config, &owned).await.context("documents of the control plane")?;
        let place = Place::Directory(directory.join("authority"));
        let issuer = authority(&control, None, (place, &shown()), None)?;
        settle_mesh(&control, issuer.authority().trust_domain()).await?;
        let roll = Roll::at(directory.join(WORKLOADS));
        roll.restore(control.hub(), Instant::now());
        let fleet = FleetKeeper::start(&control, directory)?;
        let (serving, address) = serve_proxies(&control, &issuer, options.listen, Some(roll), None)?;
        tracing::info!(%address, revision = control.revision(), "the control plane of this gateway is ready");
        let state = directory.join("member");
        Ok(Self { control, issuer, serving, fleet, address, config: config.to_owned(), owned, state })
    }

    /// The documents.
    pub(crate) fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Its certificate authority.
    pub(crate) fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    /// What its proxies tell.
    pub(crate) fn fleet(&self) -> &Arc<Fleet> {
        self.fleet.fleet()
    }

    /// Metrics of it.
    pub(crate) fn observe(&self, registry: &Arc<Registry>) {
        observe(&self.control, registry);
        self.fleet.observe(registry);
        register_issuer(registry, &self.issuer);
    }

    /// The document by which the gateway is a member.
    ///
    /// # Errors
    /// When no token can be made for it.
    pub(crate) fn membership(&self) -> anyhow::Result<String> {
        let gateway = self.control.documents(Some("Gateway"), None, None).into_iter().next();
        let (namespace, name) = match &gateway {
            Some(document) => (&*document.key.namespace, &*document.key.name),
            None => (NAMESPACE, NAME),
        };
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let address = SocketAddr::new(ip, self.address.port());
        // It is used within this process, at once.
        let token = self.issuer.token(namespace, name).context("join token of the gateway")?;
        let document = json!({
            "apiVersion": "rhumb.dev/v1alpha1",
            "kind": "Sidecar",
            "metadata": { "name": name, "namespace": namespace },
            "spec": {
                "workload": { "name": name, "address": ip.to_string(), "serviceAccount": name },
                "identity": { "control": {
                    "addresses": [address.to_string()],
                    "token": token.text(),
                    "stateDirectory": self.state.display().to_string(),
                } },
            },
        });
        Ok(document.to_string())
    }

    /// Takes over what files say now. They have been read, and nothing is wrong with them.
    pub(crate) async fn sync(&self) {
        if let Err(error) = take_over(&self.control, &self.config, &self.owned).await {
            let why = match &error {
                Error::Mistakes(mistakes) => mistakes.join("; "),
                other => other.to_string(),
            };
            tracing::error!("the control plane goes on with the documents that it has: {why}");
        }
    }

    /// Ends it; proxies come again, or serve on without.
    pub(crate) async fn end(self) {
        self.serving.end().await;
    }
}

/// The services that files have documents of, as `NAMESPACE/NAME`.
pub(crate) fn services(config: &Path) -> BTreeSet<String> {
    let documents = rhumb_source::adapt(config).0;
    let keys = documents.iter().filter_map(|node| rhumb_control::document::key_of(&node.to_json()));
    keys.filter(|key| &*key.kind == "Service").map(|key| key.path()).collect()
}

/// Makes the documents of files those of the control plane; what was in files and is not any more goes.
async fn take_over(control: &Control, config: &Path, owned: &Path) -> Result<(), Error> {
    let documents = rhumb_source::adapt(config).0;
    // What is this process's business only is no document of the mesh.
    let is_shared = |document: &Value| !matches!(document["kind"].as_str(), Some("ProxyConfig" | "Sidecar"));
    let documents: Vec<Value> = documents.iter().map(|node| node.to_json()).filter(is_shared).collect();
    let before = known(owned);
    let cause = Cause { author: "files".to_owned(), message: config.display().to_string(), expected: None };
    let after = control.own(&cause, &documents, &before).await?;
    if after != before {
        let names: Vec<String> = after.iter().map(ToString::to_string).collect();
        if let Err(error) = std::fs::write(owned, json!(names).to_string()) {
            tracing::error!(path = %owned.display(), %error, "which documents are of files cannot be remembered");
        }
    }
    Ok(())
}

/// Which documents were of files, also before this process began.
fn known(owned: &Path) -> BTreeSet<Key> {
    let text = std::fs::read_to_string(owned).unwrap_or_default();
    let names: Vec<String> = serde_json::from_str(&text).unwrap_or_default();
    names.iter().filter_map(|name| Key::parse(name)).collect()
}
