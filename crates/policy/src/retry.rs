//! When a request is sent to a backend again: a setting, obeyed where requests are forwarded.
//!
//! Only what may be repeated is (RFC 9110 §9.2.2): requests with an idempotent method, those that the backend provably
//! has not processed, and others when `retryNonIdempotent` says so. Content is repeated as far as it was kept.

use std::time::Duration;

use rhumb_base::rng::Rng;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge};
use crate::quantity::{self, Size};

/// Attempts beyond the first when nothing is written.
pub const DEFAULT_ATTEMPTS: u16 = 2;

/// Most attempts beyond the first that can be written.
pub const MAX_ATTEMPTS: u16 = 100;

/// Request content that is kept for another attempt when nothing is written, in bytes.
pub const DEFAULT_BODY: usize = 64 << 10;

/// Most request content that can be kept for another attempt, in bytes.
pub const MAX_BODY: usize = 4 << 20;

/// Longest Retry-After that is waited for when nothing is written.
pub const DEFAULT_MAX_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The least that [`Spec::back_off`] begins with when nothing is written.
pub const DEFAULT_BACK_OFF_BASE: Duration = Duration::from_millis(25);

/// How many times the base the longest wait is when nothing is written.
const DEFAULT_BACK_OFF_FACTOR: u32 = 10;

/// Tries requests again.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// How often at most, beyond the first time: 0 to 100. Default: 2.
    #[serde(default)]
    pub attempts: Option<u16>,
    /// Failures after which a request is tried again. Default: all of them.
    #[serde(default)]
    pub on: Option<Vec<On>>,
    /// Statuses of responses after which it is, 400 to 599. Default: none.
    #[serde(default)]
    pub codes: Vec<u16>,
    /// Statuses of gRPC calls after which they are, when the backend answers with nothing else. To list one says that
    /// calls may be repeated after it. Default: none.
    #[serde(default)]
    pub grpc_codes: Vec<GrpcCode>,
    /// How long to wait before an attempt.
    #[serde(default)]
    pub back_off: Option<BackOffSpec>,
    /// How long one attempt may take until the head of its response. Default: `backendRequest` of the timeouts.
    #[serde(default)]
    pub per_try_timeout: Option<String>,
    /// Longest Retry-After of a response (or gRPC pushback) that is waited for; a response that asks for more goes to the
    /// client as it is. Default: 5s.
    #[serde(default)]
    pub max_retry_after: Option<String>,
    /// Request content that is kept for another attempt; requests with more are not repeated. At most 4Mi. Default: 64Ki.
    #[serde(default)]
    pub body_bytes: Option<Size>,
    /// Repeat requests whose method is not idempotent (POST, PATCH) although they may have been processed. Default: no.
    #[serde(default)]
    pub retry_non_idempotent: bool,
    /// Say in the response field x-rhumb-attempts how many attempts there were. Default: no.
    #[serde(default)]
    pub report_attempts: bool,
}

/// A failure without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum On {
    /// No connection could be made: the request was not sent.
    ConnectError = 1,
    /// The backend said that it has not processed the request (HTTP/2 REFUSED_STREAM, GOAWAY).
    RefusedStream = 2,
    /// The connection or stream ended before the head of a response.
    Reset = 4,
    /// No head of a response within the time for one attempt.
    Timeout = 8,
}

/// A status of gRPC other than OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum GrpcCode {
    /// CANCELLED.
    Cancelled = 1,
    /// UNKNOWN.
    Unknown = 2,
    /// INVALID_ARGUMENT.
    InvalidArgument = 3,
    /// DEADLINE_EXCEEDED.
    DeadlineExceeded = 4,
    /// NOT_FOUND.
    NotFound = 5,
    /// ALREADY_EXISTS.
    AlreadyExists = 6,
    /// PERMISSION_DENIED.
    PermissionDenied = 7,
    /// RESOURCE_EXHAUSTED.
    ResourceExhausted = 8,
    /// FAILED_PRECONDITION.
    FailedPrecondition = 9,
    /// ABORTED.
    Aborted = 10,
    /// OUT_OF_RANGE.
    OutOfRange = 11,
    /// UNIMPLEMENTED.
    Unimplemented = 12,
    /// INTERNAL.
    Internal = 13,
    /// UNAVAILABLE.
    Unavailable = 14,
    /// DATA_LOSS.
    DataLoss = 15,
    /// UNAUTHENTICATED.
    Unauthenticated = 16,
}

