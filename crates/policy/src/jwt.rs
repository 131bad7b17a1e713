//! Bearer tokens that an issuer signed: JSON Web Tokens (RFC 7519, RFC 8725), carried as RFC 6750 says.
//!
//! An algorithm is used only with a key of its type, and secrets only where a secret is configured, so a token cannot choose
//! how it is checked. A token that was found good is known again by its SHA-256 until it expires or the keys change.
//! Cost: a known token one hash of its octets and a lookup; an unknown one its signature.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use rhumb_base::failure::Cause;
use rhumb_codec::field::FieldValue;
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::claims::{
    self, ClaimFieldSpec, ClaimFields, Demands, RequiredSpec, audience_is, boxed, principal, time,
};
use crate::consumers::Consumers;
use crate::context::{Context, SecretValue};
use crate::credential::{self, CREDENTIAL_MAX, Challenge, Found, Missing, Place, PlaceSpec, Places};
use crate::exchange::Exchange;
use crate::fetched::Look;
use crate::jwt::key::{Algorithm, Judgement, Key, KeySet};
use crate::jwt::keys::{Keys, Source};
use crate::jwt::token::Token;
use crate::memory::{Digest, Memory};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Outcome, Verdict};
use crate::principal::Principal;
use crate::quantity;

pub mod key;
pub mod keys;
pub mod service_account;
pub mod token;

#[cfg(test)]
mod tests;

/// Most issuers of one policy.
pub const PROVIDERS_LIMIT: usize = 32;

/// Most tokens that a worker knows again, for each policy.
pub const REMEMBERED: usize = 4096;

/// How much clocks may differ where nothing is written.
pub const LEEWAY: Duration = Duration::from_secs(30);

/// The longest `leeway`: more makes `exp` meaningless.
pub const LEEWAY_MAX: Duration = Duration::from_secs(600);

/// How long keys are good where nothing is written.
pub const CACHE_DURATION: Duration = Duration::from_secs(300);

/// How long a request for keys may take where nothing is written.
pub const KEYS_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the document about an issuer is (OpenID Connect Discovery §4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Requests need a token that an issuer signed. One issuer is written beside the other fields, several as `providers`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Who signs: the `iss` of tokens, exactly. Default: any, when keys are written.
    #[serde(default)]
    pub issuer: Option<String>,
    /// For whom tokens must be: one of them is in `aud`. Default: anybody.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// The public keys of the issuer. Default: where the issuer's OpenID Connect discovery says.
    #[serde(default)]
    pub jwks: Option<JwksSpec>,
    /// The secret that signs, for HS256, HS384 and HS512. Default: none, and those are refused.
    #[serde(default)]
    pub secret: Option<SecretValue>,
    /// Algorithms that are allowed: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA; with `secret`
    /// HS256, HS384, HS512. Default: all that fit the key; with `secret` HS256.
    #[serde(default)]
    pub algorithms: Vec<String>,
    /// Several issuers, told apart by `iss`. Instead of the fields above.
    #[serde(default)]
    pub providers: Vec<ProviderSpec>,
    /// Where the token is. Default: `[{ header: authorization }]`, behind `Bearer`.
    #[serde(default)]
    pub from: Vec<PlaceSpec>,
    /// How much the issuer's clock may differ, for `exp` and `nbf`. At most 10m. Default: 30s.
    #[serde(default)]
    pub leeway: Option<String>,
    /// Refuse tokens without `exp`. Default: true.
    #[serde(default = "yes")]
    pub require_expiry: bool,
    /// Claims that must be there. Without one: 403.
    #[serde(default)]
    pub required_claims: Vec<RequiredSpec>,
    /// Scopes (`scope` or `scp`) that a token must all have. Without one: 403.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Pass the token on to the backend. Default: true.
    #[serde(default = "yes")]
    pub forward: bool,
    /// Request fields to set to claims. What a client sends under these names is removed, whatever the token says.
    #[serde(default)]
    pub claims_to_fields: Vec<ClaimFieldSpec>,
    /// What to do without a token: `Refuse`, or `Continue`. Default: refuse, unless `anonymous` or `authenticated` decide.
    #[serde(default)]
    pub missing: Option<Missing>,
    /// `realm` of the challenge. Default: none.
    #[serde(default)]
    pub realm: Option<String>,
}

fn yes() -> bool {
    true
}

