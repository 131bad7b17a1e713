//! Who the end user is, as a proxy of the mesh has said that verified it: a token (RFC 7519) in the field `x-user-token`,
//! signed with the key of that proxy's certificate (ES256), which it carries along (RFC 7515 §4.1.6) and which is verified
//! against the roots of the mesh. Nobody shares a secret, and no key is fetched.
//!
//! `iss` is the SPIFFE ID of who signed, `sub` the user, `aud` whom it is for; `orig` says who verified the user and how, and
//! `act` (RFC 8693 §4.1) which workloads have carried it on. The policy [`issueUserToken`](crate::issue_user_token) makes them.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rhumb_base::base64;
use rhumb_base::failure::Cause;
use rhumb_codec::field::Known;
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::context::Context;
use crate::credential::{Challenge, Missing, missing};
use crate::exchange::{Exchange, Reply};
use crate::json;
use crate::member::Member;
use crate::memory::{Digest, Memory};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};
use crate::principal::{Consumer, Principal};

/// What the header of a token calls it (RFC 8725 §3.11: no other kind of token can be taken for one).
pub(crate) const TYPE: &str = "user+jwt";

/// Longest token, in bytes.
pub(crate) const TOKEN_MAX: usize = 16 << 10;

/// Most certificates of a token.
const CHAIN_MAX: usize = 6;

/// Most items of a list.
const LIST_LIMIT: usize = 64;

/// How far clocks may be apart. **Unit**: seconds.
const LEEWAY: u64 = 5;

/// Longest life of a token that is taken. **Unit**: seconds.
pub(crate) const LIFETIME_MAX: u64 = 3_600;

/// Tokens that each worker remembers.
const REMEMBERED: usize = 4_096;

/// Takes the end user from a token that a proxy of the mesh has signed.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// SPIFFE IDs of the proxies that are believed about users; one that ends in `/*` stands for all below. At least one.
    pub issuers: Vec<String>,
    /// Whom a token may be for. Default: the trust domain, `spiffe://cluster.local`.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Leave the token in the request, so that the application can send it along with calls of its own. Default: no.
    #[serde(default)]
    pub pass_on: bool,
    /// What happens to requests without a token. Default: Refuse, unless a policy behind decides about them.
    #[serde(default)]
    pub missing: Option<Missing>,
}

/// A compiled policy.
pub struct UserToken {
    verifier: Verifier,
    pass_on: bool,
    missing: Option<Missing>,
    challenge: Challenge,
}

/// Whose tokens are believed.
pub(crate) struct Verifier {
    issuers: Box<[Box<str>]>,
    audiences: Box<[Box<str>]>,
    memory: Memory<Verified>,
}

/// A token that was found good.
#[derive(Clone)]
pub(crate) struct Verified {
    pub(crate) principal: Arc<Principal>,
    /// The claims as they were signed.
    pub(crate) claims: Arc<Map<String, Value>>,
    /// **Unit**: seconds since 1970.
    pub(crate) until: u64,
    generation: u64,
}

impl HttpPolicy for UserToken {
    const KIND: &'static str = "userToken";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        Ok(Self {
            verifier: Verifier::compile("", &spec.issuers, &spec.audiences)?,
            pass_on: spec.pass_on,
            missing: spec.missing,
            challenge: (*b"UserToken").into(),
        })
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        let verified = match self.verifier.find(req, cx) {
            None => return missing(self.missing, &self.challenge, cx),
            Some(Ok(verified)) => verified,
            Some(Err(why)) => return Verdict::Respond(denied(&why)),
        };
        if !self.pass_on {
            req.fields.remove(Known::XUserToken);
        }
        cx.prove(verified.principal);
        Verdict::Continue
    }
}

/// A refusal that says why.
pub(crate) fn denied(why: &str) -> Box<Reply> {
    let mut reply = Reply::refuse(Cause::AccessDenied);
    reply.detail = Some(format!("The token of the user is not taken: {why}.").into());
    reply
}

impl Verifier {
    pub(crate) fn compile(within: &str, issuers: &[String], audiences: &[String]) -> Result<Self, Invalid> {
        let field = |name: &str| format!("{within}{name}");
        if issuers.is_empty() || issuers.len() > LIST_LIMIT {
            let why = format!("has {} items, not from 1 to {LIST_LIMIT}", issuers.len());
            return Err(Invalid::new(
                field("issuers"),
                why,
                "name the gateways: `spiffe://cluster.local/ns/edge/sa/gateway`",
            ));
        }
        for (at, issuer) in issuers.iter().enumerate() {
            let rest = issuer.strip_prefix("spiffe://").unwrap_or_default();
            let is_whole = rest.split_once('/').is_some_and(|(domain, path)| {
                !domain.is_empty() && !path.is_empty() && !path.trim_end_matches("/*").contains('*')
            });
            if !is_whole {
                let why = format!("`{issuer}` is no SPIFFE ID of a workload");
                let fix = "write `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`, or `spiffe://TRUST-DOMAIN/ns/NAMESPACE/*`";
                return Err(Invalid::new(format!("{}[{at}]", field("issuers")), why, fix));
            }
        }
        if audiences.len() > LIST_LIMIT || audiences.iter().any(String::is_empty) {
            let why = format!("has more than {LIST_LIMIT} items, or an empty one");
            return Err(Invalid::new(field("audiences"), why, "remove some"));
        }
        let texts = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
        Ok(Self { issuers: texts(issuers), audiences: texts(audiences), memory: Memory::new(REMEMBERED) })
    }

