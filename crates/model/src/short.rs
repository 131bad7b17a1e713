//! The short form: `rhumb.yaml`, enough for a first gateway. It adapts to the documents of [`crate::doc`].
//!
//! | short form | documents |
//! |---|---|
//! | `listeners.NAME` | Gateway NAME with one listener; Secrets of its certificates; ConfigMap of its client CA |
//! | `backends.NAME` | Backend NAME |
//! | `consumers.NAME` | Consumer NAME |
//! | `routes[]` | HTTPRoute, by name or by what it matches; on listeners without requests TCPRoute, TLSRoute or UDPRoute |
//! | `policies` (global, of a listener, backend or route) | Policy that targets the Gateways, Backend or HTTPRoute |
//! | `respond` | `directResponse` in the Policy of the route |
//! | everything else | ProxyConfig `rhumb` |
//!
//! What it passes on unchanged (a backend's settings, retries, policies) is checked as part of the document.

use crate::decode::{Decode, Decoder, Defs, List, Table, choice, nearest, object};
use crate::diag::{Diag, Rule};
use crate::doc::Skip;
use crate::kind::admin::Admin;
use crate::kind::backend::{Backend, Endpoint, TlsVersion};
use crate::kind::backend_traffic::SessionPersistence;
use crate::kind::consumer::Consumer;
use crate::kind::filter::RedirectScheme;
use crate::kind::gateway::Protocol;
use crate::kind::http_route::{HttpMethod, HttpRetry, HttpTimeouts};
use crate::kind::proxy_config::{AccessLog, ClientTimeouts, Limits, Overload, Paths};
use crate::kind::secret::SecretText;
use crate::kind::signals::Signals;
use crate::scalar::{Cidr, Duration, HostPort, Hostname, IpAddress, Name, PathText, Port, PreciseHostname};
use crate::span::{Span, Spanned};
use crate::value::{Entry, Node, Value};
use serde_json::json;
use std::marker::PhantomData;

mod adapt;
pub mod items;

pub(crate) use adapt::listeners;
pub use adapt::{CLASS, adapt};

object! {
    /// The short form of a configuration: listeners, backends and routes in one file.
    pub struct ShortForm as "the short form" {
        /// Where the JSON Schema of this file is, for editors.
        "$schema" schema: Skip,
        /// Ports to accept requests on, by name. Default: `http` on port 8080.
        "listeners" listeners: Table<ShortListener, 64>,
        /// Where requests go, by name.
        "backends" backends: Table<ShortBackend, 10000>,
        /// Which requests go where. The most specific match wins, not the first.
        "routes" routes: List<ShortRoute, 0, 100000>,
        /// Callers that are known, by name: groups, plan, attributes and credentials.
        "consumers" consumers: Table<Verbatim<Consumer>, 10000>,
        /// Policies for all requests of all listeners, by kind.
        "policies" policies: Option<Verbatim<Table<Node, 64>>>,
        /// Threads that carry traffic. Default: as many as the process may use CPUs.
        "workers" workers: Option<Verbatim<crate::decode::Whole<1, 1024>>>,
        /// Where this process runs: endpoints of the same zone are asked first. Default: all are asked alike.
        "zone" zone: Option<Verbatim<Box<str>>>,
        /// The listener for operators: probes, metrics, configuration. Default: 127.0.0.1:9901.
        "admin" admin: Option<Verbatim<Admin>>,
        /// One line per request. Default: JSON on standard output.
        "accessLog" access_log: Option<Verbatim<AccessLog>>,
        /// Addresses of proxies in front of us, whose X-Forwarded-* and Forwarded fields are believed. Default: none.
        "trustedProxies" trusted_proxies: Option<Verbatim<List<Spanned<Cidr>, 0, 1024>>>,
        /// How much a client may send and hold.
        "limits" limits: Option<Verbatim<Limits>>,
        /// How long a client may take.
        "timeouts" timeouts: Option<Verbatim<ClientTimeouts>>,
        /// What is done to paths before they are matched and forwarded.
        "paths" paths: Option<Verbatim<Paths>>,
        /// What counts as too much for the process. Beyond it connections are closed, then requests are refused.
        "overload" overload: Option<Verbatim<Overload>>,
        /// What is counted about requests, by route, caller and service, endpoint and consumer.
        "signals" signals: Option<Verbatim<Signals>>,
        /// The secret that seals the tokens of sessions: the same on every proxy that serves them.
        "sessionKey" session_key: Option<Verbatim<SecretText>>,
    }
}