/// Waits between attempts: a random time below a bound that doubles ("full jitter").
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackOffSpec {
    /// Bound of the first wait. Default: 25ms.
    #[serde(default)]
    pub base: Option<String>,
    /// Longest bound. Default: ten times the base.
    #[serde(default)]
    pub max: Option<String>,
}

/// When a request is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often at most, beyond the first time.
    pub attempts: u16,
    /// A set of [`On`].
    on: u8,
    /// Statuses from 400 on.
    statuses: [u64; 4],
    /// A set of gRPC statuses.
    grpc: u32,
    /// Waits between attempts.
    pub back_off: BackOff,
    /// One attempt until the head of its response; `None`: as long as an attempt may take at all.
    pub per_try: Option<Duration>,
    /// Longest Retry-After that is waited for.
    pub max_retry_after: Duration,
    /// Request content that is kept, in bytes.
    pub body_bytes: usize,
    /// Repeats what may have been processed, whatever the method.
    pub non_idempotent: bool,
    /// Tells the number of attempts in the response.
    pub reports: bool,
}

impl Default for Retry {
    /// What holds when nothing is written: only what never reached a backend is tried again.
    fn default() -> Self {
        Self { on: On::ConnectError as u8 | On::RefusedStream as u8, ..Self::written() }
    }
}

impl Retry {
    /// What holds when something is written, for everything that is not.
    pub fn written() -> Self {
        Self {
            attempts: DEFAULT_ATTEMPTS,
            on: On::ConnectError as u8 | On::RefusedStream as u8 | On::Reset as u8 | On::Timeout as u8,
            statuses: [0; 4],
            grpc: 0,
            back_off: BackOff::default(),
            per_try: None,
            max_retry_after: DEFAULT_MAX_RETRY_AFTER,
            body_bytes: DEFAULT_BODY,
            non_idempotent: false,
            reports: false,
        }
    }

    /// True when requests are tried again after such a failure.
    #[inline]
    pub fn is_on(&self, failure: On) -> bool {
        self.on & failure as u8 != 0
    }

    /// True when requests are tried again although a backend may have seen them.
    #[inline]
    pub fn repeats_processed(&self) -> bool {
        self.attempts > 0
            && (self.on & (On::Reset as u8 | On::Timeout as u8) != 0 || self.looks_at_responses())
    }

    /// True when the head of a response can be a reason.
    #[inline]
    pub fn looks_at_responses(&self) -> bool {
        self.statuses != [0; 4] || self.grpc != 0
    }

    /// True when gRPC statuses are a reason.
    #[inline]
    pub fn has_grpc_codes(&self) -> bool {
        self.grpc != 0
    }

    /// True when a response with this status is a reason.
    #[inline]
    pub fn has_status(&self, status: u16) -> bool {
        let Some(bit) = status.checked_sub(FIRST_STATUS) else { return false };
        self.statuses.get(usize::from(bit / 64)).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    /// True when this gRPC status is a reason.
    #[inline]
    pub fn has_grpc_status(&self, status: u32) -> bool {
        status < 32 && self.grpc >> status & 1 == 1
    }

    /// Replaces the statuses. Those outside of 400 to 599 are left out.
    pub fn set_statuses(&mut self, statuses: impl IntoIterator<Item = u16>) {
        self.statuses = [0; 4];
        for status in statuses.into_iter().filter(|status| *status <= LAST_STATUS) {
            let Some(bit) = status.checked_sub(FIRST_STATUS) else { continue };
            if let Some(word) = self.statuses.get_mut(usize::from(bit / 64)) {
                *word |= 1 << (bit % 64);
            }
        }
    }

    /// The statuses, in order.
    pub fn statuses(&self) -> impl Iterator<Item = u16> {
        (FIRST_STATUS..=LAST_STATUS).filter(|status| self.has_status(*status))
    }

    /// The gRPC statuses, in order.
    pub fn grpc_statuses(&self) -> impl Iterator<Item = u32> {
        (1..=16).filter(|status| self.has_grpc_status(*status))
    }

    /// The failures, by their names in documents.
    pub fn failures(&self) -> impl Iterator<Item = &'static str> {
        let all = [
            (On::ConnectError, "connectError"),
            (On::RefusedStream, "refusedStream"),
            (On::Reset, "reset"),
            (On::Timeout, "timeout"),
        ];
        all.into_iter().filter(|(on, _)| self.is_on(*on)).map(|(_, name)| name)
    }
}

