//! The store of one control plane: a file of this machine, in redb.

use std::fs::{self, DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Action, Difference, Error, Loaded, MAX_DOCUMENTS, MAX_REVISIONS, Revision, is_known};
use crate::document::Key;

/// Documents as they are: the revision that brought them, and the JSON.
const DOCUMENTS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("documents");

/// By document and revision: what it said since then; empty when it was gone.
const STATES: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("states");

/// Who made a revision, when, and which documents it changed, as JSON.
const REVISIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("revisions");

/// Numbers of virtual addresses by service.
const VIRTUALS: TableDefinition<'_, &str, u16> = TableDefinition::new("virtuals");

/// Memory for pages of the database. Unit: bytes.
const CACHE: usize = 8 << 20;

/// Documents and their history, in a file.
#[derive(Debug)]
pub struct Disk {
    database: Database,
    keeps: u64,
}

impl Disk {
    /// Opens the store in a directory, which is made when it is not there.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(directory: &Path) -> Result<Self, Error> {
        Self::open_keeping(directory, MAX_REVISIONS)
    }

    fn open_keeping(directory: &Path, keeps: u64) -> Result<Self, Error> {
        let path = directory.join("documents.redb");
        prepare(directory, &path).map_err(Error::Directory)?;
        let database = match Database::builder().set_cache_size(CACHE).create(&path) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => return Err(Error::Taken),
            opened => opened?,
        };
        let transaction = database.begin_write()?;
        transaction.open_table(DOCUMENTS)?;
        transaction.open_table(STATES)?;
        transaction.open_table(REVISIONS)?;
        transaction.open_table(VIRTUALS)?;
        transaction.commit()?;
        Ok(Self { database, keeps })
    }

    /// Everything that is in force.
    ///
    /// # Errors
    /// [`Error`].
    pub fn load(&self) -> Result<Loaded, Error> {
        let transaction = self.database.begin_read()?;
        let mut loaded =
            Loaded { revision: latest(&transaction.open_table(REVISIONS)?)?, ..Loaded::default() };
        for entry in transaction.open_table(DOCUMENTS)?.iter()? {
            let (_, document) = entry?;
            let (revision, json) = document.value();
            loaded.documents.push((Bytes::copy_from_slice(json), revision));
        }
        for entry in transaction.open_table(VIRTUALS)?.iter()? {
            let (service, number) = entry?;
            loaded.virtuals.push((service.value().to_owned(), number.value()));
        }
        Ok(loaded)
    }

    /// Makes a revision. Documents that already say the same are left out; when nothing is left there is no new revision
    /// and nothing is written. With `expected`, only when that revision is in force.
    ///
    /// # Errors
    /// [`Error`]; nothing has changed then.
    pub fn commit(
        &self,
        author: &str,
        message: &str,
        at_ms: u64,
        changes: &[(Key, Option<Bytes>)],
        expected: Option<u64>,
    ) -> Result<Option<Revision>, Error> {
        let transaction = self.database.begin_write()?;
        let revision = {
            let mut revisions = transaction.open_table(REVISIONS)?;
            let mut documents = transaction.open_table(DOCUMENTS)?;
            let mut states = transaction.open_table(STATES)?;
            let actual = latest(&revisions)?;
            if let Some(expected) = expected.filter(|expected| *expected != actual) {
                return Err(Error::Conflict { expected, actual });
            }
            let number = actual + 1;
            let mut done = Vec::new();
            for (key, json) in changes {
                let name = key.to_string();
                let before = documents.get(&*name)?.map(|before| Bytes::copy_from_slice(before.value().1));
                let action = match (&before, json) {
                    (None, Some(_)) => Action::Added,
                    (Some(before), Some(after)) if before != after => Action::Changed,
                    (Some(_), None) => Action::Removed,
                    _ => continue,
                };
                match json {
                    Some(json) => documents.insert(&*name, (number, &**json))?.map(drop),
                    None => documents.remove(&*name)?.map(drop),
                };
                states.insert((&*name, number), json.as_deref().unwrap_or_default())?;
                done.push((key.clone(), action));
            }
            if usize::try_from(redb::ReadableTableMetadata::len(&documents)?).unwrap_or(usize::MAX)
                > MAX_DOCUMENTS
            {
                return Err(Error::TooMany);
            }
            let revision = Revision {
                number,
                author: author.to_owned(),
                at_ms,
                message: message.to_owned(),
                changes: done,
            };
            if revision.changes.is_empty() {
                None
            } else {
                revisions.insert(number, &*revision.to_json().to_string().into_bytes())?;
                Some(revision)
            }
        };
        match revision {
            Some(revision) => {
                self.prune(&transaction, revision.number)?;
                transaction.commit()?;
                Ok(Some(revision))
            }
            None => {
                transaction.abort()?;
                Ok(None)
            }
        }
    }

    /// Remembers virtual addresses.
    ///
    /// # Errors
    /// [`Error`].
    pub fn assign(&self, assigned: &[(Arc<str>, u16)]) -> Result<(), Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut virtuals = transaction.open_table(VIRTUALS)?;
            for (service, number) in assigned {
                virtuals.insert(&**service, number)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// The latest revisions before one, latest first.
    ///
    /// # Errors
    /// [`Error`].
    pub fn history(&self, before: u64, most: usize) -> Result<Vec<Revision>, Error> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(REVISIONS)?;
        let mut revisions = Vec::new();
        for entry in table.range(..before)?.rev().take(most) {
            let (number, bytes) = entry?;
            revisions.extend(Revision::from_json(number.value(), bytes.value()));
        }
        Ok(revisions)
    }

    /// What differs between two revisions.
    ///
    /// # Errors
    /// [`Error`].
    pub fn difference(&self, from: u64, to: u64) -> Result<Vec<Difference>, Error> {
        let transaction = self.database.begin_read()?;
        let revisions = transaction.open_table(REVISIONS)?;
        let (first, last) = (oldest(&revisions)?, latest(&revisions)?);
        for number in [from, to] {
            if !is_known(number, first, last) {
                return Err(Error::NoRevision(number, first, last));
            }
        }
        let mut keys = std::collections::BTreeSet::new();
        for entry in revisions.range(from.min(to) + 1..=from.max(to))? {
            let (number, bytes) = entry?;
            let revision = Revision::from_json(number.value(), bytes.value());
            keys.extend(revision.into_iter().flat_map(|revision| revision.changes).map(|(key, _)| key));
        }
        let states = transaction.open_table(STATES)?;
        let mut differences = Vec::new();
        for key in keys {
            let (before, after) = (state(&states, &key, from)?, state(&states, &key, to)?);
            if before != after {
                differences.push(Difference { key, before, after });
            }
        }
        Ok(differences)
    }

    /// Drops revisions that are too old, and states of documents that only those had.
    fn prune(&self, transaction: &redb::WriteTransaction, latest: u64) -> Result<(), Error> {
        let floor = latest.saturating_sub(self.keeps);
        let mut revisions = transaction.open_table(REVISIONS)?;
        let mut states = transaction.open_table(STATES)?;
        let mut dropped = Vec::new();
        for entry in revisions.range(..=floor)? {
            let (number, bytes) = entry?;
            dropped.push((number.value(), Revision::from_json(number.value(), bytes.value())));
        }
        for (number, revision) in dropped {
            for (key, _) in revision.into_iter().flat_map(|revision| revision.changes) {
                // The state that the oldest kept revision has stays; those before it go.
                let name = key.to_string();
                let mut olds = Vec::new();
                for entry in states.range((&*name, 0)..=(&*name, floor))? {
                    olds.push(entry?.0.value().1);
                }
                let is_gone_since = |states: &redb::Table<'_, (&str, u64), &[u8]>, at: u64| {
                    Ok::<bool, Error>(states.get((&*name, at))?.is_some_and(|state| state.value().is_empty()))
                };
                let Some(last) = olds.pop() else { continue };
                if is_gone_since(&states, last)? {
                    olds.push(last);
                }
                for old in olds {
                    states.remove((&*name, old))?;
                }
            }
            revisions.remove(number)?;
        }
        Ok(())
    }
}

