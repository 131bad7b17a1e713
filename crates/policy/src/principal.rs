//! Who asks, once that is proven.

use std::sync::Arc;

use serde_json::{Map, Value};

/// Who asks. Authentication makes one per exchange: the first that proves something makes it, others add to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Principal {
    /// How it was proven first: the kind of the policy, `jwt`.
    pub method: &'static str,
    /// Who, as the issuer names it: the subject of a token, the name of a user or key.
    pub subject: Box<str>,
    /// Who says so; empty when this gateway itself does.
    pub issuer: Box<str>,
    /// What else the issuer says: the claims of a token.
    pub claims: Arc<Map<String, Value>>,
    /// What it may do, as the issuer names it.
    pub scopes: Box<[Box<str>]>,
    /// The consumer that the credentials belong to.
    pub consumer: Option<Arc<Consumer>>,
}

/// A consumer of APIs: a person, a team or a program that was registered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Consumer {
    /// `namespace/name` of its document.
    pub name: Box<str>,
    /// Groups that it is in.
    pub groups: Box<[Box<str>]>,
    /// What else is known of it.
    pub attributes: Map<String, Value>,
    /// Its plan; empty when it has none.
    pub plan: Box<str>,
}

/// What the client's TLS certificate says, once the listener has verified it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// The subject as RFC 4514 writes it: `CN=api,O=Example`. May be empty.
    pub subject: Box<str>,
    /// Serial number in lower-case hexadecimal.
    pub serial: Box<str>,
    /// dNSName entries of the subject alternative name.
    pub dns_names: Box<[Box<str>]>,
    /// URI entries of the subject alternative name.
    pub uris: Box<[Box<str>]>,
    /// rfc822Name entries of the subject alternative name.
    pub emails: Box<[Box<str>]>,
    /// iPAddress entries of the subject alternative name.
    pub addresses: Box<[Box<str>]>,
    /// SHA-256 of the certificate in lower-case hexadecimal.
    pub fingerprint: Box<str>,
    /// The SPIFFE ID; empty when it has none.
    pub spiffe_id: Box<str>,
    /// End of validity. **Unit**: seconds since 1970.
    pub not_after: i64,
}

impl Certificate {
    /// Every name of the subject alternative name: DNS names, URIs, mail and IP addresses.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let lists = [&self.dns_names, &self.uris, &self.emails, &self.addresses];
        lists.into_iter().flat_map(|list| list.iter().map(|name| &**name))
    }
}

impl Principal {
    /// What another authentication of the same exchange found is added where this one has nothing.
    pub fn join(&mut self, other: &Self) {
        if self.consumer.is_none() {
            self.consumer.clone_from(&other.consumer);
        }
        if self.claims.is_empty() {
            self.claims = Arc::clone(&other.claims);
        }
        if self.scopes.is_empty() {
            self.scopes.clone_from(&other.scopes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_proof_names_who_it_is() {
        let consumer = Arc::new(Consumer { name: "default/acme".into(), ..Consumer::default() });
        let mut principal = Principal {
            method: "jwt",
            subject: "ann".into(),
            scopes: ["read".into()].into(),
            ..Principal::default()
        };
        let key = Principal {
            method: "apiKey",
            subject: "k1".into(),
            scopes: ["write".into()].into(),
            consumer: Some(Arc::clone(&consumer)),
            ..Principal::default()
        };
        principal.join(&key);
        assert_eq!((principal.method, &*principal.subject, &*principal.scopes[0]), ("jwt", "ann", "read"));
        assert_eq!(principal.consumer, Some(consumer));
    }
}
