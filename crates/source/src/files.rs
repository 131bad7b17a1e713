//! A file or directory to documents.

use crate::lookup::{Content, Input, Reader, Referenced, Seen, Surroundings, hash, reason};
use crate::routes::Routes;
use foldhash::{HashMap, HashMapExt};
use rhumb_model::value::Node;
use rhumb_model::{Diag, Doc, DocId, Origin, Read, Rule, Source, yaml};
use std::collections::{HashSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most configuration files in a directory.
pub const MAX_FILES: usize = 10_000;

/// Configuration in a file or directory, read again and again.
pub struct Files {
    path: PathBuf,
    /// The directory of the last load, to tell another one of the same name.
    directory: Option<Directory>,
    /// The last load, in the order of names.
    files: Vec<CachedFile>,
    distinct: Distinct,
    /// Listeners of all short forms of the last load: those without any of their own use them.
    listeners: Vec<Box<str>>,
    /// Documents that are in no file.
    made: Option<Made>,
    /// Documents come from elsewhere too.
    may_be_empty: bool,
}

/// Documents that somebody made, as if they stood in a file of the working directory.
struct Made {
    text: Arc<str>,
    last: CachedFile,
}

/// What a load found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The documents, by file name and place. Those with mistakes are marked ([`Doc::broken`]).
    pub docs: Vec<Arc<Doc>>,
    /// Every mistake.
    pub diags: Vec<Diag>,
    /// Everything that was read, for [`crate::Watch`].
    pub inputs: Vec<Input>,
    /// Hash of all that was read: equal when nothing changed.
    pub digest: u64,
}

/// Which files may have changed since they were read.
#[derive(Clone, Debug, Default)]
pub enum Changed {
    /// Any.
    #[default]
    Unknown,
    /// None but these, and those that they refer to.
    Only(HashSet<OsString>),
}

/// Which directory it is.
type Directory = (u64, u64);

/// The documents of one file.
struct CachedFile {
    path: Arc<Path>,
    text: Option<Arc<str>>,
    /// How it looked, when that says that it has not changed since.
    seen: Option<Seen>,
    parts: Vec<Cached>,
    /// It had content, and has none: it is about to be written, or something went wrong.
    was_emptied: bool,
    /// Why it could not be read.
    diags: Vec<Diag>,
}

/// The documents of one source.
struct Cached {
    source: Arc<Source>,
    read: Read,
    referenced: Referenced,
    /// Of a short form, what its routes are.
    routes: Option<Box<Routes>>,
}

