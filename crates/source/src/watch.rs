//! Says when what was read has changed.

use crate::files::{Changed, is_configuration};
use crate::lookup::{Input, InputKind, Stamp};
use notify::event::ModifyKind;
use notify::{EventKind, RecursiveMode, Watcher};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long nothing may happen before a change counts as complete: editors and deployments write in several steps.
const QUIET: Duration = Duration::from_millis(50);

/// The same when files were only renamed or removed: each is complete as it appears, but several may follow each other.
const QUIET_AFTER_RENAME: Duration = Duration::from_millis(5);

/// How long changes may go on before they count all the same.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often inputs are looked at when the system reports changes.
const POLL_WITH_EVENTS: Duration = Duration::from_secs(10);

/// How often inputs are looked at when it does not (network file systems, exhausted watches).
const POLL_ALONE: Duration = Duration::from_secs(2);

/// The most directories for which changes are asked for; more are polled.
const MAX_WATCHED: usize = 1024;

/// Watches the inputs of the last load.
pub struct Watch {
    inputs: Vec<Input>,
    watcher: Option<notify::RecommendedWatcher>,
    watched: HashSet<PathBuf>,
    /// Every directory is watched by the system.
    complete: bool,
    /// Directories in which something happens when an input changes.
    directories: HashSet<PathBuf>,
    /// No input is a link: what happens to one happens under its name.
    has_links: bool,
    events: Arc<Events>,
    /// A change was seen and has not been reported.
    has_changed: bool,
}

/// What the system tells, on a thread of its own.
#[derive(Default)]
struct Events {
    /// Something came that may concern an input.
    came: Notify,
    /// Names of the files that are read, and of what links among them lead to.
    names: Mutex<HashSet<OsString>>,
    /// A file was written in place, or may have been: it may be written to again.
    wrote: AtomicBool,
    /// Files that something happened to, at most [`MAX_HINTS`]: they are looked at first.
    hints: Mutex<Vec<OsString>>,
    /// The same since the last load; nothing when something else may have happened.
    changed: Mutex<Option<HashSet<OsString>>>,
}

/// The most files that are remembered for being looked at first.
const MAX_HINTS: usize = 64;

