//! The listener for operators, and who may ask it for what: the field `admin` of a ProxyConfig.

use serde_json::json;

use super::secret::SecretText;
use crate::decode::{Decode, Decoder, Defs, List, choice, object};
use crate::diag::Rule;
use crate::scalar::SocketAddress;
use crate::span::Spanned;
use crate::value::Node;

object! {
    /// The listener for operators.
    pub struct Admin as "admin" {
        /// Whether there is one. Default: yes.
        "enabled" enabled: Option<Spanned<bool>>,
        /// Where it listens. Default: 127.0.0.1:9901. From other machines all but probes needs credentials; use `tls` then.
        "address" address: Option<Spanned<SocketAddress>>,
        /// Where named tokens and the audit log are kept; `--admin-directory` of the command line comes first. Default: the
        /// state directory of the systemd unit, or the directory of the token.
        "directory" directory: Option<Spanned<Box<str>>>,
        /// DNS names under which it may be asked without a token. Default: IP addresses and `localhost` only, so that no page
        /// of elsewhere reaches it by a name of its own (DNS rebinding).
        "hosts" hosts: List<Spanned<Box<str>>, 0, 64>,
        /// Encrypt, and know clients by their certificates. Default: plain text.
        "tls" tls: Option<AdminTls>,
        /// What clients may do that show a certificate which `tls.clientCa` has signed. Who is not named may do nothing by it.
        "clients" clients: List<AdminClient, 0, 256>,
        /// People log in at an OpenID Connect provider, and programs show its tokens. Default: by tokens of Rhumb only.
        "oidc" oidc: Option<AdminOidc>,
    }
    check Admin::check;
}

