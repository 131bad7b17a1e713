//! Field sections into message heads (RFC 9113 §8.2, §8.3).
//!
//! A block is always decoded to its end, for the table's sake. The first rule that it breaks is kept; from there on
//! nothing is stored.

use super::config::{Config, SECTION_EXCESS};
use super::error::{Abuse, ConnectionError, Refusal};
use super::hpack::{Block, Field, Name};
use crate::authority::Authority;
use crate::field::{Fields, Known, KnownSet, Span, is_token_byte};
use crate::h1::{MAX_METHOD_BYTES, VOUCHED_FOR, may_be_trailer, spelled_with_hyphens};
use crate::head::{Content, IN_HEAD, Method, RequestHead, ResponseHead, Scheme, Version, is_target_byte};

/// Fields that do not simply become a line of the head.
const SPECIAL: KnownSet = IN_HEAD.with(Known::Cookie);

/// One kind of field section being read.
trait Section {
    fn fields(&mut self) -> &mut Fields;
    fn pseudo(&mut self, field: &Field) -> Result<(), Refusal>;
    fn special(&mut self, known: Known, field: &Field) -> Result<(), Refusal>;
    fn plain(&mut self, known: Known, field: &Field) -> Result<(), Refusal>;
}

/// Reads a block to its end. The inner result is the first rule that the section breaks.
fn read(
    mut block: Block<'_, '_>,
    config: &Config,
    section: &mut impl Section,
) -> Result<Result<(), Refusal>, ConnectionError> {
    let limit = config.max_header_list_size as usize;
    let mut result = Ok(());
    let mut size = 0usize;
    let mut lines = 0u32;
    let mut in_fields = false;
    loop {
        let arena = section.fields().arena_mut();
        let mark = arena.len();
        let Some(field) = block.next(arena)? else { return Ok(result) };
        size += field.size();
        lines += 1;
        if size > limit.saturating_mul(SECTION_EXCESS) {
            return Err(ConnectionError::Abuse(Abuse::FieldSection));
        }
        if result.is_ok() {
            result = take(section, &field, &mut in_fields);
            if size > limit {
                result = Err(Refusal::TooLarge);
            } else if lines > config.max_fields {
                result = Err(Refusal::TooManyFields);
            }
        } else {
            section.fields().arena_mut().truncate(mark);
        }
    }
}

#[inline]
fn take(section: &mut impl Section, field: &Field, in_fields: &mut bool) -> Result<(), Refusal> {
    if !field.is_valid() {
        return Err(if field.is_valid_name() { Refusal::ValueInvalid } else { Refusal::NameInvalid });
    }
    let Name::Field(known) = field.name else {
        return if *in_fields { Err(Refusal::PseudoAfterField) } else { section.pseudo(field) };
    };
    *in_fields = true;
    if SPECIAL.contains(known) { section.special(known, field) } else { section.plain(known, field) }
}

#[inline]
fn append(fields: &mut Fields, known: Known, field: &Field) {
    fields.append_spans(known, field.name_text, field.value);
    if field.is_never_indexed() {
        fields.never_index_last();
    }
}

/// RFC 9113 §8.2.2: a message with a field of HTTP/1.1 connections is malformed.
fn is_of_connection(known: Known) -> bool {
    const OF_CONNECTION: KnownSet = KnownSet::of(&[
        Known::Connection,
        Known::Http2Settings,
        Known::KeepAlive,
        Known::ProxyConnection,
        Known::TransferEncoding,
        Known::Upgrade,
    ]);
    OF_CONNECTION.contains(known)
}

/// Content-Length: digits, below 2⁶³, once (RFC 9110 §8.6).
fn read_length(text: &[u8], length: &mut Option<u64>) -> Result<(), Refusal> {
    const MAX_DIGITS: usize = 19;
    if text.is_empty() || text.len() > MAX_DIGITS || !text.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::ContentLengthInvalid);
    }
    let number = text.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    if i64::try_from(number).is_err() {
        return Err(Refusal::ContentLengthInvalid);
    }
    match length.replace(number) {
        None => Ok(()),
        Some(_) => Err(Refusal::ContentLengthRepeated),
    }
}

/// What a head says about the content that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framing {
    /// Bytes of DATA that have to come; `None`: any number.
    pub(super) expected: Option<u64>,
}

