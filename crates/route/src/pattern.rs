//! Regular expressions of routes: linear time, bounded size, matched against the whole value.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// Most bytes that one compiled expression may need.
pub const PATTERN_SIZE_LIMIT: usize = 256 * 1024;

/// Most bytes of states that one expression may cache per thread while it matches.
pub const PATTERN_CACHE_LIMIT: usize = 256 * 1024;

/// Longest expression as written, in bytes (Gateway API: header values are the longest, 4096).
pub const PATTERN_TEXT_LIMIT: usize = 4096;

/// A regular expression that must match a whole value.
///
/// Syntax: crate regex, no look-around and no back-references; time is linear in the value. Values are bytes: `.`, `\w`,
/// `\d` and `(?i)` mean ASCII.
#[derive(Clone)]
pub struct Pattern {
    text: Box<str>,
    regex: Regex,
}

/// Text that is not a usable expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// Longer than [`PATTERN_TEXT_LIMIT`].
    #[error("regular expression is longer than {PATTERN_TEXT_LIMIT} bytes")]
    TooLong,
    /// Needs more than [`PATTERN_SIZE_LIMIT`] when compiled.
    #[error("regular expression is too large when compiled: reduce its repetitions")]
    TooLarge,
    /// Cannot be read; says why.
    #[error("not a regular expression: {0}")]
    Syntax(String),
}

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    /// [`InvalidPattern`].
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        if text.len() > PATTERN_TEXT_LIMIT {
            return Err(InvalidPattern::TooLong);
        }
        // First alone: `a)|(?:b` is balanced only inside the group that anchors it.
        compile(text)?;
        let regex = compile(&format!(r"\A(?:{text})\z"))?;
        Ok(Self { text: text.into(), regex })
    }

    /// True when the expression matches all of `value`. Allocates only when a thread uses the expression for the first
    /// time.
    #[inline]
    pub fn matches(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }

    /// The expression as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn compile(text: &str) -> Result<Regex, InvalidPattern> {
    RegexBuilder::new(text)
        .unicode(false)
        .size_limit(PATTERN_SIZE_LIMIT)
        .dfa_size_limit(PATTERN_CACHE_LIMIT)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => InvalidPattern::TooLarge,
            // The last line of the message says what is wrong; those before draw where.
            other => {
                let text = other.to_string();
                let reason = text.lines().last().unwrap_or_default();
                InvalidPattern::Syntax(reason.trim_start_matches("error: ").to_owned())
            }
        })
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_value_must_match() {
        for (text, value, expected) in [
            ("a|ab", "ab", true),
            ("a", "ab", false),
            ("a", "ba", false),
            ("a", "a\n", false),
            (".*", "\u{e9}", true),
            ("(?i)abc", "ABC", true),
            ("^a$", "a", true),
            ("", "", true),
            ("", "a", false),
            (r"/v\d+/.*", "/v12/x", true),
        ] {
            assert_eq!(Pattern::parse(text).unwrap().matches(value.as_bytes()), expected, "{text} {value}");
        }
    }

    #[test]
    fn what_cannot_be_matched_in_bounds_is_refused() {
        assert_eq!(Pattern::parse("a)|(b"), Err(InvalidPattern::Syntax("unopened group".into())));
        assert!(matches!(Pattern::parse("("), Err(InvalidPattern::Syntax(_))));
        assert!(matches!(Pattern::parse("(?=a)"), Err(InvalidPattern::Syntax(_))));
        assert!(matches!(Pattern::parse("(?x) a # b"), Err(InvalidPattern::Syntax(_))));
        assert_eq!(Pattern::parse("(?:a{1000}){1000}"), Err(InvalidPattern::TooLarge));
        assert_eq!(Pattern::parse(&"a".repeat(5000)), Err(InvalidPattern::TooLong));
    }
}
