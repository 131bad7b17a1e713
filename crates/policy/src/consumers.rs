//! Consumers and their credentials, as policies look them up.
//!
//! API keys are not kept: what is kept is a keyed hash of each, made with a key that this process has drawn, so that a
//! dump of memory gives none away, and looking one up takes no longer for a key that is nearly right.

use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::{digest, hmac};
use foldhash::HashMap;
use rhumb_base::base64;
use serde_json::{Map, Value};

use crate::json;
use crate::memory::Digest;
use crate::password::PasswordHash;
use crate::principal::{Certificate, Consumer, Principal};

/// The consumers of a namespace.
#[derive(Default)]
pub struct Consumers {
    by_name: HashMap<Box<str>, Arc<Consumer>>,
    keys: HashMap<Digest, ApiKey>,
    users: HashMap<Box<str>, Owned<PasswordHash>>,
    secrets: HashMap<Box<str>, Owned<Box<[u8]>>>,
    tokens: Vec<Tokens>,
    certificates: HashMap<(Shows, Box<str>), Arc<Consumer>>,
}

/// A credential and whose it is.
type Owned<T> = (T, Arc<Consumer>);

/// Tokens of consumers by one claim of one issuer.
struct Tokens {
    issuer: Box<str>,
    claim: json::Path,
    by_value: HashMap<Box<str>, Arc<Consumer>>,
}

/// What a certificate is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shows {
    /// Its subject, as RFC 4514 writes it: `CN=api,O=Example`.
    Subject,
    /// One of its subject alternative names.
    Name,
    /// SHA-256 of it in lower-case hexadecimal.
    Fingerprint,
}

/// An API key that somebody may show.
#[derive(Clone)]
pub(crate) struct ApiKey {
    /// Who shows it.
    pub(crate) principal: Arc<Principal>,
    /// Until when. Unit: nanoseconds since 1970.
    pub(crate) until: u64,
}

/// A credential that cannot be taken: what is wrong with it, for people.
pub type Refused = String;

impl Consumers {
    /// Adds a consumer. Its credentials are added one by one.
    pub fn add(&mut self, consumer: Consumer) -> Arc<Consumer> {
        let consumer = Arc::new(consumer);
        self.by_name.insert(own_name(&consumer).into(), Arc::clone(&consumer));
        consumer
    }

    /// Adds an API key. **Unit** of `until`: nanoseconds since 1970; `None`: for ever.
    ///
    /// # Errors
    /// When another consumer has the same.
    pub fn add_key(
        &mut self,
        key: &KeySecret,
        until: Option<u64>,
        of: &Arc<Consumer>,
    ) -> Result<(), Refused> {
        let principal = Principal {
            method: crate::api_key::METHOD,
            subject: own_name(of).into(),
            consumer: Some(Arc::clone(of)),
            ..Principal::default()
        };
        let key_of = ApiKey { principal: Arc::new(principal), until: until.unwrap_or(u64::MAX) };
        put(&mut self.keys, key.tag, key_of, |other| {
            format!("is also a key of `{}`", other.principal.subject)
        })
    }

    /// Adds a user of `basicAuth`.
    ///
    /// # Errors
    /// When the hash cannot be used, or the name is taken.
    pub fn add_user(&mut self, name: &str, hash: &str, of: &Arc<Consumer>) -> Result<(), Refused> {
        let hash = PasswordHash::read(hash)?;
        put(&mut self.users, name.into(), (hash, Arc::clone(of)), |(_, other)| taken(name, other))
    }

    /// Adds a secret that signs requests.
    ///
    /// # Errors
    /// When its id is taken.
    pub fn add_secret(&mut self, id: &str, secret: Box<[u8]>, of: &Arc<Consumer>) -> Result<(), Refused> {
        put(&mut self.secrets, id.into(), (secret, Arc::clone(of)), |(_, other)| taken(id, other))
    }

    /// Adds what tokens of a consumer say: of this issuer, with this claim.
    ///
    /// # Errors
    /// When tokens of another consumer say the same, or the claim is empty.
    pub fn add_token(
        &mut self,
        issuer: &str,
        claim: &str,
        value: &str,
        of: &Arc<Consumer>,
    ) -> Result<(), Refused> {
        let claim = json::Path::parse(claim).ok_or("the claim has no name")?;
        let known = self.tokens.iter().position(|tokens| *tokens.issuer == *issuer && tokens.claim == claim);
        let at = known.unwrap_or_else(|| {
            self.tokens.push(Tokens { issuer: issuer.into(), claim, by_value: HashMap::default() });
            self.tokens.len() - 1
        });
        match self.tokens.get_mut(at) {
            Some(tokens) => {
                put(&mut tokens.by_value, value.into(), Arc::clone(of), |other| taken(value, other))
            }
            None => Ok(()),
        }
    }

