//! Claims: what an issuer says of somebody (RFC 7519 §4), wherever it says it: in a token, or when asked.

use std::sync::Arc;

use rhumb_base::failure::Cause;
use rhumb_codec::field::{FieldName, FieldValue, Known};
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::credential::{self, Challenge, Places};
use crate::header_modifier::read_name;
use crate::json::Path;
use crate::policy::{Invalid, Verdict};
use crate::principal::Principal;

/// Most claims that one policy asks for or passes on.
const CLAIMS_LIMIT: usize = 64;

/// A claim that must be there.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequiredSpec {
    /// Its name, or a path into claims that begins with `/` (RFC 6901): `/realm_access/roles`.
    pub claim: String,
    /// It is one of these, or a list that has one of them. Default: any value.
    #[serde(default)]
    pub values: Vec<String>,
}

/// A field that gets a claim.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimFieldSpec {
    /// Name of the claim, or a path that begins with `/`. A list is joined by `,`; an object is written as JSON.
    pub claim: String,
    /// Name of the field.
    pub name: String,
}

/// A claim that must be there, and values that it may have.
type Demand = (Path, Box<[Box<str>]>);

/// Claims that must be there, and scopes.
pub(crate) struct Demands {
    claims: Box<[Demand]>,
    scopes: Box<[Box<str>]>,
}

impl Demands {
    pub(crate) fn read(claims: &[RequiredSpec], scopes: &[String]) -> Result<Self, Invalid> {
        bounded("requiredClaims", claims.len())?;
        bounded("scopes", scopes.len())?;
        let read = |(at, spec): (usize, &RequiredSpec)| {
            Ok((path(&format!("requiredClaims[{at}].claim"), &spec.claim)?, boxed(&spec.values)))
        };
        Ok(Self {
            claims: claims.iter().enumerate().map(read).collect::<Result<_, _>>()?,
            scopes: boxed(scopes),
        })
    }

    /// What is missing, in words that a client may be told.
    pub(crate) fn lacking(&self, claims: &Map<String, Value>) -> Option<&'static str> {
        if !self.claims.iter().all(|(path, values)| is_met(path.find(claims), values)) {
            return Some("the token lacks a claim");
        }
        let given = scopes(claims);
        let has_all = self.scopes.iter().all(|wanted| given.contains(&&**wanted));
        (!has_all).then_some("the token lacks a scope")
    }
}

pub(crate) fn is_met(found: Option<&Value>, wanted: &[Box<str>]) -> bool {
    let is_one =
        |value: &Value| written(value).is_some_and(|value| wanted.iter().any(|wanted| **wanted == *value));
    match found {
        None | Some(Value::Null) => false,
        Some(_) if wanted.is_empty() => true,
        Some(Value::Array(all)) => all.iter().any(is_one),
        Some(value) => is_one(value),
    }
}

/// Fields of requests that are set to claims, and are nobody else's.
pub(crate) struct ClaimFields(Box<[(Path, FieldName)]>);

