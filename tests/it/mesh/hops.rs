//! Several hops: what a caller has left of time and retries, and what travels through all of them.

use super::{Served, World, upstream};
use crate::gate::{local, seen};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::client::get;
use rhumb_testkit::port;
use rhumb_testkit::process::{Program, Rhumb, finish, script, serve_script};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn peer(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}

/// Client, gateway, the service `front` that calls `back`, and `back`.
struct Chain {
    backend: Backend,
    gateway: SocketAddr,
    proxies: Vec<Rhumb>,
    _front: Program,
    _dir: TempDir,
}

/// How each caller retries; `more` is what else the gateway's route says.
fn chain(retry: &str, more: &str) -> Chain {
    let (dir, backend) = (tempfile::tempdir().expect("a directory"), Backend::start());
    let (app, listen, gateway) = (port::free(), port::free(), port::free());
    let program = serve_script(
        &peer("relay_app.py"),
        &[&format!("http://127.0.0.1:{listen}/")],
        app,
        &dir.path().join("front.log"),
    );
    let mut world = World::new();
    let front = world.serve("front", 8080, ", appProtocol: http", local(app));
    let back = world.serve("back", 8080, ", appProtocol: http", backend.address());
    for service in ["front", "back"] {
        world.add(&format!(
            "apiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {{name: {service}}}\n\
             spec: {{targetRefs: [{{kind: Service, name: {service}}}], policies: {{retry: {retry}}}}}"
        ));
    }
    let Served { tunnel, target, .. } = &front;
    let body = format!(
        "tunnel: '127.0.0.1:{tunnel}', inbound: [{{service: front, port: 8080, target: '{target}'}}], \
         upstreams: [{{service: back, listen: '127.0.0.1:{listen}'}}]"
    );
    let mut proxies = vec![world.sidecar("front", &body, &world.identity("front")), world.sidecar_of(&back)];
    world.add(&format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\n\
         spec: {{gatewayClassName: rhumb, addresses: [{{value: 127.0.0.1}}], \
         listeners: [{{name: web, port: {gateway}, protocol: HTTP}}]}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: edge}}\n\
         spec: {{parentRefs: [{{name: edge}}], rules: [{{backendRefs: [{{name: front, port: 8080}}]{more}}}]}}"
    ));
    proxies.push(world.sidecar("edge", "upstreams: []", &world.identity("edge")));
    Chain { backend, gateway: local(gateway), proxies, _front: program, _dir: dir }
}

#[test]
fn retries_do_not_multiply_over_the_hops_of_a_request() {
    let chain = chain("{attempts: 2, codes: [503], backOff: {base: 1ms}}", "");
    assert_eq!(get(chain.gateway, "edge", "/status/503").status(), 503);
    // Each of two callers alone would make 3 of 1, together 9.
    let seen = chain.backend.seen().len();
    assert!((2..=3).contains(&seen), "{seen} attempts: {}", chain.proxies[0].log());
}

#[test]
fn the_time_that_a_caller_has_shrinks_from_hop_to_hop() {
    let chain = chain("{attempts: 1}", ", timeouts: {request: 20s}");
    let answer = get(chain.gateway, "edge", "/any");
    assert_eq!(answer.status(), 200);
    let told = seen(&answer, "x-request-deadline").expect("the last service is told");
    let millis = told.strip_suffix("ms").and_then(|millis| millis.parse::<u32>().ok());
    assert!(millis.is_some_and(|millis| (1..20_000).contains(&millis)), "{told}");
    // Over before anybody answers: the gateway says so, and nobody waits on behind it.
    let chain = self::chain("{attempts: 1}", ", timeouts: {request: 300ms}");
    assert_eq!(get(chain.gateway, "edge", "/hold/late").status(), 504);
    chain.backend.release("late");
}

#[test]
fn websockets_cross_both_proxies() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = port::free();
    let _server = serve_script(&peer("websocket_peer.py"), &["server"], server, &dir.path().join("log"));
    let mut world = World::new();
    let chat = world.serve("chat", 8080, ", appProtocol: http", local(server));
    let _proxy = world.sidecar_of(&chat);
    let (listen, address) = upstream();
    let _caller = world.caller("web", &[(&chat, listen)]);
    let finished = finish(script(&peer("websocket_peer.py"), &["client", &address.to_string()]));
    let passed = finished.output.lines().filter(|line| line.starts_with("ok ")).count();
    // Here every path leads to the service: what the peer wants to see refused is its own to answer.
    let failed =
        finished.output.lines().find(|line| line.starts_with("FAILED ") && !line.contains("no_route"));
    assert!(passed >= 11 && failed.is_none(), "{}", finished.output);
}
