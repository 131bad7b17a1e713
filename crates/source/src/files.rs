//! A file or directory to documents.

use crate::lookup::{Input, InputKind, Reader, Surroundings, hash, reason};
use rhumb_model::value::Node;
use rhumb_model::{Diag, Doc, DocId, Origin, Read, Rule, Source, yaml};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most configuration files in a directory.
pub const MAX_FILES: usize = 10_000;

/// Configuration in a file or directory, read again and again.
pub struct Files {
    path: PathBuf,
    /// Documents of the last load by the hash of file name and text.
    cache: HashMap<u64, Cached>,
}

/// What a load found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The documents, by file name and place. Those with mistakes are marked ([`Doc::broken`]).
    pub docs: Vec<Doc>,
    /// Every mistake.
    pub diags: Vec<Diag>,
    /// Everything that was read, for [`crate::Watch`].
    pub inputs: Vec<Input>,
    /// Hash of all that was read: equal when nothing changed.
    pub digest: u64,
}

/// The documents of one source, without mistakes: a source with mistakes is read anew each time.
struct Cached {
    source: Arc<Source>,
    docs: Vec<Doc>,
    referenced: Vec<(PathBuf, u64)>,
}

impl Files {
    /// Configuration at `path`: a file, or a directory with `*.yaml`, `*.yml` and `*.json`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), cache: HashMap::new() }
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads everything. A document whose text and files did not change keeps its [`rhumb_model::Spec`] allocation.
    pub fn load(&mut self) -> Loaded {
        let mut reader = Reader::default();
        let mut loaded = Loaded::default();
        let mut cache = HashMap::new();
        for path in list(&self.path, &mut reader, &mut loaded.diags) {
            for source in sources(&path, &mut reader, &mut loaded.diags) {
                let key = hash(&(&**source.name(), source.text()));
                let cached = self.cache.remove(&key).and_then(|known| known.reuse(&source, &mut reader));
                if let Some(cached) = cached {
                    loaded.docs.extend(cached.docs.iter().cloned());
                    cache.insert(key, cached);
                    continue;
                }
                let mut surroundings = surroundings(&path, &mut reader);
                let Read { docs, diags } = rhumb_model::read(&source, Some(&mut surroundings));
                let referenced = surroundings.referenced;
                loaded.docs.extend(docs.iter().cloned());
                if diags.is_empty() {
                    cache.insert(key, Cached { source, docs, referenced });
                }
                loaded.diags.extend(diags);
            }
        }
        self.cache = cache;
        drop_duplicates(&mut loaded);
        loaded.inputs = reader.into_inputs();
        let hashes: Vec<(&Path, u64)> =
            loaded.inputs.iter().map(|input| (input.path.as_path(), input.hash)).collect();
        loaded.digest = hash(&hashes);
        loaded
    }
}

impl Cached {
    /// The documents, at the place where their text is; nothing when a file they refer to changed.
    fn reuse(self, source: &Arc<Source>, reader: &mut Reader) -> Option<Self> {
        let same = |(path, hash): &(PathBuf, u64)| reader.read(path, InputKind::Referenced).1 == *hash;
        if self.source.text() != source.text() || !self.referenced.iter().all(same) {
            return None;
        }
        if self.source.first_line() == source.first_line() {
            return Some(self);
        }
        let docs = self.docs.into_iter().map(|doc| Doc { source: source.clone(), ..doc }).collect();
        Some(Self { source: source.clone(), docs, referenced: self.referenced })
    }
}

/// The documents of a file or directory as value trees, the short form adapted: what `rhumb adapt` prints.
///
/// Mistakes inside of documents are not looked for: that is [`Files::load`].
pub fn adapt(path: &Path) -> (Vec<Node>, Vec<Diag>) {
    let mut reader = Reader::default();
    let mut diags = Vec::new();
    let mut nodes = Vec::new();
    for path in list(path, &mut reader, &mut diags) {
        for source in sources(&path, &mut reader, &mut diags) {
            let mut surroundings = surroundings(&path, &mut reader);
            nodes.extend(rhumb_model::adapt(&source, Some(&mut surroundings), &mut diags));
        }
    }
    (nodes, diags)
}

fn surroundings<'a>(path: &Path, reader: &'a mut Reader) -> Surroundings<'a> {
    let directory = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
    Surroundings { reader, directory, referenced: Vec::new() }
}

/// The configuration files at a path, in order.
fn list(path: &Path, reader: &mut Reader, diags: &mut Vec<Diag>) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    reader.directory(path);
    let at = || Origin::file(&path.display().to_string());
    match configuration_files(path) {
        Ok(names) if names.is_empty() => {
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
        Ok(names) => names.into_iter().map(|name| path.join(name)).collect(),
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
    }
}

/// The names of the configuration files in a directory, sorted. Hidden ones are not read: among them are the
/// `..data` directories of mounted ConfigMaps, whose files have visible links.
pub(crate) fn configuration_files(directory: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let wanted = [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending));
        if wanted && !name.starts_with('.') && !directory.join(&name).is_dir() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The documents of a file, not parsed yet.
fn sources(path: &Path, reader: &mut Reader, diags: &mut Vec<Diag>) -> Vec<Arc<Source>> {
    let name: Arc<str> = path.display().to_string().into();
    match reader.read(path, InputKind::Configuration).0 {
        Ok(text) => yaml::split(&name, &text),
        Err(reason) => {
            let what = format!("the file cannot be read: {reason}");
            let diag = Diag::error(Rule::Unreadable, Origin::file(&name), what);
            diags.push(if reason.contains("larger") {
                diag.fix("split it into several files in one directory")
            } else {
                diag.fix("check the path and its permissions")
            });
            Vec::new()
        }
    }
}

/// Of documents with the same name the first one stays.
fn drop_duplicates(loaded: &mut Loaded) {
    let mut first: HashMap<Arc<DocId>, Origin> = HashMap::with_capacity(loaded.docs.len());
    let diags = &mut loaded.diags;
    loaded.docs.retain(|doc| {
        if doc.name().is_empty() {
            return true;
        }
        let Some(other) = first.get(&doc.id) else {
            first.insert(doc.id.clone(), doc.origin(doc.span));
            return true;
        };
        diags.push(
            Diag::error(
                Rule::DuplicateDocument,
                doc.origin(doc.span),
                format!("{} is written twice", doc.id),
            )
            .label("again here")
            .why("the first one counts")
            .fix("give one of them another name, or delete it")
            .related(other.clone(), "first here"),
        );
        false
    });
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!(loaded.docs.iter().map(Doc::name).collect::<Vec<_>>(), ["a", "b", "c"]);
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
}
