//! Connections that are carried as they are, in streams between proxies, and ports that do not say what is spoken.

use super::{World, upstream};
use crate::gate::local;
use crate::l4::edges::connections;
use crate::l4::{Peer, connect, read_all, read_exact};
use crate::tracing::Collector;
use rhumb_testkit::backend::Backend;
use rhumb_testkit::client::Client;
use rhumb_testkit::wait;
use std::io::Write as _;
use std::net::Shutdown;

#[test]
fn connections_are_carried_both_ways_and_each_side_may_finish_first() {
    let peer = Peer::echo("hello");
    let mut world = World::new();
    let db = world.serve("db", 5432, ", appProtocol: tcp", peer.address);
    let server = world.sidecar_of(&db);
    let (listen, address) = upstream();
    let caller = world.caller("web", &[(&db, listen)]);
    for _ in 0..3 {
        let mut client = connect(address);
        assert_eq!(read_exact(&client, 5), b"hello", "{}{}", server.log(), caller.log());
        let sent = vec![b'x'; 300_000];
        let writer = client.try_clone().expect("a second handle");
        let copy = sent.clone();
        let thread = std::thread::spawn(move || {
            let mut writer = writer;
            writer.write_all(&copy).expect("a write");
            writer.shutdown(Shutdown::Write).expect("half an end");
        });
        let mut got = read_all(&client);
        thread.join().expect("the writer");
        assert_eq!(got.pop(), Some(b'.'));
        assert_eq!(got.len(), sent.len());
        let _ = client.flush();
    }
    // All of them in streams of one connection.
    assert_eq!(server.metric("rhumb_tls_handshakes_total", &[]) as u32, 1);
    // Either side tells who was connected with what, and that both have proven who they are.
    for side in [&server, &caller] {
        let (edge, ended) = connections(side, "default/db:5432", |all| all["outcomes"]["ok"] == 3);
        assert_eq!((&edge["source"], &edge["mtls"]), (&"default/web".into(), &true.into()), "{edge}");
        assert_eq!((&ended["opened"], &ended["open"]), (&3.into(), &0.into()), "{edge}");
    }
}

#[test]
fn either_side_tells_a_collector_of_the_connections_between_them() {
    let collector = Collector::start("http");
    let peer = Peer::echo("hello");
    let mut world = World::new();
    world.process =
        format!(", signals: {{otlp: {{url: 'http://127.0.0.1:{}', logs: true}}}}", collector.port);
    let db = world.serve("db", 5432, ", appProtocol: tcp", peer.address);
    let _server = world.sidecar_of(&db);
    let (listen, address) = upstream();
    let _caller = world.caller("web", &[(&db, listen)]);
    let client = connect(address);
    assert_eq!(read_exact(&client, 5), b"hello");
    client.shutdown(Shutdown::Write).expect("half an end");
    assert_eq!(read_all(&client), b".");
    let told = wait::until("both sides have told", || {
        Some(collector.lines("spans.logs")).filter(|logs| logs.len() >= 2)
    });
    for (backend, endpoint) in
        [("default/db:5432", local(db.port)), ("default/inbound/db:5432", peer.address)]
    {
        let one = told.iter().find(|log| log["attributes"]["rhumb.backend"] == backend);
        let one = one.unwrap_or_else(|| panic!("{backend}: {told:#?}"));
        let of = &one["attributes"];
        assert_eq!(of["network.transport"], "tcp", "{one}");
        assert_eq!(of["rhumb.bytes_out"].as_u64(), Some(6), "{one}");
        assert!(of["rhumb.endpoint"].as_str().is_some_and(|at| at.contains(&endpoint.to_string())), "{one}");
    }
}

#[test]
fn a_port_that_does_not_say_is_found_out_without_waiting() {
    let (mail, web) = (Peer::echo("220 ready"), Backend::start());
    let mut world = World::new();
    let smtp = world.serve("mail", 25, "", mail.address);
    let http = world.serve("web", 80, "", web.address());
    let _servers = [world.sidecar_of(&smtp), world.sidecar_of(&http)];
    let (mail_port, mail_address) = upstream();
    let (web_port, web_address) = upstream();
    let _caller = world.caller("caller", &[(&smtp, mail_port), (&http, web_port)]);
    // The first connection learns, the others know.
    for _ in 0..3 {
        let mut client = connect(mail_address);
        assert_eq!(read_exact(&client, 9), b"220 ready");
        client.write_all(b"QUIT").expect("a write");
        assert_eq!(read_exact(&client, 4), b"QUIT");
        client.shutdown(Shutdown::Write).expect("half an end");
        assert_eq!(read_all(&client), b".");
        let mut client = Client::connect(web_address);
        assert_eq!(client.get("web", "/a").status(), 200);
        assert_eq!(client.get("web", "/b").status(), 200);
    }
    let seen = web.seen();
    assert_eq!(seen.len(), 6);
    assert!(seen.iter().all(|one| one.message.field("X-Request-Id").is_some()), "they came as requests");
}

#[test]
fn who_may_connect_is_enforced_without_requests_and_what_cannot_be_is_refused() {
    let peer = Peer::echo("hello");
    let mut world = World::new();
    let db = world.serve("db", 5432, ", appProtocol: tcp", peer.address);
    world.add(
        "apiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {name: who}\n\
         spec: {targetRefs: [{kind: Service, name: db}], policies: {authorization: {rules: [\
         {when: \"source.serviceAccount == 'web'\"}, {when: \"request.path == '/'\"}]}}}",
    );
    let _server = world.sidecar_of(&db);
    for (account, admitted) in [("web", true), ("other", false)] {
        let (listen, address) = upstream();
        let _caller = world.caller(account, &[(&db, listen)]);
        let client = connect(address);
        client.shutdown(Shutdown::Write).expect("half an end");
        let expected: &[u8] = if admitted { b"hello." } else { b"" };
        assert_eq!(read_all(&client), expected, "{account}");
    }
}
