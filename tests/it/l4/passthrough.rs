//! TLS by server name, passed on and terminated, with nginx, openssl and curl as peers.

use super::flow::records;
use super::{Peer, connect, read_all};
use crate::gate::local;
use rhumb_testkit::cert::Authority;
use rhumb_testkit::config::Config;
use rhumb_testkit::port;
use rhumb_testkit::process::{Finished, Nginx, Rhumb, finish};
use rhumb_testkit::wait;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

fn s_client(port: u16, args: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{port}")]).args(args);
    finish(command).output
}

fn curl(dir: &Path, port: u16, name: &str) -> Finished {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "20", "--noproxy", "*", "--cacert"]).arg(dir.join("ca.crt"));
    command.args(["--resolve", &format!("{name}:{port}:127.0.0.1"), &format!("https://{name}:{port}/")]);
    finish(command)
}

/// nginx that terminates TLS for a name, and answers with it.
fn tls_server(ca: &Authority, name: &str) -> Nginx {
    let http = format!(
        "server {{ listen 127.0.0.1:PORT ssl; ssl_certificate DIR/web.crt; ssl_certificate_key DIR/web.key; \
         location / {{ return 200 'this is {name}'; }} }}"
    );
    Nginx::start_with(&http, |dir| drop(ca.server(&[name]).write(dir, "web")))
}

#[test]
fn a_name_leads_to_its_backend_without_being_decrypted() {
    let ca = Authority::new("test");
    let (one, all) = (tls_server(&ca, "one.test"), tls_server(&ca, "x.wild.test"));
    let port = port::free();
    let config = Config::new()
        .listener("tls", port, "protocol: TLS")
        .backend("one", &format!("endpoints: ['{}']", one.address()))
        .backend("all", &format!("endpoints: ['{}']", all.address()))
        .route("on: tls, match: {host: one.test}, to: one")
        .route("on: tls, match: {host: '*.wild.test'}, to: all");
    let rhumb =
        Rhumb::start_with(&config, |dir| std::fs::write(dir.join("ca.crt"), ca.pem()).expect("a file"));
    for (name, expected) in [("one.test", "this is one.test"), ("x.wild.test", "this is x.wild.test")] {
        let finished = curl(rhumb.dir(), port, name);
        assert!(finished.code == Some(0) && finished.output.contains(expected), "{finished:?}");
    }
    let seen = wait::until("the record", || {
        records(&rhumb).into_iter().find(|record| record["tls"]["sni"] == "x.wild.test")
    });
    assert_eq!((&seen["protocol"], &seen["backend"]), (&"TLS".into(), &"default/all".into()), "{seen}");
    // A name that no route has, and none: told by an alert (RFC 6066 §3), and counted.
    for args in [&["-servername", "two.test"][..], &["-noservername"]] {
        let output = s_client(port, args);
        assert!(output.contains("unrecognized name"), "{output}");
    }
    assert_eq!(rhumb.metric("rhumb_tls_handshake_failures_total", &["unrecognized_name"]), 2.0);
    // What is no TLS ends.
    let mut client = connect(local(port));
    client.write_all(b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n").expect("a write");
    assert_eq!(read_all(&client), b"");
    assert_eq!(rhumb.metric("rhumb_tls_handshake_failures_total", &["not_tls"]), 1.0);
}

#[test]
fn a_client_hello_may_come_byte_by_byte() {
    let ca = Authority::new("test");
    let server = tls_server(&ca, "one.test");
    let (port, slow) = (port::free(), port::free());
    let config = Config::new()
        .listener("tls", port, "protocol: TLS")
        .backend("one", &format!("endpoints: ['{}']", server.address()))
        .route("on: tls, match: {host: one.test}, to: one");
    let rhumb =
        Rhumb::start_with(&config, |dir| std::fs::write(dir.join("ca.crt"), ca.pem()).expect("a file"));
    let _chopper = chop(slow, local(port));
    let finished = curl(rhumb.dir(), slow, "one.test");
    assert!(finished.code == Some(0) && finished.output.contains("this is one.test"), "{finished:?}");
}

/// Passes a connection on, the first kilobyte in single bytes.
fn chop(port: u16, to: SocketAddr) -> std::thread::JoinHandle<()> {
    let listener = std::net::TcpListener::bind(local(port)).expect("a socket");
    std::thread::spawn(move || {
        let (client, _) = listener.accept().expect("a connection");
        let server = connect(to);
        server.set_nodelay(true).expect("an option");
        let (mut back_from, mut back_to) =
            (server.try_clone().expect("a handle"), client.try_clone().expect("a handle"));
        let back = std::thread::spawn(move || drop(std::io::copy(&mut back_from, &mut back_to)));
        let (mut from, mut to) = (client, server);
        let mut byte = [0; 1];
        for _ in 0..1024 {
            if !matches!(std::io::Read::read(&mut from, &mut byte), Ok(1)) || to.write_all(&byte).is_err() {
                break;
            }
        }
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
        let _ = back.join();
    })
}

#[test]
fn tls_is_terminated_for_one_name_and_passed_on_for_another_on_the_same_port() {
    let ca = Authority::new("test");
    let server = tls_server(&ca, "passed.test");
    let plain = Peer::new(|mut stream| drop(stream.write_all(b"not encrypted any more")));
    let port = port::free();
    let text = format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  gatewayClassName: rhumb\n\
         \x20 addresses: [{{value: 127.0.0.1}}]\n  listeners:\n\
         \x20   - {{name: passed, port: {port}, protocol: TLS, hostname: passed.test, tls: {{mode: Passthrough}}}}\n\
         \x20   - {{name: ended, port: {port}, protocol: TLS, hostname: ended.test, tls: {{certificateRefs: [{{name: cert}}]}}}}\n\
         ---\napiVersion: v1\nkind: Secret\nmetadata: {{name: cert}}\ntype: kubernetes.io/tls\n\
         stringData: {{tls.crt: 'file:web.crt', tls.key: 'file:web.key'}}\n\
         ---\napiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\nmetadata: {{name: passed}}\nspec:\n\
         \x20 parentRefs: [{{name: edge, sectionName: passed}}]\n  hostnames: [passed.test]\n\
         \x20 rules: [{{backendRefs: [{{group: rhumb.dev, kind: Backend, name: nginx}}]}}]\n\
         ---\napiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {{name: ended}}\nspec:\n\
         \x20 parentRefs: [{{name: edge, sectionName: ended}}]\n\
         \x20 rules: [{{backendRefs: [{{group: rhumb.dev, kind: Backend, name: plain}}]}}]\n\
         ---\napiVersion: rhumb.dev/v1alpha1\nkind: Backend\nmetadata: {{name: nginx}}\nspec: {{endpoints: ['{}']}}\n\
         ---\napiVersion: rhumb.dev/v1alpha1\nkind: Backend\nmetadata: {{name: plain}}\nspec: {{endpoints: ['{}']}}\n",
        server.address(),
        plain.address
    );
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("ca.crt"), ca.pem()).expect("a file");
    ca.server(&["ended.test"]).write(dir.path(), "web");
    let admin = port::free();
    let process = format!(
        "apiVersion: rhumb.dev/v1alpha1\nkind: ProxyConfig\nmetadata: {{name: rhumb}}\nspec: {{admin: {{address: '127.0.0.1:{admin}'}}}}\n"
    );
    std::fs::write(dir.path().join("all.yaml"), process + &text).expect("a file");
    let rhumb = Rhumb::start_on(dir, "all.yaml", admin);
    let finished = curl(rhumb.dir(), port, "passed.test");
    assert!(finished.code == Some(0) && finished.output.contains("this is passed.test"), "{finished:?}");
    // A client that offers a protocol of its own is not refused for it.
    let output = s_client(port, &["-servername", "ended.test", "-alpn", "postgresql", "-ign_eof"]);
    assert!(output.contains("not encrypted any more"), "{output}");
    let seen = wait::until("the record", || {
        records(&rhumb).into_iter().find(|record| record["tls"]["sni"] == "ended.test")
    });
    assert_eq!(seen["backend"], "default/plain", "{seen}");
    let output = s_client(port, &["-servername", "other.test"]);
    assert!(output.contains("unrecognized name"), "{output}");
}

