//! The provider: where its endpoints are (OpenID Connect Discovery), and whether a token is its own.

use std::sync::Arc;
use std::time::Duration;

use rhumb_codec::field::Known;
use rhumb_codec::head::RequestHead;
use serde_json::{Map, Value};

use crate::call::{Call, Out};
use crate::claims::{audience_is, time};
use crate::context::{Context, Origin, Remote};
use crate::fetched::{Fetch, Fetched, Look};
use crate::json;
use crate::jwt::key::Judgement;
use crate::jwt::keys::{self, DOCUMENT_MAX, Keys};
use crate::jwt::token::Token;
use crate::oidc::Endpoints;
use crate::policy::Invalid;

/// How long what the provider says about itself is good.
pub(super) const METADATA_GOOD_FOR: Duration = Duration::from_secs(3600);

/// Where the document is.
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// A provider.
pub(crate) struct Provider {
    pub(crate) issuer: Box<str>,
    /// Where the document about it is; nothing when all endpoints are written.
    discovery: Option<(Remote, Box<str>)>,
    written: Metadata,
    token: Option<(Remote, Box<str>)>,
    metadata: Arc<Fetched<Metadata>>,
    keys: Arc<Keys>,
    keys_at: Arc<keys::Source>,
    timeout: Duration,
}

/// What the provider says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Where the browser logs in.
    pub(crate) authorization: Option<Box<str>>,
    /// Path of the token endpoint, where the issuer itself is.
    token: Option<Box<str>>,
    /// Where the browser logs out.
    pub(crate) end_session: Option<Box<str>>,
}

impl Provider {
    pub(crate) fn read(
        issuer: &str,
        written: &Endpoints,
        backend: Option<&str>,
        timeout: Duration,
        cx: &mut Context<'_>,
    ) -> Result<Self, Invalid> {
        let url = format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'));
        let (to, path) = cx.url("issuer", &url, backend)?;
        let browser = |field: &str, url: &Option<String>| match url {
            None => Ok(None),
            Some(url) => match Origin::parse(url) {
                Ok(_) => Ok(Some(url.as_str().into())),
                Err(why) => Err(Invalid::new(field, format!("`{url}` {why}"), "write https://HOST/PATH")),
            },
        };
        let metadata = Metadata {
            authorization: browser("endpoints.authorization", &written.authorization)?,
            token: None,
            end_session: browser("endpoints.endSession", &written.end_session)?,
        };
        let token = match &written.token {
            None => None,
            Some(url) => Some(cx.url("endpoints.token", url, backend)?),
        };
        let (keys_to, keys_path, discovers) = match &written.jwks {
            Some(url) => {
                let (to, path) = cx.url("endpoints.jwks", url, backend)?;
                (to, path, None)
            }
            None => (to.clone(), path.clone(), Some(issuer.into())),
        };
        let name = format!("jwks\0{}\0{keys_path}\0{}", keys_to.backend, discovers.is_some());
        let keys = cx.share(&name, Keys::default);
        let keys_at = keys::Source {
            to: keys_to,
            path: keys_path,
            discovers,
            time: timeout,
            good_for: crate::jwt::CACHE_DURATION,
        };
        let is_complete = metadata.authorization.is_some() && token.is_some();
        let shared = cx.share(&format!("oidc\0{}\0{path}", to.backend), Fetched::default);
        Ok(Self {
            issuer: issuer.into(),
            discovery: (!is_complete).then_some((to, path)),
            written: metadata,
            token,
            metadata: shared,
            keys,
            keys_at: Arc::new(keys_at),
            timeout,
        })
    }

    /// What the provider says about itself, waited for where it has to be fetched.
    pub(crate) async fn metadata(self: &Arc<Self>, out: &Out) -> Option<Metadata> {
        if self.discovery.is_none() {
            return Some(self.written.clone());
        }
        for may_wait in [true, false] {
            let this = Arc::clone(self);
            match self.metadata.look(out.unix_nanos(), Some(out), may_wait, |out| this.fetch(out)) {
                Look::Have(last) => return Some(self.complete(&last.value)),
                Look::Wait => Arc::clone(&self.metadata).wait().await,
                Look::Nothing => return None,
            }
        }
        None
    }

    /// The same, if it is there already.
    pub(crate) fn known_metadata(self: &Arc<Self>, now: u64, out: Option<&Out>) -> Option<Metadata> {
        if self.discovery.is_none() {
            return Some(self.written.clone());
        }
        let this = Arc::clone(self);
        match self.metadata.look(now, out, true, |out| this.fetch(out)) {
            Look::Have(last) => Some(self.complete(&last.value)),
            Look::Wait | Look::Nothing => None,
        }
    }

    /// What is written wins.
    fn complete(&self, found: &Metadata) -> Metadata {
        let Metadata { authorization, end_session, .. } = self.written.clone();
        Metadata {
            authorization: authorization.or_else(|| found.authorization.clone()),
            token: found.token.clone(),
            end_session: end_session.or_else(|| found.end_session.clone()),
        }
    }

    /// Where tokens are had.
    pub(crate) fn token_endpoint(&self, metadata: &Metadata) -> Option<(Remote, Box<str>)> {
        if let Some(written) = &self.token {
            return Some(written.clone());
        }
        let (to, _) = self.discovery.as_ref()?;
        Some((to.clone(), metadata.token.clone()?))
    }

