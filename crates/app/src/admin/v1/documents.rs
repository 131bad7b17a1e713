//! Documents, their revisions, and who uses them.
//!
//! In a control plane the latest revision is the ETag of the documents as a whole; `If-Match` makes a change depend on it
//! (RFC 9110 §13.1.1). Elsewhere documents are looked at, and changed where their files are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use rhumb_control::control::{Cause, Control, Error, audience_json, proxy_json};
use rhumb_control::document::{Document, Key};
use rhumb_control::store::{self, Difference, Revision};
use serde_json::{Value, json};

use super::describe::{Answer, read_body};
use super::shapes as shape;
use super::{Call, Problem, done, fleet, json_page, questions, whole};
use crate::admin::Admin;
use crate::admin::credentials::Who;
use crate::admin::role::Role;
use crate::admin::shelf::{self, Shelf};

/// Stands for the namespace of documents that have none.
pub(crate) const NO_NAMESPACE: &str = "-";

/// Names who makes a revision, where the one token of the process does not tell.
pub(crate) const AUTHOR: &str = "x-rhumb-author";

/// Who has documents that are changed in their files.
const FILES: &str = "files";

/// Who has documents that are changed here.
const STORE: &str = "store";

/// Revisions of one answer, unless another number is asked for.
const REVISIONS: usize = 20;

impl Call {
    /// The control plane, where documents can be changed.
    fn store(&self) -> Result<&Arc<Control>, Problem> {
        self.desk.admin.control.as_ref().ok_or_else(|| {
            Problem::owned_by_files(format!(
                "the documents of this process are those of {}: change them there, or keep them in a control plane (`rhumb control`)",
                self.desk.admin.config.display()
            ))
        })
    }

    /// The control plane, which has a history.
    fn history(&self) -> Result<&Arc<Control>, Problem> {
        self.desk.admin.control.as_ref().ok_or_else(|| {
            Problem::not_in_this_process("a control plane has this: ask one (`rhumb control`)")
        })
    }

    /// Whoever may not change everything is not told secrets.
    fn shown(&self, mut document: Value) -> Value {
        if self.who.as_ref().is_none_or(|who| who.role < Role::Admin) {
            shelf::mask(&mut document);
        }
        document
    }

    fn key(&self) -> Key {
        let part = |name| self.given.text(name).unwrap_or_default();
        let namespace = part("namespace");
        Key::new(part("kind"), if namespace == NO_NAMESPACE { "" } else { namespace }, part("name"))
    }

    /// Who asks for a change, why, and on which condition.
    fn cause(&self, message: Option<String>) -> Cause {
        let who = self.who.as_ref().map_or("admin", |who| &who.name);
        // The token of the process is everybody's who runs it; a named one says who it is.
        let is_owner = self.who.as_ref().is_none_or(Who::is_owner);
        let said = self.fields.get(AUTHOR).and_then(|value| value.to_str().ok()).filter(|_| is_owner);
        Cause {
            author: said.unwrap_or(who).to_owned(),
            message: message.unwrap_or_default(),
            expected: self.given.tag("If-Match"),
        }
    }
}

/// Documents in force.
pub(super) async fn list(call: Call) -> Answer {
    let of = |name| call.given.text(name);
    if let Some(control) = &call.desk.admin.control {
        let revision = control.revision();
        let found = control.documents(of("kind"), of("namespace"), of("name"));
        let origins = match found.iter().any(|document| control.is_of_files(&document.key)) {
            true => origins(&call).await,
            false => HashMap::new(),
        };
        let one = |document: &Arc<Document>| {
            let is_of_files = control.is_of_files(&document.key);
            shape::OneDocument {
                revision: Some(document.revision),
                owner: if is_of_files { FILES } else { STORE },
                origin: origins.get(&document.key.to_string()).filter(|_| is_of_files).cloned(),
                document: call.shown(value(document)),
            }
        };
        let documents = found.iter().map(one).collect();
        return tagged(revision, &shape::DocumentList { revision, owner: STORE, documents });
    }
    let revision = call.desk.admin.current.load().revision;
    let documents = from_files(&call, |doc| {
        let fits = |wanted: Option<&str>, is: &str| wanted.is_none_or(|wanted| wanted == is);
        fits(of("kind"), &doc.id.kind)
            && fits(of("namespace"), doc.namespace())
            && fits(of("name"), doc.name())
    })
    .await?;
    tagged(revision, &shape::DocumentList { revision, owner: FILES, documents })
}

