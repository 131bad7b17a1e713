//! Spans, log records and metrics on their way to a collector: gathered by each worker, sent in batches over the connections of a backend, dropped
//! and counted when they cannot be sent. Nobody waits for a collector.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_codec::field::Known;
use rhumb_codec::head::RequestHead;
use rhumb_codec::protobuf::grpc_message;
use rhumb_policy::call::{Answer, Call};
use rhumb_policy::tracing::{Collector, OtlpProtocol, Telling};
use rhumb_telemetry::otlp::LogBatch;
use rhumb_telemetry::trace::{Batch, Resource, Traced, rejected};
use rhumb_telemetry::{Metric, Record};
use tokio::sync::Notify;

use crate::call;
use crate::worker::Worker;

/// How long spans are gathered before they are sent.
const GATHER: Duration = Duration::from_secs(1);

/// So many are sent at once, without waiting longer.
const BATCH_SPANS: u32 = 512;

/// What may wait on a worker for one collector; what comes then is dropped. Unit: bytes.
const QUEUE_BYTES: usize = 4 << 20;

/// Collectors that a worker keeps queues for. Configurations have one or two.
const COLLECTORS_MAX: usize = 16;

/// How often a batch is sent before it is dropped.
const ATTEMPTS: u32 = 4;

/// The wait before the second attempt; it doubles with each further one.
const BACK_OFF: Duration = Duration::from_secs(1);

/// How long the last batches may take when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often it is looked whether they have arrived.
const LOOK: Duration = Duration::from_millis(10);

/// Most content of a collector's answer that is read. Unit: bytes.
const ANSWER_MAX: usize = 64 << 10;

/// What waits on a worker for its collectors.
#[derive(Default)]
pub(crate) struct Exports {
    queues: RefCell<Vec<Rc<Queue>>>,
    /// Collectors that get metrics from this worker, as of a revision.
    metered: RefCell<(u64, Vec<Rc<Metered>>)>,
    /// The process ends: what comes is not sent any more.
    is_over: Cell<bool>,
}

/// A collector that gets metrics; nobody else holds it when it is to get none any more.
struct Metered {
    collector: Arc<Collector>,
    every: Duration,
}

struct Queue {
    collector: Arc<Collector>,
    what: Telling,
    batch: RefCell<Batch>,
    logs: RefCell<LogBatch>,
    is_full: Notify,
    /// A task sends what comes.
    is_served: Cell<bool>,
    /// Spans that it is sending.
    sending: Cell<u32>,
}

impl Exports {
    /// Adds the spans of an exchange.
    pub(crate) fn tell(&self, worker: &Rc<Worker>, collector: &Arc<Collector>, traced: &Traced<'_>) {
        let spans = 1 + traced.attempts.len() + traced.waits.len();
        let spans = u32::try_from(spans).unwrap_or(u32::MAX);
        if self.is_over.get() {
            count(worker, collector, Telling::Spans, Count::Dropped("undeliverable"), spans);
            return;
        }
        let Some(queue) = self.queue(collector, Telling::Spans) else { return };
        let mut batch = queue.batch.borrow_mut();
        if batch.size() >= QUEUE_BYTES {
            drop(batch);
            count(worker, collector, Telling::Spans, Count::Dropped("queue_full"), spans);
            return;
        }
        batch.push(traced);
        if batch.len() >= BATCH_SPANS {
            queue.is_full.notify_one();
        }
        drop(batch);
        if !queue.is_served.replace(true) {
            tokio::task::spawn_local(serve(Rc::downgrade(worker), queue));
        }
    }

    /// Adds the log record of an exchange or of a connection.
    pub(crate) fn log(&self, worker: &Rc<Worker>, collector: &Arc<Collector>, record: &Record<'_>) {
        if self.is_over.get() {
            count(worker, collector, Telling::Logs, Count::Dropped("undeliverable"), 1);
            return;
        }
        let Some(queue) = self.queue(collector, Telling::Logs) else { return };
        let mut logs = queue.logs.borrow_mut();
        if logs.size() >= QUEUE_BYTES {
            drop(logs);
            count(worker, collector, Telling::Logs, Count::Dropped("queue_full"), 1);
            return;
        }
        logs.push(record);
        if logs.len() >= BATCH_SPANS {
            queue.is_full.notify_one();
        }
        drop(logs);
        if !queue.is_served.replace(true) {
            tokio::task::spawn_local(serve(Rc::downgrade(worker), queue));
        }
    }

