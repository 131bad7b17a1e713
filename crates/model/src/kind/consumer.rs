//! Consumer: a person, a team or a program that calls, and the credentials that it is known by.

use super::secret::SecretText;
use crate::decode::{Decode, Decoder, Defs, List, Table, object};
use crate::diag::Rule;
use crate::scalar::Name;
use crate::span::{Span, Spanned};
use crate::value::{Node, Value};
use serde_json::json;

object! {
    /// A caller that is known: its credentials, and what policies and conditions can ask of it.
    pub struct Consumer as "the spec of a Consumer" {
        /// Groups that it is in: `"partners" in consumer.groups`.
        "groups" groups: List<Spanned<Box<str>>, 0, 64>,
        /// The name of its plan: `consumer.plan`.
        "plan" plan: Option<Spanned<Box<str>>>,
        /// What else is to be known of it: `consumer.attributes.region`.
        "attributes" attributes: Table<Node, 64>,
        /// What it shows to be known. For each kind there has to be a policy that asks for it.
        "credentials" credentials: Option<Credentials>,
    }
}

object! {
    /// Credentials of a Consumer.
    pub struct Credentials as "credentials" {
        /// Keys, for `apiKey`. Two that are good at a time make it possible to replace one.
        "apiKeys" api_keys: List<ApiKey, 0, 64>,
        /// User names with hashes of their passwords, for `basicAuth`.
        "basic" basic: List<Basic, 0, 64>,
        /// Secrets that sign requests, for `hmac` and `messageSignatures`.
        "hmac" hmac: List<Hmac, 0, 64>,
        /// What its tokens say, for `jwt`.
        "jwt" jwt: List<Token, 0, 64>,
        /// Its certificates, for `clientCertificate`.
        "certificates" certificates: List<ClientCertificate, 0, 64>,
    }
}

object! {
    /// An API key: itself, or its hash.
    pub struct ApiKey as "an API key" {
        /// A name to tell keys apart.
        "name" name: Option<Spanned<Box<str>>>,
        /// The key, at least 16 characters; or `secretRef: {name: SECRET, key: KEY}`.
        "key" key: Option<Spanned<SecretSource>>,
        /// Its SHA-256 instead: `sha256:` and 64 hexadecimal digits, or base64.
        "hash" hash: Option<Spanned<Box<str>>>,
        /// When it stops being good: `2030-01-31T12:00:00Z`. Default: never.
        "expires" expires: Option<Spanned<Box<str>>>,
    }
    check ApiKey::check;
}

impl ApiKey {
    fn check(&self, cx: &mut Decoder<'_>) {
        if self.key.is_some() == self.hash.is_some() && !self.broken {
            let diag = cx
                .error(Rule::MissingField, self.span, "an API key has one of `key` and `hash`")
                .fix("write one of them: `openssl rand -hex 32` makes a key");
            cx.push(diag);
        }
    }
}

object! {
    /// A user name and the hash of its password.
    pub struct Basic as "a user" {
        /// The name; no `:` in it.
        "username" username: Spanned<Box<str>>,
        /// Hash of argon2 or bcrypt, as `htpasswd -B` makes it; or `secretRef: {name: SECRET, key: KEY}`.
        "passwordHash" password_hash: Spanned<SecretSource>,
    }
}

object! {
    /// A secret that signs requests, and its id.
    pub struct Hmac as "an hmac credential" {
        /// The id that requests name.
        "keyId" key_id: Spanned<Box<str>>,
        /// The secret; or `secretRef: {name: SECRET, key: KEY}`.
        "secret" secret: Spanned<SecretSource>,
    }
}

object! {
    /// What the tokens of a Consumer say.
    pub struct Token as "a jwt credential" {
        /// Who signs them: `iss`.
        "issuer" issuer: Spanned<Box<str>>,
        /// Their `sub`: short for claim `sub` with this value.
        "subject" subject: Option<Spanned<Box<str>>>,
        /// Another claim: its name, or a path that begins with `/`.
        "claim" claim: Option<Spanned<Box<str>>>,
        /// The value of the claim.
        "value" value: Option<Spanned<Box<str>>>,
    }
    check Token::check;
}

impl Token {
    fn check(&self, cx: &mut Decoder<'_>) {
        let is_one = match (&self.subject, &self.claim, &self.value) {
            (Some(_), None, None) | (None, Some(_), Some(_)) => true,
            _ => self.broken,
        };
        if !is_one {
            let diag = cx
                .error(
                    Rule::MissingField,
                    self.span,
                    "a jwt credential has a `subject`, or a `claim` with its `value`",
                )
                .fix("write `subject: NAME`");
            cx.push(diag);
        }
    }
}

object! {
    /// A client certificate, by one thing that it shows.
    pub struct ClientCertificate as "a certificate" {
        /// Its subject: `CN=api,O=Example` (RFC 4514).
        "subject" subject: Option<Spanned<Box<str>>>,
        /// One of its subject alternative names.
        "san" san: Option<Spanned<Box<str>>>,
        /// Its SHA-256 in hexadecimal, with or without colons.
        "fingerprint" fingerprint: Option<Spanned<Box<str>>>,
    }
    check ClientCertificate::check;
}

impl ClientCertificate {
    fn check(&self, cx: &mut Decoder<'_>) {
        let written = [&self.subject, &self.san, &self.fingerprint].into_iter().flatten().count();
        if written != 1 && !self.broken {
            let what = "a certificate is known by one of `subject`, `san` and `fingerprint`";
            let diag = cx.error(Rule::MissingField, self.span, what).fix("write one of them");
            cx.push(diag);
        }
    }
}

/// A value that nobody should see: written here, or in a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// As it is.
    Text(SecretText),
    /// A key of a Secret of the same namespace.
    Secret {
        /// Name of the Secret.
        name: Spanned<Name>,
        /// Key in it.
        key: Spanned<Box<str>>,
        /// Where it is written.
        span: Span,
    },
}

object! {
    /// A value out of a Secret.
    pub struct OfSecret as "a value out of a Secret" {
        /// Which.
        "secretRef" secret_ref: SecretKey,
    }
}

object! {
    /// A key of a Secret of the same namespace.
    pub struct SecretKey as "a secretRef" {
        /// Name of the Secret.
        "name" name: Spanned<Name>,
        /// Key in it.
        "key" key: Spanned<Box<str>>,
    }
}

impl Decode for SecretSource {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            let OfSecret { secret_ref, span, .. } = OfSecret::decode(node, cx)?;
            return Some(Self::Secret { name: secret_ref.name, key: secret_ref.key, span });
        }
        SecretText::decode(node, cx).map(Self::Text)
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        json!({ "anyOf": [{ "type": "string" }, OfSecret::schema(defs)] })
    }
}
