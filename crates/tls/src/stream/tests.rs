use std::net::Ipv4Addr;
use std::task::Waker;

use rustls::{ClientConfig, HandshakeKind, ServerConfig};

use super::buffers::WRITE_OVERHEAD;
use super::*;
use crate::testing::{Authority, Buffered, End, Rng, pipe};
use crate::{
    Certificate, ClientAuth, ClientSpec, Peer, Roots, ServerSpec, ServerTls, SubjectName, Verify, Warning,
};

const ENDPOINT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// Turns after which a test has evidently stopped moving.
const MAX_TURNS: usize = 3_000_000;

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Repeats until it says that it is done.
fn until(mut turn: impl FnMut() -> bool) {
    assert!((0..MAX_TURNS).any(|_| turn()), "no end in sight");
}

fn spec(certificates: Vec<Certificate>) -> ServerSpec {
    ServerSpec::new(certificates, "test server")
}

fn server(spec: ServerSpec, end: End) -> TlsStream<End> {
    TlsStream::server(end, ServerTlsSet::single(ServerTls::build(spec).unwrap()))
}

fn client_config(roots: &Roots, version: Version) -> ClientConfig {
    let versions = crate::provider::versions(version, version, "").unwrap();
    ClientConfig::builder_with_provider(Arc::clone(crate::provider::provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(Arc::clone(roots.store()))
        .with_no_client_auth()
}

fn client_config_with(roots: &Roots, version: Version, identity: &Certificate) -> ClientConfig {
    let mut config = client_config(roots, version);
    let resolver = rustls::sign::SingleCertAndKey::from(Arc::clone(identity.key()));
    config.client_auth_cert_resolver = Arc::new(resolver);
    config
}

fn server_config(certificate: &Certificate, version: Version) -> ServerConfig {
    let versions = crate::provider::versions(version, version, "").unwrap();
    let resolver = rustls::sign::SingleCertAndKey::from(Arc::clone(certificate.key()));
    ServerConfig::builder_with_provider(Arc::clone(crate::provider::provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver))
}

/// What came of a handshake.
type Outcome = (Result<(), HandshakeError>, Result<(), rustls::Error>);

/// Runs a handshake to its end on both sides, flushed.
fn shake(ours: &mut TlsStream<End>, theirs: &mut Buffered, scratch: &mut Scratch) -> Outcome {
    let mut done: (Option<Result<(), HandshakeError>>, Option<rustls::Error>) = (None, None);
    until(|| {
        if done.0.is_none()
            && let Poll::Ready(result) = ours.poll_handshake(&mut cx(), scratch)
        {
            done.0 = Some(result);
        }
        let _ = ours.poll_flush(&mut cx());
        if done.1.is_none()
            && let Err(error) = theirs.turn()
        {
            done.1 = Some(error);
            // Its alert.
            let _ = theirs.turn();
            theirs.end.close();
        }
        if matches!(done.0, Some(Err(_))) {
            ours.transport().close();
        }
        let is_theirs_done =
            done.1.is_some() || matches!(done.0, Some(Err(_))) || !theirs.tls.is_handshaking();
        done.0.is_some() && is_theirs_done && !ours.has_pending_write()
    });
    // The last word of either side.
    for _ in 0..64 {
        if done.1.is_none() {
            done.1 = theirs.turn().err();
        }
    }
    (done.0.unwrap(), done.1.map_or(Ok(()), Err))
}

/// Reads until `len` bytes have come.
fn read(ours: &mut TlsStream<End>, theirs: &mut Buffered, scratch: &mut Scratch, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut buf = vec![0; 64 * 1024];
    until(|| {
        theirs.turn().unwrap();
        if let Poll::Ready(got) = ours.poll_read(&mut cx(), &mut buf, scratch) {
            let got = got.unwrap();
            assert_ne!(got, 0, "closed after {} of {len}", out.len());
            out.extend_from_slice(&buf[..got]);
        }
        out.len() >= len
    });
    out
}

/// Writes all of it and waits until the peer has it.
fn write(ours: &mut TlsStream<End>, theirs: &mut Buffered, scratch: &mut Scratch, bytes: &[u8]) -> Vec<u8> {
    let mut sent = 0;
    let mut got = Vec::new();
    until(|| {
        if sent < bytes.len() {
            if let Poll::Ready(len) = ours.poll_write(&mut cx(), &bytes[sent..], scratch) {
                sent += len.unwrap();
            }
        } else {
            let _ = ours.poll_flush(&mut cx());
        }
        theirs.turn().unwrap();
        got.extend(theirs.read());
        got.len() >= bytes.len()
    });
    got
}

fn is_bufferless(stream: &TlsStream<End>) -> bool {
    stream.incoming.capacity() == 0
        && stream.plain.bytes.capacity() == 0
        && stream.pending.bytes.capacity() == 0
}

#[test]
fn both_sides_speak_both_versions_over_any_transport() {
    let ca = Authority::new("ca");
    let leaf = ca.issue(&["a.test"]);
    let scratch = &mut Scratch::new();
    for version in [Version::Tls12, Version::Tls13] {
        for seed in [None, Some(1), Some(2), Some(3), Some(4)] {
            for is_server in [true, false] {
                let case = format!("{version} seed {seed:?} server {is_server}");
                let (near, far) = pipe(seed);
                let (mut ours, mut theirs) = if is_server {
                    let config = Arc::new(client_config(&ca.roots(), version));
                    (server(spec(vec![leaf.clone()]), near), Buffered::client(&config, "a.test", far))
                } else {
                    let config = Arc::new(server_config(&leaf, version));
                    let mut spec = ClientSpec::new(Verify::Full(ca.roots()), "backend");
                    spec.server_name = Some("a.test".to_owned());
                    let tls = ClientTls::build(spec).unwrap();
                    (TlsStream::client(near, &tls, ENDPOINT).unwrap(), Buffered::server(&config, far))
                };
                let (our_end, their_end) = shake(&mut ours, &mut theirs, scratch);
                assert!(our_end.is_ok() && their_end.is_ok(), "{case}: {our_end:?} {their_end:?}");
                assert_eq!(ours.version(), Some(version), "{case}");
                assert_eq!(ours.server_name(), is_server.then_some("a.test"), "{case}");
                assert_eq!(ours.peer_certificates().len(), usize::from(!is_server), "{case}");
                assert!(!ours.is_resumed(), "{case}");
                theirs.write(b"ping");
                assert_eq!(read(&mut ours, &mut theirs, scratch, 4), b"ping", "{case}");
                assert_eq!(write(&mut ours, &mut theirs, scratch, b"pong"), b"pong", "{case}");
                assert!(is_bufferless(&ours), "{case}");
                if version == Version::Tls13 {
                    assert_eq!(ours.cipher(), Some("TLS_AES_256_GCM_SHA384"), "{case}");
                    assert_eq!(ours.key_exchange(), Some("X25519MLKEM768"), "{case}");
                }
            }
        }
    }
}

#[test]
fn a_mebibyte_passes_both_ways_unchanged_over_a_capricious_transport() {
    let ca = Authority::new("ca");
    let leaf = ca.issue(&["a.test"]);
    let scratch = &mut Scratch::new();
    for version in [Version::Tls12, Version::Tls13] {
        for seed in 1..=2 {
            let mut rng = Rng::new(seed);
            let (near, far) = pipe(Some(seed));
            let config = Arc::new(client_config(&ca.roots(), version));
            let mut ours = server(spec(vec![leaf.clone()]), near);
            let mut theirs = Buffered::client(&config, "a.test", far);
            shake(&mut ours, &mut theirs, scratch).0.unwrap();
            let (down, up) = (rng.bytes(1 << 20), rng.bytes(1 << 20));
            let (mut sent, mut offered) = (0, 0);
            let (mut got_down, mut got_up) = (Vec::new(), Vec::new());
            let mut buf = vec![0; 70_000];
            until(|| {
                let size = rng.up_to(buf.len());
                if let Poll::Ready(len) = ours.poll_read(&mut cx(), &mut buf[..size], scratch) {
                    got_up.extend_from_slice(&buf[..len.unwrap()]);
                }
                let end = (sent + rng.up_to(80_000)).min(down.len());
                if sent == down.len() {
                    let _ = ours.poll_flush(&mut cx());
                } else if let Poll::Ready(len) = ours.poll_write(&mut cx(), &down[sent..end], scratch) {
                    sent += len.unwrap();
                }
                let bound = COALESCE + MAX_WRITE + WRITE_OVERHEAD;
                assert!(ours.pending.len() <= bound && ours.incoming.len() <= MIN_READ, "seed {seed}");
                if offered < up.len() {
                    offered += theirs.write(&up[offered..(offered + 30_000).min(up.len())]);
                }
                theirs.turn().unwrap();
                got_down.extend(theirs.read());
                got_down.len() == down.len() && got_up.len() == up.len()
            });
            assert!(got_down == down && got_up == up, "{version} seed {seed}");
            assert!(is_bufferless(&ours), "{version} seed {seed}");
        }
    }
}

#[test]
fn application_protocols_are_agreed_on_or_refused() {
    let ca = Authority::new("ca");
    let leaf = ca.issue(&["a.test"]);
    let scratch = &mut Scratch::new();
    /// What we speak, what the client offers, and what is agreed on, if the client is not refused.
    type Case = (&'static [&'static str], &'static [&'static str], Result<Option<&'static str>, ()>);
    let cases: [Case; 5] = [
        (&["h2", "http/1.1"], &["http/1.1", "h2"], Ok(Some("h2"))),
        (&["h2", "http/1.1"], &["http/1.1"], Ok(Some("http/1.1"))),
        (&["h2", "http/1.1"], &[], Ok(None)),
        (&[], &["h2"], Ok(None)),
        (&["h2"], &["http/1.1"], Err(())),
    ];
    let wire = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>();
    for (ours_names, theirs_names, expected) in cases {
        let (near, far) = pipe(None);
        let mut config = client_config(&ca.roots(), Version::Tls13);
        config.alpn_protocols = wire(theirs_names);
        let mut ours = server(ServerSpec { alpn: wire(ours_names), ..spec(vec![leaf.clone()]) }, near);
        let mut theirs = Buffered::client(&Arc::new(config), "a.test", far);
        let (our_end, their_end) = shake(&mut ours, &mut theirs, scratch);
        match expected {
            Ok(name) => {
                our_end.unwrap();
                assert_eq!(ours.alpn(), name.map(str::as_bytes));
            }
            Err(()) => {
                our_end.unwrap_err();
                let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
                assert_eq!(their_end, Err(alert));
            }
        }
    }
}

/// The serial number of the certificate that a server shows to a client that asks for this name.
fn shown(tls: &ServerTls, config: &Arc<ClientConfig>, name: &str) -> (String, bool) {
    let (near, far) = pipe(None);
    let mut ours = TlsStream::server(near, ServerTlsSet::single(tls.clone()));
    let mut theirs = Buffered::client(config, name, far);
    let (our_end, their_end) = shake(&mut ours, &mut theirs, &mut Scratch::new());
    our_end.unwrap();
    their_end.unwrap();
    let peer = Peer::parse(&theirs.tls.peer_certificates().unwrap()[0]).unwrap();
    let is_resumed = theirs.tls.handshake_kind() == Some(HandshakeKind::Resumed);
    assert_eq!(is_resumed, ours.is_resumed());
    (peer.serial, is_resumed)
}

fn serial(serial: u8) -> impl FnOnce(&mut rcgen::CertificateParams) {
    move |params| params.serial_number = Some(vec![serial].into())
}

/// A client that verifies nothing, to see what it is shown.
fn trusting(version: Version) -> Arc<ClientConfig> {
    let mut spec = ClientSpec::new(Verify::Insecure, "test");
    (spec.min_version, spec.max_version) = (version, version);
    let mut config = ClientConfig::clone(ClientTls::build(spec).unwrap().config());
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

#[test]
fn the_certificate_fits_the_server_name() {
    let ca = Authority::new("ca");
    let key = || rcgen::KeyPair::generate().unwrap();
    let certificates = vec![
        ca.issue_with(&["default.test"], key(), serial(1)),
        ca.issue_with(&["a.test", "A2.test"], key(), serial(2)),
        ca.issue_with(&["*.a.test"], key(), serial(3)),
        ca.issue_with(&["www.a.test"], key(), serial(4)),
        ca.issue_with(&["a.test"], key(), serial(5)),
    ];
    let tls = ServerTls::build(spec(certificates)).unwrap();
    let cases = [
        ("default.test", "01"),
        ("a.test", "02"),
        ("a2.test", "02"),
        ("x.a.test", "03"),
        ("www.a.test", "04"),
        ("x.y.a.test", "01"),
        ("nobody.test", "01"),
        ("192.0.2.1", "01"),
    ];
    for version in [Version::Tls12, Version::Tls13] {
        let config = trusting(version);
        for (name, expected) in cases {
            assert_eq!(shown(&tls, &config, name).0, expected, "{name}");
        }
    }
}

#[test]
fn ecdsa_is_preferred_where_the_client_can() {
    let ca = Authority::new("ca");
    let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let ecdsa = rcgen::KeyPair::generate().unwrap();
    let certificates =
        vec![ca.issue_with(&["a.test"], rsa, serial(1)), ca.issue_with(&["a.test"], ecdsa, serial(2))];
    let tls = ServerTls::build(spec(certificates)).unwrap();
    for version in [Version::Tls12, Version::Tls13] {
        assert_eq!(shown(&tls, &trusting(version), "a.test").0, "02", "{version}");
        assert_eq!(shown(&tls, &trusting(version), "unknown.test").0, "02", "{version} by default");

        let mut provider = rustls::crypto::CryptoProvider::clone(crate::provider::provider());
        let mapping = provider.signature_verification_algorithms.mapping;
        let only_rsa: Vec<_> =
            mapping.iter().copied().filter(|(scheme, _)| format!("{scheme:?}").starts_with("RSA")).collect();
        provider.signature_verification_algorithms.mapping = only_rsa.leak();
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(crate::provider::versions(version, version, "").unwrap())
            .unwrap()
            .with_root_certificates(Arc::clone(ca.roots().store()))
            .with_no_client_auth();
        assert_eq!(shown(&tls, &Arc::new(config), "a.test").0, "01", "{version} RSA only");
    }
}

#[test]
fn certificates_are_swapped_under_live_connections_and_sessions() {
    let ca = Authority::new("ca");
    let key = || rcgen::KeyPair::generate().unwrap();
    let scratch = &mut Scratch::new();
    let tls = ServerTls::build(spec(vec![ca.issue_with(&["a.test"], key(), serial(1))])).unwrap();
    let config = trusting(Version::Tls13);
    assert_eq!(shown(&tls, &config, "a.test").0, "01");
    let (near, far) = pipe(None);
    let mut ours = TlsStream::server(near, ServerTlsSet::single(tls.clone()));
    let mut theirs = Buffered::client(&config, "a.test", far);
    shake(&mut ours, &mut theirs, scratch).0.unwrap();

    tls.swap_certificates(&[ca.issue_with(&["a.test"], key(), serial(2))]).unwrap();
    assert_eq!(shown(&tls, &config, "a.test").0, "02");
    assert_eq!(tls.certificates().len(), 1);
    theirs.write(b"still here");
    assert_eq!(read(&mut ours, &mut theirs, scratch, 10), b"still here");

    assert!(tls.swap_certificates(&[]).is_err());
    assert_eq!(shown(&tls, &config, "a.test").0, "02");
}

#[test]
fn client_certificates_are_asked_for_as_configured() {
    let (ca, clients, others) = (Authority::new("ca"), Authority::new("clients"), Authority::new("others"));
    let leaf = ca.issue(&["a.test"]);
    let good = clients.issue(&["spiffe://example.org/ns/a/sa/b"]);
    let bad = others.issue(&["client.test"]);
    let required = || ClientAuth::Required(clients.roots());
    let optional = || ClientAuth::Optional(clients.roots());
    let scratch = &mut Scratch::new();
    let cases: [(&str, ClientAuth, Option<&Certificate>, bool, usize); 8] = [
        ("off, none", ClientAuth::Off, None, true, 0),
        ("off, not asked", ClientAuth::Off, Some(&good), true, 0),
        ("optional, none", optional(), None, true, 0),
        ("optional, good", optional(), Some(&good), true, 1),
        ("optional, bad", optional(), Some(&bad), false, 0),
        ("required, none", required(), None, false, 0),
        ("required, good", required(), Some(&good), true, 1),
        ("required, bad", required(), Some(&bad), false, 0),
    ];
    for version in [Version::Tls12, Version::Tls13] {
        for (what, client_auth, identity, is_let_in, certificates) in &cases {
            let case = format!("{version} {what}");
            let (near, far) = pipe(None);
            let config = match identity {
                Some(identity) => client_config_with(&ca.roots(), version, identity),
                None => client_config(&ca.roots(), version),
            };
            let spec = ServerSpec { client_auth: client_auth.clone(), ..spec(vec![leaf.clone()]) };
            let mut ours = server(spec, near);
            let mut theirs = Buffered::client(&Arc::new(config), "a.test", far);
            let (our_end, their_end) = shake(&mut ours, &mut theirs, scratch);
            assert_eq!(our_end.is_ok(), *is_let_in, "{case}: {our_end:?}");
            assert_eq!(their_end.is_ok(), *is_let_in, "{case}: {their_end:?}");
            assert_eq!(ours.peer_certificates().len(), *certificates, "{case}");
            if *certificates == 1 {
                let peer = ours.peer().unwrap();
                assert_eq!(peer.spiffe_id(), Some("spiffe://example.org/ns/a/sa/b"), "{case}");
            }
            if let Err(error) = our_end {
                assert_eq!(error.kind(), "tls_certificate_error", "{case}: {error}");
                // Plaintext from a client that was refused never comes out.
                let mut buf = [0; 100];
                let read = ours.poll_read(&mut cx(), &mut buf, scratch);
                assert!(matches!(read, Poll::Ready(Err(_))), "{case}");
            }
        }
    }
}

/// Connects and says whether the session was resumed, after one exchange, which brings tickets.
fn connects(tls: &ServerTls, config: &Arc<ClientConfig>) -> bool {
    let scratch = &mut Scratch::new();
    let (near, far) = pipe(None);
    let mut ours = TlsStream::server(near, ServerTlsSet::single(tls.clone()));
    let mut theirs = Buffered::client(config, "a.test", far);
    let (our_end, their_end) = shake(&mut ours, &mut theirs, scratch);
    our_end.unwrap();
    their_end.unwrap();
    write(&mut ours, &mut theirs, scratch, b"hello");
    assert_eq!(theirs.tls.handshake_kind() == Some(HandshakeKind::Resumed), ours.is_resumed());
    ours.is_resumed()
}

#[test]
fn sessions_are_resumed_across_rebuilds_with_the_same_client_authentication_only() {
    let (ca, clients, others) = (Authority::new("ca"), Authority::new("clients"), Authority::new("others"));
    let leaf = ca.issue(&["a.test"]);
    let me = clients.issue(&["spiffe://example.org/me"]);
    for version in [Version::Tls12, Version::Tls13] {
        let with = |roots: Roots| ServerSpec {
            client_auth: ClientAuth::Required(roots),
            ..spec(vec![leaf.clone()])
        };
        let config = Arc::new(client_config_with(&ca.roots(), version, &me));
        let tls = ServerTls::build(with(clients.roots())).unwrap();
        assert!(!connects(&tls, &config), "{version} first");
        assert!(connects(&tls, &config), "{version} second");

        tls.swap_certificates(&[ca.issue(&["a.test"])]).unwrap();
        assert!(connects(&tls, &config), "{version} after a swap");

        let same = ServerTls::rebuild(with(clients.roots()), &tls).unwrap();
        assert!(connects(&same, &config), "{version} after a rebuild");

        let both = Roots::parse(&[clients.pem(), others.pem()].concat(), "both").unwrap();
        let wider = ServerTls::rebuild(with(both), &same).unwrap();
        assert!(!connects(&wider, &config), "{version} after other roots");
    }
}

#[test]
fn a_resumed_session_still_knows_its_client() {
    let (ca, clients) = (Authority::new("ca"), Authority::new("clients"));
    let me = clients.issue(&["spiffe://example.org/me"]);
    let client_auth = ClientAuth::Required(clients.roots());
    let tls = ServerTls::build(ServerSpec { client_auth, ..spec(vec![ca.issue(&["a.test"])]) }).unwrap();
    let scratch = &mut Scratch::new();
    for version in [Version::Tls12, Version::Tls13] {
        let config = Arc::new(client_config_with(&ca.roots(), version, &me));
        assert!(!connects(&tls, &config));
        let (near, far) = pipe(None);
        let mut ours = TlsStream::server(near, ServerTlsSet::single(tls.clone()));
        let mut theirs = Buffered::client(&config, "a.test", far);
        shake(&mut ours, &mut theirs, scratch).0.unwrap();
        assert!(ours.is_resumed());
        assert_eq!(ours.peer().unwrap().spiffe_id(), Some("spiffe://example.org/me"), "{version}");
    }
}

#[test]
fn our_client_resumes_sessions() {
    let ca = Authority::new("ca");
    let leaf = ca.issue(&["a.test"]);
    let scratch = &mut Scratch::new();
    for version in [Version::Tls12, Version::Tls13] {
        let mut config = server_config(&leaf, version);
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
        let config = Arc::new(config);
        let mut spec = ClientSpec::new(Verify::Full(ca.roots()), "backend");
        spec.server_name = Some("a.test".to_owned());
        let tls = ClientTls::build(spec).unwrap();
        for is_resumed in [false, true] {
            let (near, far) = pipe(None);
            let mut ours = TlsStream::client(near, &tls, ENDPOINT).unwrap();
            let mut theirs = Buffered::server(&config, far);
            shake(&mut ours, &mut theirs, scratch).0.unwrap();
            theirs.write(b"hello");
            read(&mut ours, &mut theirs, scratch, 5);
            assert_eq!(ours.is_resumed(), is_resumed, "{version}");
            assert_eq!(ours.peer_certificates().len(), 1, "{version}");
        }
    }
}

#[test]
fn a_backend_is_verified_as_configured() {
    let (ca, others) = (Authority::new("ca"), Authority::new("others"));
    let leaf = ca.issue(&["a.test", "*.b.test", "192.0.2.7", "spiffe://example.org/ns/a/sa/b"]);
    let config = Arc::new(server_config(&leaf, Version::Tls13));
    let full = || Verify::Full(ca.roots());
    let dns = |name: &str| SubjectName::Dns(name.to_owned());
    let uri = |name: &str| SubjectName::Uri(name.to_owned());
    type Case<'a> = (&'a str, Verify, Option<&'a str>, Vec<SubjectName>, bool);
    let cases: Vec<Case<'_>> = vec![
        ("name", full(), Some("a.test"), vec![], true),
        ("wildcard", full(), Some("x.b.test"), vec![], true),
        ("address of the endpoint", full(), None, vec![], true),
        ("written address", full(), Some("192.0.2.7"), vec![], true),
        ("other name", full(), Some("c.test"), vec![], false),
        ("other address", full(), Some("192.0.2.8"), vec![], false),
        ("other authority", Verify::Full(others.roots()), Some("a.test"), vec![], false),
        ("insecure", Verify::Insecure, Some("c.test"), vec![], true),
        ("subject name", full(), Some("c.test"), vec![dns("z.test"), dns("a.test")], true),
        ("subject uri", full(), Some("c.test"), vec![uri("spiffe://example.org/ns/a/sa/b")], true),
        ("other subject uri", full(), Some("a.test"), vec![uri("spiffe://example.org/ns/a/sa/c")], false),
        ("other subject name", full(), Some("a.test"), vec![dns("c.test")], false),
        ("subject, other authority", Verify::Full(others.roots()), None, vec![dns("a.test")], false),
    ];
    let scratch = &mut Scratch::new();
    for (what, verify, server_name, subject_names, is_accepted) in cases {
        let server_name = server_name.map(str::to_owned);
        let spec = ClientSpec { server_name, subject_names, ..ClientSpec::new(verify, "backend") };
        let (near, far) = pipe(None);
        let tls = ClientTls::build(spec).unwrap();
        let mut ours = TlsStream::client(near, &tls, ENDPOINT).unwrap();
        let mut theirs = Buffered::server(&config, far);
        let (our_end, their_end) = shake(&mut ours, &mut theirs, scratch);
        assert_eq!(our_end.is_ok(), is_accepted, "{what}: {our_end:?}");
        if !is_accepted {
            assert_eq!(our_end.unwrap_err().kind(), "tls_certificate_error", "{what}");
            assert!(matches!(their_end, Err(rustls::Error::AlertReceived(_))), "{what}: {their_end:?}");
        }
    }
}

#[test]
fn our_two_sides_understand_each_other_with_client_certificates() {
    let ca = Authority::new("ca");
    let leaf = ca.issue(&["a.test"]);
    let me = ca.issue(&["spiffe://example.org/me"]);
    let scratch = &mut Scratch::new();
    for seed in [None, Some(5), Some(6)] {
        let (near, far) = pipe(seed);
        let client_auth = ClientAuth::Required(ca.roots());
        let mut server = server(ServerSpec { client_auth, ..spec(vec![leaf.clone()]) }, near);
        let server_name = Some("a.test".to_owned());
        let identity = Some(me.clone());
        let spec =
            ClientSpec { server_name, identity, ..ClientSpec::new(Verify::Full(ca.roots()), "backend") };
        let mut client = TlsStream::client(far, &ClientTls::build(spec).unwrap(), ENDPOINT).unwrap();
        // Without any explicit handshake or flush.
        let mut buf = [0; 1000];
        let (mut is_sent, mut is_answered) = (false, false);
        until(|| {
            if !is_sent {
                is_sent = client.poll_write(&mut cx(), b"request", scratch).is_ready();
            } else if let Poll::Ready(len) = client.poll_read(&mut cx(), &mut buf, scratch) {
                return buf[..len.unwrap()] == *b"response";
            }
            if is_answered {
                let _ = server.poll_flush(&mut cx()).map(Result::unwrap);
            } else if let Poll::Ready(len) = server.poll_read(&mut cx(), &mut buf, scratch) {
                assert_eq!(buf[..len.unwrap()], *b"request");
                is_answered = true;
                until(|| server.poll_write(&mut cx(), b"response", scratch).is_ready());
            }
            false
        });
        assert_eq!(server.peer().unwrap().spiffe_id(), Some("spiffe://example.org/me"));
        assert!(is_bufferless(&server) && is_bufferless(&client));
    }
}

#[test]
fn the_last_handshake_records_go_out_with_the_first_write() {
    let ca = Authority::new("ca");
    let scratch = &mut Scratch::new();
    let (near, far) = pipe(None);
    let mut server = server(spec(vec![ca.issue(&["a.test"])]), near);
    let server_name = Some("a.test".to_owned());
    let spec = ClientSpec { server_name, ..ClientSpec::new(Verify::Full(ca.roots()), "backend") };
    let mut client = TlsStream::client(far, &ClientTls::build(spec).unwrap(), ENDPOINT).unwrap();
    let mut buf = [0; 1000];
    assert!(client.poll_handshake(&mut cx(), scratch).is_pending());
    assert!(server.poll_handshake(&mut cx(), scratch).is_pending());
    assert!(client.poll_handshake(&mut cx(), scratch).is_ready());
    assert!(client.poll_write(&mut cx(), b"request", scratch).is_ready());
    assert_eq!(client.transport().sends, 2);
    assert!(server.poll_handshake(&mut cx(), scratch).is_ready());
    assert!(server.has_buffered_plaintext() && server.has_pending_write());
    assert!(server.poll_read(&mut cx(), &mut buf, scratch).is_ready());
    assert!(server.poll_write(&mut cx(), b"response", scratch).is_ready());
    assert_eq!(server.transport().sends, 2);
    assert!(client.poll_read(&mut cx(), &mut buf, scratch).is_ready());
}

/// A server and a client after their handshake, over a pipe that takes all.
fn connected(version: Version, change: impl FnOnce(&mut ClientConfig)) -> (TlsStream<End>, Buffered) {
    let ca = Authority::new("ca");
    let (near, far) = pipe(None);
    let mut config = client_config(&ca.roots(), version);
    change(&mut config);
    let mut ours = server(spec(vec![ca.issue(&["a.test"])]), near);
    let mut theirs = Buffered::client(&Arc::new(config), "a.test", far);
    shake(&mut ours, &mut theirs, &mut Scratch::new()).0.unwrap();
    (ours, theirs)
}

#[test]
fn a_proper_end_and_a_cut_are_told_apart() {
    let scratch = &mut Scratch::new();
    let mut buf = [0; 100];
    for version in [Version::Tls12, Version::Tls13] {
        let (mut ours, mut theirs) = connected(version, |_| {});
        theirs.write(b"bye");
        theirs.tls.send_close_notify();
        theirs.turn().unwrap();
        theirs.end.close();
        let read =
            |ours: &mut TlsStream<End>, buf: &mut [u8]| ours.poll_read(&mut cx(), buf, &mut Scratch::new());
        assert!(matches!(read(&mut ours, &mut buf), Poll::Ready(Ok(3))));
        for _ in 0..2 {
            assert!(matches!(read(&mut ours, &mut buf), Poll::Ready(Ok(0))));
        }
        // The other direction is still open (RFC 8446 §6.1).
        assert_eq!(write(&mut ours, &mut theirs, scratch, b"you too"), b"you too", "{version}");
        assert!(ours.poll_shutdown(&mut cx()).is_ready());
        assert!(ours.poll_shutdown(&mut cx()).is_ready());
        let refused = ours.poll_write(&mut cx(), b"more", scratch);
        assert!(matches!(refused, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe));
        theirs.turn().unwrap();
        assert!(theirs.tls.process_new_packets().unwrap().peer_has_closed(), "{version}");

        let (mut ours, mut theirs) = connected(version, |_| {});
        theirs.write(b"cut");
        theirs.turn().unwrap();
        theirs.end.close();
        assert!(matches!(read(&mut ours, &mut buf), Poll::Ready(Ok(3))));
        let cut = read(&mut ours, &mut buf);
        assert!(matches!(cut, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof));
        assert!(matches!(read(&mut ours, &mut buf), Poll::Ready(Err(_))), "{version}");
        assert_eq!(write(&mut ours, &mut theirs, scratch, b"answer"), b"answer", "{version}");
    }
}

#[test]
fn a_client_certificate_does_not_outlive_its_end_in_a_ticket() {
    let ca = Authority::new("ca");
    let me = ca.issue_with(&["client.test"], rcgen::KeyPair::generate().unwrap(), |params| {
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let client_auth = ClientAuth::Required(ca.roots());
    let tls = ServerTls::build(ServerSpec { client_auth, ..spec(vec![ca.issue(&["a.test"])]) }).unwrap();
    let tls = tls.at(UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_600_000_000)));
    for version in [Version::Tls12, Version::Tls13] {
        let config = Arc::new(client_config_with(&ca.roots(), version, &me));
        assert!(!connects(&tls, &config));
        let (near, far) = pipe(None);
        let mut ours = TlsStream::server(near, ServerTlsSet::single(tls.clone()));
        let mut theirs = Buffered::client(&config, "a.test", far);
        let (our_end, _) = shake(&mut ours, &mut theirs, &mut Scratch::new());
        assert!(matches!(our_end, Err(HandshakeError::ExpiredPeer)), "{version} {our_end:?}");
        assert_eq!(theirs.tls.handshake_kind(), Some(HandshakeKind::Resumed), "{version}");
    }
}

#[test]
fn small_buffers_get_large_records_piece_by_piece() {
    let (mut ours, mut theirs) = connected(Version::Tls13, |_| {});
    let scratch = &mut Scratch::new();
    let sent = Rng::new(1).bytes(40_000);
    theirs.write(&sent);
    theirs.turn().unwrap();
    let mut got = Vec::new();
    let mut buf = [0; 777];
    assert!(matches!(ours.poll_read(&mut cx(), &mut [], scratch), Poll::Ready(Ok(0))));
    while let Poll::Ready(len) = ours.poll_read(&mut cx(), &mut buf, scratch) {
        got.extend_from_slice(&buf[..len.unwrap()]);
        assert!(ours.plain.bytes.len() <= MIN_READ);
    }
    assert_eq!(got, sent);
    assert!(is_bufferless(&ours));
}

#[test]
fn several_slices_go_out_in_one_send() {
    let (mut ours, mut theirs) = connected(Version::Tls13, |_| {});
    let scratch = &mut Scratch::new();
    let _ = ours.poll_flush(&mut cx());
    let sends = ours.transport().sends;
    let large = Rng::new(1).bytes(MAX_WRITE);
    let slices = [IoSlice::new(b"head"), IoSlice::new(b""), IoSlice::new(&large), IoSlice::new(b"tail")];
    let taken = ours.poll_write_vectored(&mut cx(), &slices, scratch);
    assert!(matches!(taken, Poll::Ready(Ok(MAX_WRITE))), "{taken:?}");
    assert_eq!(ours.transport().sends, sends + 1);
    let mut got = Vec::new();
    until(|| {
        theirs.turn().unwrap();
        got.extend(theirs.read());
        got.len() == MAX_WRITE
    });
    assert_eq!(got, [b"head", &large[..MAX_WRITE - 4]].concat());

    // Short ones in one record: 5 bytes of header, the content type, and 16 of tag (RFC 8446 §5.2).
    let slices = [IoSlice::new(b"head"), IoSlice::new(&large[..1000])];
    assert!(matches!(ours.poll_write_vectored(&mut cx(), &slices, scratch), Poll::Ready(Ok(1004))));
    let records = theirs.end.drain();
    assert_eq!(records.len(), 1004 + 22);
    ours.transport().inject(&records);
    until(|| {
        theirs.turn().unwrap();
        got.extend(theirs.read());
        got.len() == MAX_WRITE + 1004
    });
    assert!(got.ends_with(&[b"head", &large[..1000]].concat()));
}

#[test]
fn key_updates_and_fragmented_tickets_are_survived() {
    // RFC 8446 §4.6.3.
    let (mut ours, mut theirs) = connected(Version::Tls13, |_| {});
    let scratch = &mut Scratch::new();
    for _ in 0..3 {
        let rustls::Connection::Client(client) = &mut theirs.tls else { panic!() };
        client.refresh_traffic_keys().unwrap();
        theirs.write(b"after");
        assert_eq!(read(&mut ours, &mut theirs, scratch, 5), b"after");
        assert_eq!(write(&mut ours, &mut theirs, scratch, b"answer"), b"answer");
    }
    assert!(is_bufferless(&ours));

    // Tickets in records of 32 bytes: between two of them rustls has half a message, whose place
    // in the input it remembers, and we write.
    let ca = Authority::new("ca");
    let mut config = server_config(&ca.issue(&["a.test"]), Version::Tls13);
    config.max_fragment_size = Some(32);
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    for seed in [3, 6, 9] {
        let (near, far) = pipe(Some(seed));
        let server_name = Some("a.test".to_owned());
        let spec = ClientSpec { server_name, ..ClientSpec::new(Verify::Full(ca.roots()), "backend") };
        let mut ours = TlsStream::client(near, &ClientTls::build(spec).unwrap(), ENDPOINT).unwrap();
        let mut theirs = Buffered::server(&Arc::new(config.clone()), far);
        shake(&mut ours, &mut theirs, scratch).0.unwrap();
        theirs.write(b"done");
        let mut buf = [0; 100];
        let mut got = Vec::new();
        let mut sent = 0;
        let mut had_half = false;
        until(|| {
            theirs.turn().unwrap();
            if let Poll::Ready(len) = ours.poll_read(&mut cx(), &mut buf, scratch) {
                got.extend_from_slice(&buf[..len.unwrap()]);
            }
            had_half |= ours.incoming.len() > 64;
            if let Poll::Ready(len) = ours.poll_write(&mut cx(), b"x", scratch) {
                sent += len.unwrap();
            }
            got == b"done"
        });
        assert!(had_half);
        let mut received = 0;
        until(|| {
            let _ = ours.poll_flush(&mut cx());
            theirs.turn().unwrap();
            received += theirs.read().len();
            received == sent
        });
    }
}

#[test]
fn who_does_not_belong_is_told_so() {
    let ca = Authority::new("ca");
    let one = ServerTls::build(spec(vec![ca.issue(&["a.test"])])).unwrap();
    let set = ServerTlsSet::builder().add(Some("a.test"), one).unwrap().build();
    let scratch = &mut Scratch::new();
    let config = trusting(Version::Tls13);
    let (near, far) = pipe(None);
    let mut ours = TlsStream::server(near, set.clone());
    let mut theirs = Buffered::client(&config, "b.test", far);
    let (our_end, their_end) = shake(&mut ours, &mut theirs, scratch);
    assert_eq!(our_end.unwrap_err().to_string(), "no TLS server for b.test");
    assert_eq!(their_end, Err(rustls::Error::AlertReceived(AlertDescription::UnrecognisedName)));

    let endless = [&[22, 3, 1, 0, 100, 1, 0, 255, 0][..], &[0; 95]].concat();
    let malformed = [&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0][..], &[0; 95]].concat();
    let cases: [(&[u8], &str, &[u8]); 5] = [
        (b"GET / HTTP/1.1\r\n", "plain HTTP where TLS is expected", b""),
        (b"PRI * HTTP/2.0\r\n", "plain HTTP where TLS is expected", b""),
        (b"SSH-2.0-OpenSSH\r\n", "not TLS", b""),
        (&endless, "ClientHello too long", &[21, 3, 3, 0, 2, 2, 22]),
        (&malformed, "malformed ClientHello", &[21, 3, 3, 0, 2, 2, 50]),
    ];
    for (bytes, expected, answer) in cases {
        let (near, far) = pipe(None);
        far.inject(bytes);
        let mut ours = TlsStream::server(near, set.clone());
        let Poll::Ready(Err(error)) = ours.poll_handshake(&mut cx(), scratch) else { panic!("{expected}") };
        assert_eq!(error.to_string(), expected);
        assert_eq!(far.drain(), answer, "{expected}");
        assert!(matches!(ours.poll_handshake(&mut cx(), scratch), Poll::Ready(Err(_))));
    }
    let (near, far) = pipe(None);
    far.close();
    let mut ours = TlsStream::server(near, set);
    assert!(matches!(ours.poll_handshake(&mut cx(), scratch), Poll::Ready(Err(HandshakeError::Closed))));
}

