//! Path matches of HTTP and gRPC routes, and their rank among each other.

use std::fmt;

use crate::normalize::{InvalidPath, Normalized, Options, normalize};
use crate::pattern::{InvalidPattern, Pattern};

/// Longest path value of a match in bytes (Gateway API).
pub const PATH_VALUE_LIMIT: usize = 1024;

/// Where regular expressions rank. Gateway API leaves it open; this is the only place that says it.
const HTTP_PATTERN_CLASS: Class = Class::BeforePrefix;

/// How a match asks for the path. Paths are in normal form ([`crate::normalize`]), also those written here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMatch(pub(crate) Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Equal, byte by byte; a slash at the end counts.
    Exact(Box<[u8]>),
    /// Equal element by element; held without slash at the end, empty for `/`.
    Prefix(Box<[u8]>),
    /// The whole path matches.
    Pattern(Pattern),
    /// Two elements, the second is this.
    GrpcMethod(Box<[u8]>),
    /// The whole path matches; which of service and method were given decides the rank.
    GrpcPattern { pattern: Pattern, service: bool, method: bool },
    /// Two elements.
    GrpcAny,
}

/// A path value that cannot be matched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPathMatch {
    /// Longer than [`PATH_VALUE_LIMIT`].
    #[error("path is longer than {PATH_VALUE_LIMIT} bytes")]
    TooLong,
    /// No request path, as it has no normal form.
    #[error("{0}")]
    Path(#[from] InvalidPath),
    /// Has empty elements.
    #[error("path has // in it")]
    EmptyElement,
    /// Has a question mark.
    #[error("path has a query: match it with queryParams")]
    Query,
    /// Not a regular expression.
    #[error("{0}")]
    Pattern(#[from] InvalidPattern),
    /// Neither a service nor a method is given.
    #[error("a gRPC method match needs a service or a method")]
    Nothing,
    /// Not the name of a gRPC service, such as `package.Service`.
    #[error("not a gRPC service: use letters, digits and _ in parts separated by dots")]
    Service,
    /// Not the name of a gRPC method.
    #[error("not a gRPC method: use letters, digits and _")]
    Method,
}

/// How a gRPC match reads its service and method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GrpcMatchType {
    /// As names.
    #[default]
    Exact,
    /// As regular expressions.
    RegularExpression,
}

/// Greater wins. The number decides within a class.
///
/// Exact paths, then prefixes by length: Gateway API. Regular expressions: open in Gateway API; here all are equal and
/// come after prefixes, so that other criteria and their order in the route decide among them. gRPC matches: by length of
/// service, then of method, which for one request means what was given: both, the service, the method, nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(pub(crate) Class, pub(crate) u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    AfterPrefix,
    Prefix,
    BeforePrefix,
    Exact,
}

impl Default for PathMatch {
    /// Every path (Gateway API: the prefix `/`).
    fn default() -> Self {
        Self(Kind::Prefix(Box::default()))
    }
}

impl PathMatch {
    /// The path is `value`.
    ///
    /// # Errors
    /// [`InvalidPathMatch`].
    pub fn exact(value: &str) -> Result<Self, InvalidPathMatch> {
        Ok(Self(Kind::Exact(normal(value)?)))
    }

    /// The path begins with the elements of `value`: `/a/b` and `/a/b/` both mean `/a/b`, `/a/b/` and `/a/b/c`, not
    /// `/a/bc`.
    ///
    /// # Errors
    /// [`InvalidPathMatch`].
    pub fn prefix(value: &str) -> Result<Self, InvalidPathMatch> {
        let path = normal(value)?;
        Ok(Self(Kind::Prefix(path.strip_suffix(b"/").unwrap_or(&path).into())))
    }

    /// The whole path matches the regular expression.
    ///
    /// # Errors
    /// [`InvalidPathMatch::Pattern`].
    pub fn pattern(text: &str) -> Result<Self, InvalidPathMatch> {
        Ok(Self(Kind::Pattern(Pattern::parse(text)?)))
    }

