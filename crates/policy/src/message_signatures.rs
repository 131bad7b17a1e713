//! Signatures over messages (RFC 9421): who signed this request, over which of its parts, and when.
//!
//! Of the parts of a request these can be covered: `@method`, `@target-uri`, `@authority`, `@scheme`, `@request-target`, `@path`,
//! `@query`, `@query-param`, and fields (also `bs`). A signature that covers anything else is not valid. Content is covered
//! through `content-digest` (RFC 9530), which the backend compares. Cost: one signature.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac as mac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA512, VerificationAlgorithm,
};
use foldhash::HashMap;
use rhumb_base::base64;
use rhumb_base::failure::Cause;
use rhumb_codec::field::{FieldName, Fields};
use rhumb_codec::head::{RequestHead, Scheme};
use rhumb_route::field::decoded;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::consumers::Consumers;
use crate::context::{Context, SecretValue};
use crate::credential::{self, Challenge, Missing};
use crate::exchange::Exchange;
use crate::hmac::field;
use crate::message_signatures::structured::{Bare, Item, Member, Parameters, parameter};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};
use crate::principal::{Consumer, Principal};
use crate::quantity;

pub mod structured;

/// Most keys of one policy.
pub const KEYS_LIMIT: usize = 10_000;

/// Longest `Signature-Input` and `Signature`, in bytes.
pub const FIELD_MAX: usize = 8 << 10;

/// How old a signature may be where nothing is written.
pub const MAX_AGE: Duration = Duration::from_secs(300);

/// How far in the future a signature may be made: clocks differ.
const AHEAD: u64 = 30;

/// What must be covered where nothing is written.
const REQUIRED: [&str; 4] = ["@method", "@authority", "@path", "@query"];

/// Requests need a signature over their parts.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Keys of those who sign. At most 10000.
    #[serde(default)]
    pub keys: Vec<KeySpec>,
    /// Secrets (`credentials.hmac`) of the Consumers of this namespace are good, with `hmac-sha256`. Default: true.
    #[serde(default = "yes")]
    pub consumers: bool,
    /// What a signature must cover. Default: `["@method", "@authority", "@path", "@query"]`. `@target-uri` covers the last three,
    /// `@request-target` the last two.
    #[serde(default)]
    pub required_components: Option<Vec<String>>,
    /// How old a signature may be, by its `created`, which it must have. Default: 5m.
    #[serde(default)]
    pub max_age: Option<String>,
    /// Only signatures with this `tag` count. Default: all.
    #[serde(default)]
    pub tag: Option<String>,
    /// Pass the signature on to the backend. Default: true.
    #[serde(default = "yes")]
    pub forward: bool,
    /// What to do without a signature: `Refuse`, or `Continue`. Default: refuse, unless `anonymous` or `authenticated` decide.
    #[serde(default)]
    pub missing: Option<Missing>,
}

fn yes() -> bool {
    true
}

/// A key of somebody who signs.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeySpec {
    /// The `keyid` of signatures: the subject of the principal.
    pub key_id: String,
    /// How it signs: `ed25519`, `ecdsa-p256-sha256`, `ecdsa-p384-sha384`, `rsa-pss-sha512`, `rsa-v1_5-sha256`, `hmac-sha256`.
    pub algorithm: Algorithm,
    /// The public key in PEM (`-----BEGIN PUBLIC KEY-----`).
    #[serde(default)]
    pub public_key: Option<SecretValue>,
    /// The secret, for `hmac-sha256`.
    #[serde(default)]
    pub secret: Option<SecretValue>,
}

