//! Points in time and spans between them (CEL specification, "Timestamps and Durations"; RFC 3339).

/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;

/// A point in time, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970, before it negative.
    pub seconds: i64,
    /// Nanoseconds of the second, from 0.
    pub nanos: u32,
}

/// First and last second of the years 1 to 9999, which the specification allows.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

impl Timestamp {
    /// A point in time from nanoseconds since 1970.
    pub fn from_unix_nanos(nanos: u64) -> Self {
        let second = SECOND.unsigned_abs();
        Self {
            seconds: i64::try_from(nanos / second).unwrap_or(i64::MAX),
            nanos: u32::try_from(nanos % second).unwrap_or(0),
        }
    }

    /// Reads RFC 3339: `2030-01-31T12:00:00.5+02:00`.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, rest) = text.split_once(['T', 't'])?;
        let mut date = date.split('-');
        let (year, month, day) =
            (digits(date.next()?, 4)?, digits(date.next()?, 2)?, digits(date.next()?, 2)?);
        if date.next().is_some()
            || !(1..=12).contains(&month)
            || !(1..=days_of_month(year, month)).contains(&day)
        {
            return None;
        }
        let zone_at = rest.find(['Z', 'z', '+', '-'])?;
        let (clock, zone) = rest.split_at_checked(zone_at)?;
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
        let mut clock = clock.split(':');
        let (hour, minute, second) =
            (digits(clock.next()?, 2)?, digits(clock.next()?, 2)?, digits(clock.next()?, 2)?);
        if clock.next().is_some()
            || hour > 23
            || minute > 59
            || second > 59
            || fraction.is_empty()
            || fraction.len() > 9
        {
            return None;
        }
        let scale = 10u32.checked_pow(9 - u32::try_from(fraction.len()).ok()?)?;
        let nanos = u32::try_from(digits(fraction, fraction.len())?).ok()?.checked_mul(scale)?;
        let offset = parse_offset(zone)?;
        let seconds =
            days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
        Self { seconds, nanos }.in_range()
    }

    /// This point moved by nanoseconds; `None` beyond the years 1 to 9999.
    pub(crate) fn plus(self, nanos: i64) -> Option<Self> {
        let sum = i64::from(self.nanos).checked_add(nanos % SECOND)?;
        let seconds = self.seconds.checked_add(nanos / SECOND)?.checked_add(sum.div_euclid(SECOND))?;
        Self { seconds, nanos: u32::try_from(sum.rem_euclid(SECOND)).ok()? }.in_range()
    }

    /// Nanoseconds from `earlier` to this point.
    pub(crate) fn since(self, earlier: Self) -> Option<i64> {
        let seconds = self.seconds.checked_sub(earlier.seconds)?.checked_mul(SECOND)?;
        seconds.checked_add(i64::from(self.nanos) - i64::from(earlier.nanos))
    }

    fn in_range(self) -> Option<Self> {
        SECONDS.contains(&self.seconds).then_some(self)
    }

    /// RFC 3339 with `Z`.
    pub(crate) fn write(self) -> String {
        let (year, month, day) = civil_from_days(self.seconds.div_euclid(86_400));
        let second = self.seconds.rem_euclid(86_400);
        let mut text = format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
            second / 3_600,
            second / 60 % 60,
            second % 60
        );
        if self.nanos > 0 {
            text.push_str(format!(".{:09}", self.nanos).trim_end_matches('0'));
        }
        text.push('Z');
        text
    }
}

/// What of a point in time, or of a duration, is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimePart {
    FullYear,
    Month,
    Date,
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

impl TimePart {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "getFullYear" => Self::FullYear,
            "getMonth" => Self::Month,
            "getDate" => Self::Date,
            "getDayOfMonth" => Self::DayOfMonth,
            "getDayOfWeek" => Self::DayOfWeek,
            "getDayOfYear" => Self::DayOfYear,
            "getHours" => Self::Hours,
            "getMinutes" => Self::Minutes,
            "getSeconds" => Self::Seconds,
            "getMilliseconds" => Self::Milliseconds,
            _ => return None,
        })
    }

    /// Of a point in time at an offset to UTC in seconds. Months, days of the month and of the year count from 0, as the
    /// specification has it; `getDate` counts from 1, weeks begin on Sunday with 0.
    pub(crate) fn of(self, time: Timestamp, offset: i64) -> i64 {
        let local = time.seconds.saturating_add(offset);
        let (days, second) = (local.div_euclid(86_400), local.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        match self {
            Self::FullYear => year,
            Self::Month => month - 1,
            Self::Date => day,
            Self::DayOfMonth => day - 1,
            Self::DayOfWeek => (days + 4).rem_euclid(7),
            Self::DayOfYear => days - days_from_civil(year, 1, 1),
            Self::Hours => second / 3_600,
            Self::Minutes => second / 60 % 60,
            Self::Seconds => second % 60,
            Self::Milliseconds => i64::from(time.nanos / 1_000_000),
        }
    }

    /// Of a duration: all of it in that unit; milliseconds are those of the second.
    pub(crate) fn of_duration(self, nanos: i64) -> Option<i64> {
        Some(match self {
            Self::Hours => nanos / (3_600 * SECOND),
            Self::Minutes => nanos / (60 * SECOND),
            Self::Seconds => nanos / SECOND,
            Self::Milliseconds => nanos % SECOND / 1_000_000,
            _ => return None,
        })
    }
}

