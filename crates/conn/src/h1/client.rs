//! The client side of HTTP/1: a connection to a backend, used by one exchange at a time.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use rhumb_base::failure::{Cause, Failure, Retry};
use rhumb_codec::field::Fields;
use rhumb_codec::h1::{self, BodyFraming, Limits};
use rhumb_codec::head::{Content, Method, RequestHead, ResponseHead};
use tokio::task::coop::unconstrained;

use super::wire::{Broken, Wire};
use crate::io::Io;
use crate::{MAX_INTERIM, Part};

/// A connection to a backend.
pub struct Client {
    wire: Wire,
    limits: Limits,
    method: Method,
    seen: usize,
    interims: u32,
    /// Exchanges that were begun.
    used: u32,
    is_request_sent: bool,
    keep_alive: bool,
    /// A byte of the answer has come.
    has_answer: bool,
    idle_since: Instant,
    /// See [`Client::hold`].
    held: Option<Box<dyn Any>>,
}

impl Client {
    /// A connection whose handshake is complete.
    pub fn new(io: Io, limits: Limits, now: Instant) -> Self {
        Self {
            wire: Wire::new(io),
            limits,
            method: Method::Get,
            seen: 0,
            interims: 0,
            used: 0,
            is_request_sent: false,
            keep_alive: true,
            has_answer: false,
            idle_since: now,
            held: None,
        }
    }

    /// Keeps something for as long as the connection lives: whoever counts connections learns of its end.
    pub fn hold(&mut self, held: Box<dyn Any>) {
        self.held = Some(held);
    }

    /// What is kept with the connection.
    pub fn held(&self) -> Option<&dyn Any> {
        self.held.as_deref()
    }

    /// The stream.
    pub fn io(&self) -> &Io {
        &self.wire.io
    }

    /// True when an exchange before this one used it.
    pub fn is_reused(&self) -> bool {
        self.used > 1
    }

    /// Since when nothing uses it.
    pub fn idle_since(&self) -> Instant {
        self.idle_since
    }

    /// Puts the connection to rest; false when it cannot serve another exchange.
    pub fn rest(&mut self, now: Instant) -> bool {
        self.idle_since = now;
        self.is_request_sent
            && self.keep_alive
            && !self.wire.is_tunnel
            && self.wire.is_content_done()
            && self.wire.input.is_empty()
            && self.wire.output.is_empty()
    }

    /// False when the backend has closed it or sent something unasked: a byte at rest belongs to no response.
    pub fn is_usable(&mut self) -> bool {
        // The runtime knows of a FIN without a system call: a resting socket is not readable. A task that has done much
        // since it was woken is told that nothing is ready, so that others get their turn; here that would be believed.
        let look = pin!(unconstrained(poll_fn(|cx| self.wire.input.poll_fill(&mut self.wire.io, cx))));
        look.poll(&mut Context::from_waker(Waker::noop())).is_pending() && self.wire.input.is_empty()
    }

    /// Encodes a request head.
    pub fn send_head(&mut self, head: &RequestHead) {
        h1::write_request(head, self.wire.output.buffer());
        self.wire.framing = match head.content {
            // A tunnel has no content before it is open.
            _ if head.method() == Method::Connect => BodyFraming::None,
            Content::None => BodyFraming::None,
            Content::Length(length) => BodyFraming::Length(length),
            Content::Streamed | Content::UntilClose => BodyFraming::Chunked,
        };
        // An extended CONNECT is written as a GET with Upgrade, and answered as one: a 2xx has content and opens nothing.
        self.method = if head.protocol().is_some() { Method::Get } else { head.method() };
        self.used += 1;
        (self.seen, self.interims) = (0, 0);
        let is_complete = head.content.is_empty() || head.method() == Method::Connect;
        (self.is_request_sent, self.has_answer, self.keep_alive) = (is_complete, false, true);
    }

