//! The JSON Schema as a page for people: each mapping with its keys.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write;

use serde_json::{Map, Value};

/// The page, in Markdown. `policies` has the schema of each policy's body, by kind.
pub(super) fn page(schema: &Value, policies: &[(&str, Value)]) -> String {
    let empty = Map::new();
    let defs = schema["$defs"].as_object().unwrap_or(&empty);
    let mut page = Page { defs, seen: HashSet::new(), out: String::new() };
    page.out.push_str(
        "# Reference of the configuration\n\n\
         Every key of the short form and of documents, as `rhumb schema reference` prints it. Keys in **bold** are\n\
         required. How the pieces go together is told in [configuration.md](configuration.md).\n",
    );
    page.out.push_str("\n# The short form\n");
    page.mappings(&Value::from_iter([("$ref", "#/$defs/ShortForm")]));
    page.out.push_str("\n# Policies\n\nWhat stands under `policies`, by kind.\n");
    for (kind, body) in policies {
        page.mapping(&policy(kind), body);
        page.mappings(body);
    }
    page.out.push_str(
        "\n# Documents\n\nKinds, and what stands under `spec` (Secret, ConfigMap: beside `metadata`).\n",
    );
    let kinds = schema["then"]["allOf"].as_array().into_iter().flatten();
    page.out.push_str("\n| kind | apiVersion | spec | meaning |\n|---|---|---|---|\n");
    for kind in kinds.clone() {
        let (name, document) = (&kind["if"]["properties"]["kind"], &kind["then"]);
        let fields = &document["properties"];
        let spec = if fields["spec"].is_object() { &fields["spec"] } else { document };
        let spec = page.kind(spec);
        let (kind, version) = (page.kind(name), page.kind(&fields["apiVersion"]));
        let meaning = document["description"].as_str().unwrap_or_default();
        let _ = writeln!(page.out, "| {kind} | {version} | {spec} | {} |", cell(meaning));
    }
    kinds.for_each(|kind| page.mappings(&kind["then"]));
    page.values();
    page.out
}

struct Page<'s> {
    defs: &'s Map<String, Value>,
    /// Mappings that have their table.
    seen: HashSet<String>,
    out: String,
}

impl Page<'_> {
    /// Tables of all mappings that a schema refers to, the near ones first.
    fn mappings(&mut self, schema: &Value) {
        let mut queue = VecDeque::new();
        references(schema, &mut |name| queue.push_back(name.to_owned()));
        while let Some(name) = queue.pop_front() {
            let Some(def) = self.defs.get(&name) else { continue };
            if self.seen.insert(name.clone()) {
                self.mapping(&name, def);
                references(def, &mut |name| queue.push_back(name.to_owned()));
            }
        }
    }

    /// A heading and a table, for a schema with properties.
    fn mapping(&mut self, name: &str, schema: &Value) {
        let Some(properties) = schema["properties"].as_object() else { return };
        let required: Vec<_> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let _ = writeln!(self.out, "\n## {name}\n");
        if let Some(text) = schema["description"].as_str() {
            let _ = writeln!(self.out, "{}\n", text.replace('\n', "\n\n"));
        }
        self.out.push_str("| key | value | meaning |\n|---|---|---|\n");
        for (key, property) in properties {
            let mark = if required.contains(&key.as_str()) { "**" } else { "" };
            let meaning = property["description"].as_str().unwrap_or_default();
            let row =
                format!("| {mark}`{key}`{mark} | {} | {} |\n", cell(&self.kind(property)), cell(meaning));
            self.out.push_str(&row);
        }
    }

    /// What values look like that are no mappings.
    fn values(&mut self) {
        self.out.push_str("\n# Values\n\n| name | form |\n|---|---|\n");
        for (name, def) in self.defs {
            if !def["properties"].is_object() && choices(def).is_empty() {
                let form = def["description"].as_str().unwrap_or_default();
                let _ = writeln!(self.out, "| {name} | {} |", cell(form));
            }
        }
    }

    /// What a value is, in a few words.
    fn kind(&self, schema: &Value) -> String {
        if let Some(target) = schema["$ref"].as_str() {
            let name = target.trim_start_matches("#/$defs/");
            return match self.defs.get(name) {
                Some(def) if def["properties"].is_object() => format!("[{name}](#{})", anchor(name)),
                Some(def) if !choices(def).is_empty() => choices(def),
                _ => format!("[{name}](#values)"),
            };
        }
        let choices = choices(schema);
        if !choices.is_empty() {
            return choices;
        }
        for (key, word) in [("anyOf", " or "), ("oneOf", " or "), ("allOf", " and ")] {
            if let Some(options) = schema[key].as_array() {
                let mut kinds: Vec<_> = options.iter().map(|option| self.kind(option)).collect();
                kinds.retain(|kind| !kind.is_empty());
                kinds.dedup();
                return kinds.join(word);
            }
        }
        match types(schema).first() {
            Some(&"array") => format!("list of {}", self.kind(&schema["items"])),
            Some(&"object") => self.table(schema),
            Some(&"integer") => match (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
                (Some(least), Some(most)) => format!("{least} to {most}"),
                _ => "whole number".to_owned(),
            },
            Some(&"string") => "text".to_owned(),
            Some(&"boolean") => "true or false".to_owned(),
            Some(other) => (*other).to_owned(),
            None => String::new(),
        }
    }

    /// A mapping that has no name of its own.
    fn table(&self, schema: &Value) -> String {
        if let Some(properties) = schema["properties"].as_object() {
            let known = |kind: &&String| schema["properties"][kind.as_str()]["properties"].is_object();
            let links =
                properties.keys().filter(known).map(|kind| format!("[{kind}](#{})", anchor(&policy(kind))));
            return links.collect::<Vec<_>>().join(", ");
        }
        match schema.get("additionalProperties") {
            Some(values @ Value::Object(_)) => format!("mapping of names to {}", self.kind(values)),
            _ => "mapping".to_owned(),
        }
    }
}

