//! The server side of HTTP/1: requests come in, responses go out, one after the other.

use std::io;
use std::task::{Context, Poll, Waker, ready};

use rhumb_base::failure::{Cause, Failure};
use rhumb_codec::field::Fields;
use rhumb_codec::h1::{self, BodyFraming, Limits, RequestError, ResponseContext};
use rhumb_codec::head::{Method, RequestHead, ResponseHead, Scheme, Version};

use super::wire::{Broken, Wire};
use crate::Part;
use crate::io::Io;

/// Bytes that are read and thrown away after a refusal, so that the client gets to read it before the connection is
/// reset by its own unread request (RFC 9112 §9.6).
pub(super) const LINGER_BYTES: usize = 256 << 10;

/// Why there is no request.
#[derive(Debug)]
pub enum NoRequest {
    /// The client closed between requests.
    Closed,
    /// The client closed or failed within a request head.
    Aborted,
    /// The request is refused: answer, then close.
    Refused(RequestError),
}

/// A connection from a client.
pub struct Server {
    wire: Wire,
    scheme: Scheme,
    limits: Limits,
    /// Input that the parser has called incomplete, in bytes.
    seen: usize,
    method: Method,
    version: Version,
    lingered: usize,
    /// The last response said that the connection stays open.
    stays_open: bool,
}

impl Server {
    /// A connection whose handshake is complete.
    pub fn new(io: Io, scheme: Scheme, limits: Limits) -> Self {
        Self {
            wire: Wire::new(io),
            scheme,
            limits,
            seen: 0,
            method: Method::Get,
            version: Version::Http11,
            lingered: 0,
            stays_open: false,
        }
    }

    /// The stream.
    pub fn io(&self) -> &Io {
        &self.wire.io
    }

    /// The stream and bytes that were read from it, for another protocol.
    pub fn into_io(self) -> (Io, crate::input::Input) {
        (self.wire.io, self.wire.input)
    }

    /// True while a request head has begun to arrive.
    pub fn has_partial_request(&self) -> bool {
        !self.wire.input.is_empty()
    }

    /// Bytes at hand before the first request: what tells HTTP/2 from HTTP/1. Reads when there are none.
    ///
    /// # Errors
    /// The stream's error.
    pub fn poll_peek(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<&[u8]>> {
        while self.wire.input.data().len() < wanted {
            if ready!(self.wire.input.poll_fill(&mut self.wire.io, cx))? == 0 {
                break;
            }
        }
        Poll::Ready(Ok(self.wire.input.data()))
    }

    /// Reads what is there without waiting for more: [`Server::peeked`] shows it.
    ///
    /// # Errors
    /// The stream's error. `Ok(false)` when the client has finished sending.
    pub fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.wire.input.poll_fill(&mut self.wire.io, cx).map_ok(|n| n > 0)
    }

    /// Bytes at hand.
    pub fn peeked(&self) -> &[u8] {
        self.wire.input.data()
    }

