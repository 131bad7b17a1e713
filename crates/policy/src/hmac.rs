//! Requests that a shared secret signs: the scheme of the drafts that came before RFC 9421, as Kong and APISIX have it
//! (`hmac username="…"`), and as others write it (`Signature keyId="…"`, draft-cavage-http-signatures-12).
//!
//! The signature names the fields that it is made over; `date` (or `x-date`, or `(created)`) and the request line must be among
//! them, so that a request cannot be replayed later or elsewhere. Content is not read here: where it must be signed, let
//! `digest` or `content-digest` be among `requiredFields`, and let the backend compare it. Cost: one HMAC.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use foldhash::HashMap;
use rhumb_base::base64;
use rhumb_base::failure::Cause;
use rhumb_codec::field::{FieldName, Known};
use rhumb_codec::head::{RequestHead, Version};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::consumers::Consumers;
use crate::context::{Context, SecretValue};
use crate::credential::{self, Challenge, Missing};
use crate::exchange::Exchange;
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};
use crate::principal::{Consumer, Principal};
use crate::quantity;

/// Most secrets of one policy.
pub const SECRETS_LIMIT: usize = 10_000;

/// Most parts that one signature covers.
pub const COVERED_LIMIT: usize = 64;

/// Longest value of Authorization that is read, in bytes.
const VALUE_MAX: usize = 8 << 10;

/// How far a request's date may be off where nothing is written.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// Requests need a signature that a shared secret makes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Secrets, besides those of Consumers. At most 10000.
    #[serde(default)]
    pub secrets: Vec<SecretSpec>,
    /// Secrets of the Consumers of this namespace are good. Default: true.
    #[serde(default = "yes")]
    pub consumers: bool,
    /// Algorithms that are allowed: `hmac-sha256`, `hmac-sha384`, `hmac-sha512`. Default: all of them.
    #[serde(default)]
    pub algorithms: Vec<String>,
    /// How far the request's date may be off. Default: 5m.
    #[serde(default)]
    pub clock_skew: Option<String>,
    /// Fields that must be signed too, besides a date and the request line: `host`, `digest`. Default: none.
    #[serde(default)]
    pub required_fields: Vec<String>,
    /// Pass the signature on to the backend. Default: false, it is taken out of the request.
    #[serde(default)]
    pub forward: bool,
    /// What to do without a signature: `Refuse`, or `Continue`. Default: refuse, unless `anonymous` or `authenticated` decide.
    #[serde(default)]
    pub missing: Option<Missing>,
    /// `realm` of the challenge. Default: none.
    #[serde(default)]
    pub realm: Option<String>,
}

fn yes() -> bool {
    true
}

/// A secret and its id.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretSpec {
    /// The id that requests name (`keyId`, `username`): the subject of the principal.
    pub key_id: String,
    /// The secret.
    pub secret: SecretValue,
}

/// A compiled policy.
pub struct Hmac(Box<Inner>);

struct Inner {
    secrets: HashMap<Box<str>, Box<[u8]>>,
    consumers: Option<Arc<Consumers>>,
    algorithms: Box<[Algorithm]>,
    skew: u64,
    required: Box<[Box<str>]>,
    forward: bool,
    missing: Option<Missing>,
    challenge: Challenge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    const ALL: [(&'static str, Self); 3] =
        [("hmac-sha256", Self::Sha256), ("hmac-sha384", Self::Sha384), ("hmac-sha512", Self::Sha512)];

    fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(own, _)| *own == name).map(|(_, algorithm)| *algorithm)
    }

    fn key(self, secret: &[u8]) -> hmac::Key {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::Key::new(algorithm, secret)
    }
}