object! {
    /// A port to accept requests on.
    pub struct ShortListener as "a listener" {
        /// The port.
        "port" port: Verbatim<Port>,
        /// The address to listen on. Default: every address of the machine.
        "address" address: Option<Verbatim<IpAddress>>,
        /// Accept requests for this hostname only. Default: every one.
        "host" host: Option<Verbatim<Hostname>>,
        /// What is carried: HTTP (default; HTTPS with `tls`), or without looking at requests TCP, TLS or UDP.
        "protocol" protocol: Option<Spanned<Protocol>>,
        /// Encrypt. Default: not encrypted. With `protocol: TLS` and without `tls`, TLS is passed on to the backend.
        "tls" tls: Option<ShortTls>,
        /// Policies for all requests of this listener, by kind.
        "policies" policies: Option<Verbatim<Table<Node, 64>>>,
    }
}

impl ShortListener {
    /// What the listener carries.
    pub fn carries(&self) -> Protocol {
        match self.protocol.as_ref().map(|protocol| protocol.value) {
            Some(Protocol::Http) | None if self.tls.is_some() => Protocol::Https,
            None => Protocol::Http,
            Some(protocol) => protocol,
        }
    }
}

object! {
    /// Certificates of a listener.
    pub struct ShortTls as "the tls of a listener" {
        /// Certificates. The one whose names fit the client's SNI is used; the first otherwise.
        "certificates" certificates: List<ShortCertificate, 1, 64>,
        /// Certificates of clients. Default: none is asked for.
        "clientAuth" client_auth: Option<ShortClientAuth>,
        /// The lowest TLS version. Default: 1.2.
        "minVersion" min_version: Option<Spanned<TlsVersion>>,
    }
}

object! {
    /// A certificate with its key: two files, or a Secret.
    pub struct ShortCertificate as "a certificate" {
        /// The file (or PEM text) of the certificate chain.
        "cert" cert: Option<Verbatim<Box<str>>>,
        /// The file (or PEM text) of the private key.
        "key" key: Option<Verbatim<Box<str>>>,
        /// The name of a Secret document, instead of files.
        "secret" secret: Option<Verbatim<Name>>,
    }
    check ShortCertificate::check;
}

impl ShortCertificate {
    fn check(&self, cx: &mut Decoder<'_>) {
        let complete = match (&self.cert, &self.key, &self.secret) {
            (Some(_), Some(_), None) | (None, None, Some(_)) => return,
            (Some(_), None, None) => "add `key:` with the file of its private key",
            (None, Some(_), None) => "add `cert:` with the file of the certificate chain",
            (None, None, None) => "add `cert:` and `key:`, or `secret:`",
            _ => "write either `cert` and `key`, or `secret`",
        };
        if !self.broken {
            let diag =
                cx.error(Rule::MissingField, self.span, "a certificate needs `cert` and `key`").fix(complete);
            cx.push(diag);
        }
    }
}

object! {
    /// Certificates of clients.
    pub struct ShortClientAuth as "clientAuth" {
        /// The file (or PEM text) of the CA certificates that may have signed them.
        "ca" ca: Verbatim<Box<str>>,
        /// required (default) or optional.
        "mode" mode: Spanned<ClientAuthMode>,
    }
}

