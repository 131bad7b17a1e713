//! Who may ask the admin listener for what: the field `admin` of the process's ProxyConfig.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use rhumb_model::kind::admin::{AdminOidc, AdminOidcAuthentication, AdminRole, AdminSecret, AdminTls};
use rhumb_model::kind::proxy_config::ProxyConfig;
use rhumb_model::{Doc, Origin, Span};
use rhumb_plan::Plan;
use rhumb_plan::admin::{Access, Client, Oidc, Role};
use rhumb_policy::context::{Context, SecretKeyRef, SecretValue, Want};
use rhumb_policy::oauth::Authentication;
use rhumb_policy::oidc::Endpoints;
use rhumb_policy::sign_in::{RoleSpec, SignIn, Spec};
use rhumb_policy::{Invalid, Keeper};
use rhumb_tls::{Certificate, CertificateSource, ClientAuth, Roots, ServerSpec, ServerTls};

use crate::certificate;
use crate::collect::{Docs, Entry};
use crate::policies;
use crate::report::Report;

/// What is written about access; nothing when nothing is. What is wrong is said, and is nothing, too: whoever starts with
/// mistakes nevertheless lets in less than what was meant, never more.
pub(crate) fn access(
    docs: &Docs<'_>,
    entry: Entry<'_, ProxyConfig>,
    (previous, keeper): (Option<&Plan>, &Keeper),
    wants: &mut Vec<(Want, Origin)>,
    report: &mut Report,
) -> Option<Arc<Access>> {
    let written = entry.spec.admin.as_ref()?;
    let before = previous.and_then(|plan| plan.admin.as_ref()).and_then(|access| access.tls.as_ref());
    let texts = |list: &mut dyn Iterator<Item = &str>| list.map(Box::from).collect::<Vec<Box<str>>>();
    let access = Access {
        hosts: texts(&mut written.hosts.iter().map(|host| &*host.value)),
        tls: written.tls.as_ref().and_then(|tls| server(entry.doc, tls, before, report)),
        clients: (written.clients.iter())
            .map(|client| Client {
                role: role(client.role.value),
                names: texts(&mut client.names.iter().map(|name| &*name.value)),
            })
            .collect(),
        oidc: written.oidc.as_ref().and_then(|oidc| login(docs, entry.doc, oidc, keeper, wants, report)),
    };
    Some(Arc::new(access))
}

fn role(written: AdminRole) -> Role {
    match written {
        AdminRole::Viewer => Role::Viewer,
        AdminRole::Editor => Role::Editor,
        AdminRole::Admin => Role::Admin,
    }
}

