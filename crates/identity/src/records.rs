//! Where an authority keeps what it must remember: a directory, or a database that several control planes share.
//!
//! A directory is changed under a lock, a database record by record: who writes says which version it has read, and begins
//! again when there is another.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rhumb_database::{Database, Seal};

use crate::authority::Error;
use crate::file;

/// Tables. Statements may be repeated.
const SCHEMA: &str = "
CREATE SEQUENCE IF NOT EXISTS rhumb_records_version;
CREATE TABLE IF NOT EXISTS rhumb_records (
    name text PRIMARY KEY, version bigint NOT NULL DEFAULT nextval('rhumb_records_version'), content bytea NOT NULL);
";

/// How often the database is asked for changes when none are announced.
const LOOK: Duration = Duration::from_secs(1);

/// How often a change begins again because somebody else was faster.
pub(crate) const MAX_RACES: usize = 8;

/// Where an authority keeps what it must remember.
#[derive(Clone, Debug)]
pub enum Place {
    /// A directory that only its owner may enter. Several processes of a machine may share it.
    Directory(PathBuf),
    /// A database. Everything in it is sealed, names and all but the hashes of join tokens.
    Database(Shared),
}

/// Records in a database.
#[derive(Clone, Debug)]
pub struct Shared {
    database: Database,
    seal: Arc<Seal>,
    known: Arc<Mutex<Known>>,
}

/// What was there when it was last looked.
#[derive(Debug, Default)]
struct Known {
    changes: u64,
    at: Option<Instant>,
    versions: Vec<(String, i64)>,
}

/// A record, with its version where others may write it at the same time.
pub(crate) type Record = (Vec<u8>, Option<i64>);

/// What a record was when it was read: time, length and place of a file, or the version in a database.
pub(crate) type Stamp = Option<(SystemTime, u64, u64)>;

impl Shared {
    /// The records of a database, sealed with a key.
    ///
    /// **Errors**: [`Error::Database`].
    pub fn open(database: Database, seal: Arc<Seal>) -> Result<Self, Error> {
        database.make(SCHEMA)?;
        Ok(Self { database, seal, known: Arc::default() })
    }

    /// Whether there is nothing in a database yet: whoever comes first makes the key that it is sealed with.
    ///
    /// **Errors**: [`Error::Database`].
    pub fn is_empty(database: &Database) -> Result<bool, Error> {
        database.make(SCHEMA)?;
        let query = "SELECT NOT EXISTS (SELECT 1 FROM rhumb_records)";
        Ok(database
            .call(move |client| Box::pin(async move { Ok(client.query_one(query, &[]).await?.get(0)) }))?)
    }

    fn open_sealed(&self, name: &str, content: &[u8]) -> Result<Vec<u8>, Error> {
        self.seal.open(name, content).map_err(|_| Error::Sealed)
    }

    fn load(&self, name: &str) -> Result<Option<(Vec<u8>, i64)>, Error> {
        let asked = name.to_owned();
        let row = self.database.call(move |client| {
            Box::pin(async move {
                let row = client
                    .query_opt("SELECT content, version FROM rhumb_records WHERE name = $1", &[&asked])
                    .await?;
                Ok(row.map(|row| (row.get::<_, Vec<u8>>(0), row.get::<_, i64>(1))))
            })
        })?;
        row.map(|(content, version)| Ok((self.open_sealed(name, &content)?, version))).transpose()
    }

    /// Writes a record where it still has the version that was read; false where it has not.
    fn save(&self, name: &str, content: &[u8], version: Option<i64>) -> Result<bool, Error> {
        let sealed = self.seal.close(name, content).map_err(|_| Error::Sealed)?;
        let name = name.to_owned();
        let rows = self.database.call(move |client| {
            Box::pin(async move {
                let transaction = client.transaction().await?;
                let rows = match version {
                    Some(version) => {
                        let update = "UPDATE rhumb_records SET content = $2, \
                             version = nextval('rhumb_records_version') WHERE name = $1 AND version = $3";
                        transaction.execute(update, &[&name, &sealed, &version]).await?
                    }
                    None => {
                        let insert =
                            "INSERT INTO rhumb_records (name, content) VALUES ($1, $2) ON CONFLICT DO NOTHING";
                        transaction.execute(insert, &[&name, &sealed]).await?
                    }
                };
                transaction.execute("SELECT pg_notify('rhumb', '')", &[]).await?;
                transaction.commit().await?;
                Ok(rows)
            })
        })?;
        Ok(rows == 1)
    }

