//! SPIFFE IDs: who a workload is. SPIFFE-ID standard §2.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

/// The longest SPIFFE ID. SPIFFE-ID §2.3. Unit: bytes.
pub const MAX_ID: usize = 2048;

/// The longest name of a trust domain. SPIFFE-ID §2.3. Unit: bytes.
pub const MAX_TRUST_DOMAIN: usize = 255;

const SCHEME: &str = "spiffe://";

/// What is wrong with a text that should be a SPIFFE ID or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalid {
    /// It does not begin with `spiffe://`, in lower case.
    Scheme,
    /// It is above [`MAX_ID`].
    TooLong,
    /// The trust domain is empty, too long, or has other characters than `a-z`, `0-9`, `.`, `-`, `_`. Ports, user names
    /// and upper case are among these.
    TrustDomain,
    /// A segment of the path is empty, `.` or `..`, or the path ends with a slash.
    Segment,
    /// The path has other characters than letters, digits, `.`, `-`, `_`. Percent-encoding, query and fragment are among
    /// these.
    Path,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "a SPIFFE ID begins with \"spiffe://\"",
            Self::TooLong => "a SPIFFE ID has at most 2048 characters",
            Self::TrustDomain => {
                "a trust domain has 1 to 255 characters of \"a-z\", \"0-9\", \".\", \"-\" and \"_\""
            }
            Self::Segment => "no part of the path of a SPIFFE ID is empty, \".\" or \"..\"",
            Self::Path => "the path of a SPIFFE ID has letters, digits, \".\", \"-\" and \"_\" only",
        })
    }
}

impl std::error::Error for Invalid {}

