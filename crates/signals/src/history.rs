//! The history of a process: what its board counted, by time.
//!
//! Every two seconds the board is looked at ([`History::look`]); what has come since is a frame. Frames of the last minute
//! are kept as they are, those of the last hours by ten seconds, those of the last day by minute.

mod edges;
mod names;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rhumb_telemetry::Board;
use rhumb_telemetry::signals::{Dimension, Name, Outcome, Totals};

use crate::answer::{By, Event, Events, Golden, Item, Level, Now, Series, Sort, Top, round};
use crate::apis::Finder;
use crate::frame::{self, Frame};
use crate::shelf::{Kind, Shelf, ShelfError, Write};
use crate::usage::{Book, Query, Rows, Step, Usage};
use fleet::Fleet;
use names::Names;
use outbox::Outbox;

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

/// How long days of usage are kept. Unit: seconds.
const DAYS_KEPT: u64 = 400 * DAY;

/// Half of [`LOOK`]. Unit: milliseconds.
const HALF_A_LOOK_MS: u64 = 1000;

const MINUTE: u64 = 60;
const LOOKS_A_MINUTE: u64 = MINUTE / LOOK.as_secs();
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// Looks that are kept as they are: those of a minute.
const LIVE: usize = 30;

/// What is known of APIs is written every so many looks.
const APIS_EVERY: u64 = 150;

/// Memory of them at most. Unit: bytes.
const LIVE_BYTES: usize = 2 << 20;

/// Events that are kept at most.
const EVENTS: usize = 10_000;

/// Points of one answer at most.
const POINTS: u64 = 3_000;

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

/// What has come since a moment. Unit: seconds since 1970.
#[derive(Default)]
struct Gathered {
    since: u64,
    frame: Frame,
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

    /// All requests of the last seconds.
    pub fn now(&self, window: Duration) -> Now {
        let inner = self.lock();
        let (at, seconds, found) = inner.lately(window, inner.everything(), |_| String::new());
        let golden = found.values().next().map_or_else(Golden::default, |totals| Golden::of(totals, seconds));
        Now { at, window_seconds: round(seconds), golden }
    }

    /// Who had what in the last seconds, at most a minute.
    pub fn top(&self, by: By, window: Duration, sort: Sort, limit: usize) -> Top {
        let inner = self.lock();
        let (at, seconds, found) = inner.lately(window, by.dimension(), |name| by.name(name));
        let mut connections = match by {
            By::Edge => Self::connections(&inner, window, |name| by.name(name)),
            _ => BTreeMap::new(),
        };
        let mut items: Vec<_> = found
            .into_iter()
            .map(|(name, totals)| Item {
                connections: connections.remove(&name).map(|tied| tied.told(seconds)),
                name,
                golden: Golden::of(&totals, seconds),
            })
            .collect();
        items.extend(connections.into_iter().map(|(name, tied)| Item {
            name,
            golden: Golden::default(),
            connections: Some(tied.told(seconds)),
        }));
        sort.apply(&mut items);
        items.truncate(limit);
        Top { at, by, window_seconds: round(seconds), items }
    }

