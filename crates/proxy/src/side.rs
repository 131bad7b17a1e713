//! The two sides of an exchange, whatever protocol each speaks.

use std::io;
use std::task::{Context, Poll};

use rhumb_base::failure::Failure;
use rhumb_codec::field::Fields;
use rhumb_codec::head::{RequestHead, ResponseHead};
use rhumb_conn::{Part, h1, h2};
use tokio::net::TcpStream;

/// Towards the client.
pub(crate) enum Down<'a> {
    H1(&'a mut h1::Server),
    H2(&'a mut h2::Stream),
}

/// Towards the backend.
pub(crate) enum Up {
    H1(Box<h1::Client>),
    H2(Box<h2::Stream>),
}

macro_rules! both {
    ($self:ident, $side:ident => $call:expr) => {
        match $self {
            Self::H1($side) => $call,
            Self::H2($side) => $call,
        }
    };
}

impl Down<'_> {
    #[inline]
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part<'_>, Failure>> {
        match self {
            Self::H1(side) => side.poll_body(cx),
            Self::H2(side) => side.poll_request_body(cx),
        }
    }

    /// Ready when the client is gone while its answer is on the way.
    #[inline]
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        both!(self, side => side.poll_closed(cx))
    }

    pub(crate) fn send_head(&mut self, head: &ResponseHead, keep_alive: bool) {
        match self {
            Self::H1(side) => side.send_head(head, keep_alive),
            Self::H2(side) => side.send_response(head),
        }
    }

    #[inline]
    pub(crate) fn send_data(&mut self, cx: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        both!(self, side => side.send_data(cx, data))
    }

    #[inline]
    pub(crate) fn send_end(&mut self, trailers: Option<&Fields>) {
        both!(self, side => side.send_end(trailers));
    }

    #[inline]
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        both!(self, side => side.poll_ready(cx))
    }

    #[inline]
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        both!(self, side => side.poll_flush(cx))
    }

    /// Bytes that this side has not taken yet.
    #[inline]
    pub(crate) fn backlog(&self) -> usize {
        both!(self, side => side.backlog())
    }

    pub(crate) fn begin_tunnel(&mut self) {
        match self {
            Self::H1(side) => side.begin_tunnel(),
            Self::H2(_) => {}
        }
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::H1(side) => side.poll_shutdown(cx),
            Self::H2(side) => side.poll_flush(cx),
        }
    }

    /// Says that the response is not complete, in whatever way the protocol has.
    pub(crate) fn abort(&mut self) {
        match self {
            // RFC 9112 §8: closing before the framing is complete tells the client; a response that ends with the
            // connection can only tell by a reset.
            Self::H1(side) => {
                if side.is_close_delimited() {
                    let _ = rhumb_net::socket::reset_on_close(side.io().socket());
                }
            }
            Self::H2(side) => side.abort(),
        }
    }

    /// Resets what carries the exchange: the stream of HTTP/2, the connection of HTTP/1.
    pub(crate) fn reset(&mut self) {
        match self {
            Self::H1(side) => {
                let _ = rhumb_net::socket::reset_on_close(side.io().socket());
            }
            Self::H2(side) => side.abort(),
        }
    }

    /// Bytes of request content that may be spliced from this side.
    #[inline]
    pub(crate) fn splice_limit(&mut self) -> u64 {
        match self {
            Self::H1(side) => side.splice_limit(),
            Self::H2(_) => 0,
        }
    }

    /// The socket that request content is spliced from.
    #[inline]
    pub(crate) fn splice_source(&self) -> Option<&TcpStream> {
        match self {
            Self::H1(side) => side.io().plain(),
            Self::H2(_) => None,
        }
    }

    #[inline]
    pub(crate) fn splice_sink(&self) -> Option<&TcpStream> {
        match self {
            Self::H1(side) if side.takes_splice() => side.io().plain(),
            _ => None,
        }
    }

    pub(crate) fn spliced(&mut self, n: u64) {
        if let Self::H1(side) = self {
            side.spliced(n);
        }
    }
}

impl Up {
    pub(crate) fn send_head(&mut self, head: &RequestHead) {
        match self {
            Self::H1(side) => side.send_head(head),
            // A stream of HTTP/2 is opened with its head.
            Self::H2(_) => {}
        }
    }

    #[inline]
    pub(crate) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut ResponseHead,
    ) -> Poll<Result<(), Failure>> {
        both!(self, side => side.poll_response(cx, head))
    }

    #[inline]
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part<'_>, Failure>> {
        match self {
            Self::H1(side) => side.poll_body(cx),
            Self::H2(side) => side.poll_response_body(cx),
        }
    }

    #[inline]
    pub(crate) fn send_data(&mut self, cx: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        both!(self, side => side.send_data(cx, data))
    }

    #[inline]
    pub(crate) fn send_end(&mut self, trailers: Option<&Fields>) {
        both!(self, side => side.send_end(trailers));
    }

    #[inline]
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        both!(self, side => side.poll_ready(cx))
    }

    #[inline]
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        both!(self, side => side.poll_flush(cx))
    }

    /// Bytes that this side has not taken yet.
    #[inline]
    pub(crate) fn backlog(&self) -> usize {
        both!(self, side => side.backlog())
    }

    pub(crate) fn begin_tunnel(&mut self) {
        match self {
            Self::H1(side) => side.begin_tunnel(),
            Self::H2(_) => {}
        }
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::H1(side) => side.poll_shutdown(cx),
            Self::H2(side) => side.poll_flush(cx),
        }
    }

    /// The failure of a connection on which writing failed.
    pub(crate) fn reset(&self) -> Failure {
        both!(self, side => side.reset())
    }

    /// Bytes of response content that may be spliced from this side.
    #[inline]
    pub(crate) fn splice_limit(&mut self) -> u64 {
        match self {
            Self::H1(side) => side.splice_limit(),
            Self::H2(_) => 0,
        }
    }

    /// The socket that response content is spliced from.
    #[inline]
    pub(crate) fn splice_source(&self) -> Option<&TcpStream> {
        match self {
            Self::H1(side) => side.io().plain(),
            Self::H2(_) => None,
        }
    }

    #[inline]
    pub(crate) fn splice_sink(&self) -> Option<&TcpStream> {
        match self {
            Self::H1(side) if side.takes_splice() => side.io().plain(),
            _ => None,
        }
    }

    pub(crate) fn spliced(&mut self, n: u64) {
        if let Self::H1(side) = self {
            side.spliced(n);
        }
    }
}
