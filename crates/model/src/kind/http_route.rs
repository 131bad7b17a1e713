//! HTTPRoute: which requests go where.

use super::backend_traffic::SessionPersistence;
use super::filter::{FilterAction, HttpFilter, HttpFilterKind, PathModifierKind, check_filters};
use super::refs::{ParentRef, check_unique, core_group, service_kind};
use crate::decode::{Decoder, List, Whole, choice, object};
use crate::diag::Rule;
use crate::scalar::{Duration, FieldName, Group, Hostname, KindName, Name, Namespace, PathText, Port};
use crate::span::{Span, Spanned};

object! {
    /// Rules that choose requests and say where they go.
    pub struct HttpRoute as "the spec of an HTTPRoute" {
        /// The Gateways or listeners to attach to.
        "parentRefs" parent_refs: List<ParentRef, 0, 32>,
        /// Hostnames of the requests. Default: those of the listeners.
        "hostnames" hostnames: List<Spanned<Hostname>, 0, 16>,
        /// The rules; the most specific match wins, not the first. Default: one that matches every request.
        "rules" rules: List<HttpRule, 0, 16>,
    }
    later { "useDefaultGateways": "default Gateways come with a later version" }
    check HttpRoute::check;
}

/// The most matches that all rules of a route may have together (Gateway API).
pub const MAX_MATCHES: usize = 128;

impl HttpRoute {
    fn check(&self, cx: &mut Decoder<'_>) {
        let matches: usize = self.rules.iter().map(|rule| rule.matches.len()).sum();
        if matches > MAX_MATCHES {
            let diag = cx
                .error(Rule::OutOfRange, self.rules.span, format!("{matches} matches in one route"))
                .why(format!("at most {MAX_MATCHES} are allowed (Gateway API)"))
                .fix("split the route into several");
            cx.push(diag);
        }
        let named = self.rules.iter().filter_map(|rule| rule.name.as_ref());
        check_unique(named, "rule", |name| (name.as_str(), name.to_string(), name.span), cx);
    }
}

object! {
    /// Some requests, what happens to them and where they go.
    pub struct HttpRule as "a rule" {
        /// Name, unique in the route: `sectionName` of policies.
        "name" name: Option<Spanned<Name>>,
        /// Conditions; a request that meets any of them is meant. Default: every request.
        "matches" matches: List<HttpMatch, 0, 64>,
        /// What happens to the requests.
        "filters" filters: List<HttpFilter, 0, 16>,
        /// Where they go, by weight. None: 500, unless a filter or policy answers.
        "backendRefs" backend_refs: List<HttpBackendRef, 0, 16>,
        /// How long they may take.
        "timeouts" timeouts: Option<HttpTimeouts>,
        /// When a request is tried again.
        "retry" retry: Option<HttpRetry>,
        /// Sends the requests of a session to one endpoint.
        "sessionPersistence" session_persistence: Option<SessionPersistence>,
    }
    check HttpRule::check;
}

impl HttpRule {
    fn check(&self, cx: &mut Decoder<'_>) {
        check_filters(&self.filters, cx);
        let redirect = self.filters.iter().find(|filter| *filter.kind == HttpFilterKind::RequestRedirect);
        if let (Some(redirect), Some(backend)) = (redirect, self.backend_refs.first()) {
            let diag = cx
                .error(Rule::Conflict, backend.name.span, "a rule with a redirect has backendRefs")
                .why("a redirected request goes to no backend")
                .fix("remove `backendRefs` or the redirect")
                .related(cx.origin(redirect.kind.span), "redirect");
            cx.push(diag);
        }
        let filters =
            self.filters.iter().chain(self.backend_refs.iter().flat_map(|backend| &backend.filters));
        for filter in filters {
            let modifier = match filter.action() {
                Some(FilterAction::Redirect(redirect)) => redirect.path.as_ref(),
                Some(FilterAction::Rewrite(rewrite)) => rewrite.path.as_ref(),
                _ => None,
            };
            let Some(modifier) = modifier else { continue };
            let one_prefix = match &*self.matches {
                // No match is the prefix `/`.
                [] => true,
                [only] => *only.path.kind == PathMatchKind::PathPrefix,
                _ => false,
            };
            if *modifier.kind == PathModifierKind::ReplacePrefixMatch && !one_prefix {
                let diag = cx
                    .error(
                        Rule::Conflict,
                        modifier.kind.span,
                        "`ReplacePrefixMatch` in a rule that has not exactly one match of type `PathPrefix`",
                    )
                    .why("it would not be clear which prefix is replaced (Gateway API)")
                    .fix("give each prefix a rule of its own, or use `ReplaceFullPath`");
                cx.push(diag);
            }
        }
    }
}