/// An algorithm of signatures (RFC 9421 §6.2.2).
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
pub enum Algorithm {
    /// EdDSA with curve 25519.
    #[serde(rename = "ed25519")]
    Ed25519,
    /// ECDSA with curve P-256 and SHA-256.
    #[serde(rename = "ecdsa-p256-sha256")]
    EcdsaP256,
    /// ECDSA with curve P-384 and SHA-384.
    #[serde(rename = "ecdsa-p384-sha384")]
    EcdsaP384,
    /// RSASSA-PSS with SHA-512.
    #[serde(rename = "rsa-pss-sha512")]
    RsaPss,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "rsa-v1_5-sha256")]
    RsaPkcs1,
    /// HMAC with SHA-256.
    #[serde(rename = "hmac-sha256")]
    Hmac,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256 => "ecdsa-p256-sha256",
            Self::EcdsaP384 => "ecdsa-p384-sha384",
            Self::RsaPss => "rsa-pss-sha512",
            Self::RsaPkcs1 => "rsa-v1_5-sha256",
            Self::Hmac => "hmac-sha256",
        }
    }

    fn verification(self) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match self {
            Self::Ed25519 => &ED25519,
            Self::EcdsaP256 => &ECDSA_P256_SHA256_FIXED,
            Self::EcdsaP384 => &ECDSA_P384_SHA384_FIXED,
            Self::RsaPss => &RSA_PSS_2048_8192_SHA512,
            Self::RsaPkcs1 => &RSA_PKCS1_2048_8192_SHA256,
            Self::Hmac => return None,
        })
    }
}

/// A compiled policy.
pub struct MessageSignatures(Box<Inner>);

struct Inner {
    keys: HashMap<Box<str>, Key>,
    consumers: Option<Arc<Consumers>>,
    required: Box<[Box<str>]>,
    max_age: u64,
    tag: Option<Box<str>>,
    forward: bool,
    missing: Option<Missing>,
    challenge: Challenge,
    input: FieldName,
    signature: FieldName,
}

struct Key {
    algorithm: Algorithm,
    check: Check,
}

enum Check {
    Public(ParsedPublicKey),
    Secret(Box<mac::Key>),
}

impl HttpPolicy for MessageSignatures {
    const KIND: &'static str = "messageSignatures";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        if spec.keys.len() > KEYS_LIMIT {
            let why = format!("has {} keys, more than {KEYS_LIMIT}", spec.keys.len());
            return Err(Invalid::new("keys", why, "write Consumers"));
        }
        let mut keys = HashMap::default();
        for (at, one) in spec.keys.iter().enumerate() {
            let field = format!("keys[{at}]");
            let check = one.check(&field, cx)?;
            let key = Key { algorithm: one.algorithm, check };
            if keys.insert(Box::from(one.key_id.as_str()), key).is_some() {
                let why = format!("`{}` is the id of another key", one.key_id);
                return Err(Invalid::new(format!("{field}.keyId"), why, "choose another one"));
            }
        }
        let consumers = spec.consumers.then(|| cx.consumers()).filter(|consumers| consumers.has_secrets());
        if keys.is_empty() && consumers.is_none() {
            let why =
                format!("nobody in namespace `{}` has a key: every request would be refused", cx.namespace());
            return Err(Invalid::new("", why, "write `keys`, or a Consumer with `credentials.hmac`"));
        }
        let required = spec.required_components.unwrap_or_else(|| REQUIRED.map(str::to_owned).into());
        for (at, name) in required.iter().enumerate() {
            let is_known = match name.strip_prefix('@') {
                Some(_) => DERIVED.contains(&name.as_str()),
                None => FieldName::parse(name.as_bytes()).is_ok() && *name == name.to_ascii_lowercase(),
            };
            if !is_known {
                let why = format!("`{name}` cannot be covered");
                let fix = format!("write a field in lower case, or one of {}", DERIVED.join(", "));
                return Err(Invalid::new(format!("requiredComponents[{at}]"), why, fix));
            }
        }
        let max_age = quantity::positive("maxAge", spec.max_age.as_deref())?.unwrap_or(MAX_AGE);
        let name = |name: &str| {
            let parsed = FieldName::parse(name.as_bytes());
            parsed.map_err(|error| Invalid::new("", error.to_string(), ""))
        };
        Ok(Self(Box::new(Inner {
            keys,
            consumers,
            required: required.into_iter().map(Into::into).collect(),
            max_age: max_age.as_secs().max(1),
            tag: spec.tag.map(Into::into),
            forward: spec.forward,
            missing: spec.missing,
            challenge: credential::challenge("Signature", None)?,
            input: name("signature-input")?,
            signature: name("signature")?,
        })))
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        let inner = &*self.0;
        let checked = inner.find(req).map(|found| found.and_then(|found| inner.check(&found, req, cx)));
        let principal = match checked {
            None => return credential::missing(inner.missing, &inner.challenge, cx),
            Some(None) => {
                return Verdict::Respond(credential::refuse(Cause::SignatureInvalid, &inner.challenge));
            }
            Some(Some(principal)) => principal,
        };
        if !inner.forward {
            req.fields.remove_named(&inner.input);
            req.fields.remove_named(&inner.signature);
        }
        cx.prove(Arc::new(principal));
        Verdict::Continue
    }
}

