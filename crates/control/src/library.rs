//! All documents of a revision, and the bundles that are made of them.
//!
//! A bundle is the part of the documents that one kind of reader needs. It remembers what it looked at ([`Trace`]), so a
//! change finds the bundles that it concerns without a look at the others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use rhumb_ads::resource::{Document as WireDocument, Documents};
use serde_json::Value;

use crate::document::{Document, Key, Mesh, Role};

/// The documents.
#[derive(Debug, Default)]
pub struct Library {
    documents: BTreeMap<Key, Arc<Document>>,
    /// By what they are attached to.
    attached: HashMap<Key, BTreeSet<Key>>,
}

/// What a bundle looked at. A bundle is the same as long as none of these has changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trace {
    /// A document, there or not.
    Document(Key),
    /// What is attached to an object.
    Attached(Key),
    /// All documents of a kind in a namespace.
    All(&'static str, Arc<str>),
}

/// Whose bundle it is.
#[derive(Clone, Debug)]
pub enum Reader<'a> {
    /// A client of a service.
    Client(Key),
    /// The proxy of a workload of these services.
    Workload(Key, &'a [Key]),
    /// A gateway.
    Gateway(Key),
}

/// Kinds of which every document of a namespace is needed where one is.
const WHOLE: [&str; 3] = ["Consumer", "Mesh", "ReferenceGrant"];

impl Library {
    /// A document.
    pub fn get(&self, key: &Key) -> Option<&Arc<Document>> {
        self.documents.get(key)
    }

    /// Every document, by kind, namespace and name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Document>> {
        self.documents.values()
    }

    /// The documents of a kind in a namespace, by name.
    pub fn of(&self, kind: &str, namespace: &str) -> impl Iterator<Item = &Arc<Document>> {
        let from = Key::new(kind, namespace, "");
        let is_of = {
            let (kind, namespace) = (from.kind.clone(), from.namespace.clone());
            move |key: &Key| key.kind == kind && key.namespace == namespace
        };
        self.documents.range(from..).take_while(move |(key, _)| is_of(key)).map(|(_, document)| document)
    }

    /// The settings of the mesh.
    pub fn mesh(&self) -> Mesh {
        let mesh = self.of("Mesh", "").find_map(|document| match &document.role {
            Role::Mesh(mesh) => Some((**mesh).clone()),
            _ => None,
        });
        mesh.unwrap_or_default()
    }

    /// Puts a document in or takes one out, and says which traces that concerns.
    pub fn set(&mut self, key: &Key, document: Option<Arc<Document>>) -> BTreeSet<Trace> {
        let mut touched = BTreeSet::from([Trace::Document(key.clone())]);
        if let Some(kind) = WHOLE.into_iter().find(|kind| *kind == &*key.kind) {
            touched.insert(Trace::All(kind, key.namespace.clone()));
        }
        let before = match document {
            Some(document) => {
                for target in &document.attached {
                    touched.insert(Trace::Attached(target.clone()));
                    self.attached.entry(target.clone()).or_default().insert(key.clone());
                }
                let targets = document.attached.clone();
                let before = self.documents.insert(key.clone(), document);
                before.map(|before| (before, targets))
            }
            None => self.documents.remove(key).map(|before| (before, Vec::new())),
        };
        if let Some((before, kept)) = before {
            for target in &before.attached {
                touched.insert(Trace::Attached(target.clone()));
                if kept.contains(target) {
                    continue;
                }
                if let Some(attached) = self.attached.get_mut(target) {
                    attached.remove(key);
                    if attached.is_empty() {
                        self.attached.remove(target);
                    }
                }
            }
        }
        touched
    }

    /// The bundle of a reader, and what it looked at. No bundle when what it is about does not exist.
    pub fn bundle(&self, reader: &Reader<'_>) -> (Option<Bytes>, BTreeSet<Trace>) {
        let mut collection = Collection {
            library: self,
            reader,
            members: BTreeMap::new(),
            traces: BTreeSet::new(),
            queue: Vec::new(),
        };
        collection.collect();
        let Collection { members, traces, .. } = collection;
        let exists = match reader {
            Reader::Client(root) | Reader::Gateway(root) => members.contains_key(root),
            // One that serves nothing and has no document obeys what holds for the whole mesh too.
            Reader::Workload(..) => !members.is_empty(),
        };
        let documents: Vec<WireDocument> = members
            .values()
            .map(|document| WireDocument { json: narrowed(document, &members), revision: document.revision })
            .collect();
        (exists.then(|| Documents { documents }.encode_to_vec().into()), traces)
    }
}

