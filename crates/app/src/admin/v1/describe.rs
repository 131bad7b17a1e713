//! One description of each endpoint: what it is called, who may use it, what it takes and gives. The router, the check of
//! roles and parameters, and the OpenAPI document are made of it.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use axum::http::{Method, StatusCode};
use axum::response::Response;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::Call;
use crate::admin::problem::{Problem, Shape};
use crate::admin::role::Role;

/// What becomes of a call.
pub(super) type Answer = Result<Response, Problem>;

/// Does what a call asks for.
pub(super) type Handler = fn(Call) -> Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Who may use an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Everybody: it is how one says who one is.
    Nothing,
    /// Whoever has at least this role.
    Role(Role),
}

/// One endpoint.
pub(super) struct Endpoint {
    pub(super) method: Method,
    /// Below `/api/v1`, with `{name}` for what varies.
    pub(super) path: &'static str,
    pub(super) needs: Needs,
    pub(super) about: &'static str,
    pub(super) params: Vec<Param>,
    pub(super) body: Option<Content>,
    pub(super) gives: Gives,
    /// Codes of refusals beside those that every endpoint has.
    pub(super) refusals: &'static [(u16, &'static str)],
    /// It may be slow or without an end: no span of time is set to it, and it changes nothing.
    pub(super) handler: Handler,
}

/// A parameter of the query, of the path, or a field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) at: At,
    pub(super) takes: Takes,
    pub(super) about: &'static str,
}

/// Where a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Query,
    Path,
    Field,
}

/// What a parameter may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Takes {
    /// Any text of at most so many characters.
    Text(usize),
    /// A whole number.
    Number { least: u64, most: u64 },
    /// `true` or `false`.
    Flag,
    /// Some of these, with commas between.
    SomeOf(&'static [&'static str]),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A revision in quotes (RFC 9110 §8.8.3), or `*`.
    Tag,
}

/// The greatest number that every program can read.
pub(super) const MOST: u64 = i64::MAX.unsigned_abs();

/// Makes a schema.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A schema, and an example.
#[derive(Clone, Copy)]
pub(super) struct Content {
    pub(super) schema: SchemaOf,
    pub(super) example: fn() -> Value,
}

/// What is answered when all is well.
#[derive(Clone, Copy)]
pub(super) enum Gives {
    /// JSON.
    Json(StatusCode, Content),
    /// JSON, or comma-separated values for who asks for these.
    Table(Content),
    /// A file of a type.
    File(&'static str),
    /// Another place to go to.
    Redirect,
    /// Nothing but the status.
    Empty(StatusCode),
    /// Events (`text/event-stream`), told apart by name.
    Events(&'static [(&'static str, SchemaOf)]),
}

impl Endpoint {
    /// A page that is looked at.
    pub(super) fn get(path: &'static str, about: &'static str, gives: Gives, handler: Handler) -> Self {
        Self {
            method: Method::GET,
            path,
            needs: Needs::Role(Role::Viewer),
            about,
            params: Vec::new(),
            body: None,
            gives,
            refusals: &[],
            handler,
        }
    }

    /// With parameters.
    pub(super) fn takes<const N: usize>(self, params: [Param; N]) -> Self {
        Self { params: params.into(), ..self }
    }

    /// With another method, and for whom.
    pub(super) fn does(self, method: Method, needs: Needs) -> Self {
        Self { method, needs, ..self }
    }

    /// For those who have another role.
    pub(super) fn only(self, role: Role) -> Self {
        Self { needs: Needs::Role(role), ..self }
    }

    /// With content.
    pub(super) fn reads<T: JsonSchema>(self, example: fn() -> Value) -> Self {
        Self { body: Some(Content { schema: schema_of::<T>, example }), ..self }
    }

    /// With refusals of its own.
    pub(super) fn refuses(self, refusals: &'static [(u16, &'static str)]) -> Self {
        Self { refusals, ..self }
    }

    /// True when it changes something: that is written down.
    pub(super) fn is_write(&self) -> bool {
        self.method != Method::GET
    }
}

/// The schema of a type.
pub(super) fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// JSON of a type.
pub(super) const fn json_of<T: JsonSchema>(example: fn() -> Value) -> Gives {
    Gives::Json(StatusCode::OK, Content { schema: schema_of::<T>, example })
}

/// Parameters of the query.
pub(super) const fn query(name: &'static str, takes: Takes, about: &'static str) -> Param {
    Param { name, at: At::Query, takes, about }
}

/// A part of the path.
pub(super) const fn part(name: &'static str, takes: Takes, about: &'static str) -> Param {
    Param { name, at: At::Path, takes, about }
}

