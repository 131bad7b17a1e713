//! SVIDs into files, by hand: for proxies that have no control plane.

use std::io;
use std::path::Path;

use rhumb_base::spiffe::SpiffeId;
use rhumb_tls::mesh::{Bundle, Svid};
use rustls_pki_types::CertificateDer;

use crate::authority::{Authority, Error, Issued};
use crate::file;
use crate::files::SvidFiles;
use crate::pem;
use crate::request::{KeyRequest, NewKey};

/// Issues an SVID into a directory: `tls.crt`, `tls.key` and `ca.crt`, as cert-manager calls them. What is there is replaced,
/// the certificate last, so that whoever follows the files takes none that do not belong together.
///
/// **Errors**: those of [`Authority::issue`], and of the files.
pub fn hand_out(
    authority: &Authority,
    id: &SpiffeId,
    directory: &Path,
    now_unix: u64,
) -> Result<(SvidFiles, Issued), Error> {
    let key = NewKey::make()?;
    let issued = authority.issue(&KeyRequest::parse(key.request())?, id, now_unix)?;
    let files = SvidFiles::in_directory(directory);
    write(&files, directory, &issued.bundle, &key.private_key_pem(), &issued.chain)
        .map_err(|error| Error::io(directory, error))?;
    Ok((files, issued))
}

/// The roots that members trust, in PEM: what a workload that joins with a token of Kubernetes verifies the issuer with.
///
/// **Errors**: those of [`Authority::bundle`].
pub fn roots_pem(authority: &Authority, now_unix: u64) -> Result<String, Error> {
    Ok(pem::of_certificates(authority.bundle(now_unix)?.roots()))
}

/// Writes what a member has into a directory, in the same way: for programs that take their identity from files.
///
/// **Errors**: those of the files.
pub fn write_out(svid: &Svid, bundle: &Bundle, directory: &Path) -> io::Result<SvidFiles> {
    let files = SvidFiles::in_directory(directory);
    let key = pem::of_private_key(svid.private_key().secret_der());
    write(&files, directory, bundle, &key, svid.chain())?;
    Ok(files)
}

fn write(
    files: &SvidFiles,
    directory: &Path,
    bundle: &Bundle,
    key: &str,
    chain: &[CertificateDer<'static>],
) -> io::Result<()> {
    file::make_directory(directory)?;
    for (path, content) in [
        (&files.bundle, &*pem::of_certificates(bundle.roots())),
        (&files.key, key),
        (&files.certificate, &*pem::of_certificates(chain)),
    ] {
        file::replace(path, content.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileWatch, Lifetimes};
    use rhumb_base::spiffe::TrustDomain;
    use rhumb_tls::mesh::Membership;
    use std::sync::Arc;

    const NOW: u64 = 1_900_000_000;

    #[test]
    fn what_is_handed_out_is_followed() {
        let (ca, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let domain = TrustDomain::parse("td.test").unwrap();
        let id = domain.workload("shop", "orders").unwrap();
        let authority = Authority::open(ca.path(), &domain, Lifetimes::default(), NOW).unwrap();
        let (files, _) = hand_out(&authority, &id, home.path(), NOW).unwrap();
        let membership = Membership::new(domain);
        let clock: crate::Clock = Arc::new(|| NOW);
        let watch = FileWatch::open(files.clone(), membership.clone(), clock).unwrap();
        let first = membership.svid().unwrap();
        assert_eq!(first.id(), &id);
        assert!(!watch.turn().unwrap());

        // Half of a change: the one before goes on.
        let certificate = std::fs::read(&files.certificate).unwrap();
        hand_out(&authority, &id, home.path(), NOW).unwrap();
        let renewed = std::fs::read(&files.certificate).unwrap();
        std::fs::write(&files.certificate, &certificate).unwrap();
        assert!(watch.turn().is_err());
        assert_eq!(membership.svid().unwrap().facts(), first.facts());
        std::fs::write(&files.certificate, renewed).unwrap();
        assert!(watch.turn().unwrap());
        assert_ne!(membership.svid().unwrap().facts(), first.facts());
    }
}
