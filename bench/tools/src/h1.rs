//! HTTP/1.1 as far as the bench's two ends need it (RFC 9112): the backend reads requests, the load
//! generator reads responses.

use memchr::{memchr, memmem};

/// A message that this reader does not take, with the reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// A complete request, as the backend sees it.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// The request line and the fields, with the empty line.
    pub head: Vec<u8>,
    /// Bytes of content that followed, after chunked coding was taken off.
    pub content: u64,
}

/// Reads requests from a connection's bytes, however they are cut.
#[derive(Default)]
pub struct RequestReader {
    head: Vec<u8>,
    content: u64,
    state: RequestState,
}

#[derive(Default)]
enum RequestState {
    #[default]
    Head,
    Sized(u64),
    Chunked(Chunked),
}

/// Where a chunked content stands (RFC 9112 §7.1).
enum Chunked {
    Size(u64),
    Extension(u64),
    Data(u64),
    DataEnd,
    Trailers { line_is_empty: bool },
}

impl RequestReader {
    /// Takes bytes; `complete` gets every request that they complete.
    ///
    /// # Errors
    /// The request cannot be read: close the connection.
    pub fn feed(&mut self, mut bytes: &[u8], mut complete: impl FnMut(Request)) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            let done = match &mut self.state {
                RequestState::Head => {
                    bytes = match take_head(&mut self.head, bytes)? {
                        Some(rest) => rest,
                        None => return Ok(()),
                    };
                    self.state = framing(&self.head)?;
                    self.content = 0;
                    matches!(self.state, RequestState::Sized(0))
                }
                RequestState::Sized(left) => {
                    let n = count(bytes).min(*left);
                    *left -= n;
                    self.content += n;
                    bytes = skip(bytes, n);
                    *left == 0
                }
                RequestState::Chunked(at) => step_chunked(at, &mut bytes, &mut self.content)?,
            };
            if done {
                self.state = RequestState::Head;
                complete(Request { head: std::mem::take(&mut self.head), content: self.content });
            }
        }
        Ok(())
    }
}

/// One step through chunked content; true when its last byte was taken.
fn step_chunked(at: &mut Chunked, bytes: &mut &[u8], content: &mut u64) -> Result<bool, Malformed> {
    if let Chunked::Data(left) = at {
        let n = count(bytes).min(*left);
        *left -= n;
        *content += n;
        *bytes = skip(bytes, n);
        if *left == 0 {
            *at = Chunked::DataEnd;
        }
        return Ok(false);
    }
    let Some((&byte, rest)) = bytes.split_first() else { return Ok(false) };
    *bytes = rest;
    match (&mut *at, byte) {
        (Chunked::Size(size), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
            let digit = char::from(byte).to_digit(16).unwrap_or(0);
            *size = size.checked_mul(16).ok_or(Malformed("chunk size"))? + u64::from(digit);
        }
        (Chunked::Size(size), b'\r' | b';' | b' ') => *at = Chunked::Extension(*size),
        (Chunked::Extension(0), b'\n') => *at = Chunked::Trailers { line_is_empty: true },
        (Chunked::Extension(size), b'\n') => *at = Chunked::Data(*size),
        (Chunked::DataEnd, b'\n') => *at = Chunked::Size(0),
        (Chunked::Trailers { line_is_empty: true }, b'\n') => return Ok(true),
        (Chunked::Trailers { line_is_empty }, _) => {
            *line_is_empty = byte == b'\n' || byte == b'\r' && *line_is_empty
        }
        (Chunked::Extension(_), _) | (Chunked::DataEnd, b'\r') => {}
        _ => return Err(Malformed("chunked coding")),
    }
    Ok(false)
}

fn framing(head: &[u8]) -> Result<RequestState, Malformed> {
    // RFC 9112 §6.3: Transfer-Encoding overrides Content-Length. The proxies under test send only one.
    if field(head, b"transfer-encoding").is_some() {
        return Ok(RequestState::Chunked(Chunked::Size(0)));
    }
    Ok(RequestState::Sized(content_length(head)?.unwrap_or(0)))
}

/// Reads responses from a connection's bytes, one at a time.
#[derive(Default)]
pub struct ResponseReader {
    head: Vec<u8>,
    /// Content still to come, once the head was read.
    left: Option<u64>,
    status: u16,
    length: u64,
}

/// A complete response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Bytes of content.
    pub length: u64,
}

