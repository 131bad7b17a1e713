//! Reads files: each once per load, within budgets, and remembers what was read.

use rhumb_model::expand::Lookup;
use rhumb_model::yaml::MAX_FILE_BYTES;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The largest file that `file:` may name. Unit: bytes.
pub const MAX_REFERENCED_BYTES: usize = 1 << 20;

/// What one load may read and insert in all. Unit: bytes.
pub const MAX_TOTAL_BYTES: usize = 256 << 20;

/// Something that a load depended on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Input {
    /// Where it is.
    pub path: Arc<Path>,
    /// What it is.
    pub kind: InputKind,
    /// How it looked just before it was read.
    pub stamp: Stamp,
    /// Hash of its content; 0 for what could not be read.
    pub hash: u64,
}

/// What an input is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InputKind {
    /// A directory of configuration files; its content is the list of their names.
    Directory,
    /// A configuration file.
    Configuration,
    /// A file named by `file:`.
    Referenced,
}

/// How a file or directory looks from outside: enough to see that it was changed or replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    modified: Option<SystemTime>,
    size: u64,
    inode: u64,
    names: u64,
}

impl Stamp {
    /// The stamp of a path; that of nothing when it does not exist or cannot be looked at.
    pub fn of(path: &Path, kind: InputKind) -> Self {
        let Ok(metadata) = fs::metadata(path) else { return Self::default() };
        if kind == InputKind::Directory {
            // Its own times change with files that are none of ours, such as logs.
            return Self::of_names(&crate::files::configuration_files(path).unwrap_or_default());
        }
        Self { modified: metadata.modified().ok(), size: metadata.len(), inode: inode(&metadata), names: 0 }
    }

    fn of_names(names: &[impl AsRef<str>]) -> Self {
        let mut hasher = DefaultHasher::new();
        names.iter().for_each(|name| name.as_ref().hash(&mut hasher));
        Self { names: hasher.finish(), ..Self::default() }
    }
}

/// How a file looked when it was read, and the hash of what it said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    stamp: Stamp,
    hash: u64,
}

/// A file whose stamp is older than this when it is read cannot change without a new stamp: clocks of file systems are
/// coarse, and two writes within one of their ticks look the same.
const SETTLED: Duration = Duration::from_secs(1);

#[cfg(unix)]
fn inode(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> u64 {
    0
}

pub(crate) fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The content of a file, or why there is none, for people.
pub(crate) type Content = Result<Arc<str>, String>;

/// Reads files for one load.
#[derive(Default)]
pub(crate) struct Reader {
    read: HashMap<PathBuf, (Content, u64)>,
    inputs: Vec<Input>,
    bytes: usize,
}

impl Reader {
    /// The content of a file that `file:` names, and its hash; read once per load.
    pub(crate) fn referenced(&mut self, path: &Path) -> (Content, u64) {
        if let Some(known) = self.read.get(path) {
            return known.clone();
        }
        let kind = InputKind::Referenced;
        let stamp = Stamp::of(path, kind);
        let content = self.read_text(path, MAX_REFERENCED_BYTES);
        let hash = content.as_ref().map_or(0, |text| hash(&**text));
        self.inputs.push(Input { path: path.into(), kind, stamp, hash });
        self.read.insert(path.to_owned(), (content.clone(), hash));
        (content, hash)
    }

    /// Reads a configuration file, unless it looks as it did when this was read, or is `trusted` to do so. What comes back
    /// beside its content says so the next time.
    pub(crate) fn configuration(
        &mut self,
        path: &Arc<Path>,
        known: Option<(&Arc<str>, Seen)>,
        trusted: bool,
    ) -> (Content, Option<Seen>) {
        let kind = InputKind::Configuration;
        let stamp = match known {
            Some((_, seen)) if trusted => seen.stamp,
            _ => Stamp::of(path, kind),
        };
        let (content, hash) = match known {
            Some((text, seen)) if seen.stamp == stamp && self.spend(text.len()).is_ok() => {
                (Ok(Arc::clone(text)), seen.hash)
            }
            _ => {
                let content = self.read_text(path, MAX_FILE_BYTES);
                let hash = content.as_ref().map_or(0, |text| hash(&**text));
                (content, hash)
            }
        };
        self.inputs.push(Input { path: Arc::clone(path), kind, stamp, hash });
        if trusted && known.is_some() {
            return (content, known.map(|(_, seen)| seen));
        }
        let age = stamp.modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
        let is_settled = content.is_ok() && age.is_some_and(|age| age > SETTLED);
        (content, is_settled.then_some(Seen { stamp, hash }))
    }

    /// True when files have the content that they had.
    pub(crate) fn has_again(&mut self, referenced: &Referenced) -> bool {
        referenced.iter().all(|(path, hash)| self.referenced(path).1 == *hash)
    }

    /// Notes a directory whose files have these names.
    pub(crate) fn directory(&mut self, path: &Path, names: &[impl AsRef<str>]) {
        let stamp = Stamp::of_names(names);
        let kind = InputKind::Directory;
        self.inputs.push(Input { path: path.into(), kind, stamp, hash: stamp.names });
    }

    /// What was read.
    pub(crate) fn into_inputs(self) -> Vec<Input> {
        self.inputs
    }

    fn read_text(&mut self, path: &Path, limit: usize) -> Content {
        let file = fs::File::open(path).map_err(|error| reason(&error))?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err("it is a directory".to_owned());
        }
        let mut bytes = Vec::new();
        // One byte more than allowed shows that there is more; sizes of special files are not to be believed.
        file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|error| reason(&error))?;
        if bytes.len() > limit {
            return Err(format!("it is larger than {} MiB", limit >> 20));
        }
        self.spend(bytes.len())?;
        String::from_utf8(bytes).map(Arc::from).map_err(|error| {
            format!("it is not UTF-8 text (byte {} is wrong)", error.utf8_error().valid_up_to())
        })
    }

    fn spend(&mut self, bytes: usize) -> Result<(), String> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_TOTAL_BYTES {
            return Err(format!("all files together are larger than {} MiB", MAX_TOTAL_BYTES >> 20));
        }
        Ok(())
    }
}

/// The words of the system for an error, without its number.
pub(crate) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Files that something asked for, each with the hash of what it got.
pub(crate) type Referenced = Vec<(PathBuf, u64)>;

/// Variables of the process and files beside a configuration file.
pub(crate) struct Surroundings<'a> {
    pub(crate) reader: &'a mut Reader,
    /// The directory of the configuration file.
    pub(crate) directory: PathBuf,
    /// What the document asked for.
    pub(crate) referenced: Referenced,
}

impl Surroundings<'_> {
    /// What was asked for since this was called last.
    pub(crate) fn take_referenced(&mut self) -> Referenced {
        std::mem::take(&mut self.referenced)
    }
}

impl Lookup for Surroundings<'_> {
    fn variable(&mut self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&mut self, path: &str) -> Result<String, String> {
        if path.is_empty() {
            return Err("the path is empty".to_owned());
        }
        let path = self.directory.join(path);
        let (content, hash) = self.reader.referenced(&path);
        self.referenced.push((path, hash));
        let content = content?;
        self.reader.spend(content.len())?;
        Ok(content.to_string())
    }
}
