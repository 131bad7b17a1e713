//! The list of policies, and everything that is derived from it.

use std::borrow::Cow;

use rhumb_codec::head::{RequestHead, ResponseHead};
use schemars::Schema;
use serde_json::Value;

use crate::context::Context;
use crate::exchange::Exchange;
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};
use crate::{
    anonymous, api_key, authenticated, authorization, bandwidth, basic_auth, circuit_breaker,
    client_certificate, cohort, concurrency, cors, csrf, direct_response, ext_authz, fault, header_modifier,
    hmac, identity_fields, ip_access, issue_user_token, jwt, load_shedding, message_signatures,
    oauth2_client_credentials, oauth2_introspection, oidc, priority, proxy_protocol, quota, rate_limit,
    redirect, retry, rewrite, security_fields, size_limit, tcp, timeouts, tracing, udp, user_token,
};

/// What the engine and its documentation know about a kind of policy.
pub struct Kind {
    /// The key in documents.
    pub name: &'static str,
    /// Where it may be attached.
    pub attach: Attach,
    /// How several attachments combine.
    pub merge: Merge,
    /// JSON Schema of its body.
    pub schema: fn() -> Schema,
}

/// A compiled policy, and what holds for it whatever its kind.
pub struct Parsed {
    /// The policy.
    pub policy: Policy,
    /// `shadow: true` in its body: see [`crate::Item::is_shadow`].
    pub is_shadow: bool,
}

/// The member of a body that asks for shadow mode.
const SHADOW: &str = "shadow";

macro_rules! policies {
    ($($name:ident = $ty:ty,)*) => {
        /// A compiled policy.
        #[allow(missing_docs)] // each variant is the policy of its name
        pub enum Policy { $($name($ty),)* }

        /// What a policy remembers between its hooks.
        pub(crate) enum State { Unused, $($name(<$ty as HttpPolicy>::State),)* }

        /// A policy's place in the chain.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs)]
        pub enum Rank { $($name,)* }

        /// Every kind of policy in chain order.
        pub const KINDS: &[Kind] = &[$(Kind {
            name: <$ty as HttpPolicy>::KIND,
            attach: <$ty as HttpPolicy>::ATTACH,
            merge: <$ty as HttpPolicy>::MERGE,
            schema: || schema_of::<$ty>(),
        },)*];

        /// Compiles the body of a policy of `kind`; `None` when there is no such kind.
        pub fn parse(kind: &str, body: &Value, cx: &mut Context<'_>) -> Option<Result<Parsed, Invalid>> {
            $(if kind == <$ty as HttpPolicy>::KIND {
                return Some(shadow::<$ty>(body).and_then(|(is_shadow, body)| {
                    let spec = read::<<$ty as HttpPolicy>::Spec>(&body)?;
                    let policy = <$ty as HttpPolicy>::compile(spec, cx)?;
                    Ok(Parsed { policy: Policy::$name(policy), is_shadow })
                }));
            })*
            None
        }

        impl Policy {
            /// The key in documents.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$name(_) => <$ty as HttpPolicy>::KIND,)* }
            }

            /// Its place in the chain.
            pub fn rank(&self) -> Rank {
                match self { $(Self::$name(_) => Rank::$name,)* }
            }

            /// Which hooks it has.
            pub fn hooks(&self) -> Hooks {
                match self { $(Self::$name(_) => <$ty as HttpPolicy>::HOOKS,)* }
            }

            /// True when it needs a state slot.
            pub(crate) fn is_stateful(&self) -> bool {
                match self { $(Self::$name(_) => size_of::<<$ty as HttpPolicy>::State>() > 0,)* }
            }

            pub(crate) fn on_request(&self, req: &mut RequestHead, state: &mut State, cx: &mut Exchange<'_>) -> Verdict {
                match self { $(Self::$name(policy) => {
                    let mut fresh = <$ty as HttpPolicy>::State::default();
                    let verdict = policy.on_request(req, &mut fresh, cx);
                    if size_of::<<$ty as HttpPolicy>::State>() > 0 {
                        *state = State::$name(fresh);
                    }
                    verdict
                },)* }
            }

            pub(crate) fn on_response(&self, rsp: &mut ResponseHead, state: &mut State, cx: &mut Exchange<'_>) {
                match self { $(Self::$name(policy) => match state {
                    State::$name(state) => policy.on_response(rsp, state, cx),
                    _ => policy.on_response(rsp, &mut <$ty as HttpPolicy>::State::default(), cx),
                },)* }
            }
        }
    };
}

