//! A directory of this machine as the store: counts that survive the process, in redb.
//!
//! A grant is written to the database, and to the disk, before it is handed out: whatever happens, no more than the limit is
//! ever used. What of a grant was really used is written by its holder to a file beside it ([`Journal`]), without waiting
//! for the disk: that survives the end of the process, however it comes, but not the end of the machine. So after a kill
//! nothing is lost, and after a power failure what was granted counts as used.
//!
//! The database is open only while there is something to do, so that a process and its successor take turns.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redb::{Database, DatabaseError, Error, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::client::Health;
use crate::{Ask, Away, Grant, Rule, Store};

/// Until when a count is of use (seconds since 1970), then pairs of part and count.
const COUNTS: TableDefinition<'_, &str, Vec<u64>> = TableDefinition::new("counts");

/// By run and key: place in the journal, part, and how many permits were granted in it.
const LEASES: TableDefinition<'_, (u64, &str), (u64, u64, u64)> = TableDefinition::new("leases");

/// Processes that may have leases, and the boot of the machine that they ran in.
const RUNS: TableDefinition<'_, u64, &str> = TableDefinition::new("runs");

/// Memory for pages of the database, in bytes.
const CACHE: usize = 4 << 20;

/// Keys with a place in the journal at a time.
const ROWS_MAX: usize = 1 << 20;

/// How often counts that are of no use any more are removed.
const TIDY: Duration = Duration::from_secs(24 * 3600);

/// How long to wait before another process is asked for its turn again.
const TURN: Duration = Duration::from_millis(10);

/// Where the holder of a lease writes how much of it was used.
#[derive(Clone, Debug)]
pub struct Journal {
    file: Arc<File>,
    at: u64,
}

impl Journal {
    /// Writes that so many permits were used, of all that were granted in this part of time. Does not wait for the disk.
    ///
    /// # Errors
    /// When it cannot be written: then nothing more may be used.
    pub fn write(&self, used: u64) -> std::io::Result<()> {
        self.file.write_all_at(&used.to_le_bytes(), self.at)
    }

    /// True when both are the same place.
    pub fn is(&self, other: &Self) -> bool {
        self.at == other.at && Arc::ptr_eq(&self.file, &other.file)
    }
}

/// A directory with counts.
pub struct Disk {
    directory: PathBuf,
    /// How long another process is waited for.
    timeout: Duration,
    health: Arc<Health>,
    database: Option<Database>,
    run: Option<Run>,
    /// Others that were alive when they were last looked at.
    has_others: bool,
    tidied: Option<Instant>,
    was_told: bool,
}

/// This process.
struct Run {
    id: u64,
    journal: Arc<File>,
    rows: HashMap<String, Row>,
    free: Vec<u64>,
    next: u64,
}

#[derive(Clone, Copy)]
struct Row {
    slot: u64,
    part: u64,
    granted: u64,
}

/// What a transaction changed in memory.
#[derive(Default)]
struct Changes {
    /// What rows were before.
    before: Vec<(String, Option<Row>)>,
    /// Places that are free once it is through.
    freed: Vec<u64>,
}

impl Disk {
    /// A directory that is made when it is needed. `timeout` bounds how long another process is waited for.
    pub fn new(directory: PathBuf, timeout: Duration, health: Arc<Health>) -> Self {
        Self {
            directory,
            timeout,
            health,
            database: None,
            run: None,
            has_others: false,
            tidied: None,
            was_told: false,
        }
    }

    fn open(&mut self) -> Result<(), Error> {
        if self.database.is_some() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let (path, begun) = (self.directory.join("counts.redb"), Instant::now());
        let database = loop {
            match Database::builder().set_cache_size(CACHE).create(&path) {
                Err(DatabaseError::DatabaseAlreadyOpen) if begun.elapsed() < self.timeout => {
                    std::thread::sleep(TURN);
                }
                opened => break opened?,
            }
        };
        let boot = boot();
        let id = match &self.run {
            Some(run) => run.id,
            None => {
                let id = RandomState::new().hash_one(std::process::id());
                let journal =
                    OpenOptions::new().read(true).write(true).create_new(true).open(self.journal(id))?;
                journal.lock()?;
                let (rows, free) = (HashMap::new(), Vec::new());
                self.run = Some(Run { id, journal: Arc::new(journal), rows, free, next: 0 });
                let transaction = database.begin_write()?;
                transaction.open_table(RUNS)?.insert(id, boot.as_str())?;
                transaction.commit()?;
                id
            }
        };
        self.has_others = recover(&database, &self.directory, id, &boot)?;
        if self.tidied.is_none_or(|at| at.elapsed() > TIDY) {
            self.tidied = Some(Instant::now());
            let now = unix_seconds();
            let transaction = database.begin_write()?;
            transaction
                .open_table(COUNTS)?
                .retain(|_, counts| counts.first().is_some_and(|keep| *keep > now))?;
            transaction.commit()?;
        }
        self.database = Some(database);
        Ok(())
    }

