//! Reports of a proxy, over the connection that its documents come by.
//!
//! Nobody waits for them: a report that finds no room is dropped by whoever makes it.

use http::uri::PathAndQuery;
use rhumb_ads::report::{MAX_REPORT, Question, REPORT_PATH, Report};
use rhumb_grpc::causes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::{Code, Request, Streaming};
use tonic_prost::ProstCodec;

use crate::client::{Agent, told};

/// Reports that wait to be sent.
const WAITING: usize = 16;

/// A stream of reports. It ends when this is dropped.
pub struct Reports {
    tx: mpsc::Sender<Report>,
    questions: Streaming<Question>,
}

/// Why there is no stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReports {
    /// The control plane hears none: it is older.
    #[error("this control plane takes no reports")]
    Unheard,
    /// It went wrong; it is to be tried again.
    #[error("{0}")]
    Failed(String),
}

impl Reports {
    /// Sends a report. False when it found no room, or the stream has ended.
    pub fn send(&self, report: Report) -> bool {
        self.tx.try_send(report).is_ok()
    }

    /// What is asked; nothing when the stream has ended. **Cancel**: nothing is lost.
    pub async fn question(&mut self) -> Option<Question> {
        self.questions.message().await.ok().flatten()
    }
}

impl Agent {
    /// Begins a stream of reports with the first of them, as soon as a control plane is connected.
    ///
    /// # Errors
    /// [`NoReports`].
    pub async fn reports(&self, first: impl FnOnce() -> Report) -> Result<Reports, NoReports> {
        let mut channels = self.channels();
        let channel = channels.wait_for(Option::is_some).await.ok().and_then(|channel| channel.clone());
        let ended = || NoReports::Failed("this process ends".to_owned());
        let channel = channel.ok_or_else(ended)?;
        let (tx, rx) = mpsc::channel(WAITING);
        // What it says first, it says with the request.
        let _ = tx.try_send(first());
        let mut grpc = Grpc::new(channel).max_encoding_message_size(MAX_REPORT);
        grpc.ready().await.map_err(|error| NoReports::Failed(causes(&error)))?;
        let codec = ProstCodec::<Report, Question>::default();
        let path = PathAndQuery::from_static(REPORT_PATH);
        match grpc.streaming(Request::new(ReceiverStream::new(rx)), path, codec).await {
            Ok(response) => Ok(Reports { tx, questions: response.into_inner() }),
            Err(status) if status.code() == Code::Unimplemented => Err(NoReports::Unheard),
            Err(status) => Err(NoReports::Failed(told(&status))),
        }
    }
}
