//! The access log: one line per exchange, written by nobody on the request path.
//!
//! Each worker formats its records into a buffer of its own ([`WorkerLog`]) and hands the buffer over when it is full
//! or [`FLUSH_AFTER`] old. One thread writes ([`AccessLog`]). Between them is a queue bounded in bytes: when the disk or
//! the reader of standard output cannot follow, lines are dropped and counted (`rhumb_log_lines_dropped_total`), and no
//! worker ever waits.
//!
//! Never in a line: `Authorization`, cookies, user information, and the values of parameters whose name says
//! credential. A parameter without a name (`?hunter2`) cannot be told apart and is logged where the query is.

pub(crate) mod redact;
mod format;
mod json;
mod writer;

pub use format::{Template, TemplateError};
pub use redact::{PATH_LIMIT, VALUE_LIMIT};

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, sync_channel};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::metrics::Registry;
use crate::record::Record;
use format::Formatter;
use writer::{Message, Shared};

/// How an access log is written.
#[derive(Clone, Debug)]
pub struct AccessLogConfig {
    /// Where lines go. Default: standard output.
    pub sink: Sink,
    /// What a line looks like. Default: JSON.
    pub format: Format,
    /// What is told of the query. Default: nothing.
    pub query: QueryLog,
    /// Which exchanges are told. Default: all.
    pub filter: Filter,
    /// Name of this process among others, for the JSON form. Default: empty, left out.
    pub node: String,
    /// How much may wait for the writer. Unit: bytes. Default: [`QUEUE_LIMIT`]; at least [`FLUSH_AT`].
    pub queue_limit: usize,
}

impl Default for AccessLogConfig {
    fn default() -> Self {
        Self {
            sink: Sink::Stdout,
            format: Format::Json,
            query: QueryLog::Omitted,
            filter: Filter::default(),
            node: String::new(),
            queue_limit: QUEUE_LIMIT,
        }
    }
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Nowhere; nothing is formatted.
    Off,
    /// Standard output.
    Stdout,
    /// The end of a file, which is created with mode 0640 if need be.
    File(PathBuf),
}

/// What a line looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// NCSA combined, as Apache and nginx write it.
    Combined,
    /// Text of one's own.
    Template(Template),
}

/// What is told of the query of a target (and of a referer).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueryLog {
    /// Nothing.
    #[default]
    Omitted,
    /// All of it but the values of parameters whose name says credential.
    Redacted,
}

/// Which exchanges are logged.
///
/// An exchange is kept if it meets any of the conditions that are set (or if none is), and then if the sample takes it.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Keep these statuses. Default: no condition.
    pub statuses: Option<StatusClasses>,
    /// Keep exchanges that took at least this long. Default: no condition.
    pub min_duration: Option<Duration>,
    /// Keep exchanges that were tried more than once. Default: false, no condition.
    pub retried: bool,
    /// How many of those kept are logged. Unit: parts per million. Default: all.
    ///
    /// The choice follows from the request id, so that every proxy on the way of a request makes the same one.
    pub sample_ppm: u32,
    /// Log failures and statuses from 500 whatever the sample says. Default: true.
    pub always_errors: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self { statuses: None, min_duration: None, retried: false, sample_ppm: MILLION, always_errors: true }
    }
}

impl Filter {
    fn keeps(&self, record: &Record<'_>, logged: u64) -> bool {
        let has_condition = self.statuses.is_some() || self.min_duration.is_some() || self.retried;
        let meets = self.statuses.is_some_and(|classes| classes.contains(record.status))
            || self.min_duration.is_some_and(|least| record.timing.total >= least)
            || self.retried && record.tries > 1;
        (meets || !has_condition) && (self.always_errors && record.is_error() || self.samples(record, logged))
    }

    fn samples(&self, record: &Record<'_>, seen: u64) -> bool {
        if self.sample_ppm >= MILLION {
            return true;
        }
        let hash = match record.request_id {
            [] => mix(seen),
            // FNV-1a; the final mix spreads it over the high bits.
            id => mix(id.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
            })),
        };
        (u128::from(hash) * u128::from(MILLION)) >> 64 < u128::from(self.sample_ppm)
    }
}

// The finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

/// A set of status classes (RFC 9110 §15): 1xx to 5xx.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusClasses(u8);

