//! Keys of an issuer that are fetched: when, how often, and what is used meanwhile.
//!
//! One set per URL and process, whatever the number of policies and workers. The first request that needs it fetches it,
//! the others wait for the same answer. From four fifths of its time on it is fetched anew beside requests. What was fetched last
//! is kept until something better comes: an issuer that is away stops nobody who was known to it before. A token that names
//! a key which is not there makes the set be fetched at once, but no more than once in [`UNKNOWN_KEY_PAUSE`].

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rhumb_codec::field::Known;
use rhumb_codec::head::RequestHead;
use serde_json::Value;

use crate::call::{Call, Event, Out};
use crate::context::{Origin, Remote};
use crate::json;
use crate::jwt::key::{Algorithm, KeySet};

/// Longest set, and longest document about an issuer. **Unit**: bytes.
pub const DOCUMENT_MAX: usize = 256 << 10;

/// Tokens with unknown keys make the set be fetched no more often than this.
pub const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(10);

/// How long is waited after the first failure; twice as long after each further one, up to [`FAILURE_PAUSE_MAX`].
pub const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// The longest wait after a failure.
pub const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(60);

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

/// Keys that were fetched.
pub(crate) struct Fetched {
    pub(crate) keys: KeySet,
    /// Unit: nanoseconds since 1970.
    at: u64,
    /// Differs for each fetch.
    pub(crate) number: u64,
}

/// The keys behind one URL.
#[derive(Default)]
pub(crate) struct Keys {
    fetched: ArcSwapOption<Fetched>,
    state: Mutex<State>,
    landed: AtomicU64,
}

#[derive(Default)]
struct State {
    is_under_way: bool,
    wakers: Vec<Waker>,
    failures: u32,
    /// Not before this. Unit: nanoseconds since 1970.
    next: u64,
    next_for_unknown: u64,
}

/// What there is for a token.
pub(crate) enum Look {
    /// These keys.
    Have(Arc<Fetched>),
    /// Keys are being fetched: wait, then look again.
    Wait,
    /// None, and it is too early to ask again.
    Nothing,
}

impl Keys {
    /// Number of the set that is used; tokens that were checked with another one are checked again.
    pub(crate) fn number(&self) -> u64 {
        self.fetched.load().as_ref().map_or(0, |fetched| fetched.number)
    }

    /// The keys for a token. With `may_wait`, old ones are fetched anew first.
    pub(crate) fn look(
        self: &Arc<Self>,
        source: &Arc<Source>,
        now: u64,
        out: Option<&Out>,
        may_wait: bool,
    ) -> Look {
        let fetched = self.fetched.load_full();
        let age = fetched.as_ref().map(|fetched| Duration::from_nanos(now.saturating_sub(fetched.at)));
        let is_good = age.is_some_and(|age| age < source.good_for);
        let is_due = age.is_none_or(|age| age >= source.good_for / 5 * 4);
        let comes = is_due && out.is_some_and(|out| self.fetch(source, now, out, false));
        match fetched {
            Some(fetched) if is_good || !comes || !may_wait => Look::Have(fetched),
            _ if comes && may_wait => Look::Wait,
            _ => Look::Nothing,
        }
    }

    /// Has keys fetched because a token names one that is not there; false when that was done a moment ago.
    pub(crate) fn fetch_for_unknown(
        self: &Arc<Self>,
        source: &Arc<Source>,
        now: u64,
        out: Option<&Out>,
    ) -> bool {
        out.is_some_and(|out| self.fetch(source, now, out, true))
    }

    /// True when keys are on their way.
    fn fetch(self: &Arc<Self>, source: &Arc<Source>, now: u64, out: &Out, is_unknown: bool) -> bool {
        let mut state = self.state();
        if state.is_under_way {
            return true;
        }
        let not_before = if is_unknown { state.next.max(state.next_for_unknown) } else { state.next };
        if now < not_before {
            return false;
        }
        if is_unknown {
            state.next_for_unknown = now.saturating_add(nanos(UNKNOWN_KEY_PAUSE));
        }
        state.is_under_way = true;
        drop(state);
        let flight = Flight { keys: Arc::clone(self), result: None };
        let (source, own) = (Arc::clone(source), Rc::clone(out));
        out.spawn(Box::pin(async move {
            let mut flight = flight;
            let result = source.fetch(&own).await;
            own.tell(if result.is_ok() { Event::KeysFetched } else { Event::KeysFailed });
            if let Err(why) = &result {
                let from = (&*source.to.backend, &*source.path);
                tracing::warn!(
                    backend = from.0,
                    path = from.1,
                    why,
                    "the keys of an issuer could not be fetched"
                );
            }
            flight.result = Some((result.ok(), own.unix_nanos()));
        }));
        true
    }

    /// Done when what is under way has come, or failed.
    pub(crate) async fn wait(self: Arc<Self>) {
        let seen = self.landed.load(Ordering::Acquire);
        poll_fn(|cx| {
            let mut state = self.state();
            if !state.is_under_way || self.landed.load(Ordering::Acquire) != seen {
                return Poll::Ready(());
            }
            if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fetch that is under way. However it ends, also with its worker, it is over when this is dropped.
struct Flight {
    keys: Arc<Keys>,
    result: Option<(Option<KeySet>, u64)>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let mut state = self.keys.state();
        match self.result.take() {
            Some((Some(keys), at)) => {
                let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
                self.keys.fetched.store(Some(Arc::new(Fetched { keys, at, number })));
                (state.failures, state.next) = (0, 0);
            }
            Some((None, at)) => {
                let doubled = FAILURE_PAUSE.saturating_mul(1 << state.failures.min(16));
                state.failures = state.failures.saturating_add(1);
                state.next = at.saturating_add(nanos(doubled.min(FAILURE_PAUSE_MAX)));
            }
            None => {}
        }
        state.is_under_way = false;
        self.keys.landed.fetch_add(1, Ordering::Release);
        state.wakers.drain(..).for_each(Waker::wake);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Source {
    async fn fetch(&self, out: &Out) -> Result<KeySet, String> {
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
