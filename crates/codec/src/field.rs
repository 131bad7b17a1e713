//! Fields of a message (RFC 9110 §5): one arena of bytes and a list of lines that point into it.
//!
//! Order and spelling of what a peer sent are kept. Nothing is allocated per field. Names that the proxy or its
//! policies care about are recognised once, when a line is added ([`Known`]); asking for one of them afterwards is a
//! bit test when it is absent.

use std::fmt;

/// Where some bytes lie in a message's arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// The span of `len` bytes from `start`. Arenas are far below 4 GiB (field limits); what would not fit is empty.
    #[inline]
    pub fn new(start: usize, len: usize) -> Self {
        match (u32::try_from(start), u32::try_from(len)) {
            (Ok(start), Ok(len)) => Self { start, len },
            _ => Self::default(),
        }
    }

    /// Number of bytes.
    #[inline]
    pub fn len(self) -> usize {
        self.len as usize
    }

    /// True when the span has no bytes.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The bytes in `arena`; empty when the span does not lie in it.
    #[inline]
    pub fn of(self, arena: &[u8]) -> &[u8] {
        let start = self.start as usize;
        arena.get(start..start + self.len as usize).unwrap_or_default()
    }

    /// The part of this span from `from` (relative) to its end.
    #[inline]
    pub fn from(self, from: usize) -> Self {
        let from = from.min(self.len());
        Self::new(self.start as usize + from, self.len() - from)
    }

    /// The first `len` bytes of this span.
    #[inline]
    pub fn to(self, len: usize) -> Self {
        Self::new(self.start as usize, len.min(self.len()))
    }
}

macro_rules! known_names {
    ($($variant:ident = $name:literal,)*) => {
        /// Field names that are recognised when a line is added.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[allow(missing_docs)] // each variant is its field name in camel case
        pub enum Known { $($variant,)* Other }

        impl Known {
            /// Every recognised name.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            const NAMES: &'static [&'static str] = &[$($name,)*];
        }
    };
}

known_names! {
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    AcceptLanguage = "accept-language",
    AcceptRanges = "accept-ranges",
    AccessControlAllowCredentials = "access-control-allow-credentials",
    AccessControlAllowHeaders = "access-control-allow-headers",
    AccessControlAllowMethods = "access-control-allow-methods",
    AccessControlAllowOrigin = "access-control-allow-origin",
    AccessControlExposeHeaders = "access-control-expose-headers",
    AccessControlMaxAge = "access-control-max-age",
    AccessControlRequestHeaders = "access-control-request-headers",
    AccessControlRequestMethod = "access-control-request-method",
    Age = "age",
    Allow = "allow",
    AltSvc = "alt-svc",
    Authorization = "authorization",
    Baggage = "baggage",
    CacheControl = "cache-control",
    Connection = "connection",
    ContentDisposition = "content-disposition",
    ContentEncoding = "content-encoding",
    ContentLanguage = "content-language",
    ContentLength = "content-length",
    ContentLocation = "content-location",
    ContentRange = "content-range",
    ContentType = "content-type",
    Cookie = "cookie",
    Date = "date",
    Etag = "etag",
    Expect = "expect",
    Expires = "expires",
    Forwarded = "forwarded",
    From = "from",
    GrpcMessage = "grpc-message",
    GrpcRetryPushbackMs = "grpc-retry-pushback-ms",
    GrpcStatus = "grpc-status",
    GrpcTimeout = "grpc-timeout",
    Host = "host",
    Http2Settings = "http2-settings",
    IfMatch = "if-match",
    IfModifiedSince = "if-modified-since",
    IfNoneMatch = "if-none-match",
    IfRange = "if-range",
    IfUnmodifiedSince = "if-unmodified-since",
    KeepAlive = "keep-alive",
    LastModified = "last-modified",
    Link = "link",
    Location = "location",
    MaxForwards = "max-forwards",
    Origin = "origin",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    ProxyConnection = "proxy-connection",
    ProxyStatus = "proxy-status",
    Range = "range",
    Referer = "referer",
    RetryAfter = "retry-after",
    SecFetchMode = "sec-fetch-mode",
    SecFetchSite = "sec-fetch-site",
    SecWebsocketAccept = "sec-websocket-accept",
    SecWebsocketExtensions = "sec-websocket-extensions",
    SecWebsocketKey = "sec-websocket-key",
    SecWebsocketProtocol = "sec-websocket-protocol",
    SecWebsocketVersion = "sec-websocket-version",
    Server = "server",
    SetCookie = "set-cookie",
    StrictTransportSecurity = "strict-transport-security",
    Te = "te",
    Traceparent = "traceparent",
    Tracestate = "tracestate",
    Trailer = "trailer",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    UserAgent = "user-agent",
    Vary = "vary",
    Via = "via",
    WwwAuthenticate = "www-authenticate",
    XForwardedClientCert = "x-forwarded-client-cert",
    XForwardedFor = "x-forwarded-for",
    XForwardedHost = "x-forwarded-host",
    XForwardedMethod = "x-forwarded-method",
    XForwardedPort = "x-forwarded-port",
    XForwardedPrefix = "x-forwarded-prefix",
    XForwardedProto = "x-forwarded-proto",
    XForwardedUri = "x-forwarded-uri",
    XRealIp = "x-real-ip",
    XRequestDeadline = "x-request-deadline",
    XRequestId = "x-request-id",
    XRhumbAttempts = "x-rhumb-attempts",
    XRhumbRetriesLeft = "x-rhumb-retries-left",
    XUserToken = "x-user-token",
}

