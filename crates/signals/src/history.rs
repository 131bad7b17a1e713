//! The history of a process: what its board counted, by time.
//!
//! Every two seconds the board is looked at ([`History::look`]); what has come since is a frame. Frames of the last minute
//! are kept as they are, those of the last hours by ten seconds, those of the last day by minute.

mod spans;
mod told;
mod edges;
mod names;
#[cfg(test)]
mod traffic;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rhumb_telemetry::Board;
use rhumb_telemetry::signals::{Dimension, Name, Totals};

use crate::answer::Event;
use crate::apis::Finder;
use crate::frame::Frame;
use crate::shelf::{Kind, Shelf, ShelfError, Write};
use crate::usage::Book;
use fleet::Fleet;
use names::Names;
use outbox::Outbox;
use spans::Gathered;

pub mod fleet;
pub mod outbox;

/// How often the board is looked at.
pub const LOOK: Duration = Duration::from_secs(2);

/// How long ten-second frames are kept. Unit: seconds.
const TENS_KEPT: u64 = 2 * 3600;

/// How long minutes are kept. Unit: seconds.
const MINUTES_KEPT: u64 = 24 * 3600;

/// How long hours of usage are kept. Unit: seconds.
const HOURS_KEPT: u64 = 8 * DAY;

/// Half of [`LOOK`]. Unit: milliseconds.
const HALF_A_LOOK_MS: u64 = 1000;

const MINUTE: u64 = 60;
const LOOKS_A_MINUTE: u64 = MINUTE / LOOK.as_secs();
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// What is known of APIs is written every so many looks.
const APIS_EVERY: u64 = 150;

/// Events that are kept at most.
const EVENTS: usize = 10_000;

/// What a history takes in memory at most, unless configured otherwise. Unit: bytes.
pub const MEMORY: usize = 8 << 20;

/// What a file of it takes at most, unless configured otherwise. Unit: bytes.
pub const FILE: usize = 64 << 20;

/// What is kept at least where nothing more is asked for: the last minute, and events. Unit: bytes.
pub const LITTLE: usize = 256 << 10;

/// What a process counted, and what happened in it.
pub struct History {
    board: Arc<Board>,
    finder: Finder,
    inner: Mutex<Inner>,
}

struct Inner {
    shelf: Shelf,
    /// How many looks there were.
    looks: u64,
    names: Names,
    last: HashMap<(Dimension, Name), Totals>,
    /// The latest looks: when each ended, and how long it was in milliseconds.
    live: VecDeque<(u64, u64, Vec<u8>)>,
    live_bytes: usize,
    looked_at: Option<u64>,
    ten: Gathered,
    minute: Gathered,
    hour: (u64, Book),
    is_hour_new: bool,
    next_event: u64,
    waiting: Vec<Write>,
    /// Entries that were given up for want of room.
    taken_off: u64,
    outbox: Outbox,
    /// What others count, where that is put together here.
    fleet: Option<Fleet>,
}

impl History {
    /// A history in memory, of at most so many bytes.
    pub fn in_memory(board: Arc<Board>, limit: usize) -> Self {
        Self::new(board, Shelf::in_memory(limit), Finder::default())
    }

