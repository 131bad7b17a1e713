//! Tokens that are signed here, against the policy as users write it.

use std::cell::RefCell;
use std::rc::Rc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA512,
    RsaKeyPair,
};
use rhumb_base::base64::encode_url;
use rhumb_base::failure::Failure;
use rhumb_codec::field::Fields;
use rhumb_codec::head::Scheme;
use serde_json::json;

use super::*;
use crate::call::{Answer, Call, Caller, Event, Local, Out};
use crate::context::{Keeper, NoDocuments, Remote};
use crate::exchange::Reply;
use rhumb_codec::field::{FieldName, Known};

const NOW: u64 = 2_000_000_000;

enum Signer {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Secret(Vec<u8>),
}

impl Signer {
    fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    fn sign(&self, algorithm: &str, signed: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ed(key) => key.sign(signed).as_ref().to_vec(),
            Self::Ec(key) => key.sign(&random, signed).unwrap().as_ref().to_vec(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let padding: &'static dyn aws_lc_rs::signature::RsaEncoding =
                    if algorithm == "PS512" { &RSA_PSS_SHA512 } else { &RSA_PKCS1_SHA256 };
                key.sign(padding, &random, signed, &mut signature).unwrap();
                signature
            }
            Self::Secret(secret) => {
                let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
                aws_lc_rs::hmac::sign(&key, signed).as_ref().to_vec()
            }
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = format!(
            "{}.{}",
            encode_url(header.to_string().as_bytes()),
            encode_url(claims.to_string().as_bytes())
        );
        let algorithm = header["alg"].as_str().unwrap_or_default();
        let signature = encode_url(&self.sign(algorithm, signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Ed(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": encode_url(key.public_key().as_ref()) })
            }
            Self::Ec(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": encode_url(x), "y": encode_url(y) })
            }
            Self::Rsa(key) => {
                // RFC 8017 §A.1.1, of 2048 bits with the usual exponent: the modulus begins behind nine octets of tags.
                let modulus = &key.public_key().as_ref()[9..265];
                json!({ "kty": "RSA", "kid": id, "n": encode_url(modulus), "e": "AQAB" })
            }
            Self::Secret(_) => panic!("a secret is not published"),
        }
    }
}

fn claims() -> Value {
    json!({ "iss": "https://id.test", "aud": ["api", "b"], "sub": "ann", "exp": NOW + 60, "scope": "read write",
        "realm": { "roles": ["admin", "dev"] }, "email_verified": true })
}

fn with(change: Value) -> Value {
    let mut claims = claims();
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn compile(spec: Value) -> Result<Jwt, Invalid> {
    let (mut documents, keeper) = (NoDocuments, Keeper::default());
    let mut cx = Context::new("default", "test", &mut documents, &keeper);
    Jwt::compile(serde_json::from_value(spec).unwrap(), &mut cx)
}

fn request(token: &str) -> RequestHead {
    let mut req = RequestHead::new();
    req.set_target(b"/");
    if !token.is_empty() {
        req.fields.append(Known::Authorization, format!("Bearer {token}").as_bytes());
    }
    req
}

fn exchange(out: Option<&Out>) -> Exchange<'_> {
    let client = std::net::Ipv4Addr::LOCALHOST.into();
    Exchange { unix_nanos: NOW * 1_000_000_000, out, ..Exchange::new(client, Scheme::Http, 80) }
}

fn ask(policy: &Jwt, token: &str) -> Result<(RequestHead, Arc<Principal>), Box<Reply>> {
    let (mut req, mut cx) = (request(token), exchange(None));
    match policy.on_request(&mut req, &mut (), &mut cx) {
        Verdict::Continue => Ok((req, cx.found.principal.unwrap())),
        Verdict::Respond(reply) => Err(reply),
        _ => panic!("neither passed nor refused"),
    }
}

fn cause(result: Result<(RequestHead, Arc<Principal>), Box<Reply>>) -> Option<(Cause, String)> {
    let reply = result.err()?;
    let challenge = reply.head.fields.get(Known::WwwAuthenticate).unwrap_or_default();
    Some((reply.cause.unwrap(), String::from_utf8(challenge.to_vec()).unwrap()))
}

#[test]
fn a_good_token_says_who_asks() {
    let key = Signer::ed();
    let policy = compile(json!({
        "issuer": "https://id.test", "audiences": ["api"], "jwks": { "inline": { "keys": [key.jwk("k1")] } },
        "scopes": ["read"], "requiredClaims": [{ "claim": "/realm/roles", "values": ["admin"] }, { "claim": "email_verified" }],
        "claimsToFields": [{ "claim": "sub", "name": "x-user" }, { "claim": "/realm/roles", "name": "x-roles" }, { "claim": "none", "name": "x-none" }],
        "forward": false,
    }))
    .unwrap();
    let token = key.token(&json!({ "alg": "EdDSA", "kid": "k1" }), &claims());
    // Twice: once checked, once known again.
    for _ in 0..2 {
        let (mut req, mut cx) = (request(&token), exchange(None));
        for name in ["x-user", "x-none"] {
            req.fields.append_raw(Known::Other, name.as_bytes(), b"root");
        }
        assert!(matches!(policy.on_request(&mut req, &mut (), &mut cx), Verdict::Continue));
        let principal = cx.found.principal.unwrap();
        assert_eq!(
            (principal.method, &*principal.subject, &*principal.issuer),
            ("jwt", "ann", "https://id.test")
        );
        assert_eq!(&*principal.scopes, ["read".into(), "write".into()]);
        let field = |name: &str| req.fields.find(&FieldName::parse(name.as_bytes()).unwrap());
        assert_eq!((field("x-user"), field("x-roles")), (Some(&b"ann"[..]), Some(&b"admin,dev"[..])));
        assert_eq!((field("x-none"), field("authorization")), (None, None));
    }
}

#[test]
fn every_algorithm_is_checked_with_a_key_of_its_type() {
    let rsa = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let signers = [
        ("EdDSA", Signer::ed()),
        ("ES256", Signer::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())),
        ("RS256", Signer::Rsa(rsa)),
    ];
    let keys: Vec<Value> = signers.iter().map(|(name, signer)| signer.jwk(name)).collect();
    let policy = compile(json!({ "jwks": { "inline": json!({ "keys": keys }).to_string() } })).unwrap();
    for (name, signer) in &signers {
        let token = signer.token(&json!({ "alg": name, "kid": name }), &claims());
        assert!(ask(&policy, &token).is_ok(), "{name}");
        // Without an id every fitting key is tried.
        assert!(ask(&policy, &signer.token(&json!({ "alg": name }), &claims())).is_ok(), "{name}");
        for (other, _) in signers.iter().filter(|(other, _)| other != name) {
            // The key of another type, named by its id, is not tried.
            let token = signer.token(&json!({ "alg": name, "kid": other }), &claims());
            assert_eq!(cause(ask(&policy, &token)).unwrap().0, Cause::TokenInvalid, "{name} {other}");
        }
        let mut token = signer.token(&json!({ "alg": name, "kid": name }), &claims());
        let at = token.find('.').unwrap() + 5;
        token.replace_range(at..=at, if &token[at..=at] == "a" { "b" } else { "a" });
        assert!(ask(&policy, &token).is_err(), "{name} changed");
    }
    let token = signers[2].1.token(&json!({ "alg": "PS512", "kid": "RS256" }), &claims());
    assert!(ask(&policy, &token).is_ok(), "the same RSA key, with PSS");
    let mut jwk = signers[2].1.jwk("r");
    jwk["alg"] = "RS256".into();
    let policy = compile(json!({ "jwks": { "inline": { "keys": [jwk] } } })).unwrap();
    assert!(ask(&policy, &token).is_err(), "the key says that it is for RS256 only");
}

