//! Requests of our own: what policies ask of other services, and copies of requests. Unlike a client's request, one of
//! these is whole before it is sent, and so is its answer before it is used.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rhumb_balance::{Endpoint, Nanos, Outcome};
use rhumb_base::failure::{Cause, Failure, Retry, Side};
use rhumb_codec::field::{Fields, Known};
use rhumb_codec::head::{Content, RequestHead, ResponseHead};
use rhumb_conn::Part;
use rhumb_net::timer::Timer;
use rhumb_plan::Backend;
use rhumb_policy::call::{Answer, Call, Caller, Local};
use rhumb_policy::{Event, Out, Remote};
use rhumb_telemetry::Metric;
use rhumb_upstream::Pools;

use crate::forward::{judge_head, refuse_pick};
use crate::side::Up;
use crate::worker::Worker;

/// Response content that is read so that a connection can be used again, in bytes. After more it is closed.
const DRAIN_MAX: usize = 1 << 20;

/// Content is handed to a connection in pieces of this size.
const PIECE: usize = 16 << 10;

/// A request that is sent whole.
pub(crate) struct Message<'m> {
    pub(crate) head: &'m RequestHead,
    pub(crate) content: &'m [u8],
    pub(crate) trailers: Option<&'m Fields>,
    /// On whose behalf, for backends that choose endpoints by it.
    pub(crate) client: IpAddr,
}

/// Where an answer goes.
pub(crate) enum Reading {
    /// Nowhere, and the balancer learns nothing from it.
    Dropped,
    /// Content of at most so many bytes is kept.
    Kept(usize),
}

/// Sends a request to a backend and reads its answer, once more when a connection that rested turns out to be dead.
pub(crate) async fn send(
    worker: &Worker,
    pools: &Rc<Pools>,
    backend: &Backend,
    message: &Message<'_>,
    reading: &Reading,
) -> Result<Answer, Failure> {
    match attempt(worker, pools, backend, message, reading, false).await {
        Err(failure) if failure.retry == Retry::IfConnectionWasReused => {
            attempt(worker, pools, backend, message, reading, true).await
        }
        result => result,
    }
}

async fn attempt(
    worker: &Worker,
    pools: &Rc<Pools>,
    backend: &Backend,
    message: &Message<'_>,
    reading: &Reading,
    fresh: bool,
) -> Result<Answer, Failure> {
    let begun = Instant::now();
    worker.rest.stir();
    let now = Nanos::since(worker.origin, begun);
    let load = backend
        .begin(message.head, message.client, now, &mut worker.rng.borrow_mut(), &[])
        .map_err(refuse_pick)?;
    let endpoint = Arc::clone(load.endpoint());
    let mut rsp = ResponseHead::default();
    let result: Result<Sent, Failure> = async {
        let (mut up, is_reused) = connect(pools, backend, &endpoint, message, fresh).await?;
        up.send_head(message.head);
        let sent =
            exchange(&mut up, message, reading, &mut rsp).await.map_err(|failure| match is_reused {
                true => failure,
                // Only a connection that rested may have died before it saw the request.
                false => failure.retry(Retry::Never),
            })?;
        if let (Up::H1(connection), true) = (up, sent.is_reusable) {
            pools.put(backend.target(), endpoint.address(), connection, Instant::now());
            worker.rest.stir();
        }
        Ok(sent)
    }
    .await;
    // Dropped without an outcome, only the load is known to the balancer.
    if let Reading::Kept(_) = reading {
        let outcome = match &result {
            Ok(_) => Some(judge_head(&rsp)),
            Err(failure) => (failure.cause.facts().side == Side::Backend).then_some(Outcome::LocalFailure),
        };
        if let Some(outcome) = outcome {
            let now = Instant::now();
            let at = Nanos::since(worker.origin, now);
            backend.endpoints.finish(load, now.saturating_duration_since(begun), outcome, at);
        }
    }
    let sent = result?;
    Ok(Answer { status: rsp.status, fields: rsp.fields, content: sent.content, trailers: sent.trailers })
}

async fn connect(
    pools: &Rc<Pools>,
    backend: &Backend,
    endpoint: &Endpoint,
    message: &Message<'_>,
    fresh: bool,
) -> Result<(Up, bool), Failure> {
    let (target, address) = (backend.target(), endpoint.address());
    if target.protocol == rhumb_upstream::Protocol::Http2 {
        let (stream, is_new) = pools.open_stream(target, address, message.head).await?;
        return Ok((Up::H2(Box::new(stream)), !is_new));
    }
    if !fresh && let Some(lease) = pools.take(target, address) {
        return Ok((Up::H1(lease.connection), true));
    }
    Ok((Up::H1(pools.open(target, address).await?.connection), false))
}

