//! What the bodies of a Policy compile to, and where they are wrong.

use std::sync::Arc;

use rhumb_model::value::Node;
use rhumb_model::{Diag, Origin, Rule, Span};
use rhumb_policy::consumers::Consumers;
use rhumb_policy::{Context, Documents, Invalid, KINDS, Keeper, Want};

use super::attached::{Attached, Level, UNKNOWN};
use crate::collect::{Docs, Entry};
use crate::report::Report;

/// The policies of a document, compiled once for all of its targets.
pub(super) fn bodies(
    entry: Entry<'_, rhumb_model::kind::policy::Policy>,
    documents: &mut Secrets<'_, '_>,
    keeper: &Keeper,
    wants: &mut Vec<(Want, Origin)>,
    report: &mut Report,
) -> Level {
    let doc = entry.doc;
    let mut level = Level::new();
    for (name, node) in &entry.spec.policies.entries {
        let place = report.place(doc, name.span);
        let origin: Arc<str> = format!("Policy {}/{} ({place})", doc.namespace(), doc.name()).into();
        let body = node.to_json();
        let place = format!("{}/{}/{}", doc.namespace(), doc.name(), name.value);
        let mut cx = Context::new(doc.namespace(), &place, documents, keeper);
        let policy = match rhumb_policy::parse(&name.value, &body, &mut cx) {
            None => {
                let what = format!("unknown policy `{}`", name.value);
                let kinds = KINDS.iter().map(|kind| kind.name);
                let mut diag = report.unknown(doc.origin(name.span), what, &name.value, kinds);
                diag.rule = Rule::Policy;
                report.push(diag);
                // What asked for it refuses traffic: as a policy of every rank it cannot be overruled by another kind.
                let reason = Err(format!("{origin} has the unknown policy `{}`", name.value).into());
                let at = doc.origin(name.span);
                level.push(Attached {
                    kind: UNKNOWN,
                    policy: reason,
                    origin,
                    at,
                    is_shadow: false,
                    replaces_prefix: false,
                });
                continue;
            }
            Some(Err(invalid)) => {
                report.push(mistake(&invalid, doc.origin(span_of(&invalid, node, name.span)), &name.value));
                Err(format!("{origin} is wrong: {invalid}").into())
            }
            // A body with mistakes that were told, such as a file that is missing, is not what was meant.
            Some(Ok(_)) if doc.broken => Err(format!("{origin} has mistakes").into()),
            Some(Ok(parsed)) => Ok(parsed),
        };
        for want in cx.take_wants() {
            wants.push((want.clone(), doc.origin(span_of_field(&want.field, node, name.span))));
        }
        let at = doc.origin(name.span);
        level.extend(Attached::new(&name.value, policy, origin, at, &body));
    }
    if level.is_empty() && doc.broken {
        let place = report.place(doc, doc.span);
        let origin: Arc<str> = format!("Policy {}/{} ({place})", doc.namespace(), doc.name()).into();
        let policy = Err(format!("{origin} has mistakes").into());
        level.push(Attached {
            kind: UNKNOWN,
            policy,
            origin,
            at: doc.origin(doc.span),
            is_shadow: false,
            replaces_prefix: false,
        });
    }
    level
}

/// Secrets for policies.
pub(crate) struct Secrets<'d, 'a> {
    pub(super) docs: &'d Docs<'a>,
    pub(super) consumers: Option<&'d crate::consumers::Kept>,
}

impl<'d, 'a> Secrets<'d, 'a> {
    /// For what has nothing to do with Consumers.
    pub(crate) fn without_consumers(docs: &'d Docs<'a>) -> Self {
        Self { docs, consumers: None }
    }
}

impl Documents for Secrets<'_, '_> {
    fn secret(&mut self, namespace: &str, name: &str, key: &str) -> Result<Box<[u8]>, String> {
        secret_of(self.docs, namespace, name, key)
    }

    fn consumers(&mut self, namespace: &str) -> Arc<Consumers> {
        self.consumers.map(|consumers| consumers.of(self.docs, namespace)).unwrap_or_default()
    }
}

/// The content of a key of a Secret, or what is missing.
pub(crate) fn secret_of(
    docs: &Docs<'_>,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Box<[u8]>, String> {
    let Some(entry) = docs.secrets.get((namespace, name)) else {
        return Err(format!("no Secret `{name}` in namespace `{namespace}`"));
    };
    let content = entry.spec.get(key).ok_or_else(|| format!("Secret `{name}` has no key `{key}`"))?;
    if entry.doc.broken {
        return Err(format!("Secret `{name}` has mistakes"));
    }
    Ok(content.value.into())
}

/// Where a mistake in a body is, with the body itself for what is missing in it.
fn span_of(invalid: &Invalid, body: &Node, key: Span) -> Span {
    span_of_field(&invalid.field, body, key)
}

fn span_of_field(field: &str, body: &Node, key: Span) -> Span {
    let node = body.find(field);
    if std::ptr::eq(node, body) { key } else { node.span }
}

/// A mistake in the body of a policy.
pub(crate) fn mistake(invalid: &Invalid, at: Origin, kind: &str) -> Diag {
    let what = match &*invalid.field {
        "" => format!("`{kind}`: {}", invalid.why),
        field => format!("`{kind}.{field}`: {}", invalid.why),
    };
    let diag = Diag::error(Rule::Policy, at, what);
    if invalid.fix.is_empty() { diag } else { diag.fix(&*invalid.fix) }
}
