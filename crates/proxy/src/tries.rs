//! Whether a request is sent again: what has failed, what may be repeated, and what is left of the budgets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_balance::set::Member;
use rhumb_balance::{Endpoint, Nanos};
use rhumb_base::failure::{Cause, Failure, Retry as Repeat};
use rhumb_codec::field::Known;
use rhumb_codec::head::{RequestHead, ResponseHead};
use rhumb_plan::Backend;
use rhumb_policy::{On, Retry};
use rhumb_telemetry::record::RETRY_REASONS_MAX;
use rhumb_telemetry::{Metric, Note, RetryReason};

use crate::exchange::Exchange;
use crate::limits::{Digits, Limits};
use crate::retry_after;

/// The attempts of one exchange.
pub(crate) struct Tries<'a> {
    retry: &'a Retry,
    /// Endpoints that failed this request.
    pub(crate) tried: Vec<Arc<Endpoint>>,
    /// Retries that were made.
    made: u16,
    /// The request was repeated once because a connection at rest had ended.
    has_replayed: bool,
    /// Retries that are left for the request here and at every hop behind, if anybody counts them.
    left: Option<u16>,
    /// The caller has told what is left, and is told what remains.
    is_told: bool,
    pub(crate) is_grpc: bool,
    /// The method may be repeated (RFC 9110 §9.2.2), or the configuration says that requests may.
    is_repeatable: bool,
}

/// Why another attempt is wanted.
#[derive(Clone, Copy)]
struct Want {
    reason: RetryReason,
    /// The backend may have acted on the request.
    was_seen: bool,
    /// What the response says to wait.
    asked: Option<Duration>,
}

impl Want {
    /// The endpoint has not even taken the connection, and said so at once.
    fn is_refused(&self) -> bool {
        matches!(self.reason, RetryReason::Failure(Cause::ConnectRefused))
    }
}

/// Why one that is wanted is not made, as a label of metrics.
#[derive(Clone, Copy)]
enum Refused {
    Budget,
    Tree,
    Content,
    Time,
    RetryAfter,
}

impl Refused {
    fn name(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Tree => "tree_budget",
            Self::Content => "content_not_kept",
            Self::Time => "deadline",
            Self::RetryAfter => "retry_after",
        }
    }
}

/// The next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Again {
    pub(crate) wait: Duration,
    /// On a connection of its own: the one at rest had ended.
    pub(crate) fresh: bool,
}

impl<'a> Tries<'a> {
    pub(crate) fn new(retry: &'a Retry, req: &RequestHead, is_grpc: bool) -> Self {
        let told = req.fields.get_only(Known::XRhumbRetriesLeft).and_then(read_left);
        // Retries of what no backend has seen do not multiply: the hop in front gets an answer, and that is final. Only
        // rules that repeat more need to be counted.
        let left = told.or_else(|| retry.repeats_processed().then_some(retry.attempts));
        Self {
            retry,
            tried: Vec::new(),
            made: 0,
            has_replayed: false,
            left,
            is_told: told.is_some(),
            is_grpc,
            is_repeatable: retry.non_idempotent || req.method().is_idempotent(),
        }
    }

    /// Request content to keep for another attempt, in bytes. `is_reused` is the connection, `is_h2` its protocol.
    pub(crate) fn keep(&self, is_reused: bool, is_h2: bool) -> usize {
        // Keeping costs a copy: HTTP/1 has no way to say that a request was not processed.
        let transport = is_h2 && self.retry.attempts > 0 || is_reused && self.is_repeatable;
        let written = self.retry.repeats_processed() && (self.is_repeatable || self.repeats_grpc());
        if transport || written { self.retry.body_bytes } else { 0 }
    }

    fn repeats_grpc(&self) -> bool {
        self.is_grpc && self.retry.has_grpc_codes()
    }

    /// Tells the next hop what is left.
    pub(crate) fn tell(&self, req: &mut RequestHead) {
        if let Some(left) = self.left {
            let mut text = Digits::default();
            text.put(left.into(), b"");
            req.fields.set(Known::XRhumbRetriesLeft, text.as_bytes());
        }
    }

    /// Reads what the next hop has left over, and keeps it from everybody else.
    pub(crate) fn learn(&mut self, rsp: &mut ResponseHead) {
        if !rsp.fields.has(Known::XRhumbRetriesLeft) {
            return;
        }
        let over = rsp.fields.get_only(Known::XRhumbRetriesLeft).and_then(read_left);
        if let (Some(left), Some(over)) = (&mut self.left, over) {
            *left = over.min(*left);
        }
        rsp.fields.remove(Known::XRhumbRetriesLeft);
    }

    /// What the caller is told.
    pub(crate) fn over(&self) -> Option<u16> {
        self.left.filter(|_| self.is_told)
    }

