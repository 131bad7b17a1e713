use std::net::{IpAddr, Ipv4Addr};
use std::task::{Context, Poll, Waker};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};

use super::*;
use crate::testing::{Authority, End, pipe};
use crate::{ClientTls, Scratch, ServerTls, ServerTlsSet, TlsStream};

const NOW: u64 = 1_900_000_000;

fn domain() -> TrustDomain {
    TrustDomain::parse("td.test").unwrap()
}

fn id(name: &str) -> SpiffeId {
    domain().workload("ns", name).unwrap()
}

fn bundle(authorities: &[&Authority]) -> Bundle {
    let text: Vec<u8> = authorities.iter().flat_map(|authority| authority.pem()).collect();
    Bundle::parse(&text, &domain(), "bundle.pem").unwrap()
}

/// A leaf as an issuer makes it, with something changed.
fn issue(
    authority: &Authority,
    uris: &[&str],
    change: impl FnOnce(&mut CertificateParams),
) -> crate::Certificate {
    authority.issue_with(&[], KeyPair::generate().unwrap(), |params| {
        params.distinguished_name = DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        change(params);
    })
}

/// A membership without the checks of [`Svid::parse`]: peers are not all honest.
fn member_with(certificate: crate::Certificate, bundle: Bundle) -> Membership {
    let facts =
        PeerSvid { id: id("anyone"), serial: "00".into(), not_before_unix: 0, not_after_unix: i64::MAX };
    let membership = Membership::new(domain());
    membership.swap_svid(Svid::forged(certificate, facts)).unwrap();
    membership.swap_bundle(bundle);
    membership
}

