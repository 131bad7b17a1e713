//! Filters: what happens to a request or response on its way.

use super::http_route::check_backend_kind;
use super::refs::{LocalRef, RHUMB_GROUP, check_unique, core_group, service_kind};
use crate::decode::{Decoder, List, Whole, choice, object};
use crate::diag::Rule;
use crate::scalar::{
    FieldName, FieldValue, Group, KindName, Name, Namespace, PathText, Port, PreciseHostname,
};
use crate::span::{Span, Spanned};

/// The field that holds the body of each filter type, by the type's word.
const BODY_FIELDS: &[(&str, &str)] = &[
    ("RequestHeaderModifier", "requestHeaderModifier"),
    ("ResponseHeaderModifier", "responseHeaderModifier"),
    ("RequestRedirect", "requestRedirect"),
    ("URLRewrite", "urlRewrite"),
    ("CORS", "cors"),
    ("ExtensionRef", "extensionRef"),
    ("RequestMirror", "requestMirror"),
];

object! {
    /// One step that requests of an HTTPRoute take. `type` says which field has its settings.
    pub struct HttpFilter as "a filter" {
        /// What it does.
        "type" kind: Spanned<HttpFilterKind>,
        /// Sets, adds and removes fields of the request.
        "requestHeaderModifier" request_header_modifier: Option<Box<HeaderModifier>>,
        /// Sets, adds and removes fields of the response.
        "responseHeaderModifier" response_header_modifier: Option<Box<HeaderModifier>>,
        /// Answers with a redirect.
        "requestRedirect" request_redirect: Option<Box<RequestRedirect>>,
        /// Changes hostname and path before the request goes to the backend.
        "urlRewrite" url_rewrite: Option<Box<UrlRewrite>>,
        /// Answers preflight requests and marks responses for browsers (Fetch standard).
        "cors" cors: Option<Box<CorsFilter>>,
        /// A Policy of ours.
        "extensionRef" extension_ref: Option<Box<LocalRef>>,
        /// Sends a copy of the request to another backend, whose answers are dropped. May be repeated.
        "requestMirror" request_mirror: Option<Box<RequestMirror>>,
    }
    later {
        "externalAuth": "external authorization comes with a later version",
    }
    check HttpFilter::check;
}

choice! {
    /// What a filter does.
    pub enum HttpFilterKind as "filter type" {
        /// Sets, adds and removes fields of the request.
        RequestHeaderModifier = "RequestHeaderModifier",
        /// Sets, adds and removes fields of the response.
        ResponseHeaderModifier = "ResponseHeaderModifier",
        /// Answers with a redirect.
        RequestRedirect = "RequestRedirect",
        /// Changes hostname and path before the request goes to the backend.
        UrlRewrite = "URLRewrite",
        /// Answers preflight requests and marks responses for browsers.
        Cors = "CORS",
        /// A Policy of ours.
        ExtensionRef = "ExtensionRef",
        /// Sends a copy of the request to another backend.
        RequestMirror = "RequestMirror",
    }
    later {
        "ExternalAuth": "external authorization comes with a later version",
    }
}

