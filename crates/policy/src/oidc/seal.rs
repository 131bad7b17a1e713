//! What a browser carries for us through a login and cannot read or change: AES-256-GCM under a key that follows from the
//! client's secret, so that every gateway of the same client can read it.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hmac, rand};
use rhumb_base::base64;

/// Longest sealed text that is opened, in bytes.
pub(super) const SEALED_MAX: usize = 8 << 10;

/// Seals and opens.
pub(crate) struct Seal(RandomizedNonceKey);

impl Seal {
    /// The seal of a client. Without a secret it is this process's alone.
    /// Nothing when there is no randomness.
    pub(crate) fn new(secret: Option<&[u8]>, purpose: &str) -> Option<Self> {
        let own = random::<32>()?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.unwrap_or(&own));
        let key = hmac::sign(&key, purpose.as_bytes());
        // HMAC-SHA-256 gives the 32 bytes that AES-256 takes.
        RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).ok().map(Self)
    }

    /// Sealed text that a URL or cookie can carry; nothing when there is no randomness.
    pub(crate) fn close(&self, text: &[u8]) -> Option<String> {
        let mut sealed = text.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::empty(), &mut sealed).ok()?;
        let mut whole = nonce.as_ref().to_vec();
        whole.append(&mut sealed);
        Some(base64::encode_url(&whole))
    }

    /// What was sealed; nothing for anything else.
    pub(crate) fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        if sealed.len() > SEALED_MAX {
            return None;
        }
        let mut whole = base64::decode_url(sealed)?;
        if whole.len() < NONCE_LEN {
            return None;
        }
        let mut text = whole.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&whole).ok()?;
        let length = self.0.open_in_place(nonce, Aad::empty(), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

/// Bytes that nobody can guess; nothing when the system has none.
pub(crate) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_by_the_same_client_only() {
        let seal = Seal::new(Some(b"secret"), "test").unwrap();
        let sealed = seal.close(b"text").unwrap();
        assert_eq!(
            Seal::new(Some(b"secret"), "test").unwrap().open(sealed.as_bytes()),
            Some(b"text".to_vec())
        );
        assert_eq!(Seal::new(Some(b"other"), "test").unwrap().open(sealed.as_bytes()), None);
        assert_eq!(Seal::new(Some(b"secret"), "else").unwrap().open(sealed.as_bytes()), None);
        assert_ne!(seal.close(b"text").unwrap(), sealed);
        let mut changed = sealed.into_bytes();
        let last = changed.len() - 3;
        changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
        assert_eq!(seal.open(&changed), None);
        for text in [&b""[..], b"AAAA", b"!", &[b'A'; 9000]] {
            assert_eq!(seal.open(text), None);
        }
    }
}
