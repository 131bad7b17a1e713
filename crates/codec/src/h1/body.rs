//! Message content (RFC 9112 §6 and §7): where it ends, and chunked coding.

use super::error::{BodyError, FieldError};
use super::{Limits, MAX_FIELDS, syntax};
use crate::field::{Fields, Known, KnownSet};
use crate::head::Content;

/// Most digits of a chunk size: 64 bits.
const MAX_SIZE_DIGITS: u8 = 16;

/// Recognised names that may stand in trailers: RFC 9110 §8.8.3, RFC 9209 §2, gRPC. All others frame, route,
/// authenticate or control the message, or describe content that has been passed on already (RFC 9110 §6.5.1).
const TRAILERS: KnownSet =
    KnownSet::of(&[Known::Etag, Known::GrpcMessage, Known::GrpcStatus, Known::ProxyStatus]);

/// Decodes the content of one message.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    /// Content bytes left: of the whole (Length), or of the chunk (Data).
    remaining: u64,
    ext_bytes_left: u32,
    trailer_bytes: u32,
    max_fields: u16,
    trailers: Option<Box<Trailers>>,
}

#[derive(Debug)]
struct Trailers {
    raw: Vec<u8>,
    fields: Fields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    Length,
    UntilClose,
    /// At or in a chunk size; so many digits have been read.
    Size(u8),
    /// In the extensions after a size.
    Extension,
    /// After the CR of a size line.
    SizeLf,
    Data,
    /// After a chunk's data.
    DataCr,
    DataLf,
    /// After the line of the last chunk.
    TrailerStart,
    /// After a CR there: no trailers.
    EndLf,
    Trailers,
}

/// What a call of [`BodyDecoder::decode`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the connection that were used, from the start of the buffer. What follows them belongs to the next
    /// message when `done`; otherwise everything is used.
    pub consumed: usize,
    /// Bytes of content, at the front of the buffer.
    pub data: usize,
    /// The content is complete.
    pub done: bool,
}

impl BodyDecoder {
    /// A decoder for the content that a head announces.
    pub fn new(content: Content, limits: &Limits) -> Self {
        let (state, remaining) = match content {
            Content::None | Content::Length(0) => (State::Done, 0),
            Content::Length(length) => (State::Length, length),
            Content::Streamed => (State::Size(0), 0),
            Content::UntilClose => (State::UntilClose, 0),
        };
        Self {
            state,
            remaining,
            ext_bytes_left: u32::try_from(limits.chunk_ext_bytes).unwrap_or(u32::MAX),
            trailer_bytes: u32::try_from(limits.trailer_bytes).unwrap_or(u32::MAX),
            max_fields: u16::try_from(limits.fields.min(MAX_FIELDS)).unwrap_or(u16::MAX),
            trailers: None,
        }
    }