    /// Every gRPC method: a path of two elements. What a GRPCRoute without matches asks for. The Content-Type is not
    /// looked at, so gRPC-Web and Connect requests match as well.
    pub fn grpc_any() -> Self {
        Self(Kind::GrpcAny)
    }

    /// A gRPC service, method, or both. Empty text is the same as `None`.
    ///
    /// # Errors
    /// [`InvalidPathMatch`]; [`InvalidPathMatch::Nothing`] when neither is given.
    ///
    /// **Source**: Gateway API `GRPCMethodMatch`.
    pub fn grpc(
        kind: GrpcMatchType,
        service: Option<&str>,
        method: Option<&str>,
    ) -> Result<Self, InvalidPathMatch> {
        let service = service.filter(|text| !text.is_empty());
        let method = method.filter(|text| !text.is_empty());
        if kind == GrpcMatchType::Exact {
            if service.is_some_and(|text| !is_grpc_service(text)) {
                return Err(InvalidPathMatch::Service);
            }
            if method.is_some_and(|text| !is_identifier(text)) {
                return Err(InvalidPathMatch::Method);
            }
        }
        if service.is_none() && method.is_none() {
            return Err(InvalidPathMatch::Nothing);
        }
        Ok(Self(match (kind, service, method) {
            (GrpcMatchType::Exact, Some(service), Some(method)) => {
                Kind::Exact(format!("/{service}/{method}").into_bytes().into())
            }
            (GrpcMatchType::Exact, Some(service), None) => {
                Kind::Prefix(format!("/{service}").into_bytes().into())
            }
            (GrpcMatchType::Exact, None, method) => {
                Kind::GrpcMethod(method.unwrap_or_default().as_bytes().into())
            }
            (GrpcMatchType::RegularExpression, service, method) => {
                // Each alone first: together they could close each other's groups.
                for text in [service, method].into_iter().flatten() {
                    Pattern::parse(text)?;
                }
                let element = |text: Option<&str>| {
                    text.map_or_else(|| "[^/]+".to_owned(), |text| format!("(?:{text})"))
                };
                let pattern = Pattern::parse(&format!("/{}/{}", element(service), element(method)))?;
                Kind::GrpcPattern { pattern, service: service.is_some(), method: method.is_some() }
            }
        }))
    }

    /// True when `path`, in normal form, is asked for.
    #[inline]
    pub fn matches(&self, path: &[u8]) -> bool {
        match &self.0 {
            Kind::Exact(value) => path == &**value,
            Kind::Prefix(prefix) => match path.strip_prefix(&**prefix) {
                // `*` and the empty path are requests too: the prefix `/` means every request.
                Some(rest) => rest.is_empty() || prefix.is_empty() || rest.starts_with(b"/"),
                None => false,
            },
            Kind::Pattern(pattern) | Kind::GrpcPattern { pattern, .. } => pattern.matches(path),
            Kind::GrpcMethod(method) => grpc_method(path) == Some(method),
            Kind::GrpcAny => grpc_method(path).is_some(),
        }
    }

    /// The rest of `path` behind a matching prefix: empty or beginning with `/`. `None` when this is no prefix match or
    /// the path does not match. For replacing the prefix (Gateway API `ReplacePrefixMatch`).
    pub fn behind_prefix<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        match &self.0 {
            Kind::Prefix(prefix) if self.matches(path) => path.strip_prefix(&**prefix),
            _ => None,
        }
    }

    /// True for prefix matches.
    pub fn is_prefix(&self) -> bool {
        matches!(self.0, Kind::Prefix(_))
    }

    pub(crate) fn rank(&self) -> Rank {
        match &self.0 {
            Kind::Exact(_) => Rank(Class::Exact, 0),
            Kind::Prefix(prefix) => Rank(Class::Prefix, crate::index::saturating(prefix.len())),
            Kind::Pattern(_) => Rank(HTTP_PATTERN_CLASS, 3),
            Kind::GrpcPattern { service: true, method: true, .. } => Rank(Class::BeforePrefix, 0),
            Kind::GrpcPattern { service: true, .. } => Rank(Class::AfterPrefix, 2),
            Kind::GrpcPattern { .. } | Kind::GrpcMethod(_) => Rank(Class::AfterPrefix, 1),
            Kind::GrpcAny => Rank(Class::AfterPrefix, 0),
        }
    }
}

