//! How it is found out which endpoints of a Backend are well.

use crate::decode::{Decoder, Whole, object};
use crate::diag::Rule;
use crate::scalar::Duration;
use crate::span::Spanned;

object! {
    /// Endpoints that fail requests while others do not are put out for a while, tried with single requests, and taken
    /// back bit by bit.
    pub struct OutlierDetection as "outlierDetection" {
        /// Whether requests are watched. Default: yes.
        "enabled" enabled: Option<Spanned<bool>>,
        /// Failed requests in a row (any 5xx, or no answer). 0: not looked at. Default: 5.
        "consecutive5xx" consecutive_5xx: Option<Spanned<Whole<0, 255>>>,
        /// 502, 503, 504 or no answer in a row. 0: not looked at. Default: 5.
        "consecutiveGatewayFailures" consecutive_gateway_failures: Option<Spanned<Whole<0, 255>>>,
        /// Refused, late, reset or broken attempts in a row. 0: not looked at. Default: 3.
        "consecutiveLocalFailures" consecutive_local_failures: Option<Spanned<Whole<0, 255>>>,
        /// Failures among the last ten requests, when endpoints that fail as often as its peers do would show so many only
        /// once in 100000 requests. 0: not looked at. Default: 3.
        "recentFailures" recent_failures: Option<Spanned<Whole<0, 10>>>,
        /// Failures among the requests of the window, in percent, when peers fail less than half as often. 0: not looked at.
        /// Default: 30.
        "failurePercentage" failure_percentage: Option<Spanned<Whole<0, 100>>>,
        /// Standard deviations, in thousandths, that a success rate may be below the mean of all. 0: not looked at.
        /// Default: 1900.
        "successRateFactor" success_rate_factor: Option<Spanned<Whole<0, 100000>>>,
        /// Requests of an endpoint within the window, from which percentage and success rate are looked at. Default: 50.
        "minRequests" min_requests: Option<Spanned<Whole<1, 1000000>>>,
        /// Endpoints with so many requests, from which success rates are compared. Default: 5.
        "minEndpoints" min_endpoints: Option<Spanned<Whole<2, 10000>>>,
        /// The time that percentage and success rate are about. Default: 10s.
        "window" window: Option<Spanned<Duration>>,
        /// The first time out; it doubles with each relapse. Default: 2s.
        "ejectionTime" ejection_time: Option<Spanned<Duration>>,
        /// The longest time out. Default: 5m.
        "maxEjectionTime" max_ejection_time: Option<Spanned<Duration>>,
        /// Endpoints that may be out at a time, in percent; one may, and never all. 0: none. Default: 50.
        "maxEjectedPercentage" max_ejected_percentage: Option<Spanned<Whole<0, 100>>>,
        /// Requests that have to succeed, one at a time, before an endpoint is taken back. Default: 3.
        "probeRequests" probe_requests: Option<Spanned<Whole<1, 100>>>,
        /// How long its share grows then, from a tenth to all of it. Default: 10s.
        "ramp" ramp: Option<Spanned<Duration>>,
    }
    check OutlierDetection::check;
}

impl OutlierDetection {
    fn check(&self, cx: &mut Decoder<'_>) {
        if let (Some(first), Some(longest)) = (&self.ejection_time, &self.max_ejection_time)
            && first.get() > longest.get()
        {
            let diag = cx
                .error(Rule::Conflict, first.span, "`ejectionTime` is longer than `maxEjectionTime`")
                .fix("make the first time out the shorter one")
                .related(cx.origin(longest.span), "the longest");
            cx.push(diag);
        }
    }
}