    /// Waits for the next request head.
    ///
    /// # Errors
    /// See [`NoRequest`].
    #[inline]
    pub fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut RequestHead,
    ) -> Poll<Result<(), NoRequest>> {
        loop {
            let input = self.wire.input.data();
            if !input.is_empty()
                && (self.seen == 0
                    || h1::may_complete(input, self.seen)
                    || input.len() >= self.limits.head_bytes)
            {
                match h1::parse_request(input, &self.limits, self.scheme, head) {
                    Ok(Some(used)) => {
                        self.wire.input.consume(used);
                        self.wire.begin_content(head.content, &self.limits);
                        (self.seen, self.method, self.version) = (0, head.method(), head.version);
                        return Poll::Ready(Ok(()));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        head.clear();
                        return Poll::Ready(Err(NoRequest::Refused(error)));
                    }
                }
            }
            self.seen = input.len();
            match ready!(self.wire.input.poll_fill(&mut self.wire.io, cx)) {
                Ok(0) | Err(_) if self.wire.input.is_empty() => return Poll::Ready(Err(NoRequest::Closed)),
                Ok(0) | Err(_) => return Poll::Ready(Err(NoRequest::Aborted)),
                Ok(_) => {}
            }
        }
    }

    /// The next part of the request's content.
    ///
    /// # Errors
    /// `ClientClosed` when it ends early, the codec's cause when its framing is wrong.
    #[inline]
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part<'_>, Failure>> {
        self.wire.poll_body(cx).map_err(|broken| match broken {
            Broken::Closed => Cause::ClientClosed.into(),
            Broken::Framing(error) => error.cause_in_request().into(),
        })
    }

    /// Ready when the client has closed its connection while its answer is on the way. What it pipelines is kept.
    #[inline]
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.wire.peer_finished {
            return Poll::Ready(());
        }
        if !self.wire.is_content_done() || !self.wire.input.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.wire.input.poll_fill(&mut self.wire.io, cx)) {
            Ok(n) if n > 0 => Poll::Pending,
            _ => {
                self.wire.peer_finished = true;
                Poll::Ready(())
            }
        }
    }

    /// Encodes an interim or final response head; `keep_alive` is what this side wants.
    pub fn send_head(&mut self, head: &ResponseHead, keep_alive: bool) {
        let request =
            ResponseContext { client_version: self.version, request_method: self.method, keep_alive };
        let framing = h1::write_response(head, request, self.wire.output.buffer());
        if !head.is_interim() {
            self.wire.framing = framing;
            self.stays_open = keep_alive && framing != BodyFraming::UntilClose;
        }
    }

    /// True when the client may send another request: the last response has not said that the connection ends
    /// (RFC 9112 §9.6), and does not end with it.
    pub fn stays_open(&self) -> bool {
        self.stays_open && self.wire.is_content_done()
    }

    /// True when the response now sent ends with the connection.
    pub fn is_close_delimited(&self) -> bool {
        matches!(self.wire.framing, BodyFraming::UntilClose)
    }

    /// Writes content.
    ///
    /// # Errors
    /// The stream's error.
    #[inline]
    pub fn send_data(&mut self, cx: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        self.wire.send_data(cx, data)
    }

    /// Ends the content.
    pub fn send_end(&mut self, trailers: Option<&Fields>) {
        self.wire.send_end(trailers);
        // Nothing more is read or written on this connection, so its end follows at once.
        if !self.stays_open && self.wire.is_content_done() && !self.wire.is_tunnel {
            self.wire.output.end();
        }
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

    /// From here on bytes pass as they are.
    pub fn begin_tunnel(&mut self) {
        self.stays_open = false;
        self.wire.begin_tunnel(&self.limits);
    }

    /// Ends the sending side of a tunnel or of the connection.
    ///
    /// # Errors
    /// The stream's error.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.wire.poll_flush(cx))?;
        self.wire.io.poll_shutdown(cx)
    }

    /// Ends the connection, which is closed next: closing a plain socket says the same as ending its sending side.
    ///
    /// # Errors
    /// The stream's error.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.wire.poll_flush(cx))?;
        match self.wire.io.plain() {
            Some(_) => Poll::Ready(Ok(())),
            None => self.wire.io.poll_shutdown(cx),
        }
    }

    /// Bytes that wait to be written.
    #[inline]
    pub fn backlog(&self) -> usize {
        self.wire.output.pending()
    }

    /// True when the request's content was read to its end.
    pub fn is_request_done(&self) -> bool {
        self.wire.is_content_done()
    }

    /// Throws away request content that is at hand; true when that was all of it. Never waits.
    pub fn skip_content(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        while !self.wire.is_content_done() && !self.wire.input.is_empty() {
            match self.wire.poll_body(&mut cx) {
                Poll::Ready(Ok(Part::Data(_))) => {}
                _ => break,
            }
        }
        self.wire.is_content_done()
    }

    /// Reads and throws away what the client still sends after a refusal; ready when it stops or sent too much.
    pub fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let at_hand = self.wire.input.data().len();
            self.lingered += at_hand;
            self.wire.input.consume(at_hand);
            if self.lingered > LINGER_BYTES {
                return Poll::Ready(());
            }
            match ready!(self.wire.input.poll_fill(&mut self.wire.io, cx)) {
                Ok(n) if n > 0 => {}
                _ => return Poll::Ready(()),
            }
        }
    }

    /// Bytes of request content that may be spliced.
    pub fn splice_limit(&mut self) -> u64 {
        self.wire.splice_limit()
    }

    /// `n` bytes of request content were spliced away.
    pub fn spliced(&mut self, n: u64) {
        self.wire.decoder.skip(n);
    }

    /// True when response content may be spliced to this side: plain and unframed. Flush first: nothing may wait.
    pub fn takes_splice(&self) -> bool {
        self.wire.io.plain().is_some()
            && matches!(self.wire.framing, BodyFraming::Length(_))
            && self.wire.output.pending() == 0
    }
}
