//! Connections that leave the mesh from where they are made: for as long as the Mesh lets them.

use super::{World, upstream};
use crate::l4::{Peer, connect, ended, read_exact};
use rhumb_testkit::port;
use rhumb_testkit::process::Rhumb;
use rhumb_testkit::wait;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

/// What a workload does that calls something out of the mesh.
fn calls(outside: SocketAddr, listen: u16) -> String {
    format!("upstreams: [{{host: '{outside}', listen: '127.0.0.1:{listen}'}}]")
}

/// The Mesh document with this spec, and nothing else.
fn of_mesh(spec: &str) -> String {
    format!("---\napiVersion: rhumb.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: mesh}}\nspec: {spec}\n")
}

#[test]
fn a_connection_that_left_from_here_ends_when_the_mesh_lets_it_leave_no_longer() {
    let peer = Peer::echo("hello");
    let mut world = World::new();
    let (listen, address) = upstream();
    let body = calls(peer.address, listen);
    world.documents = of_mesh("{egress: allow}");
    let web = world.sidecar("web", &body, &world.identity("web"));
    let mut client = connect(address);
    assert_eq!(read_exact(&client, 5), b"hello");
    let mut revisions = 1;
    let mut change = |spec: &str| {
        world.documents = of_mesh(spec);
        world.write(web.dir(), "web", &body, web.admin_address().port());
        revisions += 1;
        wait::until("the change is in force", || {
            (web.log().matches("configuration is live").count() >= revisions).then_some(())
        });
    };
    // Allowed by another word.
    change("{egress: deny, allowedNames: [127.0.0.0/8]}");
    client.write_all(b"still").expect("a write");
    assert_eq!(read_exact(&client, 5), b"still");
    change("{egress: deny, allowedNames: [192.0.2.0/24]}");
    assert_eq!(ended(&client), ErrorKind::ConnectionReset, "{}", web.log());
    assert_eq!(web.metric("rhumb_mesh_ended_total", &["reason=\"denied\""]) as u32, 1);
    assert_eq!(connect(address).read(&mut [0; 9]).unwrap_or(0), 0);
}

#[test]
fn of_a_mesh_document_that_cannot_be_read_it_is_assumed_that_nothing_may_leave() {
    let peer = Peer::echo("hello");
    let mut world = World::new();
    let (listen, address) = upstream();
    for (spec, leaves) in [
        ("{egress: allow}", true),
        // The gateway cannot be read, is not known as one, and nothing at all can be read.
        ("{egressGateway: egress}", false),
        ("{egressGateway: {destinations: [127.0.0.1]}}", false),
        ("{egress: deny, allowedNames: [127.0.0.1], egresGateway: {service: egress}}", false),
        ("{egress: forbid, allowedNames: [127.0.0.1]}", false),
        ("deny", false),
    ] {
        world.documents = of_mesh(spec);
        let dir = tempfile::tempdir().expect("a directory");
        let admin = port::free();
        world.identity("web").write(dir.path(), "workload");
        std::fs::write(dir.path().join("bundle.pem"), world.authority.pem()).expect("a file");
        world.write(dir.path(), "web", &calls(peer.address, listen), admin);
        let web = Rhumb::start_partial(dir, "mesh.yaml", admin);
        let mut heard = [0; 5];
        let read = connect(address).read(&mut heard).unwrap_or(0);
        assert_eq!(&heard[..read] == b"hello", leaves, "{spec}: {}", web.log());
        if !leaves {
            wait::until("it is told", || {
                web.log().contains("a connection out of the mesh is refused").then_some(())
            });
        }
    }
}
