//! Matches and filters of rules in the engine's terms.

use rhumb_codec::field::FieldName;
use rhumb_codec::head::Method;
use rhumb_model::kind::filter::{
    CorsFilter, FilterAction, HeaderModifier, HeaderValue, PathModifier, RequestRedirect, UrlRewrite,
};
use rhumb_model::kind::grpc_route::GrpcMatch;
use rhumb_model::kind::http_route::{
    CookieMatch, HeaderMatch, HttpMatch, PathMatchKind, QueryMatch, TextMatchKind,
};
use rhumb_model::kind::refs::LocalRef;
use rhumb_model::{Diag, Doc, Rule, Span, Spanned};
use rhumb_route::RequestMatch;
use rhumb_route::field::{self, FieldMatch, ValueMatch};
use rhumb_route::path::{GrpcMatchType, PathMatch};
use rhumb_route::pattern::Pattern;
use serde_json::{Map, Value, json};

use crate::report::Report;

/// One match of an HTTPRoute; nothing when it cannot be given, which is said.
pub(crate) fn http(doc: &Doc, written: &HttpMatch, report: &mut Report) -> Option<RequestMatch> {
    let value = &written.path.value;
    let path = match *written.path.kind {
        PathMatchKind::Exact => PathMatch::exact(value),
        PathMatchKind::PathPrefix => PathMatch::prefix(value),
        PathMatchKind::RegularExpression => PathMatch::pattern(value),
    };
    let path = path.map_err(|error| report.push(mistake(doc, value.span, &error))).ok();
    let method = written.method.as_ref().map(|method| Method::of(method.word().as_bytes()));
    let mut fields = fields(doc, &written.headers, report);
    for one in written.cookies.iter() {
        let cookie = cookie(doc, one, report);
        fields = fields.zip(cookie).map(|(mut fields, cookie)| {
            fields.push(cookie);
            fields
        });
    }
    let query =
        written.query_params.iter().map(|parameter| query(doc, parameter, report)).collect::<Vec<_>>();
    let query = query.into_iter().collect::<Option<_>>();
    RequestMatch::new(path?, method, fields?, query?)
        .map_err(|error| report.push(mistake(doc, written.span, &error)))
        .ok()
}

/// One match of a GRPCRoute; nothing when it cannot be given, which is said.
pub(crate) fn grpc(doc: &Doc, written: &GrpcMatch, report: &mut Report) -> Option<RequestMatch> {
    let path = match &written.method {
        None => Some(PathMatch::grpc_any()),
        Some(method) => {
            let kind = match *method.kind {
                TextMatchKind::Exact => GrpcMatchType::Exact,
                TextMatchKind::RegularExpression => GrpcMatchType::RegularExpression,
            };
            let text = |text: &Option<Spanned<Box<str>>>| text.as_ref().map(|text| text.value.to_string());
            PathMatch::grpc(kind, text(&method.service).as_deref(), text(&method.method).as_deref())
                .map_err(|error| {
                    let is_wrong = |text: &&Spanned<Box<str>>| Pattern::parse(text).is_err();
                    let wrong = [&method.service, &method.method].into_iter().flatten().find(is_wrong);
                    let span = wrong.map_or(method.span, |text| text.span);
                    report.push(mistake(doc, span, &error));
                })
                .ok()
        }
    };
    let fields = fields(doc, &written.headers, report);
    RequestMatch::new(path?, None, fields?, Vec::new())
        .map_err(|error| report.push(mistake(doc, written.span, &error)))
        .ok()
}

fn fields(doc: &Doc, headers: &[HeaderMatch], report: &mut Report) -> Option<Vec<FieldMatch>> {
    let all: Vec<_> = headers.iter().map(|header| field(doc, header, report)).collect();
    all.into_iter().collect()
}

fn field(doc: &Doc, header: &HeaderMatch, report: &mut Report) -> Option<FieldMatch> {
    let value = value(doc, *header.kind, &header.value, report)?;
    let name = FieldName::parse(header.name.as_str().as_bytes())
        .map_err(|error| report.push(mistake(doc, header.name.span, &error)))
        .ok()?;
    FieldMatch::new(name, value).map_err(|error| report.push(mistake(doc, header.name.span, &error))).ok()
}

fn cookie(doc: &Doc, cookie: &CookieMatch, report: &mut Report) -> Option<FieldMatch> {
    let value = value(doc, *cookie.kind, &cookie.value, report)?;
    Some(FieldMatch::cookie(&cookie.name, value))
}