#[test]
fn bytes_read_before_by_somebody_else_are_taken_over() {
    let ca = Authority::new("ca");
    let scratch = &mut Scratch::new();
    let servers = ServerTlsSet::single(ServerTls::build(spec(vec![ca.issue(&["a.test"])])).unwrap());
    for cut in [1, 5, 100, usize::MAX] {
        let (near, far) = pipe(None);
        let config = Arc::new(client_config(&ca.roots(), Version::Tls13));
        let mut theirs = Buffered::client(&config, "a.test", far);
        theirs.turn().unwrap();
        let mut first = near.drain();
        let rest = first.split_off(cut.min(first.len()));
        theirs.end.inject(&rest);
        let mut ours = TlsStream::server_after(near, servers.clone(), first);
        let (our_end, their_end) = shake(&mut ours, &mut theirs, scratch);
        our_end.unwrap();
        their_end.unwrap();
    }
}

#[test]
fn a_handshake_takes_a_bounded_number_of_bytes() {
    let ca = Authority::new("ca");
    let limits = HandshakeLimits { bytes: 4096 };
    let spec = ServerSpec { limits, ..spec(vec![ca.issue(&["a.test"])]) };
    let (near, far) = pipe(None);
    let mut ours = server(spec, near);
    let mut theirs = Buffered::client(&trusting(Version::Tls13), "a.test", far);
    theirs.turn().unwrap();
    let scratch = &mut Scratch::new();
    assert!(ours.poll_handshake(&mut cx(), scratch).is_pending());
    // Half a record, slowly, without end.
    theirs.end.inject(&[23, 3, 3, 0x3f, 0xff]);
    let mut fed = 0;
    let error = loop {
        theirs.end.inject(&[0; 100]);
        fed += 100;
        assert!(fed < 10_000);
        if let Poll::Ready(result) = ours.poll_handshake(&mut cx(), scratch) {
            break result.unwrap_err();
        }
    };
    assert!(matches!(error, HandshakeError::TooManyBytes), "{error}");
    assert!(is_bufferless(&ours));
}