impl HttpPolicy for Hmac {
    const KIND: &'static str = "hmac";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        if spec.secrets.len() > SECRETS_LIMIT {
            let why = format!("has {} secrets, more than {SECRETS_LIMIT}", spec.secrets.len());
            return Err(Invalid::new("secrets", why, "write Consumers"));
        }
        let mut secrets = HashMap::default();
        for (at, one) in spec.secrets.iter().enumerate() {
            let field = format!("secrets[{at}].secret");
            let secret = cx.secret(&field, &one.secret)?;
            if secret.is_empty() {
                return Err(Invalid::new(field, "is empty", "`openssl rand -hex 32` makes one"));
            }
            if secrets.insert(Box::from(one.key_id.as_str()), secret).is_some() {
                let why = format!("`{}` is the id of another secret", one.key_id);
                return Err(Invalid::new(format!("secrets[{at}].keyId"), why, "choose another one"));
            }
        }
        let consumers = spec.consumers.then(|| cx.consumers()).filter(|consumers| consumers.has_secrets());
        if secrets.is_empty() && consumers.is_none() {
            let why = format!(
                "nobody in namespace `{}` has a secret: every request would be refused",
                cx.namespace()
            );
            return Err(Invalid::new("", why, "write `secrets`, or a Consumer with `credentials.hmac`"));
        }
        let algorithm = |(at, name): (usize, &String)| {
            Algorithm::of(name).ok_or_else(|| {
                let names = Algorithm::ALL.map(|(name, _)| name).join(", ");
                Invalid::new(
                    format!("algorithms[{at}]"),
                    format!("`{name}` is not supported"),
                    format!("choose from {names}"),
                )
            })
        };
        let algorithms: Box<[Algorithm]> = match spec.algorithms.is_empty() {
            true => Algorithm::ALL.map(|(_, algorithm)| algorithm).into(),
            false => spec.algorithms.iter().enumerate().map(algorithm).collect::<Result<_, _>>()?,
        };
        let required = spec.required_fields.iter().enumerate().map(|(at, name)| {
            let field = format!("requiredFields[{at}]");
            let valid = FieldName::parse(name.as_bytes());
            valid.map_err(|error| Invalid::new(field, format!("{name:?} is {error}"), ""))?;
            Ok(name.to_ascii_lowercase().into())
        });
        let skew = quantity::positive("clockSkew", spec.clock_skew.as_deref())?.unwrap_or(CLOCK_SKEW);
        Ok(Self(Box::new(Inner {
            secrets,
            consumers,
            algorithms,
            skew: skew.as_secs().max(1),
            required: required.collect::<Result<_, _>>()?,
            forward: spec.forward,
            missing: spec.missing,
            challenge: credential::challenge("hmac", spec.realm.as_deref())?,
        })))
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        let inner = &*self.0;
        let Some((form, parameters)) = req.fields.get(Known::Authorization).and_then(Form::of) else {
            return credential::missing(inner.missing, &inner.challenge, cx);
        };
        if req.fields.get_only(Known::Authorization).is_none() {
            return Verdict::Respond(credential::refuse(Cause::CredentialsAmbiguous, &inner.challenge));
        }
        let Some(principal) = inner.check(form, parameters, req, cx) else {
            return Verdict::Respond(credential::refuse(Cause::SignatureInvalid, &inner.challenge));
        };
        if !inner.forward {
            req.fields.remove(Known::Authorization);
        }
        cx.prove(Arc::new(principal));
        Verdict::Continue
    }
}

/// How the parts of a signature are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `hmac username="…", algorithm="…", headers="date request-line", signature="…"`.
    Kong,
    /// `Signature keyId="…", algorithm="…", headers="(request-target) date", signature="…"`.
    Cavage,
}

impl Form {
    fn of(value: &[u8]) -> Option<(Self, &[u8])> {
        let at = value.iter().position(|&byte| byte == b' ')?;
        let (scheme, rest) = value.split_at_checked(at)?;
        if scheme.eq_ignore_ascii_case(b"hmac") {
            Some((Self::Kong, rest))
        } else if scheme.eq_ignore_ascii_case(b"signature") {
            Some((Self::Cavage, rest))
        } else {
            None
        }
    }
}

/// The parameters of a signature.
#[derive(Debug, Default, PartialEq, Eq)]
struct Signature<'v> {
    key_id: &'v str,
    algorithm: &'v str,
    covered: &'v str,
    signature: &'v str,
    created: Option<&'v str>,
    expires: Option<&'v str>,
}