/// An issuer of tokens.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderSpec {
    /// Who signs: the `iss` of tokens, exactly.
    pub issuer: String,
    /// For whom tokens must be: one of them is in `aud`. Default: anybody.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// The public keys of the issuer. Default: where the issuer's OpenID Connect discovery says.
    #[serde(default)]
    pub jwks: Option<JwksSpec>,
    /// The secret that signs, for HS256, HS384 and HS512. Default: none, and those are refused.
    #[serde(default)]
    pub secret: Option<SecretValue>,
    /// Algorithms that are allowed. Default: all that fit the key; with `secret` HS256.
    #[serde(default)]
    pub algorithms: Vec<String>,
}

/// Where public keys are: at a URL, or here.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwksSpec {
    /// URL of the JWK Set (RFC 7517 §5). Default, without `inline`: found by OpenID Connect discovery.
    #[serde(default)]
    pub uri: Option<String>,
    /// The Backend that says how to connect there. Default: the host of the URL, with TLS for https.
    #[serde(default)]
    pub backend: Option<String>,
    /// How long keys are good; they are fetched anew before, and kept when that fails. Default: 5m.
    #[serde(default)]
    pub cache_duration: Option<String>,
    /// How long a request for keys may take. Default: 5s.
    #[serde(default)]
    pub timeout: Option<String>,
    /// The JWK Set itself, as mapping or text, or `{ secretRef: { name: NAME, key: KEY } }`.
    #[serde(default)]
    pub inline: Option<Value>,
}

/// A compiled policy.
pub struct Jwt {
    inner: Arc<Inner>,
}

struct Inner {
    providers: Box<[Provider]>,
    from: Places,
    leeway: i128,
    require_expiry: bool,
    demands: Demands,
    forward: bool,
    fields: ClaimFields,
    missing: Option<Missing>,
    challenge: Challenge,
    known: Memory<Arc<Good>>,
    consumers: Arc<Consumers>,
}

struct Provider {
    issuer: Option<Box<str>>,
    audiences: Box<[Box<str>]>,
    algorithms: Box<[Algorithm]>,
    keys: Trust,
}

enum Trust {
    Written(KeySet),
    Fetched(Arc<Keys>, Arc<Source>),
}

/// A token that was found good.
struct Good {
    principal: Arc<Principal>,
    /// Values of the fields of the policy, by their places.
    fields: Box<[(usize, FieldValue)]>,
    /// Unit: nanoseconds since 1970.
    until: u64,
    provider: usize,
    /// Number of the keys that it was checked with.
    keys: u64,
}

/// Why a token is not good.
struct Bad {
    cause: Cause,
    /// RFC 6750 §3.1.
    error: &'static str,
    why: &'static str,
}

impl Bad {
    fn token(why: &'static str) -> Self {
        Self { cause: Cause::TokenInvalid, error: "invalid_token", why }
    }

    fn scope(why: &'static str) -> Self {
        Self { cause: Cause::ScopeInsufficient, error: "insufficient_scope", why }
    }
}

/// What came of checking a token.
enum Checked {
    Good(Arc<Good>),
    Bad(Bad),
    /// Keys are being fetched.
    Wait(Arc<Keys>),
    /// There are no keys.
    NoKeys,
}

impl HttpPolicy for Jwt {
    const KIND: &'static str = "jwt";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        let beside = ProviderParts {
            issuer: spec.issuer.as_deref(),
            audiences: &spec.audiences,
            jwks: spec.jwks.as_ref(),
            secret: spec.secret.as_ref(),
            algorithms: &spec.algorithms,
        };
        let providers: Box<[Provider]> = if spec.providers.is_empty() {
            [beside.compile("", cx)?].into()
        } else {
            beside.refuse_all()?;
            providers(&spec.providers, cx)?
        };
        let leeway = quantity::duration("leeway", spec.leeway.as_deref())?.unwrap_or(LEEWAY);
        if leeway > LEEWAY_MAX {
            return Err(Invalid::new("leeway", "is longer than 10m", "let the issuer's clock be set right"));
        }
        let from = Places::read(&spec.from, Place::authorization("Bearer"))?;
        let inner = Inner {
            providers,
            fields: ClaimFields::read(&spec.claims_to_fields, Some(&from))?,
            from,
            leeway: i128::try_from(leeway.as_nanos()).unwrap_or(i128::MAX),
            require_expiry: spec.require_expiry,
            demands: Demands::read(&spec.required_claims, &spec.scopes)?,
            forward: spec.forward,
            missing: spec.missing,
            challenge: credential::challenge("Bearer", spec.realm.as_deref())?,
            known: Memory::new(REMEMBERED),
            consumers: cx.consumers(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        // Ours alone, whatever comes of the token.
        self.inner.fields.remove(req);
        self.inner.decide(req, cx, true)
    }
}

