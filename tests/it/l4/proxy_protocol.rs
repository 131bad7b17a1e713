//! The PROXY protocol: HAProxy in front and behind, and what must not be believed.

use super::flow::records;
use super::{Peer, connect, read_all};
use crate::gate::{local, seen};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::cert::Authority;
use rhumb_testkit::client::Client;
use rhumb_testkit::config::Config;
use rhumb_testkit::port;
use rhumb_testkit::process::{Program, Rhumb, finish};
use rhumb_testkit::wait;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

const FROM_HERE: &str = "policies: {proxyProtocol: {from: [127.0.0.0/8]}}";

/// HAProxy with these sections behind `defaults` in mode tcp; waits until it accepts on `port`.
fn haproxy(dir: &Path, sections: &str, port: u16) -> Program {
    let text = format!(
        "global\n maxconn 200\ndefaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n{sections}"
    );
    std::fs::write(dir.join("haproxy.cfg"), text).expect("a file");
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(dir.join("haproxy.cfg"));
    let mut program = Program::start(command, &dir.join("haproxy.log"));
    wait::until("HAProxy accepts", || {
        assert!(program.ended().is_none(), "HAProxy ended: {}", program.log());
        TcpStream::connect(local(port)).ok()
    });
    program
}

#[test]
fn haproxy_in_front_tells_the_client_by_both_versions() {
    let (backend, dir) = (Backend::start(), tempfile::tempdir().expect("a directory"));
    let [web, tls, db, v1, v2, over_tls, of_tcp] = [(); 7].map(|()| port::free());
    let ca = Authority::new("test");
    // The client's address is another one than HAProxy's.
    let front = |name: &str, port: u16, to: u16, send: &str| {
        format!("listen {name}\n bind 127.0.0.1:{port}\n server s 127.0.0.1:{to} source 127.0.0.9 {send}\n")
    };
    let sections = [
        front("v1", v1, web, "send-proxy"),
        front("v2", v2, web, "send-proxy-v2 proxy-v2-options crc32c"),
        front("tls", over_tls, tls, "send-proxy-v2"),
        front("tcp", of_tcp, db, "send-proxy"),
    ]
    .concat();
    let config = Config::new()
        .listener("web", web, FROM_HERE)
        .listener(
            "tls",
            tls,
            &format!("tls: {{certificates: [{{cert: web.crt, key: web.key}}]}}, {FROM_HERE}"),
        )
        .listener("db", db, &format!("protocol: TCP, {FROM_HERE}"))
        .backend("peer", &format!("endpoints: ['{}']", backend.address()))
        .route("on: [web, tls], to: peer")
        .route("on: db, to: peer");
    let rhumb = Rhumb::start_with(&config, |dir| drop(ca.server(&["a.test"]).write(dir, "web")));
    let _haproxy = haproxy(dir.path(), &sections, v2);
    for port in [v1, v2] {
        let mut client = Client::connect(local(port));
        // Twice: the header is that of the connection, not of a request.
        for _ in 0..2 {
            let echo = client.get("a.test", "/echo");
            assert_eq!(seen(&echo, "x-forwarded-for").as_deref(), Some("127.0.0.1"));
        }
    }
    let mut curl = Command::new("curl");
    curl.args(["-sSk", "--max-time", "20", "--noproxy", "*", &format!("https://127.0.0.1:{over_tls}/echo")]);
    let finished = finish(curl);
    assert!(finished.output.contains("\"127.0.0.1\""), "{finished:?}");
    let _ = Client::connect(local(of_tcp)).get("a.test", "/echo");
    let record = wait::until("the connection's record", || {
        records(&rhumb)
            .into_iter()
            .find(|record| record["listener"] == "default/db/tcp" && record["end"] == "closed")
    });
    assert_eq!(record["client_ip"], "127.0.0.1", "{record}");
    assert!(rhumb.metric("rhumb_proxy_protocol_total", &["accepted"]) >= 4.0);
}