impl ClaimFields {
    pub(crate) fn read(specs: &[ClaimFieldSpec], from: Option<&Places>) -> Result<Self, Invalid> {
        bounded("claimsToFields", specs.len())?;
        let read = |(at, spec): (usize, &ClaimFieldSpec)| {
            let field = format!("claimsToFields[{at}].name");
            let name = read_name(&field, &spec.name)?;
            // Removed from every request, the token would never be found.
            if name.known() == Known::Authorization || from.is_some_and(|from| from.include(&name)) {
                return Err(Invalid::new(field, "is where the token is", "choose a name of your own"));
            }
            Ok((path(&format!("claimsToFields[{at}].claim"), &spec.claim)?, name))
        };
        specs.iter().enumerate().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Removes what a client sent under these names.
    pub(crate) fn remove(&self, req: &mut RequestHead) {
        for (_, name) in &self.0 {
            credential::remove_forged(&mut req.fields, name);
        }
    }

    /// Values of the fields, by their places.
    pub(crate) fn values(&self, claims: &Map<String, Value>) -> Box<[(usize, FieldValue)]> {
        let values = self.0.iter().enumerate().filter_map(|(at, (path, _))| {
            let value = path.find(claims).and_then(written)?;
            Some((at, FieldValue::parse(value.as_bytes()).ok()?))
        });
        values.collect()
    }

    /// Sets them.
    pub(crate) fn set(&self, req: &mut RequestHead, values: &[(usize, FieldValue)]) {
        for (at, value) in values {
            if let Some((_, name)) = self.0.get(*at) {
                req.fields.set_named(name, value);
            }
        }
    }
}

/// True when one of the audiences is the one that is asked for.
pub(crate) fn audience_is(claims: &Map<String, Value>, is_it: impl Fn(&str) -> bool) -> bool {
    let is_text = |value: &Value| value.as_str().is_some_and(&is_it);
    match claims.get("aud") {
        Some(Value::Array(all)) => all.iter().any(is_text),
        Some(one) => is_text(one),
        None => false,
    }
}

/// The scopes of a token: `scope` as one text (RFC 9068 §2.2.3), or `scp` as some issuers write it, also as a list.
pub(crate) fn scopes(claims: &Map<String, Value>) -> Vec<&str> {
    match claims.get("scope").or_else(|| claims.get("scp")) {
        Some(Value::String(text)) => text.split(' ').filter(|scope| !scope.is_empty()).collect(),
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Who claims are about.
pub(crate) fn principal(method: &'static str, claims: Map<String, Value>) -> Principal {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default().into();
    Principal {
        method,
        subject: text("sub"),
        issuer: text("iss"),
        scopes: scopes(&claims).into_iter().map(Into::into).collect(),
        consumer: None,
        claims: Arc::new(claims),
    }
}

/// A time claim that is no number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTime;

impl std::fmt::Display for NoTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a time that is no number of seconds")
    }
}

impl std::error::Error for NoTime {}

/// A time claim (RFC 7519 §2: a number of seconds, fractions allowed). **Unit**: nanoseconds since 1970. `Ok(None)` when
/// it is not there.
///
/// # Errors
/// When it is no such number.
pub fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<i128>, NoTime> {
    const NANOS: i128 = 1_000_000_000;
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(seconds), _) => Ok(Some(i128::from(seconds) * NANOS)),
            // The conversion of a float stops at the ends of the range.
            (None, Some(seconds)) => Ok(Some((seconds * 1e9) as i128)),
            _ => Err(NoTime),
        },
        Some(_) => Err(NoTime),
    }
}

/// A claim as text.
pub(crate) fn written(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(all) if !all.iter().any(|one| one.is_array() || one.is_object()) => {
            Some(all.iter().filter_map(written).collect::<Vec<_>>().join(","))
        }
        other => Some(other.to_string()),
    }
}

fn bounded(field: &str, length: usize) -> Result<(), Invalid> {
    if length > CLAIMS_LIMIT {
        let why = format!("has {length} items, more than {CLAIMS_LIMIT}");
        return Err(Invalid::new(field, why, "remove some"));
    }
    Ok(())
}

/// Texts that stay as they are.
pub(crate) fn boxed(texts: &[String]) -> Box<[Box<str>]> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

pub(crate) fn path(field: &str, text: &str) -> Result<Path, Invalid> {
    Path::parse(text).ok_or_else(|| Invalid::new(field, "is empty", "write `sub`, or `/realm/roles`"))
}

/// The refusal of a token (RFC 6750 §3): cause, code, and why in words that a client may be told.
pub(crate) fn refuse(
    challenge: &Challenge,
    demands: &Demands,
    (cause, error, why): (Cause, &str, &str),
) -> Verdict {
    let mut challenge = challenge.to_vec();
    let separator = if challenge.contains(&b'=') { "," } else { "" };
    let more = format!("{separator} error=\"{error}\", error_description=\"{why}\"");
    challenge.extend_from_slice(more.as_bytes());
    if cause == Cause::ScopeInsufficient && !demands.scopes.is_empty() {
        challenge.extend_from_slice(format!(", scope=\"{}\"", demands.scopes.join(" ")).as_bytes());
    }
    Verdict::Respond(credential::refuse(cause, &challenge))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn times_are_numbers() {
        let claims =
            json::read_object(br#"{"a": 12, "b": 1.5, "c": "12", "d": 1e300, "e": -1, "f": null}"#).unwrap();
        let of = |name| time(&claims, name);
        assert_eq!(of("a"), Ok(Some(12_000_000_000)));
        assert_eq!(of("b"), Ok(Some(1_500_000_000)));
        assert_eq!((of("c"), of("f"), of("z")), (Err(NoTime), Err(NoTime), Ok(None)));
        assert_eq!(of("d"), Ok(Some(i128::MAX)));
        assert_eq!(of("e"), Ok(Some(-1_000_000_000)));
    }
}