    fn journal(&self, id: u64) -> PathBuf {
        journal(&self.directory, id)
    }

    fn grant(&mut self, asks: &[Ask]) -> Result<Vec<Option<Grant>>, Error> {
        self.open()?;
        let (Some(database), Some(run)) = (&self.database, &mut self.run) else {
            return Err(Error::Corrupted("nothing is open".into()));
        };
        let mut changes = Changes::default();
        let granted = run.grant_all(database, asks, &mut changes);
        match granted {
            Ok(_) => run.free.append(&mut changes.freed),
            // As far as is known nothing was written: what was not handed out must not be taken back later.
            Err(_) => {
                for (key, before) in changes.before.into_iter().rev() {
                    match before {
                        Some(row) => run.rows.insert(key, row),
                        None => run.rows.remove(&key),
                    };
                }
            }
        }
        granted
    }

    /// Tells of a failure once, until something succeeds.
    fn told<T>(&mut self, result: Result<T, Error>) -> Result<T, Away> {
        self.health.count(result.is_ok());
        match result {
            Ok(done) => {
                self.was_told = false;
                Ok(done)
            }
            Err(error) => {
                self.database = None;
                if !std::mem::replace(&mut self.was_told, true) {
                    tracing::error!(store = self.name(), %error, "counts cannot be kept");
                }
                Err(Away)
            }
        }
    }
}

impl Run {
    fn grant_all(
        &mut self,
        database: &Database,
        asks: &[Ask],
        changes: &mut Changes,
    ) -> Result<Vec<Option<Grant>>, Error> {
        let transaction = database.begin_write()?;
        let mut grants = Vec::with_capacity(asks.len());
        {
            let mut counts = transaction.open_table(COUNTS)?;
            let mut leases = transaction.open_table(LEASES)?;
            for ask in asks {
                grants.push(self.grant(ask, &mut counts, &mut leases, changes)?);
            }
        }
        transaction.commit()?;
        Ok(grants)
    }

    fn grant(
        &mut self,
        ask: &Ask,
        counts: &mut Table<'_, &str, Vec<u64>>,
        leases: &mut Table<'_, (u64, &str), (u64, u64, u64)>,
        changes: &mut Changes,
    ) -> Result<Option<Grant>, Error> {
        let Rule::Counted { part, parts, limit, keep, fraction } = ask.rule else { return Ok(None) };
        let key = ask.key.as_str();
        let mut known = Counts::read(counts.get(key)?.map(|known| known.value()));
        known.give_back(ask.back_part, ask.back);
        known.parts.retain(|(at, _)| at.saturating_add(parts) > part);
        known.add(part, ask.debt);
        let used = known.parts.iter().fold(0, |sum: u64, (_, count)| sum.saturating_add(*count));
        let room = limit.saturating_sub(used);
        let row = self.rows.get(key).copied();
        let has_place = row.is_some() || self.rows.len() < ROWS_MAX;
        let wanted = if has_place { ask.want } else { 0 };
        let permits = wanted.min(room).min((room / fraction.max(1)).max(1));
        known.add(part, permits);
        known.keep = known.keep.max(unix_seconds().saturating_add(keep));
        counts.insert(key, known.write())?;
        let mut journal = None;
        if ask.is_last {
            leases.remove((self.id, key))?;
            if let Some(row) = self.rows.remove(key) {
                changes.before.push((ask.key.clone(), Some(row)));
                changes.freed.push(row.slot);
            }
        } else if has_place {
            let slot = match row {
                Some(row) => row.slot,
                None => self.free.pop().unwrap_or_else(|| {
                    self.next += 1;
                    self.next - 1
                }),
            };
            // A part of time begins at nothing: the holder does the same.
            let before = row.filter(|row| row.part == part).map_or(0, |row| row.granted);
            let back = if ask.back_part == part { ask.back } else { 0 };
            let granted = (before + ask.debt).saturating_sub(back) + permits;
            if row.is_none_or(|row| row.part != part) {
                self.journal.write_all_at(&0u64.to_le_bytes(), slot * 8)?;
            }
            leases.insert((self.id, key), (slot, part, granted))?;
            let before = self.rows.insert(ask.key.clone(), Row { slot, part, granted });
            changes.before.push((ask.key.clone(), before));
            journal = Some(Journal { file: Arc::clone(&self.journal), at: slot * 8 });
        }
        Ok(Some(Grant { permits, first: 0, room: room - permits, journal }))
    }
}

