//! Golden signals of this process: the board that workers count on, and the thread that keeps their history.
//!
//! Whatever of this process sees something happen calls [`tell`]: nobody waits for the history.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rhumb_base::rng::Rng;
use rhumb_plan::Current;
use rhumb_plan::process::Signals;
use rhumb_proxy::rest::Awake;
use rhumb_signals::history::{FILE, LITTLE, MEMORY};
use rhumb_signals::{Event, History, LOOK, Level};
use rhumb_telemetry::metrics::Statsd;
use rhumb_telemetry::{Board, Lookout, Registry};

mod breakers;
mod watch;

pub(crate) use breakers::Breakers;

/// Events that wait for the thread at most; one more is lost.
const WAITING: usize = 1024;

/// How often the thread looks while all workers rest.
const LOOK_AT_REST: Duration = Duration::from_secs(60);

/// How long the last write may take when the process ends.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// Where events of this process go, while somebody keeps them.
static TELLER: Mutex<Option<SyncSender<Told>>> = Mutex::new(None);

/// What the thread is told.
enum Told {
    /// Something happened.
    Event(Event),
    /// Workers that rested have something to do, so there will be something to keep.
    Awake,
}

/// An empty board.
pub(crate) fn board(signals: &Signals, registry: &Registry) -> Arc<Board> {
    let board = Board::new(signals.memory, Rng::from_os().next_u64(), registry);
    if signals.endpoint_durations {
        board.tell_endpoint_durations();
    }
    board
}

/// Where workers tell what requests there are, if anybody wants to know.
pub(crate) fn lookout(signals: &Signals, registry: &Registry) -> Option<Arc<Lookout>> {
    signals.finds_apis.then(|| Lookout::new(Rng::from_os().next_u64(), registry))
}

/// Notes that something happened: `kind` is a word that stays, `about` what it is about, `text` one sentence.
pub(crate) fn tell(kind: &str, level: Level, about: &str, text: impl Into<String>) {
    let teller = TELLER.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(teller) = &*teller else { return };
    let event = Event {
        at: unix_now(),
        kind: kind.to_owned(),
        level,
        about: about.to_owned(),
        text: text.into(),
        proxy: None,
    };
    // Who waits for a disk would be the process itself.
    let _ = teller.try_send(Told::Event(event));
}