    fn fetch(self: Arc<Self>, out: Out) -> Fetch<Metadata> {
        Box::pin(async move {
            let result = self.discover(&out).await;
            if let Err(why) = &result {
                tracing::warn!(issuer = &*self.issuer, "OpenID Connect discovery: {why}");
            }
            result.map(|metadata| (metadata, METADATA_GOOD_FOR))
        })
    }

    async fn discover(&self, out: &Out) -> Result<Metadata, String> {
        let (to, path) = self.discovery.as_ref().ok_or("there is nothing to discover")?;
        let mut head = RequestHead::new();
        head.set_method(b"GET");
        head.set_target(path.as_bytes());
        head.fields.append(Known::Accept, b"application/json");
        let call =
            Call { head: Box::new(head), content: Vec::new(), time: self.timeout, max_content: DOCUMENT_MAX };
        let answer = out.call(to, call).await.map_err(|failure| failure.to_string())?;
        if answer.status != 200 {
            return Err(format!("`{path}` was answered with {}", answer.status));
        }
        let document = json::read_object(&answer.content).ok_or("the document is no JSON object")?;
        self.metadata_of(&document, to)
    }

    fn metadata_of(&self, document: &Map<String, Value>, to: &Remote) -> Result<Metadata, String> {
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        // OpenID Connect Discovery §4.3: exactly the same, or anybody who serves the path could be the issuer.
        if text("issuer") != Some(&self.issuer) {
            return Err(format!("the document is about issuer {:?}", text("issuer").unwrap_or_default()));
        }
        let browser = |name: &str| match text(name) {
            Some(url) => {
                Origin::parse(url).map(|_| Some(url.into())).map_err(|why| format!("`{name}` {why}"))
            }
            None => Ok(None),
        };
        let authorization = browser("authorization_endpoint")?;
        if authorization.is_none() && self.written.authorization.is_none() {
            return Err("the document has no `authorization_endpoint`".to_owned());
        }
        let token = match (&self.token, text("token_endpoint")) {
            (Some(_), _) => None,
            (None, None) => return Err("the document has no `token_endpoint`".to_owned()),
            (None, Some(url)) => {
                let (origin, path) = Origin::parse(url).map_err(|why| format!("`token_endpoint` {why}"))?;
                // Connections go to backends of the configuration only.
                if origin.authority() != *to.authority {
                    return Err(format!("`token_endpoint` is at {origin}: write it as `endpoints.token`"));
                }
                Some(path)
            }
        };
        Ok(Metadata { authorization, token, end_session: browser("end_session_endpoint")? })
    }

    /// The claims of a token that the provider signed for the client: ID tokens and logout tokens. What else they have to
    /// say is for the caller.
    pub(crate) async fn verify(
        &self,
        text: &[u8],
        client: &str,
        leeway: Duration,
        out: &Out,
    ) -> Result<Map<String, Value>, &'static str> {
        let claims = self.verify_for(text, &|audience| audience == client, leeway, out).await?;
        let is_for_several = matches!(claims.get("aud"), Some(Value::Array(all)) if all.len() > 1);
        let party = claims.get("azp").and_then(Value::as_str);
        if party.map_or(is_for_several, |party| party != client) {
            return Err("the token was given to another client");
        }
        Ok(claims)
    }

    /// The claims of a token that the provider signed for an audience, whoever it was given to.
    pub(crate) async fn verify_for(
        &self,
        text: &[u8],
        is_audience: &dyn Fn(&str) -> bool,
        leeway: Duration,
        out: &Out,
    ) -> Result<Map<String, Value>, &'static str> {
        let token = Token::read(text)?;
        // OpenID Connect Core §3.1.3.7: never by the client's secret when keys are public.
        if token.algorithm.is_symmetric() {
            return Err("the algorithm of the token is not allowed");
        }
        self.check_signature(&token, out).await?;
        let claims = token.claims;
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err("the token is of another issuer");
        }
        if !audience_is(&claims, is_audience) {
            return Err("the token is for another client");
        }
        let (now, leeway) = (i128::from(out.unix_nanos()), leeway.as_nanos() as i128);
        let malformed = |_| "a time in the token is malformed";
        if time(&claims, "exp").map_err(malformed)?.is_some_and(|until| now >= until + leeway) {
            return Err("the token has expired");
        }
        match time(&claims, "iat").map_err(malformed)? {
            None => Err("the token does not say when it was made"),
            Some(made) if made > now + leeway => Err("the token is of the future"),
            Some(_) => Ok(claims),
        }
    }

    async fn check_signature(&self, token: &Token<'_>, out: &Out) -> Result<(), &'static str> {
        const AWAY: &str = "the keys of the provider cannot be had";
        let mut is_renewed = false;
        for may_wait in [true, true, false] {
            let fetched = match self.keys.look(&self.keys_at, out.unix_nanos(), Some(out), may_wait) {
                Look::Have(fetched) => fetched,
                Look::Nothing => return Err(AWAY),
                Look::Wait => {
                    Arc::clone(&self.keys).wait().await;
                    continue;
                }
            };
            let id = token.key_id.as_deref();
            match fetched.value.judge(token.algorithm, id, token.signed, &token.signature) {
                Judgement::Valid => return Ok(()),
                Judgement::Wrong if id.is_some() || is_renewed => return Err("the signature is not valid"),
                Judgement::NoKey if is_renewed => return Err("no key of the provider fits the token"),
                _ => {
                    is_renewed = true;
                    if !self.keys.fetch_for_unknown(&self.keys_at, out.unix_nanos(), Some(out)) {
                        return Err("no key of the provider fits the token");
                    }
                    Arc::clone(&self.keys).wait().await;
                }
            }
        }
        Err(AWAY)
    }
}