object! {
    /// Conditions that a request must all meet.
    pub struct HttpMatch as "a match" {
        /// The path. Default: every path.
        "path" path: PathMatch = any_path,
        /// Fields of the request.
        "headers" headers: List<HeaderMatch, 0, 16>,
        /// Cookies of the request. A field of Rhumb: Gateway API has none, so its documents match the field `Cookie`.
        "cookies" cookies: List<CookieMatch, 0, 16>,
        /// Parameters of the query.
        "queryParams" query_params: List<QueryMatch, 0, 16>,
        /// The method. Default: every method.
        "method" method: Option<Spanned<HttpMethod>>,
    }
    check HttpMatch::check;
}

impl HttpMatch {
    fn check(&self, cx: &mut Decoder<'_>) {
        check_unique(&self.headers, "header", |h| (h.name.as_str(), h.name.to_string(), h.name.span), cx);
        check_unique(&self.cookies, "cookie", |c| (&*c.name.value, c.name.to_string(), c.name.span), cx);
        check_unique(
            &self.query_params,
            "query parameter",
            |q| (&*q.name.value, q.name.to_string(), q.name.span),
            cx,
        );
    }
}

object! {
    /// A condition on the path, as it is after normalisation.
    pub struct PathMatch as "a path match" {
        /// Exact, PathPrefix (default) or RegularExpression.
        "type" kind: Spanned<PathMatchKind>,
        /// The path, prefix or expression. Default: `/`.
        "value" value: Spanned<Box<str>> = |span| Spanned::new("/".into(), span),
    }
    check PathMatch::check;
}

choice! {
    /// How a path is compared.
    pub enum PathMatchKind as "path match type" {
        /// It is exactly this.
        Exact = "Exact",
        /// It starts with these segments: `/a/b` matches `/a/b` and `/a/b/c`, not `/a/bc`.
        PathPrefix = "PathPrefix",
        /// All of it matches the regular expression (syntax of the Rust regex crate).
        RegularExpression = "RegularExpression",
    }
    default PathPrefix;
}

impl PathMatch {
    fn check(&self, cx: &mut Decoder<'_>) {
        if *self.kind == PathMatchKind::RegularExpression {
            check_regex(&self.value, cx);
            return;
        }
        if let Err(complaint) = PathText::parse(&self.value) {
            let what = format!("`{}` is not a path", crate::value::clip(&self.value));
            let mut diag = cx.error(Rule::BadValue, self.value.span, what).why(complaint.why);
            diag.fix = complaint.fix;
            cx.push(diag);
        }
    }
}

/// Notes an expression that is empty or too long. Its syntax is checked where it is compiled.
pub(crate) fn check_regex(text: &Spanned<Box<str>>, cx: &mut Decoder<'_>) {
    const LONGEST: usize = 4096;
    if text.is_empty() {
        let diag = cx
            .error(Rule::BadValue, text.span, "the regular expression is empty")
            .fix("leave the condition out to match everything");
        cx.push(diag);
    } else if text.len() > LONGEST {
        let diag = cx
            .error(Rule::OutOfRange, text.span, format!("a regular expression of {} bytes", text.len()))
            .why(format!("at most {LONGEST} are allowed"));
        cx.push(diag);
    }
}

fn any_path(span: Span) -> PathMatch {
    PathMatch {
        kind: Spanned::new(PathMatchKind::PathPrefix, span),
        value: Spanned::new("/".into(), span),
        span,
        broken: false,
    }
}