/// A field of the request.
pub(super) const fn field(name: &'static str, takes: Takes, about: &'static str) -> Param {
    Param { name, at: At::Field, takes, about }
}

/// Parameters as they were given, each of them right.
#[derive(Debug, Default)]
pub(super) struct Given(HashMap<&'static str, String>);

impl Given {
    /// The text of a parameter; nothing when it is absent or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// A number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// A number that counts something.
    pub(super) fn count(&self, name: &str, default: usize) -> usize {
        self.number(name).and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
    }

    /// True when a flag is set.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    /// A revision in quotes; nothing for `*`.
    pub(super) fn tag(&self, name: &str) -> Option<u64> {
        self.text(name)?.trim_matches('"').parse().ok()
    }

    /// Takes what was given, one by one.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn read(
        params: &'static [Param],
        path: &HashMap<String, String>,
        query: &[(String, String)],
        field: impl Fn(&str) -> Option<Result<String, ()>>,
    ) -> Result<Self, Problem> {
        let mut given = HashMap::new();
        for (name, value) in query {
            let known = params.iter().find(|param| param.at == At::Query && param.name == name);
            let Some(param) = known else {
                let names: Vec<&str> =
                    params.iter().filter(|param| param.at == At::Query).map(|param| param.name).collect();
                let there = match &*names {
                    [] => "this page takes none".to_owned(),
                    names => format!("there is {}", names.join(", ")),
                };
                return Err(Problem::parameter_unknown(format!("there is no parameter `{name}`: {there}")));
            };
            param.check(value)?;
            if given.insert(param.name, value.clone()).is_some() {
                return Err(Problem::parameter_invalid(format!("`{name}` is given twice")));
            }
        }
        for param in params {
            let value = match param.at {
                At::Query => continue,
                At::Path => path.get(param.name).cloned().map(Ok),
                At::Field => field(param.name),
            };
            match value {
                None => continue,
                Some(Err(())) => return Err(param.wrong()),
                Some(Ok(value)) => {
                    param.check(&value)?;
                    given.insert(param.name, value);
                }
            }
        }
        Ok(Self(given))
    }
}

impl Param {
    fn check(&self, value: &str) -> Result<(), Problem> {
        let is_right = match self.takes {
            Takes::Text(most) => value.chars().count() <= most,
            Takes::Number { least, most } => {
                value.bytes().all(|b| b.is_ascii_digit())
                    && value.parse().is_ok_and(|number: u64| (least..=most).contains(&number))
            }
            Takes::Flag => ["true", "false"].contains(&value),
            Takes::OneOf(words) => words.contains(&value),
            Takes::SomeOf(words) => value.split(',').all(|word| words.contains(&word)),
            Takes::Tag => {
                let inside = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                value == "*" || inside.is_some_and(|inside| inside.parse::<u64>().is_ok())
            }
        };
        if is_right { Ok(()) } else { Err(self.wrong()) }
    }

    fn wrong(&self) -> Problem {
        let wanted = match self.takes {
            Takes::Text(most) => format!("a text of at most {most} characters"),
            Takes::Number { least, most: MOST } => format!("a whole number from {least}"),
            Takes::Number { least, most } => format!("a whole number from {least} to {most}"),
            Takes::Flag => "`true` or `false`".to_owned(),
            Takes::OneOf(words) => format!("one of {}", words.join(", ")),
            Takes::SomeOf(words) => format!("some of {}, with commas between", words.join(", ")),
            Takes::Tag => "the number of a revision in quotes".to_owned(),
        };
        Problem::parameter_invalid(format!("`{}` is {wanted}", self.name))
    }

    fn schema(&self) -> Value {
        match self.takes {
            Takes::Text(most) => json!({ "type": "string", "maxLength": most }),
            Takes::Number { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
            Takes::Flag => json!({ "type": "boolean" }),
            Takes::OneOf(words) => json!({ "type": "string", "enum": words }),
            Takes::SomeOf(words) => {
                let one = words.join("|");
                json!({ "type": "string", "pattern": format!("^({one})(,({one}))*$") })
            }
            Takes::Tag => json!({ "type": "string", "pattern": "^(\\*|\"[0-9]{1,18}\")$" }),
        }
    }
}

/// Content of a type.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::request_invalid(format!("the content is not what it has to be: {error}")))
}