/// The name of a trust domain: `cluster.local`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Reads a name.
    ///
    /// **Errors**: [`Invalid::TrustDomain`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if is_trust_domain(text) { Ok(Self(text.into())) } else { Err(Invalid::TrustDomain) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The identity of a service account: `spiffe://TD/ns/NAMESPACE/sa/ACCOUNT`, the form of Istio and of everything
    /// here.
    ///
    /// **Errors**: [`Invalid::Path`], [`Invalid::Segment`] for names that no path can have, [`Invalid::TooLong`].
    pub fn workload(&self, namespace: &str, account: &str) -> Result<SpiffeId, Invalid> {
        for segment in [namespace, account] {
            check_segment(segment)?;
        }
        SpiffeId::parse(&format!("{SCHEME}{}/ns/{namespace}/sa/{account}", self.0))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for TrustDomain {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

/// A SPIFFE ID: `spiffe://cluster.local/ns/default/sa/orders`. Cheap to clone; compared byte by byte, which is right
/// because no two spellings of one ID parse.
#[derive(Clone)]
pub struct SpiffeId {
    text: Arc<str>,
    /// Where the path begins, or the text's length where there is none.
    path_at: u16,
}

impl SpiffeId {
    /// Reads an ID, strictly: lower case, no port, no query, nothing percent-encoded.
    ///
    /// **Errors**: see [`Invalid`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() > MAX_ID {
            return Err(Invalid::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(Invalid::Scheme)?;
        let (domain, path) = match rest.split_once('/') {
            Some((domain, path)) => (domain, Some(path)),
            None => (rest, None),
        };
        if !is_trust_domain(domain) {
            return Err(Invalid::TrustDomain);
        }
        if let Some(path) = path {
            path.split('/').try_for_each(check_segment)?;
        }
        let path_at = u16::try_from(SCHEME.len() + domain.len()).map_err(|_| Invalid::TooLong)?;
        Ok(Self { text: text.into(), path_at })
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The shared text itself, for holders that outlive this value.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }

    /// The name of its trust domain.
    pub fn trust_domain(&self) -> &str {
        self.text.get(SCHEME.len()..usize::from(self.path_at)).unwrap_or_default()
    }

    /// Whether it is of this trust domain.
    pub fn is_member_of(&self, domain: &TrustDomain) -> bool {
        self.trust_domain() == domain.as_str()
    }

    /// The path with its leading slash; empty where the ID is that of the trust domain itself.
    pub fn path(&self) -> &str {
        self.text.get(usize::from(self.path_at)..).unwrap_or_default()
    }

    /// Namespace and service account, where the path is `/ns/NAMESPACE/sa/ACCOUNT` and nothing else.
    pub fn account(&self) -> Option<(&str, &str)> {
        let rest = self.path().strip_prefix("/ns/")?;
        let (namespace, rest) = rest.split_once('/')?;
        let account = rest.strip_prefix("sa/")?;
        (!account.contains('/')).then_some((namespace, account))
    }

    /// The namespace, where the path has the form of [`account`](Self::account).
    pub fn namespace(&self) -> Option<&str> {
        self.account().map(|(namespace, _)| namespace)
    }

    /// The service account, where the path has the form of [`account`](Self::account).
    pub fn service_account(&self) -> Option<&str> {
        self.account().map(|(_, account)| account)
    }
}

impl PartialEq for SpiffeId {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for SpiffeId {}

impl PartialOrd for SpiffeId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SpiffeId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for SpiffeId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// Sets of IDs answer for texts.
impl std::borrow::Borrow<str> for SpiffeId {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl FromStr for SpiffeId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

fn is_trust_domain(text: &str) -> bool {
    let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    (1..=MAX_TRUST_DOMAIN).contains(&text.len()) && text.bytes().all(is_allowed)
}

fn check_segment(segment: &str) -> Result<(), Invalid> {
    if matches!(segment, "" | "." | "..") {
        return Err(Invalid::Segment);
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if segment.bytes().all(is_allowed) { Ok(()) } else { Err(Invalid::Path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_an_id_are_read() {
        let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/orders").unwrap();
        assert_eq!(id.trust_domain(), "cluster.local");
        assert_eq!(id.path(), "/ns/shop/sa/orders");
        assert_eq!(id.account(), Some(("shop", "orders")));
        let domain = TrustDomain::parse("cluster.local").unwrap();
        assert!(id.is_member_of(&domain));
        assert_eq!(domain.workload("shop", "orders").unwrap(), id);

        let other = SpiffeId::parse("spiffe://example.org/Payments_v1.2/web-fe").unwrap();
        assert_eq!((other.namespace(), other.service_account()), (None, None));
        assert!(!other.is_member_of(&domain));
        assert_eq!(SpiffeId::parse("spiffe://td").unwrap().path(), "");
        for path in ["ns/a/sa/b/c", "ns/a/sa", "ns/a/b/c", "x/ns/a/sa/b"] {
            assert_eq!(SpiffeId::parse(&format!("spiffe://td/{path}")).unwrap().account(), None, "{path}");
        }
    }

    #[test]
    fn each_other_spelling_is_refused() {
        let long_domain = format!("spiffe://{}/a", "d".repeat(MAX_TRUST_DOMAIN + 1));
        let long = format!("spiffe://td/{}", "a".repeat(MAX_ID));
        for (text, expected) in [
            ("", Invalid::Scheme),
            ("https://td/a", Invalid::Scheme),
            ("SPIFFE://td/a", Invalid::Scheme),
            ("spiffe:/td/a", Invalid::Scheme),
            ("spiffe://", Invalid::TrustDomain),
            ("spiffe:///a", Invalid::TrustDomain),
            ("spiffe://Td/a", Invalid::TrustDomain),
            ("spiffe://td:80/a", Invalid::TrustDomain),
            ("spiffe://user@td/a", Invalid::TrustDomain),
            ("spiffe://td?x", Invalid::TrustDomain),
            (&long_domain, Invalid::TrustDomain),
            ("spiffe://td/", Invalid::Segment),
            ("spiffe://td/a/", Invalid::Segment),
            ("spiffe://td//a", Invalid::Segment),
            ("spiffe://td/a/../b", Invalid::Segment),
            ("spiffe://td/./b", Invalid::Segment),
            ("spiffe://td/a%2fb", Invalid::Path),
            ("spiffe://td/a?b", Invalid::Path),
            ("spiffe://td/a#b", Invalid::Path),
            ("spiffe://td/ä", Invalid::Path),
            ("spiffe://td/a b", Invalid::Path),
            (&long, Invalid::TooLong),
        ] {
            assert_eq!(SpiffeId::parse(text), Err(expected), "{text}");
        }
        let domain = TrustDomain::parse("td").unwrap();
        assert_eq!(domain.workload("a/sa/b", "c"), Err(Invalid::Path));
        assert_eq!(domain.workload("..", "c"), Err(Invalid::Segment));
        assert_eq!(domain.workload("a", ""), Err(Invalid::Segment));
    }

    #[test]
    fn the_longest_id_parses() {
        let domain = "d".repeat(MAX_TRUST_DOMAIN);
        let head = format!("spiffe://{domain}/");
        let text = format!("{head}{}", "a".repeat(MAX_ID - head.len()));
        let id = SpiffeId::parse(&text).unwrap();
        assert_eq!((id.trust_domain(), id.path().len()), (domain.as_str(), MAX_ID - head.len() + 1));
    }
}
