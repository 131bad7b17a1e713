//! Signals of the operating system as requests to the process.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGTERM, SIGINT, SIGQUIT: finish what runs, then end. A second one ends at once.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: open log files again, after a log rotator renamed them.
    Reopen,
    /// SIGUSR2: upgrade in place, which this version does not do. Without a handler it would end the process.
    Upgrade,
}

/// The signals of this process.
pub(crate) struct Signals {
    term: Stream,
    int: Stream,
    quit: Stream,
    hup: Stream,
    usr1: Stream,
    usr2: Stream,
}

impl Signals {
    /// Takes the signals over; their default effects are gone from here on.
    ///
    /// # Errors
    /// When the operating system refuses a handler.
    pub(crate) fn take() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one. **Cancel**: nothing is lost.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::Stop,
            _ = self.int.recv() => Signal::Stop,
            _ = self.quit.recv() => Signal::Stop,
            _ = self.hup.recv() => Signal::Reload,
            _ = self.usr1.recv() => Signal::Reopen,
            _ = self.usr2.recv() => Signal::Upgrade,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Unix, getpid, kill_process};

    #[test]
    fn each_signal_has_its_meaning() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut signals = Signals::take().unwrap();
            for (unix, meaning) in [
                (Unix::TERM, Signal::Stop),
                (Unix::INT, Signal::Stop),
                (Unix::QUIT, Signal::Stop),
                (Unix::HUP, Signal::Reload),
                (Unix::USR1, Signal::Reopen),
                (Unix::USR2, Signal::Upgrade),
            ] {
                kill_process(getpid(), unix).unwrap();
                assert_eq!(signals.next().await, meaning, "{unix:?}");
            }
        });
    }
}
