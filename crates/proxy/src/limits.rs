//! How long an exchange and its parts may take, and what is left of that: deadlines that shrink from hop to hop.
//!
//! `grpc-timeout` and `x-request-deadline` say how much time the caller still has, not until when: clocks of different
//! machines need not agree. Both are written anew for every attempt with what is left then.

use std::time::{Duration, Instant};

use rhumb_base::failure::{Cause, Failure, Retry};
use rhumb_base::unit::parse_duration;
use rhumb_codec::field::Known;
use rhumb_codec::head::RequestHead;
use rhumb_net::timer::{TICK, Timer};
use rhumb_plan::rule::{DEFAULT_REQUEST_TIMEOUT, DEFAULT_STREAM_IDLE, DEFAULT_TUNNEL_IDLE};
use rhumb_plan::{Timeouts, WeightedBackend};

/// Longest time that is told to the next hop; a caller that has more is as good as patient.
const LONGEST_TOLD: Duration = Duration::from_secs(99_999);

/// The deadlines of one exchange.
pub(crate) struct Limits {
    /// The whole exchange must be over.
    total: Option<Instant>,
    /// `total` is the caller's deadline, not a limit of ours.
    is_callers: bool,
    /// One attempt, to the end of its response.
    attempt: Option<Duration>,
    /// One attempt, to the head of its response.
    per_try: Option<Duration>,
    connect: Option<Duration>,
    head: Option<Duration>,
    idle: Option<Duration>,
    tunnel_idle: Option<Duration>,
    /// The whole exchange, tunnels included.
    stream: Option<Instant>,
    /// The request must have come to its end.
    upload: Option<Instant>,
}

impl Limits {
    /// `told` is what the caller has left, counted from `started`.
    pub(crate) fn new(
        chosen: &WeightedBackend,
        told: Option<Duration>,
        started: Instant,
        upload: Option<Duration>,
    ) -> Self {
        let timeouts: &Timeouts = &chosen.timeouts;
        let limit = |written: Option<Duration>, default: Option<Duration>| match written {
            Some(Duration::ZERO) => None,
            Some(written) => Some(written),
            None => default,
        };
        let at = |limit: Option<Duration>| limit.and_then(|limit| started.checked_add(limit));
        let (own, callers) = (at(limit(timeouts.request, None)), at(told));
        let is_callers = callers.is_some_and(|callers| own.is_none_or(|own| callers < own));
        let attempt = limit(timeouts.backend_request, None);
        Self {
            total: if is_callers { callers } else { own },
            is_callers,
            attempt,
            per_try: shorter(attempt, chosen.retry.per_try),
            connect: timeouts.connect,
            head: if timeouts.request.is_some() { None } else { Some(DEFAULT_REQUEST_TIMEOUT) },
            idle: limit(timeouts.idle, Some(DEFAULT_STREAM_IDLE)),
            tunnel_idle: limit(timeouts.idle, Some(DEFAULT_TUNNEL_IDLE)),
            stream: at(limit(timeouts.stream, None)),
            upload: at(upload),
        }
    }

    /// True when an attempt may begin after this wait: there is time for it to come to an end.
    pub(crate) fn has_time(&self, now: Instant, wait: Duration) -> bool {
        let begins = now + wait;
        let ends = [self.total, self.stream].into_iter().flatten();
        ends.min().is_none_or(|end| end.saturating_duration_since(begins) >= TICK)
    }

    /// What an attempt that begins has, if that is limited.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        shorter(self.total.map(|total| total.saturating_duration_since(now)), self.per_try)
    }

    /// The failure when the time for the whole exchange is over: whose time it was says who is to blame.
    pub(crate) fn over(&self) -> Cause {
        if self.is_callers { Cause::DeadlineExceeded } else { Cause::BackendTimeout }
    }

    /// While connecting, which has a limit of its own besides.
    pub(crate) fn set_for_connect(&self, timer: &mut Timer, begun: Instant) {
        let step = shorter(self.connect, self.per_try);
        set(timer, [self.total, step.map(|step| begun + step), self.stream]);
    }

    /// The failure when connecting took too long: nothing was sent, so it may be tried elsewhere.
    pub(crate) fn late_to_connect(&self) -> Result<Failure, Cause> {
        if self.is_over() {
            Err(self.over())
        } else {
            Ok(Failure::new(Cause::ConnectTimeout).retry(Retry::IfNotProcessed))
        }
    }

    /// While waiting for a response head: `moved` is when something last did, `uploads` while content is on its way.
    pub(crate) fn set_for_head(&self, timer: &mut Timer, begun: Instant, moved: Instant, uploads: bool) {
        let step = if uploads { self.idle } else { self.head };
        let attempt = self.per_try.map(|attempt| begun + attempt);
        let ends = if uploads { shorter(self.ends(), self.upload) } else { self.ends() };
        set(timer, [ends, attempt, step.map(|step| moved + step)]);
    }

    /// True when the request should have come to its end.
    pub(crate) fn is_upload_over(&self) -> bool {
        self.upload.is_some_and(|end| Instant::now() >= end)
    }

    /// True when the time for the whole exchange is over.
    pub(crate) fn is_over(&self) -> bool {
        self.ends().is_some_and(|end| Instant::now() >= end)
    }

    pub(crate) fn set_for_content(&self, timer: &mut Timer, begun: Instant, moved: Instant, is_tunnel: bool) {
        if is_tunnel {
            // A tunnel's life is its own: the request timeout was for opening it.
            set(timer, [self.stream, self.tunnel_idle.map(|idle| moved + idle), None]);
        } else {
            let attempt = self.attempt.map(|attempt| begun + attempt);
            set(timer, [self.ends(), attempt, self.idle.map(|idle| moved + idle)]);
        }
    }

    /// Why content took too long.
    pub(crate) fn late_with_content(&self, begun: Instant, is_tunnel: bool) -> Cause {
        let now = Instant::now();
        if self.stream.is_some_and(|end| now >= end) {
            Cause::LifetimeOver
        } else if !is_tunnel && self.total.is_some_and(|total| now >= total) {
            self.over()
        } else if !is_tunnel && self.attempt.is_some_and(|attempt| now >= begun + attempt) {
            Cause::BackendTimeout
        } else {
            Cause::IdleTimeout
        }
    }

    /// The wait before an attempt.
    pub(crate) fn set_for_wait(timer: &mut Timer, now: Instant, wait: Duration) {
        timer.set(now + wait);
    }

    fn ends(&self) -> Option<Instant> {
        shorter(self.total, self.stream)
    }
}

