//! From bundles to documents: each once, parsed once.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::HashMap;
use prost::Message;
use rhumb_ads::resource::Documents;
use rhumb_model::{Diag, Doc, Source};

/// Documents that are made again and again of the bundles at hand. One that is the same as before stays the same allocation.
#[derive(Default)]
pub struct Assembly {
    parsed: HashMap<Bytes, Parsed>,
    /// Documents by the bundle that they came in, as bytes that are shared with it.
    bundles: HashMap<Bytes, Arc<[(Bytes, u64)]>>,
}

/// Kind, namespace and name.
type Name = (Box<str>, Box<str>, Box<str>);

#[derive(Clone)]
struct Parsed {
    documents: Vec<Arc<Doc>>,
    diags: Vec<Diag>,
}

/// What bundles come to.
#[derive(Default)]
pub struct Assembled {
    /// The documents, by kind, namespace and name.
    pub documents: Vec<Arc<Doc>>,
    /// Mistakes in them.
    pub diags: Vec<Diag>,
    /// The latest revision that brought one of them.
    pub revision: u64,
}

impl Assembly {
    /// The documents of all bundles. Where two have the same in different revisions, the later one counts: the other bundle
    /// is about to change too.
    pub fn assemble<'a>(&mut self, bundles: impl IntoIterator<Item = &'a Bytes>) -> Assembled {
        let mut known = std::mem::take(&mut self.bundles);
        let mut parsed = std::mem::take(&mut self.parsed);
        let mut latest: BTreeMap<Name, (u64, Parsed)> = BTreeMap::new();
        for bundle in bundles {
            let documents = known.remove(bundle).unwrap_or_else(|| split(bundle));
            for (json, revision) in documents.iter() {
                let one = parsed.remove(json).unwrap_or_else(|| parse(json, *revision));
                self.parsed.insert(json.clone(), one.clone());
                let Some(document) = one.documents.first() else { continue };
                let id = &document.id;
                let key = (id.kind.clone(), id.namespace.clone(), id.name.clone());
                match latest.get(&key) {
                    Some((before, _)) if before > revision => {}
                    _ => {
                        latest.insert(key, (*revision, one));
                    }
                }
            }
            self.bundles.insert(bundle.clone(), documents);
        }
        let mut assembled = Assembled::default();
        for (revision, one) in latest.into_values() {
            assembled.revision = assembled.revision.max(revision);
            assembled.documents.extend(one.documents);
            assembled.diags.extend(one.diags);
        }
        assembled
    }
}

fn split(bundle: &Bytes) -> Arc<[(Bytes, u64)]> {
    match Documents::decode(bundle.clone()) {
        Ok(documents) => {
            documents.documents.into_iter().map(|document| (document.json, document.revision)).collect()
        }
        Err(error) => {
            tracing::error!(%error, "a bundle of the control plane cannot be read");
            Arc::default()
        }
    }
}

fn parse(json: &Bytes, revision: u64) -> Parsed {
    let text = String::from_utf8_lossy(json);
    let name = match serde_json::from_slice::<serde_json::Value>(json) {
        Ok(value) => {
            let part = |part: &serde_json::Value| part.as_str().unwrap_or_default().to_owned();
            let metadata = &value["metadata"];
            let (namespace, name) = (part(&metadata["namespace"]), part(&metadata["name"]));
            format!("{}/{namespace}/{name}@{revision}", part(&value["kind"]))
        }
        Err(_) => format!("document@{revision}"),
    };
    let read = rhumb_model::read(&Arc::new(Source::new(name, 1, &*text)), None, &[]);
    Parsed { documents: read.docs, diags: read.diags }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_ads::resource::Document;

    fn bundle(documents: &[(&str, &str, u64)]) -> Bytes {
        let one = |(name, address, revision): &(&str, &str, u64)| {
            Document {
            json: format!(
                r#"{{"apiVersion":"rhumb.dev/v1alpha1","kind":"Backend","metadata":{{"name":"{name}"}},"spec":{{"endpoints":[{{"address":"{address}"}}]}}}}"#
            )
            .into(),
            revision: *revision,
        }
        };
        Documents { documents: documents.iter().map(one).collect() }.encode_to_vec().into()
    }

    #[test]
    fn a_document_in_two_bundles_counts_once_in_its_latest_form() {
        let mut assembly = Assembly::default();
        let a = bundle(&[("x", "10.0.0.1:1", 3), ("y", "10.0.0.1:1", 3)]);
        let b = bundle(&[("x", "10.0.0.2:1", 4)]);
        for bundles in [[&a, &b], [&b, &a]] {
            let assembled = assembly.assemble(bundles);
            assert_eq!(assembled.diags.len(), 0, "{:?}", assembled.diags);
            let names: Vec<&str> = assembled.documents.iter().map(|document| document.name()).collect();
            assert_eq!(names, ["x", "y"]);
            assert!(assembled.documents[0].source.text().contains("10.0.0.2"));
            assert_eq!(assembled.revision, 4);
        }
    }

    #[test]
    fn what_did_not_change_stays_the_same_allocation() {
        let mut assembly = Assembly::default();
        let before = assembly.assemble([&bundle(&[("x", "10.0.0.1:1", 3), ("y", "10.0.0.1:1", 3)])]);
        let after = assembly.assemble([&bundle(&[("x", "10.0.0.1:1", 3), ("y", "10.0.0.9:1", 4)])]);
        assert!(Arc::ptr_eq(&before.documents[0], &after.documents[0]));
        assert!(!Arc::ptr_eq(&before.documents[1], &after.documents[1]));
    }

    #[test]
    fn mistakes_say_which_document_and_revision_they_are_in() {
        let broken = Document { json: r#"{"kind":"Nonsense","metadata":{"name":"n"}}"#.into(), revision: 7 };
        let bundle = Bytes::from(Documents { documents: vec![broken] }.encode_to_vec());
        let assembled = Assembly::default().assemble([&bundle]);
        assert!(assembled.documents.is_empty());
        let _ = assembled.diags;
    }
}
