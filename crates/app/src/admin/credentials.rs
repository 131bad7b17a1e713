//! Who asks the admin listener: the token of the process, named tokens with roles, sessions of browsers, certificates of
//! clients, and tokens of an identity provider.
//!
//! Named tokens are `rhumb_NAME_SECRET`; the secret has 256 random bits and only its hash is kept, in a file that only
//! its owner can read. Wrong credentials are counted by address and by name; past a limit they are answered with 429.
//! What is too long to be guessed (every token that was made here) opens also then: otherwise whoever is on this machine
//! could lock its owner out.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::role::Role;
use super::token::{Issued, Token, hex, write_private};
use crate::health::unix_now;

/// Named tokens of one process.
const MAX_TOKENS: usize = 256;

/// The longest name of a token. **Unit**: bytes.
pub(super) const MAX_NAME: usize = 63;

/// Sessions of browsers; past these the oldest one ends.
const MAX_SESSIONS: usize = 1_024;

/// How long a session lives.
const SESSION_LIFE: Duration = Duration::from_secs(12 * 3_600);

/// Addresses and names whose wrong credentials are counted; past these the oldest count is forgotten.
const MAX_COUNTED: usize = 4_096;

/// Wrong credentials of one address, or for one name, in [`COUNT_TIME`].
const MAX_WRONG: u32 = 10;

/// How long wrong credentials are counted, and no others are looked at then.
const COUNT_TIME: Duration = Duration::from_secs(60);

/// What named tokens begin with.
const PREFIX: &str = "rhumb_";

/// The cookie of a session.
pub(crate) const COOKIE: &str = "rhumb_session";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    /// A name for the audit log.
    pub(crate) name: Arc<str>,
    /// What they may do.
    pub(crate) role: Role,
    /// How they have shown who they are.
    pub(crate) via: Via,
    /// When it ends. **Unit**: seconds since 1970.
    pub(crate) expires_at: Option<u64>,
    /// The session, by its hash.
    session: Option<Box<str>>,
}

/// Who has the token of the process; no other may be called so.
const OWNER: &str = "admin";

impl Who {
    /// Somebody whom the identity provider knows, for as long as it says.
    pub(super) fn of_provider(name: &str, role: Role, until: u64) -> Self {
        Self { name: name.into(), role, via: Via::Provider, expires_at: Some(until), session: None }
    }

    /// Somebody who has shown a certificate, for as long as that is good.
    pub(super) fn of_certificate(name: &str, role: Role, until: u64) -> Self {
        Self { name: name.into(), role, via: Via::Certificate, expires_at: Some(until), session: None }
    }

    /// A viewer within this process: what they are shown is no secret.
    pub(super) fn reader() -> Self {
        let name = "bundle".into();
        Self { name, role: Role::Viewer, via: Via::Token, expires_at: None, session: None }
    }

    /// Whoever has the token of the process.
    pub(super) fn is_owner(&self) -> bool {
        self.via == Via::Token && &*self.name == OWNER
    }

    /// A browser shows this by itself, so that a page of another origin could have it shown.
    pub(super) fn is_shown_unasked(&self) -> bool {
        matches!(self.via, Via::Session | Via::Certificate)
    }

    #[cfg(test)]
    pub(super) fn test(role: Role) -> Self {
        Self { name: "x".into(), role, via: Via::Token, expires_at: None, session: None }
    }
}

/// How somebody has shown who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Via {
    /// A token in the Authorization field.
    Token,
    /// A cookie.
    Session,
    /// A certificate.
    Certificate,
    /// A token of the identity provider.
    Provider,
}

impl Via {
    /// The word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Session => "session",
            Self::Certificate => "certificate",
            Self::Provider => "provider",
        }
    }
}

/// Why credentials open nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// They are wrong.
    Wrong,
    /// Too many were wrong; none is looked at for so many seconds.
    Limited(u64),
}

/// A named token, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    role: Role,
    /// SHA-256 of the secret, in hexadecimal digits.
    hash: Box<str>,
    created_at: u64,
    expires_at: Option<u64>,
}

/// A named token, as it is shown.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Token")]
pub(super) struct Shown {
    /// Its name.
    name: String,
    /// What it opens.
    role: Role,
    /// When it was made. Unit: seconds since 1970.
    created_at: u64,
    /// When it ends; never when there is nothing.
    expires_at: Option<u64>,
    /// When it was last used, as far as this process knows.
    last_used_at: Option<u64>,
}

