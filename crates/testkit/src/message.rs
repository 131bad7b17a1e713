//! A strict reader of HTTP/1.1 messages for the judge's bench: whatever RFC 9112 leaves to a recipient's leniency is
//! an error here. Independent of the codec under test.

use std::fmt::Write as _;

/// How a message says where its content ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No content, and no field that announces any.
    None,
    /// Content-Length.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
    /// Ends with the connection (responses only).
    UntilClose,
}

/// One complete message. Bytes above 127 stand as the character of the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Request line or status line, without its line end.
    pub start: String,
    /// Fields in order, names as written.
    pub fields: Vec<(String, String)>,
    /// How the content was framed.
    pub framing: Framing,
    /// Content with its transfer coding removed.
    pub content: Vec<u8>,
    /// Trailer fields of a chunked message.
    pub trailers: Vec<(String, String)>,
}

/// Whose messages are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Requests.
    Request,
    /// Responses to a request other than HEAD and CONNECT.
    Response,
    /// Responses to HEAD: no content whatever the fields say.
    ResponseToHead,
}

/// Fields that the proxy adds to requests by itself; [`Message::canonical`] leaves them out.
pub const ADDED_TO_REQUESTS: &[&str] = &[
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-real-ip",
    "forwarded",
    "via",
    "traceparent",
    "tracestate",
];

impl Message {
    /// Reads the message that `input` starts with: it and the number of bytes it has, or `None` when more must come.
    /// `ended`: no more bytes will come, which completes a message that lasts until the close.
    pub fn read(input: &[u8], kind: Kind, ended: bool) -> Result<Option<(Self, usize)>, String> {
        let Some((mut message, head)) = Self::read_start(input, kind)? else { return Ok(None) };
        let body = &input[head..];
        match message.framing {
            Framing::None => Ok(Some((message, head))),
            Framing::Length(length) => {
                let length = usize::try_from(length).map_err(|_| "content-length beyond memory")?;
                let Some(content) = body.get(..length) else { return Ok(None) };
                message.content = content.to_vec();
                Ok(Some((message, head + length)))
            }
            Framing::Chunked => {
                let Some((content, trailers, used)) = read_chunked(body)? else { return Ok(None) };
                message.content = content;
                message.trailers = trailers;
                Ok(Some((message, head + used)))
            }
            Framing::UntilClose => {
                if !ended {
                    return Ok(None);
                }
                message.content = body.to_vec();
                Ok(Some((message, input.len())))
            }
        }
    }

    /// Reads only the head: the message without content, and the length of its head.
    pub fn read_start(input: &[u8], kind: Kind) -> Result<Option<(Self, usize)>, String> {
        let Some((start, fields, head)) = read_head(input)? else { return Ok(None) };
        check_start(&start, kind)?;
        let mut message =
            Self { start, fields, framing: Framing::None, content: Vec::new(), trailers: Vec::new() };
        message.framing = message.find_framing(kind)?;
        Ok(Some((message, head)))
    }

    /// All messages of a byte stream and what is left over.
    pub fn read_all(input: &[u8], kind: Kind, ended: bool) -> Result<(Vec<Self>, &[u8]), String> {
        let mut rest = input;
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let Some((message, used)) = Self::read(rest, kind, ended)? else { break };
            rest = &rest[used..];
            messages.push(message);
        }
        Ok((messages, rest))
    }

    /// The status code of a response.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// The method of a request.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The target of a request.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The only value of a field; panics when it stands there more than once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.values(name);
        let first = values.next();
        assert!(values.next().is_none(), "field {name} stands more than once in {self:?}");
        first
    }

    /// Every value of a field.
    pub fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let name = name.to_owned();
        self.fields
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(&name))
            .map(|(_, value)| value.as_str())
    }

    /// Content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }

    /// One line that two equal messages share: `START|name: value|…||content[||trailer: value…]`, names in lower
    /// case, fields sorted by name (same names keep their order), fields of `without` left out.
    pub fn canonical(&self, without: &[&str]) -> String {
        let mut text = self.start.clone();
        let mut fields: Vec<(String, &str)> = self
            .fields
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
            .filter(|(name, _)| !without.contains(&name.as_str()))
            .collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, value) in fields {
            let _ = write!(text, "|{name}: {value}");
        }
        if !self.content.is_empty() || !self.trailers.is_empty() {
            text.push_str("||");
            text.extend(self.content.iter().map(|byte| char::from(*byte)));
        }
        for (name, value) in &self.trailers {
            let _ = write!(text, "||{}: {value}", name.to_ascii_lowercase());
        }
        text
    }

    fn find_framing(&self, kind: Kind) -> Result<Framing, String> {
        let lengths: Vec<&str> = self.values("content-length").collect();
        let codings: Vec<&str> = self.values("transfer-encoding").collect();
        if lengths.len() + codings.len() > 1 {
            return Err(format!(
                "more than one framing: content-length {lengths:?}, transfer-encoding {codings:?}"
            ));
        }
        let announced = match (lengths.first(), codings.first()) {
            (Some(text), _) => {
                if text.is_empty() || text.len() > 18 || !text.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(format!("content-length {text:?}"));
                }
                Some(Framing::Length(text.parse().map_err(|_| "content-length")?))
            }
            (_, Some(text)) => {
                if *text != "chunked" {
                    return Err(format!("transfer-encoding {text:?}"));
                }
                Some(Framing::Chunked)
            }
            _ => None,
        };
        if kind == Kind::Request {
            return Ok(announced.unwrap_or(Framing::None));
        }
        let status = self.status();
        if status < 200 || status == 204 {
            if announced.is_some() {
                return Err(format!("{status} with framing fields"));
            }
            return Ok(Framing::None);
        }
        if kind == Kind::ResponseToHead || status == 304 {
            return Ok(Framing::None);
        }
        Ok(announced.unwrap_or(Framing::UntilClose))
    }
}

