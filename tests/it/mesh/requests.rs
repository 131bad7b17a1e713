//! Requests between workloads: multiplexed between proxies, routed on the caller's side, allowed on the other.

use super::{World, upstream};
use crate::gate::local;
use rhumb_testkit::backend::Backend;
use rhumb_testkit::cert::{Authority, Validity};
use rhumb_testkit::client::{Client, get};
use rhumb_testkit::process::{Rhumb, finish, script, serve_script};
use rhumb_testkit::{port, wait};
use std::path::PathBuf;

#[test]
fn a_call_crosses_both_proxies_and_arrives_as_it_was_sent() {
    let backend = Backend::start();
    let mut world = World::new();
    let orders = world.serve("orders", 8080, ", appProtocol: http", backend.address());
    let server = world.sidecar_of(&orders);
    let (listen, address) = upstream();
    let _caller = world.caller("web", &[(&orders, listen)]);
    let mut client = Client::connect(address);
    for n in 0..20 {
        let response = client.get("orders:8080", &format!("/orders/{n}?a=b"));
        assert_eq!(response.status(), 200, "{}", server.log());
    }
    let response = client.exchange("POST /post HTTP/1.1\r\nHost: orders\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(response.status(), 200);
    let seen = backend.seen();
    assert_eq!(seen.len(), 21);
    let first = &seen[0].message;
    assert_eq!((first.method(), first.target()), ("GET", "/orders/0?a=b"));
    assert_eq!(first.field("Host"), Some("orders:8080"));
    // The mesh is no intermediary for the application.
    assert_eq!(first.field("X-Forwarded-For"), None);
    assert_eq!(seen[20].message.content, b"hello");
    // One connection between the proxies, whatever the number of requests.
    assert_eq!(server.metric("rhumb_tls_handshakes_total", &[]) as u32, 1);
}

#[test]
fn who_calls_is_known_to_the_policies_of_the_service() {
    let backend = Backend::start();
    let mut world = World::new();
    let orders = world.serve("orders", 8080, ", appProtocol: http", backend.address());
    world.add(
        "apiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {name: who}\n\
         spec: {targetRefs: [{kind: Service, name: orders}], policies: {authorization: {rules: [\
         {when: \"source.principal == 'spiffe://cluster.local/ns/default/sa/web'\"}, \
         {when: \"source.namespace == 'default' && source.serviceAccount == 'batch' && request.method == 'GET'\"}]}}}",
    );
    let _server = world.sidecar_of(&orders);
    let calls = |account: &str| {
        let (listen, address) = upstream();
        let _caller = world.caller(account, &[(&orders, listen)]);
        let mut client = Client::connect(address);
        let read = client.get("orders", "/").status();
        let write = client.exchange("POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 0\r\n\r\n").status();
        (read, write)
    };
    assert_eq!(calls("web"), (200, 200));
    assert_eq!(calls("batch"), (200, 403));
    assert_eq!(calls("other"), (403, 403));
}

#[test]
fn nobody_else_gets_in_or_is_believed() {
    let backend = Backend::start();
    let mut world = World::new();
    let orders = world.serve("orders", 8080, ", appProtocol: http", backend.address());
    let server = world.sidecar_of(&orders);
    let status = |world: &World, identity| {
        let (listen, address) = upstream();
        let body = format!("upstreams: [{{service: orders, listen: '127.0.0.1:{listen}'}}]");
        let _caller = world.sidecar("web", &body, &identity);
        get(address, "orders", "/").status()
    };
    assert_eq!(status(&world, world.identity("web")), 200);
    let mut command = Rhumb::command();
    command.args(["check", "-c"]);
    let dir = tempfile::tempdir().expect("a directory");
    world.write(dir.path(), "web", "upstreams: []", port::free());
    std::fs::write(dir.path().join("bundle.pem"), world.authority.pem()).expect("a file");
    // An expired identity, and one of another trust domain, are not even taken from files.
    let web = "spiffe://cluster.local/ns/default/sa/web";
    for identity in [
        world.authority.workload_valid(web, Validity::Expired),
        world.authority.workload("spiffe://elsewhere.test/ns/default/sa/web"),
        Authority::new("stranger").workload(web),
    ] {
        identity.write(dir.path(), "workload");
        let mut check = Rhumb::command();
        check.arg("check").arg("-c").arg(dir.path());
        let finished = finish(check);
        assert_eq!(finished.code, Some(3), "{}", finished.output);
        assert!(finished.output.contains("this identity cannot be used"), "{}", finished.output);
    }
    // Plain text to the proxy is refused, and so is TLS without a certificate.
    let mut plain = Client::connect(local(orders.tunnel));
    let _ = plain.try_send("GET / HTTP/1.1\r\nHost: orders\r\n\r\n");
    let answer = plain.read_to_end();
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(backend.seen().len(), 1);
    // A server that is not who the Workload says is not believed.
    let impostor = world.sidecar(
        "orders",
        &format!(
            "tunnel: '127.0.0.1:{}', inbound: [{{service: orders, port: 8080, target: '{}'}}]",
            port::free(),
            orders.target
        ),
        &world.identity("impostor"),
    );
    drop(impostor);
    drop(server);
}

#[test]
fn routes_of_a_service_are_obeyed_by_its_callers() {
    let (stable, canary) = (Backend::named("stable"), Backend::named("canary"));
    let mut world = World::new();
    let orders = world.serve("orders", 8080, ", appProtocol: http", stable.address());
    let new = world.serve("orders-new", 8080, ", appProtocol: http", canary.address());
    world.add(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: orders}\n\
         spec: {parentRefs: [{group: '', kind: Service, name: orders}], rules: [\
         {matches: [{path: {type: PathPrefix, value: /new}}], backendRefs: [{name: orders-new, port: 8080}]}, \
         {matches: [{path: {type: PathPrefix, value: /orders}}], backendRefs: [{name: orders, port: 8080}]}]}",
    );
    let _servers = [world.sidecar_of(&orders), world.sidecar_of(&new)];
    let (listen, address) = upstream();
    let _caller = world.caller("web", &[(&orders, listen)]);
    let mut client = Client::connect(address);
    assert_eq!(client.get("orders", "/orders/1").status(), 200);
    assert_eq!(client.get("orders", "/new/1").status(), 200);
    assert_eq!(client.get("orders", "/elsewhere").status(), 404);
    assert_eq!((stable.seen().len(), canary.seen().len()), (1, 1));
}

