//! Another service decides whether a request may pass: Envoy's `envoy.service.auth.v3.Authorization/Check` over gRPC, or
//! a request over HTTP whose status says so (forward-auth of Traefik, `auth_request` of nginx).
//!
//! Sees the client's request. When the service is away or says nothing that can be understood, the request is refused
//! unless the policy says otherwise. Bounded: time, content that is sent, answers, and the cache. Answers are held in
//! memory only, under a digest of what they depend on. A local reply skips everything behind it in the chain.

mod check;

use std::sync::Arc;
use std::time::Duration;

use rhumb_base::failure::{Cause, Failure};
use rhumb_cel::Program;
use rhumb_codec::field::{FieldName, FieldValue, Fields, Known};
use rhumb_codec::head::{RequestHead, ResponseHead};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

use crate::attributes::{Attributes, SCHEMA};
use crate::cache::{Cache, Key};
use crate::call::{Answer, Call};
use crate::context::{Context, Remote};
use crate::exchange::{Exchange, Mode, Refusal, Reply};
use crate::policy::{Attach, Edit, Hooks, HttpPolicy, Invalid, Merge, Outcome, Verdict};
use crate::principal::Principal;
use crate::quantity::{Size, positive};

/// Default of [`Spec::timeout`].
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// Most content that can be sent to the service, in bytes.
pub const CONTENT_MAX: u64 = 1 << 20;

/// Longest answer that is read, in bytes.
pub const ANSWER_MAX: usize = 256 << 10;

/// Decisions that are kept at most.
pub const CACHE_LIMIT: usize = 100_000;

/// Longest key of a decision, in bytes: with more, the service is asked.
const KEY_MAX: usize = 16 << 10;

/// Asks a service whether a request may pass.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// A service that speaks Envoy's protocol. Either this or `http`.
    #[serde(default)]
    pub grpc: Option<GrpcSpec>,
    /// A service that answers a request: 2xx lets the client's pass, anything else is the client's answer.
    #[serde(default)]
    pub http: Option<HttpSpec>,
    /// How long the service may take. Default: 1s.
    #[serde(default)]
    pub timeout: Option<String>,
    /// Fields of the request that the service is told. Default: all.
    #[serde(default)]
    pub fields: Option<Vec<String>>,
    /// Content of the request that the service is told. Default: none.
    #[serde(default)]
    pub content: Option<ContentSpec>,
    /// Fields that only the service sets: a client's are removed. Over HTTP they are taken from its answer; over gRPC it
    /// says itself what it sets.
    #[serde(default)]
    pub identity_fields: Vec<String>,
    /// Fields of an answer that lets the request pass, for the client's response: `set-cookie`. Only over HTTP; over gRPC
    /// the service says itself.
    #[serde(default)]
    pub client_fields: Vec<String>,
    /// The field of the answer that names who asks, for expressions, limits and the log. Default: over gRPC `sub` of its
    /// dynamic metadata.
    #[serde(default)]
    pub subject_field: Option<String>,
    /// What is told to the service beside the request. Only over gRPC (`context_extensions`).
    #[serde(default)]
    pub context_extensions: BTreeMap<String, String>,
    /// What becomes of requests while the service cannot be asked: `Refuse` (default) or `Allow`.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Keep decisions. Default: each request is asked about.
    #[serde(default)]
    pub cache: Option<CacheSpec>,
}

/// A service that speaks gRPC.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcSpec {
    /// Name of its Backend, with protocol `h2c` or `h2`.
    pub backend: String,
}

/// A service that speaks HTTP.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpSpec {
    /// What is asked for.
    pub url: String,
    /// Name of the Backend that is connected to. Default: the host of the URL.
    #[serde(default)]
    pub backend: Option<String>,
}

/// Content for the service.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContentSpec {
    /// So much of it, at most 1Mi.
    pub limit: Size,
    /// Send the beginning of content that is longer. Default: false, it is refused with 413.
    #[serde(default)]
    pub partial: bool,
}

/// Decisions that are kept.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CacheSpec {
    /// Expressions that the decision depends on: `request.headers["authorization"]`. Without a value for one of them, the
    /// service is asked.
    pub key: Vec<String>,
    /// For how long.
    pub time: String,
}

/// What becomes of requests while the service cannot be asked.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
pub enum OnFailure {
    /// They are refused with 503.
    #[default]
    Refuse,
    /// They pass.
    Allow,
}

/// A compiled policy.
pub struct ExtAuthz(Arc<Inner>);