choice! {
    /// How a text is compared.
    pub enum TextMatchKind as "match type" {
        /// It is exactly this.
        Exact = "Exact",
        /// All of it matches the regular expression (syntax of the Rust regex crate).
        RegularExpression = "RegularExpression",
    }
    default Exact;
}

object! {
    /// A condition on a field of the request.
    pub struct HeaderMatch as "a header match" {
        /// Name of the field.
        "name" name: Spanned<FieldName>,
        /// Exact (default) or RegularExpression.
        "type" kind: Spanned<TextMatchKind>,
        /// The value or expression.
        "value" value: Spanned<Box<str>>,
    }
    check HeaderMatch::check;
}

impl HeaderMatch {
    fn check(&self, cx: &mut Decoder<'_>) {
        if *self.kind == TextMatchKind::RegularExpression {
            check_regex(&self.value, cx);
        } else if let Err(complaint) = crate::scalar::FieldValue::parse(&self.value) {
            let mut diag = cx
                .error(Rule::BadValue, self.value.span, "this value can never be in a header")
                .why(complaint.why);
            diag.fix = complaint.fix;
            cx.push(diag);
        }
    }
}

object! {
    /// A condition on a cookie of the request.
    pub struct CookieMatch as "a cookie match" {
        /// Name of the cookie; case matters. The first of several with the same name counts.
        "name" name: Spanned<Box<str>>,
        /// Exact (default) or RegularExpression.
        "type" kind: Spanned<TextMatchKind>,
        /// The value or expression. The value is compared as it is sent: quotes belong to it, nothing is decoded.
        "value" value: Spanned<Box<str>>,
    }
    check CookieMatch::check;
}

impl CookieMatch {
    fn check(&self, cx: &mut Decoder<'_>) {
        if !crate::scalar::is_token(&self.name) {
            let diag = cx
                .error(Rule::BadValue, self.name.span, format!("`{}` is not the name of a cookie", self.name))
                .why("it consists of letters, digits and `!#$%&'*+-.^_`|~` (RFC 6265 §4.1.1)");
            cx.push(diag);
        }
        if *self.kind == TextMatchKind::RegularExpression {
            check_regex(&self.value, cx);
        } else if let Some(c) =
            self.value.chars().find(|c| !c.is_ascii_graphic() || matches!(c, ';' | ',' | '\\'))
        {
            let diag = cx
                .error(Rule::BadValue, self.value.span, "this value can never be in a cookie")
                .why(format!("{c:?} is not allowed there (RFC 6265 §4.1.1)"));
            cx.push(diag);
        }
    }
}

object! {
    /// A condition on a parameter of the query.
    pub struct QueryMatch as "a query match" {
        /// Name of the parameter, as it is after percent-decoding. The first of several with the same name counts.
        "name" name: Spanned<Box<str>>,
        /// Exact (default) or RegularExpression.
        "type" kind: Spanned<TextMatchKind>,
        /// The value or expression.
        "value" value: Spanned<Box<str>>,
    }
    check QueryMatch::check;
}

impl QueryMatch {
    fn check(&self, cx: &mut Decoder<'_>) {
        if !crate::scalar::is_token(&self.name) {
            let diag = cx
                .error(Rule::BadValue, self.name.span, format!("`{}` is not a parameter name", self.name))
                .why("it consists of letters, digits and `!#$%&'*+-.^_`|~` (Gateway API)");
            cx.push(diag);
        }
        if *self.kind == TextMatchKind::RegularExpression {
            check_regex(&self.value, cx);
        } else if self.value.is_empty() || self.value.len() > 1024 {
            let diag = cx
                .error(Rule::OutOfRange, self.value.span, "the value has no usable length")
                .why("a value has from 1 to 1024 characters (Gateway API)");
            cx.push(diag);
        }
    }
}

choice! {
    /// A request method that can be matched (RFC 9110 §9.3, RFC 5789).
    pub enum HttpMethod as "method" {
        /// GET.
        Get = "GET",
        /// HEAD.
        Head = "HEAD",
        /// POST.
        Post = "POST",
        /// PUT.
        Put = "PUT",
        /// DELETE.
        Delete = "DELETE",
        /// CONNECT.
        Connect = "CONNECT",
        /// OPTIONS.
        Options = "OPTIONS",
        /// TRACE.
        Trace = "TRACE",
        /// PATCH.
        Patch = "PATCH",
    }
}

