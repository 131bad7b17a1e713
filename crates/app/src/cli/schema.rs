//! `rhumb schema`.

use rhumb_model::schema::{file_schema, short_form_schema};
use serde_json::{Map, Value};

use super::Exit;
use crate::print;

mod reference;

/// Print the JSON Schema of configurations
///
/// Editors complete and check with it: put `# yaml-language-server: $schema=PATH` into the first line of a file.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb schema > rhumb.schema.json
  rhumb schema short
  rhumb schema reference > reference.md")]
pub(crate) struct Args {
    /// What is described
    #[arg(default_value = "documents")]
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Every file: documents and the short form
    Documents,
    /// The short form alone
    Short,
    /// Every file, as a page of Markdown
    Reference,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let (schema, policies) = schema(args.what);
    print::out(&match args.what {
        What::Documents | What::Short => format!("{schema:#}\n"),
        What::Reference => reference::page(&schema, &policies),
    })?;
    Ok(Exit::Ok)
}

/// The schema, and that of each policy's body.
fn schema(what: What) -> (Value, Vec<(&'static str, Value)>) {
    let mut shared = Map::new();
    let bodies: Vec<_> =
        rhumb_policy::KINDS.iter().map(|kind| (kind.name, body(kind, &mut shared))).collect();
    let mut schema = match what {
        What::Documents | What::Reference => file_schema(&bodies),
        What::Short => short_form_schema(&bodies),
    };
    if let Some(Value::Object(defs)) = schema.get_mut("$defs") {
        defs.extend(shared);
    }
    (schema, bodies)
}

/// The schema of a policy's body. Its definitions move to those of the whole file, under names that begin with the
/// policy's.
fn body(kind: &rhumb_policy::Kind, shared: &mut Map<String, Value>) -> Value {
    let mut schema = (kind.schema)().to_value();
    prefix_references(&mut schema, kind.name);
    if let Value::Object(fields) = &mut schema {
        fields.remove("$schema");
        fields.remove("title");
        if let Some(Value::Object(defs)) = fields.remove("$defs") {
            shared.extend(defs.into_iter().map(|(name, def)| (format!("{}.{name}", kind.name), def)));
        }
    }
    schema
}

fn prefix_references(schema: &mut Value, kind: &str) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(target) if key == "$ref" => {
                        if let Some(name) = target.strip_prefix("#/$defs/") {
                            *target = format!("#/$defs/{kind}.{name}");
                        }
                    }
                    other => prefix_references(other, kind),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| prefix_references(item, kind)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(fields) => fields.iter().for_each(|(key, value)| match value.as_str() {
                Some(target) if key == "$ref" => found.push(target.to_owned()),
                _ => references(value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        for what in [What::Documents, What::Short] {
            let (schema, _) = schema(what);
            let mut found = Vec::new();
            references(&schema, &mut found);
            assert!(!found.is_empty());
            for target in found {
                let pointer = target.strip_prefix('#').expect("a reference within the schema");
                assert!(schema.pointer(pointer).is_some(), "{target} is not in the schema {what:?}");
            }
        }
    }

    #[test]
    fn each_policy_is_described() {
        let text = schema(What::Short).0.to_string();
        for kind in rhumb_policy::KINDS {
            assert!(text.contains(&format!("\"{}\"", kind.name)), "{}", kind.name);
        }
    }
}