/// Reads a request. `head` is empty.
pub(super) fn request(
    block: Block<'_, '_>,
    config: &Config,
    head: &mut RequestHead,
    end_stream: bool,
) -> Result<Result<Framing, Refusal>, ConnectionError> {
    let mut section = RequestSection {
        head,
        max_path: config.max_path as usize,
        seen: 0,
        scheme: Span::default(),
        authority: None,
        path: Span::default(),
        host: None,
        length: None,
        cookies: 0,
        expects: false,
    };
    let read = read(block, config, &mut section)?;
    Ok(read.and_then(|()| section.finish(config.enable_connect_protocol, end_stream)))
}

struct RequestSection<'a> {
    head: &'a mut RequestHead,
    max_path: usize,
    /// Pseudo-fields that have come.
    seen: u8,
    scheme: Span,
    authority: Option<Span>,
    path: Span,
    host: Option<Span>,
    length: Option<u64>,
    cookies: u32,
    expects: bool,
}

const METHOD: u8 = 1;
const SCHEME: u8 = 1 << 1;
const AUTHORITY: u8 = 1 << 2;
const PATH: u8 = 1 << 3;
const PROTOCOL: u8 = 1 << 4;

impl Section for RequestSection<'_> {
    #[inline]
    fn fields(&mut self) -> &mut Fields {
        &mut self.head.fields
    }

    #[inline]
    fn pseudo(&mut self, field: &Field) -> Result<(), Refusal> {
        let bit = match field.name {
            Name::Method => {
                let name = self.head.fields.bytes(field.value);
                if name.is_empty() || !name.iter().all(|&b| is_token_byte(b)) {
                    return Err(Refusal::MethodInvalid);
                }
                if name.len() > MAX_METHOD_BYTES {
                    return Err(Refusal::MethodTooLong);
                }
                let method = Method::of(name);
                self.head.receive_method(method, field.value);
                METHOD
            }
            Name::Scheme => {
                self.scheme = field.value;
                SCHEME
            }
            Name::Authority => {
                self.authority = Some(field.value);
                AUTHORITY
            }
            Name::Path => {
                if field.value.len() > self.max_path {
                    return Err(Refusal::PathTooLong);
                }
                self.path = field.value;
                PATH
            }
            Name::Protocol => {
                // It becomes an Upgrade field of HTTP/1.1: one protocol, not a list.
                let name = self.head.fields.bytes(field.value);
                if name.is_empty() || !name.iter().all(|&b| is_token_byte(b)) {
                    return Err(Refusal::ConnectInvalid);
                }
                self.head.receive_protocol(field.value);
                PROTOCOL
            }
            _ => return Err(Refusal::PseudoUnknown),
        };
        if self.seen & bit != 0 {
            return Err(Refusal::PseudoRepeated);
        }
        self.seen |= bit;
        Ok(())
    }

    fn special(&mut self, known: Known, field: &Field) -> Result<(), Refusal> {
        let value = self.head.fields.bytes(field.value);
        match known {
            Known::Cookie => {
                self.cookies += 1;
                append(&mut self.head.fields, known, field);
            }
            Known::ContentLength => return read_length(value, &mut self.length),
            Known::Host => {
                if self.host.replace(field.value).is_some() {
                    return Err(Refusal::HostRepeated);
                }
            }
            // In HTTP/2 every request may be answered with trailers: what is left to say is nothing.
            Known::Te if value.eq_ignore_ascii_case(b"trailers") => {}
            Known::Te => return Err(Refusal::TeInvalid),
            Known::Expect => {
                if self.expects || !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal::ExpectationUnknown);
                }
                self.expects = true;
            }
            _ => return Err(Refusal::ConnectionField),
        }
        Ok(())
    }

    #[inline]
    fn plain(&mut self, known: Known, field: &Field) -> Result<(), Refusal> {
        if known == Known::Other {
            let name = self.head.fields.bytes(field.name_text);
            if memchr::memchr(b'_', name).is_some() {
                match spelled_with_hyphens(name) {
                    Known::ContentLength | Known::TransferEncoding => return Err(Refusal::FramingAlias),
                    alias if VOUCHED_FOR.contains(alias) => return Ok(()),
                    _ => {}
                }
            }
        }
        append(&mut self.head.fields, known, field);
        Ok(())
    }
}