impl<'v> Signature<'v> {
    /// Reads `name="value", name=value`. `None` when something is malformed or there twice.
    fn read(form: Form, text: &'v [u8]) -> Option<Self> {
        let mut rest = std::str::from_utf8(text).ok().filter(|text| text.len() <= VALUE_MAX)?.trim();
        let mut found = Self::default();
        let mut seen = [false; 6];
        loop {
            let (name, after) = rest.split_once('=')?;
            let value;
            (value, rest) = match after.strip_prefix('"') {
                // Neither an id nor base64 has a backslash: what is escaped is not read.
                Some(quoted) => quoted.split_once('"').filter(|(value, _)| !value.contains('\\'))?,
                None => {
                    let end = after.find(',').unwrap_or(after.len());
                    after.split_at_checked(end)?
                }
            };
            let name = name.trim();
            let at = match (form, name) {
                (Form::Kong, "username") | (Form::Cavage, "keyId") => {
                    found.key_id = value;
                    0
                }
                (_, "algorithm") => {
                    found.algorithm = value;
                    1
                }
                (_, "headers") => {
                    found.covered = value;
                    2
                }
                (_, "signature") => {
                    found.signature = value;
                    3
                }
                (Form::Cavage, "created") => {
                    found.created = Some(value.trim());
                    4
                }
                (Form::Cavage, "expires") => {
                    found.expires = Some(value.trim());
                    5
                }
                _ => return None,
            };
            if std::mem::replace(seen.get_mut(at)?, true) {
                return None;
            }
            rest = rest.trim_start();
            match rest.strip_prefix(',') {
                Some(more) => rest = more.trim_start(),
                None => break,
            }
        }
        let is_whole = rest.is_empty() && [0, 2, 3].iter().all(|&at| seen.get(at) == Some(&true));
        is_whole.then_some(found)
    }
}

impl Inner {
    fn check(
        &self,
        form: Form,
        parameters: &[u8],
        req: &RequestHead,
        cx: &Exchange<'_>,
    ) -> Option<Principal> {
        let signature = Signature::read(form, parameters)?;
        let algorithm = match signature.algorithm {
            // `hs2019` leaves the algorithm to the key: here it is the first that is allowed.
            "" | "hs2019" => self.algorithms.first().copied(),
            name => Algorithm::of(name).filter(|algorithm| self.algorithms.contains(algorithm)),
        };
        let (algorithm, mac) = (algorithm?, base64::decode(signature.signature.as_bytes())?);
        let now = cx.unix_nanos / 1_000_000_000;
        let signed = self.signed(&signature, req, now)?;
        let (secret, consumer) = self.secret(signature.key_id);
        // An unknown id takes as long as a wrong signature.
        let key = algorithm.key(secret.unwrap_or(b"nobody's"));
        let fits = hmac::verify(&key, &signed, &mac).is_ok();
        (fits && secret.is_some()).then(|| Principal {
            method: Hmac::KIND,
            subject: signature.key_id.into(),
            consumer: consumer.cloned(),
            ..Principal::default()
        })
    }

    fn secret(&self, id: &str) -> (Option<&[u8]>, Option<&Arc<Consumer>>) {
        if let Some(secret) = self.secrets.get(id) {
            return (Some(secret), None);
        }
        match self.consumers.as_ref().and_then(|consumers| consumers.secret(id)) {
            Some((secret, consumer)) => (Some(secret), Some(consumer)),
            None => (None, None),
        }
    }

    /// What the signature is made over; `None` when it does not cover what it must, or is not of now.
    fn signed(&self, signature: &Signature<'_>, req: &RequestHead, now: u64) -> Option<Vec<u8>> {
        let covered: Vec<&str> = signature.covered.split(' ').filter(|name| !name.is_empty()).collect();
        let (mut has_date, mut has_line) = (false, false);
        if covered.len() > COVERED_LIMIT {
            return None;
        }
        let mut text = Vec::with_capacity(512);
        for (at, name) in covered.iter().enumerate() {
            if covered.iter().take(at).any(|other| other.eq_ignore_ascii_case(name)) {
                return None;
            }
            if at > 0 {
                text.push(b'\n');
            }
            match *name {
                "(request-target)" | "@request-target" => {
                    has_line = true;
                    text.extend_from_slice(name.as_bytes());
                    text.extend_from_slice(b": ");
                    text.extend(req.method_name().iter().map(u8::to_ascii_lowercase));
                    text.push(b' ');
                    text.extend_from_slice(req.received_target());
                }
                "request-line" => {
                    has_line = true;
                    text.extend_from_slice(req.method_name());
                    text.push(b' ');
                    text.extend_from_slice(req.received_target());
                    text.push(b' ');
                    text.extend_from_slice(match req.version {
                        Version::Http10 => b"HTTP/1.0",
                        Version::Http11 => b"HTTP/1.1",
                        Version::Http2 => b"HTTP/2.0",
                    });
                }
                "(created)" => {
                    let created = signature.created?;
                    has_date = has_date || self.is_near(created.parse().ok()?, now);
                    text.extend_from_slice(format!("(created): {created}").as_bytes());
                }
                "(expires)" => {
                    text.extend_from_slice(format!("(expires): {}", signature.expires?).as_bytes());
                }
                name => {
                    let value = field(req, name)?;
                    let is_date = name.eq_ignore_ascii_case("date") || name.eq_ignore_ascii_case("x-date");
                    // One date that is signed and far off is enough to refuse, whatever another one says.
                    if is_date {
                        has_date = self.is_near(http_date(&value)?, now);
                        if !has_date {
                            return None;
                        }
                    }
                    text.extend(name.bytes().map(|byte| byte.to_ascii_lowercase()));
                    text.extend_from_slice(b": ");
                    text.extend_from_slice(&value);
                }
            }
        }
        if let Some(expires) = signature.expires
            && expires.parse::<u64>().ok()? < now
        {
            return None;
        }
        let is_covered = |name: &str| covered.iter().any(|covered| covered.eq_ignore_ascii_case(name));
        (has_date && has_line && self.required.iter().all(|name| is_covered(name))).then_some(text)
    }