choice! {
    /// Whether a client must show a certificate.
    pub enum ClientAuthMode as "mode of clientAuth" {
        /// Clients without a valid certificate are refused.
        Required = "required",
        /// Clients without a certificate are let in; one that does not verify is refused.
        Optional = "optional",
    }
    default Required;
}

/// A backend: `HOST:PORT`, a list of endpoints, or the fields of a Backend with `policies`.
#[derive(Clone, Debug)]
pub struct ShortBackend(pub Node);

impl Decode for ShortBackend {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::String(_) | Value::Seq(_) => Some(Self(node.clone())),
            Value::Map(entries) => {
                // The other fields are those of a Backend, which tells about unknown ones.
                let known = || Backend::FIELDS.iter().copied().chain(["policies"]);
                let (wrong, right): (Vec<Entry>, Vec<Entry>) = entries.iter().cloned().partition(|entry| {
                    &*entry.key != "policies" && nearest(&entry.key, known()) == Some("policies")
                });
                for entry in wrong {
                    let diag = cx
                        .error(Rule::UnknownField, entry.key_span, format!("unknown field `{}`", entry.key))
                        .label("not a field of a backend")
                        .fix("did you mean `policies`?");
                    cx.push(diag);
                }
                Some(Self(Node::new(Value::Map(right), node.span)))
            }
            _ => {
                cx.wrong_type(node, "text (`HOST:PORT`), a list of them or a mapping");
                None
            }
        }
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        Backend::schema(defs);
        let mut fields = defs.get("Backend").cloned().unwrap_or_default();
        fields["properties"]["policies"] = json!({
            "description": "Policies for all requests that go to this backend, by kind.",
            "type": "object"
        });
        defs.insert("ShortBackend", fields);
        json!({ "anyOf": [
            HostPort::schema(defs),
            List::<Endpoint, 1, 10000>::schema(defs),
            { "$ref": "#/$defs/ShortBackend" },
        ] })
    }
}

object! {
    /// Which requests go where, and what happens to them.
    pub struct ShortRoute as "a route" {
        /// Name, for logs, metrics and policies. Default: made of what is matched.
        "name" name: Option<Verbatim<Name>>,
        /// The listener, or several. Default: all of this file; of the other files when it has none.
        "on" on: OneOrMany<Verbatim<Name>, 32>,
        /// Conditions, or several of which one must be met. Default: every request.
        "match" matches: OneOrMany<ShortMatch, 64>,
        /// The backend: its name or `HOST:PORT`; or several with weights.
        "to" to: OneOrMany<ShortTarget, 16>,
        /// Send a copy of the requests there as well, and drop the answers: a backend, or several, with their share.
        "mirror" mirror: OneOrMany<ShortMirror, 16>,
        /// Answer without a backend: `{status: 403, body: text}`.
        "respond" respond: Option<Node>,
        /// Answer with a redirect: `https`, a path, a URL, or single parts.
        "redirect" redirect: Option<ShortRedirect>,
        /// Change host or path before the request goes to the backend.
        "rewrite" rewrite: Option<ShortRewrite>,
        /// Change fields of the request.
        "requestHeaders" request_headers: Option<ShortHeaders>,
        /// Change fields of the response.
        "responseHeaders" response_headers: Option<ShortHeaders>,
        /// How long a request may take, retries included: short for `timeouts: {request: …}`.
        "timeout" timeout: Option<Verbatim<Duration>>,
        /// How long requests and attempts may take.
        "timeouts" timeouts: Option<Verbatim<HttpTimeouts>>,
        /// When a request is tried again.
        "retry" retry: Option<Verbatim<HttpRetry>>,
        /// Sends the requests of a session to one endpoint.
        "sessionPersistence" session_persistence: Option<Verbatim<SessionPersistence>>,
        /// Policies for these requests, by kind.
        "policies" policies: Option<Verbatim<Table<Node, 64>>>,
    }
    check ShortRoute::check;
}

/// The kind of policy that `respond` stands for.
pub const RESPOND_POLICY: &str = "directResponse";

