//! The connection, on a thread of its own.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rhumb_net::connect::connect_to;
use rhumb_tls::{AsyncTls, ClientTls};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_postgres::config::Host;
use tokio_postgres::tls::{ChannelBinding, NoTls, TlsConnect, TlsStream};
use tokio_postgres::{AsyncMessage, Client, Connection};

use crate::address::{Address, DEFAULT_PORT};

/// The channel on which changes are announced: `pg_notify('rhumb', '')`.
pub const CHANNEL: &str = "rhumb";

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);

/// How long one piece of work may take; then the connection is given up, as one that nobody answers on.
const WORK: Duration = Duration::from_secs(10);

/// How long nobody is asked after a connection could not be made: whoever comes meanwhile is told so at once.
const REST: Duration = Duration::from_millis(300);

/// Pieces of work that wait; more are refused.
const MAX_WAITING: usize = 256;

/// What a connection begins with. A process that is gone in the middle of a transaction holds up nobody for long.
const PREPARE: &str = "SET idle_in_transaction_session_timeout = '5s'; SET statement_timeout = '9s'; \
     SET client_min_messages = warning; LISTEN rhumb";

/// Serialises what makes tables: several processes may start at once. The number is of no meaning.
const MAKE_LOCK: i64 = 0x7268_756d_6264;

/// What is done with a connection.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, tokio_postgres::Error>> + 'a>>;

type Job = Box<dyn for<'a> FnOnce(&'a mut Client) -> Pin<Box<dyn Future<Output = Done> + 'a>> + Send>;

/// How a piece of work ended.
struct Done {
    /// What the database said, if it is a reason to connect again.
    is_broken: bool,
}

/// Why the database did not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, or went away meanwhile. A change may have been made.
    #[error("the database is away")]
    Away,
    /// Too much is waiting for it.
    #[error("the database is too slow: too much is waiting for it")]
    Busy,
    /// It refused.
    #[error("the database: {0}")]
    Refused(String),
}

/// A database. Cheap to clone; the thread ends with the last.
#[derive(Clone, Debug)]
pub struct Database {
    jobs: mpsc::Sender<Opaque>,
    changes: watch::Receiver<u64>,
    contact: Arc<Contact>,
    shown: Arc<str>,
}

/// How it stands with the connection, and what went over it.
#[derive(Debug, Default)]
pub struct Contact {
    is_up: AtomicBool,
    last_unix_seconds: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    micros: AtomicU64,
}

impl Contact {
    /// Whether it was there the last time that it was asked.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// When it last answered. Unit: seconds since 1970; 0 is never.
    #[must_use]
    pub fn last_unix_seconds(&self) -> u64 {
        self.last_unix_seconds.load(Ordering::Relaxed)
    }

    /// Pieces of work that were done, and that were not because it was away.
    #[must_use]
    pub fn work(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// How long those took that were done. Unit: microseconds.
    #[must_use]
    pub fn micros(&self) -> u64 {
        self.micros.load(Ordering::Relaxed)
    }

    fn done(&self, took: Duration) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_unix_seconds.store(unix.as_secs(), Ordering::Relaxed);
        self.done.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// A [`Job`]: it has no `Debug`.
struct Opaque(Job);

impl std::fmt::Debug for Opaque {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

impl Database {
    /// Connects.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(address: Address) -> Result<Self, Error> {
        let database = Self::new(address)?;
        database.check()?;
        Ok(database)
    }

    /// The database at an address, which may be away: whoever wants something of it connects.
    ///
    /// # Errors
    /// When the operating system has no thread left.
    pub fn new(address: Address) -> Result<Self, Error> {
        let (jobs, waiting) = mpsc::channel(MAX_WAITING);
        let (changed, changes) = watch::channel(0);
        let contact = Arc::new(Contact::default());
        let shown = address.shown().into();
        let state = Arc::clone(&contact);
        let spawned = std::thread::Builder::new()
            .name("database".to_owned())
            .spawn(move || run(&address, waiting, changed, &state));
        spawned.map_err(|error| Error::Refused(error.to_string()))?;
        Ok(Self { jobs, changes, contact, shown })
    }

    /// Asks whether it is there.
    ///
    /// # Errors
    /// [`Error`].
    pub fn check(&self) -> Result<(), Error> {
        self.call(|client| Box::pin(client.batch_execute("SELECT 1")))
    }

    /// How it stands with the connection, and what went over it.
    #[must_use]
    pub fn contact(&self) -> &Contact {
        &self.contact
    }

    /// Makes tables where there are none: statements that may be repeated.
    ///
    /// # Errors
    /// [`Error`].
    pub fn make(&self, schema: &'static str) -> Result<(), Error> {
        self.call(move |client| {
            Box::pin(async move {
                let transaction = client.transaction().await?;
                transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MAKE_LOCK]).await?;
                transaction.batch_execute(schema).await?;
                transaction.commit().await
            })
        })
    }