impl Admin {
    fn check(&self, cx: &mut Decoder<'_>) {
        for host in self.hosts.iter().filter(|host| !is_host(host)) {
            let diag = cx
                .error(Rule::BadValue, host.span, format!("`{}` is no DNS name", &*host.value))
                .fix("write the name alone, in lower case and without port: `rhumb.example.com`");
            cx.push(diag);
        }
        let has_ca = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if let Some(client) = self.clients.iter().next()
            && !has_ca
            && !self.broken
        {
            let diag = cx
                .error(Rule::MissingField, client.span, "clients without a CA that signs for them")
                .why("a certificate that nobody has checked says nothing")
                .fix("add `tls.clientCa: file:clients-ca.pem`");
            cx.push(diag);
        }
    }
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

object! {
    /// TLS of the admin listener.
    pub struct AdminTls as "the tls of admin" {
        /// The certificate chain: PEM, as `file:PATH`. Read again when the file changes.
        "certificate" certificate: Spanned<Box<str>>,
        /// Its private key: PEM, as `file:PATH`.
        "key" key: Spanned<SecretText>,
        /// CAs that sign certificates of clients: PEM, as `file:PATH`. Who shows none is asked for other credentials; one
        /// that does not verify is refused. Default: clients are asked for none.
        "clientCa" client_ca: Option<Spanned<Box<str>>>,
    }
}

object! {
    /// What somebody with a certificate may do.
    pub struct AdminClient as "a client" {
        /// viewer, editor or admin.
        "role" role: Spanned<AdminRole>,
        /// Subject alternative names, one of which the certificate has: a SPIFFE ID or another URI, a DNS name, an e-mail
        /// address. `*` at the end stands for the rest.
        "names" names: List<Spanned<Box<str>>, 1, 64>,
    }
    check AdminClient::check;
}

impl AdminClient {
    fn check(&self, cx: &mut Decoder<'_>) {
        for name in self.names.iter() {
            let start = name.trim_end_matches('*');
            if start.is_empty() || start.contains('*') || name.len() > start.len() + 1 {
                let diag = cx
                    .error(Rule::BadValue, name.span, format!("`{}` names too many", &*name.value))
                    .why("`*` may stand once, at the end, behind what all of them begin with")
                    .fix("write `spiffe://example.org/ns/ops/*`");
                cx.push(diag);
            }
        }
    }
}

choice! {
    /// What somebody may do. Each one may do what those before it may.
    pub enum AdminRole as "role" {
        /// Looks at everything that is no secret.
        Viewer = "viewer",
        /// Changes documents, and looks at requests.
        Editor = "editor",
        /// Everything.
        Admin = "admin",
    }
}

object! {
    /// Login by OpenID Connect: authorization code with PKCE.
    pub struct AdminOidc as "the oidc of admin" {
        /// The provider, as its tokens name it. Its endpoints are found by discovery.
        "issuer" issuer: Spanned<Box<str>>,
        /// What the sign-in page calls it. Default: its host.
        "name" name: Option<Spanned<Box<str>>>,
        /// The Backend that says how to connect to the provider. Default: the host of each URL.
        "backend" backend: Option<Spanned<Box<str>>>,
        /// Endpoints of the provider, instead of what it says itself.
        "endpoints" endpoints: Option<AdminOidcEndpoints>,
        /// Who this process is to the provider.
        "clientId" client_id: Spanned<Box<str>>,
        /// What proves it: text (`file:PATH`, `${NAME}`), or `{ secretRef: { name: NAME, key: KEY } }`. Default: nothing, a
        /// public client.
        "clientSecret" client_secret: Option<Spanned<AdminSecret>>,
        /// How it is proven: `Basic` (default) or `Post`.
        "authentication" authentication: Option<Spanned<AdminOidcAuthentication>>,
        /// Scopes to ask for, beside `openid`. Default: none.
        "scopes" scopes: List<Spanned<Box<str>>, 0, 64>,
        /// Where the provider sends browsers back to, as they see it: `https://HOST/api/v1/login/oidc/callback`. Default:
        /// that path at the host that was asked.
        "redirectUri" redirect_uri: Option<Spanned<Box<str>>>,
        /// For whom bearer tokens of programs have to be (`aud`). Default: `clientId`.
        "audiences" audiences: List<Spanned<Box<str>>, 0, 64>,
        /// The claim that names somebody in the audit log. Default: the first of `email`, `preferred_username` and `sub`.
        "nameClaim" name_claim: Option<Spanned<Box<str>>>,
        /// Which claims give which role. Of several the highest counts; who fits none may do nothing.
        "roles" roles: List<AdminOidcRole, 1, 64>,
    }
    check AdminOidc::check;
}

/// Where a provider sends browsers back to.
pub const CALLBACK: &str = "/api/v1/login/oidc/callback";

impl AdminOidc {
    fn check(&self, cx: &mut Decoder<'_>) {
        if let Some(uri) = &self.redirect_uri
            && !(uri.starts_with("http") && uri.contains("://") && uri.ends_with(CALLBACK))
        {
            let diag = cx
                .error(Rule::BadValue, uri.span, "nobody answers there")
                .why("browsers come back to this listener")
                .fix(format!("write `https://HOST{CALLBACK}`"));
            cx.push(diag);
        }
    }
}

object! {
    /// Endpoints of a provider.
    pub struct AdminOidcEndpoints as "endpoints" {
        /// Where browsers log in.
        "authorization" authorization: Option<Spanned<Box<str>>>,
        /// Where tokens are had.
        "token" token: Option<Spanned<Box<str>>>,
        /// Where the keys are.
        "jwks" jwks: Option<Spanned<Box<str>>>,
    }
}

choice! {
    /// How a client proves who it is (RFC 6749 §2.3.1).
    pub enum AdminOidcAuthentication as "authentication" {
        /// By the Authorization field.
        Basic = "Basic",
        /// In the content.
        Post = "Post",
    }
}

object! {
    /// Claims that give a role.
    pub struct AdminOidcRole as "a role" {
        /// viewer, editor or admin.
        "role" role: Spanned<AdminRole>,
        /// The name of a claim, or a path into claims that begins with `/`: `/realm_access/roles`.
        "claim" claim: Spanned<Box<str>>,
        /// It is one of these, or a list that has one of them. Default: any value.
        "values" values: List<Spanned<Box<str>>, 0, 256>,
    }
}

/// A value that nobody should see: written here, or in a Secret.
#[derive(Clone, Debug)]
pub enum AdminSecret {
    /// As it is.
    Text(SecretText),
    /// Out of a Secret of the same namespace.
    Of(AdminSecretOf),
}

object! {
    /// Where a secret is.
    pub struct AdminSecretOf as "a secret" {
        /// The Secret and its key.
        "secretRef" secret_ref: AdminSecretKey,
    }
}

object! {
    /// A key of a Secret.
    pub struct AdminSecretKey as "secretRef" {
        /// Name of the Secret.
        "name" name: Spanned<Box<str>>,
        /// Key in it.
        "key" key: Spanned<Box<str>>,
    }
}

impl Decode for AdminSecret {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match node.as_str() {
            Some(_) => SecretText::decode(node, cx).map(Self::Text),
            None => cx.secretly(|cx| AdminSecretOf::decode(node, cx)).map(Self::Of),
        }
    }

    fn schema(defs: &mut Defs) -> serde_json::Value {
        json!({ "anyOf": [SecretText::schema(defs), AdminSecretOf::schema(defs)] })
    }
}
