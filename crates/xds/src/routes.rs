//! Routes of a Service as gRPC clients know them.
//!
//! They take the first route that matches, so routes are sent in the order in which they win here.

use std::cmp::Reverse;
use std::time::Duration;

use rhumb_base::unit::parse_duration;
use rhumb_model::kind::grpc_route::{GrpcMatch, GrpcRule};
use rhumb_model::kind::http_route::{
    HeaderMatch, HttpMatch, HttpMethod, HttpRule, PathMatchKind, TextMatchKind,
};
use rhumb_model::kind::policy::Policy;
use rhumb_model::kind::refs::ParentRef;
use rhumb_model::{Doc, Spec};
use rhumb_policy::retry::{self, DEFAULT_ATTEMPTS, GrpcCode};
use rhumb_policy::timeouts;
use serde_json::Value;

use crate::bundle::{Bundle, Facts, Why};
use crate::name::ServicePort;
use crate::offer::{Client, is_for, port_spec, reach, refusal};
use crate::wire::{
    Action, ClusterSpecifier, ClusterWeight, Empty, Flag, HeaderMatcher, HeaderSpecifier, MaxStreamDuration,
    Number, PathSpecifier, RegexMatcher, RetryBackOff, RetryPolicy, Route, RouteAction, RouteMatch,
    VirtualHost, WeightedCluster,
};

/// The group of routes, in references.
const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// How much longer than the first the longest wait before a retry is, when nothing is written.
const BACK_OFF_FACTOR: u32 = 10;

/// True for kinds of policies that a gRPC client obeys itself. Spans of `tracing` are the application's own.
pub(crate) fn can_obey(kind: &str) -> bool {
    matches!(kind, "timeouts" | "retry" | "tracing")
}

/// What rules say about time and repetition.
#[derive(Clone, Default)]
struct Manners {
    limits: [Option<Duration>; 2],
    retry: Option<RetryPolicy>,
}

/// The place of a match among the others; the least wins.
type Order = (Reverse<(u8, usize)>, bool, Reverse<usize>, Option<Box<str>>, String, usize);

