//! Workloads that join with the token of their Kubernetes service account. The cluster is what its API server says.

use crate::gate::local;
use rhumb_testkit::cert::Authority;
use rhumb_testkit::client::get;
use rhumb_testkit::process::{Program, Rhumb, script, serve, succeed};
use rhumb_testkit::{port, wait};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A cluster, and a control plane that takes its tokens.
struct Site {
    dir: TempDir,
    /// Of the API server.
    cluster: u16,
    listen: u16,
    admin: u16,
    control: Program,
}

impl Site {
    /// The control plane runs; the API server does not.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        let authority = Authority::new("cluster");
        std::fs::write(path("cluster-ca.pem"), authority.pem()).expect("a file");
        authority.server(&["localhost"]).write(dir.path(), "cluster");
        std::fs::write(path("own-token"), "of-the-control-plane\n").expect("a file");
        std::fs::create_dir(path("keys")).expect("a directory");
        let (cluster, listen, admin) = (port::free(), port::free(), port::free());
        let mut command = Rhumb::command();
        command.args([
            "control",
            "--listen",
            &local(listen).to_string(),
            "--admin",
            &local(admin).to_string(),
        ]);
        command.arg("--directory").arg(path("store")).arg("--authority").arg(path("authority"));
        command.arg("--admin-token-file").arg(path("admin-token"));
        command.args(["--kubernetes-issuer", &format!("https://localhost:{cluster}")]);
        command.arg("--kubernetes-ca").arg(path("cluster-ca.pem"));
        command.arg("--kubernetes-token").arg(path("own-token"));
        let control = serve(command, listen, &path("control.log"));
        let site = Self { cluster, listen, admin, control, dir };
        let mut bundle = Rhumb::command();
        bundle.args(["cert", "bundle", "--authority"]).arg(site.path("authority"));
        std::fs::write(site.path("ca.crt"), succeed(bundle)).expect("a file");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the script of the cluster does with its directory.
    fn peer(&self, does: &str, args: &[&str]) -> std::process::Command {
        let keys = self.path("keys").display().to_string();
        let peer = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/cluster_peer.py");
        script(Path::new(peer), &[&[does, &keys], args].concat())
    }

    fn publish(&self, keys: &[&str]) {
        succeed(self.peer("publish", keys));
    }

    fn start_cluster(&self) -> Program {
        let file = |name: &str| self.path(name).display().to_string();
        let args = [file("cluster.crt"), file("cluster.key"), self.cluster.to_string()];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        serve(self.peer("serve", &args), self.cluster, &self.path("cluster.log"))
    }

    /// A workload with a token that was signed with a key.
    fn start(&self, account: &str, key: &str) -> Program {
        let issuer = format!("https://localhost:{}", self.cluster);
        let home = self.path(account);
        std::fs::create_dir(&home).expect("a directory");
        let token = succeed(self.peer("token", &[key, &issuer, account]));
        std::fs::write(home.join("token"), token).expect("a file");
        let mut command = Rhumb::command();
        command.args(["sidecar", "--control", &local(self.listen).to_string()]);
        command.args(["--service-account", account, "--workload", account]).arg("--service-account-token");
        command.arg(home.join("token")).arg("--bundle").arg(self.path("ca.crt"));
        command.arg("--state").arg(home.join("state")).arg("--admin-token-file").arg(home.join("admin"));
        command.args(["--", "sleep", "600"]);
        Program::start(command, &home.join("log"))
    }

    /// Waits until somebody has a certificate, given for a token of the cluster.
    fn joins(&self, account: &str, program: &Program) {
        let id = format!("spiffe://cluster.local/ns/default/sa/{account}");
        let joined = wait::poll(wait::LIMIT, || {
            let log = self.control.log();
            let is_of = |line: &str| line.contains("SVID issued") && line.contains(&id);
            log.lines().any(is_of).then_some(())
        });
        assert!(joined.is_some(), "{account}: {}\n---\n{}", self.control.log(), program.log());
    }

    /// Waits until the control plane has said something more often than `before`.
    fn says(&self, what: &str, before: usize) {
        wait::until(what, || (self.control.log().matches(what).count() > before).then_some(()));
    }

    fn fetches(&self, result: &str) -> bool {
        let metrics = get(local(self.admin), "localhost", "/metrics").text();
        let name = format!("rhumb_jwks_fetches_total{{result=\"{result}\"}} ");
        let counted = metrics.lines().find_map(|line| line.strip_prefix(&*name)?.parse::<f64>().ok());
        counted.is_some_and(|counted| counted > 0.0)
    }
}

#[test]
fn service_accounts_join_with_keys_as_the_cluster_has_them_and_nobody_does_while_these_are_not_known() {
    let site = Site::new();
    site.publish(&["first"]);
    let orders = site.start("orders", "first");
    site.says("the keys of the cluster are not known yet", 0);
    site.says("the keys of the cluster cannot be fetched", 0);
    assert!(site.fetches("failed"));

    // It comes up: the workload, which goes on trying, is let in.
    let cluster = site.start_cluster();
    site.joins("orders", &orders);
    assert!(site.fetches("ok"));

    // Another key, and the first one is gone: nobody starts the control plane anew.
    site.publish(&["second"]);
    let stock = site.start("stock", "second");
    site.joins("stock", &stock);
    let gone = "the token names a key that is not among those of the cluster";
    let before = site.control.log().matches(gone).count();
    let _late = site.start("late", "first");
    site.says(gone, before);
    assert!(!site.control.log().contains("sa/late"));
    drop(cluster);
}
