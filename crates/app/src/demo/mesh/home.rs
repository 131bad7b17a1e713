//! The documents, identities and logs of the demonstration: a directory that goes with it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::place::{GATE, Place};
use super::{SERVICES, identity};

/// Documents that every process has: a change of this file is a change for all.
const SHARED: &str = "services.yaml";

/// The port of every service.
const PORT: u16 = 80;

/// The directory. Each process has one of its own in it.
pub(crate) struct Home {
    dir: PathBuf,
    /// By service: what its sidecar is told of the place.
    sidecars: Vec<(&'static str, Vec<OsString>)>,
}

impl Home {
    /// Writes everything.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn write(place: &Place) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("rhumb-demo-mesh-{}", std::process::id()));
        // Fails when somebody else made it before us.
        DirBuilder::new().mode(0o700).create(&dir)?;
        let mut home = Self { dir, sidecars: Vec::new() };
        let accounts = [SERVICES[0], SERVICES[1], SERVICES[2], GATE];
        identity::hand_out_to(&accounts, &home.dir.join("authority"), &home.dir)?;
        // The same name and the same trust domain, signed by somebody else.
        identity::hand_out_to(
            &[SERVICES[0]],
            &home.dir.join("stranger/authority"),
            &home.dir.join("stranger"),
        )?;
        fs::write(home.dir.join(SHARED), shared(place))?;
        for name in accounts {
            let own = home.dir.join(name);
            symlink(home.dir.join(SHARED), own.join(SHARED)).context("a link to the documents")?;
            let mut text = String::new();
            if let Some(admin) = place.admin(name) {
                let _ = write!(text, "{}", process(&format!("admin: {{address: '{admin}'}}")));
            }
            if name == GATE {
                text += &gateway(place);
            }
            fs::write(own.join("process.yaml"), text)?;
        }
        let stranger = home.dir.join("stranger/documents");
        fs::create_dir(&stranger)?;
        symlink(home.dir.join(SHARED), stranger.join(SHARED))?;
        fs::write(stranger.join("process.yaml"), process("admin: {address: '127.0.0.1:0'}"))?;
        for name in SERVICES {
            home.sidecars.push((name, home.options(place, name)));
        }
        Ok(home)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// The log of a process.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// Arguments of a service's sidecar.
    pub(crate) fn sidecar(&self, name: &str, next: Option<&str>) -> Vec<OsString> {
        let found = self.sidecars.iter().find(|(of, _)| *of == name);
        let mut words = found.map(|(_, words)| words.clone()).unwrap_or_default();
        if next.is_none() {
            // It calls nobody.
            if let Some(at) = words.iter().position(|word| word == "--upstream") {
                words.drain(at..at + 2);
            }
        }
        words
    }

    fn options(&self, place: &Place, name: &str) -> Vec<OsString> {
        let own = self.dir.join(name);
        let next = SERVICES.iter().skip_while(|service| **service != name).nth(1);
        let mut words: Vec<OsString> = ["sidecar", "-c"].map(Into::into).into();
        words.push(own.clone().into());
        let served = format!("{PORT}={}:http", place.application_port(name));
        words.extend(["--service", name, "--service-account", name, "--port", &served].map(Into::into));
        words.extend(["--tunnel".into(), place.tunnel(name).to_string().into()]);
        match (place.upstream(name), next) {
            (None, _) => words.push("--capture".into()),
            (Some(upstream), Some(next)) => {
                words.extend(["--upstream".into(), format!("{next}={upstream}").into()]);
            }
            (Some(_), None) => {}
        }
        words.extend(identity_options(&own));
        words.extend(["--admin-token-file".into(), own.join("admin.token").into()]);
        words
    }

    /// Arguments of the gateway.
    pub(crate) fn gateway(&self) -> Vec<OsString> {
        let own = self.dir.join(GATE);
        let token = own.join("admin.token");
        vec!["run".into(), "-c".into(), own.into(), "--admin-token-file".into(), token.into()]
    }

    /// Arguments of a sidecar with an identity that somebody else has made, which calls `service` at `listen`.
    pub(crate) fn stranger(&self, service: &str, listen: std::net::SocketAddr) -> Vec<OsString> {
        let own = self.dir.join("stranger");
        let mut words: Vec<OsString> = ["sidecar", "-c"].map(Into::into).into();
        words.push(own.join("documents").into());
        words.extend(["--service-account", SERVICES[0], "--upstream"].map(Into::into));
        words.push(format!("{service}={listen}").into());
        words.extend(identity_options(&own.join(SERVICES[0])));
        words.extend(["--admin-token-file".into(), own.join("admin.token").into()]);
        words
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::debug!(%error, "{} stays behind", self.dir.display());
        }
    }
}

fn identity_options(own: &Path) -> Vec<OsString> {
    let files = [("--certificate", "tls.crt"), ("--key", "tls.key"), ("--bundle", "ca.crt")];
    files.iter().flat_map(|(option, file)| [OsString::from(option), own.join(file).into()]).collect()
}

fn process(spec: &str) -> String {
    format!(
        "apiVersion: rhumb.dev/v1alpha1\nkind: ProxyConfig\nmetadata: {{name: process}}\nspec: {{workers: 1, {spec}}}\n"
    )
}

/// Which services there are, where they run, and who may call.
fn shared(place: &Place) -> String {
    let mut text =
        "# The services of `rhumb demo mesh`, for every process. Save a change and it is live.\n".to_owned();
    for name in SERVICES {
        let _ = write!(
            text,
            "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{port: {PORT}, targetPort: {target}, appProtocol: http}}]}}
---
apiVersion: rhumb.dev/v1alpha1
kind: Workload
metadata: {{name: {name}}}
spec: {{address: {address}, tunnelPort: {tunnel}, serviceAccount: {name}, services: [{name}]}}
---
",
            target = place.application_port(name),
            address = place.address(name),
            tunnel = place.tunnel(name).port(),
        );
    }
    text += "# Only shop may call orders: who calls is in the certificate of its proxy.
apiVersion: rhumb.dev/v1alpha1
kind: Policy
metadata: {name: callers-of-orders}
spec:
  targetRefs: [{kind: Service, name: orders}]
  policies:
    authorization:
      rules: [{when: \"source.serviceAccount == 'shop'\"}]
";
    text
}

/// The gateway is a member of the mesh as any other.
fn gateway(place: &Place) -> String {
    let gate = place.gate();
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: web}}
spec:
  gatewayClassName: rhumb
  addresses: [{{value: {address}}}]
  listeners: [{{name: http, port: {port}, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web}}
spec:
  parentRefs: [{{name: web}}]
  rules:
    - backendRefs: [{{kind: Service, name: shop, port: {PORT}}}]
    - matches: [{{path: {{value: /orders}}}}]
      backendRefs: [{{kind: Service, name: orders, port: {PORT}}}]
---
apiVersion: rhumb.dev/v1alpha1
kind: Sidecar
metadata: {{name: {GATE}}}
spec:
  workload: {{serviceAccount: {GATE}}}
  identity: {{certificate: 'file:tls.crt', key: 'file:tls.key', bundle: 'file:ca.crt'}}
",
        address = gate.ip(),
        port = gate.port(),
    )
}
