//! One login: to the provider and back (OpenID Connect Core §3.1, RFC 7636), whoever asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rhumb_base::base64;
use rhumb_codec::head::RequestHead;
use rhumb_route::field::decoded;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::LOGIN_TIME;
use super::provider::{Metadata, Provider};
use super::seal::{Seal, random};
use crate::call::Out;
use crate::oauth::{self, Client, TokenError, Tokens};

/// How much clocks may differ.
pub(crate) const LEEWAY: Duration = Duration::from_secs(30);

/// What travels through a login, sealed.
#[derive(Deserialize, Serialize)]
pub(crate) struct Pending {
    /// Where the browser wanted to go.
    #[serde(rename = "u")]
    pub(crate) url: String,
    /// The PKCE verifier.
    #[serde(rename = "v")]
    verifier: String,
    #[serde(rename = "n")]
    nonce: String,
    /// Digest of the cookie that ties it to the browser.
    #[serde(rename = "b")]
    browser: String,
    /// Unit: seconds since 1970.
    #[serde(rename = "e")]
    until: u64,
}

impl Pending {
    /// True when it took longer than somebody may take to log in.
    pub(crate) fn is_over(&self, now_unix_seconds: u64) -> bool {
        self.until < now_unix_seconds
    }

    /// True for the cookie of the browser in which it was begun.
    pub(crate) fn is_of(&self, browser: &[u8]) -> bool {
        fingerprint(browser) == self.browser
    }
}

/// Why nobody is logged in.
pub(crate) enum NoLogin {
    /// The provider could not be asked.
    Away(String),
    /// It said no, or what it said is not to be believed.
    Refused(String),
}

/// A client of a provider, and how people log in through it.
pub(crate) struct Login {
    pub(crate) provider: Arc<Provider>,
    pub(crate) client: Client,
    /// Scopes, with `openid`.
    scope: String,
    /// Further parameters.
    parameters: BTreeMap<String, String>,
    timeout: Duration,
    seal: Seal,
}

impl Login {
    /// Nothing when the system gives no random numbers. What is sealed for one `purpose` opens for no other.
    pub(crate) fn new(
        (provider, client): (Provider, Client),
        scopes: Vec<String>,
        parameters: BTreeMap<String, String>,
        timeout: Duration,
        purpose: &str,
    ) -> Option<Self> {
        let seal = Seal::new(client.secret(), purpose)?;
        let further = scopes.into_iter().filter(|scope| scope != "openid");
        let scopes: Vec<String> = std::iter::once("openid".to_owned()).chain(further).collect();
        Some(Self {
            provider: Arc::new(provider),
            client,
            scope: scopes.join(" "),
            parameters,
            timeout,
            seal,
        })
    }

    /// Where the browser whose cookie is `browser` has to go to log in; to `url` after it. Nothing when there is no
    /// randomness, or the provider has no place for browsers.
    pub(crate) fn begin(
        &self,
        metadata: &Metadata,
        (url, browser): (String, &[u8]),
        redirect_uri: &str,
        now_unix_seconds: u64,
    ) -> Option<String> {
        let endpoint = metadata.authorization.as_deref()?;
        let (verifier, nonce) = (number()?, number()?);
        let until = now_unix_seconds.saturating_add(LOGIN_TIME.as_secs());
        let pending = Pending { url, browser: fingerprint(browser), until, nonce, verifier };
        let state = self.seal.close(&serde_json::to_vec(&pending).ok()?)?;
        let mut query = Vec::new();
        for (name, value) in [
            ("response_type", "code"),
            ("client_id", self.client.id()),
            ("redirect_uri", redirect_uri),
            ("scope", &self.scope),
            ("state", &state),
            ("nonce", &pending.nonce),
            // RFC 7636 §4.2.
            ("code_challenge", &fingerprint(pending.verifier.as_bytes())),
            ("code_challenge_method", "S256"),
        ] {
            oauth::pair(&mut query, name.as_bytes(), value.as_bytes());
        }
        for (name, value) in &self.parameters {
            oauth::pair(&mut query, name.as_bytes(), value.as_bytes());
        }
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        Some(format!("{endpoint}{separator}{}", String::from_utf8(query).ok()?))
    }