/// The fields of a provider, wherever they are written.
struct ProviderParts<'s> {
    issuer: Option<&'s str>,
    audiences: &'s [String],
    jwks: Option<&'s JwksSpec>,
    secret: Option<&'s SecretValue>,
    algorithms: &'s [String],
}

fn providers(specs: &[ProviderSpec], cx: &mut Context<'_>) -> Result<Box<[Provider]>, Invalid> {
    if specs.len() > PROVIDERS_LIMIT {
        let why = format!("has {} items, more than {PROVIDERS_LIMIT}", specs.len());
        return Err(Invalid::new("providers", why, "split them over several routes"));
    }
    let mut providers: Vec<Provider> = Vec::new();
    for (at, spec) in specs.iter().enumerate() {
        if providers.iter().any(|other| other.issuer.as_deref() == Some(&spec.issuer)) {
            let why = format!("`{}` is the issuer of another one", spec.issuer);
            return Err(Invalid::new(format!("providers[{at}].issuer"), why, "put them together"));
        }
        let parts = ProviderParts {
            issuer: Some(&spec.issuer),
            audiences: &spec.audiences,
            jwks: spec.jwks.as_ref(),
            secret: spec.secret.as_ref(),
            algorithms: &spec.algorithms,
        };
        providers.push(parts.compile(&format!("providers[{at}]."), cx)?);
    }
    Ok(providers.into())
}

impl ProviderParts<'_> {
    fn refuse_all(&self) -> Result<(), Invalid> {
        let written = [
            ("issuer", self.issuer.is_some()),
            ("audiences", !self.audiences.is_empty()),
            ("jwks", self.jwks.is_some()),
            ("secret", self.secret.is_some()),
            ("algorithms", !self.algorithms.is_empty()),
        ];
        match written.iter().find(|(_, is_written)| *is_written) {
            Some((name, _)) => {
                Err(Invalid::new(*name, "stands beside `providers`", "move it into each of the providers"))
            }
            None => Ok(()),
        }
    }

    fn compile(&self, within: &str, cx: &mut Context<'_>) -> Result<Provider, Invalid> {
        let algorithms = self.algorithms(within)?;
        let keys = match (self.jwks, self.secret) {
            (Some(_), Some(_)) => {
                return Err(Invalid::new(
                    format!("{within}secret"),
                    "stands beside `jwks`",
                    "keep one of them: a key that is public must never be taken for a secret",
                ));
            }
            (None, Some(secret)) => {
                let field = format!("{within}secret");
                let secret = cx.secret(&field, secret)?;
                let key = Key::secret(&secret, &algorithms)
                    .map_err(|why| Invalid::new(field, why, "choose a longer one"))?;
                Trust::Written(KeySet::of(vec![key]))
            }
            (jwks, None) => {
                let discovered = JwksSpec::default();
                self.public(within, jwks.unwrap_or(&discovered), &algorithms, cx)?
            }
        };
        let issuer = self.issuer.map(Into::into);
        Ok(Provider { issuer, audiences: boxed(self.audiences), algorithms, keys })
    }

    fn algorithms(&self, within: &str) -> Result<Box<[Algorithm]>, Invalid> {
        let has_secret = self.secret.is_some();
        if self.algorithms.is_empty() {
            let all = Algorithm::ALL.iter().copied();
            return Ok(match has_secret {
                true => [Algorithm::Hs256].into(),
                false => all.filter(|algorithm| !algorithm.is_symmetric()).collect(),
            });
        }
        let read = |(at, name): (usize, &String)| {
            let field = format!("{within}algorithms[{at}]");
            let Some(algorithm) = Algorithm::of(name) else {
                let names: Vec<&str> = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
                let why = format!("`{name}` is not supported");
                return Err(Invalid::new(field, why, format!("choose from {}", names.join(", "))));
            };
            match (algorithm.is_symmetric(), has_secret) {
                (true, false) => Err(Invalid::new(
                    field,
                    format!("`{name}` checks with a secret, and there is none"),
                    "write `secret`, or remove it: with a public key anybody could sign",
                )),
                (false, true) => Err(Invalid::new(
                    field,
                    format!("`{name}` checks with a public key, and there is only a secret"),
                    "write `jwks` instead of `secret`",
                )),
                _ => Ok(algorithm),
            }
        };
        self.algorithms.iter().enumerate().map(read).collect()
    }

    fn public(
        &self,
        within: &str,
        jwks: &JwksSpec,
        allowed: &[Algorithm],
        cx: &mut Context<'_>,
    ) -> Result<Trust, Invalid> {
        let field = |name: &str| format!("{within}jwks.{name}");
        if let Some(inline) = &jwks.inline {
            let fetched = [("uri", jwks.uri.is_some()), ("backend", jwks.backend.is_some())];
            let fetched = fetched.into_iter().chain([("cacheDuration", jwks.cache_duration.is_some())]);
            if let Some((name, _)) = fetched.into_iter().find(|(_, is_written)| *is_written) {
                return Err(Invalid::new(field(name), "stands beside `inline`", "keep one of them"));
            }
            let text = match serde_json::from_value::<SecretValue>(inline.clone()) {
                Ok(value) => cx.secret(&field("inline"), &value)?,
                Err(_) => inline.to_string().into_bytes().into(),
            };
            let (keys, unusable) =
                KeySet::read(&text, allowed).map_err(|why| Invalid::new(field("inline"), why, ""))?;
            return match unusable.first() {
                Some(why) => Err(Invalid::new(field("inline"), why, "remove the key, or mend it")),
                None => Ok(Trust::Written(keys)),
            };
        }
        let good_for = quantity::positive(&field("cacheDuration"), jwks.cache_duration.as_deref())?;
        let timeout = quantity::positive(&field("timeout"), jwks.timeout.as_deref())?;
        let (url, discovers, at) = match (&jwks.uri, self.issuer) {
            (Some(uri), _) => (uri.clone(), None, field("uri")),
            (None, Some(issuer)) => {
                let url = format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'));
                (url, Some(issuer.into()), format!("{within}issuer"))
            }
            (None, None) => {
                return Err(Invalid::new(
                    within.trim_end_matches('.'),
                    "neither `issuer` nor keys are written",
                    "write `issuer: https://…`, or `jwks: { uri: https://… }`",
                ));
            }
        };
        let (to, path) = cx.url(&at, &url, jwks.backend.as_deref()).map_err(|invalid| match discovers {
            // An issuer may have any name, when its keys are written.
            Some(_) => Invalid {
                fix: "write where its keys are: `jwks: { uri: https://… }`".to_owned(),
                ..invalid
            },
            None => invalid,
        })?;
        let keys = cx.share(&format!("jwks\0{}\0{url}\0{}", to.backend, discovers.is_some()), Keys::default);
        let good_for = good_for.unwrap_or(CACHE_DURATION);
        let time = timeout.unwrap_or(KEYS_TIMEOUT);
        Ok(Trust::Fetched(keys, Arc::new(Source { to, path, discovers, time, good_for })))
    }
}