impl Files {
    /// Configuration at `path`: a file, or a directory with `*.yaml`, `*.yml` and `*.json`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            directory: None,
            files: Vec::new(),
            distinct: Distinct::default(),
            listeners: Vec::new(),
            made: None,
            may_be_empty: false,
        }
    }

    /// Adds documents that are in no file. Files that they name are looked for from the working directory; mistakes in them
    /// are told as those of `name`.
    pub fn with(mut self, name: &str, text: impl Into<Arc<str>>) -> Self {
        let last = CachedFile { path: Path::new(name).into(), ..CachedFile::default() };
        self.made = Some(Made { text: text.into(), last });
        self
    }

    /// The same configuration, not read yet.
    pub fn anew(&self) -> Self {
        let mut again = Self::new(self.path.clone());
        again.may_be_empty = self.may_be_empty;
        match &self.made {
            Some(made) => again.with(&made.last.path.display().to_string(), Arc::clone(&made.text)),
            None => again,
        }
    }

    /// Documents come from elsewhere too: a directory without any is as good as another.
    pub fn may_be_empty(&mut self) {
        self.may_be_empty = true;
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads everything. A document whose text and files did not change keeps its [`rhumb_model::Spec`] allocation.
    pub fn load(&mut self) -> Loaded {
        self.load_changed(&Changed::Unknown)
    }

    /// The same, without a look at files that cannot have changed.
    pub fn load_changed(&mut self, changed: &Changed) -> Loaded {
        let mut reader = Reader::default();
        let mut loaded = Loaded::default();
        let directory = directory(&self.path);
        let only = match changed {
            Changed::Only(names) if directory.is_some() && directory == self.directory => self.known(names),
            _ => None,
        };
        self.directory = directory;
        let before = std::mem::take(&mut self.files);
        let mut files = Vec::with_capacity(before.len() + 1);
        let mut read = |path: Arc<Path>, before: CachedFile, trusted: bool| {
            let known = before.text.as_ref().zip(before.seen);
            let (content, seen) = reader.configuration(&path, known, trusted);
            if trusted && content.is_ok() && before.is_complete() {
                files.push(before);
                return;
            }
            let mut diags = Vec::new();
            let text = text(&path, content, &mut diags);
            let had_content = before.was_emptied || before.text.as_ref().is_some_and(|text| !text.is_empty());
            let was_emptied = had_content && text.as_ref().is_some_and(|text| text.is_empty());
            if was_emptied {
                diags.push(emptied(&path));
            }
            let parts = read_parts(&path, before, text.as_ref(), &self.listeners, &mut reader);
            files.push(CachedFile { path, text, seen, parts, was_emptied, diags });
        };
        if let Some(only) = only {
            for (at, file) in before.into_iter().enumerate() {
                read(Arc::clone(&file.path), file, !only.contains(&at));
            }
            let names: Vec<&str> = files.iter().filter_map(CachedFile::name).collect();
            reader.directory(&self.path, &names);
        } else {
            let mut before = before.into_iter().peekable();
            match list(&self.path, self.may_be_empty, &mut loaded.diags) {
                None => read(self.path.as_path().into(), before.next().unwrap_or_default(), false),
                Some(names) => {
                    for name in &names {
                        while before.next_if(|old| old.name().is_none_or(|old| old < name.as_str())).is_some()
                        {
                        }
                        match before.next_if(|old| old.name() == Some(name)) {
                            Some(old) => read(Arc::clone(&old.path), old, false),
                            None => read(self.path.join(name).into(), CachedFile::default(), false),
                        }
                    }
                    reader.directory(&self.path, &names);
                }
            }
        }
        if let Some(made) = self.made.take() {
            let Made { text, last } = made;
            let path = Arc::clone(&last.path);
            let parts = read_parts(&path, last, Some(&text), &self.listeners, &mut reader);
            let read = CachedFile { path, text: Some(Arc::clone(&text)), parts, ..CachedFile::default() };
            loaded.docs.extend(read.parts.iter().flat_map(|part| &part.read.docs).cloned());
            loaded.diags.extend(read.parts.iter().flat_map(|part| &part.read.diags).cloned());
            self.made = Some(Made { text, last: read });
        }
        let parts = files.iter().flat_map(|file| &file.parts);
        let mut listeners: Vec<Box<str>> = parts.flat_map(|part| part.read.listeners.clone()).collect();
        listeners.sort();
        listeners.dedup();
        if listeners != self.listeners {
            self.listeners = listeners;
            for file in &mut files {
                let path = &file.path;
                for part in file.parts.iter_mut().filter(|part| part.read.borrows) {
                    *part = fresh(path, part.source.clone(), None, &self.listeners, &mut reader);
                }
            }
        }
        for file in &mut files {
            loaded.diags.append(&mut file.diags);
            for part in &file.parts {
                loaded.docs.extend(part.read.docs.iter().cloned());
                loaded.diags.extend(part.read.diags.iter().cloned());
            }
        }
        self.files = files;
        if !self.distinct.are_still(&loaded.docs) {
            drop_duplicates(&mut loaded);
            self.distinct.are(&loaded.docs);
        }
        loaded.inputs = reader.into_inputs();
        let hashes = loaded.inputs.iter().map(|input| (input.path.as_os_str(), input.hash));
        loaded.digest = hash(&hashes.collect::<Vec<_>>());
        loaded
    }

    /// The places of the files with these names; nothing when there are others among them, or one is not there any more.
    fn known(&self, names: &HashSet<OsString>) -> Option<HashSet<usize>> {
        let place = |name: &OsString| {
            let name = name.to_str()?;
            let at = self.files.partition_point(|file| file.name().is_some_and(|other| *other < *name));
            let file = self.files.get(at)?;
            (file.name()? == name && file.path.exists()).then_some(at)
        };
        names.iter().map(place).collect()
    }
}

