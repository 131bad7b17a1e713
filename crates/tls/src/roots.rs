//! Certificate authorities to verify peers against.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::RootCertStore;

use crate::certificate::{certificates, plain};
use crate::error::{Error, Problem};
use crate::identity::sha256;

/// Certificate authorities, parsed. Cheap to clone.
#[derive(Clone)]
pub struct Roots {
    store: Arc<RootCertStore>,
    /// SHA-256 over their DER: equal digests trust the same authorities.
    digest: [u8; 32],
}

impl Roots {
    /// Reads CA certificates from PEM. Every one must be usable: a file that somebody wrote for
    /// this purpose has no room for certificates that silently do not count.
    ///
    /// **Errors**: [`Problem::NoRoots`], [`Problem::Pem`], [`Problem::Der`],
    /// [`Problem::BadCertificate`] with its number, each with `origin`.
    pub fn parse(text: &[u8], origin: &str) -> Result<Self, Error> {
        let fail = |problem| Error::new(origin, problem);
        let list = certificates(text).map_err(fail)?;
        let mut store = RootCertStore::empty();
        let mut all = Vec::new();
        for (at, der) in list.into_iter().enumerate() {
            all.extend_from_slice(&der);
            store.add(der).map_err(|error| fail(Problem::BadCertificate(at + 1, plain(&error))))?;
        }
        if store.is_empty() {
            return Err(fail(Problem::NoRoots));
        }
        Ok(Self { store: Arc::new(store), digest: sha256(&all) })
    }

    /// The operating system's certificate authorities: the file that `SSL_CERT_FILE` names, or
    /// the first of the usual places. Certificates in it that we cannot use are left out: such
    /// bundles carry ancient ones. Parsed once for all that use them at the same time.
    ///
    /// **Errors**: [`Problem::NoSystemRoots`]; for `SSL_CERT_FILE` also [`Problem::Unreadable`].
    pub fn system() -> Result<Self, Error> {
        static SHARED: Mutex<Option<([u8; 32], Weak<RootCertStore>)>> = Mutex::new(None);
        let (text, path) = system_bundle()?;
        let digest = sha256(&text);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, store)) = shared.as_ref().filter(|(of, _)| *of == digest)
            && let Some(store) = store.upgrade()
        {
            return Ok(Self { store, digest });
        }
        let origin = path.display().to_string();
        let list = certificates(&text).map_err(|problem| Error::new(&origin, problem))?;
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(list);
        if store.is_empty() {
            return Err(Error::new(&origin, Problem::NoRoots));
        }
        let store = Arc::new(store);
        *shared = Some((digest, Arc::downgrade(&store)));
        Ok(Self { store, digest })
    }

    /// How many authorities it has; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.store.len()
    }

    pub(crate) fn store(&self) -> &Arc<RootCertStore> {
        &self.store
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.len())
    }
}

/// Where distributions keep their bundle, most common first.
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Arch, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, RHEL
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",             // openSUSE
    "/etc/pki/tls/cacert.pem",            // OpenELEC
    "/etc/ssl/cert.pem",                  // Alpine, BSD, macOS
];

fn system_bundle() -> Result<(Vec<u8>, PathBuf), Error> {
    if let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return match fs::read(&path) {
            Ok(text) => Ok((text, path)),
            Err(error) => {
                Err(Error::new(&path.display().to_string(), Problem::Unreadable(error.to_string())))
            }
        };
    }
    for path in SYSTEM_BUNDLES {
        if let Ok(text) = fs::read(path) {
            return Ok((text, PathBuf::from(path)));
        }
    }
    Err(Error::new("system CA certificates", Problem::NoSystemRoots(SYSTEM_BUNDLES.join(", "))))
}