/// A bundle that is being put together.
struct Collection<'a> {
    library: &'a Library,
    reader: &'a Reader<'a>,
    members: BTreeMap<Key, Arc<Document>>,
    traces: BTreeSet<Trace>,
    queue: Vec<Key>,
}

impl Collection<'_> {
    fn collect(&mut self) {
        match self.reader {
            Reader::Client(root) | Reader::Gateway(root) => self.queue.push(root.clone()),
            Reader::Workload(root, services) => {
                self.queue.push(root.clone());
                self.queue.extend(services.iter().cloned());
            }
        }
        self.all("Mesh", "");
        let mut namespaces = BTreeSet::new();
        while let Some(key) = self.queue.pop() {
            if !self.traces.insert(Trace::Document(key.clone())) {
                continue;
            }
            let Some(document) = self.library.get(&key) else { continue };
            for need in &document.needs {
                if self.follows(document, need) {
                    self.queue.push(need.clone());
                }
            }
            if self.is_opened(&key) {
                self.traces.insert(Trace::Attached(key.clone()));
                for attached in self.library.attached.get(&key).into_iter().flatten() {
                    if self.takes(attached) {
                        self.queue.push(attached.clone());
                    }
                }
            }
            if !key.namespace.is_empty() && namespaces.insert(key.namespace.clone()) {
                self.queue.push(Key::new("Namespace", "", &key.namespace));
                self.all("ReferenceGrant", &key.namespace);
            }
            // Whoever is to know callers knows all of the namespace.
            if &*key.kind == "Policy" && !matches!(self.reader, Reader::Client(_)) {
                self.all("Consumer", &key.namespace);
            }
            self.members.insert(key, Arc::clone(document));
        }
    }

    fn all(&mut self, kind: &'static str, namespace: &str) {
        if self.traces.insert(Trace::All(kind, namespace.into())) {
            self.queue.extend(self.library.of(kind, namespace).map(|document| document.key.clone()));
        }
    }

    /// Whether what a document names belongs to the bundle.
    fn follows(&self, from: &Document, to: &Key) -> bool {
        match &*to.kind {
            // Others have their own.
            "Gateway" | "Workload" | "Consumer" => false,
            // A client enforces no policy that has secrets, and is told none.
            "Secret" | "ConfigMap" => {
                !(matches!(self.reader, Reader::Client(_))
                    && matches!(&*from.key.kind, "Policy" | "Consumer"))
            }
            _ => true,
        }
    }

    /// Whether what is attached to an object belongs to the bundle. A Service that is only a place to send requests to
    /// comes without what is attached to it: its routes hold for those who address it.
    fn is_opened(&self, key: &Key) -> bool {
        match (&*key.kind, self.reader) {
            ("Service", Reader::Client(root)) => key == root,
            ("Service", Reader::Workload(_, services)) => services.contains(key),
            ("Service", Reader::Gateway(_)) => false,
            ("Gateway", Reader::Gateway(root)) => key == root,
            ("Gateway", _) => false,
            _ => true,
        }
    }

    /// Whether something that is attached to a member belongs to the bundle. Routes of a service are its clients' matter.
    fn takes(&self, attached: &Key) -> bool {
        !(matches!(self.reader, Reader::Workload(..)) && attached.kind.ends_with("Route"))
    }
}

