//! Proxies that get their certificates from an issuer.

use std::path::Path;

use crate::gate::local;
use rhumb_testkit::backend::Backend;
use rhumb_testkit::client::{Client, get};
use rhumb_testkit::process::{Program, Rhumb, serve, succeed};
use rhumb_testkit::{port, wait};

/// An issuer, and the directory of its authority.
struct Issuer {
    dir: tempfile::TempDir,
    port: u16,
    _program: Program,
}

impl Issuer {
    fn start() -> Self {
        let (dir, port) = (tempfile::tempdir().expect("a directory"), port::free());
        let mut command = Rhumb::command();
        command
            .args(["issuer", "--listen", &local(port).to_string(), "--authority"])
            .arg(dir.path().join("ca"));
        let program = serve(command, port, &dir.path().join("log"));
        Self { dir, port, _program: program }
    }

    fn verb(&self, args: &[&str]) -> String {
        let mut command = Rhumb::command();
        command.args(args).arg("--authority").arg(self.dir.path().join("ca"));
        succeed(command)
    }

    /// A proxy whose certificates come from here.
    fn sidecar(&self, account: &str, body: &str, documents: &str) -> Rhumb {
        let dir = tempfile::tempdir().expect("a directory");
        let told = self.verb(&["token", "create", "--service-account", account]);
        let token = told.lines().find(|line| line.starts_with("rhumb-join-")).expect("a token");
        std::fs::write(dir.path().join("token"), token).expect("a file");
        let admin = port::free();
        let text = format!(
            "apiVersion: rhumb.dev/v1alpha1\nkind: ProxyConfig\nmetadata: {{name: process}}\n\
             spec: {{workers: 1, admin: {{address: '127.0.0.1:{admin}'}}}}\n---\n\
             apiVersion: rhumb.dev/v1alpha1\nkind: Sidecar\nmetadata: {{name: {account}}}\n\
             spec: {{{body}, identity: {{control: {{addresses: ['127.0.0.1:{}'], token: 'file:token', \
             stateDirectory: '{}'}}}}}}\n{documents}",
            self.port,
            dir.path().join("state").display(),
        );
        std::fs::write(dir.path().join("mesh.yaml"), text).expect("a file");
        Rhumb::start_on(dir, "mesh.yaml", admin)
    }
}

fn status(address: std::net::SocketAddr) -> u16 {
    Client::connect(address).get("orders:8080", "/").status()
}

fn shown(dir: &Path) -> String {
    let mut command = Rhumb::command();
    command.args(["cert", "show"]).arg(dir.join("state"));
    succeed(command)
}

#[test]
fn proxies_join_with_tokens_and_one_that_is_revoked_is_cut_off() {
    let issuer = Issuer::start();
    let backend = Backend::start();
    let (tunnel, listen) = (port::free(), port::free());
    let target = backend.address();
    let documents = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: orders}}\n\
         spec: {{ports: [{{port: 8080, appProtocol: http}}]}}\n---\n\
         apiVersion: rhumb.dev/v1alpha1\nkind: Workload\nmetadata: {{name: orders}}\n\
         spec: {{address: {}, serviceAccount: orders, services: [orders], tunnelPort: {tunnel}}}\n",
        target.ip()
    );
    let inbound = format!(
        "tunnel: '127.0.0.1:{tunnel}', inbound: [{{service: orders, port: 8080, target: '{target}'}}]"
    );
    let server = issuer.sidecar("orders", &inbound, &documents);
    let upstreams = format!("upstreams: [{{service: orders, port: 8080, listen: '127.0.0.1:{listen}'}}]");
    let caller = issuer.sidecar("web", &upstreams, &documents);
    let address = local(listen);
    wait::until("both have joined", || (status(address) == 200).then_some(()));
    assert!(shown(caller.dir()).contains("spiffe://cluster.local/ns/default/sa/web"));
    let expiry = "rhumb_svid_expiry_timestamp_seconds";
    assert!(caller.metric(expiry, &["spiffe://cluster.local/ns/default/sa/web"]) > 0.0);
    wait::until("the server follows", || (server.metric("rhumb_trust_followed", &[]) == 1.0).then_some(()));

    // Another service goes on; what the caller has open does not.
    issuer.verb(&["cert", "revoke", "spiffe://cluster.local/ns/default/sa/web"]);
    wait::until("the caller is cut off", || (status(address) != 200).then_some(()));
    for _ in 0..5 {
        let status = status(address);
        assert!(status >= 500, "{status}: {}", caller.log());
    }
}

