//! References from one document to another, and label selectors.

use crate::decode::{Decoder, List, Table, choice, object};
use crate::diag::Rule;
use crate::scalar::{Group, KindName, Name, Namespace, Port};
use crate::span::{Span, Spanned};
use std::collections::HashMap;
use std::hash::Hash;

/// The group of Gateway API's kinds.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// The group of Gateway API's experimental kinds.
pub const EXPERIMENTAL_GROUP: &str = "gateway.networking.x-k8s.io";

/// The group of our own kinds.
pub const RHUMB_GROUP: &str = "rhumb.dev";

object! {
    /// The Gateway (or listener of one) or Service that a route wants to be attached to.
    pub struct ParentRef as "a parentRef" {
        /// Group of the parent: gateway.networking.k8s.io (default), or empty for a Service.
        "group" group: Spanned<Group> = gateway_group,
        /// Kind of the parent: Gateway (default), or Service for calls within the mesh.
        "kind" kind: Spanned<KindName> = gateway_kind,
        /// Namespace of the parent. Default: that of the route.
        "namespace" namespace: Option<Spanned<Namespace>>,
        /// Name of the parent.
        "name" name: Spanned<Name>,
        /// Name of one listener. Default: every listener that allows the route.
        "sectionName" section_name: Option<Spanned<Name>>,
        /// Attach to the listeners of this port only.
        "port" port: Option<Spanned<Port>>,
    }
    check ParentRef::check;
}

impl ParentRef {
    /// True for a Service: the route holds for calls of it within the mesh (GEP-1426).
    pub fn is_service(&self) -> bool {
        self.group.as_str().is_empty() && self.kind.as_str() == "Service"
    }

    fn check(&self, cx: &mut Decoder<'_>) {
        if self.is_service() {
            if let Some(section) = &self.section_name {
                let diag = cx
                    .error(Rule::Conflict, section.span, "`sectionName` with a Service")
                    .fix("write `port:`, or leave it out for all ports");
                cx.push(diag);
            }
            return;
        }
        if self.kind.as_str() == "Service" {
            let diag = cx
                .error(
                    Rule::UnknownValue,
                    self.kind.span,
                    format!("no kind Service in group `{}`", self.group),
                )
                .fix("add `group: \"\"`");
            cx.push(diag);
            return;
        }
        if self.group.as_str() != GATEWAY_GROUP || self.kind.as_str() != "Gateway" {
            let diag = cx
                .error(
                    Rule::NotSupported,
                    self.kind.span,
                    format!("a {} cannot be a parent in this version", self.kind),
                )
                .why("routes attach to Gateways of group gateway.networking.k8s.io, or to Services of the core group");
            cx.push(diag);
        }
    }
}

object! {
    /// A certificate and its key, or a bundle of CA certificates.
    pub struct SecretRef as "a reference to a Secret" {
        /// Group of the object. Default: empty (core).
        "group" group: Spanned<Group> = core_group,
        /// Kind of the object. Default: Secret.
        "kind" kind: Spanned<KindName> = secret_kind,
        /// Namespace of the object; another one needs a ReferenceGrant there. Default: that of this document.
        "namespace" namespace: Option<Spanned<Namespace>>,
        /// Name of the object.
        "name" name: Spanned<Name>,
    }
    check SecretRef::check;
}

impl SecretRef {
    fn check(&self, cx: &mut Decoder<'_>) {
        if !self.group.as_str().is_empty() || self.kind.as_str() != "Secret" {
            let diag = cx
                .error(Rule::NotSupported, self.kind.span, format!("a {} cannot be used here", self.kind))
                .why("certificates come from a Secret of the core group")
                .fix("write `kind: Secret` and leave `group` out");
            cx.push(diag);
        }
    }
}

object! {
    /// CA certificates: a ConfigMap or Secret with `ca.crt`.
    pub struct CaRef as "a reference to CA certificates" {
        /// Group of the object: empty (core).
        "group" group: Spanned<Group>,
        /// Kind of the object: ConfigMap or Secret.
        "kind" kind: Spanned<KindName>,
        /// Namespace of the object; another one needs a ReferenceGrant there. Default: that of this document.
        "namespace" namespace: Option<Spanned<Namespace>>,
        /// Name of the object.
        "name" name: Spanned<Name>,
    }
    check CaRef::check;
}

impl CaRef {
    fn check(&self, cx: &mut Decoder<'_>) {
        check_ca_kind(&self.group, &self.kind, cx);
    }
}

object! {
    /// CA certificates in the namespace of this document: a ConfigMap or Secret with `ca.crt`.
    pub struct LocalCaRef as "a reference to CA certificates" {
        /// Group of the object: empty (core).
        "group" group: Spanned<Group>,
        /// Kind of the object: ConfigMap or Secret.
        "kind" kind: Spanned<KindName>,
        /// Name of the object.
        "name" name: Spanned<Name>,
    }
    check LocalCaRef::check;
}

impl LocalCaRef {
    fn check(&self, cx: &mut Decoder<'_>) {
        check_ca_kind(&self.group, &self.kind, cx);
    }
}

fn check_ca_kind(group: &Spanned<Group>, kind: &Spanned<KindName>, cx: &mut Decoder<'_>) {
    if !group.as_str().is_empty() || !matches!(kind.as_str(), "ConfigMap" | "Secret") {
        let diag = cx
            .error(Rule::NotSupported, kind.span, format!("a {kind} cannot hold CA certificates"))
            .why("they come from a ConfigMap or Secret of the core group")
            .fix("write `group: \"\"` and `kind: ConfigMap`");
        cx.push(diag);
    }
}

