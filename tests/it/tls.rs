//! TLS on both sides, with openssl, curl and nginx as peers.

use crate::gate::{local, problem, seen};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::cert::{Authority, Identity, Validity};
use rhumb_testkit::client::{self, Client};
use rhumb_testkit::config::Config;
use rhumb_testkit::port;
use rhumb_testkit::process::{Finished, Nginx, Rhumb, finish};
use rhumb_testkit::wait;
use std::path::Path;
use std::process::{Command, Stdio};

/// What `openssl s_client` says about a connection with this SNI.
fn s_client(port: u16, name: &str, args: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", name]).args(args);
    // Ends at once: its input is empty.
    finish(command).output
}

fn curl(dir: &Path, port: u16, name: &str, path: &str, args: &[&str]) -> Finished {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "20", "--noproxy", "*", "--cacert"]).arg(dir.join("ca.crt"));
    command
        .args(["--resolve", &format!("{name}:{port}:127.0.0.1")])
        .args(args)
        .arg(format!("https://{name}:{port}{path}"));
    finish(command)
}

/// A TLS listener with these settings; `files` are written beside the configuration.
struct Door {
    rhumb: Rhumb,
    _backend: Backend,
    port: u16,
}

impl Door {
    fn new(ca: &Authority, tls: &str, files: &[(&str, &Identity)]) -> Self {
        Self::with(ca, tls, files, |config| config)
    }

    fn with(
        ca: &Authority,
        tls: &str,
        files: &[(&str, &Identity)],
        more: impl FnOnce(Config) -> Config,
    ) -> Self {
        let (backend, port) = (Backend::start(), port::free());
        let config = Config::new()
            .listener("web", port, &format!("tls: {{{tls}}}"))
            .backend("peer", &format!("endpoints: ['{}']", backend.address()))
            .route("to: peer");
        let rhumb = Rhumb::start_with(&more(config), |dir| {
            std::fs::write(dir.join("ca.crt"), ca.pem()).expect("a file");
            for (name, identity) in files {
                identity.write(dir, name);
            }
        });
        Self { rhumb, _backend: backend, port }
    }

    fn curl(&self, name: &str, args: &[&str]) -> Finished {
        curl(self.rhumb.dir(), self.port, name, "/bytes/3", args)
    }
}