    /// Where it is.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether it was there the last time that it was asked.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.contact.is_up()
    }

    /// A number that is another one after somebody has announced a change, and after a connection was lost.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Does something with the connection, and waits for it: not for threads that others depend on.
    ///
    /// # Errors
    /// [`Error`].
    pub fn call<T: Send + 'static>(
        &self,
        work: impl for<'a> FnOnce(&'a mut Client) -> Work<'a, T> + Send + 'static,
    ) -> Result<T, Error> {
        let (tx, rx) = std::sync::mpsc::sync_channel(1);
        let job: Job = Box::new(move |client| {
            Box::pin(async move {
                let result = work(client).await;
                let is_broken = match &result {
                    Ok(_) => false,
                    // It says of itself that it ends: 57P01 admin_shutdown and its kin, 25P03 for too long a transaction.
                    Err(error) => error
                        .code()
                        .is_none_or(|code| code.code().starts_with("57P") || code.code() == "25P03"),
                };
                // Whoever asked may have gone.
                let _ = tx.send(result);
                Done { is_broken }
            })
        });
        self.jobs.try_send(Opaque(job)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::Away,
        })?;
        match rx.recv() {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(told(&error)),
            // The job was dropped: there is no connection, or it took too long.
            Err(_) => Err(Error::Away),
        }
    }
}

/// What the server says, and nothing of how it was reached.
fn told(error: &tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(error) if !error.code().code().starts_with("57P") => Error::Refused(error.message().to_owned()),
        Some(_) => Error::Away,
        None if error.is_closed() => Error::Away,
        None => Error::Refused(words(error)),
    }
}

fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// Serves jobs until nobody can send any.
fn run(address: &Address, mut jobs: mpsc::Receiver<Opaque>, changed: watch::Sender<u64>, contact: &Contact) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let changed = std::rc::Rc::new(changed);
        let mut client: Option<Client> = None;
        let mut rested: Option<Instant> = None;
        while let Some(Opaque(job)) = jobs.recv().await {
            if client.as_ref().is_some_and(Client::is_closed) {
                client = None;
            }
            if client.is_none() && rested.is_none_or(|until| now() >= until) {
                match tokio::time::timeout(CONNECT, connect(address, &changed)).await {
                    Ok(Ok(made)) => {
                        if !contact.is_up.swap(true, Ordering::Relaxed) {
                            tracing::info!(store = address.shown(), "the database is there");
                        }
                        client = Some(made);
                        rested = None;
                        // What was announced before is not known.
                        changed.send_modify(|number| *number += 1);
                    }
                    failed => {
                        let why = match failed {
                            Ok(Err(why)) => why,
                            _ => "it does not answer".to_owned(),
                        };
                        if contact.is_up.swap(false, Ordering::Relaxed) || rested.is_none() {
                            tracing::warn!(store = address.shown(), why, "the database is away");
                        }
                        rested = Some(now() + REST);
                    }
                }
            }
            let Some(connected) = &mut client else {
                contact.failed.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let began = now();
            match tokio::time::timeout(WORK, job(connected)).await {
                Ok(Done { is_broken: false }) => contact.done(began.elapsed()),
                _ => {
                    contact.failed.fetch_add(1, Ordering::Relaxed);
                    client = None;
                }
            }
        }
    });
}

async fn connect(address: &Address, changed: &std::rc::Rc<watch::Sender<u64>>) -> Result<Client, String> {
    let config = &address.config;
    let (host, port) =
        (config.get_hosts().first(), config.get_ports().first().copied().unwrap_or(DEFAULT_PORT));
    let client = match host {
        Some(Host::Tcp(name)) => {
            let stream = connect_to(name, port).await.map_err(text)?;
            match address.tls.clone() {
                Some(tls) => follow(config.connect_raw(stream, Encrypted(tls)).await, changed),
                None => follow(config.connect_raw(stream, NoTls).await, changed),
            }
        }
        Some(Host::Unix(directory)) => {
            let path = directory.join(format!(".s.PGSQL.{port}"));
            let stream = UnixStream::connect(path).await.map_err(text)?;
            follow(config.connect_raw(stream, NoTls).await, changed)
        }
        None => return Err("no host".to_owned()),
    }?;
    client.batch_execute(PREPARE).await.map_err(|error| words(&error))?;
    Ok(client)
}

fn text(error: io::Error) -> String {
    error.to_string()
}

/// Drives a connection, and hears what is announced.
fn follow<S, T>(
    made: Result<(Client, Connection<S, T>), tokio_postgres::Error>,
    changed: &std::rc::Rc<watch::Sender<u64>>,
) -> Result<Client, String>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    T: TlsStream + Unpin + 'static,
{
    let (client, mut connection) = made.map_err(|error| words(&error))?;
    let changed = std::rc::Rc::clone(changed);
    tokio::task::spawn_local(async move {
        loop {
            match poll_fn(|cx| connection.poll_message(cx)).await {
                Some(Ok(AsyncMessage::Notification(_))) => changed.send_modify(|number| *number += 1),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            }
        }
        changed.send_modify(|number| *number += 1);
    });
    Ok(client)
}

fn now() -> Instant {
    Instant::now()
}

/// TLS as the database asks for it: after its own question whether it may begin.
struct Encrypted(ClientTls);

impl TlsConnect<TcpStream> for Encrypted {
    type Stream = Tls;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Tls>>>>;

    fn connect(self, stream: TcpStream) -> Self::Future {
        Box::pin(async move {
            let ip = stream.peer_addr()?.ip();
            AsyncTls::connect(stream, &self.0, ip).await.map(Tls).map_err(io::Error::other)
        })
    }
}

struct Tls(AsyncTls);

impl TlsStream for Tls {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Tls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
