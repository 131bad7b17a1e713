//! Algorithms and keys (RFC 7517, RFC 7518, RFC 8037): which key may check which signature.
//!
//! The token never chooses how it is checked: an algorithm is tried only with a key of its type, and only when the key
//! (its `alg`, `use` and `key_ops`) and the configuration allow it.

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
};
use aws_lc_rs::{hmac, signature};
use rhumb_base::base64;
use serde_json::{Map, Value};

use crate::json;

/// Most keys of one set.
pub const KEYS_LIMIT: usize = 128;

/// Most keys that are tried for one token: those without an id, or with the same.
pub const TRIES_LIMIT: usize = 16;

/// A signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each variant is the algorithm of its name
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

/// What a key must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Secret,
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl Algorithm {
    /// Every algorithm that is known.
    pub const ALL: &'static [Self] = &[
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];

    /// The algorithm of a name; `None` for `none` as for every other name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|algorithm| algorithm.name() == name).or_else(|| {
            // RFC 9864 §2.2 has a name for each curve.
            (name == "Ed25519").then_some(Self::EdDsa)
        })
    }

    /// Its name in tokens.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
        }
    }

    /// True for those that check with the secret that signs.
    pub fn is_symmetric(self) -> bool {
        self.key_type() == Type::Secret
    }

    pub(crate) fn key_type(self) -> Type {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => Type::Secret,
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => Type::Rsa,
            Self::Es256 => Type::P256,
            Self::Es384 => Type::P384,
            Self::Es512 => Type::P521,
            Self::EdDsa => Type::Ed25519,
        }
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }

    fn hmac(self) -> Option<hmac::Algorithm> {
        Some(match self {
            Self::Hs256 => hmac::HMAC_SHA256,
            Self::Hs384 => hmac::HMAC_SHA384,
            Self::Hs512 => hmac::HMAC_SHA512,
            _ => return None,
        })
    }
}

/// A key, ready for the algorithms that it may be used with.
pub(crate) struct Key {
    id: Option<Box<str>>,
    checks: Box<[(Algorithm, Check)]>,
}

enum Check {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

impl Key {
    /// A secret; the reason when it is too short for an algorithm.
    pub(crate) fn secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<Self, String> {
        let mut checks = Vec::new();
        for &algorithm in algorithms {
            let Some(hash) = algorithm.hmac() else { continue };
            // RFC 7518 §3.2: at least as long as the hash.
            let least = hash.digest_algorithm().output_len();
            if secret.len() < least {
                let name = algorithm.name();
                return Err(format!("has {} bytes, and {name} needs at least {least}", secret.len()));
            }
            checks.push((algorithm, Check::Secret(Box::new(hmac::Key::new(hash, secret)))));
        }
        Ok(Self { id: None, checks: checks.into() })
    }