    fn is_near(&self, time: u64, now: u64) -> bool {
        time.abs_diff(now) <= self.skew
    }
}

/// The value of a field as it is signed: its lines joined by `, `. `None` when it is not there.
pub(crate) fn field(req: &RequestHead, name: &str) -> Option<Vec<u8>> {
    if name.eq_ignore_ascii_case("host") {
        let host = req.received_authority();
        return (!host.is_empty()).then(|| host.to_vec());
    }
    if name.eq_ignore_ascii_case("content-length") {
        return match req.content {
            rhumb_codec::head::Content::Length(length) => Some(length.to_string().into_bytes()),
            _ => None,
        };
    }
    let name = FieldName::parse(name.as_bytes()).ok()?;
    let mut lines = req.fields.find_all(&name);
    let mut value = lines.next()?.trim_ascii().to_vec();
    for line in lines {
        value.extend_from_slice(b", ");
        value.extend_from_slice(line.trim_ascii());
    }
    Some(value)
}

/// A date as HTTP writes it (RFC 9110 §5.6.7, the one format that is sent). **Unit**: seconds since 1970.
fn http_date(value: &[u8]) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = std::str::from_utf8(value).ok()?;
    let (_, text) = text.split_once(", ")?;
    let mut parts = text.split(' ');
    let (day, month, year, clock) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if parts.next() != Some("GMT") || parts.next().is_some() {
        return None;
    }
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let time = rhumb_cel::value::Timestamp::parse(&format!("{year}-{month:02}-{day}T{clock}Z"))?;
    u64::try_from(time.seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use rhumb_codec::head::Scheme;
    use serde_json::json;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW: u64 = 784_111_777;
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn policy(more: serde_json::Value) -> Hmac {
        let mut spec = json!({ "secrets": [{ "keyId": "ann", "secret": "hush" }] });
        for (name, value) in more.as_object().unwrap() {
            spec[name] = value.clone();
        }
        compile_alone(serde_json::from_value(spec).unwrap()).unwrap()
    }

    fn mac(text: &str) -> String {
        base64::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"hush"), text.as_bytes()).as_ref())
    }

    fn ask(policy: &Hmac, authorization: &str, fields: &[(&str, &str)]) -> Result<String, Cause> {
        let mut req = RequestHead::new();
        req.set_method(b"POST");
        req.set_target(b"/a?b=1");
        req.set_authority(b"a.test");
        for (name, value) in fields.iter().chain([&("authorization", authorization)]) {
            req.fields.append_raw(Known::of(name.as_bytes()), name.as_bytes(), value.as_bytes());
        }
        let mut cx = Exchange::new([127, 0, 0, 1].into(), Scheme::Http, 80);
        cx.unix_nanos = NOW * 1_000_000_000;
        match policy.on_request(&mut req, &mut (), &mut cx) {
            Verdict::Continue => {
                assert!(!req.fields.has(Known::Authorization));
                Ok(cx.principal().unwrap().subject.to_string())
            }
            Verdict::Respond(reply) => Err(reply.cause.unwrap()),
            _ => panic!(),
        }
    }

    #[test]
    fn signatures_of_both_forms_are_good() {
        let policy = policy(json!({}));
        let date = [("date", DATE)];
        let signed = mac(&format!("date: {DATE}\nPOST /a?b=1 HTTP/1.1\nhost: a.test"));
        let kong = format!(
            r#"hmac username="ann", algorithm="hmac-sha256", headers="date request-line host", signature="{signed}""#
        );
        assert_eq!(ask(&policy, &kong, &date), Ok("ann".to_owned()));
        let signed = mac(&format!("(request-target): post /a?b=1\n(created): {NOW}"));
        let cavage = |created: u64, key: &str| {
            format!(
                r#"Signature keyId="{key}",algorithm="hs2019",created={created},headers="(request-target) (created)",signature="{signed}""#
            )
        };
        assert_eq!(ask(&policy, &cavage(NOW, "ann"), &[]), Ok("ann".to_owned()));
        assert_eq!(ask(&policy, &cavage(NOW, "eve"), &[]), Err(Cause::SignatureInvalid));
        assert_eq!(ask(&policy, &cavage(NOW + 1, "ann"), &[]), Err(Cause::SignatureInvalid));
        assert_eq!(ask(&policy, "Basic x", &[]), Err(Cause::CredentialsMissing));
    }

    #[test]
    fn what_is_not_signed_or_not_of_now_is_refused() {
        let policy = policy(json!({ "requiredFields": ["digest"], "algorithms": ["hmac-sha256"] }));
        let old = "Sun, 06 Nov 1994 08:44:36 GMT";
        let sign = |covered: &str, text: &str| {
            format!(
                r#"hmac username="ann", algorithm="hmac-sha256", headers="{covered}", signature="{}""#,
                mac(text)
            )
        };
        let all = format!("date: {DATE}\n@request-target: post /a?b=1\ndigest: x");
        let good = sign("date @request-target digest", &all);
        assert!(ask(&policy, &good, &[("date", DATE), ("digest", "x")]).is_ok());
        for (why, authorization, fields) in [
            ("another digest", good.clone(), [("date", DATE), ("digest", "y")]),
            ("digest twice", good.clone(), [("digest", "x"), ("digest", "x")]),
            (
                "no digest",
                sign("date @request-target", &format!("date: {DATE}\n@request-target: post /a?b=1")),
                [("date", DATE), ("digest", "x")],
            ),
            (
                "no line",
                sign("date digest", &format!("date: {DATE}\ndigest: x")),
                [("date", DATE), ("digest", "x")],
            ),
            (
                "no date",
                sign("@request-target digest", "@request-target: post /a?b=1\ndigest: x"),
                [("date", DATE), ("digest", "x")],
            ),
            (
                "old",
                sign("date @request-target digest", &all.replace(DATE, old)),
                [("date", old), ("digest", "x")],
            ),
            ("another algorithm", good.replace("sha256", "sha512"), [("date", DATE), ("digest", "x")]),
            ("a parameter twice", format!("{good}, username=\"eve\""), [("date", DATE), ("digest", "x")]),
            ("an unknown parameter", format!("{good}, x=\"y\""), [("date", DATE), ("digest", "x")]),
            ("no end", good.trim_end_matches('"').to_owned(), [("date", DATE), ("digest", "x")]),
            ("nothing", "hmac ".to_owned(), [("date", DATE), ("digest", "x")]),
        ] {
            assert_eq!(ask(&policy, &authorization, &fields), Err(Cause::SignatureInvalid), "{why}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let secret = json!([{ "keyId": "a", "secret": "s" }]);
        for (spec, field) in [
            (json!({}), ""),
            (json!({ "secrets": [{ "keyId": "a", "secret": "" }] }), "secrets[0].secret"),
            (
                json!({ "secrets": [{ "keyId": "a", "secret": "s" }, { "keyId": "a", "secret": "t" }] }),
                "secrets[1].keyId",
            ),
            (json!({ "secrets": secret, "algorithms": ["hmac-sha1"] }), "algorithms[0]"),
            (json!({ "secrets": secret, "clockSkew": "0s" }), "clockSkew"),
            (json!({ "secrets": secret, "requiredFields": ["a b"] }), "requiredFields[0]"),
        ] {
            let compiled = compile_alone::<Hmac>(serde_json::from_value(spec.clone()).unwrap());
            assert_eq!(compiled.err().map(|invalid| invalid.field).as_deref(), Some(field), "{spec}");
        }
    }
}