impl Store for Disk {
    fn answer(&mut self, asks: Vec<Ask>) {
        let granted = self.grant(&asks);
        match self.told(granted) {
            Ok(grants) => asks.into_iter().zip(grants).for_each(|(ask, grant)| (ask.done)(grant.ok_or(Away))),
            Err(Away) => asks.into_iter().for_each(|ask| (ask.done)(Err(Away))),
        }
    }

    fn look(&mut self) -> Result<u32, Away> {
        let looked = match (&self.database, &self.run) {
            (Some(database), Some(run)) if self.has_others => {
                recover(database, &self.directory, run.id, &boot())
                    .map(|has_others| self.has_others = has_others)
            }
            (None, Some(_)) if self.health.is_away() => self.open(),
            _ => return if self.health.is_away() { Err(Away) } else { Ok(1) },
        };
        self.told(looked).map(|()| 1)
    }

    fn rest(&mut self) {
        self.database = None;
    }

    fn name(&self) -> String {
        format!("file:{}", self.directory.display())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is left of it is for the next process: nobody else knows how much was used.
        self.database = None;
    }
}

/// Takes back what processes that have ended did not use. True when some of the others are alive.
fn recover(database: &Database, directory: &Path, mine: u64, boot: &str) -> Result<bool, Error> {
    let mut has_others = false;
    let mut ended = Vec::new();
    let transaction = database.begin_write()?;
    {
        let mut runs = transaction.open_table(RUNS)?;
        let mut others = Vec::new();
        for run in runs.iter()? {
            let (id, its_boot) = run?;
            if id.value() != mine {
                others.push((id.value(), its_boot.value() == boot && !boot.is_empty()));
            }
        }
        for (id, is_same_boot) in others {
            let path = journal(directory, id);
            let file = File::open(&path).ok();
            match file.as_ref().map(File::try_lock) {
                Some(Err(TryLockError::WouldBlock)) => {
                    has_others = true;
                    continue;
                }
                Some(Err(TryLockError::Error(error))) => return Err(error.into()),
                Some(Ok(())) | None => {}
            }
            // Of another boot the end of the journal may be missing: what was granted was used.
            let file = file.filter(|_| is_same_boot);
            settle(&transaction, id, file.as_ref())?;
            runs.remove(id)?;
            ended.push(path);
        }
    }
    transaction.commit()?;
    for path in ended {
        let _ = std::fs::remove_file(path);
    }
    Ok(has_others)
}

/// Ends the leases of a run: what its journal does not say was used is taken back.
fn settle(transaction: &WriteTransaction, id: u64, journal: Option<&File>) -> Result<(), Error> {
    let mut counts = transaction.open_table(COUNTS)?;
    let mut leases = transaction.open_table(LEASES)?;
    let mut ended = Vec::new();
    for lease in leases.range((id, "")..)? {
        let (key, lease) = lease?;
        let (owner, key) = key.value();
        if owner != id {
            break;
        }
        ended.push((key.to_owned(), lease.value()));
    }
    for (key, (slot, part, granted)) in ended {
        leases.remove((id, key.as_str()))?;
        let Some(journal) = journal else { continue };
        let mut used = [0; 8];
        // What was never written was not used.
        let used = journal.read_exact_at(&mut used, slot * 8).map_or(0, |()| u64::from_le_bytes(used));
        let mut known = Counts::read(counts.get(key.as_str())?.map(|known| known.value()));
        known.give_back(part, granted.saturating_sub(used));
        known.add(part, used.saturating_sub(granted));
        counts.insert(key.as_str(), known.write())?;
    }
    Ok(())
}

/// What is counted for one key.
struct Counts {
    keep: u64,
    parts: Vec<(u64, u64)>,
}

impl Counts {
    fn read(numbers: Option<Vec<u64>>) -> Self {
        let numbers = numbers.unwrap_or_default();
        let (keep, rest) = numbers.split_first().map_or((0, &[][..]), |(keep, rest)| (*keep, rest));
        let parts = rest.as_chunks::<2>().0.iter().map(|[part, count]| (*part, *count)).collect();
        Self { keep, parts }
    }