#[test]
fn versions_and_protocols_are_negotiated() {
    let ca = Authority::new("test");
    let door =
        Door::new(&ca, "certificates: [{cert: web.crt, key: web.key}]", &[("web", &ca.server(&["a.test"]))]);
    let cases: &[(&[&str], &str)] = &[
        (&["-tls1_2"], "TLSv1.2"),
        (&["-tls1_3"], "TLSv1.3"),
        (&["-alpn", "h2,http/1.1"], "ALPN protocol: h2"),
        (&["-alpn", "http/1.1"], "ALPN protocol: http/1.1"),
        (&["-groups", "X25519"], "X25519"),
        (&["-groups", "P-256"], "prime256v1"),
    ];
    for (args, expected) in cases {
        let output = s_client(door.port, "a.test", args);
        assert!(output.contains(expected), "{args:?}: {output}");
    }
    let old = s_client(door.port, "a.test", &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(!old.contains("BEGIN CERTIFICATE"), "{old}");
    // Nothing in common: refused by alert, RFC 7301 §3.2.
    let other = s_client(door.port, "a.test", &["-alpn", "spdy/3"]);
    assert!(other.contains("no application protocol") || !other.contains("ALPN protocol: spdy"), "{other}");
}

#[test]
fn sni_chooses_the_certificate() {
    let ca = Authority::new("test");
    let door = Door::new(
        &ca,
        "certificates: [{cert: first.crt, key: first.key}, {cert: exact.crt, key: exact.key}, {cert: wild.crt, key: wild.key}]",
        &[
            ("first", &ca.server(&["first.test"])),
            ("exact", &ca.server(&["x.wild.test"])),
            ("wild", &ca.server(&["*.wild.test"])),
        ],
    );
    for (name, expected) in [
        ("first.test", "first.test"),
        ("x.wild.test", "x.wild.test"),
        ("y.wild.test", "*.wild.test"),
        ("other.test", "first.test"),
        ("a.b.wild.test", "first.test"),
    ] {
        let output = s_client(door.port, name, &[]);
        let subject = output.lines().find(|line| line.starts_with("subject=")).unwrap_or_default();
        assert!(subject.ends_with(expected), "{name}: {subject}");
    }
}

#[test]
fn certificates_of_clients_are_demanded_and_checked() {
    let (ca, other) = (Authority::new("test"), Authority::new("other"));
    let clients = [
        ("good", ca.client(&["someone"])),
        ("foreign", other.client(&["someone"])),
        ("expired", ca.client_valid(&["someone"], Validity::Expired)),
        ("future", ca.client_valid(&["someone"], Validity::Future)),
        ("server", ca.server(&["a.test"])),
    ];
    for (mode, without) in [("required", false), ("optional", true)] {
        let mut files: Vec<(&str, &Identity)> =
            clients.iter().map(|(name, identity)| (*name, identity)).collect();
        let web = ca.server(&["a.test"]);
        files.push(("web", &web));
        let door = Door::new(
            &ca,
            &format!(
                "certificates: [{{cert: web.crt, key: web.key}}], clientAuth: {{ca: ca.crt, mode: {mode}}}"
            ),
            &files,
        );
        for tls in ["--tlsv1.2", "--tlsv1.3"] {
            let max = if tls == "--tlsv1.2" { ["--tls-max", "1.2"] } else { ["--tls-max", "1.3"] };
            let ask = |identity: Option<&str>| {
                let dir = door.rhumb.dir();
                let files = identity.map(|name| {
                    (
                        dir.join(format!("{name}.crt")).display().to_string(),
                        dir.join(format!("{name}.key")).display().to_string(),
                    )
                });
                let mut args = vec![tls, max[0], max[1]];
                if let Some((crt, key)) = &files {
                    args.extend(["--cert", crt, "--key", key]);
                }
                door.curl("a.test", &args).code == Some(0)
            };
            assert_eq!(ask(None), without, "{mode} {tls} without a certificate");
            assert!(ask(Some("good")), "{mode} {tls}");
            for bad in ["foreign", "expired", "future", "server"] {
                assert!(!ask(Some(bad)), "{mode} {tls} {bad}");
            }
        }
    }
}

#[test]
fn new_certificates_serve_new_handshakes_and_old_connections_go_on() {
    let ca = Authority::new("test");
    let door =
        Door::new(&ca, "certificates: [{cert: web.crt, key: web.key}]", &[("web", &ca.server(&["a.test"]))]);
    let serial = |output: &str| output.split("-----BEGIN CERTIFICATE-----").nth(1).map(str::to_owned);
    let first = serial(&s_client(door.port, "a.test", &[])).expect("a certificate");
    // A connection that is open across the swap.
    let mut keeper = Command::new("openssl");
    keeper.args([
        "s_client",
        "-quiet",
        "-connect",
        &format!("127.0.0.1:{}", door.port),
        "-servername",
        "a.test",
    ]);
    let mut keeper =
        keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("openssl");
    let ask = |keeper: &mut std::process::Child| {
        use std::io::{BufRead, BufReader, Write};
        keeper
            .stdin
            .as_mut()
            .expect("a pipe")
            .write_all(b"GET /bytes/0 HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .expect("openssl reads");
        let mut lines = BufReader::with_capacity(1, keeper.stdout.as_mut().expect("a pipe")).lines();
        let first = lines.next().expect("a line").expect("text");
        // The rest of the head.
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.trim().is_empty())) {}
        first
    };
    assert!(ask(&mut keeper).contains("200"));
    ca.server(&["a.test"]).write(door.rhumb.dir(), "web");
    wait::until("the new certificate", || {
        let now = serial(&s_client(door.port, "a.test", &[]))?;
        (now != first).then_some(())
    });
    assert!(ask(&mut keeper).contains("200"), "the old connection goes on");
    let _ = keeper.kill();
    let _ = keeper.wait();
    // A broken file does not take the good certificate away.
    std::fs::write(door.rhumb.dir().join("web.crt"), "not a certificate").expect("a file");
    door.rhumb.reload();
    wait::until("the mistake is told", || door.rhumb.log().contains("error[certificate]").then_some(()));
    assert_eq!(door.curl("a.test", &[]).code, Some(0));
}

