//! Everything that somebody who helps from afar wants to know, as one archive without secrets.
//!
//! It is what a viewer is shown, page by page, and so shows nothing that those pages would not; besides how the process was
//! started, its metrics and its latest messages. It is made while it is sent, and bounded; what there was no room for stands in
//! its manifest.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::IntoResponse;
use flate2::Compression;
use flate2::write::GzEncoder;
use rhumb_telemetry::metrics::Format;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::describe::{Answer, At, Endpoint, Given, Gives, Needs};
use super::{Call, ENDPOINTS, Problem};
use crate::admin::credentials::Who;
use crate::admin::{VERSION, invocation};
use crate::health::unix_now;
use crate::logs;

/// The largest file in it. **Unit**: bytes.
const MAX_FILE: usize = 32 << 20;

/// All files in it together. **Unit**: bytes.
const MAX_WHOLE: usize = 128 << 20;

/// Pages of one list.
const MAX_PAGES: usize = 20;

/// What is sent at a time. **Unit**: bytes.
const PIECE: usize = 64 << 10;

/// Pieces that wait for a slow reader.
const PIECES: usize = 4;

/// Bundles that are made at a time: each goes through everything that the process knows.
static AT_A_TIME: std::sync::LazyLock<Arc<Semaphore>> =
    std::sync::LazyLock::new(|| Arc::new(Semaphore::new(1)));

/// Pages that are left out, and why.
const LEFT_OUT: &[(&str, &str)] = &[("/audit", "it names people"), ("/tokens", "they concern nobody else")];

/// Makes an archive.
pub(super) async fn bundle(call: Call) -> Answer {
    let permit = Arc::clone(&AT_A_TIME).try_acquire_owned().map_err(|_| {
        let busy = Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "bundle_busy",
            "another bundle is being made: try again when it is done",
        );
        Problem { retry_after: Some(5), ..busy }
    })?;
    let (sent, pieces) = mpsc::channel(PIECES);
    let (files, taken) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || pack(taken, Pieces { sent, piece: Vec::new() }));
    tokio::spawn(collect(call, files, permit));
    let name = format!("attachment; filename=\"rhumb-{}-{}.tar.gz\"", std::process::id(), unix_now());
    let fields = [(header::CONTENT_TYPE, "application/gzip".to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((fields, Body::from_stream(ReceiverStream::new(pieces).map(Ok::<_, io::Error>))).into_response())
}

/// A file of the archive.
struct File {
    name: String,
    content: Bytes,
}

/// What is collected, until somebody does not read any more.
struct Collected {
    files: mpsc::Sender<File>,
    whole: usize,
    contents: Vec<Value>,
    left_out: Vec<Value>,
}

impl Collected {
    /// Puts a file in, or notes why not. False when nobody reads.
    async fn put(&mut self, name: &str, about: &str, content: Result<Bytes, String>) -> bool {
        let content = content.and_then(|content| {
            let whole = self.whole.saturating_add(content.len());
            if whole > MAX_WHOLE {
                return Err(format!("the bundle would have more than {MAX_WHOLE} bytes"));
            }
            self.whole = whole;
            Ok(content)
        });
        match content {
            Ok(content) => {
                self.contents.push(json!({ "name": name, "about": about, "bytes": content.len() }));
                self.files.send(File { name: name.to_owned(), content }).await.is_ok()
            }
            Err(why) => {
                self.left_out.push(json!({ "name": name, "about": about, "why": why }));
                !self.files.is_closed()
            }
        }
    }
}

async fn collect(call: Call, files: mpsc::Sender<File>, permit: OwnedSemaphorePermit) {
    let _permit = permit;
    let mut all = Collected { files, whole: 0, contents: Vec::new(), left_out: Vec::new() };
    // Without a reader there is nothing to be done.
    let _: Option<()> = put_all(&call, &mut all).await;
}

async fn put_all(call: &Call, all: &mut Collected) -> Option<()> {
    let admin = &call.desk.admin;
    let put = |is_read: bool| is_read.then_some(());
    let started = text(&invocation::started());
    put(all.put("process/started.json", "version, machine and command line", Ok(started)).await)?;
    let metrics = admin.registry.encode(Format::Text).into();
    put(all.put("process/metrics.txt", "metrics", Ok(metrics)).await)?;
    let messages = logs::kept();
    put(all.put("process/messages.txt", "the latest messages", Ok(messages.into())).await)?;
    put(all.put("process/status.json", "how it stands", Ok(text(&admin.status()))).await)?;
    for endpoint in ENDPOINTS.iter().filter(|endpoint| is_told(endpoint)) {
        if let Some((_, why)) = LEFT_OUT.iter().find(|(path, _)| *path == endpoint.path) {
            let name = format!("api{}.json", endpoint.path);
            put(all.put(&name, endpoint.about, Err((*why).to_owned())).await)?;
            continue;
        }
        for (variant, query) in variants(endpoint) {
            put_pages(call, all, endpoint, &variant, &query).await?;
        }
    }
    let manifest = json!({
        "bundle": 1,
        "version": VERSION,
        "madeAt": unix_now(),
        "process": admin.process(),
        "files": all.contents,
        "leftOut": all.left_out,
        "secrets": "values of Secrets, credentials and tokens are `(not shown)`; variables of the environment are named only",
    });
    let file = File { name: "manifest.json".to_owned(), content: text(&manifest) };
    put(all.files.send(file).await.is_ok())
}

/// True for a page that is looked at and has an end.
fn is_told(endpoint: &Endpoint) -> bool {
    let is_looked_at = endpoint.method == Method::GET && matches!(endpoint.needs, Needs::Role(_));
    let has_end = matches!(endpoint.gives, Gives::Json(..) | Gives::Table(_));
    let is_one = !endpoint.params.iter().any(|param| param.at == At::Path);
    // What it describes is the same in every process of this version; who asks is whoever has asked for the bundle.
    is_looked_at && has_end && is_one && !["/openapi.json", "/session", "/bundle"].contains(&endpoint.path)
}

/// What a page is asked for: what its file is called, and the query.
fn variants(endpoint: &Endpoint) -> Vec<(String, Vec<(String, String)>)> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    match endpoint.path {
        "/top" => ["route", "backend", "endpoint", "consumer", "edge"]
            .iter()
            .map(|by| (format!("-{by}"), vec![pair("by", by), pair("window", "60")]))
            .collect(),
        "/events" => vec![(String::new(), vec![pair("limit", "1000")])],
        _ => vec![(String::new(), Vec::new())],
    }
}