/// Which directory a path leads to; nothing when it leads to none.
fn directory(path: &Path) -> Option<Directory> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
    identity(&metadata)
}

#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> Option<Directory> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> Option<Directory> {
    None
}

impl CachedFile {
    /// It was read, and nothing in it refers to other files.
    fn is_complete(&self) -> bool {
        self.text.is_some()
            && self.seen.is_some()
            && !self.was_emptied
            && self.parts.iter().all(|part| part.referenced.is_empty())
    }

    /// Its name in its directory.
    fn name(&self) -> Option<&str> {
        self.path.file_name().and_then(|name| name.to_str())
    }
}

impl Default for CachedFile {
    fn default() -> Self {
        Self {
            path: Path::new("").into(),
            text: None,
            seen: None,
            parts: Vec::new(),
            was_emptied: false,
            diags: Vec::new(),
        }
    }
}

/// Reads the documents of a file, those that did not change from the last time.
fn read_parts(
    path: &Path,
    before: CachedFile,
    text: Option<&Arc<str>>,
    listeners: &[Box<str>],
    reader: &mut Reader,
) -> Vec<Cached> {
    let Some(text) = text else { return Vec::new() };
    let fresh = |source: Arc<Source>, routes: Option<Routes>, reader: &mut Reader| {
        fresh(path, source, routes, listeners, reader)
    };
    if before.text.as_ref() == Some(text) {
        let again = |part: Cached| {
            if part.is_current(reader) {
                part
            } else {
                fresh(part.source, part.routes.map(|routes| *routes), reader)
            }
        };
        return before.parts.into_iter().map(again).collect();
    }
    // What did not change stands at the beginning and at the end, mostly: found by comparing in order. What was
    // moved is found by its hash.
    let mut old: VecDeque<Cached> = before.parts.into();
    let mut moved: HashMap<u64, Cached> = HashMap::new();
    let name: Arc<str> = path.display().to_string().into();
    let parts = yaml::split(text);
    let mut out = Vec::with_capacity(parts.len());
    let mut sorted_out = false;
    for part in parts {
        let mut known = old.pop_front_if(|first| first.source.text() == part.text);
        if known.is_none() && !sorted_out {
            sorted_out = true;
            moved = old.drain(..).map(|cached| (hash(cached.source.text()), cached)).collect();
        }
        if known.is_none() && sorted_out {
            known = moved.remove(&hash(part.text)).filter(|cached| cached.source.text() == part.text);
        }
        let known = known.filter(|cached| cached.is_current(reader)).map(|cached| cached.at(part.first_line));
        out.push(match known {
            Some(Ok(cached)) => cached,
            Some(Err(source)) => fresh(source, None, reader),
            None => {
                let left = old.iter_mut().chain(moved.values_mut());
                // There is one short form in a file, mostly.
                let routes = left.filter_map(|cached| cached.routes.take()).next().map(|routes| *routes);
                fresh(Arc::new(Source::new(name.clone(), part.first_line, part.text)), routes, reader)
            }
        });
    }
    out
}

/// Reads a source, with the routes that it had before if it is a short form.
fn fresh(
    path: &Path,
    source: Arc<Source>,
    routes: Option<Routes>,
    listeners: &[Box<str>],
    reader: &mut Reader,
) -> Cached {
    let mut surroundings = surroundings(path, reader);
    if let Some(routes) = Routes::read(&source, routes, &mut surroundings) {
        return Cached {
            source,
            read: routes.all(),
            referenced: routes.referenced(),
            routes: Some(Box::new(routes)),
        };
    }
    surroundings.referenced.clear();
    let read = rhumb_model::read(&source, Some(&mut surroundings), listeners);
    Cached { source, read, referenced: surroundings.referenced, routes: None }
}