const LONGEST_KNOWN: usize = 32;
const PER_LENGTH: usize = 12;
const _: () = assert!(Known::ALL.len() < 128, "KnownSet has 128 bits");

/// For each length, the names of that length with their keys; `Other` fills the rest.
static BY_LENGTH: [[(Known, Key); PER_LENGTH]; LONGEST_KNOWN + 1] = by_length();

#[allow(clippy::indexing_slicing)] // evaluated at compile time: out of bounds would not build
const fn by_length() -> [[(Known, Key); PER_LENGTH]; LONGEST_KNOWN + 1] {
    let mut table = [[(Known::Other, [0; 4]); PER_LENGTH]; LONGEST_KNOWN + 1];
    let mut used = [0; LONGEST_KNOWN + 1];
    let mut i = 0;
    while i < Known::ALL.len() {
        let name = Known::NAMES[i].as_bytes();
        let len = name.len();
        if let Some(key) = key(name) {
            table[len][used[len]] = (Known::ALL[i], key);
            used[len] += 1;
        }
        i += 1;
    }
    table
}

/// A name of up to 32 bytes as words: names of one length are the same when their keys are. The words overlap where
/// the length is not a multiple of eight, so each is one load.
type Key = [u64; 4];

#[inline]
const fn key(name: &[u8]) -> Option<Key> {
    let key = match name.len() {
        8..=LONGEST_KNOWN => {
            let (Some(first), Some(last)) = (name.first_chunk::<8>(), name.last_chunk::<8>()) else {
                return None;
            };
            let mut key = [u64::from_le_bytes(*first), u64::from_le_bytes(*last), 0, 0];
            if name.len() > 16
                && let Some((_, middle)) = name.split_first_chunk::<8>()
                && let Some((second, rest)) = middle.split_first_chunk::<8>()
            {
                key[2] = u64::from_le_bytes(*second);
                if name.len() > 24
                    && let Some(third) = rest.first_chunk::<8>()
                {
                    key[3] = u64::from_le_bytes(*third);
                }
            }
            key
        }
        4..=7 => {
            let (Some(first), Some(last)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) else {
                return None;
            };
            [u32::from_le_bytes(*first) as u64 | (u32::from_le_bytes(*last) as u64) << 32, 0, 0, 0]
        }
        _ => match name {
            [a] => [*a as u64, 0, 0, 0],
            [a, b] => [*a as u64 | (*b as u64) << 8, 0, 0, 0],
            [a, b, c] => [*a as u64 | (*b as u64) << 8 | (*c as u64) << 16, 0, 0, 0],
            _ => return None,
        },
    };
    Some(key)
}

/// Eight bytes with A to Z made a to z. Each byte's high bit tells, after an addition that cannot reach the next byte,
/// whether its lower seven bits are at least some letter.
#[inline]
const fn lower(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * EACH;
    let low_bits = word & !HIGH;
    let from_a = low_bits + (0x80 - b'A' as u64) * EACH;
    let after_z = low_bits + (0x80 - (b'Z' as u64 + 1)) * EACH;
    word | (from_a & !after_z & !word & HIGH) >> 2
}

