//! How much in how long, as users write it: `100/m`.

use std::time::Duration;

use rhumb_base::unit::parse_duration;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::Invalid;

/// Most requests of a period.
pub(crate) const REQUESTS_MAX: u64 = u32::MAX as u64;

/// The longest period. **Unit**: nanoseconds (31 days).
pub(crate) const PERIOD_MAX: u64 = 31 * 86_400 * 1_000_000_000;

/// Shortest time between two, on average. **Unit**: nanoseconds. Shorter ones would be rounded to it.
const INTERVAL_MIN: u64 = 100;

/// A rate: text such as `100/m`, or its parts.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RateSpec {
    /// How many, `/`, and a unit (s, m, h, d) or a duration: `100/m`, `5/30s`.
    Text(String),
    /// The same in parts.
    Parts {
        /// How many. At most 4294967295.
        requests: u64,
        /// In how long: a duration such as 1m or 24h, at most 31 days.
        per: String,
    },
}

/// So many in that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) requests: u64,
    pub(crate) period: Duration,
}

impl Rate {
    pub(crate) fn nanos(&self) -> u64 {
        crate::keyed::nanos(self.period)
    }

    /// Reads a rate.
    pub(crate) fn read(field: &str, spec: &RateSpec) -> Result<Self, Invalid> {
        let fix = "write how many and in how long: 100/m, 5/30s";
        let (requests, per) = match spec {
            RateSpec::Text(text) => text
                .split_once('/')
                .and_then(|(requests, per)| Some((requests.trim().parse().ok()?, per.trim())))
                .ok_or_else(|| Invalid::new(field, format!("`{text}` is no rate"), fix))?,
            RateSpec::Parts { requests, per } => (*requests, per.as_str()),
        };
        let period = period(per).ok_or_else(|| Invalid::new(field, format!("`{per}` is no period"), fix))?;
        let rate = Self { requests, period };
        if !(1..=REQUESTS_MAX).contains(&requests) {
            let fix = "to refuse everything use `authorization` or `directResponse`";
            return Err(Invalid::new(field, format!("a limit is 1 to {REQUESTS_MAX}"), fix));
        }
        if rate.nanos() > PERIOD_MAX {
            return Err(Invalid::new(field, "a period has at most 31 days", "use the policy `quota`"));
        }
        if rate.nanos() / requests < INTERVAL_MIN {
            return Err(Invalid::new(field, "is more than 10 million per second", "leave the limit out"));
        }
        Ok(rate)
    }
}

/// A unit (s, m, h, d) or a duration.
pub(crate) fn period(text: &str) -> Option<Duration> {
    let seconds = match text {
        "s" | "second" => 1,
        "m" | "minute" => 60,
        "h" | "hour" => 3600,
        "d" | "day" => 86_400,
        _ => return parse_duration(text).ok().filter(|period| !period.is_zero()),
    };
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_how_many_in_how_long() {
        let read = |text: &str| Rate::read("limit", &RateSpec::Text(text.into()));
        for (text, requests, millis) in
            [("100/m", 100, 60_000), ("5/30s", 5, 30_000), ("1/d", 1, 86_400_000), ("10 / 500ms", 10, 500)]
        {
            let period = Duration::from_millis(millis);
            assert_eq!(read(text), Ok(Rate { requests, period }), "{text}");
        }
        for text in
            ["", "100", "/m", "0/m", "-1/m", "1.5/s", "1/w", "1/0s", "20000000/s", "1/9999h", "5000000000/h"]
        {
            let invalid = read(text).unwrap_err();
            assert!(!invalid.fix.is_empty(), "{text}: {invalid}");
        }
    }
}
