//! An SVID and a bundle in files that somebody else keeps: cert-manager's CSI driver, spiffe-helper, a person.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rhumb_tls::CertificateSource;
use rhumb_tls::mesh::{Bundle, Membership, Svid};

use crate::clock::Clock;
use crate::file;

/// How often the files are read. Content counts and not the age: links that are swapped, as Kubernetes does it, keep ages.
const TURN: Duration = Duration::from_secs(2);

/// The largest file. Unit: bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Where an SVID and a bundle are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SvidFiles {
    /// PEM: leaf and intermediates.
    pub certificate: PathBuf,
    /// PEM: the private key.
    pub key: PathBuf,
    /// PEM: the roots.
    pub bundle: PathBuf,
}

impl SvidFiles {
    /// The files of a directory, as cert-manager calls them: `tls.crt`, `tls.key` and `ca.crt`.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            certificate: directory.join("tls.crt"),
            key: directory.join("tls.key"),
            bundle: directory.join("ca.crt"),
        }
    }
}

/// Keeps a membership with what is in files.
pub struct FileWatch {
    files: SvidFiles,
    membership: Membership,
    clock: Clock,
    seen: Mutex<Option<[u8; 32]>>,
}

impl std::fmt::Debug for FileWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWatch").field("files", &self.files).finish_non_exhaustive()
    }
}

impl FileWatch {
    /// Reads the files into a membership, for the first time.
    ///
    /// **Errors**: what is wrong with them, with the file's name: unreadable, no SVID, of another trust domain, not of the
    /// bundle.
    pub fn open(
        files: SvidFiles,
        membership: Membership,
        clock: Clock,
    ) -> Result<Arc<Self>, rhumb_tls::Error> {
        let watch = Self { files, membership, clock, seen: Mutex::new(None) };
        watch.turn()?;
        Ok(Arc::new(watch))
    }

    /// What it keeps.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Reads the files, and takes them over where they have changed; `true` then. Files of which one is new and another is
    /// not yet are not taken, and what was there goes on.
    ///
    /// **Errors**: as [`FileWatch::open`].
    pub fn turn(&self) -> Result<bool, rhumb_tls::Error> {
        let [chain, key, roots] =
            [&self.files.certificate, &self.files.key, &self.files.bundle].map(|path| read(path));
        let (chain, key, roots) = (chain?, key?, roots?);
        let mut all = Vec::new();
        for part in [&chain, &key, &roots] {
            all.extend_from_slice(digest(&SHA256, part).as_ref());
        }
        let hash = digest(&SHA256, &all);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.as_ref().is_some_and(|seen| seen == hash.as_ref()) {
            return Ok(false);
        }
        let origin = self.files.certificate.display().to_string();
        let svid = Svid::parse(&CertificateSource { chain, key, origin: origin.into() })?;
        let bundle = self.files.bundle.display().to_string();
        let bundle = Bundle::parse(&roots, self.membership.trust_domain(), &bundle)?;
        self.membership.swap(svid, bundle, (self.clock)())?;
        *seen = hash.as_ref().try_into().ok();
        Ok(true)
    }

    /// Follows the files for as long as it is polled. **Cancel**: at any time.
    pub async fn run(self: Arc<Self>) {
        let mut told = None;
        loop {
            tokio::time::sleep(TURN).await;
            match self.turn() {
                Ok(false) => {}
                Ok(true) => {
                    told = None;
                    tracing::info!(files = %self.files.certificate.display(), "new SVID from files");
                }
                // Once is no news: somebody may be half-way through.
                Err(error) => {
                    let text = error.to_string();
                    if told.as_ref() == Some(&text) {
                        tracing::warn!(%error, "the SVID in files is of no use; the one before goes on");
                        told = Some(String::new());
                    } else if told.as_deref() != Some("") {
                        told = Some(text);
                    }
                }
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, rhumb_tls::Error> {
    file::read(path, MAX_FILE)
        .and_then(|content| content.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(|error| rhumb_tls::Error {
            origin: path.display().to_string().into(),
            problem: rhumb_tls::Problem::Unreadable(error.to_string()),
        })
}