/// As a route template: `/users`, `/users/*`, `~ /v[0-9]+/.*`, `/*/Method`.
impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes);
        match &self.0 {
            Kind::Exact(path) => f.write_str(&text(path)),
            Kind::Prefix(prefix) => write!(f, "{}/*", text(prefix)),
            Kind::Pattern(pattern) | Kind::GrpcPattern { pattern, .. } => write!(f, "~ {pattern}"),
            Kind::GrpcMethod(method) => write!(f, "/*/{}", text(method)),
            Kind::GrpcAny => f.write_str("/*/*"),
        }
    }
}

/// The method of `/service/method`; `None` for other paths.
fn grpc_method(path: &[u8]) -> Option<&[u8]> {
    let rest = path.strip_prefix(b"/")?;
    let slash = memchr::memchr(b'/', rest)?;
    let method = rest.get(slash + 1..)?;
    (slash > 0 && !method.is_empty() && !method.contains(&b'/')).then_some(method)
}

fn normal(value: &str) -> Result<Box<[u8]>, InvalidPathMatch> {
    if value.len() > PATH_VALUE_LIMIT {
        return Err(InvalidPathMatch::TooLong);
    }
    if value.contains("//") {
        return Err(InvalidPathMatch::EmptyElement);
    }
    if value.contains('?') {
        return Err(InvalidPathMatch::Query);
    }
    let mut out = Vec::new();
    Ok(match normalize(value.as_bytes(), Options::default(), &mut out)? {
        Normalized::Same => value.as_bytes().into(),
        Normalized::Rewritten => out.into(),
    })
}

fn is_grpc_service(text: &str) -> bool {
    text.strip_prefix('.').unwrap_or(text).split('.').all(is_identifier)
}