    /// Has the collectors of the plan in force told of metrics. One worker does that for the process.
    pub(crate) fn tend(&self, worker: &Rc<Worker>) {
        let plan = worker.plan();
        let mut metered = self.metered.borrow_mut();
        if metered.0 == plan.revision {
            return;
        }
        metered.0 = plan.revision;
        let mut wanted: Vec<Arc<Collector>> = Vec::new();
        let of_process = plan.all_ports().filter_map(|port| port.settings.exporter.as_ref());
        let of_rules = plan.ports.iter().flat_map(|port| port.table.rules()).filter_map(|(_, rule)| {
            rule.value.tracing.as_ref().and_then(|tracing| tracing.collector.as_ref())
        });
        for collector in of_process.chain(of_rules) {
            if let Some(collector) = Some(collector).filter(|collector| collector.metrics.is_some())
                && !wanted.iter().any(|known| **known == **collector)
                && wanted.len() < COLLECTORS_MAX
            {
                wanted.push(Arc::clone(collector));
            }
        }
        metered.1.retain(|known| wanted.iter().any(|wanted| **wanted == *known.collector));
        for collector in wanted {
            let Some(every) = collector.metrics else { continue };
            if metered.1.iter().any(|known| *known.collector == *collector) {
                continue;
            }
            let known = Rc::new(Metered { collector, every });
            tokio::task::spawn_local(meter(Rc::downgrade(worker), Rc::downgrade(&known)));
            metered.1.push(known);
        }
    }

    fn queue(&self, collector: &Arc<Collector>, what: Telling) -> Option<Rc<Queue>> {
        let mut queues = self.queues.borrow_mut();
        // A reload may make the same collector again.
        let is_same = |queue: &Rc<Queue>| {
            queue.what == what
                && (Arc::ptr_eq(&queue.collector, collector) || *queue.collector == **collector)
        };
        if let Some(queue) = queues.iter().find(|queue| is_same(queue)) {
            return Some(Rc::clone(queue));
        }
        if queues.len() >= COLLECTORS_MAX {
            queues.retain(|queue| queue.is_served.get());
        }
        if queues.len() >= COLLECTORS_MAX {
            return None;
        }
        let queue = Rc::new(Queue {
            collector: Arc::clone(collector),
            what,
            batch: RefCell::default(),
            logs: RefCell::default(),
            is_full: Notify::new(),
            is_served: Cell::new(false),
            sending: Cell::new(0),
        });
        queues.push(Rc::clone(&queue));
        Some(queue)
    }

    /// Sends what is left, within [`LAST_WORDS`].
    pub(crate) async fn finish(&self, worker: &Rc<Worker>) {
        let deadline = Instant::now() + LAST_WORDS;
        self.is_over.set(true);
        let queues = std::mem::take(&mut *self.queues.borrow_mut());
        for queue in &queues {
            let left = deadline.saturating_duration_since(Instant::now());
            let (content, spans) = take(queue);
            if spans > 0
                && call::within(left, deliver(worker, &queue.collector, queue.what, content, spans))
                    .await
                    .is_none()
            {
                count(worker, &queue.collector, queue.what, Count::Dropped("undeliverable"), spans);
            }
        }
        // What was on its way already has gone on meanwhile.
        while queues.iter().any(|queue| queue.sending.get() > 0) && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
        for queue in &queues {
            count(worker, &queue.collector, queue.what, Count::Dropped("undeliverable"), queue.sending.get());
        }
    }
}

async fn serve(worker: Weak<Worker>, queue: Rc<Queue>) {
    loop {
        let _: Option<()> = call::within(GATHER, queue.is_full.notified()).await;
        let (content, spans) = take(&queue);
        let Some(worker) = worker.upgrade() else { return };
        if spans == 0 {
            queue.is_served.set(false);
            return;
        }
        queue.sending.set(spans);
        deliver(&worker, &queue.collector, queue.what, content, spans).await;
        queue.sending.set(0);
    }
}

fn take(queue: &Queue) -> (Vec<u8>, u32) {
    let resource = Resource {
        service: &queue.collector.service,
        instance: instance(),
        version: env!("CARGO_PKG_VERSION"),
    };
    match queue.what {
        Telling::Logs => queue.logs.borrow_mut().take(&resource),
        _ => queue.batch.borrow_mut().take(&resource),
    }
}

/// This process among others: the machine's name and the process id.
fn instance() -> &'static str {
    static INSTANCE: std::sync::OnceLock<Box<str>> = std::sync::OnceLock::new();
    INSTANCE.get_or_init(|| {
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        format!("{}:{}", machine.trim(), std::process::id()).into()
    })
}

