//! The Huffman code of RFC 7541 Appendix B.
//!
//! The code is canonical: codes of one length count upwards in the order of their symbols. So the lengths are all the
//! data there is; codes and decoding tables are computed from them at compile time. Codes of up to eight bits cover
//! almost all of what fields contain; they are found in a table of 512 bytes that stays in the first-level cache.

use super::HpackError;

const SYMBOLS: usize = 257;
const EOS: u16 = 256;
const SHORTEST: usize = 5;
const LONGEST: usize = 30;
/// Codes up to this long are found by one look-up.
const SHORT_BITS: u32 = 8;

/// Length of each symbol's code in bits; the last is EOS.
#[rustfmt::skip]
static LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// Bytes that `text` takes when coded.
#[inline]
pub(super) fn encoded_len(text: &[u8]) -> usize {
    let bits: usize =
        text.iter().map(|&b| usize::from(LENGTHS.get(usize::from(b)).copied().unwrap_or(0))).sum();
    bits.div_ceil(8)
}

/// Appends `text`, coded, to `out`.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let mut bits = 0u64; // the lowest `have` bits are not written yet
    let mut have = 0u32;
    for &byte in text {
        let (Some(&code), Some(&len)) = (CODES.get(usize::from(byte)), LENGTHS.get(usize::from(byte))) else {
            continue;
        };
        bits = bits << len | u64::from(code);
        have += u32::from(len);
        if have >= 32 {
            have -= 32;
            out.extend_from_slice(&((bits >> have) as u32).to_be_bytes());
        }
    }
    while have >= 8 {
        have -= 8;
        out.push((bits >> have) as u8);
    }
    if have > 0 {
        // RFC 7541 §5.2: padded with the most significant bits of EOS, which are ones.
        out.push((bits << (8 - have)) as u8 | 0xff >> have);
    }
}

/// Appends what `input` stands for to `out`.
///
/// # Errors
/// [`HpackError::InvalidHuffman`]; `out` then has more bytes than before, without meaning.
#[inline]
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    let start = out.len();
    let most = input.len().saturating_mul(8) / SHORTEST;
    out.resize(start + most, 0);
    let mut slots = out.get_mut(start..).unwrap_or_default().iter_mut();
    decode_into(input, &mut slots)?;
    let unused = slots.len();
    out.truncate(start + most - unused);
    Ok(())
}

fn decode_into(input: &[u8], slots: &mut std::slice::IterMut<'_, u8>) -> Result<(), HpackError> {
    let mut rest = input;
    let mut bits = 0u64; // the highest `have` bits are to be decoded, the others are zero
    let mut have = 0u32;
    let mut emit = |symbol: u16| -> Result<(), HpackError> {
        *slots.next().ok_or(HpackError::InvalidHuffman)? = symbol as u8;
        Ok(())
    };
    loop {
        if have < 32 {
            if let Some((chunk, tail)) = rest.split_first_chunk::<4>() {
                bits |= u64::from(u32::from_be_bytes(*chunk)) << (32 - have);
                have += 32;
                rest = tail;
            } else {
                for &byte in std::mem::take(&mut rest) {
                    bits |= u64::from(byte) << (56 - have);
                    have += 8;
                }
            }
        }
        while have >= SHORT_BITS {
            let (mut symbol, mut len) = short(bits);
            if len == 0 {
                (symbol, len) = long(bits | u64::MAX >> have);
                if len > have {
                    break;
                }
                if symbol == EOS {
                    return Err(HpackError::InvalidHuffman);
                }
            }
            emit(symbol)?;
            bits <<= len;
            have -= len;
        }
        if rest.is_empty() {
            break;
        }
    }
    while have > 0 {
        let (symbol, len) = short(bits | u64::MAX >> have);
        if len == 0 || len > have {
            break;
        }
        emit(symbol)?;
        bits <<= len;
        have -= len;
    }
    // RFC 7541 §5.2: at most seven bits of padding, all ones.
    if have < 8 && bits | u64::MAX >> have == u64::MAX { Ok(()) } else { Err(HpackError::InvalidHuffman) }
}

/// Symbol and length of the code that `bits` begins with, when it is short; length 0 when it is long.
#[inline]
fn short(bits: u64) -> (u16, u32) {
    let entry = SHORT.get((bits >> (64 - SHORT_BITS)) as usize).copied().unwrap_or(0);
    (entry & 0xff, u32::from(entry >> 8))
}

/// Symbol and length of the code that `bits` begins with. Codes of one length are one range of numbers.
fn long(bits: u64) -> (u16, u32) {
    let window = (bits >> (64 - LONGEST)) as u32;
    for (range, len) in RANGES.iter().zip(SHORTEST as u32..) {
        if window < range.end {
            let nth = (window - range.first) >> (LONGEST as u32 - len);
            let symbol = SORTED.get(range.offset as usize + nth as usize).copied().unwrap_or(EOS);
            return (symbol, len);
        }
    }
    (EOS, LONGEST as u32)
}

/// The codes of one length, written with [`LONGEST`] bits: from `first` to before `end`.
#[derive(Clone, Copy)]
struct Range {
    first: u32,
    end: u32,
    /// Where their symbols begin in [`SORTED`].
    offset: u32,
}

static CODES: [u32; SYMBOLS] = codes();
static SORTED: [u16; SYMBOLS] = sorted();
static RANGES: [Range; LONGEST - SHORTEST + 1] = ranges();
static SHORT: [u16; 1 << SHORT_BITS] = short_table();