impl Cached {
    /// The files that it refers to have the same content.
    fn is_current(&self, reader: &mut Reader) -> bool {
        reader.has_again(&self.referenced)
    }

    /// The same documents starting on another line; the source to read again when there are mistakes, which tell
    /// their place.
    fn at(self, first_line: u32) -> Result<Self, Arc<Source>> {
        if self.source.first_line() == first_line {
            return Ok(self);
        }
        let source = Arc::new(Source::new(self.source.name().clone(), first_line, self.source.text()));
        if !self.read.diags.is_empty() || self.routes.is_some() {
            return Err(source);
        }
        let moved = |doc: Arc<Doc>| Arc::new(Doc { source: source.clone(), ..Arc::unwrap_or_clone(doc) });
        let docs = self.read.docs.into_iter().map(moved).collect();
        Ok(Self { source, read: Read { docs, ..self.read }, ..self })
    }
}

/// The documents of a file or directory as value trees, the short form adapted: what `rhumb adapt` prints.
///
/// Mistakes inside of documents are not looked for: that is [`Files::load`].
pub fn adapt(path: &Path) -> (Vec<Node>, Vec<Diag>) {
    let mut reader = Reader::default();
    let mut diags = Vec::new();
    let mut sources = Vec::new();
    let paths: Vec<Arc<Path>> = match list(path, false, &mut diags) {
        None => vec![path.into()],
        Some(names) => names.into_iter().map(|name| path.join(name).into()).collect(),
    };
    for path in paths {
        let (content, _) = reader.configuration(&path, None, false);
        let Some(text) = text(&path, content, &mut diags) else { continue };
        let all = yaml::sources(&path.display().to_string().into(), &text);
        sources.extend(all.into_iter().map(|source| (path.clone(), source)));
    }
    let mut listeners: Vec<_> =
        sources.iter().flat_map(|(_, source)| rhumb_model::listeners(source)).collect();
    listeners.sort();
    let mut nodes = Vec::new();
    for (path, source) in &sources {
        let mut surroundings = surroundings(path, &mut reader);
        nodes.extend(rhumb_model::adapt(source, Some(&mut surroundings), &listeners, &mut diags));
    }
    (nodes, diags)
}

fn surroundings<'a>(path: &Path, reader: &'a mut Reader) -> Surroundings<'a> {
    let directory = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
    Surroundings { reader, directory, referenced: Vec::new() }
}

/// The names of the configuration files in a directory, in order; nothing when the path is none.
fn list(path: &Path, may_be_empty: bool, diags: &mut Vec<Diag>) -> Option<Vec<String>> {
    if !path.is_dir() {
        return None;
    }
    let at = || Origin::file(&path.display().to_string());
    Some(match configuration_files(path) {
        Ok(names) if names.is_empty() && !may_be_empty => {
            diags.push(
                Diag::warning(Rule::NoEffect, at(), "no configuration in this directory")
                    .why("files whose names end with `.yaml`, `.yml` or `.json` are read"),
            );
            Vec::new()
        }
        Ok(names) if names.len() > MAX_FILES => {
            diags.push(
                Diag::error(Rule::TooLarge, at(), format!("{} files in this directory", names.len()))
                    .why(format!("at most {MAX_FILES} are read"))
                    .fix("put several documents into one file, separated by `---`"),
            );
            Vec::new()
        }
        Ok(names) => names,
        Err(error) => {
            diags.push(
                Diag::error(
                    Rule::Unreadable,
                    at(),
                    format!("the directory cannot be read: {}", reason(&error)),
                )
                .fix("check its permissions"),
            );
            Vec::new()
        }
    })
}

/// The names of the configuration files in a directory, sorted. Hidden ones are not read: among them are the
/// `..data` directories of mounted ConfigMaps, whose files have visible links.
pub(crate) fn configuration_files(directory: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Only a link has to be followed to know what it is.
        let is_file =
            || entry.file_type().is_ok_and(|kind| kind.is_file()) || !directory.join(&name).is_dir();
        if is_configuration(&name) && is_file() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// True for the names of configuration files in a directory.
pub(crate) fn is_configuration(name: &str) -> bool {
    !name.starts_with('.') && [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending))
}

