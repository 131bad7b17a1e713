//! Field and query matches.
//!
//! **Fields**: several lines of a name are one value, joined by `, ` (RFC 9110 §5.3), lines of Cookie by `; ` (RFC 9113
//! §8.2.3). Host means the authority, Upgrade also the protocol of an extended CONNECT; other fields of framing are no
//! longer there when routes match, so asking for them is an error.
//!
//! **Cookies** (RFC 6265 §4.2): pairs of all Cookie lines, in order; the first of a name counts. A value is compared as it
//! is sent: quotes belong to it and nothing is decoded.
//!
//! **Query**: name and value are compared after percent-decoding both sides of the request's parameter; `+` is `+` (RFC
//! 3986 has no form encoding) and `%` without two hexadecimal digits is itself. When a parameter is repeated the first
//! one counts, as Gateway API recommends. A parameter without `=` has the empty value.

use std::borrow::Cow;
use std::fmt;

use rhumb_codec::field::{FieldName, Known};
use rhumb_codec::head::RequestHead;

use crate::normalize::hex;
use crate::pattern::{InvalidPattern, Pattern};

/// Most field matches and most query matches of one match (Gateway API has 16).
pub const MATCHES_LIMIT: usize = 64;

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// Equal, byte by byte.
    Exact(Box<[u8]>),
    /// Matched as a whole.
    Pattern(Pattern),
}

impl ValueMatch {
    /// Equal to `value`.
    pub fn exact(value: &str) -> Self {
        Self::Exact(value.as_bytes().into())
    }

    /// Matched by a regular expression as a whole.
    ///
    /// # Errors
    /// [`InvalidPattern`].
    pub fn pattern(text: &str) -> Result<Self, InvalidPattern> {
        Pattern::parse(text).map(Self::Pattern)
    }

    #[inline]
    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => **wanted == *value,
            Self::Pattern(pattern) => pattern.matches(value),
        }
    }
}

impl fmt::Display for ValueMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(value) => write!(f, "= {}", String::from_utf8_lossy(value)),
            Self::Pattern(pattern) => write!(f, "~ {pattern}"),
        }
    }
}

/// Asks for a field, or for a cookie in the Cookie field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldMatch {
    name: FieldName,
    cookie: Option<Box<[u8]>>,
    value: ValueMatch,
}

/// A field that no route can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection, content-length and transfer-encoding frame messages and cannot be matched")]
pub struct FramingField;

impl FieldMatch {
    /// The field `name` has `value`.
    ///
    /// # Errors
    /// [`FramingField`].
    pub fn new(name: FieldName, value: ValueMatch) -> Result<Self, FramingField> {
        match name.known() {
            Known::Connection | Known::ContentLength | Known::TransferEncoding => Err(FramingField),
            _ => Ok(Self { name, cookie: None, value }),
        }
    }

    /// The first cookie `name` has `value`.
    pub fn cookie(name: &str, value: ValueMatch) -> Self {
        Self { name: Known::Cookie.into(), cookie: Some(name.as_bytes().into()), value }
    }

    /// True when both ask for the same thing, whatever its value.
    pub(crate) fn is_about_the_same(&self, other: &Self) -> bool {
        self.name == other.name && self.cookie == other.cookie
    }

    /// The field's name.
    pub fn name(&self) -> &FieldName {
        &self.name
    }

    /// The cookie's name, when it asks for one.
    pub fn cookie_name(&self) -> Option<&[u8]> {
        self.cookie.as_deref()
    }

    /// What its value must be.
    pub fn value(&self) -> &ValueMatch {
        &self.value
    }

    /// True when the request has the field with such a value. Allocates only when a regular expression meets several
    /// lines.
    #[inline]
    pub fn matches(&self, head: &RequestHead) -> bool {
        if let Some(name) = &self.cookie {
            return cookie(head, name).is_some_and(|value| self.value.matches(value));
        }
        if let Known::Host | Known::Upgrade = self.name.known() {
            return self.found(head).is_some_and(|value| self.value.matches(&value));
        }
        let mut lines = head.fields.find_all(&self.name);
        let Some(first) = lines.next() else { return false };
        match (&self.value, lines.next()) {
            (value, None) => value.matches(first),
            (ValueMatch::Exact(wanted), Some(_)) => {
                equals_joined(head.fields.find_all(&self.name), self.separator(), wanted)
            }
            (ValueMatch::Pattern(pattern), Some(_)) => {
                self.found(head).is_some_and(|value| pattern.matches(&value))
            }
        }
    }

