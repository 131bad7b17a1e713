//! Message heads (RFC 9110 §6): what HTTP/1 and HTTP/2 decode into and encode from.
//!
//! Framing is not a field here. Content-Length, Transfer-Encoding, Host, Connection and Upgrade are taken out of the
//! fields by the decoder and put back by the encoder from [`Content`], `authority`, `keep_alive` and `upgrade`: no
//! policy can make head and framing disagree.

use crate::field::{Fields, Known, KnownSet, Span};

/// Names that frame the message, steer the connection or are kept in the head: they never become lines, and a writer
/// takes none of them from a head's fields, whoever put it there. A response has no use for Host and Expect.
pub(crate) const IN_HEAD: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::ContentLength,
    Known::Expect,
    Known::Host,
    Known::Http2Settings,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Te,
    Known::TransferEncoding,
    Known::Upgrade,
]);

/// Request methods (RFC 9110 §9, RFC 5789). The spelling of `Other` lies in the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each variant is its method
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    /// Any other token.
    Other,
}

impl Method {
    /// The methods with a name, in declaration order.
    pub const NAMED: &'static [Self] = &[
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Put,
        Self::Delete,
        Self::Connect,
        Self::Options,
        Self::Trace,
        Self::Patch,
    ];

    /// The method that `name` spells; names are case-sensitive (RFC 9110 §9.1).
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// The method's name; empty for `Other`.
    #[inline]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other => "",
        }
    }

    /// Safe methods ask for nothing to change (RFC 9110 §9.2.1).
    pub fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// Idempotent methods may be repeated (RFC 9110 §9.2.2).
    pub fn is_idempotent(self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }
}

/// The protocol version of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2
    Http2,
}

impl Version {
    /// The name as logs show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// The scheme of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// http
    #[default]
    Http,
    /// https
    Https,
}

impl Scheme {
    /// The scheme's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// How much content a message has, and how its end is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// None.
    #[default]
    None,
    /// So many bytes (Content-Length).
    Length(u64),
    /// Until the protocol says so: chunked coding in HTTP/1.1, END_STREAM in HTTP/2.
    Streamed,
    /// Until the connection closes: responses of HTTP/1 only (RFC 9112 §6.3 item 8).
    UntilClose,
}

impl Content {
    /// True when no content follows the head.
    #[inline]
    pub fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// The head of a request. Reusable: [`RequestHead::clear`] keeps its memory.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    method: Option<Method>,
    method_name: Span,
    authority: Span,
    path: Span,
    query: Option<Span>,
    received_target: Span,
    received_authority: Span,
    protocol: Option<Span>,
    upgrade: Option<Span>,
    /// Version in which the client sent it.
    pub version: Version,
    /// http or https.
    pub scheme: Scheme,
    /// Content that follows.
    pub content: Content,
    /// The client keeps the connection open after this exchange (RFC 9112 §9.3). Always true in HTTP/2.
    pub keep_alive: bool,
    /// The client waits for 100 (Continue) before it sends content (RFC 9110 §10.1.1).
    pub expect_continue: bool,
    /// The client accepts trailers (`TE: trailers`, RFC 9110 §10.1.4). Always true in HTTP/2.
    pub accepts_trailers: bool,
    /// Every field but those that became part of the head (see the module).
    pub fields: Fields,
}

impl RequestHead {
    /// An empty head.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// The method; GET before one is set.
    #[inline]
    pub fn method(&self) -> Method {
        self.method.unwrap_or(Method::Get)
    }

    /// The method's name as sent.
    #[inline]
    pub fn method_name(&self) -> &[u8] {
        match self.method() {
            Method::Other => self.fields.bytes(self.method_name),
            named => named.name().as_bytes(),
        }
    }

    /// Sets the method by its name (a checked token).
    pub fn set_method(&mut self, name: &[u8]) {
        let method = Method::of(name);
        self.method = Some(method);
        if method == Method::Other {
            self.method_name = self.fields.store(name);
        }
    }

