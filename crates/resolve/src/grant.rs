//! ReferenceGrants: which references across namespaces are allowed.

use foldhash::HashMap;

use rhumb_model::kind::grant::ReferenceGrant;
use rhumb_model::{Diag, Origin, Rule};

use crate::collect::{Docs, Kind};
use crate::trace::{Ask, Trace};

/// Group, kind and namespace of who refers.
pub(crate) type From<'a> = (&'a str, &'a str, &'a str);

/// The grants, by the namespace that they open.
#[derive(Default)]
pub(crate) struct Grants<'a> {
    by_namespace: HashMap<&'a str, Vec<&'a ReferenceGrant>>,
    trace: Trace,
}

impl<'a> Grants<'a> {
    pub(crate) fn new(docs: &Docs<'a>) -> Self {
        let mut this = Self { trace: docs.trace.clone(), ..Self::default() };
        let all: &Kind<'a, ReferenceGrant> = &docs.grants;
        // One with mistakes allows nothing.
        for entry in all.all.iter().filter(|entry| !entry.doc.broken) {
            this.by_namespace.entry(entry.doc.namespace()).or_default().push(entry.spec);
        }
        this
    }

    /// True when an object may refer to `to` (group, kind, name) in `namespace`.
    pub(crate) fn allow(&self, from: From<'_>, to: (&str, &str, &str), namespace: &str) -> bool {
        if from.2 == namespace {
            return true;
        }
        self.trace.note(Ask::Grants, "", (namespace, ""));
        let grants = self.by_namespace.get(namespace);
        grants.is_some_and(|grants| grants.iter().any(|grant| grant.allows(from, to)))
    }
}

/// The mistake of a reference that is not allowed.
pub(crate) fn refused(at: Origin, from: From<'_>, to: (&str, &str, &str), namespace: &str) -> Diag {
    let (_, kind, from_namespace) = from;
    let (_, to_kind, name) = to;
    let what =
        format!("{kind}s of namespace `{from_namespace}` may not refer to {to_kind} `{namespace}/{name}`");
    Diag::error(Rule::NotGranted, at, what)
        .why(format!("no ReferenceGrant in namespace `{namespace}` allows it"))
        .fix(format!(
            "add a ReferenceGrant to namespace `{namespace}`: from {kind} in `{from_namespace}` to {to_kind} `{name}`"
        ))
}
