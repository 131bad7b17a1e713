//! Heads and chunks into bytes. Everything that frames is written from what the head says, never from its fields.

use super::body::may_be_trailer;
use crate::field::Fields;
use crate::head::{Content, IN_HEAD, Method, RequestHead, ResponseHead, Version, reason};

/// What follows each chunk's data.
pub const CHUNK_END: &[u8; 2] = b"\r\n";

/// Room for what a head has besides its fields, so that one reservation does.
const START_AND_FRAMING_BYTES: usize = 512;

/// How the content of a response is framed on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// No content may follow.
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// Chunks, then [`write_last_chunk`].
    Chunked,
    /// Bytes until the connection closes.
    UntilClose,
}

/// What the framing of a response depends on besides its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseContext {
    /// The version of the request.
    pub client_version: Version,
    /// The method of the request.
    pub request_method: Method,
    /// The connection stays open after this response, if its framing allows.
    pub keep_alive: bool,
}

/// Appends the request as the next server reads it: HTTP/1.1, origin-form (RFC 9112 §3.2.1) with Host first. `*` and
/// CONNECT keep their forms. An empty authority (HTTP/1.0 without Host) becomes an empty Host, which most servers
/// refuse: set one before. An extended CONNECT (RFC 8441 §4) becomes the GET with Upgrade that it stands for; a
/// WebSocket's key is the caller's to add.
///
/// Content-Length: 0 is written where a method anticipates content (RFC 9110 §8.6). `TE: trailers` is passed on for a
/// client of HTTP/1.1 that sent it.
pub fn write_request(head: &RequestHead, out: &mut Vec<u8>) {
    out.reserve(START_AND_FRAMING_BYTES);
    let extended = if head.method() == Method::Connect { head.protocol() } else { None };
    match head.method() {
        Method::Connect if extended.is_none() => {
            out.extend_from_slice(b"CONNECT ");
            out.extend_from_slice(head.authority());
        }
        method => {
            out.extend_from_slice(if method == Method::Connect { b"GET" } else { head.method_name() });
            out.push(b' ');
            if head.path().is_empty() {
                out.push(b'/');
            }
            head.write_target(out);
        }
    }
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(head.authority());
    out.extend_from_slice(b"\r\n");
    head.fields.write_lines(IN_HEAD, out);

    match head.content {
        Content::None if matches!(head.method(), Method::Post | Method::Put | Method::Patch) => {
            out.extend_from_slice(b"Content-Length: 0\r\n");
        }
        // An extended CONNECT has a tunnel, not content.
        _ if head.method() == Method::Connect => {}
        Content::None => {}
        Content::Length(length) => write_length(length, out),
        // Only responses may end with the connection: RFC 9112 §6.3 item 8.
        Content::Streamed | Content::UntilClose => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
    if head.expect_continue {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    let upgrade = extended.or_else(|| head.upgrade());
    let trailers = head.accepts_trailers && head.version == Version::Http11;
    if let Some(protocols) = upgrade {
        out.extend_from_slice(b"Upgrade: ");
        out.extend_from_slice(protocols);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(match (upgrade.is_some(), trailers) {
        (true, true) => b"TE: trailers\r\nConnection: upgrade, TE\r\n\r\n",
        (true, false) => b"Connection: upgrade\r\n\r\n",
        (false, true) => b"TE: trailers\r\nConnection: TE\r\n\r\n",
        (false, false) => b"\r\n",
    });
}

/// Appends the response as this client reads it and says how its content is framed (RFC 9112 §6.3). Content of unknown
/// length is chunked for HTTP/1.1 and ends with the connection for HTTP/1.0. When the framing is
/// [`BodyFraming::UntilClose`], or `keep_alive` is false, `Connection: close` is written and the caller must close.
///
/// Interim responses are not written for clients of HTTP/1.0 (RFC 9110 §15.2): nothing is appended.
pub fn write_response(head: &ResponseHead, context: ResponseContext, out: &mut Vec<u8>) -> BodyFraming {
    if head.is_interim() && context.client_version == Version::Http10 {
        return BodyFraming::None;
    }
    out.reserve(START_AND_FRAMING_BYTES);
    write_status_line(head.status, out);
    head.fields.write_lines(IN_HEAD, out);
    let framing = response_framing(head, context);
    match framing {
        BodyFraming::Length(length) => write_length(length, out),
        BodyFraming::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        BodyFraming::None => {
            if let Some(length) = declared_length(head, context.request_method) {
                write_length(length, out);
            }
        }
        BodyFraming::UntilClose => {}
    }
    if let (101 | 426, Some(protocol)) = (head.status, head.upgrade()) {
        out.extend_from_slice(b"Upgrade: ");
        out.extend_from_slice(protocol);
        out.extend_from_slice(b"\r\n");
    }
    let keep_alive = context.keep_alive && framing != BodyFraming::UntilClose;
    let upgrades = head.status == 426 && head.upgrade().is_some();
    out.extend_from_slice(match (head.is_interim(), keep_alive, context.client_version) {
        _ if head.status == 101 => b"Connection: upgrade\r\n\r\n",
        (true, _, _) => b"\r\n",
        (false, false, _) if upgrades => b"Connection: close, upgrade\r\n\r\n",
        (false, false, _) => b"Connection: close\r\n\r\n",
        // RFC 9112 §9.3: HTTP/1.0 closes unless told otherwise.
        (false, true, Version::Http10) => b"Connection: keep-alive\r\n\r\n",
        (false, true, _) if upgrades => b"Connection: upgrade\r\n\r\n",
        (false, true, _) => b"\r\n",
    });
    framing
}

/// RFC 9112 §6.3, from the sender's side.
fn response_framing(head: &ResponseHead, context: ResponseContext) -> BodyFraming {
    match head.status {
        100..200 | 204 | 304 => BodyFraming::None,
        200..300 if context.request_method == Method::Connect => BodyFraming::None,
        _ if context.request_method == Method::Head => BodyFraming::None,
        _ => match head.content {
            // Without a length the client would wait for the connection to close.
            Content::None => BodyFraming::Length(0),
            Content::Length(length) => BodyFraming::Length(length),
            _ if context.client_version == Version::Http10 => BodyFraming::UntilClose,
            Content::Streamed | Content::UntilClose => BodyFraming::Chunked,
        },
    }
}

/// The length that a response without content may still state: to HEAD, and in 304 (RFC 9110 §8.6).
fn declared_length(head: &ResponseHead, request_method: Method) -> Option<u64> {
    match (head.status, head.content) {
        (100..200 | 204, _) => None,
        (200..300, _) if request_method == Method::Connect => None,
        (304, _) => head.declared_length,
        (_, Content::Length(length)) => Some(head.declared_length.unwrap_or(length)),
        _ => head.declared_length,
    }
}

fn write_status_line(status: u16, out: &mut Vec<u8>) {
    if status == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    // RFC 9112 §4: the space before the reason phrase is required even when there is none.
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends the size line of a chunk of `len` bytes; the data and [`CHUNK_END`] follow. Nothing for 0: that would be the
/// last chunk.
#[inline]
pub fn write_chunk_prefix(len: usize, out: &mut Vec<u8>) {
    if len == 0 {
        return;
    }
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        out.extend(DIGITS.get(len >> (4 * place) & 0xf));
    }
    out.extend_from_slice(CHUNK_END);
}

/// Appends `data` as one chunk; nothing when it is empty.
#[inline]
pub fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    write_chunk_prefix(data.len(), out);
    out.extend_from_slice(data);
    out.extend_from_slice(CHUNK_END);
}

/// Appends the end of chunked content, with those trailers that may be sent as such (RFC 9110 §6.5.1).
pub fn write_last_chunk(trailers: Option<&Fields>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for line in trailers.into_iter().flat_map(Fields::iter).filter(|line| may_be_trailer(line.known)) {
        out.extend_from_slice(line.name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(line.value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