impl Inner {
    fn decide(self: &Arc<Self>, req: &mut RequestHead, cx: &mut Exchange<'_>, may_wait: bool) -> Verdict {
        let (token, place) = match self.from.find(req) {
            Found::Nothing => return credential::missing(self.missing, &self.challenge, cx),
            Found::Several => {
                let why = "the request has more than one token";
                return self.refuse(&Bad {
                    cause: Cause::CredentialsAmbiguous,
                    error: "invalid_request",
                    why,
                });
            }
            Found::One(token, _) if token.len() > CREDENTIAL_MAX => {
                return self.refuse(&Bad::token("the token is too long"));
            }
            Found::One(token, place) => (token, place),
        };
        let hash = sha256(&token);
        let known = self.known.get(&hash).filter(|good| {
            let keys = self.providers.get(good.provider).map(Provider::keys_number);
            cx.unix_nanos < good.until && keys == Some(good.keys)
        });
        let checked = match known {
            Some(good) => Checked::Good(good),
            None => {
                let checked = self.check(&token, cx, may_wait);
                if let Checked::Good(good) = &checked {
                    self.known.insert(hash, Arc::clone(good));
                }
                checked
            }
        };
        match checked {
            Checked::Good(good) => {
                if !self.forward {
                    place.remove(req);
                }
                self.fields.set(req, &good.fields);
                cx.prove(Arc::clone(&good.principal));
                Verdict::Continue
            }
            Checked::Bad(bad) => self.refuse(&bad),
            Checked::NoKeys => Verdict::Respond(crate::exchange::Reply::refuse(Cause::KeysUnavailable)),
            Checked::Wait(keys) => {
                let this = Arc::clone(self);
                Verdict::Wait(Box::pin(async move {
                    keys.wait().await;
                    Outcome::Apply(Box::new(move |req, cx| this.decide(req, cx, false)))
                }))
            }
        }
    }

    fn refuse(&self, bad: &Bad) -> Verdict {
        claims::refuse(&self.challenge, &self.demands, (bad.cause, bad.error, bad.why))
    }

