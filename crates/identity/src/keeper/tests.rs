use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rhumb_tls::mesh::MeshClient;
use rhumb_tls::{AsyncTls, ServerTls, ServerTlsSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::testing::{Served, domain, id, lifetimes, until};
use crate::workload_api::{WorkloadClient, WorkloadServer};
use crate::{Kubernetes, KubernetesSettings, Lifetimes, system_clock};

#[tokio::test]
async fn a_newcomer_joins_with_a_token_and_starts_from_disk_afterwards() {
    let served = Served::start(Lifetimes::default(), None).await;
    let home = tempfile::tempdir().unwrap();
    let keeper = served.keeper("orders", home.path());
    assert!(!keeper.membership().is_ready());
    keeper.obtain().await.unwrap();
    assert_eq!(keeper.membership().id(), Some(id("orders")));
    assert_eq!(served.issuer.counts().by_token, 1);

    // The second time the SVID is the proof, and the key is another one.
    let first = keeper.membership().svid().unwrap();
    keeper.obtain().await.unwrap();
    assert_eq!(served.issuer.counts().renewed, 1);
    let second = keeper.membership().svid().unwrap();
    assert_ne!(first.facts().serial, second.facts().serial);
    assert_ne!(first.private_key().secret_der(), second.private_key().secret_der());

    // Without any issuer, what is on disk will do.
    drop(served);
    let settings = KeeperSettings {
        issuers: vec!["127.0.0.1:1".to_owned()],
        joining: Joining::Nothing,
        directory: home.path().to_owned(),
    };
    let again = Keeper::open(Membership::new(domain()), settings, system_clock()).unwrap();
    again.ready().await;
    assert_eq!(again.membership().svid().unwrap().facts(), second.facts());
    assert!(matches!(again.obtain().await, Err(NotKept::Unreachable { .. })));
    let file = std::fs::metadata(home.path().join("svid.json")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o777, 0o600);
}

#[tokio::test]
async fn strangers_are_given_nothing() {
    let served = Served::start(Lifetimes::default(), None).await;
    let other = Served::start(Lifetimes::default(), None).await;
    let home = || tempfile::tempdir().unwrap();

    // A token of another issuer: its root is not the one behind this server's chain.
    let now = system_clock()();
    let theirs = other.issuer.authority().bundle(now).unwrap();
    let token = other.issuer.tokens().create(&id("a"), &theirs, now + 60, now).unwrap();
    let dir = home();
    let error = served.keeper_with(Joining::Token(token), dir.path()).obtain().await.unwrap_err();
    assert!(error.to_string().contains("has not sent the root"), "{error}");

    // The right root, and a secret that nobody made.
    let ours = served.issuer.authority().bundle(now).unwrap();
    let token = other.issuer.tokens().create(&id("a"), &ours, now + 60, now).unwrap();
    let dir = home();
    let error = served.keeper_with(Joining::Token(token), dir.path()).obtain().await.unwrap_err();
    assert!(error.to_string().contains("the proof of identity does not hold"), "{error}");

    // Used by somebody else before.
    let token = served.issuer.tokens().create(&id("a"), &ours, now + 60, now).unwrap();
    let (one, two) = (home(), home());
    served.keeper_with(Joining::Token(token.clone()), one.path()).obtain().await.unwrap();
    let error = served.keeper_with(Joining::Token(token), two.path()).obtain().await.unwrap_err();
    assert!(matches!(error, NotKept::Refused { .. }), "{error}");
    assert!(served.issuer.counts().refused >= 2);
}

#[tokio::test]
async fn what_is_revoked_is_known_everywhere_and_not_renewed() {
    let served = Served::start(Lifetimes::default(), None).await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (orders, users) = (served.keeper("orders", one.path()), served.keeper("users", two.path()));
    let tasks = [tokio::spawn(Arc::clone(&orders).run()), tokio::spawn(Arc::clone(&users).run())];
    orders.ready().await;
    users.ready().await;
    until("both follow", || orders.status().follows && users.status().follows).await;

    let peer = orders.membership().svid().unwrap().facts().clone();
    assert!(users.membership().admits(&peer));
    let generation = users.membership().generation();
    // As another process does it: through the files.
    let now = system_clock()();
    let authority =
        crate::Authority::open(served.directory.path(), &domain(), Lifetimes::default(), now).unwrap();
    let begun = Instant::now();
    authority.revoke_identity(&id("orders"), now).unwrap();
    until("the revocation has come", || users.membership().generation() != generation).await;
    eprintln!("a revocation is with the members after {:?}", begun.elapsed());
    assert!(!users.membership().admits(&peer));
    assert!(users.membership().admits(users.membership().svid().unwrap().facts()));
    let error = orders.obtain().await.unwrap_err();
    assert!(matches!(error, NotKept::Refused { .. } | NotKept::Unreachable { .. }), "{error}");
    tasks.into_iter().for_each(|task| task.abort());
}

#[tokio::test]
async fn a_service_account_of_kubernetes_is_a_proof() {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use rhumb_base::base64::encode_url;

    let cluster = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = cluster.public_key().as_ref();
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("jwks.json");
    let (x, y) = (encode_url(&point[1..33]), encode_url(&point[33..]));
    let set = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"k","x":"{x}","y":"{y}"}}]}}"#);
    std::fs::write(&keys, set).unwrap();
    let keys = crate::Keys::File(keys);
    let settings = KubernetesSettings { issuer: "https://cluster".into(), audience: "rhumb".into(), keys };
    let served = Served::start(Lifetimes::default(), Some(Kubernetes::open(settings).unwrap())).await;
    let now = system_clock()();
    let bundle = dir.path().join("bundle.pem");
    let roots = served.issuer.authority().bundle(now).unwrap();
    std::fs::write(&bundle, pem::of_certificates(roots.roots())).unwrap();

    let join = |claims: String| {
        let part = |text: &str| encode_url(text.as_bytes());
        let signed = format!("{}.{}", part(r#"{"alg":"ES256","kid":"k"}"#), part(&claims));
        let random = aws_lc_rs::rand::SystemRandom::new();
        let signature = cluster.sign(&random, signed.as_bytes()).unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, format!("{signed}.{}\n", encode_url(signature.as_ref()))).unwrap();
        let home = tempfile::tempdir().unwrap();
        let joining = Joining::Kubernetes { token, bundle: bundle.clone() };
        let keeper = served.keeper_with(joining, home.path());
        async move {
            let result = keeper.obtain().await;
            drop(home);
            result.map(|()| keeper.membership().id())
        }
    };
    let claims = |iss: &str, aud: &str, exp: u64, sub: &str| {
        format!(r#"{{"iss":"{iss}","aud":["{aud}"],"exp":{exp},"sub":"{sub}"}}"#)
    };
    let account = "system:serviceaccount:shop:orders";
    let good = join(claims("https://cluster", "rhumb", now + 600, account)).await;
    assert_eq!(good.unwrap(), Some(id("orders")));
    for bad in [
        claims("https://other", "rhumb", now + 600, account),
        claims("https://cluster", "https://kubernetes.default", now + 600, account),
        claims("https://cluster", "rhumb", now - 600, account),
        claims("https://cluster", "rhumb", now + 600, "system:node:a"),
        claims("https://cluster", "rhumb", now + 600, "system:serviceaccount:rhumb-system:control"),
        claims("https://cluster", "rhumb", now + 600, "system:serviceaccount:a/b:c"),
    ] {
        assert!(matches!(join(bad.clone()).await, Err(NotKept::Refused { .. })), "{bad}");
    }
}

#[tokio::test]
async fn an_app_gets_the_svid_of_its_proxy_through_the_workload_api() {
    let served = Served::start(Lifetimes::default(), None).await;
    let home = tempfile::tempdir().unwrap();
    let keeper = served.keeper("orders", home.path());
    let socket = home.path().join("run").join("api.sock");
    let server = WorkloadServer::bind(&socket, Vec::new()).unwrap();
    let serving = tokio::spawn(server.serve(keeper.membership().clone()));
    let app = Membership::new(domain());
    let address = format!("unix://{}", socket.display());
    let client = WorkloadClient::new(&address, Some(id("orders")), app.clone(), system_clock());
    let running = tokio::spawn(Arc::clone(&client).run());
    until("the app is told that there is none", || client.error().is_some()).await;
    assert!(client.error().unwrap().contains("no identity issued"), "{:?}", client.error());

    keeper.obtain().await.unwrap();
    client.ready().await;
    assert_eq!(app.id(), Some(id("orders")));
    assert_eq!(app.bundle(), keeper.membership().bundle());
    keeper.obtain().await.unwrap();
    let renewed = keeper.membership().svid().unwrap().facts().clone();
    until("the app has the new one", || app.svid().is_some_and(|svid| *svid.facts() == renewed)).await;
    running.abort();
    serving.abort();
}

/// How long a leaf lives in the test below. Unit: seconds.
const SHORT: u64 = 20;

/// Two roots come and go under load, each in two lives of a leaf; members renew all the time. No handshake may fail. The seconds
/// are those of the test: each is as long as it takes.
#[tokio::test]
async fn no_handshake_fails_while_the_root_is_rotated_twice() {
    let time = Arc::new(AtomicU64::new(system_clock()()));
    let clock: Clock = {
        let time = Arc::clone(&time);
        Arc::new(move || time.load(Ordering::Relaxed))
    };
    let served = Served::start_by(Arc::clone(&clock), lifetimes(SHORT), None).await;
    let homes: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let names = ["orders", "users", "stock"];
    let keepers: Vec<_> =
        names.iter().zip(&homes).map(|(name, home)| served.keeper(name, home.path())).collect();
    let mut tasks = Vec::new();
    // Each member serves, and answers a byte with a byte.
    let mut addresses = Vec::new();
    for keeper in &keepers {
        keeper.obtain().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap());
        let tls = ServerTls::member(keeper.membership(), MeshClient::Required, Vec::new()).unwrap();
        tasks.push(tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let tls = tls.clone();
                tokio::spawn(async move {
                    let mut io = AsyncTls::accept(stream, ServerTlsSet::single(tls)).await?;
                    let byte = io.read_u8().await?;
                    io.write_u8(byte).await?;
                    io.flush().await?;
                    io.read_u8().await
                });
            }
        }));
    }
    let mut rng = Rng::new(1);
    let (mut handshakes, mut renewals) = (0, [0; 3]);
    let mut rotated = Vec::new();
    let mut due: Vec<u64> = keepers.iter().map(|keeper| keeper.due(&mut rng)).collect();
    while rotated.len() < 2 || served.issuer.authority().forecast().roots > 1 {
        let now = time.fetch_add(1, Ordering::Relaxed) + 1;
        served.issuer.turn().unwrap();
        if rotated.len() < 2 && served.issuer.rotate_root().is_ok() {
            rotated.push(now);
        }
        for (at, keeper) in keepers.iter().enumerate() {
            // What is to be trusted is heard of a second later now and then.
            if rng.below(2) == 0 {
                let trust = served.issuer.trust().unwrap().borrow().clone();
                keeper.trust(&trust).unwrap();
            }
            if due[at] <= now {
                keeper.obtain().await.unwrap();
                due[at] = keeper.due(&mut rng);
                renewals[at] += 1;
            }
        }
        for (from, keeper) in keepers.iter().enumerate() {
            for (to, address) in addresses.iter().enumerate() {
                let expected = Expected::new([id(names[to])]);
                let tls = ClientTls::member(keeper.membership(), expected, None, Vec::new()).unwrap();
                let called = async {
                    let stream = TcpStream::connect(address).await?;
                    let mut io = AsyncTls::connect(stream, &tls, address.ip()).await?;
                    io.write_u8(7).await?;
                    io.flush().await?;
                    io.read_u8().await
                };
                let called = called.await;
                assert!(called.is_ok(), "{from} to {to} at {now}, rotated at {rotated:?}: {called:?}");
                handshakes += 1;
            }
        }
    }
    eprintln!(
        "{handshakes} handshakes, roots began at {rotated:?}, {renewals:?} SVIDs of {SHORT} s per member"
    );
    assert!(rotated[1] - rotated[0] >= 2 * SHORT);
    assert!(renewals.iter().all(|count| *count >= 4), "{renewals:?}");
    tasks.into_iter().for_each(|task| task.abort());
}
