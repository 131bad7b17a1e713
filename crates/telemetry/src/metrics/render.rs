//! The exposition: Prometheus text format 0.0.4, and OpenMetrics 1.0, which has exemplars.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::exchange::{BOUNDS, Totals};
use super::exemplar::Exemplar;
use super::process::{Process, TICKS_PER_SECOND};
use super::registry::{Key, Names, OTHER, Registry, lock, write_label, write_labels};
use super::times::{COARSE, Times, coarse};
use super::{Kind, Metric};

/// The forms of the exposition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' protocol buffers, delimited, with native histograms.
    Protobuf,
}

impl Format {
    /// The form that a scraper asks for in `Accept` (RFC 9110 §12.5.1). Text for who does not say.
    pub fn accepted(accept: &str) -> Self {
        let weight = |wanted: &str| {
            let weights = accept.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let media = parts.next().filter(|media| media.eq_ignore_ascii_case(wanted))?;
                let mut weight = 1.0;
                for parameter in parts {
                    match parameter.split_once('=') {
                        Some(("q", q)) => weight = q.trim().parse().unwrap_or(0.0),
                        // Others than 1.0 and its forerunner are not spoken here.
                        Some(("version", "1.0.0" | "0.0.1" | "0.0.4")) => {}
                        Some(("version", _)) => return None,
                        Some(("proto", name)) if name != FAMILY => return None,
                        Some(("encoding", encoding)) if encoding != "delimited" => return None,
                        _ => {}
                    }
                }
                (!media.is_empty()).then_some(weight)
            });
            weights.fold(0.0, f64::max)
        };
        let open = weight("application/openmetrics-text");
        let text = weight("text/plain").max(weight("text/*")).max(weight("*/*"));
        let protobuf = weight("application/vnd.google.protobuf");
        match () {
            () if protobuf > 0.0 && protobuf >= open && protobuf >= text => Self::Protobuf,
            () if open > 0.0 && open >= text => Self::OpenMetrics,
            () => Self::Text,
        }
    }

    /// Its media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// The message that is spoken.
const FAMILY: &str = "io.prometheus.client.MetricFamily";

impl Registry {
    /// All metrics in a form.
    pub fn encode(&self, format: Format) -> Vec<u8> {
        if format == Format::Protobuf {
            return self.protobuf();
        }
        let mut text = String::new();
        self.render(format, &mut text);
        text.into_bytes()
    }

    /// Appends all metrics as text; protocol buffers are none.
    ///
    /// A metric without series is left out. Counts of one histogram agree with each other; different series may be from
    /// slightly different moments.
    pub fn render(&self, format: Format, out: &mut String) {
        // Names and totals are copied out, so that no worker waits while text is made.
        let server = lock(&self.server).totals();
        let client = lock(&self.client).totals();
        let exemplars = match format {
            Format::Text | Format::Protobuf => HashMap::new(),
            Format::OpenMetrics => lock(&self.exemplars).clone(),
        };
        let none = HashMap::new();
        let mut page = Page { out, metric: None, format };
        for metric in Metric::ALL {
            match metric {
                Metric::ServerRequestDuration => {
                    self.exchanges(&mut page, metric, &server, write_server, |_| 0, &exemplars)
                }
                Metric::ServerRequestBodySize => {
                    self.exchanges(&mut page, metric, &server, write_server, |totals| totals.bytes_in, &none);
                }
                Metric::ServerResponseBodySize => {
                    self.exchanges(
                        &mut page,
                        metric,
                        &server,
                        write_server,
                        |totals| totals.bytes_out,
                        &none,
                    );
                }
                Metric::ClientRequestDuration => {
                    self.exchanges(&mut page, metric, &client, write_client, |_| 0, &none)
                }
                _ if metric.family().kind == Kind::Histogram => {
                    self.visit_times(metric, &mut |labels, times| page.times(metric, labels, times));
                }
                Metric::Series => self.visit_sizes(&mut |of, len, _| {
                    page.sample(metric, "", &label("metric", of.family().name), len);
                }),
                Metric::SeriesOverflow => self.visit_sizes(&mut |of, _, is_full| {
                    page.sample(metric, "", &label("metric", of.family().name), u8::from(is_full));
                }),
                _ if metric.family().kind == Kind::Gauge => {
                    self.visit_plain(metric, &mut |labels, value| {
                        page.sample(metric, "", labels, value.cast_signed());
                    });
                }
                Metric::L4Time | Metric::StoreTime => self.visit_plain(metric, &mut |labels, micros| {
                    page.start_line(metric, "", labels, "");
                    let (secs, micros) = (micros / 1_000_000, micros % 1_000_000);
                    writeln!(page.out, "{secs}.{micros:06}").unwrap_or_default();
                }),
                _ => self.visit_plain(metric, &mut |labels, value| page.sample(metric, "", labels, value)),
            }
        }
        page.process(&Process::read());
        if format == Format::OpenMetrics {
            page.out.push_str("# EOF\n");
        }
    }

