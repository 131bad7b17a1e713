//! All metrics as values, for forms that are not text.

use super::exchange::{BOUNDS, Totals};
use super::exemplar::Exemplar;
use super::registry::{Key, Registry, lock};
use super::render::{write_client, write_server};
use super::times::{COARSE, coarse};
use super::{Kind, Metric};
use crate::metrics::process::Process;
use crate::signals::Buckets;

/// One series as it is.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) metric: Metric,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: Value,
}

/// What a series has.
#[derive(Debug)]
pub(crate) enum Value {
    Number(f64),
    Summary {
        sum: f64,
        count: u64,
    },
    Histogram {
        /// How many are in each classic bucket, by its upper bound in seconds.
        classic: Vec<(f64, u64)>,
        /// Together. Unit: nanoseconds.
        nanos: u64,
        native: Box<Buckets>,
        exemplar: Option<Exemplar>,
    },
}

#[allow(clippy::cast_precision_loss)] // numbers beyond 2^53 may be a little off
impl Registry {
    /// Every series, by metric in the order of the table.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let server = lock(&self.server).totals();
        let client = lock(&self.client).totals();
        let exemplars = lock(&self.exemplars).clone();
        let mut samples = Vec::new();
        for metric in Metric::ALL {
            let mut push =
                |labels: &str, value| samples.push(Sample { metric, labels: pairs(labels), value });
            let mut exchange = |series: &[(Key, Totals)],
                                write: fn(&mut String, &super::registry::Names, Key),
                                of: fn(&Totals) -> u64| {
                let mut labels = String::new();
                for (key, totals) in series {
                    labels.clear();
                    write(&mut labels, &self.names(), *key);
                    push(
                        &labels,
                        match metric.family().kind {
                            Kind::Histogram => Value::Histogram {
                                classic: classic(totals),
                                nanos: totals.nanos,
                                native: Box::new(totals.native),
                                exemplar: exemplars
                                    .get(key)
                                    .copied()
                                    .filter(|_| metric == Metric::ServerRequestDuration),
                            },
                            _ => Value::Summary { sum: of(totals) as f64, count: totals.count() },
                        },
                    );
                }
            };
            match metric {
                Metric::ServerRequestDuration => exchange(&server, write_server, |_| 0),
                Metric::ServerRequestBodySize => exchange(&server, write_server, |totals| totals.bytes_in),
                Metric::ServerResponseBodySize => exchange(&server, write_server, |totals| totals.bytes_out),
                Metric::ClientRequestDuration => exchange(&client, write_client, |_| 0),
                _ if metric.family().kind == Kind::Histogram => {
                    self.visit_times(metric, &mut |labels, times| {
                        let bounds = COARSE.iter().map(|(_, bound, _)| *bound).chain([f64::INFINITY]);
                        let value = Value::Histogram {
                            classic: bounds.zip(coarse(times.buckets)).collect(),
                            nanos: times.nanos,
                            native: Box::new(*times.buckets),
                            exemplar: None,
                        };
                        push(labels, value);
                    });
                }
                Metric::Series | Metric::SeriesOverflow => self.visit_sizes(&mut |of, len, is_full| {
                    let value =
                        if metric == Metric::Series { len as f64 } else { f64::from(u8::from(is_full)) };
                    push(&format!("metric=\"{}\"", of.family().name), Value::Number(value));
                }),
                _ if metric.family().kind == Kind::Gauge => self.visit_plain(metric, &mut |labels, value| {
                    push(labels, Value::Number(value.cast_signed() as f64));
                }),
                Metric::L4Time | Metric::StoreTime => self.visit_plain(metric, &mut |labels, micros| {
                    push(labels, Value::Number(micros as f64 / 1e6));
                }),
                _ => self.visit_plain(metric, &mut |labels, value| push(labels, Value::Number(value as f64))),
            }
        }
        let process = Process::read();
        let numbers = [
            (
                Metric::ProcessCpu,
                process.cpu_ticks.map(|ticks| ticks as f64 / super::process::TICKS_PER_SECOND as f64),
            ),
            (Metric::ProcessResident, process.resident.map(|value| value as f64)),
            (Metric::ProcessVirtual, process.virtual_size.map(|value| value as f64)),
            (Metric::ProcessOpenFds, process.open_fds.map(|value| value as f64)),
            (Metric::ProcessMaxFds, process.max_fds.map(|value| value as f64)),
            (Metric::ProcessThreads, process.threads.map(|value| value as f64)),
            (Metric::ProcessStart, process.start_unix_secs.map(|value| value as f64)),
        ];
        for (metric, value) in numbers {
            if let Some(value) = value {
                samples.push(Sample { metric, labels: Vec::new(), value: Value::Number(value) });
            }
        }
        samples
    }
}

#[allow(clippy::cast_precision_loss)] // bounds
fn classic(totals: &Totals) -> Vec<(f64, u64)> {
    let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
    bounds.zip(totals.buckets).collect()
}

/// Labels of their text, which is ours.
fn pairs(mut text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, other)) => value.push(other),
                    None => {}
                },
                _ => value.push(c),
            }
        }
        // What is empty is as if it were absent.
        if !value.is_empty() {
            pairs.push((name.to_owned(), value));
        }
        text = rest.get(end..).unwrap_or_default().trim_start_matches(',');
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::registry::write_label;

    #[test]
    fn labels_come_back_as_they_were() {
        let mut text = String::new();
        for (name, value) in [("a", "x,\"y\"\\"), ("b", ""), ("c", "l1\nl2=\"z\"")] {
            if !text.is_empty() {
                text.push(',');
            }
            write_label(&mut text, name, value);
        }
        let want = [("a", "x,\"y\"\\"), ("c", "l1\nl2=\"z\"")];
        assert_eq!(pairs(&text), want.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
