//! Copies of requests for other backends (Gateway API `RequestMirror`).
//!
//! A request is never delayed, changed or failed by its mirrors: content is copied as it passes, and only when all of it
//! has come a task of its own sends the copy, over connections of its own, and drops what comes back. Everything that
//! mirrors hold is bounded per worker; at a bound the copy is given up and counted, never the request. What becomes of
//! copies teaches the balancer nothing.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rhumb_balance::{Endpoint, Nanos};
use rhumb_base::failure::{Failure, Retry};
use rhumb_codec::field::Fields;
use rhumb_codec::head::{Content, Method, RequestHead, ResponseHead};
use rhumb_conn::Part;
use rhumb_net::timer::Timer;
use rhumb_plan::rule::DEFAULT_REQUEST_TIMEOUT;
use rhumb_plan::{Backend, Rule};
use rhumb_telemetry::metrics::Metric;
use rhumb_upstream::Pools;

use crate::exchange::Exchange;
use crate::forward::refuse_pick;
use crate::side::Up;
use crate::worker::Worker;

/// Largest request content that is copied, in bytes. Larger requests are not mirrored.
pub(crate) const CONTENT_MAX: usize = 1 << 20;

/// Content that all mirrors of one worker hold together, in bytes.
pub(crate) const HELD_MAX: usize = 16 << 20;

/// Copies that one worker has under way at once, those whose content still comes included.
pub(crate) const AT_ONCE: u32 = 256;

/// Response content that is read so that a connection can be used again, in bytes. After more it is closed.
const DRAIN_MAX: u64 = 1 << 20;

/// Content is handed to a connection in pieces of this size.
const PIECE: usize = 16 << 10;

/// What the mirrors of one worker have under way.
pub(crate) struct Mirrors {
    /// Connections of their own: a slow mirror takes no stream and no turn from requests.
    pools: Rc<Pools>,
    copies: Cell<u32>,
    held: Cell<usize>,
}

impl Default for Mirrors {
    fn default() -> Self {
        Self { pools: Pools::new(), copies: Cell::new(0), held: Cell::new(0) }
    }
}

impl Mirrors {
    /// Closes connections that rested too long.
    pub(crate) fn sweep(&self, now: Instant) {
        self.pools.sweep(now);
    }
}

/// What became of a copy: the label `result` of `rhumb_mirrored_requests_total`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// It was answered.
    Answered,
    /// The backend had no endpoint, or the connection failed.
    Failed,
    /// No answer within the request timeout of the rule.
    Timeout,
    /// Too many copies were under way.
    SkippedBusy,
    /// The content was too large, or mirrors held too much of it already.
    SkippedContent,
    /// A tunnel cannot be copied.
    SkippedTunnel,
    /// The request's content never came to its end.
    SkippedIncomplete,
    /// A policy of the mirror's backend did not let it pass at once.
    SkippedPolicy,
}

impl Fate {
    fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::SkippedBusy => "skipped_busy",
            Self::SkippedContent => "skipped_content",
            Self::SkippedTunnel => "skipped_tunnel",
            Self::SkippedIncomplete => "skipped_incomplete",
            Self::SkippedPolicy => "skipped_policy",
        }
    }
}

/// One copy on its way. Counts itself when it is gone, whatever became of it.
struct Copy {
    worker: Rc<Worker>,
    backend: Arc<Backend>,
    head: Box<RequestHead>,
    client: IpAddr,
    limit: Duration,
    fate: Fate,
}

impl Drop for Copy {
    fn drop(&mut self) {
        let copies = &self.worker.mirrors.copies;
        copies.set(copies.get().saturating_sub(1));
        count(&self.worker, &self.backend, self.fate);
    }
}

fn count(worker: &Worker, backend: &Backend, fate: Fate) {
    worker.metrics.borrow_mut().add(Metric::Mirrored, &[backend.name.as_str(), fate.label()], 1);
}

impl Exchange<'_> {
    /// Begins the copies of this request.
    #[cold]
    pub(crate) fn mirror(&mut self, rule: &Rule) {
        let worker = self.worker;
        let is_tunnel = self.req.method() == Method::Connect || self.req.upgrade().is_some();
        let is_large = matches!(self.req.content, Content::Length(length) if length > CONTENT_MAX as u64);
        let limit = rule.timeouts.request.filter(|limit| !limit.is_zero()).unwrap_or(DEFAULT_REQUEST_TIMEOUT);
        let mut copies = Vec::new();
        for mirror in &rule.mirrors {
            if !mirror.share.rolls(&mut worker.rng.borrow_mut()) {
                continue;
            }
            let under_way = worker.mirrors.copies.get();
            let refused = if is_tunnel {
                Some(Fate::SkippedTunnel)
            } else if is_large {
                Some(Fate::SkippedContent)
            } else if under_way >= AT_ONCE {
                Some(Fate::SkippedBusy)
            } else {
                None
            };
            if let Some(fate) = refused {
                count(worker, &mirror.backend, fate);
                continue;
            }
            let Some(head) = self.copy_request(&mirror.chain) else {
                count(worker, &mirror.backend, Fate::SkippedPolicy);
                continue;
            };
            worker.mirrors.copies.set(under_way + 1);
            copies.push(Copy {
                worker: Rc::clone(worker),
                backend: Arc::clone(&mirror.backend),
                head,
                client: self.client,
                limit,
                fate: Fate::SkippedIncomplete,
            });
        }
        if copies.is_empty() {
            return;
        }
        let tap = Tap { worker: Rc::clone(worker), copies, content: Vec::new() };
        if self.req.content.is_empty() {
            tap.finish(None);
        } else {
            self.pump.set_tap(tap);
        }
    }
}

