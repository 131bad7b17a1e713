//! Names as the tables know them, and the static table (RFC 7541 Appendix A).

use crate::field::Known;

/// The name of a field line or pseudo-field, recognised. One byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// A field; `Known::Other` when the name has to be carried as text.
    Field(Known),
    /// `:authority`
    Authority,
    /// `:method`
    Method,
    /// `:path`
    Path,
    /// `:protocol` (RFC 8441 §4)
    Protocol,
    /// `:scheme`
    Scheme,
    /// `:status`
    Status,
    /// Begins with a colon and is none of the above.
    UnknownPseudo,
}

const _: () = assert!(size_of::<Name>() == 1);

/// Number of different values of [`Name::slot`].
pub(super) const SLOTS: usize = 256;
const FIRST_PSEUDO_SLOT: usize = 128;
const FIRST_OTHER_SLOT: usize = 192;

impl Name {
    /// Recognises a name in lower case. Upper case is recognised as well: whether it is allowed is asked elsewhere.
    #[inline]
    pub fn of(text: &[u8]) -> Self {
        if text.first() == Some(&b':') { Self::of_pseudo(text) } else { Self::Field(Known::of(text)) }
    }

    fn of_pseudo(text: &[u8]) -> Self {
        match text {
            b":authority" => Self::Authority,
            b":method" => Self::Method,
            b":path" => Self::Path,
            b":protocol" => Self::Protocol,
            b":scheme" => Self::Scheme,
            b":status" => Self::Status,
            _ => Self::UnknownPseudo,
        }
    }

    /// The name's text; `None` when it has to be carried beside it.
    #[inline]
    pub fn text(self) -> Option<&'static str> {
        Some(match self {
            Self::Field(Known::Other) | Self::UnknownPseudo => return None,
            Self::Field(known) => known.name(),
            Self::Authority => ":authority",
            Self::Method => ":method",
            Self::Path => ":path",
            Self::Protocol => ":protocol",
            Self::Scheme => ":scheme",
            Self::Status => ":status",
        })
    }

    /// A small number below [`SLOTS`]: different for every name with a text, spread by `hash` for the others.
    #[inline]
    pub(super) const fn slot(self, hash: u32) -> usize {
        match self {
            Self::Field(Known::Other) | Self::UnknownPseudo => {
                FIRST_OTHER_SLOT + (hash as usize & (SLOTS - FIRST_OTHER_SLOT - 1))
            }
            Self::Field(known) => known as usize,
            Self::Authority => FIRST_PSEUDO_SLOT,
            Self::Method => FIRST_PSEUDO_SLOT + 1,
            Self::Path => FIRST_PSEUDO_SLOT + 2,
            Self::Protocol => FIRST_PSEUDO_SLOT + 3,
            Self::Scheme => FIRST_PSEUDO_SLOT + 4,
            Self::Status => FIRST_PSEUDO_SLOT + 5,
        }
    }

    /// Index of the first entry of the static table that has this name.
    #[inline]
    pub(super) fn static_index(self) -> Option<usize> {
        match FIRST_STATIC.get(self.slot(0)) {
            Some(&index) if index != 0 && self.text().is_some() => Some(usize::from(index)),
            _ => None,
        }
    }
}

/// One entry of the static table.
#[derive(Clone, Copy)]
pub(super) struct StaticEntry {
    pub(super) name: Name,
    pub(super) text: &'static str,
    pub(super) value: &'static str,
}

/// The entry at `index`, which starts at 1; `None` past the static table.
#[inline]
pub(super) fn static_entry(index: usize) -> Option<&'static StaticEntry> {
    STATIC.get(index.wrapping_sub(1))
}

/// Number of entries of the static table: the dynamic table begins after it.
pub(super) const STATIC_LEN: usize = STATIC.len();

/// Index of the static entry that has this name and this value.
#[inline]
pub(super) fn static_match(name: Name, value: &[u8]) -> Option<usize> {
    let first = match name {
        Name::Method | Name::Path | Name::Scheme | Name::Status => name.static_index()?,
        Name::Field(Known::AcceptEncoding) => name.static_index()?,
        _ => return None,
    };
    let same_name = STATIC.get(first - 1..)?.iter().take_while(|entry| entry.name == name);
    same_name.enumerate().find(|(_, entry)| entry.value.as_bytes() == value).map(|(i, _)| first + i)
}

const fn pseudo(name: Name, text: &'static str, value: &'static str) -> StaticEntry {
    StaticEntry { name, text, value }
}

const fn other(text: &'static str) -> StaticEntry {
    StaticEntry { name: Name::Field(Known::Other), text, value: "" }
}

const fn field(known: Known, text: &'static str) -> StaticEntry {
    StaticEntry { name: Name::Field(known), text, value: "" }
}

static FIRST_STATIC: [u8; SLOTS] = first_static();

#[allow(clippy::indexing_slicing)] // evaluated at compile time: out of bounds would not build
const fn first_static() -> [u8; SLOTS] {
    let mut first = [0u8; SLOTS];
    let mut i = STATIC.len();
    while i > 0 {
        let slot = STATIC[i - 1].name.slot(0);
        if slot < FIRST_OTHER_SLOT {
            first[slot] = i as u8;
        }
        i -= 1;
    }
    first
}

