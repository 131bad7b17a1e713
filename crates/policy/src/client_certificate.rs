//! Client certificates as proof of who asks. The listener has verified them (`tls.clientAuth`, or `frontendValidation` of
//! Gateway API); here they become a principal, and may be narrowed to some.

use std::sync::Arc;

use rhumb_base::failure::Cause;
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::consumers::Consumers;
use crate::context::Context;
use crate::credential::Missing;
use crate::exchange::{Exchange, Reply};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};
use crate::principal::{Certificate, Principal};

/// Most certificates of one list.
pub const ALLOW_LIMIT: usize = 1024;

/// Requests need a client certificate that the listener has verified.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Spec {
    /// Certificates that may ask: any that meets one of these. Default: every one that the listener takes.
    pub allow: Vec<AllowSpec>,
    /// What names who asks: `SpiffeId`, `Name` (the first subject alternative name), `Subject` or `Fingerprint`. Default: the
    /// first of these that the certificate has.
    pub subject: Option<SubjectFrom>,
    /// What to do without a certificate: `Refuse`, or `Continue`. Default: refuse, unless `anonymous` or `authenticated`
    /// decide.
    pub missing: Option<Missing>,
}

/// A certificate, by all that is written.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AllowSpec {
    /// Its subject, as RFC 4514 writes it: `CN=api,O=Example`.
    pub subject: Option<String>,
    /// One of its subject alternative names: a DNS name, URI, mail or IP address.
    pub san: Option<String>,
    /// SHA-256 of it in hexadecimal, with or without colons.
    pub fingerprint: Option<String>,
}

/// What of a certificate names who asks.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
pub enum SubjectFrom {
    /// The SPIFFE ID.
    SpiffeId,
    /// The first subject alternative name.
    Name,
    /// The subject.
    Subject,
    /// The SHA-256.
    Fingerprint,
}

/// A compiled policy.
pub struct ClientCertificate {
    allow: Box<[AllowSpec]>,
    subject: Option<SubjectFrom>,
    missing: Option<Missing>,
    consumers: Arc<Consumers>,
}

impl HttpPolicy for ClientCertificate {
    const KIND: &'static str = "clientCertificate";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        if spec.allow.len() > ALLOW_LIMIT {
            let why = format!("has {} items, more than {ALLOW_LIMIT}", spec.allow.len());
            return Err(Invalid::new("allow", why, "write a condition, or Consumers"));
        }
        let mut allow = spec.allow;
        for (at, one) in allow.iter_mut().enumerate() {
            if one.subject.is_none() && one.san.is_none() && one.fingerprint.is_none() {
                let fix = "write `subject`, `san` or `fingerprint`";
                return Err(Invalid::new(format!("allow[{at}]"), "is every certificate", fix));
            }
            if let Some(text) = &mut one.fingerprint {
                *text = text.replace(':', "").to_ascii_lowercase();
                if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    let fix = "`openssl x509 -fingerprint -sha256 -noout` prints it";
                    return Err(Invalid::new(format!("allow[{at}].fingerprint"), "is no SHA-256", fix));
                }
            }
        }
        Ok(Self {
            allow: allow.into(),
            subject: spec.subject,
            missing: spec.missing,
            consumers: cx.consumers(),
        })
    }

    fn on_request(&self, _: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        let Some(certificate) = cx.certificate.as_deref() else {
            let refuses = match self.missing {
                Some(missing) => missing == Missing::Refuse,
                None => !cx.found.is_decided_later,
            };
            // No challenge of HTTP asks for a certificate (RFC 9110 §11.1), so this is no 401.
            return match refuses {
                true => Verdict::Respond(Reply::refuse(Cause::CertificateMissing)),
                false => Verdict::Continue,
            };
        };
        if !self.allow.is_empty() && !self.allow.iter().any(|one| one.meets(certificate)) {
            return Verdict::Respond(Reply::refuse(Cause::CertificateDenied));
        }
        let principal = Principal {
            method: Self::KIND,
            subject: subject(certificate, self.subject).into(),
            consumer: self.consumers.of_certificate(certificate).cloned(),
            ..Principal::default()
        };
        cx.prove(Arc::new(principal));
        Verdict::Continue
    }
}

impl AllowSpec {
    fn meets(&self, certificate: &Certificate) -> bool {
        self.subject.as_ref().is_none_or(|subject| **subject == *certificate.subject)
            && self.san.as_ref().is_none_or(|san| certificate.names().any(|name| name == san))
            && self.fingerprint.as_ref().is_none_or(|print| **print == *certificate.fingerprint)
    }
}

fn subject(certificate: &Certificate, from: Option<SubjectFrom>) -> &str {
    let of = |from| match from {
        SubjectFrom::SpiffeId => &*certificate.spiffe_id,
        SubjectFrom::Name => certificate.names().next().unwrap_or_default(),
        SubjectFrom::Subject => &certificate.subject,
        SubjectFrom::Fingerprint => &certificate.fingerprint,
    };
    let usual = [SubjectFrom::SpiffeId, SubjectFrom::Name, SubjectFrom::Subject, SubjectFrom::Fingerprint];
    match from {
        Some(from) => of(from),
        None => usual.map(of).into_iter().find(|text| !text.is_empty()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use rhumb_codec::head::Scheme;
    use serde_json::json;

    fn ask(spec: serde_json::Value, certificate: Option<Certificate>) -> Result<String, Cause> {
        let policy = compile_alone::<ClientCertificate>(serde_json::from_value(spec).unwrap()).unwrap();
        let mut cx = Exchange::new([127, 0, 0, 1].into(), Scheme::Https, 443);
        cx.certificate = certificate.map(Arc::new);
        match policy.on_request(&mut RequestHead::new(), &mut (), &mut cx) {
            Verdict::Continue => Ok(cx.principal().map(|who| who.subject.to_string()).unwrap_or_default()),
            Verdict::Respond(reply) => Err(reply.cause.unwrap()),
            _ => panic!(),
        }
    }

    #[test]
    fn a_certificate_is_who_asks() {
        let shown = || Certificate {
            subject: "CN=api,O=Example".into(),
            dns_names: ["api.test".into()].into(),
            fingerprint: "ab".repeat(32).into(),
            ..Certificate::default()
        };
        let print = ["AB"; 32].join(":");
        for (spec, expected) in [
            (json!({}), Ok("api.test")),
            (json!({ "subject": "Subject" }), Ok("CN=api,O=Example")),
            (json!({ "allow": [{ "san": "api.test" }] }), Ok("api.test")),
            (json!({ "allow": [{ "san": "other.test" }, { "fingerprint": print }] }), Ok("api.test")),
            (json!({ "allow": [{ "san": "api.test", "subject": "CN=x" }] }), Err(Cause::CertificateDenied)),
        ] {
            assert_eq!(ask(spec.clone(), Some(shown())), expected.map(str::to_owned), "{spec}");
        }
        assert_eq!(ask(json!({}), None), Err(Cause::CertificateMissing));
        assert_eq!(ask(json!({ "missing": "Continue" }), None), Ok(String::new()));
        for (spec, field) in [
            (json!({ "allow": [{}] }), "allow[0]"),
            (json!({ "allow": [{ "fingerprint": "abc" }] }), "allow[0].fingerprint"),
        ] {
            let compiled = compile_alone::<ClientCertificate>(serde_json::from_value(spec).unwrap());
            assert_eq!(compiled.err().unwrap().field, field);
        }
    }
}
