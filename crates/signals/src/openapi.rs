//! OpenAPI 3.0 and 3.1: what a document declares, what of it was seen, and what was seen as a document.
//!
//! A document is JSON already; references within it are followed (`#/…`), others are not.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::apis::{Apis, Operation, VALUES};

/// How many references lead on at most.
const REFERENCES: usize = 16;

/// Schemas within schemas (`allOf`) at most.
const DEPTH: usize = 8;

/// The methods of a path item.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// Why a document cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpenApi {
    /// It does not say that it is one, or is of a version that is not read.
    #[error("it does not say `openapi: 3.0` or `3.1`")]
    Version,
    /// It has no paths.
    #[error("it has no `paths`")]
    Paths,
}

/// What a document declares.
#[derive(Clone, Debug, Default)]
pub struct Declaration {
    /// What it is called.
    pub title: String,
    operations: Vec<Declared>,
}

#[derive(Clone, Debug, Default)]
struct Declared {
    /// Hosts of its servers; empty: any.
    hosts: BTreeSet<String>,
    method: String,
    /// With what servers put before it.
    paths: BTreeSet<String>,
    /// As it is written.
    template: String,
    /// Query parameters, and whether each is required.
    query: BTreeMap<String, bool>,
    request_types: BTreeSet<String>,
    fields: BTreeSet<String>,
    required: BTreeSet<String>,
    /// Other fields are allowed, or it is not known which there are.
    is_open: bool,
    /// By status: `200`, `2XX`, `default`.
    responses: BTreeMap<String, Response>,
}

/// What a response is declared to have.
#[derive(Clone, Debug, Default)]
struct Response {
    types: BTreeSet<String>,
    fields: BTreeSet<String>,
    required: BTreeSet<String>,
    /// Other fields are allowed, or it is not known which there are.
    is_open: bool,
}

impl Declaration {
    /// Reads a document.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(document: &Value) -> Result<Self, NotOpenApi> {
        let version = document["openapi"].as_str().unwrap_or_default();
        if !version.starts_with("3.0") && !version.starts_with("3.1") {
            return Err(NotOpenApi::Version);
        }
        let paths = document["paths"].as_object().ok_or(NotOpenApi::Paths)?;
        let title = document["info"]["title"].as_str().unwrap_or_default().to_owned();
        let mut declaration = Self { title, operations: Vec::new() };
        for (template, item) in paths {
            let item = follow(document, item);
            for method in METHODS {
                let operation = follow(document, &item[method]);
                if operation.is_object() {
                    declaration.operations.push(declared(document, template, item, method, operation));
                }
            }
        }
        Ok(declaration)
    }
}

fn declared(document: &Value, template: &str, item: &Value, method: &str, operation: &Value) -> Declared {
    let mut declared = Declared {
        method: method.to_ascii_uppercase(),
        template: template.to_owned(),
        ..Declared::default()
    };
    // What is nearer overrules.
    let servers = [operation, item, document].into_iter().find_map(|owner| owner["servers"].as_array());
    let mut is_any = servers.is_none_or(Vec::is_empty);
    for server in servers.into_iter().flatten() {
        let url = server["url"].as_str().unwrap_or_default();
        // RFC 3986 §4.2: without a scheme too.
        let (host, base) =
            match url.split_once("//").filter(|(before, _)| before.is_empty() || before.ends_with(':')) {
                Some((_, rest)) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
                None => ("", url),
            };
        if host.is_empty() || host.contains('{') {
            is_any = true;
        } else {
            declared.hosts.insert(host.to_ascii_lowercase());
        }
        declared.paths.insert(format!("{}{template}", base.trim_end_matches('/')));
    }
    if is_any {
        declared.hosts.clear();
    }
    if declared.paths.is_empty() {
        declared.paths.insert(template.to_owned());
    }
    for owner in [item, operation] {
        for parameter in owner["parameters"].as_array().into_iter().flatten() {
            let parameter = follow(document, parameter);
            if parameter["in"] == "query"
                && let Some(name) = parameter["name"].as_str()
            {
                declared.query.insert(name.to_owned(), parameter["required"] == true);
            }
        }
    }
    let body = follow(document, &operation["requestBody"]);
    declared.is_open = true;
    for (media, content) in body["content"].as_object().into_iter().flatten() {
        let media = media_type(media);
        if media.ends_with("json") {
            declared.is_open =
                !fields(document, &content["schema"], DEPTH, &mut declared.fields, &mut declared.required);
        }
        declared.request_types.insert(media);
    }
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let mut declaration = Response { is_open: true, ..Response::default() };
        for (media, content) in follow(document, response)["content"].as_object().into_iter().flatten() {
            let media = media_type(media);
            if media.ends_with("json") {
                // Of a list, what stands in it.
                let schema = follow(document, &content["schema"]);
                let object = if schema["items"].is_object() { &schema["items"] } else { schema };
                let Response { fields: all, required, .. } = &mut declaration;
                declaration.is_open = !fields(document, object, DEPTH, all, required);
            }
            declaration.types.insert(media);
        }
        declared.responses.insert(status.to_ascii_uppercase(), declaration);
    }
    declared
}