/// What came behind the head of an answer.
struct Sent {
    content: Vec<u8>,
    trailers: Option<Fields>,
    /// The connection can be used again.
    is_reusable: bool,
}

/// Sends content and reads the answer to its end.
async fn exchange(
    up: &mut Up,
    message: &Message<'_>,
    reading: &Reading,
    rsp: &mut ResponseHead,
) -> Result<Sent, Failure> {
    let mut left = message.content;
    let mut is_sent = message.head.content.is_empty();
    let mut sent = Sent { content: Vec::new(), trailers: None, is_reusable: false };
    loop {
        poll_fn(|cx| {
            while !is_sent && up.poll_ready(cx).is_ready() {
                if left.is_empty() {
                    up.send_end(message.trailers);
                    is_sent = true;
                    break;
                }
                let (piece, rest) = left.split_at(left.len().min(PIECE));
                left = rest;
                if up.send_data(cx, piece).is_err() {
                    // It does not read on; it may have answered before.
                    break;
                }
            }
            let _ = up.poll_flush(cx);
            up.poll_response(cx, rsp)
        })
        .await?;
        if !rsp.is_interim() {
            break;
        }
        if rsp.status == 101 {
            return match reading {
                Reading::Dropped => Ok(sent),
                Reading::Kept(_) => Err(Cause::ResponseMalformed.into()),
            };
        }
    }
    let mut read = 0;
    loop {
        let more = poll_fn(|cx| {
            let _ = up.poll_flush(cx);
            up.poll_body(cx).map(|part| match part {
                Ok(Part::Data(data)) => {
                    read += data.len();
                    match reading {
                        Reading::Kept(max) if read > *max => return Err(Cause::ResponseIncomplete.into()),
                        Reading::Kept(_) => sent.content.extend_from_slice(data),
                        Reading::Dropped => {}
                    }
                    Ok(true)
                }
                Ok(Part::End(trailers)) => {
                    sent.trailers = trailers.map(|trailers| *trailers);
                    Ok(false)
                }
                Err(failure) => Err(failure),
            })
        })
        .await?;
        if !more {
            sent.is_reusable = is_sent;
            return Ok(sent);
        }
        if read > DRAIN_MAX && matches!(reading, Reading::Dropped) {
            return Ok(sent);
        }
    }
}

/// `work`, or nothing when it takes longer.
pub(crate) async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut deadline = Timer::new();
    deadline.set(Instant::now() + time);
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => deadline.poll(cx).map(|()| None),
    })
    .await
}

/// A worker's way out for policies.
struct WayOut(Weak<Worker>);

/// The way out of a worker.
pub(crate) fn way_out(worker: Weak<Worker>) -> Out {
    Rc::new(WayOut(worker))
}

impl Caller for WayOut {
    fn call(&self, to: &Remote, call: Call) -> Local<Result<Answer, Failure>> {
        let (worker, to) = (self.0.clone(), to.clone());
        Box::pin(async move {
            let worker = worker.upgrade().ok_or(Cause::ShuttingDown)?;
            let backend =
                worker.plan().backend(&to.backend).map(Arc::clone).ok_or(Cause::ConfigurationInvalid)?;
            let Call { mut head, content, time, max_content } = call;
            if head.authority().is_empty() {
                head.set_authority(to.authority.as_bytes());
            }
            head.scheme = to.scheme;
            head.content = match content.len() {
                0 => Content::None,
                length => Content::Length(length as u64),
            };
            if !head.fields.has(Known::UserAgent) {
                head.fields.append(Known::UserAgent, b"rhumb");
            }
            let client = std::net::Ipv4Addr::UNSPECIFIED.into();
            let message = Message { head: &head, content: &content, trailers: None, client };
            let reading = Reading::Kept(max_content);
            within(time, send(&worker, &worker.pools, &backend, &message, &reading))
                .await
                .unwrap_or_else(|| Err(Cause::BackendTimeout.into()))
        })
    }

    fn spawn(&self, task: Local<()>) {
        tokio::task::spawn_local(task);
    }

    fn tell(&self, event: Event) {
        let Some(worker) = self.0.upgrade() else { return };
        let (metric, result) = match event {
            Event::KeysFetched => (Metric::KeyFetches, "ok"),
            Event::KeysFailed => (Metric::KeyFetches, "failed"),
        };
        worker.metrics.borrow_mut().add(metric, &[result], 1);
    }

    fn pause(&self, time: Duration) -> Local<()> {
        Box::pin(async move {
            let _: Option<()> = within(time, std::future::pending()).await;
        })
    }

    fn unix_nanos(&self) -> u64 {
        self.0.upgrade().map_or(0, |worker| worker.unix_nanos(Instant::now()))
    }
}
