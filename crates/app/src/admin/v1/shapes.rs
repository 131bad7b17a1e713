//! What the API gives and takes, as types: the schemas of the OpenAPI document are made of these.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admin::credentials::Via;
use crate::admin::role::Role;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// All is well.
    Ok,
    /// It works, and somebody should look.
    Warning,
    /// Something does not work.
    Critical,
}

/// Something that is wrong, and how to mend it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Finding {
    /// What it is, for programs: it does not change.
    pub(crate) code: Cow<'static, str>,
    /// How bad.
    pub(crate) level: Level,
    /// In a few words.
    pub(crate) title: Cow<'static, str>,
    /// What it is about.
    pub(crate) about: About,
    /// What was found.
    pub(crate) detail: String,
    /// What to do.
    pub(crate) fix: String,
    /// The page of the documentation, below `docs/`.
    pub(crate) docs: Cow<'static, str>,
    /// The proxies that say so, where this is a control plane.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) proxies: Vec<String>,
}

/// What something is about.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct About {
    /// `process`, `configuration`, `listener`, `route`, `backend`, `certificate`, `proxy`, `store`.
    pub(crate) kind: Cow<'static, str>,
    /// Its name.
    pub(crate) name: String,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Health {
    /// The worst of it.
    pub(crate) level: Level,
    /// One by one, the worst first; nothing when all is well.
    pub(crate) checks: Vec<Finding>,
}

/// What a process is and how it stands.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Process {
    /// Version of the binary.
    pub(crate) version: &'static str,
    /// `gateway`, `sidecar` or `control`.
    pub(crate) kind: &'static str,
    /// Its number in the operating system.
    pub(crate) pid: u32,
    /// `starting`, `ready` or `draining`.
    pub(crate) state: &'static str,
    /// Seconds since 1970.
    pub(crate) started_at: u64,
    /// How long it has run.
    pub(crate) uptime_seconds: u64,
    /// Revision in force.
    pub(crate) revision: u64,
    /// When it came into force. Seconds since 1970.
    pub(crate) live_since: Option<u64>,
    /// Worker threads.
    pub(crate) workers: usize,
    /// Connections of clients.
    pub(crate) connections: u32,
    /// Whose the documents are.
    pub(crate) documents: Documents,
    /// Sockets.
    pub(crate) listeners: Vec<Listener>,
    /// How the overload protection stands.
    pub(crate) overload: Value,
    /// What it is in a mesh; nothing outside of one.
    pub(crate) mesh: Option<Mesh>,
    /// How the last change of the configuration went.
    pub(crate) last_attempt: Option<Attempt>,
}

/// Whose documents are.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Documents {
    /// `files` or `store`.
    pub(crate) owner: &'static str,
    /// They can be changed here.
    pub(crate) writable: bool,
    /// Where they are.
    pub(crate) path: String,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Listener {
    /// Its name.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: String,
    /// `http`, `https`, `TCP`, `TLS`, `UDP`, or its part in the mesh.
    pub(crate) protocol: String,
    /// Rules behind it.
    pub(crate) rules: usize,
}

/// A process as a member of a mesh.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mesh {
    /// Its SPIFFE ID.
    pub(crate) identity: Option<String>,
    /// The trust domain.
    pub(crate) trust_domain: Option<String>,
    /// Plain text is taken too.
    pub(crate) permissive: bool,
}

/// How a change of the configuration went.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Attempt {
    /// When. Seconds since 1970.
    pub(crate) at: u64,
    /// Why it was not taken over.
    pub(crate) refused: Option<String>,
    /// Mistakes and warnings, one line each.
    pub(crate) diagnostics: Vec<String>,
}

/// Everything at a glance.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Overview {
    /// The worst of what is wrong.
    pub(crate) level: Level,
    /// What is wrong.
    pub(crate) checks: Vec<Finding>,
    /// The process.
    pub(crate) process: Process,
    /// How many there are.
    pub(crate) counts: Counts,
    /// Rate, failures and latency of the last seconds; nothing in a process that carries no requests.
    pub(crate) signals: Option<rhumb_signals::answer::Now>,
    /// What happened lately, the latest first.
    pub(crate) changes: Vec<rhumb_signals::Event>,
}

/// How many there are.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Counts {
    /// Rules of routes.
    pub(crate) routes: usize,
    /// Backends.
    pub(crate) backends: usize,
    /// Endpoints.
    pub(crate) endpoints: Endpoints,
    /// Registered consumers.
    pub(crate) consumers: usize,
    /// Certificates.
    pub(crate) certificates: usize,
    /// Proxies of a control plane.
    pub(crate) proxies: Option<usize>,
}

/// Endpoints.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Endpoints {
    /// All of them.
    pub(crate) total: usize,
    /// Those that get requests.
    pub(crate) eligible: usize,
}

/// A part of a list.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Page<T> {
    /// Items, by name.
    pub(crate) items: Vec<T>,
    /// For the parameter `cursor` of the next request; nothing at the end.
    pub(crate) next: Option<String>,
    /// How many there are in all parts.
    pub(crate) total: usize,
}