fn shorter<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn set(timer: &mut Timer, deadlines: [Option<Instant>; 3]) {
    match deadlines.into_iter().flatten().min() {
        Some(deadline) => timer.set(deadline),
        None => timer.clear(),
    }
}

/// What the caller says it has left. A request of gRPC says it in grpc-timeout, everything else in x-request-deadline,
/// which strangers cannot set (see `fields`). What cannot be read says nothing.
pub(crate) fn told(req: &RequestHead, is_grpc: bool) -> Option<Duration> {
    if is_grpc && let Some(value) = req.fields.get_only(Known::GrpcTimeout) {
        return read_grpc_timeout(value);
    }
    let value = req.fields.get_only(Known::XRequestDeadline)?;
    parse_duration(std::str::from_utf8(value).ok()?.trim_ascii()).ok()
}

/// Tells the next hop what is left.
pub(crate) fn tell(req: &mut RequestHead, is_grpc: bool, left: Duration) {
    let left = left.min(LONGEST_TOLD);
    let mut text = Digits::default();
    // Rounded down: the next hop must give up before this one does. Both formats hold five digits and more.
    match (left.as_millis(), is_grpc) {
        (ms @ 0..=99_999, true) => text.put(ms, b"m"),
        (ms @ 0..=99_999, false) => text.put(ms, b"ms"),
        (_, true) => text.put(left.as_secs().into(), b"S"),
        (_, false) => text.put(left.as_secs().into(), b"s"),
    }
    if is_grpc {
        req.fields.set(Known::GrpcTimeout, text.as_bytes());
        req.fields.remove(Known::XRequestDeadline);
    } else {
        req.fields.set(Known::XRequestDeadline, text.as_bytes());
    }
}

/// `TimeoutValue TimeoutUnit` of gRPC over HTTP/2: at most 8 digits and one of H, M, S, m, u, n.
fn read_grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// A short number with its unit.
#[derive(Default)]
pub(crate) struct Digits {
    bytes: [u8; 12],
    len: usize,
}

impl Digits {
    /// Writes a number of at most ten digits, and its unit.
    pub(crate) fn put(&mut self, mut number: u128, unit: &[u8]) {
        let mut digits = [0; 10];
        let mut from = digits.len();
        for slot in digits.iter_mut().rev() {
            *slot = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
            from -= 1;
            if number == 0 {
                break;
            }
        }
        let all = digits.get(from..).unwrap_or_default().iter().chain(unit);
        self.len = 0;
        for (to, byte) in self.bytes.iter_mut().zip(all) {
            *to = *byte;
            self.len += 1;
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_callers_have_are_read() {
        for (text, ms) in [
            ("1S", Some(1_000)),
            ("99999999n", Some(99)),
            ("100m", Some(100)),
            ("2M", Some(120_000)),
            ("1H", Some(3_600_000)),
            ("5000u", Some(5)),
            ("", None),
            ("S", None),
            ("123456789m", None),
            ("1s", None),
            ("-1S", None),
            ("1.5S", None),
        ] {
            assert_eq!(read_grpc_timeout(text.as_bytes()).map(|time| time.as_millis()), ms, "{text}");
        }
    }

    #[test]
    fn what_is_told_is_understood_and_never_more() {
        for ms in [0, 1, 999, 15_000, 99_999, 100_000, 3_600_123, u64::MAX] {
            let left = Duration::from_millis(ms);
            for is_grpc in [false, true] {
                let mut req = RequestHead::new();
                tell(&mut req, is_grpc, left);
                let read = told(&req, is_grpc).unwrap();
                assert!(
                    read <= left && (read == left.min(LONGEST_TOLD) || left.as_secs() >= 100),
                    "{ms}: {read:?}"
                );
            }
        }
        let mut req = RequestHead::new();
        tell(&mut req, false, Duration::from_micros(1_500_900));
        assert_eq!(req.fields.get_only(Known::XRequestDeadline), Some(&b"1500ms"[..]));
        tell(&mut req, true, Duration::from_micros(900));
        assert_eq!(req.fields.get_only(Known::GrpcTimeout), Some(&b"0m"[..]));
        assert!(!req.fields.has(Known::XRequestDeadline));
    }
}