struct Inner {
    remote: Remote,
    /// Path of the request over HTTP; gRPC has its own.
    path: Option<Box<str>>,
    timeout: Duration,
    fields: Option<Box<[FieldName]>>,
    content: Option<(usize, bool)>,
    identity: Box<[FieldName]>,
    client: Box<[FieldName]>,
    subject: Option<FieldName>,
    extensions: BTreeMap<String, String>,
    on_failure: OnFailure,
    cache: Option<Decisions>,
}

struct Decisions {
    key: Box<[Program]>,
    time: Duration,
    kept: Arc<Cache<Arc<Decision>>>,
}

/// What the service decided.
#[derive(Debug)]
enum Decision {
    Allow { request: Vec<Edit>, response: Vec<Edit>, principal: Option<Arc<Principal>> },
    Refuse { status: u16, fields: Fields, content: Vec<u8> },
}

impl HttpPolicy for ExtAuthz {
    const KIND: &'static str = "extAuthz";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT.or(Attach::BACKEND);
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        let (remote, path) = match (&spec.grpc, &spec.http) {
            (Some(grpc), None) => (cx.backend("grpc.backend", &grpc.backend), None),
            (None, Some(http)) => {
                let (remote, path) = cx.url("http.url", &http.url, http.backend.as_deref())?;
                (remote, Some(path))
            }
            (None, None) => {
                let fix = "write `http: {url: http://HOST/PATH}` or `grpc: {backend: NAME}`";
                return Err(Invalid::new("", "names no service", fix));
            }
            (Some(_), Some(_)) => {
                return Err(Invalid::new("http", "`grpc` is written as well", "remove one"));
            }
        };
        if path.is_some() && !spec.context_extensions.is_empty() {
            return Err(Invalid::new("contextExtensions", "are of gRPC", "remove them, or use `grpc`"));
        }
        if path.is_none() && !spec.client_fields.is_empty() {
            return Err(Invalid::new("clientFields", "over gRPC the service says them itself", "remove it"));
        }
        let content = match &spec.content {
            None => None,
            Some(content) => {
                let limit = content.limit.read("content.limit")?;
                if limit == 0 || limit > CONTENT_MAX {
                    return Err(Invalid::new("content.limit", "is not between 1 and 1Mi", ""));
                }
                // Bounded just above.
                Some((limit as usize, content.partial))
            }
        };
        let cache = match &spec.cache {
            None => None,
            Some(cache) => {
                if cache.key.is_empty() {
                    let fix = "write what the decision depends on: `request.headers[\"authorization\"]`";
                    return Err(Invalid::new("cache.key", "is empty: everybody would share a decision", fix));
                }
                let compile = |(at, text): (usize, &String)| {
                    Program::compile(text, &SCHEMA).map_err(|error| {
                        Invalid::new(format!("cache.key[{at}]"), error.tell(text), error.fix)
                    })
                };
                let time = positive("cache.time", Some(&cache.time))?.unwrap_or_default();
                // Decisions of other settings are not these.
                let kept = Cache::new(CACHE_LIMIT);
                let key = cache.key.iter().enumerate().map(compile).collect::<Result<_, _>>()?;
                Some(Decisions { key, time, kept: Arc::new(kept) })
            }
        };
        Ok(Self(Arc::new(Inner {
            remote,
            path,
            timeout: positive("timeout", spec.timeout.as_deref())?.unwrap_or(DEFAULT_TIMEOUT),
            fields: spec.fields.as_deref().map(|names| field_names("fields", names)).transpose()?,
            content,
            identity: field_names("identityFields", &spec.identity_fields)?,
            client: field_names("clientFields", &spec.client_fields)?,
            subject: match &spec.subject_field {
                None => None,
                Some(name) => Some(field_name("subjectField", name)?),
            },
            extensions: spec.context_extensions,
            on_failure: spec.on_failure,
            cache,
        })))
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        let inner = &self.0;
        // Whatever becomes of it, nobody but the service says who somebody is.
        for name in &inner.identity {
            crate::credential::remove_forged(&mut req.fields, name);
        }
        let key = inner.key(req, cx);
        if let (Some(key), Some(cache)) = (&key, &inner.cache)
            && let Some(decision) = cache.kept.get(key, cx.unix_nanos)
        {
            return decision.carry_out(req, cx);
        }
        let content = match inner.content {
            None => &[][..],
            Some((limit, partial)) => match cx.content {
                None if req.content.is_empty() => &[],
                // One byte more tells whether there is more.
                None => return Verdict::Read(limit + 1),
                Some(ahead) if ahead.bytes.len() <= limit => ahead.bytes,
                Some(_) if !partial => return Verdict::Respond(Reply::refuse(Cause::ContentTooLarge)),
                Some(ahead) => ahead.bytes.get(..limit).unwrap_or_default(),
            },
        };
        let head_and_content = inner.question(req, cx, content);
        let Some(out) = cx.out else {
            // Thought through only: what the service would say is not known.
            return Verdict::Wait(Box::pin(std::future::pending()));
        };
        let (head, content) = head_and_content;
        let call = Call { head, content, time: inner.timeout, max_content: ANSWER_MAX };
        let (inner, asked) = (Arc::clone(inner), out.call(&inner.remote, call));
        Verdict::Wait(Box::pin(async move {
            let decision = asked.await.and_then(|answer| inner.read(answer));
            Outcome::Apply(Box::new(move |req, cx| inner.settle(decision, key, req, cx)))
        }))
    }
}

