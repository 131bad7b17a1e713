//! What OAuth 2.0 clients do alike (RFC 6749): prove who they are to the authorization server, and ask it for tokens.

use std::time::Duration;

use rhumb_base::base64;
use rhumb_codec::field::Known;
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::call::{Answer, Call, Out};
use crate::context::{Context, Remote, SecretValue};
use crate::json;
use crate::policy::Invalid;

/// Longest answer of an authorization server that is read, in bytes.
pub const ANSWER_MAX: usize = 256 << 10;

/// How long an authorization server may take where nothing is written.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// How a client proves who it is (RFC 6749 §2.3.1).
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
pub enum Authentication {
    /// By the Authorization field (`client_secret_basic`).
    #[default]
    Basic,
    /// In the content (`client_secret_post`).
    Post,
}

/// A client of an authorization server.
pub(crate) struct Client {
    id: Box<str>,
    secret: Option<Box<[u8]>>,
    authentication: Authentication,
}

impl Client {
    /// Reads `clientId` and `clientSecret`.
    pub(crate) fn read(
        id: &str,
        secret: Option<&SecretValue>,
        authentication: Authentication,
        cx: &mut Context<'_>,
    ) -> Result<Self, Invalid> {
        if id.is_empty() {
            return Err(Invalid::new(
                "clientId",
                "is empty",
                "write the id that the authorization server knows",
            ));
        }
        let secret = secret.map(|secret| cx.secret("clientSecret", secret)).transpose()?;
        if secret.as_ref().is_some_and(|secret| secret.is_empty()) {
            return Err(Invalid::new("clientSecret", "is empty", "write the secret, or leave it out"));
        }
        Ok(Self { id: id.into(), secret, authentication })
    }

    /// What the authorization server calls the client.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The secret, if it has one.
    pub(crate) fn secret(&self) -> Option<&[u8]> {
        self.secret.as_deref()
    }

    /// A request of the client to an endpoint of its authorization server.
    pub(crate) fn request(&self, path: &str, form: &[(&str, &str)], time: Duration) -> Call {
        let mut head = RequestHead::new();
        head.set_method(b"POST");
        head.set_target(path.as_bytes());
        head.fields.append(Known::ContentType, b"application/x-www-form-urlencoded");
        head.fields.append(Known::Accept, b"application/json");
        let mut content = Vec::new();
        for (name, value) in form {
            pair(&mut content, name.as_bytes(), value.as_bytes());
        }
        match (&self.secret, self.authentication) {
            (Some(secret), Authentication::Basic) => {
                // RFC 6749 §2.3.1: both are encoded as forms are before they are put together.
                let mut credentials = Vec::new();
                encode(&mut credentials, self.id.as_bytes());
                credentials.push(b':');
                encode(&mut credentials, secret);
                let value = format!("Basic {}", base64::encode(&credentials));
                head.fields.append(Known::Authorization, value.as_bytes());
            }
            (Some(secret), Authentication::Post) => {
                pair(&mut content, b"client_id", self.id.as_bytes());
                pair(&mut content, b"client_secret", secret);
            }
            (None, _) => pair(&mut content, b"client_id", self.id.as_bytes()),
        }
        Call { head: Box::new(head), content, time, max_content: ANSWER_MAX }
    }

    /// Asks the token endpoint.
    pub(crate) async fn token(
        &self,
        out: &Out,
        to: &Remote,
        path: &str,
        form: &[(&str, &str)],
        time: Duration,
    ) -> Result<Tokens, TokenError> {
        let asked = out.call(to, self.request(path, form, time));
        let answer = asked.await.map_err(|failure| TokenError::Away(failure.to_string()))?;
        Tokens::read(&answer)
    }
}

/// What a token endpoint gave (RFC 6749 §5.1).
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) access: Box<str>,
    pub(crate) refresh: Option<Box<str>>,
    pub(crate) id: Option<Box<str>>,
    /// How long the access token is good, when it says so.
    pub(crate) expires_in: Option<Duration>,
}

/// Why there are no tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// The endpoint could not be asked, or did not do its part.
    Away(String),
    /// It refused: the code of RFC 6749 §5.2, `invalid_grant`.
    Refused(String),
}

impl TokenError {
    pub(crate) fn tell(&self) -> String {
        match self {
            Self::Away(why) => why.clone(),
            Self::Refused(code) => format!("the token endpoint refused: {code}"),
        }
    }
}

