use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rcgen::{CertificateParams, KeyPair};
use rhumb_base::base64::encode_url;
use rhumb_tls::{Certificate, CertificateSource, ServerSpec, ServerTls, ServerTlsSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::testing::{domain, id, until};
use crate::{Keys, Kubernetes, KubernetesSettings};

/// An API server that has keys, or none at the moment.
struct Cluster {
    origin: String,
    directory: tempfile::TempDir,
    answers: Arc<Mutex<Answers>>,
    serving: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Answers {
    discovery: String,
    keys: Option<String>,
    heads: Vec<String>,
}

impl Cluster {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(directory.path().join("ca.crt"), certificate.pem()).unwrap();
        std::fs::write(directory.path().join("token"), "of-the-control-plane\n").unwrap();
        let source = CertificateSource {
            chain: certificate.pem().into(),
            key: key.serialize_pem().into(),
            origin: "test".into(),
        };
        let mut spec = ServerSpec::new(vec![Certificate::parse(&source).unwrap()], "test");
        spec.alpn = vec![b"http/1.1".to_vec()];
        let tls = ServerTlsSet::single(ServerTls::build(spec).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let answers = Arc::new(Mutex::new(Answers {
            discovery: format!(r#"{{"issuer":"{origin}","jwks_uri":"{origin}/openid/v1/jwks"}}"#),
            ..Answers::default()
        }));
        let known = Arc::clone(&answers);
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, known) = (tls.clone(), Arc::clone(&known));
                tokio::spawn(async move {
                    let mut io = AsyncTls::accept(stream, tls).await.ok()?;
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(io.read_u8().await.ok()?);
                    }
                    let head = String::from_utf8(head).unwrap();
                    let answer = {
                        let mut known = known.lock().unwrap();
                        let content = match head.split(' ').nth(1) {
                            Some("/.well-known/openid-configuration") => Some(known.discovery.clone()),
                            Some("/openid/v1/jwks") => known.keys.clone(),
                            _ => None,
                        };
                        known.heads.push(head);
                        match content {
                            Some(text) => {
                                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
                            }
                            None => "HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned(),
                        }
                    };
                    io.write_all(answer.as_bytes()).await.ok()?;
                    io.flush().await.ok()
                });
            }
        });
        Self { origin, directory, answers, serving }
    }

    fn has(&self, keys: Option<&Key>) {
        self.answers.lock().unwrap().keys = keys.map(|key| format!(r#"{{"keys":[{}]}}"#, key.public));
    }

    fn asked(&self) -> usize {
        self.answers.lock().unwrap().heads.len()
    }

    fn from(&self) -> FetchedKeys {
        let file = |name| Some(self.directory.path().join(name));
        FetchedKeys { url: None, roots: file("ca.crt"), token: file("token") }
    }

    fn kubernetes(&self) -> Arc<Kubernetes> {
        let keys = Keys::Fetched(self.from());
        let settings = KubernetesSettings { issuer: self.origin.clone(), audience: "rhumb".into(), keys };
        Arc::new(Kubernetes::open(settings).unwrap())
    }

    fn token(&self, key: &Key) -> String {
        let part = |text: &str| encode_url(text.as_bytes());
        let head = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, key.id);
        let claims = format!(
            r#"{{"iss":"{}","aud":["rhumb"],"exp":2000,"sub":"system:serviceaccount:shop:orders"}}"#,
            self.origin
        );
        let signed = format!("{}.{}", part(&head), part(&claims));
        let random = aws_lc_rs::rand::SystemRandom::new();
        let signature = key.pair.sign(&random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode_url(signature.as_ref()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A key of the cluster.
struct Key {
    id: &'static str,
    pair: EcdsaKeyPair,
    public: String,
}

impl Key {
    fn make(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = (encode_url(&point[1..33]), encode_url(&point[33..]));
        let public = format!(r#"{{"kty":"EC","crv":"P-256","kid":"{id}","x":"{x}","y":"{y}"}}"#);
        Self { id, pair, public }
    }
}

#[tokio::test]
async fn keys_are_found_through_the_issuer_kept_while_it_is_away_and_fetched_for_an_unknown_one() {
    let cluster = Cluster::start().await;
    let (first, second) = (Key::make("first"), Key::make("second"));
    let kubernetes = cluster.kubernetes();
    let identify = |key: &Key| kubernetes.identify(cluster.token(key).as_bytes(), &domain(), 1000);
    assert!(identify(&first).unwrap_err().to_string().contains("not known yet"));
    cluster.has(Some(&first));
    let following = Arc::clone(&kubernetes);
    let following = tokio::spawn(async move { following.follow().await });
    until("the keys are fetched", || identify(&first).is_ok()).await;
    assert_eq!(identify(&first).unwrap(), id("orders"));
    let shown = cluster.answers.lock().unwrap().heads.clone();
    let is_shown =
        |head: &String| head.to_ascii_lowercase().contains("authorization: bearer of-the-control-plane\r\n");
    assert!(shown.iter().all(is_shown), "{shown:?}");

    // It is away: somebody with a key that is not known has it asked, and who was let in before still is.
    cluster.has(None);
    let asked = cluster.asked();
    assert!(identify(&second).is_err());
    until("it is asked", || cluster.asked() >= asked + 2).await;
    assert!(identify(&first).is_ok() && identify(&second).is_err());
    cluster.has(Some(&second));
    until("the new key is fetched", || identify(&second).is_ok()).await;
    assert!(identify(&first).is_err());
    following.abort();
}

#[tokio::test]
async fn what_a_discovery_document_may_not_say_is_refused() {
    let cluster = Cluster::start().await;
    cluster.has(Some(&Key::make("k")));
    let origin = &cluster.origin;
    assert!(fetch(origin, &cluster.from()).await.is_ok());
    for (discovery, why) in [
        (format!(r#"{{"issuer":"https://other","jwks_uri":"{origin}/openid/v1/jwks"}}"#), "of the issuer"),
        (format!(r#"{{"issuer":"{origin}","jwks_uri":"https://other/keys"}}"#), "the keys are elsewhere"),
        (format!(r#"{{"issuer":"{origin}"}}"#), "missing field"),
        (" ".repeat(1024 * 1024 + 1), "more than"),
        (format!(r#"{{"issuer":"{}","jwks_uri":"{origin}"}}"#, "x".repeat(100_000)), "of the issuer"),
    ] {
        cluster.answers.lock().unwrap().discovery = discovery;
        let error = fetch(origin, &cluster.from()).await.unwrap_err();
        assert!(error.contains(why) && error.len() <= TOLD, "{error}");
    }
    // Nobody who cannot prove to be the server is shown the token.
    let shown = cluster.asked();
    let other = tempfile::tempdir().unwrap();
    let roots = other.path().join("ca.crt");
    let stranger = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
    std::fs::write(&roots, stranger.pem()).unwrap();
    let from = FetchedKeys { roots: Some(roots), ..cluster.from() };
    assert!(fetch(origin, &from).await.is_err());
    assert!(
        fetch(&origin.replace("https", "http"), &cluster.from()).await.unwrap_err().contains("https only")
    );
    assert_eq!(cluster.asked(), shown);
    // Where the configuration says where the keys are, nobody else is asked.
    let from = FetchedKeys { url: Some(format!("{origin}/openid/v1/jwks")), ..cluster.from() };
    assert!(fetch("https://other", &from).await.is_ok());
}
