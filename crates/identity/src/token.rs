//! Join tokens: a workload's first proof of who it is.
//!
//! A token is good once, for one identity, until it ends. Its text carries the SHA-256 of the roots, so that the first
//! connection to the control plane trusts nobody on first use. What the control plane keeps is a hash: whoever reads its files
//! cannot join with them.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rhumb_base::base64;
use rhumb_base::spiffe::{SpiffeId, TrustDomain};
use rhumb_tls::mesh::Bundle;
use serde::{Deserialize, Serialize};

use crate::authority::Error;
use crate::records::Place;
use crate::request::KeyRequest;
use crate::{SYSTEM_NAMESPACE, file};

/// SHA-256 of a root's DER.
pub type Pin = [u8; 32];

/// What a text of a token begins with: scanners for leaked secrets find it by this.
const PREFIX: &str = "rhumb-join-v1.";

/// The trust domain that a token need not name.
const USUAL_DOMAIN: &str = "cluster.local";

/// Roots that one token may name: a rotation has two, a mounted bundle may have more. Unit: entries.
const MAX_PINS: usize = 8;

/// The longest text: secret and pins in base64url. Unit: bytes.
const MAX_TEXT: usize = PREFIX.len() + (MAX_PINS + 1) * 32 * 4 / 3 + 4 + MAX_DOMAIN;

/// The longest trust domain (SPIFFE ID §2.1), and the dot before it. Unit: bytes.
const MAX_DOMAIN: usize = 256;

/// Tokens that have neither been used nor ended. Unit: entries.
const MAX_TOKENS: usize = 100_000;

/// The largest file of a token. Unit: bytes.
const MAX_FILE: u64 = 8 * 1024;

/// A join token as a workload has it. Its secret is in [`text`](Self::text) only.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    secret: [u8; 32],
    pins: Vec<Pin>,
    /// Of the mesh, where it is not the usual one.
    domain: Option<TrustDomain>,
}

/// A text that is no join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a join token: they begin with \"rhumb-join-v1.\" and are copied whole")]
pub struct Malformed;

impl JoinToken {
    /// Reads a token.
    ///
    /// **Errors**: [`Malformed`].
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Err(Malformed);
        }
        let rest = text.strip_prefix(PREFIX).ok_or(Malformed)?;
        let (digits, domain) = match rest.split_once('.') {
            Some((digits, domain)) => (digits, Some(TrustDomain::parse(domain).map_err(|_| Malformed)?)),
            None => (rest, None),
        };
        let bytes = base64::decode_url(digits.as_bytes()).ok_or(Malformed)?;
        let (parts, rest) = bytes.as_chunks::<32>();
        match parts {
            [secret, pins @ ..] if rest.is_empty() && (1..=MAX_PINS).contains(&pins.len()) => {
                Ok(Self { secret: *secret, pins: pins.to_vec(), domain })
            }
            _ => Err(Malformed),
        }
    }

    /// The text. Secret.
    #[must_use]
    pub fn text(&self) -> String {
        let mut bytes = self.secret.to_vec();
        for pin in &self.pins {
            bytes.extend_from_slice(pin);
        }
        let digits = base64::encode_url(&bytes);
        match &self.domain {
            Some(domain) => format!("{PREFIX}{digits}.{domain}"),
            None => format!("{PREFIX}{digits}"),
        }
    }

    /// One of these roots is that of the control plane.
    #[must_use]
    pub fn pins(&self) -> &[Pin] {
        &self.pins
    }

    /// The trust domain of the mesh.
    #[must_use]
    pub fn trust_domain(&self) -> Option<TrustDomain> {
        self.domain.clone().or_else(|| TrustDomain::parse(USUAL_DOMAIN).ok())
    }

    /// What the control plane is sent. Secret.
    #[must_use]
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").finish_non_exhaustive()
    }
}

/// Why a token is not taken. A caller is told no more than that it is not.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It was never made here, or it ended and was forgotten.
    #[error("unknown join token")]
    Unknown,
    /// It has ended.
    #[error("the join token has ended")]
    Ended,
    /// It was used for another key.
    #[error("the join token was used before")]
    Used,
    /// Our own files.
    #[error("{0}")]
    Ours(#[from] Error),
}

/// The tokens of an authority: one record for each, named by the hash of its secret.
#[derive(Debug, Clone)]
pub struct Tokens {
    place: Place,
}

/// A token as it is kept. Unit of times: seconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    id: String,
    ends: u64,
}

impl Tokens {
    /// How long a token is good where nobody says.
    pub const DEFAULT_LIFE: Duration = Duration::from_secs(60 * 60);