impl RequestSection<'_> {
    /// The rules about the section as a whole (RFC 9113 §8.3.1, §8.5, RFC 8441 §4).
    fn finish(self, connect_protocol: bool, end_stream: bool) -> Result<Framing, Refusal> {
        let has = |bits: u8| self.seen & bits == bits;
        if !has(METHOD) {
            return Err(Refusal::PseudoMissing);
        }
        let method = self.head.method();
        let is_connect = method == Method::Connect;
        if has(PROTOCOL) && !(is_connect && connect_protocol) {
            return Err(Refusal::ConnectInvalid);
        }
        let is_tunnel = is_connect && !has(PROTOCOL);
        if is_tunnel {
            if self.seen & (SCHEME | PATH) != 0 {
                return Err(Refusal::ConnectInvalid);
            }
        } else {
            if !has(SCHEME | PATH) {
                return Err(Refusal::PseudoMissing);
            }
            self.head.scheme = match self.head.fields.bytes(self.scheme) {
                b"https" => Scheme::Https,
                b"http" => Scheme::Http,
                other if other.eq_ignore_ascii_case(b"https") => Scheme::Https,
                other if other.eq_ignore_ascii_case(b"http") => Scheme::Http,
                _ => return Err(Refusal::SchemeInvalid),
            };
            let path = self.head.fields.bytes(self.path);
            let is_valid = match path.first() {
                Some(b'/') => path.iter().fold(true, |valid, &b| valid & is_target_byte(b)),
                _ => path == b"*" && method == Method::Options,
            };
            if !is_valid {
                return Err(Refusal::PathInvalid);
            }
            self.head.receive_target(self.path);
        }
        let authority = self.authority(is_tunnel)?;
        self.head.receive_authority(authority);
        if is_connect && self.length.is_some() {
            // What follows is a tunnel: a length would only mislead (RFC 9110 §9.3.6).
            return Err(Refusal::ConnectInvalid);
        }
        if self.cookies > 1 {
            // RFC 9113 §8.2.3.
            self.head.fields.join(Known::Cookie, b"; ");
        }
        self.head.version = Version::Http2;
        self.head.keep_alive = true;
        self.head.accepts_trailers = true;
        self.head.content = match self.length {
            Some(length) if end_stream && length != 0 => return Err(Refusal::ContentLengthMismatch),
            _ if is_connect => Content::None,
            Some(length) => Content::Length(length),
            None if end_stream => Content::None,
            None => Content::Streamed,
        };
        self.head.expect_continue = self.expects && !self.head.content.is_empty();
        Ok(Framing { expected: self.length })
    }

    /// One authority, from `:authority`, Host or both.
    fn authority(&self, is_tunnel: bool) -> Result<Span, Refusal> {
        // A client that converts from HTTP/1.1 may send Host alone (RFC 9113 §8.3.1).
        let span = match (self.authority, self.host) {
            (Some(authority), _) => authority,
            (None, Some(host)) if !is_tunnel => host,
            _ => return Err(Refusal::AuthorityMissing),
        };
        let parse = |span| Authority::parse(self.head.fields.bytes(span)).ok_or(Refusal::AuthorityInvalid);
        let authority = parse(span)?;
        if is_tunnel && authority.port.is_none() {
            return Err(Refusal::ConnectInvalid);
        }
        if let (Some(_), Some(host)) = (self.authority, self.host) {
            let default_port = match self.head.scheme {
                Scheme::Http => 80,
                Scheme::Https => 443,
            };
            if !authority.is_same(&parse(host)?, default_port) {
                return Err(Refusal::HostMismatch);
            }
        }
        Ok(span)
    }
}

/// What a response answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    Head,
    Connect,
    Other,
}

/// Reads a response, interim or final. `head` is empty.
pub(super) fn response(
    block: Block<'_, '_>,
    config: &Config,
    head: &mut ResponseHead,
    answers: Answers,
    end_stream: bool,
) -> Result<Result<Framing, Refusal>, ConnectionError> {
    let mut section = ResponseSection { head, length: None };
    let read = read(block, config, &mut section)?;
    Ok(read.and_then(|()| section.finish(answers, end_stream)))
}

struct ResponseSection<'a> {
    head: &'a mut ResponseHead,
    length: Option<u64>,
}

