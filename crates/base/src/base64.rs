//! Base64 (RFC 4648), strict: one text for each sequence of octets, so that nothing compares equal in two spellings.

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What is not a digit.
const NONE: u8 = 0xff;

static STANDARD_VALUES: [u8; 256] = values(STANDARD);
static URL_VALUES: [u8; 256] = values(URL);

#[allow(clippy::indexing_slicing)] // evaluated at compile time: out of bounds would not build
const fn values(digits: &[u8; 64]) -> [u8; 256] {
    let mut values = [NONE; 256];
    let mut at = 0;
    while at < 64 {
        values[digits[at] as usize] = at as u8;
        at += 1;
    }
    values
}

/// Reads base64 with padding (RFC 4648 §4). `None` for other characters, wrong padding, or bits that are left over and
/// not zero.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let bare = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    decode_with(&STANDARD_VALUES, bare)
}

/// Reads base64url without padding (RFC 7515 §2). `None` as for [`decode`], and for padding.
pub fn decode_url(text: &[u8]) -> Option<Vec<u8>> {
    decode_with(&URL_VALUES, text)
}

/// Reads base64 without padding, as PHC texts have it. `None` as for [`decode`], and for padding.
pub fn decode_bare(text: &[u8]) -> Option<Vec<u8>> {
    decode_with(&STANDARD_VALUES, text)
}

/// Reads base64 without padding that has other digits, in the order of their values.
pub fn decode_digits(digits: &[u8; 64], text: &[u8]) -> Option<Vec<u8>> {
    decode_with(&values(digits), text)
}

fn decode_with(values: &[u8; 256], text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits = 0u32;
        for &digit in group {
            let value = values.get(usize::from(digit)).copied().filter(|&value| value != NONE)?;
            bits = bits << 6 | u32::from(value);
        }
        match group.len() {
            4 => out.extend_from_slice(bits.to_be_bytes().get(1..)?),
            // 18 and 12 bits: those behind the last octet must be zero (RFC 4648 §3.5).
            3 if bits & 0b11 == 0 => out.extend_from_slice((bits >> 2).to_be_bytes().get(2..)?),
            2 if bits & 0b1111 == 0 => out.extend_from_slice((bits >> 4).to_be_bytes().get(3..)?),
            _ => return None,
        }
    }
    Some(out)
}

/// Writes base64 with padding (RFC 4648 §4).
pub fn encode(bytes: &[u8]) -> String {
    let mut text = encode_with(STANDARD, bytes);
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

/// Writes base64url without padding (RFC 7515 §2).
pub fn encode_url(bytes: &[u8]) -> String {
    encode_with(URL, bytes)
}

fn encode_with(digits: &[u8; 64], bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            let value = bits >> (18 - 6 * place) & 0x3f;
            // Six bits are always below 64.
            out.push(digits.get(value as usize).copied().map_or('A', char::from));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_rfc_go_both_ways() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(bytes.as_bytes()));
            assert_eq!(encode_url(bytes.as_bytes()), text.trim_end_matches('='));
            assert_eq!(decode_url(text.trim_end_matches('=').as_bytes()).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(decode(b"+/+/").unwrap(), decode_url(b"-_-_").unwrap());
    }

    #[test]
    fn there_is_one_text_for_each_sequence() {
        for text in ["Zg", "Zg=", "Zh==", "Zm9=", "Zm9v=", "Zm9vZ===", "Zm-v", "Zm 9", "====", "Z==="] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
        for text in ["Zg==", "Zh", "Zm9", "Zm+v", "Z", "Zm9vZ", "Zm\n9v"] {
            assert_eq!(decode_url(text.as_bytes()), None, "{text}");
        }
    }
}
