//! Tokens that only their authorization server can read: it is asked (OAuth 2.0 Token Introspection, RFC 7662).
//!
//! Sees the client's request. Answers are kept for a while under the token's digest, never longer than the token is good;
//! what is kept is what a revocation takes to be seen here. When the server is away, tokens that are not known are refused
//! with 503. Never logged: tokens and the client's secret.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rhumb_base::failure::Cause;
use rhumb_codec::field::FieldValue;
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::cache::{Cache, Key};
use crate::call::Answer;
use crate::claims::{
    self, ClaimFieldSpec, ClaimFields, Demands, RequiredSpec, audience_is, boxed, principal, time,
};
use crate::consumers::Consumers;
use crate::context::{Context, Remote, SecretValue};
use crate::credential::{self, CREDENTIAL_MAX, Challenge, Found, Missing, Place, PlaceSpec, Places};
use crate::exchange::{Exchange, Reply};
use crate::fetched::nanos;
use crate::json;
use crate::oauth::{Authentication, Client, DEFAULT_TIMEOUT};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Outcome, Verdict};
use crate::principal::Principal;
use crate::quantity::{duration, positive};

/// How long answers are kept where nothing is written.
pub const CACHE_TIME: Duration = Duration::from_secs(30);

/// Answers that are kept at most.
pub const CACHE_LIMIT: usize = 100_000;

/// Requests need a token that its authorization server calls active.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// URL of the introspection endpoint.
    pub url: String,
    /// The Backend that says how to connect there. Default: the host of the URL.
    #[serde(default)]
    pub backend: Option<String>,
    /// Who the gateway is to the authorization server.
    pub client_id: String,
    /// What proves it.
    pub client_secret: SecretValue,
    /// How it is proven: `Basic` (default) or `Post`.
    #[serde(default)]
    pub authentication: Authentication,
    /// How long the authorization server may take. Default: 5s.
    #[serde(default)]
    pub timeout: Option<String>,
    /// How long an answer is kept, at most as long as the token is good. Zero: not at all. Default: 30s.
    #[serde(default)]
    pub cache: Option<String>,
    /// Who gave the token: `iss` of the answer, exactly. Default: anybody whom the server believes.
    #[serde(default)]
    pub issuer: Option<String>,
    /// For whom tokens must be: one of them is in `aud` of the answer. Default: anybody.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Where the token is. Default: `[{ header: authorization }]`, behind `Bearer`.
    #[serde(default)]
    pub from: Vec<PlaceSpec>,
    /// Members that the answer must have. Without one: 403.
    #[serde(default)]
    pub required_claims: Vec<RequiredSpec>,
    /// Scopes that the answer must all have. Without one: 403.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Pass the token on to the backend. Default: true.
    #[serde(default = "yes")]
    pub forward: bool,
    /// Request fields to set to members of the answer. What a client sends under these names is removed.
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

/// A compiled policy.
pub struct Introspection(Arc<Inner>);

struct Inner {
    client: Client,
    to: Remote,
    path: Box<str>,
    timeout: Duration,
    kept_for: Duration,
    issuer: Option<Box<str>>,
    audiences: Box<[Box<str>]>,
    from: Places,
    demands: Demands,
    forward: bool,
    fields: ClaimFields,
    missing: Option<Missing>,
    challenge: Challenge,
    kept: Cache<Arc<Judgement>>,
    consumers: Arc<Consumers>,
}

/// What came of a token.
enum Judgement {
    Good { principal: Arc<Principal>, fields: Box<[(usize, FieldValue)]> },
    Bad { cause: Cause, error: &'static str, why: &'static str },
}

fn invalid(why: &'static str) -> Judgement {
    Judgement::Bad { cause: Cause::TokenInvalid, error: "invalid_token", why }
}

