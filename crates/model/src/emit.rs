//! Value trees as YAML text.
//!
//! What [`crate::yaml::parse`] reads back is the same tree: references to variables and files are written as they
//! were, other text that looks like one is escaped.

use crate::expand::escape;
use crate::value::{Node, Value};
use crate::yaml::resolve_plain;
use std::fmt::Write;

/// Several documents as one YAML stream.
pub fn to_yaml(documents: &[Node]) -> String {
    let mut out = String::new();
    for (index, document) in documents.iter().enumerate() {
        if index > 0 {
            out.push_str("---\n");
        }
        write_block(&mut out, document, 0);
    }
    out
}

/// A value on lines of its own, indented by `depth` levels.
fn write_block(out: &mut String, node: &Node, depth: usize) {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            for entry in entries {
                indent(out, depth);
                write_entry(out, &entry.key, &entry.value, depth);
            }
        }
        Value::Seq(items) if !items.is_empty() => {
            for item in items {
                indent(out, depth);
                write_item(out, item, depth);
            }
        }
        _ => {
            indent(out, depth);
            write_scalar(out, node, depth);
            out.push('\n');
        }
    }
}

/// `key: value`, after the indentation of the first line.
fn write_entry(out: &mut String, key: &str, value: &Node, depth: usize) {
    write_text(out, key, depth, false);
    out.push(':');
    match &value.value {
        Value::Map(entries) if !entries.is_empty() => {
            out.push('\n');
            write_block(out, value, depth + 1);
        }
        Value::Seq(items) if !items.is_empty() => {
            out.push('\n');
            // As Kubernetes people write it: the dash stands under the key.
            write_block(out, value, depth);
        }
        _ => {
            out.push(' ');
            write_scalar(out, value, depth + 1);
            out.push('\n');
        }
    }
}

/// `- value`, after the indentation of the first line.
fn write_item(out: &mut String, item: &Node, depth: usize) {
    out.push_str("- ");
    match &item.value {
        Value::Map(entries) if !entries.is_empty() => {
            for (index, entry) in entries.iter().enumerate() {
                if index > 0 {
                    indent(out, depth + 1);
                }
                write_entry(out, &entry.key, &entry.value, depth + 1);
            }
        }
        Value::Seq(items) if !items.is_empty() => {
            for (index, inner) in items.iter().enumerate() {
                if index > 0 {
                    indent(out, depth + 1);
                }
                write_item(out, inner, depth + 1);
            }
        }
        _ => {
            write_scalar(out, item, depth + 1);
            out.push('\n');
        }
    }
}

fn write_scalar(out: &mut String, node: &Node, depth: usize) {
    if let Some(raw) = &node.raw {
        if raw.plain && !raw.text.contains(['\n', '\r']) {
            out.push_str(&raw.text);
        } else {
            write_text(out, &raw.text, depth, true);
        }
        return;
    }
    match &node.value {
        Value::Null | Value::Mistake => out.push_str("null"),
        Value::Bool(value) => {
            let _ = write!(out, "{value}");
        }
        Value::Int(text) | Value::Float(text) => out.push_str(text),
        Value::String(text) => write_text(out, &escape(text), depth, true),
        Value::Seq(_) => out.push_str("[]"),
        Value::Map(_) => out.push_str("{}"),
    }
}

/// Text: plain where that is clear, as a literal block when it has lines, quoted otherwise.
fn write_text(out: &mut String, text: &str, depth: usize, may_be_block: bool) {
    if is_plain(text) {
        out.push_str(text);
    } else if may_be_block && is_block(text) {
        out.push('|');
        let body = match text.strip_suffix('\n') {
            Some(body) => body,
            None => {
                out.push('-');
                text
            }
        };
        for line in body.split('\n') {
            out.push('\n');
            if !line.is_empty() {
                indent(out, depth.max(1));
                out.push_str(line);
            }
        }
    } else {
        write_quoted(out, text);
    }
}

/// True for text that no YAML 1.1 or 1.2 reader takes for anything else.
fn is_plain(text: &str) -> bool {
    let first = text.bytes().next().unwrap_or(b' ');
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./+=*~@".contains(&byte);
    let word = text.to_ascii_lowercase();
    (first.is_ascii_alphabetic() || first == b'/' || first.is_ascii_digit())
        && text.bytes().all(safe)
        && matches!(resolve_plain(text), Value::String(_))
        && !matches!(&*word, "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null")
        // Sexagesimal, date and octal forms of YAML 1.1, and numbers with underscores.
        && !(first.is_ascii_digit() && text.bytes().all(|byte| byte.is_ascii_digit() || b"-_.+eExo".contains(&byte)))
}

/// True for lines that a literal block can hold unchanged.
fn is_block(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n')
        && !body.ends_with('\n')
        && !body.starts_with(['\n', ' '])
        && body.lines().all(|line| line.trim_end() == line)
        && text.chars().all(|c| {
            c == '\n' || (!c.is_control() && !matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{85}'))
        })
}

fn write_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}') => {
                let code = u32::from(c);
                let _ =
                    if code < 0x100 { write!(out, "\\x{code:02x}") } else { write!(out, "\\u{code:04x}") };
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn indent(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}