    /// What came when, of one or of all together. Times in seconds since 1970; `step` of 0 is as fine as is sensible.
    #[allow(clippy::cast_precision_loss)] // seconds of a step
    pub fn series(&self, by: By, name: Option<&str>, from: u64, to: u64, step: u64) -> Series {
        let inner = self.lock();
        let newest = inner.looked_at.unwrap_or(0) / 1000;
        let to = to.min(newest.max(from) + MINUTE);
        let from = from.max(to.saturating_sub(MINUTES_KEPT + HOUR)).min(to);
        let finest = if newest.saturating_sub(from) <= TENS_KEPT { 10 } else { MINUTE };
        let span = to - from;
        let step = step.max(finest).max(span.div_ceil(POINTS)).next_multiple_of(finest);
        let from = from / step * step;
        let to = to.next_multiple_of(step).max(from + step);
        let mut steps: BTreeMap<u64, Totals> = BTreeMap::new();
        let dimension = if name.is_none() && by == By::Route { inner.everything() } else { by.dimension() };
        inner.frames(from, to, |at, bytes| {
            let sum = steps.entry(at / step * step).or_default();
            frame::read(bytes, |number, totals| {
                if let Some((of, series)) = inner.names.name(number)
                    && of == dimension
                    && name.is_none_or(|name| by.name(series) == name)
                {
                    sum.add(totals);
                }
            });
        });
        let mut series = Series {
            by,
            name: name.map(str::to_owned),
            from,
            to,
            step,
            at: Vec::new(),
            requests_per_second: Vec::new(),
            errors_per_second: Vec::new(),
            client_errors_per_second: Vec::new(),
            p50_ms: Vec::new(),
            p95_ms: Vec::new(),
            p99_ms: Vec::new(),
            bytes_in_per_second: Vec::new(),
            bytes_out_per_second: Vec::new(),
        };
        let nothing = Totals::default();
        let mut at = from;
        // What is still gathered is not told: a step that looks small would be one that is not over.
        while at < to && at + finest <= newest {
            let totals = steps.get(&at).unwrap_or(&nothing);
            let golden = Golden::of(totals, step as f64);
            series.at.push(at);
            series.requests_per_second.push(golden.requests_per_second);
            series.errors_per_second.push(golden.errors_per_second);
            let of_clients = totals.outcomes[Outcome::ClientError as usize];
            series.client_errors_per_second.push(round(of_clients as f64 / step as f64));
            series.p50_ms.push(golden.p50_ms);
            series.p95_ms.push(golden.p95_ms);
            series.p99_ms.push(golden.p99_ms);
            series.bytes_in_per_second.push(golden.bytes_in_per_second);
            series.bytes_out_per_second.push(golden.bytes_out_per_second);
            at += step;
        }
        series
    }

    /// Usage of a time.
    pub fn usage(&self, query: &Query) -> Usage {
        let inner = self.lock();
        let mut rows = Rows::default();
        let (hour, book) = (inner.hour.0, &inner.hour.1);
        // Hours where they are asked for, or where they are kept and the time does not begin with a day.
        let by_hours = query.step == Step::Hour
            || query.step == Step::All && hour.saturating_sub(query.from) < HOURS_KEPT - DAY;
        let (kind, unit) = if by_hours { (Kind::Hours, HOUR) } else { (Kind::Days, DAY) };
        let from = query.from / unit * unit;
        let at = |at: u64| (query.step != Step::All).then_some(at);
        let last = query.to.saturating_sub(1);
        inner.shelf.range(kind, from, last, |begun, bytes| {
            if !(by_hours && begun == hour) {
                rows.add(query, at(begun), &Book::read(bytes));
            }
        });
        let begun = hour / unit * unit;
        if !book.is_empty() && (from..=last).contains(&begun) {
            rows.add(query, at(begun), book);
        }
        Usage { from, to: query.to, rows: rows.into_rows(query) }
    }