object! {
    /// An object in the namespace of this document.
    pub struct LocalRef as "a reference" {
        /// Group of the object; empty for the core kinds.
        "group" group: Spanned<Group>,
        /// Kind of the object.
        "kind" kind: Spanned<KindName>,
        /// Name of the object.
        "name" name: Spanned<Name>,
    }
}

object! {
    /// Parameters of a Gateway or GatewayClass: a ProxyConfig.
    pub struct ParametersRef as "a parametersRef" {
        /// Group of the object: rhumb.dev.
        "group" group: Spanned<Group>,
        /// Kind of the object: ProxyConfig.
        "kind" kind: Spanned<KindName>,
        /// Name of the object.
        "name" name: Spanned<Name>,
        /// Namespace of the object; of a GatewayClass only. Default: that of the Gateway.
        "namespace" namespace: Option<Spanned<Namespace>>,
    }
    check ParametersRef::check;
}

impl ParametersRef {
    fn check(&self, cx: &mut Decoder<'_>) {
        if self.group.as_str() != RHUMB_GROUP || self.kind.as_str() != "ProxyConfig" {
            let diag = cx
                .error(Rule::NotSupported, self.kind.span, format!("a {} cannot hold parameters", self.kind))
                .why("parameters of a Gateway are a ProxyConfig")
                .fix("write `group: rhumb.dev` and `kind: ProxyConfig`");
            cx.push(diag);
        }
    }
}

object! {
    /// Objects chosen by their labels. Every condition must hold; none choose all.
    pub struct LabelSelector as "a label selector" {
        /// Labels that must have exactly these values.
        "matchLabels" match_labels: Table<Box<str>, 64>,
        /// Further conditions.
        "matchExpressions" match_expressions: List<LabelExpression, 0, 64>,
    }
}

object! {
    /// One condition on a label.
    pub struct LabelExpression as "a label expression" {
        /// The label.
        "key" key: Box<str>,
        /// How it is compared.
        "operator" operator: Spanned<LabelOperator>,
        /// The values of `In` and `NotIn`.
        "values" values: List<Box<str>, 0, 64>,
    }
    check LabelExpression::check;
}

choice! {
    /// How a label is compared.
    pub enum LabelOperator as "operator" {
        /// It is there with one of the values.
        In = "In",
        /// It is absent or has none of the values.
        NotIn = "NotIn",
        /// It is there.
        Exists = "Exists",
        /// It is absent.
        DoesNotExist = "DoesNotExist",
    }
}

impl LabelExpression {
    fn check(&self, cx: &mut Decoder<'_>) {
        let wants_values = matches!(*self.operator, LabelOperator::In | LabelOperator::NotIn);
        if wants_values == self.values.is_empty() {
            let what = if wants_values { "needs `values`" } else { "takes no `values`" };
            let diag = cx
                .error(
                    Rule::Conflict,
                    self.operator.span,
                    format!("operator `{}` {what}", self.operator.word()),
                )
                .why("`In` and `NotIn` have values, `Exists` and `DoesNotExist` have none");
            cx.push(diag);
        }
    }
}

impl LabelSelector {
    /// True when an object with these labels is chosen. An expression that could not be read chooses nothing.
    pub fn matches<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        let exact = self.match_labels.entries.iter().all(|(key, value)| label(key) == Some(value));
        let expressions = self.match_expressions.iter().all(|expression| {
            let value = label(&expression.key);
            let listed = || value.is_some_and(|value| expression.values.iter().any(|v| &**v == value));
            match *expression.operator {
                LabelOperator::In => listed(),
                LabelOperator::NotIn => !listed(),
                LabelOperator::Exists => value.is_some(),
                LabelOperator::DoesNotExist => value.is_none(),
            }
        });
        !self.broken && exact && expressions
    }
}

/// Notes each item whose key was there before; `what` names the thing, as in "header `x` is listed twice".
pub(crate) fn check_unique<'i, T: 'i, K: Hash + Eq>(
    items: impl IntoIterator<Item = &'i T>,
    what: &str,
    key: impl Fn(&'i T) -> (K, String, Span),
    cx: &mut Decoder<'_>,
) {
    let mut seen: HashMap<K, Span> = HashMap::new();
    for item in items {
        let (key, shown, span) = key(item);
        if let Some(first) = seen.insert(key, span) {
            let diag = cx
                .error(Rule::Conflict, span, format!("{what} `{shown}` is listed twice"))
                .label("again here")
                .related(cx.origin(first), "first here");
            cx.push(diag);
        }
    }
}

fn gateway_group(span: Span) -> Spanned<Group> {
    literal(Group::parse(GATEWAY_GROUP), span)
}

pub(crate) fn core_group(span: Span) -> Spanned<Group> {
    literal(Group::parse(""), span)
}

fn gateway_kind(span: Span) -> Spanned<KindName> {
    literal(KindName::parse("Gateway"), span)
}

fn secret_kind(span: Span) -> Spanned<KindName> {
    literal(KindName::parse("Secret"), span)
}

pub(crate) fn service_kind(span: Span) -> Spanned<KindName> {
    literal(KindName::parse("Service"), span)
}

/// A default value, written here: its form is right.
pub(crate) fn literal<T, E: std::fmt::Debug>(parsed: Result<T, E>, span: Span) -> Spanned<T> {
    Spanned::new(parsed.expect("a default value has the right form"), span)
}