/// The TLS server, that of the plan before where nothing about it differs.
fn server(
    doc: &Doc,
    tls: &AdminTls,
    before: Option<&(u64, ServerTls)>,
    report: &mut Report,
) -> Option<(u64, ServerTls)> {
    if tls.broken {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    (&tls.certificate.value, &tls.key.value.0).hash(&mut hasher);
    tls.client_ca.as_ref().map(|ca| &ca.value).hash(&mut hasher);
    let digest = hasher.finish();
    if let Some((_, server)) = before.filter(|(known, _)| *known == digest) {
        return Some((digest, server.clone()));
    }
    let mut wrong = |error: &rhumb_tls::Error, span: Span| {
        report.push(certificate::mistake(error, doc.origin(span), true));
    };
    let source = CertificateSource {
        chain: tls.certificate.value.as_bytes().to_vec(),
        key: tls.key.value.0.as_bytes().to_vec(),
        origin: "admin.tls".into(),
    };
    let parsed = Certificate::parse(&source).map_err(|error| wrong(&error, tls.certificate.span)).ok()?;
    let mut spec = ServerSpec::new(vec![parsed], "admin");
    spec.alpn = vec![b"http/1.1".to_vec()];
    if let Some(ca) = &tls.client_ca {
        let roots = Roots::parse(ca.value.as_bytes(), "admin.tls.clientCa");
        spec.client_auth = ClientAuth::Optional(roots.map_err(|error| wrong(&error, ca.span)).ok()?);
    }
    let made = match before {
        Some((_, before)) => ServerTls::rebuild(spec, before),
        None => ServerTls::build(spec),
    };
    made.map_err(|error| wrong(&error, tls.span)).ok().map(|server| (digest, server))
}

/// The login at a provider, whose Backend is among `wants` then.
fn login(
    docs: &Docs<'_>,
    doc: &Doc,
    written: &AdminOidc,
    keeper: &Keeper,
    wants: &mut Vec<(Want, Origin)>,
    report: &mut Report,
) -> Option<Oidc> {
    if written.broken {
        return None;
    }
    let text =
        |text: &Option<rhumb_model::Spanned<Box<str>>>| text.as_ref().map(|text| text.value.to_string());
    let endpoints = written.endpoints.as_ref();
    let spec = Spec {
        issuer: written.issuer.value.to_string(),
        backend: text(&written.backend),
        endpoints: endpoints.map_or_else(Endpoints::default, |endpoints| Endpoints {
            authorization: text(&endpoints.authorization),
            token: text(&endpoints.token),
            jwks: text(&endpoints.jwks),
            end_session: None,
        }),
        client_id: written.client_id.value.to_string(),
        client_secret: written.client_secret.as_ref().map(|secret| match &secret.value {
            AdminSecret::Text(text) => SecretValue::Plain(text.0.to_string()),
            AdminSecret::Of(of) => {
                let (name, key) = (of.secret_ref.name.value.to_string(), of.secret_ref.key.value.to_string());
                SecretValue::Of { secret_ref: SecretKeyRef { name, key } }
            }
        }),
        authentication: match written.authentication.as_ref().map(|authentication| authentication.value) {
            Some(AdminOidcAuthentication::Post) => Authentication::Post,
            Some(AdminOidcAuthentication::Basic) | None => Authentication::Basic,
        },
        scopes: written.scopes.iter().map(|scope| scope.value.to_string()).collect(),
        audiences: written.audiences.iter().map(|audience| audience.value.to_string()).collect(),
        name_claim: text(&written.name_claim),
        roles: (written.roles.iter())
            .map(|one| RoleSpec {
                role: role(one.role.value).rank(),
                claim: one.claim.value.to_string(),
                values: one.values.iter().map(|value| value.value.to_string()).collect(),
            })
            .collect(),
    };
    let mut secrets = policies::Secrets::without_consumers(docs);
    let mut cx = Context::new(doc.namespace(), "admin", &mut secrets, keeper);
    let compiled = SignIn::compile(spec, &mut cx);
    wants.extend(cx.take_wants().into_iter().map(|want| {
        let at = doc.origin(span_of(written, &want.field));
        (want, at)
    }));
    match compiled {
        Ok(sign_in) => Some(Oidc {
            name: text(&written.name).unwrap_or_else(|| host_of(&written.issuer.value).to_owned()).into(),
            redirect_uri: text(&written.redirect_uri).map(Into::into),
            sign_in: Arc::new(sign_in),
        }),
        Err(invalid) => {
            let at = doc.origin(span_of(written, &invalid.field));
            report.push(policies::mistake(&invalid_within(invalid), at, "admin"));
            None
        }
    }
}

fn invalid_within(invalid: Invalid) -> Invalid {
    let field = if invalid.field.is_empty() { "oidc".to_owned() } else { format!("oidc.{}", invalid.field) };
    Invalid { field, ..invalid }
}

/// Where a field of it stands, as the login names fields.
fn span_of(written: &AdminOidc, field: &str) -> Span {
    let endpoints = written.endpoints.as_ref();
    let found = match field.split(['.', '[']).next().unwrap_or_default() {
        "issuer" => Some(written.issuer.span),
        "backend" => written.backend.as_ref().map(|backend| backend.span),
        "clientId" => Some(written.client_id.span),
        "clientSecret" => written.client_secret.as_ref().map(|secret| secret.span),
        "nameClaim" => written.name_claim.as_ref().map(|claim| claim.span),
        "endpoints" => endpoints.map(|endpoints| endpoints.span),
        "roles" => written.roles.iter().next().map(|role| role.span),
        _ => None,
    };
    found.unwrap_or(written.span)
}

fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', ':']).next().unwrap_or(rest)
}