#[test]
fn tls_to_the_backend_is_verified() {
    let (ca, other) = (Authority::new("test"), Authority::new("other"));
    let server = tls_server(&ca, "one.test");
    let (good, bad) = (port::free(), port::free());
    let backend =
        |ca| format!("endpoints: ['{}'], tls: {{serverName: one.test, ca: {ca}}}", server.address());
    let config = Config::new()
        .listener("good", good, "protocol: TCP")
        .listener("bad", bad, "protocol: TCP")
        .backend("good", &backend("ca.crt"))
        .backend("bad", &backend("other.crt"))
        .route("on: good, to: good")
        .route("on: bad, to: bad");
    let rhumb = Rhumb::start_with(&config, |dir| {
        std::fs::write(dir.join("ca.crt"), ca.pem()).expect("a file");
        std::fs::write(dir.join("other.crt"), other.pem()).expect("a file");
    });
    let ask = |port| {
        let mut client = connect(local(port));
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("a write");
        String::from_utf8_lossy(&read_all(&client)).into_owned()
    };
    let answer = ask(good);
    assert!(answer.ends_with("this is one.test"), "{answer}");
    let answer = std::panic::catch_unwind(|| ask(bad)).unwrap_or_default();
    assert_eq!(answer, "");
    let record = wait::until("the record", || {
        records(&rhumb).into_iter().find(|record| record["listener"] == "default/bad/tcp")
    });
    assert_eq!(record["end"], "backend_certificate", "{record}");
}
