//! Response fields that make browsers careful.

use rhumb_codec::field::{FieldName, FieldValue};
use rhumb_codec::head::{RequestHead, ResponseHead, Scheme};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::exchange::Exchange;
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};

/// Default of [`Hsts::max_age`], a year in seconds.
pub const DEFAULT_HSTS_MAX_AGE: u64 = 31_536_000;

/// Sets response fields that protect pages. What is not written has a careful default; `off` leaves a field to the backend.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Spec {
    /// `Strict-Transport-Security`, on https only (RFC 6797 §7.2). Default: off, because it cannot be taken back.
    pub hsts: Option<Hsts>,
    /// `X-Content-Type-Options`. Default: `nosniff`.
    pub content_type_options: Option<String>,
    /// `X-Frame-Options`: `DENY`, `SAMEORIGIN` or `off`. Default: `SAMEORIGIN`.
    pub frame_options: Option<String>,
    /// `Referrer-Policy`. Default: `strict-origin-when-cross-origin`.
    pub referrer_policy: Option<String>,
    /// `Content-Security-Policy`. Default: off.
    pub content_security_policy: Option<String>,
    /// `Permissions-Policy`. Default: off.
    pub permissions_policy: Option<String>,
    /// `Cross-Origin-Opener-Policy`. Default: off.
    pub cross_origin_opener_policy: Option<String>,
    /// `Cross-Origin-Resource-Policy`. Default: off.
    pub cross_origin_resource_policy: Option<String>,
}

/// How long browsers use https only.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hsts {
    /// Seconds. Default: 31536000, a year.
    #[serde(default)]
    pub max_age: Option<u64>,
    /// Also for every subdomain. Default: false.
    #[serde(default)]
    pub include_subdomains: bool,
    /// Agree to be in the lists that browsers ship. Default: false.
    #[serde(default)]
    pub preload: bool,
}

/// Compiled fields.
pub struct SecurityFields {
    always: Box<[(FieldName, FieldValue)]>,
    hsts: Option<(FieldName, FieldValue)>,
}

const OFF: &str = "off";

impl HttpPolicy for SecurityFields {
    const KIND: &'static str = "securityFields";
    const HOOKS: Hooks = Hooks::RESPONSE;
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        let one_of = |field: &str, value: &Option<String>, allowed: &[&str]| match value {
            Some(text) if text != OFF && !allowed.contains(&text.as_str()) => {
                let fix = format!("write {} or {OFF}", allowed.join(", "));
                Err(Invalid::new(field, format!("`{text}` is none of its values"), fix))
            }
            _ => Ok(()),
        };
        one_of("contentTypeOptions", &spec.content_type_options, &["nosniff"])?;
        one_of("frameOptions", &spec.frame_options, &["DENY", "SAMEORIGIN"])?;
        one_of("referrerPolicy", &spec.referrer_policy, REFERRER_POLICIES)?;
        one_of("crossOriginOpenerPolicy", &spec.cross_origin_opener_policy, OPENER_POLICIES)?;
        one_of("crossOriginResourcePolicy", &spec.cross_origin_resource_policy, RESOURCE_POLICIES)?;
        let mut always = Vec::new();
        for (field, name, value, default) in [
            ("contentTypeOptions", "x-content-type-options", spec.content_type_options, Some("nosniff")),
            ("frameOptions", "x-frame-options", spec.frame_options, Some("SAMEORIGIN")),
            (
                "referrerPolicy",
                "referrer-policy",
                spec.referrer_policy,
                Some("strict-origin-when-cross-origin"),
            ),
            ("contentSecurityPolicy", "content-security-policy", spec.content_security_policy, None),
            ("permissionsPolicy", "permissions-policy", spec.permissions_policy, None),
            ("crossOriginOpenerPolicy", "cross-origin-opener-policy", spec.cross_origin_opener_policy, None),
            (
                "crossOriginResourcePolicy",
                "cross-origin-resource-policy",
                spec.cross_origin_resource_policy,
                None,
            ),
        ] {
            if let Some(value) = value.as_deref().or(default).filter(|value| *value != OFF) {
                always.push(pair(field, name, value)?);
            }
        }
        let hsts = match &spec.hsts {
            None => None,
            Some(hsts) => {
                let max_age = hsts.max_age.unwrap_or(DEFAULT_HSTS_MAX_AGE);
                if hsts.preload && (!hsts.include_subdomains || max_age < DEFAULT_HSTS_MAX_AGE) {
                    let fix = "write `includeSubdomains: true` and `maxAge: 31536000` or more";
                    return Err(Invalid::new(
                        "hsts.preload",
                        "the lists of browsers take only whole domains for a year",
                        fix,
                    ));
                }
                let mut value = format!("max-age={max_age}");
                if hsts.include_subdomains {
                    value.push_str("; includeSubDomains");
                }
                if hsts.preload {
                    value.push_str("; preload");
                }
                Some(pair("hsts", "strict-transport-security", &value)?)
            }
        };
        Ok(Self { always: always.into(), hsts })
    }

    fn on_request(&self, _: &mut RequestHead, _: &mut (), _: &mut Exchange<'_>) -> Verdict {
        Verdict::Continue
    }

    fn on_response(&self, rsp: &mut ResponseHead, _: &mut (), cx: &mut Exchange<'_>) {
        for (name, value) in &self.always {
            rsp.fields.set_named(name, value);
        }
        // RFC 6797 §7.2: not over plain text.
        if let (Some((name, value)), Scheme::Https) = (&self.hsts, cx.scheme) {
            rsp.fields.set_named(name, value);
        }
    }
}