const FIRST_STATUS: u16 = 400;
const LAST_STATUS: u16 = 599;

/// Waits between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// No wait is shorter.
    pub least: Duration,
    /// Bound of the random part of the first wait; it doubles with each.
    pub base: Duration,
    /// Longest random part.
    pub most: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self::full_jitter(DEFAULT_BACK_OFF_BASE, DEFAULT_BACK_OFF_BASE * DEFAULT_BACK_OFF_FACTOR)
    }
}

impl BackOff {
    /// Anything between nothing and a bound that doubles.
    pub fn full_jitter(base: Duration, most: Duration) -> Self {
        Self { least: Duration::ZERO, base, most: most.max(base) }
    }

    /// Never less than `least`, about as much at first, and up to ten times as much later (GEP-1731 `backoff`).
    pub fn at_least(least: Duration) -> Self {
        Self { least, base: least / 4, most: least * (DEFAULT_BACK_OFF_FACTOR - 1) }
    }

    /// The wait before a retry, `nth` counted from 0.
    pub fn wait(&self, nth: u16, rng: &mut Rng) -> Duration {
        let doubled = 1u32.checked_shl(u32::from(nth)).unwrap_or(u32::MAX);
        let bound = self.base.saturating_mul(doubled).min(self.most);
        let bound = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        // The upper half of the product of two 64-bit numbers: evenly spread below the bound.
        let random = (u128::from(rng.next_u64()) * u128::from(bound)) >> 64;
        self.least + Duration::from_nanos(u64::try_from(random).unwrap_or(0))
    }
}

