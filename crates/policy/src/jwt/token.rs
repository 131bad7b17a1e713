//! Tokens (RFC 7519) in compact serialisation (RFC 7515 §3.1), read strictly. Nothing in one is to be believed before its
//! signature was checked; what it says of its own keys (`jwk`, `jku`, `x5c`, `x5u`) is never looked at.

use rhumb_base::base64;
use serde_json::{Map, Value};

use crate::json;
use crate::jwt::key::Algorithm;

/// Longest id of a key, in bytes.
const KEY_ID_MAX: usize = 1024;

/// A token as it came.
pub struct Token<'t> {
    /// How it claims to be signed.
    pub algorithm: Algorithm,
    /// Which key it claims to be signed with.
    pub key_id: Option<String>,
    /// What it claims.
    pub claims: Map<String, Value>,
    /// What the signature is made over: header and claims as sent.
    pub signed: &'t [u8],
    /// The signature.
    pub signature: Vec<u8>,
}

impl<'t> Token<'t> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// What is wrong, in words that a client may be told.
    pub fn read(text: &'t [u8]) -> Result<Self, &'static str> {
        let mut parts = text.split(|&byte| byte == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("the token has not three parts");
        };
        let signed = text.get(..header.len() + 1 + claims.len()).unwrap_or_default();
        let object = |part: &[u8]| base64::decode_url(part).and_then(|bytes| json::read_object(&bytes));
        let header = object(header).ok_or("the header of the token is malformed")?;
        // RFC 7515 §4.1.11: an extension that is critical and not understood makes a token invalid; we understand none.
        if header.contains_key("crit") {
            return Err("the token has critical extensions");
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::of);
        let algorithm = algorithm.ok_or("the algorithm of the token is not supported")?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) if id.len() <= KEY_ID_MAX => Some(id.clone()),
            Some(_) => return Err("the header of the token is malformed"),
        };
        let claims = object(claims).ok_or("the claims of the token are malformed")?;
        let signature = base64::decode_url(signature).ok_or("the signature of the token is malformed")?;
        Ok(Self { algorithm, key_id, claims, signed, signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str, signature: &str) -> String {
        let part = |text: &str| base64::encode_url(text.as_bytes());
        format!("{}.{}.{}", part(header), part(claims), part(signature))
    }

    #[test]
    fn a_token_is_taken_apart() {
        let text = token(r#"{"alg":"ES256","kid":"k1","jwk":{"kty":"oct"}}"#, r#"{"sub":"ann"}"#, "sig");
        let token = Token::read(text.as_bytes()).unwrap();
        assert_eq!((token.algorithm, token.key_id.as_deref()), (Algorithm::Es256, Some("k1")));
        assert_eq!((token.claims["sub"].as_str(), &*token.signature), (Some("ann"), &b"sig"[..]));
        assert_eq!(token.signed, text.rsplit_once('.').unwrap().0.as_bytes());
    }

    #[test]
    fn what_is_not_exactly_a_token_is_refused() {
        let good = token(r#"{"alg":"RS256"}"#, "{}", "sig");
        assert!(Token::read(good.as_bytes()).is_ok());
        for bad in [
            String::new(),
            "..".to_owned(),
            format!("{good}.x"),
            good.rsplit_once('.').unwrap().0.to_owned(),
            format!("{good}="),
            format!(" {good}"),
            good.replace('.', ".="),
            token(r#"{"alg":"none"}"#, "{}", ""),
            token(r#"{"alg":"None"}"#, "{}", "x"),
            token(r#"{"alg":"rs256"}"#, "{}", "x"),
            token(r#"{"typ":"JWT"}"#, "{}", "x"),
            token(r#"{"alg":["RS256"]}"#, "{}", "x"),
            token(r#"{"alg":"RS256","alg":"none"}"#, "{}", "x"),
            token(r#"{"alg":"RS256","crit":["exp"],"exp":1}"#, "{}", "x"),
            token(r#"{"alg":"RS256","crit":[]}"#, "{}", "x"),
            token(r#"{"alg":"RS256","kid":7}"#, "{}", "x"),
            token(r#"{"alg":"RS256"}"#, r#"{"sub":"a","sub":"b"}"#, "x"),
            token(r#"{"alg":"RS256"}"#, "[]", "x"),
            token(r#"{"alg":"RS256"}"#, "{}{}", "x"),
            token(r#"{"alg":"RS256"} x"#, "{}", "x"),
        ] {
            assert!(Token::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
