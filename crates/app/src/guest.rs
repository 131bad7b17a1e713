//! The application that a sidecar stands beside: started when the sidecar is ready, told to end when its callers have been
//! told, its exit code handed on.
//!
//! The sidecar may be process 1 of a container, so it collects every child that ends, also those that were left to it. It
//! never waits for an application that is gone, and an application that does not start ends it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{
    Pid, Resource, Rlimit, Signal as Unix, WaitOptions, getppid, getrlimit, kill_process, prlimit,
    set_parent_process_death_signal, wait,
};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// Exit code when the program does not exist, as shells have it (POSIX, Shell & Utilities §2.8.2).
const NOT_FOUND: u8 = 127;

/// Exit code when it exists and cannot be run.
const NOT_RUNNABLE: u8 = 126;

/// Exit codes of programs that a signal ended begin behind this, as shells have it.
const BY_SIGNAL: u8 = 128;

/// The command of an application.
#[derive(Clone, Debug)]
pub(crate) struct GuestCommand {
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
}

/// How an application ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The exit code to hand on.
    pub(crate) code: u8,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.signal {
            Some(signal) => write!(f, "signal {signal}"),
            None => write!(f, "exit code {}", self.code),
        }
    }
}

/// An application that does not start.
#[derive(Debug)]
pub(crate) struct NotStarted {
    program: OsString,
    source: io::Error,
}

impl NotStarted {
    /// The exit code that a shell would have.
    pub(crate) fn code(&self) -> u8 {
        if self.source.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE }
    }
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.program.to_string_lossy();
        match self.source.kind() {
            io::ErrorKind::NotFound => {
                write!(f, "the application does not start: there is no program {program} here or on the path")
            }
            io::ErrorKind::PermissionDenied => {
                write!(f, "the application does not start: {program} may not be executed (chmod +x?)")
            }
            _ => write!(f, "the application {program} does not start: {}", self.source),
        }
    }
}

impl std::error::Error for NotStarted {}

/// The application, from before its start to after its end.
pub(crate) struct Guest {
    command: GuestCommand,
    child: Option<Pid>,
    ended: Option<Ended>,
    children: Stream,
    passed_on: PassedOn,
    /// The terminal has told it of Ctrl-C itself: it is in the same group of processes.
    shares_terminal: bool,
    /// How many files it may open: what this process was given, not what it takes for itself.
    files: Rlimit,
}

/// Signals that mean nothing to a sidecar but something to many applications.
struct PassedOn {
    hup: Stream,
    usr1: Stream,
    usr2: Stream,
    winch: Stream,
}

impl Guest {
    /// Takes the signals of children over; nothing is started. Call it before this process raises its own limits.
    ///
    /// # Errors
    /// When the operating system refuses a handler.
    pub(crate) fn new(command: GuestCommand) -> io::Result<Self> {
        let passed_on = PassedOn {
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
            winch: signal(SignalKind::window_change())?,
        };
        let children = signal(SignalKind::child())?;
        let files = getrlimit(Resource::Nofile);
        Ok(Self { command, child: None, ended: None, children, passed_on, shares_terminal: false, files })
    }