/// Components that are no fields (RFC 9421 §2.2).
const DERIVED: [&str; 8] =
    ["@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query", "@query-param"];

impl KeySpec {
    fn check(&self, field: &str, cx: &mut Context<'_>) -> Result<Check, Invalid> {
        match (self.algorithm.verification(), &self.public_key, &self.secret) {
            (Some(algorithm), Some(key), None) => {
                let field = format!("{field}.publicKey");
                let pem = cx.secret(&field, key)?;
                let wrong =
                    |why: &str| Invalid::new(&*field, why, "`openssl pkey -in key.pem -pubout` prints it");
                let der = pem_content(&pem).ok_or_else(|| wrong("is no public key in PEM"))?;
                let parsed = ParsedPublicKey::new(algorithm, &der);
                parsed.map(Check::Public).map_err(|_| wrong("is no key of this algorithm"))
            }
            (None, None, Some(secret)) => {
                let field = format!("{field}.secret");
                let secret = cx.secret(&field, secret)?;
                if secret.is_empty() {
                    return Err(Invalid::new(field, "is empty", "`openssl rand -hex 32` makes one"));
                }
                Ok(Check::Secret(Box::new(mac::Key::new(mac::HMAC_SHA256, &secret))))
            }
            (Some(_), ..) => {
                Err(Invalid::new(field, "has not just a `publicKey`", "write `publicKey: file:PATH`"))
            }
            (None, ..) => Err(Invalid::new(field, "has not just a `secret`", "write `secret`")),
        }
    }
}

/// The octets of a public key in PEM (RFC 7468 §13).
fn pem_content(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once("-----BEGIN PUBLIC KEY-----")?;
    let (content, _) = rest.split_once("-----END PUBLIC KEY-----")?;
    let content: Vec<u8> = content.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    base64::decode(&content)
}

/// A signature as it came.
struct Signed {
    input: String,
    signature: String,
}

impl Inner {
    /// Both fields; `None` when there is neither, and within it when they cannot be read.
    fn find(&self, req: &RequestHead) -> Option<Option<Signed>> {
        let text = |name: &FieldName| joined(&req.fields, name);
        match (text(&self.input), text(&self.signature)) {
            (None, None) => None,
            (Some(input), Some(signature)) => {
                let is_short = input.len() <= FIELD_MAX && signature.len() <= FIELD_MAX;
                let both = String::from_utf8(input).ok().zip(String::from_utf8(signature).ok());
                Some(both.filter(|_| is_short).map(|(input, signature)| Signed { input, signature }))
            }
            _ => Some(None),
        }
    }

