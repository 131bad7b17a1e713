//! Connections that are broken on purpose: between workloads, and at a gateway.

use super::{World, upstream};
use crate::gate::local;
use crate::l4::{Peer, connect, ended, read_all, read_exact};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::client::Client;
use rhumb_testkit::config::Config;
use rhumb_testkit::port;
use rhumb_testkit::process::Rhumb;
use rhumb_testkit::wait;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What a fault policy of a Service says.
fn of_service(service: &str, fault: &str) -> String {
    format!(
        "apiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {{name: chaos-{service}}}\n\
         spec: {{targetRefs: [{{kind: Service, name: {service}}}], policies: {{fault: {fault}}}}}"
    )
}

/// A gateway whose connections to `peer` have a fault.
fn gateway(peer: SocketAddr, fault: &str) -> (Rhumb, SocketAddr) {
    let port = port::free();
    let config = Config::new()
        .top("workers: 1")
        .listener("db", port, "protocol: TCP")
        .backend("peer", &format!("endpoints: ['{peer}']"))
        .route(&format!("on: db, to: peer, policies: {{fault: {fault}}}"));
    (Rhumb::start(&config), local(port))
}

/// Waits until a fault was counted once: records are made when all is over.
fn noted(rhumb: &Rhumb, note: &str) {
    wait::until("it is counted", || {
        (rhumb.metric("rhumb_notes_total", &[&format!("note=\"{note}\"")]) == 1.0).then_some(())
    });
}

/// Sends all and tells what came back until the end, and how it ended.
fn talk(mut client: TcpStream, sent: &[u8]) -> (usize, Option<ErrorKind>) {
    let _ = client.write_all(sent).and_then(|()| client.shutdown(Shutdown::Write));
    let (mut count, mut buffer) = (0, [0; 4096]);
    loop {
        match client.read(&mut buffer) {
            Ok(0) => return (count, None),
            Ok(len) => count += len,
            Err(error) => return (count, Some(error.kind())),
        }
    }
}

#[test]
fn a_gateway_resets_connections_at_once_or_when_so_much_has_passed() {
    let peer = Peer::echo("");
    let (rhumb, address) = gateway(peer.address, "{reset: {percentage: 100}}");
    assert_eq!(ended(&connect(address)), ErrorKind::ConnectionReset, "{}", rhumb.log());
    let end = ["end=\"fault_injected\""];
    wait::until("it is counted", || (rhumb.metric("rhumb_l4_connections_total", &end) == 1.0).then_some(()));
    noted(&rhumb, "fault_reset");

    let (rhumb, address) = gateway(peer.address, "{reset: {percentage: 100, after: '1000'}}");
    let (count, end) = talk(connect(address), &[b'x'; 3000]);
    assert_eq!(end, Some(ErrorKind::ConnectionReset));
    // All of them went one way, or some of them were on their way back.
    assert!(count < 1000, "{count}");
    let record = wait::until("its record", || {
        let log = rhumb.log();
        log.lines().find(|line| line.contains("\"end\":\"fault_injected\"")).map(str::to_owned)
    });
    let record: serde_json::Value = serde_json::from_str(&record).expect("a record");
    let carried = record["bytes_in"].as_u64().zip(record["bytes_out"].as_u64()).map(|(i, o)| i + o);
    assert_eq!(carried, Some(1000), "{record}");
    // Less than that passes as if nothing were there.
    assert_eq!(talk(connect(address), &[b'x'; 300]), (301, None));
}

#[test]
fn a_gateway_delays_connections_and_narrows_them_in_both_directions() {
    let peer = Peer::echo("");
    let (_rhumb, address) = gateway(peer.address, "{delay: {time: 300ms, percentage: 100}}");
    let begun = Instant::now();
    assert_eq!(talk(connect(address), b"hello"), (6, None));
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());

    // Half a second one way; the other way runs beside it.
    let (rhumb, address) = gateway(peer.address, "{bandwidth: {rate: '40000', percentage: 100}}");
    let begun = Instant::now();
    assert_eq!(talk(connect(address), &[b'x'; 20_000]), (20_001, None));
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    noted(&rhumb, "fault_bandwidth");
}

