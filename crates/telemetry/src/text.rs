//! Writing values as text without allocation: escapes, numbers, addresses, times.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

/// How bytes of a peer are made harmless inside a line.
pub(crate) type Escape = fn(&mut Vec<u8>, &[u8]);

/// Writes bytes as the inside of a JSON string (RFC 8259 §7): valid UTF-8, one line, no control character.
///
/// Bytes that are not UTF-8 become U+FFFD. Controls of both ranges and the two Unicode line separators are written as
/// `\uXXXX`, so that neither a terminal nor a line-based tool can be fooled.
pub(crate) fn json(out: &mut Vec<u8>, bytes: &[u8]) {
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
    } else {
        json_slow(out, bytes);
    }
}

#[cold]
fn json_slow(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                c if must_hide(c) => {
                    out.extend_from_slice(b"\\u");
                    for shift in [12, 8, 4, 0] {
                        out.push(HEX[(u32::from(c) >> shift & 15) as usize]);
                    }
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

// Controls, line and paragraph separators, and the marks that reorder text on a terminal; all are below U+10000.
fn must_hide(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes bytes for a line of quoted fields: quote, backslash and all but printable ASCII become `\xHH`.
pub(crate) fn quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
        return;
    }
    for byte in bytes {
        if is_plain(&[*byte]) {
            out.push(*byte);
        } else {
            out.extend_from_slice(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// Whether nothing needs an escape: printable ASCII without quote and backslash.
fn is_plain(bytes: &[u8]) -> bool {
    if bytes.len() < 16
        && let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>())
    {
        return (hits_in(u64::from_ne_bytes(*first)) | hits_in(u64::from_ne_bytes(*last))) & HIGH_BITS == 0;
    }
    has_none(bytes, hit)
}

/// Whether nothing needs an escape, and nothing ends a part of a URI that a log has to look at: there is none of `#;?@`.
pub(crate) fn is_plain_path(bytes: &[u8]) -> bool {
    has_none(bytes, |byte| {
        // Two at a time, which differ in one bit: `"` and `#`, `;` and `?`.
        u8::from(byte.wrapping_sub(b' ') > b'~' - b' ')
            | u8::from(byte | 1 == b'#')
            | u8::from(byte | 4 == b'?')
            | u8::from(byte == b'@')
            | u8::from(byte == b'\\')
    })
}

#[inline(always)]
fn has_none(bytes: &[u8], hit: impl Fn(u8) -> u8) -> bool {
    let is_free = |block: &[u8; 16]| block.iter().fold(0, |hits, byte| hits | hit(*byte)) == 0;
    // The last bytes are looked at twice instead of one by one. A block of 16 is a handful of vector instructions.
    if let Some(last) = bytes.last_chunk::<16>() {
        // The exit from the loop also keeps the compiler from unrolling it across blocks, which is slower.
        return bytes.as_chunks::<16>().0.iter().all(is_free) && is_free(last);
    }
    bytes.iter().all(|byte| hit(*byte) == 0)
}

#[inline(always)]
fn hit(byte: u8) -> u8 {
    u8::from(byte.wrapping_sub(b' ') > b'~' - b' ') | u8::from(byte == b'"') | u8::from(byte == b'\\')
}

/// Sets the high bit of a byte below space, of DEL, quote, backslash and all beyond ASCII. A borrow or carry can only
/// come from such a byte and can only set more high bits, so "none is set" is exact.
fn hits_in(word: u64) -> u64 {
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let below_space = word.wrapping_sub(ONES * b' ' as u64) & !word;
    word | below_space
        | word.wrapping_add(ONES)
        | zero(word ^ (ONES * b'"' as u64))
        | zero(word ^ (ONES * b'\\' as u64))
}

/// Writes a number in decimal.
pub(crate) fn number(out: &mut Vec<u8>, value: impl Into<u64>) {
    let value = value.into();
    match u32::try_from(value) {
        Ok(value @ ..EIGHT_DIGITS) => {
            let digits = eight_digits(value);
            let zeros = leading_zeros(digits).min(7);
            short(out, (digits | ASCII_ZEROS) >> (8 * zeros), 8 - zeros);
        }
        _ => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
    }
}

/// Writes a duration in milliseconds with three decimals.
pub(crate) fn millis(out: &mut Vec<u8>, value: Duration) {
    let micros = value.as_secs().saturating_mul(1_000_000).saturating_add(value.subsec_micros().into());
    match u32::try_from(micros) {
        Ok(micros @ ..EIGHT_DIGITS) => {
            let digits = eight_digits(micros);
            let zeros = leading_zeros(digits).min(4);
            let text = digits | ASCII_ZEROS;
            short(out, text >> (8 * zeros), 5 - zeros);
            // The last three, and a point before them.
            short(out, text >> 32 & !0xff | u64::from(b'.'), 4);
        }
        _ => {
            number(out, micros / 1000);
            let [a, b, c] = digits::<3>(micros % 1000);
            out.extend_from_slice(&[b'.', a, b, c]);
        }
    }
}

/// Writes the first `len` bytes of a word, at most eight, by one move and no call.
#[inline(always)]
fn short(out: &mut Vec<u8>, word: u64, len: usize) {
    let end = out.len() + len;
    out.extend_from_slice(&word.to_le_bytes());
    out.truncate(end);
}

/// The decimal digits of a number below [`EIGHT_DIGITS`] as bytes of 0 to 9, the first one lowest. All pairs, and then all digits of
/// pairs, are divided at once; the factors are reciprocals that are exact for what is divided here.
#[inline(always)]
fn eight_digits(value: u32) -> u64 {
    let fours = u64::from(value / 10_000) | u64::from(value % 10_000) << 32;
    // x / 100 = x * 10486 >> 20 for x < 10 000.
    let hundreds = (fours * 10_486) >> 20 & 0x0000_007f_0000_007f;
    let pairs = hundreds | (fours - 100 * hundreds) << 16;
    // x / 10 = x * 103 >> 10 for x < 100.
    let tens = (pairs * 103) >> 10 & 0x000f_000f_000f_000f;
    tens | (pairs - 10 * tens) << 8
}

/// How many digits in front are zero.
#[inline(always)]
fn leading_zeros(digits: u64) -> usize {
    digits.trailing_zeros() as usize / 8
}

/// The first number with more than eight digits.
const EIGHT_DIGITS: u32 = 100_000_000;
const ASCII_ZEROS: u64 = ONES * b'0' as u64;

/// Writes an IP address; an IPv4 address that arrived on an IPv6 socket in its IPv4 form.
pub(crate) fn ip(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let end = v4.octets().into_iter().fold(0, |_, octet| {
                let (text, len) = OCTETS[usize::from(octet)];
                out.extend_from_slice(&text);
                // With the point that follows.
                let end = out.len() - text.len() + len + 1;
                out.truncate(end);
                end
            });
            out.truncate(end - 1);
        }
        // A Vec takes every write.
        IpAddr::V6(v6) => write!(out, "{v6}").unwrap_or_default(),
    }
}

/// Octets in decimal, each with points behind it, and how long it is.
const OCTETS: [([u8; 4], usize); 256] = {
    let mut all = [([b'.'; 4], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let digits = [b'0' + (octet / 100) as u8, b'0' + (octet / 10 % 10) as u8, b'0' + (octet % 10) as u8];
        let zeros = if octet < 10 {
            2
        } else if octet < 100 {
            1
        } else {
            0
        };
        let mut at = zeros;
        while at < 3 {
            all[octet].0[at - zeros] = digits[at];
            at += 1;
        }
        all[octet].1 = 3 - zeros;
        octet += 1;
    }
    all
};

/// Writes times as text, remembering the last second: most records share it with the one before.
#[derive(Debug)]
pub(crate) struct TimeText {
    second: u64,
    rfc3339: [u8; 27],
    ncsa: [u8; 26],
}

impl TimeText {
    pub(crate) fn new() -> Self {
        let mut text = Self { second: 1, rfc3339: *b"0000-00-00T00:00:00.000000Z", ncsa: [0; 26] };
        text.at(0);
        text
    }

    /// Writes `2026-02-03T04:05:06.000789Z` (RFC 3339, UTC, microseconds).
    pub(crate) fn rfc3339(&mut self, out: &mut Vec<u8>, unix_nanos: u64) {
        self.at(unix_nanos / NANOS_PER_SECOND);
        #[allow(clippy::cast_possible_truncation)] // less than a million
        let micros = eight_digits((unix_nanos % NANOS_PER_SECOND / 1000) as u32) | ASCII_ZEROS;
        self.rfc3339[20..26].copy_from_slice(&(micros >> 16).to_le_bytes()[..6]);
        out.extend_from_slice(&self.rfc3339);
    }

    /// Writes `03/Feb/2026:04:05:06 +0000` (NCSA, always UTC).
    pub(crate) fn ncsa(&mut self, out: &mut Vec<u8>, unix_nanos: u64) {
        self.at(unix_nanos / NANOS_PER_SECOND);
        out.extend_from_slice(&self.ncsa);
    }

    fn at(&mut self, second: u64) {
        if second == self.second {
            return;
        }
        self.second = second;
        let (year, month, day) = civil(second / 86_400);
        let of_day = second % 86_400;
        let [hour, minute, sec] = [of_day / 3600, of_day / 60 % 60, of_day % 60].map(digits::<2>);
        let (year, month_digits, day) = (digits::<4>(year), digits::<2>(month), digits::<2>(day));
        let name = MONTHS[(month - 1) as usize];
        join(
            &mut self.rfc3339,
            &[&year, b"-", &month_digits, b"-", &day, b"T", &hour, b":", &minute, b":", &sec],
        );
        join(
            &mut self.ncsa,
            &[&day, b"/", name, b"/", &year, b":", &hour, b":", &minute, b":", &sec, b" +0000"],
        );
    }
}

fn join(into: &mut [u8], parts: &[&[u8]]) {
    let bytes = parts.iter().copied().flatten();
    for (place, byte) in into.iter_mut().zip(bytes) {
        *place = *byte;
    }
}

// The last N decimal digits.
fn digits<const N: usize>(mut value: u64) -> [u8; N] {
    let mut text = [b'0'; N];
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
    text
}

// Days since 1970-01-01 to the Gregorian date. Years are counted from March, so that the leap day comes last, in
// periods of 400 years, which all have the same number of days.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_FROM_YEAR_0_TO_1970;
    let (period, day) = (days / DAYS_PER_400_YEARS, days % DAYS_PER_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (400 * period + year + carry, month, day)
}

const HEX: [u8; 16] = *b"0123456789abcdef";
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = ONES << 7;
const NANOS_PER_SECOND: u64 = 1_000_000_000;
const DAYS_PER_400_YEARS: u64 = 146_097;
/// From 0000-03-01.
const DAYS_FROM_YEAR_0_TO_1970: u64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_strings_stay_on_one_line_and_parse_back() {
        let cases: [(&[u8], &str); 9] = [
            (b"plain /path?x=~", "plain /path?x=~"),
            (b"a\"b\\c", r#"a\"b\\c"#),
            (b"\r\n\t\0", r"\r\n\t\u0000"),
            (b"\x1b[31mred\x7f", r"\u001b[31mred\u007f"),
            (b"caf\xc3\xa9", "caf\u{e9}"),
            (b"\xff\xfe!", r"\ufffd\ufffd!"),
            (b"\xc2\x85\xe2\x80\xa8", r"\u0085\u2028"),
            (b"\xe2\x80\xaeevil", r"\u202eevil"),
            (b"cut \xf0\x9f\x98", r"cut \ufffd"),
        ];
        for (bytes, expected) in cases {
            let text = written(|out| json(out, bytes));
            assert_eq!(text, expected);
            let parsed: String = serde_json::from_str(&format!("\"{text}\"")).unwrap();
            assert_eq!(parsed, String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn every_byte_is_harmless_in_both_escapes() {
        for byte in 0..=255_u8 {
            for escape in [json as Escape, quoted] {
                let text = written(|out| escape(out, &[b'a', byte, b'z']));
                assert!(!text.bytes().any(|b| b < b' ' || b == 0x7f), "{byte:#x} {text:?}");
                assert!(!text.replace("\\\"", "").contains('"'), "{byte:#x} {text:?}");
            }
        }
        assert_eq!(written(|out| quoted(out, b"a\"\\\n\xe9z")), r"a\x22\x5c\x0a\xe9z");
    }

    #[test]
    fn a_byte_that_needs_an_escape_or_a_look_is_found_wherever_it_stands() {
        for len in 1..40 {
            for at in 0..len {
                for byte in 0..=255_u8 {
                    let mut bytes = vec![b'~'; len];
                    bytes[at] = byte;
                    let needs_no_escape = matches!(byte, b' '..=b'~') && !b"\"\\".contains(&byte);
                    assert_eq!(is_plain(&bytes), needs_no_escape, "{byte:#x} at {at} of {len}");
                    let needs_no_look = needs_no_escape && !b"#;?@".contains(&byte);
                    assert_eq!(is_plain_path(&bytes), needs_no_look, "{byte:#x} at {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn times_are_right_across_the_calendar() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z", "01/Jan/1970:00:00:00 +0000"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000000Z", "29/Feb/2000:00:00:00 +0000"),
            (951_868_799_999_999_999, "2000-02-29T23:59:59.999999Z", "29/Feb/2000:23:59:59 +0000"),
            (971_211_336_000_001_000, "2000-10-10T20:55:36.000001Z", "10/Oct/2000:20:55:36 +0000"),
            (1_709_164_800_000_000_000, "2024-02-29T00:00:00.000000Z", "29/Feb/2024:00:00:00 +0000"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000Z", "01/Mar/2100:00:00:00 +0000"),
        ];
        let mut times = TimeText::new();
        for (nanos, rfc3339, ncsa) in cases {
            assert_eq!(written(|out| times.rfc3339(out, nanos)), rfc3339);
            assert_eq!(written(|out| times.ncsa(out, nanos)), ncsa);
        }
    }

    #[test]
    fn each_day_follows_the_one_before() {
        let (mut year, mut month, mut day) = civil(0);
        for days in 1..200_000 {
            let next = civil(days);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last =
                [31, 28 + u64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][(month - 1) as usize];
            (year, month, day) = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == last => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
            assert_eq!(next, (year, month, day));
        }
    }

    #[test]
    fn numbers_and_durations_of_every_length_are_as_the_standard_library_writes_them() {
        let tens = (0..20).map(|power| 10_u64.pow(power));
        let around = tens.flat_map(|ten| [ten - 1, ten, ten + 1, ten / 2 * 3, ten.saturating_mul(9)]);
        let many = (0..200_000).map(|n: u64| n.wrapping_mul(2_654_435_761) % u64::from(EIGHT_DIGITS));
        for value in around.chain(many).chain([u64::MAX]) {
            assert_eq!(written(|out| number(out, value)), value.to_string());
            let duration = Duration::from_micros(value);
            let expected = format!("{}.{:03}", value / 1000, value % 1000);
            assert_eq!(written(|out| millis(out, duration)), expected);
        }
        for octet in 0..=255_u8 {
            let address = std::net::Ipv4Addr::new(octet, 1, 10, octet);
            assert_eq!(written(|out| ip(out, address.into())), address.to_string());
        }
    }

    #[test]
    fn numbers_and_addresses_are_plain() {
        assert_eq!(written(|out| millis(out, Duration::from_micros(1_234_567))), "1234.567");
        assert_eq!(written(|out| millis(out, Duration::from_nanos(999))), "0.000");
        assert_eq!(written(|out| millis(out, Duration::MAX)), "18446744073709551.615");
        for (address, expected) in
            [("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1")]
        {
            assert_eq!(written(|out| ip(out, address.parse().unwrap())), expected);
        }
    }
}
