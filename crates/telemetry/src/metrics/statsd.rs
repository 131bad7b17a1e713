//! Metrics for StatsD, with the tags of DogStatsD: what has come since the last time, as datagrams.
//!
//! Counters are told by their increase, gauges as they are. Of a histogram each bucket that has grown is told as one time in
//! the middle of the bucket, with a sample rate of one over how often it came: counts are exact, percentiles as good as
//! buckets are.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::registry::Registry;
use super::samples::{Sample, Value};
use super::{Kind, Metric};
use crate::signals::{Buckets, bound_nanos};

/// Most bytes of a datagram: what fits into one packet of Ethernet.
const DATAGRAM: usize = 1432;

/// What was told to a StatsD server so far.
#[derive(Debug, Default)]
pub struct Statsd {
    prefix: String,
    last: HashMap<(Metric, String), Last>,
}

#[derive(Debug)]
enum Last {
    Number(f64),
    Buckets(Box<Buckets>),
}

impl Statsd {
    /// Nothing was told yet. `prefix` stands before each name.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), last: HashMap::new() }
    }

    /// What has come since the last call.
    pub fn datagrams(&mut self, registry: &Registry) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        let mut datagram = Vec::new();
        let mut seen = HashMap::new();
        for sample in registry.samples() {
            let tags = tags(&sample);
            let mut last = self.last.remove(&(sample.metric, tags.clone()));
            for line in lines(&self.prefix, &sample, &tags, &mut last) {
                if !datagram.is_empty() && datagram.len() + 1 + line.len() > DATAGRAM {
                    datagrams.push(std::mem::take(&mut datagram));
                }
                if !datagram.is_empty() {
                    datagram.push(b'\n');
                }
                datagram.extend_from_slice(line.as_bytes());
            }
            if let Some(last) = last {
                seen.insert((sample.metric, tags), last);
            }
        }
        self.last = seen;
        if !datagram.is_empty() {
            datagrams.push(datagram);
        }
        datagrams
    }
}

#[allow(clippy::cast_precision_loss)] // times and counts
fn lines(prefix: &str, sample: &Sample, tags: &str, last: &mut Option<Last>) -> Vec<String> {
    let family = sample.metric.family();
    let name = family.name;
    let mut lines = Vec::new();
    match &sample.value {
        Value::Number(number) if family.kind == Kind::Gauge => {
            // A sign would make it a change of the gauge.
            if *number < 0.0 {
                lines.push(format!("{prefix}{name}:0|g{tags}"));
            }
            lines.push(format!("{prefix}{name}:{number}|g{tags}"));
        }
        Value::Number(number) | Value::Summary { sum: number, .. } => {
            let before = match last {
                Some(Last::Number(before)) => *before,
                _ => 0.0,
            };
            // A counter that was given up and came again begins at zero.
            let more = if *number >= before { number - before } else { *number };
            if more > 0.0 {
                lines.push(format!("{prefix}{name}:{more}|c{tags}"));
            }
            *last = Some(Last::Number(*number));
        }
        Value::Histogram { native, .. } => {
            let before = match last {
                Some(Last::Buckets(before)) => **before,
                _ => Buckets::default(),
            };
            for (at, count) in native.since(&before).0.iter().enumerate().filter(|(_, count)| **count > 0) {
                let below = at.checked_sub(1).and_then(bound_nanos).unwrap_or(0);
                let above = bound_nanos(at).unwrap_or(below);
                let millis = (below + (above - below) / 2) as f64 / 1e6;
                let rate = if *count == 1 { String::new() } else { format!("|@{:.9}", 1.0 / *count as f64) };
                lines.push(format!("{prefix}{name}:{millis:.3}|ms{rate}{tags}"));
            }
            *last = Some(Last::Buckets(native.clone()));
        }
    }
    lines
}

/// `|#name:value,…`; what would end a tag is replaced.
fn tags(sample: &Sample) -> String {
    let mut tags = String::new();
    for (name, value) in &sample.labels {
        tags.push_str(if tags.is_empty() { "|#" } else { "," });
        let value: String =
            value.chars().map(|c| if matches!(c, ',' | '|' | '#' | '\n' | ' ') { '_' } else { c }).collect();
        // A String takes every write.
        write!(tags, "{name}:{value}").unwrap_or_default();
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Record, Timing};
    use std::time::Duration;

    fn text(datagrams: &[Vec<u8>]) -> String {
        let lines: Vec<_> =
            datagrams.iter().map(|datagram| String::from_utf8_lossy(datagram).into_owned()).collect();
        assert!(datagrams.iter().all(|datagram| datagram.len() <= DATAGRAM));
        lines.join("\n") + "\n"
    }

    #[test]
    fn what_has_come_is_told_once() {
        let registry = Registry::new();
        let mut statsd = Statsd::new("edge.");
        registry.counter(Metric::ConfigReloads, &["a,b"]).add(3);
        registry.gauge(Metric::Workers, &[]).set(2);
        let mut worker = registry.worker();
        let (listener, rule) = (registry.listener("web"), registry.rule("r", "/x"));
        for _ in 0..4 {
            worker.begin(listener);
            let timing = Timing { total: Duration::from_millis(3), ..Timing::default() };
            worker.finish(
                &Record { method: b"GET", status: 200, timing, ..Record::default() },
                listener,
                rule,
                None,
            );
        }
        let first = text(&statsd.datagrams(&registry));
        assert!(first.contains("edge.rhumb_config_reloads_total:3|c|#result:a_b\n"), "{first}");
        assert!(first.contains("edge.rhumb_workers:2|g\n"), "{first}");
        let times = first.lines().find(|line| line.contains("server_request_duration")).unwrap();
        assert!(times.contains("|ms|@0.250000000|#server_listener:web,route:r"), "{times}");
        let second = text(&statsd.datagrams(&registry));
        assert!(!second.contains("edge.rhumb_config_reloads_total") && !second.contains("|ms"), "{second}");
        assert!(second.contains("edge.rhumb_workers:2|g\n"));
    }
}
