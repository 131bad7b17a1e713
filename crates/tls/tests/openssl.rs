//! Both sides of a stream against OpenSSL's command line, over loopback sockets.

use std::future::poll_fn;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rhumb_tls::{
    Certificate, CertificateSource, ClientAuth, ClientSpec, ClientTls, Roots, Scratch, ServerSpec, ServerTls,
    ServerTlsSet, TlsStream, Verify, Version,
};
use tokio::net::{TcpListener, TcpStream};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Certificates in files for OpenSSL and parsed for us.
struct Files {
    dir: tempfile::TempDir,
    roots: Roots,
    leaf: Certificate,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["a.test".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &ca).unwrap();
        let source = CertificateSource {
            chain: leaf.pem().into(),
            key: key.serialize_pem().into(),
            origin: "leaf".into(),
        };
        std::fs::write(dir.path().join("large"), large()).unwrap();
        for (name, text) in [("ca", ca.pem()), ("leaf", leaf.pem()), ("key", key.serialize_pem())] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Self {
            roots: Roots::parse(ca.pem().as_bytes(), "ca").unwrap(),
            leaf: Certificate::parse(&source).unwrap(),
            dir,
        }
    }

    fn openssl(&self, arguments: &[&str]) -> Child {
        let dir: &Path = self.dir.path();
        Command::new("openssl")
            .args(arguments)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("these tests need the openssl command")
    }
}

async fn read(stream: &mut TlsStream<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut buf = vec![0; 64 * 1024];
    let len = poll_fn(|cx| Scratch::lend(|scratch| stream.poll_read(cx, &mut buf, scratch))).await?;
    buf.truncate(len);
    Ok(buf)
}

async fn write_all(stream: &mut TlsStream<TcpStream>, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let len = poll_fn(|cx| Scratch::lend(|scratch| stream.poll_write(cx, bytes, scratch))).await?;
        bytes = &bytes[len..];
    }
    poll_fn(|cx| stream.poll_flush(cx)).await
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn option(version: Version) -> &'static str {
    match version {
        Version::Tls12 => "-tls1_2",
        Version::Tls13 => "-tls1_3",
    }
}

/// Large enough to meet short writes on a socket.
fn large() -> Vec<u8> {
    (0..3_000_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

async fn serve_openssl(files: &Files, version: Version, is_authenticated: bool) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut spec = ServerSpec::new(vec![files.leaf.clone()], "server");
    spec.alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if is_authenticated {
        spec.client_auth = ClientAuth::Required(files.roots.clone());
    }
    let servers = ServerTlsSet::single(ServerTls::build(spec).unwrap());
    let mut arguments = vec!["s_client", "-connect", &address, "-servername", "A.test", "-alpn", "http/1.1"];
    arguments.extend(["-CAfile", "ca", "-verify_return_error", "-verify_hostname", "a.test", "-quiet"]);
    arguments.push(option(version));
    if is_authenticated {
        arguments.extend(["-cert", "leaf", "-key", "key"]);
    }
    let mut child = files.openssl(&arguments);
    let (socket, _) = listener.accept().await.unwrap();
    let mut stream = TlsStream::server(socket, servers);
    poll_fn(|cx| Scratch::lend(|scratch| stream.poll_handshake(cx, scratch))).await.unwrap();
    assert_eq!(stream.version(), Some(version));
    assert_eq!(stream.server_name(), Some("a.test"));
    assert_eq!(stream.alpn(), Some(&b"http/1.1"[..]));
    assert_eq!(stream.peer().is_some(), is_authenticated);
    child.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    assert_eq!(read(&mut stream).await.unwrap(), b"hello\n");

    let large = large();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    write_all(&mut stream, &large).await.unwrap();
    poll_fn(|cx| stream.poll_shutdown(cx)).await.unwrap();
    // OpenSSL answers the close_notify; whether with its own or only by closing is its affair.
    let _ = read(&mut stream).await;
    drop(stream);
    let output = output.await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.stdout == large, "{version}: {} bytes, {errors}", output.stdout.len());
}

async fn ask_openssl(files: &Files, version: Version, is_authenticated: bool) {
    let mut arguments = vec!["s_server", "-accept", "127.0.0.1:0", "-cert", "leaf", "-key", "key", "-WWW"];
    arguments.extend(["-alpn", "http/1.0", "-naccept", "1", option(version)]);
    if is_authenticated {
        arguments.extend(["-CAfile", "ca", "-Verify", "1", "-verify_return_error"]);
    }
    let mut child = files.openssl(&arguments);
    // It says which port it got: "ACCEPT 127.0.0.1:40125".
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let address =
        (&mut stdout).lines().find_map(|line| Some(line.unwrap().strip_prefix("ACCEPT ")?.to_owned()));
    let rest = std::thread::spawn(move || std::io::read_to_string(stdout));

    let mut spec = ClientSpec::new(Verify::Full(files.roots.clone()), "backend");
    spec.alpn = vec![b"http/1.0".to_vec()];
    spec.identity = is_authenticated.then(|| files.leaf.clone());
    let tls = ClientTls::build(spec).unwrap();
    let socket = TcpStream::connect(address.unwrap()).await.unwrap();
    let mut stream = TlsStream::client(socket, &tls, LOOPBACK).unwrap();
    write_all(&mut stream, b"GET /large HTTP/1.0\r\n\r\n").await.unwrap();
    assert_eq!(stream.version(), Some(version));
    assert_eq!(stream.alpn(), Some(&b"http/1.0"[..]));
    assert_eq!(stream.peer().unwrap().dns_names, ["a.test"]);
    let mut answer = Vec::new();
    loop {
        match read(&mut stream).await {
            Ok(part) if part.is_empty() => break,
            Ok(part) => answer.extend(part),
            Err(error) => panic!("{version} after {} bytes: {error}", answer.len()),
        }
    }
    poll_fn(|cx| stream.poll_shutdown(cx)).await.unwrap();
    drop(stream);
    assert!(answer.ends_with(&large()), "{version}: {} bytes", answer.len());
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{version}: {errors} {}", rest.join().unwrap().unwrap());
}

#[test]
fn openssl_and_our_sides_understand_each_other() {
    let files = Files::new();
    for version in [Version::Tls12, Version::Tls13] {
        for is_authenticated in [false, true] {
            runtime().block_on(serve_openssl(&files, version, is_authenticated));
            runtime().block_on(ask_openssl(&files, version, is_authenticated));
        }
    }
}