    fn exchanges(
        &self,
        page: &mut Page<'_>,
        metric: Metric,
        series: &[(Key, Totals)],
        write: fn(&mut String, &Names, Key),
        bytes: fn(&Totals) -> u64,
        exemplars: &HashMap<Key, Exemplar>,
    ) {
        let mut labels = String::new();
        for (key, totals) in series {
            labels.clear();
            write(&mut labels, &self.names(), *key);
            match metric.family().kind {
                Kind::Histogram => page.histogram(metric, &labels, totals, exemplars.get(key)),
                _ => {
                    page.sample(metric, "_sum", &labels, bytes(totals));
                    page.sample(metric, "_count", &labels, totals.count());
                }
            }
        }
    }
}

pub(super) fn write_server(out: &mut String, names: &Names, key: Key) {
    let (status, [route, template], listener) = match key.is_overflow() {
        true => (status_text(key), [OTHER; 2], OTHER),
        false => (status_text(key), names.rule(key.id()), names.listener(key.listener())),
    };
    let (method, scheme, version) = match key.is_overflow() {
        true => (key.method(), OTHER, OTHER),
        false => (key.method(), key.scheme().as_str(), key.protocol().version()),
    };
    let values = [listener, route, template, method, &status, scheme, version];
    write_labels(out, Metric::ServerRequestDuration, &values);
}

pub(super) fn write_client(out: &mut String, names: &Names, key: Key) {
    let backend = if key.is_overflow() { OTHER } else { names.backend(key.id()) };
    write_labels(out, Metric::ClientRequestDuration, &[backend, key.method(), &status_text(key)]);
}

// `2xx` still matches the pattern `2..` of a dashboard. No status: the label is empty, which is as if it were absent.
fn status_text(key: Key) -> String {
    match (key.status(), key.is_overflow()) {
        (0, _) => String::new(),
        (class, true) => format!("{class}xx"),
        (status, false) => status.to_string(),
    }
}

fn label(name: &str, value: &str) -> String {
    let mut text = String::new();
    write_label(&mut text, name, value);
    text
}

/// The text so far.
struct Page<'o> {
    out: &'o mut String,
    /// The metric whose head is written.
    metric: Option<Metric>,
    format: Format,
}