/// The heading of a kind of policy.
fn policy(kind: &str) -> String {
    format!("Policy {kind}")
}

/// The types of a value; `null` and the variables that a number may be written with are left out.
fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(only) => vec![only],
        Value::Array(all) => all.iter().filter_map(Value::as_str).filter(|one| *one != "null").collect(),
        _ => Vec::new(),
    }
}

/// The words that a value can be; empty when there is no such list.
fn choices(schema: &Value) -> String {
    if let Some(value) = schema.get("const") {
        return format!("`{}`", bare(value));
    }
    let own = schema["enum"].as_array();
    let nested = || schema["anyOf"].as_array()?.iter().find_map(|option| option["enum"].as_array());
    let words = own.or_else(nested).into_iter().flatten().map(|value| format!("`{}`", bare(value)));
    words.collect::<Vec<_>>().join(", ")
}

/// Calls `found` for each definition that a schema refers to, in order. Bodies of policies are left to their own
/// chapter.
fn references(schema: &Value, found: &mut dyn FnMut(&str)) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(target) if key == "$ref" => found(target.trim_start_matches("#/$defs/")),
                    _ if key == "policies" && value["properties"].is_object() => {}
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Text that fits into a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', "<br>")
}

/// The anchor that Markdown renderers give a heading.
fn anchor(name: &str) -> String {
    name.to_ascii_lowercase().replace('.', "").replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_mapping_is_a_table() {
        let schema = json!({ "$defs": {
            "Word": { "type": "string", "description": "A word." },
            "Mode": { "type": "string", "anyOf": [{ "enum": ["x", "y"] }, { "pattern": "z" }] },
            "Other": { "properties": { "b": { "$ref": "#/$defs/Mode" }, "w": { "$ref": "#/$defs/Word" } } },
            "ShortForm": {
                "description": "The top.",
                "properties": {
                    "a": { "description": "One | two.", "anyOf": [{ "type": "string" }, { "$ref": "#/$defs/Other" }] },
                    "n": { "type": ["integer", "string"], "minimum": 1, "maximum": 9 },
                    "policies": { "type": "object", "properties": { "cors": { "properties": {} } } },
                },
                "required": ["a"],
            },
        }});
        let text = page(&schema, &[("cors", json!({ "properties": { "o": { "type": "boolean" } } }))]);
        for part in [
            "## ShortForm\n\nThe top.\n",
            "| **`a`** | text or [Other](#other) | One \\| two. |",
            "| `n` | 1 to 9 |  |",
            "| `policies` | [cors](#policy-cors) |  |",
            "| `b` | `x`, `y` |  |",
            "| `w` | [Word](#values) |  |",
            "## Policy cors\n\n| key | value | meaning |\n|---|---|---|\n| `o` | true or false |  |",
            "| Word | A word. |",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
