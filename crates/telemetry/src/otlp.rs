//! Logs and metrics in OpenTelemetry's protocol (OTLP 1.x, protobuf); spans are [`crate::trace`]'s.

mod connection;

use rhumb_codec::protobuf::{Message, Writer};

use crate::metrics::samples::{Sample, Value};
use crate::metrics::{Kind, Registry};
use crate::record::Record;
use crate::signals::Buckets;
use crate::trace::{Resource, attribute, exchange, scoped, text};

/// Log records of finished exchanges and connections, as they go into a request to a collector.
#[derive(Debug, Default)]
pub struct LogBatch {
    records: Vec<u8>,
    count: u32,
}

/// A severity of OpenTelemetry's data model: number and word.
type Severity = (u64, &'static str);

const INFO: Severity = (9, "INFO");
const WARN: Severity = (13, "WARN");
const ERROR: Severity = (17, "ERROR");

impl LogBatch {
    /// How many records are in it.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// True when nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What it takes. **Unit**: bytes.
    pub fn size(&self) -> usize {
        self.records.len()
    }

    /// Adds the record of an exchange or a connection: what the span of an exchange has, or what the access log tells of a
    /// connection, and how long it took.
    pub fn push(&mut self, record: &Record<'_>) {
        let took = u64::try_from(record.timing.total.as_nanos()).unwrap_or(u64::MAX);
        let mut attributes = Writer::new();
        let ((severity, word), body) = if record.protocol.is_l4() {
            connection::attributes(&mut attributes, record);
            (connection::severity(record), connection::body(record))
        } else {
            let method = text(record.method);
            exchange(&mut attributes, record, &method);
            (severity(record), format!("{method} {} {}", record.rule, record.status))
        };
        let mut log = Writer::new();
        log.fixed64(1, record.start_unix_nanos);
        log.number(2, severity);
        log.bytes(3, word.as_bytes());
        log.message(5, |any| any.bytes(1, body.as_bytes()));
        // Field 6 of a LogRecord is what field 9 of a Span is.
        for attribute in Message::new(&attributes.into_bytes()).filter_map(|field| field.ok()?.1.bytes()) {
            log.bytes(6, attribute);
        }
        attribute(&mut log, 6, "rhumb.duration_nanos", |any| any.always_number(3, took));
        if let Some(trace) = record.trace {
            log.bytes(9, &trace.trace_id);
            log.bytes(10, &trace.parent_id);
        }
        log.fixed64(11, record.start_unix_nanos.saturating_add(took));
        let mut framed = Writer::appending(std::mem::take(&mut self.records));
        framed.bytes(2, &log.into_bytes());
        self.records = framed.into_bytes();
        self.count += 1;
    }

    /// The request that hands everything over to a collector (`ExportLogsServiceRequest`), and how many records are in it.
    /// Nothing is left.
    pub fn take(&mut self, resource: &Resource<'_>) -> (Vec<u8>, u32) {
        let count = std::mem::take(&mut self.count);
        (scoped(resource, &mut self.records), count)
    }
}

/// How bad the end of an exchange was.
fn severity(record: &Record<'_>) -> Severity {
    match record.status {
        _ if record.is_error() => ERROR,
        400..=499 => WARN,
        _ => INFO,
    }
}

/// Counts since the process began (`AGGREGATION_TEMPORALITY_CUMULATIVE`).
const CUMULATIVE: u64 = 2;

/// Buckets grow by 2^(2^-1).
const SCALE: u64 = 2; // 1, in zigzag

/// The offset of the second of [`Buckets`]: OTLP names a bucket by its lower bound.
const FIRST_OFFSET: i64 = -26;

/// What is not longer is in the bucket of zero. Unit: seconds.
const ZERO_THRESHOLD: f64 = 0.000_122_070_312_5;

impl Registry {
    /// The request that tells a collector of every metric (`ExportMetricsServiceRequest`), and how many series are in it.
    /// Times since the Unix epoch, in nanoseconds: when the process began, and now.
    pub fn to_otlp(&self, resource: &Resource<'_>, since: u64, now: u64) -> (Vec<u8>, u32) {
        let samples = self.samples();
        let mut metrics = Vec::new();
        let mut rest = samples.as_slice();
        while let Some(first) = rest.first() {
            let length = rest.iter().position(|sample| sample.metric != first.metric).unwrap_or(rest.len());
            let (family, others) = rest.split_at(length);
            rest = others;
            let mut metric = Writer::new();
            write_metric(&mut metric, family, since, now);
            let mut framed = Writer::appending(std::mem::take(&mut metrics));
            framed.bytes(2, &metric.into_bytes());
            metrics = framed.into_bytes();
        }
        let count = u32::try_from(samples.len()).unwrap_or(u32::MAX);
        (scoped(resource, &mut metrics), count)
    }
}

fn write_metric(out: &mut Writer, samples: &[Sample], since: u64, now: u64) {
    let Some(first) = samples.first() else { return };
    let family = first.metric.family();
    out.bytes(1, name(family.name, family.unit).as_bytes());
    out.bytes(2, family.help.as_bytes());
    out.bytes(
        3,
        match family.unit {
            "seconds" => b"s",
            "bytes" => b"By",
            _ => b"1",
        },
    );
    let field = match family.kind {
        Kind::Gauge => 5,
        Kind::Counter => 7,
        Kind::Histogram => 10,
        Kind::Summary => 11,
    };
    out.message(field, |out| {
        for sample in samples {
            out.message(1, |out| point(out, sample, since, now));
        }
        if matches!(family.kind, Kind::Counter | Kind::Histogram) {
            out.number(2, CUMULATIVE);
        }
        if family.kind == Kind::Counter {
            out.number(3, 1);
        }
    });
}

#[allow(clippy::cast_precision_loss)] // a sum of times
fn point(out: &mut Writer, sample: &Sample, since: u64, now: u64) {
    // Attributes have another number in points of histograms.
    let field = if matches!(sample.value, Value::Histogram { .. }) { 1 } else { 7 };
    for (key, value) in &sample.labels {
        attribute(out, field, label(key), |any| any.bytes(1, value.as_bytes()));
    }
    out.fixed64(2, since);
    out.fixed64(3, now);
    match &sample.value {
        Value::Number(number) => out.always_fixed64(4, number.to_bits()),
        Value::Summary { sum, count } => {
            out.fixed64(4, *count);
            out.fixed64(5, sum.to_bits());
        }
        Value::Histogram { nanos, native, .. } => {
            out.fixed64(4, native.count());
            out.always_fixed64(5, (*nanos as f64 / 1e9).to_bits());
            out.number(6, SCALE);
            out.fixed64(7, native.0.first().copied().unwrap_or(0));
            positive(out, native);
            out.fixed64(14, ZERO_THRESHOLD.to_bits());
        }
    }
}

/// The buckets from the first that has something to the last.
fn positive(out: &mut Writer, native: &Buckets) {
    let counts = native.0.get(1..).unwrap_or_default();
    let (Some(begin), Some(end)) =
        (counts.iter().position(|count| *count > 0), counts.iter().rposition(|count| *count > 0))
    else {
        return;
    };
    out.message(8, |out| {
        let offset = FIRST_OFFSET + i64::try_from(begin).unwrap_or(0);
        out.number(1, ((offset << 1) ^ (offset >> 63)).cast_unsigned());
        let mut packed = Vec::new();
        for count in counts.get(begin..=end).unwrap_or_default() {
            crate::metrics::protobuf::put_varint(&mut packed, *count);
        }
        out.bytes(2, &packed);
    });
}

/// The name in OpenTelemetry's conventions, from which that for Prometheus was made.
fn name(name: &str, unit: &str) -> String {
    let base =
        name.strip_suffix(unit).filter(|_| !unit.is_empty()).map_or(name, |base| base.trim_end_matches('_'));
    match base {
        "http_server_request_duration" => "http.server.request.duration".to_owned(),
        "http_server_request_body_size" => "http.server.request.body.size".to_owned(),
        "http_server_response_body_size" => "http.server.response.body.size".to_owned(),
        "http_server_active_requests" => "http.server.active_requests".to_owned(),
        "http_client_request_duration" => "http.client.request.duration".to_owned(),
        _ => base.trim_end_matches("_total").replacen('_', ".", 1),
    }
}

/// The same for a label.
fn label(label: &str) -> &str {
    match label {
        "http_request_method" => "http.request.method",
        "http_response_status_code" => "http.response.status_code",
        "http_route" => "http.route",
        "url_scheme" => "url.scheme",
        "network_protocol_version" => "network.protocol.version",
        "server_listener" => "rhumb.listener",
        "route" => "rhumb.route",
        "backend" => "rhumb.backend",
        "consumer" => "rhumb.consumer",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Note, NoteSet, Protocol, TlsRecord};

    #[test]
    fn names_are_those_of_the_conventions() {
        assert_eq!(name("http_server_request_duration_seconds", "seconds"), "http.server.request.duration");
        assert_eq!(name("rhumb_spans_sent_total", ""), "rhumb.spans_sent");
        assert_eq!(name("process_cpu_seconds_total", "seconds"), "process.cpu_seconds");
    }

    #[test]
    fn a_record_is_one_log_record() {
        let mut batch = LogBatch::default();
        batch.push(&Record { method: b"GET", status: 503, ..Record::default() });
        assert_eq!(batch.len(), 1);
        let resource = Resource { service: "s", instance: "i", version: "v" };
        let (bytes, count) = batch.take(&resource);
        assert!(count == 1 && batch.is_empty() && bytes.windows(5).any(|word| word == b"ERROR"));
    }

    #[test]
    fn a_connection_is_told_without_what_only_requests_have() {
        let told = |record: &Record<'_>| {
            let mut batch = LogBatch::default();
            batch.push(record);
            let (bytes, _) = batch.take(&Resource { service: "s", instance: "i", version: "v" });
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let tls = TlsRecord { sni: b"shop.example", ..TlsRecord::default() };
        let closed = Record {
            protocol: Protocol::Tls,
            route: "default/shop",
            end: "closed",
            endpoint: "10.0.0.1:443",
            notes: NoteSet::EMPTY.with(Note::Spliced),
            tls: Some(tls),
            ..Record::default()
        };
        let text = told(&closed);
        for part in ["INFO", "TLS default/shop closed", "shop.example", "10.0.0.1:443", "spliced"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("http."), "{text}");
        let failed = Record { failure_code: Some("connect_failed"), failure_side: Some("backend"), ..closed };
        assert!(told(&failed).contains("ERROR"));
        let refused = Record { failure_side: Some("client"), ..failed };
        assert!(told(&refused).contains("WARN"));
    }
}