impl StatusClasses {
    /// No class.
    pub const EMPTY: Self = Self(0);

    /// This set with the class of that first digit, 1 to 5; other digits change nothing.
    #[must_use]
    pub const fn with(self, first_digit: u8) -> Self {
        match first_digit {
            1..=5 => Self(self.0 | 1 << first_digit),
            _ => self,
        }
    }

    /// Whether the class of this status is in the set.
    pub const fn contains(self, status: u16) -> bool {
        matches!(status / 100, 1..=5) && self.0 & (1 << (status / 100)) != 0
    }
}

/// The access log of a process: owns the writer thread. Shared by `Arc` or reference; workers get their [`WorkerLog`].
///
/// A reload that changes the log opens a new one and gives each worker a new [`WorkerLog`]; what was handed to the old
/// one is still written by its thread, which ends with its last user.
#[derive(Debug)]
pub struct AccessLog {
    config: AccessLogConfig,
    pipe: Option<Pipe>,
}

#[derive(Clone, Debug)]
struct Pipe {
    sender: Sender<Message>,
    shared: Arc<Shared>,
}

impl AccessLog {
    /// Opens the sink and starts the writer thread.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(config: AccessLogConfig, registry: &Registry) -> Result<Self, OpenError> {
        let output = match &config.sink {
            Sink::Off => return Ok(Self { config, pipe: None }),
            Sink::Stdout => writer::Output::stdout().map_err(OpenError::Stdout)?,
            Sink::File(path) => writer::Output::file(path)
                .map_err(|source| OpenError::File { path: path.display().to_string(), source })?,
        };
        Self::start(config, registry, output)
    }

    fn start(
        config: AccessLogConfig,
        registry: &Registry,
        output: writer::Output,
    ) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared::new(config.queue_limit.max(FLUSH_AT), registry));
        let sender = writer::start(output, &shared).map_err(OpenError::Thread)?;
        Ok(Self { config, pipe: Some(Pipe { sender, shared }) })
    }

    /// The part of one worker.
    pub fn worker(&self) -> WorkerLog {
        WorkerLog {
            pipe: self.pipe.clone(),
            formatter: Formatter::new(self.config.format.clone(), self.config.query, &self.config.node),
            filter: self.config.filter.clone(),
            buffer: Vec::new(),
            lines: 0,
            seen: 0,
            oldest: None,
        }
    }

    /// Opens the file anew, after it was renamed by a log rotator (SIGUSR1).
    ///
    /// What was handed over before goes to the old file, the rest to the new one; nothing is lost. If the new file
    /// cannot be opened the old one stays in use, and an error is logged. Nothing happens with other sinks.
    pub fn reopen(&self) {
        if let Some(pipe) = &self.pipe {
            // Without its thread there is nothing to reopen.
            pipe.sender.send(Message::Reopen).unwrap_or_default();
        }
    }

    /// Waits until all that workers handed over so far is written. Returns whether that happened in time.
    ///
    /// Workers hand over the rest when their [`WorkerLog`] is flushed or dropped: call this after.
    pub fn flush(&self, patience: Duration) -> bool {
        let Some(pipe) = &self.pipe else { return true };
        let (done, is_done) = sync_channel(1);
        pipe.sender.send(Message::Flush(done)).is_ok() && is_done.recv_timeout(patience).is_ok()
    }
}