impl ShortRoute {
    fn check(&self, cx: &mut Decoder<'_>) {
        let written = [
            ("to", self.to.items.first().map(|target| target.span)),
            ("respond", self.respond.as_ref().map(|respond| respond.span)),
            ("redirect", self.redirect.as_ref().map(|redirect| redirect.span)),
        ];
        let mut written = written.iter().filter_map(|(name, span)| span.map(|span| (*name, span)));
        let policy_responds = self.policies.as_ref().and_then(|policies| policies.node.entry(RESPOND_POLICY));
        match (written.next(), written.next()) {
            (None, _) if !self.broken && policy_responds.is_none() => {
                let diag = cx
                    .error(Rule::MissingField, self.span, "the route goes nowhere")
                    .fix("add `to: BACKEND`, `respond: {status: 200}` or `redirect: https`");
                cx.push(diag);
            }
            (Some((first, first_span)), Some((second, second_span))) => {
                let diag = cx
                    .error(Rule::Conflict, second_span, format!("both `{first}` and `{second}` in one route"))
                    .fix("keep one of them")
                    .related(cx.origin(first_span), first);
                cx.push(diag);
            }
            _ => {}
        }
        if let (Some(respond), Some(policy)) = (&self.respond, policy_responds) {
            let diag = cx
                .error(
                    Rule::Conflict,
                    policy.key_span,
                    format!("both `respond` and policy `{RESPOND_POLICY}`"),
                )
                .fix("keep one of them")
                .related(cx.origin(respond.span), "respond");
            cx.push(diag);
        }
        if let (Some(timeout), Some(timeouts)) = (&self.timeout, &self.timeouts) {
            let diag = cx
                .error(Rule::Conflict, timeout.node.span, "both `timeout` and `timeouts`")
                .why("`timeout` is short for `timeouts: {request: …}`")
                .fix("keep one of them")
                .related(cx.origin(timeouts.node.span), "timeouts");
            cx.push(diag);
        }
        if let (Some(rewrite), Some(redirect)) = (&self.rewrite, &self.redirect) {
            let diag = cx
                .error(Rule::Conflict, rewrite.span, "both `rewrite` and `redirect` in one route")
                .why("a redirected request goes to no backend, so nothing is left to rewrite")
                .fix("keep one of them")
                .related(cx.origin(redirect.span), "redirect");
            cx.push(diag);
        }
    }
}

object! {
    /// Conditions that a request must all meet.
    pub struct ShortMatch as "a match" {
        /// The hostname, or several: `api.example.com`, `*.example.com`. Default: those of the listener.
        "host" host: OneOrMany<Verbatim<Hostname>, 16>,
        /// The path, or several: `/users` exactly, `/users/*` it and all below, `~^/v[0-9]+/` a regular expression.
        "path" path: OneOrMany<Spanned<ShortPath>, 64>,
        /// The method, or several.
        "method" method: OneOrMany<Spanned<HttpMethod>, 9>,
        /// Fields of the request and their values; `~` starts a regular expression.
        "headers" headers: Table<Spanned<Box<str>>, 16>,
        /// Cookies of the request and their values; `~` starts a regular expression.
        "cookies" cookies: Table<Spanned<Box<str>>, 16>,
        /// Parameters of the query and their values; `~` starts a regular expression.
        "query" query: Table<Spanned<Box<str>>, 16>,
    }
}

/// A path to match.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ShortPath {
    /// `/users`.
    Exact(Box<str>),
    /// `/users/*`, without the `/*`.
    Prefix(Box<str>),
    /// `~^/users`, without the `~`.
    Regex(Box<str>),
}