    /// Why a response asks for another attempt.
    fn want_of_response(&self, rsp: &ResponseHead, unix_seconds: impl FnOnce() -> u64) -> Option<Want> {
        if !self.retry.looks_at_responses() {
            return None;
        }
        let grpc = rsp.fields.get(Known::GrpcStatus).filter(|_| self.is_grpc);
        let grpc = grpc.and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
        let (reason, was_seen) = match grpc {
            // The backend answered with a status and nothing else. To list it says that the call may be repeated then,
            // as in gRPC's own retries: every call is a POST.
            Some(status) if self.retry.has_grpc_status(status) => (RetryReason::Grpc(status), false),
            _ if self.retry.has_status(rsp.status) => (RetryReason::Status(rsp.status), true),
            _ => return None,
        };
        Some(Want { reason, was_seen, asked: retry_after::read(rsp, unix_seconds) })
    }

    /// Why a failure asks for another attempt.
    fn want_of_failure(&self, failure: Failure) -> Option<Want> {
        let (on, was_seen) = match (failure.retry, failure.cause) {
            (Repeat::IfNotProcessed, Cause::BackendReset) => (On::RefusedStream, false),
            (Repeat::IfNotProcessed, _) => (On::ConnectError, false),
            (_, Cause::BackendReset) => (On::Reset, true),
            (_, Cause::BackendTimeout) => (On::Timeout, true),
            _ => return None,
        };
        let reason = RetryReason::Failure(failure.cause);
        self.retry.is_on(on).then_some(Want { reason, was_seen, asked: None })
    }

    /// Endpoints are there that have not been tried, and are no worse than others. `failed` is the last one.
    fn has_others(&self, backend: &Backend, failed: Option<&Arc<Endpoint>>) -> bool {
        backend.endpoints.load().members().iter().map(Member::endpoint).any(|endpoint| {
            let is_tried = self.tried.iter().chain(failed).any(|tried| Arc::ptr_eq(tried, endpoint));
            !is_tried && endpoint.is_eligible()
        })
    }
}

fn read_left(value: &[u8]) -> Option<u16> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

