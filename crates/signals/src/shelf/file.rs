//! What is kept in a file, and the thread that writes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use redb::{Database, Durability, ReadableDatabase};

use super::{Kind, ShelfError, Write};

/// What waits to be written at most: more than a disk that works ever leaves. Unit: bytes.
const AHEAD: usize = 8 << 20;

/// A file. When this is dropped, all that was to be written is.
pub(super) struct FilePlace {
    database: Arc<Database>,
    path: PathBuf,
    ahead: Arc<Mutex<Ahead>>,
    /// Says that there is something to write, and whether it is to be durable; none when the thread is to end.
    news: Option<Sender<bool>>,
    thread: Option<JoinHandle<()>>,
}

/// What the file does not have yet.
#[derive(Default)]
struct Ahead {
    entries: BTreeMap<(Kind, u64), Change>,
    bytes: usize,
    /// The number of the latest change.
    latest: u64,
    /// Why changes were lost, until somebody is told.
    trouble: Option<String>,
}

#[derive(Clone)]
struct Change {
    number: u64,
    /// None: there is none any more.
    value: Option<Arc<[u8]>>,
}

impl Change {
    fn len(&self) -> usize {
        self.value.as_ref().map_or(0, |value| value.len())
    }
}

impl Ahead {
    fn put(&mut self, write: Write) {
        let (entry, value) = match write {
            Write::Put(kind, key, value) => ((kind, key), Some(value.into())),
            Write::Remove(kind, key) => ((kind, key), None),
        };
        self.latest += 1;
        let change = Change { number: self.latest, value };
        self.bytes += change.len();
        if let Some(before) = self.entries.insert(entry, change) {
            self.bytes -= before.len();
        }
    }

    /// Forgets what was written; what has changed since stays.
    fn written(&mut self, last: u64) {
        let bytes = &mut self.bytes;
        self.entries.retain(|_, change| {
            let is_left = change.number > last;
            *bytes -= if is_left { 0 } else { change.len() };
            is_left
        });
    }
}

