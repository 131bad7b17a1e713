//! Periods of time that quotas are counted in.

use std::time::Duration;

/// Parts that a rolling period is counted in, beside the one that has begun.
const PARTS: u64 = 60;

/// The longest rolling period. **Unit**: seconds (366 days).
const ROLLING_MAX: u64 = 366 * DAY;

const DAY: u64 = 86_400;
const NANOS: u64 = 1_000_000_000;

/// A period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Period {
    /// By the calendar.
    Calendar(Unit),
    /// The latest so many seconds.
    Rolling(u64),
}

/// A period of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Grows with time.
    pub(crate) number: u64,
    /// How many parts make a period.
    pub(crate) parts: u64,
    /// When it ends. **Unit**: nanoseconds since 1970.
    pub(crate) end: u64,
}

impl Period {
    /// Reads a period: `hour`, `day`, `week`, `month`, `year`, or how many of them.
    pub(crate) fn parse(text: &str, is_rolling: bool) -> Option<Self> {
        let (unit, seconds) = match text {
            "h" | "hour" => (Unit::Hour, 3600),
            "d" | "day" => (Unit::Day, DAY),
            "w" | "week" => (Unit::Week, 7 * DAY),
            "month" => (Unit::Month, 30 * DAY),
            "y" | "year" => (Unit::Year, 365 * DAY),
            _ => {
                let digits = text.bytes().take_while(u8::is_ascii_digit).count();
                let (number, unit) = text.split_at(digits);
                let unit = match unit {
                    "m" => 60,
                    "h" => 3600,
                    "d" => DAY,
                    _ => return None,
                };
                let seconds = number.parse::<u64>().ok()?.checked_mul(unit)?;
                return (60..=ROLLING_MAX).contains(&seconds).then_some(Self::Rolling(seconds));
            }
        };
        Some(if is_rolling { Self::Rolling(seconds) } else { Self::Calendar(unit) })
    }

    /// Its name in stores: what has the same name is counted together.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Calendar(Unit::Hour) => "hour".into(),
            Self::Calendar(Unit::Day) => "day".into(),
            Self::Calendar(Unit::Week) => "week".into(),
            Self::Calendar(Unit::Month) => "month".into(),
            Self::Calendar(Unit::Year) => "year".into(),
            Self::Rolling(seconds) => format!("{seconds}s"),
        }
    }

    /// About how long it is.
    pub(crate) fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Calendar(Unit::Hour) => 3600,
            Self::Calendar(Unit::Day) => DAY,
            Self::Calendar(Unit::Week) => 7 * DAY,
            Self::Calendar(Unit::Month) => 30 * DAY,
            Self::Calendar(Unit::Year) => 365 * DAY,
            Self::Rolling(seconds) => seconds,
        })
    }

    /// The part that a point in time is in, where clocks are `offset` seconds ahead of UTC.
    pub(crate) fn at(self, unix_nanos: u64, offset: i64) -> Part {
        let utc = unix_nanos / NANOS;
        let local = utc.saturating_add_signed(offset);
        let days = local / DAY;
        let (number, end, parts) = match self {
            Self::Rolling(seconds) => {
                let length = seconds.div_ceil(PARTS);
                (utc / length, (utc / length + 1) * length, PARTS + 1)
            }
            Self::Calendar(Unit::Hour) => (local / 3600, (local / 3600 + 1) * 3600, 1),
            Self::Calendar(Unit::Day) => (days, (days + 1) * DAY, 1),
            // 1970 began on a Thursday, and weeks begin on Monday (ISO 8601).
            Self::Calendar(Unit::Week) => {
                let week = (days + 3) / 7;
                (week, ((week + 1) * 7 - 3) * DAY, 1)
            }
            Self::Calendar(Unit::Month) => {
                let (year, month) = year_and_month(days);
                let next = if month == 12 { days_before(year + 1, 1) } else { days_before(year, month + 1) };
                (year * 12 + month, next * DAY, 1)
            }
            Self::Calendar(Unit::Year) => {
                let (year, _) = year_and_month(days);
                (year, days_before(year + 1, 1) * DAY, 1)
            }
        };
        let end = if let Self::Rolling(_) = self { end } else { end.saturating_add_signed(-offset) };
        Part { number, parts, end: end.saturating_mul(NANOS) }
    }
}

