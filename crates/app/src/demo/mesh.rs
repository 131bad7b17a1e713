//! `rhumb demo mesh`: a gateway and three services, each a process with its sidecar, on machines of their own where that can
//! be had (network namespaces), else side by side on this one.
//!
//! [`place`] makes the machines, [`home`] the documents and identities, [`service`] is what the services are, [`check`] finds
//! out whether what is promised holds.

pub(crate) mod service;
mod place;
mod home;
mod identity;
mod check;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal as Unix, kill_process};

use crate::cli::Exit;
use crate::print;
use crate::signal::{Signal, Signals};
use home::Home;
use place::Place;

/// The services, each calling the next.
const SERVICES: [&str; 3] = ["shop", "orders", "stock"];

/// What a call through all of them answers.
const WHOLE: &str = "shop < orders < stock";

/// How long everything together may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often starting everything is tried.
const ATTEMPTS: u32 = 3;

/// How long a process may take to end.
const FAREWELL: Duration = Duration::from_secs(10);

/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How the demonstration is to run.
pub(crate) struct Options {
    /// Find out whether it works, and end.
    pub(crate) check: bool,
    /// Side by side on this machine, even where namespaces could be had.
    pub(crate) loopback: bool,
}

/// A process of the demonstration.
struct Process {
    name: &'static str,
    child: Child,
}

/// Everything that runs; ended when it is dropped, the gateway first.
struct Running {
    processes: Vec<Process>,
    home: Home,
    place: Place,
}

/// Runs the demonstration until Ctrl-C, or with `check` until it is known whether it works.
///
/// # Errors
/// When something cannot be started; what its process said is told.
pub(crate) fn run(options: &Options) -> anyhow::Result<Exit> {
    let mut running = start(options)?;
    if options.check {
        let found = check::check(&running.home, &running.place)?;
        print::out(&format!("{found}\n"))?;
        return Ok(if found.is_good() { Exit::Ok } else { Exit::Runtime });
    }
    print::out(&running.banner())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::take().context("signals")?;
        let mut look = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                signal = signals.next() => if signal == Signal::Stop { break },
                _ = look.tick() => running.all_run()?,
            }
        }
        anyhow::Ok(())
    })?;
    Ok(Exit::Ok)
}

/// Everything, started. A port that was free when it was chosen may be taken before it is used, so it is tried again.
fn start(options: &Options) -> anyhow::Result<Running> {
    let mut attempt = 1;
    loop {
        let place =
            Place::choose(options.loopback, !options.check).context("machines of the demonstration")?;
        let home = Home::write(&place).context("documents of the demonstration")?;
        let mut running = Running { processes: Vec::new(), home, place };
        match running.start().and_then(|()| running.wait()) {
            Ok(()) => return Ok(running),
            Err(error) if attempt < ATTEMPTS => {
                tracing::debug!("attempt {attempt}: {error:#}");
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

impl Running {
    fn start(&mut self) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("this program")?;
        for (at, name) in SERVICES.into_iter().enumerate() {
            let next = SERVICES.get(at + 1).copied();
            self.place.intercept(name, &program)?;
            let mut words = self.home.sidecar(name, next);
            words.extend(["--".into(), program.clone().into()]);
            words.extend(["demo", "service", name].map(Into::into));
            words.push(self.place.application(name).to_string().into());
            words.extend(next.map(|next| self.place.url(name, next).into()));
            self.spawn(name, self.place.command(name, &program), &words)?;
        }
        let words = self.home.gateway();
        self.spawn(place::GATE, self.place.command(place::GATE, &program), &words)
    }

    fn spawn(
        &mut self,
        name: &'static str,
        mut command: Command,
        words: &[std::ffi::OsString],
    ) -> anyhow::Result<()> {
        let log = std::fs::File::create(self.home.log(name)).context("a log")?;
        command.args(words).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Settings of this process are not theirs.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("RHUMB_") {
                command.env_remove(variable);
            }
        }
        // Ctrl-C is for this process, which ends the others in their order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().with_context(|| format!("{name} does not start"))?;
        self.processes.push(Process { name, child });
        Ok(())
    }

    /// Waits until a call crosses all of it.
    fn wait(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut last = String::new();
        while Instant::now() < until {
            self.all_run()?;
            match service::call(self.place.gate(), "localhost", "/") {
                Ok((200, content)) if content.trim() == WHOLE => return Ok(()),
                Ok((status, content)) => last = format!("{status}: {}", content.trim()),
                Err(error) => last = error.to_string(),
            }
            std::thread::park_timeout(LOOK);
        }
        bail!(
            "the demonstration was not ready within {PATIENCE:?}, the last call ended so: {last}\n{}",
            self.logs()
        )
    }

    fn all_run(&mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            if let Some(status) = process.child.try_wait()? {
                let said = std::fs::read_to_string(self.home.log(process.name)).unwrap_or_default();
                bail!("{} has ended ({status}):\n{said}", process.name);
            }
        }
        Ok(())
    }

    fn logs(&self) -> String {
        let log = |process: &Process| {
            let said = std::fs::read_to_string(self.home.log(process.name)).unwrap_or_default();
            format!("--- {}\n{said}", process.name)
        };
        self.processes.iter().map(log).collect()
    }

    fn banner(&self) -> String {
        let (gate, home) = (self.place.gate(), self.home.path().display());
        let program = std::env::args().next().unwrap_or_else(|| "rhumb".to_owned());
        format!(
            "
A gateway and three services (shop calls orders, orders calls stock) run, {place}.
Between them everything is mutual TLS; each has an identity of its own, and orders lets only shop call. Try, in another
terminal:

  curl http://{gate}/               # through the gateway and all three
  curl -i http://{gate}/orders      # the gateway calls orders itself: 403, it is not shop
{more}
Documents, identities and logs are in {home}; save a change and it is live. Ctrl-C ends.
  {program} demo mesh --check       # the same, verified

",
            place = self.place.told(),
            more = self.place.try_this(&program),
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = kill_process(Pid::from_child(&process.child), Unix::TERM);
        }
        let until = Instant::now() + FAREWELL;
        for process in &mut self.processes {
            while matches!(process.child.try_wait(), Ok(None)) && Instant::now() < until {
                std::thread::park_timeout(LOOK);
            }
            // One that does not end in time, or has ended.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}