    /// The login that an answer of the provider belongs to; nothing when it was not begun here.
    pub(crate) fn pending(&self, answer: &Query<'_>) -> Option<Pending> {
        let text = self.seal.open(answer.get("state")?.as_bytes())?;
        serde_json::from_slice(&text).ok()
    }

    /// The code in an answer of the provider.
    pub(crate) fn code(&self, answer: &Query<'_>) -> Result<String, String> {
        // RFC 9207 §2.4: an answer of another provider is not for us.
        if answer.get("iss").is_some_and(|issuer| *issuer != *self.provider.issuer) {
            return Err("The answer is of another identity provider.".to_owned());
        }
        if let Some(error) = answer.get("error") {
            let is_plain = error.len() <= 64 && error.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            let error = if is_plain { &*error } else { "an error" };
            return Err(format!("The identity provider answered: {error}."));
        }
        let code = answer.get("code").filter(|code| !code.is_empty());
        code.ok_or_else(|| "The identity provider gave no code.".to_owned())
    }

    /// Changes the code for tokens; with what the ID token says, which was checked.
    pub(crate) async fn redeem(
        &self,
        code: &str,
        redirect_uri: &str,
        pending: &Pending,
        out: &Out,
    ) -> Result<(Tokens, Box<str>, Map<String, Value>), NoLogin> {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", &pending.verifier),
        ];
        let tokens = self.tokens(&form, out).await.map_err(|error| match error {
            TokenError::Away(why) => NoLogin::Away(why),
            refused @ TokenError::Refused(_) => NoLogin::Refused(refused.tell()),
        })?;
        let refused = |why: &str| NoLogin::Refused(why.to_owned());
        let id_token = tokens.id.clone().ok_or_else(|| refused("the token endpoint gave no ID token"))?;
        let claims = self.verify(id_token.as_bytes(), out).await.map_err(refused)?;
        // OpenID Connect Core §3.1.3.7: the nonce is what ties the token to this login; `exp` has to be there.
        if claims.get("nonce").and_then(Value::as_str) != Some(&pending.nonce) {
            return Err(refused("the ID token is of another login"));
        }
        if !claims.contains_key("exp") || claims.get("sub").and_then(Value::as_str).is_none_or(str::is_empty)
        {
            return Err(refused("the ID token lacks `exp` or `sub`"));
        }
        Ok((tokens, id_token, claims))
    }

    /// Asks the token endpoint.
    pub(crate) async fn tokens(&self, form: &[(&str, &str)], out: &Out) -> Result<Tokens, TokenError> {
        let away = || TokenError::Away("the provider's endpoints are not known".to_owned());
        let metadata = self.provider.metadata(out).await.ok_or_else(away)?;
        let (to, path) = self.provider.token_endpoint(&metadata).ok_or_else(away)?;
        self.client.token(out, &to, &path, form, self.timeout).await
    }

    /// What a token says that the provider signed for this client.
    pub(crate) async fn verify(&self, token: &[u8], out: &Out) -> Result<Map<String, Value>, &'static str> {
        self.provider.verify(token, self.client.id(), LEEWAY, out).await
    }
}

/// Pairs of a query or form.
pub(crate) struct Query<'q>(pub(crate) &'q [u8]);

impl<'q> Query<'q> {
    pub(crate) fn of(req: &'q RequestHead) -> Self {
        Self(req.query().unwrap_or_default())
    }

    /// The value of a name that is there once.
    pub(crate) fn get(&self, wanted: &str) -> Option<String> {
        let mut found = self.0.split(|&byte| byte == b'&').filter_map(|part| {
            let (name, value) = part.split_at_checked(memchr::memchr(b'=', part)?)?;
            (*decoded(name) == *wanted.as_bytes()).then_some(value.get(1..)?)
        });
        let (value, None) = (found.next()?, found.next()) else { return None };
        // Forms write blanks as `+`.
        let spaced: Vec<u8> = value.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
        String::from_utf8(decoded(&spaced).into_owned()).ok()
    }
}

/// A random number of 256 bits.
pub(crate) fn number() -> Option<String> {
    Some(base64::encode_url(&random::<32>()?))
}

/// True for what [`number`] may have made.
pub(crate) fn is_number(text: &[u8]) -> bool {
    text.len() == 43 && text.iter().all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

pub(crate) fn fingerprint(text: &[u8]) -> String {
    base64::encode_url(digest(&SHA256, text).as_ref())
}
