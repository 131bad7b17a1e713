//! Where a value was written: sources, byte spans, positions.

use crate::value::Node;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// A byte range inside the text of one [`Source`].
///
/// Eight bytes, so that every typed value can afford to remember where it was written; line, column and
/// field path are worked out from the source text only when somebody is told about them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The span of `start..end`.
    pub const fn new(start: u32, end: u32) -> Self {
        Self { start, end }
    }

    /// The smallest span that covers both.
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// The text of one written document and where it stands in its file.
///
/// A file with several YAML documents is cut into one source per document: spans are relative to the document,
/// so a document whose text did not change keeps all of its spans when others above it grow.
pub struct Source {
    name: Arc<str>,
    first_line: u32,
    text: Box<str>,
    /// The text is an item of a list: the path of the list, and which one.
    item: Option<(&'static str, usize)>,
    tree: OnceLock<Option<Box<Node>>>,
}

/// A one-based place in a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Position {
    /// Line in the file, from 1.
    pub line: u32,
    /// Column in that line, from 1, in characters.
    pub column: u32,
}

impl Source {
    /// The text of a document that starts on `first_line` (from 0) of the file `name`.
    pub fn new(name: impl Into<Arc<str>>, first_line: u32, text: impl Into<Box<str>>) -> Self {
        Self { name: name.into(), first_line, text: text.into(), item: None, tree: OnceLock::new() }
    }

    /// The same for the text of one item, with its `-`, of the list at the path `list` of a document.
    pub fn item(self, list: &'static str, index: usize) -> Self {
        Self { item: Some((list, index)), ..self }
    }

    /// Which item of a list it is.
    pub fn index(&self) -> Option<usize> {
        self.item.map(|(_, index)| index)
    }

    /// The file (or object) that this was read from, as it should be shown to people.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The text of the document.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line of the file, from 0, on which the document starts.
    pub fn first_line(&self) -> u32 {
        self.first_line
    }

    /// The bytes of `span`; empty when the span does not fit this text.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or("")
    }

    /// The line and column of a byte of this text.
    pub fn position(&self, offset: u32) -> Position {
        let before = self.before(offset);
        let newlines = before.bytes().filter(|byte| *byte == b'\n').count();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..).unwrap_or("").chars().count();
        Position { line: self.first_line + saturate(newlines) + 1, column: saturate(column) + 1 }
    }

    /// The whole line (without its end) in which a byte of this text lies, and the byte offset of its start.
    pub fn line_of(&self, offset: u32) -> (u32, &str) {
        let before = self.before(offset);
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = self.text.get(start..).unwrap_or("");
        let line = rest.split('\n').next().unwrap_or("");
        (saturate(start), line.strip_suffix('\r').unwrap_or(line))
    }

    /// The path of the innermost written field that covers `span`, such as `spec.rules[0].matches[1].path`.
    ///
    /// Parses the text on first use and keeps the tree: only sources with mistakes pay for it.
    pub fn path_at(&self, span: Span) -> String {
        let tree = self.tree.get_or_init(|| crate::yaml::parse_for_paths(&self.text).map(Box::new));
        let path = tree.as_ref().map_or_else(String::new, |tree| tree.path_at(span));
        match (self.item, path.strip_prefix("[0]")) {
            (Some((list, index)), Some(rest)) => format!("{list}[{index}]{rest}"),
            _ => path,
        }
    }

    fn before(&self, offset: u32) -> &str {
        let mut end = (offset as usize).min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        self.text.get(..end).unwrap_or("")
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({}:{}, {} bytes)", self.name, self.first_line + 1, self.text.len())
    }
}

/// A count as `u32`; inputs are bounded far below it ([`crate::yaml::MAX_FILE_BYTES`]).
pub(crate) fn saturate(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A value and where it was written. Compares, hashes and prints as the value alone.
#[derive(Clone, Copy)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it was written; the span of the enclosing object for a default.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// A value written at `span`.
    pub const fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

impl<T> Deref for Spanned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Spanned<T> {}

impl<T: Hash> Hash for Spanned<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value.hash(state);
    }
}

impl<T: fmt::Debug> fmt::Debug for Spanned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: fmt::Display> fmt::Display for Spanned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_the_first_line_of_the_document() {
        let source = Source::new("f.yaml", 4, "a: 1\nbé: 2\r\nc: 3");
        for (needle, line, column) in [("a", 5, 1), ("1", 5, 4), ("2", 6, 5), ("c", 7, 1)] {
            let at = source.text().find(needle).map_or(0, saturate);
            assert_eq!(source.position(at), Position { line, column }, "{needle}");
        }
        assert_eq!(source.line_of(7), (5, "bé: 2"));
        assert_eq!(source.position(9999), Position { line: 7, column: 5 });
    }

    #[test]
    fn a_span_beyond_the_text_is_empty() {
        let source = Source::new("f.yaml", 0, "é");
        assert_eq!(source.slice(Span::new(0, 2)), "é");
        assert_eq!(source.slice(Span::new(1, 2)), "");
        assert_eq!(source.slice(Span::new(0, 99)), "");
    }
}
