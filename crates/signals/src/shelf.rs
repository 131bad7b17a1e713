//! Where what is kept lies: in memory, or in a file (redb). Either is bounded; what is oldest is taken off first.
//!
//! Nobody who asks or tells waits for a disk: what is to be written is there to be read at once, and a thread brings it into the file.

mod file;

use std::collections::BTreeMap;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use file::FilePlace;

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Signals of ten seconds, by when these began.
    Tens,
    /// Signals of a minute.
    Minutes,
    /// Usage of an hour.
    Hours,
    /// Usage of a day.
    Days,
    /// Events, by number.
    Events,
    /// Names of series, by number.
    Names,
    /// What was found out about APIs.
    Apis,
}

/// What goes first when there is no room: names and APIs stay.
const FIRST_TO_GO: [Kind; 5] = [Kind::Tens, Kind::Minutes, Kind::Events, Kind::Hours, Kind::Days];

impl Kind {
    const ALL: [Self; 7] =
        [Self::Tens, Self::Minutes, Self::Hours, Self::Days, Self::Events, Self::Names, Self::Apis];

    const fn table(self) -> TableDefinition<'static, u64, &'static [u8]> {
        TableDefinition::new(match self {
            Self::Tens => "tens",
            Self::Minutes => "minutes",
            Self::Hours => "hours",
            Self::Days => "days",
            Self::Events => "events",
            Self::Names => "names",
            Self::Apis => "apis",
        })
    }
}

/// What the file says its form is.
const FORM: TableDefinition<'static, &'static str, u64> = TableDefinition::new("form");

/// The form that is written here. A file of another one is set aside.
const FORM_NUMBER: u64 = 1;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}")]
pub struct ShelfError {
    path: String,
    why: String,
}

impl ShelfError {
    fn new(path: &Path, why: impl std::fmt::Display) -> Self {
        Self { path: path.display().to_string(), why: why.to_string() }
    }
}

/// A change.
pub(crate) enum Write {
    Put(Kind, u64, Vec<u8>),
    Remove(Kind, u64),
}

/// Everything that is kept.
pub(crate) struct Shelf {
    place: Place,
    /// Bytes of each entry.
    sizes: BTreeMap<(Kind, u64), usize>,
    bytes: usize,
    limit: usize,
}

enum Place {
    Memory(BTreeMap<(Kind, u64), Vec<u8>>),
    File(FilePlace),
}

impl Shelf {
    /// In memory.
    pub(crate) fn in_memory(limit: usize) -> Self {
        Self { place: Place::Memory(BTreeMap::new()), sizes: BTreeMap::new(), bytes: 0, limit }
    }

    /// In a file, which is made when there is none. `limit` is that of the file, which takes about twice of what is in it.
    pub(crate) fn in_file(path: &Path, limit: usize) -> Result<Self, ShelfError> {
        Self::in_database(open(path)?, path, limit)
    }

    fn in_database(database: Database, path: &Path, limit: usize) -> Result<Self, ShelfError> {
        let mut sizes = BTreeMap::new();
        let read = database.begin_read().map_err(|error| ShelfError::new(path, error))?;
        for kind in Kind::ALL {
            let table = read.open_table(kind.table()).map_err(|error| ShelfError::new(path, error))?;
            for entry in table.iter().map_err(|error| ShelfError::new(path, error))? {
                let (key, value) = entry.map_err(|error| ShelfError::new(path, error))?;
                sizes.insert((kind, key.value()), value.value().len() + OVERHEAD);
            }
        }
        drop(read);
        let bytes = sizes.values().sum();
        let place = Place::File(FilePlace::start(database, path)?);
        Ok(Self { place, sizes, bytes, limit: limit / FILE_SHARE })
    }

    /// What it takes. Unit: bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where it is, for people.
    pub(crate) fn place(&self) -> String {
        match &self.place {
            Place::Memory(_) => "memory".to_owned(),
            Place::File(file) => file.path().display().to_string(),
        }
    }

    /// Makes changes, all or none, and then as many more as it takes to stay within the limit. Returns how many entries
    /// were taken off for that. `durable`: it survives a loss of power as soon as it is in the file, and when this is dropped.
    ///
    /// # Errors
    /// When so much waits to be brought into the file that these changes are not taken, or when earlier ones could not be brought there:
    /// those are lost.
    pub(crate) fn apply(&mut self, mut writes: Vec<Write>, durable: bool) -> Result<usize, ShelfError> {
        if let Place::File(file) = &self.place {
            file.has_room()?;
        }
        let mut taken_off = 0;
        for write in &writes {
            let (entry, size) = match write {
                Write::Put(kind, key, value) => ((*kind, *key), Some(value.len() + OVERHEAD)),
                Write::Remove(kind, key) => ((*kind, *key), None),
            };
            let before = match size {
                Some(size) => self.sizes.insert(entry, size),
                None => self.sizes.remove(&entry),
            };
            self.bytes = self.bytes - before.unwrap_or(0) + size.unwrap_or(0);
        }
        for kind in FIRST_TO_GO {
            while self.bytes > self.limit {
                let Some((&(_, key), &size)) = self.sizes.range((kind, 0)..=(kind, u64::MAX)).next() else {
                    break;
                };
                self.sizes.remove(&(kind, key));
                self.bytes -= size;
                taken_off += 1;
                writes.push(Write::Remove(kind, key));
            }
        }
        match &mut self.place {
            Place::Memory(entries) => {
                for write in writes {
                    match write {
                        Write::Put(kind, key, value) => drop(entries.insert((kind, key), value)),
                        Write::Remove(kind, key) => drop(entries.remove(&(kind, key))),
                    }
                }
            }
            Place::File(file) => {
                file.write(writes, durable)?;
                file.trouble()?;
            }
        }
        Ok(taken_off)
    }