    fn write(&self) -> Vec<u64> {
        std::iter::once(self.keep)
            .chain(self.parts.iter().flat_map(|(part, count)| [*part, *count]))
            .collect()
    }

    fn add(&mut self, part: u64, more: u64) {
        match self.parts.iter_mut().find(|(at, _)| *at == part) {
            Some((_, count)) => *count = count.saturating_add(more),
            None if more > 0 => self.parts.push((part, more)),
            None => {}
        }
    }

    fn give_back(&mut self, part: u64, less: u64) {
        if let Some((_, count)) = self.parts.iter_mut().find(|(at, _)| *at == part) {
            *count = count.saturating_sub(less);
        }
    }
}

fn journal(directory: &Path, id: u64) -> PathBuf {
    directory.join(format!("used-{id:016x}"))
}

/// Names the boot of the machine; nothing where that is not known.
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn ask(disk: &mut Disk, part: u64, limit: u64, want: u64, back: u64) -> Option<Grant> {
        let (told, answer) = channel();
        disk.answer(vec![Ask {
            key: "k".into(),
            rule: Rule::Counted { part, parts: 1, limit, keep: 3600, fraction: 1 },
            want,
            back,
            back_part: part,
            debt: 0,
            is_last: false,
            done: Box::new(move |answer| told.send(answer).unwrap()),
        }]);
        answer.recv().unwrap().ok()
    }

    fn disk(directory: &Path) -> Disk {
        Disk::new(directory.to_owned(), Duration::from_millis(200), Arc::default())
    }

    #[test]
    fn what_was_not_used_is_there_again_after_the_process_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = disk(directory.path());
        let grant = ask(&mut first, 7, 100, 60, 0).unwrap();
        assert_eq!((grant.permits, grant.room), (60, 40));
        grant.journal.unwrap().write(25).unwrap();
        let more = ask(&mut first, 7, 100, 10, 0).unwrap();
        assert_eq!((more.permits, more.room), (10, 30));
        // Who holds the journal is alive.
        drop(more);
        first.rest();
        // While it lives, what it holds is its own.
        let mut second = disk(directory.path());
        assert_eq!(ask(&mut second, 7, 100, 100, 0).unwrap().permits, 30);
        second.rest();
        drop(first);
        // 25 were used; the second one said nothing, so it used none.
        drop(second);
        let mut third = disk(directory.path());
        assert_eq!(ask(&mut third, 7, 100, 100, 0).unwrap().permits, 75);
        assert_eq!(ask(&mut third, 7, 100, 1, 0).unwrap().permits, 0);
        assert_eq!(ask(&mut third, 8, 100, 1, 0).unwrap().permits, 1);
        assert!(std::fs::read_dir(directory.path()).unwrap().count() == 2);
    }

    #[test]
    fn after_another_boot_what_was_granted_counts_as_used() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = disk(directory.path());
        ask(&mut first, 7, 100, 60, 0).unwrap().journal.unwrap().write(1).unwrap();
        {
            let transaction = first.database.as_ref().unwrap().begin_write().unwrap();
            let id = first.run.as_ref().unwrap().id;
            transaction.open_table(RUNS).unwrap().insert(id, "another boot").unwrap();
            transaction.commit().unwrap();
        }
        drop(first);
        assert_eq!(ask(&mut disk(directory.path()), 7, 100, 100, 0).unwrap().permits, 40);
    }

    #[test]
    fn another_process_is_waited_for_and_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = disk(directory.path());
        assert!(ask(&mut first, 7, 100, 1, 0).is_some());
        let mut second = disk(directory.path());
        assert!(ask(&mut second, 7, 100, 1, 0).is_none());
        first.rest();
        assert!(ask(&mut second, 7, 100, 1, 0).is_some());
    }

    #[test]
    fn rolling_parts_end_one_by_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut disk = disk(directory.path());
        let mut ask = |part, want| {
            let (told, answer) = channel();
            disk.answer(vec![Ask {
                key: "k".into(),
                rule: Rule::Counted { part, parts: 3, limit: 10, keep: 3600, fraction: 1 },
                want,
                back: 0,
                back_part: part,
                debt: 0,
                is_last: false,
                done: Box::new(move |answer| told.send(answer).unwrap()),
            }]);
            answer.recv().unwrap().unwrap().permits
        };
        assert_eq!([ask(1, 4), ask(2, 4), ask(3, 4)], [4, 4, 2]);
        assert_eq!([ask(4, 9), ask(5, 9), ask(6, 9)], [4, 4, 2]);
    }
}