    /// The user of a request, if it has a token.
    pub(crate) fn find(&self, req: &RequestHead, cx: &Exchange<'_>) -> Option<Result<Verified, String>> {
        let mut lines = req.fields.get_all(Known::XUserToken);
        let text = lines.next()?;
        if lines.next().is_some() {
            return Some(Err("there are several".to_owned()));
        }
        let Some(member) = cx.member else { return Some(Err("this proxy is in no mesh".to_owned())) };
        Some(self.verify(text, member, cx.unix_nanos / 1_000_000_000))
    }

    fn verify(&self, text: &[u8], member: &dyn Member, now: u64) -> Result<Verified, String> {
        if text.len() > TOKEN_MAX {
            return Err("it is too long".to_owned());
        }
        let generation = member.generation();
        let key: Digest = digest(&SHA256, text).as_ref().try_into().unwrap_or_default();
        let known = self.memory.get(&key).filter(|known| known.generation == generation);
        let verified = match known {
            Some(known) => known,
            None => {
                let verified = self.read(text, member, now, generation)?;
                self.memory.insert(key, verified.clone());
                verified
            }
        };
        if now >= verified.until {
            return Err("it has expired".to_owned());
        }
        Ok(verified)
    }

    fn read(&self, text: &[u8], member: &dyn Member, now: u64, generation: u64) -> Result<Verified, String> {
        let malformed = || "it is malformed".to_owned();
        let mut parts = text.split(|&byte| byte == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed());
        };
        let signed = text.get(..header.len() + 1 + claims.len()).unwrap_or_default();
        let object = |part: &[u8]| base64::decode_url(part).and_then(|bytes| json::read_object(&bytes));
        let header = object(header).ok_or_else(malformed)?;
        let is = |name: &str, value: &str| header.get(name).and_then(Value::as_str) == Some(value);
        // RFC 7515 §4.1.11: no extension is understood.
        if !is("typ", TYPE) || !is("alg", "ES256") || header.contains_key("crit") {
            return Err("it is a token of another kind".to_owned());
        }
        let chain = header.get("x5c").and_then(Value::as_array).filter(|chain| chain.len() <= CHAIN_MAX);
        let chain: Vec<Vec<u8>> = chain
            .into_iter()
            .flatten()
            .map(|der| der.as_str().and_then(|der| base64::decode(der.as_bytes())))
            .collect::<Option<_>>()
            .ok_or_else(malformed)?;
        let claims = object(claims).ok_or_else(malformed)?;
        let signature = base64::decode_url(signature).ok_or_else(malformed)?;
        // Who has signed is known first: nothing of what a stranger says is looked at.
        let signer = member.verify(&chain, signed, &signature, now)?;
        let text_of = |name: &str| claims.get(name).and_then(Value::as_str);
        if text_of("iss") != Some(&*signer) {
            return Err("it is signed by another one than it says".to_owned());
        }
        let is_listed = self.issuers.iter().any(|issuer| match issuer.strip_suffix('*') {
            Some(prefix) => signer.starts_with(prefix),
            None => **issuer == *signer,
        });
        if !is_listed {
            return Err(format!("{signer} is not believed about users"));
        }
        let own = domain_of(&signer);
        let is_ours = |audience: &str| match &*self.audiences {
            [] => audience == own,
            audiences => audiences.iter().any(|ours| **ours == *audience),
        };
        if !text_of("aud").is_some_and(is_ours) {
            return Err("it is for another audience".to_owned());
        }
        let number = |name: &str| claims.get(name).and_then(Value::as_u64);
        let (Some(from), Some(until)) = (number("iat"), number("exp")) else { return Err(malformed()) };
        if from > now.saturating_add(LEEWAY) || until.saturating_sub(from) > LIFETIME_MAX {
            return Err("its times cannot be".to_owned());
        }
        let principal = principal(&claims).ok_or_else(malformed)?;
        Ok(Verified { principal: Arc::new(principal), claims: Arc::new(claims), until, generation })
    }
}

/// The audience of a whole trust domain: `spiffe://TRUST-DOMAIN`.
pub(crate) fn domain_of(id: &str) -> &str {
    let start = id.find("://").map_or(0, |at| at + 3);
    let end = id.get(start..).and_then(|rest| rest.find('/')).map_or(id.len(), |at| start + at);
    id.get(..end).unwrap_or_default()
}

fn principal(claims: &Map<String, Value>) -> Option<Principal> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().into();
    let list = |value: Option<&Value>| -> Box<[Box<str>]> {
        let items = value.and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(Into::into).collect()
    };
    let subject = claims.get("sub").and_then(Value::as_str)?;
    let origin = claims.get("orig").and_then(Value::as_object)?;
    let scopes = claims.get("scope").and_then(Value::as_str).unwrap_or_default();
    let consumer = claims.get("consumer").and_then(Value::as_object).map(|consumer| {
        Arc::new(Consumer {
            name: text(consumer.get("name")),
            groups: list(consumer.get("groups")),
            plan: text(consumer.get("plan")),
            attributes: Map::new(),
        })
    });
    Some(Principal {
        method: UserToken::KIND,
        subject: subject.into(),
        issuer: text(origin.get("iss")),
        claims: Arc::new(claims.get("claims").and_then(Value::as_object).cloned().unwrap_or_default()),
        scopes: scopes.split(' ').filter(|scope| !scope.is_empty()).map(Into::into).collect(),
        consumer,
    })
}
