//! SVIDs into files, by hand: for proxies that have no control plane.

use std::path::Path;

use rhumb_base::spiffe::SpiffeId;

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
    let files = SvidFiles {
        certificate: directory.join("tls.crt"),
        key: directory.join("tls.key"),
        bundle: directory.join("ca.crt"),
    };
    file::make_directory(directory).map_err(|error| Error::io(directory, error))?;
    for (path, content) in [
        (&files.bundle, pem::of_certificates(issued.bundle.roots())),
        (&files.key, key.private_key_pem()),
        (&files.certificate, pem::of_certificates(&issued.chain)),
    ] {
        file::replace(path, content.as_bytes()).map_err(|error| Error::io(path, error))?;
    }
    Ok((files, issued))
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
