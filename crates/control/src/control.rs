//! What people do with the control plane: apply, look, wait, go back.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rhumb_model::{Paint, Source};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::audience::{Audience, Why};
use crate::core::{Core, Proxy};
use crate::document::{Document, Key, Mesh, Role, key_of};
use crate::hub::Hub;
use crate::others::{Others, together};
use crate::store::{self, Difference, Disk, Loaded, MAX_DOCUMENT_BYTES, Postgres, Revision, Since, Store};

/// The most mistakes that are told at once.
const MAX_MISTAKES: usize = 50;

/// The longest name of an author, and the longest message. Unit: bytes.
const MAX_WORDS: usize = 1_024;

/// Documents with their history, and those who use them.
#[derive(Debug)]
pub struct Control {
    hub: Arc<Hub>,
    /// Held while a revision is made, so that revisions come into force in their order.
    store: Arc<Mutex<Store>>,
    /// What is to be asked before settings of the mesh come into force.
    mesh_check: OnceLock<MeshCheck>,
    /// Documents that files say, which are not to be changed by others.
    owned: std::sync::Mutex<BTreeSet<Key>>,
}

type CheckMesh = dyn Fn(&Mesh) -> Option<String> + Send + Sync;

/// Says what is wrong with settings of the mesh for this control plane, if anything is.
pub struct MeshCheck(pub Box<CheckMesh>);

impl std::fmt::Debug for MeshCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MeshCheck")
    }
}

/// Who makes a revision, and why.
#[derive(Clone, Debug, Default)]
pub struct Cause {
    /// Who.
    pub author: String,
    /// Why; may be empty.
    pub message: String,
    /// Only when this revision is in force.
    pub expected: Option<u64>,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A document cannot be used; what is wrong, one text each.
    #[error("documents have mistakes")]
    Mistakes(Vec<String>),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// There is no such document.
    #[error("there is no document {0}")]
    NoDocument(String),
    /// Files say what the document is.
    #[error("{0} is written in a file of the gateway: change it there")]
    Owned(String),
    /// The process ends.
    #[error("the process is about to end")]
    Ending,
}

impl Control {
    /// The control plane whose documents are in a directory.
    ///
    /// # Errors
    /// [`store::Error`].
    pub fn open(directory: &Path) -> Result<Self, store::Error> {
        Self::with(Store::Disk(Disk::open(directory)?))
    }

    /// One of the control planes that share a store, under a name of its own. [`follow`](Self::follow) has to run.
    ///
    /// # Errors
    /// [`store::Error`].
    pub fn share(store: Postgres, plane: String) -> Result<Self, store::Error> {
        let store = Arc::new(store);
        let control = Self::with(Store::Postgres(Arc::clone(&store)))?;
        control.hub.share(Arc::new(Others::new(store, plane)));
        Ok(control)
    }

    fn with(store: Store) -> Result<Self, store::Error> {
        let loaded = store.load()?;
        let mut core = Core::new(unix_ms());
        for (service, number) in &loaded.virtuals {
            core.virtuals_mut().restore(service, *number);
        }
        let documents = loaded.documents.into_iter().filter_map(|(json, revision)| {
            readable(json, revision).map(|document| (document.key.clone(), Some(Arc::new(document))))
        });
        let (_, assigned) = core.commit(loaded.revision, documents);
        if !assigned.is_empty() {
            store.assign(&assigned)?;
        }
        Ok(Self {
            hub: Arc::new(Hub::new(core)),
            store: Arc::new(Mutex::new(store)),
            mesh_check: OnceLock::new(),
            owned: std::sync::Mutex::default(),
        })
    }

    /// Tells other control planes on the store what is known here, and hears what is known there, until the process ends;
    /// without others it only waits.
    pub async fn follow(self: &Arc<Self>) {
        match self.hub.others() {
            Some(others) => others.follow(self).await,
            None => std::future::pending().await,
        }
    }

    /// Hears once what other control planes know. Where the store is away nothing is known of it.
    pub async fn meet(self: &Arc<Self>) {
        if let Some(others) = self.hub.others() {
            others.meet(self).await;
        }
    }

    /// Puts in force what others have written.
    pub(crate) async fn catch_up(&self) -> Result<(), Error> {
        let store = Arc::clone(&self.store).lock_owned().await;
        let hub = Arc::clone(&self.hub);
        let work = move || match &*store {
            Store::Postgres(postgres) => catch_up(postgres, &hub),
            Store::Disk(_) => Ok(()),
        };
        Ok(tokio::task::spawn_blocking(work).await.map_err(|_| Error::Ending)??)
    }

