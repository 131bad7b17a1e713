//! What is left of a gRPC caller's time, over several services.

use super::{Served, World, upstream};
use crate::gate::local;
use rhumb_testkit::process::{Program, Rhumb, finish, script, serve_script};
use rhumb_testkit::{port, wait};
use std::net::SocketAddr;
use std::path::PathBuf;

fn peer() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/peers/grpc_peer.py").into()
}

fn ask(address: SocketAddr, method: &str, seconds: &str) -> String {
    finish(script(&peer(), &["ask", &address.to_string(), method, "", seconds])).output.trim().to_owned()
}

/// A gateway, the service `front` that calls `back`, and `back`.
struct Chain {
    gateway: SocketAddr,
    /// The application of `back` itself.
    back: SocketAddr,
    front: Program,
    proxies: Vec<Rhumb>,
    _back: Program,
    _dir: tempfile::TempDir,
}

/// `more` is what else the gateway's rule says.
fn chain(more: &str) -> Chain {
    let dir = tempfile::tempdir().expect("a directory");
    let (back_port, front_port, gateway) = (port::free(), port::free(), port::free());
    let (listen, address) = upstream();
    let back_app = serve_script(&peer(), &["server"], back_port, &dir.path().join("back.log"));
    let front_log = dir.path().join("front.log");
    let front_app = serve_script(&peer(), &["relay", &address.to_string()], front_port, &front_log);
    let mut world = World::new();
    let front = world.serve("front", 8080, ", appProtocol: grpc", local(front_port));
    let back = world.serve("back", 8080, ", appProtocol: grpc", local(back_port));
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
    let (gateway, back) = (local(gateway), local(back_port));
    Chain { gateway, back, front: front_app, proxies, _back: back_app, _dir: dir }
}

impl Chain {
    /// Calls of `Hang` that have begun at the last service, and those that have ended.
    fn hangs(&self) -> (u32, u32) {
        let told = ask(self.back, "Hangs", "30");
        let mut numbers = told.split_whitespace().filter_map(|word| word.parse().ok());
        (numbers.next().expect("how many began"), numbers.next().expect("how many ended"))
    }

    fn logs(&self) -> String {
        let proxies: Vec<_> = self.proxies.iter().map(Rhumb::log).collect();
        format!("{}\n---\n{}", self.front.log(), proxies.join("\n---\n"))
    }

    /// A call that nobody answers ends everywhere when its time is over.
    fn ends_everywhere(&self, seconds: &str) {
        let (begun, ended) = self.hangs();
        assert_eq!(begun, ended);
        let told = ask(self.gateway, "Hang", seconds);
        assert!(told.starts_with("DEADLINE_EXCEEDED"), "{told}\n{}", self.logs());
        wait::until("the service between them hears of it", || {
            self.front.log().contains("relayed /test.Echo/Hang DEADLINE_EXCEEDED").then_some(())
        });
        wait::until("the last service has ended its work", || {
            let (now, ended) = self.hangs();
            (now == ended).then_some(())
        });
    }
}

#[test]
fn the_time_of_a_grpc_call_shrinks_from_service_to_service_and_its_end_is_the_same_for_all() {
    let chain = chain("");
    let told = ask(chain.gateway, "Remaining", "30");
    let left = told.strip_prefix("OK ").and_then(|left| left.parse::<f64>().ok());
    assert!(left.is_some_and(|left| (0.0..30.0).contains(&left)), "{told}\n{}", chain.logs());
    chain.ends_everywhere("3");
}

#[test]
fn a_time_limit_of_the_gateway_is_that_of_every_service_behind_it() {
    let chain = chain(", timeouts: {request: 20s}");
    let told = ask(chain.gateway, "Remaining", "100");
    let left = told.strip_prefix("OK ").and_then(|left| left.parse::<f64>().ok());
    assert!(left.is_some_and(|left| (0.0..20.5).contains(&left)), "{told}\n{}", chain.logs());
    let chain = self::chain(", timeouts: {request: 3s}");
    chain.ends_everywhere("100");
}