    /// A public key out of a JWK; the reason why it cannot be used.
    fn public(jwk: &Map<String, Value>, allowed: &[Algorithm]) -> Result<Self, &'static str> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let octets = |name: &str| text(name).and_then(|text| base64::decode_url(text.as_bytes()));
        if text("use").is_some_and(|usage| usage != "sig") {
            return Err("is not for signatures");
        }
        let operations = jwk.get("key_ops").and_then(Value::as_array);
        if operations.is_some_and(|all| !all.iter().any(|one| one == "verify")) {
            return Err("is not for checking signatures");
        }
        let own = match text("alg") {
            Some(name) => Some(Algorithm::of(name).ok_or("is for an algorithm that is not supported")?),
            None => None,
        };
        let fits = |key_type: Type| {
            let fits = move |algorithm: &&Algorithm| {
                algorithm.key_type() == key_type && own.is_none_or(|own| own == **algorithm)
            };
            allowed.iter().filter(fits).copied()
        };
        let mut checks = Vec::new();
        let mut point =
            |key_type: Type, verify: &'static signature::EcdsaVerificationAlgorithm, size: usize| {
                let (x, y) = (octets("x").ok_or(BROKEN)?, octets("y").ok_or(BROKEN)?);
                // RFC 7518 §6.2.1.2: as long as the curve's coordinates, never shortened.
                if x.len() != size || y.len() != size {
                    return Err(BROKEN);
                }
                let key = [&[4][..], &x, &y].concat();
                for algorithm in fits(key_type) {
                    let key = ParsedPublicKey::new(verify, &key).map_err(|_| BROKEN)?;
                    checks.push((algorithm, Check::Public(key)));
                }
                Ok(())
            };
        match (text("kty"), text("crv")) {
            (Some("EC"), Some("P-256")) => point(Type::P256, &ECDSA_P256_SHA256_FIXED, 32)?,
            (Some("EC"), Some("P-384")) => point(Type::P384, &ECDSA_P384_SHA384_FIXED, 48)?,
            (Some("EC"), Some("P-521")) => point(Type::P521, &ECDSA_P521_SHA512_FIXED, 66)?,
            (Some("OKP"), Some("Ed25519")) => {
                let key = octets("x").ok_or(BROKEN)?;
                for algorithm in fits(Type::Ed25519) {
                    let key = ParsedPublicKey::new(&ED25519, &key).map_err(|_| BROKEN)?;
                    checks.push((algorithm, Check::Public(key)));
                }
            }
            (Some("RSA"), _) => {
                let (n, e) = (octets("n").ok_or(BROKEN)?, octets("e").ok_or(BROKEN)?);
                // A zero octet in front is against RFC 7518 §6.3.1.1, and written by some all the same.
                let n =
                    n.iter().position(|&octet| octet != 0).and_then(|from| n.get(from..)).ok_or(BROKEN)?;
                if !(256..=1024).contains(&n.len()) {
                    return Err("has not from 2048 to 8192 bits");
                }
                let parts = PublicKeyComponents { n, e: &e[..] };
                for algorithm in fits(Type::Rsa) {
                    let parameters = algorithm.rsa().ok_or(BROKEN)?;
                    let key = parts.to_parsed_public_key(parameters).map_err(|_| BROKEN)?;
                    checks.push((algorithm, Check::Public(key)));
                }
            }
            // A secret in a set that anybody may fetch is none.
            (Some("oct"), _) => return Err("is a secret, which `secret` takes and a set does not"),
            _ => return Err("is of a type that is not supported"),
        }
        if checks.is_empty() {
            return Err("is for none of the algorithms that are allowed");
        }
        Ok(Self { id: text("kid").map(Into::into), checks: checks.into() })
    }

    fn may_be(&self, id: Option<&str>) -> bool {
        match (id, &self.id) {
            (Some(wanted), Some(id)) => wanted == &**id,
            _ => true,
        }
    }

    fn check(&self, algorithm: Algorithm) -> Option<&Check> {
        self.checks.iter().find(|(own, _)| *own == algorithm).map(|(_, check)| check)
    }
}

const BROKEN: &str = "is malformed";

impl Check {
    fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Public(key) => key.verify_sig(signed, signature).is_ok(),
            Self::Secret(key) => hmac::verify(key, signed, signature).is_ok(),
        }
    }
}

/// What a set of keys says about a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Valid,
    /// A key was there, and the signature is not its.
    Wrong,
    /// No key of that id, or none for the algorithm.
    NoKey,
}

/// The keys of an issuer.
pub(crate) struct KeySet(Box<[Key]>);

impl KeySet {
    pub(crate) fn of(keys: Vec<Key>) -> Self {
        Self(keys.into())
    }

    /// Reads a JWK Set (RFC 7517 §5), or one key. Keys that cannot be used are left out, each with its reason.
    ///
    /// # Errors
    /// What is wrong with the set as a whole, for people.
    pub(crate) fn read(bytes: &[u8], allowed: &[Algorithm]) -> Result<(Self, Vec<String>), String> {
        let set = json::read_object(bytes).ok_or("is no JSON object, or has a member twice")?;
        let alone;
        let jwks = match set.get("keys") {
            Some(Value::Array(jwks)) => jwks,
            None if set.contains_key("kty") => {
                alone = vec![Value::Object(set)];
                &alone
            }
            _ => return Err("has no list `keys`".to_owned()),
        };
        if jwks.len() > KEYS_LIMIT {
            return Err(format!("has {} keys, more than {KEYS_LIMIT}", jwks.len()));
        }
        let (mut keys, mut unusable) = (Vec::new(), Vec::new());
        for (at, jwk) in jwks.iter().enumerate() {
            match jwk.as_object().ok_or(BROKEN).and_then(|jwk| Key::public(jwk, allowed)) {
                Ok(key) => keys.push(key),
                Err(why) => unusable.push(format!("key {at} {why}")),
            }
        }
        if keys.is_empty() {
            let why = if unusable.is_empty() { String::new() } else { format!(": {}", unusable.join(", ")) };
            return Err(format!("has no key that can be used{why}"));
        }
        Ok((Self(keys.into()), unusable))
    }

    /// Checks a signature with the key of that id; without one, with those that may be meant.
    pub(crate) fn judge(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
        signed: &[u8],
        signature: &[u8],
    ) -> Judgement {
        let fitting = self.0.iter().filter(|key| key.may_be(id)).filter_map(|key| key.check(algorithm));
        let mut judgement = Judgement::NoKey;
        for check in fitting.take(TRIES_LIMIT) {
            if check.verifies(signed, signature) {
                return Judgement::Valid;
            }
            judgement = Judgement::Wrong;
        }
        judgement
    }
}