impl Tokens {
    fn read(answer: &Answer) -> Result<Self, TokenError> {
        let away = |why: &str| TokenError::Away(why.to_owned());
        if answer.status >= 500 || answer.status == 429 {
            return Err(TokenError::Away(format!("the token endpoint answered with {}", answer.status)));
        }
        let object = json::read_object(&answer.content);
        let text = |name: &str| object.as_ref()?.get(name)?.as_str();
        if answer.status != 200 {
            // RFC 6749 §5.2: the code has printable characters only, and is short.
            let code =
                text("error").filter(|code| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_graphic()));
            return Err(TokenError::Refused(code.map_or_else(|| answer.status.to_string(), str::to_owned)));
        }
        let access = text("access_token").ok_or_else(|| away("the token endpoint gave no access token"))?;
        // RFC 6749 §7.1: who does not know a type must not use its tokens.
        if !text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
            return Err(away("the token endpoint gave tokens of an unknown type"));
        }
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain(access) {
            return Err(away("the token endpoint gave an access token that no field can carry"));
        }
        Ok(Self {
            access: access.into(),
            refresh: text("refresh_token").map(Into::into),
            id: text("id_token").map(Into::into),
            expires_in: object.as_ref().and_then(|object| seconds(object, "expires_in")),
        })
    }
}

/// A number of seconds; some servers write it as text.
pub(crate) fn seconds(object: &Map<String, Value>, name: &str) -> Option<Duration> {
    match object.get(name)? {
        Value::Number(number) => number.as_u64().map(Duration::from_secs),
        Value::String(text) => text.parse().ok().map(Duration::from_secs),
        _ => None,
    }
}

/// Adds a pair to content of a form, or to a query.
pub(crate) fn pair(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if !out.is_empty() {
        out.push(b'&');
    }
    encode(out, name);
    out.push(b'=');
    encode(out, value);
}

/// Percent-encodes what is not unreserved (RFC 3986 §2.3).
fn encode(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte);
        } else {
            let digit = |four: u8| HEX.get(usize::from(four)).copied().unwrap_or_default();
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_codec::field::Fields;

    fn answer(status: u16, content: &str) -> Answer {
        Answer { status, fields: Fields::new(), content: content.as_bytes().to_vec(), trailers: None }
    }

    #[test]
    fn a_client_proves_who_it_is() {
        let client = |secret: Option<&str>, authentication| Client {
            id: "a:b".into(),
            secret: secret.map(|secret| secret.as_bytes().into()),
            authentication,
        };
        let basic =
            client(Some("s p"), Authentication::Basic).request("/t", &[("x", "1&2")], DEFAULT_TIMEOUT);
        let expected = format!("Basic {}", base64::encode(b"a%3Ab:s%20p"));
        assert_eq!(basic.head.fields.get(Known::Authorization), Some(expected.as_bytes()));
        assert_eq!(basic.content, b"x=1%262");
        let post = client(Some("s"), Authentication::Post).request("/t", &[], DEFAULT_TIMEOUT);
        assert_eq!(post.content, b"client_id=a%3Ab&client_secret=s");
        let public = client(None, Authentication::Basic).request("/t", &[], DEFAULT_TIMEOUT);
        assert_eq!(
            (public.content, public.head.fields.has(Known::Authorization)),
            (b"client_id=a%3Ab".to_vec(), false)
        );
    }

    #[test]
    fn tokens_are_read_and_refusals_told_from_failures() {
        let good = r#"{"access_token":"a","token_type":"bearer","expires_in":"60","refresh_token":"r"}"#;
        let tokens = Tokens::read(&answer(200, good)).ok().unwrap();
        assert_eq!((&*tokens.access, tokens.refresh.as_deref()), ("a", Some("r")));
        assert_eq!(tokens.expires_in, Some(Duration::from_secs(60)));
        let refused = Tokens::read(&answer(400, r#"{"error":"invalid_grant"}"#)).err();
        assert_eq!(refused, Some(TokenError::Refused("invalid_grant".into())));
        for (status, content) in [
            (503, ""),
            (200, "no"),
            (200, r#"{"access_token":"a"}"#),
            (200, r#"{"access_token":"a","token_type":"mac"}"#),
            (200, "{\"access_token\":\"a\\nb\",\"token_type\":\"Bearer\"}"),
        ] {
            assert!(matches!(Tokens::read(&answer(status, content)), Err(TokenError::Away(_))), "{content}");
        }
    }
}
