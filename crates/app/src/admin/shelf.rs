//! The documents in force in a process that does not have them in a store: what they say, and where each was written.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rhumb_model::value::{Node, Value as Written};
use rhumb_model::{Doc, DocId};
use serde_json::{Map, Value};

/// Documents in force, for those who look.
#[derive(Clone, Default)]
pub(crate) struct Shelf(Arc<Mutex<Arc<Vec<Arc<Doc>>>>>);

impl Shelf {
    /// Other documents are in force.
    pub(crate) fn put(&self, docs: Vec<Arc<Doc>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(docs);
    }

    /// The documents in force.
    pub(crate) fn docs(&self) -> Arc<Vec<Arc<Doc>>> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where a document was written.
    pub(crate) fn origin(doc: &Doc) -> String {
        let at = doc.source.position(doc.span.start);
        format!("{}:{}:{}", doc.source.name(), at.line, at.column)
    }
}

/// What documents say, by what they are called, as `path` has them; the documents of a control plane say it themselves.
/// References to files and variables stay references.
pub(super) fn contents(path: &Path, docs: &[Arc<Doc>]) -> Vec<(Arc<Doc>, Value)> {
    let nodes = rhumb_source::adapt(path).0;
    let written: HashMap<DocId, &Node> = nodes.iter().map(|node| (id_of(node), node)).collect();
    let content = |doc: &Arc<Doc>| match written.get(&*doc.id) {
        Some(node) => as_written(node),
        None => serde_json::from_str(doc.source.text()).unwrap_or_default(),
    };
    docs.iter().map(|doc| (Arc::clone(doc), content(doc))).collect()
}

fn id_of(node: &Node) -> DocId {
    let text = |path: &str| node.find(path).as_str().unwrap_or_default().into();
    let mut id =
        DocId { kind: text("kind"), namespace: text("metadata.namespace"), name: text("metadata.name") };
    let has_namespace = !["GatewayClass", "Mesh", "Namespace"].contains(&&*id.kind);
    if has_namespace && id.namespace.is_empty() {
        id.namespace = rhumb_model::doc::DEFAULT_NAMESPACE.into();
    }
    if !has_namespace {
        id.namespace = "".into();
    }
    id
}

/// JSON in which what was expanded is as it was written.
fn as_written(node: &Node) -> Value {
    if let Some(raw) = &node.raw {
        return Value::String(raw.text.to_string());
    }
    match &node.value {
        Written::Map(entries) => {
            let entries = entries.iter().map(|entry| (entry.key.to_string(), as_written(&entry.value)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        Written::Seq(items) => items.iter().map(as_written).collect(),
        _ => node.to_json(),
    }
}

/// What stands for a value that is not shown.
pub(super) const MASK: &str = "(not shown)";

/// True when something in a document is not what it says, but that it was not shown.
pub(super) fn is_masked(value: &Value) -> bool {
    match value {
        Value::String(text) => text == MASK,
        Value::Array(items) => items.iter().any(is_masked),
        Value::Object(object) => object.values().any(is_masked),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Replaces what may be secret in a document: the content of Secrets, and texts under names that say credential.
pub(super) fn mask(document: &mut Value) {
    let is_secret = document["kind"] == "Secret";
    let Value::Object(object) = document else { return };
    for (name, value) in object {
        match name.as_str() {
            "data" | "stringData" if is_secret => hide(value),
            "metadata" => {
                // `kubectl apply` keeps the whole document here.
                if let Some(annotations) = value.get_mut("annotations").and_then(Value::as_object_mut) {
                    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
                }
            }
            _ => mask_named(value),
        }
    }
}

fn mask_named(value: &mut Value) {
    match value {
        Value::Object(object) => {
            // A field that is set: `{ name: authorization, value: … }`.
            let named = object.get("name").and_then(Value::as_str);
            let is_credential = named.is_some_and(says_credential_field);
            for (name, value) in object {
                let is_hidden =
                    says_credential(name) || says_credential_field(name) || is_credential && name == "value";
                if is_hidden { hide(value) } else { mask_named(value) }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask_named),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Every text in it, but references to files, variables and other documents.
fn hide(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with("file:") || text.starts_with("${") => {}
        Value::String(text) => MASK.clone_into(text),
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(object) => {
            for (name, value) in object {
                if !["name", "namespace", "kind", "group", "header", "from"].contains(&name.as_str()) {
                    hide(value);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Names under which documents have what opens something.
pub(super) fn says_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let whole = ["key", "keys", "token", "tokens", "credentials", "hash"];
    let part = ["secret", "password", "apikey", "privatekey", "passwd"];
    whole.contains(&name.as_str()) || name.ends_with("key") || part.iter().any(|part| name.contains(part))
}

/// Fields of requests that have what opens something.
fn says_credential_field(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let whole = ["authorization", "proxy-authorization", "cookie", "set-cookie"];
    let part = ["api-key", "token", "secret", "password"];
    whole.contains(&name.as_str()) || part.iter().any(|part| name.contains(part) && name.contains('-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_not_shown_and_references_are() {
        let mut document = json!({
            "kind": "Secret", "metadata": { "name": "tls" },
            "data": { "tls.key": "c2VjcmV0" }, "stringData": { "a": "hunter2", "b": "file:key.pem" },
        });
        mask(&mut document);
        assert_eq!(document["data"]["tls.key"], MASK);
        assert_eq!(
            (&document["stringData"]["a"], &document["stringData"]["b"]),
            (&json!(MASK), &json!("file:key.pem"))
        );

        let mut document = json!({
            "kind": "Policy",
            "spec": { "oidc": { "clientSecret": "hunter2", "issuer": "https://id" },
                      "rateLimit": { "key": "request.host", "requests": 5 },
                      "jwt": { "secretRef": { "name": "keys" } } },
        });
        mask(&mut document);
        assert_eq!(document["spec"]["oidc"]["clientSecret"], MASK);
        assert_eq!(document["spec"]["oidc"]["issuer"], "https://id");
        assert_eq!(document["spec"]["jwt"]["secretRef"]["name"], "keys");
    }
}