    /// Adds a certificate.
    ///
    /// # Errors
    /// When another consumer has the same.
    pub fn add_certificate(&mut self, shows: Shows, value: &str, of: &Arc<Consumer>) -> Result<(), Refused> {
        let value = match shows {
            Shows::Fingerprint => value.replace(':', "").to_ascii_lowercase(),
            Shows::Subject | Shows::Name => value.to_owned(),
        };
        put(&mut self.certificates, (shows, value.as_str().into()), Arc::clone(of), |other| {
            taken(&value, other)
        })
    }

    /// The consumer of a name.
    pub fn named(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.by_name.get(name)
    }

    /// True when some consumer has an API key.
    pub(crate) fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    pub(crate) fn key(&self, tag: &Digest) -> Option<&ApiKey> {
        self.keys.get(tag)
    }

    /// True when some consumer has a password.
    pub(crate) fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    pub(crate) fn user(&self, name: &str) -> Option<(&PasswordHash, &Arc<Consumer>)> {
        self.users.get(name).map(|(hash, consumer)| (hash, consumer))
    }

    /// True when some consumer has a secret that signs.
    pub(crate) fn has_secrets(&self) -> bool {
        !self.secrets.is_empty()
    }

    pub(crate) fn secret(&self, id: &str) -> Option<(&[u8], &Arc<Consumer>)> {
        self.secrets.get(id).map(|(secret, consumer)| (&**secret, consumer))
    }

    /// Some hash, to be checked for users that are not there.
    pub(crate) fn some_hash(&self) -> Option<&PasswordHash> {
        self.users.values().next().map(|(hash, _)| hash)
    }

    /// Whose tokens have these claims.
    pub(crate) fn of_claims(&self, claims: &Map<String, Value>) -> Option<&Arc<Consumer>> {
        let issuer = claims.get("iss").and_then(Value::as_str)?;
        let of_issuer = self.tokens.iter().filter(|tokens| *tokens.issuer == *issuer);
        of_issuer
            .filter_map(|tokens| Some((tokens, tokens.claim.find(claims)?.as_str()?)))
            .find_map(|(tokens, value)| tokens.by_value.get(value))
    }

    /// Whose certificate it is: by fingerprint, then by subject, then by name.
    pub(crate) fn of_certificate(&self, certificate: &Certificate) -> Option<&Arc<Consumer>> {
        if self.certificates.is_empty() {
            return None;
        }
        let of = |shows, value: &str| self.certificates.get(&(shows, Box::from(value)));
        of(Shows::Fingerprint, &certificate.fingerprint)
            .or_else(|| of(Shows::Subject, &certificate.subject))
            .or_else(|| certificate.names().find_map(|name| of(Shows::Name, name)))
    }
}

/// Puts a value where none is; what `why` says of the one that is there otherwise.
fn put<K: Hash + Eq, V>(
    map: &mut HashMap<K, V>,
    key: K,
    value: V,
    why: impl FnOnce(&V) -> Refused,
) -> Result<(), Refused> {
    match map.entry(key) {
        Entry::Occupied(other) => Err(why(other.get())),
        Entry::Vacant(free) => {
            free.insert(value);
            Ok(())
        }
    }
}

fn taken(what: &str, by: &Consumer) -> Refused {
    format!("`{what}` belongs to `{}` too", own_name(by))
}

/// The name of a consumer in its namespace.
pub(crate) fn own_name(consumer: &Consumer) -> &str {
    consumer.name.split_once('/').map_or(&*consumer.name, |(_, name)| name)
}

/// The key of this process. Nothing that is made with it leaves the process.
static PROCESS_KEY: LazyLock<hmac::Key> = LazyLock::new(|| {
    let mut key = [0; 32];
    // Without randomness there would be no TLS either; a key of zeros still hashes.
    let _ = aws_lc_rs::rand::fill(&mut key);
    hmac::Key::new(hmac::HMAC_SHA256, &key)
});

/// A keyed hash of parts, each told apart from the next by its length.
pub(crate) fn keyed(parts: &[&[u8]]) -> Digest {
    let mut cx = hmac::Context::with_key(&PROCESS_KEY);
    for part in parts {
        cx.update(&part.len().to_le_bytes());
        cx.update(part);
    }
    cx.sign().as_ref().try_into().unwrap_or_default()
}

/// An API key, of which only a keyed hash is kept.
pub struct KeySecret {
    pub(crate) tag: Digest,
}

