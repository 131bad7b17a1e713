//! What a token costs, by algorithm: when its signature is checked, and when it is known again.
//!
//! `cargo run --profile fast -p rhumb-policy --example tokens`
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement that is run by hand")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use aws_lc_rs::{hmac, signature};
use rhumb_base::base64::encode_url;
use rhumb_codec::field::Known;
use rhumb_codec::head::{RequestHead, Scheme};
use rhumb_policy::{Chain, ChainState, Context, Exchange, Item, Keeper, NoDocuments, Step, parse};
use serde_json::{Value, json};

/// Tokens of each algorithm; each is checked once, then known.
const TOKENS: usize = 300;
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: u64 = 2_000_000_000;

type Signer = Box<dyn Fn(&[u8]) -> Vec<u8>>;

fn main() {
    println!("{:8} {:>14} {:>14}", "", "checked (µs)", "known (µs)");
    for (name, key, sign) in algorithms() {
        let spec = match key {
            Some(key) => json!({ "issuer": "https://id.test", "jwks": { "inline": { "keys": [key] } } }),
            None => json!({ "issuer": "https://id.test", "secret": SECRET }),
        };
        let chain = chain(&spec);
        let tokens: Vec<RequestHead> = (0..TOKENS).map(|number| request(name, number, &sign)).collect();
        let checked = pass(&chain, &tokens);
        let known = (0..5).map(|_| pass(&chain, &tokens)).min().unwrap_or_default();
        let each = |time: Duration| time.as_secs_f64() * 1e6 / TOKENS as f64;
        println!("{name:8} {:>14.2} {:>14.2}", each(checked), each(known));
    }
}

fn algorithms() -> Vec<(&'static str, Option<Value>, Signer)> {
    let random = SystemRandom::new;
    let rsa = |padding: &'static dyn signature::RsaEncoding| -> (Option<Value>, Signer) {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        // RFC 8017 §A.1.1: of 2048 bits, the modulus begins behind nine octets of tags.
        let modulus = encode_url(&key.public_key().as_ref()[9..265]);
        let sign = move |signed: &[u8]| {
            let mut out = vec![0; key.public_modulus_len()];
            key.sign(padding, &random(), signed, &mut out).expect("a signature");
            out
        };
        (Some(json!({ "kty": "RSA", "n": modulus, "e": "AQAB" })), Box::new(sign))
    };
    let ec = |algorithm, curve: &str| -> (Option<Value>, Signer) {
        let key = EcdsaKeyPair::generate(algorithm).expect("a key");
        let point = key.public_key().as_ref()[1..].to_vec();
        let (x, y) = point.split_at(point.len() / 2);
        let jwk = json!({ "kty": "EC", "crv": curve, "x": encode_url(x), "y": encode_url(y) });
        (
            Some(jwk),
            Box::new(move |signed| key.sign(&random(), signed).expect("a signature").as_ref().to_vec()),
        )
    };
    let ed = Ed25519KeyPair::generate().expect("a key");
    let ed_jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": encode_url(ed.public_key().as_ref()) });
    let secret = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let (rs, ps) = (rsa(&RSA_PKCS1_SHA256), rsa(&RSA_PSS_SHA256));
    let (es256, es384) =
        (ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"), ec(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"));
    vec![
        ("HS256", None, Box::new(move |signed| hmac::sign(&secret, signed).as_ref().to_vec())),
        ("RS256", rs.0, rs.1),
        ("PS256", ps.0, ps.1),
        ("ES256", es256.0, es256.1),
        ("ES384", es384.0, es384.1),
        ("EdDSA", Some(ed_jwk), Box::new(move |signed| ed.sign(signed).as_ref().to_vec())),
    ]
}

fn request(algorithm: &str, number: usize, sign: &Signer) -> RequestHead {
    let claims = json!({
        "iss": "https://id.test", "aud": "api", "sub": "3c5b1f0e-4f0a-4a53-8f5f-0d5f6f0c9f11", "jti": number, "exp": NOW + 300,
        "iat": NOW, "azp": "web", "scope": "openid profile email orders:read", "email": "ann@example.com",
        "realm_access": { "roles": ["customer", "offline_access", "uma_authorization"] },
    });
    let part = |value: Value| encode_url(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(json!({ "alg": algorithm, "typ": "JWT" })), part(claims));
    let token = format!("Bearer {signed}.{}", encode_url(&sign(signed.as_bytes())));
    let mut req = RequestHead::new();
    req.set_method(b"GET");
    req.set_target(b"/orders");
    req.fields.append(Known::Authorization, token.as_bytes());
    req
}

fn chain(spec: &Value) -> Chain {
    let (mut documents, keeper) = (NoDocuments, Keeper::default());
    let mut cx = Context::new("default", "bench", &mut documents, &keeper);
    let parsed = parse("jwt", spec, &mut cx).expect("a policy").expect("a right one");
    Chain::new(vec![Item { policy: parsed.policy.into(), origin: "bench".into(), is_shadow: false }])
}

fn pass(chain: &Chain, tokens: &[RequestHead]) -> Duration {
    let mut heads: Vec<RequestHead> = tokens.to_vec();
    let begun = Instant::now();
    for req in &mut heads {
        let client = std::net::Ipv4Addr::LOCALHOST.into();
        let mut cx = Exchange { unix_nanos: NOW * 1_000_000_000, ..Exchange::new(client, Scheme::Http, 80) };
        let step = chain.on_request(req, &mut ChainState::default(), &mut cx);
        assert!(matches!(step, Step::Done), "the token is good");
        black_box(&cx.found.principal);
    }
    begun.elapsed()
}
