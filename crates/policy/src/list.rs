//! The list of policies, and everything that is derived from it.

use rhumb_codec::head::{RequestHead, ResponseHead};
use schemars::Schema;
use serde_json::Value;

use crate::exchange::Exchange;
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};
use crate::{
    authorization, cohort, cors, csrf, direct_response, fault, header_modifier, ip_access, priority,
    proxy_protocol, redirect, retry, rewrite, security_fields, tcp, timeouts, udp,
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
            schema: || schemars::schema_for!(<$ty as HttpPolicy>::Spec),
        },)*];

        /// Compiles the body of a policy of `kind`; `None` when there is no such kind.
        pub fn parse(kind: &str, body: &Value) -> Option<Result<Policy, Invalid>> {
            $(if kind == <$ty as HttpPolicy>::KIND {
                return Some(read::<<$ty as HttpPolicy>::Spec>(body).and_then(<$ty as HttpPolicy>::compile).map(Policy::$name));
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
    Csrf           = csrf::Csrf,
    Authorization  = authorization::Authorization,   // sees the client's request, before anything changes it
    Fault          = fault::Fault,                   // after who may ask, before everything that answers
    Redirect       = redirect::Redirect,             // ends the exchange: after everything that may refuse
    DirectResponse = direct_response::DirectResponse,
    Cohort         = cohort::Cohort,                 // sees what the client sent; decides nothing yet
    Rewrite        = rewrite::Rewrite,               // all above see what the client sent
    HeaderModifier = header_modifier::HeaderModifier, // last word on fields, first to see the response
    Timeouts       = timeouts::Timeouts,             // settings: they have no hooks and are never in a chain
    Retry          = retry::Retry,
}

// A chain is walked per request: big policies box their parts.
const _: () = assert!(size_of::<Policy>() <= 256);

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
        let Some(Err(invalid)) = parse("rewrite", &body) else { panic!("accepted") };
        assert!(invalid.to_string().contains("replaceFullPaht"), "{invalid}");
        assert!(parse("rewrit", &body).is_none());
    }
}
