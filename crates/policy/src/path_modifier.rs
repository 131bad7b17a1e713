//! How redirect and rewrite change a path (Gateway API `HTTPPathModifier`).

use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::Invalid;

/// A change of the path; the query stays.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathModifierSpec {
    /// Which part to replace.
    pub r#type: PathModifierType,
    /// The whole new path. With type `ReplaceFullPath`.
    #[serde(default)]
    pub replace_full_path: Option<String>,
    /// What replaces the prefix that the rule matched. With type `ReplacePrefixMatch`; the rule must match by prefix.
    #[serde(default)]
    pub replace_prefix_match: Option<String>,
}

/// Which part of the path is replaced.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
pub enum PathModifierType {
    /// The whole path.
    ReplaceFullPath,
    /// The prefix that the rule matched.
    ReplacePrefixMatch,
}

/// A compiled path change.
pub enum PathModifier {
    /// The whole path becomes this.
    Full(Box<[u8]>),
    /// The matched prefix becomes this.
    Prefix(Box<[u8]>),
}

impl PathModifier {
    /// Compiles the document.
    ///
    /// # Errors
    /// [`Invalid`] when the value for the type is missing, or is not an absolute path.
    pub fn compile(spec: PathModifierSpec) -> Result<Self, Invalid> {
        let (field, value, other) = match spec.r#type {
            PathModifierType::ReplaceFullPath => {
                ("path.replaceFullPath", spec.replace_full_path, spec.replace_prefix_match.is_some())
            }
            PathModifierType::ReplacePrefixMatch => {
                ("path.replacePrefixMatch", spec.replace_prefix_match, spec.replace_full_path.is_some())
            }
        };
        let Some(value) = value else {
            return Err(Invalid::new(field, "is missing for this type", "write the new path"));
        };
        if other {
            return Err(Invalid::new(
                field,
                "the value of the other type is written too",
                "keep the one that belongs to the type",
            ));
        }
        let is_prefix = spec.r#type == PathModifierType::ReplacePrefixMatch;
        if !(value.starts_with('/') || is_prefix && value.is_empty()) {
            return Err(Invalid::new(field, "is not an absolute path", "begin it with /"));
        }
        if !value.bytes().all(is_path_byte) {
            return Err(Invalid::new(
                field,
                "has a byte that a path may not have",
                "percent-encode it (RFC 3986 §3.3)",
            ));
        }
        let value = value.into_bytes().into_boxed_slice();
        Ok(if is_prefix { Self::Prefix(value) } else { Self::Full(value) })
    }

    /// The new path of a request whose rule matched a prefix of `matched_prefix` bytes.
    pub fn apply(&self, req: &RequestHead, matched_prefix: Option<usize>) -> Vec<u8> {
        match self {
            Self::Full(path) => path.to_vec(),
            Self::Prefix(replacement) => {
                // Prefixes match whole segments (Gateway API): join with exactly one slash.
                let rest = req.path().get(matched_prefix.unwrap_or(0)..).unwrap_or_default();
                let rest = rest.strip_prefix(b"/").unwrap_or(rest);
                let mut path = replacement.strip_suffix(b"/").unwrap_or(replacement).to_vec();
                if !rest.is_empty() || replacement.ends_with(b"/") || path.is_empty() {
                    path.push(b'/');
                    path.extend_from_slice(rest);
                }
                path
            }
        }
    }
}

// RFC 3986 §3.3: pchar and "/"; "%" begins an encoded byte.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_replaced_by_whole_segments() {
        // The table of HTTPPathModifier.replacePrefixMatch in Gateway API.
        for (path, prefix, replacement, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
        ] {
            let mut req = RequestHead::new();
            req.set_target(path.as_bytes());
            let modifier = PathModifier::Prefix(replacement.as_bytes().into());
            let got = modifier.apply(&req, Some(prefix.len()));
            assert_eq!(String::from_utf8_lossy(&got), expected, "{path} {prefix} {replacement}");
        }
    }

    #[test]
    fn paths_that_are_none_are_refused() {
        let spec = |r#type, full: Option<&str>, prefix: Option<&str>| PathModifierSpec {
            r#type,
            replace_full_path: full.map(Into::into),
            replace_prefix_match: prefix.map(Into::into),
        };
        use PathModifierType::{ReplaceFullPath, ReplacePrefixMatch};
        for bad in [
            spec(ReplaceFullPath, None, None),
            spec(ReplaceFullPath, Some("x"), None),
            spec(ReplaceFullPath, Some("/x\r\ny"), None),
            spec(ReplaceFullPath, Some("/x?y"), None),
            spec(ReplacePrefixMatch, Some("/x"), Some("/y")),
        ] {
            assert!(PathModifier::compile(bad).is_err());
        }
    }
}