impl Inner {
    /// What the decision depends on; `None` when it is not to be kept.
    fn key(&self, req: &RequestHead, cx: &Exchange<'_>) -> Option<Key> {
        let cache = self.cache.as_ref()?;
        let attributes = Attributes::new(req, cx);
        let mut parts = Vec::with_capacity(cache.key.len());
        for program in &cache.key {
            parts.push(format!("{:?}", program.eval(&attributes).ok()?));
        }
        let length: usize = parts.iter().map(String::len).sum();
        (length <= KEY_MAX).then(|| Key::of(parts.iter().map(|part| part.as_bytes())))
    }

    fn is_told(&self, name: &[u8]) -> bool {
        self.fields
            .as_ref()
            .is_none_or(|told| told.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name)))
    }

    /// The request to the service.
    fn question(&self, req: &RequestHead, cx: &Exchange<'_>, content: &[u8]) -> (Box<RequestHead>, Vec<u8>) {
        let mut head = Box::new(RequestHead::new());
        let Some(path) = &self.path else {
            head.set_method(b"POST");
            head.set_target(check::PATH);
            head.fields.append(Known::ContentType, b"application/grpc");
            head.accepts_trailers = true;
            let told = |name: &[u8]| self.is_told(name);
            return (head, check::request(req, cx, content, &self.extensions, told));
        };
        head.set_method(if content.is_empty() { b"GET" } else { b"POST" });
        head.set_target(path.as_bytes());
        for line in req.fields.iter().filter(|line| self.is_told(line.name)) {
            head.fields.append_raw(Known::of(line.name), line.name, line.value);
        }
        let mut target = Vec::new();
        req.write_target(&mut target);
        let client = cx.client.to_canonical().to_string();
        for (name, value) in [
            (Known::XForwardedMethod, req.method_name()),
            (Known::XForwardedProto, cx.scheme.as_str().as_bytes()),
            (Known::XForwardedHost, req.authority()),
            (Known::XForwardedUri, &target),
            (Known::XForwardedFor, client.as_bytes()),
            (Known::XRequestId, cx.request_id.as_bytes()),
        ] {
            head.fields.set(name, value);
        }
        (head, content.to_vec())
    }

    fn read(&self, answer: Answer) -> Result<Decision, Failure> {
        if self.path.is_none() {
            return check::decision(&answer, self.subject.as_ref())
                .map_err(|_| Cause::ResponseMalformed.into());
        }
        // RFC 9110 §15.6: that the service failed says nothing about the request.
        if answer.status >= 500 {
            return Err(Cause::AuthorizationUnavailable.into());
        }
        if !(200..300).contains(&answer.status) {
            let Answer { status, fields, content, .. } = answer;
            return Ok(Decision::Refuse { status, fields, content });
        }
        let copy = |names: &[FieldName], edit: fn(FieldName, FieldValue) -> Edit| {
            let lines =
                names.iter().flat_map(|name| answer.fields.find_all(name).map(move |value| (name, value)));
            lines
                .filter_map(|(name, value)| Some(edit(name.clone(), FieldValue::parse(value).ok()?)))
                .collect()
        };
        let subject = self.subject.as_ref().and_then(|name| answer.fields.find(name));
        Ok(Decision::Allow {
            request: copy(&self.identity, Edit::Append),
            response: copy(&self.client, Edit::Append),
            principal: subject.map(|subject| principal(&String::from_utf8_lossy(subject))),
        })
    }

    fn settle(
        &self,
        decision: Result<Decision, Failure>,
        key: Option<Key>,
        req: &mut RequestHead,
        cx: &mut Exchange<'_>,
    ) -> Verdict {
        match decision {
            Ok(decision) => {
                let decision = Arc::new(decision);
                if let (Some(key), Some(cache)) = (key, &self.cache) {
                    let time = u64::try_from(cache.time.as_nanos()).unwrap_or(u64::MAX);
                    cache.kept.put(key, Arc::clone(&decision), cx.unix_nanos.saturating_add(time));
                }
                decision.carry_out(req, cx)
            }
            Err(_) if self.on_failure == OnFailure::Allow => {
                cx.found.refusals.push(Refusal {
                    policy: ExtAuthz::KIND,
                    mode: Mode::FailOpen,
                    cause: Some(Cause::AuthorizationUnavailable),
                });
                Verdict::Continue
            }
            Err(_) => Verdict::Respond(Reply::refuse(Cause::AuthorizationUnavailable)),
        }
    }
}