    /// The tokens of an authority, wherever it is.
    ///
    /// **Errors**: [`Error::Io`].
    pub fn open(place: &Place) -> Result<Self, Error> {
        if let Place::Directory(_) = place {
            let directory = place.path(FOLDER);
            file::make_directory(&directory).map_err(|error| Error::io(&directory, error))?;
        }
        Ok(Self { place: place.clone() })
    }

    /// Makes a token for an identity, good until `ends_unix`, whose holder finds one of the bundle's roots at the control
    /// plane. It must end within the life of a leaf: every root that could sign until then is in the bundle of now.
    ///
    /// **Errors**: [`Error::Io`], [`Error::Crypto`], [`Error::TooManyTokens`], [`Error::Identity`] for the control plane's own.
    pub fn create(
        &self,
        id: &SpiffeId,
        bundle: &Bundle,
        ends_unix: u64,
        now_unix: u64,
    ) -> Result<JoinToken, Error> {
        if id.namespace() == Some(SYSTEM_NAMESPACE) {
            return Err(Error::Identity(id.clone()));
        }
        if self.forget_ended(now_unix)? >= MAX_TOKENS {
            return Err(Error::TooManyTokens);
        }
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| Error::Crypto("no randomness".to_owned()))?;
        let pins = bundle.infos().iter().rev().take(MAX_PINS).map(|info| info.fingerprint).collect();
        let name = name(&secret);
        let kept = Kept { id: id.as_str().to_owned(), ends: ends_unix };
        let text =
            serde_json::to_vec(&kept).map_err(|_| Error::State { path: self.place.path(&name), line: 0 })?;
        self.place.save(&name, &text, None)?;
        let domain = Some(id.trust_domain()).filter(|domain| *domain != USUAL_DOMAIN);
        let domain = domain.and_then(|domain| TrustDomain::parse(domain).ok());
        Ok(JoinToken { secret, pins, domain })
    }

    /// Uses a token up for a key, and says for whom it was. The same token with the same key is taken again until it ends: the
    /// first answer may have been lost.
    ///
    /// **Errors**: see [`Refused`].
    pub fn redeem(&self, secret: &[u8], key: &KeyRequest, now_unix: u64) -> Result<SpiffeId, Refused> {
        let name = name(secret);
        let (text, _) = self.place.load(&name, MAX_FILE)?.ok_or(Refused::Unknown)?;
        let damaged = || Error::State { path: self.place.path(&name), line: 1 };
        let kept: Kept = serde_json::from_slice(&text).map_err(|_| damaged())?;
        if kept.ends <= now_unix {
            return Err(Refused::Ended);
        }
        let id = SpiffeId::parse(&kept.id).map_err(|_| damaged())?;
        let user = hex(digest(&SHA256, key.point()).as_ref());
        // Who makes this record first has used the token, also where several control planes share the place.
        let used = mark(&name);
        if self.place.create(&used, user.as_bytes())? {
            return Ok(id);
        }
        let by = self.place.load(&used, MAX_FILE)?;
        if by.is_some_and(|(by, _)| by == user.as_bytes()) { Ok(id) } else { Err(Refused::Used) }
    }

    /// Removes tokens that have ended, and says how many are left.
    ///
    /// **Errors**: [`Error::Io`].
    pub fn forget_ended(&self, now_unix: u64) -> Result<usize, Error> {
        let mut left = 0;
        for name in self.place.list(FOLDER)? {
            if !name.ends_with(SUFFIX) {
                continue;
            }
            let kept = self.place.load(&name, MAX_FILE).ok().flatten();
            let kept: Option<Kept> = kept.and_then(|(text, _)| serde_json::from_slice(&text).ok());
            match kept {
                Some(kept) if kept.ends > now_unix => left += 1,
                // The token first: while it is there its mark must be, too.
                _ => {
                    let mark = mark(&name);
                    self.place.remove(vec![name, mark])?;
                }
            }
        }
        Ok(left)
    }
}

/// Where tokens are.
const FOLDER: &str = "tokens";

/// What the records of tokens end with.
const SUFFIX: &str = ".json";

fn name(secret: &[u8]) -> String {
    format!("{FOLDER}/{}{SUFFIX}", hex(digest(&SHA256, secret).as_ref()))
}

