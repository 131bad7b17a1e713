//! Tells the services behind who the end user is: signs a short-lived token for who was found to ask, in the field
//! `x-user-token` (see [`crate::user_token`]). What a client sends in that field never gets through.
//!
//! At the gateway the user is whom an authentication has proven. In a proxy of the mesh, before a call of the
//! workload, it is whom the token says that the workload sends along: that one is exchanged for one with another, narrower
//! audience. Subject and origin stay, the end is never put off, and the workload is noted as the actor (RFC 8693 §4.1).

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rhumb_base::base64;
use rhumb_base::failure::Cause;
use rhumb_codec::field::{FieldName, Known};
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::anonymous::Anonymous;
use crate::context::Context;
use crate::credential::remove_forged;
use crate::exchange::{Exchange, Reply};
use crate::member::Member;
use crate::memory::{Digest, Memory};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};
use crate::principal::Principal;
use crate::quantity;
use crate::user_token::{LIFETIME_MAX, TOKEN_MAX, TYPE, Verifier, denied, domain_of};

/// How long a token is good when nothing is written. **Unit**: seconds.
const LIFETIME: u64 = 60;

/// Most claims that are taken along.
const CLAIMS_LIMIT: usize = 32;

/// Most actors of a token.
const ACTORS_MAX: usize = 8;

/// Tokens that each worker remembers, so that one user's requests are signed once in a while.
const REMEMBERED: usize = 4_096;

/// Signs a token for the end user.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Spec {
    /// Whom the token is for. Default: the trust domain, `spiffe://cluster.local`.
    pub audience: Option<String>,
    /// How long it is good: 5s to 1h. Default: 60s.
    pub lifetime: Option<String>,
    /// Claims of the user that are taken along: `[email, groups]`. At most 32.
    pub claims: Vec<String>,
    /// The token that comes with the request is exchanged for this one.
    pub exchange: Option<ExchangeSpec>,
}

/// A token that is exchanged.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExchangeSpec {
    /// SPIFFE IDs of the proxies that are believed about users; one that ends in `/*` stands for all below.
    pub issuers: Vec<String>,
    /// Whom the token that comes may be for. Default: the trust domain.
    #[serde(default)]
    pub audiences: Vec<String>,
}

/// A compiled policy.
pub struct IssueUserToken {
    audience: Option<Box<str>>,
    lifetime: u64,
    claims: Box<[Box<str>]>,
    exchange: Option<Box<Verifier>>,
    memory: Memory<Issued>,
    name: FieldName,
}

#[derive(Clone)]
struct Issued {
    token: Arc<[u8]>,
    /// Another one is signed from here on. **Unit**: seconds since 1970.
    until: u64,
}

impl HttpPolicy for IssueUserToken {
    const KIND: &'static str = "issueUserToken";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        let lifetime = quantity::positive("lifetime", spec.lifetime.as_deref())?;
        let lifetime = lifetime.map_or(LIFETIME, |lifetime| lifetime.as_secs());
        if !(5..=LIFETIME_MAX).contains(&lifetime) {
            return Err(Invalid::new(
                "lifetime",
                "is not from 5s to 1h",
                "leave it out: a minute is enough for a call",
            ));
        }
        if spec.claims.len() > CLAIMS_LIMIT {
            return Err(Invalid::new("claims", format!("has more than {CLAIMS_LIMIT} items"), "remove some"));
        }
        let exchange = spec.exchange.as_ref();
        let exchange = exchange
            .map(|spec| Verifier::compile("exchange.", &spec.issuers, &spec.audiences))
            .transpose()?;
        Ok(Self {
            audience: spec.audience.filter(|audience| !audience.is_empty()).map(Into::into),
            lifetime,
            claims: spec.claims.into_iter().map(Into::into).collect(),
            exchange: exchange.map(Box::new),
            memory: Memory::new(REMEMBERED),
            name: Known::XUserToken.into(),
        })
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        let brought = match &self.exchange {
            Some(verifier) => verifier.find(req, cx),
            None => None,
        };
        // Ours alone, whatever comes of it.
        remove_forged(&mut req.fields, &self.name);
        let Some(member) = cx.member else { return Verdict::Continue };
        let is_somebody = cx.principal().is_some_and(|principal| principal.method != Anonymous::KIND);
        let Some(own) = member.id() else {
            // Who is behind would take it for a request of nobody.
            return match is_somebody || brought.is_some() {
                true => Verdict::Respond(Reply::refuse(Cause::TokenUnavailable)),
                false => Verdict::Continue,
            };
        };
        let now = cx.unix_nanos / 1_000_000_000;
        let (mut claims, end) = match (cx.principal(), brought) {
            (_, Some(Err(why))) => return Verdict::Respond(denied(&why)),
            (_, Some(Ok(brought))) => {
                let mut claims = Map::clone(&brought.claims);
                if !act(&mut claims, &own) {
                    return Verdict::Respond(denied("too many workloads have carried it on"));
                }
                (claims, Some(brought.until))
            }
            (Some(principal), None) if principal.method != Anonymous::KIND => (self.told(principal), None),
            _ => return Verdict::Continue,
        };
        let audience = self.audience.as_deref().unwrap_or_else(|| domain_of(&own));
        claims.insert("iss".to_owned(), (&*own).into());
        claims.insert("aud".to_owned(), audience.into());
        for name in ["iat", "exp"] {
            claims.remove(name);
        }
        if let Some(token) = self.token(member, claims, now, end) {
            req.fields.append(Known::XUserToken, &token);
        }
        Verdict::Continue
    }
}

