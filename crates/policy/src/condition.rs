//! Which requests a policy is for: conditions in the words of route matches, for policies that are narrower than the
//! place they are attached to.

use std::fmt;

use rhumb_codec::field::FieldName;
use rhumb_codec::head::{Method, RequestHead};
use rhumb_route::field::{FieldMatch, QueryMatch, ValueMatch};
use rhumb_route::path::PathMatch;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::Invalid;

/// Most conditions in one list (as in a match of Gateway API).
pub const MAX_CONDITIONS: usize = 16;

/// Conditions that a request must all meet.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Methods; one of them. Default: every method.
    #[serde(default)]
    pub methods: Vec<String>,
    /// The path, as the client sent it after normalisation. Default: every path.
    #[serde(default)]
    pub path: Option<PathSpec>,
    /// Fields of the request; all of them.
    #[serde(default)]
    pub headers: Vec<TextSpec>,
    /// Cookies of the request; all of them. The first of a name counts.
    #[serde(default)]
    pub cookies: Vec<TextSpec>,
    /// Parameters of the query; all of them. The first of a name counts.
    #[serde(default)]
    pub query_params: Vec<TextSpec>,
}

/// A condition on a text that has a name.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TextSpec {
    /// Name of the field, cookie or parameter.
    pub name: String,
    /// How it is compared. Default: Exact.
    #[serde(default, rename = "type")]
    pub kind: TextKind,
    /// The value or expression.
    pub value: String,
}

/// How a text is compared.
#[derive(Deserialize, JsonSchema, Default, Clone, Copy)]
pub enum TextKind {
    /// It is exactly this.
    #[default]
    Exact,
    /// All of it matches the regular expression (syntax of the Rust regex crate).
    RegularExpression,
}

/// A condition on the path.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathSpec {
    /// How it is compared. Default: PathPrefix.
    #[serde(default, rename = "type")]
    pub kind: PathKind,
    /// The path, prefix or expression.
    pub value: String,
}

/// How a path is compared.
#[derive(Deserialize, JsonSchema, Default, Clone, Copy)]
pub enum PathKind {
    /// It is exactly this.
    Exact,
    /// It starts with these segments.
    #[default]
    PathPrefix,
    /// All of it matches the regular expression.
    RegularExpression,
}

/// Compiled conditions.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    methods: Box<[Box<[u8]>]>,
    path: Option<PathMatch>,
    fields: Box<[FieldMatch]>,
    query: Box<[QueryMatch]>,
}

impl Condition {
    /// True when it holds for every request.
    pub fn is_empty(&self) -> bool {
        self.methods.is_empty() && self.path.is_none() && self.fields.is_empty() && self.query.is_empty()
    }

    /// Compiles conditions; `at` is the field that has them.
    ///
    /// # Errors
    /// [`Invalid`] names the condition that cannot be met or understood.
    pub fn compile(at: &str, spec: Spec) -> Result<Self, Invalid> {
        for (name, count) in [
            ("methods", spec.methods.len()),
            ("headers", spec.headers.len()),
            ("cookies", spec.cookies.len()),
            ("queryParams", spec.query_params.len()),
        ] {
            if count > MAX_CONDITIONS {
                let why = format!("has {count} items, more than {MAX_CONDITIONS}");
                return Err(Invalid::new(format!("{at}.{name}"), why, ""));
            }
        }
        for (index, name) in spec.methods.iter().enumerate() {
            // RFC 9110 §9.1: case-sensitive, so `get` would never match what it seems to.
            if Method::of(name.as_bytes()) == Method::Other
                && Method::of(name.to_ascii_uppercase().as_bytes()) != Method::Other
            {
                let field = format!("{at}.methods[{index}]");
                let fix = format!("write {}", name.to_ascii_uppercase());
                return Err(Invalid::new(field, "methods are case-sensitive", fix));
            }
        }
        let path = spec.path.map(|path| {
            let parsed = match path.kind {
                PathKind::Exact => PathMatch::exact(&path.value),
                PathKind::PathPrefix => PathMatch::prefix(&path.value),
                PathKind::RegularExpression => PathMatch::pattern(&path.value),
            };
            parsed.map_err(|error| wrong(&format!("{at}.path.value"), &error))
        });
        let mut fields = Vec::new();
        for (index, header) in spec.headers.iter().enumerate() {
            let field = format!("{at}.headers[{index}]");
            let value = header.compile(&field)?;
            let name = FieldName::parse(header.name.as_bytes())
                .map_err(|error| wrong(&format!("{field}.name"), &error))?;
            let matched =
                FieldMatch::new(name, value).map_err(|error| wrong(&format!("{field}.name"), &error))?;
            fields.push(matched);
        }
        for (index, cookie) in spec.cookies.iter().enumerate() {
            let field = format!("{at}.cookies[{index}]");
            let value = cookie.compile(&field)?;
            check_cookie_name(&format!("{field}.name"), &cookie.name)?;
            fields.push(FieldMatch::cookie(&cookie.name, value));
        }
        let query = spec.query_params.iter().enumerate();
        let query = query.map(|(index, parameter)| {
            let value = parameter.compile(&format!("{at}.queryParams[{index}]"))?;
            Ok(QueryMatch::new(&parameter.name, value))
        });
        Ok(Self {
            methods: spec.methods.into_iter().map(|name| name.into_bytes().into()).collect(),
            path: path.transpose()?,
            fields: fields.into(),
            query: query.collect::<Result<_, _>>()?,
        })
    }