fn member(authority: &Authority, name: &str, trusted: &[&Authority]) -> Membership {
    member_with(issue(authority, &[id(name).as_str()], |_| {}), bundle(trusted))
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

struct Pair {
    client: TlsStream<End>,
    server: TlsStream<End>,
}

/// A handshake between two members, and one byte each way: TLS 1.3 tells a client that it is refused only then.
fn meet(client: &Membership, server: &Membership, expected: Expected) -> Result<Pair, [Option<String>; 2]> {
    let tls = ServerTls::member(server, MeshClient::Required, vec![b"h2".to_vec()]).unwrap();
    meet_at(client, tls, expected)
}

fn meet_at(client: &Membership, server: ServerTls, expected: Expected) -> Result<Pair, [Option<String>; 2]> {
    let (one, two) = pipe(None);
    let tls =
        ClientTls::member(client, expected, Some("80.a.ns.svc.td.test".to_owned()), vec![b"h2".to_vec()])
            .unwrap();
    let endpoint = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut pair = Pair {
        client: TlsStream::client(one, &tls, endpoint).unwrap(),
        server: TlsStream::server(two, ServerTlsSet::single(server)),
    };
    exchange(&mut pair)?;
    Ok(pair)
}

fn exchange(pair: &mut Pair) -> Result<(), [Option<String>; 2]> {
    let mut scratch = Scratch::new();
    let mut done = [None, None];
    let mut buf = [0; 8];
    let mut sent = [false; 2];
    for _ in 0..100 {
        for (at, stream) in [&mut pair.client, &mut pair.server].into_iter().enumerate() {
            if done[at].is_some() {
                continue;
            }
            if !sent[at] {
                match stream.poll_write(&mut cx(), b"x", &mut scratch) {
                    Poll::Ready(Ok(_)) => sent[at] = true,
                    Poll::Ready(Err(error)) => done[at] = Some(Err(error.to_string())),
                    Poll::Pending => {}
                }
            }
            if sent[at] && done[at].is_none() {
                match stream.poll_read(&mut cx(), &mut buf, &mut scratch) {
                    Poll::Ready(Ok(len)) => done[at] = Some(Ok(len)),
                    Poll::Ready(Err(error)) => done[at] = Some(Err(error.to_string())),
                    Poll::Pending => {}
                }
            }
        }
    }
    match done {
        [Some(Ok(1)), Some(Ok(1))] => Ok(()),
        done => Err(done.map(|one| one.and_then(Result::err))),
    }
}

fn refusal(client: &Membership, server: &Membership, expected: Expected) -> String {
    let errors = meet(client, server, expected).err().expect("refused");
    // Whoever refuses says why, the other one has an alert.
    errors.into_iter().flatten().find(|text| !text.contains("alert")).unwrap_or_default()
}

#[test]
fn members_know_each_other() {
    let ca = Authority::new("root");
    let (orders, users) = (member(&ca, "orders", &[&ca]), member(&ca, "users", &[&ca]));
    let pair = meet(&orders, &users, Expected::new([id("users"), id("users-v2")])).unwrap();
    assert_eq!(pair.server.peer_svid().unwrap().id, id("orders"));
    assert_eq!(pair.client.peer_svid().unwrap().id, id("users"));
    assert_eq!(pair.server.server_name(), Some("80.a.ns.svc.td.test"));
    assert_eq!(pair.server.alpn(), Some(&b"h2"[..]));
    assert_eq!(pair.server.version(), Some(crate::Version::Tls13));
}

#[test]
fn each_stranger_is_refused_by_the_server() {
    let (ca, other) = (Authority::new("root"), Authority::new("other"));
    let users = member(&ca, "users", &[&ca]);
    let uri = id("orders");
    let uri = uri.as_str();
    let both = &[&ca, &other];
    let cases: Vec<(&str, Membership, &str)> = vec![
        ("other authority", member(&other, "orders", both), "UnknownIssuer"),
        (
            "other trust domain",
            member_with(issue(&ca, &["spiffe://other.test/ns/ns/sa/orders"], |_| {}), bundle(both)),
            "of another trust domain",
        ),
        (
            "expired",
            member_with(
                issue(&ca, &[uri], |params| {
                    params.not_before = date_time_ymd(2020, 1, 1);
                    params.not_after = date_time_ymd(2020, 1, 2);
                }),
                bundle(both),
            ),
            "certificate expired",
        ),
        (
            "not yet valid",
            member_with(
                issue(&ca, &[uri], |params| params.not_before = date_time_ymd(2200, 1, 1)),
                bundle(both),
            ),
            "certificate not valid yet",
        ),
        (
            "two identities",
            member_with(issue(&ca, &[uri, id("admin").as_str()], |_| {}), bundle(both)),
            "more than one URI",
        ),
        ("no identity", member_with(issue(&ca, &[], |_| {}), bundle(both)), "no URI"),
        (
            "identity of the domain itself",
            member_with(issue(&ca, &["spiffe://td.test"], |_| {}), bundle(both)),
            "has no path",
        ),
        (
            "may sign",
            member_with(
                issue(&ca, &[uri], |params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)),
                bundle(both),
            ),
            "key usage is not",
        ),
        (
            "for servers only",
            member_with(
                issue(&ca, &[uri], |params| {
                    params.extended_key_usages.retain(|usage| *usage == ExtendedKeyUsagePurpose::ServerAuth);
                }),
                bundle(both),
            ),
            "",
        ),
        ("no certificate", Membership::new(domain()), ""),
    ];
    for (what, client, expected) in cases {
        client.swap_bundle(bundle(both));
        let why = refusal(&client, &users, Expected::new([id("users")]));
        assert!(why.contains(expected), "{what}: {why}");
    }
    assert!(meet(&member(&ca, "orders", both), &users, Expected::new([id("users")])).is_ok());
}

#[test]
fn a_server_that_is_somebody_else_is_refused() {
    let (ca, other) = (Authority::new("root"), Authority::new("other"));
    let orders = member(&ca, "orders", &[&ca]);
    let both = &[&ca, &other];
    for (what, server, expected) in [
        ("another service", member(&ca, "admin", both), vec![id("users")]),
        ("nobody expected", member(&ca, "users", both), vec![]),
        ("other authority", member(&other, "users", both), vec![id("users")]),
    ] {
        assert!(meet(&orders, &server, Expected::new(expected)).is_err(), "{what}");
    }
}