static STATIC: [StaticEntry; 61] = [
    pseudo(Name::Authority, ":authority", ""),
    pseudo(Name::Method, ":method", "GET"),
    pseudo(Name::Method, ":method", "POST"),
    pseudo(Name::Path, ":path", "/"),
    pseudo(Name::Path, ":path", "/index.html"),
    pseudo(Name::Scheme, ":scheme", "http"),
    pseudo(Name::Scheme, ":scheme", "https"),
    pseudo(Name::Status, ":status", "200"),
    pseudo(Name::Status, ":status", "204"),
    pseudo(Name::Status, ":status", "206"),
    pseudo(Name::Status, ":status", "304"),
    pseudo(Name::Status, ":status", "400"),
    pseudo(Name::Status, ":status", "404"),
    pseudo(Name::Status, ":status", "500"),
    other("accept-charset"),
    StaticEntry { name: Name::Field(Known::AcceptEncoding), text: "accept-encoding", value: "gzip, deflate" },
    field(Known::AcceptLanguage, "accept-language"),
    field(Known::AcceptRanges, "accept-ranges"),
    field(Known::Accept, "accept"),
    field(Known::AccessControlAllowOrigin, "access-control-allow-origin"),
    field(Known::Age, "age"),
    field(Known::Allow, "allow"),
    field(Known::Authorization, "authorization"),
    field(Known::CacheControl, "cache-control"),
    field(Known::ContentDisposition, "content-disposition"),
    field(Known::ContentEncoding, "content-encoding"),
    field(Known::ContentLanguage, "content-language"),
    field(Known::ContentLength, "content-length"),
    field(Known::ContentLocation, "content-location"),
    field(Known::ContentRange, "content-range"),
    field(Known::ContentType, "content-type"),
    field(Known::Cookie, "cookie"),
    field(Known::Date, "date"),
    field(Known::Etag, "etag"),
    field(Known::Expect, "expect"),
    field(Known::Expires, "expires"),
    field(Known::From, "from"),
    field(Known::Host, "host"),
    field(Known::IfMatch, "if-match"),
    field(Known::IfModifiedSince, "if-modified-since"),
    field(Known::IfNoneMatch, "if-none-match"),
    field(Known::IfRange, "if-range"),
    field(Known::IfUnmodifiedSince, "if-unmodified-since"),
    field(Known::LastModified, "last-modified"),
    field(Known::Link, "link"),
    field(Known::Location, "location"),
    field(Known::MaxForwards, "max-forwards"),
    field(Known::ProxyAuthenticate, "proxy-authenticate"),
    field(Known::ProxyAuthorization, "proxy-authorization"),
    field(Known::Range, "range"),
    field(Known::Referer, "referer"),
    other("refresh"),
    field(Known::RetryAfter, "retry-after"),
    field(Known::Server, "server"),
    field(Known::SetCookie, "set-cookie"),
    field(Known::StrictTransportSecurity, "strict-transport-security"),
    field(Known::TransferEncoding, "transfer-encoding"),
    field(Known::UserAgent, "user-agent"),
    field(Known::Vary, "vary"),
    field(Known::Via, "via"),
    field(Known::WwwAuthenticate, "www-authenticate"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_static_entry_is_named_as_its_text_is_recognised() {
        for entry in &STATIC {
            assert_eq!(Name::of(entry.text.as_bytes()), entry.name, "{}", entry.text);
            if let Some(text) = entry.name.text() {
                assert_eq!(text, entry.text);
            }
        }
    }

    #[test]
    fn static_entries_are_found_by_name_and_by_value() {
        assert_eq!(Name::Method.static_index(), Some(2));
        assert_eq!(Name::Field(Known::WwwAuthenticate).static_index(), Some(61));
        assert_eq!(Name::Field(Known::Traceparent).static_index(), None);
        assert_eq!(Name::Protocol.static_index(), None);
        assert_eq!(Name::Field(Known::Other).static_index(), None);
        for (name, value, index) in [
            (Name::Method, "POST", Some(3)),
            (Name::Status, "500", Some(14)),
            (Name::Status, "201", None),
            (Name::Path, "/index.html", Some(5)),
            (Name::Field(Known::AcceptEncoding), "gzip, deflate", Some(16)),
            (Name::Authority, "", None),
        ] {
            assert_eq!(static_match(name, value.as_bytes()), index);
        }
    }

    #[test]
    fn slots_of_names_with_a_text_differ() {
        let pseudo = [Name::Authority, Name::Method, Name::Path, Name::Protocol, Name::Scheme, Name::Status];
        let all = Known::ALL.iter().filter(|k| **k != Known::Other).map(|k| Name::Field(*k)).chain(pseudo);
        let mut seen = [false; SLOTS];
        for name in all {
            assert!(!std::mem::replace(&mut seen[name.slot(7)], true), "{name:?}");
        }
    }
}
