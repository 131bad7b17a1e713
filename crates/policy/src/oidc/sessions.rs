//! Sessions of people who logged in. The browser has a random number and nothing else; what it stands for is here, by its
//! digest. Shared by all workers, lives through reloads, bounded.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rhumb_codec::field::FieldValue;

use crate::cache::Key;
use crate::fetched::{Fetched, nanos};
use crate::oauth::Tokens;
use crate::principal::Principal;

/// Sessions of one policy at most. When there are as many, the one that was not seen for the longest is ended.
pub(super) const SESSIONS_LIMIT: usize = 100_000;

/// Locks are taken for this many parts of the sessions apart.
const SHARDS: usize = 16;

/// Somebody who logged in.
pub(crate) struct Session {
    pub(crate) principal: Arc<Principal>,
    /// Values of the fields of the policy, by their places.
    pub(crate) fields: Box<[(usize, FieldValue)]>,
    /// The ID token, for the logout.
    pub(crate) id_token: Box<str>,
    /// The session at the provider (`sid`), for its logout.
    pub(crate) sid: Option<Box<str>>,
    /// Tokens; fetched anew by the refresh token.
    pub(crate) tokens: Arc<Fetched<Tokens>>,
    /// Unit of this and the next: nanoseconds since 1970.
    pub(crate) began: u64,
    seen: AtomicU64,
    is_over: AtomicBool,
}

impl Session {
    pub(crate) fn new(
        principal: Arc<Principal>,
        fields: Box<[(usize, FieldValue)]>,
        (id_token, sid): (Box<str>, Option<Box<str>>),
        tokens: Arc<Fetched<Tokens>>,
        now: u64,
    ) -> Self {
        let (seen, is_over) = (AtomicU64::new(now), AtomicBool::new(false));
        Self { principal, fields, id_token, sid, tokens, began: now, seen, is_over }
    }

    /// Ends it, wherever it is held.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// How long sessions last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    /// Without a request.
    pub(crate) idle: Duration,
    /// In all.
    pub(crate) whole: Duration,
}

impl Life {
    fn covers(&self, session: &Session, now: u64) -> bool {
        let seen = session.seen.load(Ordering::Relaxed);
        !session.is_over.load(Ordering::Relaxed)
            && now < seen.saturating_add(nanos(self.idle))
            && now < session.began.saturating_add(nanos(self.whole))
    }
}

/// Every session of a policy.
pub(crate) struct Sessions {
    shards: Box<[Mutex<Shard>]>,
    limit: usize,
}

type Shard = HashMap<Key, Arc<Session>>;

impl Default for Sessions {
    fn default() -> Self {
        Self::with_limit(SESSIONS_LIMIT)
    }
}

impl Sessions {
    fn with_limit(limit: usize) -> Self {
        let shards = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Self { shards, limit: (limit / SHARDS).max(1) }
    }

    fn with<T>(&self, key: &Key, run: impl FnOnce(&mut Shard) -> T) -> Option<T> {
        let shard = self.shards.get(key.part(SHARDS))?;
        Some(run(&mut shard.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The session, if it is not over. Asking for it is seeing it.
    pub(crate) fn get(&self, key: &Key, life: Life, now: u64) -> Option<Arc<Session>> {
        self.with(key, |sessions| {
            let session = sessions.get(key)?;
            if !life.covers(session, now) {
                sessions.remove(key);
                return None;
            }
            session.seen.fetch_max(now, Ordering::Relaxed);
            Some(Arc::clone(session))
        })?
    }

    /// Keeps a session.
    pub(crate) fn put(&self, key: Key, session: Arc<Session>, life: Life, now: u64) {
        self.with(&key, |sessions| {
            if sessions.len() >= self.limit {
                sessions.retain(|_, session| life.covers(session, now));
            }
            if sessions.len() >= self.limit {
                let oldest = sessions.iter().min_by_key(|(_, session)| session.seen.load(Ordering::Relaxed));
                if let Some(key) = oldest.map(|(key, _)| *key) {
                    sessions.remove(&key);
                }
            }
            sessions.insert(key, session);
        });
    }

    /// Ends a session.
    pub(crate) fn remove(&self, key: &Key) -> Option<Arc<Session>> {
        let removed = self.with(key, |sessions| sessions.remove(key))?;
        removed.inspect(|session| session.end())
    }

    /// Ends sessions as the provider asks (OpenID Connect Back-Channel Logout §2.4): the one of `sid`, or without it all of
    /// the subject. How many there were.
    pub(crate) fn log_out(&self, sid: Option<&str>, subject: Option<&str>) -> usize {
        let is_meant = |session: &Session| match sid {
            Some(sid) => session.sid.as_deref() == Some(sid),
            None => subject.is_some_and(|subject| *session.principal.subject == *subject),
        };
        let mut ended = 0;
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, session| {
                if is_meant(session) {
                    session.end();
                    ended += 1;
                    return false;
                }
                true
            });
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const LIFE: Life = Life { idle: Duration::from_secs(10), whole: Duration::from_secs(30) };

    fn session(subject: &str, sid: &str, now: u64) -> Arc<Session> {
        let principal = Principal { subject: subject.into(), ..Principal::default() };
        let ids = (Box::default(), Some(sid.into()));
        Arc::new(Session::new(principal.into(), Box::default(), ids, Arc::default(), now))
    }

    fn key(name: &str) -> Key {
        Key::of([name.as_bytes()])
    }

    #[test]
    fn a_session_ends_when_nobody_comes_and_when_its_time_is_over() {
        let sessions = Sessions::default();
        sessions.put(key("a"), session("ann", "1", 0), LIFE, 0);
        for seconds in [9, 18, 27] {
            assert!(sessions.get(&key("a"), LIFE, seconds * SECOND).is_some(), "{seconds}");
        }
        assert!(sessions.get(&key("a"), LIFE, 30 * SECOND).is_none());
        sessions.put(key("b"), session("ann", "1", 0), LIFE, 0);
        assert!(sessions.get(&key("b"), LIFE, 10 * SECOND).is_none());
        assert!(sessions.get(&key("c"), LIFE, 0).is_none());
    }

    #[test]
    fn the_provider_ends_one_session_or_all_of_somebody() {
        let sessions = Sessions::default();
        for (name, subject, sid) in [("a", "ann", "1"), ("b", "ann", "2"), ("c", "bob", "3")] {
            sessions.put(key(name), session(subject, sid, 0), LIFE, 0);
        }
        let held = sessions.get(&key("a"), LIFE, 1).unwrap();
        assert_eq!(sessions.log_out(Some("1"), Some("ann")), 1);
        assert!(!LIFE.covers(&held, 1) && sessions.get(&key("b"), LIFE, 1).is_some());
        assert_eq!((sessions.log_out(None, Some("ann")), sessions.log_out(None, None)), (1, 0));
        assert!(sessions.get(&key("c"), LIFE, 1).is_some());
        assert!(sessions.remove(&key("c")).is_some() && sessions.get(&key("c"), LIFE, 1).is_none());
    }

    #[test]
    fn there_are_never_more_than_the_limit() {
        let sessions = Sessions::with_limit(160);
        for n in 0..2_000u32 {
            sessions.put(key(&n.to_string()), session("ann", "1", u64::from(n)), LIFE, u64::from(n));
        }
        let all: usize = sessions.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(all <= 160);
        assert!(sessions.get(&key("1999"), LIFE, 2_000).is_some());
    }
}
