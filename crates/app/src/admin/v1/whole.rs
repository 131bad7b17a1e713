//! What is wrong with a set of documents as a whole: what `rhumb check` says of files, said of what is applied.
//!
//! A control plane looks at documents one by one before they come into force. What they mean together is for the proxies to
//! say, each of its part; whoever applies is told at once what gets worse with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use rhumb_control::control::Control;
use rhumb_control::document::{Key, key_of};
use rhumb_model::{Diag, Source};
use serde_json::Value;

use crate::config::judge;

/// The most documents that are looked at: more take longer than whoever applies would wait.
const MAX_DOCUMENTS: usize = 2_000;

/// The most that is told.
const MAX_TOLD: usize = 20;

type Set = BTreeMap<Key, Bytes>;

/// What is wrong with the documents in force and these among them that was not before.
pub(super) async fn warnings(control: &Control, documents: &[Value]) -> Vec<String> {
    let all = control.documents(None, None, None);
    if all.len() + documents.len() > MAX_DOCUMENTS {
        return Vec::new();
    }
    let before: Set = all.iter().map(|document| (document.key.clone(), document.json.clone())).collect();
    let mut after = before.clone();
    for document in documents {
        if let Some(key) = key_of(document) {
            after.insert(key, document.to_string().into());
        }
    }
    if before == after {
        return Vec::new();
    }
    let looked = tokio::task::spawn_blocking(move || {
        let known = mistakes(&before);
        let worse: Vec<String> = mistakes(&after).into_iter().filter(|text| !known.contains(text)).collect();
        worse
    });
    let mut worse = looked.await.unwrap_or_default();
    worse.truncate(MAX_TOLD);
    worse
}

fn mistakes(set: &Set) -> BTreeSet<String> {
    let mut docs = Vec::new();
    for (key, json) in set {
        let text = String::from_utf8_lossy(json);
        docs.extend(rhumb_model::read(&Arc::new(Source::new(key.to_string(), 1, &*text)), None, &[]).docs);
    }
    judge(&docs).iter().map(said).collect()
}

/// A mistake by document and field: lines are those of nobody's file.
fn said(diag: &Diag) -> String {
    let document =
        diag.at.doc.as_ref().map_or_else(|| diag.at.source.name().to_string(), ToString::to_string);
    format!("{document}: {}: {}", diag.path(), diag.what)
}