/// What is said of a file that has lost its content: who writes a file in place empties it first, and nobody means to take
/// everything away by that.
fn emptied(path: &Path) -> Diag {
    Diag::error(Rule::Unreadable, Origin::file(&path.display().to_string()), "the file is empty")
        .why("it had content before, and may be about to be written")
        .fix("write it again, or remove it; one that is to say nothing says `{}`")
}

/// The text of a configuration file.
fn text(path: &Path, content: Content, diags: &mut Vec<Diag>) -> Option<Arc<str>> {
    match content {
        Ok(text) => Some(text),
        Err(reason) => {
            let what = format!("the file cannot be read: {reason}");
            let diag = Diag::error(Rule::Unreadable, Origin::file(&path.display().to_string()), what);
            diags.push(if reason.contains("larger") {
                diag.fix("split it into several files in one directory")
            } else {
                diag.fix("check the path and its permissions")
            });
            None
        }
    }
}

/// True for the backend that `to: HOST:PORT` stands for: two of one name are one.
fn is_address(doc: &Doc) -> bool {
    let written = doc.source.slice(doc.span).trim_matches(['"', '\'']);
    matches!(doc.spec, rhumb_model::Spec::Backend(_))
        && written.contains(':')
        && !written.contains(char::is_whitespace)
}

/// The documents of the last load, each with a name of its own, or with none.
#[derive(Default)]
struct Distinct {
    docs: Vec<Arc<Doc>>,
    names: foldhash::HashSet<Arc<DocId>>,
}

impl Distinct {
    fn are(&mut self, docs: &[Arc<Doc>]) {
        self.docs = docs.to_vec();
        let named = docs.iter().filter(|doc| !doc.name().is_empty());
        self.names = named.map(|doc| Arc::clone(&doc.id)).collect();
    }

    /// True when these documents have distinct names as well; they are then the ones to compare with. Only those that are
    /// not where they were are looked at.
    fn are_still(&mut self, docs: &[Arc<Doc>]) -> bool {
        let is_same = |(a, b): &(&Arc<Doc>, &Arc<Doc>)| Arc::ptr_eq(a, b);
        let first = self.docs.iter().zip(docs).take_while(is_same).count();
        let both = self.docs.len().min(docs.len()) - first;
        let last = self.docs.iter().rev().zip(docs.iter().rev()).take(both).take_while(is_same).count();
        let (old, new) = (first..self.docs.len() - last, first..docs.len() - last);
        for doc in self.docs.get(old.clone()).unwrap_or_default() {
            self.names.remove(&doc.id);
        }
        let new = docs.get(new).unwrap_or_default();
        let mut named = new.iter().filter(|doc| !doc.name().is_empty());
        let are_distinct = named.all(|doc| self.names.insert(Arc::clone(&doc.id)));
        self.docs.splice(old, new.iter().cloned());
        are_distinct
    }
}

