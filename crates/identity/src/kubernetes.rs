//! Tokens of Kubernetes service accounts as a proof: verified here, with the keys of the cluster.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rhumb_base::spiffe::{SpiffeId, TrustDomain};
use rhumb_policy::jwt::service_account::{Reader, ServiceAccount};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::file;

mod fetched;

pub use fetched::FetchedKeys;

/// How tokens of Kubernetes are taken.
#[derive(Debug, Clone)]
pub struct KubernetesSettings {
    /// Who signs them: the API server's `--service-account-issuer`.
    pub issuer: String,
    /// For whom they must be: the `audience` of the projected volume.
    pub audience: String,
    /// Where their keys (RFC 7517) are.
    pub keys: Keys,
}

/// Where the keys of a cluster are.
#[derive(Debug, Clone)]
pub enum Keys {
    /// In a file, as the API server has them at `/openid/v1/jwks`. Read again when it changes.
    File(PathBuf),
    /// At the API server.
    Fetched(FetchedKeys),
}

/// Takes tokens of one cluster.
#[derive(Debug)]
pub struct Kubernetes {
    settings: KubernetesSettings,
    known: Mutex<Known>,
    /// Somebody's token was refused: there may be a key that is not known here.
    is_missed: Notify,
    fetched: AtomicU64,
    failed: AtomicU64,
}

/// The keys that are known.
#[derive(Debug, Clone, Default)]
struct Known {
    /// When their file was written.
    stamp: Option<SystemTime>,
    /// When a later file was written that is of no use, where there is one.
    useless: Option<Option<SystemTime>>,
    /// When they were last fetched. None: never, or they are from a file.
    fetched: Option<Instant>,
    /// None as long as they were never fetched.
    reader: Option<Arc<Reader>>,
}

impl Known {
    /// The keys, unless nobody has confirmed them for too long: one that the cluster has taken out of use would be good for as long
    /// as somebody keeps us from hearing of it.
    fn current(&self, now: Instant) -> Result<Arc<Reader>, &'static str> {
        let reader = self.reader.as_ref().ok_or("the keys of the cluster are not known yet")?;
        match self.fetched {
            Some(at) if now.saturating_duration_since(at) > MAX_AGE => {
                Err("the keys of the cluster are too old: its issuer has not answered for an hour")
            }
            _ => Ok(Arc::clone(reader)),
        }
    }
}

/// Why a token is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// Its text, signature, times, issuer or audience.
    #[error("{0}")]
    Token(String),
    /// The file of keys.
    #[error("{path}: {why}", path = .path.display())]
    Keys {
        /// Which file.
        path: PathBuf,
        /// Why it is of no use.
        why: String,
    },
}

/// The largest file of keys. Unit: bytes.
const MAX_KEYS: u64 = 1024 * 1024;

/// How often keys are fetched again.
const REFRESH: Duration = Duration::from_secs(300);

/// How long keys are good after they were last fetched.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// How far apart keys are fetched at least: anybody can name a key that there is not.
const SPACING: Duration = Duration::from_secs(2);

/// The first and the longest wait after keys could not be fetched.
const AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

