//! Who may ask the admin listener for what, and how connections to it are made.

use std::sync::Arc;

use rhumb_policy::sign_in::SignIn;
use rhumb_tls::{Peer, ServerTls};

/// What somebody may do. Each one may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Looks at everything that is no secret.
    Viewer,
    /// Changes documents, and looks at requests.
    Editor,
    /// Everything.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Editor, Self::Admin];

    /// Its place among [`Self::ALL`].
    pub fn rank(self) -> u8 {
        self as u8
    }
}

/// What is written about access.
#[derive(Default)]
pub struct Access {
    /// DNS names under which it may be asked by who shows no token, in lower case.
    pub hosts: Vec<Box<str>>,
    /// What it is encrypted with, and the hash of what that is made of.
    pub tls: Option<(u64, ServerTls)>,
    /// What clients with a certificate may do.
    pub clients: Vec<Client>,
    /// Login at a provider.
    pub oidc: Option<Oidc>,
}

/// What somebody with a certificate may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// What.
    pub role: Role,
    /// Names, one of which the certificate has; with `*` at the end, what they begin with.
    pub names: Vec<Box<str>>,
}

/// Login at a provider.
pub struct Oidc {
    /// What people call it.
    pub name: Box<str>,
    /// Where browsers come back to, where that is written.
    pub redirect_uri: Option<Box<str>>,
    /// The login.
    pub sign_in: Arc<SignIn>,
}

impl Access {
    /// What somebody with this certificate, which was verified, is called and may do.
    pub fn of_certificate(&self, peer: &Peer) -> Option<(String, Role)> {
        let names = || peer.uris.iter().chain(&peer.emails).chain(&peer.dns_names);
        let fits = |client: &&Client| names().any(|name| client.is(name));
        let best = self.clients.iter().filter(fits).max_by_key(|client| client.role)?;
        let name = names().find(|name| best.is(name))?;
        Some((name.clone(), best.role))
    }
}

impl Client {
    fn is(&self, name: &str) -> bool {
        self.names.iter().any(|own| match own.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => **own == *name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_opens_what_its_names_may_and_nothing_without_one() {
        let client =
            |role, names: &[&str]| Client { role, names: names.iter().map(|&name| name.into()).collect() };
        let access = Access {
            clients: vec![
                client(Role::Viewer, &["spiffe://mesh.test/ns/ops/*", "ann@example.com"]),
                client(Role::Admin, &["spiffe://mesh.test/ns/ops/root"]),
            ],
            ..Access::default()
        };
        let peer = |uri: &str, email: &str| Peer {
            subject: "CN=spiffe://mesh.test/ns/ops/root".to_owned(),
            serial: String::new(),
            dns_names: Vec::new(),
            uris: vec![uri.to_owned()],
            emails: vec![email.to_owned()],
            addresses: Vec::new(),
            fingerprint: [0; 32],
            not_before_unix: 0,
            not_after_unix: 0,
        };
        let role = |uri, email| access.of_certificate(&peer(uri, email)).map(|(_, role)| role);
        assert_eq!(role("spiffe://mesh.test/ns/ops/root", ""), Some(Role::Admin));
        assert_eq!(role("spiffe://mesh.test/ns/ops/bot", ""), Some(Role::Viewer));
        assert_eq!(role("spiffe://mesh.test/ns/shop/web", ""), None);
        assert_eq!(role("spiffe://mesh.test/ns/shop/web", "ann@example.com"), Some(Role::Viewer));
        assert_eq!(role("xspiffe://mesh.test/ns/ops/root", "ann@example.com.evil"), None);
    }
}
