//! Cross-origin resource sharing. Gateway API `HTTPCORSFilter`, Fetch standard §3.2.
//!
//! Sees the client's request before every authentication: a preflight carries no credentials. Preflights of allowed
//! origins are answered here; those of other origins too, without permission, so that no backend can grant it.
//! Responses of this route, also the proxy's own errors, get the fields that let a page read them.

use rhumb_codec::field::{Fields, Known, KnownSet};
use rhumb_codec::head::{Method, RequestHead, ResponseHead};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::exchange::{Exchange, Reply};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};

/// How long a browser may keep the answer to a preflight, in seconds, when nothing is written (Gateway API default).
pub const DEFAULT_MAX_AGE: u32 = 5;

/// Lets pages of other origins read responses.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Origins that may read: `https://app.example.com`, `https://*.example.com`, or `*` for all.
    pub allow_origins: Vec<String>,
    /// Cookies and other credentials may be sent. Default: false. With `*` the asking origin is echoed.
    #[serde(default)]
    pub allow_credentials: bool,
    /// Methods beyond GET, HEAD and POST; `*` for all. Default: none.
    #[serde(default)]
    pub allow_methods: Vec<String>,
    /// Request fields beyond the safelisted ones; `*` for all. Default: none.
    #[serde(default)]
    pub allow_headers: Vec<String>,
    /// Response fields that pages may read; `*` for all. Default: the safelisted ones.
    #[serde(default)]
    pub expose_headers: Vec<String>,
    /// Seconds that a browser may keep a preflight's answer. Default: 5.
    #[serde(default)]
    pub max_age: Option<u32>,
}

/// Compiled rules.
pub struct Cors {
    origins: Box<[Origin]>,
    credentials: bool,
    methods: List,
    headers: List,
    expose: List,
    max_age: u32,
}

enum Origin {
    Any,
    Exact(Box<[u8]>),
    /// `scheme://*.rest`: what stands before and after the star.
    Wildcard(Box<[u8]>, Box<[u8]>),
}

/// A joined list, or everything.
struct List {
    all: bool,
    joined: Box<[u8]>,
}

/// The origin that was allowed, for the response.
#[derive(Default)]
pub struct Allowed(Option<Box<[u8]>>);

const ANSWERED_HERE: KnownSet = KnownSet::of(&[
    Known::AccessControlAllowOrigin,
    Known::AccessControlAllowCredentials,
    Known::AccessControlExposeHeaders,
    Known::AccessControlAllowMethods,
    Known::AccessControlAllowHeaders,
    Known::AccessControlMaxAge,
]);

