//! Health of endpoints: what is written, with defaults where nothing is.

use std::sync::Arc;
use std::time::Duration;

use rhumb_balance::{Outlier, Settings};
use rhumb_model::decode::Whole;
use rhumb_model::kind::backend::Backend;
use rhumb_model::kind::health::{CheckType, Initially};
use rhumb_model::scalar::Duration as WrittenDuration;
use rhumb_model::{Doc, Spanned};
use rhumb_plan::active::{self, Check, Probe};

use crate::report::Report;
use crate::settings::positive;

/// What is written about the health of a backend's endpoints.
pub(crate) fn settings(doc: &Doc, spec: &Backend, zone: Option<&Arc<str>>, report: &mut Report) -> Settings {
    let default = Settings::default();
    let written = spec.load_balancing.as_ref().and_then(|balancing| balancing.prefer_same_zone.as_ref());
    let prefers_zone = written.is_none_or(|prefers| prefers.value);
    Settings {
        outlier: outlier(doc, spec, report),
        slow_start: spec.slow_start.as_ref().map_or(default.slow_start, |time| time.get()),
        panic_percent: spec
            .panic_threshold
            .as_ref()
            .map_or(default.panic_percent, |percent| byte(percent.get())),
        is_checked: spec.health.is_some(),
        is_well_at_first: spec.health.as_ref().is_none_or(|health| *health.initially == Initially::Healthy),
        zone: zone.filter(|_| prefers_zone).cloned(),
        max_requests: spec.max_requests.as_ref().map(|limit| u32::try_from(limit.get()).unwrap_or(u32::MAX)),
    }
}

fn outlier(doc: &Doc, spec: &Backend, report: &mut Report) -> Option<Outlier> {
    let default = Outlier::default();
    let Some(written) = &spec.outlier_detection else { return Some(default) };
    if written.enabled.as_ref().is_some_and(|enabled| !enabled.value) {
        return None;
    }
    let mut time = |written: &Option<Spanned<WrittenDuration>>, default: Duration| {
        written.as_ref().map_or(default, |time| positive(doc, time.get(), time.span, default, report))
    };
    let window = time(&written.window, default.window);
    let base_ejection = time(&written.ejection_time, default.base_ejection);
    let max_ejection = time(&written.max_ejection_time, default.max_ejection);
    let count = |written: Option<i64>, default: u8| written.map_or(default, byte);
    let large = |written: Option<i64>, default: u32| {
        written.map_or(default, |number| u32::try_from(number).unwrap_or(default))
    };
    Some(Outlier {
        consecutive_5xx: count(written.consecutive_5xx.as_ref().map(|n| n.get()), default.consecutive_5xx),
        consecutive_gateway_failures: count(
            written.consecutive_gateway_failures.as_ref().map(|n| n.get()),
            default.consecutive_gateway_failures,
        ),
        consecutive_local_failures: count(
            written.consecutive_local_failures.as_ref().map(|n| n.get()),
            default.consecutive_local_failures,
        ),
        recent_failures: count(written.recent_failures.as_ref().map(|n| n.get()), default.recent_failures),
        failure_percent: count(written.failure_percentage.as_ref().map(|n| n.get()), default.failure_percent),
        success_rate_factor: large(
            written.success_rate_factor.as_ref().map(|n| n.get()),
            default.success_rate_factor,
        ),
        min_requests: large(written.min_requests.as_ref().map(|n| n.get()), default.min_requests),
        min_endpoints: large(written.min_endpoints.as_ref().map(|n| n.get()), default.min_endpoints),
        window,
        base_ejection,
        // A first time out beyond the usual longest one is meant.
        max_ejection: max_ejection.max(base_ejection),
        max_ejected_percent: count(
            written.max_ejected_percentage.as_ref().map(|n| n.get()),
            default.max_ejected_percent,
        ),
        probes: count(written.probe_requests.as_ref().map(|n| n.get()), default.probes),
        ramp: written.ramp.as_ref().map_or(default.ramp, |time| time.get()),
    })
}

/// How endpoints are asked whether they are well; nothing when they are not.
pub(crate) fn check(doc: &Doc, spec: &Backend, report: &mut Report) -> Option<Check> {
    let written = spec.health.as_ref()?;
    let text = |field: &Option<Spanned<Box<str>>>, default: &str| -> Box<str> {
        field.as_ref().map_or_else(|| default.into(), |field| field.value.clone())
    };
    let host = || written.host.as_ref().map(|host| host.value.clone());
    let probe = match *written.kind {
        CheckType::Http => Probe::Http {
            method: text(&written.method, "GET"),
            path: text(&written.path, "/"),
            host: host(),
            expected: match &*written.statuses {
                [] => vec![200..=299].into(),
                statuses => statuses.iter().map(|range| range.first..=range.last).collect(),
            },
        },
        CheckType::Tcp => Probe::Tcp {
            send: text(&written.send, "").into_boxed_bytes(),
            expect: text(&written.expect, "").into_boxed_bytes(),
        },
        CheckType::Grpc => Probe::Grpc { service: text(&written.service, ""), host: host() },
    };
    let mut time = |field: &Option<Spanned<WrittenDuration>>, default: Duration| {
        field.as_ref().map_or(default, |time| positive(doc, time.get(), time.span, default, report))
    };
    let count = |field: &Option<Spanned<Whole<1, 100>>>, default: u32| {
        field.as_ref().map_or(default, |count| u32::try_from(count.get()).unwrap_or(default))
    };
    Some(Check {
        probe,
        interval: time(&written.interval, active::DEFAULT_INTERVAL),
        timeout: time(&written.timeout, active::DEFAULT_TIMEOUT),
        healthy_after: count(&written.healthy_threshold, active::DEFAULT_HEALTHY_AFTER),
        unhealthy_after: count(&written.unhealthy_threshold, active::DEFAULT_UNHEALTHY_AFTER),
    })
}

/// A number that the model has kept in range.
fn byte(number: i64) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}