impl IssueUserToken {
    /// The claims about a user.
    fn told(&self, principal: &Principal) -> Map<String, Value> {
        let mut claims = Map::new();
        claims.insert("sub".to_owned(), (&*principal.subject).into());
        claims.insert("orig".to_owned(), json!({ "iss": &*principal.issuer, "method": principal.method }));
        if !principal.scopes.is_empty() {
            claims.insert("scope".to_owned(), principal.scopes.join(" ").into());
        }
        let of = |name: &str| Some((name.to_owned(), principal.claims.get(name)?.clone()));
        let taken: Map<String, Value> = self.claims.iter().filter_map(|name| of(name)).collect();
        if !taken.is_empty() {
            claims.insert("claims".to_owned(), taken.into());
        }
        if let Some(consumer) = &principal.consumer {
            let groups: Vec<&str> = consumer.groups.iter().map(|group| &**group).collect();
            claims.insert(
                "consumer".to_owned(),
                json!({ "name": &*consumer.name, "groups": groups, "plan": &*consumer.plan }),
            );
        }
        claims
    }

    /// A token that says so; the one of before while it has more than half of its life left. Nothing where it cannot be
    /// signed, or would be too long: who is behind then knows no user.
    fn token(
        &self,
        member: &dyn Member,
        mut claims: Map<String, Value>,
        now: u64,
        end: Option<u64>,
    ) -> Option<Arc<[u8]>> {
        let mut said = Value::from(claims.clone()).to_string();
        if let Some(end) = end {
            said.push_str(&end.to_string());
        }
        let key: Digest = digest(&SHA256, said.as_bytes()).as_ref().try_into().ok()?;
        if let Some(known) = self.memory.get(&key).filter(|known| now < known.until) {
            return Some(known.token);
        }
        let expires = now.saturating_add(self.lifetime).min(end.unwrap_or(u64::MAX));
        claims.insert("iat".to_owned(), now.into());
        claims.insert("exp".to_owned(), expires.into());
        let claims = Value::from(claims);
        // The header has the chain: who signs is known with the key, in one step with it.
        let (mut token, signature) = member.sign(&mut |chain| {
            let chain: Vec<String> = chain.iter().map(|der| base64::encode(der)).collect();
            let header = json!({ "typ": TYPE, "alg": "ES256", "x5c": chain });
            let part = |value: &Value| base64::encode_url(value.to_string().as_bytes());
            format!("{}.{}", part(&header), part(&claims)).into_bytes()
        })?;
        token.push(b'.');
        token.extend_from_slice(base64::encode_url(&signature).as_bytes());
        if token.len() > TOKEN_MAX {
            return None;
        }
        let token: Arc<[u8]> = token.into();
        let until = now.saturating_add(self.lifetime / 2).min(expires);
        self.memory.insert(key, Issued { token: Arc::clone(&token), until });
        Some(token)
    }
}

/// Notes a workload that carries a token on; false when there are too many.
fn act(claims: &mut Map<String, Value>, own: &str) -> bool {
    let before = claims.remove("act");
    let mut number = 1;
    let mut inner = before.as_ref();
    while let Some(actor) = inner {
        number += 1;
        inner = actor.get("act");
    }
    let mut actor = json!({ "sub": own });
    if let (Some(before), Some(actor)) = (before, actor.as_object_mut()) {
        actor.insert("act".to_owned(), before);
    }
    claims.insert("act".to_owned(), actor);
    number <= ACTORS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use rhumb_codec::head::Scheme;

    /// A proxy without an identity.
    struct Nobody;

    impl Member for Nobody {
        fn id(&self) -> Option<Box<str>> {
            None
        }

        fn generation(&self) -> u64 {
            0
        }

        fn sign(&self, _: &mut dyn FnMut(&[&[u8]]) -> Vec<u8>) -> Option<(Vec<u8>, Vec<u8>)> {
            None
        }

        fn verify(&self, _: &[Vec<u8>], _: &[u8], _: &[u8], _: u64) -> Result<Box<str>, String> {
            Err("there is no identity".to_owned())
        }
    }

    #[test]
    fn a_user_whom_nobody_here_can_vouch_for_is_refused() {
        let policy = compile_alone::<IssueUserToken>(serde_json::from_value(json!({})).unwrap()).unwrap();
        let ann = Principal { method: "jwt", subject: "ann".into(), ..Principal::default() };
        for (principal, is_refused) in [(Some(ann), true), (None, false)] {
            let mut cx = Exchange::new([10, 0, 0, 1].into(), Scheme::Http, 80);
            cx.member = Some(&Nobody);
            cx.found.principal = principal.map(Arc::new);
            let mut req = RequestHead::new();
            req.fields.append(Known::XUserToken, b"forged");
            let verdict = policy.on_request(&mut req, &mut (), &mut cx);
            assert_eq!(matches!(verdict, Verdict::Respond(_)), is_refused);
            assert!(req.fields.get(Known::XUserToken).is_none());
        }
    }
}