impl Known {
    /// The recognised name that `name` spells, in any case; `Other` when it is none.
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        let (Some(candidates), Some(key)) = (BY_LENGTH.get(name.len()), key(name)) else {
            return Self::Other;
        };
        let [first, last, second, third] = key;
        let first = lower(first);
        for (known, candidate) in candidates {
            if *known == Self::Other {
                break;
            }
            // The first word tells names apart, but for common prefixes: the others are made lower only then.
            if candidate[0] == first
                && candidate[1] == lower(last)
                && candidate[2] == lower(second)
                && candidate[3] == lower(third)
            {
                return *known;
            }
        }
        Self::Other
    }

    /// The name in lower case; empty for `Other`.
    #[inline]
    pub fn name(self) -> &'static str {
        Self::NAMES.get(self as usize).copied().unwrap_or("")
    }
}

/// A set of recognised names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownSet([u64; 2]);

impl KnownSet {
    /// The set of `names`.
    pub const fn of(names: &[Known]) -> Self {
        let mut set = Self([0; 2]);
        let mut rest = names;
        while let [first, tail @ ..] = rest {
            set.insert(*first);
            rest = tail;
        }
        set
    }

    /// This set with one more name.
    #[must_use]
    pub(crate) const fn with(mut self, name: Known) -> Self {
        self.insert(name);
        self
    }

    /// True when `name` is in the set. `Other` never is.
    #[inline]
    pub fn contains(self, name: Known) -> bool {
        let [low, high] = self.0;
        let word = if (name as u32) < u64::BITS { low } else { high };
        word >> (name as u32 % u64::BITS) & 1 == 1
    }

    /// True when the two sets share a name.
    #[inline]
    pub fn intersects(self, other: Self) -> bool {
        let ([low, high], [other_low, other_high]) = (self.0, other.0);
        low & other_low | high & other_high != 0
    }

    #[inline]
    const fn insert(&mut self, name: Known) {
        let [low, high] = &mut self.0;
        let bit = 1 << (name as u32 % u64::BITS);
        match name {
            Known::Other => {}
            _ if (name as u32) < u64::BITS => *low |= bit,
            _ => *high |= bit,
        }
    }

    #[inline]
    fn remove(&mut self, other: Self) {
        let ([low, high], [other_low, other_high]) = (&mut self.0, other.0);
        *low &= !other_low;
        *high &= !other_high;
    }
}

/// A field name from configuration: a valid token (RFC 9110 §5.6.2) in lower case.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FieldName {
    known: Known,
    text: Box<[u8]>,
}

/// Text that is not a field name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a field name: use letters, digits and ! # $ % & ' * + - . ^ _ ` | ~")]
pub struct InvalidFieldName;

impl FieldName {
    /// Reads a name in any case.
    ///
    /// # Errors
    /// [`InvalidFieldName`] when it is empty or has a byte that no token may have.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidFieldName> {
        if text.is_empty() || !text.iter().all(|&b| is_token_byte(b)) {
            return Err(InvalidFieldName);
        }
        let text = text.to_ascii_lowercase().into_boxed_slice();
        Ok(Self { known: Known::of(&text), text })
    }

    /// The name in lower case.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Which recognised name it is.
    pub fn known(&self) -> Known {
        self.known
    }
}

impl From<Known> for FieldName {
    fn from(known: Known) -> Self {
        Self { known, text: known.name().as_bytes().into() }
    }
}

impl fmt::Debug for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text))
    }
}

/// A field value from configuration: no CR, LF or NUL, no white space at either end (RFC 9110 §5.5).
#[derive(Clone, PartialEq, Eq)]
pub struct FieldValue(Box<[u8]>);

/// Text that is not a field value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a field value: control characters and line breaks are not allowed")]
pub struct InvalidFieldValue;

impl FieldValue {
    /// Reads a value; surrounding white space is not part of it.
    ///
    /// # Errors
    /// [`InvalidFieldValue`] when it has a control character other than tab.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidFieldValue> {
        let text = text.trim_ascii();
        if !text.iter().all(|&b| is_value_byte(b)) {
            return Err(InvalidFieldValue);
        }
        Ok(Self(text.into()))
    }

    /// The value's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// True for bytes of a token (RFC 9110 §5.6.2).