fn is_identifier(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> PathMatch {
        PathMatch::exact(text).unwrap()
    }

    fn prefix(text: &str) -> PathMatch {
        PathMatch::prefix(text).unwrap()
    }

    fn grpc(service: &str, method: &str) -> PathMatch {
        PathMatch::grpc(GrpcMatchType::Exact, Some(service), Some(method)).unwrap()
    }

    fn grpc_pattern(service: &str, method: &str) -> PathMatch {
        PathMatch::grpc(GrpcMatchType::RegularExpression, Some(service), Some(method)).unwrap()
    }

    #[test]
    fn paths_match_as_gateway_api_says() {
        for (path_match, path, expected) in [
            (exact("/a"), "/a", true),
            (exact("/a"), "/a/", false),
            (exact("/a"), "/A", false),
            (exact("/a/"), "/a/", true),
            (exact("/%61%2db"), "/a-b", true),
            (exact("/a%3fb"), "/a%3Fb", true),
            (prefix("/abc"), "/abc", true),
            (prefix("/abc"), "/abc/", true),
            (prefix("/abc"), "/abc/def", true),
            (prefix("/abc"), "/abc//def", true),
            (prefix("/abc"), "/abcd", false),
            (prefix("/abc/"), "/abc", true),
            (prefix("/abc/"), "/abc/def", true),
            (prefix("/abc/"), "/abcd", false),
            (prefix("/a/b"), "/a", false),
            (prefix("/"), "/", true),
            (prefix("/"), "/anything", true),
            (prefix("/"), "*", true),
            (prefix("/"), "", true),
            (prefix("/a"), "*", false),
            (PathMatch::pattern("/v[12]/.*").unwrap(), "/v1/x", true),
            (PathMatch::pattern("/v[12]/.*").unwrap(), "/x/v1/x", false),
            (PathMatch::pattern("/v[12]").unwrap(), "/v1/x", false),
            (grpc("foo.Bar", "Baz"), "/foo.Bar/Baz", true),
            (grpc("foo.Bar", "Baz"), "/foo.Bar/Bazz", false),
            (grpc("foo.Bar", "Baz"), "/foo.Bar/Baz/", false),
            (grpc("foo.Bar", ""), "/foo.Bar/Anything", true),
            (grpc("foo.Bar", ""), "/foo.Barn/Anything", false),
            (grpc("", "Baz"), "/any.Service/Baz", true),
            (grpc("", "Baz"), "/Baz", false),
            (grpc("", "Baz"), "//Baz", false),
            (grpc("", "Baz"), "/a/b/Baz", false),
            (grpc_pattern("foo|bar", "B.*"), "/bar/Baz", true),
            (grpc_pattern("foo|bar", "B.*"), "/bar/xBaz", false),
            (grpc_pattern("foo|bar", ""), "/foo/x", true),
            (grpc_pattern("foo|bar", ""), "/foo/x/y", false),
            (grpc_pattern("", "Baz"), "/foo/Baz", true),
            (PathMatch::grpc_any(), "/foo/Baz", true),
            (PathMatch::grpc_any(), "/foo", false),
            (PathMatch::grpc_any(), "/foo/", false),
        ] {
            assert_eq!(path_match.matches(path.as_bytes()), expected, "{path_match} {path}");
        }
    }

    #[test]
    fn values_that_no_path_can_have_are_refused() {
        for (text, error) in [
            ("", InvalidPathMatch::Path(InvalidPath::NotAbsolute)),
            ("a", InvalidPathMatch::Path(InvalidPath::NotAbsolute)),
            ("/a//b", InvalidPathMatch::EmptyElement),
            ("/a?b", InvalidPathMatch::Query),
            ("/a#b", InvalidPathMatch::Path(InvalidPath::Fragment)),
            ("/%zz", InvalidPathMatch::Path(InvalidPath::Encoding)),
            ("/..", InvalidPathMatch::Path(InvalidPath::AboveRoot)),
        ] {
            assert_eq!(PathMatch::exact(text), Err(error.clone()), "{text}");
            assert_eq!(PathMatch::prefix(text), Err(error), "{text}");
        }
        assert_eq!(PathMatch::exact(&format!("/{}", "a".repeat(1024))), Err(InvalidPathMatch::TooLong));
        assert!(PathMatch::pattern("(").is_err());
        for (service, method, error) in [
            ("", "", InvalidPathMatch::Nothing),
            ("a/b", "", InvalidPathMatch::Service),
            ("a..b", "", InvalidPathMatch::Service),
            ("1a", "", InvalidPathMatch::Service),
            ("a", "b.c", InvalidPathMatch::Method),
        ] {
            let got = PathMatch::grpc(GrpcMatchType::Exact, Some(service), Some(method));
            assert_eq!(got, Err(error), "{service} {method}");
        }
        assert!(PathMatch::grpc(GrpcMatchType::RegularExpression, Some("a)|(b"), None).is_err());
    }

    #[test]
    fn more_specific_paths_rank_higher() {
        let ordered =
            [exact("/a"), PathMatch::pattern(".*").unwrap(), prefix("/a/b"), prefix("/a"), prefix("/")];
        for pair in ordered.windows(2) {
            assert!(pair[0].rank() > pair[1].rank(), "{} {}", pair[0], pair[1]);
        }
        let grpc_ordered = [
            grpc("a", "b"),
            grpc_pattern("a", "b"),
            grpc("a", ""),
            grpc_pattern("a", ""),
            grpc("", "b"),
            PathMatch::grpc_any(),
        ];
        for pair in grpc_ordered.windows(2) {
            assert!(pair[0].rank() > pair[1].rank(), "{} {}", pair[0], pair[1]);
        }
        assert_eq!(prefix("/a/").rank(), prefix("/a").rank());
    }

    #[test]
    fn the_rest_behind_a_prefix_keeps_its_slash() {
        for (path_match, path, expected) in [
            (prefix("/a"), "/a/b", Some("/b")),
            (prefix("/a/"), "/a/b", Some("/b")),
            (prefix("/a"), "/a", Some("")),
            (prefix("/"), "/a", Some("/a")),
            (prefix("/a"), "/ab", None),
            (exact("/a"), "/a", None),
        ] {
            assert_eq!(
                path_match.behind_prefix(path.as_bytes()),
                expected.map(str::as_bytes),
                "{path_match} {path}"
            );
        }
    }
}
