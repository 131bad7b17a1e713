//! The secret that opens the admin listener: made at start, kept in a file that only its owner can read, found by the
//! command line on its own.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// The longest token that is read from a file, in bytes.
const TOKEN_LIMIT: u64 = 4096;

/// The secret. Never shown: `Debug` tells nothing.
pub(crate) struct Token(Box<str>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// A token that nobody else has.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub(crate) fn random() -> io::Result<Self> {
        let mut bytes = [0u8; TOKEN_BYTES];
        let mut rest = &mut bytes[..];
        while !rest.is_empty() {
            let count = rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty())?;
            rest = &mut rest[count..];
        }
        Ok(Self(hex(&bytes).into()))
    }

    /// The token in `path`, which ends at the first line break.
    ///
    /// # Errors
    /// When the file cannot be read, is empty or is too long.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut text = String::new();
        fs::File::open(path)?.take(TOKEN_LIMIT).read_to_string(&mut text)?;
        let token = text.lines().next().unwrap_or_default().trim();
        if token.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no token in the file"));
        }
        Ok(Self(token.into()))
    }

    /// Writes the token to `path`, readable by its owner only; a file that is there is replaced whole.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        write_private(path, &format!("{}\n", self.0))
    }

    /// True when `given` is this token. Takes as long for every wrong one of a length.
    pub(crate) fn is(&self, given: &str) -> bool {
        let (given, own) = (given.as_bytes(), self.0.as_bytes());
        given.len() == own.len()
            && given.iter().zip(own).fold(0, |difference, (a, b)| std::hint::black_box(difference | (a ^ b)))
                == 0
    }

    /// The value of an `Authorization` field that carries it (RFC 6750 §2.1).
    pub(crate) fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

/// Hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a text to `path`, readable by its owner only; a file that is there is replaced whole.
///
/// # Errors
/// What the operating system says.
pub(super) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // Whatever was left behind is of no use to anybody.
        let _ = fs::remove_file(&fresh);
    }
    written
}

/// A token and the file that tells it.
#[derive(Debug)]
pub(crate) struct Issued {
    /// The token.
    pub(crate) token: Token,
    /// Where it is; `None` when no file could have it, so that nobody knows it.
    pub(crate) path: Option<PathBuf>,
    /// It has as many random bits as one that is made here; one of a user's may be guessed.
    pub(crate) is_made_here: bool,
    /// The file is removed with this value.
    is_ours: Arc<AtomicBool>,
}

impl Issued {
    /// Makes a token for the admin listener on `port` and writes it to the first place that can hold it. Without such a
    /// place (a container whose file system is read only) what needs the token stays closed, and a message says so.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub(crate) fn make(port: u16) -> io::Result<Self> {
        let token = Token::random()?;
        for dir in directories() {
            let path = dir.join(file_name(port));
            match private_directory(&dir).and_then(|()| token.write(&path)) {
                Ok(()) => {
                    return Ok(Self { token, path: Some(path), is_made_here: true, is_ours: ours(true) });
                }
                Err(error) => tracing::debug!(%error, "no admin token at {}", path.display()),
            }
        }
        tracing::warn!("no place for the admin token: name one with --admin-token-file");
        Ok(Self { token, path: None, is_made_here: true, is_ours: ours(false) })
    }

    /// The token in a file that the user named; a new one is written there when there is no such file.
    ///
    /// # Errors
    /// When it can neither be read nor written.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        match Token::read(path) {
            Ok(token) => {
                Ok(Self { token, path: Some(path.to_owned()), is_made_here: false, is_ours: ours(false) })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let token = Token::random()?;
                token.write(path).map_err(named)?;
                Ok(Self { token, path: Some(path.to_owned()), is_made_here: true, is_ours: ours(true) })
            }
            Err(error) => Err(named(error)),
        }
    }
}

impl Issued {
    /// Whether the file goes with this value, to be changed by who hands it over to another process.
    pub(crate) fn ownership(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_ours)
    }
}

fn ours(is_ours: bool) -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(is_ours))
}

impl Drop for Issued {
    fn drop(&mut self) {
        let (true, Some(path)) = (self.is_ours.load(Ordering::Relaxed), &self.path) else { return };
        // A process that took this one's place has written its own.
        if Token::read(path).is_ok_and(|written| written.0 == self.token.0) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Every token that a process of this user (or of the system) may have left for the admin listener on `port`, the most
/// likely first.
pub(crate) fn find(port: u16) -> Vec<Token> {
    let paths = directories().into_iter().map(|dir| dir.join(file_name(port)));
    paths.filter_map(|path| Token::read(&path).ok()).collect()
}

fn file_name(port: u16) -> String {
    format!("admin-{port}.token")
}

/// Where tokens are kept, the best first: what systemd gives a service or a session, the system's own directory, and a
/// private one for users who have neither.
fn directories() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut dirs = Vec::new();
    dirs.extend(variable("RUNTIME_DIRECTORY"));
    dirs.extend(variable("XDG_RUNTIME_DIR").filter(|dir| dir.is_dir()).map(|dir| dir.join("rhumb")));
    dirs.push(PathBuf::from("/run/rhumb"));
    dirs.push(std::env::temp_dir().join(format!("rhumb-{}", rustix::process::geteuid().as_raw())));
    dirs
}

/// Makes the directory when it is not there; refuses one in which others could put files.
pub(super) fn private_directory(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(dir)?;
    let is_private =
        found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0;
    if is_private {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the directory is not this user's alone"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_opens() {
        let token = Token("0123456789".into());
        for (given, opens) in [("0123456789", true), ("0123456788", false), ("012345678", false), ("", false)]
        {
            assert_eq!(token.is(given), opens, "{given}");
        }
        assert_eq!(token.authorization(), "Bearer 0123456789");
        assert!(!format!("{token:?}").contains("0123"));
    }

    #[test]
    fn tokens_differ() {
        assert_ne!(Token::random().unwrap().0, Token::random().unwrap().0);
    }

    #[test]
    fn a_token_file_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        {
            let issued = Issued::at(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            assert_eq!(Token::read(&path).unwrap().0, issued.token.0);
        }
        assert!(!path.exists(), "a token that was made here goes with its process");
        let issued = Issued::at(&path).unwrap();
        Token("of the next process".into()).write(&path).unwrap();
        drop(issued);
        assert!(path.exists(), "the token of another process stays");
        fs::write(&path, "secret\n").unwrap();
        drop(Issued::at(&path).unwrap());
        assert!(path.exists(), "a token of the user's stays");
        fs::write(&path, "\n").unwrap();
        assert!(Issued::at(&path).is_err(), "an empty file is not a token that opens for everybody");
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        DirBuilder::new().mode(0o700).create(&open).unwrap();
        assert!(private_directory(&open).is_ok());
        fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        assert!(private_directory(&open).is_err());
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        assert!(private_directory(&dir.path().join("link")).is_err());
    }
}
