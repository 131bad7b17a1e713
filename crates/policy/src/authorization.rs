//! Who may do what, by conditions (CEL) over the exchange.
//!
//! Deny rules come first: the first that holds refuses. Then, if there are allow rules, one of them must hold. A condition
//! that has no value (a field that is not there) allows nothing, and in a deny rule it refuses: what cannot be decided is
//! not let through. Attached at several places, each place decides for itself and all must agree: a route can narrow what
//! its gateway allows, never widen it.

use std::sync::Arc;

use rhumb_base::failure::Cause;
use rhumb_cel::Program;
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::attributes::{Attributes, OfConnection, SCHEMA};
use crate::context::Context;
use crate::exchange::{Exchange, Reply};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};

/// Most rules of one policy.
pub const RULES_LIMIT: usize = 256;

/// Allows and refuses requests by conditions.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Rules. Deny wins; with one allow rule, what no allow rule allows is refused. At most 256.
    pub rules: Vec<RuleSpec>,
    /// Name the rule that refused in the answer. Default: false, it is in the access log only.
    #[serde(default)]
    pub tell: bool,
}

/// One rule.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleSpec {
    /// Its name in logs and answers. Default: its place, `rules[0]`.
    #[serde(default)]
    pub name: Option<String>,
    /// `Allow` or `Deny`. Default: `Allow`.
    #[serde(default)]
    pub action: Action,
    /// A CEL condition: `request.method == "GET" && cidr("10.0.0.0/8").containsIP(source.address)`.
    pub when: String,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
pub enum Action {
    /// Lets a request through, unless a deny rule holds.
    #[default]
    Allow,
    /// Refuses.
    Deny,
}

/// Compiled rules.
pub struct Authorization {
    deny: Box<[Rule]>,
    allow: Box<[Rule]>,
    tell: bool,
}

struct Rule {
    name: Arc<str>,
    when: Program,
}

/// In the log when there are allow rules and none holds.
const NO_RULE: &str = "no allow rule holds";

impl HttpPolicy for Authorization {
    const KIND: &'static str = "authorization";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT.or(Attach::BACKEND).or(Attach::CONSUMER);
    const MERGE: Merge = Merge::Union;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        if spec.rules.is_empty() {
            return Err(Invalid::new("rules", "is empty", "write a rule, or remove the policy"));
        }
        if spec.rules.len() > RULES_LIMIT {
            return Err(Invalid::new(
                "rules",
                format!("has more than {RULES_LIMIT} rules"),
                "combine conditions with ||",
            ));
        }
        let (mut deny, mut allow, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for (at, rule) in spec.rules.into_iter().enumerate() {
            let when = Program::condition(&rule.when, &SCHEMA).map_err(|error| {
                Invalid::new(format!("rules[{at}].when"), error.tell(&rule.when), error.fix)
            })?;
            let name: Arc<str> = rule.name.unwrap_or_else(|| format!("rules[{at}]")).into();
            if names.contains(&name) {
                let why = format!("`{name}` is the name of another rule");
                return Err(Invalid::new(format!("rules[{at}].name"), why, "logs have to tell them apart"));
            }
            names.push(Arc::clone(&name));
            match rule.action {
                Action::Allow => allow.push(Rule { name, when }),
                Action::Deny => deny.push(Rule { name, when }),
            }
        }
        Ok(Self { deny: deny.into(), allow: allow.into(), tell: spec.tell })
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        let attributes = Attributes::new(req, cx);
        // Without a value a deny rule refuses: nobody gets past it by making its condition fail.
        let denied = self.deny.iter().find(|rule| rule.when.holds(&attributes).unwrap_or(true));
        let decided: Arc<str> = match denied {
            Some(rule) => Arc::clone(&rule.name),
            None if self.allow.is_empty() => return Verdict::Continue,
            None => match self.allow.iter().find(|rule| rule.when.holds(&attributes).unwrap_or(false)) {
                Some(rule) => {
                    cx.decision = Some(Arc::clone(&rule.name));
                    return Verdict::Continue;
                }
                None => NO_RULE.into(),
            },
        };
        let mut reply = Reply::refuse(Cause::AccessDenied);
        if self.tell {
            reply.detail = Some(format!("Refused by: {decided}.").into());
        }
        cx.decision = Some(decided);
        Verdict::Respond(reply)
    }
}