#[inline]
pub fn is_token_byte(byte: u8) -> bool {
    TOKEN.get(byte as usize).copied().unwrap_or(false)
}

/// True for bytes that a field value may have: VCHAR, obs-text, space and tab (RFC 9110 §5.5).
#[inline]
pub fn is_value_byte(byte: u8) -> bool {
    byte >= 0x20 && byte != 0x7f || byte == b'\t'
}

static TOKEN: [bool; 256] = token_table();

#[allow(clippy::indexing_slicing)] // evaluated at compile time
const fn token_table() -> [bool; 256] {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        table[i] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        i += 1;
    }
    table
}

#[derive(Clone, Copy)]
struct Line {
    name: Span,
    value: Span,
    known: Known,
    live: bool,
    never_indexed: bool,
}

impl Line {
    #[inline]
    fn new(known: Known, name: Span, value: Span) -> Self {
        Self { name, value, known, live: true, never_indexed: false }
    }
}

/// One field line as seen by a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldLine<'a> {
    /// Which recognised name it is.
    pub known: Known,
    /// The name as it was spelled.
    pub name: &'a [u8],
    /// The value without surrounding white space.
    pub value: &'a [u8],
    /// It came by HTTP/2 as a literal that no hop may index, and goes on so (RFC 7541 §6.2.3).
    pub never_indexed: bool,
}

/// The fields of one message. See the module.
#[derive(Clone, Default)]
pub struct Fields {
    arena: Vec<u8>,
    lines: Vec<Line>,
    present: KnownSet,
    live: u32,
}