/// Copies request content while it passes. Dropped before the end, its copies are given up.
pub(crate) struct Tap {
    worker: Rc<Worker>,
    copies: Vec<Copy>,
    content: Vec<u8>,
}

impl Tap {
    /// Keeps content; false when it is too much and nothing is mirrored.
    pub(crate) fn copy(&mut self, data: &[u8]) -> bool {
        let held = &self.worker.mirrors.held;
        if self.content.len() + data.len() > CONTENT_MAX || held.get() + data.len() > HELD_MAX {
            self.copies.iter_mut().for_each(|copy| copy.fate = Fate::SkippedContent);
            return false;
        }
        held.set(held.get() + data.len());
        self.content.extend_from_slice(data);
        true
    }

    /// The request is complete: its copies are sent.
    pub(crate) fn finish(mut self, trailers: Option<&Fields>) {
        let content = Held { worker: Rc::clone(&self.worker), content: std::mem::take(&mut self.content) };
        let message = Rc::new(Message { content, trailers: trailers.cloned() });
        for copy in self.copies.drain(..) {
            tokio::task::spawn_local(copy.run(Rc::clone(&message)));
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let held = &self.worker.mirrors.held;
        held.set(held.get().saturating_sub(self.content.len()));
    }
}

/// Content that counts against the bound until the last copy is done with it.
struct Held {
    worker: Rc<Worker>,
    content: Vec<u8>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let held = &self.worker.mirrors.held;
        held.set(held.get().saturating_sub(self.content.len()));
    }
}

/// What follows the head, shared by the copies of one request.
struct Message {
    content: Held,
    trailers: Option<Fields>,
}

impl Copy {
    async fn run(mut self, message: Rc<Message>) {
        let mut deadline = Timer::new();
        deadline.set(Instant::now() + self.limit);
        let fate = {
            let mut sending = pin!(self.send(&message));
            poll_fn(|cx| {
                if let Poll::Ready(result) = sending.as_mut().poll(cx) {
                    return Poll::Ready(if result.is_ok() { Fate::Answered } else { Fate::Failed });
                }
                deadline.poll(cx).map(|()| Fate::Timeout)
            })
            .await
        };
        self.fate = fate;
    }

    /// Sends the copy, once more when a connection that rested turns out to be dead.
    async fn send(&self, message: &Message) -> Result<(), Failure> {
        match self.attempt(message, false).await {
            Err(failure) if failure.retry == Retry::IfConnectionWasReused => {
                self.attempt(message, true).await
            }
            result => result,
        }
    }

    async fn attempt(&self, message: &Message, fresh: bool) -> Result<(), Failure> {
        let worker = &self.worker;
        let now = Nanos::since(worker.origin, Instant::now());
        let picked = self.backend.begin(&self.head, self.client, now, &mut worker.rng.borrow_mut(), &[]);
        // Dropped without an outcome: only the load is known to the balancer.
        let load = picked.map_err(refuse_pick)?;
        let endpoint = load.endpoint();
        let mut up = self.connect(endpoint, fresh).await?;
        up.send_head(&self.head);
        let is_sent = self.exchange(&mut up, message).await?;
        if let (Up::H1(connection), true) = (up, is_sent) {
            let (target, address) = (self.backend.target(), endpoint.address());
            worker.mirrors.pools.put(target, address, connection, Instant::now());
        }
        Ok(())
    }

    async fn connect(&self, endpoint: &Endpoint, fresh: bool) -> Result<Up, Failure> {
        let pools = &self.worker.mirrors.pools;
        let (target, address) = (self.backend.target(), endpoint.address());
        if target.protocol == rhumb_upstream::Protocol::Http2 {
            let (stream, _) = pools.open_stream(target, address, &self.head).await?;
            return Ok(Up::H2(Box::new(stream)));
        }
        if !fresh && let Some(lease) = pools.take(target, address) {
            return Ok(Up::H1(lease.connection));
        }
        Ok(Up::H1(pools.open(target, address).await?.connection))
    }

    /// Sends content and reads the answer to its end; true when the connection can be used again.
    async fn exchange(&self, up: &mut Up, message: &Message) -> Result<bool, Failure> {
        let mut left = message.content.content.as_slice();
        let mut is_sent = self.head.content.is_empty();
        let mut rsp = ResponseHead::default();
        loop {
            poll_fn(|cx| {
                while !is_sent && up.poll_ready(cx).is_ready() {
                    if left.is_empty() {
                        up.send_end(message.trailers.as_ref());
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
                up.poll_response(cx, &mut rsp)
            })
            .await?;
            if !rsp.is_interim() {
                break;
            }
            if rsp.status == 101 {
                return Ok(false);
            }
        }
        let mut read = 0u64;
        loop {
            let more = poll_fn(|cx| {
                let _ = up.poll_flush(cx);
                up.poll_body(cx).map(|part| match part {
                    Ok(Part::Data(data)) => {
                        read += data.len() as u64;
                        Ok(true)
                    }
                    Ok(Part::End(_)) => Ok(false),
                    Err(failure) => Err(failure),
                })
            })
            .await?;
            if !more {
                return Ok(is_sent);
            }
            if read > DRAIN_MAX {
                return Ok(false);
            }
        }
    }
}
