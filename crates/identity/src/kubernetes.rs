//! Tokens of Kubernetes service accounts as a proof: verified offline, with the keys of the cluster.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rhumb_base::spiffe::{SpiffeId, TrustDomain};
use rhumb_policy::jwt::service_account::{Reader, ServiceAccount};

use crate::file;

/// How tokens of Kubernetes are taken.
#[derive(Debug, Clone)]
pub struct KubernetesSettings {
    /// Who signs them: the API server's `--service-account-issuer`.
    pub issuer: String,
    /// For whom they must be: the `audience` of the projected volume.
    pub audience: String,
    /// The keys (RFC 7517), as the API server has them at `/openid/v1/jwks`. Read again when the file changes.
    pub keys: PathBuf,
}

/// Takes tokens of one cluster.
#[derive(Debug)]
pub struct Kubernetes {
    settings: KubernetesSettings,
    reader: Mutex<(Option<SystemTime>, Reader)>,
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

impl Kubernetes {
    /// Reads the keys.
    ///
    /// **Errors**: [`NotTaken::Keys`].
    pub fn open(settings: KubernetesSettings) -> Result<Self, NotTaken> {
        let reader = read(&settings.keys)?;
        let stamp = stamp(&settings.keys);
        Ok(Self { settings, reader: Mutex::new((stamp, reader)) })
    }

    /// Whose token this is: `/ns/NAMESPACE/sa/ACCOUNT`.
    ///
    /// **Errors**: see [`NotTaken`].
    pub fn identify(&self, token: &[u8], domain: &TrustDomain, now_unix: u64) -> Result<SpiffeId, NotTaken> {
        let KubernetesSettings { issuer, audience, keys } = &self.settings;
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(keys);
        if reader.0 != stamp {
            // A file that is being written is read next time; the keys of before go on.
            if let Ok(fresh) = read(keys) {
                *reader = (stamp, fresh);
            }
        }
        let ServiceAccount { namespace, account } = reader
            .1
            .read(token, issuer, audience, now_unix)
            .map_err(|why| NotTaken::Token(why.to_owned()))?;
        domain.workload(&namespace, &account).map_err(|invalid| NotTaken::Token(invalid.to_string()))
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