    /// Checks the signature that counts.
    fn check(&self, signed: &Signed, req: &RequestHead, cx: &Exchange<'_>) -> Option<Principal> {
        let inputs = structured::lists(&signed.input)?;
        let signatures = structured::octets(&signed.signature)?;
        // Proxies add signatures of their own: the first that is of a key that is known here counts (RFC 9421 §4.3).
        let counts = |input: &&Member<'_, _>| {
            let tag = parameter(&input.parameters, "tag");
            let is_tagged =
                self.tag.as_ref().is_none_or(|own| matches!(tag, Some(Bare::Text(tag)) if **tag == **own));
            is_tagged && key_id(&input.parameters).is_some_and(|id| self.knows(id))
        };
        let input = inputs.iter().find(counts)?;
        let signature = &signatures.iter().find(|signature| signature.key == input.key)?.value;
        let now = cx.unix_nanos / 1_000_000_000;
        if !self.is_of_now(&input.parameters, now) || !self.covers(&input.value) {
            return None;
        }
        let base = base(input, req, cx)?;
        let id = key_id(&input.parameters)?;
        let written = match parameter(&input.parameters, "alg") {
            None => None,
            Some(Bare::Text(name)) => Some(name.as_str()),
            Some(_) => return None,
        };
        // RFC 9421 §3.2: the algorithm is the key's; one that is written must be the same.
        let is_same = |algorithm: Algorithm| written.is_none_or(|written| written == algorithm.name());
        let consumer = match self.keys.get(id) {
            Some(key) => (is_same(key.algorithm) && key.check.verifies(&base, signature)).then_some(None)?,
            None => {
                let (secret, consumer) =
                    self.consumers.as_ref().and_then(|consumers| consumers.secret(id))?;
                let key = Check::Secret(Box::new(mac::Key::new(mac::HMAC_SHA256, secret)));
                (is_same(Algorithm::Hmac) && key.verifies(&base, signature)).then_some(Some(consumer))?
            }
        };
        Some(Principal {
            method: MessageSignatures::KIND,
            subject: id.into(),
            consumer: consumer.cloned() as Option<Arc<Consumer>>,
            ..Principal::default()
        })
    }

    fn knows(&self, id: &str) -> bool {
        self.keys.contains_key(id)
            || self.consumers.as_ref().is_some_and(|consumers| consumers.secret(id).is_some())
    }

    fn is_of_now(&self, parameters: &Parameters, now: u64) -> bool {
        let time = |name: &str| match parameter(parameters, name) {
            Some(Bare::Integer(time)) => u64::try_from(*time).ok(),
            _ => None,
        };
        let is_young = time("created").is_some_and(|created| {
            created <= now.saturating_add(AHEAD) && now.saturating_sub(created) <= self.max_age
        });
        let is_over =
            parameter(parameters, "expires").is_some() && time("expires").is_none_or(|end| end < now);
        is_young && !is_over
    }

    fn covers(&self, items: &[Item<'_>]) -> bool {
        let has = |name: &str| items.iter().any(|item| item.name == name);
        self.required.iter().all(|required| {
            has(required)
                || match &**required {
                    "@authority" | "@scheme" => has("@target-uri"),
                    "@path" | "@query" => has("@target-uri") || has("@request-target"),
                    _ => false,
                }
        })
    }
}

impl Check {
    fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Public(key) => key.verify_sig(signed, signature).is_ok(),
            Self::Secret(key) => mac::verify(key, signed, signature).is_ok(),
        }
    }
}

fn key_id(parameters: &Parameters) -> Option<&str> {
    match parameter(parameters, "keyid") {
        Some(Bare::Text(id)) => Some(id),
        _ => None,
    }
}

fn joined(fields: &Fields, name: &FieldName) -> Option<Vec<u8>> {
    let mut lines = fields.find_all(name);
    let mut value = lines.next()?.to_vec();
    for line in lines {
        value.extend_from_slice(b", ");
        value.extend_from_slice(line);
    }
    Some(value)
}

/// The signature base (RFC 9421 §2.5); `None` when a component is not there, twice, or cannot be covered.
fn base(input: &Member<'_, Vec<Item<'_>>>, req: &RequestHead, cx: &Exchange<'_>) -> Option<Vec<u8>> {
    let mut base = Vec::with_capacity(512);
    for (at, item) in input.value.iter().enumerate() {
        if input.value.iter().take(at).any(|other| other.text == item.text) {
            return None;
        }
        base.extend_from_slice(item.text.as_bytes());
        base.extend_from_slice(b": ");
        base.extend_from_slice(&component(item, req, cx)?);
        base.push(b'\n');
    }
    base.extend_from_slice(b"\"@signature-params\": ");
    base.extend_from_slice(input.text.as_bytes());
    Some(base)
}

