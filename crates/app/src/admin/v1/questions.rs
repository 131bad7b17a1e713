//! Questions about documents and requests that change nothing: what is wrong, what would happen.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::http::StatusCode;
use rhumb_balance::Nanos;
use rhumb_model::value::Node;
use rhumb_model::{Diag, Doc, DocId, Severity, Source};
use rhumb_resolve::Surroundings;
use tokio::sync::Semaphore;

use super::describe::{Answer, read_body};
use super::shapes as shape;
use super::{Call, Problem, done};
use crate::explain;
use crate::health::unix_now;
use crate::supervisor::default_workers;

/// Questions that are worked out at a time: each may compile a whole configuration.
static AT_A_TIME: Semaphore = Semaphore::const_new(2);

/// The largest text that is looked at. **Unit**: bytes.
const MAX_TEXT: usize = 8 << 20;

/// What documents that were sent are called.
const SENT: &str = "(request)";

/// The most diagnostics of one answer.
const MAX_DIAGNOSTICS: usize = 1_000;

/// What is wrong with documents.
pub(super) async fn validate(call: Call) -> Answer {
    let asked: shape::Validate = read_body(&call.body)?;
    let text = match (asked.documents, asked.yaml) {
        (Some(documents), None) => {
            let texts = documents.iter().map(|document| serde_json::json!(document).to_string());
            texts.collect::<Vec<_>>().join("\n---\n")
        }
        (None, Some(yaml)) => yaml,
        _ => return Err(Problem::request_invalid("send either `documents` or `yaml`")),
    };
    if text.len() > MAX_TEXT {
        return Err(Problem::content_too_large(format!("more than {MAX_TEXT} bytes")));
    }
    let standing = standing(&call)?;
    let diags = work_out(move || {
        let mut docs = Vec::new();
        let mut diags = Vec::new();
        for source in rhumb_model::yaml::sources(&Arc::from(SENT), &text) {
            // Nothing of this machine is looked up for those who only ask.
            let read = rhumb_model::read(&source, None, &[]);
            docs.extend(read.docs);
            diags.extend(read.diags);
        }
        let named: HashSet<DocId> = docs.iter().map(|doc| (*doc.id).clone()).collect();
        docs.extend(standing.into_iter().filter(|doc| !named.contains(&doc.id)));
        diags.extend(rhumb_resolve::resolve(&docs, None, &surroundings()).diagnostics);
        diags.retain(|diag| &**diag.at.source.name() == SENT);
        diags.iter().take(MAX_DIAGNOSTICS).map(diagnostic).collect::<Vec<_>>()
    })
    .await?;
    done(&shape::Validated { valid: diags.iter().all(|diag| diag.level != "error"), diagnostics: diags })
}

/// The documents of a text.
///
/// # Errors
/// What is wrong with it, with places.
pub(super) fn documents_of(text: &str) -> Result<Vec<serde_json::Value>, Problem> {
    if text.len() > MAX_TEXT {
        return Err(Problem::content_too_large(format!("more than {MAX_TEXT} bytes")));
    }
    let (mut documents, mut diags) = (Vec::new(), Vec::new());
    for source in rhumb_model::yaml::sources(&Arc::from(SENT), text) {
        diags.extend(rhumb_model::read(&source, None, &[]).diags);
        let nodes = rhumb_model::yaml::parse(&source, None, &mut Vec::new());
        documents.extend(nodes.iter().map(Node::to_json));
    }
    if !diags.iter().any(Diag::is_error) {
        return Ok(documents);
    }
    let mistakes: Vec<String> =
        diags.iter().filter(|diag| diag.is_error()).map(|diag| diag.what.to_string()).collect();
    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "documents_invalid", mistakes.join("; "));
    let diagnostics = diags.iter().take(MAX_DIAGNOSTICS).map(diagnostic).collect();
    Err(Problem { diagnostics, ..problem.with_mistakes(&mistakes) })
}

/// What is wrong with documents, each by itself. Lines are those of a document as `jq` prints it.
pub(super) fn diagnostics_of(documents: &[serde_json::Value]) -> Vec<shape::Diagnostic> {
    let mut diags = Vec::new();
    for (at, document) in documents.iter().enumerate() {
        let source = Source::new(format!("documents[{at}]"), 0, format!("{document:#}"));
        diags.extend(rhumb_model::read(&Arc::new(source), None, &[]).diags);
    }
    diags.iter().take(MAX_DIAGNOSTICS).map(diagnostic).collect()
}

/// What happens to a request.
pub(super) async fn explain(call: Call) -> Answer {
    let asked: shape::Explain = read_body(&call.body)?;
    let client = asked.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let question = explain::Question::parse(&asked.method, &asked.url, &asked.headers, client)
        .map_err(|error| Problem::request_invalid(error.to_string()))?;
    let standing = standing(&call)?;
    let told = work_out(move || {
        // Policies really run on it: those of a plan that nobody else uses, so that no count of the one in force changes.
        let resolved = rhumb_resolve::resolve(&standing, None, &surroundings());
        explain::explain(&resolved.plan, &question)
            .map(|answer| explain::to_json(&answer))
            .map_err(|error| error.to_string())
    })
    .await?;
    match told {
        Ok(answer) => done(&answer),
        Err(error) => Err(Problem::request_invalid(error)),
    }
}

/// The documents in force.
pub(super) fn standing(call: &Call) -> Result<Vec<Arc<Doc>>, Problem> {
    let Some(control) = &call.desk.admin.control else { return Ok(call.desk.admin.shelf.docs().to_vec()) };
    let mut docs: HashMap<DocId, Arc<Doc>> = HashMap::new();
    for document in control.documents(None, None, None) {
        let text = String::from_utf8_lossy(&document.json);
        let source = Arc::new(Source::new(document.key.to_string(), 0, &*text));
        for doc in rhumb_model::read(&source, None, &[]).docs {
            docs.insert((*doc.id).clone(), doc);
        }
    }
    Ok(docs.into_values().collect())
}

pub(super) fn surroundings() -> Surroundings {
    Surroundings {
        now: Nanos::default(),
        unix_seconds: i64::try_from(unix_now()).unwrap_or(i64::MAX),
        has_ipv6: true,
        workers: default_workers(),
    }
}

/// Does work that takes long elsewhere, not too much of it at a time.
pub(super) async fn work_out<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    // It is never closed.
    let _permit = AT_A_TIME.acquire().await.ok();
    let worked = tokio::task::spawn_blocking(work).await;
    worked.map_err(|_| Problem::internal_error("working it out hit a bug in rhumb: please report it"))
}

fn diagnostic(diag: &Diag) -> shape::Diagnostic {
    let at = diag.at.source.position(diag.at.span.start);
    let field = diag.path();
    shape::Diagnostic {
        code: diag.rule.name(),
        level: match diag.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        file: diag.at.source.name().to_string(),
        line: at.line,
        column: at.column,
        document: diag.at.doc.as_ref().map(ToString::to_string),
        field: Some(field).filter(|field| !field.is_empty()),
        what: diag.what.to_string(),
        why: diag.why.as_ref().map(ToString::to_string),
        fix: diag.fix.as_ref().map(ToString::to_string),
    }
}