/// A filter with its settings.
#[derive(Clone, Copy, Debug)]
pub enum FilterAction<'f> {
    /// Change fields of the request.
    RequestHeaders(&'f HeaderModifier),
    /// Change fields of the response.
    ResponseHeaders(&'f HeaderModifier),
    /// Answer with a redirect.
    Redirect(&'f RequestRedirect),
    /// Change hostname and path.
    Rewrite(&'f UrlRewrite),
    /// Cross-origin resource sharing.
    Cors(&'f CorsFilter),
    /// A Policy.
    Extension(&'f LocalRef),
    /// Send a copy to another backend.
    Mirror(&'f RequestMirror),
}

impl HttpFilter {
    /// The filter with its settings; nothing when they could not be read.
    pub fn action(&self) -> Option<FilterAction<'_>> {
        Some(match *self.kind {
            HttpFilterKind::RequestHeaderModifier => {
                FilterAction::RequestHeaders(self.request_header_modifier.as_deref()?)
            }
            HttpFilterKind::ResponseHeaderModifier => {
                FilterAction::ResponseHeaders(self.response_header_modifier.as_deref()?)
            }
            HttpFilterKind::RequestRedirect => FilterAction::Redirect(self.request_redirect.as_deref()?),
            HttpFilterKind::UrlRewrite => FilterAction::Rewrite(self.url_rewrite.as_deref()?),
            HttpFilterKind::Cors => FilterAction::Cors(self.cors.as_deref()?),
            HttpFilterKind::ExtensionRef => FilterAction::Extension(self.extension_ref.as_deref()?),
            HttpFilterKind::RequestMirror => FilterAction::Mirror(self.request_mirror.as_deref()?),
        })
    }

    fn check(&self, cx: &mut Decoder<'_>) {
        let written = [
            self.request_header_modifier.as_ref().map(|body| body.span),
            self.response_header_modifier.as_ref().map(|body| body.span),
            self.request_redirect.as_ref().map(|body| body.span),
            self.url_rewrite.as_ref().map(|body| body.span),
            self.cors.as_ref().map(|body| body.span),
            self.extension_ref.as_ref().map(|body| body.span),
            self.request_mirror.as_ref().map(|body| body.span),
        ];
        check_bodies(&self.kind, self.kind.word(), &written, self.broken, cx);
        check_extension(self.extension_ref.as_deref(), cx);
    }
}

/// Notes settings of another type than the filter's, and missing ones. `written` is in the order of [`BODY_FIELDS`].
fn check_bodies<K>(
    kind: &Spanned<K>,
    word: &str,
    written: &[Option<Span>],
    broken: bool,
    cx: &mut Decoder<'_>,
) {
    let errors_before = cx.errors();
    for ((name, field), span) in BODY_FIELDS.iter().zip(written) {
        if let Some(span) = span
            && *name != word
        {
            let diag = cx
                .error(Rule::Conflict, *span, format!("`{field}` in a filter of type `{word}`"))
                .fix(format!("write `type: {name}`, or a filter of its own"))
                .related(cx.origin(kind.span), "type");
            cx.push(diag);
        }
    }
    let own = BODY_FIELDS.iter().zip(written).find(|((name, _), _)| *name == word);
    if let Some(((_, field), None)) = own
        && !broken
        && cx.errors() == errors_before
    {
        let diag = cx
            .error(Rule::MissingField, kind.span, format!("field `{field}` is missing"))
            .label(format!("a filter of type `{word}` needs `{field}`"))
            .fix(format!("add `{field}:`"));
        cx.push(diag);
    }
}

fn check_extension(extension: Option<&LocalRef>, cx: &mut Decoder<'_>) {
    if let Some(reference) = extension
        && (reference.group.as_str() != RHUMB_GROUP || reference.kind.as_str() != "Policy")
    {
        let diag = cx
            .error(
                Rule::NotSupported,
                reference.kind.span,
                format!("a {} cannot be a filter", reference.kind),
            )
            .why("an ExtensionRef names a Policy of group rhumb.dev")
            .fix("write `group: rhumb.dev` and `kind: Policy`");
        cx.push(diag);
    }
}

/// Notes filters that do not go together: each type once, and redirect or rewrite but not both.
pub(crate) fn check_filters(filters: &[HttpFilter], cx: &mut Decoder<'_>) {
    check_unique(
        filters.iter().filter(|filter| {
            !matches!(*filter.kind, HttpFilterKind::ExtensionRef | HttpFilterKind::RequestMirror)
        }),
        "filter",
        |filter| (*filter.kind, filter.kind.word().to_owned(), filter.kind.span),
        cx,
    );
    let of_kind = |kind| filters.iter().find(|filter| *filter.kind == kind);
    if let (Some(redirect), Some(rewrite)) =
        (of_kind(HttpFilterKind::RequestRedirect), of_kind(HttpFilterKind::UrlRewrite))
    {
        let diag = cx
            .error(Rule::Conflict, rewrite.kind.span, "a redirect and a rewrite in one place")
            .why("a redirected request goes to no backend, so nothing is left to rewrite")
            .fix("remove one of them")
            .related(cx.origin(redirect.kind.span), "redirect");
        cx.push(diag);
    }
}

object! {
    /// One step that requests of a GRPCRoute take. `type` says which field has its settings.
    pub struct GrpcFilter as "a filter" {
        /// What it does.
        "type" kind: Spanned<GrpcFilterKind>,
        /// Sets, adds and removes fields of the request.
        "requestHeaderModifier" request_header_modifier: Option<Box<HeaderModifier>>,
        /// Sets, adds and removes fields of the response.
        "responseHeaderModifier" response_header_modifier: Option<Box<HeaderModifier>>,
        /// A Policy of ours.
        "extensionRef" extension_ref: Option<Box<LocalRef>>,
        /// Sends a copy of the request to another backend, whose answers are dropped. May be repeated.
        "requestMirror" request_mirror: Option<Box<RequestMirror>>,
    }
    check GrpcFilter::check;
}

choice! {
    /// What a filter of a GRPCRoute does.
    pub enum GrpcFilterKind as "filter type" {
        /// Sets, adds and removes fields of the request.
        RequestHeaderModifier = "RequestHeaderModifier",
        /// Sets, adds and removes fields of the response.
        ResponseHeaderModifier = "ResponseHeaderModifier",
        /// A Policy of ours.
        ExtensionRef = "ExtensionRef",
        /// Sends a copy of the request to another backend.
        RequestMirror = "RequestMirror",
    }
}

impl GrpcFilter {
    /// The filter with its settings; nothing when they could not be read.
    pub fn action(&self) -> Option<FilterAction<'_>> {
        Some(match *self.kind {
            GrpcFilterKind::RequestHeaderModifier => {
                FilterAction::RequestHeaders(self.request_header_modifier.as_deref()?)
            }
            GrpcFilterKind::ResponseHeaderModifier => {
                FilterAction::ResponseHeaders(self.response_header_modifier.as_deref()?)
            }
            GrpcFilterKind::ExtensionRef => FilterAction::Extension(self.extension_ref.as_deref()?),
            GrpcFilterKind::RequestMirror => FilterAction::Mirror(self.request_mirror.as_deref()?),
        })
    }

    fn check(&self, cx: &mut Decoder<'_>) {
        let written = [
            self.request_header_modifier.as_ref().map(|body| body.span),
            self.response_header_modifier.as_ref().map(|body| body.span),
            None,
            None,
            None,
            self.extension_ref.as_ref().map(|body| body.span),
            self.request_mirror.as_ref().map(|body| body.span),
        ];
        check_bodies(&self.kind, self.kind.word(), &written, self.broken, cx);
        check_extension(self.extension_ref.as_deref(), cx);
    }
}

object! {
    /// Sends a copy of requests to another backend and drops its answers. Gateway API `HTTPRequestMirrorFilter`.
    pub struct RequestMirror as "a mirror" {
        /// Where copies go.
        "backendRef" backend_ref: MirrorRef,
        /// How many requests. Unit: percent. Default: 100.
        "percent" percent: Option<Spanned<Whole<0, 100>>>,
        /// How many requests, more finely.
        "fraction" fraction: Option<Fraction>,
    }
    check RequestMirror::check;
}

impl RequestMirror {
    fn check(&self, cx: &mut Decoder<'_>) {
        if let (Some(percent), Some(fraction)) = (&self.percent, &self.fraction) {
            let diag = cx
                .error(Rule::Conflict, fraction.span, "both `percent` and `fraction`")
                .fix("keep one of them")
                .related(cx.origin(percent.span), "percent");
            cx.push(diag);
        }
    }
}

object! {
    /// The backend that copies go to.
    pub struct MirrorRef as "a backendRef" {
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
    }
    check MirrorRef::check;
}

impl MirrorRef {
    fn check(&self, cx: &mut Decoder<'_>) {
        check_backend_kind(&self.group, &self.kind, &self.name, self.port.as_ref(), cx);
    }
}

object! {
    /// A share: numerator over denominator.
    pub struct Fraction as "a fraction" {
        /// So many of `denominator`.
        "numerator" numerator: Spanned<Whole<0, 2147483647>>,
        /// Default: 100.
        "denominator" denominator: Spanned<Whole<1, 2147483647>> = |span| Spanned::new(Whole::literal(100), span),
    }
    check Fraction::check;
}

impl Fraction {
    fn check(&self, cx: &mut Decoder<'_>) {
        if self.numerator.get() > self.denominator.get() {
            let what = format!("{} of {} is more than all", self.numerator.get(), self.denominator.get());
            let diag = cx
                .error(Rule::OutOfRange, self.numerator.span, what)
                .why("a fraction is at most 1")
                .related(cx.origin(self.denominator.span), "denominator");
            cx.push(diag);
        }
    }
}

object! {
    /// Changes fields of a message.
    pub struct HeaderModifier as "a header modifier" {
        /// Fields that get exactly this value, whatever they had.
        "set" set: List<HeaderValue, 0, 16>,
        /// Field values added to those that are there.
        "add" add: List<HeaderValue, 0, 16>,
        /// Fields to remove.
        "remove" remove: List<Spanned<FieldName>, 0, 16>,
    }
    check HeaderModifier::check;
}

object! {
    /// A field and its value.
    pub struct HeaderValue as "a header" {
        /// Name of the field.
        "name" name: Spanned<FieldName>,
        /// Value of the field.
        "value" value: Spanned<FieldValue>,
    }
}

/// Fields that concern one connection or the framing: only the proxy itself may write them (RFC 9110 §7.6.1).
const FRAMING_FIELDS: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl HeaderModifier {
    fn check(&self, cx: &mut Decoder<'_>) {
        let mut all = Vec::new();
        all.extend(self.set.iter().map(|header| &header.name));
        all.extend(self.add.iter().map(|header| &header.name));
        all.extend(self.remove.iter());
        for name in &all {
            if FRAMING_FIELDS.contains(&name.as_str()) {
                let diag = cx
                    .error(Rule::Conflict, name.span, format!("field `{name}` cannot be changed"))
                    .why("it belongs to one connection or to the framing of the message (RFC 9110 §7.6.1)");
                cx.push(diag);
            }
        }
        check_unique(all, "field", |name| (name.as_str(), name.to_string(), name.span), cx);
    }
}

object! {
    /// Answers with a redirect. What is not written stays as in the request.
    pub struct RequestRedirect as "a redirect" {
        /// `http` or `https`.
        "scheme" scheme: Option<Spanned<RedirectScheme>>,
        /// The hostname of the new location.
        "hostname" hostname: Option<Spanned<PreciseHostname>>,
        /// The path of the new location.
        "path" path: Option<PathModifier>,
        /// The port of the new location. Default: that of `scheme` when it is written, else the listener's.
        "port" port: Option<Spanned<Port>>,
        /// 301, 302, 303, 307 or 308. Default: 302.
        "statusCode" status: Spanned<Whole<100, 599>> = |span| Spanned::new(Whole::literal(302), span),
    }
    check RequestRedirect::check;
}

impl RequestRedirect {
    fn check(&self, cx: &mut Decoder<'_>) {
        if !matches!(self.status.get(), 301 | 302 | 303 | 307 | 308) {
            let diag = cx
                .error(Rule::UnknownValue, self.status.span, format!("{} is no redirect", self.status.get()))
                .why("allowed: 301, 302, 303, 307, 308 (RFC 9110 §15.4)");
            cx.push(diag);
        }
    }
}

choice! {
    /// The scheme of a redirect.
    pub enum RedirectScheme as "scheme" {
        /// Not encrypted.
        Http = "http",
        /// Encrypted.
        Https = "https",
    }
}

object! {
    /// Changes hostname and path before the request goes to the backend.
    pub struct UrlRewrite as "a rewrite" {
        /// The value of `Host` or `:authority`.
        "hostname" hostname: Option<Spanned<PreciseHostname>>,
        /// The path.
        "path" path: Option<PathModifier>,
    }
    check UrlRewrite::check;
}

impl UrlRewrite {
    fn check(&self, cx: &mut Decoder<'_>) {
        if self.hostname.is_none() && self.path.is_none() && !self.broken {
            let diag = cx
                .error(Rule::MissingField, self.span, "the rewrite changes nothing")
                .fix("add `hostname` or `path`");
            cx.push(diag);
        }
    }
}

object! {
    /// A new path: whole, or for the prefix that the rule matched.
    pub struct PathModifier as "a path modifier" {
        /// ReplaceFullPath or ReplacePrefixMatch.
        "type" kind: Spanned<PathModifierKind>,
        /// The whole new path.
        "replaceFullPath" replace_full_path: Option<Spanned<PathText>>,
        /// What replaces the prefix that the rule matched: with `/v2` a rule of prefix `/api` makes `/v2/x` of `/api/x`.
        "replacePrefixMatch" replace_prefix_match: Option<Spanned<PathOrEmpty>>,
    }
    check PathModifier::check;
}

choice! {
    /// Which part of a path is replaced.
    pub enum PathModifierKind as "path modifier type" {
        /// All of it.
        ReplaceFullPath = "ReplaceFullPath",
        /// The prefix that the rule matched.
        ReplacePrefixMatch = "ReplacePrefixMatch",
    }
}

crate::decode::text! {
    /// A path, or nothing: an empty replacement removes the prefix.
    pub struct PathOrEmpty(Box<str>) as "path";
    parse parse_path_or_empty;
    schema { "pattern": "^(/.*)?$", "maxLength": 1024 }
}

fn parse_path_or_empty(text: &str) -> Result<Box<str>, crate::decode::Complaint> {
    if text.is_empty() { Ok(text.into()) } else { PathText::parse(text).map(|path| path.as_str().into()) }
}

impl PathOrEmpty {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PathModifier {
    fn check(&self, cx: &mut Decoder<'_>) {
        let full = self.replace_full_path.as_ref().map(|path| path.span);
        let prefix = self.replace_prefix_match.as_ref().map(|path| path.span);
        let (own, own_name, other, other_name) = match *self.kind {
            PathModifierKind::ReplaceFullPath => (full, "replaceFullPath", prefix, "replacePrefixMatch"),
            PathModifierKind::ReplacePrefixMatch => (prefix, "replacePrefixMatch", full, "replaceFullPath"),
        };
        if let Some(span) = other {
            let diag = cx
                .error(Rule::Conflict, span, format!("`{other_name}` with type `{}`", self.kind.word()))
                .fix(format!("write `{own_name}`, or change `type`"))
                .related(cx.origin(self.kind.span), "type");
            cx.push(diag);
        } else if own.is_none() && !self.broken {
            let diag = cx
                .error(Rule::MissingField, self.kind.span, format!("field `{own_name}` is missing"))
                .fix(format!("add `{own_name}:`"));
            cx.push(diag);
        }
    }
}

object! {
    /// Cross-origin resource sharing (Fetch standard; GEP-1767).
    pub struct CorsFilter as "the cors of a filter" {
        /// Origins that may read responses: `https://example.com`, `https://*.example.com` or `*`.
        "allowOrigins" allow_origins: List<Spanned<Box<str>>, 0, 64>,
        /// Whether browsers may send cookies and credentials. Default: no.
        "allowCredentials" allow_credentials: Option<Spanned<bool>>,
        /// Methods that may be used, or `*`.
        "allowMethods" allow_methods: List<Spanned<CorsMethod>, 0, 9>,
        /// Request fields that may be used, or `*`.
        "allowHeaders" allow_headers: List<Spanned<FieldName>, 0, 64>,
        /// Response fields that scripts may read, or `*`.
        "exposeHeaders" expose_headers: List<Spanned<FieldName>, 0, 64>,
        /// How long browsers may remember the answer to a preflight. Unit: seconds. Default: 5.
        "maxAge" max_age: Spanned<Whole<1, 2147483647>> = |span| Spanned::new(Whole::literal(5), span),
    }
    check CorsFilter::check;
}

choice! {
    /// A method of cross-origin requests.
    pub enum CorsMethod as "method" {
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
        /// Every method.
        Any = "*",
    }
}

impl CorsFilter {
    fn check(&self, cx: &mut Decoder<'_>) {
        for origin in &self.allow_origins {
            if let Err(why) = check_origin(origin) {
                let diag = cx
                    .error(Rule::BadValue, origin.span, format!("`{origin}` is not an origin"))
                    .why(why)
                    .fix("write scheme and host, such as `https://example.com`, or `*`");
                cx.push(diag);
            }
        }
        let mut alone = |any: Option<Span>, count: usize, name: &str| {
            if let Some(span) = any
                && count > 1
            {
                let diag = cx
                    .error(Rule::Conflict, span, format!("`*` beside other values of `{name}`"))
                    .why("`*` allows all: the others mean nothing")
                    .fix("write `*` alone, or remove it");
                cx.push(diag);
            }
        };
        let any = self.allow_origins.iter().find(|origin| &*origin.value == "*").map(|origin| origin.span);
        alone(any, self.allow_origins.len(), "allowOrigins");
        let any = self.allow_methods.iter().find(|method| method.value == CorsMethod::Any).map(|m| m.span);
        alone(any, self.allow_methods.len(), "allowMethods");
        let any = self.allow_headers.iter().find(|name| name.as_str() == "*").map(|name| name.span);
        alone(any, self.allow_headers.len(), "allowHeaders");
    }
}

/// Checks `scheme://host[:port]`, `scheme://*.host` or `*`.
fn check_origin(text: &str) -> Result<(), &'static str> {
    if text == "*" {
        return Ok(());
    }
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .ok_or("an origin starts with `https://` or `http://`")?;
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (rest, None),
    };
    if rest.contains('/') {
        return Err("an origin has no path and no slash at its end");
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("the port is from 1 to 65535");
    }
    let host = host.strip_prefix("*.").unwrap_or(host);
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if host == "*" || host.split('.').all(is_label) {
        Ok(())
    } else {
        Err("the host is a name, or `*.` and a name")
    }
}