fn component(item: &Item<'_>, req: &RequestHead, cx: &Exchange<'_>) -> Option<Vec<u8>> {
    let target = req.received_target();
    let (path, query) = match memchr::memchr(b'?', target).and_then(|at| target.split_at_checked(at)) {
        Some((path, query)) => (path, query),
        None => (target, &b"?"[..]),
    };
    if item.name == "@query-param" {
        let [(name, Bare::Text(wanted))] = item.parameters.as_slice() else { return None };
        return query_parameter(query.get(1..)?, wanted).filter(|_| name == "name");
    }
    if !item.name.starts_with('@') {
        return match item.parameters.as_slice() {
            [] => field(req, &item.name),
            [(name, Bare::Boolean(true))] if name == "bs" => octets(req, &item.name),
            _ => None,
        };
    }
    if !item.parameters.is_empty() {
        return None;
    }
    Some(match item.name.as_str() {
        "@method" => req.method_name().to_vec(),
        "@authority" => authority(req, cx.scheme),
        "@scheme" => cx.scheme.as_str().as_bytes().to_vec(),
        "@request-target" => target.to_vec(),
        "@path" if path.is_empty() => b"/".to_vec(),
        "@path" => path.to_vec(),
        "@query" => query.to_vec(),
        "@target-uri" => [cx.scheme.as_str().as_bytes(), b"://", &authority(req, cx.scheme), target].concat(),
        _ => return None,
    })
}

/// RFC 9421 §2.2.3: in lower case, without the port that the scheme has anyway.
fn authority(req: &RequestHead, scheme: Scheme) -> Vec<u8> {
    let authority = req.received_authority().to_ascii_lowercase();
    let usual: &[u8] = if scheme == Scheme::Https { b":443" } else { b":80" };
    authority.strip_suffix(usual).map(<[u8]>::to_vec).unwrap_or(authority)
}

/// RFC 9421 §2.2.8: decoded, then encoded in the one way. `None` when it is not there just once.
fn query_parameter(query: &[u8], wanted: &str) -> Option<Vec<u8>> {
    let mut found = None;
    for part in query.split(|&byte| byte == b'&').filter(|part| !part.is_empty()) {
        let (name, value) = match memchr::memchr(b'=', part).and_then(|at| part.split_at_checked(at)) {
            Some((name, value)) => (name, value.get(1..)?),
            None => (part, &b""[..]),
        };
        if encoded(name) == wanted.as_bytes() && found.replace(encoded(value)).is_some() {
            return None;
        }
    }
    found
}

