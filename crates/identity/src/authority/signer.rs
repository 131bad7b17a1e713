//! Keys and names that sign, ready to use.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rhumb_base::spiffe::{SpiffeId, TrustDomain};
use rhumb_tls::Peer;
use rhumb_tls::mesh::Bundle;
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use super::Error;
use super::state::{Intermediate, Root, State};
use crate::pem;
use crate::request::{KeyRequest, NewKey};

/// What leaves are signed with, and the bundle that goes with them.
pub(super) struct Signer {
    /// The intermediate, and whatever is between it and the root; the root is not in it.
    pub(super) chain: Vec<CertificateDer<'static>>,
    issuer: Issuer<'static, KeyPair>,
    /// The least of the chain's. Unit: seconds since 1970.
    pub(super) not_after: u64,
    pub(super) bundle: Bundle,
}

/// A leaf as it was signed.
pub(super) struct Leaf {
    pub(super) der: CertificateDer<'static>,
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

impl Signer {
    /// Of an embedded authority.
    pub(super) fn of_state(state: &State, domain: &TrustDomain) -> Result<Self, Error> {
        let intermediate = state.intermediate.as_ref().ok_or(Error::NoIntermediate)?;
        let roots: String = state.roots.iter().map(|root| root.certificate.as_str()).collect();
        Self::of_pem(
            intermediate.certificate.as_bytes(),
            intermediate.key.as_bytes(),
            roots.as_bytes(),
            domain,
            "the authority",
        )
    }

    /// Of PEM texts: the chain from the intermediate on, its key, and the bundle. A root at the end of the chain is left out.
    pub(super) fn of_pem(
        chain: &[u8],
        key: &[u8],
        bundle: &[u8],
        domain: &TrustDomain,
        origin: &str,
    ) -> Result<Self, Error> {
        let bundle = Bundle::parse(bundle, domain, origin)?;
        let unusable = |why: &'static str| Error::Unusable { origin: origin.to_owned(), why };
        let mut chain = pem::certificates(chain).ok_or_else(|| unusable("no certificate in it"))?;
        chain.retain(|der| !bundle.roots().contains(der));
        let first = chain.first().ok_or_else(|| unusable("it has only the root, and no intermediate"))?;
        let mut not_after = u64::MAX;
        for der in &chain {
            let facts = Peer::parse(der).ok_or_else(|| unusable("a certificate of it does not parse"))?;
            not_after = not_after.min(u64::try_from(facts.not_after_unix).unwrap_or(0));
        }
        let key = pem::private_key(key).ok_or_else(|| unusable("its private key does not parse"))?;
        let key = KeyPair::try_from(&key)
            .map_err(|_| unusable("its private key is of no kind that we can sign with"))?;
        let issuer = Issuer::from_ca_cert_der(first, key)?;
        Ok(Self { chain, issuer, not_after, bundle })
    }

    /// Whether peers will take what it signs: a leaf that nobody gets is signed and verified as a handshake does.
    pub(super) fn probe(&self, id: &SpiffeId, now: u64) -> Result<(), Error> {
        let key = KeyRequest::parse(NewKey::make()?.request())?;
        let leaf = self.sign(&key, id, now.saturating_sub(1), self.not_after)?;
        let mut chain = vec![leaf.der];
        chain.extend(self.chain.iter().cloned());
        self.bundle.verify(&chain, now).map_err(|error| Error::Inconsistent(error.to_string()))?;
        Ok(())
    }

    pub(super) fn sign(
        &self,
        key: &KeyRequest,
        id: &SpiffeId,
        not_before: u64,
        not_after: u64,
    ) -> Result<Leaf, Error> {
        let mut params = CertificateParams::default();
        // No subject: who it is stands in the URI, and a second name would be one too many. RFC 5280 §4.1.2.6 makes the
        // extension critical then.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::ExplicitNoCa;
        params.serial_number = Some(serial()?);
        params.not_before = moment(not_before)?;
        params.not_after = moment(not_after)?;
        let der = params.signed_by(key, &self.issuer)?.der().clone();
        Ok(Leaf { der, not_before, not_after })
    }
}

/// A root that signs itself, not yet in any bundle.
pub(super) fn make_root(
    domain: &TrustDomain,
    not_before: u64,
    not_after: u64,
    longest_leaf: u64,
) -> Result<Root, Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let serial = serial()?;
    let id = hex(serial.as_ref());
    let mut params = authority(domain, "root", &id, IsCa::Ca(BasicConstraints::Constrained(1)));
    params.serial_number = Some(serial);
    params.not_before = moment(not_before)?;
    params.not_after = moment(not_after)?;
    let certificate = params.self_signed(&key)?.pem();
    Ok(Root {
        id,
        certificate,
        key: key.serialize_pem(),
        not_before,
        not_after,
        published: not_before,
        activated: None,
        retired: None,
        longest_leaf,
    })
}

pub(super) fn make_intermediate(
    domain: &TrustDomain,
    root: &Root,
    not_before: u64,
    not_after: u64,
) -> Result<Intermediate, Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let serial = serial()?;
    let mut params =
        authority(domain, "intermediate", &hex(serial.as_ref()), IsCa::Ca(BasicConstraints::Constrained(0)));
    params.serial_number = Some(serial);
    params.use_authority_key_identifier_extension = true;
    params.not_before = moment(not_before)?;
    params.not_after = moment(not_after)?;
    let unusable = |why| Error::Unusable { origin: "the authority's root".to_owned(), why };
    let der = pem::certificates(root.certificate.as_bytes())
        .and_then(|list| list.into_iter().next())
        .ok_or_else(|| unusable("no certificate in it"))?;
    let root_key =
        pem::private_key(root.key.as_bytes()).ok_or_else(|| unusable("its private key does not parse"))?;
    let issuer = Issuer::from_ca_cert_der(&der, KeyPair::try_from(&root_key)?)?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(Intermediate { root: root.id.clone(), certificate, key: key.serialize_pem(), not_before, not_after })
}

fn authority(domain: &TrustDomain, what: &str, id: &str, is_ca: IsCa) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, domain.as_str());
    // Each has a name of its own, so that a chain leads to one root and not to several to try.
    let id = id.get(..16).unwrap_or(id);
    name.push(DnType::CommonName, format!("rhumb mesh {what} {id}"));
    params.distinguished_name = name;
    params.is_ca = is_ca;
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // X509-SVID §2: a signing certificate has the ID of the trust domain, without a path.
    if let Ok(uri) = format!("spiffe://{domain}").try_into() {
        params.subject_alt_names = vec![SanType::URI(uri)];
    }
    params
}

/// 126 random bits. RFC 5280 §4.1.2.2: positive, and not longer than 20 bytes.
fn serial() -> Result<SerialNumber, Error> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Crypto("no randomness".to_owned()))?;
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn moment(unix: u64) -> Result<OffsetDateTime, Error> {
    let seconds = i64::try_from(unix).map_err(|_| Error::Clock)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| Error::Clock)
}
