//! Where credentials are in a request, and what every authentication does alike: find one, refuse two, ask for what is
//! missing, take it out before the request goes on.

use std::borrow::Cow;
use std::sync::Arc;

use rhumb_base::failure::Cause;
use rhumb_codec::field::{FieldName, Fields, Known};
use rhumb_codec::head::RequestHead;
use rhumb_route::field::decoded;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::{Exchange, Reply};
use crate::header_modifier::read_name;
use crate::policy::{Invalid, Verdict};

/// Most places where one policy looks.
pub const PLACES_LIMIT: usize = 16;

/// Longest credential, in bytes. RFC 9110 names no limit; a token of this size is larger than what most servers take as
/// all fields together.
pub const CREDENTIAL_MAX: usize = 16 << 10;

/// A place where a credential may be: exactly one of the three.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlaceSpec {
    /// A field: its name, or name and prefix.
    #[serde(default)]
    pub header: Option<HeaderSpec>,
    /// A query parameter.
    #[serde(default)]
    pub query: Option<String>,
    /// A cookie.
    #[serde(default)]
    pub cookie: Option<String>,
}

/// A field that holds a credential.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum HeaderSpec {
    /// Its name; the whole value is the credential. In `authorization` it stands behind `Bearer`.
    Name(String),
    /// Its name, and what stands before the credential.
    Prefixed {
        /// Name of the field.
        name: String,
        /// What stands before the credential, in any case: `Bearer`. Blanks between are skipped.
        prefix: String,
    },
}

/// What to do with a request that has no credentials of the kind.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
pub enum Missing {
    /// Refuse it with 401.
    Refuse,
    /// Let it pass: a later policy decides. Wrong credentials are refused all the same.
    Continue,
}

/// A compiled place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Header { name: FieldName, prefix: Box<[u8]> },
    Query(Box<[u8]>),
    Cookie(Box<[u8]>),
}

/// Where a policy looks.
pub(crate) struct Places(Box<[Place]>);

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'r, 'p> {
    Nothing,
    One(Cow<'r, [u8]>, &'p Place),
    /// More than one: it is not clear which one counts, and the backend may take the other (RFC 6750 §2).
    Several,
}

impl Places {
    /// Reads `from`, or takes what is usual.
    pub(crate) fn read(from: &[PlaceSpec], usual: Place) -> Result<Self, Invalid> {
        if from.is_empty() {
            return Ok(Self([usual].into()));
        }
        if from.len() > PLACES_LIMIT {
            let why = format!("has {} places, more than {PLACES_LIMIT}", from.len());
            return Err(Invalid::new("from", why, "remove some"));
        }
        let place = |(at, spec): (usize, &PlaceSpec)| {
            let field = format!("from[{at}]");
            match (&spec.header, &spec.query, &spec.cookie) {
                (Some(HeaderSpec::Name(name)), None, None) => {
                    let name = read_name(&format!("{field}.header"), name)?;
                    let prefix: &[u8] = if name.known() == Known::Authorization { b"Bearer" } else { b"" };
                    Ok(Place::Header { name, prefix: prefix.into() })
                }
                (Some(HeaderSpec::Prefixed { name, prefix }), None, None) => Ok(Place::Header {
                    name: read_name(&format!("{field}.header.name"), name)?,
                    prefix: prefix.trim().as_bytes().into(),
                }),
                (None, Some(name), None) if !name.is_empty() => Ok(Place::Query(name.as_bytes().into())),
                (None, None, Some(name)) if !name.is_empty() => Ok(Place::Cookie(name.as_bytes().into())),
                _ => Err(Invalid::new(
                    field,
                    "is not one of `header`, `query` and `cookie`",
                    "write one of them, such as `{ header: x-api-key }`",
                )),
            }
        };
        from.iter().enumerate().map(place).collect::<Result<_, _>>().map(Self)
    }

    /// True when the field may hold a credential.
    pub(crate) fn include(&self, field: &FieldName) -> bool {
        self.0.iter().any(|place| matches!(place, Place::Header { name, .. } if name == field))
    }

    /// Looks everywhere.
    pub(crate) fn find<'r>(&self, req: &'r RequestHead) -> Found<'r, '_> {
        let mut found = Found::Nothing;
        for place in &self.0 {
            let mut several = false;
            place.each(req, &mut |value| match found {
                Found::Nothing => found = Found::One(value, place),
                _ => several = true,
            });
            if several {
                return Found::Several;
            }
        }
        found
    }
}

impl Place {
    /// A field whose whole value is the credential.
    pub(crate) fn header(name: FieldName) -> Self {
        Self::Header { name, prefix: Box::default() }
    }

    /// A scheme of the Authorization field (RFC 9110 §11.6.2).
    pub(crate) fn authorization(scheme: &str) -> Self {
        Self::Header { name: Known::Authorization.into(), prefix: scheme.as_bytes().into() }
    }