impl HttpPolicy for Retry {
    const KIND: &'static str = "retry";
    const HOOKS: Hooks = Hooks::NONE;
    const ATTACH: Attach = Attach::FRONT.or(Attach::BACKEND);
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        let mut retry = Self::written();
        if let Some(attempts) = spec.attempts {
            if attempts > MAX_ATTEMPTS {
                let why = format!("{attempts} attempts are more than {MAX_ATTEMPTS}");
                return Err(Invalid::new("attempts", why, "a few are enough: write 1 to 3"));
            }
            retry.attempts = attempts;
        }
        if let Some(on) = spec.on {
            retry.on = on.into_iter().fold(0, |set, on| set | on as u8);
        }
        for (at, code) in spec.codes.iter().enumerate() {
            if !(FIRST_STATUS..=LAST_STATUS).contains(code) {
                let why = format!("{code} is not the status of a failure");
                return Err(Invalid::new(format!("codes[{at}]"), why, "write 400 to 599"));
            }
        }
        retry.set_statuses(spec.codes);
        retry.grpc = spec.grpc_codes.into_iter().fold(0, |set, code| set | 1 << code as u8);
        if let Some(written) = spec.back_off {
            let base = quantity::duration("backOff.base", written.base.as_deref())?;
            let base = base.unwrap_or(DEFAULT_BACK_OFF_BASE);
            let most = quantity::duration("backOff.max", written.max.as_deref())?;
            let most = most.unwrap_or(base * DEFAULT_BACK_OFF_FACTOR);
            if most < base {
                return Err(Invalid::new("backOff.max", "is shorter than `base`", ""));
            }
            retry.back_off = BackOff::full_jitter(base, most);
        }
        retry.per_try = quantity::positive("perTryTimeout", spec.per_try_timeout.as_deref())?;
        if let Some(longest) = quantity::duration("maxRetryAfter", spec.max_retry_after.as_deref())? {
            retry.max_retry_after = longest;
        }
        if let Some(size) = spec.body_bytes {
            let size = size.read("bodyBytes")?;
            retry.body_bytes =
                usize::try_from(size).ok().filter(|size| *size <= MAX_BODY).ok_or_else(|| {
                    Invalid::new("bodyBytes", format!("is more than {MAX_BODY} bytes"), "write 4Mi or less")
                })?;
        }
        (retry.non_idempotent, retry.reports) = (spec.retry_non_idempotent, spec.report_attempts);
        Ok(retry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use serde_json::{Value, json};

    fn compile(body: Value) -> Result<Retry, String> {
        let spec = serde_json::from_value(body).map_err(|error| error.to_string())?;
        compile_alone::<Retry>(spec).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn what_is_written_is_obeyed_and_the_rest_has_its_default() {
        assert_eq!(compile(json!({})).unwrap(), Retry::written());
        let retry = compile(json!({
            "attempts": 5, "on": ["reset"], "codes": [502, 503, 400, 599], "grpcCodes": ["unavailable"],
            "backOff": {"base": "10ms", "max": "1s"}, "perTryTimeout": "2s", "maxRetryAfter": "0s",
            "bodyBytes": "1Mi", "retryNonIdempotent": true, "reportAttempts": true,
        }))
        .unwrap();
        assert_eq!(retry.failures().collect::<Vec<_>>(), ["reset"]);
        assert_eq!(retry.statuses().collect::<Vec<_>>(), [400, 502, 503, 599]);
        assert_eq!(retry.grpc_statuses().collect::<Vec<_>>(), [14]);
        assert_eq!((retry.attempts, retry.body_bytes, retry.max_retry_after), (5, 1 << 20, Duration::ZERO));
        assert!(retry.non_idempotent && retry.reports && retry.repeats_processed());
    }

    #[test]
    fn mistakes_are_refused() {
        for body in [
            json!({"attempts": 101}),
            json!({"codes": [200]}),
            json!({"codes": [600]}),
            json!({"on": ["connectErrors"]}),
            json!({"grpcCodes": ["ok"]}),
            json!({"backOff": {"base": "1s", "max": "10ms"}}),
            json!({"perTryTimeout": "0s"}),
            json!({"perTryTimeout": "2 s"}),
            json!({"bodyBytes": "5Mi"}),
            json!({"retries": 2}),
        ] {
            assert!(compile(body.clone()).is_err(), "{body}");
        }
    }

    #[test]
    fn statuses_at_the_edges_are_told_apart() {
        let mut retry = Retry::written();
        retry.set_statuses([399, 400, 463, 464, 599, 600, u16::MAX]);
        for status in [0, 399, 401, 462, 465, 598, 600, 655, 656, u16::MAX] {
            assert!(!retry.has_status(status), "{status}");
        }
        assert!([400, 463, 464, 599].into_iter().all(|status| retry.has_status(status)));
    }

    #[test]
    fn without_a_word_only_what_was_not_processed_is_repeated() {
        let retry = Retry::default();
        assert!(retry.is_on(On::ConnectError) && retry.is_on(On::RefusedStream));
        assert!(!retry.is_on(On::Reset) && !retry.is_on(On::Timeout) && !retry.repeats_processed());
    }

    #[test]
    fn waits_stay_within_their_bounds_and_use_all_of_them() {
        let mut rng = Rng::new(11);
        for back_off in [
            BackOff::default(),
            BackOff::full_jitter(Duration::from_millis(3), Duration::from_millis(100)),
            BackOff::at_least(Duration::from_millis(100)),
            BackOff::full_jitter(Duration::ZERO, Duration::ZERO),
            BackOff::full_jitter(Duration::from_secs(99_999 * 3600), Duration::from_secs(99_999 * 3600)),
        ] {
            for nth in [0, 1, 2, 5, 31, 32, 63, 64, 100, u16::MAX] {
                let doubled = 1u32.checked_shl(u32::from(nth)).unwrap_or(u32::MAX);
                let bound = back_off.base.saturating_mul(doubled).min(back_off.most);
                let waits: Vec<_> = (0..2000).map(|_| back_off.wait(nth, &mut rng)).collect();
                let all = waits.iter().map(|wait| wait.checked_sub(back_off.least));
                assert!(all.clone().all(|random| random.is_some_and(|random| random <= bound)), "{nth}");
                // Full jitter: the mean is half of the bound.
                let mean = all.flatten().sum::<Duration>() / 2000;
                assert!(mean * 10 <= bound * 6 && mean * 10 >= bound * 4, "{nth}: {mean:?} of {bound:?}");
            }
        }
    }
}