/// A name or value of a query, read as forms are and percent-encoded again (the URL standard, §1.3).
fn encoded(raw: &[u8]) -> Vec<u8> {
    let blanks: Vec<u8> = raw.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    let mut out = Vec::with_capacity(raw.len());
    for &byte in decoded(&blanks).iter() {
        if byte.is_ascii_alphanumeric() || b"*-._".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out
}

/// RFC 9421 §2.1.3: each line as a byte sequence.
fn octets(req: &RequestHead, name: &str) -> Option<Vec<u8>> {
    let name = FieldName::parse(name.as_bytes()).ok()?;
    let lines = req.fields.find_all(&name).map(|line| format!(":{}:", base64::encode(line.trim_ascii())));
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| lines.join(", ").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use rhumb_codec::field::Known;
    use serde_json::json;

    const NOW: u64 = 1_618_884_480;

    // RFC 9421 §B.1.4 and §B.1.5.
    const ED25519_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=\n-----END PUBLIC KEY-----";
    const SHARED: &str =
        "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";

    /// The request of RFC 9421 §B.2.
    fn example() -> RequestHead {
        let mut req = RequestHead::new();
        req.set_method(b"POST");
        req.set_target(b"/foo?param=Value&Pet=dog");
        req.set_authority(b"example.com");
        for (name, value) in [
            ("Date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("Content-Type", "application/json"),
            (
                "Content-Digest",
                "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
            ),
        ] {
            req.fields.append_raw(
                Known::of(name.to_ascii_lowercase().as_bytes()),
                name.as_bytes(),
                value.as_bytes(),
            );
        }
        req.content = rhumb_codec::head::Content::Length(18);
        req
    }

    fn ask(
        policy: &MessageSignatures,
        req: &mut RequestHead,
        input: &str,
        signature: &str,
        now: u64,
    ) -> Result<String, Cause> {
        for (name, value) in [("signature-input", input), ("signature", signature)] {
            if !value.is_empty() {
                req.fields.append_raw(Known::Other, name.as_bytes(), value.as_bytes());
            }
        }
        let mut cx = Exchange::new([127, 0, 0, 1].into(), Scheme::Https, 443);
        cx.unix_nanos = now * 1_000_000_000;
        match policy.on_request(req, &mut (), &mut cx) {
            Verdict::Continue => Ok(cx.principal().unwrap().subject.to_string()),
            Verdict::Respond(reply) => Err(reply.cause.unwrap()),
            _ => panic!(),
        }
    }

    fn policy(spec: serde_json::Value) -> MessageSignatures {
        compile_alone(serde_json::from_value(spec).unwrap()).unwrap()
    }

    #[test]
    fn the_signatures_of_the_rfc_verify() {
        // RFC 9421 §B.2.5 and §B.2.6.
        let secret = base64::decode(SHARED.as_bytes()).unwrap();
        let mut hmac = policy(
            json!({ "keys": [{ "keyId": "test-shared-secret", "algorithm": "hmac-sha256", "secret": "x" }], "requiredComponents": ["@authority"] }),
        );
        hmac.0.keys.get_mut("test-shared-secret").unwrap().check =
            Check::Secret(Box::new(mac::Key::new(mac::HMAC_SHA256, &secret)));
        let input =
            r#"sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#;
        let signature = "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:";
        assert_eq!(ask(&hmac, &mut example(), input, signature, NOW), Ok("test-shared-secret".to_owned()));
        let ed = policy(
            json!({ "keys": [{ "keyId": "test-key-ed25519", "algorithm": "ed25519", "publicKey": ED25519_PUBLIC }], "requiredComponents": ["@method", "@path"] }),
        );
        let input = r#"sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#;
        let signature = "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:";
        assert_eq!(ask(&ed, &mut example(), input, signature, NOW), Ok("test-key-ed25519".to_owned()));
        for (why, req, input, now) in [
            (
                "another method",
                {
                    let mut req = example();
                    req.set_method(b"PUT");
                    req
                },
                input.to_owned(),
                NOW,
            ),
            ("another key", example(), input.replace("ed25519", "ed25518"), NOW),
            ("another algorithm", example(), format!("{input};alg=\"rsa-pss-sha512\""), NOW),
            ("old", example(), input.to_owned(), NOW + 300),
            ("of the future", example(), input.to_owned(), NOW - 60),
            ("another time", example(), input.replace("8884473", "8884474"), NOW),
            ("a component less", example(), input.replace(" \"@path\"", ""), NOW),
            ("a component twice", example(), input.replace("\"date\"", "\"date\" \"date\""), NOW),
            ("no created", example(), input.replace(";created=1618884473", ""), NOW),
        ] {
            assert_eq!(
                ask(&ed, &mut req.clone(), &input, signature, now),
                Err(Cause::SignatureInvalid),
                "{why}"
            );
        }
        assert_eq!(ask(&ed, &mut example(), "", "", NOW), Err(Cause::CredentialsMissing));
        assert_eq!(ask(&ed, &mut example(), input, "", NOW), Err(Cause::SignatureInvalid));
    }

    #[test]
    fn every_part_of_a_request_can_be_covered() {
        let key = Ed25519KeyPair::generate().unwrap();
        let mut der = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        der.extend_from_slice(key.public_key().as_ref());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", base64::encode(&der));
        let policy = policy(
            json!({ "keys": [{ "keyId": "k", "algorithm": "ed25519", "publicKey": pem }], "forward": false }),
        );
        let sign = |items: &[(&str, &str)]| {
            let names: Vec<&str> = items.iter().map(|(name, _)| *name).collect();
            let params = format!("({});created={NOW};keyid=\"k\"", names.join(" "));
            let lines: String = items.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
            let signature = key.sign(format!("{lines}\"@signature-params\": {params}").as_bytes());
            (format!("s={params}"), format!("s=:{}:", base64::encode(signature.as_ref())))
        };
        let uri = ("\"@target-uri\"", "https://example.com/foo?param=Value&Pet=dog");
        let method = ("\"@method\"", "POST");
        for items in [
            vec![method, uri],
            vec![
                method,
                ("\"@authority\"", "example.com"),
                ("\"@path\"", "/foo"),
                ("\"@query\"", "?param=Value&Pet=dog"),
            ],
            vec![
                method,
                ("\"@authority\"", "example.com"),
                ("\"@request-target\"", "/foo?param=Value&Pet=dog"),
            ],
            vec![method, uri, ("\"@query-param\";name=\"Pet\"", "dog"), ("\"@scheme\"", "https")],
            vec![method, uri, ("\"content-type\";bs", ":YXBwbGljYXRpb24vanNvbg==:")],
        ] {
            let (input, signature) = sign(&items);
            let mut req = example();
            assert_eq!(ask(&policy, &mut req, &input, &signature, NOW), Ok("k".to_owned()), "{input}");
            assert!(req.fields.find(&FieldName::parse(b"signature").unwrap()).is_none());
        }
        for items in [
            vec![method],
            vec![uri],
            vec![method, uri, ("\"x-none\"", "")],
            vec![method, uri, ("\"@status\"", "200")],
            vec![method, uri, ("\"date\";tr", "x")],
            vec![method, uri, ("\"@method\";req", "POST")],
            vec![method, uri, ("\"@query-param\";name=\"none\"", "")],
        ] {
            let (input, signature) = sign(&items);
            assert_eq!(
                ask(&policy, &mut example(), &input, &signature, NOW),
                Err(Cause::SignatureInvalid),
                "{input}"
            );
        }
    }

    #[test]
    fn mistakes_are_named() {
        let key = json!({ "keyId": "k", "algorithm": "ed25519", "publicKey": ED25519_PUBLIC });
        for (spec, field) in [
            (json!({}), ""),
            (json!({ "keys": [{ "keyId": "k", "algorithm": "ed25519" }] }), "keys[0]"),
            (json!({ "keys": [{ "keyId": "k", "algorithm": "hmac-sha256", "publicKey": "x" }] }), "keys[0]"),
            (
                json!({ "keys": [{ "keyId": "k", "algorithm": "ed25519", "publicKey": "x" }] }),
                "keys[0].publicKey",
            ),
            (
                json!({ "keys": [{ "keyId": "k", "algorithm": "ecdsa-p256-sha256", "publicKey": ED25519_PUBLIC }] }),
                "keys[0].publicKey",
            ),
            (json!({ "keys": [key, key] }), "keys[1].keyId"),
            (json!({ "keys": [key], "requiredComponents": ["@status"] }), "requiredComponents[0]"),
            (json!({ "keys": [key], "requiredComponents": ["Date"] }), "requiredComponents[0]"),
            (json!({ "keys": [key], "maxAge": "0s" }), "maxAge"),
        ] {
            let compiled = compile_alone::<MessageSignatures>(serde_json::from_value(spec.clone()).unwrap());
            assert_eq!(compiled.err().map(|invalid| invalid.field).as_deref(), Some(field), "{spec}");
        }
    }
}