impl FilePlace {
    /// A file with the thread that writes it.
    pub(super) fn start(database: Database, path: &Path) -> Result<Self, ShelfError> {
        let (news, is_durable) = channel();
        let (database, ahead) = (Arc::new(database), Arc::<Mutex<Ahead>>::default());
        let (of_thread, written) = (Arc::clone(&database), Arc::clone(&ahead));
        let thread = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || run(&of_thread, &written, &is_durable))
            .map_err(|error| ShelfError::new(path, error))?;
        Ok(Self { database, path: path.to_owned(), ahead, news: Some(news), thread: Some(thread) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells when no more changes are taken.
    pub(super) fn has_room(&self) -> Result<(), ShelfError> {
        let is_full = lock(&self.ahead).bytes > AHEAD;
        if is_full { Err(ShelfError::new(&self.path, "the disk does not keep up")) } else { Ok(()) }
    }

    /// Tells once that changes were lost.
    pub(super) fn trouble(&self) -> Result<(), ShelfError> {
        lock(&self.ahead).trouble.take().map_or(Ok(()), |why| Err(ShelfError::new(&self.path, why)))
    }

    /// Makes changes: they are there to be read at once, and in the file soon.
    pub(super) fn write(&self, writes: Vec<Write>, durable: bool) -> Result<(), ShelfError> {
        let mut ahead = lock(&self.ahead);
        writes.into_iter().for_each(|write| ahead.put(write));
        drop(ahead);
        let is_heard = self.news.as_ref().is_some_and(|news| news.send(durable).is_ok());
        if is_heard { Ok(()) } else { Err(ShelfError::new(&self.path, "nobody writes it any more")) }
    }

    /// Calls `visit` with the entries of a kind between two keys, in order.
    pub(super) fn range(&self, kind: Kind, from: u64, to: u64, mut visit: impl FnMut(u64, &[u8])) {
        // In this order: what is written meanwhile is met twice and not missed.
        let ahead: Vec<(u64, Option<Arc<[u8]>>)> = {
            let ahead = lock(&self.ahead);
            let between = ahead.entries.range((kind, from)..=(kind, to));
            between.map(|(&(_, key), change)| (key, change.value.clone())).collect()
        };
        let mut ahead = ahead.into_iter().peekable();
        let result = (|| -> Result<(), redb::Error> {
            let read = self.database.begin_read()?;
            for entry in read.open_table(kind.table())?.range(from..=to)? {
                let (key, value) = entry?;
                let key = key.value();
                while let Some((before, value)) = ahead.next_if(|(other, _)| *other < key) {
                    value.iter().for_each(|value| visit(before, value));
                }
                match ahead.next_if(|(other, _)| *other == key) {
                    Some((_, other)) => other.iter().for_each(|value| visit(key, value)),
                    None => visit(key, value.value()),
                }
            }
            Ok(())
        })();
        if let Err(error) = result {
            tracing::warn!(file = %self.path.display(), %error, "what was kept cannot be read");
        }
        for (key, value) in ahead {
            value.iter().for_each(|value| visit(key, value));
        }
    }
}

impl Drop for FilePlace {
    fn drop(&mut self) {
        drop(self.news.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

/// Brings changes into the file until nobody makes any.
fn run(database: &Database, ahead: &Mutex<Ahead>, news: &Receiver<bool>) {
    while let Ok(durable) = news.recv() {
        // What has come while the disk was busy goes with it.
        let durable = news.try_iter().fold(durable, |durable, other| durable || other);
        let (changes, last) = {
            let ahead = lock(ahead);
            (ahead.entries.clone(), ahead.latest)
        };
        let result = commit(database, &changes, durable);
        let mut ahead = lock(ahead);
        ahead.written(last);
        if let Err(error) = result {
            ahead.trouble = Some(error.to_string());
        }
    }
}

fn commit(
    database: &Database,
    changes: &BTreeMap<(Kind, u64), Change>,
    durable: bool,
) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(if durable { Durability::Immediate } else { Durability::None })?;
    for kind in Kind::ALL {
        let mut of_kind = changes.range((kind, 0)..=(kind, u64::MAX)).peekable();
        if of_kind.peek().is_none() {
            continue;
        }
        let mut table = transaction.open_table(kind.table())?;
        for (&(_, key), change) in of_kind {
            match &change.value {
                Some(value) => drop(table.insert(key, &**value)?),
                None => drop(table.remove(key)?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn lock(ahead: &Mutex<Ahead>) -> MutexGuard<'_, Ahead> {
    ahead.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;
    use std::sync::Condvar;
    use std::time::{Duration, Instant};

    /// A disk that can be made to hang, or to be broken.
    #[derive(Debug, Default)]
    struct Disk {
        state: Mutex<State>,
        changed: Condvar,
    }

    #[derive(Debug, Default)]
    struct State {
        is_hanging: bool,
        is_broken: bool,
        waiting: usize,
    }

    impl Disk {
        fn set(&self, change: impl FnOnce(&mut State)) {
            change(&mut self.state.lock().unwrap());
            self.changed.notify_all();
        }

        fn until(&self, what: &str, is_so: impl Fn(&State) -> bool) {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !is_so(&self.state.lock().unwrap()) {
                assert!(Instant::now() < deadline, "{what}");
                std::thread::sleep(Duration::from_millis(2));
            }
        }

        fn wait(&self) -> std::io::Result<()> {
            let mut state = self.state.lock().unwrap();
            state.waiting += 1;
            while state.is_hanging {
                state = self.changed.wait(state).unwrap();
            }
            state.waiting -= 1;
            if state.is_broken { Err(std::io::Error::other("broken")) } else { Ok(()) }
        }
    }

    #[derive(Debug)]
    struct On(Arc<Disk>, InMemoryBackend);

    impl StorageBackend for On {
        fn len(&self) -> std::io::Result<u64> {
            self.1.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
            self.1.read(offset, out)
        }

        fn set_len(&self, len: u64) -> std::io::Result<()> {
            self.1.set_len(len)
        }

        fn sync_data(&self) -> std::io::Result<()> {
            self.0.wait()?;
            self.1.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            self.0.wait()?;
            self.1.write(offset, data)
        }
    }

    fn place() -> (Arc<Disk>, FilePlace) {
        let disk = Arc::<Disk>::default();
        let backend = On(Arc::clone(&disk), InMemoryBackend::new());
        let database = Database::builder().create_with_backend(backend).unwrap();
        let write = database.begin_write().unwrap();
        for kind in Kind::ALL {
            write.open_table(kind.table()).unwrap();
        }
        write.commit().unwrap();
        (disk, FilePlace::start(database, Path::new("signals.redb")).unwrap())
    }

    fn put(key: u64, text: &str) -> Write {
        Write::Put(Kind::Tens, key, text.into())
    }

    fn all(place: &FilePlace) -> Vec<(u64, String)> {
        let mut all = Vec::new();
        place.range(Kind::Tens, 0, 9, |key, value| {
            all.push((key, String::from_utf8(value.to_vec()).unwrap()))
        });
        all
    }

    fn entries(list: &[(u64, &str)]) -> Vec<(u64, String)> {
        list.iter().map(|(key, text)| (*key, (*text).to_owned())).collect()
    }

    fn settled(place: &FilePlace) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !lock(&place.ahead).entries.is_empty() {
            assert!(Instant::now() < deadline, "it is written");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn who_asks_and_who_tells_waits_for_no_disk() {
        let (disk, place) = place();
        place.write(vec![put(1, "one"), put(3, "three"), put(5, "five"), put(6, "six")], true).unwrap();
        settled(&place);
        disk.set(|state| state.is_hanging = true);
        place.write(vec![put(2, "two"), put(3, "THREE"), Write::Remove(Kind::Tens, 5)], true).unwrap();
        disk.until("the disk hangs", |state| state.waiting > 0);
        place.write(vec![put(7, "seven"), put(2, "TWO")], false).unwrap();
        let now = entries(&[(1, "one"), (2, "TWO"), (3, "THREE"), (6, "six"), (7, "seven")]);
        assert_eq!(all(&place), now);
        disk.set(|state| state.is_hanging = false);
        settled(&place);
        assert_eq!(all(&place), now);
        assert_eq!(lock(&place.ahead).bytes, 0);
    }

    #[test]
    fn what_waits_for_a_disk_is_bounded_and_what_it_does_not_take_is_told() {
        let (disk, place) = place();
        disk.set(|state| state.is_hanging = true);
        place.write(vec![Write::Put(Kind::Tens, 1, vec![0; AHEAD + 1])], true).unwrap();
        let refused = place.has_room().unwrap_err().to_string();
        assert_eq!(refused, "signals.redb: the disk does not keep up");
        disk.set(|state| (state.is_hanging, state.is_broken) = (false, true));
        settled(&place);
        assert!(place.has_room().is_ok(), "what comes next is taken");
        let lost = place.trouble().unwrap_err().to_string();
        assert!(lost.contains("broken"), "{lost}");
        assert!(place.trouble().is_ok(), "it is told once");
    }
}