    /// Has settings of the mesh looked at before they come into force: the certificates of the mesh are not this crate's
    /// matter. Once, before anything is applied.
    pub fn check_mesh_with(&self, check: MeshCheck) {
        let _ = self.mesh_check.set(check);
    }

    /// The settings of the mesh in force.
    pub fn mesh(&self) -> Mesh {
        self.hub.with(|core| core.library().mesh())
    }

    /// Those who use the documents.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Puts documents in. Gives the revision that they made; none when they say what is said already.
    ///
    /// # Errors
    /// [`Error`]; nothing has changed then.
    pub async fn apply(&self, cause: &Cause, documents: &[Value]) -> Result<Option<Revision>, Error> {
        let documents = check(documents)?;
        let changes = documents.into_iter().map(|(key, json)| (key, Some(json))).collect();
        self.commit(cause, changes).await
    }

    /// Makes documents those that files say: others cannot change them, and those of `before` that are not there any more
    /// go. Gives what files own then.
    ///
    /// # Errors
    /// [`Error`]; nothing has changed then.
    pub async fn own(
        &self,
        cause: &Cause,
        documents: &[Value],
        before: &BTreeSet<Key>,
    ) -> Result<BTreeSet<Key>, Error> {
        let documents = check(documents)?;
        let after: BTreeSet<Key> = documents.iter().map(|(key, _)| key.clone()).collect();
        let mut changes: Vec<_> = documents.into_iter().map(|(key, json)| (key, Some(json))).collect();
        let is_there = |key: &&Key| self.hub.with(|core| core.library().get(key).is_some());
        let gone = before.difference(&after).filter(is_there);
        changes.extend(gone.map(|key| (key.clone(), None)));
        let was_owned = std::mem::take(&mut *self.owned());
        let made = self.commit(cause, changes).await;
        *self.owned() = if made.is_ok() { after.clone() } else { was_owned };
        made.map(|_| after)
    }

    fn owned(&self) -> std::sync::MutexGuard<'_, BTreeSet<Key>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What applying documents would change.
    ///
    /// # Errors
    /// [`Error::Mistakes`].
    pub fn compare(&self, documents: &[Value]) -> Result<Vec<Difference>, Error> {
        let documents = check(documents)?;
        let differences = self.hub.with(|core| {
            let difference = |(key, json): (Key, Bytes)| {
                let before = core.library().get(&key).map(|document| document.json.clone());
                Difference { key, before, after: Some(json) }
            };
            documents.into_iter().map(difference).collect::<Vec<_>>()
        });
        Ok(differences.into_iter().filter(|difference| difference.before != difference.after).collect())
    }

    /// True for a document that files say what it is: it is changed there.
    pub fn is_of_files(&self, key: &Key) -> bool {
        self.owned().contains(key)
    }

    /// Takes documents out.
    ///
    /// # Errors
    /// [`Error`]; nothing has changed then.
    pub async fn remove(&self, cause: &Cause, keys: &[Key]) -> Result<Option<Revision>, Error> {
        let missing =
            self.hub.with(|core| keys.iter().find(|key| core.library().get(key).is_none()).cloned());
        if let Some(missing) = missing {
            return Err(Error::NoDocument(missing.to_string()));
        }
        self.commit(cause, keys.iter().map(|key| (key.clone(), None)).collect()).await
    }

    /// Makes a revision that says what an earlier one said. None when it is said already.
    ///
    /// # Errors
    /// [`Error`]; nothing has changed then.
    pub async fn roll_back(&self, cause: &Cause, to: u64) -> Result<Option<Revision>, Error> {
        let from = self.revision();
        let differences = self.difference(from, to).await?;
        let changes = differences.into_iter().map(|difference| (difference.key, difference.after)).collect();
        let message = match &*cause.message {
            "" => format!("back to revision {to}"),
            written => written.to_owned(),
        };
        let cause = Cause { message, expected: Some(cause.expected.unwrap_or(from)), ..cause.clone() };
        self.commit(&cause, changes).await
    }

    /// The revision in force.
    pub fn revision(&self) -> u64 {
        self.hub.with(|core| core.revision())
    }