impl ResponseReader {
    /// Takes bytes; tells when they complete the response.
    ///
    /// # Errors
    /// The response has no length (neither the backend nor the proxies under test take it away), or more
    /// bytes follow than were asked for.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<Response>, Malformed> {
        let mut content = bytes;
        if self.left.is_none() {
            content = match take_head(&mut self.head, bytes)? {
                Some(rest) => rest,
                None => return Ok(None),
            };
            self.status = status(&self.head)?;
            self.length = content_length(&self.head)?.ok_or(Malformed("response without Content-Length"))?;
            self.left = Some(self.length);
            self.head.clear();
        }
        let left = self.left.unwrap_or(0);
        let after = left.checked_sub(count(content)).ok_or(Malformed("bytes after the response"))?;
        self.left = (after > 0).then_some(after);
        Ok((after == 0).then_some(Response { status: self.status, length: self.length }))
    }
}

/// Appends to `head` up to and with the empty line; the rest of `bytes` when the head is complete.
fn take_head<'b>(head: &mut Vec<u8>, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, Malformed> {
    let before = head.len();
    head.extend_from_slice(bytes);
    // The end may lie across the border of two reads.
    let from = before.saturating_sub(END_OF_HEAD.len() - 1);
    match memmem::find(&head[from..], END_OF_HEAD) {
        Some(at) => {
            head.truncate(from + at + END_OF_HEAD.len());
            Ok(Some(&bytes[head.len() - before..]))
        }
        None if head.len() > MAX_HEAD => Err(Malformed("head too long")),
        None => Ok(None),
    }
}

fn status(head: &[u8]) -> Result<u16, Malformed> {
    // RFC 9112 §4: HTTP-version SP status-code.
    let digits = head.get(9..12).and_then(|d| std::str::from_utf8(d).ok());
    digits.and_then(|d| d.parse().ok()).ok_or(Malformed("status line"))
}

fn content_length(head: &[u8]) -> Result<Option<u64>, Malformed> {
    let Some(value) = field(head, b"content-length") else { return Ok(None) };
    let value = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    value.map(Some).ok_or(Malformed("Content-Length"))
}

/// The first value of a field, whose name is given in lower case.
pub fn field<'h>(head: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    let mut rest = head;
    while let Some(end) = memchr(b'\n', rest) {
        rest = &rest[end + 1..];
        let Some(line_name) = rest.get(..name.len()) else { continue };
        if rest.get(name.len()) == Some(&b':') && line_name.eq_ignore_ascii_case(name) {
            let value = &rest[name.len() + 1..];
            return Some(value[..memchr(b'\r', value)?].trim_ascii());
        }
    }
    None
}

fn count(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

fn skip(bytes: &[u8], n: u64) -> &[u8] {
    usize::try_from(n).ok().and_then(|n| bytes.get(n..)).unwrap_or_default()
}

const END_OF_HEAD: &[u8] = b"\r\n\r\n";
/// Longest head taken. Unit: bytes.
const MAX_HEAD: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const REQUESTS: &[u8] = b"GET /b/1 HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /b/2 HTTP/1.1\r\ncontent-LENGTH: 5\r\n\r\nhello\
        POST /b/3 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\nA;x=y\r\n0123456789\r\n0\r\nT: 1\r\n\r\n\
        GET /b/4 HTTP/1.1\r\n\r\n";

    #[test]
    fn requests_are_the_same_however_the_bytes_are_cut() {
        for size in 1..REQUESTS.len() {
            let mut reader = RequestReader::default();
            let mut contents = vec![];
            for part in REQUESTS.chunks(size) {
                reader.feed(part, |r| contents.push((r.head[..9].to_vec(), r.content))).expect("well formed");
            }
            let paths: Vec<_> = contents.iter().map(|(head, n)| (head.last().copied(), *n)).collect();
            let lines: Vec<_> = contents.iter().map(|(h, _)| h[0]).collect();
            assert_eq!(lines, b"GPPG", "{size}");
            assert_eq!(paths.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [0, 5, 14, 0], "{size}");
        }
    }

    #[test]
    fn responses_are_the_same_however_the_bytes_are_cut() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world";
        for size in 1..bytes.len() {
            let mut reader = ResponseReader::default();
            let answers: Vec<_> =
                bytes.chunks(size).filter_map(|part| reader.feed(part).expect("well formed")).collect();
            assert_eq!(answers, [Response { status: 200, length: 11 }], "{size}");
        }
    }

    #[test]
    fn a_response_without_a_length_or_with_more_than_it_is_refused() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
            b"HTTP/1.1 abc OK\r\nContent-Length: 1\r\n\r\na",
        ] {
            assert!(ResponseReader::default().feed(bytes).is_err());
        }
    }

    #[test]
    fn a_broken_chunk_is_refused() {
        let mut reader = RequestReader::default();
        let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        reader.feed(head, |_| {}).expect("a good head");
        assert_eq!(reader.feed(b"xyz", |_| {}), Err(Malformed("chunked coding")));
    }
}
