//! Signals of the operating system as requests to the process.

use std::io;

use rustix::process::Signal as Unix;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGTERM, SIGINT, SIGQUIT: finish what runs, then end. A second one ends at once.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: open log files again, after a log rotator renamed them.
    Reopen,
    /// SIGUSR2: start the binary anew, hand the listening sockets over, and drain.
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
    /// What the admin listener is asked for, and what was put back.
    asked: UnboundedReceiver<Signal>,
    asker: UnboundedSender<Signal>,
    last_stop: Unix,
}

impl Signals {
    /// Takes the signals over; their default effects are gone from here on.
    ///
    /// # Errors
    /// When the operating system refuses a handler.
    pub(crate) fn take() -> io::Result<Self> {
        let (asker, asked) = unbounded_channel();
        Ok(Self {
            asked,
            asker,
            last_stop: Unix::TERM,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Where requests of others than the operating system go.
    pub(crate) fn orders(&self) -> UnboundedSender<Signal> {
        self.asker.clone()
    }

    /// Has it come once more, after those that wait.
    pub(crate) fn put_back(&self, signal: Signal) {
        // The receiver is this value's own.
        let _ = self.asker.send(signal);
    }

    /// Which signal it was that last asked for the end; SIGTERM when it was none.
    pub(crate) fn last_stop(&self) -> Unix {
        self.last_stop
    }

    fn stop(&mut self, signal: Unix) -> Signal {
        self.last_stop = signal;
        Signal::Stop
    }

    /// The next one. **Cancel**: nothing is lost.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => self.stop(Unix::TERM),
            _ = self.int.recv() => self.stop(Unix::INT),
            _ = self.quit.recv() => self.stop(Unix::QUIT),
            _ = self.hup.recv() => Signal::Reload,
            _ = self.usr1.recv() => Signal::Reopen,
            _ = self.usr2.recv() => Signal::Upgrade,
            // This value holds a sender: there is always a next one.
            asked = self.asked.recv() => asked.unwrap_or(Signal::Stop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{getpid, kill_process};

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