/// Why an access log could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file cannot be opened for appending.
    #[error("access log {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no standard output.
    #[error("access log on standard output: {0}")]
    Stdout(#[source] std::io::Error),
    /// The writer thread cannot be started.
    #[error("access log writer thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// The access log of one worker: formats lines, collects them, hands them over.
#[derive(Debug)]
pub struct WorkerLog {
    pipe: Option<Pipe>,
    formatter: Formatter,
    filter: Filter,
    buffer: Vec<u8>,
    lines: u64,
    seen: u64,
    oldest: Option<Instant>,
}

impl WorkerLog {
    /// A log that takes nothing, as [`Sink::Off`] makes it.
    pub fn off() -> Self {
        AccessLog { config: AccessLogConfig::default(), pipe: None }.worker()
    }

    /// Whether lines go nowhere, so that a record is needed for metrics only.
    pub const fn is_off(&self) -> bool {
        self.pipe.is_none()
    }

    /// Adds the line of an exchange that finished `now`.
    pub fn push(&mut self, record: &Record<'_>, now: Instant) {
        if self.is_off() {
            return;
        }
        self.seen = self.seen.wrapping_add(1);
        if !self.filter.keeps(record, self.seen) {
            return;
        }
        if self.buffer.is_empty() {
            self.oldest = Some(now);
        }
        self.formatter.write(&mut self.buffer, record);
        self.lines += 1;
        if self.buffer.len() >= FLUSH_AT {
            self.flush();
        }
    }

    /// When [`tick`](Self::tick) wants to be called; `None` while there is nothing to hand over.
    pub fn deadline(&self) -> Option<Instant> {
        Some(self.oldest? + FLUSH_AFTER)
    }

    /// Hands over lines that are [`FLUSH_AFTER`] old. Cheap enough for every turn of a worker's loop.
    pub fn tick(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            self.flush();
        }
    }

    /// Hands over all lines, or drops and counts them when the writer is too far behind. Never waits.
    pub fn flush(&mut self) {
        self.oldest = None;
        let (Some(pipe), false) = (&self.pipe, self.buffer.is_empty()) else { return };
        let lines = std::mem::take(&mut self.lines);
        if pipe.shared.admit(self.buffer.len()) {
            // The next buffer is one that was written before, or has the size of this one: small while little is logged.
            let next = match self.buffer.len() {
                FLUSH_AT.. => {
                    pipe.shared.spare().unwrap_or_else(|| Vec::with_capacity(FLUSH_AT + LINE_GUESS))
                }
                len => Vec::with_capacity(len),
            };
            let bytes = std::mem::replace(&mut self.buffer, next);
            if let Err(refused) = pipe.sender.send(Message::Batch { bytes, lines }) {
                pipe.shared.refuse(refused.0);
            }
        } else {
            self.buffer.clear();
            pipe.shared.dropped_by_queue.add(lines);
        }
    }
}

/// Writes records as the JSON form does, for who looks at single exchanges: values of parameters that say credential are
/// left out, as in a log.
#[derive(Debug)]
pub struct JsonLine(Formatter);

impl Default for JsonLine {
    fn default() -> Self {
        Self(Formatter::new(Format::Json, QueryLog::Redacted, ""))
    }
}

impl JsonLine {
    /// Writes one line, with its line feed.
    pub fn write(&mut self, out: &mut Vec<u8>, record: &Record<'_>) {
        self.0.write(out, record);
    }
}

