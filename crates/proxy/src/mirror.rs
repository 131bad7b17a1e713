//! Copies of requests for other backends (Gateway API `RequestMirror`).
//!
//! A request is never delayed, changed or failed by its mirrors: content is copied as it passes, and only when all of it
//! has come a task of its own sends the copy, over connections of its own, and drops what comes back. Everything that
//! mirrors hold is bounded per worker; at a bound the copy is given up and counted, never the request. What becomes of
//! copies teaches the balancer nothing.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_codec::field::Fields;
use rhumb_codec::head::{Content, Method, RequestHead};
use rhumb_net::buffer::Charge;
use rhumb_plan::rule::DEFAULT_REQUEST_TIMEOUT;
use rhumb_plan::{Backend, Rule};
use rhumb_telemetry::metrics::Metric;
use rhumb_upstream::Pools;

use crate::call;
use crate::exchange::Exchange;
use crate::worker::Worker;

/// Largest request content that is copied, in bytes. Larger requests are not mirrored.
pub(crate) const CONTENT_MAX: usize = 1 << 20;

/// Content that all mirrors of one worker hold together, in bytes.
pub(crate) const HELD_MAX: usize = 16 << 20;

/// Copies that one worker has under way at once, those whose content still comes included.
pub(crate) const AT_ONCE: u32 = 256;

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

    /// No copies are under way, and no connection rests.
    pub(crate) fn is_empty(&self) -> bool {
        self.copies.get() == 0 && self.pools.is_empty()
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
        let content = Held { worker: Rc::clone(worker), content: Vec::new(), charge: Charge::default() };
        let tap = Tap { copies, content };
        if self.req.content.is_empty() {
            tap.finish(None);
        } else {
            self.pump.set_tap(tap);
        }
    }
}

/// Copies request content while it passes. Dropped before the end, its copies are given up.
pub(crate) struct Tap {
    copies: Vec<Copy>,
    content: Held,
}

impl Tap {
    /// Keeps content; false when it is too much and nothing is mirrored.
    pub(crate) fn copy(&mut self, data: &[u8]) -> bool {
        if !self.content.push(data) {
            self.copies.iter_mut().for_each(|copy| copy.fate = Fate::SkippedContent);
            return false;
        }
        true
    }

    /// The request is complete: its copies are sent.
    pub(crate) fn finish(self, trailers: Option<&Fields>) {
        let message = Rc::new(Message { content: self.content, trailers: trailers.cloned() });
        for copy in self.copies {
            tokio::task::spawn_local(copy.run(Rc::clone(&message)));
        }
    }
}

/// Content that counts against the bound, and among the buffers that overload weighs, until the last copy is done with it.
struct Held {
    worker: Rc<Worker>,
    content: Vec<u8>,
    charge: Charge,
}

impl Held {
    /// Keeps more; false when there is no room.
    fn push(&mut self, data: &[u8]) -> bool {
        let held = &self.worker.mirrors.held;
        if self.content.len() + data.len() > CONTENT_MAX || held.get() + data.len() > HELD_MAX {
            return false;
        }
        held.set(held.get() + data.len());
        self.content.extend_from_slice(data);
        self.charge.set(self.content.capacity());
        true
    }
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
        let copy = call::Message {
            head: &self.head,
            content: &message.content.content,
            trailers: message.trailers.as_ref(),
            client: self.client,
        };
        let pools = &self.worker.mirrors.pools;
        let sending = call::send(&self.worker, pools, &self.backend, &copy, &call::Reading::Dropped);
        self.fate = match call::within(self.limit, sending).await {
            Some(Ok(_)) => Fate::Answered,
            Some(Err(_)) => Fate::Failed,
            None => Fate::Timeout,
        };
    }
}
