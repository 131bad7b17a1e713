//! What is in the files of a member, for people.

use std::path::{Path, PathBuf};

use rhumb_base::spiffe::{SpiffeId, TrustDomain};
use rhumb_tls::Peer;
use rustls_pki_types::CertificateDer;

use crate::keeper::Kept;
use crate::{file, pem};

/// The largest file that is looked into. Unit: bytes.
const MAX_FILE: u64 = 32 * 1024 * 1024;

/// The certificates of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// The leaf and what follows it.
    pub chain: Vec<Peer>,
    /// The roots, where the file has them.
    pub roots: Vec<Peer>,
}

/// Why a file cannot be looked into.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}", path = .path.display())]
pub struct NotInspected {
    path: PathBuf,
    why: String,
}

/// The trust domain of the SVID that a member has in a directory, if it has one.
#[must_use]
pub fn kept_domain(directory: &Path) -> Option<TrustDomain> {
    let inspected = inspect(directory).ok()?;
    let id = SpiffeId::parse(inspected.chain.first()?.spiffe_id()?).ok()?;
    TrustDomain::parse(id.trust_domain()).ok()
}

/// Looks into the file of a member (`svid.json`, or the directory that it is in), or one of certificates in PEM.
///
/// **Errors**: where it cannot be read, or is neither.
pub fn inspect(path: &Path) -> Result<Inspected, NotInspected> {
    let path = if path.is_dir() { path.join("svid.json") } else { path.to_owned() };
    let bad = |why: String| NotInspected { path: path.clone(), why };
    let text = file::read(&path, MAX_FILE)
        .map_err(|error| bad(error.to_string()))?
        .ok_or_else(|| bad("there is no such file".to_owned()))?;
    let facts = |list: Vec<CertificateDer<'static>>| list.iter().filter_map(|der| Peer::parse(der)).collect();
    if let Ok(kept) = serde_json::from_slice::<Kept>(&text) {
        let read = |text: &str| pem::certificates(text.as_bytes()).map(facts).unwrap_or_default();
        return Ok(Inspected { chain: read(&kept.chain), roots: read(&kept.bundle) });
    }
    let chain = pem::certificates(&text);
    let chain =
        chain.ok_or_else(|| bad("neither the file of a member nor certificates in PEM".to_owned()))?;
    Ok(Inspected { chain: facts(chain), roots: Vec::new() })
}
