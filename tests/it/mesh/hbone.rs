//! HBONE with proxies that are not ours, which speak as ztunnel does.

use super::{World, upstream};
use crate::gate::local;
use crate::l4::{connect, read_all};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::port;
use rhumb_testkit::process::{finish, script, serve_script};
use std::io::Write as _;
use std::net::Shutdown;
use std::path::{Path, PathBuf};

fn peer(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}

#[test]
fn proxies_that_are_not_ours_bring_requests_in_connections_and_policies_of_requests_hold() {
    let backend = Backend::start();
    let mut world = World::new();
    let orders = world.serve("orders", 8080, ", appProtocol: http", backend.address());
    let other = world.serve("other", 8080, "", backend.address());
    for service in ["orders", "other"] {
        world.add(&format!(
            "apiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {{name: who-{service}}}\n\
             spec: {{targetRefs: [{{kind: Service, name: {service}}}], policies: {{authorization: {{rules: [\
             {{when: \"source.serviceAccount == 'ztunnel' && request.path.startsWith('/orders')\"}}]}}}}}}"
        ));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, world.authority.pem()).expect("a file");
    for served in [&orders, &other] {
        let server = world.sidecar_of(served);
        let ask = |account: &str, authority: &str| {
            let (certificate, key) = world.identity(account).write(dir.path(), account);
            let texts = [certificate, key, roots.clone()].map(|path| path.display().to_string());
            let address = local(served.tunnel).to_string();
            let [certificate, key, roots] = &texts;
            let mut args: Vec<&str> = vec![&address, authority, certificate, key, roots];
            args.extend(["/orders/1", "/admin", "/orders/2"]);
            let finished = finish(script(&peer("hbone_peer.py"), &args));
            assert_eq!(finished.code, Some(0), "{}{}", finished.output, server.log());
            finished.output.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        // The workload's address is the caller's knowledge; in brackets when it is one of IPv6 (RFC 3986 §3.2.2).
        for authority in [served.target.to_string(), format!("[2001:db8::5]:{}", served.target.port())] {
            let told = ask("ztunnel", &authority);
            assert_eq!(told, ["connect 200", "200", "403", "200"], "{authority}\n{}", server.log());
        }
        let told = ask("stranger", &served.target.to_string());
        assert_eq!(told, ["connect 200", "403", "403", "403"], "{}", server.log());
        for nobody in ["[2001:db8::5]:1", "127.0.0.1:1", "orders.default.svc.cluster.local:1"] {
            assert_eq!(ask("ztunnel", nobody)[0], "connect 404", "{nobody}\n{}", server.log());
        }
    }
    let paths: Vec<_> = backend.seen().iter().map(|seen| seen.message.target().to_owned()).collect();
    assert_eq!(paths, ["/orders/1", "/orders/2"].repeat(4));
}

#[test]
fn connections_go_to_proxies_that_are_not_ours_and_on_over_another_when_one_says_goodbye() {
    let mut world = World::new();
    let application = local(port::free());
    let db = world.serve("db", application.port(), ", appProtocol: tcp", application);
    let dir = tempfile::tempdir().expect("a directory");
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, world.authority.pem()).expect("a file");
    let (certificate, key) = world.identity("db").write(dir.path(), "db");
    let texts = [certificate, key, roots].map(|path| path.display().to_string());
    let [certificate, key, roots] = &texts;
    let authority = application.to_string();
    let args = [&*authority, certificate, key, roots];
    let server = serve_script(&peer("hbone_server.py"), &args, db.tunnel, &dir.path().join("server.log"));
    let (listen, address) = upstream();
    let caller = world.caller("web", &[(&db, listen)]);
    let sent: Vec<u8> = (0..300_000_u32).flat_map(u32::to_be_bytes).collect();
    // Each of its connections takes three.
    for round in 0..7 {
        let client = connect(address);
        let mut writer = client.try_clone().expect("a second handle");
        let copy = sent.clone();
        let thread = std::thread::spawn(move || {
            writer.write_all(&copy).expect("a write");
            writer.shutdown(Shutdown::Write).expect("half an end");
        });
        let got = read_all(&client);
        thread.join().expect("the writer");
        assert!(got == sent, "round {round}: {} bytes\n{}\n{}", got.len(), server.log(), caller.log());
    }
    let log = server.log();
    assert_eq!(log.matches(&format!("tunnel {authority}")).count(), 7, "{log}");
    assert!(log.contains("alive"), "{log}");
}
