//! What is under way when policies change.

use super::{Served, World, upstream};
use crate::l4::{Peer, connect, read_exact};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::client::Client;
use rhumb_testkit::message::Kind;
use rhumb_testkit::process::Rhumb;
use rhumb_testkit::wait;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// Writes the documents of a service's proxy once more, with what was added meanwhile.
fn rewrite(world: &World, server: &Rhumb, served: &Served) {
    let body = format!(
        "tunnel: '127.0.0.1:{}', inbound: [{{service: {}, port: {}, target: '{}'}}]",
        served.tunnel, served.service, served.port, served.target
    );
    world.write(server.dir(), served.service, &body, server.admin_address().port());
}

fn only(world: &mut World, service: &str, account: &str) {
    world.add(&format!(
        "apiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {{name: only-{account}}}\n\
         spec: {{targetRefs: [{{kind: Service, name: {service}}}], policies: {{authorization: {{rules: [\
         {{when: \"source.serviceAccount == '{account}'\"}}]}}}}}}"
    ));
}

/// True once the other side has ended a connection, whatever still comes before.
fn has_ended(client: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    client.set_nonblocking(true).expect("a socket");
    loop {
        match client.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn connections_that_are_no_longer_allowed_end_and_others_go_on() {
    let peer = Peer::echo("hello");
    let mut world = World::new();
    let db = world.serve("db", 5432, ", appProtocol: tcp", peer.address);
    let server = world.sidecar_of(&db);
    let [(one, web), (two, batch)] = [upstream(), upstream()];
    let _callers = [world.caller("web", &[(&db, one)]), world.caller("batch", &[(&db, two)])];
    let (mut web, mut batch) = (connect(web), connect(batch));
    assert_eq!((read_exact(&web, 5), read_exact(&batch, 5)), (b"hello".to_vec(), b"hello".to_vec()));
    only(&mut world, "db", "web");
    rewrite(&world, &server, &db);
    wait::until("the connection is cut", || has_ended(&mut batch).then_some(()));
    web.write_all(b"still").expect("a write");
    assert_eq!(read_exact(&web, 5), b"still");
    assert_eq!(server.metric("rhumb_mesh_ended_total", &["reason=\"denied\""]) as u32, 1);
}

#[test]
fn requests_that_are_no_longer_allowed_end_and_others_on_the_same_connection_go_on() {
    let backend = Backend::start();
    let mut world = World::new();
    let orders = world.serve("orders", 8080, ", appProtocol: http", backend.address());
    let server = world.sidecar_of(&orders);
    let (listen, address) = upstream();
    let _caller = world.caller("web", &[(&orders, listen)]);
    // One waits for its response, one is in the midst of it; both are streams of one connection.
    let (mut held, mut part, mut other) =
        (Client::connect(address), Client::connect(address), Client::connect(address));
    held.send("GET /hold/a HTTP/1.1\r\nHost: orders\r\n\r\n");
    part.send("GET /part/100000/b HTTP/1.1\r\nHost: orders\r\n\r\n");
    other.send("GET /hold/c HTTP/1.1\r\nHost: orders\r\nX-Keep: yes\r\n\r\n");
    for target in ["/hold/a", "/part/100000/b", "/hold/c"] {
        backend.wait_for(target);
    }
    world.add(
        "apiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {name: keep}\n\
         spec: {targetRefs: [{kind: Service, name: orders}], policies: {authorization: {rules: [\
         {when: \"'x-keep' in request.headers\"}]}}}",
    );
    rewrite(&world, &server, &orders);
    // Nobody releases these: only the change ends them.
    assert_eq!(held.response().status(), 403);
    assert!(part.try_response(Kind::Response).is_err(), "half of it is not taken for all");
    backend.release("c");
    assert_eq!(other.response().status(), 200);
    for name in ["a", "b"] {
        backend.release(name);
    }
    assert_eq!(server.metric("rhumb_mesh_ended_total", &["reason=\"denied\""]) as u32, 2);
    assert_eq!(server.metric("rhumb_tls_handshakes_total", &[]) as u32, 1);
}

/// The documents of a caller, with what they say now.
fn rewrite_caller(documents: &str, caller: &Rhumb, service: &str, port: u16, listen: u16) {
    let path = caller.dir().join("mesh.yaml");
    let before = std::fs::read_to_string(&path).expect("the documents");
    let own = before.split("---\napiVersion: v1").next().expect("its own documents");
    assert!(
        own.contains(&format!("service: {service}, port: {port}, listen: '127.0.0.1:{listen}'")),
        "{own}"
    );
    let fresh = caller.dir().join("mesh.yaml.new");
    std::fs::write(&fresh, format!("{own}{documents}")).expect("a file");
    std::fs::rename(&fresh, path).expect("a rename");
}

#[test]
fn callers_leave_a_server_that_is_no_longer_one_of_those_of_the_service() {
    let peer = Peer::echo("hello");
    let mut world = World::new();
    let db = world.serve("db", 5432, ", appProtocol: tcp", peer.address);
    let _server = world.sidecar_of(&db);
    let (listen, address) = upstream();
    let caller = world.caller("web", &[(&db, listen)]);
    let mut client = connect(address);
    assert_eq!(read_exact(&client, 5), b"hello");
    // From here on the Workload is somebody else; whoever is at its address is not whom callers are to talk to.
    let documents = world.documents.replace("serviceAccount: db", "serviceAccount: other");
    let documents = documents.trim_start_matches("---\n");
    rewrite_caller(&format!("---\n{documents}"), &caller, "db", 5432, listen);
    wait::until("the connection is cut", || has_ended(&mut client).then_some(()));
    assert_eq!(caller.metric("rhumb_mesh_ended_total", &["reason=\"server\""]) as u32, 1, "{}", caller.log());
    assert_eq!(connect(address).read(&mut [0; 9]).unwrap_or(0), 0);
}
