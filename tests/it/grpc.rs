//! gRPC with grpcio on both sides.

use crate::gate::local;
use rhumb_testkit::cert::Authority;
use rhumb_testkit::config::Config;
use rhumb_testkit::port;
use rhumb_testkit::process::{Rhumb, finish, script, serve_script};
use std::path::PathBuf;

fn peer() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/peers/grpc_peer.py").into()
}

/// Plain HTTP/2 with prior knowledge to the backend; the listener as `listener` says.
fn run(
    listener: impl FnOnce(Config, u16) -> Config,
    ca: Option<&Authority>,
    prepare: impl FnOnce(&std::path::Path),
) {
    let dir = tempfile::tempdir().expect("a directory");
    let (server_port, port, gone) = (port::free(), port::free(), port::free());
    let _server = serve_script(&peer(), &["server"], server_port, &dir.path().join("server.log"));
    let config = listener(Config::new(), port)
        .backend("grpc", &format!("endpoints: ['127.0.0.1:{server_port}'], protocol: h2c"))
        .backend("gone", &format!("endpoints: ['127.0.0.1:{gone}'], protocol: h2c"))
        .route("match: {path: /test.Echo/*}, to: grpc")
        .route("match: {path: /test.Gone/*}, to: gone");
    let _rhumb = Rhumb::start_with(&config, prepare);
    let (address, direct) = (local(port).to_string(), local(server_port).to_string());
    let mut args = vec!["client", &address, &direct];
    let ca_file = dir.path().join("ca.crt").display().to_string();
    if let Some(ca) = ca {
        std::fs::write(&ca_file, ca.pem()).expect("a file");
        args.push(&ca_file);
    }
    let finished = finish(script(&peer(), &args));
    let passed = finished.output.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(finished.code == Some(0) && passed >= 17, "{}", finished.output);
}

#[test]
fn calls_of_every_kind_pass_without_tls() {
    run(|config, port| config.listener("web", port, ""), None, |_| ());
}

#[test]
fn calls_of_every_kind_pass_over_tls() {
    let ca = Authority::new("test");
    let identity = ca.server(&["a.test"]);
    run(
        |config, port| config.listener("web", port, "tls: {certificates: [{cert: web.crt, key: web.key}]}"),
        Some(&ca),
        |dir| drop(identity.write(dir, "web")),
    );
}
