//! Requests must have proven who asks, in whichever way: one of several authentications is enough.
//!
//! With this policy in the chain, authentications let requests without credentials pass to it; it asks for all of them at
//! once (RFC 9110 §11.6.1).

use rhumb_base::failure::Cause;
use rhumb_codec::field::Known;
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::anonymous::Anonymous;
use crate::context::Context;
use crate::exchange::{Exchange, Reply};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};

/// Most methods of the list.
const METHODS_LIMIT: usize = 32;

/// Refuses requests that nobody has proven anything of. `anonymous` is nobody.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Spec {
    /// Authentications that count, by their kinds: `[jwt, clientCertificate]`. Default: all.
    pub methods: Vec<String>,
}

/// A compiled policy.
pub struct Authenticated {
    methods: Box<[String]>,
}

impl HttpPolicy for Authenticated {
    const KIND: &'static str = "authenticated";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        if spec.methods.len() > METHODS_LIMIT {
            return Err(Invalid::new(
                "methods",
                format!("has more than {METHODS_LIMIT} items"),
                "remove some",
            ));
        }
        for (at, method) in spec.methods.iter().enumerate() {
            let is_kind = crate::KINDS.iter().any(|kind| kind.name == method) && method != Anonymous::KIND;
            if !is_kind {
                let why = format!("`{method}` proves nothing");
                return Err(Invalid::new(
                    format!("methods[{at}]"),
                    why,
                    "write the kind of an authentication: `jwt`",
                ));
            }
        }
        Ok(Self { methods: spec.methods.into() })
    }

    fn on_request(&self, _: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        let method = cx.principal().map_or("", |principal| principal.method);
        let counts = self.methods.is_empty() || self.methods.iter().any(|counts| counts == method);
        if counts && !method.is_empty() && method != Anonymous::KIND {
            return Verdict::Continue;
        }
        let mut reply = Reply::refuse(Cause::CredentialsMissing);
        for challenge in &cx.found.challenges {
            reply.fields().append(Known::WwwAuthenticate, challenge);
        }
        Verdict::Respond(reply)
    }
}
