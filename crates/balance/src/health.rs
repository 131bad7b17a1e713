//! What is written about the health of a backend's endpoints, and what counts as an outcome.

use std::sync::Arc;
use std::time::Duration;

use crate::evidence::Mark;

/// How a request to an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint did its part, whatever it answered.
    Success,
    /// A 5xx that an application gives: 500, 501, 505 and above.
    ServerError,
    /// 502, 503 or 504: it, or what it depends on, cannot do its part.
    GatewayError,
    /// No connection, no answer in time, a reset, or an answer that is not understood.
    LocalFailure,
    /// It asks for less: 429, or 503 with Retry-After (RFC 6585 §4, RFC 9110 §10.2.3). With the time it asks for, if
    /// any. Neither for nor against its health.
    Throttled(Option<Duration>),
}

impl Outcome {
    /// What a status code says, with the value of Retry-After in seconds.
    #[inline]
    pub fn of_status(status: u16, retry_after: impl FnOnce() -> Option<Duration>) -> Self {
        match status {
            0..=428 | 430..=499 => Self::Success,
            429 => Self::Throttled(retry_after()),
            503 => match retry_after() {
                None => Self::GatewayError,
                after => Self::Throttled(after),
            },
            502 | 504 => Self::GatewayError,
            _ => Self::ServerError,
        }
    }

    /// What a gRPC status says: as the HTTP status that stands for it (gRPC's mapping of status codes).
    pub fn of_grpc(status: u32) -> Self {
        match status {
            // UNKNOWN, INTERNAL, DATA_LOSS.
            2 | 13 | 15 => Self::ServerError,
            // DEADLINE_EXCEEDED, UNAVAILABLE.
            4 | 14 => Self::GatewayError,
            // RESOURCE_EXHAUSTED.
            8 => Self::Throttled(None),
            _ => Self::Success,
        }
    }

    /// True when it raises the latency that balancing goes by: failing quickly must not attract requests.
    #[inline]
    pub(crate) fn is_penalised(self) -> bool {
        matches!(self, Self::GatewayError | Self::LocalFailure)
    }

    #[inline]
    pub(crate) fn mark(self) -> Option<Mark> {
        match self {
            Self::Success => Some(Mark::Good),
            Self::ServerError => Some(Mark::Error),
            Self::GatewayError => Some(Mark::Gateway),
            Self::LocalFailure => Some(Mark::Local),
            Self::Throttled(_) => None,
        }
    }
}

/// What is written about the health of endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Detection by requests; `None` is off.
    pub outlier: Option<Outlier>,
    /// How long the share of an endpoint that is new beside others grows. **Default**: zero, which is off.
    pub slow_start: Duration,
    /// When less than this share of the weight is usable, in percent, all endpoints are used: the rest would be
    /// overrun. Zero: never. **Default**: 20.
    pub panic_percent: u8,
    /// True when active checks say whether an endpoint is well, too: one that is not well is not used.
    pub is_checked: bool,
    /// True when an endpoint is used before its first check has ended. **Default**: true.
    pub is_well_at_first: bool,
    /// Our own zone, whose endpoints are asked first; `None` asks all alike.
    pub zone: Option<Arc<str>>,
    /// Requests at a time, of all workers. **Default**: no limit.
    pub max_requests: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            outlier: Some(Outlier::default()),
            slow_start: Duration::ZERO,
            panic_percent: 20,
            is_checked: false,
            is_well_at_first: true,
            zone: None,
            max_requests: None,
        }
    }
}

/// When requests put an endpoint out, and how it comes back.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlier {
    /// Failures of any kind in a row. Zero: not looked at. **Default**: 5.
    pub consecutive_5xx: u8,
    /// 502, 503, 504 and local failures in a row. Zero: not looked at. **Default**: 5.
    pub consecutive_gateway_failures: u8,
    /// Refused, late, reset or broken in a row. Zero: not looked at. **Default**: 3.
    pub consecutive_local_failures: u8,
    /// Failures among the last [`crate::evidence::RECENT`] requests, when peers that fail as often would show so many
    /// only once in [`crate::judge::CHANCE`]. Zero: not looked at. **Default**: 3.
    pub recent_failures: u8,
    /// Failures among the requests of the window, in percent. Zero: not looked at. **Default**: 30.
    pub failure_percent: u8,
    /// An endpoint whose success rate is this many standard deviations below the mean of all is out, in thousandths.
    /// Zero: not looked at. **Default**: 1900.
    pub success_rate_factor: u32,
    /// Requests of the window below which an endpoint is not judged by it. **Default**: 50.
    pub min_requests: u32,
    /// Endpoints with so many requests below which success rates are not compared. **Default**: 5.
    pub min_endpoints: u32,
    /// The time that percentages and rates are about. **Default**: 10 s.
    pub window: Duration,
    /// The first time out. Doubles with each relapse. **Default**: 2 s.
    pub base_ejection: Duration,
    /// The longest time out. **Default**: 5 min.
    pub max_ejection: Duration,
    /// Endpoints that may be out at a time, in percent, one at least, never all. **Default**: 50.
    pub max_ejected_percent: u8,
    /// Requests that have to succeed, one at a time, before the share grows again. **Default**: 3.
    pub probes: u8,
    /// How long the share grows from [`RAMP_START`] to all. **Default**: 10 s.
    pub ramp: Duration,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway_failures: 5,
            consecutive_local_failures: 3,
            recent_failures: 3,
            failure_percent: 30,
            success_rate_factor: 1900,
            min_requests: 50,
            min_endpoints: 5,
            window: Duration::from_secs(10),
            base_ejection: Duration::from_secs(2),
            max_ejection: Duration::from_secs(300),
            max_ejected_percent: 50,
            probes: 3,
            ramp: Duration::from_secs(10),
        }
    }
}

/// The share that a ramp begins with, in percent.
pub const RAMP_START: u32 = 10;

/// How long an endpoint gets less when it asks for less without saying how long.
pub const THROTTLE_DEFAULT: Duration = Duration::from_secs(1);

/// How long it gets less at most, whatever it asks for.
pub const THROTTLE_MAX: Duration = Duration::from_secs(60);

/// The smallest share that asking for less leads to, in percent of the usual one.
pub const THROTTLE_FLOOR: u32 = 6;

/// Successes after which one relapse is forgiven.
pub const SUCCESSES_PER_RELAPSE: u64 = 100;

/// Doublings of the time out that are counted at most.
pub const RELAPSES_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_say_what_an_endpoint_can_do() {
        let second = Some(Duration::from_secs(1));
        for (status, retry_after, outcome) in [
            (200, None, Outcome::Success),
            (404, None, Outcome::Success),
            (429, None, Outcome::Throttled(None)),
            (429, second, Outcome::Throttled(second)),
            (500, second, Outcome::ServerError),
            (502, second, Outcome::GatewayError),
            (503, None, Outcome::GatewayError),
            (503, second, Outcome::Throttled(second)),
            (599, None, Outcome::ServerError),
        ] {
            assert_eq!(Outcome::of_status(status, || retry_after), outcome, "{status}");
        }
    }
}
