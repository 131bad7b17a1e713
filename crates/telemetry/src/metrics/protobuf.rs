//! Metrics as Prometheus' protocol buffers: `io.prometheus.client.MetricFamily`, each behind its length.
//!
//! Histograms have classic buckets and native ones of schema 1, whose bounds grow by √2. A scraper takes those that it
//! is configured for.

use rhumb_codec::protobuf::Writer;

use super::exemplar::Exemplar;
use super::registry::Registry;
use super::samples::{Sample, Value};
use super::{Kind, Metric};
use crate::signals::{BUCKETS, Buckets};

/// Numbers of `MetricType`.
const COUNTER: u64 = 0;
const GAUGE: u64 = 1;
const SUMMARY: u64 = 2;
const HISTOGRAM: u64 = 4;

/// Native buckets: each bound is 2^(2^-1) times the one before.
const SCHEMA: i64 = 1;

/// What is not longer is in the bucket of zero: the first bound of [`Buckets`]. Unit: seconds.
const ZERO_THRESHOLD: f64 = 0.000_122_070_312_5;

/// The index, in this schema, of the second of [`Buckets`].
const FIRST_INDEX: i64 = -25;

impl Registry {
    /// All metrics, for a scraper.
    pub(super) fn protobuf(&self) -> Vec<u8> {
        let samples = self.samples();
        let mut out = Vec::new();
        let mut rest = samples.as_slice();
        while let Some(first) = rest.first() {
            let length = rest.iter().position(|sample| sample.metric != first.metric).unwrap_or(rest.len());
            let (family, others) = rest.split_at(length);
            rest = others;
            let mut message = Writer::new();
            write_family(&mut message, first.metric, family);
            let bytes = message.into_bytes();
            put_varint(&mut out, bytes.len() as u64);
            out.extend_from_slice(&bytes);
        }
        out
    }
}

fn write_family(out: &mut Writer, metric: Metric, samples: &[Sample]) {
    let family = metric.family();
    out.bytes(1, family.name.as_bytes());
    out.bytes(2, family.help.as_bytes());
    out.number(
        3,
        match family.kind {
            Kind::Counter => COUNTER,
            Kind::Gauge => GAUGE,
            Kind::Summary => SUMMARY,
            Kind::Histogram => HISTOGRAM,
        },
    );
    for sample in samples {
        out.message(4, |out| {
            for (name, value) in &sample.labels {
                label(out, 1, name, value);
            }
            match &sample.value {
                Value::Number(number) => {
                    let field = if family.kind == Kind::Gauge { 2 } else { 3 };
                    out.message(field, |out| out.fixed64(1, number.to_bits()));
                }
                Value::Summary { sum, count } => out.message(4, |out| {
                    out.number(1, *count);
                    out.fixed64(2, sum.to_bits());
                }),
                Value::Histogram { classic, nanos, native, exemplar } => {
                    out.message(7, |out| histogram(out, classic, *nanos, native, exemplar.as_ref()));
                }
            }
        });
    }
    out.bytes(5, family.unit.as_bytes());
}

fn label(out: &mut Writer, field: u32, name: &str, value: &str) {
    out.message(field, |out| {
        out.bytes(1, name.as_bytes());
        out.bytes(2, value.as_bytes());
    });
}

#[allow(clippy::cast_precision_loss)] // bounds and times
fn histogram(
    out: &mut Writer,
    classic: &[(f64, u64)],
    nanos: u64,
    native: &Buckets,
    exemplar: Option<&Exemplar>,
) {
    out.number(1, classic.iter().map(|(_, count)| count).sum());
    out.fixed64(2, (nanos as f64 / 1e9).to_bits());
    let mut count = 0;
    for (at, (bound, in_bucket)) in classic.iter().enumerate() {
        count += in_bucket;
        out.message(3, |out| {
            out.number(1, count);
            out.fixed64(2, bound.to_bits());
            if let Some(exemplar) = exemplar.filter(|exemplar| exemplar.bucket() == at) {
                out.message(3, |out| write_exemplar(out, exemplar));
            }
        });
    }
    out.number(5, zigzag(SCHEMA));
    out.fixed64(6, ZERO_THRESHOLD.to_bits());
    out.number(7, native.0.first().copied().unwrap_or(0));
    spans(out, native);
    if let Some(exemplar) = exemplar {
        out.message(16, |out| write_exemplar(out, exemplar));
    }
}