    /// The value that the request has, lines joined.
    pub(crate) fn found<'h>(&self, head: &'h RequestHead) -> Option<Cow<'h, [u8]>> {
        if let Some(name) = &self.cookie {
            return cookie(head, name).map(Cow::Borrowed);
        }
        match self.name.known() {
            Known::Host => {
                return (!head.authority().is_empty()).then(|| Cow::Borrowed(head.authority()));
            }
            Known::Upgrade => return head.upgrade().or_else(|| head.protocol()).map(Cow::Borrowed),
            _ => {}
        }
        let mut lines = head.fields.find_all(&self.name);
        let mut value = Cow::Borrowed(lines.next()?);
        for line in lines {
            let joined = value.to_mut();
            joined.extend_from_slice(self.separator());
            joined.extend_from_slice(line);
        }
        Some(value)
    }

    fn separator(&self) -> &'static [u8] {
        if self.name.known() == Known::Cookie { b"; " } else { b", " }
    }
}

impl fmt::Display for FieldMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cookie {
            Some(name) => write!(f, "cookie {} {}", String::from_utf8_lossy(name), self.value),
            None => write!(f, "{} {}", String::from_utf8_lossy(self.name.as_bytes()), self.value),
        }
    }
}

/// The value of the first cookie of that name. HTTP/2 may spread pairs over several lines (RFC 9113 §8.2.3).
pub fn cookie<'h>(head: &'h RequestHead, name: &[u8]) -> Option<&'h [u8]> {
    let pairs = head.fields.get_all(Known::Cookie).flat_map(|line| line.split(|&b| b == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

/// True when the lines, joined, are `wanted`.
fn equals_joined<'l>(lines: impl Iterator<Item = &'l [u8]>, separator: &[u8], wanted: &[u8]) -> bool {
    let mut rest = wanted;
    for (i, line) in lines.enumerate() {
        let separator = if i == 0 { &b""[..] } else { separator };
        match rest.strip_prefix(separator).and_then(|rest| rest.strip_prefix(line)) {
            Some(tail) => rest = tail,
            None => return false,
        }
    }
    rest.is_empty()
}

/// Asks for a query parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatch {
    name: Box<[u8]>,
    value: ValueMatch,
}

impl QueryMatch {
    /// The first parameter `name` has `value`; both as they are after decoding.
    pub fn new(name: &str, value: ValueMatch) -> Self {
        Self { name: name.as_bytes().into(), value }
    }

    /// The parameter's name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// What its value must be.
    pub fn value(&self) -> &ValueMatch {
        &self.value
    }

    /// True when the query has the parameter with such a value. Allocates only when a regular expression meets an
    /// encoded value.
    #[inline]
    pub fn matches(&self, query: &[u8]) -> bool {
        let Some(value) = self.raw(query) else { return false };
        match &self.value {
            ValueMatch::Exact(wanted) => equals_decoded(value, wanted),
            ValueMatch::Pattern(pattern) => pattern.matches(&decoded(value)),
        }
    }

    /// The decoded value that the query has.
    pub(crate) fn found<'q>(&self, query: &'q [u8]) -> Option<Cow<'q, [u8]>> {
        self.raw(query).map(decoded)
    }

    fn raw<'q>(&self, query: &'q [u8]) -> Option<&'q [u8]> {
        query.split(|&b| b == b'&').find_map(|parameter| {
            let (name, value) = match memchr::memchr(b'=', parameter) {
                Some(at) => (parameter.get(..at)?, parameter.get(at + 1..)?),
                None => (parameter, &b""[..]),
            };
            equals_decoded(name, &self.name).then_some(value)
        })
    }
}

#[inline]
fn equals_decoded(raw: &[u8], wanted: &[u8]) -> bool {
    // Decoding never makes a value longer.
    raw.len() >= wanted.len() && (raw == wanted || Decoded(raw).eq(wanted.iter().copied()))
}

/// Percent-decoded as matches compare: `%` without two hexadecimal digits is itself, and so is `+`.
pub fn decoded(raw: &[u8]) -> Cow<'_, [u8]> {
    if raw.contains(&b'%') { Cow::Owned(Decoded(raw).collect()) } else { Cow::Borrowed(raw) }
}