/// Fields of an object and those that it must have. True when it is known that there are no others.
fn fields(
    document: &Value,
    schema: &Value,
    depth: usize,
    all: &mut BTreeSet<String>,
    required: &mut BTreeSet<String>,
) -> bool {
    let schema = follow(document, schema);
    let properties = schema["properties"].as_object();
    all.extend(properties.into_iter().flatten().map(|(name, _)| name.clone()));
    required.extend(
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned),
    );
    let mut is_closed = properties.is_some();
    if let (Some(parts), Some(depth)) = (schema["allOf"].as_array(), depth.checked_sub(1)) {
        is_closed = true;
        for part in parts {
            is_closed &= fields(document, part, depth, all, required);
        }
    }
    // Which of them it is cannot be told by names.
    let has_choice = schema["oneOf"].is_array() || schema["anyOf"].is_array();
    let others = &schema["additionalProperties"];
    is_closed
        && !has_choice
        && (others.is_null() || *others == false)
        && schema["patternProperties"].is_null()
}

/// What a reference leads to.
fn follow<'d>(document: &'d Value, mut value: &'d Value) -> &'d Value {
    for _ in 0..REFERENCES {
        let Some(pointer) = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) else {
            return value;
        };
        value = document.pointer(pointer).unwrap_or(&Value::Null);
    }
    &Value::Null
}

fn media_type(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What was seen and what is declared, compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Declared, and not seen for as long as was asked.
    pub unused: Vec<Unused>,
    /// Seen, and not declared.
    pub shadow: Vec<Shadow>,
    /// Seen to be other than declared.
    pub drift: Vec<Drift>,
    /// Declared operations that were seen and are as declared.
    pub matching: usize,
}

/// What is declared and not seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unused {
    /// The document's title, or the route.
    pub of: String,
    /// `GET /users/{id}`; of a route its template.
    pub operation: String,
    /// When it was last seen; absent: never since it is looked. Unit: seconds since 1970.
    pub last_seen_at: Option<u64>,
}

/// What is seen and not declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shadow {
    /// The host.
    pub host: String,
    /// `GET /users/{id}`.
    pub operation: String,
    /// How often it was seen.
    pub requests: u64,
    /// When it was last seen. Unit: seconds since 1970.
    pub last_seen_at: u64,
    /// Who called it.
    pub callers: Vec<String>,
    /// Routes that took it.
    pub routes: Vec<String>,
    /// A path of it.
    pub example: String,
}

/// What is other than declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// The document's title.
    pub of: String,
    /// `GET /users/{id}`, as it is declared.
    pub operation: String,
    /// What, one sentence each.
    pub what: Vec<String>,
}