    /// The latest revisions before one, latest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn history(&self, before: u64, most: usize) -> Result<Vec<Revision>, Error> {
        self.ask(move |store| store.history(before, most)).await
    }

    /// What differs between two revisions.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn difference(&self, from: u64, to: u64) -> Result<Vec<Difference>, Error> {
        self.ask(move |store| store.difference(from, to)).await
    }

    /// Documents, as they are in force: those of a kind, namespace or name, each if it is given.
    pub fn documents(
        &self,
        kind: Option<&str>,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Vec<Arc<Document>> {
        let is = |wanted: Option<&str>, value: &str| {
            wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(value))
        };
        self.hub.with(|core| {
            let all = core.library().all();
            let chosen = all.filter(|document| {
                let key = &document.key;
                is(kind, &key.kind) && is(namespace, &key.namespace) && is(name, &key.name)
            });
            chosen.cloned().collect()
        })
    }

    /// Who uses a revision, after everybody who is connected has answered or some time has passed. None when it is too
    /// long ago to be known.
    pub async fn audience(&self, revision: u64, patience: Duration) -> Option<Audience> {
        let touched = self.hub.with(|core| core.told(revision).cloned());
        let deadline = crate::hub::now() + patience;
        match self.hub.others() {
            None => Some(self.hub.settled(&touched?, deadline).await),
            Some(others) => {
                // What it touched here may be too long ago, or before this process began.
                let touched = touched.unwrap_or_default();
                let (own, other) =
                    tokio::join!(self.hub.standing(&touched, deadline), others.audience(revision, patience));
                Some(together(own, other))
            }
        }
    }

    /// Every proxy that is known, also to other control planes, as it is shown. Who is connected somewhere is shown as it
    /// is there.
    pub async fn all_proxies(&self) -> Vec<Value> {
        let now = crate::hub::now();
        let mut all: Vec<Value> = self.proxies().iter().map(|proxy| proxy_json(proxy, now)).collect();
        if let Some(others) = self.hub.others() {
            all.extend(others.proxies().await);
            let name = |proxy: &Value| proxy["proxy"].as_str().unwrap_or_default().to_owned();
            let is_away = |proxy: &Value| proxy["connected"] != true;
            all.sort_by_key(|proxy| (name(proxy), is_away(proxy), proxy["forSeconds"].as_u64()));
            all.dedup_by_key(|proxy| name(proxy));
        }
        all
    }

    /// Every proxy that is known.
    pub fn proxies(&self) -> Vec<Proxy> {
        self.hub.with(|core| core.proxies())
    }

    async fn commit(
        &self,
        cause: &Cause,
        changes: Vec<(Key, Option<Bytes>)>,
    ) -> Result<Option<Revision>, Error> {
        let cause =
            Cause { author: cut(&cause.author), message: cut(&cause.message), expected: cause.expected };
        let mut parsed: Vec<(Key, Option<Document>)> = Vec::with_capacity(changes.len());
        for (key, json) in &changes {
            // Its revision is set below, when it is known.
            let document = json.clone().map(|json| Document::parse(json, 0)).transpose();
            parsed.push((
                key.clone(),
                document.map_err(|error| Error::Mistakes(vec![format!("{key}: {error}")]))?,
            ));
        }
        let is_changed = |key: &Key, document: Option<&Document>| {
            self.hub
                .with(|core| core.library().get(key).map(|known| &known.json) != document.map(|to| &to.json))
        };
        let owned = {
            let owned = self.owned();
            let of_files = parsed.iter().filter(|(key, _)| owned.contains(key));
            of_files.map(|(key, document)| (key.clone(), document.clone())).collect::<Vec<_>>()
        };
        if let Some((key, _)) = owned.iter().find(|(key, document)| is_changed(key, document.as_ref())) {
            return Err(Error::Owned(key.to_string()));
        }
        if let Some(MeshCheck(check)) = self.mesh_check.get() {
            let wrong = parsed.iter().filter_map(|(key, document)| match &document.as_ref()?.role {
                Role::Mesh(mesh) => check(mesh).map(|why| format!("{key}: {why}")),
                _ => None,
            });
            let wrong: Vec<String> = wrong.collect();
            if !wrong.is_empty() {
                return Err(Error::Mistakes(wrong));
            }
        }
        let store = Arc::clone(&self.store).lock_owned().await;
        let hub = Arc::clone(&self.hub);
        let work = move || {
            let made = store.commit(&cause.author, &cause.message, unix_ms(), &changes, cause.expected)?;
            let Some(revision) = made else { return Ok(None) };
            if let Store::Postgres(postgres) = &*store {
                // Others may have made revisions before this one that are not known here yet.
                if let Err(error) = catch_up(postgres, &hub) {
                    tracing::warn!(%error, revision = revision.number, "a revision was made and is not in force here yet");
                }
                return Ok(Some(revision));
            }
            let done: BTreeSet<&Key> = revision.changes.iter().map(|(key, _)| key).collect();
            let documents =
                parsed.into_iter().filter(|(key, _)| done.contains(key)).map(|(key, document)| {
                    let document =
                        document.map(|document| Arc::new(Document { revision: revision.number, ..document }));
                    (key, document)
                });
            let (_, assigned) = hub.with(|core| core.commit(revision.number, documents));
            if !assigned.is_empty() {
                store.assign(&assigned)?;
            }
            Ok::<_, store::Error>(Some(revision))
        };
        // Until it is on the disk, this thread has other things to do. Once begun it is done, whoever waits for it.
        let made = tokio::task::spawn_blocking(work).await.map_err(|_| Error::Ending)??;
        if let Some(revision) = &made {
            tracing::info!(
                revision = revision.number,
                author = revision.author,
                changes = revision.changes.len(),
                "revision is in force"
            );
        }
        Ok(made)
    }

    async fn ask<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Store) -> Result<T, store::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(&self.store).lock_owned().await;
        let asked = tokio::task::spawn_blocking(move || f(&store)).await;
        Ok(asked.map_err(|_| Error::Ending)??)
    }
}