    /// True when the request meets all of them.
    #[inline]
    pub fn holds(&self, req: &RequestHead) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|name| **name == *req.method_name()))
            && self.path.as_ref().is_none_or(|path| path.matches(req.path()))
            && self.fields.iter().all(|field| field.matches(req))
            && (self.query.is_empty() || {
                let query = req.query().unwrap_or_default();
                self.query.iter().all(|parameter| parameter.matches(query))
            })
    }
}

impl TextSpec {
    fn compile(&self, at: &str) -> Result<ValueMatch, Invalid> {
        match self.kind {
            TextKind::Exact => Ok(ValueMatch::exact(&self.value)),
            TextKind::RegularExpression => {
                ValueMatch::pattern(&self.value).map_err(|error| wrong(&format!("{at}.value"), &error))
            }
        }
    }
}

/// Notes names that no cookie can have (RFC 6265 §4.1.1: a token).
pub(crate) fn check_cookie_name(at: &str, name: &str) -> Result<(), Invalid> {
    match FieldName::parse(name.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err(Invalid::new(
            at,
            format!("`{name}` is not the name of a cookie"),
            "write letters, digits, - or _",
        )),
    }
}

fn wrong(at: &str, error: &dyn fmt::Display) -> Invalid {
    Invalid::new(at, error.to_string(), "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_codec::field::Known;
    use serde_json::json;

    fn condition(body: serde_json::Value) -> Result<Condition, Invalid> {
        Condition::compile("match", serde_json::from_value(body).unwrap())
    }

    #[test]
    fn all_conditions_must_hold() {
        let mut req = RequestHead::new();
        req.set_method(b"POST");
        req.set_target(b"/a/b?c=1");
        req.fields.append(Known::Cookie, b"x=1; y=2");
        req.fields.append(Known::UserAgent, b"curl/8");
        for (body, expected) in [
            (json!({}), true),
            (json!({ "methods": ["GET", "POST"] }), true),
            (json!({ "methods": ["GET"] }), false),
            (json!({ "path": { "value": "/a" } }), true),
            (json!({ "path": { "type": "Exact", "value": "/a" } }), false),
            (
                json!({ "headers": [{ "name": "user-agent", "type": "RegularExpression", "value": "curl/.*" }] }),
                true,
            ),
            (json!({ "cookies": [{ "name": "y", "value": "2" }, { "name": "x", "value": "1" }] }), true),
            (json!({ "cookies": [{ "name": "y", "value": "2" }, { "name": "z", "value": "1" }] }), false),
            (json!({ "queryParams": [{ "name": "c", "value": "1" }] }), true),
            (json!({ "methods": ["POST"], "queryParams": [{ "name": "c", "value": "2" }] }), false),
        ] {
            assert_eq!(condition(body.clone()).unwrap().holds(&req), expected, "{body}");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (body, field) in [
            (json!({ "methods": ["get"] }), "match.methods[0]"),
            (json!({ "path": { "value": "a" } }), "match.path.value"),
            (json!({ "headers": [{ "name": "a b", "value": "" }] }), "match.headers[0].name"),
            (json!({ "headers": [{ "name": "content-length", "value": "1" }] }), "match.headers[0].name"),
            (json!({ "cookies": [{ "name": "a=b", "value": "" }] }), "match.cookies[0].name"),
            (
                json!({ "cookies": [{ "name": "a", "type": "RegularExpression", "value": "(" }] }),
                "match.cookies[0].value",
            ),
        ] {
            assert_eq!(condition(body).unwrap_err().field, field);
        }
    }
}