object! {
    /// A backend and its share of the requests.
    pub struct HttpBackendRef as "a backendRef" {
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
        /// Share of the requests: this weight of the sum of all. Default: 1. Zero: none.
        "weight" weight: Spanned<Whole<0, 1000000>> = |span| Spanned::new(Whole::literal(1), span),
        /// What happens to requests that go to this backend.
        "filters" filters: List<HttpFilter, 0, 16>,
    }
    check HttpBackendRef::check;
}

impl HttpBackendRef {
    fn check(&self, cx: &mut Decoder<'_>) {
        check_filters(&self.filters, cx);
        check_backend_kind(&self.group, &self.kind, &self.name, self.port.as_ref(), cx);
    }
}

/// Notes kinds that no request can be sent to, and what a Service or Backend lacks.
pub(crate) fn check_backend_kind(
    group: &Spanned<Group>,
    kind: &Spanned<KindName>,
    name: &Spanned<Name>,
    port: Option<&Spanned<Port>>,
    cx: &mut Decoder<'_>,
) {
    let diag = match (group.as_str(), kind.as_str()) {
        (super::refs::RHUMB_GROUP, "Backend") => match port {
            Some(port) => cx
                .error(Rule::Conflict, port.span, "`port` with a Backend")
                .why("the endpoints of a Backend have their ports")
                .fix("remove `port`"),
            None => return,
        },
        ("", "Service") if port.is_some() => return,
        ("", "Service") => cx
            .error(Rule::MissingField, name.span, "field `port` is missing")
            .label("a Service needs `port`")
            .fix("add `port:`; for a Backend write `group: rhumb.dev` and `kind: Backend`"),
        ("", "Backend") => cx
            .error(Rule::MissingField, kind.span, "field `group` is missing")
            .label("a Backend is of group rhumb.dev")
            .fix("add `group: rhumb.dev`"),
        (super::refs::RHUMB_GROUP, "Service") => cx
            .error(Rule::UnknownValue, kind.span, "kind `Service` of group rhumb.dev does not exist")
            .fix("write `kind: Backend`"),
        (group, _) => cx
            .error(Rule::NotSupported, kind.span, format!("a {kind} of group `{group}` cannot be a backend"))
            .why("requests go to a Backend of group rhumb.dev or to a Service of the core group"),
    };
    cx.push(diag);
}

object! {
    /// How long a request may take (GEP-1742).
    pub struct HttpTimeouts as "timeouts" {
        /// From the request's head to the last byte of the response, retries included. Zero: no limit.
        "request" request: Option<Spanned<Duration>>,
        /// One attempt, connect included. Zero: no limit. At most `request`.
        "backendRequest" backend_request: Option<Spanned<Duration>>,
    }
    check HttpTimeouts::check;
}

impl HttpTimeouts {
    fn check(&self, cx: &mut Decoder<'_>) {
        if let (Some(request), Some(attempt)) = (&self.request, &self.backend_request)
            && !request.get().is_zero()
            && attempt.get() > request.get()
        {
            let diag = cx
                .error(Rule::Conflict, attempt.span, "`backendRequest` is longer than `request`")
                .why("one attempt cannot take longer than all of them")
                .related(cx.origin(request.span), "the whole request");
            cx.push(diag);
        }
    }
}

object! {
    /// When a request is tried again (GEP-1731): after these statuses, and when there is no response (no connection, a
    /// reset, a timeout of `backendRequest`). Only what may be repeated is; a Policy `retry` says more.
    pub struct HttpRetry as "retry" {
        /// Statuses of responses after which it is. Unit: HTTP status.
        "codes" codes: List<Spanned<Whole<400, 599>>, 0, 64>,
        /// How often at most, beyond the first time. Default: 2.
        "attempts" attempts: Option<Spanned<Whole<0, 100>>>,
        /// How long to wait at least before each. Default: a random time up to 25ms, doubled with each.
        "backoff" backoff: Option<Spanned<Duration>>,
    }
}
