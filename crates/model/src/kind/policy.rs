//! Policy: what is asked of requests beyond routing.

use super::refs::{GATEWAY_GROUP, RHUMB_GROUP, check_unique};
use crate::decode::{Decoder, List, Table, object};
use crate::diag::Rule;
use crate::scalar::{Group, KindName, Name};
use crate::span::Spanned;
use crate::value::Node;

object! {
    /// Policies and what they are attached to. Their bodies are known to the policies themselves.
    pub struct Policy as "the spec of a Policy" {
        /// Gateways, listeners, routes, rules, backends, services or consumers of this namespace. None: used by routes as an ExtensionRef.
        "targetRefs" target_refs: List<PolicyTarget, 0, 64>,
        /// Policies by kind, such as `cors: {allowOrigins: ["https://example.com"]}`.
        "policies" policies: Table<Node, 64>,
    }
    check Policy::check;
}

impl Policy {
    fn check(&self, cx: &mut Decoder<'_>) {
        if self.policies.entries.is_empty() && !self.broken {
            let diag = cx
                .error(Rule::MissingField, self.span, "the Policy has no policies")
                .fix("add `policies: {KIND: {…}}`");
            cx.push(diag);
        }
        check_unique(
            &self.target_refs,
            "target",
            |t| {
                let section = t.section_name.as_ref().map(|name| name.as_str());
                ((t.kind.as_str(), t.name.as_str(), section), t.name.to_string(), t.name.span)
            },
            cx,
        );
    }
}

object! {
    /// Something that a policy is attached to, in the namespace of the policy.
    pub struct PolicyTarget as "a targetRef" {
        /// Group of the target. Default: the one that has the kind.
        "group" group: Option<Spanned<Group>>,
        /// Gateway, HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, UDPRoute, Backend, Service or Consumer.
        "kind" kind: Spanned<KindName>,
        /// Name of the target.
        "name" name: Spanned<Name>,
        /// Name of one listener of a Gateway, one rule of a route, or one port of a Service.
        "sectionName" section_name: Option<Spanned<Name>>,
    }
    check PolicyTarget::check;
}

/// The kinds that a policy may be attached to, with their groups.
const TARGETS: &[(&str, &str)] = &[
    ("Gateway", GATEWAY_GROUP),
    ("HTTPRoute", GATEWAY_GROUP),
    ("GRPCRoute", GATEWAY_GROUP),
    ("TLSRoute", GATEWAY_GROUP),
    ("TCPRoute", GATEWAY_GROUP),
    ("UDPRoute", GATEWAY_GROUP),
    ("Backend", RHUMB_GROUP),
    ("Consumer", RHUMB_GROUP),
    ("Service", ""),
];

impl PolicyTarget {
    fn check(&self, cx: &mut Decoder<'_>) {
        let Some((_, group)) = TARGETS.iter().find(|(kind, _)| *kind == self.kind.as_str()) else {
            let kinds: Vec<&str> = TARGETS.iter().map(|(kind, _)| *kind).collect();
            let mut diag = cx
                .error(
                    Rule::UnknownValue,
                    self.kind.span,
                    format!("a Policy cannot be attached to a {}", self.kind),
                )
                .why(format!("allowed: {}", crate::decode::list(&kinds)));
            if let Some(near) = crate::decode::nearest(self.kind.as_str(), kinds.into_iter()) {
                diag = diag.fix(format!("did you mean `{near}`?"));
            }
            cx.push(diag);
            return;
        };
        if let Some(written) = &self.group
            && written.as_str() != *group
        {
            let diag = cx
                .error(
                    Rule::UnknownValue,
                    written.span,
                    format!("kind {} is not of group `{written}`", self.kind),
                )
                .fix(format!(
                    "write `group: {}`, or leave it out",
                    if group.is_empty() { "\"\"" } else { group }
                ));
            cx.push(diag);
        }
        if matches!(self.kind.as_str(), "Backend" | "Consumer")
            && let Some(section) = &self.section_name
        {
            let diag = cx
                .error(Rule::Conflict, section.span, format!("a {} has no sections", self.kind))
                .fix("remove `sectionName`");
            cx.push(diag);
        }
    }
}