/// Flips bits in what is under way, cuts it, repeats it, or adds noise.
fn mangle(bytes: &mut Vec<u8>, rng: &mut Rng) {
    match rng.up_to(4) {
        1 if !bytes.is_empty() => {
            let at = rng.up_to(bytes.len()) - 1;
            bytes[at] ^= 1 << (rng.up_to(8) - 1);
        }
        2 => bytes.truncate(bytes.len() / 2),
        3 => bytes.extend_from_within(..),
        _ => {
            let noise = rng.up_to(400);
            bytes.extend(rng.bytes(noise));
        }
    }
}

#[test]
fn hostile_bytes_end_in_an_error_and_never_in_a_panic() {
    let ca = Authority::new("ca");
    let leaf = ca.issue(&["a.test"]);
    let servers = ServerTlsSet::single(ServerTls::build(spec(vec![leaf.clone()])).unwrap());
    let backend =
        ClientSpec { server_name: Some("a.test".to_owned()), ..ClientSpec::new(Verify::Insecure, "") };
    let backend = ClientTls::build(backend).unwrap();
    let scratch = &mut Scratch::new();
    let mut buf = [0; 2000];
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let (near, far) = pipe(None);
        let version = if seed % 2 == 0 { Version::Tls12 } else { Version::Tls13 };
        let (mut ours, mut theirs) = if seed % 4 < 2 {
            let config = Arc::new(client_config(&ca.roots(), version));
            (TlsStream::server(near, servers.clone()), Buffered::client(&config, "a.test", far))
        } else {
            let config = Arc::new(server_config(&leaf, version));
            (TlsStream::client(near, &backend, ENDPOINT).unwrap(), Buffered::server(&config, far))
        };
        let quiet = rng.up_to(12);
        let mut is_over = false;
        for turn in 0..40 {
            let _ = theirs.turn();
            if !theirs.tls.is_handshaking() {
                let _ = io::Write::write(&mut theirs.tls.writer(), b"data");
            }
            if turn >= quiet {
                let mut bytes = ours.transport().drain();
                mangle(&mut bytes, &mut rng);
                theirs.end.inject(&bytes);
            }
            let read = ours.poll_read(&mut cx(), &mut buf, scratch);
            let written = ours.poll_write(&mut cx(), b"answer", scratch);
            if is_over {
                assert!(matches!(written, Poll::Ready(Err(_))), "seed {seed}");
            }
            is_over |= matches!(read, Poll::Ready(Err(_)));
        }
        if is_over {
            assert!(ours.incoming.is_empty() && ours.plain.is_empty() && ours.pending.is_empty());
        }
    }
}

#[test]
fn a_stream_is_small() {
    assert!(size_of::<TlsStream<()>>() <= 160, "{}", size_of::<TlsStream<()>>());
}

#[test]
fn warnings_come_with_the_certificates() {
    let ca = Authority::new("ca");
    let tls = ServerTls::build(spec(vec![ca.issue(&["a.test"])])).unwrap();
    assert!(tls.warnings(1_800_000_000).is_empty());
    let late = tls.certificates()[0].not_after_unix + 1;
    assert!(matches!(tls.warnings(late)[..], [Warning::Expired { .. }]));
}