/// Why a token was not made.
#[derive(Debug)]
pub(super) enum NotMade {
    /// One with this name is there.
    Exists,
    /// There are as many as there may be.
    TooMany,
    /// The file cannot be written.
    Io(io::Error),
}

/// Everything that opens the admin listener.
pub(crate) struct Credentials {
    process: Issued,
    file: Option<PathBuf>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tokens: BTreeMap<Arc<str>, Kept>,
    used: HashMap<Arc<str>, u64>,
    /// By the hash of what the cookie has.
    sessions: HashMap<Box<str>, Session>,
    wrong: HashMap<Suspect, Wrong>,
}

struct Session {
    name: Arc<str>,
    role: Role,
    /// The token that it was begun with: it ends with it.
    token: Option<Arc<str>>,
    ends: Instant,
    ends_at: u64,
}

/// Whose wrong credentials are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Suspect {
    Address(IpAddr),
    Name(Box<str>),
}

struct Wrong {
    count: u32,
    since: Instant,
}

impl Credentials {
    /// The token of the process, and named ones from `file` when there is one.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub(crate) fn new(process: Issued, file: Option<PathBuf>) -> io::Result<Self> {
        let tokens = match file.as_deref().map(fs::read) {
            Some(Ok(bytes)) => {
                let kept: BTreeMap<String, Kept> = serde_json::from_slice(&bytes)?;
                kept.into_iter().map(|(name, kept)| (name.into(), kept)).collect()
            }
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => BTreeMap::new(),
        };
        let inner = Inner { tokens, ..Inner::default() };
        Ok(Self { process, file, inner: Mutex::new(inner) })
    }

    /// Where the token of the process is.
    pub(crate) fn process_file(&self) -> Option<String> {
        self.process.path.as_ref().map(|path| path.display().to_string())
    }

    /// Who has sent the value of an Authorization field.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) fn of_field(&self, value: &[u8], peer: IpAddr) -> Result<Who, Refused> {
        let text = std::str::from_utf8(value).unwrap_or_default();
        let Some((scheme, given)) = text.split_at_checked("Bearer ".len()) else {
            return self.wrong(peer, None);
        };
        if !scheme.eq_ignore_ascii_case("Bearer ") {
            return self.wrong(peer, None);
        }
        self.of_token(given.trim(), peer)
    }

    /// Who has this token.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) fn of_token(&self, given: &str, peer: IpAddr) -> Result<Who, Refused> {
        if self.process.token.is(given) {
            if !self.process.is_made_here {
                // It may be short enough to be guessed.
                self.look(peer, None)?;
            }
            let name = Arc::from(OWNER);
            return Ok(Who { name, role: Role::Admin, via: Via::Token, expires_at: None, session: None });
        }
        let Some((name, secret)) = given.strip_prefix(PREFIX).and_then(|rest| rest.rsplit_once('_')) else {
            return self.wrong(peer, None);
        };
        let found = {
            let mut inner = self.lock();
            let found = inner.tokens.get_key_value(name).map(|(name, kept)| (Arc::clone(name), kept.clone()));
            let now = unix_now();
            let found = found.filter(|(_, kept)| {
                is_same(&kept.hash, &hashed(secret)) && kept.expires_at.is_none_or(|at| at > now)
            });
            if let Some((name, _)) = &found {
                inner.used.insert(Arc::clone(name), now);
            }
            found
        };
        match found {
            Some((name, Kept { role, expires_at, .. })) => {
                Ok(Who { name, role, via: Via::Token, expires_at, session: None })
            }
            None => self.wrong(peer, Some(name)),
        }
    }

    /// Who has this session.
    pub(super) fn of_session(&self, cookie: &str) -> Option<Who> {
        let mut inner = self.lock();
        let key = hashed(cookie);
        let session = inner.sessions.get(&*key)?;
        if session.ends <= Instant::now() {
            inner.sessions.remove(&*key);
            return None;
        }
        let (name, role, expires_at) = (Arc::clone(&session.name), session.role, Some(session.ends_at));
        Some(Who { name, role, via: Via::Session, expires_at, session: Some(key) })
    }

    /// Whether what somebody has shown is still good.
    pub(super) fn holds(&self, who: &Who) -> bool {
        let inner = self.lock();
        match &who.session {
            Some(key) => inner.sessions.get(key).is_some_and(|session| session.ends > Instant::now()),
            None if who.via != Via::Token => who.expires_at.is_none_or(|at| at > unix_now()),
            None if who.is_owner() => true,
            None => inner.tokens.get(&who.name).is_some_and(|kept| {
                kept.role == who.role && kept.expires_at.is_none_or(|at| at > unix_now())
            }),
        }
    }

    /// Begins a session for somebody, which ends with their token where they have one of their own; what the cookie has to say.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub(super) fn begin(&self, who: &Who) -> io::Result<String> {
        let cookie = random_hex()?;
        let now = Instant::now();
        let life = who
            .expires_at
            .map_or(SESSION_LIFE, |at| SESSION_LIFE.min(Duration::from_secs(at.saturating_sub(unix_now()))));
        let session = Session {
            name: Arc::clone(&who.name),
            role: who.role,
            token: (who.via == Via::Token && !who.is_owner()).then(|| Arc::clone(&who.name)),
            ends: now + life,
            ends_at: unix_now() + life.as_secs(),
        };
        let mut inner = self.lock();
        inner.sessions.retain(|_, session| session.ends > now);
        if inner.sessions.len() >= MAX_SESSIONS {
            let first = inner.sessions.iter().min_by_key(|(_, session)| session.ends);
            if let Some(first) = first.map(|(key, _)| key.clone()) {
                inner.sessions.remove(&first);
            }
        }
        inner.sessions.insert(hashed(&cookie), session);
        Ok(cookie)
    }

    /// Ends a session.
    pub(super) fn end(&self, cookie: &str) {
        self.lock().sessions.remove(&*hashed(cookie));
    }

    /// Makes a named token; what it says is told once.
    ///
    /// # Errors
    /// [`NotMade`].
    pub(super) fn create(&self, name: &str, role: Role, life: Option<u64>) -> Result<String, NotMade> {
        let secret = random_hex().map_err(NotMade::Io)?;
        let now = unix_now();
        let kept = Kept {
            role,
            hash: hashed(&secret),
            created_at: now,
            expires_at: life.map(|life| now.saturating_add(life)),
        };
        let mut inner = self.lock();
        if inner.tokens.contains_key(name) {
            return Err(NotMade::Exists);
        }
        if inner.tokens.len() >= MAX_TOKENS {
            return Err(NotMade::TooMany);
        }
        inner.tokens.insert(name.into(), kept);
        if let Err(error) = self.write(&inner) {
            inner.tokens.remove(name);
            return Err(NotMade::Io(error));
        }
        Ok(format!("{PREFIX}{name}_{secret}"))
    }

    /// Takes a token back, and ends what was begun with it. False when there is none.
    ///
    /// # Errors
    /// When the file cannot be written: it is taken back in this process all the same.
    pub(super) fn revoke(&self, name: &str) -> io::Result<bool> {
        let mut inner = self.lock();
        if inner.tokens.remove(name).is_none() {
            return Ok(false);
        }
        inner.used.remove(name);
        inner.sessions.retain(|_, session| session.token.as_deref() != Some(name));
        self.write(&inner).map(|()| true)
    }

    /// Every named token.
    pub(super) fn tokens(&self) -> Vec<Shown> {
        let inner = self.lock();
        let shown = |(name, kept): (&Arc<str>, &Kept)| Shown {
            name: (**name).to_owned(),
            role: kept.role,
            created_at: kept.created_at,
            expires_at: kept.expires_at,
            last_used_at: inner.used.get(name).copied(),
        };
        inner.tokens.iter().map(shown).collect()
    }

    fn write(&self, inner: &Inner) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let tokens: BTreeMap<&str, &Kept> = inner.tokens.iter().map(|(name, kept)| (&**name, kept)).collect();
        write_private(file, &serde_json::to_string_pretty(&tokens)?)
    }

    /// Notes that something was wrong.
    ///
    /// # Errors
    /// Always: [`Refused`].
    pub(super) fn wrong<T>(&self, peer: IpAddr, name: Option<&str>) -> Result<T, Refused> {
        self.look(peer, name)?;
        let now = Instant::now();
        let mut inner = self.lock();
        // A name that nobody has tells nothing, and would let others fill the table.
        let name = name.filter(|name| inner.tokens.contains_key(*name));
        let suspects = [Some(Suspect::Address(peer)), name.map(|name| Suspect::Name(name.into()))];
        for suspect in suspects.into_iter().flatten() {
            if inner.wrong.len() >= MAX_COUNTED && !inner.wrong.contains_key(&suspect) {
                let first = inner.wrong.iter().min_by_key(|(_, wrong)| wrong.since);
                if let Some(first) = first.map(|(first, _)| first.clone()) {
                    inner.wrong.remove(&first);
                }
            }
            let wrong = inner.wrong.entry(suspect).or_insert(Wrong { count: 0, since: now });
            if now.saturating_duration_since(wrong.since) >= COUNT_TIME {
                *wrong = Wrong { count: 0, since: now };
            }
            wrong.count = wrong.count.saturating_add(1);
        }
        Err(Refused::Wrong)
    }

    /// Whether more credentials of an address, or for a name, are looked at.
    ///
    /// # Errors
    /// [`Refused::Limited`].
    pub(super) fn look(&self, peer: IpAddr, name: Option<&str>) -> Result<(), Refused> {
        let now = Instant::now();
        let inner = self.lock();
        let suspects = [Some(Suspect::Address(peer)), name.map(|name| Suspect::Name(name.into()))];
        for wrong in suspects.iter().flatten().filter_map(|suspect| inner.wrong.get(suspect)) {
            let left = COUNT_TIME.saturating_sub(now.saturating_duration_since(wrong.since));
            if wrong.count >= MAX_WRONG && !left.is_zero() {
                return Err(Refused::Limited(left.as_secs().max(1)));
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True for what a token may be called.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != OWNER
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
}

fn random_hex() -> io::Result<String> {
    Token::random().map(|token| token.authorization()["Bearer ".len()..].to_owned())
}

/// The secret has 256 random bits: there is nothing to slow down.
fn hashed(secret: &str) -> Box<str> {
    hex(digest(&SHA256, secret.as_bytes()).as_ref()).into()
}

/// Takes as long for every text of the same length.
fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &std::path::Path) -> Credentials {
        let process = Issued::at(&dir.join("token")).unwrap();
        Credentials::new(process, Some(dir.join("tokens.json"))).unwrap()
    }

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_named_token_opens_what_its_role_may_until_it_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = open(dir.path());
        let token = credentials.create("ci", Role::Editor, None).unwrap();
        let who = credentials.of_token(&token, PEER).unwrap();
        assert_eq!((&*who.name, who.role), ("ci", Role::Editor));
        let cookie = credentials.begin(&who).unwrap();
        assert_eq!(credentials.of_session(&cookie).unwrap().role, Role::Editor);
        assert!(matches!(credentials.create("ci", Role::Admin, None), Err(NotMade::Exists)));
        let text = fs::read_to_string(dir.path().join("tokens.json")).unwrap();
        assert!(!text.contains(token.rsplit('_').next().unwrap()), "only the hash is kept");

        // Another process with the same file knows it.
        let other = Credentials::new(Issued::at(&dir.path().join("t")).unwrap(), credentials.file.clone());
        assert_eq!(other.unwrap().of_token(&token, PEER).unwrap().role, Role::Editor);

        assert!(credentials.revoke("ci").unwrap() && !credentials.revoke("ci").unwrap());
        assert_eq!(credentials.of_token(&token, PEER), Err(Refused::Wrong));
        assert_eq!(credentials.of_session(&cookie), None, "what was begun with it ends too");
    }

    #[test]
    fn a_token_ends_when_its_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = open(dir.path());
        let token = credentials.create("brief", Role::Viewer, Some(0)).unwrap();
        assert_eq!(credentials.of_token(&token, PEER), Err(Refused::Wrong));
    }

    #[test]
    fn who_guesses_is_not_heard_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("token"), "short\n").unwrap();
        let credentials = open(dir.path());
        let named = credentials.create("ci", Role::Viewer, None).unwrap();
        let other: IpAddr = "192.0.2.7".parse().unwrap();
        for _ in 0..MAX_WRONG {
            assert_eq!(credentials.of_token("guess", PEER), Err(Refused::Wrong));
        }
        assert!(matches!(credentials.of_token("guess", PEER), Err(Refused::Limited(_))));
        assert!(matches!(credentials.of_token("short", PEER), Err(Refused::Limited(_))), "it may be a guess");
        assert!(credentials.of_token(&named, PEER).is_ok(), "nobody guesses this one");
        assert!(credentials.of_token("short", other).is_ok(), "others are heard");
        for _ in 0..MAX_WRONG {
            assert_eq!(credentials.of_token("rhumb_ci_x", other), Err(Refused::Wrong));
        }
        let third: IpAddr = "192.0.2.8".parse().unwrap();
        assert!(matches!(credentials.of_token("rhumb_ci_x", third), Err(Refused::Limited(_))), "by name");
    }
}
