//! Documents that nobody has written, kept by what they say.

use std::sync::Arc;

use rhumb_model::{Doc, DocId, Source, Spec};

use super::Maker;

impl<'d> Maker<'d> {
    pub(super) fn push(&mut self, kind: &str, namespace: &str, name: &str, spec: &str, of: &Doc) {
        self.push_with(kind, namespace, name, spec, of, |_| {});
    }

    pub(super) fn push_with(
        &mut self,
        kind: &str,
        namespace: &str,
        name: &str,
        spec: &str,
        of: &Doc,
        change: impl FnOnce(&mut Spec),
    ) {
        let doc = self.document(kind, namespace, name, spec, of, change);
        self.out.docs.extend(doc);
    }

    /// A document of ours, the one from before when it says the same.
    pub(super) fn document(
        &mut self,
        kind: &str,
        namespace: &str,
        name: &str,
        spec: &str,
        of: &Doc,
        change: impl FnOnce(&mut Spec),
    ) -> Option<Arc<Doc>> {
        let version = match kind {
            "Backend" => "rhumb.dev/v1alpha1",
            _ => "gateway.networking.k8s.io/v1",
        };
        let text = format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: service, namespace: {namespace}}}\nspec:\n  {spec}\n# {name}\n"
        );
        if let Some(doc) = self.made.get(&*text) {
            return Some(Arc::clone(doc));
        }
        let doc = match self.before.remove(&*text) {
            Some(doc) => doc,
            None => {
                let source =
                    Arc::new(Source::new(format!("Service {}/{}", of.namespace(), of.name()), 0, &*text));
                let read = rhumb_model::read(&source, None, &[]);
                debug_assert!(read.diags.iter().all(|diag| !diag.is_error()), "{:?}\n{text}", read.diags);
                let mut doc = Doc::clone(read.docs.first()?);
                doc.id =
                    Arc::new(DocId { kind: kind.into(), namespace: namespace.into(), name: name.into() });
                change(&mut doc.spec);
                Arc::new(doc)
            }
        };
        self.made.insert(text.into(), Arc::clone(&doc));
        Some(doc)
    }
}