impl Decode for ShortPath {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let text = Box::<str>::decode(node, cx)?;
        let (path, parsed) = if let Some(regex) = text.strip_prefix('~') {
            return Some(Self::Regex(regex.into()));
        } else if let Some(prefix) = text.strip_suffix("/*") {
            let prefix = if prefix.is_empty() { "/" } else { prefix };
            (prefix, Self::Prefix(prefix.into()))
        } else {
            (&*text, Self::Exact(text.clone()))
        };
        let complaint = match PathText::parse(path) {
            Ok(_) if path.contains('*') => {
                crate::decode::Complaint::new("`*` stands for all below a path only at the end, after a `/`")
                    .fix("use a regular expression: `~^/…`")
            }
            Ok(_) => return Some(parsed),
            Err(mut complaint) => {
                if text.ends_with("/*") && !text.starts_with('/') {
                    complaint = complaint.fix(format!("write `/{text}`"));
                } else if text.ends_with('*') {
                    complaint = crate::decode::Complaint::new("`*` stands for all below a path, after a `/`");
                    complaint = complaint.fix(format!("write `{}/*`", text.trim_end_matches('*')));
                } else if text.starts_with('^') {
                    complaint = complaint.fix(format!("for a regular expression write `~{text}`"));
                }
                complaint
            }
        };
        let mut diag = cx
            .error(Rule::BadValue, node.span, format!("`{}` is not a path", node.shown()))
            .why(complaint.why);
        diag.fix = complaint.fix;
        cx.push(diag);
        None
    }
    fn schema(_: &mut Defs) -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[/~]" })
    }
}

/// A backend and its share: a name, `HOST:PORT`, or one of them with `weight`.
#[derive(Clone, Debug)]
pub struct ShortTarget {
    /// The name or address.
    pub backend: Node,
    /// The share, relative to the other targets. Default: 1.
    pub weight: Option<Node>,
    /// Where the target was written.
    pub span: Span,
}

object! {
    /// A backend and its share of the requests.
    pub struct ShortTargetFields as "a target" {
        /// The name of a backend, or `HOST:PORT`.
        "backend" backend: Verbatim<Box<str>>,
        /// The share, relative to the other targets. Default: 1.
        "weight" weight: Option<Verbatim<crate::decode::Whole<0, 1000000>>>,
    }
}

impl Decode for ShortTarget {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let (backend, weight) = match &node.value {
            Value::Map(_) => {
                let fields = ShortTargetFields::decode(node, cx)?;
                (fields.backend.node, fields.weight.map(|weight| weight.node))
            }
            _ => (node.clone(), None),
        };
        if backend.as_str().is_none() {
            cx.wrong_type(&backend, "text (the name of a backend)");
            return None;
        }
        Some(Self { backend, weight, span: node.span })
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        json!({ "anyOf": [{ "type": "string" }, ShortTargetFields::schema(defs)] })
    }
}

/// Where copies of requests go: a name, `HOST:PORT`, or one of them with a share.
#[derive(Clone, Debug)]
pub struct ShortMirror {
    /// The name or address.
    pub backend: Node,
    /// The share in percent. Default: 100.
    pub percent: Option<Node>,
    /// The share as a fraction.
    pub fraction: Option<Node>,
    /// Where the mirror was written.
    pub span: Span,
}

object! {
    /// A backend that gets copies of requests.
    pub struct ShortMirrorFields as "a mirror" {
        /// The name of a backend, or `HOST:PORT`.
        "backend" backend: Verbatim<Box<str>>,
        /// How many requests. Unit: percent. Default: 100.
        "percent" percent: Option<Verbatim<crate::decode::Whole<0, 100>>>,
        /// How many requests, more finely: `{numerator: 1, denominator: 1000}`.
        "fraction" fraction: Option<Verbatim<crate::kind::filter::Fraction>>,
    }
}

impl Decode for ShortMirror {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let (backend, percent, fraction) = match &node.value {
            Value::Map(_) => {
                let fields = ShortMirrorFields::decode(node, cx)?;
                (fields.backend.node, fields.percent.map(|v| v.node), fields.fraction.map(|v| v.node))
            }
            _ => (node.clone(), None, None),
        };
        if backend.as_str().is_none() {
            cx.wrong_type(&backend, "text (the name of a backend)");
            return None;
        }
        Some(Self { backend, percent, fraction, span: node.span })
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        json!({ "anyOf": [{ "type": "string" }, ShortMirrorFields::schema(defs)] })
    }
}

