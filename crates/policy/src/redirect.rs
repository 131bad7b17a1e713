//! Answer with a redirect. Gateway API `HTTPRequestRedirectFilter`, RFC 9110 §15.4.
//!
//! Sees the client's request; ends the exchange, so no backend is asked. Nothing is bounded or secret here.

use rhumb_codec::field::Known;
use rhumb_codec::head::{RequestHead, Scheme};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::exchange::{Exchange, Reply};
use crate::path_modifier::{PathModifier, PathModifierSpec};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};

/// Redirects the client. What is not written stays as the client sent it.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// `http` or `https`.
    #[serde(default)]
    pub scheme: Option<String>,
    /// Host name of the new location.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Path of the new location.
    #[serde(default)]
    pub path: Option<PathModifierSpec>,
    /// Port of the new location. Default: the well-known port of a written scheme, else the listener's.
    #[serde(default)]
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308. Default: 302.
    #[serde(default)]
    pub status_code: Option<u16>,
}

/// A compiled redirect.
pub struct Redirect {
    scheme: Option<Scheme>,
    hostname: Option<Box<str>>,
    path: Option<PathModifier>,
    port: Option<u16>,
    status: u16,
}

impl HttpPolicy for Redirect {
    const KIND: &'static str = "redirect";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        let scheme = match spec.scheme.as_deref() {
            None => None,
            Some("http") => Some(Scheme::Http),
            Some("https") => Some(Scheme::Https),
            Some(_) => {
                return Err(Invalid::new("scheme", "is neither http nor https", "write http or https"));
            }
        };
        let status = spec.status_code.unwrap_or(302);
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            return Err(Invalid::new(
                "statusCode",
                format!("{status} is not a redirect"),
                "write 301, 302, 303, 307 or 308",
            ));
        }
        if let Some(hostname) = &spec.hostname {
            check_hostname(hostname)?;
        }
        if spec.port == Some(0) {
            return Err(Invalid::new("port", "0 is not a port", "write 1 to 65535"));
        }
        let path = spec.path.map(PathModifier::compile).transpose()?;
        Ok(Self { scheme, hostname: spec.hostname.map(Into::into), path, port: spec.port, status })
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        let scheme = self.scheme.unwrap_or(cx.scheme);
        let mut location = Vec::with_capacity(128);
        location.extend_from_slice(scheme.as_str().as_bytes());
        location.extend_from_slice(b"://");
        match &self.hostname {
            Some(hostname) => location.extend_from_slice(hostname.as_bytes()),
            None => location.extend_from_slice(req.host()),
        }
        // Gateway API: a written scheme implies its well-known port; otherwise the listener's port stays.
        let well_known = if scheme == Scheme::Https { 443 } else { 80 };
        let unwritten = if self.scheme.is_some() { well_known } else { cx.port };
        let port = self.port.unwrap_or(unwritten);
        if port != well_known {
            location.extend_from_slice(format!(":{port}").as_bytes());
        }
        match &self.path {
            Some(path) => location.extend_from_slice(&path.apply(req, cx.matched_prefix)),
            None => location.extend_from_slice(req.path()),
        }
        if let Some(query) = req.query() {
            location.push(b'?');
            location.extend_from_slice(query);
        }
        let mut reply = Reply::with_status(self.status);
        reply.fields().append(Known::Location, &location);
        Verdict::Respond(reply)
    }
}

/// A host name without port (RFC 1123), or an IPv4 address.
pub(crate) fn check_hostname(hostname: &str) -> Result<(), Invalid> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if hostname.len() <= 253 && hostname.split('.').all(label) {
        return Ok(());
    }
    Err(Invalid::new(
        "hostname",
        format!("{hostname:?} is not a host name"),
        "write a name such as api.example.com, without scheme or port",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use serde_json::json;

    fn location(
        body: serde_json::Value,
        scheme: Scheme,
        port: u16,
        target: &str,
        prefix: Option<usize>,
    ) -> (u16, String) {
        let spec = serde_json::from_value(body).unwrap();
        let redirect = compile_alone::<Redirect>(spec).unwrap_or_else(|invalid| panic!("{invalid}"));
        let mut req = RequestHead::new();
        req.set_authority(b"a.example:8080");
        req.set_target(target.as_bytes());
        let client = std::net::Ipv4Addr::LOCALHOST.into();
        let mut cx = Exchange { matched_prefix: prefix, ..Exchange::new(client, scheme, port) };
        let Verdict::Respond(reply) = redirect.on_request(&mut req, &mut (), &mut cx) else {
            panic!("no reply")
        };
        let location = reply.head.fields.get(Known::Location).unwrap();
        (reply.head.status, String::from_utf8(location.to_vec()).unwrap())
    }

    #[test]
    fn what_is_not_written_stays() {
        for (body, scheme, port, expected) in [
            (json!({ "scheme": "https" }), Scheme::Http, 80, "https://a.example/x?y"),
            (json!({ "scheme": "https", "port": 8443 }), Scheme::Http, 80, "https://a.example:8443/x?y"),
            (json!({ "hostname": "b.example" }), Scheme::Http, 8080, "http://b.example:8080/x?y"),
            (json!({ "hostname": "b.example" }), Scheme::Https, 443, "https://b.example/x?y"),
            (
                json!({ "path": { "type": "ReplaceFullPath", "replaceFullPath": "/z" } }),
                Scheme::Http,
                80,
                "http://a.example/z?y",
            ),
        ] {
            assert_eq!(location(body, scheme, port, "/x?y", None), (302, expected.into()));
        }
    }

    #[test]
    fn a_matched_prefix_is_replaced() {
        let body = json!({ "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/v2" }, "statusCode": 301 });
        assert_eq!(location(body, Scheme::Http, 80, "/v1/a", Some(3)), (301, "http://a.example/v2/a".into()));
    }

    #[test]
    fn mistakes_are_refused() {
        for body in [
            json!({ "scheme": "ftp" }),
            json!({ "statusCode": 200 }),
            json!({ "hostname": "a b" }),
            json!({ "port": 0 }),
        ] {
            assert!(
                compile_alone::<Redirect>(serde_json::from_value(body.clone()).unwrap()).is_err(),
                "{body}"
            );
        }
    }
}