impl Watch {
    /// A watch on nothing. Without events from the system (no watches left) it polls.
    pub fn new() -> Self {
        let events = Arc::new(Events::default());
        let told = Arc::clone(&events);
        let watcher =
            notify::recommended_watcher(move |outcome: notify::Result<notify::Event>| match outcome {
                Ok(event) => told.take(&event),
                Err(_) => {
                    told.wrote.store(true, Relaxed);
                    told.lose_track();
                    told.came.notify_one();
                }
            });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "the system reports no changes of files; they are polled");
        }
        Self {
            inputs: Vec::new(),
            watcher: watcher.ok(),
            watched: HashSet::new(),
            complete: false,
            directories: HashSet::new(),
            has_links: false,
            events,
            has_changed: false,
        }
    }

    /// Watches these inputs from here on, as they looked when they were read: what changed since then is a change.
    pub fn follow(&mut self, inputs: Vec<Input>) {
        if self.are_elsewhere(&inputs) {
            *lock(&self.events.names) = names(&inputs);
            self.directories = directories(&inputs);
            self.has_links = inputs.iter().any(|input| input.path.is_symlink());
            // What happened before the system was asked to tell is not known.
            self.events.lose_track();
        }
        self.inputs = inputs;
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.watched.difference(&self.directories) {
            // It may be gone from the disk as well.
            let _ = watcher.unwatch(gone);
        }
        self.watched.retain(|directory| self.directories.contains(directory));
        self.complete = self.directories.len() <= MAX_WATCHED;
        for directory in self.directories.iter().take(MAX_WATCHED) {
            // Asked for again each time: a directory that was replaced has lost its watch.
            match watcher.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(directory.clone());
                }
                Err(error) => {
                    tracing::debug!(%error, directory = %directory.display(), "directory is polled");
                    self.watched.remove(directory);
                    self.complete = false;
                }
            }
        }
        if !self.complete {
            self.events.lose_track();
        }
    }

    /// True when inputs may be found in other places than those of the last time.
    fn are_elsewhere(&self, inputs: &[Input]) -> bool {
        self.has_links
            || self.inputs.len() != inputs.len()
            || self.inputs.iter().zip(inputs).any(|(old, new)| {
                let is_same = Arc::ptr_eq(&old.path, &new.path) || old.path == new.path;
                // A file that was put into the place of another one may be a link.
                !is_same || old.stamp != new.stamp && (!new.path.exists() || new.path.is_symlink())
            })
    }

    /// Which files may have changed since this was asked last. Ask before a load for that load.
    pub fn take_changed(&mut self) -> Changed {
        let changed = lock(&self.events.changed).replace(HashSet::new());
        match changed.filter(|names| !names.is_empty() && self.complete && !self.has_links) {
            Some(names) => Changed::Only(names),
            None => Changed::Unknown,
        }
    }

    /// Waits until an input has changed and then stayed as it is for a moment: a short one when files were put into
    /// place by renaming, a longer one when they were written.
    ///
    /// **Cancel**: nothing is lost; the next call sees the change.
    pub async fn changed(&mut self) {
        while !self.has_changed {
            let poll = if self.complete { POLL_WITH_EVENTS } else { POLL_ALONE };
            // An event or its absence: both lead to a look at the inputs.
            let is_told = timeout_at(Instant::now() + poll, self.events.came.notified()).await.is_ok();
            if !is_told {
                // Nothing tells how it was changed.
                self.events.wrote.store(true, Relaxed);
            }
            self.has_changed = self.differs();
            if self.has_changed && !is_told {
                self.events.lose_track();
            }
        }
        self.settle().await;
        self.events.wrote.store(false, Relaxed);
        self.has_changed = false;
    }

    async fn settle(&self) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let wrote = self.events.wrote.load(Relaxed);
            let quiet = Instant::now() + if wrote { QUIET } else { QUIET_AFTER_RENAME };
            if quiet >= give_up {
                sleep_until(give_up).await;
                return;
            }
            let is_quiet = timeout_at(quiet, self.events.came.notified()).await.is_err();
            // What came in the last moment counts as well.
            if is_quiet && wrote == self.events.wrote.load(Relaxed) {
                return;
            }
        }
    }

    fn differs(&self) -> bool {
        let hints = std::mem::take(&mut *lock(&self.events.hints));
        let is_hinted =
            |input: &&Input| input.path.file_name().is_some_and(|name| hints.iter().any(|hint| hint == name));
        let differs = |input: &Input| Stamp::of(&input.path, input.kind) != input.stamp;
        !hints.is_empty() && self.inputs.iter().filter(is_hinted).any(differs)
            || self.inputs.iter().any(differs)
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// Takes an event in. What happens to other files of a watched directory (an access log that grows beside the
    /// configuration) and what only reads is no news.
    fn take(&self, event: &notify::Event) {
        if event.kind.is_access() {
            return;
        }
        let is_content =
            matches!(event.kind, EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)));
        let is_whole = matches!(event.kind, EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_));
        if event.need_rescan() {
            self.lose_track();
        }
        let names = lock(&self.names);
        let mut files = event.paths.iter().map(|path| path.file_name());
        let is_known = files.clone().any(|name| name.is_none_or(|name| names.contains(name)));
        // Whatever comes, goes or is renamed may be read the next time.
        if is_content && !is_known {
            return;
        }
        let is_ours =
            is_known || files.clone().flatten().any(|name| name.to_str().is_none_or(is_configuration));
        if is_ours && !is_whole {
            self.wrote.store(true, Relaxed);
        }
        for file in files.clone() {
            match file {
                Some(name) if names.contains(name) => self.note(name),
                // Neither read nor ever to be read.
                Some(name) if name.to_str().is_some_and(|name| !is_configuration(name)) => {}
                _ => self.lose_track(),
            }
        }
        let mut hints = lock(&self.hints);
        if hints.len() < MAX_HINTS {
            hints.extend(files.by_ref().flatten().filter(|name| names.contains(*name)).map(OsString::from));
        }
        self.came.notify_one();
    }
}

impl Events {
    fn note(&self, name: &OsStr) {
        let mut changed = lock(&self.changed);
        let Some(names) = &mut *changed else { return };
        if names.len() < MAX_HINTS {
            names.insert(name.to_owned());
        } else if !names.contains(name) {
            *changed = None;
        }
    }

