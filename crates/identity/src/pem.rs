//! PEM (RFC 7468) of certificates and keys.

use rhumb_base::base64;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Certificates, one section each.
pub(crate) fn of_certificates<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> String {
    let mut text = String::new();
    for der in certificates {
        push(&mut text, "CERTIFICATE", der);
    }
    text
}

/// A private key that is PKCS #8.
pub(crate) fn of_private_key(der: &[u8]) -> String {
    let mut text = String::new();
    push(&mut text, "PRIVATE KEY", der);
    text
}

fn push(text: &mut String, label: &str, der: &[u8]) {
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let digits = base64::encode(der);
    let mut rest = digits.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
}

/// The certificates of a text, in its order; `None` where it is broken or has none.
pub(crate) fn certificates(text: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let list: Vec<_> = CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().ok()?;
    (!list.is_empty()).then_some(list)
}

/// The first private key of a text.
pub(crate) fn private_key(text: &[u8]) -> Option<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(text).ok()
}

/// The most certificates of one message. Unit: certificates.
const MAX_CERTIFICATES: usize = 64;

/// Certificates in DER that stand one behind the other; `None` where the bytes are no such thing.
pub(crate) fn split_der(mut bytes: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut list = Vec::new();
    while !bytes.is_empty() {
        // A SEQUENCE with a length of one to four bytes. X.690 §8.1.3.
        let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
        let count = usize::from(first & 0x7f);
        let (header, len) = if first < 0x80 {
            (2, count)
        } else {
            let digits = rest.get(..count).filter(|digits| (1..=4).contains(&digits.len()))?;
            (2 + count, digits.iter().fold(0usize, |len, &digit| len << 8 | usize::from(digit)))
        };
        if tag != 0x30 || list.len() == MAX_CERTIFICATES {
            return None;
        }
        let (der, after) = bytes.split_at_checked(header.checked_add(len)?)?;
        list.push(CertificateDer::from(der.to_vec()));
        bytes = after;
    }
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_that_stand_one_behind_the_other_are_told_apart() {
        let der = |len: usize| {
            let mut der = vec![0x30, 0x82];
            der.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
            der.resize(4 + len, 7);
            der
        };
        let both = [der(300), vec![0x30, 2, 5, 0], der(400)].concat();
        let list = split_der(&both).unwrap();
        assert_eq!(list.iter().map(|der| der.len()).collect::<Vec<_>>(), [304, 4, 404]);
        for cut in (1..304).chain(305..308).chain(309..both.len()) {
            assert_eq!(split_der(&both[..cut]), None, "{cut}");
        }
        assert_eq!(split_der(&[]), None);
        assert_eq!(split_der(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(split_der(&[0x30, 0x80]), None);
        assert_eq!(split_der(&[0x31, 0]), None);
        assert_eq!(split_der(&[0x30, 0].repeat(MAX_CERTIFICATES + 1)), None);
    }
}
