//! How a process becomes a member of a mesh: what it asks a control plane for, from its command line or its Sidecar.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rhumb_agent::ads::Kind;
use rhumb_agent::ads::registry::{Registration, registered_port};
use rhumb_agent::ads::resource::Port as RegisteredPort;
use rhumb_base::rng::Rng;
use rhumb_base::spiffe::TrustDomain;
use rhumb_identity::{
    CONTROL_ACCOUNT, JoinToken, Joining, Keeper, KeeperSettings, SYSTEM_NAMESPACE, kept_domain, system_clock,
};
use rhumb_model::kind::mesh::{Inbound, ServiceName};
use rhumb_model::{Doc, Spec};
use rhumb_net::connect::source_towards;
use rhumb_net::names::{addresses_blocking, host_and_port};
use rhumb_telemetry::Registry;
use rhumb_tls::mesh::Membership;
use serde_json::json;

use super::{Remote, Wanted};
use crate::capture::mark_own_sockets;
use crate::lookups::{Askers, Lookups};

/// How long the first certificate is waited for; then connecting goes on without.
const FIRST_CERTIFICATE: Duration = Duration::from_secs(10);

/// The trust domain where nobody says.
const USUAL_DOMAIN: &str = "cluster.local";

/// Where what a member has is kept when nothing is written.
const DEFAULT_DIRECTORY: &str = "/var/lib/rhumb/member";

/// Where key and certificate of a gateway are, in its directory.
const IDENTITY: &str = "identity";

/// The file with what a gateway is told apart by from others of the same Gateway, in its directory.
const INSTANCE: &str = "instance";

/// Where sidecars keep theirs.
const SIDECARS: &str = "/var/lib/rhumb";

/// Documents from a control plane, on the command line.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct RemoteArgs {
    /// Control plane that documents come from too, as HOST:PORT; several to fail over to
    #[arg(long, value_name = "HOST:PORT", requires = "gateway")]
    control: Vec<String>,
    /// Gateway of the control plane that this process is, as NAMESPACE/NAME. Its identity is the service account of that
    /// name
    #[arg(long, value_name = "NAMESPACE/NAME", requires = "control")]
    gateway: Option<String>,
    /// File with the join token for the first certificate
    #[arg(long, value_name = "FILE", requires = "control")]
    join_token_file: Option<PathBuf>,
    /// Directory of key, certificate and the last documents
    #[arg(long, value_name = "PATH", requires = "control", default_value = DEFAULT_DIRECTORY)]
    state: PathBuf,
    /// Trust domain of the mesh. Default: that of the certificate it has, else that of the join token
    #[arg(long, value_name = "NAME", requires = "control")]
    trust_domain: Option<TrustDomain>,
}

impl RemoteArgs {
    /// The document by which a gateway is a member, if it is to be one: it calls services of the mesh with an identity.
    pub(crate) fn document(&self) -> Option<String> {
        let (namespace, name) = self.gateway.as_ref()?.split_once('/')?;
        let mut control = json!({
            "addresses": self.control,
            "stateDirectory": self.state.join(IDENTITY).display().to_string(),
        });
        if let Some(token) = &self.join_token_file {
            control["token"] = json!(format!("file:{}", token.display()));
        }
        let written = self.trust_domain.clone();
        let known = || known_domain(&self.state.join(IDENTITY), self.join_token_file.as_deref());
        if let Some(domain) = written.or_else(known) {
            control["trustDomain"] = json!(domain.as_str());
        }
        let document = json!({
            "apiVersion": "rhumb.dev/v1alpha1",
            "kind": "Sidecar",
            "metadata": { "name": name, "namespace": namespace },
            "spec": {
                "workload": { "name": name, "serviceAccount": name },
                "identity": { "control": control },
            },
        });
        Some(document.to_string())
    }

    /// What is asked for, if anything is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn member(&self) -> anyhow::Result<Option<Member>> {
        let (Some(gateway), false) = (&self.gateway, self.control.is_empty()) else { return Ok(None) };
        if gateway.split('/').count() != 2 {
            anyhow::bail!("--gateway {gateway}: write NAMESPACE/NAME");
        }
        let read = |path: &PathBuf| {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            JoinToken::parse(text.trim()).with_context(|| path.display().to_string())
        };
        let token = self.join_token_file.as_ref().map(read).transpose()?;
        let identity = self.state.join(IDENTITY);
        let written = || self.trust_domain.clone().or_else(|| kept_domain(&identity));
        let domain = written().or_else(|| token.as_ref().and_then(JoinToken::trust_domain));
        let trust_domain = match domain {
            Some(domain) => domain,
            None => TrustDomain::parse(USUAL_DOMAIN)?,
        };
        Ok(Some(Member {
            servers: self.control.clone(),
            name: format!("gateway/{gateway}/{}", instance(&self.state)?),
            resources: vec![(Kind::Gateway, gateway.clone())],
            registration: None,
            joining: token.map_or(Joining::Nothing, Joining::Token),
            directory: self.state.clone(),
            identity,
            trust_domain,
            membership: None,
            lookups: None,
        }))
    }
}

