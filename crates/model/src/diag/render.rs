//! Mistakes as text for a terminal: place, the written line with a caret, reason, fix.

use super::{Diag, Origin, Severity};
use std::fmt::Write;

/// Whether to use colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paint {
    /// Text alone.
    Plain,
    /// ANSI colours.
    Coloured,
}

/// The longest part of a written line that is shown, in characters.
const SHOWN_COLUMNS: usize = 120;

/// One mistake as several lines of text, with a newline at the end.
pub fn render(diag: &Diag, paint: Paint) -> String {
    let mut out = String::new();
    write_diag(&mut out, diag, paint);
    out
}

/// All mistakes, sorted by place, and a last line that counts them. Empty when there are none.
pub fn render_all(diags: &[Diag], paint: Paint) -> String {
    let mut sorted: Vec<&Diag> = diags.iter().collect();
    sorted.sort_by_cached_key(|diag| {
        (diag.at.source.name().clone(), diag.at.source.position(diag.at.span.start))
    });
    let mut out = String::new();
    for diag in &sorted {
        write_diag(&mut out, diag, paint);
        out.push('\n');
    }
    let errors = diags.iter().filter(|diag| diag.is_error()).count();
    let warnings = diags.len() - errors;
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    if errors > 0 {
        let _ = write!(out, "{errors} error{}", plural(errors));
    }
    if warnings > 0 {
        let comma = if errors > 0 { ", " } else { "" };
        let _ = write!(out, "{comma}{warnings} warning{}", plural(warnings));
    }
    if !diags.is_empty() {
        out.push('\n');
    }
    out
}

struct Style {
    head: &'static str,
    bold: &'static str,
    gutter: &'static str,
    caret: &'static str,
    fix: &'static str,
    off: &'static str,
}

const PLAIN: Style = Style { head: "", bold: "", gutter: "", caret: "", fix: "", off: "" };

fn style(severity: Severity, paint: Paint) -> Style {
    if paint == Paint::Plain {
        return PLAIN;
    }
    let red_or_yellow = match severity {
        Severity::Error => "\x1b[1;31m",
        Severity::Warning => "\x1b[1;33m",
    };
    Style {
        head: red_or_yellow,
        bold: "\x1b[1m",
        gutter: "\x1b[1;34m",
        caret: red_or_yellow,
        fix: "\x1b[1;32m",
        off: "\x1b[0m",
    }
}

fn write_diag(out: &mut String, diag: &Diag, paint: Paint) {
    let style = style(diag.severity, paint);
    let Style { head, bold, gutter, fix, off, .. } = &style;
    let word = match diag.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let _ = writeln!(out, "{head}{word}[{}]{off}{bold}: {}{off}", diag.rule, printable(&diag.what));
    let width = gutter_width(diag);
    write_snippet(out, &diag.at, diag.label.as_deref(), diag.secret, width, &style);
    for (at, words) in &diag.related {
        write_snippet(out, at, Some(words), diag.secret, width, &style);
    }
    let mut note = |name: &str, colour: &str, text: &str| {
        let _ = writeln!(out, "{:width$} {gutter}={off} {colour}{name}{off}: {}", "", printable(text));
    };
    if let Some(doc) = &diag.at.doc {
        let path = diag.path();
        let text = if path.is_empty() { doc.to_string() } else { format!("{doc}, {path}") };
        note("in", bold, &text);
    }
    if let Some(why) = &diag.why {
        note("why", bold, why);
    }
    if let Some(text) = &diag.fix {
        note("fix", fix, text);
    }
}

fn gutter_width(diag: &Diag) -> usize {
    std::iter::once(&diag.at)
        .chain(diag.related.iter().map(|(at, _)| at))
        .map(|at| at.source.position(at.span.start).line.to_string().len())
        .max()
        .unwrap_or(1)
}

fn write_snippet(
    out: &mut String,
    at: &Origin,
    label: Option<&str>,
    secret: bool,
    width: usize,
    style: &Style,
) {
    let Style { gutter, caret, off, .. } = style;
    let _ = writeln!(out, "{:width$}{gutter}-->{off} {at}", "");
    if at.source.text().is_empty() {
        return;
    }
    let number = at.source.position(at.span.start).line;
    let (line_start, line) = at.source.line_of(at.span.start);
    let from = (at.span.start.saturating_sub(line_start) as usize).min(line.len());
    let to = (at.span.end.saturating_sub(line_start) as usize).clamp(from, line.len());
    let indent = columns(line.get(..from).unwrap_or(""));
    let marked = columns(line.get(from..to).unwrap_or("")).max(1);
    let shown = if secret || is_private(at) {
        let part = line.get(from..to).filter(|_| !secret).unwrap_or("");
        format!("{}{}", " ".repeat(indent), if secret { "*".repeat(marked.min(8)) } else { part.to_owned() })
    } else {
        line.to_owned()
    };
    let (shown, skipped) = window(&shown, indent);
    let indent = indent - skipped;
    let marked = if secret { marked.min(8) } else { marked }.min(SHOWN_COLUMNS.saturating_sub(indent).max(1));
    let _ = writeln!(out, "{:width$} {gutter}|{off}", "");
    let _ = writeln!(out, "{gutter}{number:>width$} |{off} {shown}");
    let label = label.map(|label| format!(" {}", printable(label))).unwrap_or_default();
    let carets = "^".repeat(marked);
    let _ = writeln!(out, "{:width$} {gutter}|{off} {:indent$}{caret}{carets}{label}{off}", "", "");
}

/// True for the text of a Secret, of which only the place of the mistake is shown: it might not parse, so this looks
/// at the text.
fn is_private(at: &Origin) -> bool {
    let text = at.source.text();
    text.contains("kind: Secret") || text.contains("\"Secret\"") || text.contains("'Secret'")
}

/// The part of a long line around column `at`, and how many columns were cut off before it.
fn window(line: &str, at: usize) -> (String, usize) {
    let line = printable(line);
    let count = line.chars().count();
    if count <= SHOWN_COLUMNS {
        return (line, 0);
    }
    let skip = at.saturating_sub(SHOWN_COLUMNS / 2).min(count - SHOWN_COLUMNS);
    (line.chars().skip(skip).take(SHOWN_COLUMNS).collect(), skip)
}

fn columns(text: &str) -> usize {
    text.chars().count()
}

/// Text without control characters: what is in a file must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { if c == '\t' { ' ' } else { '\u{fffd}' } } else { c }).collect()
}
