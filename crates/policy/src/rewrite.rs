//! Change host and path on the way to the backend. Gateway API `HTTPURLRewriteFilter`.
//!
//! Runs after everything that decides about the request: those policies see what the client sent.

use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::exchange::Exchange;
use crate::path_modifier::{PathModifier, PathModifierSpec};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};
use crate::redirect::check_hostname;

/// Changes what the backend sees of the request's target.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Host that the backend sees.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Path that the backend sees.
    #[serde(default)]
    pub path: Option<PathModifierSpec>,
}

/// A compiled rewrite.
pub struct Rewrite {
    hostname: Option<Box<str>>,
    path: Option<PathModifier>,
}

impl HttpPolicy for Rewrite {
    const KIND: &'static str = "rewrite";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::ROUTE.or(Attach::RULE).or(Attach::BACKEND);
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        if let Some(hostname) = &spec.hostname {
            check_hostname(hostname)?;
        }
        if spec.hostname.is_none() && spec.path.is_none() {
            return Err(Invalid::new("", "changes nothing", "write hostname, path or both"));
        }
        Ok(Self {
            hostname: spec.hostname.map(Into::into),
            path: spec.path.map(PathModifier::compile).transpose()?,
        })
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        if let Some(hostname) = &self.hostname {
            req.set_authority(hostname.as_bytes());
        }
        if let Some(path) = &self.path {
            let path = path.apply(req, cx.matched_prefix);
            req.set_path(&path);
        }
        Verdict::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use rhumb_codec::head::Scheme;
    use serde_json::json;

    #[test]
    fn host_and_path_change_and_the_query_stays() {
        let body = json!({ "hostname": "b.example", "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/" } });
        let rewrite = compile_alone::<Rewrite>(serde_json::from_value(body).unwrap())
            .unwrap_or_else(|invalid| panic!("{invalid}"));
        let mut req = RequestHead::new();
        req.set_authority(b"a.example");
        req.set_target(b"/api/users?x=1");
        let client = std::net::Ipv4Addr::LOCALHOST.into();
        let mut cx = Exchange { matched_prefix: Some(4), ..Exchange::new(client, Scheme::Http, 80) };
        rewrite.on_request(&mut req, &mut (), &mut cx);
        assert_eq!(
            (req.authority(), req.path(), req.query()),
            (&b"b.example"[..], &b"/users"[..], Some(&b"x=1"[..]))
        );
    }
}