/// Puts in force what was written since the revision in force.
fn catch_up(store: &Postgres, hub: &Hub) -> Result<(), store::Error> {
    match store.since(hub.with(|core| core.revision()))? {
        Since::Nothing => {}
        Since::Revisions { revisions, virtuals } => hub.with(|core| {
            for (service, number) in &virtuals {
                core.virtuals_mut().restore(service, *number);
            }
            for (revision, changes) in revisions {
                let documents = changes.into_iter().filter_map(|(key, json)| match json {
                    Some(json) => Some((key, Some(Arc::new(readable(json, revision)?)))),
                    None => Some((key, None)),
                });
                core.commit(revision, documents);
            }
        }),
        Since::All(Loaded { revision, documents, virtuals }) => hub.with(|core| {
            for (service, number) in &virtuals {
                core.virtuals_mut().restore(service, *number);
            }
            let mut gone: BTreeSet<Key> = core.library().all().map(|document| document.key.clone()).collect();
            let mut changes = Vec::new();
            for document in documents.into_iter().filter_map(|(json, revision)| readable(json, revision)) {
                gone.remove(&document.key);
                let known = core.library().get(&document.key);
                if known.is_none_or(|known| known.json != document.json) {
                    changes.push((document.key.clone(), Some(Arc::new(document))));
                }
            }
            changes.extend(gone.into_iter().map(|key| (key, None)));
            core.commit(revision, changes);
        }),
    }
    Ok(())
}

/// A document of the store; nothing when it cannot be read, which is logged.
fn readable(json: Bytes, revision: u64) -> Option<Document> {
    Document::parse(json, revision)
        .inspect_err(|error| tracing::error!(%error, "a document of the store cannot be read"))
        .ok()
}

/// The documents with their names, without what is none of their business, if nothing is wrong with them.
fn check(documents: &[Value]) -> Result<Vec<(Key, Bytes)>, Error> {
    let mut mistakes = Vec::new();
    let mut names = BTreeSet::new();
    let mut checked = Vec::with_capacity(documents.len());
    for (place, document) in documents.iter().enumerate() {
        let Some(key) = key_of(document) else {
            mistakes.push(format!("document {}: it has no kind or no name", place + 1));
            continue;
        };
        let json = plain(document);
        if json.len() > MAX_DOCUMENT_BYTES {
            mistakes.push(format!("{key}: it has more than {MAX_DOCUMENT_BYTES} bytes"));
            continue;
        }
        if !names.insert(key.clone()) {
            mistakes.push(format!("{key}: it is there twice"));
        }
        let text = String::from_utf8_lossy(&json);
        let read = rhumb_model::read(&Arc::new(Source::new(key.to_string(), 1, &*text)), None, &[]);
        let wrong = read.diags.iter().filter(|diag| diag.is_error());
        mistakes.extend(wrong.map(|diag| rhumb_model::render(diag, Paint::Plain).trim_end().to_owned()));
        checked.push((key, json));
    }
    if mistakes.is_empty() {
        return Ok(checked);
    }
    mistakes.truncate(MAX_MISTAKES);
    Err(Error::Mistakes(mistakes))
}

/// The document as it is kept: without what Kubernetes adds to it, which would differ without a difference.
fn plain(document: &Value) -> Bytes {
    let mut document = document.clone();
    if let Some(object) = document.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = document.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["managedFields", "resourceVersion", "uid", "generation", "selfLink"] {
            metadata.remove(field);
        }
    }
    document.to_string().into()
}