#[test]
fn callers_of_a_service_have_its_faults_on_connections_between_proxies() {
    let (db, cache, slow) = (Peer::echo("hello"), Peer::echo("hello"), Peer::echo(""));
    let mut world = World::new();
    let db = world.serve("db", 5432, ", appProtocol: tcp", db.address);
    let cache = world.serve("cache", 6379, ", appProtocol: tcp", cache.address);
    let slow = world.serve("slow", 7000, ", appProtocol: tcp", slow.address);
    world.add(&of_service("db", "{reset: {percentage: 100, after: '700'}}"));
    world.add(&of_service("slow", "{bandwidth: {rate: '40000', percentage: 100}}"));
    let _servers = [world.sidecar_of(&db), world.sidecar_of(&cache), world.sidecar_of(&slow)];
    let [(one, db_address), (two, cache_address), (three, slow_address)] =
        [upstream(), upstream(), upstream()];
    let caller = world.caller("web", &[(&db, one), (&cache, two), (&slow, three)]);
    let (count, end) = talk(connect(db_address), &[b'x'; 3000]);
    assert_eq!(end, Some(ErrorKind::ConnectionReset), "{}", caller.log());
    assert!(count < 700, "{count}");
    // Another service has nothing of it.
    assert_eq!(talk(connect(cache_address), &[b'x'; 3000]), (3006, None));
    let begun = Instant::now();
    assert_eq!(talk(connect(slow_address), &[b'x'; 20_000]), (20_001, None));
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
}

#[test]
fn where_nothing_is_declared_requests_and_connections_each_have_their_faults() {
    let (mail, web) = (Peer::echo("220 ready"), Backend::start());
    let mut world = World::new();
    let smtp = world.serve("mail", 25, "", mail.address);
    let http = world.serve("web", 80, "", web.address());
    // What is about requests happens to requests only.
    world.add(&of_service("mail", "{abort: {status: 418, percentage: 100}}"));
    world.add(&of_service(
        "web",
        "{match: {path: {type: PathPrefix, value: /tea}}, abort: {status: 418, percentage: 100}}",
    ));
    let _servers = [world.sidecar_of(&smtp), world.sidecar_of(&http)];
    let [(one, mail_address), (two, web_address)] = [upstream(), upstream()];
    let _caller = world.caller("caller", &[(&smtp, one), (&http, two)]);
    let client = connect(mail_address);
    assert_eq!(read_exact(&client, 9), b"220 ready");
    client.shutdown(Shutdown::Write).expect("half an end");
    assert_eq!(read_all(&client), b".");
    assert_eq!(Client::connect(web_address).get("web", "/tea").status(), 418);
    assert_eq!(Client::connect(web_address).get("web", "/").status(), 200);
}

#[test]
fn a_response_is_reset_in_the_midst_of_its_content() {
    let backend = Backend::start();
    let port = port::free();
    let config = Config::new()
        .top("workers: 1")
        .listener("web", port, "protocol: HTTP")
        .backend("app", &format!("endpoints: ['{}']", backend.address()))
        .route("on: web, to: app, policies: {fault: {reset: {percentage: 100, after: '10'}}}");
    let rhumb = Rhumb::start(&config);
    let mut client = connect(local(port));
    let body = "y".repeat(200);
    client
        .write_all(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200\r\n\r\n{body}").as_bytes())
        .expect("a write");
    let mut got = Vec::new();
    let end = client.read_to_end(&mut got);
    let text = String::from_utf8_lossy(&got);
    let content = text.split_once("\r\n\r\n").map_or("", |(_, content)| content);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    // Chunked or not, the content ends before its end.
    assert!(content.len() < 40, "{text} {end:?}");
    noted(&rhumb, "fault_reset");
}
