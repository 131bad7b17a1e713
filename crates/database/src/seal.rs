//! Texts that only who has the key can read.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rhumb_base::base64;

/// What a sealed text begins with: its form.
const FORM: u8 = 1;

/// Bytes of a key.
const KEY_LEN: usize = 32;

/// A key (AES-256-GCM) with which what goes into a database is sealed. It is in no `Debug` and no message.
pub struct Seal(RandomizedNonceKey);

/// A text that this key did not seal, or not under this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is sealed with another key, or damaged")]
pub struct Opaque;

/// What is wrong with the file of a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("{path}: {source}", path = .0.display(), source = .1)]
    Io(PathBuf, #[source] io::Error),
    /// What is in it.
    #[error("{path}: not a key: 32 bytes in base64", path = .0.display())]
    Form(PathBuf),
    /// The crypto library.
    #[error("no randomness")]
    Randomness,
}

impl Seal {
    /// The key of a file, if there is one.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load(path: &Path) -> Result<Option<Self>, KeyError> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| KeyError::Io(path.to_owned(), error))?,
        };
        let bytes = base64::decode(text.trim().as_bytes()).filter(|bytes| bytes.len() == KEY_LEN);
        let bytes = bytes.ok_or_else(|| KeyError::Form(path.to_owned()))?;
        Self::new(&bytes).map(Some)
    }

    /// A new key, in a file that only its owner may read. Nothing is replaced.
    ///
    /// # Errors
    /// [`KeyError`], also when the file is there.
    pub fn make(path: &Path) -> Result<Self, KeyError> {
        let io = |error| KeyError::Io(path.to_owned(), error);
        let mut key = [0; KEY_LEN];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| KeyError::Randomness)?;
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
        }
        let mut next = path.as_os_str().to_owned();
        next.push(format!(".{}.new", std::process::id()));
        let next = PathBuf::from(next);
        let _ = fs::remove_file(&next);
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
            file.write_all(format!("{}\n", base64::encode(&key)).as_bytes())?;
            file.sync_all()?;
            // A link, and no renaming: a key that somebody else has made meanwhile stays.
            fs::hard_link(&next, path)
        };
        let written = write();
        let _ = fs::remove_file(&next);
        written.map_err(io)?;
        Self::new(&key)
    }

    fn new(key: &[u8]) -> Result<Self, KeyError> {
        RandomizedNonceKey::new(&AES_256_GCM, key).map(Self).map_err(|_| KeyError::Randomness)
    }

    /// A text as only this key opens it, under the name that it has in the database: what is put under another name does
    /// not open.
    ///
    /// # Errors
    /// [`Opaque`] when the crypto library refuses.
    pub fn close(&self, name: &str, text: &[u8]) -> Result<Vec<u8>, Opaque> {
        let mut sealed = text.to_vec();
        let nonce =
            self.0.seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut sealed).map_err(|_| Opaque)?;
        let mut whole = Vec::with_capacity(1 + NONCE_LEN + sealed.len());
        whole.push(FORM);
        whole.extend_from_slice(nonce.as_ref());
        whole.append(&mut sealed);
        Ok(whole)
    }

    /// The text that was sealed under a name.
    ///
    /// # Errors
    /// [`Opaque`].
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, Opaque> {
        let (form, rest) = sealed.split_first().ok_or(Opaque)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(Opaque)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Opaque)?;
        if *form != FORM {
            return Err(Opaque);
        }
        let mut text = text.to_vec();
        let opened =
            self.0.open_in_place(nonce, Aad::from(name.as_bytes()), &mut text).map_err(|_| Opaque)?;
        Ok(opened.to_vec())
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_the_key_opens_and_only_under_the_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("inner/seal.key");
        assert!(Seal::load(&path).unwrap().is_none());
        let seal = Seal::make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Seal::make(&path).is_err(), "a key is never replaced");
        let again = Seal::load(&path).unwrap().unwrap();
        let sealed = seal.close("authority", b"secret").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_eq!(again.open("authority", &sealed).unwrap(), b"secret");
        assert_eq!(again.open("other", &sealed), Err(Opaque));
        let other = Seal::make(&directory.path().join("other.key")).unwrap();
        assert_eq!(other.open("authority", &sealed), Err(Opaque));
        for cut in 0..sealed.len() {
            assert_eq!(again.open("authority", &sealed[..cut]), Err(Opaque), "{cut}");
        }
        fs::write(&path, "short").unwrap();
        assert!(matches!(Seal::load(&path), Err(KeyError::Form(_))));
    }
}
