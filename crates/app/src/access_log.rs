//! The access logs of the configuration, as telemetry opens them.

use rhumb_plan::process::{AccessLog, AccessLogFormat, AccessLogQuery};
use rhumb_telemetry::access_log::{AccessLogConfig, Filter, Format, QueryLog, Sink, StatusClasses};

/// The settings that telemetry takes, from those that were written.
pub(crate) fn config(written: &AccessLog) -> AccessLogConfig {
    AccessLogConfig {
        sink: written.file.clone().map_or(Sink::Stdout, Sink::File),
        format: match written.format {
            AccessLogFormat::Json => Format::Json,
            AccessLogFormat::Combined => Format::Combined,
        },
        query: match written.query {
            AccessLogQuery::Omit => QueryLog::Omitted,
            AccessLogQuery::Redact => QueryLog::Redacted,
        },
        filter: Filter {
            statuses: written.min_status.map(classes_from),
            min_duration: written.min_duration,
            ..Filter::default()
        },
        ..AccessLogConfig::default()
    }
}

/// The class of a status and those above.
fn classes_from(status: u16) -> StatusClasses {
    let first = u8::try_from(status / 100).unwrap_or(u8::MAX);
    (first..=5).fold(StatusClasses::EMPTY, StatusClasses::with)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_least_status_is_its_class_and_those_above() {
        for (least, logged, not_logged) in [(400, 500, 399), (500, 503, 499), (200, 204, 101)] {
            let written = AccessLog { min_status: Some(least), ..AccessLog::default() };
            let statuses = config(&written).filter.statuses.unwrap();
            assert!(statuses.contains(logged) && !statuses.contains(not_logged), "{least}");
        }
        assert!(config(&AccessLog::default()).filter.statuses.is_none());
    }
}