#[test]
fn a_public_key_is_no_secret() {
    let rsa = Signer::Rsa(RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap());
    let jwk = rsa.jwk("r");
    let policy = compile(json!({ "jwks": { "inline": { "keys": [jwk] } } })).unwrap();
    for secret in [jwk.to_string(), jwk["n"].as_str().unwrap().to_owned()] {
        let token =
            Signer::Secret(secret.into_bytes()).token(&json!({ "alg": "HS256", "kid": "r" }), &claims());
        assert_eq!(cause(ask(&policy, &token)).unwrap().0, Cause::TokenInvalid);
    }
    let secret = "0123456789abcdef0123456789abcdef";
    let policy = compile(json!({ "secret": secret })).unwrap();
    let token =
        |algorithm: &str| Signer::Secret(secret.into()).token(&json!({ "alg": algorithm }), &claims());
    assert!(ask(&policy, &token("HS256")).is_ok());
    assert!(ask(&policy, &token("HS384")).is_err(), "the token chose");
    assert!(ask(&policy, &rsa.token(&json!({ "alg": "RS256" }), &claims())).is_err());
}

#[test]
fn claims_are_held_to_their_word() {
    let key = Signer::ed();
    let policy = compile(json!({
        "issuer": "https://id.test", "audiences": ["api"], "jwks": { "inline": { "keys": [key.jwk("k")] } }, "leeway": "10s",
        "scopes": ["read"], "requiredClaims": [{ "claim": "/realm/roles", "values": ["admin"] }], "realm": "shop",
    }))
    .unwrap();
    let invalid = Some(Cause::TokenInvalid);
    for (change, expected) in [
        (json!({}), None),
        (json!({ "aud": "api" }), None),
        (json!({ "aud": "other" }), invalid),
        (json!({ "aud": null }), invalid),
        (json!({ "aud": [["api"]] }), invalid),
        (json!({ "iss": "https://id.test/" }), invalid),
        (json!({ "iss": ["https://id.test"] }), invalid),
        (json!({ "exp": NOW - 9 }), None),
        (json!({ "exp": NOW - 11 }), Some(Cause::TokenExpired)),
        (json!({ "exp": (NOW + 60).to_string() }), invalid),
        (json!({ "exp": null }), invalid),
        (json!({ "exp": 1e300 }), None),
        (json!({ "nbf": NOW + 9 }), None),
        (json!({ "nbf": NOW + 11 }), invalid),
        (json!({ "scope": "write" }), Some(Cause::ScopeInsufficient)),
        (json!({ "scope": "reader" }), Some(Cause::ScopeInsufficient)),
        (json!({ "scope": ["read"] }), None),
        (json!({ "realm": { "roles": "admin" } }), None),
        (json!({ "realm": { "roles": ["dev"] } }), Some(Cause::ScopeInsufficient)),
        (json!({ "realm": null }), Some(Cause::ScopeInsufficient)),
    ] {
        let token = key.token(&json!({ "alg": "EdDSA", "kid": "k" }), &with(change.clone()));
        let found = cause(ask(&policy, &token));
        assert_eq!(found.as_ref().map(|(cause, _)| *cause), expected, "{change}: {found:?}");
    }
    let (cause_of, challenge) = cause(ask(&policy, "")).unwrap();
    assert_eq!((cause_of, &*challenge), (Cause::CredentialsMissing, "Bearer realm=\"shop\""));
    let token = key.token(&json!({ "alg": "EdDSA", "kid": "k" }), &with(json!({ "scope": "" })));
    assert_eq!(
        cause(ask(&policy, &token)).unwrap().1,
        "Bearer realm=\"shop\", error=\"insufficient_scope\", error_description=\"the token lacks a scope\", scope=\"read\""
    );
}