/// A page, or each part of a list.
async fn put_pages(
    call: &Call,
    all: &mut Collected,
    endpoint: &'static Endpoint,
    variant: &str,
    query: &[(String, String)],
) -> Option<()> {
    let is_list = endpoint.params.iter().any(|param| param.name == "cursor");
    let mut cursor: Option<String> = None;
    for page in 1..=MAX_PAGES {
        let mut query = query.to_vec();
        if is_list {
            query.push(("limit".to_owned(), super::MAX_PAGE.to_string()));
        }
        query.extend(cursor.take().map(|cursor| ("cursor".to_owned(), cursor)));
        let part = if page == 1 { String::new() } else { format!("-{page}") };
        let name = format!("api{}{variant}{part}.json", endpoint.path);
        let answer = ask(call, endpoint, &query).await;
        if is_list && let Ok(content) = &answer {
            let told: Value = serde_json::from_slice(content).unwrap_or_default();
            cursor = told["next"].as_str().map(str::to_owned);
        }
        all.put(&name, endpoint.about, answer).await.then_some(())?;
        if cursor.is_none() {
            break;
        }
    }
    Some(())
}

/// What a page tells a viewer.
async fn ask(call: &Call, endpoint: &'static Endpoint, query: &[(String, String)]) -> Result<Bytes, String> {
    let told = async {
        let given = Given::read(&endpoint.params, &HashMap::new(), query, |_| None)?;
        let inner = Call {
            desk: Arc::clone(&call.desk),
            who: Some(Who::reader()),
            peer: call.peer.clone(),
            given,
            fields: HeaderMap::new(),
            body: Bytes::new(),
        };
        (endpoint.handler)(inner).await
    };
    let response = told.await.map_err(|problem: Problem| problem.detail)?;
    let content = to_bytes(response.into_body(), MAX_FILE).await;
    content.map_err(|_| format!("it has more than {MAX_FILE} bytes"))
}

fn text(value: &Value) -> Bytes {
    format!("{value:#}\n").into()
}

/// Writes the archive. It ends early when nobody reads.
fn pack(mut files: mpsc::Receiver<File>, to: Pieces) {
    let whole = || -> io::Result<()> {
        let mut archive = tar::Builder::new(GzEncoder::new(to, Compression::default()));
        while let Some(File { name, content }) = files.blocking_recv() {
            let mut head = tar::Header::new_gnu();
            head.set_size(u64::try_from(content.len()).unwrap_or(u64::MAX));
            head.set_mode(0o600);
            head.set_mtime(unix_now());
            archive.append_data(&mut head, format!("rhumb/{name}"), &*content)?;
        }
        archive.into_inner()?.finish()?.flush()
    };
    if let Err(error) = whole() {
        tracing::debug!(%error, "a bundle was not read to its end");
    }
}

/// What is written goes out in pieces.
struct Pieces {
    sent: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece).into();
        self.sent.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