    /// What happened between two times (seconds since 1970), the latest first. `kinds`: only these; none: all.
    pub fn events(&self, from: f64, to: f64, kinds: &[&str], least: Level, limit: usize) -> Events {
        let inner = self.lock();
        let mut events = Vec::new();
        inner.shelf.range(Kind::Events, 0, u64::MAX, |_, bytes| {
            if let Ok(event) = serde_json::from_slice::<Event>(bytes)
                && (from..=to).contains(&event.at)
                && event.level >= least
                && (kinds.is_empty() || kinds.contains(&&*event.kind))
            {
                events.push(event);
            }
        });
        events.reverse();
        events.truncate(limit);
        Events { events }
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

impl Inner {
    /// Closes what is over: ten seconds, a minute, an hour.
    fn turn(&mut self, now: u64) {
        let (ten, minute, hour) = (now / 10 * 10, now / MINUTE * MINUTE, now / HOUR * HOUR);
        if ten != self.ten.since {
            self.close_ten();
            self.ten.since = ten;
        }
        if minute != self.minute.since {
            self.close_minute();
            self.minute.since = minute;
        }
        if hour != self.hour.0 {
            self.turn_hour(hour);
        }
    }

    /// Begins an hour.
    fn turn_hour(&mut self, hour: u64) {
        self.close_hour();
        let book = self.shelf.one(Kind::Hours, hour).map(|bytes| Book::read(&bytes)).unwrap_or_default();
        self.hour = (hour, book);
    }

    fn close_ten(&mut self) {
        let since = self.ten.since;
        let mut over = std::mem::take(&mut self.ten.frame);
        if over.is_empty() {
            return;
        }
        if since / MINUTE * MINUTE != self.minute.since {
            self.close_minute();
            self.minute.since = since / MINUTE * MINUTE;
        }
        for (number, totals) in &over {
            self.minute.frame.entry(*number).or_default().add(totals);
        }
        self.hand_on(since, &over);
        // A process before this one may have had the beginning of it.
        if let Some(bytes) = self.shelf.one(Kind::Tens, since) {
            frame::join(&mut over, &bytes);
        }
        self.waiting.push(Write::Put(Kind::Tens, since, frame::write(&over)));
    }

    fn close_minute(&mut self) {
        let since = self.minute.since;
        let mut over = std::mem::take(&mut self.minute.frame);
        if over.is_empty() {
            return;
        }
        // A process before this one may have had the beginning of it.
        if let Some(bytes) = self.shelf.one(Kind::Minutes, since) {
            frame::join(&mut over, &bytes);
        }
        self.waiting.push(Write::Put(Kind::Minutes, since, frame::write(&over)));
    }

    /// Adds an hour that is over to its day.
    fn close_hour(&mut self) {
        let (hour, book) = std::mem::take(&mut self.hour);
        self.is_hour_new = false;
        if book.is_empty() {
            return;
        }
        self.waiting.push(Write::Put(Kind::Hours, hour, book.write()));
        let day = hour / DAY * DAY;
        let mut of_day = self.shelf.one(Kind::Days, day).map(|bytes| Book::read(&bytes)).unwrap_or_default();
        of_day.join(&book);
        self.waiting.push(Write::Put(Kind::Days, day, of_day.write()));
    }

    fn keep_look(&mut self, now_ms: u64, frame: &Frame) {
        let length = now_ms.saturating_sub(self.looked_at.unwrap_or(now_ms));
        self.looked_at = Some(now_ms);
        let bytes = frame::write(frame);
        self.live_bytes += bytes.len();
        self.live.push_back((now_ms, length, bytes));
        while self.live.len() > LIVE || self.live_bytes > LIVE_BYTES {
            let Some((_, _, bytes)) = self.live.pop_front() else { break };
            self.live_bytes -= bytes.len();
        }
    }

    fn write(&mut self, now: u64, is_last: bool) -> Result<(), ShelfError> {
        if is_last {
            // What is gathered is kept as it is; the next process goes on with it.
            self.close_ten();
            self.close_minute();
        }
        let is_minute = self.looks.is_multiple_of(LOOKS_A_MINUTE);
        if is_minute || is_last {
            if self.is_hour_new {
                self.waiting.push(Write::Put(Kind::Hours, self.hour.0, self.hour.1.write()));
                self.is_hour_new = false;
            }
            for (kind, kept) in [
                (Kind::Tens, TENS_KEPT),
                (Kind::Minutes, MINUTES_KEPT),
                (Kind::Hours, HOURS_KEPT),
                (Kind::Days, DAYS_KEPT),
            ] {
                let gone = self.shelf.below(kind, now.saturating_sub(kept));
                self.waiting.extend(gone.into_iter().map(|key| Write::Remove(kind, key)));
            }
            self.names.forget(now, &mut self.waiting);
        }
        if self.waiting.is_empty() {
            return Ok(());
        }
        let writes = std::mem::take(&mut self.waiting);
        self.apply(writes, is_minute || is_last)
    }

    fn apply(&mut self, writes: Vec<Write>, durable: bool) -> Result<(), ShelfError> {
        self.taken_off += self.shelf.apply(writes, durable)? as u64;
        Ok(())
    }

    /// Frames that begin between two times, the finest that is kept of each: minutes, ten seconds, and what is gathered.
    fn frames(&self, from: u64, to: u64, mut visit: impl FnMut(u64, &[u8])) {
        if from >= to {
            return;
        }
        // Where ten seconds are kept, minutes would be told twice.
        let fine = self.shelf.ends(Kind::Tens).map_or(u64::MAX, |(first, _)| {
            let minute = first / MINUTE * MINUTE;
            if self.has_all_tens(minute) { minute } else { minute + MINUTE }
        });
        self.shelf.range(Kind::Minutes, from, (to - 1).min(fine.saturating_sub(1)), &mut visit);
        self.shelf.range(Kind::Tens, from.max(fine), to - 1, &mut visit);
        let gathered = [(&self.minute, fine == u64::MAX), (&self.ten, true)];
        for (gathered, is_told) in gathered {
            if is_told && (from..to).contains(&gathered.since) && !gathered.frame.is_empty() {
                visit(gathered.since, &frame::write(&gathered.frame));
            }
        }
    }

    /// True when what is kept by ten seconds of a minute is all that came in it: the earlier of them may have been given up.
    fn has_all_tens(&self, minute: u64) -> bool {
        if !self.shelf.has(Kind::Minutes, minute) {
            return true;
        }
        let came = |kind, to| {
            let mut came = 0u64;
            self.shelf.range(kind, minute, to, |_, bytes| {
                frame::read(bytes, |_, totals| came = came.wrapping_add(totals.count() + totals.opened));
            });
            came
        };
        came(Kind::Tens, minute + MINUTE - 1) == came(Kind::Minutes, minute)
    }

    /// What came in the last looks: when they ended, how long they were together (seconds), and totals by name.
    #[allow(clippy::cast_precision_loss)] // milliseconds
    fn lately<K: Ord>(
        &self,
        window: Duration,
        dimension: Dimension,
        name: impl Fn(&Name) -> K,
    ) -> (f64, f64, BTreeMap<K, Totals>) {
        let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut found = BTreeMap::new();
        let mut length = 0;
        for (_, took, bytes) in self.live.iter().rev() {
            if length >= window {
                break;
            }
            length += took;
            self.collect(bytes, dimension, &name, &mut found);
        }
        (self.looked_at.unwrap_or(0) as f64 / 1000.0, (length.max(1)) as f64 / 1000.0, found)
    }

    fn collect<K: Ord>(
        &self,
        bytes: &[u8],
        dimension: Dimension,
        name: impl Fn(&Name) -> K,
        into: &mut BTreeMap<K, Totals>,
    ) {
        frame::read(bytes, |number, totals| {
            if let Some((of, series)) = self.names.name(number)
                && of == dimension
            {
                into.entry(name(series)).or_default().add(totals);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Column;
    use rhumb_telemetry::metrics::Registry;
    use rhumb_telemetry::record::{Record, Timing};
    use rhumb_telemetry::signals::{BUDGET, Seen, WorkerSignals};

    /// A Sunday at midnight, so that hours and days begin where they should.
    const START: u64 = 1_800_000_000 / DAY * DAY;

    struct Traffic {
        registry: Arc<Registry>,
        board: Arc<Board>,
        worker: WorkerSignals,
    }

    impl Traffic {
        fn new() -> Self {
            let registry = Registry::new();
            let board = Board::new(BUDGET, 3, &registry);
            let worker = board.worker();
            Self { registry, board, worker }
        }

        fn send(&mut self, route: &str, consumer: &str, status: u16, millis: u64) {
            let record = Record {
                method: b"GET",
                route,
                rule: "/x/*",
                backend: "default/shop",
                endpoint: "10.0.0.1:80",
                consumer,
                status,
                upstream_status: Some(status),
                timing: Timing { total: Duration::from_millis(millis), ..Timing::default() },
                ..Record::default()
            };
            let seen = Seen {
                rule: self.registry.rule(route, "/x/*"),
                backend: Some(self.registry.backend("default/shop")),
                endpoint: Some(1),
                source: "gateway",
                target: "default/shop",
                is_mutual: false,
                plan: if consumer.is_empty() { "" } else { "gold" },
            };
            self.worker.count(&record, &seen);
        }
    }

    fn usage(
        history: &History,
        from: u64,
        to: u64,
        by: &[Column],
        step: Step,
    ) -> Vec<(Option<u64>, String, u64)> {
        let query = Query { from, to, by: by.to_vec(), step, ..Query::default() };
        let name =
            |row: &crate::usage::Row| row.consumer.clone().or_else(|| row.status.clone()).unwrap_or_default();
        history.usage(&query).rows.iter().map(|row| (row.at, name(row), row.requests)).collect()
    }

    /// One request every two seconds, for a time; 503 in the first minute of each hour.
    fn run(traffic: &mut Traffic, history: &History, from: u64, seconds: u64) {
        for at in (from..from + seconds).step_by(2) {
            let status = if at % HOUR < MINUTE { 503 } else { 200 };
            traffic.send("default/web", "", status, 20);
            history.look((at + 2) * 1000, false).unwrap();
        }
    }

    #[test]
    fn the_last_seconds_are_told_by_name() {
        let mut traffic = Traffic::new();
        let history = History::in_memory(Arc::clone(&traffic.board), MEMORY);
        history.look(START * 1000, false).unwrap();
        for second in 1..=10 {
            for _ in 0..30 {
                traffic.send("default/web", "default/acme", 200, 10);
            }
            traffic.send("default/api", "", 503, 100);
            history.look((START + 2 * second) * 1000, false).unwrap();
        }
        let now = history.now(Duration::from_secs(10));
        assert_eq!((now.window_seconds, now.golden.requests_per_second), (10.0, 15.5));
        let top = history.top(By::Route, Duration::from_secs(10), Sort::Requests, 10);
        let names: Vec<_> = top.items.iter().map(|item| &*item.name).collect();
        assert_eq!(names, ["default/web", "default/api"]);
        assert_eq!(top.items[1].golden.error_ratio, Some(1.0));
        assert!((9.0..=11.5).contains(&top.items[0].golden.p50_ms.unwrap()), "{top:?}");
        let by_errors = history.top(By::Rule, Duration::from_secs(10), Sort::Errors, 1);
        assert_eq!(by_errors.items[0].name, "default/api /x/*");
        let edges = history.edges(None);
        assert_eq!((&*edges.edges[0].source, &*edges.edges[0].target), ("gateway", "default/shop"));
        assert_eq!(
            history.top(By::Consumer, Duration::from_secs(4), Sort::Name, 9).items[0].golden.requests,
            60
        );
    }

    #[test]
    fn a_day_is_kept_first_by_ten_seconds_then_by_minute() {
        let mut traffic = Traffic::new();
        let history = History::in_memory(Arc::clone(&traffic.board), MEMORY);
        run(&mut traffic, &history, START, 4 * HOUR);
        let fine =
            history.series(By::Route, Some("default/web"), START + 4 * HOUR - 600, START + 4 * HOUR, 0);
        assert_eq!((fine.step, fine.at.len()), (10, 60));
        assert!(fine.requests_per_second[..59].iter().all(|rate| *rate == 0.5), "{fine:?}");
        let day = history.series(By::Route, None, START, START + 4 * HOUR, 600);
        assert_eq!((day.step, day.at.len()), (600, 24));
        let requests: f64 = day.requests_per_second.iter().map(|rate| rate * 600.0).sum();
        assert!((requests - 7200.0).abs() <= 5.0, "{requests}");
        let failing = day.errors_per_second.iter().filter(|rate| **rate > 0.0).count();
        assert_eq!(failing, 4, "{:?}", day.errors_per_second);
        assert_eq!(history.edges(Some(START + HOUR)).edges[0].golden.requests, 30);
        let mut traffic = Traffic::new();
        let history = History::in_memory(Arc::clone(&traffic.board), MEMORY);
        run(&mut traffic, &history, START + 73, 20);
        let young = history.series(By::Route, None, START, START + 120, 10);
        let requests: f64 = young.requests_per_second.iter().map(|rate| rate * 10.0).sum();
        assert!((8.0..=10.0).contains(&requests), "{young:?}");
        let none = history.series(By::Consumer, Some("nobody"), START, START + HOUR, 60);
        assert!(none.p50_ms.iter().all(Option::is_none));
    }

    #[test]
    fn usage_is_told_by_hour_and_day_and_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signals.redb");
        let mut traffic = Traffic::new();
        let history = History::in_file(Arc::clone(&traffic.board), &path, FILE).unwrap();
        run(&mut traffic, &history, START + 22 * HOUR, 3 * HOUR);
        traffic.send("default/web", "default/acme", 200, 10);
        history.look((START + 25 * HOUR + 30) * 1000, true).unwrap();
        history.tell(&Event {
            at: 5.0,
            kind: "configuration_applied".to_owned(),
            level: Level::Info,
            about: String::new(),
            text: "revision 2 is live".to_owned(),
            proxy: None,
        });
        drop(history);
        let mut traffic = Traffic::new();
        let history = History::in_file(Arc::clone(&traffic.board), &path, FILE).unwrap();
        history.look((START + 25 * HOUR + 40) * 1000, false).unwrap();
        run(&mut traffic, &history, START + 25 * HOUR + 42, 100);
        let (from, to) = (START, START + 2 * DAY);
        let days = usage(&history, from, to, &[], Step::Day);
        assert_eq!(days, [(Some(START), String::new(), 3600), (Some(START + DAY), String::new(), 1851)]);
        let hours = usage(&history, START + 23 * HOUR, to, &[Column::Consumer], Step::Hour);
        assert_eq!(hours.len(), 4, "{hours:?}");
        assert_eq!(hours[3], (Some(START + 25 * HOUR), "default/acme".to_owned(), 1));
        let all = usage(&history, from, to, &[Column::Status], Step::All);
        assert_eq!(all.iter().map(|row| row.2).sum::<u64>(), 3600 + 1851);
        assert_eq!(all[1].1, "503");
        let series = history.series(By::Route, Some("default/web"), START + 23 * HOUR, START + 24 * HOUR, 60);
        assert!(series.requests_per_second[5..].iter().all(|rate| *rate == 0.5));
        let events = history.events(0.0, 10.0, &[], Level::Info, 10).events;
        assert_eq!(events[0].text, "revision 2 is live");
        assert!(history.events(0.0, 10.0, &["other"], Level::Info, 10).events.is_empty());
        let size = std::fs::metadata(&path).unwrap().len();
        assert!(size < FILE as u64, "{size}");
    }

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

    #[test]
    fn the_first_ten_seconds_are_told_when_they_were() {
        let mut traffic = Traffic::new();
        let history = History::in_memory(Arc::clone(&traffic.board), MEMORY);
        let start = START + 52;
        history.look(start * 1000, false).unwrap();
        traffic.send("default/shop", "", 200, 4);
        for look in 1..30 {
            history.look((start + 2 * look) * 1000, false).unwrap();
        }
        let series = history.series(By::Route, None, START, START + 120, 10);
        let told = series.at.iter().zip(&series.requests_per_second).find(|(_, rate)| **rate > 0.0);
        assert_eq!(told.map(|(at, _)| *at), Some(START + 50));
    }
}
