//! `${NAME:-default}` and `file:path` in scalars.
//!
//! * `${NAME}` is the environment variable, an error when it is not set; `${NAME:-text}` has a default for unset and
//!   empty. `$${` writes a literal `${`; any other `$` stands for itself, so that regular expressions need no escape.
//! * A scalar that starts with `file:` is the content of that file, relative to the directory of the file it is
//!   written in, without the line break at its end. `file::` writes a literal `file:`.

use crate::diag::{Diag, Origin, Rule};

/// Where variables and files come from.
pub trait Lookup {
    /// The value of an environment variable.
    fn variable(&mut self, name: &str) -> Option<String>;

    /// The content of a file, named as it is written (relative to the file that names it).
    ///
    /// # Errors
    /// Why it could not be read, for people.
    fn file(&mut self, path: &str) -> Result<String, String>;
}

/// Why a scalar could not be expanded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mistake {
    /// The variable is not set and has no default.
    Unset(String),
    /// `${` that is not followed by a name and `}`.
    Malformed(String),
    /// The file could not be read, and why.
    File(String, String),
}

impl Mistake {
    /// The mistake as it is told.
    pub fn into_diag(self, at: Origin) -> Diag {
        match self {
            Self::Unset(name) => {
                Diag::error(Rule::MissingVariable, at, format!("environment variable `{name}` is not set"))
                    .why("it has no default")
                    .fix(format!("set it, or write `${{{name}:-default}}`; `$${{{name}}}` is literal text"))
            }
            Self::Malformed(text) => {
                Diag::error(Rule::BadValue, at, format!("`{text}` is not an environment variable"))
                    .why("`${` takes a name of letters, digits and `_`, then `}` or `:-default}`")
                    .fix("write `$${` for a literal `${`")
            }
            Self::File(path, reason) => Diag::error(
                Rule::Unreadable,
                at,
                format!("file `{path}` cannot be read: {reason}"),
            )
            .why("a value that starts with `file:` is the content of that file")
            .fix("correct the path (it is relative to this file), or write `file::` for a literal `file:`"),
        }
    }
}

/// True when the text has something to expand or unescape.
pub fn is_candidate(text: &str) -> bool {
    text.starts_with("file:") || text.contains("${")
}

/// The text with its references replaced.
///
/// # Errors
/// The first reference that cannot be.
pub fn expand(text: &str, lookup: &mut dyn Lookup) -> Result<String, Mistake> {
    // The variables come first, so that a path may have some. What they contain is never expanded again.
    if let Some(rest) = text.strip_prefix("file:") {
        let rest = variables(rest, lookup)?;
        if let Some(literal) = rest.strip_prefix(':') {
            return Ok(format!("file:{literal}"));
        }
        let mut content = lookup.file(&rest).map_err(|reason| Mistake::File(rest.clone(), reason))?;
        if content.ends_with('\n') {
            content.pop();
            if content.ends_with('\r') {
                content.pop();
            }
        }
        return Ok(content);
    }
    variables(text, lookup)
}

/// Literal text in the written form: what [`expand`] would change is escaped.
pub fn escape(text: &str) -> String {
    let text = text.replace("${", "$${");
    match text.strip_prefix("file:") {
        Some(rest) => format!("file::{rest}"),
        None => text,
    }
}

fn variables(text: &str, lookup: &mut dyn Lookup) -> Result<String, Mistake> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let before = rest.get(..at).unwrap_or("");
        let after = rest.get(at + 2..).unwrap_or("");
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some(end) = after.find('}') else {
            return Err(Mistake::Malformed(crate::value::clip(rest.get(at..).unwrap_or(""))));
        };
        let inner = after.get(..end).unwrap_or("");
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        if !is_name || default.is_some_and(|default| default.contains("${")) {
            return Err(Mistake::Malformed(format!("${{{}}}", crate::value::clip(inner))));
        }
        match (lookup.variable(name), default) {
            (Some(value), None) => out.push_str(&value),
            (Some(value), Some(_)) if !value.is_empty() => out.push_str(&value),
            (_, Some(default)) => out.push_str(default),
            (None, None) => return Err(Mistake::Unset(name.to_owned())),
        }
        rest = after.get(end + 1..).unwrap_or("");
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Lookup for Fixed {
        fn variable(&mut self, name: &str) -> Option<String> {
            match name {
                "HOST" => Some("example.com".into()),
                "EMPTY" => Some(String::new()),
                "TRICK" => Some("${HOST}".into()),
                _ => None,
            }
        }
        fn file(&mut self, path: &str) -> Result<String, String> {
            match path {
                "a" => Ok("content\n".into()),
                "dir/example.com" => Ok("two\r\n".into()),
                _ => Err("no such file".into()),
            }
        }
    }

    #[test]
    fn references_are_replaced_and_escapes_are_literal() {
        for (text, expanded) in [
            ("${HOST}", "example.com"),
            ("https://${HOST}/x", "https://example.com/x"),
            ("${NONE:-8080}", "8080"),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY}", ""),
            ("${TRICK}", "${HOST}"),
            ("$${HOST}", "${HOST}"),
            ("^/a$|^/b$", "^/a$|^/b$"),
            ("a$$b", "a$$b"),
            ("file:a", "content"),
            ("file:dir/${HOST}", "two"),
            ("file::a", "file:a"),
        ] {
            assert_eq!(expand(text, &mut Fixed).as_deref(), Ok(expanded), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_replaced_says_so() {
        assert_eq!(expand("${NONE}", &mut Fixed), Err(Mistake::Unset("NONE".into())));
        assert_eq!(expand("${request.path}", &mut Fixed), Err(Mistake::Malformed("${request.path}".into())));
        assert_eq!(expand("a ${b", &mut Fixed), Err(Mistake::Malformed("${b".into())));
        assert_eq!(expand("${1}", &mut Fixed), Err(Mistake::Malformed("${1}".into())));
        assert_eq!(expand("${A:-${B}}", &mut Fixed), Err(Mistake::Malformed("${A:-${B}".into())));
        assert_eq!(expand("file:zz", &mut Fixed), Err(Mistake::File("zz".into(), "no such file".into())));
    }

    #[test]
    fn escaped_text_expands_to_itself() {
        for text in ["plain", "${X}", "$${X}", "a$${X}", "file:x", "file::x", "$$$${", "${"] {
            assert_eq!(expand(&escape(text), &mut Fixed).as_deref(), Ok(text), "{text}");
        }
    }
}
