//! GRPCRoute: which calls go where.

use super::backend_traffic::SessionPersistence;
use super::filter::GrpcFilter;
use super::http_route::{HeaderMatch, TextMatchKind, check_backend_kind, check_regex};
use super::refs::{ParentRef, check_unique, core_group, service_kind};
use crate::decode::{Decoder, List, Whole, object};
use crate::diag::Rule;
use crate::scalar::{Group, Hostname, KindName, Name, Namespace, Port};
use crate::span::Spanned;

object! {
    /// Rules that choose gRPC calls and say where they go.
    pub struct GrpcRoute as "the spec of a GRPCRoute" {
        /// The Gateways or listeners to attach to.
        "parentRefs" parent_refs: List<ParentRef, 0, 32>,
        /// Hostnames of the calls. Default: those of the listeners.
        "hostnames" hostnames: List<Spanned<Hostname>, 0, 16>,
        /// The rules; the most specific match wins, not the first. Default: one that matches every call.
        "rules" rules: List<GrpcRule, 0, 16>,
    }
    later { "useDefaultGateways": "default Gateways come with a later version" }
    check GrpcRoute::check;
}

impl GrpcRoute {
    fn check(&self, cx: &mut Decoder<'_>) {
        let named = self.rules.iter().filter_map(|rule| rule.name.as_ref());
        check_unique(named, "rule", |name| (name.as_str(), name.to_string(), name.span), cx);
    }
}

object! {
    /// Some calls, what happens to them and where they go.
    pub struct GrpcRule as "a rule" {
        /// Name, unique in the route: `sectionName` of policies.
        "name" name: Option<Spanned<Name>>,
        /// Conditions; a call that meets any of them is meant. Default: every call.
        "matches" matches: List<GrpcMatch, 0, 64>,
        /// What happens to the calls.
        "filters" filters: List<GrpcFilter, 0, 16>,
        /// Where they go, by weight.
        "backendRefs" backend_refs: List<GrpcBackendRef, 0, 16>,
        /// Sends the calls of a session to one endpoint.
        "sessionPersistence" session_persistence: Option<SessionPersistence>,
    }
    check GrpcRule::check;
}

impl GrpcRule {
    fn check(&self, cx: &mut Decoder<'_>) {
        use super::filter::GrpcFilterKind::{ExtensionRef, RequestMirror};
        let once = self.filters.iter().filter(|f| !matches!(*f.kind, ExtensionRef | RequestMirror));
        check_unique(once, "filter", |f| (*f.kind, f.kind.word().to_owned(), f.kind.span), cx);
    }
}

object! {
    /// Conditions that a call must all meet.
    pub struct GrpcMatch as "a match" {
        /// Service and method. Default: every one.
        "method" method: Option<GrpcMethodMatch>,
        /// Metadata of the call.
        "headers" headers: List<HeaderMatch, 0, 16>,
    }
    check GrpcMatch::check;
}

impl GrpcMatch {
    fn check(&self, cx: &mut Decoder<'_>) {
        check_unique(&self.headers, "header", |h| (h.name.as_str(), h.name.to_string(), h.name.span), cx);
    }
}

object! {
    /// A condition on service and method.
    pub struct GrpcMethodMatch as "a method match" {
        /// Exact (default) or RegularExpression.
        "type" kind: Spanned<TextMatchKind>,
        /// The service with its package, such as `shop.v1.Orders`. Default: every service.
        "service" service: Option<Spanned<Box<str>>>,
        /// The method, such as `Get`. Default: every method.
        "method" method: Option<Spanned<Box<str>>>,
    }
    check GrpcMethodMatch::check;
}

impl GrpcMethodMatch {
    fn check(&self, cx: &mut Decoder<'_>) {
        if self.service.is_none() && self.method.is_none() {
            let diag = cx
                .error(Rule::MissingField, self.span, "neither `service` nor `method` is written")
                .fix("add one of them, or leave `method` of the match out");
            cx.push(diag);
        }
        let exact = *self.kind == TextMatchKind::Exact;
        for (what, text) in [("service", &self.service), ("method", &self.method)] {
            let Some(text) = text else { continue };
            if !exact {
                check_regex(text, cx);
                continue;
            }
            let name_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let dots = what == "service";
            let ok = !text.is_empty()
                && text.split('.').count() <= if dots { usize::MAX } else { 1 }
                && text.split('.').all(|part| {
                    part.bytes().all(name_byte)
                        && part.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
                });
            if !ok {
                let mut diag = cx
                    .error(Rule::BadValue, text.span, format!("`{text}` is not the name of a gRPC {what}"))
                    .why(if dots {
                        "a service is written with its package, such as `shop.v1.Orders`"
                    } else {
                        "a method is one word, such as `Get`"
                    });
                if text.contains('/') {
                    diag = diag.fix("write `service` and `method` apart, without `/`");
                }
                cx.push(diag);
            }
        }
    }
}

object! {
    /// A backend and its share of the calls.
    pub struct GrpcBackendRef as "a backendRef" {
        /// Group of the backend: rhumb.dev for a Backend; empty (default) for a Service.
        "group" group: Spanned<Group> = core_group,
        /// Kind of the backend: Backend, or Service (default).
        "kind" kind: Spanned<KindName> = service_kind,
        /// Namespace of the backend; another one needs a ReferenceGrant there. Default: that of the route.
        "namespace" namespace: Option<Spanned<Namespace>>,
        /// Name of the backend.
        "name" name: Spanned<Name>,
        /// Port of a Service. A Backend has its own.
        "port" port: Option<Spanned<Port>>,
        /// Share of the calls: this weight of the sum of all. Default: 1. Zero: none.
        "weight" weight: Spanned<Whole<0, 1000000>> = |span| Spanned::new(Whole::literal(1), span),
        /// What happens to calls that go to this backend.
        "filters" filters: List<GrpcFilter, 0, 16>,
    }
    check GrpcBackendRef::check;
}

impl GrpcBackendRef {
    fn check(&self, cx: &mut Decoder<'_>) {
        check_backend_kind(&self.group, &self.kind, &self.name, self.port.as_ref(), cx);
    }
}