/// Year and month (1 to 12) of a day, counted from 1970-01-01. Years are counted from March, so that leap days come last:
/// 400 of them always have 146097 days.
fn year_and_month(days: u64) -> (u64, u64) {
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let year = era * 400 + year;
    if month < 10 { (year, month + 3) } else { (year + 1, month - 9) }
}

/// Days from 1970-01-01 to the first of a month.
fn days_before(year: u64, month: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year / 400, year % 400);
    let day = (153 * month + 2) / 5 + of_era * 365 + of_era / 4 - of_era / 100;
    era * 146_097 + day - 719_468
}

/// Seconds that a place is ahead of UTC: `Z`, `+02:00`, `-05:30`.
pub(crate) fn offset(text: &str) -> Option<i64> {
    if text == "Z" || text == "UTC" {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two = |text: &str| (text.len() == 2).then(|| text.parse::<u8>().ok()).flatten();
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours <= 14 && minutes < 60).then_some(sign * (i64::from(hours) * 3600 + i64::from(minutes) * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-02-29T23:30:00Z, a Thursday.
    const LEAP_DAY: u64 = 1_709_249_400;

    #[test]
    fn periods_end_where_the_calendar_says() {
        let end = |unit, at: u64, offset| Period::Calendar(unit).at(at * NANOS, offset).end / NANOS;
        assert_eq!(end(Unit::Hour, LEAP_DAY, 0), LEAP_DAY + 1800);
        assert_eq!(end(Unit::Day, LEAP_DAY, 0), LEAP_DAY + 1800);
        assert_eq!(end(Unit::Month, LEAP_DAY, 0), LEAP_DAY + 1800);
        // Monday, 4 March.
        assert_eq!(end(Unit::Week, LEAP_DAY, 0), LEAP_DAY + 1800 + 3 * DAY);
        // 2025-01-01.
        assert_eq!(end(Unit::Year, LEAP_DAY, 0), 1_735_689_600);
        // An hour east of Greenwich it is March already.
        assert_eq!(end(Unit::Day, LEAP_DAY, 3600), LEAP_DAY + 1800 + 23 * 3600);
        assert_eq!(end(Unit::Month, LEAP_DAY, 3600), LEAP_DAY + 1800 + 31 * DAY - 3600);
        assert_eq!(end(Unit::Hour, LEAP_DAY, 19_800), LEAP_DAY + 3600);
    }

    #[test]
    fn every_day_of_400_years_is_in_the_period_that_it_should_be() {
        let mut last = [0; 4];
        for day in 0..146_097 {
            let at = day * DAY * NANOS;
            for (unit, last) in [Unit::Day, Unit::Week, Unit::Month, Unit::Year].into_iter().zip(&mut last) {
                let part = Period::Calendar(unit).at(at, 0);
                assert!(part.end > at && part.number >= *last);
                let next = Period::Calendar(unit).at(part.end, 0);
                assert_eq!(next.number, part.number + 1, "{unit:?} {day}");
                assert_eq!(Period::Calendar(unit).at(part.end - 1, 0), part);
                *last = part.number;
            }
            let (year, month) = year_and_month(day);
            assert!(days_before(year, month) <= day);
        }
    }

    #[test]
    fn periods_are_named_or_measured() {
        for (text, is_rolling, period) in [
            ("day", false, Period::Calendar(Unit::Day)),
            ("month", true, Period::Rolling(30 * DAY)),
            ("30d", false, Period::Rolling(30 * DAY)),
            ("90m", false, Period::Rolling(5400)),
        ] {
            assert_eq!(Period::parse(text, is_rolling), Some(period), "{text}");
        }
        for text in ["", "minute", "30s", "400d", "99999999999999999999d", "d30", "1 d"] {
            assert_eq!(Period::parse(text, false), None, "{text}");
        }
        let part = Period::Rolling(3600).at(7200 * NANOS, 5400);
        assert_eq!(part, Part { number: 120, parts: 61, end: 7260 * NANOS });
    }

    #[test]
    fn offsets_are_hours_and_minutes() {
        assert_eq!(["Z", "+02:00", "-05:30"].map(offset), [Some(0), Some(7200), Some(-19_800)]);
        assert_eq!(["", "2", "+2:00", "+15:00", "+01:60", "Europe/Berlin"].map(offset), [None; 6]);
    }
}