impl Decision {
    fn carry_out(&self, req: &mut RequestHead, cx: &mut Exchange<'_>) -> Verdict {
        match self {
            Self::Allow { request, response, principal } => {
                request.iter().for_each(|edit| edit.apply(&mut req.fields));
                cx.found.response_edits.extend(response.iter().cloned());
                if let Some(principal) = principal {
                    cx.prove(Arc::clone(principal));
                }
                Verdict::Continue
            }
            Self::Refuse { status, fields, content } => {
                let mut head = ResponseHead::with_status(*status);
                head.fields = fields.clone();
                let (content, cause) = (content.clone(), Some(Cause::AccessDenied));
                Verdict::Respond(Box::new(Reply { head, content, cause, detail: None, is_complete: true }))
            }
        }
    }
}

fn principal(subject: &str) -> Arc<Principal> {
    Arc::new(Principal { method: ExtAuthz::KIND, subject: subject.into(), ..Principal::default() })
}

fn field_name(field: &str, name: &str) -> Result<FieldName, Invalid> {
    FieldName::parse(name.as_bytes())
        .map_err(|_| Invalid::new(field, format!("`{name}` is no field name"), "write a name such as x-user"))
}

fn field_names(field: &str, names: &[String]) -> Result<Box<[FieldName]>, Invalid> {
    names.iter().enumerate().map(|(at, name)| field_name(&format!("{field}[{at}]"), name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use rhumb_codec::head::Scheme;
    use serde_json::json;

    fn policy(spec: serde_json::Value) -> Result<ExtAuthz, Invalid> {
        compile_alone(serde_json::from_value(spec).unwrap())
    }

    fn exchange() -> Exchange<'static> {
        Exchange { unix_nanos: 5, ..Exchange::new([10, 0, 0, 7].into(), Scheme::Https, 443) }
    }

    fn request() -> RequestHead {
        let mut req = RequestHead::new();
        req.set_method(b"PUT");
        req.set_authority(b"api.test");
        req.set_target(b"/a?b=1");
        req.fields.append(Known::Authorization, b"Bearer t");
        req.fields.append_raw(Known::Other, b"x-user", b"root");
        req
    }

    fn answer(status: u16, lines: &[(&str, &str)]) -> Answer {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.append_raw(Known::of(name.as_bytes()), name.as_bytes(), value.as_bytes());
        }
        Answer { status, fields, content: b"no".to_vec(), trailers: None }
    }

    #[test]
    fn the_service_is_asked_about_the_clients_request() {
        let authz = policy(json!({ "http": { "url": "http://auth.test/verify?x=1" } })).unwrap();
        let (head, content) = authz.0.question(&request(), &exchange(), b"");
        assert_eq!(
            (head.method_name(), head.path(), head.query()),
            (&b"GET"[..], &b"/verify"[..], Some(&b"x=1"[..]))
        );
        assert!(content.is_empty());
        for (name, value) in [
            (Known::XForwardedMethod, &b"PUT"[..]),
            (Known::XForwardedUri, b"/a?b=1"),
            (Known::XForwardedHost, b"api.test"),
            (Known::XForwardedProto, b"https"),
            (Known::XForwardedFor, b"10.0.0.7"),
            (Known::Authorization, b"Bearer t"),
        ] {
            assert_eq!(head.fields.get_only(name), Some(value), "{name:?}");
        }
        let told = policy(json!({ "http": { "url": "http://a/" }, "fields": ["X-User"] })).unwrap();
        let (head, _) = told.0.question(&request(), &exchange(), b"x");
        assert!(!head.fields.has(Known::Authorization) && head.method_name() == b"POST");
    }

    #[test]
    fn identity_is_the_services_alone() {
        let authz = policy(json!({
            "http": { "url": "http://a/" }, "identityFields": ["x-user"], "subjectField": "x-user",
            "clientFields": ["set-cookie"],
        }))
        .unwrap();
        let (mut req, mut cx) = (request(), exchange());
        let Verdict::Wait(_) = authz.on_request(&mut req, &mut (), &mut cx) else { panic!("decided alone") };
        let user = FieldName::parse(b"x-user").unwrap();
        assert_eq!(req.fields.find(&user), None);
        let allowed =
            answer(204, &[("X-User", "ann"), ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-else", "1")]);
        let decision = authz.0.read(allowed);
        assert!(matches!(authz.0.settle(decision, None, &mut req, &mut cx), Verdict::Continue));
        assert_eq!(req.fields.find(&user), Some(&b"ann"[..]));
        assert_eq!(cx.principal().map(|p| &*p.subject), Some("ann"));
        assert_eq!(cx.found.response_edits.len(), 2);
    }

    #[test]
    fn a_refusal_is_the_clients_answer_and_a_failure_is_not() {
        let authz = policy(json!({ "http": { "url": "http://a/" } })).unwrap();
        let (mut req, mut cx) = (request(), exchange());
        let decision = authz.0.read(answer(302, &[("location", "/login")]));
        let Verdict::Respond(reply) = authz.0.settle(decision, None, &mut req, &mut cx) else { panic!() };
        assert_eq!((reply.head.status, reply.head.fields.get(Known::Location)), (302, Some(&b"/login"[..])));
        let failed = authz.0.read(answer(502, &[]));
        let Verdict::Respond(reply) = authz.0.settle(failed, None, &mut req, &mut cx) else { panic!() };
        assert_eq!(reply.cause, Some(Cause::AuthorizationUnavailable));
        let open = policy(json!({ "http": { "url": "http://a/" }, "onFailure": "Allow" })).unwrap();
        let failed = Err(Cause::BackendTimeout.into());
        assert!(matches!(open.0.settle(failed, None, &mut req, &mut cx), Verdict::Continue));
        assert_eq!(cx.found.refusals.last().map(|refusal| refusal.mode), Some(Mode::FailOpen));
    }

    #[test]
    fn decisions_are_kept_by_what_they_depend_on() {
        let authz = policy(json!({
            "http": { "url": "http://a/" },
            "cache": { "key": ["request.headers['authorization']", "request.path"], "time": "10s" },
        }))
        .unwrap();
        let (mut req, mut cx) = (request(), exchange());
        let key = authz.0.key(&req, &cx);
        assert!(key.is_some());
        let _ = authz.0.settle(authz.0.read(answer(204, &[])), key, &mut req, &mut cx);
        assert!(matches!(authz.on_request(&mut req, &mut (), &mut cx), Verdict::Continue));
        cx.unix_nanos += 10_000_000_000;
        assert!(matches!(authz.on_request(&mut req, &mut (), &mut cx), Verdict::Wait(_)));
        req.set_path(b"/other");
        cx.unix_nanos = 6;
        assert!(matches!(authz.on_request(&mut req, &mut (), &mut cx), Verdict::Wait(_)));
        req.fields.remove(Known::Authorization);
        assert_eq!(authz.0.key(&req, &cx), None, "without a value nothing is kept");
    }

    #[test]
    fn mistakes_are_named() {
        for (spec, field) in [
            (json!({}), ""),
            (json!({ "http": { "url": "a/b" } }), "http.url"),
            (json!({ "http": { "url": "http://a/" }, "grpc": { "backend": "b" } }), "http"),
            (json!({ "http": { "url": "http://a/" }, "content": { "limit": "2Mi" } }), "content.limit"),
            (json!({ "http": { "url": "http://a/" }, "cache": { "key": [], "time": "1s" } }), "cache.key"),
            (json!({ "http": { "url": "http://a/" }, "identityFields": ["a b"] }), "identityFields[0]"),
            (json!({ "grpc": { "backend": "b" }, "clientFields": ["x"] }), "clientFields"),
        ] {
            assert_eq!(
                policy(spec.clone()).err().map(|invalid| invalid.field).as_deref(),
                Some(field),
                "{spec}"
            );
        }
    }
}