impl Section for ResponseSection<'_> {
    #[inline]
    fn fields(&mut self) -> &mut Fields {
        &mut self.head.fields
    }

    #[inline]
    fn pseudo(&mut self, field: &Field) -> Result<(), Refusal> {
        if field.name != Name::Status {
            return Err(Refusal::PseudoUnknown);
        }
        if self.head.status != 0 {
            return Err(Refusal::PseudoRepeated);
        }
        self.head.status = match *self.head.fields.bytes(field.value) {
            [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            _ => return Err(Refusal::StatusInvalid),
        };
        Ok(())
    }

    fn special(&mut self, known: Known, field: &Field) -> Result<(), Refusal> {
        match known {
            Known::ContentLength => read_length(self.head.fields.bytes(field.value), &mut self.length),
            Known::Cookie => self.plain(known, field),
            known if is_of_connection(known) => Err(Refusal::ConnectionField),
            // Host, TE and Expect mean nothing in a response.
            _ => Ok(()),
        }
    }

    #[inline]
    fn plain(&mut self, known: Known, field: &Field) -> Result<(), Refusal> {
        append(&mut self.head.fields, known, field);
        Ok(())
    }
}

impl ResponseSection<'_> {
    /// RFC 9113 §8.1, §8.3.2; RFC 9110 §8.6, §9.3.6, §15.
    fn finish(self, answers: Answers, end_stream: bool) -> Result<Framing, Refusal> {
        let Self { head, length } = self;
        let (content, expected) = match (head.status, answers) {
            (0, _) => return Err(Refusal::PseudoMissing),
            // RFC 9113 §8.6: HTTP/2 does not switch protocols.
            (101, _) => return Err(Refusal::StatusInvalid),
            (100..200, _) if end_stream => return Err(Refusal::InterimEndsStream),
            // The final response is still to come, and DATA before it is not allowed.
            (100..200, _) => (Content::None, Some(0)),
            (200..300, Answers::Connect) => (Content::None, None),
            (204, _) => (Content::None, Some(0)),
            (304, _) | (_, Answers::Head) => {
                head.declared_length = length;
                (Content::None, Some(0))
            }
            _ => match length {
                Some(length) if end_stream && length != 0 => return Err(Refusal::ContentLengthMismatch),
                Some(length) => (Content::Length(length), Some(length)),
                None if end_stream => (Content::None, Some(0)),
                None => (Content::Streamed, None),
            },
        };
        head.content = content;
        head.version = Version::Http2;
        head.keep_alive = true;
        Ok(Framing { expected })
    }
}

/// Reads trailers. What may not be a trailer (RFC 9110 §6.5.1) is dropped.
pub(super) fn trailers(
    block: Block<'_, '_>,
    config: &Config,
    fields: &mut Fields,
) -> Result<Result<(), Refusal>, ConnectionError> {
    read(block, config, &mut TrailerSection { fields })
}

struct TrailerSection<'a> {
    fields: &'a mut Fields,
}

impl Section for TrailerSection<'_> {
    #[inline]
    fn fields(&mut self) -> &mut Fields {
        self.fields
    }

    fn pseudo(&mut self, _: &Field) -> Result<(), Refusal> {
        // RFC 9113 §8.1.
        Err(Refusal::PseudoUnknown)
    }

    fn special(&mut self, known: Known, _: &Field) -> Result<(), Refusal> {
        if is_of_connection(known) { Err(Refusal::ConnectionField) } else { Ok(()) }
    }

    fn plain(&mut self, known: Known, field: &Field) -> Result<(), Refusal> {
        if may_be_trailer(known) {
            append(self.fields, known, field);
        }
        Ok(())
    }
}

/// Reads a block for the table's sake only.
pub(super) fn discard(block: Block<'_, '_>, config: &Config) -> Result<(), ConnectionError> {
    read(block, config, &mut Discard { fields: Fields::new() }).map(drop)
}

struct Discard {
    fields: Fields,
}

impl Section for Discard {
    fn fields(&mut self) -> &mut Fields {
        &mut self.fields
    }

    fn pseudo(&mut self, _: &Field) -> Result<(), Refusal> {
        Err(Refusal::PseudoUnknown)
    }

    fn special(&mut self, _: Known, _: &Field) -> Result<(), Refusal> {
        Err(Refusal::PseudoUnknown)
    }

    fn plain(&mut self, _: Known, _: &Field) -> Result<(), Refusal> {
        Err(Refusal::PseudoUnknown)
    }
}
