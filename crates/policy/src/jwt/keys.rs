//! Keys of an issuer that are fetched: when, how often, and what is used meanwhile.
//!
//! One set per URL and process, whatever the number of policies and workers ([`crate::fetched`]): an issuer that is away
//! stops nobody who was known to it before. A token that names a key which is not there makes the set be fetched at once,
//! but no more than once in [`UNKNOWN_KEY_PAUSE`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rhumb_codec::field::Known;
use rhumb_codec::head::RequestHead;
use serde_json::Value;

use crate::call::{Call, Event, Out};
use crate::context::{Origin, Remote};
use crate::fetched::{Fetch, Fetched, Look, nanos};
use crate::json;
use crate::jwt::key::{Algorithm, KeySet};

/// Longest set, and longest document about an issuer. **Unit**: bytes.
pub const DOCUMENT_MAX: usize = 256 << 10;

/// Tokens with unknown keys make the set be fetched no more often than this.
pub const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(10);

/// Where the keys of an issuer are.
pub(crate) struct Source {
    pub(crate) to: Remote,
    pub(crate) path: Box<str>,
    /// The path leads to a document about the issuer of this name, which says where the keys are (OpenID Connect Discovery
    /// §4).
    pub(crate) discovers: Option<Box<str>>,
    /// How long one request may take.
    pub(crate) time: Duration,
    /// How long keys are good.
    pub(crate) good_for: Duration,
}

/// The keys behind one URL.
#[derive(Default)]
pub(crate) struct Keys {
    fetched: Arc<Fetched<KeySet>>,
    /// A token with an unknown key makes nobody ask before this. Unit: nanoseconds since 1970.
    next_for_unknown: AtomicU64,
}

impl Keys {
    /// Number of the set that is used; tokens that were checked with another one are checked again.
    pub(crate) fn number(&self) -> u64 {
        self.fetched.last().map_or(0, |last| last.number)
    }

    /// The keys for a token. With `may_wait`, old ones are fetched anew first.
    pub(crate) fn look(
        &self,
        source: &Arc<Source>,
        now: u64,
        out: Option<&Out>,
        may_wait: bool,
    ) -> Look<KeySet> {
        let source = Arc::clone(source);
        self.fetched.look(now, out, may_wait, |out| source.fetch(out))
    }

    /// Has keys fetched because a token names one that is not there; false when that was done a moment ago.
    pub(crate) fn fetch_for_unknown(&self, source: &Arc<Source>, now: u64, out: Option<&Out>) -> bool {
        let Some(out) = out else { return false };
        let next = now.saturating_add(nanos(UNKNOWN_KEY_PAUSE));
        // Whoever is first asks; the others wait with it, or are told at once.
        let turn = |before| (now >= before).then_some(next);
        let is_turn = self.next_for_unknown.fetch_update(Ordering::Relaxed, Ordering::Relaxed, turn).is_ok();
        if !is_turn && !self.fetched.is_under_way() {
            return false;
        }
        let source = Arc::clone(source);
        self.fetched.fetch(now, out, |out| source.fetch(out))
    }

    /// Done when what is under way has come, or failed.
    pub(crate) async fn wait(self: Arc<Self>) {
        Arc::clone(&self.fetched).wait().await;
    }
}

impl Source {
    fn fetch(self: Arc<Self>, out: Out) -> Fetch<KeySet> {
        Box::pin(async move {
            let result = self.read(&out).await;
            out.tell(if result.is_ok() { Event::KeysFetched } else { Event::KeysFailed });
            if let Err(why) = &result {
                let from = (&*self.to.backend, &*self.path);
                tracing::warn!(
                    backend = from.0,
                    path = from.1,
                    why,
                    "the keys of an issuer could not be fetched"
                );
            }
            result.map(|keys| (keys, self.good_for))
        })
    }

    async fn read(&self, out: &Out) -> Result<KeySet, String> {
        let path = match &self.discovers {
            None => self.path.clone(),
            Some(issuer) => self.discover(issuer, &self.get(&self.path, out).await?)?,
        };
        let content = self.get(&path, out).await?;
        // Public keys only, whatever a policy allows: it is checked again for each token.
        let allowed: Vec<Algorithm> = Algorithm::ALL.iter().copied().filter(|a| !a.is_symmetric()).collect();
        let (keys, unusable) = KeySet::read(&content, &allowed).map_err(|why| format!("the set {why}"))?;
        if !unusable.is_empty() {
            tracing::debug!(backend = &*self.to.backend, "not used: {}", unusable.join(", "));
        }
        Ok(keys)
    }

    async fn get(&self, path: &str, out: &Out) -> Result<Vec<u8>, String> {
        let mut head = RequestHead::new();
        head.set_method(b"GET");
        head.set_target(path.as_bytes());
        head.fields.append(Known::Accept, b"application/jwk-set+json, application/json");
        let call =
            Call { head: Box::new(head), content: Vec::new(), time: self.time, max_content: DOCUMENT_MAX };
        let answer = out.call(&self.to, call).await.map_err(|failure| failure.to_string())?;
        match answer.status {
            200 => Ok(answer.content),
            status => Err(format!("`{path}` was answered with {status}")),
        }
    }

    /// The path of the keys, out of a document about the issuer.
    fn discover(&self, issuer: &str, document: &[u8]) -> Result<Box<str>, String> {
        let document =
            json::read_object(document).ok_or("the document about the issuer is no JSON object")?;
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        // OpenID Connect Discovery §4.3: exactly the same, or anybody who serves the path could be the issuer.
        if text("issuer") != Some(issuer) {
            return Err(format!("the document is about issuer {:?}", text("issuer").unwrap_or_default()));
        }
        let uri = text("jwks_uri").ok_or("the document about the issuer has no `jwks_uri`")?;
        let (origin, path) = Origin::parse(uri).map_err(|why| format!("`jwks_uri` {why}"))?;
        // Connections go to backends of the configuration only: what a document says must not lead elsewhere.
        if origin.authority() != *self.to.authority {
            return Err(format!("`jwks_uri` is at {origin}: write it as `jwks.uri`"));
        }
        Ok(path)
    }
}
