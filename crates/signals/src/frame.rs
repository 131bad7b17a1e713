//! What came in a span of time, of every series that had exchanges: sparse, a few tens of bytes each.

use std::collections::BTreeMap;

use rhumb_telemetry::signals::Totals;

use crate::codec::{Reader, put};

/// What series had, by number.
pub(crate) type Frame = BTreeMap<u32, Totals>;

/// A frame as bytes.
pub(crate) fn write(frame: &Frame) -> Vec<u8> {
    let mut out = Vec::with_capacity(frame.len() * 40);
    for (number, totals) in frame {
        put(&mut out, u64::from(*number));
        put_totals(&mut out, totals);
    }
    out
}

/// Appends what a series has come to.
pub(crate) fn put_totals(out: &mut Vec<u8>, totals: &Totals) {
    put(out, totals.nanos);
    put(out, totals.bytes_in);
    put(out, totals.bytes_out);
    let [a, b, c, d, e] = totals.outcomes;
    sparse(out, &[a, b, c, d, e, totals.opened]);
    sparse(out, &totals.buckets.0);
}

/// Calls `visit` with every series of a frame; stops where the bytes are damaged.
pub(crate) fn read(bytes: &[u8], mut visit: impl FnMut(u32, &Totals)) {
    let mut reader = Reader(bytes);
    while !reader.is_empty() {
        let mut totals = Totals::default();
        let Some(number) = one(&mut reader, &mut totals) else { return };
        visit(number, &totals);
    }
}

/// Adds the series of a frame to others.
pub(crate) fn join(into: &mut Frame, bytes: &[u8]) {
    read(bytes, |number, totals| into.entry(number).or_default().add(totals));
}

fn one(reader: &mut Reader<'_>, totals: &mut Totals) -> Option<u32> {
    let number = u32::try_from(reader.number()?).ok()?;
    read_totals(reader, totals)?;
    Some(number)
}

/// Reads what [`put_totals`] has written.
pub(crate) fn read_totals(reader: &mut Reader<'_>, totals: &mut Totals) -> Option<()> {
    totals.nanos = reader.number()?;
    totals.bytes_in = reader.number()?;
    totals.bytes_out = reader.number()?;
    let mut numbers = [0; 6];
    dense(reader, &mut numbers)?;
    let [a, b, c, d, e, opened] = numbers;
    (totals.outcomes, totals.opened) = ([a, b, c, d, e], opened);
    dense(reader, &mut totals.buckets.0)
}

fn sparse(out: &mut Vec<u8>, numbers: &[u64]) {
    put(out, numbers.iter().filter(|number| **number > 0).count() as u64);
    for (at, number) in numbers.iter().enumerate().filter(|(_, number)| **number > 0) {
        put(out, at as u64);
        put(out, *number);
    }
}

fn dense(reader: &mut Reader<'_>, numbers: &mut [u64]) -> Option<()> {
    for _ in 0..reader.number()? {
        let at = usize::try_from(reader.number()?).ok()?;
        let number = reader.number()?;
        *numbers.get_mut(at)? = number;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut totals =
            Totals { nanos: 5_000_000_000, bytes_in: 3, bytes_out: u64::MAX, ..Totals::default() };
        totals.outcomes[2] = 7;
        totals.opened = 9;
        totals.buckets.0[39] = 7;
        let frame = Frame::from([(1, Totals::default()), (70_000, totals)]);
        let bytes = write(&frame);
        let mut again = Frame::new();
        join(&mut again, &bytes);
        assert_eq!(again, frame);
        for length in 0..bytes.len() {
            read(&bytes[..length], |_, _| {});
        }
    }
}
