//! Short messages that only proxies with the same key can read or make: tokens of sessions.

use std::fmt;

use aws_lc_rs::aead::{AES_128_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest;

const KEY_LEN: usize = 16;
const TAG_LEN: usize = 16;

/// Seals and opens tokens.
pub struct TokenKey(LessSafeKey);

impl TokenKey {
    /// The key that follows from a secret; `purpose` keeps keys of one secret apart. `None`: the library refuses, which it
    /// does for no key of this length.
    pub fn derive(secret: &[u8], purpose: &str) -> Option<Self> {
        // Both parts with their length, so that no two pairs are the same bytes.
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [purpose.as_bytes(), secret] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let hash = context.finish();
        let key = hash.as_ref().get(..KEY_LEN)?;
        Some(Self(LessSafeKey::new(UnboundKey::new(&AES_128_GCM_SIV, key).ok()?)))
    }

    /// A message as text of letters, digits, `-` and `_` (base64url, RFC 4648 §5). The same message is always the same
    /// text.
    pub fn seal(&self, message: &[u8]) -> Option<String> {
        let mut sealed = message.to_vec();
        self.0.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed).ok()?;
        Some(encode(&sealed))
    }

    /// The message of a text of exactly `N` bytes; `None` when this key has not made it.
    pub fn open<const N: usize>(&self, text: &[u8]) -> Option<[u8; N]> {
        // Whatever a client sends, no more than this is decoded.
        if text.len() != (N + TAG_LEN) * 4 / 3 + usize::from(!(N + TAG_LEN).is_multiple_of(3)) {
            return None;
        }
        let mut sealed = decode(text)?;
        let message = self.0.open_in_place(nonce(), Aad::empty(), &mut sealed).ok()?;
        (&*message).try_into().ok()
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").finish_non_exhaustive()
    }
}

/// RFC 8452 §9: with one nonce for all messages, SIV tells only whether two of them are the same.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..=chunk.len() {
            let letter = ALPHABET.get((word >> (18 - 6 * at) & 63) as usize);
            text.push(char::from(letter.copied().unwrap_or(b'A')));
        }
    }
    text
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.chunks(4) {
        let mut word = 0u32;
        for at in 0..4 {
            let value = match chunk.get(at) {
                Some(letter @ b'A'..=b'Z') => letter - b'A',
                Some(letter @ b'a'..=b'z') => letter - b'a' + 26,
                Some(letter @ b'0'..=b'9') => letter - b'0' + 52,
                Some(b'-') => 62,
                Some(b'_') => 63,
                Some(_) => return None,
                None => 0,
            };
            word = word << 6 | u32::from(value);
        }
        let whole = word.to_be_bytes();
        let count = chunk.len().checked_sub(1).filter(|count| *count > 0)?;
        // Bits behind the last byte must be zero, or two texts would be one message.
        if whole.get(1 + count..)?.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(whole.get(1..1 + count)?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_opens_a_token() {
        let key = |secret: &str, purpose| TokenKey::derive(secret.as_bytes(), purpose).unwrap();
        let text = key("secret", "a").seal(&[7; 24]).unwrap();
        assert_eq!(key("secret", "a").open(text.as_bytes()), Some([7u8; 24]));
        assert_eq!(key("secret", "a").seal(&[7; 24]).unwrap(), text);
        assert_eq!(key("secret", "b").open::<24>(text.as_bytes()), None);
        assert_eq!(key("secre", "ta").open::<24>(text.as_bytes()), None);
        assert_eq!(key("secret", "a").open::<23>(text.as_bytes()), None);
        assert!(!text.contains(&encode(&[7; 6])));
    }

    #[test]
    fn no_changed_token_is_opened() {
        let key = TokenKey::derive(b"secret", "a").unwrap();
        let text = key.seal(&[7; 24]).unwrap();
        for at in 0..text.len() {
            for byte in [b'A', b'b', b'_', b'=', b'\xff', b' '] {
                let mut changed = text.clone().into_bytes();
                if changed[at] != byte {
                    changed[at] = byte;
                    assert_eq!(key.open::<24>(&changed), None, "{at}");
                }
            }
        }
        for cut in 0..text.len() {
            assert_eq!(key.open::<24>(&text.as_bytes()[..cut]), None);
        }
        assert_eq!(key.open::<24>(format!("{text}A").as_bytes()), None);
    }

    #[test]
    fn text_is_base64url() {
        for length in 0..50u8 {
            let bytes: Vec<u8> = (0..length).map(|n| n.wrapping_mul(67)).collect();
            assert_eq!(decode(encode(&bytes).as_bytes()), Some(bytes));
        }
        assert_eq!(encode(&[0xfb, 0xff]), "-_8");
        assert_eq!(decode(b"-_9"), None);
        assert_eq!(decode(b"A"), None);
    }
}
