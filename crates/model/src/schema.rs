//! JSON Schema (2020-12) of what is written, from the tables that decode it.

use crate::decode::{Decode, Defs};
use crate::span::Span;
use serde_json::{Map, Value as Json, json};

/// The schema of a mapping while its fields are added.
pub(crate) struct ObjectSchema {
    description: String,
    properties: Map<String, Json>,
    required: Vec<Json>,
}

impl ObjectSchema {
    pub(crate) fn new(docs: &str) -> Self {
        Self { description: description(docs), properties: Map::new(), required: Vec::new() }
    }

    pub(crate) fn field<T: Decode>(&mut self, key: &str, docs: &str, has_default: bool, defs: &mut Defs) {
        let mut schema = T::schema(defs);
        let text = description(docs);
        if !text.is_empty() {
            schema["description"] = text.into();
        }
        self.properties.insert(key.to_owned(), schema);
        if !has_default && T::absent(Span::default()).is_none() {
            self.required.push(key.into());
        }
    }

    pub(crate) fn finish(self) -> Json {
        let mut schema = json!({
            "type": "object",
            "description": self.description,
            "properties": self.properties,
            "additionalProperties": false,
        });
        if !self.required.is_empty() {
            schema["required"] = self.required.into();
        }
        schema
    }
}

/// A reference to an environment variable, which may stand for any scalar.
pub(crate) const VARIABLE_PATTERN: &str = r"\$\{";

/// Lets a text with a pattern be, or have in it, a reference to an environment variable.
pub(crate) fn or_variable(schema: &mut Json) {
    if let Some(Json::String(pattern)) = schema.get_mut("pattern") {
        *pattern = format!("({pattern})|{VARIABLE_PATTERN}");
    }
}

/// The text of a doc comment: lines joined to paragraphs, without links and code marks of rustdoc.
pub(crate) fn description(docs: &str) -> String {
    let mut out = String::new();
    for line in docs.lines().map(str::trim) {
        if line.is_empty() {
            if !out.is_empty() && !out.ends_with('\n') {
                out.push('\n');
            }
            continue;
        }
        if !out.is_empty() && !out.ends_with('\n') {
            out.push(' ');
        }
        out.push_str(line);
    }
    out.trim_end().replace("[`", "`").replace("`]", "`")
}

/// JSON Schema of one YAML document of a configuration file: a document with `kind`, or the short form.
///
/// `policies` has the schema of each policy body by kind; it takes the place of the free form under `policies`.
pub fn file_schema(policies: &[(&str, Json)]) -> Json {
    let mut defs = Defs::new();
    let document = crate::doc::schema(&mut defs);
    let short = crate::short::ShortForm::schema(&mut defs);
    finish(
        "A Rhumb configuration: documents of Gateway API and rhumb.dev, or the short form.",
        policies,
        defs,
        json!({
            "if": { "anyOf": [{ "required": ["kind"] }, { "required": ["apiVersion"] }] },
            "then": document,
            "else": short,
        }),
    )
}

/// JSON Schema of the short form alone (`rhumb.yaml`).
pub fn short_form_schema(policies: &[(&str, Json)]) -> Json {
    let mut defs = Defs::new();
    let short = crate::short::ShortForm::schema(&mut defs);
    finish("The short form of a Rhumb configuration.", policies, defs, short)
}

fn finish(title: &str, policies: &[(&str, Json)], defs: Defs, body: Json) -> Json {
    let mut defs: Map<String, Json> =
        defs.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    if !policies.is_empty() {
        let kinds: Map<String, Json> =
            policies.iter().map(|(kind, schema)| ((*kind).to_owned(), schema.clone())).collect();
        let table = json!({ "type": "object", "properties": kinds, "additionalProperties": false });
        for owner in ["Policy", "ShortForm", "ShortListener", "ShortRoute", "ShortBackend"] {
            if let Some(slot) = defs.get_mut(owner).and_then(|def| def.pointer_mut("/properties/policies")) {
                let description = slot.get("description").cloned();
                *slot = table.clone();
                if let Some(description) = description {
                    slot["description"] = description;
                }
            }
        }
    }
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
    });
    if let (Json::Object(schema), Json::Object(body)) = (&mut schema, body) {
        schema.extend(body);
        schema.insert("$defs".to_owned(), Json::Object(defs));
    }
    schema
}