fn query(doc: &Doc, parameter: &QueryMatch, report: &mut Report) -> Option<field::QueryMatch> {
    let value = value(doc, *parameter.kind, &parameter.value, report)?;
    Some(field::QueryMatch::new(&parameter.name, value))
}

fn value(
    doc: &Doc,
    kind: TextMatchKind,
    text: &Spanned<Box<str>>,
    report: &mut Report,
) -> Option<ValueMatch> {
    match kind {
        TextMatchKind::Exact => Some(ValueMatch::exact(text)),
        TextMatchKind::RegularExpression => {
            ValueMatch::pattern(text).map_err(|error| report.push(mistake(doc, text.span, &error))).ok()
        }
    }
}

fn mistake(doc: &Doc, span: Span, error: &dyn std::error::Error) -> Diag {
    Diag::error(Rule::BadValue, doc.origin(span), error.to_string())
}

/// What a filter asks for.
pub(crate) enum Filter<'f> {
    /// A policy of this kind with this body.
    Policy {
        /// Its kind.
        kind: &'static str,
        /// Its body as it would stand in a Policy.
        body: Value,
    },
    /// A Policy document.
    Extension(&'f LocalRef),
    /// A copy of the requests for another backend, which is no policy.
    Mirror,
}

impl<'f> Filter<'f> {
    /// The filter as a policy.
    pub(crate) fn of(action: FilterAction<'f>) -> Self {
        let (kind, body) = match action {
            FilterAction::RequestHeaders(modifier) => {
                ("headerModifier", json!({ "request": header_modifier(modifier) }))
            }
            FilterAction::ResponseHeaders(modifier) => {
                ("headerModifier", json!({ "response": header_modifier(modifier) }))
            }
            FilterAction::Redirect(filter) => ("redirect", redirect(filter)),
            FilterAction::Rewrite(filter) => ("rewrite", rewrite(filter)),
            FilterAction::Cors(filter) => ("cors", cors(filter)),
            FilterAction::Extension(reference) => return Self::Extension(reference),
            FilterAction::Mirror(_) => return Self::Mirror,
        };
        Self::Policy { kind, body }
    }
}

fn header_modifier(modifier: &HeaderModifier) -> Value {
    let pairs = |pairs: &[HeaderValue]| -> Value {
        let pairs = pairs.iter();
        pairs.map(|pair| json!({ "name": pair.name.as_str(), "value": pair.value.as_str() })).collect()
    };
    json!({
        "set": pairs(&modifier.set),
        "add": pairs(&modifier.add),
        "remove": modifier.remove.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
    })
}

fn redirect(filter: &RequestRedirect) -> Value {
    let mut body = Map::new();
    if let Some(scheme) = &filter.scheme {
        body.insert("scheme".into(), scheme.word().into());
    }
    if let Some(hostname) = &filter.hostname {
        body.insert("hostname".into(), hostname.as_str().into());
    }
    if let Some(path) = &filter.path {
        body.insert("path".into(), path_modifier(path));
    }
    if let Some(port) = &filter.port {
        body.insert("port".into(), port.get().into());
    }
    body.insert("statusCode".into(), filter.status.get().into());
    body.into()
}

fn rewrite(filter: &UrlRewrite) -> Value {
    let mut body = Map::new();
    if let Some(hostname) = &filter.hostname {
        body.insert("hostname".into(), hostname.as_str().into());
    }
    if let Some(path) = &filter.path {
        body.insert("path".into(), path_modifier(path));
    }
    body.into()
}

fn path_modifier(modifier: &PathModifier) -> Value {
    let mut body = Map::new();
    body.insert("type".into(), modifier.kind.word().into());
    if let Some(path) = &modifier.replace_full_path {
        body.insert("replaceFullPath".into(), path.as_str().into());
    }
    if let Some(path) = &modifier.replace_prefix_match {
        body.insert("replacePrefixMatch".into(), path.as_str().into());
    }
    body.into()
}

fn cors(filter: &CorsFilter) -> Value {
    let mut body = json!({
        "allowOrigins": filter.allow_origins.iter().map(|origin| &*origin.value).collect::<Vec<_>>(),
        "allowMethods": filter.allow_methods.iter().map(|method| method.word()).collect::<Vec<_>>(),
        "allowHeaders": filter.allow_headers.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        "exposeHeaders": filter.expose_headers.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        "maxAge": filter.max_age.get(),
    });
    if let (Some(credentials), Some(fields)) = (&filter.allow_credentials, body.as_object_mut()) {
        fields.insert("allowCredentials".into(), credentials.value.into());
    }
    body
}
