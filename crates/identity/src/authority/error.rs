//! What can be wrong with an authority or with what is asked of it.

use std::io;
use std::path::{Path, PathBuf};

use rhumb_base::spiffe::SpiffeId;

/// What can be wrong with an authority or with what is asked of it. No key is ever in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the authority is damaged, or of a version that this one does not know.
    #[error("{path}:{line}: not a file of this authority, or damaged", path = .path.display())]
    State {
        /// Which.
        path: PathBuf,
        /// Where.
        line: usize,
    },
    /// A directory with the authority of another trust domain.
    #[error("{path} is the authority of {has:?}, not of {wanted:?}", path = .path.display())]
    OtherDomain {
        /// Which file says so.
        path: PathBuf,
        /// Whose it is.
        has: String,
        /// Whose it should be.
        wanted: String,
    },
    /// There is no authority in a directory.
    #[error("{path}: no certificate authority there; the control plane makes one", path = .path.display())]
    NoAuthority {
        /// Which directory.
        path: PathBuf,
    },
    /// The database that several control planes share.
    #[error("the authority's {0}")]
    Database(#[from] rhumb_database::Error),
    /// What is in the database was written with another key.
    #[error(
        "the authority was sealed with another key: copy the file of --seal-key-file from another control plane"
    )]
    Sealed,
    /// Somebody else has changed it at the same time, again and again.
    #[error("somebody else changes the authority all the time")]
    Raced,
    /// Lifetimes that leave no time to rotate.
    #[error("{0}")]
    Lifetimes(#[from] crate::lifetimes::TooShort),
    /// A certificate or key that somebody has put there.
    #[error("{origin}: {why}")]
    Unusable {
        /// Whose.
        origin: String,
        /// Why.
        why: &'static str,
    },
    /// As [`Error::Unusable`], found by the TLS library.
    #[error("{0}")]
    Tls(#[from] rhumb_tls::Error),
    /// Peers would not take what this authority signs.
    #[error("what this authority signs does not verify against its own bundle: {0}")]
    Inconsistent(String),
    /// There is no intermediate.
    #[error("the authority has no intermediate certificate")]
    NoIntermediate,
    /// The intermediate has ended.
    #[error("the intermediate certificate has ended")]
    Expired,
    /// An identity that it does not issue.
    #[error("{0} is not issued here")]
    Identity(SpiffeId),
    /// What should be a request is none, or of a kind of key that is not taken, or its signature is wrong.
    #[error("not a certificate request (PKCS #10) with a key on P-256 and a good signature")]
    Request,
    /// A rotation of the root is under way.
    #[error("a rotation of the root is under way already")]
    RotationUnderWay,
    /// Somebody else makes the root.
    #[error("the root is not ours to rotate: the intermediate is mounted")]
    NotOurs,
    /// There is no room for more.
    #[error("too many revocations")]
    TooManyRevoked,
    /// There is no room for more.
    #[error("too many join tokens that are neither used nor ended")]
    TooManyTokens,
    /// A time that no certificate can have.
    #[error("the clock is out of the range of certificates")]
    Clock,
    /// The crypto library refused.
    #[error("crypto library: {0}")]
    Crypto(String),
}

impl Error {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

impl From<rcgen::Error> for Error {
    fn from(error: rcgen::Error) -> Self {
        Self::Crypto(error.to_string())
    }
}