/// The record that says who has used a token.
fn mark(name: &str) -> String {
    format!("{}.used", name.strip_suffix(SUFFIX).unwrap_or(name))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use crate::{Authority, Lifetimes, NewKey};

    const NOW: u64 = 1_900_000_000;

    fn setup() -> (tempfile::TempDir, Tokens, Bundle, SpiffeId) {
        let directory = tempfile::tempdir().unwrap();
        let domain = TrustDomain::parse("td.test").unwrap();
        let authority = Authority::open(directory.path(), &domain, Lifetimes::default(), NOW).unwrap();
        let tokens = Tokens::open(&Place::Directory(directory.path().to_owned())).unwrap();
        let bundle = authority.bundle(NOW).unwrap();
        let id = domain.workload("shop", "orders").unwrap();
        (directory, tokens, bundle, id)
    }

    fn key() -> KeyRequest {
        KeyRequest::parse(NewKey::make().unwrap().request()).unwrap()
    }

    #[test]
    fn a_token_is_good_once_until_it_ends() {
        let (_directory, tokens, bundle, id) = setup();
        let token = tokens.create(&id, &bundle, NOW + 60, NOW).unwrap();
        let text = token.text();
        let token = JoinToken::parse(&format!(" {text}\n")).unwrap();
        assert_eq!(token.pins(), [bundle.infos()[0].fingerprint]);

        let (one, two) = (key(), key());
        assert_eq!(tokens.redeem(token.secret(), &one, NOW).unwrap(), id);
        assert_eq!(tokens.redeem(token.secret(), &one, NOW + 59).unwrap(), id);
        assert!(matches!(tokens.redeem(token.secret(), &two, NOW), Err(Refused::Used)));
        assert!(matches!(tokens.redeem(token.secret(), &one, NOW + 60), Err(Refused::Ended)));
        assert!(matches!(tokens.redeem(&[7; 32], &one, NOW), Err(Refused::Unknown)));
        let control = TrustDomain::parse("td.test").unwrap().workload(SYSTEM_NAMESPACE, "control").unwrap();
        assert!(matches!(tokens.create(&control, &bundle, NOW + 60, NOW), Err(Error::Identity(_))));
        assert!(matches!(tokens.redeem(b"../../x", &one, NOW), Err(Refused::Unknown)));
    }

    #[test]
    fn two_who_race_for_a_token_do_not_both_win() {
        let (_directory, tokens, bundle, id) = setup();
        for _ in 0..20 {
            let token = tokens.create(&id, &bundle, NOW + 60, NOW).unwrap();
            let won = std::thread::scope(|scope| {
                let racers: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| tokens.redeem(token.secret(), &key(), NOW).is_ok()))
                    .collect();
                racers.into_iter().map(|racer| racer.join().unwrap()).filter(|won| *won).count()
            });
            assert_eq!(won, 1);
        }
    }

    #[test]
    fn the_secret_is_in_no_file_and_no_debug() {
        let (directory, tokens, bundle, id) = setup();
        let token = tokens.create(&id, &bundle, NOW + 60, NOW).unwrap();
        tokens.redeem(token.secret(), &key(), NOW).unwrap();
        assert!(!format!("{token:?}").contains(&token.text()));
        for entry in fs::read_dir(directory.path().join("tokens")).unwrap() {
            let path = entry.unwrap().path();
            let content = fs::read(&path).unwrap();
            let text = format!("{} {}", path.display(), String::from_utf8_lossy(&content));
            for spelling in [hex(token.secret()), base64::encode_url(token.secret())] {
                assert!(!text.contains(&spelling));
            }
        }
        assert_eq!(tokens.forget_ended(NOW + 59).unwrap(), 1);
        assert_eq!(tokens.forget_ended(NOW + 60).unwrap(), 0);
        assert_eq!(fs::read_dir(directory.path().join("tokens")).unwrap().count(), 0);
    }

    #[test]
    fn other_texts_are_no_tokens() {
        let whole = JoinToken { secret: [1; 32], pins: vec![[2; 32]], domain: None };
        assert_eq!(JoinToken::parse(&whole.text()), Ok(whole.clone()));
        let elsewhere =
            JoinToken { domain: Some(TrustDomain::parse("shop.example").unwrap()), ..whole.clone() };
        assert!(elsewhere.text().ends_with(".shop.example"));
        assert_eq!(JoinToken::parse(&elsewhere.text()), Ok(elsewhere));
        let long = JoinToken { pins: vec![[2; 32]; MAX_PINS], ..whole.clone() };
        assert_eq!(JoinToken::parse(&long.text()), Ok(long));
        let longer = JoinToken { pins: vec![[2; 32]; MAX_PINS + 1], ..whole.clone() };
        let unpinned = JoinToken { pins: Vec::new(), ..whole.clone() };
        let texts = [
            longer.text(),
            unpinned.text(),
            String::new(),
            PREFIX.to_owned(),
            whole.text().replace("v1", "v2"),
        ];
        for text in texts {
            assert_eq!(JoinToken::parse(&text), Err(Malformed), "{text}");
        }
        for cut in 0..whole.text().len() {
            assert_eq!(JoinToken::parse(&whole.text()[..cut]), Err(Malformed), "{cut}");
        }
    }
}
