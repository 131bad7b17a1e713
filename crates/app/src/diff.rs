//! What differs between two texts, line by line.

use std::fmt::Write;

/// Unchanged lines that are shown around a change.
const CONTEXT: usize = 3;

/// Texts with more lines in what differs are shown as one replaced by the other: comparing costs the product.
const MAX_CELLS: usize = 4_000_000;

/// One line and what happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    Come(&'a str),
}

/// The lines that went (`-`) and came (`+`), with a few around them; empty when the texts are equal.
pub(crate) fn diff(before: &str, after: &str) -> String {
    let lines = compare(&before.lines().collect::<Vec<_>>(), &after.lines().collect::<Vec<_>>());
    let is_change = |line: &Line<'_>| !matches!(line, Line::Same(_));
    let mut out = String::new();
    let mut skipped = false;
    for (at, line) in lines.iter().enumerate() {
        let near = lines.get(at.saturating_sub(CONTEXT)..(at + CONTEXT + 1).min(lines.len())).unwrap_or(&[]);
        if !near.iter().any(is_change) {
            skipped = true;
            continue;
        }
        if std::mem::take(&mut skipped) {
            out.push_str("  …\n");
        }
        let _ = match line {
            Line::Same(text) => writeln!(out, "  {text}"),
            Line::Gone(text) => writeln!(out, "- {text}"),
            Line::Come(text) => writeln!(out, "+ {text}"),
        };
    }
    out
}

fn compare<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<Line<'a>> {
    let head = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let (same, before) = before.split_at(head);
    let after = after.get(head..).unwrap_or(&[]);
    let tail = before.iter().rev().zip(after.iter().rev()).take_while(|(a, b)| a == b).count();
    let (before, end) = before.split_at(before.len() - tail);
    let (after, _) = after.split_at(after.len() - tail);
    let mut lines: Vec<Line<'a>> = same.iter().map(|line| Line::Same(line)).collect();
    lines.extend(middle(before, after));
    lines.extend(end.iter().map(|line| Line::Same(line)));
    lines
}

/// The longest common subsequence, by the table of its lengths.
fn middle<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<Line<'a>> {
    let width = after.len() + 1;
    let gone = before.iter().map(|line| Line::Gone(line));
    if before.len().saturating_mul(width) > MAX_CELLS {
        return gone.chain(after.iter().map(|line| Line::Come(line))).collect();
    }
    let mut lengths = vec![0u32; (before.len() + 1) * width];
    let at = |row: usize, column: usize| row * width + column;
    for row in (0..before.len()).rev() {
        for column in (0..after.len()).rev() {
            lengths[at(row, column)] = if before[row] == after[column] {
                lengths[at(row + 1, column + 1)] + 1
            } else {
                lengths[at(row + 1, column)].max(lengths[at(row, column + 1)])
            };
        }
    }
    let (mut row, mut column) = (0, 0);
    let mut lines = Vec::new();
    while row < before.len() || column < after.len() {
        if row < before.len() && column < after.len() && before[row] == after[column] {
            lines.push(Line::Same(before[row]));
            (row, column) = (row + 1, column + 1);
        } else if column == after.len()
            || (row < before.len() && lengths[at(row + 1, column)] >= lengths[at(row, column + 1)])
        {
            lines.push(Line::Gone(before[row]));
            row += 1;
        } else {
            lines.push(Line::Come(after[column]));
            column += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_and_came_is_told_with_a_little_around_it() {
        assert_eq!(diff("a\nb\nc\n", "a\nb\nc\n"), "");
        assert_eq!(diff("a\nb\nc\n", "a\nx\nc\n"), "  a\n- b\n+ x\n  c\n");
        assert_eq!(diff("", "a\n"), "+ a\n");
        assert_eq!(diff("a\n", ""), "- a\n");
        assert_eq!(diff("a\nb\nc\nd\n", "a\nc\ne\nd\n"), "  a\n- b\n  c\n+ e\n  d\n");
        let long: String = (0..20).map(|line| format!("{line}\n")).collect();
        let other = long.replace("10\n", "ten\n");
        assert_eq!(diff(&long, &other), "  …\n  7\n  8\n  9\n- 10\n+ ten\n  11\n  12\n  13\n");
    }
}