impl Fields {
    /// No fields, no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets every line and byte, keeps the memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.lines.clear();
        self.present = KnownSet::default();
        self.live = 0;
    }

    /// Number of lines.
    #[inline]
    pub fn len(&self) -> usize {
        self.live as usize
    }

    /// True when there is no line.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Heap bytes held, for memory accounting.
    pub fn capacity(&self) -> usize {
        self.arena.capacity() + self.lines.capacity() * size_of::<Line>()
    }

    /// Which recognised names are present.
    #[inline]
    pub fn present(&self) -> KnownSet {
        self.present
    }

    /// True when a recognised name is present.
    #[inline]
    pub fn has(&self, name: Known) -> bool {
        self.present.contains(name)
    }

    /// Every line in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = FieldLine<'_>> {
        self.lines.iter().filter(|line| line.live).map(|line| self.view(line))
    }

    /// The first value of a recognised name.
    #[inline]
    pub fn get(&self, name: Known) -> Option<&[u8]> {
        if !self.has(name) {
            return None;
        }
        self.lines.iter().find(|line| line.live && line.known == name).map(|line| line.value.of(&self.arena))
    }

    /// The value of a recognised name when exactly one line has it.
    #[inline]
    pub fn get_only(&self, name: Known) -> Option<&[u8]> {
        let mut all = self.get_all(name);
        let first = all.next()?;
        all.next().is_none().then_some(first)
    }

    /// Every value of a recognised name, in order.
    #[inline]
    pub fn get_all(&self, name: Known) -> impl Iterator<Item = &[u8]> {
        let lines = if self.has(name) { self.lines.as_slice() } else { &[] };
        lines
            .iter()
            .filter(move |line| line.live && line.known == name)
            .map(|line| line.value.of(&self.arena))
    }

    /// The first value of any name.
    pub fn find(&self, name: &FieldName) -> Option<&[u8]> {
        self.find_all(name).next()
    }

    /// Every value of any name, in order.
    pub fn find_all<'a, 'n>(&'a self, name: &'n FieldName) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let lines =
            if name.known == Known::Other || self.has(name.known) { self.lines.as_slice() } else { &[] };
        lines
            .iter()
            .filter(move |line| line.live && self.is_named(line, name))
            .map(|line| line.value.of(&self.arena))
    }

    /// Adds a line whose name and value are valid already: taken from configuration, made here, or checked by a codec.
    #[inline]
    pub fn append(&mut self, name: Known, value: &[u8]) {
        debug_assert!(name != Known::Other && value.iter().all(|&b| is_value_byte(b)));
        // A recognised name costs no arena bytes: `view` knows its spelling.
        let value = self.store(value);
        self.push(Line::new(name, Span::default(), value));
    }

    /// Adds a line with a name from configuration.
    pub fn append_named(&mut self, name: &FieldName, value: &FieldValue) {
        self.append_raw(name.known, &name.text, &value.0);
    }

    /// Adds a line whose value comes from elsewhere (a token's claim, a request's part).
    ///
    /// # Errors
    /// [`InvalidFieldValue`] when the value has a control character: nothing is added.
    pub fn append_checked(&mut self, name: &FieldName, value: &[u8]) -> Result<(), InvalidFieldValue> {
        let value = value.trim_ascii();
        if !value.iter().all(|&b| is_value_byte(b)) {
            return Err(InvalidFieldValue);
        }
        self.append_raw(name.known, &name.text, value);
        Ok(())
    }

    /// Adds a line with checked bytes and a name that the caller has looked up. For codecs.
    #[inline]
    pub fn append_raw(&mut self, known: Known, name: &[u8], value: &[u8]) {
        let name = if known == Known::Other { self.store(name) } else { Span::default() };
        let value = self.store(value);
        self.push(Line::new(known, name, value));
    }

    /// Adds a line whose name and value lie in the arena already ([`Fields::store`]). For codecs.
    #[inline]
    pub fn append_spans(&mut self, known: Known, name: Span, value: Span) {
        self.push(Line::new(known, name, value));
    }

    /// Marks the line that was added last as one that no hop may index. For codecs.
    #[inline]
    pub(crate) fn never_index_last(&mut self) {
        if let Some(line) = self.lines.last_mut() {
            line.never_indexed = true;
        }
    }

    /// Joins every line of a recognised name into one, where the first was. For codecs.
    pub(crate) fn join(&mut self, name: Known, separator: &[u8]) {
        let start = self.arena.len();
        let mut first = None;
        let mut never_indexed = false;
        for (i, line) in self.lines.iter_mut().enumerate().filter(|(_, line)| line.live && line.known == name)
        {
            if first.is_some() {
                self.arena.extend_from_slice(separator);
                line.live = false;
                self.live -= 1;
            }
            let from = line.value.start as usize;
            let to = from + line.value.len();
            if to <= self.arena.len() {
                self.arena.extend_from_within(from..to);
            }
            never_indexed |= line.never_indexed;
            first.get_or_insert(i);
        }
        if let Some(line) = first.and_then(|first| self.lines.get_mut(first)) {
            line.value = Span::new(start, self.arena.len() - start);
            line.never_indexed = never_indexed;
        }
    }

    /// Replaces every line of a recognised name by one at the end.
    pub fn set(&mut self, name: Known, value: &[u8]) {
        self.remove(name);
        self.append(name, value);
    }

    /// Replaces every line of a name by one at the end.
    pub fn set_named(&mut self, name: &FieldName, value: &FieldValue) {
        self.remove_named(name);
        self.append_named(name, value);
    }

    /// Removes every line of a recognised name; true when there was one.
    #[inline]
    pub fn remove(&mut self, name: Known) -> bool {
        self.remove_set(KnownSet::of(&[name]))
    }

    /// Removes every line of the recognised names in `names`; true when there was one.
    #[inline]
    pub fn remove_set(&mut self, names: KnownSet) -> bool {
        if !self.present.intersects(names) {
            return false;
        }
        for line in self.lines.iter_mut().filter(|line| line.live && names.contains(line.known)) {
            line.live = false;
            self.live -= 1;
        }
        self.present.remove(names);
        true
    }

    /// Appends every line but those in `skip` as HTTP/1 writes them. Lines that lie in the arena as they are written
    /// (received by HTTP/1 and left alone) are copied in runs.
    pub(crate) fn write_lines(&self, skip: KnownSet, out: &mut Vec<u8>) {
        let skip = if self.present.intersects(skip) { skip } else { KnownSet::default() };
        let mut run = 0..0;
        for line in self.lines.iter().filter(|line| line.live && !skip.contains(line.known)) {
            match self.written_form(line) {
                Some(form) if form.start == run.end => run.end = form.end,
                Some(form) => {
                    out.extend_from_slice(self.arena.get(run).unwrap_or_default());
                    run = form;
                }
                None => {
                    out.extend_from_slice(self.arena.get(run).unwrap_or_default());
                    run = 0..0;
                    let FieldLine { name, value, .. } = self.view(line);
                    out.extend_from_slice(name);
                    out.extend_from_slice(b": ");
                    out.extend_from_slice(value);
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
        out.extend_from_slice(self.arena.get(run).unwrap_or_default());
    }

    /// Where the arena holds `name: value` and CRLF of this line, exactly so.
    #[inline]
    fn written_form(&self, line: &Line) -> Option<std::ops::Range<usize>> {
        let name = line.name.start as usize..line.name.start as usize + line.name.len();
        let value = line.value.start as usize..line.value.start as usize + line.value.len();
        let touches = !name.is_empty()
            && name.end + 2 == value.start
            && self.arena.get(name.end..value.start) == Some(b": ")
            && self.arena.get(value.end..value.end + 2) == Some(b"\r\n");
        touches.then_some(name.start..value.end + 2)
    }

    /// Removes every line of a name; true when there was one.
    pub fn remove_named(&mut self, name: &FieldName) -> bool {
        if name.known != Known::Other {
            return self.remove(name.known);
        }
        self.remove_spelled(&name.text)
    }

    /// Removes every line whose name is spelled so, in any case. For names that a peer's Connection field lists.
    pub fn remove_spelled(&mut self, name: &[u8]) -> bool {
        let known = Known::of(name);
        if known != Known::Other {
            return self.remove(known);
        }
        let arena = &self.arena;
        let mut removed = false;
        for line in &mut self.lines {
            if line.live && line.known == Known::Other && line.name.of(arena).eq_ignore_ascii_case(name) {
                line.live = false;
                self.live -= 1;
                removed = true;
            }
        }
        removed
    }

    /// Removes every line whose name begins with `prefix` (lower case); true when there was one.
    pub fn remove_prefixed(&mut self, prefix: &[u8]) -> bool {
        let mut removed = false;
        for line in &mut self.lines {
            let name =
                if line.name.is_empty() { line.known.name().as_bytes() } else { line.name.of(&self.arena) };
            let begins = |begin: &[u8]| begin.eq_ignore_ascii_case(prefix);
            if line.live && name.get(..prefix.len()).is_some_and(begins) {
                line.live = false;
                self.live -= 1;
                removed = true;
            }
        }
        if removed {
            let mut present = KnownSet::default();
            self.lines.iter().filter(|line| line.live).for_each(|line| present.insert(line.known));
            self.present = present;
        }
        removed
    }

    /// Puts bytes into the arena without making a line of them.
    #[inline]
    pub fn store(&mut self, bytes: &[u8]) -> Span {
        let span = Span::new(self.arena.len(), bytes.len());
        self.arena.extend_from_slice(bytes);
        span
    }

    /// The bytes that a span of this arena stands for.
    #[inline]
    pub fn bytes(&self, span: Span) -> &[u8] {
        span.of(&self.arena)
    }

    /// The arena, for codecs that decode straight into it (HPACK Huffman). Only append to it.
    #[inline]
    pub fn arena_mut(&mut self) -> &mut Vec<u8> {
        &mut self.arena
    }

    #[inline]
    fn push(&mut self, line: Line) {
        self.present.insert(line.known);
        self.live += 1;
        self.lines.push(line);
    }

    #[inline]
    fn view<'a>(&'a self, line: &Line) -> FieldLine<'a> {
        let name =
            if line.name.is_empty() { line.known.name().as_bytes() } else { line.name.of(&self.arena) };
        FieldLine {
            known: line.known,
            name,
            value: line.value.of(&self.arena),
            never_indexed: line.never_indexed,
        }
    }

    #[inline]
    fn is_named(&self, line: &Line, name: &FieldName) -> bool {
        line.known == name.known
            && (name.known != Known::Other || line.name.of(&self.arena).eq_ignore_ascii_case(&name.text))
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        f.debug_map().entries(self.iter().map(|line| (text(line.name), text(line.value)))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> FieldName {
        FieldName::parse(text.as_bytes()).unwrap()
    }

    fn lines(fields: &Fields) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        fields.iter().map(|line| (text(line.name), text(line.value))).collect()
    }

    #[test]
    fn every_known_name_is_found_in_any_case() {
        for &known in Known::ALL {
            assert_eq!(Known::of(known.name().as_bytes()), known);
            assert_eq!(Known::of(known.name().to_ascii_uppercase().as_bytes()), known);
        }
        for name in ["", "x", "hos", "hosts", "content-lengtg", "x-forwarded-fox"] {
            assert_eq!(Known::of(name.as_bytes()), Known::Other, "{name}");
        }
    }

    #[test]
    fn lower_case_changes_letters_only() {
        for byte in 0..=u8::MAX {
            let expected =
                u64::from_le_bytes([byte.to_ascii_lowercase(), b'x', 0xff, 0, 0xc1, b'z', 0xda, b'-']);
            assert_eq!(lower(u64::from_le_bytes([byte, b'X', 0xff, 0, 0xc1, b'Z', 0xda, b'-'])), expected);
        }
    }

    #[test]
    fn a_name_with_one_byte_changed_is_not_known() {
        for &known in Known::ALL {
            for at in 0..known.name().len() {
                let mut name = known.name().as_bytes().to_vec();
                name[at] ^= 0x80;
                assert_eq!(Known::of(&name), Known::Other);
                name[at] ^= 0x81;
                assert!(Known::of(&name) != known);
            }
        }
    }

    #[test]
    fn a_set_has_the_names_put_into_it() {
        for &name in Known::ALL {
            let mut set = KnownSet::of(&[name, Known::Other]);
            let names =
                |set: KnownSet| Known::ALL.iter().copied().filter(|&n| set.contains(n)).collect::<Vec<_>>();
            assert_eq!(names(set), [name]);
            assert!(!set.contains(Known::Other) && set.intersects(set));
            assert!(!set.intersects(KnownSet::default()));
            set.insert(Known::Via);
            set.remove(KnownSet::of(&[name]));
            assert!(!set.contains(name));
        }
    }

    #[test]
    fn order_and_repetition_are_kept() {
        let mut fields = Fields::new();
        fields.append_raw(Known::Other, b"X-One", b"1");
        fields.append(Known::Via, b"a");
        fields.append_raw(Known::Via, b"VIA", b"b");
        assert_eq!(fields.get_all(Known::Via).collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(fields.get_only(Known::Via), None);
        assert_eq!(fields.find(&named("x-ONE")), Some(&b"1"[..]));
        assert_eq!(
            lines(&fields),
            [("X-One".into(), "1".into()), ("via".into(), "a".into()), ("via".into(), "b".into())]
        );
    }

    #[test]
    fn removal_hides_every_line_of_a_name() {
        let mut fields = Fields::new();
        fields.append(Known::Via, b"a");
        fields.append_raw(Known::Other, b"X-One", b"1");
        fields.append_raw(Known::Other, b"x-one", b"2");
        fields.append(Known::Via, b"b");
        assert!(fields.remove(Known::Via) && !fields.remove(Known::Via));
        assert!(!fields.has(Known::Via) && fields.len() == 2);
        assert!(fields.remove_spelled(b"X-oNe") && fields.is_empty());
        fields.set(Known::Via, b"c");
        assert_eq!(fields.get_only(Known::Via), Some(&b"c"[..]));
    }

    #[test]
    fn joined_lines_stand_where_the_first_was() {
        let mut fields = Fields::new();
        for (known, value) in
            [(Known::Cookie, "a=1"), (Known::Via, "x"), (Known::Cookie, "b=2"), (Known::Cookie, "")]
        {
            fields.append(known, value.as_bytes());
        }
        fields.never_index_last();
        fields.join(Known::Cookie, b"; ");
        assert_eq!(lines(&fields), [("cookie".into(), "a=1; b=2; ".into()), ("via".into(), "x".into())]);
        assert_eq!(fields.iter().map(|line| line.never_indexed).collect::<Vec<_>>(), [true, false]);
        assert_eq!(fields.len(), 2);
    }

    #[test]
    fn values_that_would_split_a_message_are_refused() {
        let mut fields = Fields::new();
        for value in [&b"a\r\nb"[..], b"a\nb", b"a\0b", b"\x7f"] {
            assert!(fields.append_checked(&named("x-a"), value).is_err());
            assert!(FieldValue::parse(value).is_err());
        }
        assert!(fields.is_empty());
        for name in ["", "a b", "a:", "ä"] {
            assert!(FieldName::parse(name.as_bytes()).is_err(), "{name}");
        }
    }
}