#[test]
fn what_a_token_says_of_its_own_keys_is_not_looked_at() {
    let (key, evil) = (Signer::ed(), Signer::ed());
    let policy = compile(json!({ "jwks": { "inline": { "keys": [key.jwk("k")] } } })).unwrap();
    for header in [
        json!({ "alg": "EdDSA", "kid": "k", "jwk": evil.jwk("k") }),
        json!({ "alg": "EdDSA", "jwk": evil.jwk("k") }),
        json!({ "alg": "EdDSA", "jku": "https://evil.test/keys", "x5u": "https://evil.test/x", "x5c": ["MII"] }),
        json!({ "alg": "EdDSA", "kid": "../../../../dev/null" }),
        json!({ "alg": "EdDSA", "kid": "' UNION SELECT 'k" }),
        json!({ "alg": "none" }),
    ] {
        assert_eq!(
            cause(ask(&policy, &evil.token(&header, &claims()))).unwrap().0,
            Cause::TokenInvalid,
            "{header}"
        );
    }
    let good =
        key.token(&json!({ "alg": "EdDSA", "jwk": evil.jwk("k"), "x5u": "https://evil.test" }), &claims());
    assert!(ask(&policy, &good).is_ok());
    let long = key.token(&json!({ "alg": "EdDSA" }), &with(json!({ "pad": "x".repeat(CREDENTIAL_MAX) })));
    assert!(cause(ask(&policy, &long)).unwrap().1.contains("too long"));
}