type Fields = Vec<(String, String)>;

/// Start line, fields, and the length of the head.
fn read_head(input: &[u8]) -> Result<Option<(String, Fields, usize)>, String> {
    let end = input.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4);
    let head = &input[..end.unwrap_or(input.len())];
    for (at, &byte) in head.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|i| head.get(i));
        let bad = match byte {
            b'\n' => before != Some(&b'\r'),
            b'\r' => head.get(at + 1).is_some_and(|next| *next != b'\n'),
            b'\t' => false,
            _ => byte < 0x20 || byte == 0x7f,
        };
        if bad {
            return Err(format!("byte {byte:#04x} at {at} of the head {:?}", latin(head)));
        }
    }
    let Some(end) = end else { return Ok(None) };
    let text = latin(&input[..end - 4]);
    let mut lines = text.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let fields = lines.map(read_field).collect::<Result<_, _>>()?;
    Ok(Some((start, fields, end)))
}

pub(crate) fn read_field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or_else(|| format!("line without a colon {line:?}"))?;
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("field name {name:?}"));
    }
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

fn check_start(start: &str, kind: Kind) -> Result<(), String> {
    let wrong = || format!("start line {start:?}");
    let mut words = start.splitn(3, ' ');
    let (first, second, third) =
        (words.next().unwrap_or_default(), words.next().ok_or_else(wrong)?, words.next());
    if kind == Kind::Request {
        let line = !first.is_empty()
            && first.bytes().all(is_token)
            && !second.is_empty()
            && second.bytes().all(|b| (0x21..0x7f).contains(&b))
            && matches!(third, Some("HTTP/1.1" | "HTTP/1.0"));
        return if line { Ok(()) } else { Err(wrong()) };
    }
    let line = matches!(first, "HTTP/1.1" | "HTTP/1.0")
        && second.len() == 3
        && second.bytes().all(|b| b.is_ascii_digit())
        && third.is_some();
    if line { Ok(()) } else { Err(wrong()) }
}

/// Content, trailers, and the length of the whole coded body.
#[allow(clippy::type_complexity, reason = "one reader, used once")]
fn read_chunked(input: &[u8]) -> Result<Option<(Vec<u8>, Fields, usize)>, String> {
    let mut content = Vec::new();
    let mut at = 0;
    loop {
        let Some(line) = read_line(&input[at..])? else { return Ok(None) };
        let digits = line.len();
        if digits == 0 || digits > 15 || !line.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("chunk size line {line:?}"));
        }
        let size = usize::from_str_radix(&line, 16).map_err(|_| "chunk size")?;
        at += digits + 2;
        if size == 0 {
            break;
        }
        let Some(data) = input.get(at..at + size) else { return Ok(None) };
        content.extend_from_slice(data);
        at += size;
        match input.get(at..at + 2) {
            Some(b"\r\n") => at += 2,
            Some(other) => return Err(format!("chunk of {size} bytes ends with {other:?}")),
            None => return Ok(None),
        }
    }
    let mut trailers = Vec::new();
    loop {
        let Some(line) = read_line(&input[at..])? else { return Ok(None) };
        at += line.len() + 2;
        if line.is_empty() {
            return Ok(Some((content, trailers, at)));
        }
        trailers.push(read_field(&line)?);
    }
}

fn read_line(input: &[u8]) -> Result<Option<String>, String> {
    let Some(end) = input.iter().position(|b| matches!(b, b'\r' | b'\n')) else { return Ok(None) };
    match input.get(end..end + 2) {
        Some(b"\r\n") => Ok(Some(latin(&input[..end]))),
        None if input[end] == b'\r' => Ok(None),
        _ => Err(format!("line end in {:?}", latin(&input[..input.len().min(end + 8)]))),
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Bytes as characters of the same number.
pub fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_formed_messages_are_read_exactly() {
        let cases: &[(Kind, &str, &str)] = &[
            (
                Kind::Request,
                "GET /a HTTP/1.1\r\nHost: x\r\nB: 2\r\nA: 1 \r\n\r\n",
                "GET /a HTTP/1.1|a: 1|b: 2|host: x",
            ),
            (
                Kind::Request,
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
                "POST / HTTP/1.1|content-length: 3|host: x||abc",
            ),
            (
                Kind::Request,
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nT: u\r\n\r\n",
                "POST / HTTP/1.1|transfer-encoding: chunked||abc||t: u",
            ),
            (Kind::Response, "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content"),
            (
                Kind::ResponseToHead,
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
                "HTTP/1.1 200 OK|content-length: 9",
            ),
        ];
        for (kind, text, expected) in cases {
            let (message, used) = Message::read(text.as_bytes(), *kind, false).unwrap().unwrap();
            assert_eq!((message.canonical(&[]).as_str(), used), (*expected, text.len()));
            for cut in 0..text.len() {
                assert_eq!(
                    Message::read(&text.as_bytes()[..cut], *kind, false),
                    Ok(None),
                    "{text:?} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn anything_ambiguous_is_an_error() {
        let heads = [
            "GET / HTTP/1.1\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\n a: b\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\0\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\na",
            "GET / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0;a\r\n\r\n",
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
        ];
        for head in heads {
            assert!(Message::read(head.as_bytes(), Kind::Request, false).is_err(), "{head:?}");
        }
    }
}