    /// True when the content is complete.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Decodes in place: content bytes of `buf` move to its front. Uses all of `buf`, or up to the end of the message.
    ///
    /// # Errors
    /// [`BodyError`] when the coding is broken; the end of the message is then unknown, so the connection must close.
    pub fn decode(&mut self, buf: &mut [u8]) -> Result<Decoded, BodyError> {
        let len = match self.state {
            State::Done => 0,
            State::UntilClose => buf.len(),
            State::Length => {
                let len = self.at_most_remaining(buf.len());
                self.skip(len as u64);
                len
            }
            _ => return self.decode_chunked(buf),
        };
        Ok(Decoded { consumed: len, data: len, done: self.is_done() })
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// [`BodyError::Incomplete`] unless the content is complete, or ends with the connection.
    pub fn on_eof(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BodyError::Incomplete),
        }
    }

    /// Content bytes that follow without any coding between them: of a known length, or of the current chunk. `None`
    /// when there are none, or no one knows how many. For moving them by splice(2).
    #[inline]
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length | State::Data => Some(self.remaining),
            _ => None,
        }
    }

    /// True when every byte is content: no chunked coding.
    #[inline]
    pub fn is_raw(&self) -> bool {
        matches!(self.state, State::Length | State::UntilClose)
    }

    /// Takes the trailers out; see [`trailers`](Self::trailers).
    pub fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.trailers().map(|fields| Box::new(std::mem::take(fields)))
    }

    /// `n` content bytes, [`remaining`](Self::remaining) at most, have passed without this decoder.
    #[inline]
    pub fn skip(&mut self, n: u64) {
        debug_assert!(n <= self.remaining);
        self.remaining = self.remaining.saturating_sub(n);
        if self.remaining == 0 {
            match self.state {
                State::Length => self.state = State::Done,
                State::Data => self.state = State::DataCr,
                _ => {}
            }
        }
    }

    /// The trailers, when the content is complete and there are any. Fields that may not be trailers (RFC 9110 §6.5.1)
    /// have been dropped.
    pub fn trailers(&mut self) -> Option<&mut Fields> {
        if self.state != State::Done {
            return None;
        }
        self.trailers.as_mut().map(|trailers| &mut trailers.fields).filter(|fields| !fields.is_empty())
    }

    /// Heap bytes held, for memory accounting.
    pub fn capacity(&self) -> usize {
        self.trailers.as_ref().map_or(0, |trailers| {
            size_of::<Trailers>() + trailers.raw.capacity() + trailers.fields.capacity()
        })
    }

    fn at_most_remaining(&self, len: usize) -> usize {
        usize::try_from(self.remaining).map_or(len, |remaining| remaining.min(len))
    }

    fn decode_chunked(&mut self, buf: &mut [u8]) -> Result<Decoded, BodyError> {
        let mut read = 0;
        let mut written = 0;
        while self.state != State::Done {
            if self.state == State::Data {
                let len = self.at_most_remaining(buf.len() - read);
                if len == 0 {
                    break;
                }
                if read != written {
                    buf.copy_within(read..read + len, written);
                }
                read += len;
                written += len;
                self.skip(len as u64);
                continue;
            }
            if self.state == State::Trailers {
                read += self.read_trailers(buf.get(read..).unwrap_or_default())?;
                break;
            }
            let Some(&byte) = buf.get(read) else { break };
            if self.step(byte)? {
                read += 1;
            }
        }
        Ok(Decoded { consumed: read, data: written, done: self.is_done() })
    }

    /// One byte of the coding; false when it belongs to what follows.
    #[inline]
    fn step(&mut self, byte: u8) -> Result<bool, BodyError> {
        self.state = match (self.state, byte) {
            (State::Size(digits), _) => {
                if let Some(digit) = hex_digit(byte) {
                    if digits >= MAX_SIZE_DIGITS {
                        return Err(BodyError::ChunkSizeTooLarge);
                    }
                    self.remaining = self.remaining << 4 | u64::from(digit);
                    State::Size(digits + 1)
                } else if digits == 0 {
                    return Err(BodyError::ChunkSizeInvalid);
                } else if self.remaining > i64::MAX.unsigned_abs() {
                    return Err(BodyError::ChunkSizeTooLarge);
                } else {
                    match byte {
                        b'\r' => State::SizeLf,
                        b';' => State::Extension,
                        b'\n' => return Err(BodyError::ChunkLineEnd),
                        // White space before an extension is "bad" (RFC 9112 §7.1.1): it once hid the extension.
                        _ => return Err(BodyError::ChunkSizeInvalid),
                    }
                }
            }
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b'\n') => return Err(BodyError::ChunkLineEnd),
            (State::Extension, _) => {
                if !crate::field::is_value_byte(byte) {
                    return Err(BodyError::ChunkExtensionInvalid);
                }
                self.ext_bytes_left =
                    self.ext_bytes_left.checked_sub(1).ok_or(BodyError::ChunkExtensionsTooLong)?;
                State::Extension
            }
            (State::SizeLf, b'\n') if self.remaining == 0 => State::TrailerStart,
            (State::SizeLf, b'\n') => State::Data,
            (State::SizeLf, _) => return Err(BodyError::ChunkLineEnd),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size(0),
            (State::DataCr | State::DataLf, _) => return Err(BodyError::ChunkDataEnd),
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart, _) => {
                self.state = State::Trailers;
                return Ok(false);
            }
            (State::EndLf, b'\n') => State::Done,
            (State::EndLf, _) => return Err(FieldError::BareCr.into()),
            (
                state @ (State::Done | State::Length | State::UntilClose | State::Data | State::Trailers),
                _,
            ) => state,
        };
        Ok(true)
    }

    /// Gathers the trailer section up to its empty line; how many bytes of `input` belong to it.
    #[cold]
    fn read_trailers(&mut self, input: &[u8]) -> Result<usize, BodyError> {
        let trailers = self
            .trailers
            .get_or_insert_with(|| Box::new(Trailers { raw: Vec::new(), fields: Fields::new() }));
        let held = trailers.raw.len();
        let room = usize::try_from(self.trailer_bytes).unwrap_or(usize::MAX).saturating_sub(held);
        let input = input.get(..room).unwrap_or(input);
        trailers.raw.extend_from_slice(input);
        let raw = &mut trailers.raw;
        for at in memchr::memchr_iter(b'\n', input) {
            let end = held + at + 1;
            let so_far = raw.get(..end).unwrap_or_default();
            if !so_far.ends_with(b"\r\n") {
                return Err(syntax::trailer_error(so_far, usize::from(self.max_fields))
                    .unwrap_or(FieldError::BareLf)
                    .into());
            }
            if so_far.ends_with(b"\r\n\r\n") {
                raw.truncate(end);
                parse_trailers(trailers, usize::from(self.max_fields))?;
                self.state = State::Done;
                return Ok(at + 1);
            }
        }
        if input.len() >= room {
            return Err(FieldError::SectionTooLong.into());
        }
        Ok(input.len())
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// `trailers.raw` holds a section whose lines end in CRLF.
fn parse_trailers(trailers: &mut Trailers, max_fields: usize) -> Result<(), FieldError> {
    let raw = std::mem::take(&mut trailers.raw);
    let mut lines = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let lines = lines.get_mut(..max_fields).unwrap_or_default();
    let Ok(httparse::Status::Complete((len, lines))) = httparse::parse_headers(&raw, lines) else {
        return Err(syntax::trailer_error(&raw, max_fields).unwrap_or(FieldError::FieldNameInvalid));
    };
    if len != raw.len() {
        return Err(FieldError::BareLf);
    }
    for line in lines {
        let name = line.name.as_bytes();
        let known = Known::of(name);
        if known == Known::Other || TRAILERS.contains(known) {
            trailers.fields.append_raw(known, name, line.value);
        }
    }
    Ok(())
}

/// True when a line of this name may be written in a trailer section.
pub(crate) fn may_be_trailer(known: Known) -> bool {
    known == Known::Other || TRAILERS.contains(known)
}

#[cfg(test)]
mod tests;
