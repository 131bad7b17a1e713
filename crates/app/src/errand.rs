//! What somebody outside of the workers has a worker do: asking another service, over its connections.

use std::sync::{Arc, OnceLock};

use rhumb_policy::Out;
use rhumb_policy::call::Local;
use rhumb_proxy::worker::Command;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// The way to a worker, known when there are some.
#[derive(Clone, Default)]
pub(crate) struct Errands(Arc<OnceLock<UnboundedSender<Command>>>);

impl Errands {
    /// This worker does them from now on.
    pub(crate) fn go_to(&self, worker: UnboundedSender<Command>) {
        // The first one stays.
        let _ = self.0.set(worker);
    }

    /// Has `work` done; nothing when there is no worker, or it ends. **Cancel**: the work goes on, for nobody.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(Out) -> Local<T> + Send + 'static,
    ) -> Option<T> {
        let (done, result) = oneshot::channel();
        let errand = Box::new(move |out: Out| -> Local<()> {
            Box::pin(async move {
                // Without a receiver nobody waits any more.
                let _ = done.send(work(out).await);
            })
        });
        self.0.get()?.send(Command::Ask(errand)).ok()?;
        result.await.ok()
    }
}
