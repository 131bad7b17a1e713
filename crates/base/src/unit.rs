//! Quantities as users write them: durations (GEP-2257) and byte sizes.

use std::time::Duration;

/// Why a quantity cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUnit {
    /// Not a duration of GEP-2257.
    #[error("not a duration: write digits and a unit (h, m, s, ms), for example 30s, 1h30m or 500ms")]
    Duration,
    /// Not a byte size.
    #[error("not a size: write digits and an optional unit (k, M, G, Ki, Mi, Gi), for example 64Ki or 10Mi")]
    ByteSize,
}

/// Reads a Gateway API duration: one to four groups of up to five digits with unit h, m, s or ms (GEP-2257).
///
/// # Errors
/// [`InvalidUnit::Duration`] when the text does not match `^([0-9]{1,5}(h|m|s|ms)){1,4}$`.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidUnit> {
    const MAX_GROUPS: usize = 4;
    const MAX_DIGITS: usize = 5;
    let mut rest = text;
    let mut total_ms = 0u64;
    for _ in 0..MAX_GROUPS {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > MAX_DIGITS {
            return Err(InvalidUnit::Duration);
        }
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| InvalidUnit::Duration)?;
        let (unit_ms, after) = if let Some(after) = after.strip_prefix("ms") {
            (1, after)
        } else if let Some(after) = after.strip_prefix('h') {
            (3_600_000, after)
        } else if let Some(after) = after.strip_prefix('m') {
            (60_000, after)
        } else if let Some(after) = after.strip_prefix('s') {
            (1_000, after)
        } else {
            return Err(InvalidUnit::Duration);
        };
        total_ms += number * unit_ms;
        rest = after;
        if rest.is_empty() {
            return Ok(Duration::from_millis(total_ms));
        }
    }
    Err(InvalidUnit::Duration)
}

/// Reads a size in bytes: digits with an optional unit (k, M, G are powers of 1000; Ki, Mi, Gi of 1024).
///
/// # Errors
/// [`InvalidUnit::ByteSize`] when the text is something else or exceeds 64 bits.
pub fn parse_byte_size(text: &str) -> Result<u64, InvalidUnit> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| InvalidUnit::ByteSize)?;
    let factor = match unit {
        "" | "B" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(InvalidUnit::ByteSize),
    };
    number.checked_mul(factor).ok_or(InvalidUnit::ByteSize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_gep_2257() {
        for (text, ms) in
            [("0s", 0), ("10s", 10_000), ("1h30m", 5_400_000), ("500ms", 500), ("1m2s3ms", 62_003)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "10", "s", "1.5s", "-1s", "100000s", "1h1m1s1ms1h", "1d", "1s ", "1 s"] {
            assert_eq!(parse_duration(text), Err(InvalidUnit::Duration), "{text}");
        }
    }

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        for (text, bytes) in
            [("0", 0), ("17", 17), ("64Ki", 65_536), ("10Mi", 10 << 20), ("2k", 2_000), ("1G", 1_000_000_000)]
        {
            assert_eq!(parse_byte_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "Ki", "1KB", "1.5Mi", "-1", "99999999999999999999", "18446744073709551615Ki"] {
            assert_eq!(parse_byte_size(text), Err(InvalidUnit::ByteSize), "{text}");
        }
    }
}
