//! A token of the gateway's own towards backends, by the client credentials grant (RFC 6749 §4.4).
//!
//! One token for each configuration and process, fetched at the first request and anew before it expires. Runs behind
//! everything that decides about the request. What the client sent in the field is replaced. When no token can be had,
//! requests are refused: the backend would refuse them as well. Safe to run again on a retry. Nothing of secret or token
//! is logged.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rhumb_base::failure::Cause;
use rhumb_codec::field::{FieldName, FieldValue, Known};
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::call::Out;
use crate::context::{Context, Remote, SecretValue};
use crate::exchange::{Exchange, Reply};
use crate::fetched::{Fetch, Fetched, Look};
use crate::header_modifier::read_name;
use crate::oauth::{Authentication, Client, DEFAULT_TIMEOUT, TokenError};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Outcome, Verdict};
use crate::quantity::positive;

/// How long a token is used that does not say how long it is good.
pub const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// A token is not used in the last part of its life: requests take time.
pub const MARGIN: Duration = Duration::from_secs(10);

/// Most parameters of the request for a token.
pub const PARAMETERS_LIMIT: usize = 32;

/// Gives requests a token that the gateway got for itself.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// URL of the token endpoint.
    pub token_url: String,
    /// The Backend that says how to connect there. Default: the host of the URL.
    #[serde(default)]
    pub backend: Option<String>,
    /// Who the gateway is to the authorization server.
    pub client_id: String,
    /// What proves it.
    pub client_secret: SecretValue,
    /// How it is proven: `Basic` (default) or `Post`.
    #[serde(default)]
    pub authentication: Authentication,
    /// Scopes to ask for. Default: those that the server gives unasked.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Further parameters of the request: `audience`, `resource`.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// How long the authorization server may take. Default: 5s.
    #[serde(default)]
    pub timeout: Option<String>,
    /// The field that gets the token, behind `Bearer` when it is `authorization`. Default: `authorization`.
    #[serde(default)]
    pub header: Option<String>,
}

/// A compiled policy.
pub struct ClientCredentials(Arc<Inner>);

struct Inner {
    client: Client,
    to: Remote,
    path: Box<str>,
    form: Vec<(String, String)>,
    time: Duration,
    field: FieldName,
    token: Arc<Fetched<FieldValue>>,
}

impl HttpPolicy for ClientCredentials {
    const KIND: &'static str = "oauth2ClientCredentials";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT.or(Attach::BACKEND);
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        const OWN: [&str; 4] = ["grant_type", "client_id", "client_secret", "scope"];
        if let Some(name) = spec.parameters.keys().find(|name| OWN.contains(&name.as_str())) {
            return Err(Invalid::new(
                format!("parameters.{name}"),
                "is set by the policy itself",
                "remove it",
            ));
        }
        if spec.parameters.len() > PARAMETERS_LIMIT {
            return Err(Invalid::new(
                "parameters",
                format!("has more than {PARAMETERS_LIMIT}"),
                "remove some",
            ));
        }
        let client = Client::read(&spec.client_id, Some(&spec.client_secret), spec.authentication, cx)?;
        let (to, path) = cx.url("tokenUrl", &spec.token_url, spec.backend.as_deref())?;
        let mut form = vec![("grant_type".to_owned(), "client_credentials".to_owned())];
        if !spec.scopes.is_empty() {
            form.push(("scope".to_owned(), spec.scopes.join(" ")));
        }
        form.extend(spec.parameters);
        let field = match &spec.header {
            None => Known::Authorization.into(),
            Some(name) => read_name("header", name)?,
        };
        // A token that was got with other settings is not this one.
        let secret = crate::cache::Key::of(client.secret());
        let name = format!("token {field:?} {} {path} {} {form:?} {secret:?}", to.backend, client.id());
        let token = cx.share(&name, Fetched::default);
        let time = positive("timeout", spec.timeout.as_deref())?.unwrap_or(DEFAULT_TIMEOUT);
        Ok(Self(Arc::new(Inner { client, to, path, form, time, field, token })))
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        self.0.give(req, cx, true)
    }
}

impl Inner {
    fn give(self: &Arc<Self>, req: &mut RequestHead, cx: &mut Exchange<'_>, may_wait: bool) -> Verdict {
        let Some(out) = cx.out else { return Verdict::Wait(Box::pin(std::future::pending())) };
        let inner = Arc::clone(self);
        match self.token.look(cx.unix_nanos, Some(out), may_wait, |out| inner.fetch(out)) {
            Look::Have(token) if token.is_good(cx.unix_nanos) => {
                req.fields.set_named(&self.field, &token.value);
                Verdict::Continue
            }
            Look::Wait => {
                let inner = Arc::clone(self);
                Verdict::Wait(Box::pin(async move {
                    Arc::clone(&inner.token).wait().await;
                    Outcome::Apply(Box::new(move |req, cx| inner.give(req, cx, false)))
                }))
            }
            Look::Have(_) | Look::Nothing => Verdict::Respond(Reply::refuse(Cause::TokenUnavailable)),
        }
    }

    fn fetch(self: Arc<Self>, out: Out) -> Fetch<FieldValue> {
        Box::pin(async move {
            let form: Vec<_> =
                self.form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let got = self.client.token(&Rc::clone(&out), &self.to, &self.path, &form, self.time).await;
            let tokens = got.inspect_err(|error: &TokenError| {
                let from = &*self.to.backend;
                tracing::warn!(backend = from, path = &*self.path, "no token for backends: {}", error.tell());
            });
            let tokens = tokens.map_err(|error| error.tell())?;
            let text = match self.field.known() {
                Known::Authorization => format!("Bearer {}", tokens.access),
                _ => tokens.access.to_string(),
            };
            let value =
                FieldValue::parse(text.as_bytes()).map_err(|_| "no field can carry the token".to_owned())?;
            let life = tokens.expires_in.unwrap_or(DEFAULT_LIFE);
            Ok((value, life.saturating_sub(MARGIN).max(life / 2)))
        })
    }
}
