//! Hostnames of listeners and routes (Gateway API `Hostname`), and finding the most specific one for a request.

use std::fmt;

use crate::index::Writer;

/// Longest hostname in bytes, without a dot at the end (RFC 1123 §2.1, RFC 1035 §2.3.4).
pub const HOSTNAME_LIMIT: usize = 253;

/// Longest label of a hostname in bytes (RFC 1035 §2.3.4).
pub const LABEL_LIMIT: usize = 63;

/// What a listener or a route says about hostnames.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// Every host, also none and IP addresses.
    Any,
    /// `*.example.com`, held as `example.com`: every name with one or more labels before it.
    Wildcard(Box<str>),
    /// One name, in lower case, without a dot at the end.
    Exact(Box<str>),
}

/// Text that is not a hostname as Gateway API has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    /// Longer than [`HOSTNAME_LIMIT`].
    #[error("hostname is longer than {HOSTNAME_LIMIT} bytes")]
    TooLong,
    /// A label is empty, too long, has other characters than letters, digits and hyphens, or a hyphen at an end.
    #[error(
        "hostname is not made of labels: letters, digits and inner hyphens, at most {LABEL_LIMIT} each, separated by dots"
    )]
    Label,
    /// `*` stands elsewhere than alone as the first label.
    #[error("a wildcard must be the whole first label, as in *.example.com")]
    Wildcard,
    /// An IP address.
    #[error("an IP address is not a hostname")]
    Address,
    /// A port follows.
    #[error("a hostname has no port")]
    Port,
}

impl Host {
    /// Reads a hostname in any case. Empty text and `*` mean every host.
    ///
    /// # Errors
    /// [`InvalidHost`] says what is wrong.
    ///
    /// **Source**: Gateway API `Hostname`, RFC 1123 §2.1.
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        if text.is_empty() || text == "*" {
            return Ok(Self::Any);
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let (wildcard, name) = match name.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        if name.len() > HOSTNAME_LIMIT {
            return Err(InvalidHost::TooLong);
        }
        if name.contains('*') {
            return Err(InvalidHost::Wildcard);
        }
        if name.parse::<std::net::IpAddr>().is_ok() || name.starts_with('[') {
            return Err(InvalidHost::Address);
        }
        if let Some((host, port)) = name.split_once(':')
            && !host.is_empty()
            && port.bytes().all(|b| b.is_ascii_digit())
        {
            return Err(InvalidHost::Port);
        }
        if !name.split('.').all(is_label) {
            return Err(InvalidHost::Label);
        }
        let name = name.to_ascii_lowercase().into_boxed_str();
        Ok(if wildcard { Self::Wildcard(name) } else { Self::Exact(name) })
    }

    /// True when a request for `host` (any case, with or without port and final dot) is meant.
    pub fn matches(&self, host: &[u8]) -> bool {
        self.covers(RequestHost::of(host).as_bytes())
    }

    /// The hosts that both mean; `None` when there is none. A route is attached to a listener only if one of its
    /// hostnames intersects the listener's.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Any, host) | (host, Self::Any) => Some(host.clone()),
            (Self::Exact(name), host) | (host, Self::Exact(name)) => {
                host.covers(name.as_bytes()).then(|| Self::Exact(name.clone()))
            }
            (Self::Wildcard(a), Self::Wildcard(b)) => {
                let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
                let nested =
                    long == short || long.strip_suffix(&**short).is_some_and(|rest| rest.ends_with('.'));
                nested.then(|| Self::Wildcard(long.clone()))
            }
        }
    }

    /// Greater is more specific, among hostnames that match the same request: names before wildcards, then the longer
    /// one, then any. (Gateway API: characters in a matching non-wildcard hostname, then in a matching hostname.)
    pub fn specificity(&self) -> (u8, usize) {
        match self {
            Self::Any => (0, 0),
            Self::Wildcard(name) => (1, name.len()),
            Self::Exact(name) => (2, name.len()),
        }
    }

    /// `host` is in the form that [`RequestHost`] gives.
    pub(crate) fn covers(&self, host: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => host == name.as_bytes(),
            Self::Wildcard(name) => {
                host.strip_suffix(name.as_bytes()).is_some_and(|rest| rest.len() > 1 && rest.ends_with(b"."))
            }
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Wildcard(name) => write!(f, "*.{name}"),
            Self::Exact(name) => f.write_str(name),
        }
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= LABEL_LIMIT
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// The host of a request as hostnames are compared: lower case, no port, no dot at the end. Empty when it cannot equal
/// any hostname (an IPv6 literal, too long): then only [`Host::Any`] matches.
pub(crate) struct RequestHost {
    bytes: [u8; HOSTNAME_LIMIT + 1],
    len: usize,
}