/// Compares. `unused_before`: what was last seen before this time is unused (seconds since 1970).
///
/// Shadow operations are looked for at hosts that a document has operations for; without documents there are none. What
/// no document declares and a document does not speak of hosts is taken for one of it.
pub fn compare(apis: &Apis, declarations: &[Declaration], unused_before: u64) -> Report {
    let mut report = Report::default();
    let all: Vec<(&str, &Declared)> = declarations
        .iter()
        .flat_map(|declaration| declaration.operations.iter().map(|one| (&*declaration.title, one)))
        .collect();
    let mut seen: Vec<Vec<&Operation>> = vec![Vec::new(); all.len()];
    let mut maybe: BTreeSet<usize> = BTreeSet::new();
    for operation in &apis.operations {
        let of_host: Vec<_> = all
            .iter()
            .enumerate()
            .filter(|(_, (_, one))| one.hosts.is_empty() || one.hosts.contains(&operation.host))
            .collect();
        if of_host.is_empty() {
            continue;
        }
        let matching = of_host.iter().filter(|(_, (_, one))| one.method == operation.method);
        let best = matching
            .clone()
            .filter_map(|(at, (_, one))| {
                let fit = one
                    .paths
                    .iter()
                    .filter_map(|path| fit(path, &operation.path, &operation.example))
                    .max()?;
                Some((fit, *at))
            })
            .max_by_key(|(fit, at)| (*fit, std::cmp::Reverse(*at)));
        if let Some((_, at)) = best {
            seen[at].push(operation);
            continue;
        }
        // Several declared names that were taken for values: which of them were called is not known.
        let taken: Vec<_> = matching
            .filter(|(_, (_, one))| one.paths.iter().any(|path| is_one_of(path, &operation.path)))
            .map(|(at, _)| *at)
            .collect();
        if !taken.is_empty() {
            maybe.extend(taken);
            continue;
        }
        report.shadow.push(Shadow {
            host: operation.host.clone(),
            operation: format!("{} {}", operation.method, operation.path),
            requests: operation.requests,
            last_seen_at: operation.last_seen_at,
            callers: operation.callers.keys().cloned().collect(),
            routes: operation.routes.keys().cloned().collect(),
            example: operation.example.clone(),
        });
    }
    for (at, (title, one)) in all.iter().enumerate() {
        let name = format!("{} {}", one.method, one.template);
        let last = seen[at].iter().map(|operation| operation.last_seen_at).max();
        if last.is_none_or(|last| last < unused_before) && !maybe.contains(&at) {
            report.unused.push(Unused { of: (*title).to_owned(), operation: name, last_seen_at: last });
            continue;
        }
        let what: BTreeSet<String> =
            seen[at].iter().flat_map(|operation| differences(one, operation)).collect();
        if what.is_empty() {
            report.matching += 1;
        } else {
            let what = what.into_iter().collect();
            report.drift.push(Drift { of: (*title).to_owned(), operation: name, what });
        }
    }
    for route in &apis.routes {
        if route.last_seen_at.is_none_or(|last| last < unused_before) {
            report.unused.push(Unused {
                of: format!("route {}", route.route),
                operation: route.template.clone(),
                last_seen_at: route.last_seen_at,
            });
        }
    }
    report.shadow.sort();
    report
}

fn is_variable(segment: &str) -> bool {
    segment.contains('{')
}

fn segments(path: &str) -> Vec<&str> {
    path.split('/').filter(|segment| !segment.is_empty()).collect()
}

/// How well a declared path fits a seen one: the number of names that are the same; nothing when it does not.
fn fit(declared: &str, seen: &str, example: &str) -> Option<usize> {
    let (declared, seen, example) = (segments(declared), segments(seen), segments(example));
    if declared.len() != seen.len() {
        return None;
    }
    let mut same = 0;
    for (at, (declared, seen)) in declared.iter().zip(&seen).enumerate() {
        match (is_variable(declared), is_variable(seen)) {
            (true, _) => {}
            (false, false) if declared == seen => same += 1,
            // A name that was taken for a value, `2fa`: its operation has had one value only.
            (false, true) if example.get(at) == Some(declared) => same += 1,
            (false, _) => return None,
        }
    }
    Some(same)
}

/// True when a declared path is one that a seen template stands for.
fn is_one_of(declared: &str, seen: &str) -> bool {
    let (declared, seen) = (segments(declared), segments(seen));
    declared.len() == seen.len()
        && declared
            .iter()
            .zip(&seen)
            .all(|(declared, seen)| is_variable(seen) || is_variable(declared) || declared == seen)
}