policies! {
    ProxyProtocol  = proxy_protocol::ProxyProtocol,  // these three have no hooks: settings of listeners and L4 routes
    Tcp            = tcp::Tcp,
    Udp            = udp::Udp,
    Priority       = priority::RoutePriority,        // a setting, no hook
    SecurityFields = security_fields::SecurityFields, // last to see the response, whoever made it
    Cors           = cors::Cors,                     // a preflight carries no credentials: before every authentication
    IpAccess       = ip_access::IpAccess,            // the cheapest refusal first
    SizeLimit      = size_limit::SizeLimit,          // what is too large is not worth asking who sent it
    Csrf           = csrf::Csrf,
    ClientCertificate = client_certificate::ClientCertificate, // who asks: before everything that decides by it
    UserToken      = user_token::UserToken,          // before tokens of the user's own: who is behind the gateway is known by it
    Jwt            = jwt::Jwt,
    BasicAuth      = basic_auth::BasicAuth,
    ApiKey         = api_key::ApiKey,
    Hmac           = hmac::Hmac,
    MessageSignatures = message_signatures::MessageSignatures,
    Introspection  = oauth2_introspection::Introspection,
    Oidc           = oidc::Oidc,                     // after tokens: who has one needs no login
    ExtAuthz       = ext_authz::ExtAuthz,            // after our own authentication, so that it is asked about fewer requests
    Anonymous      = anonymous::Anonymous,           // when none of the above has found something
    Authenticated  = authenticated::Authenticated,
    Authorization  = authorization::Authorization,   // sees the client's request, before anything changes it
    RateLimit      = rate_limit::RateLimit,          // keyed by who asks; what may not pass uses nothing
    Quota          = quota::Quota,                   // what comes too fast uses nothing of it
    Concurrency    = concurrency::Concurrency,       // behind what refuses for other reasons: a place is held from here on
    LoadShedding   = load_shedding::LoadShedding,    // guards the backend; by then it is known whose request is dear
    CircuitBreaker = circuit_breaker::CircuitBreaker, // judges what the backend does, the faults below included
    Bandwidth      = bandwidth::Bandwidth,           // before faults, which may make it slower
    IdentityFields = identity_fields::IdentityFields, // above see what the client sent, all below what the backend is told
    Fault          = fault::Fault,                   // after who may ask, before everything that answers
    Redirect       = redirect::Redirect,             // ends the exchange: after everything that may refuse
    DirectResponse = direct_response::DirectResponse,
    Cohort         = cohort::Cohort,                 // sees what the client sent; decides nothing yet
    Rewrite        = rewrite::Rewrite,               // all above see what the client sent
    ClientCredentials = oauth2_client_credentials::ClientCredentials, // ours towards the backend, whatever the client sent
    IssueUserToken = issue_user_token::IssueUserToken, // ours alone: nothing behind has a say about who asks
    HeaderModifier = header_modifier::HeaderModifier, // last word on fields, first to see the response
    Timeouts       = timeouts::Timeouts,             // settings: they have no hooks and are never in a chain
    Retry          = retry::Retry,
    Tracing        = tracing::Tracing,
}

impl Policy {
    /// True when it decides about requests that nobody proved anything of.
    pub(crate) fn decides_about_strangers(&self) -> bool {
        matches!(self, Self::Anonymous(_) | Self::Authenticated(_))
    }
}

// A chain is walked per request: big policies box their parts.
const _: () = assert!(size_of::<Policy>() <= 256);

/// Splits off whether a body asks for shadow mode.
fn shadow<P: HttpPolicy>(body: &Value) -> Result<(bool, Cow<'_, Value>), Invalid> {
    let Some(written) = body.get(SHADOW) else { return Ok((false, Cow::Borrowed(body))) };
    if !P::HOOKS.has(Hooks::REQUEST) {
        let why = format!("`{}` decides nothing about requests", P::KIND);
        return Err(Invalid::new(SHADOW, why, "remove `shadow`"));
    }
    let Value::Bool(is_shadow) = written else {
        return Err(Invalid::new(SHADOW, "is neither true nor false", ""));
    };
    let mut rest = body.clone();
    if let Value::Object(members) = &mut rest {
        members.shift_remove(SHADOW);
    }
    Ok((*is_shadow, Cow::Owned(rest)))
}

fn schema_of<P: HttpPolicy>() -> Schema {
    let mut schema = schemars::schema_for!(P::Spec);
    if P::HOOKS.has(Hooks::REQUEST)
        && let Some(Value::Object(properties)) = schema.get_mut("properties")
    {
        let about = "Shadow mode: evaluate, count and log, but let every request pass unchanged.";
        let member = serde_json::json!({ "type": "boolean", "default": false, "description": about });
        properties.insert(SHADOW.to_owned(), member);
    }
    schema
}

fn read<S: serde::de::DeserializeOwned>(body: &Value) -> Result<S, Invalid> {
    serde_path_to_error::deserialize(body).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { String::new() } else { path };
        Invalid::new(field, error.into_inner().to_string(), "")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{Keeper, NoDocuments};

    #[test]
    fn kinds_are_unique() {
        let mut names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KINDS.len());
    }

    #[test]
    fn an_unknown_field_is_named_with_its_path() {
        let body = serde_json::json!({ "path": { "type": "ReplaceFullPath", "replaceFullPaht": "/x" } });
        let (mut documents, keeper) = (NoDocuments, Keeper::default());
        let mut cx = Context::new("default", "test", &mut documents, &keeper);
        let Some(Err(invalid)) = parse("rewrite", &body, &mut cx) else { panic!("accepted") };
        assert!(invalid.to_string().contains("replaceFullPaht"), "{invalid}");
        assert!(parse("rewrit", &body, &mut cx).is_none());
    }
}