/// What a proxy is told apart by from others that are the same: drawn once, and the same as long as its directory is.
fn instance(directory: &Path) -> anyhow::Result<String> {
    let path = directory.join(INSTANCE);
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let is_one = |text: &str| text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_one(kept.trim()) {
        return Ok(kept.trim().to_owned());
    }
    let drawn = format!("{:08x}", Rng::from_os().next_u64() >> 32);
    let write = || {
        std::fs::create_dir_all(directory)?;
        let new = path.with_extension("new");
        std::fs::write(&new, format!("{drawn}\n"))?;
        std::fs::rename(new, &path)
    };
    write().with_context(|| {
        format!("{} cannot be written: --state names a directory of this gateway's own", path.display())
    })?;
    Ok(drawn)
}

/// A process that becomes a member of a mesh.
pub(crate) struct Member {
    /// Control planes, as `HOST:PORT`.
    pub(crate) servers: Vec<String>,
    /// What it is called there.
    pub(crate) name: String,
    /// Resources that it wants from the beginning.
    pub(crate) resources: Vec<(Kind, String)>,
    /// What it says of itself, once it is ready.
    pub(crate) registration: Option<Registration>,
    /// How it proves who it is the first time.
    pub(crate) joining: Joining,
    /// Where what it has is kept.
    pub(crate) directory: PathBuf,
    /// Where key and certificate are kept.
    pub(crate) identity: PathBuf,
    /// The trust domain.
    pub(crate) trust_domain: TrustDomain,
    /// What is to be kept, when there is one already.
    pub(crate) membership: Option<Membership>,
    /// Connections of its workload are captured, so services are found when they are called first.
    pub(crate) lookups: Option<Lookups>,
}

impl Member {
    /// What a Sidecar asks for, if its identity comes from a control plane.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn of_sidecar(doc: &Doc, membership: Option<&Membership>) -> anyhow::Result<Option<Self>> {
        let Spec::Sidecar(spec) = &doc.spec else { return Ok(None) };
        let control = spec.identity.as_ref().and_then(|identity| identity.control.as_ref());
        let (Some(control), Some(membership)) = (control, membership) else { return Ok(None) };
        let server = |host: &str, port| {
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        };
        let servers = control.addresses.iter();
        let servers: Vec<String> =
            servers.map(|address| server(address.value.host(), address.value.port())).collect();
        let token = control.token.as_ref().map(|token| JoinToken::parse(token.value.0.trim()));
        let token = token.transpose().context("join token of the Sidecar")?;
        let joining = match (token, &control.service_account) {
            (Some(token), _) => Joining::Token(token),
            (None, Some(account)) => Joining::Kubernetes {
                token: PathBuf::from(&*account.token.value),
                bundle: PathBuf::from(&*account.bundle.value),
            },
            (None, None) => Joining::Nothing,
        };
        let written = control.namespace.as_ref().map(|namespace| namespace.value.as_str());
        let namespace = written.unwrap_or_else(|| doc.namespace());
        let workload = spec.workload.as_ref();
        let name = workload.and_then(|workload| workload.name.as_ref());
        let name = name.map_or_else(|| doc.name(), |name| name.value.as_str());
        let id = format!("{namespace}/{name}");
        let path = |service: &ServiceName| {
            format!("{}/{}", service.namespace().unwrap_or(namespace), service.name())
        };
        let mut resources = vec![(Kind::Own, id.clone())];
        let called =
            spec.upstreams.iter().filter_map(|upstream| Some(path(&upstream.service.as_ref()?.value)));
        let served = spec.inbound.iter().map(|inbound| path(&inbound.service.value));
        resources.extend(called.chain(served).map(|service| (Kind::Service, service)));
        let mut services: Vec<String> =
            spec.inbound.iter().map(|inbound| inbound.service.value.name().to_owned()).collect();
        services.dedup();
        let address = match workload.and_then(|workload| workload.address.as_ref()) {
            Some(address) => address.value.get(),
            None => {
                if spec.capture.is_some() {
                    mark_own_sockets();
                }
                own_address(&servers)?
            }
        };
        let account = workload.and_then(|workload| workload.service_account.as_ref());
        let registration = (!services.is_empty()).then(|| Registration {
            workload: id.clone(),
            address: address.to_string(),
            services,
            ports: ports(&spec.inbound),
            service_account: account.map_or("default", |account| account.value.as_str()).to_owned(),
            tunnel: spec.tunnel.as_ref().map_or(0, |tunnel| tunnel.value.get().port().into()),
            instance: format!("{:x}", Rng::from_os().next_u64()),
            ..Registration::default()
        });
        // The same as where the plan has its certificates kept.
        let directory = match &control.state_directory {
            Some(directory) => PathBuf::from(&*directory.value),
            None => directory_of(doc.namespace(), name),
        };
        Ok(Some(Self {
            servers,
            name: format!("sidecar/{id}"),
            resources,
            registration,
            joining,
            identity: directory.clone(),
            directory,
            trust_domain: membership.trust_domain().clone(),
            membership: Some(membership.clone()),
            lookups: None,
        }))
    }

    /// Is what the plan says that this process is, where it says so.
    pub(crate) fn be(&mut self, membership: Option<&Membership>) {
        if let Some(membership) = membership {
            self.trust_domain = membership.trust_domain().clone();
            self.membership = Some(membership.clone());
        }
    }

    /// Has what its captured workload calls looked up. `doc` is the Sidecar.
    pub(crate) fn look_up(&mut self, doc: &Doc, registry: &Registry) -> Option<Askers> {
        let Spec::Sidecar(spec) = &doc.spec else { return None };
        spec.capture.as_ref()?;
        let control = spec.identity.as_ref().and_then(|identity| identity.control.as_ref());
        let written = control.and_then(|control| control.namespace.as_ref());
        let namespace = written.map_or_else(|| doc.namespace(), |namespace| namespace.value.as_str());
        let (lookups, askers) = Lookups::new(namespace, registry);
        self.lookups = Some(lookups);
        Some(askers)
    }

    /// Gets a certificate and connects. Must be called on a runtime.
    ///
    /// # Errors
    /// What is wrong with the directory or with TLS. That nobody answers is no error: it goes on with what it has.
    pub(crate) async fn join(self) -> anyhow::Result<Remote> {
        let is_kept_by_plan = self.membership.is_some();
        let membership = self.membership.unwrap_or_else(|| Membership::new(self.trust_domain.clone()));
        let control = self.trust_domain.workload(SYSTEM_NAMESPACE, CONTROL_ACCOUNT);
        let settings =
            KeeperSettings { issuers: self.servers.clone(), joining: self.joining, directory: self.identity };
        let keeper = Keeper::open(membership.clone(), settings, system_clock()).context("identity")?;
        let keeping = tokio::spawn(Arc::clone(&keeper).run());
        if tokio::time::timeout(FIRST_CERTIFICATE, keeper.ready()).await.is_err() {
            let why = keeper.status().error.unwrap_or_default();
            tracing::warn!("there is no certificate yet: {why}");
        }
        let wanted = Wanted {
            servers: self.servers,
            name: self.name,
            resources: self.resources,
            registration: self.registration,
            directory: self.directory.join("documents"),
            membership,
            control: control.context("identity of the control plane")?,
            is_kept_by_plan,
            lookups: self.lookups,
        };
        Remote::start(wanted, keeping).context("TLS to the control plane")
    }
}