/// A redirect: `https`, a path, a URL, or single parts.
#[derive(Clone, Debug, Default)]
pub struct ShortRedirect {
    /// The scheme.
    pub scheme: Option<Node>,
    /// The hostname.
    pub host: Option<Node>,
    /// The port.
    pub port: Option<Node>,
    /// The whole path.
    pub path: Option<Node>,
    /// What replaces the matched prefix.
    pub prefix: Option<Node>,
    /// The status.
    pub status: Option<Node>,
    /// Where the redirect was written.
    pub span: Span,
}

object! {
    /// A redirect; what is not written stays as in the request.
    pub struct ShortRedirectFields as "a redirect" {
        /// http or https.
        "scheme" scheme: Option<Verbatim<RedirectScheme>>,
        /// The hostname.
        "host" host: Option<Verbatim<PreciseHostname>>,
        /// The port.
        "port" port: Option<Verbatim<Port>>,
        /// The whole path.
        "path" path: Option<Verbatim<PathText>>,
        /// What replaces the matched prefix.
        "prefix" prefix: Option<Verbatim<Box<str>>>,
        /// 301, 302 (default), 303, 307 or 308.
        "status" status: Option<Verbatim<crate::decode::Whole<301, 308>>>,
    }
    check ShortRedirectFields::check;
}

impl ShortRedirectFields {
    fn check(&self, cx: &mut Decoder<'_>) {
        check_path_or_prefix(self.path.as_ref().map(|v| &v.node), self.prefix.as_ref().map(|v| &v.node), cx);
    }
}

fn check_path_or_prefix(path: Option<&Node>, prefix: Option<&Node>, cx: &mut Decoder<'_>) {
    if let (Some(path), Some(prefix)) = (path, prefix) {
        let diag = cx
            .error(Rule::Conflict, prefix.span, "both `path` and `prefix`")
            .why("`path` is the whole new path, `prefix` replaces what was matched")
            .fix("keep one of them")
            .related(cx.origin(path.span), "path");
        cx.push(diag);
    }
}

impl Decode for ShortRedirect {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let span = node.span;
        let Value::String(text) = &node.value else {
            let fields = ShortRedirectFields::decode(node, cx)?;
            return Some(Self {
                scheme: fields.scheme.map(|v| v.node),
                host: fields.host.map(|v| v.node),
                port: fields.port.map(|v| v.node),
                path: fields.path.map(|v| v.node),
                prefix: fields.prefix.map(|v| v.node),
                status: fields.status.map(|v| v.node),
                span,
            });
        };
        if matches!(&**text, "http" | "https") {
            return Some(Self { scheme: Some(node.clone()), span, ..Self::default() });
        }
        if text.starts_with('/') {
            return Some(Self { path: Some(node.clone()), span, ..Self::default() });
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let (authority, path) = match rest.find('/') {
                Some(at) => (rest.get(..at).unwrap_or(""), rest.get(at..)),
                None => (rest, None),
            };
            let (host, port) = match authority.rsplit_once(':') {
                Some((host, port)) => (host, port.parse::<i64>().ok()),
                None => (authority, None),
            };
            return Some(Self {
                scheme: Some(Node::text(scheme, span)),
                host: Some(Node::text(host, span)),
                port: port.map(|port| Node::int(port, span)),
                path: path.map(|path| Node::text(path, span)),
                span,
                ..Self::default()
            });
        }
        let diag = cx
            .error(Rule::BadValue, span, format!("`{}` is not a redirect", node.shown()))
            .why("write `https`, a path such as `/new`, a URL, or a mapping with scheme, host, port, path, prefix, status");
        cx.push(diag);
        None
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        json!({ "anyOf": [{ "type": "string" }, ShortRedirectFields::schema(defs)] })
    }
}

