//! Several TLS servers on one port, chosen by the name that the client asks for.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls_pki_types::DnsName;

use crate::error::{Error, Problem};
use crate::server::ServerTls;

/// The TLS servers of one port: hostname patterns, each with its settings. Immutable, and cheap
/// to clone.
///
/// A Gateway's listeners that share a port differ in hostname, certificates and client
/// authentication. The most specific pattern wins: an exact hostname, then the longest wildcard,
/// then the server without a hostname. Without any that fits the handshake is refused with the
/// alert unrecognized_name (RFC 6066 §3).
#[derive(Clone)]
pub struct ServerTlsSet {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    servers: Vec<ServerTls>,
    /// Where a name is, as an index into `servers`.
    exact: HashMap<Box<str>, usize>,
    /// Suffixes of wildcards without their `*.`.
    wildcard: HashMap<Box<str>, usize>,
    default: Option<usize>,
}

impl ServerTlsSet {
    /// A set that gives every client the same server.
    #[must_use]
    pub fn single(server: ServerTls) -> Self {
        let inner = Inner { servers: vec![server], default: Some(0), ..Inner::default() };
        Self { inner: Arc::new(inner) }
    }

    /// An empty set to fill.
    #[must_use]
    pub fn builder() -> ServerTlsSetBuilder {
        ServerTlsSetBuilder { inner: Inner::default() }
    }

    /// The server for this name (lower case, as in [`ClientHello::server_name`]) and its index in
    /// the order of the builder's calls.
    ///
    /// [`ClientHello::server_name`]: crate::ClientHello::server_name
    #[must_use]
    pub fn select(&self, server_name: Option<&str>) -> Option<(usize, &ServerTls)> {
        let inner = &*self.inner;
        let index = server_name.and_then(|name| inner.find(name)).or(inner.default)?;
        inner.servers.get(index).map(|server| (index, server))
    }

    /// The servers in the order of the builder's calls.
    pub fn servers(&self) -> impl Iterator<Item = &ServerTls> {
        self.inner.servers.iter()
    }
}

impl fmt::Debug for ServerTlsSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTlsSet")
            .field("exact", &self.inner.exact)
            .field("wildcard", &self.inner.wildcard)
            .field("default", &self.inner.default)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn find(&self, name: &str) -> Option<usize> {
        if let Some(&index) = self.exact.get(name) {
            return Some(index);
        }
        // Gateway API: a wildcard stands for one label or more, and never for none. A DNS name has
        // at most 127 labels.
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(&index) = self.wildcard.get(parent) {
                return Some(index);
            }
            rest = parent;
        }
        None
    }
}

/// Collects the servers of one port.
pub struct ServerTlsSetBuilder {
    inner: Inner,
}

impl ServerTlsSetBuilder {
    /// Adds a server for a hostname, for a wildcard (`*.example.com`), or for all names that no
    /// other one fits (`None`).
    ///
    /// **Errors**: [`Problem::ServerName`] where the pattern is neither, [`Problem::DuplicateName`]
    /// where it was added before.
    pub fn add(mut self, pattern: Option<&str>, server: ServerTls) -> Result<Self, Error> {
        let index = self.inner.servers.len();
        let text = pattern.unwrap_or("*").trim_end_matches('.').to_ascii_lowercase();
        let fail = |problem| Error::new("tls listener", problem);
        let before = if text == "*" {
            self.inner.default.replace(index)
        } else {
            let (map, name) = match text.strip_prefix("*.") {
                Some(suffix) => (&mut self.inner.wildcard, suffix),
                None => (&mut self.inner.exact, text.as_str()),
            };
            if DnsName::try_from(name).is_err() {
                return Err(fail(Problem::ServerName(text)));
            }
            map.insert(name.into(), index)
        };
        if before.is_some() {
            return Err(fail(Problem::DuplicateName(text)));
        }
        self.inner.servers.push(server);
        Ok(self)
    }

    /// The finished set.
    #[must_use]
    pub fn build(self) -> ServerTlsSet {
        ServerTlsSet { inner: Arc::new(self.inner) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ServerSpec;
    use crate::testing::Authority;

    fn server() -> ServerTls {
        ServerTls::build(ServerSpec::new(vec![Authority::new("ca").issue(&["a.test"])], "test")).unwrap()
    }

    #[test]
    fn the_most_specific_pattern_wins() {
        let server = server();
        let patterns = [Some("a.test"), Some("*.a.test"), Some("*.B.a.test."), Some("x.b.a.test"), None];
        let set = patterns
            .into_iter()
            .try_fold(ServerTlsSet::builder(), |set, pattern| set.add(pattern, server.clone()))
            .unwrap()
            .build();
        let cases = [
            (Some("a.test"), 0),
            (Some("www.a.test"), 1),
            (Some("x.y.a.test"), 1),
            (Some("b.a.test"), 1),
            (Some("y.b.a.test"), 2),
            (Some("x.b.a.test"), 3),
            (Some("test"), 4),
            (Some("na.test"), 4),
            (None, 4),
        ];
        for (name, expected) in cases {
            assert_eq!(set.select(name).map(|(index, _)| index), Some(expected), "{name:?}");
        }
        assert_eq!(set.servers().count(), 5);
    }

    #[test]
    fn without_a_default_unknown_names_have_no_server() {
        let set = ServerTlsSet::builder().add(Some("*.a.test"), server()).unwrap().build();
        assert!(set.select(Some("x.a.test")).is_some());
        for name in [Some("a.test"), Some("b.test"), None] {
            assert!(set.select(name).is_none(), "{name:?}");
        }
    }

    #[test]
    fn bad_and_repeated_patterns_are_refused() {
        let server = server();
        for (first, second, expected) in [
            (Some("a.test"), Some("A.test"), "tls listener: hostname \"a.test\" is given twice"),
            (Some("*.a.test"), Some("*.a.test"), "tls listener: hostname \"*.a.test\" is given twice"),
            (None, Some("*"), "tls listener: hostname \"*\" is given twice"),
            (None, Some("a.*.test"), "tls listener: \"a.*.test\" is not a valid server name"),
            (None, Some(""), "tls listener: \"\" is not a valid server name"),
        ] {
            let set = ServerTlsSet::builder().add(first, server.clone()).unwrap();
            let error = set.add(second, server.clone()).err().unwrap();
            assert_eq!(error.to_string(), expected);
        }
    }
}
