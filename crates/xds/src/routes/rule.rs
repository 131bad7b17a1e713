//! Rules of routes: those of an HTTPRoute and of a GRPCRoute say most things in the same words.

use std::time::Duration;

use rhumb_model::kind::backend_ref::BackendTarget;
use rhumb_model::kind::grpc_route::{GrpcMatch, GrpcRule};
use rhumb_model::kind::http_route::{
    HeaderMatch, HttpMatch, HttpMethod, HttpRule, PathMatchKind, TextMatchKind,
};
use rhumb_model::kind::refs::LocalRef;
use rhumb_model::scalar::Name;
use rhumb_model::{Doc, Spanned};

use super::manners::retry_policy;
use crate::bundle::Why;
use crate::name::ServicePort;
use crate::offer::refusal;
use crate::wire::{HeaderMatcher, HeaderSpecifier, PathSpecifier, RegexMatcher, RetryPolicy, RouteMatch};

/// What is refused of a rule is refused of its route.
const ABOUT: &str = "this route";

/// How particular a match is.
#[derive(Clone, Copy)]
pub(super) struct Rank {
    /// By kind and length of its path.
    pub(super) path: (u8, usize),
    pub(super) has_method: bool,
}

pub(super) struct Backend {
    pub(super) to: ServicePort,
    pub(super) weight: u32,
}

/// A rule of either kind of route.
pub(super) struct Rule {
    pub(super) name: Option<String>,
    pub(super) matches: Vec<(Rank, RouteMatch)>,
    pub(super) backends: Vec<Backend>,
    /// Policies that its filters name.
    pub(super) extensions: Vec<String>,
    pub(super) limit: Option<Duration>,
    pub(super) retry: Option<RetryPolicy>,
}

impl Rule {
    pub(super) fn of_http(doc: &Doc, rule: &HttpRule) -> Result<Self, Why> {
        let filters = rule.filters.iter().map(|filter| (filter.kind.word(), filter.extension_ref.as_deref()));
        let backends = rule.backend_refs.iter().map(|backend| {
            let filter = backend.filters.first().map(|filter| filter.kind.word());
            of_backend(doc, backend.target(), filter)
        });
        let is_sticky = rule.session_persistence.is_some();
        let of_either = Self::of_either(doc, rule.name.as_ref(), is_sticky, filters, backends)?;
        let mut limit = None;
        if let Some(timeouts) = &rule.timeouts {
            if timeouts.backend_request.is_some() {
                return Err(refusal("timeouts.backendRequest", doc, ABOUT));
            }
            limit = timeouts.request.as_ref().map(|request| request.get());
        }
        let retry = match &rule.retry {
            Some(retry) => {
                let codes: Vec<u16> =
                    retry.codes.iter().filter_map(|code| u16::try_from(code.get()).ok()).collect();
                let attempts = retry.attempts.as_ref().map(|attempts| attempts.get());
                let attempts = attempts.and_then(|attempts| u32::try_from(attempts).ok());
                let base = retry.backoff.as_ref().map(|backoff| backoff.get());
                retry_policy(doc, &[], &codes, attempts, base, None)?
            }
            None => None,
        };
        let mut matches = Vec::new();
        for written in rule.matches.iter() {
            if !written.cookies.is_empty() {
                return Err(refusal("cookies", doc, ABOUT));
            }
            // Calls are POST requests and have no query: such a match never meets one.
            let is_call = written.method.as_ref().is_none_or(|method| method.value == HttpMethod::Post);
            if is_call && written.query_params.is_empty() {
                matches.extend(of_http_match(doc, written)?);
            }
        }
        if rule.matches.is_empty() {
            matches.push(every());
        }
        Ok(Self { matches, limit, retry, ..of_either })
    }

    pub(super) fn of_grpc(doc: &Doc, rule: &GrpcRule) -> Result<Self, Why> {
        let filters = rule.filters.iter().map(|filter| (filter.kind.word(), filter.extension_ref.as_deref()));
        let backends = rule.backend_refs.iter().map(|backend| {
            let filter = backend.filters.first().map(|filter| filter.kind.word());
            of_backend(doc, backend.target(), filter)
        });
        let is_sticky = rule.session_persistence.is_some();
        let of_either = Self::of_either(doc, rule.name.as_ref(), is_sticky, filters, backends)?;
        let mut matches =
            rule.matches.iter().map(|written| of_grpc_match(doc, written)).collect::<Result<Vec<_>, _>>()?;
        if matches.is_empty() {
            matches.push(every());
        }
        Ok(Self { matches, ..of_either })
    }

    /// What rules of both kinds of route say in the same words. A filter is its type and the Policy that it names.
    fn of_either<'d>(
        doc: &Doc,
        name: Option<&Spanned<Name>>,
        is_sticky: bool,
        filters: impl Iterator<Item = (&'static str, Option<&'d LocalRef>)>,
        backends: impl Iterator<Item = Result<Backend, Why>>,
    ) -> Result<Self, Why> {
        if is_sticky {
            return Err(refusal("sessionPersistence", doc, ABOUT));
        }
        let extension = |(word, reference): (&str, Option<&LocalRef>)| match reference {
            Some(reference) if reference.kind.as_str() == "Policy" => Ok(reference.name.as_str().to_owned()),
            _ => Err(refusal(word, doc, ABOUT)),
        };
        Ok(Self {
            name: name.map(|name| name.as_str().to_owned()),
            matches: Vec::new(),
            extensions: filters.map(extension).collect::<Result<_, _>>()?,
            backends: backends.collect::<Result<_, _>>()?,
            limit: None,
            retry: None,
        })
    }
}

