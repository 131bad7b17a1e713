//! The authority of a request: `host` or `host:port` (RFC 9110 §7.2, RFC 3986 §3.2), stricter than the grammar.
//!
//! RFC 3986 also allows user information, percent-encoding, sub-delimiters and numbers that only some resolvers take
//! for addresses. Components behind a proxy disagree about each of them, so none passes: a host here is an IPv4
//! address in its one dotted form, an IPv6 address in brackets, or a name of letters, digits, `-`, `.` and `_`.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest host that is accepted: a DNS name of 253 bytes and its final dot (RFC 1035 §2.3.4).
pub const MAX_HOST_BYTES: usize = 254;

/// A valid authority in its two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The host as sent; an IPv6 address keeps its brackets.
    pub host: &'a [u8],
    /// The port, when one was sent. Never 0.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Splits and checks `text`. `None` when it is not an authority in the sense of the module: user information, an
    /// empty host or port, an address with a zone, a number that is no IPv4 address.
    #[inline]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let (host, port) = match text.split_first()? {
            (b'[', rest) => {
                let close = memchr::memchr(b']', rest)?;
                if !is_ipv6(rest.get(..close)?) {
                    return None;
                }
                text.split_at_checked(close + 2)?
            }
            _ => {
                let (end, last_label) = name_end(text)?;
                let (host, rest) = text.split_at_checked(end)?;
                if !is_name(host, last_label) {
                    return None;
                }
                (host, rest)
            }
        };
        let port = match port.split_first() {
            None => None,
            Some((b':', digits)) => Some(parse_port(digits)?),
            Some(_) => return None,
        };
        Some(Self { host, port })
    }

    /// True when both stand for the same origin server: hosts in any case, a missing port is `default_port`
    /// (RFC 9110 §4.2.3).
    pub fn is_same(&self, other: &Self, default_port: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

/// True when `text` is a host with an optional port as [`Authority::parse`] accepts it.
#[inline]
pub fn is_valid_authority(text: &[u8]) -> bool {
    Authority::parse(text).is_some()
}

/// Digits without sign, space or leading zero, 1 to 65535. RFC 3986 §3.2.3 also allows an empty port and port 0 parses:
/// neither can be connected to.
fn parse_port(digits: &[u8]) -> Option<u16> {
    const MAX_DIGITS: usize = 5;
    if digits.first() == Some(&b'0') || digits.len() > MAX_DIGITS || digits.is_empty() {
        return None;
    }
    let mut port = 0u32;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        port = port * 10 + u32::from(digit - b'0');
    }
    u16::try_from(port).ok()
}

/// Where the name at the start of `text` ends and where its last label begins; `None` when a label is empty, but for
/// the one after a final dot.
#[inline]
fn name_end(text: &[u8]) -> Option<(usize, usize)> {
    let mut label = 0;
    let mut last_label = 0;
    for (i, &byte) in text.iter().enumerate() {
        if byte == b'.' {
            if i == label {
                return None;
            }
            last_label = label;
            label = i + 1;
        } else if !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            return Some((i, if label == i { last_label } else { label }));
        }
    }
    Some((text.len(), if label == text.len() { last_label } else { label }))
}

/// `host` consists of labels, the last of which begins at `last_label`: true when it is a name, or an IPv4 address.
#[inline]
fn is_name(host: &[u8], last_label: usize) -> bool {
    let last = host.get(last_label..).unwrap_or_default();
    let last = last.strip_suffix(b".").unwrap_or(last);
    if last.first().is_some_and(u8::is_ascii_digit) && is_number(last) {
        // A name that ends in a number is an address or nothing: resolvers read `127.1`, `0x7f.1` and `017700000001`
        // as 127.0.0.1, others as names.
        return text(host).is_some_and(|text| text.parse::<Ipv4Addr>().is_ok());
    }
    !last.is_empty() && host.len() <= MAX_HOST_BYTES
}

/// True for what `inet_aton` reads as a number.
fn is_number(label: &[u8]) -> bool {
    match label {
        [b'0', b'x' | b'X', hex @ ..] => hex.iter().all(u8::is_ascii_hexdigit),
        _ => label.iter().all(u8::is_ascii_digit),
    }
}

fn is_ipv6(address: &[u8]) -> bool {
    text(address).is_some_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_with_or_without_port_are_authorities() {
        for (text, host, port) in [
            ("a", "a", None),
            ("example.com", "example.com", None),
            ("Example.COM:8080", "Example.COM", Some(8080)),
            ("example.com.", "example.com.", None),
            ("example.com.:1", "example.com.", Some(1)),
            ("my_service:65535", "my_service", Some(65535)),
            ("xn--bcher-kva.example", "xn--bcher-kva.example", None),
            ("-a-", "-a-", None),
            ("1.2.3.4", "1.2.3.4", None),
            ("255.255.255.255:80", "255.255.255.255", Some(80)),
            ("1a", "1a", None),
            ("4.3.2.1.in-addr.arpa", "4.3.2.1.in-addr.arpa", None),
            ("deadbeef0x", "deadbeef0x", None),
            ("0xg", "0xg", None),
            ("[::1]", "[::1]", None),
            ("[2001:DB8::7]:443", "[2001:DB8::7]", Some(443)),
            ("[::ffff:10.0.0.1]", "[::ffff:10.0.0.1]", None),
        ] {
            let expected = Authority { host: host.as_bytes(), port };
            assert_eq!(Authority::parse(text.as_bytes()), Some(expected), "{text}");
        }
        let longest = ["a".repeat(63).as_str(); 4].join(".");
        assert!(is_valid_authority(&longest.as_bytes()[..MAX_HOST_BYTES]));
        assert!(!is_valid_authority(longest.as_bytes()));
    }

    #[test]
    fn what_readers_disagree_about_is_no_authority() {
        for text in [
            "",
            ":",
            ":80",
            ".",
            "..",
            ".a",
            "a..b",
            "a..",
            "a b",
            " a",
            "a ",
            "a\t",
            "a,b",
            "a;b",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "a%62",
            "a*",
            "*.example.com",
            "a'b",
            "a\"b",
            "a~b",
            "a=b",
            "a\0",
            "a\r",
            "\u{e4}.example",
            "user@a",
            "user:pw@a",
            "a@",
            "a:",
            "a:0",
            "a:080",
            "a:+80",
            "a:-1",
            "a: 80",
            "a:80 ",
            "a:65536",
            "a:99999",
            "a:100000",
            "a:8a",
            "a:80:80",
            "a:80/",
            "::1",
            "[::1",
            "::1]",
            "[]",
            "[",
            "]",
            "[::1]]",
            "[[::1]]",
            "[::1]a",
            "[::1]:",
            "[::1]:0",
            "[::1%25eth0]",
            "[fe80::1%eth0]",
            "[v1.x]",
            "[1.2.3.4]",
            "[:::1]",
            "[12345::]",
            "[::1]80",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "a.0x1",
            "0x",
            "017700000001",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "1.2.3.04",
            "a.1",
            "1.2.3.4.",
        ] {
            assert!(!is_valid_authority(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn a_missing_port_is_the_default_one() {
        for (a, b, same) in [
            ("a", "A", true),
            ("a", "a:80", true),
            ("a:80", "a", true),
            ("a", "a:443", false),
            ("a", "b", false),
            ("a:81", "a:81", true),
        ] {
            let (a, b) = (Authority::parse(a.as_bytes()).unwrap(), Authority::parse(b.as_bytes()).unwrap());
            assert_eq!(a.is_same(&b, 80), same);
        }
    }
}