impl Kubernetes {
    /// Reads the keys of a file. Those that are fetched are not known before somebody [follows](Self::follow) them.
    ///
    /// **Errors**: [`NotTaken::Keys`].
    pub fn open(settings: KubernetesSettings) -> Result<Self, NotTaken> {
        let known = match &settings.keys {
            Keys::File(path) => {
                // Looked at first: a file that is replaced meanwhile is read again.
                let stamp = stamp(path);
                Known { stamp, reader: Some(Arc::new(read(path)?)), ..Known::default() }
            }
            Keys::Fetched(_) => Known::default(),
        };
        Ok(Self {
            settings,
            known: Mutex::new(known),
            is_missed: Notify::new(),
            fetched: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    /// How often keys were fetched, and how often they could not be.
    pub(crate) fn fetches(&self) -> (u64, u64) {
        (self.fetched.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// Fetches the keys again and again, where they are fetched; those of before go on for an hour when nobody
    /// answers. **Cancel**: at any time.
    pub async fn follow(&self) {
        let Keys::Fetched(from) = &self.settings.keys else { return std::future::pending().await };
        let mut failed = 0;
        loop {
            match fetched::fetch(&self.settings.issuer, from).await {
                Ok(reader) => {
                    let (fetched, reader) = (Some(Instant::now()), Some(Arc::new(reader)));
                    let known = Known { fetched, reader, ..Known::default() };
                    let before = std::mem::replace(&mut *self.known(), known);
                    self.fetched.fetch_add(1, Ordering::Relaxed);
                    if before.reader.is_none() || failed > 0 {
                        tracing::info!(issuer = self.settings.issuer, "the keys of the cluster are known");
                    }
                    failed = 0;
                }
                Err(error) => {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    let takes_tokens = self.known().current(Instant::now()).is_ok();
                    tracing::warn!(error, takes_tokens, "the keys of the cluster cannot be fetched");
                    failed = (failed + 1).min(16);
                }
            }
            tokio::time::sleep(SPACING).await;
            let wait = match failed {
                0 => REFRESH,
                _ => AGAIN.0.saturating_mul(1 << (failed - 1)).min(AGAIN.1),
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.is_missed.notified() => {}
            }
        }
    }

    /// Whose token this is: `/ns/NAMESPACE/sa/ACCOUNT`.
    ///
    /// **Errors**: see [`NotTaken`].
    pub fn identify(&self, token: &[u8], domain: &TrustDomain, now_unix: u64) -> Result<SpiffeId, NotTaken> {
        let KubernetesSettings { issuer, audience, .. } = &self.settings;
        let refused = |why: &str| {
            self.is_missed.notify_one();
            NotTaken::Token(why.to_owned())
        };
        let reader = self.reader().map_err(refused)?;
        let ServiceAccount { namespace, account } =
            reader.read(token, issuer, audience, now_unix).map_err(refused)?;
        domain.workload(&namespace, &account).map_err(|invalid| NotTaken::Token(invalid.to_string()))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys of now, or why there are none.
    fn reader(&self) -> Result<Arc<Reader>, &'static str> {
        let mut known = self.known();
        if let Keys::File(path) = &self.settings.keys {
            let stamp = stamp(path);
            // A file that is being written is read next time; the keys of before go on.
            if known.stamp != stamp {
                match read(path) {
                    Ok(fresh) => *known = Known { stamp, reader: Some(Arc::new(fresh)), ..Known::default() },
                    Err(error) if known.useless != Some(stamp) => {
                        known.useless = Some(stamp);
                        tracing::warn!(%error, "the keys of the cluster cannot be read again, those of before go on");
                    }
                    Err(_) => {}
                }
            }
        }
        known.current(Instant::now())
    }
}

fn stamp(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|facts| facts.modified()).ok()
}

fn read(path: &Path) -> Result<Reader, NotTaken> {
    let bad = |why: String| NotTaken::Keys { path: path.to_owned(), why };
    let text = file::read(path, MAX_KEYS)
        .and_then(|text| text.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(|error| bad(error.to_string()))?;
    Reader::parse(&text).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7517 §A.1.
    const SET: &[u8] = br#"{"keys":[{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

    #[tokio::test]
    async fn a_file_of_no_use_leaves_the_keys_of_before_and_the_next_good_one_replaces_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.json");
        let write = |text: &[u8], secs: u64| {
            std::fs::write(&path, text).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(secs)).unwrap();
        };
        write(SET, 1000);
        let settings = KubernetesSettings {
            issuer: "https://cluster".to_owned(),
            audience: "rhumb".to_owned(),
            keys: Keys::File(path.clone()),
        };
        let kubernetes = Kubernetes::open(settings).unwrap();
        let first = kubernetes.reader().unwrap();
        write(b"nonsense", 2000);
        assert!(Arc::ptr_eq(&kubernetes.reader().unwrap(), &first));
        assert_eq!(kubernetes.known().useless, Some(stamp(&path)), "which is told once");
        std::fs::remove_file(&path).unwrap();
        assert!(Arc::ptr_eq(&kubernetes.reader().unwrap(), &first));
        assert_eq!(kubernetes.known().useless, Some(None));
        write(SET, 3000);
        assert!(!Arc::ptr_eq(&kubernetes.reader().unwrap(), &first));
        assert_eq!(kubernetes.known().useless, None);
    }

    #[tokio::test]
    async fn keys_that_nobody_confirms_are_not_good_for_ever() {
        let reader = Arc::new(Reader::parse(SET).unwrap());
        let now = Instant::now();
        let fetched = Known { fetched: Some(now), reader: Some(Arc::clone(&reader)), ..Known::default() };
        let later = MAX_AGE + Duration::from_secs(1);
        assert!(fetched.current(now + MAX_AGE).is_ok());
        assert!(fetched.current(now + later).unwrap_err().contains("too old"));
        let of_file = Known { reader: Some(reader), ..Known::default() };
        assert!(of_file.current(now + later).is_ok());
        assert!(Known::default().current(now).unwrap_err().contains("not known yet"));
    }
}