impl Drop for WorkerLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// How many bytes of lines a worker collects before it hands them over. Larger writes cost a file system less for each line
/// (ext4: 0.25 µs at 64 KiB, 0.15 at 128 KiB, no less beyond), and the writer's thread is woken half as often.
pub const FLUSH_AT: usize = 128 * 1024;
/// How long a line may wait in its worker before it is handed over.
pub const FLUSH_AFTER: Duration = Duration::from_millis(200);
/// How many bytes of lines may wait for the writer thread, unless configured otherwise.
pub const QUEUE_LIMIT: usize = 8 * 1024 * 1024;
/// Room past [`FLUSH_AT`] that most lines need.
const LINE_GUESS: usize = 2048;
const MILLION: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metric;
    use std::fs;
    use std::io::{self, Write};
    use std::sync::mpsc::{Receiver, Sender, channel};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn to_file(path: &std::path::Path) -> AccessLogConfig {
        AccessLogConfig {
            sink: Sink::File(path.into()),
            format: Format::Template(Template::parse("{path}").unwrap()),
            ..AccessLogConfig::default()
        }
    }

    fn at(path: &str) -> Record<'_> {
        Record { path: path.as_bytes(), ..Record::default() }
    }

    /// Takes writes only when told, and says when one begins.
    struct Gate {
        began: Sender<()>,
        open: Receiver<io::Result<usize>>,
        written: Arc<std::sync::Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.began.send(()).unwrap();
            let len = self.open.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            self.written.lock().unwrap().extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Gated {
        log: AccessLog,
        began: Receiver<()>,
        open: Sender<io::Result<usize>>,
        written: Arc<std::sync::Mutex<Vec<u8>>>,
    }

    fn gated(registry: &Registry, queue_limit: usize) -> Gated {
        let (began_sender, began) = channel();
        let (open, open_receiver) = channel();
        let written = Arc::default();
        let gate = Gate { began: began_sender, open: open_receiver, written: Arc::clone(&written) };
        let config = AccessLogConfig { queue_limit, ..to_file("".as_ref()) };
        let log = AccessLog::start(config, registry, writer::Output::other(Box::new(gate))).unwrap();
        Gated { log, began, open, written }
    }

    #[test]
    fn lines_of_all_workers_arrive_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::open(to_file(&path), &Registry::new()).unwrap();
        let now = Instant::now();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let mut part = log.worker();
                scope.spawn(move || {
                    for at_line in 0..5000 {
                        part.push(&at(&format!("/{worker}/{at_line}")), now);
                    }
                });
            }
        });
        assert!(log.flush(PATIENCE));
        let text = fs::read_to_string(&path).unwrap();
        for worker in 0..4 {
            let prefix = format!("/{worker}/");
            let numbers: Vec<u32> =
                text.lines().filter_map(|line| line.strip_prefix(&prefix)?.parse().ok()).collect();
            assert_eq!(numbers, (0..5000).collect::<Vec<_>>());
        }
        assert_eq!(text.lines().count(), 20_000);
    }

    #[test]
    fn a_line_waits_no_longer_than_its_deadline() {
        let registry = Registry::new();
        let gated = gated(&registry, QUEUE_LIMIT);
        let mut part = gated.log.worker();
        let start = Instant::now();
        assert_eq!(part.deadline(), None);
        part.push(&at("/1"), start);
        part.push(&at("/2"), start + FLUSH_AFTER / 2);
        assert_eq!(part.deadline(), Some(start + FLUSH_AFTER));
        part.tick(start + FLUSH_AFTER - Duration::from_nanos(1));
        assert!(part.deadline().is_some() && gated.began.try_recv().is_err());
        part.tick(start + FLUSH_AFTER);
        assert_eq!(part.deadline(), None);
        drop(gated.open);
        assert!(gated.log.flush(PATIENCE));
        assert_eq!(&*gated.written.lock().unwrap(), b"/1\n/2\n");
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_recovers() {
        let registry = Registry::new();
        let gated = gated(&registry, FLUSH_AT);
        let mut part = gated.log.worker();
        let now = Instant::now();
        let path = "/".repeat(1000);
        let per_batch = FLUSH_AT.div_ceil(path.len() + 1);
        for _ in 0..per_batch - 1 {
            part.push(&at(&path), now);
        }
        part.flush();
        gated.began.recv().unwrap();
        // The writer is stuck with a batch that leaves no room for another of this size.
        for _ in 0..3 * per_batch {
            part.push(&at(&path), now);
        }
        part.flush();
        let dropped = registry.counter(Metric::LogLinesDropped, &["queue_full"]);
        assert_eq!(dropped.value(), 3 * per_batch as u64);
        drop(gated.open);
        assert!(gated.log.flush(PATIENCE));
        part.push(&at("/again"), now);
        part.flush();
        assert!(gated.log.flush(PATIENCE));
        assert!(gated.written.lock().unwrap().ends_with(b"/again\n"));
        assert_eq!(dropped.value(), 3 * per_batch as u64);
        assert_eq!(registry.counter(Metric::LogLines, &[]).value(), per_batch as u64);
    }

    #[test]
    fn a_failed_write_is_counted_and_does_not_join_lines() {
        let registry = Registry::new();
        let gated = gated(&registry, QUEUE_LIMIT);
        let mut part = gated.log.worker();
        let now = Instant::now();
        gated.open.send(Ok(4)).unwrap();
        gated.open.send(Err(io::Error::from(io::ErrorKind::StorageFull))).unwrap();
        for path in ["/1", "/2", "/3"] {
            part.push(&at(path), now);
        }
        part.flush();
        assert!(gated.log.flush(PATIENCE));
        drop(gated.open);
        part.push(&at("/4"), now);
        part.flush();
        assert!(gated.log.flush(PATIENCE));
        assert_eq!(&*gated.written.lock().unwrap(), b"/1\n/\n/4\n");
        assert_eq!(registry.counter(Metric::LogLinesDropped, &["write_failed"]).value(), 2);
        assert_eq!(registry.counter(Metric::LogLines, &[]).value(), 2);
    }

    #[test]
    fn rotation_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (path, rotated) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let log = AccessLog::open(to_file(&path), &Registry::new()).unwrap();
        let mut part = log.worker();
        let now = Instant::now();
        part.push(&at("/before"), now);
        part.flush();
        assert!(log.flush(PATIENCE));
        fs::rename(&path, &rotated).unwrap();
        part.push(&at("/between"), now);
        part.flush();
        log.reopen();
        part.push(&at("/after"), now);
        part.flush();
        assert!(log.flush(PATIENCE));
        assert_eq!(fs::read_to_string(rotated).unwrap(), "/before\n/between\n");
        assert_eq!(fs::read_to_string(path).unwrap(), "/after\n");
    }

    #[test]
    fn a_file_that_cannot_be_reopened_stays_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("a").join("access.log"), dir.path().join("b"));
        fs::create_dir(path.parent().unwrap()).unwrap();
        let log = AccessLog::open(to_file(&path), &Registry::new()).unwrap();
        fs::rename(path.parent().unwrap(), &moved).unwrap();
        log.reopen();
        let mut part = log.worker();
        part.push(&at("/kept"), Instant::now());
        part.flush();
        assert!(log.flush(PATIENCE));
        assert_eq!(fs::read_to_string(moved.join("access.log")).unwrap(), "/kept\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing").join("access.log");
        let error = AccessLog::open(to_file(&path), &Registry::new()).unwrap_err();
        assert!(error.to_string().contains("missing/access.log: "), "{error}");
    }

    #[test]
    fn off_formats_nothing() {
        let config = AccessLogConfig { sink: Sink::Off, ..AccessLogConfig::default() };
        let log = AccessLog::open(config, &Registry::new()).unwrap();
        let mut part = log.worker();
        part.push(&at("/"), Instant::now());
        assert!(part.is_off() && part.buffer.is_empty() && log.flush(Duration::ZERO));
        assert!(WorkerLog::off().is_off());
    }

    #[test]
    fn the_filter_keeps_what_meets_any_condition() {
        let slow = Timing { total: Duration::from_secs(2), ..Timing::default() };
        let ok = Record { status: 200, ..Record::default() };
        let records = [
            ok.clone(),
            Record { status: 404, ..ok.clone() },
            Record { timing: slow, ..ok.clone() },
            Record { tries: 2, ..ok.clone() },
            Record { status: 503, ..ok },
        ];
        let all = Filter::default();
        let errors = Some(StatusClasses::EMPTY.with(4).with(5));
        let cases = [
            (all.clone(), "11111"),
            (Filter { statuses: errors, ..all.clone() }, "01001"),
            (Filter { min_duration: Some(Duration::from_secs(1)), ..all.clone() }, "00100"),
            (Filter { statuses: errors, min_duration: Some(Duration::from_secs(1)), ..all.clone() }, "01101"),
            (Filter { retried: true, ..all.clone() }, "00010"),
            (Filter { sample_ppm: 0, ..all.clone() }, "00001"),
            (Filter { sample_ppm: 0, always_errors: false, ..all }, "00000"),
        ];
        for (filter, expected) in cases {
            let kept: String = records.iter().map(|r| if filter.keeps(r, 0) { '1' } else { '0' }).collect();
            assert_eq!(kept, expected, "{filter:?}");
        }
    }

    #[test]
    fn the_sample_follows_the_request_id() {
        let filter = Filter { sample_ppm: 100_000, ..Filter::default() };
        let mut ids = crate::IdSource::from_seed([9; 32]);
        let mut by_id = 0;
        let mut by_count = 0;
        for seen in 0..20_000 {
            let id = ids.request_id(1);
            let record = Record { request_id: id.as_bytes(), ..Record::default() };
            let is_kept = filter.keeps(&record, seen);
            assert_eq!(is_kept, filter.keeps(&record, seen + 1));
            by_id += u32::from(is_kept);
            by_count += u32::from(filter.keeps(&Record::default(), seen));
        }
        assert!((1700..2300).contains(&by_id) && (1700..2300).contains(&by_count), "{by_id} {by_count}");
    }

    use crate::record::Timing;
}