/// The OpenAPI document of endpoints.
pub(super) fn openapi(endpoints: &[Endpoint]) -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let problem = schema_of::<Shape>(&mut generator);
    let mut paths = Map::new();
    for endpoint in endpoints {
        let path = format!("/api/v1{}", endpoint.path);
        let operations = paths.entry(path).or_insert_with(|| json!({}));
        let method = endpoint.method.as_str().to_ascii_lowercase();
        operations[method] = operation(endpoint, &problem, &mut generator);
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Rhumb admin API",
            "version": crate::admin::VERSION,
            "description": "What the admin listener of a gateway, a sidecar or a control plane tells and takes.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }, { "session": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "session": {
                    "type": "apiKey", "in": "cookie", "name": "rhumb_session",
                    "description": "With the port that was asked, where one was written: `rhumb_session_9901`.",
                },
            },
        },
    })
}

/// Refusals that every endpoint has.
fn common(endpoint: &Endpoint) -> Vec<(u16, &'static str)> {
    let mut all = vec![
        (400, "`request_invalid`, `parameter_invalid`, `parameter_unknown`"),
        (421, "`host_refused`: without credentials, ask by IP address or localhost"),
        (429, "`login_limited`"),
    ];
    if endpoint.needs != Needs::Nothing {
        all.push((401, "`credentials_missing`, `credentials_invalid`"));
        all.push((403, "`role_insufficient`, `request_header_missing`"));
    }
    if endpoint.body.is_some() {
        all.push((413, "`content_too_large`"));
        all.push((415, "`content_type_unsupported`"));
    }
    all
}

fn operation(endpoint: &Endpoint, problem: &Schema, generator: &mut SchemaGenerator) -> Value {
    let params: Vec<Value> = endpoint
        .params
        .iter()
        .map(|param| {
            json!({
                "name": param.name,
                "in": match param.at { At::Query => "query", At::Path => "path", At::Field => "header" },
                "required": param.at == At::Path,
                "description": param.about,
                "schema": param.schema(),
            })
        })
        .collect();
    let mut responses = Map::new();
    let (status, mut answer) = match endpoint.gives {
        Gives::Json(status, content) => (
            status,
            json!({ "content": { "application/json": {
                "schema": (content.schema)(generator), "example": (content.example)(),
            } } }),
        ),
        Gives::Table(content) => (
            StatusCode::OK,
            json!({ "content": {
                "application/json": {
                    "schema": (content.schema)(generator), "example": (content.example)(),
                },
                "text/csv": { "schema": { "type": "string" } },
            } }),
        ),
        Gives::File(kind) => (
            StatusCode::OK,
            json!({ "content": { kind: { "schema": { "type": "string", "format": "binary" } } } }),
        ),
        Gives::Redirect => {
            (StatusCode::FOUND, json!({ "headers": { "Location": { "schema": { "type": "string" } } } }))
        }
        Gives::Empty(status) => (status, json!({})),
        Gives::Events(events) => {
            let events: Map<String, Value> = events
                .iter()
                .map(|(name, schema)| ((*name).to_owned(), schema(generator).to_value()))
                .collect();
            (
                StatusCode::OK,
                json!({ "content": { "text/event-stream": {
                    "schema": { "type": "string" }, "x-events": events,
                } } }),
            )
        }
    };
    answer["description"] = status.canonical_reason().unwrap_or("done").into();
    responses.insert(status.as_u16().to_string(), answer);
    responses
        .insert("414".into(), json!({ "description": "the target is longer than any that means something" }));
    for (status, codes) in common(endpoint).iter().chain(endpoint.refusals) {
        let response = responses.entry(status.to_string()).or_insert_with(|| {
            json!({
                "description": "",
                "content": { "application/problem+json": { "schema": problem } },
            })
        });
        let before = response["description"].as_str().unwrap_or_default();
        let text = if before.is_empty() { (*codes).to_owned() } else { format!("{before}, {codes}") };
        response["description"] = text.into();
    }
    let mut operation = json!({
        "operationId": operation_id(endpoint),
        "summary": endpoint.about,
        "parameters": params,
        "responses": responses,
        "x-role": match endpoint.needs { Needs::Nothing => "none", Needs::Role(role) => role.as_str() },
    });
    if endpoint.needs == Needs::Nothing {
        operation["security"] = json!([]);
    }
    if let Some(body) = &endpoint.body {
        operation["requestBody"] = json!({
            "required": true,
            "content": { "application/json": {
                "schema": (body.schema)(generator), "example": (body.example)(),
            } },
        });
    }
    operation
}

/// `GET /documents/{kind}` is `getDocumentsKind`.
fn operation_id(endpoint: &Endpoint) -> String {
    let mut id = endpoint.method.as_str().to_ascii_lowercase();
    for word in endpoint.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let (first, rest) = word.split_at(1);
        id.push_str(&first.to_ascii_uppercase());
        id.push_str(rest);
    }
    id
}
