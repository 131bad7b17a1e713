//! API keys: texts that whoever shows them is known by.
//!
//! Keys are kept as keyed hashes only ([`crate::consumers`]). To replace one, the new one is written beside the old one, with
//! `expires` on the old. Before the request goes on, the key is taken out of it. Cost: two hashes and a lookup.

use std::sync::Arc;

use foldhash::HashMap;
use rhumb_base::failure::Cause;
use rhumb_codec::field::FieldName;
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::consumers::{ApiKey as Key, Consumers, KeySecret, tag};
use crate::context::{Context, SecretValue};
use crate::credential::{self, CREDENTIAL_MAX, Challenge, Found, Missing, Place, PlaceSpec, Places};
use crate::exchange::Exchange;
use crate::memory::Digest;
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};
use crate::principal::Principal;
use crate::quantity;

/// Most keys of one policy.
pub const KEYS_LIMIT: usize = 10_000;

/// How a principal is proven that has shown a key.
pub(crate) const METHOD: &str = "apiKey";

/// Where keys are looked for when nothing is written.
const USUAL: &[u8] = b"x-api-key";

/// Requests need an API key: of this list, or of a Consumer.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Where the key is. Default: `[{ header: x-api-key }]`.
    #[serde(default)]
    pub from: Vec<PlaceSpec>,
    /// Keys that are good, besides those of Consumers. At most 10000.
    #[serde(default)]
    pub keys: Vec<KeySpec>,
    /// Keys of the Consumers of this namespace are good. Default: true.
    #[serde(default = "yes")]
    pub consumers: bool,
    /// Pass the key on to the backend. Default: false, it is taken out of the request.
    #[serde(default)]
    pub forward: bool,
    /// What to do without a key: `Refuse`, or `Continue`. Default: refuse, unless `anonymous` or `authenticated` decide.
    #[serde(default)]
    pub missing: Option<Missing>,
    /// `realm` of the challenge. Default: none.
    #[serde(default)]
    pub realm: Option<String>,
}

fn yes() -> bool {
    true
}

/// A key: itself, or its hash.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeySpec {
    /// Who shows it: the subject of the principal.
    pub name: String,
    /// The key. At least 16 characters.
    #[serde(default)]
    pub key: Option<SecretValue>,
    /// Its SHA-256 instead: `sha256:` and 64 hexadecimal digits, or base64.
    #[serde(default)]
    pub hash: Option<String>,
    /// When it stops being good: `2030-01-31T12:00:00Z`. Default: never.
    #[serde(default)]
    pub expires: Option<String>,
}

/// A compiled policy.
pub struct ApiKey(Box<Inner>);

struct Inner {
    from: Places,
    keys: HashMap<Digest, Key>,
    consumers: Option<Arc<Consumers>>,
    forward: bool,
    missing: Option<Missing>,
    challenge: Challenge,
}

impl HttpPolicy for ApiKey {
    const KIND: &'static str = METHOD;
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
        let mut keys: HashMap<Digest, Key> = HashMap::default();
        for (at, spec) in spec.keys.iter().enumerate() {
            let (key, until) = spec.read(&format!("keys[{at}]"), cx)?;
            let principal =
                Principal { method: METHOD, subject: spec.name.as_str().into(), ..Principal::default() };
            let key_of = Key { principal: Arc::new(principal), until };
            if let Some(other) = keys.insert(key.tag, key_of) {
                let why = format!("is also the key of `{}`", other.principal.subject);
                return Err(Invalid::new(format!("keys[{at}]"), why, "remove one of them"));
            }
        }
        let consumers = spec.consumers.then(|| cx.consumers());
        if keys.is_empty() && !consumers.as_ref().is_some_and(|consumers| consumers.has_keys()) {
            let why =
                format!("nobody in namespace `{}` has a key: every request would be refused", cx.namespace());
            return Err(Invalid::new("", why, "write `keys`, or a Consumer with `credentials.apiKeys`"));
        }
        let usual = FieldName::parse(USUAL).map(Place::header);
        let usual = usual.unwrap_or_else(|_| Place::authorization("ApiKey"));
        Ok(Self(Box::new(Inner {
            from: Places::read(&spec.from, usual)?,
            keys,
            consumers,
            forward: spec.forward,
            missing: spec.missing,
            challenge: credential::challenge("ApiKey", spec.realm.as_deref())?,
        })))
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        let inner = &*self.0;
        let (key, place) = match inner.from.find(req) {
            Found::Nothing => return credential::missing(inner.missing, &inner.challenge, cx),
            Found::Several => {
                return Verdict::Respond(credential::refuse(Cause::CredentialsAmbiguous, &inner.challenge));
            }
            Found::One(key, place) => (key, place),
        };
        let tag = match key.len() <= CREDENTIAL_MAX {
            true => tag(&key),
            false => return Verdict::Respond(credential::refuse(Cause::KeyInvalid, &inner.challenge)),
        };
        let of_consumers = || inner.consumers.as_ref().and_then(|consumers| consumers.key(&tag));
        let known = inner.keys.get(&tag).or_else(of_consumers).filter(|known| cx.unix_nanos < known.until);
        let Some(known) = known else {
            return Verdict::Respond(credential::refuse(Cause::KeyInvalid, &inner.challenge));
        };
        if !inner.forward {
            place.remove(req);
        }
        cx.prove(Arc::clone(&known.principal));
        Verdict::Continue
    }
}

