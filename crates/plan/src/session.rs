//! Sessions that stay at one endpoint (GEP-1619): what a token says, and who may read it.

use std::time::Duration;

use rhumb_balance::hash;
use rhumb_codec::field::{FieldName, Known};
use rhumb_codec::head::RequestHead;
use rhumb_tls::TokenKey;

use rhumb_route::field::cookie;

use crate::backend::Backend;

/// Bytes of a token's message: backend, endpoint, when it began, when it was used last.
const MESSAGE: usize = 24;

/// A token is written anew when this part of the time that a session may rest has passed.
const REFRESH: u32 = 8;

/// How the sessions of a rule or backend are carried.
#[derive(Debug)]
pub struct Session {
    /// Cookie or field.
    pub carrier: Carrier,
    /// How long one lasts at most.
    pub absolute: Option<Duration>,
    /// How long one lasts without requests.
    pub idle: Option<Duration>,
    key: TokenKey,
}

/// What carries the token of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A cookie.
    Cookie {
        /// Its name.
        name: Box<str>,
        /// Browsers keep it as long as the session lasts, not only until they end.
        is_permanent: bool,
    },
    /// A field of responses that clients send back.
    Field(FieldName),
}

/// A session that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumed {
    backend: u64,
    /// [`rhumb_balance::Endpoint::identity`] of its endpoint.
    pub endpoint: u64,
    /// When it began. Unit: seconds since 1970.
    began: u32,
    /// When its token was written.
    seen: u32,
}

impl Session {
    /// Sessions whose tokens are sealed with this secret. `None`: see [`TokenKey::derive`].
    pub fn new(
        carrier: Carrier,
        absolute: Option<Duration>,
        idle: Option<Duration>,
        secret: &[u8],
    ) -> Option<Self> {
        Some(Self { carrier, absolute, idle, key: TokenKey::derive(secret, "rhumb session persistence")? })
    }

    /// The session of a request, when it has one that still lasts. `now` is in seconds since 1970.
    pub fn resume(&self, req: &RequestHead, now: u64) -> Option<Resumed> {
        let text = match &self.carrier {
            Carrier::Cookie { name, .. } if req.fields.has(Known::Cookie) => cookie(req, name.as_bytes())?,
            Carrier::Cookie { .. } => return None,
            Carrier::Field(name) => req.fields.find(name)?,
        };
        let message: [u8; MESSAGE] = self.key.open(text)?;
        let (backend, rest) = message.split_first_chunk::<8>()?;
        let (endpoint, rest) = rest.split_first_chunk::<8>()?;
        let (began, rest) = rest.split_first_chunk::<4>()?;
        let (seen, _) = rest.split_first_chunk::<4>()?;
        let (began, seen) = (u32::from_be_bytes(*began), u32::from_be_bytes(*seen));
        let is_over =
            |since: u32, limit: Option<Duration>| limit.is_some_and(|limit| age(since, now) >= limit);
        if is_over(began, self.absolute) || is_over(seen, self.idle) {
            return None;
        }
        Some(Resumed {
            backend: u64::from_be_bytes(*backend),
            endpoint: u64::from_be_bytes(*endpoint),
            began,
            seen,
        })
    }

    /// The token for the client after an answer of this endpoint, with the time that it lasts; `None` when the one it has
    /// is still good.
    pub fn token(
        &self,
        resumed: Option<&Resumed>,
        backend: &Backend,
        endpoint: u64,
        now: u64,
    ) -> Option<(String, Option<Duration>)> {
        let same = resumed.filter(|resumed| resumed.is_of(backend) && resumed.endpoint == endpoint);
        if let Some(same) = same
            && matches!(self.carrier, Carrier::Cookie { .. })
            && self.idle.is_none_or(|idle| age(same.seen, now) < idle / REFRESH)
        {
            return None;
        }
        let seconds = u32::try_from(now).unwrap_or(u32::MAX);
        // A session that had to move is the same session: it does not last longer for that.
        let began = resumed.map_or(seconds, |resumed| resumed.began);
        let mut message = Vec::with_capacity(MESSAGE);
        message.extend_from_slice(&id(backend).to_be_bytes());
        message.extend_from_slice(&endpoint.to_be_bytes());
        message.extend_from_slice(&began.to_be_bytes());
        message.extend_from_slice(&seconds.to_be_bytes());
        let lasts = self.absolute.map(|absolute| absolute.saturating_sub(age(began, now)));
        Some((self.key.seal(&message)?, lasts))
    }
}

impl Resumed {
    /// True when the session is at this backend.
    pub fn is_of(&self, backend: &Backend) -> bool {
        self.backend == id(backend)
    }
}

fn id(backend: &Backend) -> u64 {
    hash::key(backend.name.as_str().as_bytes())
}

/// Clocks of two proxies differ: what is from the future has just begun.
fn age(since: u32, now: u64) -> Duration {
    Duration::from_secs(now.saturating_sub(since.into()))
}
