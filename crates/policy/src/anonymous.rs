//! Requests without credentials: who they are taken for.
//!
//! With this policy in the chain, authentications let requests without credentials pass to it. Wrong credentials are refused
//! all the same: whoever shows some means to be somebody.

use std::sync::Arc;

use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::exchange::Exchange;
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};
use crate::principal::Principal;

/// Lets requests without credentials pass.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Spec {
    /// The subject of the principal. Default: `anonymous`.
    pub subject: Option<String>,
    /// The Consumer of this namespace that they are taken for. Default: none.
    pub consumer: Option<String>,
}

/// A compiled policy.
pub struct Anonymous(Arc<Principal>);

impl HttpPolicy for Anonymous {
    const KIND: &'static str = "anonymous";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        let consumer = match &spec.consumer {
            None => None,
            Some(name) => Some(cx.consumers().named(name).cloned().ok_or_else(|| {
                let why = format!("no Consumer `{name}` in namespace `{}`", cx.namespace());
                Invalid::new("consumer", why, "add it, or correct the name")
            })?),
        };
        Ok(Self(Arc::new(Principal {
            method: Self::KIND,
            subject: spec.subject.as_deref().unwrap_or(Self::KIND).into(),
            consumer,
            ..Principal::default()
        })))
    }

    fn on_request(&self, _: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        if cx.principal().is_none() {
            cx.prove(Arc::clone(&self.0));
        }
        Verdict::Continue
    }
}