struct Decoded<'a>(&'a [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    #[inline]
    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        if byte == b'%'
            && let Some(([high, low], tail)) = rest.split_first_chunk::<2>()
            && let Some((high, low)) = hex(*high).zip(hex(*low))
        {
            self.0 = tail;
            return Some(high << 4 | low);
        }
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, value: ValueMatch) -> FieldMatch {
        FieldMatch::new(FieldName::parse(name.as_bytes()).unwrap(), value).unwrap()
    }

    fn exact(text: &str) -> ValueMatch {
        ValueMatch::exact(text)
    }

    fn pattern(text: &str) -> ValueMatch {
        ValueMatch::pattern(text).unwrap()
    }

    #[test]
    fn lines_of_a_name_are_one_value() {
        let mut head = RequestHead::new();
        head.set_authority(b"a.example:80");
        head.set_upgrade(Some(b"websocket"));
        for (name, value) in [
            ("version", "one"),
            ("Color", "red"),
            ("COLOR", "blue"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("e", ""),
        ] {
            head.fields.append_raw(Known::of(name.as_bytes()), name.as_bytes(), value.as_bytes());
        }
        for (name, value, expected) in [
            ("Version", exact("one"), true),
            ("version", exact("One"), false),
            ("version", exact("on"), false),
            ("version", pattern("on."), true),
            ("version", pattern("n"), false),
            ("color", exact("red, blue"), true),
            ("color", exact("red,blue"), false),
            ("color", exact("red"), false),
            ("color", exact("red, blue, "), false),
            ("color", exact("blue, red"), false),
            ("color", pattern("red, b.*"), true),
            ("color", pattern("red"), false),
            ("cookie", exact("a=1; b=2"), true),
            ("cookie", pattern("(.*; )?b=2(;.*)?"), true),
            ("e", exact(""), true),
            ("absent", exact(""), false),
            ("absent", pattern(".*"), false),
            ("host", exact("a.example:80"), true),
            ("upgrade", exact("websocket"), true),
        ] {
            let wanted = field(name, value);
            assert_eq!(wanted.matches(&head), expected, "{wanted:?}");
        }
        assert!(!field("host", pattern(".*")).matches(&RequestHead::new()));
    }

    #[test]
    fn a_cookie_is_found_in_whichever_line_it_is_and_the_first_counts() {
        for (lines, value, expected) in [
            (&["canary=always"][..], exact("always"), true),
            (&["a=1; canary=always; b=2"], exact("always"), true),
            (&["a=1;canary=always;b=2"], exact("always"), true),
            (&["a=1", "b=2; canary=always", "c=3"], exact("always"), true),
            (&["xcanary=always"], exact("always"), false),
            (&["canaryx=always"], exact("always"), false),
            (&["a=canary=always"], exact("always"), false),
            (&["canary=alwaysx"], exact("always"), false),
            (&["Canary=always"], exact("always"), false),
            (&["canary=never; canary=always"], exact("always"), false),
            (&["canary=never", "canary=always"], exact("always"), false),
            (&["canary"], pattern(".*"), false),
            (&["canary="], pattern(".*"), true),
            (&["canary=ax; b=xb"], pattern("a.*b"), false),
            (&["b=1; canary=axb ;c=3"], pattern("a.*b"), true),
            (&["canary=a=b"], exact("a=b"), true),
            (&["canary=\"a\""], exact("a"), false),
            (&[], pattern(".*"), false),
        ] {
            let mut head = RequestHead::new();
            for line in lines {
                head.fields.append(Known::Cookie, line.as_bytes());
            }
            let wanted = FieldMatch::cookie("canary", value);
            assert_eq!(wanted.matches(&head), expected, "{lines:?} {wanted:?}");
        }
    }

    #[test]
    fn framing_cannot_be_matched() {
        for name in [Known::Connection, Known::ContentLength, Known::TransferEncoding] {
            assert_eq!(FieldMatch::new(name.into(), exact("1")), Err(FramingField));
        }
    }

    #[test]
    fn query_parameters_are_compared_decoded_and_the_first_counts() {
        for (query, name, value, expected) in [
            ("animal=whale", "animal", exact("whale"), true),
            ("animal=dolphin&animal=whale", "animal", exact("whale"), false),
            ("a=1&animal=whale&b", "animal", exact("whale"), true),
            ("animals=whale", "animal", exact("whale"), false),
            ("animal=whales", "animal", exact("whale"), false),
            ("animal=%77hal%65", "animal", exact("whale"), true),
            ("%61nimal=whale", "animal", exact("whale"), true),
            ("a=b%20c", "a", exact("b c"), true),
            ("a=b+c", "a", exact("b c"), false),
            ("a=b+c", "a", exact("b+c"), true),
            ("a=b%2", "a", exact("b%2"), true),
            ("a=b=c", "a", exact("b=c"), true),
            ("a", "a", exact(""), true),
            ("a=", "a", exact(""), true),
            ("", "a", exact(""), false),
            ("a=%41%42", "a", pattern("[A-B]+"), true),
            ("a=%41%42", "a", pattern("B"), false),
        ] {
            let wanted = QueryMatch::new(name, value);
            assert_eq!(wanted.matches(query.as_bytes()), expected, "{query} {wanted:?}");
        }
    }
}