/// Seconds east of UTC: `Z`, `UTC`, `+02:00`, `-05:30`.
pub(crate) fn parse_offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z" | "UTC" | "") {
        return Some(0);
    }
    let (sign, rest) = match zone.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, zone.strip_prefix('+').unwrap_or(zone)),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// Reads `1h30m`, `250ms`, `-1.5s` into nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1i128, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0i128;
    while !rest.is_empty() || total == 0 {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(unit_at)?;
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_len)?;
        let unit: i128 = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() > 18 || fraction.len() > 9 || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let value = |digits: &str| if digits.is_empty() { Some(0i128) } else { digits.parse::<i128>().ok() };
        total +=
            value(whole)? * unit + value(fraction)? * unit / 10i128.pow(u32::try_from(fraction.len()).ok()?);
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    i64::try_from(sign * total).ok()
}

/// Writes a duration as seconds, the form that the specification gives: `5400s`, `0.25s`.
pub(crate) fn write_duration(nanos: i64) -> String {
    let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let second = SECOND.unsigned_abs();
    let mut text = format!("{sign}{}", nanos / second);
    if nanos % second > 0 {
        text.push_str(format!(".{:09}", nanos % second).trim_end_matches('0'));
    }
    text.push('s');
    text
}

fn digits(text: &str, len: usize) -> Option<i64> {
    (text.len() == len && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar. A year is taken to begin in March, so that the leap day is
/// its last one.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read_and_written() {
        for (text, seconds, again) in [
            ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"),
            ("2000-02-29T23:59:59.5Z", 951_868_799, "2000-02-29T23:59:59.5Z"),
            ("2030-06-01T02:00:00+02:00", 1_906_502_400, "2030-06-01T00:00:00Z"),
            ("0001-01-01T00:00:00Z", -62_135_596_800, "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59Z", 253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            let time = Timestamp::parse(text).unwrap();
            assert_eq!((time.seconds, time.write().as_str()), (seconds, again), "{text}");
        }
        for text in [
            "",
            "2030-13-01T00:00:00Z",
            "2030-02-29T00:00:00Z",
            "2030-01-01",
            "2030-01-01T24:00:00Z",
            "2030-01-01T00:00:00",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_is_itself_again() {
        for day in -146_097..146_097 {
            let (y, m, d) = civil_from_days(day);
            assert_eq!(days_from_civil(y, m, d), day);
        }
    }

    #[test]
    fn durations_are_read_and_written() {
        for (text, nanos, again) in [
            ("90s", 90_000_000_000, "90s"),
            ("1h30m", 5_400_000_000_000, "5400s"),
            ("250ms", 250_000_000, "0.25s"),
            ("-1.5s", -1_500_000_000, "-1.5s"),
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
        ] {
            assert_eq!(parse_duration(text), Some(nanos), "{text}");
            assert_eq!(write_duration(nanos), again);
        }
        for text in ["", "s", "1", "1x", "1h-5m", "99999999999999h", "."] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn parts_count_as_the_specification_says() {
        // A Friday.
        let time = Timestamp::parse("2009-02-13T23:31:30.123Z").unwrap();
        let parts = [
            ("getFullYear", 2009),
            ("getMonth", 1),
            ("getDate", 13),
            ("getDayOfMonth", 12),
            ("getDayOfWeek", 5),
            ("getDayOfYear", 43),
            ("getHours", 23),
            ("getMinutes", 31),
            ("getSeconds", 30),
            ("getMilliseconds", 123),
        ];
        for (name, value) in parts {
            assert_eq!(TimePart::named(name).unwrap().of(time, 0), value, "{name}");
        }
        assert_eq!(TimePart::Date.of(time, parse_offset("+01:00").unwrap()), 14);
    }
}