impl RequestHost {
    #[inline]
    pub(crate) fn of(host: &[u8]) -> Self {
        let mut this = Self { bytes: [0; HOSTNAME_LIMIT + 1], len: 0 };
        if host.first() == Some(&b'[') {
            return this;
        }
        let end = memchr::memchr(b':', host).unwrap_or(host.len());
        let name = host.get(..end).unwrap_or_default();
        let name = name.strip_suffix(b".").unwrap_or(name);
        if let Some(to) = this.bytes.get_mut(..name.len()) {
            to.copy_from_slice(name);
            to.make_ascii_lowercase();
            this.len = name.len();
        }
        this
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Values by hostname.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostMap {
    exact: Writer,
    wildcard: Writer,
    /// Bit n: a wildcard whose name has n bytes exists. A peer's host is looked up once per such length at most, not
    /// once per label.
    wildcard_lengths: [u64; 4],
    any: Option<u32>,
}

impl HostMap {
    /// The value of `host`, which is `value()` when there was none.
    pub(crate) fn get_or_insert(&mut self, host: &Host, value: impl FnOnce() -> u32) -> u32 {
        match host {
            Host::Any => *self.any.get_or_insert_with(value),
            Host::Exact(name) => self.exact.get_or_insert(0, name.as_bytes(), value),
            Host::Wildcard(name) => {
                if let Some(word) = self.wildcard_lengths.get_mut(name.len() / 64) {
                    *word |= 1 << (name.len() % 64);
                }
                self.wildcard.get_or_insert(0, name.as_bytes(), value)
            }
        }
    }

    /// No hostname will be added.
    pub(crate) fn seal(&mut self) {
        self.exact.seal();
        self.wildcard.seal();
    }

    /// Offers the values of the hostnames that mean `host`, the most specific first, until `visit` returns something.
    #[inline]
    pub(crate) fn first<R>(&self, host: &[u8], mut visit: impl FnMut(u32) -> Option<R>) -> Option<R> {
        if !self.exact.map.is_empty()
            && let Some(value) = self.exact.map.get(0, host)
            && let Some(found) = visit(value)
        {
            return Some(found);
        }
        if !self.wildcard.map.is_empty()
            && let Some(found) = self.first_wildcard(host, &mut visit)
        {
            return Some(found);
        }
        self.any.and_then(visit)
    }

    fn first_wildcard<R>(&self, host: &[u8], visit: &mut impl FnMut(u32) -> Option<R>) -> Option<R> {
        // A wildcard stands for at least one label: the first byte belongs to it.
        let mut rest = host.get(1..)?;
        while let Some(dot) = memchr::memchr(b'.', rest) {
            rest = rest.get(dot + 1..)?;
            let word = self.wildcard_lengths.get(rest.len() / 64).copied().unwrap_or(0);
            if word >> (rest.len() % 64) & 1 == 1
                && let Some(value) = self.wildcard.map.get(0, rest)
                && let Some(found) = visit(value)
            {
                return Some(found);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap()
    }

    #[test]
    fn hostnames_are_read_as_gateway_api_has_them() {
        for (text, expected) in [
            ("", Ok("*")),
            ("*", Ok("*")),
            ("example.com", Ok("example.com")),
            ("Example.COM.", Ok("example.com")),
            ("*.Example.com", Ok("*.example.com")),
            ("localhost", Ok("localhost")),
            ("xn--bcher-kva.example", Ok("xn--bcher-kva.example")),
            ("1and1.example", Ok("1and1.example")),
            ("*.com", Ok("*.com")),
            ("*.*.com", Err(InvalidHost::Wildcard)),
            ("a.*.com", Err(InvalidHost::Wildcard)),
            ("a*.com", Err(InvalidHost::Wildcard)),
            ("*example.com", Err(InvalidHost::Wildcard)),
            ("*.", Err(InvalidHost::Wildcard)),
            (".", Err(InvalidHost::Label)),
            ("a..b", Err(InvalidHost::Label)),
            (".example.com", Err(InvalidHost::Label)),
            ("-a.com", Err(InvalidHost::Label)),
            ("a-.com", Err(InvalidHost::Label)),
            ("a_b.com", Err(InvalidHost::Label)),
            ("bücher.example", Err(InvalidHost::Label)),
            ("a b", Err(InvalidHost::Label)),
            ("a.example:80", Err(InvalidHost::Port)),
            ("127.0.0.1", Err(InvalidHost::Address)),
            ("::1", Err(InvalidHost::Address)),
            ("[::1]", Err(InvalidHost::Address)),
        ] {
            assert_eq!(Host::parse(text).map(|h| h.to_string()), expected.map(str::to_owned), "{text}");
        }
        assert_eq!(Host::parse(&"a".repeat(64)), Err(InvalidHost::Label));
        assert_eq!(Host::parse(&format!("{}a", "a.".repeat(127))), Err(InvalidHost::TooLong));
        assert!(Host::parse(&format!("{}a", "a.".repeat(126))).is_ok());
    }

    // The cases are those of the HTTPRoute and Gateway specifications.
    #[test]
    fn a_wildcard_means_one_or_more_labels() {
        for (pattern, name, expected) in [
            ("*.example.com", "test.example.com", true),
            ("*.example.com", "foo.test.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", "testexample.com", false),
            ("*.example.com", "test.example.net", false),
            ("example.com", "EXAMPLE.com", true),
            ("example.com", "example.com:8080", true),
            ("example.com", "example.com.", true),
            ("example.com", "example.com.:443", true),
            ("example.com", "example.com..", false),
            ("example.com", "www.example.com", false),
            ("*", "", true),
            ("*", "[::1]:80", true),
            ("*", "127.0.0.1", true),
        ] {
            assert_eq!(host(pattern).matches(name.as_bytes()), expected, "{pattern} {name}");
        }
        assert!(!host("*.example.com").matches(format!("{}.example.com", "a".repeat(250)).as_bytes()));
        assert!(Host::Any.matches("a".repeat(10_000).as_bytes()));
    }

    #[test]
    fn intersection_is_what_both_mean() {
        for (a, b, expected) in [
            ("test.example.com", "*", Some("test.example.com")),
            ("test.example.com", "test.example.com", Some("test.example.com")),
            ("test.example.com", "*.example.com", Some("test.example.com")),
            ("test.example.com", "test.example.net", None),
            ("*.example.com", "*", Some("*.example.com")),
            ("*.example.com", "*.example.com", Some("*.example.com")),
            ("*.example.com", "foo.test.example.com", Some("foo.test.example.com")),
            ("*.example.com", "*.test.example.com", Some("*.test.example.com")),
            ("*.example.com", "*.com", Some("*.example.com")),
            ("*.example.com", "*.ample.com", None),
            ("*.example.com", "example.com", None),
            ("*.example.com", "test.example.net", None),
            ("*", "*", Some("*")),
        ] {
            for (a, b) in [(a, b), (b, a)] {
                let both = host(a).intersect(&host(b)).map(|h| h.to_string());
                assert_eq!(both.as_deref(), expected, "{a} {b}");
            }
        }
    }

    #[test]
    fn the_most_specific_hostname_is_offered_first() {
        let mut map = HostMap::default();
        let names = ["*", "*.com", "*.example.com", "*.b.example.com", "a.b.example.com", "example.com"];
        for (i, name) in names.iter().enumerate() {
            map.get_or_insert(&host(name), || i as u32);
            assert_eq!(map.get_or_insert(&host(name), || 99), i as u32);
        }
        for (name, expected) in [
            ("a.b.example.com", &[4, 3, 2, 1, 0][..]),
            ("x.a.b.example.com", &[3, 2, 1, 0]),
            ("b.example.com", &[2, 1, 0]),
            ("example.com", &[5, 1, 0]),
            ("com", &[0]),
            (".com", &[0]),
            ("..com", &[1, 0]),
            ("", &[0]),
        ] {
            let mut offered = Vec::new();
            let none: Option<()> = map.first(name.as_bytes(), |value| {
                offered.push(value);
                None
            });
            assert!(none.is_none());
            assert_eq!(offered, expected, "{name}");
        }
    }
}