impl HttpPolicy for Introspection {
    const KIND: &'static str = "oauth2Introspection";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        let client = Client::read(&spec.client_id, Some(&spec.client_secret), spec.authentication, cx)?;
        let (to, path) = cx.url("url", &spec.url, spec.backend.as_deref())?;
        let from = Places::read(&spec.from, Place::authorization("Bearer"))?;
        Ok(Self(Arc::new(Inner {
            client,
            to,
            path,
            timeout: positive("timeout", spec.timeout.as_deref())?.unwrap_or(DEFAULT_TIMEOUT),
            kept_for: duration("cache", spec.cache.as_deref())?.unwrap_or(CACHE_TIME),
            issuer: spec.issuer.map(Into::into),
            audiences: boxed(&spec.audiences),
            fields: ClaimFields::read(&spec.claims_to_fields, Some(&from))?,
            from,
            demands: Demands::read(&spec.required_claims, &spec.scopes)?,
            forward: spec.forward,
            missing: spec.missing,
            challenge: credential::challenge("Bearer", spec.realm.as_deref())?,
            kept: Cache::new(CACHE_LIMIT),
            consumers: cx.consumers(),
        })))
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        let inner = &self.0;
        inner.fields.remove(req);
        let token = match inner.from.find(req) {
            Found::Nothing => return credential::missing(inner.missing, &inner.challenge, cx),
            Found::Several => {
                let why = "the request has more than one token";
                return inner.refuse(Cause::CredentialsAmbiguous, "invalid_request", why);
            }
            Found::One(token, _) if token.len() > CREDENTIAL_MAX => {
                return inner.refuse(Cause::TokenInvalid, "invalid_token", "the token is too long");
            }
            Found::One(token, _) => token.into_owned(),
        };
        let key = Key::of([&token[..]]);
        if let Some(judgement) = inner.kept.get(&key, cx.unix_nanos) {
            return inner.carry_out(&judgement, req, cx);
        }
        let Ok(text) = std::str::from_utf8(&token) else {
            return inner.refuse(Cause::TokenInvalid, "invalid_token", "the token is malformed");
        };
        let Some(out) = cx.out.map(Rc::clone) else { return Verdict::Wait(Box::pin(std::future::pending())) };
        // RFC 7662 §2.1.
        let form = [("token", text), ("token_type_hint", "access_token")];
        let asked = out.call(&inner.to, inner.client.request(&inner.path, &form, inner.timeout));
        let inner = Arc::clone(inner);
        Verdict::Wait(Box::pin(async move {
            let answer = asked.await.map_err(|failure| failure.to_string());
            let judged = answer.and_then(|answer| inner.judge(&answer, out.unix_nanos()));
            Outcome::Apply(Box::new(move |req, cx| match judged {
                Ok((judgement, until)) => {
                    let judgement = Arc::new(judgement);
                    if !inner.kept_for.is_zero() {
                        inner.kept.put(key, Arc::clone(&judgement), until);
                    }
                    inner.carry_out(&judgement, req, cx)
                }
                Err(why) => {
                    tracing::warn!(backend = &*inner.to.backend, path = &*inner.path, "introspection: {why}");
                    Verdict::Respond(Reply::refuse(Cause::IntrospectionUnavailable))
                }
            }))
        }))
    }
}

impl Inner {
    /// What an answer says, and until when it holds.
    fn judge(&self, answer: &Answer, now: u64) -> Result<(Judgement, u64), String> {
        if answer.status != 200 {
            return Err(format!("it was answered with {}", answer.status));
        }
        let claims = json::read_object(&answer.content).ok_or("the answer is no JSON object")?;
        let Some(Value::Bool(is_active)) = claims.get("active") else {
            return Err("the answer does not say whether the token is active".to_owned());
        };
        let until = now.saturating_add(nanos(self.kept_for));
        if !is_active {
            return Ok((invalid("the token is not active"), until));
        }
        let expiry = time(&claims, "exp").map_err(|_| "`exp` of the answer is malformed")?;
        let expiry = expiry.map_or(u64::MAX, |expiry| u64::try_from(expiry).unwrap_or(0));
        if expiry <= now {
            return Ok((invalid("the token has expired"), until));
        }
        Ok((self.admit(claims), until.min(expiry)))
    }

    fn admit(&self, claims: Map<String, Value>) -> Judgement {
        let issuer = claims.get("iss").and_then(Value::as_str);
        if self.issuer.is_some() && self.issuer.as_deref() != issuer {
            return invalid("the token is of another issuer");
        }
        let is_ours = |audience: &str| self.audiences.iter().any(|own| **own == *audience);
        if !self.audiences.is_empty() && !audience_is(&claims, is_ours) {
            return invalid("the token is for another audience");
        }
        if let Some(why) = self.demands.lacking(&claims) {
            return Judgement::Bad { cause: Cause::ScopeInsufficient, error: "insufficient_scope", why };
        }
        let fields = self.fields.values(&claims);
        let consumer = self.consumers.of_claims(&claims).cloned();
        let mut principal = principal(Introspection::KIND, claims);
        if principal.subject.is_empty() {
            // RFC 7662 §2.2: a token of a client has no other subject.
            let name =
                ["username", "client_id"].into_iter().find_map(|name| principal.claims.get(name)?.as_str());
            principal.subject = name.unwrap_or_default().into();
        }
        principal.consumer = consumer;
        Judgement::Good { principal: Arc::new(principal), fields }
    }

    fn carry_out(&self, judgement: &Judgement, req: &mut RequestHead, cx: &mut Exchange<'_>) -> Verdict {
        match judgement {
            Judgement::Bad { cause, error, why } => self.refuse(*cause, error, why),
            Judgement::Good { principal, fields } => {
                if !self.forward {
                    let place = match self.from.find(req) {
                        Found::One(_, place) => Some(place.clone()),
                        _ => None,
                    };
                    place.iter().for_each(|place| place.remove(req));
                }
                self.fields.set(req, fields);
                cx.prove(Arc::clone(principal));
                Verdict::Continue
            }
        }
    }

    fn refuse(&self, cause: Cause, error: &str, why: &str) -> Verdict {
        claims::refuse(&self.challenge, &self.demands, (cause, error, why))
    }
}