    fn each<'r>(&self, req: &'r RequestHead, tell: &mut dyn FnMut(Cow<'r, [u8]>)) {
        match self {
            Self::Header { name, prefix } => {
                // Authorization is one line: of two, whatever their schemes, the backend may obey the other.
                let is_single = name.known() != Known::Authorization
                    || req.fields.get_all(Known::Authorization).nth(1).is_none();
                for line in req.fields.find_all(name) {
                    if let Some(value) = behind(prefix, line).or_else(|| (!is_single).then_some(line)) {
                        tell(Cow::Borrowed(value));
                    }
                }
            }
            Self::Query(wanted) => {
                for part in req.query().unwrap_or_default().split(|&byte| byte == b'&') {
                    let (name, value) = pair(part);
                    if *decoded(name) == **wanted {
                        tell(decoded(value));
                    }
                }
            }
            Self::Cookie(wanted) => {
                for part in cookies(req) {
                    let (name, value) = pair(part);
                    if *name == **wanted {
                        tell(Cow::Borrowed(value));
                    }
                }
            }
        }
    }

    /// Takes the credential out of the request.
    pub(crate) fn remove(&self, req: &mut RequestHead) {
        match self {
            Self::Header { name, .. } => {
                req.fields.remove_named(name);
            }
            Self::Query(unwanted) => {
                let query = req.query().unwrap_or_default();
                let parts = query.split(|&byte| byte == b'&');
                let kept: Vec<&[u8]> = parts.filter(|part| *decoded(pair(part).0) != **unwanted).collect();
                let kept = kept.join(&b'&');
                req.set_query((!kept.is_empty()).then_some(&kept[..]));
            }
            Self::Cookie(unwanted) => {
                let kept: Vec<&[u8]> = cookies(req).filter(|part| *pair(part).0 != **unwanted).collect();
                let kept = kept.join(&b"; "[..]);
                req.fields.remove(Known::Cookie);
                if !kept.is_empty() {
                    req.fields.append(Known::Cookie, &kept);
                }
            }
        }
    }
}

/// Removes what a client sent under a name that is ours alone, also where it is spelled with underscores: CGI and its heirs
/// (RFC 3875 §4.1.18) cannot tell `X_User` from `X-User`.
pub(crate) fn remove_forged(fields: &mut Fields, name: &FieldName) {
    fields.remove_named(name);
    if !name.as_bytes().contains(&b'-') {
        return;
    }
    let hyphens = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    let is_alike = |spelled: &[u8]| {
        spelled.contains(&b'_') && spelled.iter().map(hyphens).eq(name.as_bytes().iter().map(hyphens))
    };
    loop {
        let mut forged = fields.iter().filter(|line| line.known == Known::Other && is_alike(line.name));
        let Some(spelled) = forged.next().map(|line| line.name.to_vec()) else { return };
        drop(forged);
        if !fields.remove_spelled(&spelled) {
            return;
        }
    }
}

/// What stands behind a prefix that is compared without case; a prefix that is a word ends where the word does.
fn behind<'v>(prefix: &[u8], value: &'v [u8]) -> Option<&'v [u8]> {
    let (begin, rest) = value.split_at_checked(prefix.len())?;
    let is_word = prefix.last().is_some_and(u8::is_ascii_alphanumeric);
    let ends = !is_word || rest.first().is_none_or(|&byte| byte == b' ');
    (begin.eq_ignore_ascii_case(prefix) && ends).then_some(rest.trim_ascii())
}

/// RFC 6265 §5.4: pairs separated by `; `.
fn cookies(req: &RequestHead) -> impl Iterator<Item = &[u8]> {
    let lines = req.fields.get_all(Known::Cookie);
    let parts = lines.flat_map(|line| line.split(|&byte| byte == b';'));
    parts.map(<[u8]>::trim_ascii).filter(|part| !part.is_empty())
}

fn pair(part: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'=', part).and_then(|at| part.split_at_checked(at)) {
        Some((name, value)) => (name, value.get(1..).unwrap_or_default()),
        None => (part, b""),
    }
}

/// A challenge: a value of WWW-Authenticate (RFC 9110 §11.6.1).
pub(crate) type Challenge = Arc<[u8]>;

/// A challenge of a scheme, with its realm where one is written.
pub(crate) fn challenge(scheme: &str, realm: Option<&str>) -> Result<Challenge, Invalid> {
    let Some(realm) = realm else { return Ok(scheme.as_bytes().into()) };
    if !realm.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\') {
        return Err(Invalid::new("realm", "has characters that a challenge cannot have", "use plain text"));
    }
    Ok(format!("{scheme} realm=\"{realm}\"").into_bytes().into())
}

/// A refusal that says how to do better.
pub(crate) fn refuse(cause: Cause, challenge: &[u8]) -> Box<Reply> {
    let mut reply = Reply::refuse(cause);
    reply.fields().append(Known::WwwAuthenticate, challenge);
    reply
}