/// Documents in force that are in files, with where they were written.
async fn from_files(
    call: &Call,
    fits: impl Fn(&rhumb_model::Doc) -> bool,
) -> Result<Vec<shape::OneDocument>, Problem> {
    let docs = call.desk.admin.shelf.docs();
    let found: Vec<_> = docs.iter().filter(|doc| fits(doc)).cloned().collect();
    let path = call.desk.admin.config.clone();
    let read = tokio::task::spawn_blocking(move || shelf::contents(&path, &found)).await;
    let read = read.map_err(|_| Problem::internal_error("the documents cannot be read"))?;
    let one = |(doc, mut content): (Arc<rhumb_model::Doc>, Value)| {
        // The files may have secrets of others than who asks, whoever that is: they are not sent anywhere.
        shelf::mask(&mut content);
        shape::OneDocument {
            revision: None,
            owner: FILES,
            origin: Some(Shelf::origin(&doc)),
            document: content,
        }
    };
    Ok(read.into_iter().map(one).collect())
}

/// One document.
pub(super) async fn one(call: Call) -> Answer {
    let key = call.key();
    let missing = || Problem::document_not_found(format!("there is no document {key}"));
    if let Some(control) = &call.desk.admin.control {
        let found = control.documents(Some(&key.kind), Some(&key.namespace), Some(&key.name));
        let document = found.first().ok_or_else(missing)?;
        return tagged(document.revision, &call.shown(value(document)));
    }
    let revision = call.desk.admin.current.load().revision;
    let found = from_files(&call, |doc| {
        (&*doc.id.kind, doc.namespace(), doc.name()) == (&*key.kind, &*key.namespace, &*key.name)
    });
    let found = found.await?;
    tagged(revision, &found.first().ok_or_else(missing)?.document)
}

/// Puts documents in.
pub(super) async fn apply(call: Call) -> Answer {
    let control = call.store()?;
    let shape::Apply { documents, yaml, message } = read_body(&call.body)?;
    let documents: Vec<Value> = match yaml {
        None => documents.into_iter().map(Value::Object).collect(),
        Some(text) if documents.is_empty() => questions::documents_of(&text)?,
        Some(_) => return Err(Problem::request_invalid("send either `documents` or `yaml`")),
    };
    if let Some(masked) = documents.iter().find(|document| shelf::is_masked(document)) {
        let name = masked["metadata"]["name"].as_str().unwrap_or_default();
        return Err(refusal(&Error::Mistakes(vec![format!(
            "{name}: `{}` stands for a secret that was not shown: write it, or refer to a Secret",
            shelf::MASK
        )])));
    }
    if call.given.is_set("dryRun") {
        let differences = match control.compare(&documents) {
            Ok(differences) => differences,
            Err(error) => return Err(told(&call, &error, &documents).await),
        };
        // What would be refused is refused here too.
        if let Some(of_files) = differences.iter().find(|one| control.is_of_files(&one.key)) {
            return Err(told(&call, &Error::Owned(of_files.key.to_string()), &documents).await);
        }
        let revision = control.revision();
        let shown = differences_json(&call, &differences);
        let warnings = whole::warnings(control, &documents).await;
        return tagged(revision, &warned(json!({ "revision": revision, "differences": shown }), warnings));
    }
    let warnings = whole::warnings(control, &documents).await;
    match control.apply(&call.cause(message), &documents).await {
        Err(error) => Err(told(&call, &error, &documents).await),
        done => made(control, done, warnings),
    }
}

/// Where documents are that files say what they are, by what they are called.
async fn origins(call: &Call) -> HashMap<String, String> {
    let path = call.desk.admin.config.clone();
    let read = tokio::task::spawn_blocking(move || {
        let docs = rhumb_source::Files::new(&path).load().docs;
        let origin = |doc: &Arc<rhumb_model::Doc>| {
            let key = Key::new(&doc.id.kind, doc.namespace(), doc.name());
            (key.to_string(), Shelf::origin(doc))
        };
        docs.iter().map(origin).collect::<HashMap<_, _>>()
    });
    read.await.unwrap_or_default()
}

/// The refusal of a change of documents, with places.
async fn told(call: &Call, error: &Error, documents: &[Value]) -> Problem {
    match error {
        Error::Owned(key) => match origins(call).await.get(key) {
            Some(origin) => Problem::owned_by_files(format!("{key} is written in {origin}: change it there")),
            None => refusal(error),
        },
        Error::Mistakes(_) => Problem { diagnostics: questions::diagnostics_of(documents), ..refusal(error) },
        _ => refusal(error),
    }
}

/// An answer with what is wrong with the whole, where something is.
fn warned(mut answer: Value, warnings: Vec<String>) -> Value {
    if !warnings.is_empty() {
        answer["warnings"] = json!(warnings);
    }
    answer
}

/// Takes one out.
pub(super) async fn remove(call: Call) -> Answer {
    let control = call.store()?;
    let key = call.key();
    let mut cause = call.cause(None);
    // The tag of a document is the revision that brought it.
    let latest = control.revision();
    if let Some(expected) = cause.expected {
        let found = control.documents(Some(&key.kind), Some(&key.namespace), Some(&key.name));
        let actual = found.first().map(|document| document.revision);
        if actual.is_some_and(|actual| actual != expected) {
            let actual = actual.unwrap_or(0);
            return Err(refusal(&Error::Store(store::Error::Conflict { expected, actual })));
        }
        cause.expected = Some(latest);
    }
    match control.remove(&cause, &[key]).await {
        Err(error) => Err(told(&call, &error, &[]).await),
        done => made(control, done, Vec::new()),
    }
}