/// The document without parents and targets that the reader does not have: those concern others.
fn narrowed(document: &Document, members: &BTreeMap<Key, Arc<Document>>) -> Bytes {
    if document.attached.iter().all(|target| members.contains_key(target)) {
        return document.json.clone();
    }
    let Ok(mut value) = serde_json::from_slice::<Value>(&document.json) else { return document.json.clone() };
    let is_here = |reference: &Value, default: &str| {
        let Some(name) = reference["name"].as_str() else { return true };
        let kind = reference["kind"].as_str().unwrap_or(default);
        let namespace = reference["namespace"].as_str().unwrap_or(&document.key.namespace);
        members.contains_key(&Key::new(kind, namespace, name))
    };
    for (field, default) in [("parentRefs", "Gateway"), ("targetRefs", "Service")] {
        let references = value.get_mut("spec").and_then(|spec| spec.get_mut(field));
        if let Some(references) = references.and_then(Value::as_array_mut) {
            references.retain(|reference| is_here(reference, default));
        }
    }
    value.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::tests::document;
    use serde_json::json;

    fn put(library: &mut Library, value: Value) -> BTreeSet<Trace> {
        let document = document(&value, 1);
        library.set(&document.key.clone(), Some(Arc::new(document)))
    }

    fn plain(library: &mut Library, kind: &str, name: &str, spec: Value) -> BTreeSet<Trace> {
        put(library, json!({ "kind": kind, "metadata": { "name": name }, "spec": spec }))
    }

    fn key(kind: &str, name: &str) -> Key {
        Key::new(kind, "default", name)
    }

    fn shop() -> Library {
        let mut library = Library::default();
        let all = &mut library;
        put(all, json!({ "kind": "Mesh", "metadata": { "name": "mesh" }, "spec": {} }));
        for name in ["orders", "payments", "users"] {
            plain(all, "Service", name, json!({ "ports": [{ "port": 80 }] }));
        }
        plain(
            all,
            "HTTPRoute",
            "split",
            json!({
                "parentRefs": [{ "kind": "Service", "name": "orders" }, { "name": "gate" }],
                "rules": [{ "backendRefs": [{ "name": "orders" }, { "name": "payments" }, { "kind": "Backend", "name": "old" }] }],
            }),
        );
        plain(
            all,
            "HTTPRoute",
            "other",
            json!({ "parentRefs": [{ "kind": "Service", "name": "payments" }] }),
        );
        plain(all, "Backend", "old", json!({}));
        plain(all, "Policy", "on-split", json!({ "targetRefs": [{ "kind": "HTTPRoute", "name": "split" }] }));
        plain(
            all,
            "Policy",
            "who",
            json!({
                "targetRefs": [{ "kind": "Service", "name": "orders" }, { "kind": "Service", "name": "users" }],
                "policies": { "jwt": { "secretRef": { "name": "key" } }, "extAuthz": { "backend": "guard" } },
            }),
        );
        plain(all, "Backend", "guard", json!({}));
        plain(all, "Secret", "key", json!({}));
        plain(all, "Consumer", "acme", json!({ "credentials": { "secretRef": { "name": "acme-key" } } }));
        plain(all, "Secret", "acme-key", json!({}));
        plain(all, "Gateway", "gate", json!({ "gatewayClassName": "rhumb" }));
        library
    }

    fn members(library: &Library, reader: &Reader<'_>) -> Vec<String> {
        let bytes = library.bundle(reader).0.unwrap();
        let documents = Documents::decode(bytes).unwrap().documents;
        let key = |document: &WireDocument| Document::parse(document.json.clone(), 1).unwrap().key;
        documents.iter().map(|document| format!("{} {}", key(document).kind, key(document).name)).collect()
    }

    #[test]
    fn a_client_gets_the_service_its_routes_and_what_they_need_but_no_secrets_of_the_server() {
        let library = shop();
        assert_eq!(
            members(&library, &Reader::Client(key("Service", "orders"))),
            [
                "Backend guard",
                "Backend old",
                "HTTPRoute split",
                "Mesh mesh",
                "Policy on-split",
                "Policy who",
                "Service orders",
                "Service payments",
            ]
        );
    }

    #[test]
    fn a_workload_gets_what_its_own_side_enforces() {
        let library = shop();
        let services = [key("Service", "orders")];
        assert_eq!(
            members(&library, &Reader::Workload(key("Workload", "w"), &services)),
            [
                "Backend guard",
                "Consumer acme",
                "Mesh mesh",
                "Policy who",
                "Secret acme-key",
                "Secret key",
                "Service orders"
            ]
        );
    }

    #[test]
    fn a_gateway_gets_its_routes_and_the_services_behind_them() {
        let library = shop();
        assert_eq!(
            members(&library, &Reader::Gateway(key("Gateway", "gate"))),
            [
                "Backend old",
                "Consumer acme",
                "Gateway gate",
                "HTTPRoute split",
                "Mesh mesh",
                "Policy on-split",
                "Secret acme-key",
                "Service orders",
                "Service payments",
            ]
        );
    }

    #[test]
    fn parents_and_targets_of_others_are_left_out() {
        let library = shop();
        let (bytes, _) = library.bundle(&Reader::Client(key("Service", "orders")));
        let documents = Documents::decode(bytes.unwrap()).unwrap().documents;
        let find = |name: &str| {
            let values =
                documents.iter().map(|document| serde_json::from_slice::<Value>(&document.json).unwrap());
            values.into_iter().find(|value| value["metadata"]["name"] == name).unwrap()
        };
        assert_eq!(find("split")["spec"]["parentRefs"], json!([{ "kind": "Service", "name": "orders" }]));
        assert_eq!(find("who")["spec"]["targetRefs"], json!([{ "kind": "Service", "name": "orders" }]));
    }

    /// Which of the bundles a change concerns, by their traces.
    fn concerned(library: &Library, touched: &BTreeSet<Trace>) -> Vec<&'static str> {
        let services = [key("Service", "orders")];
        let readers = [
            ("orders", Reader::Client(key("Service", "orders"))),
            ("payments", Reader::Client(key("Service", "payments"))),
            ("users", Reader::Client(key("Service", "users"))),
            ("workload", Reader::Workload(key("Workload", "w"), &services)),
            ("gate", Reader::Gateway(key("Gateway", "gate"))),
        ];
        let is_concerned = |reader: &Reader<'_>| !library.bundle(reader).1.is_disjoint(touched);
        readers.iter().filter(|(_, reader)| is_concerned(reader)).map(|(name, _)| *name).collect()
    }

    #[test]
    fn whoever_may_leave_the_mesh_knows_the_service_that_it_goes_through() {
        let mut library = shop();
        for name in ["egress", "out"] {
            let service = json!({ "kind": "Service", "metadata": { "name": name, "namespace": "infra" } });
            put(&mut library, service);
        }
        let through = json!({ "egressGateway": { "service": "egress.infra" } });
        put(&mut library, json!({ "kind": "Mesh", "metadata": { "name": "mesh" }, "spec": through }));
        let known = members(&library, &Reader::Workload(key("Workload", "w"), &[]));
        assert_eq!(known, ["Mesh mesh", "Service egress"]);
    }

    #[test]
    fn a_change_concerns_only_the_bundles_that_it_is_in() {
        let mut library = shop();
        let touched = plain(&mut library, "Backend", "old", json!({ "endpoints": [] }));
        assert_eq!(concerned(&library, &touched), ["orders", "gate"]);
        let touched = plain(&mut library, "Secret", "acme-key", json!({ "data": 1 }));
        assert_eq!(concerned(&library, &touched), ["workload", "gate"]);
        let touched = plain(&mut library, "Service", "payments", json!({ "ports": [] }));
        assert_eq!(concerned(&library, &touched), ["orders", "payments", "gate"]);
        let touched = plain(
            &mut library,
            "Policy",
            "more",
            json!({ "targetRefs": [{ "kind": "Service", "name": "users" }] }),
        );
        assert_eq!(concerned(&library, &touched), ["users"]);
        let touched = plain(
            &mut library,
            "Policy",
            "more",
            json!({ "targetRefs": [{ "kind": "Service", "name": "payments" }] }),
        );
        assert_eq!(concerned(&library, &touched), ["payments", "users"], "it left one and came to the other");
        let touched = library.set(&key("Policy", "more"), None);
        assert_eq!(concerned(&library, &touched), ["payments"]);
        let touched = put(
            &mut library,
            json!({ "kind": "Mesh", "metadata": { "name": "mesh" }, "spec": { "mtls": "permissive" } }),
        );
        assert_eq!(concerned(&library, &touched).len(), 5);
        let touched = plain(&mut library, "Backend", "nobody", json!({}));
        assert!(concerned(&library, &touched).is_empty());
    }

    #[test]
    fn what_does_not_exist_has_no_bundle_until_it_does() {
        let mut library = shop();
        let reader = Reader::Client(key("Service", "late"));
        let (bundle, traces) = library.bundle(&reader);
        assert!(bundle.is_none());
        let touched = plain(&mut library, "Service", "late", json!({}));
        assert!(!traces.is_disjoint(&touched));
        assert!(library.bundle(&reader).0.is_some());
    }
}