#[test]
fn mistakes_are_named() {
    let (key, issuer) = (Signer::ed().jwk("k"), "https://id.test");
    for (spec, field) in [
        (json!({}), ""),
        (json!({ "issuer": "id.test" }), "issuer"),
        (json!({ "issuer": issuer, "algorithms": ["none"] }), "algorithms[0]"),
        (json!({ "issuer": issuer, "algorithms": ["RS256", "HS256"] }), "algorithms[1]"),
        (json!({ "secret": "short" }), "secret"),
        (json!({ "secret": "0123456789abcdef0123456789abcdef", "jwks": { "inline": {} } }), "secret"),
        (json!({ "secret": "0123456789abcdef0123456789abcdef", "algorithms": ["RS256"] }), "algorithms[0]"),
        (json!({ "jwks": { "inline": { "keys": [] } } }), "jwks.inline"),
        (json!({ "jwks": { "inline": { "keys": [key, { "kty": "oct", "k": "AAAA" }] } } }), "jwks.inline"),
        (json!({ "jwks": { "inline": "{}", "uri": "https://x/" } }), "jwks.uri"),
        (json!({ "jwks": { "uri": "x" } }), "jwks.uri"),
        (json!({ "issuer": issuer, "jwks": { "cacheDuration": "0s" } }), "jwks.cacheDuration"),
        (json!({ "issuer": issuer, "leeway": "1h" }), "leeway"),
        (json!({ "issuer": issuer, "realm": "a\"b" }), "realm"),
        (json!({ "issuer": issuer, "providers": [{ "issuer": "https://b.test" }] }), "issuer"),
        (json!({ "providers": [{ "issuer": issuer }, { "issuer": issuer }] }), "providers[1].issuer"),
        (
            json!({ "providers": [{ "issuer": issuer, "jwks": { "uri": "ftp://x" } }] }),
            "providers[0].jwks.uri",
        ),
        (
            json!({ "issuer": issuer, "claimsToFields": [{ "claim": "sub", "name": "host" }] }),
            "claimsToFields[0].name",
        ),
        (
            json!({ "issuer": issuer, "from": [{ "header": "x-token" }], "claimsToFields": [{ "claim": "sub", "name": "X-Token" }] }),
            "claimsToFields[0].name",
        ),
        (json!({ "issuer": issuer, "requiredClaims": [{ "claim": "" }] }), "requiredClaims[0].claim"),
    ] {
        assert_eq!(
            compile(spec.clone()).err().map(|invalid| invalid.field).as_deref(),
            Some(field),
            "{spec}"
        );
    }
}

/// A server of keys, and tasks that run when the test says.
#[derive(Default)]
struct Server {
    answers: RefCell<Vec<Option<Value>>>,
    asked: RefCell<Vec<String>>,
    tasks: RefCell<Vec<Local<()>>>,
    now: std::cell::Cell<u64>,
    told: RefCell<Vec<Event>>,
}

struct Shared(Rc<Server>);

impl Caller for Shared {
    fn call(&self, _: &Remote, call: Call) -> Local<Result<Answer, Failure>> {
        self.0.asked.borrow_mut().push(String::from_utf8_lossy(call.head.path()).into_owned());
        let answer = match self.0.answers.borrow_mut().remove(0) {
            Some(content) => {
                let content = content.to_string().into_bytes();
                Ok(Answer { status: 200, fields: Fields::new(), content, trailers: None })
            }
            None => Err(Cause::ConnectRefused.into()),
        };
        Box::pin(async move { answer })
    }

    fn spawn(&self, task: Local<()>) {
        self.0.tasks.borrow_mut().push(task);
    }

    fn pause(&self, _: Duration) -> Local<()> {
        Box::pin(async {})
    }

    fn tell(&self, event: Event) {
        self.0.told.borrow_mut().push(event);
    }

    fn unix_nanos(&self) -> u64 {
        self.0.now.get()
    }
}

struct Scene {
    server: Rc<Server>,
    out: Out,
    policy: Jwt,
}

impl Scene {
    fn new(spec: Value, answers: Vec<Option<Value>>) -> Self {
        let server = Rc::new(Server { answers: answers.into(), ..Server::default() });
        server.now.set(NOW * 1_000_000_000);
        Self { out: Rc::new(Shared(Rc::clone(&server))), server, policy: compile(spec).unwrap() }
    }

    fn run_tasks(&self) {
        let tasks = std::mem::take(&mut *self.server.tasks.borrow_mut());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        for mut task in tasks {
            assert!(task.as_mut().poll(&mut cx).is_ready());
        }
    }

    /// The verdict `seconds` after the beginning, after what it waited for; whether it waited.
    fn ask(&self, token: &str, seconds: u64) -> (Option<Cause>, bool) {
        self.server.now.set((NOW + seconds) * 1_000_000_000);
        let (mut req, mut cx) = (request(token), exchange(Some(&self.out)));
        cx.unix_nanos = self.server.now.get();
        let verdict = self.policy.on_request(&mut req, &mut (), &mut cx);
        let (verdict, waited) = match verdict {
            Verdict::Wait(mut future) => {
                self.run_tasks();
                let mut waker = std::task::Context::from_waker(std::task::Waker::noop());
                let std::task::Poll::Ready(Outcome::Apply(apply)) = future.as_mut().poll(&mut waker) else {
                    panic!()
                };
                (apply(&mut req, &mut cx), true)
            }
            verdict => (verdict, false),
        };
        match verdict {
            Verdict::Continue => (None, waited),
            Verdict::Respond(reply) => (reply.cause, waited),
            _ => panic!(),
        }
    }
}