    fn check(&self, text: &[u8], cx: &Exchange<'_>, may_wait: bool) -> Checked {
        let token = match Token::read(text) {
            Ok(token) => token,
            Err(why) => return Checked::Bad(Bad::token(why)),
        };
        let issuer = token.claims.get("iss").and_then(Value::as_str);
        let is_it = |provider: &Provider| provider.issuer.is_none() || provider.issuer.as_deref() == issuer;
        let Some(at) = self.providers.iter().position(is_it) else {
            return Checked::Bad(Bad::token("the token is of another issuer"));
        };
        let Some(provider) = self.providers.get(at) else { return Checked::NoKeys };
        if !provider.algorithms.contains(&token.algorithm) {
            return Checked::Bad(Bad::token("the algorithm of the token is not allowed"));
        }
        let keys = match provider.judge(&token, cx, may_wait) {
            Ok(keys) => keys,
            Err(checked) => return checked,
        };
        match self.admit(&token.claims, provider, cx.unix_nanos) {
            Err(bad) => Checked::Bad(bad),
            Ok(until) => {
                let fields = self.fields.values(&token.claims);
                let consumer = self.consumers.of_claims(&token.claims).cloned();
                let principal = Arc::new(Principal { consumer, ..principal(Jwt::KIND, token.claims) });
                Checked::Good(Arc::new(Good { principal, fields, until, provider: at, keys }))
            }
        }
    }

    /// What the claims of a token with a good signature say about this request; until when that is so.
    fn admit(&self, claims: &Map<String, Value>, provider: &Provider, now: u64) -> Result<u64, Bad> {
        let malformed = |_| Bad::token("a time in the token is malformed");
        let now = i128::from(now);
        let expiry = time(claims, "exp").map_err(malformed)?;
        let until = match expiry {
            Some(expiry) => expiry.saturating_add(self.leeway),
            None if self.require_expiry => return Err(Bad::token("the token does not expire")),
            None => i128::MAX,
        };
        if now >= until {
            return Err(Bad { cause: Cause::TokenExpired, ..Bad::token("the token has expired") });
        }
        if time(claims, "nbf").map_err(malformed)?.is_some_and(|from| now.saturating_add(self.leeway) < from)
        {
            return Err(Bad::token("the token is not valid yet"));
        }
        let is_ours = |audience: &str| provider.audiences.iter().any(|own| **own == *audience);
        if !provider.audiences.is_empty() && !audience_is(claims, is_ours) {
            return Err(Bad::token("the token is for another audience"));
        }
        if let Some(why) = self.demands.lacking(claims) {
            return Err(Bad::scope(why));
        }
        Ok(u64::try_from(until).unwrap_or(u64::MAX))
    }
}

impl Provider {
    fn keys_number(&self) -> u64 {
        match &self.keys {
            Trust::Written(_) => 0,
            Trust::Fetched(keys, _) => keys.number(),
        }
    }

    /// Checks the signature; gives the number of the keys.
    fn judge(&self, token: &Token<'_>, cx: &Exchange<'_>, may_wait: bool) -> Result<u64, Checked> {
        let judge = |keys: &KeySet| {
            keys.judge(token.algorithm, token.key_id.as_deref(), token.signed, &token.signature)
        };
        let wrong = || Checked::Bad(Bad::token("the signature of the token is not valid"));
        let unknown = || Checked::Bad(Bad::token("no key of the issuer fits the token"));
        let (keys, source) = match &self.keys {
            Trust::Written(keys) => {
                return match judge(keys) {
                    Judgement::Valid => Ok(0),
                    Judgement::Wrong => Err(wrong()),
                    Judgement::NoKey => Err(unknown()),
                };
            }
            Trust::Fetched(keys, source) => (keys, source),
        };
        let fetched = match keys.look(source, cx.unix_nanos, cx.out, may_wait) {
            Look::Have(fetched) => fetched,
            Look::Wait => return Err(Checked::Wait(Arc::clone(keys))),
            Look::Nothing => return Err(Checked::NoKeys),
        };
        let judgement = judge(&fetched.value);
        // Without an id, a key that is new cannot be told from a signature that is wrong.
        let may_be_new =
            judgement == Judgement::NoKey || judgement == Judgement::Wrong && token.key_id.is_none();
        if may_be_new && may_wait && keys.fetch_for_unknown(source, cx.unix_nanos, cx.out) {
            return Err(Checked::Wait(Arc::clone(keys)));
        }
        match judgement {
            Judgement::Valid => Ok(fetched.number),
            Judgement::Wrong => Err(wrong()),
            Judgement::NoKey => Err(unknown()),
        }
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref().try_into().unwrap_or_default()
}