object! {
    /// Changes host or path before the request goes to the backend.
    pub struct ShortRewrite as "a rewrite" {
        /// The hostname.
        "host" host: Option<Verbatim<PreciseHostname>>,
        /// The whole path.
        "path" path: Option<Verbatim<PathText>>,
        /// What replaces the matched prefix: with `prefix: /` and `path: /api/*`, `/api/x` becomes `/x`.
        "prefix" prefix: Option<Verbatim<Box<str>>>,
    }
    check ShortRewrite::check;
}

impl ShortRewrite {
    fn check(&self, cx: &mut Decoder<'_>) {
        check_path_or_prefix(self.path.as_ref().map(|v| &v.node), self.prefix.as_ref().map(|v| &v.node), cx);
        if self.host.is_none() && self.path.is_none() && self.prefix.is_none() && !self.broken {
            let diag = cx
                .error(Rule::MissingField, self.span, "the rewrite changes nothing")
                .fix("add `host`, `path` or `prefix`");
            cx.push(diag);
        }
    }
}

object! {
    /// Changes fields of a message.
    pub struct ShortHeaders as "header changes" {
        /// Fields that get exactly this value, whatever they had.
        "set" set: Table<Node, 16>,
        /// Field values added to those that are there.
        "add" add: Table<Node, 16>,
        /// Fields to remove.
        "remove" remove: OneOrMany<Verbatim<Box<str>>, 16>,
    }
}

/// A value that is passed on as it is and checked as a `T` there.
#[derive(Clone, Debug)]
pub struct Verbatim<T> {
    /// The value.
    pub node: Node,
    form: PhantomData<fn() -> T>,
}

impl<T: Decode> Decode for Verbatim<T> {
    fn decode(node: &Node, _: &mut Decoder<'_>) -> Option<Self> {
        Some(Self { node: node.clone(), form: PhantomData })
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        T::schema(defs)
    }
}

/// One value, or a list of at most `MAX`.
#[derive(Clone, Debug)]
pub struct OneOrMany<T, const MAX: usize> {
    /// The values.
    pub items: Vec<T>,
    /// Where they were written; the span of the enclosing object for none.
    pub span: Span,
}

impl<T: Decode, const MAX: usize> Decode for OneOrMany<T, MAX> {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        if matches!(node.value, Value::Seq(_)) {
            let list = List::<T, 1, MAX>::decode(node, cx)?;
            return Some(Self { items: list.into_vec(), span: node.span });
        }
        T::decode(node, cx).map(|item| Self { items: vec![item], span: node.span })
    }
    fn absent(parent: Span) -> Option<Self> {
        Some(Self { items: Vec::new(), span: parent })
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        let one = T::schema(defs);
        json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1, "maxItems": MAX }] })
    }
}

/// Keys about the process or all of its clients: what adapts to a ProxyConfig.
const PROCESS_KEYS: &[&str] = &[
    "workers",
    "zone",
    "admin",
    "accessLog",
    "trustedProxies",
    "limits",
    "timeouts",
    "paths",
    "overload",
    "signals",
    "sessionKey",
];

/// True when a key of the short form is there, to tell it from a document that lacks `kind`.
pub(crate) fn looks_short(node: &Node) -> bool {
    const KEYS: &[&str] = &["listeners", "backends", "routes", "policies", "consumers"];
    let is_known = |entry: &Entry| KEYS.contains(&&*entry.key) || PROCESS_KEYS.contains(&&*entry.key);
    node.as_map().is_some_and(|entries| entries.iter().any(is_known))
}

/// The mistake of a mapping that is neither a document nor the short form.
pub(crate) fn neither(node: &Node, cx: &Decoder<'_>) -> Diag {
    let at = node.as_map().and_then(<[_]>::first).map_or(node.span, |entry| entry.key_span);
    cx.error(Rule::UnknownKind, at, "neither a document nor the short form")
        .why("a document has `apiVersion` and `kind`; the short form has `listeners`, `backends` or `routes`")
}
