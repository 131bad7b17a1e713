//! What was done through the admin listener, and what was refused: who, what, from where, and how it ended.
//!
//! The latest entries are held; all of them go to a file, one JSON object to a line, which is begun anew at a size, the one
//! before being kept.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::role::Role;

/// Entries that are held.
const HELD: usize = 1_000;

/// The size at which the file is begun anew. **Unit**: bytes.
const MAX_FILE: u64 = 8 << 20;

/// How many entries in a row for the same refusal of the same address are written; the rest is left out until something
/// else happens: who guesses tokens must not push out what others did.
const MAX_ALIKE: u32 = 20;

/// One entry.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "AuditEntry")]
pub(crate) struct Entry {
    /// Counts up.
    pub(crate) number: u64,
    /// When. Unit: seconds since 1970.
    pub(crate) at: u64,
    /// Who; nothing when they have not shown it.
    pub(crate) who: Option<String>,
    /// What they may do.
    pub(crate) role: Option<Role>,
    /// How they have shown who they are.
    pub(crate) via: Option<String>,
    /// From where.
    pub(crate) from: String,
    /// The method.
    pub(crate) method: String,
    /// The path.
    pub(crate) path: String,
    /// The status of the answer.
    pub(crate) status: u16,
    /// `done`, `refused` or `failed`.
    pub(crate) result: String,
    /// The code of the refusal.
    pub(crate) code: Option<String>,
}

/// The log.
pub(crate) struct Audit {
    inner: Mutex<Inner>,
}

struct Inner {
    next: u64,
    held: VecDeque<Entry>,
    alike: u32,
    file: Option<(PathBuf, File, u64)>,
}

impl Audit {
    /// Goes on with the file, or holds entries only when there is none to write.
    pub(crate) fn open(path: Option<&Path>) -> Self {
        let mut held = VecDeque::new();
        let file = path.and_then(|path| {
            let lines = fs::read_to_string(path).unwrap_or_default();
            let entries = lines.lines().rev().take(HELD).filter_map(|line| serde_json::from_str(line).ok());
            for entry in entries {
                held.push_front(entry);
            }
            append(path)
                .map(|(file, size)| (path.to_owned(), file, size))
                .inspect_err(|error| tracing::warn!(%error, "no audit log at {}", path.display()))
                .ok()
        });
        let next = held.back().map_or(1, |entry: &Entry| entry.number.saturating_add(1));
        Self { inner: Mutex::new(Inner { next, held, alike: 0, file }) }
    }

    /// Writes something down. Its number is given here.
    pub(crate) fn note(&self, entry: Entry) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let is_alike = inner.held.back().is_some_and(|last| {
            last.result == "refused"
                && (&last.from, &last.who, &last.path, last.status)
                    == (&entry.from, &entry.who, &entry.path, entry.status)
        });
        inner.alike = if is_alike { inner.alike.saturating_add(1) } else { 0 };
        if inner.alike >= MAX_ALIKE {
            return;
        }
        let entry = Entry { number: inner.next, ..entry };
        inner.next = inner.next.saturating_add(1);
        if let Err(error) = inner.write(&entry) {
            tracing::warn!(%error, "the audit log cannot be written");
        }
        if inner.held.len() >= HELD {
            inner.held.pop_front();
        }
        inner.held.push_back(entry);
    }

    /// Entries with a lower number, the newest first.
    pub(crate) fn entries(&self, before: u64, most: usize) -> Vec<Entry> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.held.iter().rev().filter(|entry| entry.number < before).take(most).cloned().collect()
    }
}

impl Inner {
    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let Some((path, file, size)) = &mut self.file else { return Ok(()) };
        let line = format!("{}\n", serde_json::to_string(entry)?);
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if size.saturating_add(length) > MAX_FILE {
            let mut before = path.as_os_str().to_owned();
            before.push(".1");
            fs::rename(&*path, PathBuf::from(before))?;
            (*file, *size) = append(path)?;
        }
        file.write_all(line.as_bytes())?;
        *size += length;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, status: u16) -> Entry {
        Entry {
            number: 0,
            at: 1,
            who: Some("ci".to_owned()),
            role: Some(Role::Viewer),
            via: None,
            from: "127.0.0.1".to_owned(),
            method: "POST".to_owned(),
            path: path.to_owned(),
            status,
            result: if status < 400 { "done" } else { "refused" }.to_owned(),
            code: None,
        }
    }

    #[test]
    fn what_was_done_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = Audit::open(Some(&path));
        audit.note(entry("/a", 200));
        audit.note(entry("/b", 403));
        drop(audit);
        let audit = Audit::open(Some(&path));
        audit.note(entry("/c", 200));
        let all = audit.entries(u64::MAX, 10);
        assert_eq!(all.iter().map(|entry| entry.number).collect::<Vec<_>>(), [3, 2, 1]);
        assert_eq!(audit.entries(2, 10).len(), 1);
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn who_tries_the_same_again_and_again_does_not_fill_it() {
        let audit = Audit::open(None);
        audit.note(entry("/done", 200));
        for _ in 0..5_000 {
            audit.note(entry("/tokens", 403));
        }
        assert!(audit.entries(u64::MAX, 10_000).len() <= 30);
        audit.note(entry("/other", 403));
        assert_eq!(audit.entries(u64::MAX, 1)[0].path, "/other");
    }
}