/// A rule of a route.
#[derive(Clone, Serialize, JsonSchema)]
pub(crate) struct Route {
    /// Tells it from every other.
    pub(crate) id: String,
    /// The route: `namespace/name`.
    pub(crate) route: String,
    /// The kind of its document.
    pub(crate) kind: Option<String>,
    /// Which rule of it, from 0.
    pub(crate) rule: u64,
    /// The listener that it is attached to.
    pub(crate) listener: String,
    /// Where that listens.
    pub(crate) address: String,
    /// What metrics call it.
    pub(crate) template: String,
    /// Hosts; every one when empty.
    pub(crate) hostnames: Vec<String>,
    /// Which requests it takes: any of these.
    pub(crate) matches: Vec<Value>,
    /// Policies in the order in which they run, each with where it was written.
    pub(crate) policies: Vec<Value>,
    /// Spans of time that were written.
    pub(crate) timeouts: Value,
    /// Where requests go.
    pub(crate) backends: Vec<Value>,
    /// Where copies go.
    pub(crate) mirrors: Vec<Value>,
    /// Why it refuses everything.
    pub(crate) refuses: Option<String>,
    /// Where it was written: file, line and column.
    pub(crate) origin: Option<String>,
}

/// A backend and its endpoints.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Backend {
    /// Its name.
    pub(crate) backend: String,
    /// `http/1` or `http/2`.
    pub(crate) protocol: &'static str,
    /// TLS to its endpoints.
    pub(crate) tls: bool,
    /// How endpoints are chosen.
    pub(crate) algorithm: String,
    /// So few endpoints are well that all are used.
    pub(crate) panicking: bool,
    /// The breaker, where the number of requests is limited.
    pub(crate) requests: Value,
    /// How often which evidence has put an endpoint out.
    pub(crate) ejections: Value,
    /// Proxies of the mesh before its endpoints.
    pub(crate) mesh: Option<Value>,
    /// Its endpoints, with state, share, load and latency.
    pub(crate) endpoints: Vec<Value>,
    /// Names that endpoints are found by.
    pub(crate) names: Value,
}

/// A certificate in use.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Certificate {
    /// `listener`, `svid` or `authority`.
    pub(crate) r#use: &'static str,
    /// Whose it is.
    pub(crate) name: String,
    /// Names that it is for.
    pub(crate) names: Vec<String>,
    /// Seconds since 1970.
    pub(crate) not_before: i64,
    /// Seconds since 1970.
    pub(crate) not_after: i64,
    /// How long it is still valid; negative when it is not any more.
    pub(crate) seconds_left: i64,
    /// Whether that is long enough.
    pub(crate) level: Level,
    /// Where it comes from.
    pub(crate) origin: String,
}

/// A consumer with policies of its own.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Consumer {
    /// `namespace/name`.
    pub(crate) name: String,
    /// Policies in the order in which they run.
    pub(crate) policies: Vec<Value>,
    /// Why its requests are refused.
    pub(crate) refuses: Option<String>,
}

/// Documents in force.
#[derive(Serialize, JsonSchema)]
pub(crate) struct DocumentList {
    /// The revision in force.
    pub(crate) revision: u64,
    /// `files` or `store`.
    pub(crate) owner: &'static str,
    /// The documents.
    pub(crate) documents: Vec<OneDocument>,
}

/// A document in force.
#[derive(Serialize, JsonSchema)]
pub(crate) struct OneDocument {
    /// The revision that brought it, in a store.
    pub(crate) revision: Option<u64>,
    /// `files` or `store`: who says what is in it, and where it is changed.
    pub(crate) owner: &'static str,
    /// Where it was written: file, line and column.
    pub(crate) origin: Option<String>,
    /// What it says.
    pub(crate) document: Value,
}

/// Documents to be put in.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Apply {
    /// The documents.
    #[serde(default)]
    pub(crate) documents: Vec<serde_json::Map<String, Value>>,
    /// Documents as text, instead: what is wrong with them is told with line and column.
    #[serde(default)]
    pub(crate) yaml: Option<String>,
    /// Why, for the history.
    #[serde(default)]
    pub(crate) message: Option<String>,
}

/// Where to go back to.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rollback {
    /// The revision.
    pub(crate) to: u64,
    /// Why, for the history.
    #[serde(default)]
    pub(crate) message: Option<String>,
}

/// A revision of documents; of a dry run, what would differ.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Made {
    /// Its number.
    revision: u64,
    /// Documents that have changed.
    #[serde(default)]
    changes: Option<Vec<Value>>,
    /// What would differ.
    #[serde(default)]
    differences: Option<Vec<Value>>,
}

/// Revisions.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Revisions {
    /// The newest first.
    revisions: Vec<Value>,
}

/// What differs between revisions.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Differences {
    /// The first revision.
    from: u64,
    /// The second one.
    to: u64,
    /// Documents before and after.
    differences: Vec<Value>,
}