impl KeySpec {
    fn read(&self, field: &str, cx: &mut Context<'_>) -> Result<(KeySecret, u64), Invalid> {
        let key = match (&self.key, &self.hash) {
            (Some(key), None) => {
                let field = format!("{field}.key");
                let key = cx.secret(&field, key)?;
                KeySecret::of(&key)
                    .map_err(|why| Invalid::new(field, why, "`openssl rand -hex 32` makes one"))?
            }
            (None, Some(hash)) => KeySecret::of_hash(hash).map_err(|why| {
                Invalid::new(format!("{field}.hash"), why, "`printf KEY | sha256sum` makes one")
            })?,
            _ => {
                return Err(Invalid::new(
                    field,
                    "has not exactly one of `key` and `hash`",
                    "write one of them",
                ));
            }
        };
        let until = quantity::instant(&format!("{field}.expires"), self.expires.as_deref())?;
        Ok((key, until.unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use rhumb_codec::field::Known;
    use rhumb_codec::head::Scheme;
    use serde_json::json;

    const KEY: &str = "0123456789abcdef";

    fn compile(spec: serde_json::Value) -> Result<ApiKey, Invalid> {
        compile_alone(serde_json::from_value(spec).unwrap())
    }

    fn ask(policy: &ApiKey, target: &str, key: Option<&str>) -> (Result<String, Cause>, RequestHead) {
        let mut req = RequestHead::new();
        req.set_target(target.as_bytes());
        if let Some(key) = key {
            req.fields.append_raw(Known::Other, b"x-api-key", key.as_bytes());
        }
        let mut cx = Exchange::new([127, 0, 0, 1].into(), Scheme::Http, 80);
        cx.unix_nanos = 2_000_000_000_000_000_000;
        let result = match policy.on_request(&mut req, &mut (), &mut cx) {
            Verdict::Continue => Ok(cx.principal().map(|who| who.subject.to_string()).unwrap_or_default()),
            Verdict::Respond(reply) => {
                assert!(reply.head.fields.has(Known::WwwAuthenticate));
                Err(reply.cause.unwrap())
            }
            _ => panic!(),
        };
        (result, req)
    }

    #[test]
    fn keys_are_good_until_they_expire_and_are_not_passed_on() {
        let policy = compile(json!({ "keys": [
            { "name": "ann", "key": KEY },
            { "name": "old", "key": "0123456789abcdeg", "expires": "2033-05-18T03:33:20Z" },
            { "name": "next", "key": "0123456789abcdeh", "expires": "2033-05-18T03:33:21Z" },
            { "name": "hashed", "hash": "sha256:f39dac6cbaba535e2c207cd0cd8f154974223c848f727f98b3564cea569b41cf" },
        ]}))
        .unwrap();
        let (who, req) = ask(&policy, "/", Some(KEY));
        assert_eq!(who, Ok("ann".to_owned()));
        assert!(req.fields.is_empty());
        assert_eq!(ask(&policy, "/", Some("0123456789abcdeg")).0, Err(Cause::KeyInvalid));
        assert_eq!(ask(&policy, "/", Some("0123456789abcdeh")).0, Ok("next".to_owned()));
        assert_eq!(ask(&policy, "/", Some("abcdefghijklmnop")).0, Ok("hashed".to_owned()));
        assert_eq!(ask(&policy, "/", Some("0123456789abcde")).0, Err(Cause::KeyInvalid));
        assert_eq!(ask(&policy, "/", Some("")).0, Err(Cause::KeyInvalid));
        assert_eq!(ask(&policy, "/", None).0, Err(Cause::CredentialsMissing));
    }

    #[test]
    fn a_key_may_be_elsewhere_and_be_passed_on() {
        let policy = compile(json!({
            "from": [{ "query": "key" }, { "header": "x-api-key" }], "forward": true, "missing": "Continue",
            "keys": [{ "name": "ann", "key": KEY }],
        }))
        .unwrap();
        let (who, req) = ask(&policy, &format!("/?key={KEY}"), None);
        assert_eq!((who, req.query()), (Ok("ann".to_owned()), Some(format!("key={KEY}").as_bytes())));
        assert_eq!(ask(&policy, &format!("/?key={KEY}"), Some(KEY)).0, Err(Cause::CredentialsAmbiguous));
        assert_eq!(ask(&policy, "/", None).0, Ok(String::new()));
        assert_eq!(ask(&policy, "/?key=x", None).0, Err(Cause::KeyInvalid), "wrong is not missing");
    }

    #[test]
    fn mistakes_are_named() {
        for (spec, field) in [
            (json!({}), ""),
            (json!({ "keys": [{ "name": "a" }] }), "keys[0]"),
            (json!({ "keys": [{ "name": "a", "key": "short" }] }), "keys[0].key"),
            (json!({ "keys": [{ "name": "a", "hash": "sha256:1" }] }), "keys[0].hash"),
            (json!({ "keys": [{ "name": "a", "key": KEY, "expires": "tomorrow" }] }), "keys[0].expires"),
            (json!({ "keys": [{ "name": "a", "key": KEY }, { "name": "b", "key": KEY }] }), "keys[1]"),
        ] {
            assert_eq!(
                compile(spec.clone()).err().map(|invalid| invalid.field).as_deref(),
                Some(field),
                "{spec}"
            );
        }
    }
}
