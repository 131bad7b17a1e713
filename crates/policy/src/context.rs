//! What a policy may ask for when it is compiled, and how it names services that it will ask at run time.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rhumb_codec::head::Scheme;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::consumers::Consumers;
use crate::policy::Invalid;

/// Longest URL that a policy may name, in bytes.
pub const URL_MAX: usize = 2048;

/// Documents beside the policy's own.
pub trait Documents {
    /// The content of a key of a Secret in the policy's namespace.
    ///
    /// # Errors
    /// What is missing, for people.
    fn secret(&mut self, namespace: &str, name: &str, key: &str) -> Result<Box<[u8]>, String>;

    /// The Consumers of a namespace.
    fn consumers(&mut self, _namespace: &str) -> Arc<Consumers> {
        Arc::default()
    }
}

/// Where there are no documents.
pub struct NoDocuments;

impl Documents for NoDocuments {
    fn secret(&mut self, namespace: &str, name: &str, _: &str) -> Result<Box<[u8]>, String> {
        Err(format!("no Secret `{name}` in namespace `{namespace}`"))
    }
}

/// What surrounds a policy while it is compiled.
pub struct Context<'a> {
    namespace: &'a str,
    /// Names the policy: the same in each revision, different for each policy.
    place: &'a str,
    documents: &'a mut dyn Documents,
    keeper: &'a Keeper,
    wants: Vec<Want>,
    has_looked: bool,
}

impl<'a> Context<'a> {
    /// The surroundings of a policy at `place`, a name that stays the same from revision to revision.
    pub fn new(
        namespace: &'a str,
        place: &'a str,
        documents: &'a mut dyn Documents,
        keeper: &'a Keeper,
    ) -> Self {
        Self { namespace, place, documents, keeper, wants: Vec::new(), has_looked: false }
    }

    /// The policy's namespace.
    pub fn namespace(&self) -> &'a str {
        self.namespace
    }

    /// Names the policy: the same in each revision, and in every process with the same documents.
    pub fn place(&self) -> &'a str {
        self.place
    }

    /// Backends that the policy will ask, in the order in which it named them.
    pub fn take_wants(&mut self) -> Vec<Want> {
        std::mem::take(&mut self.wants)
    }

    /// True when other documents than the policy's own were read: a change of theirs may change the policy.
    pub fn has_looked(&self) -> bool {
        self.has_looked
    }

    /// A secret value, as written or out of a Secret.
    ///
    /// # Errors
    /// When there is no such Secret or key.
    pub fn secret(&mut self, field: &str, source: &SecretValue) -> Result<Box<[u8]>, Invalid> {
        match source {
            SecretValue::Plain(text) => Ok(text.as_bytes().into()),
            SecretValue::Of { secret_ref } => {
                self.has_looked = true;
                let content = self.documents.secret(self.namespace, &secret_ref.name, &secret_ref.key);
                let field = format!("{field}.secretRef");
                content.map_err(|why| Invalid::new(field, why, "add it, or mend the reference"))
            }
        }
    }

    /// The Consumers of the policy's namespace.
    pub fn consumers(&mut self) -> Arc<Consumers> {
        self.has_looked = true;
        self.documents.consumers(self.namespace)
    }

    /// A Backend of the policy's namespace that will be asked.
    pub fn backend(&mut self, field: &str, name: &str) -> Remote {
        let backend: Arc<str> = format!("{}/{name}", self.namespace).into();
        self.wants.push(Want { backend: Arc::clone(&backend), field: field.to_owned(), origin: None });
        Remote { backend, scheme: Scheme::Http, authority: name.into() }
    }

    /// The service at a URL, and the path with query to ask for. Connections to it are made as `backend` says, a Backend of
    /// the policy's namespace; without one, as those to a Backend with the URL's host as DNS name are.
    ///
    /// # Errors
    /// When it is no absolute URL of http or https.
    pub fn url(
        &mut self,
        field: &str,
        url: &str,
        backend: Option<&str>,
    ) -> Result<(Remote, Box<str>), Invalid> {
        let (origin, path) = Origin::parse(url).map_err(|why| {
            Invalid::new(field, format!("`{url}` {why}"), "write https://HOST/PATH, or http://HOST:PORT/PATH")
        })?;
        let scheme = if origin.is_tls { Scheme::Https } else { Scheme::Http };
        let authority = origin.authority().into();
        let (backend, origin): (Arc<str>, _) = match backend {
            Some(name) => (format!("{}/{name}", self.namespace).into(), None),
            None => (origin.to_string().into(), Some(origin)),
        };
        self.wants.push(Want { backend: Arc::clone(&backend), field: field.to_owned(), origin });
        Ok((Remote { backend, scheme, authority }, path))
    }

    /// What lives from revision to revision under a name of the policy's: made when it is not there.
    pub fn keep<T: Any + Send + Sync>(&self, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
        self.keeper.keep(&format!("{}\0{name}", self.place), make)
    }

    /// What lives from revision to revision, and is the same for every policy that names it so.
    pub fn share<T: Any + Send + Sync>(&self, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
        self.keeper.keep(name, make)
    }
}