/// Who has what a revision brought.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Audience {
    /// The revision.
    revision: u64,
}

/// Proxies of a control plane.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Proxies {
    /// The revision in force.
    pub(crate) revision: u64,
    /// The proxies, and what they run.
    pub(crate) proxies: Vec<Value>,
}

/// Documents to look at: a list of them, or text.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Validate {
    /// Documents.
    #[serde(default)]
    pub(crate) documents: Option<Vec<serde_json::Map<String, Value>>>,
    /// YAML, the short form too. `file:` and variables are not looked up.
    #[serde(default)]
    pub(crate) yaml: Option<String>,
}

/// What is wrong with documents.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Validated {
    /// They can be used.
    pub(crate) valid: bool,
    /// What is wrong, or may be.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// A mistake or a warning.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Diagnostic {
    /// The rule that was broken.
    pub(crate) code: &'static str,
    /// `error` or `warning`.
    pub(crate) level: &'static str,
    /// The file, or what stands for it.
    pub(crate) file: String,
    /// From 1.
    pub(crate) line: u32,
    /// From 1.
    pub(crate) column: u32,
    /// The document.
    pub(crate) document: Option<String>,
    /// The field.
    pub(crate) field: Option<String>,
    /// What is wrong.
    pub(crate) what: String,
    /// Why.
    pub(crate) why: Option<String>,
    /// What to write instead.
    pub(crate) fix: Option<String>,
}

/// A request to explain.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Explain {
    /// The method.
    pub(crate) method: String,
    /// The URL, with the port of a listener where that is not a usual one.
    pub(crate) url: String,
    /// Fields: `Name: value`.
    #[serde(default)]
    pub(crate) headers: Vec<String>,
    /// Address of the client. Default: 127.0.0.1.
    #[serde(default)]
    pub(crate) client: Option<std::net::IpAddr>,
}

/// A request that is to be sent.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToSend {
    /// The method.
    pub(crate) method: String,
    /// The URL, with the port of a listener where that is not a usual one.
    pub(crate) url: String,
    /// Fields: `Name: value`.
    #[serde(default)]
    pub(crate) headers: Vec<String>,
    /// The content: at most 64 KiB.
    #[serde(default)]
    pub(crate) body: Option<String>,
}

/// What became of a request that was sent.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Attempted {
    /// The status.
    pub(crate) status: u16,
    /// Fields, name and value.
    pub(crate) headers: Vec<(String, String)>,
    /// The first 64 KiB of the content.
    pub(crate) body: String,
    /// There is more, or not all of it came.
    pub(crate) truncated: bool,
    /// How long it took.
    pub(crate) took_ms: f64,
    /// The listener that it went to.
    pub(crate) listener: String,
    /// Its address.
    pub(crate) address: String,
    /// Every step, as `/trace` tells it; nothing when as many look as may at a time.
    pub(crate) trace: Option<Value>,
}

/// What happens to a request: as `rhumb explain --format json` prints it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Explained {
    /// The method.
    method: String,
    /// The URL.
    url: String,
    /// Other routes, and why they do not get it.
    candidates: Vec<Value>,
}

/// Who asks.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Session {
    /// The name.
    pub(crate) name: String,
    /// What they may do.
    pub(crate) role: Role,
    /// How they have shown who they are.
    pub(crate) via: Via,
    /// When that ends. Seconds since 1970.
    pub(crate) expires_at: Option<u64>,
}

/// How one can say who one is.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Ways {
    /// By a token.
    pub(crate) token: bool,
    /// By an identity provider.
    pub(crate) oidc: Option<Provider>,
    /// Who asks is known already, such as by a certificate.
    pub(crate) known: bool,
}

/// An identity provider.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Provider {
    /// Its name.
    pub(crate) name: String,
}

/// A login.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    /// A token.
    pub(crate) token: String,
}

/// A token to be made.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewToken {
    /// Its name: letters, digits, `-` and `.`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9.-]{1,63}$"))]
    pub(crate) name: String,
    /// What it opens.
    pub(crate) role: Role,
    /// How long it lives; for ever when there is nothing.
    #[serde(default)]
    #[schemars(range(max = 3_153_600_000u64))]
    pub(crate) expires_in_seconds: Option<u64>,
}

/// A token that was made.
#[derive(Serialize, JsonSchema)]
pub(crate) struct CreatedToken {
    /// Its name.
    pub(crate) name: String,
    /// What it opens.
    pub(crate) role: Role,
    /// The token. It is not told again.
    pub(crate) token: String,
}

/// Named tokens.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Tokens {
    /// By name.
    pub(crate) tokens: Vec<crate::admin::credentials::Shown>,
}

/// What was done and refused.
#[derive(Serialize, JsonSchema)]
pub(crate) struct AuditPage {
    /// The newest first.
    pub(crate) entries: Vec<crate::admin::audit::Entry>,
}
