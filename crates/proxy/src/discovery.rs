//! Where captured connections lead that no plan knows, and who calls in plain text: what the data path and the control
//! thread tell each other about the mesh.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rhumb_telemetry::Limit;
use tokio::sync::{mpsc, oneshot};

/// Questions that may wait for the control thread; connections beyond are treated as leading to no service.
pub const MAX_QUESTIONS: usize = 256;

/// How long a connection waits for the answer.
pub const MAX_WAIT: Duration = Duration::from_secs(5);

/// Callers in plain text that are remembered; more are counted together.
pub const MAX_CALLERS: usize = 1024;

/// What an address is to the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// That of a service, by its name in [`rhumb_plan::mesh::Mesh::outbound`] of the plan that is in force by now.
    Service(Arc<str>),
    /// Nothing that is known: what the mesh says about such addresses holds.
    Unknown,
}

/// A connection wants to go there.
#[derive(Debug)]
pub struct Question {
    /// Where.
    pub destination: SocketAddr,
    /// Who waits.
    pub answer: oneshot::Sender<Answer>,
}

/// Asks the control thread what captured destinations are. The default asks nobody.
#[derive(Clone, Default)]
pub struct Discovery {
    questions: Option<mpsc::Sender<Question>>,
}

impl Discovery {
    /// With the end that whoever answers reads from.
    pub fn new() -> (Self, mpsc::Receiver<Question>) {
        let (questions, receiver) = mpsc::channel(MAX_QUESTIONS);
        (Self { questions: Some(questions) }, receiver)
    }

    /// True when there is somebody who answers.
    pub(crate) fn is_asked(&self) -> bool {
        self.questions.is_some()
    }

    /// What an address is; an error is the bound that kept it from being asked.
    pub(crate) async fn ask(&self, destination: SocketAddr) -> Result<Answer, Limit> {
        let Some(questions) = &self.questions else { return Ok(Answer::Unknown) };
        let (answer, answered) = oneshot::channel();
        questions.try_send(Question { destination, answer }).map_err(|_| Limit::MeshQuestions)?;
        match tokio::time::timeout(MAX_WAIT, answered).await {
            Ok(answer) => Ok(answer.unwrap_or(Answer::Unknown)),
            Err(_) => Err(Limit::MeshQuestions),
        }
    }
}

/// Who has called in plain text, by address. Shared by all workers.
#[derive(Default)]
pub struct Plaintext {
    callers: Mutex<HashMap<IpAddr, u64>>,
}

impl Plaintext {
    /// Counts a connection.
    pub(crate) fn note(&self, caller: IpAddr) {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = callers.len() >= MAX_CALLERS;
        match callers.get_mut(&caller) {
            Some(count) => *count += 1,
            None if is_full => {}
            None => {
                tracing::info!(%caller, "a workload calls in plain text");
                callers.insert(caller, 1);
            }
        }
    }

    /// Connections by caller, those with most first.
    pub fn callers(&self) -> Vec<(IpAddr, u64)> {
        let callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = callers.iter().map(|(caller, count)| (*caller, *count)).collect();
        all.sort_unstable_by_key(|(caller, count)| (std::cmp::Reverse(*count), *caller));
        all
    }
}