/// Of documents with the same name the first one stays.
fn drop_duplicates(loaded: &mut Loaded) {
    let mut first: HashMap<&DocId, &Doc> = HashMap::with_capacity(loaded.docs.len());
    let mut again = HashSet::new();
    for (index, doc) in loaded.docs.iter().enumerate().filter(|(_, doc)| !doc.name().is_empty()) {
        let Some(&other) = first.get(&*doc.id) else {
            first.insert(&doc.id, doc);
            continue;
        };
        again.insert(index);
        if is_address(doc) && is_address(other) {
            continue;
        }
        loaded.diags.push(
            Diag::error(
                Rule::DuplicateDocument,
                doc.origin(doc.span),
                format!("{} is written twice", doc.id),
            )
            .label("again here")
            .why("the first one counts")
            .fix("give one of them another name, or delete it")
            .related(other.origin(other.span), "first here"),
        );
    }
    if !again.is_empty() {
        let mut index = 0..;
        loaded.docs.retain(|_| index.next().is_some_and(|index| !again.contains(&index)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InputKind;
    use rhumb_model::Spec;

    fn backend(name: &str, endpoint: &str) -> String {
        format!(
            "apiVersion: rhumb.dev/v1alpha1\nkind: Backend\nmetadata: {{name: {name}}}\nspec: {{endpoints: [\"{endpoint}\"]}}\n"
        )
    }

    fn body(doc: &Doc) -> *const u8 {
        match &doc.spec {
            Spec::Backend(backend) => Arc::as_ptr(backend).cast(),
            Spec::Secret(secret) => Arc::as_ptr(secret).cast(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_directory_is_read_in_name_order_without_hidden_files() {
        let dir = tempfile::tempdir().expect("directory");
        for (name, text) in [
            ("b.yml", backend("b", "b:1")),
            ("a.yaml", backend("a", "a:1")),
            ("c.json", r#"{"apiVersion": "rhumb.dev/v1alpha1", "kind": "Backend", "metadata": {"name": "c"}, "spec": {"endpoints": ["c:1"]}}"#.into()),
            (".hidden.yaml", backend("hidden", "x:1")),
            ("notes.txt", "not: [yaml".into()),
        ] {
            fs::write(dir.path().join(name), text).expect("write");
        }
        fs::create_dir(dir.path().join("..data")).expect("directory");
        fs::create_dir(dir.path().join("sub.yaml")).expect("directory");
        let loaded = Files::new(dir.path()).load();
        assert!(loaded.diags.is_empty(), "{:?}", loaded.diags);
        assert_eq!(loaded.docs.iter().map(|doc| doc.name()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(loaded.inputs.len(), 4);
    }

    #[test]
    fn unchanged_documents_keep_their_allocation_and_moved_ones_their_place() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("all.yaml");
        let text = |first: &str| format!("{}---\n{}", backend("a", first), backend("b", "b:1"));
        fs::write(&path, text("a:1")).expect("write");
        let mut files = Files::new(&path);
        let before = files.load();
        fs::write(&path, format!("# a comment\n\n{}", text("a:2"))).expect("write");
        let after = files.load();
        assert_ne!(before.digest, after.digest);
        assert_ne!(body(&before.docs[0]), body(&after.docs[0]));
        assert_eq!(body(&before.docs[1]), body(&after.docs[1]));
        let line = |loaded: &Loaded| loaded.docs[1].source.position(loaded.docs[1].span.start).line;
        assert_eq!((line(&before), line(&after)), (8, 10));
        assert_eq!(files.load().digest, after.digest);
    }

    #[test]
    fn a_changed_referenced_file_changes_its_document_only() {
        let dir = tempfile::tempdir().expect("directory");
        fs::write(dir.path().join("token"), "one\n").expect("write");
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {token: file:token}\n";
        fs::write(dir.path().join("a.yaml"), format!("{secret}---\n{}", backend("b", "b:1"))).expect("write");
        let mut files = Files::new(dir.path());
        let before = files.load();
        fs::write(dir.path().join("token"), "two\r\n").expect("write");
        let after = files.load();
        let token = |loaded: &Loaded| match &loaded.docs[0].spec {
            Spec::Secret(secret) => secret.get("token").map(|token| token.value.to_vec()),
            other => panic!("{other:?}"),
        };
        assert_eq!(token(&before).as_deref(), Some(&b"one"[..]));
        assert_eq!(token(&after).as_deref(), Some(&b"two"[..]));
        assert_eq!(body(&before.docs[1]), body(&after.docs[1]));
        assert_ne!(before.digest, after.digest);
        assert!(after.inputs.iter().any(|input| input.kind == InputKind::Referenced));
    }

    #[test]
    fn one_bad_file_or_document_leaves_the_others() {
        let dir = tempfile::tempdir().expect("directory");
        fs::write(dir.path().join("a.yaml"), format!("x: [\n---\n{}", backend("a", "a:1"))).expect("write");
        fs::write(dir.path().join("b.yaml"), b"\xff\xfe").expect("write");
        fs::write(dir.path().join("c.yaml"), backend("c", "nowhere")).expect("write");
        fs::write(dir.path().join("d.yaml"), backend("a", "a:2")).expect("write");
        let loaded = Files::new(dir.path()).load();
        let rules: Vec<Rule> = loaded.diags.iter().map(|diag| diag.rule).collect();
        assert_eq!(rules, [Rule::Syntax, Rule::Unreadable, Rule::BadValue, Rule::DuplicateDocument]);
        let docs: Vec<(&str, bool)> = loaded.docs.iter().map(|doc| (doc.name(), doc.broken)).collect();
        assert_eq!(docs, [("a", false), ("c", true)]);
    }

    #[test]
    fn short_forms_in_one_directory_share_listeners_and_backends() {
        let dir = tempfile::tempdir().expect("directory");
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("write");
        write(
            "a.yaml",
            "routes:\n  - {match: {path: /a}, to: shop}\n  - {match: {path: /x}, to: '127.0.0.1:9'}\n",
        );
        write("m.yaml", "listeners: {web: {port: 80}, tls: {port: 81}}\nbackends: {shop: '127.0.0.1:1'}\n");
        write("z.yaml", "routes:\n  - {on: web, match: {path: /z}, to: '127.0.0.1:9'}\n");
        let mut files = Files::new(dir.path());
        let parents = |loaded: &Loaded| -> Vec<(String, String)> {
            let routes = loaded.docs.iter().filter_map(|doc| match &doc.spec {
                Spec::HttpRoute(route) => Some((doc, route)),
                _ => None,
            });
            routes
                .flat_map(|(doc, route)| {
                    route
                        .parent_refs
                        .iter()
                        .map(|parent| (doc.name().to_owned(), parent.name.as_str().to_owned()))
                })
                .collect()
        };
        let named = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(route, parent)| ((*route).to_owned(), (*parent).to_owned())).collect()
        };
        let loaded = files.load();
        assert!(loaded.diags.is_empty(), "{:?}", loaded.diags);
        let both = named(&[("a", "tls"), ("a", "web"), ("x", "tls"), ("x", "web"), ("z", "web")]);
        assert_eq!(parents(&loaded), both);
        assert_eq!(
            adapt(dir.path()).0.len(),
            loaded.docs.len() + 1,
            "the address is one backend, written twice"
        );
        // Listeners that come and go are seen in the other files.
        write("m.yaml", "listeners: {web: {port: 80}}\nbackends: {shop: '127.0.0.1:1'}\n");
        assert_eq!(parents(&files.load()), named(&[("a", "web"), ("x", "web"), ("z", "web")]));
        // The same name twice is refused, with both places.
        write("y.yaml", "listeners: {web: {port: 82}}\n");
        let loaded = files.load();
        let [twice] = &*loaded.diags else { panic!("{:?}", loaded.diags) };
        assert_eq!(twice.rule, Rule::DuplicateDocument);
        assert!(
            twice.to_string().contains("y.yaml") && twice.related[0].0.source.name().contains("m.yaml"),
            "{twice}"
        );
    }

    #[test]
    fn a_file_that_is_emptied_takes_nothing_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, "").unwrap();
        let mut files = Files::new(&path);
        assert!(files.load().diags.is_empty(), "nothing was there before");
        fs::write(&path, backend("a", "127.0.0.1:1")).unwrap();
        assert_eq!(files.load().docs.len(), 1);
        fs::write(&path, "").unwrap();
        for _ in 0..2 {
            let loaded = files.load();
            assert_eq!(loaded.diags.first().map(|diag| &*diag.what), Some("the file is empty"));
        }
        fs::write(&path, "{}\n").unwrap();
        let loaded = files.load();
        assert!(!loaded.diags.iter().any(|diag| diag.what.contains("empty")), "{:?}", loaded.diags);
        fs::write(&path, backend("a", "127.0.0.1:2")).unwrap();
        assert!(files.load().diags.is_empty());
    }

    #[test]
    fn a_file_that_looks_the_same_is_not_read_again() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("a.yaml");
        fs::write(&path, backend("a", "a:1")).expect("write");
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        let touch =
            || fs::File::options().write(true).open(&path).and_then(|f| f.set_modified(old)).expect("a time");
        touch();
        let mut files = Files::new(dir.path());
        let before = files.load();
        // Same size, same time, same file: as good as not changed.
        fs::write(&path, backend("a", "a:2")).expect("write");
        touch();
        assert_eq!(files.load().digest, before.digest);
        fs::write(&path, backend("a", "a:3")).expect("write");
        let after = files.load();
        assert_ne!((after.digest, body(&after.docs[0])), (before.digest, body(&before.docs[0])));
    }

    #[test]
    fn what_is_missing_or_too_large_says_so() {
        let dir = tempfile::tempdir().expect("directory");
        let missing = Files::new(dir.path().join("nothing.yaml")).load();
        assert_eq!(missing.diags.len(), 1);
        assert!(missing.diags[0].what.contains("no such file"), "{}", missing.diags[0]);
        let empty = Files::new(dir.path()).load();
        assert_eq!(empty.diags.iter().map(|diag| diag.rule).collect::<Vec<_>>(), [Rule::NoEffect]);
        let large = dir.path().join("large.yaml");
        fs::write(&large, vec![b'#'; yaml::MAX_FILE_BYTES + 1]).expect("write");
        assert!(Files::new(&large).load().diags[0].what.contains("larger than 16 MiB"));
    }

    /// Writes a file as if that were long ago: it can be told by its looks whether it has changed.
    fn write_settled(path: &Path, text: &str) {
        use std::time::{Duration, SystemTime};
        fs::write(path, text).expect("write");
        let file = fs::File::options().write(true).open(path).expect("file");
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).expect("times");
    }

    #[test]
    fn files_that_cannot_have_changed_are_not_looked_at() {
        let dir = tempfile::tempdir().expect("directory");
        let path = |name: &str| dir.path().join(name);
        for name in ["a", "b", "c"] {
            write_settled(&path(&format!("{name}.yaml")), &backend(name, "x:1"));
        }
        let only = |names: &[&str]| Changed::Only(names.iter().map(OsString::from).collect());
        let endpoints = |loaded: &Loaded| -> String {
            let docs = loaded.docs.iter();
            let of = |doc: &Arc<Doc>| match &doc.spec {
                Spec::Backend(backend) => {
                    let address = &backend.endpoints[0].address;
                    format!("{} {}:{} ", doc.name(), address.host(), address.port())
                }
                other => panic!("{other:?}"),
            };
            docs.map(of).collect()
        };
        let mut files = Files::new(dir.path());
        let first = files.load();
        for name in ["a", "b"] {
            write_settled(&path(&format!("{name}.yaml")), &backend(name, "x:22"));
        }
        // Nobody said a word about b.
        let second = files.load_changed(&only(&["a.yaml"]));
        assert_eq!(endpoints(&second), "a x:22 b x:1 c x:1 ");
        assert_ne!(second.digest, first.digest);
        assert!(Arc::ptr_eq(&first.docs[2], &second.docs[2]));
        let stamps = |loaded: &Loaded| {
            loaded.inputs.iter().map(|input| (input.path.clone(), input.kind)).collect::<Vec<_>>()
        };
        assert_eq!(stamps(&first).len(), 4);
        assert_eq!(stamps(&first), stamps(&second));
        // One that is not known: everything is looked at.
        for (names, expected) in
            [(vec!["z.yaml"], "a x:22 b x:22 c x:1 "), (vec!["c.yaml"], "a x:22 b x:22 ")]
        {
            if names[0] == "c.yaml" {
                fs::remove_file(path("c.yaml")).expect("remove");
            }
            assert_eq!(endpoints(&files.load_changed(&only(&names))), expected, "{names:?}");
        }
        write_settled(&path("d.yaml"), &backend("d", "x:4"));
        assert_eq!(endpoints(&files.load_changed(&only(&["a.yaml", "d.yaml"]))), "a x:22 b x:22 d x:4 ");
        let whole = files.load();
        assert_eq!(whole.digest, files.load_changed(&only(&["b.yaml"])).digest, "the same, whoever says so");
    }
}
