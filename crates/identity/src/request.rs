//! The request for a certificate: PKCS #10 (RFC 2986) for a key that never leaves its owner.

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls_pki_types::CertificateSigningRequestDer;

use crate::authority::Error;

/// The longest request: a P-256 key and its signature are about 250 bytes, other tools add extensions. Unit: bytes.
pub const MAX_REQUEST: usize = 8 * 1024;

/// An uncompressed point of P-256. SEC 1 §2.3.3. Unit: bytes.
const POINT: usize = 65;

/// A private key that has just been made, and the request for its certificate.
pub struct NewKey {
    key: KeyPair,
    request: Vec<u8>,
}

impl NewKey {
    /// Makes a key on P-256: the curve that every TLS library verifies fastest.
    ///
    /// **Errors**: [`Error::Crypto`].
    pub fn make() -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        // Whose it is follows from the proof that comes with it: what a request says of names does not count.
        let request = CertificateParams::default().serialize_request(&key)?.der().to_vec();
        Ok(Self { key, request })
    }

    /// The request in DER.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// The private key as PKCS #8 in PEM. Secret.
    #[must_use]
    pub fn private_key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").finish_non_exhaustive()
    }
}

/// The public key of a request whose signature is good: its sender has the private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRequest {
    point: Vec<u8>,
}

impl KeyRequest {
    /// Reads a request in DER. Names and extensions in it do not count.
    ///
    /// **Errors**: [`Error::Request`] for what is none, for other keys than those on P-256, and for a wrong signature.
    pub fn parse(der: &[u8]) -> Result<Self, Error> {
        if der.len() > MAX_REQUEST {
            return Err(Error::Request);
        }
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(|_| Error::Request)?;
        let key = request.public_key;
        let point = key.der_bytes();
        // The algorithm is that of the signature; the key must be of the same curve, and uncompressed.
        let is_point = point.len() == POINT && point.first() == Some(&4);
        if PublicKeyData::algorithm(&key) != &PKCS_ECDSA_P256_SHA256 || !is_point {
            return Err(Error::Request);
        }
        Ok(Self { point: point.to_vec() })
    }

    /// The key itself.
    #[must_use]
    pub fn point(&self) -> &[u8] {
        &self.point
    }
}

impl PublicKeyData for KeyRequest {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_with_a_good_signature_are_taken() {
        let key = NewKey::make().unwrap();
        let parsed = KeyRequest::parse(key.request()).unwrap();
        assert_eq!(parsed.der_bytes(), key.key.der_bytes());
        assert!(!format!("{key:?}").contains("PRIVATE"));
        for at in 0..key.request().len() {
            let mut changed = key.request().to_vec();
            changed[at] ^= 1;
            // Bits of the framing may go unnoticed; no other key is read from them.
            assert_eq!(KeyRequest::parse(&changed).ok().filter(|read| *read != parsed), None, "{at}");
            assert!(KeyRequest::parse(&key.request()[..at]).is_err(), "{at}");
        }
        assert!(KeyRequest::parse(&vec![0x30; MAX_REQUEST + 1]).is_err());
    }

    #[test]
    fn other_keys_are_not_taken() {
        for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P384_SHA384] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let request = CertificateParams::default().serialize_request(&key).unwrap();
            assert!(matches!(KeyRequest::parse(request.der()), Err(Error::Request)));
        }
    }
}
