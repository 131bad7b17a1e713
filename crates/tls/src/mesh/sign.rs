//! Signatures of members: what one has said, verified by others against the bundle.

use std::time::Duration;

use rustls::SignatureScheme;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::verify::Role;
use super::{Membership, PeerSvid};

/// Bytes of one of the two numbers of a signature with P-256.
const NUMBER: usize = 32;

/// Why a signature counts for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// The certificate is not one of a member.
    #[error("its signer is no member of the mesh: {0}")]
    NoMember(String),
    /// Somebody else has signed, or something else was signed.
    #[error("its signature is not valid")]
    Signature,
}

impl Membership {
    /// Signs with the key of the SVID (ECDSA on P-256 with SHA-256, both numbers as RFC 7518 §3.4 writes them) what `say` makes
    /// of its chain, and gives both; nothing without an SVID, or with a key of another kind.
    pub fn sign(
        &self,
        say: impl FnOnce(&[CertificateDer<'static>]) -> Vec<u8>,
    ) -> Option<(Vec<u8>, [u8; 64])> {
        let svid = self.svid()?;
        let key = &svid.certificate().key().key;
        let signer = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256])?;
        let message = say(svid.chain());
        let signature = from_der(&signer.sign(&message).ok()?)?;
        Some((message, signature))
    }

    /// Who has signed a message: a member whose certificate is valid at a time and not revoked. Unit of `now_unix`: seconds
    /// since 1970.
    ///
    /// # Errors
    /// [`NotSigned`].
    pub fn verify_signed(
        &self,
        chain: &[Vec<u8>],
        message: &[u8],
        signature: &[u8],
        now_unix: u64,
    ) -> Result<PeerSvid, NotSigned> {
        let no_member = |error: rustls::Error| NotSigned::NoMember(error.to_string());
        let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| der.as_slice().into()).collect();
        let (leaf, between) =
            chain.split_first().ok_or_else(|| NotSigned::NoMember("it shows no certificate".to_owned()))?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now_unix));
        let peer = self.verify(leaf, between, now, Role::Client).map_err(no_member)?;
        let signature = to_der(signature).ok_or(NotSigned::Signature)?;
        let certificate = webpki::EndEntityCert::try_from(leaf).map_err(|_| NotSigned::Signature)?;
        certificate
            .verify_signature(webpki::aws_lc_rs::ECDSA_P256_SHA256, message, &signature)
            .map_err(|_| NotSigned::Signature)?;
        Ok(peer)
    }
}

/// The numbers of a signature in DER (RFC 3279 §2.2.3).
fn from_der(der: &[u8]) -> Option<[u8; 2 * NUMBER]> {
    let (&tag, rest) = der.split_first()?;
    let (&length, mut rest) = rest.split_first()?;
    if tag != 0x30 || usize::from(length) != rest.len() || length >= 0x80 {
        return None;
    }
    let mut both = [0; 2 * NUMBER];
    for half in both.chunks_exact_mut(NUMBER) {
        let (&tag, after) = rest.split_first()?;
        let (&length, after) = after.split_first()?;
        let (number, after) = after.split_at_checked(usize::from(length))?;
        rest = after;
        let zeros = number.iter().take_while(|&&byte| byte == 0).count();
        let number = number.get(zeros..)?;
        let start = NUMBER.checked_sub(number.len()).filter(|_| tag == 0x02)?;
        half.get_mut(start..)?.copy_from_slice(number);
    }
    rest.is_empty().then_some(both)
}

/// A signature in DER.
fn to_der(signature: &[u8]) -> Option<Vec<u8>> {
    if signature.len() != 2 * NUMBER {
        return None;
    }
    let mut content = Vec::with_capacity(2 * (NUMBER + 3));
    for half in signature.chunks_exact(NUMBER) {
        let zeros = half.iter().take_while(|&&byte| byte == 0).count();
        // Zero itself has one byte.
        let number = half.get(zeros.min(NUMBER - 1)..)?;
        // Its top bit would make it negative.
        let is_negative = number.first().is_some_and(|byte| byte & 0x80 != 0);
        content.push(0x02);
        content.push(u8::try_from(number.len() + usize::from(is_negative)).ok()?);
        content.extend(is_negative.then_some(0));
        content.extend_from_slice(number);
    }
    let mut der = vec![0x30, u8::try_from(content.len()).ok()?];
    der.append(&mut content);
    Some(der)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_value_through_der() {
        let mut small = [0; 64];
        small[31] = 1;
        small[63] = 0x80;
        let mut large = [0xff; 64];
        large[32] = 0;
        for both in [small, large, [0; 64], [0x7f; 64]] {
            assert_eq!(from_der(&to_der(&both).unwrap()), Some(both));
        }
        assert_eq!(to_der(&small).unwrap(), [0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]);
        for wrong in [
            &[][..],
            &[0x30],
            &[0x30, 0],
            &[0x30, 3, 2, 1, 1],
            &[0x31, 6, 2, 1, 1, 2, 1, 1],
            &[0x30, 0x81, 6],
        ] {
            assert_eq!(from_der(wrong), None, "{wrong:?}");
        }
        assert_eq!(to_der(&[1; 63]), None);
    }
}
