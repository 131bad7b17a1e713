//! Names that are not in the table: whoever knows more is asked, and the table is looked at again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// Questions for names that wait for somebody who knows more. One more is answered as if nobody knew.
pub const MAX_ASKED: usize = 256;

/// How long one waits. Programs ask again after five seconds (resolv.conf(5), `timeout`).
pub const MAX_WAIT: Duration = Duration::from_secs(4);

/// A name is to be found.
#[derive(Debug)]
pub struct Question {
    /// The name, in lower case and without a dot at its end.
    pub name: Box<str>,
    /// Who waits.
    pub answer: oneshot::Sender<Told>,
}

/// What came of looking for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// If there is such a name it is in the table now.
    Looked,
    /// It could not be looked for.
    Away,
}

/// Asks whoever knows more names. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Asking {
    questions: mpsc::Sender<Question>,
    is_open: Arc<AtomicBool>,
}

impl Asking {
    /// With the end that whoever knows more reads from. Nobody is asked until it is [opened](Self::open).
    pub fn new() -> (Self, mpsc::Receiver<Question>) {
        let (questions, receiver) = mpsc::channel(MAX_ASKED);
        (Self { questions, is_open: Arc::default() }, receiver)
    }

    /// Whoever knows more answers from here on, or does so no longer.
    pub fn open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::Relaxed);
    }

    /// Has a name looked for; nothing when a bound kept it from being.
    pub(crate) async fn ask(&self, name: Box<str>) -> Option<Told> {
        if !self.is_open.load(Ordering::Relaxed) {
            return Some(Told::Away);
        }
        let (answer, answered) = oneshot::channel();
        self.questions.try_send(Question { name, answer }).ok()?;
        let told = tokio::time::timeout(MAX_WAIT, answered).await.ok()?;
        Some(told.unwrap_or(Told::Away))
    }
}