/// The routes of a port.
pub(crate) fn virtual_host(
    facts: &mut Facts,
    client: &Client,
    port: &ServicePort,
    bundle: &Bundle,
) -> Result<VirtualHost, Why> {
    let mut manners = Manners::default();
    if let Some((service, spec)) = port_spec(bundle, port) {
        for (doc, policy) in policies(bundle, &port.namespace) {
            if is_for(policy, service, spec) {
                manners = manners.with(doc, policy)?;
            }
        }
    }
    let mut found: Vec<(Order, Route)> = Vec::new();
    let mut has_routes = false;
    for doc in &bundle.documents {
        let (parents, hostnames) = match &doc.spec {
            Spec::HttpRoute(route) => (&*route.parent_refs, route.hostnames.is_empty()),
            Spec::GrpcRoute(route) => (&*route.parent_refs, route.hostnames.is_empty()),
            _ => continue,
        };
        // One of another namespace holds for callers of its own.
        let is_heard = doc.namespace() == port.namespace || doc.namespace() == client.namespace;
        if !is_heard || !parents.iter().any(|parent| is_parent(parent, doc, port)) {
            continue;
        }
        has_routes = true;
        let unreadable =
            |what: &str| Why::Refused(format!("{} {}/{} {what}", doc.id.kind, doc.namespace(), doc.name()));
        if doc.broken {
            return Err(unreadable("has mistakes"));
        }
        if !hostnames {
            return Err(unreadable("has hostnames, which calls without a proxy are not compared with"));
        }
        let by_route = {
            let mut manners = manners.clone();
            for (policy_doc, policy) in policies(bundle, doc.namespace()) {
                if is_target(policy, doc, None) {
                    manners = manners.with_all(policy_doc, policy)?;
                }
            }
            manners
        };
        let rules = match &doc.spec {
            Spec::HttpRoute(route) => route.rules.iter().map(|rule| Rule::of_http(doc, rule)).collect(),
            Spec::GrpcRoute(route) => route.rules.iter().map(|rule| Rule::of_grpc(doc, rule)).collect(),
            _ => Vec::new(),
        };
        // A route without rules sends nothing anywhere.
        for (place, rule) in rules.into_iter().enumerate() {
            let rule = rule?;
            let mut manners = by_route.clone();
            for (policy_doc, policy) in policies(bundle, doc.namespace()) {
                let is_named = rule.name.as_deref().is_some_and(|name| is_target(policy, doc, Some(name)));
                let is_extension = policy_doc.namespace() == doc.namespace()
                    && rule.extensions.iter().any(|name| **name == *policy_doc.name());
                if is_named || is_extension {
                    manners = manners.with_all(policy_doc, policy)?;
                }
            }
            manners = manners.or_written(rule.limit, rule.retry.clone());
            let action = action(facts, client, bundle, doc, &rule, &manners)?;
            for (rank, r#match) in rule.matches {
                let fields = r#match.headers.len();
                let order = (
                    Reverse(rank.path),
                    !rank.has_method,
                    Reverse(fields),
                    doc.created.clone(),
                    format!("{}/{}", doc.namespace(), doc.name()),
                    place,
                );
                let name = format!("{}/{}/{place}", doc.namespace(), doc.name());
                found.push((order, Route { r#match: Some(r#match), action: Some(action.clone()), name }));
            }
        }
    }
    let domains = vec!["*".to_owned()];
    let name = port.to_string();
    if has_routes {
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let routes = found.into_iter().map(|(_, route)| route).collect();
        return Ok(VirtualHost { name, domains, routes });
    }
    let cluster = reach(facts, client, port)?.server_name;
    let action = manners.action(Some(ClusterSpecifier::Cluster(cluster)));
    let every = RouteMatch { path: Some(PathSpecifier::Prefix(String::new())), headers: Vec::new() };
    let route = Route { r#match: Some(every), action: Some(action), name: "default".to_owned() };
    Ok(VirtualHost { name, domains, routes: vec![route] })
}

fn policies<'b>(bundle: &'b Bundle, namespace: &str) -> impl Iterator<Item = (&'b Doc, &'b Policy)> {
    let all = bundle.documents.iter().filter(move |doc| doc.namespace() == namespace);
    all.filter_map(|doc| match &doc.spec {
        Spec::Policy(policy) => Some((&**doc, &**policy)),
        _ => None,
    })
}

fn is_parent(parent: &ParentRef, route: &Doc, port: &ServicePort) -> bool {
    let namespace =
        parent.namespace.as_ref().map_or_else(|| route.namespace(), |namespace| namespace.as_str());
    parent.is_service()
        && namespace == port.namespace
        && parent.name.as_str() == port.service
        && parent.port.as_ref().is_none_or(|number| number.number() == port.port)
}

/// True for a Policy that is attached to a route, or to one of its rules.
fn is_target(policy: &Policy, route: &Doc, rule: Option<&str>) -> bool {
    policy.target_refs.iter().any(|target| {
        *target.kind.as_str() == *route.id.kind
            && target.name.as_str() == route.name()
            && target.section_name.as_ref().map(|name| name.as_str()) == rule
    })
}

/// Where the requests of a rule go.
fn action(
    facts: &mut Facts,
    client: &Client,
    bundle: &Bundle,
    doc: &Doc,
    rule: &Rule,
    manners: &Manners,
) -> Result<Action, Why> {
    let mut clusters = Vec::new();
    for backend in &rule.backends {
        if backend.to.namespace != doc.namespace() && !is_granted(bundle, doc, &backend.to) {
            return Err(Why::Refused(format!(
                "{} {}/{} may not refer to Service {}: no ReferenceGrant there allows it",
                doc.id.kind,
                doc.namespace(),
                doc.name(),
                backend.to.path()
            )));
        }
        let name = match reach(facts, client, &backend.to) {
            Ok(reach) => reach.server_name,
            Err(Why::Absent(why)) => return Err(Why::Refused(why)),
            Err(why) => return Err(why),
        };
        if backend.weight > 0 {
            clusters.push(ClusterWeight { name, weight: Some(Number { value: backend.weight }) });
        }
    }
    Ok(match clusters.len() {
        0 => Action::None(Empty {}),
        1 => manners.action(clusters.pop().map(|cluster| ClusterSpecifier::Cluster(cluster.name))),
        _ => manners.action(Some(ClusterSpecifier::Weighted(WeightedCluster { clusters }))),
    })
}

fn is_granted(bundle: &Bundle, from: &Doc, to: &ServicePort) -> bool {
    bundle.documents.iter().any(|doc| match &doc.spec {
        Spec::ReferenceGrant(grant) => {
            doc.namespace() == to.namespace
                && grant
                    .allows((GATEWAY_GROUP, &from.id.kind, from.namespace()), ("", "Service", &to.service))
        }
        _ => false,
    })
}

/// How particular a match is.
#[derive(Clone, Copy)]
struct Rank {
    /// By kind and length of its path.
    path: (u8, usize),
    has_method: bool,
}

struct Backend {
    to: ServicePort,
    weight: u32,
}

/// A rule of either kind of route.
struct Rule {
    name: Option<String>,
    matches: Vec<(Rank, RouteMatch)>,
    backends: Vec<Backend>,
    extensions: Vec<String>,
    limit: Option<Duration>,
    retry: Option<RetryPolicy>,
}

impl Rule {
    fn of_http(doc: &Doc, rule: &HttpRule) -> Result<Self, Why> {
        let about = "this route";
        if rule.session_persistence.is_some() {
            return Err(refusal("sessionPersistence", doc, about));
        }
        let mut extensions = Vec::new();
        for filter in rule.filters.iter() {
            match &filter.extension_ref {
                Some(reference) if reference.kind.as_str() == "Policy" => {
                    extensions.push(reference.name.as_str().to_owned());
                }
                _ => return Err(refusal(filter.kind.word(), doc, about)),
            }
        }
        let mut backends = Vec::new();
        for backend in rule.backend_refs.iter() {
            if let Some(filter) = backend.filters.first() {
                return Err(refusal(filter.kind.word(), doc, about));
            }
            let (kind, port) = (backend.kind.as_str(), backend.port.as_ref().map(|port| port.number()));
            let namespace = backend.namespace.as_ref().map(|namespace| namespace.as_str());
            backends.push(of_backend(
                doc,
                kind,
                namespace,
                backend.name.as_str(),
                port,
                backend.weight.get(),
            )?);
        }
        let mut limit = None;
        if let Some(timeouts) = &rule.timeouts {
            if timeouts.backend_request.is_some() {
                return Err(refusal("timeouts.backendRequest", doc, about));
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
                return Err(refusal("cookies", doc, about));
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
        let name = rule.name.as_ref().map(|name| name.as_str().to_owned());
        Ok(Self { name, matches, backends, extensions, limit, retry })
    }

    fn of_grpc(doc: &Doc, rule: &GrpcRule) -> Result<Self, Why> {
        let about = "this route";
        if rule.session_persistence.is_some() {
            return Err(refusal("sessionPersistence", doc, about));
        }
        let mut extensions = Vec::new();
        for filter in rule.filters.iter() {
            match &filter.extension_ref {
                Some(reference) if reference.kind.as_str() == "Policy" => {
                    extensions.push(reference.name.as_str().to_owned());
                }
                _ => return Err(refusal(filter.kind.word(), doc, about)),
            }
        }
        let mut backends = Vec::new();
        for backend in rule.backend_refs.iter() {
            if let Some(filter) = backend.filters.first() {
                return Err(refusal(filter.kind.word(), doc, about));
            }
            let (kind, port) = (backend.kind.as_str(), backend.port.as_ref().map(|port| port.number()));
            let namespace = backend.namespace.as_ref().map(|namespace| namespace.as_str());
            backends.push(of_backend(
                doc,
                kind,
                namespace,
                backend.name.as_str(),
                port,
                backend.weight.get(),
            )?);
        }
        let mut matches = Vec::new();
        for written in rule.matches.iter() {
            matches.push(of_grpc_match(doc, written)?);
        }
        if rule.matches.is_empty() {
            matches.push(every());
        }
        let name = rule.name.as_ref().map(|name| name.as_str().to_owned());
        Ok(Self { name, matches, backends, extensions, limit: None, retry: None })
    }
}

fn of_backend(
    doc: &Doc,
    kind: &str,
    namespace: Option<&str>,
    name: &str,
    port: Option<u16>,
    weight: i64,
) -> Result<Backend, Why> {
    let (Some(port), "Service") = (port, kind) else {
        return Err(refusal(&format!("backendRef to a {kind}"), doc, "this route"));
    };
    let namespace = namespace.unwrap_or_else(|| doc.namespace()).to_owned();
    let to = ServicePort { namespace, service: name.to_owned(), port };
    Ok(Backend { to, weight: u32::try_from(weight).unwrap_or_default() })
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
            return Err(refusal(&format!("a match on `{name}`"), doc, "this route"));
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

impl Manners {
    /// With a Policy that is attached to the Service: its other parts are enforced there.
    fn with(mut self, doc: &Doc, policy: &Policy) -> Result<Self, Why> {
        for (kind, body) in &policy.policies.entries {
            self = self.one(doc, &kind.value, &body.to_json())?;
        }
        Ok(self)
    }

    /// With a Policy that the client alone would have to enforce.
    fn with_all(self, doc: &Doc, policy: &Policy) -> Result<Self, Why> {
        match policy.policies.entries.iter().find(|(kind, _)| !can_obey(kind)) {
            Some((kind, _)) => Err(refusal(kind, doc, "this route")),
            None => self.with(doc, policy),
        }
    }

    fn one(mut self, doc: &Doc, kind: &str, body: &Value) -> Result<Self, Why> {
        let cannot = |what: &str| refusal(&format!("{kind}.{what}"), doc, "it");
        let unreadable = || refusal(kind, doc, "it");
        match kind {
            "timeouts" => {
                let spec: timeouts::Spec = serde_json::from_value(body.clone()).map_err(|_| unreadable())?;
                for (field, value) in [
                    ("backendRequest", &spec.backend_request),
                    ("connect", &spec.connect),
                    ("idle", &spec.idle),
                ] {
                    if value.is_some() {
                        return Err(cannot(field));
                    }
                }
                let read = |text: &Option<String>| text.as_deref().map(parse_duration).transpose();
                let request = read(&spec.request).map_err(|_| unreadable())?;
                let stream = read(&spec.stream).map_err(|_| unreadable())?;
                self.limits = [request.or(self.limits[0]), stream.or(self.limits[1])];
            }
            "retry" => {
                let spec: retry::Spec = serde_json::from_value(body.clone()).map_err(|_| unreadable())?;
                if spec.per_try_timeout.is_some() {
                    return Err(cannot("perTryTimeout"));
                }
                let read = |text: Option<&String>| text.map(|text| parse_duration(text)).transpose();
                let back_off = spec.back_off.as_ref();
                let base =
                    read(back_off.and_then(|written| written.base.as_ref())).map_err(|_| unreadable())?;
                let most =
                    read(back_off.and_then(|written| written.max.as_ref())).map_err(|_| unreadable())?;
                let attempts = spec.attempts.map(u32::from);
                self.retry = retry_policy(doc, &spec.grpc_codes, &spec.codes, attempts, base, most)?;
            }
            _ => {}
        }
        Ok(self)
    }

    /// With what the rule itself says, which goes first.
    fn or_written(mut self, limit: Option<Duration>, retry: Option<RetryPolicy>) -> Self {
        self.limits[0] = limit.or(self.limits[0]);
        self.retry = retry.or(self.retry);
        self
    }

    fn action(&self, cluster: Option<ClusterSpecifier>) -> Action {
        // Zero is no limit.
        let limit = self.limits.iter().flatten().filter(|limit| !limit.is_zero()).min();
        Action::Route(RouteAction {
            cluster,
            auto_host_rewrite: Some(Flag { value: true }),
            retry_policy: self.retry.clone(),
            max_stream_duration: limit
                .map(|limit| MaxStreamDuration { max_stream_duration: Some((*limit).into()) }),
        })
    }
}

/// When a call is repeated; never when no status is named, for what never left a client is repeated by itself.
fn retry_policy(
    doc: &Doc,
    grpc: &[GrpcCode],
    http: &[u16],
    attempts: Option<u32>,
    base: Option<Duration>,
    most: Option<Duration>,
) -> Result<Option<RetryPolicy>, Why> {
    let mut words: Vec<&str> = Vec::new();
    for code in grpc {
        words.push(match code {
            GrpcCode::Cancelled => "cancelled",
            GrpcCode::DeadlineExceeded => "deadline-exceeded",
            GrpcCode::Internal => "internal",
            GrpcCode::ResourceExhausted => "resource-exhausted",
            GrpcCode::Unavailable => "unavailable",
            _ => return Err(refusal(&format!("a retry after {code:?}"), doc, "it")),
        });
    }
    for code in http {
        // What these are to a gRPC client (gRPC, "HTTP to gRPC Status Code Mapping").
        match code {
            429 | 502 | 503 | 504 => words.push("unavailable"),
            _ => return Err(refusal(&format!("a retry after {code}"), doc, "it")),
        }
    }
    words.sort_unstable();
    words.dedup();
    let attempts = attempts.unwrap_or_else(|| DEFAULT_ATTEMPTS.into());
    if words.is_empty() || attempts == 0 {
        return Ok(None);
    }
    let base = base.unwrap_or(retry::DEFAULT_BACK_OFF_BASE).max(Duration::from_millis(1));
    let most = most.unwrap_or_else(|| base.saturating_mul(BACK_OFF_FACTOR)).max(base);
    let wait = RetryBackOff { base_interval: Some(base.into()), max_interval: Some(most.into()) };
    Ok(Some(RetryPolicy {
        retry_on: words.join(","),
        num_retries: Some(Number { value: attempts }),
        retry_back_off: Some(wait),
    }))
}