/// The audience of a revision, as it is shown.
pub fn audience_json(revision: u64, audience: &Audience) -> Value {
    let waiting = audience.waiting.iter().map(|waiting| {
        let (state, why) = match &waiting.why {
            Why::Pending => ("pending", None),
            Why::Disconnected => ("disconnected", None),
            Why::Refused(why) => ("refused", Some(why)),
        };
        json!({ "proxy": waiting.proxy, "state": state, "why": why })
    });
    json!({ "revision": revision, "live": audience.live, "waiting": waiting.collect::<Vec<_>>() })
}

/// A proxy, as it is shown.
pub fn proxy_json(proxy: &Proxy, now: Instant) -> Value {
    let refused = proxy
        .refused
        .iter()
        .map(|((kind, name), why)| json!({ "resource": format!("{}/{name}", kind.as_str()), "why": why }));
    json!({
        "proxy": &*proxy.name,
        "connected": proxy.is_connected,
        "forSeconds": now.saturating_duration_since(proxy.since).as_secs(),
        "wants": proxy.wants,
        "current": proxy.current,
        "refused": refused.collect::<Vec<_>>(),
    })
}

fn cut(text: &str) -> String {
    let mut kept = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if kept.len() + c.len_utf8() > MAX_WORDS {
            break;
        }
        kept.push(c);
    }
    kept
}

pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(name: &str, port: u16) -> Value {
        json!({
            "apiVersion": "rhumb.dev/v1alpha1", "kind": "Backend", "metadata": { "name": name, "resourceVersion": port.to_string() },
            "spec": { "endpoints": [{ "address": format!("127.0.0.1:{port}") }] },
        })
    }

    fn run(f: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(f);
    }

    fn cause() -> Cause {
        Cause { author: "me".to_owned(), ..Cause::default() }
    }

    #[test]
    fn what_was_applied_is_in_force_after_a_restart_and_can_be_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        run(async {
            let control = Control::open(directory.path()).unwrap();
            let first = control.apply(&cause(), &[backend("a", 1), backend("b", 1)]).await.unwrap().unwrap();
            assert_eq!((first.number, first.changes.len()), (1, 2));
            assert!(control.apply(&cause(), &[backend("a", 1)]).await.unwrap().is_none());
            control.apply(&cause(), &[backend("a", 2)]).await.unwrap().unwrap();
            control.remove(&cause(), &[Key::new("Backend", "default", "b")]).await.unwrap().unwrap();
        });
        run(async {
            let control = Control::open(directory.path()).unwrap();
            assert_eq!(control.revision(), 3);
            let documents = control.documents(Some("backend"), None, None);
            assert_eq!((documents.len(), documents[0].revision), (1, 2));
            let back = control.roll_back(&cause(), 1).await.unwrap().unwrap();
            assert_eq!((back.number, &*back.message, back.changes.len()), (4, "back to revision 1", 2));
            assert_eq!(control.documents(None, None, None).len(), 2);
            assert!(control.roll_back(&cause(), 4).await.unwrap().is_none());
            let differences = control.difference(1, 4).await.unwrap();
            assert_eq!(differences, []);
        });
    }

    #[test]
    fn documents_with_mistakes_change_nothing() {
        let directory = tempfile::tempdir().unwrap();
        run(async {
            let control = Control::open(directory.path()).unwrap();
            let mut wrong = backend("b", 1);
            wrong["spec"]["endpints"] = json!([]);
            let nameless = json!({ "kind": "Backend" });
            let all = [backend("a", 1), wrong, nameless, backend("a", 2)];
            let Err(Error::Mistakes(mistakes)) = control.apply(&cause(), &all).await else { panic!() };
            let text = mistakes.join("\n");
            for part in ["endpints", "document 3", "Backend/default/a: it is there twice"] {
                assert!(text.contains(part), "{part} is not in {text}");
            }
            assert_eq!(control.revision(), 0);
            let gone = control.remove(&cause(), &[Key::new("Backend", "default", "x")]).await;
            assert!(matches!(gone, Err(Error::NoDocument(_))));
        });
    }

    #[test]
    fn a_dry_run_tells_the_difference_only() {
        let directory = tempfile::tempdir().unwrap();
        run(async {
            let control = Control::open(directory.path()).unwrap();
            control.apply(&cause(), &[backend("a", 1)]).await.unwrap();
            let differences = control.compare(&[backend("a", 1), backend("b", 1)]).unwrap();
            assert_eq!(differences.len(), 1);
            assert_eq!(&*differences[0].key.name, "b");
            assert_eq!(control.revision(), 1);
        });
    }
}