/// Goes back to an earlier revision.
pub(super) async fn roll_back(call: Call) -> Answer {
    let control = call.store()?;
    let shape::Rollback { to, message } = read_body(&call.body)?;
    match control.roll_back(&call.cause(message), to).await {
        Err(error) => Err(told(&call, &error, &[]).await),
        done => made(control, done, Vec::new()),
    }
}

/// Revisions.
pub(super) async fn history(call: Call) -> Answer {
    let control = call.history()?;
    let before = call.given.number("before").unwrap_or(u64::MAX);
    let revisions = control
        .history(before, call.given.count("limit", REVISIONS))
        .await
        .map_err(|error| refusal(&error))?;
    let revisions: Vec<Value> = revisions.iter().map(Revision::to_json).collect();
    done(&json!({ "revisions": revisions }))
}

/// What differs.
pub(super) async fn diff(call: Call) -> Answer {
    let control = call.history()?;
    let to = call.given.number("to").unwrap_or_else(|| control.revision());
    let from = call.given.number("from").unwrap_or_else(|| to.saturating_sub(1));
    let differences = control.difference(from, to).await.map_err(|error| refusal(&error))?;
    done(&json!({ "from": from, "to": to, "differences": differences_json(&call, &differences) }))
}

/// Who runs a revision.
pub(super) async fn audience(call: Call) -> Answer {
    let control = call.history()?;
    let revision = call.given.number("revision").unwrap_or(0);
    let patience = Duration::from_millis(call.given.number("waitMs").unwrap_or(0));
    match control.audience(revision, patience).await {
        Some(audience) => done(&audience_json(revision, &audience)),
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "revision_not_known",
            format!(
                "it is not known what revision {revision} changed: it is too old, or this process began later"
            ),
        )),
    }
}

/// Proxies of the control plane.
pub(super) async fn proxies(call: Call) -> Answer {
    let control = call.history()?;
    // Those of the others too, where several share a store.
    let mut proxies = control.all_proxies().await;
    fleet::describe(&call.desk.admin, &mut proxies);
    done(&shape::Proxies { revision: control.revision(), proxies })
}

/// Proxies of a control plane.
pub(super) fn proxies_of(admin: &Admin, control: &Control) -> shape::Proxies {
    let now = Instant::now();
    let mut proxies = control.proxies().iter().map(|proxy| proxy_json(proxy, now)).collect();
    fleet::describe(admin, &mut proxies);
    shape::Proxies { revision: control.revision(), proxies }
}

/// The answer to a change.
fn made(control: &Control, made: Result<Option<Revision>, Error>, warnings: Vec<String>) -> Answer {
    match made {
        Ok(Some(revision)) => tagged(revision.number, &warned(revision.to_json(), warnings)),
        Ok(None) => {
            let revision = control.revision();
            tagged(revision, &json!({ "revision": revision, "changes": [] }))
        }
        Err(error) => Err(refusal(&error)),
    }
}

fn value(document: &Document) -> Value {
    serde_json::from_slice(&document.json).unwrap_or_default()
}

fn differences_json(call: &Call, differences: &[Difference]) -> Vec<Value> {
    let side = |json: &Option<Bytes>| {
        json.as_ref().map(|json| call.shown(serde_json::from_slice(json).unwrap_or_default()))
    };
    let one = |difference: &Difference| {
        json!({
            "document": difference.key.to_string(),
            "before": side(&difference.before),
            "after": side(&difference.after),
        })
    };
    differences.iter().map(one).collect()
}

fn refusal(error: &Error) -> Problem {
    let (status, code) = match error {
        Error::Mistakes(_) => (StatusCode::UNPROCESSABLE_ENTITY, "documents_invalid"),
        Error::NoDocument(_) => (StatusCode::NOT_FOUND, "document_not_found"),
        Error::Store(store::Error::Conflict { .. }) => (StatusCode::PRECONDITION_FAILED, "revision_conflict"),
        Error::Store(store::Error::NoRevision(..)) => (StatusCode::NOT_FOUND, "revision_not_found"),
        Error::Store(store::Error::TooMany) => (StatusCode::INSUFFICIENT_STORAGE, "documents_too_many"),
        Error::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        Error::Owned(_) => (StatusCode::CONFLICT, "owned_by_files"),
        Error::Ending => (StatusCode::SERVICE_UNAVAILABLE, "ending"),
    };
    let problem = Problem::new(status, code, error.to_string());
    match error {
        Error::Mistakes(mistakes) => problem.with_mistakes(mistakes),
        _ => problem,
    }
}

fn tagged<T: serde::Serialize>(revision: u64, value: &T) -> Answer {
    let mut response: Response = json_page(StatusCode::OK, value);
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}