impl KeySecret {
    /// Of the key itself.
    ///
    /// # Errors
    /// When it is shorter than [`KEY_LEAST`] characters or has blanks in front or behind.
    pub fn of(key: &[u8]) -> Result<Self, Refused> {
        // Files end with a line end that nobody means.
        let key = key.strip_suffix(b"\n").unwrap_or(key);
        let key = key.strip_suffix(b"\r").unwrap_or(key);
        if key.len() < KEY_LEAST {
            return Err(format!(
                "has {} characters, and could be guessed: a key has at least {KEY_LEAST}",
                key.len()
            ));
        }
        if key.trim_ascii() != key {
            return Err("has blanks in front or behind, which no request can have".to_owned());
        }
        Ok(Self { tag: tag(key) })
    }

    /// Of its SHA-256: `sha256:` and 64 hexadecimal digits, or base64.
    ///
    /// # Errors
    /// When it is no such text.
    pub fn of_hash(text: &str) -> Result<Self, Refused> {
        let digits = text.strip_prefix("sha256:").ok_or("does not begin with `sha256:`")?;
        let hash = match digits.len() {
            64 => hexadecimal(digits),
            _ => base64::decode(digits.as_bytes()),
        };
        let hash = hash.filter(|hash| hash.len() == 32).ok_or("is no SHA-256 in hexadecimal or base64")?;
        Ok(Self { tag: keyed(&[&hash]) })
    }
}

/// Shortest API key, in characters.
pub const KEY_LEAST: usize = 16;

/// What a key is looked up by.
pub(crate) fn tag(key: &[u8]) -> Digest {
    keyed(&[digest::digest(&digest::SHA256, key).as_ref()])
}

fn hexadecimal(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes().iter().map(|&digit| char::from(digit).to_digit(16));
    let digits: Vec<u8> =
        digits.map(|digit| digit.and_then(|digit| u8::try_from(digit).ok())).collect::<Option<_>>()?;
    Some(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Consumer {
        Consumer { name: format!("default/{name}").into(), ..Consumer::default() }
    }

    #[test]
    fn a_key_is_found_by_itself_and_by_its_hash() {
        let mut consumers = Consumers::default();
        let acme = consumers.add(named("acme"));
        let other = consumers.add(named("other"));
        consumers.add_key(&KeySecret::of(b"0123456789abcdef\n").unwrap(), None, &acme).unwrap();
        let hash = "sha256:9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";
        let same = consumers.add_key(&KeySecret::of_hash(hash).unwrap(), None, &other);
        assert_eq!(same.unwrap_err(), "is also a key of `acme`");
        assert!(consumers.key(&tag(b"0123456789abcdef")).is_some());
        assert!(consumers.key(&tag(b"0123456789abcdeF")).is_none());
        assert!(KeySecret::of(b"short").is_err() && KeySecret::of(b" 0123456789abcdef").is_err());
        for text in ["9f9f", "sha256:9f", "md5:9f9f5111f7b27a781f1f1ddde5ebc2dd"] {
            assert!(KeySecret::of_hash(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tokens_and_certificates_belong_to_one_consumer() {
        let mut consumers = Consumers::default();
        let (acme, other) = (consumers.add(named("acme")), consumers.add(named("other")));
        consumers.add_token("https://id", "sub", "ann", &acme).unwrap();
        consumers.add_token("https://id", "/org/id", "7", &other).unwrap();
        assert!(consumers.add_token("https://id", "sub", "ann", &other).is_err());
        let of = |text: &str| {
            let claims = json::read_object(text.as_bytes()).unwrap();
            consumers.of_claims(&claims).map(|consumer| own_name(consumer).to_owned())
        };
        assert_eq!(of(r#"{"iss": "https://id", "sub": "ann"}"#).as_deref(), Some("acme"));
        assert_eq!(of(r#"{"iss": "https://id", "sub": "x", "org": {"id": "7"}}"#).as_deref(), Some("other"));
        assert_eq!(of(r#"{"iss": "https://evil", "sub": "ann"}"#), None);
        let mut consumers = Consumers::default();
        let acme = consumers.add(named("acme"));
        consumers.add_certificate(Shows::Fingerprint, "AB:CD", &acme).unwrap();
        consumers.add_certificate(Shows::Name, "spiffe://t/a", &acme).unwrap();
        let by_print = Certificate { fingerprint: "abcd".into(), ..Certificate::default() };
        let by_name = Certificate { uris: ["spiffe://t/a".into()].into(), ..Certificate::default() };
        assert!(
            consumers.of_certificate(&by_print).is_some() && consumers.of_certificate(&by_name).is_some()
        );
        assert!(consumers.of_certificate(&Certificate::default()).is_none());
    }
}