/// What an operation does that is not declared, or does not that is.
fn differences(one: &Declared, seen: &Operation) -> Vec<String> {
    let mut what = Vec::new();
    for (status, answered) in &seen.statuses {
        // Failures of servers, and what caches agree on, are not the document's.
        if *status >= 500 || *status == 304 {
            continue;
        }
        let exact = status.to_string();
        let class = format!("{}XX", status / 100);
        let Some(declared) =
            [exact.as_str(), &class, "DEFAULT"].iter().find_map(|key| one.responses.get(*key))
        else {
            what.push(format!("status {status} is not declared"));
            continue;
        };
        for media in answered.types.keys() {
            if !declared.types.is_empty() && !is_declared(media, &declared.types) {
                what.push(format!("status {status} has content of type {media}, which is not declared"));
            }
        }
        if answered.contents > 0 {
            for name in &declared.required {
                if is_missing(name, &answered.fields, answered.contents) {
                    what.push(format!(
                        "status {status}: field `{name}` is required, and is missing in answers"
                    ));
                }
            }
            for name in answered.fields.keys() {
                if !declared.is_open && !declared.fields.contains(name) {
                    what.push(format!("status {status}: field `{name}` of answers is not declared"));
                }
            }
        }
    }
    for media in seen.request_types.keys() {
        if !is_declared(media, &one.request_types) {
            what.push(if one.request_types.is_empty() {
                format!("requests have content of type {media}, none is declared")
            } else {
                format!("requests have content of type {media}, which is not declared")
            });
        }
    }
    for name in seen.query.keys() {
        if !one.query.contains_key(name) {
            what.push(format!("query parameter `{name}` is not declared"));
        }
    }
    // Requests that were refused for it are not drift.
    let well: u64 = seen
        .statuses
        .iter()
        .filter(|(status, _)| **status < 400)
        .map(|(_, answered)| answered.requests)
        .sum();
    for (name, is_required) in &one.query {
        let with = seen.query.get(name).copied().unwrap_or(0);
        if *is_required && well > 0 && with < well {
            what.push(format!(
                "query parameter `{name}` is required, and is missing in requests that were served"
            ));
        }
    }
    if seen.contents > 0 {
        for name in &one.required {
            if is_missing(name, &seen.fields, seen.contents) {
                what.push(format!("field `{name}` is required, and is missing in requests"));
            }
        }
        for name in seen.fields.keys() {
            if !one.is_open && !one.fields.contains(name) {
                what.push(format!("field `{name}` is not declared"));
            }
        }
    }
    what
}

/// True when not every content had this field. Of very many fields not all are kept, and nothing is known of the others.
fn is_missing(name: &str, fields: &BTreeMap<String, u64>, contents: u64) -> bool {
    match fields.get(name) {
        Some(with) => *with < contents,
        None => fields.len() < VALUES,
    }
}

fn is_declared(media: &str, declared: &BTreeSet<String>) -> bool {
    let class = media.split('/').next().unwrap_or_default();
    declared.contains(media) || declared.contains("*/*") || declared.contains(&format!("{class}/*"))
}

/// What was seen as an OpenAPI document, one per host.
pub fn export(apis: &Apis) -> Vec<Value> {
    let mut hosts: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in &apis.operations {
        hosts.entry(&operation.host).or_default().push(operation);
    }
    hosts.into_iter().map(|(host, operations)| document(host, &operations)).collect()
}

fn document(host: &str, operations: &[&Operation]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations {
        let method = operation.method.to_ascii_lowercase();
        if !METHODS.contains(&&*method) {
            continue;
        }
        let (template, names) = name_variables(&operation.path);
        let parameter = |name: &str, place: &str, is_required: bool| json!({ "name": name, "in": place, "required": is_required, "schema": { "type": "string" } });
        let mut parameters: Vec<Value> = names.iter().map(|name| parameter(name, "path", true)).collect();
        parameters.extend(
            operation
                .query
                .iter()
                .map(|(name, count)| parameter(name, "query", *count >= operation.requests)),
        );
        let mut responses = Map::new();
        for (status, answered) in &operation.statuses {
            let described = |media: &String| {
                let has_fields = media.ends_with("json") && answered.contents > 0;
                if !has_fields {
                    return json!({});
                }
                let object = schema(&answered.fields, answered.contents);
                let is_list = answered.lists > 0;
                json!({ "schema": if is_list { json!({ "type": "array", "items": object }) } else { object } })
            };
            let content: Map<_, _> =
                answered.types.keys().map(|media| (media.clone(), described(media))).collect();
            let mut response = json!({ "description": format!("seen {} times", answered.requests) });
            if !content.is_empty() {
                response["content"] = Value::Object(content);
            }
            responses.insert(status.to_string(), response);
        }
        let mut described = json!({
            "summary": format!("seen {} times", operation.requests),
            "parameters": parameters,
            "responses": responses,
        });
        if !operation.request_types.is_empty() {
            let content = operation.request_types.keys().map(|media| {
                let has_fields = media.ends_with("json") && operation.contents > 0;
                (
                    media.clone(),
                    if has_fields {
                        json!({ "schema": schema(&operation.fields, operation.contents) })
                    } else {
                        json!({})
                    },
                )
            });
            described["requestBody"] = json!({ "content": content.collect::<Map<_, _>>() });
        }
        let item = paths.entry(template).or_insert_with(|| json!({}));
        item[method] = described;
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": if host.is_empty() { "APIs seen" } else { host }, "version": "seen" },
        "servers": [{ "url": if host.is_empty() { "/".to_owned() } else { format!("//{host}") } }],
        "paths": paths,
    })
}

