//! The JSON Schema as a page for people: each mapping with its keys.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write;

use serde_json::{Map, Value};

/// The page, in Markdown.
pub(super) fn page(schema: &Value) -> String {
    let empty = Map::new();
    let defs = schema["$defs"].as_object().unwrap_or(&empty);
    let mut out = String::from(
        "# Reference of the configuration\n\n\
         Every key of the short form and of documents, as `rhumb schema reference` prints it. Keys in **bold** are\n\
         required. How the pieces go together is told in [configuration.md](configuration.md).\n",
    );
    let mut queue = VecDeque::from(["ShortForm".to_owned()]);
    let mut seen: HashSet<String> = queue.iter().cloned().collect();
    references(&schema["then"], &mut |name| {
        if seen.insert(name.to_owned()) {
            queue.push_back(name.to_owned());
        }
    });
    // What nothing refers to from the top comes last.
    for name in defs.keys() {
        if seen.insert(name.clone()) {
            queue.push_back(name.clone());
        }
    }
    // Breadth first: a mapping stands near those that have it.
    let mut order = Vec::new();
    let mut placed = HashSet::new();
    while let Some(name) = queue.pop_front() {
        if !placed.insert(name.clone()) {
            continue;
        }
        let mut below = Vec::new();
        references(&defs.get(&name).cloned().unwrap_or_default(), &mut |name| below.push(name.to_owned()));
        below.into_iter().rev().for_each(|name| queue.push_front(name));
        order.push(name);
    }
    for name in order {
        if let Some(def) = defs.get(&name) {
            mapping(&mut out, &name, def);
        }
    }
    out
}

/// Calls `found` for each definition that a schema refers to, in order.
fn references(schema: &Value, found: &mut dyn FnMut(&str)) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(target) if key == "$ref" => found(target.trim_start_matches("#/$defs/")),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// A heading and a table, for a schema with properties.
fn mapping(out: &mut String, name: &str, schema: &Value) {
    let Some(properties) = schema["properties"].as_object() else { return };
    let required: Vec<_> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let _ = writeln!(out, "\n## {name}\n");
    if let Some(text) = schema["description"].as_str() {
        let _ = writeln!(out, "{}\n", text.replace('\n', "\n\n"));
    }
    out.push_str("| key | value | meaning |\n|---|---|---|\n");
    for (key, property) in properties {
        let mark = if required.contains(&key.as_str()) { "**" } else { "" };
        let meaning = property["description"].as_str().unwrap_or_default();
        let _ = writeln!(out, "| {mark}`{key}`{mark} | {} | {} |", cell(&kind(property)), cell(meaning));
    }
}

/// What a value is, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(target) = schema["$ref"].as_str() {
        let name = target.trim_start_matches("#/$defs/");
        return format!("[{name}](#{})", anchor(name));
    }
    if let Some(value) = schema.get("const") {
        return format!("`{}`", bare(value));
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|value| format!("`{}`", bare(value))).collect::<Vec<_>>().join(", ");
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(options) = schema[key].as_array() {
            let mut kinds: Vec<_> = options.iter().map(kind).filter(|kind| !kind.is_empty()).collect();
            kinds.dedup();
            return kinds.join(if key == "allOf" { " and " } else { " or " });
        }
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", kind(&schema["items"])),
        Some("object") => match schema.get("additionalProperties") {
            Some(values @ Value::Object(_)) => format!("mapping of names to {}", kind(values)),
            _ => "mapping".to_owned(),
        },
        Some("integer") => match (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
            (Some(least), Some(most)) => format!("{least} to {most}"),
            _ => "whole number".to_owned(),
        },
        Some("string") => schema["format"].as_str().unwrap_or("text").to_owned(),
        Some("boolean") => "true or false".to_owned(),
        Some(other) => other.to_owned(),
        None => String::new(),
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
    name.to_ascii_lowercase().replace('.', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_mapping_is_a_table() {
        let text = page(&json!({ "$defs": {
            "Other": { "properties": { "b": { "enum": ["x", "y"] } } },
            "ShortForm": {
                "description": "The top.",
                "properties": {
                    "a": { "description": "One | two.", "anyOf": [{ "type": "string" }, { "$ref": "#/$defs/p.Other" }] },
                    "n": { "type": "integer", "minimum": 1, "maximum": 9 },
                },
                "required": ["a"],
            },
        }}));
        for line in [
            "## ShortForm\n\nThe top.\n",
            "| **`a`** | text or [p.Other](#pother) | One \\| two. |",
            "| `n` | 1 to 9 |  |",
            "| `b` | `x`, `y` |  |",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
