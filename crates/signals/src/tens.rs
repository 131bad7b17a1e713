//! Series with their names, as they travel from a proxy to a control plane.

use rhumb_telemetry::signals::{Dimension, Name, Totals};

use crate::codec::{Reader, put, put_text};
use crate::frame;

/// The longest part of a name. Unit: bytes.
const PART: usize = 512;

/// Series as bytes.
pub(crate) fn write(series: &[(Dimension, Name, Totals)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(series.len() * 80);
    for (dimension, name, totals) in series {
        put(&mut out, *dimension as u64);
        put_text(&mut out, name.as_str());
        frame::put_totals(&mut out, totals);
    }
    out
}

/// Calls `visit` with every series; stops where the bytes are others. Says how many were left out because their names are
/// none.
pub(crate) fn read(bytes: &[u8], mut visit: impl FnMut(Dimension, Name, Totals)) -> u64 {
    let mut reader = Reader(bytes);
    let mut left_out = 0;
    while !reader.is_empty() {
        let Some((dimension, name, totals)) = one(&mut reader) else { return left_out + 1 };
        let dimension = usize::try_from(dimension).ok().and_then(|at| Dimension::ALL.get(at).copied());
        match dimension {
            Some(dimension) if is_name(dimension, name) && is_possible(&totals) => {
                visit(dimension, Name::from_text(name), totals)
            }
            _ => left_out += 1,
        }
    }
    left_out
}

fn one<'a>(reader: &mut Reader<'a>) -> Option<(u64, &'a str, Totals)> {
    let dimension = reader.number()?;
    let name = reader.text()?;
    let mut totals = Totals::default();
    frame::read_totals(reader, &mut totals)?;
    Some((dimension, name, totals))
}

/// Numbers that can be added up for years.
fn is_possible(totals: &Totals) -> bool {
    let counts = totals.outcomes.iter().chain(&totals.buckets.0);
    let amounts = [totals.nanos, totals.bytes_in, totals.bytes_out, totals.opened];
    counts.into_iter().all(|count| *count < 1 << 32) && amounts.into_iter().all(|amount| amount < 1 << 56)
}

/// As many parts as such a name has, and nothing in them that no name has.
fn is_name(dimension: Dimension, text: &str) -> bool {
    let name = Name::from_text(text);
    let is_part = |part: &str| part.len() <= PART && !part.chars().any(char::is_control);
    name.parts().count() == dimension.names() && name.parts().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(parts: &[&str]) -> (Dimension, Name, Totals) {
        let mut totals = Totals { nanos: 7, ..Totals::default() };
        totals.outcomes[0] = 3;
        totals.buckets.0[5] = 3;
        (Dimension::Edge, Name::new(parts), totals)
    }

    #[test]
    fn what_is_written_is_read_and_what_is_no_name_is_left_out() {
        let good = series(&["shop/web", "shop/orders:80", "mtls"]);
        let all =
            [good.clone(), series(&["two", "parts"]), series(&["a", "b\nc", ""]), series(&["", "", ""])];
        let bytes = write(&all);
        let mut found = Vec::new();
        let left_out = read(&bytes, |dimension, name, totals| found.push((dimension, name, totals)));
        assert_eq!((left_out, found.len()), (2, 2));
        assert_eq!(found[0], good);
        for length in 0..bytes.len() {
            read(&bytes[..length], |_, _, _| {});
        }
        assert_eq!(read(&[9, 0, 0, 0, 0, 0, 0], |_, _, _| panic!("there is no such dimension")), 1);
    }
}