impl HttpPolicy for Cors {
    const KIND: &'static str = "cors";
    const HOOKS: Hooks = Hooks::REQUEST.or(Hooks::RESPONSE);
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = Allowed;

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        if spec.allow_origins.is_empty() {
            return Err(Invalid::new("allowOrigins", "is empty", "list the origins, or * for all"));
        }
        let origins = spec
            .allow_origins
            .iter()
            .enumerate()
            .map(|(at, text)| Origin::parse(at, text))
            .collect::<Result<_, _>>()?;
        if spec.max_age == Some(0) {
            return Err(Invalid::new("maxAge", "0 is not allowed", "write at least 1 second"));
        }
        Ok(Self {
            origins,
            credentials: spec.allow_credentials,
            methods: List::parse("allowMethods", &spec.allow_methods)?,
            headers: List::parse("allowHeaders", &spec.allow_headers)?,
            expose: List::parse("exposeHeaders", &spec.expose_headers)?,
            max_age: spec.max_age.unwrap_or(DEFAULT_MAX_AGE),
        })
    }

    fn on_request(&self, req: &mut RequestHead, state: &mut Allowed, _: &mut Exchange<'_>) -> Verdict {
        let Some(origin) = req.fields.get_only(Known::Origin) else { return Verdict::Continue };
        let allowed = self.origins.iter().any(|pattern| pattern.matches(origin));
        if allowed {
            state.0 = Some(origin.into());
        }
        // Fetch §3.2.2: a preflight is OPTIONS with Access-Control-Request-Method.
        if req.method() != Method::Options || !req.fields.has(Known::AccessControlRequestMethod) {
            return Verdict::Continue;
        }
        let mut reply = Reply::with_status(204);
        if allowed {
            let fields = reply.fields();
            self.methods.write(
                fields,
                Known::AccessControlAllowMethods,
                req.fields.get(Known::AccessControlRequestMethod),
            );
            self.headers.write(
                fields,
                Known::AccessControlAllowHeaders,
                req.fields.get(Known::AccessControlRequestHeaders),
            );
            fields.append(Known::AccessControlMaxAge, self.max_age.to_string().as_bytes());
        }
        reply.fields().append(Known::Vary, b"Access-Control-Request-Method, Access-Control-Request-Headers");
        Verdict::Respond(reply)
    }

    fn on_response(&self, rsp: &mut ResponseHead, state: &mut Allowed, _: &mut Exchange<'_>) {
        let fields = &mut rsp.fields;
        let is_public = !self.credentials && self.origins.iter().any(|origin| matches!(origin, Origin::Any));
        if !is_public {
            // RFC 9110 §12.5.5: the answer depends on the asking origin, a cache must know.
            fields.append(Known::Vary, b"Origin");
        }
        let Some(origin) = &state.0 else {
            // This policy decides alone: what the backend grants does not count.
            fields.remove_set(ANSWERED_HERE);
            return;
        };
        fields.set(Known::AccessControlAllowOrigin, if is_public { b"*" } else { origin });
        if self.credentials {
            fields.set(Known::AccessControlAllowCredentials, b"true");
        }
        if self.expose.all && !self.credentials {
            fields.set(Known::AccessControlExposeHeaders, b"*");
        } else if !self.expose.joined.is_empty() {
            fields.set(Known::AccessControlExposeHeaders, &self.expose.joined);
        }
    }
}

impl Origin {
    fn parse(at: usize, text: &str) -> Result<Self, Invalid> {
        let wrong = |why: &str| {
            Invalid::new(
                format!("allowOrigins[{at}]"),
                format!("{text:?} {why}"),
                "write scheme://host[:port], scheme://*.domain, or *",
            )
        };
        if text == "*" {
            return Ok(Self::Any);
        }
        let lower = text.to_ascii_lowercase();
        let Some((scheme, host)) = lower.split_once("://") else { return Err(wrong("is not an origin")) };
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        if !is_scheme
            || host.is_empty()
            || host.contains(['/', '?', '#', '@'])
            || !host.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(wrong("is not an origin"));
        }
        match host.split_once('*') {
            None => Ok(Self::Exact(lower.into_bytes().into())),
            Some(("", rest)) if rest.starts_with('.') && !rest.contains('*') => {
                Ok(Self::Wildcard(format!("{scheme}://").into_bytes().into(), rest.as_bytes().into()))
            }
            Some(_) => Err(wrong("has a star that does not stand for whole leading labels")),
        }
    }

    fn matches(&self, origin: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => origin.eq_ignore_ascii_case(exact),
            Self::Wildcard(before, after) => {
                let Some(middle_end) = origin.len().checked_sub(after.len()) else { return false };
                let (Some(head), Some(middle), Some(tail)) = (
                    origin.get(..before.len()),
                    origin.get(before.len()..middle_end),
                    origin.get(middle_end..),
                ) else {
                    return false;
                };
                head.eq_ignore_ascii_case(before)
                    && tail.eq_ignore_ascii_case(after)
                    && !middle.is_empty()
                    && middle.iter().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(b))
            }
        }
    }
}

impl List {
    fn parse(field: &str, items: &[String]) -> Result<Self, Invalid> {
        for (at, item) in items.iter().enumerate() {
            if rhumb_codec::field::FieldName::parse(item.as_bytes()).is_err() {
                return Err(Invalid::new(
                    format!("{field}[{at}]"),
                    format!("{item:?} is not a token"),
                    "write one name per item",
                ));
            }
        }
        let all = items.iter().any(|item| item == "*");
        // The fallback of "all" is empty: with credentials a star means the literal name (Fetch §3.2.3).
        let joined = if all { String::new() } else { items.join(", ") };
        Ok(Self { all, joined: joined.into_bytes().into() })
    }