impl Exchange<'_> {
    /// Whether to try again after a response, which then is not passed on.
    pub(crate) fn again_after_response(
        &mut self,
        tries: &mut Tries<'_>,
        backend: &Backend,
        limits: &Limits,
    ) -> Option<Again> {
        let unix_seconds = || self.worker.unix_nanos(Instant::now()) / 1_000_000_000;
        let want = tries.want_of_response(&self.rsp, unix_seconds)?;
        let wait = self.may_repeat(tries, backend, limits, want)?;
        self.outcome.notes.insert(Note::RetriedOnOtherEndpoint);
        Some(Again { wait, fresh: false })
    }

    /// Whether to try again after a failure without a response.
    pub(crate) fn again_after_failure(
        &mut self,
        tries: &mut Tries<'_>,
        backend: &Backend,
        limits: &Limits,
        failure: Failure,
    ) -> Option<Again> {
        if failure.retry == Repeat::IfConnectionWasReused && !tries.has_replayed && tries.is_repeatable {
            if self.pump.can_replay() {
                // RFC 9112 §9.3.1: the backend closed a connection at rest while the request was on its way. That says
                // nothing about its health, so it costs no budget; and it can happen once only.
                tries.has_replayed = true;
                self.note_retry(RetryReason::Failure(failure.cause));
                self.outcome.notes.insert(Note::RetriedOnFreshConnection);
                return Some(Again { wait: Duration::ZERO, fresh: true });
            }
            self.refuse_retry(backend, Refused::Content);
            return None;
        }
        let want = tries.want_of_failure(failure)?;
        let wait = self.may_repeat(tries, backend, limits, want)?;
        self.outcome.notes.insert(Note::RetriedOnOtherEndpoint);
        Some(Again { wait, fresh: false })
    }

    /// The wait before another attempt, which is paid for; `None` when there is to be none.
    fn may_repeat(
        &mut self,
        tries: &mut Tries<'_>,
        backend: &Backend,
        limits: &Limits,
        want: Want,
    ) -> Option<Duration> {
        if tries.made >= tries.retry.attempts || want.was_seen && !tries.is_repeatable {
            return None;
        }
        let refused = 'refused: {
            if !self.pump.can_replay() {
                break 'refused Refused::Content;
            }
            let has_others = tries.has_others(backend, self.outcome.endpoint.as_ref());
            let back_off = tries.retry.back_off;
            let mut wait = back_off.wait(tries.made, &mut self.worker.rng.borrow_mut());
            match want.asked {
                Some(asked) if asked > tries.retry.max_retry_after => break 'refused Refused::RetryAfter,
                Some(asked) => wait = wait.max(asked),
                // What one endpoint has not seen, another one may get at once.
                None if !want.was_seen && back_off.least.is_zero() && has_others => {
                    wait = Duration::ZERO;
                }
                None => {}
            }
            let now = Instant::now();
            if !limits.has_time(now, wait) {
                break 'refused Refused::Time;
            }
            if tries.left == Some(0) {
                break 'refused Refused::Tree;
            }
            // Who is refused a connection goes on to the next endpoint: nobody has had any work from it, and endpoints that
            // were not tried by this request are not asked more than they would be without the one that is gone. A
            // budget would be used up in no time by one that is gone and cannot be put out.
            let is_redirected = has_others && want.is_refused();
            if !is_redirected && !backend.budget.spend(Nanos::since(self.worker.origin, now)) {
                // What the hop in front would send again would come here: its budget is not for that.
                tries.left = tries.left.map(|_| 0);
                break 'refused Refused::Budget;
            }
            tries.left = tries.left.map(|left| left.saturating_sub(1));
            tries.made += 1;
            self.note_retry(want.reason);
            return Some(wait);
        };
        self.refuse_retry(backend, refused);
        None
    }

    fn note_retry(&mut self, reason: RetryReason) {
        if self.outcome.retries.len() < RETRY_REASONS_MAX {
            self.outcome.retries.push(reason);
        }
    }

    fn refuse_retry(&mut self, backend: &Backend, refused: Refused) {
        match refused {
            Refused::Budget | Refused::Tree => self.outcome.notes.insert(Note::RetryBudgetSpent),
            Refused::Content => self.outcome.notes.insert(Note::ReplayTooLarge),
            Refused::Time | Refused::RetryAfter => {}
        }
        let labels = [backend.name.as_str(), refused.name()];
        self.worker.metrics.borrow_mut().add(Metric::RetriesRefused, &labels, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &[u8], left: Option<&[u8]>) -> RequestHead {
        let mut req = RequestHead::new();
        req.set_method(method);
        if let Some(left) = left {
            req.fields.append(Known::XRhumbRetriesLeft, left);
        }
        req
    }

    fn retry(codes: &[u16]) -> Retry {
        let mut retry = Retry::written();
        retry.set_statuses(codes.iter().copied());
        retry
    }

    #[test]
    fn the_tree_has_what_the_first_hop_gave_it() {
        let (default, written) = (Retry::default(), retry(&[503]));
        for (of, told, left, over) in [
            (&default, None, None, None),
            (&written, None, Some(2), None),
            (&default, Some(&b"5"[..]), Some(5), Some(5)),
            (&written, Some(b"0"), Some(0), Some(0)),
            (&written, Some(b"-1"), Some(2), None),
            (&written, Some(b"99999999"), Some(2), None),
        ] {
            let tries = Tries::new(of, &request(b"GET", told), false);
            assert_eq!((tries.left, tries.over()), (left, over), "{told:?}");
        }
    }

    #[test]
    fn what_a_hop_behind_has_spent_is_gone_and_nobody_else_sees_it() {
        let written = retry(&[503]);
        let mut tries = Tries::new(&written, &request(b"GET", Some(b"3")), false);
        let mut rsp = ResponseHead::with_status(503);
        for (said, left) in [(&b"1"[..], 1), (b"9", 1), (b"none", 1), (b"0", 0)] {
            rsp.fields.set(Known::XRhumbRetriesLeft, said);
            tries.learn(&mut rsp);
            assert!(tries.left == Some(left) && !rsp.fields.has(Known::XRhumbRetriesLeft));
        }
    }

    #[test]
    fn failures_are_told_apart() {
        let written = Retry::written();
        let tries = Tries::new(&written, &request(b"GET", None), false);
        let default = Retry::default();
        let by_default = Tries::new(&default, &request(b"GET", None), false);
        let unseen = |cause| Failure::new(cause).retry(Repeat::IfNotProcessed);
        for (failure, was_seen, is_default) in [
            (unseen(Cause::ConnectRefused), Some(false), true),
            (unseen(Cause::BackendTls), Some(false), true),
            (unseen(Cause::BackendReset), Some(false), true),
            (Cause::BackendReset.into(), Some(true), false),
            (Cause::BackendTimeout.into(), Some(true), false),
            (Cause::ResponseMalformed.into(), None, false),
            (Cause::NoEndpoint.into(), None, false),
        ] {
            assert_eq!(tries.want_of_failure(failure).map(|want| want.was_seen), was_seen, "{failure}");
            assert_eq!(by_default.want_of_failure(failure).is_some(), is_default, "{failure}");
        }
    }

    #[test]
    fn content_is_kept_only_for_what_may_be_repeated() {
        let (default, written) = (Retry::default(), retry(&[503]));
        for (of, method, is_reused, is_h2, keeps) in [
            (&default, &b"GET"[..], false, false, false),
            (&default, b"PUT", true, false, true),
            (&default, b"POST", true, false, false),
            (&default, b"POST", false, true, true),
            (&written, b"PUT", false, false, true),
            (&written, b"POST", false, false, false),
        ] {
            let tries = Tries::new(of, &request(method, None), false);
            assert_eq!(tries.keep(is_reused, is_h2) > 0, keeps);
        }
        let mut any = written;
        any.non_idempotent = true;
        assert!(Tries::new(&any, &request(b"POST", None), false).keep(false, false) > 0);
    }
}
