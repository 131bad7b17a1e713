//! The gRPC service that proxies report to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rhumb_ads::report::{self, MAX_REPORT, Question, REPORT_PATH, Report};
use rhumb_grpc::{Call, Service, no_such_method};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Request, Response, Status, Streaming};

use crate::caller::Caller;
use crate::fleet::{Fleet, Stream};
use crate::hub::{Hub, now};
use crate::serve::{Desk, ends};

/// Reports that a proxy may send at once, and how long one of them takes to come back. A proxy sends one in ten seconds.
const BURST: (u32, Duration) = (30, Duration::from_secs(1));

/// The same of reports of requests that were asked for; more are left out.
const TOLD: (u32, Duration) = (200, Duration::from_millis(25));

/// Questions that wait for a proxy.
const BACKLOG: usize = 16;

static STREAMS: AtomicU64 = AtomicU64::new(1);

/// Reports of proxies.
#[derive(Clone)]
pub(crate) struct Reports(pub(crate) Desk);

impl Service for Reports {
    const NAME: &'static str = report::SERVICE;

    async fn answer(self, call: Call) -> http::Response<Body> {
        match call.path() {
            REPORT_PATH => call.up_to(MAX_REPORT).streaming(self, Self::hear).await,
            _ => no_such_method(),
        }
    }
}

impl Reports {
    async fn hear(
        self,
        reports: Request<Streaming<Report>>,
    ) -> Result<Response<ReceiverStream<Result<Question, Status>>>, Status> {
        let caller = self.0.known(reports.extensions())?;
        let hub = self.0.hub;
        let fleet =
            hub.fleet().cloned().ok_or_else(|| Status::unimplemented("nobody puts reports together"))?;
        let (tx, rx) = mpsc::channel(BACKLOG);
        tokio::spawn(serve(hub, fleet, caller, reports.into_inner(), tx));
        Ok(Response::new(ReceiverStream::new(rx)))
    }
}

/// Hears one proxy until either side ends the stream.
async fn serve(
    hub: Arc<Hub>,
    fleet: Arc<Fleet>,
    caller: Caller,
    mut reports: Streaming<Report>,
    tx: mpsc::Sender<Result<Question, Status>>,
) {
    let mut stream = Stream::new(STREAMS.fetch_add(1, Ordering::Relaxed));
    fleet.join(&stream, tx.clone());
    let mut allowance = Allowance::new(BURST);
    let mut told = Allowance::new(TOLD);
    loop {
        let report = tokio::select! {
            report = reports.message() => report,
            () = tx.closed() => break,
            () = hub.ending() => {
                let _ = tx.send(Err(ends())).await;
                break;
            }
        };
        let report = match report {
            Ok(Some(report)) => report,
            Ok(None) => break,
            Err(status) => {
                let _ = tx.send(Err(status)).await;
                break;
            }
        };
        let is_asked_for = !report.told.is_empty()
            && report.standing.is_none()
            && report.spans.is_empty()
            && report.events.is_empty()
            && report.seen.is_empty();
        if is_asked_for && !told.takes() {
            continue;
        }
        if !is_asked_for && !allowance.takes() {
            let _ = tx.send(Err(Status::resource_exhausted("too many reports"))).await;
            break;
        }
        fleet.take(&hub, &caller, &mut stream, report);
    }
    fleet.end(&stream);
}

/// How many reports somebody may send.
struct Allowance {
    left: u32,
    since: Instant,
    most: (u32, Duration),
}

impl Allowance {
    fn new(most: (u32, Duration)) -> Self {
        Self { left: most.0, since: now(), most }
    }

    fn takes(&mut self) -> bool {
        let passed = self.since.elapsed().as_millis() / self.most.1.as_millis().max(1);
        if passed > 0 {
            let come_back = u32::try_from(passed).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(come_back).min(self.most.0);
            self.since = now();
        }
        let is_let = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_let
    }
}