impl Page<'_> {
    fn sample(&mut self, metric: Metric, suffix: &str, labels: &str, value: impl itoa::Integer) {
        self.start_line(metric, suffix, labels, "");
        self.out.push_str(itoa::Buffer::new().format(value));
        self.out.push('\n');
    }

    fn histogram(&mut self, metric: Metric, labels: &str, totals: &Totals, exemplar: Option<&Exemplar>) {
        let mut count = 0;
        for (at, in_bucket) in totals.buckets.iter().enumerate() {
            count += in_bucket;
            let bound = match (BOUND_LABELS.get(at).copied(), self.format) {
                (None, _) => "le=\"+Inf\"",
                // OpenMetrics writes numbers as floats, also in this label.
                (Some("le=\"1\""), Format::OpenMetrics) => "le=\"1.0\"",
                (Some("le=\"5\""), Format::OpenMetrics) => "le=\"5.0\"",
                (Some("le=\"10\""), Format::OpenMetrics) => "le=\"10.0\"",
                (Some(bound), _) => bound,
            };
            self.start_line(metric, "_bucket", labels, bound);
            self.out.push_str(itoa::Buffer::new().format(count));
            if let Some(exemplar) = exemplar.filter(|exemplar| exemplar.bucket() == at) {
                exemplar.write(self.out);
            }
            self.out.push('\n');
        }
        self.end_of_histogram(metric, labels, totals.nanos, count);
    }

    /// A histogram with few buckets.
    fn times(&mut self, metric: Metric, labels: &str, times: Times<'_>) {
        let mut count = 0;
        for (at, in_bucket) in coarse(times.buckets).into_iter().enumerate() {
            count += in_bucket;
            let bound = match (COARSE.get(at), self.format) {
                (None, _) => "le=\"+Inf\"",
                (Some((_, _, "le=\"1\"")), Format::OpenMetrics) => "le=\"1.0\"",
                (Some((_, _, "le=\"4\"")), Format::OpenMetrics) => "le=\"4.0\"",
                (Some((_, _, bound)), _) => bound,
            };
            self.start_line(metric, "_bucket", labels, bound);
            self.out.push_str(itoa::Buffer::new().format(count));
            self.out.push('\n');
        }
        self.end_of_histogram(metric, labels, times.nanos, count);
    }

    fn end_of_histogram(&mut self, metric: Metric, labels: &str, nanos: u64, count: u64) {
        self.start_line(metric, "_sum", labels, "");
        let (secs, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
        // A String takes every write.
        writeln!(self.out, "{secs}.{nanos:09}").unwrap_or_default();
        self.sample(metric, "_count", labels, count);
    }

    fn start_line(&mut self, metric: Metric, suffix: &str, labels: &str, last_label: &str) {
        let family = metric.family();
        if self.metric != Some(metric) {
            self.metric = Some(metric);
            let (help, kind) = (family.help, family.kind.as_str());
            // OpenMetrics: the name of a counter's family is without what its samples end with.
            let name = match (self.format, family.kind) {
                (Format::OpenMetrics, Kind::Counter) => family.name.trim_end_matches("_total"),
                _ => family.name,
            };
            writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}").unwrap_or_default();
            if self.format == Format::OpenMetrics && !family.unit.is_empty() {
                writeln!(self.out, "# UNIT {name} {}", family.unit).unwrap_or_default();
            }
        }
        self.out.push_str(family.name);
        self.out.push_str(suffix);
        if !labels.is_empty() || !last_label.is_empty() {
            self.out.push('{');
            self.out.push_str(labels);
            if !labels.is_empty() && !last_label.is_empty() {
                self.out.push(',');
            }
            self.out.push_str(last_label);
            self.out.push('}');
        }
        self.out.push(' ');
    }

    fn process(&mut self, process: &Process) {
        if let Some(ticks) = process.cpu_ticks {
            self.start_line(Metric::ProcessCpu, "", "", "");
            let (secs, hundredths) = (ticks / TICKS_PER_SECOND, ticks % TICKS_PER_SECOND);
            writeln!(self.out, "{secs}.{hundredths:02}").unwrap_or_default();
        }
        let numbers = [
            (Metric::ProcessResident, process.resident),
            (Metric::ProcessVirtual, process.virtual_size),
            (Metric::ProcessOpenFds, process.open_fds),
            (Metric::ProcessMaxFds, process.max_fds),
            (Metric::ProcessThreads, process.threads),
            (Metric::ProcessStart, process.start_unix_secs),
        ];
        for (metric, value) in numbers {
            if let Some(value) = value {
                self.sample(metric, "", "", value);
            }
        }
    }
}