#[test]
fn certificates_and_roots_change_under_live_settings() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (client, server) = (member(&old, "orders", &[&old]), member(&old, "users", &[&old]));
    let expected = Expected::new([id("users")]);
    let mut first = meet(&client, &server, expected.clone()).unwrap();

    // The new root is known to everybody before it signs anything.
    for membership in [&client, &server] {
        membership.swap_bundle(bundle(&[&old, &new]));
    }
    assert!(meet(&client, &server, expected.clone()).is_ok());
    let renewed = Svid::forged(
        issue(&new, &[id("orders").as_str()], |_| {}),
        PeerSvid { serial: "01".into(), ..client.svid().unwrap().facts().clone() },
    );
    client.swap_svid(renewed).unwrap();
    assert!(meet(&client, &server, expected.clone()).is_ok());
    server.swap_bundle(bundle(&[&new]));
    assert!(meet(&client, &server, expected.clone()).is_ok());

    // A client still with the old root does not take a server of the new one, and connections live on.
    client.swap_bundle(bundle(&[&new]));
    assert!(meet(&client, &server, expected).is_err());
    exchange(&mut first).unwrap();
}

#[test]
fn sessions_are_not_resumed() {
    let ca = Authority::new("root");
    let (client, server) = (member(&ca, "orders", &[&ca]), member(&ca, "users", &[&ca]));
    let server = ServerTls::member(&server, MeshClient::Required, Vec::new()).unwrap();
    for _ in 0..3 {
        let pair = meet_at(&client, server.clone(), Expected::new([id("users")])).unwrap();
        assert!(!pair.server.is_resumed());
    }
}

#[test]
fn a_client_without_certificate_is_let_in_where_members_come_to_be() {
    let (ca, other) = (Authority::new("root"), Authority::new("other"));
    let server =
        ServerTls::member(&member(&ca, "control", &[&ca]), MeshClient::Optional, Vec::new()).unwrap();
    let stranger = Membership::new(domain());
    stranger.swap_bundle(bundle(&[&ca]));
    let expected = Expected::new([id("control")]);
    let pair = meet_at(&stranger, server.clone(), expected.clone()).unwrap();
    assert_eq!(pair.server.peer_svid(), None);
    let impostor = member(&other, "orders", &[&ca, &other]);
    assert!(meet_at(&impostor, server, expected).is_err());
}

#[test]
fn what_is_revoked_is_refused_and_may_not_stay() {
    let ca = Authority::new("root");
    let (client, server) = (member(&ca, "orders", &[&ca]), member(&ca, "users", &[&ca]));
    let expected = Expected::new([id("users")]);
    let peer = meet(&client, &server, expected.clone()).unwrap().server.peer_svid().unwrap();

    let mut by_serial = Revocations::default();
    assert!(by_serial.push_serial(Arc::clone(&peer.serial)));
    let mut by_identity = Revocations::default();
    assert!(by_identity.push_identity(id("orders"), peer.not_before_unix));
    for (turn, revoked) in [by_serial, by_identity].into_iter().enumerate() {
        assert!(server.admits(&peer));
        server.revoke(revoked.clone());
        server.revoke(revoked);
        assert_eq!(server.generation(), 2 * turn as u64 + 1);
        assert!(!server.admits(&peer));
        assert!(refusal(&client, &server, expected.clone()).contains("Revoked"));
        server.revoke(Revocations::default());
    }
    let mut earlier = Revocations::default();
    earlier.push_identity(id("orders"), peer.not_before_unix - 1);
    earlier.push_identity(id("other"), i64::MAX);
    earlier.push_serial("00ff".into());
    server.revoke(earlier);
    assert!(server.admits(&peer));
    assert!(meet(&client, &server, expected).is_ok());
}

#[test]
fn an_svid_that_its_own_bundle_does_not_trust_is_not_taken() {
    let (ca, other) = (Authority::new("root"), Authority::new("other"));
    let svid = || {
        let certificate = issue(&ca, &[id("orders").as_str()], |_| {});
        let facts = PeerSvid::parse(certificate.key().cert.first().unwrap()).unwrap();
        Svid::forged(certificate, facts)
    };
    let membership = Membership::new(domain());
    let error = membership.swap(svid(), bundle(&[&other]), NOW).unwrap_err();
    assert!(matches!(error.problem, Problem::NotTrusted(_)), "{error}");
    assert!(!membership.is_ready());
    membership.swap(svid(), bundle(&[&other, &ca]), NOW).unwrap();
    assert!(membership.is_ready());
    assert_eq!(membership.id(), Some(id("orders")));
    let error = Membership::new(TrustDomain::parse("b.test").unwrap()).swap_svid(svid()).unwrap_err();
    assert!(error.to_string().contains("not of the trust domain \"b.test\""), "{error}");
}