    /// Writes the list; for "all" what was asked is echoed, which holds with credentials too (Fetch §3.2.3).
    fn write(&self, fields: &mut Fields, name: Known, asked: Option<&[u8]>) {
        match asked {
            Some(asked) if self.all => fields.append(name, asked),
            _ if self.joined.is_empty() => {}
            _ => fields.append(name, &self.joined),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use rhumb_codec::head::Scheme;
    use serde_json::json;

    fn cors(body: serde_json::Value) -> Cors {
        compile_alone::<Cors>(serde_json::from_value(body).unwrap())
            .unwrap_or_else(|invalid| panic!("{invalid}"))
    }

    fn request(method: &[u8], origin: &[u8]) -> RequestHead {
        let mut req = RequestHead::new();
        req.set_method(method);
        req.fields.append(Known::Origin, origin);
        req
    }

    fn exchange() -> Exchange<'static> {
        let client = std::net::Ipv4Addr::LOCALHOST.into();
        Exchange::new(client, Scheme::Http, 80)
    }

    fn answer(cors: &Cors, req: &mut RequestHead) -> (bool, ResponseHead) {
        let mut state = Allowed::default();
        let (replied, mut head) = match cors.on_request(req, &mut state, &mut exchange()) {
            Verdict::Respond(reply) => (true, reply.head),
            _ => (false, ResponseHead::with_status(200)),
        };
        cors.on_response(&mut head, &mut state, &mut exchange());
        (replied, head)
    }

    #[test]
    fn origins_match_exactly_or_by_whole_labels() {
        for (pattern, origin, expected) in [
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "HTTPS://A.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("https://*.example", "https://a.example", true),
            ("https://*.example", "https://b.a.example", true),
            ("https://*.example", "https://.example", false),
            ("https://*.example", "https://example", false),
            ("https://*.example", "https://evil/.example", false),
            ("*", "null", true),
        ] {
            assert_eq!(
                Origin::parse(0, pattern).unwrap().matches(origin.as_bytes()),
                expected,
                "{pattern} {origin}"
            );
        }
        for bad in ["a.example", "https://", "https://a.*.example", "https://a.example/x", "https://*"] {
            assert!(Origin::parse(0, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_preflight_is_answered_here() {
        let cors = cors(
            json!({ "allowOrigins": ["https://a.example"], "allowMethods": ["PUT"], "allowHeaders": ["*"], "maxAge": 60 }),
        );
        let mut req = request(b"OPTIONS", b"https://a.example");
        req.fields.append(Known::AccessControlRequestMethod, b"PUT");
        req.fields.append(Known::AccessControlRequestHeaders, b"x-a,x-b");
        let (replied, head) = answer(&cors, &mut req);
        assert!(replied && head.status == 204);
        assert_eq!(head.fields.get(Known::AccessControlAllowOrigin), Some(&b"https://a.example"[..]));
        assert_eq!(head.fields.get(Known::AccessControlAllowMethods), Some(&b"PUT"[..]));
        assert_eq!(head.fields.get(Known::AccessControlAllowHeaders), Some(&b"x-a,x-b"[..]));
        assert_eq!(head.fields.get(Known::AccessControlMaxAge), Some(&b"60"[..]));
    }

    #[test]
    fn another_origin_gets_no_permission() {
        let cors = cors(json!({ "allowOrigins": ["https://a.example"] }));
        let mut req = request(b"OPTIONS", b"https://b.example");
        req.fields.append(Known::AccessControlRequestMethod, b"PUT");
        let (replied, head) = answer(&cors, &mut req);
        assert!(replied && !head.fields.present().intersects(ANSWERED_HERE));
    }

    #[test]
    fn plain_options_reach_the_backend_and_credentials_never_get_a_star() {
        let cors = cors(json!({ "allowOrigins": ["*"], "allowCredentials": true, "exposeHeaders": ["*"] }));
        let (replied, head) = answer(&cors, &mut request(b"OPTIONS", b"https://a.example"));
        assert!(!replied);
        assert_eq!(head.fields.get(Known::AccessControlAllowOrigin), Some(&b"https://a.example"[..]));
        assert_ne!(head.fields.get(Known::AccessControlExposeHeaders), Some(&b"*"[..]));
        assert_eq!(head.fields.get(Known::Vary), Some(&b"Origin"[..]));
    }
}
