//! Upgrade in place (SIGUSR2): this process starts the binary anew and hands its listening sockets over; when the
//! successor serves, this one drains.
//!
//! The two talk over a socket that the successor is given as its standard input:
//!
//! ```text
//! this process                      successor
//!   start it ───────────────────────▶ reads its configuration
//!   listening sockets ──────────────▶ takes them, opens what else it needs
//!                    ◀───────── ready accepts already
//!   stops the admin listener,
//!   tells the service manager
//!   yours ──────────────────────────▶ opens the admin listener, is the service
//!   drains
//! ```
//!
//! Both accept on the same sockets for a moment: no connection is refused, and none that waits in a queue is lost. When
//! the successor ends or is silent, this process goes on and says why.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rhumb_net::handover::{Channel, Inherited};

use crate::systemd;

/// How long a successor may take until it serves.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a successor waits for its predecessor to let go of the admin listener.
const LETTING_GO: Duration = Duration::from_secs(10);

/// How often a silent successor is looked after.
const LOOK: Duration = Duration::from_millis(100);

/// Variable that tells a successor whose it is: the id of the process that started it.
const FROM: &str = "RHUMB_UPGRADE_FROM";

/// How this process was started.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// As it was written: a name is looked up anew, a link is followed anew.
    program: OsString,
    arguments: Vec<OsString>,
    /// Where the binary was, when the name leads nowhere.
    binary: Option<PathBuf>,
}

/// A successor that serves.
pub(crate) struct Successor {
    /// Its process id.
    pub(crate) pid: u32,
    channel: Channel,
}

/// Why there is no successor.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The binary cannot be started.
    Start(io::Error),
    /// It ended.
    Ended(String),
    /// It was not ready in time, and was ended.
    Late,
    /// This process was told to end.
    CalledOff,
    /// The way to it broke.
    Broken(io::Error),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => write!(f, "the binary cannot be started: {error}"),
            Self::Ended(how) => write!(f, "the new process ended ({how}); what it said is above"),
            Self::CalledOff => f.write_str("this process was told to end"),
            Self::Late => write!(f, "the new process was not ready within {PATIENCE:?}"),
            Self::Broken(error) => write!(f, "the way to the new process broke: {error}"),
        }
    }
}

impl std::error::Error for Failed {}

impl Origin {
    /// That of this process. Call it at start: later the binary may have been replaced.
    pub(crate) fn of_this_process() -> Self {
        let mut arguments = std::env::args_os();
        let program = arguments.next().unwrap_or_default();
        Self { program, arguments: arguments.collect(), binary: std::env::current_exe().ok() }
    }

    /// Starts a successor and gives it these sockets; returns when it serves, or soon after it was called off. Blocks.
    ///
    /// # Errors
    /// Why there is none; this process is as it was then.
    pub(crate) fn succeed(
        &self,
        sockets: &[OwnedFd],
        is_called_off: &AtomicBool,
    ) -> Result<Successor, Failed> {
        let (channel, theirs) = Channel::pair().map_err(Failed::Broken)?;
        let mut child = self.start(theirs).map_err(Failed::Start)?;
        match introduce(&channel, sockets, &mut child, is_called_off) {
            Ok(()) => Ok(Successor { pid: child.id(), channel }),
            Err(failed) => {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                Err(failed)
            }
        }
    }

    fn start(&self, stdin: OwnedFd) -> io::Result<Child> {
        let other = stdin.try_clone()?;
        match self.command(self.program.clone(), stdin).spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match &self.binary {
                Some(binary) => self.command(binary.clone().into(), other).spawn(),
                None => Err(error),
            },
            started => started,
        }
    }

    fn command(&self, program: OsString, stdin: OwnedFd) -> Command {
        let mut command = Command::new(program);
        command.args(&self.arguments).stdin(Stdio::from(stdin)).env(FROM, std::process::id().to_string());
        for variable in systemd::OWN_VARIABLES {
            command.env_remove(variable);
        }
        command
    }
}

fn introduce(
    channel: &Channel,
    sockets: &[OwnedFd],
    child: &mut Child,
    is_called_off: &AtomicBool,
) -> Result<(), Failed> {
    channel.set_patience(LOOK).map_err(Failed::Broken)?;
    // A send that fails finds a process that has ended: how it ended says more.
    let given = channel.give(sockets);
    let late = Instant::now() + PATIENCE;
    loop {
        match channel.hear() {
            Ok(words) if words == "ready" => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if let Err(error) = given {
                    return Err(Failed::Broken(error));
                }
            }
            Err(error) => return Err(Failed::Broken(error)),
        }
        if let Some(status) = child.try_wait().map_err(Failed::Broken)? {
            return Err(Failed::Ended(status.to_string()));
        }
        if is_called_off.load(Ordering::Relaxed) {
            return Err(Failed::CalledOff);
        }
        if Instant::now() > late {
            return Err(Failed::Late);
        }
        // The end of the channel comes a moment before the end of the process.
        std::thread::park_timeout(LOOK / 10);
    }
}

impl Successor {
    /// Tells it that it is the service from here on.
    pub(crate) fn take_over(self) {
        // When it has ended meanwhile, nobody is left to tell.
        let _ = self.channel.say("yours");
    }

    /// Tells it to end: this process was told to, and means the service.
    pub(crate) fn dismiss(self) {
        let _ = self.channel.say("end");
    }
}

/// What a successor gets from its predecessor.
pub(crate) struct Predecessor {
    /// Its process id.
    pub(crate) pid: u32,
    channel: Channel,
}

impl Predecessor {
    /// The process that started this one to be its successor, and its sockets; `None` for a process that was started
    /// otherwise.
    ///
    /// # Errors
    /// When the sockets do not arrive.
    pub(crate) fn meet() -> io::Result<Option<(Self, Inherited)>> {
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().to_string());
        let Some(pid) = std::env::var(FROM).ok().filter(|from| Some(from) == parent.as_ref()) else {
            return Ok(None);
        };
        let channel = Channel::inherited(io::stdin().as_fd().try_clone_to_owned()?)?;
        // Whoever reads standard input is to find nothing there.
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        channel.set_patience(LETTING_GO)?;
        let (sockets, others) = Inherited::sort(channel.take()?);
        tracing::info!(pid, sockets = sockets.len(), others, "taking over from another process");
        Ok(Some((Self { pid: pid.parse().unwrap_or(0), channel }, sockets)))
    }

    /// Says that this process serves; returns when the other one has let go. False when it was told to end meanwhile,
    /// which is meant for both. Blocks.
    pub(crate) fn relieve(self) -> bool {
        let heard = self.channel.say("ready").and_then(|()| self.channel.hear());
        match heard {
            Ok(words) if words == "yours" => {}
            Ok(words) if words == "end" => return false,
            Ok(_) => tracing::warn!(pid = self.pid, "the other process is gone: taking over all the same"),
            Err(error) => {
                tracing::warn!(pid = self.pid, %error, "the other process is silent: taking over all the same");
            }
        }
        true
    }
}