    /// host or host:port, without user information; the Host field or `:authority`.
    #[inline]
    pub fn authority(&self) -> &[u8] {
        self.fields.bytes(self.authority)
    }

    /// Host part of the authority: no port, brackets of an IPv6 literal kept.
    pub fn host(&self) -> &[u8] {
        let authority = self.authority();
        match authority.iter().rposition(|&b| b == b':') {
            Some(colon) if !authority.ends_with(b"]") => authority.get(..colon).unwrap_or_default(),
            _ => authority,
        }
    }

    /// Changes the authority (checked bytes). The first one set is what the client sent.
    pub fn set_authority(&mut self, authority: &[u8]) {
        self.authority = self.fields.store(authority);
        if self.received_authority.is_empty() {
            self.received_authority = self.authority;
        }
    }

    /// The authority as the client sent it.
    pub fn received_authority(&self) -> &[u8] {
        self.fields.bytes(self.received_authority)
    }

    /// Where the authority that the client sent lies in the fields' arena.
    pub fn received_authority_span(&self) -> Span {
        self.received_authority
    }

    /// The path, without query. `*` for server-wide OPTIONS, empty for CONNECT without a path.
    #[inline]
    pub fn path(&self) -> &[u8] {
        self.fields.bytes(self.path)
    }

    /// The query, without its question mark; `Some` and empty for `/path?`.
    #[inline]
    pub fn query(&self) -> Option<&[u8]> {
        self.query.map(|query| self.fields.bytes(query))
    }

    /// Path and query as the client sent them, before normalisation and rewriting.
    pub fn received_target(&self) -> &[u8] {
        self.fields.bytes(self.received_target)
    }

    /// Sets path and query together, as received: split at the first question mark.
    #[inline]
    pub fn set_target(&mut self, target: &[u8]) {
        let span = self.fields.store(target);
        self.received_target = span;
        match memchr::memchr(b'?', target) {
            Some(at) => {
                self.path = span.to(at);
                self.query = Some(span.from(at + 1));
            }
            None => {
                self.path = span;
                self.query = None;
            }
        }
    }

    /// Changes the path (checked bytes, no query).
    pub fn set_path(&mut self, path: &[u8]) {
        self.path = self.fields.store(path);
    }

    /// Changes the query (checked bytes, no question mark); `None` removes it.
    pub fn set_query(&mut self, query: Option<&[u8]>) {
        self.query = query.map(|query| self.fields.store(query));
    }

    /// Appends path and query to `out` as the next hop shall see them.
    #[inline]
    pub fn write_target(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.path());
        if let Some(query) = self.query() {
            out.push(b'?');
            out.extend_from_slice(query);
        }
    }

    /// The `:protocol` of an extended CONNECT (RFC 8441 §4).
    pub fn protocol(&self) -> Option<&[u8]> {
        self.protocol.map(|span| self.fields.bytes(span))
    }

    /// Sets the `:protocol`.
    pub fn set_protocol(&mut self, protocol: Option<&[u8]>) {
        self.protocol = protocol.map(|protocol| self.fields.store(protocol));
    }

    /// The Upgrade field of an HTTP/1.1 request whose Connection field names it (RFC 9110 §7.8).
    pub fn upgrade(&self) -> Option<&[u8]> {
        self.upgrade.map(|span| self.fields.bytes(span))
    }

    /// Sets the protocols that the client would upgrade to.
    pub fn set_upgrade(&mut self, protocols: Option<&[u8]>) {
        self.upgrade = protocols.map(|protocols| self.fields.store(protocols));
    }
}

/// What a decoder found, as places in the arena where it has stored the head's bytes. No bytes are copied.
impl RequestHead {
    #[inline]
    pub(crate) fn receive_method(&mut self, method: Method, name: Span) {
        self.method = Some(method);
        self.method_name = name;
    }

    #[inline]
    pub(crate) fn receive_authority(&mut self, authority: Span) {
        self.authority = authority;
        self.received_authority = authority;
    }