/// The `le` labels of [`BOUNDS`], in seconds.
const BOUND_LABELS: [&str; BOUNDS.len()] = [
    "le=\"0.00025\"",
    "le=\"0.0005\"",
    "le=\"0.001\"",
    "le=\"0.0025\"",
    "le=\"0.005\"",
    "le=\"0.01\"",
    "le=\"0.025\"",
    "le=\"0.05\"",
    "le=\"0.075\"",
    "le=\"0.1\"",
    "le=\"0.25\"",
    "le=\"0.5\"",
    "le=\"0.75\"",
    "le=\"1\"",
    "le=\"2.5\"",
    "le=\"5\"",
    "le=\"7.5\"",
    "le=\"10\"",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Note, NoteSet, Protocol, Record, RetryReason, Scheme, Timing};
    use crate::{AccessLog, AccessLogConfig};
    use rhumb_base::failure::Cause;
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;
    use std::time::Duration;

    /// Reads an exposition as strictly as the format's description is written, and returns its samples.
    fn parse(text: &str) -> BTreeMap<String, f64> {
        let mut samples = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut family = ("", "");
        assert!(text.ends_with('\n'));
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("help has text");
                let kind =
                    lines.next().and_then(|line| line.strip_prefix("# TYPE ")).expect("a type follows");
                let (typed, kind) = kind.split_once(' ').expect("a type has a name and a word");
                assert!(typed == name && !help.is_empty() && seen.insert(name), "{line}");
                assert!(matches!(kind, "counter" | "gauge" | "histogram" | "summary"), "{kind}");
                family = (name, kind);
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').expect("labels end")),
                None => (series, ""),
            };
            let suffix = name.strip_prefix(family.0).expect("a sample stands under its head");
            let suffixes: &[&str] = match family.1 {
                "histogram" => &["_bucket", "_sum", "_count"],
                "summary" => &["_sum", "_count"],
                _ => &[""],
            };
            assert!(suffixes.contains(&suffix), "{line}");
            let names = label_names(labels);
            assert_eq!(suffix == "_bucket", names.contains(&"le"), "{line}");
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{line}");
            let value: f64 = value.parse().expect("a value is a number");
            assert!(family.1 == "gauge" || value >= 0.0, "{line}");
            assert_eq!(samples.insert(series.to_owned(), value), None, "{line} is there twice");
        }
        check_histograms(&samples);
        samples
    }

    fn label_names(mut labels: &str) -> Vec<&str> {
        let mut names = Vec::new();
        while !labels.is_empty() {
            let (name, rest) = labels.split_once("=\"").expect("a label has a value");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            names.push(name);
            let mut escaped = false;
            let end = rest
                .find(|c| {
                    let is_end = c == '"' && !escaped;
                    assert!(!escaped || matches!(c, '\\' | '"' | 'n'), "{rest}");
                    escaped = c == '\\' && !escaped;
                    is_end
                })
                .expect("a value ends");
            labels = &rest[end + 1..];
            labels = labels.strip_prefix(',').unwrap_or(labels);
        }
        names
    }

    fn check_histograms(samples: &BTreeMap<String, f64>) {
        let mut last = BTreeMap::<String, (f64, f64)>::new();
        let mut buckets: Vec<_> = samples
            .iter()
            .filter_map(|(series, count)| {
                let (rest, bound) = series.strip_suffix("\"}")?.rsplit_once("le=\"")?;
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
                Some((rest.trim_end_matches([',', '{']).replacen("_bucket", "_count", 1), bound, *count))
            })
            .collect();
        buckets.sort_by(|a, b| a.1.total_cmp(&b.1));
        for (series, bound, count) in buckets {
            let before = last.insert(series.clone(), (bound, count));
            assert!(before.is_none_or(|(_, lower)| lower <= count), "{series}");
        }
        for (series, (bound, count)) in last {
            let total = samples.get(&series).or_else(|| samples.get(&format!("{series}}}")));
            assert_eq!((bound, total), (f64::INFINITY, Some(&count)), "{series}");
        }
    }

    fn rendered(registry: &Registry) -> BTreeMap<String, f64> {
        let mut text = String::new();
        registry.render(Format::Text, &mut text);
        parse(&text)
    }

    fn ok() -> Record<'static> {
        Record {
            method: b"GET",
            scheme: Scheme::Https,
            protocol: Protocol::Http2,
            status: 200,
            upstream_status: Some(200),
            backend: "shop/users",
            tries: 1,
            bytes_in: 10,
            bytes_out: 1000,
            timing: Timing {
                total: Duration::from_millis(7),
                upstream_total: Some(Duration::from_millis(6)),
                ..Timing::default()
            },
            ..Record::default()
        }
    }

    #[test]
    fn an_exchange_is_counted_under_its_labels() {
        let registry = Registry::new();
        let mut worker = registry.worker();
        let (web, rule) = (registry.listener("web"), registry.rule("shop/users", "/users/*"));
        let backend = registry.backend("shop/users");
        for _ in 0..3 {
            worker.begin(web);
        }
        worker.finish(&ok(), web, rule, Some(backend));
        let failed = Record {
            status: 502,
            upstream_status: None,
            tries: 3,
            retries: &[RetryReason::Failure(Cause::ConnectRefused), RetryReason::Status(503)],
            failure_code: Some("connection_refused"),
            failure_side: Some("backend"),
            notes: NoteSet::EMPTY.with(Note::RetriedOnOtherEndpoint),
            ..ok()
        };
        worker.finish(&failed, web, rule, Some(backend));
        let samples = rendered(&registry);
        let labels = concat!(
            r#"server_listener="web",route="shop/users",http_route="/users/*",http_request_method="GET","#,
            r#"http_response_status_code="200",url_scheme="https",network_protocol_version="2""#,
        );
        let expected = [
            (format!("http_server_request_duration_seconds_bucket{{{labels},le=\"0.005\"}}"), 0.0),
            (format!("http_server_request_duration_seconds_bucket{{{labels},le=\"0.01\"}}"), 1.0),
            (format!("http_server_request_duration_seconds_sum{{{labels}}}"), 0.007),
            (format!("http_server_request_body_size_bytes_sum{{{labels}}}"), 10.0),
            (format!("http_server_response_body_size_bytes_sum{{{labels}}}"), 1000.0),
            (format!("http_server_response_body_size_bytes_count{{{labels}}}"), 1.0),
            (format!("http_server_request_duration_seconds_count{{{}}}", labels.replace("200", "502")), 1.0),
            (r#"http_server_active_requests{server_listener="web"}"#.into(), 1.0),
            (
                concat!(
                    r#"http_client_request_duration_seconds_count{backend="shop/users","#,
                    r#"http_request_method="GET",http_response_status_code=""}"#,
                )
                .into(),
                1.0,
            ),
            (r#"rhumb_upstream_retries_total{backend="shop/users",reason="connect_refused"}"#.into(), 1.0),
            (r#"rhumb_upstream_retries_total{backend="shop/users",reason="503"}"#.into(), 1.0),
            (r#"rhumb_notes_total{note="retried_on_other_endpoint"}"#.into(), 1.0),
            (r#"rhumb_failures_total{code="connection_refused",side="backend"}"#.into(), 1.0),
            (r#"rhumb_metric_series{metric="http_server_request_duration_seconds"}"#.into(), 2.0),
            (r#"rhumb_metric_series_overflow{metric="http_server_request_duration_seconds"}"#.into(), 0.0),
        ];
        for (series, value) in expected {
            assert_eq!(samples.get(&series), Some(&value), "{series}");
        }
    }

    #[test]
    fn an_empty_registry_renders_what_is_always_there() {
        let samples = rendered(&Registry::new());
        for series in [
            "rhumb_config_revision",
            "rhumb_log_lines_total",
            "process_cpu_seconds_total",
            "process_open_fds",
        ] {
            assert!(samples.contains_key(series), "{series}");
        }
        assert_eq!(
            samples.get(&format!("rhumb_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))),
            Some(&1.0)
        );
    }

    #[test]
    fn label_values_cannot_break_out() {
        let registry = Registry::new();
        let hostile = "a\"} 1\nb\\\u{1f980}";
        registry.counter(Metric::LimitHits, &[hostile]).increment();
        let rule = registry.rule(hostile, hostile);
        registry.worker().finish(&ok(), registry.listener(hostile), rule, Some(registry.backend(hostile)));
        let samples = rendered(&registry);
        assert_eq!(samples.get("rhumb_limit_hits_total{limit=\"a\\\"} 1\\nb\\\\\u{1f980}\"}"), Some(&1.0));
    }

    #[test]
    fn unknown_methods_and_statuses_make_no_series_of_their_own() {
        let registry = Registry::new();
        let mut worker = registry.worker();
        let web = registry.listener("web");
        for (method, status) in [("BREW", 999), ("get", 600), ("", 0), ("PURGE\n", 65_535)] {
            worker.finish(
                &Record { method: method.as_bytes(), status, ..ok() },
                web,
                crate::metrics::RuleId::UNMATCHED,
                None,
            );
        }
        let samples = rendered(&registry);
        let series = concat!(
            r#"http_server_request_duration_seconds_count{server_listener="web",route="",http_route="","#,
            r#"http_request_method="_OTHER",http_response_status_code="",url_scheme="https",network_protocol_version="2"}"#,
        );
        assert_eq!(samples.get(series), Some(&4.0));
    }

    #[test]
    fn series_past_the_limit_are_counted_together_by_every_worker() {
        let registry = Registry::with_series_limit(10);
        let web = registry.listener("web");
        let mut workers = [registry.worker(), registry.worker()];
        for turn in 0..3 {
            for rule in 0..50 {
                let id = registry.rule("shop/users", &format!("/{rule}/*"));
                let backend = registry.backend(&format!("shop/{rule}"));
                let status = if rule % 2 == 0 { 200 } else { 503 };
                for worker in &mut workers {
                    worker.finish(
                        &Record { status, upstream_status: Some(status), ..ok() },
                        web,
                        id,
                        Some(backend),
                    );
                    worker.add(Metric::Resolutions, &[&format!("shop/{rule}"), "success"], 1);
                }
            }
            let samples = rendered(&registry);
            let count = |prefix: &str, has: &str| {
                let of =
                    samples.iter().filter(|(series, _)| series.starts_with(prefix) && series.contains(has));
                (of.clone().count(), of.map(|(_, value)| value).sum::<f64>())
            };
            let all = f64::from(100 * (turn + 1));
            // Ten series, and one for each class of status that came later.
            assert_eq!(count("http_server_request_duration_seconds_count", ""), (12, all));
            assert_eq!(
                count("http_server_request_duration_seconds_count", "http_route=\"other\""),
                (2, all * 0.8)
            );
            assert_eq!(count("http_server_request_duration_seconds_count", "code=\"5xx\""), (1, all * 0.4));
            assert_eq!(count("http_client_request_duration_seconds_count", ""), (12, all));
            assert_eq!(
                count("http_client_request_duration_seconds_count", "backend=\"other\""),
                (2, all * 0.8)
            );
            assert_eq!(count("rhumb_backend_resolutions_total", ""), (11, all));
            assert_eq!(count("rhumb_backend_resolutions_total", "result=\"other\""), (1, all * 0.8));
            let overflow = r#"rhumb_metric_series_overflow{metric="http_server_request_duration_seconds"}"#;
            assert_eq!(samples.get(overflow), Some(&1.0));
        }
    }

    #[test]
    fn workers_add_up_while_they_run_and_after_they_ended() {
        let registry = Registry::new();
        let web = registry.listener("web");
        let sum = |prefix: &str| -> f64 {
            rendered(&registry)
                .iter()
                .filter(|(series, _)| series.starts_with(prefix))
                .map(|(_, value)| value)
                .sum()
        };
        for generation in 1..=3 {
            std::thread::scope(|scope| {
                for worker in 0..4 {
                    let registry = &registry;
                    scope.spawn(move || {
                        let mut metrics = registry.worker();
                        let rule = registry.rule("shop/users", &format!("/{}/*", worker % 2));
                        let opened = metrics.counter(Metric::UpstreamConnectionsCreated, &["shop/users"]);
                        let open = metrics.gauge(Metric::ConnectionsOpen, &["web"]);
                        for _ in 0..1000 {
                            metrics.begin(web);
                            open.increment();
                            metrics.finish(&ok(), web, rule, Some(registry.backend("shop/users")));
                            opened.increment();
                            open.decrement();
                        }
                        open.increment();
                        drop(metrics);
                        // A handle counts also when its worker's metrics are gone.
                        opened.increment();
                    });
                }
                // A scrape in the middle sees a whole page.
                rendered(&registry);
            });
            let workers = f64::from(4 * generation);
            assert_eq!(sum("http_server_request_duration_seconds_count"), 1000.0 * workers);
            assert_eq!(sum("http_server_response_body_size_bytes_sum"), 1_000_000.0 * workers);
            assert_eq!(sum("http_client_request_duration_seconds_count"), 1000.0 * workers);
            assert_eq!(sum("rhumb_upstream_connections_created_total"), 1001.0 * workers);
            assert_eq!(sum("rhumb_connections_open"), workers);
            assert_eq!(sum("http_server_active_requests"), 0.0);
        }
    }

    #[test]
    fn series_survive_a_reload_by_their_labels() {
        let registry = Registry::new();
        let web = registry.listener("web");
        let mut worker = registry.worker();
        for _ in 0..2 {
            let rule = registry.rule("shop/users", "/users/*");
            worker.finish(&ok(), web, rule, None);
            registry.counter(Metric::ConfigReloads, &["success"]).increment();
        }
        let samples = rendered(&registry);
        let counts: Vec<_> = samples
            .iter()
            .filter(|(series, _)| series.starts_with("http_server_request_duration_seconds_count"))
            .collect();
        assert!(matches!(&counts[..], [(_, value)] if **value == 2.0), "{counts:?}");
        assert_eq!(samples.get(r#"rhumb_config_reloads_total{result="success"}"#), Some(&2.0));
    }

    #[test]
    fn collectors_are_asked_at_each_scrape_and_bounded() {
        let registry = Registry::with_series_limit(3);
        let source = Arc::new(std::sync::Mutex::new(vec![("healthy", 2), ("draining", -1)]));
        let shared = Arc::clone(&source);
        registry.collect(Metric::Endpoints, move |emit| {
            for (state, count) in shared.lock().unwrap().iter() {
                emit(&["shop/users", state], *count);
            }
        });
        let of = |state: &str| format!(r#"rhumb_endpoints{{backend="shop/users",state="{state}"}}"#);
        let samples = rendered(&registry);
        assert_eq!((samples.get(&of("healthy")), samples.get(&of("draining"))), (Some(&2.0), Some(&-1.0)));
        *source.lock().unwrap() = vec![("a", 1), ("b", 1), ("c", 1), ("d", 1)];
        let samples = rendered(&registry);
        assert_eq!(samples.keys().filter(|series| series.starts_with("rhumb_endpoints")).count(), 3);
        assert_eq!(samples.get(&of("healthy")), None);
    }

    #[test]
    fn the_bounds_are_labelled_as_they_are() {
        for (bound, label) in BOUNDS.into_iter().zip(BOUND_LABELS) {
            assert_eq!(label, format!("le=\"{}\"", bound as f64 / 1e6));
        }
    }

    #[test]
    fn log_counters_are_in_the_page() {
        let registry = Registry::new();
        let dir = tempfile::tempdir().unwrap();
        let sink = crate::access_log::Sink::File(dir.path().join("access.log"));
        let log = AccessLog::open(AccessLogConfig { sink, ..AccessLogConfig::default() }, &registry).unwrap();
        log.worker().push(&ok(), std::time::Instant::now());
        assert!(log.flush(Duration::from_secs(60)));
        assert_eq!(rendered(&registry).get("rhumb_log_lines_total"), Some(&1.0));
    }

    #[test]
    fn openmetrics_is_asked_for_and_has_exemplars() {
        let registry = Registry::new();
        let mut worker = registry.worker();
        let (web, rule) = (registry.listener("web"), registry.rule("shop/users", "/users/*"));
        let trace = crate::TraceContext { trace_id: [0xab; 16], parent_id: [1; 8], flags: 1 };
        let told = Record {
            trace: Some(trace),
            is_traced: true,
            start_unix_nanos: 1_700_000_000_123_456_789,
            ..ok()
        };
        worker.finish(&told, web, rule, None);
        let mut text = String::new();
        registry.render(Format::OpenMetrics, &mut text);
        let exemplar = format!("}} 1 # {{trace_id=\"{}\"}} 0.007000000 1700000000.130", "ab".repeat(16));
        let line = text.lines().find(|line| line.contains("# {")).expect("an exemplar");
        assert!(line.contains("le=\"0.01\"") && line.ends_with(&exemplar), "{line}");
        assert_eq!(text.lines().filter(|line| line.contains("# {")).count(), 1);
        for wanted in [
            "# TYPE rhumb_log_lines counter\n",
            "\nrhumb_log_lines_total 0\n",
            "# UNIT http_server_request_duration_seconds seconds\n",
            "le=\"1.0\"",
            "# TYPE process_cpu_seconds counter\n",
        ] {
            assert!(text.contains(wanted), "{wanted}");
        }
        assert!(text.ends_with("\n# EOF\n") && !text.contains("le=\"1\""));
        // Everything else is as in the other form.
        let mut plain = String::new();
        registry.render(Format::Text, &mut plain);
        assert!(!plain.contains("trace_id") && !plain.contains("# EOF") && !plain.contains("# UNIT"));
    }

    #[test]
    fn the_form_is_chosen_by_accept() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.75,application/openmetrics-text;version=0.0.1;q=0.7,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::accepted("application/openmetrics-text; version=1.0.0"), Format::OpenMetrics);
        for text in [
            "",
            "*/*",
            "text/plain",
            "text/html",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0.2, text/plain",
        ] {
            assert_eq!(Format::accepted(text), Format::Text, "{text}");
        }
    }
}