#[test]
fn sessions_are_resumed() {
    let ca = Authority::new("test");
    let door =
        Door::new(&ca, "certificates: [{cert: web.crt, key: web.key}]", &[("web", &ca.server(&["a.test"]))]);
    let session = door.rhumb.dir().join("session").display().to_string();
    let mut save = Command::new("sh");
    // The ticket of TLS 1.3 comes after the handshake: a request makes openssl wait for it.
    save.arg("-c").arg(format!(
        "printf 'GET /bytes/3 HTTP/1.1\\r\\nHost: a.test\\r\\nConnection: close\\r\\n\\r\\n' | openssl s_client -ign_eof -connect 127.0.0.1:{} -servername a.test -sess_out {session}",
        door.port
    ));
    finish(save);
    let output = s_client(door.port, "a.test", &["-sess_in", &session]);
    assert!(output.contains("Reused, TLSv1.3"), "{output}");
}

#[test]
fn what_is_not_tls_is_closed_and_costs_nobody() {
    let ca = Authority::new("test");
    let door = Door::with(
        &ca,
        "certificates: [{cert: web.crt, key: web.key}]",
        &[("web", &ca.server(&["a.test"]))],
        |config| config.top("timeouts: {handshake: 400ms}"),
    );
    let hello_cut = [22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    let cases: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"\0\0\0\0\0\0\0\0",
        &hello_cut,
        &[22, 3, 1, 255, 255, 1],
        &[0x80, 0x2e, 1, 3, 1],
        b"",
    ];
    for bytes in cases {
        let mut client = Client::connect(local(door.port));
        client.send(bytes);
        // Those that wait for more are ended by the handshake timeout.
        let answer = client.read_to_end();
        assert!(
            !answer.windows(8).any(|part| part == b"HTTP/1.1") || answer.starts_with(b"HTTP/1.1 400"),
            "{answer:?}"
        );
    }
    assert_eq!(door.curl("a.test", &[]).code, Some(0));
}

#[test]
fn the_scheme_is_told_to_the_backend() {
    let ca = Authority::new("test");
    let door =
        Door::new(&ca, "certificates: [{cert: web.crt, key: web.key}]", &[("web", &ca.server(&["a.test"]))]);
    let output = curl(door.rhumb.dir(), door.port, "a.test", "/echo", &[]).output;
    assert!(output.to_lowercase().contains("[\"x-forwarded-proto\",\"https\"]"), "{output}");
}