/// The history of the process and the thread that writes it.
pub(crate) struct Recorder {
    history: Arc<History>,
    rests: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Begins to keep what `board` counts. `is_sidecar`: only the last minute is kept, unless more is asked for.
    ///
    /// # Errors
    /// When the operating system has no thread left.
    #[allow(clippy::too_many_arguments)] // what a thread of its own needs, once
    pub(crate) fn start(
        board: Arc<Board>,
        signals: &Signals,
        is_sidecar: bool,
        lookout: Option<Arc<Lookout>>,
        registry: &Arc<Registry>,
        (current, awake): (Current, Arc<Awake>),
    ) -> std::io::Result<Self> {
        let wanted = signals.history.clone().filter(|history| history.is_asked || !is_sidecar);
        let (file, limit) = match wanted {
            None => (None, LITTLE),
            Some(history) => {
                let file = history.file.or_else(state_file);
                let usual = if file.is_some() { FILE } else { MEMORY };
                (file, history.size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usual))
            }
        };
        let in_memory = if file.is_some() { MEMORY.min(limit) } else { limit };
        let history = Arc::new(History::in_memory(board, in_memory));
        if let Some(lookout) = lookout {
            history.finder().watch(lookout);
        }
        let (teller, events) = sync_channel(WAITING);
        let rests = Arc::new(AtomicBool::new(false));
        let mut keeper = Keeper {
            history: Arc::clone(&history),
            file: file.map(|file| (file, limit)),
            watch: watch::Watch::new(current),
            awake,
            rests: Arc::clone(&rests),
            statsd: signals.statsd.as_ref().and_then(|statsd| Teller::open(statsd, registry)),
            has_failed: false,
        };
        // Whoever asks as soon as the process is there is told of the time before it.
        keeper.open();
        let thread =
            std::thread::Builder::new().name("signals".to_owned()).spawn(move || keeper.run(&events))?;
        *TELLER.lock().unwrap_or_else(PoisonError::into_inner) = Some(teller);
        Ok(Self { history, rests, thread: Some(thread) })
    }

    /// What is kept, to be asked.
    pub(crate) fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// The thread looks seldom, since all workers rested when it looked last.
    pub(crate) fn rests(&self) -> bool {
        self.rests.load(Ordering::Acquire)
    }

    /// Workers that rested have something to do.
    pub(crate) fn wake(&self) {
        self.rests.store(false, Ordering::Release);
        let teller = TELLER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(teller) = &*teller {
            // Where the thread has so much to do that this finds no room, it is awake.
            let _ = teller.try_send(Told::Awake);
        }
    }

    /// Writes what there is, and lets go of the file.
    pub(crate) fn finish(&mut self) {
        TELLER.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = self.thread.take() else { return };
        let deadline = Instant::now() + LAST_WRITE;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if thread.is_finished() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Returns when workers are awake and it is not known here: they were not when it was looked last (`was_awake`), or the recorder
/// has seen them rest since. It is told. **Cancel**: nothing is lost.
pub(crate) async fn awakening(awake: &Awake, recorder: Option<&Recorder>, was_awake: bool) {
    // A rest may be over before anybody else has looked: then the recorder alone has seen it, and would sleep on.
    if was_awake && !recorder.is_some_and(Recorder::rests) {
        return std::future::pending().await;
    }
    awake.any().await;
    if let Some(recorder) = recorder {
        recorder.wake();
    }
}

struct Keeper {
    history: Arc<History>,
    /// A file that is not opened yet.
    file: Option<(PathBuf, usize)>,
    watch: watch::Watch,
    /// While nobody is, there is nothing to keep.
    awake: Arc<Awake>,
    rests: Arc<AtomicBool>,
    statsd: Option<Teller>,
    has_failed: bool,
}

/// Who tells a StatsD server.
struct Teller {
    socket: UdpSocket,
    statsd: Statsd,
    registry: Arc<Registry>,
    every: Duration,
    due: Instant,
}

impl Teller {
    fn open(settings: &rhumb_plan::process::Statsd, registry: &Arc<Registry>) -> Option<Self> {
        let any: std::net::IpAddr = match settings.address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let opened = UdpSocket::bind((any, 0)).and_then(|socket| {
            socket.connect(settings.address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => Some(Self {
                socket,
                statsd: Statsd::new(&settings.prefix),
                registry: Arc::clone(registry),
                every: settings.every,
                due: Instant::now() + settings.every,
            }),
            Err(error) => {
                tracing::error!(address = %settings.address, %error, "no metrics for StatsD");
                None
            }
        }
    }

    fn tell(&mut self) {
        self.due = Instant::now() + self.every;
        for datagram in self.statsd.datagrams(&self.registry) {
            // Nobody is told that nobody listens: it may come later.
            let _ = self.socket.send(&datagram);
        }
    }
}

impl Keeper {
    fn run(mut self, events: &Receiver<Told>) {
        let mut next = Instant::now();
        loop {
            let due = self.statsd.as_ref().map_or(next, |statsd| statsd.due.min(next));
            match events.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Told::Event(event)) => self.history.tell(&event),
                Ok(Told::Awake) => next = Instant::now(),
                Err(RecvTimeoutError::Timeout) if due < next => {
                    if let Some(statsd) = &mut self.statsd {
                        statsd.tell();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    // What was counted until here is kept by this look.
                    let rests = !self.awake.is_any();
                    self.rests.store(rests, Ordering::Release);
                    next = Instant::now() + if rests { LOOK_AT_REST } else { LOOK };
                    self.open();
                    self.watch.look();
                    self.look(false);
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Some(statsd) = &mut self.statsd {
            statsd.tell();
        }
        self.look(true);
        self.history.close();
    }

    fn look(&mut self, is_last: bool) {
        self.history.finder().bring_in(crate::health::unix_now());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // milliseconds since 1970
        let now = (unix_now() * 1000.0) as u64;
        match self.history.look(now, is_last) {
            Ok(()) => self.has_failed = false,
            // Once: a full disk stays full for a while.
            Err(error) if !self.has_failed => {
                self.has_failed = true;
                tracing::error!(%error, "golden signals cannot be kept");
            }
            Err(_) => {}
        }
    }

    /// Opens the file. An earlier process may have it still: that is tried again.
    fn open(&mut self) {
        let Some((file, limit)) = &self.file else { return };
        match self.history.move_to(file, *limit) {
            Ok(()) => {
                tracing::debug!(file = %file.display(), "history of golden signals");
                self.file = None;
            }
            Err(error) if !self.has_failed => {
                self.has_failed = true;
                tracing::warn!(%error, "history of golden signals is in memory until its file can be used");
            }
            Err(_) => {}
        }
    }
}

/// The file in the directory that the service manager gives for state.
fn state_file() -> Option<PathBuf> {
    let directories = std::env::var_os("STATE_DIRECTORY")?;
    // systemd.exec(5): several are separated by colons.
    std::env::split_paths(&directories).next().map(|directory| directory.join("signals.redb"))
}

/// Seconds since 1970.
fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_telemetry::Record;
    use rhumb_telemetry::signals::Seen;

    /// How long something may take on a loaded machine; the recorder would sleep for longer.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn until(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn traffic_after_a_rest_that_nobody_else_has_seen_is_recorded() {
        let registry = Registry::new();
        let settings = Signals::default();
        let board = board(&settings, &registry);
        let awake = Arc::new(Awake::default());
        let with = (Current::default(), Arc::clone(&awake));
        let recorder = Recorder::start(Arc::clone(&board), &settings, true, None, &registry, with).unwrap();
        until("it rests, since nobody is awake", || recorder.rests());

        // A worker has something to do before the process has looked whether all rest: it thinks that they were awake all along.
        awake.add();
        let mut worker = board.worker();
        worker.count(
            &Record { status: 200, upstream_status: Some(200), ..Record::default() },
            &Seen {
                rule: registry.rule("default/web", "/"),
                backend: None,
                endpoint: None,
                source: "gateway",
                target: "default/web",
                is_mutual: false,
                plan: "",
            },
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let told = runtime.block_on(async {
            tokio::time::timeout(PATIENCE, awakening(&awake, Some(&recorder), true)).await
        });
        assert!(told.is_ok(), "nobody tells the recorder");
        until("it looks", || !recorder.rests());
        until("what came is recorded", || {
            recorder.history().now(Duration::from_secs(60)).golden.requests == 1
        });
        // It is told once: who runs the process does nothing while all is known.
        let again = runtime.block_on(async {
            tokio::time::timeout(Duration::ZERO, awakening(&awake, Some(&recorder), true)).await
        });
        assert!(again.is_err());
    }
}