    /// A history in a file of at most so many bytes, which goes on where an earlier process has ended.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn in_file(board: Arc<Board>, path: &Path, limit: usize) -> Result<Self, ShelfError> {
        Ok(Self::new(board, Shelf::in_file(path, limit)?, Finder::default()))
    }

    fn new(board: Arc<Board>, shelf: Shelf, finder: Finder) -> Self {
        let names = Names::load(&shelf);
        let next_event = shelf.ends(Kind::Events).map_or(0, |(_, last)| last + 1);
        let inner = Inner {
            shelf,
            looks: 0,
            names,
            last: HashMap::new(),
            live: VecDeque::new(),
            live_bytes: 0,
            looked_at: None,
            ten: Gathered::default(),
            minute: Gathered::default(),
            hour: (0, Book::default()),
            is_hour_new: false,
            next_event,
            waiting: Vec::new(),
            taken_off: 0,
            outbox: Outbox::default(),
            fleet: None,
        };
        let history = Self { board, finder, inner: Mutex::new(inner) };
        history.know_apis();
        history
    }

    /// Which APIs there are.
    pub fn finder(&self) -> &Finder {
        &self.finder
    }

    /// Goes on with what was known of APIs.
    fn know_apis(&self) {
        let kept = self.lock().shelf.one(Kind::Apis, 0);
        if let Some(kept) = kept {
            self.finder.load(&kept);
        }
    }

    /// Where it is kept, for people.
    pub fn place(&self) -> String {
        self.lock().shelf.place()
    }

    /// Goes on in a file, where that was not to be had before: an earlier process had it. What was kept in memory
    /// meanwhile is given up, but usage and events.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn move_to(&self, path: &Path, limit: usize) -> Result<(), ShelfError> {
        let shelf = Shelf::in_file(path, limit)?;
        let mut inner = self.lock();
        let inner = &mut *inner;
        let mut events = Vec::new();
        inner.shelf.range(Kind::Events, 0, u64::MAX, |_, bytes| events.push(bytes.to_vec()));
        inner.names = Names::load(&shelf);
        inner.next_event = shelf.ends(Kind::Events).map_or(0, |(_, last)| last + 1);
        inner.shelf = shelf;
        inner.waiting.clear();
        for bytes in events {
            inner.waiting.push(Write::Put(Kind::Events, inner.next_event, bytes));
            inner.next_event += 1;
        }
        inner.live.clear();
        inner.live_bytes = 0;
        inner.ten.frame.clear();
        inner.minute.frame.clear();
        if let Some(bytes) = inner.shelf.one(Kind::Hours, inner.hour.0) {
            inner.hour.1.join(&Book::read(&bytes));
        }
        let kept = inner.shelf.one(Kind::Apis, 0);
        if let Some(kept) = kept {
            self.finder.load(&kept);
        }
        Ok(())
    }

    /// Lets go of the file; what is asked from here on finds nothing in it.
    pub fn close(&self) {
        self.lock().shelf = Shelf::in_memory(LITTLE);
    }

    /// What is kept, without what a file takes on top. Unit: bytes.
    pub fn bytes(&self) -> usize {
        self.lock().shelf.bytes()
    }

    /// Entries that were given up for want of room.
    pub fn taken_off(&self) -> u64 {
        self.lock().taken_off
    }

    /// Takes over what has been counted since the last look. `now_ms`: since 1970. `is_last`: the process ends.
    ///
    /// # Errors
    /// When the file cannot be written; what was to be written then is lost.
    pub fn look(&self, now_ms: u64, is_last: bool) -> Result<(), ShelfError> {
        let mut inner = self.lock();
        let looks = inner.looks;
        inner.looks += 1;
        let gone = if looks.is_multiple_of(LOOKS_A_MINUTE) {
            self.board.retire(looks / LOOKS_A_MINUTE, Duration::from_secs(MINUTE))
        } else {
            Vec::new()
        };
        let all = self.board.totals();
        let inner = &mut *inner;
        // What has come, came half a look ago.
        let now = now_ms.saturating_sub(HALF_A_LOOK_MS) / 1000;
        inner.turn(now);
        let mut frame = Frame::new();
        for series in gone.iter().chain(&all) {
            let last = inner.last.entry((series.dimension, series.name.clone())).or_default();
            let new = series.totals.since(last);
            if new.is_nothing() {
                continue;
            }
            *last = series.totals.clone();
            match series.dimension {
                Dimension::Usage => {
                    inner.hour.1.add(&series.name, &new);
                    inner.is_hour_new = true;
                    inner.outbox.add_usage(&series.name, &new);
                }
                dimension => {
                    let number = inner.names.number(dimension, &series.name, now, &mut inner.waiting);
                    frame.entry(number).or_default().add(&new);
                }
            }
        }
        for series in gone {
            inner.last.remove(&(series.dimension, series.name));
        }
        inner.keep_look(now_ms, &frame);
        for (number, totals) in frame {
            inner.ten.frame.entry(number).or_default().add(&totals);
        }
        self.keep_apis(inner, is_last);
        inner.write(now, is_last)
    }

    /// Has what is known of APIs written once in a while.
    fn keep_apis(&self, inner: &mut Inner, is_last: bool) {
        if (is_last || inner.looks.is_multiple_of(APIS_EVERY))
            && let Some(apis) = self.finder.keep()
        {
            inner.waiting.push(Write::Put(Kind::Apis, 0, apis));
        }
    }

    /// Notes that something happened.
    pub fn tell(&self, event: &Event) {
        let mut inner = self.lock();
        inner.outbox.add_event(event);
        let number = inner.next_event;
        inner.next_event += 1;
        let Ok(bytes) = serde_json::to_vec(event) else { return };
        inner.waiting.push(Write::Put(Kind::Events, number, bytes));
        if let Some(old) = usize::try_from(number).ok().and_then(|number| number.checked_sub(EVENTS)) {
            inner.waiting.push(Write::Remove(Kind::Events, old as u64));
        }
        let writes = std::mem::take(&mut inner.waiting);
        inner.apply(writes, false).unwrap_or_else(|error| tracing::warn!(%error, "an event is lost"));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("place", &self.place()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::By;
    use crate::history::traffic::{START, Traffic};

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let mut traffic = Traffic::new();
        let history = History::in_memory(Arc::clone(&traffic.board), LITTLE);
        for look in 0..900u64 {
            for number in 0..100u64 {
                traffic.send(&format!("default/r{}", (look / 5 * 7 + number) % 300), "", 200, number);
            }
            history.look((START + 2 * look) * 1000, false).unwrap();
        }
        assert!(history.bytes() <= LITTLE, "{}", history.bytes());
        assert!(history.taken_off() > 0);
        let series = history.series(By::Route, None, START + 1700, START + 1790, 10);
        assert!(series.requests_per_second.iter().all(|rate| *rate == 50.0), "{series:?}");
    }
}
