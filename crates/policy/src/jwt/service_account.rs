//! Tokens of Kubernetes service accounts, as a proof of who a workload is: verified with keys that are at hand, without asking
//! the cluster.

use serde_json::Value;

use crate::claims::{audience_is, time};
use crate::jwt::LEEWAY;
use crate::jwt::key::{Algorithm, Judgement, KeySet};
use crate::jwt::token::Token;

/// The longest token. Unit: bytes.
const TOKEN_MAX: usize = 16 << 10;

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// The namespace.
    pub namespace: String,
    /// The service account.
    pub account: String,
}

/// The keys of a cluster.
pub struct Reader {
    keys: KeySet,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

/// Public keys only: a secret that the cluster shares with us would let us make tokens.
fn allowed() -> Vec<Algorithm> {
    Algorithm::ALL.iter().copied().filter(|algorithm| !algorithm.is_symmetric()).collect()
}

impl Reader {
    /// Reads a JWK Set (RFC 7517 §5).
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(set: &[u8]) -> Result<Self, String> {
        let (keys, _) = KeySet::read(set, &allowed())?;
        Ok(Self { keys })
    }

    /// Whose token it is, where it is one of this issuer for this audience, and in force.
    ///
    /// # Errors
    /// Why it is not taken, in words that a client may be told.
    pub fn read(
        &self,
        text: &[u8],
        issuer: &str,
        audience: &str,
        now_unix: u64,
    ) -> Result<ServiceAccount, &'static str> {
        if text.len() > TOKEN_MAX {
            return Err("the token is too long");
        }
        let token = Token::read(text.trim_ascii())?;
        let signed =
            self.keys.judge(token.algorithm, token.key_id.as_deref(), token.signed, &token.signature);
        match signed {
            Judgement::Valid => {}
            Judgement::Wrong => return Err("the signature of the token is wrong"),
            Judgement::NoKey => return Err("the token names a key that is not among those of the cluster"),
        }
        let text = |name: &str| token.claims.get(name).and_then(Value::as_str);
        if text("iss") != Some(issuer) {
            return Err("the token is of another issuer");
        }
        // RFC 7519 §4.1.3. Without it the token of any other service, given to the API server's own audience, would do.
        if !audience_is(&token.claims, |one| one == audience) {
            return Err("the token is for another audience");
        }
        let now = i128::from(now_unix) * NANOS;
        let leeway = i128::try_from(LEEWAY.as_nanos()).unwrap_or(i128::MAX);
        let malformed = |_| "a time of the token is malformed";
        match time(&token.claims, "exp").map_err(malformed)? {
            None => return Err("the token has no end"),
            Some(end) if end.saturating_add(leeway) <= now => return Err("the token has ended"),
            Some(_) => {}
        }
        if time(&token.claims, "nbf")
            .map_err(malformed)?
            .is_some_and(|begin| begin.saturating_sub(leeway) > now)
        {
            return Err("the token is not yet in force");
        }
        let rest = text("sub").and_then(|subject| subject.strip_prefix("system:serviceaccount:"));
        match rest.and_then(|rest| rest.split_once(':')) {
            Some((namespace, account)) if !account.contains(':') => {
                Ok(ServiceAccount { namespace: namespace.to_owned(), account: account.to_owned() })
            }
            _ => Err("the token is not of a service account"),
        }
    }
}

/// Times of claims count in nanoseconds.
const NANOS: i128 = 1_000_000_000;