fn pair(field: &str, name: &str, value: &str) -> Result<(FieldName, FieldValue), Invalid> {
    let value = FieldValue::parse(value.as_bytes())
        .map_err(|error| Invalid::new(field, error.to_string(), "write it in one line"))?;
    let name =
        FieldName::parse(name.as_bytes()).map_err(|error| Invalid::new(field, error.to_string(), ""))?;
    Ok((name, value))
}

const REFERRER_POLICIES: &[&str] = &[
    "no-referrer",
    "no-referrer-when-downgrade",
    "origin",
    "origin-when-cross-origin",
    "same-origin",
    "strict-origin",
    "strict-origin-when-cross-origin",
    "unsafe-url",
];

const OPENER_POLICIES: &[&str] =
    &["same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none"];

const RESOURCE_POLICIES: &[&str] = &["same-origin", "same-site", "cross-origin"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;

    fn fields(spec: serde_json::Value, scheme: Scheme) -> Vec<String> {
        let policy = compile_alone::<SecurityFields>(serde_json::from_value(spec).unwrap()).unwrap();
        let mut rsp = ResponseHead::with_status(200);
        policy.on_response(&mut rsp, &mut (), &mut Exchange::new([127, 0, 0, 1].into(), scheme, 80));
        let line = |line: rhumb_codec::field::FieldLine<'_>| {
            format!("{}: {}", String::from_utf8_lossy(line.name), String::from_utf8_lossy(line.value))
        };
        rsp.fields.iter().map(line).collect()
    }

    #[test]
    fn defaults_are_careful_and_can_be_left_out() {
        let defaults = fields(serde_json::json!({}), Scheme::Https);
        assert_eq!(
            defaults,
            [
                "x-content-type-options: nosniff",
                "x-frame-options: SAMEORIGIN",
                "referrer-policy: strict-origin-when-cross-origin"
            ]
        );
        let off = serde_json::json!({ "contentTypeOptions": "off", "frameOptions": "off", "referrerPolicy": "off" });
        assert!(fields(off, Scheme::Https).is_empty());
    }

    #[test]
    fn transport_security_is_told_over_tls_only() {
        let spec = serde_json::json!({ "hsts": { "includeSubdomains": true, "preload": true } });
        let wanted = "strict-transport-security: max-age=31536000; includeSubDomains; preload".to_owned();
        assert!(fields(spec.clone(), Scheme::Https).contains(&wanted));
        assert!(!fields(spec, Scheme::Http).contains(&wanted));
    }

    #[test]
    fn mistakes_are_named() {
        for (spec, field) in [
            (serde_json::json!({ "frameOptions": "deny" }), "frameOptions"),
            (serde_json::json!({ "referrerPolicy": "none" }), "referrerPolicy"),
            (serde_json::json!({ "contentSecurityPolicy": "a\nb" }), "contentSecurityPolicy"),
            (serde_json::json!({ "hsts": { "preload": true } }), "hsts.preload"),
        ] {
            let invalid =
                compile_alone::<SecurityFields>(serde_json::from_value(spec).unwrap()).err().unwrap();
            assert_eq!(invalid.field, field);
        }
    }
}
