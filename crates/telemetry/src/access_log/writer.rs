//! The one thread that may wait for a disk.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::FLUSH_AT;
use crate::metrics::{Counter, Metric, Registry};

/// What workers and operators send to the writer. Their order is the order of effects.
pub(super) enum Message {
    /// Whole lines.
    Batch { bytes: Vec<u8>, lines: u64 },
    /// Open the file anew.
    Reopen,
    /// Answer when all before this is written.
    Flush(SyncSender<()>),
}

/// What the writer and the workers share.
#[derive(Debug)]
pub(super) struct Shared {
    queued: AtomicUsize,
    queue_limit: usize,
    /// Written buffers for the next batches: their pages are mapped already.
    spare: Mutex<Vec<Vec<u8>>>,
    written: Counter,
    pub(super) dropped_by_queue: Counter,
    dropped_by_error: Counter,
}

impl Shared {
    pub(super) fn new(queue_limit: usize, registry: &Registry) -> Self {
        Self {
            queued: AtomicUsize::new(0),
            queue_limit,
            spare: Mutex::default(),
            written: registry.counter(Metric::LogLines, &[]),
            dropped_by_queue: registry.counter(Metric::LogLinesDropped, &["queue_full"]),
            dropped_by_error: registry.counter(Metric::LogLinesDropped, &["write_failed"]),
        }
    }

    /// Takes room in the queue for this many bytes. A batch into an empty queue always fits.
    pub(super) fn admit(&self, len: usize) -> bool {
        let before = self.queued.fetch_add(len, Ordering::Relaxed);
        let fits = before == 0 || before.saturating_add(len) <= self.queue_limit;
        if !fits {
            self.release(len);
        }
        fits
    }

    /// Counts a batch that found no writer.
    pub(super) fn refuse(&self, message: Message) {
        if let Message::Batch { bytes, lines } = message {
            self.release(bytes.len());
            self.dropped_by_error.add(lines);
        }
    }

    /// A written buffer, if there is one and nobody else is taking it: a worker does not wait.
    pub(super) fn spare(&self) -> Option<Vec<u8>> {
        self.spare.try_lock().ok()?.pop()
    }

    fn keep(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_BUFFERS && (FLUSH_AT..2 * FLUSH_AT).contains(&buffer.capacity()) {
            buffer.clear();
            spare.push(buffer);
        }
    }

    fn release(&self, len: usize) {
        self.queued.fetch_sub(len, Ordering::Relaxed);
    }
}

/// Where the writer writes.
pub(super) struct Output {
    sink: Box<dyn Write + Send>,
    /// What to open again when asked.
    path: Option<PathBuf>,
}

impl Output {
    pub(super) fn stdout() -> io::Result<Self> {
        // A duplicate without the buffer and the lock of std's handle: batches are whole lines already.
        let fd = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self { sink: Box::new(File::from(fd)), path: None })
    }

    pub(super) fn file(path: &Path) -> io::Result<Self> {
        Ok(Self { sink: Box::new(open(path)?), path: Some(path.into()) })
    }

    #[cfg(test)]
    pub(super) fn other(sink: Box<dyn Write + Send>) -> Self {
        Self { sink, path: None }
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Lines name people: not for everybody on the machine.
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Starts the thread. It ends when the last sender is gone and all is written.
pub(super) fn start(output: Output, shared: &Arc<Shared>) -> io::Result<Sender<Message>> {
    let (sender, messages) = channel();
    let writer = Writer { output, shared: Arc::clone(shared), is_torn: false, is_failing: false };
    thread::Builder::new()
        .name("access-log".into())
        .stack_size(WRITER_STACK)
        .spawn(move || writer.run(&messages))
        .map(|_| sender)
}

struct Writer {
    output: Output,
    shared: Arc<Shared>,
    /// The last write stopped inside a line.
    is_torn: bool,
    /// The last write failed; said once, not for each batch.
    is_failing: bool,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            match message {
                Message::Batch { bytes, lines } => {
                    self.batch(&bytes, lines);
                    self.shared.release(bytes.len());
                    self.shared.keep(bytes);
                }
                Message::Reopen => self.reopen(),
                // Who asked may have stopped waiting.
                Message::Flush(done) => done.send(()).unwrap_or_default(),
            }
        }
    }

    fn batch(&mut self, bytes: &[u8], lines: u64) {
        let result = if self.is_torn { self.write(b"\n") } else { Ok(()) };
        let (rest, result) = match result {
            Ok(()) => self.write_lines(bytes),
            Err(error) => (bytes, Err(error)),
        };
        // A line of which only a part is written counts as lost.
        let lost = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.shared.written.add(lines.saturating_sub(lost));
        self.shared.dropped_by_error.add(lost);
        match result {
            Ok(()) => self.is_failing = false,
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                tracing::error!(%error, path = ?self.output.path, "access log cannot be written, lines are dropped");
            }
            Err(_) => {}
        }
    }

    /// Writes whole lines; returns what was not written.
    fn write_lines<'b>(&mut self, bytes: &'b [u8]) -> (&'b [u8], io::Result<()>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.write_some(rest) {
                Ok(len) => {
                    let (written, after) = rest.split_at_checked(len).unwrap_or((rest, &[]));
                    self.is_torn = written.last() != Some(&b'\n');
                    rest = after;
                }
                Err(error) => return (rest, Err(error)),
            }
        }
        (rest, Ok(()))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_lines(bytes).1
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut waits = 0;
        loop {
            match self.output.sink.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => return Ok(len),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Whoever shares our standard output may have made it non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock && waits < WOULD_BLOCK_WAITS => {
                    waits += 1;
                    thread::park_timeout(WOULD_BLOCK_WAIT);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn reopen(&mut self) {
        let Some(path) = &self.output.path else { return };
        match open(path) {
            Ok(file) => {
                self.output.sink = Box::new(file);
                self.is_torn = false;
                tracing::info!(path = %path.display(), "access log reopened");
            }
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "access log cannot be reopened, the old file stays in use");
            }
        }
    }
}

/// Stack of the writer thread: it formats nothing but its own messages.
const WRITER_STACK: usize = 256 * 1024;
/// How many written buffers are kept for the workers.
const SPARE_BUFFERS: usize = 4;
/// How often the writer waits for a non-blocking output before it gives up on a batch.
const WOULD_BLOCK_WAITS: u32 = 500;
/// How long one such wait is.
const WOULD_BLOCK_WAIT: Duration = Duration::from_millis(10);