    /// Calls `visit` with the entries of a kind between two keys, in order.
    pub(crate) fn range(&self, kind: Kind, from: u64, to: u64, mut visit: impl FnMut(u64, &[u8])) {
        if from > to {
            return;
        }
        match &self.place {
            Place::Memory(entries) => {
                for ((_, key), value) in entries.range((kind, from)..=(kind, to)) {
                    visit(*key, value);
                }
            }
            Place::File(file) => file.range(kind, from, to, visit),
        }
    }

    /// One entry.
    pub(crate) fn one(&self, kind: Kind, key: u64) -> Option<Vec<u8>> {
        let mut found = None;
        self.range(kind, key, key, |_, value| found = Some(value.to_vec()));
        found
    }

    /// True when there is such an entry.
    pub(crate) fn has(&self, kind: Kind, key: u64) -> bool {
        self.sizes.contains_key(&(kind, key))
    }

    /// The first and the last key of a kind.
    pub(crate) fn ends(&self, kind: Kind) -> Option<(u64, u64)> {
        let mut keys = self.sizes.range((kind, 0)..=(kind, u64::MAX)).map(|((_, key), _)| *key);
        let first = keys.next()?;
        Some((first, keys.next_back().unwrap_or(first)))
    }

    /// Keys of a kind below one.
    pub(crate) fn below(&self, kind: Kind, key: u64) -> Vec<u64> {
        self.sizes.range((kind, 0)..(kind, key)).map(|((_, key), _)| *key).collect()
    }
}

fn open(path: &Path) -> Result<Database, ShelfError> {
    let fail = |error: &dyn std::fmt::Display| ShelfError::new(path, error);
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).map_err(|error| fail(&error))?;
    }
    let made = |path: &Path| -> Result<Option<Database>, redb::Error> {
        let database = Database::builder().set_cache_size(CACHE).create(path)?;
        let write = database.begin_write()?;
        let form = {
            let mut table = write.open_table(FORM)?;
            let form = table.get("form")?.map(|form| form.value());
            if form.is_none() {
                table.insert("form", FORM_NUMBER)?;
            }
            form
        };
        for kind in Kind::ALL {
            write.open_table(kind.table())?;
        }
        write.commit()?;
        Ok(form.is_none_or(|form| form == FORM_NUMBER).then_some(database))
    };
    match made(path) {
        Ok(Some(database)) => Ok(database),
        // Another process has it, or it may not be opened: it is none of ours to move.
        Err(error @ redb::Error::DatabaseAlreadyOpen) => Err(fail(&error)),
        Err(redb::Error::Io(error)) if error.kind() != std::io::ErrorKind::InvalidData => Err(fail(&error)),
        other => {
            let why = other.err().map_or_else(|| "it has another form".to_owned(), |error| error.to_string());
            let aside = path.with_extension("redb.old");
            tracing::warn!(file = %path.display(), why, aside = %aside.display(), "what was kept is set aside");
            std::fs::rename(path, &aside).map_err(|error| fail(&error))?;
            made(path).map_err(|error| fail(&error))?.ok_or_else(|| fail(&"it has another form"))
        }
    }
}

/// What an entry takes beside its bytes, roughly.
const OVERHEAD: usize = 48;

/// A file takes up to so many times what is in it, as pages are copied when they are written.
const FILE_SHARE: usize = 2;

/// What the file may hold of itself in memory. Unit: bytes.
const CACHE: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(shelf: &Shelf, kind: Kind) -> Vec<u64> {
        let mut keys = Vec::new();
        shelf.range(kind, 0, u64::MAX, |key, _| keys.push(key));
        keys
    }

    #[test]
    fn either_place_keeps_the_latest_within_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/signals.redb");
        for mut shelf in [Shelf::in_memory(10_000), Shelf::in_file(&path, 20_000).unwrap()] {
            for key in 0..100u64 {
                shelf.apply(vec![Write::Put(Kind::Tens, key, vec![7; 400])], false).unwrap();
                shelf.apply(vec![Write::Put(Kind::Names, key % 3, vec![1])], key % 10 == 0).unwrap();
            }
            let left = keys(&shelf, Kind::Tens);
            assert!(shelf.bytes() <= 10_000 && left.len() > 15, "{} {}", shelf.bytes(), left.len());
            assert_eq!(left.last(), Some(&99));
            assert_eq!(keys(&shelf, Kind::Names), [0, 1, 2]);
            assert_eq!(shelf.one(Kind::Tens, 99), Some(vec![7; 400]));
            assert_eq!(shelf.ends(Kind::Tens), Some((left[0], 99)));
        }
        let again = Shelf::in_file(&path, 20_000).unwrap();
        assert_eq!(again.ends(Kind::Tens).map(|ends| ends.1), Some(99));
    }

    #[test]
    fn a_file_that_is_none_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signals.redb");
        std::fs::write(&path, vec![9; 5000]).unwrap();
        let shelf = Shelf::in_file(&path, 1 << 20).unwrap();
        assert_eq!(shelf.ends(Kind::Tens), None);
        assert!(directory.path().join("signals.redb.old").exists());
    }
}
