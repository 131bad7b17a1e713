//! Standard output: what a verb is asked to print. Everything else goes to standard error.

use std::io::{self, Write};

/// Writes text to standard output. A reader that has gone (`rhumb schema | head`) is no error.
///
/// # Errors
/// When standard output cannot be written to for another reason.
pub(crate) fn out(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes text to standard error. There is nowhere to tell when that does not work.
pub(crate) fn err(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Rows with columns padded to the same width, two blanks between them, and no blanks at the end of a line.
pub(crate) fn table<const N: usize>(title: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = title.map(|text| text.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let titles = std::iter::once(title.map(str::to_owned));
    for row in titles.chain(rows.iter().cloned()) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(&row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 2));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["a".to_owned(), "é".to_owned(), "x".to_owned()],
            ["abc".to_owned(), String::new(), String::new()],
        ];
        assert_eq!(table(["K", "LONG", "V"], &rows), "K    LONG  V\na    é     x\nabc\n");
    }
}