    /// Starts it, with this process's own input and outputs.
    ///
    /// # Errors
    /// Why it does not start.
    pub(crate) fn start(&mut self) -> Result<(), NotStarted> {
        // At a terminal only one group of processes may read, and Ctrl-C tells all of it. Anywhere else the application
        // hears of the end from us, when it is its turn.
        self.shares_terminal = io::stdin().is_terminal();
        let mut command = self.command();
        command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
        if !self.shares_terminal {
            command.process_group(0);
        }
        // What the service manager said is for the process that it has started.
        for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(variable);
        }
        match command.spawn() {
            Ok(child) => {
                tracing::info!(pid = child.id(), program = %self.command.program.to_string_lossy(), "the application starts");
                // It is collected with all others; the handle of the library would only wait for it a second time.
                let child = Pid::from_child(&child);
                self.child = Some(child);
                if let Err(error) = prlimit(Some(child), Resource::Nofile, self.files) {
                    tracing::debug!(%error, "the application may open as many files as this process");
                }
                Ok(())
            }
            Err(source) => Err(NotStarted { program: self.command.program.clone(), source }),
        }
    }

    /// The application by way of this program, which has the kernel end it together with the sidecar ([`begin`]); by itself
    /// where that cannot be, or where it does not start.
    fn command(&self) -> Command {
        let GuestCommand { program, arguments } = &self.command;
        if !is_there(program) || !Path::new(OWN_PROGRAM).exists() {
            let mut command = Command::new(program);
            command.args(arguments);
            return command;
        }
        let mut command = Command::new(OWN_PROGRAM);
        command.arg0("rhumb").arg(BEGIN).arg(std::process::id().to_string()).arg(program).args(arguments);
        command
    }

    /// How it ended.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// Waits until it has ended; signals that are its own go to it meanwhile. Never comes back for one that was not
    /// started. **Cancel**: nothing is lost.
    pub(crate) async fn end(&mut self) -> Ended {
        loop {
            if self.child.is_some() {
                // Before waiting, too: it may have ended before anybody asked.
                self.collect();
            }
            if let Some(ended) = self.ended {
                return ended;
            }
            let passed = &mut self.passed_on;
            let received = tokio::select! {
                _ = self.children.recv() => continue,
                _ = passed.hup.recv() => Unix::HUP,
                _ = passed.usr1.recv() => Unix::USR1,
                _ = passed.usr2.recv() => Unix::USR2,
                _ = passed.winch.recv() => Unix::WINCH,
            };
            if !(self.shares_terminal && received == Unix::WINCH) {
                self.tell(received);
            }
        }
    }

    /// Sends it a signal.
    fn tell(&self, signal: Unix) {
        if let (Some(child), None) = (self.child, self.ended) {
            // It is not collected yet, so its id is its own.
            if let Err(error) = kill_process(child, signal) {
                tracing::debug!(%error, "the application was not told of {signal:?}");
            }
        }
    }

    /// Tells it to end, with the signal that told this process.
    pub(crate) fn tell_to_end(&self, signal: Unix) {
        if !(self.shares_terminal && signal == Unix::INT) {
            self.tell(signal);
        }
    }

    /// Collects every child that has ended.
    fn collect(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if Some(pid) != self.child {
                continue;
            }
            let ended = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Ended { code: u8::try_from(code).unwrap_or(u8::MAX), signal: None },
                (None, Some(signal)) => {
                    let number = u8::try_from(signal).unwrap_or_default();
                    Ended { code: BY_SIGNAL.saturating_add(number), signal: Some(signal) }
                }
                // Stopped or continued: neither was asked for.
                (None, None) => continue,
            };
            self.ended = Some(ended);
        }
    }
}

/// The first argument of a process that becomes an application. No verb is called so.
const BEGIN: &str = "--become-application-of";

/// The program of a process, whatever has become of its file.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Where programs are looked for when nothing says so (execvp(3)).
const USUAL_PATH: &str = "/usr/local/bin:/bin:/usr/bin";

/// True when there is a program of this name; whether it can be run is seen then.
fn is_there(program: &OsStr) -> bool {
    if program.as_bytes().contains(&b'/') {
        return Path::new(program).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| USUAL_PATH.into());
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Becomes the application of a sidecar, when this process was started for that: it is told to end when the sidecar is gone,
/// however that went. What only the process itself can ask for has to be asked between fork and exec; doing that in a
/// program of its own needs no code that is `unsafe`. Gives an exit code when there is no application to become.
pub(crate) fn begin() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != BEGIN {
        return None;
    }
    let sidecar = arguments.next()?;
    let program = arguments.next()?;
    // A program with privileges of its own takes this back (prctl(2)): it goes on then, as it did without.
    let asked = set_parent_process_death_signal(Some(Unix::TERM));
    let parent = getppid().map(|parent| parent.as_raw_pid().to_string());
    if asked.is_ok() && parent.as_deref().map(OsStr::new) != Some(&sidecar) {
        // It was gone before this could be asked.
        return Some(ExitCode::from(BY_SIGNAL + TERM));
    }
    let source = Command::new(&program).args(arguments).exec();
    let error = NotStarted { program, source };
    crate::print::err(&format!("rhumb: {error}\n"));
    Some(ExitCode::from(error.code()))
}

/// The number of SIGTERM (signal(7)).
const TERM: u8 = 15;

impl Drop for Guest {
    /// A sidecar that ends before its time takes the application along: without it nothing gets through.
    fn drop(&mut self) {
        self.tell(Unix::TERM);
    }
}
