//! What both sides of HTTP/1 share: a stream, its buffers, and the framing of the content in each direction.

use std::io;
use std::task::{Context, Poll, ready};

use rhumb_codec::field::Fields;
use rhumb_codec::h1::{self, BodyDecoder, BodyError, BodyFraming, Limits};
use rhumb_codec::head::Content;

use crate::Part;
use crate::input::Input;
use crate::io::Io;
use crate::output::{HIGH_WATER, Output};

/// Why content stopped.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The stream failed or ended early.
    Closed,
    /// The peer broke the framing.
    Framing(BodyError),
}

pub(crate) struct Wire {
    pub(crate) io: Io,
    pub(crate) input: Input,
    pub(crate) output: Output,
    pub(crate) decoder: BodyDecoder,
    pub(crate) framing: BodyFraming,
    /// Raw bytes at the front of the input that the last part was decoded from.
    lent: usize,
    pub(crate) peer_finished: bool,
    pub(crate) is_tunnel: bool,
}

impl Wire {
    pub(crate) fn new(io: Io) -> Self {
        Self {
            io,
            input: Input::default(),
            output: Output::default(),
            decoder: BodyDecoder::new(Content::None, &Limits::default()),
            framing: BodyFraming::None,
            lent: 0,
            peer_finished: false,
            is_tunnel: false,
        }
    }

    /// Incoming content follows.
    pub(crate) fn begin_content(&mut self, content: Content, limits: &Limits) {
        self.decoder = BodyDecoder::new(content, limits);
        self.lent = 0;
    }

    /// From here on bytes pass as they are, in both directions (RFC 9110 §7.8).
    pub(crate) fn begin_tunnel(&mut self, limits: &Limits) {
        self.begin_content(Content::UntilClose, limits);
        self.framing = BodyFraming::UntilClose;
        self.is_tunnel = true;
    }

    /// True when all incoming content was given out and fetched. Not before: the bytes of a part that was given out
    /// last still lie at the front of the input, where the next message would be looked for.
    pub(crate) fn is_content_done(&self) -> bool {
        self.decoder.is_done() && self.lent == 0
    }

    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part<'_>, Broken>> {
        if self.lent > 0 {
            self.input.consume(self.lent);
            self.lent = 0;
        }
        loop {
            if self.decoder.is_done() {
                return Poll::Ready(Ok(Part::End(self.decoder.take_trailers())));
            }
            if !self.input.is_empty() {
                let decoded = self.decoder.decode(self.input.data_mut()).map_err(Broken::Framing)?;
                if decoded.data > 0 {
                    self.lent = decoded.consumed;
                    return Poll::Ready(Ok(Part::Data(
                        self.input.data().get(..decoded.data).unwrap_or_default(),
                    )));
                }
                self.input.consume(decoded.consumed);
                if decoded.consumed > 0 {
                    continue;
                }
            }
            match ready!(self.input.poll_fill(&mut self.io, cx)) {
                Ok(0) => {
                    self.peer_finished = true;
                    self.decoder.on_eof().map_err(|_| Broken::Closed)?;
                }
                Ok(_) => {}
                Err(error) if self.is_tunnel && error.kind() == io::ErrorKind::UnexpectedEof => {
                    // A tunnelled protocol has an end of its own: a missing close_notify is its business.
                    self.peer_finished = true;
                    self.decoder.on_eof().map_err(|_| Broken::Closed)?;
                }
                Err(_) => return Poll::Ready(Err(Broken::Closed)),
            }
        }
    }

    /// Bytes of incoming content that may bypass the buffers; 0 when they may not. The last part is done with.
    pub(crate) fn splice_limit(&mut self) -> u64 {
        if self.lent > 0 {
            self.input.consume(self.lent);
            self.lent = 0;
        }
        if !self.input.is_empty() || self.io.plain().is_none() || !self.decoder.is_raw() {
            return 0;
        }
        self.decoder.remaining().unwrap_or(0)
    }

    pub(crate) fn send_data(&mut self, cx: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        if data.is_empty() || matches!(self.framing, BodyFraming::None) {
            return Ok(());
        }
        if matches!(self.framing, BodyFraming::Chunked) {
            h1::write_chunk_prefix(data.len(), self.output.buffer());
            self.output.write(&mut self.io, cx, data)?;
            self.output.buffer().extend_from_slice(b"\r\n");
            return Ok(());
        }
        self.output.write(&mut self.io, cx, data)
    }

    pub(crate) fn send_end(&mut self, trailers: Option<&Fields>) {
        if matches!(self.framing, BodyFraming::Chunked) {
            h1::write_last_chunk(trailers, self.output.buffer());
        }
        if !self.is_tunnel {
            self.framing = BodyFraming::None;
        }
    }

    /// Ready when more content may be sent: writes what waits while much of it does.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.output.pending() < HIGH_WATER {
            return Poll::Ready(Ok(()));
        }
        self.output.poll_flush(&mut self.io, cx)
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output.poll_flush(&mut self.io, cx)
    }
}
