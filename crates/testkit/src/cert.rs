//! Certificates for tests.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::path::{Path, PathBuf};

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, PEM.
#[derive(Clone)]
pub struct Identity {
    /// Certificate, then none of its issuers.
    pub certificate: String,
    /// PKCS #8 key.
    pub key: String,
}

/// When a certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// From 2020 to 2099.
    Good,
    /// Ended in 2021.
    Expired,
    /// Starts in 2098.
    Future,
}

impl Authority {
    /// A new authority with this common name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a P-256 key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate authority") }
    }

    /// The authority's own certificate, PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server certificate for these DNS names and addresses.
    pub fn server(&self, names: &[&str]) -> Identity {
        self.issue(names, ExtendedKeyUsagePurpose::ServerAuth, Validity::Good)
    }

    /// A server certificate whose time is not now.
    pub fn server_valid(&self, names: &[&str], validity: Validity) -> Identity {
        self.issue(names, ExtendedKeyUsagePurpose::ServerAuth, validity)
    }

    /// A client certificate; a name that is a URI (`spiffe://…`) becomes a URI SAN.
    pub fn client(&self, names: &[&str]) -> Identity {
        self.issue(names, ExtendedKeyUsagePurpose::ClientAuth, Validity::Good)
    }

    /// A client certificate whose time is not now.
    pub fn client_valid(&self, names: &[&str], validity: Validity) -> Identity {
        self.issue(names, ExtendedKeyUsagePurpose::ClientAuth, validity)
    }

    /// The certificate of a workload of a mesh with this SPIFFE ID, for both sides of a connection.
    pub fn workload(&self, id: &str) -> Identity {
        self.workload_valid(id, Validity::Good)
    }

    /// The same, whose time is not now.
    pub fn workload_valid(&self, id: &str, validity: Validity) -> Identity {
        self.issue_for(
            &[id],
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            validity,
        )
    }

    fn issue(&self, names: &[&str], usage: ExtendedKeyUsagePurpose, validity: Validity) -> Identity {
        self.issue_for(names, vec![usage], validity)
    }

    fn issue_for(
        &self,
        names: &[&str],
        usages: Vec<ExtendedKeyUsagePurpose>,
        validity: Validity,
    ) -> Identity {
        let (uris, plain): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
        let mut params =
            CertificateParams::new(plain.into_iter().map(str::to_owned).collect::<Vec<_>>()).expect("names");
        for uri in uris {
            params.subject_alt_names.push(SanType::URI(uri.try_into().expect("an ASCII URI")));
        }
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("nobody"));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        let (from, to) = match validity {
            Validity::Good => (2020, 2099),
            Validity::Expired => (2020, 2021),
            Validity::Future => (2098, 2099),
        };
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().expect("a P-256 key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

impl Identity {
    /// Writes `NAME.crt` and `NAME.key` into a directory; returns both paths. Each file appears whole (rename).
    pub fn write(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (crt, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        for (path, text) in [(&key, &self.key), (&crt, &self.certificate)] {
            let fresh = path.with_extension("new");
            std::fs::write(&fresh, text).expect("a writable directory");
            std::fs::rename(&fresh, path).expect("a rename");
        }
        (crt, key)
    }
}