fn grpc_peer() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/peers/grpc_peer.py").into()
}

#[test]
fn grpc_calls_of_every_kind_cross_both_proxies() {
    let dir = tempfile::tempdir().expect("a directory");
    let server_port = port::free();
    let _peer = serve_script(&grpc_peer(), &["server"], server_port, &dir.path().join("server.log"));
    let mut world = World::new();
    let echo = world.serve("echo", 50051, ", appProtocol: grpc", local(server_port));
    world.add(&format!(
        "apiVersion: rhumb.dev/v1alpha1\nkind: Backend\nmetadata: {{name: gone}}\n\
         spec: {{endpoints: ['127.0.0.1:{}'], protocol: h2c}}",
        port::free()
    ));
    for (name, service, backend) in [
        ("echo", "test.Echo", "{name: echo, port: 50051}"),
        ("gone", "test.Gone", "{group: rhumb.dev, kind: Backend, name: gone}"),
    ] {
        world.add(&format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: {name}}}\n\
             spec: {{parentRefs: [{{group: '', kind: Service, name: echo}}], rules: [\
             {{matches: [{{method: {{service: {service}}}}}], backendRefs: [{backend}]}}]}}"
        ));
    }
    let _server = world.sidecar_of(&echo);
    let (listen, address) = upstream();
    let _caller = world.caller("web", &[(&echo, listen)]);
    let finished =
        finish(script(&grpc_peer(), &["client", &address.to_string(), &local(server_port).to_string()]));
    let passed = finished.output.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(finished.code == Some(0) && passed >= 17, "{}", finished.output);
}

#[test]
fn a_changed_policy_holds_for_the_next_request_on_the_same_connection() {
    let backend = Backend::start();
    let mut world = World::new();
    let orders = world.serve("orders", 8080, ", appProtocol: http", backend.address());
    let server = world.sidecar_of(&orders);
    let (listen, address) = upstream();
    let _caller = world.caller("web", &[(&orders, listen)]);
    let mut client = Client::connect(address);
    assert_eq!(client.get("orders", "/").status(), 200);
    world.add(
        "apiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {name: nobody}\n\
         spec: {targetRefs: [{kind: Service, name: orders}], policies: {authorization: {rules: [\
         {when: \"source.serviceAccount == 'nobody'\"}]}}}",
    );
    let admin = server.admin_address().port();
    let body = format!(
        "tunnel: '127.0.0.1:{}', inbound: [{{service: orders, port: 8080, target: '{}'}}]",
        orders.tunnel, orders.target
    );
    world.write(server.dir(), "orders", &body, admin);
    wait::until("the policy holds", || (client.get("orders", "/").status() == 403).then_some(()));
}

#[test]
fn workloads_without_a_proxy_are_called_beside_others_and_by_a_gateway() {
    let (meshed, plain) = (Backend::named("meshed"), Backend::named("plain"));
    let mut world = World::new();
    let orders = world.serve("orders", 8080, ", targetPort: app, appProtocol: http", meshed.address());
    world.documents =
        world.documents.replace("ports: {}", &format!("ports: {{app: {}}}", meshed.address().port()));
    world.workload(
        "outside",
        "orders",
        &format!("ports: {{app: {}}}, mtls: none", plain.address().port()),
        plain.address(),
        8080,
    );
    let gateway = port::free();
    world.add(&format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\n\
         spec: {{gatewayClassName: rhumb, addresses: [{{value: 127.0.0.1}}], \
         listeners: [{{name: web, port: {gateway}, protocol: HTTP}}]}}"
    ));
    world.add(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: edge}\n\
         spec: {parentRefs: [{name: edge}], rules: [{backendRefs: [{name: orders, port: 8080}]}]}",
    );
    let served = world.identity("orders");
    let _server = world.sidecar(
        "orders",
        &format!(
            "tunnel: '127.0.0.1:{}', inbound: [{{service: orders, port: 8080, target: '{}'}}]",
            orders.tunnel, orders.target
        ),
        &served,
    );
    // The gateway listens in every process of this test; the one that calls is the first to have the port.
    let mut client = Client::connect(local(gateway));
    for _ in 0..40 {
        assert_eq!(client.get("edge.test", "/").status(), 200);
    }
    assert!(!meshed.seen().is_empty() && !plain.seen().is_empty());
    let forwarded = |backend: &Backend| backend.seen()[0].message.field("X-Forwarded-For").map(str::to_owned);
    assert_eq!((forwarded(&meshed), forwarded(&plain)), (Some("127.0.0.1".into()), Some("127.0.0.1".into())));
}
