//! Revisions of documents, and where they are kept: in a file of this machine, or in a database that several control planes
//! share.
//!
//! A revision is one transaction: documents as they are, each document's earlier states, and who changed what and when.
//! What is in force is what was written last; everything is written before anybody is told of it.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::document::Key;

mod disk;
mod postgres;

pub use disk::Disk;
pub use postgres::{Answers, Changed, Move, Postgres, Question, Since, Turn, Turned, Written};

/// Revisions that are kept; older ones can neither be looked at nor gone back to.
pub const MAX_REVISIONS: u64 = 10_000;

/// The largest document. Unit: bytes.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;

/// The most documents.
pub const MAX_DOCUMENTS: usize = 100_000;

/// Documents and their history.
#[derive(Debug)]
pub enum Store {
    /// Of this process alone.
    Disk(Disk),
    /// Of several control planes.
    Postgres(Arc<Postgres>),
}

/// What a store has when it is opened.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The revision in force; 0 before the first.
    pub revision: u64,
    /// The documents, with the revision that brought each.
    pub documents: Vec<(Bytes, u64)>,
    /// Numbers of virtual addresses.
    pub virtuals: Vec<(String, u16)>,
}

/// Who made a revision, when, and what it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Its number.
    pub number: u64,
    /// Who made it.
    pub author: String,
    /// When. Unit: milliseconds since 1970.
    pub at_ms: u64,
    /// Why, in words of who made it; may be empty.
    pub message: String,
    /// What it changed.
    pub changes: Vec<(Key, Action)>,
}

/// What happened to a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It came.
    Added,
    /// It says something else.
    Changed,
    /// It went.
    Removed,
}

impl Action {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Added, Self::Changed, Self::Removed].into_iter().find(|action| action.as_str() == word)
    }
}

/// A document in two revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which document.
    pub key: Key,
    /// What it said in the first.
    pub before: Option<Bytes>,
    /// What it says in the second.
    pub after: Option<Bytes>,
}

/// Why the store did not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error("the store: {0}")]
    Database(#[source] Box<redb::Error>),
    /// The database of several control planes, or what is in it.
    #[error("the store: {0}")]
    Shared(#[source] rhumb_database::Error),
    /// What is in the database was written with another key.
    #[error(
        "the store was sealed with another key: copy the file of --seal-key-file from another control plane"
    )]
    Sealed,
    /// What is in the database is of another version.
    #[error("the store is of form {0}, which this version does not know")]
    Form(i32),
    /// The directory.
    #[error("the directory of the store: {0}")]
    Directory(#[source] std::io::Error),
    /// Another process has it open.
    #[error("another process has the store open")]
    Taken,
    /// The revision is not there, or not any more.
    #[error("there is no revision {0}: the oldest that is kept is {1}, the latest is {2}")]
    NoRevision(u64, u64, u64),
    /// Somebody else was faster.
    #[error("revision {actual} is in force, not {expected}")]
    Conflict {
        /// What was expected.
        expected: u64,
        /// What there is.
        actual: u64,
    },
    /// Too many documents.
    #[error("there may be {MAX_DOCUMENTS} documents")]
    TooMany,
}

impl<E: Into<redb::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

impl Store {
    /// Everything that is in force.
    ///
    /// # Errors
    /// [`Error`].
    pub fn load(&self) -> Result<Loaded, Error> {
        match self {
            Self::Disk(disk) => disk.load(),
            Self::Postgres(postgres) => postgres.load(),
        }
    }

    /// Makes a revision. Documents that already say the same are left out; when nothing is left there is no new revision
    /// and nothing is written. With `expected`, only when that revision is in force.
    ///
    /// # Errors
    /// [`Error`]; nothing has changed then, but for [`Error::Shared`], of which that is not known.
    pub fn commit(
        &self,
        author: &str,
        message: &str,
        at_ms: u64,
        changes: &[(Key, Option<Bytes>)],
        expected: Option<u64>,
    ) -> Result<Option<Revision>, Error> {
        match self {
            Self::Disk(disk) => disk.commit(author, message, at_ms, changes, expected),
            Self::Postgres(postgres) => postgres.commit(author, message, at_ms, changes, expected),
        }
    }

    /// Remembers virtual addresses. Those of a shared store are given out with the revision that brings the service.
    ///
    /// # Errors
    /// [`Error`].
    pub fn assign(&self, assigned: &[(Arc<str>, u16)]) -> Result<(), Error> {
        match self {
            Self::Disk(disk) => disk.assign(assigned),
            Self::Postgres(_) => Ok(()),
        }
    }

    /// The latest revisions before one, latest first.
    ///
    /// # Errors
    /// [`Error`].
    pub fn history(&self, before: u64, most: usize) -> Result<Vec<Revision>, Error> {
        match self {
            Self::Disk(disk) => disk.history(before, most),
            Self::Postgres(postgres) => postgres.history(before, most),
        }
    }

    /// What differs between two revisions.
    ///
    /// # Errors
    /// [`Error`].
    pub fn difference(&self, from: u64, to: u64) -> Result<Vec<Difference>, Error> {
        match self {
            Self::Disk(disk) => disk.difference(from, to),
            Self::Postgres(postgres) => postgres.difference(from, to),
        }
    }
}

/// Whether a revision can be looked at, of those that are kept. Before the first revision there was nothing, as long as that
/// one is still known.
fn is_known(number: u64, first: u64, last: u64) -> bool {
    (first..=last).contains(&number) || (number + 1 == first && first == 1) || number == last
}

impl Revision {
    /// As it is shown and written.
    pub fn to_json(&self) -> Value {
        let changes: Vec<Value> = self
            .changes
            .iter()
            .map(|(key, action)| json!({ "document": key.to_string(), "action": action.as_str() }))
            .collect();
        json!({
            "revision": self.number,
            "author": self.author,
            "atMs": self.at_ms,
            "message": self.message,
            "changes": changes,
        })
    }

    pub(super) fn from_json(number: u64, bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let changes = value["changes"].as_array().into_iter().flatten();
        let change = |change: &Value| {
            Some((Key::parse(change["document"].as_str()?)?, Action::parse(change["action"].as_str()?)?))
        };
        Some(Self {
            number,
            author: text("author"),
            at_ms: value["atMs"].as_u64().unwrap_or_default(),
            message: text("message"),
            changes: changes.filter_map(change).collect(),
        })
    }
}
