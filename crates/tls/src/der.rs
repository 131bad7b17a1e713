//! The few facts of an X.509 certificate that logs and metrics need. RFC 5280 §4.1.
//!
//! Knows no trust: verification is webpki's. A certificate that this reader does not understand
//! yields `None`, never a panic.

use std::net::IpAddr;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OID: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT` before the version, `[3] EXPLICIT` before the extensions.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// id-ce-subjectAltName, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// id-ce-keyUsage, 2.5.29.15.
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const BIT_STRING: u8 = 0x03;

/// Reads tag, length, value; DER with one-byte tags and lengths of at most four bytes.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(der: &'a [u8]) -> Self {
        Self { rest: der }
    }

    /// The next element, or `None` at the end and where the bytes are no DER.
    pub(crate) fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.rest.split_first()?;
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, mut rest) = rest.split_first()?;
        let mut len = usize::from(first);
        if first >= 0x80 {
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 4 {
                return None;
            }
            let (bytes, after) = rest.split_at_checked(count)?;
            len = bytes.iter().fold(0, |len, &byte| (len << 8) | usize::from(byte));
            rest = after;
        }
        let (value, rest) = rest.split_at_checked(len)?;
        self.rest = rest;
        Some((tag, value))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|&(found, _)| found == tag).map(|(_, value)| value)
    }

    fn peek_tag(&self) -> Option<u8> {
        self.rest.first().copied()
    }
}

/// One entry of the subject alternative name extension. RFC 5280 §4.2.1.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GeneralName<'a> {
    /// rfc822Name.
    Email(&'a str),
    /// dNSName.
    Dns(&'a str),
    /// uniformResourceIdentifier; empty where it is no printable ASCII.
    Uri(&'a str),
    /// iPAddress.
    Ip(IpAddr),
}

/// The fields of a certificate, borrowed from its DER.
pub(crate) struct Facts<'a> {
    /// Serial number: the INTEGER's bytes.
    pub(crate) serial: &'a [u8],
    /// The subject's RDNSequence, without its outer header.
    pub(crate) subject: &'a [u8],
    /// Unit: seconds since 1970.
    pub(crate) not_before: i64,
    /// Unit: seconds since 1970.
    pub(crate) not_after: i64,
    /// The content of the GeneralNames sequence; empty without the extension.
    names: &'a [u8],
    key_usage: Option<u16>,
}

/// Bits of the key usage extension as [`Facts::key_usage`] has them. RFC 5280 §4.2.1.3.
pub(crate) mod key_usage {
    /// digitalSignature (0).
    pub(crate) const DIGITAL_SIGNATURE: u16 = 0x8000;
    /// keyCertSign (5).
    pub(crate) const CERT_SIGN: u16 = 0x0400;
    /// cRLSign (6).
    pub(crate) const CRL_SIGN: u16 = 0x0200;
}

impl<'a> Facts<'a> {
    pub(crate) fn parse(der: &'a [u8]) -> Option<Self> {
        let mut certificate = Reader::new(Reader::new(der).expect(SEQUENCE)?);
        let mut tbs = Reader::new(certificate.expect(SEQUENCE)?);
        if tbs.peek_tag() == Some(VERSION) {
            tbs.next()?;
        }
        let serial = tbs.expect(INTEGER)?;
        tbs.expect(SEQUENCE)?; // signature algorithm
        tbs.expect(SEQUENCE)?; // issuer
        let mut validity = Reader::new(tbs.expect(SEQUENCE)?);
        let not_before = time(validity.next()?)?;
        let not_after = time(validity.next()?)?;
        let subject = tbs.expect(SEQUENCE)?;
        tbs.expect(SEQUENCE)?; // public key
        let mut names: &[u8] = &[];
        let mut usage = None;
        while let Some((tag, value)) = tbs.next() {
            if tag == EXTENSIONS {
                let found =
                    extension(value, SUBJECT_ALT_NAME).and_then(|der| Reader::new(der).expect(SEQUENCE));
                names = found.filter(|names| is_sequence(names)).unwrap_or_default();
                usage = extension(value, KEY_USAGE).map(|der| bits(der).unwrap_or(u16::MAX));
            }
        }
        Some(Self { serial, subject, not_before, not_after, names, key_usage: usage })
    }

    /// The bits of the key usage extension, the first one on top; all of them where the extension does not parse.
    pub(crate) fn key_usage(&self) -> Option<u16> {
        self.key_usage
    }

    /// The subject alternative names; kinds that we do not use are left out.
    pub(crate) fn names(&self) -> impl Iterator<Item = GeneralName<'a>> + use<'a> {
        let mut reader = Reader::new(self.names);
        std::iter::from_fn(move || reader.next()).filter_map(|(tag, value)| match tag {
            0x81 => Some(GeneralName::Email(ascii(value)?)),
            0x82 => Some(GeneralName::Dns(ascii(value)?)),
            // An unusable URI still counts: an SVID has exactly one (SPIFFE X509-SVID §2).
            0x86 => Some(GeneralName::Uri(ascii(value).unwrap_or_default())),
            0x87 => match value.len() {
                4 => <[u8; 4]>::try_from(value).ok().map(|ip| GeneralName::Ip(ip.into())),
                16 => <[u8; 16]>::try_from(value).ok().map(|ip| GeneralName::Ip(ip.into())),
                _ => None,
            },
            _ => None,
        })
    }
}

/// Whether these bytes are whole DER elements to the end: half a list of names is none.
fn is_sequence(der: &[u8]) -> bool {
    let mut reader = Reader::new(der);
    while reader.next().is_some() {}
    reader.rest.is_empty()
}

/// IA5String without control characters: such names end up in logs and field values.
fn ascii(value: &[u8]) -> Option<&str> {
    let printable = !value.is_empty() && value.iter().all(|byte| (0x20..0x7f).contains(byte));
    std::str::from_utf8(value).ok().filter(|_| printable)
}

/// The value of an extension.
fn extension<'a>(extensions: &'a [u8], oid: &[u8]) -> Option<&'a [u8]> {
    let mut list = Reader::new(Reader::new(extensions).expect(SEQUENCE)?);
    while let Some(extension) = list.expect(SEQUENCE) {
        let mut fields = Reader::new(extension);
        if fields.expect(OID)? != oid {
            continue;
        }
        // The critical flag, a BOOLEAN, may stand before the value.
        loop {
            let (tag, value) = fields.next()?;
            if tag == OCTET_STRING {
                return Some(value);
            }
        }
    }
    None
}

/// A BIT STRING of up to 16 bits, the first one on top.
fn bits(der: &[u8]) -> Option<u16> {
    // The first byte says how many bits of the last one do not count; DER has them zero (X.690 §11.2.1).
    let (_, bytes) = Reader::new(der).expect(BIT_STRING)?.split_first()?;
    match *bytes {
        [] => Some(0),
        [one] => Some(u16::from_be_bytes([one, 0])),
        [one, two] => Some(u16::from_be_bytes([one, two])),
        _ => None,
    }
}

/// Seconds since 1970 of a UTCTime or GeneralizedTime, as RFC 5280 §4.1.2.5 writes them.
fn time((tag, value): (u8, &[u8])) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, at) = match (tag, text.len()) {
        // RFC 5280 §4.1.2.5.1: 50 to 99 are in the 20th century.
        (UTC_TIME, 12) => (number(0, 2).map(|year| if year >= 50 { 1900 + year } else { 2000 + year })?, 2),
        (GENERALIZED_TIME, 14) => (number(0, 4)?, 4),
        _ => return None,
    };
    let month = number(at, at + 2)?;
    let day = number(at + 2, at + 4)?;
    let (hour, minute, second) = (number(at + 4, at + 6)?, number(at + 6, at + 8)?, number(at + 8, at + 10)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(((days_from_civil(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days since 1970-01-01 in the Gregorian calendar, years counted from March so that a leap day
/// comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// A distinguished name as RFC 4514 writes it: the most specific part first.
pub(crate) fn distinguished_name(rdns: &[u8]) -> String {
    let mut reader = Reader::new(rdns);
    let mut parts = Vec::new();
    while let Some(set) = reader.expect(SET) {
        let mut part = String::new();
        let mut attributes = Reader::new(set);
        while let Some(attribute) = attributes.expect(SEQUENCE) {
            let mut fields = Reader::new(attribute);
            let (Some(oid), Some((tag, value))) = (fields.expect(OID), fields.next()) else { break };
            if !part.is_empty() {
                part.push('+');
            }
            push_attribute(&mut part, oid, tag, value);
        }
        parts.push(part);
    }
    parts.reverse();
    parts.join(",")
}

fn push_attribute(out: &mut String, oid: &[u8], tag: u8, value: &[u8]) {
    match attribute_name(oid) {
        Some(name) => out.push_str(name),
        None => push_oid(out, oid),
    }
    out.push('=');
    let text = match tag {
        // UTF8String, NumericString, PrintableString, IA5String, VisibleString.
        0x0c | 0x12 | 0x13 | 0x16 | 0x1a => std::str::from_utf8(value).ok().map(str::to_owned),
        // TeletexString is in practice Latin-1.
        0x14 => Some(value.iter().map(|&byte| char::from(byte)).collect()),
        // BMPString.
        0x1e => {
            let (pairs, odd) = value.as_chunks::<2>();
            let units = pairs.iter().map(|&pair| u16::from_be_bytes(pair));
            char::decode_utf16(units).collect::<Result<String, _>>().ok().filter(|_| odd.is_empty())
        }
        _ => None,
    };
    match text {
        Some(text) => push_escaped(out, &text),
        None => {
            out.push('#');
            push_hex(out, value);
        }
    }
}

/// RFC 4514 §2.4; control characters as `\hh`.
fn push_escaped(out: &mut String, text: &str) {
    let last = text.chars().count().saturating_sub(1);
    for (at, char) in text.chars().enumerate() {
        match char {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => {
                out.push('\\');
                out.push(char);
            }
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            '#' if at == 0 => out.push_str("\\#"),
            _ if char.is_control() => {
                let mut utf8 = [0; 4];
                for &byte in char.encode_utf8(&mut utf8).as_bytes() {
                    out.push('\\');
                    push_hex(out, &[byte]);
                }
            }
            _ => out.push(char),
        }
    }
}

pub(crate) fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
}

fn push_oid(out: &mut String, oid: &[u8]) {
    use std::fmt::Write;
    let mut arc = 0_u64;
    let mut first = true;
    for &byte in oid {
        arc = (arc << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        // X.690 §8.19.4: the first two arcs share one number. Writing to a String cannot fail.
        let _ = match first {
            true => write!(out, "{}.{}", (arc / 40).min(2), arc - (arc / 40).min(2) * 40),
            false => write!(out, ".{arc}"),
        };
        first = false;
        arc = 0;
    }
}

/// Short names of RFC 4514 §3 and of habit.
fn attribute_name(oid: &[u8]) -> Option<&'static str> {
    Some(match oid {
        [0x55, 0x04, 0x03] => "CN",
        [0x55, 0x04, 0x04] => "SN",
        [0x55, 0x04, 0x05] => "serialNumber",
        [0x55, 0x04, 0x06] => "C",
        [0x55, 0x04, 0x07] => "L",
        [0x55, 0x04, 0x08] => "ST",
        [0x55, 0x04, 0x09] => "STREET",
        [0x55, 0x04, 0x0a] => "O",
        [0x55, 0x04, 0x0b] => "OU",
        [0x55, 0x04, 0x0c] => "title",
        [0x55, 0x04, 0x2a] => "GN",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19] => "DC",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01] => "emailAddress",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_rfc_5280_writes_them() {
        let cases: [(u8, &str, Option<i64>); 10] = [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "000229120000Z", Some(951_825_600)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (UTC_TIME, "7001010000Z", None),
            (UTC_TIME, "70010100000+Z", None),
            (UTC_TIME, "701301000000Z", None),
            (GENERALIZED_TIME, "700101000000Z", None),
        ];
        for (tag, text, expected) in cases {
            assert_eq!(time((tag, text.as_bytes())), expected, "{text}");
        }
    }

    #[test]
    fn names_are_escaped() {
        let cases = [
            ("plain", "plain"),
            ("a,b+c", "a\\,b\\+c"),
            (" lead and trail ", "\\ lead and trail\\ "),
            ("#1", "\\#1"),
            ("line\nbreak", "line\\0abreak"),
            ("Zürich", "Zürich"),
        ];
        for (text, expected) in cases {
            let mut out = String::new();
            push_escaped(&mut out, text);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn unknown_attributes_are_written_as_oid() {
        let mut out = String::new();
        push_attribute(&mut out, &[0x2a, 0x03, 0x87, 0x67], 0x02, &[1, 0xff]);
        assert_eq!(out, "1.2.3.999=#01ff");
    }

    #[test]
    fn cut_and_mangled_certificates_yield_none_or_facts_but_no_panic() {
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(["a.test".into()]).unwrap().self_signed(&key).unwrap();
        let der = cert.der().to_vec();
        assert!(Facts::parse(&der).is_some());
        for end in 0..der.len() {
            assert!(Facts::parse(&der[..end]).is_none(), "cut at {end}");
        }
        for at in 0..der.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut der = der.clone();
                der[at] ^= flip;
                if let Some(facts) = Facts::parse(&der) {
                    let _ = (facts.names().count(), distinguished_name(facts.subject));
                }
            }
        }
    }
}