#[test]
fn keys_are_fetched_once_and_refreshed_beside_requests() {
    let key = Signer::ed();
    let set = json!({ "keys": [key.jwk("k"), { "kty": "oct", "kid": "x", "k": "AAAA" }] });
    let scene = Scene::new(
        json!({ "jwks": { "uri": "http://id.test/keys", "cacheDuration": "100s" } }),
        vec![Some(set.clone()), None, Some(set)],
    );
    let token = |number: u64| {
        key.token(
            &json!({ "alg": "EdDSA", "kid": "k" }),
            &with(json!({ "jti": number, "exp": NOW + 10_000 })),
        )
    };
    assert_eq!(scene.ask(&token(1), 0), (None, true));
    assert_eq!(scene.ask(&token(2), 79), (None, false));
    // Due: asked for beside the request, in vain; the keys stay.
    assert_eq!(scene.ask(&token(3), 81), (None, false));
    scene.run_tasks();
    assert_eq!(*scene.server.told.borrow(), [Event::KeysFetched, Event::KeysFailed]);
    // Too early to ask again, and old keys are better than none.
    assert_eq!(scene.ask(&token(4), 81), (None, false));
    assert_eq!(scene.server.asked.borrow().len(), 2);
    // Their time is over: fetched first.
    assert_eq!(scene.ask(&token(5), 101), (None, true));
    assert_eq!(scene.server.asked.borrow().len(), 3);
}

#[test]
fn an_unknown_key_is_asked_for_once_in_a_while() {
    let (old, new, evil) = (Signer::ed(), Signer::ed(), Signer::ed());
    let sets = [vec![old.jwk("old")], vec![old.jwk("old"), new.jwk("new")], vec![new.jwk("new")]];
    let scene = Scene::new(
        json!({ "jwks": { "uri": "http://id.test/keys" } }),
        sets.into_iter().map(|keys| Some(json!({ "keys": keys }))).collect(),
    );
    let token = |key: &Signer, id: &str| {
        key.token(&json!({ "alg": "EdDSA", "kid": id }), &with(json!({ "exp": NOW + 10_000 })))
    };
    assert_eq!(scene.ask(&token(&old, "old"), 0), (None, true));
    // Rotation is seen at once.
    assert_eq!(scene.ask(&token(&new, "new"), 1), (None, true));
    for _ in 0..3 {
        assert_eq!(scene.ask(&token(&evil, "evil"), 2), (Some(Cause::TokenInvalid), false));
    }
    assert_eq!(scene.server.asked.borrow().len(), 2, "an attacker makes us ask no more often");
    // A known id with a wrong signature is no reason to ask.
    assert_eq!(scene.ask(&token(&evil, "new"), 20), (Some(Cause::TokenInvalid), false));
    assert_eq!(scene.ask(&token(&evil, "evil"), 20), (Some(Cause::TokenInvalid), true));
    // The old key is gone, and so is what was known by it.
    assert_eq!(scene.ask(&token(&old, "old"), 21), (Some(Cause::TokenInvalid), false));
}

#[test]
fn without_keys_nobody_passes_and_the_issuer_is_spared() {
    let key = Signer::ed();
    let discovery = |issuer: &str| Some(json!({ "issuer": issuer, "jwks_uri": "http://id.test/k" }));
    let scene = Scene::new(
        json!({ "issuer": "http://id.test" }),
        vec![
            None,
            discovery("http://evil.test"),
            discovery("http://id.test"),
            Some(json!({ "keys": [key.jwk("k")] })),
        ],
    );
    let token = key.token(&json!({ "alg": "EdDSA", "kid": "k" }), &with(json!({ "iss": "http://id.test" })));
    assert_eq!(scene.ask(&token, 0), (Some(Cause::KeysUnavailable), true));
    assert_eq!(scene.ask(&token, 0), (Some(Cause::KeysUnavailable), false));
    assert_eq!(scene.ask(&token, 1), (Some(Cause::KeysUnavailable), true));
    assert_eq!(
        scene.ask(&token, 2),
        (Some(Cause::KeysUnavailable), false),
        "two seconds after the second failure"
    );
    assert_eq!(scene.ask(&token, 4), (None, true));
    let path = "/.well-known/openid-configuration";
    assert_eq!(*scene.server.asked.borrow(), [path, path, path, "/k"]);
}
