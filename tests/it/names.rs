//! Hosts that are given by name, and who is asked for them.

use crate::gate::Gate;
use crate::mesh_control::{PEERS, REGISTERED, Site, hop, services};
use rhumb_testkit::cert::Authority;
use rhumb_testkit::process::{Program, Redis, Rhumb, finish, succeed};
use rhumb_testkit::wait;
use std::process::Command;

/// Functions of the C library that load modules of its name service (NSS), of whatever version the machine has, into a
/// program that is linked with another one.
const NAME_SERVICE: [&str; 6] = ["getaddrinfo", "gethostby", "getnameinfo", "getservby", "getgr", "getpw"];

#[test]
fn the_binary_does_not_refer_to_the_name_service_of_the_c_library() {
    let mut command = Command::new("nm");
    command.args(["--dynamic", "--undefined-only", "--format=just-symbols"]).arg(Rhumb::binary());
    let done = finish(command);
    assert_eq!(done.code, Some(0), "{done:?}");
    let is_of_it = |symbol: &&str| NAME_SERVICE.iter().any(|function| symbol.starts_with(function));
    let found: Vec<_> = done.output.lines().filter(is_of_it).collect();
    assert!(found.is_empty(), "{found:?}: ARCHITECTURE.md, \"Deliberately absent\"");
}

#[test]
fn a_captured_workload_finds_its_control_plane_by_name() {
    let mut site = Site::new();
    site.plane_host = "control.example.com".to_owned();
    // Every name below example.com leads to where this runs.
    let (crt, key) = Authority::new("plane").server(&["control.example.com"]).write(&site.path(""), "plane");
    let address = site.plane.address().to_string();
    let mut command = site.plane.command("python3");
    command.arg(format!("{PEERS}/outside_peer.py")).arg(&address).arg(crt).arg(key);
    let server = Program::start(command, &site.path("names.log"));
    wait::until("the name server listens", || server.log().contains("ready").then_some(()));

    site.apply(&services(["web".to_owned()]), &[]);
    let machine = site.network.machine("web");
    machine.nameservers(&[&address]);
    let mut intercept = Rhumb::command();
    intercept.arg("intercept");
    succeed(machine.enter(&intercept));
    let options = ["--capture", "--service", "web", "--port", "80=9000:http"];
    let web = site.start(&machine, "web", "web", &options, &hop("web"));
    wait::until("the workload is registered", || web.program.log().contains(REGISTERED).then_some(()));
    assert!(server.log().contains("asked control.example.com"), "{}", server.log());
}

#[test]
fn a_store_of_limits_is_found_by_name() {
    let redis = Redis::start();
    let url = redis.url().replace("127.0.0.1", "localhost");
    let gate = Gate::with(|config| {
        config.route(&format!(
            "to: peer, policies: {{rateLimit: {{store: {{redis: {{url: '{url}'}}}}, whenStoreIsAway: Refuse, \
             limits: [{{limit: 1000/h}}]}}}}"
        ))
    });
    assert_eq!(gate.connect().get("a.test", "/bytes/1").status(), 200);
    assert!(gate.rhumb.metric("rhumb_store_leases_total", &[]) >= 1.0);
}