#[test]
fn facts_of_roots_are_read() {
    let (ca, other) = (Authority::new("root"), Authority::new("other"));
    let infos = bundle(&[&ca, &other]).infos();
    let subjects: Vec<&str> = infos.iter().map(|info| info.subject.as_str()).collect();
    assert_eq!(subjects, ["CN=root", "CN=other"]);
    assert!(
        Bundle::parse(b"", &domain(), "empty.pem").unwrap_err().to_string().contains("no CA certificate")
    );
}

#[test]
fn members_without_an_svid_fail_each_handshake() {
    let ca = Authority::new("root");
    let empty = Membership::new(domain());
    let full = member(&ca, "users", &[&ca]);
    assert!(meet(&empty, &full, Expected::new([id("users")])).is_err());
    assert!(meet(&full, &empty, Expected::new([id("users")])).is_err());
}

#[test]
fn a_newcomer_knows_the_issuer_by_its_root() {
    let (ca, other) = (Authority::new("root"), Authority::new("other"));
    let hash = |authority: &Authority| bundle(&[authority]).infos()[0].fingerprint;
    let present = |authority: &Authority, name: &str, with_root: bool| {
        let mut certificate = issue(authority, &[id(name).as_str()], |_| {});
        if with_root {
            certificate = certificate.with_more(bundle(&[authority]).roots());
        }
        let server = member_with(certificate, bundle(&[authority]));
        ServerTls::member(&server, MeshClient::Optional, Vec::new()).unwrap()
    };
    let join = |server: ServerTls, pins: Vec<[u8; 32]>| {
        let (one, two) = pipe(None);
        let tls =
            ClientTls::pinned(&Membership::new(domain()), pins, Expected::new([id("control")]), Vec::new())
                .unwrap();
        let mut pair = Pair {
            client: TlsStream::client(one, &tls, IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap(),
            server: TlsStream::server(two, ServerTlsSet::single(server)),
        };
        exchange(&mut pair)
    };
    assert!(join(present(&ca, "control", true), vec![hash(&other), hash(&ca)]).is_ok());
    assert!(join(present(&ca, "control", false), vec![hash(&ca)]).is_err());
    assert!(join(present(&ca, "orders", true), vec![hash(&ca)]).is_err());
    assert!(join(present(&other, "control", true), vec![hash(&ca)]).is_err());
    // The right root beside a chain that does not lead to it proves nothing.
    let impostor = issue(&other, &[id("control").as_str()], |_| {}).with_more(bundle(&[&ca]).roots());
    let server = member_with(impostor, bundle(&[&ca]));
    let server = ServerTls::member(&server, MeshClient::Optional, Vec::new()).unwrap();
    assert!(join(server, vec![hash(&ca)]).is_err());
}

#[test]
fn what_is_void_stays_void_when_somebody_who_is_behind_says_less() {
    let membership = Membership::new(domain());
    let serial = |serial: &str| PeerSvid {
        id: id("orders"),
        serial: serial.into(),
        not_before_unix: 0,
        not_after_unix: i64::MAX,
    };
    let list = |serials: &[&str], number| {
        let mut list = Revocations::default();
        for serial in serials {
            list.push_serial((*serial).into());
        }
        list.numbered(number)
    };
    membership.revoke(list(&["01", "02"], 2));
    let generation = membership.generation();
    membership.revoke(list(&["01"], 1));
    assert!(!membership.admits(&serial("02")));
    assert_eq!(membership.generation(), generation);
    membership.revoke(list(&["03"], 1));
    assert!(!membership.admits(&serial("02")) && !membership.admits(&serial("03")));
    membership.revoke(list(&["01"], 3));
    assert!(membership.admits(&serial("02")));
}
