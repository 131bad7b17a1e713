//! Requests that another site made a browser send.
//!
//! Browsers say where an unsafe request comes from: `Sec-Fetch-Site` (Fetch Metadata), older ones `Origin` (RFC 6454 §7).
//! No token is needed and no page has to change. A request with neither field is not from a browser that runs pages, and
//! passes: programs send what they like anyway.

use rhumb_base::failure::Cause;
use rhumb_codec::field::Known;
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::exchange::{Exchange, Reply};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};

/// Refuses unsafe requests (all but GET, HEAD, OPTIONS and TRACE) that pages of other origins caused.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Spec {
    /// Other origins whose pages may send them: `https://app.example.com`. Default: none.
    pub allow_origins: Vec<String>,
    /// Requests of other sites below the same registrable domain may pass (`Sec-Fetch-Site: same-site`). Default: false.
    pub allow_same_site: bool,
}

/// Compiled rules.
pub struct Csrf {
    origins: Box<[Box<[u8]>]>,
    allow_same_site: bool,
}

impl HttpPolicy for Csrf {
    const KIND: &'static str = "csrf";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        let origin = |(at, text): (usize, &String)| {
            let is_origin = text.split_once("://").is_some_and(|(scheme, host)| {
                matches!(scheme, "http" | "https")
                    && !host.is_empty()
                    && !host.contains(['/', '*', ' ', '?', '#', '@'])
            });
            if is_origin {
                return Ok(text.to_ascii_lowercase().into_bytes().into_boxed_slice());
            }
            let why = format!("`{text}` is no origin");
            Err(Invalid::new(
                format!("allowOrigins[{at}]"),
                why,
                "write scheme, host and port: https://app.example.com",
            ))
        };
        let origins = spec.allow_origins.iter().enumerate().map(origin).collect::<Result<_, _>>()?;
        Ok(Self { origins, allow_same_site: spec.allow_same_site })
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), _: &mut Exchange<'_>) -> Verdict {
        if req.method().is_safe() || self.may_pass(req) {
            return Verdict::Continue;
        }
        Verdict::Respond(Reply::refuse(Cause::CrossSiteRequest))
    }
}

impl Csrf {
    fn may_pass(&self, req: &RequestHead) -> bool {
        let origin = req.fields.get(Known::Origin);
        if origin.is_some_and(|origin| self.origins.iter().any(|known| known.eq_ignore_ascii_case(origin))) {
            return true;
        }
        let site = req.fields.get(Known::SecFetchSite);
        match site {
            Some(b"same-origin" | b"none") => true,
            Some(b"same-site") => self.allow_same_site,
            Some(_) => false,
            None => match origin {
                None => true,
                Some(origin) => is_own(origin, req),
            },
        }
    }
}

/// True when the origin is that of the request itself. The scheme is left out: behind a proxy that ends TLS ours differs.
fn is_own(origin: &[u8], req: &RequestHead) -> bool {
    let host = origin.strip_prefix(b"https://").or_else(|| origin.strip_prefix(b"http://"));
    let default_port = |authority: &[u8]| {
        let cut = authority.strip_suffix(b":443").or_else(|| authority.strip_suffix(b":80"));
        cut.unwrap_or(authority).to_ascii_lowercase()
    };
    host.is_some_and(|host| default_port(host) == default_port(req.authority()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use rhumb_codec::head::Scheme;

    fn passes(spec: serde_json::Value, method: &str, fields: &[(&str, &str)]) -> bool {
        let policy = compile_alone::<Csrf>(serde_json::from_value(spec).unwrap()).unwrap();
        let mut req = RequestHead::new();
        req.set_method(method.as_bytes());
        req.set_authority(b"shop.example.com");
        for (name, value) in fields {
            req.fields.append_raw(Known::of(name.as_bytes()), name.as_bytes(), value.as_bytes());
        }
        let mut cx = Exchange::new([127, 0, 0, 1].into(), Scheme::Https, 443);
        matches!(policy.on_request(&mut req, &mut (), &mut cx), Verdict::Continue)
    }

    #[test]
    fn what_another_site_causes_is_refused() {
        let none = serde_json::json!({});
        let friends =
            serde_json::json!({ "allowOrigins": ["https://App.example.com"], "allowSameSite": true });
        for (spec, method, fields, expected) in [
            (&none, "GET", &[("sec-fetch-site", "cross-site")][..], true),
            (&none, "POST", &[][..], true),
            (&none, "POST", &[("sec-fetch-site", "same-origin")][..], true),
            (&none, "POST", &[("sec-fetch-site", "none")][..], true),
            (&none, "POST", &[("sec-fetch-site", "cross-site")][..], false),
            (&none, "POST", &[("sec-fetch-site", "same-site")][..], false),
            (&none, "DELETE", &[("sec-fetch-site", "same-site")][..], false),
            (&friends, "POST", &[("sec-fetch-site", "same-site")][..], true),
            (&none, "POST", &[("origin", "https://shop.example.com")][..], true),
            (&none, "POST", &[("origin", "https://shop.example.com:443")][..], true),
            (&none, "POST", &[("origin", "https://evil.example")][..], false),
            (&none, "POST", &[("origin", "null")][..], false),
            (&none, "POST", &[("origin", "https://shop.example.com.evil.example")][..], false),
            (
                &friends,
                "POST",
                &[("origin", "https://app.example.com"), ("sec-fetch-site", "cross-site")][..],
                true,
            ),
        ] {
            assert_eq!(passes(spec.clone(), method, fields), expected, "{method} {fields:?} {spec}");
        }
    }

    #[test]
    fn an_origin_has_no_path() {
        for text in ["app.example.com", "https://app.example.com/", "https://*.example.com", "ftp://a"] {
            let spec = serde_json::from_value(serde_json::json!({ "allowOrigins": [text] })).unwrap();
            assert_eq!(compile_alone::<Csrf>(spec).err().unwrap().field, "allowOrigins[0]", "{text}");
        }
    }
}