#[test]
fn callers_cut_their_connections_to_a_server_that_is_revoked() {
    let issuer = Issuer::start();
    let peer = crate::l4::Peer::echo("hello");
    let (tunnel, listen) = (port::free(), port::free());
    let target = peer.address;
    let documents = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: db}}\n\
         spec: {{ports: [{{port: 5432, appProtocol: tcp}}]}}\n---\n\
         apiVersion: rhumb.dev/v1alpha1\nkind: Workload\nmetadata: {{name: db}}\n\
         spec: {{address: {}, serviceAccount: db, services: [db], tunnelPort: {tunnel}}}\n",
        target.ip()
    );
    let inbound =
        format!("tunnel: '127.0.0.1:{tunnel}', inbound: [{{service: db, port: 5432, target: '{target}'}}]");
    let _server = issuer.sidecar("db", &inbound, &documents);
    let upstreams = format!("upstreams: [{{service: db, port: 5432, listen: '127.0.0.1:{listen}'}}]");
    let caller = issuer.sidecar("web", &upstreams, &documents);
    // Two connections in streams of one.
    let open = || {
        wait::until("both have joined", || {
            let client = crate::l4::connect(local(listen));
            let mut first = [0; 5];
            let read = std::io::Read::read_exact(&mut &client, &mut first);
            (read.is_ok() && &first == b"hello").then_some(client)
        })
    };
    let clients = [open(), open()];
    wait::until("the caller follows", || (caller.metric("rhumb_trust_followed", &[]) == 1.0).then_some(()));
    issuer.verb(&["cert", "revoke", "spiffe://cluster.local/ns/default/sa/db"]);
    for client in &clients {
        crate::l4::ended(client);
    }
    assert_eq!(caller.metric("rhumb_mesh_ended_total", &["reason=\"server\""]) as u32, 1, "{}", caller.log());
}

#[test]
fn a_proxy_is_ready_when_it_has_its_identity_and_says_what_is_missing_until_then() {
    let dir = tempfile::tempdir().expect("a directory");
    let (admin, issuer) = (port::free(), port::free());
    let ca = dir.path().join("ca");
    let begin = || {
        let mut command = Rhumb::command();
        command.args(["issuer", "--listen", &local(issuer).to_string(), "--authority"]).arg(&ca);
        serve(command, issuer, &dir.path().join("issuer.log"))
    };
    // It makes its authority and is gone; the token is from there.
    drop(begin());
    let mut command = Rhumb::command();
    command.args(["token", "create", "--service-account", "web", "--authority"]).arg(&ca);
    let told = succeed(command);
    let token = told.lines().find(|line| line.starts_with("rhumb-join-")).expect("a token");
    std::fs::write(dir.path().join("join"), token).expect("a file");
    let text = format!(
        "apiVersion: rhumb.dev/v1alpha1\nkind: ProxyConfig\nmetadata: {{name: process}}\n\
         spec: {{workers: 1, admin: {{address: '127.0.0.1:{admin}'}}}}\n---\n\
         apiVersion: rhumb.dev/v1alpha1\nkind: Sidecar\nmetadata: {{name: web}}\n\
         spec: {{identity: {{control: {{addresses: ['127.0.0.1:{issuer}'], token: 'file:join', \
         stateDirectory: '{}'}}}}}}\n",
        dir.path().join("state").display(),
    );
    std::fs::write(dir.path().join("mesh.yaml"), text).expect("a file");
    let mut command = Rhumb::command();
    command.arg("run").arg("-c").arg(dir.path().join("mesh.yaml"));
    command.arg("--admin-token-file").arg(dir.path().join("token"));
    let _proxy = Program::start(command, &dir.path().join("log"));
    let ask = |path: &str| {
        std::net::TcpStream::connect(local(admin))
            .is_ok()
            .then(|| get(local(admin), &local(admin).to_string(), path))
    };
    let told = wait::until("it says what is missing", || {
        let answer = ask("/readyz?verbose")?;
        let text = String::from_utf8_lossy(&answer.content).into_owned();
        (answer.status() == 503 && text.contains("identity: there is no certificate yet: ")).then_some(text)
    });
    assert!(told.starts_with("starting\n"), "{told}");
    let mut command = Rhumb::command();
    command
        .args(["status", "--admin", &local(admin).to_string(), "--admin-token-file"])
        .arg(dir.path().join("token"));
    let status = succeed(command);
    assert!(status.contains("waits for   identity: there is no certificate yet"), "{status}");
    let _issuer = begin();
    wait::until("it is ready", || ask("/readyz").filter(|answer| answer.status() == 200));
    assert_eq!(ask("/readyz?verbose").expect("an answer").content, b"ready\n");
}