/// Where an application listens that does not listen where its Service says, as a registration tells it.
fn ports<'s>(inbound: impl IntoIterator<Item = &'s Inbound>) -> Vec<RegisteredPort> {
    let port = |inbound: &Inbound| {
        let target = inbound.target.as_ref()?.value.get().port();
        let name = registered_port(inbound.service.value.name(), inbound.port.value.number());
        Some(RegisteredPort { name, number: target.into() })
    };
    inbound.into_iter().filter_map(port).collect()
}

/// The trust domain of the mesh: that of the certificate in a directory, else that of a join token. A token that cannot be
/// read is told of where it is used.
pub(crate) fn known_domain(directory: &Path, token: Option<&Path>) -> Option<TrustDomain> {
    kept_domain(directory).or_else(|| {
        let text = std::fs::read_to_string(token?).ok()?;
        JoinToken::parse(text.trim()).ok()?.trust_domain()
    })
}

/// Where a sidecar keeps what it has when nothing is written.
pub(crate) fn directory_of(namespace: &str, name: &str) -> PathBuf {
    Path::new(SIDECARS).join(format!("{namespace}.{name}"))
}

/// True for a Sidecar that lives on a control plane.
pub(crate) fn is_remote(doc: &Doc) -> bool {
    match &doc.spec {
        Spec::Sidecar(spec) => spec.identity.as_ref().is_some_and(|identity| identity.control.is_some()),
        _ => false,
    }
}

/// The address of this machine from which control planes are reached: others of the mesh reach it there.
fn own_address(servers: &[String]) -> anyhow::Result<IpAddr> {
    let mut why = "no control plane is reached".to_owned();
    for server in servers {
        let found = host_and_port(server).and_then(|(host, port)| addresses_blocking(host, port));
        match found.map(|addresses| addresses.into_iter().find_map(|address| source_towards(address).ok())) {
            Ok(Some(own)) => return Ok(own),
            Ok(None) => {}
            Err(error) => why = error.to_string(),
        }
    }
    anyhow::bail!("the address of this workload is not known ({why}): write `workload: {{address: ADDRESS}}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_told_apart_by_their_directories_and_are_the_same_after_a_restart() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let deep = one.path().join("deep");
        let first = instance(&deep).unwrap();
        assert_eq!((first.len(), instance(&deep).unwrap()), (8, first.clone()));
        assert_ne!(instance(two.path()).unwrap(), first);
        std::fs::write(deep.join(INSTANCE), "").unwrap();
        assert_eq!(instance(&deep).unwrap().len(), 8, "what a crash has left is no name");
    }
}