async fn deliver(
    worker: &Rc<Worker>,
    collector: &Arc<Collector>,
    what: Telling,
    content: Vec<u8>,
    spans: u32,
) {
    let mut wait = BACK_OFF;
    for attempt in 1..=ATTEMPTS {
        let answer = worker.out.call(&collector.to, request(collector, what, content.clone())).await;
        let judged = match &answer {
            Ok(answer) => judge(collector, answer),
            Err(failure) => {
                tracing::debug!(
                    collector = &*collector.to.backend,
                    code = failure.cause.facts().code,
                    "no answer"
                );
                Judged::Again
            }
        };
        match judged {
            Judged::Taken { rejected } => {
                let rejected = rejected.min(spans);
                count(worker, collector, what, Count::Sent, spans - rejected);
                count(worker, collector, what, Count::Dropped("rejected"), rejected);
                return;
            }
            Judged::Refused => {
                count(worker, collector, what, Count::Dropped("rejected"), spans);
                return;
            }
            Judged::Again if attempt < ATTEMPTS && !worker.is_draining() => {
                let _: Option<()> = call::within(wait, std::future::pending()).await;
                wait *= 2;
            }
            Judged::Again => break,
        }
    }
    count(worker, collector, what, Count::Dropped("undeliverable"), spans);
}

fn request(collector: &Collector, what: Telling, content: Vec<u8>) -> Call {
    let mut head = Box::new(RequestHead::new());
    head.set_method(b"POST");
    head.set_target(collector.path_of(what).as_bytes());
    for (name, value) in &collector.fields {
        head.fields.append_named(name, value);
    }
    let content = match collector.protocol {
        OtlpProtocol::Http => {
            head.fields.append(Known::ContentType, b"application/x-protobuf");
            content
        }
        OtlpProtocol::Grpc => {
            head.fields.append(Known::ContentType, b"application/grpc");
            head.accepts_trailers = true;
            let mut framed = Vec::with_capacity(content.len() + 5);
            framed.push(0);
            framed.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes());
            framed.extend_from_slice(&content);
            framed
        }
    };
    Call { head, content, time: collector.timeout, max_content: ANSWER_MAX }
}

/// What an answer means (OTLP, "Failures" of each transport).
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Taken { rejected: u32 },
    Refused,
    Again,
}

fn judge(collector: &Collector, answer: &Answer) -> Judged {
    let taken =
        |message: &[u8]| Judged::Taken { rejected: u32::try_from(rejected(message)).unwrap_or(u32::MAX) };
    match (collector.protocol, answer.status) {
        (OtlpProtocol::Http, 200..=299) => taken(&answer.content),
        (OtlpProtocol::Http, 429 | 502 | 503 | 504) => Judged::Again,
        (OtlpProtocol::Http, _) => Judged::Refused,
        (OtlpProtocol::Grpc, 200) => {
            let trailers = answer.trailers.as_ref().and_then(|trailers| trailers.get(Known::GrpcStatus));
            match trailers.or_else(|| answer.fields.get(Known::GrpcStatus)) {
                Some(b"0") => grpc_message(&answer.content).map_or(Judged::Taken { rejected: 0 }, taken),
                // Cancelled, deadline exceeded, resource exhausted, aborted, out of range, unavailable, data loss.
                Some(b"1" | b"4" | b"8" | b"10" | b"11" | b"14" | b"15") => Judged::Again,
                _ => Judged::Refused,
            }
        }
        (OtlpProtocol::Grpc, 429 | 502 | 503 | 504) => Judged::Again,
        (OtlpProtocol::Grpc, _) => Judged::Refused,
    }
}

enum Count {
    Sent,
    Dropped(&'static str),
}

fn count(worker: &Worker, collector: &Collector, of: Telling, what: Count, items: u32) {
    if items == 0 {
        return;
    }
    let name = &*collector.to.backend;
    let mut metrics = worker.metrics.borrow_mut();
    let (sent, dropped) = match of {
        Telling::Spans => (Metric::SpansSent, Metric::SpansDropped),
        Telling::Logs => (Metric::LogsSent, Metric::LogsDropped),
        Telling::Metrics => (Metric::PointsSent, Metric::PointsDropped),
    };
    match what {
        Count::Sent => metrics.add(sent, &[name], items.into()),
        Count::Dropped(reason) => metrics.add(dropped, &[name, reason], items.into()),
    }
}

/// Tells a collector of metrics until nobody wants that any more.
async fn meter(worker: Weak<Worker>, metered: Weak<Metered>) {
    loop {
        let Some(every) = metered.upgrade().map(|metered| metered.every) else { return };
        tokio::time::sleep(every).await;
        let (Some(worker), Some(metered)) = (worker.upgrade(), metered.upgrade()) else { return };
        let now = Instant::now();
        let collector = &metered.collector;
        let resource = Resource {
            service: &collector.service,
            instance: instance(),
            version: env!("CARGO_PKG_VERSION"),
        };
        let since = worker.unix_nanos(now).saturating_sub(
            u64::try_from(now.saturating_duration_since(worker.origin).as_nanos()).unwrap_or(0),
        );
        let (content, points) = worker.registry.to_otlp(&resource, since, worker.unix_nanos(now));
        deliver(&worker, collector, Telling::Metrics, content, points).await;
    }
}