    #[inline]
    pub(crate) fn receive_target(&mut self, target: Span) {
        self.received_target = target;
        match memchr::memchr(b'?', self.fields.bytes(target)) {
            Some(at) => {
                self.path = target.to(at);
                self.query = Some(target.from(at + 1));
            }
            None => {
                self.path = target;
                self.query = None;
            }
        }
    }

    #[inline]
    pub(crate) fn receive_upgrade(&mut self, protocols: Span) {
        self.upgrade = Some(protocols);
    }

    #[inline]
    pub(crate) fn receive_protocol(&mut self, protocol: Span) {
        self.protocol = Some(protocol);
    }
}

/// The head of a response, interim or final. Reusable.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// Status code, 100 to 599.
    pub status: u16,
    /// Version in which the server sent it.
    pub version: Version,
    /// Content that follows.
    pub content: Content,
    /// Content-Length of a response without content (HEAD, 304): forwarded, frames nothing (RFC 9110 §8.6).
    pub declared_length: Option<u64>,
    /// The server keeps the connection open after this exchange.
    pub keep_alive: bool,
    upgrade: Option<Span>,
    /// Every field but those that became part of the head (see the module).
    pub fields: Fields,
}

impl ResponseHead {
    /// An empty head with `status`.
    pub fn with_status(status: u16) -> Self {
        Self { status, keep_alive: true, ..Self::default() }
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// True for 1xx; 101 ends the exchange, the others precede the final response (RFC 9110 §15.2).
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status)
    }

    /// The protocol that a 101 response switches to.
    pub fn upgrade(&self) -> Option<&[u8]> {
        self.upgrade.map(|span| self.fields.bytes(span))
    }

    /// Sets the protocol that a 101 response switches to.
    pub fn set_upgrade(&mut self, protocol: Option<&[u8]>) {
        self.upgrade = protocol.map(|protocol| self.fields.store(protocol));
    }

    /// The same for a decoder that has stored the bytes in the arena.
    #[inline]
    pub(crate) fn receive_upgrade(&mut self, protocol: Span) {
        self.upgrade = Some(protocol);
    }
}

/// True for bytes that a request target may have: visible ASCII but `#` (RFC 9112 §3.2, RFC 3986 §3.3 and §3.4).
/// Bytes that RFC 3986 wants encoded and browsers send as they are (`|`, `^`, `"`, braces and the like) pass.
#[inline]
pub fn is_target_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'#'
}

/// The reason phrase of a status code (RFC 9110 §15); empty when unknown.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a Teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_splits_at_the_first_question_mark() {
        for (target, path, query) in
            [("/a?b=c?d", "/a", Some("b=c?d")), ("/a", "/a", None), ("/a?", "/a", Some("")), ("*", "*", None)]
        {
            let mut head = RequestHead::new();
            head.set_target(target.as_bytes());
            assert_eq!((head.path(), head.query()), (path.as_bytes(), query.map(str::as_bytes)));
            let mut out = Vec::new();
            head.write_target(&mut out);
            assert_eq!(out, target.as_bytes());
        }
    }

    #[test]
    fn what_was_received_survives_rewriting_and_clearing_forgets_it() {
        let mut head = RequestHead::new();
        head.set_method(b"PURGE");
        head.set_authority(b"a.example:80");
        head.set_target(b"/old?x");
        head.set_path(b"/new");
        head.set_authority(b"b.example");
        assert_eq!(head.received_target(), b"/old?x");
        assert_eq!((head.received_authority(), head.authority()), (&b"a.example:80"[..], &b"b.example"[..]));
        assert_eq!((head.method(), head.method_name()), (Method::Other, &b"PURGE"[..]));
        head.clear();
        assert_eq!((head.method(), head.authority(), head.path()), (Method::Get, &b""[..], &b""[..]));
    }

    #[test]
    fn host_leaves_the_port_behind() {
        for (authority, host) in [
            ("a.example", "a.example"),
            ("a.example:8080", "a.example"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
        ] {
            let mut head = RequestHead::new();
            head.set_authority(authority.as_bytes());
            assert_eq!(head.host(), host.as_bytes());
        }
    }
}