/// Symbols in the order of their codes.
#[allow(clippy::indexing_slicing)] // evaluated at compile time: out of bounds would not build
const fn sorted() -> [u16; SYMBOLS] {
    let mut sorted = [0u16; SYMBOLS];
    let mut n = 0;
    let mut len = SHORTEST;
    while len <= LONGEST {
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == len {
                sorted[n] = symbol as u16;
                n += 1;
            }
            symbol += 1;
        }
        len += 1;
    }
    sorted
}

#[allow(clippy::indexing_slicing)] // evaluated at compile time
const fn ranges() -> [Range; LONGEST - SHORTEST + 1] {
    let mut ranges = [Range { first: 0, end: 0, offset: 0 }; LONGEST - SHORTEST + 1];
    let mut first = 0u32;
    let mut offset = 0u32;
    let mut len = SHORTEST;
    while len <= LONGEST {
        let mut count = 0;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            count += (LENGTHS[symbol] as usize == len) as u32;
            symbol += 1;
        }
        let end = first + (count << (LONGEST - len));
        ranges[len - SHORTEST] = Range { first, end, offset };
        first = end;
        offset += count;
        len += 1;
    }
    assert!(first == 1 << LONGEST, "the code is complete");
    ranges
}

#[allow(clippy::indexing_slicing)] // evaluated at compile time
const fn codes() -> [u32; SYMBOLS] {
    let (sorted, ranges) = (sorted(), ranges());
    let mut codes = [0u32; SYMBOLS];
    let mut n = 0;
    while n < SYMBOLS {
        let symbol = sorted[n] as usize;
        let len = LENGTHS[symbol] as usize;
        let range = ranges[len - SHORTEST];
        codes[symbol] = (range.first >> (LONGEST - len)) + (n as u32 - range.offset);
        n += 1;
    }
    codes
}

#[allow(clippy::indexing_slicing)] // evaluated at compile time
const fn short_table() -> [u16; 1 << SHORT_BITS] {
    let codes = codes();
    let mut table = [0u16; 1 << SHORT_BITS];
    let mut symbol = 0;
    while symbol < SYMBOLS {
        let len = LENGTHS[symbol] as u32;
        if len <= SHORT_BITS {
            let first = codes[symbol] << (SHORT_BITS - len);
            let mut n = 0;
            while n < 1 << (SHORT_BITS - len) {
                table[(first + n) as usize] = symbol as u16 | (len as u16) << 8;
                n += 1;
            }
        }
        symbol += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(input: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = b"kept".to_vec();
        decode(input, &mut out)?;
        Ok(out.split_off(4))
    }

    #[test]
    fn codes_are_those_of_appendix_b() {
        for (symbol, code) in [
            (b'0', 0x0),
            (b'a', 0x3),
            (b' ', 0x14),
            (b'z', 0x7b),
            (b'X', 0xfc),
            (b'Z', 0xfd),
            (b'!', 0x3f8),
            (b'\\', 0x7fff0),
            (0, 0x1ff8),
            (b'\n', 0x3fff_fffc),
            (22, 0x3fff_fffe),
            (127, 0xfff_fffc),
            (128, 0xf_ffe6),
            (255, 0x3ff_ffee),
        ] {
            assert_eq!(CODES[usize::from(symbol)], code, "symbol {symbol}");
        }
        assert_eq!(CODES[256], 0x3fff_ffff);
    }

    #[test]
    fn strings_of_appendix_c_round_trip() {
        for (text, coded) in [
            ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
            ("no-cache", "a8eb10649cbf"),
            ("custom-key", "25a849e95ba97d7f"),
            ("custom-value", "25a849e95bb8e8b4bf"),
            ("302", "6402"),
            ("private", "aec3771a4b"),
            ("Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"),
            ("https://www.example.com", "9d29ad171863c78f0b97c8e9ae82ae43d3"),
        ] {
            let mut out = Vec::new();
            encode(text.as_bytes(), &mut out);
            let hex: String = out.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, coded);
            assert_eq!(out.len(), encoded_len(text.as_bytes()));
            assert_eq!(decoded(&out).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn padding_is_short_and_all_ones_and_eos_is_refused() {
        for input in [
            &[0xff][..],                                 // eight bits of padding
            &[0x07, 0xff],                               // '0', then eleven
            &[0x1f, 0xff],                               // 'a', then eleven
            &[0x18],                                     // 'a', padding 000
            &[0x1e],                                     // 'a', padding 110
            &[0xff, 0xff, 0xff, 0xff],                   // EOS and two bits
            &[0xff, 0xff, 0xff, 0xfc],                   // EOS and zeros
            &[0x1f, 0xff, 0xff, 0xff, 0xff],             // 'a', EOS
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], // EOS again and again
            &[0xfe],                                     // cut inside '!'
        ] {
            assert_eq!(decoded(input), Err(HpackError::InvalidHuffman), "{input:x?}");
        }
        assert_eq!(decoded(&[0x1f]).unwrap(), b"a");
        assert_eq!(decoded(&[]).unwrap(), b"");
        assert_eq!(decoded(&[0x07]).unwrap(), b"0");
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            encode(&text, &mut out);
            prop_assert_eq!(out.len(), encoded_len(&text));
            prop_assert_eq!(decoded(&out).unwrap(), text);
        }

        #[test]
        fn what_decodes_is_the_only_code_of_its_text(input in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(text) = decoded(&input) {
                let mut out = Vec::new();
                encode(&text, &mut out);
                prop_assert_eq!(out, input);
            }
        }
    }
}