/// nginx with TLS and Rhumb in front of it; `more` goes into nginx' server, `tls` into the backend.
fn to_tls_backend(
    identity: &Identity,
    ca: &Authority,
    more: &str,
    protocol: &str,
    tls: &str,
    files: &[(&str, &Identity)],
) -> (Nginx, Rhumb, u16) {
    let http2 = if protocol == "h2" { "http2" } else { "" };
    let nginx = Nginx::start_with(
        &format!(
            "server {{ listen 127.0.0.1:PORT ssl {http2}; ssl_certificate DIR/web.crt; ssl_certificate_key DIR/web.key; {more}
             location / {{ default_type text/plain; return 200 \"$server_protocol $ssl_server_name $ssl_client_verify $ssl_session_reused\"; }} }}"
        ),
        |dir| {
            identity.write(dir, "web");
            std::fs::write(dir.join("ca.crt"), ca.pem()).expect("a file");
        },
    );
    let port = port::free();
    let config = Config::new()
        .listener("web", port, "")
        .backend("peer", &format!("endpoints: ['{}'], protocol: {protocol}, tls: {{{tls}}}", nginx.address()))
        .route("to: peer");
    let rhumb = Rhumb::start_with(&config, |dir| {
        std::fs::write(dir.join("ca.crt"), ca.pem()).expect("a file");
        for (name, identity) in files {
            identity.write(dir, name);
        }
    });
    (nginx, rhumb, port)
}

#[test]
fn backends_are_spoken_to_over_tls_and_checked() {
    let (ca, other) = (Authority::new("test"), Authority::new("other"));
    let good = ca.server(&["backend.test"]);
    let cases: &[(&Identity, &str, &str, Option<&str>)] = &[
        (&good, "http/1", "ca: ca.crt, serverName: backend.test", None),
        (&good, "h2", "ca: ca.crt, serverName: backend.test", None),
        (&good, "http/1", "ca: ca.crt, serverName: other.test", Some("backend_certificate")),
        (&good, "http/1", "serverName: backend.test", Some("backend_certificate")),
        (
            &other.server(&["backend.test"]),
            "http/1",
            "ca: ca.crt, serverName: backend.test",
            Some("backend_certificate"),
        ),
        (
            &ca.server_valid(&["backend.test"], Validity::Expired),
            "h2",
            "ca: ca.crt, serverName: backend.test",
            Some("backend_certificate"),
        ),
        (
            &other.server(&["backend.test"]),
            "http/1",
            "serverName: backend.test, insecureSkipVerify: true",
            None,
        ),
    ];
    for (identity, protocol, tls, expected) in cases {
        let (_nginx, _rhumb, port) = to_tls_backend(identity, &ca, "", protocol, tls, &[]);
        let response = client::get(local(port), "a.test", "/");
        match expected {
            None => {
                let version = if *protocol == "h2" { "HTTP/2.0" } else { "HTTP/1.1" };
                assert!(
                    response.status() == 200
                        && response.text().starts_with(&format!("{version} backend.test")),
                    "{tls}: {response:?}"
                );
            }
            Some(code) => assert_eq!((response.status(), problem(&response).as_str()), (502, *code), "{tls}"),
        }
    }
}

#[test]
fn backends_may_demand_our_certificate() {
    let ca = Authority::new("test");
    let verify = "ssl_client_certificate DIR/ca.crt; ssl_verify_client on;";
    let tls = "ca: ca.crt, serverName: backend.test";
    let client_identity = ca.client(&["rhumb"]);
    for (tls, expected) in [
        (format!("{tls}, clientCertificate: {{cert: us.crt, key: us.key}}"), "HTTP/1.1 backend.test SUCCESS"),
        // nginx answers 400 to a request without a certificate.
        (tls.to_owned(), "400"),
    ] {
        let (_nginx, _rhumb, port) = to_tls_backend(
            &ca.server(&["backend.test"]),
            &ca,
            verify,
            "http/1",
            &tls,
            &[("us", &client_identity)],
        );
        let response = client::get(local(port), "a.test", "/");
        assert!(
            response.text().starts_with(expected) || response.status().to_string() == expected,
            "{response:?}"
        );
    }
}

#[test]
fn a_backend_that_is_not_tls_is_told_apart() {
    let (backend, port) = (Backend::start(), port::free());
    let config = Config::new()
        .listener("web", port, "")
        .backend(
            "peer",
            &format!(
                "endpoints: ['{}'], tls: {{insecureSkipVerify: true, serverName: a.test}}",
                backend.address()
            ),
        )
        .route("to: peer");
    let _rhumb = Rhumb::start(&config);
    let response = client::get(local(port), "a.test", "/");
    assert_eq!(response.status(), 502);
    assert!(["backend_tls", "backend_reset"].contains(&problem(&response).as_str()), "{response:?}");
}

#[test]
fn plain_and_tls_listeners_share_one_backend() {
    let (backend, plain, tls) = (Backend::start(), port::free(), port::free());
    let ca = Authority::new("test");
    let config = Config::new()
        .top("workers: 1")
        .listener("web", plain, "")
        .listener("secure", tls, "tls: {certificates: [{cert: web.crt, key: web.key}]}")
        .backend("peer", &format!("endpoints: ['{}']", backend.address()))
        .route("on: [web, secure], to: peer");
    let rhumb = Rhumb::start_with(&config, |dir| {
        std::fs::write(dir.join("ca.crt"), ca.pem()).expect("a file");
        ca.server(&["a.test"]).write(dir, "web");
    });
    assert_eq!(curl(rhumb.dir(), tls, "a.test", "/bytes/3", &[]).code, Some(0));
    assert_eq!(
        seen(&client::get(local(plain), "a.test", "/echo"), "x-forwarded-proto").as_deref(),
        Some("http")
    );
    assert_eq!(backend.opened(), 1, "one pool");
}