/// The verdict about a request without credentials. When the chain has a policy behind this one that decides about such
/// requests, it is left to it, unless something else is written.
pub(crate) fn missing(written: Option<Missing>, challenge: &Challenge, cx: &mut Exchange<'_>) -> Verdict {
    let refuses = match written {
        Some(missing) => missing == Missing::Refuse,
        None => !cx.found.is_decided_later,
    };
    if refuses {
        return Verdict::Respond(refuse(Cause::CredentialsMissing, challenge));
    }
    cx.found.challenges.push(Arc::clone(challenge));
    Verdict::Continue
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str, fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::new();
        head.set_target(target.as_bytes());
        for (name, value) in fields {
            head.fields.append_raw(Known::of(name.as_bytes()), name.as_bytes(), value.as_bytes());
        }
        head
    }

    fn places(from: serde_json::Value) -> Result<Places, Invalid> {
        let from: Vec<PlaceSpec> = serde_json::from_value(from).unwrap();
        Places::read(&from, Place::authorization("Bearer"))
    }

    fn found(from: serde_json::Value, target: &str, fields: &[(&str, &str)]) -> Option<Vec<u8>> {
        let head = head(target, fields);
        match places(from).unwrap().find(&head) {
            Found::Nothing => Some(Vec::new()),
            Found::One(value, _) => Some(value.into_owned()),
            Found::Several => None,
        }
    }

    #[test]
    fn credentials_are_found_where_they_may_be() {
        let all = serde_json::json!([
            { "header": "authorization" }, { "header": { "name": "x-token", "prefix": "v1:" } }, { "header": "x-key" },
            { "query": "t k" }, { "cookie": "sid" },
        ]);
        for (target, fields, expected) in [
            ("/", &[][..], Some("")),
            ("/", &[("authorization", "bearer  abc")][..], Some("abc")),
            ("/", &[("authorization", "Basic abc")], Some("")),
            ("/", &[("authorization", "Bearerabc")], Some("")),
            ("/", &[("authorization", "Bearer a"), ("authorization", "Basic b")], None),
            ("/", &[("authorization", "Basic b"), ("authorization", "Bearer a")], None),
            ("/", &[("x-token", "v1:abc")], Some("abc")),
            ("/", &[("x-key", "abc")], Some("abc")),
            ("/", &[("x-key", "a"), ("x-key", "a")], None),
            ("/?a&t%20k=a%2Fb&c", &[], Some("a/b")),
            ("/?t%20k=a&t%20k=a", &[], None),
            ("/", &[("cookie", "a=1; sid=abc; b")], Some("abc")),
            ("/", &[("cookie", "sid=1"), ("cookie", "sid=2")], None),
            ("/", &[("cookie", "sid=1"), ("x-key", "1")], None),
        ] {
            let expected = expected.map(|text| text.as_bytes().to_vec());
            assert_eq!(found(all.clone(), target, fields), expected, "{target} {fields:?}");
        }
        assert_eq!(found(serde_json::json!([]), "/", &[("authorization", "Bearer x")]), Some(b"x".to_vec()));
        for wrong in [
            serde_json::json!([{}]),
            serde_json::json!([{ "query": "a", "cookie": "b" }]),
            serde_json::json!([{ "header": "content-length" }]),
        ] {
            assert!(places(wrong.clone()).err().unwrap().field.starts_with("from[0]"), "{wrong}");
        }
    }

    #[test]
    fn a_field_of_ours_is_not_forged_with_underscores() {
        let mut req = head(
            "/",
            &[
                ("X_User", "a"),
                ("x-user", "b"),
                ("x_user", "c"),
                ("x_users", "d"),
                ("x-use_r", "e"),
                ("x-other", "f"),
            ],
        );
        remove_forged(&mut req.fields, &FieldName::parse(b"X-User").unwrap());
        let left: Vec<&[u8]> = req.fields.iter().map(|line| line.name).collect();
        assert_eq!(left, [&b"x_users"[..], b"x-use_r", b"x-other"]);
    }

    #[test]
    fn credentials_are_taken_out_and_nothing_else() {
        let mut req = head(
            "/p?a=1&k%65y=s&b",
            &[("cookie", "a=1; key=s"), ("cookie", "b=2"), ("x-key", "s"), ("x-other", "o")],
        );
        Place::Query(b"key"[..].into()).remove(&mut req);
        assert_eq!(req.query(), Some(&b"a=1&b"[..]));
        Place::Cookie(b"key"[..].into()).remove(&mut req);
        assert_eq!(req.fields.get_only(Known::Cookie), Some(&b"a=1; b=2"[..]));
        Place::header(FieldName::parse(b"x-key").unwrap()).remove(&mut req);
        assert!(req.fields.find(&FieldName::parse(b"x-key").unwrap()).is_none());
        assert!(req.fields.find(&FieldName::parse(b"x-other").unwrap()).is_some());
        Place::Cookie(b"a"[..].into()).remove(&mut req);
        Place::Cookie(b"b"[..].into()).remove(&mut req);
        assert!(!req.fields.has(Known::Cookie));
        let mut req = head("/p?key=1", &[]);
        Place::Query(b"key"[..].into()).remove(&mut req);
        assert_eq!(req.query(), None);
    }
}