impl Authorization {
    /// Decides about a connection that is carried as it is. Nothing of a request has a value there: what an allow rule asks of
    /// one does not hold, what a deny rule asks of one does.
    pub(crate) fn admits_connection(&self, cx: &Exchange<'_>) -> bool {
        let attributes = OfConnection::new(cx);
        !self.deny.iter().any(|rule| rule.when.holds(&attributes).unwrap_or(true))
            && (self.allow.is_empty()
                || self.allow.iter().any(|rule| rule.when.holds(&attributes).unwrap_or(false)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use rhumb_codec::head::Scheme;

    fn decide(rules: serde_json::Value, method: &str) -> (bool, Option<Arc<str>>) {
        let spec = serde_json::from_value(serde_json::json!({ "rules": rules })).unwrap();
        let policy = compile_alone::<Authorization>(spec).unwrap();
        let mut req = RequestHead::new();
        req.set_method(method.as_bytes());
        let mut cx = Exchange::new([10, 0, 0, 1].into(), Scheme::Http, 80);
        let verdict = policy.on_request(&mut req, &mut (), &mut cx);
        (matches!(verdict, Verdict::Continue), cx.decision)
    }

    #[test]
    fn deny_wins_and_one_allow_makes_the_rest_refused() {
        let rules = serde_json::json!([
            { "name": "read", "when": "request.method == 'GET'" },
            { "name": "never", "action": "Deny", "when": "request.method in ['TRACE', 'GET'] && listener.port == 80" },
        ]);
        assert_eq!(decide(rules, "GET"), (false, Some("never".into())));
        let rules = serde_json::json!([{ "name": "read", "when": "request.method == 'GET'" }]);
        assert_eq!(decide(rules.clone(), "GET"), (true, Some("read".into())));
        assert_eq!(decide(rules, "PUT"), (false, Some(NO_RULE.into())));
        let rules = serde_json::json!([{ "action": "Deny", "when": "request.method == 'PUT'" }]);
        assert_eq!(decide(rules, "GET"), (true, None));
    }

    #[test]
    fn a_condition_without_a_value_is_on_the_careful_side() {
        let fails = "request.headers['x-none'] == '1'";
        assert!(!decide(serde_json::json!([{ "when": fails }]), "GET").0);
        assert!(!decide(serde_json::json!([{ "action": "Deny", "when": fails }]), "GET").0);
        assert!(decide(serde_json::json!([{ "when": fails }, { "when": "true" }]), "GET").0);
    }

    #[test]
    fn what_a_connection_cannot_show_allows_nothing_and_is_denied() {
        let admits = |rules: serde_json::Value| {
            let spec = serde_json::from_value(serde_json::json!({ "rules": rules })).unwrap();
            let policy = compile_alone::<Authorization>(spec).unwrap();
            policy.admits_connection(&Exchange::new([10, 0, 0, 1].into(), Scheme::Http, 80))
        };
        let here = "cidr('10.0.0.0/8').containsIP(source.address)";
        assert!(admits(serde_json::json!([{ "when": here }])));
        assert!(!admits(serde_json::json!([{ "when": format!("{here} && request.method == 'GET'") }])));
        assert!(!admits(serde_json::json!([{ "action": "Deny", "when": "request.path == '/admin'" }])));
        assert!(admits(
            serde_json::json!([{ "action": "Deny", "when": format!("!{here} && request.path == '/'") }])
        ));
        assert!(!admits(serde_json::json!([{ "action": "Deny", "when": "principal.subject == ''" }])));
    }

    #[test]
    fn mistakes_are_named() {
        let compile = |rules| {
            let spec = serde_json::from_value(serde_json::json!({ "rules": rules })).unwrap();
            compile_alone::<Authorization>(spec).err().unwrap()
        };
        assert_eq!(compile(serde_json::json!([])).field, "rules");
        let invalid = compile(serde_json::json!([{ "when": "true" }, { "when": "request.metod == 'GET'" }]));
        assert_eq!(
            (invalid.field.as_str(), invalid.fix.as_str()),
            ("rules[1].when", "did you mean `method`?")
        );
        assert_eq!(
            compile(serde_json::json!([{ "name": "a", "when": "true" }, { "name": "a", "when": "true" }]))
                .field,
            "rules[1].name"
        );
    }
}