#[test]
fn haproxy_behind_learns_the_client_from_us() {
    let (dir, backend) = (tempfile::tempdir().expect("a directory"), Backend::start());
    let [first, second, by_tcp, by_http] = [(); 4].map(|()| port::free());
    // What it learns, it writes into a field.
    let section = |name: &str, port: u16| {
        format!(
            "listen {name}\n mode http\n bind 127.0.0.1:{port} accept-proxy\n http-request set-header x-learnt %[src]:%[src_port]/%[dst]:%[dst_port]\n server s {}\n",
            backend.address()
        )
    };
    let _haproxy = haproxy(dir.path(), &[section("one", first), section("two", second)].concat(), first);
    let config = Config::new()
        .listener("db", by_tcp, "protocol: TCP")
        .listener("web", by_http, "")
        .backend("one", &format!("endpoints: ['127.0.0.1:{first}'], proxyProtocol: v1"))
        .backend("two", &format!("endpoints: ['127.0.0.1:{second}'], proxyProtocol: v2"))
        .route("on: db, to: one")
        .route("on: web, to: two");
    let _rhumb = Rhumb::start(&config);
    for port in [by_tcp, by_http] {
        // By HTTP too no client gets a connection that was told of another.
        for _ in 0..3 {
            let mut client = Client::connect(local(port));
            let expected = format!("{}/127.0.0.1:{port}", client.stream().local_addr().expect("an address"));
            for _ in 0..2 {
                let echo = client.get("a.test", "/echo");
                assert_eq!(seen(&echo, "x-learnt").as_deref(), Some(&*expected));
            }
        }
    }
}

#[test]
fn only_who_is_trusted_is_believed_and_only_with_a_proper_header() {
    let (backend, peer) = (Backend::start(), Peer::echo("tcp "));
    let [web, elsewhere, db] = [(); 3].map(|()| port::free());
    let config = Config::new()
        .listener("web", web, FROM_HERE)
        .listener("elsewhere", elsewhere, "policies: {proxyProtocol: {from: [192.0.2.0/24]}}")
        .listener("db", db, "protocol: TCP, policies: {proxyProtocol: {from: [127.0.0.1], timeout: 300ms}}")
        .backend("peer", &format!("endpoints: ['{}']", backend.address()))
        .backend("tcp", &format!("endpoints: ['{}']", peer.address))
        .route("on: [web, elsewhere], to: peer")
        .route("on: db, to: tcp");
    let rhumb = Rhumb::start(&config);
    let request = "GET /echo HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let ask = |port: u16, bytes: &[u8]| {
        let mut client = connect(local(port));
        client.write_all(bytes).expect("a write");
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    // In two parts, and with the request right behind.
    let mut client = connect(local(web));
    client.set_nodelay(true).expect("an option");
    client.write_all(b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 ").expect("a write");
    client.write_all(format!("443\r\n{request}").as_bytes()).expect("a write");
    let answer = String::from_utf8_lossy(&read_all(&client)).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("2001:db8::7"), "{answer}");
    // Without a header, or with a wrong one: closed without an answer.
    for bytes in
        [request.as_bytes(), b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c"]
    {
        assert_eq!(ask(web, bytes), "");
    }
    // A health check of the load balancer's own.
    let local_v2 = [&b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..], request.as_bytes()].concat();
    let answer = ask(web, &local_v2);
    assert!(answer.contains("\"127.0.0.1\""), "{answer}");
    // Who is not trusted is not read a header from.
    let answer = ask(elsewhere, request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"127.0.0.1\""), "{answer}");
    let answer = ask(elsewhere, format!("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n{request}").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    // Nobody waits for ever.
    assert_eq!(ask(db, b""), "");
    assert_eq!(ask(db, b"PROXY TCP4 1.2.3.4"), "");
    assert_eq!(rhumb.metric("rhumb_proxy_protocol_total", &["default/db", "timeout"]), 2.0);
    let mut client = connect(local(db));
    client.write_all(b"PROXY TCP4 203.0.113.5 5.6.7.8 99 2\r\nabc").expect("a write");
    client.shutdown(std::net::Shutdown::Write).expect("an end");
    assert_eq!(read_all(&client), b"tcp abc.");
    let record = wait::until("the record", || {
        records(&rhumb).into_iter().find(|record| record["client_ip"] == "203.0.113.5")
    });
    assert_eq!(record["client_port"], 99, "{record}");
}
