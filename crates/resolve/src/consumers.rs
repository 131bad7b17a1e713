//! Consumers: what policies look credentials up in, one index per namespace.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use rhumb_model::kind::consumer::{Consumer, Credentials, SecretSource};
use rhumb_model::{Diag, Doc, Rule, Span, Spanned};
use rhumb_policy::consumers::{Consumers, KeySecret, Shows};
use rhumb_policy::quantity::instant;

use crate::collect::{Docs, Entry, key};
use crate::policies::{Part, secret_of};
use crate::report::Report;
use crate::trace::{Ask, Changes};

/// What all Consumers have come to, kept while they and the Secrets that they name stay the same.
#[derive(Default)]
pub(crate) struct Kept {
    by_namespace: HashMap<Box<str>, Arc<Consumers>>,
    part: Part,
}

/// The kind under which policies ask for all Consumers of a namespace.
const ALL: &str = "Consumers";

impl Kept {
    /// Works them out, unless they are as they were. What has become another is added to `changes`.
    pub(crate) fn refresh(&mut self, docs: &Docs<'_>, changes: &mut Changes, report: &mut Report) {
        let is_empty = docs.consumers.all.is_empty() && self.by_namespace.is_empty();
        if is_empty || !self.part.frame.reads.is_empty() && self.part.is_current(changes) {
            report.tell(&self.part.events);
            return;
        }
        report.begin(false);
        docs.trace.note(Ask::Names, "Consumer", ("", ""));
        let mut all: HashMap<Box<str>, Consumers> = HashMap::new();
        for entry in &docs.consumers.all {
            docs.trace.note(Ask::Document, "Consumer", key(entry.doc));
            // One with mistakes is nobody.
            if !entry.doc.broken {
                add(docs, *entry, all.entry(entry.doc.namespace().into()).or_default(), report);
            }
        }
        self.part = Part::of(report.end());
        for namespace in self.by_namespace.keys().chain(all.keys()) {
            changes.add(Ask::Document, ALL, (namespace, ""));
        }
        self.by_namespace =
            all.into_iter().map(|(namespace, consumers)| (namespace, Arc::new(consumers))).collect();
    }

    /// The Consumers of a namespace.
    pub(crate) fn of(&self, docs: &Docs<'_>, namespace: &str) -> Arc<Consumers> {
        docs.trace.note(Ask::Document, ALL, (namespace, ""));
        self.by_namespace.get(namespace).cloned().unwrap_or_default()
    }
}

fn add<'a>(docs: &Docs<'a>, entry: Entry<'a, Consumer>, to: &mut Consumers, report: &mut Report) {
    let Entry { doc, spec } = entry;
    let attributes =
        spec.attributes.entries.iter().map(|(name, node)| (name.value.to_string(), node.to_json()));
    let consumer = to.add(rhumb_policy::Consumer {
        name: format!("{}/{}", doc.namespace(), doc.name()).into(),
        groups: spec.groups.iter().map(|group| group.value.clone()).collect(),
        attributes: attributes.collect(),
        plan: spec.plan.as_ref().map(|plan| plan.value.clone()).unwrap_or_default(),
    });
    let Some(Credentials { api_keys, basic, hmac, jwt, certificates, .. }) = &spec.credentials else {
        return;
    };
    let mut tell = |span: Span, result: Result<(), String>| {
        if let Err(why) = result {
            report.push(Diag::error(Rule::Policy, doc.origin(span), format!("the credential {why}")));
        }
    };
    let content = |source: &Spanned<SecretSource>| read(docs, doc, source);
    for key in api_keys.iter() {
        let until = key.expires.as_ref().map(|text| (text.span, instant("expires", Some(&text.value))));
        let until = match until {
            Some((span, Err(invalid))) => {
                tell(span, Err(format!("has a wrong time: {}", invalid.why)));
                continue;
            }
            Some((_, Ok(until))) => until,
            None => None,
        };
        let (span, secret) = match (&key.key, &key.hash) {
            (Some(source), _) => (source.span, content(source).and_then(|key| KeySecret::of(&key))),
            (None, Some(hash)) => (hash.span, KeySecret::of_hash(&hash.value)),
            (None, None) => continue,
        };
        tell(span, secret.and_then(|secret| to.add_key(&secret, until, &consumer)));
    }
    for user in basic.iter() {
        let hash = content(&user.password_hash);
        let added = hash.and_then(|hash| {
            if user.username.value.is_empty() || user.username.value.contains(':') {
                return Err("has no user name, or one with a colon".to_owned());
            }
            to.add_user(&user.username.value, &String::from_utf8_lossy(&hash), &consumer)
        });
        tell(user.password_hash.span, added);
    }
    for secret in hmac.iter() {
        let added = content(&secret.secret)
            .and_then(|content| to.add_secret(&secret.key_id.value, content, &consumer));
        tell(secret.secret.span, added);
    }
    for token in jwt.iter() {
        let (claim, value) = match (&token.subject, &token.claim, &token.value) {
            (Some(subject), ..) => ("sub", subject),
            (None, Some(claim), Some(value)) => (&*claim.value, value),
            _ => continue,
        };
        tell(value.span, to.add_token(&token.issuer.value, claim, &value.value, &consumer));
    }
    for certificate in certificates.iter() {
        let shows = [
            (Shows::Subject, &certificate.subject),
            (Shows::Name, &certificate.san),
            (Shows::Fingerprint, &certificate.fingerprint),
        ];
        for (shows, value) in shows {
            if let Some(value) = value {
                tell(value.span, to.add_certificate(shows, &value.value, &consumer));
            }
        }
    }
}

fn read(docs: &Docs<'_>, doc: &Doc, source: &Spanned<SecretSource>) -> Result<Box<[u8]>, String> {
    match &source.value {
        SecretSource::Text(text) => Ok(text.0.as_bytes().into()),
        SecretSource::Secret { name, key, .. } => secret_of(docs, doc.namespace(), name.as_str(), &key.value)
            .map_err(|why| format!("is not there: {why}")),
    }
}
