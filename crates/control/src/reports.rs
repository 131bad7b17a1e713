//! The gRPC service that proxies report to.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rhumb_ads::report::{self, MAX_REPORT, Question, REPORT_PATH, Report};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, StdError};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::caller::Caller;
use crate::fleet::{Fleet, Stream};
use crate::hub::{Hub, now};
use crate::serve::{Desk, ends, unimplemented_method};

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

impl NamedService for Reports {
    const NAME: &'static str = report::SERVICE;
}

impl<B> Service<http::Request<B>> for Reports
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let reports = self.clone();
        Box::pin(async move {
            if request.uri().path() != REPORT_PATH {
                return Ok(unimplemented_method());
            }
            let codec = ProstCodec::<Question, Report>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_REPORT);
            Ok(grpc.streaming(reports, request).await)
        })
    }
}

impl StreamingService<Report> for Reports {
    type Response = Question;
    type ResponseStream = ReceiverStream<Result<Question, Status>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Report>>) -> Self::Future {
        let desk = self.0.clone();
        Box::pin(async move {
            let caller = desk.known(request.extensions())?;
            let hub = desk.hub;
            let fleet =
                hub.fleet().cloned().ok_or_else(|| Status::unimplemented("nobody puts reports together"))?;
            let (tx, rx) = mpsc::channel(BACKLOG);
            tokio::spawn(serve(hub, fleet, caller, request.into_inner(), tx));
            Ok(Response::new(ReceiverStream::new(rx)))
        })
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
        let Ok(Some(report)) = report else { break };
        let is_asked_for = report.standing.is_none() && report.spans.is_empty() && report.events.is_empty();
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