/// The schema of contents that had these fields so often.
fn schema(fields: &BTreeMap<String, u64>, contents: u64) -> Value {
    let properties: Map<_, _> = fields.keys().map(|name| (name.clone(), json!({}))).collect();
    let required: Vec<_> =
        fields.iter().filter(|(_, count)| **count >= contents).map(|(name, _)| name).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

/// A template whose variables have names of their own, and these.
fn name_variables(template: &str) -> (String, Vec<String>) {
    let mut names: Vec<String> = Vec::new();
    let segments = template.split('/').map(|segment| {
        if segment != "{id}" {
            return segment.to_owned();
        }
        let number = names.len() + 1;
        names.push(if number == 1 { "id".to_owned() } else { format!("id{number}") });
        format!("{{{}}}", names.last().map_or("", String::as_str))
    });
    let template = segments.collect::<Vec<_>>().join("/");
    (template, names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apis::Finder;
    use rhumb_telemetry::sightings::Sighting;

    fn shop() -> Declaration {
        Declaration::read(&json!({
            "openapi": "3.0.3",
            "info": { "title": "shop" },
            "servers": [{ "url": "https://shop.example/v1" }],
            "paths": {
                "/items": { "get": {
                    "parameters": [
                        { "name": "page", "in": "query", "required": true },
                        { "$ref": "#/components/parameters/sort" },
                    ],
                    "responses": { "200": { "content": { "application/json": {} } }, "default": {} },
                } },
                "/items/{item}": { "get": { "responses": { "2XX": {}, "404": {} } } },
                "/items/latest": { "get": { "responses": { "200": {} } } },
                "/orders": { "post": {
                    "requestBody": { "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Order" } } } },
                    "responses": { "201": {} },
                } },
                "/exports": { "get": { "responses": { "200": {} } } },
            },
            "components": {
                "parameters": { "sort": { "name": "sort", "in": "query" } },
                "schemas": { "Order": { "properties": { "item": {}, "count": {} }, "required": ["item"] } },
            },
        }))
        .unwrap()
    }

    fn sighting(method: &str, path: &str, query: &[&str], status: u16, content: &str) -> Sighting {
        Sighting {
            host: "shop.example".into(),
            method: method.into(),
            path: path.into(),
            query: query.iter().map(|name| (*name).into()).collect(),
            status,
            request_type: if content.is_empty() { "" } else { "application/json" }.into(),
            response_type: "application/json".into(),
            caller: "default/acme".into(),
            route: ("default/shop".into(), "/".into()),
            content: (!content.is_empty()).then(|| content.as_bytes().into()),
            at: 100,
            count: 3,
            ..Sighting::default()
        }
    }

    fn apis(sightings: &[Sighting]) -> Apis {
        let finder = Finder::default();
        finder.look(sightings, 1);
        finder.apis([("default/shop", "/"), ("default/old", "/old/*")].into_iter())
    }

    fn well() -> Vec<Sighting> {
        vec![
            sighting("GET", "/v1/items", &["page", "sort"], 200, ""),
            sighting("GET", "/v1/items/7", &[], 200, ""),
            sighting("GET", "/v1/items/latest", &[], 200, ""),
            sighting("POST", "/v1/orders", &[], 201, r#"{"item": 1, "count": 2}"#),
            sighting("GET", "/v1/exports", &[], 200, ""),
        ]
    }

    #[test]
    fn what_is_as_declared_is_not_reported() {
        let report = compare(&apis(&well()), &[shop()], 50);
        assert_eq!((report.matching, &report.shadow, &report.drift), (5, &Vec::new(), &Vec::new()));
        assert_eq!(report.unused.len(), 1, "{:?}", report.unused);
        assert_eq!(report.unused[0].of, "route default/old");
    }

    #[test]
    fn what_is_planted_is_found_and_nothing_else() {
        let mut seen = well();
        seen.truncate(4);
        seen.push(sighting("GET", "/v1/items", &["page", "debug"], 200, ""));
        seen.push(sighting("GET", "/v1/items", &[], 200, ""));
        seen.push(sighting("DELETE", "/v1/items/9", &[], 204, ""));
        seen.push(sighting("GET", "/internal/metrics", &[], 200, ""));
        seen.push(sighting("GET", "/wp-login.php", &[], 404, ""));
        seen.push(sighting("GET", "/v1/items/8", &[], 418, ""));
        seen.push(sighting("POST", "/v1/orders", &[], 201, r#"{"count": 2, "coupon": "x"}"#));
        seen.push(Sighting { host: "other.example".into(), ..sighting("GET", "/elsewhere", &[], 200, "") });
        let report = compare(&apis(&seen), &[shop()], 50);
        let shadow: Vec<_> = report.shadow.iter().map(|shadow| &*shadow.operation).collect();
        assert_eq!(shadow, ["DELETE /v1/items/{id}", "GET /internal/metrics"]);
        let unused: Vec<_> = report.unused.iter().map(|unused| &*unused.operation).collect();
        assert_eq!(unused, ["GET /exports", "/old/*"]);
        let drift: BTreeMap<_, _> =
            report.drift.iter().map(|drift| (&*drift.operation, drift.what.clone())).collect();
        assert_eq!(
            drift["GET /items"],
            [
                "query parameter `debug` is not declared",
                "query parameter `page` is required, and is missing in requests that were served"
            ]
        );
        assert_eq!(drift["GET /items/{item}"], ["status 418 is not declared"]);
        assert_eq!(
            drift["POST /orders"],
            ["field `coupon` is not declared", "field `item` is required, and is missing in requests"]
        );
        assert_eq!((drift.len(), report.matching), (3, 1));
    }

    #[test]
    fn what_was_seen_is_a_document_that_it_matches() {
        let apis = apis(&well());
        let documents = export(&apis);
        assert_eq!(documents.len(), 1);
        let declaration = Declaration::read(&documents[0]).unwrap();
        let report = compare(&Apis { routes: Vec::new(), ..apis }, &[declaration], 50);
        assert_eq!((report.unused.len(), report.shadow.len(), report.drift.len()), (0, 0, 0), "{report:?}");
        let nested = name_variables("/a/{id}/b/{id}");
        assert_eq!(nested, ("/a/{id}/b/{id2}".to_owned(), vec!["id".to_owned(), "id2".to_owned()]));
    }

    #[test]
    fn what_is_no_document_is_refused() {
        assert_eq!(Declaration::read(&json!({ "swagger": "2.0" })).unwrap_err(), NotOpenApi::Version);
        assert_eq!(Declaration::read(&json!({ "openapi": "3.1.0" })).unwrap_err(), NotOpenApi::Paths);
        let circle = json!({ "openapi": "3.1.0", "paths": { "/a": { "$ref": "#/paths/~1a" } } });
        assert!(Declaration::read(&circle).unwrap().operations.is_empty());
    }

    #[test]
    fn answers_that_have_other_fields_than_declared_have_drifted() {
        let document = Declaration::read(&json!({
            "openapi": "3.1.0",
            "info": { "title": "shop" },
            "paths": { "/items": { "get": { "responses": {
                "200": { "content": { "application/json": { "schema": { "type": "array", "items": {
                    "type": "object", "properties": { "id": {}, "name": {} }, "required": ["id"],
                } } } } },
                "404": { "content": { "application/problem+json": {} } },
            } } } },
        }))
        .unwrap();
        let answer = |status, response: &str| Sighting {
            response: Some(response.as_bytes().into()),
            ..sighting("GET", "/items", &[], status, "")
        };
        let well = answer(200, r#"[{"id": 1, "name": "a"}, {"id": 2}]"#);
        let open =
            Sighting { response_type: "application/problem+json".into(), ..answer(404, r#"{"x": 1}"#) };
        assert_eq!(compare(&apis(&[well.clone(), open]), std::slice::from_ref(&document), 50).drift, []);
        let report = compare(&apis(&[well, answer(200, r#"[{"price": 1}]"#)]), &[document], 50);
        assert_eq!(
            report.drift[0].what,
            [
                "status 200: field `id` is required, and is missing in answers",
                "status 200: field `price` of answers is not declared",
            ]
        );
    }
}