/// A value that nobody should see: written where it is used, or in a Secret.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SecretValue {
    /// As it is. `${NAME}` takes it from the environment, `file:PATH` from a file.
    Plain(String),
    /// Out of a Secret of the same namespace.
    #[serde(rename_all = "camelCase")]
    Of {
        /// Which.
        secret_ref: SecretKeyRef,
    },
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("(secret)"),
            Self::Of { secret_ref } => write!(f, "Secret {} key {}", secret_ref.name, secret_ref.key),
        }
    }
}

/// A key of a Secret.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    pub name: String,
    /// Key in it.
    pub key: String,
}

/// A backend that some policy will ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Its name in the plan: `namespace/name`, or the origin.
    pub backend: Arc<str>,
    /// The field of the policy that names it.
    pub field: String,
    /// Where it is, when no Backend document says so.
    pub origin: Option<Origin>,
}

/// Scheme, host and port of a URL (RFC 6454 §4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// `https`.
    pub is_tls: bool,
    /// Name or address; an IPv6 address has its brackets.
    pub host: Box<str>,
    /// Port.
    pub port: u16,
}

impl Origin {
    /// Splits an absolute URL into its origin and the rest.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(url: &str) -> Result<(Self, Box<str>), &'static str> {
        if url.len() > URL_MAX {
            return Err("is too long");
        }
        let (is_tls, rest) = match url.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err("is no absolute URL"),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        if authority.contains('@') {
            return Err("has a user name in it");
        }
        if !rest.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("has characters that a URL cannot have");
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, port.parse().map_err(|_| "has a wrong port")?)
            }
            _ => (authority, if is_tls { 443 } else { 80 }),
        };
        if host.is_empty() || port == 0 {
            return Err("has no host or port");
        }
        let path = match path.as_bytes().first() {
            Some(b'/') => path.into(),
            _ => format!("/{path}").into(),
        };
        Ok((Self { is_tls, host: host.to_ascii_lowercase().into(), port }, path))
    }

    /// `Host` for it: without the port where that is the scheme's own.
    pub fn authority(&self) -> String {
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => self.host.to_string(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}:{}", if self.is_tls { "s" } else { "" }, self.host, self.port)
    }
}

/// A service that a policy asks: a backend of the plan in force, found by name when it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its name in the plan.
    pub backend: Arc<str>,
    /// Scheme of requests to it.
    pub scheme: Scheme,
    /// `Host` of requests to it, when they have none of their own.
    pub authority: Box<str>,
}

/// Things that live from revision to revision as long as some revision holds them: counters, keys that were fetched.
#[derive(Clone, Default)]
pub struct Keeper(Arc<Mutex<Kept>>);

type Kept = HashMap<Box<str>, Weak<dyn Any + Send + Sync>>;

impl Keeper {
    fn keep<T: Any + Send + Sync>(&self, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = kept.get(name).and_then(Weak::upgrade);
        if let Some(same) = alive.and_then(|alive| alive.downcast().ok()) {
            return same;
        }
        let made = Arc::new(make());
        let weak: Weak<T> = Arc::downgrade(&made);
        kept.insert(name.into(), weak);
        made
    }

    /// Forgets what no revision holds any more.
    pub fn tidy(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, kept| kept.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_an_origin_and_a_path() {
        for (url, origin, authority, path) in [
            (
                "https://id.example.com/keys?a=1#x",
                "https://id.example.com:443",
                "id.example.com",
                "/keys?a=1",
            ),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "127.0.0.1:8080", "/"),
            ("https://[::1]/x", "https://[::1]:443", "[::1]", "/x"),
            ("http://[::1]:81?q", "http://[::1]:81", "[::1]:81", "/?q"),
        ] {
            let (parsed, rest) = Origin::parse(url).unwrap();
            assert_eq!(
                (parsed.to_string().as_str(), parsed.authority().as_str(), &*rest),
                (origin, authority, path)
            );
        }
        for url in
            ["id.example.com/keys", "ftp://a/", "https://", "https://u:p@a/", "http://a:x/", "http://a/ b"]
        {
            assert!(Origin::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn what_is_kept_lives_as_long_as_somebody_holds_it() {
        let keeper = Keeper::default();
        let first = keeper.keep("a", || 1u32);
        assert!(Arc::ptr_eq(&first, &keeper.keep("a", || 2u32)));
        assert_eq!(*keeper.keep("b", || 3u32), 3);
        drop(first);
        assert_eq!(*keeper.keep("a", || 4u32), 4);
        keeper.tidy();
        assert!(keeper.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", SecretValue::Plain("hunter2".into())), "(secret)");
    }
}