/// Makes directory and file. Documents have secrets in them: they are this user's from the beginning.
fn prepare(directory: &Path, file: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file)?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))
}

fn latest(revisions: &impl ReadableTable<u64, &'static [u8]>) -> Result<u64, Error> {
    Ok(revisions.last()?.map_or(0, |(number, _)| number.value()))
}

fn oldest(revisions: &impl ReadableTable<u64, &'static [u8]>) -> Result<u64, Error> {
    Ok(revisions.first()?.map_or(0, |(number, _)| number.value()))
}

/// What a document said in a revision.
fn state(
    states: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    key: &Key,
    revision: u64,
) -> Result<Option<Bytes>, Error> {
    let name = key.to_string();
    let found = states.range((&*name, 0)..=(&*name, revision))?.next_back().transpose()?;
    Ok(found.map(|(_, json)| Bytes::copy_from_slice(json.value())).filter(|json| !json.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("Backend", "default", name)
    }

    fn put(store: &Disk, name: &str, content: &str) -> Option<Revision> {
        let content = (!content.is_empty()).then(|| Bytes::copy_from_slice(content.as_bytes()));
        store.commit("me", "", 1, &[(key(name), content)], None).unwrap()
    }

    #[test]
    fn revisions_survive_the_process_and_are_for_this_user_only() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("state");
        let store = Disk::open(&directory).unwrap();
        assert!(matches!(Disk::open(&directory), Err(Error::Taken)));
        assert_eq!(store.load().unwrap().revision, 0);
        put(&store, "a", "1").unwrap();
        put(&store, "b", "1").unwrap();
        assert_eq!(put(&store, "b", "1"), None, "it says so already");
        store.assign(&[("x/y".into(), 7)]).unwrap();
        drop(store);
        let loaded = Disk::open(&directory).unwrap().load().unwrap();
        assert_eq!((loaded.revision, loaded.documents.len()), (2, 2));
        assert_eq!(loaded.virtuals, [("x/y".to_owned(), 7)]);
        let mode = fs::metadata(directory.join("documents.redb")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_conflict_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Disk::open(directory.path()).unwrap();
        put(&store, "a", "1");
        let changes = [(key("a"), Some(Bytes::from_static(b"2")))];
        let refused = store.commit("me", "", 1, &changes, Some(0)).unwrap_err();
        assert!(matches!(refused, Error::Conflict { expected: 0, actual: 1 }));
        assert_eq!(store.commit("me", "", 1, &changes, Some(1)).unwrap().unwrap().number, 2);
    }

    #[test]
    fn differences_tell_what_was_and_what_is() {
        let directory = tempfile::tempdir().unwrap();
        let store = Disk::open(directory.path()).unwrap();
        put(&store, "a", "1");
        put(&store, "a", "2");
        put(&store, "b", "1");
        put(&store, "a", "");
        let shown = |from, to| -> Vec<(String, Option<Bytes>, Option<Bytes>)> {
            let differences = store.difference(from, to).unwrap();
            differences.into_iter().map(|d| (d.key.name.to_string(), d.before, d.after)).collect()
        };
        let text = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        assert_eq!(shown(1, 3), [("a".to_owned(), text("1"), text("2")), ("b".to_owned(), None, text("1"))]);
        assert_eq!(shown(4, 2), [("a".to_owned(), None, text("2")), ("b".to_owned(), text("1"), None)]);
        assert_eq!(shown(0, 4), [("b".to_owned(), None, text("1"))]);
        assert!(matches!(store.difference(1, 9), Err(Error::NoRevision(9, 1, 4))));
        let history = store.history(u64::MAX, 2).unwrap();
        let numbers: Vec<u64> = history.iter().map(|revision| revision.number).collect();
        assert_eq!(numbers, [4, 3]);
        assert_eq!(history[0].changes, [(key("a"), Action::Removed)]);
    }

    #[test]
    fn history_is_bounded_and_what_is_kept_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let store = Disk::open_keeping(directory.path(), 10).unwrap();
        put(&store, "still", "here");
        put(&store, "gone", "1");
        put(&store, "gone", "");
        for number in 0..50 {
            put(&store, "a", &format!("{number}"));
        }
        let history = store.history(u64::MAX, 1_000).unwrap();
        assert_eq!((history.len(), history[0].number, history[9].number), (10, 53, 44));
        let differences = store.difference(44, 53).unwrap();
        assert_eq!(differences.len(), 1);
        assert_eq!(differences[0].before, Some(Bytes::from_static(b"40")));
        assert!(matches!(store.difference(43, 53), Err(Error::NoRevision(43, 44, 53))));
        let transaction = store.database.begin_read().unwrap();
        let states = transaction.open_table(STATES).unwrap();
        assert_eq!(state(&states, &key("still"), 50).unwrap(), Some(Bytes::from_static(b"here")));
        assert_eq!(states.iter().unwrap().count(), 12, "eleven of a, one of still, none of gone");
    }
}