    /// Writes request content.
    ///
    /// # Errors
    /// The stream's error.
    #[inline]
    pub fn send_data(&mut self, cx: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        self.wire.send_data(cx, data)
    }

    /// Ends the request's content.
    pub fn send_end(&mut self, trailers: Option<&Fields>) {
        self.wire.send_end(trailers);
        self.is_request_sent = true;
    }

    /// Ready when more content may be sent.
    ///
    /// # Errors
    /// The stream's error.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_ready(cx)
    }

    /// Ready when everything has been written.
    ///
    /// # Errors
    /// The stream's error.
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_flush(cx)
    }

    /// Waits for a response head, interim or final.
    ///
    /// # Errors
    /// `BackendReset` when the connection ends first, with whether the request may be sent again; the codec's cause
    /// for a response that is not valid.
    #[inline]
    pub fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut ResponseHead,
    ) -> Poll<Result<(), Failure>> {
        loop {
            let input = self.wire.input.data();
            if !input.is_empty()
                && (self.seen == 0
                    || h1::may_complete(input, self.seen)
                    || input.len() >= self.limits.head_bytes)
            {
                match h1::parse_response(input, &self.limits, self.method, head) {
                    Ok(Some(used)) => {
                        self.wire.input.consume(used);
                        self.seen = 0;
                        if head.is_interim() && head.status != 101 {
                            self.interims += 1;
                            if self.interims > MAX_INTERIM {
                                return Poll::Ready(Err(Cause::ResponseMalformed.into()));
                            }
                        } else {
                            self.wire.begin_content(head.content, &self.limits);
                            self.keep_alive = head.keep_alive && !matches!(head.content, Content::UntilClose);
                        }
                        return Poll::Ready(Ok(()));
                    }
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Err(error.cause().into())),
                }
            }
            self.seen = input.len();
            match ready!(self.wire.input.poll_fill(&mut self.wire.io, cx)) {
                Ok(n) if n > 0 => self.has_answer = true,
                _ => return Poll::Ready(Err(self.reset())),
            }
        }
    }

    /// The failure of a connection that ended or broke.
    pub fn reset(&self) -> Failure {
        // RFC 9112 §9.3.1: a reused connection may have been closed while the request was on its way.
        let retry =
            if self.is_reused() && !self.has_answer { Retry::IfConnectionWasReused } else { Retry::Never };
        Failure::new(Cause::BackendReset).retry(retry)
    }

    /// The next part of the response's content.
    ///
    /// # Errors
    /// `ResponseIncomplete` when it ends early, `ResponseMalformed` when its framing is wrong.
    #[inline]
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part<'_>, Failure>> {
        self.wire.poll_body(cx).map_err(|broken| match broken {
            Broken::Closed => Cause::ResponseIncomplete.into(),
            Broken::Framing(error) => error.cause_in_response().into(),
        })
    }

    /// Bytes that wait to be written.
    #[inline]
    pub fn backlog(&self) -> usize {
        self.wire.output.pending()
    }

    /// From here on bytes pass as they are.
    pub fn begin_tunnel(&mut self) {
        self.wire.begin_tunnel(&self.limits);
    }

    /// Ends the sending side of a tunnel.
    ///
    /// # Errors
    /// The stream's error.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.wire.poll_flush(cx))?;
        self.wire.io.poll_shutdown(cx)
    }

    /// Bytes of response content that may be spliced.
    pub fn splice_limit(&mut self) -> u64 {
        self.wire.splice_limit()
    }

    /// `n` bytes of response content were spliced away.
    pub fn spliced(&mut self, n: u64) {
        self.wire.decoder.skip(n);
    }

    /// True when request content may be spliced to this side: plain and unframed. Flush first: nothing may wait.
    pub fn takes_splice(&self) -> bool {
        self.wire.io.plain().is_some()
            && matches!(self.wire.framing, BodyFraming::Length(_))
            && self.wire.output.pending() == 0
    }
}