/// Positive buckets: runs of those that have something, then what each has more than the one before it.
fn spans(out: &mut Writer, native: &Buckets) {
    let filled: Vec<(i64, u64)> =
        (FIRST_INDEX..).zip(native.0.iter().copied().skip(1)).filter(|(_, count)| *count > 0).collect();
    let mut next = 0;
    let mut begin = 0;
    while let Some(&(index, _)) = filled.get(begin) {
        let run = filled.iter().skip(begin).zip(index..).take_while(|((at, _), want)| at == want).count();
        out.message(12, |out| {
            // The first offset is the index of the first bucket, others are gaps.
            out.number(1, zigzag(index - next));
            out.number(2, run as u64);
        });
        next = index + i64::try_from(run).unwrap_or(0);
        begin += run;
    }
    if filled.is_empty() {
        // Without any span a histogram with nothing in it would be a classic one.
        out.message(12, |_| {});
    }
    let mut deltas = Vec::with_capacity(BUCKETS);
    let mut before = 0i64;
    for (_, count) in filled {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        put_varint(&mut deltas, zigzag(count - before));
        before = count;
    }
    out.bytes(13, &deltas);
}

fn write_exemplar(out: &mut Writer, exemplar: &Exemplar) {
    label(out, 1, "trace_id", std::str::from_utf8(&exemplar.trace_id).unwrap_or_default());
    out.fixed64(2, exemplar.time.as_secs_f64().to_bits());
    out.message(3, |out| {
        out.number(1, exemplar.unix_nanos / 1_000_000_000);
        out.number(2, exemplar.unix_nanos % 1_000_000_000);
    });
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_codec::protobuf::{Message, Value as Field};

    fn fields(bytes: &[u8]) -> Vec<(u32, Field<'_>)> {
        Message::new(bytes).map(Result::unwrap).collect()
    }

    #[test]
    fn runs_of_buckets_are_spans() {
        let mut native = Buckets::default();
        (native.0[1], native.0[2], native.0[5]) = (3, 1, 4);
        let mut out = Writer::new();
        spans(&mut out, &native);
        let bytes = out.into_bytes();
        let found = fields(&bytes);
        assert_eq!(found.len(), 3);
        let span = |at: usize| fields(found[at].1.bytes().unwrap());
        assert_eq!(span(0), [(1, Field::Varint(zigzag(-25))), (2, Field::Varint(2))]);
        assert_eq!(span(1), [(1, Field::Varint(zigzag(2))), (2, Field::Varint(1))]);
        // 3, then 2 less, then 3 more.
        assert_eq!(found[2], (13, Field::Bytes(&[6, 3, 6])));
    }

    #[test]
    fn every_family_is_whole() {
        let registry = Registry::new();
        let bytes = registry.protobuf();
        let mut rest = bytes.as_slice();
        let mut names = Vec::new();
        while !rest.is_empty() {
            let (mut length, mut shift) = (0, 0);
            loop {
                let (byte, more) = rest.split_first().unwrap();
                rest = more;
                length |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let (family, more) = rest.split_at(length);
            rest = more;
            names.push(fields(family)[0].1.text().unwrap().to_owned());
        }
        assert!(names.contains(&"rhumb_build_info".to_owned()) && names.len() > 20, "{names:?}");
        assert!(names.iter().collect::<std::collections::BTreeSet<_>>().len() == names.len());
    }
}