    /// Versions of records. Those of a moment ago when nothing was announced since, or the database is away.
    fn versions(&self, is_fresh: bool) -> Result<Vec<(String, i64)>, Error> {
        let changes = *self.database.changes().borrow();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let is_young = known.at.is_some_and(|at| at.elapsed() < LOOK);
            if !is_fresh && is_young && known.changes == changes {
                return Ok(known.versions.clone());
            }
        }
        let asked = self.database.call(|client| {
            Box::pin(async move {
                let query =
                    "SELECT name, version FROM rhumb_records WHERE name NOT LIKE 'tokens/%' ORDER BY name";
                let rows = client.query(query, &[]).await?;
                Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect::<Vec<(String, i64)>>())
            })
        });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match asked {
            Ok(versions) => {
                *known = Known { changes, at: Some(now()), versions };
                Ok(known.versions.clone())
            }
            // Certificates are renewed with what is known: it is good until something expires.
            Err(_) if !is_fresh && known.at.is_some() => {
                known.at = Some(now());
                Ok(known.versions.clone())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn now() -> Instant {
    Instant::now()
}

impl Place {
    /// Makes what is missing.
    pub(crate) fn make(&self) -> Result<(), Error> {
        match self {
            Self::Directory(path) => file::make_directory(path).map_err(|error| Error::io(path, error)),
            Self::Database(_) => Ok(()),
        }
    }

    /// What a record is called in messages.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Directory(path) => path.join(name),
            Self::Database(shared) => Path::new(shared.database.shown()).join(name),
        }
    }

    /// A record, with its version where others may write it at the same time.
    pub(crate) fn load(&self, name: &str, limit: u64) -> Result<Option<Record>, Error> {
        match self {
            Self::Directory(_) => {
                let path = self.path(name);
                let read = file::read(&path, limit).map_err(|error| Error::io(&path, error))?;
                Ok(read.map(|content| (content, None)))
            }
            Self::Database(shared) => {
                Ok(shared.load(name)?.map(|(content, version)| (content, Some(version))))
            }
        }
    }

    /// Writes a record of which `version` was read.
    ///
    /// **Errors**: [`Error::Raced`] where somebody else has written it since.
    pub(crate) fn save(&self, name: &str, content: &[u8], version: Option<i64>) -> Result<(), Error> {
        match self {
            Self::Directory(_) => {
                let path = self.path(name);
                file::replace(&path, content).map_err(|error| Error::io(&path, error))
            }
            Self::Database(shared) if shared.save(name, content, version)? => Ok(()),
            Self::Database(_) => Err(Error::Raced),
        }
    }

    /// Makes a record that there is not yet: true for the one who does, whoever else tries.
    pub(crate) fn create(&self, name: &str, content: &[u8]) -> Result<bool, Error> {
        match self {
            Self::Directory(_) => {
                let path = self.path(name);
                file::create(&path, content).map_err(|error| Error::io(&path, error))
            }
            Self::Database(shared) => shared.save(name, content, None),
        }
    }

    /// The names of records in a folder.
    pub(crate) fn list(&self, folder: &str) -> Result<Vec<String>, Error> {
        match self {
            Self::Directory(_) => {
                let path = self.path(folder);
                let io = |error| Error::io(&path, error);
                let mut names = Vec::new();
                for entry in fs::read_dir(&path).map_err(io)? {
                    names.push(format!("{folder}/{}", entry.map_err(io)?.file_name().to_string_lossy()));
                }
                Ok(names)
            }
            Self::Database(shared) => {
                let prefix = format!("{folder}/");
                Ok(shared.database.call(move |client| {
                    Box::pin(async move {
                        let query = "SELECT name FROM rhumb_records WHERE starts_with(name, $1)";
                        let rows = client.query(query, &[&prefix]).await?;
                        Ok(rows.iter().map(|row| row.get(0)).collect())
                    })
                })?)
            }
        }
    }

    /// Removes records, in their order.
    pub(crate) fn remove(&self, names: Vec<String>) -> Result<(), Error> {
        match self {
            Self::Directory(_) => {
                for name in names {
                    // What is gone already is gone.
                    let _ = fs::remove_file(self.path(&name));
                }
                Ok(())
            }
            Self::Database(shared) => Ok(shared.database.call(move |client| {
                Box::pin(async move {
                    client
                        .execute("DELETE FROM rhumb_records WHERE name = ANY($1)", &[&names])
                        .await
                        .map(drop)
                })
            })?),
        }
    }

    /// Keeps others from writing, where that is done by a lock.
    pub(crate) fn lock(&self) -> Result<Option<File>, Error> {
        let Self::Directory(directory) = self else { return Ok(None) };
        let path = directory.join("lock");
        let open = || -> io::Result<File> {
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        open().map(Some).map_err(|error| Error::io(&path, error))
    }

    /// What records are now, to notice when they change.
    pub(crate) fn stamps(&self, names: &[&str], is_fresh: bool) -> Result<Vec<Stamp>, Error> {
        match self {
            Self::Directory(_) => Ok(names.iter().map(|name| stamp(&self.path(name))).collect()),
            Self::Database(shared) => {
                let versions = shared.versions(is_fresh)?;
                let version = |name: &&str| {
                    let found = versions.iter().find(|(known, _)| known == name);
                    found
                        .map(|(_, version)| (SystemTime::UNIX_EPOCH, u64::try_from(*version).unwrap_or(0), 0))
                };
                Ok(names.iter().map(version).collect())
            }
        }
    }
}

/// What a file is now.
pub(crate) fn stamp(path: &Path) -> Stamp {
    let facts = fs::metadata(path).ok()?;
    // Replacing by renaming makes another inode, however soon after the last time.
    Some((facts.modified().ok()?, facts.len(), facts.ino()))
}