/// A backendRef, with the type of the first of its filters.
fn of_backend(doc: &Doc, target: BackendTarget<'_>, filter: Option<&'static str>) -> Result<Backend, Why> {
    if let Some(filter) = filter {
        return Err(refusal(filter, doc, ABOUT));
    }
    let (Some(port), "Service") = (target.port, target.kind.as_str()) else {
        return Err(refusal(&format!("backendRef to a {}", target.kind.as_str()), doc, ABOUT));
    };
    let namespace = target.namespace.map_or_else(|| doc.namespace(), |namespace| namespace.as_str());
    let to = ServicePort {
        namespace: namespace.to_owned(),
        service: target.name.as_str().to_owned(),
        port: port.number(),
    };
    Ok(Backend { to, weight: target.weight })
}

fn every() -> (Rank, RouteMatch) {
    let path = Some(PathSpecifier::Prefix(String::new()));
    (Rank { path: (0, 0), has_method: false }, RouteMatch { path, headers: Vec::new() })
}

/// The kinds of path matches, by what wins.
const PREFIX: u8 = 0;
const REGEX: u8 = 1;
const EXACT: u8 = 2;

fn of_http_match(doc: &Doc, written: &HttpMatch) -> Result<Vec<(Rank, RouteMatch)>, Why> {
    let text = &*written.path.value.value;
    let has_method = written.method.is_some();
    let headers = headers(doc, &written.headers)?;
    let one = |kind: u8, path: PathSpecifier| {
        let rank = Rank { path: (kind, text.len()), has_method };
        (rank, RouteMatch { path: Some(path), headers: headers.clone() })
    };
    Ok(match *written.path.kind {
        PathMatchKind::Exact => vec![one(EXACT, PathSpecifier::Path(text.to_owned()))],
        PathMatchKind::RegularExpression => vec![one(REGEX, PathSpecifier::Regex(regex(text)))],
        // Whole segments: `/a` is `/a` and what begins with `/a/`.
        PathMatchKind::PathPrefix => match text.trim_end_matches('/') {
            "" => vec![one(PREFIX, PathSpecifier::Prefix(String::new()))],
            segments => vec![
                one(PREFIX, PathSpecifier::Path(segments.to_owned())),
                one(PREFIX, PathSpecifier::Prefix(format!("{segments}/"))),
            ],
        },
    })
}

fn of_grpc_match(doc: &Doc, written: &GrpcMatch) -> Result<(Rank, RouteMatch), Why> {
    let headers = headers(doc, &written.headers)?;
    let Some(method) = &written.method else {
        return Ok((every().0, RouteMatch { headers, ..every().1 }));
    };
    let service: Option<&str> = method.service.as_ref().map(|text| &*text.value);
    let name: Option<&str> = method.method.as_ref().map(|text| &*text.value);
    let is_exact = *method.kind == TextMatchKind::Exact;
    let (kind, path) = match (service, name) {
        (Some(service), Some(name)) if is_exact => (EXACT, PathSpecifier::Path(format!("/{service}/{name}"))),
        (Some(service), None) if is_exact => (PREFIX, PathSpecifier::Prefix(format!("/{service}/"))),
        (None, Some(name)) if is_exact => {
            (REGEX, PathSpecifier::Regex(regex(&format!("/[^/]+/{}", escaped(name)))))
        }
        (service, name) => {
            let part =
                |text: Option<&str>| text.map_or_else(|| "[^/]+".to_owned(), |text| format!("(?:{text})"));
            (REGEX, PathSpecifier::Regex(regex(&format!("/{}/{}", part(service), part(name)))))
        }
    };
    let length = service.map_or(0, str::len) + name.map_or(0, str::len);
    Ok((Rank { path: (kind, length), has_method: false }, RouteMatch { path: Some(path), headers }))
}

/// A name of letters, digits, `_` and `.` as an expression.
fn escaped(name: &str) -> String {
    name.replace('.', "\\.")
}

fn regex(text: &str) -> RegexMatcher {
    RegexMatcher { regex: text.to_owned() }
}

fn headers(doc: &Doc, written: &[HeaderMatch]) -> Result<Vec<HeaderMatcher>, Why> {
    let matcher = |header: &HeaderMatch| {
        let name = header.name.as_str().to_ascii_lowercase();
        // What a client's routes do not see: it is added later, or never there as text.
        let is_hidden = matches!(&*name, "authorization" | "user-agent" | "host" | "te" | "cookie")
            || name.ends_with("-bin")
            || name.starts_with("grpc-");
        if is_hidden {
            return Err(refusal(&format!("a match on `{name}`"), doc, ABOUT));
        }
        let value = &*header.value.value;
        let specifier = match *header.kind {
            TextMatchKind::Exact => HeaderSpecifier::Exact(value.to_owned()),
            TextMatchKind::RegularExpression => HeaderSpecifier::Regex(regex(value)),
        };
        Ok(HeaderMatcher { name, specifier: Some(specifier) })
    };
    written.iter().map(matcher).collect()
}
