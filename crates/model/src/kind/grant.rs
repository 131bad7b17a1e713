//! ReferenceGrant: who may refer to objects of another namespace.

use crate::decode::{List, object};
use crate::scalar::{Group, KindName, Name, Namespace};
use crate::span::Spanned;

object! {
    /// Allows references into the namespace of this document.
    pub struct ReferenceGrant as "the spec of a ReferenceGrant" {
        /// Who may refer.
        "from" from: List<GrantFrom, 1, 16>,
        /// To what.
        "to" to: List<GrantTo, 1, 16>,
    }
}

object! {
    /// A kind of object in another namespace.
    pub struct GrantFrom as "an item of `from`" {
        /// Group of the kind.
        "group" group: Spanned<Group>,
        /// The kind, such as HTTPRoute.
        "kind" kind: Spanned<KindName>,
        /// The namespace.
        "namespace" namespace: Spanned<Namespace>,
    }
}

object! {
    /// A kind of object in this namespace, or one of them.
    pub struct GrantTo as "an item of `to`" {
        /// Group of the kind; empty for the core kinds.
        "group" group: Spanned<Group>,
        /// The kind, such as Secret.
        "kind" kind: Spanned<KindName>,
        /// One object. Default: every object of the kind.
        "name" name: Option<Spanned<Name>>,
    }
}

impl ReferenceGrant {
    /// True when an object of this group, kind and namespace may refer to the object `to` (group, kind, name).
    pub fn allows(&self, from: (&str, &str, &str), to: (&str, &str, &str)) -> bool {
        self.from.iter().any(|f| (f.group.as_str(), f.kind.as_str(), f.namespace.as_str()) == from)
            && self.to.iter().any(|t| {
                (t.group.as_str(), t.kind.as_str()) == (to.0, to.1)
                    && t.name.as_ref().is_none_or(|name| name.as_str() == to.2)
            })
    }
}