    /// Something else may have happened.
    fn lose_track(&self) {
        *lock(&self.changed) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn names(inputs: &[Input]) -> HashSet<OsString> {
    let mut names = HashSet::new();
    for input in inputs {
        names.extend(input.path.file_name().map(OsString::from));
        if input.path.is_symlink() {
            names
                .extend(input.path.canonicalize().ok().and_then(|path| path.file_name().map(OsString::from)));
        }
    }
    names
}

/// The directories in which something happens when an input changes: its own, and where a link leads.
fn directories(inputs: &[Input]) -> HashSet<PathBuf> {
    let mut directories = HashSet::new();
    for input in inputs {
        if input.kind == InputKind::Directory {
            directories.insert(input.path.to_path_buf());
            continue;
        }
        directories.insert(parent(&input.path));
        if input.path.is_symlink()
            && let Ok(target) = input.path.canonicalize()
        {
            directories.insert(parent(&target));
        }
    }
    directories.retain(|directory| directory.is_dir());
    directories
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Files;
    use std::fs;

    const BACKEND: &str =
        "apiVersion: rhumb.dev/v1alpha1\nkind: Backend\nmetadata: {name: a}\nspec: {endpoints: [\"a:1\"]}\n";

    /// Long enough for any machine; a failing test is slow, a passing one is not.
    const SOON: Duration = Duration::from_secs(30);

    fn run(change: impl FnOnce(&Path)) {
        let dir = tempfile::tempdir().expect("directory");
        fs::write(dir.path().join("a.yaml"), BACKEND).expect("write");
        let mut files = Files::new(dir.path());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        runtime.block_on(async {
            let mut watch = Watch::new();
            let before = files.load();
            watch.follow(before.inputs);
            change(dir.path());
            tokio::time::timeout(SOON, watch.changed()).await.expect("a change is seen");
            assert_ne!(files.load().digest, before.digest);
        });
    }

    /// Gives each wait up as soon as the change was seen, before it has settled.
    fn run_twice(change: impl FnOnce(&Path)) {
        let dir = tempfile::tempdir().expect("directory");
        fs::write(dir.path().join("a.yaml"), BACKEND).expect("write");
        let mut files = Files::new(dir.path());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        runtime.block_on(async {
            let mut watch = Watch::new();
            watch.follow(files.load().inputs);
            change(dir.path());
            while !watch.has_changed {
                let _ = tokio::time::timeout(QUIET / 5, watch.changed()).await;
            }
            // Without an event: the change is known already.
            let again = tokio::time::timeout(POLL_ALONE / 2, watch.changed()).await;
            assert!(again.is_ok() && !watch.has_changed);
        });
    }

    #[test]
    fn a_written_file_is_seen() {
        run(|dir| fs::write(dir.join("a.yaml"), BACKEND.replace("a:1", "a:2")).expect("write"));
    }

    #[test]
    fn a_new_file_is_seen() {
        run(|dir| fs::write(dir.join("b.yaml"), BACKEND.replace("name: a", "name: b")).expect("write"));
    }

    #[test]
    fn a_removed_file_is_seen() {
        run(|dir| fs::remove_file(dir.join("a.yaml")).expect("remove"));
    }

    #[test]
    fn a_replaced_file_is_seen() {
        run(|dir| {
            fs::write(dir.join("new"), BACKEND.replace("a:1", "b:1")).expect("write");
            fs::rename(dir.join("new"), dir.join("a.yaml")).expect("rename");
        });
    }

    #[test]
    fn a_change_outlives_a_wait_that_is_given_up() {
        run_twice(|dir| fs::write(dir.join("a.yaml"), BACKEND.replace("a:1", "a:2")).expect("write"));
    }

    #[test]
    fn what_other_files_do_is_no_change_and_what_is_renamed_is_complete() {
        use notify::event::{AccessKind, CreateKind, DataChange, RenameMode};
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let created = EventKind::Create(CreateKind::File);
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        for (kind, path, is_news, is_writing) in [
            (data, "./a.yaml", true, true),
            (data, "./access.log", false, false),
            (created, "./b.yaml", true, true),
            (created, "./.a.yaml.new", true, false),
            (created, "./..2026", true, false),
            (renamed, "./a.yaml", true, false),
            (renamed, "./..data", true, false),
            (EventKind::Access(AccessKind::Any), "a.yaml", false, false),
        ] {
            let events = Events { names: Mutex::new(HashSet::from(["a.yaml".into()])), ..Events::default() };
            events.take(&notify::Event::new(kind).add_path(PathBuf::from(path)));
            let came = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("runtime")
                .block_on(async {
                    tokio::time::timeout(Duration::ZERO, events.came.notified()).await.is_ok()
                });
            assert_eq!((came, events.wrote.load(Relaxed)), (is_news, is_writing), "{kind:?} {path}");
        }
    }

    #[test]
    fn it_is_known_which_files_have_changed_once_they_are_watched() {
        let dir = tempfile::tempdir().expect("directory");
        let write = |name: &str, endpoint: &str| {
            let text = BACKEND.replace("a:1", endpoint).replace("name: a", &format!("name: {}", &name[..1]));
            fs::write(dir.path().join("new"), text).expect("write");
            fs::rename(dir.path().join("new"), dir.path().join(name)).expect("rename");
        };
        write("a.yaml", "a:1");
        write("b.yaml", "b:1");
        let mut files = Files::new(dir.path());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        runtime.block_on(async {
            let mut watch = Watch::new();
            watch.follow(files.load().inputs);
            for (name, endpoint, only) in [
                // What happened before the watch began is not known.
                ("a.yaml", "a:2", None),
                ("a.yaml", "a:3", Some("a.yaml")),
                ("b.yaml", "b:2", Some("b.yaml")),
                ("c.yaml", "c:1", None),
                // Watched as files of another list.
                ("c.yaml", "c:2", None),
                ("c.yaml", "c:3", Some("c.yaml")),
            ] {
                write(name, endpoint);
                tokio::time::timeout(SOON, watch.changed()).await.expect("a change is seen");
                let changed = watch.take_changed();
                match (&changed, only) {
                    (Changed::Unknown, None) => {}
                    (Changed::Only(names), Some(name)) if watch.complete => {
                        assert_eq!(names.iter().collect::<Vec<_>>(), [name]);
                    }
                    // Without events from the system nothing is known.
                    _ => assert!(!watch.complete, "{name} {endpoint}: {changed:?}"),
                }
                let loaded = files.load_changed(&changed);
                assert!(
                    loaded
                        .docs
                        .iter()
                        .any(|doc| format!("{:?}", doc.spec).contains(&format!("\"{}\"", &endpoint[..1]))),
                    "{endpoint}"
                );
                watch.follow(loaded.inputs);
            }
        });
    }

    #[cfg(unix)]
    #[test]
    fn a_mounted_config_map_that_is_swapped_is_seen() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().expect("directory");
        let root = dir.path();
        for (version, endpoint) in [("..1", "a:1"), ("..2", "a:2")] {
            fs::create_dir(root.join(version)).expect("directory");
            fs::write(root.join(version).join("a.yaml"), BACKEND.replace("a:1", endpoint)).expect("write");
        }
        symlink("..1", root.join("..data")).expect("link");
        symlink("..data/a.yaml", root.join("a.yaml")).expect("link");
        let mut files = Files::new(root);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        runtime.block_on(async {
            let mut watch = Watch::new();
            let before = files.load();
            assert!(before.diags.is_empty());
            watch.follow(before.inputs);
            symlink("..2", root.join("..data_tmp")).expect("link");
            fs::rename(root.join("..data_tmp"), root.join("..data")).expect("rename");
            tokio::time::timeout(SOON, watch.changed()).await.expect("a change is seen");
            assert_ne!(files.load().digest, before.digest);
        });
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_no_change() {
        let dir = tempfile::tempdir().expect("directory");
        fs::write(dir.path().join("a.yaml"), BACKEND).expect("write");
        let mut watch = Watch::new();
        watch.follow(Files::new(dir.path()).load().inputs);
        fs::write(dir.path().join("access.log"), "line\n").expect("write");
        assert!(!watch.differs());
    }
}
